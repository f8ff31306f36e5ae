//! Strategies for valid messages: everything they yield must survive the wire unchanged.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::wire::{
    AddPath, AddPathMode, AfiSafi, Aggregator, AsPath, AttributeCode, AttributeFlags, Attributes,
    Capability, Community, ExtendedCommunity, ExtendedNextHop, Family, FamilySet, GracefulRestart,
    GracefulRestartFamily, LargeCommunity, LongLivedFamily, Message, MpReach, MpUnreach, NextHop,
    Nlri, Notification, Open, Origin, PartialSet, Prefix, RouteRefresh, SegmentKind,
    UnknownAttribute, Update, WireOptions,
};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

pub(crate) fn prefix(family: Family) -> BoxedStrategy<Prefix> {
    let containing =
        |address: IpAddr, len| Prefix::containing(address, len).expect("length fits the family");
    match family {
        Family::Ipv4Unicast => (any::<Ipv4Addr>(), 0..=32_u8)
            .prop_map(move |(address, len)| containing(address.into(), len))
            .boxed(),
        Family::Ipv6Unicast => (any::<Ipv6Addr>(), 0..=128_u8)
            .prop_map(move |(address, len)| containing(address.into(), len))
            .boxed(),
    }
}

/// A route; with an identifier if its family is among those that have one.
pub(crate) fn nlri(family: Family, add_path: FamilySet) -> BoxedStrategy<Nlri> {
    match add_path.contains(family) {
        true => (prefix(family), any::<u32>())
            .prop_map(|(prefix, path_id)| Nlri { prefix, path_id })
            .boxed(),
        false => prefix(family).prop_map(Nlri::from).boxed(),
    }
}

pub(crate) fn family() -> impl Strategy<Value = Family> {
    prop::sample::select(Family::ALL.to_vec())
}

fn afi_safi() -> impl Strategy<Value = AfiSafi> {
    prop_oneof![
        family().prop_map(AfiSafi::from),
        (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| AfiSafi { afi, safi }),
    ]
}

fn unknown_family() -> impl Strategy<Value = AfiSafi> {
    // Known AFIs with other SAFIs, and other AFIs with any.
    prop_oneof![
        (1..=2_u16, 2..=u8::MAX).prop_map(|(afi, safi)| AfiSafi { afi, safi }),
        (3..=u16::MAX, any::<u8>()).prop_map(|(afi, safi)| AfiSafi { afi, safi }),
    ]
}

fn asn() -> impl Strategy<Value = u32> {
    prop_oneof![1..=65535_u32, Just(23456), 65536..=u32::MAX]
}

pub(crate) fn as_path() -> impl Strategy<Value = AsPath> {
    let kind = prop_oneof![Just(SegmentKind::Sequence), Just(SegmentKind::Set)];
    vec((kind, vec(asn(), 1..6)), 0..4).prop_map(|segments| {
        AsPath::from_segments(segments.iter().map(|(kind, asns)| (*kind, asns.as_slice())))
    })
}

fn host() -> impl Strategy<Value = Ipv4Addr> {
    // First octets 1 to 223 but 127.
    (1..=222_u8, any::<[u8; 3]>()).prop_map(|(first, [b, c, d])| {
        Ipv4Addr::new(if first < 127 { first } else { first + 1 }, b, c, d)
    })
}

fn unknown_attributes() -> impl Strategy<Value = Vec<UnknownAttribute>> {
    // Codes between, before and after the known ones.
    let code = prop::sample::select(vec![0_u8, 11, 13, 19, 26, 33, 34, 36, 99, 128, 255]);
    let flags = prop::sample::select(vec![0x80_u8, 0xc0, 0xe0, 0xa0]);
    let value = prop_oneof![9 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 250..260)];
    prop::collection::btree_map(code, (flags, value), 0..4).prop_map(
        |attributes: BTreeMap<u8, (u8, Vec<u8>)>| {
            attributes
                .into_iter()
                .map(|(code, (flags, value))| UnknownAttribute {
                    flags: AttributeFlags(flags),
                    code: AttributeCode(code),
                    value: value.into(),
                })
                .collect()
        },
    )
}

fn ext_community() -> impl Strategy<Value = ExtendedCommunity> {
    // Route targets and origins in each form, and anything.
    let common = (0..=2_u8, 2..=3_u8, any::<[u8; 6]>());
    prop_oneof![
        common.prop_map(|(form, kind, [a, b, c, d, e, f])| {
            ExtendedCommunity([form, kind, a, b, c, d, e, f])
        }),
        any::<[u8; 8]>().prop_map(ExtendedCommunity),
    ]
}

