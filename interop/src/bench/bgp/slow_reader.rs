//! `slow-reader`: two sinks with the whole table while it churns; one of them stops reading for a
//! while. What the other one feels of it, what the subject keeps in memory meanwhile, and what becomes
//! of the slow one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Failure, Run};
use crate::bench::line::{Line, LineError, SessionId};
use crate::bench::prefix_set::{PrefixId, PrefixSet};
use crate::bench::report::percentile;
use crate::bench::stream::{MARKER, single};
use crate::bench::subject;

/// Prefixes that change at once, about.
const PART: usize = 500;
/// From one change of the probe to the next, at least.
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// How often the subject's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) const BEFORE_P50: (&str, &str) = ("slow-reader/before-p50", "s");
const BEFORE_P99: (&str, &str) = ("slow-reader/before-p99", "s");
const DURING_P50: (&str, &str) = ("slow-reader/during-p50", "s");
const DURING_P99: (&str, &str) = ("slow-reader/during-p99", "s");
const RESIDENT: (&str, &str) = ("slow-reader/memory", "bytes");
const CAUGHT_UP: (&str, &str) = ("slow-reader/caught-up", "s");

/// The times of a slow reader.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// Churn with both reading.
    before: Duration,
    /// Churn with one of them not reading.
    during: Duration,
    /// In which the whole table has been withdrawn or announced once.
    turnover: Duration,
}

