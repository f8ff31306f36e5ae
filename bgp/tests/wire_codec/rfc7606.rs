//! RFC 7606 as a table: every attribute with every error, and what is to be done about it.
//!
//! The rules of sections 3 to 5 are applied to each attribute from one list of what is specified
//! for it; what is special about an attribute, a field or another RFC has rows of its own.

use bgp::wire::{
    AfiSafi, Decoded, FamilySet, Finding, Message, Update, Verdict, WireError, WireOptions, pack,
};

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

/// What becomes of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Accept,
    Discard,
    Withdraw,
    Disable,
    Reset,
}

use Fate::{Accept, Disable, Discard, Reset, Withdraw};

impl From<Option<Verdict>> for Fate {
    fn from(verdict: Option<Verdict>) -> Self {
        match verdict {
            None => Accept,
            Some(Verdict::AttributeDiscard) => Discard,
            Some(Verdict::TreatAsWithdraw) => Withdraw,
            Some(Verdict::AfiSafiDisable(_)) => Disable,
            Some(Verdict::SessionReset) => Reset,
        }
    }
}

fn decoded(body: &[u8], options: &WireOptions) -> Result<Decoded, Vec<Finding>> {
    match Message::decode(&hex::message(2, body), options) {
        Ok(decoded) => Ok(decoded),
        Err(WireError::Update(error)) => Err(error.findings),
        Err(error) => panic!("no error of an UPDATE: {error}: {}", hex::show(body)),
    }
}

#[track_caller]
fn expect(name: &str, body: &[u8], options: &WireOptions, expected: Fate) {
    let outcome = decoded(body, options);
    let (fate, findings) = match &outcome {
        Ok(decoded) => (decoded.verdict().into(), &decoded.findings),
        Err(findings) => (Reset, findings),
    };
    assert_eq!(fate, expected, "{name}: {}: {findings:?}", hex::show(body));
    // The routes must really go: all of them have to be known (section 3 j).
    if let (Withdraw, Ok(decoded)) = (fate, &outcome) {
        assert_eq!(update(decoded).treated_as_withdraw().count(), 1, "{name}");
    }
}

fn update(decoded: &Decoded) -> &Update {
    match &decoded.message {
        Message::Update(update) => update,
        other => panic!("no UPDATE: {other:?}"),
    }
}

/// What is specified of one attribute.
struct Known {
    name: &'static str,
    code: u8,
    /// Optional and Transitive.
    flags: u8,
    options: WireOptions,
    good: &'static str,
    /// Values that are malformed.
    bad: &'static [&'static str],
    /// What a malformed value leads to.
    fate: Fate,
    /// The same from a peer that must not send it.
    misplaced: Option<WireOptions>,
}

const MP_REACH: &str = "0002 01 10 20010db8000000000000000000000001 00 20 20010db8";
const MP_UNREACH: &str = "0002 01 20 20010db8";

