//! The task that owns the core: sockets, clock and callers on one side, the core on the other.
//!
//! It takes what arrives in small batches and lets timers run out in between, so that a peer with
//! much to say delays neither keepalives nor callers.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::paths::Paths;
use super::subscription::Feed;
use super::watchers::Watchers;
use super::{Command, PeerError, StartError};
use crate::bfd::{self, Lost};
use crate::config::{PeerName, SpeakerConfig};
use crate::core::{Core, Flush, Output, Reconfigured, Stop};
use crate::transport::{Admission, Arrival, Transport};

/// Arrivals taken in one go.
const BATCH: usize = 16;
/// A timer seen so long after it ran out means that we, or the whole machine, were busy.
const LATE: Duration = Duration::from_millis(50);
/// How long readers then get at a time to hand over what came in meanwhile,
const CATCH_UP: Duration = Duration::from_millis(20);
/// and in all, while a connection still has something to read.
const CATCH_UP_MOST: Duration = Duration::from_secs(1);
/// How often outstanding octets are looked at while somebody waits for them: the kernel does not
/// tell when they are acknowledged.
const FLUSH_POLL: Duration = Duration::from_millis(1);

pub(super) struct Driver {
    core: Core,
    transport: Transport,
    paths: Paths,
    watchers: Watchers,
    arrivals: mpsc::Receiver<Arrival>,
    commands: mpsc::Receiver<Command>,
    feeds: Vec<Feed>,
    flushes: Vec<Flushing>,
}

struct Flushing {
    flush: Flush,
    deadline: Instant,
    reply: oneshot::Sender<Vec<PeerName>>,
}

