//! What a watched core reports, and that an unwatched one keeps nothing.

use super::restart::{ROUTES, offer, two_routes};
use super::*;
use crate::tap::{Down, Taken, Tap, Watch};

fn watched() -> Bench {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    bench.core.watch(Watch {
        sessions: true,
        accepted: false,
    });
    bench
}

/// The reports in short.
fn told(bench: &mut Bench) -> Vec<String> {
    let short = |tap| match tap {
        Tap::State { old, new, .. } => format!("{old} > {new}"),
        Tap::Up(up) => format!("up {}", up.ends.name),
        Tap::Down { why, .. } => format!("down {why:?}"),
        Tap::Received { octets, update, .. } => match update {
            Some((up, taken)) => format!("type {} of {} {taken:?}", octets[18], up.ends.name),
            None => format!("type {}", octets[18]),
        },
        Tap::Accepted {
            routes, end_of_rib, ..
        } => {
            let routes: Vec<_> = routes
                .iter()
                .map(|(nlri, route)| format!("{}{nlri}", if route.is_some() { '+' } else { '-' }))
                .collect();
            format!("accepted {} {end_of_rib:?}", routes.join(" "))
        }
    };
    bench.core.take_taps().into_iter().map(short).collect()
}

#[test]
fn the_life_of_a_session_is_told_in_order() {
    let mut bench = watched();
    let id = bench.establish(A, 65002);
    assert_eq!(
        told(&mut bench),
        [
            "active > open-sent",
            "type 1",
            "open-sent > open-confirm",
            "up a",
            "open-confirm > established",
        ]
    );
    bench.feed(id, update(&[65002], "10.99.0.2", &["10.1.0.0/24"]));
    bench.feed(id, Message::Keepalive);
    bench.feed(id, Notification::cease(Cease::AdministrativeReset));
    assert_eq!(
        told(&mut bench),
        [
            "type 2 of a AsIs".to_owned(),
            "type 3".to_owned(),
            format!(
                "down {:?}",
                Down::NotifiedByPeer(Notification::cease(Cease::AdministrativeReset))
            ),
            "established > idle".to_owned(),
        ]
    );
    assert_eq!(bench.core.sessions().count(), 0);
}

#[test]
fn a_session_is_told_with_its_ends_and_its_opens_as_they_were_on_the_wire() {
    let mut bench = watched();
    bench.establish(A, 65002);
    let up = bench.core.sessions().next().unwrap().clone();
    assert_eq!(
        (up.ends.peer, up.ends.local),
        (Ipv4Addr::from(A).into(), Ipv4Addr::from(US).into())
    );
    assert_eq!((up.ends.peer_as, up.ends.local_as), (65002, 65001));
    assert_eq!((up.local_port, up.remote_port), (179, 40000));
    assert_eq!(up.router_id, Ipv4Addr::from(A));
    assert!(up.options.four_octet_as && !up.options.internal);
    let theirs = open(65002, A).to_bytes(&WireOptions::default()).unwrap();
    assert_eq!(up.received_open, theirs);
    let ours = Message::decode(&up.sent_open, &WireOptions::default()).unwrap();
    assert!(
        matches!(&ours.message, Message::Open(open) if open.asn() == 65001),
        "{ours:?}"
    );
}

#[test]
fn why_a_session_is_over() {
    type End = fn(&mut Bench, ConnectionId);
    let shutdown = Notification::cease(Cease::AdministrativeShutdown);
    let rows: [(&str, End, Down); 5] = [
        (
            "the peer goes away",
            |bench, id| bench.core.closed(id, "reset".to_owned(), bench.now),
            Down::Lost,
        ),
        (
            "the operator takes it down",
            |bench, _| {
                bench
                    .core
                    .set_peer_admin("a", false, None, bench.now)
                    .unwrap()
            },
            Down::Notified(shutdown.clone()),
        ),
        (
            "we stop and say so",
            |bench, _| bench.core.stop(&Stop::Cease(None), bench.now),
            Down::Notified(shutdown),
        ),
        (
            "we stop in silence",
            |bench, _| bench.core.stop(&Stop::KeepForwarding, bench.now),
            Down::Silent,
        ),
        (
            "the peer is silent",
            |bench, _| bench.pass(Duration::from_secs(20)),
            Down::Notified(Notification::hold_timer_expired()),
        ),
    ];
    for (what, end, expected) in rows {
        let mut bench = watched();
        let id = bench.establish(A, 65002);
        end(&mut bench, id);
        let downs = bench
            .core
            .take_taps()
            .into_iter()
            .filter_map(|tap| match tap {
                Tap::Down { up, why } => Some((up.ends.local, why)),
                _ => None,
            });
        let us = Ipv4Addr::from(US).into();
        assert_eq!(downs.collect::<Vec<_>>(), [(us, expected)], "{what}");
    }
}

