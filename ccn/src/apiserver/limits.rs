//! How many requests a caller may send: a bucket of tokens each. Takes the time, keeps no clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::config::RequestLimits;

/// The most callers that are remembered; those that are known by configuration are fewer.
const CALLERS: usize = 4096;

/// The buckets.
#[derive(Debug)]
pub(super) struct Buckets {
    rate: f64,
    burst: f64,
    buckets: HashMap<String, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Buckets {
    pub(super) fn new(limits: &RequestLimits) -> Self {
        Buckets {
            rate: f64::from(limits.rate),
            burst: f64::from(limits.burst),
            buckets: HashMap::new(),
        }
    }

    /// Lets one request of a caller pass, or says after what time the next one may.
    pub(super) fn take(&mut self, caller: &str, now: Instant) -> Result<(), Duration> {
        let (rate, burst) = (self.rate, self.burst);
        if self.buckets.len() >= CALLERS && !self.buckets.contains_key(caller) {
            // Whoever was silent for long enough has a full bucket again without being remembered.
            let full = Duration::from_secs_f64(burst / rate);
            self.buckets
                .retain(|_, bucket| now.saturating_duration_since(bucket.at) < full);
        }
        let fresh = Bucket {
            tokens: burst,
            at: now,
        };
        let bucket = self.buckets.entry(caller.to_owned()).or_insert(fresh);
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * rate).min(burst);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / rate));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_and_others_are_not_touched() {
        let limits = RequestLimits {
            rate: 10,
            burst: 3,
            ..RequestLimits::default()
        };
        let mut buckets = Buckets::new(&limits);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for (caller, ms, passes) in [
            ("a", 0, true),
            ("a", 0, true),
            ("a", 0, true),
            ("a", 0, false),
            ("b", 0, true),
            ("a", 50, false),
            ("a", 100, true),
            ("a", 100, false),
            ("a", 10_000, true),
            ("a", 10_000, true),
            ("a", 10_000, true),
            ("a", 10_000, false),
        ] {
            assert_eq!(
                buckets.take(caller, at(ms)).is_ok(),
                passes,
                "{caller} at {ms}"
            );
        }
        let wait = buckets.take("a", at(10_000)).unwrap_err();
        assert!((90..=100).contains(&wait.as_millis()), "{wait:?}");
    }
}
