//! The finite state machine of one connection (RFC 4271 section 8).
//!
//! `(state, event, now) -> actions`: no socket, clock or random source inside. Whoever drives it
//! performs the actions in order, feeds in what happens, and asks [`Fsm::next_timeout`] when to
//! come back. Messages have been parsed and OPENs been judged (see [`negotiate`]) before they
//! arrive here; routes are no matter of this module.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::PeerConfig;
use crate::wire::{Cease, Notification, OpenError, UpdateError, WireError};

pub mod negotiate;
mod timers;
mod transition;

pub use timers::{Jitter, Timer};

use timers::Timers;

#[cfg(test)]
mod tests;

/// The state of a session (RFC 4271 section 8.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum State {
    /// Nothing is tried, and connections from the peer are refused.
    #[default]
    Idle,
    /// A TCP connection is being opened.
    Connect,
    /// We wait for the peer to connect, or for the next attempt.
    Active,
    /// Our OPEN is sent; that of the peer is awaited.
    OpenSent,
    /// The peer's OPEN was good; its KEEPALIVE is awaited.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl State {
    /// Every state, in the order a session runs through them.
    pub const ALL: [State; 6] = [
        State::Idle,
        State::Connect,
        State::Active,
        State::OpenSent,
        State::OpenConfirm,
        State::Established,
    ];

    /// The name used in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Connect => "connect",
            State::Active => "active",
            State::OpenSent => "open-sent",
            State::OpenConfirm => "open-confirm",
            State::Established => "established",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for State {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What can happen to a session; the numbers are those of RFC 4271 section 8.1.
///
/// The start events with passive establishment or damping (4 to 7) are [`Event::ManualStart`] and
/// [`Event::AutomaticStart`] of a machine whose [`Terms`] say so. Events 14 and 15 are optional
/// and happen earlier: a connection from an unknown source never gets to a state machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// 1, 4: the operator lets the session come up.
    ManualStart,
    /// 2: the operator takes the session down, with this NOTIFICATION or in silence.
    ManualStop(Option<Notification>),
    /// 3, 5, 6, 7: the system lets the session come up.
    AutomaticStart,
    /// 8: the system takes the session down.
    AutomaticStop(Notification),
    /// 9 to 13, and 29 (RFC 9687): a timer ran out.
    Expired(Timer),
    /// 16: the connection we asked for is there.
    TcpRequestAcked,
    /// 17: the peer has connected.
    TcpConnectionConfirmed,
    /// 18: the connection could not be opened, or is gone; why, in the words of the system.
    TcpConnectionFails(String),
    /// 19, 20: a valid OPEN. The hold time is the one agreed on, in seconds.
    Open {
        /// Negotiated hold time.
        hold_time: u16,
    },
    /// 21: a wrong message header.
    HeaderError(WireError),
    /// 22: a wrong or unacceptable OPEN.
    OpenError(OpenError),
    /// 23: this connection has lost a collision (RFC 4271 section 6.8).
    OpenCollisionDump,
    /// 24, 25: the peer ends the session.
    Notification(Notification),
    /// 26: KEEPALIVE.
    Keepalive,
    /// 27: UPDATE without an error that ends the session.
    Update,
    /// 28: UPDATE with such an error.
    UpdateError(UpdateError),
    /// BFD has come up (draft-ietf-idr-bgp-bfd-strict-mode): what waited for it need not any longer.
    PathUp,
    /// The other connection with the peer is gone (see [`Fsm::contest`]).
    Uncontested,
    /// ROUTE-REFRESH (RFC 2918): has its place where an UPDATE has, but keeps no session alive.
    RouteRefresh,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Open a TCP connection to the peer.
    Connect,
    /// Send our OPEN.
    SendOpen,
    /// Send a KEEPALIVE.
    SendKeepalive,
    /// Send this; [`Action::Close`] follows.
    SendNotification(Notification),
    /// Close the TCP connection, or give up opening it; nothing of it may come back.
    Close,
    /// The session is established: routes may flow.
    Up,
    /// The attempt or the session is over; if it was established, its routes are invalid.
    Down(Cause),
}

/// Why an attempt or a session is over.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// The operator stopped it.
    ManualStop,
    /// The system stopped it.
    AutomaticStop(Notification),
    /// The TCP connection could not be opened.
    ConnectFailed(String),
    /// Opening the TCP connection takes too long.
    ConnectTimeout(Duration),
    /// The TCP connection went away, in this state.
    ConnectionLost(State, String),
    /// Nothing was heard for the hold time, in this state.
    HoldTimerExpired(State, Duration),
    /// Nothing we sent was read for so long (RFC 9687).
    SendHoldTimerExpired(Duration),
    /// BFD, which the session waits for, did not come up for so long.
    PathNotUp(Duration),
    /// The peer sent a wrong header.
    HeaderError(WireError),
    /// The peer sent an OPEN that is wrong, or not acceptable.
    OpenError(OpenError),
    /// The peer sent an UPDATE that is wrong beyond repair.
    UpdateError(UpdateError),
    /// Another connection of the same peer was chosen.
    Collision,
    /// The peer said so, in this state.
    Notified(State, Notification),
    /// A message or timer that has no place in this state.
    Unexpected(State, &'static str),
}

