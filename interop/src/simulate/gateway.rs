//! A gateway: the real inventory, planner, order of change and follower of the store, with a kernel and peers that
//! are made up. It does by hand what the controller's loop does with channels, and says what it wants done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ccn::inventory::{Inventory, Loaded};
use ccn::order::{Order, Output, WithdrawalId};
use ccn::plan::{Delta, Planner};
use ccn::plane::{Abilities, Applied, Batch};
use ccn::record::{
    Gateway as GatewayRecord, GatewayName, GroupName, Health, LinkId, Record, RecordKey, Role,
};
use ccn::store::etcd::follow::{Follow, Heard, Place, Step};
use ccn::store::{Changed, Generation, WatchEvent};

use super::etcd::{Row, Told};
use super::kernel::{Contents, Kernel};
use super::meter::{Meter, Work};

/// How long forwarding outlives a withdrawal, as configured by default in the lab.
const DRAIN: Duration = Duration::from_millis(200);
/// The shortest time between two records of a gateway; `store/etcd/registration` has the same.
pub(super) const SPACING: Duration = Duration::from_secs(1);

/// What a gateway wants done.
#[derive(Debug)]
pub(super) enum Act {
    /// Ask the store where it is, after this time.
    Ask(Duration),
    /// Watch from this revision on.
    Begin(Generation),
    /// Read the whole store.
    Read,
    /// The plane is given this.
    Plane(Job),
    /// The peers are told; answer with [`Gateway::flushed`].
    Flush(WithdrawalId),
    /// Something is due at this time.
    Wake(Duration),
    /// Write its record at this time, unless it says the same by then.
    Register(Duration),
    /// Report of a link; false: nothing of it is left.
    Report(LinkId, bool),
}

/// What the plane is given.
#[derive(Debug)]
pub(super) enum Job {
    Batch(Batch),
    Whole(Generation, Contents),
}

/// What a gateway took over from the store, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// All of it at this generation.
    Whole(Generation),
    /// The commit that made this one.
    Commit(Generation),
}

/// What was kept of the store by the machine.
#[derive(Debug)]
struct Snapshot {
    place: Place,
    rows: BTreeMap<Arc<str>, Arc<Row>>,
}

/// The agent's process.
#[derive(Debug)]
struct Agent {
    inventory: Inventory,
    order: Order,
    follow: Option<Follow>,
    generation: Generation,
    compared: bool,
    /// Links whose phase may change, and what was reported of each.
    moving: BTreeSet<LinkId>,
    reported: BTreeMap<LinkId, String>,
    /// What its record says, and when it may be written again.
    said: Option<(Generation, Health)>,
    may_say: Duration,
    says_soon: bool,
}

/// See the room.
#[derive(Debug)]
pub(super) struct Gateway {
    name: GatewayName,
    number: usize,
    group: GroupName,
    planner: Planner,
    base: Instant,
    keeps_snapshot: bool,
    snapshot: Option<Snapshot>,
    pub(super) kernel: Kernel,
    agent: Option<Agent>,
    pub(super) taken: Vec<Taken>,
    /// Events that were taken over.
    pub(super) events: u64,
    pub(super) announcements: u64,
}

impl Gateway {
    /// One that is switched off. `base` stands for the virtual time's begin.
    pub(super) fn new(
        name: GatewayName,
        number: usize,
        group: GroupName,
        base: Instant,
        keeps_snapshot: bool,
    ) -> Gateway {
        Gateway {
            name,
            number,
            planner: Planner::new(group.clone()),
            group,
            base,
            keeps_snapshot,
            snapshot: None,
            kernel: Kernel::default(),
            agent: None,
            taken: Vec::new(),
            events: 0,
            announcements: 0,
        }
    }

    /// Whether it has loaded the store and everything is done.
    pub(super) fn is_settled(&self) -> bool {
        let agent = self.agent.as_ref();
        agent.is_some_and(|agent| agent.compared && agent.order.is_settled())
    }

    /// Whether an agent has loaded the store.
    pub(super) fn is_running(&self) -> bool {
        self.agent.is_some()
    }

    /// The agent is killed; kernel and snapshot stay.
    pub(super) fn kill(&mut self) {
        self.agent = None;
        self.kernel.announced.clear();
    }

