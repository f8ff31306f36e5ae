//! Changes of links that nobody has confirmed in time are taken back.
//!
//! Every agent that serves the store does it; the first one is enough, and the others find nothing left to do.

use std::collections::BTreeMap;
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
use crate::store::Changed;

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

/// When changes are taken back unless they are confirmed.
///
/// A record says that in seconds since 1970, for other machines and for after a restart. Whoever hears of it when it
/// is made counts from then on by a clock that nobody sets. What was there before goes by the clock on the wall,
/// which may be wrong when a machine starts and right later.
#[derive(Debug, Default)]
pub struct Deadlines {
    /// What the record said, and when that is.
    heard: BTreeMap<LinkId, (u64, Instant)>,
    /// When something may be due; none when nothing waits.
    look: Option<Instant>,
}

impl Deadlines {
    /// How much time a change has that is to be confirmed `by` then, when it is `wall` (seconds since 1970) and `now`.
    #[must_use]
    pub fn left(&self, id: &LinkId, by: u64, wall: u64, now: Instant) -> Duration {
        match self.heard.get(id) {
            Some((said, due)) if *said == by => due.saturating_duration_since(now),
            _ => Duration::from_secs(by.saturating_sub(wall)),
        }
    }

    /// These links were changed just now.
    fn changed(
        &mut self,
        links: impl Iterator<Item = LinkId>,
        inventory: &Inventory,
        wall: u64,
        now: Instant,
    ) {
        for id in links {
            let link = inventory.link_record(&id);
            match link.and_then(|link| link.confirm_by) {
                Some(by) => {
                    if self.heard.get(&id).is_none_or(|(said, _)| *said != by) {
                        let left = Duration::from_secs(by.saturating_sub(wall));
                        // Far beyond what a clock can count is not soon.
                        if let Some(due) = now.checked_add(left) {
                            self.heard.insert(id, (by, due));
                        }
                    }
                }
                None => {
                    self.heard.remove(&id);
                }
            }
        }
        self.look_again(inventory, wall, now);
    }

    /// Links may have changed at any time; what was heard of before counts on.
    fn reread(&mut self, inventory: &Inventory, wall: u64, now: Instant) {
        self.heard.retain(|id, (said, _)| {
            let link = inventory.link_record(id);
            link.is_some_and(|link| link.confirm_by == Some(*said))
        });
        self.look_again(inventory, wall, now);
    }

    fn look_again(&mut self, inventory: &Inventory, wall: u64, now: Instant) {
        let waiting = inventory.unconfirmed();
        let left = waiting.map(|(by, id)| self.left(id, by, wall, now)).min();
        self.look = left.map(|left| now + undo::look_in(left));
    }

    /// The change that has waited longest beyond its time.
    fn overdue<'i>(
        &self,
        inventory: &'i Inventory,
        wall: u64,
        now: Instant,
    ) -> Option<(u64, &'i LinkId)> {
        let mut waiting = inventory.unconfirmed();
        waiting.find(|(by, id)| self.left(id, *by, wall, now).is_zero())
    }
}

impl Ledger {
    /// When changes of links are taken back.
    #[must_use]
    pub fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// These changes were made just now.
    pub(super) fn heard_of(&mut self, changes: &[Changed]) {
        let keys = changes.iter().map(|changed| changed.key().parse());
        let mut links = keys
            .filter_map(|key| match key {
                Ok(RecordKey::Link(id)) => Some(id),
                _ => None,
            })
            .peekable();
        if links.peek().is_some() {
            let (wall, now) = (seconds_now(), Instant::now());
            self.deadlines.changed(links, &self.inventory, wall, now);
        }
    }

    /// The store was read as a whole.
    pub(super) fn read_anew(&mut self) {
        let (wall, now) = (seconds_now(), Instant::now());
        self.deadlines.reread(&self.inventory, wall, now);
    }

    /// When a change that waits may be due; not while the store decides.
    pub(super) fn confirmation_due(&self) -> Option<Instant> {
        if self.commits.is_undecided() {
            return None;
        }
        let look = self.deadlines.look?;
        Some(look.max(self.undo_again))
    }

