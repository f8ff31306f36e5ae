//! Reports for whoever watches closely ([`crate::tap`]): collected only then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;

use super::connection::{Connection, ConnectionId};
use super::peer::Peer;
use super::{Core, State};
use crate::tap::{Down, Ends, Taken, Tap, Up};
use crate::wire::message::kind;
use crate::wire::{Decoded, Verdict, WireError, WireOptions};

/// What was reported since the last [`Core::take_taps`].
#[derive(Debug, Default)]
pub(super) struct Taps {
    watched: bool,
    taps: Vec<Tap>,
}

impl Taps {
    pub(super) fn add(&mut self, tap: impl FnOnce() -> Tap) {
        if self.watched {
            self.taps.push(tap());
        }
    }
}

impl Core {
    /// Whether [`Core::take_taps`] will be called after each input; if not, nothing is kept for it.
    pub fn watch(&mut self, watched: bool) {
        self.taps.watched = watched;
        if !watched {
            self.taps.taps = Vec::new();
        }
    }

    /// What has happened since the last call, in order.
    pub fn take_taps(&mut self) -> Vec<Tap> {
        std::mem::take(&mut self.taps.taps)
    }

    /// Every session that is established now.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Up>> {
        self.peers.iter().filter_map(|peer| peer.up.as_ref())
    }

    /// A message has arrived; it is not yet acted upon.
    pub(super) fn tap_message(
        &mut self,
        index: usize,
        connection: ConnectionId,
        options: WireOptions,
        octets: Bytes,
        message: &Result<Decoded, WireError>,
    ) {
        let kind = octets.get(18).copied();
        if !self.taps.watched || matches!(kind, None | Some(kind::KEEPALIVE)) {
            return;
        }
        let peer = &mut self.peers[index];
        let session = kind == Some(kind::UPDATE) && peer.session_on(connection).is_some();
        let taken = match message {
            Err(_) => Taken::Refused,
            Ok(decoded) if decoded.verdict() == Some(Verdict::TreatAsWithdraw) => {
                Taken::AsWithdrawal
            }
            Ok(_) => Taken::AsIs,
        };
        let update = peer.up.clone().filter(|_| session).map(|up| (up, taken));
        let ends = peer.ends();
        self.taps.add(|| Tap::Received {
            ends,
            options,
            octets,
            update,
        });
    }

    /// The session of a peer is over; which one it was.
    pub(super) fn tap_down(&mut self, index: usize, why: Option<Down>) -> Option<Arc<Up>> {
        let up = self.peers[index].up.take()?;
        self.taps.add(|| Tap::Down {
            up: up.clone(),
            why: why.unwrap_or(Down::Silent),
        });
        Some(up)
    }

    /// A peer has a session.
    pub(super) fn tap_up(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        peer.up = peer.established().map(Arc::new);
        if let Some(up) = peer.up.clone() {
            self.taps.add(|| Tap::Up(up));
        }
    }

    /// The state of a peer may have changed from this one; `ended` is the session it had till now.
    pub(super) fn tap_state(&mut self, index: usize, old: State, ended: Option<Arc<Up>>) {
        let peer = &self.peers[index];
        let new = peer.state();
        if new != old {
            self.taps.add(|| Tap::State {
                ends: ended.map_or_else(|| peer.ends(), |up| up.ends.clone()),
                old,
                new,
            });
        }
    }
}

impl Peer {
    pub(super) fn ends(&self) -> Ends {
        let unknown = match self.config.address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let local = self.connection().and_then(|connection| connection.local);
        Ends {
            name: self.config.name.clone(),
            peer: self.config.address,
            peer_as: self.config.asn,
            local: local
                .filter(|local| local.is_ipv4() == self.config.address.is_ipv4())
                .unwrap_or(unknown),
            local_as: self.local_asn,
        }
    }

    fn established(&self) -> Option<Up> {
        let Connection {
            negotiated: Some(negotiated),
            ports: (local_port, remote_port),
            sent_open,
            received_open,
            ..
        } = self.connection()?
        else {
            return None;
        };
        let ends = Ends {
            peer_as: negotiated.asn,
            ..self.ends()
        };
        Some(Up {
            ends,
            router_id: negotiated.router_id,
            local_port: *local_port,
            remote_port: *remote_port,
            options: negotiated.options,
            sent_open: sent_open.clone(),
            received_open: received_open.clone(),
        })
    }
}
