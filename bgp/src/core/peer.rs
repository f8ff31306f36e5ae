//! One peer: its state machine, and a second one while two connections compete (RFC 4271
//! section 6.8). Knows which connection is which; routes are the session's part.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tracing::{debug, info, warn};

use super::connection::{Connection, ConnectionId};
use super::roster::Dynamic;
use super::session::Session;
use super::stale::{Loss, Stale};
use super::{Backlog, Context, Output, advice};
use crate::config::PeerConfig;
use crate::event::Event;
use crate::fsm::negotiate::{self, Local};
use crate::fsm::{self, Action, Cause, Fsm, Jitter, State, Terms, Timer};
use crate::rib::select::{PeerIndex, PeerRank};
use crate::tap::{Down, Up};
use crate::wire::{Decoded, Family, Message, Notification, Open, WireError, WireOptions};

mod collision;
mod sending;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) index: PeerIndex,
    pub(super) config: PeerConfig,
    pub(super) internal: bool,
    pub(super) admin_up: bool,
    /// It is no more; its place waits for another.
    pub(super) gone: bool,
    /// Came by itself, from where dynamic peers are welcome.
    pub(super) dynamic: Option<Dynamic>,
    pub(super) backlog: Backlog,
    /// The machine of the peer as such: it connects, waits and backs off.
    own: Link,
    /// The machine of a connection that the peer opened while ours is under way. It exists only
    /// while `own` has a connection, and never outlives the collision.
    rival: Option<Link>,
    pub(super) session: Option<Session>,
    /// Routes of a session that is gone.
    pub(super) stale: Stale,
    /// We have restarted, and until then or its first session it is told so.
    pub(super) restarting_until: Option<Instant>,
    /// When a session that was ended for too many routes is tried again.
    pub(super) resume_at: Option<Instant>,
    /// The established session as [`crate::tap`] tells of it.
    pub(super) up: Option<Arc<Up>>,
    jitter: Jitter,
    serial: u64,
    pub(super) local_asn: u32,
    /// BFD with it is up.
    path_up: bool,
    reported: State,
    pub(super) since: Instant,
    pub(super) sessions: u64,
    pub(super) failures: Failures,
    logged: Option<String>,
    actions: Vec<Action>,
}

/// How a message was read, its octets, and what came of it.
pub(super) type Incoming = (WireOptions, Bytes, Result<Decoded, WireError>);

#[derive(Debug)]
struct Link {
    fsm: Fsm,
    connection: Option<Connection>,
}

impl Link {
    /// Whether the peer may answer: it has our OPEN, or soon will have.
    fn is_offered(&self) -> bool {
        self.fsm.state() >= State::OpenSent
    }
}

/// Why sessions and attempts failed.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// The last session that was established.
    session: Option<String>,
    /// The last attempt since.
    attempt: Option<String>,
}

impl Failures {
    pub(super) fn note(&mut self, was_session: bool, text: String) {
        match was_session {
            true => {
                *self = Failures {
                    session: Some(text),
                    attempt: None,
                }
            }
            false => self.attempt = Some(text),
        }
    }

    /// An attempt that failed is no news once one succeeded; a session that was lost is.
    fn established(&mut self) {
        self.attempt = None;
    }

    pub(super) fn last(&self) -> Option<&String> {
        self.attempt.as_ref().or(self.session.as_ref())
    }
}

/// What a step did to the session.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The established session is over.
    pub(super) down: bool,
    /// A session is established.
    pub(super) up: bool,
    /// Why something failed.
    pub(super) failure: Option<String>,
    /// Why the established session is over.
    pub(super) why: Option<Down>,
    /// How it was lost.
    pub(super) loss: Option<Loss>,
    /// The NOTIFICATION we sent.
    sent: Option<Notification>,
}

