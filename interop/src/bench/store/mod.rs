//! `bench store`: a whole region in a cluster's store, and what agents and an API server make of it.
//!
//! A real etcd of one member, with TLS and users, beside the gateway. Subjects are `ours` and `floor`: a client of
//! etcd that does the same with the same records and nothing else (see [`floor`]), on the same machine in turn.
//!
//! - `import`: `ccn import --store-of` of the region, which checks it and writes it; the floor writes the same records
//!   in transactions of 128, eight at a time. Each into an etcd that is new. `import-live` is `ccn import` by way of an
//!   agent, which checks each part beside all that is there, and brings all of it into the kernel meanwhile.
//! - `cold-start`: an agent without a snapshot and with an empty kernel, from its start to the last UPDATE at a peer;
//!   the floor reads all records in pages.
//! - `resync`: an agent that stood still while etcd was restarted, 1,000 VMs moved, and history was compacted: from
//!   its going on until its kernel has the last of them. The floor is that of `cold-start`.
//! - `change-N`: one VM moves, until the kernels of N agents have it on its new host; for the floor, until N watchers
//!   have heard of it. p50 and p99.
//! - `storm`: VMs that move at 10,000 changes a second; from the first change until the kernel has the last. The
//!   floor is a watcher until it has heard all. `storm-lag` is how long after the last write that was.
//! - `link`: `ccn link` at an API server, from the start of the command to the UPDATE at the router; p50 and p99.
//! - Resident memory of agent, API server and etcd.
//!
//! What the kernels have is read from the maps of the `ebpf` plane; the agents are not asked.

mod agents;
pub mod floor;
mod region;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use netlink::Namespace;
use nix::sys::signal::Signal;

use super::Failure;
use super::link_latency::{await_change, await_end};
use super::report::{Case, Report, percentile};
use super::start::{Memory, Stage, Started};
use super::subject::has_ended;
use crate::apiserver::{ApiServer, Role};
use crate::enter::Lab;
use crate::etcd::{Etcd, ROOT};
use crate::topology::plan;
use agents::{InKernel, More, await_host};
use floor::{Minimal, Record};
use region::Records;

/// Where the floor writes: beside our records, below what the lab's user may write.
const BESIDE: &str = "/ccn/v1.floor";
/// Where the first gateway pins its maps.
const PINS: &str = "/sys/fs/bpf/ccn";
/// How long an import may take.
const IMPORT: Duration = Duration::from_secs(600);
/// Changes a second of a storm.
const RATE: u32 = 10_000;
/// VMs that move while an agent stands still.
const MISSED: usize = 1_000;
/// Agents that hear one change at once.
const MANY: usize = 8;
/// A classic network of the region that has only IPv4.
const CLASSIC: &str = "192.168.1.0/24";

/// What to run.
#[derive(Debug, Args)]
pub struct Options {
    /// A small run that finishes within a minute: shows that all of it works
    #[arg(long)]
    quick: bool,
    /// VMs [default: 1000000; with --quick: 2000]
    #[arg(long, value_name = "N")]
    vms: Option<u64>,
    /// Changes and links whose latency is measured, in each round [default: 200; with --quick: 5]
    #[arg(long, value_name = "N")]
    changes: Option<usize>,
    /// Seconds of a storm [default: 10; with --quick: 0.1]
    #[arg(long, value_name = "S")]
    storm: Option<f64>,
    /// Without `import`: the floor loads the region, once
    #[arg(long)]
    no_import: bool,
    /// Rounds [default: 3; with --quick: 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
}

/// Runs it.
///
/// # Errors
/// etcd, an agent or the API server does not do its part.
pub fn run(options: &Options, lab: &Lab, report: &mut Report) -> Result<(), Failure> {
    let (vms, rounds, changes, seconds) = match options.quick {
        true => (2_000, 1, 5, 0.1),
        false => (1_000_000, 3, 200, 10.0),
    };
    let vms = options.vms.unwrap_or(vms);
    let rounds = options.rounds.unwrap_or(rounds);
    let changes = options.changes.unwrap_or(changes);
    let seconds = options.storm.unwrap_or(seconds);
    report.progress(&format!("making a region of {vms} VMs"));
    let mut bench = Bench::build(lab, vms, report)?;
    if options.no_import {
        bench.report.progress("loading the region");
        bench.load(lab)?;
    } else {
        for round in 1..=rounds {
            bench.report.progress(&format!("import, round {round}"));
            bench.import(lab)?;
        }
    }
    for round in 1..=rounds {
        bench.report.progress(&format!("cold start, round {round}"));
        bench.cold_start()?;
    }
    for round in 1..=rounds {
        bench.report.progress(&format!("resync, round {round}"));
        bench.resync()?;
    }
    bench.change(&[], rounds * changes)?;
    let storm = (seconds * f64::from(RATE)) as usize;
    for round in 1..=rounds {
        bench.report.progress(&format!("storm, round {round}"));
        bench.storm(storm.min(bench.records.vms - 1))?;
    }
    bench.change_at_many(lab, rounds * changes)?;
    bench.records.forget();
    bench.link(lab, rounds * changes)?;
    bench.leave()
}

