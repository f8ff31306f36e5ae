//! The machine by tables, and two of them over a path that delays, loses and reorders, in virtual
//! time.

use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::bfd::auth::{Digest, Method};
use crate::bfd::packet::Discriminator;

const MS: Duration = Duration::from_millis(1);

fn terms(interval: u32, multiplier: u8) -> Terms {
    Terms {
        min_tx: interval * MS,
        min_rx: interval * MS,
        multiplier: NonZeroU8::new(multiplier).unwrap(),
        passive: false,
        key: None,
    }
}

fn discriminator(number: u32) -> Discriminator {
    Discriminator::new(number).unwrap()
}

fn session(terms: Terms, now: Instant) -> Session {
    Session::new(terms, discriminator(1), Jitter::new(1), now)
}

/// A packet as the peer would send it.
fn from_peer(state: State) -> Packet {
    Packet {
        diagnostic: Diagnostic::NONE,
        state,
        poll: false,
        is_final: false,
        control_plane_independent: false,
        demand: false,
        multiplier: NonZeroU8::new(3).unwrap(),
        my_discriminator: discriminator(2),
        your_discriminator: Some(discriminator(1)),
        desired_min_tx: 50 * MS,
        required_min_rx: 50 * MS,
        required_min_echo_rx: Duration::ZERO,
        authentication: None,
    }
}

fn receive(session: &mut Session, packet: &Packet, now: Instant) -> Option<Change> {
    session.receive(packet, &packet.to_octets(), now).unwrap()
}

/// Everything that is to be sent by now.
fn sent(session: &mut Session, now: Instant) -> Vec<Packet> {
    let octets = std::iter::from_fn(|| session.poll_transmit(now));
    octets
        .map(|octets| Packet::parse(&octets).unwrap())
        .collect()
}

/// A session that has been led into the state, with nothing left to send at once.
fn in_state(state: State, now: Instant) -> Session {
    let mut session = session(terms(50, 3), now);
    match state {
        State::Down => {}
        State::AdminDown => {
            session.set_admin_down(true, now);
        }
        State::Init => {
            receive(&mut session, &from_peer(State::Down), now);
        }
        State::Up => {
            receive(&mut session, &from_peer(State::Init), now);
        }
    }
    assert_eq!(session.state(), state);
    sent(&mut session, now);
    session
}

#[test]
fn states_follow_section_6_8_6() {
    use State::*;
    let now = Instant::now();
    let rows = [
        // ours, received, then
        (Down, AdminDown, Down),
        (Down, Down, Init),
        (Down, Init, Up),
        (Down, Up, Down),
        (Init, AdminDown, Down),
        (Init, Down, Init),
        (Init, Init, Up),
        (Init, Up, Up),
        (Up, AdminDown, Down),
        (Up, Down, Down),
        (Up, Init, Up),
        (Up, Up, Up),
        (AdminDown, AdminDown, AdminDown),
        (AdminDown, Down, AdminDown),
        (AdminDown, Init, AdminDown),
        (AdminDown, Up, AdminDown),
    ];
    for (ours, received, then) in rows {
        let mut session = in_state(ours, now);
        let change = receive(&mut session, &from_peer(received), now);
        let row = format!("{ours}, received {received}");
        assert_eq!(session.state(), then, "{row}");
        assert_eq!(
            change.map(|change| (change.from, change.to)),
            (ours != then).then_some((ours, then)),
            "{row}"
        );
        if (ours, then) == (Up, Down) {
            let change = change.unwrap();
            assert_eq!(
                change.diagnostic,
                Diagnostic::NEIGHBOR_SIGNALED_DOWN,
                "{row}"
            );
            assert_eq!(change.remote.0, received, "{row}");
        }
        // A change is told at once (section 6.8.7).
        let states: Vec<_> = sent(&mut session, now).iter().map(|p| p.state).collect();
        assert_eq!(
            states,
            if ours == then { vec![] } else { vec![then] },
            "{row}"
        );
    }
}

