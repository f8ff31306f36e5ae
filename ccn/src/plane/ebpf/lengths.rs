//! Which prefix lengths occur in one space, counted. Pure.

use std::collections::BTreeMap;

use bgp::{Family, Prefix};

use super::layout::{LENGTHS, Lengths, NO_LENGTH};

/// The lengths of both families, each with the number of prefixes that have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LengthCounts {
    counts: BTreeMap<(Family, u8), u32>,
}

impl LengthCounts {
    /// Whether a prefix of this length has room beside the others, when `reserved` are kept free.
    pub(crate) fn has_room(&self, prefix: &Prefix, reserved: usize) -> bool {
        let at = (prefix.family(), prefix.len());
        self.counts.contains_key(&at) || self.used(prefix.family()) + reserved < LENGTHS
    }

    /// How many different lengths a family has.
    pub(crate) fn used(&self, family: Family) -> usize {
        self.of(family).count()
    }

    /// One prefix more; whether its length is new.
    pub(crate) fn add(&mut self, prefix: &Prefix) -> bool {
        let count = self
            .counts
            .entry((prefix.family(), prefix.len()))
            .or_default();
        *count += 1;
        *count == 1
    }

    /// One prefix less; whether it was the last of its length.
    pub(crate) fn remove(&mut self, prefix: &Prefix) -> bool {
        let at = (prefix.family(), prefix.len());
        match self.counts.get_mut(&at) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            Some(_) => {
                self.counts.remove(&at);
                true
            }
            None => false,
        }
    }

    fn of(&self, family: Family) -> impl DoubleEndedIterator<Item = u8> {
        let all = self.counts.range((family, 0)..=(family, u8::MAX));
        all.map(|((_, len), _)| *len)
    }

    /// As maps hold them; `also` counts as one more.
    pub(crate) fn list(&self, family: Family, also: Option<u8>) -> Lengths {
        let mut lengths: Vec<u8> = self.of(family).chain(also).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        lengths.truncate(LENGTHS);
        lengths.resize(LENGTHS, NO_LENGTH);
        lengths.try_into().unwrap_or([NO_LENGTH; LENGTHS])
    }
}

/// A list without lengths.
pub(crate) const NONE: Lengths = [NO_LENGTH; LENGTHS];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_listed_longest_first_while_somebody_has_them() {
        let mut counts = LengthCounts::default();
        let prefix = |text: &str| text.parse::<Prefix>().expect("a prefix");
        assert!(counts.add(&prefix("10.0.0.0/8")));
        assert!(counts.add(&prefix("10.0.0.0/24")) && !counts.add(&prefix("10.0.1.0/24")));
        assert!(counts.add(&prefix("fd00::/64")));
        let list =
            |counts: &LengthCounts, also| counts.list(Family::Ipv4Unicast, also)[..4].to_vec();
        assert_eq!(list(&counts, None), [24, 8, NO_LENGTH, NO_LENGTH]);
        assert_eq!(list(&counts, Some(32)), [32, 24, 8, NO_LENGTH]);
        assert!(!counts.remove(&prefix("10.0.0.0/24")) && counts.remove(&prefix("10.0.1.0/24")));
        assert_eq!(list(&counts, Some(8)), [8, NO_LENGTH, NO_LENGTH, NO_LENGTH]);
        for len in 9..24 {
            let prefix =
                Prefix::containing("10.0.0.0".parse().expect("an address"), len).expect("a length");
            assert!(counts.has_room(&prefix, 0));
            counts.add(&prefix);
        }
        assert!(
            !counts.has_room(&prefix("10.0.0.0/25"), 0)
                && counts.has_room(&prefix("10.0.0.0/8"), 1)
        );
        assert!(counts.has_room(&prefix("fd00::/65"), 0));
    }
}
