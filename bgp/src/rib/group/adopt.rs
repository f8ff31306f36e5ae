//! A peer changes groups: what it knows comes along, and it is told the difference only.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Group, Judge, Lag, Marker, MarkerMessage, Member, ToldPaths, Words};
use crate::rib::attributes::RouteAttributes;
use crate::rib::paths::PathSource;
use crate::rib::select::{PeerIndex, Source};
use crate::rib::table::{RouteId, Table, slot};
use crate::wire::Family;

/// What a peer knows of each prefix.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    routes: [HashMap<RouteId, Known>; Family::ALL.len()],
    many: [ToldPaths; Family::ALL.len()],
    markers: Vec<MarkerMessage>,
}

#[derive(Debug)]
enum Known {
    /// Exactly this.
    Words(Arc<RouteAttributes>),
    /// Something older than what the others know.
    Older,
}

impl Group {
    /// Lets a member go, and yields what it knows.
    pub(crate) fn give_up(&mut self, peer: PeerIndex, table: &mut Table) -> Knowledge {
        let mut knowledge = Knowledge::default();
        let own = PathSource::from(Source::Peer(peer));
        let Some(member) = self.member(peer) else {
            return knowledge;
        };
        knowledge.markers = member.markers.iter().map(|marker| marker.message).collect();
        for family in Family::ALL {
            let at = slot(family);
            let lag = member.lag.as_deref().map(|lag| &lag.queue[at]);
            let mut words = Words::new(&self.context, family, table);
            let known = &mut knowledge.routes[at];
            for (id, told) in self.told[at].known() {
                let waits = lag.is_some_and(|lag| lag.contains(id));
                if told.source != own
                    && !waits
                    && let Some(words) = words.of(told)
                {
                    known.insert(id, Known::Words(words.clone()));
                }
            }
            for id in lag
                .into_iter()
                .flat_map(|lag| lag.iter().filter(|id| lag.is_marked(*id)))
            {
                known.insert(id, Known::Older);
            }
        }
        // Whoever has path identifiers is alone in his group.
        if self.members.len() == 1 {
            knowledge.many = std::mem::take(&mut self.many);
        }
        self.leave(peer, table);
        knowledge
    }

    /// Takes a peer in with what it knows from another group.
    pub(crate) fn adopt(
        &mut self,
        peer: PeerIndex,
        knowledge: Knowledge,
        table: &mut Table,
        complete: bool,
    ) {
        let Knowledge {
            routes,
            many,
            markers,
        } = knowledge;
        let own = PathSource::from(Source::Peer(peer));
        let first = self.members.is_empty() && complete;
        let mut lag = Lag::default();
        let mut behind = false;
        for (family, mut known) in Family::ALL.into_iter().zip(routes) {
            let at = slot(family);
            if self.context.options.add_path_send.contains(family) {
                continue;
            }
            let ids: Vec<RouteId> = table.ids(family).collect();
            if first && self.context.families.contains(&family) {
                let mut judge = Judge::default();
                for id in &ids {
                    let target = judge.target(&self.context, family, *id, table);
                    self.told[at].set(*id, target, &mut table.interner);
                }
            }
            let mut words = Words::new(&self.context, family, table);
            for (id, told) in self.told[at].known() {
                let before = known.remove(&id);
                let words = match told.source == own {
                    true => None,
                    false => words.of(told),
                };
                let Some(words) = words else {
                    // Its own route is the best: whatever it was told goes.
                    if before.is_some() {
                        lag.queue[at].push(id, true);
                        behind = true;
                    }
                    continue;
                };
                if !matches!(&before, Some(Known::Words(before)) if before == words) {
                    lag.queue[at].push(id, before.is_some());
                    behind = true;
                }
            }
            // What it was told and is not to know any more; in order, one seed being one run.
            let mut gone: Vec<RouteId> = known.into_keys().collect();
            gone.sort_unstable();
            for id in gone {
                lag.queue[at].push(id, true);
                behind = true;
            }
        }
        if self.members.is_empty() {
            self.many = many;
            for family in Family::ALL {
                let told = self.many[slot(family)].ids();
                let all = table.ids(family).filter(|_| complete);
                if self.context.options.add_path_send.contains(family) {
                    for id in told.into_iter().chain(all) {
                        self.queue[slot(family)].push(id, true);
                    }
                }
            }
        }
        let place = self.place();
        let markers = markers.into_iter();
        self.members.push(Member {
            lag: behind.then(|| Box::new(lag)),
            markers: markers.map(|message| Marker { place, message }).collect(),
            ..Member::new(peer)
        });
    }
}
