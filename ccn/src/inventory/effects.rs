//! What a change of records did to the accepted ones: each touched thing, as it was before.
//!
//! With the inventory as it is afterwards, that is all the planner needs to know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::links::LinkRank;
use super::{EndpointId, LinkState, Rank, VpcState};
use crate::plane::entry::Hop;
use crate::record::{CcsiId, LinkId, RecordError, VpcId};

/// The things that a change touched, as they were before it. `None`: not there, or quarantined.
/// What is named here need not differ in the end; what is not named does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// The inventory was empty before, so that everything is touched. Addresses are not named then.
    pub whole: bool,
    /// VPCs whose VNI, subnets or scope may differ.
    pub vpcs: BTreeMap<VpcId, Option<VpcState>>,
    /// Addresses whose hops may differ.
    pub endpoints: BTreeMap<(VpcId, IpAddr), Option<Vec<Hop>>>,
    /// Links that may differ.
    pub links: BTreeMap<LinkId, Option<LinkState>>,
    /// Keys whose faults may differ.
    pub quarantine: BTreeMap<String, Vec<RecordError>>,
}

/// What is left to look at again while a change is worked in. Each set is emptied from its lowest
/// rank upwards, and a look at one record only ever adds higher ones.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) effects: Effects,
    pub(super) vpcs: BTreeSet<VpcId>,
    pub(super) ccsis: BTreeSet<Rank<CcsiId>>,
    /// VPCs whose VMs and SLBs are all looked at.
    pub(super) tenants: BTreeSet<VpcId>,
    pub(super) endpoints: BTreeSet<(VpcId, Rank<EndpointId>)>,
    pub(super) links: BTreeSet<LinkRank>,
}

impl Work {
    /// Has a VM or an SLB looked at.
    pub(super) fn look_at(&mut self, vpc: VpcId, rank: Rank<EndpointId>) {
        if !self.effects.whole {
            self.endpoints.insert((vpc, rank));
        } else if !self.tenants.contains(&vpc) {
            self.tenants.insert(vpc);
        }
    }
}
