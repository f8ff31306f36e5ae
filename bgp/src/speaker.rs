//! The handle of a running speaker: what a program calls.
//!
//! Every call is a message to the one task that owns the [core](crate::core), and its answer.
//! Nothing is decided here.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::config::{ConfigError, PeerName, SpeakerConfig};
use crate::core::{Core, RefreshError, UnknownPeer};
pub use crate::core::{Reconfigured, Stop};
use crate::event::{
    Advertised, AggregateStatus, Announcement, DynamicStatus, PeerStatus, RouteChange,
};
use crate::mrt::{DumpError, Dumped};
use crate::rib::next_hop::NextHopState;
use crate::transport::{Admission, KeyError, ListenError, OpenError, PeerSecretError, Transport};
use crate::wire::Prefix;

use driver::Driver;
use paths::Paths;
use watchers::Watchers;

mod driver;
mod paths;
mod station;
mod subscription;
mod watchers;

pub use subscription::Subscription;

/// A BGP speaker that runs until [`Speaker::stop`], or until every handle and subscription is
/// dropped: then it closes its connections without a NOTIFICATION.
///
/// Cloning is cheap; all clones are the same speaker.
#[derive(Debug, Clone)]
pub struct Speaker {
    commands: mpsc::Sender<Command>,
}

/// Why a speaker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A listening socket could not be opened.
    #[error("cannot listen on {address}: {source}; {advice}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
        /// What to do about it.
        advice: &'static str,
    },
    /// A file with a key that is refused.
    #[error(transparent)]
    Secret(#[from] PeerSecretError),
    /// A key that the kernel refuses.
    #[error("cannot listen on {address}: {source}")]
    Key {
        /// The configured address.
        address: SocketAddr,
        /// What the kernel lacks, or says.
        #[source]
        source: KeyError,
    },
    /// The log of what peers say cannot be opened.
    #[error("mrt.updates: cannot write {}: {source}; make its directory, or name another", .path.display())]
    Mrt {
        /// The configured file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Called outside a tokio runtime.
    #[error("a speaker needs a tokio runtime to run in")]
    NoRuntime,
}

impl StartError {
    /// The log of this configuration cannot be opened.
    fn mrt(config: &SpeakerConfig, source: io::Error) -> StartError {
        let path = config.mrt.as_ref().map(|mrt| mrt.updates.clone());
        StartError::Mrt {
            path: path.unwrap_or_default(),
            source,
        }
    }
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Listen(ListenError {
                address,
                source,
                advice,
            }) => StartError::Listen {
                address,
                source,
                advice,
            },
            OpenError::Key { address, source } => StartError::Key { address, source },
        }
    }
}

/// The speaker has been stopped; nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the BGP speaker has been stopped")]
pub struct Stopped;

/// Why a peer was not taken up or down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No peer of this name.
    #[error("no peer is called {0:?}")]
    Unknown(String),
    /// It cannot be asked for its routes.
    #[error(transparent)]
    Refresh(RefreshError),
    /// The speaker has been stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<RefreshError> for PeerError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Unknown(UnknownPeer(name)) => PeerError::Unknown(name),
            other => PeerError::Refresh(other),
        }
    }
}

