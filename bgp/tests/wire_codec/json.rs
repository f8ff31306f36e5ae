//! Messages as JSON: the shape that `ccn decode` promises, and an answer to whatever octets.

use bgp::mrt::json::RecordView;
use bgp::mrt::{Body, Record, Rib, RibEntry, Session, SessionMessage, Timestamp};
use bgp::wire::json::Report;
use bgp::wire::{FamilySet, WireOptions};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{generate, hex};

const EXTERNAL: WireOptions = WireOptions {
    four_octet_as: true,
    ..WireOptions::BEFORE_OPEN
};
const INTERNAL: WireOptions = WireOptions {
    internal: true,
    allow_as_set: true,
    ..EXTERNAL
};
const ADD_PATH: WireOptions = WireOptions {
    add_path_receive: FamilySet::all(),
    ..EXTERNAL
};

fn report(octets: &[u8], options: &WireOptions) -> Value {
    serde_json::to_value(Report::of(octets, options)).expect("JSON")
}

fn update(body: &[u8], options: &WireOptions) -> Value {
    report(&hex::message(2, body), options)
}

#[test]
fn every_field_of_an_update() {
    let list = hex::octets(
        "80 0f 0c 0002 01 20 20010db8 18 fd0000
         80 0e 2c 0002 01 20 20010db8000000000000000000000001 fe800000000000000000000000000001 00
            30 20010db80001
         40 01 01 02 40 02 0c 02 01 0000fde9 01 01 0000fdea 40 03 04 0a000001
         80 04 04 00000064 40 05 04 000000c8 40 06 00
         c0 07 08 0000fde9 0a000002
         c0 08 08 fde90064 ffffff01
         80 09 04 0a000003
         80 0a 04 0a000004
         c0 10 08 0002fde900000007
         c0 20 0c 000000010000000200000003
         c0 23 04 0000fde9
         e0 63 02 beef",
    );
    let body = hex::update_body(&[24, 10, 1, 2], &list, &[8, 10]);
    assert_eq!(
        update(&body, &INTERNAL),
        json!({
            "verdict": "accept",
            "type": "update",
            "message": {
                "withdrawn": ["10.1.2.0/24"],
                "attributes": {
                    "origin": "incomplete",
                    "as_path": "65001 {65002}",
                    "next_hop": "10.0.0.1",
                    "med": 100,
                    "local_pref": 200,
                    "atomic_aggregate": true,
                    "aggregator": { "asn": 65001, "router_id": "10.0.0.2" },
                    "communities": ["65001:100", "no-export"],
                    "ext_communities": ["rt:65001:7"],
                    "large_communities": ["1:2:3"],
                    "otc": 65001,
                    "originator_id": "10.0.0.3",
                    "cluster_list": ["10.0.0.4"],
                    "unknown": [{ "code": 99, "flags": 224, "value": "beef" }],
                },
                "nlri": ["10.0.0.0/8"],
                "mp_reach": {
                    "afi": 2, "safi": 1, "family": "ipv6",
                    "next_hop": "2001:db8::1", "link_local": "fe80::1",
                    "nlri": ["2001:db8:1::/48"],
                },
                "mp_unreach": {
                    "afi": 2, "safi": 1, "family": "ipv6",
                    "nlri": ["2001:db8::/32", "fd00::/24"],
                },
            },
            "errors": [],
        })
    );
}

#[test]
fn what_is_not_known_is_shown_as_octets() {
    let list = hex::octets(
        "80 0e 0b 4004 47 04 0a000001 00 abcd
         40 01 01 00 40 02 06 02 01 0000fde9",
    );
    let answer = update(&hex::update_body(&[], &list, &[]), &EXTERNAL);
    assert_eq!(answer["verdict"], "accept");
    assert_eq!(
        answer["message"]["mp_reach"],
        json!({ "afi": 16388, "safi": 71, "next_hop": "0a000001", "nlri": "abcd" })
    );
    let end = update(&hex::octets("0000 0006 80 0f 03 0002 01"), &EXTERNAL);
    assert_eq!(
        end["message"]["end_of_rib"],
        json!({ "afi": 2, "safi": 1, "family": "ipv6" })
    );
}

#[test]
fn path_identifiers_stand_beside_their_prefixes() {
    let body = hex::octets("0006 00000007 08 0a 0000");
    assert_eq!(
        update(&body, &ADD_PATH)["message"]["withdrawn"],
        json!([{ "prefix": "10.0.0.0/8", "path_id": 7 }])
    );
}

