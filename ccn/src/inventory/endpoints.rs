//! VMs and SLBs: who has which address of a VPC.
//!
//! An address belongs to the accepted VM or SLB that was created first; the others wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::effects::Work;
use super::{Inventory, Rank, Slot, Status};
use crate::plane::entry::Hop;
use crate::record::{Reason, RecordKey, Slb, SlbId, Vm, VmId, VpcId, Weight};
use crate::store::Generation;

/// A VM or an SLB of a VPC.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
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
    vms: usize,
    slbs: usize,
}

/// The VMs and SLBs of one VPC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tenants {
    vms: BTreeMap<VmId, Slot<Vm, Status>>,
    slbs: BTreeMap<SlbId, Slot<Slb, Status>>,
    /// Who has an address: an accepted one.
    owners: BTreeMap<IpAddr, Rank<EndpointId>>,
    /// Who asks for an address and is quarantined.
    waiting: BTreeMap<IpAddr, BTreeSet<Rank<EndpointId>>>,
}

impl Tenants {
    /// When it was created, whether it is accepted, and its addresses.
    fn find(&self, id: &EndpointId) -> Option<(Generation, Status, &[IpAddr])> {
        match id {
            EndpointId::Vm(id) => self
                .vms
                .get(id)
                .map(|slot| (slot.created, slot.state, &slot.record.addrs[..])),
            EndpointId::Slb(id) => self
                .slbs
                .get(id)
                .map(|slot| (slot.created, slot.state, &slot.record.vips[..])),
        }
    }

    fn set_status(&mut self, id: &EndpointId, status: Status) {
        let state = match id {
            EndpointId::Vm(id) => self.vms.get_mut(id).map(|slot| &mut slot.state),
            EndpointId::Slb(id) => self.slbs.get_mut(id).map(|slot| &mut slot.state),
        };
        if let Some(state) = state {
            *state = status;
        }
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
        let hops = match &self.owners.get(&addr)?.1 {
            EndpointId::Vm(id) => {
                let vm = &self.vms.get(id)?.record;
                let weight = Weight::ONE.number();
                vec![Hop {
                    vtep: vm.vtep.addr(),
                    mac: vm.mac,
                    weight,
                }]
            }
            EndpointId::Slb(id) => {
                let nodes = self.slbs.get(id)?.record.nodes.iter().map(|node| Hop {
                    vtep: node.vtep.addr(),
                    mac: node.inner_mac(),
                    weight: node.weight.number(),
                });
                let mut hops: Vec<Hop> = nodes.collect();
                hops.sort();
                hops
            }
        };
        (!hops.is_empty()).then_some(hops)
    }

    fn is_empty(&self) -> bool {
        self.vms.is_empty() && self.slbs.is_empty()
    }
}

impl Endpoints {
    pub(super) fn vm(&self, vpc: &VpcId, id: &VmId) -> Option<&Slot<Vm, Status>> {
        self.tenants.get(vpc)?.vms.get(id)
    }

    pub(super) fn slb(&self, vpc: &VpcId, id: &SlbId) -> Option<&Slot<Slb, Status>> {
        self.tenants.get(vpc)?.slbs.get(id)
    }

    /// The addresses of a VPC that are taken.
    #[cfg(test)]
    pub(super) fn owners(&self, vpc: &VpcId) -> impl Iterator<Item = (IpAddr, &EndpointId)> {
        let owners = self
            .tenants
            .get(vpc)
            .into_iter()
            .flat_map(|tenants| &tenants.owners);
        owners.map(|(addr, (_, id))| (*addr, id))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = RecordKey> {
        self.tenants.iter().flat_map(|(vpc, tenants)| {
            let vms = tenants
                .vms
                .keys()
                .map(|id| RecordKey::Vm(vpc.clone(), id.clone()));
            let slbs = tenants
                .slbs
                .keys()
                .map(|id| RecordKey::Slb(vpc.clone(), id.clone()));
            vms.chain(slbs)
        })
    }
}

impl Inventory {
    /// The accepted VMs, by VPC and id.
    pub fn vms(&self) -> impl Iterator<Item = (&VpcId, &VmId, &Vm)> {
        self.endpoints
            .tenants
            .keys()
            .flat_map(|vpc| self.vms_of(vpc).map(move |(id, vm)| (vpc, id, vm)))
    }

