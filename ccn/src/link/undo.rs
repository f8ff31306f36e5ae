//! Links that can be taken back: one step, by order or because nobody confirmed in time.
//!
//! The step back stands in the record itself, so that it outlives agents. Pure: records and the time in,
//! changes out.

use std::time::Duration;

use thiserror::Error;

use crate::record::{Link, LinkId, Previous, Record, RecordKey};
use crate::store::Change;

/// The longest time between two looks at the clock while something waits: it may be set meanwhile.
const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// Why a link cannot be changed, confirmed or taken back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StepError {
    /// Its last change waits to be confirmed.
    #[error(
        "links/{0} waits for its last change to be confirmed: `ccn confirm {0}` or `ccn undo {0}` first"
    )]
    Waits(LinkId),
    /// No change of it waits to be confirmed.
    #[error("links/{0}: no change of it waits to be confirmed")]
    WaitsNot(LinkId),
    /// What was before is not known.
    #[error(
        "links/{0}: what it was before is not known, since it was not made or changed by `ccn`; \
         `ccn unlink {0}` removes it"
    )]
    NothingKnown(LinkId),
}

/// Stores a link.
pub fn put(id: &LinkId, link: Link) -> Change {
    Change::Put {
        key: RecordKey::Link(id.clone()).to_string(),
        value: Record::Link(link).to_json().into(),
    }
}

fn delete(id: &LinkId) -> Change {
    Change::Delete {
        key: RecordKey::Link(id.clone()).to_string(),
    }
}

/// The link without what the step back needs.
fn bare(link: Link) -> Link {
    Link {
        previous: None,
        confirm_by: None,
        unlink_when_confirmed: false,
        ..link
    }
}

/// The record of `after` in place of `before`, to be confirmed by then (seconds since 1970) if a time is given.
/// What does not differ stays as it is, with the step back that it has.
///
/// # Errors
/// The last change waits to be confirmed.
pub fn changed(
    id: &LinkId,
    before: &Link,
    after: Link,
    confirm_by: Option<u64>,
) -> Result<Link, StepError> {
    if before.confirm_by.is_some() {
        return Err(StepError::Waits(id.clone()));
    }
    let plain = bare(before.clone());
    if !after.unlink_when_confirmed && plain == bare(after.clone()) {
        return Ok(before.clone());
    }
    Ok(Link {
        previous: Some(Previous::Link(Box::new(plain))),
        confirm_by,
        ..after
    })
}

/// Goes back one step; from there, the same leads forth again. A link that was not there before goes.
///
/// # Errors
/// What was before is not known.
pub fn undone(id: &LinkId, link: &Link) -> Result<Change, StepError> {
    match &link.previous {
        None => Err(StepError::NothingKnown(id.clone())),
        Some(Previous::Nothing) => Ok(delete(id)),
        Some(Previous::Link(previous)) => {
            let previous = Link {
                previous: Some(Previous::Link(Box::new(bare(link.clone())))),
                ..bare((**previous).clone())
            };
            Ok(put(id, previous))
        }
    }
}

/// Lets the last change stand.
///
/// # Errors
/// None waits.
pub fn confirmed(id: &LinkId, link: &Link) -> Result<Change, StepError> {
    match link.confirm_by {
        None => Err(StepError::WaitsNot(id.clone())),
        Some(_) if link.unlink_when_confirmed => Ok(delete(id)),
        Some(_) => {
            let link = Link {
                confirm_by: None,
                ..link.clone()
            };
            Ok(put(id, link))
        }
    }
}

/// How long until a deadline is to be looked at again that is so far away.
pub fn look_in(left: Duration) -> Duration {
    left.min(LONGEST_LOOK)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn id() -> LinkId {
        "web".parse().unwrap()
    }

    fn link(value: Value) -> Link {
        let key = RecordKey::Link(id());
        match Record::from_value(&key, value) {
            Ok(Record::Link(link)) => link,
            other => panic!("{other:?}"),
        }
    }

    fn plain(disabled: bool) -> Link {
        link(json!({"vpc": "web", "classic": ["office"], "disabled": disabled, "note": "kept"}))
    }

    fn stored(change: Change) -> Option<Link> {
        match change {
            Change::Put { value, .. } => Some(link(serde_json::from_slice(&value).unwrap())),
            Change::Delete { .. } => None,
        }
    }

    #[test]
    fn an_undo_goes_back_one_step_and_the_next_one_forth() {
        let made = Link {
            previous: Some(Previous::Nothing),
            ..plain(false)
        };
        let disabled = changed(&id(), &made, plain(true), None).unwrap();
        let back = stored(undone(&id(), &disabled).unwrap()).unwrap();
        assert_eq!(bare(back.clone()), plain(false));
        let forth = stored(undone(&id(), &back).unwrap()).unwrap();
        assert_eq!(forth, disabled);
        assert_eq!(stored(undone(&id(), &made).unwrap()), None);
        let imported = undone(&id(), &plain(false));
        assert_eq!(imported, Err(StepError::NothingKnown(id())));
        // What changes nothing is no step.
        assert_eq!(
            changed(&id(), &disabled, plain(true), Some(9)),
            Ok(disabled)
        );
    }

    #[test]
    fn what_waits_is_confirmed_or_taken_back_and_not_changed_meanwhile() {
        let waits = changed(&id(), &plain(false), plain(true), Some(100)).unwrap();
        assert_eq!(waits.confirm_by, Some(100));
        let another = changed(&id(), &waits, plain(false), None);
        assert_eq!(another, Err(StepError::Waits(id())));
        let stands = stored(confirmed(&id(), &waits).unwrap()).unwrap();
        assert_eq!((stands.confirm_by, stands.disabled), (None, true));
        assert_eq!(confirmed(&id(), &stands), Err(StepError::WaitsNot(id())));
        let back = stored(undone(&id(), &waits).unwrap()).unwrap();
        assert_eq!((back.confirm_by, back.disabled), (None, false));

        let goes = Link {
            unlink_when_confirmed: true,
            ..plain(true)
        };
        let goes = changed(&id(), &plain(true), goes, Some(100)).unwrap();
        assert_eq!(stored(confirmed(&id(), &goes).unwrap()), None);
        let back = stored(undone(&id(), &goes).unwrap()).unwrap();
        assert_eq!(bare(back), plain(true));
    }

    #[test]
    fn a_record_with_a_step_back_reads_as_it_was_written() {
        let waits = changed(&id(), &plain(false), plain(true), Some(100)).unwrap();
        assert_eq!(stored(put(&id(), waits.clone())), Some(waits));
        let new = Link {
            previous: Some(Previous::Nothing),
            ..plain(false)
        };
        assert_eq!(stored(put(&id(), new.clone())), Some(new));
        for wrong in [json!("nothing"), json!({"vpc": "web"}), json!(7)] {
            let value = json!({"vpc": "web", "classic": ["office"], "previous": wrong});
            let error = Record::from_value(&RecordKey::Link(id()), value).unwrap_err();
            assert!(error.field.starts_with("previous"), "{error:?}");
        }
    }
}
