//! What the plane knows between two calls, and how a call changes it: translate, reconcile, run,
//! hear what the kernel reports of it, and say which entries any difference belongs to.

use std::collections::{BTreeMap, BTreeSet};

use bgp::Prefix;

use super::Sockets;
use super::compose::Host;
use super::devices;
use super::kernel;
use super::known::Known;
use super::layout::{IDC_TABLE, METRIC};
use super::objects::{Key, Object, State};
use super::reconcile::{keys_of_either, reconcile, reconcile_keys};
use super::translate::Translator;
use crate::config::PlaneConfig;
use crate::plane::entry::EntryKey;
use crate::plane::{Applied, Batch, Desired, PlaneError};

/// How often what a foreign hand changes meanwhile is mended before it is told as a failure.
const TRIES: usize = 2;

/// What is known between two calls.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) translator: Translator,
    known: Known,
    /// Learned routes that stay though no router has announced them to this run yet.
    kept: BTreeSet<Key>,
    /// Objects that did not become as desired: tried again with the next change.
    open: BTreeSet<Key>,
}

/// What is wrong with an object.
type Wrong = BTreeMap<Key, String>;

impl Held {
    /// Reads everything, and makes it as desired.
    pub(crate) fn resync(
        sockets: &mut Sockets,
        config: &PlaneConfig,
        desired: &Desired,
    ) -> Result<(Held, Applied), PlaneError> {
        let (host, changed) = devices::ensure(&mut sockets.routes, &mut sockets.netfilter, config)?;
        let actual = read_anew(sockets, &host)?;
        let mut applied = Applied {
            generation: desired.generation,
            ..Applied::default()
        };
        let mut translator = Translator::new(host);
        take_all(&mut translator, desired, &actual, &mut applied);
        translator.settle();
        let mut shall = translator.desired().clone();
        let mut kept = BTreeSet::new();
        if desired.keep_unknown_learned {
            for (key, object) in unknown_learned(&actual, &translator) {
                kept.insert(key.clone());
                shall.insert(key.clone(), object.clone());
            }
        }
        let steps = reconcile(&actual, &shall);
        applied.operations = steps.len() + changed;
        let host = translator.host();
        let leads_to = host.idc.iter().map(|link| link.index);
        let mut known = Known::new(host.protocol, host.devices(), leads_to, actual);
        let mut wrong = kernel::run(&mut sockets.routes, steps, &mut known)?;
        let mut held = Held {
            translator,
            known,
            kept,
            open: BTreeSet::new(),
        };
        if applied.operations > 0 {
            let different = held.read_anew(sockets)?;
            held.note_differences(&different, &mut wrong);
        }
        held.report(wrong, &BTreeMap::new(), &mut applied)?;
        Ok((held, applied))
    }

    /// Applies a difference. If the batch asks for that, it answers when the kernel has shown that
    /// everything is as desired: what was compared before and what it has reported since.
    pub(crate) fn apply(
        &mut self,
        sockets: &mut Sockets,
        batch: &Batch,
    ) -> Result<Applied, PlaneError> {
        let mut applied = Applied {
            generation: batch.generation,
            ..Applied::default()
        };
        let mut removed = BTreeMap::new();
        for key in &batch.removals {
            if let Some(value) = self.translator.entries().get(key) {
                removed.insert(key.clone(), self.translator.keys_of(key, value));
            }
            self.translator.remove(key);
        }
        for (key, value) in &batch.upserts {
            if let Err(reason) = self.translator.put(key, value) {
                applied.failures.insert(key.clone(), reason);
            }
        }
        for (prefix, hops) in &batch.learned {
            if let Err(reason) = self.translator.learn(*prefix, hops) {
                applied.learned_failures.insert(*prefix, reason);
            }
            // What a router now says about a kept route is worth more than that it was there.
            let key = learned_key(prefix);
            if self.kept.remove(&key) {
                self.open.insert(key);
            }
        }
        let mut touched = self.translator.settle();
        touched.append(&mut self.open);
        touched.extend(self.follow(sockets)?);

        let mut wrong = Wrong::new();
        for attempt in 1..=TRIES {
            let steps = reconcile_keys(
                touched.iter(),
                self.known.state(),
                self.translator.desired(),
            );
            applied.operations += steps.len();
            wrong.extend(kernel::run(&mut sockets.routes, steps, &mut self.known)?);
            if !batch.verify {
                break;
            }
            touched.extend(self.follow(sockets)?);
            if !self.known.is_sure() {
                touched = self.read_anew(sockets)?;
            }
            touched.retain(|key| !wrong.contains_key(key) && self.is_different(key));
            if touched.is_empty() {
                break;
            }
            if attempt == TRIES {
                self.note_differences(&touched, &mut wrong);
            }
        }
        self.report(wrong, &removed, &mut applied)?;
        Ok(applied)
    }

