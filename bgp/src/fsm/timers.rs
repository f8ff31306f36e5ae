//! The timers of a session as plain deadlines, and the jitter that goes with them.

use std::time::{Duration, Instant};

/// A timer of RFC 4271 section 8.1.3 (events 9 to 13) or RFC 9687 (event 29), or of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Next attempt to connect.
    ConnectRetry,
    /// Nothing was heard from the peer for too long.
    Hold,
    /// Time to say that we are alive.
    Keepalive,
    /// The peer did not send its OPEN first.
    DelayOpen,
    /// The pause after a failure is over.
    IdleHold,
    /// The peer has read nothing for too long.
    SendHold,
    /// The peer has not said which of two connections it keeps.
    Contest,
}

impl Timer {
    pub(super) const ALL: [Timer; 7] = [
        Timer::ConnectRetry,
        Timer::Hold,
        Timer::Keepalive,
        Timer::DelayOpen,
        Timer::IdleHold,
        Timer::SendHold,
        Timer::Contest,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Timer::ConnectRetry => "connect retry timer",
            Timer::Hold => "hold timer",
            Timer::Keepalive => "keepalive timer",
            Timer::DelayOpen => "delay open timer",
            Timer::IdleHold => "idle hold timer",
            Timer::SendHold => "send hold timer",
            Timer::Contest => "contest timer",
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Timers {
    deadlines: [Option<Instant>; Timer::ALL.len()],
}

impl Timers {
    pub(super) fn start(&mut self, timer: Timer, deadline: Instant) {
        self.deadlines[timer as usize] = Some(deadline);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.deadlines[timer as usize] = None;
    }

    pub(super) fn stop_all(&mut self) {
        self.deadlines = Default::default();
    }

    pub(super) fn is_running(&self, timer: Timer) -> bool {
        self.deadlines[timer as usize].is_some()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.deadlines.iter().flatten().min().copied()
    }

    /// Stops and returns the timer that ran out first.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Timer> {
        let (_, timer) = Timer::ALL
            .into_iter()
            .filter_map(|timer| Some((self.deadlines[timer as usize]?, timer)))
            .filter(|(deadline, _)| *deadline <= now)
            .min()?;
        self.stop(timer);
        Some(timer)
    }

    #[cfg(test)]
    pub(super) fn running(&self) -> Vec<Timer> {
        Timer::ALL
            .into_iter()
            .filter(|timer| self.is_running(*timer))
            .collect()
    }
}

/// A small deterministic source of jitter (splitmix64): one seed, one sequence. Not for secrets.
#[derive(Debug, Clone)]
pub struct Jitter {
    state: u64,
}

impl Jitter {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Jitter {
        Jitter { state: seed }
    }

    /// Between three quarters and the whole of `time` (RFC 4271 section 10).
    pub fn shorten(&mut self, time: Duration) -> Duration {
        let quarter = time / 4;
        // 53 bits, as many as a float holds.
        let share = (self.number() >> 11) as f64 / (1u64 << 53) as f64;
        time - quarter.mul_f64(share)
    }

    /// The seed of another, independent sequence.
    pub fn fork(&mut self) -> Jitter {
        Jitter::new(self.number())
    }

    /// The next number of the sequence.
    pub(crate) fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
