//! Those who watch the core closely, served by the driver: BMP stations, the MRT log, and table
//! dumps under way.
//!
//! Whatever takes long is done piece by piece, and only while its receiver keeps pace.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::debug;

use super::station::{self, Joined, Outlet};
use crate::bmp::report::{Report, View, named};
use crate::bmp::{self, Statistic, Termination, termination_reason};
use crate::config::{BmpCollector, MrtConfig, PeerName, SpeakerConfig};
use crate::core::{Core, Place};
use crate::event::PeerStatus;
use crate::mrt::dump::{self, DumpError, Dumped, Piece};
use crate::mrt::log::Log;
use crate::mrt::{PeerEntry, PeerIndexTable, Timestamp, event};
use crate::tap::{Accepted, Taken, Tap, Up, Watch};
use crate::wire::{Family, Nlri};

/// Prefixes looked at in one go, for each dump and each station.
const PIECE: u32 = 2048;
/// A station that has less than this to read is told more of the table.
const LOW_WATER: usize = 1 << 20;
/// How often we look again whether a station or a disk has made room.
const POLL: Duration = Duration::from_millis(5);
/// Pieces of a dump that may wait for the disk.
const PIECES: usize = 8;
/// How long stations get to hear the end.
const FAREWELL: Duration = Duration::from_secs(2);

pub(super) struct Watchers {
    name: String,
    collector: std::net::Ipv4Addr,
    log: Option<Log>,
    log_config: Option<MrtConfig>,
    stations: Vec<Station>,
    joins: mpsc::Receiver<Joined>,
    tasks: Vec<JoinHandle<()>>,
    counters: HashMap<PeerName, Counters>,
    dumps: Vec<Dump>,
}

struct Station {
    config: BmpCollector,
    session: Option<Session>,
}

/// A connected station.
struct Session {
    outlet: Outlet,
    /// How far it has been told the table.
    place: Option<Place>,
    next_statistics: Option<Instant>,
}

/// What RFC 7854 section 4.8 counts and nobody else does, since the session began.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    updates_as_withdrawals: u32,
    prefixes_as_withdrawals: u32,
}

struct Dump {
    place: Option<Place>,
    pieces: mpsc::Sender<Piece>,
}

impl Watchers {
    /// Opens the log and starts connecting to the stations.
    ///
    /// # Errors
    /// The log's file cannot be opened.
    pub(super) fn start(config: &SpeakerConfig) -> std::io::Result<Watchers> {
        let log = config.mrt.as_ref().map(Log::open).transpose()?;
        let (stations, joins, tasks) = connect(&config.bmp);
        Ok(Watchers {
            name: nix::unistd::gethostname()
                .ok()
                .and_then(|name| name.into_string().ok())
                .unwrap_or_else(|| config.router_id.to_string()),
            collector: config.router_id,
            log,
            log_config: config.mrt.clone(),
            stations,
            joins,
            tasks,
            counters: HashMap::new(),
            dumps: Vec::new(),
        })
    }

    /// Takes over another configuration: what has not changed goes on undisturbed.
    ///
    /// # Errors
    /// The log's file cannot be opened; nothing is changed then.
    pub(super) fn reconfigure(&mut self, config: &SpeakerConfig) -> std::io::Result<()> {
        if self.log_config != config.mrt {
            self.log = config.mrt.as_ref().map(Log::open).transpose()?;
            self.log_config = config.mrt.clone();
        }
        let same = |(station, config): (&Station, &BmpCollector)| station.config == *config;
        let unchanged = self.stations.len() == config.bmp.len()
            && self.stations.iter().zip(&config.bmp).all(same);
        if !unchanged {
            self.dismiss();
            // The tasks of before end by themselves when they have said so.
            (self.stations, self.joins, self.tasks) = connect(&config.bmp);
        }
        Ok(())
    }

    /// What the core is to report for us.
    pub(super) fn watch(&self) -> Watch {
        Watch {
            sessions: self.log.is_some() || !self.stations.is_empty(),
            accepted: self
                .stations
                .iter()
                .any(|station| station.config.post_policy),
        }
    }

