//! A core with scripted peers: every octet it sends is read, every octet it gets is written here.

use std::time::Duration;

use bytes::BytesMut;

use super::*;

use crate::config::{GracefulRestart, PeerConfig};
use crate::event::{Announcement, Event, RouteChange};
use crate::fsm::State;
use crate::policy::{ExportPolicy, ImportPolicy};
use crate::wire::{
    AfiSafi, AsPath, Attributes, Capability, Cease, Community, Family, MpReach, Nlri, Notification,
    Open, Origin, Prefix, RouteRefresh, Update, WireOptions, frame,
};

mod bfd;
mod collision;
mod origination;
mod policy;
mod restart;
mod roster;
mod sockets;
mod tap;
mod terms;

const A: [u8; 4] = [10, 99, 0, 2];
const B: [u8; 4] = [10, 99, 0, 3];
const US: [u8; 4] = [10, 99, 0, 1];

fn peer(name: &str, address: [u8; 4], asn: u32) -> PeerConfig {
    PeerConfig {
        passive: true,
        import: ImportPolicy::All,
        export: ExportPolicy::All,
        next_hop_v6: Some("fd99::1".parse().unwrap()),
        ..PeerConfig::new(name.parse().unwrap(), Ipv4Addr::from(address).into(), asn)
    }
}

fn config(peers: Vec<PeerConfig>) -> SpeakerConfig {
    SpeakerConfig {
        peers,
        ..SpeakerConfig::new(65001, US.into())
    }
}

/// The core under test and what it has put out.
struct Bench {
    core: Core,
    now: Instant,
    sent: HashMap<ConnectionId, BytesMut>,
    closed: Vec<ConnectionId>,
    connecting: Vec<(ConnectionId, SocketAddr)>,
    options: WireOptions,
    /// Connections of peers that read.
    reading: bool,
}

fn end(address: [u8; 4], port: u16) -> SocketAddr {
    (Ipv4Addr::from(address), port).into()
}

impl Bench {
    fn new(config: SpeakerConfig) -> Bench {
        let now = Instant::now();
        let mut core = Core::new(config, 1, now).unwrap();
        core.observe(true);
        core.start(now);
        let mut bench = Bench {
            core,
            now,
            sent: HashMap::new(),
            closed: Vec::new(),
            connecting: Vec::new(),
            options: WireOptions {
                four_octet_as: true,
                ..WireOptions::default()
            },
            reading: true,
        };
        bench.drain();
        bench
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Connect { connection, to, .. } => self.connecting.push((connection, to)),
                Output::Close { connection } => self.closed.push(connection),
                Output::Send { connection, octets } => {
                    self.sent
                        .entry(connection)
                        .or_default()
                        .extend_from_slice(&octets);
                    if self.reading {
                        self.core.written(connection, octets.len());
                    }
                }
            }
        }
    }

    fn accept(&mut self, from: [u8; 4]) -> Option<ConnectionId> {
        let id = self.core.accepted(end(from, 40000), end(US, 179), self.now);
        self.drain();
        id
    }

    fn feed(&mut self, id: ConnectionId, message: impl Into<Message>) {
        let octets = message.into().to_bytes(&self.options).unwrap();
        self.feed_octets(id, &octets);
    }

    fn feed_octets(&mut self, id: ConnectionId, octets: &[u8]) {
        self.core.received(id, octets, self.now);
        self.drain();
    }

    /// Everything sent on the connection so far, once.
    fn sent(&mut self, id: ConnectionId) -> Vec<Message> {
        let Some(mut octets) = self.sent.remove(&id) else {
            return Vec::new();
        };
        let mut messages = Vec::new();
        while let Some(message) = frame::split(&mut octets, &self.options).unwrap() {
            messages.push(Message::decode(&message, &self.options).unwrap().message);
        }
        assert!(octets.is_empty(), "half a message");
        messages
    }

    fn updates(&mut self, id: ConnectionId) -> Vec<Update> {
        let updates = self
            .sent(id)
            .into_iter()
            .filter_map(|message| match message {
                Message::Update(update) => Some(update),
                _ => None,
            });
        updates.collect()
    }

    /// The NOTIFICATION that ended the connection.
    fn refusal(&mut self, id: ConnectionId) -> (u8, u8) {
        assert!(self.closed.contains(&id), "not closed");
        match self.sent(id).pop() {
            Some(Message::Notification(notification)) => (notification.code, notification.subcode),
            other => panic!("{other:?} instead of a NOTIFICATION"),
        }
    }

    /// A session with this peer is up; what was sent for that is gone.
    fn establish(&mut self, from: [u8; 4], asn: u32) -> ConnectionId {
        let id = self.accept(from).expect("refused");
        self.feed(id, open(asn, from));
        self.feed(id, Message::Keepalive);
        let sent = self.sent(id);
        assert!(
            matches!(sent[..2], [Message::Open(_), Message::Keepalive]),
            "{sent:?}"
        );
        id
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(next) = self.core.next_timeout().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            self.core.timeout(self.now);
            self.drain();
        }
        self.now = until;
    }

    fn error(&self) -> String {
        self.core.peers(self.now)[0]
            .last_error
            .clone()
            .unwrap_or_default()
    }
}

