//! VMs and SLBs: who has which address of a VPC.
//!
//! An address belongs to the accepted VM or SLB that was created first; the others wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::effects::Work;
use super::quarantine::Quarantine;
use super::vm_table::VmTable;
use super::{Inventory, Rank, Slot, Status};
use crate::plane::endpoints::Hops;
use crate::plane::entry::Hop;
use crate::record::{Reason, RecordKey, Slb, SlbId, Vm, VmId, Vpc, VpcId};
use crate::store::Generation;

/// A VM or an SLB of a VPC.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointId {
    /// A VM.
    Vm(VmId),
    /// An SLB.
    Slb(SlbId),
}

impl EndpointId {
    /// Its key, given its VPC.
    pub fn key(&self, vpc: &VpcId) -> RecordKey {
        match self {
            EndpointId::Vm(id) => RecordKey::Vm(vpc.clone(), id.clone()),
            EndpointId::Slb(id) => RecordKey::Slb(vpc.clone(), id.clone()),
        }
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndpointId::Vm(id) => write!(f, "VM {id}"),
            EndpointId::Slb(id) => write!(f, "SLB {id}"),
        }
    }
}

/// All VMs and SLBs whose record parses, by VPC, whether that exists or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Endpoints {
    tenants: BTreeMap<VpcId, Tenants>,
    counts: Counts,
}

/// How many are accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    vms: usize,
    slbs: usize,
}

impl Counts {
    fn add(&mut self, id: &EndpointId, by: isize) {
        let count = match id {
            EndpointId::Vm(_) => &mut self.vms,
            EndpointId::Slb(_) => &mut self.slbs,
        };
        *count = count.saturating_add_signed(by);
    }
}

/// The VMs and SLBs of one VPC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tenants {
    /// Also who of them has an address: an accepted one.
    vms: VmTable,
    slbs: BTreeMap<SlbId, Slot<Slb, Status>>,
    /// Which SLB has an address: an accepted one. Nobody has one that a VM has.
    vips: BTreeMap<IpAddr, SlbId>,
    /// Who asks for an address and is quarantined.
    waiting: BTreeMap<IpAddr, BTreeSet<Rank<EndpointId>>>,
}

fn status(accepted: bool) -> Status {
    match accepted {
        true => Status::Accepted,
        false => Status::Quarantined,
    }
}

impl Tenants {
    /// Adds a VM that is not there, in whatever VPC that is; it is looked at later.
    pub(super) fn add_vm(&mut self, id: &VmId, created: Generation, vm: &Vm) {
        self.vms.add(id, created, vm);
    }

    /// When it was created, whether it is accepted, and its addresses.
    fn find(&self, id: &EndpointId) -> Option<(Generation, Status, Vec<IpAddr>)> {
        match id {
            EndpointId::Vm(id) => self
                .vms
                .find(id.as_str())
                .map(|(vm, accepted)| (vm.created, status(accepted), vm.addrs().collect())),
            EndpointId::Slb(id) => self
                .slbs
                .get(id)
                .map(|slot| (slot.created, slot.state, slot.record.vips.clone())),
        }
    }

    /// Who has an address.
    fn owner(&self, addr: IpAddr) -> Option<Rank<EndpointId>> {
        if let Some(vm) = self.vms.owner(addr) {
            return Some((vm.created, EndpointId::Vm(vm.vm_id()?)));
        }
        let id = self.vips.get(&addr)?;
        Some((self.slbs.get(id)?.created, EndpointId::Slb(id.clone())))
    }

    /// It is accepted and has all its addresses, which nobody has.
    fn give(&mut self, id: &EndpointId) {
        match id {
            EndpointId::Vm(id) => self.vms.give(id.as_str()),
            EndpointId::Slb(id) => {
                let Some(slot) = self.slbs.get_mut(id) else {
                    return;
                };
                slot.state = Status::Accepted;
                let vips = slot.record.vips.iter().map(|vip| (*vip, id.clone()));
                self.vips.extend(vips);
            }
        }
    }

    /// It is quarantined and has no address any more.
    fn take_back(&mut self, id: &EndpointId) {
        match id {
            EndpointId::Vm(id) => self.vms.take_back(id.as_str()),
            EndpointId::Slb(id) => {
                let Some(slot) = self.slbs.get_mut(id) else {
                    return;
                };
                slot.state = Status::Quarantined;
                for vip in &slot.record.vips {
                    self.vips.remove(vip);
                }
            }
        }
    }

