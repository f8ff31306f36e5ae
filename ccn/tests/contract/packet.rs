//! The packets that rows send: named parts in, octets out, exact but for the damage that a row asks
//! for. It knows IP and what is above it; Ethernet and VXLAN are put around elsewhere.

use std::net::IpAddr;

pub(crate) use crate::netns::ip;

/// Octets of the marker that every payload begins with.
pub(crate) const MARKER: usize = 8;
/// TCP flags.
pub(crate) const SYN: u8 = 2;
pub(crate) const SYN_ACK: u8 = 0x12;
pub(crate) const ACK: u8 = 0x10;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;

/// An IP packet to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) hops: u8,
    pub(crate) dscp: u8,
    pub(crate) ecn: u8,
    /// Of the whole packet, octets; the payload is filled up to it.
    pub(crate) length: Option<usize>,
    pub(crate) dont_fragment: bool,
    /// Offset in octets and "more fragments".
    pub(crate) fragment: Option<(u16, bool)>,
    /// IPv4 options, a multiple of four octets.
    pub(crate) options: Vec<u8>,
    /// IPv6 extension headers: type and content, which is 6 octets more than a multiple of eight.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) upper: Upper,
    pub(crate) damage: Option<Damage>,
}

/// What is above IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Upper {
    Udp(u16, u16),
    Tcp(u16, u16, u8),
    /// Type, code, and the four octets after the checksum.
    Icmp(u8, u8, [u8; 4]),
    /// An ICMP error that quotes so many octets of a packet.
    Quote(u8, u8, Box<Ip>, usize),
    /// A protocol of which only the number is known.
    Other(u8),
    /// The number of UDP, and nothing behind.
    Nothing,
}

/// What is wrong with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Only so many octets are there.
    Cut(usize),
    /// The length field says this (IPv6: of the payload).
    Length(u16),
    Version(u8),
    /// IPv4: length of the header, in words.
    Words(u8),
    /// IPv4: another header checksum.
    Checksum,
}

fn packet(src: &str, dst: &str, upper: Upper) -> Ip {
    Ip {
        src: ip(src),
        dst: ip(dst),
        hops: 64,
        dscp: 0,
        ecn: 0,
        length: None,
        dont_fragment: true,
        fragment: None,
        options: Vec::new(),
        extensions: Vec::new(),
        upper,
        damage: None,
    }
}

/// UDP from port 40000 to port 7000.
pub(crate) fn udp(src: &str, dst: &str) -> Ip {
    packet(src, dst, Upper::Udp(40_000, 7000))
}

/// TCP from port 40000 to port 80.
pub(crate) fn tcp(src: &str, dst: &str, flags: u8) -> Ip {
    packet(src, dst, Upper::Tcp(40_000, 80, flags))
}

/// An echo request.
pub(crate) fn ping(src: &str, dst: &str) -> Ip {
    let kind = if ip(src).is_ipv4() { 8 } else { 128 };
    packet(src, dst, Upper::Icmp(kind, 0, [0x12, 0x34, 0, 1]))
}

/// An echo reply.
pub(crate) fn pong(src: &str, dst: &str) -> Ip {
    let kind = if ip(src).is_ipv4() { 0 } else { 129 };
    packet(src, dst, Upper::Icmp(kind, 0, [0x12, 0x34, 0, 1]))
}

/// Of a protocol that has nothing to tell flows apart by.
pub(crate) fn other(src: &str, dst: &str, protocol: u8) -> Ip {
    packet(src, dst, Upper::Other(protocol))
}

/// "Port unreachable" about a packet, to its sender.
pub(crate) fn unreachable(src: &str, about: Ip) -> Ip {
    let (kind, code, quoted) = match about.src {
        IpAddr::V4(_) => (3, 3, 28),
        IpAddr::V6(_) => (1, 4, 48),
    };
    let dst = about.src.to_string();
    packet(src, &dst, Upper::Quote(kind, code, Box::new(about), quoted))
}

impl Ip {
    pub(crate) fn hops(mut self, hops: u8) -> Ip {
        self.hops = hops;
        self
    }

    pub(crate) fn dscp(mut self, dscp: u8) -> Ip {
        self.dscp = dscp;
        self
    }

    pub(crate) fn ecn(mut self, ecn: u8) -> Ip {
        self.ecn = ecn;
        self
    }

    pub(crate) fn length(mut self, length: usize) -> Ip {
        self.length = Some(length);
        self
    }

