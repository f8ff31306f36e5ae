//! Real routers: BIRD, GoBGP, FRR, OpenBGPD and ExaBGP from Debian's packages, each started in the
//! foreground inside a namespace with a generated configuration, and asked through its own command
//! line.
//!
//! What a program lacks is refused by name ([`Daemon::lacks`]), and what its command line does not
//! tell is not made up ([`PeerError::NotOffered`]). Nothing here knows what the product is: a
//! router's neighbour may as well be another router.

pub mod bird;
pub mod config;
pub mod exabgp;
pub mod frr;
pub mod gobgp;
mod machine;
pub mod openbgpd;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bgp::{Family, bfd};
use ipnet::IpNet;
use netlink::Namespace;
use nix::sys::signal::Signal;

use crate::enter::{Chain, Lab};
use crate::process::ProcessError;
use crate::wait::{TimedOut, eventually};

pub use bird::Bird;
pub use config::{BfdTerms, Extra, NeighbourConfig, RouterConfig};
pub use exabgp::Exabgp;
pub use frr::Frr;
pub use gobgp::Gobgp;
pub use machine::{Machine, Running};
pub use openbgpd::Openbgpd;

/// How long one question on a router's command line may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Which program a router runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Daemon {
    /// BIRD 2.
    Bird,
    /// GoBGP 3.
    Gobgp,
    /// FRRouting 8.
    Frr,
    /// OpenBGPD 7.
    Openbgpd,
    /// ExaBGP 4: a speaker without a table or a choice of its own.
    Exabgp,
}

impl Daemon {
    /// All of them.
    pub const ALL: [Daemon; 5] = [
        Self::Bird,
        Self::Gobgp,
        Self::Frr,
        Self::Openbgpd,
        Self::Exabgp,
    ];

