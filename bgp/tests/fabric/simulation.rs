//! A fabric of speakers in one thread under a virtual clock: connections with delay, loss,
//! collisions, restarts and readers that pause. One seed, one run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp::core::{ConnectionId, Core, Output};
use bgp::{Announcement, Prefix, SpeakerConfig};
use bytes::Bytes;

/// A small deterministic generator (xorshift64*).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 to `bound - 1`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// The address of a node.
pub(crate) fn address(node: usize) -> IpAddr {
    Ipv4Addr::new(10, 99, 0, node as u8 + 1).into()
}

pub(crate) struct Node {
    pub(crate) core: Core,
    config: SpeakerConfig,
    /// What its user wants announced, for a restart.
    pub(crate) announced: BTreeMap<Prefix, Announcement>,
}

/// One direction of a TCP connection.
#[derive(Debug, Default)]
struct Pipe {
    /// Nothing overtakes.
    last_arrival: Duration,
    cut: bool,
}

#[derive(Debug)]
struct Wire {
    /// Node and name of the connection at the end that opened it, and at the other once there.
    ends: [(usize, Option<ConnectionId>); 2],
    pipes: [Pipe; 2],
    /// Octets vanish and nobody is told.
    silent: bool,
}

#[derive(Debug)]
enum Happening {
    /// The request to connect arrives.
    Request { wire: u64 },
    /// So does the answer.
    Answer { wire: u64, accepted: bool },
    /// Octets arrive at this end.
    Octets {
        wire: u64,
        end: usize,
        octets: Bytes,
    },
    /// The sender's TCP has got rid of them.
    Written {
        wire: u64,
        end: usize,
        octets: usize,
    },
    /// The other side closed, or the connection broke.
    Closed {
        wire: u64,
        end: usize,
        why: &'static str,
    },
}

pub(crate) struct Fabric {
    pub(crate) nodes: Vec<Node>,
    pub(crate) chance: Chance,
    start: Instant,
    now: Duration,
    happenings: BTreeMap<(Duration, u64), Happening>,
    wires: BTreeMap<u64, Wire>,
    serial: u64,
    /// Readers at these nodes pause until then.
    paused: BTreeMap<usize, Duration>,
    pub(crate) trace: String,
}

impl Fabric {
    pub(crate) fn new(configs: Vec<SpeakerConfig>, seed: u64) -> Fabric {
        let start = Instant::now();
        let mut chance = Chance::new(seed);
        let nodes = configs.into_iter().map(|config| {
            let core = Core::new(config.clone(), chance.next(), start).unwrap();
            Node {
                core,
                config,
                announced: BTreeMap::new(),
            }
        });
        let nodes: Vec<Node> = nodes.collect();
        let mut fabric = Fabric {
            nodes,
            chance,
            start,
            now: Duration::ZERO,
            happenings: BTreeMap::new(),
            wires: BTreeMap::new(),
            serial: 0,
            paused: BTreeMap::new(),
            trace: String::new(),
        };
        for node in 0..fabric.nodes.len() {
            fabric.nodes[node].core.start(start);
            fabric.drain(node);
        }
        fabric
    }

    fn instant(&self) -> Instant {
        self.start + self.now
    }

    fn note(&mut self, text: std::fmt::Arguments<'_>) {
        writeln!(self.trace, "{:?} {text}", self.now).unwrap();
    }

    fn later(&mut self, delay: Duration, happening: Happening) {
        self.serial += 1;
        self.happenings
            .insert((self.now + delay, self.serial), happening);
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(200 + self.chance.below(20_000))
    }

    /// Puts something into a direction of a wire, behind everything before it.
    fn send(&mut self, wire: u64, from: usize, happening: Happening) {
        let delay = self.delay();
        let Some(known) = self.wires.get_mut(&wire) else {
            return;
        };
        let pipe = &mut known.pipes[from];
        if pipe.cut || known.silent {
            return;
        }
        let reader = known.ends[1 - from].0;
        let pause = self.paused.get(&reader).copied().unwrap_or_default();
        let arrival = (self.now + delay).max(pipe.last_arrival).max(pause);
        pipe.last_arrival = arrival;
        self.later(arrival - self.now, happening);
    }

