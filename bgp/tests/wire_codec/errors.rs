//! Every error of RFC 4271 section 6 with the NOTIFICATION it sends, and for those of an UPDATE
//! the action of RFC 7606.

use bgp::wire::error::{Place, Reason};
use bgp::wire::{
    AfiSafi, AttributeCode, AttributeFlags, Decoded, Finding, Message, Notification, Verdict,
    WireError, WireOptions, frame,
};
use bytes::BytesMut;

use crate::hex;

const EXTERNAL: WireOptions = WireOptions {
    four_octet_as: true,
    ..WireOptions::BEFORE_OPEN
};
const INTERNAL: WireOptions = WireOptions {
    internal: true,
    ..EXTERNAL
};
const TWO_OCTET: WireOptions = WireOptions {
    four_octet_as: false,
    ..EXTERNAL
};

fn notification(code: u8, subcode: u8, data: &str) -> Notification {
    Notification::with_data(code, subcode, &hex::octets(data))
}

fn show(notification: &Notification) -> String {
    format!(
        "{}/{} {}",
        notification.code,
        notification.subcode,
        hex::show(&notification.data)
    )
}

/// Both the frame splitter and the decoder must find the error.
#[test]
fn header_errors() {
    let ff = "ffffffffffffffffffffffffffffffff";
    // name, octets, subcode, data
    let rows = [
        (
            "marker, first octet",
            "00ffffffffffffffffffffffffffffff 0013 04".to_owned(),
            1,
            "",
        ),
        (
            "marker, last octet",
            "fffffffffffffffffffffffffffffffe 0013 04".to_owned(),
            1,
            "",
        ),
        ("length 0", format!("{ff} 0000 04"), 2, "0000"),
        ("length 18", format!("{ff} 0012 04"), 2, "0012"),
        ("length 4097", format!("{ff} 1001 02"), 2, "1001"),
        ("length 65535", format!("{ff} ffff 02"), 2, "ffff"),
        ("OPEN of 28", format!("{ff} 001c 01"), 2, "001c"),
        ("UPDATE of 22", format!("{ff} 0016 02"), 2, "0016"),
        ("NOTIFICATION of 20", format!("{ff} 0014 03"), 2, "0014"),
        ("KEEPALIVE of 20", format!("{ff} 0014 04 00"), 2, "0014"),
        ("ROUTE-REFRESH of 22", format!("{ff} 0016 05"), 2, "0016"),
        ("ROUTE-REFRESH of 24", format!("{ff} 0018 05"), 2, "0018"),
        ("type 0", format!("{ff} 0013 00"), 3, "00"),
        ("type 6", format!("{ff} 0013 06"), 3, "06"),
        ("type 255", format!("{ff} 1000 ff"), 3, "ff"),
        ("length before type", format!("{ff} 0001 ff"), 2, "0001"),
    ];
    for (name, text, subcode, data) in rows {
        let octets = hex::octets(&text);
        let expected = notification(1, subcode, data);
        let mut stream = BytesMut::from(&octets[..]);
        let error = frame::split(&mut stream, &EXTERNAL).expect_err(name);
        assert_eq!(
            show(&error.notification()),
            show(&expected),
            "{name}: split"
        );
        let error = Message::decode(&octets, &EXTERNAL).expect_err(name);
        assert!(matches!(error, WireError::Header(_)), "{name}: {error}");
        assert_eq!(
            show(&error.notification()),
            show(&expected),
            "{name}: decode"
        );
    }
}

#[test]
fn a_wrong_marker_is_told_before_the_header_is_complete() {
    for have in 1..=19 {
        let mut stream = BytesMut::from(&vec![0xff; have - 1][..]);
        stream.extend([0xfe]);
        let split = frame::split(&mut stream, &EXTERNAL);
        match have {
            ..=16 => assert!(split.is_err(), "{have} octets"),
            17..19 => assert_eq!(split, Ok(None), "{have} octets"),
            // A length of ffff.
            _ => assert!(split.is_err(), "{have} octets"),
        }
    }
}

#[test]
fn extended_messages_lift_the_limit_for_all_but_open_and_keepalive() {
    let extended = WireOptions {
        extended_messages: true,
        ..EXTERNAL
    };
    let header = |length: u16, kind: u8| {
        let mut octets = vec![0xff; 16];
        octets.extend(length.to_be_bytes());
        octets.push(kind);
        BytesMut::from(&octets[..])
    };
    for (kind, length, fine) in [
        (1, 4096, true),
        (1, 4097, false),
        (2, 4097, true),
        (2, 65535, true),
        (3, 65535, true),
        (4, 4097, false),
    ] {
        let split = frame::split(&mut header(length, kind), &extended);
        assert_eq!(split.is_ok(), fine, "type {kind} of {length} octets");
    }
}

