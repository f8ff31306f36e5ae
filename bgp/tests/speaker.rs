//! Two real speakers, or a speaker and a raw socket, over the loopback interface.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp::wire::{Capability, Message, Notification, Open, WireOptions, frame};
use bgp::{
    Announcement, Capabilities, Event, ExportPolicy, Family, GracefulRestart, ImportPolicy,
    PeerConfig, PeerError, PeerStatus, Prefix, SessionState, Speaker, SpeakerConfig, StartError,
    Stop, Stopped,
};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

mod waiting;

use waiting::{PATIENCE, until};

const PORT: u16 = 17900;

/// An address that no other test and no other run of this test uses.
fn address(test: u8, host: u8) -> IpAddr {
    let pid = std::process::id();
    Ipv4Addr::new(127, 64 + test, (pid >> 6) as u8, (pid << 2) as u8 | host).into()
}

fn peer(name: &str, address: IpAddr, local: IpAddr, asn: u32) -> PeerConfig {
    // Loopback addresses are no next hops.
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
        next_hop_v6: Some(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, last.into())),
        ..PeerConfig::new(name.parse().unwrap(), address, asn)
    }
}

fn config(asn: u32, listen: IpAddr, peers: Vec<PeerConfig>) -> SpeakerConfig {
    let router_id = match listen {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::from_bits(asn),
    };
    SpeakerConfig {
        listen: vec![SocketAddr::new(listen, PORT)],
        peers,
        ..SpeakerConfig::new(asn, router_id)
    }
}

async fn status(speaker: &Speaker) -> PeerStatus {
    speaker.peers().await.remove(0)
}

async fn established(speaker: &Speaker) -> PeerStatus {
    until(
        "session",
        || status(speaker),
        |peer| peer.state == SessionState::Established,
    )
    .await
}

