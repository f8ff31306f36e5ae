//! Keeps the kernel's objects as desired: reconciles, carries out, hears what the kernel reports of it,
//! and says what is different all the same.
//!
//! What is desired is its caller's business, and whose fault a difference is.

use std::collections::{BTreeMap, BTreeSet};

use netlink::{Journal, Socket};

use super::devices::failed;
use super::kernel;
use super::known::Known;
use super::objects::{Key, Object, State};
use super::reconcile::{Steps, keys_of_either, reconcile_keys};
use crate::plane::PlaneError;

/// How often what a foreign hand changes meanwhile is mended before it is told as a failure.
const TRIES: usize = 2;

/// What is wrong with an object.
pub(crate) type Wrong = BTreeMap<Key, String>;

/// What is known of our objects in the kernel between two calls.
#[derive(Debug)]
pub(crate) struct Keeper {
    known: Known,
    /// Learned routes that stay though no router has announced them to this run yet.
    kept: BTreeSet<Key>,
    /// Objects that did not become as desired: tried again with the next change.
    open: BTreeSet<Key>,
}

impl Keeper {
    /// Follows objects of this protocol number, and neighbours of these devices, from this state on.
    /// What is `kept` stays, whatever is desired.
    pub(crate) fn new(
        protocol: u8,
        devices: impl IntoIterator<Item = u32>,
        leads_to: impl IntoIterator<Item = u32>,
        actual: State,
        kept: BTreeSet<Key>,
    ) -> Keeper {
        Keeper {
            known: Known::new(protocol, devices, leads_to, actual),
            kept,
            open: BTreeSet::new(),
        }
    }

    /// An object is no longer kept for its own sake.
    pub(crate) fn forget_kept(&mut self, key: &Key) {
        if self.kept.remove(key) {
            self.open.insert(key.clone());
        }
    }

    /// These did not become as desired, and are tried again with the next change.
    pub(crate) fn leave_open(&mut self, wrong: &Wrong) {
        self.open = wrong.keys().cloned().collect();
    }

    /// Carries out steps. Answers what was refused.
    pub(crate) fn run(&mut self, socket: &mut Socket, steps: Steps) -> Result<Wrong, PlaneError> {
        kernel::run(socket, steps, &mut self.known)
    }

    /// Makes what was touched, and whatever the kernel has reported, as desired. With `verify` it
    /// answers when the kernel has shown that all is: what was compared before and what it has
    /// reported since. Answers the number of operations, and what is wrong.
    pub(crate) fn bring(
        &mut self,
        socket: &mut Socket,
        journal: &mut Journal,
        desired: &State,
        mut touched: BTreeSet<Key>,
        verify: bool,
    ) -> Result<(usize, Wrong), PlaneError> {
        touched.append(&mut self.open);
        touched.extend(self.follow(journal, desired)?);
        let (mut operations, mut wrong) = (0, Wrong::new());
        for attempt in 1..=TRIES {
            let steps = reconcile_keys(touched.iter(), self.known.state(), desired);
            operations += steps.len();
            wrong.extend(self.run(socket, steps)?);
            if !verify {
                break;
            }
            touched.extend(self.follow(journal, desired)?);
            if !self.known.is_sure() {
                touched = self.read_anew(socket, journal, desired)?;
            }
            touched.retain(|key| !wrong.contains_key(key) && self.is_different(key, desired));
            if touched.is_empty() {
                break;
            }
            if attempt == TRIES {
                self.note_differences(&touched, desired, &mut wrong);
            }
        }
        Ok((operations, wrong))
    }

    /// Takes in what the kernel has reported; the objects that may be different from it now.
    fn follow(
        &mut self,
        journal: &mut Journal,
        desired: &State,
    ) -> Result<BTreeSet<Key>, PlaneError> {
        let mut told = self.known.follow(reports(journal)?);
        told.retain(|key| self.is_different(key, desired));
        Ok(told)
    }

    /// Reads everything again; the objects that are not as they shall be.
    pub(crate) fn read_anew(
        &mut self,
        socket: &mut Socket,
        journal: &mut Journal,
        desired: &State,
    ) -> Result<BTreeSet<Key>, PlaneError> {
        // What was reported before is part of what is read.
        reports(journal)?;
        self.known
            .read_anew(|protocol, devices| kernel::read(socket, protocol, devices))?;
        let keys = keys_of_either(self.known.state(), desired);
        Ok(keys
            .filter(|key| self.is_different(key, desired))
            .cloned()
            .collect())
    }

    /// Whether an object is not as it shall be.
    fn is_different(&self, key: &Key, desired: &State) -> bool {
        self.known.state().get(key) != desired.get(key) && !self.kept.contains(key)
    }

    /// Says of objects that are different what is.
    pub(crate) fn note_differences(
        &self,
        different: &BTreeSet<Key>,
        desired: &State,
        wrong: &mut Wrong,
    ) {
        for key in different {
            let is_and_shall: (Option<&Object>, Option<&Object>) =
                (self.known.state().get(key), desired.get(key));
            let reason = match is_and_shall {
                (Some(is), Some(shall)) => {
                    format!("the kernel shows `{is}` instead of `{shall}`")
                }
                (None, Some(shall)) => format!("the kernel does not show `{shall}`"),
                (Some(is), None) => format!("the kernel still shows `{is}`"),
                (None, None) => continue,
            };
            // What the kernel said when it refused explains more.
            wrong.entry(key.clone()).or_insert(reason);
        }
    }
}

/// What the kernel has reported since the last call.
pub(crate) fn reports(journal: &mut Journal) -> Result<Vec<netlink::Event>, PlaneError> {
    journal
        .take()
        .map_err(|error| failed("read what the kernel reports", error))
}