#[test]
fn a_message_of_another_length_than_its_header_says_is_refused() {
    let octets = hex::message(4, &[]);
    for have in 0..octets.len() {
        let error = Message::decode(&octets[..have], &EXTERNAL).expect_err("incomplete");
        assert!(
            matches!(error, WireError::Header(_)),
            "{have} octets: {error}"
        );
    }
    let mut longer = octets;
    longer.push(0);
    assert!(Message::decode(&longer, &EXTERNAL).is_err());
}

#[test]
fn open_errors() {
    // name, body, subcode, data
    let rows = [
        ("version 3", "03 fde9 0009 0a000001 00", 1, "0004"),
        (
            "version 5, rest is nonsense",
            "05 0000 0001 00000000 ff",
            1,
            "0004",
        ),
        ("AS 0", "04 0000 0009 0a000001 00", 2, ""),
        (
            "AS 0 in the capability",
            "04 fde9 0009 0a000001 08 02 06 41 04 00000000",
            2,
            "",
        ),
        ("identifier 0", "04 fde9 0009 00000000 00", 3, ""),
        (
            "parameter 1 (authentication)",
            "04 fde9 0009 0a000001 03 01 01 00",
            4,
            "",
        ),
        ("parameter 3", "04 fde9 0009 0a000001 02 03 00", 4, ""),
        (
            "extended parameter 254",
            "04 fde9 0009 0a000001 ff ff 0003 fe 0000",
            4,
            "",
        ),
        ("hold time 1", "04 fde9 0001 0a000001 00", 6, ""),
        ("hold time 2", "04 fde9 0002 0a000001 00", 6, ""),
        (
            "parameters shorter than the message",
            "04 fde9 0009 0a000001 00 02 00",
            0,
            "",
        ),
        (
            "parameters longer than the message",
            "04 fde9 0009 0a000001 04 02 00",
            0,
            "",
        ),
        (
            "a parameter without a length",
            "04 fde9 0009 0a000001 01 02",
            0,
            "",
        ),
        (
            "a parameter beyond the parameters",
            "04 fde9 0009 0a000001 02 02 01",
            0,
            "",
        ),
        (
            "a capability without a length",
            "04 fde9 0009 0a000001 03 02 01 02",
            0,
            "",
        ),
        (
            "a capability beyond its parameter",
            "04 fde9 0009 0a000001 04 02 02 41 04",
            0,
            "",
        ),
        (
            "extended parameters, length missing",
            "04 fde9 0009 0a000001 ff ff 00",
            0,
            "",
        ),
        (
            "extended parameters too short",
            "04 fde9 0009 0a000001 ff ff 0000 02",
            0,
            "",
        ),
        (
            "extended parameters too long",
            "04 fde9 0009 0a000001 ff ff 0004 02 0000",
            0,
            "",
        ),
        (
            "multiprotocol of 3 octets",
            "04 fde9 0009 0a000001 07 02 05 01 03 000100",
            0,
            "",
        ),
        (
            "route refresh of 1 octet",
            "04 fde9 0009 0a000001 05 02 03 02 01 00",
            0,
            "",
        ),
        (
            "4-octet AS of 2 octets",
            "04 fde9 0009 0a000001 06 02 04 41 02 fde9",
            0,
            "",
        ),
        (
            "graceful restart of 1 octet",
            "04 fde9 0009 0a000001 05 02 03 40 01 00",
            0,
            "",
        ),
        (
            "graceful restart of 5 octets",
            "04 fde9 0009 0a000001 09 02 07 40 05 0078000101",
            0,
            "",
        ),
    ];
    for (name, body, subcode, data) in rows {
        let octets = hex::message(1, &hex::octets(body));
        let error = Message::decode(&octets, &EXTERNAL).expect_err(name);
        assert!(matches!(error, WireError::Open(_)), "{name}: {error}");
        assert_eq!(
            show(&error.notification()),
            show(&notification(2, subcode, data)),
            "{name}"
        );
    }
}

/// Errors that only the session can tell, given the configuration.
#[test]
fn open_errors_of_the_session() {
    use bgp::wire::{Capability, Family, OpenError};
    let missing = vec![
        Capability::multiprotocol(Family::Ipv6Unicast),
        Capability::FourOctetAs(65001),
    ];
    let rows = [
        (
            OpenError::PeerAs {
                expected: 1,
                received: 2,
            },
            "2/2 ",
        ),
        (OpenError::Identifier([10, 0, 0, 1].into()), "2/3 "),
        (OpenError::HoldTime(5), "2/6 "),
        (
            OpenError::MissingCapabilities(missing),
            "2/7 01040002000141040000fde9",
        ),
    ];
    for (error, expected) in rows {
        assert_eq!(show(&error.notification()), expected, "{error}");
    }
}

