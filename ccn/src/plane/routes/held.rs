//! What the plane knows between two calls, and how a call changes it: translate, reconcile, run,
//! read back, and say which entries any difference belongs to.

use std::collections::{BTreeMap, BTreeSet};

use bgp::Prefix;
use netlink::{Netfilter, Socket};

use super::devices;
use super::kernel::{self, Part};
use super::layout::{IDC_TABLE, METRIC, Reason, scope_table};
use super::objects::{Key, Object, State};
use super::reconcile::{reconcile, reconcile_keys};
use super::translate::Translator;
use crate::config::PlaneConfig;
use crate::plane::entry::{EntryKey, EntryValue};
use crate::plane::{Applied, Batch, Desired, PlaneError};

/// What is known between two calls.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) translator: Translator,
    /// What the kernel holds of ours, as last read and changed since.
    actual: State,
    /// Learned routes that stay though no router has announced them to this run yet.
    kept: BTreeSet<Key>,
    /// Objects that did not become as desired: tried again with the next change.
    open: BTreeSet<Key>,
}

/// What is wrong with an object.
type Wrong = BTreeMap<Key, String>;

impl Held {
    /// Reads everything, and makes it as desired.
    pub(crate) fn resync(
        socket: &mut Socket,
        netfilter: &mut Netfilter,
        config: &PlaneConfig,
        desired: &Desired,
    ) -> Result<(Held, Applied), PlaneError> {
        let (host, changed) = devices::ensure(socket, netfilter, config)?;
        let (protocol, ours) = (host.protocol, host.devices());
        let mut actual = kernel::read(socket, protocol, &ours, Part::All)?;
        let mut applied = Applied {
            generation: desired.generation,
            ..Applied::default()
        };
        let mut translator = Translator::new(host);
        take_all(&mut translator, desired, &actual, &mut applied);
        translator.settle();
        let mut shall = translator.desired().clone();
        let mut kept = BTreeSet::new();
        if desired.keep_unknown_learned {
            for (key, object) in unknown_learned(&actual, &translator) {
                kept.insert(key.clone());
                shall.insert(key.clone(), object.clone());
            }
        }
        let steps = reconcile(&actual, &shall);
        applied.operations = steps.len() + changed;
        let mut wrong = kernel::run(socket, steps, &mut actual)?;
        if applied.operations > 0 {
            actual = kernel::read(socket, protocol, &ours, Part::All)?;
            compare(&actual, &shall, Part::All, &mut wrong);
        }
        let mut held = Held {
            translator,
            actual,
            kept,
            open: BTreeSet::new(),
        };
        held.report(wrong, &BTreeMap::new(), &mut applied)?;
        Ok((held, applied))
    }

    /// Applies a difference, and reads back what it depends on if the batch asks for that.
    pub(crate) fn apply(
        &mut self,
        socket: &mut Socket,
        batch: &Batch,
    ) -> Result<Applied, PlaneError> {
        let mut applied = Applied {
            generation: batch.generation,
            ..Applied::default()
        };
        let mut removed = BTreeMap::new();
        for key in &batch.removals {
            if let Some(value) = self.translator.entries().get(key) {
                removed.insert(key.clone(), self.translator.keys_of(key, value));
            }
            self.translator.remove(key);
        }
        for (key, value) in &batch.upserts {
            if let Err(reason) = self.translator.put(key, value) {
                applied.failures.insert(key.clone(), reason);
            }
        }
        for (prefix, hops) in &batch.learned {
            if let Err(reason) = self.translator.learn(*prefix, hops) {
                applied.learned_failures.insert(*prefix, reason);
            }
        }
        let mut touched = self.translator.settle();
        touched.append(&mut self.open);
        // What a router now says about a kept route is worth more than that it was there.
        touched.extend(
            batch
                .learned
                .keys()
                .map(learned_key)
                .filter(|key| self.kept.contains(key)),
        );
        self.kept.retain(|key| !touched.contains(key));

        let steps = reconcile_keys(touched.iter(), &self.actual, self.translator.desired());
        applied.operations = steps.len();
        let mut wrong = kernel::run(socket, steps, &mut self.actual)?;
        if batch.verify {
            self.verify(socket, batch, &touched, &mut wrong)?;
        }
        self.report(wrong, &removed, &mut applied)?;
        Ok(applied)
    }

