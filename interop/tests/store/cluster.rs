//! What whoever watches the store of a cluster is told when the cluster breaks, forgets, or goes back.

use std::path::Path;
use std::time::Duration;

use ccn::store::etcd::EtcdStore;
use ccn::store::{Precondition, Restored, Store, StoreError, Watch, WatchEvent};
use interop::enter;
use interop::etcd::{Authority, Etcd};
use nix::sys::signal::Signal;
use tokio::time::timeout;

use super::laws::{next_commit, put};
use super::{Failure, config_of, runtime, start};

const SOON: Duration = Duration::from_secs(30);

async fn next(watch: &mut Watch) -> Result<WatchEvent, Failure> {
    let event = timeout(SOON, watch.next()).await?;
    event.ok_or_else(|| "the watch has ended".into())
}

/// A store that was read once, and a watch from there.
async fn watched(etcd: &Etcd, snapshot: &Path) -> Result<(EtcdStore, Watch), Failure> {
    let store = EtcdStore::open(config_of(etcd, snapshot, "c")?)?;
    store
        .commit(vec![put("vpcs/a", "1")], Precondition::Any)
        .await?;
    let all = store.load().await?;
    let watch = store.watch(all.generation).await?;
    Ok((store, watch))
}

/// Waits until it is back; meanwhile it may be away for other reasons than at first.
async fn await_back(watch: &mut Watch) -> Result<(), Failure> {
    loop {
        match next(watch).await? {
            WatchEvent::Back => return Ok(()),
            WatchEvent::Away(why) => println!("still away: {why}"),
            other => return Err(format!("{other:?}").into()),
        }
    }
}

#[test]
fn nothing_is_missed_over_a_restart_of_the_cluster() {
    enter::test(|lab| {
        let mut etcd = start(lab, 1)?;
        runtime()?.block_on(async {
            let (store, mut watch) = watched(&etcd, &lab.scratch().join("s")).await?;
            let (other, _) = watched(&etcd, &lab.scratch().join("o")).await?;
            let one = store
                .commit(vec![put("vpcs/a", "2")], Precondition::Any)
                .await?;
            assert_eq!(next_commit(&mut watch).await?.generation, one);
            etcd.kill_all();
            let WatchEvent::Away(why) = next(&mut watch).await? else {
                return Err("it is away".into());
            };
            println!("away: {why}");
            let refused = store
                .commit(vec![put("vpcs/a", "3")], Precondition::Any)
                .await;
            assert!(
                matches!(refused, Err(StoreError::Away { .. })),
                "{refused:?}"
            );
            etcd.start_all()?;
            let two = other
                .commit(vec![put("vpcs/b", "1")], Precondition::Any)
                .await?;
            await_back(&mut watch).await?;
            assert_eq!(next_commit(&mut watch).await?.generation, two);
            Ok(())
        })
    });
}

#[test]
fn a_lost_majority_is_told_and_one_lost_member_is_not() {
    enter::test(|lab| {
        let mut etcd = start(lab, 3)?;
        runtime()?.block_on(async {
            let (store, mut watch) = watched(&etcd, &lab.scratch().join("s")).await?;
            // Whichever it is connected to.
            for member in 0..3 {
                etcd.kill_member(member);
                let one = store
                    .commit(vec![put("vpcs/a", member.to_string())], Precondition::Any)
                    .await?;
                loop {
                    match next(&mut watch).await? {
                        WatchEvent::Commit(commit) => break assert_eq!(commit.generation, one),
                        WatchEvent::Away(why) => println!("for a moment: {why}"),
                        WatchEvent::Back => {}
                        other => return Err(format!("{other:?}").into()),
                    }
                }
                etcd.start_all()?;
            }
            let away = async {
                loop {
                    if let WatchEvent::Away(why) = next(&mut watch).await? {
                        break Ok::<_, Failure>(why);
                    }
                }
            };
            etcd.signal_member(0, Signal::SIGSTOP)?;
            etcd.kill_member(1);
            println!("without a majority: {}", away.await?);
            let refused = store
                .commit(vec![put("vpcs/a", "x")], Precondition::Any)
                .await;
            assert!(
                matches!(refused, Err(StoreError::Away { .. })),
                "{refused:?}"
            );
            etcd.signal_member(0, Signal::SIGCONT)?;
            etcd.start_all()?;
            let one = store
                .commit(vec![put("vpcs/b", "y")], Precondition::Any)
                .await?;
            await_back(&mut watch).await?;
            loop {
                // What was refused may have been made all the same: it said so.
                if next_commit(&mut watch).await?.generation == one {
                    break;
                }
            }
            Ok(())
        })
    });
}

#[test]
fn history_that_was_compacted_away_is_said_to_be_missed() {
    enter::test(|lab| {
        let etcd = start(lab, 1)?;
        runtime()?.block_on(async {
            let (store, watch) = watched(&etcd, &lab.scratch().join("s")).await?;
            drop(watch);
            let start = store.load().await?.generation;
            for value in ["2", "3", "4"] {
                store
                    .commit(vec![put("vpcs/a", value)], Precondition::Any)
                    .await?;
            }
            etcd.compact()?;
            let mut late = store.watch(start).await?;
            assert_eq!(next(&mut late).await?, WatchEvent::Lagged);
            let all = store.load().await?;
            assert_eq!(all.records[0].value, "4");
            let mut watch = store.watch(all.generation).await?;
            let one = store
                .commit(vec![put("vpcs/a", "5")], Precondition::Any)
                .await?;
            assert_eq!(next_commit(&mut watch).await?.generation, one);
            Ok(())
        })
    });
}

