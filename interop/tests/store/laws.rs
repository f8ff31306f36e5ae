//! What every store does, whatever it is made of.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ccn::store::{
    Change, Changed, Commit, Generation, Precondition, Snapshot, Store, StoreError, Stored, Watch,
    WatchEvent,
};
use tokio::time::timeout;

use super::Failure;

const SOON: Duration = Duration::from_secs(20);

type Outcome = Result<(), Failure>;
pub(crate) type Law = fn(Arc<dyn Store>) -> Pin<Box<dyn Future<Output = Outcome>>>;

/// Each is given a store of its own in which nothing was ever written.
pub(crate) const ALL: &[(&str, Law)] = &[
    ("generations", |store| Box::pin(generations(store))),
    ("preconditions", |store| Box::pin(preconditions(store))),
    ("one-record", |store| Box::pin(one_record(store))),
    ("watches", |store| Box::pin(watches(store))),
    ("counting", |store| Box::pin(counting(store))),
    ("large", |store| Box::pin(large(store))),
    ("history", |store| Box::pin(history(store))),
    ("one-moment", |store| Box::pin(one_moment(store))),
];

pub(crate) fn put(key: &str, value: impl AsRef<[u8]>) -> Change {
    Change::Put {
        key: key.to_owned(),
        value: value.as_ref().to_vec().into(),
    }
}

pub(crate) fn delete(key: &str) -> Change {
    Change::Delete {
        key: key.to_owned(),
    }
}

/// The next commit that a watch tells.
pub(crate) async fn next_commit(watch: &mut Watch) -> Result<Arc<Commit>, Failure> {
    match timeout(SOON, watch.next()).await? {
        Some(WatchEvent::Commit(commit)) => Ok(commit),
        other => Err(format!("a commit was expected, not {other:?}").into()),
    }
}

fn rows(snapshot: &Snapshot) -> Vec<(&str, Generation, Generation, &[u8])> {
    let row = |r: &'_ Stored| (r.created, r.modified);
    let records = snapshot.records.iter();
    let rows = records.map(|r| (r.key.as_str(), row(r).0, row(r).1, r.value.as_ref()));
    rows.collect()
}

/// Generations grow, a record says which created and which changed it, and what changes nothing is nothing.
async fn generations(store: Arc<dyn Store>) -> Outcome {
    let any = Precondition::Any;
    assert_eq!(store.load().await?.records, []);
    let one = store
        .commit(vec![put("vpcs/a", "1"), put("vpcs/b", "2")], any)
        .await?;
    let two = store.commit(vec![put("vpcs/a", "3")], any).await?;
    assert!(two > one, "{two} after {one}");
    let same = vec![put("vpcs/a", "3"), delete("vpcs/x")];
    assert_eq!(store.commit(same, any).await?, two, "nothing differs");
    assert_eq!(
        store.commit(vec![], any).await?,
        two,
        "nothing changes nothing"
    );
    let three = store.commit(vec![delete("vpcs/b")], any).await?;
    let four = store.commit(vec![put("vpcs/b", "4")], any).await?;
    assert!(four > three && three > two);
    let twice = vec![
        put("links/l", "5"),
        put("links/l", "6"),
        delete("vpcs/c"),
        put("vpcs/c", [0, 255]),
    ];
    let five = store.commit(twice, any).await?;
    let all = store.load().await?;
    let expected: Vec<(&str, Generation, Generation, &[u8])> = vec![
        ("links/l", five, five, b"6"),
        ("vpcs/a", one, two, b"3"),
        ("vpcs/b", four, four, b"4"),
        ("vpcs/c", five, five, &[0, 255]),
    ];
    assert_eq!(rows(&all), expected);
    assert!(all.generation >= five);
    Ok(())
}

/// A record by its key is what the whole store has there, and no older than what was told of it.
async fn one_record(store: Arc<dyn Store>) -> Outcome {
    let any = Precondition::Any;
    let key = || "vpcs/a".to_owned();
    let start = store.load().await?.generation;
    let mut watch = store.watch(start).await?;
    assert_eq!(store.get(key()).await?, None);
    store
        .commit(vec![put("vpcs/aa", "1"), put("vpcs", "2")], any)
        .await?;
    assert_eq!(store.get(key()).await?, None, "of another key");
    next_commit(&mut watch).await?;
    for number in 0..50 {
        let value = number.to_string();
        // The watch may tell before the commit is answered.
        let commit = store.commit(vec![put("vpcs/a", &value)], any);
        let told = async {
            let told = next_commit(&mut watch).await?;
            let got = store.get(key()).await?.ok_or("it is there")?;
            assert_eq!(got.modified, told.generation);
            assert_eq!(got.value.as_ref(), value.as_bytes());
            Ok::<_, Failure>(())
        };
        let (committed, told) = tokio::join!(commit, told);
        committed?;
        told?;
    }
    let all = store.load().await?;
    let record = all.records.into_iter().find(|record| record.key == key());
    assert_eq!(store.get(key()).await?, record);
    store.commit(vec![delete("vpcs/a")], any).await?;
    assert_eq!(store.get(key()).await?, None);
    Ok(())
}

