//! Benchmarks: subjects (ours, named peers, the floor) put through the same work, alternated within
//! one run, in network namespaces of the lab. A table with ratios on stdout, JSON lines in a file.
//!
//! Nothing here judges a figure.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::enter::goodbye::end_on_goodbye;
use crate::enter::{Chain, Entry, Lab, Side, is_outside};
use report::Report;

pub mod bgp;
pub mod failover;
pub mod forward;
pub mod line;
pub mod link_latency;
pub mod ours;
pub mod prefix_set;
pub mod program;
pub mod report;
pub mod restart;
pub mod start;
pub mod store;
pub mod stream;
pub mod subject;
pub mod usage;
pub mod wire;

/// An error of any part of a bench.
type Failure = Box<dyn Error + Send + Sync>;

/// Which bench, and how.
#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    bench: Bench,
    /// Append one JSON object a line to this file
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// BGP: learn, pass on, withdraw, a late joiner, originate, memory
    Bgp(bgp::Options),
    /// One route: from the command to the UPDATE at the peer
    LinkLatency(link_latency::Options),
    /// Packets: what forwarding one costs, each way, with few VMs and many
    Forward(forward::Options),
    /// A plane: programming a whole region, finding it again, moving one VM, the kernel's memory
    Program(program::Options),
    /// An agent: from its start with a whole region to the last UPDATE, and its memory
    Start(start::Options),
    /// The agent ends, comes back, or changes: how many packets that costs
    Restart(restart::Options),
    /// A cluster's store: loading a region, starting from it, changes, links; each beside a minimal client of etcd
    Store(store::Options),
    /// A gateway is gone with a partner beside it, or a router starts again: packets lost, with BFD and without
    Failover(failover::Options),
}

impl Bench {
    fn name(&self) -> &'static str {
        match self {
            Bench::Bgp(_) => "bgp",
            Bench::LinkLatency(_) => "link-latency",
            Bench::Forward(_) => "forward",
            Bench::Program(_) => "program",
            Bench::Start(_) => "start",
            Bench::Restart(_) => "restart",
            Bench::Failover(_) => "failover",
            Bench::Store(_) => "store",
        }
    }

    /// The subject that others are compared with.
    fn yardstick(&self) -> &'static str {
        match self {
            Bench::Bgp(_) | Bench::LinkLatency(_) => "bird",
            Bench::Forward(_) => "plain-vxlan",
            Bench::Program(_) => "routes",
            Bench::Start(_) | Bench::Restart(_) => "ours",
            Bench::Failover(_) => "no-bfd",
            Bench::Store(_) => "floor",
        }
    }

    /// What has to be done outside of the lab; answers with what the inner program is told.
    fn prepare(&self) -> Result<Option<(&'static str, String)>, Failure> {
        match self {
            Bench::Bgp(options) => options.prepare().map(|()| None),
            Bench::LinkLatency(_)
            | Bench::Program(_)
            | Bench::Start(_)
            | Bench::Restart(_)
            | Bench::Failover(_)
            | Bench::Store(_) => Ok(None),
            Bench::Forward(options) => options.prepare(),
        }
    }

    fn run(&self, lab: &Lab, report: &mut Report) -> Result<(), Failure> {
        match self {
            Bench::Bgp(options) => bgp::run(options, lab, report),
            Bench::LinkLatency(options) => link_latency::run(options, lab, report),
            Bench::Forward(options) => forward::run(options, lab, report),
            Bench::Program(options) => program::run(options, lab, report),
            Bench::Start(options) => start::run(options, lab, report),
            Bench::Restart(options) => restart::run(options, lab, report),
            Bench::Failover(options) => failover::run(options, lab, report),
            Bench::Store(options) => store::run(options, lab, report),
        }
    }
}

/// Runs a bench, in namespaces of its own. What was measured before a failure is printed, too.
#[must_use]
pub fn main(options: &Options) -> ExitCode {
    match enter(&options.bench, options.json.as_deref()) {
        Ok(code) => code,
        Err(error) => {
            // Nobody reads any more if this fails.
            let _ = writeln!(io::stderr(), "bench: {}", Chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn enter(bench: &Bench, json: Option<&Path>) -> Result<ExitCode, Failure> {
    let mut entry = Entry::again(&format!("bench {}", bench.name()));
    if is_outside()
        && let Some((name, value)) = bench.prepare()?
    {
        entry = entry.env(name, value);
    }
    match entry.enter()? {
        Side::Inside(lab) => {
            end_on_goodbye(|| 130)?;
            let mut report = Report::new(bench.name(), bench.yardstick());
            let outcome = bench.run(&lab, &mut report);
            report.progress("");
            report.print(&mut io::stdout().lock())?;
            if let Some(path) = json {
                report.append(path)?;
            }
            outcome.map(|()| ExitCode::SUCCESS)
        }
        Side::Outside(ended) => {
            if let Some(logs) = &ended.logs {
                let _ = writeln!(io::stderr(), "the logs are in {}", logs.display());
            }
            let code = ended.status.code().and_then(|code| u8::try_from(code).ok());
            Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
        }
    }
}
