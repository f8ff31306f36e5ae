//! Which of the paths to a prefix are used: the decision process (RFC 4271 section 9.1.2.2) and
//! the choice of paths that are equally good.
//!
//! The outcome depends on the set of paths only, never on the order in which they came.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::config::Multipath;
use crate::rib::attributes::RouteAttributes;

/// The number of a peer, in the order of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(pub u32);

/// Where a path comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The user of this speaker announces it.
    Local,
    /// A peer told us.
    Peer(PeerIndex),
}

/// One path to a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcedPath {
    /// Where it comes from.
    pub source: Source,
    /// What it says. Of a local path, an unspecified next hop stands for ours.
    pub attributes: Arc<RouteAttributes>,
}

impl SourcedPath {
    /// Same source, same (interned) attributes.
    pub(crate) fn is(&self, other: &SourcedPath) -> bool {
        self.source == other.source && Arc::ptr_eq(&self.attributes, &other.attributes)
    }
}

/// What the decision process needs to know about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerRank {
    /// In our own AS.
    pub internal: bool,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Its address.
    pub address: IpAddr,
}

/// Puts the paths to be used in front, the best one first, and returns how many they are: none
/// only if there is no path.
pub fn select(
    paths: &mut [SourcedPath],
    rank: impl Fn(PeerIndex) -> PeerRank,
    multipath: Multipath,
) -> usize {
    if paths.len() <= 1 {
        return paths.len();
    }
    // A local path beats all: we are the origin.
    if let Some(local) = paths.iter().position(|path| path.source == Source::Local) {
        paths.swap(0, local);
        return 1;
    }
    let rank = |path: &SourcedPath| match path.source {
        Source::Peer(peer) => Some(rank(peer)),
        Source::Local => None,
    };
    let internal = |path: &SourcedPath| rank(path).is_some_and(|rank| rank.internal);

    // Section 9.1.2.2 removes paths step by step. Steps a and b, and the preference before them,
    // are one comparison.
    let merit = |path: &SourcedPath| {
        let attributes = &path.attributes;
        (
            Reverse(attributes.preference()),
            attributes.as_path.hops(),
            attributes.origin,
        )
    };
    let best = paths.iter().map(merit).min();
    let mut candidates: Vec<usize> = (0..paths.len())
        .filter(|index| Some(merit(&paths[*index])) == best)
        .collect();

    // Step c: MED, among paths through the same neighbouring AS; none counts as the lowest.
    let neighbour = |index: usize| paths[index].attributes.as_path.first();
    let med = |index: usize| paths[index].attributes.med.unwrap_or(0);
    let all = candidates.clone();
    candidates.retain(|index| {
        !all.iter()
            .any(|other| neighbour(*other) == neighbour(*index) && med(*other) < med(*index))
    });

    // Step d: external before internal. (Step e, the cost of reaching the next hop, is equal for
    // all: there is no interior protocol.)
    if candidates.iter().any(|index| !internal(&paths[*index])) {
        candidates.retain(|index| !internal(&paths[*index]));
    }

    // Steps f and g: identifier, then address, of the peer.
    candidates.sort_by_key(|index| rank(&paths[*index]));
    let Some(&best) = candidates.first() else {
        return 0;
    };

    let equal = |index: usize| {
        index == best
            || !internal(&paths[index])
                && med(index) == med(best)
                && (multipath.relax
                    || paths[index].attributes.as_path == paths[best].attributes.as_path)
    };
    candidates.retain(|index| equal(*index));
    candidates.truncate(multipath.max_paths.max(1));

    // Bring the chosen ones to the front, in their order.
    let mut rest: Vec<SourcedPath> = Vec::with_capacity(paths.len());
    rest.extend(candidates.iter().map(|index| paths[*index].clone()));
    rest.extend(
        (0..paths.len())
            .filter(|i| !candidates.contains(i))
            .map(|index| paths[index].clone()),
    );
    paths.clone_from_slice(&rest);
    candidates.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{AsPath, NextHop, Origin};

    /// A path as a row says it: `peer path [pref=N] [med=N] [origin=igp|egp|incomplete]`.
    fn path(row: &str) -> SourcedPath {
        let mut words = row.split_whitespace();
        let source = match words.next().unwrap() {
            "local" => Source::Local,
            peer => Source::Peer(PeerIndex(peer.parse().unwrap())),
        };
        let next_hop = NextHop::V4(Ipv4Addr::new(10, 0, 0, 1));
        let mut attributes = RouteAttributes::originated(next_hop);
        let path = words.next().unwrap();
        if path != "-" {
            attributes.as_path = AsPath::sequence(path.split(',').map(|asn| asn.parse().unwrap()));
        }
        for word in words {
            let (key, value) = word.split_once('=').unwrap();
            match key {
                "pref" => attributes.local_pref = Some(value.parse().unwrap()),
                "med" => attributes.med = Some(value.parse().unwrap()),
                "origin" => {
                    attributes.origin = match value {
                        "igp" => Origin::Igp,
                        "egp" => Origin::Egp,
                        _ => Origin::Incomplete,
                    }
                }
                _ => panic!("{word}"),
            }
        }
        SourcedPath {
            source,
            attributes: Arc::new(attributes),
        }
    }

    /// Peers 0 to 9 are external, from 10 on internal. Identifiers rise with the number, save that
    /// 4 and 5 share one.
    fn rank(peer: PeerIndex) -> PeerRank {
        let id = if peer.0 == 5 { 4 } else { peer.0 as u8 };
        PeerRank {
            internal: peer.0 >= 10,
            router_id: Ipv4Addr::new(192, 0, 2, id),
            address: Ipv4Addr::new(10, 99, 0, peer.0 as u8).into(),
        }
    }

    fn chosen(rows: &[&str], multipath: Multipath) -> Vec<String> {
        let mut outcomes = Vec::new();
        // Every rotation and its reverse: order must not matter.
        for shift in 0..rows.len() {
            for reverse in [false, true] {
                let mut paths: Vec<_> = rows.iter().map(|row| path(row)).collect();
                paths.rotate_left(shift);
                if reverse {
                    paths.reverse();
                }
                let count = select(&mut paths, rank, multipath);
                let sources: Vec<_> = paths[..count]
                    .iter()
                    .map(|path| match path.source {
                        Source::Local => "local".to_owned(),
                        Source::Peer(peer) => peer.0.to_string(),
                    })
                    .collect();
                assert_eq!(paths.len(), rows.len());
                outcomes.push(sources);
            }
        }
        outcomes.dedup();
        assert_eq!(
            outcomes.len(),
            1,
            "order matters for {rows:?}: {outcomes:?}"
        );
        outcomes.remove(0)
    }

    #[test]
    fn the_best_path_is_the_one_the_rfc_says() {
        // paths, number of the winning peer, why
        let table: &[(&[&str], &str, &str)] = &[
            (&["0 1"], "0", "the only one"),
            (&["local -", "0 - pref=500"], "local", "ours beats all"),
            (
                &["0 1,2,3 pref=200", "1 1"],
                "0",
                "preference before length",
            ),
            (
                &["0 1 pref=100", "1 1,2"],
                "0",
                "no preference counts as 100",
            ),
            (
                &["0 1 pref=99", "1 1,2"],
                "1",
                "no preference counts as 100",
            ),
            (&["0 1,2,3", "1 1,2"], "1", "shorter path"),
            (
                &["0 1,2 origin=igp", "1 1 origin=incomplete"],
                "1",
                "length before origin",
            ),
            (&["0 1 origin=egp", "1 1 origin=igp"], "1", "origin"),
            (&["0 1 origin=incomplete", "1 1 origin=egp"], "1", "origin"),
            (
                &["0 1 med=10", "1 1 med=5"],
                "1",
                "lower MED of the same AS",
            ),
            (&["0 1 med=10", "1 1"], "1", "no MED counts as 0"),
            (
                &["0 1 med=10", "1 2 med=5"],
                "0",
                "MED of different ASes is not compared",
            ),
            (
                &["0 1 origin=egp med=1", "1 1 med=9"],
                "1",
                "origin before MED",
            ),
            (&["10 1 med=1", "0 1 med=2"], "10", "MED before external"),
            (&["10 1", "0 1"], "0", "external before internal"),
            (&["10 1", "11 1"], "10", "lower identifier"),
            (&["2 1", "1 1"], "1", "lower identifier"),
            (&["5 1", "4 1"], "4", "lower address of equal identifiers"),
            // The classic that no pairwise order can decide: 0 loses to 1 by MED, and so can not
            // beat 2 by its identifier.
            (
                &["0 1 med=10", "1 1 med=5", "2 2 med=7"],
                "1",
                "MED removes before identifiers",
            ),
            (
                &["0 1 med=10", "3 1 med=5", "2 2 med=7"],
                "2",
                "MED removes before identifiers",
            ),
        ];
        let single = Multipath {
            max_paths: 1,
            relax: false,
        };
        for (rows, winner, why) in table {
            assert_eq!(chosen(rows, single), [*winner], "{why}: {rows:?}");
        }
    }

    #[test]
    fn paths_equally_good_are_used_together() {
        let strict = Multipath {
            max_paths: 16,
            relax: false,
        };
        let relax = Multipath {
            relax: true,
            ..strict
        };
        let table: &[(&[&str], Multipath, &[&str], &str)] = &[
            (
                &["0 1,9", "1 1,9"],
                strict,
                &["0", "1"],
                "two routers of one AS",
            ),
            (&["0 1,9", "1 2,9"], strict, &["0"], "different ASes"),
            (
                &["0 1,9", "1 2,9"],
                relax,
                &["0", "1"],
                "different ASes, relaxed",
            ),
            (&["0 1,9", "1 2,8,9"], relax, &["0"], "different lengths"),
            (&["0 1,9", "1 1,9 med=5"], strict, &["0"], "different MED"),
            (
                &["0 1,9", "1 2,9 med=5"],
                relax,
                &["0"],
                "different MED, relaxed",
            ),
            (
                &["0 1,9 med=5", "1 2,9 med=5"],
                relax,
                &["0", "1"],
                "equal MED",
            ),
            (
                &["0 1,9", "1 1,9 origin=egp"],
                strict,
                &["0"],
                "different origin",
            ),
            (
                &["0 1,9 pref=200", "1 1,9"],
                strict,
                &["0"],
                "different preference",
            ),
            (
                &["0 1,9", "10 1,9"],
                strict,
                &["0"],
                "internal beside external",
            ),
            (&["10 1,9", "11 1,9"], strict, &["10"], "internal ones"),
            (&["local -", "0 -"], strict, &["local"], "ours alone"),
            (
                &["3 1", "2 1", "1 1", "0 1"],
                Multipath {
                    max_paths: 3,
                    relax: false,
                },
                &["0", "1", "2"],
                "no more than allowed, the same ones always",
            ),
        ];
        for (rows, multipath, expected, why) in table {
            assert_eq!(chosen(rows, *multipath), *expected, "{why}: {rows:?}");
        }
    }
}
