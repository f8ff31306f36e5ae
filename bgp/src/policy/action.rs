//! What a rule does to the routes it permits.
//!
//! A list of communities is first freed of what is to be deleted, or replaced, and then added to.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::one_or_many::one_or_many;
use super::pattern::{CommunityPattern, ExtendedPattern, LargePattern};
use crate::rib::attributes::RouteAttributes;
use crate::wire::{Community, ExtendedCommunity, Family, LargeCommunity, NextHop};

/// Most times that an AS number is prepended.
pub const MAX_PREPEND: u8 = 32;

/// Changes to a route. By default none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Actions {
    /// LOCAL_PREF from now on. External peers are never told one.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC from now on.
    pub med: Option<MedChange>,
    /// COMMUNITIES from now on.
    pub communities: ListChange<Community, CommunityPattern>,
    /// LARGE_COMMUNITY from now on (RFC 8092).
    pub large_communities: ListChange<LargeCommunity, LargePattern>,
    /// EXTENDED COMMUNITIES from now on (RFC 4360).
    pub ext_communities: ListChange<ExtendedCommunity, ExtendedPattern>,
    /// How often an AS number is put in front of the path, up to [`MAX_PREPEND`]: on the way out
    /// our own, beside the one that is put there anyway; on the way in the neighbour's once more.
    pub prepend: u8,
    /// The next hop from now on; absent: as the RFCs have it.
    pub next_hop: Option<NextHopChoice>,
}

/// A change of MULTI_EXIT_DISC. A route without one counts as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MedChange {
    /// This value.
    Set(u32),
    /// So much more, up to 4294967295.
    Add(u32),
    /// So much less, down to 0.
    Subtract(u32),
    /// None.
    Remove,
}

/// A change of a list of `T`; `P` are patterns of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListChange<T, P> {
    /// What goes.
    pub delete: Vec<P>,
    /// What there is instead of all there was.
    pub set: Option<Vec<T>>,
    /// What comes.
    pub add: Vec<T>,
}

/// Which next hop a route gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NextHopChoice {
    /// Ours on the session, whatever the kind of peer.
    Own,
    /// The one it has. Of a local route that is ours.
    Unchanged,
    /// This address.
    Address(IpAddr),
}

/// The next hops that a route may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHops {
    /// What the RFCs say without a policy.
    pub usual: Option<NextHop>,
    /// Ours on the session, for the family of the route.
    pub own: Option<NextHop>,
    /// What the route has; `None` for a local one.
    pub received: Option<NextHop>,
}

impl<T, P> Default for ListChange<T, P> {
    fn default() -> Self {
        ListChange {
            delete: Vec::new(),
            set: None,
            add: Vec::new(),
        }
    }
}

impl<T: Copy + PartialEq, P> ListChange<T, P> {
    fn is_empty(&self) -> bool {
        self.delete.is_empty() && self.set.is_none() && self.add.is_empty()
    }

    fn apply(&self, list: &mut Vec<T>, matches: impl Fn(&P, T) -> bool) {
        match &self.set {
            Some(set) => list.clone_from(set),
            None => list.retain(|entry| !self.delete.iter().any(|p| matches(p, *entry))),
        }
        for entry in &self.add {
            if !list.contains(entry) {
                list.push(*entry);
            }
        }
    }
}

impl NextHopChoice {
    /// The next hop that is meant; `None` if there is none of that kind.
    pub fn choose(self, hops: &NextHops) -> Option<NextHop> {
        match self {
            NextHopChoice::Own => hops.own,
            NextHopChoice::Unchanged => hops.received.or(hops.own),
            NextHopChoice::Address(address) => Some(address.into()),
        }
    }

    /// Whether routes of the family can have such a next hop: IPv4 routes may go by an IPv6 one
    /// (RFC 8950), not the other way round.
    pub(super) fn serves(self, family: Family) -> bool {
        let address = match self {
            NextHopChoice::Address(address) => address,
            NextHopChoice::Own | NextHopChoice::Unchanged => return true,
        };
        address.is_ipv6() || family == Family::Ipv4Unicast
    }
}

