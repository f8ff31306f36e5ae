//! Entries to cells and slots, incrementally: what each map should hold, and what is refused.
//!
//! Slots are stored at once, since no other slot depends on them; what changes in hash maps is told by
//! [`Translator::settle`], in the order in which it is to be written. After any history the maps lead
//! to the same endpoints and permits as after the last entries alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::{Family, Prefix};

use super::addresses::Addresses;
use super::cells::{Cell, Changes, Content, Counted};
use super::layout::{Globals, LENGTHS};
use super::lengths::LengthCounts;
use super::memory::Memory;
use super::numbers::Numbers;
use super::places::Places;
use super::samples::Sampling;
use crate::plane::Batch;
use crate::plane::entry::{EntryKey, EntryValue};
use crate::record::{LinkId, Mode};

mod adopt;
mod content;
mod endpoints;
mod headroom;
mod owners;

use endpoints::endpoint_of;

/// Most VPCs, and as many counters.
pub(crate) const MAX_VPCS: u32 = 65_536;
/// Most links, and as many counters.
pub(crate) const MAX_LINKS: u32 = 16_384;
const _: () = assert!(MAX_LINKS <= 1 << 16, "a permit names its link in 16 bits");
/// Most subnets of a family.
pub(crate) const MAX_SUBNETS: usize = 131_072;
/// Most classic prefixes of a family, counted for each VPC.
pub(crate) const MAX_CLASSICS: usize = 262_144;

/// What of this host the maps depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Host {
    /// Without the lengths of linked subnets, which are filled in.
    pub(crate) globals: Globals,
    /// The host's own addresses: packets for those are the stack's, also inside a linked subnet.
    pub(crate) own: BTreeSet<IpAddr>,
}

/// What an earlier run left in the hash maps.
pub(crate) type Found = BTreeMap<Cell, Content>;

/// Which entries came to nothing, and why.
pub(crate) type Failures = BTreeMap<EntryKey, String>;

/// Permits of one classic prefix, with mode and DSCP.
type Permits = BTreeMap<(LinkId, Prefix), (Mode, Option<u8>)>;

#[derive(Debug, Default)]
struct VpcState {
    scope: u32,
    subnets: BTreeSet<Prefix>,
    /// By classic prefix; then by link and subnet.
    permits: BTreeMap<Prefix, Permits>,
    /// Lengths of its classic prefixes.
    classics: LengthCounts,
    /// Permits of each linked subnet.
    linked: BTreeMap<Prefix, usize>,
}

#[derive(Debug, Default)]
struct Scope {
    lengths: LengthCounts,
    vpcs: BTreeSet<u32>,
}

/// Keeps what the maps should hold.
#[derive(Debug)]
pub(crate) struct Translator<M> {
    host: Host,
    addresses: Addresses<M>,
    vpcs: BTreeMap<u32, VpcState>,
    scopes: BTreeMap<u32, Scope>,
    /// The scope of each subnet of each VPC.
    sources: BTreeMap<(u32, Prefix), u32>,
    /// VPCs that a linked subnet belongs to, the newest last. More than one only while one goes.
    linked: BTreeMap<Prefix, Vec<u32>>,
    linked_lengths: LengthCounts,
    classics: BTreeMap<Family, usize>,
    subnets: BTreeMap<Family, usize>,
    links: Numbers<LinkId>,
    /// How many permits each link has.
    link_uses: BTreeMap<LinkId, usize>,
    counters: Numbers<u32>,
    touched: BTreeSet<Cell>,
}

