//! Peers that are known by the prefix they connect from.

use std::net::IpAddr;

use bgp::{DynamicAsn, DynamicPeers, PeerConfig, Prefix, SessionState, Speaker, SpeakerConfig};
use tempfile::TempDir;

use super::keys::key_file;
use super::pair::{address, config, established, failed, knows, peer, until};

/// All addresses of a test.
fn prefix(test: u8) -> Prefix {
    Prefix::containing(address(test, 0), 16).unwrap()
}

/// A speaker that lets in whoever comes, with this password for all.
fn host(test: u8, limit: u32, change: impl FnOnce(&mut PeerConfig)) -> SpeakerConfig {
    let here = address(test, 1);
    let mut template = peer("tor", here, here, 1);
    template.local_address = None;
    change(&mut template);
    SpeakerConfig {
        dynamic: vec![DynamicPeers {
            limit,
            ..DynamicPeers::new(prefix(test), DynamicAsn::External, template)
        }],
        ..config(65001, here, Vec::new())
    }
}

/// A speaker that connects to the host.
fn guest(host: IpAddr, here: IpAddr, asn: u32, change: impl FnOnce(&mut PeerConfig)) -> Speaker {
    let mut to_host = peer("host", host, here, 65001);
    change(&mut to_host);
    Speaker::start(config(asn, here, vec![to_host])).unwrap()
}

async fn sessions(speaker: &Speaker) -> Vec<String> {
    let peers = speaker.peers().await.into_iter();
    peers
        .filter(|peer| peer.state == SessionState::Established)
        .map(|peer| peer.name.to_string())
        .collect()
}

#[tokio::test]
async fn one_password_holds_for_a_whole_prefix() {
    let directory = TempDir::new().unwrap();
    let right = key_file(directory.path(), "right", "swordfish");
    let wrong = key_file(directory.path(), "wrong", "sawfish");
    let with = |key: &std::path::Path| {
        let key = key.to_owned();
        move |peer: &mut PeerConfig| peer.password_file = Some(key)
    };
    let here = address(24, 1);
    let host = Speaker::start(host(24, 100, with(&right))).unwrap();
    let one = guest(here, address(24, 2), 65002, with(&right));
    established(&one).await;
    let other = guest(here, address(24, 3), 65003, with(&wrong));
    failed(&other, "that the peer has the same key").await;
    let expected = format!("tor-{}", address(24, 2));
    until(
        "sessions",
        || sessions(&host),
        |seen| *seen == [expected.as_str()],
    )
    .await;
    let route = bgp::Announcement::new("10.1.0.0/16".parse().unwrap());
    one.announce(vec![route]).await.unwrap();
    knows(&host, &["10.1.0.0/16"]).await;
    // Its routes go with its session.
    one.stop(bgp::Stop::KeepForwarding).await;
    knows(&host, &[]).await;
}

#[tokio::test]
async fn a_full_group_refuses_and_a_higher_limit_lets_in() {
    let here = address(25, 1);
    let mut host_config = host(25, 1, |_| {});
    let host = Speaker::start(host_config.clone()).unwrap();
    let one = guest(here, address(25, 2), 65002, |_| {});
    established(&one).await;
    let two = guest(here, address(25, 3), 65003, |_| {});
    failed(&two, "the peer closed the connection").await;
    assert_eq!(sessions(&host).await.len(), 1);
    host_config.dynamic[0].limit = 2;
    host.reconfigure(host_config).await.unwrap();
    established(&two).await;
    assert_eq!(established(&one).await.sessions, 1);
}