    /// The accepted VMs of a VPC, by id.
    pub fn vms_of(&self, vpc: &VpcId) -> impl Iterator<Item = (&VmId, &Vm)> {
        let vms = self
            .endpoints
            .tenants
            .get(vpc)
            .into_iter()
            .flat_map(|tenants| &tenants.vms);
        let accepted = vms.filter(|(_, slot)| slot.state == Status::Accepted);
        accepted.map(|(id, slot)| (id, &slot.record))
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
        self.endpoints.vms
    }

    /// How many SLBs are accepted.
    pub fn slb_count(&self) -> usize {
        self.endpoints.slbs
    }

    /// The addresses of a VPC that something serves, with their hops (at least one, sorted).
    pub fn endpoints_of(&self, vpc: &VpcId) -> impl Iterator<Item = (IpAddr, Vec<Hop>)> {
        let tenants = self.endpoints.tenants.get(vpc).into_iter();
        tenants.flat_map(|tenants| {
            tenants
                .owners
                .keys()
                .filter_map(|addr| Some((*addr, tenants.hops(*addr)?)))
        })
    }

    /// The hops of an address of a VPC (at least one, sorted).
    pub fn hops(&self, vpc: &VpcId, addr: IpAddr) -> Option<Vec<Hop>> {
        self.endpoints.tenants.get(vpc)?.hops(addr)
    }

    /// The VM or SLB that has an address of a VPC; an SLB may be without any node.
    pub fn owner(&self, vpc: &VpcId, addr: IpAddr) -> Option<&EndpointId> {
        Some(&self.endpoints.tenants.get(vpc)?.owners.get(&addr)?.1)
    }

    fn touch_endpoint(&self, vpc: &VpcId, addr: IpAddr, work: &mut Work) {
        let touched = work.effects.endpoints.entry((vpc.clone(), addr));
        touched.or_insert_with(|| self.hops(vpc, addr));
    }

    pub(super) fn insert_vm(
        &mut self,
        vpc: VpcId,
        id: VmId,
        created: Generation,
        vm: Vm,
        work: &mut Work,
    ) {
        let slot = Slot {
            created,
            record: vm,
            state: Status::Quarantined,
        };
        self.endpoints
            .tenants
            .entry(vpc.clone())
            .or_default()
            .vms
            .insert(id.clone(), slot);
        work.endpoints.insert((vpc, (created, EndpointId::Vm(id))));
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
        work.endpoints.insert((vpc, (created, EndpointId::Slb(id))));
    }

    pub(super) fn remove_endpoint(&mut self, vpc: &VpcId, id: EndpointId, work: &mut Work) {
        let Some(tenants) = self.endpoints.tenants.get_mut(vpc) else {
            return;
        };
        let Some((created, status, addrs)) = tenants.find(&id) else {
            return;
        };
        let addrs = addrs.to_vec();
        let rank = (created, id);
        match status {
            Status::Accepted => self.release(vpc, &rank, &addrs, work),
            Status::Quarantined => {
                addrs
                    .iter()
                    .for_each(|addr| tenants.stop_waiting(*addr, &rank));
            }
        }
        let Some(tenants) = self.endpoints.tenants.get_mut(vpc) else {
            return;
        };
        match &rank.1 {
            EndpointId::Vm(id) => drop(tenants.vms.remove(id)),
            EndpointId::Slb(id) => drop(tenants.slbs.remove(id)),
        }
        if tenants.is_empty() {
            self.endpoints.tenants.remove(vpc);
        }
    }

    /// Has every VM and SLB of a VPC looked at again: the VPC came, went or changed its subnets.
    pub(super) fn reconsider_endpoints_of(&mut self, vpc: &VpcId, work: &mut Work) {
        let Some(tenants) = self.endpoints.tenants.get(vpc) else {
            return;
        };
        let vms = tenants
            .vms
            .iter()
            .map(|(id, slot)| (slot.created, EndpointId::Vm(id.clone())));
        let slbs = tenants
            .slbs
            .iter()
            .map(|(id, slot)| (slot.created, EndpointId::Slb(id.clone())));
        work.endpoints
            .extend(vms.chain(slbs).map(|rank| (vpc.clone(), rank)));
    }

    pub(super) fn settle_endpoints(&mut self, work: &mut Work) {
        while let Some((vpc, rank)) = work.endpoints.pop_first() {
            let Some(tenants) = self.endpoints.tenants.get(&vpc) else {
                continue;
            };
            let Some((created, status, addrs)) = tenants.find(&rank.1) else {
                continue;
            };
            if created != rank.0 {
                continue;
            }
            let addrs = addrs.to_vec();
            let fault = self.endpoint_fault(&vpc, &rank, &addrs);
            match (&fault, status) {
                (None, Status::Quarantined) => self.accept(&vpc, &rank, &addrs, work),
                (Some(_), Status::Accepted) => {
                    self.release(&vpc, &rank, &addrs, work);
                    self.make_wait(&vpc, &rank, &addrs);
                }
                (Some(_), Status::Quarantined) => self.make_wait(&vpc, &rank, &addrs),
                (None, Status::Accepted) => {}
            }
            self.set_fault(&rank.1.key(&vpc), fault, work);
        }
    }

