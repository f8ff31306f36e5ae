//! `bench forward`: what forwarding one packet costs the kernel, in nanoseconds of CPU.
//!
//! A packet is a live frame of `BPF_PROG_TEST_RUN`: a small XDP program writes it in place (64 octets on
//! the wire before encapsulation, of a VM, a classic host and a flow drawn at random from all there are)
//! and gives it to the stack as received by the gateway's interface, 64 at a time. It ends on the egress
//! of the other interface, where a program counts it and takes it away before the device would: there is
//! no hop on the way in, none on the way out, and no other end whose work would be counted.
//!
//! **Counted** is the CPU time of the thread that runs this, from `CLOCK_THREAD_CPUTIME_ID`: the
//! generator, the stack from `netif_receive_skb_list` to the egress hook, and the softirqs that the stack
//! raises for itself (a VXLAN device hands packets on by NAPI), which run on the same CPU before the next
//! 64 packets; and the CPU time of that CPU's `ksoftirqd`, where it frees what RCU kept, such as the tunnel
//! metadata of each packet that an external VXLAN device takes. The thread is pinned to one CPU. Nothing is subtracted: `generator` is what making packets
//! alone takes (they are dropped at once). A kernel with `CONFIG_IRQ_TIME_ACCOUNTING` books softirqs
//! elsewhere and would show too little. A run in which not every packet that was made came out as what
//! was wanted is void: it is said and not counted.
//!
//! The underlay is routed: hosts are behind one router, so no subject pays for a neighbour a host. All
//! subjects get the same packets; those of the plain ones have one route for all VMs, and one VNI.

use std::path::Path;
use std::time::Duration;

use ccn::record::Mode;
use clap::Args;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::Failure;
use super::report::{Case, Report};
use crate::enter::Lab;
use frames::Frames;
use shape::Shape;
use softirqs::Softirqs;
use subject::{Flows, Standing, Way, Who};
use tcp::{Direction, Ends};

pub mod bars;
pub mod frames;
pub mod shape;
pub mod softirqs;
pub mod stage;
pub mod subject;
pub mod tcp;

/// Flows of a case that tracks them.
const FLOWS: u32 = 65_536;
/// What to run.
#[derive(Debug, Args)]
pub struct Options {
    /// A small run that finishes within seconds: shows that all of it works
    #[arg(long)]
    quick: bool,
    /// VMs [default: 1,10000,100000,1000000; with --quick: 1,1000]. The largest is that of the sets of
    /// cases, too
    #[arg(long, value_delimiter = ',', value_name = "N")]
    sizes: Vec<u32>,
    /// generator, plain-ip, plain-vxlan, routes, ebpf [default: all]
    #[arg(long, value_delimiter = ',', value_name = "SUBJECT")]
    subjects: Vec<Who>,
    /// encapsulate, decapsulate, vpc-to-vpc [default: all]
    #[arg(long, value_delimiter = ',', value_name = "WAY")]
    ways: Vec<Way>,
    /// plain, ccsis, links, tracked, tcp: the sets of cases [default: all]
    #[arg(long, value_delimiter = ',', value_name = "SET")]
    cases: Vec<Set>,
    /// Rounds, each with every subject [default: 3; with --quick: 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Packets a run [default: 1000000; with --quick: 10000]
    #[arg(long, value_name = "N")]
    packets: Option<u32>,
    /// The CPU to run on [default: the last one there is]
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

/// A set of cases that differ in one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Set {
    /// How many VMs.
    Plain,
    /// How many CCSIs the same VPCs are in.
    Ccsis,
    /// How many links the same classic addresses are spread over.
    Links,
    /// The same flows, with and without reply tracking.
    Tracked,
    /// A TCP connection with large segments: throughput instead of CPU time.
    Tcp,
}

/// What subjects are set up for once, and then put to.
#[derive(Debug)]
struct Task {
    set: Set,
    shape: Shape,
    /// Behind the name of the way.
    suffix: String,
    ways: Vec<Way>,
    flows: Flows,
    subjects: Vec<Who>,
}

impl Options {
    pub(super) fn prepare(&self) -> Result<Option<(&'static str, String)>, Failure> {
        Ok(Softirqs::hand_down(self.cpu()?)?)
    }

    fn cpu(&self) -> Result<usize, Failure> {
        self.cpu.map_or_else(last_cpu, Ok)
    }

    fn sizes(&self) -> Vec<u32> {
        match (self.sizes.as_slice(), self.quick) {
            ([], false) => vec![1, 10_000, 100_000, 1_000_000],
            ([], true) => vec![1, 1_000],
            (some, _) => some.to_vec(),
        }
    }

