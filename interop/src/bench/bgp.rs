//! `bench bgp`: how fast a BGP daemon takes a table and passes it on, and what that costs it.
//!
//! One daemon at a time, alone in its namespace, a veth between it and the namespace of injector
//! and sinks. How each case is timed stands at its function.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use ipnet::{IpNet, Ipv4Net};
use netlink::NewLink;

use super::Failure;
use super::line::{Line, LineError, SessionId};
use super::ours::{build_speaker, speaker};
use super::report::{Case, Report};
use super::stream::{MARKER, Stream};
use super::subject::{self, Running, Site, Subject, SubjectError};
use crate::enter::{Chain, Lab};
use crate::topology::{Node, Role};

mod slow_reader;

/// How long sessions may take to come up.
const SESSIONS: Duration = Duration::from_secs(60);
/// Prefixes that are originated through each subject's API.
const ORIGINATED: usize = 100_000;

/// What to run.
#[derive(Debug, Args)]
pub struct Options {
    /// A small run that finishes within a minute: shows that all of it works
    #[arg(long)]
    quick: bool,
    /// Table sizes, prefixes [default: 10000,100000,1000000; with --quick: 2000]
    #[arg(long, value_delimiter = ',', value_name = "N")]
    sizes: Vec<usize>,
    /// ours, bird, gobgp, frr, openbgpd, or NAME=PATH of another build of the speaker [default: all five]
    #[arg(long, value_delimiter = ',', value_parser = parse_subject, value_name = "SUBJECT")]
    subjects: Vec<Subject>,
    /// learn, memory, late-joiner, pass-on-1, pass-on-8, withdraw, originate, slow-reader [default: all]
    #[arg(long, value_delimiter = ',', value_name = "CASE")]
    cases: Vec<CaseName>,
    /// Rounds, each with every subject [default: 3; with --quick: 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Seconds that one case may take [default: 60 to 200, by size]
    #[arg(long, value_name = "S")]
    limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CaseName {
    Learn,
    Memory,
    LateJoiner,
    #[value(name = "pass-on-1")]
    PassOn1,
    #[value(name = "pass-on-8")]
    PassOn8,
    Withdraw,
    Originate,
    SlowReader,
}

impl Options {
    pub(super) fn prepare(&self) -> Result<(), Failure> {
        let ours = |subject: &Subject| matches!(subject, Subject::Ours(_));
        if self.subjects.is_empty() || self.subjects.iter().any(ours) {
            build_speaker()?;
        }
        Ok(())
    }

    fn wants(&self, any: &[CaseName]) -> bool {
        self.cases.is_empty() || any.iter().any(|case| self.cases.contains(case))
    }

    fn subjects(&self) -> Result<Vec<Subject>, Failure> {
        if !self.subjects.is_empty() {
            return Ok(self.subjects.clone());
        }
        let ours = Subject::Ours(speaker()?);
        Ok(vec![
            ours,
            Subject::Bird,
            Subject::Gobgp,
            Subject::Frr,
            Subject::Openbgpd,
        ])
    }

