//! MRT: octets beside records, errors with their places, laws, and `bgpkit-parser`'s opinion.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::SessionState;
use bgp::mrt::{
    Body, PeerEntry, PeerIndexTable, PutError, ReadError, Reader, Record, Rib, RibEntry, Session,
    SessionMessage, StateChange, Timestamp, attributes_of,
};
use bgp::wire::{
    AsPath, Attributes, Community, Family, Message, NextHop, Nlri, Origin, Prefix, Update,
    WireOptions,
};
use bgpkit_parser::BgpkitParser;
use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::{generate, hex};

fn written(records: &[Record]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for record in records {
        record.put(&mut out).expect("fits");
    }
    out.to_vec()
}

fn read(octets: &[u8]) -> Vec<Result<Record, String>> {
    Reader::new(octets)
        .map(|record| record.map_err(|error| error.to_string()))
        .collect()
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn session() -> Session {
    Session {
        peer_as: 65002,
        local_as: 65001,
        interface: 0,
        peer: Ipv4Addr::new(10, 99, 0, 2).into(),
        local: Ipv4Addr::new(10, 99, 0, 1).into(),
    }
}

#[test]
fn octets_stand_beside_records() {
    let keepalive = Message::Keepalive
        .to_bytes(&WireOptions::default())
        .expect("fits");
    let v6 = Session {
        peer: Ipv6Addr::LOCALHOST.into(),
        local: Ipv6Addr::UNSPECIFIED.into(),
        peer_as: 4_200_000_000,
        interface: 3,
        ..session()
    };
    let rows = [
        (
            "5f000000 000d 0001 00000030  0a000001 0002 6964 0002
             02 0a000002 0a630002 0000fdea
             03 00000000 00000000000000000000000000000001 fa56ea00",
            Timestamp::seconds(0x5f00_0000),
            Body::PeerIndexTable(PeerIndexTable {
                collector: Ipv4Addr::new(10, 0, 0, 1),
                view: "id".to_owned(),
                peers: vec![
                    PeerEntry {
                        router_id: Ipv4Addr::new(10, 0, 0, 2),
                        address: Ipv4Addr::new(10, 99, 0, 2).into(),
                        asn: 65002,
                    },
                    PeerEntry {
                        router_id: Ipv4Addr::UNSPECIFIED,
                        address: Ipv6Addr::LOCALHOST.into(),
                        asn: 4_200_000_000,
                    },
                ],
            }),
        ),
        (
            "5f000000 000d 0002 00000016  00000007 18 0a0100 0001
             0001 5e000000 0004 40010100",
            Timestamp::seconds(0x5f00_0000),
            Body::Rib(Rib {
                sequence: 7,
                prefix: prefix("10.1.0.0/24"),
                add_path: false,
                entries: vec![RibEntry {
                    peer: 1,
                    originated: 0x5e00_0000,
                    path_id: 0,
                    attributes: Bytes::from_static(&[0x40, 1, 1, 0]),
                }],
            }),
        ),
        (
            "00000001 000d 000a 00000015  00000000 00 0001
             ffff 00000002 00000009 0002 abcd",
            Timestamp::seconds(1),
            Body::Rib(Rib {
                sequence: 0,
                prefix: prefix("::/0"),
                add_path: true,
                entries: vec![RibEntry {
                    peer: 0xffff,
                    originated: 2,
                    path_id: 9,
                    attributes: Bytes::from_static(&[0xab, 0xcd]),
                }],
            }),
        ),
        (
            "00000001 0010 0000 00000014  fdea fde9 0000 0001 0a630002 0a630001 0005 0006",
            Timestamp::seconds(1),
            Body::StateChange(StateChange {
                session: session(),
                four_octet_as: false,
                old: SessionState::OpenConfirm,
                new: SessionState::Established,
            }),
        ),
        (
            "00000001 0011 0005 00000034  000f423f fa56ea00 0000fde9 0003 0002
             00000000000000000000000000000001 00000000000000000000000000000000 0006 0001",
            Timestamp {
                seconds: 1,
                microseconds: Some(999_999),
            },
            Body::StateChange(StateChange {
                session: v6,
                four_octet_as: true,
                old: SessionState::Established,
                new: SessionState::Idle,
            }),
        ),
        (
            "00000001 0010 000b 00000027  0000fdea 0000fde9 0000 0001 0a630002 0a630001
             ffffffffffffffffffffffffffffffff 0013 04",
            Timestamp::seconds(1),
            Body::Message(SessionMessage {
                session: session(),
                four_octet_as: true,
                sent: true,
                add_path: true,
                octets: keepalive,
            }),
        ),
        (
            "00000001 000d 0006 00000003  010203",
            Timestamp::seconds(1),
            Body::Other {
                kind: 13,
                subtype: 6,
                octets: Bytes::from_static(&[1, 2, 3]),
            },
        ),
        (
            // What is not known keeps its microseconds where they are.
            "00000001 0011 0063 00000004  00000005",
            Timestamp::seconds(1),
            Body::Other {
                kind: 17,
                subtype: 99,
                octets: Bytes::from_static(&[0, 0, 0, 5]),
            },
        ),
    ];
    for (text, time, body) in rows {
        let octets = hex::octets(text);
        let record = Record { time, body };
        assert_eq!(read(&octets), [Ok(record.clone())], "{text}");
        assert_eq!(hex::show(&written(&[record])), hex::show(&octets), "{text}");
    }
}

#[test]
fn what_others_write_differently_is_read_as_well() {
    // A peer whose AS number has 2 octets, and host bits in a prefix.
    let octets = hex::octets(
        "00000001 000d 0001 00000013  0a000001 0000 0001  00 0a000002 0a630002 fdea
         00000001 000d 0002 0000000a  00000000 14 0a01ff 0000",
    );
    let seen = read(&octets);
    let [Ok(table), Ok(rib)] = seen.as_slice() else {
        panic!("{seen:?}")
    };
    assert!(
        matches!(&table.body, Body::PeerIndexTable(table) if table.peers[0].asn == 65002),
        "{table:?}"
    );
    assert!(
        matches!(&rib.body, Body::Rib(rib) if rib.prefix == prefix("10.1.240.0/20")),
        "{rib:?}"
    );
}

#[test]
fn every_malformation_is_named_with_its_place() {
    let after = "00000001 0063 0000 00000000"; // a record that must still be read, where possible
    let rows = [
        (
            "00000001 000d",
            "record at octet 0 is cut short: 6 of 12 octets are there",
            false,
        ),
        (
            "00000001 000d 0002 00000009 0000",
            "record at octet 0 is cut short: 14 of 21 octets are there",
            false,
        ),
        (
            "00000001 000d 0002 01000001",
            "record at octet 0 of type 13/2 claims 16777217 octets, over 16777216",
            false,
        ),
        (
            "00000001 0011 0004 00000002 0000",
            "record at octet 0 of type 17/4: microseconds at octet 12 needs 4 octets, 2 are left",
            true,
        ),
        (
            "00000001 000d 0001 00000008 0a000001 0005 6162",
            "record at octet 0 of type 13/1: view name at octet 18 needs 5 octets, 2 are left",
            true,
        ),
        (
            "00000001 000d 0001 00000008 0a000001 0000 ffff",
            "record at octet 0 of type 13/1: peer type at octet 20 needs 1 octets, 0 are left",
            true,
        ),
        (
            "00000001 000d 0002 00000007 00000000 21 0000",
            "record at octet 0 of type 13/2: prefix length 33 at octet 16 exceeds 32",
            true,
        ),
        (
            "00000001 000d 0004 00000007 00000000 81 0000",
            "record at octet 0 of type 13/4: prefix length 129 at octet 16 exceeds 128",
            true,
        ),
        (
            "00000001 000d 0004 00000007 00000000 80 0000",
            "record at octet 0 of type 13/4: prefix at octet 17 needs 16 octets, 2 are left",
            true,
        ),
        (
            "00000001 000d 0002 00000010 00000000 00 0001 0000 00000000 0004 40",
            "record at octet 0 of type 13/2: attributes at octet 27 needs 4 octets, 1 are left",
            true,
        ),
        (
            "00000001 000d 0002 00000009 00000000 00 0000 abcd",
            "record at octet 0 of type 13/2: 2 octets follow its last field at octet 19",
            true,
        ),
        (
            "00000001 0010 0001 00000008 fdea fde9 0000 0003",
            "record at octet 0 of type 16/1: address family 3 at octet 18 is neither 1 nor 2",
            true,
        ),
        (
            "00000001 0010 0000 00000014 fdea fde9 0000 0001 0a630002 0a630001 0005 0007",
            "record at octet 0 of type 16/0: state 7 at octet 30 is none of 1 to 6",
            true,
        ),
    ];
    for (text, error, goes_on) in rows {
        let text = match goes_on {
            true => format!("{text} {after}"),
            false => text.to_owned(),
        };
        let seen = read(&hex::octets(&text));
        assert_eq!(seen[0], Err(error.to_owned()), "{text}");
        assert_eq!(seen.len(), 1 + usize::from(goes_on), "{text}: {seen:?}");
    }
}

#[test]
fn a_failing_source_is_told_once_with_its_place() {
    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("unplugged"))
        }
    }
    let whole = hex::octets("00000001 0063 0000 00000000");
    let mut reader = Reader::new(std::io::Read::chain(&whole[..], Failing));
    assert!(matches!(reader.next(), Some(Ok(_))));
    let error = reader.next().expect("an item").expect_err("an error");
    assert_eq!(error.to_string(), "at octet 12: unplugged");
    assert!(matches!(error, ReadError::Io { offset: 12, .. }));
    assert!(reader.next().is_none());
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_of_it_written() {
    let rib = |attributes: usize| {
        Body::Rib(Rib {
            sequence: 0,
            prefix: prefix("10.0.0.0/8"),
            add_path: false,
            entries: vec![RibEntry {
                peer: 0,
                originated: 0,
                path_id: 0,
                attributes: vec![0; attributes].into(),
            }],
        })
    };
    let table = |view: usize, peers: usize| {
        let peer = PeerEntry {
            router_id: Ipv4Addr::UNSPECIFIED,
            address: Ipv4Addr::LOCALHOST.into(),
            asn: 1,
        };
        Body::PeerIndexTable(PeerIndexTable {
            collector: Ipv4Addr::UNSPECIFIED,
            view: "v".repeat(view),
            peers: vec![peer; peers],
        })
    };
    let mixed = Body::StateChange(StateChange {
        session: Session {
            local: Ipv6Addr::LOCALHOST.into(),
            ..session()
        },
        four_octet_as: true,
        old: SessionState::Idle,
        new: SessionState::Connect,
    });
    let rows = [
        (rib(65_535), None),
        (rib(65_536), Some("attributes of 65536 exceeds 65535")),
        (table(65_535, 65_535), None),
        (table(65_536, 0), Some("view name of 65536 exceeds 65535")),
        (
            table(0, 65_536),
            Some("number of peers of 65536 exceeds 65535"),
        ),
        (
            mixed,
            Some("a session between ::1 and 10.99.0.2, which are of two families"),
        ),
    ];
    for (body, error) in rows {
        let mut out = BytesMut::from(&b"before"[..]);
        let time = Timestamp::seconds(0);
        let written = Record { time, body }.put(&mut out);
        let written = written.map_err(|error: PutError| error.to_string());
        assert_eq!(written.err().as_deref(), error);
        if error.is_some() {
            assert_eq!(out, &b"before"[..]);
        }
    }
}

