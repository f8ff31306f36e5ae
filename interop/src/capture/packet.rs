//! Frames decoded as far as the lab asks: Ethernet, ARP's mere presence, IPv4, IPv6, ICMP, TCP, UDP
//! and VXLAN (RFC 7348) with the frame inside it. Checksums are not looked at: on a veth the kernel
//! leaves them to be filled in by hardware that is not there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink::Mac;

/// IANA's UDP port of VXLAN.
pub const VXLAN_PORT: u16 = 4789;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// The I flag: the VNI is valid.
const VXLAN_VNI_VALID: u8 = 0x08;
/// Frames inside frames: deeper than any the lab makes is an attack on the stack.
const DEEPEST: usize = 4;

/// A frame ends before a header that its earlier headers promise, or lies about itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the header needs.
    #[error("{header}: {have} bytes where {need} are needed")]
    Truncated {
        /// The header.
        header: &'static str,
        /// Bytes needed.
        need: usize,
        /// Bytes left.
        have: usize,
    },
    /// A field that cannot be.
    #[error("{header}: {field} is {value}")]
    Nonsense {
        /// The header.
        header: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// VXLAN in VXLAN in VXLAN and so on.
    #[error("more than {DEEPEST} frames within one another")]
    TooDeep,
}

/// An Ethernet frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Destination MAC.
    pub destination: Mac,
    /// Source MAC.
    pub source: Mac,
    /// What it carries.
    pub content: Content,
}

/// What an Ethernet frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// An IP packet of either version.
    Ip(Ip),
    /// ARP.
    Arp,
    /// Something else, by its EtherType.
    Other(u16),
}

/// An IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// TTL, or hop limit.
    pub ttl: u8,
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
    /// Explicit congestion notification, 0 to 3.
    pub ecn: u8,
    /// Length of the whole packet, bytes.
    pub length: usize,
    /// The don't-fragment bit (always so in IPv6).
    pub dont_fragment: bool,
    /// What it carries.
    pub content: Transport,
}

/// What an IP packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// UDP, with its payload.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// The payload.
        payload: Vec<u8>,
    },
    /// UDP to [`VXLAN_PORT`].
    Vxlan {
        /// UDP source port: the flow's entropy.
        source: u16,
        /// VXLAN network identifier.
        vni: u32,
        /// The frame inside.
        inner: Box<Frame>,
    },
    /// TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
    },
    /// A later fragment: no transport header here.
    Fragment,
    /// Something else, by its protocol number.
    Other(u8),
}

impl Frame {
    /// Decodes a frame, VXLAN inside and all.
    ///
    /// # Errors
    /// It ends too early, or a length or version in it cannot be.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::at_depth(bytes, 0)
    }

    fn at_depth(bytes: &[u8], depth: usize) -> Result<Self, DecodeError> {
        if depth > DEEPEST {
            return Err(DecodeError::TooDeep);
        }
        let mut rest = Reader {
            header: "Ethernet",
            bytes,
        };
        let destination = Mac(rest.array()?);
        let source = Mac(rest.array()?);
        let content = match u16::from_be_bytes(rest.array()?) {
            ETHERTYPE_IPV4 => Content::Ip(ipv4(rest.bytes, depth)?),
            ETHERTYPE_IPV6 => Content::Ip(ipv6(rest.bytes, depth)?),
            ETHERTYPE_ARP => Content::Arp,
            other => Content::Other(other),
        };
        Ok(Self {
            destination,
            source,
            content,
        })
    }

    /// The IP packet it carries, if any.
    pub fn ip(&self) -> Option<&Ip> {
        match &self.content {
            Content::Ip(ip) => Some(ip),
            Content::Arp | Content::Other(_) => None,
        }
    }

    /// If it is VXLAN: the outer packet, the VNI and the inner frame.
    pub fn vxlan(&self) -> Option<(&Ip, u32, &Frame)> {
        let outer = self.ip()?;
        match &outer.content {
            Transport::Vxlan { vni, inner, .. } => Some((outer, *vni, inner)),
            _ => None,
        }
    }
}

