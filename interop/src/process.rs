//! Processes of the lab: started in a network namespace, logging to a file, ended when their handle
//! is dropped (and with the lab in any case: see [`crate::enter`]).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Where Debian keeps daemons that are not on an ordinary user's PATH.
const DAEMON_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
/// Which Debian package brings a program that the lab starts.
const PACKAGES: [(&str, &str); 17] = [
    ("bird", "bird2"),
    ("birdc", "bird2"),
    ("gobgpd", "gobgpd"),
    ("gobgp", "gobgpd"),
    ("/usr/lib/frr/zebra", "frr"),
    ("/usr/lib/frr/bgpd", "frr"),
    ("/usr/lib/frr/bfdd", "frr"),
    ("vtysh", "frr"),
    ("/usr/sbin/bgpd", "openbgpd"),
    ("bgpctl", "openbgpd"),
    ("exabgp", "exabgp"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("tshark", "tshark"),
    ("bgpdump", "bgpdump"),
    ("ping", "iputils-ping"),
    ("ip", "iproute2"),
];
/// How often a wait looks again.
const WATCH: Duration = Duration::from_millis(5);
/// How much of a log an error quotes.
const TAIL_LINES: usize = 12;

/// A process could not be started, or did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program is not on this machine.
    #[error("`{program}` is not installed{}", .package.map(|p| format!(" (Debian package {p})")).unwrap_or_default())]
    NotInstalled {
        /// The program's name.
        program: String,
        /// The Debian package that brings it, where known.
        package: Option<&'static str>,
    },
    /// Starting, signalling, reading or waiting failed.
    #[error("`{command}`: cannot {action}")]
    System {
        /// The command line.
        command: String,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A command did not print JSON.
    #[error("`{command}` printed what is not JSON: {source}")]
    NotJson {
        /// The command line.
        command: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A command that should succeed did not.
    #[error("`{command}` failed ({status}): {said}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Its output, stderr last.
        said: String,
    },
    /// A command did not end in time and was killed.
    #[error("`{command}` did not end within {:.1} s", .after.as_secs_f64())]
    Slow {
        /// The command line.
        command: String,
        /// What it was given.
        after: Duration,
    },
    /// A daemon that should run has ended.
    #[error("`{command}` ended by itself ({status}); the end of {}:\n{tail}", .log.display())]
    Ended {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
}

/// The output of a command that ran to its end.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout, invalid UTF-8 replaced.
    pub stdout: String,
    /// What it wrote to stderr, invalid UTF-8 replaced.
    pub stderr: String,
}

impl Finished {
    /// The stdout of a command that succeeded.
    ///
    /// # Errors
    /// [`ProcessError::Failed`] for any other end.
    pub fn success(self) -> Result<String, ProcessError> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let said = format!("{} {}", self.stdout.trim(), self.stderr.trim())
            .trim()
            .to_owned();
        Err(ProcessError::Failed {
            command: self.command,
            status: self.status,
            said,
        })
    }

    /// What a command that succeeded printed, read as JSON.
    ///
    /// # Errors
    /// [`ProcessError::Failed`] for any other end, [`ProcessError::NotJson`] for any other text.
    pub fn json(self) -> Result<Value, ProcessError> {
        let command = self.command.clone();
        let text = self.success()?;
        serde_json::from_str(&text).map_err(|source| ProcessError::NotJson { command, source })
    }
}

/// A command line and the namespace to run it in.
#[derive(Debug)]
pub struct Launch {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    namespace: Option<io::Result<OwnedFd>>,
    input: Option<OwnedFd>,
}