/// Who has not seen the last commit changes nothing.
async fn preconditions(store: Arc<dyn Store>) -> Outcome {
    let start = store.load().await?.generation;
    let one = store
        .commit(vec![put("vpcs/a", "1")], Precondition::Unchanged(start))
        .await?;
    for changes in [
        vec![put("vpcs/b", "2")],
        vec![put("vpcs/a", "2")],
        vec![delete("vpcs/a")],
        vec![put("vpcs/a", "1")],
        vec![],
    ] {
        match store
            .commit(changes.clone(), Precondition::Unchanged(start))
            .await
        {
            Err(StoreError::Moved { expected, found }) => {
                assert_eq!((expected, found), (start, one))
            }
            other => return Err(format!("{changes:?}: {other:?}").into()),
        }
    }
    let all = store.load().await?;
    assert_eq!(rows(&all), [("vpcs/a", one, one, b"1".as_slice())]);
    let none = store
        .commit(
            vec![put("vpcs/a", "1")],
            Precondition::Unchanged(all.generation),
        )
        .await?;
    assert_eq!(none, all.generation, "nothing differs");
    let two = store
        .commit(vec![delete("vpcs/a")], Precondition::Unchanged(one))
        .await?;
    assert!(two > one);
    Ok(())
}

/// A watch tells every commit after its generation, whole and in order.
async fn watches(store: Arc<dyn Store>) -> Outcome {
    let any = Precondition::Any;
    let start = store.load().await?.generation;
    let one = store.commit(vec![put("vpcs/a", "1")], any).await?;
    let mut early = store.watch(start).await?;
    let mut late = store.watch(one).await?;
    let two = store
        .commit(
            vec![put("vpcs/a", "2"), delete("vpcs/z"), put("vpcs/b", "1")],
            any,
        )
        .await?;
    let three = store.commit(vec![delete("vpcs/a")], any).await?;
    let stored = |key: &str, created, modified, value: &'static [u8]| {
        Changed::Put(Stored {
            key: key.to_owned(),
            created,
            modified,
            value: value.into(),
        })
    };
    let gone = Changed::Deleted {
        key: "vpcs/a".to_owned(),
    };
    let first = (one, vec![stored("vpcs/a", one, one, b"1")]);
    let rest = [
        (
            two,
            vec![
                stored("vpcs/a", one, two, b"2"),
                stored("vpcs/b", two, two, b"1"),
            ],
        ),
        (three, vec![gone]),
    ];
    let expect = |watch: Watch, commits: Vec<(Generation, Vec<Changed>)>| async move {
        let mut watch = watch;
        for (generation, changes) in commits {
            let commit = next_commit(&mut watch).await?;
            assert_eq!((commit.generation, &commit.changes), (generation, &changes));
        }
        Ok::<_, Failure>(())
    };
    let all = [vec![first], rest.to_vec()].concat();
    early = {
        expect(early, all).await?;
        store.watch(three).await?
    };
    expect(
        std::mem::replace(&mut late, store.watch(three).await?),
        rest.to_vec(),
    )
    .await?;
    // And it waits for what is not there yet.
    let waiting = tokio::spawn(async move {
        next_commit(&mut early)
            .await
            .map(|commit| commit.generation)
    });
    let four = store.commit(vec![put("vpcs/c", "1")], any).await?;
    assert_eq!(timeout(SOON, waiting).await???, four);
    assert_eq!(next_commit(&mut late).await?.generation, four);
    Ok(())
}

