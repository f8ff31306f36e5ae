//! The product in the lab: the real `ccn` binary, run as the agent in the gateway's node and asked
//! through its own command line, as an operator would. Nothing of the agent's code is run here, but for
//! the question whether BPF can be had.

mod config;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ccn::plane::ebpf::sys::{self, Map, Shape};
use netlink::{Mac, Namespace};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use serde_json::Value;

use crate::enter::{Chain, Lab};
use crate::etcd::Etcd;
use crate::process::{Finished, Launch, Process, ProcessError};
use crate::topology::plan;
use crate::wait::{TimedOut, eventually};

pub use config::{
    BgpSection, BmpSection, GatewayConfig, LimitSection, MrtSection, PeerSection, PlaneSection,
    StoreSection,
};

/// Names a `ccn` binary to use instead of the one beside this program.
const BINARY: &str = "CCN_BINARY";
/// How long the agent may take from its start until its socket answers.
const START: Duration = Duration::from_secs(15);
/// How long the agent may take to end when asked to.
const STOP: Duration = Duration::from_secs(15);
/// How long one command may take; `ccn link` and `unlink` wait up to 30 s themselves.
const ANSWER: Duration = Duration::from_secs(45);

/// The agent could not be run or asked.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// There is no `ccn` beside this program.
    #[error("there is no {}: run `cargo build -p ccn` first, with --release if this is", .0.display())]
    NotBuilt(PathBuf),
    /// A file of the gateway's.
    #[error("cannot write {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The configuration cannot be written as TOML.
    #[error("cannot write the agent's configuration")]
    Config(#[from] toml::ser::Error),
    /// The agent or a command of its command line.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The agent is not running.
    #[error("the agent is not running")]
    NotRunning,
    /// Something did not happen in time.
    #[error(transparent)]
    Late(#[from] TimedOut),
}

/// The gateway: its configuration, and the agent if it runs.
#[derive(Debug)]
pub struct Gateway {
    /// What the next start of the agent is configured with.
    pub config: GatewayConfig,
    /// What the next start of the agent finds in its environment, beside what is there.
    pub env: Vec<(String, String)>,
    binary: PathBuf,
    namespace: Arc<Namespace>,
    directory: PathBuf,
    log: PathBuf,
    agent: Option<Process>,
}

impl Gateway {
    /// The gateway of the region, with the fixed points of its plan and these peers. The agent is
    /// not started.
    ///
    /// # Errors
    /// `ccn` has not been built.
    pub fn new(
        lab: &Lab,
        namespace: Arc<Namespace>,
        mac: Mac,
        peers: impl IntoIterator<Item = PeerSection>,
    ) -> Result<Self, GatewayError> {
        let directory = lab.run().join("gw");
        let config = GatewayConfig::of(&directory, mac, peers);
        let log = lab.scratch().join("gw-agent.log");
        Ok(Self {
            config,
            env: Vec::new(),
            binary: binary()?,
            namespace,
            directory,
            log,
            agent: None,
        })
    }

    /// A second gateway of the region, `gw2`, in the node that [`Region::add_partner`] made.
    ///
    /// [`Region::add_partner`]: crate::topology::Region::add_partner
    ///
    /// # Errors
    /// As for [`Gateway::new`].
    pub fn partner(
        lab: &Lab,
        namespace: Arc<Namespace>,
        mac: Mac,
        peers: impl IntoIterator<Item = PeerSection>,
    ) -> Result<Self, GatewayError> {
        let node = (plan::PARTNER, plan::PARTNER_HOST, namespace);
        Self::another(lab, node, mac, peers)
    }

    /// One more gateway of the region: name and number as [`Region::add_gateway`] was told, and the namespace that
    /// it made.
    ///
    /// [`Region::add_gateway`]: crate::topology::Region::add_gateway
    ///
    /// # Errors
    /// As for [`Gateway::new`].
    pub fn another(
        lab: &Lab,
        (name, host, namespace): (&str, u8, Arc<Namespace>),
        mac: Mac,
        peers: impl IntoIterator<Item = PeerSection>,
    ) -> Result<Self, GatewayError> {
        let (address4, address6) = (plan::idc4(host), plan::idc6(host));
        let peers = peers.into_iter().map(|peer| PeerSection {
            next_hop_v4: address4,
            next_hop_v6: address6,
            ..peer
        });
        let mut gateway = Self::new(lab, namespace, mac, peers)?;
        let directory = lab.run().join(name);
        let config = &mut gateway.config;
        config.name = name.to_owned();
        config.admin_socket = directory.join("agent.sock");
        config.store.path = directory.join("store.redb");
        config.plane.vtep = plan::vtep(host).into();
        // All see one file system.
        config.plane.bpffs = Some(format!("/sys/fs/bpf/ccn-{name}").into());
        config.bgp.router_id = address4;
        config.bgp.listen = vec![(address4, 179).into(), (address6, 179).into()];
        gateway.log = lab.scratch().join(format!("{name}-agent.log"));
        gateway.directory = directory;
        Ok(gateway)
    }

    /// Has the next start of the agent use this etcd.
    pub fn store_in(&mut self, etcd: &Etcd) {
        self.config.store = StoreSection {
            path: PathBuf::new(),
            more: etcd.section(&self.directory.join("snapshot.redb")),
        };
    }

    /// Starts the agent; returns when its admin socket answers. Does nothing if it runs.
    ///
    /// # Errors
    /// It refuses its configuration, or ends, or does not answer.
    pub fn start(&mut self) -> Result<(), GatewayError> {
        if self.agent.is_some() {
            return Ok(());
        }
        let mut agent = self.launch_agent()?.start(&self.log)?;
        let answered = eventually("the admin socket answers", START, || match agent.check() {
            // Pointless to ask a dead one: leave the loop.
            Err(error) => Ok(Err(error)),
            Ok(()) => match self.ccn(["status"]) {
                Ok(_) => Ok(Ok(())),
                Err(error) => Err(Chain(&error).to_string()),
            },
        })?;
        answered?;
        self.agent = Some(agent);
        Ok(())
    }

    /// The command that would start the agent, with its configuration written: for a start that is
    /// expected to fail, or a second agent.
    ///
    /// # Errors
    /// The configuration cannot be written.
    pub fn launch_agent(&self) -> Result<Launch, GatewayError> {
        let config = self.write_config()?;
        let mut launch = self.launch().args(["agent", "--config"]).arg(config);
        for (name, value) in &self.env {
            launch = launch.env(name, value);
        }
        Ok(launch)
    }

    /// Writes the agent's configuration; its file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_config(&self) -> Result<PathBuf, GatewayError> {
        self.write("agent.toml", &toml::to_string(&self.config)?)
    }

    /// Writes the configuration as it is now and has the running agent read it: what it says.
    ///
    /// # Errors
    /// The agent refuses it.
    pub fn reload(&self) -> Result<String, GatewayError> {
        self.launch_agent()?;
        self.ccn(["reload"])
    }

    /// Stops the agent as its service manager would (SIGTERM). Forwarding stays.
    ///
    /// # Errors
    /// It is not running, or did not end in time (it is then killed).
    pub fn stop(&mut self) -> Result<(), GatewayError> {
        let agent = self.agent.take().ok_or(GatewayError::NotRunning)?;
        agent.stop(Signal::SIGTERM, STOP)?;
        Ok(())
    }

    /// Kills the agent, as a crash would (SIGKILL).
    ///
    /// # Errors
    /// It is not running.
    pub fn kill(&mut self) -> Result<(), GatewayError> {
        self.agent
            .take()
            .map(Process::kill)
            .ok_or(GatewayError::NotRunning)
    }

    /// The running agent's process.
    ///
    /// # Errors
    /// It is not running.
    pub fn agent(&mut self) -> Result<&mut Process, GatewayError> {
        self.agent.as_mut().ok_or(GatewayError::NotRunning)
    }

    /// Where the agent logs.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Runs `ccn` with this gateway's socket: its stdout.
    ///
    /// # Errors
    /// It fails; the error holds what it said.
    pub fn ccn<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> Result<String, GatewayError> {
        Ok(self.finish(args)?.success()?)
    }

    /// Runs `ccn` with this gateway's socket, whether it succeeds or not.
    ///
    /// # Errors
    /// It cannot be run, or does not end.
    pub fn finish<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Finished, GatewayError> {
        Ok(self.launch().args(args).finish(ANSWER)?)
    }

    /// Runs `ccn ... --json`: what it prints, read.
    ///
    /// # Errors
    /// It fails, or prints something else.
    pub fn json<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Value, GatewayError> {
        let finished = self.launch().args(args).arg("--json").finish(ANSWER)?;
        Ok(finished.json()?)
    }

    /// `ccn` with this gateway's socket and these arguments, not yet started.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Launch {
        self.launch().args(args)
    }

    /// Takes everything of the plane's out of the kernel. The agent must not be running.
    ///
    /// # Errors
    /// It is running, or the kernel refuses.
    pub fn remove_plane(&self) -> Result<(), GatewayError> {
        let config = self.directory.join("agent.toml");
        let words: [&OsStr; 4] = [
            "plane".as_ref(),
            "remove".as_ref(),
            "--config".as_ref(),
            config.as_ref(),
        ];
        self.ccn(words).map(drop)
    }

    /// What the kernel holds of the plane's, a line an object, whether or not the agent runs.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn plane_dump(&self) -> Result<Vec<String>, GatewayError> {
        let config = self.directory.join("agent.toml");
        let words: [&OsStr; 4] = [
            "plane".as_ref(),
            "dump".as_ref(),
            "--config".as_ref(),
            config.as_ref(),
        ];
        Ok(self.ccn(words)?.lines().map(ToOwned::to_owned).collect())
    }

    /// Imports one record, or deletes it with a value of `null`.
    ///
    /// # Errors
    /// The agent refuses it.
    pub fn put(&self, key: &str, value: &Value) -> Result<(), GatewayError> {
        let line = serde_json::json!({ "key": key, "value": value });
        let file = self.write("record.jsonl", &format!("{line}\n"))?;
        self.ccn([OsStr::new("import"), file.as_os_str()]).map(drop)
    }

    /// Waits until the kernel and the speaker have all that the store holds.
    ///
    /// # Errors
    /// Not in time, with the status last seen.
    pub fn await_settled(&self, within: Duration) -> Result<Value, GatewayError> {
        Ok(eventually("the gateway settles", within, || {
            match self.json(["status"]) {
                Ok(status) if status["settled"] == Value::Bool(true) => Ok(status),
                Ok(status) => Err(status.to_string()),
                Err(error) => Err(Chain(&error).to_string()),
            }
        })?)
    }

    fn launch(&self) -> Launch {
        Launch::new(&self.binary)
            .env("CCN_SOCKET", &self.config.admin_socket)
            .in_namespace(self.namespace.fd())
    }

    fn write(&self, file: &str, text: &str) -> Result<PathBuf, GatewayError> {
        let path = self.directory.join(file);
        std::fs::create_dir_all(&self.directory)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|source| GatewayError::File {
                path: path.clone(),
                source,
            })?;
        Ok(path)
    }
}

