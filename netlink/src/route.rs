//! Routes in a normal form: what is asked for and what is dumped compare with `==`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in order.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// That of an address.
    #[must_use]
    pub fn of(addr: IpAddr) -> Family {
        if addr.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    }

    /// The prefix that holds every address of this family.
    #[must_use]
    pub fn everything(self) -> IpNet {
        match self {
            Family::V4 => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
            Family::V6 => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        })
    }
}

/// What a route does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// Forwards to its next hops.
    #[default]
    Unicast,
    /// Drops in silence.
    Blackhole,
    /// Drops and answers "host unreachable".
    Unreachable,
    /// Drops and answers "administratively prohibited".
    Prohibit,
    /// Ends the search in this table.
    Throw,
    /// Delivers to this host.
    Local,
    /// Another kind, by its number (`RTN_*`).
    Other(u8),
}

/// A route.
///
/// In normal form (see [`Route::normalised`]) two routes that mean the same are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Routing table; 254 is `main`.
    pub table: u32,
    /// Destination, without host bits.
    pub prefix: IpNet,
    /// The smaller is preferred. The kernel takes 0 in IPv6 for 1024.
    pub metric: u32,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
    /// What it does.
    pub kind: RouteKind,
    /// Source address of packets that this host sends itself.
    pub source: Option<IpAddr>,
    /// Where it leads; several share load by weight. Empty unless `kind` is unicast or local.
    pub next_hops: Vec<NextHop>,
}

/// One place a route leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// Router; it may be IPv6 for an IPv4 route. `None` is directly on the link.
    pub via: Option<IpAddr>,
    /// Index of the link; 0 lets the kernel find it.
    pub ifindex: u32,
    /// Share of the flows, 1..=256, relative to the other next hops. A lone one has 1.
    pub weight: u16,
    /// Do not check that `via` is reachable on the link.
    pub onlink: bool,
    /// Encapsulation, for a device in external mode.
    pub encap: Option<Encap>,
}

/// Lightweight-tunnel encapsulation: the outer header that an external device builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Encap {
    /// Tunnel id; the VNI for VXLAN.
    pub id: u64,
    /// Outer destination.
    pub destination: IpAddr,
    /// Outer source; `None` lets the underlay route decide.
    pub source: Option<IpAddr>,
    /// Outer TTL; 0 is the system's default.
    pub ttl: u8,
    /// Outer DSCP and ECN byte before RFC 6040 marking.
    pub tos: u8,
    /// Outer UDP checksum; an IPv6 underlay needs it, since receivers refuse datagrams without.
    pub checksum: bool,
}

impl Encap {
    /// To one VTEP with one VNI, the rest as the system and the underlay decide.
    #[must_use]
    pub fn new(id: u64, destination: IpAddr) -> Encap {
        Encap {
            id,
            destination,
            source: None,
            ttl: 0,
            tos: 0,
            checksum: destination.is_ipv6(),
        }
    }
}

impl NextHop {
    /// A router on a link.
    #[must_use]
    pub fn via(addr: IpAddr, ifindex: u32) -> NextHop {
        NextHop {
            via: Some(addr),
            ifindex,
            weight: 1,
            onlink: false,
            encap: None,
        }
    }

    /// Directly on a link.
    #[must_use]
    pub fn dev(ifindex: u32) -> NextHop {
        NextHop {
            via: None,
            ifindex,
            weight: 1,
            onlink: false,
            encap: None,
        }
    }
}

impl Route {
    /// A unicast route with one next hop, in table `main`, made by "static" (4).
    #[must_use]
    pub fn new(prefix: IpNet, next_hop: NextHop) -> Route {
        Route {
            table: Route::MAIN,
            prefix: prefix.trunc(),
            metric: 0,
            protocol: Route::STATIC,
            kind: RouteKind::Unicast,
            source: None,
            next_hops: vec![next_hop],
        }
        .normalised()
    }

    /// Number of table `main`.
    pub const MAIN: u32 = 254;
    /// Protocol number of routes that an operator made.
    pub const STATIC: u8 = 4;
    /// The metric the kernel gives an IPv6 route that asks for 0.
    const IPV6_DEFAULT_METRIC: u32 = 1024;

    /// IPv4 or IPv6.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.prefix.addr())
    }

    /// The form in which the kernel shows it: no host bits, next hops sorted, weights in range and
    /// 1 for a lone next hop, none for a route that leads nowhere, IPv6 metric not 0.
    #[must_use]
    pub fn normalised(mut self) -> Route {
        self.prefix = self.prefix.trunc();
        if self.metric == 0 && self.family() == Family::V6 {
            self.metric = Route::IPV6_DEFAULT_METRIC;
        }
        match self.kind {
            RouteKind::Unicast | RouteKind::Local | RouteKind::Other(_) => {}
            _ => self.next_hops.clear(),
        }
        if let [only] = self.next_hops.as_mut_slice() {
            only.weight = 1;
        }
        for hop in &mut self.next_hops {
            hop.weight = hop.weight.clamp(1, 256);
        }
        self.next_hops.sort_unstable();
        self
    }
}

/// What to dump. Everything that is set is filtered by the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteFilter {
    /// Only this family; both if absent.
    pub family: Option<Family>,
    /// Only this table.
    pub table: Option<u32>,
    /// Only those of this maker.
    pub protocol: Option<u8>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteKind::Unicast => {}
            RouteKind::Other(number) => write!(f, "kind {number} ")?,
            kind => write!(f, "{} ", format!("{kind:?}").to_lowercase())?,
        }
        write!(
            f,
            "{} table {} metric {}",
            self.prefix, self.table, self.metric
        )?;
        write!(f, " proto {}", self.protocol)?;
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        let several = self.next_hops.len() > 1;
        for hop in &self.next_hops {
            if several {
                write!(f, " nexthop weight {}", hop.weight)?;
            }
            write!(f, "{hop}")?;
        }
        Ok(())
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(encap) = &self.encap {
            write!(f, " encap id {} dst {}", encap.id, encap.destination)?;
            if let Some(source) = encap.source {
                write!(f, " src {source}")?;
            }
            if encap.tos != 0 {
                write!(f, " tos {}", encap.tos)?;
            }
        }
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if self.ifindex != 0 {
            write!(f, " dev {}", self.ifindex)?;
        }
        if self.onlink {
            write!(f, " onlink")?;
        }
        Ok(())
    }
}
