//! For tests: a store in a map, and random histories of it in a world so small that everything
//! collides with everything.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use crate::store::{Change, Changed, Generation, Stored};

/// A store in a map.
#[derive(Debug, Clone, Default)]
pub(crate) struct MapStore {
    pub(crate) generation: Generation,
    pub(crate) records: BTreeMap<String, Stored>,
}

impl MapStore {
    /// As the embedded store does it.
    pub(crate) fn commit(&mut self, changes: &[Change]) -> Vec<Changed> {
        let generation = self.generation + 1;
        let mut made = Vec::new();
        for change in changes {
            match change {
                Change::Put { key, value } => {
                    let created = self.records.get(key).map_or(generation, |old| old.created);
                    let (key, value) = (key.clone(), value.clone());
                    let stored = Stored {
                        key: key.clone(),
                        created,
                        modified: generation,
                        value,
                    };
                    self.records.insert(key, stored.clone());
                    made.push(Changed::Put(stored));
                }
                Change::Delete { key } => {
                    if self.records.remove(key).is_some() {
                        made.push(Changed::Deleted { key: key.clone() });
                    }
                }
            }
        }
        if !made.is_empty() {
            self.generation = generation;
        }
        made
    }

    pub(crate) fn all(&self) -> Vec<Stored> {
        self.records.values().cloned().collect()
    }
}

pub(crate) fn put(key: &str, value: impl ToString) -> Change {
    Change::Put {
        key: key.to_owned(),
        value: value.to_string().into(),
    }
}

pub(crate) fn delete(key: &str) -> Change {
    Change::Delete {
        key: key.to_owned(),
    }
}

const VPCS: [&str; 5] = ["a", "b", "c", "d", "e"];
const SUBNETS: [&str; 6] = [
    "10.0.0.0/24",
    "10.0.0.0/25",
    "10.0.1.0/24",
    "10.0.2.0/24",
    "10.80.0.0/24",
    "fd00::/64",
];
const ADDRS: [&str; 6] = [
    "10.0.0.1",
    "10.0.0.200",
    "10.0.1.1",
    "10.0.2.1",
    "10.80.0.1",
    "fd00::1",
];
const CLASSIC: [&str; 7] = [
    "10.80.0.0/24",
    "10.80.0.0/16",
    "10.81.0.0/24",
    "10.81.0.1/32",
    "10.0.1.0/25",
    "fd80::/64",
    "m",
];

fn some(from: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(select(from), 0..=most)
}

/// Any change; many of them are wrong by themselves or beside others.
pub(crate) fn change() -> impl Strategy<Value = Change> {
    let vpc = || select(VPCS.as_slice());
    let vpcs = (vpc(), 1u32..6, some(&SUBNETS, 2)).prop_map(|(id, vni, subnets)| {
        (
            format!("vpcs/{id}"),
            json!({"vni": vni, "subnets": subnets}),
        )
    });
    let vms = (
        vpc(),
        select(["x", "y", "z"].as_slice()),
        some(&ADDRS, 2),
        1u8..4,
    )
        .prop_map(|(vpc, id, addrs, host)| {
            let vtep = format!("172.16.0.{host}");
            let value = json!({"addrs": addrs, "mac": "02:00:00:00:00:01", "vtep": vtep});
            (format!("vms/{vpc}/{id}"), value)
        });
    let slbs = (
        vpc(),
        select(["x", "y"].as_slice()),
        some(&ADDRS, 2),
        0u8..3,
    )
        .prop_map(|(vpc, id, vips, nodes)| {
            let node = |n: u8| json!({"vtep": format!("172.16.1.{}", 9 - n), "weight": n + 1});
            let nodes: Vec<_> = (0..nodes).map(node).collect();
            (
                format!("slbs/{vpc}/{id}"),
                json!({"vips": vips, "nodes": nodes}),
            )
        });
    let ccsis = (select(["p", "q", "r"].as_slice()), some(&VPCS, 4))
        .prop_map(|(id, vpcs)| (format!("ccsis/{id}"), json!({"vpcs": vpcs})));
    let classics = (select(["m", "n"].as_slice()), some(&CLASSIC[..6], 2))
        .prop_map(|(id, prefixes)| (format!("classic/{id}"), json!({"prefixes": prefixes})));
    let links = (
        select(["k", "l", "m", "n"].as_slice()),
        vpc(),
        some(&CLASSIC, 2),
        select(["default", "default", "default", "other"].as_slice()),
        proptest::option::of(0u8..70),
        proptest::bool::weighted(0.2),
        proptest::bool::weighted(0.4),
    )
        .prop_map(|(id, vpc, classic, group, dscp, disabled, standby)| {
            let mode = if dscp.is_some() {
                "classic-to-vpc"
            } else {
                "both"
            };
            let value =
                json!({"vpc": vpc, "classic": classic, "group": group, "dscp": dscp, "mode": mode, "disabled": disabled,
                    "standby": standby});
            (format!("links/{id}"), value)
        });
    let record = prop_oneof![3 => vpcs, 4 => vms, 2 => slbs, 2 => ccsis, 1 => classics, 4 => links];
    (record, 0u8..20).prop_map(|((key, value), fate)| match fate {
        0..5 => delete(&key),
        5 => put(&key, "{junk"),
        6 => put("vpcs/no/such/key", value),
        _ => put(&key, value),
    })
}

/// Commits, each of a few changes.
pub(crate) fn history() -> impl Strategy<Value = Vec<Vec<Change>>> {
    proptest::collection::vec(proptest::collection::vec(change(), 1..5), 1..40)
}
