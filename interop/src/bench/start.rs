//! `bench start`: an agent that starts with a whole region in its store, until its peer has every route;
//! and the memory that a VM costs it.
//!
//! The store is filled beforehand, by this program. Each round begins with a kernel that holds nothing of
//! ours. `cold-start` is from the start of the process to the last UPDATE at a peer that is there before;
//! `cold-start/PHASE` is what the agent says of its parts, in `ccn status`. `warm-start` is the same with
//! the kernel as the first agent left it. `agent-bytes-per-vm` is the resident memory of the settled
//! agent, less that of one whose store is empty, divided by the VMs; the note names the parts of both.
//! The region is that of `ccn fixture`, without SLBs unless they are asked for, and eight VPCs are linked.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ccn::fixture::{self, FixtureSpec};
use ccn::store::embedded::EmbeddedStore;
use ccn::store::{Change, Precondition, Store};
use clap::Args;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::Failure;
use super::line::{Identity, Line, SessionId};
use super::prefix_set::PrefixId;
use super::report::{Case, Report};
use crate::enter::Lab;
use crate::gateway::{Gateway, PeerSection};
use crate::peer::Daemon;
use crate::process::Process;
use crate::topology::{Region, RegionConfig, RouterPlan, plan};

/// How long a start may take.
const START: Duration = Duration::from_secs(240);
/// How long an agent may take to end.
const STOP: Duration = Duration::from_secs(30);
/// Records of one commit while the store is filled.
const COMMIT: usize = 50_000;
/// VPCs that are linked: those of the first CCSI.
const LINKED: usize = 8;
/// The peer of the agent: its number on the IDC LAN, and its AS.
const PEER: (u8, u32) = (2, 65_002);
/// VPCs and hosts, as in DESIGN's promise of what one gateway serves.
const VPCS: u64 = 4_096;
const HOSTS: u64 = 10_000;

/// What to run.
#[derive(Debug, Args)]
pub struct Options {
    /// A small run that finishes within seconds: shows that all of it works
    #[arg(long)]
    quick: bool,
    /// VMs [default: 1000000; with --quick: 1000]
    #[arg(long, value_delimiter = ',', value_name = "N")]
    sizes: Vec<u64>,
    /// With an SLB for every 64 VMs
    #[arg(long)]
    slbs: bool,
    /// The agent's plane: routes, ebpf
    #[arg(long, default_value = "ebpf", value_name = "PLANE")]
    plane: String,
    /// Rounds [default: 3; with --quick: 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
}

/// Runs it.
///
/// # Errors
/// The agent does not start, or does not announce everything.
pub fn run(options: &Options, lab: &Lab, report: &mut Report) -> Result<(), Failure> {
    let sizes = match (options.sizes.as_slice(), options.quick) {
        ([], false) => vec![1_000_000],
        ([], true) => vec![1_000],
        (some, _) => some.to_vec(),
    };
    let mut stage = Stage::build(lab, &options.plane)?;
    for vms in sizes {
        let file = lab.scratch().join(format!("region-{vms}.redb"));
        report.progress(&format!("filling a store with {vms} VMs"));
        let expected = fill(&file, vms, options.slbs)?;
        for round in 1..=options.rounds.unwrap_or(if options.quick { 1 } else { 3 }) {
            report.progress(&format!("{vms} VMs, round {round}"));
            stage.measure(&file, &expected, vms, report)?;
        }
    }
    Ok(())
}

/// Makes a store with a region of so many VMs; the IPv4 prefixes that an agent will announce.
fn fill(file: &Path, vms: u64, slbs: bool) -> Result<Vec<PrefixId>, Failure> {
    let mut changes = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let store = EmbeddedStore::open(file)?;
    let commit = |changes: &mut Vec<Change>| {
        let changes = std::mem::take(changes);
        runtime.block_on(store.commit(changes, Precondition::Any))
    };
    let announced = each_record(vms, slbs, |key, value| {
        changes.push(put(key, value));
        if changes.len() >= COMMIT {
            commit(&mut changes)?;
        }
        Ok(())
    })?;
    commit(&mut changes)?;
    Ok(announced)
}

