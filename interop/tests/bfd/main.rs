//! BFD with real routers: up on both sides' own word, down at once when the path fails, and no alarm
//! when an operator takes it down.

#[path = "../matrix/meeting.rs"]
#[expect(dead_code, reason = "shared with the matrix, which asks more")]
mod meeting;
mod wire;

use std::net::IpAddr;

use bgp::bfd::State;
use bgp::{BfdConfig, PeerConfig, PeerStatus, Stop};
use interop::capture::bgp::notifications;
use interop::enter::{self, Lab, Outcome};
use interop::peer::{BfdTerms, Daemon, Extra};

use meeting::{Failure, Meeting, Terms, becomes, is_established};

/// A test of each behaviour with each router that has BFD.
macro_rules! with_each_router {
    ($($behaviour:ident),+ $(,)?) => {
        $(
            mod $behaviour {
                use interop::enter;
                use interop::peer::Daemon;

                #[test]
                fn bird() {
                    enter::test(|lab| super::$behaviour(lab, Daemon::Bird));
                }

                #[test]
                fn frr() {
                    enter::test(|lab| super::$behaviour(lab, Daemon::Frr));
                }
            }
        )+
    };
}

with_each_router![
    frozen_router,
    bfd_ended_here,
    two_hops,
    strict,
    strict_alone
];

/// 50 ms x 3 on both sides. The hold time is as long as it gets, so that nothing else notices.
fn terms() -> Terms {
    Terms {
        neighbour: |neighbour| {
            neighbour.bfd = Some(BfdTerms::new());
            neighbour.hold_time = 240;
        },
        peer: |peer, _| {
            peer.bfd = Some(BfdConfig::default());
            peer.hold_time = 240;
        },
        ..Terms::default()
    }
}

/// BGP and BFD are up, and both sides say so.
fn met(lab: &Lab, daemon: Daemon, terms: &Terms) -> Result<Meeting, Failure> {
    let meeting = Meeting::established(lab, daemon, "r", terms)?;
    await_bfd(&meeting, State::Up)?;
    meeting.await_peer("BFD up", |peer| bfd_is(peer, State::Up))?;
    Ok(meeting)
}

fn bfd_is(peer: &PeerStatus, state: State) -> bool {
    peer.bfd.as_ref().is_some_and(|bfd| bfd.state == state)
}

/// Waits until the router's command line says of BFD with us what it should.
fn await_bfd(meeting: &Meeting, state: State) -> Result<(), Failure> {
    Ok(becomes(format!("the router's BFD: {state}"), || {
        let seen = meeting.router.bfd(meeting.our_address())?;
        Ok((seen != state).then(|| seen.to_string()))
    })?)
}

/// The subcode of a Cease for one of two connections (RFC 4486).
const COLLISION: u8 = 7;

/// The subcode of our Cease when BFD is down.
fn bfd_down(daemon: Daemon) -> u8 {
    match daemon {
        // It has agreed that other NOTIFICATIONs keep routes: so it is inside a hard reset (RFC 8538).
        Daemon::Frr => 9,
        _ => 10,
    }
}

/// A router that does not run any more is given up by BFD, and by BGP with it: what it told is
/// forgotten, it is told why, and it is welcome again.
fn frozen_router(lab: &Lab, daemon: Daemon) -> Outcome {
    let meeting = met(lab, daemon, &terms())?;
    let agreed = |peer: &PeerStatus| {
        let bfd = peer.bfd.as_ref();
        bfd.and_then(|bfd| bfd.detection_time_us) == Some(150_000)
    };
    meeting.await_peer("150 ms agreed", agreed)?;
    meeting.await_learned()?;
    let capture = meeting.capture()?;
    meeting.router.freeze()?;
    let lost = |peer: &PeerStatus| {
        let error = peer.last_error.as_deref().unwrap_or_default();
        error.contains("BFD: nothing was heard from the peer for 150ms")
    };
    meeting.await_peer("lost by BFD", lost)?;
    meeting.await_forgotten()?;
    becomes("cease, BFD down", || {
        let sent = notifications(&capture.so_far());
        let right = sent.contains(&(meeting.our_address(), 6, bfd_down(daemon)));
        Ok((!right).then(|| format!("{sent:?}")))
    })?;
    meeting.router.thaw()?;
    let back = |peer: &PeerStatus| is_established(peer) && peer.sessions >= 2;
    meeting.await_peer("is back", back)?;
    meeting.await_peer("BFD is back", |peer| bfd_is(peer, State::Up))?;
    await_bfd(&meeting, State::Up)
}