impl From<Update> for Message {
    fn from(update: Update) -> Message {
        Message::Update(update)
    }
}

impl From<Notification> for Message {
    fn from(notification: Notification) -> Message {
        Message::Notification(notification)
    }
}

fn open(asn: u32, id: [u8; 4]) -> Message {
    let mut capabilities: Vec<_> = Family::ALL.map(Capability::multiprotocol).into();
    capabilities.push(Capability::RouteRefresh);
    Message::Open(Open::new(asn, 90, id.into(), capabilities))
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// An UPDATE with a path and IPv4 or IPv6 routes.
fn update(path: &[u32], next_hop: &str, prefixes: &[&str]) -> Update {
    let nlri: Vec<Prefix> = prefixes.iter().map(|text| prefix(text)).collect();
    let next_hop: IpAddr = next_hop.parse().unwrap();
    let mut update = Update {
        attributes: Attributes {
            origin: Some(Origin::Igp),
            as_path: Some(AsPath::sequence(path.iter().copied())),
            ..Attributes::default()
        },
        ..Update::default()
    };
    match next_hop {
        IpAddr::V4(next_hop) => {
            update.attributes.next_hop = Some(next_hop);
            update.nlri = nlri.into_iter().map(Nlri::from).collect();
        }
        IpAddr::V6(_) => {
            let family = Family::Ipv6Unicast;
            update.mp_reach = Some(MpReach::Unicast {
                family,
                next_hop: next_hop.into(),
                nlri: nlri.into_iter().map(Nlri::from).collect(),
            });
        }
    }
    update
}

fn announcement(text: &str) -> Announcement {
    Announcement::new(prefix(text))
}

fn used(core: &Core) -> Vec<String> {
    let routes = core.routes().into_iter().map(|route| {
        let peers: Vec<_> = route
            .paths
            .iter()
            .map(|path| path.peer.to_string())
            .collect();
        format!("{} {}", route.prefix, peers.join("+"))
    });
    routes.collect()
}

#[test]
fn a_session_comes_up_in_the_right_order() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    bench
        .core
        .announce(vec![announcement("10.1.0.0/16"), announcement("fd01::/48")]);
    let id = bench.accept(A).unwrap();
    assert!(matches!(bench.sent(id)[..], [Message::Open(_)]));
    assert_eq!(bench.core.state("a"), Some(State::OpenSent));
    bench.feed(id, open(65002, A));
    assert!(matches!(bench.sent(id)[..], [Message::Keepalive]));
    assert_eq!(bench.core.state("a"), Some(State::OpenConfirm));
    bench.feed(id, Message::Keepalive);
    let updates = bench.updates(id);
    let kinds: Vec<_> = updates
        .iter()
        .map(
            |update| match update.end_of_rib_family().and_then(|f| f.family()) {
                Some(family) => format!("end of {family}"),
                None => update
                    .reachable()
                    .map(|reach| reach.family.to_string())
                    .collect(),
            },
        )
        .collect();
    assert_eq!(kinds, ["ipv4", "ipv6", "end of ipv4", "end of ipv6"]);
    let status = &bench.core.peers(bench.now)[0];
    assert_eq!(
        (status.state, status.hold_time, status.sessions),
        (State::Established, Some(9), 1)
    );
    assert_eq!(status.prefixes[&Family::Ipv4Unicast].advertised, 1);
    assert_eq!(
        (status.router_id, status.local_address),
        (Some(A.into()), Some(IpAddr::from(US)))
    );
    assert_eq!((status.messages_in, status.messages_out), (2, 6));
    assert!(
        status.notes.is_empty() && status.last_error.is_none(),
        "{status:?}"
    );
}