/// An UPDATE that is wrong in one way.
struct Row {
    name: &'static str,
    options: WireOptions,
    body: Vec<u8>,
    place: Place,
    verdict: Verdict,
    /// RFC 4271's code 3 subcode and data.
    subcode: u8,
    data: &'static str,
}

const ORIGIN: &str = "40 01 01 00";
const AS_PATH: &str = "40 02 06 02 01 0000fde9";
const NEXT_HOP: &str = "40 03 04 0a000001";
const REACH_V6: &str = "80 0e 19 0002 01 10 20010db8000000000000000000000001 00 18 20010d";

/// An UPDATE with these attributes and one IPv4 route.
fn announcing(attributes: &[&str]) -> Vec<u8> {
    hex::update_body(&[], &hex::octets(&attributes.concat()), &[8, 10])
}

/// An UPDATE with these attributes and no route of its own.
fn bare(attributes: &[&str]) -> Vec<u8> {
    hex::update_body(&[], &hex::octets(&attributes.concat()), &[])
}

// One line a row reads as the table it is.
#[rustfmt::skip]
fn update_rows() -> Vec<Row> {
    use AttributeCode as Code;
    use Verdict::{AfiSafiDisable, AttributeDiscard, SessionReset, TreatAsWithdraw};
    let ipv6 = AfiSafi { afi: 2, safi: 1 };
    let ipv4 = AfiSafi { afi: 1, safi: 1 };
    let unknown_family = AfiSafi { afi: 25, safi: 70 };
    let mut rows = Vec::new();
    let mut row = |name, options, body, place, verdict, subcode, data| {
        rows.push(Row { name, options, body, place, verdict, subcode, data });
    };

    // Lengths of the message (RFC 4271 section 6.3, first paragraph).
    let raw = |text: &str| hex::octets(text);
    row("withdrawn length too large", EXTERNAL, raw("0001 0000"), Place::Lengths, SessionReset, 1, "");
    row("withdrawn length leaves 1 octet", EXTERNAL, raw("0001 00 00"), Place::Lengths, SessionReset, 1, "");
    row("attribute length too large", EXTERNAL, raw("0000 0001"), Place::Lengths, SessionReset, 1, "");
    row("attribute length 65535", EXTERNAL, raw("0000 ffff 40"), Place::Lengths, SessionReset, 1, "");

    // Network fields.
    row("withdrawn /33", EXTERNAL, raw("0006 21 0a0000ff80 0000"), Place::Withdrawn, SessionReset, 10, "");
    row("withdrawn prefix overruns", EXTERNAL, raw("0003 18 0a00 0000"), Place::Withdrawn, SessionReset, 10, "");
    row("NLRI /33", EXTERNAL, hex::update_body(&[], &raw(&[ORIGIN, AS_PATH, NEXT_HOP].concat()), &raw("21 0a00000080")), Place::Nlri, SessionReset, 10, "");
    row("NLRI overruns", EXTERNAL, hex::update_body(&[], &raw(&[ORIGIN, AS_PATH, NEXT_HOP].concat()), &raw("08 0a 10 0a")), Place::Nlri, SessionReset, 10, "");

    // The list of attributes (RFC 7606 section 4).
    row("1 octet left of the list", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "80"]), Place::AttributeList, TreatAsWithdraw, 1, "");
    row("2 octets left of the list", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "80 04"]), Place::AttributeList, TreatAsWithdraw, 1, "");
    row("3 octets left, extended length", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "90 04 00"]), Place::AttributeList, TreatAsWithdraw, 1, "");
    row("an attribute overruns the list", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "80 04 04 000000"]), Place::Attribute(Code::MED), TreatAsWithdraw, 1, "");
    row("an unknown attribute overruns the list", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "c0 63 02 00"]), Place::Attribute(Code(99)), TreatAsWithdraw, 1, "");
    row("MP_REACH_NLRI overruns the list", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "80 0e 04 0002"]), Place::Attribute(Code::MP_REACH_NLRI), SessionReset, 1, "");
    row("MP_UNREACH_NLRI overruns the list", EXTERNAL, bare(&["80 0f 04 000201"]), Place::Attribute(Code::MP_UNREACH_NLRI), SessionReset, 1, "");

    // Duplicates (RFC 7606 section 3 g).
    row("ORIGIN twice", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, ORIGIN]), Place::Attribute(Code::ORIGIN), AttributeDiscard, 1, "");
    row("unknown attribute twice", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "c0 63 00", "c0 63 00"]), Place::Attribute(Code(99)), AttributeDiscard, 1, "");
    row("MP_REACH_NLRI twice", EXTERNAL, bare(&[ORIGIN, AS_PATH, REACH_V6, REACH_V6]), Place::Attribute(Code::MP_REACH_NLRI), SessionReset, 1, "");
    row("MP_UNREACH_NLRI twice", EXTERNAL, bare(&["80 0f 03 000201", "80 0f 03 000201"]), Place::Attribute(Code::MP_UNREACH_NLRI), SessionReset, 1, "");

    // Unrecognised well-known.
    row("unknown well-known attribute", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "40 63 02 beef"]), Place::Attribute(Code(99)), SessionReset, 2, "40 63 02 beef");
    row("unknown well-known attribute, flags 0", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "00 63 00"]), Place::Attribute(Code(99)), SessionReset, 2, "00 63 00");

    // Missing mandatory ones: the type code is the data.
    row("no ORIGIN", EXTERNAL, announcing(&[AS_PATH, NEXT_HOP]), Place::Attribute(Code::ORIGIN), TreatAsWithdraw, 3, "01");
    row("no AS_PATH", EXTERNAL, announcing(&[ORIGIN, NEXT_HOP]), Place::Attribute(Code::AS_PATH), TreatAsWithdraw, 3, "02");
    row("no NEXT_HOP", EXTERNAL, announcing(&[ORIGIN, AS_PATH]), Place::Attribute(Code::NEXT_HOP), TreatAsWithdraw, 3, "03");
    row("no ORIGIN beside MP_REACH_NLRI", EXTERNAL, bare(&[AS_PATH, REACH_V6]), Place::Attribute(Code::ORIGIN), TreatAsWithdraw, 3, "01");
    row("no AS_PATH beside MP_REACH_NLRI", EXTERNAL, bare(&[ORIGIN, REACH_V6]), Place::Attribute(Code::AS_PATH), TreatAsWithdraw, 3, "02");

    // Flags (RFC 7606 section 3 c): one wrong bit of each attribute.
    row("ORIGIN optional", EXTERNAL, announcing(&["c0 01 01 00", AS_PATH, NEXT_HOP]), Place::Attribute(Code::ORIGIN), TreatAsWithdraw, 4, "c0 01 01 00");
    row("ORIGIN not transitive", EXTERNAL, announcing(&["00 01 01 00", AS_PATH, NEXT_HOP]), Place::Attribute(Code::ORIGIN), TreatAsWithdraw, 4, "00 01 01 00");
    row("AS_PATH optional", EXTERNAL, announcing(&[ORIGIN, "c0 02 00", NEXT_HOP]), Place::Attribute(Code::AS_PATH), TreatAsWithdraw, 4, "c0 02 00");
    row("NEXT_HOP optional", EXTERNAL, announcing(&[ORIGIN, AS_PATH, "c0 03 04 0a000001"]), Place::Attribute(Code::NEXT_HOP), TreatAsWithdraw, 4, "c0 03 04 0a000001");
    row("MED transitive", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "c0 04 04 00000001"]), Place::Attribute(Code::MED), TreatAsWithdraw, 4, "c0 04 04 00000001");
    row("MED well-known", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "40 04 04 00000001"]), Place::Attribute(Code::MED), TreatAsWithdraw, 4, "40 04 04 00000001");
    row("LOCAL_PREF optional", INTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "c0 05 04 00000001"]), Place::Attribute(Code::LOCAL_PREF), TreatAsWithdraw, 4, "c0 05 04 00000001");
    row("ATOMIC_AGGREGATE optional", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "c0 06 00"]), Place::Attribute(Code::ATOMIC_AGGREGATE), TreatAsWithdraw, 4, "c0 06 00");
    row("AGGREGATOR not transitive", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "80 07 08 0000fde9 0a000002"]), Place::Attribute(Code::AGGREGATOR), TreatAsWithdraw, 4, "80 07 08 0000fde9 0a000002");
    row("COMMUNITIES not transitive", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "80 08 04 fde90001"]), Place::Attribute(Code::COMMUNITIES), TreatAsWithdraw, 4, "80 08 04 fde90001");
    row("MP_REACH_NLRI transitive", EXTERNAL, bare(&[ORIGIN, AS_PATH, "c0 0e 16 0002 01 10 20010db8000000000000000000000001 00 00"]), Place::Attribute(Code::MP_REACH_NLRI), AfiSafiDisable(ipv6), 4, "c0 0e 16 0002 01 10 20010db8000000000000000000000001 00 00");
    row("MP_UNREACH_NLRI transitive", EXTERNAL, bare(&["c0 0f 04 0002 01 00"]), Place::Attribute(Code::MP_UNREACH_NLRI), AfiSafiDisable(ipv6), 4, "c0 0f 04 0002 01 00");

    // Lengths of attributes.
    row("ORIGIN of 0 octets", EXTERNAL, announcing(&["40 01 00", AS_PATH, NEXT_HOP]), Place::Attribute(Code::ORIGIN), TreatAsWithdraw, 5, "40 01 00");
    row("ORIGIN of 2 octets", EXTERNAL, announcing(&["40 01 02 0000", AS_PATH, NEXT_HOP]), Place::Attribute(Code::ORIGIN), TreatAsWithdraw, 5, "40 01 02 0000");
    row("NEXT_HOP of 3 octets", EXTERNAL, announcing(&[ORIGIN, AS_PATH, "40 03 03 0a0000"]), Place::Attribute(Code::NEXT_HOP), TreatAsWithdraw, 5, "40 03 03 0a0000");
    row("NEXT_HOP of 16 octets", EXTERNAL, announcing(&[ORIGIN, AS_PATH, "40 03 10 20010db8000000000000000000000001"]), Place::Attribute(Code::NEXT_HOP), TreatAsWithdraw, 5, "40 03 10 20010db8000000000000000000000001");
    row("MED of 3 octets", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "80 04 03 000000"]), Place::Attribute(Code::MED), TreatAsWithdraw, 5, "80 04 03 000000");
    row("LOCAL_PREF of 5 octets", INTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "40 05 05 0000000000"]), Place::Attribute(Code::LOCAL_PREF), TreatAsWithdraw, 5, "40 05 05 0000000000");
    row("ATOMIC_AGGREGATE of 1 octet", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "40 06 01 00"]), Place::Attribute(Code::ATOMIC_AGGREGATE), AttributeDiscard, 5, "40 06 01 00");
    row("AGGREGATOR of 6 octets from a 4-octet peer", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "c0 07 06 fde9 0a000002"]), Place::Attribute(Code::AGGREGATOR), AttributeDiscard, 5, "c0 07 06 fde9 0a000002");
    row("AGGREGATOR of 8 octets from a 2-octet peer", TWO_OCTET, announcing(&[ORIGIN, "40 02 00", NEXT_HOP, "c0 07 08 0000fde9 0a000002"]), Place::Attribute(Code::AGGREGATOR), AttributeDiscard, 5, "c0 07 08 0000fde9 0a000002");
    row("COMMUNITIES of 0 octets", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "c0 08 00"]), Place::Attribute(Code::COMMUNITIES), TreatAsWithdraw, 5, "c0 08 00");
    row("COMMUNITIES of 6 octets", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "c0 08 06 fde90001fde9"]), Place::Attribute(Code::COMMUNITIES), TreatAsWithdraw, 5, "c0 08 06 fde90001fde9");
    row("AS4_AGGREGATOR of 6 octets", TWO_OCTET, announcing(&[ORIGIN, "40 02 00", NEXT_HOP, "c0 12 06 fde9 0a000002"]), Place::Attribute(Code::AS4_AGGREGATOR), AttributeDiscard, 5, "c0 12 06 fde9 0a000002");
    row("AS4_PATH of 0 octets", TWO_OCTET, announcing(&[ORIGIN, "40 02 00", NEXT_HOP, "c0 11 00"]), Place::Attribute(Code::AS4_PATH), AttributeDiscard, 5, "c0 11 00");

    // Values.
    row("ORIGIN 3", EXTERNAL, announcing(&["40 01 01 03", AS_PATH, NEXT_HOP]), Place::Attribute(Code::ORIGIN), TreatAsWithdraw, 6, "40 01 01 03");
    row("NEXT_HOP 0.0.0.0", EXTERNAL, announcing(&[ORIGIN, AS_PATH, "40 03 04 00000000"]), Place::Attribute(Code::NEXT_HOP), TreatAsWithdraw, 8, "40 03 04 00000000");
    row("NEXT_HOP 127.0.0.1", EXTERNAL, announcing(&[ORIGIN, AS_PATH, "40 03 04 7f000001"]), Place::Attribute(Code::NEXT_HOP), TreatAsWithdraw, 8, "40 03 04 7f000001");
    row("NEXT_HOP 224.0.0.1", EXTERNAL, announcing(&[ORIGIN, AS_PATH, "40 03 04 e0000001"]), Place::Attribute(Code::NEXT_HOP), TreatAsWithdraw, 8, "40 03 04 e0000001");
    row("NEXT_HOP 255.255.255.255", EXTERNAL, announcing(&[ORIGIN, AS_PATH, "40 03 04 ffffffff"]), Place::Attribute(Code::NEXT_HOP), TreatAsWithdraw, 8, "40 03 04 ffffffff");
    row("AS_PATH, segment type 0", EXTERNAL, announcing(&[ORIGIN, "40 02 06 00 01 0000fde9", NEXT_HOP]), Place::Attribute(Code::AS_PATH), TreatAsWithdraw, 11, "");
    row("AS_PATH, confederation", EXTERNAL, announcing(&[ORIGIN, "40 02 06 03 01 0000fde9", NEXT_HOP]), Place::Attribute(Code::AS_PATH), TreatAsWithdraw, 11, "");
    row("AS_PATH, empty segment", EXTERNAL, announcing(&[ORIGIN, "40 02 02 02 00", NEXT_HOP]), Place::Attribute(Code::AS_PATH), TreatAsWithdraw, 11, "");
    row("AS_PATH, segment overruns", EXTERNAL, announcing(&[ORIGIN, "40 02 06 02 02 0000fde9", NEXT_HOP]), Place::Attribute(Code::AS_PATH), TreatAsWithdraw, 11, "");
    row("AS_PATH, 1 stray octet", EXTERNAL, announcing(&[ORIGIN, "40 02 07 02 01 0000fde9 02", NEXT_HOP]), Place::Attribute(Code::AS_PATH), TreatAsWithdraw, 11, "");
    row("AS_PATH of 2-octet numbers from a 4-octet peer", EXTERNAL, announcing(&[ORIGIN, "40 02 04 02 01 fde9", NEXT_HOP]), Place::Attribute(Code::AS_PATH), TreatAsWithdraw, 11, "");
    row("AS_PATH with AS 0", EXTERNAL, announcing(&[ORIGIN, "40 02 06 02 01 00000000", NEXT_HOP]), Place::Attribute(Code::AS_PATH), TreatAsWithdraw, 11, "");
    row("AS_PATH with AS 0 of 2 octets", TWO_OCTET, announcing(&[ORIGIN, "40 02 06 02 02 fde9 0000", NEXT_HOP]), Place::Attribute(Code::AS_PATH), TreatAsWithdraw, 11, "");
    row("AGGREGATOR with AS 0", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "c0 07 08 00000000 0a000002"]), Place::Attribute(Code::AGGREGATOR), AttributeDiscard, 9, "c0 07 08 00000000 0a000002");
    row("AS4_PATH with AS 0", TWO_OCTET, announcing(&[ORIGIN, "40 02 00", NEXT_HOP, "c0 11 06 02 01 00000000"]), Place::Attribute(Code::AS4_PATH), AttributeDiscard, 9, "c0 11 06 02 01 00000000");
    row("AS4_PATH, segment type 5", TWO_OCTET, announcing(&[ORIGIN, "40 02 00", NEXT_HOP, "c0 11 06 05 01 00000001"]), Place::Attribute(Code::AS4_PATH), AttributeDiscard, 9, "c0 11 06 05 01 00000001");

    // Attributes that this peer must not send.
    row("LOCAL_PREF from an external peer", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "40 05 04 00000001"]), Place::Attribute(Code::LOCAL_PREF), AttributeDiscard, 9, "40 05 04 00000001");
    row("malformed LOCAL_PREF from an external peer", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "c0 05 00"]), Place::Attribute(Code::LOCAL_PREF), AttributeDiscard, 9, "c0 05 00");
    row("AS4_PATH from a 4-octet peer", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "c0 11 06 02 01 00000001"]), Place::Attribute(Code::AS4_PATH), AttributeDiscard, 9, "c0 11 06 02 01 00000001");
    row("AS4_AGGREGATOR from a 4-octet peer", EXTERNAL, announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "c0 12 08 00000001 0a000001"]), Place::Attribute(Code::AS4_AGGREGATOR), AttributeDiscard, 9, "c0 12 08 00000001 0a000001");

    // Multiprotocol attributes (RFC 4760 section 7, RFC 7606 sections 5.3 and 7.11).
    let reach = Place::Attribute(Code::MP_REACH_NLRI);
    let unreach = Place::Attribute(Code::MP_UNREACH_NLRI);
    row("MP_REACH_NLRI of 2 octets", EXTERNAL, bare(&[ORIGIN, AS_PATH, "80 0e 02 0002"]), reach, SessionReset, 9, "80 0e 02 0002");
    row("MP_REACH_NLRI ends after the family", EXTERNAL, bare(&[ORIGIN, AS_PATH, "80 0e 03 000201"]), reach, AfiSafiDisable(ipv6), 9, "80 0e 03 000201");
    row("MP_REACH_NLRI ends in the next hop", EXTERNAL, bare(&[ORIGIN, AS_PATH, "80 0e 06 000201 10 2001"]), reach, AfiSafiDisable(ipv6), 9, "80 0e 06 000201 10 2001");
    row("MP_REACH_NLRI without the reserved octet", EXTERNAL, bare(&[ORIGIN, AS_PATH, "80 0e 08 001946 04 01020304"]), reach, AfiSafiDisable(unknown_family), 9, "80 0e 08 001946 04 01020304");
    row("IPv6 with a next hop of 4 octets", EXTERNAL, bare(&[ORIGIN, AS_PATH, "80 0e 0a 000201 04 0a000001 00 00"]), reach, AfiSafiDisable(ipv6), 9, "80 0e 0a 000201 04 0a000001 00 00");
    row("IPv6 with a next hop of 0 octets", EXTERNAL, bare(&[ORIGIN, AS_PATH, "80 0e 06 000201 00 00 00"]), reach, AfiSafiDisable(ipv6), 9, "80 0e 06 000201 00 00 00");
    row("IPv6 with a next hop of 24 octets", EXTERNAL, bare(&[ORIGIN, AS_PATH, "80 0e 1e 000201 18 20010db80000000000000000000000010000000000000000 00 00"]), reach, AfiSafiDisable(ipv6), 9, "80 0e 1e 000201 18 20010db80000000000000000000000010000000000000000 00 00");
    row("IPv4 with a next hop of 16 octets", EXTERNAL, bare(&[ORIGIN, AS_PATH, "80 0e 16 000101 10 20010db8000000000000000000000001 00 00"]), reach, AfiSafiDisable(ipv4), 9, "80 0e 16 000101 10 20010db8000000000000000000000001 00 00");
    row("IPv6 NLRI /129", EXTERNAL, bare(&[ORIGIN, AS_PATH, "80 0e 17 000201 10 20010db8000000000000000000000001 00 81 20"]), reach, AfiSafiDisable(ipv6), 9, "80 0e 17 000201 10 20010db8000000000000000000000001 00 81 20");
    row("IPv6 NLRI overruns", EXTERNAL, bare(&[ORIGIN, AS_PATH, "80 0e 17 000201 10 20010db8000000000000000000000001 00 10 20"]), reach, AfiSafiDisable(ipv6), 9, "80 0e 17 000201 10 20010db8000000000000000000000001 00 10 20");
    row("MP_UNREACH_NLRI of 2 octets", EXTERNAL, bare(&["80 0f 02 0002"]), unreach, SessionReset, 9, "80 0f 02 0002");
    row("IPv6 withdrawal /129", EXTERNAL, bare(&["80 0f 05 000201 81 20"]), unreach, AfiSafiDisable(ipv6), 9, "80 0f 05 000201 81 20");
    row("IPv6 withdrawal overruns", EXTERNAL, bare(&["80 0f 04 000201 08"]), unreach, AfiSafiDisable(ipv6), 9, "80 0f 04 000201 08");

    // No reachable route to withdraw: the stronger action (RFC 7606 section 5.2).
    row("ORIGIN 3 without any route", EXTERNAL, bare(&["40 01 01 03"]), Place::Attribute(Code::ORIGIN), SessionReset, 6, "40 01 01 03");
    row("ORIGIN 3 beside a withdrawal alone", EXTERNAL, hex::update_body(&[8, 10], &raw("40 01 01 03"), &[]), Place::Attribute(Code::ORIGIN), SessionReset, 6, "40 01 01 03");
    row("COMMUNITIES of 0 octets beside MP_UNREACH_NLRI alone", EXTERNAL, bare(&["80 0f 04 000201 00", "c0 08 00"]), Place::Attribute(Code::COMMUNITIES), SessionReset, 5, "c0 08 00");
    row("an empty MP_REACH_NLRI beside ORIGIN 3", EXTERNAL, bare(&["40 01 01 03", "80 0e 15 000201 10 20010db8000000000000000000000001 00"]), Place::Attribute(Code::ORIGIN), SessionReset, 6, "40 01 01 03");
    row("AGGREGATOR of 1 octet without any route", EXTERNAL, bare(&["c0 07 01 00"]), Place::Attribute(Code::AGGREGATOR), AttributeDiscard, 5, "c0 07 01 00");
    rows
}