#[test]
fn silence_takes_down_what_was_heard() {
    let start = Instant::now();
    for (state, then) in [
        (State::Down, State::Down),
        (State::Init, State::Down),
        (State::Up, State::Down),
        (State::AdminDown, State::AdminDown),
    ] {
        let mut session = in_state(state, start);
        receive(&mut session, &from_peer(State::Up), start);
        let before = session.state();
        let Some(deadline) = session.detect_at() else {
            assert_eq!(state, State::AdminDown);
            continue;
        };
        assert_eq!(deadline, start + 150 * MS);
        assert_eq!(session.timeout(deadline - Duration::from_nanos(1)), None);
        let change = session.timeout(deadline);
        assert_eq!(session.state(), then, "{state}");
        assert_eq!(change.is_some(), before != then);
        if let Some(change) = change {
            assert_eq!(change.diagnostic, Diagnostic::DETECTION_TIME_EXPIRED);
            assert_eq!(change.detection_time, Some(150 * MS));
        }
        // It is forgotten: it may come back under another name.
        assert_eq!(session.remote(), None);
        assert_eq!(session.detect_at(), None);
        for packet in sent(&mut session, deadline) {
            assert_eq!(packet.your_discriminator, None);
            assert_eq!(packet.desired_min_tx, SLOW);
        }
    }
}

#[test]
fn detection_time_is_their_multiplier_and_the_slower_interval() {
    let now = Instant::now();
    for (min_rx, desired_min_tx, multiplier, expected) in [
        (50, 50, 3, 150),
        (50, 300, 3, 900),
        (300, 50, 3, 900),
        (50, 50, 1, 50),
        (10, 10, 255, 2550),
    ] {
        let mut session = session(terms(min_rx, 7), now);
        let packet = Packet {
            desired_min_tx: desired_min_tx * MS,
            multiplier: NonZeroU8::new(multiplier).unwrap(),
            ..from_peer(State::Init)
        };
        assert_eq!(session.detection_time(), None);
        receive(&mut session, &packet, now);
        assert_eq!(session.detection_time(), Some(expected * MS));
    }
}

/// The pauses between packets of a session in its state, if the peer keeps saying the same.
fn pauses(session: &mut Session, packet: &Packet, mut now: Instant) -> Vec<Duration> {
    let mut times = Vec::new();
    receive(session, packet, now);
    while times.len() < 200 {
        now += MS / 4;
        if session.transmit_at().is_some_and(|at| at <= now) && !sent(session, now).is_empty() {
            times.push(now);
            receive(session, packet, now);
        }
    }
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn packets_come_at_the_slower_interval_less_jitter() {
    let now = Instant::now();
    let peer = |state, required_min_rx| Packet {
        required_min_rx: required_min_rx * MS,
        ..from_peer(state)
    };
    for (multiplier, packet, least, most) in [
        (3, peer(State::Up, 50), 75, 100),
        (1, peer(State::Up, 50), 75, 90),
        (3, peer(State::Up, 200), 150, 200),
        // Not up: a second.
        (3, peer(State::AdminDown, 50), 750, 1000),
    ] {
        let mut session = session(terms(100, multiplier), now);
        if packet.state == State::Up {
            receive(&mut session, &from_peer(State::Init), now);
        }
        sent(&mut session, now);
        let (least, most) = (least * MS, most * MS);
        let pauses = pauses(&mut session, &packet, now);
        // They are looked at four times a millisecond.
        for pause in &pauses {
            let range = least..=most + MS / 2;
            assert!(range.contains(pause), "{pause:?} of {packet:?}");
        }
        let spread = *pauses.iter().max().unwrap() - *pauses.iter().min().unwrap();
        assert!(spread > (most - least) / 2, "no jitter: {spread:?}");
    }
}

#[test]
fn who_must_not_speak_is_silent() {
    let now = Instant::now();
    let later = now + 3600 * SLOW;
    // A passive end, until it is spoken to (section 6.1).
    let passive = Terms {
        passive: true,
        ..terms(50, 3)
    };
    let mut session = session(passive, now);
    assert_eq!(session.transmit_at(), None);
    assert_eq!(sent(&mut session, later), []);
    receive(&mut session, &from_peer(State::Down), later);
    assert_eq!(sent(&mut session, later).len(), 1);

    // To a peer that can receive nothing, except for news and answers (section 6.8.7).
    let mut session = in_state(State::Up, now);
    let deaf = Packet {
        required_min_rx: Duration::ZERO,
        ..from_peer(State::Up)
    };
    receive(&mut session, &deaf, now);
    assert_eq!(session.transmit_at(), None);
    assert_eq!(sent(&mut session, later), []);
    receive(&mut session, &Packet { poll: true, ..deaf }, now);
    let answer = sent(&mut session, now);
    assert_eq!((answer.len(), answer[0].is_final), (1, true));

    // To a peer in Demand mode, once it has answered our poll (section 6.6).
    let mut session = in_state(State::Up, now);
    let demand = Packet {
        demand: true,
        ..from_peer(State::Up)
    };
    receive(&mut session, &demand, now);
    assert!(session.transmit_at().is_some(), "a poll is under way");
    let is_final = true;
    receive(
        &mut session,
        &Packet {
            is_final,
            ..demand.clone()
        },
        now,
    );
    assert_eq!(session.transmit_at(), None);
    // It answers polls, and never asks for Demand mode itself.
    receive(
        &mut session,
        &Packet {
            poll: true,
            ..demand
        },
        now,
    );
    let answer = sent(&mut session, now);
    assert_eq!(answer.len(), 1);
    assert!(answer[0].is_final && !answer[0].poll && !answer[0].demand);
}

#[test]
fn coming_up_is_told_with_a_poll_that_the_answer_ends() {
    let now = Instant::now();
    let mut session = session(terms(50, 3), now);
    let first = sent(&mut session, now);
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].desired_min_tx, first[0].poll), (SLOW, false));
    receive(&mut session, &from_peer(State::Init), now);
    let up = sent(&mut session, now);
    assert_eq!((up[0].desired_min_tx, up[0].poll), (50 * MS, true));
    // Asked again with every packet, until there is an answer.
    let later = now + 50 * MS;
    assert!(sent(&mut session, later)[0].poll);
    let answer = Packet {
        is_final: true,
        ..from_peer(State::Up)
    };
    receive(&mut session, &answer, later);
    assert!(!sent(&mut session, later + 50 * MS)[0].poll);
}