/// Each verdict, with the attribute, reason and the NOTIFICATION's codes.
#[test]
fn errors_are_named() {
    let mandatory = "40 02 06 02 01 0000fde9 40 03 04 0a000001";
    let fault =
        |attribute: &str, reason: &str, verdict: &str, code: u8, subcode: u8, data: &str| {
            json!({
                "attribute": attribute, "reason": reason, "verdict": verdict,
                "code": code, "subcode": subcode, "data": data,
            })
        };
    let rows = [
        (
            "attribute-discard",
            "40 01 01 00 40 06 01 ff",
            fault(
                "ATOMIC_AGGREGATE",
                "length 1 does not fit the type",
                "attribute-discard",
                3,
                5,
                "400601ff",
            ),
        ),
        (
            "treat-as-withdraw",
            "40 01 01 03",
            fault(
                "ORIGIN",
                "value 3 is undefined",
                "treat-as-withdraw",
                3,
                6,
                "40010103",
            ),
        ),
        (
            "afi-safi-disable",
            "40 01 01 00 80 0f 04 000201 08",
            fault(
                "MP_UNREACH_NLRI",
                "prefix of length 8 exceeds the field",
                "afi-safi-disable",
                3,
                9,
                "800f0400020108",
            ),
        ),
        (
            "session-reset",
            "40 01 01 00 40 63 00",
            fault(
                "attribute 99",
                "unknown, but flagged as well-known",
                "session-reset",
                3,
                2,
                "406300",
            ),
        ),
    ];
    for (verdict, list, expected) in rows {
        let list = hex::octets(&format!("{list} {mandatory}"));
        let answer = update(&hex::update_body(&[], &list, &[8, 10]), &EXTERNAL);
        assert_eq!(answer["verdict"], verdict);
        assert_eq!(answer["type"], "update");
        assert_eq!(answer["errors"], json!([expected]));
        assert_eq!(answer["message"].is_null(), verdict == "session-reset");
    }
}

#[test]
fn errors_of_header_and_open_are_named() {
    let ff = "ff".repeat(16);
    let rows = [
        (
            format!("{}00 0013 04", "ff".repeat(15)),
            Value::from("keepalive"),
            1,
            1,
        ),
        (format!("{ff} 1001 02"), "update".into(), 1, 2),
        (format!("{ff} 0013 09"), Value::Null, 1, 3),
        (
            format!("{ff} 001d 01 04 fde9 0001 0a000001 00"),
            "open".into(),
            2,
            6,
        ),
    ];
    for (text, kind, code, subcode) in rows {
        let answer = report(&hex::octets(&text), &EXTERNAL);
        assert_eq!(answer["verdict"], "session-reset", "{answer}");
        assert_eq!(answer["type"], kind, "{answer}");
        let error = &answer["errors"][0];
        assert_eq!(
            (&error["code"], &error["subcode"]),
            (&json!(code), &json!(subcode))
        );
        assert!(error["attribute"].is_null() && error["reason"].is_string());
    }
}

#[test]
fn too_few_and_too_many_octets() {
    let whole = hex::message(4, &[]);
    for have in 0..whole.len() {
        let answer = report(&whole[..have], &EXTERNAL);
        assert_eq!(answer["verdict"], "incomplete", "{have}");
        assert!(answer["message"].is_null() && answer["errors"][0]["code"].is_null());
    }
    let cut = &hex::message(2, &[0; 4])[..20];
    assert_eq!(report(cut, &EXTERNAL)["type"], "update");
    let longer = [&whole[..], &[1, 2, 3]].concat();
    let answer = report(&longer, &EXTERNAL);
    assert_eq!(answer["verdict"], "accept");
    assert_eq!(answer["trailing_octets"], 3);
}