impl Driver {
    pub(super) fn new(
        core: Core,
        transport: Transport,
        watchers: Watchers,
        arrivals: mpsc::Receiver<Arrival>,
        commands: mpsc::Receiver<Command>,
        paths: Paths,
    ) -> Driver {
        Driver {
            core,
            transport,
            paths,
            watchers,
            arrivals,
            commands,
            feeds: Vec::new(),
            flushes: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        self.core.watch(self.watchers.watch());
        self.core.start(Instant::now());
        loop {
            self.carry_out();
            self.follow_paths().await;
            let wake_up = self.wake_up();
            let stop = tokio::select! {
                Some(arrival) = self.arrivals.recv() => {
                    self.arrival(arrival);
                    self.more_arrivals();
                    None
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    // Nobody is left to say how: peers may keep our routes if they would.
                    None => Some((Stop::KeepForwarding, None)),
                },
                (peer, event) = self.paths.next() => {
                    // A peer that is gone has no session to end or to go on with.
                    if let Some(lost) = event.lost {
                        let _ = self.core.path_lost(peer.as_str(), lost, Instant::now());
                    } else if event.state == bfd::State::Up {
                        let _ = self.core.path_up(peer.as_str(), Instant::now());
                    }
                    None
                }
                Some(joined) = self.watchers.joined() => {
                    self.watchers.join(&mut self.core, joined);
                    None
                }
                () = sleep_until(wake_up) => None,
            };
            if let Some((how, reply)) = stop {
                return self.finish(&how, reply).await;
            }
            self.timers().await;
        }
    }

    fn wake_up(&self) -> Option<Instant> {
        let flush = (!self.flushes.is_empty()).then(|| Instant::now() + FLUSH_POLL);
        let timers = [
            self.core.next_timeout(),
            self.paths.retry_at(),
            self.watchers.wake_up(),
            flush,
        ];
        timers.into_iter().flatten().min()
    }

    /// BFD watches the paths that the core wants to know of.
    async fn follow_paths(&mut self) {
        if !self.paths.suit(self.core.watched_paths()) {
            let wanted = self.core.watched_paths().cloned().collect();
            for peer in self.paths.follow(wanted).await {
                // Not known to be up any more; a peer that is gone does not care.
                let lost = Lost::LocalAdmin;
                let _ = self.core.path_lost(peer.as_str(), lost, Instant::now());
            }
        }
    }

    /// What is already there, up to a limit.
    fn more_arrivals(&mut self) {
        for _ in 0..BATCH {
            let Ok(arrival) = self.arrivals.try_recv() else {
                return;
            };
            self.arrival(arrival);
        }
    }

    /// Lets timers run out. Whoever has been heard by now is not silent: what has arrived is taken
    /// first, and if we were kept from running, so were our readers, which get a moment.
    async fn timers(&mut self) {
        let Some(deadline) = self.core.next_timeout() else {
            return;
        };
        let now = Instant::now();
        if deadline > now {
            return;
        }
        if now - deadline > LATE {
            let most = now + CATCH_UP_MOST;
            loop {
                self.catch_up().await;
                // On a machine this busy the readers may not have run yet, for all the time that
                // they were given.
                if !self.transport.has_unread() || Instant::now() >= most {
                    break;
                }
            }
        } else {
            self.more_arrivals();
        }
        self.core.timeout(now);
    }

    /// Takes what readers hand over within a moment.
    async fn catch_up(&mut self) {
        let until = tokio::time::Instant::now() + CATCH_UP;
        while let Ok(Some(arrival)) = tokio::time::timeout_at(until, self.arrivals.recv()).await {
            self.arrival(arrival);
        }
    }

    fn arrival(&mut self, arrival: Arrival) {
        let now = Instant::now();
        self.core.set_time(now);
        match arrival {
            Arrival::Accepted { stream, source } => {
                let Ok(local) = stream.local_addr() else {
                    return;
                };
                let remote = source.remote;
                let interface = source.interface.as_ref();
                match self.core.accepted_on(remote, local, interface, now) {
                    Some(connection) => self.transport.open(connection, source, stream),
                    None => debug!(%remote, "closed a connection of a peer that is not wanted now"),
                }
            }
            Arrival::Connected { connection, stream } => match stream.local_addr() {
                Ok(local) => {
                    if self.transport.connected(connection, stream) {
                        self.core.connected(connection, local, now);
                    }
                }
                Err(error) => self.core.connect_failed(connection, error.to_string(), now),
            },
            Arrival::ConnectFailed { connection, why } => {
                self.core.connect_failed(connection, why, now);
            }
            Arrival::Received { connection, octets } => {
                self.core.received(connection, &octets, now);
            }
            Arrival::Written { connection, octets } => self.core.written(connection, octets),
            Arrival::Closed { connection, why } => self.core.closed(connection, why, now),
        }
    }

    /// Does what the core wants done, and tells who wants to know.
    fn carry_out(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Connect {
                    connection,
                    from,
                    to,
                } => {
                    if let Some(peer) = self.core.peer_name(connection) {
                        self.transport.connect(connection, peer, from, to);
                    }
                }
                Output::Send { connection, octets } => self.transport.send(connection, octets),
                Output::Close { connection } => self.transport.close(connection),
            }
        }
        self.tell_subscribers();
        self.watchers.work(&mut self.core);
        self.advance_flushes();
    }

    fn tell_subscribers(&mut self) {
        if self.feeds.is_empty() {
            return;
        }
        let events = self.core.take_events();
        if !events.is_empty() {
            self.feeds.retain(|feed| feed.send(events.clone()));
        }
        if self.feeds.is_empty() {
            self.core.observe(false);
        }
    }

    fn advance_flushes(&mut self) {
        let now = Instant::now();
        for mut flushing in std::mem::take(&mut self.flushes) {
            let transport = &self.transport;
            self.core
                .advance_flush(&mut flushing.flush, |c| transport.unacknowledged(c));
            if flushing.flush.is_done() || now >= flushing.deadline {
                let late = flushing.flush.connections();
                let late = late
                    .filter_map(|c| self.core.peer_name(c).cloned())
                    .collect();
                // The caller may have lost interest.
                let _ = flushing.reply.send(late);
            } else if !flushing.reply.is_closed() {
                self.flushes.push(flushing);
            }
        }
    }

    /// Answers a caller. A caller that has lost interest is no error: replies may fail.
    fn command(&mut self, command: Command) -> Option<(Stop, Option<oneshot::Sender<()>>)> {
        let now = Instant::now();
        self.core.set_time(now);
        match command {
            Command::Announce(routes, reply) => {
                self.core.announce(routes);
                let _ = reply.send(());
            }
            Command::Withdraw(prefixes, reply) => {
                self.core.withdraw(&prefixes);
                let _ = reply.send(());
            }
            Command::InitialRoutesComplete(reply) => {
                self.core.initial_routes_complete();
                let _ = reply.send(());
            }
            Command::Flushed(timeout, reply) => {
                let flush = self.core.flush();
                self.flushes.push(Flushing {
                    flush,
                    deadline: now + timeout,
                    reply,
                });
            }
            Command::Subscribe(feed) => {
                self.tell_subscribers();
                self.core.observe(true);
                if feed.send(self.core.current_state()) {
                    self.feeds.push(feed);
                }
            }
            Command::Peers(reply) => {
                let peers = self.paths.complete(self.core.peers(now));
                tokio::spawn(async { reply.send(peers.await) });
            }
            Command::Routes(reply) => {
                let _ = reply.send(self.core.routes());
            }
            Command::Advertised(reply) => {
                let _ = reply.send(self.core.advertised());
            }
            Command::SetNextHops(changes, reply) => {
                self.core.set_next_hops(changes);
                let _ = reply.send(());
            }
            Command::NextHops(reply) => {
                let _ = reply.send(self.core.next_hops());
            }
            Command::RefusedConnections(reply) => {
                let refused = self.core.refused_connections() + self.transport.refused();
                let _ = reply.send(refused);
            }
            Command::DynamicGroups(reply) => {
                let _ = reply.send(self.core.dynamic_groups());
            }
            Command::Aggregates(reply) => {
                let _ = reply.send(self.core.aggregates());
            }
            Command::DumpMrt(path, reply) => self.watchers.dump(&self.core, path, reply),
            Command::PeerAdmin {
                name,
                up,
                text,
                reply,
            } => {
                let known = self.core.set_peer_admin(&name, up, text.as_deref(), now);
                let _ = reply.send(known.map_err(|unknown| PeerError::Unknown(unknown.0)));
            }
            Command::RefreshPeer(name, reply) => {
                let _ = reply.send(self.core.refresh_peer(&name, now).map_err(Into::into));
            }
            Command::Reconfigure {
                config,
                admission,
                reply,
            } => {
                let _ = reply.send(self.reconfigure(*config, admission, now));
            }
            Command::GracefulShutdown(going, reply) => {
                self.core.set_graceful_shutdown(going);
                let _ = reply.send(());
            }
            Command::Stop(how, reply) => return Some((how, Some(reply))),
        }
        None
    }

    fn reconfigure(
        &mut self,
        config: SpeakerConfig,
        admission: Admission,
        now: Instant,
    ) -> Result<Reconfigured, StartError> {
        // Whatever can be refused is tried first.
        self.transport.admit(&config.listen, admission)?;
        self.watchers
            .reconfigure(&config)
            .map_err(|source| StartError::mrt(&config, source))?;
        self.core.watch(self.watchers.watch());
        Ok(self.core.reconfigure(config, now)?)
    }

    async fn finish(mut self, how: &Stop, reply: Option<oneshot::Sender<()>>) {
        self.core.stop(how, Instant::now());
        self.carry_out();
        // Peers are told that BFD ends on purpose: whoever keeps our routes is to go on doing so.
        tokio::join!(self.transport.finish(), self.paths.stop());
        self.watchers.finish().await;
        if let Some(reply) = reply {
            // The caller may have lost interest.
            let _ = reply.send(());
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
