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
pub mod pages;
mod questions;
mod registration;
mod reports;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{
    ConnectOptions, EventType, GetOptions, GetResponse, KeyValue, ResponseHeader, WatchOptions,
    WatchStream,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::snapshot::{Kept, LocalSnapshot};
use super::{
    Answer, Change, Changed, Commit, Generation, LastKnown, MadeBefore, Mark, Once, Part,
    Precondition, Reading, Row, SnapshotHealth, Store, StoreError, Stored, Watch, WatchEvent,
    Writing,
};
use crate::config::EtcdConfig;
use crate::unique;
use connection::{Connection, Lent, Trouble};
pub(super) use follow::{Fence, Place};
use follow::{Follow, Heard, Step};
use pages::{MOST_BYTES, PageSize, end_of};
pub use questions::Inquiry;

/// The key, below the root, that each of our commits writes; no record.
const FENCE: &str = "commit";
/// What a watch may say at once, in bytes; beyond it the store is read again.
const MOST_WATCHED: usize = 256 << 20;
/// How many events may wait for whoever watches; then etcd is told to wait.
const WAITING: usize = 64;
/// A page may take this many times as long as another request.
const PAGE_PATIENCE: u32 = 10;
/// How often a snapshot in which nothing changed is marked as current, and one that is broken is made anew.
const TEND_SNAPSHOT: Duration = Duration::from_secs(30);

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

/// The page that comes next, on its way; nobody wants it when this is dropped.
struct Asked(JoinHandle<Result<(Page, PageSize), Trouble>>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Records of a range, as one answer gave them.
struct Page {
    kvs: Vec<KeyValue>,
    /// Where the next page begins; none when this was the last one.
    next: Option<Vec<u8>>,
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

    async fn read(self: Arc<Self>) -> Result<Reading, StoreError> {
        let mut size = PageSize::new();
        let before = *self.seen();
        let (place, then) = self.whereabouts(before).await?;
        self.arrive(before, place, then)?;
        let from = self.prefix.as_bytes().to_vec();
        let revision = Some(place.revision);
        let first = self.page(from, revision, &mut size).await?;
        self.reached.store(true, Ordering::Relaxed);
        let (mut writing, reading) = Reading::new(place.revision);
        tokio::spawn(async move {
            // Of several readings at once one is enough.
            let filling = self.filling.clone().try_lock_owned().ok();
            let snapshot = self.snapshot.as_ref().filter(|_| filling.is_some());
            if let Some(snapshot) = snapshot {
                snapshot.begin(place).await;
            }
            let outcome = self.pour(place.revision, first, size, &mut writing, snapshot);
            let outcome = outcome.await;
            if let Some(snapshot) = snapshot {
                match outcome {
                    Ok(true) => snapshot.finish().await,
                    _ => snapshot.abandon().await,
                }
            }
            writing
                .end_now(outcome.map(|_| ()).map_err(StoreError::from))
                .await;
        });
        Ok(reading)
    }

    /// Hands a page and all that follow it over, to the snapshot too if there is one; false when nobody wants them any
    /// more. The next page is asked for before this one is handed over: etcd works while others do.
    async fn pour(
        self: &Arc<Self>,
        revision: Generation,
        first: Page,
        mut size: PageSize,
        writing: &mut Writing,
        snapshot: Option<&LocalSnapshot>,
    ) -> Result<bool, Trouble> {
        let mut page = first;
        loop {
            let asked = page.next.map(|next| {
                let (inner, mut size) = (self.clone(), size.clone());
                let asking = async move {
                    let page = inner.page(next, Some(revision), &mut size).await?;
                    Ok((page, size))
                };
                Asked(tokio::spawn(asking))
            });
            for part in self.parts(page.kvs) {
                if let Some(snapshot) = snapshot {
                    snapshot.part(part.clone()).await;
                }
                if !writing.hand(part).await {
                    return Ok(false);
                }
            }
            let Some(mut asked) = asked else {
                return Ok(true);
            };
            let answer = (&mut asked.0).await;
            (page, size) = answer.map_err(|error| Trouble::Away(error.to_string()))??;
        }
    }

    /// Records as etcd has them, in parts, without what is no record.
    fn parts(&self, kvs: Vec<KeyValue>) -> impl Iterator<Item = Part> + '_ {
        let mut kvs = kvs.into_iter();
        std::iter::from_fn(move || {
            let mut part = Part::default();
            while !part.is_full()
                && let Some(kv) = kvs.next()
            {
                if let Some(key) = self.record_key(kv.key()) {
                    part.push(Row {
                        key: &key,
                        created: kv.create_revision().cast_unsigned(),
                        modified: kv.mod_revision().cast_unsigned(),
                        value: kv.value(),
                    });
                }
            }
            let is_empty = part.rows().next().is_none();
            (!is_empty).then_some(part)
        })
    }

    /// Records from this key on, at a revision or now.
    async fn page(
        &self,
        from: Vec<u8>,
        at: Option<Generation>,
        size: &mut PageSize,
    ) -> Result<Page, Trouble> {
        let end = end_of(&self.prefix);
        let patience = self.connection.config().timeout * PAGE_PATIENCE;
        loop {
            let limit = size.records();
            let (from, end) = (&from, &end);
            let got = self.connection.ask_within(patience, |client| async move {
                let mut options = GetOptions::new().with_range(end.clone()).with_limit(limit);
                if let Some(revision) = at {
                    options = options.with_revision(revision.cast_signed());
                }
                let mut kv = client.kv_client().max_decoding_message_size(MOST_BYTES);
                kv.get(from.clone(), Some(options)).await
            });
            let mut got = match got.await {
                Ok(got) => got,
                Err(Trouble::TooLarge) if size.was_too_large() => continue,
                Err(trouble) => return Err(trouble),
            };
            let more = got.more();
            let kvs = got.take_kvs();
            let bytes = kvs.iter().map(|kv| kv.key().len() + kv.value().len()).sum();
            size.had(kvs.len(), bytes);
            let next = kvs
                .last()
                .filter(|_| more)
                .map(|last| [last.key(), b"\0"].concat());
            return Ok(Page { kvs, next });
        }
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

    /// Tells all that becomes of the store until nobody listens.
    async fn follow(self: Arc<Self>, mut follow: Follow, events: mpsc::Sender<WatchEvent>) {
        let mut watching: Option<(Lent, WatchStream)> = None;
        let mut tend = Instant::now() + TEND_SNAPSHOT;
        loop {
            let next = async {
                match follow.step() {
                    Step::Ask(pause) => {
                        if let Some((lent, _)) = watching.take() {
                            self.connection.give_up(&lent);
                        }
                        sleep(spread(pause)).await;
                        match self.whereabouts(Some(follow.seen())).await {
                            Ok((place, then)) => Some(Heard::At(place, then)),
                            Err(trouble) => Some(broken(trouble)),
                        }
                    }
                    Step::Begin(from) => match self.begin(from).await {
                        Ok(begun) => {
                            watching = Some(begun);
                            Some(Heard::Begun)
                        }
                        Err(heard) => Some(heard),
                    },
                    Step::Listen => match &mut watching {
                        Some((_, stream)) => tokio::select! {
                            heard = self.listen(stream) => Some(heard),
                            () = tokio::time::sleep_until(tend) => None,
                        },
                        None => Some(Heard::Broken("there is no watch".to_owned())),
                    },
                    Step::End => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                heard = next => heard,
                () = events.closed() => return,
            };
            let Some(heard) = heard else {
                tend = Instant::now() + TEND_SNAPSHOT;
                self.tend_snapshot(follow.seen()).await;
                continue;
            };
            let told = follow.hear(heard);
            let at = follow.seen();
            if let Some(seen) = &mut *self.seen()
                && seen.revision < at.revision
            {
                *seen = at;
            }
            for (place, event) in told {
                let event = self.as_told(event);
                let kept = match &event {
                    WatchEvent::Commit(commit) => self.snapshot.as_ref().zip(Some(commit.clone())),
                    _ => None,
                };
                if events.send(event).await.is_err() {
                    return;
                }
                // Packets wait for what was told, and nobody for the snapshot.
                if let Some((snapshot, commit)) = kept {
                    snapshot.commit(place, commit).await;
                }
            }
        }
    }

    /// How an event is told, also in the log.
    fn as_told(&self, event: WatchEvent) -> WatchEvent {
        match event {
            // Whoever reads it again is told of it in the log.
            WatchEvent::Restored(_) if self.connection.config().follow_restored => {
                WatchEvent::Lagged
            }
            WatchEvent::Away(why) => {
                warn!(why, "the store is away");
                WatchEvent::Away(why)
            }
            WatchEvent::Back => {
                info!("the store is there again");
                WatchEvent::Back
            }
            other => other,
        }
    }

    async fn tend_snapshot(self: &Arc<Self>, seen: Place) {
        let Some(snapshot) = &self.snapshot else {
            return;
        };
        if snapshot.health().error.is_none() {
            return snapshot.current(seen).await;
        }
        let inner = self.clone();
        tokio::spawn(async move {
            // The snapshot takes its copy; nobody else wants one.
            if let Ok(mut reading) = inner.read().await {
                while let Some(Ok(_)) = reading.next().await {}
            }
        });
    }

    /// Opens a watch at this revision.
    async fn begin(&self, from: Generation) -> Result<(Lent, WatchStream), Heard> {
        let lent = self.connection.lend().await.map_err(broken)?;
        let options = WatchOptions::new()
            .with_range(end_of(&self.prefix))
            .with_start_revision(from.cast_signed());
        let opening = async {
            let mut client = lent
                .client()
                .watch_client()
                .max_decoding_message_size(MOST_WATCHED);
            let mut stream = client.watch(self.prefix.as_str(), Some(options)).await;
            let first = match &mut stream {
                Ok(stream) => self.listen(stream).await,
                Err(error) => broken(self.connection.trouble(error)),
            };
            match (stream, first) {
                // The first answer is that it was created, without any change.
                (Ok(stream), Heard::Changes(changes)) if changes.is_empty() => Ok(stream),
                (_, Heard::Changes(_)) => {
                    Err(Heard::Broken("the watch began with a change".to_owned()))
                }
                (_, heard) => Err(heard),
            }
        };
        let within = self.connection.config().timeout;
        let opened = timeout(within, opening).await;
        let opened = opened.unwrap_or_else(|_| {
            Err(Heard::Broken(format!(
                "no watch within {} ms",
                within.as_millis()
            )))
        });
        match opened {
            Ok(stream) => Ok((lent, stream)),
            Err(heard) => {
                self.connection.give_up(&lent);
                Err(heard)
            }
        }
    }

    /// The next that a watch says.
    async fn listen(&self, stream: &mut WatchStream) -> Heard {
        let said = stream.message().await;
        let said = said.map_err(|error| self.connection.trouble(&error));
        let said = match said.and_then(|said| self.connection.unless_ended(said)) {
            Ok(said) => said,
            Err(trouble) => return broken(trouble),
        };
        let mut commits: Vec<(Commit, Option<Fence>)> = Vec::new();
        for event in said.events() {
            let Some(kv) = event.kv() else {
                continue;
            };
            let generation = kv.mod_revision().cast_unsigned();
            if commits
                .last()
                .is_none_or(|(last, _)| last.generation != generation)
            {
                let changes = Vec::new();
                commits.push((
                    Commit {
                        generation,
                        changes,
                    },
                    None,
                ));
            }
            let Some((commit, fence)) = commits.last_mut() else {
                continue;
            };
            match event.event_type() {
                EventType::Put if kv.key() == self.fence().as_bytes() => {
                    *fence = Some(fence_of(kv))
                }
                EventType::Put => commit
                    .changes
                    .extend(self.stored(kv.clone()).map(Changed::Put)),
                EventType::Delete => {
                    let key = self.record_key(kv.key());
                    let gone = key.map(|key| Changed::Deleted {
                        key: key.into_owned(),
                    });
                    commit.changes.extend(gone);
                }
            }
        }
        Heard::Changes(commits)
    }
}

fn broken(trouble: Trouble) -> Heard {
    match trouble {
        Trouble::Away(detail) | Trouble::Refused(detail) => Heard::Broken(detail),
        Trouble::Compacted | Trouble::TooLarge => Heard::TooFarBehind,
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

/// A pause, a quarter shorter to a quarter longer, so that those who lost the cluster together do not all come
/// back together.
fn spread(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + f64::from(unique::number() as u16) / f64::from(u16::MAX) / 2.0)
}
