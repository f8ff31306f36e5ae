//! What senders are told: time exceeded, too big; and when they are told nothing.

use ccn::plane::model::{Answer, DropReason};

use super::*;
use crate::packet::{Ip, SYN, pong, tcp, udp, unreachable};
use crate::row::{By, Expect, idc, row, to_router, to_vm, vxlan};

const AGED: Expect = Expect::Answer(Answer::TimeExceeded);
/// Why the kernel's own errors do not reach these VMs.
const TWINS: &str =
    "a packet of the gateway's own has no VNI, and another CCSI has the same addresses too";
const UNLINKED: &str = "a packet of the gateway's own has no VNI, and the VPC is not linked";
const SILENT: &str = "the kernel drops it before any route, and counts it itself";

fn too_big(mtu: usize) -> Expect {
    Expect::Answer(Answer::TooBig { mtu })
}

fn aged(ip: Ip) -> Ip {
    ip.hops(1)
}

pub(crate) fn rows() -> Vec<Row> {
    let drop = Expect::Drop;
    vec![
        row("TTL 1 from the IDC", idc(aged(udp(OFFICE, SOLO1))), AGED),
        row(
            "hop limit 1 from the IDC",
            idc(aged(udp(OFFICE6, SOLO1_6))),
            AGED,
        ),
        row(
            "TTL 1 from the IDC to a VPC with a twin",
            idc(aged(udp(OFFICE, WEB1))),
            AGED,
        ),
        row("TTL 0 from the IDC", idc(udp(OFFICE, SOLO1).hops(0)), AGED),
        row(
            "TTL 1 of TCP from the IDC",
            idc(aged(tcp(OFFICE, SOLO1, SYN))),
            AGED,
        ),
        row(
            "TTL 2 from the IDC",
            idc(udp(OFFICE, SOLO1).hops(2)),
            to_vm("solo-1"),
        ),
        row(
            "TTL 255 from the IDC",
            idc(udp(OFFICE, SOLO1).hops(255)),
            to_vm("solo-1"),
        ),
        row(
            "hop limit 2 from the IDC",
            idc(udp(OFFICE6, SOLO1_6).hops(2)),
            to_vm("solo-1"),
        ),
        row(
            "TTL 1 from a VM to the IDC",
            vxlan(SOLO, aged(udp(SOLO1, OFFICE))),
            AGED,
        ),
        row(
            "hop limit 1 from a VM to the IDC",
            vxlan(SOLO, aged(udp(SOLO1_6, OFFICE6))),
            AGED,
        ),
        row(
            "TTL 1 between VMs",
            vxlan(SOLO, aged(udp(SOLO1, SOLO2))),
            AGED,
        ),
        row(
            "hop limit 1 between VMs",
            vxlan(SOLO, aged(udp(SOLO1_6, SOLO2_6))),
            AGED,
        ),
        row(
            "TTL 2 from a VM to the IDC",
            vxlan(SOLO, udp(SOLO1, OFFICE).hops(2)),
            to_router(2),
        ),
        row(
            "TTL 2 between VMs",
            vxlan(SOLO, udp(SOLO1, SOLO2).hops(2)),
            to_vm("solo-2"),
        ),
        row(
            "TTL 1 from a VM whose address another CCSI has too",
            vxlan(WEB, aged(udp(WEB1, OFFICE))),
            AGED,
        )
        .but(By::Routes, Expect::Lost, TWINS),
        row(
            "TTL 1 between VMs whose addresses a linked CCSI has too",
            vxlan(WEB_TEST, aged(udp(WEB1, DB1))),
            AGED,
        )
        .but(By::Routes, Expect::Lost, TWINS),
        row(
            "TTL 1 within a VPC that is not linked",
            vxlan(LONE, aged(udp(LONE1, LONE1))),
            AGED,
        )
        .but(By::Routes, Expect::Lost, UNLINKED),
        row(
            "TTL 1 and not linked: the sender learns nothing",
            vxlan(WEB, aged(udp(WEB1, STRANGER))),
            drop(DropReason::NoLink),
        )
        .but(
            By::Routes,
            Expect::Lost,
            "the kernel looks at the TTL before it leads a packet to the device that counts",
        ),
        row(
            "TTL 1 of an echo reply is answered",
            vxlan(SOLO, aged(pong(SOLO1, OFFICE))),
            AGED,
        ),
        row(
            "TTL 1 of an ICMP error is not answered",
            vxlan(SOLO, aged(unreachable(SOLO1, udp(OFFICE, SOLO1)))),
            drop(DropReason::TtlExceeded),
        )
        .but(By::Routes, Expect::Lost, SILENT),
        row(
            "hop limit 1 of an ICMPv6 error is not answered",
            idc(aged(unreachable(OFFICE6, udp(SOLO1_6, OFFICE6)))),
            drop(DropReason::TtlExceeded),
        )
        .but(By::Routes, Expect::Lost, SILENT),
        row(
            "TTL 1 of a later fragment is not answered",
            idc(aged(udp(OFFICE, SOLO1).fragment(64, false))),
            drop(DropReason::TtlExceeded),
        )
        .but(By::Routes, Expect::Lost, SILENT),
        row(
            "hop limit 1 of a later IPv6 fragment is answered",
            idc(aged(udp(OFFICE6, SOLO1_6).fragment(64, false))),
            AGED,
        ),
        row(
            "TTL 1 of a first fragment is answered",
            idc(aged(udp(OFFICE, SOLO1).length(516).fragment(0, true))),
            AGED,
        ),
        row(
            "too big for VXLAN",
            idc(udp(OFFICE, SOLO1).length(1451)),
            too_big(1450),
        ),
        row(
            "too big for VXLAN, the largest",
            idc(udp(OFFICE, SOLO1).length(1500)),
            too_big(1450),
        ),
        row(
            "too big for VXLAN, to a VPC with a twin",
            idc(udp(OFFICE, WEB1).length(1500)),
            too_big(1450),
        ),
        row(
            "IPv6 too big for VXLAN",
            idc(udp(OFFICE6, SOLO1_6).length(1451)),
            too_big(1450),
        ),
        row(
            "TCP too big for VXLAN",
            idc(tcp(OFFICE, SOLO1, SYN).length(1500)),
            too_big(1450),
        ),
        row(
            "an ICMP error too big for VXLAN is not answered",
            idc(Ip {
                upper: crate::packet::Upper::Icmp(3, 1, [0; 4]),
                ..udp(OFFICE, SOLO1).length(1500)
            }),
            drop(DropReason::TooBig),
        )
        .but(By::Routes, Expect::Lost, SILENT),
        row(
            "too big, and it may be fragmented",
            idc(udp(OFFICE, SOLO1).length(1500).may_fragment()),
            to_vm("solo-1").in_fragments(),
        ),
        row(
            "too big by one octet, and it may be fragmented",
            idc(udp(OFFICE, WEB1).length(1451).may_fragment()),
            to_vm("web-1").in_fragments(),
        ),
        row(
            "too big between VMs, outside in fragments",
            vxlan(SOLO, udp(SOLO1, SOLO2).length(1500)),
            too_big(1450),
        ),
        row(
            "IPv6 too big between VMs, outside in fragments",
            vxlan(SOLO, udp(SOLO1_6, SOLO2_6).length(1500)),
            too_big(1450),
        ),
        row(
            "too big between VMs, and it may be fragmented",
            vxlan(SOLO, udp(SOLO1, SOLO2).length(1500).may_fragment()),
            to_vm("solo-2").in_fragments(),
        ),
        row(
            "fragments of VXLAN are put together",
            vxlan(SOLO, udp(SOLO1, OFFICE).length(1500)),
            to_router(2),
        ),
    ]
}