impl Ip {
    /// If it is UDP other than VXLAN: source port, destination port, payload.
    pub fn udp(&self) -> Option<(u16, u16, &[u8])> {
        match &self.content {
            Transport::Udp {
                source,
                destination,
                payload,
            } => Some((*source, *destination, payload)),
            _ => None,
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {} ", self.source, self.destination)?;
        match &self.content {
            Content::Arp => f.write_str("ARP"),
            Content::Other(kind) => write!(f, "EtherType {kind:#06x}"),
            Content::Ip(ip) => {
                write!(f, "{} > {} ttl {} ", ip.source, ip.destination, ip.ttl)?;
                match &ip.content {
                    Transport::Vxlan { vni, inner, .. } => write!(f, "VNI {vni} [{inner}]"),
                    Transport::Udp {
                        source,
                        destination,
                        payload,
                    } => {
                        write!(f, "UDP {source} > {destination}, {} bytes", payload.len())
                    }
                    Transport::Tcp {
                        source,
                        destination,
                    } => {
                        write!(f, "TCP {source} > {destination}")
                    }
                    Transport::Icmp { kind, code } => write!(f, "ICMP type {kind} code {code}"),
                    Transport::Fragment => f.write_str("fragment"),
                    Transport::Other(protocol) => write!(f, "protocol {protocol}"),
                }
            }
        }
    }
}

fn ipv4(bytes: &[u8], depth: usize) -> Result<Ip, DecodeError> {
    const HEADER: &str = "IPv4";
    let nonsense = |field, value| DecodeError::Nonsense {
        header: HEADER,
        field,
        value,
    };
    let mut rest = Reader {
        header: HEADER,
        bytes,
    };
    let [version_length] = rest.array()?;
    let header_length = usize::from(version_length & 0x0f) * 4;
    if version_length >> 4 != 4 || header_length < 20 {
        return Err(nonsense("version and length", version_length.into()));
    }
    let [services] = rest.array()?;
    let length = u16::from_be_bytes(rest.array()?);
    let _identification: [u8; 2] = rest.array()?;
    let fragment = u16::from_be_bytes(rest.array()?);
    let [ttl, protocol] = rest.array()?;
    let _checksum: [u8; 2] = rest.array()?;
    let source = Ipv4Addr::from(rest.array::<4>()?).into();
    let destination = Ipv4Addr::from(rest.array::<4>()?).into();
    // Whatever follows the packet's own length is Ethernet padding.
    let payload = bytes
        .get(header_length..usize::from(length).min(bytes.len()))
        .ok_or_else(|| nonsense("total length", length.into()))?;
    let content = match fragment & 0x1fff {
        0 => transport(protocol, payload, depth)?,
        _ => Transport::Fragment,
    };
    Ok(Ip {
        source,
        destination,
        ttl,
        dscp: services >> 2,
        ecn: services & 3,
        length: length.into(),
        dont_fragment: fragment & 0x4000 != 0,
        content,
    })
}

fn ipv6(bytes: &[u8], depth: usize) -> Result<Ip, DecodeError> {
    const HEADER: &str = "IPv6";
    let mut rest = Reader {
        header: HEADER,
        bytes,
    };
    let first = u32::from_be_bytes(rest.array()?);
    if first >> 28 != 6 {
        let value = first >> 28;
        return Err(DecodeError::Nonsense {
            header: HEADER,
            field: "version",
            value,
        });
    }
    let services = (first >> 20) as u8;
    let payload_length = usize::from(u16::from_be_bytes(rest.array()?));
    let [next_header, ttl] = rest.array()?;
    let source = Ipv6Addr::from(rest.array::<16>()?).into();
    let destination = Ipv6Addr::from(rest.array::<16>()?).into();
    let payload = &rest.bytes[..payload_length.min(rest.bytes.len())];
    Ok(Ip {
        source,
        destination,
        ttl,
        dscp: services >> 2,
        ecn: services & 3,
        length: 40 + payload_length,
        dont_fragment: true,
        content: transport(next_header, payload, depth)?,
    })
}

fn transport(protocol: u8, payload: &[u8], depth: usize) -> Result<Transport, DecodeError> {
    match protocol {
        UDP => {
            let mut rest = Reader {
                header: "UDP",
                bytes: payload,
            };
            let source = u16::from_be_bytes(rest.array()?);
            let destination = u16::from_be_bytes(rest.array()?);
            let _length_and_checksum: [u8; 4] = rest.array()?;
            if destination == VXLAN_PORT {
                return vxlan(source, rest.bytes, depth);
            }
            Ok(Transport::Udp {
                source,
                destination,
                payload: rest.bytes.to_vec(),
            })
        }
        TCP => {
            let mut rest = Reader {
                header: "TCP",
                bytes: payload,
            };
            let source = u16::from_be_bytes(rest.array()?);
            let destination = u16::from_be_bytes(rest.array()?);
            Ok(Transport::Tcp {
                source,
                destination,
            })
        }
        ICMP | ICMPV6 => {
            let [kind, code] = Reader {
                header: "ICMP",
                bytes: payload,
            }
            .array()?;
            Ok(Transport::Icmp { kind, code })
        }
        other => Ok(Transport::Other(other)),
    }
}

fn vxlan(source: u16, bytes: &[u8], depth: usize) -> Result<Transport, DecodeError> {
    let mut rest = Reader {
        header: "VXLAN",
        bytes,
    };
    let [flags, _, _, _] = rest.array()?;
    let vni = u32::from_be_bytes(rest.array()?) >> 8;
    if flags & VXLAN_VNI_VALID == 0 {
        let value = flags.into();
        return Err(DecodeError::Nonsense {
            header: "VXLAN",
            field: "flags",
            value,
        });
    }
    let inner = Box::new(Frame::at_depth(rest.bytes, depth + 1)?);
    Ok(Transport::Vxlan { source, vni, inner })
}

/// Takes fixed-size fields off the front.
struct Reader<'a> {
    header: &'static str,
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (field, rest) = self.bytes.split_first_chunk::<N>().ok_or({
            DecodeError::Truncated {
                header: self.header,
                need: N,
                have: self.bytes.len(),
            }
        })?;
        self.bytes = rest;
        Ok(*field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UDP 1000 > 2000 from 10.0.0.1 to 10.0.0.2 with four bytes, DSCP 46, ECN 1, DF.
    const UDP_FRAME: &[u8] = &[
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, // Ethernet
        0x45, 0xb9, 0, 32, 0, 0, 0x40, 0, 63, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
        0x03, 0xe8, 0x07, 0xd0, 0, 12, 0, 0, b'p', b'i', b'n', b'g', // UDP
        0, 0, 0, 0, 0, 0, // padding
    ];

    fn vxlan_frame(inner: &[u8]) -> Vec<u8> {
        let udp_length = 8 + 8 + inner.len() as u16;
        let mut frame = vec![
            2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x86, 0xdd, 0x60, 0, 0, 0,
        ];
        frame.extend(udp_length.to_be_bytes());
        frame.extend([17, 64]);
        frame.extend("fd00::1".parse::<Ipv6Addr>().expect("an address").octets());
        frame.extend("fd00::2".parse::<Ipv6Addr>().expect("an address").octets());
        frame.extend([0xc0, 0x00, 0x12, 0xb5]);
        frame.extend(udp_length.to_be_bytes());
        frame.extend([0, 0, 8, 0, 0, 0, 0, 0x27, 0x11, 0]);
        frame.extend(inner);
        frame
    }

    #[test]
    fn a_frame_inside_vxlan_over_ipv6() {
        let frame = Frame::decode(&vxlan_frame(UDP_FRAME)).expect("a frame");
        let (outer, vni, inner) = frame.vxlan().expect("VXLAN");
        assert_eq!(outer.destination.to_string(), "fd00::2");
        assert_eq!(vni, 10001);
        assert_eq!(inner.destination, Mac([2, 0, 0, 0, 0, 2]));
        let ip = inner.ip().expect("IP");
        assert_eq!(
            (ip.ttl, ip.dscp, ip.ecn, ip.dont_fragment),
            (63, 46, 1, true)
        );
        assert_eq!(ip.udp(), Some((1000, 2000, &b"ping"[..])));
    }

    #[test]
    fn every_cut_is_an_error_or_a_frame_never_a_panic() {
        let whole = vxlan_frame(UDP_FRAME);
        for length in 0..whole.len() {
            let _ = Frame::decode(&whole[..length]);
        }
        assert!(matches!(
            Frame::decode(&whole[..13]),
            Err(DecodeError::Truncated { .. })
        ));
    }

    #[test]
    fn endless_nesting_is_refused() {
        let mut frame = UDP_FRAME.to_vec();
        for _ in 0..=DEEPEST {
            frame = vxlan_frame(&frame);
        }
        assert_eq!(Frame::decode(&frame), Err(DecodeError::TooDeep));
    }
}
