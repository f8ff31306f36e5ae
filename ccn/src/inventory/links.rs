//! Links beside one another: what is announced to the IDC must have one meaning.
//!
//! No classic prefix may cover a subnet that is announced or that shares the VPC's routing table,
//! no two linked VPCs may overlap, and a VPC is linked with a prefix once.

use std::collections::{BTreeMap, BTreeSet};

use bgp::Prefix;

use super::effects::Work;
use super::prefixes::PrefixMap;
use super::{Inventory, Rank, Slot};
use crate::record::{
    ClassicName, ClassicRef, Dscp, GroupName, Link, LinkId, Mode, Reason, RecordKey, Standing,
    VpcId,
};
use crate::store::Generation;

/// All links whose record parses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Links {
    slots: BTreeMap<LinkId, Slot<Link, Option<LinkState>>>,
    naming_vpc: BTreeMap<VpcId, BTreeSet<Rank<LinkId>>>,
    naming_classic: BTreeMap<ClassicName, BTreeSet<Rank<LinkId>>>,
    quarantined: BTreeSet<Rank<LinkId>>,
    /// The VPCs that accepted links join.
    linked: BTreeMap<VpcId, Linked>,
    /// The subnets of those VPCs, which never overlap.
    subnets: PrefixMap<VpcId>,
    /// The classic prefixes of accepted links.
    classic: PrefixMap<BTreeSet<Rank<LinkId>>>,
    /// Links whose last change is to be confirmed by then, in seconds since 1970.
    unconfirmed: BTreeSet<(u64, LinkId)>,
}

/// A VPC with at least one accepted link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Linked {
    subnets: Vec<Prefix>,
    links: BTreeSet<Rank<LinkId>>,
}

/// An accepted link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    /// The VPC.
    pub vpc: VpcId,
    /// The classic side with names resolved: sorted, none twice.
    pub classic: Vec<Prefix>,
    /// Gateways that serve it.
    pub group: GroupName,
    /// Who may open connections.
    pub mode: Mode,
    /// DSCP of the outer header, if the link sets one.
    pub dscp: Option<Dscp>,
    /// It is in the way of others, and that is all.
    pub disabled: bool,
}

impl LinkState {
    /// Whether gateways of this group announce and forward what the link joins.
    pub fn is_served_by(&self, group: &GroupName) -> bool {
        !self.disabled && self.group == *group
    }
}

/// What stands in the way of a link: nothing, but for links of higher rank.
type Verdict = Result<BTreeSet<Rank<LinkId>>, (String, Reason)>;

impl Links {
    pub(super) fn slot(&self, id: &LinkId) -> Option<&Slot<Link, Option<LinkState>>> {
        self.slots.get(id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = RecordKey> {
        self.slots.keys().cloned().map(RecordKey::Link)
    }

    /// The links that name a VPC.
    pub(super) fn naming(&self, vpc: &VpcId) -> impl Iterator<Item = Rank<LinkId>> {
        self.naming_vpc.get(vpc).into_iter().flatten().cloned()
    }

    fn quarantined_after(&self, rank: &Rank<LinkId>) -> impl Iterator<Item = Rank<LinkId>> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.quarantined
            .range((Excluded(rank.clone()), Unbounded))
            .cloned()
    }
}

impl Inventory {
    /// An accepted link.
    pub fn link(&self, id: &LinkId) -> Option<&LinkState> {
        self.links.slots.get(id)?.state.as_ref()
    }

    /// The accepted links, by id.
    pub fn links(&self) -> impl Iterator<Item = (&LinkId, &LinkState)> {
        self.links
            .slots
            .iter()
            .filter_map(|(id, slot)| Some((id, slot.state.as_ref()?)))
    }

    /// Every link of the store that parses, by id, accepted or not.
    pub fn link_records(&self) -> impl Iterator<Item = (&LinkId, &Link)> {
        self.links.slots.iter().map(|(id, slot)| (id, &slot.record))
    }

