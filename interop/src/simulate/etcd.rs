//! An etcd without a network, a disk and a clock: revisions, transactions, watches, leases, compaction; and what all
//! of that comes to in requests, events and octets.
//!
//! It takes no time: whoever asks it decides when an answer arrives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ccn::store::etcd::follow::{Fence, Place};
use ccn::store::{Changed, Commit, Generation, Stored};
use serde::Serialize;

use super::wire;

/// What keys begin with; the lab's and everybody's default.
const ROOT: u64 = "/ccn/v1/".len() as u64;
/// The key that each commit of ours writes, below the root, and what it has for a value: a mark of 32 digits.
const FENCE: u64 = ROOT + "commit".len() as u64;
const MARK: u64 = 32;
/// A gateway that says nothing for so long is gone.
const LEASE: Duration = Duration::from_secs(30);

/// A key, and what stands there.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) key: Arc<str>,
    pub(super) value: Bytes,
    pub(super) created: Generation,
    pub(super) modified: Generation,
    version: u64,
    lease: u64,
}

impl Row {
    fn sizes(&self) -> wire::KeyValue {
        wire::KeyValue {
            key: ROOT + self.key.len() as u64,
            value: self.value.len() as u64,
            created: self.created,
            modified: self.modified,
            version: self.version,
            lease: self.lease,
        }
    }

    /// As the store's contract has it.
    pub(super) fn stored(&self) -> Stored {
        Stored {
            key: self.key.to_string(),
            created: self.created,
            modified: self.modified,
            value: self.value.clone(),
        }
    }
}

/// What somebody wants written.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Put(Arc<str>, Bytes),
    Delete(Arc<str>),
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Writer {
    /// The cloud's own controllers: VMs, without the key `commit`.
    Controllers,
    /// An API server: links.
    Orders,
    /// A gateway's own record.
    Registration,
    /// etcd itself: a lease ran out.
    Expiry,
}

/// What one transaction made, as all that watch are told it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) commit: Commit,
    pub(super) fence: Option<Fence>,
    pub(super) rows: Vec<(Arc<str>, Option<Arc<Row>>)>,
    writer: Writer,
    events: u64,
    octets: u64,
}

/// What went through, of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Flow {
    /// Transactions that wrote something.
    pub(super) writes: u64,
    /// Events, one for each key, told to somebody who watches.
    pub(super) events: u64,
    /// The octets of that.
    pub(super) octets: u64,
    /// Events told to the first of those who watch.
    pub(super) events_each: u64,
    /// The octets of that.
    pub(super) octets_each: u64,
}

/// What an etcd carried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Carried {
    /// What was written below the root, by who wrote.
    pub(super) flows: BTreeMap<Writer, Flow>,
    /// What gateways reported of links, beside the root.
    pub(super) reports: u64,
    /// Reads that ask for keys by name.
    pub(super) lookups: u64,
    /// Pages of ranges, the octets that they had, and the keys etcd counted beside them.
    pub(super) pages: u64,
    pub(super) page_octets: u64,
    pub(super) counted: u64,
    /// Leases granted and kept alive.
    pub(super) grants: u64,
    pub(super) keep_alives: u64,
}

impl Carried {
    /// With what another one carried.
    pub(super) fn and(mut self, other: &Carried) -> Carried {
        for (writer, flow) in &other.flows {
            let of = self.flows.entry(*writer).or_default();
            of.writes += flow.writes;
            of.events += flow.events;
            of.octets += flow.octets;
            of.events_each += flow.events_each;
            of.octets_each += flow.octets_each;
        }
        self.reports += other.reports;
        self.lookups += other.lookups;
        self.pages += other.pages;
        self.page_octets += other.page_octets;
        self.counted += other.counted;
        self.grants += other.grants;
        self.keep_alives += other.keep_alives;
        self
    }

    pub(super) fn flow(&self, writer: Writer) -> Flow {
        self.flows.get(&writer).copied().unwrap_or_default()
    }
}

#[derive(Debug)]
struct Lease {
    ends: Duration,
    keys: BTreeSet<Arc<str>>,
}

/// Something below a revision was asked for that is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compacted;

/// See the room.
#[derive(Debug)]
pub(super) struct Etcd {
    revision: Generation,
    compacted: Generation,
    term: u64,
    pub(super) away: bool,
    rows: BTreeMap<Arc<str>, Arc<Row>>,
    history: VecDeque<Arc<Told>>,
    fences: Vec<Fence>,
    /// Who watches.
    watching: BTreeSet<usize>,
    leases: BTreeMap<u64, Lease>,
    /// Reports of links, with the lease of who reports.
    reports: BTreeMap<(Arc<str>, usize), u64>,
    /// Every revision that those who watch are told of, from the first.
    pub(super) ledger: Vec<Generation>,
    pub(super) carried: Carried,
}

