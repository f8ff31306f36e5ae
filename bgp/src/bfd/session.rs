//! One BFD session in asynchronous mode (RFC 5880 section 6.8): `(state, packet or time) -> packets
//! and changes`. No socket, clock or random source inside.
//!
//! Whoever drives it sends what [`Session::poll_transmit`] gives, comes back when
//! [`Session::transmit_at`] and [`Session::detect_at`] say so, and calls [`Session::timeout`] only
//! once every packet that had arrived by then was given to [`Session::receive`].
//!
//! We never ask for Demand mode and reflect no Echo packets. A Poll Sequence is run only while Up:
//! in other states nothing is agreed on yet, and both ends take the values from every packet.

use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use super::auth::{AuthError, Key};
use super::packet::{Diagnostic, Discriminator, Packet, State};
use crate::fsm::Jitter;

/// The least interval between packets of a session that is not Up (RFC 5880 section 6.8.3).
pub const SLOW: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

/// The terms of a session at our end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// How often we want to send, once up.
    pub min_tx: Duration,
    /// How often we are ready to receive; over zero.
    pub min_rx: Duration,
    /// How many of our packets may be missed before the peer counts us as gone.
    pub multiplier: NonZeroU8,
    /// Whether to say nothing before the peer has.
    pub passive: bool,
    /// What to sign with, and to ask of the peer.
    pub key: Option<Key>,
}

/// A change of the session's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// Why, as we tell the peer.
    pub diagnostic: Diagnostic,
    /// What the peer said last of its own state, and why.
    pub remote: (State, Diagnostic),
    /// How long silence had to last, when silence is the reason.
    pub detection_time: Option<Duration>,
}

/// What the peer said last (RFC 5880 section 6.8.1, the variables named bfd.Remote...).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// Its name of the session.
    pub discriminator: Discriminator,
    /// Its state.
    pub state: State,
    /// Why it is in that state.
    pub diagnostic: Diagnostic,
    /// Whether its BFD outlives its control plane.
    pub control_plane_independent: bool,
    /// Whether it wants no periodic packets while up.
    pub demand: bool,
    /// Its detection multiplier.
    pub multiplier: NonZeroU8,
    /// How often it would like to send.
    pub desired_min_tx: Duration,
    /// How often it can receive; zero: it wants no periodic packets.
    pub required_min_rx: Duration,
}

impl Remote {
    fn of(packet: &Packet) -> Remote {
        Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            diagnostic: packet.diagnostic,
            control_plane_independent: packet.control_plane_independent,
            demand: packet.demand,
            multiplier: packet.multiplier,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
        }
    }
}

/// Where a Poll Sequence stands (RFC 5880 section 6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poll {
    Quiet,
    /// Packets carry P until one with F comes.
    Asking,
    /// The same, and what is asked about has changed since: the answer may be to the old values.
    AskingAgain,
}

/// An interval that we announce, and the one that is still in use while the peer is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interval {
    announced: Duration,
    in_use: Duration,
}

impl Interval {
    fn new(interval: Duration) -> Interval {
        Interval {
            announced: interval,
            in_use: interval,
        }
    }
}

/// The sequence numbers of an authenticated session (RFC 5880 section 6.8.1).
#[derive(Debug, Clone, Copy)]
struct Sequence {
    sent: u32,
    received: Option<u32>,
    /// When `received` is too old to compare with.
    forget_at: Option<Instant>,
}

/// The state machine of one session.
#[derive(Debug)]
pub struct Session {
    terms: Terms,
    discriminator: Discriminator,
    jitter: Jitter,
    state: State,
    diagnostic: Diagnostic,
    remote: Option<Remote>,
    tx: Interval,
    rx: Interval,
    poll: Poll,
    sequence: Sequence,
    /// A packet with F is owed.
    answer: bool,
    /// Something changed that the peer should know before the interval is over.
    urgent: bool,
    last_transmit: Option<Instant>,
    next_transmit: Option<Instant>,
    detect_at: Option<Instant>,
    last_content: Option<Packet>,
    /// In AdminDown: keep this pace, so that the peer hears why before it counts us as gone.
    farewell_pace: Option<Duration>,
}

