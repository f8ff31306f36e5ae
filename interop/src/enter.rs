//! The way into the lab: the running program starts itself again inside fresh network, mount and
//! process namespaces, so that whatever it builds there dies with it, on panic and on kill.
//!
//! The new program is process 1 of its own process namespace: when it ends, for whatever reason,
//! the kernel ends every daemon it started and frees every network namespace. Nothing here touches
//! the host's network, and two labs side by side share nothing but `/tmp`.

pub mod goodbye;

use std::any::type_name;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};

use crate::wait::{TimedOut, eventually};
use goodbye::Goodbyes;

/// Names the scratch directory to the inner program. Trusted only by process 1.
const SCRATCH: &str = "CCN_LAB";
/// Files in the scratch directory by which the inner program tells the outer how far it came.
const BEGAN: &str = ".began";
const PASSED: &str = ".passed";
/// File in the scratch directory by which the outer program tells the inner its process id outside.
const PROCESS: &str = ".pid";
/// How long the inner program has to end by itself when it is told to.
const GRACE: Duration = Duration::from_secs(1);
/// Directories that the lab has to itself, in memory: FRR's daemons leave files in the second.
const PRIVATE: [&str; 2] = ["/run", "/var/tmp"];
/// How often the outer program looks whether the inner one has ended.
const WATCH: Duration = Duration::from_millis(10);
/// The time a lab test gets unless it says otherwise: far more than any needs.
const DEADLINE: Duration = Duration::from_secs(90);

/// What the body of a lab test gives back: any error fails it and is printed with its causes.
pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Proof of being inside the lab; there is no other way to come by one.
#[derive(Debug)]
pub struct Lab {
    scratch: PathBuf,
}

impl Lab {
    /// A directory on the host's disk, private to this lab: logs and packet captures go here. It is
    /// removed when the lab ends well and kept when it fails.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// A private directory in memory with a short path: for configurations and unix sockets (whose
    /// paths are limited to some 100 bytes). Gone with the lab.
    pub fn run(&self) -> &Path {
        Path::new("/run/lab")
    }

    /// The process id of the lab's first process as the host sees it: `nsenter --target` takes it.
    /// Known only when the program was entered by [`Entry::again`].
    ///
    /// # Errors
    /// The outer program has not told it in time.
    pub fn host_process(&self) -> Result<u32, TimedOut> {
        let path = self.scratch.join(PROCESS);
        eventually("the lab's process id is known", GRACE, || {
            let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
            text.trim().parse().map_err(|_| format!("{text:?}"))
        })
    }

    /// The lab this process was started into by [`Entry::enter`], if any.
    fn current() -> Result<Option<Self>, EnterError> {
        let Some(scratch) = std::env::var_os(SCRATCH) else {
            return Ok(None);
        };
        if std::process::id() != 1 {
            return Ok(None);
        }
        let lab = Self {
            scratch: scratch.into(),
        };
        lab.furnish()?;
        Ok(Some(lab))
    }

    fn furnish(&self) -> Result<(), EnterError> {
        let failed = |what: &'static str| move |source| EnterError::Furnish { what, source };
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        for private in PRIVATE {
            mount(
                Some("tmpfs"),
                private,
                Some("tmpfs"),
                flags,
                Some("mode=0755"),
            )
            .map_err(io::Error::from)
            .map_err(failed("mount a private /run and /var/tmp"))?;
        }
        // What agents pin goes with the lab. Where BPF is not to be had, none pins anything.
        let _ = mount(
            Some("bpf"),
            "/sys/fs/bpf",
            Some("bpf"),
            flags,
            Some("mode=0700"),
        );
        for directory in ["/run/netns", "/run/lab"] {
            fs::create_dir_all(directory).map_err(failed("make directories in /run"))?;
        }
        fs::write(self.scratch.join(BEGAN), "").map_err(failed("write to the scratch directory"))
    }
}

