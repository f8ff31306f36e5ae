//! A log of records on disk that follows itself: a full file makes way for a new one, the oldest
//! is deleted.
//!
//! A thread of its own writes, so that a slow disk holds nobody up. What it cannot keep pace with
//! is lost and counted, in whole records: a file is good up to its last octet, also when the disk
//! was full in between.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tracing::{info, warn};

use crate::config::MrtConfig;

/// Octets that may wait for the disk.
const MOST_WAITING: usize = 64 << 20;
/// Octets written in one go.
const BATCH: usize = 1 << 20;
/// How often a disk that fails is complained of.
const COMPLAIN: Duration = Duration::from_secs(60);

/// The end that records are put into. Dropping it ends the thread once everything is written.
#[derive(Debug)]
pub(crate) struct Log {
    records: Sender<Bytes>,
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

impl Log {
    /// Opens the file and starts the thread. A file that is there already and not empty becomes
    /// an earlier one: its end may be half a record, if we were killed.
    pub(crate) fn open(config: &MrtConfig) -> io::Result<Log> {
        let files = Files::open(config)?;
        let (records, queue) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            files,
            waiting: waiting.clone(),
            lost: lost.clone(),
            complained: None,
        };
        std::thread::Builder::new()
            .name("mrt-log".to_owned())
            .spawn(move || writer.run(&queue))?;
        Ok(Log {
            records,
            waiting,
            lost,
        })
    }

    /// Hands over whole records. Never waits: where too many wait already, these are lost.
    pub(crate) fn put(&self, records: Bytes) {
        let length = records.len();
        let waiting = self.waiting.fetch_add(length, Ordering::Relaxed);
        if waiting + length > MOST_WAITING || self.records.send(records).is_err() {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
            self.lost.fetch_add(length as u64, Ordering::Relaxed);
        }
    }
}

struct Writer {
    files: Files,
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
    complained: Option<Instant>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Bytes>) {
        let mut batch = BytesMut::new();
        while let Ok(first) = queue.recv() {
            batch.extend_from_slice(&first);
            while batch.len() < BATCH
                && let Ok(more) = queue.try_recv()
            {
                batch.extend_from_slice(&more);
            }
            self.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
            if let Err(error) = self.files.write(&batch) {
                self.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
                self.complain(Some(&error));
            } else if self.lost.load(Ordering::Relaxed) > 0 {
                self.complain(None);
            }
            batch.clear();
        }
    }

    fn complain(&mut self, error: Option<&io::Error>) {
        if self.complained.is_some_and(|at| at.elapsed() < COMPLAIN) {
            return;
        }
        self.complained = Some(Instant::now());
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let file = self.files.path.display();
        match error {
            Some(error) => warn!(%file, %error, lost, "MRT records cannot be written"),
            None => warn!(%file, lost, "MRT records were lost: the disk is too slow"),
        }
    }
}

/// The file and those before it.
struct Files {
    path: PathBuf,
    most: u64,
    keep: u32,
    file: File,
    /// Octets in it, all of them whole records.
    length: u64,
}

impl Files {
    fn open(config: &MrtConfig) -> io::Result<Files> {
        let path = config.updates.clone();
        if fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
            retire(&path, config.keep)?;
        }
        Ok(Files {
            file: create(&path)?,
            path,
            most: config.rotate_octets(),
            keep: config.keep,
            length: 0,
        })
    }

    /// Appends whole records. On error the file is as it was.
    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        if self.length >= self.most {
            retire(&self.path, self.keep)?;
            self.file = create(&self.path)?;
            self.length = 0;
            info!(file = %self.path.display(), "a new MRT file is begun");
        }
        match self.file.write_all(records) {
            Ok(()) => {
                self.length += records.len() as u64;
                Ok(())
            }
            Err(error) => {
                // The file was opened to append, so this is where the next record goes.
                self.file.set_len(self.length)?;
                Err(error)
            }
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|file| file.set_len(0).map(|()| file))
}

/// The name of an earlier file: 1 for the latest.
fn earlier(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Makes the file an earlier one, and each of those one older.
fn retire(path: &Path, keep: u32) -> io::Result<()> {
    let absent_is_fine = |moved: io::Result<()>| match moved {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    if keep == 0 {
        return absent_is_fine(fs::remove_file(path));
    }
    for number in (1..keep).rev() {
        let (from, to) = (earlier(path, number), earlier(path, number + 1));
        absent_is_fine(fs::rename(from, to))?;
    }
    absent_is_fine(fs::rename(path, earlier(path, 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mrt::{Body, Reader, Record, Timestamp};

    fn record(number: u32, size: usize) -> Bytes {
        let body = Body::Other {
            kind: 99,
            subtype: 0,
            octets: vec![0; size].into(),
        };
        let time = Timestamp::seconds(number);
        Record { time, body }.to_bytes().unwrap()
    }

    fn numbers(path: &Path) -> Vec<u32> {
        let file = fs::read(path).unwrap();
        let records = Reader::new(&file[..]).map(|record| record.unwrap().time.seconds);
        records.collect()
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_makes_way_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("u.mrt");
        let config = MrtConfig {
            rotate_mb: 1,
            keep: 2,
            ..MrtConfig::new(path.clone())
        };
        let mut files = Files::open(&config).unwrap();
        for number in 1..=9 {
            files.write(&record(number, 500_000)).unwrap();
        }
        assert_eq!(names(directory.path()), ["u.mrt", "u.mrt.1", "u.mrt.2"]);
        assert_eq!(numbers(&path), [9]);
        assert_eq!(numbers(&earlier(&path, 1)), [7, 8]);
        assert_eq!(numbers(&earlier(&path, 2)), [5, 6]);
    }

    #[test]
    fn without_earlier_files_the_full_one_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("u.mrt");
        let config = MrtConfig {
            rotate_mb: 1,
            keep: 0,
            ..MrtConfig::new(path.clone())
        };
        let mut files = Files::open(&config).unwrap();
        for number in 1..=3 {
            files.write(&record(number, 500_000)).unwrap();
        }
        assert_eq!(names(directory.path()), ["u.mrt"]);
        assert_eq!(numbers(&path), [3]);
    }

    #[test]
    fn what_a_killed_process_left_becomes_an_earlier_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("u.mrt");
        fs::write(&path, &record(1, 50)[..40]).unwrap();
        let log = Log::open(&MrtConfig::new(path.clone())).unwrap();
        log.put(record(2, 50));
        log.put(record(3, 50));
        let waiting = log.waiting.clone();
        drop(log);
        // The thread lets go of its half when all is written.
        while Arc::strong_count(&waiting) > 1 {
            std::thread::yield_now();
        }
        assert_eq!(numbers(&path), [2, 3]);
        assert_eq!(fs::read(earlier(&path, 1)).unwrap().len(), 40);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let config = MrtConfig::new(directory.path().join("none/u.mrt"));
        let error = Log::open(&config).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn too_much_is_lost_and_counted_rather_than_kept() {
        let (records, queue) = channel();
        let log = Log {
            records,
            waiting: Arc::new(AtomicUsize::new(MOST_WAITING - 100)),
            lost: Arc::default(),
        };
        log.put(Bytes::from(vec![0; 100]));
        log.put(Bytes::from(vec![0; 1]));
        assert_eq!(log.lost.load(Ordering::Relaxed), 1);
        assert_eq!(queue.try_iter().count(), 1);
    }
}
