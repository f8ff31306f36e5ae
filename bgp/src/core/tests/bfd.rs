//! What follows from what BFD says.

use std::time::Duration;

use super::*;
use crate::bfd::{Diagnostic, Lost};
use crate::config::BfdConfig;

fn watched() -> Bench {
    let watched = PeerConfig {
        bfd: Some(BfdConfig::default()),
        ..peer("a", A, 65002)
    };
    Bench::new(config(vec![watched]))
}

const SILENCE: Lost = Lost::Silence(Duration::from_millis(150));

#[test]
fn a_failed_path_ends_the_session_and_other_losses_do_not() {
    for (lost, says) in [
        (
            SILENCE,
            Some("BFD: nothing was heard from the peer for 150ms; check"),
        ),
        (
            Lost::Signaled(Diagnostic::DETECTION_TIME_EXPIRED),
            Some("BFD: the peer says it is down: control detection time expired (1); check"),
        ),
        (Lost::RemoteAdmin, None),
        (Lost::LocalAdmin, None),
    ] {
        let mut bench = watched();
        let id = bench.establish(A, 65002);
        bench.sent(id);
        bench.core.path_lost("a", lost, bench.now).unwrap();
        bench.drain();
        let status = bench.core.peers(bench.now).remove(0);
        let Some(says) = says else {
            assert_eq!(status.state, State::Established, "{lost:?}");
            assert_eq!(bench.sent(id), []);
            continue;
        };
        let cease = Message::Notification(Notification::cease(Cease::BfdDown));
        assert_eq!(bench.sent(id), [cease], "{lost:?}");
        assert_eq!(status.state, State::Idle, "it pauses, as after any failure");
        let error = status.last_error.unwrap();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn without_a_session_there_is_nothing_to_end() {
    let mut bench = watched();
    let before = bench.core.peers(bench.now);
    bench.core.path_lost("a", SILENCE, bench.now).unwrap();
    assert_eq!(bench.core.peers(bench.now), before);
    let unknown = bench.core.path_lost("b", SILENCE, bench.now);
    assert_eq!(unknown, Err(UnknownPeer("b".to_owned())));
}

#[test]
fn the_path_of_a_peer_that_is_down_is_not_watched() {
    let mut bench = watched();
    assert_eq!(bench.core.watched_paths().count(), 1);
    bench
        .core
        .set_peer_admin("a", false, None, bench.now)
        .unwrap();
    assert_eq!(bench.core.watched_paths().count(), 0);
    bench
        .core
        .set_peer_admin("a", true, None, bench.now)
        .unwrap();
    assert_eq!(bench.core.watched_paths().count(), 1);
}

fn strict(hold_time: u16) -> Bench {
    let watched = PeerConfig {
        bfd: Some(BfdConfig {
            strict: true,
            ..BfdConfig::default()
        }),
        hold_time,
        ..peer("a", A, 65002)
    };
    Bench::new(config(vec![watched]))
}

impl Bench {
    /// The peer connects, sends its OPEN and takes ours for good.
    fn half_established(&mut self) -> ConnectionId {
        let id = self.accept(A).expect("refused");
        self.feed(id, open(65002, A));
        self.feed(id, Message::Keepalive);
        id
    }

    fn path_up(&mut self) {
        self.core.path_up("a", self.now).unwrap();
        self.drain();
    }

    fn only_state(&self) -> State {
        self.core.peers(self.now)[0].state
    }
}

fn keepalives(messages: &[Message]) -> usize {
    let is_one = |message: &&Message| matches!(message, Message::Keepalive);
    messages.iter().filter(is_one).count()
}

#[test]
fn a_strict_session_waits_for_its_path() {
    let mut bench = strict(9);
    let id = bench.half_established();
    assert_eq!(keepalives(&bench.sent(id)), 0, "nothing confirms the OPEN");
    let status = bench.core.peers(bench.now).remove(0);
    assert_eq!(status.state, State::OpenConfirm);
    let waits = |note: &String| note.contains("waits for BFD");
    assert!(status.notes.iter().any(waits), "{:?}", status.notes);

    bench.pass(Duration::from_secs(5));
    bench.feed(id, Message::Keepalive);
    bench.path_up();
    assert_eq!(bench.only_state(), State::Established);
    assert!(keepalives(&bench.sent(id)) > 0);
    let status = bench.core.peers(bench.now).remove(0);
    assert!(!status.notes.iter().any(waits), "{:?}", status.notes);
}

#[test]
fn a_path_that_is_up_is_not_waited_for_and_one_that_was_lost_is() {
    let mut bench = strict(9);
    bench.path_up();
    let id = bench.half_established();
    assert_eq!(bench.only_state(), State::Established);
    bench.core.path_lost("a", SILENCE, bench.now).unwrap();
    bench.drain();
    bench.sent(id);
    bench.pass(Duration::from_secs(2));
    let id = bench.half_established();
    assert_eq!(bench.only_state(), State::OpenConfirm);
    bench.path_up();
    assert_eq!(bench.only_state(), State::Established);
    // An operator who takes BFD down ends no session, and the next one waits.
    bench
        .core
        .path_lost("a", Lost::RemoteAdmin, bench.now)
        .unwrap();
    assert_eq!(bench.only_state(), State::Established);
    bench.core.closed(id, "reset".into(), bench.now);
    bench.drain();
    bench.pass(Duration::from_secs(3));
    bench.half_established();
    assert_eq!(bench.only_state(), State::OpenConfirm);
}

#[test]
fn a_path_that_stays_down_is_waited_for_no_longer_than_the_hold_time() {
    for (hold_time, bound) in [(9, 9), (0, 30)] {
        let mut bench = strict(hold_time);
        let id = bench.half_established();
        bench.sent(id);
        for _ in 0..bound - 1 {
            bench.pass(Duration::from_secs(1));
            // What the peer says buys no time.
            bench.feed(id, Message::Keepalive);
        }
        assert_eq!(bench.only_state(), State::OpenConfirm, "{hold_time}");
        bench.pass(Duration::from_secs(1));
        let cease = Message::Notification(Notification::cease(Cease::BfdDown));
        assert_eq!(bench.sent(id), [cease], "{hold_time}");
        let status = bench.core.peers(bench.now).remove(0);
        assert_eq!(status.state, State::Idle);
        let error = status.last_error.unwrap();
        assert!(error.contains("bfd.strict"), "{error}");
    }
}
