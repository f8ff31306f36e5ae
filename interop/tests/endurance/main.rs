//! What goes on for long or comes in great numbers, and what runs out: operators who never stop, routers that come and
//! go, stores that are slow or flooded, machines without room. Packets flow meanwhile, and what is lost is counted.

#![allow(
    clippy::print_stdout,
    reason = "a test says what it saw; the harness shows it when it fails"
)]

mod anycast;
mod desk;
mod etcd;
mod gateway;
mod operators;
mod probe;
mod routers;
mod vms;

use std::error::Error;
use std::time::Duration;

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
