//! `bench program`: how long a plane takes to bring a whole region into the kernel, to find everything as
//! it should be after a restart, and to move one VM; and how much of the kernel's memory that takes.
//!
//! The plane is called as the agent calls it, in this process; making what it is asked to hold is not
//! counted. `program` begins with a host that holds nothing of ours. `dump` is a new plane that is asked
//! for the same again: it reads everything, compares, and may change nothing. `one-change` puts a VM on
//! another host, again and again another VM. `kernel-bytes-per-vm` is what the kernel says its maps take
//! (the whole of them, also what is there for the first VM), divided by the VMs; the note names the
//! largest.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Instant;

use aya::maps::MapData;
use ccn::plane::entry::{EntryKey, EntryValue};
use ccn::plane::{Applied, Batch, Desired, Plane, PlaneError};
use clap::Args;

use super::Failure;
use super::forward::shape::Shape;
use super::forward::stage::Stage;
use super::forward::subject::{self, Way, Who};
use super::report::{Case, Report, percentile};
use crate::enter::Lab;

/// What to run.
#[derive(Debug, Args)]
pub struct Options {
    /// A small run that finishes within seconds: shows that all of it works
    #[arg(long)]
    quick: bool,
    /// VMs [default: 10000,1000000; with --quick: 1000]
    #[arg(long, value_delimiter = ',', value_name = "N")]
    sizes: Vec<u32>,
    /// routes, ebpf [default: both]
    #[arg(long, value_delimiter = ',', value_name = "SUBJECT")]
    subjects: Vec<Who>,
    /// VMs that are moved a round [default: 1000; with --quick: 10]
    #[arg(long, value_name = "N")]
    changes: Option<u32>,
    /// Rounds, each with every subject [default: 3; with --quick: 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
}

/// Runs it.
///
/// # Errors
/// The system refuses something, or a plane does not do what it is asked.
pub fn run(options: &Options, _lab: &Lab, report: &mut Report) -> Result<(), Failure> {
    let sizes = match (options.sizes.as_slice(), options.quick) {
        ([], false) => vec![10_000, 1_000_000],
        ([], true) => vec![1_000],
        (some, _) => some.to_vec(),
    };
    let subjects = match options.subjects.as_slice() {
        [] => &[Who::Routes, Who::Ebpf],
        some => some,
    };
    let changes = options
        .changes
        .unwrap_or(if options.quick { 10 } else { 1_000 });
    for vms in sizes {
        let shape = Shape::plain(vms);
        report.progress(&format!("making entries of {vms} VMs"));
        let desired = shape.desired()?;
        for round in 1..=options.rounds.unwrap_or(if options.quick { 1 } else { 3 }) {
            for &who in subjects {
                report.progress(&format!("{who} with {vms} VMs, round {round}"));
                let mut told = Told { vms, who, report };
                match who.refuses(&shape, Way::Encapsulate) {
                    Some(refusal) => told.note("program", "s", &refusal),
                    None => measure(&shape, &desired, changes, told)?,
                }
            }
        }
    }
    Ok(())
}

/// Where results of a subject go.
struct Told<'a> {
    vms: u32,
    who: Who,
    report: &'a mut Report,
}

impl Told<'_> {
    fn add(&mut self, name: &str, unit: &'static str, value: f64) {
        let n = self.vms as usize;
        self.report
            .add(Case { name, n, unit }, self.who.name(), value);
    }

    fn note(&mut self, name: &str, unit: &'static str, note: &str) {
        let n = self.vms as usize;
        self.report
            .note(Case { name, n, unit }, self.who.name(), note);
    }

    /// What maps take: octets by name.
    fn memory(&mut self, maps: &BTreeMap<String, u64>) {
        let (name, unit) = ("kernel-bytes-per-vm", "bytes");
        let total: u64 = maps.values().sum();
        self.add(name, unit, total as f64 / f64::from(self.vms));
        let mut largest: Vec<_> = maps.iter().collect();
        largest.sort_by_key(|(_, octets)| std::cmp::Reverse(**octets));
        let largest = largest.iter().take(6);
        let largest = largest.map(|(map, octets)| format!("{map} {:.1}", **octets as f64 / 1e6));
        let largest: Vec<_> = largest.collect();
        let note = format!("{:.1} MB: {}", total as f64 / 1e6, largest.join(", "));
        self.note(name, unit, &note);
    }
}

