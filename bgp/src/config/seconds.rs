//! Durations as a configuration writes them: a number of seconds, whole or not.

use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer};

// Long enough for anybody, short enough that arithmetic on instants never overflows.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// A duration written as a number of seconds, whole or not.
pub(super) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| *duration <= MAX_PAUSE)
        .ok_or_else(|| {
            de::Error::custom(format!(
                "{seconds} is no number of seconds in 0..={}",
                MAX_PAUSE.as_secs()
            ))
        })
}

pub(super) fn maybe_seconds<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    seconds(deserializer).map(Some)
}
