//! Frames around octets that were never on a wire: what TCP would have carried, for a dissector to
//! read. Sends nothing; the checksums are left out, as a veth leaves them.

use std::net::Ipv4Addr;
use std::time::UNIX_EPOCH;

use super::{Captured, Direction};

/// Octets of a segment: what is longer is spread over several.
const LONGEST: usize = 60_000;
/// Octets of the headers of IPv4 and TCP, both without options.
const HEADERS: usize = 40;
/// ACK and PSH.
const FLAGS: u8 = 0x18;

/// One side of connection `number`, to `port`, from its beginning: `octets` in as few segments as
/// there can be. Two connections with different numbers have different addresses.
pub fn connection(number: u16, port: u16, octets: &[u8]) -> Vec<Captured> {
    let mut sequence = 1_u32;
    octets
        .chunks(LONGEST)
        .map(|piece| {
            let frame = frame(number, port, sequence, piece);
            sequence = sequence.wrapping_add(piece.len() as u32);
            Captured {
                at: UNIX_EPOCH,
                direction: Direction::Out,
                bytes: frame,
            }
        })
        .collect()
}

fn frame(number: u16, port: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    let (from, to) = (Ipv4Addr::new(10, 0, high, low), Ipv4Addr::new(10, 1, 0, 1));
    // No more than LONGEST of payload.
    let length = (HEADERS + payload.len()) as u16;
    let mut frame = Vec::with_capacity(14 + usize::from(length));
    // Ethernet: destination, source, IPv4.
    frame.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00]);
    // IPv4 without options, not to be fragmented; TTL, TCP.
    frame.extend([0x45, 0xc0]);
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    // TCP: ports, sequence, acknowledged; header of 20 octets, flags, window.
    frame.extend(1024_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend(sequence.to_be_bytes());
    frame.extend(1_u32.to_be_bytes());
    frame.extend([0x50, FLAGS, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::packet::{Content, Frame, Transport};

    #[test]
    fn they_are_frames_with_all_the_octets() {
        let octets: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let frames = connection(0x0102, 179, &octets);
        let mut carried = Vec::new();
        for captured in &frames {
            let frame = Frame::decode(&captured.bytes).expect("a frame");
            let Content::Ip(ip) = frame.content else {
                panic!("{frame:?}")
            };
            assert_eq!(ip.source, Ipv4Addr::new(10, 0, 1, 2));
            assert_eq!(ip.length + 14, captured.bytes.len());
            let to_bgp = matches!(
                ip.content,
                Transport::Tcp {
                    destination: 179,
                    ..
                }
            );
            assert!(to_bgp, "{ip:?}");
            carried.extend(&captured.bytes[14 + HEADERS..]);
        }
        assert_eq!((frames.len(), carried), (2, octets));
    }
}
