//! The numbering plan of the plane: tables, rule priorities, metrics, device names, drop reasons.
//!
//! Everything follows from the entries alone, never from the order in which they came, so a
//! restarted agent finds its own objects where it would put them.

use ipnet::IpNet;
use netlink::{IpNet as Net, Mac};

use crate::plane::entry::ScopeId;

/// Alias of every device of ours; it tells them from devices of others with the same name.
pub(crate) const ALIAS: &str = "made by ccn, plane routes";

/// Table of a scope.
pub(crate) fn scope_table(scope: ScopeId) -> u32 {
    SCOPE_TABLES + scope.0.number()
}

const SCOPE_TABLES: u32 = 0x0100_0000;

/// Table of routes learned from the IDC.
pub(crate) const IDC_TABLE: u32 = 0x0200_0000;

/// Table in which the `ebpf` plane's programs find that an address is not this host's own: there is
/// nothing in it but a blackhole.
pub(crate) const NOWHERE_TABLE: u32 = 0x0200_0010;

/// Where the kernel probes put their route; never in use for anything else.
pub(crate) const PROBE_TABLE: u32 = 0x0200_00ff;

/// Metric of every route that is not to an endpoint.
pub(crate) const METRIC: u32 = 1024;

/// Metric of a route to an endpoint: different for different routes, since the kernel finds routes
/// that differ only in encapsulation by walking a list of those with equal metric.
pub(crate) fn endpoint_metric(table: u32, net: IpNet) -> u32 {
    let (octets, length) = match net {
        IpNet::V4(net) => (u128::from(net.addr().to_bits()), net.prefix_len()),
        IpNet::V6(net) => (net.addr().to_bits(), net.prefix_len()),
    };
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let bytes = octets
        .to_be_bytes()
        .into_iter()
        .chain(table.to_be_bytes())
        .chain([length]);
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // FNV mixes its high bits best.
    let folded = (hash >> 33) as u32;
    1 + folded % (i32::MAX as u32 - 1)
}

/// Priorities of the rules, each class with a range of its own; `main` is at 32766.
pub(crate) mod priority {
    use super::Net;

    /// From this VNI and subnet to a linked classic prefix: the IDC's table.
    pub(crate) const VPC_TO_IDC: u32 = 10_000;
    /// From this VNI and subnet: the scope's table.
    pub(crate) const VPC_TO_VPC: u32 = 10_010;
    /// From this VNI, any other source: dropped.
    pub(crate) const BAD_SOURCE: u32 = 10_020;
    /// Of the `ebpf` plane. From the VXLAN device: the IDC's table. Its programs ask without a VNI, so
    /// the rules above are not for them, and those below are not reached: a gateway is switched from one
    /// plane to the other while both have their rules.
    pub(crate) const EBPF_FROM_VPC: u32 = 10_025;
    /// Of the `ebpf` plane. From the VXLAN device, whatever its programs did not mark for the stack: nowhere.
    pub(crate) const EBPF_UNMARKED: u32 = 10_026;
    /// From the VXLAN device, any other VNI: dropped.
    pub(crate) const UNKNOWN_VNI: u32 = 10_030;
    /// From the IDC, of a classic prefix to a linked subnet: the scope's table.
    pub(crate) const IDC_TO_VPC: u32 = 10_100;
    /// Of the `ebpf` plane. From the IDC: nowhere, for all but the host's own addresses.
    pub(crate) const EBPF_FROM_IDC: u32 = 29_000;
    /// From the IDC to a linked subnet, any other source: dropped.
    pub(crate) const NOT_LINKED_SOURCE: u32 = 30_000;
    /// From the IDC to anywhere else: dropped.
    pub(crate) const NOT_LINKED: u32 = 30_200;
    /// Of this host: what `main` knows by more than its default route. First, so that a VPC whose
    /// addresses are also the underlay's never takes the VXLAN packets themselves.
    pub(crate) const OWN_MAIN: u32 = 30_300;
    /// Of this host to a subnet of one scope only: its table, so that ICMP errors reach VMs.
    pub(crate) const OWN_TO_VPC: u32 = 30_400;
    /// Of this host: learned routes but for a learned default, so that ICMP errors reach hosts.
    pub(crate) const OWN_TO_IDC: u32 = 30_600;

    /// Longest classic prefix first, then longest subnet: 129 * 129 priorities. Rules of equal
    /// lengths never match the same packet, so their order does not matter.
    pub(crate) fn idc_to_vpc(classic: Net, subnet: Net) -> u32 {
        let rank = |net: Net| 128 - u32::from(net.prefix_len());
        IDC_TO_VPC + rank(classic) * 129 + rank(subnet)
    }

