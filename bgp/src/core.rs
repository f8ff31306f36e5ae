//! All sessions and the routing tables, sans-IO.
//!
//! Whoever drives a [`Core`] owns the sockets and the clock: it feeds in what happened, calls
//! [`Core::timeout`] when [`Core::next_timeout`] says so, and then does what
//! [`Core::poll_output`] asks until that is `None`. No socket, clock, task or random source here;
//! one seed and one sequence of inputs give one sequence of outputs.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;

use crate::config::{ConfigError, InterfaceName, SpeakerConfig};
use crate::fsm::negotiate::Local;
use crate::fsm::{self, Jitter, State};
use crate::rib::aggregate::Aggregates;
use crate::rib::group::Dispatch;
use crate::rib::next_hop::NextHops;
use crate::rib::select::{PeerIndex, Source};
use crate::wire::{Decoded, Message, Notification, RouteRefresh, WireError};

mod admin;
mod advice;
mod bfd;
mod connection;
mod journal;
mod local;
mod peer;
mod policy;
mod reach;
mod rib;
mod roster;
mod session;
mod stale;
mod status;
mod tap;
mod view;
mod walk;

pub use admin::RefreshError;
pub use connection::{Backlog, ConnectionId};
pub use policy::PolicyChange;
pub use roster::{AddPeerError, Reconfigured};
pub use session::Flush;
pub use walk::Place;

use journal::Journal;
use peer::{Outcome, Peer};
use rib::Rib;
use roster::{DynamicGroup, REMEMBERED};
use stale::Loss;

/// What the driver of a [`Core`] is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Open a TCP connection; answer with [`Core::connected`] or [`Core::connect_failed`].
    Connect {
        /// Its name from now on.
        connection: ConnectionId,
        /// The address to connect from, if it matters.
        from: Option<IpAddr>,
        /// Where to.
        to: SocketAddr,
    },
    /// Write these octets; answer with [`Core::written`] as they leave.
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// Whole messages.
        octets: Bytes,
    },
    /// Close the connection once everything before is written, or give up opening it. Nothing
    /// that is reported of it later matters.
    Close {
        /// Which connection.
        connection: ConnectionId,
    },
}

/// How to end the sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Say so: NOTIFICATION Cease, Administrative Shutdown, with a text of at most 255 octets of
    /// UTF-8 for the peer's operator (RFC 9003; longer ones are cut). Peers drop our routes at
    /// once.
    Cease(Option<String>),
    /// Say nothing and close TCP: peers that do graceful restart keep our routes (RFC 4724).
    KeepForwarding,
}

/// No configured peer has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no peer is called {0:?}")]
pub struct UnknownPeer(pub String);

/// A whole speaker but for sockets and clock.
#[derive(Debug)]
pub struct Core {
    local: Local,
    /// We have restarted, and until then peers may wait for our return.
    restarting_until: Option<Instant>,
    peers: Vec<Peer>,
    /// By address, and by interface where that is link-local.
    by_address: HashMap<(IpAddr, Option<InterfaceName>), PeerIndex>,
    dynamic: Vec<DynamicGroup>,
    jitter: Jitter,
    rib: Rib,
    aggregates: local::OwnAggregates,
    outputs: VecDeque<Output>,
    journal: Journal,
    taps: tap::Taps,
    refused: u64,
    now: Instant,
}

/// What a step of a peer needs beside the peer.
struct Context<'a> {
    local: &'a Local,
    outputs: &'a mut VecDeque<Output>,
    now: Instant,
}

impl Core {
    /// A core with every session in Idle. `seed` is for jitter.
    ///
    /// # Errors
    /// A configuration that makes no sense.
    pub fn new(config: SpeakerConfig, seed: u64, now: Instant) -> Result<Core, ConfigError> {
        config.check()?;
        let mut jitter = Jitter::new(seed);
        let local = Local {
            asn: config.asn,
            router_id: config.router_id,
            graceful_restart: config.graceful_restart,
            graceful_shutdown: false,
        };
        let restart = local.graceful_restart.filter(|restart| restart.restarting);
        let restarting_until = restart.map(|restart| now + restart.restart_time);
        let peers: Vec<Peer> = config
            .peers
            .into_iter()
            .zip(0..)
            .map(|(peer, index)| {
                let mut peer = Peer::new(PeerIndex(index), peer, &local, jitter.fork(), now);
                peer.restarting_until = restarting_until;
                peer
            })
            .collect();
        let by_address = peers
            .iter()
            .map(|peer| (peer.config.source(), peer.index))
            .collect();
        // Identifiers are known once the OPEN is there.
        let ranks = peers
            .iter()
            .map(|peer| peer.rank(Ipv4Addr::UNSPECIFIED))
            .collect();
        let mut rib = Rib::new(ranks, config.multipath, restart.is_some());
        rib.table.interner.next_hops = NextHops::new(config.track_next_hops);
        let aggregates = Aggregates::new(local::routes_of(config.aggregate, &local));
        Ok(Core {
            local,
            restarting_until,
            peers,
            by_address,
            dynamic: config.dynamic.into_iter().map(DynamicGroup::new).collect(),
            jitter,
            rib,
            aggregates,
            outputs: VecDeque::new(),
            journal: Journal::default(),
            taps: tap::Taps::default(),
            refused: 0,
            now,
        })
    }

