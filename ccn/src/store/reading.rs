//! Everything a store holds, as a stream of parts, so that nobody needs memory for all of it at once.
//!
//! It carries records and does not look into them. An end that was not said is an error: half a store taken for
//! the whole of it would take forwarding away.

use tokio::sync::mpsc;

use super::{Generation, Snapshot, StoreError, Stored};

/// Records of a part: so many octets, or a little more.
const PART: usize = 1 << 20;
/// Parts that wait for the reader.
const AHEAD: usize = 2;

/// A record as it stands in the store, borrowed from a [`Part`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// See [`Stored`].
    pub key: &'a str,
    /// See [`Stored`].
    pub created: Generation,
    /// See [`Stored`].
    pub modified: Generation,
    /// See [`Stored`].
    pub value: &'a [u8],
}

impl Row<'_> {
    /// A copy of its own.
    #[must_use]
    pub fn stored(&self) -> Stored {
        Stored {
            key: self.key.to_owned(),
            created: self.created,
            modified: self.modified,
            value: self.value.to_vec().into(),
        }
    }
}

/// Records in one piece of memory.
#[derive(Debug, Clone, Default)]
pub struct Part {
    keys: String,
    values: Vec<u8>,
    rows: Vec<Bounds>,
}

/// Where a record ends in its part.
#[derive(Debug, Clone)]
struct Bounds {
    key: usize,
    value: usize,
    created: Generation,
    modified: Generation,
}

impl Part {
    /// Adds a record.
    pub fn push(&mut self, row: Row<'_>) {
        self.keys.push_str(row.key);
        self.values.extend_from_slice(row.value);
        self.rows.push(Bounds {
            key: self.keys.len(),
            value: self.values.len(),
            created: row.created,
            modified: row.modified,
        });
    }

    /// Its records, in order.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let (mut key, mut value) = (0, 0);
        self.rows.iter().map(move |bounds| {
            let row = Row {
                key: &self.keys[key..bounds.key],
                created: bounds.created,
                modified: bounds.modified,
                value: &self.values[value..bounds.value],
            };
            (key, value) = (bounds.key, bounds.value);
            row
        })
    }

    /// Whether it has the size at which it is handed over.
    pub(super) fn is_full(&self) -> bool {
        self.keys.len() + self.values.len() >= PART
    }
}

/// Everything a store held at one generation, part by part, sorted by key.
#[derive(Debug)]
pub struct Reading {
    generation: Generation,
    parts: mpsc::Receiver<Handed>,
    ended: bool,
}

/// What a store hands over.
#[derive(Debug)]
enum Handed {
    Part(Part),
    End(Result<(), StoreError>),
}

/// Where a store puts what it reads.
#[derive(Debug)]
pub struct Writing {
    part: Part,
    parts: mpsc::Sender<Handed>,
}

impl Reading {
    /// One at this generation, and what fills it.
    #[must_use]
    pub fn new(generation: Generation) -> (Writing, Reading) {
        let (sender, parts) = mpsc::channel(AHEAD);
        let writing = Writing {
            part: Part::default(),
            parts: sender,
        };
        let ended = false;
        let reading = Reading {
            generation,
            parts,
            ended,
        };
        (writing, reading)
    }

    /// The generation that it is of.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The next part; `None` after the last. An error is the last.
    pub async fn next(&mut self) -> Option<Result<Part, StoreError>> {
        if self.ended {
            return None;
        }
        let handed = self.parts.recv().await;
        self.take(handed)
    }

    /// As [`Reading::next`], where waiting is allowed.
    pub fn blocking_next(&mut self) -> Option<Result<Part, StoreError>> {
        if self.ended {
            return None;
        }
        let handed = self.parts.blocking_recv();
        self.take(handed)
    }

    fn take(&mut self, handed: Option<Handed>) -> Option<Result<Part, StoreError>> {
        self.ended = !matches!(handed, Some(Handed::Part(_)));
        match handed {
            Some(Handed::Part(part)) => Some(Ok(part)),
            Some(Handed::End(Ok(()))) => None,
            Some(Handed::End(Err(error))) => Some(Err(error)),
            None => Some(Err(StoreError::Interrupted)),
        }
    }