/// What the decoder says, error or not.
fn findings(body: &[u8], options: &WireOptions) -> (Vec<Finding>, Option<Decoded>) {
    match Message::decode(&hex::message(2, body), options) {
        Ok(decoded) => (decoded.findings.clone(), Some(decoded)),
        Err(WireError::Update(error)) => (error.findings, None),
        Err(error) => panic!("no error of an UPDATE: {error}"),
    }
}

#[test]
fn update_errors() {
    for Row {
        name,
        options,
        body,
        place,
        verdict,
        subcode,
        data,
    } in update_rows()
    {
        let (findings, decoded) = findings(&body, &options);
        let [finding] = &findings[..] else {
            panic!("{name}: not one finding: {findings:?}")
        };
        assert_eq!(finding.place, place, "{name}: {finding}");
        assert_eq!(finding.verdict, verdict, "{name}: {finding}");
        let expected = notification(3, subcode, data);
        assert_eq!(
            show(&finding.notification()),
            show(&expected),
            "{name}: {finding}"
        );
        match (verdict, decoded) {
            (Verdict::SessionReset, None) => {
                let error = Message::decode(&hex::message(2, &body), &options).expect_err(name);
                assert_eq!(show(&error.notification()), show(&expected), "{name}");
            }
            (verdict, Some(decoded)) => assert_eq!(decoded.verdict(), Some(verdict), "{name}"),
            (verdict, None) => panic!("{name}: {verdict} ended the session"),
        }
    }
}

