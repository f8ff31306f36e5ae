//! Which of the paths to a prefix are used: the decision process (RFC 4271 section 9.1.2.2) and
//! the choice of paths that are equally good.
//!
//! The outcome depends on the set of paths only, never on the order in which they came.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr};

use crate::config::Multipath;
use crate::rib::attributes::RouteAttributes;
use crate::wire::Origin;

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

/// A path as the decision process sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    /// What it says.
    pub(crate) attributes: &'a RouteAttributes,
    /// Who told us; `None`: we are the origin.
    pub(crate) peer: Option<PeerRank>,
    /// Tells paths of one peer apart (RFC 7911).
    pub(crate) path_id: u32,
    /// Kept for long after its session was lost: used only where there is nothing better
    /// (RFC 9494 section 4.3).
    pub(crate) last_resort: bool,
    /// Its next hop can be reached,
    pub(crate) usable: bool,
    /// at this cost.
    pub(crate) metric: u32,
}

impl Candidate<'_> {
    /// Steps a and b of section 9.1.2.2, and the preference before them, in one comparison.
    fn merit(&self) -> (bool, Reverse<u32>, usize, Origin) {
        let attributes = self.attributes;
        (
            self.last_resort,
            Reverse(attributes.preference()),
            attributes.as_path.hops(),
            attributes.origin,
        )
    }

    fn med(&self) -> u32 {
        self.attributes.med.unwrap_or(0)
    }

    fn internal(&self) -> bool {
        self.peer.is_some_and(|rank| rank.internal)
    }

    /// Steps f and g: identifier, then address, of the peer. A route that was reflected counts as
    /// of its originator, and the longer way through reflectors is the worse one (RFC 4456
    /// section 9).
    fn tie_break(&self) -> Option<(Ipv4Addr, usize, IpAddr, u32)> {
        let rank = self.peer?;
        let originator = self.attributes.rare.originator_id.unwrap_or(rank.router_id);
        let reflections = self.attributes.rare.cluster_list.len();
        Some((originator, reflections, rank.address, self.path_id))
    }
}

/// Puts the paths to be used in front, the best one first, and returns how many they are: none
/// only if no path is usable.
pub(crate) fn select<'a, P: Copy>(
    paths: &mut [P],
    view: impl Fn(&P) -> Candidate<'a>,
    multipath: Multipath,
) -> usize {
    if let [only] = paths {
        return usize::from(view(only).usable);
    }
    let views: Vec<Candidate<'a>> = paths.iter().map(view).collect();
    // A local path beats all: we are the origin.
    if let Some(local) = views.iter().position(|path| path.peer.is_none()) {
        paths.swap(0, local);
        return 1;
    }

    // Section 9.1.2.2 removes paths step by step.
    let usable = || views.iter().filter(|path| path.usable);
    let best = usable().map(Candidate::merit).min();
    let mut candidates: Vec<usize> = (0..views.len())
        .filter(|index| views[*index].usable && Some(views[*index].merit()) == best)
        .collect();

    // Step c: MED, among paths through the same neighbouring AS; none counts as the lowest.
    let neighbour = |index: usize| views[index].attributes.as_path.first();
    if candidates.len() > 1 {
        let all = candidates.clone();
        candidates.retain(|&index| {
            !all.iter().any(|&other| {
                views[other].med() < views[index].med() && neighbour(other) == neighbour(index)
            })
        });
    }

    // Step d: external before internal.
    if candidates.iter().any(|index| !views[*index].internal()) {
        candidates.retain(|index| !views[*index].internal());
    }

    // Step e: the cost of reaching the next hop, as the user of the speaker knows it.
    let metric = candidates.iter().map(|index| views[*index].metric).min();
    candidates.retain(|index| Some(views[*index].metric) == metric);

    candidates.sort_by_key(|index| views[*index].tie_break());
    let Some(&best) = candidates.first() else {
        return 0;
    };

    let equal = |index: usize| {
        let path = &views[index];
        index == best
            || !path.internal()
                && path.med() == views[best].med()
                && (multipath.relax || path.attributes.as_path == views[best].attributes.as_path)
    };
    candidates.retain(|index| equal(*index));
    candidates.truncate(multipath.max_paths.max(1));

    // Bring the chosen ones to the front, in their order.
    let before: Vec<P> = paths.to_vec();
    let rest = (0..before.len()).filter(|index| !candidates.contains(index));
    let order = candidates.iter().copied().chain(rest);
    for (place, index) in paths.iter_mut().zip(order) {
        *place = before[index];
    }
    candidates.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{AsPath, NextHop};

    #[derive(Debug)]
    struct Row {
        source: Source,
        attributes: RouteAttributes,
        last_resort: bool,
        usable: bool,
        metric: u32,
    }

    /// A path as a row says it: `peer path [pref=N] [med=N] [origin=igp|egp|incomplete] [stale]
    /// [unreachable] [metric=N]`.
    fn path(row: &str) -> Row {
        let (mut last_resort, mut usable, mut metric) = (false, true, 0);
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
            match word {
                "stale" => last_resort = true,
                "unreachable" => usable = false,
                _ => {}
            }
            let Some((key, value)) = word.split_once('=') else {
                continue;
            };
            match key {
                "pref" => attributes.local_pref = Some(value.parse().unwrap()),
                "metric" => metric = value.parse().unwrap(),
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
        Row {
            source,
            attributes,
            last_resort,
            usable,
            metric,
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
                let all: Vec<_> = rows.iter().map(|row| path(row)).collect();
                let mut paths: Vec<&Row> = all.iter().collect();
                paths.rotate_left(shift);
                if reverse {
                    paths.reverse();
                }
                let view = |row: &&'_ Row| Candidate {
                    // Every row outlives the call.
                    attributes: &all[all
                        .iter()
                        .position(|other| std::ptr::eq(other, *row))
                        .unwrap()]
                    .attributes,
                    peer: match row.source {
                        Source::Local => None,
                        Source::Peer(peer) => Some(rank(peer)),
                    },
                    path_id: 0,
                    last_resort: row.last_resort,
                    usable: row.usable,
                    metric: row.metric,
                };
                let count = select(&mut paths, view, multipath);
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
            (
                &["10 1 metric=5", "0 1 metric=9"],
                "0",
                "external before the cost of the next hop",
            ),
            (&["10 1 metric=9", "11 1 metric=5"], "11", "nearer next hop"),
            (
                &["10 1 metric=5 med=2", "11 1 metric=9 med=1"],
                "11",
                "MED before the cost of the next hop",
            ),
            (&["10 1", "11 1"], "10", "lower identifier"),
            (&["2 1", "1 1"], "1", "lower identifier"),
            (&["5 1", "4 1"], "4", "lower address of equal identifiers"),
            (
                &["0 1 stale", "1 1,2,3"],
                "1",
                "anything before a long-lived stale one",
            ),
            (
                &["0 1 stale", "1 1,2 stale"],
                "0",
                "stale ones among themselves",
            ),
            (
                &["0 1 unreachable", "1 1,2,3"],
                "1",
                "a next hop that cannot be reached",
            ),
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
            (
                &["0 1,9 metric=1", "1 1,9 metric=2"],
                strict,
                &["0"],
                "next hops of different cost",
            ),
            (
                &["0 1,9", "1 1,9 unreachable"],
                strict,
                &["0"],
                "a next hop that cannot be reached",
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
