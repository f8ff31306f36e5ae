//! What holds for every message and for every sequence of octets.

use bgp::wire::{EncodeError, Message, Prefix, WireOptions, frame};
use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::{generate, hex};

/// Options with a message that is valid under them.
fn exchange() -> impl Strategy<Value = (WireOptions, Message)> {
    generate::options().prop_flat_map(|options| (Just(options), generate::message(options)))
}

/// Whatever the octets: no panic, and what is accepted can be written and means the same then.
fn check_decoder(octets: &[u8], options: &WireOptions) -> Result<(), TestCaseError> {
    let decoded = match Message::decode(octets, options) {
        Ok(decoded) => decoded,
        Err(error) => {
            let notification = error.notification();
            prop_assert!(
                (1..=3).contains(&notification.code),
                "{error}: {notification}"
            );
            // It must fit into the NOTIFICATION it is for.
            let sent = Message::Notification(notification).to_bytes(options);
            prop_assert!(sent.is_ok(), "{error}: {sent:?}");
            return Ok(());
        }
    };
    match decoded.message.to_bytes(options) {
        Ok(written) => {
            let again = Message::decode(&written, options);
            let again = again.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(again.message, decoded.message);
        }
        // A merged AS4_PATH can be longer than what it was merged from.
        Err(EncodeError::TooLong { .. }) => {}
        Err(error) => prop_assert!(false, "cannot be written: {error}"),
    }
    Ok(())
}

const STREAM: WireOptions = WireOptions {
    allow_as_set: true,
    ..WireOptions::BEFORE_OPEN
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn every_message_survives_the_wire((options, message) in exchange()) {
        let octets = message.to_bytes(&options).expect("fits");
        prop_assert!(octets.len() <= options.max_len());
        let decoded = Message::decode(&octets, &options);
        let decoded = decoded.map_err(|error| {
            TestCaseError::fail(format!("{error}: {}", hex::show(&octets)))
        })?;
        prop_assert_eq!(decoded.findings, vec![]);
        prop_assert_eq!(decoded.message, message);
    }

    #[test]
    fn a_stream_cut_anywhere_yields_the_same_messages(
        messages in vec(generate::message(STREAM), 1..5),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let options = STREAM;
        let mut stream = BytesMut::new();
        for message in &messages {
            message.encode(&options, &mut stream).expect("fits");
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.sort_unstable();
        cuts.push(stream.len());
        let (mut buffer, mut read, mut from) = (BytesMut::new(), Vec::new(), 0);
        for cut in cuts {
            buffer.extend_from_slice(&stream[from..cut]);
            from = cut;
            while let Some(frame) = frame::split(&mut buffer, &options).expect("valid stream") {
                read.push(Message::decode(&frame, &options).expect("valid message").message);
            }
        }
        prop_assert_eq!(read, messages);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn arbitrary_octets_never_panic(
        options in generate::any_options(),
        octets in vec(any::<u8>(), 0..300),
    ) {
        check_decoder(&octets, &options)?;
        let _ = frame::split(&mut BytesMut::from(&octets[..]), &options);
    }

    #[test]
    fn arbitrary_bodies_never_panic(
        options in generate::any_options(),
        kind in 1..=5_u8,
        body in vec(any::<u8>(), 0..300),
    ) {
        check_decoder(&hex::message(kind, &body), &options)?;
    }

    #[test]
    fn mutated_messages_never_panic(
        (options, message) in exchange(),
        changes in vec((any::<Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<Index>()),
        insert in proptest::option::of((any::<Index>(), vec(any::<u8>(), 1..5))),
        repair_length in any::<bool>(),
    ) {
        let mut octets = message.to_bytes(&options).expect("fits").to_vec();
        for (at, octet) in changes {
            // Behind the marker, where it hurts.
            let at = 16 + at.index(octets.len() - 16);
            octets[at] = octet;
        }
        if let Some(cut) = cut {
            octets.truncate(19 + cut.index(octets.len() - 18));
        }
        if let Some((at, more)) = insert {
            let at = 19 + at.index(octets.len() - 18);
            octets.splice(at..at, more);
        }
        if repair_length {
            let length = u16::try_from(octets.len()).expect("short").to_be_bytes();
            octets[16..18].copy_from_slice(&length);
        }
        check_decoder(&octets, &options)?;
    }

    #[test]
    fn prefixes_survive_text(
        prefix in generate::family().prop_flat_map(generate::prefix),
    ) {
        prop_assert_eq!(prefix.to_string().parse::<Prefix>(), Ok(prefix));
        let json = serde_json::to_string(&prefix).expect("writable");
        prop_assert_eq!(serde_json::from_str::<Prefix>(&json).expect("readable"), prefix);
    }

    #[test]
    fn containment_agrees_with_ipnet(
        (one, other) in generate::family().prop_flat_map(|family| {
            // Lengths near each other and a shared start make containment likely.
            (generate::prefix(family), 0..=family.max_len(), any::<bool>())
                .prop_map(move |(one, len, inside)| {
                    let other = Prefix::containing(one.addr(), len).expect("fits");
                    if inside { (one, other) } else { (other, one) }
                })
        }),
        unrelated in generate::family().prop_flat_map(generate::prefix),
    ) {
        for (a, b) in [(one, other), (other, one), (one, unrelated), (unrelated, one)] {
            let (net_a, net_b) = (ipnet::IpNet::from(a), ipnet::IpNet::from(b));
            prop_assert_eq!(a.contains(&b), net_a.contains(&net_b), "{} {}", a, b);
            prop_assert_eq!(a.contains_addr(b.addr()), net_a.contains(&b.addr()), "{} {}", a, b);
            prop_assert_eq!(a.overlaps(&b), a.contains(&b) || b.contains(&a));
            prop_assert_eq!(Prefix::try_from(net_a), Ok(a));
        }
    }
}
