//! `bench link-latency`: one route, from the command to the last octet of its UPDATE at the peer.
//!
//! Ours is `ccn link` on a running agent that holds all the VMs of a region; the others are daemons
//! with nothing else to do, told by their own command lines. The clock starts right before the command
//! is started and stops when the peer has read the UPDATE. Between two changes everything is quiet.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use clap::Args;
use netlink::{Mac, Namespace};
use serde_json::Value;

use super::Failure;
use super::bgp::Stage;
use super::line::{Identity, Line, LineError, SessionId};
use super::prefix_set::PrefixId;
use super::report::{Case, Report, percentile};
use super::subject::{self, Subject};
use crate::enter::Lab;
use crate::gateway::{Gateway, PeerSection};
use crate::peer::Daemon;
use crate::topology::{Region, RegionConfig, RouterPlan, plan};

/// How long one change may take.
const CHANGE: Duration = Duration::from_secs(30);
/// How long a region may take until the agent has it, and its plane what it takes of it.
const LOAD: Duration = Duration::from_secs(240);
/// VPCs of the region: fewer than the `routes` plane takes.
const VPCS: u32 = 200;
/// A classic network of the region, of both families, and its IPv4 prefix.
const CLASSIC: &str = "idc-0";
const CLASSIC4: &str = "192.168.0.0/24";
/// The peer of the agent: its number on the IDC LAN, and its AS.
const PEER: (u8, u32) = (2, 65_002);
/// The first prefix that the daemons are told to originate; the others follow it.
const FIRST: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);

/// What to run.
#[derive(Debug, Args)]
pub struct Options {
    /// A small run that finishes within a minute: shows that all of it works
    #[arg(long)]
    quick: bool,
    /// ours, gobgp, bird, frr, openbgpd [default: the first four]
    #[arg(long, value_delimiter = ',', value_name = "SUBJECT")]
    subjects: Vec<Who>,
    /// VMs that the agent holds [default: 100000; with --quick: 1000]
    #[arg(long, value_name = "N")]
    vms: Option<usize>,
    /// Changes a round [default: 200; with --quick: 5]
    #[arg(long, value_name = "N")]
    changes: Option<usize>,
    /// Rounds, each with every subject [default: 3; with --quick: 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Who {
    Ours,
    Gobgp,
    Bird,
    Frr,
    Openbgpd,
}

impl Options {
    fn changes(&self) -> usize {
        self.changes.unwrap_or(if self.quick { 5 } else { 200 })
    }
}

/// Runs it.
///
/// # Errors
/// A subject cannot be run, or a change does not arrive.
pub fn run(options: &Options, lab: &Lab, report: &mut Report) -> Result<(), Failure> {
    let all = [Who::Ours, Who::Gobgp, Who::Bird, Who::Frr];
    let subjects = match options.subjects.as_slice() {
        [] => &all[..],
        some => some,
    };
    let vms = options
        .vms
        .unwrap_or(if options.quick { 1_000 } else { 100_000 });
    let mut agent = match subjects.contains(&Who::Ours) {
        true => {
            report.progress(&format!("loading {vms} VMs into the agent"));
            Some(Agent::start(lab, vms)?)
        }
        false => None,
    };
    let stage = Stage::build(lab)?;
    for round in 1..=options.rounds.unwrap_or(if options.quick { 1 } else { 3 }) {
        for who in subjects {
            report.progress(&format!("{who:?}, round {round}"));
            let subject = match who {
                Who::Ours => {
                    if let Some(agent) = &mut agent {
                        agent.measure(options.changes(), vms, report)?;
                    }
                    continue;
                }
                Who::Gobgp => Subject::Gobgp,
                Who::Bird => Subject::Bird,
                Who::Frr => Subject::Frr,
                Who::Openbgpd => Subject::Openbgpd,
            };
            let seconds = of_daemon(&stage, &subject, options.changes())?;
            add(report, &subject.to_string(), vms, "", &seconds);
        }
    }
    match agent {
        Some(agent) => agent.leave(),
        None => Ok(()),
    }
}

fn add(report: &mut Report, subject: &str, vms: usize, suffix: &str, seconds: &[f64]) {
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let name = format!("{name}{suffix}");
        let case = Case {
            name: &name,
            n: vms,
            unit: "s",
        };
        if let Some(value) = percentile(seconds, share) {
            report.add(case, subject, value);
        }
    }
}

