use std::time::{Duration, Instant};

use super::*;
use crate::wire::error::{Finding, Place, Reason, Verdict};
use crate::wire::{Cease, HeaderError};

const RETRY: Duration = Duration::from_secs(5);
const DELAY: Duration = Duration::from_secs(3);

fn terms() -> Terms {
    Terms {
        passive: false,
        connect_retry: RETRY,
        delay_open: None,
        idle_hold: Duration::from_secs(1),
        idle_hold_max: Duration::from_secs(30),
        send_hold: None,
        await_path: false,
    }
}

fn step(fsm: &mut Fsm, event: Event, now: Instant) -> Vec<Action> {
    let mut actions = Vec::new();
    fsm.step(event, now, &mut actions);
    actions
}

/// Where a row of the table starts from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum From {
    Idle,
    Connect,
    /// Connected, DelayOpenTimer running.
    ConnectDelay,
    Active,
    ActiveDelay,
    OpenSent,
    OpenConfirm,
    Established,
}

const COLUMNS: [From; 8] = [
    From::Idle,
    From::Connect,
    From::ConnectDelay,
    From::Active,
    From::ActiveDelay,
    From::OpenSent,
    From::OpenConfirm,
    From::Established,
];

fn machine(from: From, now: Instant) -> Fsm {
    let delay = matches!(from, From::ConnectDelay | From::ActiveDelay);
    let terms = Terms {
        delay_open: delay.then_some(DELAY),
        ..terms()
    };
    let mut fsm = Fsm::new(terms, Jitter::new(7));
    let way = match from {
        From::Idle => vec![],
        From::Connect => vec![Event::ManualStart],
        From::ConnectDelay => vec![Event::ManualStart, Event::TcpRequestAcked],
        From::Active => vec![
            Event::ManualStart,
            Event::TcpConnectionFails("refused".into()),
        ],
        From::ActiveDelay => vec![
            Event::ManualStart,
            Event::TcpConnectionFails("refused".into()),
            Event::TcpConnectionConfirmed,
        ],
        From::OpenSent => vec![Event::ManualStart, Event::TcpRequestAcked],
        From::OpenConfirm => {
            vec![
                Event::ManualStart,
                Event::TcpRequestAcked,
                Event::Open { hold_time: 9 },
            ]
        }
        From::Established => vec![
            Event::ManualStart,
            Event::TcpRequestAcked,
            Event::Open { hold_time: 9 },
            Event::Keepalive,
        ],
    };
    for event in way {
        step(&mut fsm, event, now);
    }
    let expected = match from {
        From::Idle => State::Idle,
        From::Connect | From::ConnectDelay => State::Connect,
        From::Active | From::ActiveDelay => State::Active,
        From::OpenSent => State::OpenSent,
        From::OpenConfirm => State::OpenConfirm,
        From::Established => State::Established,
    };
    assert_eq!(fsm.state(), expected, "on the way to {from:?}");
    assert_eq!(fsm.delaying_open(), delay);
    fsm
}

/// One cell: the next state, `+` when ConnectRetryCounter rises, the actions.
fn cell(from: From, event: Event) -> String {
    let now = Instant::now();
    let mut fsm = machine(from, now);
    fsm.connect_retry_counter = 3;
    let actions = step(&mut fsm, event, now);
    let mut cell = match fsm.state() {
        State::Idle => "I",
        State::Connect => "C",
        State::Active => "A",
        State::OpenSent => "S",
        State::OpenConfirm => "F",
        State::Established => "E",
    }
    .to_owned();
    match fsm.connect_retry_counter() {
        0 => cell.push('0'),
        3 => {}
        4 => cell.push('+'),
        other => panic!("counter {other}"),
    }
    for action in &actions {
        cell.push_str(&match action {
            Action::Connect => " connect".to_owned(),
            Action::SendOpen => " open".to_owned(),
            Action::SendKeepalive => " ka".to_owned(),
            Action::SendNotification(n) => format!(" {}/{}", n.code, n.subcode),
            Action::Close => " x".to_owned(),
            Action::Up => " up".to_owned(),
            Action::Down(_) => " d".to_owned(),
        });
    }
    check_timers(&fsm, from, &actions);
    cell
}

