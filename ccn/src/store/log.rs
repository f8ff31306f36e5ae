//! The last commits, kept in memory for those who watch.
//!
//! It is bounded: a watcher that is slower than the bound is told [`WatchEvent::Lagged`] and must
//! load the store again. It never holds a writer up and never loses a commit silently.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::{Commit, Generation};

/// The most commits that are kept.
const MAX_COMMITS: usize = 4096;
/// The most changes that are kept, over all commits.
const MAX_CHANGES: usize = 1 << 17;

/// The tail of the store's history.
#[derive(Debug)]
pub struct CommitLog {
    tail: Arc<Mutex<Tail>>,
    latest: watch::Sender<Generation>,
}

#[derive(Debug)]
struct Tail {
    /// The generation before the oldest commit here.
    before: Generation,
    commits: VecDeque<Arc<Commit>>,
    changes: usize,
}

impl CommitLog {
    /// A log that begins after `generation`.
    pub fn new(generation: Generation) -> Self {
        let tail = Tail {
            before: generation,
            commits: VecDeque::new(),
            changes: 0,
        };
        CommitLog {
            tail: Arc::new(Mutex::new(tail)),
            latest: watch::Sender::new(generation),
        }
    }

    /// Adds a commit. Commits come in the order of their generations.
    pub fn append(&self, commit: Commit) {
        let generation = commit.generation;
        {
            // Nothing in here leaves the tail half changed.
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
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
        self.latest.send_replace(generation);
    }

    /// Watches from after `generation` on.
    pub fn watch(&self, after: Generation) -> Watch {
        Watch {
            tail: self.tail.clone(),
            latest: self.latest.subscribe(),
            seen: after,
        }
    }
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// The next commit.
    Commit(Arc<Commit>),
    /// Commits were missed: load the store and watch from the generation that gives.
    Lagged,
}

/// Follows a store's commits.
#[derive(Debug)]
pub struct Watch {
    tail: Arc<Mutex<Tail>>,
    latest: watch::Receiver<Generation>,
    seen: Generation,
}

impl Watch {
    /// The next event; `None` when the store is closed. Nothing is lost when the future is dropped.
    ///
    /// After [`WatchEvent::Lagged`] the watch goes on from the present.
    pub async fn next(&mut self) -> Option<WatchEvent> {
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

    fn take(&mut self, latest: Generation) -> WatchEvent {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let next = tail
            .commits
            .partition_point(|commit| commit.generation <= self.seen);
        match tail.commits.get(next) {
            Some(commit) if self.seen >= tail.before => {
                self.seen = commit.generation;
                WatchEvent::Commit(commit.clone())
            }
            // Too old, or of the future: then it is from another history, before a restore.
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
    async fn a_commit_too_big_to_keep_makes_watchers_load() {
        let log = CommitLog::new(0);
        let mut watch = log.watch(0);
        log.append(commit(1, MAX_CHANGES + 1));
        assert_eq!(next(&mut watch).await, None);
        drop(log);
        assert_eq!(watch.next().await, None);
    }
}
