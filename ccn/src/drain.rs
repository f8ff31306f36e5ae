//! Draining a gateway, and bringing it back: others are told first, then the announcements go, and then it is counted
//! whether packets still come. Its forwarding stays all the while.
//!
//! A state machine without I/O: it is fed orders, answers and the time, and [`Drain::poll`] says what to do. What may
//! be announced at which moment is the business of the order of change ([`crate::order`]), which it does not go past.

mod mark;
mod meter;
mod run;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bgp::PeerName;
use serde::Serialize;

use crate::order::Announcing;
use meter::{Measured, Meter};

pub use mark::Mark;
pub use meter::{Carrier, Carrying, Counts, Rate, Ways};
pub use run::{DrainHandle, Drainer};

/// How long packets are counted for one figure.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How long the peers may take to have the mark of RFC 8326 before the time to settle begins all the same.
const MARK_WAIT: Duration = Duration::from_secs(5);
/// The longest that routers may be given to move, or to be waited for.
const MOST: Duration = Duration::from_secs(3600);
/// Carriers that a text names.
const NAMED: usize = 5;

/// How to drain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// How long routers may take to move to other gateways once they know that this one is about to go.
    pub settle: Duration,
    /// From the withdrawal: how long the peers may take to have it, and traffic to end.
    pub wait: Duration,
    /// Packets a second, in either direction, that are no traffic any more.
    pub threshold: f64,
    /// An agent that is restarted shall still be drained.
    pub remember: bool,
}

impl Terms {
    /// The first of them that makes no sense, and why.
    #[must_use]
    pub fn first_fault(&self) -> Option<(&'static str, String)> {
        for (field, time) in [("settle", self.settle), ("wait", self.wait)] {
            if time > MOST {
                let reason = format!("{} s is over {} s", time.as_secs(), MOST.as_secs());
                return Some((field, reason));
            }
        }
        let is_rate = self.threshold.is_finite() && self.threshold >= 0.0;
        let reason = || format!("{} is no rate of packets", self.threshold);
        (!is_rate).then(|| ("threshold", reason()))
    }

    /// The longest that draining takes.
    #[must_use]
    pub fn longest(&self) -> Duration {
        INTERVAL * 2 + MARK_WAIT + self.settle + self.wait
    }
}

/// Where a gateway stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "DrainState")]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It announces what it serves.
    #[default]
    Serving,
    /// It announces nothing new, and then nothing.
    Draining,
    /// It announces nothing.
    Drained,
    /// It announces again; the peers may not have it yet.
    Returning,
}

impl State {
    /// As a metric: 0 serving, 1 draining, 2 drained, 3 returning.
    #[must_use]
    pub fn number(self) -> u64 {
        self as u64
    }
}

/// The part of a drain that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "DrainStep")]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Packets are counted, before anybody is told.
    Counting,
    /// Every route says that this gateway is about to go; waits until the peers have it.
    Telling,
    /// Routers have time to move.
    Settling,
    /// Nothing is announced any more; waits until the peers have it.
    Withdrawing,
    /// Packets that still come are counted.
    Measuring,
}

/// What packets a second were counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Rates {
    /// Before anybody was told.
    pub before: Option<Rate>,
    /// At the end of the time to settle.
    pub after_gshut: Option<Rate>,
    /// After the withdrawal, at last.
    pub after_withdrawal: Option<Rate>,
}

/// How a drain, or the way back, goes or went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "DrainReport")]
pub struct Report {
    /// Where the gateway stands.
    pub state: State,
    /// What is under way, while it is draining.
    pub step: Option<Step>,
    /// Since when it is draining or drained, in seconds since 1970.
    pub since: Option<u64>,
    /// Whether the agent and its host can be stopped without losing a packet; null until that was measured.
    pub safe_to_stop: Option<bool>,
    /// Why they cannot.
    pub why_not: Option<String>,
    /// Peers that have what was said last: the mark of RFC 8326, or the announcements when the gateway returns.
    pub peers_told: Vec<PeerName>,
    /// Peers that have not taken what was said last in time.
    pub peers_late: Vec<PeerName>,
    /// Prefixes that were withdrawn.
    pub prefixes_withdrawn: Option<usize>,
    /// Prefixes that are announced again.
    pub prefixes_announced: Option<usize>,
    /// Packets a second that were forwarded.
    pub packets_per_s: Rates,
    /// What carried packets at last, the busiest first.
    pub carriers: Vec<Carrying>,
    /// It is drained after a restart of the agent.
    pub remembered: bool,
}

/// A question, so that its answer is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Keep over a restart that the gateway is drained since then; or that it is not.
    Remember(Option<u64>),
    /// Say in every route that the gateway is about to go (RFC 8326), or take that back.
    Mark(bool),
    /// So much may be announced; answer with [`Drain::announced`] when the speaker has been told.
    Announce(Announcing, Ticket),
    /// Wait so long at most until the peers have everything; answer with [`Drain::flushed`].
    Flush(Duration, Ticket),
    /// Count packets; answer with [`Drain::counted`].
    Count(Ticket),
}

