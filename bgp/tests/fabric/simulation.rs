//! A fabric of speakers in one thread under a virtual clock: connections with delay, loss,
//! collisions and restarts, readers that are slow, and nodes that stand still. One seed, one run.
//!
//! Judges what can be judged only while it happens: timers and what is on its way.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp::core::{Backlog, ConnectionId, Core, Output};
use bgp::fsm::OPEN_HOLD_TIME;
use bgp::{Announcement, GracefulRestart, Prefix, SessionState, SpeakerConfig};
use bytes::Bytes;

use crate::agenda::{Agenda, Happening};
use crate::chance::Chance;
use crate::follower::Follower;
use crate::wire::{End, Wire};

/// The longest a core may wait for anything on a connection before its session is up: OPEN, and
/// DelayOpen before it.
const LONGEST_WAIT: Duration = Duration::from_secs(242);
/// What a round of UPDATEs can add to a backlog that is just not full.
const ROUND: u64 = 64 * 1024;

/// The address of a node.
pub(crate) fn address(node: usize) -> IpAddr {
    Ipv4Addr::new(10, 99, 0, node as u8 + 1).into()
}

/// The name of a node.
pub(crate) fn name(node: usize) -> String {
    format!("n{node}")
}

pub(crate) struct Node {
    pub(crate) core: Core,
    pub(crate) config: SpeakerConfig,
    backlog: Backlog,
    /// What its user wants announced, for a restart.
    pub(crate) announced: BTreeMap<Prefix, Announcement>,
    pub(crate) follower: Follower,
    timer: Option<Duration>,
    /// Nothing happens here until then: neither reading nor timers.
    stalled: Duration,
    /// Counts restarts.
    life: u64,
    /// Connections that its core knows: wire and end.
    open: Vec<(ConnectionId, usize, usize)>,
}

pub(crate) struct Fabric {
    pub(crate) nodes: Vec<Node>,
    pub(crate) chance: Chance,
    start: Instant,
    now: Duration,
    agenda: Agenda,
    wires: Vec<Wire>,
    /// What happened, if that is wanted.
    trace: Option<String>,
    /// The first law that was broken.
    wrong: Option<String>,
}

/// Writes a line of the trace; what it says is not even put together when nobody wants it.
macro_rules! note {
    ($fabric:expr, $($text:tt)*) => {
        if let Some(trace) = &mut $fabric.trace {
            writeln!(trace, "{:?} {}", $fabric.now, format_args!($($text)*)).unwrap();
        }
    };
}

impl Fabric {
    pub(crate) fn new(
        configs: Vec<SpeakerConfig>,
        backlogs: &[Backlog],
        seed: u64,
        traced: bool,
    ) -> Fabric {
        let start = Instant::now();
        let mut chance = Chance::new(seed);
        let nodes = configs.into_iter().enumerate().map(|(node, config)| {
            let mut core = Core::new(config.clone(), chance.next(), start).unwrap();
            let backlog = backlogs.get(node).copied().unwrap_or_default();
            core.limit_backlog(backlog);
            Node {
                core,
                config,
                backlog,
                announced: BTreeMap::new(),
                follower: Follower::default(),
                timer: None,
                stalled: Duration::ZERO,
                life: 0,
                open: Vec::new(),
            }
        });
        let nodes: Vec<Node> = nodes.collect();
        let mut fabric = Fabric {
            nodes,
            chance,
            start,
            now: Duration::ZERO,
            agenda: Agenda::default(),
            wires: Vec::new(),
            trace: traced.then(String::new),
            wrong: None,
        };
        for node in 0..fabric.nodes.len() {
            fabric.nodes[node].core.observe(true);
            fabric.nodes[node].core.start(start);
            fabric.drain(node);
        }
        fabric
    }

    /// The virtual time.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// What happened, a line each, if it was traced.
    pub(crate) fn trace(&self) -> &str {
        self.trace.as_deref().unwrap_or_default()
    }

    /// The first law that was broken on the way.
    pub(crate) fn wrong(&self) -> Option<&str> {
        self.wrong.as_deref()
    }

