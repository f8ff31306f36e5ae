//! Octets beside the struct they mean: written and read, and read from forms that we do not write.

use std::net::Ipv4Addr;

use bgp::wire::{
    AfiSafi, Attributes, Capability, Family, Message, MpReach, MpUnreach, NextHop, Open, Update,
};

use crate::hex;
use crate::table::{FOUR_OCTET, Vector, attributes, prefixes, vectors};

#[test]
fn octets_and_structs_agree_both_ways() {
    for Vector {
        name,
        options,
        kind,
        body,
        message,
    } in vectors()
    {
        let octets = hex::message(kind, &hex::octets(body));
        let written = message
            .to_bytes(&options)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(hex::show(&written), hex::show(&octets), "{name}: written");
        let decoded =
            Message::decode(&octets, &options).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(decoded.message, message, "{name}: read");
        assert_eq!(decoded.findings, [], "{name}: findings");
    }
}

/// Forms a peer may use that we write otherwise.
#[test]
fn other_forms_of_the_same_message_are_read() {
    let open = |capabilities| {
        Message::Open(Open {
            my_as: 65001,
            hold_time: 9,
            router_id: Ipv4Addr::new(10, 0, 0, 1),
            capabilities,
        })
    };
    let both = vec![Capability::RouteRefresh, Capability::FourOctetAs(65001)];
    let long = vec![Capability::Unknown {
        code: 200,
        value: [7; 255].into(),
    }];
    let long_hex = |before: &str| format!("{before} c8 ff {}", "07".repeat(255));
    let announcement = |nlri: &[&str]| {
        Message::Update(Update {
            attributes: Attributes {
                next_hop: Some(Ipv4Addr::new(10, 0, 0, 1)),
                ..attributes(&[65001])
            },
            nlri: prefixes(nlri),
            ..Update::default()
        })
    };
    let head = "04 fde9 0009 0a000001";
    let rows: Vec<(&str, u8, String, Message)> = vec![
        (
            "one capability a parameter",
            1,
            format!("{head} 0c 02 02 02 00 02 06 41 04 0000fde9"),
            open(both.clone()),
        ),
        (
            "an empty capabilities parameter",
            1,
            format!("{head} 0c 02 00 02 08 02 00 41 04 0000fde9"),
            open(both.clone()),
        ),
        (
            "extended parameters (RFC 9072) that would have fit the classic form",
            1,
            format!("{head} ff ff 000b 02 0008 02 00 41 04 0000fde9"),
            open(both.clone()),
        ),
        (
            "extended parameters with another classic length",
            1,
            format!("{head} 01 ff 000b 02 0008 02 00 41 04 0000fde9"),
            open(both),
        ),
        (
            "extended parameters of more than 255 octets",
            1,
            long_hex(&format!("{head} ff ff 0104 02 0101")),
            open(long),
        ),
        (
            "host bits in NLRI are cleared",
            2,
            "0000 0014 40 01 01 00 40 02 06 02 01 0000fde9 40 03 04 0a000001 14 0a01ff".into(),
            announcement(&["10.1.240.0/20"]),
        ),
        (
            "attributes in any order, extended length, lower flag bits set",
            2,
            "0000 0015 4f 03 04 0a000001 50 02 0006 02 01 0000fde9 40 01 01 00 08 0a".into(),
            announcement(&["10.0.0.0/8"]),
        ),
        (
            "NEXT_HOP beside MP_REACH_NLRI alone is ignored",
            2,
            "0000 0030 40 01 01 00 40 02 06 02 01 0000fde9 40 03 04 00000000
             80 0e 19 0002 01 10 20010db8000000000000000000000001 ff 18 20010d"
                .into(),
            Message::Update(Update {
                attributes: attributes(&[65001]),
                mp_reach: Some(MpReach::Unicast {
                    family: Family::Ipv6Unicast,
                    next_hop: NextHop::V6("2001:db8::1".parse().expect("address")),
                    nlri: prefixes(&["2001:d00::/24"]),
                }),
                ..Update::default()
            }),
        ),
        (
            "IPv4 in MP_REACH_NLRI",
            2,
            "0000 001b 80 0e 0b 0001 01 04 0a000001 00 08 0a
             40 01 01 00 40 02 06 02 01 0000fde9"
                .into(),
            Message::Update(Update {
                attributes: attributes(&[65001]),
                mp_reach: Some(MpReach::Unicast {
                    family: Family::Ipv4Unicast,
                    next_hop: NextHop::V4(Ipv4Addr::new(10, 0, 0, 1)),
                    nlri: prefixes(&["10.0.0.0/8"]),
                }),
                ..Update::default()
            }),
        ),
    ];
    for (name, kind, body, message) in rows {
        let octets = hex::message(kind, &hex::octets(&body));
        let decoded =
            Message::decode(&octets, &FOUR_OCTET).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(decoded.message, message, "{name}");
        assert_eq!(decoded.findings, [], "{name}");
    }
}

#[test]
fn more_capabilities_than_255_octets_take_the_extended_form() {
    let capabilities = vec![
        Capability::Unknown {
            code: 200,
            value: [7; 255].into(),
        },
        Capability::Unknown {
            code: 201,
            value: [8; 255].into(),
        },
    ];
    let open = Open::new(65001, 9, Ipv4Addr::new(10, 0, 0, 1), capabilities);
    let message = Message::Open(open);
    let octets = message.to_bytes(&FOUR_OCTET).expect("fits");
    assert_eq!(hex::show(&octets[28..36]), "ffff020b020208c8");
    assert_eq!(
        Message::decode(&octets, &FOUR_OCTET)
            .expect("valid")
            .message,
        message
    );
}

#[test]
fn the_as_number_of_the_capability_counts() {
    let router_id = Ipv4Addr::new(10, 0, 0, 1);
    for (asn, my_as) in [
        (65001, 65001),
        (65535, 65535),
        (65536, 23456),
        (4_200_000_000, 23456),
    ] {
        let open = Open::new(asn, 9, router_id, Vec::new());
        assert_eq!((open.asn(), open.my_as), (asn, my_as));
    }
    let old = Open {
        my_as: 65001,
        hold_time: 9,
        router_id,
        capabilities: Vec::new(),
    };
    assert_eq!(old.asn(), 65001);
    assert_eq!(old.families(), [Family::Ipv4Unicast]);
}

#[test]
fn end_of_rib_is_recognised_and_nothing_else_is() {
    for family in Family::ALL {
        assert_eq!(
            Update::end_of_rib(family).end_of_rib_family(),
            Some(family.into())
        );
    }
    let other = AfiSafi { afi: 25, safi: 70 };
    let of_other = Update {
        mp_unreach: Some(MpUnreach::Other {
            family: other,
            nlri: [].into(),
        }),
        ..Update::default()
    };
    assert_eq!(of_other.end_of_rib_family(), Some(other));
    let withdraws = Update {
        withdrawn: prefixes(&["10.0.0.0/8"]),
        ..Update::default()
    };
    let announces = Update {
        attributes: attributes(&[1]),
        mp_reach: Some(MpReach::Unicast {
            family: Family::Ipv6Unicast,
            next_hop: NextHop::V6("::1".parse().expect("address")),
            nlri: Vec::new(),
        }),
        ..Update::default()
    };
    let attributes_only = Update {
        attributes: attributes(&[1]),
        ..Update::default()
    };
    for update in [withdraws, announces, attributes_only] {
        assert_eq!(update.end_of_rib_family(), None, "{update:?}");
    }
}
