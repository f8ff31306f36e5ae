//! Neighbours (address to MAC) and forwarding entries of bridges and VXLAN devices (MAC to peer).

use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;

use crate::Mac;
use crate::route::Family;

/// The MAC of an address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// Index of the link.
    pub ifindex: u32,
    /// The address.
    pub addr: IpAddr,
    /// Its MAC; absent while the kernel looks for it.
    pub mac: Option<Mac>,
    /// Set by hand and valid until deleted; otherwise the kernel learned it.
    pub permanent: bool,
    /// Who made it (`RTPROT_*`); 0 if it does not say.
    pub protocol: u8,
}

impl Neighbour {
    /// One that stays.
    #[must_use]
    pub fn permanent(ifindex: u32, addr: IpAddr, mac: Mac) -> Neighbour {
        Neighbour {
            ifindex,
            addr,
            mac: Some(mac),
            permanent: true,
            protocol: 0,
        }
    }

    pub(crate) fn message(&self) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = Family::of(self.addr).address_family();
        message.header.ifindex = self.ifindex;
        message.header.state = if self.permanent {
            NeighbourState::Permanent
        } else {
            NeighbourState::Reachable
        };
        let list = &mut message.attributes;
        list.push(NeighbourAttribute::Destination(self.addr.into()));
        if let Some(mac) = self.mac {
            list.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        }
        if self.protocol != 0 {
            list.push(NeighbourAttribute::Protocol(RouteProtocol::from(
                self.protocol,
            )));
        }
        message
    }

    pub(crate) fn from_message(message: NeighbourMessage) -> Option<Neighbour> {
        let (mut addr, mut mac, mut protocol) = (None, None, 0);
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                    addr = Some(IpAddr::V4(ip));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                    addr = Some(IpAddr::V6(ip));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok().map(Mac),
                NeighbourAttribute::Protocol(number) => protocol = number.into(),
                _ => {}
            }
        }
        Some(Neighbour {
            ifindex: message.header.ifindex,
            addr: addr?,
            mac,
            permanent: message.header.state == NeighbourState::Permanent,
            protocol,
        })
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "neighbour {} of link {}", self.addr, self.ifindex)?;
        self.mac.map_or(Ok(()), |mac| write!(f, " with MAC {mac}"))
    }
}

/// Where a bridge or VXLAN device sends frames to a MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForwardingEntry {
    /// Index of the bridge port or VXLAN device.
    pub ifindex: u32,
    /// Destination MAC; all zeros for frames that nothing else matches (VXLAN).
    pub mac: Mac,
    /// The VTEP behind which the MAC is (VXLAN).
    pub vtep: Option<IpAddr>,
    /// VNI to send with, if not that of the device (VXLAN).
    pub vni: Option<u32>,
    /// The entry belongs to the bridge the link is a port of, not to the link itself.
    pub of_bridge: bool,
}

impl ForwardingEntry {
    /// Frames to `mac` leave a VXLAN device towards `vtep`.
    #[must_use]
    pub fn remote(ifindex: u32, mac: Mac, vtep: IpAddr) -> ForwardingEntry {
        ForwardingEntry {
            ifindex,
            mac,
            vtep: Some(vtep),
            vni: None,
            of_bridge: false,
        }
    }

    /// Frames to `mac` leave a bridge by this port.
    #[must_use]
    pub fn port(ifindex: u32, mac: Mac) -> ForwardingEntry {
        ForwardingEntry {
            ifindex,
            mac,
            vtep: None,
            vni: None,
            of_bridge: true,
        }
    }

    pub(crate) fn message(&self) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = self.ifindex;
        message.header.flags = if self.of_bridge {
            NeighbourFlags::Controller
        } else {
            NeighbourFlags::Own
        };
        // A static entry: it does not age, but is not an address of the device itself either.
        message.header.state = if self.of_bridge {
            NeighbourState::Noarp
        } else {
            NeighbourState::from(STATIC_REMOTE)
        };
        let list = &mut message.attributes;
        list.push(NeighbourAttribute::LinkLayerAddress(self.mac.0.to_vec()));
        if let Some(vtep) = self.vtep {
            let octets = match vtep {
                IpAddr::V4(addr) => addr.octets().to_vec(),
                IpAddr::V6(addr) => addr.octets().to_vec(),
            };
            list.push(NeighbourAttribute::Destination(NeighbourAddress::Other(
                octets,
            )));
        }
        if let Some(vni) = self.vni {
            list.push(NeighbourAttribute::Vni(vni));
        }
        message
    }

    pub(crate) fn from_message(message: NeighbourMessage) -> Option<ForwardingEntry> {
        let (mut mac, mut vtep, mut vni) = (None, None, None);
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok().map(Mac),
                NeighbourAttribute::Destination(NeighbourAddress::Other(octets)) => {
                    vtep = <[u8; 4]>::try_from(octets.as_slice())
                        .map(IpAddr::from)
                        .or_else(|_| <[u8; 16]>::try_from(octets.as_slice()).map(IpAddr::from))
                        .ok();
                }
                NeighbourAttribute::Vni(number) => vni = Some(number),
                _ => {}
            }
        }
        Some(ForwardingEntry {
            ifindex: message.header.ifindex,
            mac: mac?,
            vtep,
            vni,
            of_bridge: !message.header.flags.contains(NeighbourFlags::Own),
        })
    }
}

/// `NUD_PERMANENT | NUD_NOARP`: what the kernel wants for an entry of a VXLAN device that stays.
const STATIC_REMOTE: u16 = 0x80 | 0x40;

impl fmt::Display for ForwardingEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "forwarding entry {} of link {}", self.mac, self.ifindex)?;
        self.vtep.map_or(Ok(()), |vtep| write!(f, " to {vtep}"))
    }
}
