//! Adj-RIBs-In and Loc-RIB in one: for every prefix all accepted paths, the used ones first.
//!
//! Ordered by prefix, so that what is sent to a peer and what a test sees comes in one order.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Multipath;
use crate::rib::attributes::RouteAttributes;
use crate::rib::select::{PeerIndex, PeerRank, Source, SourcedPath, select};
use crate::wire::{Family, Prefix};

/// The table of both families.
#[derive(Debug)]
pub struct Table {
    routes: [BTreeMap<Prefix, Route>; Family::ALL.len()],
    ranks: Vec<PeerRank>,
    multipath: Multipath,
    local: [usize; Family::ALL.len()],
    accepted: Vec<[usize; Family::ALL.len()]>,
}

#[derive(Debug, Default)]
struct Route {
    /// Never empty; the first `selected` ones are in use, the best one first.
    paths: Vec<SourcedPath>,
    selected: usize,
}

/// What a change of paths did to a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// The best path is another one, or says something else, or is gone.
    pub best: bool,
    /// The learned paths in use are others, or say something else. There are none while the best
    /// path is our own.
    pub used: bool,
}

impl Change {
    /// Whether anything changed that somebody may want to know.
    pub fn matters(self) -> bool {
        self.best || self.used
    }
}

/// The place of a family in an array of two.
pub(crate) const fn slot(family: Family) -> usize {
    match family {
        Family::Ipv4Unicast => 0,
        Family::Ipv6Unicast => 1,
    }
}

impl Table {
    /// An empty table; `ranks` are those of the peers by index.
    pub fn new(ranks: Vec<PeerRank>, multipath: Multipath) -> Table {
        let accepted = vec![[0; Family::ALL.len()]; ranks.len()];
        Table {
            routes: Default::default(),
            ranks,
            multipath,
            local: [0; 2],
            accepted,
        }
    }

    /// Sets what the decision process knows about a peer. It must have no path in the table.
    pub fn set_rank(&mut self, peer: PeerIndex, rank: PeerRank) {
        if let Some(known) = self.ranks.get_mut(peer.0 as usize) {
            *known = rank;
        }
    }

    /// Whether the peer is in our own AS.
    pub fn is_internal(&self, peer: PeerIndex) -> bool {
        self.ranks
            .get(peer.0 as usize)
            .is_some_and(|rank| rank.internal)
    }

    /// Takes a path in place of the one its source had (implicit withdraw, RFC 4271 section 3.1).
    pub fn announce(
        &mut self,
        prefix: Prefix,
        source: Source,
        attributes: Arc<RouteAttributes>,
    ) -> Change {
        let route = self.routes[slot(prefix.family())]
            .entry(prefix)
            .or_default();
        let before = route.used();
        let path = SourcedPath { source, attributes };
        match route.paths.iter_mut().find(|path| path.source == source) {
            Some(known) if known.is(&path) => return Change::default(),
            Some(known) => *known = path,
            None => {
                // Most prefixes have one path: no room for more until there are.
                if route.paths.is_empty() {
                    route.paths.reserve_exact(1);
                }
                route.paths.push(path);
                *count(&mut self.local, &mut self.accepted, prefix, source) += 1;
            }
        }
        let ranks = &self.ranks;
        route.selected = select(
            &mut route.paths,
            |peer| ranks[peer.0 as usize],
            self.multipath,
        );
        compare(&before, &route.paths[..route.selected])
    }

    /// Forgets the path of a source, if there is one.
    pub fn withdraw(&mut self, prefix: Prefix, source: Source) -> Change {
        let routes = &mut self.routes[slot(prefix.family())];
        let Some(route) = routes.get_mut(&prefix) else {
            return Change::default();
        };
        let Some(index) = route.paths.iter().position(|path| path.source == source) else {
            return Change::default();
        };
        let before = route.used();
        route.paths.remove(index);
        *count(&mut self.local, &mut self.accepted, prefix, source) -= 1;
        let ranks = &self.ranks;
        route.selected = select(
            &mut route.paths,
            |peer| ranks[peer.0 as usize],
            self.multipath,
        );
        let change = compare(&before, &route.paths[..route.selected]);
        if route.paths.is_empty() {
            routes.remove(&prefix);
        }
        change
    }

