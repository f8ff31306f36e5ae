//! Commits as transactions of etcd.
//!
//! Each part of a commit is one transaction: it looks at the keys first, so that what would change nothing is
//! not written, and then writes under the condition that nothing of this moved. It carries a mark of its own in
//! the fence: when an answer is lost and the part is sent again, the mark says that it was made.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse,
    TxnResponse,
};

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::connection::Trouble;
use super::{Inner, place};
use crate::store::{Change, Generation, MadeBefore, Mark, Once, Precondition, StoreError};
use crate::unique;

/// The most changes of one transaction: etcd takes 128 operations, and fence and mark are two.
const MOST_CHANGES: usize = 126;
/// The most bytes of one transaction: etcd takes one and a half times as many.
const MOST_BYTES: usize = 1 << 20;
/// How many parts are written at once where the order does not matter.
const AT_ONCE: usize = 16;
/// How often a commit without precondition is tried again because somebody else was faster.
const ATTEMPTS: usize = 100;

/// How long it is known that an order was carried out, in seconds: a day at least.
const MARK_STAYS: i64 = 25 * 3600;
/// How long new marks hang on the same lease.
const MARK_LEASE: Duration = Duration::from_secs(3600);

/// A mark on its way into the store.
struct Marking<'m> {
    mark: &'m Mark,
    key: String,
    lease: i64,
}

/// What a transaction came to that was not made.
enum Unmade {
    /// Something moved: this is the newest generation of what was asked about.
    Moved(Generation),
    /// It was made before.
    Before(MadeBefore),
}

/// What stood in the fence and in some keys.
struct Looked {
    /// The revision that wrote the fence last; 0 when nobody did.
    fence: Generation,
    /// The mark in the fence.
    mark: Vec<u8>,
    /// The newest revision of the fence and the keys.
    newest: Generation,
    found: HashMap<Vec<u8>, KeyValue>,
    /// The commit that left the mark before.
    before: Option<MadeBefore>,
}

/// Looks under way, see [`Inner::look_at_each`].
struct Looks {
    inner: Arc<Inner>,
    parts: std::vec::IntoIter<Vec<Change>>,
    looking: VecDeque<JoinHandle<Result<Seen, Trouble>>>,
}

/// A part, and what was in its keys.
type Seen = (Vec<Change>, Looked);

impl Looks {
    async fn next(&mut self) -> Option<Result<Seen, StoreError>> {
        while self.looking.len() < AT_ONCE
            && let Some(part) = self.parts.next()
        {
            let inner = self.inner.clone();
            self.looking.push_back(tokio::spawn(async move {
                let looked = inner.look(&part).await?;
                Ok((part, looked))
            }));
        }
        let looked = self.looking.pop_front()?.await;
        Some(match looked {
            Ok(looked) => looked.map_err(StoreError::from),
            Err(_) => Err(StoreError::Interrupted),
        })
    }
}