/// Attributes without NEXT_HOP.
pub(crate) fn attributes(options: WireOptions) -> impl Strategy<Value = Attributes> {
    let origin = prop_oneof![
        Just(Origin::Igp),
        Just(Origin::Egp),
        Just(Origin::Incomplete)
    ];
    let aggregator =
        (asn(), any::<Ipv4Addr>()).prop_map(|(asn, router_id)| Aggregator { asn, router_id });
    let local_pref = of(any::<u32>()).prop_map(move |value| value.filter(|_| options.internal));
    let communities = vec(any::<u32>().prop_map(Community), 0..5);
    let ext_communities = vec(ext_community(), 0..3);
    let large_communities = prop::collection::hash_set(any::<[u8; 12]>(), 0..20)
        .prop_map(|set| set.into_iter().map(LargeCommunity::from_octets).collect());
    let reflected =
        (of(any::<Ipv4Addr>()), vec(any::<Ipv4Addr>(), 0..4)).prop_map(move |reflected| {
            if options.internal {
                reflected
            } else {
                Default::default()
            }
        });
    let rare = (
        ext_communities,
        large_communities,
        of(any::<u32>()),
        reflected,
    );
    (
        origin,
        as_path(),
        of(any::<u32>()),
        local_pref,
        any::<bool>(),
        of(aggregator),
        communities,
        rare,
        (unknown_attributes(), any::<u8>()),
    )
        .prop_map(
            |(
                origin,
                as_path,
                med,
                local_pref,
                atomic_aggregate,
                aggregator,
                communities,
                (ext_communities, large_communities, otc, (originator_id, cluster_list)),
                (unknown, partial),
            )| {
                let mut attributes = Attributes {
                    origin: Some(origin),
                    as_path: Some(as_path),
                    next_hop: None,
                    med,
                    local_pref,
                    atomic_aggregate,
                    aggregator,
                    communities,
                    ext_communities,
                    large_communities,
                    otc,
                    originator_id,
                    cluster_list,
                    partial: PartialSet::NONE,
                    unknown,
                };
                let present = [
                    (AttributeCode::AGGREGATOR, attributes.aggregator.is_some()),
                    (
                        AttributeCode::COMMUNITIES,
                        !attributes.communities.is_empty(),
                    ),
                    (
                        AttributeCode::EXT_COMMUNITIES,
                        !attributes.ext_communities.is_empty(),
                    ),
                    (
                        AttributeCode::LARGE_COMMUNITIES,
                        !attributes.large_communities.is_empty(),
                    ),
                    (AttributeCode::OTC, attributes.otc.is_some()),
                ];
                for (bit, (code, present)) in present.into_iter().enumerate() {
                    if present && partial & 1 << bit != 0 {
                        attributes.partial.insert(code);
                    }
                }
                attributes
            },
        )
}

fn address_v6(high: &[u8], low: &[u8]) -> Ipv6Addr {
    let octets: [u8; 16] = [high, low].concat().try_into().expect("16 octets");
    octets.into()
}

pub(crate) fn next_hop(family: Family, options: WireOptions) -> BoxedStrategy<NextHop> {
    let v4 = host().prop_map(NextHop::V4);
    let v6 = prop_oneof![
        any::<Ipv6Addr>().prop_map(NextHop::V6),
        // Some take the two by what they are, not by where they stand.
        (0x2000..=0xfbff_u16, any::<[u8; 14]>(), any::<[u8; 8]>()).prop_map(
            |(high, rest, interface)| NextHop::V6WithLinkLocal {
                global: address_v6(&high.to_be_bytes(), &rest),
                link_local: address_v6(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0], &interface),
            }
        ),
    ];
    match family {
        Family::Ipv4Unicast if options.ipv4_next_hop_v6 => prop_oneof![v4, v6].boxed(),
        Family::Ipv4Unicast => v4.boxed(),
        Family::Ipv6Unicast => v6.boxed(),
    }
}

fn mp_reach(options: WireOptions) -> impl Strategy<Value = MpReach> {
    let unicast = family().prop_flat_map(move |family| {
        let nlri = vec(nlri(family, options.add_path_send), 0..20);
        (next_hop(family, options), nlri).prop_map(move |(next_hop, nlri)| MpReach::Unicast {
            family,
            next_hop,
            nlri,
        })
    });
    let other = (
        unknown_family(),
        vec(any::<u8>(), 0..256),
        vec(any::<u8>(), 0..40),
    )
        .prop_map(|(family, next_hop, nlri)| MpReach::Other {
            family,
            next_hop: next_hop.into(),
            nlri: nlri.into(),
        });
    prop_oneof![3 => unicast, 1 => other]
}

fn mp_unreach(options: WireOptions) -> impl Strategy<Value = MpUnreach> {
    let unicast = family().prop_flat_map(move |family| {
        vec(nlri(family, options.add_path_send), 0..20)
            .prop_map(move |nlri| MpUnreach::Unicast { family, nlri })
    });
    let other =
        (unknown_family(), vec(any::<u8>(), 0..40)).prop_map(|(family, nlri)| MpUnreach::Other {
            family,
            nlri: nlri.into(),
        });
    prop_oneof![3 => unicast, 1 => other]
}

