//! Packing: exactly the prefixes given, in order, in as few messages as they fit in.

use bgp::wire::{
    AsPath, Attributes, EncodeError, Family, Message, MpReach, MpUnreach, NextHop, Nlri, Origin,
    Prefix, Update, WireOptions, frame, pack,
};
use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::generate;

/// The messages of a packed stream, each with its length.
fn unpack(stream: &BytesMut, options: &WireOptions) -> Vec<(usize, Update)> {
    let mut stream = stream.clone();
    let mut updates = Vec::new();
    while let Some(octets) = frame::split(&mut stream, options).expect("valid header") {
        let decoded = Message::decode(&octets, options).expect("valid message");
        assert_eq!(decoded.findings, []);
        let Message::Update(update) = decoded.message else {
            panic!("no UPDATE")
        };
        updates.push((octets.len(), update));
    }
    assert!(stream.is_empty(), "{} octets left over", stream.len());
    updates
}

/// In the given order no message could have taken the first prefix of the next one.
fn assert_full(family: Family, messages: &[(usize, Vec<Nlri>)], options: &WireOptions) {
    let path_id = 4 * usize::from(options.add_path_send.contains(family));
    for pair in messages.windows(2) {
        let [(length, _), (_, following)] = pair else {
            unreachable!("windows of two")
        };
        assert!(
            length + path_id + following[0].prefix.nlri_len() > options.max_len(),
            "room left: {length}"
        );
    }
    for (length, prefixes) in messages {
        assert!(*length <= options.max_len());
        assert!(!prefixes.is_empty());
    }
}

