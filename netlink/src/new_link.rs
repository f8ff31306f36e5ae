//! Links to be made: bridge, veth pair, VXLAN with one VNI, VXLAN in external mode.
//!
//! Only what the kernel takes in the message that creates a link; the rest is a
//! [`LinkChange`](crate::LinkChange) afterwards, by index, so that a link of another owner with the
//! same name is never altered.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};

use crate::error::Error;
use crate::link::check_name;
use crate::{Mac, Namespace};

/// A link to be made. It comes up when told to, see [`LinkChange::up`](crate::LinkChange::up).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLink {
    name: String,
    spec: LinkSpec,
    mac: Option<Mac>,
    mtu: Option<u32>,
    master: Option<u32>,
    up: bool,
}

/// What kind of link, with the settings of that kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkSpec {
    /// A bridge.
    Bridge {
        /// Whether it listens to IGMP and MLD; that makes it send packets of its own.
        multicast_snooping: bool,
    },
    /// A pair of links; what enters one leaves the other.
    Veth {
        /// Name of the other end.
        peer: String,
        /// MAC of the other end.
        peer_mac: Option<Mac>,
        /// MTU of the other end.
        peer_mtu: Option<u32>,
        /// File descriptor of the namespace the other end is made in. It must stay open until the
        /// request was sent.
        peer_namespace: Option<i32>,
    },
    /// A VXLAN device.
    Vxlan(Vxlan),
}

/// Settings of a VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// VNI, 24 bit; `None` makes an `external` device, which takes VNI and peer from the route.
    pub vni: Option<u32>,
    /// UDP port, listened on and sent to.
    pub port: u16,
    /// Own underlay address.
    pub local: Option<IpAddr>,
    /// Where frames go that have no forwarding entry: one underlay address or multicast group.
    pub remote: Option<IpAddr>,
    /// Learn the senders of frames. Always off in external mode.
    pub learning: bool,
    /// TTL of the outer header; 0 takes the system's default.
    pub ttl: u8,
}

impl NewLink {
    fn new(name: &str, spec: LinkSpec) -> NewLink {
        NewLink {
            name: name.to_owned(),
            spec,
            mac: None,
            mtu: None,
            master: None,
            up: false,
        }
    }

    /// A bridge that sends nothing of its own: no multicast snooping, no spanning tree.
    #[must_use]
    pub fn bridge(name: &str) -> NewLink {
        NewLink::new(
            name,
            LinkSpec::Bridge {
                multicast_snooping: false,
            },
        )
    }

    /// A pair of links in the socket's namespace.
    #[must_use]
    pub fn veth(name: &str, peer: &str) -> NewLink {
        let peer = peer.to_owned();
        NewLink::new(
            name,
            LinkSpec::Veth {
                peer,
                peer_mac: None,
                peer_mtu: None,
                peer_namespace: None,
            },
        )
    }

    /// A pair of links, the other end in another namespace. Keep `namespace` until it was sent.
    #[must_use]
    pub fn veth_to(name: &str, peer: &str, namespace: &Namespace) -> NewLink {
        let mut link = NewLink::veth(name, peer);
        if let LinkSpec::Veth { peer_namespace, .. } = &mut link.spec {
            *peer_namespace = Some(namespace.fd().as_raw_fd());
        }
        link
    }

    /// A VXLAN device for one VNI, from one underlay address; peers come from forwarding entries.
    #[must_use]
    pub fn vxlan(name: &str, vni: u32, local: IpAddr, port: u16) -> NewLink {
        NewLink::new(
            name,
            LinkSpec::Vxlan(Vxlan {
                vni: Some(vni),
                port,
                local: Some(local),
                remote: None,
                learning: false,
                ttl: 0,
            }),
        )
    }

    /// A VXLAN device in external (collect metadata) mode: one device for every VNI.
    #[must_use]
    pub fn vxlan_external(name: &str, port: u16) -> NewLink {
        NewLink::new(
            name,
            LinkSpec::Vxlan(Vxlan {
                vni: None,
                port,
                local: None,
                remote: None,
                learning: false,
                ttl: 0,
            }),
        )
    }

    /// Sets the MAC.
    #[must_use]
    pub fn mac(mut self, mac: Mac) -> NewLink {
        self.mac = Some(mac);
        self
    }