/// Why a lab could not be entered, or how it ended.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// `unshare` (Debian package `util-linux`) could not be run.
    #[error("cannot run `unshare` (package util-linux)")]
    Unshare(#[source] io::Error),
    /// The kernel or the distribution refuses to make the namespaces.
    #[error("cannot make the lab's namespaces as uid {uid}: {reason}")]
    Refused {
        /// The real uid that tried.
        uid: u32,
        /// The restriction found, or where to read `unshare`'s own words.
        reason: String,
    },
    /// The scratch directory or the path of this very program is not usable.
    #[error("cannot prepare the lab: {what}")]
    Prepare {
        /// The step that failed.
        what: &'static str,
        #[source]
        /// The system's answer.
        source: io::Error,
    },
    /// Inside the namespaces, the first steps failed.
    #[error("cannot furnish the lab: {what}")]
    Furnish {
        /// The step that failed.
        what: &'static str,
        #[source]
        /// The system's answer.
        source: io::Error,
    },
    /// The lab did not end by its deadline and was killed with all it had started.
    #[error("lab `{name}` hung: killed after {} s; its logs are in {}", .after.as_secs(), .logs.display())]
    Hung {
        /// The lab's name.
        name: String,
        /// Its deadline.
        after: Duration,
        /// The scratch directory, kept.
        logs: PathBuf,
    },
    /// The inner program ended without running the body: its name is not what it was thought to be.
    #[error("lab `{name}` never ran: this program has no test of that name")]
    NeverRan {
        /// The name that was asked for.
        name: String,
    },
    /// The body failed, or was killed; what it said was passed on.
    #[error("lab `{name}` failed ({status}); its logs are in {}", .logs.display())]
    Failed {
        /// The lab's name.
        name: String,
        /// How the inner program ended.
        status: ExitStatus,
        /// The scratch directory, kept.
        logs: PathBuf,
    },
}

/// What becomes of the inner program's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// It writes to the outer program's own stdout and stderr.
    Shared,
    /// Its lines go to the outer program's stderr through the test harness, which shows them when
    /// the test fails.
    Captured,
}

/// How a program starts itself again inside the lab.
#[derive(Debug, Clone)]
pub struct Entry {
    name: String,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    deadline: Option<Duration>,
    output: Output,
}

/// Which side of [`Entry::enter`] this process is on.
#[derive(Debug)]
pub enum Side {
    /// Inside: do the work.
    Inside(Lab),
    /// Outside: the work has been done by the inner program.
    Outside(Ended),
}

/// How the inner program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// The scratch directory, kept because it failed.
    pub logs: Option<PathBuf>,
    /// The program was asked to end by a signal, and the lab was ended with it.
    pub interrupted: bool,
    /// It said that the body of a test has come to its end.
    passed: bool,
}

