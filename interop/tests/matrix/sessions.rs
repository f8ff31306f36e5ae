//! Cells about sessions: how they last, end and come back.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp::{BfdConfig, Stop};
use interop::capture::bgp::{
    KEEPALIVE, Message, NOTIFICATION, OPEN, ROUTE_REFRESH, UPDATE, messages,
};
use interop::capture::{Capture, Frames};
use interop::peer::{BfdTerms, Extra, Session};

use super::meeting::{Failure, Meeting, NAME, Terms, becomes, is_established, theirs};
use super::table::{Cell, Verdict};

/// Cease, and its Administrative Shutdown.
const SHUTDOWN: [u8; 2] = [6, 2];
/// How ExaBGP answers a NOTIFICATION with a text.
const CANNOT_DECODE: [u8; 2] = [1, 0];
const HOLD_TIMER_EXPIRED: [u8; 2] = [4, 0];

/// Three seconds of hold time, the least there is: agreed on, and kept up by both.
pub(super) fn hold_3_s(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    let terms = Terms {
        neighbour: |neighbour| neighbour.hold_time = 3,
        peer: |peer, _| peer.hold_time = 3,
        ..Terms::default()
    };
    let meeting = cell.established(&terms)?;
    assert_eq!(meeting.peer()?.hold_time, Some(3));
    let (before, started) = (meeting.await_established()?, Instant::now());
    while started.elapsed() < Duration::from_millis(4500) {
        let peer = meeting.peer()?;
        assert!(is_established(&peer) && peer.sessions == 1, "{peer:?}");
    }
    assert_eq!(meeting.await_established()?.since, before.since);
    Ok(Verdict::Ok)
}

/// A router that is silent for the default hold time, 9 s, is given up with all that it said; it is
/// welcome again.
pub(super) fn silence_9_s(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    let meeting = cell.established(&Terms {
        // So that what it said goes at once.
        neighbour: |neighbour| neighbour.graceful_restart = None,
        ..Terms::default()
    })?;
    assert_eq!(meeting.peer()?.hold_time, Some(9));
    meeting.await_learned()?;
    let capture = meeting.capture()?;
    meeting.router.freeze()?;
    let frozen = Instant::now();
    let peer = meeting.await_peer("given up", |peer| !is_established(peer))?;
    // It may have said its last word up to a keepalive before.
    assert!(frozen.elapsed() > Duration::from_secs(5), "{peer:?}");
    let why = peer.last_error.unwrap_or_default();
    assert!(why.contains("9 s (hold timer expired)"), "{why}");
    meeting.await_forgotten()?;
    sends(&capture, meeting.our_address(), &HOLD_TIMER_EXPIRED)?;
    meeting.router.thaw()?;
    meeting.await_peer("back", |peer| is_established(peer) && peer.sessions == 2)?;
    meeting.await_established()?;
    meeting.await_learned()?;
    Ok(Verdict::Ok)
}

/// The router's operator takes the session down and says why; ours does, and the router has it.
pub(super) fn notification_text(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    const THEIR_REASON: &str = "fans of rack seven";
    const OUR_REASON: &str = "new line cards";
    let mut meeting = cell.established(&Terms {
        // With it, the Cease is wrapped into a hard reset (RFC 8538).
        neighbour: |neighbour| neighbour.graceful_restart = None,
        ..Terms::default()
    })?;
    let capture = meeting.capture()?;
    meeting.stop_ours(Stop::Cease(Some(OUR_REASON.to_owned())));
    let us = meeting.our_address();
    let length = OUR_REASON.len() as u8;
    let sent = [&SHUTDOWN[..], &[length], OUR_REASON.as_bytes()].concat();
    sends(&capture, us, &sent)?;
    let session = meeting.await_down_at_router()?;
    if let Some(reason) = cell.lacks(Extra::ShutdownText) {
        sends(&capture, meeting.router_address(), &CANNOT_DECODE)?;
        return Ok(Verdict::Lacks(reason));
    }
    await_text_at_router(cell, &meeting, &session, OUR_REASON)?;
    meeting.start_ours()?;
    meeting.await_established()?;
    meeting.router.shut_down(us, THEIR_REASON)?;
    meeting.await_peer("down, and why", |peer| {
        let why = peer.last_error.as_deref().unwrap_or_default();
        why.contains(THEIR_REASON)
    })?;
    Ok(Verdict::Ok)
}