    fn packets(&self) -> u32 {
        let default = if self.quick { 10_000 } else { 1_000_000 };
        self.packets.unwrap_or(default)
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn wants(&self, set: Set) -> bool {
        self.cases.is_empty() || self.cases.contains(&set)
    }

    /// All that is to be done, small before large.
    fn tasks(&self) -> Vec<Task> {
        let sizes = self.sizes();
        let largest = sizes.iter().copied().max().unwrap_or(1);
        let mut tasks = Vec::new();
        let mut add = |set: Set, shape: Shape, suffix: String, ways: &[Way], flows| {
            let wanted = |way: &&Way| self.ways.is_empty() || self.ways.contains(way);
            let ways: Vec<Way> = ways.iter().filter(wanted).copied().collect();
            let in_set =
                |who: &Who| set == Set::Plain || !matches!(who, Who::Generator | Who::PlainIp);
            let wanted = |who: &Who| self.subjects.is_empty() || self.subjects.contains(who);
            let subjects = Who::ALL.into_iter().filter(in_set).filter(wanted);
            if self.wants(set) && !ways.is_empty() {
                tasks.push(Task {
                    set,
                    shape,
                    suffix,
                    ways,
                    flows,
                    subjects: subjects.collect(),
                });
            }
        };
        let plain = Shape::plain;
        for &vms in &sizes {
            add(Set::Plain, plain(vms), String::new(), &Way::ALL, Flows::Any);
        }
        // What the routes plane takes, and what it does not.
        let few = if self.quick { 8 } else { 256 };
        let many = if self.quick { 8 } else { 4_096 };
        let mut ccsis = vec![(10_000, few, 1), (10_000, few, few)];
        ccsis.extend([1, 256, 4_096].map(|ccsis| (largest, many, ccsis)));
        if self.quick {
            ccsis = vec![(largest, many, 1), (largest, many, many)];
        }
        for (vms, vpcs, ccsis) in ccsis {
            if vms > largest || vpcs > vms || ccsis > vpcs {
                continue;
            }
            let shape = Shape {
                vpcs,
                ccsis,
                ..plain(vms)
            };
            let suffix = format!("/ccsis={ccsis}");
            add(Set::Ccsis, shape, suffix, &Way::ALL, Flows::Any);
        }
        let two_ways = [Way::Encapsulate, Way::Decapsulate];
        for fine_links in [false, true] {
            let shape = Shape {
                vpcs: 1,
                classics: if self.quick { 8 } else { shape::CLASSICS },
                fine_links,
                ..plain(largest)
            };
            let suffix = format!("/links={}", shape.links());
            add(Set::Links, shape, suffix, &two_ways, Flows::Any);
        }
        let flows = if self.quick { 100 } else { FLOWS };
        for (mode, suffix) in [(Mode::Both, "/untracked"), (Mode::ClassicToVpc, "/tracked")] {
            let shape = Shape {
                mode,
                ..plain(largest)
            };
            let suffix = suffix.to_owned();
            add(Set::Tracked, shape, suffix, &two_ways, Flows::Of(flows));
        }
        tasks
    }
}

/// Runs it.
///
/// # Errors
/// The system refuses something, or runs were void.
pub fn run(options: &Options, _lab: &Lab, report: &mut Report) -> Result<(), Failure> {
    let mut frames = Frames::load(options.cpu()?)?;
    let mut void = 0;
    let tasks = options.tasks();
    for set in tasks.chunk_by(|one, other| one.set == other.set) {
        void += alternate(set, options, &mut frames, report)?;
    }
    if let Some(task) = tasks.first()
        && !Path::new("/sys/module/openvswitch").exists()
    {
        let name = task.name(task.ways[0]);
        let note = "no openvswitch beside it: this kernel has none";
        report.note(task.case(&name), Who::PlainVxlan.name(), note);
    }
    if options.wants(Set::Tcp) {
        throughput(options, report)?;
    }
    bars::tell(report);
    match void {
        0 => Ok(()),
        void => Err(format!("{void} runs were void; the notes say why").into()),
    }
}

/// Sets the subjects of all cases of a set up, runs all rounds and takes them down. Cases are held against one
/// another, so they stand beside one another and take turns: a machine is not the same from one minute to the
/// next. Answers how many runs were void.
fn alternate(
    tasks: &[Task],
    options: &Options,
    frames: &mut Frames,
    report: &mut Report,
) -> Result<usize, Failure> {
    let mut standing: Vec<Vec<Standing>> = Vec::new();
    for (number, task) in tasks.iter().enumerate() {
        standing.push(task.set_up(number, frames, report)?);
    }
    let outcome = rounds(tasks, options, frames, &mut standing, report);
    report.progress("taking the subjects down");
    let left: Vec<_> = standing
        .into_iter()
        .flatten()
        .map(Standing::leave)
        .collect();
    let void = outcome?;
    left.into_iter().collect::<Result<(), Failure>>()?;
    Ok(void)
}

fn rounds(
    tasks: &[Task],
    options: &Options,
    frames: &mut Frames,
    standing: &mut [Vec<Standing>],
    report: &mut Report,
) -> Result<usize, Failure> {
    let mut void = 0;
    for round in 1..=options.rounds() {
        for way in Way::ALL {
            for (task, standing) in tasks.iter().zip(standing.iter_mut()) {
                if task.ways.contains(&way) {
                    let packets = options.packets();
                    void += task.run(way, round, packets, frames, standing, report)?;
                }
            }
        }
    }
    Ok(void)
}

impl Task {
    fn set_up(
        &self,
        number: usize,
        frames: &mut Frames,
        report: &mut Report,
    ) -> Result<Vec<Standing>, Failure> {
        let mut standing = Vec::new();
        for &who in &self.subjects {
            let takes = |way: &Way| who.refuses(&self.shape, *way).is_none();
            if self.ways.iter().any(takes) {
                let vms = self.shape.vms;
                report.progress(&format!("setting {who} up for {vms} VMs{}", self.suffix));
                let mut ready = Standing::build(who, &format!("{who}{number}"), self.shape)?;
                ready.stage().add_sink(frames.sink()?)?;
                standing.push(ready);
            }
        }
        Ok(standing)
    }

