//! What leaves for a peer: messages of its machines, UPDATEs of the table, questions of ours; and how
//! much of it is on its way.
//!
//! Decides neither what is said nor when; it only keeps count.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::{Peer, Which};
use crate::core::connection::{Connection, ConnectionId};
use crate::core::{Context, Output, RefreshError};
use crate::fsm::negotiate::Negotiated;
use crate::rib::group::Pressure;
use crate::wire::{Cease, Family, Message, Notification, RouteRefresh};

impl Peer {
    /// Whoever agreed to RFC 8538 takes a NOTIFICATION for no reason to drop routes. An operator's
    /// word is meant to be one, so it goes inside a hard reset (section 3.1).
    pub(super) fn hardened(&mut self, which: Which, notification: Notification) -> Notification {
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
        let is_for_good = for_good.into_iter().any(|why| notification.is_cease(why));
        match survives && is_for_good {
            true => notification.inside_hard_reset(),
            false => notification,
        }
    }

    pub(super) fn send(&mut self, which: Which, message: &Message, context: &mut Context<'_>) {
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
    pub(in crate::core) fn hand_over_updates(
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
    pub(in crate::core) fn pressure(&self) -> Pressure {
        match self.connection().map(Connection::in_flight) {
            Some(octets) if octets < self.backlog.high_water => Pressure::Room,
            Some(octets) if octets < self.backlog.far_behind => Pressure::Busy,
            // Without a connection the session is about to end.
            _ => Pressure::Behind,
        }
    }

    /// Asks for all routes of a family again (RFC 2918). False: there is nobody to ask, or the peer
    /// does not know how to answer.
    pub(in crate::core) fn ask_for(
        &mut self,
        family: Family,
        outputs: &mut VecDeque<Output>,
    ) -> bool {
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

    /// Asks for all routes again.
    pub(in crate::core) fn ask_routes(
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
}

fn hand_over(connection: &mut Connection, octets: Bytes) -> Output {
    connection.handed += octets.len() as u64;
    Output::Send {
        connection: connection.id,
        octets,
    }
}