impl Etcd {
    pub(super) fn new() -> Etcd {
        Etcd {
            revision: 1,
            compacted: 0,
            term: 2,
            away: false,
            rows: BTreeMap::new(),
            history: VecDeque::new(),
            fences: Vec::new(),
            watching: BTreeSet::new(),
            leases: BTreeMap::new(),
            reports: BTreeMap::new(),
            ledger: Vec::new(),
            carried: Carried::default(),
        }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.values()
    }

    pub(super) fn row(&self, key: &str) -> Option<&Arc<Row>> {
        self.rows.get(key)
    }

    pub(super) fn is_watched_by(&self, client: usize) -> bool {
        self.watching.contains(&client)
    }

    /// Writes in one transaction; who is to be told what. Nothing when nothing was to be written.
    pub(super) fn write(
        &mut self,
        writer: Writer,
        ops: Vec<Op>,
        lease: u64,
    ) -> Option<(Arc<Told>, Vec<usize>)> {
        let revision = self.revision + 1;
        let (mut changes, mut rows) = (Vec::new(), Vec::new());
        let (mut events, mut octets) = (0, 0);
        for op in ops {
            match op {
                Op::Put(key, value) => {
                    let before = self.rows.get(&key);
                    let row = Arc::new(Row {
                        key: key.clone(),
                        value,
                        created: before.map_or(revision, |row| row.created),
                        modified: revision,
                        version: before.map_or(1, |row| row.version + 1),
                        lease,
                    });
                    if let Some(old) = before.map(|row| row.lease)
                        && let Some(old) = self.leases.get_mut(&old)
                    {
                        old.keys.remove(&key);
                    }
                    if let Some(lease) = self.leases.get_mut(&lease) {
                        lease.keys.insert(key.clone());
                    }
                    octets += row.sizes().as_put();
                    changes.push(Changed::Put(row.stored()));
                    rows.push((key.clone(), Some(row.clone())));
                    self.rows.insert(key, row);
                }
                Op::Delete(key) => {
                    if self.rows.remove(&key).is_none() {
                        continue;
                    }
                    octets += wire::deleted(ROOT + key.len() as u64, revision);
                    changes.push(Changed::Deleted {
                        key: key.to_string(),
                    });
                    rows.push((key, None));
                }
            }
            events += 1;
        }
        if changes.is_empty() {
            return None;
        }
        self.revision = revision;
        let fence = (writer == Writer::Orders).then_some(Fence {
            revision,
            // Any number that no other commit has.
            mark: revision.wrapping_mul(0x0000_0100_0000_01b3),
        });
        if let Some(fence) = fence {
            let sizes = wire::KeyValue {
                key: FENCE,
                value: MARK,
                created: self.fences.first().map_or(revision, |first| first.revision),
                modified: revision,
                version: self.fences.len() as u64 + 1,
                lease: 0,
            };
            events += 1;
            octets += sizes.as_put();
            self.fences.push(fence);
        }
        let told = Arc::new(Told {
            commit: Commit {
                generation: revision,
                changes,
            },
            fence,
            rows,
            writer,
            events,
            octets: wire::watch_response(revision, octets),
        });
        self.history.push_back(told.clone());
        self.ledger.push(revision);
        let flow = self.carried.flows.entry(writer).or_default();
        flow.writes += 1;
        flow.events_each += told.events;
        flow.octets_each += told.octets;
        let watching: Vec<usize> = self.watching.iter().copied().collect();
        for _ in &watching {
            self.count(&told);
        }
        Some((told, watching))
    }

    fn count(&mut self, told: &Told) {
        let flow = self.carried.flows.entry(told.writer).or_default();
        flow.events += told.events;
        flow.octets += told.octets;
    }

    /// A gateway reports of a link, beside what is watched, on its lease; or takes its report away.
    pub(super) fn report(&mut self, link: &Arc<str>, gateway: usize, lease: Option<u64>) {
        self.revision += 1;
        self.carried.reports += 1;
        let key = (link.clone(), gateway);
        match lease {
            Some(lease) => drop(self.reports.insert(key, lease)),
            None => drop(self.reports.remove(&key)),
        }
    }

