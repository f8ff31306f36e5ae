//! Two connections with one peer (RFC 4271 section 6.8).

use super::*;
use crate::fsm::CONTEST_TIME;

/// What happens on the core's own connection and on the peer's, and which of them is kept.
type Then = fn(&mut Bench, ConnectionId, ConnectionId) -> ConnectionId;

/// A core that connects to a peer, and the connection it asked for.
fn connecting() -> (Bench, ConnectionId) {
    let active = PeerConfig {
        passive: false,
        ..peer("a", A, 65002)
    };
    let mut bench = Bench::new(config(vec![active]));
    let (ours, _) = bench.connecting.remove(0);
    (bench, ours)
}

/// Both sides connect at once; identifiers decide (RFC 4271 section 6.8).
#[test]
fn a_collision_leaves_one_connection() {
    const LOW: [u8; 4] = [10, 99, 0, 0];
    // Their identifier, and whether the connection we opened survives.
    for (their_id, ours_survives) in [(LOW, true), (A, false)] {
        for ours_first in [true, false] {
            let (mut bench, ours) = connecting();
            let theirs = bench.accept(A).unwrap();
            bench.core.connected(ours, end(US, 40000), bench.now);
            bench.drain();
            let (first, second) = if ours_first {
                (ours, theirs)
            } else {
                (theirs, ours)
            };
            bench.feed(first, open(65002, their_id));
            bench.feed(second, open(65002, their_id));
            let (kept, lost) = if ours_survives {
                (ours, theirs)
            } else {
                (theirs, ours)
            };
            assert_eq!(bench.refusal(lost), (6, 7), "{their_id:?} {ours_first}");
            assert!(!bench.closed.contains(&kept));
            bench.feed(kept, Message::Keepalive);
            assert_eq!(bench.core.state("a"), Some(State::Established));
            assert_eq!(bench.error(), "");
            // A third connection is one too many.
            let third = bench.accept(A).unwrap();
            assert_eq!(bench.refusal(third), (6, 7));
            assert_eq!(bench.core.state("a"), Some(State::Established));
        }
    }
}

#[test]
fn a_connection_attempt_is_given_up_when_the_peer_was_faster() {
    let (mut bench, ours) = connecting();
    let theirs = bench.accept(A).unwrap();
    bench.feed(theirs, open(65002, A));
    assert_eq!(bench.closed, [ours]);
    bench.feed(theirs, Message::Keepalive);
    // News of the attempt comes late.
    bench.core.connected(ours, end(US, 40000), bench.now);
    bench.core.closed(ours, "reset".into(), bench.now);
    bench.drain();
    assert_eq!(bench.core.state("a"), Some(State::Established));
}

#[test]
fn a_peer_that_connects_anew_is_believed() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let first = bench.accept(A).unwrap();
    bench.feed(first, open(65002, A));
    let second = bench.accept(A).unwrap();
    let third = bench.accept(A).unwrap();
    assert_eq!(bench.refusal(second), (6, 7));
    bench.feed(third, open(65002, A));
    assert_eq!(bench.refusal(first), (6, 7));
    bench.feed(third, Message::Keepalive);
    assert_eq!(bench.core.state("a"), Some(State::Established));
}

/// A core with a connection of its own to a peer whose connection would win, up to the peer's OPEN on it.
fn losing() -> (Bench, ConnectionId) {
    let (mut bench, ours) = connecting();
    bench.core.connected(ours, end(US, 40000), bench.now);
    bench.drain();
    assert!(matches!(bench.sent(ours)[..], [Message::Open(_)]));
    (bench, ours)
}

/// One session came up, on this connection, and none was lost on the way.
fn settled_on(bench: &mut Bench, id: ConnectionId, what: &str) {
    bench.pass(Duration::from_millis(1));
    let status = &bench.core.peers(bench.now)[0];
    assert_eq!(
        (status.state, status.sessions, status.last_error.as_deref()),
        (State::Established, 1, None),
        "{what}"
    );
    assert!(!bench.closed.contains(&id), "{what}: closed");
    bench.feed(id, update(&[65002], "10.99.0.2", &["10.2.0.0/16"]));
    assert_eq!(used(&bench.core), ["10.2.0.0/16 a"], "{what}");
    let downs = bench.core.take_events().into_iter();
    let downs = downs.filter(|event| matches!(event, Event::PeerState { error: Some(_), .. }));
    assert_eq!(downs.count(), 0, "{what}");
}

