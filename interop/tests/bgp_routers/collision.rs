//! Both sides connect at the same moment (RFC 4271 section 6.8): one connection remains.
//!
//! To make it certain, nothing gets through until both have sent a SYN; then both programs are
//! held while their kernels complete both handshakes, and let go together.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use interop::capture::Capture;
use interop::capture::bgp::{KEEPALIVE, Message, OPEN, messages};
use interop::enter::{self, Lab, Outcome};
use interop::peer::Daemon;
use interop::topology::{IDC, plan};
use netlink::{Mac, Neighbour, Request};
use nix::sys::signal::Signal;

use super::encounter::{Encounter, FIRST, Failure, SOON, Terms, becomes};
use super::restarts::is_loss;
use super::watch::Watch;

with_each_router![lower_identifier, higher_identifier];

/// Nobody's.
const NOWHERE: Mac = Mac([0x02, 0xde, 0xad, 0, 0, 0]);
const ROUTER: &str = "r2";
/// How long the one session is watched.
const WATCHED: Duration = Duration::from_secs(2);

/// The router has the higher BGP identifier: its connection is kept.
fn lower_identifier(lab: &Lab, daemon: Daemon) -> Outcome {
    collide(lab, daemon, plan::GATEWAY4, true)
}

/// We have the higher BGP identifier: our connection is kept.
fn higher_identifier(lab: &Lab, daemon: Daemon) -> Outcome {
    collide(lab, daemon, plan::idc4(200), false)
}

/// One attempt each: the SYN is sent again by the kernel.
fn one_attempt() -> Terms {
    Terms {
        neighbour: |neighbour| neighbour.connect_retry = 20,
        peer: |peer| peer.connect_retry = 20.0,
        ..Terms::default()
    }
}

fn collide(lab: &Lab, daemon: Daemon, router_id: Ipv4Addr, routers_is_kept: bool) -> Outcome {
    let mut here = Encounter::arrange(lab, &[daemon], one_attempt())?;
    here.gateway.config.bgp.router_id = router_id;
    let capture = here.capture()?;
    connect_both(&mut here, Encounter::start)?;
    let_go(&mut here, &capture, routers_is_kept)?;
    here.await_sessions()?;
    here.link()?;
    here.expect_announced()?;
    here.expect_learned()?;
    one_remains(&here)?;
    if daemon == Daemon::Bird {
        // FRR now and then closes the session once more, without a NOTIFICATION.
        assert_eq!(here.peer(0)?["sessions"], 1);
    }
    Ok(())
}

/// The agent is back after a crash, and connects while the router does. A router that takes a connection for
/// established and loses it again has lost the session twice, and drops what it kept since the first time.
#[test]
fn after_a_crash_no_route_is_lost() {
    enter::test(|lab| {
        let mut here = Encounter::linked(lab, &[Daemon::Bird], one_attempt())?;
        here.gateway.await_settled(SOON)?;
        for round in 1..=3 {
            let at_router = Watch::start(here.router().namespace())?;
            here.gateway.kill()?;
            here.expect_kept_as_stale()?;
            let capture = here.capture()?;
            connect_both(&mut here, |here| Ok(here.gateway.start()?))?;
            let_go(&mut here, &capture, true)?;
            here.await_sessions()?;
            here.expect_announced()?;
            one_remains(&here)?;
            assert_eq!(here.peer(0)?["sessions"], 1, "round {round}");
            let lost: Vec<_> = at_router.stop()?.into_iter().filter(is_loss).collect();
            assert_eq!(lost, [], "round {round}: the router's kernel lost a route");
        }
        Ok(())
    });
}

/// Lets both sides go, the router first, so that each finds what the other said on both connections.
fn let_go(here: &mut Encounter, capture: &Capture, routers_is_kept: bool) -> Result<(), Failure> {
    here.router().thaw()?;
    // GoBGP has no collision detection: it closes what comes while it waits for an OPEN.
    let answers_both = here.router().daemon() != Daemon::Gobgp;
    if answers_both {
        becomes("the router has sent an OPEN on both", || {
            let opens = said_by(plan::idc4(FIRST), OPEN, capture);
            Ok((opens != 2).then(|| format!("{opens}")))
        })?;
        here.router().freeze()?;
    }
    here.gateway.agent()?.signal(Signal::SIGCONT)?;
    if answers_both {
        // The router cannot have answered: it is for us to decide, by the identifiers. But when the
        // router's OPEN comes to us before the news that our own connection is up, then nothing was
        // said on that one, and it is given up.
        if is_decided(here, capture)? {
            let routers_is_left = here.router_connected()?;
            match said_by(plan::GATEWAY4, OPEN, capture) {
                1 => assert!(routers_is_left),
                _ => assert_eq!(routers_is_left, routers_is_kept),
            }
        }
        here.router().thaw()?;
    }
    Ok(())
}

