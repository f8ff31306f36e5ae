//! Whatever the octets and whatever was negotiated: the decoder gives a message or a named error
//! that fits its NOTIFICATION, and the frame splitter never holds on to what it cannot use.

#![no_main]

use bgp::wire::{Message, WireOptions, frame};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((options, octets)) = fuzz::message(data) else {
        return;
    };
    match Message::decode(&octets, &options) {
        Ok(decoded) => {
            // A verdict comes from a finding, and what is said of it can be printed.
            assert_eq!(decoded.verdict().is_some(), !decoded.findings.is_empty());
            for finding in &decoded.findings {
                assert!(!finding.to_string().is_empty());
            }
            if let Message::Update(update) = &decoded.message {
                let _ = update.end_of_rib_family();
                let routes = update.reachable().flat_map(|reach| reach.nlri).count();
                let named = update.treated_as_withdraw().count();
                assert!(routes + update.unreachable().count() <= named);
                // No route is smaller than an octet.
                assert!(named <= octets.len());
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let notification = error.notification();
            assert!((1..=3).contains(&notification.code), "{error}");
            let sent = Message::Notification(notification).to_bytes(&options);
            assert!(sent.is_ok(), "{error}: {sent:?}");
        }
    }
    split(&octets, &options);
});

/// The same octets as a stream that arrives in two reads.
fn split(octets: &[u8], options: &WireOptions) {
    let (first, second) = octets.split_at(octets.len() / 2);
    let mut buffer = BytesMut::new();
    for read in [first, second] {
        buffer.extend_from_slice(read);
        loop {
            match frame::split(&mut buffer, options) {
                Ok(Some(message)) => assert!(message.len() <= options.max_len()),
                Ok(None) => break assert!(buffer.len() < options.max_len()),
                Err(_) => return,
            }
        }
    }
}
