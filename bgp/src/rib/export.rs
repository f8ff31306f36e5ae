//! The way out: which routes a peer is told, in what words, and what it has been told.
//!
//! What has changed is a queue of prefixes, not of messages: a peer that reads slowly costs at
//! most one entry a prefix, gets the latest state when it reads again, and delays nobody. Messages
//! are made only when there is room for them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::BytesMut;

use crate::policy::ExportPolicy;
use crate::rib::attributes::{Interner, RouteAttributes};
use crate::rib::select::{PeerIndex, Source, SourcedPath};
use crate::rib::table::{Table, slot};
use crate::wire::{Community, Family, Message, NextHop, Nlri, Prefix, Update, WireOptions, pack};

/// What is to be known about a session to tell it routes.
#[derive(Debug, Clone)]
pub struct ExportContext {
    /// The peer.
    pub peer: PeerIndex,
    /// Our AS number.
    pub asn: u32,
    /// The peer is in our AS.
    pub internal: bool,
    /// Which routes it may be told.
    pub policy: ExportPolicy,
    /// The families in use.
    pub families: Vec<Family>,
    /// Our next hop for IPv4 routes; without one they are not told.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Our next hop for IPv6 routes; without one they are not told.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// How messages look.
    pub options: WireOptions,
}

impl ExportContext {
    /// Our next hop for routes of the family.
    pub fn next_hop(&self, family: Family) -> Option<NextHop> {
        match family {
            Family::Ipv4Unicast => self.next_hop_v4.map(IpAddr::V4),
            Family::Ipv6Unicast => self.next_hop_v6.map(IpAddr::V6),
        }
        .map(NextHop::from)
    }

    /// Whether policy and family let the peer be told of this path.
    fn permits(&self, prefix: &Prefix, path: &SourcedPath) -> bool {
        path.source != Source::Peer(self.peer)
            && self.families.contains(&prefix.family())
            && self.policy.permits(prefix, path.source == Source::Local)
    }

    /// The path in the words for this peer (RFC 4271 section 5.1); `None` if it must not know.
    fn reword(&self, family: Family, path: &SourcedPath, table: &Table) -> Option<RouteAttributes> {
        let known = &*path.attributes;
        let ours = self.next_hop(family);
        let mut told = known.clone();
        match path.source {
            Source::Local => told.next_hop = ours?,
            Source::Peer(from) => {
                // Section 9.2: from internal to internal peers nothing is passed on.
                if self.internal && table.is_internal(from) {
                    return None;
                }
                let has = |community| known.communities.contains(&community);
                let stays = has(Community::NO_EXPORT) || has(Community::NO_EXPORT_SUBCONFED);
                if has(Community::NO_ADVERTISE) || stays && !self.internal {
                    return None;
                }
                if !self.internal {
                    told.next_hop = ours?;
                    // Section 5.1.4: a learned MED is for us alone.
                    told.med = None;
                }
                told.rare
                    .change(|rare| rare.prepare_for_passing_on(self.internal));
            }
        }
        if self.internal {
            told.local_pref = Some(known.preference());
        } else {
            told.local_pref = None;
            told.as_path = known.as_path.prepended(self.asn, 1);
        }
        Some(told)
    }
}

/// Changes taken up at once: so many are grouped by attributes.
const WINDOW: usize = 8192;
/// Different attributes taken up at once: each is a message at least, of up to 4096 octets.
const GROUPS: usize = 2048;

/// The sending side of one session: what the peer knows, and what it does not know yet.
#[derive(Debug, Default)]
pub struct AdjRibOut {
    sent: [BTreeMap<Prefix, Arc<RouteAttributes>>; Family::ALL.len()],
    /// Prefixes to look at, in the order they changed. An entry counts only if `waiting` has it
    /// under the same number.
    queue: VecDeque<(u64, Prefix)>,
    waiting: BTreeMap<Prefix, Waiting>,
    /// End-of-RIB is due when all that waits under this number and lower is told.
    end_of_rib: [Option<u64>; Family::ALL.len()],
    oversized: usize,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: u64,
    /// To be told even if the peer knows it: it asked.
    again: bool,
}

