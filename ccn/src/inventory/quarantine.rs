//! What is wrong with records, by key.

use std::collections::BTreeMap;

use super::effects::Work;
use crate::record::{Reason, RecordError, RecordKey};

/// Every record that is wrong, whole or in part, with what is wrong with it: something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Quarantine(BTreeMap<String, Vec<RecordError>>);

impl Quarantine {
    /// Everything that is wrong, by key.
    pub(super) fn iter(&self) -> impl Iterator<Item = &RecordError> {
        self.0.values().flatten()
    }

    /// How many records are wrong.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What is wrong at a key.
    pub(super) fn at(&self, key: &str) -> &[RecordError] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// What is wrong with a record.
    pub(super) fn of(&self, key: &RecordKey) -> &[RecordError] {
        match self.0.is_empty() {
            true => &[],
            false => self.at(&key.to_string()),
        }
    }

    /// Nothing is wrong at a key any more.
    pub(super) fn heal(&mut self, key: &str, work: &mut Work) {
        if self.0.contains_key(key) {
            self.set_faults(key.to_owned(), Vec::new(), work);
        }
    }

    /// Writes down what is wrong with a record; nothing, when it is accepted.
    pub(super) fn set_faults(&mut self, key: String, faults: Vec<RecordError>, work: &mut Work) {
        let before = match self.0.get(&key) {
            None if faults.is_empty() => return,
            Some(before) if *before == faults => return,
            None => Vec::new(),
            Some(before) => before.clone(),
        };
        work.effects.quarantine.entry(key.clone()).or_insert(before);
        if faults.is_empty() {
            self.0.remove(&key);
        } else {
            self.0.insert(key, faults);
        }
    }

    /// As [`Quarantine::set_faults`], for a record with one fault or none.
    pub(super) fn set_fault(
        &mut self,
        key: &RecordKey,
        fault: Option<(String, Reason)>,
        work: &mut Work,
    ) {
        if fault.is_none() && self.0.is_empty() {
            return;
        }
        let faults = fault.map(|(field, reason)| RecordError::new(key, field, reason));
        self.set_faults(key.to_string(), faults.into_iter().collect(), work);
    }
}
