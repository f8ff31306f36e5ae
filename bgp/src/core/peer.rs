//! One peer: its state machine, and a second one while two connections compete (RFC 4271
//! section 6.8). Knows which connection is which; routes are the session's part.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{debug, info, warn};

use super::connection::{Connection, ConnectionId};
use super::roster::Dynamic;
use super::session::Session;
use super::stale::{Loss, Stale};
use super::{Backlog, Context, Output, RefreshError, advice};
use crate::config::PeerConfig;
use crate::event::Event;
use crate::fsm::negotiate::{self, Local, Negotiated};
use crate::fsm::{self, Action, Cause, Fsm, Jitter, State, Terms, Timer};
use crate::rib::group::Pressure;
use crate::rib::select::{PeerIndex, PeerRank};
use crate::tap::{Down, Up};
use crate::wire::notification::code;
use crate::wire::{
    Cease, Decoded, Family, Message, Notification, Open, RouteRefresh, WireError, WireOptions,
};

/// How long after a session came up another connection may be from before.
const COLLISION_TIME: Duration = Duration::from_secs(5);

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
    /// When a session that was ended for too many routes is tried again.
    pub(super) resume_at: Option<Instant>,
    /// The established session as [`crate::tap`] tells of it.
    pub(super) up: Option<Arc<Up>>,
    jitter: Jitter,
    serial: u64,
    pub(super) local_asn: u32,
    reported: State,
    pub(super) since: Instant,
    pub(super) sessions: u64,
    pub(super) last_error: Option<Failure>,
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

