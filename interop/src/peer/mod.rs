//! Real routers: BIRD, GoBGP and FRR from Debian's packages, each started in the foreground inside
//! a namespace with a generated configuration, and asked through its own command line.
//!
//! All three carry IPv4 and IPv6 over one session, and all three are graceful-restart helpers when
//! the configuration says so. Nothing here knows what the product is: a router's neighbour may as
//! well be another router.

pub mod bird;
pub mod frr;
pub mod gobgp;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bgp::Family;
use ipnet::IpNet;
use netlink::Namespace;

use crate::enter::Lab;
use crate::process::ProcessError;
use crate::wait::{TimedOut, eventually};

pub use bird::Bird;
pub use frr::Frr;
pub use gobgp::Gobgp;

/// How long a router may take from its start until its command line answers.
const START: Duration = Duration::from_secs(15);
/// How long a router may take to end when asked to.
const STOP: Duration = Duration::from_secs(10);
/// How long one question on a router's command line may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A router: who it is, whom it speaks to and what it announces.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// Name in messages and of its files: letters, digits and `-`.
    pub name: String,
    /// Its AS number, two or four octets.
    pub asn: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Its address on the segment of its neighbours: transport of IPv4 sessions, and next hop of
    /// the IPv4 prefixes it announces.
    pub address: Ipv4Addr,
    /// The same for IPv6.
    pub address6: Ipv6Addr,
    /// Its neighbours.
    pub neighbours: Vec<NeighbourConfig>,
    /// What it originates from the start; changed at run time by [`Router::announce`].
    pub announced: Vec<IpNet>,
}

/// One neighbour of a router.
#[derive(Debug, Clone)]
pub struct NeighbourConfig {
    /// Name in the router's configuration where it has one: letters, digits and `_`.
    pub name: String,
    /// Its address; the session runs over this family and may carry both.
    pub address: IpAddr,
    /// Its TCP port.
    pub port: u16,
    /// The AS number expected of it.
    pub asn: u32,
    /// The families offered to it.
    pub families: Vec<Family>,
    /// Only wait for its connection, never connect.
    pub passive: bool,
    /// Hold time offered, seconds: 0, or 3 and more.
    pub hold_time: u16,
    /// Seconds between two attempts to connect. The routers' own defaults wait up to minutes: right in
    /// the field, tedious in a lab.
    pub connect_retry: u16,
    /// Offer graceful restart (RFC 4724), with this restart time, seconds (at most 4095): so the
    /// router also keeps the neighbour's routes while that restarts.
    pub graceful_restart: Option<u16>,
}

impl NeighbourConfig {
    /// Both families, hold time 9 s, active every second, port 179, graceful restart within 120 s.
    pub fn new(name: &str, address: IpAddr, asn: u32) -> Self {
        Self {
            name: name.to_owned(),
            address,
            port: 179,
            asn,
            families: Family::ALL.to_vec(),
            passive: false,
            hold_time: 9,
            connect_retry: 1,
            graceful_restart: Some(120),
        }
    }
}

/// Which program a router runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Daemon {
    /// BIRD 2.
    Bird,
    /// GoBGP 3.
    Gobgp,
    /// FRRouting 8.
    Frr,
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bird => "BIRD",
            Self::Gobgp => "GoBGP",
            Self::Frr => "FRR",
        })
    }
}

/// A state of RFC 4271 section 8.2.2, as a router names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Not trying (also: shut down by the operator).
    Idle,
    /// Connecting.
    Connect,
    /// Waiting to connect again, or for a connection.
    Active,
    /// TCP is up, OPEN is sent.
    OpenSent,
    /// OPEN received and accepted.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

/// What a router says of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its state.
    pub state: SessionState,
    /// A mark that stays equal as long as the session is not interrupted, in the router's own terms
    /// (a clock time or a count); compare, don't read.
    pub since: String,
    /// The last error, where the router tells one.
    pub last_error: Option<String>,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} (since {})", self.state, self.since)?;
        match &self.last_error {
            Some(error) => write!(f, ", last error: {error}"),
            None => Ok(()),
        }
    }
}

/// One path a router has learned from a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnedRoute {
    /// The destination.
    pub prefix: IpNet,
    /// The global next hop.
    pub next_hop: IpAddr,
    /// The AS path, nearest first; the members of a set in their place.
    pub as_path: Vec<u32>,
    /// MULTI_EXIT_DISC, where present (FRR does not tell 0 from absent here).
    pub med: Option<u32>,
    /// It is the path the router uses.
    pub best: bool,
    /// It is kept only because its neighbour is restarting (RFC 4724).
    pub stale: bool,
}

impl fmt::Display for LearnedRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} via {} path {:?}",
            self.prefix, self.next_hop, self.as_path
        )?;
        if self.stale {
            f.write_str(" (stale)")
        } else {
            Ok(())
        }
    }
}

