//! The injector and the sinks: BGP sessions with the subject, all served by one thread that waits
//! in one `poll`. What is sent was serialised before; of what arrives only the prefixes are looked at.
//!
//! Nothing runs while [`Line::run`] is not called: the caller's thread is the one that serves.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink::Namespace;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use super::prefix_set::{PrefixId, PrefixSet};
use super::wire::{self, KEEPALIVE, Message, WireError};

/// Hold time we offer, seconds: long enough for a subject that is busy with a million routes.
const HOLD_TIME: u16 = 240;
/// How often we say that we live.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
/// Octets read at once.
const CHUNK: usize = 1 << 18;
/// Reads from one session before the others get their turn.
const READS: usize = 4;
/// Pause between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);

/// A session broke, or what came is no BGP.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The system refuses a socket or a wait.
    #[error("the bench's own sockets")]
    Socket(#[from] io::Error),
    /// The namespace cannot be entered.
    #[error("the bench's namespace")]
    Namespace(#[from] netlink::Error),
    /// The subject closed, or sent a NOTIFICATION.
    #[error("{session}: the subject ended the session: {how}")]
    Ended {
        /// Whose session.
        session: String,
        /// In which way.
        how: String,
    },
    /// The subject sent something else than BGP.
    #[error("{session}: {source}")]
    Wire {
        /// Whose session.
        session: String,
        /// What is wrong.
        source: WireError,
    },
    /// It did not come in time.
    #[error("{what}: not within {:.0} s; {seen}", .limit.as_secs_f64())]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// What was there instead.
        seen: String,
    },
}

/// Who a session of the bench is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// In messages.
    pub name: String,
    /// Its address, also its BGP identifier.
    pub address: Ipv4Addr,
    /// Its AS.
    pub asn: u32,
}

/// A session by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionId(usize);

/// All sessions of the bench.
#[derive(Debug)]
pub struct Line {
    sessions: Vec<Session>,
    buffer: Vec<u8>,
}

/// What has arrived on a session.
#[derive(Debug, Default)]
pub struct Tally {
    /// What is announced and not withdrawn.
    pub present: PrefixSet,
    /// UPDATEs with a prefix in them.
    pub updates: usize,
    /// Prefixes announced while they were there.
    pub repeated: usize,
    /// When a prefix came last.
    pub last: Option<Instant>,
    /// The prefix to watch, and when it was last announced.
    pub watched: Option<(PrefixId, Option<Instant>)>,
}

#[derive(Debug)]
struct Session {
    identity: Identity,
    stream: TcpStream,
    state: State,
    out: VecDeque<Piece>,
    /// When the first octet of the newest [`Line::send`] left.
    began: Option<Instant>,
    kept: Vec<u8>,
    reading: bool,
    spoke: Instant,
    tally: Tally,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    OpenSent,
    OpenConfirm,
    Established,
}

#[derive(Debug)]
struct Piece {
    octets: Arc<[u8]>,
    sent: usize,
    /// It is what a caller gave: its start is the start of the clock.
    counts: bool,
}

impl Default for Line {
    fn default() -> Self {
        Line {
            sessions: Vec::new(),
            buffer: vec![0; CHUNK],
        }
    }
}