impl Outcome {
    fn and(mut self, later: Outcome) -> Outcome {
        self.down |= later.down;
        self.up |= later.up;
        self.failure = later.failure.or(self.failure);
        self.why = later.why.or(self.why);
        self.loss = later.loss.or(self.loss);
        self.sent = later.sent.or(self.sent);
        self
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Own,
    Rival,
}

impl Which {
    fn other(self) -> Which {
        match self {
            Which::Own => Which::Rival,
            Which::Rival => Which::Own,
        }
    }
}

impl Peer {
    pub(super) fn new(
        index: PeerIndex,
        config: PeerConfig,
        local: &Local,
        mut jitter: Jitter,
        now: Instant,
    ) -> Peer {
        let fsm = Fsm::new(Terms::from(&config), jitter.fork());
        let local_asn = local.towards(&config).asn;
        Peer {
            index,
            internal: config.asn == local_asn,
            config,
            admin_up: true,
            gone: false,
            dynamic: None,
            backlog: Backlog::default(),
            own: Link {
                fsm,
                connection: None,
            },
            rival: None,
            session: None,
            stale: Stale::default(),
            restarting_until: None,
            resume_at: None,
            up: None,
            jitter,
            serial: 0,
            local_asn,
            path_up: false,
            reported: State::Idle,
            since: now,
            sessions: 0,
            failures: Failures::default(),
            logged: None,
            actions: Vec::new(),
        }
    }

    /// Other terms hold from now on; what of them a session cannot change is the caller's matter.
    pub(super) fn reconfigure(&mut self, config: PeerConfig, local: &Local) {
        self.local_asn = local.towards(&config).asn;
        self.internal = config.asn == self.local_asn;
        let terms = Terms::from(&config);
        if let Some(rival) = &mut self.rival {
            rival.fsm.set_terms(terms.clone());
        }
        self.own.fsm.set_terms(terms);
        self.config = config;
    }

    /// BFD with it came up, or is no more.
    pub(super) fn set_path_up(&mut self, up: bool) {
        self.path_up = up;
    }

    /// Whether the session waits for BFD and for nothing else.
    pub(super) fn waits_for_path(&self) -> bool {
        let rival = self.rival.iter();
        let mut links = rival.chain([&self.own]);
        links.any(|link| link.fsm.waits_for_path())
    }

    /// Takes the place of a peer that is gone: names of connections are not used again.
    pub(super) fn succeed(&mut self, gone: &Peer) {
        self.serial = gone.serial;
    }

    /// A dynamic peer without a connection is forgotten at this time.
    pub(super) fn remember(&mut self, until: Instant) {
        // Routes that are kept for its return are its business still.
        let kept = Family::ALL
            .into_iter()
            .any(|family| self.stale.keeps(family));
        let connected = self.own.connection.is_some() || self.rival.is_some() || kept;
        if let Some(dynamic) = &mut self.dynamic {
            dynamic.until = match connected {
                true => None,
                false => Some(dynamic.until.unwrap_or(until)),
            };
        }
    }

    /// Learns who a dynamic peer is from its OPEN.
    fn learn_asn(&mut self, open: &Open, context: &Context<'_>) {
        if let Some(dynamic) = &self.dynamic
            && dynamic.asn.permits(open.asn(), context.local.asn)
        {
            self.config.asn = open.asn();
            self.internal = self.config.asn == self.local_asn;
        }
    }

    pub(super) fn rank(&self, router_id: Ipv4Addr) -> PeerRank {
        PeerRank {
            internal: self.internal,
            router_id,
            address: self.config.address,
        }
    }

    /// The state to show: that of the connection which has come furthest.
    pub(super) fn state(&self) -> State {
        let rival = self.rival.as_ref().map(|rival| rival.fsm.state());
        rival.into_iter().fold(self.own.fsm.state(), State::max)
    }

    /// The state that was last told.
    pub(super) fn reported(&self) -> State {
        self.reported
    }

    /// The connection of the established session, or the one that has come furthest.
    pub(super) fn connection(&self) -> Option<&Connection> {
        let furthest = match &self.rival {
            Some(rival) if rival.fsm.state() > self.own.fsm.state() => rival,
            _ => &self.own,
        };
        furthest.connection.as_ref()
    }

    fn which(&self, connection: ConnectionId) -> Option<Which> {
        let on = |link: &Link| link.connection.as_ref().is_some_and(|c| c.id == connection);
        if on(&self.own) {
            Some(Which::Own)
        } else {
            self.rival.as_ref().is_some_and(on).then_some(Which::Rival)
        }
    }

    fn link(&mut self, which: Which) -> Option<&mut Link> {
        match which {
            Which::Own => Some(&mut self.own),
            Which::Rival => self.rival.as_mut(),
        }
    }

    fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let which = self.which(id)?;
        self.link(which)?.connection.as_mut()
    }

    pub(super) fn buffer(&mut self, id: ConnectionId, octets: &[u8]) {
        if let Some(connection) = self.connection_mut(id) {
            connection.buffer(octets);
        }
    }

