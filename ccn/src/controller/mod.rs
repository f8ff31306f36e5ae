//! The agent's one loop: record -> inventory -> plan -> plane -> announcement.
//!
//! It owns every piece of state and runs the sans-IO parts in turn; what blocks or waits (the
//! plane's thread, the speaker, the store) is asked by message and answers by message.

mod handle;
mod health;
mod orders;
mod rehearsal;
mod reports;
mod view;
mod waiting;

use std::collections::VecDeque;
use std::future::pending;
use std::time::{Duration, Instant};

use bgp::{Event, Prefix, SessionState, Speaker, Subscription};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};

use crate::announce::{self, Learned, Relearning};
use crate::api::error::ApiError;
use crate::inventory::{Effects, Inventory};
use crate::ledger::{Heard, Ledger, Loading, Opened};
use crate::memory;
use crate::order::{Announcing, Order, Output, WithdrawalId};
use crate::plan::{Planner, Rehearsal};
use crate::plane::thread::{Outcome, PlaneHandle};
use crate::plane::{Desired, LearnedNextHops};
use crate::record::{GroupName, LinkId, RecordKey};
use crate::startup::Startup;
use crate::store::{Change, StoreError};

pub use handle::AgentHandle;
use health::PlaneHealth;
pub use health::Report;
use reports::Reports;
pub use reports::Told;
pub use view::View;
use waiting::{Goal, Waiters};

/// How long the peers may take to have a withdrawal before its forwarding is drained regardless.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

