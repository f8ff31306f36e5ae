//! An etcd in which more happens than anybody would wish for, or less.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use interop::bench::store::floor::{Minimal, Record};
use interop::enter;
use interop::etcd::ROOT;
use interop::scene::{LAB, OFFICE, Scene};
use interop::steady::Traffic;
use interop::topology::plan;
use interop::traffic::http;
use interop::wait::eventually;
use netlink::Mac;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::desk::Desk;
use super::{Failure, SOON, was_perfect};

/// VMs that move without end: more than etcd takes in a transaction, where no key may come twice.
const MOVING: u8 = 150;
/// The last octet of the address of the first of them: behind that of the SLB.
const FIRST: u8 = 101;
/// Changes in all, and a second.
const CHANGES: usize = 50_000;
const RATE: u32 = 10_000;

/// One of them, on the host of its turn.
fn moved(vm: u8, turn: usize) -> Value {
    let host = 11 + (usize::from(vm) + turn) % 2;
    json!({
        "addrs": [format!("10.1.0.{}", FIRST + vm)],
        "mac": Mac([2, 0, 0, 2, 0, vm]).to_string(),
        "vtep": plan::vtep(host as u8),
    })
}

#[test]
fn fifty_thousand_changes_in_five_seconds_cost_no_packet_and_are_all_there_in_the_end() {
    enter::test_within(Duration::from_secs(120), |lab| {
        let (mut scene, etcd) = Scene::start_on_etcd(lab, 1, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let before = scene.kernel()?;
        let traffic = Traffic::start(&scene)?;
        traffic.pass(100)?;

        let key = |vm: u8| format!("vms/web/storm-{vm}");
        let turns = (0..).flat_map(|turn| (0..MOVING).map(move |vm| (vm, turn)));
        let storm: Vec<Record> = turns
            .take(CHANGES)
            .map(|(vm, turn)| (format!("{ROOT}/{}", key(vm)), moved(vm, turn).to_string()))
            .collect();
        let namespace = scene.region.gateway_namespace();
        let late = thread::scope(|scope| -> Result<Duration, Failure> {
            let writing = scope.spawn(|| -> Result<Duration, Failure> {
                namespace.enter(|| Minimal::connect(&etcd)?.pace(&storm, RATE))?
            });
            // Others get their changes through, and hear of it.
            let desk = Desk::at(&scene.gateway)?;
            let mut others = 0;
            while !writing.is_finished() {
                let prefix = format!("10.{}.{}.0/24", 90 + others / 256, others % 256);
                desk.change(&[("classic/other", json!({ "prefixes": [prefix] }))])?;
                others += 1;
            }
            println!("{others} changes of others meanwhile");
            assert!(others > 0, "nobody else came through");
            writing.join().map_err(|_| "the writer panicked")?
        })?;
        println!("{CHANGES} changes at {RATE} a second, the last {late:?} late");

        // The last turn of each is what there is in the end.
        let last = |vm: u8| moved(vm, (CHANGES - 1 - usize::from(vm)) / usize::from(MOVING));
        eventually("all VMs are as they were written last", SOON, || {
            let said = scene.gateway.ccn(["export"]);
            let records = said.map_err(|error| error.to_string())?;
            let lines = records
                .lines()
                .map(serde_json::from_str::<Value>)
                .collect::<Result<Vec<_>, _>>();
            let lines = lines.map_err(|error| error.to_string())?;
            let is_there = |vm: &u8| {
                let (key, value) = (key(*vm), last(*vm));
                lines
                    .iter()
                    .any(|line| line["key"] == key && line["value"] == value)
            };
            let others: Vec<u8> = (0..MOVING).filter(|vm| !is_there(vm)).collect();
            match others.is_empty() {
                true => Ok(()),
                false => Err(format!("{others:?} are not")),
            }
        })?;
        eventually("the kernel has them there", SOON, || {
            for vm in (0..MOVING).step_by(10) {
                let addr = IpAddr::from([10, 1, 0, FIRST + vm]);
                let said = scene.explain(IpAddr::from([10, 80, 1, 10]), addr, None);
                let said = said.map_err(|error| error.to_string())?;
                let vtep = last(vm)["vtep"].to_string();
                if !said["kernel"]["says"].to_string().contains(&vtep) {
                    return Err(format!("{vm} is not at {vtep}: {said}"));
                }
            }
            Ok(())
        })?;
        traffic.pass(100)?;
        was_perfect(traffic)?;

        let gone: Vec<String> = (0..MOVING).map(key).collect();
        let mut gone: Vec<(&str, Value)> =
            gone.iter().map(|key| (key.as_str(), Value::Null)).collect();
        gone.push(("classic/other", Value::Null));
        Desk::at(&scene.gateway)?.change(&gone)?;
        scene.gateway.await_settled(SOON)?;
        let left = before.difference(&scene.kernel()?);
        assert_eq!(left, "", "nothing is left behind");
        Ok(())
    });
}

/// Waits until the agent says so of its store; its whole status.
fn await_store(scene: &Scene, state: &str) -> Result<Value, Failure> {
    let what = format!("the store is {state}");
    Ok(eventually(what, SOON, || {
        let status = scene.gateway.json(["status"]);
        let status = status.map_err(|error| error.to_string())?;
        match status["store"]["state"] == state {
            true => Ok(status),
            false => Err(status["store"].to_string()),
        }
    })?)
}

/// What is said to somebody who gives an order now: it must not be done.
fn refusal(scene: &Scene, order: &[&str]) -> Result<String, Failure> {
    let finished = scene.gateway.finish(order)?;
    assert!(!finished.status.success(), "{finished:?}");
    Ok(finished.stderr)
}

/// Where the agent serves its metrics, in its own namespace.
const METRICS: &str = "127.0.0.1:9464";

#[test]
fn a_leader_that_is_killed_and_a_majority_lost_for_a_minute_cost_no_packet() {
    enter::test_within(Duration::from_secs(200), |lab| {
        let (mut scene, mut etcd) = Scene::start_on_etcd_with(lab, 3, |gateway| {
            let listen = ("listen".to_owned(), METRICS.into());
            let section = toml::Table::from_iter([listen]);
            let more = &mut gateway.config.more;
            more.insert("metrics".to_owned(), section.into());
        })?;
        scene.link("web", "office", &OFFICE)?;
        let traffic = Traffic::start(&scene)?;
        traffic.pass(100)?;

        let leader = etcd.leader()?;
        etcd.kill_member(leader);
        let began = Instant::now();
        // An order may be refused while there is no leader, and is carried out soon.
        eventually("an order is carried out without it", SOON, || {
            let said = scene.gateway.finish(["link", "db", "--classic", "lab"]);
            let said = said.map_err(|error| error.to_string())?;
            match said.status.success() {
                true => Ok(()),
                false => Err(said.stderr),
            }
        })?;
        println!(
            "the leader was killed: an order was carried out {:?} later",
            began.elapsed()
        );
        let before = scene.kernel()?;
        traffic.pass(100)?;

        let leases = etcd.ctl(&["lease", "list"])?;
        let other = (leader + 1) % 3;
        etcd.signal_member(other, Signal::SIGSTOP)?;
        let began = Instant::now();
        await_store(&scene, "away")?;
        // The lease of the gateway ends meanwhile: nobody can say so.
        let minute = Duration::from_secs(60);
        while began.elapsed() < minute {
            traffic.pass(1000)?;
        }
        let status = await_store(&scene, "away")?;
        println!("a majority was away for a minute: {}", status["store"]);
        let stale = status["store"]["stale_s"].as_u64().unwrap_or_default();
        assert!((40..90).contains(&stale), "{status}");
        assert!(status["store"]["reason"].is_string(), "{status}");
        let gateway = scene.region.gateway_namespace();
        let page = http::fetch_path(&gateway, METRICS.parse()?, "/metrics", SOON)?;
        let sample = |name: &str| {
            let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
            page.body.lines().find_map(of)
        };
        assert_eq!(sample("ccn_store_stale"), Some(1.0), "{page:?}");
        let age = sample("ccn_store_age_seconds");
        assert!(age >= Some(40.0) && age < Some(90.0), "{page:?}");
        let said = refusal(&scene, &["unlink", "db"])?;
        assert!(said.contains("the store cannot be reached"), "{said}");
        assert_eq!(
            before.difference(&scene.kernel()?),
            "",
            "without a majority"
        );

        etcd.signal_member(other, Signal::SIGCONT)?;
        etcd.start_all()?;
        await_store(&scene, "current")?;
        scene.gateway.ccn(["unlink", "db"])?;
        eventually("the gateway is registered", SOON, || {
            let gateways = scene.gateway.json(["gateways"]);
            let gateways = gateways.map_err(|error| error.to_string())?;
            match gateways[0]["gateway"] == "gw" {
                true => Ok(()),
                false => Err(gateways.to_string()),
            }
        })?;
        // Whether it kept its lease or was granted another: it has one, and the other ends.
        eventually("it holds one lease", 2 * SOON, || {
            let now = etcd.ctl(&["lease", "list"]);
            let now = now.map_err(|error| error.to_string())?;
            match now.contains("found 1 leases") {
                true => {
                    println!("leases: {leases:?} before, {now:?} after");
                    Ok(())
                }
                false => Err(now),
            }
        })?;
        traffic.pass(100)?;
        was_perfect(traffic)
    });
}

#[test]
fn a_role_that_is_taken_away_is_named_and_costs_no_packet() {
    enter::test_within(Duration::from_secs(120), |lab| {
        let (mut scene, mut etcd) = Scene::start_on_etcd(lab, 1, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let before = scene.kernel()?;
        let traffic = Traffic::start(&scene)?;
        traffic.pass(100)?;

        etcd.permit(false)?;
        let said = refusal(&scene, &["link", "db", "--classic", "lab"])?;
        println!("an order: {said}");
        for named in ["permission denied", "etcd's user ccn", "prefix /ccn/v1"] {
            assert!(said.contains(named), "{said}");
        }
        traffic.pass(250)?;
        // A watch that has begun is not taken away. The next one is.
        etcd.kill_all();
        etcd.start_all()?;
        let status = eventually("the status names it", SOON, || {
            let status = scene.gateway.json(["status"]);
            let status = status.map_err(|error| error.to_string())?;
            let reason = status["store"]["reason"].as_str().unwrap_or_default();
            match reason.contains("permission denied") && reason.contains("prefix /ccn/v1") {
                true => Ok(status),
                false => Err(status["store"].to_string()),
            }
        })?;
        println!("{}", status["store"]);
        traffic.pass(250)?;
        assert_eq!(before.difference(&scene.kernel()?), "", "without its role");

        etcd.permit(true)?;
        await_store(&scene, "current")?;
        scene.link("db", "lab", &LAB)?;
        scene.gateway.ccn(["unlink", "db"])?;
        traffic.pass(100)?;
        assert_eq!(before.difference(&scene.kernel()?), "", "with its role");
        was_perfect(traffic)
    });
}

/// What each sync to a disk takes that is ill.
const SLOW: Duration = Duration::from_millis(400);

#[test]
fn a_slow_disk_makes_orders_slow_and_costs_no_packet() {
    enter::test_within(Duration::from_secs(150), |lab| {
        let (mut scene, mut etcd) = Scene::start_on_etcd(lab, 1, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let before = scene.kernel()?;
        let traffic = Traffic::start(&scene)?;
        traffic.pass(100)?;
        etcd.start_on_disk(Some(SLOW))?;
        await_store(&scene, "current")?;
        let registered = scene.gateway.json(["gateways"])?;
        for round in 1..=3 {
            let began = Instant::now();
            scene.link("db", "lab", &LAB)?;
            let linked = began.elapsed();
            scene.gateway.ccn(["unlink", "db"])?;
            println!(
                "round {round}: linked in {linked:?}, unlinked {:?} later",
                began.elapsed() - linked
            );
            assert!(linked >= SLOW, "the disk is not slow");
        }
        // It was heard all the time, and is registered as before.
        let log = std::fs::read_to_string(scene.gateway.log())?;
        assert!(!log.contains("fell behind"), "the watch did not lag: {log}");
        let now = scene.gateway.json(["gateways"])?;
        assert_eq!(now[0]["gateway"], registered[0]["gateway"], "{now}");
        etcd.start_on_disk(None)?;
        await_store(&scene, "current")?;
        scene.gateway.await_settled(SOON)?;
        assert_eq!(
            before.difference(&scene.kernel()?),
            "",
            "on a good disk again"
        );
        traffic.pass(100)?;
        was_perfect(traffic)
    });
}

/// Records that are none, among those that are.
const FOREIGN: usize = 1_000_000;
/// How long all of them may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(200);

#[test]
fn a_million_foreign_keys_are_named_and_stop_nobody() {
    enter::test_within(3 * PATIENCE, |lab| {
        let (mut scene, etcd) = Scene::start_on_etcd(lab, 1, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let before = scene.kernel()?;
        let traffic = Traffic::start(&scene)?;
        traffic.pass(100)?;
        // Keys that nobody knows, values that are no JSON, and VMs of a VPC that is not there.
        let foreign: Vec<Record> = (0..FOREIGN)
            .map(|number| match number % 3 {
                0 => (format!("{ROOT}/alien/{number}"), "{}".to_owned()),
                1 => (format!("{ROOT}/vms/web/x{number}"), "\u{1}not JSON".to_owned()),
                _ => {
                    let vm = json!({"addrs": ["10.9.9.9"], "mac": "02:00:00:00:00:01", "vtep": "172.16.0.11"});
                    (format!("{ROOT}/vms/nowhere/x{number}"), vm.to_string())
                }
            })
            .collect();
        let namespace = scene.region.gateway_namespace();
        namespace.enter(|| Minimal::connect(&etcd)?.fill(&foreign))??;
        let status = eventually("each is quarantined", PATIENCE, || {
            let status = scene.gateway.json(["status"]);
            let status = status.map_err(|error| error.to_string())?;
            match status["records"]["quarantined"].as_u64() {
                Some(count) if count == FOREIGN as u64 => Ok(status),
                _ => Err(status["records"].to_string()),
            }
        })?;
        println!("{}", status["records"]);
        let id = scene.gateway.agent()?.id();
        let memory = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let resident = memory.lines().find(|line| line.starts_with("VmRSS"));
        println!("the agent: {resident:?}");
        let said = scene.gateway.finish(["doctor"])?;
        println!("doctor: {:?}\n{}", said.status.code(), said.stdout);
        let more = format!("and {} more", FOREIGN - 5);
        assert!(said.stdout.contains(&more), "doctor counts them");
        scene.link("db", "lab", &LAB)?;
        scene.gateway.ccn(["unlink", "db"])?;
        assert_eq!(
            before.difference(&scene.kernel()?),
            "",
            "beside all of them"
        );
        // A start takes them as well.
        scene.gateway.stop()?;
        scene.gateway.start()?;
        let status = scene.gateway.await_settled(PATIENCE)?;
        assert_eq!(status["records"]["quarantined"], FOREIGN, "{status}");
        assert_eq!(status["plane"]["operations"], 0, "{status}");
        traffic.pass(100)?;
        was_perfect(traffic)
    });
}