#[rustfmt::skip] // a table
fn known() -> Vec<Known> {
    let known = |name, code, flags, options, good, bad, fate, misplaced| Known { name, code, flags, options, good, bad, fate, misplaced };
    vec![
        // Sections 7.1 to 7.8.
        known("ORIGIN", 1, 0x40, EXTERNAL, "00", &["", "0000", "03", "ff"], Withdraw, None),
        known("AS_PATH", 2, 0x40, EXTERNAL, "02 01 0000fde9", &[
            "02", "02 00", "02 01 0000fd", "02 02 0000fde9", "02 01 0000fde9 02", "02 01 0000fde9 02 00",
            // Unknown segments; confederations (RFC 5065 section 5).
            "00 01 0000fde9", "05 01 0000fde9", "ff 01 0000fde9", "03 01 0000fde9", "04 01 0000fde9",
            // RFC 7607, RFC 9774.
            "02 01 00000000", "02 02 0000fde9 00000000", "01 01 0000fde9", "02 01 0000fde9 01 01 0000fde9",
        ], Withdraw, None),
        known("AS_PATH of 2-octet numbers", 2, 0x40, TWO_OCTET, "02 01 fde9", &["02", "02 00", "02 01 fd", "02 01 0000fde9", "02 01 0000"], Withdraw, None),
        known("NEXT_HOP", 3, 0x40, EXTERNAL, "0a000001", &["", "0a0000", "0a00000100", "20010db8000000000000000000000001", "00000000", "7f000001", "e0000001", "ffffffff"], Withdraw, None),
        known("MED", 4, 0x80, EXTERNAL, "00000001", &["", "000000", "0000000000"], Withdraw, None),
        known("LOCAL_PREF", 5, 0x40, INTERNAL, "00000001", &["", "000000", "0000000000"], Withdraw, Some(EXTERNAL)),
        known("ATOMIC_AGGREGATE", 6, 0x40, EXTERNAL, "", &["00", "00000000"], Discard, None),
        known("AGGREGATOR", 7, 0xc0, EXTERNAL, "0000fde9 0a000002", &["", "fde9 0a000002", "0000fde9 0a0000", "0000fde9 0a000002 00", "00000000 0a000002"], Discard, None),
        known("AGGREGATOR of 2-octet numbers", 7, 0xc0, TWO_OCTET, "fde9 0a000002", &["", "fde9 0a0000", "0000fde9 0a000002", "0000 0a000002"], Discard, None),
        known("COMMUNITIES", 8, 0xc0, EXTERNAL, "fde90001", &["", "fde900", "fde9000100", "fde90001fde9"], Withdraw, None),
        // Sections 7.9, 7.10, 7.14 and 7.15.
        known("ORIGINATOR_ID", 9, 0x80, INTERNAL, "0a000001", &["", "0a0000", "0a00000100"], Withdraw, Some(EXTERNAL)),
        known("CLUSTER_LIST", 10, 0x80, INTERNAL, "0a000001", &["", "0a0000", "0a00000100"], Withdraw, Some(EXTERNAL)),
        known("EXTENDED COMMUNITIES", 16, 0xc0, EXTERNAL, "0002fde900000001", &["", "0002fde9000000", "0002fde90000000100", "0002fde9000000010002fde9"], Withdraw, None),
        known("IPV6 EXTENDED COMMUNITIES", 25, 0xc0, EXTERNAL, "000220010db80000000000000000000000010001", &["", "000220010db800000000000000000000000100", "000220010db8000000000000000000000001000100"], Withdraw, None),
        // RFC 6793 section 6.
        known("AS4_PATH", 17, 0xc0, TWO_OCTET, "02 01 00011170", &["", "02", "02 00", "02 01 0001", "02 02 00011170", "02 01 00011170 02", "00 01 00011170", "02 01 00000000"], Discard, Some(EXTERNAL)),
        known("AS4_AGGREGATOR", 18, 0xc0, TWO_OCTET, "00011170 0a000002", &["", "1170 0a000002", "00011170 0a000002 00", "00000000 0a000002"], Discard, Some(EXTERNAL)),
        // RFC 8092 section 6, RFC 9234 section 5.
        known("LARGE_COMMUNITY", 32, 0xc0, EXTERNAL, "0000fde90000000100000002", &["", "0000fde900000001000000", "0000fde9000000010000000200", "0000fde90000000100000002 0000fde9"], Withdraw, None),
        known("OTC", 35, 0xc0, EXTERNAL, "0000fde9", &["", "0000fd", "0000fde900"], Withdraw, None),
        // Section 5.3, RFC 4760 section 7.
        known("MP_REACH_NLRI", 14, 0x80, EXTERNAL, MP_REACH, &[
            "0002 01", "0002 01 10", "0002 01 10 20010db8", "0002 01 10 20010db8000000000000000000000001",
            "0002 01 00 00 20 20010db8", "0002 01 04 0a000001 00 20 20010db8", "0002 01 0f 20010db80000000000000000000000 00 00 20 20010db8",
            "0002 01 10 20010db8000000000000000000000001 00 81 20010db8", "0002 01 10 20010db8000000000000000000000001 00 21 20010db8",
        ], Disable, None),
        known("MP_UNREACH_NLRI", 15, 0x80, EXTERNAL, MP_UNREACH, &["0002 01 81 20010db8", "0002 01 21 20010db8", "0002 01 20"], Disable, None),
    ]
}

impl Known {
    const fn multiprotocol(&self) -> bool {
        matches!(self.code, 14 | 15)
    }

    fn value(&self) -> Vec<u8> {
        hex::octets(self.good)
    }

