use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::inventory::history::{MapStore, history};
use crate::plan::{Entries, Planner};
use crate::plane::entry::{EntryKey, EntryValue};

/// What a plane would do that has nothing but the entries: the contract, entry by entry.
fn by_entries(
    entries: &Entries,
    learned: &BTreeMap<Prefix, LearnedNextHops>,
    packet: Packet,
) -> Verdict {
    let drop = Verdict::drop;
    let permits = || {
        entries
            .iter()
            .filter_map(|(key, value)| match (key, value) {
                (
                    EntryKey::Permit {
                        vni,
                        subnet,
                        classic,
                        ..
                    },
                    EntryValue::Permit { scope, mode, .. },
                ) => Some((*vni, *subnet, *classic, *scope, *mode)),
                _ => None,
            })
    };
    let endpoint = |scope, vni_must_be: Option<Vni>| match entries.get(&EntryKey::Endpoint {
        scope,
        addr: packet.dst,
    }) {
        Some(EntryValue::Endpoint { vni, hops }) if vni_must_be.is_none_or(|must| must == *vni) => {
            Verdict::Encapsulate {
                vni: *vni,
                hops: hops.clone(),
            }
        }
        _ => drop(DropReason::NoSuchEndpoint),
    };
    match packet.ingress {
        Ingress::Idc => {
            let mut to: Vec<_> = permits()
                .filter(|(_, subnet, ..)| subnet.contains_addr(packet.dst))
                .collect();
            if to.is_empty() {
                return drop(DropReason::NotLinked);
            }
            to.retain(|(_, _, classic, ..)| classic.contains_addr(packet.src));
            match to.first() {
                None => drop(DropReason::NotLinkedSource),
                Some((vni, _, _, scope, _)) => endpoint(*scope, Some(*vni)),
            }
        }
        Ingress::Vxlan { vni } => {
            let sources: Vec<_> = entries
                .iter()
                .filter_map(|(key, value)| match (key, value) {
                    (EntryKey::Source { vni, subnet }, EntryValue::Source { scope }) => {
                        Some((*vni, *subnet, *scope))
                    }
                    _ => None,
                })
                .collect();
            let Some((_, _, scope)) = sources
                .iter()
                .find(|(own, subnet, _)| *own == vni && subnet.contains_addr(packet.src))
            else {
                // A VPC without any subnet has no entry: to a plane it is no VPC.
                let known = sources.iter().any(|(own, ..)| *own == vni);
                return drop(if known {
                    DropReason::BadSource
                } else {
                    DropReason::UnknownVni
                });
            };
            if sources
                .iter()
                .any(|(_, subnet, s)| s == scope && subnet.contains_addr(packet.dst))
            {
                return endpoint(*scope, None);
            }
            let link = permits()
                .filter(|(own, subnet, classic, ..)| {
                    *own == vni
                        && subnet.contains_addr(packet.src)
                        && classic.contains_addr(packet.dst)
                })
                .max_by_key(|(_, _, classic, ..)| classic.len());
            match link {
                None => drop(DropReason::NoLink),
                Some((.., Mode::ClassicToVpc)) => drop(DropReason::NotAReply),
                Some(_) => match longest(learned, packet.dst) {
                    Some((route, hops)) => Verdict::Forward {
                        route,
                        next_hops: hops.clone(),
                    },
                    None => drop(DropReason::NoIdcRoute),
                },
            }
        }
    }
}

const ADDRS: [&str; 12] = [
    "10.0.0.1",
    "10.0.0.200",
    "10.0.1.1",
    "10.0.2.1",
    "10.80.0.1",
    "10.80.1.1",
    "10.81.0.1",
    "10.81.0.2",
    "10.99.0.1",
    "fd00::1",
    "fd80::1",
    "fd99::1",
];

fn addr() -> impl Strategy<Value = IpAddr> {
    select(ADDRS.as_slice()).prop_map(|addr| addr.parse().unwrap())
}

fn learned() -> BTreeMap<Prefix, LearnedNextHops> {
    let route = |prefix: &str, hop: &str| (prefix.parse().unwrap(), [hop.parse().unwrap()].into());
    [
        route("10.80.0.0/15", "10.255.0.1"),
        route("10.81.0.1/32", "10.255.0.2"),
        route("fd80::/64", "fd00:ffff::1"),
    ]
    .into()
}