#[test]
fn slower_terms_wait_for_the_peer_and_faster_ones_do_not() {
    let now = Instant::now();
    let answer = Packet {
        is_final: true,
        ..from_peer(State::Up)
    };
    let agreed = || {
        let mut session = in_state(State::Up, now);
        receive(&mut session, &answer, now);
        session
    };
    // min_tx and min_rx; then transmit interval and detection time, before and after the answer.
    for (min_tx, min_rx, before, after) in [
        (200, 50, (50, 150), (200, 150)),
        (50, 200, (50, 600), (50, 600)),
        (50, 20, (50, 150), (50, 150)),
        (20, 50, (50, 150), (50, 150)),
    ] {
        let mut session = agreed();
        let terms = Terms {
            min_tx: min_tx * MS,
            min_rx: min_rx * MS,
            ..terms(0, 3)
        };
        session.set_terms(terms, now);
        let numbers = |session: &Session| {
            let detection = session.detection_time().unwrap();
            (session.transmit_interval(), detection)
        };
        let of = |(tx, detection): (u32, u32)| (tx * MS, detection * MS);
        assert_eq!(numbers(&session), of(before), "{min_tx} {min_rx}");
        let asked = sent(&mut session, now + 50 * MS);
        assert!(asked[0].poll);
        assert_eq!(asked[0].desired_min_tx, min_tx * MS);
        receive(&mut session, &answer, now);
        assert_eq!(numbers(&session), of(after), "{min_tx} {min_rx}");
    }
    // A second change while the first is asked about: one answer is not enough.
    let mut session = agreed();
    session.set_terms(terms(200, 3), now);
    session.set_terms(terms(400, 3), now);
    receive(&mut session, &answer, now);
    assert_eq!(session.transmit_interval(), 50 * MS);
    receive(&mut session, &answer, now);
    assert_eq!(session.transmit_interval(), 400 * MS);
}

#[test]
fn the_operator_takes_it_down_and_up() {
    let now = Instant::now();
    let mut session = in_state(State::Up, now);
    let change = session.set_admin_down(true, now).unwrap();
    assert_eq!((change.from, change.to), (State::Up, State::AdminDown));
    assert_eq!(session.set_admin_down(true, now), None);
    let told = sent(&mut session, now);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].state, State::AdminDown);
    assert_eq!(told[0].diagnostic, Diagnostic::ADMINISTRATIVELY_DOWN);
    let change = session.set_admin_down(false, now).unwrap();
    assert_eq!((change.from, change.to), (State::AdminDown, State::Down));
    assert_eq!(session.set_admin_down(false, now), None);
}

