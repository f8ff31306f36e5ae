//! `ccn trace`: packets as they pass and are dropped, on the plane that samples them.

use std::net::SocketAddr;
use std::time::Duration;

use interop::enter;
use interop::gateway::may_load_bpf;
use interop::process::Process;
use interop::scene::{OFFICE, Scene};
use interop::traffic::numbered::{self, Origin};
use interop::traffic::ping;
use interop::wait::eventually;
use serde_json::Value;

use super::{Failure, SOON};

/// Starts `ccn trace --json`, and waits until it samples.
fn start(scene: &Scene, name: &str, options: &[&str]) -> Result<Process, Failure> {
    let log = scene.gateway.log().with_file_name(format!("{name}.log"));
    let command = scene.gateway.command(["trace", "--json"]).args(options);
    let watcher = command.start(&log)?;
    // It answers at once, without a packet: so its first look at the log is what comes first.
    await_sampling(scene, true)?;
    Ok(watcher)
}

fn await_sampling(scene: &Scene, sampling: bool) -> Result<(), Failure> {
    let what = format!("packets are sampled: {sampling}");
    eventually(what, SOON, || match scene.gateway.plane_dump() {
        Ok(lines) if lines.iter().any(|line| line == "packets are sampled") == sampling => Ok(()),
        Ok(lines) => Err(format!("{} lines", lines.len())),
        Err(error) => Err(error.to_string()),
    })?;
    Ok(())
}

/// What a watcher has been told so far.
fn told(watcher: &Process) -> Vec<Value> {
    let text = std::fs::read_to_string(watcher.log()).unwrap_or_default();
    let lines = text.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Waits until `enough` says so of what a watcher was told.
fn await_told(
    watcher: &Process,
    what: &str,
    enough: impl Fn(&[Value]) -> bool,
) -> Result<Vec<Value>, Failure> {
    let mut seen = Vec::new();
    eventually(what, SOON, || {
        seen = told(watcher);
        match enough(&seen) {
            true => Ok(()),
            false => Err(format!("{seen:?}")),
        }
    })?;
    Ok(seen)
}

fn is(line: &Value, verdict: &str, src: &str, dst: &str) -> bool {
    line["verdict"] == verdict && line["src"] == src && line["dst"] == dst
}

#[test]
fn packets_are_shown_as_they_pass_and_are_dropped() {
    enter::test(|lab| {
        if !may_load_bpf()? {
            return Ok(());
        }
        let mut scene = Scene::start_with(lab, 1, |config| config.plane.kind = "ebpf".to_owned())?;
        scene.link("web", "office", &OFFICE)?;
        let all = start(&scene, "all", &["--vm", "web/web-1"])?;
        let drops = start(&scene, "drops", &["--drops", "--link", "web"])?;
        let alice = scene.region.namespace("alice")?;
        for to in ["10.1.0.11", "fd00:1::11"] {
            let echo = ping::ping(&alice, to.parse()?, 2, Duration::from_secs(2))?;
            assert!(echo.is_perfect(), "{}", echo.said);
        }
        let nobody: SocketAddr = "10.1.0.99:7000".parse()?;
        numbered::send_off(&Origin::new(&alice), nobody, 3)?;
        let echoes = [
            ("10.80.1.10", "10.1.0.11"),
            ("10.1.0.11", "10.80.1.10"),
            ("fd80:1::a", "fd00:1::11"),
            ("fd00:1::11", "fd80:1::a"),
        ];
        let seen = await_told(&all, "both pings are seen, both ways", |lines| {
            echoes.iter().all(|(src, dst)| {
                let these = lines.iter().filter(|line| is(line, "forward", src, dst));
                these.count() >= 2
            })
        })?;
        for line in &seen {
            println!("{line}");
            assert_eq!(line["link"], "web", "{line}");
            let from_vm = line["src"] == "10.1.0.11" || line["src"] == "fd00:1::11";
            let vni = line["vni"].as_u64();
            assert_eq!(vni, from_vm.then_some(1001), "{line}");
            assert!(from_vm || line["dst"] != "10.1.0.99", "{line}");
        }
        let dropped = await_told(&drops, "the drops are seen", |lines| lines.len() >= 3)?;
        for line in &dropped {
            assert!(is(line, "drop", "10.80.1.10", "10.1.0.99"), "{line}");
            assert_eq!(line["reason"], "no-such-endpoint");
            assert_eq!(
                (line["protocol"].as_u64(), line["dst_port"].as_u64()),
                (Some(17), Some(7000))
            );
        }
        assert_eq!(dropped.len(), 3, "{dropped:?}");

        // One watcher goes, the other stays: and when that goes too, nothing is sampled.
        all.kill();
        numbered::send_off(&Origin::new(&alice), nobody, 2)?;
        await_told(&drops, "it goes on", |lines| lines.len() >= 5)?;
        drops.kill();
        await_sampling(&scene, false)?;

        // For people, so many and no more.
        let text = scene.gateway.command(["trace", "--count", "2"]);
        let log = scene.gateway.log().with_file_name("text.log");
        let mut text = text.start(&log)?;
        await_sampling(&scene, true)?;
        numbered::send_off(&Origin::new(&alice), nobody, 9)?;
        eventually("it ends by itself", SOON, || match text.check() {
            Err(_) => Ok(()),
            Ok(()) => Err("it runs"),
        })?;
        let said = std::fs::read_to_string(&log)?;
        println!("{said}");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        for line in lines {
            assert!(
                line.contains(" drop no-such-endpoint link web 10.80.1.10:"),
                "{line}"
            );
            assert!(line.contains(" > 10.1.0.99:7000 udp, "), "{line}");
        }
        await_sampling(&scene, false)?;
        for (options, words) in [
            (&["--link", "nolink"][..], "no link is called nolink"),
            (&["--vm", "web/nobody"], "there is no VM web/nobody"),
            (&["--vm", "nobody"], "neither an address nor VPC/VM"),
        ] {
            let refused = scene.gateway.finish(["trace"].iter().chain(options))?;
            assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
            assert!(refused.stderr.contains(words), "{}", refused.stderr);
        }
        Ok(())
    });
}

#[test]
fn sampling_ends_with_the_agent_however_it_ends() {
    enter::test(|lab| {
        if !may_load_bpf()? {
            return Ok(());
        }
        let mut scene = Scene::start_alone(lab, |config| config.plane.kind = "ebpf".to_owned())?;
        for killed in [false, true] {
            let watcher = start(&scene, "watcher", &[])?;
            match killed {
                true => scene.gateway.kill()?,
                false => scene.gateway.stop()?,
            }
            let mut watcher = watcher;
            eventually("the watcher ends", SOON, || match watcher.check() {
                Err(_) => Ok(()),
                Ok(()) => Err("it runs"),
            })?;
            // What an agent could not end, the next one does.
            await_sampling(&scene, killed)?;
            scene.gateway.start()?;
            await_sampling(&scene, false)?;
        }
        Ok(())
    });
}

#[test]
fn a_plane_that_cannot_sample_says_so_and_what_to_do() {
    enter::test(|lab| {
        let scene = Scene::start_alone(lab, |config| config.plane.kind = "routes".to_owned())?;
        let refused = scene.gateway.finish(["trace"])?;
        assert_eq!(refused.status.code(), Some(1));
        for words in ["`routes` samples no packets", "plane.kind", "tcpdump"] {
            assert!(refused.stderr.contains(words), "{}", refused.stderr);
        }
        Ok(())
    });
}
