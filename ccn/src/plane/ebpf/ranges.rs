//! Which slots are taken: ranges of numbers, handed out first fit. Pure.
//!
//! What is given back is not handed out again before the programs cannot find it any more
//! ([`Ranges::settle`]), and those that had found it before are done ([`Ranges::release`]).

use std::collections::BTreeMap;

/// Hands out ranges of `0..capacity`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    capacity: u32,
    /// Start and length of what is free. Neighbours are joined.
    free: BTreeMap<u32, u32>,
    /// Given back, and still to be found.
    leaving: Vec<(u32, u32)>,
    /// Not to be found any more, and perhaps still read.
    resting: Vec<(u32, u32)>,
    used: u32,
}

impl Ranges {
    /// All of `0..capacity`, free.
    pub(crate) fn new(capacity: u32) -> Ranges {
        let mut ranges = Ranges::default();
        ranges.grow(capacity);
        ranges
    }

    /// How many numbers there are.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How many are in use; what rests is not.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// How many [`Ranges::release`] would make free.
    pub(crate) fn resting(&self) -> u32 {
        self.resting.iter().map(|(_, len)| len).sum()
    }

    /// There are more numbers from now on.
    pub(crate) fn grow(&mut self, capacity: u32) {
        if capacity > self.capacity {
            let (start, len) = (self.capacity, capacity - self.capacity);
            self.capacity = capacity;
            self.join(start, len);
        }
    }

    /// The lowest free range of this length, which is taken from now on; `len` of 0 is none.
    pub(crate) fn take(&mut self, len: u32) -> Option<u32> {
        let (start, found) = self
            .free
            .iter()
            .find(|(_, found)| len > 0 && **found >= len)
            .map(|(start, found)| (*start, *found))?;
        self.cut(start, found, start, len);
        Some(start)
    }

    /// Takes this very range. False, and nothing is taken, unless all of it is free.
    pub(crate) fn take_at(&mut self, start: u32, len: u32) -> bool {
        let Some((&from, &found)) = self.free.range(..=start).next_back() else {
            return false;
        };
        let end = u64::from(start) + u64::from(len);
        if len == 0 || end > u64::from(from) + u64::from(found) {
            return false;
        }
        self.cut(from, found, start, len);
        true
    }

    fn cut(&mut self, from: u32, found: u32, start: u32, len: u32) {
        self.free.remove(&from);
        if start > from {
            self.free.insert(from, start - from);
        }
        let (end, found_end) = (start + len, from + found);
        if found_end > end {
            self.free.insert(end, found_end - end);
        }
        self.used += len;
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&mut self, start: u32, len: u32) {
        if len > 0 {
            self.used -= len;
            self.leaving.push((start, len));
        }
    }

    /// Nobody finds any more what was given back before: no map leads to it.
    pub(crate) fn settle(&mut self) {
        self.resting.append(&mut self.leaving);
    }

    /// Nobody reads any more what was settled before: the caller has waited for that.
    pub(crate) fn release(&mut self) {
        for (start, len) in std::mem::take(&mut self.resting) {
            self.join(start, len);
        }
    }

    fn join(&mut self, start: u32, len: u32) {
        let (mut start, mut len) = (start, len);
        if let Some(next) = self.free.remove(&(start + len)) {
            len += next;
        }
        if let Some((&before, &its)) = self.free.range(..start).next_back()
            && before + its == start
        {
            self.free.remove(&before);
            (start, len) = (before, its + len);
        }
        self.free.insert(start, len);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_given_back_rests_until_it_is_settled_and_released() {
        let mut ranges = Ranges::new(8);
        assert_eq!((ranges.take(8), ranges.take(1)), (Some(0), None));
        ranges.give_back(0, 8);
        ranges.release();
        assert_eq!(
            (ranges.take(1), ranges.resting(), ranges.used()),
            (None, 0, 0)
        );
        ranges.settle();
        assert_eq!((ranges.take(1), ranges.resting()), (None, 8));
        ranges.release();
        assert_eq!((ranges.take(8), ranges.resting()), (Some(0), 0));
    }

    #[test]
    fn a_range_is_taken_where_it_is_wanted_or_not_at_all() {
        let mut ranges = Ranges::new(16);
        assert!(ranges.take_at(4, 4));
        for (start, len) in [(0, 5), (7, 1), (7, 2), (15, 2), (16, 1), (20, 1), (0, 0)] {
            assert!(!ranges.take_at(start, len), "{start} {len}");
        }
        assert!(ranges.take_at(8, 8) && ranges.take_at(0, 4));
        assert_eq!((ranges.used(), ranges.take(1)), (16, None));
        ranges.grow(20);
        assert_eq!(ranges.take(4), Some(16));
    }

    proptest! {
        #[test]
        fn nothing_is_handed_out_twice_and_nothing_is_lost(
            steps in prop::collection::vec((0..3u8, 1..40u32), 1..200),
        ) {
            let mut ranges = Ranges::new(256);
            let mut held: Vec<(u32, u32)> = Vec::new();
            for (what, number) in steps {
                match what {
                    0 => {
                        if let Some(start) = ranges.take(number) {
                            held.push((start, number));
                        }
                    }
                    1 if !held.is_empty() => {
                        let (start, len) = held.swap_remove(number as usize % held.len());
                        ranges.give_back(start, len);
                    }
                    _ if number % 2 == 0 => ranges.settle(),
                    _ => ranges.release(),
                }
                held.sort_unstable();
                for pair in held.windows(2) {
                    prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{:?}", held);
                }
                prop_assert_eq!(ranges.used(), held.iter().map(|(_, len)| len).sum::<u32>());
            }
            for (start, len) in held {
                ranges.give_back(start, len);
            }
            ranges.settle();
            ranges.release();
            prop_assert_eq!(ranges, Ranges::new(256));
        }
    }
}
