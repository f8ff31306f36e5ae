//! What is decoded can be written, means the same when it is read again, and is then written in
//! the same octets: nothing is lost on the way through.

#![no_main]

use bgp::wire::{EncodeError, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((options, octets)) = fuzz::message(data) else {
        return;
    };
    let Ok(decoded) = Message::decode(&octets, &options) else {
        return;
    };
    let written = match decoded.message.to_bytes(&options) {
        Ok(written) => written,
        // A merged AS4_PATH can be longer than what it was merged from.
        Err(EncodeError::TooLong { .. }) => return,
        Err(error) => panic!("cannot be written: {error}: {:?}", decoded.message),
    };
    let again = match Message::decode(&written, &options) {
        Ok(again) => again,
        Err(error) => panic!("cannot be read: {error}: {:?}", decoded.message),
    };
    assert_eq!(again.message, decoded.message);
    assert_eq!(again.message.to_bytes(&options).as_ref(), Ok(&written));
});