    /// Takes in what the kernel has reported; the objects that may be different from it now.
    fn follow(&mut self, sockets: &mut Sockets) -> Result<BTreeSet<Key>, PlaneError> {
        let mut told = self.known.follow(sockets.reports()?);
        told.retain(|key| self.is_different(key));
        Ok(told)
    }

    /// Reads everything again; the objects that are not as they shall be.
    fn read_anew(&mut self, sockets: &mut Sockets) -> Result<BTreeSet<Key>, PlaneError> {
        self.known
            .replace(read_anew(sockets, self.translator.host())?);
        let keys = keys_of_either(self.known.state(), self.translator.desired());
        Ok(keys.filter(|key| self.is_different(key)).cloned().collect())
    }

    /// An object as it is and as it shall be.
    fn is_and_shall(&self, key: &Key) -> (Option<&Object>, Option<&Object>) {
        let (actual, desired) = (self.known.state(), self.translator.desired());
        (actual.get(key), desired.get(key))
    }

    /// Whether an object is not as it shall be.
    fn is_different(&self, key: &Key) -> bool {
        let (is, shall) = self.is_and_shall(key);
        is != shall && !self.kept.contains(key)
    }

    /// Says of objects that are different what is.
    fn note_differences(&self, different: &BTreeSet<Key>, wrong: &mut Wrong) {
        for key in different {
            let reason = match self.is_and_shall(key) {
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

    /// Puts what is wrong down to the entries it belongs to.
    fn report(
        &mut self,
        wrong: Wrong,
        removed: &BTreeMap<EntryKey, Vec<Key>>,
        applied: &mut Applied,
    ) -> Result<(), PlaneError> {
        if wrong.is_empty() {
            return Ok(());
        }
        self.open = wrong.keys().cloned().collect();
        let owners = self.translator.owners(&self.open);
        for (key, reason) in wrong {
            let mut claimed = false;
            let gone = removed
                .iter()
                .filter(|(_, keys)| keys.contains(&key))
                .map(|(entry, _)| entry);
            for entry in owners.get(&key).into_iter().flatten().chain(gone) {
                applied
                    .failures
                    .entry(entry.clone())
                    .or_insert_with(|| reason.clone());
                claimed = true;
            }
            let stale = !self.translator.desired().contains_key(&key);
            if let Some(prefix) = learned_prefix(&key)
                && (stale || self.translator.has_learned(&prefix))
            {
                applied
                    .learned_failures
                    .entry(prefix)
                    .or_insert_with(|| reason.clone());
                claimed = true;
            }
            if !claimed {
                // One of the objects that are there always: without it nothing is sure.
                let action = "verify the kernel's state".to_owned();
                return Err(PlaneError::Kernel {
                    action,
                    detail: reason,
                });
            }
        }
        Ok(())
    }
}

/// Reads all that the kernel holds of ours; what it has reported before is part of that.
fn read_anew(sockets: &mut Sockets, host: &Host) -> Result<State, PlaneError> {
    sockets.reports()?;
    kernel::read(&mut sockets.routes, host.protocol, &host.devices())
}

/// Takes in the whole desired state. Where a limit is reached, what the kernel holds already goes
/// before what is new.
fn take_all(translator: &mut Translator, desired: &Desired, actual: &State, applied: &mut Applied) {
    let mut late = Vec::new();
    for (key, value) in &desired.entries {
        if translator
            .keys_of(key, value)
            .iter()
            .all(|key| actual.contains_key(key))
        {
            if let Err(reason) = translator.put(key, value) {
                applied.failures.insert(key.clone(), reason);
            }
        } else {
            late.push((key, value));
        }
    }
    for (key, value) in late {
        if let Err(reason) = translator.put(key, value) {
            applied.failures.insert(key.clone(), reason);
        }
    }
    for (prefix, hops) in &desired.learned {
        if let Err(reason) = translator.learn(*prefix, hops) {
            applied.learned_failures.insert(*prefix, reason);
        }
    }
}

/// Learned routes in the kernel that nobody has announced to this run.
fn unknown_learned<'a>(
    actual: &'a State,
    translator: &'a Translator,
) -> impl Iterator<Item = (&'a Key, &'a Object)> {
    let drops = &translator.host().drop_index;
    actual.iter().filter(move |(key, object)| {
        let Object::Route(route) = object else {
            return false;
        };
        let dropping = route
            .next_hops
            .iter()
            .any(|hop| drops.values().any(|index| *index == hop.ifindex));
        let known = learned_prefix(key).is_some_and(|prefix| translator.has_learned(&prefix));
        route.table == IDC_TABLE && route.metric == METRIC && !dropping && !known
    })
}

fn learned_key(prefix: &Prefix) -> Key {
    Key::Route(IDC_TABLE, (*prefix).into(), METRIC)
}

fn learned_prefix(key: &Key) -> Option<Prefix> {
    match key {
        Key::Route(IDC_TABLE, net, METRIC) => Prefix::try_from(*net).ok(),
        _ => None,
    }
}
