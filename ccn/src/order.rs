//! The order of change: program, verify, then announce; withdraw, drain, then remove.
//!
//! A state machine between the planner, the plane and the speaker. It decides *when* each part of
//! a plan may happen; it never decides *what*, and does no I/O: the agent feeds it what happened
//! and the time, and carries out what [`Order::poll`] returns.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bgp::Prefix;

use crate::plan::Delta;
use crate::plane::entry::{EntryKey, EntryValue};
use crate::plane::{Applied, Batch, LearnedNextHops};
use crate::record::LinkId;

mod announcing;
mod backing;
mod moved;
mod progress;
mod replaced;
#[cfg(test)]
mod tests;

pub use announcing::Announcing;
pub use backing::LinkPhase;
use backing::{Backing, Forwarding, Phase, subnet_of};
use moved::Moved;
use replaced::Before;

/// How long the plane is left alone after it failed; doubled for each failure in a row.
const RESYNC_FIRST: Duration = Duration::from_millis(200);
/// The longest such pause.
const RESYNC_MOST: Duration = Duration::from_secs(30);

/// One withdrawal, from UPDATE to the removal of what it protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WithdrawalId(u64);

/// What the agent shall do. At most one `Apply` or `Resync` is outstanding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Give this to the plane; answer with [`Order::applied`] or [`Order::plane_failed`].
    Apply(Batch),
    /// Give the plane everything (the plan, and [`Order::held`]); answer as for `Apply`.
    Resync,
    /// Announce these prefixes: their forwarding is verified.
    Announce(BTreeSet<Prefix>),
    /// Wait (bounded) until the peers have what was announced so far, then answer with [`Order::flushed`]: it
    /// stands in for what is withdrawn then.
    Flush(WithdrawalId),
    /// Withdraw these prefixes, wait (bounded) until the peers have it, then answer with
    /// [`Order::flushed`].
    Withdraw(WithdrawalId, BTreeSet<Prefix>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Announcement {
    Waiting,
    Announced,
    Withdrawing(WithdrawalId),
}

#[derive(Debug)]
struct Withdrawal {
    /// When what it protects may go; unknown until the peers have the withdrawal.
    release: Option<Instant>,
    /// What it protects, unless it was planned again meanwhile.
    held: Vec<EntryKey>,
    /// What the peers must have before they are told of it.
    before: Before,
}

#[derive(Debug, Default)]
struct Pending {
    upserts: BTreeMap<EntryKey, EntryValue>,
    removals: BTreeSet<EntryKey>,
    learned: BTreeMap<Prefix, LearnedNextHops>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty() && self.learned.is_empty()
    }
}

#[derive(Debug)]
enum InFlight {
    None,
    Batch {
        upserts: BTreeSet<EntryKey>,
        removals: BTreeSet<EntryKey>,
    },
    Everything,
}

/// See the module's words.
#[derive(Debug)]
pub struct Order {
    drain: Duration,
    /// Generation of the newest plan seen.
    planned: u64,
    /// Generation that the plane acknowledged last.
    acknowledged: u64,
    announcing: Announcing,
    /// Sources and permits: what an announcement rests on.
    backing: Backing,
    /// Endpoints that go only when a withdrawal is done.
    held_endpoints: BTreeMap<EntryKey, (EntryValue, WithdrawalId)>,
    /// Prefixes that shall be announced, with the links that want it.
    wanted: BTreeMap<Prefix, BTreeSet<LinkId>>,
    announcements: BTreeMap<Prefix, Announcement>,
    withdrawals: BTreeMap<WithdrawalId, Withdrawal>,
    /// The last withdrawal of each prefix, until it is done; the prefix may be wanted again.
    withdrawn: BTreeMap<Prefix, WithdrawalId>,
    next_withdrawal: u64,
    to_withdraw: BTreeMap<WithdrawalId, BTreeSet<Prefix>>,
    /// Prefixes whose announcement must be looked at again.
    suspects: BTreeSet<Prefix>,
    moved: Moved,
    pending: Pending,
    /// Whether a batch shall go out though nothing is pending.
    look: bool,
    in_flight: InFlight,
    resync_at: Option<Instant>,
    failures_in_a_row: u32,
}

impl Order {
    /// A machine that asks for a resync first. `drain` is how long forwarding outlives the moment
    /// at which every peer has the withdrawal.
    #[must_use]
    pub fn new(drain: Duration, now: Instant) -> Self {
        Order {
            drain,
            planned: 0,
            acknowledged: 0,
            announcing: Announcing::Everything,
            backing: Backing::default(),
            held_endpoints: BTreeMap::new(),
            wanted: BTreeMap::new(),
            announcements: BTreeMap::new(),
            withdrawals: BTreeMap::new(),
            withdrawn: BTreeMap::new(),
            next_withdrawal: 0,
            to_withdraw: BTreeMap::new(),
            suspects: BTreeSet::new(),
            moved: Moved::default(),
            pending: Pending::default(),
            look: false,
            in_flight: InFlight::None,
            resync_at: Some(now),
            failures_in_a_row: 0,
        }
    }