    /// An UPDATE that announces one route (withdraws one, for MP_UNREACH_NLRI) and has these
    /// octets in place of the attribute, the last of the list.
    fn body(&self, octets: &[u8]) -> Vec<u8> {
        let mut list = Vec::new();
        let path = match self.options.four_octet_as {
            true => "02 01 0000fde9",
            false => "02 01 fde9",
        };
        let classic = !self.multiprotocol();
        for (code, value) in [(1, "00"), (2, path), (3, "0a000001")] {
            let wanted = code != self.code && (code != 3 || classic) && self.code != 15;
            if wanted {
                list.extend(attribute(0x40, code, &hex::octets(value)));
            }
        }
        list.extend(octets);
        let nlri: &[u8] = if classic { &[8, 10] } else { &[] };
        hex::update_body(&[], &list, nlri)
    }
}

/// An attribute with a length field that suits its flags.
fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("short").to_be_bytes();
    let length = match flags & 0x10 {
        0 => &length[1..],
        _ => &length[..],
    };
    [&[flags, code], length, value].concat()
}

#[test]
fn what_is_specified_is_accepted() {
    for known in known() {
        let octets = attribute(known.flags, known.code, &known.value());
        expect(known.name, &known.body(&octets), &known.options, Accept);
    }
}

/// Section 3 c, and for multiprotocol attributes section 5.3. Partial, Extended Length and the
/// four unused bits never matter.
#[test]
fn every_value_of_the_flags() {
    for known in known() {
        for flags in 0..=u8::MAX {
            let expected = match (flags & 0xc0 == known.flags, known.multiprotocol()) {
                (true, _) => Accept,
                (false, false) => Withdraw,
                (false, true) => Disable,
            };
            let octets = attribute(flags, known.code, &known.value());
            let name = format!("{} with flags {flags:#04x}", known.name);
            expect(&name, &known.body(&octets), &known.options, expected);
        }
    }
}

/// Sections 3 e, 3 f and 7.
#[test]
fn every_malformed_value() {
    for known in known() {
        for bad in known.bad {
            let octets = attribute(known.flags, known.code, &hex::octets(bad));
            let name = format!("{} of {bad:?}", known.name);
            expect(&name, &known.body(&octets), &known.options, known.fate);
        }
    }
}

/// Sections 7.5, 7.9 and 7.10, RFC 6793 section 4.1: whatever it says, it is discarded.
#[test]
fn attributes_from_a_peer_that_must_not_send_them() {
    for known in known() {
        let Some(options) = known.misplaced else {
            continue;
        };
        let known = Known { options, ..known };
        for value in [&[known.good], known.bad].concat() {
            for flags in [0x00, 0x40, 0x80, 0xc0] {
                let octets = attribute(flags, known.code, &hex::octets(value));
                let name = format!("{} of {value:?} from the wrong peer", known.name);
                expect(&name, &known.body(&octets), &options, Discard);
            }
        }
    }
}

/// Section 3 g.
#[test]
fn every_attribute_twice() {
    for known in known() {
        let once = attribute(known.flags, known.code, &known.value());
        let other = attribute(
            known.flags,
            known.code,
            &hex::octets(known.bad.last().expect("a bad value")),
        );
        let expected = if known.multiprotocol() {
            Reset
        } else {
            Discard
        };
        for second in [&once, &other] {
            let body = known.body(&[&once[..], second].concat());
            expect(known.name, &body, &known.options, expected);
            // The first one counts.
            if let Ok(decoded) = decoded(&body, &known.options) {
                let alone = known.body(&once);
                let alone = self::decoded(&alone, &known.options).expect("accepted");
                assert_eq!(decoded.message, alone.message, "{}", known.name);
            }
        }
    }
    let twice = attribute(0xc0, 99, &[1]).repeat(2);
    expect(
        "unknown",
        &known()[0].body(&[attribute(0x40, 1, &[0]), twice].concat()),
        &EXTERNAL,
        Discard,
    );
}