    /// Links whose last change is to be confirmed, with the second since 1970 by when: the most urgent first.
    pub fn unconfirmed(&self) -> impl Iterator<Item = (u64, &LinkId)> {
        let unconfirmed = self.links.unconfirmed.iter();
        unconfirmed.map(|(by, id)| (*by, id))
    }

    /// The accepted links of a VPC, the earliest first.
    pub fn links_of(&self, vpc: &VpcId) -> impl Iterator<Item = (&LinkId, &LinkState)> {
        let links = self
            .links
            .linked
            .get(vpc)
            .into_iter()
            .flat_map(|linked| &linked.links);
        links.filter_map(|(_, id)| Some((id, self.link(id)?)))
    }

    /// The linked VPC that an address belongs to, and by which subnet: there is one at most.
    pub fn linked_vpc(&self, addr: std::net::IpAddr) -> Option<(Prefix, &VpcId)> {
        self.links.subnets.longest(addr)
    }

    /// The accepted links that have a classic prefix which holds the address.
    pub fn links_with_classic(
        &self,
        addr: std::net::IpAddr,
    ) -> impl Iterator<Item = (Prefix, &LinkId)> {
        let covering = self.links.classic.covering(Prefix::host(addr));
        covering.flat_map(|(prefix, links)| links.iter().map(move |(_, id)| (prefix, id)))
    }

    fn touch_link(&self, id: &LinkId, work: &mut Work) {
        if !work.effects.links.contains_key(id) {
            work.effects
                .links
                .insert(id.clone(), self.link(id).cloned());
        }
    }

    pub(super) fn insert_link(
        &mut self,
        id: LinkId,
        created: Generation,
        link: Link,
        work: &mut Work,
    ) {
        let rank = (created, id.clone());
        self.links
            .naming_vpc
            .entry(link.vpc.clone())
            .or_default()
            .insert(rank.clone());
        for name in names(&link) {
            self.links
                .naming_classic
                .entry(name.clone())
                .or_default()
                .insert(rank.clone());
        }
        self.links.quarantined.insert(rank.clone());
        if let Some(by) = link.confirm_by {
            self.links.unconfirmed.insert((by, id.clone()));
        }
        self.links.slots.insert(
            id,
            Slot {
                created,
                record: link,
                state: None,
            },
        );
        work.links.insert(rank);
    }

    pub(super) fn remove_link(&mut self, id: &LinkId, work: &mut Work) {
        let Some(slot) = self.links.slots.get(id) else {
            return;
        };
        let rank = (slot.created, id.clone());
        self.release_link(&rank, work);
        self.links.quarantined.remove(&rank);
        let Some(slot) = self.links.slots.remove(id) else {
            return;
        };
        if let Some(by) = slot.record.confirm_by {
            self.links.unconfirmed.remove(&(by, id.clone()));
        }
        drop_rank(&mut self.links.naming_vpc, &slot.record.vpc, &rank);
        for name in names(&slot.record) {
            drop_rank(&mut self.links.naming_classic, name, &rank);
        }
    }

    /// Has every link of a VPC looked at again: the VPC came, went or changed its subnets.
    pub(super) fn reconsider_links_of(&mut self, vpc: &VpcId, work: &mut Work) {
        for rank in self.links.naming(vpc).collect::<Vec<_>>() {
            self.release_link(&rank, work);
            work.links.insert(rank);
        }
    }

    /// The same for every link that names a classic network, which is about to change.
    pub(super) fn reconsider_links_naming(&mut self, name: &ClassicName, work: &mut Work) {
        let naming = self.links.naming_classic.get(name).into_iter().flatten();
        for rank in naming.cloned().collect::<Vec<_>>() {
            self.release_link(&rank, work);
            work.links.insert(rank);
        }
    }

