//! What a daemon and its children have used: CPU time and resident memory, from /proc.

use std::fs;
use std::io;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// CPU time and memory of a process and all its descendants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time since they began.
    pub cpu: Duration,
    /// Resident memory, bytes.
    pub resident: u64,
}

impl Usage {
    /// Of these processes and their descendants. One that ends meanwhile counts for nothing.
    ///
    /// # Errors
    /// /proc cannot be listed.
    pub fn of(roots: &[u32]) -> io::Result<Usage> {
        let mut usage = Usage::default();
        for process in family(roots)? {
            usage.cpu += cpu(process).unwrap_or_default();
            usage.resident += resident(process).unwrap_or_default();
        }
        Ok(usage)
    }
}

/// These processes and their descendants.
///
/// # Errors
/// /proc cannot be listed.
pub fn family(roots: &[u32]) -> io::Result<Vec<u32>> {
    let mut family = roots.to_vec();
    let parents = parents()?;
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        family.extend(children.map(|(child, _)| *child));
        at += 1;
    }
    Ok(family)
}

/// Every process and its parent.
fn parents() -> io::Result<Vec<(u32, u32)>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = field(process, "PPid:") {
            parents.push((process, parent as u32));
        }
    }
    Ok(parents)
}

/// To the nanosecond: what /proc/PID/stat tells is in hundredths of a second.
fn cpu(process: u32) -> Option<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(process.cast_signed())).ok()?;
    clock_gettime(clock).ok().map(Duration::from)
}

fn resident(process: u32) -> Option<u64> {
    Some(field(process, "VmRSS:")? * 1024)
}

/// The number in a line of /proc/PID/status.
fn field(process: u32, label: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_and_its_children_are_counted() {
        // A shell that has done something, with a child that waits.
        let mut shell = Command::new("sh")
            .args([
                "-c",
                "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; cat; true",
            ])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let seen = crate::wait::eventually("a child", std::time::Duration::from_secs(20), || {
            let usage = Usage::of(&[shell.id()]).map_err(|error| error.to_string())?;
            let alone = resident(shell.id()).unwrap_or_default();
            if usage.cpu > Duration::ZERO && usage.resident > alone && alone > 0 {
                return Ok(());
            }
            Err(format!("{usage:?}, alone {alone}"))
        });
        drop(shell.stdin.take());
        shell.wait().expect("an end");
        seen.expect("usage");
        assert_eq!(Usage::of(&[]).expect("nothing"), Usage::default());
    }
}
