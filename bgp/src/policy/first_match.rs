//! Finds the first of very many prefix ranges that matches, without looking at each.
//!
//! Networks nest or are disjoint, so in their order each one follows those around it. The last
//! network that is not after a prefix is therefore the innermost around it, or lies beside it in
//! the innermost one; from there the way outwards is a chain, as long as networks are nested.

use std::ops::Range;

use super::prefix_range::PrefixRange;
use crate::wire::prefix::Prefix;

const NONE: u32 = u32::MAX;

/// An index over ranges of one family, numbered from 0 in the order in which they are tried.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FirstMatch {
    networks: Box<[Network]>,
    /// The numbers of the ranges, by network, ascending within one.
    numbers: Box<[u32]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Network {
    network: Prefix,
    /// The innermost other network around it.
    around: u32,
    /// The least number of a range of this network or of one around it.
    least: u32,
    numbers: Range<u32>,
}

impl FirstMatch {
    /// An index over these ranges: fewer than 2^32 - 1, all of one family.
    pub(super) fn new(ranges: &[PrefixRange]) -> FirstMatch {
        let mut order: Vec<u32> = (0..NONE).take(ranges.len()).collect();
        // Stable: ascending numbers within a network.
        order.sort_by_key(|number| ranges[*number as usize].network());
        let mut networks: Vec<Network> = Vec::new();
        for (place, number) in (0..NONE).zip(&order) {
            let network = ranges[*number as usize].network();
            if let Some(last) = networks.last_mut()
                && last.network == network
            {
                last.numbers.end += 1;
                continue;
            }
            let mut around = networks.len().wrapping_sub(1) as u32;
            while let Some(candidate) = networks.get(around as usize)
                && !candidate.network.contains(&network)
            {
                around = candidate.around;
            }
            let least = networks
                .get(around as usize)
                .map_or(*number, |outer| outer.least.min(*number));
            networks.push(Network {
                network,
                around,
                least,
                numbers: place..place + 1,
            });
        }
        FirstMatch {
            networks: networks.into(),
            numbers: order.into(),
        }
    }

    /// The least number of a range that has the prefix and is accepted by `accepts`; `ranges` are
    /// those that the index was made from.
    pub(super) fn find(
        &self,
        prefix: &Prefix,
        has_length: impl Fn(usize, u8) -> bool,
        accepts: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut found = NONE;
        let after = self.networks.partition_point(|n| n.network <= *prefix);
        let mut at = (after as u32).wrapping_sub(1);
        while let Some(network) = self.networks.get(at as usize)
            && network.least < found
        {
            if network.network.contains(prefix) {
                let numbers = network.numbers.start as usize..network.numbers.end as usize;
                let first = self.numbers[numbers]
                    .iter()
                    .copied()
                    .take_while(|number| *number < found)
                    .find(|number| {
                        has_length(*number as usize, prefix.len()) && accepts(*number as usize)
                    });
                found = first.unwrap_or(found);
            }
            at = network.around;
        }
        (found != NONE).then_some(found as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Networks close to one another, so that they nest and repeat.
    fn crowded() -> impl Strategy<Value = Prefix> {
        (0u32..64, 0u8..=32).prop_map(|(bits, length)| {
            let address = std::net::Ipv4Addr::from_bits(bits << 26 | bits << 20 | bits);
            Prefix::masked_v4(address, length)
        })
    }

    fn range() -> impl Strategy<Value = PrefixRange> {
        (crowded(), 0u8..=32, 0u8..=32).prop_map(|(network, a, b)| {
            let ge = a.max(network.len());
            PrefixRange::new(network, Some(ge), Some(b.max(ge))).unwrap()
        })
    }

    proptest! {
        #[test]
        fn the_index_finds_what_trying_each_in_turn_finds(
            rows in proptest::collection::vec((range(), any::<bool>()), 0..80),
            tried in proptest::collection::vec(crowded(), 1..80),
        ) {
            let ranges: Vec<PrefixRange> = rows.iter().map(|(range, _)| *range).collect();
            let index = FirstMatch::new(&ranges);
            for prefix in tried {
                let expected = rows
                    .iter()
                    .position(|(range, accepted)| *accepted && range.matches(&prefix));
                let found = index.find(
                    &prefix,
                    |number, length| ranges[number].has_length(length),
                    |number| rows[number].1,
                );
                prop_assert_eq!(found, expected, "{}", prefix);
            }
        }
    }

    #[test]
    fn few_ranges_are_looked_at_of_very_many() {
        // 65536 networks of 24 bits, and one around them that is tried last.
        let ranges: Vec<PrefixRange> = (0..65536u32)
            .map(|n| Prefix::masked_v4(std::net::Ipv4Addr::from_bits(10 << 24 | n << 8), 24))
            .chain(["10.0.0.0/8".parse().unwrap()])
            .map(PrefixRange::within)
            .collect();
        let index = FirstMatch::new(&ranges);
        for (tried, expected) in [
            ("10.1.2.0/25", Some(0x0102)),
            ("10.255.255.0/24", Some(0xffff)),
            ("10.7.0.0/23", Some(65536)),
            ("11.0.0.0/24", None),
            ("0.0.0.0/0", None),
        ] {
            let looked_at = std::cell::Cell::new(0);
            let has_length = |number: usize, length| {
                looked_at.set(looked_at.get() + 1);
                ranges[number].has_length(length)
            };
            let found = index.find(&tried.parse().unwrap(), has_length, |_| true);
            assert_eq!(found, expected, "{tried}");
            assert!(looked_at.get() <= 2, "{tried}: {}", looked_at.get());
        }
        assert_eq!(
            FirstMatch::new(&[]).find(&"10.0.0.0/8".parse().unwrap(), |_, _| true, |_| true),
            None
        );
    }
}