    /// What it needs for a question of where the store is.
    pub(super) fn seen(&self) -> Option<Generation> {
        let follow = self.agent.as_ref().and_then(|agent| agent.follow.as_ref());
        match follow {
            Some(follow) => Some(follow.seen().revision),
            None => self
                .snapshot
                .as_ref()
                .map(|snapshot| snapshot.place.revision),
        }
    }

    /// Starts from the local snapshot, since the store is away; nothing when there is none.
    pub(super) fn start_from_snapshot(
        &mut self,
        now: Duration,
        meter: &mut Meter,
    ) -> Option<Vec<Act>> {
        let snapshot = self.snapshot.as_ref()?;
        let rows: Vec<Arc<Row>> = snapshot.rows.values().cloned().collect();
        Some(self.load(snapshot.place, &rows, true, now, meter))
    }

    /// Takes over all that the store held at a place.
    pub(super) fn loaded(
        &mut self,
        place: Place,
        rows: &[Arc<Row>],
        now: Duration,
        meter: &mut Meter,
    ) -> Vec<Act> {
        if self.keeps_snapshot {
            let rows = rows.iter().map(|row| (row.key.clone(), row.clone()));
            let rows = rows.collect();
            self.snapshot = Some(Snapshot { place, rows });
        }
        self.load(place, rows, false, now, meter)
    }

    fn load(
        &mut self,
        place: Place,
        rows: &[Arc<Row>],
        is_away: bool,
        now: Duration,
        meter: &mut Meter,
    ) -> Vec<Act> {
        self.taken.push(Taken::Whole(place.revision));
        let at = self.base + now;
        let agent = self.agent.get_or_insert_with(|| Agent {
            inventory: Inventory::default(),
            order: Order::new(DRAIN, at),
            follow: None,
            generation: 0,
            compared: false,
            moving: BTreeSet::new(),
            reported: BTreeMap::new(),
            said: None,
            may_say: Duration::ZERO,
            says_soon: false,
        });
        agent.generation = place.revision;
        let began = Meter::now();
        let inventory = &mut agent.inventory;
        let mut load = inventory.begin_load();
        for row in rows {
            let loaded = Loaded::parse(&row.key, row.created, &row.value);
            inventory.load_one(&mut load, loaded.modified(row.modified));
        }
        let effects = inventory.end_load(load);
        meter.add(Work::Load, rows.len() as u64, began);
        if effects.whole {
            // Every link there is.
            agent
                .moving
                .extend(agent.inventory.links().map(|(id, _)| id.clone()));
        }
        agent.moving.extend(effects.links.keys().cloned());
        let follow = Follow::new(place, is_away);
        let mut acts = Vec::new();
        step_of(&follow, &mut acts);
        agent.follow = Some(follow);
        let generation = agent.generation;
        let delta = self.planner.update(&agent.inventory, &effects, generation);
        self.planned(delta, now, meter, &mut acts);
        acts
    }

    /// Takes what was heard of the store.
    pub(super) fn hear(&mut self, heard: Heard, now: Duration, meter: &mut Meter) -> Vec<Act> {
        let mut acts = Vec::new();
        let Some(follow) = self.agent.as_mut().and_then(|agent| agent.follow.as_mut()) else {
            return acts;
        };
        let is_change = matches!(heard, Heard::Changes(_));
        let told = follow.hear(heard);
        if !is_change {
            step_of(follow, &mut acts);
        }
        for (_, event) in told {
            self.event(event, now, meter, &mut acts);
        }
        acts
    }

    /// Keeps what it was told, and has taken over, in the local snapshot.
    pub(super) fn keep(&mut self, told: &[Arc<Told>]) {
        let follow = self.agent.as_ref().and_then(|agent| agent.follow.as_ref());
        let (Some(follow), Some(snapshot)) = (follow, &mut self.snapshot) else {
            return;
        };
        let place = follow.seen();
        let is_new = |told: &&Arc<Told>| {
            let generation = told.commit.generation;
            snapshot.place.revision < generation && generation <= place.revision
        };
        let new: Vec<_> = told.iter().filter(is_new).collect();
        for (key, row) in new.into_iter().flat_map(|told| &told.rows) {
            match row {
                Some(row) => drop(snapshot.rows.insert(key.clone(), row.clone())),
                None => drop(snapshot.rows.remove(key)),
            }
        }
        snapshot.place = place;
    }