/// Why a session or an attempt failed.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) text: String,
    /// An established session was lost, rather than an attempt.
    pub(super) session: bool,
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
            resume_at: None,
            up: None,
            jitter,
            serial: 0,
            local_asn,
            reported: State::Idle,
            since: now,
            sessions: 0,
            last_error: None,
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

    /// Asks for all routes again.
    pub(super) fn ask_routes(
        &mut self,
        outputs: &mut VecDeque<Output>,
    ) -> Result<(), RefreshError> {
        let name = &self.config.name;
        let Some(session) = &self.session else {
            return Err(RefreshError::NoSession(name.clone()));
        };
        for family in session.negotiated.families.clone() {
            if !self.ask_for(family, outputs) {
                return Err(RefreshError::Unsupported(self.config.name.clone()));
            }
        }
        Ok(())
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

    /// The peer has connected. `None`: not now (RFC 4271 section 8.2.2, Idle).
    pub(super) fn accepted(
        &mut self,
        local: IpAddr,
        context: &mut Context<'_>,
    ) -> Option<(ConnectionId, Outcome)> {
        let id = self.next_id();
        let connection = Connection::new(id, true, Some(local));
        let which = match self.own.fsm.state() {
            State::Idle => return None,
            // A peer that restarts opens a new connection while we still take the old one for
            // alive (RFC 4724 section 5).
            State::Established if self.may_restart(context.now) => {
                let lost = fsm::Event::TcpConnectionFails(
                    "the peer opened another one, so it has restarted".to_owned(),
                );
                let outcome = self.step_link(Which::Own, lost, context);
                let fsm = Fsm::for_incoming(Terms::from(&self.config), self.jitter.fork());
                self.rival = Some(Link {
                    fsm,
                    connection: Some(connection),
                });
                self.promote();
                let event = fsm::Event::TcpConnectionConfirmed;
                let outcome = outcome.and(self.step_link(Which::Own, event, context));
                return Some((id, outcome));
            }
            // Section 6.8: against an established session, the new connection loses.
            State::Established => {
                let refusal = Notification::cease(Cease::ConnectionCollisionResolution);
                let message = Message::Notification(refusal);
                if let Ok(octets) = message.to_bytes(&connection.options()) {
                    context.outputs.push_back(Output::Send {
                        connection: id,
                        octets,
                    });
                }
                context.outputs.push_back(Output::Close { connection: id });
                return Some((id, Outcome::default()));
            }
            _ if self.own.connection.is_none() => {
                self.own.connection = Some(connection);
                Which::Own
            }
            _ => {
                // The peer has given up on an earlier one if it opens another.
                let outcome = self.dump(Which::Rival, context);
                debug_assert!(!outcome.down && self.rival.is_none());
                let fsm = Fsm::for_incoming(Terms::from(&self.config), self.jitter.fork());
                self.rival = Some(Link {
                    fsm,
                    connection: Some(connection),
                });
                Which::Rival
            }
        };
        Some((
            id,
            self.step_link(which, fsm::Event::TcpConnectionConfirmed, context),
        ))
    }

    /// Whether the peer said that it may restart and come back. A connection that comes right after
    /// the session is up has merely lost a collision.
    fn may_restart(&self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) < COLLISION_TIME {
            return false;
        }
        let session = self.session.as_ref();
        session.is_some_and(|session| {
            Family::ALL
                .into_iter()
                .any(|family| session.negotiated.survives_restart(family))
        })
    }

    /// An OPEN has arrived: judge it, and settle a collision.
    pub(super) fn opened(
        &mut self,
        id: ConnectionId,
        open: &Open,
        context: &mut Context<'_>,
    ) -> Outcome {
        let Some(which) = self.which(id) else {
            return Outcome::default();
        };
        let state = self
            .link(which)
            .map_or(State::Idle, |link| link.fsm.state());
        if matches!(state, State::OpenConfirm | State::Established) {
            // A second one; the machine knows what to think of it.
            return self.step(id, fsm::Event::Open { hold_time: 0 }, context);
        }
        self.learn_asn(open, context);
        let local = context.local.towards(&self.config);
        let negotiated = match negotiate::judge(&local, &self.config, open) {
            Ok(negotiated) => negotiated,
            Err(error) => return self.step(id, fsm::Event::OpenError(error), context),
        };
        let outcome = self.resolve_collision(which, &negotiated, context);
        let hold_time = negotiated.hold_time;
        // It may have lost; the winner may have changed places.
        if let Some(connection) = self.connection_mut(id) {
            connection.negotiated = Some(negotiated);
        }
        outcome.and(self.step(id, fsm::Event::Open { hold_time }, context))
    }

    /// RFC 4271 section 6.8, for the connection on which an OPEN has just arrived. The winner
    /// follows from identifiers and from who opened it, so both sides come to the same result. As
    /// long as the winner has not been heard, a loser that was may live: the winner may be dead.
    /// (If the loser gets established on one side just before the winner is heard on the other,
    /// both are lost. The RFC accepts that, and so do we: the next attempt is a second away.)
    fn resolve_collision(
        &mut self,
        which: Which,
        negotiated: &Negotiated,
        context: &mut Context<'_>,
    ) -> Outcome {
        let other = which.other();
        let Some((other_state, other_incoming, other_open)) = self.link(other).and_then(|link| {
            let connection = link.connection.as_ref()?;
            Some((
                link.fsm.state(),
                connection.incoming,
                connection.local.is_some(),
            ))
        }) else {
            return Outcome::default();
        };
        let incoming = self
            .link(which)
            .and_then(|link| link.connection.as_ref())
            .is_some_and(|connection| connection.incoming);
        let ours_survives = negotiate::ours_survives(
            &context.local.towards(&self.config),
            negotiated.router_id,
            negotiated.asn,
        );
        let this_wins = match other_state {
            State::Established => false,
            _ if !other_open => true,
            // The peer opened both: the later one is the one it means.
            _ if incoming == other_incoming => true,
            _ => incoming != ours_survives,
        };
        match other_state {
            _ if this_wins => self.dump(other, context),
            State::Established | State::OpenConfirm => self.dump(which, context),
            _ => Outcome::default(),
        }
    }

    /// The connection has lost a collision, or is not wanted any more.
    fn dump(&mut self, which: Which, context: &mut Context<'_>) -> Outcome {
        match self
            .link(which)
            .is_some_and(|link| link.connection.is_some())
        {
            true => self.step_link(which, fsm::Event::OpenCollisionDump, context),
            false => Outcome::default(),
        }
    }

    fn step_link(&mut self, which: Which, event: fsm::Event, context: &mut Context<'_>) -> Outcome {
        let mut actions = std::mem::take(&mut self.actions);
        let mut outcome = Outcome::default();
        let Some(link) = self.link(which) else {
            return outcome;
        };
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
                let open = negotiate::open(&context.local.towards(&self.config), &self.config);
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
                if matches!(cause, Cause::ManualStop | Cause::Collision) {
                    return;
                }
                let text = advice::explain(&cause, &self.config, self.local_asn);
                self.last_error = Some(Failure {
                    text: text.clone(),
                    session: before == State::Established,
                });
                outcome.failure = Some(text);
            }
        }
    }

    /// Whoever agreed to RFC 8538 takes a NOTIFICATION for no reason to drop routes. An operator's
    /// word is meant to be one, so it goes inside a hard reset (section 3.1).
    fn hardened(&mut self, which: Which, notification: Notification) -> Notification {
        let survives = self
            .link(which)
            .and_then(|link| link.connection.as_ref()?.negotiated.as_ref())
            .is_some_and(Negotiated::survives_notification);
        let for_good = [
            Cease::MaximumPrefixes,
            Cease::AdministrativeShutdown,
            Cease::PeerDeconfigured,
            Cease::AdministrativeReset,
            Cease::OtherConfigurationChange,
            Cease::BfdDown,
        ];
        let for_good = notification.code == code::CEASE
            && for_good
                .iter()
                .any(|why| *why as u8 == notification.subcode);
        match survives && for_good {
            true => notification.inside_hard_reset(),
            false => notification,
        }
    }

    fn send(&mut self, which: Which, message: &Message, context: &mut Context<'_>) {
        let Some(connection) = self.link(which).and_then(|link| link.connection.as_mut()) else {
            return;
        };
        // What we send of these is far below any limit.
        if let Ok(octets) = message.to_bytes(&connection.options()) {
            if let Message::Open(_) = message {
                connection.sent_open = octets.clone();
            }
            connection.messages_out += 1;
            let output = hand_over(connection, octets);
            context.outputs.push_back(output);
        }
    }

    /// Accounts for UPDATEs about to be sent on the session's connection.
    pub(super) fn hand_over_updates(
        &mut self,
        messages: usize,
        octets: usize,
        now: Instant,
    ) -> Option<ConnectionId> {
        let connection = self.own.connection.as_mut()?;
        connection.messages_out += messages as u64;
        connection.handed += octets as u64;
        self.own.fsm.update_sent(now);
        self.own.fsm.handed_over(now);
        Some(connection.id)
    }

    /// How much is on its way to the peer.
    pub(super) fn pressure(&self) -> Pressure {
        match self.connection().map(Connection::in_flight) {
            Some(octets) if octets < self.backlog.high_water => Pressure::Room,
            Some(octets) if octets < self.backlog.far_behind => Pressure::Busy,
            // Without a connection the session is about to end.
            _ => Pressure::Behind,
        }
    }

    /// Asks for all routes of a family again (RFC 2918). False: there is nobody to ask, or the peer
    /// does not know how to answer.
    pub(super) fn ask_for(&mut self, family: Family, outputs: &mut VecDeque<Output>) -> bool {
        let knows = self
            .session
            .as_ref()
            .is_some_and(|session| session.negotiated.route_refresh);
        let Some(connection) = self.own.connection.as_mut().filter(|_| knows) else {
            return false;
        };
        let message = Message::RouteRefresh(RouteRefresh::new(family, RouteRefresh::REQUEST));
        let Ok(octets) = message.to_bytes(&connection.options()) else {
            return false;
        };
        connection.messages_out += 1;
        outputs.push_back(hand_over(connection, octets));
        true
    }

    /// The rival takes the place of a machine that has no connection left; without one itself, it
    /// is forgotten.
    fn promote(&mut self) {
        self.rival.take_if(|rival| rival.connection.is_none());
        if self.own.connection.is_none()
            && let Some(mut rival) = self.rival.take()
        {
            rival.fsm.succeed(&self.own.fsm);
            self.own = rival;
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
                // An attempt that failed is no news once one succeeded.
                self.last_error.take_if(|failure| !failure.session);
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
            error: self.last_error.as_ref().map(|failure| failure.text.clone()),
        }
    }
}

fn hand_over(connection: &mut Connection, octets: Bytes) -> Output {
    connection.handed += octets.len() as u64;
    Output::Send {
        connection: connection.id,
        octets,
    }
}
