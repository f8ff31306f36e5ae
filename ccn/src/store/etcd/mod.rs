//! The store of a cluster: etcd, over TLS, shared by gateways, API servers and the cloud's own controllers.
//!
//! A generation is a revision of etcd. Our own commits also write one key, `commit`: that is what
//! [`Precondition::Unchanged`] looks at, since etcd compares keys and not whole ranges. Who else writes records
//! without it is not stopped by it; the inventory judges what comes of that.
//!
//! What is read and heard goes into a local snapshot, which is there when the cluster is not. A cluster that
//! went back is not followed until somebody says so.

mod commit;
mod connection;
pub mod follow;
mod held;
pub mod pages;
mod questions;
mod reading;
mod registration;
mod reports;
mod watching;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use etcd_client::{ConnectOptions, GetOptions, GetResponse, KeyValue, ResponseHeader};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use super::snapshot::{Kept, LocalSnapshot};
use super::{
    Answer, Change, Generation, LastKnown, MadeBefore, Mark, Once, Precondition, Reading,
    SnapshotHealth, Store, StoreError, Stored, Watch,
};
use crate::config::EtcdConfig;
use connection::{Connection, Trouble};
use follow::Follow;
pub(super) use follow::{Fence, Place};
pub use held::Held;
pub use questions::Inquiry;

/// The key, below the root, that each of our commits writes; no record.
const FENCE: &str = "commit";
/// How many events may wait for whoever watches; then etcd is told to wait.
const WAITING: usize = 64;

/// A store in etcd. Clones share it.
#[derive(Debug, Clone)]
pub struct EtcdStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    /// The root with a slash.
    prefix: String,
    /// The furthest place that was seen of the cluster, by this process or the one that kept the snapshot.
    seen: Mutex<Option<Place>>,
    /// It was read from the cluster once.
    reached: AtomicBool,
    snapshot: Option<LocalSnapshot>,
    /// Held by the reading that goes into the snapshot.
    filling: Arc<tokio::sync::Mutex<()>>,
    /// The lease that marks of orders hang on, and since when it is there.
    mark_lease: tokio::sync::Mutex<Option<(i64, Instant)>>,
    kept: Mutex<Option<Kept>>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// A store that keeps a local snapshot, and knows what is in it. Blocks; the cluster is not asked yet. A file
    /// that is no snapshot of ours any more is put aside.
    ///
    /// # Errors
    /// When the file of the snapshot cannot be had.
    pub fn open(config: EtcdConfig) -> Result<EtcdStore, StoreError> {
        let (snapshot, kept) = match LocalSnapshot::open(&config.snapshot) {
            Err(error @ (StoreError::Damaged { .. } | StoreError::Format { .. })) => {
                let aside = config.snapshot.with_extension("damaged");
                warn!(%error, aside = %aside.display(), "the local snapshot is put aside and made anew");
                // Should this fail, the next attempt says the same again.
                let _ = std::fs::rename(&config.snapshot, &aside);
                LocalSnapshot::open(&config.snapshot)?
            }
            opened => opened?,
        };
        Ok(EtcdStore::new(config, Some(snapshot), kept))
    }

    /// A store for a moment: without a snapshot, and knowing nothing of any former time.
    #[must_use]
    pub fn without_snapshot(config: EtcdConfig) -> EtcdStore {
        EtcdStore::new(config, None, None)
    }

    fn new(config: EtcdConfig, snapshot: Option<LocalSnapshot>, kept: Option<Kept>) -> EtcdStore {
        let inner = Inner {
            prefix: format!("{}/", config.root),
            connection: Connection::new(config),
            seen: Mutex::new(kept.as_ref().map(|kept| kept.place)),
            reached: AtomicBool::new(false),
            snapshot,
            filling: Arc::default(),
            mark_lease: tokio::sync::Mutex::default(),
            kept: Mutex::new(kept),
        };
        EtcdStore {
            inner: Arc::new(inner),
        }
    }

    /// How the local snapshot is doing, if one is kept.
    #[must_use]
    pub fn snapshot_health(&self) -> Option<SnapshotHealth> {
        self.inner.snapshot.as_ref().map(LocalSnapshot::health)
    }
}

impl Store for EtcdStore {
    fn read(&self) -> Answer<'_, Reading> {
        Box::pin(async move { self.inner.clone().read().await })
    }

    fn get(&self, key: String) -> Answer<'_, Option<Stored>> {
        Box::pin(async move { self.inner.get(key).await })
    }

    fn commit(&self, changes: Vec<Change>, precondition: Precondition) -> Answer<'_, Generation> {
        Box::pin(async move { self.inner.commit(changes, precondition).await })
    }

    fn fill(&self, changes: Vec<Change>) -> Answer<'_, Generation> {
        Box::pin(async move { self.inner.clone().fill(changes).await })
    }

    fn commit_once(
        &self,
        changes: Vec<Change>,
        unchanged: Generation,
        mark: Mark,
    ) -> Answer<'_, Once> {
        Box::pin(async move { self.inner.commit_once(changes, unchanged, mark).await })
    }

    fn made_before(&self, name: &str) -> Answer<'_, Option<MadeBefore>> {
        let name = name.to_owned();
        Box::pin(async move { Ok(self.inner.made_before(&name).await?) })
    }

    fn watch(&self, after: Generation) -> Answer<'_, Watch> {
        Box::pin(async move {
            let place = *self.inner.seen();
            let Some(place) = place else {
                // Where nothing was read nothing can be followed.
                return Err(StoreError::Interrupted);
            };
            let place = Place {
                revision: after,
                fence: place.fence.filter(|_| place.revision == after),
                ..place
            };
            let (events, watch) = mpsc::channel(WAITING);
            let is_away = !self.inner.reached.load(Ordering::Relaxed);
            tokio::spawn(
                self.inner
                    .clone()
                    .follow(Follow::new(place, is_away), events),
            );
            Ok(watch.into())
        })
    }

    fn last_known(&self) -> Answer<'_, Option<LastKnown>> {
        Box::pin(async move {
            let kept = self
                .inner
                .kept
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let Some(Kept { place, taken, rows }) = kept else {
                return Ok(None);
            };
            let (writing, reading) = Reading::new(place.revision);
            tokio::task::spawn_blocking(move || rows.pour(writing));
            Ok(Some(LastKnown { reading, taken }))
        })
    }

    fn follow_restored(&self) {
        *self.inner.seen() = None;
    }
}

