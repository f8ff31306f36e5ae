//! Sessions that end and come back: resets, and restarts of either side.

use bgp::Announcement;
use bgp::wire::{Message, Open, WireOptions};
use interop::capture::Frames;
use interop::capture::bgp::{OPEN, messages, notifications};
use interop::enter::{Lab, Outcome};
use interop::gateway::{Gateway, GatewayError};
use interop::hostile;
use interop::peer::{Daemon, Router, SessionState};
use interop::topology::plan;
use netlink::{Change, Event};

use super::encounter::{
    Encounter, FIRST, Failure, OURS, SOON, Terms, is_established, nets, on_idc, subnets,
};
use super::speaker;
use super::watch::Watch;

with_each_router![
    reset_by_the_router,
    reset_by_the_gateway,
    restart_of_the_router,
    crash_of_the_router,
    restart_of_the_agent,
    crash_of_the_agent,
    crash_of_the_agent_without_graceful_restart,
];

fn reset_by_the_router(lab: &Lab, daemon: Daemon) -> Outcome {
    let mut here = Encounter::linked(lab, &[daemon], Terms::default())?;
    let (before, gateway) = (here.connection()?, here.gateway_address());
    here.router().reset_session(gateway)?;
    here.await_peer(0, "is in its second session", |peer| {
        peer["sessions"] == 2 && is_established(peer)
    })?;
    here.await_sessions()?;
    assert_ne!(here.connection()?, before);
    here.expect_announced()?;
    here.expect_learned()
}

/// The operator takes the session down (Cease, Administrative Shutdown) and up again.
fn reset_by_the_gateway(lab: &Lab, daemon: Daemon) -> Outcome {
    let mut here = Encounter::arrange(lab, &[daemon], Terms::default())?;
    let capture = here.capture()?;
    here.router().start()?;
    let namespace = here.region.gateway().namespace().clone();
    let ours = speaker::start(namespace, &here.gateway.config.bgp)?;
    let routes = subnets().map(|net| net.to_string().parse().map(Announcement::new));
    let routes = routes.into_iter().collect::<Result<_, _>>()?;
    ours.ask(ours.speaker.announce(routes))?;
    here.expect_announced()?;

    let before = here.connection()?;
    ours.ask(ours.speaker.set_peer_admin("r2", false, None))?;
    here.await_session_down()?;
    here.expect_not_announced()?;
    let sent = notifications(&capture.stop());
    // FRR would keep our routes after any NOTIFICATION but a hard reset (RFC 8538).
    let subcode = if daemon == Daemon::Frr { 9 } else { 2 };
    let expected = [(plan::GATEWAY4.into(), 6, subcode)];
    assert_eq!(sent, expected, "code and subcode");

    ours.ask(ours.speaker.set_peer_admin("r2", true, None))?;
    here.expect_announced()?;
    assert_ne!(here.connection()?, before);
    let status = ours.ask(ours.speaker.peers());
    assert_eq!(status[0].sessions, 2, "{status:?}");
    Ok(())
}

fn restart_of_the_router(lab: &Lab, daemon: Daemon) -> Outcome {
    router_comes_back(lab, daemon, |router| Ok(router.stop()?))
}

fn crash_of_the_router(lab: &Lab, daemon: Daemon) -> Outcome {
    router_comes_back(lab, daemon, |router| {
        router.kill();
        Ok(())
    })
}

/// What a router said is forgotten with its session, or where it may restart soon after, and
/// learned again with the next.
fn router_comes_back(
    lab: &Lab,
    daemon: Daemon,
    end: fn(&mut dyn Router) -> Result<(), Failure>,
) -> Outcome {
    let terms = Terms {
        neighbour: |neighbour| neighbour.graceful_restart = Some(3),
        ..Terms::default()
    };
    let mut here = Encounter::linked(lab, &[daemon], terms)?;
    end(here.router())?;
    here.await_peer(0, "is gone, and why is said", |peer| {
        !is_established(peer) && peer["last_error"].is_string()
    })?;
    here.expect_forgotten()?;
    here.router().start()?;
    here.await_sessions()?;
    here.expect_announced()?;
    here.expect_learned()
}

fn restart_of_the_agent(lab: &Lab, daemon: Daemon) -> Outcome {
    agent_comes_back(lab, daemon, Gateway::stop)
}

fn crash_of_the_agent(lab: &Lab, daemon: Daemon) -> Outcome {
    agent_comes_back(lab, daemon, Gateway::kill)
}

