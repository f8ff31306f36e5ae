//! Both sides connect at the same moment (RFC 4271 section 6.8): one connection remains.
//!
//! To make it certain, nothing gets through until both have sent a SYN; then both programs are
//! held while their kernels complete both handshakes, and let go together.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use interop::capture::Capture;
use interop::capture::bgp::{Message, OPEN, messages};
use interop::enter::{Lab, Outcome};
use interop::peer::Daemon;
use interop::topology::{IDC, plan};
use netlink::{Mac, Neighbour, Request};
use nix::sys::signal::Signal;

use super::encounter::{Encounter, FIRST, Failure, Terms, becomes};

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

fn collide(lab: &Lab, daemon: Daemon, router_id: Ipv4Addr, routers_is_kept: bool) -> Outcome {
    let (mut here, capture) = connect_both(lab, daemon, router_id)?;
    here.router().thaw()?;
    // GoBGP has no collision detection: it closes what comes while it waits for an OPEN.
    if daemon != Daemon::Gobgp {
        becomes("the router has sent an OPEN on both", || {
            let opens = opens_of(plan::idc4(FIRST), &capture);
            Ok((opens != 2).then(|| format!("{opens}")))
        })?;
        here.router().freeze()?;
    }
    here.gateway.agent()?.signal(Signal::SIGCONT)?;
    if daemon != Daemon::Gobgp {
        // The router cannot have answered: it is for us to decide, by the identifiers. But when the
        // router's OPEN comes to us before the news that our own connection is up, then nothing was
        // said on that one, and it is given up.
        here.await_connections("gw", "ESTAB", 1)?;
        let routers_is_left = here.router_connected()?;
        match opens_of(plan::GATEWAY4, &capture) {
            1 => assert!(routers_is_left),
            _ => assert_eq!(routers_is_left, routers_is_kept),
        }
        here.router().thaw()?;
    }
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

/// How many OPENs this side has sent.
fn opens_of(side: Ipv4Addr, capture: &Capture) -> usize {
    let messages = messages(&capture.so_far());
    let theirs = |message: &&Message| message.kind == OPEN && message.from == side;
    messages.iter().filter(theirs).count()
}

/// Ends with two connections, and both sides held.
fn connect_both(
    lab: &Lab,
    daemon: Daemon,
    router_id: Ipv4Addr,
) -> Result<(Encounter, Capture), Failure> {
    let terms = Terms {
        // One attempt each: the SYN is sent again by the kernel.
        neighbour: |neighbour| neighbour.connect_retry = 20,
        peer: |peer| peer.connect_retry = 20.0,
        ..Terms::default()
    };
    let mut here = Encounter::arrange(lab, &[daemon], terms)?;
    here.gateway.config.bgp.router_id = router_id;
    let macs = [
        here.region.gateway().link(IDC)?.mac,
        here.region.router_node(ROUTER)?.link(IDC)?.mac,
    ];
    let [Some(gateway), Some(router)] = macs else {
        return Err("a veth without a MAC".into());
    };
    let capture = here.capture()?;
    point_at(&mut here, NOWHERE, NOWHERE)?;
    here.start()?;
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
    point_at(&mut here, router, gateway)?;
    for node in ["gw", ROUTER] {
        here.await_connections(node, "ESTAB", 2)?;
    }
    Ok((here, capture))
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
