//! The planner: accepted records in, desired forwarding entries and announcements out.
//!
//! A plan is a function of the inventory. [`Planner::update`] makes the difference between two
//! plans from what a change touched alone; taking every difference in turn gives the same plan as
//! making it anew. It never looks at a kernel or a peer, and decides no order of change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZero;
use std::thread;

use bgp::Prefix;

use crate::inventory::{Effects, Inventory, LinkState, StandsBy, VpcState};
use crate::plane::endpoints::{Endpoint, Endpoints, Hops};
use crate::plane::entry::{EntryKey, EntryValue, Hop, ScopeId};
use crate::record::{GroupName, LinkId, RecordKey, Vni, VpcId};
use crate::store::{Change, Generation};

/// The entries a plane should hold.
pub type Entries = BTreeMap<EntryKey, EntryValue>;
/// The prefixes to announce, each with the links that want it: at least one.
pub type Announcements = BTreeMap<Prefix, BTreeSet<LinkId>>;

/// The difference between two plans.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// The generation of the store that the new plan is made from.
    pub generation: Generation,
    /// Beside the entries that are named, every endpoint of the plan is new: the plane must have
    /// everything.
    pub whole: bool,
    /// Entries that are new or have another value.
    pub upserts: Entries,
    /// Entries that are gone, with the value they had.
    pub removals: Entries,
    /// Prefixes with other links than before; none at all: not to be announced any more.
    pub announcements: Announcements,
}

/// What a change would come to, of which the permits alone are told one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rehearsal {
    /// Prefixes wanted by other links than before, and whether they are announced already.
    pub announce: BTreeMap<Prefix, bool>,
    /// Prefixes that no link would want any more.
    pub withdraw: Vec<Prefix>,
    /// Permits that are new or have another value.
    pub permits: Entries,
    /// How many permits would go.
    pub removals: usize,
    /// Why a link that changes would stand by.
    pub stands_by: Option<StandsBy>,
    /// Standbys that are served now and would make way.
    pub displaced: Vec<LinkId>,
}

impl Rehearsal {
    /// Of changes that an inventory has taken in, and the difference that they make.
    #[must_use]
    pub fn of(
        changes: &[Change],
        inventory: &Inventory,
        effects: &Effects,
        delta: Delta,
        is_announced: impl Fn(&Prefix) -> bool,
    ) -> Rehearsal {
        let is_permit = |key: &EntryKey| matches!(key, EntryKey::Permit { .. });
        let (gone, wanted): (Vec<_>, Vec<_>) = delta
            .announcements
            .into_iter()
            .partition(|(_, links)| links.is_empty());
        let wanted = wanted.into_iter().map(|(prefix, _)| prefix);
        let upserts = delta.upserts.into_iter();
        Rehearsal {
            announce: wanted
                .map(|prefix| (prefix, is_announced(&prefix)))
                .collect(),
            withdraw: gone.into_iter().map(|(prefix, _)| prefix).collect(),
            permits: upserts.filter(|(key, _)| is_permit(key)).collect(),
            removals: delta.removals.keys().filter(|key| is_permit(key)).count(),
            stands_by: changes
                .iter()
                .find_map(|change| match change.key().parse() {
                    Ok(RecordKey::Link(id)) => inventory.stands_by(&id).cloned(),
                    _ => None,
                }),
            displaced: effects
                .links
                .iter()
                .filter(|(id, before)| before.is_some() && inventory.stands_by(id).is_some())
                .map(|(id, _)| id.clone())
                .collect(),
        }
    }
}

/// Plans for the gateways of one group.
#[derive(Debug, Clone)]
pub struct Planner {
    group: GroupName,
}

impl Planner {
    /// A planner that takes up the links of this group and no others.
    pub fn new(group: GroupName) -> Self {
        Planner { group }
    }

    /// All entries, made anew.
    pub fn entries(&self, inventory: &Inventory) -> Entries {
        let endpoints = self.endpoints(inventory);
        let mut entries = self.backing(inventory);
        entries.extend(endpoints.iter().map(Endpoint::entry));
        entries
    }

    /// All endpoints, as a list. Each processor makes a part of it: of a million that is worth it.
    pub fn endpoints(&self, inventory: &Inventory) -> Endpoints {
        let mut vpcs: Vec<_> = inventory
            .vpcs()
            .map(|(id, vpc)| (vpc.scope, vpc.vni, id))
            .collect();
        vpcs.sort_unstable();
        let scopes: Vec<_> = vpcs
            .chunk_by(|(one, ..), (other, ..)| one == other)
            .collect();
        let hands = match inventory.vm_count() {
            ..MANY => 1,
            _ => thread::available_parallelism().map_or(1, NonZero::get),
        };
        let parts = scopes.chunks(scopes.len().div_ceil(hands).max(1));
        if hands == 1 {
            return Endpoints::of_scopes(parts.map(|part| endpoints_of(inventory, part)));
        }
        thread::scope(|work| {
            let parts: Vec<_> = parts
                .map(|part| work.spawn(|| endpoints_of(inventory, part)))
                .collect();
            Endpoints::of_scopes(parts.into_iter().map(|part| match part.join() {
                Ok(list) => list,
                Err(panic) => std::panic::resume_unwind(panic),
            }))
        })
    }