    /// Takes back the change that has waited longest beyond its time, if there is one. The next one follows when
    /// the store has decided.
    pub(super) fn undo_unconfirmed(&mut self) {
        let (wall, now) = (seconds_now(), Instant::now());
        if self.confirmation_due().is_none_or(|due| now < due) {
            return;
        }
        let overdue = self.deadlines.overdue(&self.inventory, wall, now);
        let Some((by, id)) = overdue.map(|(by, id)| (by, id.clone())) else {
            self.deadlines.look_again(&self.inventory, wall, now);
            return;
        };
        self.undo_again = now + AGAIN;
        let take_back = {
            let (id, key) = (id.clone(), RecordKey::Link(id.clone()));
            move |inventory: &Inventory| match inventory.record(&key) {
                Some(Record::Link(link)) if link.confirm_by == Some(by) => {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::Stored;

    /// By when the records here say that they are to be confirmed, and how long that is when they are made.
    const BY: u64 = 1_000_300;
    const MADE: u64 = 1_000_000;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn id() -> LinkId {
        "web".parse().unwrap()
    }

    fn put(inventory: &mut Inventory, confirm_by: Option<u64>) {
        let mut record = json!({"vpc": "web", "classic": ["10.9.0.0/24"], "previous": "none"});
        if let Some(by) = confirm_by {
            record["confirm_by"] = by.into();
        }
        let _ = inventory.apply(&[Changed::Put(Stored {
            key: "links/web".to_owned(),
            created: 1,
            modified: 1,
            value: record.to_string().into(),
        })]);
    }

    #[test]
    fn what_is_heard_of_goes_by_a_clock_that_nobody_sets() {
        let start = Instant::now();
        let mut inventory = Inventory::default();
        put(&mut inventory, Some(BY));
        // How far the clock on the wall is set, in seconds.
        for set in [0_i64, 3600, -3600] {
            let mut deadlines = Deadlines::default();
            deadlines.changed([id()].into_iter(), &inventory, MADE, start);
            for (later, is_due) in [(0, false), (299, false), (300, true), (4000, true)] {
                let wall = (MADE + later).saturating_add_signed(set);
                let now = start + seconds(later);
                let left = deadlines.left(&id(), BY, wall, now);
                assert_eq!(left, seconds(300_u64.saturating_sub(later)), "{set}");
                let due = deadlines.overdue(&inventory, wall, now).is_some();
                assert_eq!(due, is_due, "{later} s later, set by {set}");
            }
        }
    }

    #[test]
    fn what_was_there_before_goes_by_the_clock_on_the_wall_whenever_that_is_set() {
        let start = Instant::now();
        let mut inventory = Inventory::default();
        put(&mut inventory, Some(BY));
        let mut deadlines = Deadlines::default();
        // A machine that begins in 1970.
        deadlines.reread(&inventory, 5, start);
        assert!(deadlines.overdue(&inventory, 5, start).is_none());
        assert!(deadlines.look <= Some(start + seconds(10)));
        let now = start + seconds(7);
        let overdue = deadlines.overdue(&inventory, BY, now);
        assert_eq!(overdue, Some((BY, &id())));
    }

    #[test]
    fn what_is_read_again_counts_on_and_what_is_changed_begins_anew() {
        let start = Instant::now();
        let mut inventory = Inventory::default();
        put(&mut inventory, Some(BY));
        let mut deadlines = Deadlines::default();
        deadlines.changed([id()].into_iter(), &inventory, MADE, start);
        // Its own record heard again, or the whole store read, after the clock was set.
        let (wall, now) = (MADE + 4000, start + seconds(100));
        deadlines.changed([id()].into_iter(), &inventory, wall, now);
        deadlines.reread(&inventory, wall, now);
        assert_eq!(deadlines.left(&id(), BY, wall, now), seconds(200));

        put(&mut inventory, Some(wall + 60));
        deadlines.changed([id()].into_iter(), &inventory, wall, now);
        assert_eq!(deadlines.left(&id(), wall + 60, wall, now), seconds(60));

        put(&mut inventory, None);
        deadlines.changed([id()].into_iter(), &inventory, wall, now);
        assert!(deadlines.heard.is_empty());
        assert_eq!(deadlines.look, None);
    }
}