    /// IPv4: a router may send it on in fragments.
    pub(crate) fn may_fragment(mut self) -> Ip {
        self.dont_fragment = false;
        self
    }

    /// A fragment at this offset in octets.
    pub(crate) fn fragment(mut self, offset: u16, more: bool) -> Ip {
        self.dont_fragment = false;
        self.fragment = Some((offset, more));
        self
    }

    pub(crate) fn options(mut self, octets: &[u8]) -> Ip {
        self.options = octets.to_vec();
        self
    }

    /// Adds an IPv6 extension header of `units` times eight octets that says nothing (padding).
    pub(crate) fn extension(mut self, kind: u8, units: usize) -> Ip {
        let mut content = vec![1, (units * 8 - 4) as u8];
        content.resize(units * 8 - 2, 0);
        self.extensions.push((kind, content));
        self
    }

    pub(crate) fn ports(mut self, src: u16, dst: u16) -> Ip {
        self.upper = match self.upper {
            Upper::Udp(..) => Upper::Udp(src, dst),
            Upper::Tcp(.., flags) => Upper::Tcp(src, dst, flags),
            other => panic!("{other:?} has no ports"),
        };
        self
    }

    pub(crate) fn damage(mut self, damage: Damage) -> Ip {
        self.damage = Some(damage);
        self
    }

    /// The packet. The marker is in its payload, so that no two are alike.
    pub(crate) fn octets(&self, marker: u64) -> Vec<u8> {
        let header = self.header_length();
        let room = self.length.map_or(header + 8 + 20, |length| length);
        let upper = self.upper(marker, room.saturating_sub(header));
        let mut packet = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.v4(src.octets(), dst.octets(), &upper),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.v6(src.octets(), dst.octets(), &upper),
            _ => panic!("{self:?} is of two families"),
        };
        if let Some(Damage::Cut(length)) = self.damage {
            packet.truncate(length);
        }
        packet
    }

    fn header_length(&self) -> usize {
        if self.src.is_ipv4() {
            return 20 + self.options.len();
        }
        let extensions: usize = self
            .extensions
            .iter()
            .map(|(_, content)| content.len() + 2)
            .sum();
        40 + extensions + if self.fragment.is_some() { 8 } else { 0 }
    }

    fn v4(&self, src: [u8; 4], dst: [u8; 4], upper: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut packet = vec![0x40 | (header / 4) as u8, self.dscp << 2 | self.ecn];
        packet.extend(((header + upper.len()) as u16).to_be_bytes());
        let (offset, more) = self.fragment.unwrap_or_default();
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(more) << 13 | (offset / 8);
        packet.extend(0x1234_u16.to_be_bytes());
        packet.extend(flags.to_be_bytes());
        packet.extend([self.hops, self.protocol(), 0, 0]);
        packet.extend(src);
        packet.extend(dst);
        packet.extend(&self.options);
        match self.damage {
            Some(Damage::Length(length)) => packet[2..4].copy_from_slice(&length.to_be_bytes()),
            Some(Damage::Version(version)) => packet[0] = version << 4 | packet[0] & 15,
            Some(Damage::Words(words)) => packet[0] = packet[0] & 0xf0 | words,
            _ => {}
        }
        let sum = checksum(&[&packet[..header]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        if self.damage == Some(Damage::Checksum) {
            packet[11] ^= 1;
        }
        packet.extend(upper);
        packet
    }

    fn v6(&self, src: [u8; 16], dst: [u8; 16], upper: &[u8]) -> Vec<u8> {
        let fragment = self.fragment.map(|(offset, more)| {
            let word = (offset & 0xfff8 | u16::from(more)).to_be_bytes();
            (FRAGMENT, vec![word[0], word[1], 0, 0, 0x12, 0x34])
        });
        let chain: Vec<_> = self.extensions.iter().cloned().chain(fragment).collect();
        let kinds = chain.iter().map(|(kind, _)| *kind).chain([self.protocol()]);
        let mut kinds = kinds.collect::<Vec<_>>().into_iter();
        let mut behind = Vec::new();
        let first = kinds.next().unwrap_or_default();
        for ((kind, content), next) in chain.iter().zip(kinds) {
            // The second octet of a fragment header is reserved; of the others it is their length.
            let units = if *kind == FRAGMENT {
                0
            } else {
                (content.len() - 6) / 8
            };
            behind.extend([next, units as u8]);
            behind.extend(content);
        }
        behind.extend(upper);
        let word = 6_u32 << 28
            | u32::from(self.dscp) << 22
            | u32::from(self.ecn) << 20
            | self.flow_label();
        let mut packet = word.to_be_bytes().to_vec();
        packet.extend((behind.len() as u16).to_be_bytes());
        packet.extend([first, self.hops]);
        packet.extend(src);
        packet.extend(dst);
        packet.extend(behind);
        match self.damage {
            Some(Damage::Length(length)) => packet[4..6].copy_from_slice(&length.to_be_bytes()),
            Some(Damage::Version(version)) => packet[0] = version << 4 | packet[0] & 15,
            _ => {}
        }
        packet
    }

    /// One for each flow, as hosts set it (RFC 6437).
    fn flow_label(&self) -> u32 {
        match self.upper {
            Upper::Udp(src, _) | Upper::Tcp(src, ..) => 0x1_0000 | u32::from(src),
            _ => 0x2_3456,
        }
    }

    fn protocol(&self) -> u8 {
        match self.upper {
            Upper::Udp(..) | Upper::Nothing => UDP,
            Upper::Tcp(..) => TCP,
            Upper::Icmp(..) | Upper::Quote(..) if self.src.is_ipv4() => ICMP,
            Upper::Icmp(..) | Upper::Quote(..) => ICMPV6,
            Upper::Other(protocol) => protocol,
        }
    }

    /// So many octets of what is above IP; of a later fragment it is only the middle.
    fn upper(&self, marker: u64, length: usize) -> Vec<u8> {
        if self.fragment.is_some_and(|(offset, _)| offset > 0) {
            return payload(marker, length);
        }
        let mut octets = Vec::new();
        let at = match &self.upper {
            Upper::Udp(src, dst) => {
                octets.extend(src.to_be_bytes());
                octets.extend(dst.to_be_bytes());
                octets.extend((length as u16).to_be_bytes());
                octets.extend([0, 0]);
                octets.extend(payload(marker, length.saturating_sub(8)));
                6
            }
            Upper::Tcp(src, dst, flags) => {
                octets.extend(src.to_be_bytes());
                octets.extend(dst.to_be_bytes());
                octets.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, *flags, 0xff, 0xff, 0, 0, 0, 0]);
                octets.extend(payload(marker, length.saturating_sub(20).max(MARKER)));
                16
            }
            Upper::Icmp(kind, code, rest) => {
                octets.extend([*kind, *code, 0, 0]);
                octets.extend(rest);
                octets.extend(payload(marker, length.saturating_sub(8)));
                2
            }
            Upper::Quote(kind, code, about, quoted) => {
                octets.extend([*kind, *code, 0, 0, 0, 0, 0, 0]);
                let about = about.octets(marker);
                octets.extend(about.get(..*quoted).unwrap_or(&about));
                2
            }
            Upper::Other(_) => return payload(marker, length),
            Upper::Nothing => return octets,
        };
        let pseudo = self.pseudo_header(octets.len());
        let pseudo = if self.protocol() == ICMP {
            &[][..]
        } else {
            &pseudo
        };
        let sum = checksum(&[pseudo, &octets]).to_be_bytes();
        octets[at..at + 2].copy_from_slice(&sum);
        octets
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        pseudo_header(self.src, self.dst, self.protocol(), length)
    }
}

