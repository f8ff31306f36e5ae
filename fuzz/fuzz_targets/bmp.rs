//! BMP messages as a stream: each is one or a named error, and what is read can be written and
//! means the same then.

#![no_main]

use bgp::bmp::Message;
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut buffer = BytesMut::from(data);
    loop {
        let octets = match Message::split(&mut buffer) {
            Ok(Some(octets)) => octets,
            Ok(None) => return,
            Err(error) => return assert!(!error.to_string().is_empty()),
        };
        let message = match Message::decode(octets) {
            Ok(message) => message,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        let Ok(written) = message.to_bytes() else {
            continue;
        };
        match Message::decode(written) {
            Ok(again) => assert_eq!(again, message),
            Err(error) => panic!("cannot be read: {error}: {message:?}"),
        }
    }
});