    fn event(&mut self, event: WatchEvent, now: Duration, meter: &mut Meter, acts: &mut Vec<Act>) {
        match event {
            WatchEvent::Commit(commit) => {
                let Some(agent) = &mut self.agent else { return };
                let began = Meter::now();
                self.taken.push(Taken::Commit(commit.generation));
                self.events += commit.changes.len() as u64;
                // What gateways say of themselves makes no plan and is no generation.
                let of_gateway = |changed: &Changed| changed.key().starts_with("gateways/");
                if !commit.changes.iter().all(of_gateway) {
                    agent.generation = commit.generation;
                }
                let effects = agent.inventory.apply(&commit.changes);
                agent.moving.extend(effects.links.keys().cloned());
                let delta = self
                    .planner
                    .update(&agent.inventory, &effects, agent.generation);
                self.planned(delta, now, meter, acts);
                let first = commit.changes.first().map_or("", Changed::key);
                let work = match first.split('/').next() {
                    Some("links") => Work::Link,
                    Some("gateways") => Work::Registration,
                    _ => Work::Vm,
                };
                meter.add(work, commit.changes.len() as u64, began);
            }
            WatchEvent::Lagged => acts.push(Act::Read),
            // Nothing is restored here; and what is away or back is known to whoever simulates it.
            WatchEvent::Away(_) | WatchEvent::Back | WatchEvent::Restored(_) => {}
        }
    }

    fn planned(&mut self, delta: Delta, now: Duration, meter: &mut Meter, acts: &mut Vec<Act>) {
        let Some(agent) = &mut self.agent else { return };
        let whole = delta.whole;
        agent.order.planned(delta);
        if whole {
            agent.order.resync(self.base + now);
        }
        self.carry_out(now, meter, acts);
    }

    /// The plane has done what it was given.
    pub(super) fn done(&mut self, job: Job, now: Duration, meter: &mut Meter) -> Vec<Act> {
        let generation = match job {
            Job::Batch(batch) => {
                let generation = batch.generation;
                self.kernel.apply(batch);
                generation
            }
            Job::Whole(generation, contents) => {
                self.kernel.replace(contents);
                generation
            }
        };
        let mut acts = Vec::new();
        let Some(agent) = &mut self.agent else {
            return acts;
        };
        agent.compared |= agent.order.is_resyncing();
        let applied = Applied {
            generation,
            ..Applied::default()
        };
        let began = Meter::now();
        agent.order.applied(&applied, self.base + now);
        self.carry_out(now, meter, &mut acts);
        meter.add(Work::Done, 1, began);
        acts
    }

    /// The plane has failed, and done nothing.
    pub(super) fn failed(&mut self, now: Duration, meter: &mut Meter) -> Vec<Act> {
        let mut acts = Vec::new();
        if let Some(agent) = &mut self.agent {
            agent.order.plane_failed(self.base + now);
        }
        self.carry_out(now, meter, &mut acts);
        acts
    }

    /// The peers have a withdrawal.
    pub(super) fn flushed(
        &mut self,
        id: WithdrawalId,
        now: Duration,
        meter: &mut Meter,
    ) -> Vec<Act> {
        let mut acts = Vec::new();
        if let Some(agent) = &mut self.agent {
            agent.order.flushed(id, self.base + now);
        }
        self.carry_out(now, meter, &mut acts);
        acts
    }

    /// Something is due.
    pub(super) fn woken(&mut self, now: Duration, meter: &mut Meter) -> Vec<Act> {
        let mut acts = Vec::new();
        self.carry_out(now, meter, &mut acts);
        acts
    }

    /// Does whatever the order of change allows now.
    fn carry_out(&mut self, now: Duration, meter: &mut Meter, acts: &mut Vec<Act>) {
        let at = self.base + now;
        let Some(agent) = &mut self.agent else { return };
        loop {
            match agent.order.poll(at) {
                None => break,
                Some(Output::Apply(batch)) => acts.push(Act::Plane(Job::Batch(batch))),
                Some(Output::Resync) => {
                    let began = Meter::now();
                    let mut backing = self.planner.backing(&agent.inventory);
                    let held = agent.order.held();
                    backing.extend(held.map(|(key, value)| (key.clone(), value.clone())));
                    let endpoints = self.planner.endpoints(&agent.inventory);
                    meter.add(Work::List, agent.inventory.vm_count() as u64, began);
                    let contents = Contents::new(backing, &endpoints);
                    acts.push(Act::Plane(Job::Whole(agent.generation, contents)));
                }
                Some(Output::Announce(prefixes)) => {
                    self.announcements += prefixes.len() as u64;
                    self.kernel.announced.extend(prefixes);
                }
                Some(Output::Withdraw(id, prefixes)) => {
                    for prefix in &prefixes {
                        self.kernel.announced.remove(prefix);
                    }
                    acts.push(Act::Flush(id));
                }
                Some(Output::Flush(id)) => acts.push(Act::Flush(id)),
            }
        }
        let due = agent.order.next_timeout();
        acts.extend(due.map(|due| Act::Wake(due.saturating_duration_since(self.base))));
        self.report(acts);
        self.say_soon(now, acts);
    }