impl Entry {
    /// For a program: inside, it is run with the same arguments, shares the terminal, and has no
    /// deadline. SIGINT, SIGTERM and SIGHUP to the outer program end the lab.
    pub fn again(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            args: std::env::args_os().skip(1).collect(),
            env: Vec::new(),
            deadline: None,
            output: Output::Shared,
        }
    }

    /// For one test of a libtest binary, by its full path in the crate (`module::function`).
    pub fn libtest(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            args: ["--exact", name, "--nocapture", "--test-threads=1"]
                .map(Into::into)
                .into(),
            env: Vec::new(),
            deadline: Some(DEADLINE),
            output: Output::Captured,
        }
    }

    /// An environment variable for the inner program.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Kill the lab with everything in it if it has not ended after this time.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Called first thing by the program. Outside, it starts the program again inside the lab and
    /// waits for it; inside, it mounts a private `/run` and returns at once.
    ///
    /// # Errors
    /// Outside: the namespaces cannot be had (with the reason and what to do), or the deadline
    /// passed. Inside: the private `/run` could not be made.
    pub fn enter(&self) -> Result<Side, EnterError> {
        match Lab::current()? {
            Some(lab) => Ok(Side::Inside(lab)),
            None => self.run_inner().map(Side::Outside),
        }
    }

    /// Runs the inner program to its end. The scratch directory is kept unless it ended well.
    fn run_inner(&self) -> Result<Ended, EnterError> {
        let prepare = |what: &'static str| move |source| EnterError::Prepare { what, source };
        // Before anything is there to be left behind; the child gets a clean mask itself.
        let goodbyes = match self.output {
            Output::Shared => Some(Goodbyes::listen().map_err(prepare("watch for signals"))?),
            Output::Captured => None,
        };
        // The inner program sees others in their place, so the scratch directory must not be there.
        let temporary = std::env::temp_dir();
        let hidden = PRIVATE.iter().any(|private| temporary.starts_with(private));
        let parent = if hidden { "/tmp".into() } else { temporary };
        let scratch = tempfile::Builder::new()
            .prefix("ccn-lab-")
            .tempdir_in(parent)
            .map_err(prepare("make a scratch directory"))?;
        let exe = std::env::current_exe().map_err(prepare("find this program's own path"))?;

        let mut command = Command::new("unshare");
        command.args(isolation()).arg(exe).args(&self.args);
        command
            .envs(self.env.iter().cloned())
            .env(SCRATCH, scratch.path());
        if self.output == Output::Captured {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
        }
        let parent = Pid::this();
        // SAFETY: the closure runs between fork and exec and makes two system calls only; it
        // neither allocates nor takes a lock.
        unsafe {
            command.pre_exec(move || {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                // The parent may have died before the line above took effect.
                if nix::unistd::getppid() == parent {
                    Ok(())
                } else {
                    Err(io::ErrorKind::Other.into())
                }
            });
        }
        let mut child = command.spawn().map_err(EnterError::Unshare)?;
        let relays = [
            child.stdout.take().map(|pipe| relay(Box::new(pipe))),
            child.stderr.take().map(|pipe| relay(Box::new(pipe))),
        ];
        let watched = self.watch(&mut child, scratch.path(), goodbyes.as_ref());
        let ended = watched.map_err(prepare("wait for the inner program"))?;
        for relay in relays.into_iter().flatten() {
            // A relay ends when the last process of the lab is gone; it cannot panic.
            let _ = relay.join();
        }

        let began = scratch.path().join(BEGAN).exists();
        let passed = scratch.path().join(PASSED).exists();
        match ended {
            Watched::Hung => Err(EnterError::Hung {
                name: self.name.clone(),
                after: self.deadline.unwrap_or_default(),
                logs: scratch.keep(),
            }),
            Watched::Ended(status) if !began && !status.success() => {
                let uid = Uid::current().as_raw();
                Err(EnterError::Refused {
                    uid,
                    reason: restriction(),
                })
            }
            Watched::Ended(status) => {
                let logs = (!status.success()).then(|| scratch.keep());
                Ok(Ended {
                    status,
                    logs,
                    interrupted: false,
                    passed,
                })
            }
            Watched::Interrupted(status) => Ok(Ended {
                status,
                logs: None,
                interrupted: true,
                passed: false,
            }),
        }
    }

    /// Waits for the child; at the deadline or on a signal ends it, and with it the lab
    /// (`--kill-child`).
    fn watch(
        &self,
        child: &mut Child,
        scratch: &Path,
        goodbyes: Option<&Goodbyes>,
    ) -> io::Result<Watched> {
        let started = Instant::now();
        let mut asked: Option<Instant> = None;
        let mut inner = None;
        let mut told = goodbyes.is_none();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(match asked {
                    Some(_) => Watched::Interrupted(status),
                    None => Watched::Ended(status),
                });
            }
            if self
                .deadline
                .is_some_and(|deadline| started.elapsed() >= deadline)
            {
                child.kill()?;
                child.wait()?;
                return Ok(Watched::Hung);
            }
            if asked.is_none() && goodbyes.map(Goodbyes::heard).transpose()? == Some(true) {
                asked = Some(Instant::now());
                if let Some(inner) = inner {
                    // It has ended in this moment if this fails.
                    let _ = kill(inner, Signal::SIGTERM);
                }
            }
            if asked.is_some_and(|asked| asked.elapsed() >= GRACE) {
                child.kill()?;
            }
            if !told && scratch.join(BEGAN).exists() {
                inner = inner_process(child.id());
                if let Some(inner) = inner {
                    fs::write(scratch.join(PROCESS), inner.to_string())?;
                }
                told = true;
            }
            std::thread::sleep(WATCH);
        }
    }
}

/// Whether this process is (still) outside of any lab: what must be done before is done then.
pub fn is_outside() -> bool {
    std::env::var_os(SCRATCH).is_none()
}

/// What became of the inner program.
enum Watched {
    Ended(ExitStatus),
    Interrupted(ExitStatus),
    Hung,
}

/// The inner program as the host sees it, once it has begun: the only child that `unshare` has.
/// Unknown to kernels that do not list children: the lab works without.
fn inner_process(unshare: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).ok()?;
    let first = children.split_whitespace().next()?;
    first.parse().ok().map(Pid::from_raw)
}