/// An order or a question from a handle.
enum Command {
    Ask(Box<dyn FnOnce(&View<'_>) + Send>),
    Rehearse {
        changes: Vec<Change>,
        reply: oneshot::Sender<Result<Rehearsal, ApiError>>,
    },
    Await {
        link: LinkId,
        goal: Goal,
        reply: oneshot::Sender<Result<(), ApiError>>,
    },
    /// So much may be announced; answered, when the speaker knows, with how many prefixes are announced before and
    /// after.
    Announcing {
        announcing: Announcing,
        reply: oneshot::Sender<(usize, usize)>,
    },
    Look(&'static str),
    Resync(&'static str),
}

/// What came of something the loop asked for.
enum Happened {
    Plane(Outcome),
    Flushed(WithdrawalId),
}

/// What does not change while the agent runs.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Name of this gateway.
    pub gateway: String,
    /// Its group.
    pub group: crate::record::GroupName,
    /// When the agent started.
    pub started: Instant,
    /// Time between two audits of the kernel; none when never.
    pub audit: Option<Duration>,
}

/// The loop's state.
pub struct Controller {
    facts: Facts,
    ledger: Ledger,
    planner: Planner,
    order: Order,
    learned: Learned,
    relearning: Option<Relearning>,
    plane: PlaneHandle,
    health: PlaneHealth,
    speaker: Speaker,
    subscription: Subscription,
    commands: mpsc::Receiver<Command>,
    happened: mpsc::UnboundedReceiver<Happened>,
    happen: mpsc::UnboundedSender<Happened>,
    waiters: Waiters,
    /// Who is told how much is announced when what it takes is carried out, and how much it was before.
    announcing: Vec<(usize, oneshot::Sender<(usize, usize)>)>,
    report: watch::Sender<Report>,
    reports: Reports,
    /// Rehearsals that wait until the store has decided on a change.
    queued: VecDeque<Command>,
    startup: Startup,
    /// A comparison is over, and what it took is not given back yet.
    has_compared: bool,
    /// The first resync is done and what it allowed is announced.
    complete: bool,
}

/// What a controller is made of.
pub struct Parts {
    /// See [`Facts`].
    pub facts: Facts,
    /// The records, which are being read.
    pub loading: Loading,
    /// Where forwarding goes.
    pub plane: PlaneHandle,
    /// Where announcements go, and routes come from.
    pub speaker: Speaker,
    /// How long forwarding outlives a withdrawal that the peers have.
    pub drain: Duration,
    /// How much may be announced.
    pub announcing: Announcing,
    /// Which routers' tables are waited for before learned routes are taken away, if an earlier run left any.
    pub relearning: Option<Relearning>,
    /// How long the start took so far.
    pub startup: Startup,
}

impl Controller {
    /// Takes over what the store holds; nothing is done yet.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn new(parts: Parts) -> Result<(Controller, AgentHandle), StoreError> {
        let Parts {
            facts,
            loading,
            plane,
            speaker,
            drain,
            announcing,
            relearning,
            mut startup,
        } = parts;
        let settling = |records| note(&mut startup, "read", records, "records");
        let (own, abilities) = (facts.group.clone(), plane.abilities());
        let abilities_of =
            Box::new(
                move |inventory: &Inventory, group: &GroupName| match *group == own {
                    true => abilities,
                    false => inventory.abilities_of(group),
                },
            );
        let opened = Ledger::open(loading, abilities_of, settling).await?;
        let Opened {
            ledger,
            handle: ledger_handle,
            records,
            effects,
        } = opened;
        note(&mut startup, "settle", records, "records");
        let planner = Planner::new(facts.group.clone());
        let mut order = Order::new(drain, Instant::now());
        order.set_announcing(announcing);
        let delta = planner.update(ledger.inventory(), &effects, ledger.generation());
        let entries = delta.upserts.len();
        order.planned(delta);
        note(&mut startup, "plan", entries, "entries");
        let (commander, commands) = mpsc::channel(64);
        // One message for each thing asked for: bounded by what is outstanding.
        let (happen, happened) = mpsc::unbounded_channel();
        let handle = AgentHandle::new(
            commander,
            ledger_handle,
            facts.group.clone(),
            plane.clone(),
            speaker.clone(),
        );
        let subscription = speaker.subscribe();
        let controller = Controller {
            facts,
            ledger,
            planner,
            order,
            learned: Learned::default(),
            relearning,
            plane,
            health: PlaneHealth::default(),
            speaker,
            subscription,
            commands,
            happened,
            happen,
            waiters: Waiters::default(),
            announcing: Vec::new(),
            report: watch::Sender::default(),
            reports: Reports::default(),
            queued: VecDeque::new(),
            startup,
            has_compared: false,
            complete: false,
        };
        Ok((controller, handle))
    }

    /// How this gateway is doing, from now on.
    #[must_use]
    pub fn report(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }

    /// How far each link has come here, from now on.
    pub fn link_reports(&mut self) -> mpsc::UnboundedReceiver<Told> {
        self.order.follow_links();
        let told = self.reports.listen();
        let all = self.ledger.inventory().link_records();
        self.reports.changed(all.map(|(id, _)| id));
        told
    }

    /// Runs until every handle is gone or the store or the speaker has ended.
    ///
    /// # Errors
    /// When the store breaks for good.
    pub async fn run(mut self) -> Result<(), StoreError> {
        let mut audit = self.facts.audit.map(tokio::time::interval);
        if let Some(audit) = &mut audit {
            // The first tick is at once, and the start resyncs anyway.
            audit.tick().await;
        }
        loop {
            self.carry_out().await;
            self.tell();
            self.answer_waiters();
            // When all that the comparison allows is on its way: it takes a while.
            if std::mem::take(&mut self.has_compared) {
                tokio::task::spawn_blocking(memory::give_back);
            }
            self.ledger.turn();
            while !self.ledger.is_undecided()
                && let Some(command) = self.queued.pop_front()
            {
                self.command(command);
            }
            let timeout = self.next_timeout();
            tokio::select! {
                heard = self.ledger.next() => match heard? {
                    Heard::Changed(effects) => self.replan(&effects),
                    Heard::Nothing => {}
                    Heard::Closed => return Ok(()),
                },
                Some(happened) = self.happened.recv() => self.happened(happened),
                event = self.subscription.next() => match event {
                    Some(event) => self.speaker_event(event),
                    None => return Ok(()),
                },
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return Ok(()),
                },
                () = sleep_until(timeout) => {
                    self.relearned();
                    self.ledger.on_time();
                }
                () = tick(&mut audit) => self.order.resync(Instant::now()),
            }
        }
    }

    /// Tells whoever wants to know how this gateway is doing, when that has changed.
    fn tell(&mut self) {
        let moved = self.order.take_moved();
        let mut reports = std::mem::take(&mut self.reports);
        reports.tell(moved, &self.view());
        self.reports = reports;
        let report = Report {
            generation: self.order.acknowledged(),
            health: self.health.in_a_word(),
        };
        self.report.send_if_modified(|told| {
            let is_new = *told != report;
            *told = report;
            is_new
        });
    }

    fn next_timeout(&self) -> Option<Instant> {
        let relearning = self.relearning.as_ref().map(Relearning::deadline);
        self.order
            .next_timeout()
            .into_iter()
            .chain(relearning)
            .chain(self.ledger.next_timeout())
            .min()
    }

    /// Does whatever the order of change allows now.
    async fn carry_out(&mut self) {
        while let Some(output) = self.order.poll(Instant::now()) {
            match output {
                Output::Apply(batch) => {
                    debug!(
                        generation = batch.generation,
                        upserts = batch.upserts.len(),
                        removals = batch.removals.len(),
                        learned = batch.learned.len(),
                        "applying to the plane"
                    );
                    self.plane.apply(batch, self.on_outcome());
                }
                Output::Resync => {
                    self.plane.resync(self.desired(), self.on_outcome());
                }
                Output::Announce(prefixes) => {
                    info!(prefixes = %list(&prefixes), "announcing");
                    let routes = prefixes.into_iter().map(announce::announcement).collect();
                    if self.speaker.announce(routes).await.is_err() {
                        error!("the speaker has ended");
                    }
                }
                Output::Withdraw(id, prefixes) => {
                    info!(prefixes = %list(&prefixes), "withdrawing");
                    let prefixes = prefixes.into_iter().collect();
                    if self.speaker.withdraw(prefixes).await.is_err() {
                        error!("the speaker has ended");
                    }
                    self.await_peers(id, "peers have not taken the withdrawal in time");
                }
                Output::Flush(id) => {
                    self.await_peers(id, "peers have not taken what is announced instead in time");
                }
            }
        }
        // A resync after the first batch of announcements means the table we start with is whole.
        if !self.complete && self.health.last_resync_operations.is_some() {
            self.complete = true;
            self.speaker.initial_routes_complete().await;
            let announced = self.order.announced().count();
            note(&mut self.startup, "announce", announced, "prefixes");
            let took = self.startup.complete(Instant::now());
            info!(seconds = took.as_secs_f64(), "started");
        }
    }

    /// Tells the loop what came of what the plane was ordered.
    fn on_outcome(&self) -> impl FnOnce(Outcome) + Send + 'static {
        let happen = self.happen.clone();
        move |outcome| {
            // The loop is gone when this fails, and so is the reason to tell it.
            let _ = happen.send(Happened::Plane(outcome));
        }
    }

