//! `bench failover`: how many packets are lost while a gateway is gone with a partner beside it, or a router starts
//! again; with BFD (50 ms x 3) between router and gateways, and without.
//!
//! The small region of `fixtures/` with one BIRD router and two gateways that serve the same link. Numbered packets
//! of many flows go from a classic host to a VM: the router spreads them over both gateways. `gateway-power-off`
//! takes the first gateway's interfaces away and kills its agent in the same moment: nothing is said to anybody,
//! and the router's own interface stays up. Counted is every packet of the router's flows that does not arrive until
//! all of them pass again; without BFD that lasts for the hold time, [`HOLD_TIME`]. `router-restart` kills the router's BIRD
//! and starts it again. The gateways keep its routes by graceful restart (RFC 4724); BIRD itself, started as it is
//! here, takes its routes out of the kernel first and has them back when it has heard the gateways, and that is
//! what is lost.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Failure;
use super::report::{Case, Report};
use crate::enter::Lab;
use crate::gateway::Gateway;
use crate::peer::BfdTerms;
use crate::process::Launch;
use crate::scene::{SOON, Scene};
use crate::topology::{hypervisor, plan};
use crate::traffic::numbered::{self, Flow, Origin, Receiver};
use crate::wait::eventually;

/// Flows from the classic host to the VM: the router's kernel spreads them by port.
const FLOWS: u16 = 16;
const PORT: u16 = 7000;
/// What is agreed on with the router, in seconds.
const HOLD_TIME: u16 = 9;
/// For how long all flows must pass before and after what happens.
const AROUND: Duration = Duration::from_millis(300);

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Event {
    /// One of two gateways is gone without a word
    GatewayPowerOff,
    /// The router's daemon is killed and starts again
    RouterRestart,
}

impl Event {
    const ALL: [Event; 2] = [Event::GatewayPowerOff, Event::RouterRestart];

    fn name(self) -> &'static str {
        match self {
            Event::GatewayPowerOff => "gateway-power-off",
            Event::RouterRestart => "router-restart",
        }
    }
}

/// What to run.
#[derive(Debug, Args)]
pub struct Options {
    /// A small run that finishes within a minute: one round of 2,000 packets a second
    #[arg(long)]
    quick: bool,
    /// Packets a second of all flows together [default: 16000; with --quick: 1600]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// gateway-power-off, router-restart [default: both]
    #[arg(long, value_delimiter = ',', value_name = "EVENT")]
    events: Vec<Event>,
    /// The gateways' plane: routes, ebpf
    #[arg(long, default_value = "ebpf", value_name = "PLANE")]
    plane: String,
    /// Rounds [default: 3; with --quick: 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
}

/// Runs it.
///
/// # Errors
/// The lab cannot be made, or packets do not pass again.
pub fn run(options: &Options, lab: &Lab, report: &mut Report) -> Result<(), Failure> {
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 3 });
    let rate = options
        .rate
        .unwrap_or(if options.quick { 1_600 } else { 16_000 });
    let events = match options.events.as_slice() {
        [] => &Event::ALL[..],
        some => some,
    };
    for round in 1..=rounds {
        for &event in events {
            for (subject, bfd) in [("bfd", true), ("no-bfd", false)] {
                report.progress(&format!("{} {subject}, round {round}", event.name()));
                let told = once(lab, event, bfd, rate, &options.plane)?;
                let case = Case {
                    name: event.name(),
                    n: rate as usize,
                    unit: "lost",
                };
                report.add(case, subject, told.lost as f64);
                let Told { sent, gap, .. } = told;
                let note = format!("round {round}: of {sent}, longest gap of a flow {gap:?}");
                report.note(case, subject, &note);
            }
        }
    }
    Ok(())
}

/// What one run came to.
struct Told {
    lost: u64,
    sent: u64,
    gap: Duration,
}

fn once(lab: &Lab, event: Event, bfd: bool, rate: u32, plane: &str) -> Result<Told, Failure> {
    // Each run begins with gateways that know of nothing.
    for name in ["gw", "gw2"] {
        match std::fs::remove_dir_all(lab.run().join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let (mut scene, mut partner) = Scene::start_pair_with(
        lab,
        |config| {
            config.plane.kind = plane.to_owned();
            for peer in &mut config.bgp.peer {
                peer.more.insert("bfd".to_owned(), bfd.into());
            }
        },
        |router| {
            for neighbour in &mut router.neighbours {
                neighbour.bfd = bfd.then(BfdTerms::new);
                neighbour.hold_time = HOLD_TIME;
            }
        },
    )?;
    for gateway in [&scene.gateway, &partner] {
        gateway.ccn(["link", "web", "--classic", "office"])?;
    }
    scene.await_spread(2)?;
    if bfd {
        for address in [plan::GATEWAY4, plan::PARTNER4] {
            let router = &scene.routers[0];
            eventually("BFD is up", SOON, || match router.bfd(address.into()) {
                Ok(bgp::bfd::State::Up) => Ok(()),
                other => Err(format!("{other:?}")),
            })?;
        }
    }

    let (host, vm) = (
        scene.region.namespace("alice")?,
        scene.region.namespace("web-1@web")?,
    );
    let inside: IpAddr = "10.1.0.11".parse()?;
    let mut flows = Vec::new();
    for number in 0..FLOWS {
        let at = SocketAddr::new(inside, PORT + number);
        let receiver = Receiver::open(&vm, at)?;
        let flow = Flow::start(&Origin::new(&host), at, rate / u32::from(FLOWS))?;
        flows.push((flow, receiver));
    }
    let pass = || {
        let more = u64::from(rate / u32::from(FLOWS)) * AROUND.as_millis() as u64 / 1000;
        numbered::pass(flows.iter().map(|(flow, at)| (flow, at)), more, SOON)
    };
    pass()?;
    match event {
        Event::GatewayPowerOff => power_off(&mut scene)?,
        Event::RouterRestart => restart_router(&mut scene, &partner)?,
    }
    pass()?;
    let mut told = Told {
        lost: 0,
        sent: 0,
        gap: Duration::ZERO,
    };
    for (flow, at) in flows {
        let report = flow.stop(&at);
        told.sent += report.sent;
        told.lost += report.lost().saturating_sub(report.overruns);
        told.gap = told.gap.max(report.longest_gap);
    }
    if event == Event::RouterRestart {
        scene.gateway.stop()?;
    }
    partner.stop()?;
    for gateway in [&scene.gateway, &partner] {
        gateway.remove_plane()?;
    }
    Ok(told)
}

/// The first gateway is gone: no packet in or out, and nobody who could say so.
fn power_off(scene: &mut Scene) -> Result<(), Failure> {
    let namespace = scene.region.gateway().namespace().clone();
    for interface in [crate::topology::IDC, hypervisor::UNDERLAY] {
        let down = Launch::new("ip").args(["link", "set", "dev", interface, "down"]);
        down.in_namespace(namespace.fd()).output(SOON)?;
    }
    scene.gateway.kill()?;
    Ok(scene.await_spread(1)?)
}

/// The router's BIRD is killed and starts again.
fn restart_router(scene: &mut Scene, partner: &Gateway) -> Result<(), Failure> {
    let router = &mut scene.routers[0];
    router.kill();
    router.start()?;
    for address in [plan::GATEWAY4, plan::PARTNER4] {
        router.await_established(address.into(), SOON)?;
    }
    for gateway in [&scene.gateway, partner] {
        gateway.await_settled(SOON)?;
    }
    Ok(scene.await_spread(2)?)
}
