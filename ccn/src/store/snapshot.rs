//! The local snapshot of a store that may be away: a file that is kept as the store is.
//!
//! It is written by a thread of its own, behind what is heard of the store, and never holds that up for long.
//! Whole readings replace it by differences, commits are added to it. When it cannot be written it stays as it
//! was, says so, and wants a whole reading again.

use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use redb::{ReadableTable, WriteTransaction};
use tokio::sync::mpsc;
use tracing::warn;

use super::etcd::{Fence, Place};
use super::file::{META, RECORDS, RecordFile, Rows};
use super::{Changed, Commit, Generation, Part, StoreError};

/// How many orders may wait for the disk: a part has a megabyte or so.
const WAITING: usize = 256;

/// How the snapshot is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotHealth {
    /// The generation that it holds, once it holds all of one.
    pub generation: Option<Generation>,
    /// Why it is not kept any more; a whole reading mends it.
    pub error: Option<String>,
}

/// A file that holds what the store held.
#[derive(Debug, Clone)]
pub(super) struct LocalSnapshot {
    orders: mpsc::Sender<Order>,
    health: Arc<Mutex<SnapshotHealth>>,
}

/// What a snapshot had when it was opened.
pub(super) struct Kept {
    pub(super) place: Place,
    pub(super) taken: SystemTime,
    pub(super) rows: Rows,
}

#[derive(Debug)]
enum Order {
    Begin(Place),
    Part(Part),
    Finish,
    Abandon,
    Commit(Place, Arc<Commit>),
    Current(Place),
}

impl LocalSnapshot {
    /// Opens the file or makes it, and says what was kept in it, if anything. Blocks.
    ///
    /// # Errors
    /// As [`RecordFile::open`]; or the system gives no thread.
    pub(super) fn open(path: &Path) -> Result<(LocalSnapshot, Option<Kept>), StoreError> {
        let (file, generation) = RecordFile::open(path)?;
        let kept = kept(&file, generation)?;
        let health = Arc::new(Mutex::new(SnapshotHealth {
            generation: kept.as_ref().map(|kept| kept.place.revision),
            error: None,
        }));
        let (orders, waiting) = mpsc::channel(WAITING);
        let writer = Writer {
            at: kept.as_ref().map(|kept| kept.place),
            file,
            health: health.clone(),
        };
        let thread = std::thread::Builder::new().name("ccn-snapshot".to_owned());
        thread
            .spawn(move || writer.run(waiting))
            .map_err(|error| StoreError::Io {
                path: path.to_owned(),
                action: "no thread to write it",
                detail: error.to_string(),
            })?;
        Ok((LocalSnapshot { orders, health }, kept))
    }

    /// How it is doing.
    pub(super) fn health(&self) -> SnapshotHealth {
        locked(&self.health).clone()
    }

    /// A whole reading of the store at this place begins; its parts follow, then [`LocalSnapshot::finish`]. One
    /// at a time.
    pub(super) async fn begin(&self, place: Place) {
        self.order(Order::Begin(place)).await;
    }

    /// The next records of the reading, by key.
    pub(super) async fn part(&self, records: Part) {
        self.order(Order::Part(records)).await;
    }

    /// That was all.
    pub(super) async fn finish(&self) {
        self.order(Order::Finish).await;
    }

    /// The reading came to no end; the file stays as it was.
    pub(super) async fn abandon(&self) {
        self.order(Order::Abandon).await;
    }

    /// What changed at this place.
    pub(super) async fn commit(&self, place: Place, commit: Arc<Commit>) {
        self.order(Order::Commit(place, commit)).await;
    }

    /// Nothing changed up to this place, and it is now.
    pub(super) async fn current(&self, place: Place) {
        self.order(Order::Current(place)).await;
    }

    async fn order(&self, order: Order) {
        // A thread that is gone has said why.
        let _ = self.orders.send(order).await;
    }
}

