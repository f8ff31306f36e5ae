//! What gateways' agents do in the world: start, read, watch, hear, register, report, and drive their planes.

use std::time::Duration;

use ccn::record::LinkId;
use ccn::store::Generation;
use ccn::store::etcd::follow::Heard;
use ccn::store::etcd::pages::PageSize;

use super::super::etcd::{self, Op, Writer};
use super::super::gateway::{Act, Job, SPACING, Taken};
use super::{AGAIN, Happening, Reading, World};

/// What pages travel with: 10 Gbit/s.
const OCTETS_PER_SECOND: f64 = 1.25e9;
/// The plane takes this long for any batch, and for each entry of it (`bench program`, the `ebpf` plane).
const PLANE: Duration = Duration::from_micros(100);
const PLANE_EACH: Duration = Duration::from_nanos(1100);
/// Peers have a withdrawal after this.
const FLUSH: Duration = Duration::from_millis(2);
/// How often a lease is renewed.
const RENEWAL: Duration = Duration::from_secs(10);
/// How long it is said of a link that nothing of it is left.
const REMOVED: Duration = Duration::from_secs(60);

impl World {
    /// An agent starts: from the store, or from its snapshot.
    pub(super) fn start(&mut self, number: usize, life: u32) {
        if self.nodes[number].life != life {
            return;
        }
        let node = &mut self.nodes[number];
        node.is_up = true;
        node.lease = None;
        self.read(number, life);
    }

    pub(super) fn read(&mut self, number: usize, life: u32) {
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
    pub(super) fn page(&mut self, number: usize, life: u32, mut reading: Reading) {
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
            true => Err(etcd::Compacted),
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

    pub(super) fn loaded(&mut self, number: usize, life: u32, acts: Vec<Act>) {
        // What was on its way for whoever listened before is not for this one.
        self.nodes[number].connection += 1;
        let shard = self.nodes[number].shard;
        self.etcds[shard].unwatch(number);
        self.act(number, acts);
        if self.nodes[number].lease.is_none() {
            self.register(number, life);
        }
    }

    pub(super) fn watch(&mut self, number: usize, connection: u32, from: Generation) {
        let shard = self.nodes[number].shard;
        if self.etcds[shard].away {
            return self.send(number, Happening::Broken(number, connection));
        }
        match self.etcds[shard].watch(number, from) {
            Err(etcd::Compacted) => {
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

    pub(super) fn hear(&mut self, number: usize, heard: Heard) {
        let (node, now) = (&mut self.nodes[number], self.now);
        let acts = node.gateway.hear(heard, now, &mut self.meter);
        self.act(number, acts);
    }

    pub(super) fn register(&mut self, number: usize, life: u32) {
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

    pub(super) fn renew(&mut self, number: usize, life: u32, lease: u64) {
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

    pub(super) fn report(&mut self, number: usize, link: LinkId, is_there: bool) {
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
    pub(super) fn forget(&mut self, number: usize, link: LinkId) {
        let node = &mut self.nodes[number];
        let etcd = &mut self.etcds[node.shard];
        // What is not deleted now goes with the lease.
        if node.removed.remove(&link) && !etcd.away {
            etcd.report(&link.as_str().into(), number, None);
        }
    }

    /// Does what a gateway wants done, and looks at what it took over.
    pub(super) fn act(&mut self, number: usize, acts: Vec<Act>) {
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

    pub(super) fn look_at(&mut self, number: usize) {
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
}
