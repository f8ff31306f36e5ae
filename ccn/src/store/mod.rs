//! The store: where records live, by key, with a generation that grows with every change.
//!
//! It holds bytes and does not judge them: what a value means, and whether it may stand beside the
//! others, is the business of the records and the inventory.

pub mod embedded;
pub mod etcd;
mod file;
mod log;
mod reading;
mod snapshot;
mod watch;

pub use log::CommitLog;
pub use reading::{Part, Reading, Row, Writing};
pub use snapshot::SnapshotHealth;
pub use watch::{Restored, Watch, WatchEvent};

use std::path::PathBuf;
use std::pin::Pin;
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::record::{Record, RecordKey};

/// A number that grows with every change of the store; 0 is the empty store before any.
pub type Generation = u64;

/// A record as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its key, without the store's root.
    pub key: String,
    /// The generation that first had the key (since it was last deleted).
    pub created: Generation,
    /// The generation that has this value first.
    pub modified: Generation,
    /// JSON, if all is well.
    pub value: Bytes,
}

/// Everything the store held at one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// That generation.
    pub generation: Generation,
    /// Every record, sorted by key.
    pub records: Vec<Stored>,
}

/// What shall become of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key has this value.
    Put {
        /// The key, without the store's root.
        key: String,
        /// Its value.
        value: Bytes,
    },
    /// The key is gone; nothing happens when it was not there.
    Delete {
        /// The key, without the store's root.
        key: String,
    },
}

impl Change {
    /// Puts a record, in its canonical form.
    pub fn put(key: &RecordKey, record: &Record) -> Change {
        Change::Put {
            key: key.to_string(),
            value: record.to_json().into(),
        }
    }

    /// Deletes a record.
    pub fn delete(key: &RecordKey) -> Change {
        Change::Delete {
            key: key.to_string(),
        }
    }

    /// The key that changes.
    pub fn key(&self) -> &str {
        match self {
            Change::Put { key, .. } | Change::Delete { key } => key,
        }
    }
}

/// What must hold for a commit to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    Any,
    /// The store is still at this generation: nothing changed since the caller looked.
    Unchanged(Generation),
}

/// What a commit leaves in the store, so that the same order is carried out once however often it is sent. It is
/// no record, and stays for a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The name of the order: its sender chose it.
    #[serde(skip)]
    pub name: String,
    /// The keys that it changed.
    pub keys: Vec<String>,
}

/// A commit that was made under a mark before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeBefore {
    /// The generation that holds it.
    pub generation: Generation,
    /// The keys that it changed.
    pub keys: Vec<String>,
}

/// What came of [`Store::commit_once`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Once {
    /// It is made now, at this generation.
    Made(Generation),
    /// It was made before; nothing was changed.
    Before(MadeBefore),
}

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// It has a new value.
    Put(Stored),
    /// It is gone.
    Deleted {
        /// The key, without the store's root.
        key: String,
    },
}

impl Changed {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Changed::Put(stored) => &stored.key,
            Changed::Deleted { key } => key,
        }
    }
}

/// All that one generation changed, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The generation that these changes made.
    pub generation: Generation,
    /// At least one.
    pub changes: Vec<Changed>,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the file.
    #[error(
        "the store {} is in use by {holder}: only one agent may hold it; stop that one, \
         talk to it over its admin socket, or set another [store] path", path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// Who holds it, as far as the system says.
        holder: String,
    },
    /// The file is no store of ours, or is damaged.
    #[error(
        "the store {} cannot be read ({detail}): restore it from a copy, or move it away and \
         import the region again", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A later version wrote the file.
    #[error("the store {} has format {found}, this version reads {known}: use a later ccn", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        found: u64,
        /// The format that this version reads and writes.
        known: u64,
    },
    /// The system refused.
    #[error("the store {}: {action}: {detail}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The system's own words.
        detail: String,
    },
    /// No member of the cluster answers, or none that knows a majority.
    #[error(
        "the store cannot be reached ({detail}): nothing can be changed until it is back; if this was a change, \
         look then whether it was made"
    )]
    Away {
        /// What was tried last, and what came of it.
        detail: String,
    },
    /// The cluster answers and refuses.
    #[error("the store refuses: {detail}")]
    Refused {
        /// The cluster's own words.
        detail: String,
    },
    /// The store went back, and nobody has said that this is to be followed.
    #[error(
        "the store is not the one that was seen before: {0}; nothing of it is followed \
         until `ccn store follow`"
    )]
    Restored(Restored),
    /// A commit of more changes than one transaction takes was made in part.
    #[error(
        "only the first {made} of {all} changes were stored, at generation {generation}: {detail}"
    )]
    Partial {
        /// How many were stored.
        made: usize,
        /// How many there were.
        all: usize,
        /// The generation that has them.
        generation: Generation,
        /// Why not more.
        detail: String,
    },
    /// Whoever read the store stopped without a word.
    #[error("reading the store ended before its end")]
    Interrupted,
    /// The precondition of a commit does not hold; nothing was changed.
    #[error("the store has moved on from generation {expected} to {found}: look again and retry")]
    Moved {
        /// The generation that was expected.
        expected: Generation,
        /// The generation it is at.
        found: Generation,
    },
}

