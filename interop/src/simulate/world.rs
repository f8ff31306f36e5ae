//! Gateways and the stores that they follow, in one thread and a virtual time: one seed, one run.
//!
//! It judges what can be judged only on the way: that everybody who watches is told every commit once and in order,
//! and that nothing is announced without forwarding behind it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ccn::fixture::{FixtureError, FixtureSpec};
use ccn::inventory::Inventory;
use ccn::order::WithdrawalId;
use ccn::record::LinkId;
use ccn::store::etcd::follow::{Fence, Heard, Place};
use ccn::store::etcd::pages::PageSize;
use ccn::store::{Commit, Generation};

use super::agenda::Agenda;
use super::chance::Chance;
use super::etcd::{Etcd, Op, Row, Told, Writer};
use super::gateway::{Act, Gateway, Job, SPACING, Taken};
use super::meter::Meter;
use super::region::{self, Region};

/// A message to or from the store takes this long, and up to as long again.
const NETWORK: Duration = Duration::from_micros(250);
/// What pages travel with: 10 Gbit/s.
const OCTETS_PER_SECOND: f64 = 1.25e9;
/// The plane takes this long for any batch, and for each entry of it (`bench program`, the `ebpf` plane).
const PLANE: Duration = Duration::from_micros(100);
const PLANE_EACH: Duration = Duration::from_nanos(1100);
/// Peers have a withdrawal after this.
const FLUSH: Duration = Duration::from_millis(2);
/// How often a lease is renewed.
const RENEWAL: Duration = Duration::from_secs(10);
/// How long a store that is away is left alone.
const AGAIN: Duration = Duration::from_secs(1);
/// All gateways start within this time.
const STARTS: Duration = Duration::from_secs(1);
/// How long it is said of a link that nothing of it is left.
const REMOVED: Duration = Duration::from_secs(60);
/// Changes of one storm.
const STORM: usize = 200;
/// The longest that everything may take to come to rest.
const REST: Duration = Duration::from_secs(300);

/// What is simulated.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setup {
    pub(super) region: FixtureSpec,
    /// Groups of gateways, and gateways of each.
    pub(super) groups: usize,
    pub(super) gateways: usize,
    /// Links of each group.
    pub(super) links: usize,
    /// Each group has a store of its own; else there is one.
    pub(super) sharded: bool,
    /// Changes of VMs in a group a second, and orders to link or unlink.
    pub(super) changes: f64,
    pub(super) orders: f64,
    pub(super) seed: u64,
    /// Time between two faults; none: everything works.
    pub(super) faults: Option<Duration>,
}

#[derive(Debug)]
enum Happening {
    /// The next change of a VM, or of a link, in a group.
    Change(usize),
    Order(usize),
    Start(usize, u32),
    Ask(usize, u32),
    At(usize, u32, Place, Option<Fence>),
    Begin(usize, u32, Generation),
    Broken(usize, u32),
    TooFarBehind(usize, u32),
    Begun(usize, u32),
    Told(usize, u32, Vec<Arc<Told>>),
    Read(usize, u32),
    Page(usize, u32, Reading),
    Done(usize, u32, Job),
    Failed(usize, u32),
    Flushed(usize, u32, WithdrawalId),
    Wake(usize, u32),
    Register(usize, u32),
    Renew(usize, u32, u64),
    Report(usize, u32, LinkId, bool),
    Forget(usize, u32, LinkId),
    Expire,
    Fault,
    Back(usize),
}

/// A whole reading of the store on its way.
#[derive(Debug)]
struct Reading {
    place: Place,
    rows: Vec<Arc<Row>>,
    had: usize,
    size: PageSize,
}

/// A gateway as the world knows it.
#[derive(Debug)]
struct Node {
    gateway: Gateway,
    shard: usize,
    /// Counts its agents, and its connections to the store.
    life: u32,
    connection: u32,
    is_up: bool,
    is_loading: bool,
    lease: Option<u64>,
    /// Nothing arrives before what was sent before.
    arrived: Duration,
    /// Where in its store's ledger it is.
    heard: usize,
    /// Links of which it has reported that nothing is left.
    removed: BTreeSet<LinkId>,
    /// The next job of its plane fails.
    plane_fails: bool,
    /// What its kernel had been given and told when that was judged last.
    judged: (u64, u64),
}