/// Lets this thread have what others leave of a processor: a start is not to wait for what only the next one reads.
fn give_way() {
    const NICE: nix::libc::c_int = 10;
    // SAFETY: it takes numbers only. On Linux process 0 is the calling thread, and to be nicer takes no right; if it
    // fails all the same, nothing is lost but time.
    unsafe { nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, NICE) };
}

fn locked(health: &Mutex<SnapshotHealth>) -> MutexGuard<'_, SnapshotHealth> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kept(file: &RecordFile, revision: Generation) -> Result<Option<Kept>, StoreError> {
    let numbers = || -> Result<_, redb::Error> {
        let read = file.begin_read()?;
        let meta = read.open_table(META)?;
        let number = |name| -> Result<Option<u64>, redb::Error> {
            Ok(meta.get(name)?.map(|number| number.value()))
        };
        let fence = (number("fence_revision")?, number("fence_mark")?);
        Ok((number("cluster")?, number("term")?, number("taken")?, fence))
    };
    let numbers = numbers().map_err(|error| file.failed("reading", &error))?;
    let (Some(cluster), Some(term), Some(taken), fence) = numbers else {
        return Ok(None);
    };
    Ok(Some(Kept {
        place: Place {
            cluster,
            term,
            revision,
            fence: match fence {
                (Some(revision), Some(mark)) => Some(Fence { revision, mark }),
                _ => None,
            },
        },
        taken: SystemTime::UNIX_EPOCH + Duration::from_secs(taken),
        rows: file.read()?,
    }))
}

struct Writer {
    file: RecordFile,
    health: Arc<Mutex<SnapshotHealth>>,
    /// What the file holds; none when it does not hold all of any generation, or not that which is thought.
    at: Option<Place>,
}

/// A whole reading on its way into the file.
struct Filling {
    write: WriteTransaction,
    place: Place,
    /// The last key so far: what stands between it and the next one is gone.
    last: Option<String>,
    /// What was heard meanwhile.
    commits: Vec<(Place, Arc<Commit>)>,
}

