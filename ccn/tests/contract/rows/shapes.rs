//! What packets may look like: fragments, options, extension headers; and what is no packet at all.

use ccn::plane::model::DropReason;

use super::*;
use crate::packet::{Damage, Ip, other, udp};
use crate::row::{By, Expect, Sent, idc, row, to_router, to_vm, vxlan};

/// What the `routes` plane says of what is no packet.
const SILENT: &str = "the kernel drops it before any route, and counts it itself";
const HEADLESS: &str =
    "the kernel's VXLAN device drops what has no room for an IP header: an error of the device";
/// Four IPv4 options of "no operation".
const NOPS: [u8; 4] = [1; 4];

fn malformed(name: &str, sent: Sent) -> Row {
    row(name, sent, Expect::Drop(DropReason::Malformed)).but(By::Routes, Expect::Lost, SILENT)
}

/// The same, of which not even a header is there.
fn headless(name: &str, sent: Sent) -> Row {
    malformed(name, sent).but(By::Ebpf, Expect::Lost, HEADLESS)
}

fn not_ip(name: &str, sent: Sent) -> Row {
    row(name, sent, Expect::Drop(DropReason::NotIp)).but(By::Routes, Expect::Lost, SILENT)
}

fn broken(damage: Damage) -> Ip {
    udp(WEB1, OFFICE).damage(damage)
}

fn broken6(damage: Damage) -> Ip {
    udp(WEB1_6, OFFICE6).damage(damage)
}

fn from_idc(damage: Damage) -> Sent {
    idc(udp(OFFICE, WEB1).damage(damage))
}

