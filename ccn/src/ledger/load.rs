//! A load of the store: one thread reads, one parses, and the inventory takes over what they have.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::warn;

use super::hearing::Hearing;
use crate::inventory::{Effects, Inventory, Loaded};
use crate::store::{Generation, LastKnown, Reading, Store, StoreError};

/// Parts that are parsed and wait.
const AHEAD: usize = 2;
/// How long a store that could not be read is left alone.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// What came of the first load.
pub(super) struct First {
    pub(super) inventory: Inventory,
    pub(super) generation: Generation,
    pub(super) records: usize,
    pub(super) effects: Effects,
    pub(super) hearing: Hearing,
}

/// The whole of a store, parsed and not taken over yet.
pub(super) struct Whole {
    pub(super) generation: Generation,
    parts: Vec<Vec<Loaded>>,
}

/// Parts as they are parsed, and the thread that does it.
struct Parsing {
    parts: mpsc::Receiver<Result<Vec<Loaded>, StoreError>>,
    thread: JoinHandle<()>,
}

impl Parsing {
    fn of(mut reading: Reading) -> Parsing {
        let (parsed, parts) = mpsc::channel(AHEAD);
        let thread = tokio::task::spawn_blocking(move || {
            while let Some(part) = reading.blocking_next() {
                let part = part.map(|part| {
                    let rows = part.rows();
                    rows.map(|row| {
                        let loaded = Loaded::parse(row.key, row.created, row.value);
                        loaded.modified(row.modified)
                    })
                    .collect::<Vec<_>>()
                });
                if parsed.blocking_send(part).is_err() {
                    break;
                }
            }
        });
        Parsing { parts, thread }
    }

    /// Hands each part over. Only when this is `Ok` were there all.
    async fn each(mut self, mut take: impl FnMut(Vec<Loaded>)) -> Result<(), StoreError> {
        while let Some(part) = self.parts.recv().await {
            take(part?);
        }
        self.thread.await.map_err(|_| StoreError::Interrupted)
    }
}

/// A store that is being loaded, while whoever wants it does other things.
pub struct Loading {
    store: Arc<dyn Store>,
    settling: oneshot::Receiver<usize>,
    first: JoinHandle<Result<First, StoreError>>,
}

impl Loading {
    /// Begins.
    #[must_use]
    pub fn begin(store: Arc<dyn Store>) -> Loading {
        let (settles, settling) = oneshot::channel();
        let mut settles = Some(settles);
        let first = tokio::spawn({
            let store = store.clone();
            async move {
                first(store.as_ref(), |records| {
                    if let Some(settles) = settles.take() {
                        // Whoever began it is gone, and so is the use of it.
                        let _ = settles.send(records);
                    }
                })
                .await
            }
        });
        Loading {
            store,
            settling,
            first,
        }
    }

    pub(super) async fn end(
        self,
        settling: impl FnOnce(usize),
    ) -> Result<(Arc<dyn Store>, First), StoreError> {
        // Nothing is told where nothing could be read.
        if let Ok(records) = self.settling.await {
            settling(records);
        }
        let first = self.first.await.map_err(|_| StoreError::Interrupted)?;
        Ok((self.store, first?))
    }
}

/// Takes over everything that the store holds; or, where it cannot be read, what it held when it last could. Where
/// there is neither it waits for the store.
///
/// # Errors
/// When it cannot be read, and nothing that is done elsewhere would change that.
async fn first(store: &dyn Store, mut settling: impl FnMut(usize)) -> Result<First, StoreError> {
    loop {
        let error = match store.read().await {
            Ok(reading) => match take(reading, Hearing::Current, &mut settling).await {
                Ok(first) => return Ok(first),
                Err(error) => error,
            },
            Err(error) => error,
        };
        if !error.is_passing() && !matches!(error, StoreError::Restored(_)) {
            return Err(error);
        }
        if let Some(LastKnown { reading, taken }) = store.last_known().await? {
            let seconds = taken.elapsed().unwrap_or_default().as_secs();
            warn!(%error, seconds, "starting from the local snapshot, which is so old");
            return take(reading, Hearing::without(&error, taken), &mut settling).await;
        }
        warn!(%error, "there is no local snapshot to start from: waiting for the store");
        tokio::time::sleep(AGAIN).await;
    }
}

async fn take(
    reading: Reading,
    hearing: Hearing,
    settling: &mut impl FnMut(usize),
) -> Result<First, StoreError> {
    let generation = reading.generation();
    let mut inventory = Inventory::default();
    let mut load = inventory.begin_load();
    let mut records = 0;
    let parts = Parsing::of(reading).each(|part| {
        records += part.len();
        for loaded in part {
            inventory.load_one(&mut load, loaded);
        }
    });
    parts.await?;
    settling(records);
    let effects = inventory.end_load(load);
    Ok(First {
        inventory,
        generation,
        records,
        effects,
        hearing,
    })
}

/// Everything that the store holds, for an inventory that goes on meanwhile: half of it would be a change that
/// nobody made.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn whole(store: &dyn Store) -> Result<Whole, StoreError> {
    let reading = store.read().await?;
    let generation = reading.generation();
    let mut parts = Vec::new();
    Parsing::of(reading).each(|part| parts.push(part)).await?;
    Ok(Whole { generation, parts })
}

impl Whole {
    /// Has an inventory take it over.
    pub(super) fn into_inventory(self, inventory: &mut Inventory) -> Effects {
        let mut load = inventory.begin_load();
        for loaded in self.parts.into_iter().flatten() {
            inventory.load_one(&mut load, loaded);
        }
        inventory.end_load(load)
    }
}