impl Line {
    /// Opens sessions with the subject, each from its own address in `namespace`, and waits until all
    /// are established. The instant is when the first began to connect successfully.
    ///
    /// # Errors
    /// One does not come up within `limit`.
    pub fn establish(
        &mut self,
        namespace: &Namespace,
        identities: &[Identity],
        subject: SocketAddr,
        limit: Duration,
    ) -> Result<(Vec<SessionId>, Instant), LineError> {
        let deadline = Instant::now() + limit;
        'again: loop {
            let mut ids = Vec::new();
            let began = Instant::now();
            let first = self.sessions.len();
            let mut trouble = String::new();
            for identity in identities {
                match connect(namespace, identity.address, subject) {
                    Ok(stream) => ids.push(self.adopt(identity.clone(), stream)?),
                    Err(LineError::Socket(error)) => trouble = error.to_string(),
                    Err(error) => return Err(error),
                }
            }
            if ids.len() == identities.len() {
                let left = deadline.saturating_duration_since(Instant::now());
                match self.run("sessions established", left, |line| line.all_established()) {
                    Ok(()) => return Ok((ids, began)),
                    Err(LineError::Ended { how, .. }) => trouble = how,
                    Err(error) => return Err(error),
                }
            }
            // A subject that is just starting refuses, or closes at once.
            self.sessions.truncate(first);
            if Instant::now() >= deadline {
                return Err(LineError::Late {
                    what: "sessions established".to_owned(),
                    limit,
                    seen: trouble,
                });
            }
            std::thread::sleep(RETRY);
            continue 'again;
        }
    }

    /// Takes a connection over and sends its OPEN.
    ///
    /// # Errors
    /// The socket refuses to be used without waiting.
    pub fn adopt(&mut self, identity: Identity, stream: TcpStream) -> Result<SessionId, LineError> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let open = wire::open(identity.asn, identity.address, HOLD_TIME);
        self.sessions.push(Session {
            identity,
            stream,
            state: State::OpenSent,
            out: VecDeque::from([Piece::own(open)]),
            began: None,
            kept: Vec::new(),
            reading: true,
            spoke: Instant::now(),
            tally: Tally::default(),
        });
        Ok(SessionId(self.sessions.len() - 1))
    }

    /// Puts messages into the queue of a session; they leave in [`Line::run`].
    pub fn send(&mut self, id: SessionId, octets: Arc<[u8]>) {
        let session = &mut self.sessions[id.0];
        session.began = None;
        session.out.push_back(Piece {
            octets,
            sent: 0,
            counts: true,
        });
    }

    /// When the first octet of what was last sent left.
    pub fn began(&self, id: SessionId) -> Option<Instant> {
        self.sessions[id.0].began
    }

    /// Whether all that was to be sent has left.
    pub fn sent(&self, id: SessionId) -> bool {
        self.sessions[id.0].out.is_empty()
    }

    /// What has arrived on a session.
    pub fn tally(&self, id: SessionId) -> &Tally {
        &self.sessions[id.0].tally
    }

    /// Counts anew from here; what is present stays.
    pub fn reset_counts(&mut self, id: SessionId) {
        let tally = &mut self.sessions[id.0].tally;
        (tally.updates, tally.repeated, tally.last) = (0, 0, None);
    }

    /// Looks out for one prefix.
    pub fn watch(&mut self, id: SessionId, prefix: PrefixId) {
        self.sessions[id.0].tally.watched = Some((prefix, None));
    }

    /// When a prefix came last on any session.
    pub fn last(&self) -> Option<Instant> {
        self.sessions
            .iter()
            .filter_map(|session| session.tally.last)
            .max()
    }

    /// Whether every session is established.
    pub fn all_established(&self) -> bool {
        let established = |session: &Session| session.state == State::Established;
        self.sessions.iter().all(established)
    }

    /// Connects one session and leaves it to [`Line::run`] to get it established.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(
        &mut self,
        namespace: &Namespace,
        identity: &Identity,
        to: SocketAddr,
    ) -> Result<SessionId, LineError> {
        let stream = connect(namespace, identity.address, to)?;
        self.adopt(identity.clone(), stream)
    }

    /// Stops or resumes reading from a session.
    pub fn set_reading(&mut self, id: SessionId, reading: bool) {
        self.sessions[id.0].reading = reading;
    }

    /// Closes every session.
    pub fn close(&mut self) {
        self.sessions.clear();
    }

    /// Serves all sessions until `done`, which is asked after each turn.
    ///
    /// # Errors
    /// A session broke, or `done` did not come true within `limit`.
    pub fn run(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&mut Line) -> bool,
    ) -> Result<(), LineError> {
        let deadline = Instant::now() + limit;
        while !done(self) {
            if Instant::now() >= deadline {
                let session = |session: &Session| {
                    format!("{}: {:?}", session.identity.name, session.tally.present)
                };
                let seen: Vec<String> = self.sessions.iter().map(session).collect();
                return Err(LineError::Late {
                    what: what.to_owned(),
                    limit,
                    seen: seen.join("; "),
                });
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Waits a moment for something to do, and does it.
    fn turn(&mut self) -> Result<(), LineError> {
        let now = Instant::now();
        for session in &mut self.sessions {
            if session.state == State::Established
                && session.out.is_empty()
                && now - session.spoke >= KEEPALIVE_EVERY
            {
                session.out.push_back(Piece::own(KEEPALIVE.to_vec()));
            }
        }
        let mut wanted: Vec<PollFd<'_>> = Vec::with_capacity(self.sessions.len());
        for session in &self.sessions {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, session.reading);
            events.set(PollFlags::POLLOUT, !session.out.is_empty());
            wanted.push(PollFd::new(session.stream.as_fd(), events));
        }
        // Short, so that callers can do other things by the clock.
        poll(&mut wanted, PollTimeout::from(2u8)).map_err(io::Error::from)?;
        let ready: Vec<PollFlags> = wanted
            .iter()
            .map(|wanted| wanted.revents().unwrap_or(PollFlags::empty()))
            .collect();
        for (session, ready) in self.sessions.iter_mut().zip(ready) {
            if ready.contains(PollFlags::POLLOUT) {
                session.write()?;
            }
            let over = PollFlags::POLLHUP | PollFlags::POLLERR;
            if ready.intersects(PollFlags::POLLIN) || (session.reading && ready.intersects(over)) {
                session.read(&mut self.buffer)?;
            }
        }
        Ok(())
    }
}

impl Piece {
    fn own(octets: Vec<u8>) -> Piece {
        Piece {
            octets: octets.into(),
            sent: 0,
            counts: false,
        }
    }
}

impl Session {
    fn write(&mut self) -> Result<(), LineError> {
        while let Some(piece) = self.out.front_mut() {
            if piece.counts && piece.sent == 0 {
                self.began.get_or_insert_with(Instant::now);
            }
            match self.stream.write(&piece.octets[piece.sent..]) {
                Ok(written) => {
                    piece.sent += written;
                    self.spoke = Instant::now();
                    if piece.sent == piece.octets.len() {
                        self.out.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.ended(error)),
            }
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), LineError> {
        for _ in 0..READS {
            let kept = self.kept.len();
            buffer[..kept].copy_from_slice(&self.kept);
            match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err(self.ended("closed")),
                Ok(read) => {
                    let taken = self.take(&buffer[..kept + read])?;
                    self.kept.clear();
                    self.kept.extend_from_slice(&buffer[taken..kept + read]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.ended(error)),
            }
        }
        Ok(())
    }

    /// Takes the whole messages; how many octets these are.
    fn take(&mut self, octets: &[u8]) -> Result<usize, LineError> {
        let mut left = octets;
        let wrong = |session: &Session| {
            let session = session.identity.name.clone();
            move |source| LineError::Wire { session, source }
        };
        let mut routes = false;
        while let Some((message, rest)) = wire::split(left).map_err(wrong(self))? {
            match message {
                Message::Open => {
                    self.out.push_back(Piece::own(KEEPALIVE.to_vec()));
                    self.state = State::OpenConfirm;
                }
                Message::Keepalive => {
                    if self.state == State::OpenConfirm {
                        self.state = State::Established;
                    }
                }
                Message::Notification(code, subcode) => {
                    return Err(self.ended(format!("NOTIFICATION {code}/{subcode}")));
                }
                Message::Update(update) => {
                    routes |= self.tally.take(&update).map_err(wrong(self))?;
                }
                Message::Other => {}
            }
            left = rest;
        }
        if routes {
            self.tally.last = Some(Instant::now());
        }
        Ok(octets.len() - left.len())
    }

    fn ended(&self, how: impl ToString) -> LineError {
        LineError::Ended {
            session: self.identity.name.clone(),
            how: how.to_string(),
        }
    }
}

impl Tally {
    /// Counts an UPDATE; whether there were routes in it.
    fn take(&mut self, update: &wire::Update<'_>) -> Result<bool, WireError> {
        let mut routes = false;
        for prefix in update.withdrawn() {
            self.present.remove(prefix?);
            routes = true;
        }
        for prefix in update.announced() {
            let prefix = prefix?;
            if !self.present.insert(prefix) {
                self.repeated += 1;
            }
            if let Some((watched, seen)) = &mut self.watched
                && *watched == prefix
            {
                *seen = Some(Instant::now());
            }
            routes = true;
        }
        self.updates += usize::from(routes);
        Ok(routes)
    }
}

/// A connection from an address of the namespace; refused and unreachable come as `Socket`.
fn connect(namespace: &Namespace, from: Ipv4Addr, to: SocketAddr) -> Result<TcpStream, LineError> {
    let stream = namespace.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect(&to.into())?;
        Ok::<TcpStream, io::Error>(socket.into())
    })?;
    Ok(stream?)
}
