//! Peers that come, go and change under way.

use proptest::prelude::*;

use super::*;
use crate::config::{DynamicAsn, DynamicPeers};
use crate::core::roster::REMEMBERED;
use crate::core::{AddPeerError, Reconfigured, RefreshError};

const C: [u8; 4] = [10, 99, 0, 4];

fn names(bench: &Bench) -> Vec<String> {
    let peers = bench.core.peers(bench.now);
    peers.iter().map(|peer| peer.name.to_string()).collect()
}

fn reconfigure(bench: &mut Bench, config: SpeakerConfig) -> Reconfigured {
    let done = bench.core.reconfigure(config, bench.now).unwrap();
    bench.drain();
    done
}

/// The names of a summary: added, removed, reset, changed.
fn summary(done: &Reconfigured) -> [String; 4] {
    [&done.added, &done.removed, &done.reset, &done.changed].map(|names| {
        let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
        names.join("+")
    })
}

fn gone(bench: &mut Bench) -> Vec<String> {
    let events = bench.core.take_events().into_iter();
    events
        .filter_map(|event| match event {
            Event::PeerGone { peer } => Some(peer.to_string()),
            _ => None,
        })
        .collect()
}

#[test]
fn peers_come_and_go_and_others_do_not_notice() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let a = bench.establish(A, 65002);
    bench.core.add_peer(peer("b", B, 65003), bench.now).unwrap();
    let b = bench.establish(B, 65003);
    bench.feed(b, update(&[65003], "10.99.0.3", &["10.2.0.0/16"]));
    assert_eq!(used(&bench.core), ["10.2.0.0/16 b"]);
    let again = bench.core.add_peer(peer("b", C, 65003), bench.now);
    assert!(matches!(again, Err(AddPeerError::Name(name)) if name == "b"));
    let again = bench.core.add_peer(peer("c", B, 65003), bench.now);
    assert!(matches!(again, Err(AddPeerError::Address(name)) if name == "b"));
    bench.sent(a);

    bench.core.remove_peer("b", bench.now).unwrap();
    bench.drain();
    assert_eq!(bench.refusal(b), (6, 3));
    assert_eq!(
        (names(&bench), gone(&mut bench)),
        (vec!["a".into()], vec!["b".into()])
    );
    assert!(used(&bench.core).is_empty());
    assert!(bench.accept(B).is_none());
    assert!(bench.core.remove_peer("b", bench.now).is_err());
    assert_eq!(bench.core.state("a"), Some(State::Established));

    // The next one takes the place, and nothing that is said of the last one's connections.
    bench.core.add_peer(peer("c", C, 65004), bench.now).unwrap();
    let c = bench.establish(C, 65004);
    assert_eq!(c.peer_index(), b.peer_index());
    assert_ne!(c, b);
    bench.core.closed(b, "late".into(), bench.now);
    bench.core.received(b, &[0; 19], bench.now);
    assert_eq!(bench.core.state("c"), Some(State::Established));
    assert_eq!(names(&bench), ["a", "c"]);
    assert_eq!(bench.core.peers(bench.now)[1].sessions, 1);
}

