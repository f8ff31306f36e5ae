//! Peers that are told the same: one record of what was told, one encoding for all of them.
//!
//! What has changed is a queue of prefixes, not of messages, so it never outgrows the table. While
//! any member has room, messages are made once and handed to every member. A member that falls too
//! far behind leaves the common pace: it keeps a queue of its own, costs no more than that, delays
//! nobody, and is told the latest state when it reads again. A peer that joins late starts out as
//! one that is behind with everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::rib::attributes::RouteAttributes;
use crate::rib::export::ExportContext;
use crate::rib::paths::PathSource;
use crate::rib::queue::Queue;
use crate::rib::select::{PeerIndex, Source};
use crate::rib::table::{RouteId, Table, slot};
use crate::wire::{Family, Message, Prefix, RouteRefresh, Update};

mod adopt;
mod batch;
mod judge;
mod many;
mod told;

use batch::{Batch, Key};
use judge::Judge;
use many::ToldPaths;
use told::{Told, ToldTable, Words, sorted_by_attributes};

/// How much is on its way to a peer already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// More may be made for it.
    Room,
    /// What is made for others may be given to it as well.
    Busy,
    /// It is too far behind to go along.
    Behind,
}

/// Octets for a peer, and how many messages they are.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(crate) peer: PeerIndex,
    pub(crate) octets: Bytes,
    pub(crate) messages: usize,
}

/// Peers on equal terms, what they know, and what they do not know yet.
#[derive(Debug)]
pub(crate) struct Group {
    context: ExportContext,
    members: Vec<Member>,
    told: [ToldTable; Family::ALL.len()],
    many: [ToldPaths; Family::ALL.len()],
    queue: [Queue; Family::ALL.len()],
    oversized: usize,
}

#[derive(Debug)]
struct Member {
    peer: PeerIndex,
    lag: Option<Box<Lag>>,
    markers: Vec<Marker>,
    /// Messages that go out before anything else.
    urgent: BytesMut,
    urgent_messages: usize,
}

impl Member {
    fn new(peer: PeerIndex) -> Member {
        Member {
            peer,
            lag: None,
            markers: Vec::new(),
            urgent: BytesMut::new(),
            urgent_messages: 0,
        }
    }
}

/// What a member that is behind does not know yet. A mark says that it knows an older state.
#[derive(Debug, Default)]
struct Lag {
    queue: [Queue; Family::ALL.len()],
}

/// A message that is due when everything before it has left.
#[derive(Debug, Clone, Copy)]
struct Marker {
    place: Place,
    message: MarkerMessage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MarkerMessage {
    EndOfRib(Family),
    EndOfRefresh(Family),
}

/// A place in the queues that a member is served from: first that of the group, then its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    group: [u64; Family::ALL.len()],
    lag: Option<[u64; Family::ALL.len()]>,
}

/// Changes taken up at once.
const WINDOW: usize = 8192;
/// Members behind look no further than this beyond the window for routes that go along.
const WINDOW_MOST: usize = 16 * WINDOW;

impl Group {
    pub(crate) fn new(context: ExportContext) -> Group {
        Group {
            context,
            members: Vec::new(),
            told: Default::default(),
            many: Default::default(),
            queue: Default::default(),
            oversized: 0,
        }
    }

    pub(crate) fn context(&self) -> &ExportContext {
        &self.context
    }

