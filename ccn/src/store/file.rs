//! A file of records: what the embedded store is, and the local snapshot of another one.
//!
//! One crash-safe file with its format's number in it. What is written is there whole or not at all; a file
//! that is damaged or of a later format is refused and never changed. One process holds it at a time.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::{self, UnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use redb::{
    Database, DatabaseError, Range, ReadTransaction, ReadableDatabase, ReadableTable,
    TableDefinition, WriteTransaction,
};

use super::{Generation, Row, StoreError, Stored, Writing};

/// Key -> (created, modified, value).
pub(super) const RECORDS: TableDefinition<&str, (u64, u64, &[u8])> =
    TableDefinition::new("records");
/// `format` and `generation`.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// The layout of the two tables above.
pub(super) const FORMAT: u64 = 1;
/// What the file's pages may take in memory, in bytes.
const CACHE: usize = 4 << 20;

/// Records by key, and numbers by name.
pub(super) struct RecordFile {
    pub(super) path: PathBuf,
    /// None after the system refused something: a full disk, for example. What redb has open then is good for nothing
    /// any more, so it is opened again when it is wanted.
    database: RwLock<Option<Database>>,
}

impl RecordFile {
    /// Opens the file, or makes it (mode 0600) when there is none; the generation it is at. Blocks: after
    /// a crash the file is repaired first.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process holds it, [`StoreError::Damaged`],
    /// [`StoreError::Format`], or [`StoreError::Io`].
    pub(super) fn open(path: &Path) -> Result<(RecordFile, Generation), StoreError> {
        let path = path.to_owned();
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
        let opened = answered(|| {
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
        let (database, generation) = opened.unwrap_or_else(|detail| {
            Err(StoreError::Damaged {
                path: path.clone(),
                detail,
            })
        })?;
        let database = RwLock::new(Some(database));
        Ok((RecordFile { path, database }, generation))
    }

    /// Begins to read what is there now.
    pub(super) fn begin_read(&self) -> Result<ReadTransaction, redb::Error> {
        self.begin(|database| Ok(database.begin_read()?))
    }

    /// Begins to write, when nobody else does.
    pub(super) fn begin_write(&self) -> Result<WriteTransaction, redb::Error> {
        self.begin(|database| Ok(database.begin_write()?))
    }

    fn begin<T>(
        &self,
        begin: impl Fn(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let database = self.database.read();
        if let Some(database) = &*database.unwrap_or_else(PoisonError::into_inner) {
            return begin(database);
        }
        let database = self.database.write();
        let mut database = database.unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*database {
            return begin(database);
        }
        let open = || Database::builder().set_cache_size(CACHE).open(&self.path);
        let again = answered(open).map_err(redb::Error::Corrupted)?;
        begin(database.insert(again?))
    }

    /// All records, as they are now.
    pub(super) fn read(&self) -> Result<Rows, StoreError> {
        let rows = || -> Result<Rows, redb::Error> {
            let read = self.begin_read()?;
            let meta = read.open_table(META)?;
            let generation = meta.get("generation")?.map_or(0, |number| number.value());
            let rows = read.open_table(RECORDS)?.range::<&str>(..)?;
            Ok(Rows {
                path: self.path.clone(),
                generation,
                rows,
            })
        };
        rows().map_err(|error| self.failed("reading", &error))
    }

    /// The record at a key, as it is now.
    pub(super) fn get(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        let get = || -> Result<Option<Stored>, redb::Error> {
            let records = self.begin_read()?.open_table(RECORDS)?;
            let row = records.get(key)?;
            Ok(row.map(|row| {
                let (created, modified, value) = row.value();
                Stored {
                    key: key.to_owned(),
                    created,
                    modified,
                    value: Bytes::copy_from_slice(value),
                }
            }))
        };
        get().map_err(|error| self.failed("reading", &error))
    }

    /// What an error means, which is dealt with.
    pub(super) fn failed(&self, action: &'static str, error: &redb::Error) -> StoreError {
        self.give_up_after(error);
        failed(&self.path, action, error)
    }

    /// Gives up what is open where an error says that it is good for nothing any more.
    pub(super) fn give_up_after(&self, error: &redb::Error) {
        if let redb::Error::Io(_) | redb::Error::PreviousIo = error {
            let database = self.database.write();
            *database.unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// redb asserts what a damaged file breaks; at this edge that is an answer, not a crash.
fn answered<T>(open: impl FnOnce() -> T + UnwindSafe) -> Result<T, String> {
    panic::catch_unwind(open).map_err(|_| "it contradicts itself".to_owned())
}

fn failed(path: &Path, action: &'static str, error: &redb::Error) -> StoreError {
    StoreError::Io {
        path: path.to_owned(),
        action,
        detail: error.to_string(),
    }
}

/// The records of a file at one moment, read bit by bit.
pub(super) struct Rows {
    path: PathBuf,
    pub(super) generation: Generation,
    rows: Range<'static, &'static str, (u64, u64, &'static [u8])>,
}

impl Rows {
    /// Hands all of them over. Blocks.
    pub(super) fn pour(self, mut into: Writing) {
        let path = self.path;
        for row in self.rows {
            let (key, row) = match row {
                Ok(row) => row,
                Err(error) => return into.end(Err(failed(&path, "reading", &error.into()))),
            };
            let (created, modified, value) = row.value();
            let row = Row {
                key: key.value(),
                created,
                modified,
                value,
            };
            if !into.push(row) {
                return;
            }
        }
        into.end(Ok(()));
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
