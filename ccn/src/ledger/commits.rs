//! Changes on their way into the store: checked, stored, heard of, answered for.
//!
//! A change is checked beside what is known and stored under the condition that nothing has moved since. Where
//! somebody else was faster it waits until that is known, and is checked and stored again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::records::Condition;
use super::{Diff, Happened, How, Ledger, Made, Make};
use crate::api::error::{ApiError, ErrorCode};
use crate::link;
use crate::record::GroupName;
use crate::store::{Change, Generation, Mark, Once, Precondition, Store, StoreError};

/// How long it may take until what the store has is heard of.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a change is stored again because others were faster.
const ATTEMPTS: u32 = 10;

pub(super) type Reply = oneshot::Sender<Result<Made, ApiError>>;

/// What somebody wants stored.
pub(super) struct Intent {
    pub(super) what: What,
    pub(super) how: How,
}

/// The changes that somebody wants stored.
pub(super) enum What {
    /// These.
    Given(Arc<[Change]>),
    /// What is made of the records as they are, anew each time that others were faster.
    Made(Make),
}

impl From<What> for Intent {
    fn from(what: What) -> Self {
        let how = How::default();
        Intent { what, how }
    }
}

/// What came of a commit.
pub(super) struct Stored {
    result: Result<Made, StoreError>,
    intent: Intent,
    attempt: u32,
    reply: Reply,
}

/// A change that waits until a generation is known.
struct Waiting {
    generation: Generation,
    until: Instant,
    reply: Reply,
    then: Then,
}

/// What is to be done when a generation is known.
enum Then {
    /// It is stored, and answered for.
    Answer(Made),
    /// It is to be stored again.
    Again(Intent, u32),
}

/// The changes under way.
#[derive(Default)]
pub(super) struct Commits {
    /// The store was asked and has said nothing, not even by way of the watch.
    undecided: bool,
    waiting: Vec<Waiting>,
}

impl Commits {
    /// Whether the next change must wait until more is known.
    pub(super) fn is_undecided(&self) -> bool {
        self.undecided
    }

    /// Something was heard of the store: most likely our own commit. If it was somebody else's, the precondition
    /// of ours fails.
    pub(super) fn heard(&mut self) {
        self.undecided = false;
    }

    /// When somebody will have waited for long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.until).min()
    }

    /// The store is not heard any more, so nobody can wait for that.
    pub(super) fn lost(&mut self) {
        self.give_up(|_| true);
    }

    /// Gives those up who have waited for long enough.
    pub(super) fn expire(&mut self, now: Instant) {
        self.give_up(|waiting| waiting.until <= now);
    }

    fn give_up(&mut self, which: impl Fn(&mut Waiting) -> bool) {
        for waiting in self.waiting.extract_if(.., which) {
            let error = match waiting.then {
                Then::Again(..) => ApiError::new(
                    ErrorCode::Unavailable,
                    "others changed the store first, and then it went away: nothing was changed",
                ),
                Then::Answer(_) => ApiError::new(
                    ErrorCode::Timeout,
                    format!(
                        "stored at generation {}, but the store went away before this gateway heard of it: it is \
                         done when the store is back",
                        waiting.generation
                    ),
                ),
            };
            // A caller that hung up needs no answer.
            let _ = waiting.reply.send(Err(error));
        }
    }
}

/// Has changes stored unless the store has moved on; with a name, unless they were stored under it before.
async fn stored_once(
    store: &dyn Store,
    changes: &[Change],
    unchanged: Generation,
    once: Option<&str>,
) -> Result<Made, StoreError> {
    let keys: Vec<String> = changes
        .iter()
        .map(|change| change.key().to_owned())
        .collect();
    let changes = changes.to_vec();
    let Some(name) = once else {
        let generation = store.commit(changes, Precondition::Unchanged(unchanged));
        return Ok(Made::new(generation.await?, keys));
    };
    let mark = Mark {
        name: name.to_owned(),
        keys: keys.clone(),
    };
    Ok(match store.commit_once(changes, unchanged, mark).await? {
        Once::Made(generation) => Made::new(generation, keys),
        Once::Before(before) => Made::again(before),
    })
}

async fn made_before(store: &dyn Store, once: Option<&str>) -> Result<Option<Made>, StoreError> {
    match once {
        Some(name) => Ok(store.made_before(name).await?.map(Made::again)),
        None => Ok(None),
    }
}

