//! What the kernel is known to hold of ours: read once, and followed by what it reports since.
//!
//! Nothing is taken for true because it was asked for: what an acknowledged operation changed is
//! unproven until the kernel has reported the object. Pure.

use std::collections::BTreeSet;

use netlink::{Change, Event};

use super::objects::{Key, Object, Operation, State};

/// See the module.
#[derive(Debug)]
pub(crate) struct Known {
    /// Marks our routes, rules and neighbours.
    protocol: u8,
    /// Our devices, whose neighbours are followed.
    devices: BTreeSet<u32>,
    /// Other interfaces that our objects lead to.
    leads_to: BTreeSet<u32>,
    state: State,
    unproven: BTreeSet<Key>,
    /// Something may have changed without a report.
    doubtful: bool,
}

impl Known {
    /// Follows objects of this protocol number from this state on.
    pub(crate) fn new(
        protocol: u8,
        devices: impl IntoIterator<Item = u32>,
        leads_to: impl IntoIterator<Item = u32>,
        state: State,
    ) -> Known {
        Known {
            protocol,
            devices: devices.into_iter().collect(),
            leads_to: leads_to.into_iter().collect(),
            state,
            unproven: BTreeSet::new(),
            doubtful: false,
        }
    }

    /// What the kernel holds, as far as is known.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Whether the kernel itself has shown or reported all of the state.
    pub(crate) fn is_sure(&self) -> bool {
        !self.doubtful && self.unproven.is_empty()
    }

    /// Starts anew from what is read now, given protocol number and devices.
    pub(crate) fn read_anew<E>(
        &mut self,
        read: impl FnOnce(u8, &[u32]) -> Result<State, E>,
    ) -> Result<(), E> {
        let devices: Vec<u32> = self.devices.iter().copied().collect();
        self.state = read(self.protocol, &devices)?;
        self.unproven.clear();
        self.doubtful = false;
        Ok(())
    }

    /// The kernel has acknowledged this.
    pub(crate) fn carried_out(&mut self, operation: Operation) {
        let key = operation.object().key();
        self.unproven.insert(key.clone());
        match operation {
            Operation::Add(object) | Operation::Replace(object) => {
                self.state.insert(key, object);
            }
            Operation::Delete(_) => {
                self.state.remove(&key);
            }
        }
    }

    /// Takes in what the kernel has reported, and answers which of our objects it was about.
    pub(crate) fn follow(&mut self, events: Vec<Event>) -> BTreeSet<Key> {
        let mut told = BTreeSet::new();
        for event in events {
            let (object, present, ours) = match event {
                // A device that goes down takes routes along, an address those that it is the
                // source of, without a report.
                Event::Link(change) => {
                    let (Change::Present(link) | Change::Gone(link)) = *change;
                    let index = link.index;
                    self.doubtful |=
                        self.devices.contains(&index) || self.leads_to.contains(&index);
                    continue;
                }
                Event::Address(_) | Event::Resync(_) => {
                    self.doubtful = true;
                    continue;
                }
                // Nothing of ours.
                Event::Qdisc(_) | Event::Filter(_) => continue,
                Event::Route(change) => {
                    let (route, present) = parts(change);
                    let ours = route.protocol == self.protocol;
                    (Object::route(route), present, ours)
                }
                Event::Rule(change) => {
                    let (rule, present) = parts(change);
                    let ours = rule.protocol == self.protocol;
                    (Object::rule(rule), present, ours)
                }
                Event::Neighbour(change) => {
                    let (neighbour, present) = parts(change);
                    let ours = neighbour.protocol == self.protocol
                        && self.devices.contains(&neighbour.ifindex);
                    (Object::Neighbour(neighbour), present, ours)
                }
            };
            let key = object.key();
            if !ours {
                // Another owner's, in the place of ours or beside it.
                self.doubtful |= present && self.state.contains_key(&key);
                continue;
            }
            if present {
                self.state.insert(key.clone(), object);
            } else {
                self.state.remove(&key);
            }
            self.unproven.remove(&key);
            told.insert(key);
        }
        told
    }
}

fn parts<T>(change: Change<T>) -> (T, bool) {
    match change {
        Change::Present(object) => (object, true),
        Change::Gone(object) => (object, false),
    }
}