/// One round of one subject.
fn measure(
    shape: &Shape,
    desired: &Desired,
    changes: u32,
    mut told: Told<'_>,
) -> Result<(), Failure> {
    let stage = Stage::build(told.who.name())?;
    let namespace = stage.gateway.namespace();
    let config = subject::plane_config()?;
    let plane = || told.who.plane(&config).ok_or("this subject is no plane");

    let mut first = plane()?;
    let (applied, seconds) = namespace.enter(|| timed(first.as_mut(), desired))??;
    subject::all_taken(&applied)?;
    drop(first);

    let mut second = plane()?;
    let outcome = namespace.enter(|| -> Result<_, Failure> {
        let (applied, dump) = timed(second.as_mut(), desired)?;
        subject::all_taken(&applied)?;
        let memory = match told.who {
            Who::Ebpf => Some(map_memory(&config.bpffs)?),
            _ => None,
        };
        let moved = move_vms(second.as_mut(), shape, desired, changes)?;
        Ok((applied.operations, dump, memory, moved))
    });
    // Also after a failure: a namespace full of routes must not go by itself.
    namespace.enter(|| second.remove())??;
    let (operations, dump, memory, moved) = outcome??;
    if operations > 0 {
        return Err(format!("{operations} operations where nothing differed").into());
    }

    told.add("program", "s", seconds);
    told.add("dump", "s", dump);
    for (name, share) in [("one-change-p50", 0.5), ("one-change-p99", 0.99)] {
        if let Some(value) = percentile(&moved, share) {
            told.add(name, "us", value * 1e6);
        }
    }
    if let Some(maps) = memory {
        told.memory(&maps);
    }
    Ok(())
}

/// Has a plane hold all of it, as at a start; the seconds that took.
fn timed(plane: &mut dyn Plane, desired: &Desired) -> Result<(Applied, f64), PlaneError> {
    plane.prepare()?;
    let began = Instant::now();
    let applied = plane.resync(desired)?;
    Ok((applied, began.elapsed().as_secs_f64()))
}

/// Puts VMs on other hosts, one a batch; the seconds that each took.
fn move_vms(
    plane: &mut dyn Plane,
    shape: &Shape,
    desired: &Desired,
    changes: u32,
) -> Result<Vec<f64>, Failure> {
    let mut seconds = Vec::new();
    for change in 0..changes {
        // Spread over all there are.
        let vm = (u64::from(change) * 7_919 % u64::from(shape.vms)) as u32;
        let (scope, addr) = (shape.scope(vm % shape.vpcs)?, shape.address(vm).into());
        let key = EntryKey::Endpoint { scope, addr };
        let Some(EntryValue::Endpoint { vni, hops }) = desired.entries.get(&key) else {
            return Err(format!("{key} is not asked for").into());
        };
        let mut hops = hops.clone();
        for hop in &mut hops {
            hop.vtep = shape.host((vm + 1 + change) % shape.hosts()).into();
        }
        let value = EntryValue::Endpoint { vni: *vni, hops };
        let batch = Batch {
            generation: u64::from(change) + 2,
            upserts: [(key, value)].into(),
            ..Batch::default()
        };
        let began = Instant::now();
        let applied = plane.apply(&batch)?;
        seconds.push(began.elapsed().as_secs_f64());
        subject::all_taken(&applied)?;
    }
    Ok(seconds)
}

/// The directory of what is pinned and no map.
const ATTACHED: &str = "links";

/// What the kernel says that each of the maps pinned below a directory takes, in octets.
fn map_memory(directory: &Path) -> Result<BTreeMap<String, u64>, Failure> {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.ends_with(ATTACHED) {
            continue;
        }
        if path.is_dir() {
            maps.extend(map_memory(&path)?);
            continue;
        }
        let map = MapData::from_pin(&path)?;
        let descriptor = map.fd().as_fd().as_raw_fd();
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}"))?;
        let memory = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        let memory = memory.ok_or("a map without memlock")?.trim().parse()?;
        let name = path.file_name().unwrap_or_default();
        maps.insert(name.to_string_lossy().into_owned(), memory);
    }
    Ok(maps)
}
