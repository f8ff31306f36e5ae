//! One TCP connection: two ends, and between them two directions in which nothing overtakes.

use std::time::Duration;

use bgp::core::ConnectionId;

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) node: usize,
    /// The name its core gave it, as long as it is open there.
    pub(crate) connection: Option<ConnectionId>,
    /// Since when the core has had it.
    pub(crate) since: Duration,
    /// When the last message that is a sign of life arrived.
    pub(crate) heard: Option<Duration>,
    /// Octets its core wants written and that the other end has not read.
    pub(crate) in_flight: usize,
    /// When what was sent last arrives at the other end.
    pub(crate) last_arrival: Duration,
    /// Nothing more gets through from here.
    pub(crate) cut: bool,
    incoming: Framer,
}

impl End {
    pub(crate) fn new(node: usize, connection: Option<ConnectionId>, now: Duration) -> End {
        End {
            node,
            connection,
            since: now,
            heard: None,
            in_flight: 0,
            last_arrival: Duration::ZERO,
            cut: false,
            incoming: Framer::default(),
        }
    }

    /// Octets arrive here.
    pub(crate) fn hears(&mut self, octets: &[u8], now: Duration) {
        if self.incoming.feed(octets) {
            self.heard = Some(now);
        }
    }
}

/// A connection, the end that opened it first.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) ends: [End; 2],
    /// Octets vanish and nobody is told.
    pub(crate) silent: bool,
    /// What an octet takes on top of the delay: a slow reader.
    pub(crate) octet_time: Duration,
}

impl Wire {
    pub(crate) fn is_open(&self) -> bool {
        self.ends.iter().any(|end| end.connection.is_some())
    }
}

/// Finds the ends of messages in a stream.
#[derive(Debug, Default)]
struct Framer {
    header: [u8; 19],
    have: usize,
    missing: usize,
}

impl Framer {
    /// Whether a message ends here that keeps a session alive: OPEN, UPDATE or KEEPALIVE.
    fn feed(&mut self, mut octets: &[u8]) -> bool {
        let mut alive = false;
        while !octets.is_empty() {
            if self.have < self.header.len() {
                let count = octets.len().min(self.header.len() - self.have);
                let (header, rest) = octets.split_at(count);
                self.header[self.have..self.have + count].copy_from_slice(header);
                self.have += count;
                octets = rest;
                if self.have < self.header.len() {
                    return alive;
                }
                let length = u16::from_be_bytes([self.header[16], self.header[17]]);
                self.missing = usize::from(length) - self.header.len();
            }
            let count = octets.len().min(self.missing);
            octets = &octets[count..];
            self.missing -= count;
            if self.missing == 0 {
                alive |= matches!(self.header[18], 1 | 2 | 4);
                self.have = 0;
            }
        }
        alive
    }
}