#[test]
fn an_older_backup_is_not_followed_until_it_is_said_to() {
    enter::test(|lab| {
        let mut etcd = start(lab, 1)?;
        runtime()?.block_on(async {
            let snapshot = lab.scratch().join("s");
            let (store, mut watch) = watched(&etcd, &snapshot).await?;
            let backup = lab.scratch().join("backup");
            etcd.back_up(&backup)?;
            let seen = store
                .commit(vec![put("vpcs/a", "2")], Precondition::Any)
                .await?;
            assert_eq!(next_commit(&mut watch).await?.generation, seen);
            etcd.restore(&backup)?;
            let restored = loop {
                match next(&mut watch).await? {
                    WatchEvent::Away(_) => {}
                    WatchEvent::Restored(restored) => break restored,
                    other => return Err(format!("{other:?}").into()),
                }
            };
            println!("{restored}");
            let Restored {
                seen: before,
                found,
                ..
            } = restored;
            assert!(before == seen && found < seen, "{restored:?}");
            let refused = store.load().await;
            assert!(
                matches!(refused, Err(StoreError::Restored(_))),
                "{refused:?}"
            );
            // Nor is it by a process that knows the former one from its snapshot only, and comes late.
            for value in 0..20 {
                etcd.put("c/vpcs/z", &value.to_string())?;
            }
            drop((store, watch));
            let again = loop {
                match EtcdStore::open(config_of(&etcd, &snapshot, "c")?) {
                    Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
                    opened => break opened?,
                }
            };
            let refused = again.load().await;
            assert!(
                matches!(refused, Err(StoreError::Restored(_))),
                "{refused:?}"
            );
            let known = again.last_known().await?.ok_or("a snapshot was kept")?;
            assert_eq!(known.reading.snapshot().await?.records[0].value, "2");
            again.follow_restored();
            assert_eq!(again.load().await?.records[0].value, "1");
            Ok(())
        })
    });
}

#[test]
fn certificates_and_rights_that_are_wrong_are_named() {
    enter::test(|lab| {
        let etcd = start(lab, 1)?;
        let strangers = Authority::new(lab.scratch(), "strangers")?;
        let good = config_of(&etcd, &lab.scratch().join("s"), "c")?;
        let stranger = strangers.sign("stranger")?;
        let expired = etcd.authority.sign_expired("expired")?;
        let with_identity = |identity: &interop::etcd::Identity| {
            let mut config = good.clone();
            if let Some(tls) = &mut config.tls {
                tls.identity = Some((identity.certificate.clone(), identity.key.clone()));
            }
            config
        };
        let mut other_ca = good.clone();
        if let Some(tls) = &mut other_ca.tls {
            tls.ca = strangers.certificate.clone();
        }
        let mut no_ca = good.clone();
        if let Some(tls) = &mut no_ca.tls {
            tls.ca = lab.scratch().join("no-such-file");
        }
        let mut other_root = good.clone();
        other_root.root = "/elsewhere".to_owned();
        let mut wrong_password = good.clone();
        let file = lab.scratch().join("wrong");
        std::fs::write(&file, "guessed\n")?;
        if let Some(login) = &mut wrong_password.login {
            login.password_file = file;
        }
        let mut nobody = good.clone();
        nobody.login = None;
        runtime()?.block_on(async {
            EtcdStore::without_snapshot(good.clone()).load().await?;
            for (case, config, named) in [
                (
                    "a certificate of somebody else",
                    with_identity(&stranger),
                    "connection",
                ),
                ("an expired one", with_identity(&expired), "connection"),
                (
                    "members that somebody else signed",
                    other_ca,
                    "UnknownIssuer",
                ),
                ("no file", no_ca, "no-such-file"),
                ("a root without rights", other_root, "permission denied"),
                ("a wrong password", wrong_password, "authentication failed"),
                (
                    "no user but the name in the certificate",
                    nobody,
                    "permission denied",
                ),
            ] {
                let error = match EtcdStore::without_snapshot(config).load().await {
                    Err(error) => error,
                    Ok(_) => return Err(format!("{case}: it was read").into()),
                };
                println!("{case}: {error}");
                assert!(error.is_passing(), "{case}: {error:?}");
                let said = error.to_string().to_lowercase();
                assert!(said.contains(&named.to_lowercase()), "{case}: {error}");
            }
            Ok(())
        })
    });
}

#[test]
fn what_others_write_without_asking_is_told_like_any_change() {
    enter::test(|lab| {
        let etcd = start(lab, 1)?;
        runtime()?.block_on(async {
            let (store, mut watch) = watched(&etcd, &lab.scratch().join("s")).await?;
            let before = store.load().await?.generation;
            etcd.put("c/vpcs/a", "theirs")?;
            let commit = next_commit(&mut watch).await?;
            assert_eq!(commit.changes.len(), 1, "{commit:?}");
            let late = store
                .commit(vec![put("vpcs/a", "ours")], Precondition::Unchanged(before))
                .await;
            match late {
                Err(StoreError::Moved { found, .. }) => assert_eq!(found, commit.generation),
                other => return Err(format!("{other:?}").into()),
            }
            etcd.put("elsewhere/x", "no business of ours")?;
            let ours = vec![put("vpcs/a", "ours")];
            let one = store
                .commit(ours, Precondition::Unchanged(commit.generation))
                .await?;
            assert_eq!(next_commit(&mut watch).await?.generation, one);
            Ok(())
        })
    });
}
