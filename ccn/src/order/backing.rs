//! What announcements rest on: sources and permits, and how far each has come into the plane.
//!
//! It keeps score and finds by subnet and link; what follows from that is the order's business.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt;

use bgp::Prefix;

use super::WithdrawalId;
use crate::plane::entry::{EntryKey, EntryValue};
use crate::record::LinkId;

/// How far a link has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkPhase {
    /// Accepted, not in the kernel yet.
    Pending,
    /// In the kernel and read back; not announced (yet).
    Programmed,
    /// In the kernel, read back, and given to the speaker for every peer.
    Announced,
    /// In the kernel and read back; not announced because this gateway is drained.
    Drained,
    /// Withdrawn; its forwarding stays until the peers have the withdrawal and traffic has stopped.
    Removing,
    /// The plane could not take it.
    Failed(String),
}

impl fmt::Display for LinkPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LinkPhase::Pending => "pending",
            LinkPhase::Programmed => "programmed",
            LinkPhase::Announced => "announced",
            LinkPhase::Drained => "drained",
            LinkPhase::Removing => "removing",
            LinkPhase::Failed(_) => "failed",
        })
    }
}

/// How far an entry has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Planned, not acknowledged.
    Wanted,
    /// Acknowledged.
    Applied,
    /// Refused, with the reason.
    Failed(String),
    /// No longer planned; stays until this withdrawal is done.
    Held(WithdrawalId),
    /// No longer planned; its removal is on the way.
    Removing,
}

/// The forwarding of a prefix, as far as one of its links is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forwarding {
    /// All of it is in the plane and read back.
    Verified,
    /// Some of it is on its way.
    Undecided,
    /// Some of it is refused, or nothing is planned.
    Refused,
}

#[derive(Debug)]
struct Planned {
    value: EntryValue,
    phase: Phase,
}

/// The entries, with indexes.
#[derive(Debug, Default)]
pub(super) struct Backing {
    entries: BTreeMap<EntryKey, Planned>,
    by_subnet: BTreeMap<Prefix, Keys>,
    by_link: BTreeMap<LinkId, Keys>,
}

/// Keys of an index, at least one. Most subnets are not linked and have their source alone, for which
/// a set of its own would take ten times as much.
#[derive(Debug)]
enum Keys {
    One(EntryKey),
    Several(BTreeSet<EntryKey>),
}

impl Keys {
    fn add<K: Ord>(index: &mut BTreeMap<K, Keys>, at: K, key: &EntryKey) {
        match index.entry(at) {
            Entry::Vacant(vacant) => drop(vacant.insert(Keys::One(key.clone()))),
            Entry::Occupied(mut occupied) => match occupied.get_mut() {
                Keys::Several(keys) => drop(keys.insert(key.clone())),
                Keys::One(only) if only == key => {}
                Keys::One(only) => {
                    let both = [only.clone(), key.clone()];
                    occupied.insert(Keys::Several(both.into()));
                }
            },
        }
    }

    fn remove<K: Ord>(index: &mut BTreeMap<K, Keys>, at: &K, key: &EntryKey) {
        let is_empty = match index.get_mut(at) {
            None => false,
            Some(Keys::One(only)) => only == key,
            Some(Keys::Several(keys)) => {
                keys.remove(key);
                keys.is_empty()
            }
        };
        if is_empty {
            index.remove(at);
        }
    }

    fn iter(&self) -> impl Iterator<Item = &EntryKey> {
        let (one, several) = match self {
            Keys::One(only) => (Some(only), None),
            Keys::Several(keys) => (None, Some(keys)),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }
}

/// The subnet whose announcement an entry backs; endpoints back none.
pub(super) fn subnet_of(key: &EntryKey) -> Option<Prefix> {
    match key {
        EntryKey::Source { subnet, .. } | EntryKey::Permit { subnet, .. } => Some(*subnet),
        EntryKey::Endpoint { .. } => None,
    }
}

impl Backing {
    /// Takes in a planned entry that backs `subnet`.
    pub(super) fn want(&mut self, key: &EntryKey, subnet: Prefix, value: EntryValue) {
        Keys::add(&mut self.by_subnet, subnet, key);
        if let EntryKey::Permit { link, .. } = key {
            Keys::add(&mut self.by_link, link.clone(), key);
        }
        let phase = Phase::Wanted;
        self.entries.insert(key.clone(), Planned { value, phase });
    }