    /// Every VM and SLB, whoever is right first.
    fn ranks(&self) -> Vec<Rank<EndpointId>> {
        let vms = self.vms.iter();
        let vms = vms.filter_map(|(vm, _)| Some((vm.created, EndpointId::Vm(vm.vm_id()?))));
        let mut ranks: Vec<_> = vms.chain(self.slb_ranks()).collect();
        ranks.sort_unstable();
        ranks
    }

    /// Every SLB, whoever is right first.
    fn ranks_of_slbs(&self) -> Vec<Rank<EndpointId>> {
        let mut ranks: Vec<_> = self.slb_ranks().collect();
        ranks.sort_unstable();
        ranks
    }

    fn slb_ranks(&self) -> impl Iterator<Item = Rank<EndpointId>> {
        let slbs = self.slbs.iter();
        slbs.map(|(id, slot)| (slot.created, EndpointId::Slb(id.clone())))
    }

    fn wait(&mut self, addr: IpAddr, rank: &Rank<EndpointId>) {
        self.waiting.entry(addr).or_default().insert(rank.clone());
    }

    fn stop_waiting(&mut self, addr: IpAddr, rank: &Rank<EndpointId>) {
        if let Some(waiting) = self.waiting.get_mut(&addr) {
            waiting.remove(rank);
            if waiting.is_empty() {
                self.waiting.remove(&addr);
            }
        }
    }

    /// Those of higher rank who wait for an address.
    fn waiting_after(&self, addr: IpAddr, rank: &Rank<EndpointId>) -> Vec<Rank<EndpointId>> {
        let waiting = self.waiting.get(&addr).into_iter().flatten();
        waiting.filter(|other| *other > rank).cloned().collect()
    }

    /// The hops of an address; none when nobody has it, or an SLB without nodes.
    fn hops(&self, addr: IpAddr) -> Option<Vec<Hop>> {
        if let Some(vm) = self.vms.owner(addr) {
            return vm.hop().map(|hop| vec![hop]);
        }
        self.hops_of_slb(self.vips.get(&addr)?)
    }

    /// The hops of an SLB; none when it has no nodes.
    fn hops_of_slb(&self, id: &SlbId) -> Option<Vec<Hop>> {
        let nodes = self.slbs.get(id)?.record.nodes.iter().map(|node| Hop {
            vtep: node.vtep.addr(),
            mac: node.inner_mac(),
            weight: node.weight.number(),
        });
        let mut hops: Vec<Hop> = nodes.collect();
        hops.sort();
        (!hops.is_empty()).then_some(hops)
    }

    /// Every address that somebody has, with its hops, if any; in no order.
    fn endpoints(&self) -> impl Iterator<Item = (IpAddr, Hops)> {
        let vms = self.vms.iter().filter(|(_, accepted)| *accepted);
        let vms = vms.filter_map(|(vm, _)| Some((vm.addrs(), vm.hop()?)));
        let vms = vms.flat_map(|(addrs, hop)| addrs.map(move |addr| (addr, Hops::One(hop))));
        let slbs = self.vips.iter();
        vms.chain(slbs.filter_map(|(vip, id)| Some((*vip, self.hops_of_slb(id)?.into()))))
    }

    fn is_empty(&self) -> bool {
        self.vms.is_empty() && self.slbs.is_empty()
    }
}

impl Endpoints {
    /// When the key of a VM was created.
    pub(super) fn vm_created(&self, vpc: &VpcId, id: &VmId) -> Option<Generation> {
        let (vm, _) = self.tenants.get(vpc)?.vms.find(id.as_str())?;
        Some(vm.created)
    }

    /// The record of a VM, without the fields that are not known.
    pub(super) fn vm(&self, vpc: &VpcId, id: &VmId) -> Option<Vm> {
        self.tenants.get(vpc)?.vms.find(id.as_str())?.0.record()
    }

    /// Whether a VM is there that was created then and says this.
    pub(super) fn has_vm(&self, vpc: &VpcId, id: &VmId, created: Generation, vm: &Vm) -> bool {
        let tenants = self.tenants.get(vpc);
        let found = tenants.and_then(|tenants| tenants.vms.find(id.as_str()));
        found.is_some_and(|(its, _)| its.created == created && its.is(vm))
    }