    pub(super) fn settle_links(&mut self, work: &mut Work) {
        while let Some(rank) = work.links.pop_first() {
            let Some(slot) = self.links.slots.get(&rank.1) else {
                continue;
            };
            if slot.created != rank.0 {
                continue;
            }
            let accepted = slot.state.is_some();
            let resolved = self.resolve(&slot.record);
            let verdict = match &resolved {
                Ok(classic) => self.link_verdict(&rank, &slot.record.vpc, classic),
                Err(fault) => Err(fault.clone()),
            };
            let fault = match (verdict, resolved) {
                (Ok(displaced), Ok(classic)) if !accepted => {
                    for other in displaced {
                        self.release_link(&other, work);
                        work.links.insert(other);
                    }
                    self.accept_link(&rank, classic, work);
                    None
                }
                (Err(fault), _) | (Ok(_), Err(fault)) => {
                    self.release_link(&rank, work);
                    Some(fault)
                }
                (Ok(_), Ok(_)) => None,
            };
            self.quarantine
                .set_fault(&RecordKey::Link(rank.1), fault, work);
        }
    }

    /// The prefixes of a link's classic side, each with the index of its item: sorted, none twice.
    fn resolve(&self, link: &Link) -> Result<BTreeMap<Prefix, usize>, (String, Reason)> {
        let Some((vpc, _)) = self.vpcs.accepted(&link.vpc) else {
            return Err(("vpc".to_owned(), Reason::UnknownVpc(link.vpc.clone())));
        };
        let mut prefixes = BTreeMap::new();
        for (index, item) in link.classic.iter().enumerate() {
            match item {
                ClassicRef::Prefix(prefix) => {
                    prefixes.entry(*prefix).or_insert(index);
                }
                ClassicRef::Name(name) => {
                    let Some(classic) = self.classics.get(name) else {
                        let reason = Reason::UnknownClassic(name.clone());
                        return Err((format!("classic[{index}]"), reason));
                    };
                    for prefix in &classic.record.prefixes {
                        prefixes.entry(*prefix).or_insert(index);
                    }
                }
            }
        }
        let joins = |classic: &Prefix| vpc.subnets.iter().any(|s| s.family() == classic.family());
        if !prefixes.keys().any(joins) {
            return Err((
                "classic".to_owned(),
                Reason::NothingJoined(link.vpc.clone()),
            ));
        }
        Ok(prefixes)
    }

    /// What is wrong with a link, as far as those of lower rank go, which are settled; or who of
    /// higher rank is in its way.
    fn link_verdict(
        &self,
        rank: &Rank<LinkId>,
        vpc: &VpcId,
        classic: &BTreeMap<Prefix, usize>,
    ) -> Verdict {
        let mut displaced = BTreeSet::new();
        let mut in_the_way = |links: &BTreeSet<Rank<LinkId>>| -> Option<LinkId> {
            let first = links.iter().find(|other| *other != rank)?;
            if first < rank {
                return Some(first.1.clone());
            }
            displaced.extend(links.iter().filter(|other| *other != rank).cloned());
            None
        };
        let none = BTreeSet::new();
        let linked = |vpc: &VpcId| {
            self.links
                .linked
                .get(vpc)
                .map_or(&none, |linked| &linked.links)
        };

        for (prefix, index) in classic {
            let fault = |reason| Err((format!("classic[{index}]"), reason));
            let same = linked(vpc).iter().filter(|(_, other)| {
                self.link(other)
                    .is_some_and(|other| other.classic.binary_search(prefix).is_ok())
            });
            if let Some(by) = in_the_way(&same.cloned().collect()) {
                return fault(Reason::LinkedTwice {
                    classic: *prefix,
                    vpc: vpc.clone(),
                    by,
                });
            }
            let near = self.neighbours_overlapping(vpc, *prefix);
            if let Some((subnet, other)) = near.into_iter().min() {
                let how = if other == *vpc {
                    Standing::Linked
                } else {
                    Standing::SameCcsi
                };
                let (classic, vpc) = (*prefix, other);
                return fault(Reason::ClassicOverlapsSubnet {
                    classic,
                    subnet,
                    vpc,
                    how,
                });
            }
            for (subnet, other) in self.links.subnets.overlapping(*prefix) {
                if in_the_way(linked(other)).is_some() {
                    let (classic, vpc, how) = (*prefix, other.clone(), Standing::Linked);
                    return fault(Reason::ClassicOverlapsSubnet {
                        classic,
                        subnet,
                        vpc,
                        how,
                    });
                }
            }
        }
        let subnets = self
            .vpcs
            .accepted(vpc)
            .map(|(vpc, _)| vpc.subnets.as_slice());
        for subnet in subnets.unwrap_or_default() {
            let fault = |reason| Err(("vpc".to_owned(), reason));
            let (subnet, vpc) = (*subnet, vpc.clone());
            for (classic, links) in self.links.classic.overlapping(subnet) {
                if let Some(by) = in_the_way(links) {
                    return fault(Reason::SubnetOverlapsClassic {
                        subnet,
                        vpc,
                        classic,
                        by,
                    });
                }
            }
            for (other_subnet, other) in self.links.subnets.overlapping(subnet) {
                if *other != vpc
                    && let Some(by) = in_the_way(linked(other))
                {
                    return fault(Reason::LinkedSubnetsOverlap {
                        subnet,
                        vpc,
                        other_subnet,
                        by,
                    });
                }
            }
        }
        Ok(displaced)
    }

