//! API servers in the lab: the real `ccn apiserver` in front of the lab's etcd, and the command line that talks to
//! it over TLS, as an operator's would from elsewhere.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netlink::Namespace;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::enter::{Chain, Lab};
use crate::etcd::{CertificateError, Etcd};
use crate::gateway::{GatewayError, binary};
use crate::process::{Finished, Launch, Process, ProcessError};
use crate::wait::{TimedOut, eventually};

/// How long the server may take until it answers.
const START: Duration = Duration::from_secs(30);
/// How long it may take to end.
const STOP: Duration = Duration::from_secs(15);
/// How long one command may take.
const ANSWER: Duration = Duration::from_secs(60);
/// The port of the first server.
const PORT: u16 = 8443;

/// An API server could not be run or asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiServerError {
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// There is no `ccn`.
    #[error(transparent)]
    Binary(#[from] GatewayError),
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A line of the audit log is no JSON.
    #[error("{}: {source}", path.display())]
    Audit {
        /// The log.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// What it said is no HTTP.
    #[error("this is no HTTP: {said:?}")]
    NoHttp {
        /// What it said.
        said: String,
    },
    /// The server is not running.
    #[error("the API server is not running")]
    NotRunning,
    /// Something did not happen in time.
    #[error(transparent)]
    Late(#[from] TimedOut),
}

/// What somebody may, and the token that says so; the lab has one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Looks.
    Viewer,
    /// Links.
    Operator,
    /// Writes records.
    Admin,
}

impl Role {
    const ALL: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

    fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

/// An answer, as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub text: String,
    /// The body, where it is JSON.
    pub body: Value,
}

impl Answer {
    fn read(said: &str) -> Option<Answer> {
        let (head, text) = said.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(": "));
        Some(Answer {
            status,
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
            text: text.to_owned(),
            body: serde_json::from_str(text).unwrap_or_default(),
        })
    }
}