    /// Why the program, in the version that Debian has, cannot do this; `None`: it can.
    pub fn lacks(self, extra: Extra) -> Option<&'static str> {
        match self {
            Self::Bird => bird::lacks(extra),
            Self::Gobgp => gobgp::lacks(extra),
            Self::Frr => frr::lacks(extra),
            Self::Openbgpd => openbgpd::lacks(extra),
            Self::Exabgp => exabgp::lacks(extra),
        }
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bird => "BIRD",
            Self::Gobgp => "GoBGP",
            Self::Frr => "FRR",
            Self::Openbgpd => "OpenBGPD",
            Self::Exabgp => "ExaBGP",
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

impl SessionState {
    /// Reads the name of the RFC, as FRR, BIRD and OpenBGPD write it.
    fn named(name: &str) -> Option<SessionState> {
        Some(match name {
            "Idle" => SessionState::Idle,
            "Connect" => SessionState::Connect,
            "Active" => SessionState::Active,
            "OpenSent" => SessionState::OpenSent,
            "OpenConfirm" => SessionState::OpenConfirm,
            "Established" => SessionState::Established,
            _ => return None,
        })
    }
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
    /// The global next hop; where it was told a link-local one too, ExaBGP shows only that.
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
    /// The program cannot do what the configuration asks of it.
    #[error("router {router}: {daemon} has no {extra}: {reason}")]
    Lacks {
        /// The router's name.
        router: String,
        /// Its program.
        daemon: Daemon,
        /// What was asked of it.
        extra: Extra,
        /// Why it cannot.
        reason: &'static str,
    },
    /// Its command line does not tell this.
    #[error("router {router}: {what} is not offered by this router")]
    NotOffered {
        /// The router's name.
        router: String,
        /// What was asked.
        what: &'static str,
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

/// The common face of the routers.
pub trait Router: Send {
    /// Its program.
    fn daemon(&self) -> Daemon;

    /// Its place in the lab.
    fn machine(&self) -> &Machine;

    /// Its place in the lab.
    fn machine_mut(&mut self) -> &mut Machine;

    /// Starts its processes; returns when its command line answers. See [`Router::start`].
    ///
    /// # Errors
    /// As for [`Router::start`].
    fn launch(&self) -> Result<Running, PeerError>;

    /// Asks its own command line (`birdc`, `gobgp`, `vtysh -c`, `bgpctl`, `exabgpcli`).
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

    /// The RFC 8092 communities of its best path to exactly `prefix`; none if it has no path.
    ///
    /// # Errors
    /// It does not answer.
    fn large_communities(&self, prefix: IpNet) -> Result<Vec<(u32, u32, u32)>, PeerError>;

    /// What its operator would see when asking for one prefix, for people to read.
    ///
    /// # Errors
    /// It does not answer, or cannot be asked for one prefix.
    fn show_route(&self, prefix: IpNet) -> Result<Quote, PeerError>;

    /// Makes a running program originate what [`Router::config`] now says: `prefix` has been added.
    /// Callers want [`Router::announce`].
    ///
    /// # Errors
    /// It refuses.
    fn originate(&self, prefix: IpNet) -> Result<(), PeerError>;

    /// The same for a prefix that has been removed. Callers want [`Router::withdraw`].
    ///
    /// # Errors
    /// It refuses.
    fn cease_to_originate(&self, prefix: IpNet) -> Result<(), PeerError>;

    /// Resets the session with `neighbour` (a Cease); it comes back by itself.
    ///
    /// # Errors
    /// It refuses, or has no such neighbour.
    fn reset_session(&self, neighbour: IpAddr) -> Result<(), PeerError>;

    /// Asks `neighbour` for its routes once more, with a ROUTE-REFRESH for each family (RFC 2918).
    ///
    /// # Errors
    /// It refuses, or has no such neighbour, or no such command.
    fn ask_for_refresh(&self, neighbour: IpAddr) -> Result<(), PeerError>;

    /// Takes the session with `neighbour` down (Cease, Administrative Shutdown), with a reason of
    /// letters and spaces for its operator (RFC 9003); GoBGP comes back by itself.
    ///
    /// # Errors
    /// It refuses, or has no such neighbour, or takes no reason.
    fn shut_down(&self, neighbour: IpAddr, reason: &str) -> Result<(), PeerError>;

    /// The state of its BFD session with `neighbour`.
    ///
    /// # Errors
    /// It does not answer, or has no such session.
    fn bfd(&self, neighbour: IpAddr) -> Result<bfd::State, PeerError> {
        Err(self.machine().no_bfd(neighbour))
    }

    /// Takes BFD with `neighbour` down as its operator would, and leaves BGP as it is.
    ///
    /// # Errors
    /// It refuses, or has no such session.
    fn shut_bfd_down(&self, neighbour: IpAddr) -> Result<(), PeerError> {
        Err(self.machine().no_bfd(neighbour))
    }

    /// Its configuration, with what it announces now.
    fn config(&self) -> &RouterConfig {
        &self.machine().config
    }

    /// The namespace it runs in.
    fn namespace(&self) -> &Arc<Namespace> {
        &self.machine().namespace
    }

    /// Starts it; returns when its command line answers. Does nothing if it runs.
    ///
    /// # Errors
    /// It is not installed, lacks what its configuration asks for, refuses it, or does not answer.
    fn start(&mut self) -> Result<(), PeerError> {
        if self.machine().is_running() {
            return Ok(());
        }
        let daemon = self.daemon();
        for extra in self.config().extras() {
            if let Some(reason) = daemon.lacks(extra) {
                return Err(PeerError::Lacks {
                    router: self.config().name.clone(),
                    daemon,
                    extra,
                    reason,
                });
            }
        }
        let running = self.launch()?;
        self.machine_mut().started(running);
        Ok(())
    }

    /// Stops it as an operator would (SIGTERM: it says goodbye to its neighbours).
    ///
    /// # Errors
    /// It did not end in time; it is then killed.
    fn stop(&mut self) -> Result<(), PeerError> {
        self.machine_mut().stop()
    }

    /// Kills it, as a crash would.
    fn kill(&mut self) {
        self.machine_mut().kill();
    }

    /// Stops it from running without ending it: its TCP connections stay and say nothing.
    ///
    /// # Errors
    /// It is not running.
    fn freeze(&self) -> Result<(), PeerError> {
        self.machine().signal(Signal::SIGSTOP)
    }

    /// Lets it run again after [`Router::freeze`].
    ///
    /// # Errors
    /// It is not running.
    fn thaw(&self) -> Result<(), PeerError> {
        self.machine().signal(Signal::SIGCONT)
    }

    /// Originates a prefix too, with its own address as next hop.
    ///
    /// # Errors
    /// It refuses.
    fn announce(&mut self, prefix: IpNet) -> Result<(), PeerError> {
        let announced = &mut self.machine_mut().config.announced;
        if !announced.contains(&prefix) {
            announced.push(prefix);
        }
        match self.machine().is_running() {
            true => self.originate(prefix),
            false => Ok(()),
        }
    }

    /// Stops originating a prefix.
    ///
    /// # Errors
    /// It refuses.
    fn withdraw(&mut self, prefix: IpNet) -> Result<(), PeerError> {
        let announced = &mut self.machine_mut().config.announced;
        announced.retain(|announced| *announced != prefix);
        match self.machine().is_running() {
            true => self.cease_to_originate(prefix),
            false => Ok(()),
        }
    }

    /// Waits until the session with `neighbour` is Established.
    ///
    /// # Errors
    /// Not in time, with the state last seen; or the router does not answer.
    fn await_established(&self, neighbour: IpAddr, within: Duration) -> Result<Session, PeerError> {
        let what = format!("session with {neighbour} established");
        let probe = || match self.session(neighbour) {
            Ok(session) if session.state == SessionState::Established => Ok(session),
            Ok(session) => Err(session.to_string()),
            Err(error) => Err(Chain(&error).to_string()),
        };
        eventually(what, within, probe).map_err(|source| self.machine().late(source))
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
        eventually(what, within, probe).map_err(|source| self.machine().late(source))
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
        eventually(what, within, probe).map_err(|source| self.machine().late(source))
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
        Daemon::Openbgpd => Box::new(Openbgpd::new(config, namespace, lab)),
        Daemon::Exabgp => Box::new(Exabgp::new(config, namespace, lab)),
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
    routes.map_err(|error| Chain(&error).to_string())
}

fn listed(routes: &[LearnedRoute]) -> String {
    let routes: Vec<String> = routes.iter().map(ToString::to_string).collect();
    if routes.is_empty() {
        "no routes".to_owned()
    } else {
        routes.join("; ")
    }
}
