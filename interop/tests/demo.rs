//! The demo as a program: what it prints for other programs, and how it ends.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use interop::wait::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The demo with these arguments, its scratch directories in a place of their own.
fn demo(scratch: &tempfile::TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_interop"));
    command.arg("demo").args(args);
    prepare(command, scratch)
}

/// The same as a user who is nobody in particular: without root, capabilities or subordinate ids,
/// whoever runs this test.
fn ordinary_demo(scratch: &tempfile::TempDir, args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-user=54321", "--map-group=54321", "--"])
        .arg(env!("CARGO_BIN_EXE_interop"))
        .arg("demo")
        .args(args);
    prepare(command, scratch)
}

fn prepare(mut command: Command, scratch: &tempfile::TempDir) -> Command {
    command.env("TMPDIR", scratch.path()).stdin(Stdio::null());
    command
}

fn left_over(scratch: &tempfile::TempDir) -> usize {
    scratch.path().read_dir().expect("a directory").count()
}

#[test]
fn every_step_is_shown_and_json_is_one_object() {
    let scratch = tempfile::tempdir().expect("a directory");
    expect_every_step(demo(&scratch, &["--json"]));
    assert_eq!(left_over(&scratch), 0);
}

#[test]
fn an_ordinary_user_is_shown_every_step_too() {
    let scratch = tempfile::tempdir().expect("a directory");
    expect_every_step(ordinary_demo(&scratch, &["--json"]));
    assert_eq!(left_over(&scratch), 0);
}

fn expect_every_step(mut demo: Command) {
    let output = demo.output().expect("it runs");
    let narration = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert!(output.status.success(), "{report:#}\n{narration}");
    assert_eq!(report["ok"], true, "{report:#}");
    let steps = report["steps"].as_array().expect("a list");
    let names: Vec<&str> = steps
        .iter()
        .filter_map(|step| step["name"].as_str())
        .collect();
    let told = [
        "lab",
        "import",
        "sessions",
        "before",
        "link",
        "at-bird",
        "at-gobgp",
        "learned",
        "ping",
        "ping6",
        "http",
        "isolation",
        "closed",
        "explain",
        "counters",
        "unlink",
        "withdrawn",
        "after",
    ];
    assert_eq!(names, told);
    for step in steps {
        assert_eq!(step["ok"], true, "{step}");
        assert!(step["ms"].is_u64() && step["detail"].is_string(), "{step}");
        let keys = step.as_object().expect("an object").len();
        assert_eq!(keys, 4, "{step}");
    }
    // At most a screen, and no line that a terminal would break.
    assert!(narration.lines().count() <= 30, "{narration}");
    let long: Vec<&str> = narration
        .lines()
        .filter(|l| l.chars().count() > 100)
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn an_agent_that_does_not_run_fails_the_demo_and_the_rest_is_skipped() {
    let scratch = tempfile::tempdir().expect("a directory");
    // An agent that is none: it ends at once.
    let output = demo(&scratch, &["--json"])
        .env("CCN_BINARY", "/bin/false")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(report["ok"], false, "{report:#}");
    let steps = report["steps"].as_array().expect("a list");
    assert_eq!(steps[0]["ok"], false);
    let detail = steps[0]["detail"].as_str().expect("text");
    assert!(detail.contains("/bin/false"), "{detail}");
    assert_eq!(steps[1]["detail"], "skipped: lab failed");
    assert!(steps.len() > 10 && steps.iter().all(|step| step["ok"] == false));
    assert_eq!(left_over(&scratch), 1, "the logs are kept");
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let scratch = tempfile::tempdir().expect("a directory");
    let child = demo(&scratch, &["--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let began = eventually(
        "the lab is up",
        Duration::from_secs(20),
        || match left_over(&scratch) {
            1 => Ok(()),
            other => Err(other),
        },
    );
    let pid = Pid::from_raw(child.id().cast_signed());
    kill(pid, Signal::SIGTERM).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    began.expect("it begins");
    assert_eq!(output.status.code(), Some(130));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(report["ok"], false, "{report:#}");
    assert_eq!(left_over(&scratch), 0);
}

#[test]
fn a_lab_that_is_kept_can_be_entered_and_ends_when_told() {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut child = demo(&scratch, &["--keep"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let stdout = child.stdout.take().expect("a pipe");
    let mut told = BufReader::new(stdout).lines().map_while(Result::ok);
    // `sh /tmp/ccn-lab-XXXXXX/in gw   # ...`
    let way_in = told.find_map(|line| {
        let (command, _) = line.split_once(" gw ")?;
        Some(command.trim().strip_prefix("sh ")?.to_owned())
    });
    let asked = way_in.map(|script| {
        let mut ask = Command::new("sh");
        ask.arg(script).args(["gw", "ccn", "status", "--json"]);
        ask.stdin(Stdio::null()).output().expect("sh runs")
    });
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).expect("it runs");
    let status = child.wait().expect("it ends");
    let asked = asked.expect("it says how to look around");
    let answer: Value = serde_json::from_slice(&asked.stdout).expect("JSON");
    assert_eq!(answer["peers"]["established"], 2, "{answer:#}");
    assert_eq!(
        status.code(),
        Some(0),
        "every step was shown, and Ctrl-C is its end"
    );
    assert_eq!(left_over(&scratch), 0);
}
