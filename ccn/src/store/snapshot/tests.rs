use std::time::Instant;

use super::*;
use crate::store::{Reading, Row, Snapshot, Stored};

const SOON: Duration = Duration::from_secs(20);

fn place(revision: Generation) -> Place {
    Place {
        cluster: 7,
        term: 2,
        revision,
        fence: Some(Fence {
            revision: 2,
            mark: u64::MAX,
        }),
    }
}

fn stored(key: &str, modified: Generation, value: &'static str) -> Stored {
    Stored {
        key: key.to_owned(),
        created: 1,
        modified,
        value: value.into(),
    }
}

fn part(records: &[Stored]) -> Part {
    let mut part = Part::default();
    for record in records {
        part.push(Row {
            key: &record.key,
            created: record.created,
            modified: record.modified,
            value: &record.value,
        });
    }
    part
}

fn commit(generation: Generation, changes: Vec<Changed>) -> Arc<Commit> {
    Arc::new(Commit {
        generation,
        changes,
    })
}

/// Opens it, once the writer before has let go of it.
async fn open(path: &Path) -> (LocalSnapshot, Option<Kept>) {
    let begun = Instant::now();
    loop {
        match LocalSnapshot::open(path) {
            Err(StoreError::InUse { .. }) if begun.elapsed() < SOON => {
                tokio::task::yield_now().await
            }
            opened => return opened.expect("it opens"),
        }
    }
}

async fn content(path: &Path) -> Option<(Place, Snapshot)> {
    // What is read ends with the file.
    let (_snapshot, kept) = open(path).await;
    let kept = kept?;
    let (writing, reading) = Reading::new(kept.place.revision);
    tokio::task::spawn_blocking(move || kept.rows.pour(writing));
    Some((kept.place, reading.snapshot().await.expect("it is whole")))
}

#[tokio::test]
async fn readings_replace_it_and_commits_are_added() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (snapshot, kept) = open(&path).await;
    assert!(kept.is_none(), "nothing was kept yet");
    assert_eq!(snapshot.health(), SnapshotHealth::default());
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|key| stored(key, 3, "1"));
    snapshot.begin(place(3)).await;
    snapshot.part(part(&[a.clone(), b.clone()])).await;
    snapshot.part(part(&[c.clone(), d])).await;
    // Heard while it is read: one that the reading has, and one that it has not.
    let gone = |key: &str| Changed::Deleted {
        key: key.to_owned(),
    };
    snapshot.commit(place(2), commit(2, vec![gone("a")])).await;
    snapshot.commit(place(4), commit(4, vec![gone("b")])).await;
    snapshot.finish().await;
    let later = stored("e", 5, "2");
    snapshot
        .commit(place(5), commit(5, vec![Changed::Put(later.clone())]))
        .await;
    snapshot.current(place(9)).await;
    drop(snapshot);
    let (at, all) = content(&path).await.expect("it is kept");
    assert_eq!(at, place(9));
    assert_eq!(all.records, [a.clone(), c, stored("d", 3, "1"), later]);

    // Another reading: what it does not have is gone, wherever it stood.
    let (snapshot, _) = open(&path).await;
    let changed = stored("d", 11, "4");
    snapshot.begin(place(11)).await;
    snapshot
        .part(part(&[stored("Z", 10, "3"), a.clone()]))
        .await;
    snapshot.part(part(std::slice::from_ref(&changed))).await;
    snapshot.finish().await;
    drop(snapshot);
    let (at, all) = content(&path).await.expect("it is kept");
    assert_eq!(at, place(11));
    assert_eq!(all.records, [stored("Z", 10, "3"), a, changed]);
}

#[tokio::test]
async fn half_a_reading_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (snapshot, _) = open(&path).await;
    let a = stored("a", 3, "1");
    snapshot.begin(place(3)).await;
    snapshot.part(part(std::slice::from_ref(&a))).await;
    snapshot.finish().await;
    snapshot.begin(place(8)).await;
    snapshot.part(part(&[stored("b", 8, "2")])).await;
    snapshot
        .commit(place(9), commit(9, vec![Changed::Put(stored("c", 9, "3"))]))
        .await;
    snapshot.abandon().await;
    snapshot.begin(place(10)).await;
    snapshot.part(part(&[stored("z", 10, "2")])).await;
    drop(snapshot);
    let (at, all) = content(&path).await.expect("it is kept");
    assert_eq!(at, place(9), "what was heard meanwhile is there");
    assert_eq!(all.records, [a, stored("c", 9, "3")]);
}

#[tokio::test]
async fn a_damaged_snapshot_is_said_to_be_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    std::fs::write(&path, "not a snapshot\n".repeat(500)).unwrap();
    let error = LocalSnapshot::open(&path).expect_err("it is none");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}
