//! Which subnets this host may send to on its own account, for ICMP errors to reach VMs.
//!
//! A packet of our own carries no VNI, so a linked subnet is reachable only while no other scope has
//! an overlapping one: an error must never reach the VM of another CCSI. A subnet that is not linked
//! never is: its addresses are the tenant's choice, and may be those of hosts this one talks to.

use std::collections::{BTreeMap, BTreeSet};

use bgp::Prefix;

use crate::plane::entry::{EntryKey, EntryValue, ScopeId};

/// Subnets with the scopes that have them, counted.
type Subnets = BTreeMap<(Prefix, ScopeId), usize>;

/// Keeps the set of subnets that have a rule.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnRules {
    linked: Subnets,
    known: Subnets,
    changed: bool,
    ruled: BTreeSet<(Prefix, ScopeId)>,
}

/// Subnets whose rule goes, and those that get one.
pub(crate) type Difference = (BTreeSet<(Prefix, ScopeId)>, BTreeSet<(Prefix, ScopeId)>);

impl OwnRules {
    pub(crate) fn add(&mut self, key: &EntryKey, value: &EntryValue) {
        if let Some((subnets, at)) = self.place(key, value) {
            *subnets.entry(at).or_default() += 1;
            self.changed = true;
        }
    }

    pub(crate) fn remove(&mut self, key: &EntryKey, value: &EntryValue) {
        if let Some((subnets, at)) = self.place(key, value)
            && let Some(count) = subnets.get_mut(&at)
        {
            *count -= 1;
            if *count == 0 {
                subnets.remove(&at);
            }
            self.changed = true;
        }
    }

    fn place(
        &mut self,
        key: &EntryKey,
        value: &EntryValue,
    ) -> Option<(&mut Subnets, (Prefix, ScopeId))> {
        match (key, value) {
            (EntryKey::Source { subnet, .. }, EntryValue::Source { scope }) => {
                Some((&mut self.known, (*subnet, *scope)))
            }
            (
                EntryKey::Permit {
                    subnet, classic, ..
                },
                EntryValue::Permit { scope, .. },
            ) if subnet.family() == classic.family() => Some((&mut self.linked, (*subnet, *scope))),
            _ => None,
        }
    }

    /// What differs since the last call; `None` if nothing can.
    pub(crate) fn settle(&mut self) -> Option<Difference> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let elsewhere = |(subnet, scope): &(Prefix, ScopeId)| {
            self.known
                .keys()
                .chain(self.linked.keys())
                .any(|(other, its)| its != scope && other.overlaps(subnet))
        };
        let ruled: BTreeSet<_> = self
            .linked
            .keys()
            .filter(|at| !elsewhere(at))
            .copied()
            .collect();
        let gone = self.ruled.difference(&ruled).copied().collect();
        let new = ruled.difference(&self.ruled).copied().collect();
        self.ruled = ruled;
        Some((gone, new))
    }
}
