//! How long each part of a start takes: what the log and `ccn status` say of it.
//!
//! It is told when a part is done, and by when; it looks at no clock and decides nothing.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

/// A part of a start.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Phase {
    /// Its name, for example `read`.
    pub phase: &'static str,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// How much there was.
    pub count: u64,
    /// Of what, for example `records`.
    pub of: &'static str,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Phase {
            phase,
            seconds,
            count,
            of,
        } = self;
        write!(f, "{phase} {seconds:.3} s ({count} {of})")
    }
}

/// The parts of a start so far, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Startup {
    began: Instant,
    last: Instant,
    phases: Vec<Phase>,
    took: Option<Duration>,
}

impl Startup {
    /// A start that begins now.
    #[must_use]
    pub fn new(now: Instant) -> Startup {
        Startup {
            began: now,
            last: now,
            phases: Vec::new(),
            took: None,
        }
    }

    /// The part that began when the one before ended is done. `count` of what it dealt with.
    pub fn done(
        &mut self,
        phase: &'static str,
        count: usize,
        of: &'static str,
        now: Instant,
    ) -> &Phase {
        let at = self.phases.len();
        self.phases.push(Phase {
            phase,
            seconds: now.duration_since(self.last).as_secs_f64(),
            count: count as u64,
            of,
        });
        self.last = now;
        &self.phases[at]
    }

    /// All parts are done; the time that all of it took.
    pub fn complete(&mut self, now: Instant) -> Duration {
        let took = now.duration_since(self.began);
        *self.took.insert(took)
    }

    /// What is done, in order.
    #[must_use]
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// How long all of it took; none while it goes on.
    #[must_use]
    pub fn took(&self) -> Option<Duration> {
        self.took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_lasts_from_the_end_of_the_one_before() {
        let began = Instant::now();
        let after = |ms| began + Duration::from_millis(ms);
        let mut startup = Startup::new(began);
        let read = startup.done("read", 3, "records", after(1500));
        assert_eq!(read.to_string(), "read 1.500 s (3 records)");
        startup.done("plan", 2, "entries", after(1750));
        assert_eq!(startup.took(), None);
        assert_eq!(startup.complete(after(2000)), Duration::from_secs(2));
        let seconds: Vec<f64> = startup.phases().iter().map(|phase| phase.seconds).collect();
        assert_eq!(seconds, [1.5, 0.25]);
        assert_eq!(startup.took(), Some(Duration::from_secs(2)));
    }
}
