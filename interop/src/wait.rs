//! Waiting for a condition: asked again and again until it holds or a deadline passes, and then the
//! error says what was last seen. Nothing in the lab sleeps for a guessed time.

use std::error::Error;
use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::enter::Chain;

/// The pause between two questions: short at first, then this at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A condition did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("{what}: not within {:.1} s; last seen: {seen}", .within.as_secs_f64())]
pub struct TimedOut {
    /// The condition, as named by the caller.
    pub what: String,
    /// How long it was given.
    pub within: Duration,
    /// What the last question was answered with.
    pub seen: String,
}

/// Asks `probe` until it answers `Ok`, at least once, and at most `within`.
///
/// # Errors
/// [`TimedOut`], holding the last `Err` of the probe: so let the probe's error say what it saw.
pub fn eventually<T, Seen: Display>(
    what: impl Display,
    within: Duration,
    mut probe: impl FnMut() -> Result<T, Seen>,
) -> Result<T, TimedOut> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(seen) if started.elapsed() >= within => {
                return Err(TimedOut {
                    what: what.to_string(),
                    within,
                    seen: seen.to_string(),
                });
            }
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// [`eventually`], for a question that is answered with what is wrong, or nothing.
///
/// # Errors
/// As there.
pub fn becomes(
    what: impl Display,
    within: Duration,
    mut wrong: impl FnMut() -> Result<Option<String>, Box<dyn Error + Send + Sync>>,
) -> Result<(), TimedOut> {
    eventually(what, within, || match wrong() {
        Ok(None) => Ok(()),
        Ok(Some(wrong)) => Err(wrong),
        Err(error) => Err(Chain(error.as_ref()).to_string()),
    })
}