proptest! {
    /// The model, which reads records, and the plan, which planes read, mean the same.
    #[test]
    fn model_and_plan_agree(
        history in history(),
        packets in proptest::collection::vec((addr(), addr(), 0u32..7), 1..60),
    ) {
        let (mut store, mut inventory) = (MapStore::default(), Inventory::default());
        for changes in &history {
            inventory.apply(&store.commit(changes));
        }
        let (group, learned) = (GroupName::default(), learned());
        let entries = Planner::new(group.clone()).entries(&inventory);
        let model = Model {
                inventory: &inventory,
                group: &group,
                learned: &learned,
                flows: &Flows::NONE,
                mtus: Mtus::default(),
            };
        for (src, dst, vni) in packets {
            if src.is_ipv4() != dst.is_ipv4() {
                continue;
            }
            let ingress = Vni::new(vni).map_or(Ingress::Idc, |vni| Ingress::Vxlan { vni });
            let packet = Packet::new(ingress, src, dst);
            let verdict = model.trace(packet).verdict;
            let mut planned = by_entries(&entries, &learned, packet);
            let known = Vni::new(vni).is_ok_and(|vni| inventory.vpc_with_vni(vni).is_some());
            if known && planned == Verdict::drop(DropReason::UnknownVni) {
                planned = Verdict::drop(DropReason::BadSource);
            }
            prop_assert_eq!(verdict, planned, "{:?}", packet);
        }
    }
}

proptest! {
    /// Whatever octets there are, reading them ends with a packet or a reason, and a packet is never
    /// longer than what there was.
    #[test]
    fn reading_never_fails_otherwise(
        first in select([0x45u8, 0x46, 0x4f, 0x60, 0x00].as_slice()),
        protocol in select([0u8, 1, 6, 17, 43, 44, 58, 60].as_slice()),
        mut octets in proptest::collection::vec(any::<u8>(), 0..120),
        v4 in any::<bool>(),
        right in any::<bool>(),
    ) {
        let ethertype = if v4 { packet::IPV4 } else { packet::IPV6 };
        if right && octets.len() >= 40 {
            octets[0] = first;
            octets[if v4 { 9 } else { 6 }] = protocol;
            let length = if v4 { octets.len() } else { octets.len() - 40 } as u16;
            let at = if v4 { 2 } else { 4 };
            octets[at..at + 2].copy_from_slice(&length.to_be_bytes());
            let header = usize::from(octets[0] & 15) * 4;
            if v4 && (20..=octets.len()).contains(&header) {
                octets[10..12].fill(0);
                let sum = packet::checksum(&octets[..header]);
                octets[10..12].copy_from_slice(&sum.to_be_bytes());
            }
        }
        match Packet::read(Ingress::Idc, ethertype, &octets) {
            Ok(packet) => prop_assert!(packet.shape.length <= octets.len()),
            Err(reason) => prop_assert_eq!(reason, DropReason::Malformed),
        }
    }
}

#[test]
fn names_of_drops_are_stable() {
    let names: Vec<&str> = DropReason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .collect();
    let expected = [
        "not-linked",
        "not-linked-source",
        "unknown-vni",
        "bad-source",
        "no-link",
        "no-such-endpoint",
        "no-idc-route",
        "not-a-reply",
        "not-ip",
        "other-mac",
        "malformed",
        "ttl-exceeded",
        "too-big",
        "internal",
    ];
    assert_eq!(names, expected);
    for reason in DropReason::ALL {
        assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
    }
}

#[test]
fn the_longest_learned_route_wins() {
    let learned = learned();
    let found = |addr: &str| longest(&learned, addr.parse().unwrap()).map(|(p, _)| p.to_string());
    assert_eq!(found("10.81.0.1").as_deref(), Some("10.81.0.1/32"));
    assert_eq!(found("10.81.0.2").as_deref(), Some("10.80.0.0/15"));
    assert_eq!(found("10.82.0.2"), None);
    assert_eq!(found("fd80::9").as_deref(), Some("fd80::/64"));
}
