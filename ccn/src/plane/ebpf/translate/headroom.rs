//! How full everything is, and what permits would take beside it. Nothing is changed by asking.

use std::collections::{BTreeMap, BTreeSet};

use bgp::{Family, Prefix};

use super::super::addresses::MAX_SPARSE;
use super::super::layout::{HOST_MAX, LENGTHS};
use super::super::lengths::LengthCounts;
use super::super::memory::Memory;
use super::super::places::MAX_SLOTS;
use super::{MAX_CLASSICS, MAX_SUBNETS, Translator};
use crate::plane::entry::{EntryKey, EntryValue};
use crate::plane::{Forecast, Limit};
use crate::record::LinkId;

impl<M: Memory> Translator<M> {
    /// How full everything is.
    pub(crate) fn limits(&self) -> Vec<Limit> {
        let limit = |name, used: usize, max: usize| Limit {
            name,
            used: used as u64,
            max: max as u64,
        };
        let of =
            |counts: &BTreeMap<Family, usize>, family| counts.get(&family).copied().unwrap_or(0);
        let (v4, v6) = (Family::Ipv4Unicast, Family::Ipv6Unicast);
        let places = self.addresses.places();
        let longest_list = |lists: &mut dyn Iterator<Item = usize>| lists.max().unwrap_or(0);
        let in_scope = longest_list(
            &mut self
                .scopes
                .values()
                .flat_map(|scope| [v4, v6].map(|family| scope.lengths.used(family))),
        );
        let in_vpc = longest_list(
            &mut self
                .vpcs
                .values()
                .flat_map(|vpc| [v4, v6].map(|family| vpc.classics.used(family))),
        );
        let linked = [v4, v6].map(|family| self.linked_lengths.used(family));
        vec![
            limit("vpcs", self.counters.used(), self.counters.max() as usize),
            limit("links", self.links.used(), self.links.max() as usize),
            limit("subnets-ipv4", of(&self.subnets, v4), MAX_SUBNETS),
            limit("subnets-ipv6", of(&self.subnets, v6), MAX_SUBNETS),
            limit(
                "classic-prefixes-ipv4",
                of(&self.classics, v4),
                MAX_CLASSICS,
            ),
            limit(
                "classic-prefixes-ipv6",
                of(&self.classics, v6),
                MAX_CLASSICS,
            ),
            limit("hosts", places.hosts(), HOST_MAX.into()),
            limit("slots", places.slots() as usize, MAX_SLOTS as usize),
            limit("sparse-addresses", self.addresses.sparse(), MAX_SPARSE),
            limit("subnet-lengths-of-a-ccsi", in_scope, LENGTHS),
            limit("classic-lengths-of-a-vpc", in_vpc, LENGTHS),
            limit(
                "linked-lengths",
                linked.into_iter().max().unwrap_or(0),
                LENGTHS - 1,
            ),
        ]
    }

    /// What these permits would take, as if none of them were refused.
    pub(crate) fn forecast(&self, permits: &BTreeMap<EntryKey, EntryValue>) -> Forecast {
        let mut links: BTreeSet<&LinkId> = BTreeSet::new();
        let mut classics: BTreeSet<(u32, Prefix)> = BTreeSet::new();
        let mut linked: BTreeSet<Prefix> = BTreeSet::new();
        for key in permits.keys() {
            let EntryKey::Permit {
                link,
                vni,
                subnet,
                classic,
            } = key
            else {
                continue;
            };
            if self.links.of(link).is_none() {
                links.insert(link);
            }
            let vpc = self.vpcs.get(&vni.number());
            if vpc.is_none_or(|vpc| !vpc.permits.contains_key(classic)) {
                classics.insert((vni.number(), *classic));
            }
            if !self.linked.contains_key(subnet) {
                linked.insert(*subnet);
            }
        }
        let mut limits = self.limits();
        for limit in &mut limits {
            match limit.name {
                "links" => limit.used += links.len() as u64,
                "classic-prefixes-ipv4" => limit.used += of(&classics, Family::Ipv4Unicast),
                "classic-prefixes-ipv6" => limit.used += of(&classics, Family::Ipv6Unicast),
                "linked-lengths" => {
                    let used = most_lengths(self.linked_lengths.clone(), linked.iter());
                    limit.used = limit.used.max(used);
                }
                "classic-lengths-of-a-vpc" => {
                    let vpcs: BTreeSet<u32> = classics.iter().map(|(vni, _)| *vni).collect();
                    let used = vpcs.into_iter().map(|vni| {
                        let before = self.vpcs.get(&vni).map(|vpc| vpc.classics.clone());
                        let own = classics.iter().filter(|(of, _)| *of == vni);
                        let own = own.map(|(_, new)| new);
                        most_lengths(before.unwrap_or_default(), own)
                    });
                    limit.used = limit.used.max(used.max().unwrap_or(0));
                }
                _ => {}
            }
        }
        let kinds = [
            ("link counters", links.len()),
            ("classic prefixes", classics.len()),
            ("linked subnets", linked.len()),
        ];
        let objects = kinds.into_iter().filter(|(_, count)| *count > 0);
        Forecast {
            objects: objects.map(|(kind, count)| (kind, count as u64)).collect(),
            limits,
        }
    }
}

fn of(classics: &BTreeSet<(u32, Prefix)>, family: Family) -> u64 {
    let of = classics.iter().filter(|(_, new)| new.family() == family);
    of.count() as u64
}

/// How many lengths the family with the most would have.
fn most_lengths<'a>(mut counts: LengthCounts, new: impl Iterator<Item = &'a Prefix>) -> u64 {
    for prefix in new {
        counts.add(prefix);
    }
    let used = Family::ALL.map(|family| counts.used(family));
    used.into_iter().max().unwrap_or(0) as u64
}
