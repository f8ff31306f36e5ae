//! The whole store, read page by page at one revision.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use etcd_client::{GetOptions, KeyValue};
use tokio::task::JoinHandle;

use super::super::snapshot::LocalSnapshot;
use super::super::{Generation, Part, Reading, Row, StoreError, Writing};
use super::Inner;
use super::connection::Trouble;
use super::pages::{MOST_BYTES, PageSize, end_of};

/// A page may take this many times as long as another request.
const PAGE_PATIENCE: u32 = 10;

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
    pub(super) async fn read(self: Arc<Self>) -> Result<Reading, StoreError> {
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
}