/// Hands over every record of a region of so many VMs, of which eight VPCs are linked; the IPv4 prefixes that an agent
/// will announce.
pub(super) fn each_record(
    vms: u64,
    slbs: bool,
    mut take: impl FnMut(&str, &Value) -> Result<(), Failure>,
) -> Result<Vec<PrefixId>, Failure> {
    let spec = FixtureSpec {
        vms,
        vpcs: VPCS.min(vms) as u32,
        hosts: HOSTS.min(vms) as u32,
        seed: 1,
    };
    let mut announced = Vec::new();
    for line in fixture::generate(&spec)? {
        let line: Value = serde_json::from_str(&line)?;
        let key = line["key"].as_str().unwrap_or_default();
        if key.starts_with("slbs/") && !slbs {
            continue;
        }
        take(key, &line["value"])?;
        if let Some(vpc) = key.strip_prefix("vpcs/")
            && announced.len() < LINKED
        {
            let link = json!({ "vpc": vpc, "classic": ["idc-0"] });
            take(&format!("links/{vpc}"), &link)?;
            announced.push(ipv4_subnet(&line["value"])?);
        }
    }
    Ok(announced)
}

fn put(key: &str, value: &Value) -> Change {
    Change::Put {
        key: key.to_owned(),
        value: value.to_string().into(),
    }
}

pub(super) fn ipv4_subnet(vpc: &Value) -> Result<PrefixId, Failure> {
    let subnets = vpc["subnets"].as_array().into_iter().flatten();
    let mut subnets = subnets.filter_map(|subnet| subnet.as_str()?.parse::<ipnet::Ipv4Net>().ok());
    let subnet = subnets.next().ok_or("a VPC without an IPv4 subnet")?;
    Ok(PrefixId::new(subnet.network(), subnet.prefix_len()))
}

/// The gateway and its peer.
pub(super) struct Stage {
    pub(super) region: Region,
    pub(super) gateway: Gateway,
    peer: Identity,
    empty: PathBuf,
}

impl Stage {
    pub(super) fn build(lab: &Lab, plane: &str) -> Result<Stage, Failure> {
        let mut region = Region::build(lab, RegionConfig::default())?;
        let (number, asn) = PEER;
        let plan = RouterPlan {
            daemon: Daemon::Bird,
            name: "peer",
            number,
            asn,
            lans: &[],
        };
        let router = region.add_router(lab, &plan, |_| {})?;
        let mut section = PeerSection::of(router.config());
        section.passive = true;
        // Nobody serves the session while the agent is settling.
        section.hold_time = 0;
        let namespace = region.gateway().namespace().clone();
        let mac = region.gateway_address().mac;
        let mut gateway = Gateway::new(lab, namespace, mac, [section])?;
        gateway.config.plane.kind = plane.to_owned();
        let peer = Identity {
            name: "peer".to_owned(),
            address: plan::idc4(number),
            asn,
        };
        let empty = lab.scratch().join("empty.redb");
        Ok(Stage {
            region,
            gateway,
            peer,
            empty,
        })
    }