pub(crate) fn update(options: WireOptions) -> impl Strategy<Value = Update> {
    let v4 = || vec(nlri(Family::Ipv4Unicast, options.add_path_send), 0..20);
    (
        v4(),
        of(attributes(options)),
        v4(),
        host(),
        of(mp_reach(options)),
        of(mp_unreach(options)),
    )
        .prop_map(
            |(withdrawn, attributes, mut nlri, next_hop, mut mp_reach, mp_unreach)| {
                // Without attributes nothing is announced, without IPv4 routes there is no NEXT_HOP.
                if attributes.is_none() {
                    (nlri, mp_reach) = (Vec::new(), None);
                }
                let mut attributes = attributes.unwrap_or_default();
                attributes.next_hop = (!nlri.is_empty()).then_some(next_hop);
                Update {
                    withdrawn,
                    attributes,
                    nlri,
                    mp_reach,
                    mp_unreach,
                }
            },
        )
}

fn capability() -> impl Strategy<Value = Capability> {
    let graceful_restart = (
        any::<bool>(),
        any::<bool>(),
        0..=GracefulRestart::MAX_RESTART_TIME,
        vec((afi_safi(), any::<bool>()), 0..4),
    )
        .prop_map(
            |(restarting, notification, restart_time, families)| GracefulRestart {
                restarting,
                notification,
                restart_time,
                families: families
                    .into_iter()
                    .map(|(family, forwarding_preserved)| GracefulRestartFamily {
                        family,
                        forwarding_preserved,
                    })
                    .collect(),
            },
        );
    let code = prop::sample::select(vec![0_u8, 3, 4, 7, 8, 10, 63, 66, 68, 72, 73, 128, 255]);
    let unknown = (code, vec(any::<u8>(), 0..100)).prop_map(|(code, value)| Capability::Unknown {
        code,
        value: value.into(),
    });
    let extended_next_hop =
        (afi_safi(), any::<u16>()).prop_map(|(family, next_hop_afi)| ExtendedNextHop {
            family,
            next_hop_afi,
        });
    let mode = prop_oneof![
        Just(AddPathMode::Receive),
        Just(AddPathMode::Send),
        Just(AddPathMode::Both)
    ];
    let add_path = (afi_safi(), mode).prop_map(|(family, mode)| AddPath { family, mode });
    let long_lived = (
        afi_safi(),
        any::<bool>(),
        0..=LongLivedFamily::MAX_STALE_TIME,
    )
        .prop_map(
            |(family, forwarding_preserved, stale_time)| LongLivedFamily {
                family,
                forwarding_preserved,
                stale_time,
            },
        );
    prop_oneof![
        afi_safi().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        vec(extended_next_hop, 0..4).prop_map(Capability::ExtendedNextHop),
        Just(Capability::ExtendedMessage),
        any::<u8>().prop_map(Capability::Role),
        vec(add_path, 0..4).prop_map(Capability::AddPath),
        Just(Capability::EnhancedRouteRefresh),
        vec(long_lived, 0..4).prop_map(Capability::LongLivedGracefulRestart),
        graceful_restart.prop_map(Capability::GracefulRestart),
        asn().prop_map(Capability::FourOctetAs),
        unknown,
    ]
}

pub(crate) fn open() -> impl Strategy<Value = Open> {
    (
        1..=u16::MAX,
        any::<u16>(),
        1..=u32::MAX,
        vec(capability(), 0..12),
    )
        .prop_map(|(my_as, hold_time, router_id, capabilities)| Open {
            my_as,
            hold_time: if matches!(hold_time, 1 | 2) {
                0
            } else {
                hold_time
            },
            router_id: router_id.into(),
            capabilities,
        })
}

/// Options under which we read as we write.
pub(crate) fn options() -> impl Strategy<Value = WireOptions> {
    let add_path = prop_oneof![
        3 => Just(FamilySet::EMPTY),
        1 => prop::sample::subsequence(Family::ALL.to_vec(), 0..=Family::ALL.len())
            .prop_map(FamilySet::from_iter),
    ];
    (any::<[bool; 4]>(), add_path).prop_map(|(flags, add_path)| {
        let [four_octet_as, extended_messages, internal, ipv4_next_hop_v6] = flags;
        WireOptions {
            four_octet_as,
            extended_messages,
            internal,
            add_path_receive: add_path,
            add_path_send: add_path,
            ipv4_next_hop_v6,
            allow_as_set: true,
            first_as: None,
        }
    })
}

/// Any options, those under which our own generated messages are refused among them.
pub(crate) fn any_options() -> impl Strategy<Value = WireOptions> {
    (options(), any::<bool>(), of(1..4_u32)).prop_map(|(options, allow_as_set, first_as)| {
        WireOptions {
            allow_as_set,
            first_as,
            ..options
        }
    })
}

pub(crate) fn message(options: WireOptions) -> impl Strategy<Value = Message> {
    let notification =
        (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..50)).prop_map(|(code, subcode, data)| {
            Notification {
                code,
                subcode,
                data: Bytes::from(data),
            }
        });
    let refresh =
        (afi_safi(), any::<u8>()).prop_map(|(family, subtype)| RouteRefresh { family, subtype });
    prop_oneof![
        2 => open().prop_map(Message::Open),
        6 => update(options).prop_map(Message::Update),
        1 => notification.prop_map(Message::Notification),
        1 => Just(Message::Keepalive),
        1 => refresh.prop_map(Message::RouteRefresh),
    ]
}