/// Waits until the gateway has closed one of the connections; or, if it had confirmed the one that loses before it knew
/// of the other, until it has said on both what leaves it to the router.
fn is_decided(here: &Encounter, capture: &Capture) -> Result<bool, Failure> {
    let mut decided = false;
    becomes("the gateway has decided, or will not", || {
        let said = |kind| said_by(plan::GATEWAY4, kind, capture);
        let (opens, keepalives) = (said(OPEN), said(KEEPALIVE));
        decided = here.count("gw", "ESTAB")? == 1;
        let leaves_it = opens == 2 && keepalives > 0;
        let seen = format!("{opens} OPENs and {keepalives} KEEPALIVEs sent");
        Ok((!decided && !leaves_it).then_some(seen))
    })?;
    Ok(decided)
}

/// One connection is left, and the session on it lasts.
fn one_remains(here: &Encounter) -> Result<(), Failure> {
    for node in ["gw", ROUTER] {
        here.await_connections(node, "ESTAB", 1)?;
    }
    let sessions = here.peer(0)?["sessions"].clone();
    let (before, started) = (here.connection()?, Instant::now());
    while started.elapsed() < WATCHED {
        assert_eq!(here.connection()?, before);
        assert_eq!(here.peer(0)?["sessions"], sessions);
    }
    Ok(())
}

/// How many messages of a kind this side has sent.
fn said_by(side: Ipv4Addr, kind: u8, capture: &Capture) -> usize {
    let messages = messages(&capture.so_far());
    let theirs = |message: &&Message| message.kind == kind && message.from == side;
    messages.iter().filter(theirs).count()
}

/// Ends with two connections, and both sides held; `start` starts the agent, and the router if it does not run.
fn connect_both(
    here: &mut Encounter,
    start: impl FnOnce(&mut Encounter) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let macs = [
        here.region.gateway().link(IDC)?.mac,
        here.region.router_node(ROUTER)?.link(IDC)?.mac,
    ];
    let [Some(gateway), Some(router)] = macs else {
        return Err("a veth without a MAC".into());
    };
    point_at(here, NOWHERE, NOWHERE)?;
    start(here)?;
    here.await_connections("gw", "SYN-SENT", 1)?;
    here.gateway.agent()?.signal(Signal::SIGSTOP)?;
    becomes("the router is held while it connects", || {
        here.await_connections(ROUTER, "SYN-SENT", 1)?;
        here.router().freeze()?;
        let still = here.count(ROUTER, "SYN-SENT")? == 1;
        if !still {
            here.router().thaw()?;
        }
        Ok((!still).then(|| "it had given up already".to_owned()))
    })?;
    point_at(here, router, gateway)?;
    for node in ["gw", ROUTER] {
        here.await_connections(node, "ESTAB", 2)?;
    }
    Ok(())
}

/// Sets the MACs that the gateway takes for the router's, and the router for the gateway's.
fn point_at(here: &mut Encounter, router: Mac, gateway: Mac) -> Result<(), Failure> {
    let (to_router, to_gateway) = (plan::idc4(FIRST).into(), plan::GATEWAY4.into());
    let node = here.region.gateway();
    let index = node.link(IDC)?.index;
    let entry = Neighbour::permanent(index, to_router, router);
    node.batch("point at the router", &[Request::replace_neighbour(entry)])?;
    let node = here.region.router_node(ROUTER)?;
    let index = node.link(IDC)?.index;
    let entry = Neighbour::permanent(index, to_gateway, gateway);
    node.batch("point at the gateway", &[Request::replace_neighbour(entry)])?;
    Ok(())
}

impl Encounter {
    fn count(&self, node: &str, state: &str) -> Result<usize, Failure> {
        let connections = self.connections(node)?;
        Ok(connections.iter().filter(|[s, ..]| s == state).count())
    }

    fn await_connections(&self, node: &str, state: &str, count: usize) -> Result<(), Failure> {
        Ok(becomes(
            format!("{node} has {count} connections in {state}"),
            || {
                let right = self.count(node, state)? == count;
                Ok((!right).then(|| format!("{:?}", self.connections(node))))
            },
        )?)
    }
}
