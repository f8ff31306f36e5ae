//! A real etcd in the lab: one member or several, TLS with client certificates, users and roles.
//!
//! The members listen on 127.0.0.1 of the namespace they are started in, or on another address of it. What an operator would do with `etcdctl`
//! is done with `etcdctl`.

mod certificates;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netlink::Namespace;
use nix::sys::signal::Signal;
use serde_json::Value;
use toml::Table;

use crate::process::{Launch, Process, ProcessError};
use crate::wait::{TimedOut, eventually};

pub use certificates::{Authority, CertificateError, Identity};

/// What all keys of the lab begin with.
pub const ROOT: &str = "/ccn/v1";
/// The user that may write below the root, and nothing else.
const USER: &str = "ccn";
const PASSWORD: &str = "lab-secret";
const ROOT_PASSWORD: &str = "root-secret";
/// The port of the first member; each takes two of ten.
const PORT: usize = 2379;
/// How long a command may take, and members until they have a leader.
const SOON: Duration = Duration::from_secs(20);

/// etcd could not be run or asked.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// `etcdctl` said what was not expected.
    #[error("`etcdctl {command}` said {said}")]
    Said {
        /// The command.
        command: String,
        /// What it said.
        said: String,
    },
    /// Something did not happen in time.
    #[error(transparent)]
    Late(#[from] TimedOut),
}

/// A cluster, with TLS and authentication on.
pub struct Etcd {
    directory: PathBuf,
    logs: PathBuf,
    namespace: Option<Arc<Namespace>>,
    /// Where members listen for clients.
    host: Ipv4Addr,
    /// Who signed the certificates of members and clients.
    pub authority: Authority,
    member: Identity,
    operator: Identity,
    /// What a gateway shows; a test may replace its files.
    pub client: Identity,
    password: PathBuf,
    /// Distinguishes this cluster from one that is restored from its backup.
    token: String,
    /// What each sync of the log to disk takes longer, for members that are started from now on.
    slow: Option<Duration>,
    members: Vec<Option<Process>>,
}

impl Etcd {
    /// Starts `members` members (in a namespace, or where the caller is), and puts user, role and authentication
    /// in order. `directory` is there and private to it; logs go to `logs`.
    ///
    /// # Errors
    /// etcd is not installed, or does not come up.
    pub fn start(
        directory: &Path,
        logs: &Path,
        namespace: Option<Arc<Namespace>>,
        members: usize,
    ) -> Result<Self, EtcdError> {
        Self::start_at(Ipv4Addr::LOCALHOST, directory, logs, namespace, members)
    }

    /// [`Etcd::start`], with members that listen on this address: where gateways in other namespaces reach them.
    ///
    /// # Errors
    /// As for [`Etcd::start`].
    pub fn start_at(
        host: Ipv4Addr,
        directory: &Path,
        logs: &Path,
        namespace: Option<Arc<Namespace>>,
        members: usize,
    ) -> Result<Self, EtcdError> {
        let authority = Authority::new(directory, "lab-ca")?;
        let password = directory.join("password");
        fs::write(&password, format!("{PASSWORD}\n")).map_err(|source| EtcdError::File {
            path: password.clone(),
            source,
        })?;
        let mut etcd = Etcd {
            directory: directory.to_owned(),
            logs: logs.to_owned(),
            namespace,
            host,
            member: authority.sign("member")?,
            operator: authority.sign("operator")?,
            client: authority.sign("gateway")?,
            authority,
            password,
            token: "lab".to_owned(),
            slow: None,
            members: (0..members).map(|_| None).collect(),
        };
        etcd.start_all()?;
        // Below it are the records; beside it, with a dot, what gateways and API servers say of them.
        let rooted = ROOT;
        for command in [
            &["user", "add", &format!("root:{ROOT_PASSWORD}")][..],
            &["user", "grant-role", "root", "root"],
            &["role", "add", USER],
            &[
                "role",
                "grant-permission",
                USER,
                "readwrite",
                rooted,
                "--prefix=true",
            ],
            &["user", "add", &format!("{USER}:{PASSWORD}")],
            &["user", "grant-role", USER, USER],
            &["auth", "enable"],
        ] {
            etcd.finish(command, false)?;
        }
        Ok(etcd)
    }

    /// Starts the members that do not run, and waits until there is a leader.
    ///
    /// # Errors
    /// They do not come up.
    pub fn start_all(&mut self) -> Result<(), EtcdError> {
        for index in 0..self.members.len() {
            self.start_member(index)?;
        }
        self.await_leader()
    }