impl Writer {
    fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        give_way();
        let mut filling: Option<Filling> = None;
        let mut held = None;
        while let Some(order) = held.take().or_else(|| orders.blocking_recv()) {
            let done = match order {
                Order::Begin(place) => {
                    // There is one writer at a time, and a reading that was not ended is none.
                    drop(filling.take());
                    self.begin(place).map(|begun| filling = Some(begun))
                }
                Order::Part(part) => match &mut filling {
                    Some(filling) => filling.part(&part),
                    None => Ok(()),
                },
                Order::Finish => match filling.take() {
                    Some(filling) => self.finish(filling),
                    None => Ok(()),
                },
                Order::Abandon => match filling.take() {
                    Some(Filling { write, commits, .. }) => {
                        // There is one writer at a time.
                        drop(write);
                        self.add(&commits)
                    }
                    None => Ok(()),
                },
                Order::Commit(place, commit) => {
                    let mut commits = vec![(place, commit)];
                    // Whatever else waits costs the disk nothing more.
                    while held.is_none() {
                        match orders.try_recv() {
                            Ok(Order::Commit(place, commit)) => commits.push((place, commit)),
                            Ok(other) => held = Some(other),
                            Err(_) => break,
                        }
                    }
                    match &mut filling {
                        Some(filling) => {
                            filling.commits.append(&mut commits);
                            Ok(())
                        }
                        None => self.add(&commits),
                    }
                }
                Order::Current(place) => self.stamp(place),
            };
            if let Err(error) = done {
                self.file.give_up_after(&error);
                warn!(path = %self.file.path.display(), %error, "the local snapshot cannot be written");
                self.at = None;
                filling = None;
                *locked(&self.health) = SnapshotHealth {
                    generation: None,
                    error: Some(error.to_string()),
                };
            }
        }
    }

    fn begin(&mut self, place: Place) -> Result<Filling, redb::Error> {
        Ok(Filling {
            write: self.file.begin_write()?,
            place,
            last: None,
            commits: Vec::new(),
        })
    }

    fn finish(&mut self, filling: Filling) -> Result<(), redb::Error> {
        let Filling {
            write,
            place,
            last,
            commits,
        } = filling;
        {
            let mut records = write.open_table(RECORDS)?;
            match &last {
                Some(last) => {
                    let rest = (Bound::Excluded(last.as_str()), Bound::Unbounded);
                    records.retain_in::<&str, _>(rest, |_, _| false)?;
                }
                None => records.retain(|_, _| false)?,
            }
        }
        self.close(write, place)?;
        self.add(&commits)
    }

    fn add(&mut self, commits: &[(Place, Arc<Commit>)]) -> Result<(), redb::Error> {
        let Some(at) = self.at else {
            return Ok(());
        };
        let newer = commits
            .iter()
            .filter(|(place, _)| place.revision > at.revision);
        let newer: Vec<_> = newer.collect();
        let Some((place, _)) = newer.last() else {
            return Ok(());
        };
        let write = self.file.begin_write()?;
        {
            let mut records = write.open_table(RECORDS)?;
            for changed in newer.iter().flat_map(|(_, commit)| &commit.changes) {
                match changed {
                    Changed::Put(stored) => {
                        let row = (stored.created, stored.modified, stored.value.as_ref());
                        records.insert(stored.key.as_str(), row)?;
                    }
                    Changed::Deleted { key } => {
                        records.remove(key.as_str())?;
                    }
                }
            }
        }
        self.close(write, *place)
    }

    fn stamp(&mut self, place: Place) -> Result<(), redb::Error> {
        match self.at {
            Some(at) if at.revision <= place.revision => {
                let write = self.file.begin_write()?;
                self.close(write, place)
            }
            _ => Ok(()),
        }
    }

    /// Writes down where the file is now, and has all of it on the disk.
    fn close(&mut self, write: WriteTransaction, place: Place) -> Result<(), redb::Error> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        {
            let mut meta = write.open_table(META)?;
            for (name, number) in [
                ("generation", place.revision),
                ("cluster", place.cluster),
                ("term", place.term),
                ("taken", now.map_or(0, |now| now.as_secs())),
            ] {
                meta.insert(name, number)?;
            }
            let fence = place.fence;
            for (name, number) in [
                ("fence_revision", fence.map(|fence| fence.revision)),
                ("fence_mark", fence.map(|fence| fence.mark)),
            ] {
                match number {
                    Some(number) => meta.insert(name, number)?,
                    None => meta.remove(name)?,
                };
            }
        }
        write.commit()?;
        self.at = Some(place);
        *locked(&self.health) = SnapshotHealth {
            generation: Some(place.revision),
            error: None,
        };
        Ok(())
    }
}

impl Filling {
    /// Makes the file like the part, from the last part's end to this one's. What is the same is not written.
    fn part(&mut self, part: &Part) -> Result<(), redb::Error> {
        let Some(end) = part.rows().last() else {
            return Ok(());
        };
        let mut records = self.write.open_table(RECORDS)?;
        let from = match &self.last {
            Some(last) => Bound::Excluded(last.as_str()),
            None => Bound::Unbounded,
        };
        let mut gone = Vec::new();
        let mut differ = Vec::new();
        {
            let mut coming = part.rows().peekable();
            for row in records.range::<&str>((from, Bound::Included(end.key)))? {
                let (key, row) = row?;
                let key = key.value();
                while let Some(new) = coming.next_if(|new| new.key < key) {
                    differ.push(new);
                }
                match coming.next_if(|new| new.key == key) {
                    Some(new) if row.value() == (new.created, new.modified, new.value) => {}
                    Some(new) => differ.push(new),
                    None => gone.push(key.to_owned()),
                }
            }
            differ.extend(coming);
        }
        for key in gone {
            records.remove(key.as_str())?;
        }
        for row in differ {
            records.insert(row.key, (row.created, row.modified, row.value))?;
        }
        self.last = Some(end.key.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