impl Cause {
    /// Whether a connection is gone and nothing else is wrong.
    pub fn is_loss_of_connection(&self) -> bool {
        match self {
            Cause::ConnectFailed(_) | Cause::ConnectTimeout(_) | Cause::ConnectionLost(..) => true,
            Cause::Notified(_, said) => said.is_cease(Cease::ConnectionCollisionResolution),
            _ => false,
        }
    }
}

/// The terms under which a machine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Wait for the peer to connect (PassiveTcpEstablishment).
    pub passive: bool,
    /// ConnectRetryTime.
    pub connect_retry: Duration,
    /// DelayOpenTime; absent: DelayOpen is off.
    pub delay_open: Option<Duration>,
    /// IdleHoldTime after the first failure (DampPeerOscillations is always on).
    pub idle_hold: Duration,
    /// The longest IdleHoldTime.
    pub idle_hold_max: Duration,
    /// SendHoldTime (RFC 9687); absent: what the RFC recommends.
    pub send_hold: Option<Duration>,
    /// Wait for BFD to be up before the peer's OPEN is answered with a KEEPALIVE.
    pub await_path: bool,
}

impl From<&PeerConfig> for Terms {
    fn from(peer: &PeerConfig) -> Self {
        Terms {
            passive: peer.passive,
            connect_retry: peer.connect_retry,
            delay_open: peer.delay_open,
            idle_hold: peer.idle_hold,
            idle_hold_max: peer.idle_hold_max,
            send_hold: peer.send_hold_time,
            await_path: peer.bfd.as_ref().is_some_and(|bfd| bfd.strict),
        }
    }
}

/// Hold time while the peer's OPEN is awaited (RFC 4271 section 8.2.2 suggests 4 minutes).
pub const OPEN_HOLD_TIME: Duration = Duration::from_secs(240);

/// How long BFD is waited for where the hold time is 0, as draft-ietf-idr-bgp-bfd-strict-mode has it.
pub const PATH_HOLD_TIME: Duration = Duration::from_secs(30);

/// How long two connections with one peer may wait for each other before the one that was heard goes on.
pub const CONTEST_TIME: Duration = Duration::from_secs(2);

/// The least SendHoldTime that RFC 9687 section 3.1 recommends.
pub const SEND_HOLD_TIME: Duration = Duration::from_secs(8 * 60);

/// The state machine of one connection of a peer.
#[derive(Debug, Clone)]
pub struct Fsm {
    terms: Terms,
    state: State,
    timers: Timers,
    jitter: Jitter,
    /// Negotiated; zero: neither keepalives nor a hold timer.
    hold_time: Duration,
    connect_retry_counter: u32,
    damping: Damping,
    /// Whether BFD is up.
    path_up: bool,
    /// Whether another connection with the peer may be the one that lives.
    contested: bool,
    /// In OpenConfirm: which of the two KEEPALIVEs there were.
    confirmed: Confirmed,
}

/// The KEEPALIVEs that answer the OPENs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Confirmed {
    /// Ours is sent: the peer may be Established.
    by_us: bool,
    /// The peer's is there.
    by_peer: bool,
}

impl Confirmed {
    const BOTH: Confirmed = Confirmed {
        by_us: true,
        by_peer: true,
    };
}

/// How often it failed of late, for the back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Damping {
    failures: u32,
    established_at: Option<Instant>,
}

impl Fsm {
    /// A machine in Idle, with nothing to do until a start event.
    pub fn new(terms: Terms, jitter: Jitter) -> Fsm {
        Fsm {
            terms,
            state: State::Idle,
            timers: Timers::default(),
            jitter,
            hold_time: Duration::ZERO,
            connect_retry_counter: 0,
            damping: Damping::default(),
            path_up: false,
            contested: false,
            confirmed: Confirmed::default(),
        }
    }

    /// A machine for a connection that the peer opened while another one is under way. It starts
    /// in Active, waiting for [`Event::TcpConnectionConfirmed`], and never connects itself.
    pub fn for_incoming(mut terms: Terms, jitter: Jitter) -> Fsm {
        terms.passive = true;
        Fsm {
            state: State::Active,
            ..Fsm::new(terms, jitter)
        }
    }