/// Many that read, change and write lose nobody's change.
async fn counting(store: Arc<dyn Store>) -> Outcome {
    const TASKS: u32 = 4;
    const EACH: u32 = 10;
    async fn count(store: Arc<dyn Store>) -> Result<u32, Failure> {
        let (mut counted, mut refused) = (0, 0);
        while counted < EACH {
            let now = store.load().await?;
            let value = now
                .records
                .first()
                .map(|record| String::from_utf8_lossy(&record.value).parse::<u32>());
            let next = value.transpose()?.unwrap_or(0) + 1;
            let change = vec![put("vpcs/counter", next.to_string())];
            match store
                .commit(change, Precondition::Unchanged(now.generation))
                .await
            {
                Ok(_) => counted += 1,
                Err(StoreError::Moved { .. }) => refused += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(refused)
    }
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| tokio::spawn(count(store.clone())))
        .collect();
    let mut refused = 0;
    for task in tasks {
        refused += task.await??;
    }
    println!("refused {refused} times");
    let all = store.load().await?;
    assert_eq!(all.records.len(), 1);
    assert_eq!(all.records[0].value, (TASKS * EACH).to_string());
    Ok(())
}

/// Many changes at once, many records, and large ones.
async fn large(store: Arc<dyn Store>) -> Outcome {
    let start = store.load().await?.generation;
    let mut watch = store.watch(start).await?;
    let many: Vec<Change> = (0..3000)
        .map(|n| put(&format!("vms/v/{n:05}"), format!("{{\"n\":{n}}}")))
        .collect();
    let end = store
        .commit(many.clone(), Precondition::Unchanged(start))
        .await?;
    let mut told = Vec::new();
    while told.len() < many.len() {
        told.extend(next_commit(&mut watch).await?.changes.clone());
    }
    let keys = told.iter().map(|changed| match changed {
        Changed::Put(stored) => stored.key.as_str(),
        Changed::Deleted { key } => key,
    });
    assert!(keys.eq(many.iter().map(Change::key)), "told in their order");
    let mut huge: Vec<Change> = (0..3)
        .map(|n| put(&format!("vms/w/{n}"), vec![b'x'; 1 << 20]))
        .collect();
    store
        .commit(std::mem::take(&mut huge), Precondition::Unchanged(end))
        .await?;
    let mut reading = store.read().await?;
    let mut last = String::new();
    let mut count = 0;
    while let Some(part) = reading.next().await {
        for row in part?.rows() {
            assert!(row.key > last.as_str(), "{} after {last}", row.key);
            row.key.clone_into(&mut last);
            count += 1;
        }
    }
    assert_eq!(count, 3003);
    Ok(())
}

/// After any changes, what is read is what they come to, and so is what was told.
async fn history(store: Arc<dyn Store>) -> Outcome {
    let start = store.load().await?.generation;
    let mut watch = store.watch(start).await?;
    let mut seed = 11u64;
    let mut random = |below: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut model: BTreeMap<String, (Generation, Generation, String)> = BTreeMap::new();
    let mut last = start;
    for round in 0..150 {
        let mut changes = BTreeMap::new();
        for _ in 0..random(4) {
            let key = format!("vpcs/{}", random(12));
            let value = random(3).checked_sub(1).map(|value| value.to_string());
            changes.insert(key, value);
        }
        let differ = changes
            .iter()
            .any(|(key, value)| model.get(key).map(|row| &row.2) != value.as_ref());
        let asked = changes.iter().map(|(key, value)| match value {
            Some(value) => put(key, value),
            None => delete(key),
        });
        let asked = asked.collect();
        let precondition = match random(2) {
            0 => Precondition::Any,
            _ => Precondition::Unchanged(last),
        };
        let generation = store.commit(asked, precondition).await?;
        assert_eq!(generation > last, differ, "round {round}");
        last = last.max(generation);
        for (key, value) in changes {
            match value {
                None => {
                    model.remove(&key);
                }
                Some(value) if model.get(&key).is_some_and(|row| row.2 == value) => {}
                Some(value) => {
                    let created = model.get(&key).map_or(generation, |row| row.0);
                    model.insert(key, (created, generation, value));
                }
            }
        }
    }
    let expected: Vec<_> = model
        .iter()
        .map(|(key, (c, m, value))| (key.as_str(), *c, *m, value.as_bytes()))
        .collect();
    let all = store.load().await?;
    assert_eq!(rows(&all), expected, "what is read");
    let mut told: BTreeMap<String, Stored> = BTreeMap::new();
    let mut heard = start;
    while heard < last {
        let commit = next_commit(&mut watch).await?;
        assert!(commit.generation > heard && !commit.changes.is_empty());
        heard = commit.generation;
        for changed in &commit.changes {
            match changed {
                Changed::Put(stored) => {
                    told.insert(stored.key.clone(), stored.clone());
                }
                Changed::Deleted { key } => {
                    assert!(told.remove(key).is_some(), "{key} was not there")
                }
            }
        }
    }
    let records = told.into_values().collect();
    let generation = all.generation;
    assert_eq!(
        rows(&Snapshot {
            generation,
            records
        }),
        expected,
        "what was told"
    );
    Ok(())
}

/// A reading is of one moment, whatever is written while it is read.
async fn one_moment(store: Arc<dyn Store>) -> Outcome {
    const RECORDS: usize = 12_000;
    let fill = |value: &str| -> Vec<Change> {
        (0..RECORDS)
            .map(|n| put(&format!("vms/v/{n:05}"), value))
            .collect()
    };
    // More than one part.
    let value = "old".repeat(100);
    store.commit(fill(&value), Precondition::Any).await?;
    let mut reading = store.read().await?;
    let first = reading.next().await.ok_or("there are records")??;
    let ends = [
        format!("vms/v/{:05}", 0),
        format!("vms/v/{:05}", RECORDS - 1),
    ];
    store
        .commit(
            ends.iter().map(|key| put(key, "new")).collect(),
            Precondition::Any,
        )
        .await?;
    let mut count = 0;
    let mut next = Some(Ok(first));
    while let Some(part) = next {
        for row in part?.rows() {
            assert_eq!(row.value, value.as_bytes(), "of another moment");
            count += 1;
        }
        next = reading.next().await;
    }
    assert_eq!(count, RECORDS);
    let now = store.load().await?;
    assert_eq!(now.records[0].value, "new");
    Ok(())
}