    /// Starts a member if it does not run; waits for nothing.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_member(&mut self, index: usize) -> Result<(), EtcdError> {
        if self.members[index].is_some() {
            return Ok(());
        }
        let name = format!("m{index}");
        let client = self.url(index);
        let peer = peer_url(index);
        let file = |path: &Path| path.display().to_string();
        let launch = self.launch("etcd").args([
            "--name",
            &name,
            "--data-dir",
            &file(&self.data(index)),
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &self.initial_cluster(),
            "--initial-cluster-token",
            &self.token,
            "--cert-file",
            &file(&self.member.certificate),
            "--key-file",
            &file(&self.member.key),
            "--trusted-ca-file",
            &file(&self.authority.certificate),
            "--client-cert-auth",
            "--heartbeat-interval",
            "50",
            "--election-timeout",
            "500",
            "--logger",
            "zap",
            "--log-level",
            "warn",
        ]);
        let launch = match self.slow {
            None => launch,
            // The tracer is no parent of etcd, which ends with its own parent as ever.
            Some(each) => {
                let inject = format!("inject=fdatasync:delay_enter={}", each.as_micros());
                let tracing = ["-D", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e"];
                let tracing = tracing
                    .into_iter()
                    .chain(["trace=fdatasync", "-e", &inject]);
                launch.by("strace", tracing)
            }
        };
        let process = launch.start(&self.logs.join(format!("etcd-{name}.log")))?;
        self.members[index] = Some(process);
        Ok(())
    }

    /// Starts all members anew, on a disk of which each sync takes so much longer, or as long as it does.
    ///
    /// # Errors
    /// They do not come up.
    pub fn start_on_disk(&mut self, slow: Option<Duration>) -> Result<(), EtcdError> {
        self.slow = slow;
        self.kill_all();
        self.start_all()
    }

    /// The member that leads.
    ///
    /// # Errors
    /// Nobody says so.
    pub fn leader(&self) -> Result<usize, EtcdError> {
        for index in 0..self.members.len() {
            if self.members[index].is_none() {
                continue;
            }
            let asked = ["endpoint", "status", "-w", "json"];
            let said = self.finish_at(&self.url(index), &asked, true)?;
            let status: Value = serde_json::from_str(&said).unwrap_or_default();
            let status = &status[0]["Status"];
            if !status["leader"].is_null() && status["leader"] == status["header"]["member_id"] {
                return Ok(index);
            }
        }
        Err(EtcdError::Said {
            command: "endpoint status".to_owned(),
            said: "that nobody leads".to_owned(),
        })
    }

    /// Takes from the user of gateways and API servers the right to its keys, or gives it back.
    ///
    /// # Errors
    /// `etcdctl` refuses.
    pub fn permit(&self, permitted: bool) -> Result<(), EtcdError> {
        let grant = [
            "role",
            "grant-permission",
            USER,
            "readwrite",
            ROOT,
            "--prefix=true",
        ];
        let revoke = ["role", "revoke-permission", USER, ROOT, "--prefix=true"];
        let order: &[&str] = if permitted { &grant } else { &revoke };
        self.ctl(order).map(drop)
    }

    /// A member that runs.
    #[must_use]
    pub fn member(&self, index: usize) -> Option<&Process> {
        self.members.get(index)?.as_ref()
    }

    /// Kills a member, if it runs.
    pub fn kill_member(&mut self, index: usize) {
        if let Some(member) = self.members[index].take() {
            member.kill();
        }
    }

    /// Kills every member.
    pub fn kill_all(&mut self) {
        for index in 0..self.members.len() {
            self.kill_member(index);
        }
    }

