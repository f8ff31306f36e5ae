//! What a core shows: events, routes, peers. Changes nothing.

use std::time::Instant;

use super::peer::Peer;
use super::{ConnectionId, Core, journal};
use crate::config::PeerName;
use crate::event::{
    Advertised, AggregateStatus, DynamicStatus, Event, Path, PeerStatus, RouteChange,
};
use crate::fsm::State;
use crate::rib::attributes::RouteAttributes;
use crate::rib::paths::Flags;
use crate::rib::select::Source;
use crate::wire::{Family, Prefix};

impl Core {
    /// What has happened since the last call, in order. A prefix that changed several times
    /// appears once, as it is now.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.report_next_hops();
        let mut journal = self.journal.take();
        let events = journal.drain(..).map(|entry| match entry {
            journal::Entry::Event(event) => event,
            journal::Entry::Prefix(prefix) => Event::Route(self.route(prefix)),
        });
        events.collect()
    }

    /// Whether [`Core::take_events`] will be called; if not, events are not kept.
    pub fn observe(&mut self, observed: bool) {
        self.journal.observe(observed);
    }

    /// The current state as events, [`Event::Synced`] last.
    pub fn current_state(&self) -> Vec<Event> {
        let peers = self.present().map(Peer::state_event);
        let hops = self.next_hops().into_iter();
        let hops = hops.map(|(address, _)| Event::NextHop {
            address,
            in_use: true,
        });
        let routes = self.routes().into_iter().map(Event::Route);
        let ends = self.present().flat_map(Peer::end_of_rib_events);
        peers
            .chain(hops)
            .chain(routes)
            .chain(ends)
            .chain([Event::Synced])
            .collect()
    }

    /// The state of every peer, in the order of the configuration.
    pub fn peers(&self, now: Instant) -> Vec<PeerStatus> {
        self.present()
            .map(|peer| peer.status(&self.rib, now))
            .collect()
    }

    /// Every prefix with learned paths in use.
    pub fn routes(&self) -> Vec<RouteChange> {
        let prefixes = self.rib.table.prefixes();
        prefixes
            .into_iter()
            .map(|prefix| self.route(prefix))
            .filter(|route| !route.paths.is_empty())
            .collect()
    }

    /// What each peer with an established session has been told.
    pub fn advertised(&self) -> Advertised {
        let told = |peer: &Peer| peer.advertised(&self.rib);
        self.peers.iter().filter_map(told).collect()
    }

    /// Accepted routes of one peer, and the prefixes of its refused ones.
    pub fn received_from(&self, name: &str) -> Vec<(Prefix, Option<RouteAttributes>)> {
        let Some(peer) = self.index_of(name).map(|index| &self.peers[index]) else {
            return Vec::new();
        };
        let source = Source::Peer(peer.index);
        let accepted = Family::ALL.into_iter().flat_map(|family| {
            let routes = self.rib.table.paths_from(family, source).into_iter();
            routes.map(|(nlri, path)| {
                let attributes = self.rib.table.attributes(path.attributes);
                (nlri, Some((**attributes).clone()))
            })
        });
        let refused = peer.refusals().map(|nlri| (nlri, None));
        let mut routes: Vec<_> = accepted.chain(refused).collect();
        routes.sort_by_key(|(nlri, _)| *nlri);
        let routes = routes.into_iter();
        routes.map(|(nlri, route)| (nlri.prefix, route)).collect()
    }

    /// The groups of dynamic peers, in the order of the configuration.
    pub fn dynamic_groups(&self) -> Vec<DynamicStatus> {
        let groups = self.dynamic.iter().map(|group| {
            let name = &group.peers.template.name;
            let of_group = |peer: &&Peer| peer.dynamic.as_ref().is_some_and(|d| d.group == *name);
            let up = |peer: &Peer| peer.state() == State::Established;
            let members = || self.present().filter(of_group);
            DynamicStatus {
                name: name.clone(),
                prefix: group.peers.prefix,
                limit: group.peers.limit,
                peers: members().count(),
                established: members().filter(|peer| up(peer)).count(),
                full: group.full,
            }
        });
        groups.collect()
    }

    /// The aggregates, in order.
    pub fn aggregates(&self) -> Vec<AggregateStatus> {
        let formed = self.aggregates.formed().into_iter();
        let status = formed.map(|(prefix, summary_only, contributors)| AggregateStatus {
            prefix,
            summary_only,
            contributors,
        });
        status.collect()
    }

    /// How many connections came from nowhere that is configured, or for a peer that is
    /// administratively down.
    pub fn refused_connections(&self) -> u64 {
        self.refused
    }

    /// The state of a session.
    pub fn state(&self, name: &str) -> Option<State> {
        self.index_of(name).map(|index| self.peers[index].state())
    }

    /// The peer a connection belongs to.
    pub fn peer_name(&self, connection: ConnectionId) -> Option<&PeerName> {
        self.peers
            .get(connection.peer_index())
            .map(|peer| &peer.config.name)
    }

    fn route(&self, prefix: Prefix) -> RouteChange {
        let used = self.rib.table.used(&prefix);
        let paths = used.iter().filter_map(|path| {
            let Source::Peer(peer) = Source::from(path.source) else {
                return None;
            };
            let attributes = self.rib.table.attributes(path.attributes).clone();
            Some(Path {
                peer: self.peers.get(peer.0 as usize)?.config.name.clone(),
                next_hop: attributes.next_hop.addr(),
                stale: path.flags.contains(Flags::STALE),
                attributes,
            })
        });
        RouteChange {
            prefix,
            paths: paths.collect(),
        }
    }
}