/// One API server; several may share an etcd.
pub struct ApiServer {
    binary: PathBuf,
    namespace: Arc<Namespace>,
    directory: PathBuf,
    ca: PathBuf,
    log: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl ApiServer {
    /// Server number `number` (from 0) of this etcd, started.
    ///
    /// # Errors
    /// It refuses its configuration, or does not answer.
    pub fn start(
        lab: &Lab,
        namespace: Arc<Namespace>,
        etcd: &Etcd,
        number: u16,
        more: &str,
    ) -> Result<Self, ApiServerError> {
        let name = format!("api-{number}");
        let directory = lab.run().join(&name);
        let mut server = ApiServer {
            binary: binary()?,
            namespace,
            ca: etcd.authority.certificate.clone(),
            log: lab.scratch().join(format!("{name}.log")),
            port: PORT + number,
            directory,
            process: None,
        };
        let identity = etcd.authority.sign(&name)?;
        let mut config = format!(
            "listen = \"127.0.0.1:{}\"\ncert = \"{}\"\nkey = \"{}\"\nclient_ca = \"{}\"\naudit_log = \"{}\"\n",
            server.port,
            identity.certificate.display(),
            identity.key.display(),
            server.ca.display(),
            server.audit_log().display(),
        );
        config.push_str(more);
        for role in Role::ALL {
            let name = role.name();
            let secret = format!("{name}-0123456789abcdef\n");
            let file = server.write(name, &secret)?;
            let file = file.display();
            config.push_str(&format!(
                "\n[[token]]\nname = \"{name}\"\nrole = \"{name}\"\nfile = \"{file}\"\n"
            ));
        }
        config.push_str("\n[[client]]\nname = \"ops\"\nrole = \"operator\"\n");
        let mut store = etcd.section(Path::new("/unused"));
        store.remove("snapshot");
        let store = toml::Table::from_iter([("store".to_owned(), store.into())]);
        config.push_str(&store.to_string());
        server.write("apiserver.toml", &config)?;
        server.start_again()?;
        Ok(server)
    }

    /// Starts it, with the configuration that it had.
    ///
    /// # Errors
    /// It does not answer.
    pub fn start_again(&mut self) -> Result<(), ApiServerError> {
        let launch = self.launch().args(["apiserver", "--config"]);
        let launch = launch.arg(self.directory.join("apiserver.toml"));
        let mut process = launch.start(&self.log)?;
        let answered = eventually("the API server answers", START, || match process.check() {
            // Pointless to ask a dead one: leave the loop.
            Err(error) => Ok(Err(error)),
            Ok(()) => match self.json(Role::Viewer, ["status"]) {
                Ok(_) => Ok(Ok(())),
                Err(error) => Err(Chain(&error).to_string()),
            },
        })?;
        answered?;
        self.process = Some(process);
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Where it writes down what is ordered.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.directory.join("audit.jsonl")
    }

    /// What it logs.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its audit log, a value a line.
    ///
    /// # Errors
    /// It cannot be read, or a line is no JSON.
    pub fn audit(&self) -> Result<Vec<Value>, ApiServerError> {
        let path = self.audit_log();
        let text = fs::read_to_string(&path).map_err(|source| ApiServerError::File {
            path: path.clone(),
            source,
        })?;
        let lines = text.lines().map(serde_json::from_str);
        lines
            .collect::<Result<_, _>>()
            .map_err(|source| ApiServerError::Audit { path, source })
    }

    /// Its process.
    ///
    /// # Errors
    /// It is not running.
    pub fn process(&mut self) -> Result<&mut Process, ApiServerError> {
        self.process.as_mut().ok_or(ApiServerError::NotRunning)
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// It is not running.
    pub fn kill(&mut self) -> Result<(), ApiServerError> {
        let process = self.process.take().ok_or(ApiServerError::NotRunning)?;
        process.kill();
        Ok(())
    }

    /// Ends it, as its service manager would.
    ///
    /// # Errors
    /// It is not running, or does not end.
    pub fn stop(&mut self) -> Result<(), ApiServerError> {
        let process = self.process.take().ok_or(ApiServerError::NotRunning)?;
        process.stop(Signal::SIGTERM, STOP)?;
        Ok(())
    }

    /// `ccn`, set up to talk to this server as somebody of this role; not yet started.
    pub fn command<A: AsRef<OsStr>>(
        &self,
        role: Role,
        args: impl IntoIterator<Item = A>,
    ) -> Launch {
        self.command_to(&[self], role).args(args)
    }

    /// `ccn`, set up to talk to this server as nobody in particular; not yet started.
    pub fn anonymous<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Launch {
        self.launch()
            .env("CCN_SERVER", self.url())
            .env("CCN_CA", &self.ca)
            .args(args)
    }

    /// The same as [`ApiServer::command`], with several servers to choose from.
    pub fn command_to(&self, servers: &[&ApiServer], role: Role) -> Launch {
        let urls: Vec<String> = servers.iter().map(|server| server.url()).collect();
        self.launch()
            .env("CCN_SERVER", urls.join(","))
            .env("CCN_CA", &self.ca)
            .env("CCN_TOKEN_FILE", self.directory.join(role.name()))
    }

    /// Runs `ccn` against it, whether it succeeds or not.
    ///
    /// # Errors
    /// It cannot be run, or does not end.
    pub fn finish<A: AsRef<OsStr>>(
        &self,
        role: Role,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Finished, ApiServerError> {
        Ok(self.command(role, args).finish(ANSWER)?)
    }

    /// Runs `ccn` against it: its stdout.
    ///
    /// # Errors
    /// It fails; the error holds what it said.
    pub fn ccn<A: AsRef<OsStr>>(
        &self,
        role: Role,
        args: impl IntoIterator<Item = A>,
    ) -> Result<String, ApiServerError> {
        Ok(self.finish(role, args)?.success()?)
    }

    /// Runs `ccn ... --json` against it: what it prints, read.
    ///
    /// # Errors
    /// It fails, or prints something else.
    pub fn json<A: AsRef<OsStr>>(
        &self,
        role: Role,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Value, ApiServerError> {
        let finished = self.command(role, args).arg("--json").finish(ANSWER)?;
        Ok(finished.json()?)
    }

    /// Asks it with `curl`, as a program would: the method and path, more of curl's arguments, and the body if it is not
    /// empty.
    ///
    /// # Errors
    /// There is no answer, or it is no HTTP.
    pub fn curl<A: AsRef<OsStr>>(
        &self,
        role: Role,
        (method, path): (&str, &str),
        args: impl IntoIterator<Item = A>,
        body: &str,
    ) -> Result<Answer, ApiServerError> {
        let token = format!("Authorization: Bearer {}-0123456789abcdef", role.name());
        let mut curl = Launch::new("curl")
            .in_namespace(self.namespace.fd())
            .args([
                "-sS",
                "--include",
                "--http1.1",
                "--request",
                method,
                "--header",
            ])
            .arg(token)
            .arg("--cacert")
            .arg(&self.ca)
            .arg(format!("{}{path}", self.url()))
            .args(args);
        if !body.is_empty() {
            curl = curl
                .args([
                    "--header",
                    "content-type: application/json",
                    "--data-binary",
                ])
                .arg(body);
        }
        let said = curl.finish(ANSWER)?.success()?;
        Answer::read(&said).ok_or(ApiServerError::NoHttp { said })
    }

    fn launch(&self) -> Launch {
        Launch::new(&self.binary).in_namespace(self.namespace.fd())
    }

    fn write(&self, file: &str, text: &str) -> Result<PathBuf, ApiServerError> {
        let path = self.directory.join(file);
        fs::create_dir_all(&self.directory)
            .and_then(|()| fs::write(&path, text))
            .map_err(|source| ApiServerError::File {
                path: path.clone(),
                source,
            })?;
        Ok(path)
    }
}
