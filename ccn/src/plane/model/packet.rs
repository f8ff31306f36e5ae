//! A packet as far as the contract looks at it, and how it is read from octets.
//!
//! Reading is strict: what a forwarder must not send on is an error with the reason it is counted
//! under. Nothing here knows records.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::DropReason;
use crate::record::Vni;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;
/// Hop-by-hop options, routing, destination options: next header and length in one place.
const SKIPPED: [u8; 3] = [0, 43, 60];
/// The most IPv6 extension headers that are looked behind.
const MOST_EXTENSIONS: usize = 6;

/// Where a packet comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Ingress {
    /// Plain IP from the IDC.
    Idc,
    /// VXLAN from a hypervisor.
    Vxlan {
        /// The VNI it carries.
        vni: Vni,
    },
}

/// A packet, as far as the contract looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Packet {
    /// Where it comes in.
    pub ingress: Ingress,
    /// Inner source address.
    pub src: IpAddr,
    /// Inner destination address, of the same family.
    pub dst: IpAddr,
    /// What else of it matters.
    #[serde(skip)]
    pub shape: Shape,
}

/// What of a packet matters beside its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// TTL (IPv4) or hop limit (IPv6), as it arrives.
    pub hop_limit: u8,
    /// Octets of the whole IP packet.
    pub length: usize,
    /// A router may send it on in fragments: IPv4 without "don't fragment".
    pub may_fragment: bool,
    /// No ICMP error is ever sent about it (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 e).
    pub unanswered: bool,
    /// What flows are told apart by.
    pub upper: Upper,
}

impl Default for Shape {
    /// A packet as hosts send them, small.
    fn default() -> Shape {
        Shape {
            hop_limit: 64,
            length: 0,
            may_fragment: false,
            unanswered: false,
            upper: Upper::Other,
        }
    }
}

/// What is above IP, as far as flows are told apart by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upper {
    /// TCP, UDP, or another protocol, of which nothing but the number is known.
    Ports {
        /// Its protocol number.
        protocol: u8,
        /// Source port; 0 where there is none.
        src: u16,
        /// Destination port; 0 where there is none.
        dst: u16,
    },
    /// ICMP echo, of either version.
    Echo {
        /// A request; else a reply.
        request: bool,
        /// The identifier.
        id: u16,
    },
    /// An ICMP error about a packet of a flow.
    Error {
        /// The packet it quotes.
        about: Quoted,
    },
    /// Nothing that tells its flow: a later fragment, ICMP of another type.
    Other,
}

/// A packet that an ICMP error quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    /// Its source.
    pub src: IpAddr,
    /// Its destination.
    pub dst: IpAddr,
    /// Its protocol number.
    pub protocol: u8,
    /// Source port, or the identifier of an echo request.
    pub src_port: u16,
    /// Destination port, or the identifier of an echo request.
    pub dst_port: u16,
}

impl Packet {
    /// One of which only the addresses matter.
    #[must_use]
    pub fn new(ingress: Ingress, src: IpAddr, dst: IpAddr) -> Packet {
        Packet {
            ingress,
            src,
            dst,
            shape: Shape::default(),
        }
    }

    /// Reads what an Ethernet header of this type is followed by. What lies behind the end of the
    /// IP packet is padding.
    ///
    /// # Errors
    /// [`DropReason::NotIp`] and [`DropReason::Malformed`].
    pub fn read(ingress: Ingress, ethertype: u16, octets: &[u8]) -> Result<Packet, DropReason> {
        let header = match ethertype {
            IPV4 => v4(octets),
            IPV6 => v6(octets),
            _ => return Err(DropReason::NotIp),
        };
        let Header {
            src,
            dst,
            hop_limit,
            length,
            may_fragment,
            protocol,
            payload,
        } = header.ok_or(DropReason::Malformed)?;
        // RFC 4443 has no such exception for IPv6.
        let later = src.is_ipv4() && payload.is_none();
        let upper = payload.map_or(Upper::Other, |payload| upper(protocol, payload));
        let is_error = match protocol {
            ICMP => payload.is_some_and(|p| matches!(p.first(), Some(3 | 4 | 5 | 11 | 12))),
            ICMPV6 => payload.is_some_and(|p| matches!(p.first(), Some(0..128))),
            _ => false,
        };
        let shape = Shape {
            hop_limit,
            length,
            may_fragment,
            unanswered: later || is_error || !is_one_host(src) || !is_one_host(dst),
            upper,
        };
        Ok(Packet {
            ingress,
            src,
            dst,
            shape,
        })
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ingress {
            Ingress::Idc => f.write_str("from the IDC")?,
            Ingress::Vxlan { vni } => write!(f, "VXLAN {vni}")?,
        }
        write!(f, ", {} -> {}", self.src, self.dst)
    }
}

/// An IP header without what is only for the next router.
struct Header<'a> {
    src: IpAddr,
    dst: IpAddr,
    hop_limit: u8,
    length: usize,
    may_fragment: bool,
    protocol: u8,
    /// Nothing in a later fragment.
    payload: Option<&'a [u8]>,
}

