//! Links beside one another: what is announced to the IDC must have one meaning.
//!
//! No classic prefix may cover a subnet that is announced or that shares the VPC's routing table,
//! no two linked VPCs may overlap, and a VPC is linked with a prefix once. Of two links that are against
//! this one is served: the one that is no standby, then the one created first. The other is wrong, unless
//! it is a standby.

use std::collections::{BTreeMap, BTreeSet};

use bgp::Prefix;

use super::effects::Work;
use super::prefixes::PrefixMap;
use super::{Inventory, Slot};
use crate::record::{
    ClassicName, ClassicRef, Conflict, Dscp, GroupName, Link, LinkId, Mode, Reason, RecordKey,
    Standing, VpcId,
};
use crate::store::Generation;

/// Who is right: the lowest. A standby comes after all that are none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkRank {
    standby: bool,
    created: Generation,
    id: LinkId,
}

impl LinkRank {
    fn new(id: LinkId, created: Generation, link: &Link) -> LinkRank {
        LinkRank {
            standby: link.standby,
            created,
            id,
        }
    }
}

/// All links whose record parses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Links {
    slots: BTreeMap<LinkId, Slot<Link, Option<LinkState>>>,
    naming_vpc: BTreeMap<VpcId, BTreeSet<LinkRank>>,
    naming_classic: BTreeMap<ClassicName, BTreeSet<LinkRank>>,
    /// Those that are not accepted.
    waiting: BTreeSet<LinkRank>,
    /// Those of them that are a standby and only wait for another link.
    standing_by: BTreeMap<LinkId, StandsBy>,
    /// The VPCs that accepted links join.
    linked: BTreeMap<VpcId, Linked>,
    /// The subnets of those VPCs, which never overlap.
    subnets: PrefixMap<VpcId>,
    /// The classic prefixes of accepted links.
    classic: PrefixMap<BTreeSet<LinkRank>>,
    /// Links whose last change is to be confirmed by then, in seconds since 1970.
    unconfirmed: BTreeSet<(u64, LinkId)>,
}

/// A VPC with at least one accepted link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Linked {
    subnets: Vec<Prefix>,
    links: BTreeSet<LinkRank>,
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

/// Why a standby is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandsBy {
    /// The field of its record that asks for what another link has.
    pub field: String,
    /// What that is.
    pub conflict: Conflict,
}

impl StandsBy {
    /// The link that it waits for.
    pub fn behind(&self) -> &LinkId {
        self.conflict.by()
    }
}

impl std::fmt::Display for StandsBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.conflict)
    }
}

/// What stands in the way of a link.
enum Obstacle {
    /// It is wrong by itself, or beside records that are no links.
    Fault(String, Reason),
    /// A link of lower rank: the field, and the conflict.
    Link(String, Conflict),
}

