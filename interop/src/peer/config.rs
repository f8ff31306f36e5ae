//! What the lab asks of a router: who it is, whom it speaks to, on which terms, what it announces.
//!
//! The words that make a program do so are the driver's of that program.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::Family;
use ipnet::IpNet;

/// A router: who it is, whom it speaks to and what it announces.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// Name in messages and of its files: letters, digits and `-`.
    pub name: String,
    /// Its AS number, two or four octets.
    pub asn: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Its address on the segment of its neighbours: transport of IPv4 sessions, and next hop of
    /// the IPv4 prefixes it announces.
    pub address: Ipv4Addr,
    /// The same for IPv6.
    pub address6: Ipv6Addr,
    /// Its neighbours.
    pub neighbours: Vec<NeighbourConfig>,
    /// What it originates from the start; changed at run time by
    /// [`Router::announce`](super::Router::announce).
    pub announced: Vec<IpNet>,
    /// RFC 1997 communities of what it originates.
    pub communities: Vec<(u16, u16)>,
    /// RFC 8092 communities of what it originates.
    pub large_communities: Vec<(u32, u32, u32)>,
}

impl RouterConfig {
    /// What is asked of the program beyond plain BGP.
    pub fn extras(&self) -> Vec<Extra> {
        let of_neighbours = self.neighbours.iter().flat_map(NeighbourConfig::extras);
        of_neighbours.collect()
    }

    /// Its address of a family: the next hop of what it originates.
    pub(super) fn next_hop(&self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4Unicast => self.address.into(),
            Family::Ipv6Unicast => self.address6.into(),
        }
    }

    /// What it originates of one family.
    pub(super) fn announced_of(&self, family: Family) -> impl Iterator<Item = IpNet> + '_ {
        let of_family = move |prefix: &&IpNet| super::family_of(**prefix) == family;
        self.announced.iter().filter(of_family).copied()
    }
}

/// One neighbour of a router.
#[derive(Debug, Clone)]
pub struct NeighbourConfig {
    /// Name in the router's configuration where it has one: letters, digits and `_`.
    pub name: String,
    /// Its address; the session runs over this family and may carry both.
    pub address: IpAddr,
    /// Its TCP port.
    pub port: u16,
    /// The AS number expected of it.
    pub asn: u32,
    /// The families offered to it.
    pub families: Vec<Family>,
    /// Only wait for its connection, never connect.
    pub passive: bool,
    /// Hold time offered, seconds: 0, or 3 and more.
    pub hold_time: u16,
    /// Seconds between two attempts to connect. The routers' own defaults wait up to minutes: right in
    /// the field, tedious in a lab.
    pub connect_retry: u16,
    /// Offer graceful restart (RFC 4724), with this restart time, seconds (at most 4095): so the
    /// router also keeps the neighbour's routes while that restarts.
    pub graceful_restart: Option<u16>,
    /// While it restarts gracefully the router leaves what its kernel has of the neighbour's routes as it is. By default
    /// BIRD takes it out first, whatever it tells its neighbours.
    pub keeps_forwarding: bool,
    /// TCP-MD5 (RFC 2385) with this password: letters and digits.
    pub password: Option<String>,
    /// GTSM (RFC 5082) towards a neighbour on the same link.
    pub ttl_security: bool,
    /// Offer add-path (RFC 7911) both ways.
    pub add_path: bool,
    /// Offer extended messages (RFC 8654).
    pub extended_messages: bool,
    /// Offer IPv6 next hops for IPv4 (RFC 8950), and use its IPv6 address as next hop for both.
    pub extended_next_hop: bool,
    /// End the session with a Cease when the neighbour tells more than this many routes of a family.
    pub max_prefix: Option<u32>,
    /// BFD with it (RFC 5880): the session ends when the path to it fails.
    pub bfd: Option<BfdTerms>,
    /// What the router says it is to it (RFC 9234): `provider`, `customer` or `peer`.
    pub role: Option<&'static str>,
    /// Routes of it that say that it is about to go (GRACEFUL_SHUTDOWN, RFC 8326) are used last.
    pub graceful_shutdown: bool,
}

/// BFD with a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BfdTerms {
    /// How often both ends should send, in milliseconds.
    pub interval_ms: u32,
    /// How many packets may be missed.
    pub multiplier: u8,
    /// Whether routers may lie between (RFC 5883).
    pub multihop: bool,
    /// Meticulous Keyed SHA1 with this key and key id 1, where the program has it: letters and digits.
    pub password: Option<String>,
    /// When BFD ends and graceful restart was agreed, keep the neighbour's routes. By default both
    /// BIRD and FRR drop them, even when the neighbour says that BFD ends on purpose.
    pub graceful: bool,
}