/// A command as an operator would type it, and what the router answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The command line, without the lab's own options.
    pub command: String,
    /// The answer.
    pub answer: String,
}

/// A router could not be started or asked.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// One of its processes.
    #[error("router {router}")]
    Process {
        /// The router's name.
        router: String,
        /// What went wrong.
        #[source]
        source: ProcessError,
    },
    /// One of its files.
    #[error("router {router}: cannot write {}", .path.display())]
    File {
        /// The router's name.
        router: String,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// It is not running.
    #[error("router {router} is not running")]
    NotRunning {
        /// The router's name.
        router: String,
    },
    /// It has no such neighbour.
    #[error("router {router} has no neighbour {neighbour}")]
    NoNeighbour {
        /// The router's name.
        router: String,
        /// The address asked for.
        neighbour: IpAddr,
    },
    /// Its answer could not be understood.
    #[error("router {router} answered `{command}` with what the lab cannot read: {reason}")]
    Answer {
        /// The router's name.
        router: String,
        /// The command.
        command: String,
        /// What was not understood.
        reason: String,
    },
    /// Its namespace's kernel refuses a route or an answer.
    #[error("router {router}: its kernel")]
    Kernel {
        /// The router's name.
        router: String,
        /// The kernel's answer.
        #[source]
        source: netlink::Error,
    },
    /// Something did not happen in time.
    #[error("router {router}")]
    Late {
        /// The router's name.
        router: String,
        /// What did not happen, and what was seen last.
        #[source]
        source: TimedOut,
    },
}

/// The common face of the three routers.
pub trait Router: Send {
    /// Its configuration, with what it announces now.
    fn config(&self) -> &RouterConfig;

    /// Its program.
    fn daemon(&self) -> Daemon;

    /// The namespace it runs in.
    fn namespace(&self) -> &Arc<Namespace>;

    /// Starts it; returns when its command line answers. Does nothing if it runs.
    ///
    /// # Errors
    /// It is not installed, refuses its configuration, or does not answer.
    fn start(&mut self) -> Result<(), PeerError>;

    /// Stops it as an operator would (SIGTERM: it says goodbye to its neighbours).
    ///
    /// # Errors
    /// It did not end in time; it is then killed.
    fn stop(&mut self) -> Result<(), PeerError>;

    /// Kills it, as a crash would.
    fn kill(&mut self);

    /// Stops it from running without ending it: its TCP connections stay and say nothing.
    ///
    /// # Errors
    /// It is not running.
    fn freeze(&self) -> Result<(), PeerError>;

    /// Lets it run again after [`Router::freeze`].
    ///
    /// # Errors
    /// It is not running.
    fn thaw(&self) -> Result<(), PeerError>;

    /// Asks its own command line (`birdc`, `gobgp`, `vtysh -c`).
    ///
    /// # Errors
    /// It does not answer, or refuses.
    fn cli(&self, words: &[&str]) -> Result<String, PeerError>;

    /// What it says of its session with `neighbour`.
    ///
    /// # Errors
    /// It does not answer, or has no such neighbour.
    fn session(&self, neighbour: IpAddr) -> Result<Session, PeerError>;

    /// The paths it has learned from its neighbours, in its own order.
    ///
    /// # Errors
    /// It does not answer.
    fn routes(&self, family: Family) -> Result<Vec<LearnedRoute>, PeerError>;

    /// The RFC 1997 communities of its best path to exactly `prefix`; none if it has no path.
    ///
    /// # Errors
    /// It does not answer.
    fn communities(&self, prefix: IpNet) -> Result<Vec<(u16, u16)>, PeerError>;

    /// What its operator would see when asking for one prefix, for people to read.
    ///
    /// # Errors
    /// It does not answer.
    fn show_route(&self, prefix: IpNet) -> Result<Quote, PeerError>;

    /// Originates a prefix too, with its own address as next hop.
    ///
    /// # Errors
    /// It refuses.
    fn announce(&mut self, prefix: IpNet) -> Result<(), PeerError>;

    /// Stops originating a prefix.
    ///
    /// # Errors
    /// It refuses.
    fn withdraw(&mut self, prefix: IpNet) -> Result<(), PeerError>;

    /// Resets the session with `neighbour` (a Cease); it comes back by itself.
    ///
    /// # Errors
    /// It refuses, or has no such neighbour.
    fn reset_session(&self, neighbour: IpAddr) -> Result<(), PeerError>;

    /// Waits until the session with `neighbour` is Established.
    ///
    /// # Errors
    /// Not in time, with the state last seen; or the router does not answer.
    fn await_established(&self, neighbour: IpAddr, within: Duration) -> Result<Session, PeerError> {
        let what = format!("session with {neighbour} established");
        let probe = || match self.session(neighbour) {
            Ok(session) if session.state == SessionState::Established => Ok(session),
            Ok(session) => Err(session.to_string()),
            Err(error) => Err(crate::enter::Chain(&error).to_string()),
        };
        eventually(what, within, probe).map_err(|source| late(self.config(), source))
    }

