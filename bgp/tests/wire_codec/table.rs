//! Octets beside the struct they mean, one row per form a message can take. Forms we write exactly
//! as we read them; the tests of the lab have the rows read by others, too.

use std::net::{Ipv4Addr, Ipv6Addr};

use bgp::wire::{
    AddPath, AddPathMode, AfiSafi, Aggregator, AsPath, AttributeCode, AttributeFlags, Attributes,
    Capability, Cease, Community, ExtendedCommunity, ExtendedNextHop, Family, FamilySet,
    GracefulRestart, GracefulRestartFamily, LargeCommunity, LongLivedFamily, Message, MpReach,
    MpUnreach, NextHop, Nlri, Notification, Open, Origin, PartialSet, Prefix, Role, RouteRefresh,
    SegmentKind, UnexpectedIn, UnknownAttribute, Update, WireOptions,
};
use bytes::Bytes;

/// A message, as octets and as a struct.
pub(crate) struct Vector {
    /// What it shows.
    pub(crate) name: &'static str,
    /// What the two sides agreed on.
    pub(crate) options: WireOptions,
    /// The message's type.
    pub(crate) kind: u8,
    /// What follows the header, as [`crate::hex`].
    pub(crate) body: &'static str,
    /// What it means.
    pub(crate) message: Message,
}

pub(crate) const FOUR_OCTET: WireOptions = WireOptions {
    four_octet_as: true,
    allow_as_set: true,
    ..WireOptions::BEFORE_OPEN
};
const TWO_OCTET: WireOptions = WireOptions {
    four_octet_as: false,
    ..FOUR_OCTET
};
const INTERNAL: WireOptions = WireOptions {
    internal: true,
    ..FOUR_OCTET
};

const ADD_PATH: WireOptions = WireOptions {
    add_path_receive: FamilySet::all(),
    add_path_send: FamilySet::all(),
    ..FOUR_OCTET
};
const NEXT_HOP_V6: WireOptions = WireOptions {
    ipv4_next_hop_v6: true,
    ..FOUR_OCTET
};

fn with_id(text: &str, path_id: u32) -> Nlri {
    Nlri {
        path_id,
        ..prefix(text).into()
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("prefix")
}

pub(crate) fn prefixes(texts: &[&str]) -> Vec<Nlri> {
    texts.iter().map(|text| prefix(text).into()).collect()
}

pub(crate) fn attributes(asns: &[u32]) -> Attributes {
    Attributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::sequence(asns.iter().copied())),
        ..Attributes::default()
    }
}