/// The router shows our text: on its command line, or in its log.
fn await_text_at_router(
    cell: &Cell<'_>,
    meeting: &Meeting,
    session: &Session,
    text: &str,
) -> Result<(), Failure> {
    Ok(becomes(format!("the router shows {text:?}"), || {
        let protocols = meeting.router.cli(&["show", "protocols", "all"]);
        let shown = [
            session.last_error.clone().unwrap_or_default(),
            protocols.unwrap_or_default(),
            cell.logs()?,
        ];
        let found = shown.iter().any(|shown| shown.contains(text));
        Ok((!found).then(|| shown.concat()))
    })?)
}

/// The router asks for our routes once more, and gets them.
pub(super) fn refresh(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    if let Some(reason) = cell.lacks(Extra::AskForRefresh) {
        return Ok(Verdict::Lacks(reason));
    }
    let meeting = cell.established(&Terms::default())?;
    meeting.await_told()?;
    let capture = meeting.capture()?;
    let us = meeting.our_address();
    meeting.router.ask_for_refresh(us)?;
    becomes("a ROUTE-REFRESH, and our route after it", || {
        let all = messages(&capture.so_far());
        let asked = |m: &Message| m.kind == ROUTE_REFRESH && m.from != us;
        let asked = all.iter().position(asked);
        let told = |m: &Message| m.kind == UPDATE && m.from == us;
        let told = asked.is_some_and(|asked| all[asked..].iter().any(told));
        Ok((!told).then(|| format!("{all:?}")))
    })?;
    meeting.await_told()?;
    assert_eq!(meeting.peer()?.sessions, 1);
    Ok(Verdict::Ok)
}

/// Our operator asks the router for its routes once more, and it answers.
pub(super) fn our_refresh(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    let meeting = cell.established(&Terms::default())?;
    meeting.await_learned()?;
    let capture = meeting.capture()?;
    let us = meeting.our_address();
    let speaker = meeting.speaker()?;
    speaker.ask(speaker.speaker.refresh_peer(NAME))?;
    let lacks = cell.lacks(Extra::AnswerRefresh);
    becomes("a ROUTE-REFRESH of ours, and what comes after it", || {
        let all = messages(&capture.so_far());
        let asked = |m: &Message| m.kind == ROUTE_REFRESH && m.from == us;
        let asked = all.iter().position(asked);
        // Whoever does not answer goes on with the session, or begins a new one.
        let awaited: &[u8] = match lacks {
            Some(_) => &[KEEPALIVE, OPEN],
            None => &[UPDATE],
        };
        let told = |m: &Message| awaited.contains(&m.kind) && m.from != us && !is_end_of_rib(m);
        let told = asked.is_some_and(|asked| all[asked..].iter().any(told));
        Ok((!told).then(|| format!("{all:?}")))
    })?;
    if let Some(reason) = lacks {
        let all = messages(&capture.so_far());
        let theirs: Vec<u8> = all
            .iter()
            .filter(|m| m.from != us && !is_end_of_rib(m))
            .map(|m| m.kind)
            .collect();
        let first = theirs.iter().find(|kind| [UPDATE, OPEN].contains(kind));
        assert_ne!(first, Some(&UPDATE), "it does answer: {all:?}");
        return Ok(Verdict::Lacks(reason));
    }
    meeting.await_learned()?;
    let peer = meeting.peer()?;
    assert_eq!(peer.sessions, 1, "{peer:?}");
    Ok(Verdict::Ok)
}

/// That of the initial table may come late.
fn is_end_of_rib(message: &Message) -> bool {
    message.kind == UPDATE && message.body == [0; 4]
}

