//! What the user of BFD is told: changes of a session, why one was lost, and how one stands.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use serde::Serialize;

use super::endpoint::SessionId;
use super::packet::{Diagnostic, Discriminator, State};
use super::session::Change;

/// What happened to a session since the last event of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Which session.
    pub session: SessionId,
    /// The state it is in now.
    pub state: State,
    /// Why, as the peer is told.
    pub diagnostic: Diagnostic,
    /// It was up in between, and no more at some time after that; the last such loss.
    pub lost: Option<Lost>,
}

/// How a session that was up came down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Nothing was heard for so long.
    Silence(Duration),
    /// The peer says that it is down, and why: it does not hear us, or has started anew.
    Signaled(Diagnostic),
    /// The peer's operator took it down: that says nothing of the path (RFC 5882 section 3.2).
    RemoteAdmin,
    /// We were told to take it down.
    LocalAdmin,
}

impl Lost {
    pub(super) fn of(change: &Change) -> Option<Lost> {
        if change.from != State::Up || change.to == State::Up {
            return None;
        }
        Some(match (change.to, change.detection_time, change.remote) {
            (State::AdminDown, ..) => Lost::LocalAdmin,
            (_, Some(time), _) => Lost::Silence(time),
            (_, None, (State::AdminDown, _)) => Lost::RemoteAdmin,
            (_, None, (_, diagnostic)) => Lost::Signaled(diagnostic),
        })
    }

    /// Whether the path has failed; otherwise somebody only stopped asking.
    pub const fn is_failure(self) -> bool {
        matches!(self, Lost::Silence(_) | Lost::Signaled(_))
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Silence(time) => write!(f, "nothing was heard from the peer for {time:?}"),
            Lost::Signaled(diagnostic) => write!(f, "the peer says it is down: {diagnostic}"),
            Lost::RemoteAdmin => f.write_str("the peer's operator took BFD down"),
            Lost::LocalAdmin => f.write_str("BFD was taken down here"),
        }
    }
}

/// How a session stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "BfdStatus"))]
pub struct SessionStatus {
    /// The other end.
    pub peer: IpAddr,
    /// Our end, where it is configured.
    pub local: Option<IpAddr>,
    /// Whether routers may lie between (RFC 5883).
    pub multihop: bool,
    /// Our state.
    pub state: State,
    /// For how many seconds.
    pub since_seconds: u64,
    /// Why, as we tell the peer.
    pub diagnostic: Diagnostic,
    /// The peer's state; absent: it is not heard.
    pub remote_state: Option<State>,
    /// Why, as the peer tells us.
    pub remote_diagnostic: Option<Diagnostic>,
    /// How often we send, in microseconds before jitter; 0: not periodically.
    pub transmit_interval_us: u64,
    /// How long the peer may be silent, in microseconds.
    pub detection_time_us: Option<u64>,
    /// How many of our packets the peer may miss.
    pub multiplier: NonZeroU8,
    /// Our discriminator.
    pub discriminator: Discriminator,
    /// The peer's.
    pub remote_discriminator: Option<Discriminator>,
    /// Packets of the peer that were taken.
    pub packets_in: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Packets that were not authentic.
    pub unauthentic: u64,
    /// Packets that could not be sent.
    pub unsent: u64,
    /// How often it was up.
    pub times_up: u64,
    /// Why it was last lost, once it was up.
    pub last_down: Option<String>,
    /// What keeps packets from being sent or believed.
    pub error: Option<String>,
}
