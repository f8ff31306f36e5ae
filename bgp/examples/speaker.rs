//! A plain BGP daemon: the `bgp` crate and nothing else.
//!
//! ```text
//! cargo run --release -p bgp --example speaker -- [--events] FILE.toml
//! ```
//!
//! The file says who the speaker is, whom it peers with and what it announces from the start:
//!
//! ```toml
//! announce = ["10.1.0.0/16", "2001:db8:1::/48"]
//!
//! [speaker]
//! asn = 65001
//! router_id = "10.99.0.1"
//! listen = ["10.99.0.1:179"]
//!
//! [[speaker.peers]]
//! name = "idc1"
//! address = "10.99.0.2"
//! asn = 65002
//! families = ["ipv4"]
//! import = "all"                                   # or "none", or a list of rules
//! export = { local = [{ permit = "10.0.0.0/8", le = 24 }] }  # or "none", "local", "all"
//! ```
//!
//! All fields of `[speaker]` are those of [`bgp::SpeakerConfig`], all of a peer those of
//! [`bgp::PeerConfig`]. A fault is told with the line it is in.
//!
//! On standard input it takes lines `announce PREFIX` and `withdraw PREFIX`, as many at once as
//! there are; empty lines and lines that begin with `#` are nothing. A line that is none of these is
//! told on standard error and skipped. The end of the input ends nothing.
//!
//! With `--events` it prints one JSON object a line for each thing that happens to a session or to
//! the table. On SIGUSR1 it prints one with counts: prefixes received, accepted, advertised and
//! pending by peer and in all, and its resident memory in bytes. On SIGTERM and SIGINT it says
//! goodbye to its peers (Cease) and ends.

use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use bgp::{Announcement, ConfigError, Event, Prefix, Speaker, SpeakerConfig, Stop, Subscription};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use toml::Spanned;

const USAGE: &str = "usage: speaker [--events] FILE.toml";
/// Octets of standard input read in one go, at most; a line is much shorter.
const READ: usize = 1 << 18;
/// The longest line of standard input, octets.
const LONGEST_LINE: usize = 1 << 10;
/// Batches of orders that may wait: reading waits when the speaker is behind.
const BATCHES: usize = 4;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let (path, show_events) = arguments(std::env::args().skip(1))?;
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let file = File::parse(&path, &text)?;
    // Before anything is up, so that a signal finds somebody.
    let mut goodbye = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [Ok(terminate), Ok(interrupt)] = &mut goodbye else {
        return Err("cannot listen for signals".into());
    };
    let mut ask = signal(SignalKind::user_defined1())?;

    let speaker = Speaker::start(file.speaker)?;
    let mut events = show_events.then(|| speaker.subscribe());
    let announced = file.announce.into_iter().map(Announcement::new).collect();
    speaker.announce(announced).await?;
    speaker.initial_routes_complete().await;
    let mut orders = read_orders();
    loop {
        tokio::select! {
            Some(batch) = orders.recv() => for order in batch {
                match order {
                    Order::Announce(routes) => speaker.announce(routes).await?,
                    Order::Withdraw(prefixes) => speaker.withdraw(prefixes).await?,
                }
            },
            Some(batch) = next(&mut events) => print_lines(&batch)?,
            _ = ask.recv() => print_lines(&[counts(&speaker).await])?,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    speaker.stop(Stop::Cease(None)).await;
    Ok(())
}

fn arguments(arguments: impl Iterator<Item = String>) -> Result<(PathBuf, bool), String> {
    let (options, files): (Vec<_>, Vec<_>) = arguments.partition(|word| word.starts_with('-'));
    if let Some(unknown) = options.iter().find(|option| *option != "--events") {
        return Err(format!("unknown option {unknown}; {USAGE}"));
    }
    match <[String; 1]>::try_from(files) {
        Ok([file]) => Ok((file.into(), !options.is_empty())),
        Err(_) => Err(USAGE.to_owned()),
    }
}

/// The configuration file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// What is announced from the start.
    #[serde(default)]
    announce: Vec<Prefix>,
    speaker: SpeakerConfig,
}

impl File {
    /// Reads and checks; the error names file and line.
    fn parse(path: &Path, text: &str) -> Result<File, String> {
        let file: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message();
            format!("{}:{}: {message}", path.display(), line_of(text, at))
        })?;
        file.speaker.check().map_err(|error| {
            let line = line_of(text, place_of(&error, text));
            format!("{}:{line}: {error}", path.display())
        })?;
        Ok(file)
    }
}

/// The line that holds the octet, from 1.
fn line_of(text: &str, octet: usize) -> usize {
    let before = text.bytes().take(octet);
    before.filter(|octet| *octet == b'\n').count() + 1
}

