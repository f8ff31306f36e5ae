//! IDC to VPC: plain IP from a router, for an address of a linked subnet.

use ccn::plane::model::DropReason;

use super::*;
use crate::packet::{SYN, other, ping, tcp, udp};
use crate::row::{Expect, idc, row, to_node, to_vm};

pub(crate) fn rows() -> Vec<Row> {
    let drop = Expect::Drop;
    vec![
        row("UDP reaches a VM", idc(udp(OFFICE, WEB1)), to_vm("web-1")),
        row(
            "UDP over IPv6 reaches a VM",
            idc(udp(OFFICE6, WEB1_6)),
            to_vm("web-1"),
        ),
        row(
            "another VM of the VPC on another host",
            idc(udp(OFFICE, WEB2)),
            to_vm("web-2"),
        ),
        row(
            "TCP reaches a VM",
            idc(tcp(OFFICE, WEB1, SYN)),
            to_vm("web-1"),
        ),
        row(
            "TCP over IPv6 reaches a VM",
            idc(tcp(OFFICE6, WEB1_6, SYN)),
            to_vm("web-1"),
        ),
        row(
            "an echo request reaches a VM",
            idc(ping(OFFICE, WEB1)),
            to_vm("web-1"),
        ),
        row(
            "an ICMPv6 echo request reaches a VM",
            idc(ping(OFFICE6, WEB1_6)),
            to_vm("web-1"),
        ),
        row(
            "a protocol without ports reaches a VM",
            idc(other(OFFICE, WEB1, 47)),
            to_vm("web-1"),
        ),
        row(
            "a protocol without ports over IPv6 reaches a VM",
            idc(other(OFFICE6, WEB1_6, 47)),
            to_vm("web-1"),
        ),
        row(
            "a linked VPC in no CCSI",
            idc(udp(OFFICE, SOLO1)),
            to_vm("solo-1"),
        ),
        row(
            "the largest packet that fits",
            idc(udp(OFFICE, WEB1).length(1450)),
            to_vm("web-1"),
        ),
        row(
            "the largest IPv6 packet that fits",
            idc(udp(OFFICE6, WEB1_6).length(1450)),
            to_vm("web-1"),
        ),
        row(
            "an SLB with one node",
            idc(udp(OFFICE, "10.1.0.101")),
            to_node(WEB, 23),
        ),
        row(
            "an SLB without a node has no endpoint",
            idc(udp(OFFICE, "10.1.0.102")),
            drop(DropReason::NoSuchEndpoint),
        ),
        row(
            "an address of a linked subnet that nobody has",
            idc(udp(OFFICE, "10.1.0.99")),
            drop(DropReason::NoSuchEndpoint),
        ),
        row(
            "an IPv6 address of a linked subnet that nobody has",
            idc(udp(OFFICE6, "fd00:1::99")),
            drop(DropReason::NoSuchEndpoint),
        ),
        row(
            "the broadcast address of a linked subnet is nobody's",
            idc(udp(OFFICE, "10.1.0.255")),
            drop(DropReason::NoSuchEndpoint),
        ),
        row(
            "the lowest address of a linked subnet is nobody's",
            idc(udp(OFFICE, "10.1.0.0")),
            drop(DropReason::NoSuchEndpoint),
        ),
        row(
            "a source in no classic prefix at all",
            idc(udp(STRANGER, WEB1)),
            drop(DropReason::NotLinkedSource),
        ),
        row(
            "an IPv6 source in no classic prefix at all",
            idc(udp(STRANGER6, WEB1_6)),
            drop(DropReason::NotLinkedSource),
        ),
        row(
            "a source that is linked with another VPC only",
            idc(udp(LAB, WEB1)),
            drop(DropReason::NotLinkedSource),
        ),
        row(
            "a source outside and a destination that nobody has",
            idc(udp(STRANGER, "10.1.0.99")),
            drop(DropReason::NotLinkedSource),
        ),
        row(
            "a VPC that is not linked",
            idc(udp(OFFICE, LONE1)),
            drop(DropReason::NotLinked),
        ),
        row(
            "an IPv6 VPC that is not linked",
            idc(udp(OFFICE6, LONE1_6)),
            drop(DropReason::NotLinked),
        ),
        row(
            "a VPC that gateways of another group serve",
            idc(udp("10.83.0.1", FAR1)),
            drop(DropReason::NotLinked),
        ),
        row(
            "a destination that no VPC has",
            idc(udp(OFFICE, "10.70.0.1")),
            drop(DropReason::NotLinked),
        ),
        row(
            "an IPv6 destination that no VPC has",
            idc(udp(OFFICE6, "fd70::1")),
            drop(DropReason::NotLinked),
        ),
        row(
            "from one classic network to another: no transit",
            idc(udp(OFFICE, "10.80.2.10")),
            drop(DropReason::NotLinked),
        ),
        row(
            "a host of the wider of two nested prefixes",
            idc(udp("10.80.77.1", SOLO1)),
            to_vm("solo-1"),
        ),
        row(
            "a single linked host",
            idc(udp("10.81.0.5", SOLO1)),
            to_vm("solo-1"),
        ),
        row(
            "the neighbour of a single linked host",
            idc(udp("10.81.0.6", SOLO1)),
            drop(DropReason::NotLinkedSource),
        ),
    ]
}
