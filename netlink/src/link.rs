//! Links as the kernel shows them, and changes to one.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVxlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, State,
};

use crate::error::Error;
use crate::{Mac, Namespace};

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index, never 0.
    pub index: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// The kernel's name of its kind, such as `bridge` or `vxlan`; `None` for hardware and `lo`.
    pub kind: Option<String>,
    /// Its MAC, where it has one.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Has a carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Its operational state is up (RFC 2863): it carries packets. Between the carrier and this the
    /// kernel takes a moment, in which it drops what is sent. Links that have no notion of a carrier,
    /// such as VXLAN devices, never tell.
    pub operational: bool,
    /// Takes part in multicast (`IFF_MULTICAST`).
    pub multicast: bool,
    /// Free text that its maker may set.
    pub alias: Option<String>,
    /// Index of the bridge it is a port of.
    pub master: Option<u32>,
    /// Index of the link it is bound to (the other end of a veth pair, in that one's namespace).
    pub lower: Option<u32>,
    /// Whether the kernel gives it an IPv6 link-local address by itself; `None` if it does not say.
    pub makes_link_local: Option<bool>,
    /// Settings of a VXLAN device.
    pub vxlan: Option<VxlanSettings>,
    /// Counters.
    pub stats: LinkStats,
}

/// What the kernel says of a VXLAN device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VxlanSettings {
    /// Takes VNI and peer from the route.
    pub external: bool,
    /// Its VNI; 0 in external mode.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Own underlay address.
    pub local: Option<IpAddr>,
}

/// Packets and bytes since the link was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Received and dropped.
    pub rx_dropped: u64,
    /// Received in error.
    pub rx_errors: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Dropped on sending.
    pub tx_dropped: u64,
    /// Failed to send.
    pub tx_errors: u64,
}