/// The routes of a message that is treated as a withdrawal must all be known (RFC 7606 section
/// 3 j), whatever else is wrong with it.
#[test]
fn routes_survive_malformed_attributes() {
    for Row {
        name,
        options,
        body,
        verdict,
        ..
    } in update_rows()
    {
        if verdict != Verdict::TreatAsWithdraw {
            continue;
        }
        let (_, decoded) = findings(&body, &options);
        let Some(Decoded {
            message: Message::Update(update),
            ..
        }) = decoded
        else {
            panic!("{name}: no UPDATE")
        };
        let routes: Vec<String> = update
            .treated_as_withdraw()
            .map(|prefix| prefix.to_string())
            .collect();
        let possible = ["10.0.0.0/8", "2001:d00::/24", "::/0"];
        assert!(
            matches!(&routes[..], [route] if possible.contains(&route.as_str())),
            "{name}: {routes:?}"
        );
    }
}

/// A discarded attribute leaves the route and everything else in place.
#[test]
fn discarded_attributes_leave_the_route() {
    let clean = announcing(&[ORIGIN, AS_PATH, NEXT_HOP]);
    let (_, Some(clean)) = findings(&clean, &EXTERNAL) else {
        panic!("a clean message")
    };
    for bad in [
        "40 06 01 00",
        "c0 07 06 fde9 0a000002",
        "40 05 04 00000001",
        "40 02 00",
    ] {
        let (found, decoded) = findings(&announcing(&[ORIGIN, AS_PATH, NEXT_HOP, bad]), &EXTERNAL);
        assert_eq!(
            decoded.map(|decoded| decoded.message),
            Some(clean.message.clone()),
            "{found:?}"
        );
    }
}