    /// The plan changed. One that is new as a whole is followed by [`Order::resync`].
    pub fn planned(&mut self, delta: Delta) {
        // Of a store that went back nothing later was acknowledged.
        self.acknowledged = self.acknowledged.min(delta.generation);
        self.planned = delta.generation;
        if delta.whole {
            // Which of them are planned again is not named; the comparison takes away the others.
            self.held_endpoints.clear();
        }
        let withdrawal = self.announcements_changed(delta.announcements);
        for (key, value) in delta.upserts {
            self.held_endpoints.remove(&key);
            self.pending.removals.remove(&key);
            if let Some(subnet) = subnet_of(&key) {
                self.suspects.insert(subnet);
                self.moved.subnets([subnet]);
                self.backing.want(&key, subnet, value.clone());
            }
            self.pending.upserts.insert(key, value);
        }
        for key in delta.removals.keys() {
            self.pending.upserts.remove(key);
            self.set_phase(key, Phase::Removing);
        }
        // What is removed may be all that an announcement still rested on, though other links
        // that the plane refused want it too.
        let lost = self.lost();
        if !lost.is_empty() {
            self.begin_withdrawal(lost, Before::Nothing);
        }
        for (key, value) in delta.removals {
            let held_by = self.protector(&key, withdrawal);
            if let Some(withdrawal) = held_by.and_then(|id| self.withdrawals.get_mut(&id)) {
                withdrawal.held.push(key.clone());
            }
            match (subnet_of(&key), held_by) {
                (Some(_), Some(id)) => self.set_phase(&key, Phase::Held(id)),
                (None, Some(id)) => {
                    self.held_endpoints.insert(key, (value, id));
                }
                (_, None) => {
                    self.pending.removals.insert(key);
                }
            }
        }
    }

    /// Takes over which prefixes shall be announced; the withdrawal that this begins, if any.
    fn announcements_changed(
        &mut self,
        changes: BTreeMap<Prefix, BTreeSet<LinkId>>,
    ) -> Option<WithdrawalId> {
        let (mut gone, mut of_links) = (BTreeSet::new(), BTreeSet::new());
        for (prefix, links) in changes {
            self.suspects.insert(prefix);
            if !links.is_empty() {
                self.wanted.insert(prefix, links);
                let state = self
                    .announcements
                    .entry(prefix)
                    .or_insert(Announcement::Waiting);
                if let Announcement::Withdrawing(id) = *state {
                    let untold = self.to_withdraw.get_mut(&id);
                    *state = match untold.is_some_and(|prefixes| prefixes.remove(&prefix)) {
                        true => {
                            self.withdrawn.remove(&prefix);
                            Announcement::Announced
                        }
                        false => Announcement::Waiting,
                    };
                }
                continue;
            }
            let links = self.wanted.remove(&prefix).unwrap_or_default();
            match self.announcements.get(&prefix) {
                Some(Announcement::Announced) => {
                    gone.insert(prefix);
                    of_links.extend(links);
                }
                Some(Announcement::Waiting) => {
                    self.announcements.remove(&prefix);
                }
                Some(Announcement::Withdrawing(_)) | None => {}
            }
        }
        (!gone.is_empty()).then(|| self.begin_withdrawal(gone, Before::Instead(of_links)))
    }