impl StoreError {
    /// Whether the same may succeed later, with nothing done about it but at the store.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            StoreError::Away { .. } | StoreError::Refused { .. } | StoreError::Interrupted
        )
    }
}

/// What a store knew when it was last reached.
#[derive(Debug)]
pub struct LastKnown {
    /// All of it.
    pub reading: Reading,
    /// When it was last known to be what the store holds.
    pub taken: SystemTime,
}

/// The future of a store's answer.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store. Cheap to share behind an `Arc`.
pub trait Store: Send + Sync {
    /// Everything, at one generation, as a stream. Errors when the store cannot be read; so may each part.
    fn read(&self) -> Answer<'_, Reading>;

    /// As [`Store::read`], all at once.
    fn load(&self) -> Answer<'_, Snapshot> {
        Box::pin(async move { self.read().await?.snapshot().await })
    }

    /// The record at a key, if there is one; no older than anything that a watch of this store has told before.
    fn get(&self, key: String) -> Answer<'_, Option<Stored>>;

    /// Makes all changes at once, or none. The answer is the generation that holds them, which is
    /// durable; it is the present one when nothing differs from what is there already. What is more than
    /// one transaction takes (in etcd, some 100 changes) is made in several, in order;
    /// [`StoreError::Partial`] says how far it came. Of several changes of one key the last counts.
    ///
    /// Errors with [`StoreError::Moved`] when the precondition does not hold, and when the store
    /// cannot be written; nothing is changed then. Dropping the future does not undo a commit that
    /// has begun.
    fn commit(&self, changes: Vec<Change>, precondition: Precondition) -> Answer<'_, Generation>;

    /// Makes all changes, as fast as the store takes them: in parts, in any order, whatever others do meanwhile. For
    /// loading a region; an error leaves some of them made.
    fn fill(&self, changes: Vec<Change>) -> Answer<'_, Generation> {
        self.commit(changes, Precondition::Any)
    }

    /// As [`Store::commit`] under the precondition that the store is still at `unchanged`, unless a commit with this
    /// mark was made before. A store of one machine keeps no marks: whoever orders knows there what came of it.
    fn commit_once(
        &self,
        changes: Vec<Change>,
        unchanged: Generation,
        _mark: Mark,
    ) -> Answer<'_, Once> {
        Box::pin(async move {
            let generation = self.commit(changes, Precondition::Unchanged(unchanged));
            generation.await.map(Once::Made)
        })
    }

    /// The commit that was made with the mark of this name, if there was one within the last day.
    fn made_before(&self, _name: &str) -> Answer<'_, Option<MadeBefore>> {
        Box::pin(async { Ok(None) })
    }

    /// Every commit after this generation, in order, as soon as it is decided: maybe before it is
    /// durable and [`Store::commit`] has answered. A watcher that has fallen too far behind (or asks
    /// for what the store no longer has), or that was told of a commit which did not become durable,
    /// is told so and loads again.
    fn watch(&self, after: Generation) -> Answer<'_, Watch>;

    /// What the store held when it was last reached, from a local snapshot; none when there is no snapshot,
    /// as of a store that is never away.
    fn last_known(&self) -> Answer<'_, Option<LastKnown>> {
        Box::pin(async { Ok(None) })
    }

    /// From now on the store is taken for what it is now, whatever it was before; for when it was restored
    /// from a backup and somebody says that this is meant.
    fn follow_restored(&self) {}
}
