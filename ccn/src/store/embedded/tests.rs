use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use tokio::time::timeout;

use super::*;
use crate::store::file::FORMAT;
use crate::store::{Snapshot, WatchEvent};

fn put(key: &str, value: &str) -> Change {
    Change::Put {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

fn delete(key: &str) -> Change {
    Change::Delete {
        key: key.to_owned(),
    }
}

fn rows(snapshot: &Snapshot) -> Vec<(&str, u64, u64, &[u8])> {
    let row = |r: &'_ Stored| (r.created, r.modified);
    snapshot
        .records
        .iter()
        .map(|r| (r.key.as_str(), row(r).0, row(r).1, r.value.as_ref()))
        .collect()
}

#[tokio::test]
async fn generations_grow_and_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!(store.load().await.unwrap(), Snapshot::default());
    let any = Precondition::Any;
    assert_eq!(
        store
            .commit(vec![put("vpcs/a", "1"), put("vpcs/b", "2")], any)
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        store.commit(vec![put("vpcs/a", "3")], any).await.unwrap(),
        2
    );
    assert_eq!(
        store
            .commit(vec![put("vpcs/a", "3"), delete("vpcs/x")], any)
            .await
            .unwrap(),
        2
    );
    assert_eq!(
        store.commit(vec![], any).await.unwrap(),
        2,
        "nothing changes nothing"
    );
    assert_eq!(store.commit(vec![delete("vpcs/b")], any).await.unwrap(), 3);
    assert_eq!(
        store.commit(vec![put("vpcs/b", "4")], any).await.unwrap(),
        4
    );
    let moved = store
        .commit(vec![delete("vpcs/a")], Precondition::Unchanged(3))
        .await;
    assert!(
        matches!(
            moved,
            Err(StoreError::Moved {
                expected: 3,
                found: 4
            })
        ),
        "{moved:?}"
    );
    assert_eq!(
        store
            .commit(vec![put("links/l", "5")], Precondition::Unchanged(4))
            .await
            .unwrap(),
        5
    );
    let before = store.load().await.unwrap();
    drop(store);
    let after = EmbeddedStore::open(&path).unwrap().load().await.unwrap();
    assert_eq!(before, after);
    let expected: Vec<(&str, u64, u64, &[u8])> = vec![
        ("links/l", 5, 5, b"5"),
        ("vpcs/a", 1, 2, b"3"),
        ("vpcs/b", 4, 4, b"4"),
    ];
    assert_eq!((after.generation, rows(&after)), (5, expected));
}

#[tokio::test]
async fn a_watch_tells_what_each_commit_changed() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path().join("s")).unwrap();
    store
        .commit(vec![put("vpcs/a", "1")], Precondition::Any)
        .await
        .unwrap();
    let mut watch = store.watch(1).await.unwrap();
    store
        .commit(
            vec![put("vpcs/a", "2"), delete("vpcs/z")],
            Precondition::Any,
        )
        .await
        .unwrap();
    store
        .commit(vec![delete("vpcs/a")], Precondition::Any)
        .await
        .unwrap();
    let value = Bytes::from_static(b"2");
    let stored = Stored {
        key: "vpcs/a".into(),
        created: 1,
        modified: 2,
        value,
    };
    let gone = Changed::Deleted {
        key: "vpcs/a".into(),
    };
    for (generation, changes) in [(2, vec![Changed::Put(stored)]), (3, vec![gone])] {
        let commit = Arc::new(Commit {
            generation,
            changes,
        });
        assert_eq!(watch.next().await, Some(WatchEvent::Commit(commit)));
    }
    drop(store);
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn commits_from_many_tasks_come_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path().join("s")).unwrap();
    let mut watch = store.watch(0).await.unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..5 {
                    let change = put(&format!("vpcs/t{task}-{n}"), "{}");
                    store.commit(vec![change], Precondition::Any).await.unwrap();
                }
            })
        })
        .collect();
    for generation in 1..=20 {
        match watch.next().await {
            Some(WatchEvent::Commit(commit)) => assert_eq!(commit.generation, generation),
            other => panic!("generation {generation}: {other:?}"),
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn a_second_opener_is_told_who_holds_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let _first = EmbeddedStore::open(&path).unwrap();
    let error = EmbeddedStore::open(&path)
        .expect_err("it is in use")
        .to_string();
    assert!(error.contains(path.to_str().unwrap()), "{error}");
    assert!(error.contains("in use by"), "{error}");
    assert!(error.contains("stop that one"), "{error}");
}

#[test]
fn a_file_that_is_no_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.txt");
    std::fs::write(&path, "not a store at all\n".repeat(400)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = EmbeddedStore::open(&path).expect_err("no store");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let error = EmbeddedStore::open(dir.path().join("no/such/dir/s")).expect_err("no directory");
    assert!(
        error
            .to_string()
            .contains("no/such/dir/s: cannot be opened"),
        "{error}"
    );
}

#[tokio::test]
async fn a_later_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = EmbeddedStore::open(&path).unwrap();
    let write = store.inner.file.begin_write().unwrap();
    write
        .open_table(META)
        .unwrap()
        .insert("format", FORMAT + 1)
        .unwrap();
    write.commit().unwrap();
    drop(store);
    let error = EmbeddedStore::open(&path).expect_err("a later format");
    assert!(
        matches!(
            error,
            StoreError::Format {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error:?}"
    );
}

const FULL_STORE: &str = "CCN_TEST_FULL_STORE";
const CHILD_STORE: &str = "CCN_TEST_CHILD_STORE";

/// Not a test by itself: the child of the next one, killed while it writes.
#[test]
fn child_that_writes_until_killed() {
    let Some(path) = std::env::var_os(CHILD_STORE) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = EmbeddedStore::open(path).unwrap();
        let mut round = store.load().await.unwrap().generation;
        loop {
            round += 1;
            // Every round writes all ten keys alike: two that differ are a torn commit.
            let value = format!("{round}-{}", "x".repeat(2000));
            let changes = (0..10)
                .map(|n| put(&format!("vpcs/v{n}"), &value))
                .collect();
            let generation = store.commit(changes, Precondition::Any).await.unwrap();
            writeln!(std::io::stdout(), "\nacknowledged {generation}").unwrap();
        }
    });
}

