//! Entries to cells and slots, incrementally: what each map should hold, and what is refused.
//!
//! Slots are stored at once, since no other slot depends on them; what changes in hash maps is told by
//! [`Translator::settle`], in the order in which it is to be written. After any history the maps lead
//! to the same endpoints and permits as after the last entries alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::{Family, Prefix};

use super::addresses::{Addresses, Endpoint, MAX_SPARSE};
use super::cells::{Cell, Changes, Content, Counted};
use super::layout::{
    DSCP_COPY, Globals, HOST_MAX, LENGTHS, OWN, PERMIT_GIVEN, PERMIT_TRACKED, Permit, Subnet,
    UNUSED_NET, Vpc, net4,
};
use super::lengths::{self, LengthCounts};
use super::memory::Memory;
use super::numbers::Numbers;
use super::places::{MAX_SLOTS, Places};
use super::samples::Sampling;
use crate::plane::entry::{EntryKey, EntryValue, ScopeId};
use crate::plane::{Batch, Desired, Limit};
use crate::record::{LinkId, Mode, Vni};

mod forecast;

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

    /// Puts endpoints, given by their scopes in order. When they are `all`, whoever is not among them is
    /// gone.
    fn put_endpoints<'a>(
        &mut self,
        endpoints: impl Iterator<Item = (ScopeId, Endpoint<'a>)>,
        all: bool,
        failures: &mut Failures,
    ) {
        let mut empty: BTreeSet<u32> = match all {
            true => self.addresses.subnets().map(|(scope, _)| scope).collect(),
            false => BTreeSet::new(),
        };
        let mut list: Vec<Endpoint<'_>> = Vec::new();
        let mut at = None;
        let mut put = |this: &mut Self, scope: Option<ScopeId>, list: &mut Vec<Endpoint<'a>>| {
            let Some(scope) = scope else { return };
            empty.remove(&scope.0.number());
            for (place, reason) in this.addresses.put(scope.0.number(), list, all) {
                let addr = list[place].addr;
                failures.insert(EntryKey::Endpoint { scope, addr }, reason);
            }
            list.clear();
        };
        for (scope, endpoint) in endpoints {
            if at != Some(scope) {
                put(self, at, &mut list);
            }
            at = Some(scope);
            list.push(endpoint);
        }
        put(self, at, &mut list);
        for scope in empty {
            self.addresses.put(scope, &[], true);
        }
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

    /// What a cell should hold; `None`: nothing.
    pub(crate) fn content(&self, cell: &Cell) -> Option<Content> {
        match *cell {
            Cell::Sparse { vni, addr } => {
                let scope = self.vpcs.get(&vni)?.scope;
                self.addresses
                    .sparse_slot(scope, vni, addr)
                    .map(Content::Slot)
            }
            Cell::Subnet { scope, prefix } => {
                self.known_subnet(scope, prefix)?;
                self.subnet(scope, prefix, lengths::NONE)
                    .map(Content::Subnet)
            }
            Cell::Classic { vni, prefix } => self.permit(vni, prefix).map(Content::Permit),
            Cell::Linked { prefix } => {
                if self.is_own(prefix) {
                    let classic = lengths::NONE;
                    return Some(Content::Subnet(Subnet {
                        classic,
                        ..Subnet::default()
                    }));
                }
                let vni = *self.linked.get(&prefix)?.last()?;
                let vpc = self.vpcs.get(&vni)?;
                let scope = *self.sources.get(&(vni, prefix))?;
                let classic = vpc.classics.list(prefix.family(), None);
                self.known_subnet(scope, prefix).filter(|its| *its == vni)?;
                self.subnet(scope, prefix, classic).map(Content::Subnet)
            }
            Cell::Vpc { vni } => self.vpc(vni).map(Content::Vpc),
        }
    }

    fn subnet(
        &self,
        scope: u32,
        prefix: Prefix,
        classic: super::layout::Lengths,
    ) -> Option<Subnet> {
        let subnet = self.addresses.subnet(scope, prefix)?;
        let counter = self.counters.of(&subnet.vni)?;
        Some(Subnet {
            counter,
            classic,
            ..subnet
        })
    }

    /// The permit of a classic prefix; when several links have it, that of the first.
    fn permit(&self, vni: u32, classic: Prefix) -> Option<Permit> {
        let vpc = self.vpcs.get(&vni)?;
        let ((link, _), (mode, dscp)) = vpc.permits.get(&classic)?.first_key_value()?;
        Some(Permit {
            link: self.links.of(link)?.try_into().ok()?,
            flags: match mode {
                Mode::Both => PERMIT_GIVEN,
                Mode::ClassicToVpc => PERMIT_GIVEN | PERMIT_TRACKED,
            },
            dscp: dscp.unwrap_or(DSCP_COPY),
        })
    }

    fn vpc(&self, vni: u32) -> Option<Vpc> {
        let vpc = self.vpcs.get(&vni).filter(|vpc| !vpc.subnets.is_empty())?;
        let mut own = [UNUSED_NET; OWN];
        for (place, net) in own
            .iter_mut()
            .zip(vpc.subnets.iter().filter_map(|it| net4(*it)))
        {
            *place = net;
        }
        let lengths = &self.scopes.get(&vpc.scope)?.lengths;
        Some(Vpc {
            scope: vpc.scope,
            counter: self.counters.of(&vni)?,
            own,
            subnets4: lengths.list(Family::Ipv4Unicast, None),
            subnets6: lengths.list(Family::Ipv6Unicast, None),
            classic4: vpc.classics.list(Family::Ipv4Unicast, None),
            classic6: vpc.classics.list(Family::Ipv6Unicast, None),
        })
    }

    /// Whether a prefix is one of this host's addresses, inside a linked subnet.
    fn is_own(&self, prefix: Prefix) -> bool {
        prefix == Prefix::host(prefix.addr())
            && self.host.own.contains(&prefix.addr())
            && self.in_linked(prefix.addr())
    }

    fn in_linked(&self, addr: IpAddr) -> bool {
        let host = Prefix::host(addr);
        (0..=host.len()).any(|len| {
            Prefix::containing(addr, len).is_ok_and(|net| self.linked.contains_key(&net))
        })
    }

    fn own_cells(&self) -> impl Iterator<Item = Cell> {
        self.host.own.iter().map(|addr| Cell::Linked {
            prefix: Prefix::host(*addr),
        })
    }

    /// What concerns all packets.
    pub(crate) fn globals(&self) -> Globals {
        let lengths = |family: Family| {
            let own = self.host.own.iter().copied();
            let mut own = own.filter(|addr| Prefix::host(*addr).family() == family);
            let also = own
                .any(|addr| self.in_linked(addr))
                .then_some(family.max_len());
            self.linked_lengths.list(family, also)
        };
        Globals {
            linked4: lengths(Family::Ipv4Unicast),
            linked6: lengths(Family::Ipv6Unicast),
            ..self.host.globals
        }
    }

    /// What concerns all packets while no link is in the maps. It is of no version: whoever finds it begins anew.
    pub(crate) fn globals_of_nobody(&self) -> Globals {
        Globals {
            version: 0,
            linked4: lengths::NONE,
            linked6: lengths::NONE,
            ..self.host.globals
        }
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

    /// Every cell that may have content.
    pub(crate) fn cells(&self) -> impl Iterator<Item = Cell> {
        let classics = self.vpcs.iter().flat_map(|(vni, vpc)| {
            let prefixes = vpc.permits.keys();
            prefixes.map(|prefix| Cell::Classic {
                vni: *vni,
                prefix: *prefix,
            })
        });
        self.addresses
            .cells()
            .chain(classics)
            .chain(
                self.linked
                    .keys()
                    .map(|prefix| Cell::Linked { prefix: *prefix }),
            )
            .chain(self.own_cells())
            .chain(self.vpcs.keys().map(|vni| Cell::Vpc { vni: *vni }))
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

    /// The entries that rest on a cell. One pass over what a VPC has: for telling of failures only.
    pub(crate) fn owners(&self, cell: &Cell) -> Vec<EntryKey> {
        let vni = |number| Vni::new(number).ok();
        match *cell {
            Cell::Sparse { vni: number, addr } => {
                let scope = self.vpcs.get(&number).and_then(|vpc| vni(vpc.scope));
                let scope = scope.map(crate::plane::entry::ScopeId);
                scope
                    .map(|scope| EntryKey::Endpoint { scope, addr })
                    .into_iter()
                    .collect()
            }
            Cell::Subnet { scope, prefix } => {
                let number = self.addresses.vni(scope, prefix).unwrap_or_default();
                let of_subnet = |subnet: &Prefix, _: &Prefix| *subnet == prefix;
                let source = vni(number).map(|vni| EntryKey::Source {
                    vni,
                    subnet: prefix,
                });
                source
                    .into_iter()
                    .chain(self.permits_where(number, of_subnet))
                    .collect()
            }
            Cell::Classic {
                vni: number,
                prefix,
            } => self.permits_where(number, |_, classic| *classic == prefix),
            Cell::Linked { prefix } => {
                let owners = self.linked.get(&prefix).into_iter().flatten();
                owners
                    .flat_map(|number| self.permits_where(*number, |subnet, _| *subnet == prefix))
                    .collect()
            }
            Cell::Vpc { vni: number } => {
                let subnets = self.vpcs.get(&number).map(|vpc| vpc.subnets.iter());
                let sources = subnets.into_iter().flatten().filter_map(|subnet| {
                    vni(number).map(|vni| EntryKey::Source {
                        vni,
                        subnet: *subnet,
                    })
                });
                sources
                    .chain(self.permits_where(number, |_, _| true))
                    .collect()
            }
        }
    }

    fn permits_where(
        &self,
        number: u32,
        matches: impl Fn(&Prefix, &Prefix) -> bool,
    ) -> Vec<EntryKey> {
        let Ok(vni) = Vni::new(number) else {
            return Vec::new();
        };
        let permits = self.vpcs.get(&number).map(|vpc| vpc.permits.iter());
        permits
            .into_iter()
            .flatten()
            .flat_map(|(classic, permits)| {
                permits
                    .keys()
                    .map(move |(link, subnet)| (classic, link, subnet))
            })
            .filter(|(classic, _, subnet)| matches(subnet, classic))
            .map(|(classic, link, subnet)| EntryKey::Permit {
                link: link.clone(),
                vni,
                subnet: *subnet,
                classic: *classic,
            })
            .collect()
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

    /// How full everything is.
    pub(crate) fn limits(&self) -> Vec<Limit> {
        let limit = |name, used: usize, max: usize| Limit {
            name,
            used: used as u64,
            max: max as u64,
        };
        let of =
            |counts: &BTreeMap<Family, usize>, family| counts.get(&family).copied().unwrap_or(0);
        let (v4, v6) = (Family::Ipv4Unicast, Family::Ipv6Unicast);
        let places = self.addresses.places();
        let longest_list = |lists: &mut dyn Iterator<Item = usize>| lists.max().unwrap_or(0);
        let in_scope = longest_list(
            &mut self
                .scopes
                .values()
                .flat_map(|scope| [v4, v6].map(|family| scope.lengths.used(family))),
        );
        let in_vpc = longest_list(
            &mut self
                .vpcs
                .values()
                .flat_map(|vpc| [v4, v6].map(|family| vpc.classics.used(family))),
        );
        let linked = [v4, v6].map(|family| self.linked_lengths.used(family));
        vec![
            limit("vpcs", self.counters.used(), self.counters.max() as usize),
            limit("links", self.links.used(), self.links.max() as usize),
            limit("subnets-ipv4", of(&self.subnets, v4), MAX_SUBNETS),
            limit("subnets-ipv6", of(&self.subnets, v6), MAX_SUBNETS),
            limit(
                "classic-prefixes-ipv4",
                of(&self.classics, v4),
                MAX_CLASSICS,
            ),
            limit(
                "classic-prefixes-ipv6",
                of(&self.classics, v6),
                MAX_CLASSICS,
            ),
            limit("hosts", places.hosts(), HOST_MAX.into()),
            limit("slots", places.slots() as usize, MAX_SLOTS as usize),
            limit("sparse-addresses", self.addresses.sparse(), MAX_SPARSE),
            limit("subnet-lengths-of-a-ccsi", in_scope, LENGTHS),
            limit("classic-lengths-of-a-vpc", in_vpc, LENGTHS),
            limit(
                "linked-lengths",
                linked.into_iter().max().unwrap_or(0),
                LENGTHS - 1,
            ),
        ]
    }
}

/// An entry, if it is an endpoint.
fn endpoint_of<'a>(
    (key, value): (&'a EntryKey, &'a EntryValue),
) -> Option<(ScopeId, Endpoint<'a>)> {
    let (EntryKey::Endpoint { scope, addr }, EntryValue::Endpoint { vni, hops }) = (key, value)
    else {
        return None;
    };
    let (addr, vni) = (*addr, vni.number());
    Some((*scope, Endpoint { addr, vni, hops }))
}

/// Every endpoint of a desired state, by scope and address.
fn all_endpoints(desired: &Desired) -> impl Iterator<Item = (ScopeId, Endpoint<'_>)> {
    let mut few = desired.entries.iter().filter_map(endpoint_of).peekable();
    let many = desired.endpoints.iter().map(|endpoint| {
        let (addr, vni) = (endpoint.addr, endpoint.vni.number());
        let hops = endpoint.hops.as_slice();
        (endpoint.scope, Endpoint { addr, vni, hops })
    });
    let mut many = many.peekable();
    let place = |&(scope, endpoint): &(ScopeId, Endpoint<'_>)| (scope, endpoint.addr);
    std::iter::from_fn(
        move || match (few.peek().map(place), many.peek().map(place)) {
            (Some(one), Some(other)) if one > other => many.next(),
            (Some(_), _) => few.next(),
            (None, _) => many.next(),
        },
    )
}

#[cfg(test)]
mod tests;
