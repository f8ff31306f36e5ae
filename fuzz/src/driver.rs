//! Drives a core as the tokio shell does, and holds it to its contract: what it asks for concerns
//! connections that are there, every timer that is due is dealt with, and nothing piles up.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bgp::core::{ConnectionId, Core, Output, Stop};
use bgp::wire::{WireOptions, frame};
use bgp::{SessionState, SpeakerConfig};
use bytes::Bytes;

/// Octets on their way on one connection that no core may exceed: its high-water mark and one
/// round of UPDATEs.
const MOST_IN_FLIGHT: u64 = 16 << 20;
/// Names of forgotten connections that are still tried.
const REMEMBERED: usize = 4;
/// As long as the core waits for anything before a session is up (the OPEN), and more.
const LONGEST_WAIT: Duration = Duration::from_secs(241);

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Asked for.
    Opening,
    /// There.
    Open,
    /// Broken, and the core has been told.
    Gone,
}

/// A connection that the core has not closed.
#[derive(Debug)]
pub struct Line {
    /// How far it is.
    pub phase: Phase,
    /// Octets that the core wants written and that are not.
    pub in_flight: u64,
    /// What the peer has sent and has not arrived.
    pub under_way: Vec<u8>,
}

/// A core and what it has asked for so far.
pub struct Driver {
    /// The core.
    pub core: Core,
    /// The time.
    pub now: Instant,
    /// What is connected.
    pub lines: BTreeMap<ConnectionId, Line>,
    /// Connections that the core has closed.
    pub closed: Vec<ConnectionId>,
    addresses: Vec<IpAddr>,
    names: Vec<String>,
}

impl Driver {
    /// A core that was just started.
    pub fn start(config: SpeakerConfig) -> Driver {
        let addresses = config.peers.iter().map(|peer| peer.address).collect();
        let names = config.peers.iter().map(|peer| peer.name.to_string());
        let (names, now) = (names.collect(), Instant::now());
        let mut core = Core::new(config, 1, now).expect("a valid configuration");
        core.observe(true);
        core.start(now);
        let mut driver = Driver {
            core,
            now,
            lines: BTreeMap::new(),
            closed: Vec::new(),
            addresses,
            names,
        };
        driver.drain();
        driver
    }

