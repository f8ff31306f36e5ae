//! The accepted routes, piece by piece: whoever writes them all down must not stop the world.

use std::net::Ipv4Addr;

use super::Core;
use crate::rib::select::Source;
use crate::tap::{Accepted, AcceptedPath, Ends};
use crate::wire::Family;

/// A place among the routes. Prefixes that come while somebody walks may be missed or met; those
/// that stay are met once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Among [`Family::ALL`].
    family: usize,
    number: u32,
}

impl Core {
    /// The accepted routes from a place on, of at most `most` prefixes, and the next place; `None`
    /// at the end. Starts at the default place.
    pub fn accepted_from(&self, place: Place, most: u32) -> (Vec<Accepted>, Option<Place>) {
        let Some(family) = Family::ALL.get(place.family).copied() else {
            return (Vec::new(), None);
        };
        let table = &self.rib.table;
        let end = table.numbers(family);
        let next = place.number.saturating_add(most.max(1));
        let mut routes = Vec::new();
        for id in place.number..next.min(end) {
            let paths = table.all(family, id);
            let accepted = paths.iter().filter_map(|path| match path.source.into() {
                Source::Peer(peer) => Some(AcceptedPath {
                    peer: u16::try_from(peer.0).ok()?,
                    path_id: path.path_id,
                    attributes: table.attributes(path.attributes).clone(),
                }),
                Source::Local => None,
            });
            let accepted: Vec<_> = accepted.collect();
            if !accepted.is_empty() {
                routes.push(Accepted {
                    prefix: table.prefix(family, id),
                    paths: accepted,
                });
            }
        }
        let next = match next < end {
            true => Place {
                number: next,
                ..place
            },
            false => Place {
                family: place.family + 1,
                number: 0,
            },
        };
        (routes, (next.family < Family::ALL.len()).then_some(next))
    }

    /// Every peer, by the number that [`AcceptedPath::peer`] names, with its BGP identifier while
    /// it has a session.
    pub fn watched_peers(&self) -> Vec<(Ends, Option<Ipv4Addr>)> {
        let peer = |peer: &super::peer::Peer| match &peer.up {
            Some(up) => (up.ends.clone(), Some(up.router_id)),
            None => (peer.ends(), None),
        };
        self.peers.iter().map(peer).collect()
    }
}