impl Session {
    /// A session in Down, which says so at once unless it is passive. The seed of `jitter` is also
    /// where sequence numbers begin.
    pub fn new(
        terms: Terms,
        discriminator: Discriminator,
        mut jitter: Jitter,
        now: Instant,
    ) -> Session {
        let (min_tx, min_rx) = (terms.min_tx.max(SLOW), terms.min_rx);
        Session {
            discriminator,
            sequence: Sequence {
                sent: jitter.number() as u32,
                received: None,
                forget_at: None,
            },
            jitter,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            remote: None,
            tx: Interval::new(min_tx),
            rx: Interval::new(min_rx),
            poll: Poll::Quiet,
            answer: false,
            urgent: false,
            last_transmit: None,
            next_transmit: Some(now),
            detect_at: None,
            last_content: None,
            farewell_pace: None,
            terms,
        }
    }

    /// Our name of the session.
    pub fn discriminator(&self) -> Discriminator {
        self.discriminator
    }

    /// Its terms.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why it is in that state, as we tell the peer.
    pub fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// What the peer said last, unless it has been silent since.
    pub fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// How often we send, before jitter; zero: the peer wants no periodic packets.
    pub fn transmit_interval(&self) -> Duration {
        match &self.remote {
            Some(remote) if remote.required_min_rx.is_zero() => Duration::ZERO,
            Some(remote) => self.tx.in_use.max(remote.required_min_rx),
            None => self.tx.in_use,
        }
    }

    /// How long the peer may be silent (RFC 5880 section 6.8.4); `None` before it was heard.
    pub fn detection_time(&self) -> Option<Duration> {
        let remote = self.remote.as_ref()?;
        let interval = self.rx.in_use.max(remote.desired_min_tx);
        Some(interval.saturating_mul(remote.multiplier.get().into()))
    }

    /// When to call [`Session::poll_transmit`]; `None`: not before something else happens.
    pub fn transmit_at(&self) -> Option<Instant> {
        match self.answer || self.urgent && self.may_transmit() {
            true => self.last_transmit.or(self.next_transmit),
            false => self
                .next_transmit
                .filter(|_| self.may_transmit_periodically()),
        }
    }

    /// When to call [`Session::timeout`]; `None`: nothing is awaited.
    pub fn detect_at(&self) -> Option<Instant> {
        self.detect_at
    }