    pub(super) fn phase(&self, key: &EntryKey) -> Option<&Phase> {
        self.entries.get(key).map(|entry| &entry.phase)
    }

    pub(super) fn set_phase(&mut self, key: &EntryKey, phase: Phase) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.phase = phase;
        }
    }

    /// Drops an entry that is gone from the plane.
    pub(super) fn forget(&mut self, key: &EntryKey) {
        self.entries.remove(key);
        if let Some(subnet) = subnet_of(key) {
            Keys::remove(&mut self.by_subnet, &subnet, key);
        }
        if let EntryKey::Permit { link, .. } = key {
            Keys::remove(&mut self.by_link, link, key);
        }
    }

    /// Every entry with its phase.
    pub(super) fn phases(&self) -> impl Iterator<Item = (&EntryKey, &Phase)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.phase))
    }

    /// Entries that wait for a withdrawal.
    pub(super) fn held(&self) -> impl Iterator<Item = (&EntryKey, &EntryValue)> {
        self.entries
            .iter()
            .filter(|(_, entry)| matches!(entry.phase, Phase::Held(_)))
            .map(|(key, entry)| (key, &entry.value))
    }

    /// What backs this subnet.
    pub(super) fn of_subnet(&self, subnet: &Prefix) -> impl Iterator<Item = (&EntryKey, &Phase)> {
        let keys = self.by_subnet.get(subnet).into_iter().flat_map(Keys::iter);
        keys.filter_map(|key| Some((key, self.phase(key)?)))
    }

    /// The permits of a link; `None` when it has none.
    pub(super) fn of_link(
        &self,
        link: &LinkId,
    ) -> Option<impl Iterator<Item = (&EntryKey, &Phase)>> {
        let keys = self.by_link.get(link)?;
        Some(keys.iter().filter_map(|key| Some((key, self.phase(key)?))))
    }

    /// Every link with its permits.
    pub(super) fn permits(
        &self,
    ) -> impl Iterator<Item = (&LinkId, impl Iterator<Item = (&EntryKey, &EntryValue)>)> {
        self.by_link.iter().map(|(link, keys)| {
            let values = keys.iter();
            (link, values.filter_map(|key| Some((key, self.value(key)?))))
        })
    }

    /// The value of an entry.
    pub(super) fn value(&self, key: &EntryKey) -> Option<&EntryValue> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// The phase of the source entry that a permit rests on.
    pub(super) fn source_phase(&self, permit: &EntryKey) -> Option<&Phase> {
        let EntryKey::Permit { vni, subnet, .. } = permit else {
            return None;
        };
        self.phase(&EntryKey::Source {
            vni: *vni,
            subnet: *subnet,
        })
    }

    /// The forwarding between a subnet and the classic prefixes of one link.
    pub(super) fn forwarding(&self, subnet: &Prefix, wanted: &LinkId) -> Forwarding {
        let mut seen = Forwarding::Refused;
        let permits = self
            .of_subnet(subnet)
            .filter(|(key, _)| matches!(key, EntryKey::Permit { link, .. } if link == wanted))
            // Leftovers of the link's former shape say nothing about it.
            .filter(|(_, phase)| !matches!(phase, Phase::Held(_) | Phase::Removing));
        for (key, phase) in permits {
            match (phase, self.source_phase(key)) {
                (Phase::Applied, Some(Phase::Applied)) if seen == Forwarding::Refused => {
                    seen = Forwarding::Verified;
                }
                (Phase::Applied, Some(Phase::Applied)) => {}
                (Phase::Wanted, _) | (_, Some(Phase::Wanted)) => seen = Forwarding::Undecided,
                _ => return Forwarding::Refused,
            }
        }
        seen
    }
}
