//! What is to be told to subscribers, in order, each prefix once.

use std::collections::HashSet;

use crate::event::Event;
use crate::wire::Prefix;

#[derive(Debug)]
pub(super) enum Entry {
    /// As it is.
    Event(Event),
    /// The paths of this prefix changed; what they are is looked up when it is told.
    Prefix(Prefix),
}

/// Grows with distinct prefixes and events between two calls of [`Journal::take`] only.
#[derive(Debug, Default)]
pub(super) struct Journal {
    observed: bool,
    entries: Vec<Entry>,
    seen: HashSet<Prefix>,
}

impl Journal {
    pub(super) fn observe(&mut self, observed: bool) {
        self.observed = observed;
        if !observed {
            self.take();
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        if self.observed {
            self.entries.push(Entry::Event(event));
        }
    }

    pub(super) fn prefix(&mut self, prefix: Prefix) {
        if self.observed && self.seen.insert(prefix) {
            self.entries.push(Entry::Prefix(prefix));
        }
    }

    pub(super) fn take(&mut self) -> Vec<Entry> {
        self.seen.clear();
        std::mem::take(&mut self.entries)
    }
}
