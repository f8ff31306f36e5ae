use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::inventory::Inventory;
use crate::inventory::history::{MapStore, put};
use crate::plane::LearnedNextHops;
use crate::plane::model::Mtus;
use crate::plane::model::flow::Flows;
use crate::record::GroupName;
use crate::region;

/// The small region of `fixtures/`, with links.
struct World {
    inventory: Inventory,
    group: GroupName,
    learned: BTreeMap<bgp::Prefix, LearnedNextHops>,
}

impl World {
    fn new() -> World {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/region-small");
        let mut store = MapStore::default();
        let entries = region::read(&path).expect("the fixture is good");
        let mut changes: Vec<_> = entries
            .iter()
            .map(|entry| crate::store::Change::put(&entry.key, &entry.record))
            .collect();
        changes.push(put(
            "links/web",
            json!({"vpc": "web", "classic": ["office"], "dscp": 10}),
        ));
        changes.push(put(
            "links/in",
            json!({"vpc": "db", "classic": ["lab"], "mode": "classic-to-vpc"}),
        ));
        changes.push(put(
            "vpcs/far",
            json!({"vni": 3001, "subnets": ["10.9.0.0/24"]}),
        ));
        changes.push(put(
            "links/far",
            json!({"vpc": "far", "classic": ["10.83.0.0/24"], "group": "west"}),
        ));
        changes.push(put(
            "slbs/db/idle",
            json!({"vips": ["10.1.1.100"], "nodes": []}),
        ));
        let mut inventory = Inventory::default();
        inventory.apply(&store.commit(&changes));
        assert_eq!(inventory.quarantine().next(), None);
        let hops = ["10.255.0.2".parse().unwrap(), "10.255.0.3".parse().unwrap()];
        let learned = [("10.80.1.0/25".parse().unwrap(), hops.into())].into();
        World {
            inventory,
            group: GroupName::default(),
            learned,
        }
    }

    fn explain(&self, src: &str, dst: &str, vni: Option<u32>) -> Result<Explanation, ExplainError> {
        let model = Model {
            inventory: &self.inventory,
            group: &self.group,
            learned: &self.learned,
            flows: &Flows::NONE,
            mtus: Mtus::default(),
        };
        let vni = vni.map(|vni| Vni::new(vni).unwrap());
        explain(&model, src.parse().unwrap(), dst.parse().unwrap(), vni)
    }
}

/// Each row of the forwarding contract, and each way to be dropped.
#[test]
fn the_contract_row_by_row() {
    let world = World::new();
    for (src, dst, vni, summary) in [
        // IDC -> VPC
        (
            "10.80.1.5",
            "10.1.0.11",
            None,
            "encapsulate with VNI 1001 to 172.16.0.11",
        ),
        (
            "fd80:1::5",
            "fd00:1::12",
            None,
            "encapsulate with VNI 1001 to 172.16.0.12",
        ),
        (
            "10.80.1.5",
            "10.1.0.100",
            None,
            "encapsulate with VNI 1001 to 172.16.0.11 or 172.16.0.12",
        ),
        (
            "10.80.2.5",
            "10.1.1.21",
            None,
            "encapsulate with VNI 1002 to 172.16.0.12",
        ),
        (
            "10.80.1.5",
            "10.9.0.1",
            None,
            "drop: not-linked (10.9.0.1 is in no linked subnet)",
        ),
        (
            "10.80.1.5",
            "10.70.0.1",
            None,
            "drop: not-linked (10.70.0.1 is in no linked subnet)",
        ),
        (
            "10.80.2.5",
            "10.1.0.11",
            None,
            "drop: not-linked-source (10.80.2.5 is in no classic prefix linked with VPC web)",
        ),
        (
            "10.80.9.9",
            "10.1.0.11",
            None,
            "drop: not-linked-source (10.80.9.9 is in no classic prefix linked with VPC web)",
        ),
        (
            "10.80.1.5",
            "10.1.0.99",
            None,
            "drop: no-such-endpoint (no VM or SLB of VPC web has 10.1.0.99)",
        ),
        // VPC -> IDC
        (
            "10.1.0.11",
            "10.80.1.5",
            Some(1001),
            "decapsulate and forward to 10.255.0.2 or 10.255.0.3",
        ),
        (
            "10.1.0.11",
            "10.80.1.200",
            Some(1001),
            "drop: no-idc-route (no IDC router announces a route to 10.80.1.200)",
        ),
        (
            "10.1.0.11",
            "10.80.1.5",
            Some(2001),
            "drop: no-link (10.80.1.5 is neither in the CCSI of VPC web-test nor in a classic prefix linked with it)",
        ),
        (
            "10.1.0.11",
            "10.80.2.5",
            Some(1001),
            "drop: no-link (10.80.2.5 is neither in the CCSI of VPC web nor in a classic prefix linked with it)",
        ),
        (
            "10.1.1.21",
            "10.80.1.5",
            Some(1001),
            "drop: bad-source (10.1.1.21 is in no subnet of VPC web)",
        ),
        (
            "10.1.0.11",
            "10.80.1.5",
            Some(7),
            "drop: unknown-vni (no VPC has this VNI)",
        ),
        (
            "10.1.1.21",
            "10.80.2.5",
            Some(1002),
            "drop: not-a-reply (over this link only classic hosts open connections; replies pass by flow state)",
        ),
        // VPC -> VPC
        (
            "10.1.0.11",
            "10.1.1.21",
            Some(1001),
            "encapsulate with VNI 1002 to 172.16.0.12",
        ),
        (
            "10.1.0.11",
            "10.1.1.21",
            Some(2001),
            "encapsulate with VNI 2002 to 172.16.0.11",
        ),
        (
            "10.1.0.11",
            "10.1.0.12",
            Some(1001),
            "encapsulate with VNI 1001 to 172.16.0.12",
        ),
        (
            "fd00:1:1::21",
            "fd00:1::11",
            Some(2002),
            "encapsulate with VNI 2001 to 172.16.0.12",
        ),
        (
            "10.1.0.11",
            "10.1.1.100",
            Some(1001),
            "drop: no-such-endpoint (SLB idle has no node)",
        ),
    ] {
        let found = world.explain(src, dst, vni).unwrap();
        assert_eq!(found.summary, summary, "{src} -> {dst} {vni:?}: {found:#?}");
        assert_eq!(found.deduced, vni.is_none());
    }
}