    /// Makes the machine of the connection that won a collision the peer's own: it takes over the
    /// terms and the history of failures of the one that lost.
    pub fn succeed(&mut self, loser: &Fsm) {
        self.terms = loser.terms.clone();
        self.connect_retry_counter = loser.connect_retry_counter;
        self.damping.failures = loser.damping.failures;
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// ConnectRetryCounter (RFC 4271 section 8): failed attempts since the operator's last start
    /// or stop.
    pub fn connect_retry_counter(&self) -> u32 {
        self.connect_retry_counter
    }

    /// When to call [`Fsm::expired`] next; `None`: not before something else happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The timer that ran out first, stopped; to be fed back in as [`Event::Expired`]. Call until
    /// `None`.
    pub fn expired(&mut self, now: Instant) -> Option<Timer> {
        self.timers.expired(now)
    }

    /// Notes that an UPDATE was sent: it tells the peer as much as a KEEPALIVE does, so that the
    /// next one may wait (RFC 4271 section 8.2.2, Established).
    pub fn update_sent(&mut self, now: Instant) {
        if self.state == State::Established {
            self.restart_keepalive(now);
        }
    }

    /// Other terms hold from now on; a timer that runs goes on as it was started.
    pub fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// Notes whether BFD is up; if it comes up while that is waited for, [`Event::PathUp`] follows.
    pub fn set_path_up(&mut self, up: bool) {
        self.path_up = up;
    }

    /// Whether all that is missing is BFD, or the peer waits as well.
    pub fn waits_for_path(&self) -> bool {
        self.state == State::OpenConfirm && self.awaits_path()
    }

    fn awaits_path(&self) -> bool {
        self.terms.await_path && !self.path_up && !self.confirmed.by_us
    }

    /// Another connection with the peer is open too, and the peer may keep that one: from here on this one is neither
    /// confirmed nor established, until [`Event::Uncontested`] or for [`CONTEST_TIME`].
    pub fn contest(&mut self, now: Instant) {
        self.contested = true;
        if self.state == State::OpenConfirm && !self.timers.is_running(Timer::Contest) {
            self.timers.start(Timer::Contest, now + CONTEST_TIME);
        }
    }

    /// Whether it waits for another connection.
    pub fn is_contested(&self) -> bool {
        self.contested
    }

    /// Whether the peer may take the session for established: it has our OPEN and our KEEPALIVE.
    pub fn is_confirmed(&self) -> bool {
        match self.state {
            State::OpenConfirm => self.confirmed.by_us,
            State::Established => true,
            _ => false,
        }
    }

    /// How long BFD may take to come up.
    fn path_hold(&self) -> Duration {
        match self.hold_time.is_zero() {
            true => PATH_HOLD_TIME,
            false => self.hold_time,
        }
    }

    /// Notes that octets were handed to the transport: they wait until it has written them.
    pub fn handed_over(&mut self, now: Instant) {
        if self.state == State::Established && !self.timers.is_running(Timer::SendHold) {
            self.timers.start(Timer::SendHold, now + self.send_hold());
        }
    }

    /// Notes that the transport has written octets, and whether more are waiting: as long as the
    /// peer reads at all, it may take its time.
    pub fn written(&mut self, waiting: bool, now: Instant) {
        if !waiting {
            self.timers.stop(Timer::SendHold);
        } else if self.timers.is_running(Timer::SendHold) {
            self.timers.start(Timer::SendHold, now + self.send_hold());
        }
    }

    /// SendHoldTime (RFC 9687 section 3.1).
    fn send_hold(&self) -> Duration {
        let recommended = SEND_HOLD_TIME.max(self.hold_time * 2);
        self.terms.send_hold.unwrap_or(recommended)
    }

    /// Whether DelayOpen lets the peer speak first on a connection that is already open.
    fn delaying_open(&self) -> bool {
        self.timers.is_running(Timer::DelayOpen)
    }

    fn restart_keepalive(&mut self, now: Instant) {
        if !self.hold_time.is_zero() {
            let interval = self.jitter.shorten(self.hold_time / 3);
            self.timers.start(Timer::Keepalive, now + interval);
        }
    }

    fn restart_hold(&mut self, now: Instant) {
        if !self.hold_time.is_zero() {
            self.timers.start(Timer::Hold, now + self.hold_time);
        }
    }

    fn restart_connect_retry(&mut self, now: Instant) {
        let pause = self.jitter.shorten(self.terms.connect_retry);
        self.timers.start(Timer::ConnectRetry, now + pause);
    }

    /// The pause after a failure: doubled with each, forgotten once a session has held.
    fn start_idle_hold(&mut self, counted: bool, now: Instant) {
        if let Some(established_at) = self.damping.established_at.take()
            && now.saturating_duration_since(established_at) >= self.terms.idle_hold_max
        {
            self.damping.failures = 0;
        }
        let factor = 1u32.checked_shl(self.damping.failures).unwrap_or(u32::MAX);
        let pause = self
            .terms
            .idle_hold
            .saturating_mul(factor)
            .min(self.terms.idle_hold_max);
        if counted {
            self.damping.failures = (self.damping.failures + 1).min(31);
        }
        let pause = self.jitter.shorten(pause);
        self.timers.start(Timer::IdleHold, now + pause);
    }
}