    /// The next station that has connected; `None` if none ever will. Safe to cancel.
    pub(super) async fn joined(&mut self) -> Option<Joined> {
        self.joins.recv().await
    }

    /// Tells a station what is the case. The table follows piece by piece, and what happens
    /// meanwhile in between: it is always told what is so at the time.
    pub(super) fn join(&mut self, core: &mut Core, joined: Joined) {
        let Some(station) = self.stations.get_mut(joined.station) else {
            return;
        };
        let now = Timestamp::from_system(SystemTime::now());
        let mut report = Report::default();
        let description = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
        report.initiation(&self.name, description);
        for up in core.sessions() {
            report.peer_up(up, now);
        }
        let mut outlet = joined.outlet;
        if report.take().is_some_and(|octets| outlet.send(octets)) {
            let interval = station.config.stats_interval();
            station.session = Some(Session {
                outlet,
                place: station.config.post_policy.then(Place::default),
                next_statistics: interval.map(|interval| Instant::now() + interval),
            });
            if station.config.pre_policy {
                ask_again(core);
            }
        }
    }

    /// Passes on what has happened, and does a piece of what takes long.
    pub(super) fn work(&mut self, core: &mut Core) {
        if self.watch().sessions {
            let taps = core.take_taps();
            if !taps.is_empty() {
                self.pass_on(&taps);
            }
            self.tell_tables(core);
            self.tell_statistics(core);
        }
        self.dumps.retain_mut(|dump| dump.go_on(core));
    }

    /// When to be called again although nothing happens.
    pub(super) fn wake_up(&self) -> Option<Instant> {
        let now = Instant::now();
        let sessions = || {
            self.stations
                .iter()
                .filter_map(|station| station.session.as_ref())
        };
        let tables = sessions().filter(|session| session.place.is_some());
        let tables = tables.map(|session| match session.outlet.waiting() < LOW_WATER {
            true => now,
            false => now + POLL,
        });
        let dumps = self.dumps.iter().map(|dump| match dump.pieces.capacity() {
            0 => now + POLL,
            _ => now,
        });
        let statistics = sessions().filter_map(|session| session.next_statistics);
        tables.chain(dumps).chain(statistics).min()
    }

    fn pass_on(&mut self, taps: &[Tap]) {
        let now = Timestamp::from_system(SystemTime::now());
        if let Some(log) = &self.log {
            let mut records = BytesMut::new();
            for record in taps.iter().filter_map(|tap| event::record(tap, now)) {
                if let Err(error) = record.put(&mut records) {
                    debug!(%error, "an MRT record was left out");
                }
            }
            if !records.is_empty() {
                log.put(records.freeze());
            }
        }
        for tap in taps {
            self.count(tap);
        }
        // Stations that want the same are told the same octets.
        for (pre_policy, post_policy) in [(true, false), (false, true), (true, true)] {
            let alike = |station: &&mut Station| {
                let config = &station.config;
                (config.pre_policy, config.post_policy) == (pre_policy, post_policy)
                    && station.session.is_some()
            };
            let mut octets = None;
            for station in self.stations.iter_mut().filter(alike) {
                let octets = octets.get_or_insert_with(|| {
                    let mut report = Report::default();
                    for tap in taps {
                        tell(&mut report, tap, pre_policy, post_policy, now);
                    }
                    report.take()
                });
                if let Some(octets) = octets {
                    station.send(octets.clone());
                }
            }
        }
    }

    fn count(&mut self, tap: &Tap) {
        match tap {
            Tap::Up(up) => {
                self.counters
                    .insert(up.ends.name.clone(), Counters::default());
            }
            Tap::Down { up, .. } => {
                self.counters.remove(&up.ends.name);
            }
            Tap::Received {
                octets,
                update: Some((up, Taken::AsWithdrawal)),
                ..
            } => {
                let prefixes = u32::try_from(named(up, octets).len()).unwrap_or(u32::MAX);
                let counters = self.counters.entry(up.ends.name.clone()).or_default();
                counters.updates_as_withdrawals = counters.updates_as_withdrawals.wrapping_add(1);
                counters.prefixes_as_withdrawals =
                    counters.prefixes_as_withdrawals.wrapping_add(prefixes);
            }
            _ => {}
        }
    }

