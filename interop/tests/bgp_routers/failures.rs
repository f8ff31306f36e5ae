//! Sessions that must not come up, and one that must not stay up.

use bgp::Family;
use interop::capture::bgp::notifications;
use interop::enter::{Lab, Outcome};
use interop::peer::Daemon;
use interop::topology::plan;

use super::encounter::{Encounter, FIRST, SOON, Terms, becomes, is_established};

with_each_router![
    router_with_another_as,
    router_expecting_another_as,
    no_common_family,
    silent_router,
];

/// The router is not of the AS that we expect: we refuse it, and say what to do.
fn router_with_another_as(lab: &Lab, daemon: Daemon) -> Outcome {
    let terms = Terms {
        peer: |peer| peer.asn = 65099,
        ..Terms::default()
    };
    fails(
        lab,
        daemon,
        terms,
        Refuser::Gateway,
        (2, 2),
        "peer says AS 65002, configured 65099: fix asn of peer r2 or the router",
    )
}

/// We are not of the AS that the router expects: it refuses us, and we say what to do.
fn router_expecting_another_as(lab: &Lab, daemon: Daemon) -> Outcome {
    let terms = Terms {
        neighbour: |neighbour| neighbour.asn = 65099,
        ..Terms::default()
    };
    fails(
        lab,
        daemon,
        terms,
        Refuser::Router,
        (2, 2),
        "it does not expect AS 65001 from us: fix asn here",
    )
}

/// A session that could carry nothing is refused.
fn no_common_family(lab: &Lab, daemon: Daemon) -> Outcome {
    let terms = Terms {
        neighbour: |neighbour| neighbour.families = vec![Family::Ipv6Unicast],
        peer: |peer| peer.families = vec![Family::Ipv4Unicast],
        ..Terms::default()
    };
    fails(
        lab,
        daemon,
        terms,
        Refuser::Gateway,
        (2, 7),
        "peer offers none of the families ipv4: fix families of peer r2",
    )
}

enum Refuser {
    Gateway,
    Router,
}

/// No session comes up: `refuser` sends this NOTIFICATION, and `ccn peers` explains it.
fn fails(
    lab: &Lab,
    daemon: Daemon,
    terms: Terms,
    refuser: Refuser,
    (code, subcode): (u8, u8),
    advice: &str,
) -> Outcome {
    let mut here = Encounter::arrange(lab, &[daemon], terms)?;
    let capture = here.capture()?;
    here.start()?;
    let refuser = match refuser {
        Refuser::Gateway => plan::GATEWAY4,
        Refuser::Router => plan::idc4(FIRST),
    };
    becomes(
        format!("NOTIFICATION {code}/{subcode} by {refuser}"),
        || {
            let seen = notifications(&capture.so_far());
            let right = seen.contains(&(refuser.into(), code, subcode));
            Ok((!right).then(|| format!("{seen:?}")))
        },
    )?;
    here.await_last_error(advice)?;
    here.await_session_down()?;
    assert_eq!(here.peer(0)?["sessions"], 0);
    Ok(())
}

/// A router that says nothing for the hold time is given up, with all it said; it is welcome again.
fn silent_router(lab: &Lab, daemon: Daemon) -> Outcome {
    let terms = Terms {
        peer: |peer| peer.hold_time = 3,
        // One that agrees to RFC 8538 might come back to its routes even so, but not for long.
        neighbour: |neighbour| neighbour.graceful_restart = Some(3),
        ..Terms::default()
    };
    let mut here = Encounter::linked(lab, &[daemon], terms)?;
    assert_eq!(here.peer(0)?["hold_time"], 3);
    let capture = here.capture()?;
    here.router().freeze()?;
    here.await_last_error("nothing was heard from the peer for 3 s (hold timer expired)")?;
    here.expect_forgotten()?;
    let sent = notifications(&capture.stop());
    let ours = (plan::GATEWAY4.into(), 4, 0);
    assert!(sent.contains(&ours), "code and subcode: {sent:?}");
    here.router().thaw()?;
    here.await_peer(0, "is back", |peer| {
        is_established(peer) && peer["sessions"] == 2
    })?;
    here.expect_announced()?;
    here.expect_learned()?;
    let gateway = here.gateway_address();
    here.router().await_established(gateway, SOON)?;
    Ok(())
}
