//! What others hold of the ledger: orders to change records, answered when they are stored and known.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use super::commits::{Intent, What};
use super::records::Condition;
use super::{Ledger, Make, Order};
use crate::api::error::{ApiError, ErrorCode};
use crate::store::{Change, Generation, MadeBefore, Store, Stored};

/// A change that is stored and known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The generation that holds it.
    pub generation: Generation,
    /// The records that it was about.
    pub keys: Vec<String>,
    /// It was made before, for the same order.
    pub before: bool,
    /// What each of them was and is, where somebody wants to know that.
    pub diff: Vec<Diff>,
}

/// What a record was and is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// Its key.
    pub key: String,
    /// Its value before, as far as it could be read; none where it was not there.
    pub before: Option<Bytes>,
    /// Its value now; none where it is gone.
    pub after: Option<Bytes>,
}

impl Made {
    pub(super) fn new(generation: Generation, keys: Vec<String>) -> Made {
        Made {
            generation,
            keys,
            before: false,
            diff: Vec::new(),
        }
    }

    pub(super) fn again(before: MadeBefore) -> Made {
        Made {
            generation: before.generation,
            keys: before.keys,
            before: true,
            diff: Vec::new(),
        }
    }
}

/// How a change is to be made.
#[derive(Debug, Clone, Default)]
pub struct How {
    /// Once, however often it is ordered under this name.
    pub once: Option<String>,
    /// Only if this holds.
    pub only_if: Option<Condition>,
    /// Somebody wants to know what the records were.
    pub audited: bool,
}

/// Speaks to a ledger; cheap to clone.
#[derive(Clone)]
pub struct LedgerHandle {
    orders: mpsc::Sender<Order>,
    store: Arc<dyn Store>,
    changed: watch::Receiver<()>,
}

impl std::fmt::Debug for LedgerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LedgerHandle")
    }
}

fn stopping() -> ApiError {
    ApiError::stopping("this process")
}

impl LedgerHandle {
    pub(super) fn new(
        orders: mpsc::Sender<Order>,
        store: Arc<dyn Store>,
        changed: watch::Receiver<()>,
    ) -> Self {
        LedgerHandle {
            orders,
            store,
            changed,
        }
    }

    async fn send<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<T>) -> Order,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.orders.send(order(reply)).await;
        sent.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    /// Asks the ledger as it is.
    ///
    /// # Errors
    /// When it is driven no more.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Ledger) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.ask_mut(|ledger| question(ledger)).await
    }

    /// The same, for a question that tries something out.
    ///
    /// # Errors
    /// When it is driven no more.
    pub async fn ask_mut<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.send(|reply| {
            Order::Ask(Box::new(move |ledger| {
                // A caller that hung up needs no answer.
                let _ = reply.send(question(ledger));
            }))
        })
        .await
    }

    /// Stores changes, all or none.
    ///
    /// # Errors
    /// Names every record that would be wrong; nothing is changed then.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<Made, ApiError> {
        let intent = Intent::from(What::Given(changes.into()));
        self.send(|reply| Order::Change(intent, reply)).await?
    }

    /// Stores what is made of the records as they are when its turn comes, and anew where somebody else was
    /// faster.
    ///
    /// # Errors
    /// What `make` says, or as [`LedgerHandle::commit`].
    pub async fn amend(&self, make: Make, how: How) -> Result<Made, ApiError> {
        let what = What::Made(make);
        let intent = Intent { what, how };
        self.send(|reply| Order::Change(intent, reply)).await?
    }

    /// The store, for what it alone knows.
    pub(super) fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// Told whenever records have changed and that is acted on.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.clone()
    }

    /// Every record of the store, good or not, sorted by key.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn records(&self) -> Result<Vec<Stored>, ApiError> {
        let snapshot = self.store.load().await;
        let snapshot =
            snapshot.map_err(|error| ApiError::new(ErrorCode::Unavailable, error.to_string()))?;
        Ok(snapshot.records)
    }

    /// Has a store that went back taken for what it is now.
    ///
    /// # Errors
    /// When it did not go back.
    pub async fn follow_store(&self) -> Result<(), ApiError> {
        self.send(Order::Follow).await?
    }
}
