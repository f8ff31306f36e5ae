//! The thread that runs the sessions: sockets and clock on one side, the
//! [endpoint](super::endpoint) on the other.
//!
//! It is a thread of its own, with a real-time priority where the system grants one, so that
//! neither a busy runtime nor a busy machine makes a peer believe that we are gone. In each round
//! what is due is sent first; and a peer is given up only when the sockets are empty: a packet that
//! waits there is a sign of life, however late we read it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::endpoint::{AddError, Counters, Endpoint, SessionConfig, SessionId};
use super::event::{Event, SessionStatus};
use super::session::Terms;
use super::socket::{Listener, Sender, port};

/// Packets taken from a socket before others, and what is due, get their turn.
const BATCH: usize = 32;
/// How long a flood of packets may keep us from giving up a peer. Beyond, the peer's own packets
/// most likely do not get through either.
const FLOOD: Duration = Duration::from_millis(500);
/// Waking so long after the time asked for means that the machine, or its host, was busy.
const LATE: Duration = Duration::from_millis(5);
/// Pause before a port is tried again that could not be listened on.
const RETRY: Duration = Duration::from_secs(1);
/// Pause before the user is told again who had no room for news.
const UNTOLD: Duration = Duration::from_millis(10);

/// What the handle asks.
#[derive(Debug)]
pub(super) enum Command {
    Add(SessionConfig, oneshot::Sender<Result<SessionId, AddError>>),
    Remove(SessionId),
    SetAdminDown(SessionId, bool),
    SetTerms(SessionId, Terms),
    Statuses(oneshot::Sender<HashMap<SessionId, SessionStatus>>),
    Counters(oneshot::Sender<Counters>),
    /// Remove all sessions, and end when their peers know.
    Stop(oneshot::Sender<()>),
}

/// Where a listener is: whether for multihop sessions, and the address.
type Place = (bool, IpAddr);

pub(super) struct Engine {
    endpoint: Endpoint,
    commands: Receiver<Command>,
    waker: Arc<EventFd>,
    events: mpsc::Sender<Event>,
    listeners: BTreeMap<Place, Listener>,
    /// Why there is no listener, where there should be one.
    deaf: BTreeMap<Place, String>,
    retry_at: Option<Instant>,
    senders: HashMap<SessionId, Sender>,
    /// Set once nobody wants anything of us any more; told when all is done.
    stopping: Option<Vec<oneshot::Sender<()>>>,
}

impl Engine {
    pub(super) fn new(
        seed: u64,
        commands: Receiver<Command>,
        waker: Arc<EventFd>,
        events: mpsc::Sender<Event>,
    ) -> Engine {
        Engine {
            endpoint: Endpoint::new(seed),
            commands,
            waker,
            events,
            listeners: BTreeMap::new(),
            deaf: BTreeMap::new(),
            retry_at: None,
            senders: HashMap::new(),
            stopping: None,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            self.transmit();
            self.commands();
            // Whoever has been heard by now is not silent, so this comes before the sockets.
            let now = Instant::now();
            let more = self.receive();
            let flooded = self.endpoint.check_at().is_some_and(|at| at + FLOOD <= now);
            if (!more || flooded) && self.endpoint.check(now) {
                self.listen();
            }
            self.transmit();
            self.tell();
            self.retry(now);
            if self.is_done() {
                break;
            }
            if !more {
                self.sleep();
            }
        }
        for told in self.stopping.into_iter().flatten() {
            // The caller may have lost interest.
            let _ = told.send(());
        }
    }

    fn is_done(&self) -> bool {
        self.stopping.is_some() && self.endpoint.is_empty()
    }

    fn transmit(&mut self) {
        while let Some((id, octets)) = self.endpoint.poll_transmit(Instant::now()) {
            let result = self.send(id, &octets).map_err(|error| error.to_string());
            if result.is_err() {
                // Its address, interface or route may be another by the next time.
                self.senders.remove(&id);
            }
            self.endpoint.transmitted(id, result);
        }
    }

    fn send(&mut self, id: SessionId, octets: &[u8]) -> io::Result<()> {
        let Some(config) = self.endpoint.config(id) else {
            return Ok(());
        };
        // As long as nobody answers, another address of ours may be the right one.
        if config.local.is_none() && !self.endpoint.is_heard(id) {
            self.senders.remove(&id);
        }
        if let Some(sender) = self.senders.get(&id) {
            return sender.send(octets);
        }
        let favourite = id.0.get() as u16;
        let sender = Sender::open(config, favourite)?;
        sender.send(octets)?;
        self.senders.insert(id, sender);
        Ok(())
    }

    /// Takes what waits in the sockets, up to a limit. Whether there may be more.
    fn receive(&mut self) -> bool {
        let mut more = false;
        for listener in self.listeners.values_mut() {
            more |= listener.receive(BATCH, |datagram| {
                self.endpoint.receive(datagram, Instant::now());
            });
        }
        more
    }

