//! What the gateway survives without losing a packet or its word: the end of its agent, a hand that
//! meddles with the kernel, orders that come thick and fast.

#![allow(
    clippy::print_stdout,
    reason = "a test says what it saw; the harness shows it when it fails"
)]

mod cluster;
mod drain;
mod order;
mod repair;
mod restart;

use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use interop::gateway::Gateway;
use interop::steady::Traffic;

type Failure = Box<dyn Error + Send + Sync>;

/// How long a condition may take to come true.
const SOON: Duration = Duration::from_secs(30);

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Ends it; fails if one packet was lost.
fn was_perfect(traffic: Traffic) -> Result<(), Failure> {
    for told in traffic.was_perfect()? {
        println!("{told}");
    }
    Ok(())
}

/// The gateway dropped no packet since its plane was prepared; otherwise the last one of each reason.
fn dropped_nothing(gateway: &Gateway) -> Result<(), Failure> {
    let counters = gateway.json(["plane", "counters"])?;
    let mut drops = counters["drops"].as_object().into_iter().flatten();
    assert!(
        drops.all(|(_, count)| count["packets"] == 0),
        "{counters}\n{}",
        gateway.ccn(["drops"])?
    );
    Ok(())
}
