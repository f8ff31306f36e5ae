//! BMP: octets beside structs, errors with their places, laws, and `bgpkit-parser`'s opinion.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::bmp::{
    BmpError, DownReason, Information, MAX_MESSAGE_LEN, Message, PeerHeader, PeerKind, PeerUp,
    PutError, Statistic, Termination, termination_reason,
};
use bgp::wire::{self, AfiSafi, Family, Notification, WireOptions};
use bgpkit_parser::parser::bmp::parse_bmp_msg;
use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::{generate, hex};

fn peer() -> PeerHeader {
    PeerHeader {
        kind: PeerKind::Global,
        post_policy: false,
        two_octet_as: false,
        adj_rib_out: false,
        distinguisher: 0,
        address: Ipv4Addr::new(10, 99, 0, 2).into(),
        asn: 65002,
        router_id: Ipv4Addr::new(10, 0, 0, 2),
        seconds: 1,
        microseconds: 2,
    }
}

fn keepalive() -> Bytes {
    wire::Message::Keepalive
        .to_bytes(&WireOptions::default())
        .expect("fits")
}

const PEER: &str = "00 00 0000000000000000 000000000000000000000000 0a630002 0000fdea 0a000002
                    00000001 00000002";
const KEEPALIVE: &str = "ffffffffffffffffffffffffffffffff 0013 04";

/// A whole message: the header is put before the body.
fn message(kind: u8, body: &str) -> Vec<u8> {
    let body = hex::octets(body);
    let length = u32::try_from(body.len() + 6).expect("fits");
    [&[3][..], &length.to_be_bytes(), &[kind], &body].concat()
}

#[test]
fn octets_stand_beside_messages() {
    let v6 = PeerHeader {
        kind: PeerKind::RouteDistinguished,
        post_policy: true,
        two_octet_as: true,
        distinguisher: 5,
        address: Ipv6Addr::LOCALHOST.into(),
        ..peer()
    };
    let v6_text = "01 e0 0000000000000005 00000000000000000000000000000001 0000fdea 0a000002
                   00000001 00000002";
    let up = |peer, local_address| {
        Message::PeerUp(PeerUp {
            peer,
            local_address,
            local_port: 179,
            remote_port: 40000,
            sent_open: keepalive(),
            received_open: keepalive(),
            information: vec![Information::Text("x".to_owned())],
        })
    };
    let down = |reason| Message::PeerDown {
        peer: peer(),
        reason,
    };
    let ipv6 = AfiSafi::from(Family::Ipv6Unicast);
    let rows = [
        (
            0,
            format!("{PEER} {KEEPALIVE}"),
            Message::RouteMonitoring {
                peer: peer(),
                update: keepalive(),
            },
        ),
        (
            1,
            format!(
                "{PEER} 00000005  0000 0004 00000007  0007 0008 0000000000000009
                 0009 000b 0002 01 000000000000000a  000b 0004 00000001  0063 0001 ff"
            ),
            Message::Statistics {
                peer: peer(),
                statistics: vec![
                    Statistic::Rejected(7),
                    Statistic::AdjRibIn(9),
                    Statistic::AdjRibInOf(ipv6, 10),
                    Statistic::UpdatesAsWithdrawals(1),
                    Statistic::Other(99, Bytes::from_static(&[0xff])),
                ],
            },
        ),
        (
            2,
            format!("{PEER} 01 {KEEPALIVE}"),
            down(DownReason::Notified(keepalive())),
        ),
        (2, format!("{PEER} 02 0002"), down(DownReason::Silent(2))),
        (
            2,
            format!("{PEER} 03 {KEEPALIVE}"),
            down(DownReason::NotifiedByPeer(keepalive())),
        ),
        (2, format!("{PEER} 04"), down(DownReason::Lost)),
        (2, format!("{PEER} 05"), down(DownReason::Unreported)),
        (
            3,
            format!(
                "{PEER} 000000000000000000000000 0a630001 00b3 9c40 {KEEPALIVE} {KEEPALIVE}
                 0000 0001 78"
            ),
            up(peer(), Ipv4Addr::new(10, 99, 0, 1).into()),
        ),
        (
            3,
            format!(
                "{v6_text} 00000000000000000000000000000002 00b3 9c40 {KEEPALIVE} {KEEPALIVE}
                 0000 0001 78"
            ),
            up(v6, Ipv6Addr::from(2).into()),
        ),
        (
            4,
            "0002 0003 677731  0001 0003 63636e  0007 0001 aa".to_owned(),
            Message::Initiation(vec![
                Information::SysName("gw1".to_owned()),
                Information::SysDescr("ccn".to_owned()),
                Information::Other(7, Bytes::from_static(&[0xaa])),
            ]),
        ),
        (
            5,
            "0001 0002 0000  0000 0003 627965  0009 0000".to_owned(),
            Message::Termination(vec![
                Termination::Reason(termination_reason::CLOSED),
                Termination::Text("bye".to_owned()),
                Termination::Other(9, Bytes::new()),
            ]),
        ),
        (
            6,
            "0102".to_owned(),
            Message::Other {
                kind: 6,
                body: Bytes::from_static(&[1, 2]),
            },
        ),
    ];
    for (kind, body, expected) in rows {
        let octets = message(kind, &body);
        assert_eq!(
            Message::decode(octets.clone().into()),
            Ok(expected.clone()),
            "{body}"
        );
        let written = expected.to_bytes().expect("fits");
        assert_eq!(hex::show(&written), hex::show(&octets), "{body}");
    }
}

