use std::net::Ipv4Addr;

use super::*;
use crate::rib::next_hop::NextHops;
use crate::wire::{AsPath, NextHop};

struct Bench {
    table: Table,
}

const BOTH: Change = Change {
    best: true,
    used: true,
    any: true,
};
const USED: Change = Change {
    best: false,
    used: true,
    any: true,
};
const BEST: Change = Change {
    best: true,
    used: false,
    any: true,
};
/// A path that is not in use.
const ANY: Change = Change {
    best: false,
    used: false,
    any: true,
};
const NONE: Change = Change {
    best: false,
    used: false,
    any: false,
};

impl Bench {
    fn new() -> Bench {
        let ranks = (0..3).map(|peer| PeerRank {
            internal: false,
            router_id: Ipv4Addr::new(192, 0, 2, peer),
            address: Ipv4Addr::new(10, 99, 0, peer).into(),
        });
        Bench {
            table: Table::new(ranks.collect(), Multipath::default()),
        }
    }

    fn announce(&mut self, prefix: &str, source: Source, path: &[u32]) -> Change {
        let attributes = RouteAttributes {
            as_path: AsPath::sequence(path.iter().copied()),
            ..RouteAttributes::originated(NextHop::V4(Ipv4Addr::new(10, 99, 0, 1)))
        };
        let id = self.table.interner.intern(attributes);
        let nlri = Nlri::from(prefix.parse::<Prefix>().unwrap());
        let changed = self.table.announce(nlri, source, id);
        self.table.interner.release(id);
        changed.change
    }