#[test]
fn why_a_session_was_lost_is_seen_again_when_attempts_that_failed_are_no_news() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let id = bench.establish(A, 65002);
    let gone = |bench: &mut Bench, id| {
        bench
            .core
            .closed(id, "the peer closed it".to_owned(), bench.now);
        bench.drain();
        bench.pass(Duration::from_secs(10));
        bench.error()
    };
    let lost = gone(&mut bench, id);
    assert!(lost.contains("the connection was lost"), "{lost}");
    let id = bench.accept(A).unwrap();
    let failed = gone(&mut bench, id);
    assert!(failed.contains("before the session was up"), "{failed}");
    bench.establish(A, 65002);
    assert_eq!(bench.error(), lost);
}

#[test]
fn octets_may_come_one_by_one() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let id = bench.accept(A).unwrap();
    let mut octets = BytesMut::new();
    let routes = update(&[65002], "10.99.0.2", &["10.2.0.0/16"]);
    for message in [open(65002, A), Message::Keepalive, routes.into()] {
        message.encode(&bench.options, &mut octets).unwrap();
    }
    for octet in octets {
        bench.feed_octets(id, &[octet]);
    }
    assert_eq!(used(&bench.core), ["10.2.0.0/16 a"]);
}

#[test]
fn unacceptable_opens_are_answered_by_their_notification() {
    let with = |message: Message, change: fn(&mut Open)| {
        let Message::Open(mut open) = message else {
            unreachable!()
        };
        change(&mut open);
        Message::Open(open)
    };
    let rows: Vec<(Message, (u8, u8), &str)> = vec![
        (
            open(65003, A),
            (2, 2),
            "peer says AS 65003, configured 65002: fix asn of peer a",
        ),
        (
            with(open(65002, A), |open| open.hold_time = 2),
            (2, 6),
            "hold time",
        ),
        (
            with(open(65002, A), |open| {
                let unknown = AfiSafi { afi: 25, safi: 65 };
                open.capabilities = vec![
                    Capability::Multiprotocol(unknown),
                    Capability::FourOctetAs(65002),
                ];
            }),
            (2, 7),
            "families ipv4, ipv6",
        ),
        (Message::Keepalive, (5, 1), "KEEPALIVE"),
        (
            Update::end_of_rib(Family::Ipv4Unicast).into(),
            (5, 1),
            "UPDATE",
        ),
    ];
    for (message, expected, error) in rows {
        let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
        let id = bench.accept(A).unwrap();
        bench.feed(id, message.clone());
        assert_eq!(bench.refusal(id), expected, "{message:?}");
        assert!(bench.error().contains(error), "{}", bench.error());
        // Idle for a moment: the peer is not let in again at once, and then it is.
        assert_eq!(bench.accept(A), None);
        bench.pass(Duration::from_secs(1));
        assert!(bench.accept(A).is_some());
    }
}

#[test]
fn internal_peers_must_not_share_our_identifier() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65001)]));
    let id = bench.accept(A).unwrap();
    bench.feed(id, open(65001, US));
    assert_eq!(bench.refusal(id), (2, 3));
    assert!(
        bench.error().contains("our own BGP identifier 10.99.0.1"),
        "{}",
        bench.error()
    );
}

#[test]
fn garbage_is_answered_by_its_notification() {
    for (octets, expected) in [
        (vec![0u8; 19], (1, 1)),
        ([vec![0xff; 16], vec![0, 18, 1]].concat(), (1, 2)),
        ([vec![0xff; 16], vec![0, 19, 9]].concat(), (1, 3)),
        ([vec![0xff; 16], vec![255, 255, 1]].concat(), (1, 2)),
    ] {
        let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
        let id = bench.accept(A).unwrap();
        bench.feed_octets(id, &octets);
        assert_eq!(bench.refusal(id), expected, "before the OPEN: {octets:?}");

        let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
        let id = bench.establish(A, 65002);
        bench.feed_octets(id, &octets);
        assert_eq!(bench.refusal(id), expected, "when established: {octets:?}");
    }
}

#[test]
fn an_open_in_an_established_session_ends_it() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let id = bench.establish(A, 65002);
    bench.feed(id, update(&[65002], "10.99.0.2", &["10.2.0.0/16"]));
    bench.feed(id, open(65002, A));
    assert_eq!(bench.refusal(id), (5, 3));
    assert!(used(&bench.core).is_empty());
}