pub(crate) fn rows() -> Vec<Row> {
    vec![
        row(
            "a first fragment to a VM",
            idc(udp(OFFICE, WEB1).length(116).fragment(0, true)),
            to_vm("web-1"),
        ),
        row(
            "a later fragment to a VM",
            idc(udp(OFFICE, WEB1).length(116).fragment(96, true)),
            to_vm("web-1"),
        ),
        row(
            "a last fragment to a VM",
            idc(udp(OFFICE, WEB1).fragment(192, false)),
            to_vm("web-1"),
        ),
        row(
            "an IPv6 first fragment to a VM",
            idc(udp(OFFICE6, WEB1_6).length(144).fragment(0, true)),
            to_vm("web-1"),
        ),
        row(
            "an IPv6 later fragment to a VM",
            idc(udp(OFFICE6, WEB1_6).fragment(96, false)),
            to_vm("web-1"),
        ),
        row(
            "a first fragment to the IDC",
            vxlan(WEB, udp(WEB1, OFFICE).length(116).fragment(0, true)),
            to_router(2),
        ),
        row(
            "a later fragment to the IDC",
            vxlan(WEB, udp(WEB1, OFFICE).fragment(96, false)),
            to_router(2),
        ),
        row(
            "a later fragment between VMs",
            vxlan(WEB, udp(WEB1, DB1).fragment(96, false)),
            to_vm("db-1"),
        ),
        row(
            "IPv4 options to a VM",
            idc(udp(OFFICE, WEB1).options(&NOPS)),
            to_vm("web-1"),
        ),
        row(
            "as many IPv4 options as there can be",
            idc(udp(OFFICE, WEB1).options(&[1; 40])),
            to_vm("web-1"),
        ),
        row(
            "IPv4 options to the IDC",
            vxlan(WEB, udp(WEB1, OFFICE).options(&NOPS)),
            to_router(2),
        ),
        row(
            "IPv4 options between VMs",
            vxlan(WEB, udp(WEB1, DB1).options(&NOPS)),
            to_vm("db-1"),
        ),
        row(
            "hop-by-hop options to a VM",
            idc(udp(OFFICE6, WEB1_6).extension(0, 1)),
            to_vm("web-1"),
        ),
        row(
            "destination options to a VM",
            idc(udp(OFFICE6, WEB1_6).extension(60, 2)),
            to_vm("web-1"),
        ),
        row(
            "two extension headers to the IDC",
            vxlan(WEB, udp(WEB1_6, OFFICE6).extension(0, 1).extension(60, 1)),
            to_router(2),
        ),
        row(
            "an extension header between VMs",
            vxlan(WEB, udp(WEB1_6, DB1_6).extension(60, 1)),
            to_vm("db-1"),
        ),
        row(
            "IPv4 without anything behind it",
            idc(empty(udp(OFFICE, WEB1))),
            to_vm("web-1"),
        ),
        row(
            "IPv6 without anything behind it",
            idc(empty(udp(OFFICE6, WEB1_6))),
            to_vm("web-1"),
        ),
        headless("IPv4 of no octets", vxlan(WEB, broken(Damage::Cut(0)))),
        headless("half an IPv4 header", vxlan(WEB, broken(Damage::Cut(12)))),
        headless(
            "one octet less than an IPv4 header",
            vxlan(WEB, broken(Damage::Cut(19))),
        ),
        malformed(
            "IPv4 cut behind its header",
            vxlan(WEB, broken(Damage::Cut(20))),
        ),
        malformed(
            "IPv4 that is cut by one octet",
            vxlan(WEB, broken(Damage::Cut(47))),
        ),
        malformed(
            "an IPv4 length beyond the packet",
            vxlan(WEB, broken(Damage::Length(1000))),
        ),
        malformed(
            "an IPv4 length below its header",
            vxlan(WEB, broken(Damage::Length(19))),
        ),
        malformed(
            "an IPv4 header of four words",
            vxlan(WEB, broken(Damage::Words(4))),
        ),
        malformed(
            "an IPv4 header beyond its end",
            vxlan(WEB, broken(Damage::Words(15))),
        ),
        malformed("IPv4 of version 6", vxlan(WEB, broken(Damage::Version(6)))),
        malformed(
            "a wrong IPv4 checksum",
            vxlan(WEB, broken(Damage::Checksum)),
        ),
        headless("half an IPv6 header", vxlan(WEB, broken6(Damage::Cut(20)))),
        malformed(
            "IPv6 cut behind its header",
            vxlan(WEB, broken6(Damage::Cut(40))),
        ),
        malformed(
            "an IPv6 length beyond the packet",
            vxlan(WEB, broken6(Damage::Length(1000))),
        ),
        malformed("IPv6 of version 4", vxlan(WEB, broken6(Damage::Version(4)))),
        row(
            "extension headers that go beyond the packet",
            // What the harness puts behind the first is one more, of 80 octets.
            vxlan(WEB, other(WEB1_6, OFFICE6, 60)),
            Expect::Drop(DropReason::Malformed),
        )
        .but(
            By::Routes,
            to_router(2),
            "the kernel does not look behind the IPv6 header",
        ),
        malformed(
            "half an IPv4 header from the IDC",
            from_idc(Damage::Cut(12)),
        ),
        malformed(
            "an IPv4 length beyond the packet from the IDC",
            from_idc(Damage::Length(1000)),
        ),
        malformed(
            "a wrong IPv4 checksum from the IDC",
            from_idc(Damage::Checksum),
        ),
        malformed(
            "an IPv6 length beyond the packet from the IDC",
            idc(udp(OFFICE6, WEB1_6).damage(Damage::Length(1000))),
        ),
        row(
            "padding behind an IPv4 packet is not sent on",
            vxlan(WEB, udp(WEB1, OFFICE)).padded(),
            to_router(2),
        ),
        row(
            "padding behind a packet from the IDC",
            idc(udp(OFFICE, WEB1)).padded(),
            to_vm("web-1"),
        ),
        row(
            "padding behind an IPv6 packet from the IDC",
            idc(udp(OFFICE6, WEB1_6)).padded(),
            to_vm("web-1"),
        ),
        not_ip(
            "ARP in VXLAN",
            vxlan(WEB, udp(WEB1, OFFICE)).raw(0x0806, &arp()),
        ),
        not_ip(
            "an unknown EtherType in VXLAN",
            vxlan(WEB, udp(WEB1, OFFICE)).raw(0x88b5, &[0; 46]),
        ),
        not_ip(
            "a VLAN tag in VXLAN",
            vxlan(WEB, udp(WEB1, OFFICE)).raw(0x8100, &tagged(udp(WEB1, OFFICE))),
        ),
        row(
            "a VLAN tag from the IDC",
            idc(udp(OFFICE, WEB1)).raw(0x8100, &tagged(udp(OFFICE, WEB1))),
            Expect::Lost,
        )
        .not(
            By::Model,
            "frames with a tag are for another port, of which it knows nothing",
        ),
    ]
}

/// What follows the EtherType of a VLAN tag: VLAN 5, and a packet.
fn tagged(ip: Ip) -> Vec<u8> {
    let mut octets = vec![0, 5, 8, 0];
    octets.extend(ip.octets(0));
    octets
}

/// The header alone.
fn empty(ip: Ip) -> Ip {
    let header = if ip.src.is_ipv4() { 20 } else { 40 };
    Ip {
        length: Some(header),
        upper: crate::packet::Upper::Nothing,
        ..ip
    }
}

/// Who has the gateway's address on the IDC's side?
fn arp() -> Vec<u8> {
    let mut octets = vec![0, 1, 8, 0, 6, 4, 0, 1];
    octets.extend([2, 1, 0, 0, 0, 1]);
    octets.extend([10, 1, 0, 11]);
    octets.extend([0; 6]);
    octets.extend([10, 255, 0, 1]);
    octets
}
