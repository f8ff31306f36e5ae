//! What the core makes of where a connection comes from, and of silence on it.

use super::*;
use crate::config::InterfaceName;

#[test]
fn a_link_local_peer_is_known_on_its_interface_only() {
    let link_local = |name: &str, interface: &str| PeerConfig {
        address: "fe80::2".parse().unwrap(),
        interface: Some(interface.parse().unwrap()),
        ..peer(name, A, 65002)
    };
    let peers = vec![link_local("a", "eth0"), link_local("b", "eth1")];
    let mut bench = Bench::new(config(peers));
    let from: SocketAddr = "[fe80::2%7]:40000".parse().unwrap();
    let to: SocketAddr = "[fe80::1%7]:179".parse().unwrap();
    let mut accept = |interface: Option<&str>| {
        let interface: Option<InterfaceName> = interface.map(|name| name.parse().unwrap());
        let now = bench.now;
        let id = bench.core.accepted_on(from, to, interface.as_ref(), now)?;
        bench.core.peer_name(id).map(ToString::to_string)
    };
    assert_eq!(accept(Some("eth0")).as_deref(), Some("a"));
    assert_eq!(accept(Some("eth1")).as_deref(), Some("b"));
    assert_eq!((accept(Some("eth2")), accept(None)), (None, None));
    assert_eq!(bench.core.refused_connections(), 2);
}

#[test]
fn a_peer_that_accepts_and_says_nothing_is_noted() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    bench.accept(A).unwrap();
    let silent = |bench: &Bench| {
        let notes = bench.core.peers(bench.now).remove(0).notes;
        notes
            .iter()
            .any(|note| note.contains("set ttl_security here"))
    };
    assert!(!silent(&bench));
    bench.pass(Duration::from_secs(6));
    assert!(silent(&bench));
}