    pub(super) fn slb(&self, vpc: &VpcId, id: &SlbId) -> Option<&Slot<Slb, Status>> {
        self.tenants.get(vpc)?.slbs.get(id)
    }

    /// The addresses of a VPC that are taken.
    #[cfg(test)]
    pub(super) fn owners(&self, vpc: &VpcId) -> impl Iterator<Item = (IpAddr, EndpointId)> {
        let tenants = self.tenants.get(vpc).into_iter();
        tenants.flat_map(|tenants| {
            let vms = tenants.vms.iter().filter(|(_, accepted)| *accepted);
            let addrs = vms.flat_map(|(vm, _)| vm.addrs());
            let all = addrs.chain(tenants.vips.keys().copied());
            all.filter_map(|addr| Some((addr, tenants.owner(addr)?.1)))
        })
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = RecordKey> {
        self.tenants.iter().flat_map(|(vpc, tenants)| {
            let vms = tenants
                .vms
                .iter()
                .filter_map(|(vm, _)| Some(RecordKey::Vm(vpc.clone(), vm.vm_id()?)));
            let slbs = tenants
                .slbs
                .keys()
                .map(|id| RecordKey::Slb(vpc.clone(), id.clone()));
            vms.chain(slbs)
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// Takes the VMs and SLBs of a VPC out, to be put back soon.
    pub(super) fn take(&mut self, vpc: &VpcId) -> Tenants {
        self.tenants.remove(vpc).unwrap_or_default()
    }

    /// Puts them back, and expects no more of them soon.
    pub(super) fn put_back(&mut self, vpc: VpcId, mut tenants: Tenants) {
        tenants.vms.fit();
        self.tenants.insert(vpc, tenants);
    }
}

impl Inventory {
    /// The accepted VMs of a VPC, by id, without the fields of their records that are not known.
    pub fn vms_of(&self, vpc: &VpcId) -> impl Iterator<Item = (VmId, Vm)> {
        let tenants = self.endpoints.tenants.get(vpc).into_iter();
        let vms = tenants.flat_map(|tenants| tenants.vms.iter());
        let accepted = vms.filter(|(_, accepted)| *accepted);
        let mut vms: Vec<_> = accepted.map(|(vm, _)| vm).collect();
        vms.sort_unstable_by_key(|vm| vm.id);
        vms.into_iter()
            .filter_map(|vm| Some((vm.vm_id()?, vm.record()?)))
    }

    /// How many VMs of a VPC are accepted.
    pub fn vm_count_of(&self, vpc: &VpcId) -> usize {
        let tenants = self.endpoints.tenants.get(vpc).into_iter();
        let vms = tenants.flat_map(|tenants| tenants.vms.iter());
        vms.filter(|(_, accepted)| *accepted).count()
    }

    /// How many VMs of a VPC there are, accepted or not; at once.
    pub(crate) fn most_vms_of(&self, vpc: &VpcId) -> usize {
        let tenants = self.endpoints.tenants.get(vpc);
        tenants.map_or(0, |tenants| tenants.vms.len())
    }

    /// The accepted SLBs of a VPC, by id.
    pub fn slbs_of(&self, vpc: &VpcId) -> impl Iterator<Item = (&SlbId, &Slb)> {
        let slbs = self
            .endpoints
            .tenants
            .get(vpc)
            .into_iter()
            .flat_map(|tenants| &tenants.slbs);
        let accepted = slbs.filter(|(_, slot)| slot.state == Status::Accepted);
        accepted.map(|(id, slot)| (id, &slot.record))
    }

    /// How many VMs are accepted.
    pub fn vm_count(&self) -> usize {
        self.endpoints.counts.vms
    }

    /// How many SLBs are accepted.
    pub fn slb_count(&self) -> usize {
        self.endpoints.counts.slbs
    }

    /// The addresses of a VPC that something serves, with their hops (at least one, sorted); in no
    /// order.
    pub fn endpoints_of(&self, vpc: &VpcId) -> impl Iterator<Item = (IpAddr, Hops)> {
        let tenants = self.endpoints.tenants.get(vpc).into_iter();
        tenants.flat_map(Tenants::endpoints)
    }

    /// The hops of an address of a VPC (at least one, sorted).
    pub fn hops(&self, vpc: &VpcId, addr: IpAddr) -> Option<Vec<Hop>> {
        self.endpoints.tenants.get(vpc)?.hops(addr)
    }

    /// The VM or SLB that has an address of a VPC; an SLB may be without any node.
    pub fn owner(&self, vpc: &VpcId, addr: IpAddr) -> Option<EndpointId> {
        Some(self.endpoints.tenants.get(vpc)?.owner(addr)?.1)
    }

    /// A VPC with all that a look at its VMs and SLBs takes; nothing when it has none.
    fn room<'a>(&'a mut self, vpc: &'a VpcId, work: &'a mut Work) -> Option<Room<'a>> {
        Some(Room {
            vpc,
            record: self.vpcs.accepted(vpc).map(|(record, _)| record),
            tenants: self.endpoints.tenants.get_mut(vpc)?,
            counts: &mut self.endpoints.counts,
            quarantine: &mut self.quarantine,
            work,
        })
    }

    pub(super) fn insert_vm(
        &mut self,
        vpc: VpcId,
        id: VmId,
        created: Generation,
        vm: Vm,
        work: &mut Work,
    ) {
        let tenants = self.endpoints.tenants.entry(vpc.clone()).or_default();
        tenants.vms.insert(&id, created, &vm);
        work.look_at(vpc, (created, EndpointId::Vm(id)));
    }

    pub(super) fn insert_slb(
        &mut self,
        vpc: VpcId,
        id: SlbId,
        created: Generation,
        slb: Slb,
        work: &mut Work,
    ) {
        let slot = Slot {
            created,
            record: slb,
            state: Status::Quarantined,
        };
        self.endpoints
            .tenants
            .entry(vpc.clone())
            .or_default()
            .slbs
            .insert(id.clone(), slot);
        work.look_at(vpc, (created, EndpointId::Slb(id)));
    }

    pub(super) fn remove_endpoint(&mut self, vpc: &VpcId, id: EndpointId, work: &mut Work) {
        let Some(mut room) = self.room(vpc, work) else {
            return;
        };
        room.remove(id);
        if room.tenants.is_empty() {
            self.endpoints.tenants.remove(vpc);
        }
    }

    /// Has every VM and SLB of a VPC looked at again: the VPC came, went or changed its subnets.
    pub(super) fn reconsider_endpoints_of(&mut self, vpc: &VpcId, work: &mut Work) {
        if self.endpoints.tenants.contains_key(vpc) {
            work.tenants.insert(vpc.clone());
        }
    }

    pub(super) fn settle_endpoints(&mut self, work: &mut Work) {
        for vpc in std::mem::take(&mut work.tenants) {
            if let Some(mut room) = self.room(&vpc, work) {
                if room.accept_all_vms() {
                    for rank in room.tenants.ranks_of_slbs() {
                        room.settle(&rank);
                    }
                    continue;
                }
                for rank in room.tenants.ranks() {
                    room.settle(&rank);
                }
            }
        }
        while let Some((vpc, rank)) = work.endpoints.pop_first() {
            if let Some(mut room) = self.room(&vpc, work) {
                room.settle(&rank);
            }
        }
    }
}

/// A VPC while its VMs and SLBs are looked at.
struct Room<'a> {
    vpc: &'a VpcId,
    /// Its record, if that is accepted.
    record: Option<&'a Vpc>,
    tenants: &'a mut Tenants,
    counts: &'a mut Counts,
    quarantine: &'a mut Quarantine,
    work: &'a mut Work,
}

impl Room<'_> {
    /// Accepts every VM at once, while everything is new and nothing is wrong with any of them: most loads are like that,
    /// and it takes a quarter of what a look at each one takes. False when they are to be looked at.
    fn accept_all_vms(&mut self) -> bool {
        let Some(record) = self.record.filter(|_| self.work.effects.whole) else {
            return false;
        };
        let slbs = self.tenants.slbs.values();
        let vips: BTreeSet<IpAddr> = slbs
            .flat_map(|slot| slot.record.vips.iter().copied())
            .collect();
        let is_fine = |addr| {
            let mut subnets = record.subnets.iter();
            subnets.any(|subnet| subnet.contains_addr(addr)) && !vips.contains(&addr)
        };
        let is_done = self.tenants.vms.give_all(is_fine);
        if is_done {
            self.counts.vms += self.tenants.vms.len();
        }
        is_done
    }