impl Inner {
    /// Parts are written in order, one after the other. What is in their keys is looked at before, for many at a time.
    pub(super) async fn commit(
        self: &Arc<Self>,
        changes: Vec<Change>,
        precondition: Precondition,
    ) -> Result<Generation, StoreError> {
        let changes = last_of_each(changes);
        let all = changes.len();
        let (mut made, mut generation, mut precondition) = (0, 0, precondition);
        let mut looks = self.look_at_each(parts(changes));
        while let Some(seen) = looks.next().await {
            let written = async {
                let (part, mut looked) = seen?;
                // The parts before this one moved it since.
                looked.fence = looked.fence.max(generation);
                let once = self.commit_looked(&part, precondition, None, looked);
                Ok::<_, StoreError>((part.len(), once.await?))
            };
            match written.await {
                Ok((
                    count,
                    Once::Made(reached)
                    | Once::Before(MadeBefore {
                        generation: reached,
                        ..
                    }),
                )) => {
                    (made, generation) = (made + count, reached);
                    if let Precondition::Unchanged(_) = precondition {
                        precondition = Precondition::Unchanged(reached);
                    }
                }
                Err(error) if made > 0 => {
                    return Err(StoreError::Partial {
                        made,
                        all,
                        generation,
                        detail: error.to_string(),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(generation)
    }

    /// As [`Inner::commit`], unless it was made with this mark before. The mark is in the last part: what was broken
    /// off is made again.
    pub(super) async fn commit_once(
        self: &Arc<Self>,
        changes: Vec<Change>,
        unchanged: Generation,
        mark: Mark,
    ) -> Result<Once, StoreError> {
        let mut parts = parts(last_of_each(changes));
        if parts.len() > 1
            && let Some(before) = self.made_before(&mark.name).await?
        {
            return Ok(Once::Before(before));
        }
        let last = parts.pop().unwrap_or_default();
        let mut unchanged = Precondition::Unchanged(unchanged);
        let before: Vec<Change> = parts.into_iter().flatten().collect();
        if !before.is_empty() {
            unchanged = Precondition::Unchanged(self.commit(before, unchanged).await?);
        }
        let marking = Marking {
            key: self.mark_key(&mark.name),
            lease: self.mark_lease().await?,
            mark: &mark,
        };
        let made = self.commit_part(&last, unchanged, Some(&marking)).await;
        if let Err(StoreError::Refused { .. } | StoreError::Away { .. }) = &made {
            // It may be the lease that is gone, as after a backup was restored.
            *self.mark_lease.lock().await = None;
        }
        made
    }

    /// The commit that left the mark of this name.
    pub(super) async fn made_before(&self, name: &str) -> Result<Option<MadeBefore>, Trouble> {
        let key = &self.mark_key(name);
        let asked = self
            .connection
            .ask(|mut client| async move { client.get(key.as_str(), None).await });
        Ok(asked.await?.kvs().first().map(made_before))
    }

    fn mark_key(&self, name: &str) -> String {
        format!("{}.orders/{name}", self.prefix.trim_end_matches('/'))
    }

    /// The lease that new marks hang on.
    async fn mark_lease(&self) -> Result<i64, Trouble> {
        let mut held = self.mark_lease.lock().await;
        if let Some((lease, granted)) = *held
            && granted.elapsed() < MARK_LEASE
        {
            return Ok(lease);
        }
        let granted = self
            .connection
            .ask(|mut client| async move { client.lease_grant(MARK_STAYS, None).await });
        let lease = granted.await?.id();
        *held = Some((lease, Instant::now()));
        Ok(lease)
    }

    async fn commit_part(
        &self,
        changes: &[Change],
        precondition: Precondition,
        marking: Option<&Marking<'_>>,
    ) -> Result<Once, StoreError> {
        let looked = self.look(changes).await?;
        self.commit_looked(changes, precondition, marking, looked)
            .await
    }

    /// [`Inner::commit_part`], with what was seen of its keys, maybe before other parts were written.
    async fn commit_looked(
        &self,
        changes: &[Change],
        precondition: Precondition,
        marking: Option<&Marking<'_>>,
        mut looked: Looked,
    ) -> Result<Once, StoreError> {
        for _ in 0..ATTEMPTS {
            if let Precondition::Unchanged(expected) = precondition
                && looked.newest > expected
            {
                return Err(StoreError::Moved {
                    expected,
                    found: looked.newest,
                });
            }
            let differing: Vec<&Change> = changes
                .iter()
                .filter(|change| self.differs(change, &looked))
                .collect();
            if differing.is_empty() && marking.is_none() {
                return Ok(Once::Made(match precondition {
                    Precondition::Unchanged(expected) => expected,
                    Precondition::Any => looked.newest,
                }));
            }
            let written = self.write(&differing, precondition, &looked, marking);
            match (written.await?, precondition) {
                (Ok(generation), _) => return Ok(Once::Made(generation)),
                (Err(Unmade::Before(before)), _) => return Ok(Once::Before(before)),
                (Err(Unmade::Moved(found)), Precondition::Unchanged(expected)) => {
                    return Err(StoreError::Moved { expected, found });
                }
                (Err(Unmade::Moved(_)), Precondition::Any) => {}
            }
            looked = self.look(changes).await?;
        }
        Err(StoreError::Away {
            detail: format!("others were faster {ATTEMPTS} times"),
        })
    }

    /// Writes without looking, many parts at a time; whoever looked before looks again.
    pub(super) async fn fill(
        self: Arc<Self>,
        changes: Vec<Change>,
    ) -> Result<Generation, StoreError> {
        let mut parts = parts(last_of_each(changes)).into_iter();
        let mut writing = JoinSet::new();
        loop {
            while writing.len() < AT_ONCE
                && let Some(part) = parts.next()
            {
                let inner = self.clone();
                writing.spawn(async move { inner.put_all(&part).await });
            }
            match writing.join_next().await {
                Some(Ok(written)) => written?,
                Some(Err(_)) => return Err(StoreError::Interrupted),
                None => break,
            }
        }
        let fence = &self.fence();
        let mark = &mark();
        let put = self
            .connection
            .ask(|mut client| async move { client.put(fence.as_str(), mark.as_str(), None).await });
        Ok(place(put.await?.header())?.revision)
    }

    async fn put_all(&self, changes: &[Change]) -> Result<(), Trouble> {
        let writes: Vec<TxnOp> = changes.iter().map(|change| self.write_of(change)).collect();
        let transaction = &Txn::new().and_then(writes);
        let asked = self
            .connection
            .ask(|mut client| async move { client.txn(transaction.clone()).await });
        asked.await.map(|_| ())
    }

    fn write_of(&self, change: &Change) -> TxnOp {
        match change {
            Change::Put { value, .. } => TxnOp::put(self.key(change), value.as_ref(), None),
            Change::Delete { .. } => TxnOp::delete(self.key(change), None),
        }
    }

    fn key(&self, change: &Change) -> String {
        format!("{}{}", self.prefix, change.key())
    }

    /// Whether the change would change anything.
    fn differs(&self, change: &Change, looked: &Looked) -> bool {
        let found = looked.found.get(self.key(change).as_bytes());
        match change {
            Change::Put { value, .. } => found.is_none_or(|kv| kv.value() != value.as_ref()),
            Change::Delete { .. } => found.is_some(),
        }
    }

    /// Looks at the keys of each part, of many parts at a time; the outcomes come in the order of the parts.
    fn look_at_each(self: &Arc<Self>, parts: Vec<Vec<Change>>) -> Looks {
        Looks {
            inner: self.clone(),
            parts: parts.into_iter(),
            looking: VecDeque::new(),
        }
    }

    async fn look(&self, changes: &[Change]) -> Result<Looked, Trouble> {
        let keys = || {
            changes
                .iter()
                .map(|change| TxnOp::get(self.key(change), None))
        };
        let gets: Vec<TxnOp> = std::iter::once(TxnOp::get(self.fence(), None))
            .chain(keys())
            .collect();
        let gets = &gets;
        let asked = self.connection.ask(|client| async move {
            let mut kv = client
                .kv_client()
                .max_decoding_message_size(super::pages::MOST_BYTES);
            kv.txn(Txn::new().and_then(gets.clone())).await
        });
        Ok(self.looked(&asked.await?, None))
    }

    fn looked(&self, answer: &TxnResponse, marking: Option<&Marking<'_>>) -> Looked {
        let fence = self.fence();
        let is_mark = |key: &[u8]| marking.is_some_and(|it| it.key.as_bytes() == key);
        let mut looked = Looked {
            fence: 0,
            mark: Vec::new(),
            newest: 0,
            found: HashMap::new(),
            before: None,
        };
        for response in answer.op_responses() {
            let TxnOpResponse::Get(got) = response else {
                continue;
            };
            for kv in GetResponse::kvs(&got) {
                if is_mark(kv.key()) {
                    looked.before = Some(made_before(kv));
                    continue;
                }
                let modified = kv.mod_revision().cast_unsigned();
                looked.newest = looked.newest.max(modified);
                if kv.key() == fence.as_bytes() {
                    looked.fence = modified;
                    looked.mark = kv.value().to_vec();
                } else {
                    looked.found.insert(kv.key().to_vec(), kv.clone());
                }
            }
        }
        looked
    }

    /// Writes, and says at which generation; or why not.
    async fn write(
        &self,
        changes: &[&Change],
        precondition: Precondition,
        looked: &Looked,
        marking: Option<&Marking<'_>>,
    ) -> Result<Result<Generation, Unmade>, Trouble> {
        let fence = self.fence();
        let mark = mark();
        let not_after = |key: &str, generation: Generation| {
            Compare::mod_revision(key, CompareOp::Less, (generation + 1).cast_signed())
        };
        let mut conditions: Vec<Compare> = match precondition {
            // Keys that differed would have moved beyond the generation, too.
            Precondition::Unchanged(generation) => {
                let keys = changes
                    .iter()
                    .map(|change| not_after(&self.key(change), generation));
                std::iter::once(not_after(&fence, generation))
                    .chain(keys)
                    .collect()
            }
            // So that a part that is sent again is not made again.
            Precondition::Any => vec![Compare::mod_revision(
                fence.as_str(),
                CompareOp::Equal,
                looked.fence.cast_signed(),
            )],
        };
        let mut writes = vec![TxnOp::put(fence.as_str(), mark.as_str(), None)];
        writes.extend(changes.iter().map(|change| self.write_of(change)));
        let keys_only = || Some(GetOptions::new().with_keys_only());
        let mut looks = vec![TxnOp::get(fence.as_str(), None)];
        looks.extend(
            changes
                .iter()
                .map(|change| TxnOp::get(self.key(change), keys_only())),
        );
        if let Some(Marking { mark, key, lease }) = marking {
            let absent = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
            conditions.push(absent);
            let value = serde_json::to_vec(mark).unwrap_or_default();
            let on_lease = PutOptions::new().with_lease(*lease);
            writes.push(TxnOp::put(key.as_str(), value, Some(on_lease)));
            looks.push(TxnOp::get(key.as_str(), None));
        }
        let transaction = &Txn::new().when(conditions).and_then(writes).or_else(looks);
        let asked = self
            .connection
            .ask(|mut client| async move { client.txn(transaction.clone()).await });
        let answer = asked.await?;
        if answer.succeeded() {
            return Ok(Ok(place(answer.header())?.revision));
        }
        let now = self.looked(&answer, marking);
        Ok(match (now.mark == mark.as_bytes(), now.before) {
            (true, _) => Ok(now.fence),
            (false, Some(before)) => Err(Unmade::Before(before)),
            (false, None) => Err(Unmade::Moved(now.newest)),
        })
    }
}

/// What a mark in the store tells.
fn made_before(kv: &KeyValue) -> MadeBefore {
    let mark = serde_json::from_slice(kv.value());
    MadeBefore {
        generation: kv.mod_revision().cast_unsigned(),
        keys: mark.map(|mark: Mark| mark.keys).unwrap_or_default(),
    }
}

/// The last change of each key, in order.
fn last_of_each(changes: Vec<Change>) -> Vec<Change> {
    let mut last: HashMap<String, usize> = HashMap::with_capacity(changes.len());
    for (index, change) in changes.iter().enumerate() {
        last.insert(change.key().to_owned(), index);
    }
    let indexed = changes.into_iter().enumerate();
    let kept = indexed.filter(|(index, change)| last.get(change.key()) == Some(index));
    kept.map(|(_, change)| change).collect()
}

/// Changes in parts that one transaction takes, at least one part.
fn parts(changes: Vec<Change>) -> Vec<Vec<Change>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for change in changes {
        let size = change.key().len()
            + match &change {
                Change::Put { value, .. } => value.len(),
                Change::Delete { .. } => 0,
            };
        let is_full = |part: &Vec<Change>| {
            part.len() == MOST_CHANGES || (!part.is_empty() && bytes + size > MOST_BYTES)
        };
        if parts.last().is_none_or(is_full) {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.push(change);
        }
    }
    parts
}

/// What a commit leaves in the fence.
fn mark() -> String {
    format!("{{\"commit\":\"{}\"}}", unique::name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, bytes: usize) -> Change {
        Change::Put {
            key: key.to_owned(),
            value: vec![b'x'; bytes].into(),
        }
    }

    fn delete(key: &str) -> Change {
        Change::Delete {
            key: key.to_owned(),
        }
    }

    #[test]
    fn of_several_changes_of_a_key_the_last_counts() {
        let changes = vec![
            put("a", 1),
            put("b", 1),
            delete("a"),
            put("c", 1),
            put("b", 2),
        ];
        assert_eq!(
            last_of_each(changes),
            [delete("a"), put("c", 1), put("b", 2)]
        );
    }

    #[test]
    fn parts_are_what_a_transaction_takes() {
        let sizes =
            |changes: Vec<Change>| -> Vec<usize> { parts(changes).iter().map(Vec::len).collect() };
        let many = |count: usize, bytes| (0..count).map(|n| put(&n.to_string(), bytes)).collect();
        for (changes, expected) in [
            (many(0, 0), vec![0]),
            (many(1, 1 << 21), vec![1]),
            (many(126, 10), vec![126]),
            (many(253, 10), vec![126, 126, 1]),
            (many(5, 500_000), vec![2, 2, 1]),
        ] {
            assert_eq!(sizes(changes), expected);
        }
    }
}