/// The body of a lab test. Called as the whole content of a `#[test]` function: outside it runs
/// that same test again inside the lab; inside it runs `body`.
///
/// The name of the test is taken from the type of the closure, so `body` must be a closure
/// written in the test function itself.
///
/// # Panics
/// When the lab cannot be entered, hangs, or its body fails: a test's way to say no.
#[track_caller]
pub fn test<F: FnOnce(&Lab) -> Outcome>(body: F) {
    test_within(DEADLINE, body);
}

/// [`test`] with a deadline of its own.
#[track_caller]
pub fn test_within<F: FnOnce(&Lab) -> Outcome>(deadline: Duration, body: F) {
    if let Err(error) = run_test(deadline, body) {
        panic!("{}", Chain(error.as_ref()));
    }
}

fn run_test<F: FnOnce(&Lab) -> Outcome>(deadline: Duration, body: F) -> Outcome {
    if let Some(lab) = Lab::current()? {
        body(&lab)?;
        fs::write(lab.scratch.join(PASSED), "")?;
        return Ok(());
    }
    let name = test_name::<F>();
    let Ended {
        status,
        logs,
        passed,
        ..
    } = Entry::libtest(name).within(deadline).run_inner()?;
    let name = name.to_owned();
    match logs {
        Some(logs) => Err(EnterError::Failed { name, status, logs }.into()),
        None if !passed => Err(EnterError::NeverRan { name }.into()),
        None => Ok(()),
    }
}

/// `crate::module::function::{{closure}}` without its ends: what libtest calls the test.
fn test_name<F>() -> &'static str {
    let path = type_name::<F>();
    let path = path.split_once("::").map_or(path, |(_crate, rest)| rest);
    path.trim_end_matches("::{{closure}}")
}

/// An error with its causes on one line.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Passes lines on to stderr, from a thread that inherits the test harness's capture.
fn relay(pipe: Box<dyn Read + Send>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(pipe);
        let mut line = Vec::new();
        while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
            #[expect(
                clippy::print_stderr,
                reason = "passing on is this thread's only purpose"
            )]
            {
                eprint!("{}", String::from_utf8_lossy(&line));
            }
            line.clear();
        }
    })
}

/// The options of `unshare`: as root as is; otherwise with a user namespace that maps this user to
/// root, and the user's subordinate ids too where the machine grants some (FRR and tshark drop to
/// users of their own).
fn isolation() -> Vec<&'static str> {
    let mut options = vec![
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
    ];
    if !Uid::effective().is_root() {
        options.push("--map-root-user");
        if has_subordinate_ids() {
            options.push("--map-auto");
        }
    }
    options
}

/// Whether `unshare --map-auto` can work: the set-uid helpers are there (package `uidmap`) and both
/// tables have a range for this user.
fn has_subordinate_ids() -> bool {
    let uid = Uid::current();
    let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
    let granted = |table: &str| {
        fs::read_to_string(table).is_ok_and(|text| {
            text.lines()
                .filter_map(|line| line.split(':').next())
                .any(|owner| Some(owner) == name.as_deref() || owner == uid.to_string())
        })
    };
    let helpers = ["/usr/bin/newuidmap", "/usr/bin/newgidmap"];
    helpers.iter().all(|helper| Path::new(helper).exists())
        && granted("/etc/subuid")
        && granted("/etc/subgid")
}

/// What an ordinary user can do about it.
const AS_ROOT: &str = "run it as root (`sudo`) instead";

/// The setting of this machine that keeps an unprivileged user from making namespaces.
fn restriction() -> String {
    let setting = |path: &str| {
        fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .ok()
    };
    let root = Uid::effective().is_root();
    let restrictions = [
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
        ),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/user/max_user_namespaces", "0"),
    ];
    for (path, value) in restrictions {
        if !root && setting(path).as_deref() == Some(value) {
            return format!("unprivileged user namespaces are off ({path} is {value}); {AS_ROOT}");
        }
    }
    if root {
        "unshare's own words are above; this root seems to lack CAP_SYS_ADMIN, as in a plain \
         container: add it (docker run --cap-add SYS_ADMIN), or run on the host"
            .to_owned()
    } else {
        format!("unshare's own words are above; {AS_ROOT}")
    }
}