#[test]
fn the_chain_in_words() {
    let world = World::new();
    let chain = |src, dst, vni| -> Vec<String> {
        let found = world.explain(src, dst, vni).unwrap();
        found
            .steps
            .into_iter()
            .map(|step| format!("{}: {}", step.step, step.detail))
            .collect()
    };
    assert_eq!(
        chain("10.80.1.5", "10.1.0.11", None),
        [
            "ingress: plain IP from the IDC",
            "link: web: classic prefix 10.80.1.0/24, mode both, DSCP 10",
            "vpc: web (VNI 1001, CCSI prod): subnet 10.1.0.0/24 holds 10.1.0.11",
            "vm: web-1 has 10.1.0.11",
            "host: VTEP 172.16.0.11, inner MAC 02:00:00:01:00:11",
        ]
    );
    assert_eq!(
        chain("10.80.1.5", "10.1.0.100", None)[3..],
        [
            "slb: front has 10.1.0.100",
            "node: VTEP 172.16.0.11, inner MAC 02:00:ac:10:00:0b, 2 of 3 flows",
            "node: VTEP 172.16.0.12, inner MAC 02:00:ac:10:00:0c, 1 of 3 flows",
        ]
    );
    assert_eq!(
        chain("10.1.0.12", "10.80.1.5", Some(1001)),
        [
            "ingress: VXLAN from a hypervisor, VNI 1001",
            "source: web (VNI 1001, CCSI prod): subnet 10.1.0.0/24 holds 10.1.0.12",
            "link: web: classic prefix 10.80.1.0/24, mode both, DSCP 10",
            "route: 10.80.1.0/25 learned from the IDC, via 10.255.0.2 and 10.255.0.3",
        ]
    );
    assert_eq!(
        chain("10.80.1.5", "10.9.0.1", None)[1..],
        ["vpc: far: 10.9.0.0/24 is linked by gateways of group west"]
    );
}

#[test]
fn where_a_packet_comes_in_is_concluded_or_asked_for() {
    let world = World::new();
    let found = world.explain("10.9.0.5", "10.9.0.6", None).unwrap();
    assert_eq!(
        found.packet.ingress,
        Ingress::Vxlan {
            vni: Vni::new(3001).unwrap()
        }
    );
    let error = world
        .explain("10.1.0.11", "10.80.1.5", None)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "10.1.0.11 is an address of VPC web (VNI 1001) and VPC web-test (VNI 2001): \
         say which with --vni"
    );
    let error = world.explain("10.1.0.11", "fd80:1::5", None).unwrap_err();
    assert!(matches!(error, ExplainError::Families { .. }));
}

#[test]
fn the_shape_in_json() {
    let world = World::new();
    let found = world.explain("10.80.1.5", "10.1.0.11", None).unwrap();
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["ingress"], json!({"from": "idc"}));
    assert_eq!(json["src"], "10.80.1.5");
    assert_eq!(json["link"]["link"], "web");
    assert_eq!(json["destination"]["endpoint"], json!({"vm": "web-1"}));
    assert_eq!(json["verdict"]["action"], "encapsulate");
    assert_eq!(json["verdict"]["hops"][0]["mac"], "02:00:00:01:00:11");
    let dropped = world.explain("10.80.1.5", "10.70.0.1", None).unwrap();
    let json = serde_json::to_value(&dropped).unwrap();
    assert_eq!(
        json["verdict"],
        json!({"action": "drop", "reason": "not-linked"})
    );
}
