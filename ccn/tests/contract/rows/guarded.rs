//! Links of mode `classic-to-vpc`: classic hosts open connections, the VPC only replies.

use ccn::plane::model::{Answer, DropReason};

use super::*;
use crate::packet::{ACK, Ip, SYN, SYN_ACK, Upper, other, ping, pong, tcp, udp, unreachable};
use crate::row::{By, Expect, Sent, idc, row, to_router, to_vm, vxlan};

const GUARDED: u32 = 4001;
const VM1: &str = "10.5.0.1";
const VM1_6: &str = "fd00:5::1";
const VM2: &str = "10.5.0.2";
const NO_STATE: &str = "it keeps no flow state: it refuses links of this mode, and says so";

fn swapped(ip: Ip) -> Ip {
    let upper = match ip.upper {
        Upper::Udp(src, dst) => Upper::Udp(dst, src),
        Upper::Tcp(src, dst, flags) => Upper::Tcp(dst, src, flags),
        other => other,
    };
    Ip {
        src: ip.dst,
        dst: ip.src,
        upper,
        ..ip
    }
}

fn from_vm(ip: Ip) -> Sent {
    vxlan(GUARDED, ip)
}

/// A reply to what a classic host has sent.
fn reply(name: &str, opened: Ip, reply: Ip, expect: Expect) -> Row {
    row(name, from_vm(reply), expect).after([idc(opened)])
}

