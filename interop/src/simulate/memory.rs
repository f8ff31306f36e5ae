//! How much memory records take in an agent: real inventories of made-up regions that differ in one number, and what
//! the allocator says of each. Kernel memory is not in it.

use std::time::{Duration, Instant};

use ccn::fixture::{self, FixtureError, FixtureSpec};
use ccn::inventory::{Inventory, Loaded};
use ccn::order::Order;
use ccn::plan::Planner;
use serde::Serialize;
use serde_json::Value;

use super::meter::in_use;
use super::region::{self, PAIR};

/// Octets that records take in an agent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Octets {
    /// A VM, with its share of an SLB for every 64.
    pub(super) vm: f64,
    /// A VPC of two subnets, with its share of a CCSI.
    pub(super) vpc: f64,
    /// A link of another group.
    pub(super) link: f64,
    /// A link that is served, with what the order of change keeps of it.
    pub(super) own_link: f64,
}

/// One agent's state, kept for as long as it is measured.
type Kept = (Inventory, Order);

/// Measures with regions of about so many VMs, `each` to a VPC.
///
/// # Errors
/// There can be no such region.
pub(super) fn measure(vms: u64, each: u64) -> Result<Octets, FixtureError> {
    let vpcs = (vms / each.max(1)).max(64) as u32;
    let base = FixtureSpec {
        vms,
        vpcs,
        hosts: (vms / 100).max(1) as u32,
        seed: 1,
    };
    let of = |spec: FixtureSpec, links: u32, group: usize| -> Result<(f64, Kept), FixtureError> {
        let before = in_use();
        let kept = agent(spec, links, group)?;
        Ok((in_use().saturating_sub(before) as f64, kept))
    };
    let links = vpcs / PAIR * (PAIR / 2);
    // What is made once, when something is done for the first time, is nobody's.
    drop(of(base, links, 0)?);
    let (plain, _one) = of(base, 0, 0)?;
    let more_vms = FixtureSpec {
        vms: 2 * vms,
        ..base
    };
    let (with_vms, _two) = of(more_vms, 0, 0)?;
    let more_vpcs = FixtureSpec {
        vpcs: 2 * vpcs,
        ..base
    };
    let (with_vpcs, _three) = of(more_vpcs, 0, 0)?;
    let (with_links, _four) = of(base, links, 1)?;
    let (with_own, _five) = of(base, links, 0)?;
    let per = |more: f64, count: u64| (more - plain) / count.max(1) as f64;
    Ok(Octets {
        vm: per(with_vms, vms),
        vpc: per(with_vpcs, vpcs.into()),
        link: per(with_links, links.into()),
        own_link: per(with_own, links.into()),
    })
}

/// An agent of group 0 that has loaded a region in which so many VPCs are linked by a group.
fn agent(spec: FixtureSpec, links: u32, group: usize) -> Result<Kept, FixtureError> {
    let mut inventory = Inventory::default();
    let mut load = inventory.begin_load();
    for (line, created) in fixture::generate(&spec)?.zip(1..) {
        // The fixture makes no line that is not one.
        let line: Value = serde_json::from_str(&line).unwrap_or_default();
        let key = line["key"].as_str().unwrap_or_default();
        let value = line["value"].to_string();
        let loaded = Loaded::parse(key, created, value.as_bytes());
        inventory.load_one(&mut load, loaded);
    }
    // VPCs of which no two have an address in common.
    let disjoint = (0..spec.vpcs).filter(|vpc| vpc % PAIR < PAIR / 2);
    for vpc in disjoint.take(links as usize) {
        let group = region::name(group);
        let value = format!(r#"{{"vpc":"vpc-{vpc:04}","classic":["idc-0"],"group":"{group}"}}"#);
        let key = format!("links/vpc-{vpc:04}");
        let last = u64::MAX >> 1;
        let loaded = Loaded::parse(&key, last, value.as_bytes());
        inventory.load_one(&mut load, loaded.modified(last));
    }
    let effects = inventory.end_load(load);
    let mut order = Order::new(Duration::ZERO, Instant::now());
    order.planned(Planner::new(region::name(0)).update(&inventory, &effects, 1));
    Ok((inventory, order))
}
