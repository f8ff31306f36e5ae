//! A second opinion on every octet that we write: thousands of messages in one file, as Wireshark's
//! dissector reads them, compared field by field with what they were made from.

mod common_ground;
// The messages are those of the codec's own tests; not all that is there is of use here.
#[allow(dead_code)]
#[path = "../../../bgp/tests/wire_codec/generate.rs"]
mod generate;
#[allow(dead_code)]
#[path = "../../../bgp/tests/wire_codec/hex.rs"]
mod hex;
#[allow(dead_code)]
#[path = "../../../bgp/tests/wire_codec/table.rs"]
mod table;
mod translate;

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;

use bgp::wire::{Message, Notification, WireOptions, frame, pack};
use bytes::BytesMut;
use interop::bench::stream::Stream;
use interop::capture::dissection::dissect;
use interop::capture::{Captured, pcap, segment};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use translate::{Told, told};

/// Generated messages of each seed.
const GENERATED: usize = 1500;
/// The seed of the messages that are the same in every run. Of others there are as many, of a seed
/// that is named when they fail; `DISSECTOR_SEED=N` takes that one again.
const SEED: u64 = 7854;
/// The port that the dissector knows.
const BGP: u16 = 179;

/// A message and what it means.
struct Sample {
    name: String,
    four_octet_as: bool,
    octets: Vec<u8>,
    told: Told,
}

impl Sample {
    fn new(name: String, options: &WireOptions, message: Message, octets: &[u8]) -> Sample {
        Sample {
            name,
            four_octet_as: options.four_octet_as,
            octets: octets.to_vec(),
            told: Told::of(common_ground::untyped(message), options),
        }
    }
}

/// Messages of every type and form.
fn generated(seed: u64) -> Vec<Sample> {
    let mut octets = [0; 32];
    octets[..8].copy_from_slice(&seed.to_be_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &octets);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let strategy =
        generate::options().prop_flat_map(|options| (Just(options), generate::message(options)));
    let sample = |index| {
        let (options, message) = strategy.new_tree(&mut runner).expect("a message").current();
        let message = common_ground::common_ground(message, &options);
        let octets = message.to_bytes(&options).expect("fits");
        let name = format!("generated {index}, DISSECTOR_SEED={seed}");
        Sample::new(name, &options, message, &octets)
    };
    (0..GENERATED).map(sample).collect()
}

/// The rows of the codec's table.
fn from_table() -> Vec<Sample> {
    let vectors = table::vectors().into_iter();
    let sample = |vector: table::Vector| {
        let (options, message) = (&vector.options, vector.message);
        let shown = common_ground::common_ground(message.clone(), options);
        let octets = match shown == message {
            true => hex::message(vector.kind, &hex::octets(vector.body)),
            false => shown.to_bytes(options).expect("fits").to_vec(),
        };
        Sample::new(
            format!("{:?} of the table", vector.name),
            options,
            shown,
            &octets,
        )
    };
    vectors.map(sample).collect()
}

/// NOTIFICATIONs of every code and subcode, and some that there are not: chance meets few of those that
/// are dissected further.
fn notifications() -> Vec<Sample> {
    let options = WireOptions::default();
    let codes = (0..=8).flat_map(|code| (0..=12).map(move |subcode| (code, subcode)));
    let with_data = codes.flat_map(|(code, subcode)| {
        let text = [&[7][..], b"go away"].concat();
        let data = [
            vec![],
            vec![0xbe, 0xef],
            vec![0, 0, 253, 233],
            text,
            vec![9; 40],
        ];
        data.map(|data| Notification {
            code,
            subcode,
            data: data.into(),
        })
    });
    let sample = |notification: Notification| {
        let name = format!("{notification:?}");
        let message = Message::Notification(notification);
        let message = common_ground::common_ground(message, &options);
        let octets = message.to_bytes(&options).expect("fits");
        Sample::new(name, &options, message, &octets)
    };
    with_data.map(sample).collect()
}

/// What the bench sends: written by itself, read by us.
fn from_the_bench() -> Vec<Sample> {
    let stream = Stream::generate(4000, 65001, Ipv4Addr::new(10, 0, 0, 1));
    let octets = [&stream.announce[..], &stream.withdraw[..]].concat();
    let options = WireOptions {
        four_octet_as: true,
        ..WireOptions::default()
    };
    split("the bench's stream", &octets, &options)
}

