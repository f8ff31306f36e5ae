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
