//! A drain, phase by phase and input by input; and whole ones.

use std::collections::BTreeMap;

use super::*;

const MS: Duration = Duration::from_millis(1);
const TERMS: Terms = Terms {
    settle: Duration::from_secs(5),
    wait: Duration::from_secs(3),
    threshold: 1.0,
    remember: true,
};
const SINCE: u64 = 1_764_138_678;

fn peer(name: &str) -> PeerName {
    name.parse().expect("a name")
}

fn counts(to_vpc: u64, from_vpc: u64) -> Counts {
    let ways = Ways { to_vpc, from_vpc };
    let link = Carrier::Link("web".parse().expect("a link"));
    let idle = Carrier::Link("idle".parse().expect("a link"));
    Counts {
        total: ways,
        carriers: BTreeMap::from([(link, ways), (idle, Ways::default())]),
    }
}

/// A drain, its clock, and what it has asked.
struct Bench {
    drain: Drain,
    now: Instant,
    ticket: Ticket,
    /// Packets that have come so far, and that come in a second.
    come: [u64; 2],
    rate: [u64; 2],
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Drain,
    Undrain,
    Announced,
    Flushed,
    /// One peer has not taken it.
    Late,
    Counted,
    Uncounted,
    /// An answer to a question that is no longer open.
    Stale,
    /// The time comes that it waits for.
    Time,
}

const INPUTS: [Input; 9] = [
    Input::Drain,
    Input::Undrain,
    Input::Announced,
    Input::Flushed,
    Input::Late,
    Input::Counted,
    Input::Uncounted,
    Input::Stale,
    Input::Time,
];

impl Bench {
    fn new() -> Bench {
        Bench::of(None)
    }

