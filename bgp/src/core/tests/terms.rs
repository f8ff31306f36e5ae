//! Terms of a session beyond families: limits, roles, several paths, graceful shutdown.

use super::*;
use crate::config::{AddPath, LimitAction, MaxPrefixes, PrefixLimit};
use crate::wire::{AddPath as Offer, AddPathMode, Role};

fn limited(action: LimitAction, restart: Option<Duration>) -> PeerConfig {
    PeerConfig {
        max_prefixes: MaxPrefixes {
            ipv4: Some(PrefixLimit {
                limit: 2,
                warning: 50,
                action,
                restart,
            }),
            ipv6: None,
        },
        ..peer("a", A, 65002)
    }
}

#[test]
fn routes_beyond_the_limit_are_refused_and_those_that_are_there_stay() {
    let mut bench = Bench::new(config(vec![limited(LimitAction::Refuse, None)]));
    let a = bench.establish(A, 65002);
    let nets = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16"];
    bench.feed(a, update(&[65002], "10.99.0.2", &nets));
    assert_eq!(used(&bench.core), ["10.1.0.0/16 a", "10.2.0.0/16 a"]);
    let status = &bench.core.peers(bench.now)[0];
    assert_eq!(status.state, State::Established);
    let counts = status.prefixes[&Family::Ipv4Unicast];
    assert_eq!((counts.received, counts.accepted), (4, 2));
    let notes = status.notes.join("\n");
    assert!(
        notes.contains("2 ipv4 routes of at most 2: raise max_prefixes.ipv4.limit"),
        "{notes}"
    );
    assert!(
        notes.contains("2 routes are refused: the peer may tell no more"),
        "{notes}"
    );
    // What is there may change.
    bench.feed(a, update(&[65002, 9], "10.99.0.2", &nets[..1]));
    let routes = bench.core.routes();
    assert_eq!(routes[0].paths[0].attributes.as_path.to_string(), "65002 9");
    // Other families have limits of their own.
    bench.feed(
        a,
        update(
            &[65002],
            "fd99::2",
            &["fd01::/48", "fd02::/48", "fd03::/48"],
        ),
    );
    assert_eq!(bench.core.routes().len(), 5);
    // Room again: the peer is asked for what found none.
    bench.sent(a);
    bench.feed(
        a,
        Update {
            withdrawn: vec![prefix("10.1.0.0/16").into()],
            ..Update::default()
        },
    );
    assert!(matches!(bench.sent(a)[..], [Message::RouteRefresh(_)]));
    bench.feed(a, update(&[65002], "10.99.0.2", &nets[1..]));
    assert_eq!(used(&bench.core)[..2], ["10.2.0.0/16 a", "10.3.0.0/16 a"]);
}

#[test]
fn a_limit_may_end_the_session_until_the_operator_or_a_timer_says_otherwise() {
    let nets = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"];
    for restart in [None, Some(Duration::from_secs(60))] {
        let mut bench = Bench::new(config(vec![limited(LimitAction::Teardown, restart)]));
        let a = bench.establish(A, 65002);
        bench.feed(a, update(&[65002], "10.99.0.2", &nets));
        assert_eq!(bench.refusal(a), (6, 1));
        assert!(used(&bench.core).is_empty());
        bench.pass(Duration::from_secs(59));
        assert_eq!(bench.core.state("a"), Some(State::Idle));
        assert_eq!(bench.accept(A), None);
        bench.pass(Duration::from_secs(2));
        assert_eq!(bench.accept(A).is_some(), restart.is_some());
        if restart.is_none() {
            bench
                .core
                .set_peer_admin("a", false, None, bench.now)
                .unwrap();
            bench
                .core
                .set_peer_admin("a", true, None, bench.now)
                .unwrap();
            assert!(bench.accept(A).is_some());
        }
    }
}

fn open_as(role: Option<u8>) -> Message {
    let mut capabilities: Vec<_> = Family::ALL.map(Capability::multiprotocol).into();
    capabilities.extend(role.map(Capability::Role));
    Message::Open(Open::new(65002, 90, A.into(), capabilities))
}

#[test]
fn roles_go_together_or_not_at_all() {
    // ours, strict, theirs, whether the session comes up
    let rows = [
        (Some(Role::Provider), false, Some(3), true),
        (Some(Role::Provider), false, Some(0), false),
        (Some(Role::Customer), false, Some(0), true),
        (Some(Role::Peer), false, Some(4), true),
        (Some(Role::Peer), false, Some(3), false),
        (Some(Role::RouteServer), false, Some(2), true),
        (Some(Role::RouteServerClient), false, Some(1), true),
        (Some(Role::Peer), false, Some(99), false),
        (Some(Role::Peer), false, None, true),
        (Some(Role::Peer), true, None, false),
        (None, false, Some(3), true),
    ];
    for (role, role_strict, theirs, up) in rows {
        let mut bench = Bench::new(config(vec![PeerConfig {
            role,
            role_strict,
            ..peer("a", A, 65002)
        }]));
        let a = bench.accept(A).unwrap();
        bench.feed(a, open_as(theirs));
        if up {
            bench.feed(a, Message::Keepalive);
            assert_eq!(
                bench.core.state("a"),
                Some(State::Established),
                "{role:?} {theirs:?}"
            );
        } else {
            assert_eq!(bench.refusal(a), (2, 11), "{role:?} {theirs:?}");
        }
    }
}