/// All rows.
pub(crate) fn vectors() -> Vec<Vector> {
    let router_id = Ipv4Addr::new(10, 0, 0, 1);
    let vector = |name, options, kind, body, message| Vector {
        name,
        options,
        kind,
        body,
        message,
    };
    vec![
        vector("keepalive", FOUR_OCTET, 4, "", Message::Keepalive),
        vector(
            "open without capabilities",
            FOUR_OCTET,
            1,
            "04 fde9 0009 0a000001 00",
            Message::Open(Open {
                my_as: 65001,
                hold_time: 9,
                router_id,
                capabilities: Vec::new(),
            }),
        ),
        vector(
            "open with every typed capability in one parameter",
            FOUR_OCTET,
            1,
            "04 5ba0 00b4 0a000001 4f     # AS_TRANS, 180 s
             02 4d
             01 04 0001 00 01             # IPv4 unicast
             01 04 0002 00 01             # IPv6 unicast
             02 00                        # route refresh
             40 0a c078 0001 01 80 0002 01 00   # R, N, 120 s; F for IPv4 only
             05 0c 0001 0001 0002 0001 0080 0002   # IPv4 and VPN-IPv4 over IPv6
             06 00                        # extended messages
             09 01 03                     # customer
             45 08 0001 01 03 0002 01 01  # add-path: IPv4 both ways, IPv6 to receive
             46 00                        # enhanced route refresh
             47 07 0002 01 80 015180      # long-lived graceful restart, a day
             49 03 01 61 00               # FQDN: not known here
             41 04 000f4240",
            Message::Open(Open::new(
                1_000_000,
                180,
                router_id,
                vec![
                    Capability::multiprotocol(Family::Ipv4Unicast),
                    Capability::multiprotocol(Family::Ipv6Unicast),
                    Capability::RouteRefresh,
                    Capability::GracefulRestart(GracefulRestart {
                        restarting: true,
                        notification: true,
                        restart_time: 120,
                        families: vec![
                            GracefulRestartFamily {
                                family: Family::Ipv4Unicast.into(),
                                forwarding_preserved: true,
                            },
                            GracefulRestartFamily {
                                family: Family::Ipv6Unicast.into(),
                                forwarding_preserved: false,
                            },
                        ],
                    }),
                    Capability::ExtendedNextHop(
                        [Family::Ipv4Unicast.into(), AfiSafi { afi: 1, safi: 128 }]
                            .map(|family| ExtendedNextHop {
                                family,
                                next_hop_afi: 2,
                            })
                            .into(),
                    ),
                    Capability::ExtendedMessage,
                    Capability::Role(Role::Customer as u8),
                    Capability::AddPath(vec![
                        AddPath {
                            family: Family::Ipv4Unicast.into(),
                            mode: AddPathMode::Both,
                        },
                        AddPath {
                            family: Family::Ipv6Unicast.into(),
                            mode: AddPathMode::Receive,
                        },
                    ]),
                    Capability::EnhancedRouteRefresh,
                    Capability::LongLivedGracefulRestart(vec![LongLivedFamily {
                        family: Family::Ipv6Unicast.into(),
                        forwarding_preserved: true,
                        stale_time: 86_400,
                    }]),
                    Capability::Unknown {
                        code: 73,
                        value: [1, b'a', 0].into(),
                    },
                ],
            )),
        ),
        vector(
            "notification with data",
            FOUR_OCTET,
            3,
            "02 06 beef",
            Message::Notification(Notification {
                code: 2,
                subcode: 6,
                data: Bytes::from_static(&[0xbe, 0xef]),
            }),
        ),
        vector(
            "cease",
            FOUR_OCTET,
            3,
            "06 07",
            Message::Notification(Notification::cease(Cease::ConnectionCollisionResolution)),
        ),
        vector(
            "hold timer expired",
            FOUR_OCTET,
            3,
            "04 00",
            Message::Notification(Notification::hold_timer_expired()),
        ),
        vector(
            "unexpected message",
            FOUR_OCTET,
            3,
            "05 02 02",
            Message::Notification(Notification::unexpected_message(
                UnexpectedIn::OpenConfirm,
                2,
            )),
        ),
        vector(
            "route refresh",
            FOUR_OCTET,
            5,
            "0002 00 01",
            Message::RouteRefresh(RouteRefresh {
                family: Family::Ipv6Unicast.into(),
                subtype: 0,
            }),
        ),
        vector(
            "route refresh of an unknown family",
            FOUR_OCTET,
            5,
            "0019 00 46",
            Message::RouteRefresh(RouteRefresh {
                family: AfiSafi { afi: 25, safi: 70 },
                subtype: 0,
            }),
        ),
        vector(
            "end of RIB, IPv4",
            FOUR_OCTET,
            2,
            "0000 0000",
            Message::Update(Update::end_of_rib(Family::Ipv4Unicast)),
        ),
        vector(
            "end of RIB, IPv6",
            FOUR_OCTET,
            2,
            "0000 0007 90 0f 0003 0002 01",
            Message::Update(Update::end_of_rib(Family::Ipv6Unicast)),
        ),
        vector(
            "withdrawal, every octet count of a prefix",
            FOUR_OCTET,
            2,
            "000f 00 08 0a 10 c0a8 18 c0a801 20 c0a80101 0000",
            Message::Update(Update {
                withdrawn: prefixes(&[
                    "0.0.0.0/0",
                    "10.0.0.0/8",
                    "192.168.0.0/16",
                    "192.168.1.0/24",
                    "192.168.1.1/32",
                ]),
                ..Update::default()
            }),
        ),
        vector(
            "announcement, 4-octet AS",
            FOUR_OCTET,
            2,
            "0000 0018
             40 01 01 00
             40 02 0a 02 02 0000fde9 000f4240
             40 03 04 0a000001
             18 0a0102 19 0a010380",
            Message::Update(Update {
                attributes: Attributes {
                    next_hop: Some(router_id),
                    ..attributes(&[65001, 1_000_000])
                },
                nlri: prefixes(&["10.1.2.0/24", "10.1.3.128/25"]),
                ..Update::default()
            }),
        ),
        vector(
            "announcement, 2-octet AS with AS4_PATH and AS4_AGGREGATOR",
            TWO_OCTET,
            2,
            "0000 0035
             40 01 01 00
             40 02 06 02 02 fde9 5ba0
             40 03 04 0a000001
             c0 07 06 5ba0 0a000002
             c0 11 0a 02 02 0000fde9 000f4240
             c0 12 08 000f4240 0a000002
             00",
            Message::Update(Update {
                attributes: Attributes {
                    next_hop: Some(router_id),
                    aggregator: Some(Aggregator {
                        asn: 1_000_000,
                        router_id: Ipv4Addr::new(10, 0, 0, 2),
                    }),
                    ..attributes(&[65001, 1_000_000])
                },
                nlri: prefixes(&["0.0.0.0/0"]),
                ..Update::default()
            }),
        ),
        vector(
            "announcement with every attribute, from an internal peer",
            INTERNAL,
            2,
            "0000 0088
             40 01 01 02
             40 02 10 02 01 0000fde9 01 02 00000001 00000002
             40 03 04 0a000001
             80 04 04 00000064
             40 05 04 000000c8
             40 06 00
             c0 07 08 0000fde9 0a000002
             c0 08 08 fde90064 ffffff01
             e0 00 01 00                          # not known here
             80 09 04 0a000003
             80 0a 08 0a000004 0a000005
             c0 0b 01 0b                          # not known here
             c0 10 08 0002fde900000007
             c0 20 0c 000000010000000200000003
             80 21 01 21                          # not known here
             c0 23 04 0000fde9
             c0 63 01 63                          # not known here
             00",
            Message::Update(Update {
                attributes: Attributes {
                    origin: Some(Origin::Incomplete),
                    as_path: Some(AsPath::from_segments([
                        (SegmentKind::Sequence, &[65001][..]),
                        (SegmentKind::Set, &[1, 2]),
                    ])),
                    next_hop: Some(router_id),
                    med: Some(100),
                    local_pref: Some(200),
                    atomic_aggregate: true,
                    aggregator: Some(Aggregator {
                        asn: 65001,
                        router_id: Ipv4Addr::new(10, 0, 0, 2),
                    }),
                    communities: vec![Community::new(65001, 100), Community::NO_EXPORT],
                    ext_communities: vec![ExtendedCommunity([0, 2, 0xfd, 0xe9, 0, 0, 0, 7])],
                    large_communities: vec![LargeCommunity::new(1, 2, 3)],
                    otc: Some(65001),
                    originator_id: Some(Ipv4Addr::new(10, 0, 0, 3)),
                    cluster_list: vec![Ipv4Addr::new(10, 0, 0, 4), Ipv4Addr::new(10, 0, 0, 5)],
                    partial: PartialSet::NONE,
                    unknown: [(0xe0, 0), (0xc0, 11), (0x80, 33), (0xc0, 99)]
                        .map(|(flags, code)| UnknownAttribute {
                            flags: AttributeFlags(flags),
                            code: AttributeCode(code),
                            value: [code].into(),
                        })
                        .into(),
                },
                nlri: prefixes(&["0.0.0.0/0"]),
                ..Update::default()
            }),
        ),
        vector(
            "path identifiers, in every field",
            ADD_PATH,
            2,
            "0010 00000001 18 0a0102 00000002 18 0a0102
             004a
             90 0f 000e 0002 01 00000007 30 20010db80001
             90 0e 0020 0002 01 10 20010db8000000000000000000000001 00
                00000000 30 20010db80001
             40 01 01 00 40 02 06 02 01 0000fde9 40 03 04 0a000001
             00000003 00",
            Message::Update(Update {
                withdrawn: vec![with_id("10.1.2.0/24", 1), with_id("10.1.2.0/24", 2)],
                attributes: Attributes {
                    next_hop: Some(router_id),
                    ..attributes(&[65001])
                },
                nlri: vec![with_id("0.0.0.0/0", 3)],
                mp_reach: Some(MpReach::Unicast {
                    family: Family::Ipv6Unicast,
                    next_hop: NextHop::V6("2001:db8::1".parse().expect("address")),
                    nlri: vec![with_id("2001:db8:1::/48", 0)],
                }),
                mp_unreach: Some(MpUnreach::Unicast {
                    family: Family::Ipv6Unicast,
                    nlri: vec![with_id("2001:db8:1::/48", 7)],
                }),
            }),
        ),
        vector(
            "IPv4 with IPv6 next hops",
            NEXT_HOP_V6,
            2,
            "0000
             003a
             90 0e 0029 0001 01 20 20010db8000000000000000000000001
                fe800000000000000000000000000001 00 18 0a0102
             40 01 01 00 40 02 06 02 01 0000fde9",
            Message::Update(Update {
                attributes: attributes(&[65001]),
                mp_reach: Some(MpReach::Unicast {
                    family: Family::Ipv4Unicast,
                    next_hop: NextHop::V6WithLinkLocal {
                        global: "2001:db8::1".parse().expect("address"),
                        link_local: "fe80::1".parse().expect("address"),
                    },
                    nlri: prefixes(&["10.1.2.0/24"]),
                }),
                ..Update::default()
            }),
        ),
        vector(
            "IPv6, 16-octet next hop, beside a withdrawal of IPv4",
            FOUR_OCTET,
            2,
            "0004 18 0a0102
             0032
             90 0e 0021 0002 01 10 20010db8000000000000000000000001 00
                30 20010db80001 20 20010db8
             40 01 01 00
             40 02 06 02 01 0000fde9",
            Message::Update(Update {
                withdrawn: prefixes(&["10.1.2.0/24"]),
                attributes: attributes(&[65001]),
                mp_reach: Some(MpReach::Unicast {
                    family: Family::Ipv6Unicast,
                    next_hop: NextHop::V6("2001:db8::1".parse().expect("address")),
                    nlri: prefixes(&["2001:db8:1::/48", "2001:db8::/32"]),
                }),
                ..Update::default()
            }),
        ),
        vector(
            "IPv6, 32-octet next hop, and a withdrawal of IPv6",
            FOUR_OCTET,
            2,
            "0000 0047
             90 0f 0004 0002 01 00
             90 0e 0026 0002 01 20 20010db8000000000000000000000001
                fe800000000000000000000000000001 00 00
             40 01 01 00
             40 02 0e 02 03 0000fde9 0000fde9 0000fde9",
            Message::Update(Update {
                attributes: attributes(&[65001, 65001, 65001]),
                mp_reach: Some(MpReach::Unicast {
                    family: Family::Ipv6Unicast,
                    next_hop: NextHop::V6WithLinkLocal {
                        global: "2001:db8::1".parse().expect("address"),
                        link_local: "fe80::1".parse().expect("address"),
                    },
                    nlri: prefixes(&["::/0"]),
                }),
                mp_unreach: Some(MpUnreach::Unicast {
                    family: Family::Ipv6Unicast,
                    nlri: prefixes(&["::/0"]),
                }),
                ..Update::default()
            }),
        ),
        vector(
            "families not known stay octets",
            FOUR_OCTET,
            2,
            "0000 0024
             90 0f 0005 4004 47 cafe
             90 0e 000a 0019 46 02 0102 00 0a0b0c
             40 01 01 00
             40 02 06 02 01 0000fde9",
            Message::Update(Update {
                attributes: attributes(&[65001]),
                mp_reach: Some(MpReach::Other {
                    family: AfiSafi { afi: 25, safi: 70 },
                    next_hop: [1, 2].into(),
                    nlri: [10, 11, 12].into(),
                }),
                mp_unreach: Some(MpUnreach::Other {
                    family: AfiSafi {
                        afi: 16388,
                        safi: 71,
                    },
                    nlri: [0xca, 0xfe].into(),
                }),
                ..Update::default()
            }),
        ),
    ]
}

/// So many networks of each family, which share a next hop and these attributes.
pub(crate) fn many_routes(count: u32) -> (Attributes, [(Family, NextHop, Vec<Nlri>); 2]) {
    let attributes = Attributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::sequence([65001, 4_200_000_000])),
        med: Some(10),
        communities: vec![Community::new(65001, 1)],
        ..Attributes::default()
    };
    let nlri = |prefix: Result<Prefix, _>| Nlri::from(prefix.expect("a prefix"));
    let v4 = |n: u32| {
        nlri(Prefix::new(
            Ipv4Addr::from(0x0a00_0000 + (n << 8)).into(),
            24,
        ))
    };
    let v6 = |n: u32| {
        let address = (0x2001_0db8_u128 << 96) + (u128::from(n) << 80);
        nlri(Prefix::new(Ipv6Addr::from_bits(address).into(), 48))
    };
    let hop6 = NextHop::V6("2001:db8::1".parse().expect("an address"));
    let tables = [
        (
            Family::Ipv4Unicast,
            NextHop::V4([10, 0, 0, 1].into()),
            (0..count).map(v4).collect(),
        ),
        (Family::Ipv6Unicast, hop6, (0..count).map(v6).collect()),
    ];
    (attributes, tables)
}