    /// Takes a packet that the peer sent to this session; `octets` are all of it.
    ///
    /// # Errors
    /// The packet is not authentic: it changed nothing.
    pub fn receive(
        &mut self,
        packet: &Packet,
        octets: &[u8],
        now: Instant,
    ) -> Result<Option<Change>, AuthError> {
        self.authenticate(packet, octets, now)?;
        let interval_before = self.transmit_interval();
        self.remote = Some(Remote::of(packet));
        if packet.is_final {
            self.finish_poll();
        }
        if self.transmit_interval() != interval_before {
            self.reschedule(now);
        }
        let change = match (self.state, packet.state) {
            // Section 6.8.6: beyond what was noted above, it is discarded.
            (State::AdminDown, _) => return Ok(None),
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                self.become_state(State::Down, Diagnostic::NEIGHBOR_SIGNALED_DOWN, now)
            }
            (State::Down, State::Down) => self.become_state(State::Init, self.diagnostic, now),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.become_state(State::Up, Diagnostic::NONE, now)
            }
            (State::Down, State::AdminDown | State::Up)
            | (State::Init, State::Down)
            | (State::Up, State::Init | State::Up) => None,
        };
        if packet.poll {
            self.answer = true;
        }
        let detection_time = self.detection_time();
        self.detect_at = detection_time.map(|time| now + time);
        self.sequence.forget_at = detection_time.map(|time| now + 2 * time);
        Ok(change)
    }

    /// Notes that nothing was heard for the detection time, if that is so.
    pub fn timeout(&mut self, now: Instant) -> Option<Change> {
        self.detect_at.take_if(|deadline| *deadline <= now)?;
        let silence = self.detection_time();
        let change = match self.state {
            State::Init | State::Up => {
                self.become_state(State::Down, Diagnostic::DETECTION_TIME_EXPIRED, now)
            }
            State::AdminDown | State::Down => None,
        };
        // Section 6.8.1, bfd.RemoteDiscr. What else it said is as old.
        self.remote = None;
        change.map(|change| Change {
            detection_time: silence,
            ..change
        })
    }

    /// The next packet to be sent by now, as octets; to be called until `None`.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if std::mem::take(&mut self.answer) {
            // Sent whatever else holds packets back, and beside the periodic ones (section 6.5).
            return Some(self.packet(true));
        }
        let due = self.next_transmit.is_some_and(|at| at <= now);
        let urgent = std::mem::take(&mut self.urgent) && self.may_transmit();
        let due = due && self.may_transmit_periodically();
        if !urgent && !due {
            return None;
        }
        self.last_transmit = Some(now);
        self.next_transmit = Some(now + self.pause());
        Some(self.packet(false))
    }

    /// Takes the session down until told otherwise, or lets it come up again (RFC 5880 section
    /// 6.8.16). The peer is told, and does not take it for a failure.
    pub fn set_admin_down(&mut self, down: bool, now: Instant) -> Option<Change> {
        match (down, self.state) {
            (true, State::AdminDown) => None,
            (true, _) => {
                self.become_state(State::AdminDown, Diagnostic::ADMINISTRATIVELY_DOWN, now)
            }
            (false, State::AdminDown) => {
                self.farewell_pace = None;
                self.become_state(State::Down, Diagnostic::NONE, now)
            }
            (false, _) => None,
        }
    }

    /// Takes the session down for good. The peer must hear of it before it counts us as gone: so
    /// packets go on at the pace of before until the returned time; then the session may be
    /// dropped. `None`: at once, for the peer does not count on us.
    pub fn farewell(&mut self, now: Instant) -> Option<Instant> {
        let was_up = self.state == State::Up;
        let pace = self.transmit_interval();
        self.set_admin_down(true, now);
        // A peer that wants no packets misses none.
        if !was_up || pace.is_zero() {
            return None;
        }
        self.farewell_pace = Some(pace);
        self.next_transmit = Some(now);
        Some(
            now + pace
                .saturating_mul(self.terms.multiplier.get().into())
                .min(SLOW),
        )
    }

    /// Changes the terms. A session that is up stays up: the peer is asked first where it must be
    /// (RFC 5880 section 6.8.3).
    pub fn set_terms(&mut self, terms: Terms, now: Instant) {
        self.terms = terms;
        if self.state == State::Up {
            self.announce(self.terms.min_tx, self.terms.min_rx, now);
        } else {
            self.tx = Interval::new(self.terms.min_tx.max(SLOW));
            self.rx = Interval::new(self.terms.min_rx);
            self.reschedule(now);
        }
    }

    fn become_state(
        &mut self,
        state: State,
        diagnostic: Diagnostic,
        now: Instant,
    ) -> Option<Change> {
        let from = std::mem::replace(&mut self.state, state);
        self.diagnostic = diagnostic;
        self.urgent = true;
        if state == State::Up {
            self.announce(self.terms.min_tx, self.terms.min_rx, now);
        } else {
            self.poll = Poll::Quiet;
            self.tx = Interval::new(self.terms.min_tx.max(SLOW));
            self.rx = Interval::new(self.terms.min_rx);
        }
        let remote = self.remote.as_ref();
        Some(Change {
            from,
            to: state,
            diagnostic,
            remote: remote.map_or((State::Down, Diagnostic::NONE), |remote| {
                (remote.state, remote.diagnostic)
            }),
            detection_time: None,
        })
    }

    /// Announces other intervals while up. What makes us slower, or the peer, waits until the peer
    /// knows of it; what makes us faster does not.
    fn announce(&mut self, min_tx: Duration, min_rx: Duration, now: Instant) {
        if (self.tx.announced, self.rx.announced) == (min_tx, min_rx) {
            return;
        }
        self.tx.announced = min_tx;
        self.tx.in_use = self.tx.in_use.min(min_tx);
        self.rx.announced = min_rx;
        self.rx.in_use = self.rx.in_use.max(min_rx);
        self.poll = match self.poll {
            Poll::Quiet => Poll::Asking,
            Poll::Asking | Poll::AskingAgain => Poll::AskingAgain,
        };
        self.reschedule(now);
    }

    fn finish_poll(&mut self) {
        self.poll = match self.poll {
            Poll::Quiet => return,
            Poll::AskingAgain => Poll::Asking,
            Poll::Asking => {
                self.tx.in_use = self.tx.announced;
                self.rx.in_use = self.rx.announced;
                Poll::Quiet
            }
        };
    }

    /// Another interval counts from the last packet (RFC 5880 section 6.8.7).
    fn reschedule(&mut self, now: Instant) {
        if let Some(last) = self.last_transmit {
            self.next_transmit = Some((last + self.pause()).max(now));
        }
    }

    /// The interval, shortened at random by up to a quarter; with a multiplier of 1 by at least a
    /// tenth (RFC 5880 section 6.8.7).
    fn pause(&mut self) -> Duration {
        let interval = self.farewell_pace.unwrap_or(self.transmit_interval());
        let pause = self.jitter.shorten(interval);
        if self.terms.multiplier.get() > 1 {
            return pause;
        }
        let least = interval - interval / 4;
        least + (pause.saturating_sub(least)) * 3 / 5
    }

    /// Whether anything but an answer may be said (RFC 5880 section 6.8.7).
    fn may_transmit(&self) -> bool {
        !(self.terms.passive && self.remote.is_none())
    }

    fn may_transmit_periodically(&self) -> bool {
        let unwanted = self.remote.as_ref().is_some_and(|remote| {
            let demand = remote.demand && remote.state == State::Up && self.state == State::Up;
            remote.required_min_rx.is_zero() || demand && self.poll == Poll::Quiet
        });
        self.may_transmit() && !unwanted
    }

    fn packet(&mut self, is_final: bool) -> Vec<u8> {
        let content = Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: false,
            is_final: false,
            control_plane_independent: false,
            demand: false,
            multiplier: self.terms.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.as_ref().map(|remote| remote.discriminator),
            desired_min_tx: self.tx.announced,
            required_min_rx: self.rx.announced,
            required_min_echo_rx: Duration::ZERO,
            authentication: None,
        };
        let mut packet = Packet {
            poll: !is_final && self.poll != Poll::Quiet,
            is_final,
            ..content.clone()
        };
        let Some(key) = &self.terms.key else {
            return packet.to_octets();
        };
        // Section 6.7.3: meticulous or not, a change of content gets a number of its own.
        if key.is_meticulous() || self.last_content.as_ref() != Some(&content) {
            self.sequence.sent = self.sequence.sent.wrapping_add(1);
            self.last_content = Some(content);
        }
        key.sign(&mut packet, self.sequence.sent)
    }

    fn authenticate(
        &mut self,
        packet: &Packet,
        octets: &[u8],
        now: Instant,
    ) -> Result<(), AuthError> {
        let Some(key) = &self.terms.key else {
            return match packet.authentication {
                Some(_) => Err(AuthError::Unexpected),
                None => Ok(()),
            };
        };
        let Some(received) = key.verify(packet, octets)? else {
            return Ok(());
        };
        let sequence = &mut self.sequence;
        if sequence.forget_at.is_some_and(|at| at <= now) {
            sequence.received = None;
        }
        if let Some(last) = sequence.received {
            // Section 6.7.3: within three detection times' worth of packets, in circular numbers.
            let ahead = received.wrapping_sub(last);
            let least = u32::from(key.is_meticulous());
            let most = 3 * u32::from(packet.multiplier.get());
            if !(least..=most).contains(&ahead) {
                return Err(AuthError::Sequence { received, last });
            }
        }
        sequence.received = Some(received);
        Ok(())
    }
}
