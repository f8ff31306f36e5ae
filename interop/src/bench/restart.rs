//! `bench restart`: how many packets are lost while the agent ends, comes back, or changes.
//!
//! The small region of `fixtures/` with a BIRD router; numbered packets run between a classic host and a
//! VM, half of the rate each way, and every number that does not arrive is a lost packet. What found the
//! receiver's own queue full was carried there and is told apart. Each run begins with packets that pass
//! and ends when the agent has heard its router again and packets have gone on passing.
//!
//! `stop` and `kill` end the agent by SIGTERM and SIGKILL and start it again. `upgrade` ends it and starts
//! one that finds another version of the maps' layout than its own, so that it loads its programs, fills
//! new maps beside the old, and puts the one in the place of the other. `reload` is a change of the
//! configuration by `ccn reload`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use ccn::plane::ebpf::layout::LAYOUT_VERSION;
use clap::{Args, ValueEnum};

use super::Failure;
use super::report::{Case, Report};
use crate::enter::Lab;
use crate::scene::{OFFICE, SOON, Scene};
use crate::topology::plan;
use crate::traffic::numbered::{self, Flow, Origin, Receiver};

/// Where the agent pins its maps.
const PINS: &str = "/sys/fs/bpf/ccn";
/// A version of the layout that no agent has.
const OTHER_LAYOUT: &str = "v0";
/// For how long packets pass before and after what happens.
const AROUND: Duration = Duration::from_millis(200);
const PORT: u16 = 7000;

/// What happens to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Event {
    /// SIGTERM, and a new start
    Stop,
    /// SIGKILL, and a new start
    Kill,
    /// The end of one version, and the start of another
    Upgrade,
    /// A changed configuration
    Reload,
}

impl Event {
    const ALL: [Event; 4] = [Event::Stop, Event::Kill, Event::Upgrade, Event::Reload];

    fn name(self) -> &'static str {
        match self {
            Event::Stop => "stop",
            Event::Kill => "kill",
            Event::Upgrade => "upgrade",
            Event::Reload => "reload",
        }
    }
}

/// What to run.
#[derive(Debug, Args)]
pub struct Options {
    /// A small run that finishes within a minute: 5 runs of 20,000 packets a second
    #[arg(long)]
    quick: bool,
    /// Runs of each event [default: 100]
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Packets a second, both ways together [default: 100000]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// stop, kill, upgrade, reload [default: all]
    #[arg(long, value_delimiter = ',', value_name = "EVENT")]
    events: Vec<Event>,
    /// The gateway's plane; only `ebpf` is upgraded
    #[arg(long, default_value = "ebpf", value_name = "PLANE")]
    plane: String,
}

/// Runs it.
///
/// # Errors
/// The lab cannot be made, or the agent does not come back.
pub fn run(options: &Options, lab: &Lab, report: &mut Report) -> Result<(), Failure> {
    let runs = options.runs.unwrap_or(if options.quick { 5 } else { 100 });
    let rate = options
        .rate
        .unwrap_or(if options.quick { 20_000 } else { 100_000 });
    let events = match options.events.as_slice() {
        [] => &Event::ALL[..],
        some => some,
    };
    let mut scene = Scene::start_with(lab, 1, |config| config.plane.kind = options.plane.clone())?;
    scene.link("web", "office", &OFFICE)?;
    let mut sent = vec![(0, Duration::ZERO); events.len()];
    for run in 1..=runs {
        for (&event, sent) in events.iter().zip(&mut sent) {
            report.progress(&format!("{}, run {run} of {runs}", event.name()));
            let told = once(&mut scene, event, rate)?;
            let case = case(event, rate);
            report.add(case, "ours", told.lost as f64);
            if told.lost > 0 {
                report.note(case, "ours", &format!("run {run}: {}", told.what));
            }
            *sent = (sent.0 + told.sent, sent.1 + told.took);
        }
    }
    for (&event, (sent, took)) in events.iter().zip(sent) {
        let a_second = sent as f64 / took.as_secs_f64();
        let note = format!("{sent} sent, {a_second:.0} a second");
        report.note(case(event, rate), "ours", &note);
    }
    Ok(())
}

fn case(event: Event, rate: u32) -> Case<'static> {
    Case {
        name: event.name(),
        n: rate as usize,
        unit: "lost",
    }
}

/// What one run came to.
struct Told {
    lost: u64,
    sent: u64,
    took: Duration,
    what: String,
}

fn once(scene: &mut Scene, event: Event, rate: u32) -> Result<Told, Failure> {
    let (host, vm) = (
        scene.region.namespace("alice")?,
        scene.region.namespace("web-1@web")?,
    );
    let (outside, inside): (SocketAddr, SocketAddr) = (
        format!("10.80.1.10:{PORT}").parse()?,
        format!("10.1.0.11:{PORT}").parse()?,
    );
    let (at_host, at_vm) = (
        Receiver::open(&host, outside)?,
        Receiver::open(&vm, inside)?,
    );
    let start = |origin: &Origin<'_>, to| Flow::start(origin, to, rate / 2);
    let flows = [
        ("to the VM", start(&Origin::new(&host), inside)?, &at_vm),
        (
            "from the VM",
            start(&Origin::new(&vm).from(inside.ip()), outside)?,
            &at_host,
        ),
    ];
    let pass = || {
        let more = u64::from(rate / 2) * AROUND.as_millis() as u64 / 1000;
        numbered::pass(flows.iter().map(|(_, flow, at)| (flow, *at)), more, SOON)
    };
    let began = Instant::now();
    pass()?;
    happen(scene, event)?;
    pass()?;
    let mut told = Told {
        lost: 0,
        sent: 0,
        took: began.elapsed(),
        what: String::new(),
    };
    for (way, flow, at) in flows {
        let report = flow.stop(at);
        told.sent += report.sent;
        told.lost += report.lost().saturating_sub(report.overruns);
        told.what += &format!("{way}: {report}; ");
    }
    Ok(told)
}

/// Has it happen, and waits until the agent is where it was.
fn happen(scene: &mut Scene, event: Event) -> Result<(), Failure> {
    match event {
        Event::Reload => {
            // A setting that changes no session.
            for peer in &mut scene.gateway.config.bgp.peer {
                peer.idle_hold_max += 1.0;
            }
            scene.gateway.reload()?;
        }
        Event::Kill => scene.gateway.kill()?,
        Event::Stop => scene.gateway.stop()?,
        Event::Upgrade => {
            scene.gateway.stop()?;
            for device in fs::read_dir(PINS).into_iter().flatten() {
                age(&device?.path())?;
            }
        }
    }
    if event != Event::Reload {
        scene.gateway.start()?;
    }
    for router in &scene.routers {
        router.await_established(plan::GATEWAY4.into(), SOON)?;
    }
    scene.gateway.await_settled(SOON)?;
    Ok(())
}

/// Makes the maps of a device those of another version.
fn age(device: &Path) -> Result<(), Failure> {
    let ours = device.join(format!("v{LAYOUT_VERSION}"));
    Ok(fs::rename(ours, device.join(OTHER_LAYOUT))?)
}