#[test]
fn a_new_configuration_ends_only_the_sessions_it_must() {
    let base = || vec![peer("a", A, 65002), peer("b", B, 65003)];
    type Edit = fn(&mut SpeakerConfig);
    // what is new; added, removed, reset, changed; the NOTIFICATION that peer a gets
    type Row = (&'static str, Edit, [&'static str; 4], Option<(u8, u8)>);
    let rows: &[Row] = &[
        ("nothing", |_| {}, ["", "", "", ""], None),
        (
            "another peer",
            |c| c.peers.push(peer("c", C, 65004)),
            ["c", "", "", ""],
            None,
        ),
        (
            "a is gone",
            |c| drop(c.peers.remove(0)),
            ["", "a", "", ""],
            Some((6, 3)),
        ),
        (
            "a has another AS",
            |c| c.peers[0].asn = 65009,
            ["", "", "a", ""],
            Some((6, 6)),
        ),
        (
            "a connects elsewhere next time",
            |c| c.peers[0].port = 1179,
            ["", "", "", "a"],
            None,
        ),
        (
            "a may say less",
            |c| c.peers[0].import = ImportPolicy::None,
            ["", "", "", "a"],
            None,
        ),
        (
            "a and b change places",
            |c| {
                c.peers[0].address = Ipv4Addr::from(B).into();
                c.peers[1].address = Ipv4Addr::from(A).into();
            },
            ["", "", "a+b", ""],
            Some((6, 6)),
        ),
        (
            "we have another AS",
            |c| c.asn = 65008,
            ["", "", "a+b", ""],
            Some((6, 6)),
        ),
        (
            "more paths",
            |c| c.multipath.max_paths = 2,
            ["", "", "", ""],
            None,
        ),
    ];
    for (what, edit, expected, notified) in rows {
        let mut bench = Bench::new(config(base()));
        let (a, b) = (bench.establish(A, 65002), bench.establish(B, 65003));
        bench.sent(a);
        bench.sent(b);
        let mut new = config(base());
        edit(&mut new);
        let done = reconfigure(&mut bench, new.clone());
        assert_eq!(summary(&done), *expected, "{what}");
        match notified {
            Some(notified) => assert_eq!(bench.refusal(a), *notified, "{what}"),
            None => {
                assert!(!bench.closed.contains(&a), "{what}");
                assert_eq!(bench.core.state("a"), Some(State::Established), "{what}");
            }
        }
        // The same again changes nothing.
        let done = reconfigure(&mut bench, new);
        assert_eq!(done, Reconfigured::default(), "{what}, again");
    }
}

#[test]
fn a_configuration_that_makes_no_sense_changes_nothing() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    bench.establish(A, 65002);
    let twice = config(vec![peer("b", B, 65002), peer("b", C, 65002)]);
    assert!(bench.core.reconfigure(twice, bench.now).is_err());
    assert_eq!(bench.core.state("a"), Some(State::Established));
    assert_eq!(names(&bench), ["a"]);
}

#[test]
fn another_import_policy_asks_for_the_routes_again() {
    let all = || config(vec![peer("a", A, 65002)]);
    let mut narrow = all();
    narrow.peers[0].import = serde_json::from_str(r#"[{"permit":"10.1.0.0/16"}]"#).unwrap();
    let mut bench = Bench::new(narrow.clone());
    let a = bench.establish(A, 65002);
    let routes = update(&[65002], "10.99.0.2", &["10.1.0.0/16", "10.2.0.0/16"]);
    bench.feed(a, routes.clone());
    bench.sent(a);
    reconfigure(&mut bench, all());
    let asked: Vec<_> = bench
        .sent(a)
        .into_iter()
        .filter_map(|message| match message {
            Message::RouteRefresh(refresh) => Some((refresh.family, refresh.subtype)),
            _ => None,
        })
        .collect();
    assert_eq!(asked, Family::ALL.map(|family| (family.into(), 0)));
    bench.feed(a, routes);
    assert_eq!(used(&bench.core), ["10.1.0.0/16 a", "10.2.0.0/16 a"]);
    // All that it told is known now: nothing is to be asked.
    reconfigure(&mut bench, narrow);
    assert_eq!(used(&bench.core), ["10.1.0.0/16 a"]);
    assert!(bench.sent(a).is_empty());
}

#[test]
fn aggregates_next_hops_and_multipath_change_under_way() {
    let peers = || vec![peer("a", A, 65002), peer("b", B, 65003)];
    let mut bench = Bench::new(config(peers()));
    bench.core.announce(vec![announcement("10.5.0.0/16")]);
    let (a, b) = (bench.establish(A, 65002), bench.establish(B, 65003));
    bench.feed(a, update(&[65002], "10.88.0.9", &["11.1.0.0/16"]));
    bench.feed(b, update(&[65003], "10.99.0.3", &["11.1.0.0/16"]));
    bench.sent(b);
    assert_eq!(used(&bench.core), ["11.1.0.0/16 a"]);
    let mut new = config(peers());
    new.multipath.relax = true;
    reconfigure(&mut bench, new.clone());
    assert_eq!(used(&bench.core), ["11.1.0.0/16 a+b"]);
    new.track_next_hops = true;
    reconfigure(&mut bench, new.clone());
    assert_eq!(
        used(&bench.core),
        ["11.1.0.0/16 b"],
        "nobody spoke of 10.88.0.9"
    );
    new.track_next_hops = false;
    reconfigure(&mut bench, new.clone());
    assert_eq!(used(&bench.core), ["11.1.0.0/16 a+b"]);
    bench.sent(b);
    new.aggregate = vec![crate::config::Aggregate::new(prefix("10.0.0.0/8"))];
    reconfigure(&mut bench, new);
    let told = bench.updates(b);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].attributes.atomic_aggregate);
    assert_eq!(bench.core.peers(bench.now)[1].sessions, 1);
}