    /// Does what the core of a node wants done.
    fn drain(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].core.poll_output() {
            match output {
                Output::Connect { connection, to, .. } => {
                    let peer = (0..self.nodes.len()).find(|other| address(*other) == to.ip());
                    let peer = peer.expect("no node has this address");
                    self.serial += 1;
                    let wire = self.serial;
                    self.note(format_args!("{node} connects to {peer}, wire {wire}"));
                    self.wires.insert(
                        wire,
                        Wire {
                            ends: [(node, Some(connection)), (peer, None)],
                            pipes: Default::default(),
                            silent: false,
                        },
                    );
                    self.send(wire, 0, Happening::Request { wire });
                }
                Output::Send { connection, octets } => {
                    let Some((wire, end)) = self.find(node, connection) else {
                        continue;
                    };
                    self.note(format_args!("{node} sends {} on {wire}", octets.len()));
                    let count = octets.len();
                    self.cut_up(wire, end, octets);
                    // The sender's buffer empties when the reader has read.
                    let read = self.wires[&wire].pipes[end].last_arrival.max(self.now);
                    let silent = self.wires[&wire].silent;
                    if !silent {
                        let written = Happening::Written {
                            wire,
                            end,
                            octets: count,
                        };
                        self.later(read - self.now, written);
                    }
                }
                Output::Close { connection } => {
                    let Some((wire, end)) = self.find(node, connection) else {
                        continue;
                    };
                    self.note(format_args!("{node} closes {wire}"));
                    let closed = Happening::Closed {
                        wire,
                        end: 1 - end,
                        why: "the peer closed it",
                    };
                    self.send(wire, end, closed);
                    self.forget(wire, end);
                }
            }
        }
    }

    /// Messages arrive in pieces that know nothing of messages.
    fn cut_up(&mut self, wire: u64, end: usize, mut octets: Bytes) {
        while !octets.is_empty() {
            let size = match self.chance.one_in(4) {
                true => 1 + self.chance.below(40) as usize,
                false => 4096,
            };
            let piece = octets.split_to(size.min(octets.len()));
            self.send(
                wire,
                end,
                Happening::Octets {
                    wire,
                    end: 1 - end,
                    octets: piece,
                },
            );
        }
    }

    fn find(&self, node: usize, connection: ConnectionId) -> Option<(u64, usize)> {
        self.wires.iter().find_map(|(wire, known)| {
            let end = known
                .ends
                .iter()
                .position(|end| *end == (node, Some(connection)))?;
            Some((*wire, end))
        })
    }

    /// One end is done with the wire.
    fn forget(&mut self, wire: u64, end: usize) {
        if let Some(known) = self.wires.get_mut(&wire) {
            known.ends[end].1 = None;
            known.pipes[1 - end].cut = true;
            if known.ends.iter().all(|end| end.1.is_none()) && known.pipes[0].cut {
                // What is under way still arrives, at nobody.
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.instant();
        match happening {
            Happening::Request { wire } => {
                let [(from, _), (to, _)] = self.wires[&wire].ends;
                let remote = SocketAddr::new(address(from), 40000);
                let local = SocketAddr::new(address(to), 179);
                let accepted = self.nodes[to].core.accepted(remote, local, now);
                self.note(format_args!("{to} accepts {wire}: {}", accepted.is_some()));
                if let Some(known) = self.wires.get_mut(&wire) {
                    known.ends[1].1 = accepted;
                }
                let answer = Happening::Answer {
                    wire,
                    accepted: accepted.is_some(),
                };
                self.send(wire, 1, answer);
                self.drain(to);
            }
            Happening::Answer { wire, accepted } => {
                let (node, Some(connection)) = self.wires[&wire].ends[0] else {
                    return;
                };
                let local = SocketAddr::new(address(node), 40000);
                self.nodes[node].core.connected(connection, local, now);
                if !accepted {
                    // TCP knows no refusal after the handshake: it is closed at once.
                    self.nodes[node]
                        .core
                        .closed(connection, "the peer closed it".into(), now);
                }
                self.drain(node);
            }
            Happening::Octets { wire, end, octets } => {
                let (node, Some(connection)) = self.wires[&wire].ends[end] else {
                    return;
                };
                self.nodes[node].core.received(connection, &octets, now);
                self.drain(node);
            }
            Happening::Written { wire, end, octets } => {
                let (node, Some(connection)) = self.wires[&wire].ends[end] else {
                    return;
                };
                self.nodes[node].core.written(connection, octets);
                self.drain(node);
            }
            Happening::Closed { wire, end, why } => {
                let (node, Some(connection)) = self.wires[&wire].ends[end] else {
                    return;
                };
                self.note(format_args!("{node} sees {wire} closed"));
                self.nodes[node].core.closed(connection, why.into(), now);
                self.forget(wire, end);
                self.drain(node);
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let timer = self
                .nodes
                .iter()
                .filter_map(|node| node.core.next_timeout())
                .min();
            let timer = timer.map(|deadline| deadline.saturating_duration_since(self.start));
            let happening = self.happenings.keys().next().map(|(time, _)| *time);
            let next = match (timer, happening) {
                // What has arrived counts before a timer of the same moment.
                (Some(timer), Some(happening)) => timer.min(happening),
                (timer, happening) => timer.or(happening).unwrap_or(until),
            };
            if next >= until {
                self.now = until;
                return;
            }
            self.now = self.now.max(next);
            while let Some(entry) = self.happenings.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let happening = entry.remove();
                self.happen(happening);
            }
            let now = self.instant();
            for node in 0..self.nodes.len() {
                let core = &mut self.nodes[node].core;
                if core.next_timeout().is_some_and(|deadline| deadline <= now) {
                    core.timeout(now);
                    self.drain(node);
                }
            }
        }
    }

    pub(crate) fn announce(&mut self, node: usize, route: Announcement) {
        self.note(format_args!("{node} announces {}", route.prefix));
        self.nodes[node]
            .announced
            .insert(route.prefix, route.clone());
        self.nodes[node].core.announce(vec![route]);
        self.drain(node);
    }

    pub(crate) fn withdraw(&mut self, node: usize, prefix: Prefix) {
        self.note(format_args!("{node} withdraws {prefix}"));
        self.nodes[node].announced.remove(&prefix);
        self.nodes[node].core.withdraw(&[prefix]);
        self.drain(node);
    }

    fn some_wire(&mut self) -> Option<u64> {
        let alive: Vec<u64> = self.open_wires().collect();
        let pick = self.chance.below(alive.len().max(1) as u64) as usize;
        alive.get(pick).copied()
    }

    fn open_wires(&self) -> impl Iterator<Item = u64> + '_ {
        let open = |wire: &Wire| wire.ends.iter().any(|end| end.1.is_some());
        self.wires
            .iter()
            .filter(move |(_, wire)| open(wire))
            .map(|(wire, _)| *wire)
    }

    /// A connection breaks: both sides are told, and what was under way is lost.
    pub(crate) fn break_a_wire(&mut self) {
        let Some(wire) = self.some_wire() else { return };
        self.note(format_args!("wire {wire} breaks"));
        self.wires.get_mut(&wire).unwrap().silent = true;
        for end in 0..2 {
            let delay = self.delay();
            self.later(
                delay,
                Happening::Closed {
                    wire,
                    end,
                    why: "connection reset by peer",
                },
            );
        }
    }

    /// A connection goes silent: only timers notice.
    pub(crate) fn silence_a_wire(&mut self) {
        let Some(wire) = self.some_wire() else { return };
        self.note(format_args!("wire {wire} goes silent"));
        self.wires.get_mut(&wire).unwrap().silent = true;
    }

    /// A node does not read for a while.
    pub(crate) fn pause(&mut self, node: usize, time: Duration) {
        self.note(format_args!("{node} pauses for {time:?}"));
        self.paused.insert(node, self.now + time);
    }

    /// A node dies and starts again, with what its user wants.
    pub(crate) fn restart(&mut self, node: usize) {
        self.note(format_args!("{node} restarts"));
        for wire in self.open_wires().collect::<Vec<_>>() {
            for end in 0..2 {
                if self.wires[&wire].ends[end].0 == node {
                    let closed = Happening::Closed {
                        wire,
                        end: 1 - end,
                        why: "connection reset by peer",
                    };
                    self.send(wire, end, closed);
                    self.forget(wire, end);
                }
            }
        }
        let (now, seed) = (self.instant(), self.chance.next());
        let node_state = &mut self.nodes[node];
        node_state.core = Core::new(node_state.config.clone(), seed, now).unwrap();
        node_state.core.start(now);
        node_state
            .core
            .announce(node_state.announced.values().cloned().collect());
        self.drain(node);
    }

    /// Pairs of nodes with a connection open between them, once per connection.
    pub(crate) fn connections(&self) -> Vec<BTreeSet<usize>> {
        let wires = self.wires.values();
        let open = wires.filter(|wire| !wire.silent && wire.ends.iter().all(|end| end.1.is_some()));
        open.map(|wire| wire.ends.iter().map(|end| end.0).collect())
            .collect()
    }
}
