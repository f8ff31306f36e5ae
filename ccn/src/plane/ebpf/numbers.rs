//! Small numbers for things that are counted: who has which counter. Pure.
//!
//! A number that was somebody else's is reset before it is used again.

use std::collections::{BTreeMap, BTreeSet};

/// Numbers `0..max`, each with one owner at most.
#[derive(Debug)]
pub(crate) struct Numbers<K> {
    max: u32,
    numbers: BTreeMap<K, u32>,
    /// Never handed out since the counters were made: these and all above are zero.
    next: u32,
    free: BTreeSet<u32>,
    /// Free when maps no longer lead to them.
    leaving: Vec<u32>,
    /// Handed out since the last settling, and perhaps not zero.
    resets: Vec<u32>,
}

impl<K: Ord + Clone> Numbers<K> {
    /// Below `next` a number may have been somebody's before.
    pub(crate) fn new(max: u32, next: u32) -> Numbers<K> {
        Numbers {
            max,
            numbers: BTreeMap::new(),
            next: next.min(max),
            free: (0..next.min(max)).collect(),
            leaving: Vec::new(),
            resets: Vec::new(),
        }
    }

    /// How many have an owner.
    pub(crate) fn used(&self) -> usize {
        self.numbers.len()
    }

    pub(crate) fn max(&self) -> u32 {
        self.max
    }

    /// The number of an owner.
    pub(crate) fn of(&self, owner: &K) -> Option<u32> {
        self.numbers.get(owner).copied()
    }

    /// Owners and their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, u32)> {
        self.numbers.iter().map(|(owner, number)| (owner, *number))
    }

    /// Gives an owner that has none this number, which was its own before, if nobody has it now.
    pub(crate) fn adopt(&mut self, owner: &K, number: u32) {
        if !self.numbers.contains_key(owner) && self.free.remove(&number) {
            self.numbers.insert(owner.clone(), number);
        }
    }

    /// The number of an owner, which gets one if it has none; `None` when all are in use.
    pub(crate) fn number(&mut self, owner: &K) -> Option<u32> {
        if let Some(number) = self.numbers.get(owner) {
            return Some(*number);
        }
        let number = match self.free.pop_first() {
            Some(number) => {
                self.resets.push(number);
                number
            }
            None if self.next < self.max => {
                self.next += 1;
                self.next - 1
            }
            None => return None,
        };
        self.numbers.insert(owner.clone(), number);
        Some(number)
    }

    /// An owner is gone.
    pub(crate) fn give_back(&mut self, owner: &K) {
        if let Some(number) = self.numbers.remove(owner) {
            self.leaving.push(number);
        }
    }

    /// The numbers to reset before anything is written that leads to them.
    pub(crate) fn resets(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.resets)
    }

    /// Everything is written: no map leads to what was given back.
    pub(crate) fn settle(&mut self) {
        self.free.extend(self.leaving.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_somebody_else_is_reset_and_never_while_maps_lead_to_it() {
        let mut numbers: Numbers<&str> = Numbers::new(3, 0);
        assert_eq!(
            (numbers.number(&"a"), numbers.number(&"b")),
            (Some(0), Some(1))
        );
        assert!(numbers.resets().is_empty());
        numbers.give_back(&"a");
        assert_eq!(
            (numbers.number(&"c"), numbers.number(&"d")),
            (Some(2), None)
        );
        numbers.settle();
        assert_eq!((numbers.number(&"d"), numbers.resets()), (Some(0), vec![0]));
        assert_eq!((numbers.used(), numbers.of(&"b")), (3, Some(1)));
    }

    #[test]
    fn numbers_of_an_earlier_run_are_adopted_once() {
        let mut numbers: Numbers<&str> = Numbers::new(10, 4);
        numbers.adopt(&"a", 2);
        numbers.adopt(&"b", 2);
        numbers.adopt(&"c", 7);
        assert_eq!((numbers.number(&"a"), numbers.resets()), (Some(2), vec![]));
        assert_eq!(
            (numbers.number(&"b"), numbers.number(&"c")),
            (Some(0), Some(1))
        );
        assert_eq!(numbers.resets(), [0, 1]);
    }
}