/// What stands in the way of a link: nothing, but for links of higher rank.
type Verdict = Result<BTreeSet<LinkRank>, Obstacle>;

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
    pub(super) fn naming(&self, vpc: &VpcId) -> impl Iterator<Item = LinkRank> {
        self.naming_vpc.get(vpc).into_iter().flatten().cloned()
    }

    fn waiting_after(&self, rank: &LinkRank) -> impl Iterator<Item = LinkRank> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.waiting
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

    /// Why a link is not served although nothing is wrong with it: it is a standby, and another has its place.
    pub fn stands_by(&self, id: &LinkId) -> Option<&StandsBy> {
        self.links.standing_by.get(id)
    }

    /// How many links stand by.
    pub fn standing_by(&self) -> usize {
        self.links.standing_by.len()
    }

    /// Every link of the store that parses, by id, accepted or not.
    pub fn link_records(&self) -> impl Iterator<Item = (&LinkId, &Link)> {
        self.links.slots.iter().map(|(id, slot)| (id, &slot.record))
    }

    /// The record of a link, if it parses, accepted or not.
    pub fn link_record(&self, id: &LinkId) -> Option<&Link> {
        Some(&self.links.slots.get(id)?.record)
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
        links.filter_map(|rank| Some((&rank.id, self.link(&rank.id)?)))
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
        covering.flat_map(|(prefix, links)| links.iter().map(move |rank| (prefix, &rank.id)))
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
        let rank = LinkRank::new(id.clone(), created, &link);
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
        self.links.waiting.insert(rank.clone());
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
        let rank = LinkRank::new(id.clone(), slot.created, &slot.record);
        self.release_link(&rank, work);
        self.links.waiting.remove(&rank);
        self.links.standing_by.remove(id);
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
            let Some(slot) = self.links.slots.get(&rank.id) else {
                continue;
            };
            if LinkRank::new(rank.id.clone(), slot.created, &slot.record) != rank {
                continue;
            }
            let accepted = slot.state.is_some();
            let verdict = match self.resolve(&slot.record) {
                Ok(classic) => self
                    .link_verdict(&rank, &slot.record.vpc, &classic)
                    .map(|displaced| (classic, displaced)),
                Err((field, reason)) => Err(Obstacle::Fault(field, reason)),
            };
            let (mut fault, mut stands_by) = (None, None);
            match verdict {
                Ok((classic, displaced)) if !accepted => {
                    for other in displaced {
                        self.release_link(&other, work);
                        work.links.insert(other);
                    }
                    self.accept_link(&rank, classic, work);
                }
                Ok(_) => {}
                Err(obstacle) => {
                    self.release_link(&rank, work);
                    match obstacle {
                        Obstacle::Fault(field, reason) => fault = Some((field, reason)),
                        Obstacle::Link(field, conflict) if rank.standby => {
                            stands_by = Some(StandsBy { field, conflict });
                        }
                        Obstacle::Link(field, conflict) => {
                            fault = Some((field, Reason::Conflict(Box::new(conflict))));
                        }
                    }
                }
            }
            match stands_by {
                Some(why) => drop(self.links.standing_by.insert(rank.id.clone(), why)),
                None => drop(self.links.standing_by.remove(&rank.id)),
            }
            self.quarantine
                .set_fault(&RecordKey::Link(rank.id), fault, work);
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
        rank: &LinkRank,
        vpc: &VpcId,
        classic: &BTreeMap<Prefix, usize>,
    ) -> Verdict {
        let mut displaced = BTreeSet::new();
        let mut in_the_way = |links: &BTreeSet<LinkRank>| -> Option<LinkId> {
            let first = links.iter().find(|other| *other != rank)?;
            if first < rank {
                return Some(first.id.clone());
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

        // What is wrong whatever other links there are comes first: no standby waits for that.
        for (prefix, index) in classic {
            let near = self.neighbours_overlapping(vpc, *prefix);
            if let Some((subnet, other)) = near.into_iter().min() {
                let how = if other == *vpc {
                    Standing::Own
                } else {
                    Standing::SameCcsi
                };
                let reason = Reason::ClassicOverlapsSubnet {
                    classic: *prefix,
                    subnet,
                    vpc: other,
                    how,
                };
                return Err(Obstacle::Fault(format!("classic[{index}]"), reason));
            }
        }
        for (prefix, index) in classic {
            let conflict = |conflict| Err(Obstacle::Link(format!("classic[{index}]"), conflict));
            let classic = *prefix;
            let same = linked(vpc).iter().filter(|rank| {
                self.link(&rank.id)
                    .is_some_and(|other| other.classic.binary_search(prefix).is_ok())
            });
            if let Some(by) = in_the_way(&same.cloned().collect()) {
                let vpc = vpc.clone();
                return conflict(Conflict::LinkedTwice { classic, vpc, by });
            }
            for (subnet, other) in self.links.subnets.overlapping(*prefix) {
                if let Some(by) = in_the_way(linked(other)) {
                    return conflict(Conflict::ClassicOverlapsSubnet {
                        classic,
                        subnet,
                        vpc: other.clone(),
                        by,
                    });
                }
            }
        }
        let subnets = self
            .vpcs
            .accepted(vpc)
            .map(|(vpc, _)| vpc.subnets.as_slice());
        for subnet in subnets.unwrap_or_default() {
            let conflict = |conflict| Err(Obstacle::Link("vpc".to_owned(), conflict));
            let (subnet, vpc) = (*subnet, vpc.clone());
            for (classic, links) in self.links.classic.overlapping(subnet) {
                if let Some(by) = in_the_way(links) {
                    // It is accepted, or it would have no classic prefixes here.
                    let other = self
                        .link(&by)
                        .map_or_else(|| vpc.clone(), |l| l.vpc.clone());
                    return conflict(Conflict::SubnetOverlapsClassic {
                        subnet,
                        vpc,
                        classic,
                        other,
                        by,
                    });
                }
            }
            for (other_subnet, other) in self.links.subnets.overlapping(subnet) {
                if *other != vpc
                    && let Some(by) = in_the_way(linked(other))
                {
                    return conflict(Conflict::LinkedSubnetsOverlap {
                        subnet,
                        vpc,
                        other_subnet,
                        other: other.clone(),
                        by,
                    });
                }
            }
        }
        Ok(displaced)
    }

    fn accept_link(&mut self, rank: &LinkRank, classic: BTreeMap<Prefix, usize>, work: &mut Work) {
        self.touch_link(&rank.id, work);
        let Some(slot) = self.links.slots.get_mut(&rank.id) else {
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
        self.links.waiting.remove(rank);
        work.links.extend(self.links.waiting_after(rank));
    }

    /// Takes an accepted link out; those it was in the way of are looked at again.
    fn release_link(&mut self, rank: &LinkRank, work: &mut Work) {
        self.touch_link(&rank.id, work);
        let Some(slot) = self.links.slots.get_mut(&rank.id) else {
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
        work.links.extend(self.links.waiting_after(rank));
        self.links.waiting.insert(rank.clone());
    }
}

/// The classic networks that a link names.
fn names(link: &Link) -> impl Iterator<Item = &ClassicName> {
    link.classic.iter().filter_map(|item| match item {
        ClassicRef::Name(name) => Some(name),
        ClassicRef::Prefix(_) => None,
    })
}

fn drop_rank<K: Ord>(index: &mut BTreeMap<K, BTreeSet<LinkRank>>, key: &K, rank: &LinkRank) {
    if let Some(ranks) = index.get_mut(key) {
        ranks.remove(rank);
        if ranks.is_empty() {
            index.remove(key);
        }
    }
}
