//! What a watched core reports, and that an unwatched one keeps nothing.

use super::*;
use crate::tap::{Down, Taken, Tap};

fn watched() -> Bench {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    bench.core.watch(true);
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
            |bench, _| bench.core.set_peer_admin("a", false, bench.now).unwrap(),
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
    bench.core.watch(false);
    assert_eq!(bench.core.take_taps(), []);
    assert_eq!(bench.core.sessions().count(), 1);
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    bench.establish(A, 65002);
    assert_eq!(bench.core.take_taps(), []);
    assert_eq!(bench.core.sessions().count(), 1);
}
