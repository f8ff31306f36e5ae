//! Changes on their way into the store: checked, stored, heard of, answered for.
//!
//! A change is checked beside what is known and stored under the condition that nothing has moved since. Where
//! somebody else was faster it waits until that is known, and is checked and stored again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::records::Condition;
use super::{Controller, Happened, Make};
use crate::api::error::{ApiError, ErrorCode};
use crate::link;
use crate::store::{Change, Generation, Precondition, StoreError};

/// How long it may take until what the store has is heard of.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a change is stored again because others were faster.
const ATTEMPTS: u32 = 10;

type Reply = oneshot::Sender<Result<u64, ApiError>>;

/// What somebody wants stored.
pub(super) enum Intent {
    /// These changes.
    Given(Arc<[Change]>),
    /// What is made of the records as they are, anew each time that others were faster; if this holds each time.
    Made {
        make: Make,
        only_if: Option<Condition>,
    },
}

/// What came of a commit.
pub(super) struct Stored {
    result: Result<Generation, StoreError>,
    intent: Intent,
    attempt: u32,
    reply: Reply,
}

/// A change that waits until a generation is known.
struct Waiting {
    generation: Generation,
    until: Instant,
    reply: Reply,
    /// It is to be stored again then; otherwise it is stored, and answered for.
    again: Option<(Intent, u32)>,
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
            let error = match waiting.again {
                Some(_) => ApiError::new(
                    ErrorCode::Unavailable,
                    "others changed the store first, and then it went away: nothing was changed",
                ),
                None => ApiError::new(
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

impl Controller {
    /// Checks changes beside all that is there, and has them stored. They are acted on when the store
    /// has decided on them, and answered for when they are durable: a change that the disk refuses in
    /// the end is undone.
    pub(super) fn commit(&mut self, intent: Intent, attempt: u32, reply: Reply) {
        let changes = match &intent {
            Intent::Given(changes) => Ok(changes.clone()),
            Intent::Made { make, .. } => make(&self.view()).map(Arc::from),
        };
        let allowed = self.hearing.allows_changes().and(changes);
        let checked = allowed.and_then(|changes| self.check(&changes).map(|()| changes));
        let changes = match checked {
            Ok(changes) => changes,
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
                return;
            }
        };
        self.commits.undecided = true;
        let (store, unchanged) = (self.store.clone(), Precondition::Unchanged(self.generation));
        let happen = self.happen.clone();
        tokio::spawn(async move {
            // The generation was known before this is asked, so it still holds when the store has not moved.
            if let Intent::Made {
                only_if: Some(condition),
                ..
            } = &intent
                && let Err(refusal) = condition.holds(store.as_ref()).await
            {
                let _ = happen.send(Happened::Refused);
                let _ = reply.send(Err(refusal));
                return;
            }
            let result = store.commit(changes.to_vec(), unchanged).await;
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
        let waiting = match result {
            Ok(generation) => Waiting {
                generation,
                until,
                reply,
                again: None,
            },
            Err(StoreError::Moved { found, .. }) if attempt < ATTEMPTS => Waiting {
                generation: found,
                until,
                reply,
                again: Some((intent, attempt + 1)),
            },
            Err(error) => {
                let code = match error.is_passing() {
                    true => ErrorCode::Unavailable,
                    false => ErrorCode::Internal,
                };
                let _ = reply.send(Err(ApiError::new(code, error.to_string())));
                return;
            }
        };
        self.commits.waiting.push(waiting);
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
            match waiting.again {
                Some((intent, attempt)) => again.push((intent, attempt, waiting.reply)),
                None => {
                    let _ = waiting.reply.send(Ok(waiting.generation));
                }
            }
        }
        again
    }

    /// Whether the store may take these changes.
    pub(super) fn check(&mut self, changes: &[Change]) -> Result<(), ApiError> {
        self.inventory
            .check(changes)
            .map_err(|errors| ApiError::refused(&errors))?;
        match link::beyond(self.plane.abilities(), changes).as_slice() {
            [] => Ok(()),
            errors => Err(ApiError::refused(errors)),
        }
    }
}