impl Launch {
    /// A program by name or path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            // The lab reads what tools print: in English, whatever the user's locale.
            env: vec![("LC_ALL".into(), "C".into())],
            namespace: None,
            input: None,
        }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// An environment variable on top of those of this process.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Run by another program, which gets `args` and then this command line: `setpriv`, `unshare`.
    pub fn by<A: AsRef<OsStr>>(
        mut self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let own = std::mem::replace(&mut self.program, program.as_ref().to_owned());
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        let rest = std::mem::take(&mut self.args);
        self.args = args.chain([own]).chain(rest).collect();
        self
    }

    /// Run in the network namespace of this descriptor rather than in the lab's outermost.
    pub fn in_namespace(mut self, namespace: impl AsFd) -> Self {
        self.namespace = Some(namespace.as_fd().try_clone_to_owned());
        self
    }

    /// Its standard input; nothing otherwise.
    pub fn input(mut self, input: impl Into<OwnedFd>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Starts a daemon; stdout and stderr are appended to `log`.
    ///
    /// # Errors
    /// The program is not installed, or the system refuses to start it.
    pub fn start(self, log: &Path) -> Result<Process, ProcessError> {
        self.spawn(log, false)
    }

    /// [`Launch::start`], but its stdout is for the caller to read; it ends when the daemon does.
    ///
    /// # Errors
    /// As for [`Launch::start`].
    pub fn start_reading(self, log: &Path) -> Result<(Process, ChildStdout), ProcessError> {
        let mut process = self.spawn(log, true)?;
        match process.child.stdout.take() {
            Some(stdout) => Ok((process, stdout)),
            None => Err(process.system("read from", io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn spawn(self, log: &Path, piped: bool) -> Result<Process, ProcessError> {
        let (mut command, line) = self.command()?;
        let system = |action| {
            let command = line.clone();
            move |source| ProcessError::System {
                command,
                action,
                source,
            }
        };
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .and_then(|file| Ok((file.try_clone()?, file)));
        let (stdout, stderr) = file.map_err(system("open its log file"))?;
        let child = command
            .stdout(if piped { Stdio::piped() } else { stdout.into() })
            .stderr(stderr)
            .spawn()
            .map_err(system("start"))?;
        Ok(Process {
            command: line,
            child,
            log: log.to_owned(),
        })
    }

    /// Runs a command to its end and gives back what it said, whether it succeeded or not.
    ///
    /// # Errors
    /// The program is not installed, cannot be started, or did not end within `deadline` (it is
    /// then killed).
    pub fn finish(self, deadline: Duration) -> Result<Finished, ProcessError> {
        let (mut command, line) = self.command()?;
        let system = |action| {
            let command = line.clone();
            move |source| ProcessError::System {
                command,
                action,
                source,
            }
        };
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(system("start"))?;
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        let ended = wait(&mut child, deadline).map_err(system("wait for"))?;
        let Some(status) = ended else {
            end(&mut child);
            return Err(ProcessError::Slow {
                command: line,
                after: deadline,
            });
        };
        Ok(Finished {
            command: line,
            status,
            stdout: collected(stdout),
            stderr: collected(stderr),
        })
    }

    /// [`Launch::finish`], for a command that must succeed: its stdout.
    ///
    /// # Errors
    /// As [`Launch::finish`], and [`ProcessError::Failed`].
    pub fn output(self, deadline: Duration) -> Result<String, ProcessError> {
        self.finish(deadline)?.success()
    }

    fn command(self) -> Result<(Command, String), ProcessError> {
        let line = self.to_string();
        let path = find_program(&self.program)?;
        let mut command = Command::new(path);
        command.args(self.args).envs(self.env);
        command.stdin(self.input.map_or_else(Stdio::null, Stdio::from));
        // This program holds signals back while it ends a lab; what it starts must not inherit that.
        // SAFETY: the closure runs between fork and exec and makes one system call; it neither
        // allocates nor takes a lock.
        unsafe {
            command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?));
        }
        if let Some(namespace) = self.namespace {
            let namespace = namespace.map_err(|source| ProcessError::System {
                command: line.clone(),
                action: "keep its network namespace",
                source,
            })?;
            // SAFETY: the closure runs between fork and exec and makes one system call; it neither
            // allocates nor takes a lock. The descriptor it owns is valid as long as the closure.
            unsafe {
                command.pre_exec(move || Ok(setns(&namespace, CloneFlags::CLONE_NEWNET)?));
            }
        }
        Ok((command, line))
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program.to_string_lossy())?;
        for arg in &self.args {
            let arg = arg.to_string_lossy();
            match arg.contains(' ') {
                true => write!(f, " '{arg}'")?,
                false => write!(f, " {arg}")?,
            }
        }
        Ok(())
    }
}

/// A running daemon of the lab. Dropping the handle kills it.
#[derive(Debug)]
pub struct Process {
    command: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Its process id inside the lab.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file its stdout and stderr go to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log, for messages.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// [`ProcessError::Ended`] with the end of its log.
    pub fn check(&mut self) -> Result<(), ProcessError> {
        match self
            .child
            .try_wait()
            .map_err(|source| self.system("look at", source))?
        {
            None => Ok(()),
            Some(status) => Err(ProcessError::Ended {
                command: self.command.clone(),
                status,
                log: self.log.clone(),
                tail: self.log_tail(),
            }),
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has ended already.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        kill(self.pid(), signal).map_err(|errno| self.system("signal", errno.into()))
    }

    /// Sends a signal to it and to the processes that it has started itself.
    ///
    /// # Errors
    /// It has ended already.
    pub fn signal_family(&self, signal: Signal) -> Result<(), ProcessError> {
        self.signal(signal)?;
        let id = self.id();
        let children = format!("/proc/{id}/task/{id}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|id| id.parse().ok()) {
            // One that has ended in this moment is no matter.
            let _ = kill(Pid::from_raw(child), signal);
        }
        Ok(())
    }

    /// Asks it to end with `signal` and waits for it.
    ///
    /// # Errors
    /// [`ProcessError::Slow`] if it still ran at the deadline; it is then killed.
    pub fn stop(mut self, signal: Signal, deadline: Duration) -> Result<ExitStatus, ProcessError> {
        self.signal(signal)?;
        match wait(&mut self.child, deadline) {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(ProcessError::Slow {
                command: self.command.clone(),
                after: deadline,
            }),
            Err(source) => Err(self.system("wait for", source)),
        }
    }

    /// Kills it, as a crash would, and waits until it is gone.
    pub fn kill(self) {
        drop(self);
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn system(&self, action: &'static str, source: io::Error) -> ProcessError {
        ProcessError::System {
            command: self.command.clone(),
            action,
            source,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Where a program is: as given if it is a path, else on PATH or among the daemons.
///
/// # Errors
/// [`ProcessError::NotInstalled`], naming the Debian package where known.
pub fn find_program(program: &OsStr) -> Result<PathBuf, ProcessError> {
    let path = Path::new(program);
    let found = if path.components().count() > 1 {
        Some(path.to_owned()).filter(|path| path.is_file())
    } else {
        let searched = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&searched)
            .chain(DAEMON_DIRECTORIES.map(PathBuf::from))
            .map(|directory| directory.join(path))
            .find(|candidate| candidate.is_file())
    };
    found.ok_or_else(|| {
        let program = program.to_string_lossy().into_owned();
        let package = PACKAGES
            .iter()
            .find(|(name, _)| *name == program)
            .map(|(_, p)| *p);
        ProcessError::NotInstalled { program, package }
    })
}

fn end(child: &mut Child) {
    // Both fail only for a process that is gone already, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

fn wait(child: &mut Child, deadline: Duration) -> io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if started.elapsed() >= deadline => return Ok(None),
            None => std::thread::sleep(WATCH),
        }
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn collected(reader: Option<JoinHandle<Vec<u8>>>) -> String {
    let bytes = reader
        .and_then(|reader| reader.join().ok())
        .unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