    /// Has a member stand still, or go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal_member(&self, index: usize, signal: Signal) -> Result<(), EtcdError> {
        match &self.members[index] {
            Some(member) => Ok(member.signal(signal)?),
            None => Ok(()),
        }
    }

    /// Waits until the members that run have a leader.
    ///
    /// # Errors
    /// Not in time.
    pub fn await_leader(&self) -> Result<(), EtcdError> {
        let running = (0..self.members.len()).filter(|index| self.members[*index].is_some());
        let endpoints: Vec<String> = running.map(|index| self.url(index)).collect();
        eventually("etcd has a leader", SOON, || {
            let asked = self.finish_at(&endpoints.join(","), &["endpoint", "health"], false);
            asked.map_err(|error| error.to_string())
        })?;
        Ok(())
    }

    /// The section `[store]` of an agent that is to use it, with its snapshot in this file.
    #[must_use]
    pub fn section(&self, snapshot: &Path) -> Table {
        let text = |path: &Path| toml::Value::from(path.display().to_string());
        let endpoints: Vec<String> = (0..self.members.len())
            .map(|index| self.url(index))
            .collect();
        [
            ("kind", "etcd".into()),
            ("endpoints", endpoints.into()),
            ("root", ROOT.into()),
            ("ca", text(&self.authority.certificate)),
            ("cert", text(&self.client.certificate)),
            ("key", text(&self.client.key)),
            ("user", USER.into()),
            ("password_file", text(&self.password)),
            ("snapshot", text(snapshot)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// Runs `etcdctl` as root.
    ///
    /// # Errors
    /// It fails, or takes too long.
    pub fn ctl(&self, args: &[&str]) -> Result<String, EtcdError> {
        self.finish(args, true)
    }

    /// Puts a value, as the cloud's own controllers might: nobody checks it.
    ///
    /// # Errors
    /// As [`Etcd::ctl`].
    pub fn put(&self, key: &str, value: &str) -> Result<(), EtcdError> {
        self.ctl(&["put", &format!("{ROOT}/{key}"), value])?;
        Ok(())
    }

    /// The revision that the cluster is at.
    ///
    /// # Errors
    /// As [`Etcd::ctl`].
    pub fn revision(&self) -> Result<u64, EtcdError> {
        let said = self.ctl(&["get", "no-such-key", "-w", "json"])?;
        let header: Option<Value> = serde_json::from_str(&said).ok();
        let revision = header
            .as_ref()
            .and_then(|said| said["header"]["revision"].as_u64());
        revision.ok_or_else(|| EtcdError::Said {
            command: "get".to_owned(),
            said: said.clone(),
        })
    }

    /// Forgets all history up to now.
    ///
    /// # Errors
    /// As [`Etcd::ctl`].
    pub fn compact(&self) -> Result<(), EtcdError> {
        let revision = self.revision()?.to_string();
        self.ctl(&["compact", &revision])?;
        Ok(())
    }

    /// Writes a backup to a file.
    ///
    /// # Errors
    /// As [`Etcd::ctl`].
    pub fn back_up(&self, file: &Path) -> Result<(), EtcdError> {
        let file = file.display().to_string();
        // Of one member only.
        self.finish_at(&self.url(0), &["snapshot", "save", &file], true)?;
        Ok(())
    }

    /// Kills every member and starts all from a backup, with their former names, addresses and cluster's token.
    ///
    /// # Errors
    /// They do not come up.
    pub fn restore(&mut self, file: &Path) -> Result<(), EtcdError> {
        self.kill_all();
        for index in 0..self.members.len() {
            let data = self.data(index);
            fs::remove_dir_all(&data).map_err(|source| EtcdError::File {
                path: data.clone(),
                source,
            })?;
            let (file, data) = (file.display().to_string(), data.display().to_string());
            self.finish(
                &[
                    "snapshot",
                    "restore",
                    &file,
                    "--data-dir",
                    &data,
                    "--name",
                    &format!("m{index}"),
                    "--initial-cluster",
                    &self.initial_cluster(),
                    "--initial-cluster-token",
                    &self.token,
                    "--initial-advertise-peer-urls",
                    &peer_url(index),
                ],
                false,
            )?;
        }
        self.start_all()
    }

    fn finish(&self, args: &[&str], as_root: bool) -> Result<String, EtcdError> {
        let endpoints: Vec<String> = (0..self.members.len())
            .map(|index| self.url(index))
            .collect();
        self.finish_at(&endpoints.join(","), args, as_root)
    }

    fn finish_at(
        &self,
        endpoints: &str,
        args: &[&str],
        as_root: bool,
    ) -> Result<String, EtcdError> {
        let mut launch = self
            .launch("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", endpoints])
            .arg("--cacert")
            .arg(&self.authority.certificate)
            .arg("--cert")
            .arg(&self.operator.certificate)
            .arg("--key")
            .arg(&self.operator.key);
        if as_root {
            launch = launch.args(["--user", &format!("root:{ROOT_PASSWORD}")]);
        }
        Ok(launch.args(args).output(SOON)?)
    }

    fn launch(&self, program: &str) -> Launch {
        let launch = Launch::new(program);
        match &self.namespace {
            Some(namespace) => launch.in_namespace(namespace.fd()),
            None => launch,
        }
    }

    fn initial_cluster(&self) -> String {
        let members = (0..self.members.len()).map(|index| format!("m{index}={}", peer_url(index)));
        members.collect::<Vec<_>>().join(",")
    }

    fn data(&self, index: usize) -> PathBuf {
        self.directory.join(format!("m{index}"))
    }

    fn url(&self, index: usize) -> String {
        format!("https://{}:{}", self.host, PORT + 10 * index)
    }
}

fn peer_url(index: usize) -> String {
    format!("http://127.0.0.1:{}", PORT + 1 + 10 * index)
}