async fn failed(speaker: &Speaker, expected: &str) -> PeerStatus {
    let says = |peer: &PeerStatus| {
        peer.last_error
            .as_deref()
            .is_some_and(|error| error.contains(expected))
    };
    until(expected, || status(speaker), says).await
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

async fn learned(speaker: &Speaker) -> BTreeSet<String> {
    speaker
        .routes()
        .await
        .into_iter()
        .map(|route| route.prefix.to_string())
        .collect()
}

async fn knows(speaker: &Speaker, prefixes: &[&str]) {
    let expected: BTreeSet<String> = prefixes.iter().map(|text| text.to_string()).collect();
    let look = || async {
        let notes: Vec<_> = speaker
            .peers()
            .await
            .into_iter()
            .flat_map(|peer| peer.notes)
            .collect();
        (learned(speaker).await, notes)
    };
    until("routes", look, |(seen, _)| *seen == expected).await;
}

/// Two speakers with a session between them: the first listens, the second connects.
async fn pair(test: u8) -> (Speaker, Speaker) {
    let (a, b) = (address(test, 1), address(test, 2));
    let passive = PeerConfig {
        passive: true,
        ..peer("b", b, a, 65002)
    };
    let first = Speaker::start(config(65001, a, vec![passive])).unwrap();
    let second = Speaker::start(config(65002, b, vec![peer("a", a, b, 65001)])).unwrap();
    established(&first).await;
    established(&second).await;
    (first, second)
}

fn announcements(prefixes: &[&str]) -> Vec<Announcement> {
    prefixes
        .iter()
        .map(|text| Announcement::new(prefix(text)))
        .collect()
}

#[tokio::test]
async fn two_speakers_exchange_routes() {
    let (a, b) = pair(0).await;
    a.announce(announcements(&["10.1.0.0/16", "fd01::/48"]))
        .await
        .unwrap();
    b.announce(announcements(&["10.2.0.0/16"])).await.unwrap();
    knows(&b, &["10.1.0.0/16", "fd01::/48"]).await;
    knows(&a, &["10.2.0.0/16"]).await;
    let route = b.routes().await.remove(0);
    assert_eq!(route.paths[0].peer, "a");
    assert_eq!(route.paths[0].next_hop.to_string(), "192.0.2.1");
    assert_eq!(route.paths[0].attributes.as_path.to_string(), "65001");
    let told = a.advertised().await;
    assert_eq!(told["b"].len(), 2);

    a.withdraw(vec![prefix("10.1.0.0/16"), prefix("10.99.0.0/16")])
        .await
        .unwrap();
    knows(&b, &["fd01::/48"]).await;
    // Many calls wait for one another, and everything arrives.
    let many: Vec<_> = (0..20_000u32)
        .map(|i| Announcement::new(Prefix::host(Ipv4Addr::from_bits(0x0b00_0000 + i).into())))
        .collect();
    a.announce(many).await.unwrap();
    assert!(a.flushed(PATIENCE).await.is_empty());
    until(
        "routes",
        || async { b.routes().await.len() },
        |count| *count == 20_001,
    )
    .await;
    let counts = status(&a).await.prefixes[&Family::Ipv4Unicast];
    assert_eq!((counts.advertised, counts.pending), (20_000, 0));

    // The passive side ends the session and says so.
    a.stop(Stop::Cease(Some("maintenance".into()))).await;
    let lost = failed(&b, "administrative shutdown (6/2) \"maintenance\"").await;
    assert_ne!(lost.state, SessionState::Established);
    knows(&b, &[]).await;
    assert_eq!(
        a.announce(announcements(&["10.1.0.0/16"])).await,
        Err(Stopped)
    );
    assert!(a.peers().await.is_empty());
    a.stop(Stop::KeepForwarding).await;
}

#[tokio::test]
async fn sessions_come_back_by_themselves() {
    let (a, b) = pair(1).await;
    a.announce(announcements(&["10.1.0.0/16"])).await.unwrap();
    knows(&b, &["10.1.0.0/16"]).await;
    a.stop(Stop::KeepForwarding).await;
    let lost = failed(&b, "the connection was lost").await;
    assert_eq!(lost.sessions, 1);
    let (address_a, address_b) = (address(1, 1), address(1, 2));
    let again = Speaker::start(config(
        65001,
        address_a,
        vec![peer("b", address_b, address_a, 65002)],
    ))
    .unwrap();
    until(
        "second session",
        || status(&b),
        |peer| peer.state == SessionState::Established && peer.sessions >= 2,
    )
    .await;
    knows(&b, &[]).await;
    again
        .announce(announcements(&["10.3.0.0/16"]))
        .await
        .unwrap();
    knows(&b, &["10.3.0.0/16"]).await;
    // The error of a lost session stays to be seen.
    failed(&b, "the connection was lost").await;
}

#[tokio::test]
async fn both_sides_may_connect_at_once() {
    let (a, b) = (address(2, 1), address(2, 2));
    let first = Speaker::start(config(65001, a, vec![peer("b", b, a, 65001)])).unwrap();
    let second = Speaker::start(config(65001, b, vec![peer("a", a, b, 65001)])).unwrap();
    established(&first).await;
    established(&second).await;
    first
        .announce(announcements(&["10.1.0.0/16"]))
        .await
        .unwrap();
    knows(&second, &["10.1.0.0/16"]).await;
    assert_eq!(
        second.routes().await[0].paths[0].attributes.local_pref,
        Some(100)
    );
}

#[tokio::test]
async fn ipv6_transport_carries_both_families() {
    // There is one IPv6 loopback address only: the sides differ by port.
    let port = || {
        let listener = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap().port()
    };
    let (port_a, port_b) = (port(), port());
    let here = IpAddr::from(Ipv6Addr::LOCALHOST);
    let at = |port| vec![SocketAddr::new(here, port)];
    let to_b = PeerConfig {
        port: port_b,
        ..peer("b", here, here, 65002)
    };
    let to_a = PeerConfig {
        port: port_a,
        passive: true,
        next_hop_v4: None,
        next_hop_v6: None,
        capabilities: Capabilities {
            ipv4_next_hop_v6: false,
            ..Capabilities::default()
        },
        ..peer("a", here, here, 65001)
    };
    let a = Speaker::start(SpeakerConfig {
        listen: at(port_a),
        ..config(65001, here, vec![to_b])
    });
    let b = Speaker::start(SpeakerConfig {
        listen: at(port_b),
        ..config(65002, here, vec![to_a])
    });
    let (a, b) = (a.unwrap(), b.unwrap());
    established(&a).await;
    a.announce(announcements(&["10.1.0.0/16", "fd01::/48"]))
        .await
        .unwrap();
    knows(&b, &["10.1.0.0/16", "fd01::/48"]).await;
    let hops: Vec<_> = b
        .routes()
        .await
        .iter()
        .map(|r| r.paths[0].next_hop.to_string())
        .collect();
    assert_eq!(hops, ["192.0.2.9", "fd99::9"]);
    let notes = established(&b).await.notes.join("\n");
    assert!(notes.contains("no ipv4 routes are told"), "{notes}");
}

#[tokio::test]
async fn a_wrong_as_is_named_on_both_sides() {
    let (a, b) = (address(3, 1), address(3, 2));
    let passive = PeerConfig {
        passive: true,
        ..peer("b", b, a, 65009)
    };
    let first = Speaker::start(config(65001, a, vec![passive])).unwrap();
    let second = Speaker::start(config(65002, b, vec![peer("a", a, b, 65001)])).unwrap();
    failed(
        &first,
        "peer says AS 65002, configured 65009: fix asn of peer b",
    )
    .await;
    failed(
        &second,
        "bad peer AS (2/2); it does not expect AS 65002 from us",
    )
    .await;
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_tried_again() {
    let (a, b) = (address(4, 1), address(4, 2));
    let second = Speaker::start(config(65002, b, vec![peer("a", a, b, 65001)])).unwrap();
    let status = failed(&second, "connection refused; check that BGP runs there").await;
    assert_eq!(status.sessions, 0);
    let passive = PeerConfig {
        passive: true,
        ..peer("b", b, a, 65002)
    };
    let first = Speaker::start(config(65001, a, vec![passive])).unwrap();
    established(&first).await;
    let status = established(&second).await;
    assert_eq!(status.last_error, None);
}

#[tokio::test]
async fn listening_where_it_cannot_says_what_to_do() {
    let a = address(5, 1);
    let _first = Speaker::start(config(65001, a, vec![])).unwrap();
    let error = Speaker::start(config(65001, a, vec![])).unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }));
    let text = error.to_string();
    let expected = format!("cannot listen on {a}:{PORT}: ");
    assert!(
        text.starts_with(&expected) && text.contains("another BGP daemon"),
        "{text}"
    );
    let elsewhere = IpAddr::from(Ipv4Addr::new(192, 0, 2, 77));
    let error = Speaker::start(config(65001, elsewhere, vec![]))
        .unwrap_err()
        .to_string();
    assert!(error.contains("no interface has this address"), "{error}");
    let error = Speaker::start(SpeakerConfig {
        asn: 0,
        ..config(1, a, vec![])
    })
    .unwrap_err();
    assert!(matches!(error, StartError::Config(_)), "{error}");
}