    fn withdraw(&mut self, prefix: &str, source: Source) -> Change {
        let nlri = Nlri::from(prefix.parse::<Prefix>().unwrap());
        let changed = self.table.withdraw(nlri, source);
        changed.map_or(NONE, |changed| changed.change)
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
    assert_eq!(bench.announce(net, peer(0), &[2, 8, 9]), ANY, "a worse one");
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
    assert_eq!(bench.withdraw(net, peer(1)), ANY, "not in use");
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
    assert_eq!(bench.table.prefixes(), [], "nothing is left behind");
    assert!(bench.table.used(&net.parse().unwrap()).is_empty());
    assert_eq!(bench.table.interner.len(), 0, "no attributes either");
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
    let told = bench.table.paths_from(Family::Ipv6Unicast, peer(1));
    let told: Vec<_> = told.iter().map(|(nlri, _)| nlri.to_string()).collect();
    assert_eq!(told, ["fd00::/8", "fd00::/16"]);
    bench.withdraw("fd00::/8", peer(1));
    bench.withdraw("fd00::/8", peer(1));
    bench.withdraw("10.0.0.0/8", peer(0));
    assert_eq!(counts(&bench.table), [[0, 0], [1, 1], [0, 0], [0, 1]]);
}

fn host(index: u32) -> Prefix {
    Prefix::host(Ipv4Addr::from_bits(index).into())
}

#[test]
fn numbers_are_given_out_again_once_nobody_keeps_anything_under_them() {
    let mut bench = Bench::new();
    let peer = Source::Peer(PeerIndex(0));
    let v4 = Family::Ipv4Unicast;
    for index in 0..1000 {
        bench.announce(&host(index).to_string(), peer, &[1]);
    }
    for index in 0..1000 {
        bench.withdraw(&host(index).to_string(), peer);
    }
    bench.table.sweep(v4, |id| id < 100);
    assert_eq!(bench.table.id(&host(500)), None);
    assert_eq!(
        bench.table.prefix(v4, bench.table.id(&host(50)).unwrap()),
        host(50)
    );
    // One comes back while it is kept, and keeps its number.
    let number = bench.table.id(&host(50));
    bench.announce(&host(50).to_string(), peer, &[1]);
    assert_eq!(bench.table.id(&host(50)), number);
    for index in 2000..3000 {
        bench.announce(&host(index).to_string(), peer, &[1]);
    }
    let numbers = bench.table.families[slot(v4)].numbers;
    assert_eq!(numbers, 1100, "900 of the first thousand serve again");
    let all: Vec<_> = (2000..3000).map(host).collect();
    let mut found = bench.table.prefixes();
    found.retain(|prefix| *prefix != host(50));
    assert_eq!(found, all);
}

/// Whatever the order of changes, the table is what a plain map would be.
#[test]
fn many_paths_of_many_sources_are_what_a_map_says() {
    use std::collections::BTreeMap;
    let mut bench = Bench::new();
    let mut model: BTreeMap<(Prefix, Source, u32), u32> = BTreeMap::new();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    for _ in 0..20_000 {
        let prefix = host(below(40) as u32);
        let source = match below(4) {
            3 => Source::Local,
            peer => Source::Peer(PeerIndex(peer as u32)),
        };
        let path_id = if source == Source::Local {
            0
        } else {
            below(3) as u32
        };
        let nlri = Nlri { prefix, path_id };
        if below(3) == 0 {
            let changed = bench.table.withdraw(nlri, source);
            let there = model.remove(&(prefix, source, path_id)).is_some();
            assert_eq!(changed.is_some(), there);
        } else {
            let asn = 1 + below(3) as u32;
            let attributes = RouteAttributes {
                as_path: AsPath::sequence([asn]),
                ..RouteAttributes::originated(NextHop::V4(Ipv4Addr::new(10, 99, 0, 1)))
            };
            let id = bench.table.interner.intern(attributes);
            let changed = bench.table.announce(nlri, source, id);
            bench.table.interner.release(id);
            let before = model.insert((prefix, source, path_id), asn);
            assert_eq!(changed.change.any, before != Some(asn));
        }
        if below(50) == 0 {
            bench.table.sweep(Family::Ipv4Unicast, |_| false);
        }
        let mut seen = BTreeMap::new();
        let id = bench.table.id(&prefix);
        for path in id
            .iter()
            .flat_map(|id| bench.table.all(Family::Ipv4Unicast, *id).to_vec())
        {
            let asn = bench
                .table
                .attributes(path.attributes)
                .as_path
                .first()
                .unwrap();
            seen.insert((prefix, Source::from(path.source), path.path_id), asn);
        }
        let range = (prefix, Source::Local, 0)..=(prefix, Source::Peer(PeerIndex(9)), 9);
        let expected: BTreeMap<_, _> = model.range(range).map(|(k, v)| (*k, *v)).collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn paths_by_a_next_hop_that_cannot_be_reached_wait() {
    let peer = |index| Source::Peer(PeerIndex(index));
    let hop = |last| std::net::IpAddr::V4(Ipv4Addr::new(10, 99, 0, last));
    let state = |last, metric: Option<u32>| {
        let state = match metric {
            Some(metric) => NextHopState::Reachable { metric },
            None => NextHopState::Unreachable,
        };
        [(Prefix::host(hop(last)), Some(state))]
    };
    let mut bench = Bench::new();
    bench.table.interner.next_hops = NextHops::new(true);
    let announce = |bench: &mut Bench, net: &str, source, last| {
        let attributes = RouteAttributes::originated(NextHop::V4(Ipv4Addr::new(10, 99, 0, last)));
        let id = bench.table.interner.intern(attributes);
        let nlri = Nlri::from(net.parse::<Prefix>().unwrap());
        let changed = bench.table.announce(nlri, source, id);
        bench.table.interner.release(id);
        changed.change
    };
    let say = |bench: &mut Bench, last, metric| {
        let changed = bench.table.interner.next_hops.tell(state(last, metric));
        let changed = bench.table.next_hops_changed(&changed);
        let change = |changed: &Changed| {
            let prefix = bench.table.prefix(changed.family, changed.id).to_string();
            (prefix, changed.change)
        };
        changed.iter().map(change).collect::<Vec<_>>()
    };
    let used = |bench: &Bench, net: &str| {
        let used = bench.table.used(&net.parse().unwrap());
        let sources = used.iter().map(|path| Source::from(path.source));
        sources.collect::<Vec<_>>()
    };
    let (one, two) = ("10.0.0.0/8", "11.0.0.0/8");
    assert_eq!(
        announce(&mut bench, one, peer(1), 1),
        ANY,
        "nobody spoke of its next hop"
    );
    assert_eq!(
        announce(&mut bench, one, peer(1), 1),
        NONE,
        "the same again"
    );
    assert_eq!(announce(&mut bench, one, peer(2), 2), ANY);
    assert_eq!(announce(&mut bench, two, peer(2), 2), ANY);
    assert_eq!(used(&bench, one), []);
    assert_eq!(bench.table.best(Family::Ipv4Unicast, 0), None);
    assert_eq!(
        say(&mut bench, 2, Some(5)),
        [(one.to_owned(), BOTH), (two.to_owned(), BOTH)]
    );
    assert_eq!(used(&bench, one), [peer(2)]);
    assert_eq!(say(&mut bench, 1, Some(5)), [(one.to_owned(), BOTH)]);
    assert_eq!(used(&bench, one), [peer(1), peer(2)], "equal cost");
    assert_eq!(say(&mut bench, 1, Some(6)), [(one.to_owned(), BOTH)]);
    assert_eq!(used(&bench, one), [peer(2)], "the other one is dearer");
    assert_eq!(say(&mut bench, 1, Some(6)), []);
    assert_eq!(
        say(&mut bench, 2, None),
        [(one.to_owned(), BOTH), (two.to_owned(), BOTH)]
    );
    assert_eq!(used(&bench, one), [peer(1)]);
    assert_eq!(used(&bench, two), []);
    assert_eq!(
        announce(&mut bench, two, peer(2), 1),
        BOTH,
        "by the other one"
    );
    assert_eq!(announce(&mut bench, two, peer(2), 2), BOTH, "and back");
    assert_eq!(bench.withdraw(two, peer(2)), ANY, "it was of no use");
    assert_eq!(bench.withdraw(one, peer(2)), ANY);
    assert_eq!(bench.withdraw(one, peer(1)), BOTH);
    assert_eq!(bench.table.interner.next_hops.used(), []);
}