#[test]
fn another_export_policy_tells_the_difference() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    bench.core.announce(vec![announcement("10.5.0.0/16")]);
    let a = bench.establish(A, 65002);
    bench.sent(a);
    let mut new = config(vec![peer("a", A, 65002)]);
    new.peers[0].export = ExportPolicy::None;
    let done = reconfigure(&mut bench, new);
    assert_eq!(summary(&done), ["", "", "", "a"]);
    let told = bench.updates(a);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].unreachable().count(), 1, "{told:?}");
    let done = reconfigure(&mut bench, config(vec![peer("a", A, 65002)]));
    assert_eq!(summary(&done), ["", "", "", "a"]);
    assert_eq!(bench.updates(a).len(), 1);
    assert_eq!(bench.core.state("a"), Some(State::Established));
}

#[test]
fn a_peer_is_asked_for_its_routes_if_it_can_be() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002), peer("b", B, 65003)]));
    let refused = |bench: &mut Bench, name: &str| {
        let error = bench.core.refresh_peer(name, bench.now).unwrap_err();
        error.to_string()
    };
    assert!(refused(&mut bench, "c").contains("no peer is called \"c\""));
    assert!(refused(&mut bench, "a").contains("has no session"));
    let b = bench.accept(B).unwrap();
    let plain = Open::new(65003, 90, B.into(), Vec::new());
    bench.feed(b, Message::Open(plain));
    bench.feed(b, Message::Keepalive);
    let error = bench.core.refresh_peer("b", bench.now).unwrap_err();
    assert!(matches!(error, RefreshError::Unsupported(_)));
    assert!(error.to_string().contains("does not offer route refresh"));
    let a = bench.establish(A, 65002);
    bench.sent(a);
    bench.core.refresh_peer("a", bench.now).unwrap();
    bench.drain();
    assert_eq!(bench.sent(a).len(), 2);
}

#[test]
fn a_shutdown_carries_its_text() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let a = bench.establish(A, 65002);
    bench.sent(a);
    let text = Some("disk swap");
    bench
        .core
        .set_peer_admin("a", false, text, bench.now)
        .unwrap();
    bench.drain();
    let Some(Message::Notification(notification)) = bench.sent(a).pop() else {
        panic!("no NOTIFICATION");
    };
    assert_eq!((notification.code, notification.subcode), (6, 2));
    assert_eq!(&notification.data[1..], b"disk swap");
}

#[test]
fn a_peer_may_know_us_by_another_as() {
    let other = PeerConfig {
        local_asn: Some(65077),
        ..peer("a", A, 65002)
    };
    let mut bench = Bench::new(config(vec![other]));
    bench.core.announce(vec![announcement("10.5.0.0/16")]);
    let a = bench.accept(A).unwrap();
    let Some(Message::Open(ours)) = bench.sent(a).pop() else {
        panic!("no OPEN");
    };
    assert_eq!(ours.asn(), 65077);
    bench.feed(a, open(65002, A));
    bench.feed(a, Message::Keepalive);
    let told = bench.updates(a).remove(0);
    assert_eq!(told.attributes.as_path, Some(AsPath::sequence([65077])));
}

