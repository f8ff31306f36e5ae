//! What goes on for long or comes in great numbers, and what runs out: operators who never stop, routers that come and
//! go, stores that are slow or flooded, machines without room. Packets flow meanwhile, and what is lost is counted.

#![allow(
    clippy::print_stdout,
    reason = "a test says what it saw; the harness shows it when it fails"
)]

mod desk;
mod etcd;
mod gateway;
mod operators;
mod probe;

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use bgp::Family;
use interop::scene::{Scene, nets};
use interop::steady::Traffic;
use interop::wait::eventually;
use ipnet::IpNet;

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

/// Waits until the first router has exactly these prefixes of the gateway.
fn await_announced(scene: &Scene, expected: &[&str]) -> Result<(), Failure> {
    let expected: BTreeSet<IpNet> = nets(expected)?.into_iter().collect();
    let what = format!("the router has exactly {expected:?}");
    eventually(what, SOON, || {
        let mut seen = BTreeSet::new();
        for family in Family::ALL {
            let routes = scene.routers[0].routes(family);
            let routes = routes.map_err(|error| error.to_string())?;
            seen.extend(routes.into_iter().map(|route| route.prefix));
        }
        match seen == expected {
            true => Ok(()),
            false => Err(format!("{seen:?}")),
        }
    })?;
    Ok(())
}