    /// Reports of links whose phase is another one.
    fn report(&mut self, acts: &mut Vec<Act>) {
        let Some(agent) = &mut self.agent else { return };
        let (order, reported) = (&agent.order, &mut agent.reported);
        agent.moving.retain(|id| {
            let phase = order.link(id).map(|phase| phase.to_string());
            if reported.get(id) != phase.as_ref() {
                acts.push(Act::Report(id.clone(), phase.is_some()));
                match &phase {
                    Some(phase) => drop(reported.insert(id.clone(), phase.clone())),
                    None => drop(reported.remove(id)),
                }
            }
            !matches!(phase.as_deref(), None | Some("announced"))
        });
    }

    fn saying(agent: &Agent) -> (Generation, Health) {
        let health = match agent.compared {
            true => Health::Healthy,
            false => Health::Starting,
        };
        (agent.order.acknowledged(), health)
    }

    fn say_soon(&mut self, now: Duration, acts: &mut Vec<Act>) {
        let Some(agent) = &mut self.agent else { return };
        let (Some(said), says) = (agent.said, Self::saying(agent)) else {
            return;
        };
        if said.1 != says.1 {
            // Others choose by it whom they give links.
            acts.push(Act::Register(now));
        } else if said != says && !agent.says_soon {
            agent.says_soon = true;
            acts.push(Act::Register(agent.may_say.max(now)));
        }
    }

    /// Its key and its record, as they are to be written now; nothing when that is said already. `is_new`: nothing is
    /// said yet on this lease.
    pub(super) fn say(&mut self, now: Duration, is_new: bool) -> Option<(Arc<str>, Bytes)> {
        let agent = self.agent.as_mut()?;
        agent.says_soon = false;
        let says = Self::saying(agent);
        if agent.said == Some(says) && !is_new {
            return None;
        }
        agent.said = Some(says);
        agent.may_say = now + SPACING;
        let address = std::net::Ipv4Addr::from_bits(0xac10_0000 + self.number as u32 + 1);
        let record = Record::Gateway(GatewayRecord {
            group: self.group.clone(),
            vtep: ccn::record::Vtep::new(address.into()).ok()?,
            router_id: address,
            asn: 65_000,
            roles: vec![Role::ClassicLink],
            generation: says.0,
            health: says.1,
            draining: false,
            abilities: Some(Abilities {
                tracks_replies: true,
                marks_links: true,
            }),
            fullest: None,
            peers: None,
            extra: serde_json::Map::new(),
        });
        let key = RecordKey::Gateway(self.name.clone()).to_string();
        Some((key.into(), record.to_json().into()))
    }

    /// What the plan made anew from these records is, and how this gateway differs from it.
    pub(super) fn judge(&self, fresh: &Inventory) -> Result<(), String> {
        let agent = self.agent.as_ref().ok_or("there is no agent")?;
        let name = &self.name;
        let wanted = Contents::new(
            self.planner.entries(fresh),
            &ccn::plane::endpoints::Endpoints::default(),
        );
        if let Some(difference) = self.kernel.contents().difference(&wanted) {
            return Err(format!(
                "{name}: kernel and plan made anew differ: {difference}"
            ));
        }
        let announced: BTreeSet<_> = self.planner.announcements(fresh).into_keys().collect();
        if announced != self.kernel.announced {
            let (is, should) = (self.kernel.announced.len(), announced.len());
            return Err(format!("{name}: {is} prefixes are announced, not {should}"));
        }
        if agent.inventory != *fresh {
            return Err(format!(
                "{name}: its inventory is not that of the store made anew"
            ));
        }
        Ok(())
    }
}

fn step_of(follow: &Follow, acts: &mut Vec<Act>) {
    match follow.step() {
        Step::Ask(pause) => acts.push(Act::Ask(pause)),
        Step::Begin(from) => acts.push(Act::Begin(from)),
        Step::Listen | Step::End => {}
    }
}