    fn sizes(&self) -> Vec<usize> {
        match (self.sizes.as_slice(), self.quick) {
            ([], true) => vec![2_000],
            ([], false) => vec![10_000, 100_000, 1_000_000],
            (sizes, _) => sizes.to_vec(),
        }
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn limit(&self, size: usize) -> Duration {
        let default = 60 + (size as u64) / 10_000 * 14 / 10;
        Duration::from_secs(self.limit.unwrap_or(default))
    }
}

fn parse_subject(text: &str) -> Result<Subject, String> {
    Ok(match text {
        "ours" => Subject::Ours(speaker().map_err(|error| error.to_string())?),
        "bird" => Subject::Bird,
        "gobgp" => Subject::Gobgp,
        "frr" => Subject::Frr,
        "openbgpd" => Subject::Openbgpd,
        other => match other.split_once('=') {
            Some((name, path)) if !name.is_empty() => Subject::Other(name.to_owned(), path.into()),
            _ => return Err("ours, bird, gobgp, frr, openbgpd or NAME=PATH expected".to_owned()),
        },
    })
}

/// Runs it.
///
/// # Errors
/// The lab cannot be built, or the bench's own side fails. That a subject fails is a note.
pub fn run(options: &Options, lab: &Lab, report: &mut Report) -> Result<(), Failure> {
    let stage = Stage::build(lab)?;
    let mut hopeless: Vec<(String, Group, usize)> = Vec::new();
    let largest = options.sizes().into_iter().max();
    for size in options.sizes() {
        let asn = subject::injector().asn;
        let stream = Stream::generate(size.max(1), asn, subject::injector().address);
        floor(&stage, &stream, report)?;
        for round in 0..options.rounds() {
            for subject in options.subjects()? {
                for group in Group::ALL {
                    let known = (subject.to_string(), group, size);
                    if !options.wants(group.cases()) || hopeless.contains(&known) {
                        continue;
                    }
                    // It takes minutes, and what it shows does not depend on the size.
                    if group == Group::SlowReader && (round > 0 || Some(size) != largest) {
                        continue;
                    }
                    report.progress(&format!("{size} {subject} {group:?}, round {}", round + 1));
                    let mut run = Run {
                        options,
                        stage: &stage,
                        stream: &stream,
                        subject: &subject,
                        report,
                        limit: options.limit(size),
                        at: group.first(),
                    };
                    if let Err(error) = run.group(group) {
                        let case = run.case(run.at);
                        report.note(case, &subject.to_string(), &reason(&error));
                        hopeless.push(known);
                    }
                }
            }
        }
    }
    Ok(())
}

fn reason(error: &Failure) -> String {
    match error.downcast_ref::<LineError>() {
        Some(LineError::Late { limit, .. }) => format!("over {} s, given up", limit.as_secs()),
        _ => Chain(error.as_ref()).to_string(),
    }
}

/// Cases that one start of the subject serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Learn,
    PassOn1,
    PassOn8,
    Originate,
    SlowReader,
}

impl Group {
    const ALL: [Group; 5] = [
        Group::Learn,
        Group::PassOn1,
        Group::PassOn8,
        Group::Originate,
        Group::SlowReader,
    ];

    fn cases(self) -> &'static [CaseName] {
        match self {
            Group::Learn => &[CaseName::Learn, CaseName::Memory, CaseName::LateJoiner],
            Group::PassOn1 => &[CaseName::PassOn1, CaseName::Withdraw],
            Group::PassOn8 => &[CaseName::PassOn8],
            Group::Originate => &[CaseName::Originate],
            Group::SlowReader => &[CaseName::SlowReader],
        }
    }

    /// What is named when it does not even begin.
    fn first(self) -> (&'static str, &'static str) {
        match self {
            Group::Learn => LEARN,
            Group::PassOn1 => PASS_ON_1,
            Group::PassOn8 => PASS_ON_8,
            Group::Originate => ORIGINATE,
            Group::SlowReader => slow_reader::BEFORE_P50,
        }
    }
}

const LEARN: (&str, &str) = ("learn", "s");
const LEARN_CPU: (&str, &str) = ("learn/cpu", "s");
const MEMORY: (&str, &str) = ("memory", "bytes");
const LATE_JOINER: (&str, &str) = ("late-joiner", "s");
const LATE_UPDATES: (&str, &str) = ("late-joiner/updates", "UPDATEs");
const LATE_REPEATED: (&str, &str) = ("late-joiner/repeated", "routes");
const PASS_ON_1: (&str, &str) = ("pass-on-1", "s");
const PASS_ON_1_CPU: (&str, &str) = ("pass-on-1/cpu", "s");
const PASS_ON_8: (&str, &str) = ("pass-on-8", "s");
const PASS_ON_8_CPU: (&str, &str) = ("pass-on-8/cpu", "s");
const WITHDRAW: (&str, &str) = ("withdraw", "s");
const WITHDRAW_CPU: (&str, &str) = ("withdraw/cpu", "s");
const ORIGINATE: (&str, &str) = ("originate", "s");