#[test]
fn the_strongest_action_wins_and_all_findings_are_kept() {
    let rows: [(&[&str], &[&str], Verdict); 3] = [
        (
            &[ORIGIN, AS_PATH, NEXT_HOP, "40 06 01 00", "80 04 03 000000"],
            &["ATOMIC_AGGREGATE", "MULTI_EXIT_DISC"],
            Verdict::TreatAsWithdraw,
        ),
        (
            &["40 01 01 03", AS_PATH, "80 0e 04 000201 ff"],
            &["ORIGIN", "MP_REACH_NLRI", "NEXT_HOP"],
            Verdict::AfiSafiDisable(AfiSafi { afi: 2, safi: 1 }),
        ),
        (
            &["40 01 01 03", AS_PATH, NEXT_HOP, "40 63 00"],
            &["ORIGIN", "attribute 99"],
            Verdict::SessionReset,
        ),
    ];
    for (attributes, places, verdict) in rows {
        let (findings, _) = findings(&announcing(attributes), &EXTERNAL);
        let found: Vec<String> = findings
            .iter()
            .map(|finding| finding.place.to_string())
            .collect();
        assert_eq!(found, places);
        assert_eq!(
            findings.iter().map(|finding| finding.verdict).max(),
            Some(verdict)
        );
    }
}

