//! Hypervisors and gateway speak IPv6 to one another; inside it is all the same.

use ccn::plane::model::{Answer, DropReason};

use super::*;
use crate::packet::udp;
use crate::row::{By, Expect, idc, row, to_node, to_router, to_vm, vxlan};

/// Why such a packet is refused, though it allows to be fragmented.
const UNCUT: &str = "the kernel fragments no IPv6 packet around one that it forwards";

pub(crate) fn theme() -> Theme {
    let region = Region::new("underlay6")
        .over_ipv6()
        .vpc("solo", SOLO, &["10.3.0.0/24", "fd00:3::/64"])
        .link(
            "solo",
            json!({"vpc": "solo", "classic": ["10.80.1.0/24", "fd80:1::/64"]}),
        )
        .vm("solo-1", "solo", &[SOLO1, SOLO1_6], 11)
        .vm("solo-2", "solo", &[SOLO2, SOLO2_6], 12)
        .slb("single", "solo", &["10.3.0.100"], &[(23, 1)])
        .learned("10.80.1.0/24", &[Router(2)])
        .learned("fd80:1::/64", &[Router(3)]);
    let mtu = region.mtu();
    let drop = Expect::Drop;
    let too_big = Expect::Answer(Answer::TooBig { mtu });
    let rows = vec![
        row(
            "over IPv6: IPv4 to a VM",
            idc(udp(OFFICE, SOLO1)),
            to_vm("solo-1"),
        ),
        row(
            "over IPv6: IPv6 to a VM",
            idc(udp(OFFICE6, SOLO1_6)),
            to_vm("solo-1"),
        ),
        row(
            "over IPv6: the largest packet",
            idc(udp(OFFICE, SOLO1).length(mtu)),
            to_vm("solo-1"),
        ),
        row(
            "over IPv6: too big",
            idc(udp(OFFICE, SOLO1).length(mtu + 1)),
            too_big.clone(),
        ),
        row(
            "over IPv6: IPv6 too big",
            idc(udp(OFFICE6, SOLO1_6).length(mtu + 1)),
            too_big.clone(),
        ),
        row(
            "over IPv6: too big, and it may be fragmented",
            idc(udp(OFFICE, SOLO1).length(1500).may_fragment()),
            to_vm("solo-1").in_fragments(),
        )
        .but(By::Ebpf, too_big.clone(), UNCUT),
        row(
            "over IPv6: an SLB",
            idc(udp(OFFICE, "10.3.0.100")),
            to_node(SOLO, 23),
        ),
        row(
            "over IPv6: IPv4 to the IDC",
            vxlan(SOLO, udp(SOLO1, OFFICE)),
            to_router(2),
        ),
        row(
            "over IPv6: IPv6 to the IDC",
            vxlan(SOLO, udp(SOLO1_6, OFFICE6)),
            to_router(3),
        ),
        row(
            "over IPv6: between VMs",
            vxlan(SOLO, udp(SOLO1, SOLO2)),
            to_vm("solo-2"),
        ),
        row(
            "over IPv6: IPv6 between VMs",
            vxlan(SOLO, udp(SOLO1_6, SOLO2_6)),
            to_vm("solo-2"),
        ),
        row(
            "over IPv6: outside in fragments",
            vxlan(SOLO, udp(SOLO1, OFFICE).length(1490)),
            to_router(2),
        ),
        row(
            "over IPv6: marked outside",
            vxlan(SOLO, udp(SOLO1, OFFICE).ecn(1)).outer(0, 3),
            to_router(2).ecn(3),
        ),
        row(
            "over IPv6: a mark goes outside",
            idc(udp(OFFICE, SOLO1).ecn(1)),
            to_vm("solo-1"),
        ),
        row(
            "over IPv6: TTL 1",
            vxlan(SOLO, udp(SOLO1, OFFICE).hops(1)),
            Expect::Answer(Answer::TimeExceeded),
        ),
        row(
            "over IPv6: a bad source",
            vxlan(SOLO, udp("10.4.0.1", OFFICE)),
            drop(DropReason::BadSource),
        ),
        row(
            "over IPv6: unknown VNI",
            vxlan(7, udp(SOLO1, OFFICE)),
            drop(DropReason::UnknownVni),
        ),
        row(
            "over IPv6: nobody has the address",
            idc(udp(OFFICE, "10.3.0.99")),
            drop(DropReason::NoSuchEndpoint),
        ),
        row(
            "over IPv6: a VM does not reach the VTEP",
            vxlan(SOLO, udp(SOLO1_6, "fd16::1")),
            drop(DropReason::NoLink),
        ),
    ];
    Theme { region, rows }
}
