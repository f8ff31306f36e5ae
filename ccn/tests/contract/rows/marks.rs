//! DSCP and ECN: copied outside on the way into VXLAN, joined on the way out (RFC 6040), set by links.

use super::*;
use crate::packet::{Ip, udp};
use crate::row::{By, Expect, idc, row, to_router, to_vm, vxlan};

/// What Linux writes outside for a packet that is marked already.
const RFC_3168: &str =
    "the kernel's VXLAN device follows RFC 3168 here: the mark inside stays, outside is ECT(0)";
const ENCAPSULATION: &str = "the kernel takes the DSCP of the route's encapsulation, which is zero";
const NO_DSCP: &str = "it refuses links that set a DSCP, and says so";

/// Not-ECT, ECT(0), ECT(1), CE by their numbers.
const NAMES: [&str; 4] = ["not-ECT", "ECT(1)", "ECT(0)", "CE"];
const CE: u8 = 3;

/// RFC 6040 figure 4: what goes on, by inside and outside; nothing where it is dropped.
fn joined(inside: u8, outside: u8) -> Option<u8> {
    match (inside, outside) {
        (0, CE) => None,
        (0, _) => Some(0),
        (_, CE) => Some(CE),
        (2, 1) => Some(1),
        (inside, _) => Some(inside),
    }
}

fn ecn_out_of_vxlan(inside: u8, outside: u8) -> Row {
    let names = (NAMES[usize::from(inside)], NAMES[usize::from(outside)]);
    let name = format!("out of VXLAN, {} inside and {} outside", names.0, names.1);
    let sent = vxlan(WEB, udp(WEB1, OFFICE).ecn(inside)).outer(0, outside);
    match joined(inside, outside) {
        Some(ecn) => row(name, sent, to_router(2).ecn(ecn)),
        None => {
            row(name, sent, Expect::Lost).not(By::Model, "it begins where the VXLAN device ends")
        }
    }
}

/// The same between VPCs, where the joined mark goes outside again.
fn ecn_between(inside: u8, outside: u8) -> Option<Row> {
    let names = (NAMES[usize::from(inside)], NAMES[usize::from(outside)]);
    let name = format!("between VPCs, {} inside and {} outside", names.0, names.1);
    let sent = vxlan(WEB, udp(WEB1_6, DB1_6).ecn(inside)).outer(0, outside);
    let ecn = joined(inside, outside)?;
    Some(marked_outside(row(name, sent, to_vm("db-1").ecn(ecn)), ecn))
}

/// RFC 6040 section 4.1 copies CE to the outside.
fn marked_outside(row: Row, ecn: u8) -> Row {
    if ecn != CE {
        return row;
    }
    let instead = row.expect.clone().outer_ecn(2);
    row.but(By::Routes, instead.clone(), RFC_3168)
        .but(By::Ebpf, instead, RFC_3168)
}

fn ecn_into_vxlan(ip: Ip, family: &str) -> Vec<Row> {
    let one = |ecn: u8| {
        let name = format!("{} into VXLAN over {family}", NAMES[usize::from(ecn)]);
        marked_outside(row(name, idc(ip.clone().ecn(ecn)), to_vm("web-1")), ecn)
    };
    (0..4).map(one).collect()
}

