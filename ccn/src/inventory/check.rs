//! The question before a commit: would anything be wrong that is not wrong already?
//!
//! It is answered by working the changes in and taking them back, so that what is refused here and
//! what is quarantined there can never differ.

use std::collections::BTreeSet;

use super::effects::{Effects, Work};
use super::{Inventory, Loaded, Parsed, parse};
use crate::record::{Kind, RecordError, RecordKey};
use crate::store::{Change, Generation};

/// The most errors an answer carries.
const MAX_ERRORS: usize = 100;

/// The rank of keys that are not there yet: after all that are.
const NEW: Generation = Generation::MAX;

impl Inventory {
    /// Whether records can stand beside one another where nothing else is: they are loaded as from a store, so that
    /// nothing is to be taken back.
    ///
    /// # Errors
    /// What is wrong with them, 100 at most.
    pub fn check_whole(records: &[Change]) -> Result<(), Vec<RecordError>> {
        let mut inventory = Inventory::default();
        let mut load = inventory.begin_load();
        for record in records {
            if let Change::Put { key, value } = record {
                inventory.load_one(&mut load, Loaded::parse(key, NEW, value));
            }
        }
        inventory.end_load(load);
        let errors: Vec<_> = inventory.quarantine().take(MAX_ERRORS).cloned().collect();
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors),
        }
    }

    /// Whether the store may take these changes, all at once. The inventory is the same afterwards.
    /// Costs what the changes touch.
    ///
    /// # Errors
    /// What would be wrong with a record that changes, and what would become wrong with others that
    /// were right: each with its field and what to do; those of the changes first, 100 at most.
    pub fn check(&mut self, changes: &[Change]) -> Result<(), Vec<RecordError>> {
        self.rehearse(changes, |_, _| ())
    }

    /// The same, with a look at the inventory as it would be, and at what happened to it.
    ///
    /// # Errors
    /// As [`Inventory::check`].
    pub fn rehearse<T>(
        &mut self,
        changes: &[Change],
        look: impl FnOnce(&Inventory, &Effects) -> T,
    ) -> Result<T, Vec<RecordError>> {
        let mut work = Work::default();
        let mut undo = Vec::with_capacity(changes.len());
        for change in changes {
            let before = self.as_put(change.key());
            match change {
                Change::Put { key, value } => {
                    let created = before.as_ref().map_or(NEW, |(created, _)| *created);
                    self.put(key, created, parse(key, value), &mut work);
                }
                Change::Delete { key } => self.delete(key, &mut work),
            }
            undo.push((change.key(), before));
        }
        self.settle(&mut work);
        let errors = self.new_errors(changes, &work);
        let seen = errors.is_empty().then(|| look(self, &work.effects));

        let mut back = Work::default();
        for (key, before) in undo.into_iter().rev() {
            match before {
                Some((created, parsed)) => self.put(key, created, parsed, &mut back),
                None => self.delete(key, &mut back),
            }
        }
        self.settle(&mut back);
        seen.ok_or(errors)
    }

    /// What is wrong with the changes, and what became wrong with records that were right.
    fn new_errors(&self, changes: &[Change], work: &Work) -> Vec<RecordError> {
        let changed: BTreeSet<&str> = changes.iter().map(Change::key).collect();
        let own = changed.iter().flat_map(|key| self.quarantine.at(key));
        let touched = work.effects.quarantine.iter();
        let others = touched.filter(|(key, _)| !changed.contains(key.as_str()));
        let others = others.flat_map(|(key, before)| {
            let faults = self.quarantine.at(key).iter();
            faults.filter(|fault| is_new(fault, before))
        });
        own.chain(others).take(MAX_ERRORS).cloned().collect()
    }

    /// What would have to be put to have this key as it is now.
    fn as_put(&self, key: &str) -> Option<(Generation, Parsed)> {
        if let Ok(parsed) = key.parse::<RecordKey>()
            && let (Some(created), Some(record)) = (self.created(&parsed), self.record(&parsed))
        {
            return Some((created, Ok((parsed, record))));
        }
        let error = self.quarantine.at(key).first()?;
        Some((*self.junk.get(key)?, Err(error.clone())))
    }
}

/// Whether a fault is no mere change of what was wrong before. A record is good or bad as a whole,
/// but for a CCSI, whose members are good or bad one by one.
pub(super) fn is_new(fault: &RecordError, before: &[RecordError]) -> bool {
    match fault.key.starts_with(Kind::Ccsi.folder()) {
        true => before
            .iter()
            .all(|b| (&b.field, b.reason.code()) != (&fault.field, fault.reason.code())),
        false => before.is_empty(),
    }
}
