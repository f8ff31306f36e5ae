//! The store of a single machine: one crash-safe file, no server.
//!
//! A commit is on disk when it is acknowledged, and is there whole or not at all. Those who watch hear
//! of it when it is decided, while the disk is still waited for; should the disk refuse it, they are
//! told to load again. One process holds the file at a time.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use redb::ReadableTable;

use super::file::{META, RECORDS, RecordFile};
use super::log::CommitLog;
use super::{
    Answer, Change, Changed, Commit, Generation, Precondition, Reading, Store, StoreError, Stored,
    Watch,
};

/// A store in one file. Clones share it; it closes when the last one is dropped.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

struct Inner {
    file: RecordFile,
    log: CommitLog,
    /// Held from the begin of a write until the log has it, so that the log is in order.
    writer: Mutex<()>,
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore")
            .field("path", &self.inner.file.path)
            .finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the file, or makes it (mode 0600) when there is none. Blocks: after a crash the file is
    /// repaired first.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process holds it, [`StoreError::Damaged`],
    /// [`StoreError::Format`], or [`StoreError::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<EmbeddedStore, StoreError> {
        let (file, generation) = RecordFile::open(path.as_ref())?;
        let log = CommitLog::new(generation);
        let inner = Inner {
            file,
            log,
            writer: Mutex::new(()),
        };
        Ok(EmbeddedStore {
            inner: Arc::new(inner),
        })
    }

    /// Runs work that waits for the disk where waiting is allowed.
    fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let path = inner.file.path.clone();
            let done = tokio::task::spawn_blocking(move || work(&inner)).await;
            done.unwrap_or_else(|error| {
                Err(StoreError::Io {
                    path,
                    action,
                    detail: error.to_string(),
                })
            })
        })
    }
}

impl Store for EmbeddedStore {
    fn read(&self) -> Answer<'_, Reading> {
        Box::pin(async move {
            let rows = self.blocking("reading", |inner| inner.file.read()).await?;
            let generation = rows.generation;
            let (writing, reading) = Reading::new(generation);
            tokio::task::spawn_blocking(move || rows.pour(writing));
            Ok(reading)
        })
    }

    fn get(&self, key: String) -> Answer<'_, Option<Stored>> {
        self.blocking("reading", move |inner| {
            // What was told of and is not on disk yet is waited for.
            let _writer = inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
            inner.file.get(&key)
        })
    }

    fn commit(&self, changes: Vec<Change>, precondition: Precondition) -> Answer<'_, Generation> {
        self.blocking("writing", move |inner| inner.commit(changes, precondition))
    }

    fn watch(&self, after: Generation) -> Answer<'_, Watch> {
        let watch = self.inner.log.watch(after);
        Box::pin(async move { Ok(watch) })
    }
}

impl Inner {
    fn commit(
        &self,
        changes: Vec<Change>,
        precondition: Precondition,
    ) -> Result<Generation, StoreError> {
        // A writer that panicked left no transaction behind: redb drops it.
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match self.try_commit(changes, precondition) {
            Ok(Ok(generation)) => Ok(generation),
            Ok(Err(found)) => Err(found),
            Err(error) => Err(self.file.failed("writing", &error)),
        }
    }

    fn try_commit(
        &self,
        changes: Vec<Change>,
        precondition: Precondition,
    ) -> Result<Result<Generation, StoreError>, redb::Error> {
        let write = self.file.begin_write()?;
        let (before, generation, made) = {
            let mut meta = write.open_table(META)?;
            let mut records = write.open_table(RECORDS)?;
            let found = meta.get("generation")?.map_or(0, |number| number.value());
            if let Precondition::Unchanged(expected) = precondition
                && expected != found
            {
                return Ok(Err(StoreError::Moved { expected, found }));
            }
            let generation = self.log.next_generation();
            let made = apply(&mut records, changes, generation)?;
            if made.is_empty() {
                return Ok(Ok(found));
            }
            meta.insert("generation", generation)?;
            (found, generation, made)
        };
        // Who watches can act on it while the disk is waited for.
        self.log.append(Commit {
            generation,
            changes: made,
        });
        let told = Told {
            log: &self.log,
            before,
        };
        write.commit()?;
        std::mem::forget(told);
        Ok(Ok(generation))
    }
}

/// A commit that was told of and is not on disk. It is recalled unless this is forgotten.
struct Told<'a> {
    log: &'a CommitLog,
    /// The generation that the store stays at.
    before: Generation,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.log.recall(self.before);
    }
}

/// Makes the changes; those that changed something.
fn apply(
    records: &mut redb::Table<'_, &'static str, (u64, u64, &'static [u8])>,
    changes: Vec<Change>,
    generation: Generation,
) -> Result<Vec<Changed>, redb::Error> {
    let mut made = Vec::with_capacity(changes.len());
    for change in changes {
        match change {
            Change::Delete { key } => {
                if records.remove(key.as_str())?.is_some() {
                    made.push(Changed::Deleted { key });
                }
            }
            Change::Put { key, value } => {
                let created = match records.get(key.as_str())? {
                    None => generation,
                    Some(row) => {
                        let (created, _, old) = row.value();
                        if old == value.as_ref() {
                            continue;
                        }
                        created
                    }
                };
                records.insert(key.as_str(), (created, generation, value.as_ref()))?;
                made.push(Changed::Put(Stored {
                    key,
                    created,
                    modified: generation,
                    value,
                }));
            }
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests;
