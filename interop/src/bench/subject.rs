//! The subjects: daemons under test, each with a configuration that says the same in its own words.
//!
//! Every configuration has the same sessions, all of them passive: an injector whose routes are
//! all taken, eight sinks that are told everything, and a witness that is told the marker route only.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netlink::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::line::Identity;
use super::prefix_set::PrefixId;
use super::usage::{self, Usage};
use crate::process::{Process, ProcessError};
use crate::wait::{TimedOut, eventually};

mod bird;
mod frr;
mod gobgp;
mod openbgpd;
mod speaker;

/// The subjects' address and AS.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Their AS.
pub const ASN: u32 = 65_001;
/// Where they listen.
pub const PORT: u16 = 179;
/// How many sinks are configured.
pub const SINKS: usize = 8;
/// How long a daemon may take from its start until it listens.
const START: Duration = Duration::from_secs(20);

/// A subject could not be run.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    /// One of its processes.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// One of its files.
    #[error("{}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It did not start in time.
    #[error(transparent)]
    Late(#[from] TimedOut),
}

/// Which program is put to work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The speaker example of the `bgp` crate.
    Ours(PathBuf),
    /// Another build of it, under a name.
    Other(String, PathBuf),
    /// BIRD 2.
    Bird,
    /// GoBGP 3.
    Gobgp,
    /// FRR's bgpd.
    Frr,
    /// OpenBGPD.
    Openbgpd,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Subject::Ours(_) => "ours",
            Subject::Other(name, _) => name,
            Subject::Bird => "bird",
            Subject::Gobgp => "gobgp",
            Subject::Frr => "frr",
            Subject::Openbgpd => "openbgpd",
        })
    }
}

/// The session that brings the routes.
pub fn injector() -> Identity {
    identity("injector", 10, 65_010)
}

/// The session that is told the marker only.
pub fn witness() -> Identity {
    identity("witness", 11, 65_011)
}

/// The sessions that are told everything.
pub fn sinks() -> Vec<Identity> {
    (1..=SINKS as u8)
        .map(|number| {
            identity(
                &format!("sink{number}"),
                100 + number,
                65_100 + u32::from(number),
            )
        })
        .collect()
}

/// All sessions.
pub fn identities() -> Vec<Identity> {
    [injector(), witness()].into_iter().chain(sinks()).collect()
}

fn identity(name: &str, host: u8, asn: u32) -> Identity {
    Identity {
        name: name.to_owned(),
        address: Ipv4Addr::new(10, 99, 0, host),
        asn,
    }
}

/// Where a subject runs.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its namespace.
    pub namespace: Arc<Namespace>,
    /// Its configuration and sockets, in memory.
    pub directory: PathBuf,
    /// Where its logs go, on disk.
    pub logs: PathBuf,
}

impl Site {
    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<PathBuf, SubjectError> {
        let path = self.directory.join(name);
        fs::create_dir_all(&self.directory)
            .and_then(|()| fs::write(&path, text))
            .map_err(|source| SubjectError::File {
                path: path.clone(),
                source,
            })?;
        Ok(path)
    }
}

/// A subject at work. It is killed when dropped.
#[derive(Debug)]
pub struct Running {
    subject: Subject,
    site: Site,
    log: PathBuf,
    processes: Vec<Process>,
    input: Option<io::PipeWriter>,
    /// Routes it originates by its configuration.
    originated: Vec<PrefixId>,
}

/// A change on its way: commands that run by themselves.
#[derive(Debug)]
pub struct Order {
    command: Option<Process>,
}

impl Order {
    /// Whether the command has ended.
    ///
    /// # Errors
    /// It failed.
    pub fn has_ended(&mut self) -> Result<bool, ProcessError> {
        self.command.as_mut().map_or(Ok(true), has_ended)
    }
}

/// Whether a command has ended.
///
/// # Errors
/// It failed.
pub fn has_ended(command: &mut Process) -> Result<bool, ProcessError> {
    match command.check() {
        Ok(()) => Ok(false),
        Err(ProcessError::Ended { status, .. }) if status.success() => Ok(true),
        Err(error) => Err(error),
    }
}

impl Subject {
    /// Starts it with nothing in its table; returns when it listens.
    ///
    /// # Errors
    /// It is not installed, or does not come up.
    pub fn start(&self, site: &Site) -> Result<Running, SubjectError> {
        let mut running = Running {
            subject: self.clone(),
            site: site.clone(),
            log: site.logs.join(format!("{self}.log")),
            processes: Vec::new(),
            input: None,
            originated: Vec::new(),
        };
        // What the last one said is of no interest any more: it ended well.
        match fs::remove_file(&running.log) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                let path = running.log.clone();
                return Err(SubjectError::File { path, source });
            }
            _ => {}
        }
        match self {
            Subject::Ours(program) | Subject::Other(_, program) => {
                running.start_speaker(program)?
            }
            Subject::Bird => running.start_bird()?,
            Subject::Gobgp => running.start_gobgp()?,
            Subject::Frr => running.start_frr()?,
            Subject::Openbgpd => running.start_openbgpd()?,
        }
        running.await_listening()?;
        Ok(running)
    }
}

