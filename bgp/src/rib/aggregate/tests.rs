use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn aggregate(prefix: Prefix, summary_only: bool) -> Aggregate {
    Aggregate {
        summary_only,
        ..Aggregate::new(prefix)
    }
}

/// What is announced: what it says, and whether it contributes.
type Announced = BTreeMap<Prefix, (u32, bool)>;
/// Aggregates: what they say, and whether they stand alone.
type Configured = BTreeMap<Prefix, (u32, bool)>;

fn configured(aggregates: &Configured) -> impl Iterator<Item = (Aggregate, u32)> {
    aggregates
        .iter()
        .map(|(prefix, (route, summary_only))| (aggregate(*prefix, *summary_only), *route))
}

/// What is to be told, from the definitions, in the plainest way.
fn from_scratch(aggregates: &Configured, announced: &Announced) -> BTreeMap<Prefix, u32> {
    let inside = |outer: &Prefix, inner: &Prefix| outer != inner && outer.contains(inner);
    let formed: Vec<&Prefix> = aggregates
        .keys()
        .filter(|outer| {
            let mut announced = announced.iter();
            announced.any(|(prefix, (_, contributes))| *contributes && inside(outer, prefix))
        })
        .collect();
    let hidden = |prefix: &Prefix| {
        formed
            .iter()
            .any(|outer| aggregates[*outer].1 && inside(outer, prefix))
    };
    let mut told = BTreeMap::new();
    for outer in &formed {
        if !hidden(outer) {
            told.insert(**outer, aggregates[*outer].0);
        }
    }
    for (prefix, (route, contributes)) in announced {
        match *contributes && hidden(prefix) {
            true => told.remove(prefix),
            false => told.insert(*prefix, *route),
        };
    }
    told
}

fn take(state: &mut BTreeMap<Prefix, u32>, told: Vec<Told<u32>>) {
    for (prefix, route) in told {
        match route {
            Some(route) => state.insert(prefix, route),
            None => state.remove(&prefix),
        };
    }
}

/// Few networks, so that they nest and meet.
fn near() -> impl Strategy<Value = Prefix> {
    (0u32..8, 0u8..=5, any::<bool>()).prop_map(|(bits, length, v6)| match v6 {
        false => Prefix::masked_v4(Ipv4Addr::from_bits(bits << 29), length),
        true => Prefix::masked_v6((u128::from(bits) << 125).into(), length),
    })
}

#[derive(Debug, Clone)]
enum Step {
    Announce(Prefix, u32, bool),
    Withdraw(Prefix),
    Reconfigure(Configured),
}

fn aggregates() -> impl Strategy<Value = Configured> {
    proptest::collection::btree_map(near(), (1000u32..1003, any::<bool>()), 0..5)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (near(), 0u32..3, prop::bool::weighted(0.8))
            .prop_map(|(prefix, route, contributes)| Step::Announce(prefix, route, contributes)),
        4 => near().prop_map(Step::Withdraw),
        1 => aggregates().prop_map(Step::Reconfigure),
    ]
}

proptest! {
    #[test]
    fn step_by_step_is_as_from_scratch(
        first in aggregates(),
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut config = first;
        let mut aggregates = Aggregates::new(configured(&config));
        let mut announced = Announced::new();
        let mut state = BTreeMap::new();
        for step in steps {
            let mut told = Vec::new();
            match step.clone() {
                Step::Announce(prefix, route, contributes) => {
                    announced.insert(prefix, (route, contributes));
                    aggregates.announce(prefix, route, contributes, &mut told);
                }
                Step::Withdraw(prefix) => {
                    announced.remove(&prefix);
                    aggregates.withdraw(prefix, &mut told);
                }
                Step::Reconfigure(new) => {
                    config = new;
                    let others: Vec<(Prefix, u32)> =
                        state.iter().map(|(prefix, route)| (*prefix, *route)).collect();
                    aggregates.reconfigure(configured(&config), others, &mut told);
                }
            }
            take(&mut state, told);
            prop_assert_eq!(&state, &from_scratch(&config, &announced), "{:?}", step);
        }
        // Nothing is kept of what is withdrawn.
        for prefix in announced.keys() {
            aggregates.withdraw(*prefix, &mut Vec::new());
        }
        prop_assert!(aggregates.covered.is_empty() && aggregates.apart.is_empty());
        prop_assert!(aggregates.formed_from.values().all(|formed| formed.contributors == 0));
    }
}

#[test]
fn an_aggregate_lives_as_long_as_something_contributes() {
    let mut aggregates = Aggregates::new([(aggregate(prefix("10.0.0.0/8"), true), "sum")]);
    // step, what is told
    let mut step = |text: &str| {
        let mut told = Vec::new();
        match text.split_once(' ').unwrap() {
            ("+", at) => aggregates.announce(prefix(at), "own", true, &mut told),
            ("apart", at) => aggregates.announce(prefix(at), "own", false, &mut told),
            (_, at) => aggregates.withdraw(prefix(at), &mut told),
        }
        let told = told.into_iter();
        told.map(|(prefix, route)| format!("{prefix} {}", route.unwrap_or("gone")))
            .collect::<Vec<_>>()
    };
    let rows: [(&str, &[&str]); 14] = [
        ("+ 11.0.0.0/16", &["11.0.0.0/16 own"]),
        ("+ 10.1.0.0/16", &["10.0.0.0/8 sum"]),
        ("+ 10.2.0.0/16", &[]),
        ("- 10.1.0.0/16", &[]),
        ("+ 10.0.0.0/8", &["10.0.0.0/8 own"]),
        ("- 10.2.0.0/16", &[]),
        ("- 10.0.0.0/8", &["10.0.0.0/8 gone"]),
        ("apart 10.3.0.0/16", &["10.3.0.0/16 own"]),
        ("+ 10.3.0.0/16", &["10.3.0.0/16 gone", "10.0.0.0/8 sum"]),
        ("apart 10.3.0.0/16", &["10.3.0.0/16 own", "10.0.0.0/8 gone"]),
        ("apart 10.3.0.0/16", &[]),
        ("- 10.3.0.0/16", &["10.3.0.0/16 gone"]),
        ("- 10.3.0.0/16", &[]),
        ("- 11.0.0.0/16", &["11.0.0.0/16 gone"]),
    ];
    for (text, expected) in rows {
        assert_eq!(step(text), expected, "{text}");
    }
    step("+ 10.4.0.0/16");
    step("+ 10.5.0.0/16");
    assert_eq!(aggregates.formed(), [(prefix("10.0.0.0/8"), true, 2)]);
}

#[test]
fn what_an_aggregate_says() {
    let mut configured = aggregate(prefix("10.0.0.0/8"), true);
    configured.communities = vec!["65001:1".parse().unwrap()];
    let route = configured.route(65001, Ipv4Addr::new(192, 0, 2, 1));
    assert!(route.atomic_aggregate && route.as_path.is_empty());
    let aggregator = route.rare.aggregator.unwrap();
    assert_eq!(aggregator.asn, 65001);
    assert_eq!(aggregator.router_id, Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(*route.communities, configured.communities);
    let six = aggregate(prefix("fd00::/8"), false).route(65001, Ipv4Addr::new(192, 0, 2, 1));
    assert!(six.next_hop.addr().is_ipv6());
}