/// How often each fault came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Faults {
    pub(super) lost_watches: u64,
    pub(super) compactions: u64,
    pub(super) restarts: u64,
    pub(super) absences: u64,
    pub(super) storms: u64,
    pub(super) plane_failures: u64,
    pub(super) wrong_records: u64,
    /// What came of them: readings of a whole store that were not first ones, and starts from a local snapshot.
    pub(super) readings_again: u64,
    pub(super) snapshot_starts: u64,
}

/// See the room.
#[derive(Debug)]
pub(super) struct World {
    setup: Setup,
    now: Duration,
    agenda: Agenda<Happening>,
    chance: Chance,
    pub(super) etcds: Vec<Etcd>,
    nodes: Vec<Node>,
    region: Region,
    is_quiet: bool,
    pub(super) meter: Meter,
    pub(super) faults: Faults,
    /// The first law that was broken.
    wrong: Option<String>,
}

impl World {
    /// Fills the stores; no gateway runs yet.
    ///
    /// # Errors
    /// There can be no such region.
    pub(super) fn new(setup: Setup) -> Result<World, FixtureError> {
        let shards = if setup.sharded { setup.groups } else { 1 };
        let mut etcds: Vec<Etcd> = (0..shards).map(|_| Etcd::new()).collect();
        let region = Region::fill(setup.region, setup.groups, setup.links, &mut etcds)?;
        for etcd in &mut etcds {
            etcd.compact();
        }
        let base = Instant::now();
        let count = setup.groups * setup.gateways;
        let nodes = (0..count).filter_map(|number| {
            let group = number / setup.gateways;
            let name = format!("gw-{number:04}").parse().ok()?;
            let group_name = region::name(group);
            let gateway = Gateway::new(name, number, group_name, base, setup.faults.is_some());
            Some(Node {
                gateway,
                shard: group % shards,
                life: 0,
                connection: 0,
                is_up: true,
                is_loading: false,
                lease: None,
                arrived: Duration::ZERO,
                heard: 0,
                removed: BTreeSet::new(),
                plane_fails: false,
                judged: (0, 0),
            })
        });
        let nodes = nodes.collect();
        let mut world = World {
            now: Duration::ZERO,
            agenda: Agenda::new(),
            chance: Chance::new(setup.seed),
            etcds,
            nodes,
            region,
            is_quiet: true,
            meter: Meter::default(),
            faults: Faults::default(),
            wrong: None,
            setup,
        };
        for number in 0..world.nodes.len() {
            let at = world.chance.within(STARTS);
            world.agenda.push(at, Happening::Start(number, 0));
        }
        world.agenda.push(AGAIN, Happening::Expire);
        Ok(world)
    }

    /// The virtual time.
    pub(super) fn now(&self) -> Duration {
        self.now
    }

    pub(super) fn gateways(&self) -> impl Iterator<Item = &Gateway> {
        self.nodes.iter().map(|node| &node.gateway)
    }

