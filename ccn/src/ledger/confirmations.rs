//! Changes of links that nobody has confirmed in time are taken back.
//!
//! Every agent that serves the store does it; the first one is enough, and the others find nothing left to do.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;
use tracing::{info, warn};

use super::Ledger;
use super::commits::What;
use crate::api::error::{ApiError, ErrorCode};
use crate::inventory::Inventory;
use crate::link::undo;
use crate::record::{LinkId, Record, RecordKey};

/// The time between two steps back, so that one that comes to nothing is not tried without end.
const AGAIN: Duration = Duration::from_secs(1);

/// Seconds since 1970; 0 for a clock from before.
#[must_use]
pub fn seconds_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// When a change is to be confirmed that is made now, in seconds since 1970.
#[must_use]
pub fn deadline(confirm: Duration) -> u64 {
    seconds_now().saturating_add(confirm.as_secs().max(1))
}

impl Ledger {
    /// When the clock is to be looked at for the sake of a change that waits; not while the store decides.
    pub(super) fn confirmation_due(&self) -> Option<Instant> {
        if self.commits.is_undecided() {
            return None;
        }
        let (by, _) = self.inventory.unconfirmed().next()?;
        let look = Instant::now() + undo::look_in(by, seconds_now());
        Some(look.max(self.undo_again))
    }

    /// Takes back the change that has waited longest beyond its time, if there is one. The next one follows when
    /// the store has decided.
    pub(super) fn undo_unconfirmed(&mut self) {
        let now = seconds_now();
        if self.commits.is_undecided() || Instant::now() < self.undo_again {
            return;
        }
        let first = self.inventory.unconfirmed().next();
        let Some((_, id)) = first.filter(|(by, _)| *by <= now) else {
            return;
        };
        let id: LinkId = id.clone();
        self.undo_again = Instant::now() + AGAIN;
        let take_back = {
            let (id, key) = (id.clone(), RecordKey::Link(id.clone()));
            move |inventory: &Inventory| match inventory.record(&key) {
                Some(Record::Link(link)) if link.confirm_by.is_some_and(|by| by <= now) => {
                    Ok(vec![undo::undone(&id, &link)?])
                }
                _ => {
                    let message = format!("the link {id} was confirmed or changed meanwhile");
                    Err(ApiError::new(ErrorCode::Refused, message))
                }
            }
        };
        info!(link = %id, "nobody confirmed the last change in time: it is taken back");
        let (reply, answer) = oneshot::channel();
        self.commit(What::Made(Arc::new(take_back)).into(), 0, reply);
        tokio::spawn(async move {
            if let Ok(Err(error)) = answer.await {
                warn!(link = %id, error = error.message, "was not taken back");
            }
        });
    }
}