    /// All of it at once.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn snapshot(mut self) -> Result<Snapshot, StoreError> {
        let mut records = Vec::new();
        while let Some(part) = self.next().await {
            records.extend(part?.rows().map(|row| row.stored()));
        }
        let generation = self.generation;
        Ok(Snapshot {
            generation,
            records,
        })
    }
}

impl Writing {
    /// Adds a record, where waiting is allowed. False when nobody reads any more.
    pub fn push(&mut self, row: Row<'_>) -> bool {
        self.part.push(row);
        !self.part.is_full() || self.hand_over()
    }

    /// That was all, or all that can be read.
    pub fn end(mut self, outcome: Result<(), StoreError>) {
        if self.hand_over() {
            // Whoever reads no more needs no end.
            let _ = self.parts.blocking_send(Handed::End(outcome));
        }
    }

    fn hand_over(&mut self) -> bool {
        let part = std::mem::take(&mut self.part);
        self.parts.blocking_send(Handed::Part(part)).is_ok()
    }

    /// Hands over a part, in a task. False when nobody reads any more.
    pub(super) async fn hand(&mut self, part: Part) -> bool {
        self.parts.send(Handed::Part(part)).await.is_ok()
    }

    /// As [`Writing::end`], in a task.
    pub(super) async fn end_now(self, outcome: Result<(), StoreError>) {
        // Whoever reads no more needs no end.
        let _ = self.parts.send(Handed::End(outcome)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_give_back_what_went_in() {
        let rows: Vec<(String, Vec<u8>)> = (0..5_000u32)
            .map(|n| (format!("vms/a/{n:05}"), vec![n as u8; n as usize % 700]))
            .collect();
        let (mut writing, reading) = Reading::new(7);
        let sent = rows.clone();
        let filling = tokio::task::spawn_blocking(move || {
            for (created, (key, value)) in (0..).zip(&sent) {
                let (modified, value) = (created + 1, &value[..]);
                writing.push(Row {
                    key,
                    created,
                    modified,
                    value,
                });
            }
            writing.end(Ok(()));
        });
        let snapshot = reading.snapshot().await.expect("all of it");
        filling.await.expect("a thread");
        assert_eq!(snapshot.generation, 7);
        let seen: Vec<(String, Vec<u8>)> = snapshot
            .records
            .iter()
            .map(|stored| (stored.key.clone(), stored.value.to_vec()))
            .collect();
        assert_eq!(seen, rows);
        assert!(
            (0..)
                .zip(&snapshot.records)
                .all(|(n, it)| (it.created, it.modified) == (n, n + 1))
        );
    }

    #[tokio::test]
    async fn an_error_comes_after_what_was_read() {
        let (mut writing, mut reading) = Reading::new(1);
        tokio::task::spawn_blocking(move || {
            writing.push(Row {
                key: "vpcs/a",
                created: 1,
                modified: 1,
                value: b"1",
            });
            let (expected, found) = (1, 2);
            writing.end(Err(StoreError::Moved { expected, found }));
        });
        let first = reading.next().await.expect("a part").expect("no error");
        assert_eq!(first.rows().count(), 1);
        assert!(matches!(
            reading.next().await,
            Some(Err(StoreError::Moved { .. }))
        ));
        assert!(reading.next().await.is_none());
    }

    #[tokio::test]
    async fn an_end_that_was_not_said_is_an_error() {
        let (mut writing, mut reading) = Reading::new(1);
        assert!(writing.hand(Part::default()).await);
        drop(writing);
        assert!(matches!(reading.next().await, Some(Ok(_))));
        assert!(matches!(
            reading.next().await,
            Some(Err(StoreError::Interrupted))
        ));
        assert!(reading.next().await.is_none());
    }

    #[test]
    fn a_store_stops_when_nobody_reads() {
        let (mut writing, reading) = Reading::new(1);
        drop(reading);
        let value = &vec![0; PART][..];
        let (created, modified) = (1, 1);
        assert!(!writing.push(Row {
            key: "a",
            created,
            modified,
            value
        }));
    }
}
