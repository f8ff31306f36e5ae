//! What came out of a gateway: frames taken apart strictly, fragments put together. A frame that is
//! not exactly as its headers say is an error, not a frame.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::{checksum, pseudo_header, right_checksum};

/// An Ethernet frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) dst: [u8; 6],
    pub(crate) src: [u8; 6],
    pub(crate) ethertype: u16,
    pub(crate) content: Vec<u8>,
}

/// A frame that came in VXLAN, and what was around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tunnelled {
    pub(crate) vteps: (IpAddr, IpAddr),
    pub(crate) dscp: u8,
    pub(crate) ecn: u8,
    pub(crate) hops: u8,
    pub(crate) port: u16,
    pub(crate) vni: u32,
    pub(crate) inner: Frame,
}

/// An IP header, as far as tests look at it, and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) dscp: u8,
    pub(crate) ecn: u8,
    pub(crate) hops: u8,
    pub(crate) protocol: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn read(octets: &[u8]) -> Result<Frame, String> {
        let header: &[u8; 14] = octets
            .first_chunk()
            .ok_or_else(|| format!("a frame of {} octets", octets.len()))?;
        Ok(Frame {
            dst: mac(&header[..6]),
            src: mac(&header[6..12]),
            ethertype: u16::from_be_bytes([header[12], header[13]]),
            content: octets[14..].to_vec(),
        })
    }

    /// What every host says now and then: ARP, neighbours and groups of IPv6.
    pub(crate) fn is_chatter(&self) -> bool {
        let of_groups = [0, 58].contains(&self.content.get(6).copied().unwrap_or(1));
        let kind = match self.content.get(6) {
            Some(0) => self.content.get(48),
            _ => self.content.get(40),
        };
        match self.ethertype {
            0x0806 => true,
            0x86dd => of_groups && matches!(kind, Some(130..=137 | 143)),
            _ => false,
        }
    }
}

fn mac(octets: &[u8]) -> [u8; 6] {
    octets.try_into().expect("six octets")
}

impl Datagram {
    pub(crate) fn read(ethertype: u16, octets: &[u8]) -> Result<Datagram, String> {
        match ethertype {
            0x0800 => v4(octets),
            0x86dd => v6(octets),
            other => Err(format!("EtherType {other:#06x} is no IP")),
        }
    }
}

fn v4(octets: &[u8]) -> Result<Datagram, String> {
    let fixed: &[u8; 20] = octets.first_chunk().ok_or("a short IPv4 header")?;
    let header = usize::from(fixed[0] & 15) * 4;
    let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if fixed[0] >> 4 != 4 || header < 20 || length < header || length != octets.len() {
        return Err(format!(
            "IPv4 lengths {header}, {length} of {}",
            octets.len()
        ));
    }
    if checksum(&[&octets[..header]]) != 0 {
        return Err("a wrong IPv4 checksum".to_owned());
    }
    if u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0 {
        return Err("a fragment".to_owned());
    }
    let at = |from: usize| <[u8; 4]>::try_from(&fixed[from..from + 4]).map(Ipv4Addr::from);
    Ok(Datagram {
        src: at(12).expect("four octets").into(),
        dst: at(16).expect("four octets").into(),
        dscp: fixed[1] >> 2,
        ecn: fixed[1] & 3,
        hops: fixed[8],
        protocol: fixed[9],
        payload: octets[header..].to_vec(),
    })
}

fn v6(octets: &[u8]) -> Result<Datagram, String> {
    let fixed: &[u8; 40] = octets.first_chunk().ok_or("a short IPv6 header")?;
    let length = 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    if fixed[0] >> 4 != 6 || length != octets.len() {
        return Err(format!("IPv6 length {length} of {}", octets.len()));
    }
    let class = fixed[0] << 4 | fixed[1] >> 4;
    let at = |from: usize| <[u8; 16]>::try_from(&fixed[from..from + 16]).map(Ipv6Addr::from);
    Ok(Datagram {
        src: at(8).expect("16 octets").into(),
        dst: at(24).expect("16 octets").into(),
        dscp: class >> 2,
        ecn: class & 3,
        hops: fixed[7],
        protocol: fixed[6],
        payload: octets[40..].to_vec(),
    })
}

impl Tunnelled {
    /// Takes a frame of the underlay apart, which is no fragment.
    pub(crate) fn read(frame: &Frame) -> Result<Tunnelled, String> {
        let outer = Datagram::read(frame.ethertype, &frame.content)?;
        let udp = &outer.payload;
        if outer.protocol != 17 || udp.len() < 16 {
            return Err(format!("protocol {} on the underlay", outer.protocol));
        }
        let word = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        if word(2) != 4789 || usize::from(word(4)) != udp.len() {
            return Err(format!("UDP port {}, length {}", word(2), word(4)));
        }
        outer_checksum(&outer)?;
        // RFC 7348 section 5: the I flag, and all that is reserved zero.
        if udp[8..12] != [8, 0, 0, 0] || udp[15] != 0 {
            return Err(format!("VXLAN header {:02x?}", &udp[8..16]));
        }
        Ok(Tunnelled {
            vteps: (outer.src, outer.dst),
            dscp: outer.dscp,
            ecn: outer.ecn,
            hops: outer.hops,
            port: word(0),
            vni: u32::from_be_bytes([0, udp[12], udp[13], udp[14]]),
            inner: Frame::read(&udp[16..])?,
        })
    }
}

