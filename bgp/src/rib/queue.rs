//! A queue of dense numbers in which each stands at most once.
//!
//! Costs one number and two bits an entry, however often the entry is put in: this is what bounds
//! the memory that a slow reader takes.

use std::collections::VecDeque;

/// A set of dense numbers.
#[derive(Debug, Default, Clone)]
pub(crate) struct BitSet {
    words: Vec<u64>,
}

impl BitSet {
    pub(crate) fn contains(&self, index: u32) -> bool {
        self.words
            .get(index as usize / 64)
            .is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// Whether it was not there.
    pub(crate) fn insert(&mut self, index: u32) -> bool {
        let word = index as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (index % 64);
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, index: u32) -> bool {
        let Some(word) = self.words.get_mut(index as usize / 64) else {
            return false;
        };
        let bit = 1 << (index % 64);
        let there = *word & bit != 0;
        *word &= !bit;
        there
    }
}

/// First in, first out, each number once; with a mark that goes along.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    order: VecDeque<u32>,
    waiting: BitSet,
    marked: BitSet,
    /// Numbers ever put in.
    entered: u64,
}

impl Queue {
    /// Puts a number in, unless it waits already; `mark` sticks until it is taken.
    pub(crate) fn push(&mut self, index: u32, mark: bool) {
        if self.waiting.insert(index) {
            self.order.push_back(index);
            self.entered += 1;
        }
        if mark {
            self.marked.insert(index);
        }
    }

    /// Takes the number that waits longest, and whether it was marked.
    pub(crate) fn pop(&mut self) -> Option<(u32, bool)> {
        let index = self.order.pop_front()?;
        self.waiting.remove(index);
        if self.order.is_empty() {
            // A burst must not keep its memory for good.
            self.order.shrink_to(1024);
        }
        Some((index, self.marked.remove(index)))
    }

    /// The number that waits longest.
    pub(crate) fn peek(&self) -> Option<u32> {
        self.order.front().copied()
    }

    pub(crate) fn contains(&self, index: u32) -> bool {
        self.waiting.contains(index)
    }

    pub(crate) fn is_marked(&self, index: u32) -> bool {
        self.marked.contains(index)
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// A place in the queue: behind everything that waits now.
    pub(crate) fn end(&self) -> u64 {
        self.entered
    }

    /// Whether everything before this place was taken.
    pub(crate) fn has_passed(&self, place: u64) -> bool {
        self.entered - self.order.len() as u64 >= place
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        self.order.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_waits_once_and_marks_stick() {
        let mut queue = Queue::default();
        for index in [5, 70, 5, 1] {
            queue.push(index, false);
        }
        queue.push(70, true);
        let place = queue.end();
        queue.push(9, true);
        assert_eq!(queue.len(), 4);
        assert!(queue.contains(1) && !queue.contains(2) && queue.is_marked(9));
        assert_eq!(queue.pop(), Some((5, false)));
        assert_eq!(queue.pop(), Some((70, true)));
        assert!(!queue.has_passed(place));
        assert_eq!(queue.pop(), Some((1, false)));
        assert!(queue.has_passed(place) && !queue.has_passed(queue.end()));
        queue.push(70, false);
        assert_eq!(queue.iter().collect::<Vec<_>>(), [9, 70]);
        assert_eq!(queue.pop(), Some((9, true)));
        assert_eq!(
            queue.pop(),
            Some((70, false)),
            "the mark went with the first time"
        );
        assert_eq!((queue.pop(), queue.is_empty()), (None, true));
    }
}
