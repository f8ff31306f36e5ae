//! CPU time of `ksoftirqd`, the thread in which a CPU does the softirqs that it puts off: among them
//! freeing what RCU kept, such as the tunnel metadata that an external VXLAN device gives each packet.
//!
//! Kernel threads are not seen from the lab's process namespace, so the file that tells is opened outside
//! and handed down.

use std::fs::{self, File};
use std::io;
use std::os::fd::IntoRawFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Names the open file to the inner program, by its number.
const DESCRIPTOR: &str = "CCN_BENCH_KSOFTIRQD";

/// The thread of one CPU.
#[derive(Debug)]
pub struct Softirqs {
    schedstat: PathBuf,
}

impl Softirqs {
    /// Called outside: what to put into the inner program's environment, or `None` where the kernel does
    /// not tell.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn hand_down(cpu: usize) -> io::Result<Option<(&'static str, String)>> {
        let name = format!("ksoftirqd/{cpu}\n");
        for entry in fs::read_dir("/proc")? {
            let directory = entry?.path();
            if fs::read_to_string(directory.join("comm")).is_ok_and(|comm| comm == name) {
                let Ok(file) = File::open(directory.join("schedstat")) else {
                    return Ok(None);
                };
                fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
                // Open until this program ends.
                return Ok(Some((DESCRIPTOR, file.into_raw_fd().to_string())));
            }
        }
        Ok(None)
    }

    /// Called inside.
    pub fn handed_down() -> Option<Softirqs> {
        let descriptor: u32 = std::env::var(DESCRIPTOR).ok()?.parse().ok()?;
        let schedstat = PathBuf::from(format!("/proc/self/fd/{descriptor}"));
        let softirqs = Softirqs { schedstat };
        softirqs.cpu().ok().map(|_| softirqs)
    }

    /// CPU time since the system started.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn cpu(&self) -> io::Result<Duration> {
        let text = fs::read_to_string(&self.schedstat)?;
        let nanoseconds = text
            .split_whitespace()
            .next()
            .and_then(|it| it.parse().ok());
        let junk = || io::Error::new(io::ErrorKind::InvalidData, format!("{text:?}"));
        Ok(Duration::from_nanos(nanoseconds.ok_or_else(junk)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_thread_is_read_from_its_schedstat() {
        let schedstat = PathBuf::from("/proc/thread-self/schedstat");
        let own = Softirqs { schedstat };
        let before = own.cpu().expect("a number");
        let mut sum = 0_u64;
        while own.cpu().expect("a number") == before {
            sum = std::hint::black_box(sum + 1);
        }
    }
}