fn batch() -> impl Strategy<Value = (WireOptions, Attributes, Family, NextHop, Vec<Nlri>)> {
    (generate::options(), generate::family()).prop_flat_map(|(options, family)| {
        (
            Just(options),
            generate::attributes(options),
            Just(family),
            generate::next_hop(family, options),
            vec(generate::nlri(family, options.add_path_send), 0..3000),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn announcements_are_complete_and_full(
        (options, attributes, family, next_hop, prefixes) in batch(),
    ) {
        let mut out = BytesMut::from(&b"before"[..]);
        let count = pack::announce(
            family, next_hop, &attributes, prefixes.iter().copied(), &options, &mut out,
        ).expect("fits");
        prop_assert_eq!(&out.split_to(6)[..], b"before");
        let updates = unpack(&out, &options);
        prop_assert_eq!(updates.len(), count);
        let mut messages = Vec::new();
        for (length, update) in updates {
            let (nlri, expected) = match (family, update.mp_reach) {
                (Family::Ipv4Unicast, None) => {
                    let NextHop::V4(next_hop) = next_hop else { panic!("next hop") };
                    (update.nlri, Attributes { next_hop: Some(next_hop), ..attributes.clone() })
                }
                (_, Some(MpReach::Unicast { family: of, nlri, next_hop: with })) => {
                    prop_assert_eq!((of, with), (family, next_hop));
                    prop_assert!(!matches!(with, NextHop::V4(_)));
                    (nlri, attributes.clone())
                }
                (_, mp_reach) => panic!("{family}: {mp_reach:?}"),
            };
            prop_assert_eq!(update.attributes, expected);
            messages.push((length, nlri));
        }
        assert_full(family, &messages, &options);
        let all: Vec<Nlri> = messages.into_iter().flat_map(|(_, nlri)| nlri).collect();
        prop_assert_eq!(all, prefixes);
    }

    #[test]
    fn withdrawals_are_complete_and_full((options, _, family, _, prefixes) in batch()) {
        let mut out = BytesMut::new();
        let count = pack::withdraw(family, prefixes.iter().copied(), &options, &mut out)
            .expect("fits");
        let updates = unpack(&out, &options);
        prop_assert_eq!(updates.len(), count);
        let mut messages = Vec::new();
        for (length, update) in updates {
            prop_assert!(update.attributes.is_empty() && update.nlri.is_empty());
            let nlri = match (family, update.mp_unreach) {
                (Family::Ipv4Unicast, None) => update.withdrawn,
                (Family::Ipv6Unicast, Some(MpUnreach::Unicast { nlri, .. })) => nlri,
                (_, mp_unreach) => panic!("{family}: {mp_unreach:?}"),
            };
            messages.push((length, nlri));
        }
        assert_full(family, &messages, &options);
        let all: Vec<Nlri> = messages.into_iter().flat_map(|(_, nlri)| nlri).collect();
        prop_assert_eq!(all, prefixes);
    }

    /// The packer and the plain encoder write the same octets.
    #[test]
    fn one_message_is_what_the_encoder_writes(
        (options, attributes, family, next_hop, prefixes) in batch(),
    ) {
        let prefixes: Vec<Nlri> = prefixes.into_iter().take(20).collect();
        prop_assume!(!prefixes.is_empty());
        let announced = match (family, next_hop) {
            (Family::Ipv4Unicast, NextHop::V4(next_hop)) => Update {
                attributes: Attributes { next_hop: Some(next_hop), ..attributes.clone() },
                nlri: prefixes.clone(),
                ..Update::default()
            },
            _ => Update {
                attributes: attributes.clone(),
                mp_reach: Some(MpReach::Unicast { family, next_hop, nlri: prefixes.clone() }),
                ..Update::default()
            },
        };
        let withdrawn = match family {
            Family::Ipv4Unicast => Update { withdrawn: prefixes.clone(), ..Update::default() },
            family => Update {
                mp_unreach: Some(MpUnreach::Unicast { family, nlri: prefixes.clone() }),
                ..Update::default()
            },
        };
        let (mut packed, mut encoded) = (BytesMut::new(), BytesMut::new());
        let all = || prefixes.iter().copied();
        pack::announce(family, next_hop, &attributes, all(), &options, &mut packed).expect("fits");
        pack::withdraw(family, all(), &options, &mut packed).expect("fits");
        Message::Update(announced).encode(&options, &mut encoded).expect("fits");
        Message::Update(withdrawn).encode(&options, &mut encoded).expect("fits");
        prop_assert_eq!(packed, encoded);
    }
}

fn attributes() -> Attributes {
    Attributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::sequence([65001])),
        ..Attributes::default()
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("prefix")
}

const V4: NextHop = NextHop::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const V6: NextHop = NextHop::V6(std::net::Ipv6Addr::LOCALHOST);

/// 4 octets a /24 and 23 + 18 octets around them: 1013 to a message.
#[test]
fn a_full_table_takes_as_few_messages_as_it_can() {
    let options = WireOptions {
        four_octet_as: true,
        ..WireOptions::default()
    };
    let prefixes = |count: u32| {
        (0..count).map(|n| {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + (n << 8));
            Nlri::from(Prefix::new(address.into(), 24).expect("a /24"))
        })
    };
    // 4096 - 23 - (4 + 9 + 7) = 4053 octets of NLRI, 1013 prefixes of 4 octets.
    for (count, messages) in [(0, 0), (1, 1), (1013, 1), (1014, 2), (10_000, 10)] {
        let mut out = BytesMut::new();
        let packed = pack::announce(
            Family::Ipv4Unicast,
            V4,
            &attributes(),
            prefixes(count),
            &options,
            &mut out,
        );
        assert_eq!(packed, Ok(messages), "{count} prefixes");
    }
    // 4096 - 23 = 4073 octets of withdrawn routes, 1018 prefixes.
    for (count, messages) in [(0, 0), (1018, 1), (1019, 2)] {
        let mut out = BytesMut::new();
        let packed = pack::withdraw(Family::Ipv4Unicast, prefixes(count), &options, &mut out);
        assert_eq!(packed, Ok(messages), "{count} prefixes");
    }
}

#[test]
fn what_cannot_be_packed_leaves_the_output_as_it_was() {
    let options = WireOptions::default();
    let v4 = || std::iter::repeat_n(Nlri::from(prefix("10.0.0.0/8")), 5000);
    let mixed = || v4().chain([prefix("2001:db8::/32").into()]);
    let large = Attributes {
        communities: vec![bgp::wire::Community(1); 1013],
        ..attributes()
    };
    let huge = Attributes {
        communities: vec![bgp::wire::Community(1); 20_000],
        ..attributes()
    };
    let mut out = BytesMut::from(&b"before"[..]);
    let mut announce = |family, next_hop, attributes: &Attributes, prefixes: Vec<Nlri>| {
        let error = pack::announce(family, next_hop, attributes, prefixes, &options, &mut out);
        assert_eq!(&out[..], b"before");
        error.expect_err("must not fit")
    };
    let mixed_error = EncodeError::PrefixFamily {
        prefix: prefix("2001:db8::/32"),
        expected: Family::Ipv4Unicast,
    };
    assert_eq!(
        announce(Family::Ipv4Unicast, V4, &attributes(), mixed().collect()),
        mixed_error
    );
    assert_eq!(
        announce(Family::Ipv4Unicast, V6, &attributes(), v4().collect()),
        EncodeError::NextHopFamily {
            next_hop: V6,
            family: Family::Ipv4Unicast
        }
    );
    assert_eq!(
        announce(
            Family::Ipv6Unicast,
            V4,
            &attributes(),
            vec![prefix("::/0").into()]
        ),
        EncodeError::NextHopFamily {
            next_hop: V4,
            family: Family::Ipv6Unicast
        }
    );
    assert!(matches!(
        announce(Family::Ipv4Unicast, V4, &large, v4().collect()),
        EncodeError::NoRoom(_)
    ));
    assert!(matches!(
        announce(Family::Ipv6Unicast, V6, &huge, vec![prefix("::/0").into()]),
        EncodeError::TooLong { .. }
    ));
    assert_eq!(
        pack::withdraw(Family::Ipv4Unicast, mixed(), &options, &mut out),
        Err(mixed_error)
    );
    assert_eq!(&out[..], b"before");
}
