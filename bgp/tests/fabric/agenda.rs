//! What is under way in a fabric, in the order in which it happens.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use bytes::Bytes;

/// Something that is under way.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The request to connect arrives.
    Request { wire: usize },
    /// So does the answer.
    Answer { wire: usize, accepted: bool },
    /// Octets arrive at this end.
    Octets {
        wire: usize,
        end: usize,
        octets: Bytes,
    },
    /// Octets of this end have been read at the other.
    Written {
        wire: usize,
        end: usize,
        octets: usize,
    },
    /// The other side closed, or the connection broke.
    Closed {
        wire: usize,
        end: usize,
        why: &'static str,
    },
    /// A node that restarted has announced everything again.
    Restored { node: usize, life: u64 },
}

/// One of them, by time and then by when it was decided.
pub(crate) struct Entry {
    time: Duration,
    serial: u64,
    pub(crate) happening: Happening,
}

impl Entry {
    fn key(&self) -> (Duration, u64) {
        (self.time, self.serial)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// Everything that is under way.
#[derive(Default)]
pub(crate) struct Agenda {
    entries: BinaryHeap<Reverse<Entry>>,
    serial: u64,
}

impl Agenda {
    /// Puts something in, behind what was put in before for the same time.
    pub(crate) fn push(&mut self, time: Duration, happening: Happening) {
        self.serial += 1;
        self.entries.push(Reverse(Entry {
            time,
            serial: self.serial,
            happening,
        }));
    }

    /// Puts something off. It keeps its place among what happens at that time.
    pub(crate) fn put_off(&mut self, entry: Entry, time: Duration) {
        self.entries.push(Reverse(Entry { time, ..entry }));
    }

    /// When the next thing happens.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.entries.peek().map(|Reverse(entry)| entry.time)
    }

    /// What happens by then, one at a time.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Entry> {
        self.next().filter(|time| *time <= now)?;
        self.entries.pop().map(|Reverse(entry)| entry)
    }
}
