//! A model of a large cloud: what etcd, an API server and a gateway would each carry, and which of them breaks first.
//!
//! A sample (two groups of gateways, as many VMs as are to be had) is simulated with the real inventory, planner,
//! order of change and follower of the store, in a virtual time, with a made-up etcd, kernel and peers. How many
//! requests, events and octets one change comes to is counted there, what it costs the real code is measured, and
//! the whole follows by multiplication. It needs no privileges, no network and no lab.

mod agenda;
mod budget;
mod chance;
mod count;
mod etcd;
mod gateway;
mod kernel;
mod memory;
mod meter;
mod model;
mod region;
mod report;
mod wire;
mod world;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use ccn::fixture::FixtureSpec;
use clap::Args;

use crate::enter::Chain;
use count::Counted;
use model::{Layout, Scale, Units};
use region::PAIR;
use report::Outcome;
use world::Setup;

/// An error of any part.
type Failure = Box<dyn Error + Send + Sync>;

/// Groups of gateways in a sample: what belongs to one must not concern the other.
const GROUPS: u64 = 2;
/// Orders to link or unlink in each group of a sample, a second.
const ORDERS: f64 = 1.0;

/// What is modelled.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Gateways
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = at_least_one())]
    gateways: u64,
    /// VMs
    #[arg(long, value_name = "N", default_value_t = 100_000_000, value_parser = at_least_one())]
    vms: u64,
    /// VPCs
    #[arg(long, value_name = "N", default_value_t = 409_600, value_parser = at_least_one())]
    vpcs: u64,
    /// Groups of gateways; each serves CCSIs of its own
    #[arg(long, value_name = "N", default_value_t = 125, value_parser = at_least_one())]
    groups: u64,
    /// Links
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    links: u64,
    /// Changes a second, one in a hundred of them an order to link or unlink
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = at_least_one())]
    changes_per_second: u64,
    /// Seconds of changes that are simulated [default: 60; with --quick: 5]
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// VMs of each group in the sample, at most [default: 100000; with --quick: 2000]
    #[arg(long, value_name = "N")]
    sample_vms: Option<u64>,
    /// Another number, another course of events
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Append one JSON object a line to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A small sample that is done within seconds: shows that all of it works
    #[arg(long)]
    quick: bool,
}

fn at_least_one() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..)
}

impl Options {
    fn scale(&self) -> Scale {
        let all = self.changes_per_second as f64;
        Scale {
            gateways: self.gateways as f64,
            groups: self.groups as f64,
            vms: self.vms as f64,
            vpcs: self.vpcs as f64,
            links: self.links as f64,
            changes: all * (1.0 - budget::ORDERS),
            orders: all * budget::ORDERS,
        }
    }

    /// VMs of a VPC.
    fn each(&self) -> u64 {
        (self.vms / self.vpcs).max(1)
    }

    /// A sample of this cloud.
    fn sample(&self, sharded: bool) -> Setup {
        let most = self
            .sample_vms
            .unwrap_or(if self.quick { 2_000 } else { 100_000 });
        let groups = self.groups.min(GROUPS);
        let all = self.vpcs / self.groups;
        let pair = u64::from(PAIR);
        let vpcs = all.min(most / self.each()) / pair * pair;
        // Numbers of a sample are small.
        let vpcs = (vpcs.max(pair) * groups) as u32;
        let vms = u64::from(vpcs) * self.each();
        let share = vms as f64 / groups as f64 / (self.vms as f64 / self.groups as f64);
        Setup {
            region: FixtureSpec {
                vms,
                vpcs,
                hosts: (vms as f64 / budget::VMS_PER_HOST).ceil() as u32,
                seed: self.seed,
            },
            groups: groups as usize,
            gateways: (self.gateways / self.groups).max(1) as usize,
            links: (self.links as f64 / self.groups as f64 * share).ceil() as usize,
            sharded,
            changes: self.scale().changes / self.groups as f64,
            orders: ORDERS,
            seed: self.seed,
            faults: None,
        }
    }
}

/// Runs it, and prints what came of it.
#[must_use]
pub fn main(options: &Options) -> ExitCode {
    let done = model(options).and_then(|outcome| {
        outcome.print(&mut io::stdout().lock())?;
        if let Some(path) = &options.json {
            outcome.append(path)?;
        }
        Ok(())
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody reads any more if this fails.
            let _ = writeln!(io::stderr(), "simulate: {}", Chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn model(options: &Options) -> Result<Outcome, Failure> {
    let scale = options.scale();
    let sample = options.sample(false);
    // First, while the allocator has nothing to hand out again.
    let memory = memory::measure(sample.region.vms / sample.groups as u64, options.each())?;
    let seconds = options
        .seconds
        .unwrap_or(if options.quick { 5 } else { 60 });
    let mut runs = Vec::new();
    for (layout, sharded) in [(Layout::Flat, false), (Layout::Stores, true)] {
        let setup = options.sample(sharded);
        let (counted, meter) = count::run(&setup, seconds)?;
        runs.push((layout, setup, counted, meter));
    }
    let (_, setup, counted, meter) = &runs[0];
    let units = Units::of(counted, meter, setup.gateways as f64, memory);
    let checks = runs
        .iter()
        .map(|(layout, setup, counted, _)| check(&units, *layout, setup, counted));
    Ok(Outcome {
        scale,
        seed: options.seed,
        sample: setup.clone(),
        checks: checks.collect(),
        counted: runs
            .iter()
            .map(|(layout, _, counted, _)| (*layout, counted.clone()))
            .collect(),
        units,
    })
}

/// What the formulas say of a sample, beside what was counted in it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
struct Check {
    layout: Layout,
    /// Counted and by formula: writes, events and octets told, a second.
    writes: (f64, f64),
    events: (f64, f64),
    octets: (f64, f64),
}

impl Check {
    /// How far the formulas are off, at most.
    fn error(&self) -> f64 {
        let off = |(counted, said): (f64, f64)| (said / counted.max(1e-9) - 1.0).abs();
        off(self.writes).max(off(self.events)).max(off(self.octets))
    }
}

fn check(units: &Units, layout: Layout, setup: &Setup, counted: &Counted) -> Check {
    let per_second = |count: u64| count as f64 / counted.seconds;
    let flow = |writer| counted.carried.flow(writer);
    let groups = setup.groups as f64;
    let whole = Scale {
        gateways: counted.gateways as f64,
        groups,
        vms: setup.region.vms as f64,
        vpcs: f64::from(setup.region.vpcs),
        links: setup.links as f64 * groups,
        // What came by chance is not the formulas' business.
        changes: per_second(flow(etcd::Writer::Controllers).writes),
        orders: per_second(flow(etcd::Writer::Orders).writes),
    };
    let (in_store, stores) = match layout {
        Layout::Flat | Layout::Prefixes => (whole, 1.0),
        Layout::Stores => (whole.of_group(), groups),
    };
    let said = model::traffic(units, in_store, in_store, 0.0);
    let all = || counted.carried.flows.values();
    let writes = all().map(|flow| flow.writes).sum::<u64>() + counted.carried.reports;
    Check {
        layout,
        writes: (per_second(writes), said.writes * stores),
        events: (
            per_second(all().map(|flow| flow.events).sum()),
            said.events * stores,
        ),
        octets: (
            per_second(all().map(|flow| flow.octets).sum()),
            said.octets * stores,
        ),
    }
}