/// Which timers run follows from the state alone.
fn check_timers(fsm: &Fsm, from: From, actions: &[Action]) {
    use Timer::*;
    let running = fsm.timers.running();
    let stopped = actions.contains(&Action::Down(Cause::ManualStop));
    let expected: &[&[Timer]] = match fsm.state() {
        State::Idle if stopped || from == From::Idle => &[&[]],
        State::Idle => &[&[IdleHold]],
        // Connected and delaying, or connecting.
        State::Connect | State::Active => &[&[ConnectRetry], &[DelayOpen]],
        State::OpenSent => &[&[Hold]],
        State::OpenConfirm | State::Established => &[&[Hold, Keepalive]],
    };
    // A keepalive timer that was fed in by hand is still running, or a timer has been restarted.
    assert!(
        expected.contains(&running.as_slice()),
        "{from:?} {:?}: {running:?}",
        fsm.state()
    );
}

fn update_error() -> UpdateError {
    let finding = Finding {
        place: Place::Lengths,
        reason: Reason::FieldOverrun {
            declared: 9,
            available: 1,
        },
        verdict: Verdict::SessionReset,
        octets: Box::default(),
    };
    UpdateError {
        findings: vec![finding],
    }
}

#[test]
fn every_event_in_every_state_does_what_rfc_4271_says() {
    let cease = Notification::cease(Cease::AdministrativeShutdown);
    let cease_reset = Notification::cease(Cease::OtherConfigurationChange);
    let fails = || Event::TcpConnectionFails("reset".to_owned());
    let header = || Event::HeaderError(HeaderError::Marker.into());
    let open_error = || Event::OpenError(OpenError::HoldTime(1));
    let notified = |code, subcode| Event::Notification(Notification::new(code, subcode));
    // RFC 4271 numbers; Idle, Connect, Connect + DelayOpen, Active, Active + DelayOpen, OpenSent,
    // OpenConfirm, Established.
    #[rustfmt::skip]
    let table: Vec<(&str, Event, [&str; 8])> = vec![
        ("1",  Event::ManualStart,
            ["C0 connect", "C", "C", "A", "A", "S", "F", "E"]),
        ("2",  Event::ManualStop(Some(cease)),
            ["I", "I0 x d", "I0 6/2 x d", "I0 x d", "I0 6/2 x d", "I0 6/2 x d", "I0 6/2 x d", "I0 6/2 x d"]),
        ("2 in silence", Event::ManualStop(None),
            ["I", "I0 x d", "I0 x d", "I0 x d", "I0 x d", "I0 x d", "I0 x d", "I0 x d"]),
        ("3",  Event::AutomaticStart,
            ["C connect", "C", "C", "A", "A", "S", "F", "E"]),
        ("8",  Event::AutomaticStop(cease_reset),
            ["I", "I+ x d", "I+ x d", "I+ x d", "I+ x d", "I+ 6/6 x d", "I+ 6/6 x d", "I+ 6/6 x d"]),
        ("9",  Event::Expired(Timer::ConnectRetry),
            ["I", "C x d connect", "C x d connect", "C connect", "C connect", "I+ 5/0 x d", "I+ 5/0 x d", "I+ 5/0 x d"]),
        ("10", Event::Expired(Timer::Hold),
            ["I", "I+ x d", "I+ x d", "I+ x d", "I+ x d", "I+ 4/0 x d", "I+ 4/0 x d", "I+ 4/0 x d"]),
        ("11", Event::Expired(Timer::Keepalive),
            ["I", "I+ x d", "I+ x d", "I+ x d", "I+ x d", "I+ 5/0 x d", "F ka", "E ka"]),
        ("12", Event::Expired(Timer::DelayOpen),
            ["I", "S open", "S open", "S open", "S open", "I+ 5/0 x d", "I+ 5/0 x d", "I+ 5/0 x d"]),
        ("13", Event::Expired(Timer::IdleHold),
            ["C connect", "I+ x d", "I+ x d", "I+ x d", "I+ x d", "I+ 5/0 x d", "I+ 5/0 x d", "I+ 5/0 x d"]),
        ("16", Event::TcpRequestAcked,
            ["I", "S open", "C", "S open", "A", "S", "F", "E"]),
        ("17", Event::TcpConnectionConfirmed,
            ["I", "S open", "C", "S open", "A", "S", "F", "E"]),
        ("18", fails(),
            ["I", "A x d", "A x d", "I+ x d", "I+ x d", "A x d", "I+ x d", "I+ x d"]),
        ("19, 20", Event::Open { hold_time: 9 },
            ["I", "I+ x d", "F open ka", "I+ x d", "F open ka", "F ka", "I+ 5/2 x d", "I+ 5/3 x d"]),
        ("21", header(),
            ["I", "I+ 1/1 x d", "I+ 1/1 x d", "I+ 1/1 x d", "I+ 1/1 x d", "I+ 1/1 x d", "I+ 1/1 x d", "I+ 1/1 x d"]),
        ("22", open_error(),
            ["I", "I+ 2/6 x d", "I+ 2/6 x d", "I+ 2/6 x d", "I+ 2/6 x d", "I+ 2/6 x d", "I+ 2/6 x d", "I+ 5/3 x d"]),
        ("23", Event::OpenCollisionDump,
            ["I", "I+ x d", "I+ x d", "I+ x d", "I+ x d", "I+ 6/7 x d", "I+ 6/7 x d", "I+ 6/7 x d"]),
        ("24", notified(2, 1),
            ["I", "I+ x d", "I x d", "I+ x d", "I x d", "I x d", "I x d", "I+ x d"]),
        ("25", notified(6, 4),
            ["I", "I+ x d", "I+ x d", "I+ x d", "I+ x d", "I+ x d", "I+ x d", "I+ x d"]),
        ("26", Event::Keepalive,
            ["I", "I+ x d", "I+ x d", "I+ x d", "I+ x d", "I+ 5/1 x d", "E up", "E"]),
        ("27", Event::Update,
            ["I", "I+ x d", "I+ x d", "I+ x d", "I+ x d", "I+ 5/1 x d", "I+ 5/2 x d", "E"]),
        ("28", Event::UpdateError(update_error()),
            ["I", "I+ x d", "I+ x d", "I+ x d", "I+ x d", "I+ 5/1 x d", "I+ 5/2 x d", "I+ 3/1 x d"]),
        ("29", Event::Expired(Timer::SendHold),
            ["I", "I+ x d", "I+ x d", "I+ x d", "I+ x d", "I+ 5/0 x d", "I+ 5/0 x d", "I+ 8/0 x d"]),
        ("BFD up", Event::PathUp,
            ["I", "C", "C", "A", "A", "S", "F", "E"]),
        ("other gone", Event::Uncontested,
            ["I", "C", "C", "A", "A", "S", "F", "E"]),
        ("RFC 2918", Event::RouteRefresh,
            ["I", "I+ x d", "I+ x d", "I+ x d", "I+ x d", "I+ 5/1 x d", "I+ 5/2 x d", "E"]),
    ];
    let mut wrong = Vec::new();
    for (number, event, row) in &table {
        for (from, expected) in COLUMNS.into_iter().zip(row) {
            let seen = cell(from, event.clone());
            if seen != *expected {
                wrong.push(format!("{number} in {from:?}: {seen}, expected {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_passive_machine_never_connects() {
    let now = Instant::now();
    let mut fsm = Fsm::new(
        Terms {
            passive: true,
            ..terms()
        },
        Jitter::new(1),
    );
    assert_eq!(step(&mut fsm, Event::ManualStart, now), []);
    assert_eq!((fsm.state(), fsm.next_timeout()), (State::Active, None));
    assert_eq!(
        step(&mut fsm, Event::TcpConnectionConfirmed, now),
        [Action::SendOpen]
    );
    step(&mut fsm, Event::TcpConnectionFails("reset".into()), now);
    assert_eq!((fsm.state(), fsm.next_timeout()), (State::Active, None));
}

#[test]
fn unexpected_messages_are_named_to_the_peer() {
    let now = Instant::now();
    let mut fsm = machine(From::OpenSent, now);
    let actions = step(&mut fsm, Event::Update, now);
    let Action::SendNotification(notification) = &actions[0] else {
        panic!("{actions:?}")
    };
    assert_eq!(&notification.data[..], [2], "the type of an UPDATE");
    assert_eq!(
        actions[2],
        Action::Down(Cause::Unexpected(State::OpenSent, "UPDATE"))
    );
}

/// Runs the timers until `until`; what ran out, and when.
fn run_timers(fsm: &mut Fsm, start: Instant, until: Duration) -> Vec<(Timer, Duration)> {
    let mut seen = Vec::new();
    while let Some(next) = fsm.next_timeout().filter(|next| *next <= start + until) {
        while let Some(timer) = fsm.expired(next) {
            seen.push((timer, next - start));
            step(fsm, Event::Expired(timer), next);
        }
    }
    seen
}

#[test]
fn a_silent_peer_is_given_up_after_the_hold_time() {
    let start = Instant::now();
    let mut fsm = machine(From::Established, start);
    let seen = run_timers(&mut fsm, start, Duration::from_millis(9500));
    assert_eq!(seen.last(), Some(&(Timer::Hold, Duration::from_secs(9))));
    let keepalives = seen
        .iter()
        .filter(|(timer, _)| *timer == Timer::Keepalive)
        .count();
    assert!((3..=4).contains(&keepalives), "{seen:?}");
    assert_eq!(fsm.state(), State::Idle);
}

#[test]
fn keepalives_come_at_a_third_of_the_hold_time_with_jitter() {
    let start = Instant::now();
    let mut fsm = machine(From::Established, start);
    let (mut last, mut gaps) = (start, Vec::new());
    while gaps.len() < 200 {
        let next = fsm.next_timeout().unwrap();
        assert_eq!(fsm.expired(next), Some(Timer::Keepalive));
        step(&mut fsm, Event::Expired(Timer::Keepalive), next);
        // The peer is alive too.
        step(&mut fsm, Event::Keepalive, next);
        gaps.push(next - last);
        last = next;
    }
    let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
    assert!(*least >= Duration::from_millis(2250) && *least < Duration::from_millis(2350));
    assert!(*most <= Duration::from_secs(3) && *most > Duration::from_millis(2900));
}

#[test]
fn an_update_sent_puts_the_keepalive_off_and_any_heard_the_hold_timer() {
    let start = Instant::now();
    let mut fsm = machine(From::Established, start);
    for second in 1..60 {
        let now = start + Duration::from_secs(second);
        fsm.update_sent(now);
        step(&mut fsm, Event::Update, now);
        assert_eq!(fsm.expired(now), None, "after {second} s");
    }
    // ROUTE-REFRESH keeps nothing alive (RFC 4271 section 4.4).
    let mut fsm = machine(From::Established, start);
    step(
        &mut fsm,
        Event::RouteRefresh,
        start + Duration::from_secs(8),
    );
    let seen = run_timers(&mut fsm, start, Duration::from_millis(9500));
    assert_eq!(seen.last(), Some(&(Timer::Hold, Duration::from_secs(9))));
}

#[test]
fn hold_time_zero_means_no_timers() {
    let now = Instant::now();
    let mut fsm = machine(From::OpenSent, now);
    step(&mut fsm, Event::Open { hold_time: 0 }, now);
    assert_eq!(
        (fsm.state(), fsm.next_timeout()),
        (State::OpenConfirm, None)
    );
    step(&mut fsm, Event::Keepalive, now);
    fsm.update_sent(now);
    step(&mut fsm, Event::Update, now);
    assert_eq!(
        (fsm.state(), fsm.next_timeout()),
        (State::Established, None)
    );
}

#[test]
fn the_open_of_the_peer_is_awaited_for_four_minutes() {
    let start = Instant::now();
    let mut fsm = machine(From::OpenSent, start);
    let seen = run_timers(&mut fsm, start, OPEN_HOLD_TIME);
    assert_eq!(seen, [(Timer::Hold, OPEN_HOLD_TIME)]);
}

#[test]
fn connecting_is_tried_again_with_jitter() {
    let mut pauses = Vec::new();
    for seed in 0..100 {
        let start = Instant::now();
        let mut fsm = Fsm::new(terms(), Jitter::new(seed));
        step(&mut fsm, Event::ManualStart, start);
        step(&mut fsm, Event::TcpConnectionFails("refused".into()), start);
        pauses.push(fsm.next_timeout().unwrap() - start);
    }
    let (least, most) = (*pauses.iter().min().unwrap(), *pauses.iter().max().unwrap());
    assert!(
        least >= RETRY * 3 / 4 && most <= RETRY,
        "{least:?} {most:?}"
    );
    assert!(most - least > RETRY / 5, "no spread: {least:?} {most:?}");
}

#[test]
fn failures_are_damped_and_forgotten() {
    let mut now = Instant::now();
    let mut fsm = Fsm::new(terms(), Jitter::new(3));
    step(&mut fsm, Event::ManualStart, now);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        step(&mut fsm, Event::TcpRequestAcked, now);
        step(&mut fsm, Event::Open { hold_time: 9 }, now);
        step(&mut fsm, Event::Keepalive, now);
        step(
            &mut fsm,
            Event::Notification(Notification::cease(Cease::HardReset)),
            now,
        );
        // The system asking for a start does not cut the pause short.
        assert_eq!(step(&mut fsm, Event::AutomaticStart, now), []);
        let next = fsm.next_timeout().unwrap();
        pauses.push(next - now);
        now = next;
        assert_eq!(fsm.expired(now), Some(Timer::IdleHold));
        let actions = step(&mut fsm, Event::Expired(Timer::IdleHold), now);
        assert_eq!(actions, [Action::Connect]);
    }
    for (pause, whole) in pauses.iter().zip([1, 2, 4, 8, 16, 30, 30, 30]) {
        let whole = Duration::from_secs(whole);
        assert!(*pause >= whole * 3 / 4 && *pause <= whole, "{pauses:?}");
    }
    assert_eq!(fsm.connect_retry_counter(), 8);

    // A session that held is a clean slate.
    step(&mut fsm, Event::TcpRequestAcked, now);
    step(&mut fsm, Event::Open { hold_time: 9 }, now);
    step(&mut fsm, Event::Keepalive, now);
    now += Duration::from_secs(31);
    step(&mut fsm, Event::TcpConnectionFails("reset".into()), now);
    assert!(fsm.next_timeout().unwrap() - now <= Duration::from_secs(1));

    // So is the operator's start.
    step(&mut fsm, Event::ManualStop(None), now);
    assert_eq!(fsm.next_timeout(), None);
    assert_eq!(step(&mut fsm, Event::ManualStart, now), [Action::Connect]);
    assert_eq!(fsm.connect_retry_counter(), 0);
}

#[test]
fn the_winner_of_a_collision_takes_over() {
    let now = Instant::now();
    let mut own = machine(From::OpenSent, now);
    own.connect_retry_counter = 2;
    let mut winner = Fsm::for_incoming(terms(), Jitter::new(5));
    step(&mut winner, Event::TcpConnectionConfirmed, now);
    step(&mut winner, Event::Open { hold_time: 9 }, now);
    winner.succeed(&own);
    assert_eq!(winner.state(), State::OpenConfirm);
    step(&mut winner, Event::TcpConnectionFails("reset".into()), now);
    assert_eq!(winner.connect_retry_counter(), 3);
    let next = winner.next_timeout().unwrap();
    assert_eq!(winner.expired(next), Some(Timer::IdleHold));
    let actions = step(&mut winner, Event::Expired(Timer::IdleHold), next);
    assert_eq!(
        actions,
        [Action::Connect],
        "it connects like any machine of the peer"
    );
}

#[test]
fn a_peer_that_reads_nothing_is_given_up_and_one_that_reads_slowly_is_not() {
    // configured; the time it comes to with a hold time of 9 s
    for (send_hold, expected) in [(None, SEND_HOLD_TIME), (Some(60), Duration::from_secs(60))] {
        let start = Instant::now();
        let mut fsm = machine(From::Established, start);
        fsm.set_terms(Terms {
            send_hold: send_hold.map(Duration::from_secs),
            ..terms()
        });
        // Nothing is on its way: nothing can be stuck.
        assert!(!fsm.timers.is_running(Timer::SendHold));
        fsm.handed_over(start);
        // It reads a little now and then, though never all.
        let mut now = start;
        for _ in 0..20 {
            now += expected / 2;
            fsm.handed_over(now);
            fsm.written(true, now);
        }
        // It reads all.
        fsm.written(false, now);
        assert!(!fsm.timers.is_running(Timer::SendHold));
        // It stops, and more to send makes no difference.
        fsm.handed_over(now);
        fsm.handed_over(now + expected / 2);
        let mut ended = None;
        while let Some(next) = fsm.next_timeout().filter(|_| ended.is_none()) {
            while let Some(timer) = fsm.expired(next) {
                if timer == Timer::SendHold {
                    ended = Some(next);
                }
                let actions = step(&mut fsm, Event::Expired(timer), next);
                if timer == Timer::SendHold {
                    let cause = Action::Down(Cause::SendHoldTimerExpired(expected));
                    assert_eq!(actions.last(), Some(&cause));
                }
                // It is alive all the while.
                step(&mut fsm, Event::Keepalive, next);
            }
        }
        assert_eq!(ended, Some(now + expected));
    }
    let mut slow = machine(From::OpenSent, Instant::now());
    step(&mut slow, Event::Open { hold_time: 600 }, Instant::now());
    assert_eq!(slow.send_hold(), Duration::from_secs(1200));
}