impl BfdTerms {
    /// 50 ms x 3 on one link, without authentication.
    pub fn new() -> Self {
        Self {
            interval_ms: 50,
            multiplier: 3,
            multihop: false,
            password: None,
            graceful: false,
        }
    }
}

impl Default for BfdTerms {
    fn default() -> Self {
        Self::new()
    }
}

/// Something beyond plain BGP that not every program can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extra {
    /// Both families over one session with IPv4 addresses.
    Ipv6OverIpv4,
    /// [`NeighbourConfig::graceful_restart`]: its own routes are kept while it restarts.
    Restarting,
    /// The other half: it keeps its neighbour's routes while that restarts.
    Helper,
    /// [`NeighbourConfig::extended_messages`]
    ExtendedMessages,
    /// [`NeighbourConfig::extended_next_hop`]
    ExtendedNextHop,
    /// [`NeighbourConfig::max_prefix`]
    MaxPrefix,
    /// Its operator can have it send a ROUTE-REFRESH.
    AskForRefresh,
    /// It sends its routes again when it gets a ROUTE-REFRESH.
    AnswerRefresh,
    /// Its operator can give a reason for a shutdown (RFC 9003).
    ShutdownText,
    /// [`NeighbourConfig::bfd`]
    Bfd,
    /// [`NeighbourConfig::role`]
    Role,
    /// [`NeighbourConfig::graceful_shutdown`]
    GracefulShutdown,
    /// [`BfdTerms::password`]
    BfdPassword,
    /// Its operator can take BFD down, and it says so to the neighbour.
    BfdAdminDown,
    /// What it learns goes to its namespace's kernel.
    Kernel,
}

impl fmt::Display for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv6OverIpv4 => "IPv6 over an IPv4 session",
            Self::Restarting => "graceful restart of its own",
            Self::Helper => "graceful restart helper",
            Self::ExtendedMessages => "extended messages",
            Self::ExtendedNextHop => "IPv6 next hops for IPv4",
            Self::MaxPrefix => "limit of prefixes",
            Self::AnswerRefresh => "answer to a route refresh",
            Self::AskForRefresh => "command for a route refresh",
            Self::ShutdownText => "text with a shutdown",
            Self::Role => "roles",
            Self::GracefulShutdown => "routes that are about to go, used last",
            Self::Bfd => "BFD",
            Self::BfdPassword => "authentication of BFD",
            Self::BfdAdminDown => "BFD taken down by its operator",
            Self::Kernel => "routes in the kernel",
        })
    }
}

impl NeighbourConfig {
    /// Both families, hold time 9 s, active every second, port 179, graceful restart within 120 s.
    pub fn new(name: &str, address: IpAddr, asn: u32) -> Self {
        Self {
            name: name.to_owned(),
            address,
            port: 179,
            asn,
            families: Family::ALL.to_vec(),
            passive: false,
            hold_time: 9,
            connect_retry: 1,
            graceful_restart: Some(120),
            keeps_forwarding: false,
            password: None,
            ttl_security: false,
            add_path: false,
            extended_messages: false,
            extended_next_hop: false,
            max_prefix: None,
            bfd: None,
            role: None,
            graceful_shutdown: false,
        }
    }

    fn extras(&self) -> Vec<Extra> {
        let carries = |family| self.families.contains(&family);
        let asked = [
            (
                self.address.is_ipv4() && carries(Family::Ipv6Unicast),
                Extra::Ipv6OverIpv4,
            ),
            (self.extended_messages, Extra::ExtendedMessages),
            (self.extended_next_hop, Extra::ExtendedNextHop),
            (self.max_prefix.is_some(), Extra::MaxPrefix),
            (self.role.is_some(), Extra::Role),
            (self.graceful_shutdown, Extra::GracefulShutdown),
            (self.bfd.is_some(), Extra::Bfd),
            (
                self.bfd.as_ref().is_some_and(|bfd| bfd.password.is_some()),
                Extra::BfdPassword,
            ),
        ];
        let asked = asked.into_iter().filter(|(asked, _)| *asked);
        asked.map(|(_, extra)| extra).collect()
    }
}