/// Section 3 d; RFC 4760 section 3 on NEXT_HOP.
#[test]
fn mandatory_attributes_missing() {
    let all = [(1, "00"), (2, "02 01 0000fde9"), (3, "0a000001")];
    // NLRI, MP_REACH_NLRI, and what they make of a missing ORIGIN, AS_PATH, NEXT_HOP.
    let rows = [
        (true, false, [Withdraw, Withdraw, Withdraw]),
        (false, true, [Withdraw, Withdraw, Accept]),
        (false, false, [Accept, Accept, Accept]),
    ];
    for (classic, multiprotocol, expected) in rows {
        for (missing, expected) in (1..=3).zip(expected) {
            let mut list = Vec::new();
            if multiprotocol {
                list.extend(attribute(0x80, 14, &hex::octets(MP_REACH)));
            }
            for (code, value) in all.iter().filter(|(code, _)| *code != missing) {
                list.extend(attribute(0x40, *code, &hex::octets(value)));
            }
            let nlri: &[u8] = if classic { &[8, 10] } else { &[] };
            let body = hex::update_body(&[], &list, nlri);
            let name = format!("{missing} missing, {classic} {multiprotocol}");
            expect(&name, &body, &EXTERNAL, expected);
        }
    }
}

/// Section 4. Without routes that are known to be announced, sections 3 j and 5.2.
#[test]
fn attributes_beyond_the_end_of_the_list() {
    for known in known() {
        let whole = attribute(known.flags, known.code, &known.value());
        let expected = if known.multiprotocol() {
            Reset
        } else {
            Withdraw
        };
        for more in [1, 5, 200] {
            let mut octets = whole.clone();
            octets[2] += more;
            expect(known.name, &known.body(&octets), &known.options, expected);
        }
        for stray in [&[0x40][..], &[0x40, 1], &[0x50, 1], &[0x50, 1, 0]] {
            let body = known.body(&[&whole[..], stray].concat());
            let expected = match known.code {
                // Nothing is announced, so who knows.
                15 => Reset,
                _ => Withdraw,
            };
            let name = format!("{} and {stray:?}", known.name);
            expect(&name, &body, &known.options, expected);
        }
    }
}

/// Section 5.2.
#[test]
fn without_a_reachable_route_whatever_is_more_than_a_discard_resets() {
    for known in known().iter().filter(|known| !known.multiprotocol()) {
        let fields = [
            (&[][..], &[][..]),
            (&[8, 10], &[]),
            (&[], &hex::octets("80 0f 08 000201 20 20010db8")),
        ];
        for bad in known.bad {
            for (withdrawn, unreach) in fields {
                let octets = attribute(known.flags, known.code, &hex::octets(bad));
                let list = [unreach, &octets].concat();
                let body = hex::update_body(withdrawn, &list, &[]);
                let expected = match (known.fate, known.code, hex::octets(bad).as_slice()) {
                    (Discard, ..) => Discard,
                    // A NEXT_HOP of no route is ignored, if it is an address at all.
                    (_, 3, [_, _, _, _]) => Accept,
                    // An AS_SET is well-formed.
                    (_, 2, [1, 1, ..] | [_, _, _, _, _, _, 1, ..]) => Accept,
                    _ => Reset,
                };
                let name = format!("{} of {bad:?} without a route", known.name);
                expect(&name, &body, &known.options, expected);
            }
        }
    }
    // MP_UNREACH_NLRI alone is no such message, and neither is what the peer must not send.
    expect(
        "alone",
        &hex::update_body(&[], &hex::octets("80 0f 05 000201 81 20"), &[]),
        &EXTERNAL,
        Disable,
    );
    expect(
        "LOCAL_PREF",
        &hex::update_body(&[], &hex::octets("40 05 00"), &[]),
        &EXTERNAL,
        Discard,
    );
}

/// Section 5.1: "in any position".
#[test]
fn multiprotocol_attributes_in_any_position() {
    let others = [
        "40 01 01 00",
        "40 02 06 02 01 0000fde9",
        "c0 08 04 fde90001",
    ];
    let reach = attribute(0x80, 14, &hex::octets(MP_REACH));
    let unreach = attribute(0x80, 15, &hex::octets(MP_UNREACH));
    for first in 0..=others.len() {
        for second in 0..=others.len() {
            let mut list = Vec::new();
            for at in 0..=others.len() {
                if at == first {
                    list.extend(&reach);
                }
                if at == second {
                    list.extend(&unreach);
                }
                list.extend(
                    others
                        .get(at)
                        .map(|text| hex::octets(text))
                        .unwrap_or_default(),
                );
            }
            let body = hex::update_body(&[], &list, &[]);
            let decoded = decoded(&body, &EXTERNAL).expect("accepted");
            assert_eq!(decoded.findings, []);
            let update = update(&decoded);
            assert_eq!(update.reachable().count(), 1);
            assert_eq!(update.unreachable().count(), 1);
            assert_eq!(update.attributes.communities.len(), 1);
        }
    }
}