/// An IDC that takes less than VXLAN leaves.
pub(crate) fn narrow() -> Theme {
    let region = Region::new("narrow")
        .idc_mtu(1400)
        .vpc("solo", SOLO, &["10.3.0.0/24", "fd00:3::/64"])
        .link(
            "solo",
            json!({"vpc": "solo", "classic": ["10.80.1.0/24", "fd80:1::/64"]}),
        )
        .vm("solo-1", "solo", &[SOLO1, SOLO1_6], 11)
        .vm("solo-2", "solo", &[SOLO2, SOLO2_6], 12)
        .learned("10.80.1.0/24", &[Router(2)])
        .learned("fd80:1::/64", &[Router(3)]);
    let rows = vec![
        row(
            "the largest packet for the IDC",
            vxlan(SOLO, udp(SOLO1, OFFICE).length(1400)),
            to_router(2),
        ),
        row(
            "too big for the IDC",
            vxlan(SOLO, udp(SOLO1, OFFICE).length(1401)),
            too_big(1400),
        ),
        row(
            "IPv6 too big for the IDC",
            vxlan(SOLO, udp(SOLO1_6, OFFICE6).length(1401)),
            too_big(1400),
        ),
        row(
            "too big for the IDC, and it may be fragmented",
            vxlan(SOLO, udp(SOLO1, OFFICE).length(1401).may_fragment()),
            to_router(2).in_fragments(),
        ),
        row(
            "TTL 1 and too big for the IDC: time exceeded",
            vxlan(SOLO, aged(udp(SOLO1, OFFICE).length(1401))),
            AGED,
        ),
        row(
            "not too big for another VM",
            vxlan(SOLO, udp(SOLO1, SOLO2).length(1450)),
            to_vm("solo-2"),
        ),
    ];
    Theme { region, rows }
}