#[test]
fn connections_from_elsewhere_are_refused_and_counted() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    assert_eq!(bench.accept(B), None);
    assert_eq!(bench.core.refused_connections(), 1);
    bench
        .core
        .set_peer_admin("a", false, None, bench.now)
        .unwrap();
    assert_eq!(bench.accept(A), None);
    assert_eq!(bench.core.refused_connections(), 2);
    assert!(
        bench
            .core
            .set_peer_admin("b", false, None, bench.now)
            .is_err()
    );
}

#[test]
fn the_operator_takes_a_peer_down_and_up() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let id = bench.establish(A, 65002);
    bench
        .core
        .set_peer_admin("a", false, None, bench.now)
        .unwrap();
    bench.drain();
    assert_eq!(bench.refusal(id), (6, 2));
    bench.pass(Duration::from_secs(1000));
    assert_eq!(bench.core.state("a"), Some(State::Idle), "it stays down");
    assert!(bench.core.peers(bench.now)[0].notes[0].contains("administratively down"));
    bench
        .core
        .set_peer_admin("a", true, None, bench.now)
        .unwrap();
    bench.establish(A, 65002);
}

#[test]
fn a_silent_peer_loses_its_routes_with_the_hold_timer() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let id = bench.establish(A, 65002);
    bench.feed(id, update(&[65002], "10.99.0.2", &["10.2.0.0/16"]));
    bench.pass(Duration::from_millis(8900));
    assert_eq!(used(&bench.core), ["10.2.0.0/16 a"]);
    let keepalives = bench.sent(id).len();
    assert!(
        (2..=4).contains(&keepalives),
        "{keepalives} keepalives in 8.9 s"
    );
    bench.pass(Duration::from_millis(200));
    assert_eq!(bench.refusal(id), (4, 0));
    assert!(used(&bench.core).is_empty());
    assert!(
        bench
            .error()
            .contains("nothing was heard from the peer for 9 s")
    );
}

#[test]
fn stopping_says_so_or_not() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let id = bench.establish(A, 65002);
    bench
        .core
        .stop(&Stop::Cease(Some("upgrade".into())), bench.now);
    bench.drain();
    let sent = bench.sent(id);
    let [Message::Notification(notification)] = &sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!(&notification.data[..], b"\x07upgrade");
    assert_eq!((notification.code, notification.subcode), (6, 2));

    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let id = bench.establish(A, 65002);
    bench.core.stop(&Stop::KeepForwarding, bench.now);
    bench.drain();
    assert_eq!((bench.sent(id), &bench.closed[..]), (vec![], &[id][..]));
    assert_eq!(bench.accept(A), None);
}

#[test]
fn routes_come_and_go() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002), peer("b", B, 65002)]));
    let (a, b) = (bench.establish(A, 65002), bench.establish(B, 65002));
    bench.core.take_events();
    bench.feed(
        a,
        update(&[65002], "10.99.0.2", &["10.2.0.0/16", "10.3.0.0/16"]),
    );
    bench.feed(a, update(&[65002], "fd99::2", &["fd02::/48"]));
    bench.feed(b, update(&[65002], "10.99.0.3", &["10.3.0.0/16"]));
    assert_eq!(
        used(&bench.core),
        ["10.2.0.0/16 a", "10.3.0.0/16 a+b", "fd02::/48 a"]
    );
    let events = bench.core.take_events();
    let told: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Route(route) => format!("{} {}", route.prefix, route.paths.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["10.2.0.0/16 1", "10.3.0.0/16 2", "fd02::/48 1"]);

    // Implicit withdraw by a longer path, explicit withdraw, and the loss of the session.
    bench.feed(b, update(&[65002, 9], "10.99.0.3", &["10.3.0.0/16"]));
    bench.feed(
        a,
        Update {
            withdrawn: vec![Nlri::from(prefix("10.2.0.0/16"))],
            ..Update::default()
        },
    );
    assert_eq!(used(&bench.core), ["10.3.0.0/16 a", "fd02::/48 a"]);
    bench.core.closed(a, "reset by peer".into(), bench.now);
    bench.drain();
    assert_eq!(used(&bench.core), ["10.3.0.0/16 b"]);
    let gone = bench.core.take_events();
    assert!(gone.contains(&Event::Route(RouteChange {
        prefix: prefix("fd02::/48"),
        paths: vec![]
    })));
    assert!(matches!(
        gone.last(),
        Some(Event::PeerState { state: State::Idle, error: Some(error), .. })
            if error.contains("reset by peer")
    ));
}

