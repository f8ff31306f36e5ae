//! What becomes of a store, as those hear it who watch.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::log::LogWatch;
use super::{Commit, Generation};

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// The next commit.
    Commit(Arc<Commit>),
    /// Commits were missed: read the store and watch from the generation that gives.
    Lagged,
    /// The store cannot be reached, for this reason: nothing is heard of its changes.
    Away(String),
    /// The store is there again; what was missed follows, or [`WatchEvent::Lagged`] does.
    Back,
    /// The store is not the one that was watched: nothing more comes.
    Restored(Restored),
}

/// A store that went back, or is another one: most likely it was restored from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The newest generation that was seen before.
    pub seen: Generation,
    /// The generation that it is at now.
    pub found: Generation,
    /// The cluster has another id than the one that was seen before.
    pub other_cluster: bool,
}

impl std::fmt::Display for Restored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Restored { seen, found, .. } = self;
        let which = match self.other_cluster {
            true => "is another cluster",
            false => "went back",
        };
        write!(
            f,
            "it {which} (generation {found}, {seen} was seen before), as after a backup was restored"
        )
    }
}

/// Follows what becomes of a store.
#[derive(Debug)]
pub struct Watch(Source);

#[derive(Debug)]
enum Source {
    Log(LogWatch),
    Told(mpsc::Receiver<WatchEvent>),
}

impl Watch {
    /// The next event; `None` when the store is closed. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        match &mut self.0 {
            Source::Log(log) => log.next().await,
            Source::Told(events) => events.recv().await,
        }
    }
}

impl From<LogWatch> for Watch {
    fn from(log: LogWatch) -> Self {
        Watch(Source::Log(log))
    }
}

impl From<mpsc::Receiver<WatchEvent>> for Watch {
    fn from(events: mpsc::Receiver<WatchEvent>) -> Self {
        Watch(Source::Told(events))
    }
}