/// Where in the file the fault is that only the whole shows.
fn place_of(error: &ConfigError, text: &str) -> usize {
    /// The file once more, for the places of its tables.
    #[derive(Deserialize)]
    struct Places {
        speaker: Spanned<toml::Table>,
    }
    #[derive(Deserialize)]
    struct Peers {
        speaker: PeerList,
    }
    #[derive(Deserialize)]
    struct PeerList {
        #[serde(default)]
        peers: Vec<Spanned<toml::Table>>,
    }
    let named = |name: &str| {
        let peers = toml::from_str::<Peers>(text).ok()?.speaker.peers;
        // Of two with that name it is the second that is too many.
        let peer = peers.into_iter().rev().find(|peer| {
            let named = peer.get_ref().get("name").and_then(toml::Value::as_str);
            named == Some(name)
        })?;
        Some(peer.span().start)
    };
    let place = match error {
        ConfigError::Peer { peer, .. } => named(peer.as_str()),
        ConfigError::DuplicateName(peer) => named(peer.as_str()),
        ConfigError::DuplicateAddress { second, .. } => named(second.as_str()),
        _ => None,
    };
    let speaker = || Some(toml::from_str::<Places>(text).ok()?.speaker.span().start);
    place.or_else(speaker).unwrap_or(0)
}

/// What standard input wants done, in its order; neighbours of one kind together.
#[derive(Debug, PartialEq, Eq)]
enum Order {
    Announce(Vec<Announcement>),
    Withdraw(Vec<Prefix>),
}

/// A line of standard input that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum LineError {
    #[error("expected `announce PREFIX` or `withdraw PREFIX`, got {0:?}")]
    Words(String),
    #[error(transparent)]
    Prefix(#[from] bgp::PrefixError),
    #[error("over {LONGEST_LINE} octets without an end")]
    TooLong,
}

/// Reads standard input on a thread of its own: it cannot be waited for otherwise if it is a file.
fn read_orders() -> mpsc::Receiver<Vec<Order>> {
    let (sender, orders) = mpsc::channel(BATCHES);
    thread::spawn(move || {
        let mut input = io::BufReader::with_capacity(READ, io::stdin());
        let mut lines = Lines::default();
        loop {
            let octets = match input.fill_buf() {
                Ok([]) => return,
                Ok(octets) => octets,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return complain(&format!("standard input: {error}")),
            };
            let mut batch = Vec::new();
            lines.take(octets, &mut batch, |line, error| {
                complain(&format!("standard input, line {line}: {error}"));
            });
            let taken = octets.len();
            input.consume(taken);
            if !batch.is_empty() && sender.blocking_send(batch).is_err() {
                return;
            }
        }
    });
    orders
}

/// Cuts what was read into lines; holds the last one until its end comes.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
    /// The rest of a line that is too long is thrown away.
    skipping: bool,
    number: usize,
}

impl Lines {
    fn take(
        &mut self,
        octets: &[u8],
        batch: &mut Vec<Order>,
        mut wrong: impl FnMut(usize, LineError),
    ) {
        for piece in octets.split_inclusive(|octet| *octet == b'\n') {
            let Some(end) = piece.strip_suffix(b"\n") else {
                self.keep(piece, &mut wrong);
                continue;
            };
            self.number += 1;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            let outcome = if self.rest.is_empty() {
                order(end, batch)
            } else {
                self.rest.extend_from_slice(end);
                order(&std::mem::take(&mut self.rest), batch)
            };
            if let Err(error) = outcome {
                wrong(self.number, error);
            }
        }
    }

    fn keep(&mut self, piece: &[u8], wrong: &mut impl FnMut(usize, LineError)) {
        if self.skipping {
            return;
        }
        self.rest.extend_from_slice(piece);
        if self.rest.len() > LONGEST_LINE {
            self.rest.clear();
            self.skipping = true;
            wrong(self.number + 1, LineError::TooLong);
        }
    }
}

/// One line, added to what is to be done.
fn order(line: &[u8], batch: &mut Vec<Order>) -> Result<(), LineError> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(());
    }
    let mut words = text.split_ascii_whitespace();
    let (verb, prefix) = match (words.next(), words.next(), words.next()) {
        (Some(verb @ ("announce" | "withdraw")), Some(prefix), None) => (verb, prefix),
        _ => return Err(LineError::Words(text.to_owned())),
    };
    let prefix = prefix.parse()?;
    match (verb, batch.last_mut()) {
        ("announce", Some(Order::Announce(routes))) => routes.push(Announcement::new(prefix)),
        ("announce", _) => batch.push(Order::Announce(vec![Announcement::new(prefix)])),
        (_, Some(Order::Withdraw(prefixes))) => prefixes.push(prefix),
        (_, _) => batch.push(Order::Withdraw(vec![prefix])),
    }
    Ok(())
}

/// The next events; never without a subscription.
async fn next(events: &mut Option<Subscription>) -> Option<Vec<Event>> {
    match events {
        Some(events) => events.next_batch().await,
        None => std::future::pending().await,
    }
}

