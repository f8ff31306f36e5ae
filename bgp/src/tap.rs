//! What a core reports to whoever watches it closely: sessions that come and go, and messages as
//! they were on the wire. BMP and MRT are written from it.
//!
//! Nothing is collected unless somebody watches; see [`crate::core::Core::watch`].

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;

use crate::config::PeerName;
use crate::fsm::State;
use crate::rib::attributes::RouteAttributes;
use crate::wire::{Family, Nlri, Notification, Prefix, WireOptions};

/// Something that happened, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tap {
    /// The state of a peer changed.
    State {
        /// The peer.
        ends: Ends,
        /// The state it was in.
        old: State,
        /// The state it is in.
        new: State,
    },
    /// A session is established.
    Up(Arc<Up>),
    /// An established session is over.
    Down {
        /// The session.
        up: Arc<Up>,
        /// Why.
        why: Down,
    },
    /// A message arrived. Not told of KEEPALIVE, nor of what has a wrong header.
    Received {
        /// The peer.
        ends: Ends,
        /// How it is to be read.
        options: WireOptions,
        /// The message, header included. To be dropped or copied soon: it keeps alive the whole
        /// buffer into which it was read.
        octets: Bytes,
        /// For an UPDATE of an established session, that session and what became of it.
        update: Option<(Arc<Up>, Taken)>,
    },
    /// How the accepted routes of a peer changed: by an UPDATE, because our policy is another one, or
    /// because it did not tell again what was stale. Behind [`Tap::Up`], what was kept for its
    /// return. Told only if asked for.
    Accepted {
        /// The session.
        up: Arc<Up>,
        /// The routes that changed; without attributes, those that are gone.
        routes: Vec<(Nlri, Option<Arc<RouteAttributes>>)>,
        /// It was the End-of-RIB of this family.
        end_of_rib: Option<Family>,
    },
}

/// How closely a core is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watch {
    /// Sessions, states and messages are reported.
    pub sessions: bool,
    /// So are changes of accepted routes.
    pub accepted: bool,
}

/// All accepted routes to a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The prefix.
    pub prefix: Prefix,
    /// The routes that peers told us and our policy let in.
    pub paths: Vec<AcceptedPath>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedPath {
    /// Who told it: a place among [`crate::core::Core::watched_peers`].
    pub peer: u16,
    /// Its path identifier (RFC 7911); 0 without.
    pub path_id: u32,
    /// What it says after our import policy.
    pub attributes: Arc<RouteAttributes>,
}

/// How an UPDATE was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// As it says; attributes may have been discarded.
    AsIs,
    /// As a withdrawal of every route in it (RFC 7606 section 2).
    AsWithdrawal,
    /// Not at all: the session ends.
    Refused,
}

/// The two ends of a session or an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// The peer's name.
    pub name: PeerName,
    /// Its address.
    pub peer: IpAddr,
    /// Its AS number.
    pub peer_as: u32,
    /// Our address; while there is no connection, all zeros of the peer's family.
    pub local: IpAddr,
    /// Our AS number.
    pub local_as: u32,
}

/// An established session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up {
    /// Its ends.
    pub ends: Ends,
    /// The peer's BGP identifier.
    pub router_id: Ipv4Addr,
    /// Our port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
    /// How its messages look.
    pub options: WireOptions,
    /// Our OPEN, header included.
    pub sent_open: Bytes,
    /// The peer's OPEN, header included.
    pub received_open: Bytes,
}

/// Why an established session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Down {
    /// We ended it, and said so.
    Notified(Notification),
    /// We ended it in silence.
    Silent,
    /// The peer ended it, and said so.
    NotifiedByPeer(Notification),
    /// The connection went away.
    Lost,
}