#[test]
fn a_speaker_needs_a_runtime() {
    let outcome = Speaker::start(config(65001, address(6, 1), vec![]));
    assert!(matches!(outcome, Err(StartError::NoRuntime)));
}

/// A connection from `from` to the speaker at `to`.
async fn connect(from: IpAddr, to: IpAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    socket.connect(SocketAddr::new(to, PORT)).await.unwrap()
}

/// The next message on a raw connection; `None`: closed.
async fn message(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<Message> {
    let options = WireOptions {
        four_octet_as: true,
        ..WireOptions::default()
    };
    tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(octets) = frame::split(buffer, &options).unwrap() {
                return Some(Message::decode(&octets, &options).unwrap().message);
            }
            if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    })
    .await
    .expect("no message in time")
}

async fn send(stream: &mut TcpStream, message: Message) {
    let octets = message.to_bytes(&WireOptions::default()).unwrap();
    stream.write_all(&octets).await.unwrap();
}

fn open(asn: u32, id: IpAddr) -> Message {
    let IpAddr::V4(id) = id else { panic!("{id}") };
    let capabilities = Family::ALL.map(Capability::multiprotocol).into();
    Message::Open(Open::new(asn, 90, id, capabilities))
}

#[tokio::test]
async fn connections_from_unconfigured_sources_are_closed_at_once() {
    let (a, b, stranger) = (address(7, 1), address(7, 2), address(7, 3));
    let passive = PeerConfig {
        passive: true,
        ..peer("b", b, a, 65002)
    };
    let speaker = Speaker::start(config(65001, a, vec![passive])).unwrap();
    for _ in 0..20 {
        let mut stream = connect(stranger, a).await;
        assert!(message(&mut stream, &mut BytesMut::new()).await.is_none());
    }
    assert_eq!(speaker.refused_connections().await, 20);
    // The configured one gets an OPEN.
    let mut stream = connect(b, a).await;
    let first = message(&mut stream, &mut BytesMut::new()).await;
    assert!(matches!(first, Some(Message::Open(_))), "{first:?}");
}