    /// All entries but the endpoints: what announcements rest on.
    pub fn backing(&self, inventory: &Inventory) -> Entries {
        let mut entries = Entries::new();
        for (id, vpc) in inventory.vpcs() {
            add_sources(&mut entries, &vpc);
            for (link, state) in inventory.links_of(id) {
                self.add_permits(&mut entries, &vpc, link, state);
            }
        }
        entries
    }

    /// All announcements, made anew.
    pub fn announcements(&self, inventory: &Inventory) -> Announcements {
        let mut announcements = Announcements::new();
        for (id, vpc) in inventory.vpcs() {
            for (link, state) in inventory.links_of(id) {
                self.add_announcements(&mut announcements, &vpc, link, state);
            }
        }
        announcements
    }

    /// What differs since `effects` happened to the inventory, which is given as it is now.
    pub fn update(
        &self,
        inventory: &Inventory,
        effects: &Effects,
        generation: Generation,
    ) -> Delta {
        if effects.whole {
            return Delta {
                generation,
                whole: true,
                upserts: self.backing(inventory),
                removals: Entries::new(),
                announcements: self.announcements(inventory),
            };
        }
        let now = Time {
            inventory,
            effects,
            past: false,
        };
        let past = Time { past: true, ..now };
        let links = touched_links(inventory, effects);
        let (mut upserts, before) = (self.touched(&now, &links), self.touched(&past, &links));
        let mut removals = Entries::new();
        for (key, old) in before {
            match upserts.get(&key) {
                None => drop(removals.insert(key, old)),
                Some(new) if *new == old => drop(upserts.remove(&key)),
                Some(_) => {}
            }
        }
        let mut announcements = self.touched_announcements(&now, &links);
        for (prefix, old) in self.touched_announcements(&past, &links) {
            match announcements.get(&prefix) {
                None => drop(announcements.insert(prefix, BTreeSet::new())),
                Some(new) if *new == old => drop(announcements.remove(&prefix)),
                Some(_) => {}
            }
        }
        Delta {
            generation,
            whole: false,
            upserts,
            removals,
            announcements,
        }
    }

    /// The entries, at a time, of everything that was touched.
    fn touched(&self, time: &Time<'_>, links: &BTreeSet<LinkId>) -> Entries {
        let mut entries = Entries::new();
        for id in time.effects.vpcs.keys() {
            let Some(vpc) = time.vpc(id) else { continue };
            add_sources(&mut entries, &vpc);
            if !time.is_moved(id) {
                continue;
            }
            for (addr, hops) in time.endpoints(id) {
                add_endpoint(&mut entries, &vpc, addr, hops.as_slice().to_vec());
            }
        }
        for (id, addr) in time.effects.endpoints.keys() {
            if let (Some(vpc), Some(hops)) = (time.vpc(id), time.hops(id, *addr)) {
                add_endpoint(&mut entries, &vpc, *addr, hops);
            }
        }
        for link in links {
            if let Some(state) = time.link(link)
                && let Some(vpc) = time.vpc(&state.vpc)
            {
                self.add_permits(&mut entries, &vpc, link, state);
            }
        }
        entries
    }

    /// The announcements, at a time, of every VPC that a touched link joins now or joined then.
    fn touched_announcements(&self, time: &Time<'_>, links: &BTreeSet<LinkId>) -> Announcements {
        let of = |link: &LinkId| {
            let before = time.effects.links.get(link).and_then(Option::as_ref);
            [before, time.inventory.link(link)]
                .into_iter()
                .flatten()
                .map(|state| &state.vpc)
        };
        let vpcs: BTreeSet<&VpcId> = links.iter().flat_map(of).collect();
        let mut announcements = Announcements::new();
        for id in vpcs {
            let Some(vpc) = time.vpc(id) else { continue };
            // A link that is not touched is the same at both times.
            for (link, state) in time.inventory.links_of(id) {
                if !time.effects.links.contains_key(link) {
                    self.add_announcements(&mut announcements, &vpc, link, state);
                }
            }
            for link in links
                .iter()
                .filter(|link| time.effects.links.contains_key(*link))
            {
                if let Some(state) = time.link(link).filter(|state| state.vpc == *id) {
                    self.add_announcements(&mut announcements, &vpc, link, state);
                }
            }
        }
        announcements
    }

    fn add_permits(&self, entries: &mut Entries, vpc: &VpcState, id: &LinkId, link: &LinkState) {
        if !link.is_served_by(&self.group) {
            return;
        }
        for (subnet, classic) in pairs(vpc, link) {
            let key = EntryKey::Permit {
                link: id.clone(),
                vni: vpc.vni,
                subnet,
                classic,
            };
            let dscp = link.dscp.map(|dscp| dscp.number());
            let value = EntryValue::Permit {
                scope: vpc.scope,
                mode: link.mode,
                dscp,
            };
            entries.insert(key, value);
        }
    }