    fn tell_tables(&mut self, core: &Core) {
        for station in &mut self.stations {
            let Some(session) = &mut station.session else {
                continue;
            };
            let Some(place) = session.place else {
                continue;
            };
            if session.outlet.waiting() >= LOW_WATER {
                continue;
            }
            let now = Timestamp::from_system(SystemTime::now());
            let mut report = Report::default();
            let (routes, next) = core.accepted_from(place, PIECE);
            session.place = next;
            tell_piece(&mut report, core, &routes, now);
            if next.is_none() {
                for up in core.sessions() {
                    for family in Family::ALL {
                        if carries(up, family) {
                            report.end_of_rib(up, View::PostPolicy, family, now);
                        }
                    }
                }
            }
            if let Some(octets) = report.take() {
                station.send(octets);
            }
        }
    }

    fn tell_statistics(&mut self, core: &Core) {
        let now = Instant::now();
        let due = |station: &Station| {
            let session = station.session.as_ref();
            session.is_some_and(|session| session.next_statistics.is_some_and(|at| at <= now))
        };
        if !self.stations.iter().any(due) {
            return;
        }
        let time = Timestamp::from_system(SystemTime::now());
        let mut report = Report::default();
        let peers = core.peers(now);
        for up in core.sessions() {
            if let Some(status) = peers.iter().find(|status| status.name == up.ends.name) {
                let counters = self.counters.get(&up.ends.name).copied();
                report.statistics(up, statistics(status, counters.unwrap_or_default()), time);
            }
        }
        let octets = report.take();
        for station in self.stations.iter_mut().filter(|station| due(station)) {
            if let (Some(session), Some(interval)) =
                (&mut station.session, station.config.stats_interval())
            {
                session.next_statistics = Some(now + interval);
            }
            if let Some(octets) = &octets {
                station.send(octets.clone());
            }
        }
    }

    /// Starts writing the accepted routes to a file. The answer comes when it is written.
    pub(super) fn dump(
        &mut self,
        core: &Core,
        path: PathBuf,
        reply: oneshot::Sender<Result<Dumped, DumpError>>,
    ) {
        let peers = core.watched_peers().into_iter();
        let peers = peers.map(|(ends, router_id)| PeerEntry {
            router_id: router_id.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED),
            address: ends.peer,
            asn: ends.peer_as,
        });
        let table = PeerIndexTable {
            collector: self.collector,
            view: String::new(),
            peers: peers.collect(),
        };
        let (pieces, queue) = mpsc::channel(PIECES);
        let time = Timestamp::from_system(SystemTime::now());
        tokio::task::spawn_blocking(move || {
            // The caller may have lost interest.
            let _ = reply.send(dump::write(&path, table, time, queue));
        });
        self.dumps.push(Dump {
            place: Some(Place::default()),
            pieces,
        });
    }

    /// Says goodbye to the stations and waits a moment until they have heard it.
    pub(super) async fn finish(mut self) {
        self.dismiss();
        drop((self.stations, self.joins));
        let ended = async {
            for task in self.tasks {
                // One that panicked has ended, too.
                let _ = task.await;
            }
        };
        if tokio::time::timeout(FAREWELL, ended).await.is_err() {
            debug!("a BMP station did not take its last message in time");
        }
    }

    fn dismiss(&mut self) {
        let mut out = BytesMut::new();
        let farewell =
            bmp::Message::Termination(vec![Termination::Reason(termination_reason::CLOSED)]);
        if farewell.put(&mut out).is_ok() {
            let octets = out.freeze();
            for station in &mut self.stations {
                station.send(octets.clone());
            }
        }
    }
}

/// Stations, the end at which they join, and the tasks that keep them connected.
type Connecting = (Vec<Station>, mpsc::Receiver<Joined>, Vec<JoinHandle<()>>);

fn connect(collectors: &[BmpCollector]) -> Connecting {
    let (sender, joins) = mpsc::channel(1);
    let mut stations = Vec::new();
    let mut tasks = Vec::new();
    for (index, config) in collectors.iter().enumerate() {
        let address = config.socket_address();
        tasks.push(tokio::spawn(station::run(index, address, sender.clone())));
        stations.push(Station {
            config: config.clone(),
            session: None,
        });
    }
    (stations, joins, tasks)
}