impl<M: Memory> Translator<M> {
    /// One that holds nothing. `fresh`: nobody has counted anything yet.
    pub(crate) fn new(host: Host, memory: M, fresh: bool) -> Translator<M> {
        let from = |max: u32| if fresh { 0 } else { max };
        Translator {
            host,
            addresses: Addresses::new(Places::new(memory)),
            vpcs: BTreeMap::new(),
            scopes: BTreeMap::new(),
            sources: BTreeMap::new(),
            linked: BTreeMap::new(),
            linked_lengths: LengthCounts::default(),
            classics: BTreeMap::new(),
            subnets: BTreeMap::new(),
            links: Numbers::new(MAX_LINKS, from(MAX_LINKS)),
            link_uses: BTreeMap::new(),
            counters: Numbers::new(MAX_VPCS, from(MAX_VPCS)),
            touched: BTreeSet::new(),
        }
    }

    /// Takes in a difference. What finds no room is tried again when what goes has gone. The answer
    /// says which entries were refused.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Failures {
        let mut refused = self.put_all(batch.upserts.iter());
        // Permits first, then endpoints, then the subnets they are in.
        for key in batch.removals.iter().rev() {
            self.remove(key);
        }
        if !refused.is_empty() && !batch.removals.is_empty() {
            let again = batch
                .upserts
                .iter()
                .filter(|(key, _)| refused.contains_key(*key));
            refused = self.put_all(again.collect::<Vec<_>>().into_iter());
        }
        self.addresses.tidy();
        refused
    }

    /// Entries are in order: sources, then endpoints, then permits.
    fn put_all<'a>(
        &mut self,
        entries: impl Iterator<Item = (&'a EntryKey, &'a EntryValue)> + Clone,
    ) -> Failures {
        let mut failures = Failures::new();
        for permits in [false, true] {
            if permits {
                let endpoints = entries.clone().filter_map(endpoint_of);
                self.put_endpoints(endpoints, false, &mut failures);
            }
            for (key, value) in entries.clone() {
                let is_due = match key {
                    EntryKey::Source { .. } => !permits,
                    EntryKey::Permit { .. } => permits,
                    EntryKey::Endpoint { .. } => false,
                };
                if is_due && let Err(reason) = self.put(key, value) {
                    failures.insert(key.clone(), reason);
                }
            }
        }
        failures
    }

    /// Takes in a source or a permit, in place of the one with its key.
    fn put(&mut self, key: &EntryKey, value: &EntryValue) -> Result<(), String> {
        match (key, value) {
            (EntryKey::Source { vni, subnet }, EntryValue::Source { scope }) => {
                self.put_source(vni.number(), *subnet, scope.0.number())
            }
            (
                EntryKey::Permit {
                    link,
                    vni,
                    subnet,
                    classic,
                },
                EntryValue::Permit { mode, dscp, .. },
            ) if subnet.family() == classic.family() => self.put_permit(
                vni.number(),
                *classic,
                (link.clone(), *subnet),
                (*mode, *dscp),
            ),
            _ => Ok(()),
        }
    }

    fn put_source(&mut self, vni: u32, subnet: Prefix, scope: u32) -> Result<(), String> {
        let before = self.sources.get(&(vni, subnet)).copied();
        if before == Some(scope) && self.addresses.vni(scope, subnet) == Some(vni) {
            return Ok(());
        }
        let is_new = self.known_subnet(scope, subnet).is_none();
        let in_scope = self.scopes.get(&scope);
        if is_new && in_scope.is_some_and(|it| !it.lengths.has_room(&subnet, 0)) {
            return Err(format!(
                "the ebpf plane holds subnets of at most {LENGTHS} different lengths in a CCSI; \
                 {subnet} is one more"
            ));
        }
        let count = self.subnets.get(&subnet.family()).copied().unwrap_or(0);
        if is_new && before.is_none() && count >= MAX_SUBNETS {
            return Err(format!(
                "the ebpf plane holds at most {MAX_SUBNETS} subnets of a family"
            ));
        }
        if self.counters.number(&vni).is_none() {
            return Err(format!(
                "the ebpf plane holds at most {MAX_VPCS} VPCs; VNI {vni} is one more"
            ));
        }
        if is_new {
            *self.subnets.entry(subnet.family()).or_default() += 1;
            let its = self.scopes.entry(scope).or_default();
            if its.lengths.add(&subnet) {
                let vpcs = its.vpcs.iter().map(|vni| Cell::Vpc { vni: *vni });
                self.touched.extend(vpcs);
            }
        }
        self.addresses.put_subnet(scope, subnet, vni);
        self.sources.insert((vni, subnet), scope);
        let vpc = self.vpcs.entry(vni).or_default();
        vpc.subnets.insert(subnet);
        let old_scope = std::mem::replace(&mut vpc.scope, scope);
        if old_scope != scope {
            self.leave(vni, old_scope);
        }
        self.scopes.entry(scope).or_default().vpcs.insert(vni);
        self.touched.insert(Cell::Vpc { vni });
        if let Some(before) = before.filter(|before| *before != scope) {
            self.remove_subnet(before, subnet, vni);
        }
        Ok(())
    }

    /// The VNI that a subnet is known to belong to by its entries, not by what was found.
    fn known_subnet(&self, scope: u32, subnet: Prefix) -> Option<u32> {
        let vni = self.addresses.vni(scope, subnet)?;
        (self.sources.get(&(vni, subnet)) == Some(&scope)).then_some(vni)
    }

    fn leave(&mut self, vni: u32, scope: u32) {
        if let Some(its) = self.scopes.get_mut(&scope) {
            its.vpcs.remove(&vni);
            if its.vpcs.is_empty() && its.lengths == LengthCounts::default() {
                self.scopes.remove(&scope);
            }
        }
    }

    /// Takes a subnet out of a scope, unless another VPC has it there by now.
    fn remove_subnet(&mut self, scope: u32, subnet: Prefix, vni: u32) {
        if self.addresses.vni(scope, subnet) != Some(vni) {
            return;
        }
        self.addresses.remove_subnet(scope, subnet);
        if let Some(count) = self.subnets.get_mut(&subnet.family()) {
            *count -= 1;
        }
        if let Some(its) = self.scopes.get_mut(&scope) {
            if its.lengths.remove(&subnet) {
                let vpcs = its.vpcs.iter().map(|vni| Cell::Vpc { vni: *vni });
                self.touched.extend(vpcs);
            }
            if its.vpcs.is_empty() && its.lengths == LengthCounts::default() {
                self.scopes.remove(&scope);
            }
        }
    }

    fn put_permit(
        &mut self,
        vni: u32,
        classic: Prefix,
        key: (LinkId, Prefix),
        value: (Mode, Option<u8>),
    ) -> Result<(), String> {
        let (link, subnet) = (key.0.clone(), key.1);
        if !self.sources.contains_key(&(vni, subnet)) {
            return Err(format!("{subnet} is not known as a subnet of VNI {vni}"));
        }
        let Some(vpc) = self.vpcs.get_mut(&vni) else {
            return Err(format!("VNI {vni} is not known"));
        };
        let new_classic = !vpc.permits.contains_key(&classic);
        let new_linked = !self.linked.contains_key(&subnet);
        let count = self.classics.get(&classic.family()).copied().unwrap_or(0);
        if new_classic && count >= MAX_CLASSICS {
            return Err(format!(
                "the ebpf plane holds at most {MAX_CLASSICS} classic prefixes of a family"
            ));
        }
        if new_classic && !vpc.classics.has_room(&classic, 0) {
            return Err(format!(
                "the ebpf plane holds classic prefixes of at most {LENGTHS} different lengths for a \
                 VPC; {classic} is one more"
            ));
        }
        if new_linked && self.linked.len() >= MAX_SUBNETS {
            return Err(format!(
                "the ebpf plane holds at most {MAX_SUBNETS} linked subnets"
            ));
        }
        // One length is kept for addresses of this host.
        if new_linked && !self.linked_lengths.has_room(&subnet, 1) {
            return Err(format!(
                "the ebpf plane holds linked subnets of at most {} different lengths; {subnet} is one \
                 more",
                LENGTHS - 1
            ));
        }
        if self.links.number(&link).is_none() {
            return Err(format!(
                "the ebpf plane holds at most {MAX_LINKS} links; {link} is one more"
            ));
        }
        self.touched.insert(Cell::Classic {
            vni,
            prefix: classic,
        });
        if vpc
            .permits
            .entry(classic)
            .or_default()
            .insert(key, value)
            .is_some()
        {
            return Ok(());
        }
        *self.link_uses.entry(link).or_default() += 1;
        if new_classic {
            *self.classics.entry(classic.family()).or_default() += 1;
            if vpc.classics.add(&classic) {
                self.touch_classic_lengths(vni);
            }
        }
        let Some(vpc) = self.vpcs.get_mut(&vni) else {
            return Ok(());
        };
        let permits = vpc.linked.entry(subnet).or_default();
        *permits += 1;
        if *permits == 1 {
            let owners = self.linked.entry(subnet).or_default();
            owners.push(vni);
            if owners.len() == 1 {
                self.linked_lengths.add(&subnet);
            }
            self.touched.insert(Cell::Linked { prefix: subnet });
        }
        Ok(())
    }

    /// The lengths of a VPC's classic prefixes stand in the VPC and in its linked subnets.
    fn touch_classic_lengths(&mut self, vni: u32) {
        self.touched.insert(Cell::Vpc { vni });
        let linked = self.vpcs.get(&vni).map(|vpc| vpc.linked.keys());
        let cells = linked
            .into_iter()
            .flatten()
            .map(|prefix| Cell::Linked { prefix: *prefix });
        self.touched.extend(cells);
    }

    /// Takes an entry out.
    fn remove(&mut self, key: &EntryKey) {
        match key {
            EntryKey::Source { vni, subnet } => self.remove_source(vni.number(), *subnet),
            EntryKey::Endpoint { scope, addr } => self.addresses.remove(scope.0.number(), *addr),
            EntryKey::Permit {
                link,
                vni,
                subnet,
                classic,
            } => {
                self.remove_permit(vni.number(), *classic, &(link.clone(), *subnet));
            }
        }
    }

    fn remove_source(&mut self, vni: u32, subnet: Prefix) {
        let Some(scope) = self.sources.remove(&(vni, subnet)) else {
            return;
        };
        self.remove_subnet(scope, subnet, vni);
        self.touched.insert(Cell::Vpc { vni });
        let Some(vpc) = self.vpcs.get_mut(&vni) else {
            return;
        };
        vpc.subnets.remove(&subnet);
        if vpc.linked.contains_key(&subnet) {
            self.touched.insert(Cell::Linked { prefix: subnet });
        }
        self.forget_vpc_without_anything(vni);
    }

    fn forget_vpc_without_anything(&mut self, vni: u32) {
        let Some(vpc) = self.vpcs.get(&vni) else {
            return;
        };
        if vpc.subnets.is_empty() && vpc.permits.is_empty() {
            let scope = vpc.scope;
            self.vpcs.remove(&vni);
            self.leave(vni, scope);
            self.counters.give_back(&vni);
        }
    }

    fn remove_permit(&mut self, vni: u32, classic: Prefix, key: &(LinkId, Prefix)) {
        let Some(vpc) = self.vpcs.get_mut(&vni) else {
            return;
        };
        let Some(permits) = vpc.permits.get_mut(&classic) else {
            return;
        };
        if permits.remove(key).is_none() {
            return;
        }
        let (link, subnet) = (&key.0, key.1);
        self.touched.insert(Cell::Classic {
            vni,
            prefix: classic,
        });
        let mut lengths_changed = false;
        if permits.is_empty() {
            vpc.permits.remove(&classic);
            lengths_changed = vpc.classics.remove(&classic);
            if let Some(count) = self.classics.get_mut(&classic.family()) {
                *count -= 1;
            }
        }
        let left = vpc.linked.get_mut(&subnet).map_or(0, |permits| {
            *permits -= 1;
            *permits
        });
        if left == 0 {
            vpc.linked.remove(&subnet);
            self.touched.insert(Cell::Linked { prefix: subnet });
            if let Some(owners) = self.linked.get_mut(&subnet) {
                owners.retain(|owner| *owner != vni);
                if owners.is_empty() {
                    self.linked.remove(&subnet);
                    self.linked_lengths.remove(&subnet);
                }
            }
        }
        if lengths_changed {
            self.touch_classic_lengths(vni);
        }
        if let Some(uses) = self.link_uses.get_mut(link) {
            *uses -= 1;
            if *uses == 0 {
                self.link_uses.remove(link);
                self.links.give_back(link);
            }
        }
        self.forget_vpc_without_anything(vni);
    }

    /// Has packets sampled, from the next time that globals are written.
    pub(crate) fn sample(&mut self, sampling: Sampling) {
        self.host.globals = sampling.written(self.host.globals);
    }

    /// Everything that may have to be written since the last call, and these cells.
    pub(crate) fn settle(&mut self, also: BTreeSet<Cell>) -> Changes {
        self.touched.extend(also);
        self.touched.append(&mut self.addresses.touched);
        let mut touched = std::mem::take(&mut self.touched);
        let linked: Vec<Cell> = touched
            .iter()
            .filter_map(|cell| match cell {
                Cell::Subnet { prefix, .. } if self.linked.contains_key(prefix) => {
                    Some(Cell::Linked { prefix: *prefix })
                }
                _ => None,
            })
            .collect();
        touched.extend(linked);
        if touched
            .iter()
            .any(|cell| matches!(cell, Cell::Linked { .. }))
        {
            touched.extend(self.own_cells());
        }
        self.changes(
            touched
                .into_iter()
                .map(|cell| (cell, self.content(&cell)))
                .collect(),
        )
    }

    /// What has to be written where this was found.
    pub(crate) fn difference(&mut self, found: &Found) -> Changes {
        self.touched.clear();
        self.addresses.touched.clear();
        let mut cells: BTreeSet<Cell> = found.keys().copied().collect();
        cells.extend(self.cells());
        let differs = |cell: Cell| {
            let content = self.content(&cell);
            (content.as_ref() != found.get(&cell)).then_some((cell, content))
        };
        let list = cells.into_iter().filter_map(differs).collect();
        self.changes(list)
    }

    fn changes(&mut self, list: Vec<(Cell, Option<Content>)>) -> Changes {
        let links = self.links.resets().into_iter().map(Counted::Link);
        let mut changes = Changes {
            resets: links.collect(),
            globals: self.globals(),
            ..Changes::default()
        };
        changes
            .resets
            .extend(self.counters.resets().into_iter().map(Counted::Vpc));
        for (cell, content) in list {
            match content {
                Some(content) => changes.puts.push((cell, content)),
                None => changes.deletes.push(cell),
            }
        }
        changes.deletes.reverse();
        changes
    }

    /// All changes have been written.
    pub(crate) fn written(&mut self) {
        self.links.settle();
        self.counters.settle();
        self.addresses.places_mut().settle();
    }

    pub(crate) fn addresses(&self) -> &Addresses<M> {
        &self.addresses
    }

    pub(crate) fn addresses_mut(&mut self) -> &mut Addresses<M> {
        &mut self.addresses
    }

    /// Links and their counters.
    pub(crate) fn links(&self) -> &Numbers<LinkId> {
        &self.links
    }

    /// VPCs and their counters.
    pub(crate) fn counters(&self) -> &Numbers<u32> {
        &self.counters
    }

    /// Gives the memory back.
    #[cfg(test)]
    pub(crate) fn into_memory(self) -> M {
        self.addresses.into_places().into_memory()
    }
}

#[cfg(test)]
mod tests;
