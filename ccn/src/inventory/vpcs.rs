//! VPCs beside one another: a VNI belongs to the one created first.

use std::collections::{BTreeMap, BTreeSet};

use bgp::Prefix;

use super::effects::Work;
use super::{Inventory, Rank, Slot, Status};
use crate::plane::entry::ScopeId;
use crate::record::{CcsiId, Reason, RecordKey, Vni, Vpc, VpcId};
use crate::store::Generation;

/// All VPCs whose record parses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Vpcs {
    slots: BTreeMap<VpcId, Slot<Vpc, Status>>,
    /// Who asks for a VNI; the first has it.
    by_vni: BTreeMap<Vni, BTreeSet<Rank<VpcId>>>,
}

impl Vpcs {
    pub(super) fn slot(&self, id: &VpcId) -> Option<&Slot<Vpc, Status>> {
        self.slots.get(id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = RecordKey> {
        self.slots.keys().cloned().map(RecordKey::Vpc)
    }

    /// The VPC and when it was created, if it is accepted.
    pub(super) fn accepted(&self, id: &VpcId) -> Option<(&Vpc, Generation)> {
        let slot = self.slots.get(id)?;
        (slot.state == Status::Accepted).then_some((&slot.record, slot.created))
    }
}

/// An accepted VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpcState {
    /// Its VNI.
    pub vni: Vni,
    /// Its subnets, which never overlap one another.
    pub subnets: Vec<Prefix>,
    /// The CCSI that it is a member of.
    pub ccsi: Option<CcsiId>,
    /// Where its packets are looked up.
    pub scope: ScopeId,
}

impl Inventory {
    /// An accepted VPC.
    pub fn vpc(&self, id: &VpcId) -> Option<VpcState> {
        let (vpc, _) = self.vpcs.accepted(id)?;
        let ccsi = self.ccsis.of(id).cloned();
        let scope = self.ccsis.scope_of(id).unwrap_or(ScopeId(vpc.vni));
        Some(VpcState {
            vni: vpc.vni,
            subnets: vpc.subnets.clone(),
            ccsi,
            scope,
        })
    }

    /// The accepted VPCs, by id.
    pub fn vpcs(&self) -> impl Iterator<Item = (&VpcId, VpcState)> {
        self.vpcs
            .slots
            .keys()
            .filter_map(|id| Some((id, self.vpc(id)?)))
    }

    /// The accepted VPC with this VNI.
    pub fn vpc_with_vni(&self, vni: Vni) -> Option<&VpcId> {
        let (_, id) = self.vpcs.by_vni.get(&vni)?.first()?;
        Some(id)
    }

    /// Remembers a VPC as it is, before it changes.
    pub(super) fn touch_vpc(&self, id: &VpcId, work: &mut Work) {
        if !work.effects.vpcs.contains_key(id) {
            work.effects.vpcs.insert(id.clone(), self.vpc(id));
        }
    }

    pub(super) fn insert_vpc(&mut self, id: VpcId, created: Generation, vpc: Vpc, work: &mut Work) {
        self.touch_vpc(&id, work);
        let claims = self.vpcs.by_vni.entry(vpc.vni).or_default();
        claims.insert((created, id.clone()));
        work.vpcs
            .extend(claims.iter().map(|(_, claimant)| claimant.clone()));
        let slot = Slot {
            created,
            record: vpc,
            state: Status::Quarantined,
        };
        self.vpcs.slots.insert(id, slot);
    }

    pub(super) fn remove_vpc(&mut self, id: &VpcId, work: &mut Work) {
        self.touch_vpc(id, work);
        let Some(slot) = self.vpcs.slots.remove(id) else {
            return;
        };
        let vni = slot.record.vni;
        if let Some(claims) = self.vpcs.by_vni.get_mut(&vni) {
            claims.remove(&(slot.created, id.clone()));
            work.vpcs
                .extend(claims.iter().map(|(_, claimant)| claimant.clone()));
            if claims.is_empty() {
                self.vpcs.by_vni.remove(&vni);
            }
        }
    }

    pub(super) fn settle_vpcs(&mut self, work: &mut Work) {
        for id in std::mem::take(&mut work.vpcs) {
            let Some(slot) = self.vpcs.slots.get(&id) else {
                continue;
            };
            let vni = slot.record.vni;
            let first = self
                .vpc_with_vni(vni)
                .filter(|first| **first != id)
                .cloned();
            let status = match &first {
                None => Status::Accepted,
                Some(_) => Status::Quarantined,
            };
            if slot.state != status {
                self.touch_vpc(&id, work);
            }
            if let Some(slot) = self.vpcs.slots.get_mut(&id) {
                slot.state = status;
            }
            let fault = first.map(|by| ("vni".to_owned(), Reason::VniTaken { vni, by }));
            self.quarantine.set_fault(&RecordKey::Vpc(id), fault, work);
        }
        let touched: Vec<(VpcId, bool)> = work
            .effects
            .vpcs
            .iter()
            .map(|(id, before)| {
                let before = before.as_ref().map(|before| &before.subnets);
                let after = self.vpcs.accepted(id).map(|(vpc, _)| &vpc.subnets);
                (id.clone(), before != after)
            })
            .collect();
        for (id, subnets_differ) in touched {
            // The members of a CCSI rank by when they were created, so a VPC that was created anew
            // matters to it even if it looks the same.
            work.ccsis.extend(self.ccsis.naming(&id));
            if subnets_differ {
                self.reconsider_endpoints_of(&id, work);
                self.reconsider_links_of(&id, work);
            }
        }
    }
}
