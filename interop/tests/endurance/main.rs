//! What goes on for long or comes in great numbers, and what runs out: operators who never stop, routers that come and
//! go, stores that are slow or flooded, machines without room. Packets flow meanwhile, and what is lost is counted.

#![allow(
    clippy::print_stdout,
    reason = "a test says what it saw; the harness shows it when it fails"
)]

mod anycast;
mod descriptors;
mod desk;
mod etcd;
mod gateway;
mod operators;
mod probe;
mod routers;
mod vms;

use std::error::Error;
use std::time::Duration;

use interop::process::Launch;
use interop::steady::Traffic;

type Failure = Box<dyn Error + Send + Sync>;

/// How long a condition may take to come true.
const SOON: Duration = Duration::from_secs(30);

/// Ends it; fails if one packet was lost.
fn was_perfect(traffic: Traffic) -> Result<(), Failure> {
    for told in traffic.was_perfect()? {
        println!("{told}");
    }
    Ok(())
}

/// Sets a limit of a process that runs, as `prlimit` says it.
fn limit(id: u32, what: &str) -> Result<(), Failure> {
    let limit = Launch::new("prlimit").args(["--pid", &id.to_string(), what]);
    limit.output(SOON)?;
    Ok(())
}
