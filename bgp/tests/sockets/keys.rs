//! TCP-MD5 and TCP-AO.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bgp::config::TcpAo;
use bgp::{Announcement, PeerConfig, Speaker, StartError};
use tempfile::TempDir;

use super::pair::{address, config, established, failed, knows, pair, peer, status};

/// A file that holds this key and can be read by its owner only.
pub(crate) fn key_file(directory: &Path, name: &str, key: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, key).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

fn password(path: PathBuf) -> impl FnOnce(&mut PeerConfig) {
    move |peer| peer.password_file = Some(path)
}

#[tokio::test]
async fn equal_passwords_make_a_session() {
    let directory = TempDir::new().unwrap();
    // A newline at the end makes no difference.
    let a = key_file(directory.path(), "a", "swordfish\n");
    let b = key_file(directory.path(), "b", "swordfish");
    let [(first, _), (second, _)] = pair(0, [password(a), password(b)]);
    established(&first).await;
    established(&second).await;
}

#[tokio::test]
async fn different_passwords_make_none_and_the_error_names_the_key() {
    let directory = TempDir::new().unwrap();
    let a = key_file(directory.path(), "a", "swordfish");
    let b = key_file(directory.path(), "b", "sawfish");
    let [(first, _), (second, _)] = pair(1, [password(a), password(b)]);
    for speaker in [&first, &second] {
        let status = failed(speaker, "that the peer has the same key").await;
        assert_eq!(status.sessions, 0);
        // Nothing that an operator sees tells the key.
        assert!(!format!("{status:?}").contains("fish"));
    }
}

#[tokio::test]
async fn a_password_on_one_side_only_makes_no_session() {
    let directory = TempDir::new().unwrap();
    let a = key_file(directory.path(), "a", "swordfish");
    let with: Box<dyn FnOnce(&mut PeerConfig)> = Box::new(password(a));
    let without: Box<dyn FnOnce(&mut PeerConfig)> = Box::new(|_| {});
    let [(first, _), (second, _)] = pair(2, [with, without]);
    failed(&first, "that the peer has the same key").await;
    assert_eq!(failed(&second, "no answer").await.sessions, 0);
}

#[tokio::test]
async fn key_files_that_keep_no_secret_are_refused() {
    let directory = TempDir::new().unwrap();
    let path = key_file(directory.path(), "key", "swordfish");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let (a, b) = (address(3, 1), address(3, 2));
    let mut peer = peer("idc1", b, a, 65002);
    peer.password_file = Some(path);
    let error = Speaker::start(config(65001, a, vec![peer])).unwrap_err();
    assert!(matches!(error, StartError::Secret(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with("peer idc1: everybody may read"), "{text}");
    assert!(!text.contains("swordfish"));
}

/// Only the way without TCP-AO can be tried on a kernel without it; one that has it must start.
#[tokio::test]
async fn a_kernel_without_tcp_ao_is_named() {
    let directory = TempDir::new().unwrap();
    let (a, b) = (address(4, 1), address(4, 2));
    let mut peer = peer("idc1", b, a, 65002);
    peer.tcp_ao = Some(TcpAo {
        key_file: key_file(directory.path(), "key", "swordfish"),
        key_id: 1,
        recv_id: 2,
        algorithm: Default::default(),
    });
    let mut connecting = config(65001, a, vec![peer]);
    match Speaker::start(connecting.clone()) {
        Ok(_) => {}
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("this kernel has no TCP-AO"), "{text}");
            // Without a listening socket it shows when the connection is made.
            connecting.listen.clear();
            let speaker = Speaker::start(connecting).unwrap();
            failed(&speaker, "this kernel has no TCP-AO").await;
        }
    }
}

/// The kernel takes a new key on a connection that is open. Until both sides have it, segments are
/// dropped and sent again.
#[tokio::test]
async fn a_new_password_on_both_sides_keeps_the_session() {
    let directory = TempDir::new().unwrap();
    let files = [("a", 0), ("b", 1)].map(|(name, _)| key_file(directory.path(), name, "old"));
    let [a, b] = files.clone();
    let [(first, first_config), (second, second_config)] = pair(5, [password(a), password(b)]);
    established(&first).await;
    established(&second).await;
    for file in &files {
        fs::write(file, "new").unwrap();
    }
    for (speaker, config) in [(&first, first_config), (&second, second_config)] {
        let done = speaker.reconfigure(config).await.unwrap();
        assert_eq!(
            done,
            bgp::Reconfigured::default(),
            "nothing else is different"
        );
    }
    let route = Announcement::new("10.1.0.0/16".parse().unwrap());
    first.announce(vec![route]).await.unwrap();
    knows(&second, &["10.1.0.0/16"]).await;
    assert!(first.flushed(super::pair::PATIENCE).await.is_empty());
    for speaker in [&first, &second] {
        assert_eq!(established(speaker).await.sessions, 1);
    }
}

#[tokio::test]
async fn a_new_password_on_one_side_ends_the_session() {
    let directory = TempDir::new().unwrap();
    let [a, b] = ["a", "b"].map(|name| key_file(directory.path(), name, "old"));
    let [(first, config), (second, _)] = pair(6, [password(a.clone()), password(b)]);
    established(&first).await;
    established(&second).await;
    fs::write(&a, "new").unwrap();
    first.reconfigure(config).await.unwrap();
    failed(&second, "hold timer expired").await;
    failed(&first, "that the peer has the same key").await;
    assert_eq!(status(&first).await.sessions, 1);
}

#[tokio::test]
async fn a_bad_key_file_leaves_everything_as_it_was() {
    let directory = TempDir::new().unwrap();
    let [a, b] = ["a", "b"].map(|name| key_file(directory.path(), name, "old"));
    let [(first, config), (_second, _)] = pair(7, [password(a.clone()), password(b)]);
    established(&first).await;
    fs::write(&a, "").unwrap();
    let error = first.reconfigure(config).await.unwrap_err().to_string();
    assert!(error.contains("is empty"), "{error}");
    assert_eq!(established(&first).await.sessions, 1);
}