/// Why a new configuration was not taken; the old one holds.
#[derive(Debug, thiserror::Error)]
pub enum ReconfigureError {
    /// A speaker could not start with it either.
    #[error(transparent)]
    Refused(#[from] StartError),
    /// The speaker has been stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// What the handle asks the task.
#[derive(Debug)]
pub(crate) enum Command {
    Announce(Vec<Announcement>, oneshot::Sender<()>),
    Withdraw(Vec<Prefix>, oneshot::Sender<()>),
    InitialRoutesComplete(oneshot::Sender<()>),
    Flushed(Duration, oneshot::Sender<Vec<PeerName>>),
    Subscribe(subscription::Feed),
    Peers(oneshot::Sender<Vec<PeerStatus>>),
    Routes(oneshot::Sender<Vec<RouteChange>>),
    Advertised(oneshot::Sender<Advertised>),
    RefusedConnections(oneshot::Sender<u64>),
    DynamicGroups(oneshot::Sender<Vec<DynamicStatus>>),
    Aggregates(oneshot::Sender<Vec<AggregateStatus>>),
    DumpMrt(PathBuf, oneshot::Sender<Result<Dumped, DumpError>>),
    SetNextHops(Vec<(Prefix, Option<NextHopState>)>, oneshot::Sender<()>),
    NextHops(oneshot::Sender<Vec<(IpAddr, NextHopState)>>),
    PeerAdmin {
        name: String,
        up: bool,
        text: Option<String>,
        reply: oneshot::Sender<Result<(), PeerError>>,
    },
    GracefulShutdown(bool, oneshot::Sender<()>),
    RefreshPeer(String, oneshot::Sender<Result<(), PeerError>>),
    Reconfigure {
        config: Box<SpeakerConfig>,
        admission: Admission,
        reply: oneshot::Sender<Result<Reconfigured, StartError>>,
    },
    Stop(Stop, oneshot::Sender<()>),
}

// Calls that may wait for the task.
const COMMANDS: usize = 64;

// A large batch is handed over in pieces, so that the task gets to its timers in between.
const ROUTES_A_COMMAND: usize = 4096;

impl Speaker {
    /// Opens the listening sockets and starts. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A configuration that makes no sense, or an address that cannot be listened on.
    pub fn start(config: SpeakerConfig) -> Result<Speaker, StartError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(StartError::NoRuntime);
        }
        let listen = config.listen.clone();
        // Jitter needs no secret, only not to be the same on every gateway.
        let seed = RandomState::new().hash_one(config.router_id);
        config.check()?;
        let admission = Admission::read(&config)?;
        let watchers =
            Watchers::start(&config).map_err(|source| StartError::mrt(&config, source))?;
        let core = Core::new(config, seed, Instant::now())?;
        let (transport, arrivals) = Transport::new(&listen, admission)?;
        let (commands, queue) = mpsc::channel(COMMANDS);
        let paths = Paths::new(seed);
        tokio::spawn(Driver::new(core, transport, watchers, arrivals, queue, paths).run());
        Ok(Speaker { commands })
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Announces routes, each in place of an earlier announcement of its prefix. Returns as soon
    /// as they are in the table; see [`Speaker::flushed`] for when the peers have them.
    ///
    /// # Errors
    /// When the speaker has been stopped.
    pub async fn announce(&self, routes: Vec<Announcement>) -> Result<(), Stopped> {
        let mut routes = routes.into_iter().peekable();
        while routes.peek().is_some() {
            let piece = routes.by_ref().take(ROUTES_A_COMMAND).collect();
            self.ask(|reply| Command::Announce(piece, reply)).await?;
        }
        Ok(())
    }

    /// Withdraws announced routes; a prefix that is not announced is no error.
    ///
    /// # Errors
    /// When the speaker has been stopped.
    pub async fn withdraw(&self, prefixes: Vec<Prefix>) -> Result<(), Stopped> {
        for piece in prefixes.chunks(ROUTES_A_COMMAND) {
            self.ask(|reply| Command::Withdraw(piece.to_vec(), reply))
                .await?;
        }
        Ok(())
    }

    /// Says that everything that was announced before a restart is announced again. Only of
    /// importance with [`GracefulRestart::restarting`](crate::GracefulRestart::restarting): no
    /// route and no End-of-RIB leaves before this was called once (RFC 4724 section 4.1).
    pub async fn initial_routes_complete(&self) {
        // A stopped speaker sends nothing anyway.
        let _ = self.ask(Command::InitialRoutesComplete).await;
    }

    /// Waits until every peer has what was announced and withdrawn so far: written to its
    /// connection and acknowledged by its TCP. Returns the peers for which `timeout` was too
    /// short; peers without an established session have nothing to wait for.
    pub async fn flushed(&self, timeout: Duration) -> Vec<PeerName> {
        self.ask(|reply| Command::Flushed(timeout, reply))
            .await
            .unwrap_or_default()
    }

    /// A view of everything that happens: first the current state, then each change in order.
    pub fn subscribe(&self) -> Subscription {
        Subscription::new(self.commands.clone())
    }

    /// The state of every peer, in the order of the configuration. Empty once stopped.
    pub async fn peers(&self) -> Vec<PeerStatus> {
        self.ask(Command::Peers).await.unwrap_or_default()
    }

    /// Every prefix with learned paths. Empty once stopped.
    pub async fn routes(&self) -> Vec<RouteChange> {
        self.ask(Command::Routes).await.unwrap_or_default()
    }

    /// What each peer has been told; only peers with an established session appear.
    pub async fn advertised(&self) -> Advertised {
        self.ask(Command::Advertised).await.unwrap_or_default()
    }

    /// Says what is so from now on about all addresses in some networks, as next hops of learned
    /// routes; `None`: nothing is said any more. Of several networks around an address the
    /// smallest counts. Of effect only with
    /// [`track_next_hops`](crate::SpeakerConfig::track_next_hops): a next hop that nobody speaks
    /// of cannot be reached then, unless it is the address of a peer with an established session.
    /// [`Event::NextHop`](crate::Event::NextHop) tells which ones are in use.
    ///
    /// # Errors
    /// When the speaker has been stopped.
    pub async fn set_next_hops(
        &self,
        changes: Vec<(Prefix, Option<NextHopState>)>,
    ) -> Result<(), Stopped> {
        self.ask(|reply| Command::SetNextHops(changes, reply)).await
    }

    /// The next hops of learned routes, in order, if they are tracked. Empty once stopped.
    pub async fn next_hops(&self) -> Vec<(IpAddr, NextHopState)> {
        self.ask(Command::NextHops).await.unwrap_or_default()
    }

    /// How many connections were closed at once because no configured peer has their source
    /// address, or its session is administratively down.
    pub async fn refused_connections(&self) -> u64 {
        self.ask(Command::RefusedConnections)
            .await
            .unwrap_or_default()
    }

    /// The groups of dynamic peers, in the order of the configuration. Empty once stopped.
    pub async fn dynamic_groups(&self) -> Vec<DynamicStatus> {
        self.ask(Command::DynamicGroups).await.unwrap_or_default()
    }

    /// The aggregates of our own routes, in order. Empty once stopped.
    pub async fn aggregates(&self) -> Vec<AggregateStatus> {
        self.ask(Command::Aggregates).await.unwrap_or_default()
    }

    /// Writes every accepted route to a file, as MRT TABLE_DUMP_V2 (RFC 6396): whole, or not at
    /// all. Sessions and other calls go on meanwhile, so it is no picture of one moment: each
    /// prefix is as it was at some moment. When a route came is not kept, and written as 0.
    ///
    /// # Errors
    /// When the file cannot be written, or the speaker stops before it is.
    pub async fn dump_mrt(&self, path: impl Into<PathBuf>) -> Result<Dumped, DumpError> {
        let path = path.into();
        self.ask(|reply| Command::DumpMrt(path, reply))
            .await
            .unwrap_or(Err(DumpError::Stopped))
    }

    /// Takes the session with a peer down for good (Cease, Administrative Shutdown), or lets it
    /// come up again. The text is for the peer's operator: at most 255 octets of UTF-8, longer ones
    /// are cut (RFC 9003).
    ///
    /// # Errors
    /// When there is no such peer, or the speaker has been stopped.
    pub async fn set_peer_admin(
        &self,
        name: &str,
        up: bool,
        text: Option<&str>,
    ) -> Result<(), PeerError> {
        let name = name.to_owned();
        let text = text.map(str::to_owned);
        self.ask(|reply| Command::PeerAdmin {
            name,
            up,
            text,
            reply,
        })
        .await?
    }

    /// Says in every route that we are about to go, so that others use other paths (RFC 8326), or
    /// takes that back. [`Speaker::flushed`] tells when the peers have it.
    ///
    /// # Errors
    /// When the speaker has been stopped.
    pub async fn set_graceful_shutdown(&self, going: bool) -> Result<(), Stopped> {
        self.ask(|reply| Command::GracefulShutdown(going, reply))
            .await
    }

    /// Asks a peer for all its routes again (RFC 2918).
    ///
    /// # Errors
    /// When there is no such peer, it has no session or does not know the question, or the
    /// speaker has been stopped.
    pub async fn refresh_peer(&self, name: &str) -> Result<(), PeerError> {
        let name = name.to_owned();
        self.ask(|reply| Command::RefreshPeer(name, reply)).await?
    }

    /// Makes this the configuration, and reads the key files again: peers come and go, and those
    /// whose terms stay the same do not notice. A session ends only when what it is now cannot
    /// become what is configured. New keys are given to sessions that are up.
    ///
    /// # Errors
    /// A configuration that makes no sense, a key file that is refused, or an address that cannot
    /// be listened on: then the old configuration holds. Or the speaker has been stopped.
    pub async fn reconfigure(
        &self,
        config: SpeakerConfig,
    ) -> Result<Reconfigured, ReconfigureError> {
        config.check().map_err(StartError::from)?;
        let config = Box::new(config);
        let reading = tokio::task::spawn_blocking(|| {
            let admission = Admission::read(&config);
            (config, admission)
        });
        // It ends early only together with the runtime.
        let (config, admission) = reading.await.map_err(|_| Stopped)?;
        let admission = admission.map_err(StartError::from)?;
        let answer = self.ask(|reply| Command::Reconfigure {
            config,
            admission,
            reply,
        });
        Ok(answer.await??)
    }

    /// Ends all sessions and the speaker. Returns when the connections are closed, or after at
    /// most a few seconds if peers do not read.
    pub async fn stop(&self, how: Stop) {
        // Stopping twice is stopping.
        let _ = self.ask(|reply| Command::Stop(how, reply)).await;
    }
}
