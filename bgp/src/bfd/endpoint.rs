//! All BFD sessions of one host, sans-IO: which session a packet is for, what is to be sent when,
//! whose silence has lasted too long, and what the user is told.
//!
//! Memory is bounded by the sessions that the user adds; packets never make one. Sockets, threads
//! and the clock are the [engine](super::engine)'s.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::auth::AuthError;
use super::event::{Event, Lost, SessionStatus};
use super::packet::{Discriminator, Packet, State};
use super::session::{Change, Session, Terms};
use crate::fsm::Jitter;

/// The most sessions there may be.
pub const MAX_SESSIONS: usize = 4096;
/// The TTL of all packets (RFC 5881 section 5; RFC 5883 leaves it to us).
pub const TTL: u8 = 255;

#[cfg(test)]
mod tests;

/// Names a session as long as it lives: its discriminator at our end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(super) Discriminator);

/// What lies between the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// One link (RFC 5881): port 3784, and nothing but TTL 255 is believed.
    SingleHop,
    /// Routers, perhaps (RFC 5883): port 4784.
    Multihop {
        /// The least TTL to believe: 255 less the routers that there may be. 0 or 1: any.
        min_ttl: u8,
    },
}

impl Path {
    /// Whether it is the second.
    pub const fn is_multihop(self) -> bool {
        matches!(self, Path::Multihop { .. })
    }

    const fn min_ttl(self) -> u8 {
        match self {
            Path::SingleHop => TTL,
            Path::Multihop { min_ttl } => min_ttl,
        }
    }
}

/// A session to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// The other end.
    pub peer: IpAddr,
    /// Our end; absent: the kernel chooses, and any address of ours is answered for.
    pub local: Option<IpAddr>,
    /// The index of the interface; needed for link-local addresses.
    pub interface: Option<NonZeroU32>,
    /// What lies between.
    pub path: Path,
    /// Intervals, multiplier, key.
    pub terms: Terms,
}

impl SessionConfig {
    fn admits(&self, datagram: &Datagram<'_>) -> bool {
        self.peer == datagram.from
            && self.path.is_multihop() == datagram.multihop
            && self.local.is_none_or(|local| local == datagram.to)
            && self
                .interface
                .is_none_or(|interface| interface.get() == datagram.interface)
    }

    /// Whether a packet could be meant for either.
    fn clashes(&self, other: &SessionConfig) -> bool {
        fn meet<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.zip(b).is_none_or(|(a, b)| a == b)
        }
        self.peer == other.peer
            && self.path.is_multihop() == other.path.is_multihop()
            && meet(self.local, other.local)
            && meet(self.interface, other.interface)
    }
}

/// Why a session was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Packets could not be told from those of another session.
    #[error("there is a BFD session with {0} already")]
    Duplicate(IpAddr),
    /// There are [`MAX_SESSIONS`].
    #[error("there are {MAX_SESSIONS} BFD sessions already")]
    TooMany,
    /// The thread that runs the sessions has ended.
    #[error("BFD has been stopped")]
    Stopped,
}

/// A packet as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Its source.
    pub from: IpAddr,
    /// Its destination: an address of ours.
    pub to: IpAddr,
    /// The index of the interface it came by.
    pub interface: u32,
    /// Its TTL or hop limit.
    pub ttl: u8,
    /// Whether it came to the port of multihop sessions.
    pub multihop: bool,
    /// The octets of UDP.
    pub octets: &'a [u8],
}

/// What became of the packets that arrived at this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "BfdCounters"))]
pub struct Counters {
    /// Taken by a session.
    pub accepted: u64,
    /// No BFD Control packets.
    pub malformed: u64,
    /// For no session of ours.
    pub unknown: u64,
    /// From farther away than the session allows.
    pub far: u64,
    /// Not authentic.
    pub unauthentic: u64,
}

/// All sessions.
#[derive(Debug)]
pub struct Endpoint {
    sessions: HashMap<SessionId, Entry>,
    by_peer: HashMap<IpAddr, Vec<SessionId>>,
    transmits: BTreeSet<(Instant, SessionId)>,
    checks: BTreeSet<(Instant, SessionId)>,
    /// Sessions with something to tell.
    news: VecDeque<SessionId>,
    counters: Counters,
    jitter: Jitter,
    /// Until then silence may be our own fault.
    grace: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    config: SessionConfig,
    session: Session,
    transmit_at: Option<Instant>,
    check_at: Option<Instant>,
    since: Instant,
    packets_in: u64,
    packets_out: u64,
    unauthentic: u64,
    unsent: u64,
    send_error: Option<String>,
    receive_error: Option<AuthError>,
    times_up: u64,
    last_down: Option<Lost>,
    news: Option<Event>,
    /// Removed: it only says goodbye until then.
    leaving: Option<Instant>,
}