    /// Reads back the tables and rules that the batch changed or that its links lead to.
    fn verify(
        &mut self,
        socket: &mut Socket,
        batch: &Batch,
        touched: &BTreeSet<Key>,
        wrong: &mut Wrong,
    ) -> Result<(), PlaneError> {
        let mut tables: BTreeSet<u32> = Reason::ALL.iter().map(|reason| reason.table()).collect();
        tables.insert(IDC_TABLE);
        let mut neighbours = false;
        for key in touched {
            match key {
                Key::Route(table, ..) => {
                    tables.insert(*table);
                }
                Key::Neighbour(..) => neighbours = true,
                Key::Rule(_) => {}
            }
        }
        for value in batch.upserts.values() {
            match value {
                EntryValue::Source { scope } => {
                    tables.insert(scope_table(*scope));
                }
                // A link works if the routes to the VMs behind it do.
                EntryValue::Permit { scope, .. } => {
                    tables.insert(scope_table(*scope));
                    neighbours = true;
                }
                EntryValue::Endpoint { .. } => neighbours = true,
            }
        }
        tables.extend(batch.upserts.keys().filter_map(|key| match key {
            EntryKey::Endpoint { scope, .. } => Some(scope_table(*scope)),
            _ => None,
        }));
        let part = match neighbours {
            true => Part::TablesAndNeighbours(&tables),
            false => Part::Tables(&tables),
        };
        let host = self.translator.host();
        let seen = kernel::read(socket, host.protocol, &host.devices(), part)?;
        self.actual
            .retain(|key, _| !part.has(key) || seen.contains_key(key));
        self.actual.extend(seen);
        compare(&self.actual, self.translator.desired(), part, wrong);
        wrong.retain(|key, _| !self.kept.contains(key));
        Ok(())
    }

    /// Puts what is wrong down to the entries it belongs to.
    fn report(
        &mut self,
        wrong: Wrong,
        removed: &BTreeMap<EntryKey, Vec<Key>>,
        applied: &mut Applied,
    ) -> Result<(), PlaneError> {
        if wrong.is_empty() {
            return Ok(());
        }
        self.open = wrong.keys().cloned().collect();
        let owners = self.translator.owners(&self.open);
        for (key, reason) in wrong {
            let mut claimed = false;
            let gone = removed
                .iter()
                .filter(|(_, keys)| keys.contains(&key))
                .map(|(entry, _)| entry);
            for entry in owners.get(&key).into_iter().flatten().chain(gone) {
                applied
                    .failures
                    .entry(entry.clone())
                    .or_insert_with(|| reason.clone());
                claimed = true;
            }
            let stale = !self.translator.desired().contains_key(&key);
            if let Some(prefix) = learned_prefix(&key)
                && (stale || self.translator.has_learned(&prefix))
            {
                applied
                    .learned_failures
                    .entry(prefix)
                    .or_insert_with(|| reason.clone());
                claimed = true;
            }
            if !claimed {
                // One of the objects that are there always: without it nothing is sure.
                let action = "verify the kernel's state".to_owned();
                return Err(PlaneError::Kernel {
                    action,
                    detail: reason,
                });
            }
        }
        Ok(())
    }
}

/// Takes in the whole desired state. Where a limit is reached, what the kernel holds already goes
/// before what is new.
fn take_all(translator: &mut Translator, desired: &Desired, actual: &State, applied: &mut Applied) {
    let mut late = Vec::new();
    for (key, value) in &desired.entries {
        if translator
            .keys_of(key, value)
            .iter()
            .all(|key| actual.contains_key(key))
        {
            if let Err(reason) = translator.put(key, value) {
                applied.failures.insert(key.clone(), reason);
            }
        } else {
            late.push((key, value));
        }
    }
    for (key, value) in late {
        if let Err(reason) = translator.put(key, value) {
            applied.failures.insert(key.clone(), reason);
        }
    }
    for (prefix, hops) in &desired.learned {
        if let Err(reason) = translator.learn(*prefix, hops) {
            applied.learned_failures.insert(*prefix, reason);
        }
    }
}

/// Learned routes in the kernel that nobody has announced to this run.
fn unknown_learned<'a>(
    actual: &'a State,
    translator: &'a Translator,
) -> impl Iterator<Item = (&'a Key, &'a Object)> {
    let drops = &translator.host().drop_index;
    actual.iter().filter(move |(key, object)| {
        let Object::Route(route) = object else {
            return false;
        };
        let dropping = route
            .next_hops
            .iter()
            .any(|hop| drops.values().any(|index| *index == hop.ifindex));
        let known = learned_prefix(key).is_some_and(|prefix| translator.has_learned(&prefix));
        route.table == IDC_TABLE && route.metric == METRIC && !dropping && !known
    })
}

fn learned_key(prefix: &Prefix) -> Key {
    Key::Route(IDC_TABLE, (*prefix).into(), METRIC)
}

fn learned_prefix(key: &Key) -> Option<Prefix> {
    match key {
        Key::Route(IDC_TABLE, net, METRIC) => Prefix::try_from(*net).ok(),
        _ => None,
    }
}

/// Notes every object of this part that is not as it shall be.
fn compare(actual: &State, desired: &State, part: Part<'_>, wrong: &mut Wrong) {
    let keys = actual
        .keys()
        .chain(desired.keys().filter(|key| !actual.contains_key(key)));
    for key in keys.filter(|key| part.has(key)) {
        let reason = match (actual.get(key), desired.get(key)) {
            (Some(is), Some(shall)) if is != shall => {
                format!("the kernel shows `{is}` instead of `{shall}`")
            }
            (None, Some(shall)) => format!("the kernel does not show `{shall}`"),
            (Some(is), None) => format!("the kernel still shows `{is}`"),
            _ => continue,
        };
        // What the kernel said when it refused explains more.
        wrong.entry(key.clone()).or_insert(reason);
    }
}