    /// Looks at one of them again, when all of lower rank are settled.
    fn settle(&mut self, rank: &Rank<EndpointId>) {
        let Some((created, status, addrs)) = self.tenants.find(&rank.1) else {
            return;
        };
        if created != rank.0 {
            return;
        }
        let fault = self.fault(rank, &addrs);
        match (&fault, status) {
            (None, Status::Quarantined) => self.accept(rank, &addrs),
            (Some(_), Status::Accepted) => {
                self.release(rank, &addrs);
                self.make_wait(rank, &addrs);
            }
            (Some(_), Status::Quarantined) => self.make_wait(rank, &addrs),
            (None, Status::Accepted) => {}
        }
        self.quarantine
            .set_fault(&rank.1.key(self.vpc), fault, self.work);
    }

    fn remove(&mut self, id: EndpointId) {
        let Some((created, status, addrs)) = self.tenants.find(&id) else {
            return;
        };
        let rank = (created, id);
        match status {
            Status::Accepted => self.release(&rank, &addrs),
            Status::Quarantined => {
                for addr in addrs {
                    self.tenants.stop_waiting(addr, &rank);
                }
            }
        }
        match &rank.1 {
            EndpointId::Vm(id) => self.tenants.vms.remove(id.as_str()),
            EndpointId::Slb(id) => drop(self.tenants.slbs.remove(id)),
        }
    }