#[test]
fn the_other_messages() {
    let open = "04 5ba0 00b4 0a000001 28 02 26
        01 04 0002 00 01 02 00 05 06 0001 0001 0002 06 00 09 01 03
        45 04 0001 01 03 46 00 49 01 61 41 04 000f4240";
    let answer = report(&hex::message(1, &hex::octets(open)), &EXTERNAL);
    assert_eq!(
        answer["message"],
        json!({
            "version": 4, "my_as": 23456, "asn": 1_000_000, "hold_time": 180, "router_id": "10.0.0.1",
            "capabilities": [
                { "code": 1, "name": "multiprotocol", "afi": 2, "safi": 1, "family": "ipv6" },
                { "code": 2, "name": "route-refresh" },
                { "code": 5, "name": "extended-next-hop", "families": [
                    { "afi": 1, "safi": 1, "family": "ipv4", "next_hop_afi": 2 },
                ] },
                { "code": 6, "name": "extended-messages" },
                { "code": 9, "name": "role", "value": 3, "role": "customer" },
                { "code": 69, "name": "add-path", "families": [
                    { "afi": 1, "safi": 1, "family": "ipv4", "send": true, "receive": true },
                ] },
                { "code": 70, "name": "enhanced-refresh" },
                { "code": 73, "name": "unknown", "value": "61" },
                { "code": 65, "name": "four-octet-as", "asn": 1_000_000 },
            ],
        }),
        "{answer}"
    );
    let cease = report(&hex::message(3, b"\x06\x02\x03bye"), &EXTERNAL);
    assert_eq!(
        cease["message"],
        json!({
            "code": 6, "subcode": 2, "name": "cease: administrative shutdown", "text": "bye",
            "data": "03627965",
        })
    );
    let refresh = report(&hex::message(5, &[0, 1, 1, 1]), &EXTERNAL);
    assert_eq!(
        refresh["message"],
        json!({ "afi": 1, "safi": 1, "family": "ipv4", "subtype": 1, "name": "begin" })
    );
}

#[test]
fn records_of_mrt_files() {
    let time = Timestamp {
        seconds: 9,
        microseconds: Some(500_000),
    };
    let message = Record {
        time,
        body: Body::Message(SessionMessage {
            session: Session {
                peer_as: 65002,
                local_as: 65001,
                interface: 0,
                peer: "10.0.0.2".parse().expect("address"),
                local: "10.0.0.1".parse().expect("address"),
            },
            four_octet_as: true,
            sent: false,
            add_path: false,
            octets: hex::message(4, &[]).into(),
        }),
    };
    assert_eq!(
        serde_json::to_value(RecordView(&message)).expect("JSON"),
        json!({
            "time": 9, "microseconds": 500_000, "record": "message",
            "peer": "10.0.0.2", "peer_as": 65002, "local": "10.0.0.1", "local_as": 65001,
            "interface": 0, "as4": true, "add_path": false, "sent": false,
            "verdict": "accept", "type": "keepalive", "message": {}, "errors": [],
        })
    );
    let entry = |attributes: &str| RibEntry {
        peer: 3,
        originated: 7,
        path_id: 0,
        attributes: Bytes::from(hex::octets(attributes)),
    };
    let rib = Record {
        time: Timestamp::seconds(9),
        body: Body::Rib(Rib {
            sequence: 1,
            prefix: "2001:db8::/32".parse().expect("prefix"),
            add_path: false,
            entries: vec![
                entry(
                    "40 01 01 00 40 02 06 02 01 0000fdea 80 0e 11 10 20010db8000000000000000000000001",
                ),
                entry("40 63 00"),
            ],
        }),
    };
    let rib = serde_json::to_value(RecordView(&rib)).expect("JSON");
    assert_eq!(
        rib["entries"][0],
        json!({
            "peer": 3, "originated": 7, "verdict": "accept", "next_hop": "2001:db8::1",
            "attributes": { "origin": "igp", "as_path": "65002" }, "errors": [],
        })
    );
    assert_eq!(rib["entries"][1]["verdict"], "session-reset");
    assert_eq!(
        (&rib["record"], &rib["prefix"]),
        (&json!("rib"), &json!("2001:db8::/32"))
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_octets_there_is_an_answer(
        options in generate::any_options(),
        octets in vec(any::<u8>(), 0..200),
        kind in 0..7_u8,
        headed in any::<bool>(),
    ) {
        let octets = if headed { hex::message(kind, &octets) } else { octets };
        let answer = report(&octets, &options);
        let verdicts = [
            "accept", "attribute-discard", "treat-as-withdraw", "afi-safi-disable", "session-reset",
            "incomplete",
        ];
        let verdict = answer["verdict"].as_str().expect("a verdict");
        prop_assert!(verdicts.contains(&verdict));
        let errors = answer["errors"].as_array().expect("errors").len();
        prop_assert_eq!(errors == 0, verdict == "accept");
        let there = !matches!(verdict, "session-reset" | "incomplete");
        prop_assert_eq!(answer["message"].is_object(), there);
    }

    #[test]
    fn what_we_write_is_accepted(
        (options, message) in generate::options()
            .prop_flat_map(|options| (Just(options), generate::message(options))),
    ) {
        let octets = message.to_bytes(&options).expect("fits");
        let answer = report(&octets, &options);
        prop_assert_eq!(&answer["verdict"], "accept", "{}", answer);
        prop_assert!(answer["message"].is_object());
    }
}