    /// Where the cluster is, and the last commit of ours up to a revision, if that is still known.
    pub(super) fn whereabouts(&mut self, seen: Option<Generation>) -> (Place, Option<Fence>) {
        self.carried.lookups += 1 + u64::from(seen.is_some());
        let place = Place {
            cluster: 1,
            term: self.term,
            revision: self.revision,
            fence: Some(self.fence_at(self.revision)),
        };
        let then = seen.filter(|seen| *seen >= self.compacted);
        (place, then.map(|seen| self.fence_at(seen)))
    }

    fn fence_at(&self, revision: Generation) -> Fence {
        let until = self
            .fences
            .partition_point(|fence| fence.revision <= revision);
        let last = until.checked_sub(1).and_then(|last| self.fences.get(last));
        last.copied().unwrap_or_default()
    }

    /// Has a client watch from this revision on; what it is told at once.
    pub(super) fn watch(
        &mut self,
        client: usize,
        from: Generation,
    ) -> Result<Vec<Arc<Told>>, Compacted> {
        if from < self.compacted {
            return Err(Compacted);
        }
        let missed = self
            .history
            .iter()
            .filter(|told| told.commit.generation >= from);
        let missed: Vec<Arc<Told>> = missed.cloned().collect();
        for told in &missed {
            self.count(told);
        }
        self.watching.insert(client);
        Ok(missed)
    }

    /// A watch ends without a word to anybody.
    pub(super) fn unwatch(&mut self, client: usize) {
        self.watching.remove(&client);
    }

    /// Counts a page of a range that was read at a revision; its octets, or that it is forgotten.
    pub(super) fn page(
        &mut self,
        revision: Generation,
        rows: &[Arc<Row>],
        left: usize,
    ) -> Result<(u64, u64), Compacted> {
        if revision < self.compacted {
            return Err(Compacted);
        }
        let records: u64 = rows.iter().map(|row| row.sizes().in_range()).sum();
        let octets = wire::range_response(revision, records, left as u64);
        self.carried.pages += 1;
        self.carried.page_octets += octets;
        self.carried.counted += left as u64;
        let plain = rows.iter().map(|row| row.sizes());
        let plain = plain.map(|sizes| sizes.key + sizes.value).sum();
        Ok((octets, plain))
    }

    /// Forgets all history before now.
    pub(super) fn compact(&mut self) {
        let now = self.revision;
        self.compacted = now;
        self.history.retain(|told| told.commit.generation >= now);
    }

    /// How much history is kept.
    pub(super) fn kept(&self) -> usize {
        self.history.len()
    }

    /// A lease of 30 s, from now.
    pub(super) fn grant(&mut self, now: Duration) -> u64 {
        self.carried.grants += 1;
        // Ids of leases are large numbers.
        let id = (1 << 60) + self.carried.grants + self.revision;
        let keys = BTreeSet::new();
        let ends = now + LEASE;
        self.leases.insert(id, Lease { ends, keys });
        id
    }

    /// Keeps a lease alive; false when it is gone.
    pub(super) fn keep_alive(&mut self, id: u64, now: Duration) -> bool {
        self.carried.keep_alives += 1;
        match self.leases.get_mut(&id) {
            Some(lease) => {
                lease.ends = now + LEASE;
                true
            }
            None => false,
        }
    }

    /// Ends the leases whose time is over, with their keys; who is to be told.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<(Arc<Told>, Vec<usize>)> {
        let over = self.leases.iter().filter(|(_, lease)| lease.ends <= now);
        let over: Vec<u64> = over.map(|(id, _)| *id).collect();
        let mut all = Vec::new();
        for id in over {
            let keys = self.leases.remove(&id).map(|lease| lease.keys);
            let ops = keys.into_iter().flatten().map(Op::Delete).collect();
            self.reports.retain(|_, lease| *lease != id);
            all.extend(self.write(Writer::Expiry, ops, 0));
        }
        all
    }

    /// Nobody is heard, and nothing watched.
    pub(super) fn go(&mut self) {
        self.away = true;
        self.watching.clear();
    }

    /// A new leader, who lets every lease begin anew.
    pub(super) fn come_back(&mut self, now: Duration) {
        self.away = false;
        self.term += 1;
        for lease in self.leases.values_mut() {
            lease.ends = now + LEASE;
        }
    }

    /// How many records of each kind there are, and their octets as etcd keeps them.
    pub(super) fn kept_octets(&self) -> BTreeMap<String, (u64, u64)> {
        let mut kinds: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for row in self.rows.values() {
            let kind = row.key.split('/').next().unwrap_or_default();
            let of_kind = kinds.entry(kind.to_owned()).or_default();
            of_kind.0 += 1;
            of_kind.1 += row.sizes().octets();
        }
        kinds
    }
}