impl Ledger {
    /// Checks changes beside all that is there, and has them stored. They are acted on when the store
    /// has decided on them, and answered for when they are durable: a change that the disk refuses in
    /// the end is undone.
    pub(super) fn commit(&mut self, intent: Intent, attempt: u32, reply: Reply) {
        let changes = match &intent.what {
            What::Given(changes) => Ok(changes.clone()),
            What::Made(make) => make(&self.inventory).map(Arc::from),
        };
        let allowed = self.hearing.allows_changes().and(changes);
        let checked = allowed.and_then(|changes| self.check(&changes).map(|()| changes));
        let is_conditional = intent
            .how
            .only_if
            .as_ref()
            .is_some_and(Condition::says_anything);
        if let (Err(refusal), None, false) = (&checked, &intent.how.once, is_conditional) {
            let _ = reply.send(Err(refusal.clone()));
            return;
        }
        let diff = match (&checked, intent.how.audited) {
            (Ok(changes), true) => changes.iter().map(|change| self.diff(change)).collect(),
            _ => Vec::new(),
        };
        self.commits.undecided = true;
        let (store, generation) = (self.store.clone(), self.generation);
        let happen = self.happen.clone();
        tokio::spawn(async move {
            let How { once, only_if, .. } = &intent.how;
            let once = once.as_deref();
            // The generation was known before this is asked, so it still holds when the store has not moved.
            let holds = match only_if {
                Some(condition) => condition.holds(store.as_ref()).await,
                None => Ok(()),
            };
            // Who has not seen what there is is told that, and not what else speaks against the order.
            let checked = holds.and(checked);
            let result = match checked {
                Ok(changes) => {
                    let stored = stored_once(store.as_ref(), &changes, generation, once).await;
                    stored.map(|made| match made.before {
                        true => made,
                        false => Made { diff, ..made },
                    })
                }
                // What was done before is not judged by what came of it.
                Err(refusal) => match made_before(store.as_ref(), once).await {
                    Ok(None) => {
                        let _ = happen.send(Happened::Refused);
                        let _ = reply.send(Err(refusal));
                        return;
                    }
                    Ok(Some(made)) => Ok(made),
                    Err(error) => Err(error),
                },
            };
            // The loop is gone when this fails, and so is whoever waits.
            let _ = happen.send(Happened::Stored(Stored {
                result,
                intent,
                attempt,
                reply,
            }));
        });
    }

    /// The store has answered: maybe before it was heard to decide.
    pub(super) fn stored(&mut self, stored: Stored) {
        let Stored {
            result,
            intent,
            attempt,
            reply,
        } = stored;
        self.commits.undecided = false;
        let until = Instant::now() + PATIENCE;
        let (generation, then) = match result {
            Ok(made) => (made.generation, Then::Answer(made)),
            Err(StoreError::Moved { found, .. }) if attempt < ATTEMPTS => {
                (found, Then::Again(intent, attempt + 1))
            }
            Err(error) => {
                let _ = reply.send(Err(error.into()));
                return;
            }
        };
        self.commits.waiting.push(Waiting {
            generation,
            until,
            reply,
            then,
        });
    }

    /// Nothing was asked of the store after all.
    pub(super) fn refused(&mut self) {
        self.commits.undecided = false;
    }

    /// Goes on with the changes whose generation is known by now.
    pub(super) fn try_again(&mut self) {
        for (intent, attempt, reply) in self.settle_known() {
            self.commit(intent, attempt, reply);
        }
        self.commits.expire(Instant::now());
    }

    /// Answers for what is stored and known; what is known and to be stored again.
    fn settle_known(&mut self) -> Vec<(Intent, u32, Reply)> {
        let mut again = Vec::new();
        let known = |waiting: &mut Waiting| waiting.generation <= self.generation;
        for waiting in self.commits.waiting.extract_if(.., known) {
            match waiting.then {
                Then::Again(intent, attempt) => again.push((intent, attempt, waiting.reply)),
                Then::Answer(made) => {
                    let _ = waiting.reply.send(Ok(made));
                }
            }
        }
        again
    }

    /// What a record is and will be.
    fn diff(&self, change: &Change) -> Diff {
        let key = change.key();
        let record = key.parse().ok().and_then(|key| self.inventory.record(&key));
        Diff {
            key: key.to_owned(),
            before: record.map(|record| record.to_json().into()),
            after: match change {
                Change::Put { value, .. } => Some(value.clone()),
                Change::Delete { .. } => None,
            },
        }
    }

    /// Whether the store may take these changes.
    pub(super) fn check(&mut self, changes: &[Change]) -> Result<(), ApiError> {
        self.inventory
            .check(changes)
            .map_err(|errors| ApiError::refused(&errors))?;
        let abilities_of = |group: &GroupName| (self.abilities_of)(&self.inventory, group);
        match link::beyond(abilities_of, changes).as_slice() {
            [] => Ok(()),
            errors => Err(ApiError::refused(errors)),
        }
    }
}