#[test]
fn how_an_update_was_taken() {
    // ORIGIN 9; then a withdrawn prefix of 33 bits.
    let withdrawal = [
        &[0xff; 16][..],
        &[
            0, 45, 2, 0, 0, 0, 20, 0x40, 1, 1, 9, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea,
        ],
        &[0x40, 3, 4, 10, 99, 0, 2],
        &[8, 10],
    ]
    .concat();
    let refused = [&[0xff; 16][..], &[0, 28, 2, 0, 5, 33, 1, 1, 1, 1, 0, 0]].concat();
    for (octets, taken) in [(withdrawal, Taken::AsWithdrawal), (refused, Taken::Refused)] {
        let mut bench = watched();
        let id = bench.establish(A, 65002);
        told(&mut bench);
        bench.feed_octets(id, &octets);
        assert_eq!(told(&mut bench)[0], format!("type 2 of a {taken:?}"));
    }
}

#[test]
fn unwatched_nothing_is_kept_and_sessions_are_known_all_the_same() {
    let mut bench = watched();
    bench.establish(A, 65002);
    bench.core.watch(Watch::default());
    assert_eq!(bench.core.take_taps(), []);
    assert_eq!(bench.core.sessions().count(), 1);
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    bench.establish(A, 65002);
    assert_eq!(bench.core.take_taps(), []);
    assert_eq!(bench.core.sessions().count(), 1);
}

#[test]
fn what_an_update_did_to_the_accepted_routes() {
    let list = "[{\"permit\": \"10.0.0.0/8\", \"le\": 32}]";
    let mut config = config(vec![peer("a", A, 65002)]);
    config.peers[0].import = serde_json::from_str(list).unwrap();
    let mut bench = Bench::new(config);
    bench.core.watch(Watch {
        sessions: true,
        accepted: true,
    });
    let id = bench.establish(A, 65002);
    let accepted = |bench: &mut Bench| -> Vec<String> {
        let told = told(bench).into_iter();
        told.filter(|line| line.starts_with("accepted")).collect()
    };
    let routes = ["10.1.0.0/24", "10.2.0.0/24", "192.0.2.0/24"];
    let rows = [
        // The policy lets two in.
        (
            update(&[65002], "10.99.0.2", &routes),
            "+10.1.0.0/24 +10.2.0.0/24 None",
        ),
        // Nothing new.
        (update(&[65002], "10.99.0.2", &routes), ""),
        // Another path, for one of them.
        (
            update(&[65002, 65003], "10.99.0.2", &routes[..1]),
            "+10.1.0.0/24 None",
        ),
        // Our own AS in the path: what was there goes.
        (
            update(&[65002, 65001], "10.99.0.2", &routes[..1]),
            "-10.1.0.0/24 None",
        ),
        (
            Update {
                withdrawn: routes.map(|text| prefix(text).into()).to_vec(),
                ..Update::default()
            },
            "-10.2.0.0/24 None",
        ),
        (
            Update::end_of_rib(Family::Ipv6Unicast),
            " Some(Ipv6Unicast)",
        ),
    ];
    for (update, expected) in rows {
        bench.feed(id, update.clone());
        let expected: Vec<String> = match expected {
            "" => Vec::new(),
            some => vec![format!("accepted {some}")],
        };
        assert_eq!(accepted(&mut bench), expected, "{update:?}");
    }
}