/// We keep the routes of a router that crashes until it is back, and have them all the time.
pub(super) fn helper(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    if let Some(reason) = cell.lacks(Extra::Restarting) {
        return Ok(Verdict::Lacks(reason));
    }
    let mut meeting = cell.established(&Terms {
        // Two connections at once would be one more restart to BIRD: it lets a new one end a session
        // that is up, if graceful restart was agreed on.
        peer: |peer, _| peer.passive = true,
        ..Terms::default()
    })?;
    meeting.await_learned()?;
    let prefix = theirs(meeting.family);
    // It must have said all before: what it has not, it cannot keep.
    meeting.await_told()?;
    meeting.router.kill();
    becomes("we keep its route as stale", || {
        let paths = meeting.learned(prefix)?;
        assert!(
            !paths.is_empty(),
            "dropped with the session: {:?}",
            meeting.peer()
        );
        Ok((!paths.iter().all(|path| path.stale)).then(|| format!("{paths:?}")))
    })?;
    meeting.router.start()?;
    becomes("its route is fresh, and was never gone", || {
        let paths = meeting.learned(prefix)?;
        assert!(
            !paths.is_empty(),
            "dropped when it came back: {:?}",
            meeting.peer()
        );
        Ok(paths
            .iter()
            .any(|path| path.stale)
            .then(|| format!("{paths:?}")))
    })?;
    meeting.await_established()?;
    meeting.await_learned()?;
    Ok(Verdict::Ok)
}

/// BFD is up on both sides beside the session. What its end does is shown in `interop/tests/bfd`.
pub(super) fn bfd(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    if let Some(reason) = cell.lacks(Extra::Bfd) {
        return Ok(Verdict::Lacks(reason));
    }
    let meeting = cell.established(&Terms {
        neighbour: |neighbour| neighbour.bfd = Some(BfdTerms::new()),
        peer: |peer, _| peer.bfd = Some(BfdConfig::default()),
        ..Terms::default()
    })?;
    let us = meeting.our_address();
    let up = |state| state == bgp::bfd::State::Up;
    meeting.await_peer("its BFD is up", |peer| {
        peer.bfd.as_ref().is_some_and(|bfd| up(bfd.state))
    })?;
    becomes("BFD is up at the router", || {
        let state = meeting.router.bfd(us)?;
        Ok((!up(state)).then(|| format!("{state:?}")))
    })?;
    Ok(Verdict::Ok)
}

/// The router keeps our routes while we are away, and has them all the time.
pub(super) fn restarter(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    if let Some(reason) = cell.lacks(Extra::Helper) {
        return Ok(Verdict::Lacks(reason));
    }
    let mut meeting = cell.established(&Terms {
        // As in [`helper`].
        neighbour: |neighbour| neighbour.passive = true,
        ..Terms::default()
    })?;
    meeting.await_told()?;
    meeting.stop_ours(Stop::KeepForwarding);
    becomes("the router keeps our route as stale", || {
        let routes = meeting.at_router()?;
        assert!(!routes.is_empty(), "dropped with the session");
        Ok((!routes.iter().all(|route| route.stale)).then(|| format!("{routes:?}")))
    })?;
    let restart = &mut meeting.config().graceful_restart;
    if let Some(restart) = restart {
        restart.restarting = true;
    }
    meeting.start_ours()?;
    becomes(
        "our route at the router is fresh, and was never gone",
        || {
            let routes = meeting.at_router()?;
            assert!(
                !routes.is_empty(),
                "dropped when we came back: {:?}",
                meeting.peer()
            );
            Ok(routes
                .iter()
                .any(|r| r.stale)
                .then(|| format!("{routes:?}")))
        },
    )?;
    meeting.await_established()?;
    meeting.await_told()?;
    Ok(Verdict::Ok)
}

/// Waits for a NOTIFICATION of one side that begins with these octets.
pub(super) fn sends(capture: &Capture, side: IpAddr, start: &[u8]) -> Result<(), Failure> {
    let seen = |frames: &Frames| {
        let all = messages(frames);
        let right =
            |m: &Message| m.kind == NOTIFICATION && m.from == side && m.body.starts_with(start);
        (!all.iter().any(right)).then(|| format!("{all:?}"))
    };
    Ok(becomes(format!("a NOTIFICATION {start:?}"), || {
        Ok(seen(&capture.so_far()))
    })?)
}
