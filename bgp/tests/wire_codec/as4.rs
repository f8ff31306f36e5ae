//! 4-octet AS numbers through 2-octet peers (RFC 6793), as tables.

use bgp::wire::{AsPath, Message, Prefix, SegmentKind, WireOptions};

use crate::hex;

const TWO_OCTET: WireOptions = WireOptions {
    four_octet_as: false,
    allow_as_set: true,
    ..WireOptions::BEFORE_OPEN
};

/// `1 2 {3,4}`, as [`AsPath`] prints it.
fn path(text: &str) -> AsPath {
    let mut segments: Vec<(SegmentKind, Vec<u32>)> = Vec::new();
    let number = |text: &str| text.parse::<u32>().expect("AS number");
    for word in text.split_whitespace() {
        match word.strip_prefix('{') {
            Some(set) => {
                let set = set.trim_end_matches('}').split(',').map(number).collect();
                segments.push((SegmentKind::Set, set));
            }
            None => match segments.last_mut() {
                Some((SegmentKind::Sequence, sequence)) => sequence.push(number(word)),
                _ => segments.push((SegmentKind::Sequence, vec![number(word)])),
            },
        }
    }
    AsPath::from_segments(segments.iter().map(|(kind, asns)| (*kind, asns.as_slice())))
}

fn segments(path: &AsPath, octets_of_as: usize) -> Vec<u8> {
    let mut octets = Vec::new();
    for segment in path.segments() {
        octets.extend([
            segment.kind() as u8,
            u8::try_from(segment.len()).expect("short"),
        ]);
        for asn in segment.asns() {
            octets.extend(&asn.to_be_bytes()[4 - octets_of_as..]);
        }
    }
    octets
}

fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    [
        &[flags, code, u8::try_from(value.len()).expect("short")],
        value,
    ]
    .concat()
}

/// What a 2-octet peer's AS_PATH, AS4_PATH, AGGREGATOR and AS4_AGGREGATOR are read as.
fn read(
    as_path: &str,
    as4_path: Option<&str>,
    aggregator: Option<u32>,
    as4_aggregator: Option<u32>,
) -> (String, Option<u32>) {
    let mut list = hex::octets("40 01 01 00 40 03 04 0a000001");
    list.extend(attribute(0x40, 2, &segments(&path(as_path), 2)));
    let router_id = [10, 0, 0, 2];
    if let Some(asn) = aggregator {
        list.extend(attribute(
            0xc0,
            7,
            &[&asn.to_be_bytes()[2..], &router_id].concat(),
        ));
    }
    if let Some(as4_path) = as4_path {
        list.extend(attribute(0xc0, 17, &segments(&path(as4_path), 4)));
    }
    if let Some(asn) = as4_aggregator {
        list.extend(attribute(
            0xc0,
            18,
            &[&asn.to_be_bytes()[..], &router_id].concat(),
        ));
    }
    let message = hex::message(2, &hex::update_body(&[], &list, &[8, 10]));
    let decoded = Message::decode(&message, &TWO_OCTET).expect("valid");
    assert_eq!(decoded.findings, [], "{as_path} {as4_path:?}");
    let Message::Update(update) = decoded.message else {
        panic!("no UPDATE")
    };
    let read = update.attributes.as_path.expect("an AS_PATH").to_string();
    (
        read,
        update
            .attributes
            .aggregator
            .map(|aggregator| aggregator.asn),
    )
}