#[test]
fn the_accepted_routes_are_walked_piece_by_piece() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002), peer("b", B, 65003)]));
    let (a, b) = (bench.establish(A, 65002), bench.establish(B, 65003));
    let texts: Vec<String> = (0..50).map(|n| format!("10.{n}.0.0/16")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    bench.feed(a, update(&[65002], "10.99.0.2", &texts));
    bench.feed(b, update(&[65003], "10.99.0.3", &texts[..10]));
    bench.feed(b, update(&[65003], "fd99::3", &["fd01::/48"]));
    bench.core.announce(vec![announcement("192.0.2.0/24")]);
    for most in [1, 7, 1000] {
        let mut place = Some(Place::default());
        let mut seen = Vec::new();
        while let Some(at) = place {
            let (accepted, next) = bench.core.accepted_from(at, most);
            assert!(accepted.len() <= most as usize);
            for route in accepted {
                let mut peers: Vec<u16> = route.paths.iter().map(|path| path.peer).collect();
                peers.sort_unstable();
                seen.push((route.prefix, peers));
            }
            place = next;
        }
        seen.sort();
        let mut expected: Vec<_> = texts
            .iter()
            .enumerate()
            .map(|(n, text)| (prefix(text), if n < 10 { vec![0, 1] } else { vec![0] }))
            .collect();
        expected.push((prefix("fd01::/48"), vec![1]));
        expected.sort();
        assert_eq!(seen, expected, "{most} at a time");
    }
}

/// What is reported of accepted routes, and of sessions.
fn accepted(bench: &mut Bench) -> Vec<String> {
    let told = told(bench).into_iter();
    let wanted = |line: &String| line.starts_with("accepted") || line.starts_with("up");
    told.filter(wanted).collect()
}

fn closely_watched() -> Bench {
    let mut bench = watched();
    bench.core.watch(Watch {
        sessions: true,
        accepted: true,
    });
    bench
}

#[test]
fn what_another_policy_does_to_the_accepted_routes() {
    let mut bench = closely_watched();
    let a = bench.establish(A, 65002);
    bench.feed(a, two_routes());
    accepted(&mut bench);
    // The first goes; the second says something else from now on; then nothing is new.
    let list = r#"[{"deny": "10.2.0.0/16"}, {"permit": "any", "set": {"med": 7}}]"#;
    let lists = [
        (list, vec!["accepted -10.2.0.0/16 +10.3.0.0/16 None"]),
        (list, vec![]),
        ("\"none\"", vec!["accepted -10.3.0.0/16 None"]),
    ];
    for (list, expected) in lists {
        let import = serde_json::from_str(list).unwrap();
        let change = ("a".to_owned(), import, ExportPolicy::All);
        bench.core.set_policies(vec![change], bench.now).unwrap();
        assert_eq!(accepted(&mut bench), expected, "{list}");
    }
}

#[test]
fn what_a_peer_does_not_tell_again_is_no_longer_accepted() {
    // After a refresh that has an end, and after one that has none.
    for ends in [true, false] {
        let mut bench = closely_watched();
        let a = bench.establish_with(A, 65002, vec![]);
        let refresh = |subtype| RouteRefresh::new(Family::Ipv4Unicast, subtype);
        bench.feed(a, two_routes());
        accepted(&mut bench);
        bench.feed(a, Message::RouteRefresh(refresh(RouteRefresh::BEGIN)));
        bench.feed(a, update(&[65002], "10.99.0.2", &ROUTES[1..]));
        assert_eq!(accepted(&mut bench), [""; 0]);
        if ends {
            bench.feed(a, Message::RouteRefresh(refresh(RouteRefresh::END)));
        } else {
            for _ in 0..180 {
                bench.pass(Duration::from_secs(2));
                bench.feed(a, Message::Keepalive);
            }
        }
        assert_eq!(
            accepted(&mut bench),
            ["accepted -10.2.0.0/16 None"],
            "{ends}"
        );
    }
}

#[test]
fn what_was_kept_of_a_peer_is_accepted_when_it_is_back() {
    let mut bench = closely_watched();
    let a = bench.establish_with(A, 65002, vec![offer(false, true)]);
    bench.feed(a, two_routes());
    bench.core.closed(a, "reset".into(), bench.now);
    bench.pass(Duration::from_secs(1));
    accepted(&mut bench);
    let a = bench.establish_with(A, 65002, vec![offer(false, true)]);
    assert_eq!(
        accepted(&mut bench),
        ["up a", "accepted +10.2.0.0/16 +10.3.0.0/16 None"]
    );
    bench.feed(a, update(&[65002], "10.99.0.2", &ROUTES[..1]));
    assert_eq!(accepted(&mut bench), [""; 0], "it is known already");
    bench.feed(a, Update::end_of_rib(Family::Ipv4Unicast));
    assert_eq!(
        accepted(&mut bench),
        ["accepted -10.3.0.0/16 Some(Ipv4Unicast)"]
    );
}