    fn of(drained: Option<u64>) -> Bench {
        Bench {
            drain: Drain::new(drained),
            now: Instant::now(),
            ticket: Ticket(0),
            come: [1000, 2000],
            rate: [100, 50],
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let millis = u64::try_from(time.as_millis()).expect("a short time");
        for (come, rate) in self.come.iter_mut().zip(self.rate) {
            *come += rate * millis / 1000;
        }
    }

    /// What it does about an input, in words.
    fn feed(&mut self, input: Input) -> String {
        let (drain, ticket, now) = (&mut self.drain, self.ticket, self.now);
        let told = vec![peer("a"), peer("b")];
        let [to_vpc, from_vpc] = self.come;
        match input {
            Input::Drain => drain.drain(TERMS, SINCE, now),
            Input::Undrain => drain.undrain(Duration::from_secs(7)),
            Input::Announced => drain.announced(ticket, 4, 3, now),
            Input::Flushed => drain.flushed(ticket, told, vec![], now),
            Input::Late => drain.flushed(ticket, vec![peer("a")], vec![peer("b")], now),
            Input::Counted => drain.counted(ticket, Ok(counts(to_vpc, from_vpc)), now),
            Input::Uncounted => drain.counted(ticket, Err("no map".to_owned()), now),
            Input::Stale => {
                let stale = Ticket(ticket.0.wrapping_sub(1));
                drain.announced(stale, 9, 9, now);
                drain.flushed(stale, vec![], vec![peer("c")], now);
                drain.counted(stale, Ok(counts(0, 0)), now);
            }
            Input::Time => {
                if let Some(at) = self.drain.next_timeout() {
                    self.pass(at.saturating_duration_since(now));
                }
            }
        }
        self.poll()
    }

    fn poll(&mut self) -> String {
        let mut said = Vec::new();
        while let Some(output) = self.drain.poll(self.now) {
            said.push(match output {
                Output::Remember(Some(SINCE)) => "remember".to_owned(),
                Output::Remember(None) => "forget".to_owned(),
                Output::Remember(Some(other)) => panic!("since {other}"),
                Output::Mark(true) => "mark".to_owned(),
                Output::Mark(false) => "unmark".to_owned(),
                Output::Announce(announcing, ticket) => {
                    self.ticket = ticket;
                    format!("{announcing:?}")
                }
                Output::Flush(wait, ticket) => {
                    self.ticket = ticket;
                    format!("flush {} ms", wait.as_millis())
                }
                Output::Count(ticket) => {
                    self.ticket = ticket;
                    "count".to_owned()
                }
            });
        }
        said.join(", ")
    }

    fn feed_all(mut self, inputs: &[Input]) -> Bench {
        for input in inputs {
            self.feed(*input);
        }
        self
    }

    fn stands(&self) -> String {
        let Report { state, step, .. } = self.drain.report();
        match step {
            Some(step) => format!("{step:?}"),
            None => format!("{state:?}"),
        }
    }
}

use Input::{Announced, Counted, Flushed, Late, Time, Uncounted, Undrain};

/// The way to each place: what happens, in order.
const PLACES: &[(&str, &[Input])] = &[
    ("serving", &[]),
    ("counting", &[Input::Drain]),
    ("counted once", &[Input::Drain, Counted]),
    ("telling", &[Input::Drain, Counted, Time, Counted]),
    ("settling", &[Input::Drain, Counted, Time, Counted, Flushed]),
    (
        "settled",
        &[
            Input::Drain,
            Counted,
            Time,
            Counted,
            Flushed,
            Time,
            Counted,
            Time,
        ],
    ),
    (
        "withdrawing",
        &[
            Input::Drain,
            Counted,
            Time,
            Counted,
            Flushed,
            Time,
            Counted,
            Time,
            Counted,
        ],
    ),
    (
        "withdrawn",
        &[
            Input::Drain,
            Counted,
            Time,
            Counted,
            Flushed,
            Time,
            Counted,
            Time,
            Counted,
            Announced,
        ],
    ),
    (
        "measuring",
        &[
            Input::Drain,
            Counted,
            Time,
            Counted,
            Flushed,
            Time,
            Counted,
            Time,
            Counted,
            Announced,
            Flushed,
        ],
    ),
    (
        "measured once",
        &[
            Input::Drain,
            Counted,
            Time,
            Counted,
            Flushed,
            Time,
            Counted,
            Time,
            Counted,
            Announced,
            Flushed,
            Counted,
            Time,
        ],
    ),
    (
        "drained",
        &[
            Input::Drain,
            Counted,
            Time,
            Counted,
            Flushed,
            Time,
            Counted,
            Time,
            Counted,
            Announced,
            Flushed,
            Counted,
            Time,
            Uncounted,
        ],
    ),
    ("returning", &[Input::Drain, Undrain]),
    ("returned", &[Input::Drain, Undrain, Announced]),
];

/// Place, input, what it does, where it stands then. Whatever is not named does nothing and stays.
const TABLE: &[(&str, Input, &str, &str)] = &[
    (
        "serving",
        Input::Drain,
        "NothingNew, remember, count",
        "Counting",
    ),
    (
        "counting",
        Undrain,
        "forget, unmark, Everything",
        "Returning",
    ),
    ("counting", Uncounted, "mark, flush 5000 ms", "Telling"),
    (
        "counted once",
        Undrain,
        "forget, unmark, Everything",
        "Returning",
    ),
    ("counted once", Time, "count", "Counting"),
    (
        "telling",
        Undrain,
        "forget, unmark, Everything",
        "Returning",
    ),
    ("telling", Flushed, "", "Settling"),
    ("telling", Late, "", "Settling"),
    (
        "settling",
        Undrain,
        "forget, unmark, Everything",
        "Returning",
    ),
    ("settling", Time, "count", "Settling"),
    (
        "settled",
        Undrain,
        "forget, unmark, Everything",
        "Returning",
    ),
    ("settled", Counted, "Nothing", "Withdrawing"),
    ("settled", Uncounted, "Nothing", "Withdrawing"),
    (
        "withdrawing",
        Undrain,
        "forget, unmark, Everything",
        "Returning",
    ),
    ("withdrawing", Announced, "flush 3000 ms", "Withdrawing"),
    (
        "withdrawn",
        Undrain,
        "forget, unmark, Everything",
        "Returning",
    ),
    ("withdrawn", Flushed, "count", "Measuring"),
    ("withdrawn", Late, "count", "Measuring"),
    (
        "measuring",
        Undrain,
        "forget, unmark, Everything",
        "Returning",
    ),
    ("measuring", Uncounted, "", "Drained"),
    (
        "measured once",
        Undrain,
        "forget, unmark, Everything",
        "Returning",
    ),
    // Packets still come, and there is time left.
    ("measured once", Counted, "", "Measuring"),
    ("measured once", Uncounted, "", "Drained"),
    ("drained", Input::Drain, "Nothing", "Withdrawing"),
    (
        "drained",
        Undrain,
        "forget, unmark, Everything",
        "Returning",
    ),
    (
        "returning",
        Input::Drain,
        "NothingNew, remember, count",
        "Counting",
    ),
    ("returning", Undrain, "unmark, Everything", "Returning"),
    ("returning", Announced, "flush 7000 ms", "Returning"),
    (
        "returned",
        Input::Drain,
        "NothingNew, remember, count",
        "Counting",
    ),
    ("returned", Undrain, "unmark, Everything", "Returning"),
    ("returned", Flushed, "", "Serving"),
    ("returned", Late, "", "Serving"),
];

#[test]
fn every_input_in_every_phase_does_what_the_table_says() {
    let mut rows = 0;
    for (place, way) in PLACES {
        for input in INPUTS {
            let mut bench = Bench::new().feed_all(way);
            let before = bench.stands();
            let row = TABLE
                .iter()
                .find(|(at, of, ..)| at == place && *of == input);
            rows += usize::from(row.is_some());
            let (does, stands) = row.map_or(("", before.as_str()), |row| (row.2, row.3));
            assert_eq!(bench.feed(input), does, "{place}: {input:?}");
            assert_eq!(bench.stands(), stands, "{place}: {input:?}");
        }
    }
    assert_eq!(rows, TABLE.len(), "every row was of some place");
}

#[test]
fn a_drain_tells_its_figures() {
    let mut bench = Bench::new();
    bench.feed(Input::Drain);
    let report = bench.drain.report();
    assert_eq!((report.since, report.remembered), (Some(SINCE), true));
    for input in [Counted, Time, Counted, Flushed] {
        bench.feed(input);
    }
    let report = bench.drain.report();
    assert_eq!(report.peers_told, ["a", "b"].map(peer));
    let before = Rate {
        to_vpc: 100.0,
        from_vpc: 50.0,
    };
    assert_eq!(report.packets_per_s.before, Some(before));
    // The last second of the time to settle is what counts.
    bench.rate = [7, 50];
    assert_eq!(
        bench.drain.next_timeout(),
        Some(bench.now + TERMS.settle - INTERVAL)
    );
    for input in [Time, Counted, Time, Counted, Announced, Flushed] {
        bench.feed(input);
    }
    let report = bench.drain.report();
    let after = report.packets_per_s.after_gshut.expect("measured");
    assert_eq!((after.to_vpc, after.from_vpc), (7.0, 50.0));
    assert_eq!(report.prefixes_withdrawn, Some(4));
    assert_eq!(report.safe_to_stop, None);
    // Somebody sends for a while yet, and then nobody does.
    bench.rate = [0, 50];
    for input in [Counted, Time, Counted] {
        bench.feed(input);
    }
    assert_eq!(bench.stands(), "Measuring");
    bench.rate = [1, 0];
    for input in [Time, Counted] {
        bench.feed(input);
    }
    let report = bench.drain.report();
    assert_eq!(
        (report.state, report.safe_to_stop),
        (State::Drained, Some(true))
    );
    assert_eq!(report.why_not, None);
    let last = report.packets_per_s.after_withdrawal.expect("measured");
    assert_eq!((last.to_vpc, last.from_vpc), (1.0, 0.0));
}

#[test]
fn who_still_carries_is_named_when_time_is_over() {
    let mut bench = Bench::new().feed_all(PLACES[8].1);
    let began = bench.now;
    bench.feed(Counted);
    while bench.stands() == "Measuring" {
        bench.feed(Time);
        bench.feed(Counted);
    }
    assert_eq!(bench.now, began + TERMS.wait);
    let report = bench.drain.report();
    assert_eq!(report.safe_to_stop, Some(false));
    let why_not = report.why_not.expect("a reason");
    for part in [
        "100 packets/s to VPCs and 50 from VPCs still come: link web (100 packets/s to VPCs and",
        "moved by who configures them, not by BGP",
    ] {
        assert!(why_not.contains(part), "{why_not}");
    }
    assert!(!why_not.contains("idle"), "{why_not}");
    let json = serde_json::to_value(&report.carriers).unwrap();
    assert_eq!(
        json,
        serde_json::json!([{"link": "web", "to_vpc": 100.0, "from_vpc": 50.0}])
    );
    // Asked again it looks again, and what was withdrawn was withdrawn before.
    bench.rate = [0, 0];
    bench.feed(Input::Drain);
    bench.drain.announced(bench.ticket, 0, 0, bench.now);
    bench.poll();
    for input in [Flushed, Counted, Time, Counted] {
        bench.feed(input);
    }
    let report = bench.drain.report();
    assert_eq!((report.safe_to_stop, report.why_not), (Some(true), None));
    assert_eq!(report.prefixes_withdrawn, Some(4));
}

#[test]
fn a_peer_that_does_not_take_the_withdrawal_is_no_safe_one() {
    let mut bench = Bench::new().feed_all(PLACES[7].1);
    bench.rate = [0, 0];
    for input in [Late, Counted, Time, Counted] {
        bench.feed(input);
    }
    let report = bench.drain.report();
    assert_eq!(report.safe_to_stop, Some(false));
    assert_eq!(
        report.why_not.as_deref(),
        Some("b may not have the withdrawal")
    );
}

#[test]
fn what_is_not_to_settle_is_withdrawn_at_once() {
    let mut bench = Bench::new();
    let terms = Terms {
        settle: Duration::ZERO,
        wait: Duration::ZERO,
        remember: false,
        ..TERMS
    };
    bench.drain.drain(terms, SINCE, bench.now);
    assert_eq!(bench.poll(), "NothingNew, count");
    for input in [Counted, Time, Counted] {
        bench.feed(input);
    }
    assert_eq!(bench.feed(Flushed), "Nothing");
    assert_eq!(bench.drain.report().packets_per_s.after_gshut, None);
    // An operator's order counts beside that of an agent that stops.
    assert_eq!(bench.feed(Input::Drain), "remember");
    assert!(terms.longest() < TERMS.longest());
}

#[test]
fn a_short_time_to_settle_is_measured_as_it_is() {
    let mut bench = Bench::new();
    let settle = Duration::from_millis(200);
    bench
        .drain
        .drain(Terms { settle, ..TERMS }, SINCE, bench.now);
    bench.poll();
    for input in [Counted, Time, Counted, Flushed] {
        bench.feed(input);
    }
    let began = bench.now;
    for input in [Time, Counted, Time, Counted] {
        bench.feed(input);
    }
    assert_eq!(bench.now, began + settle);
    let rate = bench
        .drain
        .report()
        .packets_per_s
        .after_gshut
        .expect("measured");
    assert_eq!(rate.to_vpc.round(), 100.0);
}

#[test]
fn a_drained_gateway_is_drained_after_a_restart_and_may_be_measured() {
    let mut bench = Bench::of(Some(SINCE));
    assert_eq!(bench.poll(), "");
    let report = bench.drain.report();
    assert_eq!(
        (
            report.state,
            report.since,
            report.safe_to_stop,
            report.remembered
        ),
        (State::Drained, Some(SINCE), None, true)
    );
    assert_eq!(bench.feed(Input::Drain), "Nothing");
    let mut bench = Bench::of(Some(SINCE));
    assert_eq!(bench.feed(Undrain), "forget, unmark, Everything");
    for input in [Announced, Flushed] {
        bench.feed(input);
    }
    let report = bench.drain.report();
    assert_eq!((report.state, report.since), (State::Serving, None));
    assert_eq!(report.prefixes_announced, Some(3));
    assert_eq!(bench.feed(Undrain), "", "it serves");
    assert_eq!(bench.drain.report(), Report::default());
}

#[test]
fn what_cannot_be_kept_is_not_said_to_be() {
    let mut bench = Bench::new().feed_all(&[Input::Drain]);
    bench.drain.not_kept(Some(SINCE));
    assert!(!bench.drain.report().remembered);
    bench.feed(Undrain);
    bench.drain.not_kept(None);
    assert!(bench.drain.report().remembered, "the file is still there");
}

#[test]
fn terms_that_make_no_sense_are_named() {
    let hour = Duration::from_secs(3600);
    for (terms, expected) in [
        (TERMS, None),
        (
            Terms {
                settle: hour,
                ..TERMS
            },
            None,
        ),
        (
            Terms {
                settle: hour + MS,
                ..TERMS
            },
            Some("settle"),
        ),
        (
            Terms {
                wait: hour * 2,
                ..TERMS
            },
            Some("wait"),
        ),
        (
            Terms {
                threshold: f64::NAN,
                ..TERMS
            },
            Some("threshold"),
        ),
        (
            Terms {
                threshold: -1.0,
                ..TERMS
            },
            Some("threshold"),
        ),
    ] {
        let fault = terms.first_fault().map(|(field, _)| field);
        assert_eq!(fault, expected, "{terms:?}");
    }
}