    /// Changes how much may be on its way to each peer that is there. With little, a small table puts a speaker
    /// to the same test as a big one does otherwise.
    pub fn limit_backlog(&mut self, backlog: Backlog) {
        for peer in &mut self.peers {
            peer.backlog = backlog;
        }
    }

    /// Lets all sessions come up.
    pub fn start(&mut self, now: Instant) {
        self.now = now;
        for index in 0..self.peers.len() {
            self.step_peer(index, fsm::Event::ManualStart);
        }
    }

    /// The connection that was asked for is there; `local` is our end of it.
    pub fn connected(&mut self, connection: ConnectionId, local: SocketAddr, now: Instant) {
        self.now = now;
        self.on_connection(connection, |peer, context| {
            peer.set_ports(connection, local.port(), peer.config.port);
            peer.connected(connection, local.ip(), context)
        });
    }

    /// The connection that was asked for cannot be had; `why` in the words of the system.
    pub fn connect_failed(&mut self, connection: ConnectionId, why: String, now: Instant) {
        self.closed(connection, why, now);
    }

    /// Somebody has connected. `None`: close it at once and forget it. Otherwise it has this name,
    /// and outputs may already say what to do with it.
    pub fn accepted(
        &mut self,
        remote: SocketAddr,
        local: SocketAddr,
        now: Instant,
    ) -> Option<ConnectionId> {
        self.accepted_on(remote, local, None, now)
    }

    /// As [`Core::accepted`], of a connection that came in by this interface: link-local addresses
    /// mean nothing without.
    pub fn accepted_on(
        &mut self,
        remote: SocketAddr,
        local: SocketAddr,
        interface: Option<&InterfaceName>,
        now: Instant,
    ) -> Option<ConnectionId> {
        self.now = now;
        let peer = self.whose(remote.ip(), interface);
        let Some(index) = peer.filter(|index| self.peers[*index].admin_up) else {
            self.refused += 1;
            return None;
        };
        let peer = &mut self.peers[index];
        let mut context = Context {
            local: &self.local,
            outputs: &mut self.outputs,
            now: self.now,
        };
        let (connection, outcome) = peer.accepted(local.ip(), &mut context)?;
        self.peers[index].set_ports(connection, local.port(), remote.port());
        self.settle(index, outcome);
        Some(connection)
    }

    /// Octets have arrived.
    pub fn received(&mut self, connection: ConnectionId, octets: &[u8], now: Instant) {
        self.now = now;
        let index = connection.peer_index();
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        peer.buffer(connection, octets);
        while let Some((options, octets, message)) = self.peers[index].next_message(connection) {
            self.tap_message(index, connection, options, octets, &message);
            self.message(index, connection, message);
        }
    }

    /// The connection is gone, by the peer or by failure.
    pub fn closed(&mut self, connection: ConnectionId, why: String, now: Instant) {
        self.now = now;
        self.on_connection(connection, |peer, context| {
            peer.step(connection, fsm::Event::TcpConnectionFails(why), context)
        });
    }

    /// It is this late now. Every input with a time says so as well; those without act at the
    /// last time told.
    pub fn set_time(&mut self, now: Instant) {
        self.now = now;
    }

    /// So many octets have been written to the connection: there may be room for more.
    pub fn written(&mut self, connection: ConnectionId, octets: usize) {
        if let Some(peer) = self.peers.get_mut(connection.peer_index()) {
            peer.written(connection, octets, self.now);
        }
    }

