//! Flows that classic hosts opened over links of mode `classic-to-vpc`: what a plane must have seen
//! to let a packet of the VPC pass as a reply. It keeps no time: nothing here ever expires.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::packet::{Packet, Upper};
use crate::record::Vni;

/// ICMP, by the family of the addresses.
const ICMP: [u8; 2] = [1, 58];

/// One flow, as the classic side opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    vni: Vni,
    classic: IpAddr,
    vpc: IpAddr,
    protocol: u8,
    classic_port: u16,
    vpc_port: u16,
}

/// All flows seen so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flows(BTreeSet<Flow>);

impl Flows {
    /// None at all.
    pub const NONE: Flows = Flows(BTreeSet::new());

    /// Takes note of a packet that passed from a classic host to the VPC with this VNI, over a
    /// link that wants it.
    pub fn note(&mut self, vni: Vni, packet: &Packet) {
        let (protocol, classic_port, vpc_port) = match packet.shape.upper {
            Upper::Ports { protocol, src, dst } => (protocol, src, dst),
            Upper::Echo { request: true, id } => (icmp(packet.src), id, id),
            _ => return,
        };
        self.0.insert(Flow {
            vni,
            classic: packet.src,
            vpc: packet.dst,
            protocol,
            classic_port,
            vpc_port,
        });
    }

    /// Whether a packet from the VPC with this VNI belongs to a flow that was noted, or is an error
    /// about a packet of one.
    #[must_use]
    pub fn knows(&self, vni: Vni, packet: &Packet) -> bool {
        let (classic, vpc, protocol, classic_port, vpc_port) = match packet.shape.upper {
            Upper::Ports { protocol, src, dst } => (packet.dst, packet.src, protocol, dst, src),
            Upper::Echo { request: false, id } => {
                (packet.dst, packet.src, icmp(packet.src), id, id)
            }
            Upper::Error { about } if about.src == packet.dst => {
                let ports = (about.src_port, about.dst_port);
                (about.src, about.dst, about.protocol, ports.0, ports.1)
            }
            _ => return false,
        };
        self.0.contains(&Flow {
            vni,
            classic,
            vpc,
            protocol,
            classic_port,
            vpc_port,
        })
    }
}

fn icmp(addr: IpAddr) -> u8 {
    ICMP[usize::from(addr.is_ipv6())]
}