    /// Whether a peer on these terms may join. Where paths have identifiers, everybody is alone:
    /// such peers are few, and what each knows is a list a prefix.
    pub(crate) fn takes(&self, context: &ExportContext) -> bool {
        self.context == *context && context.options.add_path_send.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn member(&self, peer: PeerIndex) -> Option<&Member> {
        self.members.iter().find(|member| member.peer == peer)
    }

    fn member_mut(&mut self, peer: PeerIndex) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.peer == peer)
    }

    /// Takes a peer in that knows nothing yet. It is told everything, with an End-of-RIB per family
    /// behind it (RFC 4724 section 2) once `complete`.
    pub(crate) fn join(&mut self, peer: PeerIndex, table: &Table, complete: bool) {
        if self.members.is_empty() && complete {
            self.queue_all(table);
        }
        let mut lag = Lag::default();
        let mut behind = false;
        for family in Family::ALL {
            let own = &mut lag.queue[slot(family)];
            for id in self.told[slot(family)].by_attributes() {
                own.push(id, false);
                behind = true;
            }
        }
        self.members.push(Member {
            lag: behind.then(|| Box::new(lag)),
            ..Member::new(peer)
        });
        if complete {
            self.end_of_rib(peer);
        }
    }

    /// Everything may be told from now on, and ends with an End-of-RIB per family.
    pub(crate) fn complete(&mut self, table: &Table) {
        self.queue_all(table);
        for peer in self
            .members
            .iter()
            .map(|member| member.peer)
            .collect::<Vec<_>>()
        {
            self.end_of_rib(peer);
        }
    }

    fn queue_all(&mut self, table: &Table) {
        for family in self.context.families.clone() {
            let best = table.ids(family).filter_map(|id| {
                let path = table.best(family, id)?;
                Some((path.attributes.get(), id))
            });
            for id in sorted_by_attributes(best) {
                self.queue[slot(family)].push(id, false);
            }
        }
    }

    fn end_of_rib(&mut self, peer: PeerIndex) {
        for family in self.context.families.clone() {
            self.mark(peer, MarkerMessage::EndOfRib(family));
        }
    }

    fn mark(&mut self, peer: PeerIndex, message: MarkerMessage) {
        let place = self.place();
        if let Some(member) = self.member_mut(peer) {
            member.markers.push(Marker { place, message });
        }
    }

    /// Lets a peer go. The last one takes what was told with it.
    pub(crate) fn leave(&mut self, peer: PeerIndex, table: &mut Table) {
        self.members.retain(|member| member.peer != peer);
        if self.members.is_empty() {
            self.clear(table);
        }
    }

    fn clear(&mut self, table: &mut Table) {
        for family in Family::ALL {
            for (_, told) in std::mem::take(&mut self.told[slot(family)]).known() {
                if let Some(attributes) = told.attributes {
                    table.interner.release(attributes);
                }
            }
            self.many[slot(family)].clear(&mut table.interner);
        }
        self.queue = Default::default();
    }

    /// The paths of a prefix have changed.
    pub(crate) fn changed(&mut self, family: Family, id: RouteId, best: bool) {
        if !self.members.is_empty()
            && self.context.families.contains(&family)
            && (best || self.context.options.add_path_send.contains(family))
        {
            self.queue[slot(family)].push(id, false);
        }
    }

    /// Tells a member all routes of the family again, as it asked (RFC 2918), between the marks of
    /// an enhanced refresh (RFC 7313) if it knows them.
    pub(crate) fn refresh(&mut self, peer: PeerIndex, family: Family, enhanced: bool) {
        if !self.context.families.contains(&family) {
            return;
        }
        if self.context.options.add_path_send.contains(family) {
            for id in self.many[slot(family)].ids() {
                self.queue[slot(family)].push(id, true);
            }
        } else {
            let ids = self.told[slot(family)].by_attributes();
            if let Some(member) = self.member_mut(peer) {
                let lag = member.lag.get_or_insert_default();
                for id in ids {
                    lag.queue[slot(family)].push(id, true);
                }
            }
        }
        if enhanced {
            let options = self.context.options;
            if let Some(member) = self.member_mut(peer) {
                let begin = RouteRefresh::new(family, RouteRefresh::BEGIN);
                let begin = Message::RouteRefresh(begin);
                if begin.encode(&options, &mut member.urgent).is_ok() {
                    member.urgent_messages += 1;
                }
            }
            self.mark(peer, MarkerMessage::EndOfRefresh(family));
        }
    }

    /// Whether something is kept under this number.
    pub(crate) fn keeps(&self, family: Family, id: RouteId) -> bool {
        let at = slot(family);
        self.told[at].get(id).attributes.is_some()
            || self.queue[at].contains(id)
            || self.many[at].contains(id)
            || self.members.iter().any(|member| {
                let lag = member.lag.as_ref();
                lag.is_some_and(|lag| lag.queue[at].contains(id))
            })
    }

    /// Behind everything that waits to be told now.
    pub(crate) fn place(&self) -> Place {
        Place {
            group: [self.queue[0].end(), self.queue[1].end()],
            lag: None,
        }
    }

    /// Whether the member has been handed everything before the place.
    pub(crate) fn has_reached(&self, peer: PeerIndex, place: &mut Place) -> bool {
        self.member(peer)
            .is_none_or(|member| reached(&self.queue, member.lag.as_deref(), place))
    }

    /// Makes messages about a bounded number of changes, for members with room, and hands those
    /// made for all to all that can take them. False: there was nothing to do.
    pub(crate) fn write(
        &mut self,
        table: &mut Table,
        pressure: impl Fn(PeerIndex) -> Pressure,
        out: &mut Vec<Dispatch>,
    ) -> bool {
        let mut worked = false;
        let room = |member: &Member| pressure(member.peer) == Pressure::Room;
        let anybody = self.members.iter().any(room);
        // The begin of a refresh comes before everything that belongs to it.
        for member in &mut self.members {
            if room(member) && !member.urgent.is_empty() {
                out.push(Dispatch {
                    peer: member.peer,
                    octets: member.urgent.split().freeze(),
                    messages: std::mem::take(&mut member.urgent_messages),
                });
            }
        }
        for family in Family::ALL {
            if anybody && !self.queue[slot(family)].is_empty() {
                worked = true;
                match self.context.options.add_path_send.contains(family) {
                    true => self.write_paths(family, table, out),
                    false => self.write_to_all(family, table, &pressure, out),
                }
            }
        }
        // Those that are behind are told what the others were, so they come after them.
        for member in 0..self.members.len() {
            if room(&self.members[member]) {
                worked |= self.members[member].lag.is_some();
                self.write_to_one(member, table, out);
            }
        }
        self.write_markers(&pressure, out);
        worked
    }

    fn write_to_all(
        &mut self,
        family: Family,
        table: &mut Table,
        pressure: impl Fn(PeerIndex) -> Pressure,
        out: &mut Vec<Dispatch>,
    ) {
        let mut batch = Batch::new(family);
        // What somebody is told of, and whose route was known before: whoever does not get the
        // messages has to hear of it later.
        let mut news = Vec::with_capacity(WINDOW.min(self.queue[slot(family)].len()));
        let mut judge = Judge::default();
        for _ in 0..WINDOW {
            let Some((id, again)) = self.queue[slot(family)].pop() else {
                break;
            };
            let target = judge.target(&self.context, family, id, table);
            let before = self.told[slot(family)].get(id);
            let prefix = table.prefix(family, id);
            match (before.attributes, target.attributes) {
                (None, None) => continue,
                (Some(_), None) => {
                    batch.withdraw(prefix, self.as_member(before.source));
                    news.push((id, Some(before.source)));
                }
                _ if before == target && !again => continue,
                (old, Some(attributes)) => {
                    let same = before.source == target.source
                        && old.is_some()
                        && judge.says_the_same(&self.context, family, before, target, table);
                    if !same || again {
                        batch.announce(Key::new(attributes, target), prefix.into(), id);
                        news.push((id, old.map(|_| before.source)));
                    }
                    // The member whose own route is the best one now must forget the other.
                    if old.is_some()
                        && before.source != target.source
                        && let Some(member) = self.as_member(target.source)
                    {
                        batch.withdraw_from(member, prefix);
                    }
                }
            }
            self.told[slot(family)].set(id, target, &mut table.interner);
        }
        let failed = batch.write(&self.context, &table.interner, |source| {
            self.as_member(source)
        });
        self.oversized += failed.len();
        for (_, id) in failed {
            let nothing = Told::default();
            self.told[slot(family)].set(id, nothing, &mut table.interner);
        }
        for member in &mut self.members {
            if member.lag.is_none() && pressure(member.peer) != Pressure::Behind {
                batch.dispatch(member.peer, &self.context.options, out);
                continue;
            }
            let own = PathSource::from(Source::Peer(member.peer));
            let lag = member.lag.get_or_insert_default();
            let queue = &mut lag.queue[slot(family)];
            for (id, known) in &news {
                let knows = !queue.contains(*id) && known.is_some_and(|source| source != own);
                queue.push(*id, knows);
            }
        }
    }

    /// Tells a member that is behind what the others know already.
    fn write_to_one(&mut self, member: usize, table: &mut Table, out: &mut Vec<Dispatch>) {
        let Member { peer, lag, .. } = &mut self.members[member];
        let Some(lag) = lag else {
            return;
        };
        let ours = PathSource::from(Source::Peer(*peer));
        for family in Family::ALL {
            let mut batch = Batch::new(family);
            let mut count = 0;
            let mut last = None;
            let (told, queue) = (&self.told[slot(family)], &mut lag.queue[slot(family)]);
            while let Some(id) = queue.peek() {
                let known = told.get(id);
                let goes_along = known.attributes.is_some() && known.attributes == last;
                if count >= WINDOW && (!goes_along || count >= WINDOW_MOST) {
                    break;
                }
                last = known.attributes;
                count += 1;
                let marked = queue.pop().is_some_and(|(_, marked)| marked);
                let prefix = table.prefix(family, id);
                match known.attributes {
                    Some(attributes) if known.source != ours => {
                        batch.announce(Key::new(attributes, known), prefix.into(), id);
                    }
                    _ if marked => batch.withdraw(prefix, None),
                    _ => {}
                }
            }
            // What was told to others fits into messages.
            batch.write(&self.context, &table.interner, |_| None);
            batch.dispatch(*peer, &self.context.options, out);
        }
        if lag.queue.iter().all(Queue::is_empty) {
            self.members[member].lag = None;
        }
    }

    fn write_markers(&mut self, pressure: impl Fn(PeerIndex) -> Pressure, out: &mut Vec<Dispatch>) {
        for member in &mut self.members {
            if member.markers.is_empty() || pressure(member.peer) == Pressure::Behind {
                continue;
            }
            let mut octets = BytesMut::new();
            let mut messages = 0;
            let (queue, lag) = (&self.queue, member.lag.as_deref());
            let options = &self.context.options;
            member.markers.retain_mut(|marker| {
                if !reached(queue, lag, &mut marker.place) {
                    return true;
                }
                let message = match marker.message {
                    MarkerMessage::EndOfRib(family) => Message::Update(Update::end_of_rib(family)),
                    MarkerMessage::EndOfRefresh(family) => {
                        Message::RouteRefresh(RouteRefresh::new(family, RouteRefresh::END))
                    }
                };
                messages += usize::from(message.encode(options, &mut octets).is_ok());
                false
            });
            if messages > 0 {
                let octets = octets.freeze();
                out.push(Dispatch {
                    peer: member.peer,
                    octets,
                    messages,
                });
            }
        }
    }

    /// The peer, if it is a member.
    fn as_member(&self, source: PathSource) -> Option<PeerIndex> {
        match Source::from(source) {
            Source::Peer(peer) => self.member(peer).map(|member| member.peer),
            Source::Local => None,
        }
    }

    /// How many routes of the family a member knows.
    pub(crate) fn count(&self, peer: PeerIndex, family: Family) -> usize {
        let at = slot(family);
        let told = &self.told[at];
        let untold = self
            .member(peer)
            .and_then(|member| member.lag.as_ref())
            .map_or(0, |lag| {
                let queue = &lag.queue[at];
                let unknown =
                    |id: &RouteId| !queue.is_marked(*id) && told.get(*id).attributes.is_some();
                // Only who has just joined knows nothing.
                queue.iter().filter(unknown).count()
            });
        (told.count() + self.many[at].count())
            .saturating_sub(told.count_of(Source::Peer(peer)))
            .saturating_sub(untold)
    }

    /// How many changes of the family wait to be told to a member.
    pub(crate) fn pending(&self, peer: PeerIndex, family: Family) -> usize {
        let lag = self.member(peer).and_then(|member| member.lag.as_ref());
        let own = lag.map_or(0, |lag| lag.queue[slot(family)].len());
        self.queue[slot(family)].len() + own
    }

    /// Routes not told because their attributes fit into no message, so far.
    pub(crate) fn oversized(&self) -> usize {
        self.oversized
    }

    /// What a member has been told, in the words it was told in.
    pub(crate) fn told_to(
        &self,
        peer: PeerIndex,
        table: &Table,
    ) -> BTreeMap<Prefix, Arc<RouteAttributes>> {
        let own = PathSource::from(Source::Peer(peer));
        let mut all = BTreeMap::new();
        for family in Family::ALL {
            let mut words = Words::new(&self.context, family, table);
            let many = self.many[slot(family)].known();
            for (id, told) in self.told[slot(family)].known().chain(many) {
                if told.source != own
                    && let Some(words) = words.of(told)
                {
                    all.entry(table.prefix(family, id))
                        .or_insert_with(|| words.clone());
                }
            }
        }
        all
    }
}

fn reached(queue: &[Queue; 2], lag: Option<&Lag>, place: &mut Place) -> bool {
    let passed = |queue: &[Queue; 2], places: [u64; 2]| {
        queue
            .iter()
            .zip(places)
            .all(|(queue, place)| queue.has_passed(place))
    };
    if !passed(queue, place.group) {
        return false;
    }
    match lag {
        None => true,
        Some(lag) => {
            let ends = || [lag.queue[0].end(), lag.queue[1].end()];
            passed(&lag.queue, *place.lag.get_or_insert_with(ends))
        }
    }
}

#[cfg(test)]
mod tests;
