//! What the records alone tell, as JSON shapes.

use std::collections::{BTreeMap, BTreeSet};

use bgp::{Family, Prefix};

use super::view::{GatewayView, LinkView, VmView, VpcView};
use crate::api::error::Fault;
use crate::inventory::Inventory;
use crate::ledger::seconds_now;
use crate::record::{ClassicRef, GroupName, Link, LinkId, Record, RecordKey, VpcId};

/// Every VPC.
#[must_use]
pub fn vpcs(inventory: &Inventory) -> Vec<VpcView> {
    let vpcs = inventory.vpcs().map(|(id, state)| VpcView {
        vpc: id.clone(),
        vni: state.vni,
        subnets: state.subnets,
        ccsi: state.ccsi,
        vms: inventory.vm_count_of(id),
        slbs: inventory.slbs_of(id).count(),
        links: inventory
            .links_of(id)
            .map(|(link, _)| link.clone())
            .collect(),
    });
    vpcs.collect()
}

/// Every VM, or those of one VPC.
#[must_use]
pub fn vms(inventory: &Inventory, only: Option<&VpcId>) -> Vec<VmView> {
    inventory
        .vpcs()
        .filter(|(vpc, _)| only.is_none_or(|only| only == *vpc))
        .flat_map(|(vpc, _)| inventory.vms_of(vpc).map(move |vm| (vpc, vm)))
        .map(|(vpc, (id, vm))| VmView {
            vpc: vpc.clone(),
            vm: id,
            addrs: vm.addrs,
            mac: vm.mac,
            vtep: vm.vtep,
        })
        .collect()
}

/// Every gateway that is registered.
#[must_use]
pub fn gateways(inventory: &Inventory) -> Vec<GatewayView> {
    let mut links: BTreeMap<&GroupName, usize> = BTreeMap::new();
    for (_, link) in inventory.links() {
        *links.entry(&link.group).or_default() += 1;
    }
    let gateways = inventory.gateways().map(|(name, record)| GatewayView {
        gateway: name.clone(),
        links: links.get(&record.group).copied().unwrap_or_default(),
        record: record.clone(),
    });
    gateways.collect()
}

/// Records that are wrong and therefore ignored.
#[must_use]
pub fn quarantine(inventory: &Inventory) -> Vec<Fault> {
    inventory.quarantine().map(Fault::from).collect()
}

/// A link as its record says, with no word yet of how far it has come.
#[must_use]
pub fn link(inventory: &Inventory, id: &LinkId, link: &Link) -> LinkView {
    LinkView {
        link: id.clone(),
        generation: inventory.link_generation(id),
        vpc: link.vpc.clone(),
        classic: link.classic.clone(),
        mode: link.mode,
        group: link.group.clone(),
        dscp: link.dscp,
        standby: link.standby,
        subnets: joined(inventory, link),
        state: String::new(),
        reason: None,
        behind: None,
        announced: Vec::new(),
        advertised_to: Vec::new(),
        gateways: Vec::new(),
        undone_in_s: link.confirm_by.map(|by| by.saturating_sub(seconds_now())),
    }
}

/// The VPC's subnets of the families that the classic side has. As the planner has it: a subnet is joined with
/// prefixes of its own family.
fn joined(inventory: &Inventory, link: &Link) -> Vec<Prefix> {
    let families = families(inventory, link);
    let subnets = inventory.vpc(&link.vpc).map(|vpc| vpc.subnets);
    let subnets = subnets.unwrap_or_default().into_iter();
    subnets
        .filter(|subnet| families.contains(&subnet.family()))
        .collect()
}

/// The families of a link's classic side.
fn families(inventory: &Inventory, link: &Link) -> BTreeSet<Family> {
    let mut families = BTreeSet::new();
    for item in &link.classic {
        match item {
            ClassicRef::Prefix(prefix) => families.extend([prefix.family()]),
            ClassicRef::Name(name) => {
                let key = RecordKey::Classic(name.clone());
                if let Some(Record::Classic(classic)) = inventory.record(&key) {
                    families.extend(classic.prefixes.iter().map(Prefix::family));
                }
            }
        }
    }
    families
}
