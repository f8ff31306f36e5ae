//! Benchmarks: subjects (ours, named peers, the floor) put through the same work, alternated within
//! one run, in network namespaces of the lab. A table with ratios on stdout, JSON lines in a file.
//!
//! Nothing here judges a figure.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, Subcommand};

use crate::enter::goodbye::end_on_goodbye;
use crate::enter::{Chain, Entry, Lab, Side, is_outside};
use report::Report;

pub mod bgp;
pub mod line;
pub mod prefix_set;
pub mod report;
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
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// BGP: learn, pass on, withdraw, a late joiner, originate, memory
    Bgp(bgp::Options),
}

impl Bench {
    fn name(&self) -> &'static str {
        match self {
            Bench::Bgp(_) => "bgp",
        }
    }

    fn json(&self) -> Option<&Path> {
        match self {
            Bench::Bgp(options) => options.json.as_deref(),
        }
    }

    fn prepare(&self) -> Result<(), Failure> {
        match self {
            Bench::Bgp(options) => options.prepare(),
        }
    }

    fn run(&self, lab: &Lab, report: &mut Report) -> Result<(), Failure> {
        match self {
            Bench::Bgp(options) => bgp::run(options, lab, report),
        }
    }
}

/// Runs a bench, in namespaces of its own. What was measured before a failure is printed, too.
#[must_use]
pub fn main(options: &Options) -> ExitCode {
    match enter(&options.bench) {
        Ok(code) => code,
        Err(error) => {
            // Nobody reads any more if this fails.
            let _ = writeln!(io::stderr(), "bench: {}", Chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn enter(bench: &Bench) -> Result<ExitCode, Failure> {
    if is_outside() {
        bench.prepare()?;
    }
    match Entry::again(&format!("bench {}", bench.name())).enter()? {
        Side::Inside(lab) => {
            end_on_goodbye(|| 130)?;
            let mut report = Report::new(bench.name());
            let outcome = bench.run(&lab, &mut report);
            report.progress("");
            report.print(&mut io::stdout().lock())?;
            if let Some(path) = bench.json() {
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

/// The speaker example that belongs to this program: in the same `target` directory.
fn speaker() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let directory = own.parent().unwrap_or(Path::new("."));
    let directory = match directory.file_name() {
        Some(name) if name == "deps" => directory.parent().unwrap_or(directory),
        _ => directory,
    };
    Ok(directory.join("examples/speaker"))
}

/// Builds the speaker example as this program was built, so that no stale one is measured. Without
/// cargo or sources the one that is there must do.
fn build_speaker() -> Result<(), Failure> {
    let speaker = speaker()?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args([
            "build",
            "--quiet",
            "--package",
            "bgp",
            "--example",
            "speaker",
        ])
        .current_dir(workspace);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let built = match command.status() {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => format!("cargo failed ({status})"),
        Err(error) => format!("cargo cannot be run: {error}"),
    };
    if speaker.is_file() {
        let _ = writeln!(
            io::stderr(),
            "{built}; {} is used as it is",
            speaker.display()
        );
        return Ok(());
    }
    Err(format!("there is no {}, and {built}", speaker.display()).into())
}