    /// The prefixes of a family that a source has a path to, in order.
    pub fn prefixes_from(
        &self,
        family: Family,
        source: Source,
    ) -> impl Iterator<Item = (Prefix, &Arc<RouteAttributes>)> {
        self.routes[slot(family)]
            .iter()
            .filter_map(move |(prefix, route)| {
                let path = route.paths.iter().find(|path| path.source == source)?;
                Some((*prefix, &path.attributes))
            })
    }

    /// Every prefix of a family with its best path, in order.
    pub fn best_paths(&self, family: Family) -> impl Iterator<Item = (Prefix, &SourcedPath)> {
        self.routes[slot(family)]
            .iter()
            .filter_map(|(prefix, route)| route.paths.first().map(|path| (*prefix, path)))
    }

    /// The best path to a prefix.
    pub fn best(&self, prefix: &Prefix) -> Option<&SourcedPath> {
        self.routes[slot(prefix.family())]
            .get(prefix)?
            .paths
            .first()
    }

    /// The paths to a prefix that are in use, the best one first; empty without any.
    pub fn used(&self, prefix: &Prefix) -> &[SourcedPath] {
        match self.routes[slot(prefix.family())].get(prefix) {
            Some(route) => &route.paths[..route.selected],
            None => &[],
        }
    }

    /// Every prefix of both families, in order.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        self.routes.iter().flat_map(|routes| routes.keys().copied())
    }

    /// How many paths of this family a source has in the table.
    pub fn count(&self, family: Family, source: Source) -> usize {
        match source {
            Source::Local => self.local[slot(family)],
            Source::Peer(peer) => self
                .accepted
                .get(peer.0 as usize)
                .map_or(0, |counts| counts[slot(family)]),
        }
    }
}

fn count<'a>(
    local: &'a mut [usize; 2],
    accepted: &'a mut [[usize; 2]],
    prefix: Prefix,
    source: Source,
) -> &'a mut usize {
    match source {
        Source::Local => &mut local[slot(prefix.family())],
        Source::Peer(peer) => &mut accepted[peer.0 as usize][slot(prefix.family())],
    }
}

impl Route {
    fn used(&self) -> Vec<SourcedPath> {
        self.paths[..self.selected].to_vec()
    }
}

/// Our own path is in use alone or not at all.
fn learned(used: &[SourcedPath]) -> &[SourcedPath] {
    match used.first() {
        Some(SourcedPath {
            source: Source::Local,
            ..
        }) => &[],
        _ => used,
    }
}