#[tokio::test]
async fn a_raw_peer_that_goes_silent_is_told_why_it_is_dropped() {
    let (a, b) = (address(8, 1), address(8, 2));
    let passive = PeerConfig {
        passive: true,
        ..peer("b", b, a, 65002)
    };
    let speaker = Speaker::start(config(65001, a, vec![passive])).unwrap();
    let (mut stream, mut buffer) = (connect(b, a).await, BytesMut::new());
    send(&mut stream, open(65002, b)).await;
    send(&mut stream, Message::Keepalive).await;
    established(&speaker).await;
    let start = Instant::now();
    let mut keepalives = 0;
    let last = loop {
        match message(&mut stream, &mut buffer).await {
            Some(Message::Keepalive) => keepalives += 1,
            Some(Message::Notification(notification)) => break notification,
            Some(_) => {}
            None => panic!("closed without a NOTIFICATION"),
        }
    };
    assert_eq!(last, Notification::hold_timer_expired());
    assert!(
        start.elapsed() >= Duration::from_millis(2900),
        "{:?}",
        start.elapsed()
    );
    assert!(keepalives >= 3, "{keepalives} keepalives");
    assert!(message(&mut stream, &mut buffer).await.is_none());
    failed(&speaker, "nothing was heard from the peer for 3 s").await;
}

/// One thread runs everything of the speaker, and it is kept busy beyond the hold time.
#[tokio::test(flavor = "current_thread")]
async fn a_peer_that_was_heard_is_not_silent_however_busy_we_are() {
    use std::io::Write;

    let (a, b) = (address(14, 1), address(14, 2));
    let passive = PeerConfig {
        passive: true,
        ..peer("b", b, a, 65002)
    };
    let speaker = Speaker::start(config(65001, a, vec![passive])).unwrap();
    let mut stream = connect(b, a).await;
    send(&mut stream, open(65002, b)).await;
    send(&mut stream, Message::Keepalive).await;
    established(&speaker).await;
    let keepalive = Message::Keepalive
        .to_bytes(&WireOptions::default())
        .unwrap();
    let mut stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let peer = std::thread::spawn({
        let done = done.clone();
        move || {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                // Fails when the speaker gives up on us, which is asserted below.
                let _ = stream.write_all(&keepalive);
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    });
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(3500));
        let status = established(&speaker).await;
        assert_eq!((status.sessions, status.last_error), (1, None));
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    peer.join().unwrap();
}

