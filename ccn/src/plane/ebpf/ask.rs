//! Asks the programs what they would do with a packet: a made-up frame is given to `ask_idc` or
//! `ask_vpc`, which read the maps as they are. Nothing is sent, nothing is counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use netlink::Socket;

use super::layout::Slot;
use super::memory::Memory;
use super::pins;
use super::programs::Asking;
use super::sys::{self, TestRun};
use super::translate::Translator;
use crate::plane::PlaneError;
use crate::plane::model::packet::{IPV4, IPV6, Quoted, Shape, Upper, checksum};
use crate::plane::model::{DropReason, Ingress, Packet};
use crate::plane::routes::compose::Host;
use crate::plane::routes::devices::failed;
use crate::plane::witness::Witness;
use crate::record::{LinkId, Mac, Vni};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Words of `struct __sk_buff`.
const WORDS: usize = 24;
const PRIORITY: usize = 8;
const IFINDEX: usize = 10;
/// The first of five control words.
const CONTROL: usize = 12;

const STACK: u32 = 1;
const ENCAPSULATE: u32 = 2;
const FORWARD: u32 = 3;
const FORWARD6: u32 = 4;
const DROP: u32 = 16;

/// Asks; `None` when the programs give no answer that has words.
pub(crate) fn ask<M: Memory>(
    socket: &mut Socket,
    programs: &Asking,
    host: &Host,
    translator: &Translator<M>,
    packet: &Packet,
) -> Result<Option<Witness>, PlaneError> {
    let mut context = [0u32; WORDS];
    let program = match packet.ingress {
        Ingress::Idc => {
            context[IFINDEX] = host.idc.first().map_or(0, |link| link.index);
            &programs.idc
        }
        Ingress::Vxlan { vni } => {
            context[IFINDEX] = host.vxlan_index;
            context[CONTROL] = vni.number();
            &programs.vpc
        }
    };
    let context: Vec<u8> = context.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let outcome = sys::test_run(
        program.as_fd(),
        TestRun {
            data: &frame(packet),
            context: &context,
            ..TestRun::default()
        },
    )
    .map_err(|error| pins::failed("run a program for a test", &error))?;
    let words: Vec<u32> = outcome
        .context
        .chunks_exact(4)
        .map(|word| word.try_into().map_or(0, u32::from_ne_bytes))
        .collect();
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    let control = |at: usize| word(CONTROL + at);
    let (code, link) = (control(0) & 0xff, control(0) >> 8);
    let link: Option<LinkId> = translator
        .links()
        .iter()
        .find(|(_, number)| *number == link)
        .map(|(link, _)| link.clone());
    Ok(match code {
        STACK => Some(Witness::Host),
        ENCAPSULATE => {
            let slot = Slot(u64::from(control(2)) | u64::from(control(3)) << 32);
            let vtep = translator.addresses().places().memory().host(slot.host());
            let (vni, mac) = (Vni::new(control(1)), Mac::new(slot.mac()));
            match (vni, vtep.addr(), mac) {
                (Ok(vni), Some(vtep), Ok(mac)) => Some(Witness::Encapsulate {
                    vni,
                    vtep,
                    mac,
                    link,
                }),
                _ => None,
            }
        }
        FORWARD | FORWARD6 => {
            let octets: Vec<u8> = (1..=4).flat_map(|at| control(at).to_ne_bytes()).collect();
            let next_hop: IpAddr = match <[u8; 16]>::try_from(octets) {
                Ok(octets) if code == FORWARD6 => Ipv6Addr::from(octets).into(),
                Ok([a, b, c, d, ..]) => Ipv4Addr::new(a, b, c, d).into(),
                Err(_) => return Ok(None),
            };
            let links = socket
                .links()
                .map_err(|error| failed("read the links", error))?;
            let index = word(PRIORITY);
            let interface = links.into_iter().find(|link| link.index == index);
            Some(Witness::Forward {
                interface: interface.map_or_else(|| format!("index {index}"), |link| link.name),
                next_hop,
                link,
            })
        }
        DROP.. => DropReason::ALL
            .get((code - DROP) as usize)
            .map(|reason| Witness::Drop {
                reason: reason.as_str().to_owned(),
            }),
        _ => None,
    })
}