    fn add_announcements(
        &self,
        announcements: &mut Announcements,
        vpc: &VpcState,
        id: &LinkId,
        link: &LinkState,
    ) {
        if !link.is_served_by(&self.group) {
            return;
        }
        for (subnet, _) in pairs(vpc, link) {
            announcements.entry(subnet).or_default().insert(id.clone());
        }
    }
}

/// VMs that one processor lists alone.
const MANY: usize = 10_000;

/// The endpoints of some scopes, each given as its VPCs; sorted scope by scope, in pieces that the processor has at hand.
fn endpoints_of(inventory: &Inventory, scopes: &[&[(ScopeId, Vni, &VpcId)]]) -> Vec<Endpoint> {
    let vpcs = scopes.iter().copied().flatten();
    let count = vpcs.map(|(.., id)| inventory.most_vms_of(id)).sum();
    let mut list: Vec<Endpoint> = Vec::with_capacity(count);
    for of_scope in scopes {
        let begin = list.len();
        for &(scope, vni, id) in *of_scope {
            let of_vpc = inventory.endpoints_of(id).map(|(addr, hops)| Endpoint {
                scope,
                addr,
                vni,
                hops,
            });
            list.extend(of_vpc);
        }
        list[begin..].sort_by_key(|endpoint| endpoint.addr);
    }
    list
}

/// The subnets that a link joins with classic prefixes: those of one family. A subnet of a family
/// that the link's classic side has not is not joined, so it is not announced either.
fn pairs(vpc: &VpcState, link: &LinkState) -> impl Iterator<Item = (Prefix, Prefix)> {
    vpc.subnets.iter().flat_map(move |subnet| {
        let classic = link
            .classic
            .iter()
            .filter(|classic| classic.family() == subnet.family());
        classic.map(move |classic| (*subnet, *classic))
    })
}

fn add_sources(entries: &mut Entries, vpc: &VpcState) {
    for subnet in &vpc.subnets {
        let key = EntryKey::Source {
            vni: vpc.vni,
            subnet: *subnet,
        };
        entries.insert(key, EntryValue::Source { scope: vpc.scope });
    }
}

fn add_endpoint(entries: &mut Entries, vpc: &VpcState, addr: IpAddr, hops: Vec<Hop>) {
    let key = EntryKey::Endpoint {
        scope: vpc.scope,
        addr,
    };
    entries.insert(key, EntryValue::Endpoint { vni: vpc.vni, hops });
}

/// The links whose permits or announcements may differ: touched, or of a touched VPC.
fn touched_links(inventory: &Inventory, effects: &Effects) -> BTreeSet<LinkId> {
    let of_vpcs = effects.vpcs.keys().flat_map(|vpc| inventory.links_of(vpc));
    of_vpcs
        .map(|(id, _)| id)
        .chain(effects.links.keys())
        .cloned()
        .collect()
}

/// The inventory before or after its effects.
#[derive(Clone, Copy)]
struct Time<'a> {
    inventory: &'a Inventory,
    effects: &'a Effects,
    past: bool,
}

impl<'a> Time<'a> {
    fn vpc(&self, id: &VpcId) -> Option<VpcState> {
        match self.effects.vpcs.get(id) {
            Some(before) if self.past => before.clone(),
            _ => self.inventory.vpc(id),
        }
    }

    /// Whether the keys or values of all of a VPC's endpoints differ between the two times.
    fn is_moved(&self, id: &VpcId) -> bool {
        let place = |vpc: &VpcState| (vpc.vni, vpc.scope);
        let before = self
            .effects
            .vpcs
            .get(id)
            .and_then(|before| before.as_ref().map(place));
        before != self.inventory.vpc(id).as_ref().map(place)
    }

    fn hops(&self, vpc: &VpcId, addr: IpAddr) -> Option<Vec<Hop>> {
        match self.effects.endpoints.get(&(vpc.clone(), addr)) {
            Some(before) if self.past => before.clone(),
            _ => self.inventory.hops(vpc, addr),
        }
    }

    /// The endpoints of a VPC, but for those that are touched by themselves.
    fn endpoints(&self, vpc: &VpcId) -> impl Iterator<Item = (IpAddr, Hops)> {
        let touched = |addr: IpAddr| self.effects.endpoints.contains_key(&(vpc.clone(), addr));
        self.inventory
            .endpoints_of(vpc)
            .filter(move |(addr, _)| !touched(*addr))
    }

    fn link(&self, id: &LinkId) -> Option<&'a LinkState> {
        match self.effects.links.get(id) {
            Some(before) if self.past => before.as_ref(),
            _ => self.inventory.link(id),
        }
    }
}

#[cfg(test)]
mod tests;