    /// Sets the MTU, in bytes of IP packet.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> NewLink {
        self.mtu = Some(mtu);
        self
    }

    /// Sets the MAC of the other end; only of use with a veth pair.
    #[must_use]
    pub fn peer_mac(mut self, mac: Mac) -> NewLink {
        if let LinkSpec::Veth { peer_mac, .. } = &mut self.spec {
            *peer_mac = Some(mac);
        }
        self
    }

    /// Sets the MTU of the other end; only of use with a veth pair.
    #[must_use]
    pub fn peer_mtu(mut self, mtu: u32) -> NewLink {
        if let LinkSpec::Veth { peer_mtu, .. } = &mut self.spec {
            *peer_mtu = Some(mtu);
        }
        self
    }

    /// Makes it a port of the bridge with this index.
    #[must_use]
    pub fn master(mut self, index: u32) -> NewLink {
        self.master = Some(index);
        self
    }

    /// Brings it up in the same message; of a veth pair only this end. The kernel then gives it a link-local IPv6 address; use a
    /// [`LinkChange`](crate::LinkChange) afterwards where it must have none.
    #[must_use]
    pub fn up(mut self) -> NewLink {
        self.up = true;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it will be.
    #[must_use]
    pub fn spec(&self) -> &LinkSpec {
        &self.spec
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        check_name(&self.name)?;
        if let LinkSpec::Veth { peer, .. } = &self.spec {
            check_name(peer)?;
        }
        Ok(())
    }

    pub(crate) fn message(&self) -> LinkMessage {
        let mut message = base(&self.name, self.mac, self.mtu);
        if let Some(index) = self.master {
            message.attributes.push(LinkAttribute::Controller(index));
        }
        if self.up {
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
        }
        let (kind, data) = match &self.spec {
            LinkSpec::Bridge { multicast_snooping } => (
                InfoKind::Bridge,
                InfoData::Bridge(vec![InfoBridge::MulticastSnooping(*multicast_snooping)]),
            ),
            LinkSpec::Veth {
                peer,
                peer_mac,
                peer_mtu,
                peer_namespace,
            } => {
                let mut other = base(peer, *peer_mac, *peer_mtu);
                if let Some(fd) = peer_namespace {
                    other.attributes.push(LinkAttribute::NetNsFd(*fd));
                }
                (InfoKind::Veth, InfoData::Veth(InfoVeth::Peer(other)))
            }
            LinkSpec::Vxlan(vxlan) => (InfoKind::Vxlan, InfoData::Vxlan(vxlan.attributes())),
        };
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(kind),
            LinkInfo::Data(data),
        ]));
        message
    }
}

impl Vxlan {
    fn attributes(&self) -> Vec<InfoVxlan> {
        let mut list = vec![InfoVxlan::Port(self.port), InfoVxlan::Ttl(self.ttl)];
        match self.vni {
            Some(vni) => {
                list.push(InfoVxlan::Id(vni));
                list.push(InfoVxlan::Learning(self.learning));
            }
            None => {
                list.push(InfoVxlan::CollectMetadata(true));
                list.push(InfoVxlan::Learning(false));
            }
        }
        match self.local {
            Some(IpAddr::V4(addr)) => list.push(InfoVxlan::Local(addr)),
            Some(IpAddr::V6(addr)) => list.push(InfoVxlan::Local6(addr)),
            None => {}
        }
        match self.remote {
            Some(IpAddr::V4(addr)) => list.push(InfoVxlan::Group(addr)),
            Some(IpAddr::V6(addr)) => list.push(InfoVxlan::Group6(addr)),
            None => {}
        }
        list
    }
}

fn base(name: &str, mac: Option<Mac>, mtu: Option<u32>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    if let Some(mac) = mac {
        message
            .attributes
            .push(LinkAttribute::Address(mac.0.to_vec()));
    }
    if let Some(mtu) = mtu {
        message.attributes.push(LinkAttribute::Mtu(mtu));
    }
    message
}

impl fmt::Display for NewLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.spec {
            LinkSpec::Bridge { .. } => write!(f, "bridge {}", self.name),
            LinkSpec::Veth { peer, .. } => write!(f, "veth pair {} and {peer}", self.name),
            LinkSpec::Vxlan(Vxlan { vni: Some(vni), .. }) => {
                write!(f, "VXLAN device {} with VNI {vni}", self.name)
            }
            LinkSpec::Vxlan(Vxlan { vni: None, .. }) => {
                write!(f, "external VXLAN device {}", self.name)
            }
        }
    }
}
