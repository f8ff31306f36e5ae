//! What the fuzz targets share: how octets of the fuzzer become what a session has agreed on, and
//! become messages. Judges nothing; that is the targets' part.

pub mod driver;
pub mod input;

use bgp::wire::frame::HEADER_LEN;
use bgp::wire::{Family, FamilySet, WireOptions};

/// What was negotiated, from one octet: a bit each. Path identifiers go both ways or neither, so
/// that what is read can be written.
#[allow(clippy::needless_update)] // options may come
pub fn options(octet: u8) -> WireOptions {
    let bit = |bit: u8| octet & (1 << bit) != 0;
    let mut add_path = FamilySet::EMPTY;
    for (family, at) in Family::ALL.into_iter().zip(4..) {
        if bit(at) {
            add_path.insert(family);
        }
    }
    WireOptions {
        four_octet_as: bit(0),
        extended_messages: bit(1),
        internal: bit(2),
        ipv4_next_hop_v6: bit(3),
        add_path_receive: add_path,
        add_path_send: add_path,
        ..WireOptions::default()
    }
}

/// A message of this type around a body, cut to what a length field can say.
pub fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let body = &body[..body.len().min(usize::from(u16::MAX) - HEADER_LEN)];
    let length = (HEADER_LEN + body.len()) as u16;
    let mut message = vec![0xff; 16];
    message.extend_from_slice(&length.to_be_bytes());
    message.push(kind);
    message.extend_from_slice(body);
    message
}

/// Options and a message: the first octet is what was negotiated, the second a message type to
/// put a header around the rest, or above 7 to take the rest as it is.
pub fn message(data: &[u8]) -> Option<(WireOptions, Vec<u8>)> {
    let (&[first, kind], rest) = data.split_first_chunk()?;
    let octets = match kind {
        0..8 => framed(kind, rest),
        _ => rest.to_vec(),
    };
    Some((options(first), octets))
}