/// Sections 5.3 and 7.11, RFC 2545, RFC 8950.
#[test]
fn next_hops_of_every_length() {
    let v6_for_v4 = WireOptions {
        ipv4_next_hop_v6: true,
        ..EXTERNAL
    };
    for length in 0..=64_u8 {
        for (afi, safi, nlri, options, allowed) in [
            (1, 1, &[8, 10][..], EXTERNAL, &[4][..]),
            (1, 1, &[8, 10], v6_for_v4, &[4, 16, 32]),
            (2, 1, &[16, 0x20, 0x01], EXTERNAL, &[16, 32]),
            (2, 1, &[16, 0x20, 0x01], v6_for_v4, &[16, 32]),
        ] {
            let next_hop = vec![0x20; usize::from(length)];
            let value = [&[0, afi, safi, length][..], &next_hop, &[0], nlri].concat();
            let list = [
                attribute(0x80, 14, &value),
                hex::octets("40 01 01 00 40 02 06 02 01 0000fde9"),
            ]
            .concat();
            let expected = if allowed.contains(&length) {
                Accept
            } else {
                Disable
            };
            let name = format!("{length} octets for {afi}/{safi}");
            expect(
                &name,
                &hex::update_body(&[], &list, &[]),
                &options,
                expected,
            );
        }
        // A family that we do not know may have any.
        let value = [
            &[0x40, 4, 71, length][..],
            &vec![1; usize::from(length)],
            &[0, 9],
        ]
        .concat();
        let list = [
            attribute(0x80, 14, &value),
            hex::octets("40 01 01 00 40 02 06 02 01 0000fde9"),
        ]
        .concat();
        expect(
            "unknown family",
            &hex::update_body(&[], &list, &[]),
            &EXTERNAL,
            Accept,
        );
    }
}

#[test]
fn multiprotocol_attributes_of_every_length() {
    let reach = hex::octets(MP_REACH);
    let unreach = hex::octets(MP_UNREACH);
    for (code, whole) in [(14, reach), (15, unreach)] {
        for length in 0..whole.len() {
            let list = [
                attribute(0x80, code, &whole[..length]),
                if code == 14 {
                    hex::octets("40 01 01 00 40 02 06 02 01 0000fde9")
                } else {
                    Vec::new()
                },
            ]
            .concat();
            let expected = match (code, length) {
                // Not even the family can be told.
                (_, 0..3) => Reset,
                // No routes at all are fine: of MP_UNREACH_NLRI they are the End-of-RIB.
                (14, 21) | (15, 3) => Accept,
                _ => Disable,
            };
            let expected = match (code, expected) {
                // Section 5.2: the routes cannot be told, and there are other attributes.
                (14, Disable) if length < 5 => Disable,
                (_, fate) => fate,
            };
            let name = format!("attribute {code} of {length} octets");
            expect(
                &name,
                &hex::update_body(&[], &list, &[]),
                &EXTERNAL,
                expected,
            );
        }
    }
}