/// The two namespaces.
#[derive(Debug)]
pub struct Stage {
    subject: Node,
    bench: Node,
    site: Site,
}

impl Stage {
    /// Makes them and joins them.
    ///
    /// # Errors
    /// The system refuses.
    pub fn build(lab: &Lab) -> Result<Stage, Failure> {
        let mut subject = Node::create("subject", Role::Host)?;
        let mut bench = Node::create("bench", Role::Host)?;
        bench.add_link(NewLink::veth_to("eth0", "eth0", subject.namespace()))?;
        subject.set_up("eth0")?;
        let address = |address| Ipv4Net::new(address, 24).map(IpNet::from);
        subject.add_addresses("eth0", &[address(subject::ADDRESS)?])?;
        let addresses: Result<Vec<IpNet>, _> = subject::identities()
            .iter()
            .map(|identity| address(identity.address))
            .collect();
        bench.add_addresses("eth0", &addresses?)?;
        bench.await_ready("eth0")?;
        subject.await_ready("eth0")?;
        let site = Site {
            namespace: subject.namespace().clone(),
            directory: lab.run().join("subject"),
            logs: lab.scratch().to_owned(),
        };
        Ok(Stage {
            subject,
            bench,
            site,
        })
    }

    /// Starts a subject with nothing in its table.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(&self, subject: &Subject) -> Result<Running, SubjectError> {
        subject.start(&self.site)
    }

    /// Sessions with the subject.
    ///
    /// # Errors
    /// One does not come up.
    pub fn establish(
        &self,
        line: &mut Line,
        identities: &[super::line::Identity],
    ) -> Result<(Vec<SessionId>, Instant), LineError> {
        let to = SocketAddr::from((subject::ADDRESS, subject::PORT));
        line.establish(self.bench.namespace(), identities, to, SESSIONS)
    }
}

/// A subject in one group of cases.
struct Run<'a> {
    options: &'a Options,
    stage: &'a Stage,
    stream: &'a Stream,
    subject: &'a Subject,
    report: &'a mut Report,
    limit: Duration,
    /// The case that is at work, to be named if it fails.
    at: (&'static str, &'static str),
}

