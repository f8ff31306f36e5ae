//! What is under way in a virtual time, in the order in which it happens.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// Things that will happen, by time and then by when they were put in.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    order: BinaryHeap<Reverse<(Duration, u64)>>,
    things: BTreeMap<u64, T>,
    serial: u64,
}

impl<T> Agenda<T> {
    pub(super) fn new() -> Self {
        Agenda {
            order: BinaryHeap::new(),
            things: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Has something happen at this time, after all that was put in for it before.
    pub(super) fn push(&mut self, at: Duration, thing: T) {
        self.serial += 1;
        self.order.push(Reverse((at, self.serial)));
        self.things.insert(self.serial, thing);
    }

    /// The next thing, if it happens before `end` (or at it).
    pub(super) fn pop(&mut self, end: Duration) -> Option<(Duration, T)> {
        let Reverse((at, serial)) = *self.order.peek()?;
        if at > end {
            return None;
        }
        self.order.pop();
        Some((at, self.things.remove(&serial)?))
    }
}