/// Among equals the first decides what is sent.
#[test]
fn the_first_of_the_strongest_findings_is_sent() {
    let body = announcing(&[ORIGIN, AS_PATH, NEXT_HOP, "40 63 00", "40 64 00"]);
    let error = Message::decode(&hex::message(2, &body), &EXTERNAL).expect_err("two of them");
    assert_eq!(show(&error.notification()), "3/2 406300");
    assert_eq!(
        error.to_string(),
        "UPDATE: attribute 99: unknown, but flagged as well-known (session-reset)"
    );
}

/// An attribute can fill its message; the NOTIFICATION about it must still fit into one.
#[test]
fn a_notification_always_fits() {
    let mut list = hex::octets("40 63");
    list[0] |= AttributeFlags::EXTENDED_LENGTH;
    list.extend(4069_u16.to_be_bytes());
    list.extend([7; 4069]);
    let message = hex::message(2, &hex::update_body(&[], &list, &[]));
    assert_eq!(message.len(), 4096);
    let error = Message::decode(&message, &EXTERNAL).expect_err("well-known and unknown");
    let notification = error.notification();
    assert_eq!((notification.code, notification.subcode), (3, 2));
    let sent = Message::Notification(notification)
        .to_bytes(&EXTERNAL)
        .expect("fits");
    assert_eq!(sent.len(), 4094);
    assert_eq!(sent[21..], list);
}

#[test]
fn reasons_name_what_was_found() {
    let rows: [(&str, Reason); 3] = [
        ("40 02 06 02 02 0000fde9", Reason::SegmentOverrun),
        ("40 02 02 02 00", Reason::SegmentEmpty),
        ("40 02 06 03 01 0000fde9", Reason::SegmentType(3)),
    ];
    for (as_path, reason) in rows {
        let (findings, _) = findings(&announcing(&[ORIGIN, as_path, NEXT_HOP]), &EXTERNAL);
        assert_eq!(findings[0].reason, reason, "{as_path}");
    }
}