    /// Does what the core asks for, until it asks for nothing more.
    pub fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Connect { connection, to, .. } => {
                    assert!(self.addresses.contains(&to.ip()), "connects to {to}");
                    assert!(!self.closed.contains(&connection));
                    self.insert(connection, Phase::Opening);
                }
                Output::Send { connection, octets } => {
                    let line = self.lines.get_mut(&connection).expect("no such connection");
                    assert_eq!(line.phase, Phase::Open, "sends on it");
                    line.in_flight += octets.len() as u64;
                    assert!(line.in_flight <= MOST_IN_FLIGHT);
                    whole_messages(octets);
                }
                Output::Close { connection } => {
                    self.lines.remove(&connection).expect("no such connection");
                    if self.closed.len() == REMEMBERED {
                        self.closed.remove(0);
                    }
                    self.closed.push(connection);
                }
            }
        }
        self.check();
    }

    fn insert(&mut self, connection: ConnectionId, phase: Phase) {
        let line = Line {
            phase,
            in_flight: 0,
            under_way: Vec::new(),
        };
        let before = self.lines.insert(connection, line);
        assert!(before.is_none(), "a name is used twice");
    }

    fn check(&mut self) {
        for (index, name) in self.names.iter().enumerate() {
            let state = self.core.state(name).expect("a configured peer");
            let lines = self.lines.iter().filter(|(connection, _)| {
                self.core
                    .peer_name(**connection)
                    .is_some_and(|peer| *peer == **name)
            });
            let phases: Vec<Phase> = lines.map(|(_, line)| line.phase).collect();
            assert!(
                !phases.contains(&Phase::Gone),
                "it holds on to what is gone"
            );
            match state {
                SessionState::Idle => assert!(phases.is_empty(), "peer {index} idle: {phases:?}"),
                SessionState::Established => assert_eq!(phases, [Phase::Open], "peer {index}"),
                SessionState::OpenSent | SessionState::OpenConfirm => {
                    assert!(phases.contains(&Phase::Open) && phases.len() <= 2);
                }
                SessionState::Connect | SessionState::Active => assert!(phases.len() <= 2),
            }
            if matches!(state, SessionState::Connect | SessionState::OpenSent) {
                let timer = self.core.next_timeout().expect("a timer runs");
                assert!(timer <= self.now + LONGEST_WAIT);
            }
        }
        self.core.take_events();
    }

    /// Lets time pass; a shell that is late deals with all timers at the end.
    pub fn wait(&mut self, time: Duration, late: bool) {
        let until = self.now + time;
        while let Some(timer) = self.core.next_timeout().filter(|timer| *timer <= until) {
            self.now = match late {
                true => until,
                false => timer.max(self.now),
            };
            self.core.timeout(self.now);
            let next = self.core.next_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a timer is missed");
            self.drain();
        }
        self.now = until;
    }

    /// Somebody connects from there.
    pub fn accept(&mut self, remote: SocketAddr, local: SocketAddr) {
        if let Some(connection) = self.core.accepted(remote, local, self.now) {
            assert!(
                self.addresses.contains(&remote.ip()),
                "a stranger is let in"
            );
            self.insert(connection, Phase::Open);
        }
        self.drain();
    }

    /// The connection asked for is there, or cannot be had.
    pub fn answer(&mut self, connection: ConnectionId, local: SocketAddr, there: bool) {
        let line = self.lines.get_mut(&connection);
        if let Some(line) = line.filter(|line| line.phase == Phase::Opening) {
            line.phase = match there {
                true => Phase::Open,
                false => Phase::Gone,
            };
        } else if self.lines.contains_key(&connection) {
            return;
        }
        match there {
            true => self.core.connected(connection, local, self.now),
            false => self
                .core
                .connect_failed(connection, "refused".into(), self.now),
        }
        self.drain();
    }

    /// So many of the octets that the peer has sent arrive.
    pub fn arrive(&mut self, connection: ConnectionId, count: usize) {
        let octets = match self.lines.get_mut(&connection) {
            Some(line) if line.phase != Phase::Open => return,
            Some(line) => line
                .under_way
                .drain(..count.min(line.under_way.len()))
                .collect(),
            None => vec![0xff; 19],
        };
        self.core.received(connection, &octets, self.now);
        self.drain();
    }

    /// The peer takes octets.
    pub fn write(&mut self, connection: ConnectionId, most: u64) {
        let count = match self.lines.get_mut(&connection) {
            Some(line) => {
                let count = line.in_flight.min(most);
                line.in_flight -= count;
                count
            }
            None => most,
        };
        self.core.written(connection, count as usize);
        self.drain();
    }

    /// The connection breaks.
    pub fn lose(&mut self, connection: ConnectionId) {
        match self.lines.get_mut(&connection) {
            Some(line) if line.phase != Phase::Open => return,
            Some(line) => line.phase = Phase::Gone,
            None => {}
        }
        self.core.closed(connection, "reset".into(), self.now);
        self.drain();
    }

    /// Ends everything: nothing may be left.
    pub fn stop(mut self, how: &Stop) {
        self.core.stop(how, self.now);
        self.drain();
        assert!(self.lines.is_empty(), "left over: {:?}", self.lines);
        assert!(self.core.routes().is_empty());
        assert_eq!(self.core.next_timeout(), None);
        for name in &self.names {
            assert!(self.core.received_from(name).is_empty());
        }
        assert!(self.core.advertised().is_empty());
    }
}

fn whole_messages(mut octets: Bytes) {
    let options = WireOptions {
        extended_messages: true,
        ..WireOptions::default()
    };
    while !octets.is_empty() {
        let header = frame::Header::peek(&octets, &options).expect("a right header");
        let length = usize::from(header.expect("a whole header").length);
        assert!(length <= octets.len(), "half a message");
        let _ = octets.split_to(length);
    }
}