/// Many routes with the same attributes, in messages as long as may be.
fn packed() -> Vec<Sample> {
    let (attributes, tables) = table::many_routes(2000);
    let mut samples = Vec::new();
    for (family, next_hop, routes) in tables {
        for four_octet_as in [true, false] {
            let options = WireOptions {
                four_octet_as,
                ..WireOptions::default()
            };
            let mut stream = BytesMut::new();
            let all = || routes.iter().copied();
            pack::announce(family, next_hop, &attributes, all(), &options, &mut stream)
                .expect("fits");
            pack::withdraw(family, all(), &options, &mut stream).expect("fits");
            let name = format!("packed {family:?}");
            samples.extend(split(&name, &stream, &options));
        }
    }
    samples
}

fn split(name: &str, octets: &[u8], options: &WireOptions) -> Vec<Sample> {
    let mut stream = BytesMut::from(octets);
    let mut samples = Vec::new();
    while let Some(frame) = frame::split(&mut stream, options).expect("a message") {
        let decoded = Message::decode(&frame, options).expect("a message");
        let name = format!("{name}, {}", samples.len());
        samples.push(Sample::new(name, options, decoded.message, &frame));
    }
    assert!(stream.is_empty());
    samples
}

/// Has all dissected in one go, each on a connection of its own, and collects what is not as it was
/// written.
fn differences(samples: &[&Sample], four_octet_as: bool) -> Result<Vec<String>, Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let file = scratch.path().join("messages.pcap");
    let connections = samples.iter().zip(0..);
    let frames: Vec<(usize, Vec<Captured>)> = connections
        .map(|(sample, number)| segment::connection(number, BGP, &sample.octets))
        .enumerate()
        .collect();
    let all: Vec<Captured> = frames
        .iter()
        .flat_map(|(_, frames)| frames.clone())
        .collect();
    pcap::write(&file, &all)?;
    let width = if four_octet_as { "4" } else { "2" };
    let dissected = dissect(&file, "bgp", &[&format!("bgp.asn_len:{width} octet")])?;
    assert_eq!(dissected.len(), all.len());
    let mut dissected = dissected.into_iter();
    let mut differences = Vec::new();
    for (index, frames) in frames {
        let sample = samples[index];
        let fields: Vec<_> = dissected.by_ref().take(frames.len()).flatten().collect();
        let read = match &fields[..] {
            [message] => {
                let mut faults = message.faults();
                faults.retain(|fault| !common_ground::is_of_a_family(fault, &sample.told.message));
                match faults.is_empty() {
                    true => told(message),
                    false => Err(faults.join("; ")),
                }
            }
            _ => Err(format!("{} messages", fields.len())),
        };
        if read.as_ref() != Ok(&sample.told) {
            let octets = hex::show(&sample.octets);
            differences.push(format!(
                "{}:\n  {:?}\n  is read as\n  {read:?}\n  {octets}",
                sample.name, sample.told
            ));
        }
    }
    Ok(differences)
}

#[test]
fn every_message_is_read_as_it_was_meant() -> Result<(), Box<dyn Error>> {
    let fresh = match std::env::var("DISSECTOR_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => RandomState::new().hash_one(SEED) >> 32,
    };
    let samples: Vec<Sample> = [
        from_table(),
        generated(SEED),
        generated(fresh),
        notifications(),
        packed(),
        from_the_bench(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut differing = Vec::new();
    for four_octet_as in [true, false] {
        let of_width = |sample: &&Sample| sample.four_octet_as == four_octet_as;
        let samples: Vec<&Sample> = samples.iter().filter(of_width).collect();
        assert!(samples.len() > GENERATED / 2, "{}", samples.len());
        differing.extend(differences(&samples, four_octet_as)?);
    }
    let some = differing.iter().take(5).cloned().collect::<Vec<_>>();
    let count = (differing.len(), samples.len());
    assert!(
        some.is_empty(),
        "{count:?} (fresh seed {fresh}):\n{}",
        some.join("\n")
    );
    Ok(())
}

/// A single bit is enough.
#[test]
fn what_is_read_otherwise_is_named() -> Result<(), Box<dyn Error>> {
    let mut samples = from_table();
    samples.retain(|sample| sample.four_octet_as && sample.octets.len() > 60);
    let count = samples.len();
    assert!(count > 5);
    for sample in &mut samples {
        let last = sample.octets.last_mut().ok_or("no octets")?;
        // Of a prefix's length, an AS number or the like.
        *last ^= 1;
    }
    let all: Vec<&Sample> = samples.iter().collect();
    let differences = differences(&all, true)?;
    for (sample, difference) in samples.iter().zip(&differences) {
        assert!(difference.starts_with(&sample.name), "{difference}");
    }
    assert_eq!(differences.len(), count);
    Ok(())
}