#[tokio::test]
async fn stopping_to_keep_forwarding_sends_no_notification() {
    let (a, b) = (address(9, 1), address(9, 2));
    let passive = PeerConfig {
        passive: true,
        ..peer("b", b, a, 65002)
    };
    let speaker = Speaker::start(SpeakerConfig {
        graceful_restart: Some(GracefulRestart {
            restart_time: Duration::from_secs(120),
            forwarding_preserved: true,
            restarting: false,
        }),
        ..config(65001, a, vec![passive])
    })
    .unwrap();
    let (mut stream, mut buffer) = (connect(b, a).await, BytesMut::new());
    send(&mut stream, open(65002, b)).await;
    send(&mut stream, Message::Keepalive).await;
    established(&speaker).await;
    speaker
        .announce(announcements(&["10.1.0.0/16"]))
        .await
        .unwrap();
    assert!(speaker.flushed(PATIENCE).await.is_empty());
    let stopping = tokio::spawn(async move { speaker.stop(Stop::KeepForwarding).await });
    let mut seen = Vec::new();
    while let Some(message) = message(&mut stream, &mut buffer).await {
        seen.push(message);
    }
    drop(stream);
    stopping.await.unwrap();
    let kinds: Vec<u8> = seen.iter().map(Message::kind).collect();
    assert!(!kinds.contains(&3), "{seen:?}");
    let updates = kinds.iter().filter(|kind| **kind == 2).count();
    assert_eq!(updates, 3, "a route and two End-of-RIBs: {seen:?}");
}