    /// What is wrong with a VM or SLB, as far as those of lower rank go, which are settled.
    fn endpoint_fault(
        &self,
        vpc: &VpcId,
        rank: &Rank<EndpointId>,
        addrs: &[IpAddr],
    ) -> Option<(String, Reason)> {
        let Some((record, _)) = self.vpcs.accepted(vpc) else {
            return Some(("vpc".to_owned(), Reason::UnknownVpc(vpc.clone())));
        };
        let list = match rank.1 {
            EndpointId::Vm(_) => "addrs",
            EndpointId::Slb(_) => "vips",
        };
        let owners = self
            .endpoints
            .tenants
            .get(vpc)
            .map(|tenants| &tenants.owners);
        addrs.iter().enumerate().find_map(|(index, addr)| {
            let field = || format!("{list}[{index}]");
            if !record
                .subnets
                .iter()
                .any(|subnet| subnet.contains_addr(*addr))
            {
                return Some((
                    field(),
                    Reason::OutsideSubnets {
                        addr: *addr,
                        vpc: vpc.clone(),
                    },
                ));
            }
            let owner = owners?.get(addr).filter(|owner| *owner < rank)?;
            Some((
                field(),
                Reason::AddressTaken {
                    addr: *addr,
                    by: owner.1.key(vpc),
                },
            ))
        })
    }

    /// Gives a VM or SLB its addresses. Those who had them, being of higher rank, wait.
    fn accept(&mut self, vpc: &VpcId, rank: &Rank<EndpointId>, addrs: &[IpAddr], work: &mut Work) {
        for addr in addrs {
            let Some(tenants) = self.endpoints.tenants.get(vpc) else {
                return;
            };
            let displaced = tenants.owners.get(addr).cloned();
            if let Some(displaced) = displaced
                && let Some((_, _, theirs)) = tenants.find(&displaced.1)
            {
                let theirs = theirs.to_vec();
                self.release(vpc, &displaced, &theirs, work);
                self.make_wait(vpc, &displaced, &theirs);
                work.endpoints.insert((vpc.clone(), displaced));
            }
        }
        for addr in addrs {
            self.touch_endpoint(vpc, *addr, work);
        }
        let Some(tenants) = self.endpoints.tenants.get_mut(vpc) else {
            return;
        };
        for addr in addrs {
            tenants.stop_waiting(*addr, rank);
            tenants.owners.insert(*addr, rank.clone());
            // Those behind are told who has it now.
            let behind = tenants.waiting_after(*addr, rank);
            work.endpoints
                .extend(behind.into_iter().map(|rank| (vpc.clone(), rank)));
        }
        tenants.set_status(&rank.1, Status::Accepted);
        self.count(&rank.1, 1);
    }

    /// Takes the addresses of an accepted VM or SLB away, and has those who wait for them looked at.
    fn release(&mut self, vpc: &VpcId, rank: &Rank<EndpointId>, addrs: &[IpAddr], work: &mut Work) {
        for addr in addrs {
            self.touch_endpoint(vpc, *addr, work);
        }
        let Some(tenants) = self.endpoints.tenants.get_mut(vpc) else {
            return;
        };
        for addr in addrs {
            tenants.owners.remove(addr);
            let behind = tenants.waiting_after(*addr, rank);
            work.endpoints
                .extend(behind.into_iter().map(|rank| (vpc.clone(), rank)));
        }
        tenants.set_status(&rank.1, Status::Quarantined);
        self.count(&rank.1, -1);
    }

    fn make_wait(&mut self, vpc: &VpcId, rank: &Rank<EndpointId>, addrs: &[IpAddr]) {
        if let Some(tenants) = self.endpoints.tenants.get_mut(vpc) {
            addrs.iter().for_each(|addr| tenants.wait(*addr, rank));
        }
    }

    fn count(&mut self, id: &EndpointId, by: isize) {
        let count = match id {
            EndpointId::Vm(_) => &mut self.endpoints.vms,
            EndpointId::Slb(_) => &mut self.endpoints.slbs,
        };
        *count = count.saturating_add_signed(by);
    }
}