#[test]
fn fields_of_routes() {
    let add_path = WireOptions {
        add_path_receive: FamilySet::all(),
        ..EXTERNAL
    };
    let attributes = hex::octets("40 01 01 00 40 02 06 02 01 0000fde9 40 03 04 0a000001");
    let rows: [(&str, &[u8], &WireOptions, Fate); 14] = [
        ("default route", &[0], &EXTERNAL, Accept),
        ("/32", &[32, 10, 0, 0, 1], &EXTERNAL, Accept),
        ("host bits", &[8, 10, 9, 10], &EXTERNAL, Accept),
        ("/33", &[33, 10, 0, 0, 1, 0], &EXTERNAL, Reset),
        ("/255", &[255, 10], &EXTERNAL, Reset),
        ("overrun", &[24, 10, 0], &EXTERNAL, Reset),
        ("overrun after a good one", &[8, 10, 8], &EXTERNAL, Reset),
        // RFC 7911 section 3.
        ("with a path id", &[0, 0, 0, 1, 8, 10], &add_path, Accept),
        ("with path id 0", &[0, 0, 0, 0, 8, 10], &add_path, Accept),
        ("within the path id", &[0, 0, 0], &add_path, Reset),
        ("path id alone", &[0, 0, 0, 1], &add_path, Reset),
        ("path id, overrun", &[0, 0, 0, 1, 8], &add_path, Reset),
        (
            "path id, /33",
            &[0, 0, 0, 1, 33, 1, 2, 3, 4, 5],
            &add_path,
            Reset,
        ),
        ("no path id", &[24, 10, 0, 0], &add_path, Reset),
    ];
    for (name, field, options, expected) in rows {
        let host_bits = name == "host bits";
        let as_nlri = hex::update_body(&[], &attributes, field);
        if !host_bits {
            expect(name, &as_nlri, options, expected);
        }
        expect(
            name,
            &hex::update_body(field, &[], &[]),
            options,
            if host_bits { Reset } else { expected },
        );
    }
    // The two lengths of the message (section 3 a).
    for (name, text) in [
        ("withdrawn routes beyond the message", "0003 08 0a 0000"),
        ("attributes beyond the message", "0000 0005 40 01 01 00"),
        ("both together beyond the message", "0002 08 0a 0001"),
        ("no attribute length", "0002 08 0a"),
    ] {
        expect(name, &hex::octets(text), &EXTERNAL, Reset);
    }
}

/// Section 3 h: the strongest of several wins, in whatever order they come.
#[test]
fn the_strongest_of_two_wins() {
    let errors = [
        ("40 06 01 00", Discard),
        ("80 04 03 000000", Withdraw),
        ("80 0f 05 000201 81 20", Disable),
        ("40 63 00", Reset),
    ];
    for (one, fate) in errors {
        for (other, other_fate) in errors {
            if one == other {
                continue;
            }
            let list =
                format!("{one} {other} 40 01 01 00 40 02 06 02 01 0000fde9 40 03 04 0a000001");
            let body = hex::update_body(&[], &hex::octets(&list), &[8, 10]);
            let name = format!("{one} and {other}");
            let outcome = decoded(&body, &EXTERNAL);
            let findings = outcome
                .as_ref()
                .map_or_else(Vec::len, |decoded| decoded.findings.len());
            assert_eq!(findings, 2, "{name}");
            let strongest = outcome.map_or(Reset, |decoded| decoded.verdict().into());
            assert_eq!(strongest, fate.max(other_fate), "{name}");
        }
    }
}

/// RFC 4271 sections 5 and 6.3 on attributes that nobody knows.
#[test]
fn unknown_attributes_of_every_flags() {
    let known = known();
    let origin = attribute(0x40, 1, &[0]);
    for flags in 0..=u8::MAX {
        for value in [&[][..], &[1, 2, 3]] {
            let body = known[0].body(&[&origin[..], &attribute(flags, 99, value)].concat());
            let expected = if flags & 0x80 == 0 { Reset } else { Accept };
            expect(&format!("flags {flags:#04x}"), &body, &EXTERNAL, expected);
        }
    }
}

/// RFC 4271 section 6.3, RFC 7606 section 7.2: the first AS is the peer's.
#[test]
fn the_first_as_of_a_path() {
    let checked = WireOptions {
        first_as: Some(65001),
        allow_as_set: true,
        ..EXTERNAL
    };
    let two_octet = WireOptions {
        four_octet_as: false,
        ..checked
    };
    for (path, options, expected) in [
        ("02 01 0000fde9", checked, Accept),
        ("02 02 0000fde9 0000fdea", checked, Accept),
        ("02 01 fde9", two_octet, Accept),
        ("02 01 0000fdea", checked, Withdraw),
        ("02 02 0000fdea 0000fde9", checked, Withdraw),
        ("01 01 0000fde9", checked, Withdraw),
        ("", checked, Withdraw),
        ("02 01 fdea", two_octet, Withdraw),
    ] {
        let path = attribute(0x40, 2, &hex::octets(path));
        let mandatory = [hex::octets("40 01 01 00"), path].concat();
        let classic = [&mandatory[..], &hex::octets("40 03 04 0a000001")].concat();
        expect(
            "NLRI",
            &hex::update_body(&[], &classic, &[8, 10]),
            &options,
            expected,
        );
        let reach = attribute(0x80, 14, &hex::octets(MP_REACH));
        let list = [&reach[..], &mandatory].concat();
        expect(
            "MP_REACH_NLRI",
            &hex::update_body(&[], &list, &[]),
            &options,
            expected,
        );
        // Nothing came through that AS.
        expect(
            "no route",
            &hex::update_body(&[8, 10], &classic, &[]),
            &options,
            Accept,
        );
    }
}

