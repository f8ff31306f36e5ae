//! The lab tests itself: what the other tests stand on.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use interop::enter::{self, EnterError, Entry, Lab, Side};
use interop::process::{Launch, Process, ProcessError};
use interop::wait::eventually;

const SOON: Duration = Duration::from_secs(5);

/// The daemons with this mark, as seen from the host.
fn daemons(mark: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.trim_end().ends_with(&format!("sleep {mark}")))
        .collect()
}

/// Starts a daemon that can be told from the outside: `sleep` for a time that nobody else uses.
fn start_marked_daemon(lab: &Lab) -> Process {
    let mark = std::env::var("MARK").expect("the outside set a mark");
    Launch::new("sleep")
        .arg(&mark)
        .start(&lab.scratch().join("sleep.log"))
        .expect("a daemon")
}

fn mark(salt: u32) -> String {
    format!("86400.{salt}{}", std::process::id())
}

fn await_gone(mark: &str) {
    eventually("the daemon is gone", SOON, || match daemons(mark) {
        gone if gone.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .expect("a lab leaves nothing");
}

#[test]
fn the_lab_is_private() {
    enter::test(|lab| {
        assert_eq!(std::process::id(), 1);
        assert!(lab.scratch().is_dir());
        let interfaces = fs::read_to_string("/proc/net/dev")?;
        assert_eq!(
            interfaces.lines().count(),
            3,
            "two lines of heading, and lo: {interfaces}"
        );
        assert_eq!(fs::read_dir("/run/netns")?.count(), 0);
        Ok(())
    });
}

#[test]
fn a_lab_that_panics_takes_its_daemons_along() {
    let mark = mark(1);
    let entry =
        Entry::libtest("a_lab_that_panics_takes_its_daemons_along").env("MARK", mark.as_str());
    match entry.enter().expect("namespaces can be had") {
        Side::Inside(lab) => {
            // Forgotten, so that no destructor can do the kernel's work.
            std::mem::forget(start_marked_daemon(&lab));
            panic!("on purpose");
        }
        Side::Outside(ended) => {
            assert!(!ended.status.success());
            let logs = ended.logs.expect("the logs of a failed lab are kept");
            assert!(
                logs.join("sleep.log").exists(),
                "the lab got as far as its daemon"
            );
            fs::remove_dir_all(logs).expect("the logs are ours to remove");
            await_gone(&mark);
        }
    }
}

#[test]
fn a_lab_that_hangs_is_killed_and_named() {
    let mark = mark(2);
    let entry = Entry::libtest("a_lab_that_hangs_is_killed_and_named")
        .env("MARK", mark.as_str())
        .within(Duration::from_millis(700));
    match entry.enter() {
        Ok(Side::Inside(lab)) => {
            let _daemon = start_marked_daemon(&lab);
            loop {
                std::thread::park();
            }
        }
        Err(ref error @ EnterError::Hung { ref logs, .. }) => {
            fs::remove_dir_all(logs).expect("the logs are ours to remove");
            assert!(
                error
                    .to_string()
                    .contains("a_lab_that_hangs_is_killed_and_named"),
                "{error}"
            );
            await_gone(&mark);
        }
        other => panic!("neither inside nor hung: {other:?}"),
    }
}

#[test]
fn a_lab_dies_with_the_program_that_entered_it() {
    let name = "a_lab_dies_with_the_program_that_entered_it";
    let mark = mark(3);
    // Inside, and the program that enters, are this test again; the outermost kills the latter.
    let (mark, enters) = match std::env::var("MARK") {
        Ok(mark) => (mark, true),
        Err(_) => (mark, false),
    };
    if enters {
        if let Ok(Side::Inside(lab)) = Entry::libtest(name).enter() {
            let _daemon = start_marked_daemon(&lab);
            loop {
                std::thread::park();
            }
        }
        return;
    }
    let scratch = tempfile::tempdir().expect("a directory");
    let exe = std::env::current_exe().expect("a path");
    let mut program = Command::new(exe)
        .args(["--exact", name])
        .env("MARK", &mark)
        .env("TMPDIR", scratch.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program");
    let runs = eventually("the daemon runs", SOON, || match daemons(&mark).len() {
        1 => Ok(()),
        other => Err(other),
    });
    program.kill().expect("it can be killed");
    program.wait().expect("it ends");
    runs.expect("the lab comes up");
    await_gone(&mark);
}

#[test]
fn a_missing_program_is_named_with_its_package() {
    let missing = Launch::new("/nowhere/birdc").finish(Duration::from_secs(1));
    assert!(
        matches!(missing, Err(ProcessError::NotInstalled { .. })),
        "{missing:?}"
    );
}
