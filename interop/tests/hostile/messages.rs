//! What a configured peer says once it is let in: garbage, single octets, storms.

use std::time::Duration;

use bgp::Family;
use interop::enter;
use interop::gateway::LimitSection;
use interop::hostile::{Heard, Hostile, attribute, kind, mandatory, message, update};
use interop::topology::plan;
use interop::wait::eventually;

use super::siege::{Failure, Siege};

/// For what takes a second or two on an idle machine.
const SOON: Duration = Duration::from_secs(60);
const AS: u32 = 65003;
/// UPDATEs of the attribute storm, each with attributes that no other has.
const STORM: u32 = 4000;
/// Prefixes of the prefix storm.
const PREFIXES: u32 = 200_000;
/// How many of them in an UPDATE.
const PREFIXES_EACH: u32 = 800;

/// No pauses after a failed session: the next attempt shall come at once.
fn at_once(lab: &enter::Lab) -> Result<Siege, Failure> {
    Siege::lay(lab, |peer| {
        (peer.idle_hold, peer.idle_hold_max) = (0.001, 0.001);
    })
}

/// Pseudo-random octets, the same in every run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

/// Each is answered with the NOTIFICATION that RFC 4271 section 6.1 has for it, and the end.
#[test]
fn garbage_after_open() {
    enter::test(|lab| {
        let mut siege = at_once(lab)?;
        let marker = [0xff; 16];
        let header = |length: [u8; 2], kind: u8| [&marker[..], &length, &[kind]].concat();
        let too_long_for_open = [header([0x10, 0x01], kind::OPEN), vec![0; 100]].concat();
        let cases: [(&str, Vec<u8>, (u8, u8)); 6] = [
            ("no marker", vec![0; 19], (1, 1)),
            ("a length below 19", header([0, 18], kind::UPDATE), (1, 2)),
            ("a long KEEPALIVE", header([0, 20], kind::KEEPALIVE), (1, 2)),
            ("an unknown type", header([0, 19], 77), (1, 3)),
            ("an OPEN of 4,097 octets", too_long_for_open, (1, 2)),
            ("an OPEN once more", Siege::mask().open(), (5, 3)),
        ];
        for (what, octets, codes) in cases {
            let mut peer = siege.establish()?;
            peer.say(&octets)?;
            assert_eq!(peer.hear_out()?, Some(codes), "{what}");
        }
        for seed in 0..100 {
            let mut peer = siege.establish()?;
            // It may have closed before the last octet.
            let _ = peer.say(&noise(seed, 70_000));
            let _ = peer.hear_out();
        }
        siege.is_over()
    });
}

/// The largest message of plain BGP, one octet a segment.
#[test]
fn a_message_of_4096_octets_one_by_one() {
    enter::test(|lab| {
        let mut siege = at_once(lab)?;
        let mut peer = siege.establish()?;
        let octets = filled(4096);
        assert_eq!(octets.len(), 4096);
        peer.trickle(&octets, Duration::from_secs(5))?;
        let expected = routes_in(&octets);
        interop::wait::eventually(
            "all routes are learned",
            Duration::from_secs(30),
            || match siege.learned() {
                Ok(learned) if learned == expected => Ok(()),
                Ok(learned) => Err(format!("{learned} of {expected}")),
                Err(error) => Err(error.to_string()),
            },
        )?;
        siege.holds()?;
        drop(peer);
        siege.is_over()
    });
}

/// The largest of all: taken where extended messages were agreed on (RFC 8654), and otherwise refused
/// by its length before it is read.
#[test]
fn a_message_of_65535_octets_one_by_one() {
    enter::test(|lab| {
        let mut siege = at_once(lab)?;
        let mut peer = siege.connect()?;
        peer.say(&Siege::mask().open())?;
        let Heard::Message(kind::OPEN, open) = peer.hear()? else {
            return Err("an OPEN is expected".into());
        };
        peer.say(&message(kind::KEEPALIVE, &[]))?;
        let extended = capabilities(&open).contains(&6);
        let octets = filled(65_535);
        let said = peer.trickle(&octets, Duration::from_secs(10));
        match extended {
            true => {
                said?;
                await_learned(&siege, routes_in(&octets))?;
            }
            false => assert_eq!(peer.hear_out()?, Some((1, 2))),
        }
        siege.holds()?;
        drop(peer);
        siege.is_over()
    });
}

fn await_learned(siege: &Siege, expected: usize) -> Result<(), Failure> {
    Ok(eventually(
        "the routes are learned",
        SOON,
        || match siege.learned() {
            Ok(learned) if learned == expected => Ok(()),
            Ok(learned) => Err(format!("{learned} of {expected}")),
            Err(error) => Err(error.to_string()),
        },
    )?)
}

