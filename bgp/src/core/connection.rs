//! One TCP connection as the core sees it: octets in, messages out, and an account of what is on
//! its way.

use std::net::IpAddr;

use bytes::BytesMut;

use crate::fsm::negotiate::Negotiated;
use crate::rib::select::PeerIndex;
use crate::wire::{Decoded, Message, WireError, WireOptions, frame};

/// The name of a connection, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    peer: PeerIndex,
    serial: u64,
}

impl ConnectionId {
    pub(super) fn new(peer: PeerIndex, serial: u64) -> ConnectionId {
        ConnectionId { peer, serial }
    }

    pub(super) fn peer_index(self) -> usize {
        self.peer.0 as usize
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    /// The peer has opened it.
    pub(super) incoming: bool,
    /// Our address, once it is open.
    pub(super) local: Option<IpAddr>,
    /// What the OPENs agreed on.
    pub(super) negotiated: Option<Negotiated>,
    pub(super) messages_in: u64,
    pub(super) messages_out: u64,
    /// Octets handed to the transport, and those of them that it has written.
    pub(super) handed: u64,
    pub(super) written: u64,
    buffer: BytesMut,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, incoming: bool, local: Option<IpAddr>) -> Connection {
        Connection {
            id,
            incoming,
            local,
            negotiated: None,
            messages_in: 0,
            messages_out: 0,
            handed: 0,
            written: 0,
            buffer: BytesMut::new(),
        }
    }

    pub(super) fn options(&self) -> WireOptions {
        self.negotiated
            .as_ref()
            .map(|negotiated| negotiated.options)
            .unwrap_or_default()
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.handed.saturating_sub(self.written)
    }

    pub(super) fn buffer(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// The next whole message; `None` until more octets arrive.
    pub(super) fn next_message(&mut self) -> Option<Result<Decoded, WireError>> {
        let options = self.options();
        let decoded = match frame::split(&mut self.buffer, &options) {
            Ok(octets) => Message::decode(&octets?, &options),
            Err(error) => Err(error.into()),
        };
        self.messages_in += 1;
        Some(decoded)
    }
}