#[test]
fn routes_are_passed_on_but_not_back() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002), peer("b", B, 65003)]));
    let (a, b) = (bench.establish(A, 65002), bench.establish(B, 65003));
    bench.feed(a, update(&[65002], "10.99.0.2", &["10.2.0.0/16"]));
    assert!(bench.updates(a).is_empty());
    let told = bench.updates(b);
    assert_eq!(
        told[0].attributes.as_path,
        Some(AsPath::sequence([65001, 65002]))
    );
    assert_eq!(told[0].attributes.next_hop, Some(US.into()));
    bench.core.closed(a, "gone".into(), bench.now);
    bench.drain();
    assert_eq!(
        bench.updates(b)[0].withdrawn,
        [Nlri::from(prefix("10.2.0.0/16"))]
    );
}

#[test]
fn refused_routes_are_counted_and_explained() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let id = bench.establish(A, 65002);
    bench.feed(id, update(&[65002], "10.99.0.2", &["10.2.0.0/16"]));
    bench.feed(
        id,
        update(
            &[65002, 65001, 9],
            "10.99.0.2",
            &["10.2.0.0/16", "10.3.0.0/16"],
        ),
    );
    bench.feed(id, update(&[65002], "10.99.0.1", &["10.4.0.0/16"]));
    assert!(
        used(&bench.core).is_empty(),
        "a refused route replaces an accepted one"
    );
    let status = &bench.core.peers(bench.now)[0];
    let counts = status.prefixes[&Family::Ipv4Unicast];
    assert_eq!((counts.received, counts.accepted), (3, 0));
    assert_eq!(status.notes.len(), 2, "{:?}", status.notes);
}

#[test]
fn an_update_with_a_survivable_error_withdraws_its_routes() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let id = bench.establish(A, 65002);
    bench.feed(
        id,
        update(&[65002], "10.99.0.2", &["10.2.0.0/16", "10.3.0.0/16"]),
    );
    let mut octets = BytesMut::new();
    let bad: Message = update(&[65002], "10.99.0.2", &["10.2.0.0/16"]).into();
    bad.encode(&bench.options, &mut octets).unwrap();
    // The ORIGIN's value: header 19, two lengths 4, flags, type and length 3.
    octets[26] = 9;
    bench.feed_octets(id, &octets);
    assert_eq!(bench.core.state("a"), Some(State::Established));
    assert_eq!(used(&bench.core), ["10.3.0.0/16 a"]);
    let notes = bench.core.peers(bench.now)[0].notes.join("\n");
    assert!(
        notes.contains("1 UPDATEs with errors, the last one: ORIGIN"),
        "{notes}"
    );
}

#[test]
fn the_end_of_rib_of_a_peer_is_an_event_once() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let id = bench.establish(A, 65002);
    bench.core.take_events();
    for _ in 0..2 {
        bench.feed(id, Update::end_of_rib(Family::Ipv6Unicast));
    }
    let expected = Event::EndOfRib {
        peer: "a".parse().unwrap(),
        family: Family::Ipv6Unicast,
    };
    assert_eq!(bench.core.take_events(), std::slice::from_ref(&expected));
    let state = bench.core.current_state();
    assert!(
        state.contains(&expected) && state.last() == Some(&Event::Synced),
        "{state:?}"
    );
}

#[test]
fn a_refresh_is_answered() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    bench
        .core
        .announce(vec![announcement("10.1.0.0/16"), announcement("fd01::/48")]);
    let id = bench.establish(A, 65002);
    let refresh = |family: Family, subtype| {
        Message::RouteRefresh(RouteRefresh {
            family: family.into(),
            subtype,
        })
    };
    bench.feed(id, refresh(Family::Ipv6Unicast, 0));
    let told = bench.updates(id);
    assert_eq!(told.len(), 1);
    assert_eq!(
        told[0].reachable().next().unwrap().nlri,
        [Nlri::from(prefix("fd01::/48"))]
    );
    // Begin and end of an enhanced refresh were not negotiated.
    bench.feed(id, refresh(Family::Ipv6Unicast, 1));
    assert!(bench.updates(id).is_empty());
    assert_eq!(bench.core.state("a"), Some(State::Established));
}

