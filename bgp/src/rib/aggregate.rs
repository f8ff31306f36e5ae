//! Which routes of our own are told when some are aggregates of others.
//!
//! Told what the user announces and withdraws, [`Aggregates`] says what that means for the routes
//! to be told. It knows prefixes only: what a route says is `T`, kept and handed back.
//!
//! An announced route *contributes* to every aggregate around it, unless the user says otherwise,
//! and an aggregate is formed while something contributes to it. Inside an aggregate that is to
//! stand alone (`summary_only`) neither contributing routes nor smaller aggregates are told. A
//! route that the user announces to the very prefix of an aggregate is told in its place.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::config::Aggregate;
use crate::rib::attributes::{RareAttributes, RouteAttributes};
use crate::wire::{Aggregator, Family, NextHop, Prefix};

/// A route that is to be told from now on, or (`None`) no longer.
pub type Told<T> = (Prefix, Option<T>);

/// The configured aggregates and what is announced inside them.
#[derive(Debug)]
pub struct Aggregates<T> {
    formed_from: HashMap<Prefix, Formation<T>>,
    /// The lengths of aggregates, per family, ascending.
    lengths: BTreeMap<Family, BTreeSet<u8>>,
    /// Announced routes in or at an aggregate.
    covered: HashMap<Prefix, T>,
    /// Announced routes, wherever, that do not contribute.
    apart: HashSet<Prefix>,
}

#[derive(Debug)]
struct Formation<T> {
    summary_only: bool,
    route: T,
    contributors: usize,
}

/// What is told of a prefix.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Kind {
    Nothing,
    Announced,
    Aggregate,
}

impl Aggregate {
    /// The route that is announced for it, as one of AS `asn` and speaker `router_id`
    /// (RFC 4271 section 9.2.2.2). It always says that something was left out (ATOMIC_AGGREGATE,
    /// section 5.1.6): neither paths (RFC 9774) nor communities of what it stands for are in it.
    pub fn route(&self, asn: u32, router_id: std::net::Ipv4Addr) -> RouteAttributes {
        let ours = match self.prefix.family() {
            Family::Ipv4Unicast => NextHop::V4(std::net::Ipv4Addr::UNSPECIFIED),
            Family::Ipv6Unicast => NextHop::V6(std::net::Ipv6Addr::UNSPECIFIED),
        };
        RouteAttributes {
            atomic_aggregate: true,
            communities: self.communities.as_slice().into(),
            rare: RareAttributes {
                aggregator: Some(Aggregator { asn, router_id }),
                large_communities: self.large_communities.clone(),
                ext_communities: self.ext_communities.clone(),
                ..RareAttributes::default()
            }
            .into(),
            med: self.med,
            ..RouteAttributes::originated(ours)
        }
    }
}

impl<T: Clone + PartialEq> Aggregates<T> {
    /// These aggregates, each with what it says when it is told; nothing is announced.
    pub fn new(aggregates: impl IntoIterator<Item = (Aggregate, T)>) -> Aggregates<T> {
        let mut lengths: BTreeMap<Family, BTreeSet<u8>> = BTreeMap::new();
        let mut formed_from = HashMap::new();
        for (aggregate, route) in aggregates {
            let prefix = aggregate.prefix;
            lengths
                .entry(prefix.family())
                .or_default()
                .insert(prefix.len());
            let formation = Formation {
                summary_only: aggregate.summary_only,
                route,
                contributors: 0,
            };
            formed_from.insert(prefix, formation);
        }
        Aggregates {
            formed_from,
            lengths,
            covered: HashMap::new(),
            apart: HashSet::new(),
        }
    }

    /// Every aggregate, in order: whether it stands alone, and how many announced routes it stands
    /// for.
    pub fn formed(&self) -> Vec<(Prefix, bool, usize)> {
        let mut formed: Vec<_> = self
            .formed_from
            .iter()
            .map(|(prefix, formation)| (*prefix, formation.summary_only, formation.contributors))
            .collect();
        formed.sort_unstable();
        formed
    }

    /// Whether there is neither an aggregate nor a route that would not contribute to one: what is
    /// announced is what is told.
    pub fn is_idle(&self) -> bool {
        self.formed_from.is_empty() && self.apart.is_empty()
    }

    /// The user announces a route, perhaps in place of another one to that prefix. `contributes`:
    /// aggregates may be formed from it and stand for it. Appends what is to be told.
    pub fn announce(
        &mut self,
        prefix: Prefix,
        route: T,
        contributes: bool,
        told: &mut Vec<Told<T>>,
    ) {
        let around = self.around(&prefix);
        if around.is_empty() && !self.formed_from.contains_key(&prefix) {
            self.set_apart(prefix, !contributes);
            return told.push((prefix, Some(route)));
        }
        let before: Vec<Kind> = around.iter().map(|outer| self.kind(outer)).collect();
        let kind = self.kind(&prefix);
        if self.contributes(&prefix) {
            self.count(&around, -1);
        }
        self.set_apart(prefix, !contributes);
        let known = self.covered.insert(prefix, route);
        if contributes {
            self.count(&around, 1);
        }
        match (self.kind(&prefix), kind) {
            (Kind::Announced, Kind::Announced) if known == self.covered.get(&prefix).cloned() => {}
            (Kind::Nothing, Kind::Nothing) => {}
            _ => told.push((prefix, self.told(&prefix))),
        }
        self.compare(&around, &before, told);
    }