/// What a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Announcing,
    Peers,
    Packets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    Counting,
    Telling,
    Settling,
    Withdrawing { deadline: Instant },
    Measuring { deadline: Instant },
    Drained,
    Returning { wait: Duration },
}

/// See the module's words.
#[derive(Debug)]
pub struct Drain {
    phase: Phase,
    terms: Terms,
    report: Report,
    meter: Meter,
    tickets: u64,
    /// The question that is not answered; an earlier one is void.
    open: Option<(Ticket, Question)>,
    outputs: VecDeque<Output>,
}

impl Drain {
    /// A gateway that serves; or, with a time in seconds since 1970, one that was drained then and whose agent was
    /// restarted since.
    #[must_use]
    pub fn new(drained: Option<u64>) -> Drain {
        Drain {
            phase: match drained {
                Some(_) => Phase::Drained,
                None => Phase::Serving,
            },
            terms: Terms {
                settle: Duration::ZERO,
                wait: Duration::ZERO,
                threshold: 0.0,
                remember: false,
            },
            report: Report {
                since: drained,
                remembered: drained.is_some(),
                ..Report::default()
            },
            meter: Meter::default(),
            tickets: 0,
            open: None,
            outputs: VecDeque::new(),
        }
    }

    /// How it goes.
    #[must_use]
    pub fn report(&self) -> Report {
        let (state, step) = match self.phase {
            Phase::Serving => (State::Serving, None),
            Phase::Counting => (State::Draining, Some(Step::Counting)),
            Phase::Telling => (State::Draining, Some(Step::Telling)),
            Phase::Settling => (State::Draining, Some(Step::Settling)),
            Phase::Withdrawing { .. } => (State::Draining, Some(Step::Withdrawing)),
            Phase::Measuring { .. } => (State::Draining, Some(Step::Measuring)),
            Phase::Drained => (State::Drained, None),
            Phase::Returning { .. } => (State::Returning, None),
        };
        Report {
            state,
            step,
            ..self.report.clone()
        }
    }

    /// The gateway is to be drained; `since` is the time, in seconds since 1970. One that is draining goes on, and of one
    /// that is drained it is measured again whether packets come.
    pub fn drain(&mut self, terms: Terms, since: u64, now: Instant) {
        match self.phase {
            Phase::Serving | Phase::Returning { .. } => {
                self.terms = terms;
                self.report = Report {
                    since: Some(since),
                    ..Report::default()
                };
                self.phase = Phase::Counting;
                self.announce(Announcing::NothingNew);
                self.meter.begin(now, now + INTERVAL, INTERVAL);
            }
            Phase::Drained => {
                self.terms = terms;
                self.withdraw(now);
            }
            _ => {}
        }
        if terms.remember && !self.report.remembered {
            self.report.remembered = true;
            self.outputs.push_back(Output::Remember(self.report.since));
        }
    }

    /// The gateway is to serve again; the peers may take so long to have that.
    pub fn undrain(&mut self, wait: Duration) {
        if self.report.remembered {
            self.outputs.push_back(Output::Remember(None));
        }
        self.report = Report::default();
        if self.phase == Phase::Serving {
            return;
        }
        self.meter.end();
        self.phase = Phase::Returning { wait };
        // First, so that what is announced again does not say that it is about to go.
        self.outputs.push_back(Output::Mark(false));
        self.announce(Announcing::Everything);
    }

    /// What was to be remembered could not be written down: after a restart it is as it was before.
    pub fn not_kept(&mut self, since: Option<u64>) {
        self.report.remembered = since.is_none();
    }

    /// The speaker knows how much may be announced; so many prefixes were announced before, and are now.
    pub fn announced(&mut self, ticket: Ticket, before: usize, after: usize, now: Instant) {
        if !self.is_answered(ticket, Question::Announcing) {
            return;
        }
        match self.phase {
            Phase::Withdrawing { deadline } => {
                // Asked again, nothing is left to be withdrawn.
                let earlier = self.report.prefixes_withdrawn.unwrap_or(0);
                self.report.prefixes_withdrawn = Some(earlier + before);
                self.flush(deadline.saturating_duration_since(now));
            }
            Phase::Returning { wait } => {
                self.report.prefixes_announced = Some(after);
                self.flush(wait);
            }
            _ => {}
        }
    }

    /// These peers have everything that was said so far, and these have not taken it in the time given.
    pub fn flushed(
        &mut self,
        ticket: Ticket,
        told: Vec<PeerName>,
        late: Vec<PeerName>,
        now: Instant,
    ) {
        if !self.is_answered(ticket, Question::Peers) {
            return;
        }
        self.report.peers_late = late;
        match self.phase {
            Phase::Telling => {
                self.report.peers_told = told;
                if self.terms.settle.is_zero() {
                    return self.withdraw(now);
                }
                let until = now + self.terms.settle;
                let span = INTERVAL.min(self.terms.settle);
                self.meter.begin(until - span, until, span);
                self.phase = Phase::Settling;
            }
            Phase::Withdrawing { deadline } => self.measure(deadline, now),
            Phase::Returning { .. } => {
                self.report.peers_told = told;
                self.phase = Phase::Serving;
            }
            _ => {}
        }
    }