/// The peer that has our KEEPALIVE on the connection that loses would be Established, and would give up the winner.
#[test]
fn a_loser_is_not_confirmed_while_the_winner_may_be_heard() {
    let table: [(&str, Then); 4] = [
        ("the winner is heard", |bench, ours, theirs| {
            bench.feed(theirs, open(65002, A));
            assert_eq!(bench.refusal(ours), (6, 7));
            bench.feed(theirs, Message::Keepalive);
            theirs
        }),
        (
            "the winner is heard after the KEEPALIVE of the loser",
            |bench, ours, theirs| {
                bench.feed(ours, Message::Keepalive);
                assert_eq!(bench.core.state("a"), Some(State::OpenConfirm));
                bench.feed(theirs, open(65002, A));
                assert_eq!(bench.refusal(ours), (6, 7));
                bench.feed(theirs, Message::Keepalive);
                theirs
            },
        ),
        ("the winner is closed", |bench, ours, theirs| {
            bench.core.closed(theirs, "closed".into(), bench.now);
            bench.drain();
            assert!(matches!(bench.sent(ours)[..], [Message::Keepalive]));
            bench.feed(ours, Message::Keepalive);
            ours
        }),
        ("the winner says nothing", |bench, ours, theirs| {
            bench.feed(ours, Message::Keepalive);
            bench.pass(CONTEST_TIME);
            assert!(matches!(bench.sent(ours)[0], Message::Keepalive));
            assert_eq!(bench.refusal(theirs), (6, 7));
            ours
        }),
    ];
    for (what, then) in table {
        let (mut bench, ours) = losing();
        let theirs = bench.accept(A).unwrap();
        bench.feed(ours, open(65002, A));
        assert!(bench.sent(ours).is_empty(), "{what}: confirmed");
        let kept = then(&mut bench, ours, theirs);
        settled_on(&mut bench, kept, what);
    }
}

/// The loser was confirmed before the winner was there: the peer may be Established on the one, or have chosen the
/// other, and tells by what it closes or says.
#[test]
fn a_loser_that_was_confirmed_is_left_to_the_peer() {
    let table: [(&str, Then); 7] = [
        ("it closes the winner", |bench, ours, theirs| {
            bench.core.closed(theirs, "closed".into(), bench.now);
            bench.feed(ours, Message::Keepalive);
            ours
        }),
        (
            "it confirms the loser, then closes the winner",
            |bench, ours, theirs| {
                bench.feed(ours, Message::Keepalive);
                assert_eq!(bench.core.state("a"), Some(State::OpenConfirm));
                bench.core.closed(theirs, "closed".into(), bench.now);
                ours
            },
        ),
        (
            "it says on the loser what only one does that is Established",
            |bench, ours, theirs| {
                bench.feed(ours, Message::Keepalive);
                bench.feed(ours, update(&[65002], "10.99.0.2", &["10.3.0.0/16"]));
                bench.feed(
                    ours,
                    Update {
                        withdrawn: vec![prefix("10.3.0.0/16").into()],
                        ..Update::default()
                    },
                );
                assert_eq!(bench.refusal(theirs), (6, 7));
                ours
            },
        ),
        ("it closes the loser", |bench, ours, theirs| {
            bench.core.closed(ours, "closed".into(), bench.now);
            bench.feed(theirs, open(65002, A));
            bench.feed(theirs, Message::Keepalive);
            theirs
        }),
        (
            "it sends an OPEN on the winner and refuses the loser",
            |bench, ours, theirs| {
                bench.sent(theirs);
                bench.feed(theirs, open(65002, A));
                bench.feed(theirs, Message::Keepalive);
                assert!(bench.sent(theirs).is_empty(), "confirmed too early");
                bench.feed(
                    ours,
                    Notification::cease(Cease::ConnectionCollisionResolution),
                );
                assert!(matches!(bench.sent(theirs)[0], Message::Keepalive));
                theirs
            },
        ),
        (
            "it confirms the loser and says no more",
            |bench, ours, theirs| {
                bench.feed(theirs, open(65002, A));
                bench.feed(ours, Message::Keepalive);
                bench.pass(CONTEST_TIME);
                assert_eq!(bench.refusal(theirs), (6, 7));
                ours
            },
        ),
        (
            "it gives up the winner for another",
            |bench, ours, theirs| {
                let third = bench.accept(A).unwrap();
                assert_eq!(bench.refusal(theirs), (6, 7));
                bench.feed(ours, Message::Keepalive);
                bench.core.closed(third, "closed".into(), bench.now);
                ours
            },
        ),
    ];
    for (what, then) in table {
        let (mut bench, ours) = losing();
        bench.feed(ours, open(65002, A));
        assert!(
            matches!(bench.sent(ours)[..], [Message::Keepalive]),
            "{what}"
        );
        let theirs = bench.accept(A).unwrap();
        let kept = then(&mut bench, ours, theirs);
        bench.drain();
        settled_on(&mut bench, kept, what);
    }
}