impl Running {
    /// What it has used since its start.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn usage(&self) -> io::Result<Usage> {
        let roots: Vec<u32> = self.processes.iter().map(Process::id).collect();
        Usage::of(&roots)
    }

    /// Prepares to originate these, the way its operators do it by the hundred thousand; what the
    /// returned closure starts is on the clock, what happened before is not.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn originate(&mut self, prefixes: &[PrefixId]) -> Result<Prepared, SubjectError> {
        match &self.subject {
            Subject::Ours(_) | Subject::Other(..) => Ok(Prepared::Lines(
                prefixes
                    .iter()
                    .map(|prefix| format!("announce {prefix}\n"))
                    .collect(),
            )),
            Subject::Bird => self.originate_bird(prefixes),
            Subject::Gobgp => self.originate_gobgp(prefixes),
            Subject::Frr => self.originate_frr(prefixes),
            Subject::Openbgpd => self.originate_openbgpd(prefixes),
        }
    }

    /// Prepares to originate one prefix, or not to any more, as its operator does it by hand.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn change(&mut self, prefix: PrefixId, announced: bool) -> Result<Prepared, SubjectError> {
        match &self.subject {
            Subject::Ours(_) | Subject::Other(..) => {
                let verb = if announced { "announce" } else { "withdraw" };
                Ok(Prepared::Lines(format!("{verb} {prefix}\n")))
            }
            Subject::Bird => self.change_bird(prefix, announced),
            Subject::Gobgp => Ok(self.change_gobgp(prefix, announced)),
            Subject::Frr => Ok(self.change_frr(prefix, announced)),
            Subject::Openbgpd => Ok(self.change_openbgpd(prefix, announced)),
        }
    }

    /// Does what was prepared.
    ///
    /// # Errors
    /// The command cannot be started.
    pub fn carry_out(&mut self, prepared: Prepared) -> Result<Order, SubjectError> {
        match prepared {
            Prepared::Lines(lines) => {
                let Some(input) = &self.input else {
                    return Ok(Order { command: None });
                };
                let file = |source| SubjectError::File {
                    path: "standard input".into(),
                    source,
                };
                let mut input = input.try_clone().map_err(file)?;
                // It reads as fast as it can take it: on a thread, as we must serve its sessions.
                std::thread::spawn(move || {
                    // If it has died, whoever waits for the routes finds out.
                    let _ = io::Write::write_all(&mut input, lines.as_bytes());
                });
                Ok(Order { command: None })
            }
            Prepared::Command(launch) => Ok(Order {
                command: Some(launch.start(&self.log)?),
            }),
        }
    }

    fn await_listening(&mut self) -> Result<(), SubjectError> {
        let address = SocketAddr::from((ADDRESS, PORT));
        let namespace = self.site.namespace.clone();
        let processes = &mut self.processes;
        let listens = || {
            for process in processes.iter_mut() {
                if let Err(error) = process.check() {
                    return Ok(Err(error));
                }
            }
            let listening = namespace.enter(|| fs::read_to_string("/proc/thread-self/net/tcp"));
            match listening {
                Ok(Ok(table)) if is_listening(&table, PORT) => Ok(Ok(())),
                Ok(Ok(_)) => Err("nobody listens".to_owned()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        };
        let what = format!("{} listens on {address}", self.subject);
        Ok(eventually(what, START, listens)??)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.directory.join(name)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let roots: Vec<u32> = self.processes.iter().map(Process::id).collect();
        let family = usage::family(&roots).unwrap_or_default();
        self.processes.clear();
        // OpenBGPD's children would end by themselves, but not before the next subject starts.
        for process in family.iter().filter(|process| !roots.contains(process)) {
            // It has ended meanwhile if this fails.
            let _ = kill(Pid::from_raw(process.cast_signed()), Signal::SIGKILL);
        }
        let gone = || match is_running(&family) {
            true => Err("some process of it still runs"),
            false => Ok(()),
        };
        // If not, the next one cannot listen and says so.
        let _ = eventually("the subject is gone", START, gone);
    }
}

/// Whether one of these still runs; one that nobody has waited for does not.
fn is_running(processes: &[u32]) -> bool {
    processes.iter().any(|process| {
        fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| {
            let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            !state.starts_with(['Z', 'X'])
        })
    })
}

/// What is ready to be carried out.
#[derive(Debug)]
pub enum Prepared {
    /// Lines for its standard input.
    Lines(String),
    /// A command.
    Command(crate::process::Launch),
}

/// Whether /proc/net/tcp shows a listener on this port of any address.
fn is_listening(table: &str, port: u16) -> bool {
    table.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let local = columns.next().unwrap_or_default();
        let state = columns.nth(1).unwrap_or_default();
        local.ends_with(&format!(":{port:04X}")) && state == "0A"
    })
}

/// A list of prefixes, one a line, each put through `line`.
fn listing(prefixes: &[PrefixId], line: impl Fn(&PrefixId) -> String) -> String {
    let mut text = String::with_capacity(prefixes.len() * 32);
    for prefix in prefixes {
        text.push_str(&line(prefix));
        text.push('\n');
    }
    text
}

/// A path as text; those of the lab are ASCII.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue\n   \
                     0: 0100630A:00B3 00000000:0000 0A 00000000:00000000\n   \
                     1: 0100630A:0050 0A00630A:00B3 01 00000000:00000000\n";
        assert!(is_listening(table, 179));
        assert!(!is_listening(table, 80), "connected, not listening");
        assert!(!is_listening("", 179));
    }

    #[test]
    fn every_session_is_somebody_else() {
        let all = identities();
        assert_eq!(all.len(), SINKS + 2);
        for (index, one) in all.iter().enumerate() {
            for other in &all[..index] {
                assert_ne!((one.address, one.asn), (other.address, other.asn));
                assert_ne!(one.name, other.name);
            }
        }
    }
}