/// `None` where a router must drop it (RFC 1812 section 5.2.2).
fn v4(octets: &[u8]) -> Option<Header<'_>> {
    let fixed: &[u8; 20] = octets.first_chunk()?;
    let header = usize::from(fixed[0] & 15) * 4;
    let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if fixed[0] >> 4 != 4 || header < 20 || length < header {
        return None;
    }
    let packet = octets.get(..length)?;
    if checksum(packet.get(..header)?) != 0 {
        return None;
    }
    let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
    let at = |from: usize| {
        Ipv4Addr::new(
            fixed[from],
            fixed[from + 1],
            fixed[from + 2],
            fixed[from + 3],
        )
    };
    Some(Header {
        src: at(12).into(),
        dst: at(16).into(),
        hop_limit: fixed[8],
        length,
        may_fragment: fragment & 0x4000 == 0,
        protocol: fixed[9],
        payload: (fragment & 0x1fff == 0).then(|| &packet[header..]),
    })
}

fn v6(octets: &[u8]) -> Option<Header<'_>> {
    let fixed: &[u8; 40] = octets.first_chunk()?;
    let length = 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    if fixed[0] >> 4 != 6 {
        return None;
    }
    let packet = octets.get(..length)?;
    let (protocol, payload) = behind_extensions(fixed[6], &packet[40..])?;
    Some(Header {
        src: address(&fixed[8..24])?,
        dst: address(&fixed[24..40])?,
        hop_limit: fixed[7],
        length,
        may_fragment: false,
        protocol,
        payload,
    })
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 16] = octets.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

/// The protocol behind IPv6 extension headers and what it says, which is nothing in a later fragment;
/// `None` where they go beyond the packet.
fn behind_extensions(first: u8, payload: &[u8]) -> Option<(u8, Option<&[u8]>)> {
    let (mut protocol, mut rest) = (first, payload);
    for _ in 0..MOST_EXTENSIONS {
        if protocol != FRAGMENT && !SKIPPED.contains(&protocol) {
            break;
        }
        let header: &[u8; 8] = rest.first_chunk()?;
        let length = match protocol {
            FRAGMENT if u16::from_be_bytes([header[2], header[3]]) & 0xfff8 != 0 => {
                return Some((header[0], None));
            }
            FRAGMENT => 8,
            _ => 8 + usize::from(header[1]) * 8,
        };
        (protocol, rest) = (header[0], rest.get(length..)?);
    }
    Some((protocol, Some(rest)))
}

fn upper(protocol: u8, payload: &[u8]) -> Upper {
    let two = |at: usize| {
        let octets = payload.get(at..at + 2)?;
        Some(u16::from_be_bytes([octets[0], octets[1]]))
    };
    let read = || match protocol {
        TCP | UDP => Some(Upper::Ports {
            protocol,
            src: two(0)?,
            dst: two(2)?,
        }),
        ICMP | ICMPV6 => match (protocol, payload.first()?) {
            (ICMP, 8) | (ICMPV6, 128) => Some(Upper::Echo {
                request: true,
                id: two(4)?,
            }),
            (ICMP, 0) | (ICMPV6, 129) => Some(Upper::Echo {
                request: false,
                id: two(4)?,
            }),
            (ICMP, 3 | 11 | 12) | (ICMPV6, 1..=4) => {
                let about = quoted(protocol, payload.get(8..)?)?;
                Some(Upper::Error { about })
            }
            _ => None,
        },
        _ => Some(Upper::Ports {
            protocol,
            src: 0,
            dst: 0,
        }),
    };
    read().unwrap_or(Upper::Other)
}

/// What an ICMP error quotes: the beginning of a packet, whose own lengths say more than there is.
fn quoted(protocol: u8, octets: &[u8]) -> Option<Quoted> {
    let (src, dst, (inner, payload)) = if protocol == ICMP {
        let fixed: &[u8; 20] = octets.first_chunk()?;
        let header = usize::from(fixed[0] & 15) * 4;
        let first = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x1fff == 0;
        if fixed[0] >> 4 != 4 || header < 20 || !first {
            return None;
        }
        let at = |from: usize| {
            Ipv4Addr::new(
                fixed[from],
                fixed[from + 1],
                fixed[from + 2],
                fixed[from + 3],
            )
        };
        (
            at(12).into(),
            at(16).into(),
            (fixed[9], octets.get(header..)),
        )
    } else {
        let fixed: &[u8; 40] = octets.first_chunk()?;
        if fixed[0] >> 4 != 6 {
            return None;
        }
        let behind = behind_extensions(fixed[6], &octets[40..])?;
        (address(&fixed[8..24])?, address(&fixed[24..40])?, behind)
    };
    let (src_port, dst_port) = match upper(inner, payload?) {
        Upper::Ports { src, dst, .. } => (src, dst),
        Upper::Echo { request: true, id } => (id, id),
        _ => return None,
    };
    Some(Quoted {
        src,
        dst,
        protocol: inner,
        src_port,
        dst_port,
    })
}

/// Whether an address is that of one host, to which an ICMP error may be sent or be about.
fn is_one_host(addr: IpAddr) -> bool {
    let broadcast = matches!(addr, IpAddr::V4(addr) if addr.is_broadcast());
    !(addr.is_unspecified() || addr.is_multicast() || addr.is_loopback() || broadcast)
}

/// The Internet checksum (RFC 1071); 0 over octets that carry their right one.
pub(crate) fn checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
