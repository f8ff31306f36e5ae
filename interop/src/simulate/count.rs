//! A run of a sample, and what was counted in it. The same setup gives the same counts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::etcd::Carried;
use super::meter::Meter;
use super::world::{Faults, Setup, World};

/// What a run comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Counted {
    /// Stores, gateways, and the seconds in which was counted.
    pub(super) stores: u64,
    pub(super) gateways: u64,
    pub(super) seconds: f64,
    /// Records by kind: how many, and their octets in etcd.
    pub(super) records: BTreeMap<String, (u64, u64)>,
    /// What all stores carried while all gateways started.
    pub(super) start: Carried,
    /// What all stores carried in the seconds.
    pub(super) carried: Carried,
    /// Events that gateways took over in the seconds, batches of their planes and entries in them.
    pub(super) events: u64,
    pub(super) batches: u64,
    pub(super) operations: u64,
    /// How long the first start of all took in virtual time, and how long it took to come to rest after the seconds.
    pub(super) started: Duration,
    pub(super) rested: Duration,
    /// What broke.
    pub(super) faults: Faults,
    /// One number for what is in all kernels and announced in the end.
    pub(super) digest: u64,
    /// When it was over, in virtual time.
    pub(super) ended: Duration,
}

/// Runs it: every gateway starts, then so many seconds of changes, then until all is at rest; and judges it.
///
/// # Errors
/// The numbers do not go together, or a law was broken.
pub(super) fn run(setup: &Setup, seconds: u64) -> Result<(Counted, Meter), super::Failure> {
    let mut world = World::new(setup.clone())?;
    let started = world.settle()?;
    let start = carried(&world);
    world.count_from_here();
    world.begin();
    world.run(Duration::from_secs(seconds));
    let in_seconds = carried(&world);
    let sum = |of: fn(&super::gateway::Gateway) -> u64| world.gateways().map(of).sum::<u64>();
    let events = sum(|gateway| gateway.events);
    let batches = sum(|gateway| gateway.kernel.batches);
    let operations = sum(|gateway| gateway.kernel.operations);
    let rested = world.settle()?;
    world.judge()?;
    let digest = world.gateways().fold(0u64, |digest, gateway| {
        let announced = gateway.kernel.announced.len() as u64 + gateway.announcements;
        digest
            .rotate_left(7)
            .wrapping_add(gateway.kernel.contents().digest() ^ announced)
    });
    let mut records: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (kind, (count, octets)) in world.etcds.iter().flat_map(|etcd| etcd.kept_octets()) {
        let of = records.entry(kind).or_default();
        *of = (of.0 + count, of.1 + octets);
    }
    let counted = Counted {
        stores: world.etcds.len() as u64,
        gateways: world.gateways().count() as u64,
        seconds: seconds as f64,
        records,
        start,
        carried: in_seconds,
        events,
        batches,
        operations,
        started,
        rested,
        faults: world.faults,
        digest,
        ended: world.now(),
    };
    Ok((counted, world.meter))
}

fn carried(world: &World) -> Carried {
    let all = world.etcds.iter().map(|etcd| &etcd.carried);
    all.fold(Carried::default(), Carried::and)
}