    fn begin_withdrawal(&mut self, prefixes: BTreeSet<Prefix>, before: Before) -> WithdrawalId {
        let id = WithdrawalId(self.next_withdrawal);
        self.next_withdrawal += 1;
        for prefix in &prefixes {
            self.announcements
                .insert(*prefix, Announcement::Withdrawing(id));
            self.withdrawn.insert(*prefix, id);
        }
        self.moved.subnets(prefixes.iter().copied());
        // What was free to go, or soon would be, and has not gone yet protects something again.
        let held: Vec<EntryKey> = prefixes
            .iter()
            .flat_map(|prefix| self.backing.of_subnet(prefix))
            .filter(|(key, phase)| {
                self.pending.removals.contains(key) || matches!(phase, Phase::Held(_))
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in &held {
            self.pending.removals.remove(key);
            self.set_phase(key, Phase::Held(id));
        }
        self.withdrawals.insert(
            id,
            Withdrawal {
                release: None,
                held,
                before,
            },
        );
        self.to_withdraw.insert(id, prefixes);
        id
    }

    /// The withdrawal that must be done before this entry may go. `latest` is the one that the same
    /// change of plan began.
    fn protector(&self, key: &EntryKey, latest: Option<WithdrawalId>) -> Option<WithdrawalId> {
        match key {
            EntryKey::Source { subnet, .. } | EntryKey::Permit { subnet, .. } => {
                // Announced again: another link needs it, and the old withdrawal is void.
                if self.announcements.get(subnet) == Some(&Announcement::Announced) {
                    return None;
                }
                self.withdrawn.get(subnet).copied()
            }
            EntryKey::Endpoint { scope, addr } => {
                let id = latest?;
                self.to_withdraw
                    .get(&id)?
                    .iter()
                    .filter(|prefix| prefix.contains_addr(*addr))
                    .flat_map(|prefix| self.backing.of_subnet(prefix))
                    .filter_map(|(key, _)| self.backing.value(key))
                    .any(|value| matches!(value, EntryValue::Permit { scope: s, .. } if s == scope))
                    .then_some(id)
            }
        }
    }

    /// Routes learned from the IDC changed; an empty set of next hops means the prefix is gone.
    pub fn learned(&mut self, prefix: Prefix, next_hops: LearnedNextHops) {
        self.pending.learned.insert(prefix, next_hops);
    }

    /// The peers have this withdrawal, or what was announced before it (or the bounded wait for it has ended).
    pub fn flushed(&mut self, id: WithdrawalId, now: Instant) {
        if let Some(withdrawal) = self.withdrawals.get_mut(&id) {
            if self.to_withdraw.contains_key(&id) {
                withdrawal.before = Before::Nothing;
            } else {
                withdrawal.release = Some(now + self.drain);
            }
        }
    }

    /// The plane did what the outstanding output asked.
    pub fn applied(&mut self, applied: &Applied, now: Instant) {
        self.acknowledged = self.acknowledged.max(applied.generation);
        let (upserts, removals) = match std::mem::replace(&mut self.in_flight, InFlight::None) {
            InFlight::None => return,
            InFlight::Batch { upserts, removals } => {
                // What an announcement rests on was lost beside the batch: everything is judged anew.
                let lost = |key: &EntryKey| {
                    !upserts.contains(key) && self.backing.phase(key) == Some(&Phase::Applied)
                };
                if applied.failures.keys().any(lost) {
                    self.resync(now);
                }
                (upserts, removals)
            }
            InFlight::Everything => {
                let mut upserts = BTreeSet::new();
                let mut removals = BTreeSet::new();
                for (key, phase) in self.backing.phases() {
                    match phase {
                        Phase::Wanted | Phase::Applied | Phase::Failed(_) => {
                            upserts.insert(key.clone());
                        }
                        Phase::Removing => {
                            removals.insert(key.clone());
                        }
                        Phase::Held(_) => {}
                    }
                }
                (upserts, removals)
            }
        };
        for key in &upserts {
            if self.pending.upserts.contains_key(key) {
                continue;
            }
            let phase = match applied.failures.get(key) {
                Some(reason) => Phase::Failed(reason.clone()),
                None => Phase::Applied,
            };
            let planned = self.backing.phase(key);
            if planned.is_some_and(|now| !matches!(now, Phase::Held(_) | Phase::Removing)) {
                self.set_phase(key, phase);
            }
        }
        let mut stuck = false;
        for key in &removals {
            if self.pending.removals.contains(key) {
                continue;
            }
            if self.backing.phase(key) == Some(&Phase::Removing) {
                // What the kernel still has is not gone, whatever is planned.
                if applied.failures.contains_key(key) {
                    stuck = true;
                } else {
                    self.forget(key);
                }
            }
        }
        if stuck {
            self.back_off(now);
        } else {
            self.failures_in_a_row = 0;
        }
    }

    /// The plane could not do what the outstanding output asked: its state is unknown.
    pub fn plane_failed(&mut self, now: Instant) {
        self.in_flight = InFlight::None;
        self.wait_for_none();
        self.back_off(now);
    }

    fn back_off(&mut self, now: Instant) {
        let pause = RESYNC_FIRST
            .saturating_mul(2u32.saturating_pow(self.failures_in_a_row.min(16)))
            .min(RESYNC_MOST);
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.resync_at = Some(now + pause);
    }

    /// Asks for a resync at once (an audit is due, or the kernel's state may have changed).
    pub fn resync(&mut self, now: Instant) {
        if self.resync_at.is_none() {
            self.resync_at = Some(now);
        }
    }

    /// Asks for a batch, be it an empty one, in which the plane mends what it knows to differ.
    pub fn look(&mut self) {
        self.look = true;
    }

    /// The next thing to do, if any. Call until it returns `None`, after every input and timeout.
    pub fn poll(&mut self, now: Instant) -> Option<Output> {
        let done: Vec<_> = self
            .withdrawals
            .iter()
            .filter(|(_, w)| w.release.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in done {
            self.release(id);
        }
        let lost = self.lost();
        if !lost.is_empty() {
            self.begin_withdrawal(lost, Before::Nothing);
        }
        if let Some(output) = self.next_withdrawal() {
            return Some(output);
        }
        let may = self.announcing == Announcing::Everything;
        let ready: BTreeSet<Prefix> = std::mem::take(&mut self.suspects)
            .into_iter()
            .filter(|_| may)
            .filter(|prefix| self.announcements.get(prefix) == Some(&Announcement::Waiting))
            .filter(|prefix| self.forwarding(prefix) == Forwarding::Verified)
            .collect();
        if !ready.is_empty() {
            for prefix in &ready {
                self.announcements.insert(*prefix, Announcement::Announced);
            }
            self.moved.subnets(ready.iter().copied());
            return Some(Output::Announce(ready));
        }
        if !matches!(self.in_flight, InFlight::None) {
            return None;
        }
        if let Some(at) = self.resync_at {
            if at > now {
                return None;
            }
            self.resync_at = None;
            self.pending = Pending::default();
            self.look = false;
            self.in_flight = InFlight::Everything;
            return Some(Output::Resync);
        }
        let look = std::mem::take(&mut self.look);
        if self.pending.is_empty() && self.acknowledged >= self.planned && !look {
            return None;
        }
        let pending = std::mem::take(&mut self.pending);
        let verify = look || pending.upserts.keys().any(|key| subnet_of(key).is_some());
        self.in_flight = InFlight::Batch {
            upserts: pending.upserts.keys().cloned().collect(),
            removals: pending.removals.clone(),
        };
        Some(Output::Apply(Batch {
            generation: self.planned,
            upserts: pending.upserts,
            removals: pending.removals,
            learned: pending.learned,
            verify,
        }))
    }

    /// When to call [`Order::poll`] again without any input.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let idle = matches!(self.in_flight, InFlight::None);
        self.withdrawals
            .values()
            .filter_map(|w| w.release)
            .chain(self.resync_at.filter(|_| idle))
            .min()
    }

    /// From now on it is known which links come further, see [`Order::take_moved`].
    pub fn follow_links(&mut self) {
        self.moved.follow();
    }

    /// The links that may have come further, or fallen back, since this was asked last; none when they are not
    /// followed.
    pub fn take_moved(&mut self) -> BTreeSet<LinkId> {
        self.moved.take(&self.backing)
    }

    fn release(&mut self, id: WithdrawalId) {
        self.withdrawn.retain(|_, withdrawal| *withdrawal != id);
        let held = self
            .withdrawals
            .remove(&id)
            .map(|w| w.held)
            .unwrap_or_default();
        for key in held {
            if self.backing.phase(&key) == Some(&Phase::Held(id)) {
                self.set_phase(&key, Phase::Removing);
                self.pending.removals.insert(key);
            } else if self
                .held_endpoints
                .get(&key)
                .is_some_and(|(_, by)| *by == id)
            {
                self.held_endpoints.remove(&key);
                self.pending.removals.insert(key);
            }
        }
        // A prefix that was wanted again meanwhile is `Waiting` by now. One that lost its
        // forwarding stays wanted: it waits for it to come back.
        let drained: Vec<_> = self
            .announcements
            .iter()
            .filter(|(_, state)| **state == Announcement::Withdrawing(id))
            .map(|(prefix, _)| *prefix)
            .collect();
        for prefix in drained {
            if self.wanted.contains_key(&prefix) {
                self.announcements.insert(prefix, Announcement::Waiting);
                self.suspects.insert(prefix);
            } else {
                self.announcements.remove(&prefix);
            }
        }
    }

    /// Prefixes that are announced and have lost the forwarding that this rested on.
    fn lost(&self) -> BTreeSet<Prefix> {
        self.suspects
            .iter()
            .filter(|prefix| self.announcements.get(prefix) == Some(&Announcement::Announced))
            .filter(|prefix| self.forwarding(prefix) == Forwarding::Refused)
            .copied()
            .collect()
    }

    /// The forwarding of a prefix by the best of the links that want it announced.
    fn forwarding(&self, prefix: &Prefix) -> Forwarding {
        let mut best = Forwarding::Refused;
        for link in self.links_of(prefix) {
            match self.backing.forwarding(prefix, link) {
                Forwarding::Verified => return Forwarding::Verified,
                Forwarding::Undecided => best = Forwarding::Undecided,
                Forwarding::Refused => {}
            }
        }
        best
    }

    fn set_phase(&mut self, key: &EntryKey, phase: Phase) {
        self.suspects.extend(subnet_of(key));
        self.moved.subnets(subnet_of(key));
        self.backing.set_phase(key, phase);
    }

    fn forget(&mut self, key: &EntryKey) {
        self.suspects.extend(subnet_of(key));
        self.moved.gone(key);
        self.backing.forget(key);
    }
}