/// The latencies of a daemon: each change originates a prefix, which is taken back afterwards.
fn of_daemon(stage: &Stage, subject: &Subject, changes: usize) -> Result<Vec<f64>, Failure> {
    let mut running = stage.start(subject)?;
    let mut line = Line::default();
    let (ids, _) = stage.establish(&mut line, &subject::sinks()[..1])?;
    // FRR does nothing for a second after a session is established.
    quiet(&mut line, Duration::from_secs(3))?;
    let mut seconds = Vec::new();
    for number in 0..changes {
        let prefix = PrefixId::new(
            Ipv4Addr::from_bits(FIRST.to_bits() + ((number as u32) << 8)),
            24,
        );
        for announced in [true, false] {
            let prepared = running.change(prefix, announced)?;
            line.watch(ids[0], prefix);
            let began = Instant::now();
            let mut order = running.carry_out(prepared)?;
            let came = await_change(&mut line, ids[0], prefix, announced)?;
            if announced {
                seconds.push((came - began).as_secs_f64());
            }
            await_end(&mut line, || Ok(order.has_ended()?))?;
        }
    }
    Ok(seconds)
}

/// Waits until the prefix has come or gone; when that was.
pub(super) fn await_change(
    line: &mut Line,
    sink: SessionId,
    prefix: PrefixId,
    announced: bool,
) -> Result<Instant, LineError> {
    let what = format!(
        "{prefix} {}",
        if announced { "announced" } else { "withdrawn" }
    );
    line.run(&what, CHANGE, |line| {
        line.tally(sink).present.contains(prefix) == announced
    })?;
    Ok(line.tally(sink).last.unwrap_or_else(Instant::now))
}

/// Serves the line until a command has ended, and then until nothing has come for a while.
pub(super) fn await_end(
    line: &mut Line,
    mut has_ended: impl FnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut ended = Ok(false);
    line.run("the end of the command", CHANGE, |_| {
        ended = has_ended();
        !matches!(ended, Ok(false))
    })?;
    ended?;
    Ok(quiet(line, Duration::from_millis(20))?)
}

fn quiet(line: &mut Line, time: Duration) -> Result<(), LineError> {
    let began = Instant::now();
    line.run("quiet", CHANGE, |_| began.elapsed() >= time)
}

/// The agent with a region, and its peer.
struct Agent {
    _region: Region,
    gateway: Gateway,
    line: Line,
    sink: SessionId,
    vpc: String,
    prefix: PrefixId,
}

impl Agent {
    fn start(lab: &Lab, vms: usize) -> Result<Agent, Failure> {
        let mut region = Region::build(lab, RegionConfig::default())?;
        let (number, asn) = PEER;
        let router = region.add_router(
            lab,
            &RouterPlan {
                daemon: Daemon::Bird,
                name: "peer",
                number,
                asn,
                lans: &[],
            },
            |_| {},
        )?;
        let mut section = PeerSection::of(router.config());
        section.passive = true;
        // Nobody serves the session while others are measured.
        section.hold_time = 0;
        let namespace = region.gateway().namespace().clone();
        let mac: Mac = region.gateway_address().mac;
        let mut gateway = Gateway::new(lab, namespace, mac, [section])?;
        gateway.config.bgp.drain_ms = 0;
        gateway.start()?;
        let vpcs = VPCS.min(vms as u32);
        let (vms, vpcs) = (vms.to_string(), vpcs.to_string());
        let records = gateway.ccn(["fixture", "--vms", &vms, "--vpcs", &vpcs, "--hosts", "100"])?;
        let file = lab.scratch().join("region.jsonl");
        std::fs::write(&file, records)?;
        gateway.ccn(["import".as_ref(), file.as_os_str()])?;
        let (line, sink) = peer(router.namespace(), number, asn)?;
        let mut agent = Agent {
            _region: region,
            gateway,
            line,
            sink,
            vpc: "vpc-0000".to_owned(),
            prefix: PrefixId::new(Ipv4Addr::UNSPECIFIED, 0),
        };
        agent.await_loaded()?;
        agent.prefix = agent.subnet()?;
        Ok(agent)
    }

