//! Several places for one address: SLBs by weight, learned routes by ECMP; each flow keeps its place.

use super::*;
use crate::packet::{SYN, tcp, udp};
use crate::row::{Expect, Place, idc, row, vxlan};

const FLOWS: u16 = 300;

fn nodes(vni: u32, nodes: &[(u8, u32)]) -> Expect {
    let node = |(host, weight): &(u8, u32)| (Place::Node(vni, *host), *weight);
    Expect::Spread {
        flows: FLOWS,
        places: nodes.iter().map(node).collect(),
    }
}

fn routers() -> Expect {
    let places = [2, 3].map(|number| (Place::Router(Router(number)), 1));
    Expect::Spread {
        flows: FLOWS,
        places: places.to_vec(),
    }
}

fn vm(name: &'static str) -> Expect {
    Expect::Spread {
        flows: FLOWS,
        places: vec![(Place::Vm(name), 1)],
    }
}

pub(crate) fn rows() -> Vec<Row> {
    vec![
        row(
            "flows to an SLB by weight, from the IDC",
            idc(tcp(OFFICE, "10.1.0.100", SYN)),
            nodes(WEB, &[(21, 2), (22, 1)]),
        ),
        row(
            "flows to an SLB by weight, from the IDC over IPv6",
            idc(udp(OFFICE6, "fd00:1::100")),
            nodes(WEB, &[(21, 2), (22, 1)]),
        ),
        row(
            "flows to an SLB with three nodes, from a VM",
            vxlan(WEB, tcp(WEB1, "10.1.1.100", SYN)),
            nodes(DB, &[(21, 1), (22, 1), (23, 2)]),
        ),
        row("flows to two routers", vxlan(DB, udp(DB1, LAB)), routers()),
        row(
            "TCP flows to two routers",
            vxlan(DB, tcp(DB1, LAB, SYN)),
            routers(),
        ),
        row(
            "IPv6 flows to two routers",
            vxlan(DB, udp(DB1_6, "fd80:2::10")),
            routers(),
        ),
        row(
            "flows to one VM differ in the outer source port",
            idc(udp(OFFICE, WEB1)),
            vm("web-1"),
        ),
        row(
            "IPv6 flows to one VM differ in the outer source port",
            idc(udp(OFFICE6, WEB1_6)),
            vm("web-1"),
        ),
        row(
            "flows between VMs differ in the outer source port",
            vxlan(WEB, udp(WEB1, DB1)),
            vm("db-1"),
        ),
    ]
}