pub(crate) fn theme() -> Theme {
    let region = Region::new("guarded")
        .vpc("guarded", GUARDED, &["10.5.0.0/24", "fd00:5::/64"])
        .vpc("open", SOLO, &["10.3.0.0/24"])
        .ccsi("both", &["guarded", "open"])
        .link("in", json!({
            "vpc": "guarded", "classic": ["10.80.0.0/16", "fd80:1::/64"], "mode": "classic-to-vpc"
        }))
        .link("out", json!({"vpc": "guarded", "classic": ["10.80.7.0/24"]}))
        .vm("vm-1", "guarded", &[VM1, VM1_6], 11)
        .vm("vm-2", "guarded", &[VM2], 12)
        .vm("open-1", "open", &[SOLO1], 12)
        .learned("10.80.0.0/16", &[Router(2)])
        .learned("fd80:1::/64", &[Router(3)]);
    let back = to_router(2);
    let refused = Expect::Drop(DropReason::NotAReply);
    // Each row has ports of its own, so that no row opens a flow for another.
    let udp_at = |port| udp(OFFICE, VM1).ports(port, 7000);
    let tcp_at = |port, flags| tcp(OFFICE, VM1, flags).ports(port, 80);
    let at = |port: u16, ip: Ip| match ip.upper {
        Upper::Icmp(kind, code, _) => {
            let [high, low] = port.to_be_bytes();
            let upper = Upper::Icmp(kind, code, [high, low, 0, 1]);
            Ip { upper, ..ip }
        }
        _ => ip,
    };
    let rows = vec![
        row(
            "a classic host opens a TCP connection",
            idc(tcp_at(1001, SYN)),
            to_vm("vm-1"),
        ),
        row("a classic host sends UDP", idc(udp_at(1002)), to_vm("vm-1")),
        row(
            "a classic host pings",
            idc(at(1003, ping(OFFICE, VM1))),
            to_vm("vm-1"),
        ),
        row(
            "a VM opens a TCP connection",
            from_vm(tcp(VM1, OFFICE, SYN)),
            refused.clone(),
        ),
        row("a VM sends UDP", from_vm(udp(VM1, OFFICE)), refused.clone()),
        row(
            "a VM sends UDP over IPv6",
            from_vm(udp(VM1_6, OFFICE6)),
            refused.clone(),
        ),
        row("a VM pings", from_vm(ping(VM1, OFFICE)), refused.clone()),
        row(
            "a VM sends an echo reply nobody asked for",
            from_vm(pong(VM1, OFFICE)),
            refused.clone(),
        ),
        reply(
            "a TCP reply passes",
            tcp_at(1010, SYN),
            swapped(tcp_at(1010, SYN_ACK)),
            back.clone(),
        ),
        reply(
            "a UDP reply passes",
            udp_at(1011),
            swapped(udp_at(1011)),
            back.clone(),
        ),
        reply(
            "a UDP reply over IPv6 passes",
            udp(OFFICE6, VM1_6).ports(1012, 7000),
            udp(VM1_6, OFFICE6).ports(7000, 1012),
            to_router(3),
        ),
        reply(
            "an echo reply passes",
            at(1013, ping(OFFICE, VM1)),
            at(1013, pong(VM1, OFFICE)),
            back.clone(),
        ),
        reply(
            "an ICMPv6 echo reply passes",
            at(1014, ping(OFFICE6, VM1_6)),
            at(1014, pong(VM1_6, OFFICE6)),
            to_router(3),
        ),
        reply(
            "an echo request is no reply to one",
            at(1015, ping(OFFICE, VM1)),
            at(1015, ping(VM1, OFFICE)),
            refused.clone(),
        ),
        reply(
            "an echo reply with another identifier",
            at(1016, ping(OFFICE, VM1)),
            at(1017, pong(VM1, OFFICE)),
            refused.clone(),
        ),
        reply(
            "a reply to another port",
            udp_at(1020),
            udp(VM1, OFFICE).ports(7000, 1021),
            refused.clone(),
        ),
        reply(
            "a reply from another port",
            udp_at(1022),
            udp(VM1, OFFICE).ports(7001, 1022),
            refused.clone(),
        ),
        reply(
            "a reply from another VM",
            udp_at(1023),
            udp(VM2, OFFICE).ports(7000, 1023),
            refused.clone(),
        ),
        reply(
            "a reply to another host",
            udp_at(1024),
            udp(VM1, "10.80.1.11").ports(7000, 1024),
            refused.clone(),
        ),
        reply(
            "a reply by another protocol",
            udp_at(1025),
            tcp(VM1, OFFICE, ACK).ports(7000, 1025),
            refused.clone(),
        ),
        reply(
            "a timestamp reply with the identifier of an echo",
            at(1026, ping(OFFICE, VM1)),
            Ip {
                upper: Upper::Icmp(14, 0, [0x04, 0x02, 0, 1]),
                ..pong(VM1, OFFICE)
            },
            refused.clone(),
        ),
        reply(
            "a reply by a protocol without ports passes",
            other(OFFICE, VM1, 47),
            other(VM1, OFFICE, 47),
            back.clone(),
        ),
        row(
            "a protocol without ports that nobody opened",
            from_vm(other(VM1, OFFICE, 132)),
            refused.clone(),
        ),
        reply(
            "an ICMP error about a flow passes",
            udp_at(1030),
            unreachable(VM1, udp_at(1030)),
            back.clone(),
        ),
        reply(
            "an ICMPv6 error about a flow passes",
            udp(OFFICE6, VM1_6).ports(1031, 7000),
            unreachable(VM1_6, udp(OFFICE6, VM1_6).ports(1031, 7000)),
            to_router(3),
        ),
        reply(
            "an ICMP error about a flow of TCP passes",
            tcp_at(1032, SYN),
            unreachable(VM1, tcp_at(1032, SYN)),
            back.clone(),
        ),
        reply(
            "an ICMP error about an echo request passes",
            at(1033, ping(OFFICE, VM1)),
            unreachable(VM1, at(1033, ping(OFFICE, VM1))),
            back.clone(),
        ),
        reply(
            "an ICMP error about no flow",
            udp_at(1034),
            unreachable(VM1, udp_at(1035)),
            refused.clone(),
        ),
        reply(
            "an ICMP error about a flow, to somebody else",
            udp_at(1036),
            Ip {
                dst: "10.80.1.11".parse().expect("an address"),
                ..unreachable(VM1, udp_at(1036))
            },
            refused.clone(),
        ),
        reply(
            "a later fragment of a reply has no ports: it fails closed",
            udp_at(1040),
            udp(VM1, OFFICE).ports(7000, 1040).fragment(96, false),
            refused.clone(),
        ),
        reply(
            "a first fragment of a reply passes",
            udp_at(1041),
            udp(VM1, OFFICE)
                .ports(7000, 1041)
                .length(116)
                .fragment(0, true),
            back.clone(),
        ),
        reply(
            "a reply with IPv4 options passes",
            udp_at(1042),
            udp(VM1, OFFICE).ports(7000, 1042).options(&[1; 8]),
            back.clone(),
        ),
        reply(
            "a reply with TTL 1",
            udp_at(1043),
            udp(VM1, OFFICE).ports(7000, 1043).hops(1),
            Expect::Answer(Answer::TimeExceeded),
        ),
        row(
            "what is dropped opens nothing",
            from_vm(udp("10.5.0.9", OFFICE).ports(7000, 1044)),
            refused.clone(),
        ),
        row(
            "a VM opens a connection over the link that lets it, by the longer prefix",
            from_vm(tcp(VM1, "10.80.7.1", SYN)),
            back.clone(),
        ),
        row(
            "a classic host over the link that lets both",
            idc(tcp("10.80.7.1", VM1, SYN)),
            to_vm("vm-1"),
        ),
        row(
            "another VPC of the CCSI needs no flow",
            from_vm(udp(VM1, SOLO1)),
            to_vm("open-1"),
        ),
        row(
            "and may open connections itself",
            vxlan(SOLO, tcp(SOLO1, VM1, SYN)),
            to_vm("vm-1"),
        ),
    ];
    Theme {
        region,
        rows: rows
            .into_iter()
            .map(|row| row.not(By::Routes, NO_STATE))
            .collect(),
    }
}