    /// The next message with its octets, and how it was read.
    pub(super) fn next_message(&mut self, id: ConnectionId) -> Option<Incoming> {
        let connection = self.connection_mut(id)?;
        let options = connection.options();
        let (octets, message) = connection.next_message()?;
        Some((options, octets, message))
    }

    /// Notes our port and the peer's.
    pub(super) fn set_ports(&mut self, id: ConnectionId, local: u16, remote: u16) {
        if let Some(connection) = self.connection_mut(id) {
            connection.ports = (local, remote);
        }
    }

    pub(super) fn written(&mut self, id: ConnectionId, octets: usize, now: Instant) {
        let Some(which) = self.which(id) else {
            return;
        };
        if let Some(link) = self.link(which)
            && let Some(connection) = &mut link.connection
        {
            connection.written += octets as u64;
            let waiting = connection.in_flight() > 0;
            link.fsm.written(waiting, now);
        }
    }

    /// The session, if it is established on this connection.
    pub(super) fn session_on(&mut self, id: ConnectionId) -> Option<&mut Session> {
        let established = self.own.fsm.state() == State::Established;
        let here = self.which(id) == Some(Which::Own);
        self.session.as_mut().filter(|_| established && here)
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let rival = self
            .rival
            .as_ref()
            .and_then(|rival| rival.fsm.next_timeout());
        let others = [
            self.session.as_ref().and_then(Session::next_timeout),
            self.stale.next_timeout(),
            self.resume_at,
            self.dynamic.as_ref().and_then(|dynamic| dynamic.until),
        ];
        let timers = self.own.fsm.next_timeout().into_iter().chain(rival);
        timers.chain(others.into_iter().flatten()).min()
    }

    /// A timer that ran out, and the connection it is about if that is not the peer's own.
    pub(super) fn expired(&mut self, now: Instant) -> Option<(Option<ConnectionId>, Timer)> {
        if let Some(timer) = self.own.fsm.expired(now) {
            return Some((None, timer));
        }
        let rival = self.rival.as_mut()?;
        let timer = rival.fsm.expired(now)?;
        Some((
            rival.connection.as_ref().map(|connection| connection.id),
            timer,
        ))
    }

    /// Something happened to a connection; nothing, if it is already forgotten.
    pub(super) fn step(
        &mut self,
        id: ConnectionId,
        event: fsm::Event,
        context: &mut Context<'_>,
    ) -> Outcome {
        match self.which(id) {
            Some(which) => self.step_link(which, event, context),
            None => Outcome::default(),
        }
    }

    /// Something happened to the peer as such.
    pub(super) fn step_own(&mut self, event: fsm::Event, context: &mut Context<'_>) -> Outcome {
        self.step_link(Which::Own, event, context)
    }

    /// The operator wants something: it goes for all connections.
    pub(super) fn step_all(&mut self, event: fsm::Event, context: &mut Context<'_>) -> Outcome {
        let outcome = match self.rival.is_some() {
            true => self.step_link(Which::Rival, event.clone(), context),
            false => Outcome::default(),
        };
        outcome.and(self.step_link(Which::Own, event, context))
    }

    /// The connection we asked for is open.
    pub(super) fn connected(
        &mut self,
        id: ConnectionId,
        local: IpAddr,
        context: &mut Context<'_>,
    ) -> Outcome {
        if let Some(connection) = self.connection_mut(id) {
            connection.local = Some(local);
        }
        self.step(id, fsm::Event::TcpRequestAcked, context)
    }

    fn step_link(&mut self, which: Which, event: fsm::Event, context: &mut Context<'_>) -> Outcome {
        let mut actions = std::mem::take(&mut self.actions);
        let mut outcome = Outcome::default();
        let path_up = self.path_up;
        let Some(link) = self.link(which) else {
            return outcome;
        };
        link.fsm.set_path_up(path_up);
        let before = link.fsm.state();
        link.fsm.step(event, context.now, &mut actions);
        for action in actions.drain(..) {
            self.perform(which, action, before, &mut outcome, context);
        }
        self.actions = actions;
        if outcome.up {
            // Whatever else is under way has lost.
            let lost = self.dump(which.other(), context);
            outcome = outcome.and(lost);
        }
        self.promote();
        if self.rival.is_none() && self.own.fsm.is_contested() {
            let event = fsm::Event::Uncontested;
            outcome = outcome.and(self.step_link(Which::Own, event, context));
        }
        outcome
    }

