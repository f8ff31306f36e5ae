//! Routes of our own with aggregates, and learned ones whose next hops are tracked.

use super::*;
use crate::config::Aggregate;
use crate::rib::next_hop::NextHopState;

fn told(bench: &mut Bench, id: ConnectionId) -> Vec<String> {
    let mut rows = Vec::new();
    for update in bench.updates(id) {
        rows.extend(update.unreachable().map(|nlri| format!("- {nlri}")));
        for reach in update.reachable() {
            let attributes = &update.attributes;
            let kind = match (attributes.atomic_aggregate, attributes.aggregator) {
                (true, Some(aggregator)) => format!("aggregate of {}", aggregator.asn),
                _ => "route".to_owned(),
            };
            rows.extend(reach.nlri.iter().map(|nlri| format!("+ {nlri} {kind}")));
        }
    }
    rows.sort();
    rows
}

#[test]
fn an_aggregate_is_told_in_place_of_what_it_stands_for() {
    let sum = Aggregate {
        summary_only: true,
        ..Aggregate::new(prefix("10.0.0.0/8"))
    };
    let mut bench = Bench::new(SpeakerConfig {
        aggregate: vec![sum],
        ..config(vec![peer("a", A, 65002)])
    });
    let id = bench.establish(A, 65002);
    bench.core.announce(vec![
        announcement("10.1.0.0/16"),
        announcement("10.2.0.0/16"),
        announcement("11.0.0.0/8"),
    ]);
    bench.drain();
    assert_eq!(
        told(&mut bench, id),
        ["+ 10.0.0.0/8 aggregate of 65001", "+ 11.0.0.0/8 route"]
    );
    let apart = Announcement {
        aggregate: false,
        ..announcement("10.2.0.0/16")
    };
    bench.core.announce(vec![apart]);
    bench.drain();
    assert_eq!(told(&mut bench, id), ["+ 10.2.0.0/16 route"]);
    bench.core.withdraw(&[prefix("10.1.0.0/16")]);
    bench.drain();
    assert_eq!(told(&mut bench, id), ["- 10.0.0.0/8"]);
    bench.core.announce(vec![announcement("10.1.0.0/16")]);
    bench.drain();
    assert_eq!(told(&mut bench, id), ["+ 10.0.0.0/8 aggregate of 65001"]);

    // Other aggregates, without a reset.
    bench
        .core
        .set_aggregates(vec![Aggregate::new(prefix("10.0.0.0/7"))]);
    bench.drain();
    assert_eq!(
        told(&mut bench, id),
        [
            "+ 10.0.0.0/7 aggregate of 65001",
            "+ 10.1.0.0/16 route",
            "- 10.0.0.0/8"
        ]
    );
    bench.core.set_aggregates(Vec::new());
    bench.drain();
    assert_eq!(told(&mut bench, id), ["- 10.0.0.0/7"]);
    bench
        .core
        .withdraw(&["10.1.0.0/16", "10.2.0.0/16", "11.0.0.0/8"].map(prefix));
    bench.drain();
    assert_eq!(told(&mut bench, id).len(), 3);
    assert_eq!(bench.core.state("a"), Some(State::Established));
}

#[test]
fn paths_wait_for_their_next_hops() {
    let mut bench = Bench::new(SpeakerConfig {
        track_next_hops: true,
        ..config(vec![peer("a", A, 65002), peer("b", B, 65003)])
    });
    let (a, b) = (bench.establish(A, 65002), bench.establish(B, 65003));
    bench.core.take_events();
    // By way of the peer itself: the session is proof. By way of another: nobody knows.
    bench.feed(a, update(&[65002], "10.99.0.2", &["10.1.0.0/16"]));
    bench.feed(a, update(&[65002], "10.88.0.9", &["10.2.0.0/16"]));
    assert_eq!(used(&bench.core), ["10.1.0.0/16 a"]);
    assert_eq!(told(&mut bench, b), ["+ 10.1.0.0/16 route"]);
    let hops: Vec<_> = bench
        .core
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            Event::NextHop { address, in_use } => Some((address.to_string(), in_use)),
            _ => None,
        })
        .collect();
    assert_eq!(
        hops,
        [
            ("10.99.0.2".to_owned(), true),
            ("10.88.0.9".to_owned(), true)
        ]
    );

    let reachable = Some(NextHopState::Reachable { metric: 10 });
    bench
        .core
        .set_next_hops([(prefix("10.88.0.0/16"), reachable)]);
    bench.drain();
    assert_eq!(used(&bench.core), ["10.1.0.0/16 a", "10.2.0.0/16 a"]);
    assert_eq!(told(&mut bench, b), ["+ 10.2.0.0/16 route"]);
    assert!(bench.core.take_events().iter().any(
        |event| matches!(event, Event::Route(change) if change.prefix == prefix("10.2.0.0/16"))
    ));

    bench
        .core
        .set_next_hops([(prefix("10.88.0.9/32"), Some(NextHopState::Unreachable))]);
    bench.drain();
    assert_eq!(used(&bench.core), ["10.1.0.0/16 a"]);
    assert_eq!(told(&mut bench, b), ["- 10.2.0.0/16"]);
    // Another peer has a path that can be used: it is.
    bench.feed(b, update(&[65003, 7, 8], "10.99.0.3", &["10.2.0.0/16"]));
    assert_eq!(used(&bench.core), ["10.1.0.0/16 a", "10.2.0.0/16 b"]);
    bench.core.set_next_hops([(prefix("10.88.0.9/32"), None)]);
    bench.drain();
    assert_eq!(
        used(&bench.core),
        ["10.1.0.0/16 a", "10.2.0.0/16 a"],
        "the shorter one is back"
    );
    assert_eq!(bench.core.next_hops().len(), 3);
    let state = bench.core.current_state();
    assert_eq!(
        state
            .iter()
            .filter(|event| matches!(event, Event::NextHop { .. }))
            .count(),
        3
    );

    bench.feed(a, Notification::cease(Cease::AdministrativeReset));
    assert_eq!(used(&bench.core), ["10.2.0.0/16 b"]);
    assert_eq!(bench.core.next_hops().len(), 1);
    let gone = bench
        .core
        .take_events()
        .into_iter()
        .filter(|event| matches!(event, Event::NextHop { in_use: false, .. }));
    assert_eq!(gone.count(), 2);
}