impl AdjRibOut {
    /// Starts telling the whole table, with an End-of-RIB per family at its end (RFC 4724
    /// section 2). `number` is that of the change, rising over the life of the speaker.
    pub fn tell_all(&mut self, context: &ExportContext, table: &Table, number: u64) {
        for family in &context.families {
            self.tell_family(context, table, *family, number, false);
            self.end_of_rib[slot(*family)] = Some(number);
        }
    }

    /// Tells all routes of the family again, as the peer asked (RFC 2918).
    pub fn refresh(&mut self, context: &ExportContext, table: &Table, family: Family, number: u64) {
        if context.families.contains(&family) {
            self.tell_family(context, table, family, number, true);
        }
    }

    fn tell_family(
        &mut self,
        context: &ExportContext,
        table: &Table,
        family: Family,
        number: u64,
        again: bool,
    ) {
        for (prefix, path) in table.best_paths(family) {
            if context.permits(&prefix, path) {
                self.wait(prefix, number, again);
            }
        }
    }

    /// The best path to the prefix has changed.
    pub fn changed(&mut self, context: &ExportContext, table: &Table, prefix: Prefix, number: u64) {
        let wanted = table
            .best(&prefix)
            .is_some_and(|path| context.permits(&prefix, path));
        if wanted || self.sent[slot(prefix.family())].contains_key(&prefix) {
            self.wait(prefix, number, false);
        } else {
            // Came and went before the peer heard of it.
            self.waiting.remove(&prefix);
            self.tidy();
        }
    }

    fn wait(&mut self, prefix: Prefix, number: u64, again: bool) {
        let queue = &mut self.queue;
        let waiting = self.waiting.entry(prefix).or_insert_with(|| {
            queue.push_back((number, prefix));
            Waiting {
                since: number,
                again,
            }
        });
        waiting.again |= again;
    }

    /// Keeps entries that no longer count from piling up.
    fn tidy(&mut self) {
        if self.queue.len() > 2 * self.waiting.len() + 64 {
            let waiting = &self.waiting;
            self.queue
                .retain(|(number, prefix)| is_waiting(waiting, *number, prefix));
        }
    }

    /// How many changes wait to be told.
    pub fn pending(&self) -> usize {
        self.waiting.len()
    }

    /// How many of them are of this family.
    pub fn pending_of(&self, family: Family) -> usize {
        self.waiting
            .keys()
            .filter(|prefix| prefix.family() == family)
            .count()
    }

    /// Whether there is something to write: a change, or an End-of-RIB.
    pub fn has_work(&self) -> bool {
        !self.waiting.is_empty() || self.end_of_rib.iter().any(Option::is_some)
    }

    /// Whether every change up to this number is in the messages written so far.
    pub fn has_told(&mut self, number: u64) -> bool {
        while let Some((since, prefix)) = self.queue.front() {
            if is_waiting(&self.waiting, *since, prefix) {
                return *since > number;
            }
            self.queue.pop_front();
        }
        true
    }

    /// What the peer has been told of a family, in order.
    pub fn told(&self, family: Family) -> &BTreeMap<Prefix, Arc<RouteAttributes>> {
        &self.sent[slot(family)]
    }

    /// Routes that could not be told because their attributes fill a message.
    pub fn oversized(&self) -> usize {
        self.oversized
    }

    /// Appends messages about a bounded number of changes, and returns how many messages.
    pub(crate) fn write(
        &mut self,
        context: &ExportContext,
        table: &Table,
        interner: &mut Interner,
        out: &mut BytesMut,
    ) -> usize {
        let mut batch = Batch::default();
        let mut taken = 0;
        while taken < WINDOW
            && batch.groups.len() < GROUPS
            && let Some((number, prefix)) = self.queue.pop_front()
        {
            if !is_waiting(&self.waiting, number, &prefix) {
                continue;
            }
            taken += 1;
            let again = self
                .waiting
                .remove(&prefix)
                .is_some_and(|waiting| waiting.again);
            let told = &mut self.sent[slot(prefix.family())];
            match batch.target(context, table, interner, prefix) {
                Some(target) => {
                    let known = told.insert(prefix, target.clone());
                    if again || !known.is_some_and(|known| Arc::ptr_eq(&known, &target)) {
                        batch.announce(prefix, target);
                    }
                }
                None if told.remove(&prefix).is_some() => {
                    batch.withdrawn[slot(prefix.family())].push(prefix);
                }
                None => {}
            }
        }
        let mut messages = batch.write(context, self, out);
        for family in Family::ALL {
            if let Some(number) = self.end_of_rib[slot(family)]
                && self.has_told(number)
            {
                self.end_of_rib[slot(family)] = None;
                let marker = Message::Update(Update::end_of_rib(family));
                messages += usize::from(marker.encode(&context.options, out).is_ok());
            }
        }
        messages
    }
}