impl Endpoint {
    /// No sessions. `seed` is for jitter and discriminators.
    pub fn new(seed: u64) -> Endpoint {
        Endpoint {
            sessions: HashMap::new(),
            by_peer: HashMap::new(),
            transmits: BTreeSet::new(),
            checks: BTreeSet::new(),
            news: VecDeque::new(),
            counters: Counters::default(),
            jitter: Jitter::new(seed),
            grace: None,
        }
    }

    /// Adds a session, which begins to speak unless it is passive.
    ///
    /// # Errors
    /// When packets for it could not be told from another's, or there are too many.
    pub fn add(&mut self, config: SessionConfig, now: Instant) -> Result<SessionId, AddError> {
        // One that is leaving makes room: the peer is told the state of the new one instead.
        let leaving: Vec<_> = self
            .of_peer(config.peer)
            .filter(|(_, entry)| entry.leaving.is_some() && entry.config.clashes(&config))
            .map(|(id, _)| id)
            .collect();
        for id in leaving {
            self.forget(id);
        }
        if self
            .of_peer(config.peer)
            .any(|(_, entry)| entry.config.clashes(&config))
        {
            return Err(AddError::Duplicate(config.peer));
        }
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(AddError::TooMany);
        }
        let id = self.new_id();
        let session = Session::new(config.terms.clone(), id.0, self.jitter.fork(), now);
        self.by_peer.entry(config.peer).or_default().push(id);
        self.sessions.insert(
            id,
            Entry {
                config,
                session,
                transmit_at: None,
                check_at: None,
                since: now,
                packets_in: 0,
                packets_out: 0,
                unauthentic: 0,
                unsent: 0,
                send_error: None,
                receive_error: None,
                times_up: 0,
                last_down: None,
                news: None,
                leaving: None,
            },
        );
        self.reschedule(id);
        Ok(id)
    }

    /// Removes a session. A peer that counts on it is told first that this is on purpose, so
    /// packets go on for a moment; nothing more is told of it here.
    pub fn remove(&mut self, id: SessionId, now: Instant) {
        let Some(entry) = self.sessions.get_mut(&id) else {
            return;
        };
        entry.leaving = entry.session.farewell(now);
        entry.news = None;
        if entry.leaving.is_some() {
            self.reschedule(id);
        } else {
            self.forget(id);
        }
    }

    /// Removes all sessions, as [`Endpoint::remove`] does.
    pub fn remove_all(&mut self, now: Instant) {
        let all: Vec<_> = self.sessions.keys().copied().collect();
        for id in all {
            if self.sessions.get(&id).is_some_and(|e| e.leaving.is_none()) {
                self.remove(id, now);
            }
        }
    }

    /// Whether there is no session, not even one that says goodbye.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Takes a session down until told otherwise, or lets it come up again.
    pub fn set_admin_down(&mut self, id: SessionId, down: bool, now: Instant) {
        let Some(entry) = self.live(id) else {
            return;
        };
        if let Some(change) = entry.session.set_admin_down(down, now) {
            self.changed(id, change, now);
        }
        self.reschedule(id);
    }

    /// Gives a session other terms; it stays up.
    pub fn set_terms(&mut self, id: SessionId, terms: Terms, now: Instant) {
        let Some(entry) = self.live(id) else {
            return;
        };
        entry.config.terms = terms.clone();
        entry.session.set_terms(terms, now);
        self.reschedule(id);
    }

    /// Every session.
    pub fn ids(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.keys().copied()
    }

    /// The session's addresses.
    pub fn config(&self, id: SessionId) -> Option<&SessionConfig> {
        self.sessions.get(&id).map(|entry| &entry.config)
    }

    /// Whether the peer is heard, whatever it says.
    pub fn is_heard(&self, id: SessionId) -> bool {
        let entry = self.sessions.get(&id);
        entry.is_some_and(|entry| entry.session.remote().is_some())
    }

    /// Every session's addresses.
    pub fn configs(&self) -> impl Iterator<Item = &SessionConfig> {
        self.sessions.values().map(|entry| &entry.config)
    }

    /// Takes a packet. What is not for a session, or not believable, is counted and dropped.
    pub fn receive(&mut self, datagram: &Datagram<'_>, now: Instant) {
        let Ok(packet) = Packet::parse(datagram.octets) else {
            self.counters.malformed += 1;
            return;
        };
        let id = match packet.your_discriminator {
            Some(yours) => Some(SessionId(yours)).filter(|id| {
                let entry = self.sessions.get(id);
                entry.is_some_and(|entry| entry.config.admits(datagram))
            }),
            // RFC 5881 section 3: then addresses and interface say which.
            None => self
                .of_peer(datagram.from)
                .find(|(_, entry)| entry.config.admits(datagram))
                .map(|(id, _)| id),
        };
        let Some((id, entry)) = id.and_then(|id| Some((id, self.sessions.get_mut(&id)?))) else {
            self.counters.unknown += 1;
            return;
        };
        if datagram.ttl < entry.config.path.min_ttl() {
            self.counters.far += 1;
            return;
        }
        match entry.session.receive(&packet, datagram.octets, now) {
            Ok(change) => {
                entry.packets_in += 1;
                entry.receive_error = None;
                self.counters.accepted += 1;
                if let Some(change) = change {
                    self.changed(id, change, now);
                }
            }
            Err(error) => {
                entry.unauthentic += 1;
                entry.receive_error = Some(error);
                self.counters.unauthentic += 1;
            }
        }
        self.reschedule(id);
    }

    /// When [`Endpoint::poll_transmit`] has something.
    pub fn transmit_at(&self) -> Option<Instant> {
        self.transmits.first().map(|(at, _)| *at)
    }

    /// The next packet to be sent by now, and whose it is.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(SessionId, Vec<u8>)> {
        loop {
            let (at, id) = *self.transmits.first()?;
            if at > now {
                return None;
            }
            let entry = self.sessions.get_mut(&id)?;
            let octets = entry.session.poll_transmit(now);
            entry.packets_out += u64::from(octets.is_some());
            self.reschedule(id);
            if let Some(octets) = octets {
                return Some((id, octets));
            }
        }
    }

    /// Notes how sending a packet went.
    pub fn transmitted(&mut self, id: SessionId, result: Result<(), String>) {
        let Some(entry) = self.sessions.get_mut(&id) else {
            return;
        };
        match result {
            Ok(()) => entry.send_error = None,
            Err(error) => {
                entry.packets_out = entry.packets_out.saturating_sub(1);
                entry.unsent += 1;
                entry.send_error = Some(error);
            }
        }
    }

    /// When to call [`Endpoint::check`].
    pub fn check_at(&self) -> Option<Instant> {
        self.checks.first().map(|(at, _)| *at)
    }

    /// Notes that whoever drives this was kept from running for so long, and most likely the whole
    /// machine with it: silence in that time says nothing of the peer, so that it gets as much
    /// time again. Never more than another detection time, however often this happens.
    pub fn stalled(&mut self, time: Duration, now: Instant) {
        self.grace = Some(now + time);
    }

    /// Takes down whoever was silent for too long at `now`, and forgets removed sessions that have
    /// said goodbye: whether there was such a one. To be called after every packet that had arrived
    /// by then was given to [`Endpoint::receive`].
    pub fn check(&mut self, now: Instant) -> bool {
        let mut forgotten = false;
        while let Some(&(at, id)) = self.checks.first()
            && at <= now
        {
            let Some(entry) = self.sessions.get_mut(&id) else {
                self.checks.remove(&(at, id));
                continue;
            };
            if entry.leaving.is_some_and(|until| until <= now) {
                self.forget(id);
                forgotten = true;
                continue;
            }
            let (deadline, time) = (entry.session.detect_at(), entry.session.detection_time());
            let latest = deadline.zip(time).map(|(deadline, time)| deadline + time);
            let grace = self
                .grace
                .zip(latest)
                .map(|(grace, latest)| grace.min(latest));
            if let Some(grace) = grace.filter(|grace| *grace > now) {
                self.check_again(id, grace);
                continue;
            }
            if let Some(change) = entry.session.timeout(now) {
                self.changed(id, change, now);
            }
            self.reschedule(id);
        }
        forgotten
    }

    /// The next thing to tell the user. What happens to a session before it is told is one event.
    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            let id = self.news.pop_front()?;
            let news = self
                .sessions
                .get_mut(&id)
                .and_then(|entry| entry.news.take());
            if news.is_some() {
                return news;
            }
        }
    }

    /// Takes back an event that could not be told yet.
    pub fn untold(&mut self, event: Event) {
        if let Some(entry) = self.live(event.session) {
            entry.news = Some(event);
            self.news.push_front(event.session);
        }
    }

    /// Whether there is something to tell.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// How a session stands.
    pub fn status(&self, id: SessionId, now: Instant) -> Option<SessionStatus> {
        let entry = self.sessions.get(&id)?;
        let session = &entry.session;
        let remote = session.remote();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Some(SessionStatus {
            peer: entry.config.peer,
            local: entry.config.local,
            multihop: entry.config.path.is_multihop(),
            state: session.state(),
            since_seconds: now.saturating_duration_since(entry.since).as_secs(),
            diagnostic: session.diagnostic(),
            remote_state: remote.map(|remote| remote.state),
            remote_diagnostic: remote.map(|remote| remote.diagnostic),
            transmit_interval_us: micros(session.transmit_interval()),
            detection_time_us: session.detection_time().map(micros),
            multiplier: session.terms().multiplier,
            discriminator: session.discriminator(),
            remote_discriminator: remote.map(|remote| remote.discriminator),
            packets_in: entry.packets_in,
            packets_out: entry.packets_out,
            unauthentic: entry.unauthentic,
            unsent: entry.unsent,
            times_up: entry.times_up,
            last_down: entry.last_down.map(|lost| lost.to_string()),
            error: entry
                .send_error
                .clone()
                .or(entry.receive_error.map(|error| error.to_string())),
        })
    }

    /// What became of all packets.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn of_peer(&self, peer: IpAddr) -> impl Iterator<Item = (SessionId, &Entry)> {
        let ids = self.by_peer.get(&peer).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.sessions.get(id)?)))
    }

    fn live(&mut self, id: SessionId) -> Option<&mut Entry> {
        let entry = self.sessions.get_mut(&id)?;
        entry.leaving.is_none().then_some(entry)
    }

    /// A discriminator of no other session, and hard to guess.
    fn new_id(&mut self) -> SessionId {
        loop {
            let number = NonZeroU32::new(self.jitter.number() as u32);
            if let Some(id) = number.map(SessionId)
                && !self.sessions.contains_key(&id)
            {
                return id;
            }
        }
    }

    fn forget(&mut self, id: SessionId) {
        let Some(entry) = self.sessions.remove(&id) else {
            return;
        };
        let peer = entry.config.peer;
        if let Some(ids) = self.by_peer.get_mut(&peer) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
        self.transmits.cancel(entry.transmit_at, id);
        self.checks.cancel(entry.check_at, id);
    }

    fn changed(&mut self, id: SessionId, change: Change, now: Instant) {
        let Some(entry) = self.live(id) else {
            return;
        };
        entry.since = now;
        entry.times_up += u64::from(change.to == State::Up);
        let lost = Lost::of(&change);
        entry.last_down = lost.or(entry.last_down);
        let untold = entry.news.take();
        let news_is_queued = untold.is_some();
        entry.news = Some(Event {
            session: id,
            state: change.to,
            diagnostic: change.diagnostic,
            lost: lost.or(untold.and_then(|event| event.lost)),
        });
        if !news_is_queued {
            self.news.push_back(id);
        }
    }

    /// Brings the timers in line with what the session wants.
    fn reschedule(&mut self, id: SessionId) {
        let Some(entry) = self.sessions.get_mut(&id) else {
            return;
        };
        let transmit_at = entry.session.transmit_at();
        if transmit_at != entry.transmit_at {
            self.transmits.cancel(entry.transmit_at, id);
            entry.transmit_at = transmit_at;
            self.transmits.extend(transmit_at.map(|at| (at, id)));
        }
        let check_at = entry.leaving.or(entry.session.detect_at());
        if check_at != entry.check_at {
            self.checks.cancel(entry.check_at, id);
            entry.check_at = check_at;
            self.checks.extend(check_at.map(|at| (at, id)));
        }
    }

    fn check_again(&mut self, id: SessionId, at: Instant) {
        if let Some(entry) = self.sessions.get_mut(&id) {
            self.checks.cancel(entry.check_at, id);
            entry.check_at = Some(at);
            self.checks.insert((at, id));
        }
    }
}

trait Timers {
    /// Removes the entry that a session has, if it has one.
    fn cancel(&mut self, at: Option<Instant>, id: SessionId);
}

impl Timers for BTreeSet<(Instant, SessionId)> {
    fn cancel(&mut self, at: Option<Instant>, id: SessionId) {
        if let Some(at) = at {
            self.remove(&(at, id));
        }
    }
}