#[test]
fn every_malformation_is_named_with_its_place() {
    let rows = [
        (
            0,
            "00".to_owned(),
            "peer flags at octet 7 needs 1 octets, 0 are left",
        ),
        (
            0,
            PEER.to_owned(),
            "UPDATE at octet 48 needs 19 octets, 0 are left",
        ),
        (
            0,
            format!("{PEER} ffffffffffffffffffffffffffffffff 0012 04"),
            "BGP message at octet 48 says it has 18 octets",
        ),
        (
            0,
            format!("{PEER} ffffffffffffffffffffffffffffffff 0014 04"),
            "UPDATE at octet 48 needs 20 octets, 19 are left",
        ),
        (
            0,
            format!("{PEER} {KEEPALIVE} 00"),
            "1 octets follow its last field at octet 67",
        ),
        (
            1,
            format!("{PEER} ffffffff"),
            "statistic type at octet 52 needs 2 octets, 0 are left",
        ),
        (
            1,
            format!("{PEER} 00000001 0007 0004 00000000"),
            "statistic at octet 56 has 4 octets instead of 8",
        ),
        (
            2,
            format!("{PEER} 07"),
            "peer down reason 7 at octet 48 is unknown",
        ),
        (
            2,
            format!("{PEER} 02 00"),
            "event at octet 49 needs 2 octets, 1 are left",
        ),
        (
            3,
            format!("{PEER} 0000"),
            "local address at octet 48 needs 16 octets, 2 are left",
        ),
        (
            4,
            "0002 0009 61".to_owned(),
            "information at octet 10 needs 9 octets, 1 are left",
        ),
        (
            5,
            "0001 0001 00".to_owned(),
            "termination reason at octet 10 has 1 octets instead of 2",
        ),
    ];
    for (kind, body, expected) in rows {
        let seen = Message::decode(message(kind, &body).into()).expect_err("malformed");
        assert_eq!(seen.to_string(), expected, "type {kind}: {body}");
    }
}