/// The packet as it comes in, behind an Ethernet header.
fn frame(packet: &Packet) -> Vec<u8> {
    let ethertype = if packet.src.is_ipv4() { IPV4 } else { IPV6 };
    let mut frame = vec![0; 12];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(ip(packet.src, packet.dst, &packet.shape));
    frame
}

fn ip(src: IpAddr, dst: IpAddr, shape: &Shape) -> Vec<u8> {
    let (protocol, mut payload) = upper(src.is_ipv4(), &shape.upper);
    let header = if src.is_ipv4() { 20 } else { 40 };
    let length = shape.length.clamp(header + payload.len(), 0xffff);
    payload.resize(length - header, 0);
    let mut packet = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let [high, low] = (length as u16).to_be_bytes();
            let fragment = if shape.may_fragment { 0 } else { 0x40 };
            let mut header = vec![
                0x45,
                0,
                high,
                low,
                0,
                0,
                fragment,
                0,
                shape.hop_limit,
                protocol,
                0,
                0,
            ];
            header.extend(src.octets());
            header.extend(dst.octets());
            let check = checksum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&check);
            header
        }
        (src, dst) => {
            let [high, low] = (payload.len() as u16).to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, high, low, protocol, shape.hop_limit];
            header.extend(super::layout::mapped(src));
            header.extend(super::layout::mapped(dst));
            header
        }
    };
    packet.extend(payload);
    packet
}

/// What is above IP, with its protocol number. Checksums are not looked at.
fn upper(v4: bool, upper: &Upper) -> (u8, Vec<u8>) {
    let icmp = if v4 { ICMP } else { ICMPV6 };
    let message = |kind: u8, code: u8, id: u16| {
        let [high, low] = id.to_be_bytes();
        vec![kind, code, 0, 0, high, low, 0, 0]
    };
    match *upper {
        Upper::Ports { protocol, src, dst } => {
            let mut octets = src.to_be_bytes().to_vec();
            octets.extend(dst.to_be_bytes());
            match protocol {
                // Twenty octets of header; an acknowledgement, neither a beginning nor an end.
                TCP => octets.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]),
                UDP => octets.extend([0, 8, 0, 0]),
                _ => octets.extend([0; 4]),
            }
            (protocol, octets)
        }
        Upper::Echo { request, id } => {
            let kind = match (v4, request) {
                (true, true) => 8,
                (true, false) => 0,
                (false, true) => 128,
                (false, false) => 129,
            };
            (icmp, message(kind, 0, id))
        }
        Upper::Error { about } => {
            // Host or address unreachable.
            let (kind, code) = if v4 { (3, 1) } else { (1, 3) };
            let mut octets = message(kind, code, 0);
            octets.extend(quote(&about));
            (icmp, octets)
        }
        // ICMP that belongs to no flow: timestamp, or multicast listener query.
        Upper::Other => (icmp, message(if v4 { 13 } else { 130 }, 0, 0)),
    }
}

fn quote(about: &Quoted) -> Vec<u8> {
    let upper = match about.protocol {
        ICMP | ICMPV6 => Upper::Echo {
            request: true,
            id: about.src_port,
        },
        protocol => Upper::Ports {
            protocol,
            src: about.src_port,
            dst: about.dst_port,
        },
    };
    let shape = Shape {
        upper,
        ..Shape::default()
    };
    ip(about.src, about.dst, &shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_the_packet_it_was_made_of() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let ports = |protocol| Upper::Ports {
            protocol,
            src: 7,
            dst: 8,
        };
        for (src, dst) in [("10.80.1.10", "10.1.0.11"), ("fd80::1", "fd00::11")] {
            let (src, dst) = (ip(src), ip(dst));
            let about = Quoted {
                src: dst,
                dst: src,
                protocol: UDP,
                src_port: 9,
                dst_port: 10,
            };
            for upper in [
                ports(TCP),
                ports(UDP),
                Upper::Echo {
                    request: true,
                    id: 5,
                },
                Upper::Error { about },
            ] {
                let shape = Shape {
                    hop_limit: 3,
                    length: 500,
                    may_fragment: src.is_ipv4(),
                    unanswered: matches!(upper, Upper::Error { .. }),
                    upper,
                };
                let ingress = Ingress::Idc;
                let packet = Packet {
                    ingress,
                    src,
                    dst,
                    shape,
                };
                let frame = frame(&packet);
                let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
                assert_eq!(Packet::read(ingress, ethertype, &frame[14..]), Ok(packet));
            }
        }
    }
}
