//! The last commits, kept in memory for those who watch.
//!
//! It is bounded: a watcher that is slower than the bound is told [`WatchEvent::Lagged`] and must
//! load the store again. It never holds a writer up and never loses a commit silently.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Commit, Generation, Watch, WatchEvent};

/// The most commits that are kept.
const MAX_COMMITS: usize = 4096;
/// The most changes that are kept, over all commits.
const MAX_CHANGES: usize = 1 << 15;

/// The tail of the store's history.
#[derive(Debug)]
pub struct CommitLog {
    tail: Arc<Mutex<Tail>>,
    latest: watch::Sender<Place>,
}

/// A place in the store's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// How many commits were recalled before: those who saw one of them know something else.
    recalls: u64,
    generation: Generation,
}

#[derive(Debug)]
struct Tail {
    /// The generation before the oldest commit here.
    before: Generation,
    commits: VecDeque<Arc<Commit>>,
    changes: usize,
    /// The newest generation that was ever here, recalled or not.
    newest: Generation,
}

impl CommitLog {
    /// A log that begins after `generation`.
    pub fn new(generation: Generation) -> Self {
        let tail = Tail {
            before: generation,
            commits: VecDeque::new(),
            changes: 0,
            newest: generation,
        };
        let place = Place {
            recalls: 0,
            generation,
        };
        CommitLog {
            tail: Arc::new(Mutex::new(tail)),
            latest: watch::Sender::new(place),
        }
    }

    /// The generation of the next commit: no generation is given twice, recalled or not.
    pub fn next_generation(&self) -> Generation {
        self.tail().newest + 1
    }

    /// Adds a commit. Commits come in the order of their generations.
    pub fn append(&self, commit: Commit) {
        let generation = commit.generation;
        {
            let mut tail = self.tail();
            tail.newest = generation;
            tail.changes += commit.changes.len();
            tail.commits.push_back(Arc::new(commit));
            while tail.commits.len() > MAX_COMMITS || tail.changes > MAX_CHANGES {
                let Some(oldest) = tail.commits.pop_front() else {
                    break;
                };
                tail.before = oldest.generation;
                tail.changes -= oldest.changes.len();
            }
        }
        self.latest
            .send_modify(|place| place.generation = generation);
    }

    /// Takes back all after `generation`, which is where the store still is. Everybody who watches
    /// is told [`WatchEvent::Lagged`].
    pub fn recall(&self, generation: Generation) {
        {
            let mut tail = self.tail();
            tail.commits.clear();
            tail.changes = 0;
            tail.before = generation;
        }
        self.latest.send_modify(|place| {
            place.recalls += 1;
            place.generation = generation;
        });
    }

    /// Watches from after `generation` on.
    pub fn watch(&self, after: Generation) -> Watch {
        let watch = LogWatch {
            tail: self.tail.clone(),
            latest: self.latest.subscribe(),
            seen: Place {
                recalls: self.latest.borrow().recalls,
                generation: after,
            },
        };
        watch.into()
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        // Nothing leaves the tail half changed.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the log.
#[derive(Debug)]
pub(super) struct LogWatch {
    tail: Arc<Mutex<Tail>>,
    latest: watch::Receiver<Place>,
    seen: Place,
}

impl LogWatch {
    /// As [`Watch::next`].
    pub(super) async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            let latest = *self.latest.borrow_and_update();
            if latest != self.seen {
                return Some(self.take(latest));
            }
            if self.latest.changed().await.is_err() {
                return None;
            }
        }
    }

    fn take(&mut self, latest: Place) -> WatchEvent {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let next = tail
            .commits
            .partition_point(|commit| commit.generation <= self.seen.generation);
        match tail.commits.get(next) {
            Some(commit)
                if self.seen.recalls == latest.recalls && self.seen.generation >= tail.before =>
            {
                self.seen.generation = commit.generation;
                WatchEvent::Commit(commit.clone())
            }
            // Too old, of the future (from before a restore), or recalled.
            _ => {
                self.seen = latest;
                WatchEvent::Lagged
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Changed;

    fn commit(generation: Generation, changes: usize) -> Commit {
        let gone = |n| Changed::Deleted {
            key: format!("vpcs/v{n}"),
        };
        Commit {
            generation,
            changes: (0..changes).map(gone).collect(),
        }
    }

    async fn next(watch: &mut Watch) -> Option<Generation> {
        match watch.next().await.expect("the log is open") {
            WatchEvent::Commit(commit) => Some(commit.generation),
            WatchEvent::Lagged => None,
            other => panic!("a log does not say {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_watch_sees_every_commit_in_order() {
        let log = CommitLog::new(4);
        let mut early = log.watch(4);
        for generation in 5..=7 {
            log.append(commit(generation, 1));
        }
        let mut late = log.watch(5);
        assert_eq!(next(&mut early).await, Some(5));
        assert_eq!(next(&mut early).await, Some(6));
        assert_eq!(next(&mut late).await, Some(6));
        assert_eq!(next(&mut early).await, Some(7));
        let waiting = tokio::spawn(async move { next(&mut early).await });
        tokio::task::yield_now().await;
        log.append(commit(8, 1));
        assert_eq!(waiting.await.unwrap(), Some(8));
    }

    #[tokio::test]
    async fn what_the_log_no_longer_has_is_said() {
        let log = CommitLog::new(10);
        let mut stale = log.watch(9);
        assert_eq!(next(&mut stale).await, None, "the log began after 10");
        let mut ahead = log.watch(11);
        assert_eq!(next(&mut ahead).await, None, "a generation that never was");
        let mut slow = log.watch(10);
        for generation in 11..=(11 + MAX_COMMITS as u64) {
            log.append(commit(generation, 1));
        }
        assert_eq!(next(&mut slow).await, None);
        log.append(commit(99_999, 2));
        assert_eq!(next(&mut slow).await, Some(99_999), "then it goes on");
    }

    #[tokio::test]
    async fn a_recalled_commit_makes_all_watchers_load() {
        let log = CommitLog::new(4);
        let (mut quick, mut slow) = (log.watch(4), log.watch(4));
        log.append(commit(5, 1));
        assert_eq!(next(&mut quick).await, Some(5));
        log.recall(4);
        // Another one takes its place before anybody has looked.
        assert_eq!(log.next_generation(), 6);
        log.append(commit(6, 1));
        for watch in [&mut quick, &mut slow] {
            assert_eq!(next(watch).await, None);
        }
        let mut again = log.watch(4);
        assert_eq!(next(&mut again).await, Some(6));
        log.append(commit(7, 1));
        assert_eq!(next(&mut quick).await, Some(7), "then it goes on");
    }

    #[tokio::test]
    async fn a_commit_too_big_to_keep_makes_watchers_load() {
        let log = CommitLog::new(0);
        let mut watch = log.watch(0);
        log.append(commit(1, MAX_CHANGES + 1));
        assert_eq!(next(&mut watch).await, None);
        drop(log);
        assert_eq!(watch.next().await, None);
    }
}