#[test]
fn what_went_down_or_sideways_does_not_come_back_up() {
    // our role to A, OTC it sends, OTC the route has then; None: refused
    let rows = [
        (Role::Customer, None, Some(Some(65002))),
        (Role::Customer, Some(7), Some(Some(7))),
        (Role::Peer, None, Some(Some(65002))),
        (Role::Peer, Some(65002), Some(Some(65002))),
        (Role::Peer, Some(7), None),
        (Role::Provider, None, Some(None)),
        (Role::Provider, Some(7), None),
        (Role::RouteServer, Some(7), None),
        (Role::RouteServerClient, None, Some(Some(65002))),
    ];
    for (role, otc, expected) in rows {
        let mut bench = Bench::new(config(vec![PeerConfig {
            role: Some(role),
            ..peer("a", A, 65002)
        }]));
        let a = bench.establish(A, 65002);
        let mut route = update(&[65002], "10.99.0.2", &["10.1.0.0/16"]);
        route.attributes.otc = otc;
        bench.feed(a, route);
        let seen = bench.core.routes();
        let seen = seen.first().map(|route| route.paths[0].attributes.rare.otc);
        assert_eq!(seen, expected, "{role:?} {otc:?}");
        let notes = bench.core.peers(bench.now)[0].notes.join("\n");
        assert_eq!(notes.contains("RFC 9234"), expected.is_none(), "{notes}");
    }
    // our role to B, OTC of the route, OTC that B gets; None: not told
    let rows = [
        (Role::Provider, None, Some(Some(65001))),
        (Role::Provider, Some(7), Some(Some(7))),
        (Role::Peer, None, Some(Some(65001))),
        (Role::Peer, Some(7), None),
        (Role::Customer, None, Some(None)),
        (Role::Customer, Some(7), None),
        (Role::RouteServerClient, Some(7), None),
        (Role::RouteServer, None, Some(Some(65001))),
    ];
    for (role, otc, expected) in rows {
        let b = PeerConfig {
            role: Some(role),
            ..peer("b", B, 65003)
        };
        let mut bench = Bench::new(config(vec![peer("a", A, 65002), b]));
        let (a, b) = (bench.establish(A, 65002), bench.establish(B, 65003));
        let mut route = update(&[65002], "10.99.0.2", &["10.1.0.0/16"]);
        route.attributes.otc = otc;
        bench.feed(a, route);
        let told = bench.updates(b);
        let told = told.iter().find(|update| !update.nlri.is_empty());
        assert_eq!(
            told.map(|told| told.attributes.otc),
            expected,
            "{role:?} {otc:?}"
        );
    }
}

#[test]
fn graceful_shutdown_is_said_in_every_route_and_taken_back() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002), peer("b", B, 65003)]));
    let (a, b) = (bench.establish(A, 65002), bench.establish(B, 65003));
    bench.feed(a, update(&[65002], "10.99.0.2", &["10.2.0.0/16"]));
    bench.core.announce(vec![announcement("10.1.0.0/16")]);
    bench.drain();
    bench.sent(b);
    for (going, communities) in [(true, vec![Community::GRACEFUL_SHUTDOWN]), (false, vec![])] {
        bench.core.set_graceful_shutdown(going);
        bench.drain();
        let told = bench.updates(b);
        let mut routes: Vec<_> = told.iter().flat_map(|update| update.nlri.clone()).collect();
        routes.sort_unstable();
        assert_eq!(
            routes,
            ["10.1.0.0/16", "10.2.0.0/16"].map(|net| prefix(net).into())
        );
        for update in &told {
            assert_eq!(update.withdrawn, []);
            assert_eq!(update.attributes.communities, communities);
        }
        bench.core.set_graceful_shutdown(going);
        bench.drain();
        assert_eq!(bench.updates(b), [], "said once");
    }
    // One that is about to go is the last one to use.
    let mut going = update(&[65003], "10.99.0.3", &["10.2.0.0/16"]);
    going.attributes.communities = vec![Community::GRACEFUL_SHUTDOWN];
    bench.feed(b, going);
    assert_eq!(used(&bench.core), ["10.2.0.0/16 a"]);
    bench.feed(b, update(&[65003], "10.99.0.3", &["10.9.0.0/16"]));
    let routes = bench.core.routes();
    assert_eq!(routes[1].paths[0].attributes.local_pref, None);
}

