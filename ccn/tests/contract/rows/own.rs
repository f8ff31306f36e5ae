//! The gateway's own addresses, and everybody's: broadcast and multicast.

use ccn::plane::model::DropReason;

use super::*;
use crate::packet::{Ip, ping, udp};
use crate::row::{By, Expect, idc, row, vxlan};

const GATEWAY: &str = "10.255.0.1";
const GATEWAY6: &str = "2001:db8:ff::1";
const VTEP: &str = "172.16.0.1";
/// Why the model is not asked.
const NO_HOST: &str = "the model knows records and learned routes, not the gateway's own addresses";
const NO_MAC: &str = "the model knows of IP packets, not of what goes around them";
const MULTICAST: &str = "the kernel keeps multicast that nobody joined to itself";
const NOT_OURS: &str = "the kernel drops what is for another MAC before any rule";
const MARTIAN: &str = "the kernel drops such sources before any rule, and counts them itself";

fn own(name: &str, ip: Ip) -> Row {
    row(name, idc(ip), Expect::Stack).not(By::Model, NO_HOST)
}

fn other_mac(name: &str, ip: Ip, mac: [u8; 6]) -> Row {
    let sent = vxlan(WEB, ip).at_mac(mac);
    row(name, sent, Expect::Drop(DropReason::OtherMac)).not(By::Model, NO_MAC)
}

pub(crate) fn rows() -> Vec<Row> {
    let drop = Expect::Drop;
    let everybody = [0xff; 6];
    vec![
        own(
            "a router reaches the gateway's address",
            udp("10.255.0.2", GATEWAY),
        ),
        own(
            "a router reaches the gateway's IPv6 address",
            udp("2001:db8:ff::2", GATEWAY6),
        ),
        own(
            "a classic host reaches the gateway's address",
            udp(OFFICE, GATEWAY),
        ),
        own(
            "the gateway's own packets may have TTL 1",
            udp("10.255.0.2", GATEWAY).hops(1),
        ),
        row(
            "a VM does not reach the gateway's address",
            vxlan(WEB, udp(WEB1, GATEWAY)),
            drop(DropReason::NoLink),
        ),
        row(
            "a VM does not reach the gateway's IPv6 address",
            vxlan(WEB, udp(WEB1_6, GATEWAY6)),
            drop(DropReason::NoLink),
        ),
        row(
            "a VM does not ping the gateway",
            vxlan(WEB, ping(WEB1, GATEWAY)),
            drop(DropReason::NoLink),
        ),
        row(
            "a VM does not reach the VTEP",
            vxlan(WEB, udp(WEB1, VTEP)),
            drop(DropReason::NoLink),
        ),
        row(
            "a VM does not reach a hypervisor",
            vxlan(WEB, udp(WEB1, "172.16.0.12")),
            drop(DropReason::NoLink),
        ),
        row(
            "a VM does not reach a router",
            vxlan(WEB, udp(WEB1, "10.255.0.2")),
            drop(DropReason::NoLink),
        ),
        row(
            "a VM does not reach loopback",
            vxlan(WEB, udp(WEB1, "127.0.0.1")),
            drop(DropReason::NoLink),
        )
        .but(By::Routes, Expect::Lost, MARTIAN),
        row(
            "a VM does not reach IPv6 loopback",
            vxlan(WEB, udp(WEB1_6, "::1")),
            drop(DropReason::NoLink),
        )
        .but(By::Routes, Expect::Lost, MARTIAN),
        other_mac("a VM's broadcast", udp(WEB1, "255.255.255.255"), everybody).but(
            By::Routes,
            drop(DropReason::NoLink),
            "it counts what is for the gateway itself so",
        ),
        other_mac(
            "a VM's multicast",
            udp(WEB1, "224.0.0.5"),
            [1, 0, 0x5e, 0, 0, 5],
        )
        .but(By::Routes, Expect::Lost, MULTICAST),
        other_mac(
            "a VM's IPv6 multicast",
            udp(WEB1_6, "ff02::1:2"),
            [0x33, 0x33, 0, 1, 0, 2],
        )
        .but(By::Routes, Expect::Lost, MULTICAST),
        other_mac(
            "a packet for a host, to everybody's MAC",
            udp(WEB1, OFFICE),
            everybody,
        )
        .but(By::Routes, Expect::Lost, NOT_OURS),
        other_mac(
            "a packet for a host, to another MAC",
            udp(WEB1, OFFICE),
            [2, 1, 0, 0, 0, 77],
        )
        .but(By::Routes, Expect::Lost, NOT_OURS),
        row(
            "a limited broadcast to the gateway's MAC",
            vxlan(WEB, udp(WEB1, "255.255.255.255")),
            drop(DropReason::NoLink),
        ),
        row(
            "from the IDC to another MAC",
            idc(udp(OFFICE, WEB1)).at_mac([2, 1, 0, 0, 0, 77]),
            Expect::Lost,
        )
        .not(By::Model, NO_MAC),
        row(
            "from the IDC to everybody's MAC",
            idc(udp(OFFICE, WEB1)).at_mac(everybody),
            Expect::Lost,
        )
        .not(By::Model, NO_MAC),
        row(
            "a source of zero from a VM",
            vxlan(WEB, udp("0.0.0.0", OFFICE)),
            drop(DropReason::BadSource),
        )
        .but(By::Routes, Expect::Lost, MARTIAN),
        row(
            "a multicast source from a VM",
            vxlan(WEB, udp("224.0.0.1", OFFICE)),
            drop(DropReason::BadSource),
        )
        .but(By::Routes, Expect::Lost, MARTIAN),
        row(
            "a loopback source from a VM",
            vxlan(WEB, udp("127.0.0.1", OFFICE)),
            drop(DropReason::BadSource),
        )
        .but(By::Routes, Expect::Lost, MARTIAN),
        row(
            "the gateway's own address as a VM's source",
            vxlan(WEB, udp(GATEWAY, OFFICE)),
            drop(DropReason::BadSource),
        ),
        row(
            "a link-local source from a VM",
            vxlan(WEB, udp("fe80::1234", OFFICE6)),
            drop(DropReason::BadSource),
        )
        .but(By::Routes, Expect::Lost, MARTIAN),
        row(
            "broadcast from the IDC goes no further",
            idc(udp("10.255.0.2", "255.255.255.255")).at_mac(everybody),
            Expect::Lost,
        )
        .not(By::Model, NO_HOST),
        row(
            "multicast from the IDC goes no further",
            idc(udp("10.255.0.2", "224.0.0.5")).at_mac([1, 0, 0x5e, 0, 0, 5]),
            Expect::Lost,
        )
        .not(By::Model, NO_HOST),
        row(
            "IPv6 multicast from the IDC goes no further",
            idc(udp("2001:db8:ff::2", "ff02::1:2")).at_mac([0x33, 0x33, 0, 1, 0, 2]),
            Expect::Lost,
        )
        .not(By::Model, NO_HOST),
        row(
            "a classic host does not reach a hypervisor",
            idc(udp(OFFICE, "172.16.0.12")),
            drop(DropReason::NotLinked),
        ),
    ]
}
