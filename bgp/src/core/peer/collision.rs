//! Two connections with one peer (RFC 4271 section 6.8): which of them lives.
//!
//! Knows how a connection comes in and which one loses; what a machine does then is its own matter.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Link, Outcome, Peer, Which};
use crate::core::connection::{Connection, ConnectionId};
use crate::core::{Context, Output};
use crate::fsm::negotiate::{self, Negotiated};
use crate::fsm::{self, Fsm, State, Terms};
use crate::wire::{Cease, Family, Message, Notification, Open};

/// How long after a session came up another connection may be from before.
const COLLISION_TIME: Duration = Duration::from_secs(5);

impl Peer {
    /// The peer has connected. `None`: not now (RFC 4271 section 8.2.2, Idle).
    pub(in crate::core) fn accepted(
        &mut self,
        local: IpAddr,
        context: &mut Context<'_>,
    ) -> Option<(ConnectionId, Outcome)> {
        let id = self.next_id();
        let connection = Connection::new(id, true, Some(local));
        // The peer has given up on an earlier one if it opens another.
        let outcome = self.dump(Which::Rival, context);
        debug_assert!(!outcome.down && self.rival.is_none());
        let which = match self.own.fsm.state() {
            State::Idle => return None,
            // A peer that restarts opens a new connection while we still take the old one for
            // alive (RFC 4724 section 5).
            State::Established if self.may_restart(context.now) => {
                let lost = fsm::Event::TcpConnectionFails(
                    "the peer opened another one, so it has restarted".to_owned(),
                );
                let outcome = outcome.and(self.step_link(Which::Own, lost, context));
                self.rival = Some(self.incoming(connection));
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
                return Some((id, outcome));
            }
            _ if self.own.connection.is_none() => {
                self.own.connection = Some(connection);
                Which::Own
            }
            _ => {
                self.rival = Some(self.incoming(connection));
                Which::Rival
            }
        };
        let event = fsm::Event::TcpConnectionConfirmed;
        let outcome = outcome.and(self.step_link(which, event, context));
        self.contest_confirmed(context);
        Some((id, outcome))
    }

    /// We have confirmed our own connection, and the peer has opened one that would win: which of them it takes depends
    /// on what it hears first. We take neither before it has.
    fn contest_confirmed(&mut self, context: &Context<'_>) {
        let own = self.own.connection.as_ref();
        let Some(negotiated) = own.and_then(|connection| connection.negotiated.as_ref()) else {
            return;
        };
        let is_rivalled = self.rival.as_ref().is_some_and(Link::is_offered);
        if is_rivalled && !self.is_kept(Which::Own, negotiated, context) {
            self.own.fsm.contest(context.now);
        }
    }

    /// A machine for a connection that the peer opened.
    fn incoming(&mut self, connection: Connection) -> Link {
        Link {
            fsm: Fsm::for_incoming(Terms::from(&self.config), self.jitter.fork()),
            connection: Some(connection),
        }
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
    pub(in crate::core) fn opened(
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
    /// follows from identifiers and from who opened it, so both sides come to the same result.
    ///
    /// Only not when a side has heard an OPEN and a KEEPALIVE on the loser before the OPEN of the winner: then it is
    /// established, which wins against everything. So the loser is not confirmed while the winner may still be heard,
    /// and if it was before the winner came, then it is for the peer to close one of them.
    fn resolve_collision(
        &mut self,
        which: Which,
        negotiated: &Negotiated,
        context: &mut Context<'_>,
    ) -> Outcome {
        let other = self.link(which.other());
        let Some(other) = other.filter(|other| other.connection.is_some()) else {
            return Outcome::default();
        };
        let (state, confirmed) = (other.fsm.state(), other.fsm.is_confirmed());
        let is_kept = self.is_kept(which, negotiated, context);
        match state {
            State::Established => self.dump(which, context),
            State::OpenConfirm if is_kept && confirmed && self.are_opposed() => {
                self.contest(which, context.now);
                self.contest(which.other(), context.now);
                Outcome::default()
            }
            _ if is_kept => self.dump(which.other(), context),
            State::OpenConfirm => self.dump(which, context),
            State::OpenSent => {
                self.contest(which, context.now);
                Outcome::default()
            }
            _ => Outcome::default(),
        }
    }

    fn contest(&mut self, which: Which, now: Instant) {
        if let Some(link) = self.link(which) {
            link.fsm.contest(now);
        }
    }

    /// Whether one connection was opened by us and one by the peer.
    fn are_opposed(&self) -> bool {
        let incoming = [Which::Own, Which::Rival].map(|which| {
            let connection = self.connection_of(which);
            connection.map(|connection| connection.incoming)
        });
        matches!(incoming, [Some(own), Some(rival)] if own != rival)
    }

    /// Whether the first of two connections wins over the second, neither of which is established.
    fn is_kept(&self, which: Which, negotiated: &Negotiated, context: &Context<'_>) -> bool {
        let (this, other) = (self.connection_of(which), self.connection_of(which.other()));
        let (Some(this), Some(other)) = (this, other) else {
            return other.is_none();
        };
        let ours_survives = negotiate::ours_survives(
            &context.local.towards(&self.config),
            negotiated.router_id,
            negotiated.asn,
        );
        match other.local {
            // It is not open yet.
            None => true,
            Some(_) if self.are_opposed() => this.incoming != ours_survives,
            // The peer opened both: the later one is the one it means.
            Some(_) => true,
        }
    }

    fn connection_of(&self, which: Which) -> Option<&Connection> {
        match which {
            Which::Own => self.own.connection.as_ref(),
            Which::Rival => self.rival.as_ref()?.connection.as_ref(),
        }
    }

    /// The connection has lost a collision, or is not wanted any more.
    pub(super) fn dump(&mut self, which: Which, context: &mut Context<'_>) -> Outcome {
        match self.connection_of(which).is_some() {
            true => self.step_link(which, fsm::Event::OpenCollisionDump, context),
            false => Outcome::default(),
        }
    }

    /// The rival takes the place of a machine that has no connection left; without one itself, it
    /// is forgotten.
    pub(super) fn promote(&mut self) {
        self.rival.take_if(|rival| rival.connection.is_none());
        if self.own.connection.is_none()
            && let Some(mut rival) = self.rival.take()
        {
            rival.fsm.succeed(&self.own.fsm);
            self.own = rival;
        }
    }
}
