//! Records one by one: read, put and deleted, if need be only as long as they are what the caller has seen.
//!
//! Links and gateways are not among them: those have orders of their own.

use std::sync::Arc;

use serde_json::Value;

use super::{Ledger, LedgerHandle, Make};
use crate::api::RecordView;
use crate::api::error::{ApiError, ErrorCode, Fault};
use crate::record::{Record, RecordKey};
use crate::store::{Change, Generation, Store, Stored};

/// How much of a value is named in an error, in characters.
const EXCERPT: usize = 300;
/// How many records are named in an error.
const NAMED: usize = 5;

/// What must hold of a record for a change of it to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing: the last one to write is right.
    Anything,
    /// It is there.
    There,
    /// It is not there.
    Absent,
    /// It is there, and this generation changed it last.
    Generation(Generation),
}

/// The same, of a certain record.
#[derive(Debug, Clone)]
pub struct Condition {
    /// The record.
    pub key: RecordKey,
    /// What must hold of it.
    pub expected: Expected,
}

impl Condition {
    /// Whether it says anything.
    pub(super) fn says_anything(&self) -> bool {
        self.expected != Expected::Anything
    }

    /// Asks the store whether it holds. It still does when a commit succeeds afterwards whose precondition is that
    /// nothing has moved since a generation that was known before this was asked.
    pub(super) async fn holds(&self, store: &dyn Store) -> Result<(), ApiError> {
        if self.expected == Expected::Anything {
            return Ok(());
        }
        let stored = store.get(self.key.to_string()).await?;
        judge(&self.key, self.expected, stored.as_ref())
    }
}

/// Whether a record is what somebody expects.
fn judge(key: &RecordKey, expected: Expected, stored: Option<&Stored>) -> Result<(), ApiError> {
    let message = match (expected, stored) {
        (Expected::Anything, _) | (Expected::There, Some(_)) | (Expected::Absent, None) => {
            return Ok(());
        }
        (Expected::Generation(expected), Some(stored)) if stored.modified == expected => {
            return Ok(());
        }
        (Expected::Generation(expected), Some(stored)) => format!(
            "{key} was changed: it is at generation {}, not {expected}, and now {}",
            stored.modified,
            excerpt(stored)
        ),
        (Expected::Absent, Some(stored)) => format!(
            "{key} is there already, at generation {}: {}",
            stored.modified,
            excerpt(stored)
        ),
        (Expected::There | Expected::Generation(_), None) => format!("{key} is not there"),
    };
    Err(ApiError {
        present: stored.map(|stored| Box::new(view_of(key, stored))),
        ..ApiError::new(ErrorCode::Changed, message)
    })
}

fn excerpt(stored: &Stored) -> String {
    let text = String::from_utf8_lossy(&stored.value);
    match text.char_indices().nth(EXCERPT) {
        None => text.into_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

fn view_of(key: &RecordKey, stored: &Stored) -> RecordView {
    let value = serde_json::from_slice(&stored.value)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&stored.value).into_owned()));
    RecordView {
        key: key.to_string(),
        generation: stored.modified,
        value,
        faults: Vec::new(),
    }
}

fn not_there(key: &RecordKey) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no {key}"))
}

/// Why a record cannot be deleted: others would be wrong without it.
#[must_use]
pub fn still_needed(key: &RecordKey, error: ApiError) -> ApiError {
    let mut by: Vec<&str> = error
        .faults
        .iter()
        .map(|fault| fault.key.as_str())
        .collect();
    by.dedup();
    if error.code != ErrorCode::Refused || by.is_empty() {
        return error;
    }
    let more = match by.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = by[..by.len().min(NAMED)].join(", ");
    let message = format!(
        "{key} is still needed by {named}{more}: unlink, delete or change what needs it first"
    );
    ApiError { message, ..error }
}

/// Puts a record, in the place of what is there.
///
/// # Errors
/// It is wrong by itself.
pub fn put(key: &RecordKey, value: Value) -> Result<Make, ApiError> {
    let record = Record::from_value(key, value)
        .map_err(|error| ApiError::refused(std::slice::from_ref(&error)))?;
    let change = Change::put(key, &record);
    Ok(Arc::new(move |_| Ok(vec![change.clone()])))
}

/// Deletes a record; fails where there is none.
#[must_use]
pub fn delete(key: RecordKey) -> Make {
    Arc::new(move |inventory| match inventory.is_stored(&key) {
        true => Ok(vec![Change::delete(&key)]),
        false => Err(not_there(&key)),
    })
}

impl LedgerHandle {
    /// The record at a key as it stands in the store, good or not.
    ///
    /// # Errors
    /// When there is none, or the store cannot be read.
    pub async fn record(&self, key: RecordKey) -> Result<RecordView, ApiError> {
        let stored = self.store().get(key.to_string()).await?;
        let mut view = view_of(&key, &stored.ok_or_else(|| not_there(&key))?);
        let faults = move |ledger: &Ledger| {
            let faults = ledger.inventory().faults(&key).iter();
            faults.map(Fault::from).collect()
        };
        view.faults = self.ask(faults).await?;
        Ok(view)
    }

    /// A record that was put, as it stands in the store: somebody may have changed it since.
    ///
    /// # Errors
    /// When it is gone, or the store cannot be read.
    pub async fn record_put(&self, key: &RecordKey) -> Result<RecordView, ApiError> {
        let stored = self.store().get(key.to_string()).await?;
        Ok(view_of(key, &stored.ok_or_else(|| not_there(key))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_what_is_expected_or_the_error_says_what_it_is() {
        let key: RecordKey = "vpcs/web".parse().unwrap();
        let stored = Stored {
            key: key.to_string(),
            created: 3,
            modified: 7,
            value: r#"{"vni":7,"subnets":[]}"#.into(),
        };
        let there = Some(&stored);
        for (expected, stored, said) in [
            (Expected::Anything, there, None),
            (Expected::Anything, None, None),
            (Expected::There, there, None),
            (Expected::There, None, Some("is not there")),
            (Expected::Absent, None, None),
            (
                Expected::Absent,
                there,
                Some("there already, at generation 7"),
            ),
            (Expected::Generation(7), there, None),
            (
                Expected::Generation(3),
                there,
                Some("at generation 7, not 3"),
            ),
            (
                Expected::Generation(9),
                there,
                Some("at generation 7, not 9"),
            ),
            (Expected::Generation(7), None, Some("is not there")),
        ] {
            let verdict = judge(&key, expected, stored);
            let Some(said) = said else {
                assert_eq!(verdict, Ok(()), "{expected:?} of {stored:?}");
                continue;
            };
            let error = verdict.expect_err(said);
            assert_eq!(error.code, ErrorCode::Changed);
            assert!(error.message.contains("vpcs/web"), "{}", error.message);
            assert!(error.message.contains(said), "{}", error.message);
            assert_eq!(
                error.present.as_ref().map(|now| now.generation),
                stored.map(|s| s.modified)
            );
            if stored.is_some() {
                assert!(error.message.contains(r#"{"vni":7"#), "{}", error.message);
            }
        }
    }

    #[test]
    fn a_large_value_is_named_in_part() {
        let stored = Stored {
            key: "vpcs/web".to_owned(),
            created: 1,
            modified: 1,
            value: "\u{e4}".repeat(1000).into(),
        };
        assert_eq!(excerpt(&stored).chars().count(), EXCERPT + 3);
    }
}
