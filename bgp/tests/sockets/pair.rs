//! Speakers on loopback addresses of their own, and waiting for what they come to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bgp::{
    ExportPolicy, ImportPolicy, PeerConfig, PeerStatus, SessionState, Speaker, SpeakerConfig,
};

pub(crate) use super::waiting::{PATIENCE, until};

pub(crate) const PORT: u16 = 17910;

/// An address that no other test and no other run of this test uses.
pub(crate) fn address(test: u8, host: u8) -> IpAddr {
    let pid = std::process::id();
    Ipv4Addr::new(127, 96 + test, (pid >> 6) as u8, (pid << 2) as u8 | host).into()
}

/// A peer that is tried often and exchanges everything.
pub(crate) fn peer(name: &str, address: IpAddr, local: IpAddr, asn: u32) -> PeerConfig {
    // Loopback addresses are no next hops, and each side needs another.
    let last = match local {
        IpAddr::V4(local) => local.octets()[3] & 3,
        IpAddr::V6(_) => 9,
    };
    PeerConfig {
        port: PORT,
        local_address: Some(local),
        hold_time: 3,
        connect_retry: Duration::from_millis(200),
        idle_hold: Duration::from_millis(200),
        idle_hold_max: Duration::from_secs(1),
        import: ImportPolicy::All,
        export: ExportPolicy::Local,
        next_hop_v4: Some(Ipv4Addr::new(192, 0, 2, last)),
        ..PeerConfig::new(name.parse().unwrap(), address, asn)
    }
}

pub(crate) fn config(asn: u32, listen: IpAddr, peers: Vec<PeerConfig>) -> SpeakerConfig {
    SpeakerConfig {
        listen: vec![SocketAddr::new(listen, PORT)],
        peers,
        ..SpeakerConfig::new(asn, Ipv4Addr::from_bits(0x0a00_0000 | asn))
    }
}

/// Two speakers that both connect; each `change` is made to the peer as that speaker has it.
pub(crate) fn pair(
    test: u8,
    changes: [impl FnOnce(&mut PeerConfig); 2],
) -> [(Speaker, SpeakerConfig); 2] {
    let (a, b) = (address(test, 1), address(test, 2));
    let configs = [
        (config(65001, a, vec![peer("b", b, a, 65002)])),
        (config(65002, b, vec![peer("a", a, b, 65001)])),
    ];
    let mut changes = changes.into_iter();
    configs.map(|mut config| {
        if let Some(change) = changes.next() {
            change(&mut config.peers[0]);
        }
        (Speaker::start(config.clone()).unwrap(), config)
    })
}

pub(crate) async fn status(speaker: &Speaker) -> PeerStatus {
    speaker.peers().await.remove(0)
}

pub(crate) async fn established(speaker: &Speaker) -> PeerStatus {
    until(
        "session",
        || status(speaker),
        |peer| peer.state == SessionState::Established,
    )
    .await
}

pub(crate) async fn failed(speaker: &Speaker, expected: &str) -> PeerStatus {
    let says = |peer: &PeerStatus| {
        peer.last_error
            .as_deref()
            .is_some_and(|error| error.contains(expected))
    };
    until(expected, || status(speaker), says).await
}

/// Waits until the speaker has learned exactly these prefixes.
pub(crate) async fn knows(speaker: &Speaker, prefixes: &[&str]) {
    let look = || async {
        let routes = speaker.routes().await.into_iter();
        routes
            .map(|route| route.prefix.to_string())
            .collect::<Vec<_>>()
    };
    until("routes", look, |seen| *seen == prefixes).await;
}