/// A session that waits for BFD comes up with it, and another one follows only where there is a reason.
fn strict(lab: &Lab, daemon: Daemon) -> Outcome {
    let terms = Terms {
        peer: |peer, _| {
            peer.bfd = Some(BfdConfig {
                strict: true,
                ..BfdConfig::default()
            });
            peer.hold_time = 240;
        },
        ..terms()
    };
    let mut meeting = Meeting::arrange(lab, daemon, "r", &terms)?;
    let capture = meeting.capture()?;
    meeting.start()?;
    meeting.await_peer("BFD and BGP up", |peer| {
        bfd_is(peer, State::Up) && is_established(peer)
    })?;
    await_bfd(&meeting, State::Up)?;
    meeting.await_learned()?;
    let sessions = meeting.peer()?.sessions;
    let sent = notifications(&capture.so_far());
    let count = |code: u8, from: Option<IpAddr>| {
        let of = |&&(by, cease, subcode): &&(IpAddr, u8, u8)| {
            cease == 6 && subcode == code && from.is_none_or(|from| from == by)
        };
        sent.iter().filter(of).count() as u64
    };
    // FRR makes its BFD session anew once BGP is up for the first time, which looks like a failure.
    let failures = count(bfd_down(daemon), Some(meeting.our_address()));
    let most = u64::from(daemon == Daemon::Frr);
    assert!(failures <= most, "{failures} failures: {sent:?}");
    // FRR connects a second time a second after the first, when BFD comes up too: each side may have chosen
    // another of the two connections.
    let collisions = u64::from(count(COLLISION, None) > 0);
    let explained = 1 + failures + collisions;
    assert!(sessions <= explained, "{sessions} sessions: {sent:?}");
    Ok(())
}

/// With a router that has no BFD for us there is no session: we say what is waited for, for how long,
/// and both sides end it.
fn strict_alone(lab: &Lab, daemon: Daemon) -> Outcome {
    let meeting = Meeting::begin(
        lab,
        daemon,
        "r",
        &Terms {
            neighbour: |neighbour| neighbour.hold_time = 9,
            peer: |peer, _| {
                peer.bfd = Some(BfdConfig {
                    strict: true,
                    ..BfdConfig::default()
                });
                peer.hold_time = 3;
            },
            ..Terms::default()
        },
    )?;
    let capture = meeting.capture()?;
    meeting.await_peer("says what it waits for", |peer| {
        peer.notes.iter().any(|note| note.contains("waits for BFD"))
    })?;
    meeting.await_peer("says what to do", |peer| {
        let error = peer.last_error.as_deref().unwrap_or_default();
        error.contains("BFD did not come up within 3 s") && error.contains("bfd.strict")
    })?;
    becomes("cease, BFD down", || {
        let sent = notifications(&capture.so_far());
        let right = sent.contains(&(meeting.our_address(), 6, bfd_down(daemon)));
        Ok((!right).then(|| format!("{sent:?}")))
    })?;
    assert_eq!(meeting.peer()?.sessions, 0);
    Ok(())
}

// BIRD has no way to say so: it falls silent, which is as good as a failure.
#[test]
fn bfd_shut_down_there() {
    assert!(Daemon::Bird.lacks(Extra::BfdAdminDown).is_some());
    enter::test(|lab| shut_down_there(lab, Daemon::Frr));
}