/// The router keeps the routes while the agent is away, and so does the gateway's kernel; when the
/// agent is back, neither has changed anything.
fn agent_comes_back(
    lab: &Lab,
    daemon: Daemon,
    end: fn(&mut Gateway) -> Result<(), GatewayError>,
) -> Outcome {
    let mut here = Encounter::linked(lab, &[daemon], Terms::default())?;
    here.gateway.await_settled(SOON)?;
    let before = here.kernel_state()?;
    let at_gateway = Watch::start(here.region.gateway().namespace())?;
    let at_router = Watch::start(here.router().namespace())?;

    end(&mut here.gateway)?;
    here.expect_kept_as_stale()?;
    assert_ne!(here.session()?.state, SessionState::Established);
    assert_eq!(here.kernel_state()?, before);

    let capture = here.capture()?;
    here.gateway.start()?;
    here.await_sessions()?;
    here.expect_announced()?;
    here.expect_learned()?;
    // It says that it is back, and that it has gone on forwarding.
    let opens = opens(&capture.stop());
    assert!(!opens.is_empty());
    for open in opens {
        let restart = open.graceful_restart().ok_or("no graceful restart")?;
        let kept = restart.families.iter().all(|it| it.forwarding_preserved);
        assert!(restart.restarting && kept, "{open:?}");
    }
    let status = here.gateway.await_settled(SOON)?;
    assert_eq!(status["plane"]["last_resync_operations"], 0, "{status}");
    assert_eq!(status["plane"]["operations"], 0, "{status}");

    assert_eq!(here.kernel_state()?, before);
    assert_eq!(ours(at_gateway.stop()?), []);
    let flaps: Vec<_> = at_router.stop()?.into_iter().filter(is_loss).collect();
    assert_eq!(flaps, [], "the router's kernel lost a route");
    Ok(())
}

/// The changes that concern what the agent has in the kernel, but for what it tries out at its start
/// and takes back: whether the kernel can do what the plane needs.
fn ours(events: Vec<Event>) -> Vec<Event> {
    const PROBE: (&str, u32) = ("ccn-probe", 0x0200_00ff);
    let concerns = |event: &Event| match event {
        Event::Route(Change::Present(route) | Change::Gone(route)) => {
            route.protocol == OURS && route.table != PROBE.1
        }
        Event::Rule(Change::Present(rule) | Change::Gone(rule)) => {
            rule.protocol == OURS && rule.iif.as_deref() != Some(PROBE.0)
        }
        _ => true,
    };
    events.into_iter().filter(concerns).collect()
}

/// A route to the VPC went, or something unknown happened.
pub(super) fn is_loss(event: &Event) -> bool {
    match event {
        Event::Route(Change::Gone(route)) => subnets().contains(&route.prefix),
        Event::Resync(_) => true,
        _ => false,
    }
}

/// The router does not offer graceful restart and need not say when its table is told. What it
/// withdrew while the agent was away goes all the same, long before the restart time is over; what
/// it still has is never gone.
fn crash_of_the_agent_without_graceful_restart(lab: &Lab, daemon: Daemon) -> Outcome {
    let terms = Terms {
        neighbour: |neighbour| neighbour.graceful_restart = None,
        ..Terms::default()
    };
    let mut here = Encounter::linked(lab, &[daemon], terms)?;
    let [gone, stays] = nets(FIRST);
    here.gateway.kill()?;
    here.router().withdraw(gone)?;
    let watch = Watch::start(here.region.gateway().namespace())?;
    here.gateway.start()?;
    here.await_sessions()?;
    here.expect_route(gone, &[])?;
    here.expect_route(stays, &[on_idc(FIRST, stays)])?;
    for event in watch.stop()? {
        if let Event::Route(Change::Gone(route)) = &event {
            assert_ne!(route.prefix, stays, "{event:?}");
        }
    }
    Ok(())
}

/// The OPENs of ours.
fn opens(frames: &Frames) -> Vec<Open> {
    let ours = messages(frames).into_iter();
    let ours = ours.filter(|said| said.kind == OPEN && said.from == plan::GATEWAY4);
    ours.filter_map(|said| {
        let octets = hostile::message(said.kind, &said.body);
        match Message::decode(&octets, &WireOptions::BEFORE_OPEN)
            .ok()?
            .message
        {
            Message::Open(open) => Some(open),
            _ => None,
        }
    })
    .collect()
}