/// Whether a test of the `ebpf` plane can be made here. Only root may load BPF, and not in a user namespace:
/// there this says so and answers no.
///
/// # Errors
/// Root himself may not: that is a fault.
pub fn may_load_bpf() -> io::Result<bool> {
    let shape = Shape {
        kind: sys::ARRAY,
        key: 4,
        value: 8,
        entries: 1,
        flags: 0,
    };
    let Err(error) = Map::create("probe", shape) else {
        return Ok(true);
    };
    let map = std::fs::read_to_string("/proc/self/uid_map")?;
    let is_all = map.split_whitespace().eq(["0", "0", "4294967295"]);
    if is_all && Uid::effective().is_root() {
        return Err(error);
    }
    // Nobody reads any more if this fails.
    let _ = writeln!(
        io::stderr(),
        "left out: the ebpf plane takes root ({error})"
    );
    Ok(false)
}

/// The `ccn` that was built with this program: cargo puts tests into `deps`, one below it.
pub(crate) fn binary() -> Result<PathBuf, GatewayError> {
    if let Some(path) = std::env::var_os(BINARY) {
        return Ok(path.into());
    }
    let own = std::env::current_exe().map_err(|source| GatewayError::File {
        path: "/proc/self/exe".into(),
        source,
    })?;
    let directory = own.parent().unwrap_or(Path::new("."));
    let directory = match directory.file_name() {
        Some(name) if name == "deps" => directory.parent().unwrap_or(directory),
        _ => directory,
    };
    let path = directory.join("ccn");
    if path.is_file() {
        Ok(path)
    } else {
        Err(GatewayError::NotBuilt(path))
    }
}