    /// A round: an agent with an empty store, one with the region, and the same again.
    fn measure(
        &mut self,
        file: &Path,
        expected: &[PrefixId],
        vms: u64,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let empty = self.empty.clone();
        let baseline = self.start(&empty, &[])?;
        self.leave(baseline.agent)?;
        let cold = self.start(file, expected)?;
        // Its state stays in the kernel.
        cold.agent.stop(Signal::SIGTERM, STOP)?;
        let warm = self.start(file, expected)?;
        self.leave(warm.agent)?;

        let mut add = |name: &str, unit: &'static str, value: f64| {
            let n = vms as usize;
            report.add(Case { name, n, unit }, "ours", value);
        };
        for (name, start) in [("cold-start", &cold.told), ("warm-start", &warm.told)] {
            add(name, "s", start.seconds);
            for (phase, seconds) in &start.phases {
                add(&format!("{name}/{phase}"), "s", *seconds);
            }
        }
        let (with, without) = (&cold.told.memory, &baseline.told.memory);
        let more = with.resident.saturating_sub(without.resident);
        let each = more as f64 / vms as f64;
        add("agent-bytes-per-vm", "bytes", each);
        add("agent-peak-bytes-per-vm", "bytes", {
            with.peak.saturating_sub(without.resident) as f64 / vms as f64
        });
        let case = Case {
            name: "agent-bytes-per-vm",
            n: vms as usize,
            unit: "bytes",
        };
        report.note(
            case,
            "ours",
            &format!("{with}, {without} with an empty store"),
        );
        Ok(())
    }

    /// [`Stage::begin`], with this embedded store.
    fn start(&mut self, store: &Path, expected: &[PrefixId]) -> Result<Started, Failure> {
        self.gateway.config.store.path = store.to_owned();
        self.begin(expected)
    }

    /// Starts an agent, and waits until the peer has these prefixes and all is settled.
    pub(super) fn begin(&mut self, expected: &[PrefixId]) -> Result<Started, Failure> {
        let launch = self.gateway.launch_agent()?;
        let log = self.gateway.log().to_owned();
        let namespace = self.region.namespace("peer")?;
        let to = SocketAddr::from((plan::GATEWAY4, 179));
        let began = Instant::now();
        let agent = launch.start(&log)?;
        let mut line = Line::default();
        let peer = std::slice::from_ref(&self.peer);
        let (ids, _) = line.establish(&namespace, peer, to, START)?;
        line.run("all prefixes", START, |line| {
            let present = &line.tally(ids[0]).present;
            expected.iter().all(|prefix| present.contains(*prefix))
        })?;
        let last = line.tally(ids[0]).last.unwrap_or_else(Instant::now);
        self.gateway.await_settled(START)?;
        let status = self.gateway.json(["status"])?;
        let phases = status["start"]["phases"].as_array().into_iter().flatten();
        let phases = phases.filter_map(|phase| {
            let name = phase["phase"].as_str()?;
            Some((name.to_owned(), phase["seconds"].as_f64()?))
        });
        let told = Told {
            seconds: (last - began).as_secs_f64(),
            phases: phases.collect(),
            memory: Memory::of(agent.id())?,
        };
        Ok(Started {
            agent,
            told,
            line,
            sink: ids[0],
        })
    }

    /// Ends an agent and takes everything out of the kernel.
    pub(super) fn leave(&mut self, agent: Process) -> Result<(), Failure> {
        agent.stop(Signal::SIGTERM, STOP)?;
        Ok(self.gateway.remove_plane()?)
    }
}

/// An agent that runs, and what was seen of its start.
pub(super) struct Started {
    pub(super) agent: Process,
    pub(super) told: Told,
    /// The session with the peer, which nobody serves meanwhile.
    pub(super) line: Line,
    pub(super) sink: SessionId,
}

pub(super) struct Told {
    pub(super) seconds: f64,
    pub(super) phases: Vec<(String, f64)>,
    pub(super) memory: Memory,
}

/// Resident memory of a process, in octets.
pub(super) struct Memory {
    pub(super) resident: u64,
    peak: u64,
    /// Its own, without what it shares with files and the kernel's maps.
    anonymous: u64,
}

impl Memory {
    pub(super) fn of(process: u32) -> Result<Memory, Failure> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let field = |label: &str| -> Result<u64, Failure> {
            let line = status.lines().find_map(|line| line.strip_prefix(label));
            let line = line.ok_or_else(|| format!("no {label} in /proc/{process}/status"))?;
            let number = line.split_whitespace().next().unwrap_or_default();
            Ok(number.parse::<u64>()? * 1024)
        };
        Ok(Memory {
            resident: field("VmRSS:")?,
            peak: field("VmHWM:")?,
            anonymous: field("RssAnon:")?,
        })
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mb = |octets: u64| octets as f64 / 1e6;
        write!(
            f,
            "{:.1} MB ({:.1} anonymous, {:.1} at most)",
            mb(self.resident),
            mb(self.anonymous),
            mb(self.peak)
        )
    }
}