    /// What was counted, or why nothing could be.
    pub fn counted(&mut self, ticket: Ticket, counts: Result<Counts, String>, now: Instant) {
        if !self.is_answered(ticket, Question::Packets) {
            return;
        }
        let measured = match counts {
            Ok(counts) => match self.meter.counted(counts, now) {
                Some(measured) => Ok(measured),
                None => return,
            },
            Err(reason) => Err(reason),
        };
        let rate = measured.as_ref().ok().map(|measured| measured.total);
        match self.phase {
            Phase::Counting => {
                self.report.packets_per_s.before = rate;
                self.meter.end();
                self.phase = Phase::Telling;
                self.outputs.push_back(Output::Mark(true));
                self.flush(MARK_WAIT);
            }
            // Where it cannot be counted the time to settle is over a little early.
            Phase::Settling => {
                self.report.packets_per_s.after_gshut = rate;
                self.withdraw(now);
            }
            Phase::Measuring { deadline } => self.measured(measured, deadline, now),
            _ => {}
        }
    }

    /// The next thing to do, if any. Call until it returns `None`, after every input and timeout.
    pub fn poll(&mut self, now: Instant) -> Option<Output> {
        if self.meter.due().is_some_and(|due| due <= now) {
            self.meter.asked();
            let ticket = self.ask(Question::Packets);
            self.outputs.push_back(Output::Count(ticket));
        }
        self.outputs.pop_front()
    }

    /// When to call [`Drain::poll`] again without any input.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.meter.due()
    }

    fn withdraw(&mut self, now: Instant) {
        self.meter.end();
        self.report.safe_to_stop = None;
        self.report.why_not = None;
        self.phase = Phase::Withdrawing {
            deadline: now + self.terms.wait,
        };
        self.announce(Announcing::Nothing);
    }

    fn measure(&mut self, deadline: Instant, now: Instant) {
        self.phase = Phase::Measuring { deadline };
        self.meter.begin(now, now + INTERVAL, INTERVAL);
    }

    /// What came of one measurement after the withdrawal.
    fn measured(&mut self, measured: Result<Measured, String>, deadline: Instant, now: Instant) {
        let why_not = match measured {
            Err(reason) => Some(format!("packets could not be counted: {reason}")),
            Ok(Measured { total, carriers }) => {
                self.report.packets_per_s.after_withdrawal = Some(total);
                self.report.carriers = carriers;
                let most = self.terms.threshold;
                let is_quiet = total.to_vpc <= most && total.from_vpc <= most;
                if !is_quiet && now < deadline {
                    return;
                }
                (!is_quiet).then(|| self.still_carried(total))
            }
        };
        let late = &self.report.peers_late;
        let why_not = why_not.or_else(|| {
            let peers: Vec<&str> = late.iter().map(PeerName::as_str).collect();
            (!late.is_empty()).then(|| format!("{} may not have the withdrawal", peers.join(", ")))
        });
        self.meter.end();
        self.report.safe_to_stop = Some(why_not.is_none());
        self.report.why_not = why_not;
        self.phase = Phase::Drained;
    }

    /// What still comes, in words.
    fn still_carried(&self, total: Rate) -> String {
        let carriers = &self.report.carriers;
        let mut named: Vec<String> = carriers
            .iter()
            .take(NAMED)
            .map(|Carrying { carrier, rate }| match carrier {
                Carrier::Link(link) => format!("link {link} ({})", rate),
                Carrier::Vpc(vpc) => format!("VPC {vpc} ({})", rate),
                Carrier::Vni(vni) => format!("VNI {vni} ({})", rate),
            })
            .collect();
        if carriers.len() > NAMED {
            named.push(format!("{} more", carriers.len() - NAMED));
        }
        let mut text = format!("{total} still come");
        if !named.is_empty() {
            text += &format!(": {}", named.join(", "));
        }
        if total.from_vpc > self.terms.threshold {
            text += "; what hypervisors send to this gateway is moved by who configures them, not by BGP";
        }
        text
    }

    fn ask(&mut self, question: Question) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.open = Some((ticket, question));
        ticket
    }

    /// Whether this answers the question that is open, which it is no longer then.
    fn is_answered(&mut self, ticket: Ticket, question: Question) -> bool {
        let is_it = self.open == Some((ticket, question));
        if is_it {
            self.open = None;
        }
        is_it
    }

    fn announce(&mut self, announcing: Announcing) {
        let ticket = self.ask(Question::Announcing);
        self.outputs.push_back(Output::Announce(announcing, ticket));
    }

    fn flush(&mut self, wait: Duration) {
        let ticket = self.ask(Question::Peers);
        self.outputs.push_back(Output::Flush(wait, ticket));
    }
}