/// The codes of the capabilities in an OPEN's body (RFC 5492).
fn capabilities(open: &[u8]) -> Vec<u8> {
    let mut codes = Vec::new();
    let mut parameters = open.get(10..).unwrap_or_default();
    while let [2, length, rest @ ..] = parameters {
        let (mut of_it, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        parameters = rest;
        while let [code, length, rest @ ..] = of_it {
            codes.push(*code);
            of_it = rest.get(usize::from(*length)..).unwrap_or_default();
        }
    }
    codes
}

/// An UPDATE of exactly this length, filled up with prefixes of 10.80.0.0/16 and a last attribute.
fn filled(length: usize) -> Vec<u8> {
    let mut attributes = mandatory(&[AS], plan::idc4(3));
    let room = length - update(&[], &attributes, &[]).len();
    // /32s of five octets; an unknown optional attribute takes what is left.
    let count = (room - 4) / 5 - 1;
    let nlri: Vec<u8> = (0..count as u16)
        .flat_map(|number| {
            let [high, low] = number.to_be_bytes();
            [32, 10, 80, high, low]
        })
        .collect();
    attributes.extend(attribute(0xc0, 99, &vec![7; room - 4 - nlri.len()]));
    update(&[], &attributes, &nlri)
}

fn routes_in(octets: &[u8]) -> usize {
    octets.windows(3).filter(|w| *w == [32, 10, 80]).count()
}

/// Thousands of attribute sets, each as large as a message may be; all are forgotten with the
/// session, and the next storm costs no more than the first.
#[test]
fn attribute_storms() {
    enter::test_within(Duration::from_secs(200), |lab| {
        let mut siege = at_once(lab)?;
        let mut resident = Vec::new();
        for _ in 0..3 {
            let mut peer = siege.establish()?;
            storm(&mut peer)?;
            // An answer to what comes last: all before it was taken.
            siege.holds()?;
            drop(peer);
            resident.push(siege.usage()?.resident);
        }
        siege.is_over()?;
        let (first, last) = (resident[0], siege.usage()?.resident);
        assert!(last <= first + (32 << 20), "{resident:?}, then {last}");
        Ok(())
    });
}

fn storm(peer: &mut Hostile) -> Result<(), Failure> {
    for number in 0..STORM {
        let [_, _, high, low] = number.to_be_bytes();
        let mut path = vec![AS];
        path.extend((0..450).map(|step| 100_000 + number * 500 + step));
        let mut attributes = mandatory(&path, plan::idc4(3));
        let communities: Vec<u8> = (0..500_u32)
            .flat_map(|community| (number << 16 | community).to_be_bytes())
            .collect();
        attributes.extend(attribute(0xc0, 8, &communities));
        // The same few prefixes again and again: the sets come and go.
        let octets = update(&[], &attributes, &[32, 10, 80, high & 3, low]);
        assert!(octets.len() <= 4096, "{}", octets.len());
        peer.say(&octets)?;
    }
    Ok(())
}

/// Far more prefixes than the import policy wants cost nothing that lasts.
#[test]
fn a_storm_of_prefixes_nobody_wants() {
    enter::test_within(Duration::from_secs(150), |lab| {
        let mut siege = Siege::lay(lab, |peer| {
            (peer.idle_hold, peer.idle_hold_max) = (0.001, 0.001);
            peer.import = "none".to_owned();
        })?;
        let mut peer = siege.establish()?;
        prefixes(&mut peer)?;
        siege.holds()?;
        assert_eq!(siege.learned()?, 0);
        drop(peer);
        siege.is_over()
    });
}

/// Far more prefixes than the limit: it is kept to exactly, and the session stays.
#[test]
fn a_storm_of_prefixes_beyond_the_limit() {
    const LIMIT: usize = 100;
    enter::test_within(Duration::from_secs(150), |lab| {
        let mut siege = Siege::lay(lab, |peer| {
            (peer.idle_hold, peer.idle_hold_max) = (0.001, 0.001);
            let limit = LimitSection { limit: LIMIT };
            peer.max_prefixes.insert(Family::Ipv4Unicast, limit);
        })?;
        let mut peer = siege.establish()?;
        prefixes(&mut peer)?;
        // OPEN and KEEPALIVE, and the storm.
        let said = 2 + u64::from(PREFIXES.div_ceil(PREFIXES_EACH));
        eventually("all was heard", SOON, || match siege.peers() {
            Ok([_, hostile]) if hostile["messages_in"].as_u64() == Some(said) => Ok(()),
            Ok([_, hostile]) => Err(hostile.to_string()),
            Err(error) => Err(error.to_string()),
        })?;
        siege.holds()?;
        await_learned(&siege, LIMIT)?;
        let [_, hostile] = siege.peers()?;
        assert_eq!(hostile["prefixes"]["ipv4"]["accepted"], LIMIT, "{hostile}");
        // What is refused is remembered up to a bound, and the operator is told so.
        let notes = hostile["notes"].to_string();
        assert!(
            notes.contains("at least 65536 routes are refused"),
            "{notes}"
        );
        assert_eq!(hostile["state"], "established", "{hostile}");
        assert_eq!(hostile["sessions"], 1, "{hostile}");
        drop(peer);
        siege.is_over()
    });
}

fn prefixes(peer: &mut Hostile) -> Result<(), Failure> {
    let attributes = mandatory(&[AS], plan::idc4(3));
    let prefixes: Vec<u32> = (0..PREFIXES).collect();
    for piece in prefixes.chunks(PREFIXES_EACH as usize) {
        let nlri = piece.iter().flat_map(|number| {
            let [_, high, middle, low] = number.to_be_bytes();
            [32, 20 + high, middle, low, 1]
        });
        peer.say(&update(&[], &attributes, &nlri.collect::<Vec<u8>>()))?;
    }
    Ok(())
}