impl Actions {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == Actions::default()
    }

    /// Changes everything but the next hop. `asn` is what is prepended.
    pub(super) fn apply(&self, attributes: &mut RouteAttributes, asn: Option<u32>) {
        if let Some(local_pref) = self.local_pref {
            attributes.local_pref = Some(local_pref);
        }
        let med = attributes.med.unwrap_or(0);
        attributes.med = match self.med {
            None => attributes.med,
            Some(MedChange::Set(value)) => Some(value),
            Some(MedChange::Add(more)) => Some(med.saturating_add(more)),
            Some(MedChange::Subtract(less)) => Some(med.saturating_sub(less)),
            Some(MedChange::Remove) => None,
        };
        if !self.communities.is_empty() {
            let mut communities = std::mem::take(&mut attributes.communities).into_vec();
            self.communities
                .apply(&mut communities, |pattern, one| pattern.matches(one));
            attributes.communities = communities.into();
        }
        if !self.large_communities.is_empty() || !self.ext_communities.is_empty() {
            attributes.rare.change(|rare| {
                self.large_communities
                    .apply(&mut rare.large_communities, |pattern, one| {
                        pattern.matches(one)
                    });
                self.ext_communities
                    .apply(&mut rare.ext_communities, |pattern, one| {
                        pattern.matches(one)
                    });
            });
        }
        if self.prepend > 0
            && let Some(asn) = asn
        {
            attributes.as_path = attributes.as_path.prepended(asn, usize::from(self.prepend));
        }
    }
}

/// `set = { ... }`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Set {
    pub(super) local_pref: Option<u32>,
    pub(super) med: Option<u32>,
    pub(super) communities: Option<Vec<Community>>,
    pub(super) large_communities: Option<Vec<LargeCommunity>>,
    pub(super) ext_communities: Option<Vec<ExtendedCommunity>>,
    pub(super) next_hop: Option<NextHopChoice>,
}

/// `add = { ... }`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Add {
    pub(super) med: Option<u32>,
    #[serde(default, deserialize_with = "one_or_many")]
    pub(super) communities: Vec<Community>,
    #[serde(default, deserialize_with = "one_or_many")]
    pub(super) large_communities: Vec<LargeCommunity>,
    #[serde(default, deserialize_with = "one_or_many")]
    pub(super) ext_communities: Vec<ExtendedCommunity>,
}

/// `subtract = { ... }`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subtract {
    pub(super) med: Option<u32>,
}

/// `delete = { ... }`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delete {
    #[serde(default)]
    pub(super) med: bool,
    #[serde(default, deserialize_with = "one_or_many")]
    pub(super) communities: Vec<CommunityPattern>,
    #[serde(default, deserialize_with = "one_or_many")]
    pub(super) large_communities: Vec<LargePattern>,
    #[serde(default, deserialize_with = "one_or_many")]
    pub(super) ext_communities: Vec<ExtendedPattern>,
}

impl Actions {
    /// What a rule says; the text of an error names the fields.
    pub(super) fn written(
        set: Set,
        add: Add,
        subtract: Subtract,
        delete: Delete,
        prepend: u8,
    ) -> Result<Actions, String> {
        let mut changes = [
            set.med.map(MedChange::Set),
            add.med.map(MedChange::Add),
            subtract.med.map(MedChange::Subtract),
            delete.med.then_some(MedChange::Remove),
        ]
        .into_iter()
        .flatten();
        let med = changes.next();
        if changes.next().is_some() {
            return Err("med is set, added to, subtracted from or deleted: choose one".to_owned());
        }
        if prepend > MAX_PREPEND {
            return Err(format!("prepend {prepend} exceeds {MAX_PREPEND}"));
        }
        Ok(Actions {
            local_pref: set.local_pref,
            med,
            communities: ListChange {
                delete: delete.communities,
                set: set.communities,
                add: add.communities,
            },
            large_communities: ListChange {
                delete: delete.large_communities,
                set: set.large_communities,
                add: add.large_communities,
            },
            ext_communities: ListChange {
                delete: delete.ext_communities,
                set: set.ext_communities,
                add: add.ext_communities,
            },
            prepend,
            next_hop: set.next_hop,
        })
    }
}