#[test]
fn a_farewell_is_heard_before_the_peer_counts_us_as_gone() {
    let now = Instant::now();
    let mut session = in_state(State::Up, now);
    let until = session.farewell(now).unwrap();
    assert_eq!(until, now + 150 * MS);
    let mut told = 0;
    for ms in 0..150 {
        told += sent(&mut session, now + ms * MS).len();
    }
    assert!((3..=5).contains(&told), "{told}");
    assert_eq!(in_state(State::Down, now).farewell(now), None);
    // Nor is there a pace at which to tell a peer that wants no periodic packets.
    let mut session = in_state(State::Up, now);
    let mut unwilling = from_peer(State::Up);
    unwilling.required_min_rx = Duration::ZERO;
    receive(&mut session, &unwilling, now);
    assert_eq!(session.farewell(now), None);
    assert_eq!(sent(&mut session, now).len(), 1);
    session.timeout(now + Duration::from_secs(1));
    assert!(sent(&mut session, now + Duration::from_secs(1)).len() <= 1);
}

/// Two sessions and the path between them.
struct Pair {
    ends: [Session; 2],
    now: Instant,
    started: Instant,
    /// What is on its way: when it arrives, and where.
    wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    serial: u64,
    path: Path,
    random: Jitter,
    changes: Vec<(Duration, usize, Change)>,
}

#[derive(Debug, Clone)]
struct Path {
    /// Milliseconds a packet takes.
    delay: Range<u64>,
    /// Packets lost of a hundred, towards each end.
    loss: [u64; 2],
}

impl Pair {
    fn new(terms: [Terms; 2], path: Path, seed: u64) -> Pair {
        let now = Instant::now();
        let mut random = Jitter::new(seed);
        let [a, b] = terms;
        Pair {
            ends: [
                Session::new(a, discriminator(11), random.fork(), now),
                Session::new(b, discriminator(22), random.fork(), now),
            ],
            now,
            started: now,
            wire: BTreeMap::new(),
            serial: 0,
            path,
            random,
            changes: Vec::new(),
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let ends = self.ends.iter();
            let timers = ends.flat_map(|end| [end.transmit_at(), end.detect_at()]);
            let arrival = self.wire.keys().next().map(|(at, _)| *at);
            let Some(next) = timers.flatten().chain(arrival).min() else {
                break;
            };
            if next > until {
                break;
            }
            self.now = self.now.max(next);
            self.step();
        }
        self.now = until;
    }

    fn step(&mut self) {
        while let Some(entry) = self.wire.first_entry()
            && entry.key().0 <= self.now
        {
            let (end, octets) = entry.remove();
            let packet = Packet::parse(&octets).expect("a packet of ours");
            let session = &mut self.ends[end];
            if let Some(yours) = packet.your_discriminator {
                assert_eq!(yours, session.discriminator());
            }
            let change = session.receive(&packet, &octets, self.now);
            self.note(end, change.unwrap_or_default());
        }
        for end in 0..2 {
            let change = self.ends[end].timeout(self.now);
            self.note(end, change);
            while let Some(octets) = self.ends[end].poll_transmit(self.now) {
                self.send(1 - end, octets);
            }
        }
    }

    fn send(&mut self, to: usize, octets: Vec<u8>) {
        if self.random.number() % 100 < self.path.loss[to] {
            return;
        }
        let Range { start, end } = self.path.delay;
        let delay = start + self.random.number() % (end - start).max(1);
        self.serial += 1;
        let arrival = self.now + Duration::from_millis(delay);
        self.wire.insert((arrival, self.serial), (to, octets));
    }

    fn note(&mut self, end: usize, change: Option<Change>) {
        if let Some(change) = change {
            self.changes.push((self.now - self.started, end, change));
        }
    }

    fn states(&self) -> [State; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }
}

const UP: [State; 2] = [State::Up, State::Up];