#[test]
fn several_paths_are_told_and_taken_under_identifiers() {
    let b = PeerConfig {
        capabilities: crate::config::Capabilities {
            add_path: AddPath::Both,
            ..Default::default()
        },
        ..peer("b", B, 65003)
    };
    let c = [10, 99, 0, 4];
    let mut bench = Bench::new(config(vec![peer("a", A, 65002), b, peer("c", c, 65004)]));
    let a = bench.establish(A, 65002);
    let c_id = bench.establish(c, 65004);
    let b = bench.accept(B).unwrap();
    let mut capabilities: Vec<_> = Family::ALL.map(Capability::multiprotocol).into();
    capabilities.push(Capability::AddPath(vec![Offer {
        family: Family::Ipv4Unicast.into(),
        mode: AddPathMode::Both,
    }]));
    bench.feed(
        b,
        Message::Open(Open::new(65003, 90, B.into(), capabilities)),
    );
    bench.feed(b, Message::Keepalive);
    bench.sent(b);
    bench.sent(a);

    let plain = bench.options;
    let with_paths = WireOptions {
        add_path_receive: crate::wire::FamilySet::of(Family::Ipv4Unicast),
        add_path_send: crate::wire::FamilySet::of(Family::Ipv4Unicast),
        ..plain
    };
    let net = "10.1.0.0/16";
    bench.feed(a, update(&[65002], "10.99.0.2", &[net]));
    bench.feed(c_id, update(&[65004, 9], "10.99.0.4", &[net]));
    bench.options = with_paths;
    let mut told: Vec<_> = bench
        .updates(b)
        .iter()
        .flat_map(|update| {
            let path = update.attributes.as_path.clone();
            let nlri = update.nlri.clone().into_iter();
            nlri.map(move |nlri| (nlri.path_id, path.as_ref().unwrap().to_string()))
        })
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            (1, "65001 65002".to_owned()),
            (2, "65001 65004 9".to_owned())
        ]
    );

    // One of two paths goes: only that one.
    bench.options = plain;
    bench.feed(
        a,
        Update {
            withdrawn: vec![prefix(net).into()],
            ..Update::default()
        },
    );
    bench.options = with_paths;
    let gone = Nlri {
        prefix: prefix(net),
        path_id: 1,
    };
    let updates = bench.updates(b);
    assert_eq!(updates.len(), 1, "{updates:?}");
    assert_eq!(updates[0].withdrawn, [gone]);

    // Two paths of B: both are kept, the better one is told to A.
    let mut first = update(&[65003, 1], "10.99.0.3", &["10.5.0.0/16"]);
    first.nlri[0].path_id = 7;
    let mut second = update(&[65003], "10.99.0.3", &["10.5.0.0/16"]);
    second.nlri[0].path_id = 8;
    bench.feed(b, first);
    bench.feed(b, second.clone());
    let counts = bench.core.peers(bench.now)[1].prefixes[&Family::Ipv4Unicast];
    assert_eq!(counts.accepted, 2);
    let gone = Update {
        withdrawn: second.nlri,
        ..Update::default()
    };
    bench.feed(b, gone);
    bench.options = plain;
    let paths: Vec<_> = bench
        .updates(a)
        .iter()
        .filter(|update| {
            update
                .nlri
                .iter()
                .any(|nlri| nlri.prefix == prefix("10.5.0.0/16"))
        })
        .map(|update| update.attributes.as_path.clone().unwrap().to_string())
        .collect();
    assert_eq!(paths, ["65001 65003 1", "65001 65003", "65001 65003 1"]);
}

#[test]
fn both_sides_of_every_capability_are_shown() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let a = bench.accept(A).unwrap();
    bench.feed(a, open(65002, A));
    let status = &bench.core.peers(bench.now)[0];
    let shown: Vec<_> = status
        .capabilities
        .iter()
        .map(|c| (c.name, c.ours.as_deref(), c.theirs.as_deref(), c.in_use))
        .collect();
    let yes = Some("yes");
    assert_eq!(
        shown,
        [
            (
                "multiprotocol",
                Some("ipv4, ipv6"),
                Some("ipv4, ipv6"),
                true
            ),
            ("route-refresh", yes, yes, true),
            ("extended-next-hop", Some("ipv4 via afi 2"), None, false),
            ("extended-messages", yes, None, false),
            ("graceful-restart", Some("0 s, notification"), None, false),
            ("four-octet-as", Some("65001"), Some("65002"), true),
            ("enhanced-refresh", yes, None, false),
        ]
    );
}
