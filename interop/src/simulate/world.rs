//! Gateways and the stores that they follow, in one thread and a virtual time: one seed, one run.
//!
//! It judges what can be judged only on the way: that everybody who watches is told every commit once and in order,
//! and that nothing is announced without forwarding behind it.

mod agents;
mod faults;

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
use super::gateway::{Gateway, Job};
use super::meter::Meter;
use super::region::{self, Region};

/// A message to or from the store takes this long, and up to as long again.
const NETWORK: Duration = Duration::from_micros(250);
/// How long a store that is away is left alone.
const AGAIN: Duration = Duration::from_secs(1);
/// All gateways start within this time.
const STARTS: Duration = Duration::from_secs(1);
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
}