    /// Waits until the agent has dealt with all records. The plane may have refused some: it is small.
    fn await_loaded(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + LOAD;
        loop {
            quiet(&mut self.line, Duration::from_millis(500))?;
            let status = self.gateway.json(["status"])?;
            let done = status["generation"] == status["acknowledged"];
            if done && status["generation"] != Value::Null {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("the agent did not take the region: {status}").into());
            }
        }
    }

    /// The IPv4 subnet of the VPC that is linked.
    fn subnet(&self) -> Result<PrefixId, Failure> {
        let vpcs = self.gateway.json(["vpcs"])?;
        let subnets = vpcs.as_array().into_iter().flatten();
        let subnets = subnets.filter(|vpc| vpc["vpc"] == self.vpc.as_str());
        let mut subnets = subnets
            .filter_map(|vpc| vpc["subnets"].as_array())
            .flatten();
        let subnet = subnets.find_map(|subnet| subnet.as_str()?.parse::<ipnet::Ipv4Net>().ok());
        let subnet = subnet.ok_or_else(|| format!("no IPv4 subnet of {} in {vpcs}", self.vpc))?;
        Ok(PrefixId::new(subnet.network(), subnet.prefix_len()))
    }

    /// `ours`: `ccn link` to an IPv4 prefix, one route as with the others. `/socket`: what `ccn link`
    /// posts to the admin socket, posted by the bench: what is left of the command without the start
    /// of a program. `/both`: the command with a network of both families, so two routes, until the
    /// IPv4 one has come.
    fn measure(&mut self, changes: usize, vms: usize, report: &mut Report) -> Result<(), Failure> {
        let (mut by_command, mut by_socket, mut both) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..changes {
            by_command.push(self.by_command(CLASSIC4)?);
            by_socket.push(self.by_socket(CLASSIC4)?);
            both.push(self.by_command(CLASSIC)?);
        }
        add(report, "ours", vms, "", &by_command);
        add(report, "ours", vms, "/socket", &by_socket);
        add(report, "ours", vms, "/both", &both);
        Ok(())
    }

    fn by_command(&mut self, classic: &str) -> Result<f64, Failure> {
        let log = self.gateway.log().with_extension("link.log");
        let link = self
            .gateway
            .command(["link", &self.vpc, "--classic", classic]);
        let began = Instant::now();
        let mut process = link.start(&log)?;
        let came = await_change(&mut self.line, self.sink, self.prefix, true)?;
        await_end(&mut self.line, || Ok(subject::has_ended(&mut process)?))?;
        self.unlink()?;
        Ok((came - began).as_secs_f64())
    }

    fn by_socket(&mut self, classic: &str) -> Result<f64, Failure> {
        let order = serde_json::json!({ "vpc": self.vpc, "classic": [classic] });
        let request = post("/v1/links", &order.to_string());
        let mut socket = UnixStream::connect(&self.gateway.config.admin_socket)?;
        let began = Instant::now();
        socket.write_all(request.as_bytes())?;
        let came = await_change(&mut self.line, self.sink, self.prefix, true)?;
        answered(&mut socket)?;
        self.unlink()?;
        Ok((came - began).as_secs_f64())
    }

    fn unlink(&mut self) -> Result<(), Failure> {
        let links = self.gateway.json(["links"])?;
        let names = links.as_array().into_iter().flatten();
        let names: Vec<&str> = names.filter_map(|link| link["link"].as_str()).collect();
        let [name] = names[..] else {
            return Err(format!("one link expected, got {links}").into());
        };
        let log = self.gateway.log().with_extension("unlink.log");
        let mut process = self.gateway.command(["unlink", name]).start(&log)?;
        await_change(&mut self.line, self.sink, self.prefix, false)?;
        await_end(&mut self.line, || Ok(subject::has_ended(&mut process)?))
    }

    /// Takes everything out of the kernel before its namespace goes: routes first.
    fn leave(mut self) -> Result<(), Failure> {
        self.line.close();
        self.gateway.stop()?;
        self.gateway.remove_plane()?;
        Ok(())
    }
}

/// The agent's peer: a session from the router's address.
fn peer(namespace: &Namespace, number: u8, asn: u32) -> Result<(Line, SessionId), LineError> {
    let identity = Identity {
        name: "peer".to_owned(),
        address: plan::idc4(number),
        asn,
    };
    let mut line = Line::default();
    let to = SocketAddr::from((plan::GATEWAY4, 179));
    let (ids, _) = line.establish(namespace, &[identity], to, CHANGE)?;
    Ok((line, ids[0]))
}

/// A request as `ccn` makes it; the connection is closed after the answer.
fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: ccn\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Reads the answer to its end; anything but success is an error.
fn answered(socket: &mut UnixStream) -> Result<(), Failure> {
    socket.set_read_timeout(Some(CHANGE))?;
    let mut answer = String::new();
    socket
        .read_to_string(&mut answer)
        .map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => "the agent did not answer in time".to_owned(),
            _ => error.to_string(),
        })?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(()),
        false => Err(format!("the agent refused the link: {answer}").into()),
    }
}
