//! A set of the families this speaker carries, small enough to be copied about.

use std::fmt;

use crate::wire::prefix::Family;

/// Some of [`Family::ALL`], each in or out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FamilySet(u8);

impl FamilySet {
    /// No family.
    pub const EMPTY: FamilySet = FamilySet(0);

    const fn bit(family: Family) -> u8 {
        match family {
            Family::Ipv4Unicast => 1,
            Family::Ipv6Unicast => 2,
        }
    }

    /// The set of this one family.
    pub const fn of(family: Family) -> FamilySet {
        FamilySet(FamilySet::bit(family))
    }

    /// Every family.
    pub const fn all() -> FamilySet {
        FamilySet(FamilySet::bit(Family::Ipv4Unicast) | FamilySet::bit(Family::Ipv6Unicast))
    }

    /// Whether the family is in the set.
    pub const fn contains(self, family: Family) -> bool {
        self.0 & FamilySet::bit(family) != 0
    }

    /// Puts the family in; whether it was out before.
    pub const fn insert(&mut self, family: Family) -> bool {
        let new = !self.contains(family);
        self.0 |= FamilySet::bit(family);
        new
    }

    /// Takes the family out; whether it was in before.
    pub const fn remove(&mut self, family: Family) -> bool {
        let was = self.contains(family);
        self.0 &= !FamilySet::bit(family);
        was
    }

    /// Whether no family is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The families in the set, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL
            .into_iter()
            .filter(move |family| self.contains(*family))
    }
}

impl FromIterator<Family> for FamilySet {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        let mut set = FamilySet::EMPTY;
        for family in families {
            set.insert(family);
        }
        set
    }
}

/// `{ipv4, ipv6}`.
impl fmt::Debug for FamilySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.iter().map(Family::as_str))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        for bits in 0..1_usize << Family::ALL.len() {
            let families = || {
                let numbered = Family::ALL.into_iter().enumerate();
                numbered.filter_map(|(at, family)| (bits >> at & 1 == 1).then_some(family))
            };
            let set: FamilySet = families().collect();
            assert!(set.iter().eq(families()), "{set:?}");
            assert_eq!(set.is_empty(), bits == 0);
            for family in Family::ALL {
                let mut with = set;
                assert_eq!(with.insert(family), !set.contains(family));
                assert!(with.contains(family));
                assert!(with.remove(family) && !with.contains(family));
                assert!(!with.remove(family));
            }
        }
        assert!(FamilySet::all().iter().eq(Family::ALL));
        assert_eq!(FamilySet::of(Family::Ipv6Unicast).iter().count(), 1);
    }
}