/// How a client of its own comes to the cluster: the certificates and the password are read now.
///
/// # Errors
/// When one of these files cannot be read.
pub fn connect_options(config: &EtcdConfig) -> Result<ConnectOptions, StoreError> {
    Ok(connection::options(config)?)
}

impl Inner {
    fn seen(&self) -> MutexGuard<'_, Option<Place>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fence(&self) -> String {
        format!("{}{FENCE}", self.prefix)
    }

    /// Whether a cluster that is at `found` is the one that was seen `before` it was asked; then this is seen now.
    fn arrive(
        &self,
        before: Option<Place>,
        found: Place,
        then: Option<Fence>,
    ) -> Result<(), StoreError> {
        if let Some(Err(restored)) = before.map(|before| before.leads_to(found, then)) {
            if !self.connection.config().follow_restored {
                return Err(StoreError::Restored(restored));
            }
            warn!(%restored, "following the store, as configured");
            *self.seen() = Some(found);
            return Ok(());
        }
        let mut seen = self.seen();
        // Others may have seen more since.
        if seen.is_none_or(|seen| seen.revision < found.revision) {
            *seen = Some(found);
        }
        Ok(())
    }

    /// A majority is asked, so it is no older than what was told.
    async fn get(&self, key: String) -> Result<Option<Stored>, StoreError> {
        let name = &format!("{}{key}", self.prefix);
        let asked = self.connection.ask(|client| async move {
            let mut kv = client.kv_client();
            kv.get(name.as_str(), None).await
        });
        let got = asked.await?;
        Ok(got.kvs().first().map(|kv| Stored {
            key,
            created: kv.create_revision().cast_unsigned(),
            modified: kv.mod_revision().cast_unsigned(),
            value: Bytes::copy_from_slice(kv.value()),
        }))
    }

    /// A record as etcd has it; none for what is no record.
    fn stored(&self, kv: KeyValue) -> Option<Stored> {
        let (created, modified) = (kv.create_revision(), kv.mod_revision());
        let (key, value) = kv.into_key_value();
        Some(Stored {
            key: self.record_key(&key)?.into_owned(),
            created: created.cast_unsigned(),
            modified: modified.cast_unsigned(),
            value: Bytes::from(value),
        })
    }

    /// A key without the root. One that is no text is made one, so that it is shown and not lost.
    fn record_key<'k>(&self, key: &'k [u8]) -> Option<Cow<'k, str>> {
        let key = key.strip_prefix(self.prefix.as_bytes())?;
        (key != FENCE.as_bytes()).then(|| String::from_utf8_lossy(key))
    }

    /// Where the cluster is, by the word of a majority; and the last commit of ours up to the place that was seen, as
    /// the cluster has it, unless that was compacted away.
    async fn whereabouts(&self, seen: Option<Place>) -> Result<(Place, Option<Fence>), Trouble> {
        let fence = &self.fence();
        let got = self
            .connection
            .ask(|mut client| async move { client.get(fence.as_str(), None).await });
        let got = got.await?;
        let place = Place {
            fence: Some(fence_in(&got)),
            ..place(got.header())?
        };
        let Some(seen) = seen.filter(|seen| seen.revision <= place.revision) else {
            return Ok((place, None));
        };
        let at = seen.revision.cast_signed();
        let got = self.connection.ask(|mut client| async move {
            let then = GetOptions::new().with_revision(at);
            client.get(fence.as_str(), Some(then)).await
        });
        match got.await {
            Ok(got) => Ok((place, Some(fence_in(&got)))),
            Err(Trouble::Compacted) => Ok((place, None)),
            Err(trouble) => Err(trouble),
        }
    }
}

/// The fence in an answer that asked for it.
fn fence_in(got: &GetResponse) -> Fence {
    got.kvs().first().map(fence_of).unwrap_or_default()
}

fn fence_of(kv: &KeyValue) -> Fence {
    // FNV-1a: it is written into snapshots, and has to stay what it is.
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    Fence {
        revision: kv.mod_revision().cast_unsigned(),
        mark: kv.value().iter().fold(0xcbf2_9ce4_8422_2325, step),
    }
}

/// The place of an answer; which commit of ours was the last is not known by it.
fn place(header: Option<&ResponseHeader>) -> Result<Place, Trouble> {
    let header = header.ok_or_else(|| Trouble::Away("an answer without a header".to_owned()))?;
    Ok(Place {
        cluster: header.cluster_id(),
        term: header.raft_term(),
        revision: header.revision().cast_unsigned(),
        fence: None,
    })
}