#[test]
fn a_number_too_big_for_two_octets_becomes_as_trans() {
    let session = Session {
        local_as: 4_200_000_000,
        ..session()
    };
    let body = Body::Message(SessionMessage {
        session,
        four_octet_as: false,
        sent: false,
        add_path: false,
        octets: Bytes::new(),
    });
    let time = Timestamp::seconds(0);
    let seen = read(&written(&[Record { time, body }]));
    assert!(
        matches!(&seen[..], [Ok(Record { body: Body::Message(message), .. })]
            if message.session.local_as == 23456),
        "{seen:?}"
    );
}

#[test]
fn mp_reach_may_be_abbreviated_or_whole() {
    let prefix = prefix("2001:db8:1::/48");
    let next_hop: Ipv6Addr = "2001:db8::1".parse().expect("an address");
    let common = "400101 00 400206 0201 0000fdea";
    let abbreviated = format!("{common} 800e11 10 20010db8000000000000000000000001");
    let whole =
        format!("{common} 800e1c 0002 01 10 20010db8000000000000000000000001 00 30 20010db80001");
    for text in [abbreviated, whole] {
        let entry = RibEntry {
            peer: 0,
            originated: 0,
            path_id: 0,
            attributes: hex::octets(&text).into(),
        };
        let decoded = entry.decode(&prefix).expect("an UPDATE");
        assert_eq!(decoded.findings, [], "{text}");
        let Message::Update(update) = decoded.message else {
            panic!("{decoded:?}")
        };
        assert_eq!(
            reached(&update),
            [(prefix, NextHop::V6(next_hop))],
            "{text}"
        );
        assert_eq!(
            update.attributes.as_path,
            Some(AsPath::sequence([65002])),
            "{text}"
        );
    }
}