/// RFC 9774 section 3, with AS_SETs allowed and not.
#[test]
fn as_sets() {
    for allow_as_set in [false, true] {
        let four = WireOptions {
            allow_as_set,
            ..EXTERNAL
        };
        let two = WireOptions {
            allow_as_set,
            ..TWO_OCTET
        };
        let expected = if allow_as_set { Accept } else { Withdraw };
        for (name, list, options) in [
            ("alone", "40 02 06 01 01 0000fde9", four),
            ("at the end", "40 02 0c 02 01 0000fde9 01 01 0000fdea", four),
            ("2-octet numbers", "40 02 04 01 01 fde9", two),
            (
                "in AS4_PATH",
                "40 02 04 02 01 5ba0 c0 11 06 01 01 00011170",
                two,
            ),
            (
                "replaced by AS4_PATH",
                "40 02 04 01 01 5ba0 c0 11 06 02 01 00011170",
                two,
            ),
        ] {
            let list = format!("40 01 01 00 40 03 04 0a000001 {list}");
            let body = hex::update_body(&[], &hex::octets(&list), &[8, 10]);
            expect(name, &body, &options, expected);
        }
    }
}

/// RFC 8092 section 5: repetitions are removed without a word.
#[test]
fn large_communities_are_kept_once() {
    let value = "0000fde90000000100000002".repeat(3) + "000000010000000200000003";
    let large = attribute(0xc0, 32, &hex::octets(&value));
    let known = known();
    let body = known[0].body(&[attribute(0x40, 1, &[0]), large].concat());
    let decoded = decoded(&body, &EXTERNAL).expect("accepted");
    assert_eq!(decoded.findings, []);
    let communities = &update(&decoded).attributes.large_communities;
    let texts: Vec<String> = communities.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["65001:1:2", "1:2:3"]);
}

/// RFC 4724 section 2: both forms, and for IPv4 the multiprotocol one as well.
#[test]
fn end_of_rib_in_every_form() {
    let family = |afi, safi| Some(AfiSafi { afi, safi });
    for (text, expected) in [
        ("0000 0000", family(1, 1)),
        ("0000 0006 80 0f 03 0001 01", family(1, 1)),
        ("0000 0006 80 0f 03 0002 01", family(2, 1)),
        ("0000 0007 90 0f 0003 0002 01", family(2, 1)),
        ("0000 0006 80 0f 03 4004 47", family(0x4004, 71)),
        ("0002 08 0a 0000", None),
        ("0000 0008 80 0f 05 0002 01 08 20", None),
    ] {
        let decoded = decoded(&hex::octets(text), &EXTERNAL).expect("accepted");
        assert_eq!(decoded.findings, [], "{text}");
        assert_eq!(update(&decoded).end_of_rib_family(), expected, "{text}");
    }
}

/// RFC 8950 section 4: who did not agree gets no such next hop from us either.
#[test]
fn next_hops_that_were_not_agreed_on_are_not_sent() {
    let next_hop = bgp::wire::NextHop::V6("2001:db8::1".parse().expect("address"));
    let route = bgp::Prefix::into("10.0.0.0/8".parse().expect("prefix"));
    for ipv4_next_hop_v6 in [false, true] {
        let options = WireOptions {
            ipv4_next_hop_v6,
            ..EXTERNAL
        };
        let mut out = bytes::BytesMut::new();
        let packed = pack::announce(
            bgp::Family::Ipv4Unicast,
            next_hop,
            &bgp::wire::Attributes::default(),
            [route],
            &options,
            &mut out,
        );
        assert_eq!(packed.is_ok(), ipv4_next_hop_v6, "{packed:?}");
    }
}