#[test]
fn a_peer_that_stops_reading_loses_its_session_in_the_end() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let a = bench.establish(A, 65002);
    bench.reading = false;
    bench.core.announce(vec![announcement("10.5.0.0/16")]);
    bench.drain();
    let start = bench.now;
    // It is alive all the while: it only does not read.
    while bench.core.state("a") == Some(State::Established) {
        assert!(bench.now - start < Duration::from_secs(600), "no end of it");
        bench.pass(Duration::from_secs(2));
        bench.feed(a, Message::Keepalive);
    }
    let held = bench.now - start;
    assert!(held >= Duration::from_secs(480), "{held:?}");
    assert!(bench.closed.contains(&a));
    let last = bench.sent(a).pop();
    assert!(
        matches!(&last, Some(Message::Notification(n)) if (n.code, n.subcode) == (8, 0)),
        "{last:?}"
    );
    let error = bench.error();
    assert!(
        error.contains("has read nothing of what we sent for 480 s"),
        "{error}"
    );
}

#[test]
fn private_as_numbers_stay_here_and_our_own_may_come_in() {
    let lenient = PeerConfig {
        allow_own_as: 1,
        ..peer("a", A, 65002)
    };
    let public = PeerConfig {
        remove_private_as: true,
        ..peer("b", B, 3)
    };
    let mut bench = Bench::new(config(vec![lenient, public]));
    let a = bench.establish(A, 65002);
    let b = bench.establish(B, 3);
    bench.updates(b);
    bench.feed(a, update(&[65002, 7, 65001], "10.99.0.2", &["10.1.0.0/16"]));
    bench.feed(
        a,
        update(&[65002, 65001, 65001], "10.99.0.2", &["10.2.0.0/16"]),
    );
    assert_eq!(used(&bench.core), ["10.1.0.0/16 a"]);
    let told = bench.updates(b).remove(0);
    assert_eq!(told.attributes.as_path, Some(AsPath::sequence([65001, 7])));
}

pub(super) fn group(name: &str, prefix: &str, limit: u32, asn: DynamicAsn) -> DynamicPeers {
    // Nobody keeps these sessions alive.
    let template = PeerConfig {
        hold_time: 0,
        ..peer(name, A, 1)
    };
    DynamicPeers {
        limit,
        ..DynamicPeers::new(prefix.parse().unwrap(), asn, template)
    }
}

pub(super) fn dynamic(groups: Vec<DynamicPeers>) -> SpeakerConfig {
    SpeakerConfig {
        dynamic: groups,
        ..config(vec![peer("a", A, 65002)])
    }
}

#[test]
fn whoever_connects_from_inside_a_prefix_is_a_peer() {
    let listed = DynamicAsn::Listed(vec![65010, 65011]);
    let mut bench = Bench::new(dynamic(vec![
        group("tor", "10.50.0.0/16", 2, listed),
        group("edge", "10.50.1.0/24", 5, DynamicAsn::External),
    ]));
    let one = bench.establish([10, 50, 0, 1], 65010);
    assert_eq!(bench.core.peer_name(one).unwrap().as_str(), "tor-10.50.0.1");
    bench.establish([10, 50, 1, 1], 4_200_000_000);
    assert_eq!(names(&bench), ["a", "tor-10.50.0.1", "edge-10.50.1.1"]);
    let asns: Vec<_> = bench
        .core
        .peers(bench.now)
        .iter()
        .map(|peer| peer.asn)
        .collect();
    assert_eq!(asns, [65002, 65010, 4_200_000_000]);
    assert!(bench.accept([10, 51, 0, 1]).is_none(), "outside");

    // Of no AS that is welcome.
    let wrong = bench.accept([10, 50, 0, 2]).unwrap();
    bench.feed(wrong, open(65012, [10, 50, 0, 2]));
    assert_eq!(bench.refusal(wrong), (2, 2));
    let internal = bench.accept([10, 50, 1, 2]).unwrap();
    bench.feed(internal, open(65001, [10, 50, 1, 2]));
    assert_eq!(bench.refusal(internal), (2, 2));
}