    fn broken(&mut self, what: String) {
        note!(self, "BROKEN: {what}");
        let now = self.now;
        self.wrong
            .get_or_insert_with(|| format!("at {now:?}: {what}"));
    }

    fn instant(&self) -> Instant {
        self.start + self.now
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(200 + self.chance.below(20_000))
    }

    /// Puts something into a direction of a wire, behind everything before it.
    fn send(&mut self, wire: usize, from: usize, octets: usize, happening: Happening) {
        let delay = self.delay();
        let Wire {
            ends,
            silent,
            octet_time,
        } = &mut self.wires[wire];
        let end = &mut ends[from];
        if end.cut || *silent {
            return;
        }
        let start = end.last_arrival.max(self.now + delay);
        let arrival = start + *octet_time * octets as u32;
        end.last_arrival = arrival;
        self.agenda.push(arrival, happening);
    }

    /// Does what the core of a node wants done.
    fn drain(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].core.poll_output() {
            match output {
                Output::Connect { connection, to, .. } => self.connect(node, connection, to),
                Output::Send { connection, octets } => match self.find(node, connection) {
                    Some((wire, end)) => self.write(wire, end, octets),
                    None => self.broken(format!("{node} sends on a connection that is gone")),
                },
                Output::Close { connection } => {
                    // It may be ours to say that it was gone first.
                    let Some((wire, end)) = self.find(node, connection) else {
                        continue;
                    };
                    note!(self, "{node} closes {wire}");
                    let closed = Happening::Closed {
                        wire,
                        end: 1 - end,
                        why: "the peer closed it",
                    };
                    self.send(wire, end, 0, closed);
                    self.forget(wire, end);
                }
            }
        }
        let next = self.nodes[node].core.next_timeout();
        self.nodes[node].timer = next.map(|time| time.saturating_duration_since(self.start));
        let events = self.nodes[node].core.take_events();
        self.nodes[node].follower.follow(events);
    }

    fn connect(&mut self, node: usize, connection: ConnectionId, to: SocketAddr) {
        let peer = (0..self.nodes.len()).find(|other| address(*other) == to.ip());
        let peer = peer.expect("no node has this address");
        let wire = self.wires.len();
        note!(self, "{node} connects to {peer}, wire {wire}");
        let octet_time = match self.chance.one_in(4) {
            // 4 to 100 kB/s.
            true => Duration::from_micros(10 + self.chance.below(240)),
            false => Duration::ZERO,
        };
        self.wires.push(Wire {
            ends: [
                End::new(node, Some(connection), self.now),
                End::new(peer, None, self.now),
            ],
            silent: false,
            octet_time,
        });
        self.nodes[node].open.push((connection, wire, 0));
        self.send(wire, 0, 0, Happening::Request { wire });
    }

    /// Messages arrive in pieces that know nothing of messages.
    fn write(&mut self, wire: usize, end: usize, mut octets: Bytes) {
        let node = self.wires[wire].ends[end].node;
        note!(self, "{node} sends on {wire}: {}", Hex(&octets));
        if is_hold_timer_expired(&octets) {
            self.judge_expiry(wire, end);
        }
        let sender = &mut self.wires[wire].ends[end];
        sender.in_flight += octets.len();
        let in_flight = sender.in_flight as u64;
        if in_flight > self.nodes[node].backlog.far_behind + ROUND {
            self.broken(format!("{in_flight} octets of {node} are on their way"));
        }
        while !octets.is_empty() {
            let size = match self.chance.one_in(4) {
                true => 1 + self.chance.below(40) as usize,
                false => 4096,
            };
            let octets = octets.split_to(size.min(octets.len()));
            let count = octets.len();
            let piece = Happening::Octets {
                wire,
                end: 1 - end,
                octets,
            };
            self.send(wire, end, count, piece);
            let Wire { ends, silent, .. } = &self.wires[wire];
            if !silent && !ends[end].cut {
                let octets = count;
                self.agenda.push(
                    ends[end].last_arrival,
                    Happening::Written { wire, end, octets },
                );
            }
        }
    }

    fn find(&self, node: usize, connection: ConnectionId) -> Option<(usize, usize)> {
        let open = self.nodes[node].open.iter();
        open.rev()
            .find(|(known, ..)| *known == connection)
            .map(|(_, wire, end)| (*wire, *end))
    }

    /// One end is done with the wire.
    fn forget(&mut self, wire: usize, end: usize) {
        let ends = &mut self.wires[wire].ends;
        if let Some(connection) = ends[end].connection.take() {
            self.nodes[ends[end].node]
                .open
                .retain(|(known, ..)| *known != connection);
        }
        ends[1 - end].cut = true;
    }

    /// Whoever says that the hold timer expired must have heard nothing for so long.
    fn judge_expiry(&mut self, wire: usize, end: usize) {
        let (ends, now) = (&self.wires[wire].ends, self.now);
        let End {
            node, heard, since, ..
        } = ends[end];
        let (silence, hold) = match heard {
            Some(heard) => (now - heard, self.hold_time(node, ends[1 - end].node)),
            None => (now - since, Some(OPEN_HOLD_TIME)),
        };
        if hold.is_none_or(|hold| silence < hold) {
            self.broken(format!(
                "{node} gives up wire {wire} after {silence:?} of silence, hold time {hold:?}"
            ));
        }
    }

    /// What two nodes agree on, unless that is never to expire.
    fn hold_time(&self, here: usize, there: usize) -> Option<Duration> {
        let proposed = |here: usize, there: usize| {
            let mut peers = self.nodes[here].config.peers.iter();
            let peer = peers.find(|peer| peer.address == address(there));
            peer.map_or(0, |peer| peer.hold_time)
        };
        let seconds = proposed(here, there).min(proposed(there, here));
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// Whoever hears nothing must have noticed by now.
    fn judge_silence(&mut self) {
        let mut late = None;
        for (node, state) in self.nodes.iter().enumerate() {
            if state.stalled > self.now {
                continue;
            }
            for (_, wire, end) in &state.open {
                let ends = &self.wires[*wire].ends;
                let End { since, heard, .. } = ends[*end];
                let peer = ends[1 - *end].node;
                let (from, most) = match heard {
                    Some(heard) => (heard, self.hold_time(node, peer)),
                    None => (since, Some(LONGEST_WAIT)),
                };
                let from = from.max(state.stalled);
                if most.is_some_and(|most| self.now - from > most) {
                    late = Some(format!(
                        "{node} holds on to wire {wire} with {peer}, silent since {from:?}"
                    ));
                }
            }
        }
        if let Some(late) = late {
            self.broken(late);
        }
    }

    /// The nodes that must not stand still for this to happen now.
    fn stalls(&self, happening: &Happening) -> Duration {
        let node = |wire: usize, end: usize| {
            let node = self.wires[wire].ends[end].node;
            self.nodes[node].stalled
        };
        match *happening {
            Happening::Request { wire } => node(wire, 1),
            Happening::Answer { wire, .. } => node(wire, 0),
            Happening::Octets { wire, end, .. } | Happening::Closed { wire, end, .. } => {
                node(wire, end)
            }
            // It is the other one that reads.
            Happening::Written { wire, end, .. } => node(wire, end).max(node(wire, 1 - end)),
            Happening::Restored { node, .. } => self.nodes[node].stalled,
        }
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.instant();
        let node = match happening {
            Happening::Request { wire } => {
                let (from, to) = (self.wires[wire].ends[0].node, self.wires[wire].ends[1].node);
                let remote = SocketAddr::new(address(from), 40000);
                let local = SocketAddr::new(address(to), 179);
                let accepted = self.nodes[to].core.accepted(remote, local, now);
                note!(self, "{to} accepts {wire}: {}", accepted.is_some());
                let end = &mut self.wires[wire].ends[1];
                (end.connection, end.since) = (accepted, self.now);
                if let Some(connection) = accepted {
                    self.nodes[to].open.push((connection, wire, 1));
                }
                let answer = Happening::Answer {
                    wire,
                    accepted: accepted.is_some(),
                };
                self.send(wire, 1, 0, answer);
                to
            }
            Happening::Answer { wire, accepted } => {
                let End {
                    node,
                    connection: Some(connection),
                    ..
                } = self.wires[wire].ends[0]
                else {
                    return;
                };
                self.wires[wire].ends[0].since = self.now;
                let local = SocketAddr::new(address(node), 40000);
                let core = &mut self.nodes[node].core;
                core.connected(connection, local, now);
                if !accepted {
                    // TCP knows no refusal after the handshake: it is closed at once.
                    self.drain(node);
                    self.close(wire, 0, "the peer closed it");
                }
                node
            }
            Happening::Octets { wire, end, octets } => {
                let receiver = &mut self.wires[wire].ends[end];
                let Some(connection) = receiver.connection else {
                    return;
                };
                receiver.hears(&octets, self.now);
                let node = receiver.node;
                self.nodes[node].core.received(connection, &octets, now);
                node
            }
            Happening::Written { wire, end, octets } => {
                let sender = &mut self.wires[wire].ends[end];
                let Some(connection) = sender.connection else {
                    return;
                };
                sender.in_flight -= octets;
                let node = sender.node;
                self.nodes[node].core.written(connection, octets);
                node
            }
            Happening::Closed { wire, end, why } => {
                self.close(wire, end, why);
                self.wires[wire].ends[end].node
            }
            Happening::Restored { node, life } => {
                if self.nodes[node].life == life {
                    note!(self, "{node} has announced everything again");
                    let Node {
                        core, announced, ..
                    } = &mut self.nodes[node];
                    core.announce(announced.values().cloned().collect());
                    core.initial_routes_complete();
                }
                node
            }
        };
        self.drain(node);
    }

    /// The core of this end is told that the wire is gone.
    fn close(&mut self, wire: usize, end: usize, why: &str) {
        let closing = &self.wires[wire].ends[end];
        let Some(connection) = closing.connection else {
            return;
        };
        let node = closing.node;
        note!(self, "{node} sees {wire} closed");
        let now = self.instant();
        self.nodes[node].core.closed(connection, why.into(), now);
        self.forget(wire, end);
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            // A node that stands still deals with its timers late.
            let timers = self.nodes.iter();
            let timer = timers
                .filter_map(|node| node.timer.map(|timer| timer.max(node.stalled)))
                .min();
            let happening = self.agenda.next();
            let next = timer.into_iter().chain(happening).min().unwrap_or(until);
            if next >= until {
                self.now = until;
                return self.judge_silence();
            }
            self.now = self.now.max(next);
            // What has arrived counts before a timer of the same moment.
            while let Some(entry) = self.agenda.pop(self.now) {
                let stalled = self.stalls(&entry.happening);
                match stalled > self.now {
                    true => self.agenda.put_off(entry, stalled),
                    false => self.happen(entry.happening),
                }
            }
            let now = self.instant();
            for node in 0..self.nodes.len() {
                let Node {
                    core,
                    timer,
                    stalled,
                    ..
                } = &mut self.nodes[node];
                if timer.is_some_and(|timer| timer <= self.now) && *stalled <= self.now {
                    core.timeout(now);
                    let next = core.next_timeout();
                    if next.is_some_and(|next| next <= now) {
                        self.broken(format!("{node} has a timer that is due and not dealt with"));
                        return;
                    }
                    self.drain(node);
                }
            }
        }
    }

    pub(crate) fn announce(&mut self, node: usize, route: Announcement) {
        note!(self, "{node} announces {}", route.prefix);
        self.nodes[node]
            .announced
            .insert(route.prefix, route.clone());
        self.nodes[node].core.announce(vec![route]);
        self.drain(node);
    }

    pub(crate) fn withdraw(&mut self, node: usize, prefix: Prefix) {
        note!(self, "{node} withdraws {prefix}");
        self.nodes[node].announced.remove(&prefix);
        self.nodes[node].core.withdraw(&[prefix]);
        self.drain(node);
    }

    /// The operator of a node takes a peer down, or lets it come up.
    pub(crate) fn admin(&mut self, node: usize, peer: usize, up: bool) {
        let now = self.instant();
        note!(
            self,
            "{node} takes {peer} {}",
            if up { "up" } else { "down" }
        );
        let core = &mut self.nodes[node].core;
        core.set_peer_admin(&name(peer), up, None, now).unwrap();
        self.drain(node);
    }

    /// A node asks everybody to avoid it, or no longer (RFC 8326).
    pub(crate) fn shut_down_gracefully(&mut self, node: usize, going: bool) {
        note!(self, "{node} shuts down gracefully: {going}");
        self.nodes[node].core.set_graceful_shutdown(going);
        self.drain(node);
    }

    /// A node asks a peer for all its routes again, if that is possible now.
    pub(crate) fn refresh(&mut self, node: usize, peer: usize) {
        let now = self.instant();
        let asked = self.nodes[node].core.refresh_peer(&name(peer), now);
        note!(self, "{node} asks {peer} for everything: {asked:?}");
        self.drain(node);
    }

    fn some_wire(&mut self) -> Option<usize> {
        let wires = self.wires.iter().enumerate();
        let open: Vec<usize> = wires
            .filter(|(_, wire)| wire.is_open())
            .map(|(wire, _)| wire)
            .collect();
        (!open.is_empty()).then(|| self.chance.pick(&open))
    }

    /// A connection breaks: both sides are told, and what was under way is lost.
    pub(crate) fn break_a_wire(&mut self) {
        let Some(wire) = self.some_wire() else { return };
        note!(self, "wire {wire} breaks");
        self.wires[wire].silent = true;
        for end in 0..2 {
            let time = self.now + self.delay();
            let why = "connection reset by peer";
            self.agenda.push(time, Happening::Closed { wire, end, why });
        }
    }

    /// A connection goes silent: only timers notice.
    pub(crate) fn silence_a_wire(&mut self) {
        let Some(wire) = self.some_wire() else { return };
        note!(self, "wire {wire} goes silent");
        self.wires[wire].silent = true;
    }

    /// A node stands still for a while: what arrives waits, and so do its timers.
    pub(crate) fn stall(&mut self, node: usize, time: Duration) {
        note!(self, "{node} stands still for {time:?}");
        let stalled = &mut self.nodes[node].stalled;
        *stalled = (*stalled).max(self.now + time);
    }

    /// A node dies and starts again, with what its user wants, at once or in a while.
    pub(crate) fn restart(&mut self, node: usize) {
        note!(self, "{node} restarts");
        for (_, wire, end) in std::mem::take(&mut self.nodes[node].open) {
            let closed = Happening::Closed {
                wire,
                end: 1 - end,
                why: "connection reset by peer",
            };
            self.send(wire, end, 0, closed);
            self.forget(wire, end);
        }
        let (now, seed) = (self.instant(), self.chance.next());
        let state = &mut self.nodes[node];
        let restart = state.config.graceful_restart;
        let config = SpeakerConfig {
            graceful_restart: restart.map(|restart| GracefulRestart {
                restarting: true,
                ..restart
            }),
            ..state.config.clone()
        };
        state.core = Core::new(config, seed, now).unwrap();
        state.core.limit_backlog(state.backlog);
        state.core.observe(true);
        state.core.start(now);
        state.follower = Follower::default();
        state.life += 1;
        let life = state.life;
        let time = self.now + Duration::from_millis(self.chance.below(3000));
        self.agenda.push(time, Happening::Restored { node, life });
        self.drain(node);
    }

    /// What both ends of each connection that anybody has open think of it: open, or not.
    pub(crate) fn connections(&self) -> impl Iterator<Item = [(usize, bool); 2]> {
        let open = self.wires.iter().filter(|wire| wire.is_open());
        open.map(|wire| {
            let end = |end: &End| (end.node, end.connection.is_some() && !wire.silent);
            [end(&wire.ends[0]), end(&wire.ends[1])]
        })
    }

    /// The state of the session of a node with another.
    pub(crate) fn state(&self, here: usize, there: usize) -> Option<SessionState> {
        self.nodes[here].core.state(&name(there))
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// Whether this is the NOTIFICATION that says so (RFC 4271 section 6.5).
fn is_hold_timer_expired(octets: &[u8]) -> bool {
    matches!(octets.get(18..20), Some([3, 4]))
}