/// What checksums above IP cover beside the octets there.
pub(crate) fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut octets = Vec::new();
    for addr in [src, dst] {
        match addr {
            IpAddr::V4(addr) => octets.extend(addr.octets()),
            IpAddr::V6(addr) => octets.extend(addr.octets()),
        }
    }
    octets.extend((length as u32).to_be_bytes());
    octets.extend([0, 0, 0, protocol]);
    octets
}

fn payload(marker: u64, length: usize) -> Vec<u8> {
    let filling = (MARKER..length.max(MARKER)).map(|at| at as u8);
    marker.to_be_bytes().into_iter().chain(filling).collect()
}

/// The Internet checksum over parts of even lengths (but for the last): RFC 1071.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The packet as the next hop must have it: one hop less, the checksum right, nothing else changed.
pub(crate) fn forwarded(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        packet[8] -= 1;
        right_checksum(&mut packet);
    } else {
        packet[7] -= 1;
    }
    packet
}

/// The packet with another ECN field.
pub(crate) fn marked(packet: &[u8], ecn: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        packet[1] = packet[1] & 0xfc | ecn;
        right_checksum(&mut packet);
    } else {
        packet[1] = packet[1] & 0xcf | ecn << 4;
    }
    packet
}

/// Writes the right checksum into an IPv4 header.
pub(crate) fn right_checksum(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..header]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}