    /// The kernel does not compare what a rule to be deleted leaves open, so rules that leave
    /// something open (a prefix of length 0) have a priority of their own.
    pub(crate) fn exact(class: u32, nets: &[Net]) -> u32 {
        nets.iter().fold(class, |at, net| {
            at * 2 - class + u32::from(net.prefix_len() == 0)
        })
    }
}

/// Why a packet is dropped, each with a device that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reason {
    /// From a VPC to a destination in no VPC of its CCSI and no classic prefix linked to it.
    NoLink,
    /// To an address of a VPC that no VM or SLB has.
    NoSuchEndpoint,
    /// From a VPC with a source outside its subnets.
    BadSource,
    /// VXLAN with a VNI of no VPC.
    UnknownVni,
    /// From a VPC to a linked classic prefix that no router announced.
    NoIdcRoute,
    /// From the IDC to a linked subnet, of a source that is not linked to it.
    NotLinkedSource,
    /// From the IDC to a destination in no linked subnet.
    NotLinked,
}

impl Reason {
    pub(crate) const ALL: [Reason; 7] = [
        Reason::NotLinked,
        Reason::NoSuchEndpoint,
        Reason::BadSource,
        Reason::UnknownVni,
        Reason::NoIdcRoute,
        Reason::NotLinkedSource,
        Reason::NoLink,
    ];

    /// Its name in counters.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Reason::NotLinked => "not-linked",
            Reason::NoSuchEndpoint => "no-such-endpoint",
            Reason::BadSource => "bad-source",
            Reason::UnknownVni => "unknown-vni",
            Reason::NoIdcRoute => "no-idc-route",
            Reason::NotLinkedSource => "not-linked-source",
            Reason::NoLink => "no-link",
        }
    }

    /// Name of its device, at most 15 bytes.
    pub(crate) fn device(self) -> &'static str {
        match self {
            Reason::NotLinked => "ccn-d-notlinked",
            Reason::NoSuchEndpoint => "ccn-d-noendpt",
            Reason::BadSource => "ccn-d-badsrc",
            Reason::UnknownVni => "ccn-d-unkvni",
            Reason::NoIdcRoute => "ccn-d-noidcrt",
            Reason::NotLinkedSource => "ccn-d-nolinksrc",
            Reason::NoLink => "ccn-d-nolink",
        }
    }

    /// Table whose default route leads into the device; for [`Reason::NotLinkedSource`] the routes to
    /// the linked subnets do, and what is to none of them falls through.
    pub(crate) fn table(self) -> u32 {
        IDC_TABLE + 1 + self as u32
    }
}

/// What lies behind the one address on each drop device. Nobody has it.
pub(crate) const DROP_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x01]);

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let names: BTreeSet<_> = Reason::ALL.iter().map(|d| d.device()).collect();
        let tables: BTreeSet<_> = Reason::ALL.iter().map(|d| d.table()).collect();
        assert_eq!(
            (names.len(), tables.len()),
            (Reason::ALL.len(), Reason::ALL.len())
        );
        assert!(names.iter().all(|name| name.len() <= 15));
        for other in [PROBE_TABLE, IDC_TABLE, NOWHERE_TABLE] {
            assert!(!tables.contains(&other));
        }
    }

    #[test]
    fn priorities_stay_in_their_ranges() {
        let net = |text: &str| text.parse::<IpNet>().expect("a prefix");
        let (all, host) = (net("::/0"), net("::1/128"));
        assert_eq!(priority::idc_to_vpc(host, host), priority::IDC_TO_VPC);
        assert!(priority::idc_to_vpc(all, all) < priority::EBPF_FROM_IDC);
        assert!(priority::exact(priority::BAD_SOURCE, &[]) < priority::EBPF_FROM_VPC);
        assert!(priority::idc_to_vpc(host, all) < priority::idc_to_vpc(net("::/127"), host));
        let class = 10_000;
        let seen: BTreeSet<_> = [[all, all], [all, host], [host, all], [host, host]]
            .iter()
            .map(|nets| priority::exact(class, nets))
            .collect();
        assert_eq!(
            seen,
            BTreeSet::from([class, class + 1, class + 2, class + 3])
        );
    }

    #[test]
    fn metrics_of_neighbouring_addresses_rarely_meet() {
        let metrics: HashSet<_> = (0..50_000u32)
            .map(|n| {
                let net = IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 + n).into(), 32);
                endpoint_metric(0x0100_0001, net.expect("a prefix"))
            })
            .collect();
        assert!(
            metrics.len() > 49_900,
            "{} different of 50,000",
            metrics.len()
        );
        assert!(metrics.iter().all(|m| (1..=i32::MAX as u32).contains(m)));
    }
}