#[test]
fn a_two_octet_peer_gets_what_it_understands() {
    let mut speaker = config(vec![peer("a", A, 65002)]);
    speaker.asn = 4_200_000_001;
    let mut bench = Bench::new(speaker);
    let id = bench.accept(A).unwrap();
    let Message::Open(mut theirs) = open(65002, A) else {
        unreachable!()
    };
    theirs
        .capabilities
        .retain(|capability| !matches!(capability, Capability::FourOctetAs(_)));
    bench.feed(id, Message::Open(theirs));
    bench.feed(id, Message::Keepalive);
    let Message::Open(ours) = &bench.sent(id)[0] else {
        panic!("no OPEN")
    };
    assert_eq!((ours.my_as, ours.asn()), (23456, 4_200_000_001));
    assert!(!bench.core.peers(bench.now)[0].four_octet_as);

    bench.options.four_octet_as = false;
    bench.core.announce(vec![announcement("10.1.0.0/16")]);
    bench.drain();
    // AS_TRANS in AS_PATH and the truth in AS4_PATH; the decoder merges them.
    let path = bench.updates(id)[0].attributes.as_path.clone();
    assert_eq!(path, Some(AsPath::sequence([4_200_000_001])));
    bench.feed(
        id,
        update(&[65002, 4_200_000_009], "10.99.0.2", &["10.2.0.0/16"]),
    );
    let learned = bench.core.routes()[0].paths[0].attributes.as_path.clone();
    assert_eq!(learned, AsPath::sequence([65002, 4_200_000_009]));
}

#[test]
fn an_internal_session_carries_local_pref_and_no_internal_routes() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65001), peer("b", B, 65001)]));
    bench.options.internal = true;
    let (a, b) = (bench.establish(A, 65001), bench.establish(B, 65001));
    let mut preferred = update(&[65009], "10.99.0.9", &["10.2.0.0/16"]);
    preferred.attributes.local_pref = Some(300);
    bench.feed(a, preferred);
    assert_eq!(
        bench.core.routes()[0].paths[0].attributes.local_pref,
        Some(300)
    );
    assert!(
        bench.updates(b).is_empty(),
        "internal routes stay where they are"
    );
    bench.core.announce(vec![announcement("10.1.0.0/16")]);
    bench.drain();
    let told = &bench.updates(b)[0].attributes;
    assert_eq!(
        (told.local_pref, told.as_path.clone()),
        (Some(100), Some(AsPath::empty()))
    );
}

#[test]
fn announcements_carry_what_they_are_given() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let id = bench.establish(A, 65002);
    let communities = vec![Community::new(65001, 7), Community::NO_EXPORT];
    let route = Announcement {
        med: Some(5),
        communities: communities.clone(),
        ..announcement("10.1.0.0/16")
    };
    bench.core.announce(vec![route]);
    bench.drain();
    let told = &bench.updates(id)[0].attributes;
    assert_eq!((told.med, &told.communities), (Some(5), &communities));
    assert_eq!(told.as_path, Some(AsPath::sequence([65001])));
    let advertised = bench.core.advertised();
    assert_eq!(
        advertised["a"].keys().collect::<Vec<_>>(),
        [&prefix("10.1.0.0/16")]
    );
    bench.core.withdraw(&[prefix("10.1.0.0/16")]);
    bench.drain();
    assert_eq!(
        bench.updates(id)[0].withdrawn,
        [Nlri::from(prefix("10.1.0.0/16"))]
    );
    bench.core.closed(id, "gone".into(), bench.now);
    assert!(
        bench.core.advertised().is_empty(),
        "nothing is advertised while the session is down"
    );
}

#[test]
fn a_family_without_a_next_hop_is_explained() {
    let mut bench = Bench::new(config(vec![PeerConfig {
        next_hop_v6: None,
        ..peer("a", A, 65002)
    }]));
    bench.core.announce(vec![announcement("fd01::/48")]);
    let id = bench.establish(A, 65002);
    let told = bench.updates(id);
    assert!(
        told.iter().all(|update| update.reachable().count() == 0),
        "{told:?}"
    );
    let notes = bench.core.peers(bench.now)[0].notes.join("\n");
    assert!(
        notes.contains("no ipv6 routes are told") && notes.contains("set next_hop_v6 of peer a")
    );
}

#[test]
fn a_peer_without_policy_passes_nothing_and_says_so() {
    let bare = PeerConfig {
        import: ImportPolicy::None,
        export: ExportPolicy::None,
        ..peer("a", A, 65002)
    };
    let mut bench = Bench::new(config(vec![bare]));
    bench.core.announce(vec![announcement("10.1.0.0/16")]);
    let id = bench.establish(A, 65002);
    bench.feed(id, update(&[65002], "10.99.0.2", &["10.2.0.0/16"]));
    assert!(used(&bench.core).is_empty() && bench.core.advertised()["a"].is_empty());
    let notes = bench.core.peers(bench.now)[0].notes.join("\n");
    assert_eq!(notes.matches("RFC 8212").count(), 2, "{notes}");
}