fn method() -> impl Strategy<Value = Option<Method>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(Method::Password)),
        1 => Just(Some(Method::Digest(Digest::KeyedMd5))),
        // Meticulous sequence numbers forbid the reordering of these paths.
    ]
}

fn keyed(mut terms: Terms, method: Option<Method>) -> Terms {
    terms.key = method.map(|method| Key::new(method, 9, b"open sesame").unwrap());
    terms
}

fn pair_of_terms() -> impl Strategy<Value = [Terms; 2]> {
    let one = || (20u32..400, 20u32..400, 2u8..6);
    (one(), one(), method(), any::<bool>()).prop_map(|(a, b, method, passive)| {
        let terms = |(tx, rx, multiplier): (u32, u32, u8)| Terms {
            min_tx: tx * MS,
            min_rx: rx * MS,
            ..terms(0, multiplier)
        };
        let a = Terms {
            passive,
            ..terms(a)
        };
        [keyed(a, method), keyed(terms(b), method)]
    })
}

/// A path that delays and reorders, but never so much that an interval more passes.
fn path() -> impl Strategy<Value = Path> {
    (0u64..60, 1u64..18).prop_map(|(least, spread)| Path {
        delay: least..least + spread,
        loss: [0, 0],
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn without_loss_two_ends_come_up_and_stay(
        terms in pair_of_terms(), path in path(), seed in any::<u64>(),
    ) {
        let mut pair = Pair::new(terms, path, seed);
        pair.run(10 * SLOW);
        prop_assert_eq!(pair.states(), UP, "{:?}", pair.changes);
        pair.changes.clear();
        pair.run(120 * SLOW);
        prop_assert!(pair.changes.is_empty(), "{:?}", pair.changes);
        // Both agree on how often each sends, and the polls have ended.
        for (here, there) in [(0, 1), (1, 0)] {
            let sender = &pair.ends[here];
            let hears = pair.ends[there].detection_time().unwrap();
            let multiplier = u32::from(sender.terms().multiplier.get());
            prop_assert_eq!(sender.transmit_interval() * multiplier, hears);
            prop_assert_eq!(sender.poll, Poll::Quiet);
        }
    }

    #[test]
    fn with_loss_they_come_up_too(
        terms in pair_of_terms(), path in path(), loss in 0u64..30, seed in any::<u64>(),
    ) {
        let mut pair = Pair::new(terms, Path { loss: [loss, loss], ..path }, seed);
        let mut was_up = false;
        for _ in 0..120 {
            pair.run(SLOW);
            was_up |= pair.states() == UP;
        }
        prop_assert!(was_up, "{:?}", pair.changes);
    }

    #[test]
    fn loss_is_noticed_within_the_detection_time(
        terms in pair_of_terms(), path in path(), one_way in any::<bool>(), seed in any::<u64>(),
    ) {
        let latest_arrival = Duration::from_millis(path.delay.end);
        let mut pair = Pair::new(terms, path, seed);
        pair.run(30 * SLOW);
        prop_assert_eq!(pair.states(), UP);
        pair.changes.clear();
        pair.path.loss = if one_way { [100, 0] } else { [100, 100] };
        let detection = pair.ends[0].detection_time().unwrap();
        pair.run(latest_arrival + detection);
        let (_, end, change) = pair.changes[0];
        prop_assert!(pair.ends[0].state() != State::Up);
        if end == 0 {
            prop_assert_eq!(change.diagnostic, Diagnostic::DETECTION_TIME_EXPIRED);
            prop_assert_eq!(change.detection_time, Some(detection));
        }
        // The other end hears of it, or notices by itself.
        let detection = pair.ends[1].detection_time().unwrap_or_default();
        pair.run(latest_arrival + detection);
        prop_assert!(pair.ends[1].state() != State::Up);
        // Once the path is back, they come up again.
        pair.path.loss = [0, 0];
        pair.run(10 * SLOW);
        prop_assert_eq!(pair.states(), UP, "{:?}", pair.changes);
    }

    #[test]
    fn changed_terms_are_agreed_without_a_flap(
        terms in pair_of_terms(),
        path in path(),
        changes in prop::collection::vec((any::<bool>(), 20u32..2000, 20u32..2000, 2u8..6, 1u32..3000), 1..6),
        seed in any::<u64>(),
    ) {
        let mut pair = Pair::new(terms, path, seed);
        pair.run(30 * SLOW);
        prop_assert_eq!(pair.states(), UP);
        pair.changes.clear();
        for (first, tx, rx, multiplier, pause) in changes {
            let now = pair.now;
            let end = &mut pair.ends[usize::from(first)];
            let terms = Terms {
                min_tx: tx * MS,
                min_rx: rx * MS,
                multiplier: NonZeroU8::new(multiplier).unwrap(),
                ..end.terms().clone()
            };
            end.set_terms(terms, now);
            pair.run(pause * MS);
        }
        pair.run(30 * SLOW);
        prop_assert!(pair.changes.is_empty(), "{:?}", pair.changes);
        for end in &pair.ends {
            prop_assert_eq!(end.poll, Poll::Quiet);
            prop_assert_eq!(end.tx.in_use, end.terms().min_tx);
            prop_assert_eq!(end.rx.in_use, end.terms().min_rx);
        }
    }

    /// One seed, one history.
    #[test]
    fn the_same_seed_gives_the_same_history(
        terms in pair_of_terms(), path in path(), loss in 0u64..50, seed in any::<u64>(),
    ) {
        let path = Path { loss: [loss, loss], ..path };
        let history = || {
            let mut pair = Pair::new(terms.clone(), path.clone(), seed);
            pair.run(20 * SLOW);
            pair.changes
        };
        prop_assert_eq!(history(), history());
    }
}

#[test]
fn every_method_of_authentication_carries_a_session() {
    let digests = [
        Digest::KeyedMd5,
        Digest::MeticulousMd5,
        Digest::KeyedSha1,
        Digest::MeticulousSha1,
    ];
    let methods = digests
        .map(Method::Digest)
        .into_iter()
        .chain([Method::Password]);
    for method in methods {
        let terms = || keyed(terms(50, 3), Some(method));
        let path = Path {
            delay: 3..4,
            loss: [5, 5],
        };
        let mut pair = Pair::new([terms(), terms()], path, 7);
        pair.run(20 * SLOW);
        assert_eq!(pair.states(), UP, "{method:?}");
    }
}

#[test]
fn what_is_not_authentic_changes_nothing() {
    let now = Instant::now();
    let method = Method::Digest(Digest::MeticulousSha1);
    let meticulous = Some(method);
    let key = keyed(terms(50, 3), meticulous).key.unwrap();
    let other = Key::new(method, 9, b"open barley").unwrap();
    let mut session = session(keyed(terms(50, 3), meticulous), now);
    let signed = |key: &Key, sequence| {
        let octets = key.sign(&mut from_peer(State::Init), sequence);
        (Packet::parse(&octets).unwrap(), octets)
    };
    let mut say = |(packet, octets): (Packet, Vec<u8>), now| {
        let answer = session.receive(&packet, &octets, now);
        (answer.map(|change| change.is_some()), session.state())
    };
    let plain = (from_peer(State::Init), from_peer(State::Init).to_octets());
    assert_eq!(say(plain, now), (Err(AuthError::Missing), State::Down));
    assert_eq!(
        say(signed(&other, 1), now),
        (Err(AuthError::Mismatch), State::Down)
    );
    assert_eq!(say(signed(&key, u32::MAX), now), (Ok(true), State::Up));
    let last = u32::MAX;
    for received in [u32::MAX, u32::MAX - 1, 9, 1000] {
        let refused = (Err(AuthError::Sequence { received, last }), State::Up);
        assert_eq!(say(signed(&key, received), now), refused);
    }
    assert_eq!(say(signed(&key, 8), now), (Ok(false), State::Up));
    // After twice the detection time any number is taken: the peer may have started anew.
    let refused = AuthError::Sequence {
        received: 5,
        last: 8,
    };
    assert_eq!(say(signed(&key, 5), now + 299 * MS).0, Err(refused));
    assert_eq!(say(signed(&key, 5), now + 300 * MS).0, Ok(false));
    // Without a key, a signed packet is none of ours.
    let mut session = self::session(terms(50, 3), now);
    let (packet, octets) = signed(&key, 1);
    assert_eq!(
        session.receive(&packet, &octets, now),
        Err(AuthError::Unexpected)
    );
}
