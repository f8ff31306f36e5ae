//! A map from prefixes that answers: what covers this, what lies within it, what overlaps it.
//!
//! Each answer costs a few ordered look-ups (one for each prefix length in use), never a scan.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bgp::{Family, Prefix};

/// Values by prefix. Prefixes may nest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixMap<V> {
    entries: BTreeMap<Prefix, V>,
    /// How many entries there are of each length.
    lengths: BTreeMap<(Family, u8), usize>,
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        PrefixMap {
            entries: BTreeMap::new(),
            lengths: BTreeMap::new(),
        }
    }
}

impl<V> PrefixMap<V> {
    /// Puts a value at exactly this prefix; the one that was there before.
    pub fn insert(&mut self, prefix: Prefix, value: V) -> Option<V> {
        let before = self.entries.insert(prefix, value);
        if before.is_none() {
            *self
                .lengths
                .entry((prefix.family(), prefix.len()))
                .or_default() += 1;
        }
        before
    }

    /// Takes away the value at exactly this prefix.
    pub fn remove(&mut self, prefix: &Prefix) -> Option<V> {
        let before = self.entries.remove(prefix)?;
        let length = (prefix.family(), prefix.len());
        if let Some(count) = self.lengths.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length);
            }
        }
        Some(before)
    }

    /// The value at exactly this prefix.
    pub fn at(&self, prefix: &Prefix) -> Option<&V> {
        self.entries.get(prefix)
    }

    /// The value at exactly this prefix, to change it.
    pub fn at_mut(&mut self, prefix: &Prefix) -> Option<&mut V> {
        self.entries.get_mut(prefix)
    }

    /// Entries that hold all of `prefix`, itself included, the longest first.
    pub fn covering(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, &V)> {
        let lengths = self
            .lengths
            .range((prefix.family(), 0)..=(prefix.family(), prefix.len()));
        lengths.rev().filter_map(move |((_, len), _)| {
            let wider = Prefix::containing(prefix.addr(), *len).ok()?;
            Some((wider, self.entries.get(&wider)?))
        })
    }

    /// Entries that lie within `prefix`, itself included, in order.
    pub fn within(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, &V)> {
        // A prefix sorts right before what it holds.
        let from = self.entries.range(prefix..);
        from.take_while(move |(inner, _)| prefix.contains(inner))
            .map(|(inner, v)| (*inner, v))
    }

    /// Entries that share an address with `prefix`.
    pub fn overlapping(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, &V)> {
        let wider = self
            .covering(prefix)
            .filter(move |(wider, _)| *wider != prefix);
        wider.chain(self.within(prefix))
    }

    /// The entry with the longest prefix that holds the address.
    pub fn longest(&self, addr: IpAddr) -> Option<(Prefix, &V)> {
        self.covering(Prefix::host(addr)).next()
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, &V)> {
        self.entries.iter().map(|(prefix, value)| (*prefix, value))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn prefix() -> impl Strategy<Value = Prefix> {
        let v4 = (0u32..64, 0u8..=32).prop_map(|(bits, len)| {
            // Some in the low bits, some in the high ones: both nest.
            let addr = Ipv4Addr::from_bits(bits | bits << 26);
            Prefix::containing(addr.into(), len).unwrap()
        });
        let v6 = (0u128..16, 0u8..=128).prop_map(|(bits, len)| {
            let addr = std::net::Ipv6Addr::from_bits(bits | bits << 124);
            Prefix::containing(addr.into(), len).unwrap()
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn answers_as_a_scan_would(
            steps in proptest::collection::vec((prefix(), any::<bool>()), 0..40),
            asked in prefix(),
        ) {
            let (mut map, mut plain) = (PrefixMap::default(), BTreeMap::new());
            for (number, (prefix, put)) in steps.into_iter().enumerate() {
                if put {
                    prop_assert_eq!(map.insert(prefix, number), plain.insert(prefix, number));
                } else {
                    prop_assert_eq!(map.remove(&prefix), plain.remove(&prefix));
                }
            }
            let scan = |keep: &dyn Fn(&Prefix) -> bool| -> Vec<(Prefix, usize)> {
                plain.iter().filter(|(p, _)| keep(p)).map(|(p, v)| (*p, *v)).collect()
            };
            let sorted = |found: Vec<(Prefix, &usize)>| -> Vec<(Prefix, usize)> {
                let mut found: Vec<_> = found.into_iter().map(|(p, v)| (p, *v)).collect();
                found.sort();
                found
            };
            let covering: Vec<_> = map.covering(asked).collect();
            prop_assert!(covering.windows(2).all(|pair| pair[0].0.len() > pair[1].0.len()));
            prop_assert_eq!(sorted(covering), scan(&|p| p.contains(&asked)));
            prop_assert_eq!(sorted(map.within(asked).collect()), scan(&|p| asked.contains(p)));
            prop_assert_eq!(sorted(map.overlapping(asked).collect()), scan(&|p| asked.overlaps(p)));
            prop_assert_eq!(sorted(map.iter().collect()), scan(&|_| true));
        }
    }
}
