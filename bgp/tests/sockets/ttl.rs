//! GTSM (RFC 5082) and TTLs. Packets to a loopback address lose no TTL on their way.

use bgp::PeerConfig;

use super::pair::{established, failed, pair, status};

type Change = Box<dyn FnOnce(&mut PeerConfig)>;

fn secured(hops: u8) -> Change {
    Box::new(move |peer| peer.ttl_security = Some(hops))
}

#[tokio::test]
async fn gtsm_on_both_sides_makes_a_session() {
    let [(first, _), (second, _)] = pair(8, [secured(1), secured(1)]);
    established(&first).await;
    established(&second).await;
}

#[tokio::test]
async fn gtsm_on_one_side_makes_none_and_the_error_says_so() {
    let [(first, _), (second, _)] = pair(9, [secured(1), Box::new(|_| {})]);
    // The side without it hears the other, and is not heard.
    let theirs = failed(&second, "if the peer has GTSM").await;
    assert_eq!(theirs.sessions, 0);
    assert_eq!(status(&first).await.sessions, 0);
}

#[tokio::test]
async fn a_peer_that_sends_with_a_lower_ttl_is_too_far_away() {
    // 254 hops away at most: a TTL of 2 is enough, 1 is not.
    let far = |hops: u8| -> Change { Box::new(move |peer| peer.multihop = Some(hops)) };
    let [(first, _), _second] = pair(10, [secured(254), far(2)]);
    established(&first).await;
    let [(first, _), (second, _)] = pair(11, [secured(254), far(1)]);
    failed(&second, "GTSM").await;
    assert_eq!(status(&first).await.sessions, 0);
}
