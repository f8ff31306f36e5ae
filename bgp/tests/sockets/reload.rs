//! New configurations on a running speaker.

use std::net::SocketAddr;

use bgp::{PeerError, ReconfigureError, SessionState, StartError};

use super::pair::{PORT, address, config, established, failed, pair, peer, status, until};

type Nothing = fn(&mut bgp::PeerConfig);
const NOTHING: Nothing = |_| {};

#[tokio::test]
async fn peers_and_listening_addresses_come_and_go() {
    let [(first, mut ours), (second, theirs)] = pair(28, [NOTHING, NOTHING]);
    established(&first).await;
    established(&second).await;
    // Another peer, and another address to listen at.
    let (here, third) = (address(28, 3), address(28, 0));
    ours.listen.push(SocketAddr::new(here, PORT));
    ours.peers.push(peer("c", third, here, 65003));
    let done = first.reconfigure(ours.clone()).await.unwrap();
    assert_eq!(done.added, ["c"]);
    let mut passive = peer("a", here, third, 65001);
    passive.hold_time = 90;
    let guest = bgp::Speaker::start(config(65003, third, vec![passive])).unwrap();
    established(&guest).await;
    // Gone again.
    ours.listen.pop();
    ours.peers.pop();
    let done = first.reconfigure(ours.clone()).await.unwrap();
    assert_eq!(done.removed, ["c"]);
    failed(&guest, "it no longer has us as a neighbor").await;
    failed(&guest, "cannot connect").await;
    // Nothing of this touched the first session.
    assert_eq!(established(&first).await.sessions, 1);
    assert_eq!(status(&second).await.sessions, 1);
    drop(theirs);
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_nothing_changes() {
    let [(first, ours), (_second, _)] = pair(29, [NOTHING, NOTHING]);
    established(&first).await;
    let mut wrong = ours.clone();
    wrong.peers.push(wrong.peers[0].clone());
    let error = first.reconfigure(wrong).await.unwrap_err();
    assert!(
        matches!(error, ReconfigureError::Refused(StartError::Config(_))),
        "{error}"
    );
    let mut elsewhere = ours;
    elsewhere.listen = vec!["192.0.2.1:17910".parse().unwrap()];
    elsewhere.peers.clear();
    let error = first.reconfigure(elsewhere).await.unwrap_err();
    assert!(
        error.to_string().contains("no interface has this address"),
        "{error}"
    );
    assert_eq!(established(&first).await.sessions, 1);
}

#[tokio::test]
async fn routes_are_asked_for_again() {
    let [(first, _), (second, _)] = pair(30, [NOTHING, NOTHING]);
    established(&first).await;
    established(&second).await;
    let before = status(&second).await.messages_in;
    first.refresh_peer("b").await.unwrap();
    until(
        "request",
        || status(&second),
        |peer| peer.messages_in > before,
    )
    .await;
    let unknown = first.refresh_peer("x").await;
    assert!(matches!(unknown, Err(PeerError::Unknown(name)) if name == "x"));
    first
        .set_peer_admin("b", false, Some("disk swap"))
        .await
        .unwrap();
    failed(&second, "administrative shutdown (6/2) \"disk swap\"").await;
    let down = first.refresh_peer("b").await.unwrap_err().to_string();
    assert!(down.contains("has no session"), "{down}");
    assert_ne!(status(&first).await.state, SessionState::Established);
}
