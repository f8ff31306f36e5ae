//! CCSIs: which VPCs may reach one another. A VPC is in one at most, members never overlap.
//!
//! Members are taken one by one, in the order in which the VPCs were created; one that cannot be
//! taken (unknown, in an earlier CCSI, overlapping an earlier member) is left out and is alone.

use std::collections::{BTreeMap, BTreeSet};

use bgp::Prefix;

use super::effects::Work;
use super::prefixes::PrefixMap;
use super::{Inventory, Rank, Slot};
use crate::plane::entry::ScopeId;
use crate::record::{Ccsi, CcsiId, Reason, RecordError, RecordKey, VpcId};
use crate::store::Generation;

/// All CCSIs whose record parses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ccsis {
    slots: BTreeMap<CcsiId, Slot<Ccsi, Members>>,
    /// Which CCSIs name a VPC.
    naming: BTreeMap<VpcId, BTreeSet<Rank<CcsiId>>>,
    /// Which CCSI a VPC is a member of.
    of: BTreeMap<VpcId, CcsiId>,
}

/// The members that were taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Members {
    vpcs: BTreeSet<VpcId>,
    subnets: PrefixMap<VpcId>,
    scope: Option<ScopeId>,
}

impl Ccsis {
    pub(super) fn slot(&self, id: &CcsiId) -> Option<&Slot<Ccsi, Members>> {
        self.slots.get(id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = RecordKey> {
        self.slots.keys().cloned().map(RecordKey::Ccsi)
    }

    /// The CCSI that a VPC is a member of.
    pub(super) fn of(&self, vpc: &VpcId) -> Option<&CcsiId> {
        self.of.get(vpc)
    }

    /// The scope of the CCSI that a VPC is a member of.
    pub(super) fn scope_of(&self, vpc: &VpcId) -> Option<ScopeId> {
        self.slots.get(self.of(vpc)?)?.state.scope
    }

    /// The CCSIs that name a VPC, whether it is a member or not.
    pub(super) fn naming(&self, vpc: &VpcId) -> impl Iterator<Item = Rank<CcsiId>> {
        self.naming.get(vpc).into_iter().flatten().cloned()
    }
}

impl Inventory {
    /// The CCSIs, with the VPCs that are members.
    pub fn ccsis(&self) -> impl Iterator<Item = (&CcsiId, &BTreeSet<VpcId>)> {
        self.ccsis
            .slots
            .iter()
            .map(|(id, slot)| (id, &slot.state.vpcs))
    }

    /// The subnets that packets of a VPC can be for, with their VPCs: those of its CCSI, or its own.
    /// Asked for one prefix: those that overlap it.
    pub(super) fn neighbours_overlapping(
        &self,
        vpc: &VpcId,
        prefix: Prefix,
    ) -> Vec<(Prefix, VpcId)> {
        if let Some(slot) = self
            .ccsis
            .of(vpc)
            .and_then(|ccsi| self.ccsis.slots.get(ccsi))
        {
            let found = slot.state.subnets.overlapping(prefix);
            return found.map(|(subnet, vpc)| (subnet, vpc.clone())).collect();
        }
        let own = self
            .vpcs
            .accepted(vpc)
            .map(|(vpc, _)| vpc.subnets.as_slice())
            .unwrap_or_default();
        let own = own.iter().filter(|subnet| subnet.overlaps(&prefix));
        own.map(|subnet| (*subnet, vpc.clone())).collect()
    }

    /// Which VPC (of the CCSI of `vpc`, itself included) an address belongs to, and by which subnet.
    pub fn neighbour(&self, vpc: &VpcId, addr: std::net::IpAddr) -> Option<(Prefix, VpcId)> {
        // Subnets of one CCSI never overlap: there is one at most.
        self.neighbours_overlapping(vpc, Prefix::host(addr))
            .into_iter()
            .next()
    }

    pub(super) fn insert_ccsi(
        &mut self,
        id: CcsiId,
        created: Generation,
        ccsi: Ccsi,
        work: &mut Work,
    ) {
        for vpc in &ccsi.vpcs {
            self.ccsis
                .naming
                .entry(vpc.clone())
                .or_default()
                .insert((created, id.clone()));
        }
        work.ccsis.insert((created, id.clone()));
        let slot = Slot {
            created,
            record: ccsi,
            state: Members::default(),
        };
        self.ccsis.slots.insert(id, slot);
    }

    pub(super) fn remove_ccsi(&mut self, id: &CcsiId, work: &mut Work) {
        let Some(created) = self.ccsis.slots.get(id).map(|slot| slot.created) else {
            return;
        };
        self.take_members(&(created, id.clone()), Members::default(), work);
        let Some(slot) = self.ccsis.slots.remove(id) else {
            return;
        };
        for vpc in slot.record.vpcs {
            if let Some(naming) = self.ccsis.naming.get_mut(&vpc) {
                naming.remove(&(created, id.clone()));
                if naming.is_empty() {
                    self.ccsis.naming.remove(&vpc);
                }
            }
        }
    }

    pub(super) fn settle_ccsis(&mut self, work: &mut Work) {
        while let Some(rank) = work.ccsis.pop_first() {
            let Some(slot) = self.ccsis.slots.get(&rank.1) else {
                continue;
            };
            if slot.created != rank.0 {
                continue;
            }
            let (members, faults) = self.choose_members(&rank, &slot.record);
            let key = RecordKey::Ccsi(rank.1.clone());
            let error = |(index, reason)| RecordError::new(&key, format!("vpcs[{index}]"), reason);
            let faults = faults.into_iter().map(error).collect();
            self.quarantine.set_faults(key.to_string(), faults, work);
            self.take_members(&rank, members, work);
        }
    }

    /// Who of those a CCSI names can be a member, and why the others cannot, in the record's order.
    fn choose_members(&self, rank: &Rank<CcsiId>, ccsi: &Ccsi) -> (Members, Vec<(usize, Reason)>) {
        let (mut members, mut faults) = (Members::default(), Vec::new());
        let mut candidates = Vec::with_capacity(ccsi.vpcs.len());
        for (index, id) in ccsi.vpcs.iter().enumerate() {
            match self.vpcs.accepted(id) {
                None => faults.push((index, Reason::UnknownVpc(id.clone()))),
                Some((vpc, created)) => candidates.push((created, id, index, vpc)),
            }
        }
        candidates.sort_by_key(|(created, id, ..)| (*created, *id));
        for (_, id, index, vpc) in candidates {
            let earlier = self.ccsis.naming.get(id).into_iter().flatten();
            let mut earlier = earlier
                .take_while(|other| *other < rank)
                .map(|(_, other)| other);
            let taken = earlier.find(|other| {
                self.ccsis
                    .slots
                    .get(*other)
                    .is_some_and(|slot| slot.state.vpcs.contains(id))
            });
            if let Some(ccsi) = taken {
                let reason = Reason::InOtherCcsi {
                    vpc: id.clone(),
                    ccsi: ccsi.clone(),
                };
                faults.push((index, reason));
                continue;
            }
            let overlap = vpc.subnets.iter().find_map(|subnet| {
                let (other_subnet, other) = members.subnets.overlapping(*subnet).next()?;
                let (vpc, other) = (id.clone(), other.clone());
                Some(Reason::MembersOverlap {
                    vpc,
                    subnet: *subnet,
                    other,
                    other_subnet,
                })
            });
            if let Some(reason) = overlap {
                faults.push((index, reason));
                continue;
            }
            for subnet in &vpc.subnets {
                members.subnets.insert(*subnet, id.clone());
            }
            members.vpcs.insert(id.clone());
            let scope = ScopeId(vpc.vni);
            members.scope = Some(members.scope.map_or(scope, |lowest| lowest.min(scope)));
        }
        faults.sort();
        (members, faults)
    }

    /// Makes these the members of a CCSI, and has everyone whom that concerns looked at again.
    fn take_members(&mut self, rank: &Rank<CcsiId>, members: Members, work: &mut Work) {
        let Some(slot) = self.ccsis.slots.get(&rank.1) else {
            return;
        };
        if slot.state == members {
            return;
        }
        let before = slot.state.clone();
        let concerned: BTreeSet<&VpcId> = before.vpcs.union(&members.vpcs).collect();
        // All of them before anything changes: who moves here from a later CCSI has that one's scope.
        for vpc in &concerned {
            self.touch_vpc(vpc, work);
        }
        for vpc in &concerned {
            if !members.vpcs.contains(*vpc) && self.ccsis.of.get(*vpc) == Some(&rank.1) {
                self.ccsis.of.remove(*vpc);
            }
            if before.vpcs.contains(*vpc) != members.vpcs.contains(*vpc) {
                work.ccsis
                    .extend(self.ccsis.naming(vpc).filter(|other| other > rank));
            }
            work.links.extend(self.links.naming(vpc));
        }
        for vpc in &members.vpcs {
            self.ccsis.of.insert(vpc.clone(), rank.1.clone());
        }
        if let Some(slot) = self.ccsis.slots.get_mut(&rank.1) {
            slot.state = members;
        }
    }
}