pub(crate) fn rows() -> Vec<Row> {
    let all = (0..4).flat_map(|inside| (0..4).map(move |outside| (inside, outside)));
    let mut rows: Vec<Row> = all.clone().map(|(i, o)| ecn_out_of_vxlan(i, o)).collect();
    rows.extend(all.filter_map(|(i, o)| ecn_between(i, o)));
    rows.extend(ecn_into_vxlan(udp(OFFICE, WEB1), "IPv4"));
    rows.extend(ecn_into_vxlan(udp(OFFICE6, WEB1_6), "IPv6"));
    for (name, sent, expect) in [
        (
            "a DSCP is copied outside",
            idc(udp(OFFICE, WEB1).dscp(46)),
            to_vm("web-1"),
        ),
        (
            "an IPv6 DSCP is copied outside",
            idc(udp(OFFICE6, WEB1_6).dscp(10)),
            to_vm("web-1"),
        ),
        (
            "the highest DSCP is copied outside",
            idc(udp(OFFICE, WEB1).dscp(63).ecn(1)),
            to_vm("web-1"),
        ),
        (
            "a DSCP is copied between VPCs, whatever is outside",
            vxlan(WEB, udp(WEB1, DB1).dscp(18)).outer(46, 0),
            to_vm("db-1"),
        ),
    ] {
        let instead = expect.clone().outer_dscp(0);
        rows.push(row(name, sent, expect).but(By::Routes, instead, ENCAPSULATION));
    }
    rows.push(row(
        "the DSCP inside goes to the IDC, not the one outside",
        vxlan(WEB, udp(WEB1, OFFICE).dscp(34)).outer(46, 0),
        to_router(2),
    ));
    rows
}

/// Links that set the DSCP outside: the longest prefix decides.
pub(crate) fn links() -> Theme {
    let region = Region::new("marked")
        .vpc("solo", SOLO, &["10.3.0.0/24", "fd00:3::/64"])
        .link(
            "wide",
            json!({"vpc": "solo", "classic": ["10.80.0.0/16", "fd80::/16"], "dscp": 10}),
        )
        .link(
            "narrow",
            json!({"vpc": "solo", "classic": ["10.80.1.0/24", "fd80:1::/64"], "dscp": 46}),
        )
        .link(
            "plain",
            json!({"vpc": "solo", "classic": ["10.80.1.128/25"]}),
        )
        .link(
            "zero",
            json!({"vpc": "solo", "classic": ["10.81.0.0/16"], "dscp": 0}),
        )
        .vm("solo-1", "solo", &[SOLO1, SOLO1_6], 11)
        .vm("solo-2", "solo", &[SOLO2, SOLO2_6], 12)
        .learned("10.80.0.0/16", &[Router(2)]);
    let to = |dscp| to_vm("solo-1").outer_dscp(dscp);
    let rows = [
        ("a link's own DSCP", idc(udp("10.80.9.1", SOLO1)), to(10)),
        (
            "a link's own DSCP instead of the packet's",
            idc(udp("10.80.9.1", SOLO1).dscp(34)),
            to(10),
        ),
        (
            "the DSCP of the longer prefix",
            idc(udp(OFFICE, SOLO1)),
            to(46),
        ),
        (
            "the DSCP of the longer IPv6 prefix",
            idc(udp(OFFICE6, SOLO1_6)),
            to(46),
        ),
        (
            "the DSCP of the wider IPv6 prefix",
            idc(udp("fd80:9::1", SOLO1_6)),
            to(10),
        ),
        (
            "the longest prefix sets none: the packet's own",
            idc(udp("10.80.1.200", SOLO1).dscp(34)),
            to(34),
        ),
        (
            "a link's DSCP of zero",
            idc(udp("10.81.0.1", SOLO1).dscp(34)),
            to(0),
        ),
        (
            "a link's DSCP and ECN",
            idc(udp("10.80.9.1", SOLO1).ecn(1)),
            to(10),
        ),
        (
            "no link's DSCP within the VPC",
            vxlan(SOLO, udp(SOLO1, SOLO2).dscp(34)),
            to_vm("solo-2").outer_dscp(34),
        ),
        (
            "the link's DSCP does not go to the IDC",
            vxlan(SOLO, udp(SOLO1, "10.80.9.1").dscp(34)),
            to_router(2),
        ),
    ];
    let rows = rows
        .into_iter()
        .map(|(name, sent, expect)| row(name, sent, expect).not(By::Routes, NO_DSCP));
    Theme {
        region,
        rows: rows.collect(),
    }
}
