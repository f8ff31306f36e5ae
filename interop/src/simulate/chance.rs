//! Chance out of a seed: one seed, one sequence, and so one run.

use std::time::Duration;

/// A small deterministic generator (SplitMix64). Not for secrets.
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let n = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    /// From 0 to `bound - 1`; 0 where there is nothing to choose from.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound.max(1)
    }

    /// A place in a list of this length.
    pub(super) fn place(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A time between nothing and this.
    pub(super) fn within(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.below(most.as_micros() as u64 + 1))
    }

    /// The time until the next of things that happen independently of one another, this long apart on average.
    pub(super) fn apart(&mut self, mean: Duration) -> Duration {
        let share = (self.below(1 << 32) + 1) as f64 / (1u64 << 32) as f64;
        mean.mul_f64(-share.ln())
    }
}