#[test]
fn a_group_has_a_limit_and_room_when_peers_stay_away() {
    let mut bench = Bench::new(dynamic(vec![group(
        "tor",
        "10.50.0.0/16",
        2,
        DynamicAsn::External,
    )]));
    let one = bench.establish([10, 50, 0, 1], 65010);
    bench.feed(one, update(&[65010], "10.50.0.1", &["10.1.0.0/16"]));
    bench.establish([10, 50, 0, 2], 65011);
    assert!(bench.accept([10, 50, 0, 3]).is_none());
    let groups = bench.core.dynamic_groups();
    let group = &groups[0];
    assert_eq!((group.name.as_str(), group.full), ("tor", 1));
    assert_eq!((group.peers, group.limit), (2, 2));

    // The routes go with the session, the peer some time later: it may come back.
    bench.core.closed(one, "gone".into(), bench.now);
    bench.drain();
    assert!(used(&bench.core).is_empty());
    assert_eq!(names(&bench).len(), 3);
    bench.pass(Duration::from_secs(10));
    let one = bench.establish([10, 50, 0, 1], 65010);
    bench.pass(REMEMBERED - Duration::from_secs(20));
    assert_eq!(names(&bench).len(), 3, "it came back");

    // Somebody else may come for one that is away.
    bench.core.closed(one, "gone".into(), bench.now);
    bench.drain();
    bench.establish([10, 50, 0, 3], 65012);
    assert_eq!(names(&bench), ["a", "tor-10.50.0.3", "tor-10.50.0.2"]);

    let all: Vec<_> = [[10, 50, 0, 2], [10, 50, 0, 3]].into();
    bench.core.take_events();
    for address in all {
        let name = format!("tor-{}", Ipv4Addr::from(address));
        bench
            .core
            .set_peer_admin(&name, false, None, bench.now)
            .unwrap();
    }
    bench.drain();
    bench.pass(REMEMBERED + Duration::from_secs(1));
    assert_eq!(names(&bench), ["a"]);
    assert_eq!(gone(&mut bench), ["tor-10.50.0.3", "tor-10.50.0.2"]);
}

#[test]
fn a_new_configuration_keeps_dynamic_peers_that_are_still_welcome() {
    let old = || dynamic(vec![group("tor", "10.50.0.0/16", 9, DynamicAsn::External)]);
    type Edit = fn(&mut SpeakerConfig);
    let rows: &[(&str, Edit, bool)] = &[
        ("nothing", |_| {}, true),
        ("a higher limit", |c| c.dynamic[0].limit = 100, true),
        ("its prefix is gone", |c| c.dynamic.clear(), false),
        (
            "it is outside",
            |c| c.dynamic[0].prefix = "10.60.0.0/16".parse().unwrap(),
            false,
        ),
        (
            "its AS is not welcome",
            |c| c.dynamic[0].asn = DynamicAsn::Listed(vec![65011]),
            false,
        ),
        (
            "it is configured by itself",
            |c| c.peers.push(peer("x", [10, 50, 0, 1], 65010)),
            false,
        ),
    ];
    for (what, edit, stays) in rows {
        let mut bench = Bench::new(old());
        let one = bench.establish([10, 50, 0, 1], 65010);
        let mut new = old();
        edit(&mut new);
        reconfigure(&mut bench, new);
        assert_eq!(!bench.closed.contains(&one), *stays, "{what}");
    }
}

