//! Addresses of links.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Index of the link.
    pub ifindex: u32,
    /// The address with the length of its prefix.
    pub net: IpNet,
    /// IPv6: used at once, without looking for a duplicate. Ignored for IPv4.
    pub skip_duplicate_check: bool,
}

impl Address {
    /// An address that is used at once.
    #[must_use]
    pub fn new(ifindex: u32, net: IpNet) -> Address {
        Address {
            ifindex,
            net,
            skip_duplicate_check: net.addr().is_ipv6(),
        }
    }

    pub(crate) fn message(&self) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = match self.net {
            IpNet::V4(_) => AddressFamily::Inet,
            IpNet::V6(_) => AddressFamily::Inet6,
        };
        message.header.prefix_len = self.net.prefix_len();
        message.header.index = self.ifindex;
        message
            .attributes
            .push(AddressAttribute::Local(self.net.addr()));
        message
            .attributes
            .push(AddressAttribute::Address(self.net.addr()));
        match self.net {
            IpNet::V4(net) if net.prefix_len() < 31 => {
                message
                    .attributes
                    .push(AddressAttribute::Broadcast(net.broadcast()));
            }
            IpNet::V6(_) if self.skip_duplicate_check => {
                message.header.flags = AddressHeaderFlags::Nodad;
                message
                    .attributes
                    .push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
            _ => {}
        }
        message
    }

    pub(crate) fn from_message(message: AddressMessage) -> Option<Address> {
        let (mut local, mut address, mut nodad) = (None, None, false);
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(ip),
                AddressAttribute::Address(ip) => address = Some(ip),
                AddressAttribute::Flags(flags) => nodad = flags.contains(AddressFlags::Nodad),
                _ => {}
            }
        }
        // On a point-to-point link IFA_ADDRESS is the other side.
        let ip: IpAddr = local.or(address)?;
        Some(Address {
            ifindex: message.header.index,
            net: IpNet::new(ip, message.header.prefix_len).ok()?,
            skip_duplicate_check: ip.is_ipv6() && nodad,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {} of link {}", self.net, self.ifindex)
    }
}
