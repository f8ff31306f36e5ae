//! Which packet is for whom, what is told of it, and what silence means on a busy machine.

use std::num::NonZeroU8;

use super::*;
use crate::bfd::packet::Diagnostic;

const MS: Duration = Duration::from_millis(1);

fn terms() -> Terms {
    Terms {
        min_tx: 50 * MS,
        min_rx: 50 * MS,
        multiplier: NonZeroU8::new(3).unwrap(),
        passive: false,
        key: None,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn config(peer: &str) -> SessionConfig {
    SessionConfig {
        peer: ip(peer),
        local: Some(ip("10.0.0.1")),
        interface: None,
        path: Path::SingleHop,
        terms: terms(),
    }
}

fn packet(state: State, yours: Option<SessionId>) -> Packet {
    Packet {
        diagnostic: Diagnostic::NONE,
        state,
        poll: false,
        is_final: false,
        control_plane_independent: false,
        demand: false,
        multiplier: NonZeroU8::new(3).unwrap(),
        my_discriminator: Discriminator::new(77).unwrap(),
        your_discriminator: yours.map(|id| id.0),
        desired_min_tx: 50 * MS,
        required_min_rx: 50 * MS,
        required_min_echo_rx: Duration::ZERO,
        authentication: None,
    }
}

/// From 10.0.0.2 to us over one hop.
fn datagram(octets: &[u8]) -> Datagram<'_> {
    Datagram {
        from: ip("10.0.0.2"),
        to: ip("10.0.0.1"),
        interface: 4,
        ttl: TTL,
        multihop: false,
        octets,
    }
}

fn up(endpoint: &mut Endpoint, config: SessionConfig, now: Instant) -> SessionId {
    let peer = config.peer;
    let id = endpoint.add(config, now).unwrap();
    for state in [State::Down, State::Init] {
        let octets = packet(state, Some(id)).to_octets();
        let from_it = Datagram {
            from: peer,
            ..datagram(&octets)
        };
        endpoint.receive(&from_it, now);
    }
    assert_eq!(endpoint.status(id, now).unwrap().state, State::Up);
    while endpoint.poll_transmit(now).is_some() {}
    while endpoint.poll_event().is_some() {}
    id
}

fn hear(endpoint: &mut Endpoint, id: SessionId, state: State, now: Instant) {
    endpoint.receive(&datagram(&packet(state, Some(id)).to_octets()), now);
}

#[test]
fn every_packet_is_taken_or_counted_by_its_fault() {
    let counted = |change: fn(&mut Counters)| {
        let mut counters = Counters::default();
        change(&mut counters);
        counters
    };
    let accepted = || counted(|c| c.accepted = 1);
    let unknown = || counted(|c| c.unknown = 1);
    let far = || counted(|c| c.far = 1);
    type Change = fn(&mut Datagram<'_>);
    let rows: [(&str, Change, Counters); 9] = [
        ("as it should be", |_| {}, accepted()),
        ("another source", |d| d.from = ip("10.0.0.3"), unknown()),
        (
            "another address of ours",
            |d| d.to = ip("10.0.0.9"),
            unknown(),
        ),
        ("the other port", |d| d.multihop = true, unknown()),
        ("another interface", |d| d.interface = 5, unknown()),
        ("a router between", |d| d.ttl = 254, far()),
        ("TTL 0", |d| d.ttl = 0, far()),
        (
            "no octets",
            |d| d.octets = &[],
            counted(|c| c.malformed = 1),
        ),
        (
            "garbage",
            |d| d.octets = &[0xff; 24],
            counted(|c| c.malformed = 1),
        ),
    ];
    // With and without our discriminator: the same is believed.
    for named in [false, true] {
        for (name, change, expected) in &rows {
            let now = Instant::now();
            let mut endpoint = Endpoint::new(1);
            let with_interface = SessionConfig {
                interface: NonZeroU32::new(4),
                ..config("10.0.0.2")
            };
            let id = endpoint.add(with_interface, now).unwrap();
            let octets = packet(State::Down, named.then_some(id)).to_octets();
            let mut datagram = datagram(&octets);
            change(&mut datagram);
            endpoint.receive(&datagram, now);
            assert_eq!(endpoint.counters(), *expected, "{name}, named: {named}");
            let taken = endpoint.status(id, now).unwrap().packets_in;
            assert_eq!(taken, expected.accepted, "{name}");
        }
    }
}

#[test]
fn a_discriminator_that_is_not_ours_reaches_nobody() {
    let now = Instant::now();
    let mut endpoint = Endpoint::new(1);
    let id = endpoint.add(config("10.0.0.2"), now).unwrap();
    let other = SessionId(Discriminator::new(id.0.get() ^ 1).unwrap());
    hear(&mut endpoint, other, State::Down, now);
    assert_eq!(endpoint.counters().unknown, 1);
    // Nor does one of another session reach that from elsewhere.
    let elsewhere = endpoint.add(config("10.0.0.3"), now).unwrap();
    hear(&mut endpoint, elsewhere, State::Down, now);
    assert_eq!(endpoint.counters().unknown, 2);
}

#[test]
fn multihop_believes_what_its_ttl_allows() {
    let now = Instant::now();
    for (min_ttl, ttl, believed) in [
        (0, 0, true),
        (1, 1, true),
        (250, 250, true),
        (250, 249, false),
    ] {
        let mut endpoint = Endpoint::new(1);
        let far = SessionConfig {
            path: Path::Multihop { min_ttl },
            ..config("10.0.0.2")
        };
        endpoint.add(far, now).unwrap();
        let octets = packet(State::Down, None).to_octets();
        let routed = Datagram {
            ttl,
            multihop: true,
            ..datagram(&octets)
        };
        endpoint.receive(&routed, now);
        assert_eq!(
            endpoint.counters().accepted == 1,
            believed,
            "{min_ttl} {ttl}"
        );
    }
}

#[test]
fn sessions_that_could_not_be_told_apart_are_refused() {
    let now = Instant::now();
    let base = || config("10.0.0.2");
    for (other, fine) in [
        (base(), false),
        (
            SessionConfig {
                local: None,
                ..base()
            },
            false,
        ),
        (
            SessionConfig {
                local: Some(ip("10.0.0.9")),
                ..base()
            },
            true,
        ),
        (
            SessionConfig {
                path: Path::Multihop { min_ttl: 0 },
                ..base()
            },
            true,
        ),
        (
            SessionConfig {
                interface: NonZeroU32::new(3),
                ..base()
            },
            false,
        ),
        (config("10.0.0.3"), true),
    ] {
        let mut endpoint = Endpoint::new(1);
        endpoint.add(base(), now).unwrap();
        let added = endpoint.add(other.clone(), now);
        assert_eq!(added.is_ok(), fine, "{other:?}: {added:?}");
    }
    let mut endpoint = Endpoint::new(1);
    for host in 0..MAX_SESSIONS {
        let peer = format!("10.1.{}.{}", host / 256, host % 256);
        endpoint.add(config(&peer), now).unwrap();
    }
    assert_eq!(endpoint.add(base(), now), Err(AddError::TooMany));
}

#[test]
fn what_happens_before_it_is_told_is_one_event() {
    let now = Instant::now();
    let mut endpoint = Endpoint::new(1);
    let id = up(&mut endpoint, config("10.0.0.2"), now);
    for state in [State::Down, State::Down, State::Init] {
        hear(&mut endpoint, id, state, now);
    }
    let event = endpoint.poll_event().unwrap();
    assert_eq!((event.session, event.state), (id, State::Up));
    assert_eq!(event.lost, Some(Lost::Signaled(Diagnostic::NONE)));
    // What could not be told is told later, with what came on top of it.
    endpoint.untold(event);
    endpoint.set_admin_down(id, true, now);
    let event = endpoint.poll_event().unwrap();
    assert_eq!(
        (event.state, event.lost),
        (State::AdminDown, Some(Lost::LocalAdmin))
    );
    assert_eq!(endpoint.poll_event(), None);
    assert_eq!(endpoint.status(id, now).unwrap().times_up, 2);
}

#[test]
fn how_it_was_lost_is_told() {
    let now = Instant::now();
    let later = now + 150 * MS;
    type Act = fn(&mut Endpoint, SessionId, Instant);
    let rows: [(Act, Lost, bool); 4] = [
        (
            |e, _, at| assert!(!e.check(at)),
            Lost::Silence(150 * MS),
            true,
        ),
        (
            |e, id, at| hear(e, id, State::Down, at),
            Lost::Signaled(Diagnostic::NONE),
            true,
        ),
        (
            |e, id, at| hear(e, id, State::AdminDown, at),
            Lost::RemoteAdmin,
            false,
        ),
        (
            |e, id, at| e.set_admin_down(id, true, at),
            Lost::LocalAdmin,
            false,
        ),
    ];
    for (act, lost, is_failure) in rows {
        let mut endpoint = Endpoint::new(1);
        let id = up(&mut endpoint, config("10.0.0.2"), now);
        assert_eq!(endpoint.check_at(), Some(later));
        act(&mut endpoint, id, later);
        assert_eq!(endpoint.poll_event().unwrap().lost, Some(lost));
        assert_eq!(lost.is_failure(), is_failure);
        let last_down = endpoint.status(id, later).unwrap().last_down;
        assert_eq!(last_down, Some(lost.to_string()));
    }
}

#[test]
fn silence_while_we_did_not_run_is_forgiven_once() {
    let now = Instant::now();
    let mut endpoint = Endpoint::new(1);
    let id = up(&mut endpoint, config("10.0.0.2"), now);
    let state = |endpoint: &Endpoint| endpoint.status(id, now).unwrap().state;
    // Woken 100 ms after the detection time: the peer gets as much time again.
    let woken = now + 250 * MS;
    endpoint.stalled(100 * MS, woken);
    endpoint.check(woken);
    assert_eq!(state(&endpoint), State::Up);
    // Not more than a detection time in all, though we are late again and again.
    assert_eq!(endpoint.check_at(), Some(now + 300 * MS));
    endpoint.stalled(100 * MS, now + 299 * MS);
    endpoint.check(now + 299 * MS);
    assert_eq!(state(&endpoint), State::Up);
    endpoint.check(now + 300 * MS);
    assert_eq!(state(&endpoint), State::Down);

    // It is heard in that time: nothing happened.
    let mut endpoint = Endpoint::new(1);
    let id = up(&mut endpoint, config("10.0.0.2"), now);
    endpoint.stalled(100 * MS, woken);
    endpoint.check(woken);
    hear(&mut endpoint, id, State::Up, woken + MS);
    endpoint.check(now + 300 * MS);
    assert_eq!(endpoint.check_at(), Some(woken + 151 * MS));
    assert_eq!(endpoint.poll_event(), None);
}

#[test]
fn a_removed_session_says_goodbye_and_is_gone() {
    let now = Instant::now();
    let mut endpoint = Endpoint::new(1);
    let id = up(&mut endpoint, config("10.0.0.2"), now);
    endpoint.remove(id, now);
    assert_eq!(endpoint.poll_event(), None, "whoever removes it knows");
    let (whose, octets) = endpoint.poll_transmit(now).unwrap();
    let goodbye = Packet::parse(&octets).unwrap();
    assert_eq!((whose, goodbye.state), (id, State::AdminDown));
    // Nothing it hears matters any more.
    hear(&mut endpoint, id, State::Down, now);
    assert!(!endpoint.check(now + 149 * MS) && !endpoint.is_empty());
    assert!(endpoint.check(now + 150 * MS) && endpoint.is_empty());
    assert_eq!((endpoint.transmit_at(), endpoint.check_at()), (None, None));

    // A new one with the peer need not wait for that.
    let id = up(&mut endpoint, config("10.0.0.2"), now);
    endpoint.remove(id, now);
    assert!(endpoint.add(config("10.0.0.2"), now).is_ok());
    // One that is not up has nobody to say goodbye to.
    endpoint.remove_all(now);
    assert!(endpoint.is_empty());
}

#[test]
fn failures_to_send_are_shown_until_one_succeeds() {
    let now = Instant::now();
    let mut endpoint = Endpoint::new(1);
    let id = endpoint.add(config("10.0.0.2"), now).unwrap();
    assert!(endpoint.poll_transmit(now).is_some());
    endpoint.transmitted(id, Err("no route".to_owned()));
    let status = endpoint.status(id, now).unwrap();
    assert_eq!((status.packets_out, status.unsent), (0, 1));
    assert_eq!(status.error.as_deref(), Some("no route"));
    assert!(endpoint.poll_transmit(now + SECOND).is_some());
    endpoint.transmitted(id, Ok(()));
    let status = endpoint.status(id, now).unwrap();
    assert_eq!((status.packets_out, status.error), (1, None));
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn discriminators_are_distinct_and_not_zero() {
    let now = Instant::now();
    let mut endpoint = Endpoint::new(0);
    let ids: BTreeSet<_> = (0..200)
        .map(|host| {
            endpoint
                .add(config(&format!("10.1.0.{host}")), now)
                .unwrap()
        })
        .collect();
    assert_eq!(ids.len(), 200);
}
