//! The BGP messages in captured frames, found by their marker. No more is read of them than their
//! type: the dissecting is for `tshark`.

use std::net::IpAddr;

use super::Frames;
use super::packet::{Content, Frame};

/// What every BGP message begins with (RFC 4271 section 4.1).
const MARKER: [u8; 16] = [0xff; 16];
/// Marker, length and type, in octets.
const HEADER: usize = 19;
/// The type of an OPEN.
pub const OPEN: u8 = 1;
/// The type of an UPDATE.
pub const UPDATE: u8 = 2;
/// The type of a NOTIFICATION.
pub const NOTIFICATION: u8 = 3;
/// The type of a KEEPALIVE.
pub const KEEPALIVE: u8 = 4;
/// The type of a ROUTE-REFRESH (RFC 2918).
pub const ROUTE_REFRESH: u8 = 5;

/// A message as it was seen on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who sent it.
    pub from: IpAddr,
    /// Its type (RFC 4271 section 4.1).
    pub kind: u8,
    /// What follows the header.
    pub body: Vec<u8>,
}

/// The messages in the frames, in order. One that TCP sent again is there again; one that is spread
/// over several segments is not there.
pub fn messages(frames: &Frames) -> Vec<Message> {
    let mut found = Vec::new();
    for captured in &frames.raw {
        let Ok(Frame {
            content: Content::Ip(ip),
            ..
        }) = Frame::decode(&captured.bytes)
        else {
            continue;
        };
        found.extend(split(&captured.bytes).into_iter().map(|message| Message {
            from: ip.source,
            kind: message[HEADER - 1],
            body: message[HEADER..].to_vec(),
        }));
    }
    found
}

/// The NOTIFICATIONs among the [`messages`]: who sent it, error code and subcode.
pub fn notifications(frames: &Frames) -> Vec<(IpAddr, u8, u8)> {
    let all = messages(frames).into_iter();
    all.filter_map(|message| match (message.kind, &message.body[..]) {
        (NOTIFICATION, [code, subcode, ..]) => Some((message.from, *code, *subcode)),
        _ => None,
    })
    .collect()
}

/// The messages that begin in these octets and end in them.
fn split(octets: &[u8]) -> Vec<&[u8]> {
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
        assert_eq!(split(&octets), [&keepalive[..], &notification[..]]);
        let cut_off = &keepalive[..HEADER - 1];
        assert_eq!(split(cut_off).len(), 0);
    }
}
