//! Any file can be read to its end: each record is one or a named error, holds no more than the
//! file had, and a record that is read can be written and means the same then.

#![no_main]

use bgp::mrt::{Body, MAX_RECORD_LEN, PutError, ReadError, Reader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut reader = Reader::new(data);
    let mut before = 0;
    while let Some(record) = reader.next() {
        let after = reader.offset();
        assert!(after <= data.len() as u64);
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                if !matches!(error, ReadError::Record { .. }) {
                    assert!(reader.next().is_none());
                    return;
                }
                // Or the reader would never end.
                assert!(after > before);
                before = after;
                continue;
            }
        };
        assert!(after > before);
        before = after;
        match &record.body {
            Body::Rib(rib) => {
                for entry in &rib.entries {
                    let _ = entry.decode(&rib.prefix);
                }
            }
            Body::Message(message) => {
                let _ = message.decode();
            }
            _ => {}
        }
        let written = match record.to_bytes() {
            Ok(written) => written,
            // AS numbers of 2 octets are written with 4, invalid UTF-8 as replacement characters.
            Err(PutError::TooLong { .. }) => continue,
            Err(error) => panic!("cannot be written: {error}: {record:?}"),
        };
        assert!(written.len() <= MAX_RECORD_LEN + bgp::mrt::HEADER_LEN);
        let again = Reader::new(&written[..]).next();
        match again {
            Some(Ok(again)) => assert_eq!(again, record),
            other => panic!("cannot be read: {other:?}: {record:?}"),
        }
    }
});