    /// The user withdraws a route. Appends what is to be told.
    pub fn withdraw(&mut self, prefix: Prefix, told: &mut Vec<Told<T>>) {
        if self.covered.contains_key(&prefix) {
            let around = self.around(&prefix);
            let before: Vec<Kind> = around.iter().map(|outer| self.kind(outer)).collect();
            let kind = self.kind(&prefix);
            if self.contributes(&prefix) {
                self.count(&around, -1);
            }
            self.covered.remove(&prefix);
            if kind != self.kind(&prefix) {
                told.push((prefix, self.told(&prefix)));
            }
            self.compare(&around, &before, told);
        } else if !self.is_covered(&prefix) {
            told.push((prefix, None));
        }
        self.apart.remove(&prefix);
    }

    /// Other aggregates are configured. `others` are the routes of our own that are told now (of
    /// those that are aggregates nothing is taken). Appends what is to be told instead.
    pub fn reconfigure(
        &mut self,
        aggregates: impl IntoIterator<Item = (Aggregate, T)>,
        others: impl IntoIterator<Item = (Prefix, T)>,
        told: &mut Vec<Told<T>>,
    ) {
        let old = std::mem::replace(self, Aggregates::new(aggregates));
        let mut announced: BTreeMap<Prefix, T> = others
            .into_iter()
            .filter(|(prefix, _)| old.kind(prefix) != Kind::Aggregate)
            .collect();
        announced.extend(
            old.covered
                .iter()
                .map(|(prefix, route)| (*prefix, route.clone())),
        );
        for (prefix, route) in &announced {
            let contributes = !old.apart.contains(prefix);
            self.announce(*prefix, route.clone(), contributes, &mut Vec::new());
        }
        let was = |prefix: &Prefix| match old.kind(prefix) {
            Kind::Nothing if !old.is_covered(prefix) => announced.get(prefix).cloned(),
            _ => old.told(prefix),
        };
        let is = |prefix: &Prefix| match self.kind(prefix) {
            Kind::Nothing if !self.is_covered(prefix) => announced.get(prefix).cloned(),
            _ => self.told(prefix),
        };
        let all: BTreeSet<Prefix> = announced
            .keys()
            .chain(old.formed_from.keys())
            .chain(self.formed_from.keys())
            .copied()
            .collect();
        let changed = all
            .into_iter()
            .filter(|prefix| was(prefix) != is(prefix))
            .map(|prefix| (prefix, is(&prefix)));
        told.extend(changed);
    }

    /// Whether an aggregate is around the prefix or at it.
    fn is_covered(&self, prefix: &Prefix) -> bool {
        self.formed_from.contains_key(prefix) || !self.around(prefix).is_empty()
    }

    /// The aggregates around the prefix, without one at it.
    fn around(&self, prefix: &Prefix) -> Vec<Prefix> {
        let lengths = self.lengths.get(&prefix.family()).into_iter().flatten();
        lengths
            .take_while(|length| **length < prefix.len())
            .map(|length| prefix.truncated(*length))
            .filter(|outer| self.formed_from.contains_key(outer))
            .collect()
    }

    fn contributes(&self, prefix: &Prefix) -> bool {
        self.covered.contains_key(prefix) && !self.apart.contains(prefix)
    }

    fn set_apart(&mut self, prefix: Prefix, apart: bool) {
        match apart {
            true => self.apart.insert(prefix),
            false => self.apart.remove(&prefix),
        };
    }

    fn count(&mut self, around: &[Prefix], by: isize) {
        for outer in around {
            if let Some(formation) = self.formed_from.get_mut(outer) {
                formation.contributors = formation.contributors.saturating_add_signed(by);
            }
        }
    }

    /// What is told of a covered prefix.
    fn kind(&self, prefix: &Prefix) -> Kind {
        // An aggregate around something that contributes, or is formed, is formed itself.
        let hidden = || {
            let mut around = self.around(prefix).into_iter();
            around.any(|outer| self.formed_from.get(&outer).is_some_and(|f| f.summary_only))
        };
        if self.covered.contains_key(prefix) {
            match self.apart.contains(prefix) || !hidden() {
                true => Kind::Announced,
                false => Kind::Nothing,
            }
        } else {
            let formed = self
                .formed_from
                .get(prefix)
                .is_some_and(|f| f.contributors > 0);
            match formed && !hidden() {
                true => Kind::Aggregate,
                false => Kind::Nothing,
            }
        }
    }

    fn told(&self, prefix: &Prefix) -> Option<T> {
        match self.kind(prefix) {
            Kind::Nothing => None,
            Kind::Announced => self.covered.get(prefix).cloned(),
            Kind::Aggregate => self.formed_from.get(prefix).map(|f| f.route.clone()),
        }
    }

    fn compare(&self, around: &[Prefix], before: &[Kind], told: &mut Vec<Told<T>>) {
        for (outer, before) in around.iter().zip(before) {
            if self.kind(outer) != *before {
                told.push((*outer, self.told(outer)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
