//! VPC to IDC: VXLAN from a hypervisor, for an address of a linked classic prefix.

use ccn::plane::model::DropReason;

use super::*;
use crate::packet::{ACK, ping, pong, tcp, udp};
use crate::row::{Expect, row, to_router, vxlan};

pub(crate) fn rows() -> Vec<Row> {
    let drop = Expect::Drop;
    vec![
        row(
            "UDP reaches the IDC",
            vxlan(WEB, udp(WEB1, OFFICE)),
            to_router(2),
        ),
        row(
            "UDP over IPv6 reaches the IDC",
            vxlan(WEB, udp(WEB1_6, OFFICE6)),
            to_router(2),
        ),
        row(
            "TCP reaches the IDC",
            vxlan(WEB, tcp(WEB1, OFFICE, ACK)),
            to_router(2),
        ),
        row(
            "an echo request reaches the IDC",
            vxlan(WEB, ping(WEB1, OFFICE)),
            to_router(2),
        ),
        row(
            "an echo reply reaches the IDC",
            vxlan(WEB, pong(WEB1, OFFICE)),
            to_router(2),
        ),
        row(
            "an ICMPv6 echo reply reaches the IDC",
            vxlan(WEB, pong(WEB1_6, OFFICE6)),
            to_router(2),
        ),
        row(
            "the largest packet a VM sends",
            vxlan(WEB, udp(WEB1, OFFICE).length(1450)),
            to_router(2),
        ),
        row(
            "a source of the VPC that no VM has: the subnet counts",
            vxlan(WEB, udp("10.1.0.77", OFFICE)),
            to_router(2),
        ),
        row(
            "a VPC in no CCSI",
            vxlan(SOLO, udp(SOLO1, OFFICE)),
            to_router(2),
        ),
        row(
            "the longest learned route wins",
            vxlan(DB, udp(DB1, "10.80.2.200")),
            to_router(3),
        ),
        row(
            "a learned host route",
            vxlan(SOLO, udp(SOLO1, "10.81.0.5")),
            to_router(3),
        ),
        row(
            "linked by the longer of two prefixes",
            vxlan(SOLO, udp(SOLO1, "10.80.2.200")),
            to_router(3),
        ),
        row(
            "linked by the wider of two prefixes, and not learned",
            vxlan(SOLO, udp(SOLO1, "10.80.3.1")),
            drop(DropReason::NoIdcRoute),
        ),
        row(
            "linked by the wider of two IPv6 prefixes, and not learned",
            vxlan(SOLO, udp(SOLO1_6, "fd80:3::1")),
            drop(DropReason::NoIdcRoute),
        ),
        row(
            "learned and not linked",
            vxlan(WEB, udp(WEB1, STRANGER)),
            drop(DropReason::NoLink),
        ),
        row(
            "learned and not linked over IPv6",
            vxlan(WEB, udp(WEB1_6, STRANGER6)),
            drop(DropReason::NoLink),
        ),
        row(
            "linked with another VPC of the CCSI only",
            vxlan(WEB, udp(WEB1, LAB)),
            drop(DropReason::NoLink),
        ),
        row(
            "a VPC that is not linked, with the addresses of one that is",
            vxlan(WEB_TEST, udp(WEB1, OFFICE)),
            drop(DropReason::NoLink),
        ),
        row(
            "a VPC without any link",
            vxlan(LONE, udp(LONE1, OFFICE)),
            drop(DropReason::NoLink),
        ),
        row(
            "a link of another group",
            vxlan(FAR, udp(FAR1, "10.83.0.1")),
            drop(DropReason::NoLink),
        ),
        row(
            "neither linked nor learned",
            vxlan(WEB, udp(WEB1, "203.0.113.1")),
            drop(DropReason::NoLink),
        ),
        row(
            "a source of another VPC of the CCSI",
            vxlan(WEB, udp(DB1, OFFICE)),
            drop(DropReason::BadSource),
        ),
        row(
            "an IPv6 source of another VPC of the CCSI",
            vxlan(WEB, udp(DB1_6, OFFICE6)),
            drop(DropReason::BadSource),
        ),
        row(
            "a source of nobody's",
            vxlan(WEB, udp("192.0.2.1", OFFICE)),
            drop(DropReason::BadSource),
        ),
        row(
            "a source of the classic network",
            vxlan(WEB, udp("10.80.1.77", OFFICE)),
            drop(DropReason::BadSource),
        ),
        row(
            "a bad source and a destination that is not linked",
            vxlan(WEB, udp("192.0.2.1", STRANGER)),
            drop(DropReason::BadSource),
        ),
        row(
            "a VNI that no VPC has",
            vxlan(7, udp(WEB1, OFFICE)),
            drop(DropReason::UnknownVni),
        ),
        row(
            "a VNI that no VPC has, with IPv6",
            vxlan(7, udp(WEB1_6, OFFICE6)),
            drop(DropReason::UnknownVni),
        ),
        row(
            "the highest VNI there can be",
            vxlan(0xff_ffff, udp(WEB1, OFFICE)),
            drop(DropReason::UnknownVni),
        ),
    ]
}