    fn run(
        &self,
        way: Way,
        round: usize,
        packets: u32,
        frames: &mut Frames,
        standing: &mut [Standing],
        report: &mut Report,
    ) -> Result<usize, Failure> {
        let mut void = 0;
        let name = self.name(way);
        for &who in &self.subjects {
            if let Some(refusal) = who.refuses(&self.shape, way) {
                report.note(self.case(&name), who.name(), &refusal);
                continue;
            }
            let Some(subject) = standing.iter_mut().find(|it| it.who() == who) else {
                continue;
            };
            report.progress(&format!("{name} {} {who}, round {round}", self.shape.vms));
            if let Flows::Of(flows) = self.flows {
                // Classic hosts open them all.
                subject.run(frames, Way::Encapsulate, Flows::EachOf(flows), flows)?;
            }
            // Once to have all warm, and once to measure.
            let run = subject
                .run(frames, way, self.flows, packets / 10)
                .and_then(|_| subject.run(frames, way, self.flows, packets));
            match run {
                Ok(run) => {
                    let nanoseconds = run.cpu.as_secs_f64() * 1e9 / run.made as f64;
                    report.add(self.case(&name), who.name(), nanoseconds);
                }
                Err(error) => {
                    void += 1;
                    report.note(self.case(&name), who.name(), &error.to_string());
                }
            }
        }
        Ok(void)
    }

    fn name(&self, way: Way) -> String {
        format!("{}{}", way.name(), self.suffix)
    }

    fn case<'a>(&self, name: &'a str) -> Case<'a> {
        Case {
            name,
            n: self.shape.vms as usize,
            unit: "ns",
        }
    }
}

/// TCP through each subject, one VM behind it.
fn throughput(options: &Options, report: &mut Report) -> Result<(), Failure> {
    let time = Duration::from_millis(if options.quick { 100 } else { 3_000 });
    let shape = Shape::plain(1);
    for _ in 0..options.rounds() {
        for who in Who::ALL {
            let wanted = options.subjects.is_empty() || options.subjects.contains(&who);
            // The plain IP gateway has no VXLAN that the VM could be behind.
            if !wanted || matches!(who, Who::Generator | Who::PlainIp) {
                continue;
            }
            let mut standing = Standing::build(who, who.name(), shape)?;
            let measured = tcp(&mut standing, &shape, time);
            standing.leave()?;
            for (name, gigabits) in measured? {
                let case = Case {
                    name,
                    n: shape.vms as usize,
                    unit: "Gbit/s",
                };
                report.add(case, who.name(), gigabits);
            }
        }
    }
    Ok(())
}

fn tcp(
    standing: &mut Standing,
    shape: &Shape,
    time: Duration,
) -> Result<[(&'static str, f64); 2], Failure> {
    let ends = Ends::equip(standing.stage(), shape)?;
    Ok([
        ("tcp/to-vpc", ends.measure(Direction::ToVpc, time)?),
        ("tcp/from-vpc", ends.measure(Direction::FromVpc, time)?),
    ])
}

/// The last of the CPUs that this thread may run on.
fn last_cpu() -> Result<usize, Failure> {
    let cpus = sched_getaffinity(Pid::from_raw(0))?;
    (0..CpuSet::count())
        .rev()
        .find(|cpu| cpus.is_set(*cpu).unwrap_or(false))
        .ok_or_else(|| "there is no CPU to run on".into())
}
