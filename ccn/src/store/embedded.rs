//! The store of a single machine: one crash-safe file, no server.
//!
//! A commit is on disk when it is acknowledged, and is there whole or not at all. Those who watch hear
//! of it when it is decided, while the disk is still waited for; should the disk refuse it, they are
//! told to load again. One process holds the file at a time.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use super::log::{CommitLog, Watch};
use super::{
    Answer, Change, Changed, Commit, Generation, Precondition, Reading, Row, Store, StoreError,
    Stored, Writing,
};

/// Key -> (created, modified, value).
const RECORDS: TableDefinition<&str, (u64, u64, &[u8])> = TableDefinition::new("records");
/// `format` and `generation`.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// The layout of the two tables above.
const FORMAT: u64 = 1;
/// What the file's pages may take in memory, in bytes.
const CACHE: usize = 4 << 20;

/// A store in one file. Clones share it; it closes when the last one is dropped.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    database: Database,
    log: CommitLog,
    /// Held from the begin of a write until the log has it, so that the log is in order.
    writer: Mutex<()>,
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore")
            .field("path", &self.inner.path)
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
        let path = path.as_ref().to_owned();
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        options
            .open(&path)
            .and_then(|file| settle_name(&path, &file))
            .map_err(|error| {
                let (path, detail) = (path.clone(), error.to_string());
                StoreError::Io {
                    path,
                    action: "cannot be opened",
                    detail,
                }
            })?;
        // redb asserts what a damaged file breaks; at this edge that is an answer, not a crash.
        let opened = panic::catch_unwind(|| {
            let database = Database::builder().set_cache_size(CACHE).create(&path);
            let database = database.map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                    StoreError::InUse {
                        path: path.clone(),
                        holder: holder(&path),
                    }
                }
                other => refused(&path, &other.into()),
            })?;
            let generation = prepare(&path, &database)?;
            Ok((database, generation))
        });
        let (database, generation) = opened.unwrap_or_else(|_| {
            let detail = "it contradicts itself".to_owned();
            Err(StoreError::Damaged {
                path: path.clone(),
                detail,
            })
        })?;
        let log = CommitLog::new(generation);
        let inner = Inner {
            path,
            database,
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
            let path = inner.path.clone();
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
        self.blocking("reading", Inner::read)
    }

    fn commit(&self, changes: Vec<Change>, precondition: Precondition) -> Answer<'_, Generation> {
        self.blocking("writing", move |inner| inner.commit(changes, precondition))
    }

    fn watch(&self, after: Generation) -> Answer<'_, Watch> {
        let watch = self.inner.log.watch(after);
        Box::pin(async move { Ok(watch) })
    }
}

/// Has the name of a new file on disk, as its content will be.
fn settle_name(path: &Path, file: &File) -> std::io::Result<()> {
    if file.metadata()?.len() > 0 {
        return Ok(());
    }
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Makes the tables of a new file, checks the format of an old one; the generation it is at.
fn prepare(path: &Path, database: &Database) -> Result<Generation, StoreError> {
    let failed = |error: redb::Error| refused(path, &error);
    let write = database
        .begin_write()
        .map_err(|error| failed(error.into()))?;
    let generation = {
        let mut meta = write
            .open_table(META)
            .map_err(|error| failed(error.into()))?;
        write
            .open_table(RECORDS)
            .map_err(|error| failed(error.into()))?;
        let number = |key| -> Result<Option<u64>, StoreError> {
            let found = meta.get(key).map_err(|error| failed(error.into()))?;
            Ok(found.map(|number| number.value()))
        };
        match (number("format")?, number("generation")?) {
            (Some(FORMAT), Some(generation)) => return Ok(generation),
            (Some(found), _) if found != FORMAT => {
                return Err(StoreError::Format {
                    path: path.to_owned(),
                    found,
                    known: FORMAT,
                });
            }
            _ => {}
        }
        meta.insert("format", FORMAT)
            .map_err(|error| failed(error.into()))?;
        meta.insert("generation", 0)
            .map_err(|error| failed(error.into()))?;
        0
    };
    write.commit().map_err(|error| failed(error.into()))?;
    Ok(generation)
}

impl Inner {
    /// Begins to read everything, and goes on on a thread of its own.
    fn read(&self) -> Result<Reading, StoreError> {
        let failed = |error: redb::Error| self.failed("reading", &error);
        let begin = || -> Result<_, redb::Error> {
            let read = self.database.begin_read()?;
            let meta = read.open_table(META)?;
            let generation = meta.get("generation")?.map_or(0, |number| number.value());
            Ok((generation, read.open_table(RECORDS)?))
        };
        let (generation, records) = begin().map_err(failed)?;
        let (mut writing, reading) = Reading::new(generation);
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || {
            let outcome = each(&records, &mut writing);
            writing.end(outcome.map_err(|error| failure(&path, "reading", &error)));
        });
        Ok(reading)
    }

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
            Err(error) => Err(self.failed("writing", &error)),
        }
    }

    fn try_commit(
        &self,
        changes: Vec<Change>,
        precondition: Precondition,
    ) -> Result<Result<Generation, StoreError>, redb::Error> {
        let write = self.database.begin_write()?;
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

    fn failed(&self, action: &'static str, error: &redb::Error) -> StoreError {
        failure(&self.path, action, error)
    }
}

fn failure(path: &Path, action: &'static str, error: &redb::Error) -> StoreError {
    StoreError::Io {
        path: path.to_owned(),
        action,
        detail: error.to_string(),
    }
}

/// Hands every record on, until nobody takes them any more.
fn each(
    records: &redb::ReadOnlyTable<&'static str, (u64, u64, &'static [u8])>,
    into: &mut Writing,
) -> Result<(), redb::Error> {
    for row in records.iter()? {
        let (key, row) = row?;
        let (created, modified, value) = row.value();
        let row = Row {
            key: key.value(),
            created,
            modified,
            value,
        };
        if !into.push(row) {
            break;
        }
    }
    Ok(())
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

/// What an error while opening means: the system refused, or the file is not what it should be.
fn refused(path: &Path, error: &redb::Error) -> StoreError {
    let (path, detail) = (path.to_owned(), error.to_string());
    let is_content = |kind| matches!(kind, ErrorKind::InvalidData | ErrorKind::UnexpectedEof);
    match error {
        redb::Error::Io(io) if !is_content(io.kind()) => {
            let action = "cannot be opened";
            StoreError::Io {
                path,
                action,
                detail,
            }
        }
        _ => StoreError::Damaged { path, detail },
    }
}

/// Who has the file locked, from the kernel's table of locks; it need not know.
fn holder(path: &Path) -> String {
    let unknown = || "another process".to_owned();
    let (Ok(file), Ok(locks)) = (
        std::fs::metadata(path),
        std::fs::read_to_string("/proc/locks"),
    ) else {
        return unknown();
    };
    let pid = locks.lines().find_map(|line| {
        // `1: FLOCK  ADVISORY  WRITE 4242 fe:01:131 0 EOF`
        let fields: Vec<&str> = line.split_whitespace().collect();
        let inode = fields.get(5)?.rsplit(':').next()?;
        (inode == file.ino().to_string())
            .then(|| fields.get(4)?.parse::<u32>().ok())
            .flatten()
    });
    match pid {
        Some(pid) if pid == std::process::id() => "this process itself".to_owned(),
        Some(pid) => {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} ({})", name.trim())
        }
        None => unknown(),
    }
}

#[cfg(test)]
mod tests;