    /// When to call [`Core::timeout`]; `None`: not before something else happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.present().filter_map(Peer::next_timeout).min()
    }

    /// Lets timers run out. To be called after everything that arrived before `now` was fed in:
    /// otherwise a peer that was heard may count as silent.
    pub fn timeout(&mut self, now: Instant) {
        self.now = now;
        self.forget_dynamic(now);
        for index in 0..self.peers.len() {
            while let Some((connection, timer)) = self.peers[index].expired(now) {
                let event = fsm::Event::Expired(timer);
                let peer = &mut self.peers[index];
                let mut context = Context {
                    local: &self.local,
                    outputs: &mut self.outputs,
                    now,
                };
                let outcome = match connection {
                    Some(connection) => peer.step(connection, event, &mut context),
                    None => peer.step_own(event, &mut context),
                };
                self.settle(index, outcome);
            }
            self.kept_long_enough(index);
        }
    }

    /// Stale routes whose time is over go, and a session that was ended for too many routes is
    /// tried again.
    fn kept_long_enough(&mut self, index: usize) {
        let until = self.peers[index].stale.next_timeout();
        if until.is_some_and(|until| until <= self.now) {
            let before = self.before_sweep(index);
            let peer = &mut self.peers[index];
            let source = Source::Peer(peer.index);
            peer.stale.timeout(source, &mut self.rib, self.now);
            self.tap_accepted(index, before);
        }
        let peer = &mut self.peers[index];
        let session = peer.session.as_mut();
        if session.is_some_and(|session| session.timeout(self.now)) {
            self.ends_of_rib(index);
        }
        let peer = &mut self.peers[index];
        // A dynamic peer whose routes went just now has a place that another may have.
        peer.remember(self.now + REMEMBERED);
        let resumes = peer.resume_at.is_some_and(|at| at <= self.now);
        if resumes {
            peer.resume_at = None;
            self.step_peer(index, fsm::Event::ManualStart);
        }
        self.changed();
    }

    /// Says in every route that we are about to go, so that others use other paths (RFC 8326), or
    /// takes that back.
    pub fn set_graceful_shutdown(&mut self, going: bool) {
        if self.local.graceful_shutdown != going {
            self.local.graceful_shutdown = going;
            for peer in &mut self.peers {
                peer.regroup(&self.local, &mut self.rib);
            }
        }
    }

    /// The next thing to do, or `None` until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.tell_peers();
        }
        self.outputs.pop_front()
    }

    /// All that was announced before a restart is announced again: it may be told, with
    /// End-of-RIB (RFC 4724 section 4.1).
    pub fn initial_routes_complete(&mut self) {
        self.rib.complete();
    }

    /// Ends all sessions for good.
    pub fn stop(&mut self, how: &Stop, now: Instant) {
        self.now = now;
        let notification = match how {
            Stop::Cease(text) => Some(advice::shutdown(text.as_deref())),
            Stop::KeepForwarding => None,
        };
        for index in 0..self.peers.len() {
            self.peers[index].admin_up = false;
            self.step_peer(index, fsm::Event::ManualStop(notification.clone()));
            self.expect_no_return(index);
        }
    }

    /// What has to leave before every peer knows what it is to know now.
    pub fn flush(&self) -> Flush {
        let waiting = self.peers.iter().filter_map(|peer| peer.flush(&self.rib));
        Flush {
            waiting: waiting.collect(),
        }
    }

    /// Drops from `flush` what is done. `unacknowledged` says how many octets written to a
    /// connection its TCP has not got acknowledged yet.
    pub fn advance_flush(
        &mut self,
        flush: &mut Flush,
        mut unacknowledged: impl FnMut(ConnectionId) -> usize,
    ) {
        flush.waiting.retain_mut(|waiting| {
            self.peers
                .get(waiting.connection.peer_index())
                .is_some_and(|peer| !peer.is_flushed(waiting, &self.rib, &mut unacknowledged))
        });
    }

    fn step_peer(&mut self, index: usize, event: fsm::Event) {
        let mut context = Context {
            local: &self.local,
            outputs: &mut self.outputs,
            now: self.now,
        };
        let outcome = self.peers[index].step_all(event, &mut context);
        self.settle(index, outcome);
    }

    fn on_connection(
        &mut self,
        connection: ConnectionId,
        act: impl FnOnce(&mut Peer, &mut Context<'_>) -> Outcome,
    ) {
        let index = connection.peer_index();
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        let mut context = Context {
            local: &self.local,
            outputs: &mut self.outputs,
            now: self.now,
        };
        let outcome = act(peer, &mut context);
        self.settle(index, outcome);
    }

    fn message(
        &mut self,
        index: usize,
        connection: ConnectionId,
        message: Result<Decoded, WireError>,
    ) {
        let event = match message {
            Ok(Decoded {
                message: Message::Open(open),
                ..
            }) => {
                return self.on_connection(connection, |peer, context| {
                    peer.opened(connection, &open, context)
                });
            }
            Ok(Decoded {
                message: Message::Update(update),
                findings,
            }) => {
                self.on_connection(connection, |peer, context| {
                    peer.step(connection, fsm::Event::Update, context)
                });
                // In any other state it was an error, and the connection is gone.
                let before = self.before_update(index, &update, &findings);
                if let Some(session) = self.peers[index].session_on(connection) {
                    session.heard(self.now);
                    session.update(update, findings, &mut self.rib);
                    self.ends_of_rib(index);
                    self.tap_accepted(index, before);
                    self.changed();
                    self.limits(index);
                }
                return;
            }
            Ok(Decoded {
                message: Message::RouteRefresh(refresh),
                ..
            }) => {
                self.on_connection(connection, |peer, context| {
                    peer.step(connection, fsm::Event::RouteRefresh, context)
                });
                if self.peers[index].session_on(connection).is_some() {
                    let ends = refresh.subtype == RouteRefresh::END;
                    let before = ends.then(|| self.before_sweep(index)).flatten();
                    self.peers[index].route_refresh(&refresh, &mut self.rib, self.now);
                    self.tap_accepted(index, before);
                    self.changed();
                }
                return;
            }
            Ok(Decoded {
                message: Message::Keepalive,
                ..
            }) => fsm::Event::Keepalive,
            Ok(Decoded {
                message: Message::Notification(notification),
                ..
            }) => fsm::Event::Notification(notification),
            Err(WireError::Open(error)) => fsm::Event::OpenError(error),
            Err(WireError::Update(error)) => fsm::Event::UpdateError(error),
            Err(error @ WireError::Header(_)) => fsm::Event::HeaderError(error),
        };
        self.on_connection(connection, |peer, context| {
            peer.step(connection, event, context)
        });
    }

    /// Draws the consequences of a step: the tables follow the sessions.
    fn settle(&mut self, index: usize, outcome: Outcome) {
        let before = self.peers[index].reported();
        let mut ended = None;
        if outcome.down {
            ended = self.tap_down(index, outcome.why);
            let loss = outcome.loss.unwrap_or(Loss::Final);
            self.peers[index].end_session(loss, &mut self.rib, self.now);
            self.session_reaches(self.peers[index].config.address, false);
            self.changed();
        }
        if outcome.up {
            self.peers[index].begin_session(&self.local, &mut self.rib, self.now);
            self.session_reaches(self.peers[index].config.address, true);
            self.changed();
            self.tap_up(index);
        }
        self.tap_state(index, before, ended);
        let peer = &mut self.peers[index];
        peer.remember(self.now + REMEMBERED);
        if let Some(event) = peer.state_changed(outcome.failure, self.now) {
            self.journal.event(event);
        }
    }

    fn ends_of_rib(&mut self, index: usize) {
        for event in self.peers[index].new_ends_of_rib(&mut self.rib) {
            self.journal.event(event);
        }
    }

    /// Too many routes end the session where that is wanted; where they were only refused and there
    /// is room again, the peer is asked for them.
    fn limits(&mut self, index: usize) {
        let now = self.now;
        let peer = &mut self.peers[index];
        let Some(session) = &mut peer.session else {
            return;
        };
        if let Some(family) = session.beyond_limit.take() {
            let limit = session.limits.of(family);
            let restart = limit.and_then(|limit| limit.restart);
            let why = Notification::maximum_prefixes(family, limit.map_or(0, |limit| limit.limit));
            self.step_peer(index, fsm::Event::AutomaticStop(why));
            // Not as after any other failure: when the operator said, or when he says so.
            self.step_peer(index, fsm::Event::ManualStop(None));
            self.peers[index].resume_at = restart.map(|restart| now + restart);
        } else if let Some(family) = session.ask_again(&self.rib, now) {
            self.peers[index].ask_for(family, &mut self.outputs);
        }
    }

    fn changed(&mut self) {
        let journal = &mut self.journal;
        self.rib.tell(|prefix| journal.prefix(prefix));
        self.report_next_hops();
    }

    /// Makes UPDATEs for peers that have room.
    fn tell_peers(&mut self) {
        let mut made = Vec::new();
        let peers = &self.peers;
        self.rib
            .write(|peer| peers[peer.0 as usize].pressure(), &mut made);
        for Dispatch {
            peer,
            octets,
            messages,
        } in made
        {
            let peer = &mut self.peers[peer.0 as usize];
            if let Some(connection) = peer.hand_over_updates(messages, octets.len(), self.now) {
                self.outputs.push_back(Output::Send { connection, octets });
            }
        }
    }
}

#[cfg(test)]
mod tests;
