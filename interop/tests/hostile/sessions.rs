//! Connections and sessions: by strangers, very slow, and very many.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use interop::enter;
use interop::hostile::{Heard, Hostile, kind};

use super::siege::{Attacker, Failure, Siege, Stranger};

/// Connections of strangers in all, and how many of them are open at a time.
const STRANGERS: usize = 100_000;
const THREADS: usize = 6;
const OPEN_EACH: usize = 50;
/// Sessions that the flapping peers bring up and break in all.
const FLAPS: usize = 10_000;
/// How many peers do: what one waits for, the agent has for the others.
const FLAPPING: usize = 5;
/// How often is looked at the agent meanwhile.
const ROUNDS: usize = 10;

#[test]
fn a_hundred_thousand_connections_of_strangers() {
    enter::test_within(Duration::from_secs(220), |lab| {
        let mut siege = Siege::lay(lab, |_| {})?;
        // Nobody who is not configured gets a word: the connection ends as soon as it is there.
        let stranger = siege.stranger();
        if let Some(mut connection) = stranger.connect()? {
            assert_eq!(connection.hear()?, Heard::Closed);
        }

        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| -> Result<(), Failure> {
            let attackers: Vec<_> = (0..THREADS)
                .map(|_| scope.spawn(|| flood(&stranger, &made)))
                .collect();
            for attacker in attackers {
                attacker.join().map_err(|_| "an attacker panicked")??;
            }
            Ok(())
        })?;
        assert!(made.load(Ordering::Relaxed) >= STRANGERS);
        siege.is_over()
    });
}

/// Opens connections that say nothing, until there were enough; the oldest are dropped.
fn flood(stranger: &Stranger, made: &AtomicUsize) -> Result<(), Failure> {
    let mut open: Vec<Hostile> = Vec::new();
    while made.fetch_add(1, Ordering::Relaxed) < STRANGERS {
        // One that finds the queue full for 20 s is the failure of the test.
        open.extend(stranger.connect()?);
        if open.len() == OPEN_EACH {
            open.clear();
        }
    }
    Ok(())
}

/// An OPEN that comes octet by octet is an OPEN; nobody waits for it. (That one which never ends is
/// given up after 4 minutes is a matter of the session's machine: `bgp/src/fsm/tests.rs`.)
#[test]
fn an_open_that_trickles_in() {
    enter::test(|lab| {
        let mut siege = Siege::lay(lab, |_| {})?;
        let mut peer = siege.connect()?;
        let open = Siege::mask().open();
        let (first, last) = open.split_at(open.len() / 2);
        peer.trickle(first, Duration::from_secs(8))?;
        siege.holds()?;
        peer.trickle(last, Duration::from_secs(8))?;
        let heard = peer.hear()?;
        assert!(matches!(heard, Heard::Message(kind::OPEN, _)), "{heard:?}");
        drop(peer);
        siege.is_over()
    });
}

/// Sessions that come up and break, ten thousand times, without the pauses that the agent would make
/// by itself.
#[test]
fn ten_thousand_flaps() {
    enter::test_within(Duration::from_secs(230), |lab| {
        let mut siege = Siege::of_several(lab, FLAPPING as u8, |peer| {
            (peer.idle_hold, peer.idle_hold_max) = (0.001, 0.001);
        })?;
        let mut grown = Vec::new();
        for _ in 0..ROUNDS {
            std::thread::scope(|scope| -> Result<(), Failure> {
                let flapping: Vec<_> = siege
                    .attackers()
                    .iter()
                    .map(|attacker| scope.spawn(|| flap(attacker, FLAPS / ROUNDS / FLAPPING)))
                    .collect();
                for attacker in flapping {
                    attacker.join().map_err(|_| "an attacker panicked")??;
                }
                Ok(())
            })?;
            siege.holds()?;
            grown.push(siege.usage()?.resident);
        }
        siege.is_over()?;
        let [_, hostile @ ..] = &siege.all_peers()?[..] else {
            return Err("no peers".into());
        };
        for peer in hostile {
            let sessions = peer["sessions"].as_u64().unwrap_or_default();
            // A reset right behind our KEEPALIVE may destroy it.
            assert!(sessions >= (FLAPS / FLAPPING) as u64 * 9 / 10, "{peer}");
        }
        // Nothing is left behind by each: the second half costs no more than the first.
        let (first, last) = (grown[ROUNDS / 2 - 1], siege.usage()?.resident);
        assert!(last <= first + (8 << 20), "{grown:?}, then {last}");
        Ok(())
    });
}

/// Brings a session up and breaks it, so often.
fn flap(attacker: &Attacker, times: usize) -> Result<(), Failure> {
    for _ in 0..times {
        drop(attacker.establish()?);
    }
    Ok(())
}

/// With the pauses that it makes by itself, a peer that breaks every session is let in less and less
/// often.
#[test]
fn a_flapping_peer_is_damped() {
    enter::test(|lab| {
        let mut siege = Siege::lay(lab, |_| {})?;
        let started = std::time::Instant::now();
        for _ in 0..4 {
            drop(siege.establish()?);
        }
        // One second, two and four.
        assert!(started.elapsed() > Duration::from_secs(5));
        siege.is_over()
    });
}