impl Link {
    /// A link that is down, and of which nothing else is known.
    #[must_use]
    pub fn new(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind: None,
            mac: None,
            mtu: 0,
            up: false,
            carrier: false,
            operational: false,
            multicast: false,
            alias: None,
            master: None,
            lower: None,
            makes_link_local: None,
            vxlan: None,
            stats: LinkStats::default(),
        }
    }

    /// Reads a link message; `None` for one that has no name, as the kernel sends for bridge ports.
    pub(crate) fn from_message(message: LinkMessage) -> Option<Link> {
        let flags = message.header.flags;
        let mut link = Link {
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            multicast: flags.contains(LinkFlags::Multicast),
            ..Link::new(message.header.index, "")
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::OperState(state) => link.operational = state == State::Up,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::Link(index) => link.lower = Some(index),
                LinkAttribute::LinkInfo(infos) => link.read_info(infos),
                LinkAttribute::AfSpecUnspec(specs) => link.read_specs(specs),
                LinkAttribute::Stats64(stats) => {
                    link.stats = LinkStats {
                        rx_packets: stats.rx_packets,
                        rx_bytes: stats.rx_bytes,
                        rx_dropped: stats.rx_dropped,
                        rx_errors: stats.rx_errors,
                        tx_packets: stats.tx_packets,
                        tx_bytes: stats.tx_bytes,
                        tx_dropped: stats.tx_dropped,
                        tx_errors: stats.tx_errors,
                    };
                }
                _ => {}
            }
        }
        (!link.name.is_empty()).then_some(link)
    }

    fn read_info(&mut self, infos: Vec<LinkInfo>) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = Some(kind_name(&kind)),
                LinkInfo::Data(InfoData::Vxlan(attributes)) => {
                    let vxlan = self.vxlan.insert(VxlanSettings::default());
                    for attribute in attributes {
                        match attribute {
                            InfoVxlan::CollectMetadata(on) => vxlan.external = on,
                            InfoVxlan::Id(vni) => vxlan.vni = vni,
                            InfoVxlan::Port(port) => vxlan.port = port,
                            InfoVxlan::Local(addr) => vxlan.local = Some(addr.into()),
                            InfoVxlan::Local6(addr) => vxlan.local = Some(addr.into()),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn read_specs(&mut self, specs: Vec<AfSpecUnspec>) {
        for spec in specs {
            let AfSpecUnspec::Inet6(attributes) = spec else {
                continue;
            };
            for attribute in attributes {
                if let AfSpecInet6::AddrGenMode(mode) = attribute {
                    self.makes_link_local = Some(mode != In6AddrGenMode::None);
                }
            }
        }
    }
}

fn kind_name(kind: &InfoKind) -> String {
    match kind {
        InfoKind::Bridge => "bridge".to_owned(),
        InfoKind::Veth => "veth".to_owned(),
        InfoKind::Vxlan => "vxlan".to_owned(),
        InfoKind::Dummy => "dummy".to_owned(),
        InfoKind::Other(name) => name.clone(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// A change to one link, told by its index. What is not set stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    index: u32,
    up: Option<bool>,
    multicast: Option<bool>,
    name: Option<String>,
    mac: Option<Mac>,
    mtu: Option<u32>,
    alias: Option<String>,
    master: Option<u32>,
    namespace: Option<i32>,
    makes_link_local: Option<bool>,
}

impl LinkChange {
    /// A change to the link with this index.
    #[must_use]
    pub fn of(index: u32) -> LinkChange {
        LinkChange {
            index,
            ..LinkChange::default()
        }
    }

    /// Brings it up or down.
    #[must_use]
    pub fn up(mut self, up: bool) -> LinkChange {
        self.up = Some(up);
        self
    }

    /// Whether it takes part in multicast: without, the kernel joins no groups on it by itself.
    #[must_use]
    pub fn multicast(mut self, on: bool) -> LinkChange {
        self.multicast = Some(on);
        self
    }

    /// Renames it; it must be down.
    #[must_use]
    pub fn rename(mut self, name: &str) -> LinkChange {
        self.name = Some(name.to_owned());
        self
    }

    /// Sets its MAC.
    #[must_use]
    pub fn mac(mut self, mac: Mac) -> LinkChange {
        self.mac = Some(mac);
        self
    }

    /// Sets its MTU in bytes.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> LinkChange {
        self.mtu = Some(mtu);
        self
    }

    /// Sets its alias, at most 255 bytes; an empty one removes it.
    #[must_use]
    pub fn alias(mut self, alias: &str) -> LinkChange {
        self.alias = Some(alias.to_owned());
        self
    }

    /// Makes it a port of the bridge with this index; 0 takes it out of its bridge.
    #[must_use]
    pub fn master(mut self, index: u32) -> LinkChange {
        self.master = Some(index);
        self
    }

    /// Moves it into another namespace. Keep `namespace` until the request was sent.
    #[must_use]
    pub fn namespace(mut self, namespace: &Namespace) -> LinkChange {
        self.namespace = Some(namespace.fd().as_raw_fd());
        self
    }

    /// Whether the kernel gives it an IPv6 link-local address when it comes up.
    #[must_use]
    pub fn link_local(mut self, made: bool) -> LinkChange {
        self.makes_link_local = Some(made);
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        self.name.as_deref().map_or(Ok(()), check_name)
    }

    pub(crate) fn message(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = self.index;
        for (wanted, flag) in [
            (self.up, LinkFlags::Up),
            (self.multicast, LinkFlags::Multicast),
        ] {
            if let Some(on) = wanted {
                message.header.change_mask |= flag;
                if on {
                    message.header.flags |= flag;
                }
            }
        }
        let list = &mut message.attributes;
        if let Some(name) = &self.name {
            list.push(LinkAttribute::IfName(name.clone()));
        }
        if let Some(mac) = self.mac {
            list.push(LinkAttribute::Address(mac.0.to_vec()));
        }
        if let Some(mtu) = self.mtu {
            list.push(LinkAttribute::Mtu(mtu));
        }
        if let Some(alias) = &self.alias {
            list.push(LinkAttribute::IfAlias(alias.clone()));
        }
        if let Some(index) = self.master {
            list.push(LinkAttribute::Controller(index));
        }
        if let Some(fd) = self.namespace {
            list.push(LinkAttribute::NetNsFd(fd));
        }
        if let Some(made) = self.makes_link_local {
            let mode = if made {
                In6AddrGenMode::Eui64
            } else {
                In6AddrGenMode::None
            };
            list.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
                vec![AfSpecInet6::AddrGenMode(mode)],
            )]));
        }
        message
    }
}

impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link with index {}:", self.index)?;
        if let Some(up) = self.up {
            write!(f, " {}", if up { "up" } else { "down" })?;
        }
        if let Some(on) = self.multicast {
            write!(f, " multicast {}", if on { "on" } else { "off" })?;
        }
        if let Some(name) = &self.name {
            write!(f, " name {name}")?;
        }
        if let Some(mac) = self.mac {
            write!(f, " MAC {mac}")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " MTU {mtu}")?;
        }
        if let Some(alias) = &self.alias {
            write!(f, " alias `{alias}`")?;
        }
        if let Some(index) = self.master {
            write!(f, " master {index}")?;
        }
        if self.namespace.is_some() {
            write!(f, " into another namespace")?;
        }
        if let Some(made) = self.makes_link_local {
            write!(
                f,
                " {} link-local address",
                if made { "with" } else { "without" }
            )?;
        }
        Ok(())
    }
}

/// Refuses what the kernel refuses as a name, before it gets there.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let fits = (1..=15).contains(&name.len()) && name != "." && name != "..";
    if fits
        && !name
            .bytes()
            .any(|b| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace())
    {
        Ok(())
    } else {
        Err(Error::LinkName(name.to_owned()))
    }
}