impl<'de> Deserialize<'de> for NextHopChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        match &*text {
            "self" => Ok(NextHopChoice::Own),
            "unchanged" => Ok(NextHopChoice::Unchanged),
            _ => text
                .parse()
                .ok()
                .filter(|a: &IpAddr| !a.is_unspecified() && !a.is_multicast())
                .map(NextHopChoice::Address)
                .ok_or_else(|| {
                    de::Error::custom(format!(
                        "next_hop {text:?} is neither \"self\", \"unchanged\" nor the address of \
                         a host"
                    ))
                }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::wire::AsPath;

    fn route() -> RouteAttributes {
        let mut route = RouteAttributes::originated(NextHop::V4(Ipv4Addr::new(10, 0, 0, 1)));
        route.as_path = AsPath::sequence([65002, 65003]);
        route.communities = ["65001:1", "65001:2", "65002:1"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        route
    }

    #[test]
    fn communities_are_deleted_or_set_and_then_added() {
        // delete, set, add, outcome
        type Row = (
            &'static [&'static str],
            Option<&'static [&'static str]>,
            &'static [&'static str],
            &'static [&'static str],
        );
        let rows: [Row; 6] = [
            (&[], None, &[], &["65001:1", "65001:2", "65002:1"]),
            (&["65001:*"], None, &[], &["65002:1"]),
            (&["65001:1", "*:1"], None, &[], &["65001:2"]),
            (&["*"], None, &["65001:1", "65001:1"], &["65001:1"]),
            (&[], Some(&[]), &["65009:9"], &["65009:9"]),
            (
                &["*"],
                Some(&["65001:7"]),
                &["65001:2"],
                &["65001:7", "65001:2"],
            ),
        ];
        let all = |texts: &[&str]| -> Vec<Community> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        for (delete, set, add, expected) in rows {
            let actions = Actions {
                communities: ListChange {
                    delete: delete.iter().map(|text| text.parse().unwrap()).collect(),
                    set: set.map(all),
                    add: all(add),
                },
                ..Actions::default()
            };
            let mut changed = route();
            actions.apply(&mut changed, None);
            assert_eq!(*changed.communities, all(expected), "{actions:?}");
        }
    }

    #[test]
    fn the_rarer_communities_change_alike() {
        let large = |text: &str| text.parse::<LargeCommunity>().unwrap();
        let ext = |text: &str| text.parse::<ExtendedCommunity>().unwrap();
        let mut changed = route();
        let actions = Actions {
            large_communities: ListChange {
                add: vec![large("65001:1:2"), large("65002:1:2")],
                ..ListChange::default()
            },
            ext_communities: ListChange {
                set: Some(vec![ext("rt:65001:1"), ext("ro:65001:1")]),
                ..ListChange::default()
            },
            ..Actions::default()
        };
        actions.apply(&mut changed, None);
        let actions = Actions {
            large_communities: ListChange {
                delete: vec!["65001:*:*".parse().unwrap()],
                ..ListChange::default()
            },
            ext_communities: ListChange {
                delete: vec!["rt:*".parse().unwrap()],
                ..ListChange::default()
            },
            ..Actions::default()
        };
        actions.apply(&mut changed, None);
        assert_eq!(changed.rare.large_communities, [large("65002:1:2")]);
        assert_eq!(changed.rare.ext_communities, [ext("ro:65001:1")]);
        let all = Actions {
            large_communities: ListChange {
                set: Some(Vec::new()),
                ..ListChange::default()
            },
            ext_communities: ListChange {
                delete: vec!["*".parse().unwrap()],
                ..ListChange::default()
            },
            ..Actions::default()
        };
        all.apply(&mut changed, None);
        assert_eq!(changed, route(), "nothing rare is left behind");
    }

    #[test]
    fn the_med_changes_within_its_bounds() {
        let rows = [
            (Some(5), None, Some(5)),
            (None, Some(MedChange::Set(7)), Some(7)),
            (Some(5), Some(MedChange::Set(7)), Some(7)),
            (None, Some(MedChange::Add(7)), Some(7)),
            (Some(5), Some(MedChange::Add(7)), Some(12)),
            (Some(u32::MAX), Some(MedChange::Add(7)), Some(u32::MAX)),
            (Some(5), Some(MedChange::Subtract(2)), Some(3)),
            (Some(5), Some(MedChange::Subtract(7)), Some(0)),
            (Some(5), Some(MedChange::Remove), None),
        ];
        for (before, med, after) in rows {
            let mut changed = route();
            changed.med = before;
            let actions = Actions {
                med,
                ..Actions::default()
            };
            actions.apply(&mut changed, None);
            assert_eq!(changed.med, after, "{before:?} {med:?}");
        }
    }

    #[test]
    fn preference_and_path() {
        let actions = Actions {
            local_pref: Some(200),
            prepend: 2,
            ..Actions::default()
        };
        let mut changed = route();
        actions.apply(&mut changed, Some(65001));
        assert_eq!(changed.local_pref, Some(200));
        assert_eq!(changed.as_path.to_string(), "65001 65001 65002 65003");
        let mut unchanged = route();
        Actions::default().apply(&mut unchanged, Some(65001));
        assert_eq!(unchanged, route());
        assert!(Actions::default().is_empty() && !actions.is_empty());
    }

    #[test]
    fn next_hops_are_chosen() {
        let hop = |last| Some(NextHop::V4(Ipv4Addr::new(10, 0, 0, last)));
        let hops = NextHops {
            usual: hop(1),
            own: hop(2),
            received: hop(3),
        };
        let local = NextHops {
            received: None,
            ..hops
        };
        let elsewhere = NextHopChoice::Address(Ipv4Addr::new(10, 0, 0, 9).into());
        for (choice, hops, expected) in [
            (NextHopChoice::Own, hops, hop(2)),
            (NextHopChoice::Own, NextHops { own: None, ..hops }, None),
            (NextHopChoice::Unchanged, hops, hop(3)),
            (NextHopChoice::Unchanged, local, hop(2)),
            (elsewhere, hops, hop(9)),
        ] {
            assert_eq!(choice.choose(&hops), expected, "{choice:?}");
        }
    }
}