impl Run<'_> {
    /// The latency is that of one route, told again with another path every 20 ms amid the churn: from
    /// when it is handed to the injector's socket until it is at the sink that reads. `before` is with
    /// both reading, `during` with one not reading. `memory` is the most that was resident while it did
    /// not, over what was before, a route; `caught-up` how long the slow one took, once it read again,
    /// to have the right table.
    pub(super) fn slow_reader(&mut self) -> Result<(), Failure> {
        self.at = BEFORE_P50;
        let times = match self.options.quick {
            true => Times {
                before: Duration::from_secs(2),
                during: Duration::from_secs(3),
                turnover: Duration::from_secs(2),
            },
            false => Times {
                before: Duration::from_secs(20),
                during: Duration::from_secs(60),
                turnover: Duration::from_secs(40),
            },
        };
        let running = self.stage.start(self.subject)?;
        let mut line = Line::default();
        let mut identities = vec![subject::injector()];
        identities.extend_from_slice(&subject::sinks()[..2]);
        let (ids, _) = self.stage.establish(&mut line, &identities)?;
        let (fast, slow) = (ids[1], ids[2]);
        self.settle(&mut line)?;
        line.send(ids[0], Arc::clone(&self.stream.announce));
        self.await_all(&mut line, &ids[1..])?;
        self.settle(&mut line)?;

        let mut churn = Churn::new(self, ids[0], fast);
        let before = churn.run(&mut line, times.before, times.turnover, |_| Ok(()))?;
        self.latencies(&before, BEFORE_P50, BEFORE_P99);
        let full = running.usage()?.resident;

        self.at = DURING_P50;
        line.set_reading(slow, false);
        let (mut most, mut looked) = (full, Instant::now());
        let during = churn.run(&mut line, times.during, times.turnover, |_| {
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                most = most.max(running.usage()?.resident);
            }
            Ok(())
        })?;
        self.latencies(&during, DURING_P50, DURING_P99);
        let more = most.saturating_sub(full) as f64;
        self.add(RESIDENT, more / self.stream.prefixes.len() as f64);

        self.at = CAUGHT_UP;
        let right = churn.present.clone();
        line.set_reading(slow, true);
        let resumed = Instant::now();
        let caught_up = line.run("the right table at the slow sink", self.limit, |line| {
            line.tally(slow).present == right && line.tally(fast).present == right
        });
        match caught_up {
            Ok(()) => {
                self.add(CAUGHT_UP, resumed.elapsed().as_secs_f64());
                self.note_ended("the slow sink ended with the right table");
                Ok(())
            }
            Err(LineError::Ended { session, how }) if session == identities[2].name => {
                self.note_ended(&format!("the slow sink's session was torn down: {how}"));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn latencies(
        &mut self,
        seconds: &[f64],
        p50: (&'static str, &'static str),
        p99: (&'static str, &'static str),
    ) {
        for (case, share) in [(p50, 0.5), (p99, 0.99)] {
            if let Some(value) = percentile(seconds, share) {
                self.add(case, value);
            }
        }
    }

    fn note_ended(&mut self, how: &str) {
        let case = self.case(DURING_P99);
        self.report.note(case, &self.subject.to_string(), how);
    }
}

/// The table in parts that are withdrawn and announced in turn, and the probe among them.
struct Churn {
    injector: SessionId,
    fast: SessionId,
    parts: Vec<Part>,
    next: usize,
    present: PrefixSet,
    probes: u32,
}

struct Part {
    announce: Arc<[u8]>,
    withdraw: Arc<[u8]>,
    prefixes: Vec<PrefixId>,
    announced: bool,
}

impl Churn {
    /// Everything is serialised here, before any clock.
    fn new(run: &Run<'_>, injector: SessionId, fast: SessionId) -> Churn {
        let parts = run.stream.parts(PART).map(|prefixes| {
            let (announce, withdraw) = (
                run.stream.announce_part(&prefixes),
                run.stream.withdraw_part(&prefixes),
            );
            Part {
                announce: announce.into(),
                withdraw: withdraw.into(),
                prefixes: run.stream.prefixes[prefixes].to_vec(),
                announced: true,
            }
        });
        Churn {
            injector,
            fast,
            parts: parts.collect(),
            next: 0,
            present: run.stream.set.clone(),
            probes: 0,
        }
    }

    /// Churns and probes; the latencies of the probes in seconds. Ends with nothing on its way to the
    /// sink that reads.
    fn run(
        &mut self,
        line: &mut Line,
        time: Duration,
        turnover: Duration,
        mut look: impl FnMut(&Line) -> Result<(), Failure>,
    ) -> Result<Vec<f64>, Failure> {
        let pause = turnover / self.parts.len().max(1) as u32;
        let began = Instant::now();
        let (mut parts, mut seconds) = (0, Vec::new());
        let mut probed: Option<Instant> = None;
        while began.elapsed() < time {
            let due = began.elapsed().as_nanos() / pause.as_nanos().max(1);
            // What the subject does not take is not sent on top: the latency would be the queue's. The
            // probe goes right behind a part.
            let idle = line.sent(self.injector);
            while parts < due && line.sent(self.injector) {
                self.step(line);
                parts += 1;
            }
            let seen = line.tally(self.fast).watched.and_then(|(_, seen)| seen);
            match (probed, seen) {
                (Some(sent), Some(seen)) if seen >= sent => {
                    seconds.push((seen - sent).as_secs_f64());
                    probed = None;
                }
                (None, _) if idle => probed = Some(self.probe(line)),
                _ => {}
            }
            let wait = Instant::now() + PROBE_EVERY.min(pause);
            line.run("a moment", PROBE_EVERY * 1_000, |line| {
                Instant::now() >= wait || has_come(line, self.fast, probed)
            })?;
            look(line)?;
        }
        // What is left of the last part.
        line.run(
            "the churn at the sink that reads",
            PROBE_EVERY * 3_000,
            |line| line.sent(self.injector) && line.tally(self.fast).present == self.present,
        )?;
        Ok(seconds)
    }

    /// Withdraws the next part, or announces it again.
    fn step(&mut self, line: &mut Line) {
        let at = self.next % self.parts.len();
        self.next += 1;
        let part = &mut self.parts[at];
        let octets = if part.announced {
            &part.withdraw
        } else {
            &part.announce
        };
        line.send(self.injector, Arc::clone(octets));
        for prefix in &part.prefixes {
            if part.announced {
                self.present.remove(*prefix);
            } else {
                self.present.insert(*prefix);
            }
        }
        part.announced = !part.announced;
    }

    fn probe(&mut self, line: &mut Line) -> Instant {
        self.probes += 1;
        let injector = subject::injector();
        let octets = single(injector.asn, injector.address, MARKER, self.probes);
        line.watch(self.fast, MARKER);
        line.send(self.injector, octets.into());
        Instant::now()
    }
}

fn has_come(line: &Line, sink: SessionId, sent: Option<Instant>) -> bool {
    let seen = line.tally(sink).watched.and_then(|(_, seen)| seen);
    matches!((sent, seen), (Some(sent), Some(seen)) if seen >= sent)
}
