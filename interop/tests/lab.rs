//! The lab tests itself: what the other tests stand on.

use std::fs;
use std::time::Duration;

use interop::enter::{self, EnterError, Entry, Lab, Side};
use interop::process::{Launch, ProcessError};
use interop::wait::eventually;

/// Command lines of this machine's processes, as seen from the host.
fn processes_with(mark: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(mark) && line.starts_with("sleep "))
        .collect()
}

/// A daemon that the outside can recognise: `sleep` for a number of seconds nobody else uses.
fn start_marked_daemon(lab: &Lab) -> Result<interop::process::Process, ProcessError> {
    let mark = std::env::var("MARK").unwrap_or_default();
    Launch::new("sleep")
        .arg(&mark)
        .start(&lab.scratch().join("sleep.log"))
}

fn mark(salt: u32) -> String {
    format!("86400.{salt}{}", std::process::id())
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
            std::mem::forget(start_marked_daemon(&lab).expect("a daemon"));
            panic!("on purpose");
        }
        Side::Outside(status) => {
            assert!(!status.success());
            eventually(
                "the daemon is gone",
                Duration::from_secs(5),
                || match processes_with(&mark) {
                    gone if gone.is_empty() => Ok(()),
                    left => Err(format!("{left:?}")),
                },
            )
            .expect("a lab leaves nothing");
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
            let _daemon = start_marked_daemon(&lab).expect("a daemon");
            loop {
                std::thread::park();
            }
        }
        Err(error @ EnterError::Hung { .. }) => {
            assert!(
                error
                    .to_string()
                    .contains("a_lab_that_hangs_is_killed_and_named"),
                "{error}"
            );
            eventually(
                "the daemon is gone",
                Duration::from_secs(5),
                || match processes_with(&mark) {
                    gone if gone.is_empty() => Ok(()),
                    left => Err(format!("{left:?}")),
                },
            )
            .expect("a lab leaves nothing");
        }
        other => panic!("neither inside nor hung: {other:?}"),
    }
}

#[test]
fn a_missing_program_is_named_with_its_package() {
    let missing = Launch::new("/nowhere/birdc").finish(Duration::from_secs(1));
    assert!(
        matches!(missing, Err(ProcessError::NotInstalled { .. })),
        "{missing:?}"
    );
}