fn restarting() -> SpeakerConfig {
    SpeakerConfig {
        graceful_restart: Some(GracefulRestart {
            restart_time: Duration::from_secs(120),
            forwarding_preserved: true,
            restarting: true,
        }),
        ..config(vec![peer("a", A, 65002)])
    }
}

#[test]
fn a_restarting_speaker_tells_nothing_before_it_knows_everything() {
    let mut bench = Bench::new(restarting());
    let id = bench.accept(A).unwrap();
    let Message::Open(ours) = &bench.sent(id)[0] else {
        panic!("no OPEN")
    };
    let restart = ours.graceful_restart().unwrap();
    assert!(restart.restarting && restart.families.iter().all(|f| f.forwarding_preserved));
    assert_eq!((restart.restart_time, restart.families.len()), (120, 2));
    bench.feed(id, open(65002, A));
    bench.feed(id, Message::Keepalive);
    bench.core.announce(vec![announcement("10.1.0.0/16")]);
    bench.drain();
    assert!(bench.updates(id).is_empty());
    let mut flush = bench.core.flush();
    bench.core.advance_flush(&mut flush, |_| 0);
    assert!(!flush.is_done(), "held back is not flushed");
    assert!(bench.core.peers(bench.now)[0].notes[0].contains("restarting"));

    bench.core.initial_routes_complete();
    bench.drain();
    let told = bench.updates(id);
    assert_eq!(
        (told.len(), &told[0].nlri[..]),
        (3, &[Nlri::from(prefix("10.1.0.0/16"))][..])
    );
    assert!(told[1].end_of_rib_family().is_some() && told[2].end_of_rib_family().is_some());
    bench.core.advance_flush(&mut flush, |_| 0);
    assert!(flush.is_done());

    // A later session is no restart any more.
    bench.core.closed(id, "gone".into(), bench.now);
    bench.pass(Duration::from_secs(1));
    let id = bench.accept(A).unwrap();
    let Message::Open(ours) = &bench.sent(id)[0] else {
        panic!("no OPEN")
    };
    assert!(!ours.graceful_restart().unwrap().restarting);
}

/// RFC 4724 section 4.1: whoever waits for our return hears that we restarted, however late he is and
/// however many attempts it takes; nobody else.
#[test]
fn the_session_that_comes_back_is_told_of_the_restart() {
    let mut bench = Bench::new(restarting());
    let said = |bench: &mut Bench, id| {
        let Message::Open(ours) = &bench.sent(id)[0] else {
            panic!("no OPEN")
        };
        ours.graceful_restart().unwrap().restarting
    };
    bench.core.initial_routes_complete();
    bench.pass(Duration::from_secs(60));
    let failed = bench.accept(A).unwrap();
    assert!(said(&mut bench, failed));
    bench.core.closed(failed, "refused".into(), bench.now);
    bench.pass(Duration::from_secs(50));
    let id = bench.accept(A).unwrap();
    assert!(said(&mut bench, id), "no session was established yet");
    bench.core.closed(id, "refused".into(), bench.now);
    bench.pass(Duration::from_secs(11));
    let late = bench.accept(A).unwrap();
    assert!(
        !said(&mut bench, late),
        "after the restart time nothing is kept"
    );
}