    /// Waits until it has learned a path to exactly `prefix`; gives back all it has.
    ///
    /// # Errors
    /// Not in time, with the routes last seen; or the router does not answer.
    fn await_route(&self, prefix: IpNet, within: Duration) -> Result<Vec<LearnedRoute>, PeerError> {
        let probe = || {
            let all = learned(self.routes(family_of(prefix)))?;
            let found: Vec<_> = all
                .iter()
                .filter(|route| route.prefix == prefix)
                .cloned()
                .collect();
            if found.is_empty() {
                Err(listed(&all))
            } else {
                Ok(found)
            }
        };
        let what = format!("a route to {prefix}");
        eventually(what, within, probe).map_err(|source| late(self.config(), source))
    }

    /// Waits until it has no path to exactly `prefix`.
    ///
    /// # Errors
    /// Not in time, with the routes last seen; or the router does not answer.
    fn await_no_route(&self, prefix: IpNet, within: Duration) -> Result<(), PeerError> {
        let probe = || {
            let all = learned(self.routes(family_of(prefix)))?;
            if all.iter().any(|route| route.prefix == prefix) {
                Err(listed(&all))
            } else {
                Ok(())
            }
        };
        let what = format!("no route to {prefix}");
        eventually(what, within, probe).map_err(|source| late(self.config(), source))
    }
}

/// A router of the given kind, not yet started.
pub fn router(
    daemon: Daemon,
    config: RouterConfig,
    namespace: Arc<Namespace>,
    lab: &Lab,
) -> Box<dyn Router> {
    match daemon {
        Daemon::Bird => Box::new(Bird::new(config, namespace, lab)),
        Daemon::Gobgp => Box::new(Gobgp::new(config, namespace, lab)),
        Daemon::Frr => Box::new(Frr::new(config, namespace, lab)),
    }
}

/// The family a prefix belongs to.
pub fn family_of(prefix: IpNet) -> Family {
    match prefix {
        IpNet::V4(_) => Family::Ipv4Unicast,
        IpNet::V6(_) => Family::Ipv6Unicast,
    }
}

fn learned(routes: Result<Vec<LearnedRoute>, PeerError>) -> Result<Vec<LearnedRoute>, String> {
    routes.map_err(|error| crate::enter::Chain(&error).to_string())
}

fn listed(routes: &[LearnedRoute]) -> String {
    let routes: Vec<String> = routes.iter().map(ToString::to_string).collect();
    if routes.is_empty() {
        "no routes".to_owned()
    } else {
        routes.join("; ")
    }
}

fn late(config: &RouterConfig, source: TimedOut) -> PeerError {
    PeerError::Late {
        router: config.name.clone(),
        source,
    }
}

/// The parts that the three have in common: where its files are and how its errors are named.
#[derive(Debug)]
struct Site {
    config: RouterConfig,
    namespace: Arc<Namespace>,
    /// Configuration and sockets.
    directory: PathBuf,
    /// Logs, on disk.
    logs: PathBuf,
}

impl Site {
    fn new(config: RouterConfig, namespace: Arc<Namespace>, lab: &Lab) -> Self {
        let directory = lab.run().join(&config.name);
        Self {
            config,
            namespace,
            directory,
            logs: lab.scratch().to_owned(),
        }
    }

    fn write(&self, file: &str, text: &str) -> Result<PathBuf, PeerError> {
        let path = self.directory.join(file);
        std::fs::create_dir_all(&self.directory)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|source| PeerError::File {
                router: self.config.name.clone(),
                path: path.clone(),
                source,
            })?;
        Ok(path)
    }

    fn log(&self, program: &str) -> PathBuf {
        self.logs
            .join(format!("{}-{program}.log", self.config.name))
    }

    fn process(&self, source: ProcessError) -> PeerError {
        PeerError::Process {
            router: self.config.name.clone(),
            source,
        }
    }

    fn not_running(&self) -> PeerError {
        PeerError::NotRunning {
            router: self.config.name.clone(),
        }
    }

    fn unreadable(&self, command: &str, reason: impl fmt::Display) -> PeerError {
        PeerError::Answer {
            router: self.config.name.clone(),
            command: command.to_owned(),
            reason: reason.to_string(),
        }
    }

    fn neighbour(&self, address: IpAddr) -> Result<&NeighbourConfig, PeerError> {
        self.config
            .neighbours
            .iter()
            .find(|neighbour| neighbour.address == address)
            .ok_or_else(|| PeerError::NoNeighbour {
                router: self.config.name.clone(),
                neighbour: address,
            })
    }

    /// The router's own address of the family the session with `neighbour` runs over.
    fn transport_address(&self, neighbour: &NeighbourConfig) -> IpAddr {
        match neighbour.address {
            IpAddr::V4(_) => self.config.address.into(),
            IpAddr::V6(_) => self.config.address6.into(),
        }
    }
}