#[tokio::test]
async fn flushed_names_the_peer_that_does_not_read() {
    let (a, b, c) = (address(10, 1), address(10, 2), address(10, 3));
    let peers = vec![
        PeerConfig {
            passive: true,
            hold_time: 0,
            ..peer("b", b, a, 65002)
        },
        PeerConfig {
            passive: true,
            hold_time: 0,
            ..peer("c", c, a, 65003)
        },
    ];
    let speaker = Speaker::start(config(65001, a, peers)).unwrap();
    let (mut slow, mut fast) = (connect(b, a).await, connect(c, a).await);
    for (stream, asn, id) in [(&mut slow, 65002, b), (&mut fast, 65003, c)] {
        send(stream, open(asn, id)).await;
        send(stream, Message::Keepalive).await;
    }
    let reader = tokio::spawn(async move {
        let mut waste = vec![0; 1 << 16];
        while fast.read(&mut waste).await.is_ok_and(|count| count > 0) {}
    });
    until(
        "sessions",
        || speaker.peers(),
        |peers| {
            peers
                .iter()
                .all(|peer| peer.state == SessionState::Established)
        },
    )
    .await;
    // More than any socket buffer holds: every prefix with a MED of its own.
    for round in 0..6 {
        let routes = (0..40_000u32).map(|i| Announcement {
            med: Some(round * 100_000 + i),
            ..Announcement::new(Prefix::host(Ipv4Addr::from_bits(0x0b00_0000 + i).into()))
        });
        speaker.announce(routes.collect()).await.unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while speaker.flushed(Duration::from_millis(300)).await != ["b"] {
        assert!(Instant::now() < deadline, "{:#?}", speaker.peers().await);
    }
    let mut waste = vec![0; 1 << 16];
    let drained = async { while slow.read(&mut waste).await.is_ok_and(|count| count > 0) {} };
    tokio::select! {
        () = drained => panic!("closed"),
        late = speaker.flushed(PATIENCE) => assert!(late.is_empty(), "{late:?}"),
    }
    reader.abort();
}

#[tokio::test]
async fn a_subscriber_sees_the_state_and_every_change() {
    let (a, b) = pair(11).await;
    a.announce(announcements(&["10.1.0.0/16", "fd01::/48"]))
        .await
        .unwrap();
    knows(&b, &["10.1.0.0/16", "fd01::/48"]).await;
    let mut subscription = b.subscribe();
    let mut state = Vec::new();
    loop {
        match subscription.next().await.unwrap() {
            Event::Synced => break,
            event => state.push(event),
        }
    }
    let is_up = |event: &Event| {
        matches!(event, Event::PeerState { state: SessionState::Established, families, .. }
            if *families == Family::ALL)
    };
    assert!(is_up(&state[0]), "{state:?}");
    let routes = state
        .iter()
        .filter(|event| matches!(event, Event::Route(_)))
        .count();
    let ends = state
        .iter()
        .filter(|event| matches!(event, Event::EndOfRib { .. }))
        .count();
    assert_eq!((routes, ends), (2, 2), "{state:?}");

    a.withdraw(vec![prefix("10.1.0.0/16")]).await.unwrap();
    let Some(Event::Route(change)) = subscription.next().await else {
        panic!("no change")
    };
    assert_eq!(
        (change.prefix, change.paths.len()),
        (prefix("10.1.0.0/16"), 0)
    );
    a.stop(Stop::Cease(None)).await;
    let mut gone = false;
    while let Some(event) = subscription.next().await {
        match event {
            Event::Route(change) => gone |= change.prefix == prefix("fd01::/48"),
            Event::PeerState {
                error: Some(error), ..
            } => {
                assert!(error.contains("administrative shutdown"), "{error}");
                break;
            }
            _ => {}
        }
    }
    assert!(gone, "the route goes before the news of the session");
    b.stop(Stop::Cease(None)).await;
    while subscription.next().await.is_some() {}
}

#[tokio::test]
async fn a_subscriber_that_sleeps_starts_over_and_misses_nothing() {
    let (a, b) = pair(12).await;
    let mut subscription = b.subscribe();
    while subscription.next().await != Some(Event::Synced) {}
    let many = |med| {
        let routes = (0..30_000u32).map(move |i| Announcement {
            med: Some(med),
            ..Announcement::new(Prefix::host(Ipv4Addr::from_bits(0x0b00_0000 + i).into()))
        });
        routes.collect::<Vec<_>>()
    };
    for med in 0..4 {
        a.announce(many(med)).await.unwrap();
        // Every round has to arrive, or they would merge into one.
        until(
            "routes",
            || b.routes(),
            |routes| {
                routes.len() == 30_000
                    && routes
                        .iter()
                        .all(|route| route.paths[0].attributes.med == Some(med))
            },
        )
        .await;
    }
    let (mut known, mut resyncs) = (BTreeSet::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match subscription.next().await.unwrap() {
            Event::Resync => {
                resyncs += 1;
                known.clear();
            }
            Event::Route(route) => {
                assert_eq!(route.paths.len(), 1);
                known.insert((route.prefix, route.paths[0].attributes.med));
                known.remove(&(route.prefix, Some(2)));
            }
            Event::Synced if resyncs > 0 => break,
            _ => {}
        }
        assert!(
            Instant::now() < deadline,
            "{resyncs} resyncs, {} routes",
            known.len()
        );
    }
    assert_eq!((resyncs, known.len()), (1, 30_000));
    assert!(known.iter().all(|(_, med)| *med == Some(3)));
}

#[tokio::test]
async fn the_operator_takes_a_peer_down_and_up() {
    let (a, b) = pair(13).await;
    assert!(
        matches!(a.set_peer_admin("c", false, None).await, Err(PeerError::Unknown(name)) if name == "c")
    );
    a.set_peer_admin("b", false, None).await.unwrap();
    failed(
        &b,
        "administrative shutdown (6/2); its operator took the session down",
    )
    .await;
    let down = status(&a).await;
    assert_eq!((down.state, down.admin_up), (SessionState::Idle, false));
    a.set_peer_admin("b", true, None).await.unwrap();
    established(&a).await;
    established(&b).await;
}