#[test]
fn a_slow_peer_gets_the_latest_state_and_costs_little() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002), peer("b", B, 65002)]));
    let (a, b) = (bench.establish(A, 65002), bench.establish(B, 65002));
    bench.reading = false;
    // What is made for B goes to A as well until A is too far behind; then it costs nothing more.
    let rounds = 45;
    for round in 0..rounds {
        let routes = (0..20_000u32).map(|index| Announcement {
            med: Some(round * 100 + index % 7),
            ..Announcement::new(Prefix::host(
                Ipv4Addr::from_bits(0x0a00_0000 + index).into(),
            ))
        });
        bench.core.announce(routes.collect());
        bench.drain();
        // B reads all the time.
        let sent = bench.sent.get(&b).map_or(0, BytesMut::len);
        bench.core.written(b, sent);
        bench.sent(b);
        bench.drain();
    }
    let queued = bench.sent[&a].len();
    assert!(
        queued < 5 << 20,
        "{queued} octets for a peer that does not read"
    );
    let status = bench.core.peers(bench.now);
    assert_eq!(status[0].prefixes[&Family::Ipv4Unicast].pending, 20_000);
    assert_eq!(status[1].prefixes[&Family::Ipv4Unicast].pending, 0);
    assert_eq!(status[1].prefixes[&Family::Ipv4Unicast].advertised, 20_000);
    let mut flush = bench.core.flush();
    bench.core.advance_flush(&mut flush, |_| 0);
    assert_eq!(flush.connections().collect::<Vec<_>>(), [a]);

    // It reads again.
    bench.reading = true;
    bench.core.written(a, queued);
    bench.drain();
    let mut meds = HashMap::new();
    for update in bench.updates(a) {
        for nlri in update.nlri {
            meds.insert(nlri.prefix, update.attributes.med.unwrap());
        }
    }
    assert_eq!(meds.len(), 20_000);
    let last = (rounds - 1) * 100;
    assert!(meds.values().all(|med| *med >= last), "the last round");
    bench.core.advance_flush(&mut flush, |_| 1);
    assert!(!flush.is_done(), "one octet is not acknowledged");
    bench.core.advance_flush(&mut flush, |_| 0);
    assert!(flush.is_done());
}

#[test]
fn an_active_peer_is_connected_to_from_the_right_address() {
    let active = PeerConfig {
        passive: false,
        port: 1179,
        local_address: Some(Ipv4Addr::from(US).into()),
        ..peer("a", A, 65002)
    };
    let mut bench = Bench::new(config(vec![active]));
    let (id, to) = bench.connecting.remove(0);
    assert_eq!(to, end(A, 1179));
    bench
        .core
        .connect_failed(id, "connection refused".into(), bench.now);
    bench.drain();
    assert!(
        bench
            .error()
            .contains("cannot connect to 10.99.0.2 port 1179: connection refused")
    );
    bench.pass(Duration::from_secs(5));
    let (id, _) = bench.connecting.remove(0);
    bench.core.connected(id, end(US, 40000), bench.now);
    bench.drain();
    bench.feed(id, open(65002, A));
    bench.feed(id, Message::Keepalive);
    assert_eq!(bench.core.state("a"), Some(State::Established));
    assert_eq!(
        bench.error(),
        "",
        "an attempt that failed is no news any more"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever a peer sends, before or after its OPEN, another peer's session and routes stay.
    #[test]
    fn nothing_a_peer_sends_harms_another(
        opened in proptest::bool::ANY,
        kinds in proptest::collection::vec(0u8..7, 1..8),
        garbage in proptest::collection::vec(proptest::num::u8::ANY, 0..64),
        flips in proptest::collection::vec((0usize..400, proptest::num::u8::ANY), 0..4),
    ) {
        let mut bench = Bench::new(config(vec![peer("a", A, 65002), peer("b", B, 65003)]));
        let b = bench.establish(B, 65003);
        bench.feed(b, update(&[65003], "10.99.0.3", &["10.3.0.0/16"]));
        let a = match opened {
            true => bench.establish(A, 65002),
            false => bench.accept(A).unwrap(),
        };
        let mut octets = BytesMut::new();
        for kind in kinds {
            let refresh = RouteRefresh { family: Family::Ipv4Unicast.into(), subtype: kind };
            let message: Message = match kind {
                0 => open(65002, A),
                1 => Message::Keepalive,
                2 => update(&[65002, 9], "10.99.0.2", &["10.2.0.0/16", "10.2.1.0/24"]).into(),
                3 => update(&[65002], "fd99::2", &["fd02::/48"]).into(),
                4 => Update::end_of_rib(Family::Ipv6Unicast).into(),
                5 => Message::RouteRefresh(refresh),
                _ => Notification::cease(Cease::HardReset).into(),
            };
            message.encode(&bench.options, &mut octets).unwrap();
        }
        octets.extend_from_slice(&garbage);
        for (at, mask) in flips {
            if let Some(octet) = octets.get_mut(at) {
                *octet ^= mask;
            }
        }
        for piece in octets.chunks(37) {
            bench.feed_octets(a, piece);
        }
        bench.pass(Duration::from_secs(8));
        proptest::prop_assert_eq!(bench.core.state("b"), Some(State::Established));
        let kept = used(&bench.core).iter().any(|route| route == "10.3.0.0/16 b");
        proptest::prop_assert!(kept);
    }
}