fn compare(before: &[SourcedPath], after: &[SourcedPath]) -> Change {
    let same = |(a, b): (&SourcedPath, &SourcedPath)| a.is(b);
    let best = match (before.first(), after.first()) {
        (Some(before), Some(after)) => !before.is(after),
        (None, None) => false,
        _ => true,
    };
    let before = learned(before);
    let after = learned(after);
    let used = before.len() != after.len() || !before.iter().zip(after).all(same);
    Change { best, used }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::rib::attributes::Interner;
    use crate::wire::{AsPath, NextHop};

    struct Bench {
        table: Table,
        interner: Interner,
    }

    const BOTH: Change = Change {
        best: true,
        used: true,
    };
    const USED: Change = Change {
        best: false,
        used: true,
    };
    const BEST: Change = Change {
        best: true,
        used: false,
    };
    const NONE: Change = Change {
        best: false,
        used: false,
    };

    impl Bench {
        fn new() -> Bench {
            let ranks = (0..3).map(|peer| PeerRank {
                internal: false,
                router_id: Ipv4Addr::new(192, 0, 2, peer),
                address: Ipv4Addr::new(10, 99, 0, peer).into(),
            });
            let table = Table::new(ranks.collect(), Multipath::default());
            Bench {
                table,
                interner: Interner::default(),
            }
        }

        fn announce(&mut self, prefix: &str, source: Source, path: &[u32]) -> Change {
            let attributes = RouteAttributes {
                as_path: AsPath::sequence(path.iter().copied()),
                ..RouteAttributes::originated(NextHop::V4(Ipv4Addr::new(10, 99, 0, 1)))
            };
            let attributes = self.interner.intern(attributes);
            self.table
                .announce(prefix.parse().unwrap(), source, attributes)
        }

        fn withdraw(&mut self, prefix: &str, source: Source) -> Change {
            self.table.withdraw(prefix.parse().unwrap(), source)
        }
    }

    #[test]
    fn changes_are_reported_as_far_as_they_matter() {
        let peer = |index| Source::Peer(PeerIndex(index));
        let mut bench = Bench::new();
        let net = "10.0.0.0/8";
        assert_eq!(
            bench.announce(net, peer(1), &[2, 9]),
            BOTH,
            "the first path"
        );
        assert_eq!(
            bench.announce(net, peer(1), &[2, 9]),
            NONE,
            "the same again"
        );
        assert_eq!(
            bench.announce(net, peer(2), &[2, 9]),
            USED,
            "a second one as good"
        );
        assert_eq!(
            bench.announce(net, peer(0), &[2, 8, 9]),
            NONE,
            "a worse one"
        );
        assert_eq!(
            bench.announce(net, peer(2), &[2, 8, 9]),
            USED,
            "worse than before"
        );
        assert_eq!(
            bench.announce(net, peer(1), &[3, 9]),
            BOTH,
            "implicit withdraw"
        );
        assert_eq!(bench.announce(net, Source::Local, &[]), BOTH, "our own");
        assert_eq!(bench.withdraw(net, peer(1)), NONE, "not in use");
        assert_eq!(
            bench.withdraw(net, Source::Local),
            BOTH,
            "back to the learned ones"
        );
        assert_eq!(bench.table.used(&net.parse().unwrap()).len(), 2);
        assert_eq!(bench.withdraw(net, peer(0)), BOTH);
        assert_eq!(bench.withdraw(net, peer(0)), NONE, "it has none");
        assert_eq!(
            bench.withdraw("11.0.0.0/8", peer(0)),
            NONE,
            "nobody has one"
        );
        assert_eq!(bench.withdraw(net, peer(2)), BOTH);
        assert_eq!(
            bench.announce(net, Source::Local, &[]),
            BEST,
            "nobody had one"
        );
        assert_eq!(bench.withdraw(net, Source::Local), BEST);
        assert_eq!(bench.table.prefixes().count(), 0, "nothing is left behind");
        assert_eq!(bench.table.used(&net.parse().unwrap()), []);
    }

    #[test]
    fn counts_follow_the_paths() {
        let peer = |index| Source::Peer(PeerIndex(index));
        let mut bench = Bench::new();
        for (prefix, source) in [
            ("10.0.0.0/8", peer(0)),
            ("10.0.0.0/8", peer(0)),
            ("10.0.0.0/8", peer(1)),
            ("fd00::/8", peer(1)),
            ("fd00::/16", peer(1)),
            ("fd00::/16", Source::Local),
        ] {
            bench.announce(prefix, source, &[1]);
        }
        let counts = |table: &Table| {
            [peer(0), peer(1), peer(2), Source::Local]
                .map(|source| Family::ALL.map(|family| table.count(family, source)))
        };
        assert_eq!(counts(&bench.table), [[1, 0], [1, 2], [0, 0], [0, 1]]);
        let told: Vec<_> = bench
            .table
            .prefixes_from(Family::Ipv6Unicast, peer(1))
            .map(|(prefix, _)| prefix.to_string())
            .collect();
        assert_eq!(told, ["fd00::/8", "fd00::/16"]);
        bench.withdraw("fd00::/8", peer(1));
        bench.withdraw("fd00::/8", peer(1));
        bench.withdraw("10.0.0.0/8", peer(0));
        assert_eq!(counts(&bench.table), [[0, 0], [1, 1], [0, 0], [0, 1]]);
    }
}
