//! What the plane knows between two calls, and how a call changes it: translate, reconcile, run,
//! hear what the kernel reports of it, and say which entries any difference belongs to.

use std::collections::{BTreeMap, BTreeSet};

use bgp::Prefix;

use super::Sockets;
use super::compose::Host;
use super::devices;
use super::keeper::{Keeper, Wrong, reports};
use super::kernel;
use super::layout::{IDC_TABLE, METRIC};
use super::objects::{Key, Object, State};
use super::reconcile::reconcile;
use super::translate::Translator;
use crate::config::PlaneConfig;
use crate::plane::entry::EntryKey;
use crate::plane::{Applied, Batch, Desired, PlaneError, ebpf};

/// What is known between two calls.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) translator: Translator,
    keeper: Keeper,
}

impl Held {
    /// Reads everything, and makes it as desired.
    pub(crate) fn resync(
        sockets: &mut Sockets,
        config: &PlaneConfig,
        desired: &Desired,
    ) -> Result<(Held, Applied), PlaneError> {
        let (host, changed) = devices::ensure(&mut sockets.routes, &mut sockets.netfilter, config)?;
        let actual = read_anew(sockets, &host)?;
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
        let mut steps = reconcile(&actual, &shall);
        applied.operations = steps.len() + changed;
        let leaving = steps.take_deletions();
        let host = translator.host();
        let leads_to = host.idc.iter().map(|link| link.index);
        let mut keeper = Keeper::new(host.protocol, host.devices(), leads_to, actual, kept);
        let mut wrong = keeper.run(&mut sockets.routes, steps)?;
        // What the `ebpf` plane has left acts on packets before any rule.
        applied.operations += ebpf::withdraw(&mut sockets.routes, config)?;
        wrong.extend(keeper.run(&mut sockets.routes, leaving)?);
        if applied.operations > 0 {
            let desired = translator.desired();
            let different = keeper.read_anew(&mut sockets.routes, &mut sockets.journal, desired)?;
            keeper.note_differences(&different, desired, &mut wrong);
        }
        let mut held = Held { translator, keeper };
        held.report(wrong, &BTreeMap::new(), &mut applied)?;
        Ok((held, applied))
    }

    /// Applies a difference. If the batch asks for that, it answers when the kernel has shown that
    /// everything is as desired: what was compared before and what it has reported since.
    pub(crate) fn apply(
        &mut self,
        sockets: &mut Sockets,
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
            // What a router now says about a kept route is worth more than that it was there.
            self.keeper.forget_kept(&learned_key(prefix));
        }
        let touched = self.translator.settle();
        let (operations, wrong) = self.keeper.bring(
            &mut sockets.routes,
            &mut sockets.journal,
            self.translator.desired(),
            touched,
            batch.verify,
        )?;
        applied.operations += operations;
        self.report(wrong, &removed, &mut applied)?;
        Ok(applied)
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
        self.keeper.leave_open(&wrong);
        let owners = self.translator.owners(&wrong.keys().cloned().collect());
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

/// Reads all that the kernel holds of ours; what it has reported before is part of that.
fn read_anew(sockets: &mut Sockets, host: &Host) -> Result<State, PlaneError> {
    reports(&mut sockets.journal)?;
    kernel::read(&mut sockets.routes, host.protocol, &host.devices())
}

/// Takes in the whole desired state. Where a limit is reached, what the kernel holds already goes
/// before what is new.
fn take_all(translator: &mut Translator, desired: &Desired, actual: &State, applied: &mut Applied) {
    let mut late = Vec::new();
    for (key, value) in desired.all() {
        if translator
            .keys_of(&key, &value)
            .iter()
            .all(|key| actual.contains_key(key))
        {
            if let Err(reason) = translator.put(&key, &value) {
                applied.failures.insert(key, reason);
            }
        } else {
            late.push((key, value));
        }
    }
    for (key, value) in late {
        if let Err(reason) = translator.put(&key, &value) {
            applied.failures.insert(key, reason);
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