#[test]
fn as4_path_replaces_the_tail_of_as_path() {
    // AS_PATH, AS4_PATH, read as
    let rows = [
        ("65001 65002", None, "65001 65002"),
        ("23456 65002", None, "23456 65002"),
        ("23456 65002", Some("70000 65002"), "70000 65002"),
        (
            "65010 23456 65002",
            Some("70000 65002"),
            "65010 70000 65002",
        ),
        ("65010 65011 23456", Some("70000"), "65010 65011 70000"),
        // An old speaker on the way aggregated: a set counts as one.
        (
            "65010 {23456,65002}",
            Some("{70000,65002}"),
            "65010 {70000,65002}",
        ),
        ("{65010,65011} 23456", Some("70000"), "{65010,65011} 70000"),
        (
            "65010 {1,2} 23456 65002",
            Some("70000 65002"),
            "65010 {1,2} 70000 65002",
        ),
        (
            "65010 23456 {1,2}",
            Some("70000 {1,2}"),
            "65010 70000 {1,2}",
        ),
        // Shorter than the AS4_PATH: that one is not to be trusted.
        ("65010", Some("70000 65002"), "65010"),
        ("{1,2,3}", Some("70000 65002"), "{1,2,3}"),
        ("", Some("70000"), ""),
    ];
    for (as_path, as4_path, expected) in rows {
        let (read, _) = read(as_path, as4_path, None, None);
        assert_eq!(read, expected, "{as_path:?} with {as4_path:?}");
    }
}

#[test]
fn as4_aggregator_counts_only_beside_as_trans() {
    // AGGREGATOR, AS4_AGGREGATOR, read as: path, aggregator
    let rows = [
        (None, None, "70000", None),
        (Some(65001), None, "70000", Some(65001)),
        (Some(23456), None, "70000", Some(23456)),
        (Some(23456), Some(80000), "70000", Some(80000)),
        // Aggregated anew by an old speaker, who knew neither attribute.
        (Some(65001), Some(80000), "23456", Some(65001)),
        (None, Some(80000), "70000", None),
    ];
    for (aggregator, as4_aggregator, expected_path, expected) in rows {
        let read = read("23456", Some("70000"), aggregator, as4_aggregator);
        assert_eq!(
            read,
            (expected_path.to_owned(), expected),
            "{aggregator:?} with {as4_aggregator:?}"
        );
    }
}

#[test]
fn confederation_segments_of_an_as4_path_are_left_out() {
    let list = hex::octets(
        "40 01 01 00 40 03 04 0a000001 40 02 06 02 02 fde9 5ba0
         c0 11 10 03 01 00000009 02 02 0000fde9 00011170",
    );
    let message = hex::message(2, &hex::update_body(&[], &list, &[8, 10]));
    let decoded = Message::decode(&message, &TWO_OCTET).expect("valid");
    assert_eq!(decoded.findings, []);
    let Message::Update(update) = decoded.message else {
        panic!("no UPDATE")
    };
    assert_eq!(update.attributes.as_path, Some(path("65001 70000")));
}

#[test]
fn old_peers_get_as4_attributes_only_when_needed() {
    use bgp::wire::{Aggregator, Attributes, Origin, Update};
    // path, aggregator, codes 17 and 18 sent
    let rows = [
        ("65001", None, false, false),
        ("65001", Some(65001), false, false),
        ("65001 65536", None, true, false),
        ("{65001,65536}", Some(65535), true, false),
        ("65001", Some(65536), false, true),
        ("4200000000", Some(4_200_000_000), true, true),
    ];
    for (as_path, aggregator, with_path, with_aggregator) in rows {
        let update = Update {
            attributes: Attributes {
                origin: Some(Origin::Igp),
                as_path: Some(path(as_path)),
                next_hop: Some([10, 0, 0, 1].into()),
                aggregator: aggregator.map(|asn| Aggregator {
                    asn,
                    router_id: [10, 0, 0, 2].into(),
                }),
                ..Attributes::default()
            },
            nlri: vec![Prefix::into("10.0.0.0/8".parse().expect("prefix"))],
            ..Update::default()
        };
        let message = Message::Update(update);
        for four_octet_as in [false, true] {
            let options = WireOptions {
                four_octet_as,
                ..TWO_OCTET
            };
            let octets = message.to_bytes(&options).expect("fits");
            let has = |code: u8| octets.windows(2).any(|pair| pair == [0xc0, code]);
            let expected = (
                with_path && !four_octet_as,
                with_aggregator && !four_octet_as,
            );
            assert_eq!(
                (has(17), has(18)),
                expected,
                "{as_path} {aggregator:?} {options:?}"
            );
            let decoded = Message::decode(&octets, &options).expect("valid");
            assert_eq!(
                decoded.message, message,
                "{as_path} {aggregator:?} {options:?}"
            );
        }
    }
}