#[tokio::test]
async fn kill_in_the_middle_of_writes_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let mut acknowledged = 0;
    for rounds in [1, 7, 20] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::embedded::tests::child_that_writes_until_killed",
            ])
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD_STORE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let target = acknowledged + rounds;
        let mut read = |until: u64, acknowledged: &mut u64| {
            while *acknowledged < until {
                let Some(Ok(line)) = lines.next() else { return };
                if let Some(generation) = line.strip_prefix("acknowledged ") {
                    *acknowledged = generation.parse().unwrap();
                }
            }
        };
        read(target, &mut acknowledged);
        child.kill().unwrap();
        child.wait().unwrap();
        // What it still said before it died counts as well.
        read(u64::MAX, &mut acknowledged);
        assert!(
            acknowledged >= target,
            "acknowledged {acknowledged} of {target}"
        );

        let store = EmbeddedStore::open(&path).unwrap();
        let snapshot = store.load().await.unwrap();
        assert!(
            (acknowledged..=acknowledged + 1).contains(&snapshot.generation),
            "acknowledged {acknowledged}, found {}",
            snapshot.generation
        );
        assert_eq!(snapshot.records.len(), 10);
        for record in &snapshot.records {
            assert_eq!(record.value, snapshot.records[0].value, "torn");
            assert_eq!(record.modified, snapshot.generation);
        }
        acknowledged = snapshot.generation;
    }
}

/// Tells on standard output what becomes of commits when the file may not grow any more.
#[test]
fn child_that_writes_until_the_disk_is_full() {
    let Some(path) = std::env::var_os(FULL_STORE) else {
        return;
    };
    // SAFETY: nothing is run when the signal comes: it is ignored.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = EmbeddedStore::open(&path).unwrap();
        let mut watch = store.watch(0).await.unwrap();
        for changes in [
            vec![put("vpcs/v0", &"x".repeat(1 << 20))],
            vec![delete("vpcs/v0")],
        ] {
            store.commit(changes, Precondition::Any).await.unwrap();
            watch.next().await.unwrap();
        }
        // There is room in the file now, so what is refused is to write what was decided.
        let most = 4096;
        setrlimit(Resource::RLIMIT_FSIZE, most, most).unwrap();
        let changes = vec![put("vpcs/v1", "1")];
        let error = store.commit(changes, Precondition::Any).await.unwrap_err();
        // It may have heard of the commit before; that it has to load again comes last.
        let heard = timeout(Duration::from_secs(10), async {
            while watch.next().await.unwrap() != WatchEvent::Lagged {}
        });
        heard.await.expect("it is told");
        writeln!(std::io::stdout(), "\nfull: {error}").unwrap();
    });
}

#[tokio::test]
async fn what_the_disk_refuses_is_recalled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::embedded::tests::child_that_writes_until_the_disk_is_full",
        ])
        .args(["--nocapture", "--test-threads=1"])
        .env(FULL_STORE, &path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("full: ") && output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let store = EmbeddedStore::open(&path).unwrap();
    let snapshot = store.load().await.unwrap();
    assert_eq!(
        (snapshot.generation, snapshot.records.len()),
        (2, 0),
        "{text}"
    );
}

#[tokio::test]
async fn a_damaged_file_is_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    for n in 0..20 {
        let changes = (0..20)
            .map(|k| put(&format!("vpcs/v{k}"), &"x".repeat(n * 10)))
            .collect();
        store.commit(changes, Precondition::Any).await.unwrap();
    }
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let mut seed = 7u64;
    let mut random = |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for round in 0..100 {
        let mut bad = good.clone();
        match round % 3 {
            0 => bad.truncate(random(good.len())),
            1 => (0..8).for_each(|_| bad[random(good.len())] ^= 1 << random(8)),
            _ => bad[random(512)] ^= 0xff,
        }
        let damaged = dir.path().join(format!("damaged-{round}"));
        std::fs::write(&damaged, &bad).unwrap();
        let Ok(store) = EmbeddedStore::open(&damaged) else {
            continue;
        };
        let _ = store.load().await;
        let _ = store
            .commit(
                vec![put("vpcs/a", "1"), delete("vpcs/v3")],
                Precondition::Any,
            )
            .await;
    }
}
