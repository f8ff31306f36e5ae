//! What an earlier run left, taken over: places, numbers, and all that is desired in its order of right.

use std::collections::{BTreeMap, BTreeSet};

use bgp::Prefix;

use super::super::cells::{Cell, Content};
use super::super::memory::Memory;
use super::endpoints::all_endpoints;
use super::{Failures, Found, Translator};
use crate::plane::Desired;
use crate::plane::entry::{EntryKey, EntryValue};

impl<M: Memory> Translator<M> {
    /// Takes over what an earlier run left, and makes of it what is desired. The answer says which
    /// entries were refused; what there is to write, [`Translator::difference`] says.
    pub(crate) fn adopt(&mut self, found: &Found, desired: &Desired) -> Failures {
        self.adopt_places(found);
        self.adopt_numbers(found, desired);
        self.take_all(found, desired)
    }

    fn adopt_places(&mut self, found: &Found) {
        let mut scopes: BTreeMap<u32, u32> = BTreeMap::new();
        for (cell, content) in found {
            match (cell, content) {
                (Cell::Subnet { scope, prefix }, Content::Subnet(subnet)) => {
                    self.addresses.adopt_subnet(*scope, *prefix, subnet);
                }
                (Cell::Vpc { vni }, Content::Vpc(vpc)) => {
                    scopes.insert(*vni, vpc.scope);
                }
                _ => {}
            }
        }
        self.addresses.adopt_slots();
        for (cell, content) in found {
            if let (Cell::Sparse { vni, addr }, Content::Slot(slot)) = (cell, content)
                && let Some(scope) = scopes.get(vni)
            {
                self.addresses.adopt_sparse(*scope, *vni, *addr, *slot);
            }
        }
    }

    fn adopt_numbers(&mut self, found: &Found, desired: &Desired) {
        for (cell, content) in found {
            if let (Cell::Vpc { vni }, Content::Vpc(vpc)) = (cell, content) {
                self.counters.adopt(vni, vpc.counter);
            }
        }
        for key in desired.entries.keys() {
            if let EntryKey::Permit {
                link, vni, classic, ..
            } = key
            {
                let (vni, prefix) = (vni.number(), *classic);
                if let Some(Content::Permit(permit)) = found.get(&Cell::Classic { vni, prefix }) {
                    self.links.adopt(link, permit.link.into());
                }
            }
        }
    }

    /// Takes in the whole desired state. Where a limit is reached, what was there goes before what is
    /// new.
    fn take_all(&mut self, found: &Found, desired: &Desired) -> Failures {
        let mut wanted: BTreeSet<(u32, Prefix)> = BTreeSet::new();
        let mut vnis: BTreeSet<u32> = BTreeSet::new();
        for (key, value) in &desired.entries {
            if let (EntryKey::Source { vni, subnet }, EntryValue::Source { scope }) = (key, value) {
                wanted.insert((scope.0.number(), *subnet));
                vnis.insert(vni.number());
            }
        }
        let stale = self.addresses.subnets().filter(|at| !wanted.contains(at));
        for (scope, prefix) in stale.collect::<Vec<_>>() {
            self.addresses.remove_subnet(scope, prefix);
        }
        let gone = self.counters.iter().map(|(vni, _)| *vni);
        for vni in gone.filter(|vni| !vnis.contains(vni)).collect::<Vec<_>>() {
            self.counters.give_back(&vni);
        }
        let mut failures = Failures::new();
        let is_source = |key: &EntryKey| matches!(key, EntryKey::Source { .. });
        let is_permit = |key: &EntryKey| matches!(key, EntryKey::Permit { .. });
        self.put_found_first(found, desired, is_source, &mut failures);
        self.put_endpoints(all_endpoints(desired), true, &mut failures);
        self.put_found_first(found, desired, is_permit, &mut failures);
        self.addresses.tidy();
        failures
    }

    fn put_found_first(
        &mut self,
        found: &Found,
        desired: &Desired,
        is_due: impl Fn(&EntryKey) -> bool,
        failures: &mut Failures,
    ) {
        for known in [true, false] {
            for (key, value) in desired.entries.iter().filter(|(key, _)| is_due(key)) {
                let cell = match (key, value) {
                    (EntryKey::Source { subnet, .. }, EntryValue::Source { scope }) => {
                        let (scope, prefix) = (scope.0.number(), *subnet);
                        Cell::Subnet { scope, prefix }
                    }
                    (EntryKey::Permit { vni, classic, .. }, _) => {
                        let (vni, prefix) = (vni.number(), *classic);
                        Cell::Classic { vni, prefix }
                    }
                    _ => continue,
                };
                if found.contains_key(&cell) == known
                    && let Err(reason) = self.put(key, value)
                {
                    failures.insert(key.clone(), reason);
                }
            }
        }
    }
}