/// Zero is allowed (RFC 7348 section 4.1, RFC 6935); what a veth leaves for hardware to finish is
/// the sum over the pseudo-header alone.
fn outer_checksum(outer: &Datagram) -> Result<(), String> {
    let said = u16::from_be_bytes([outer.payload[6], outer.payload[7]]);
    let pseudo = pseudo_header(outer.src, outer.dst, 17, outer.payload.len());
    let left = !checksum(&[&pseudo]);
    match checksum(&[&pseudo, &outer.payload]) {
        _ if said == 0 || said == left => Ok(()),
        0 => Ok(()),
        _ => Err(format!("UDP checksum {said:#06x} outside")),
    }
}

/// Puts the IP fragments among packets together; what is whole already stays as it is.
pub(crate) fn whole(packets: Vec<(u16, Vec<u8>)>) -> Result<Vec<(u16, Vec<u8>)>, String> {
    let mut done = Vec::new();
    let mut parts: BTreeMap<Vec<u8>, Vec<Part>> = BTreeMap::new();
    for (ethertype, octets) in packets {
        match part(ethertype, &octets)? {
            None => done.push((ethertype, octets)),
            Some(part) => {
                let parts = parts.entry(part.key.clone()).or_default();
                parts.push(part);
            }
        }
    }
    for (_, mut parts) in parts {
        parts.sort_by_key(|part| part.offset);
        done.push(join(&parts)?);
    }
    Ok(done)
}

struct Part {
    key: Vec<u8>,
    offset: usize,
    more: bool,
    ethertype: u16,
    /// Of the whole: all that goes before the payload.
    header: Vec<u8>,
    payload: Vec<u8>,
}

fn part(ethertype: u16, octets: &[u8]) -> Result<Option<Part>, String> {
    match ethertype {
        0x0800 if octets.len() >= 20 => {
            let fragment = u16::from_be_bytes([octets[6], octets[7]]);
            if fragment & 0x3fff == 0 {
                return Ok(None);
            }
            let length = usize::from(u16::from_be_bytes([octets[2], octets[3]]));
            let header = usize::from(octets[0] & 15) * 4;
            if length != octets.len() || checksum(&[&octets[..header]]) != 0 {
                return Err("a fragment with a wrong header".to_owned());
            }
            let key = [&octets[4..6], &octets[9..10], &octets[12..20]].concat();
            Ok(Some(Part {
                key,
                offset: usize::from(fragment & 0x1fff) * 8,
                more: fragment & 0x2000 != 0,
                ethertype,
                header: octets[..header].to_vec(),
                payload: octets[header..].to_vec(),
            }))
        }
        0x86dd if octets.len() >= 48 && octets[6] == 44 => {
            let word = u16::from_be_bytes([octets[42], octets[43]]);
            let mut header = octets[..40].to_vec();
            header[6] = octets[40];
            Ok(Some(Part {
                key: [&octets[8..41], &octets[44..48]].concat(),
                offset: usize::from(word & 0xfff8),
                more: word & 1 != 0,
                ethertype,
                header,
                payload: octets[48..].to_vec(),
            }))
        }
        _ => Ok(None),
    }
}

fn join(parts: &[Part]) -> Result<(u16, Vec<u8>), String> {
    let places: Vec<_> = parts
        .iter()
        .map(|p| (p.offset, p.payload.len(), p.more))
        .collect();
    let mut payload: Vec<u8> = Vec::new();
    for part in parts {
        if part.offset != payload.len() {
            return Err(format!("fragments do not meet: {places:?}"));
        }
        payload.extend(&part.payload);
    }
    let (first, last) = (&parts[0], &parts[parts.len() - 1]);
    if last.more || parts[..parts.len() - 1].iter().any(|part| !part.more) {
        return Err(format!("fragments do not end: {places:?}"));
    }
    let mut packet = first.header.clone();
    let length = if first.ethertype == 0x0800 {
        packet[6..8].fill(0);
        (packet.len() + payload.len()) as u16
    } else {
        payload.len() as u16
    };
    let at = if first.ethertype == 0x0800 { 2 } else { 4 };
    packet[at..at + 2].copy_from_slice(&length.to_be_bytes());
    if first.ethertype == 0x0800 {
        right_checksum(&mut packet);
    }
    packet.extend(payload);
    Ok((first.ethertype, packet))
}
