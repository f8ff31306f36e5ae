//! The demo: a small IDC with two real BGP routers, a small cloud and one gateway on this machine
//! alone; a VPC is linked and unlinked, and each step is shown by whoever saw it: the routers, the
//! hosts, the kernel.
//!
//! It decides nothing by itself: a step that cannot be shown fails the demo.

mod keep;
mod narrator;
mod scene;
mod steps;

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::enter::goodbye::end_on_goodbye;
use crate::enter::{Chain, Ended, Entry, Lab, Side};
use narrator::Narrator;
pub use scene::Scene;
use steps::{STEPS, Said};

/// The demo was ended by Ctrl-C: the exit code that shells give to that.
const INTERRUPTED: u8 = 130;

/// How the demo is run.
#[derive(Debug, Clone, Copy, Args)]
pub struct Options {
    /// Leave the lab up until Ctrl-C, and say how to look around in it.
    #[arg(long)]
    pub keep: bool,
    /// Print one JSON object at the end; the narration goes to standard error.
    #[arg(long)]
    pub json: bool,
}

/// One step, as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
struct Outcome {
    name: &'static str,
    ok: bool,
    ms: u64,
    detail: String,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    ok: bool,
    steps: &'a [Outcome],
}

/// Runs the demo, in namespaces of its own. 0: every step was shown; 1: one failed; 130: it was
/// interrupted.
#[must_use]
pub fn main(options: Options) -> ExitCode {
    let narrator = Narrator::new(options.json);
    let code = match Entry::again("demo").enter() {
        Ok(Side::Inside(lab)) => inside(&lab, options, &narrator),
        Ok(Side::Outside(ended)) => outside(&ended, &narrator),
        Err(error) => refused(&Chain(&error).to_string(), &narrator),
    };
    match code {
        Ok(code) => ExitCode::from(code),
        // Nobody reads any more: there is nobody to tell.
        Err(_) => ExitCode::FAILURE,
    }
}

/// The demo never began.
fn refused(reason: &str, narrator: &Narrator) -> std::io::Result<u8> {
    narrator.complain(reason)?;
    report(
        narrator,
        &[Outcome {
            name: "lab",
            ok: false,
            ms: 0,
            detail: reason.to_owned(),
        }],
    )?;
    Ok(1)
}

/// Passes on how the inner program ended, which has said everything unless it was killed.
fn outside(ended: &Ended, narrator: &Narrator) -> std::io::Result<u8> {
    if let Some(logs) = &ended.logs {
        narrator.complain(&format!("the logs are in {}", logs.display()))?;
    }
    match ended.status.code() {
        Some(code @ 0..=1) => Ok(code as u8),
        _ if ended.interrupted => {
            narrator.leave_line()?;
            refused("interrupted; everything is cleaned up", narrator)?;
            Ok(INTERRUPTED)
        }
        _ => refused(&format!("the demo broke off ({})", ended.status), narrator),
    }
}

fn inside(lab: &Lab, options: Options, narrator: &Narrator) -> std::io::Result<u8> {
    let verdict = Arc::new(AtomicU8::new(INTERRUPTED));
    let told = Arc::clone(&verdict);
    end_on_goodbye(move || told.load(Ordering::Relaxed))?;
    narrator.heading()?;
    let started = Instant::now();
    let mut stage = None;
    let outcomes = play(lab, &mut stage, narrator)?;
    let code = u8::from(!outcomes.iter().all(|outcome| outcome.ok));
    narrator.closing(&outcomes, started.elapsed())?;
    report(narrator, &outcomes)?;
    if let (true, Some(scene)) = (options.keep, &stage) {
        // From here on Ctrl-C is the ordinary end.
        verdict.store(code, Ordering::Relaxed);
        match keep::invite(lab, scene) {
            Ok(lines) => narrator.lines(&lines)?,
            Err(error) => narrator.complain(&Chain(error.as_ref()).to_string())?,
        }
        loop {
            std::thread::park();
        }
    }
    Ok(code)
}

/// Plays the steps in their order; after the first that fails the others are skipped.
fn play(
    lab: &Lab,
    stage: &mut Option<Scene>,
    narrator: &Narrator,
) -> std::io::Result<Vec<Outcome>> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut failed = None;
    for step in STEPS {
        if let Some(name) = failed {
            let detail = format!("skipped: {name} failed");
            let outcome = Outcome {
                name: step.name,
                ok: false,
                ms: 0,
                detail,
            };
            narrator.skipped(step.name)?;
            outcomes.push(outcome);
            continue;
        }
        narrator.begin(step.name)?;
        let started = Instant::now();
        let said = catch_unwind(AssertUnwindSafe(|| (step.show)(lab, stage)));
        let took = started.elapsed();
        let (ok, said) = match said {
            Ok(Ok(said)) => (true, said),
            Ok(Err(error)) => (false, Said::only(Chain(error.as_ref()).to_string())),
            Err(_) => (false, Said::only("panicked; its words are above")),
        };
        if !ok {
            failed = Some(step.name);
        }
        narrator.end(step.name, ok, took, &said)?;
        outcomes.push(Outcome {
            name: step.name,
            ok,
            ms: millis(took),
            detail: said.whole(),
        });
    }
    Ok(outcomes)
}

fn report(narrator: &Narrator, steps: &[Outcome]) -> std::io::Result<()> {
    let ok = steps.iter().all(|step| step.ok);
    narrator.json(&Report { ok, steps })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// An error of any part of the lab.
type Failure = Box<dyn Error + Send + Sync>;