/// What SIGUSR1 asks for.
async fn counts(speaker: &Speaker) -> serde_json::Value {
    let peers = speaker.peers().await;
    let total = |count: fn(&bgp::PrefixCounts) -> usize| -> usize {
        let families = peers.iter().flat_map(|peer| peer.prefixes.values());
        families.map(count).sum()
    };
    let by_peer = peers.iter().map(|peer| {
        serde_json::json!({ "name": peer.name, "state": peer.state, "prefixes": peer.prefixes })
    });
    serde_json::json!({
        "event": "counts",
        "peers": by_peer.collect::<Vec<_>>(),
        "total": {
            "received": total(|count| count.received),
            "accepted": total(|count| count.accepted),
            "advertised": total(|count| count.advertised),
            "pending": total(|count| count.pending),
        },
        "resident_bytes": resident(),
    })
}

/// Our resident memory in bytes, where /proc tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The one writer of standard output: a JSON object a line, all of them at once.
fn print_lines<T: serde::Serialize>(values: &[T]) -> io::Result<()> {
    let mut text = Vec::new();
    for value in values {
        serde_json::to_writer(&mut text, value)?;
        text.push(b'\n');
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(&text)?;
    stdout.flush()
}

/// The one writer of standard error.
fn complain(message: &dyn fmt::Display) {
    // There is nobody else to tell.
    let _ = writeln!(io::stderr(), "speaker: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(pieces: &[&str]) -> (Vec<Order>, Vec<(usize, String)>) {
        let (mut lines, mut batch, mut faults) = (Lines::default(), Vec::new(), Vec::new());
        for piece in pieces {
            lines.take(piece.as_bytes(), &mut batch, |line, error| {
                faults.push((line, error.to_string()));
            });
        }
        (batch, faults)
    }

    fn announce(prefixes: &[&str]) -> Order {
        let routes = prefixes
            .iter()
            .map(|prefix| Announcement::new(prefix.parse().unwrap()));
        Order::Announce(routes.collect())
    }

    #[test]
    fn lines_become_orders_however_they_are_cut() {
        let text = "# comment\nannounce 10.1.0.0/16\n\nannounce 10.2.0.0/16\r\n\
                    withdraw 10.1.0.0/16\nannounce 2001:db8::/32\nannounce 10.9";
        let expected = [
            announce(&["10.1.0.0/16", "10.2.0.0/16"]),
            Order::Withdraw(vec!["10.1.0.0/16".parse().unwrap()]),
            announce(&["2001:db8::/32"]),
        ];
        for cut in 0..text.len() {
            let (first, second) = text.split_at(cut);
            assert_eq!(taken(&[first, second]).0, expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_bad_line_is_named_and_the_rest_is_done() {
        let long = "x".repeat(LONGEST_LINE + 1);
        let text = "announce\nannounce 10.0.0.1/8\nforget 10.0.0.0/8\nannounce 10.0.0.0/8\n";
        let (orders, faults) = taken(&[text, &long, "more", "\nannounce 11.0.0.0/8\n"]);
        assert_eq!(orders, [announce(&["10.0.0.0/8", "11.0.0.0/8"])]);
        let lines: Vec<usize> = faults.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 3, 5], "{faults:?}");
        assert!(faults[1].1.contains("host bits"), "{faults:?}");
    }

    #[test]
    fn faults_of_the_file_name_their_line() {
        let head = "announce = []\n[speaker]\nasn = 65001\nrouter_id = \"10.99.0.1\"\n";
        let peer = |name: &str, address: &str, rest: &str| {
            format!(
                "[[speaker.peers]]\nname = \"{name}\"\naddress = \"{address}\"\nasn = 65002\n{rest}"
            )
        };
        let (a, b) = (peer("a", "10.99.0.2", ""), peer("b", "10.99.0.2", ""));
        let rows = [
            (format!("{head}{a}"), None),
            (
                format!("anounce = []\n{head}"),
                Some("F:1: unknown field `anounce`"),
            ),
            (
                format!("{head}{}", peer("a", "10.99.0.2", "hold_time = 1\n")),
                Some("F:9: hold_time"),
            ),
            (
                format!("{head}{a}{}", peer("b", "0.0.0.0", "")),
                Some("F:9: peer b: address 0.0.0.0"),
            ),
            (
                format!("{head}{a}{b}"),
                Some("F:9: peers a and b have the same address"),
            ),
            (head.replace("65001", "0"), Some("F:2: asn: 0 is reserved")),
            ("[speaker\n".to_owned(), Some("F:1: ")),
        ];
        for (text, expected) in rows {
            let error = File::parse(Path::new("F"), &text).err();
            match (expected, &error) {
                (None, None) => {}
                (Some(expected), Some(error)) if error.starts_with(expected) => {}
                _ => panic!("{expected:?} expected of\n{text}\ngot {error:?}"),
            }
        }
    }

    #[test]
    fn arguments_are_a_file_and_perhaps_events() {
        let words = |words: &[&str]| arguments(words.iter().map(|word| (*word).to_owned()));
        assert_eq!(words(&["F"]), Ok(("F".into(), false)));
        assert_eq!(words(&["F", "--events"]), Ok(("F".into(), true)));
        assert!(words(&["--event", "F"]).unwrap_err().contains("--event"));
        assert_eq!(words(&["F", "G"]).unwrap_err(), USAGE);
    }
}
