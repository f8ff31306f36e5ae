//! The BGP messages in captured frames, found by their marker. No more is read of them than a type
//! and, of a NOTIFICATION, what it says: the dissecting is for `tshark`.

use std::net::IpAddr;

use super::Frames;
use super::packet::{Content, Frame};

/// What every BGP message begins with (RFC 4271 section 4.1).
const MARKER: [u8; 16] = [0xff; 16];
/// Marker, length and type, in octets.
const HEADER: usize = 19;
const NOTIFICATION: u8 = 3;

/// The NOTIFICATIONs among the frames, in order: who sent it, error code and subcode. One that TCP
/// sent again is there again.
pub fn notifications(frames: &Frames) -> Vec<(IpAddr, u8, u8)> {
    let mut found = Vec::new();
    for captured in &frames.raw {
        let Ok(Frame {
            content: Content::Ip(ip),
            ..
        }) = Frame::decode(&captured.bytes)
        else {
            continue;
        };
        for message in messages(&captured.bytes) {
            if let [NOTIFICATION, code, subcode, ..] = message[HEADER - 1..] {
                found.push((ip.source, code, subcode));
            }
        }
    }
    found
}

/// The messages that begin in these octets and end in them.
fn messages(octets: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut rest = octets;
    while let Some(start) = rest.windows(MARKER.len()).position(|w| w == MARKER) {
        let [.., high, low, _] = rest[start..]
            .first_chunk::<HEADER>()
            .copied()
            .unwrap_or([0; HEADER]);
        let length = usize::from(u16::from_be_bytes([high, low]));
        match rest.get(start..start + length) {
            Some(message) if length >= HEADER => {
                found.push(message);
                rest = &rest[start + length..];
            }
            _ => rest = &rest[start + 1..],
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_one_behind_the_other() {
        let message = |tail: &[u8]| {
            let length = (MARKER.len() + 2 + tail.len()) as u8;
            [&MARKER[..], &[0, length], tail].concat()
        };
        let (keepalive, notification) = (message(&[4]), message(&[3, 2, 7, 1]));
        // The octets before the first marker look like a part of it.
        let octets = [
            &[1, 0xff, 0xff][..],
            &keepalive,
            &notification,
            &MARKER[..3],
        ]
        .concat();
        assert_eq!(messages(&octets), [&keepalive[..], &notification[..]]);
        let cut_off = &keepalive[..HEADER - 1];
        assert_eq!(messages(cut_off).len(), 0);
    }
}
