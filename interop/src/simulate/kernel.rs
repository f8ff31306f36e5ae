//! The kernel of a simulated gateway: what its plane was given, and what its peers were told. It outlives the agent.
//!
//! Endpoints are kept as hashes of 64 bits: a hundred thousand of them are in every gateway of a sample.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use bgp::Prefix;
use ccn::plane::Batch;
use ccn::plane::endpoints::Endpoints;
use ccn::plane::entry::{EntryKey, EntryValue, Hop, ScopeId};
use ccn::record::Vni;

/// Everything that a plane shall hold, as far as it is looked at here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Sources and permits.
    backing: BTreeMap<EntryKey, EntryValue>,
    /// Endpoints: hash of the key, hash of the value.
    endpoints: BTreeMap<u64, u64>,
}

fn hash(of: impl Hash) -> u64 {
    // Its keys are always the same.
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn place(scope: ScopeId, addr: IpAddr) -> u64 {
    hash((scope, addr))
}

fn value(vni: Vni, hops: &[Hop]) -> u64 {
    hash((vni, hops))
}

impl Contents {
    /// Of a plan that is made as a whole.
    pub(super) fn new(backing: BTreeMap<EntryKey, EntryValue>, endpoints: &Endpoints) -> Contents {
        let mut contents = Contents::default();
        let endpoints = endpoints.iter().map(|endpoint| {
            let hops = endpoint.hops.as_slice();
            (
                place(endpoint.scope, endpoint.addr),
                value(endpoint.vni, hops),
            )
        });
        contents.endpoints.extend(endpoints);
        for (key, value) in backing {
            contents.put(key, value);
        }
        contents
    }

    fn put(&mut self, key: EntryKey, to: EntryValue) {
        match (&key, &to) {
            (EntryKey::Endpoint { scope, addr }, EntryValue::Endpoint { vni, hops }) => {
                self.endpoints
                    .insert(place(*scope, *addr), value(*vni, hops));
            }
            _ => drop(self.backing.insert(key, to)),
        }
    }

    fn remove(&mut self, key: &EntryKey) {
        match key {
            EntryKey::Endpoint { scope, addr } => {
                self.endpoints.remove(&place(*scope, *addr));
            }
            _ => drop(self.backing.remove(key)),
        }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.backing.len() + self.endpoints.len()
    }

    /// One number for all of it.
    pub(super) fn digest(&self) -> u64 {
        let backing: Vec<String> = self
            .backing
            .iter()
            .map(|entry| format!("{entry:?}"))
            .collect();
        hash((backing, &self.endpoints))
    }

    /// The first difference, in words.
    pub(super) fn difference(&self, other: &Contents) -> Option<String> {
        let names = |it: &Contents| {
            let backing = it.backing.iter().map(|entry| format!("{entry:?}"));
            backing.collect::<BTreeSet<String>>()
        };
        let (ours, theirs) = (names(self), names(other));
        if let Some(only) = ours.symmetric_difference(&theirs).next() {
            return Some(format!("only one of them has {only}"));
        }
        let differs = self.endpoints != other.endpoints;
        let (ours, theirs) = (self.endpoints.len(), other.endpoints.len());
        differs.then(|| format!("the endpoints differ ({ours} and {theirs})"))
    }
}

/// See the room.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    contents: Contents,
    /// What is announced to the peers.
    pub(super) announced: BTreeSet<Prefix>,
    /// Entries that were written, and calls of the plane.
    pub(super) operations: u64,
    pub(super) batches: u64,
}

impl Kernel {
    pub(super) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Takes a difference over.
    pub(super) fn apply(&mut self, batch: Batch) {
        self.batches += 1;
        self.operations += (batch.upserts.len() + batch.removals.len()) as u64;
        for (key, value) in batch.upserts {
            self.contents.put(key, value);
        }
        for key in &batch.removals {
            self.contents.remove(key);
        }
    }

    /// Makes everything as it shall be.
    pub(super) fn replace(&mut self, contents: Contents) {
        self.batches += 1;
        self.contents = contents;
    }

    /// A prefix that is announced without any forwarding behind it.
    pub(super) fn unbacked(&self) -> Option<Prefix> {
        let mut permitted = BTreeSet::new();
        let mut sources = BTreeSet::new();
        for key in self.contents.backing.keys() {
            match key {
                EntryKey::Permit { subnet, .. } => drop(permitted.insert(*subnet)),
                EntryKey::Source { subnet, .. } => drop(sources.insert(*subnet)),
                EntryKey::Endpoint { .. } => {}
            }
        }
        let is_backed = |prefix: &&Prefix| permitted.contains(prefix) && sources.contains(prefix);
        self.announced
            .iter()
            .find(|prefix| !is_backed(prefix))
            .copied()
    }
}
