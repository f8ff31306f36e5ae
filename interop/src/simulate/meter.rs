//! What the real code costs: CPU time of this thread, and memory of this process. None of it is part of a result
//! that a seed gives.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// A change of a VM: inventory, plan, order of change.
    Vm,
    /// The same of a link.
    Link,
    /// What another gateway says of itself.
    Registration,
    /// What the plane says of a batch.
    Done,
    /// A record of a whole reading parsed and taken over, with all that settles it.
    Load,
    /// The list for the plane to compare with, by VM.
    List,
}

/// CPU time by what it was for.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(BTreeMap<Work, (u64, Duration)>);

impl Meter {
    /// CPU time of this thread so far.
    pub(super) fn now() -> Duration {
        let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
        time.map(Duration::from).unwrap_or_default()
    }

    /// So many of these were done since then.
    pub(super) fn add(&mut self, work: Work, units: u64, since: Duration) {
        let (count, took) = self.0.entry(work).or_default();
        *count += units;
        *took += Meter::now().saturating_sub(since);
    }

    /// Nanoseconds for each; nothing where none was done.
    pub(super) fn each(&self, work: Work) -> f64 {
        match self.0.get(&work) {
            Some((count, took)) if *count > 0 => took.as_nanos() as f64 / *count as f64,
            _ => 0.0,
        }
    }

    /// Forgets the changes, not the loads.
    pub(super) fn reset(&mut self) {
        self.0
            .retain(|work, _| matches!(work, Work::Load | Work::List));
    }
}

/// Octets of memory that this process has in use, as its allocator counts them.
#[cfg(target_env = "gnu")]
pub(super) fn in_use() -> u64 {
    // SAFETY: it reads counters of the allocator.
    let info = unsafe { nix::libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as u64
}

/// Not known of this allocator.
#[cfg(not(target_env = "gnu"))]
pub(super) fn in_use() -> u64 {
    0
}