    /// Lets this much time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, happening)) = self.agenda.pop(end) {
            self.now = at;
            self.happen(happening);
        }
        self.now = end;
    }

    /// Changes and orders begin, and faults where they are wanted.
    pub(super) fn begin(&mut self) {
        self.is_quiet = false;
        for group in 0..self.setup.groups {
            self.next_change(group);
            self.next_order(group);
        }
        self.next_fault();
    }

    /// They end; runs until every gateway runs and has done everything. How long that took.
    ///
    /// # Errors
    /// It takes longer than anybody would wait for it.
    pub(super) fn settle(&mut self) -> Result<Duration, String> {
        self.is_quiet = true;
        let began = self.now;
        while self.now < began + REST {
            self.run(Duration::from_secs(1));
            let at_rest = self.nodes.iter().all(|node| {
                let etcd = &self.etcds[node.shard];
                node.is_up
                    && !node.is_loading
                    && node.lease.is_some()
                    && node.gateway.is_settled()
                    && node.heard == etcd.ledger.len()
            });
            if at_rest {
                return Ok(self.now - began);
            }
        }
        let busy = self.nodes.iter().find(|node| !node.gateway.is_settled());
        Err(format!(
            "not at rest after {REST:?}; the first that is busy: {:?}",
            busy.map(|node| (&node.shard, node.is_up, node.is_loading, node.heard))
        ))
    }

    /// Begins to count.
    pub(super) fn count_from_here(&mut self) {
        for etcd in &mut self.etcds {
            etcd.carried = super::etcd::Carried::default();
        }
        for node in &mut self.nodes {
            node.gateway.events = 0;
            node.gateway.kernel.batches = 0;
            node.gateway.kernel.operations = 0;
        }
        self.meter.reset();
    }

    /// Whether every law was kept so far, and each gateway is what its store says.
    ///
    /// # Errors
    /// The first that was not.
    pub(super) fn judge(&self) -> Result<(), String> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        let fresh = self.etcds.iter().map(|etcd| {
            let mut inventory = Inventory::default();
            inventory.load(etcd.rows().map(|row| row.stored()).collect());
            inventory
        });
        let fresh: Vec<Inventory> = fresh.collect();
        for node in &self.nodes {
            node.gateway.judge(&fresh[node.shard])?;
            let all = self.etcds[node.shard].ledger.len();
            if node.heard != all {
                return Err(format!("told of {} commits of {all}", node.heard));
            }
        }
        Ok(())
    }

    fn broken(&mut self, what: String) {
        let now = self.now;
        self.wrong
            .get_or_insert_with(|| format!("at {now:?}: {what}"));
    }

    fn latency(&mut self) -> Duration {
        NETWORK + self.chance.within(NETWORK)
    }

    fn soon(&mut self, happening: Happening) {
        let at = self.now + self.latency();
        self.agenda.push(at, happening);
    }

    /// As soon as it can be, behind all that is on its way to the gateway already.
    fn send(&mut self, number: usize, happening: Happening) {
        let at = (self.now + self.latency()).max(self.nodes[number].arrived);
        self.nodes[number].arrived = at;
        self.agenda.push(at, happening);
    }

    fn next_change(&mut self, group: usize) {
        if self.setup.changes > 0.0 {
            let mean = Duration::from_secs_f64(1.0 / self.setup.changes);
            let at = self.now + self.chance.apart(mean);
            self.agenda.push(at, Happening::Change(group));
        }
    }

    fn next_order(&mut self, group: usize) {
        if self.setup.orders > 0.0 {
            let mean = Duration::from_secs_f64(1.0 / self.setup.orders);
            let at = self.now + self.chance.apart(mean);
            self.agenda.push(at, Happening::Order(group));
        }
    }

    fn next_fault(&mut self) {
        if let Some(mean) = self.setup.faults {
            let at = self.now + self.chance.apart(mean);
            self.agenda.push(at, Happening::Fault);
        }
    }

    fn shard_of(&self, group: usize) -> usize {
        group % self.etcds.len()
    }

    fn write(&mut self, shard: usize, writer: Writer, op: Op, lease: u64) {
        let told = self.etcds[shard].write(writer, vec![op], lease);
        if let Some((told, watching)) = told {
            self.tell(told, watching);
        }
    }

    fn tell(&mut self, told: Arc<Told>, watching: Vec<usize>) {
        for number in watching {
            let connection = self.nodes[number].connection;
            self.send(
                number,
                Happening::Told(number, connection, vec![told.clone()]),
            );
        }
    }

    fn change(&mut self, group: usize) {
        let shard = self.shard_of(group);
        if self.etcds[shard].away {
            return;
        }
        let is_wrong = self.setup.faults.is_some() && self.chance.below(20) == 0;
        let (etcd, chance) = (&self.etcds[shard], &mut self.chance);
        let op = match is_wrong {
            true => self.region.wrong(group, etcd, chance),
            false => self.region.change(group, etcd, chance),
        };
        self.faults.wrong_records += u64::from(is_wrong);
        if let Some(op) = op {
            self.write(shard, Writer::Controllers, op, 0);
        }
    }

    fn is_current(&self, number: usize, life: u32) -> bool {
        self.nodes[number].life == life && self.nodes[number].is_up
    }

    fn is_connected(&self, number: usize, connection: u32) -> bool {
        self.nodes[number].connection == connection && self.nodes[number].is_up
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Change(group) if !self.is_quiet => {
                self.change(group);
                self.next_change(group);
            }
            Happening::Order(group) if !self.is_quiet => {
                let shard = self.shard_of(group);
                // An order reads before it writes.
                if !self.etcds[shard].away
                    && let Some(op) = self.region.order(group, &mut self.chance)
                {
                    self.etcds[shard].carried.lookups += 1;
                    self.write(shard, Writer::Orders, op, 0);
                }
                self.next_order(group);
            }
            Happening::Fault if !self.is_quiet => {
                self.fault();
                self.next_fault();
            }
            Happening::Change(_) | Happening::Order(_) | Happening::Fault => {}
            Happening::Back(shard) => self.etcds[shard].come_back(self.now),
            Happening::Expire => {
                for shard in 0..self.etcds.len() {
                    if self.etcds[shard].away {
                        continue;
                    }
                    for (told, watching) in self.etcds[shard].expire(self.now) {
                        self.tell(told, watching);
                    }
                }
                self.agenda.push(self.now + AGAIN, Happening::Expire);
            }
            Happening::Start(number, life) => self.start(number, life),
            Happening::Read(number, life) if self.is_current(number, life) => {
                self.read(number, life);
            }
            Happening::Page(number, life, reading) if self.is_current(number, life) => {
                self.page(number, life, reading);
            }
            Happening::Ask(number, connection) if self.is_connected(number, connection) => {
                let shard = self.nodes[number].shard;
                let seen = self.nodes[number].gateway.seen();
                let answer = match self.etcds[shard].away {
                    true => Happening::Broken(number, connection),
                    false => {
                        let (place, then) = self.etcds[shard].whereabouts(seen);
                        Happening::At(number, connection, place, then)
                    }
                };
                self.send(number, answer);
            }
            Happening::Begin(number, connection, from) if self.is_connected(number, connection) => {
                self.watch(number, connection, from);
            }
            Happening::At(number, connection, place, then)
                if self.is_connected(number, connection) =>
            {
                self.hear(number, Heard::At(place, then));
            }
            Happening::Broken(number, connection) if self.is_connected(number, connection) => {
                self.hear(number, Heard::Broken("lost".to_owned()));
            }
            Happening::TooFarBehind(number, connection)
                if self.is_connected(number, connection) =>
            {
                self.hear(number, Heard::TooFarBehind);
            }
            Happening::Begun(number, connection) if self.is_connected(number, connection) => {
                self.hear(number, Heard::Begun);
            }
            Happening::Told(number, connection, told) if self.is_connected(number, connection) => {
                let commits = told.iter().map(|told| (told.commit.clone(), told.fence));
                let commits: Vec<(Commit, Option<Fence>)> = commits.collect();
                self.hear(number, Heard::Changes(commits));
                self.nodes[number].gateway.keep(&told);
            }
            Happening::Done(number, life, job) if self.is_current(number, life) => {
                let (node, now) = (&mut self.nodes[number], self.now);
                let acts = node.gateway.done(job, now, &mut self.meter);
                self.act(number, acts);
            }
            Happening::Failed(number, life) if self.is_current(number, life) => {
                let (node, now) = (&mut self.nodes[number], self.now);
                let acts = node.gateway.failed(now, &mut self.meter);
                self.act(number, acts);
            }
            Happening::Flushed(number, life, id) if self.is_current(number, life) => {
                let (node, now) = (&mut self.nodes[number], self.now);
                let acts = node.gateway.flushed(id, now, &mut self.meter);
                self.act(number, acts);
            }
            Happening::Wake(number, life) if self.is_current(number, life) => {
                let (node, now) = (&mut self.nodes[number], self.now);
                let acts = node.gateway.woken(now, &mut self.meter);
                self.act(number, acts);
            }
            Happening::Register(number, life) if self.is_current(number, life) => {
                self.register(number, life);
            }
            Happening::Renew(number, life, lease) if self.is_current(number, life) => {
                self.renew(number, life, lease);
            }
            Happening::Report(number, life, link, is_there) if self.is_current(number, life) => {
                self.report(number, link, is_there);
            }
            Happening::Forget(number, life, link) if self.is_current(number, life) => {
                self.forget(number, link);
            }
            // Of an agent or a connection that is gone.
            _ => {}
        }
    }

    /// An agent starts: from the store, or from its snapshot.
    fn start(&mut self, number: usize, life: u32) {
        if self.nodes[number].life != life {
            return;
        }
        let node = &mut self.nodes[number];
        node.is_up = true;
        node.lease = None;
        self.read(number, life);
    }

    fn read(&mut self, number: usize, life: u32) {
        let (shard, now) = (self.nodes[number].shard, self.now);
        self.nodes[number].is_loading = true;
        if self.etcds[shard].away {
            let node = &mut self.nodes[number];
            // An agent that has begun goes on with what it has.
            let acts = match node.gateway.is_running() {
                false => node.gateway.start_from_snapshot(now, &mut self.meter),
                true => None,
            };
            match acts {
                Some(acts) => {
                    node.is_loading = false;
                    self.faults.snapshot_starts += 1;
                    self.loaded(number, life, acts);
                }
                None => self.agenda.push(now + AGAIN, Happening::Read(number, life)),
            }
            return;
        }
        let seen = self.nodes[number].gateway.seen();
        let etcd = &mut self.etcds[shard];
        let (place, _) = etcd.whereabouts(seen);
        let rows = etcd.rows().cloned().collect();
        let reading = Reading {
            place,
            rows,
            had: 0,
            size: PageSize::new(),
        };
        self.soon(Happening::Page(number, life, reading));
    }

    /// The next page of a reading arrives at the store, and then at the gateway.
    fn page(&mut self, number: usize, life: u32, mut reading: Reading) {
        let (shard, now) = (self.nodes[number].shard, self.now);
        if reading.had >= reading.rows.len() {
            let node = &mut self.nodes[number];
            node.is_loading = false;
            let acts = node
                .gateway
                .loaded(reading.place, &reading.rows, now, &mut self.meter);
            return self.loaded(number, life, acts);
        }
        let end = reading.had + reading.size.records() as usize;
        let end = end.min(reading.rows.len());
        let left = reading.rows.len() - reading.had;
        let rows = &reading.rows[reading.had..end];
        let revision = reading.place.revision;
        let answer = match self.etcds[shard].away {
            true => Err(super::etcd::Compacted),
            false => self.etcds[shard].page(revision, rows, left),
        };
        let Ok((octets, plain)) = answer else {
            // It cannot be read to its end: from the begin.
            return self.agenda.push(now + AGAIN, Happening::Read(number, life));
        };
        reading.size.had(rows.len(), plain as usize);
        reading.had = end;
        let travel = Duration::from_secs_f64(octets as f64 / OCTETS_PER_SECOND);
        let at = now + self.latency() + self.latency() + travel;
        self.agenda.push(at, Happening::Page(number, life, reading));
    }

    fn loaded(&mut self, number: usize, life: u32, acts: Vec<Act>) {
        // What was on its way for whoever listened before is not for this one.
        self.nodes[number].connection += 1;
        let shard = self.nodes[number].shard;
        self.etcds[shard].unwatch(number);
        self.act(number, acts);
        if self.nodes[number].lease.is_none() {
            self.register(number, life);
        }
    }

    fn watch(&mut self, number: usize, connection: u32, from: Generation) {
        let shard = self.nodes[number].shard;
        if self.etcds[shard].away {
            return self.send(number, Happening::Broken(number, connection));
        }
        match self.etcds[shard].watch(number, from) {
            Err(super::etcd::Compacted) => {
                self.send(number, Happening::TooFarBehind(number, connection));
            }
            Ok(missed) => {
                self.send(number, Happening::Begun(number, connection));
                if !missed.is_empty() {
                    self.send(number, Happening::Told(number, connection, missed));
                }
            }
        }
    }

    fn hear(&mut self, number: usize, heard: Heard) {
        let (node, now) = (&mut self.nodes[number], self.now);
        let acts = node.gateway.hear(heard, now, &mut self.meter);
        self.act(number, acts);
    }

    fn register(&mut self, number: usize, life: u32) {
        let (node, now) = (&mut self.nodes[number], self.now);
        let (shard, etcd) = (node.shard, &mut self.etcds[node.shard]);
        if etcd.away {
            return self
                .agenda
                .push(now + SPACING, Happening::Register(number, life));
        }
        let is_new = node.lease.is_none();
        let lease = *node.lease.get_or_insert_with(|| etcd.grant(now));
        let said = node.gateway.say(now, is_new);
        if is_new {
            let renewal = Happening::Renew(number, life, lease);
            self.agenda.push(now + RENEWAL, renewal);
        }
        if let Some((key, value)) = said {
            self.write(shard, Writer::Registration, Op::Put(key, value), lease);
        }
    }

    fn renew(&mut self, number: usize, life: u32, lease: u64) {
        let (node, now) = (&mut self.nodes[number], self.now);
        if node.lease != Some(lease) {
            return;
        }
        let etcd = &mut self.etcds[node.shard];
        if !etcd.away && etcd.keep_alive(lease, now) {
            let renewal = Happening::Renew(number, life, lease);
            return self.agenda.push(now + RENEWAL, renewal);
        }
        node.lease = None;
        self.agenda
            .push(now + SPACING, Happening::Register(number, life));
    }

    fn report(&mut self, number: usize, link: LinkId, is_there: bool) {
        let (node, now) = (&mut self.nodes[number], self.now);
        let etcd = &mut self.etcds[node.shard];
        let Some(lease) = node.lease.filter(|_| !etcd.away) else {
            let again = Happening::Report(number, node.life, link, is_there);
            return self.agenda.push(now + AGAIN, again);
        };
        etcd.report(&link.as_str().into(), number, Some(lease));
        if is_there {
            node.removed.remove(&link);
        } else {
            node.removed.insert(link.clone());
            let forget = Happening::Forget(number, node.life, link);
            self.agenda.push(now + REMOVED, forget);
        }
    }

    /// Says nothing any more of a link that is gone for long enough.
    fn forget(&mut self, number: usize, link: LinkId) {
        let node = &mut self.nodes[number];
        let etcd = &mut self.etcds[node.shard];
        // What is not deleted now goes with the lease.
        if node.removed.remove(&link) && !etcd.away {
            etcd.report(&link.as_str().into(), number, None);
        }
    }

    /// Does what a gateway wants done, and looks at what it took over.
    fn act(&mut self, number: usize, acts: Vec<Act>) {
        let (life, connection) = (self.nodes[number].life, self.nodes[number].connection);
        for act in acts {
            let now = self.now;
            match act {
                Act::Ask(pause) => {
                    // A quarter shorter to a quarter longer, as the store's shell has it.
                    let spread = 0.75 + self.chance.below(1 << 16) as f64 / f64::from(1 << 17);
                    let at = now + pause.mul_f64(spread) + self.latency();
                    self.agenda.push(at, Happening::Ask(number, connection));
                }
                Act::Begin(from) => self.soon(Happening::Begin(number, connection, from)),
                Act::Read => {
                    self.faults.readings_again += 1;
                    self.soon(Happening::Read(number, life));
                }
                Act::Plane(job) => {
                    let entries = match &job {
                        Job::Batch(batch) => batch.upserts.len() + batch.removals.len(),
                        Job::Whole(_, contents) => contents.len(),
                    };
                    let took = PLANE + PLANE_EACH * u32::try_from(entries).unwrap_or(u32::MAX);
                    let happening = match std::mem::take(&mut self.nodes[number].plane_fails) {
                        true => Happening::Failed(number, life),
                        false => Happening::Done(number, life, job),
                    };
                    self.agenda.push(now + took, happening);
                }
                Act::Flush(id) => {
                    self.agenda
                        .push(now + FLUSH, Happening::Flushed(number, life, id));
                }
                Act::Wake(at) => self.agenda.push(at.max(now), Happening::Wake(number, life)),
                Act::Register(at) => self
                    .agenda
                    .push(at.max(now), Happening::Register(number, life)),
                Act::Report(link, is_there) => self.report(number, link, is_there),
            }
        }
        self.look_at(number);
    }

    fn look_at(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let ledger = &self.etcds[node.shard].ledger;
        let mut wrong = None;
        for taken in std::mem::take(&mut node.gateway.taken) {
            match taken {
                Taken::Whole(generation) => {
                    node.heard = ledger.partition_point(|revision| *revision <= generation);
                }
                Taken::Commit(generation) => {
                    let expected = ledger.get(node.heard);
                    if expected != Some(&generation) {
                        wrong = Some(format!(
                            "gateway {number} is told of {generation}, next was {expected:?}"
                        ));
                    }
                    node.heard += 1;
                }
            }
        }
        let node = &mut self.nodes[number];
        let now = (node.gateway.kernel.batches, node.gateway.announcements);
        if self.setup.faults.is_some()
            && std::mem::replace(&mut node.judged, now) != now
            && let Some(prefix) = node.gateway.kernel.unbacked()
        {
            wrong = Some(format!(
                "gateway {number} announces {prefix} with nothing behind it"
            ));
        }
        if let Some(wrong) = wrong {
            self.broken(wrong);
        }
    }

    /// Something breaks.
    fn fault(&mut self) {
        let number = self.chance.place(self.nodes.len());
        let shard = self.nodes[number].shard;
        let now = self.now;
        match self.chance.below(9) {
            0..=2 if self.etcds[shard].is_watched_by(number) => {
                self.faults.lost_watches += 1;
                self.etcds[shard].unwatch(number);
                // It is noticed later: what was on its way is lost.
                let node = &mut self.nodes[number];
                node.connection += 1;
                let connection = node.connection;
                let at = now + self.chance.within(Duration::from_secs(2));
                self.agenda.push(at, Happening::Broken(number, connection));
            }
            3 | 4 if self.etcds[shard].kept() > 0 => {
                self.faults.compactions += 1;
                self.etcds[shard].compact();
            }
            5 if self.nodes[number].is_up => {
                self.faults.restarts += 1;
                self.etcds[shard].unwatch(number);
                let node = &mut self.nodes[number];
                node.gateway.kill();
                node.removed.clear();
                node.is_up = false;
                node.life += 1;
                node.connection += 1;
                let life = node.life;
                let at = now + self.chance.within(Duration::from_secs(40));
                self.agenda.push(at, Happening::Start(number, life));
            }
            6 if !self.etcds[shard].away => self.leave(shard),
            7 => {
                self.faults.storms += 1;
                let group = self.chance.place(self.setup.groups);
                for _ in 0..STORM {
                    self.change(group);
                }
            }
            8 => {
                self.faults.plane_failures += 1;
                self.nodes[number].plane_fails = true;
            }
            _ => {}
        }
    }

    /// A store is away for a while, and everybody who watches it notices.
    fn leave(&mut self, shard: usize) {
        self.faults.absences += 1;
        self.etcds[shard].go();
        for number in 0..self.nodes.len() {
            let node = &mut self.nodes[number];
            if node.shard != shard || !node.is_up {
                continue;
            }
            node.connection += 1;
            let connection = node.connection;
            self.soon(Happening::Broken(number, connection));
        }
        let away = self.chance.within(Duration::from_secs(20));
        self.agenda.push(self.now + away, Happening::Back(shard));
    }
}
