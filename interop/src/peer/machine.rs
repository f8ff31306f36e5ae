//! What all routers have in common: where the files of one are, its processes, and how its errors are
//! named. Knows no program.

use std::any::Any;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use netlink::Namespace;
use nix::sys::signal::Signal;

use super::{Chain, NeighbourConfig, PeerError, RouterConfig};
use crate::enter::Lab;
use crate::process::{Process, ProcessError};
use crate::wait::{TimedOut, eventually};

/// How long a router may take from its start until its command line answers.
const START: Duration = Duration::from_secs(15);
/// How long a router may take to end when asked to.
const STOP: Duration = Duration::from_secs(10);

/// One router's place in the lab, and its processes while it runs.
#[derive(Debug)]
pub struct Machine {
    pub(super) config: RouterConfig,
    pub(super) namespace: Arc<Namespace>,
    /// Configuration and sockets.
    pub(super) directory: PathBuf,
    /// Logs, on disk.
    logs: PathBuf,
    running: Option<Running>,
    crashed: bool,
}

/// The processes of a running router. Dropping it kills them.
pub struct Running {
    /// The process that speaks BGP.
    speaker: Process,
    /// Its helpers.
    others: Vec<Process>,
    /// What the lab itself does for the router as long as it runs.
    _companion: Option<Box<dyn Any + Send>>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuple = f.debug_tuple("Running");
        tuple.field(&self.speaker).field(&self.others).finish()
    }
}

impl Running {
    /// A router that is one process.
    pub(super) fn new(speaker: Process) -> Self {
        Self {
            speaker,
            others: Vec::new(),
            _companion: None,
        }
    }

    /// One more process, stopped after the speaker.
    pub(super) fn with(mut self, other: Process) -> Self {
        self.others.push(other);
        self
    }

    /// Something of the lab's own that ends after the processes.
    pub(super) fn beside(mut self, companion: impl Any + Send) -> Self {
        self._companion = Some(Box::new(companion));
        self
    }
}

impl Machine {
    /// Not running.
    pub(super) fn new(config: RouterConfig, namespace: Arc<Namespace>, lab: &Lab) -> Self {
        let directory = lab.run().join(&config.name);
        Self {
            config,
            namespace,
            directory,
            logs: lab.scratch().to_owned(),
            running: None,
            crashed: false,
        }
    }

    /// Whether it was killed and has not been started since: its start is a restart (RFC 4724), with
    /// the forwarding state that it had.
    pub(super) fn is_recovering(&self) -> bool {
        self.crashed
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn started(&mut self, running: Running) {
        self.running = Some(running);
        self.crashed = false;
    }

    /// Asks every process to end, the speaker first.
    pub(super) fn stop(&mut self) -> Result<(), PeerError> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        for process in [running.speaker].into_iter().chain(running.others) {
            process
                .stop(Signal::SIGTERM, STOP)
                .map_err(|error| self.process(error))?;
        }
        Ok(())
    }

    pub(super) fn kill(&mut self) {
        self.crashed |= self.running.take().is_some();
    }

    /// Sends a signal to every process and its children: OpenBGPD's sessions are in one of them, and
    /// FRR's BFD is in one beside.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), PeerError> {
        let running = self.running.as_ref().ok_or_else(|| self.not_running())?;
        for process in [&running.speaker].into_iter().chain(&running.others) {
            let sent = process.signal_family(signal);
            sent.map_err(|error| self.process(error))?;
        }
        Ok(())
    }

    /// Waits until a process that was just started is ready for use.
    pub(super) fn await_ready(
        &self,
        process: &mut Process,
        what: &str,
        mut ready: impl FnMut() -> Result<(), String>,
    ) -> Result<(), PeerError> {
        let answered = eventually(what, START, || match process.check() {
            // Pointless to ask a dead one: leave the loop.
            Err(error) => Ok(Err(error)),
            Ok(()) => ready().map(Ok),
        });
        match answered {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.process(error)),
            Err(error) => Err(self.late(error)),
        }
    }

    pub(super) fn write(&self, file: &str, text: &str) -> Result<PathBuf, PeerError> {
        let path = self.directory.join(file);
        std::fs::create_dir_all(&self.directory)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|source| self.file(&path, source))?;
        Ok(path)
    }

    pub(super) fn log(&self, program: &str) -> PathBuf {
        self.logs
            .join(format!("{}-{program}.log", self.config.name))
    }

    pub(super) fn file(&self, path: impl Into<PathBuf>, source: std::io::Error) -> PeerError {
        PeerError::File {
            router: self.config.name.clone(),
            path: path.into(),
            source,
        }
    }

    pub(super) fn process(&self, source: ProcessError) -> PeerError {
        PeerError::Process {
            router: self.config.name.clone(),
            source,
        }
    }

    pub(super) fn late(&self, source: TimedOut) -> PeerError {
        PeerError::Late {
            router: self.config.name.clone(),
            source,
        }
    }

    fn not_running(&self) -> PeerError {
        PeerError::NotRunning {
            router: self.config.name.clone(),
        }
    }

    pub(super) fn unreadable(&self, command: &str, reason: impl fmt::Display) -> PeerError {
        PeerError::Answer {
            router: self.config.name.clone(),
            command: command.to_owned(),
            reason: reason.to_string(),
        }
    }

    pub(super) fn no_bfd(&self, neighbour: IpAddr) -> PeerError {
        match self.neighbour(neighbour) {
            Ok(_) => self.not_offered("BFD"),
            Err(error) => error,
        }
    }

    pub(super) fn not_offered(&self, what: &'static str) -> PeerError {
        PeerError::NotOffered {
            router: self.config.name.clone(),
            what,
        }
    }

    pub(super) fn neighbour(&self, address: IpAddr) -> Result<&NeighbourConfig, PeerError> {
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
    pub(super) fn transport_address(&self, neighbour: &NeighbourConfig) -> IpAddr {
        match neighbour.address {
            IpAddr::V4(_) => self.config.address.into(),
            IpAddr::V6(_) => self.config.address6.into(),
        }
    }
}

/// An error as what was seen last.
pub(super) fn seen(error: &PeerError) -> String {
    Chain(error).to_string()
}