    fn accept_link(
        &mut self,
        rank: &Rank<LinkId>,
        classic: BTreeMap<Prefix, usize>,
        work: &mut Work,
    ) {
        self.touch_link(&rank.1, work);
        let Some(slot) = self.links.slots.get_mut(&rank.1) else {
            return;
        };
        let Link {
            vpc,
            group,
            mode,
            dscp,
            disabled,
            ..
        } = slot.record.clone();
        let classic: Vec<Prefix> = classic.into_keys().collect();
        for prefix in &classic {
            match self.links.classic.at_mut(prefix) {
                Some(links) => drop(links.insert(rank.clone())),
                None => drop(
                    self.links
                        .classic
                        .insert(*prefix, BTreeSet::from([rank.clone()])),
                ),
            }
        }
        let linked = self.links.linked.entry(vpc.clone()).or_default();
        if linked.links.is_empty() {
            linked.subnets = self
                .vpcs
                .accepted(&vpc)
                .map(|(vpc, _)| vpc.subnets.clone())
                .unwrap_or_default();
            for subnet in &linked.subnets {
                self.links.subnets.insert(*subnet, vpc.clone());
            }
        }
        linked.links.insert(rank.clone());
        slot.state = Some(LinkState {
            vpc,
            classic,
            group,
            mode,
            dscp,
            disabled,
        });
        self.links.quarantined.remove(rank);
        work.links.extend(self.links.quarantined_after(rank));
    }

    /// Takes an accepted link out; those it was in the way of are looked at again.
    fn release_link(&mut self, rank: &Rank<LinkId>, work: &mut Work) {
        self.touch_link(&rank.1, work);
        let Some(slot) = self.links.slots.get_mut(&rank.1) else {
            return;
        };
        let Some(state) = slot.state.take() else {
            return;
        };
        for prefix in &state.classic {
            if let Some(links) = self.links.classic.at_mut(prefix) {
                links.remove(rank);
                if links.is_empty() {
                    self.links.classic.remove(prefix);
                }
            }
        }
        if let Some(linked) = self.links.linked.get_mut(&state.vpc) {
            linked.links.remove(rank);
            if linked.links.is_empty() {
                for subnet in &linked.subnets {
                    self.links.subnets.remove(subnet);
                }
                self.links.linked.remove(&state.vpc);
            }
        }
        work.links.extend(self.links.quarantined_after(rank));
        self.links.quarantined.insert(rank.clone());
    }
}

/// The classic networks that a link names.
fn names(link: &Link) -> impl Iterator<Item = &ClassicName> {
    link.classic.iter().filter_map(|item| match item {
        ClassicRef::Name(name) => Some(name),
        ClassicRef::Prefix(_) => None,
    })
}

fn drop_rank<K: Ord>(
    index: &mut BTreeMap<K, BTreeSet<Rank<LinkId>>>,
    key: &K,
    rank: &Rank<LinkId>,
) {
    if let Some(ranks) = index.get_mut(key) {
        ranks.remove(rank);
        if ranks.is_empty() {
            index.remove(key);
        }
    }
}
