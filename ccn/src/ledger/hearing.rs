//! Whether what the controller knows of the store is what the store holds.

use std::time::SystemTime;

use crate::api::StoreView;
use crate::api::error::{ApiError, ErrorCode};
use crate::store::{Restored, StoreError};

/// How the store is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hearing {
    /// All that it tells is known.
    Current,
    /// It is away since then; what is known is as old as that.
    Away { since: SystemTime, why: String },
    /// It went back, and nobody has said that this is to be followed: what is known is from before.
    Restored { since: SystemTime, how: Restored },
}

impl Hearing {
    /// From a first attempt to read the store that came to this, and what was known at that time.
    pub(super) fn without(error: &StoreError, known: SystemTime) -> Hearing {
        match error {
            StoreError::Restored(how) => Hearing::Restored {
                since: known,
                how: *how,
            },
            StoreError::Away { detail } => Hearing::Away {
                since: known,
                why: detail.clone(),
            },
            other => Hearing::Away {
                since: known,
                why: other.to_string(),
            },
        }
    }

    /// The store was lost, for this reason.
    pub(super) fn lost(&mut self, why: String) {
        match self {
            Hearing::Current => {
                let since = SystemTime::now();
                *self = Hearing::Away { since, why };
            }
            // What is known got no older by it.
            Hearing::Away { why: before, .. } => *before = why,
            Hearing::Restored { .. } => {}
        }
    }

    /// The store is heard again.
    pub(super) fn found(&mut self) {
        if let Hearing::Away { .. } = self {
            *self = Hearing::Current;
        }
    }

    /// The store went back.
    pub(super) fn went_back(&mut self, how: Restored) {
        let since = match self {
            Hearing::Current => SystemTime::now(),
            Hearing::Away { since, .. } | Hearing::Restored { since, .. } => *since,
        };
        *self = Hearing::Restored { since, how };
    }

    /// Whether a change may be tried. While the store is away it may: that can be for a moment, and the store says
    /// so itself.
    pub(super) fn allows_changes(&self) -> Result<(), ApiError> {
        match self {
            Hearing::Current | Hearing::Away { .. } => Ok(()),
            Hearing::Restored { how, .. } => {
                let error = StoreError::Restored(*how);
                Err(ApiError::new(ErrorCode::Unavailable, error.to_string()))
            }
        }
    }

    /// As a status shows it.
    pub(super) fn view(&self) -> StoreView {
        let (state, since, reason) = match self {
            Hearing::Current => ("current", None, None),
            Hearing::Away { since, why } => ("away", Some(since), Some(why.clone())),
            Hearing::Restored { since, how } => ("restored", Some(since), Some(how.to_string())),
        };
        // A clock that was set back makes nothing younger than now.
        let age = since.map(|since| since.elapsed().unwrap_or_default().as_secs());
        StoreView {
            state,
            stale_s: age,
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOW: Restored = Restored {
        seen: 9,
        found: 4,
        other_cluster: false,
    };

    #[test]
    fn what_is_known_is_as_old_as_the_last_time_it_was_heard() {
        let known = SystemTime::now() - Duration::from_secs(100);
        let error = StoreError::Away {
            detail: "refused".to_owned(),
        };
        let mut hearing = Hearing::without(&error, known);
        hearing.lost("no route".to_owned());
        let view = hearing.view();
        assert_eq!(view.state, "away");
        assert!(view.stale_s >= Some(100), "{view:?}");
        assert_eq!(view.reason.as_deref(), Some("no route"));
        assert!(hearing.allows_changes().is_ok(), "it may be for a moment");
        hearing.found();
        assert_eq!(hearing, Hearing::Current);
        assert_eq!(hearing.view().stale_s, None);
        assert!(hearing.allows_changes().is_ok());
    }

    #[test]
    fn a_store_that_went_back_is_not_current_by_being_heard() {
        let mut hearing = Hearing::Current;
        hearing.lost("gone".to_owned());
        hearing.went_back(HOW);
        hearing.found();
        hearing.lost("gone".to_owned());
        assert_eq!(hearing.view().state, "restored");
        let refusal = hearing.allows_changes().unwrap_err();
        assert!(
            refusal.message.contains("ccn store follow"),
            "{}",
            refusal.message
        );
    }
}