#[test]
fn a_stream_is_cut_into_messages() {
    let first = message(6, "010203");
    let second = message(4, "");
    let stream = [first.clone(), second.clone()].concat();
    // However it arrives.
    for at in 0..=stream.len() {
        let mut buffer = BytesMut::new();
        let mut seen = Vec::new();
        for part in [&stream[..at], &stream[at..]] {
            buffer.extend_from_slice(part);
            while let Some(octets) = Message::split(&mut buffer).expect("good headers") {
                seen.push(octets.to_vec());
            }
        }
        assert_eq!(seen, [first.clone(), second.clone()], "cut at {at}");
    }
    let too_long = u32::try_from(MAX_MESSAGE_LEN + 1).expect("fits");
    for (octets, expected) in [
        (vec![2], BmpError::Version(2)),
        (
            vec![3, 0, 0, 0, 5, 0],
            BmpError::Length {
                length: 5,
                max: MAX_MESSAGE_LEN,
            },
        ),
        (
            [&[3][..], &too_long.to_be_bytes(), &[0]].concat(),
            BmpError::Length {
                length: too_long,
                max: MAX_MESSAGE_LEN,
            },
        ),
    ] {
        let seen = Message::split(&mut BytesMut::from(&octets[..]));
        assert_eq!(seen, Err(expected));
    }
    assert_eq!(
        Message::decode(first[..8].to_vec().into()),
        Err(BmpError::Incomplete {
            length: 9,
            available: 8
        })
    );
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_of_it_written() {
    let long = |length| Message::Initiation(vec![Information::Text("x".repeat(length))]);
    let mixed = Message::PeerUp(PeerUp {
        peer: peer(),
        local_address: Ipv6Addr::LOCALHOST.into(),
        local_port: 0,
        remote_port: 0,
        sent_open: keepalive(),
        received_open: keepalive(),
        information: Vec::new(),
    });
    let huge = Message::Other {
        kind: 9,
        body: vec![0; MAX_MESSAGE_LEN].into(),
    };
    for (message, expected) in [
        (long(65_535), None),
        (long(65_536), Some("information of 65536 exceeds 65535")),
        (huge, Some("message of 1048582 exceeds 1048576")),
        (
            mixed,
            Some("a session between ::1 and 10.99.0.2, which are of two families"),
        ),
    ] {
        let mut out = BytesMut::from(&b"before"[..]);
        let written = message.put(&mut out);
        let written = written.map_err(|error: PutError| error.to_string());
        assert_eq!(written.err().as_deref(), expected);
        if expected.is_some() {
            assert_eq!(out, &b"before"[..]);
        }
    }
}

fn peer_header() -> impl Strategy<Value = PeerHeader> {
    let kind = prop_oneof![
        Just(PeerKind::Global),
        Just(PeerKind::RouteDistinguished),
        Just(PeerKind::Local),
        (3..=u8::MAX).prop_map(PeerKind::Other),
    ];
    (
        (kind, any::<[bool; 3]>(), any::<u64>(), any::<IpAddr>()),
        (any::<u32>(), any::<Ipv4Addr>(), any::<[u32; 2]>()),
    )
        .prop_map(
            |(
                (kind, [post_policy, two_octet_as, adj_rib_out], distinguisher, address),
                (asn, router_id, [seconds, microseconds]),
            )| PeerHeader {
                kind,
                post_policy,
                two_octet_as,
                adj_rib_out,
                distinguisher,
                address,
                asn,
                router_id,
                seconds,
                microseconds,
            },
        )
}

fn octets(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

/// Something with the header of a BGP message.
fn framed() -> impl Strategy<Value = Bytes> {
    (any::<u8>(), vec(any::<u8>(), 0..80)).prop_map(|(kind, body)| hex::message(kind, &body).into())
}

fn information() -> impl Strategy<Value = Vec<Information>> {
    let item = prop_oneof![
        "\\PC{0,9}".prop_map(Information::Text),
        "\\PC{0,9}".prop_map(Information::SysDescr),
        "\\PC{0,9}".prop_map(Information::SysName),
        (3..=u16::MAX, octets(20)).prop_map(|(kind, value)| Information::Other(kind, value)),
    ];
    vec(item, 0..4)
}

fn statistic() -> impl Strategy<Value = Statistic> {
    let family = (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| AfiSafi { afi, safi });
    prop_oneof![
        any::<u32>().prop_map(Statistic::Rejected),
        any::<u32>().prop_map(Statistic::AsPathLoops),
        any::<u64>().prop_map(Statistic::AdjRibIn),
        any::<u64>().prop_map(Statistic::LocRib),
        (family.clone(), any::<u64>()).prop_map(|(f, n)| Statistic::AdjRibInOf(f, n)),
        (family, any::<u64>()).prop_map(|(f, n)| Statistic::LocRibOf(f, n)),
        any::<u32>().prop_map(Statistic::UpdatesAsWithdrawals),
        any::<u32>().prop_map(Statistic::PrefixesAsWithdrawals),
        (13..=u16::MAX, octets(20)).prop_map(|(kind, value)| Statistic::Other(kind, value)),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let monitoring = (peer_header(), framed())
        .prop_map(|(peer, update)| Message::RouteMonitoring { peer, update });
    let statistics = (peer_header(), vec(statistic(), 0..6))
        .prop_map(|(peer, statistics)| Message::Statistics { peer, statistics });
    let reason = prop_oneof![
        framed().prop_map(DownReason::Notified),
        any::<u16>().prop_map(DownReason::Silent),
        framed().prop_map(DownReason::NotifiedByPeer),
        Just(DownReason::Lost),
        Just(DownReason::Unreported),
    ];
    let down =
        (peer_header(), reason).prop_map(|(peer, reason)| Message::PeerDown { peer, reason });
    let up = (
        peer_header(),
        any::<u128>(),
        any::<[u16; 2]>(),
        framed(),
        framed(),
        information(),
    )
        .prop_map(
            |(peer, local, [local_port, remote_port], sent_open, received_open, information)| {
                Message::PeerUp(PeerUp {
                    peer,
                    local_address: match peer.address {
                        IpAddr::V4(_) => Ipv4Addr::from(local as u32).into(),
                        IpAddr::V6(_) => Ipv6Addr::from(local).into(),
                    },
                    local_port,
                    remote_port,
                    sent_open,
                    received_open,
                    information,
                })
            },
        );
    let termination = prop_oneof![
        "\\PC{0,9}".prop_map(Termination::Text),
        any::<u16>().prop_map(Termination::Reason),
        (2..=u16::MAX, octets(20)).prop_map(|(kind, value)| Termination::Other(kind, value)),
    ];
    prop_oneof![
        monitoring,
        statistics,
        down,
        up,
        information().prop_map(Message::Initiation),
        vec(termination, 0..4).prop_map(Message::Termination),
        (6..=u8::MAX, octets(60)).prop_map(|(kind, body)| Message::Other { kind, body }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(message in any_message()) {
        let octets = message.to_bytes().expect("fits");
        prop_assert_eq!(Message::decode(octets), Ok(message));
    }

    #[test]
    fn random_octets_are_no_trouble(kind in 0..8_u8, body in vec(any::<u8>(), 0..200)) {
        let length = u32::try_from(body.len() + 6).expect("fits");
        let octets = [&[3][..], &length.to_be_bytes(), &[kind], &body].concat();
        let _ = Message::decode(octets.into());
        let _ = Message::decode(body.into());
    }

    #[test]
    fn mutated_messages_are_no_trouble(
        message in any_message(),
        changes in vec((any::<Index>(), any::<u8>()), 1..6),
    ) {
        let mut octets = message.to_bytes().expect("fits").to_vec();
        for (at, value) in changes {
            let at = at.index(octets.len());
            octets[at] = value;
        }
        if let Ok(message) = Message::decode(octets.into()) {
            // What was read can be written, and means the same then.
            let again = message.to_bytes().expect("it fitted before");
            prop_assert_eq!(Message::decode(again), Ok(message));
        }
    }

    #[test]
    fn bgpkit_reads_them_too(
        peer in peer_header().prop_map(|peer| PeerHeader {
            kind: PeerKind::Global,
            two_octet_as: false,
            adj_rib_out: false,
            microseconds: 500_000,
            ..peer
        }),
        open in generate::open(),
        name in "[a-z]{1,9}",
    ) {
        let open = wire::Message::Open(wire::Open { capabilities: Vec::new(), ..open })
            .to_bytes(&WireOptions::default())
            .expect("fits");
        let local_address = peer.address;
        let messages = [
            Message::Initiation(vec![Information::SysName(name.clone())]),
            Message::PeerUp(PeerUp {
                peer,
                local_address,
                local_port: 179,
                remote_port: 1234,
                sent_open: open.clone(),
                received_open: open,
                information: Vec::new(),
            }),
            Message::RouteMonitoring {
                peer,
                update: wire::Message::Update(wire::Update::default())
                    .to_bytes(&WireOptions::default())
                    .expect("fits"),
            },
            Message::Statistics { peer, statistics: vec![Statistic::AdjRibIn(77)] },
            Message::PeerDown {
                peer,
                reason: DownReason::NotifiedByPeer(DownReason::octets_of(&Notification::new(6, 2))),
            },
        ];
        let expected = [
            vec![format!("info: {name:?}")],
            vec!["local_port: 179, remote_port: 1234".to_owned()],
            vec!["RouteMonitoring".to_owned()],
            vec!["stat_type: RoutesInAdjRibsIn".to_owned(), "Gauge(77)".to_owned()],
            vec!["reason: RemoteSystemClosedNotificationPduFollows".to_owned()],
        ];
        for (message, texts) in messages.into_iter().zip(expected) {
            let octets = message.to_bytes().expect("fits");
            let seen = parse_bmp_msg(&mut octets.clone());
            let seen = seen.map_err(|error| TestCaseError::fail(format!("{message:?}: {error}")))?;
            prop_assert_eq!(seen.common_header.msg_len as usize, octets.len());
            if let Some(header) = &seen.per_peer_header {
                prop_assert_eq!(header.peer_ip, peer.address);
                prop_assert_eq!(u32::from(header.peer_asn), peer.asn);
                prop_assert_eq!(header.timestamp, f64::from(peer.seconds) + 0.5);
            }
            let body = format!("{:?}", seen.message_body);
            for text in texts {
                prop_assert!(body.contains(&text), "{} lacks {}", body, text);
            }
        }
    }
}