impl Run<'_> {
    fn group(&mut self, group: Group) -> Result<(), Failure> {
        match group {
            Group::Learn => self.learn(),
            Group::PassOn1 => self.pass_on(1),
            Group::PassOn8 => self.pass_on(subject::SINKS),
            Group::Originate => self.originate(),
            Group::SlowReader => self.slow_reader(),
        }
    }

    fn case(&self, (name, unit): (&'static str, &'static str)) -> Case<'static> {
        let n = self.stream.prefixes.len();
        Case { name, n, unit }
    }

    fn add(&mut self, case: (&'static str, &'static str), value: f64) {
        let case = self.case(case);
        self.report.add(case, &self.subject.to_string(), value);
    }

    /// `learn`: from the first octet of the table sent until the witness, which is told the marker
    /// only, has the marker: the table's last route. A subject deals with the routes of a session in their
    /// order, so it has then taken all. The same for every subject, and nobody is asked in a loop.
    ///
    /// `memory`: what is resident with the table and was not before it, a route.
    ///
    /// `late-joiner`: from the connect of a sink that joins when the table is full and the subject is
    /// quiet until it has all routes; with it how many UPDATEs it got, and how many routes twice.
    fn learn(&mut self) -> Result<(), Failure> {
        self.at = LEARN;
        let running = self.stage.start(self.subject)?;
        let mut line = Line::default();
        let (ids, _) = self
            .stage
            .establish(&mut line, &[subject::injector(), subject::witness()])?;
        let (injector, witness) = (ids[0], ids[1]);
        self.settle(&mut line)?;
        let before = running.usage()?;
        line.send(injector, Arc::clone(&self.stream.announce));
        line.run("the marker at the witness", self.limit, |line| {
            line.tally(witness).present.len() == 1
        })?;
        let used = running.usage()?.cpu.saturating_sub(before.cpu);
        self.add(LEARN, since(&line, injector, line.tally(witness).last));
        self.add(LEARN_CPU, used.as_secs_f64());
        self.settle(&mut line)?;
        let resident = running.usage()?.resident.saturating_sub(before.resident);
        self.add(MEMORY, resident as f64 / self.stream.prefixes.len() as f64);
        if !self.options.wants(&[CaseName::LateJoiner]) {
            return Ok(());
        }
        self.at = LATE_JOINER;
        let (ids, began) = self.stage.establish(&mut line, &subject::sinks()[..1])?;
        self.await_all(&mut line, &ids)?;
        let last = line.tally(ids[0]).last.unwrap_or(began);
        self.add(LATE_JOINER, (last - began).as_secs_f64());
        // What comes twice comes right behind.
        self.settle(&mut line)?;
        let tally = line.tally(ids[0]);
        let (updates, repeated) = (tally.updates, tally.repeated);
        self.add(LATE_UPDATES, updates as f64);
        self.add(LATE_REPEATED, repeated as f64);
        Ok(())
    }

    /// `pass-on-1`, `pass-on-8`: from the first octet of the table sent until the last sink has
    /// the last route; `/cpu` what the subject used meanwhile, user and system.
    ///
    /// `withdraw`: from the first octet of the withdrawals sent until the one sink has none left.
    fn pass_on(&mut self, sinks: usize) -> Result<(), Failure> {
        let (wall, cpu) = match sinks {
            1 => (PASS_ON_1, PASS_ON_1_CPU),
            _ => (PASS_ON_8, PASS_ON_8_CPU),
        };
        self.at = wall;
        let running = self.stage.start(self.subject)?;
        let mut line = Line::default();
        let mut identities = vec![subject::injector()];
        identities.extend_from_slice(&subject::sinks()[..sinks]);
        let (ids, _) = self.stage.establish(&mut line, &identities)?;
        self.settle(&mut line)?;
        let before = running.usage()?;
        line.send(ids[0], Arc::clone(&self.stream.announce));
        self.await_all(&mut line, &ids[1..])?;
        let used = running.usage()?.cpu.saturating_sub(before.cpu);
        let last = ids[1..].iter().filter_map(|id| line.tally(*id).last).max();
        self.add(wall, since(&line, ids[0], last));
        self.add(cpu, used.as_secs_f64());
        if sinks > 1 || !self.options.wants(&[CaseName::Withdraw]) {
            return Ok(());
        }
        self.at = WITHDRAW;
        self.settle(&mut line)?;
        let before = running.usage()?;
        line.send(ids[0], Arc::clone(&self.stream.withdraw));
        line.run("everything withdrawn", self.limit, |line| {
            line.tally(ids[1]).present.is_empty()
        })?;
        let used = running.usage()?.cpu.saturating_sub(before.cpu);
        self.add(WITHDRAW_CPU, used.as_secs_f64());
        self.add(WITHDRAW, since(&line, ids[0], line.tally(ids[1]).last));
        Ok(())
    }

    /// `originate`: from the start of the command (for ours: the first line written) until a sink has
    /// the last route. What the command reads is written before.
    fn originate(&mut self) -> Result<(), Failure> {
        self.at = ORIGINATE;
        let most = if self.options.quick {
            usize::MAX
        } else {
            ORIGINATED
        };
        if self.stream.prefixes.len() > most {
            return Ok(());
        }
        let mut running = self.stage.start(self.subject)?;
        let mut line = Line::default();
        let (ids, _) = self.stage.establish(&mut line, &subject::sinks()[..1])?;
        self.settle(&mut line)?;
        let prepared = running.originate(&self.stream.prefixes)?;
        let began = Instant::now();
        let mut order = running.carry_out(prepared)?;
        let mut failed = None;
        let came = line.run("the originated routes", self.limit, |line| {
            failed = order.has_ended().err();
            failed.is_some() || line.tally(ids[0]).present.len() == self.stream.set.len()
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        came?;
        self.check(&line, &ids)?;
        let last = line.tally(ids[0]).last.unwrap_or(began);
        self.add(ORIGINATE, (last - began).as_secs_f64());
        Ok(())
    }

    /// Lets what follows an event come to its end: a time in which nothing arrives. FRR does nothing
    /// for a second after a session is established, and shall not be charged for it.
    fn settle(&self, line: &mut Line) -> Result<(), LineError> {
        let quiet = Duration::from_millis(if self.options.quick { 300 } else { 2_000 });
        let began = Instant::now();
        line.run("quiet", self.limit, |line| {
            let last = line.last().map_or(began, |last| last.max(began));
            last.elapsed() >= quiet
        })
    }

    /// Serves the line until these sinks have the whole table, and nothing else.
    fn await_all(&self, line: &mut Line, sinks: &[SessionId]) -> Result<(), Failure> {
        let all = self.stream.set.len();
        line.run("every route at every sink", self.limit, |line| {
            sinks
                .iter()
                .all(|sink| line.tally(*sink).present.len() >= all)
        })?;
        self.check(line, sinks)
    }

    /// Whether what has arrived is what was sent.
    fn check(&self, line: &Line, sinks: &[SessionId]) -> Result<(), Failure> {
        for sink in sinks {
            let present = &line.tally(*sink).present;
            if *present != self.stream.set {
                return Err(format!("sent {:?}, arrived {present:?}", self.stream.set).into());
            }
        }
        Ok(())
    }
}

/// Seconds from the first octet sent until `last`.
fn since(line: &Line, injector: SessionId, last: Option<Instant>) -> f64 {
    match (line.began(injector), last) {
        (Some(began), Some(last)) => last.saturating_duration_since(began).as_secs_f64(),
        _ => 0.0,
    }
}

/// The floor: injector and sinks joined without a subject, over the same veth, one stream a sink.
fn floor(stage: &Stage, stream: &Stream, report: &mut Report) -> Result<(), Failure> {
    for (name, sinks) in [("pass-on-1", 1), ("pass-on-8", subject::SINKS)] {
        let mut line = Line::default();
        let address = SocketAddr::from((subject::ADDRESS, subject::PORT));
        let listener = stage
            .subject
            .namespace()
            .enter(|| std::net::TcpListener::bind(address))??;
        let mut pairs = Vec::new();
        for identity in subject::sinks().into_iter().take(sinks) {
            let near = line.connect(stage.bench.namespace(), &identity, address)?;
            let (far, _) = listener.accept()?;
            pairs.push((near, line.adopt(subject::injector(), far)?));
        }
        line.run("sessions established", SESSIONS, |line| {
            line.all_established()
        })?;
        for (near, _) in &pairs {
            line.send(*near, Arc::clone(&stream.announce));
        }
        let all = stream.set.len();
        line.run("the floor", SESSIONS, |line| {
            pairs
                .iter()
                .all(|(_, far)| line.tally(*far).present.len() == all)
        })?;
        let began = pairs.iter().filter_map(|(near, _)| line.began(*near)).min();
        let last = pairs
            .iter()
            .filter_map(|(_, far)| line.tally(*far).last)
            .max();
        if let (Some(began), Some(last)) = (began, last) {
            let case = Case {
                name,
                n: stream.prefixes.len(),
                unit: "s",
            };
            report.add(case, "floor", (last - began).as_secs_f64());
        }
    }
    // The marker is a prefix of each table.
    debug_assert_eq!(stream.prefixes.last(), Some(&MARKER));
    Ok(())
}