#[test]
fn a_link_local_group_of_one_is_an_unnumbered_peer() {
    let mut unnumbered = group("up", "fe80::/10", 1, DynamicAsn::External);
    unnumbered.template.interface = Some("eth0".parse().unwrap());
    let mut bench = Bench::new(dynamic(vec![unnumbered]));
    let from: SocketAddr = "[fe80::2%7]:40000".parse().unwrap();
    let to: SocketAddr = "[fe80::1%7]:179".parse().unwrap();
    let (here, elsewhere) = ("eth0".parse().unwrap(), "eth1".parse().unwrap());
    let now = bench.now;
    assert!(bench.core.accepted_on(from, to, None, now).is_none());
    assert!(
        bench
            .core
            .accepted_on(from, to, Some(&elsewhere), now)
            .is_none()
    );
    let id = bench.core.accepted_on(from, to, Some(&here), now).unwrap();
    assert_eq!(bench.core.peer_name(id).unwrap().as_str(), "up-fe80::2");
}

#[derive(Debug, Clone)]
enum Step {
    Add(u8),
    Remove(u8),
    Connect(u8),
    Lose(usize),
    Reconfigure(Vec<u8>),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..6).prop_map(Step::Add),
        (0u8..6).prop_map(Step::Remove),
        (0u8..12).prop_map(Step::Connect),
        (0usize..8).prop_map(Step::Lose),
        proptest::collection::vec(0u8..6, 0..6).prop_map(Step::Reconfigure),
        (0u64..90).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever comes and goes: no name of a connection is used twice, no two peers have one name
    /// or address, and what belongs to peers that are gone is gone.
    #[test]
    fn places_are_given_away_safely(steps in proptest::collection::vec(step(), 1..60)) {
        let host = |n: u8| [10, 50, 0, n + 1];
        let named = |n: u8| peer(&format!("p{n}"), host(n), 65000 + 100 + u32::from(n));
        let groups = || vec![group("tor", "10.50.0.0/24", 3, DynamicAsn::External)];
        let empty = |peers| SpeakerConfig { dynamic: groups(), ..config(peers) };
        let mut bench = Bench::new(empty(Vec::new()));
        let mut seen = std::collections::HashSet::new();
        let mut connections = Vec::new();
        for step in steps {
            match step {
                Step::Add(n) => {
                    let _ = bench.core.add_peer(named(n), bench.now);
                }
                Step::Remove(n) => {
                    let _ = bench.core.remove_peer(&format!("p{n}"), bench.now);
                }
                Step::Connect(n) => {
                    if let Some(id) = bench.accept(host(n)) {
                        prop_assert!(seen.insert(id), "{id:?} twice");
                        connections.push(id);
                        let asn = 65000 + 100 + u32::from(n);
                        bench.feed(id, open(asn, host(n)));
                        bench.feed(id, Message::Keepalive);
                        let next_hop = Ipv4Addr::from(host(n)).to_string();
                        let prefix = format!("10.{n}.0.0/16");
                        bench.feed(id, update(&[asn], &next_hop, &[&prefix]));
                    }
                }
                Step::Lose(which) => {
                    if let Some(id) = connections.get(which) {
                        bench.core.closed(*id, "lost".into(), bench.now);
                    }
                }
                Step::Reconfigure(mut peers) => {
                    peers.sort_unstable();
                    peers.dedup();
                    let peers = peers.into_iter().map(named).collect();
                    bench.core.reconfigure(empty(peers), bench.now).unwrap();
                }
                Step::Wait(seconds) => bench.pass(Duration::from_secs(seconds)),
            }
            bench.drain();
            let peers = bench.core.peers(bench.now);
            let distinct: std::collections::HashSet<_> = peers.iter().map(|p| &p.name).collect();
            prop_assert_eq!(distinct.len(), peers.len());
            let addresses: std::collections::HashSet<_> = peers.iter().map(|p| p.address).collect();
            prop_assert_eq!(addresses.len(), peers.len());
            for route in bench.core.routes() {
                for path in &route.paths {
                    let state = bench.core.state(path.peer.as_str());
                    prop_assert_eq!(state, Some(State::Established), "{}", path.peer);
                }
            }
        }
    }
}