    fn commands(&mut self) {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.command(command),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    // Every handle is gone.
                    if self.stopping.is_none() {
                        self.stop();
                    }
                    return;
                }
            }
            // Of two orders about one peer it is to hear the first too.
            self.transmit();
        }
    }

    /// Callers that have lost interest are no error: replies may fail.
    fn command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Add(config, reply) => {
                let added = match self.stopping {
                    None => self.endpoint.add(config, now),
                    Some(_) => Err(AddError::Stopped),
                };
                self.listen();
                let _ = reply.send(added);
            }
            Command::Remove(id) => {
                self.endpoint.remove(id, now);
                self.listen();
            }
            Command::SetAdminDown(id, down) => self.endpoint.set_admin_down(id, down, now),
            Command::SetTerms(id, terms) => self.endpoint.set_terms(id, terms, now),
            Command::Statuses(reply) => {
                let _ = reply.send(self.statuses(now));
            }
            Command::Counters(reply) => {
                let _ = reply.send(self.endpoint.counters());
            }
            Command::Stop(reply) => {
                self.stop();
                self.stopping.get_or_insert_default().push(reply);
            }
        }
    }

    fn stop(&mut self) {
        self.endpoint.remove_all(Instant::now());
        self.stopping.get_or_insert_default();
    }

    fn statuses(&self, now: Instant) -> HashMap<SessionId, SessionStatus> {
        let with_error = |id: SessionId| {
            let status = self.endpoint.status(id, now)?;
            let config = self.endpoint.config(id)?;
            let deaf = places(config).find_map(|place| self.deaf.get(&place).cloned());
            let error = deaf.or(status.error);
            Some((id, SessionStatus { error, ..status }))
        };
        self.endpoint.ids().filter_map(with_error).collect()
    }

    fn tell(&mut self) {
        while let Some(event) = self.endpoint.poll_event() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => {
                    return self.endpoint.untold(event);
                }
                // Nobody listens.
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
    }

    /// Listens where the sessions want it, and nowhere else. Where one session takes any address,
    /// one socket serves all of its family.
    fn listen(&mut self) {
        let wanted: BTreeSet<Place> = self.endpoint.configs().flat_map(places).collect();
        let any = |(multihop, address): &Place| (*multihop, unspecified(*address));
        let wanted: BTreeSet<Place> = wanted
            .iter()
            .filter(|place| any(place) == **place || !wanted.contains(&any(place)))
            .copied()
            .collect();
        self.listeners.retain(|place, _| wanted.contains(place));
        self.deaf.retain(|place, _| wanted.contains(place));
        let ids: BTreeSet<SessionId> = self.endpoint.ids().collect();
        self.senders.retain(|id, _| ids.contains(id));
        for place in wanted {
            if self.listeners.contains_key(&place) {
                continue;
            }
            let (multihop, address) = place;
            match Listener::open(address, multihop) {
                Ok(listener) => {
                    self.listeners.insert(place, listener);
                    self.deaf.remove(&place);
                }
                Err(error) => {
                    let port = port(multihop);
                    let reason = explain(&error, port, address);
                    if self.deaf.insert(place, reason.clone()).is_none() {
                        warn!(%address, port, "{reason}");
                    }
                }
            }
        }
        self.retry_at = (!self.deaf.is_empty()).then(|| Instant::now() + RETRY);
    }

    fn retry(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.listen();
        }
    }

    /// Waits for a packet, an order, or the next thing that is due.
    fn sleep(&mut self) {
        let news = self.endpoint.has_news().then(|| Instant::now() + UNTOLD);
        let timers = [
            self.endpoint.transmit_at(),
            self.endpoint.check_at(),
            self.retry_at,
            news,
        ];
        let wake_up = timers.into_iter().flatten().min();
        let timeout = wake_up.map(|at| at.saturating_duration_since(Instant::now()));
        let listeners = self.listeners.values().map(AsFd::as_fd);
        let mut fds: Vec<_> = listeners
            .chain([self.waker.as_fd()])
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        // Interrupted is as good as woken.
        let _ = ppoll(&mut fds, timeout.map(TimeSpec::from_duration), None);
        let woken = fds.last().and_then(PollFd::any) == Some(true);
        if woken {
            // Only to reset it: what is wanted is in the queue.
            let _ = self.waker.read();
        }
        if let Some(at) = wake_up {
            let now = Instant::now();
            let late = now.saturating_duration_since(at);
            if late > LATE {
                self.endpoint.stalled(late, now);
            }
        }
    }
}

/// Where packets for a session arrive.
fn places(config: &SessionConfig) -> impl Iterator<Item = Place> {
    let any = unspecified(config.peer);
    let link_local =
        |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let local = config.local.filter(|local| !link_local(local));
    std::iter::once((config.path.is_multihop(), local.unwrap_or(any)))
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn explain(error: &io::Error, port: u16, address: IpAddr) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; is another BFD daemon running? Stop it, or take bfd out here"
        }
        _ => "",
    };
    format!("cannot listen for BFD on {address} port {port}: {error}{advice}")
}
