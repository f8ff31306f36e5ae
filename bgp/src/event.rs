//! What the users of a speaker see: events, routes, and the state of its peers.
//!
//! Plain data; the [core](crate::core) makes it, nothing here decides anything.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde::Serialize;

use crate::bfd::SessionStatus;
use crate::config::PeerName;
use crate::fsm::State;
use crate::rib::attributes::RouteAttributes;
use crate::wire::{Community, Family, Prefix};

/// A route to announce, as a route of our own AS. The next hop is ours, per session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Announcement {
    /// Where to.
    pub prefix: Prefix,
    /// Communities to send along (RFC 1997).
    pub communities: Vec<Community>,
    /// MULTI_EXIT_DISC to send along.
    pub med: Option<u32>,
    /// Whether [aggregates](crate::Aggregate) may be formed from it and stand for it.
    pub aggregate: bool,
}

impl Announcement {
    /// A route without further attributes.
    pub fn new(prefix: Prefix) -> Announcement {
        Announcement {
            prefix,
            communities: Vec::new(),
            med: None,
            aggregate: true,
        }
    }
}

/// Something that happened, or, right after subscribing, something that is the case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The subscriber was too slow and changes were skipped: forget everything, the whole current
    /// state follows.
    Resync,
    /// The current state is told completely; from here on come changes.
    Synced,
    /// The session with a peer changed its state.
    PeerState {
        /// The peer.
        peer: PeerName,
        /// The state it is in now.
        state: State,
        /// In Established, the families both sides agreed on; otherwise empty.
        families: Vec<Family>,
        /// Why the last session or attempt failed, when this is such a failure.
        error: Option<String>,
    },
    /// The peer is no more: taken out of the configuration, or a dynamic one that stayed away.
    PeerGone {
        /// The peer.
        peer: PeerName,
    },
    /// The learned paths to a prefix changed.
    Route(RouteChange),
    /// A next hop of learned routes came into use or went out of it, where they are
    /// [tracked](crate::SpeakerConfig::track_next_hops): the speaker wants to know whether it can
    /// be reached.
    NextHop {
        /// The next hop.
        address: IpAddr,
        /// Whether a route has it now.
        in_use: bool,
    },
    /// The peer has sent its whole table of the family: it said so (RFC 4724 section 2), or, if it
    /// does not offer graceful restart and need not, or restarts itself, has told nothing for 5 s.
    EndOfRib {
        /// The peer.
        peer: PeerName,
        /// The family.
        family: Family,
    },
}

/// The learned paths to a prefix that are to be used, all at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteChange {
    /// Where to.
    pub prefix: Prefix,
    /// The best path first, then those as good as it under [`Multipath`](crate::Multipath). Empty:
    /// there is none, or we announce the prefix ourselves.
    pub paths: Vec<Path>,
}

/// One learned path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Path {
    /// Who told us.
    pub peer: PeerName,
    /// Where to send the packets.
    pub next_hop: IpAddr,
    /// Its session is gone and it is kept until its peer is back (RFC 4724).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
    /// Everything it said.
    pub attributes: Arc<RouteAttributes>,
}

/// The state of a peer and its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PeerStatus {
    /// Its name.
    pub name: PeerName,
    /// Its configured address.
    pub address: IpAddr,
    /// Its configured AS number.
    pub asn: u32,
    /// The [group](crate::DynamicPeers) it came by, if it is not configured one by one.
    pub dynamic: Option<PeerName>,
    /// Whether it is in our own AS.
    pub internal: bool,
    /// Whether we wait for it to connect.
    pub passive: bool,
    /// Whether the operator lets the session be up.
    pub admin_up: bool,
    /// The state of the session.
    pub state: State,
    /// For how many seconds it has been in that state.
    pub since_seconds: u64,
    /// How often a session was established.
    pub sessions: u64,
    /// Why the last attempt failed, until one succeeds, or else why the last session was lost; in words that say what to
    /// do.
    pub last_error: Option<String>,
    /// What stands in the way of routes, though the session may be up.
    pub notes: Vec<String>,
    /// Our address of the session.
    pub local_address: Option<IpAddr>,
    /// The BGP identifier of the peer, once it has sent its OPEN.
    pub router_id: Option<Ipv4Addr>,
    /// The families in use.
    pub families: Vec<Family>,
    /// The hold time in use, in seconds; 0: none.
    pub hold_time: Option<u16>,
    /// Whether both sides speak 4-octet AS numbers.
    pub four_octet_as: bool,
    /// Whether the peer offers graceful restart, and its restart time in seconds.
    pub peer_restart_time: Option<u16>,
    /// Capabilities that either side offers; none before the OPENs.
    pub capabilities: Vec<CapabilityStatus>,
    /// Messages received on this session.
    pub messages_in: u64,
    /// Messages sent on this session.
    pub messages_out: u64,
    /// Routes per family.
    pub prefixes: BTreeMap<Family, PrefixCounts>,
    /// The BFD session with it, where there is to be one.
    pub bfd: Option<SessionStatus>,
}

/// A capability of the OPENs (RFC 5492).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CapabilityStatus {
    /// Its name, as in the configuration.
    pub name: &'static str,
    /// What we offer; absent: nothing.
    pub ours: Option<String>,
    /// What the peer offers; absent: nothing.
    pub theirs: Option<String>,
    /// Whether it is used.
    pub in_use: bool,
}

/// How many routes a session carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PrefixCounts {
    /// Routes the peer tells us now.
    pub received: usize,
    /// Those of them that our policy and checks let in.
    pub accepted: usize,
    /// Those of them that are kept until the peer is back (RFC 4724).
    pub stale: usize,
    /// Most that are accepted on this session; absent: any number.
    pub limit: Option<usize>,
    /// Routes that are refused because of this limit.
    pub beyond_limit: usize,
    /// Routes we have told the peer. 0 unless the session is established.
    pub advertised: usize,
    /// Changes that wait to be told, because the peer reads slowly.
    pub pending: usize,
}

/// What each peer with an established session has been told.
pub type Advertised = BTreeMap<PeerName, Told>;

/// What one peer has been told.
pub type Told = BTreeMap<Prefix, Arc<RouteAttributes>>;

/// A group of [dynamic peers](crate::DynamicPeers) as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DynamicStatus {
    /// The name of the group.
    pub name: PeerName,
    /// Where its peers connect from.
    pub prefix: Prefix,
    /// How many there may be at once.
    pub limit: u32,
    /// How many there are, established or not.
    pub peers: usize,
    /// How many of them have an established session.
    pub established: usize,
    /// How many connections were closed because there was no room for another peer.
    pub full: u64,
}

/// An [aggregate](crate::Aggregate) as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AggregateStatus {
    /// Where to.
    pub prefix: Prefix,
    /// Whether the routes inside it are not told beside it.
    pub summary_only: bool,
    /// How many announced routes it stands for; 0: it is not announced.
    pub contributors: usize,
}