    /// Answers the order when the peers have all that was said to the speaker so far.
    fn await_peers(&self, id: WithdrawalId, late_is: &'static str) {
        let (speaker, happen) = (self.speaker.clone(), self.happen.clone());
        tokio::spawn(async move {
            let late = speaker.flushed(FLUSH_WAIT).await;
            if !late.is_empty() {
                warn!(peers = ?late, "{late_is}");
            }
            let _ = happen.send(Happened::Flushed(id));
        });
    }

    /// All that the plane should hold now.
    fn desired(&self) -> Desired {
        let mut entries = self.planner.backing(self.ledger.inventory());
        entries.extend(
            self.order
                .held()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        Desired {
            generation: self.ledger.generation(),
            entries,
            endpoints: self.planner.endpoints(self.ledger.inventory()),
            learned: self.learned.routes().clone(),
            keep_unknown_learned: self.relearning.is_some(),
        }
    }

    fn happened(&mut self, happened: Happened) {
        match happened {
            Happened::Flushed(id) => self.order.flushed(id, Instant::now()),
            Happened::Plane(Ok(applied)) => {
                for (key, reason) in &applied.failures {
                    warn!(%key, reason, "the plane refused an entry");
                }
                for (prefix, reason) in &applied.learned_failures {
                    warn!(%prefix, reason, "the plane refused a learned route");
                }
                if self.order.is_resyncing() {
                    if self.health.last_resync_operations.is_none() || applied.operations > 0 {
                        info!(
                            operations = applied.operations,
                            "kernel state compared and mended"
                        );
                    }
                    if self.health.last_resync_operations.is_none() {
                        note(
                            &mut self.startup,
                            "program",
                            applied.operations,
                            "operations",
                        );
                    }
                    self.health.last_resync_operations = Some(applied.operations);
                    self.health.failed_entries = applied.failures.len();
                } else {
                    self.health.failed_entries = self
                        .health
                        .failed_entries
                        .saturating_add(applied.failures.len());
                }
                self.health.operations += applied.operations as u64;
                self.health.last_error = None;
                self.has_compared |= self.order.is_resyncing();
                self.order.applied(&applied, Instant::now());
            }
            Happened::Plane(Err(failure)) => {
                error!(%failure, "the plane failed; comparing its state again");
                self.health.last_error = Some(failure.to_string());
                self.order.plane_failed(Instant::now());
            }
        }
    }

    fn speaker_event(&mut self, event: Event) {
        match event {
            Event::Route(change) => {
                let (prefix, next_hops) = self.learned.change(&change);
                self.learned_route(prefix, next_hops);
            }
            Event::PeerState {
                peer,
                state,
                families,
                error,
            } => {
                info!(%peer, ?state, error, "session");
                if state == SessionState::Established
                    && let Some(relearning) = &mut self.relearning
                {
                    relearning.established(&peer, &families);
                }
            }
            Event::PeerGone { peer } => info!(%peer, "is no peer any more"),
            Event::EndOfRib { peer, family } => {
                debug!(%peer, %family, "End-of-RIB");
                if let Some(relearning) = &mut self.relearning {
                    relearning.end_of_rib(&peer, family);
                }
            }
            // The speaker knows what can be reached before it asks, see `crate::reach`.
            Event::NextHop { .. } => {}
            Event::Resync => self.learned.resync(),
            Event::Synced => {
                for prefix in self.learned.synced() {
                    self.learned_route(prefix, LearnedNextHops::new());
                }
            }
        }
        self.relearned();
    }

    fn learned_route(&mut self, prefix: Prefix, next_hops: LearnedNextHops) {
        // Routes that go while the routers have not told their tables stay until they have.
        if next_hops.is_empty() && self.relearning.is_some() {
            return;
        }
        self.order.learned(prefix, next_hops);
    }

    /// Takes away what the routers no longer say, once they have said everything.
    fn relearned(&mut self) {
        let now = Instant::now();
        if self
            .relearning
            .as_ref()
            .is_some_and(|relearning| relearning.is_over(now))
        {
            self.relearning = None;
            self.order.resync(now);
        }
    }

    /// Plans anew what has changed.
    fn replan(&mut self, changed: &Effects) {
        let (inventory, generation) = (self.ledger.inventory(), self.ledger.generation());
        let delta = self.planner.update(inventory, changed, generation);
        let quarantined = changed.quarantine.keys().filter_map(|key| key.parse().ok());
        let quarantined: Vec<LinkId> = quarantined.filter_map(link_in).collect();
        self.reports
            .changed(changed.links.keys().chain(&quarantined));
        let whole = delta.whole;
        self.order.planned(delta);
        if whole {
            self.order.resync(Instant::now());
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Ask(question) => question(&self.view()),
            rehearsal @ Command::Rehearse { .. } if self.ledger.is_undecided() => {
                self.queued.push_back(rehearsal);
            }
            Command::Rehearse { changes, reply } => {
                // A caller that hung up needs no answer.
                let _ = reply.send(self.rehearse(&changes));
            }
            Command::Await { link, goal, reply } => {
                self.waiters.push(link, goal, reply);
            }
            Command::Announcing { announcing, reply } => {
                info!(?announcing, "how much may be announced");
                let before = self.order.set_announcing(announcing);
                self.announcing.push((before, reply));
            }
            Command::Look(reason) => {
                debug!(reason, "looking at kernel state");
                self.order.look();
            }
            Command::Resync(reason) => {
                debug!(reason, "comparing kernel state");
                self.order.resync(Instant::now());
            }
        }
    }

    fn answer_waiters(&mut self) {
        for (before, reply) in self.announcing.drain(..) {
            // A caller that hung up needs no answer.
            let _ = reply.send((before, self.order.announced().count()));
        }
        self.waiters.answer(&self.order, self.ledger.inventory());
    }

    fn view(&self) -> View<'_> {
        View {
            facts: &self.facts,
            inventory: self.ledger.inventory(),
            deadlines: self.ledger.deadlines(),
            order: &self.order,
            learned: self.learned.routes(),
            health: &self.health,
            startup: &self.startup,
            store: self.ledger.store_view(),
            generation: self.ledger.generation(),
        }
    }
}

fn link_in(key: RecordKey) -> Option<LinkId> {
    match key {
        RecordKey::Link(id) => Some(id),
        _ => None,
    }
}

/// Writes down that a part of the start is done, and says so.
pub(crate) fn note(startup: &mut Startup, phase: &'static str, count: usize, of: &'static str) {
    let done = startup.done(phase, count, of, Instant::now());
    info!("start: {done}");
}

/// Sleeps until then; for ever without a time.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => pending().await,
    }
}

fn list(prefixes: &std::collections::BTreeSet<Prefix>) -> String {
    prefixes
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
