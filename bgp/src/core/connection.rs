//! One TCP connection as the core sees it: octets in, messages out, and an account of what is on
//! its way.

use std::net::IpAddr;

use bytes::{Bytes, BytesMut};

use crate::fsm::negotiate::Negotiated;
use crate::rib::select::PeerIndex;
use crate::wire::message::kind;
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

/// How many octets may be on their way to one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Beyond this nothing more is made for it,
    pub high_water: u64,
    /// and beyond this it does not go along any more with others that are told the same. What is
    /// on its way to all of them exists once.
    pub far_behind: u64,
}

impl Default for Backlog {
    fn default() -> Self {
        Backlog {
            high_water: 256 * 1024,
            far_behind: 4 * 1024 * 1024,
        }
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    /// The peer has opened it.
    pub(super) incoming: bool,
    /// Our address, once it is open.
    pub(super) local: Option<IpAddr>,
    /// Our port and the peer's; 0 while it is not open.
    pub(super) ports: (u16, u16),
    /// The OPENs as they were on the wire; empty before.
    pub(super) sent_open: Bytes,
    pub(super) received_open: Bytes,
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
            ports: (0, 0),
            sent_open: Bytes::new(),
            received_open: Bytes::new(),
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

    /// The next whole message and its octets, which are empty when not even they can be told;
    /// `None` until more octets arrive.
    pub(super) fn next_message(&mut self) -> Option<(Bytes, Result<Decoded, WireError>)> {
        let options = self.options();
        let (octets, decoded) = match frame::split(&mut self.buffer, &options) {
            Ok(octets) => {
                let octets = octets?;
                let decoded = Message::decode(&octets, &options);
                (octets, decoded)
            }
            Err(error) => (Bytes::new(), Err(error.into())),
        };
        self.messages_in += 1;
        if octets.get(frame::HEADER_LEN - 1) == Some(&kind::OPEN) {
            // A copy: the buffer is to live no longer than it must.
            self.received_open = Bytes::copy_from_slice(&octets);
        }
        Some((octets, decoded))
    }
}