fn is_waiting(waiting: &BTreeMap<Prefix, Waiting>, number: u64, prefix: &Prefix) -> bool {
    waiting
        .get(prefix)
        .is_some_and(|waiting| waiting.since == number)
}

/// What one round tells, grouped.
#[derive(Default)]
struct Batch {
    withdrawn: [Vec<Prefix>; Family::ALL.len()],
    groups: Vec<Group>,
    group_of: HashMap<(usize, *const RouteAttributes), usize>,
    /// Paths are reworded once per source, family and set of attributes.
    reworded: HashMap<(Source, usize, *const RouteAttributes), Option<Arc<RouteAttributes>>>,
}

struct Group {
    family: Family,
    attributes: Arc<RouteAttributes>,
    prefixes: Vec<Prefix>,
}

impl Batch {
    /// What the peer should know of the prefix now.
    fn target(
        &mut self,
        context: &ExportContext,
        table: &Table,
        interner: &mut Interner,
        prefix: Prefix,
    ) -> Option<Arc<RouteAttributes>> {
        let path = table
            .best(&prefix)
            .filter(|path| context.permits(&prefix, path))?;
        let family = prefix.family();
        // Pointers are compared only; the table keeps what they point to alive meanwhile.
        let key = (path.source, slot(family), Arc::as_ptr(&path.attributes));
        self.reworded
            .entry(key)
            .or_insert_with(|| {
                context
                    .reword(family, path, table)
                    .map(|told| interner.intern(told))
            })
            .clone()
    }

    fn announce(&mut self, prefix: Prefix, attributes: Arc<RouteAttributes>) {
        let family = prefix.family();
        let key = (slot(family), Arc::as_ptr(&attributes));
        let index = *self.group_of.entry(key).or_insert_with(|| {
            self.groups.push(Group {
                family,
                attributes,
                prefixes: Vec::new(),
            });
            self.groups.len() - 1
        });
        self.groups[index].prefixes.push(prefix);
    }

    /// Withdrawals first: they make room at the peer.
    fn write(self, context: &ExportContext, rib: &mut AdjRibOut, out: &mut BytesMut) -> usize {
        let mut withdrawn = self.withdrawn;
        let mut announced = BytesMut::new();
        let mut messages = 0;
        for Group {
            family,
            attributes,
            prefixes,
        } in self.groups
        {
            let wire = attributes.to_wire();
            let packed = pack::announce(
                family,
                attributes.next_hop,
                &wire,
                prefixes.iter().copied().map(Nlri::from),
                &context.options,
                &mut announced,
            );
            match packed {
                Ok(count) => messages += count,
                // No message can carry these attributes: better no route than a wrong one.
                Err(_) => {
                    rib.oversized += prefixes.len();
                    for prefix in &prefixes {
                        rib.sent[slot(family)].remove(prefix);
                    }
                    withdrawn[slot(family)].extend(prefixes);
                }
            }
        }
        for family in Family::ALL {
            let prefixes = std::mem::take(&mut withdrawn[slot(family)]);
            let prefixes = prefixes.into_iter().map(Nlri::from);
            // Only a prefix of the other family could fail, and they are sorted by family.
            messages += pack::withdraw(family, prefixes, &context.options, out).unwrap_or(0);
        }
        out.unsplit(announced);
        messages
    }
}

#[cfg(test)]
mod tests;