/// Asks every peer for its routes once more: they are not kept as they were told.
fn ask_again(core: &mut Core) {
    let names: Vec<PeerName> = core.sessions().map(|up| up.ends.name.clone()).collect();
    for name in names {
        if let Err(error) = core.refresh_peer(name.as_str(), Instant::now()) {
            debug!(peer = %name, %error, "its routes are told to BMP stations as they come");
        }
    }
}

impl Station {
    fn send(&mut self, octets: bytes::Bytes) {
        self.session.take_if(|session| !session.outlet.send(octets));
    }
}

impl Dump {
    /// Hands over what there is room for; false when all is handed over, or nobody wants it.
    fn go_on(&mut self, core: &Core) -> bool {
        match self.pieces.try_reserve() {
            Ok(permit) => match self.place {
                Some(place) => {
                    let (routes, next) = core.accepted_from(place, PIECE);
                    self.place = next;
                    permit.send(Piece::Routes(routes));
                    true
                }
                None => {
                    permit.send(Piece::End);
                    false
                }
            },
            Err(mpsc::error::TrySendError::Full(())) => true,
            Err(mpsc::error::TrySendError::Closed(())) => false,
        }
    }
}

/// Something that happened, to stations that want these views.
fn tell(report: &mut Report, tap: &Tap, pre_policy: bool, post_policy: bool, now: Timestamp) {
    match tap {
        Tap::Up(up) => report.peer_up(up, now),
        Tap::Down { up, why } => report.peer_down(up, why, now),
        Tap::Received {
            octets,
            update: Some((up, taken)),
            ..
        } if pre_policy => report.received(up, *taken, octets, now),
        Tap::Accepted {
            up,
            routes,
            end_of_rib,
        } if post_policy => {
            report.routes(up, View::PostPolicy, routes, now);
            if let Some(family) = end_of_rib {
                report.end_of_rib(up, View::PostPolicy, *family, now);
            }
        }
        Tap::State { .. } | Tap::Received { .. } | Tap::Accepted { .. } => {}
    }
}

/// Routes of the table, peer by peer, those alike beside each other.
fn tell_piece(report: &mut Report, core: &Core, routes: &[Accepted], now: Timestamp) {
    for (index, up) in core.sessions_by_index() {
        let mut of_peer = Vec::new();
        for route in routes {
            for path in route.paths.iter().filter(|path| path.peer == index) {
                let nlri = Nlri {
                    prefix: route.prefix,
                    path_id: path.path_id,
                };
                of_peer.push((nlri, Some(path.attributes.clone())));
            }
        }
        let place = |(nlri, attributes): &(Nlri, Option<std::sync::Arc<_>>)| {
            let address = attributes
                .as_ref()
                .map_or(0, |a| std::sync::Arc::as_ptr(a) as usize);
            (nlri.prefix.family(), address)
        };
        of_peer.sort_by_key(place);
        report.routes(up, View::PostPolicy, &of_peer, now);
    }
}

/// Whether routes of the family are exchanged: both OPENs name it.
fn carries(up: &Up, family: Family) -> bool {
    [&up.sent_open, &up.received_open].into_iter().all(|open| {
        let decoded = crate::wire::Message::decode(open, &crate::wire::WireOptions::default());
        matches!(
            decoded.map(|decoded| decoded.message),
            Ok(crate::wire::Message::Open(open)) if open.families().contains(&family)
        )
    })
}

fn statistics(status: &PeerStatus, counters: Counters) -> Vec<Statistic> {
    let received = status
        .prefixes
        .values()
        .map(|counts| counts.received as u64);
    let mut statistics = vec![Statistic::AdjRibIn(received.sum())];
    for (family, counts) in &status.prefixes {
        statistics.push(Statistic::AdjRibInOf(
            (*family).into(),
            counts.received as u64,
        ));
    }
    statistics.push(Statistic::UpdatesAsWithdrawals(
        counters.updates_as_withdrawals,
    ));
    statistics.push(Statistic::PrefixesAsWithdrawals(
        counters.prefixes_as_withdrawals,
    ));
    statistics
}