fn reached(update: &Update) -> Vec<(Prefix, NextHop)> {
    let mut reached = Vec::new();
    for reach in update.reachable() {
        for nlri in reach.nlri {
            reached.push((nlri.prefix, reach.next_hop));
        }
    }
    reached
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (any::<u32>(), proptest::option::of(any::<u32>())).prop_map(|(seconds, microseconds)| {
        Timestamp {
            seconds,
            microseconds,
        }
    })
}

fn any_session(four_octet_as: bool) -> impl Strategy<Value = Session> {
    let addresses = prop_oneof![
        any::<[Ipv4Addr; 2]>().prop_map(|pair| pair.map(IpAddr::from)),
        any::<[Ipv6Addr; 2]>().prop_map(|pair| pair.map(IpAddr::from)),
    ];
    (addresses, any::<[u32; 2]>(), any::<u16>()).prop_map(
        move |([peer, local], asns, interface)| {
            let [peer_as, local_as] = asns.map(|asn| match four_octet_as {
                true => asn,
                false => asn & 0xffff,
            });
            Session {
                peer_as,
                local_as,
                interface,
                peer,
                local,
            }
        },
    )
}

fn octets(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

fn rib() -> impl Strategy<Value = Rib> {
    let entry = (any::<u16>(), any::<u32>(), any::<u32>(), octets(300));
    let prefix = generate::family().prop_flat_map(generate::prefix);
    (any::<u32>(), prefix, any::<bool>(), vec(entry, 0..5)).prop_map(
        |(sequence, prefix, add_path, entries)| {
            let entry = |(peer, originated, path_id, attributes)| RibEntry {
                peer,
                originated,
                path_id: if add_path { path_id } else { 0 },
                attributes,
            };
            Rib {
                sequence,
                prefix,
                add_path,
                entries: entries.into_iter().map(entry).collect(),
            }
        },
    )
}

fn body() -> impl Strategy<Value = Body> {
    let peer =
        (any::<Ipv4Addr>(), any::<IpAddr>(), any::<u32>()).prop_map(|(router_id, address, asn)| {
            PeerEntry {
                router_id,
                address,
                asn,
            }
        });
    let table =
        (any::<Ipv4Addr>(), "\\PC{0,9}", vec(peer, 0..6)).prop_map(|(collector, view, peers)| {
            PeerIndexTable {
                collector,
                view,
                peers,
            }
        });
    let message = any::<[bool; 3]>().prop_flat_map(|[four_octet_as, sent, add_path]| {
        (any_session(four_octet_as), octets(300)).prop_map(move |(session, octets)| {
            SessionMessage {
                session,
                four_octet_as,
                sent,
                add_path,
                octets,
            }
        })
    });
    let state = || prop::sample::select(SessionState::ALL.to_vec());
    let change = any::<bool>().prop_flat_map(move |four_octet_as| {
        (any_session(four_octet_as), state(), state()).prop_map(move |(session, old, new)| {
            StateChange {
                session,
                four_octet_as,
                old,
                new,
            }
        })
    });
    let other =
        (0..12_u16, any::<u16>(), octets(40)).prop_map(|(kind, subtype, octets)| Body::Other {
            kind,
            subtype,
            octets,
        });
    prop_oneof![
        table.prop_map(Body::PeerIndexTable),
        rib().prop_map(Body::Rib),
        message.prop_map(Body::Message),
        change.prop_map(Body::StateChange),
        other,
    ]
}

fn record() -> impl Strategy<Value = Record> {
    (timestamp(), body()).prop_map(|(mut time, body)| {
        if !matches!(body, Body::Message(_) | Body::StateChange(_)) {
            time.microseconds = None;
        }
        Record { time, body }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(records in vec(record(), 0..6)) {
        let seen = read(&written(&records));
        let expected: Vec<_> = records.into_iter().map(Ok).collect();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn random_octets_are_read_to_an_end(octets in vec(any::<u8>(), 0..200)) {
        // Each item takes a header at least.
        prop_assert!(read(&octets).len() <= octets.len() / 12 + 1);
    }

    #[test]
    fn mutated_files_are_read_to_an_end(
        records in vec(record(), 1..4),
        changes in vec((any::<Index>(), any::<u8>()), 1..6),
        cut in any::<Index>(),
    ) {
        let mut octets = written(&records);
        for (at, value) in changes {
            let at = at.index(octets.len());
            octets[at] = value;
        }
        octets.truncate(cut.index(octets.len() + 1));
        for record in Reader::new(&octets[..]).flatten() {
            // What was read can be written, and means the same then.
            if let Body::Rib(rib) = &record.body {
                for entry in &rib.entries {
                    let _ = entry.decode(&rib.prefix);
                }
            }
            if let Body::Message(message) = &record.body {
                let _ = message.decode();
            }
            let again = read(&written(std::slice::from_ref(&record)));
            prop_assert_eq!(again, [Ok(record)]);
        }
    }

    #[test]
    fn attributes_survive_a_dump(
        (prefix, next_hop, attributes) in generate::family().prop_flat_map(|family| (
            generate::prefix(family),
            generate::next_hop(family, dump_options()),
            generate::attributes(dump_options()),
        )),
    ) {
        let octets = attributes_of(&prefix, &attributes, next_hop).expect("fits");
        let entry = RibEntry { peer: 0, originated: 0, path_id: 0, attributes: octets };
        let decoded = entry.decode(&prefix).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(&decoded.findings, &vec![]);
        let Message::Update(mut update) = decoded.message else { panic!("{decoded:?}") };
        prop_assert_eq!(reached(&update), [(prefix, next_hop)]);
        update.attributes.next_hop = None;
        prop_assert_eq!(update.attributes, attributes);
    }

    #[test]
    fn bgpkit_reads_the_same_routes(
        routes in vec(
            generate::family().prop_flat_map(|family| (
                generate::prefix(family).prop_filter("a default route", |prefix| prefix.len() > 0),
                generate::next_hop(family, WireOptions::default()),
                vec(1..=u32::MAX, 1..5),
                proptest::option::of(any::<u32>()),
                vec(any::<u16>().prop_map(|value| Community::new(65001, value)), 0..3),
            )),
            1..8,
        ),
    ) {
        let mut records = vec![Record {
            time: Timestamp::seconds(9),
            body: Body::PeerIndexTable(PeerIndexTable {
                collector: Ipv4Addr::new(10, 0, 0, 1),
                view: String::new(),
                peers: vec![PeerEntry {
                    router_id: Ipv4Addr::new(10, 0, 0, 2),
                    address: Ipv4Addr::new(10, 99, 0, 2).into(),
                    asn: 4_200_000_000,
                }],
            }),
        }];
        let mut expected = Vec::new();
        for (sequence, (prefix, next_hop, path, med, communities)) in (0..).zip(routes) {
            let attributes = Attributes {
                origin: Some(Origin::Igp),
                as_path: Some(AsPath::sequence(path.clone())),
                med,
                communities: communities.clone(),
                ..Attributes::default()
            };
            records.push(Record {
                time: Timestamp::seconds(9),
                body: Body::Rib(Rib {
                    sequence,
                    prefix,
                    add_path: false,
                    entries: vec![RibEntry {
                        peer: 0,
                        originated: 5,
                        path_id: 0,
                        attributes: attributes_of(&prefix, &attributes, next_hop).expect("fits"),
                    }],
                }),
            });
            let path: Vec<_> = path.iter().map(u32::to_string).collect();
            let communities: Vec<_> = communities.iter().map(ToString::to_string).collect();
            expected.push((
                prefix.to_string(), next_hop.addr(), path.join(" "), med.unwrap_or(0), communities,
                "10.99.0.2".to_owned(), 4_200_000_000_u32,
            ));
        }
        let file = written(&records);
        let seen: Vec<_> = BgpkitParser::from_reader(&file[..])
            .into_elem_iter()
            .map(|elem| {
                let communities = elem.communities.unwrap_or_default();
                (
                    elem.prefix.to_string(),
                    elem.next_hop.expect("a next hop"),
                    elem.as_path.expect("a path").to_string(),
                    elem.med.unwrap_or(0), // which it says of a route without
                    communities.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    elem.peer_ip.to_string(),
                    elem.peer_asn.into(),
                )
            })
            .collect();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn bgpkit_reads_the_same_messages(
        four_octet_as in any::<bool>(),
        prefixes in vec(
            generate::prefix(Family::Ipv4Unicast).prop_filter("default", |prefix| prefix.len() > 0),
            1..6,
        ),
    ) {
        let message = Message::Update(Update {
            attributes: Attributes {
                origin: Some(Origin::Igp),
                as_path: Some(AsPath::sequence([65002, 65003])),
                next_hop: Some(Ipv4Addr::new(10, 99, 0, 2)),
                ..Attributes::default()
            },
            nlri: prefixes.iter().copied().map(Nlri::from).collect(),
            ..Update::default()
        });
        let options = WireOptions { four_octet_as, ..WireOptions::default() };
        let record = Record {
            time: Timestamp { seconds: 9, microseconds: Some(500_000) },
            body: Body::Message(SessionMessage {
                session: session(),
                four_octet_as,
                sent: false,
                add_path: false,
                octets: message.to_bytes(&options).expect("fits"),
            }),
        };
        let file = written(&[record]);
        let seen: Vec<_> = BgpkitParser::from_reader(&file[..])
            .into_elem_iter()
            .map(|elem| (
                elem.timestamp,
                elem.prefix.to_string(),
                elem.as_path.expect("a path").to_string(),
                elem.peer_ip.to_string(),
            ))
            .collect();
        let expected: Vec<_> = prefixes
            .iter()
            .map(|prefix| (
                9.5, prefix.to_string(), "65002 65003".to_owned(), "10.99.0.2".to_owned(),
            ))
            .collect();
        prop_assert_eq!(seen, expected);
    }
}

/// How attributes in a dump look: those of an internal session with 4-octet numbers.
fn dump_options() -> WireOptions {
    WireOptions {
        four_octet_as: true,
        extended_messages: true,
        internal: true,
        ipv4_next_hop_v6: true,
        allow_as_set: true,
        ..WireOptions::default()
    }
}