    fn perform(
        &mut self,
        which: Which,
        action: Action,
        before: State,
        outcome: &mut Outcome,
        context: &mut Context<'_>,
    ) {
        match action {
            Action::Connect => {
                let id = self.next_id();
                self.own.connection = Some(Connection::new(id, false, None));
                context.outputs.push_back(Output::Connect {
                    connection: id,
                    from: self.config.local_address,
                    to: SocketAddr::new(self.config.address, self.config.port),
                });
            }
            Action::SendOpen => {
                let mut local = context.local.towards(&self.config);
                if let Some(restart) = &mut local.graceful_restart {
                    let until = self.restarting_until;
                    restart.restarting = until.is_some_and(|until| context.now < until);
                }
                let open = negotiate::open(&local, &self.config);
                self.send(which, &Message::Open(open), context);
            }
            Action::SendKeepalive => {
                // Octets that wait to be read say that we are alive; no need to pile up more. (The
                // one that answers an OPEN says more than that.)
                let most = self.backlog.high_water;
                let full = before == State::Established
                    && self
                        .link(which)
                        .and_then(|link| link.connection.as_ref())
                        .is_some_and(|connection| connection.in_flight() >= most);
                if !full {
                    self.send(which, &Message::Keepalive, context);
                }
            }
            Action::SendNotification(notification) => {
                let notification = self.hardened(which, notification);
                outcome.sent = Some(notification.clone());
                self.send(which, &Message::Notification(notification), context);
            }
            Action::Close => {
                if let Some(connection) = self.link(which).and_then(|link| link.connection.take()) {
                    context.outputs.push_back(Output::Close {
                        connection: connection.id,
                    });
                }
            }
            Action::Up => outcome.up = true,
            Action::Down(cause) => {
                if before == State::Established {
                    outcome.down = true;
                    outcome.loss = Some(Loss::of(&cause));
                    outcome.why = Some(match (&cause, outcome.sent.take()) {
                        (Cause::Notified(_, theirs), _) => Down::NotifiedByPeer(theirs.clone()),
                        (_, Some(ours)) => Down::Notified(ours),
                        (Cause::ConnectionLost(..), None) => Down::Lost,
                        (_, None) => Down::Silent,
                    });
                }
                // The session may come up on the other connection, which has been chosen then.
                let other = self.link(which.other());
                let chosen = other.is_some_and(|other| other.is_offered());
                let lost = before != State::Established && cause.is_loss_of_connection();
                if (chosen && lost) || matches!(cause, Cause::ManualStop | Cause::Collision) {
                    return;
                }
                let text = advice::explain(&cause, &self.config, self.local_asn);
                self.failures
                    .note(before == State::Established, text.clone());
                outcome.failure = Some(text);
            }
        }
    }

    fn next_id(&mut self) -> ConnectionId {
        self.serial += 1;
        ConnectionId::new(self.index, self.serial)
    }

    /// The event that tells of a new state, if it is one.
    pub(super) fn state_changed(&mut self, failure: Option<String>, now: Instant) -> Option<Event> {
        let state = self.state();
        if state == self.reported && failure.is_none() {
            return None;
        }
        if state != self.reported {
            self.since = now;
            if state == State::Established {
                self.sessions += 1;
                self.failures.established();
            }
            self.reported = state;
        }
        self.log(state, failure.as_deref());
        let mut event = self.state_event();
        if let Event::PeerState { error, .. } = &mut event {
            *error = failure;
        }
        Some(event)
    }

    /// A peer that stays away fails every few seconds in the same way: that is said once.
    fn log(&mut self, state: State, failure: Option<&str>) {
        let peer = &self.config.name;
        match failure {
            Some(error) if self.logged.as_deref() == Some(error) => {
                debug!(%peer, %state, error, "still no session");
            }
            Some(error) => {
                warn!(%peer, %state, error, "no session");
                self.logged = Some(error.to_owned());
            }
            None if state == State::Established => {
                info!(%peer, "session established");
                self.logged = None;
            }
            None => debug!(%peer, %state, "session"),
        }
    }

    /// The state as an event.
    pub(super) fn state_event(&self) -> Event {
        Event::PeerState {
            peer: self.config.name.clone(),
            state: self.state(),
            families: self.families(),
            error: self.failures.last().cloned(),
        }
    }
}
