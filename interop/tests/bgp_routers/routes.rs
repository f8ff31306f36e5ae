//! Routes in both directions, over every kind of session.

use interop::enter::{Lab, Outcome};
use interop::peer::Daemon;
use interop::topology::plan;
use ipnet::IpNet;

use super::encounter::{Encounter, FIRST, Terms, nets, on_idc};

with_each_router![
    announce_and_withdraw,
    learn_and_forget,
    share_load_of_two_routers,
    four_octet_as,
    ipv6_transport,
    internal_session,
    passive_gateway,
    passive_router,
];

/// Link and unlink are seen at the router, in both families, and disturb nothing.
fn announce_and_withdraw(lab: &Lab, daemon: Daemon) -> Outcome {
    let mut here = Encounter::begin(lab, &[daemon], Terms::default())?;
    here.await_sessions()?;
    let before = here.connection()?;
    for _ in 0..2 {
        here.link()?;
        here.expect_announced()?;
        here.unlink()?;
        here.expect_not_announced()?;
    }
    assert_eq!(here.connection()?, before);
    assert_eq!(here.peer(0)?["sessions"], 1);
    Ok(())
}

/// What the router announces is known and in the kernel, and gone when it is withdrawn.
fn learn_and_forget(lab: &Lab, daemon: Daemon) -> Outcome {
    let mut here = Encounter::begin(lab, &[daemon], Terms::default())?;
    here.await_sessions()?;
    here.expect_learned()?;
    for text in ["198.51.100.0/25", "fd98:1:2::/64"] {
        let net: IpNet = text.parse()?;
        here.router().announce(net)?;
        here.expect_route(net, &[on_idc(FIRST, net)])?;
        here.router().withdraw(net)?;
        here.expect_route(net, &[])?;
    }
    here.expect_learned()
}

/// A prefix that two routers announce has two next hops, as long as both do.
fn share_load_of_two_routers(lab: &Lab, daemon: Daemon) -> Outcome {
    let second = match daemon {
        Daemon::Bird => Daemon::Gobgp,
        Daemon::Gobgp => Daemon::Frr,
        Daemon::Frr | Daemon::Openbgpd | Daemon::Exabgp => Daemon::Bird,
    };
    let terms = Terms {
        // The routes of one that is killed are kept so long.
        neighbour: |neighbour| neighbour.graceful_restart = Some(3),
        ..Terms::default()
    };
    let mut here = Encounter::begin(lab, &[daemon, second], terms)?;
    here.await_sessions()?;
    let both = |net| [on_idc(FIRST, net), on_idc(FIRST + 1, net)];
    for net in nets(FIRST) {
        here.routers[1].announce(net)?;
        here.expect_route(net, &both(net))?;
    }
    for net in nets(FIRST) {
        here.routers[0].withdraw(net)?;
        here.expect_route(net, &both(net)[1..])?;
        here.routers[0].announce(net)?;
        here.expect_route(net, &both(net))?;
    }
    here.routers[1].kill();
    here.expect_learned()
}

fn four_octet_as(lab: &Lab, daemon: Daemon) -> Outcome {
    let terms = Terms {
        gateway_as: 4_200_000_001,
        router_as: 4_200_000_002,
        ..Terms::default()
    };
    let here = Encounter::linked(lab, &[daemon], terms)?;
    assert_eq!(here.peer(0)?["four_octet_as"], true);
    let routes = here.gateway.json(["routes"])?;
    let learned = routes.as_array().into_iter().flatten();
    let paths: Vec<_> = learned
        .filter(|route| route["direction"] == "learned")
        .map(|route| &route["as_path"])
        .collect();
    assert_eq!(paths, ["4200000002"; 2], "{routes}");
    Ok(())
}

/// One session over IPv6 carries both families.
fn ipv6_transport(lab: &Lab, daemon: Daemon) -> Outcome {
    let terms = Terms {
        neighbour: |neighbour| neighbour.address = plan::GATEWAY6.into(),
        peer: |peer| peer.address = plan::idc6(FIRST).into(),
        ..Terms::default()
    };
    let mut here = Encounter::linked(lab, &[daemon], terms)?;
    here.unlink()?;
    here.expect_not_announced()
}

/// Router and gateway are of one AS.
fn internal_session(lab: &Lab, daemon: Daemon) -> Outcome {
    let terms = Terms {
        router_as: plan::GATEWAY_AS,
        ..Terms::default()
    };
    let mut here = Encounter::linked(lab, &[daemon], terms)?;
    assert_eq!(here.peer(0)?["internal"], true);
    here.unlink()?;
    here.expect_not_announced()
}

fn passive_gateway(lab: &Lab, daemon: Daemon) -> Outcome {
    let terms = Terms {
        peer: |peer| peer.passive = true,
        ..Terms::default()
    };
    let here = Encounter::linked(lab, &[daemon], terms)?;
    assert!(here.router_connected()?);
    Ok(())
}

fn passive_router(lab: &Lab, daemon: Daemon) -> Outcome {
    let terms = Terms {
        neighbour: |neighbour| neighbour.passive = true,
        ..Terms::default()
    };
    let here = Encounter::linked(lab, &[daemon], terms)?;
    assert!(!here.router_connected()?);
    Ok(())
}
