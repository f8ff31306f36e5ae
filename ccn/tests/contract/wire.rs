//! Frames as the far ends send them: Ethernet, and VXLAN in whole packets or in fragments.

use std::net::IpAddr;

use crate::packet::{checksum, pseudo_header, right_checksum};

/// The largest IP packet on the underlay and to the IDC.
pub(crate) const LARGEST: usize = 1500;
const VXLAN_PORT: u16 = 4789;

/// The header that VXLAN goes behind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outer {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) dscp: u8,
    pub(crate) ecn: u8,
    pub(crate) port: u16,
    pub(crate) vni: u32,
}

pub(crate) fn ethernet(dst: [u8; 6], src: [u8; 6], ethertype: u16, content: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &ethertype.to_be_bytes(), content].concat()
}

/// The IP packets that carry a frame, with their EtherType.
pub(crate) fn vxlan(outer: &Outer, frame: &[u8]) -> (u16, Vec<Vec<u8>>) {
    let length = (16 + frame.len()) as u16;
    let mut udp = outer.port.to_be_bytes().to_vec();
    udp.extend(VXLAN_PORT.to_be_bytes());
    udp.extend(length.to_be_bytes());
    udp.extend([0, 0, 8, 0, 0, 0]);
    udp.extend(outer.vni.to_be_bytes()[1..].iter().chain(&[0]));
    udp.extend(frame);
    if outer.src.is_ipv6() {
        let pseudo = pseudo_header(outer.src, outer.dst, 17, udp.len());
        let sum = match checksum(&[&pseudo, &udp]) {
            0 => 0xffff,
            sum => sum,
        };
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    match (outer.src, outer.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let header = |offset: usize, length: usize, more: bool| {
                let mut header = vec![0x45, outer.dscp << 2 | outer.ecn];
                header.extend(((20 + length) as u16).to_be_bytes());
                header.extend(outer.port.to_be_bytes());
                header.extend((u16::from(more) << 13 | (offset / 8) as u16).to_be_bytes());
                header.extend([64, 17, 0, 0]);
                header.extend(src.octets());
                header.extend(dst.octets());
                right_checksum(&mut header);
                header
            };
            (0x0800, in_pieces(&udp, LARGEST - 20, header))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let whole = udp.len() <= LARGEST - 40;
            let header = |offset: usize, length: usize, more: bool| {
                let word = 6_u32 << 28 | u32::from(outer.dscp) << 22 | u32::from(outer.ecn) << 20;
                let mut header = word.to_be_bytes().to_vec();
                let behind = if whole { length } else { length + 8 };
                header.extend((behind as u16).to_be_bytes());
                header.extend([if whole { 17 } else { 44 }, 64]);
                header.extend(src.octets());
                header.extend(dst.octets());
                if !whole {
                    header.extend([17, 0]);
                    header.extend((offset as u16 | u16::from(more)).to_be_bytes());
                    header.extend(u32::from(outer.port).to_be_bytes());
                }
                header
            };
            (
                0x86dd,
                in_pieces(&udp, LARGEST - if whole { 40 } else { 48 }, header),
            )
        }
        both => panic!("{both:?} are of two families"),
    }
}

fn in_pieces(
    octets: &[u8],
    room: usize,
    header: impl Fn(usize, usize, bool) -> Vec<u8>,
) -> Vec<Vec<u8>> {
    let room = room / 8 * 8 + if octets.len() <= room { 8 } else { 0 };
    let pieces = octets.chunks(room).enumerate().map(|(number, piece)| {
        let offset = number * room;
        let more = offset + piece.len() < octets.len();
        [header(offset, piece.len(), more), piece.to_vec()].concat()
    });
    pieces.collect()
}