/// The router's operator takes BFD down: the path has not failed, and BGP stays.
fn shut_down_there(lab: &Lab, daemon: Daemon) -> Outcome {
    let meeting = met(lab, daemon, &terms())?;
    meeting.router.shut_bfd_down(meeting.our_address())?;
    let down = meeting.await_peer("BFD down", |peer| bfd_is(peer, State::Down))?;
    let lost = down.bfd.and_then(|bfd| bfd.last_down);
    assert_eq!(lost.as_deref(), Some("the peer's operator took BFD down"));
    meeting.await_told()?;
    meeting.await_learned()?;
    let peer = meeting.peer()?;
    assert!(is_established(&peer), "{peer:?}");
    assert_eq!(peer.sessions, 1);
    Ok(())
}

/// We stop and let our routes be kept: a router that is told so in its configuration does not take
/// the end of BFD for a failure.
fn bfd_ended_here(lab: &Lab, daemon: Daemon) -> Outcome {
    let terms = Terms {
        neighbour: |neighbour| {
            neighbour.bfd = Some(BfdTerms {
                graceful: true,
                ..BfdTerms::new()
            });
        },
        ..terms()
    };
    let mut meeting = met(lab, daemon, &terms)?;
    meeting.await_told()?;
    meeting.stop_ours(Stop::KeepForwarding);
    meeting.await_down_at_router()?;
    becomes("the router's BFD is not up", || {
        let seen = meeting.router.bfd(meeting.our_address());
        // It may have forgotten the session.
        Ok(seen
            .is_ok_and(|state| state == State::Up)
            .then(|| "up".to_owned()))
    })?;
    let kept = meeting.at_router()?;
    assert!(kept.iter().any(|route| route.stale), "{kept:?}");
    meeting.start_ours()?;
    meeting.await_established()?;
    meeting.await_peer("BFD up", |peer| bfd_is(peer, State::Up))?;
    meeting.await_told()
}

/// RFC 5883, on its own port.
fn two_hops(lab: &Lab, daemon: Daemon) -> Outcome {
    let terms = Terms {
        neighbour: |neighbour| {
            neighbour.bfd = Some(BfdTerms {
                multihop: true,
                ..BfdTerms::new()
            });
        },
        peer: |peer, _| {
            peer.multihop = Some(2);
            peer.bfd = Some(BfdConfig::default());
        },
        ..Terms::default()
    };
    let meeting = met(lab, daemon, &terms)?;
    let bfd = meeting.peer()?.bfd.ok_or("no BFD")?;
    assert!(bfd.multihop, "{bfd:?}");
    Ok(())
}

/// Meticulous SHA1, as BIRD understands it; and with another key, what is wrong is said.
#[test]
fn authenticated() {
    enter::test(|lab| {
        let terms = |key: fn(&mut PeerConfig, &Lab)| Terms {
            neighbour: |neighbour| {
                neighbour.bfd = Some(BfdTerms {
                    password: Some("sesame".to_owned()),
                    ..BfdTerms::new()
                });
            },
            peer: key,
            ..Terms::default()
        };
        let meeting = met(
            lab,
            Daemon::Bird,
            &terms(|peer, lab| sign(peer, lab, "sesame")),
        )?;
        drop(meeting);
        let wrong = terms(|peer, lab| sign(peer, lab, "barley"));
        let meeting = Meeting::established(lab, Daemon::Bird, "wrong", &wrong)?;
        let says = |peer: &PeerStatus| {
            let wrong = |note: &String| note.contains("digest is wrong: the keys differ");
            peer.notes.iter().any(wrong)
        };
        let peer = meeting.await_peer("says that the keys differ", says)?;
        assert!(!bfd_is(&peer, State::Up));
        Ok(())
    });
}

fn sign(peer: &mut PeerConfig, lab: &Lab, key: &str) {
    use std::os::unix::fs::PermissionsExt;

    let file = lab.scratch().join(format!("{key}.key"));
    std::fs::write(&file, key).expect("the lab's directory is ours");
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&file, private).expect("the file is ours");
    peer.bfd = Some(BfdConfig {
        auth: Some(bgp::BfdAuth {
            method: bgp::BfdAuthMethod::MeticulousSha1,
            key_id: 1,
            key_file: file,
        }),
        ..BfdConfig::default()
    });
}