/// Everything that stands between cases.
struct Bench<'a> {
    report: &'a mut Report,
    records: Records,
    file: PathBuf,
    stage: Stage,
    namespace: Arc<Namespace>,
    etcd: Option<Etcd>,
    started: Option<Started>,
    /// How many etcds there were.
    etcds: usize,
    /// How often VMs were moved.
    turn: usize,
}

impl<'a> Bench<'a> {
    fn build(lab: &Lab, vms: u64, report: &'a mut Report) -> Result<Bench<'a>, Failure> {
        let records = Records::make(vms)?;
        let file = lab.scratch().join("region.jsonl");
        records.write(&file)?;
        let stage = Stage::build(lab, "ebpf")?;
        let namespace = stage.region.gateway_namespace();
        Ok(Bench {
            report,
            records,
            file,
            stage,
            namespace,
            etcd: None,
            started: None,
            etcds: 0,
            turn: 0,
        })
    }

    fn add(&mut self, name: &str, unit: &'static str, subject: &str, value: f64) {
        let n = self.records.vms;
        self.report.add(Case { name, n, unit }, subject, value);
    }

    fn percentiles(&mut self, name: &str, subject: &str, seconds: &[f64]) {
        for (suffix, share) in [("p50", 0.5), ("p99", 0.99)] {
            if let Some(value) = percentile(seconds, share) {
                self.add(&format!("{name}-{suffix}"), "ms", subject, value * 1e3);
            }
        }
    }

    fn etcd(&self) -> Result<&Etcd, Failure> {
        Ok(self.etcd.as_ref().ok_or("there is no etcd")?)
    }

    /// Does something with a minimal client, in the gateway's namespace.
    fn minimal<T: Send>(
        &self,
        work: impl FnOnce(Minimal) -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        let etcd = self.etcd()?;
        self.namespace.enter(|| work(Minimal::connect(etcd)?))?
    }

    /// An etcd in which there is nothing yet, instead of the one that is there.
    fn new_etcd(&mut self, lab: &Lab) -> Result<(), Failure> {
        if let Some(mut etcd) = self.etcd.take() {
            etcd.kill_all();
            fs::remove_dir_all(self.directory(lab))?;
        }
        self.etcds += 1;
        let directory = self.directory(lab);
        fs::create_dir_all(&directory)?;
        let namespace = Some(self.namespace.clone());
        let etcd = Etcd::start_at(plan::GATEWAY4, &directory, lab.scratch(), namespace, 1)?;
        self.stage.gateway.store_in(&etcd);
        self.etcd = Some(etcd);
        Ok(())
    }

    fn directory(&self, lab: &Lab) -> PathBuf {
        lab.scratch().join(format!("etcd-{}", self.etcds))
    }

    fn forget_snapshot(&self) -> Result<(), Failure> {
        let snapshot = self.stage.gateway.config.store.more.get("snapshot");
        let path = snapshot.and_then(toml::Value::as_str).map(Path::new);
        match path.map(fs::remove_file) {
            Some(Err(error)) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The agent begins with no snapshot and an empty kernel.
    fn begin(&mut self) -> Result<f64, Failure> {
        if let Some(started) = self.started.take() {
            self.stage.leave(started.agent)?;
        }
        self.forget_snapshot()?;
        let started = self.stage.begin(&self.records.announced)?;
        let seconds = started.told.seconds;
        for (phase, seconds) in &started.told.phases {
            let n = self.records.vms;
            let name = &format!("cold-start/{phase}");
            self.report
                .add(Case { name, n, unit: "s" }, "ours", *seconds);
        }
        self.started = Some(started);
        Ok(seconds)
    }

    /// Where the VM that is looked at is in the first gateway's kernel.
    fn kernel(&self) -> Result<InKernel, Failure> {
        InKernel::find(Path::new(PINS), self.records.mac)
    }

    /// The floor loads the region into an etcd that is new; the seconds that took.
    fn load(&mut self, lab: &Lab) -> Result<f64, Failure> {
        self.new_etcd(lab)?;
        let records = self.records.below(ROOT);
        self.minimal(|minimal| timed(|| minimal.fill(&records)))
    }

    fn import(&mut self, lab: &Lab) -> Result<(), Failure> {
        let seconds = self.load(lab)?;
        self.add("import", "s", "floor", seconds);

        self.new_etcd(lab)?;
        let config = self.stage.gateway.write_config()?;
        let import = self.stage.gateway.command(["import", "--store-of"]);
        let import = import.arg(config).arg(&self.file);
        let seconds = timed(|| Ok(import.output(IMPORT).map(drop)?))?;
        self.add("import", "s", "ours", seconds);

        self.new_etcd(lab)?;
        // It is of another etcd.
        self.forget_snapshot()?;
        let log = self.stage.gateway.log().to_owned();
        let agent = self.stage.gateway.launch_agent()?.start(&log)?;
        self.stage.gateway.await_settled(IMPORT)?;
        let import = self.stage.gateway.command(["import"]).arg(&self.file);
        let seconds = timed(|| Ok(import.output(IMPORT).map(drop)?))?;
        self.add("import-live", "s", "ours", seconds);
        self.stage.gateway.await_settled(IMPORT)?;
        self.stage.leave(agent)
    }

    fn cold_start(&mut self) -> Result<(), Failure> {
        let prefix = format!("{ROOT}/");
        let (vms, mut count) = (self.records.vms, 0);
        let seconds = self.minimal(|minimal| {
            timed(|| {
                count = minimal.range(&prefix)?;
                Ok(())
            })
        })?;
        if count < vms {
            return Err(format!("etcd has {count} keys of {vms} VMs").into());
        }
        self.add("cold-start", "s", "floor", seconds);
        self.add("resync", "s", "floor", seconds);
        let seconds = self.begin()?;
        self.add("cold-start", "s", "ours", seconds);
        Ok(())
    }

    fn resync(&mut self) -> Result<(), Failure> {
        self.turn += 1;
        let (changes, host) =
            self.records
                .storm(MISSED.min(self.records.vms - 1), self.turn, ROOT)?;
        let kernel = [self.kernel()?];
        self.signal(Signal::SIGSTOP)?;
        let etcd = self.etcd.as_mut().ok_or("there is no etcd")?;
        etcd.kill_all();
        etcd.start_all()?;
        self.minimal(|minimal| minimal.fill(&changes))?;
        self.etcd()?.compact()?;
        let began = Instant::now();
        self.signal(Signal::SIGCONT)?;
        await_host(&kernel, host)?;
        self.add("resync", "s", "ours", began.elapsed().as_secs_f64());
        self.stage.gateway.await_settled(IMPORT)?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let started = self.started.as_ref().ok_or("no agent runs")?;
        Ok(started.agent.signal(signal)?)
    }

    /// One VM moves; all agents, this one and those beside it, are to send to its new host.
    fn change(&mut self, more: &[PathBuf], changes: usize) -> Result<(), Failure> {
        let mut kernels = vec![self.kernel()?];
        for pins in more {
            kernels.push(InKernel::find(pins, self.records.mac)?);
        }
        let agents = kernels.len();
        let (mut ours, mut floor): (Vec<f64>, Vec<f64>) = Default::default();
        let first = self.turn + 1;
        self.turn += changes;
        let records = &self.records;
        self.minimal(|mut minimal| {
            let mut watchers = minimal.watchers(agents, &format!("{BESIDE}/"))?;
            for turn in first..first + changes {
                let (record, _) = records.move_first(turn, BESIDE)?;
                let began = Instant::now();
                minimal.put(&record)?;
                floor.push((watchers.hear(1)? - began).as_secs_f64());

                let (record, host) = records.move_first(turn, ROOT)?;
                let began = Instant::now();
                minimal.put(&record)?;
                await_host(&kernels, host)?;
                ours.push(began.elapsed().as_secs_f64());
            }
            Ok(())
        })?;
        let name = format!("change-{agents}");
        self.percentiles(&name, "floor", &floor);
        self.percentiles(&name, "ours", &ours);
        Ok(())
    }

    fn storm(&mut self, changes: usize) -> Result<(), Failure> {
        self.turn += 1;
        let (beside, _) = self.records.storm(changes, self.turn, BESIDE)?;
        let told = self.minimal(|minimal| {
            let mut watchers = minimal.watchers(1, &format!("{BESIDE}/"))?;
            stormy(&minimal, &beside, || watchers.hear(changes))
        })?;
        self.tell_storm("floor", told);
        let (ours, host) = self.records.storm(changes, self.turn, ROOT)?;
        let kernel = [self.kernel()?];
        let told = self.minimal(|minimal| {
            stormy(&minimal, &ours, || {
                await_host(&kernel, host)?;
                Ok(Instant::now())
            })
        })?;
        self.tell_storm("ours", told);
        self.stage.gateway.await_settled(IMPORT)?;
        Ok(())
    }

    fn tell_storm(&mut self, subject: &str, told: Storm) {
        self.add("storm", "s", subject, told.all);
        self.add("storm-lag", "ms", subject, told.lag * 1e3);
        self.add("storm-writer-late", "ms", subject, told.late * 1e3);
    }

    /// Links at an API server, one at a time.
    fn link(&mut self, lab: &Lab, links: usize) -> Result<(), Failure> {
        let etcd = self.etcd.as_ref().ok_or("there is no etcd")?;
        let mut api = ApiServer::start(lab, self.namespace.clone(), etcd, 0, "")?;
        let started = self.started.as_mut().ok_or("no agent runs")?;
        let (vpc, prefix) = &self.records.free;
        let log = lab.scratch().join("link.log");
        let mut seconds = Vec::new();
        for _ in 0..links {
            let link = api.command(Role::Operator, ["link", vpc, "--classic", CLASSIC]);
            let (line, sink) = (&mut started.line, started.sink);
            let began = Instant::now();
            let mut order = link.start(&log)?;
            let came = await_change(line, sink, *prefix, true)?;
            await_end(line, || Ok(has_ended(&mut order)?))?;
            seconds.push((came - began).as_secs_f64());
            let mut order = api.command(Role::Operator, ["unlink", vpc]).start(&log)?;
            await_change(line, sink, *prefix, false)?;
            await_end(line, || Ok(has_ended(&mut order)?))?;
        }
        let memory = Memory::of(api.process()?.id())?;
        let agent = Memory::of(started.agent.id())?;
        let etcd = Memory::of(etcd.member(0).ok_or("there is no etcd")?.id())?;
        api.stop()?;
        self.percentiles("link", "ours", &seconds);
        for (name, memory) in [("agent", agent), ("apiserver", memory), ("etcd", etcd)] {
            let name = format!("memory-{name}");
            self.add(&name, "MB", "ours", memory.resident as f64 / 1e6);
            let n = self.records.vms;
            let case = Case {
                name: &name,
                n,
                unit: "MB",
            };
            self.report.note(case, "ours", &memory.to_string());
        }
        Ok(())
    }

    fn change_at_many(&mut self, lab: &Lab, changes: usize) -> Result<(), Failure> {
        let etcd = self.etcd.as_ref().ok_or("there is no etcd")?;
        let report = &self.report;
        let region = &mut self.stage.region;
        let more = More::start(lab, region, etcd, MANY - 1, |what| report.progress(what))?;
        self.change(&more.pins(), changes)?;
        more.leave()
    }

    /// Takes everything out of the kernel before its namespace goes.
    fn leave(mut self) -> Result<(), Failure> {
        match self.started.take() {
            Some(started) => self.stage.leave(started.agent),
            None => Ok(()),
        }
    }
}

/// What a storm took, in seconds.
struct Storm {
    /// From its first change until the last was there.
    all: f64,
    /// From when the last was acknowledged until it was there.
    lag: f64,
    /// How far the writer was behind the clock in the end.
    late: f64,
}

fn stormy(
    minimal: &Minimal,
    changes: &[Record],
    arrived: impl FnOnce() -> Result<Instant, Failure>,
) -> Result<Storm, Failure> {
    let began = Instant::now();
    let late = minimal.pace(changes, RATE)?;
    let written = Instant::now();
    let there = arrived()?;
    Ok(Storm {
        all: (there - began).as_secs_f64(),
        lag: there.saturating_duration_since(written).as_secs_f64(),
        late: late.as_secs_f64(),
    })
}

/// The seconds that something takes.
fn timed(work: impl FnOnce() -> Result<(), Failure>) -> Result<f64, Failure> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64())
}