    /// What is wrong with a VM or SLB, as far as those of lower rank go, which are settled.
    fn fault(&self, rank: &Rank<EndpointId>, addrs: &[IpAddr]) -> Option<(String, Reason)> {
        let vpc = self.vpc;
        let Some(record) = self.record else {
            return Some(("vpc".to_owned(), Reason::UnknownVpc(vpc.clone())));
        };
        let list = match rank.1 {
            EndpointId::Vm(_) => "addrs",
            EndpointId::Slb(_) => "vips",
        };
        addrs.iter().enumerate().find_map(|(index, addr)| {
            let field = || format!("{list}[{index}]");
            let mut subnets = record.subnets.iter();
            let (addr, vpc) = (*addr, vpc.clone());
            if !subnets.any(|subnet| subnet.contains_addr(addr)) {
                return Some((field(), Reason::OutsideSubnets { addr, vpc }));
            }
            let owner = self.tenants.owner(addr).filter(|owner| owner < rank)?;
            let by = owner.1.key(&vpc);
            Some((field(), Reason::AddressTaken { addr, by }))
        })
    }

    /// Gives a VM or SLB its addresses. Those who had them, being of higher rank, wait.
    fn accept(&mut self, rank: &Rank<EndpointId>, addrs: &[IpAddr]) {
        for addr in addrs {
            if let Some(displaced) = self.tenants.owner(*addr)
                && let Some((_, _, theirs)) = self.tenants.find(&displaced.1)
            {
                self.release(&displaced, &theirs);
                self.make_wait(&displaced, &theirs);
                self.look_at(displaced);
            }
        }
        for addr in addrs {
            self.touch(*addr);
        }
        for addr in addrs {
            self.tenants.stop_waiting(*addr, rank);
            // Those behind are told who has it now.
            self.look_at_those_behind(*addr, rank);
        }
        self.tenants.give(&rank.1);
        self.counts.add(&rank.1, 1);
    }

    /// Takes the addresses of an accepted VM or SLB away, and has those who wait for them looked at.
    fn release(&mut self, rank: &Rank<EndpointId>, addrs: &[IpAddr]) {
        for addr in addrs {
            self.touch(*addr);
        }
        self.tenants.take_back(&rank.1);
        for addr in addrs {
            self.look_at_those_behind(*addr, rank);
        }
        self.counts.add(&rank.1, -1);
    }

    fn make_wait(&mut self, rank: &Rank<EndpointId>, addrs: &[IpAddr]) {
        for addr in addrs {
            self.tenants.wait(*addr, rank);
        }
    }

    fn look_at(&mut self, rank: Rank<EndpointId>) {
        self.work.endpoints.insert((self.vpc.clone(), rank));
    }

    fn look_at_those_behind(&mut self, addr: IpAddr, rank: &Rank<EndpointId>) {
        for behind in self.tenants.waiting_after(addr, rank) {
            self.look_at(behind);
        }
    }

    /// Remembers who served an address, before that changes.
    fn touch(&mut self, addr: IpAddr) {
        if self.work.effects.whole {
            return;
        }
        let place = (self.vpc.clone(), addr);
        let touched = self.work.effects.endpoints.entry(place);
        touched.or_insert_with(|| self.tenants.hops(addr));
    }
}
