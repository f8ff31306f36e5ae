//! A gateway whose machine has no room left, no memory, or another time.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use interop::enter;
use interop::gateway::Gateway;
use interop::process::Launch;
use interop::scene::{LAB, OFFICE, Scene, WEB};
use interop::steady::Traffic;
use interop::topology::plan;
use interop::wait::eventually;
use serde_json::json;

use super::desk::Desk;
use super::{Failure, SOON, limit, was_perfect};

/// What the disk of the store takes.
const DISK: &str = "size=8m";
/// The most orders until it must be full.
const ORDERS: usize = 2_000;

/// Fills the disk up; what is to be deleted for room.
fn fill(disk: &Path) -> Result<PathBuf, Failure> {
    let path = disk.join("in-the-way");
    let mut file = File::create(&path)?;
    let block = [0_u8; 4096];
    while file.write_all(&block).is_ok() {}
    Ok(path)
}

#[test]
fn a_disk_that_is_full_costs_orders_and_no_packet_and_is_used_again_when_there_is_room() {
    enter::test(|lab| {
        let disk = lab.run().join("disk");
        fs::create_dir_all(&disk)?;
        let mount = Launch::new("mount").args(["-t", "tmpfs", "-o", DISK, "none"]);
        mount.arg(&disk).output(SOON)?;
        let mut scene = Scene::start_with(lab, 1, |config| {
            config.store.path = disk.join("store.redb");
        })?;
        scene.link("web", "office", &OFFICE)?;
        let traffic = Traffic::start(&scene)?;
        traffic.pass(100)?;

        let in_the_way = fill(&disk)?;
        let desk = Desk::at(&scene.gateway)?;
        // The file has some room of its own.
        let long = "x".repeat(4_000);
        let refusal = (0..ORDERS).find_map(|number| {
            let key = format!("classic/more-{number}");
            let network = json!({ "prefixes": [format!("10.{}.{}.0/24", 100 + number / 250, number % 250)], "note": long });
            desk.change(&[(&key, network)]).err()
        });
        let refusal = refusal.ok_or("the disk is never full")?.to_string();
        println!("refused: {refusal}");
        assert!(refusal.contains("store.redb"), "{refusal}");
        assert!(refusal.contains("No space left"), "{refusal}");
        traffic.pass(100)?;
        scene.await_exactly(&WEB)?;
        scene.gateway.agent()?.check()?;
        // Nothing has to be written for a start.
        for end in [Gateway::stop, Gateway::kill] {
            end(&mut scene.gateway)?;
            traffic.pass(50)?;
            scene.gateway.start()?;
            let status = scene.gateway.await_settled(SOON)?;
            assert_eq!(status["plane"]["last_resync_operations"], 0, "{status}");
            scene.await_exactly(&WEB)?;
        }

        fs::remove_file(in_the_way)?;
        eventually("an order is carried out again", SOON, || {
            let network = json!({ "prefixes": ["10.99.99.0/24"] });
            let changed = desk.change(&[("classic/again", network)]);
            changed.map_err(|error| error.to_string())
        })?;
        scene.gateway.await_settled(SOON)?;
        // Also what it holds now is whole.
        scene.gateway.stop()?;
        scene.gateway.start()?;
        scene.gateway.await_settled(SOON)?;
        let records = scene.gateway.ccn(["export"])?;
        assert!(records.contains("classic/again"), "{records}");
        traffic.pass(100)?;
        was_perfect(traffic)
    });
}

#[test]
fn an_agent_without_memory_ends_and_the_next_one_moves_nothing() {
    enter::test_within(Duration::from_secs(120), |lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let before = scene.kernel()?;
        let traffic = Traffic::start(&scene)?;
        traffic.pass(100)?;
        let id = scene.gateway.agent()?.id();
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let data = status.lines().find_map(|line| line.strip_prefix("VmData:"));
        let kilobytes = data.and_then(|data| data.trim().split(' ').next());
        let bytes = kilobytes.ok_or("no VmData")?.parse::<u64>()? * 1024;
        // It has some room of its own.
        limit(id, &format!("--data={0}:{0}", bytes + (4 << 20)))?;

        // Records until it has none: each is kept, in the inventory and in the store's log.
        let desk = Desk::at(&scene.gateway)?;
        let long = "x".repeat(30_000);
        let broken = (0..ORDERS).find_map(|number| {
            let key = format!("classic/more-{number}");
            let network = json!({ "prefixes": [format!("10.{}.{}.0/24", 100 + number / 250, number % 250)], "note": long });
            desk.change(&[(&key, network)]).err()
        });
        let broken = broken.ok_or("memory never ends")?;
        println!("without memory: {broken}");
        eventually("the agent has ended", SOON, || {
            match scene.gateway.agent() {
                Ok(agent) => match agent.check() {
                    Ok(()) => Err("it runs".to_owned()),
                    Err(ended) => {
                        println!("{ended}");
                        Ok(())
                    }
                },
                Err(error) => Err(error.to_string()),
            }
        })?;
        let log = fs::read_to_string(scene.gateway.log())?;
        let cause = log.lines().find(|line| line.contains("memory allocation"));
        println!("{}", cause.ok_or("its log does not say of what it ended")?);
        traffic.pass(250)?;
        assert_eq!(before.difference(&scene.kernel()?), "", "without an agent");

        scene.gateway.kill()?;
        scene.gateway.start()?;
        scene.routers[0].await_established(plan::GATEWAY4.into(), SOON)?;
        let status = scene.gateway.await_settled(SOON)?;
        println!("{}", status["plane"]);
        assert_eq!(
            before.difference(&scene.kernel()?),
            "",
            "with the next agent"
        );
        traffic.pass(100)?;
        was_perfect(traffic)
    });
}

/// When the last line of a log was written, by the clock of who wrote it: seconds since 1970.
fn told_at(log: &Path) -> Result<f64, Failure> {
    let text = fs::read_to_string(log)?;
    let last = text.lines().rev().find(|line| line.starts_with("20"));
    let at = last.and_then(|line| line.split(' ').next());
    let at = at.ok_or("no time in the log")?;
    let seconds = Launch::new("date").args(["-d", at, "+%s"]).output(SOON)?;
    Ok(seconds.trim().parse()?)
}

/// The time here.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// Where Debian has it.
const FAKETIME: &str = "faketime/libfaketime.so.1";

#[test]
fn a_clock_that_jumps_an_hour_breaks_no_session_no_lease_and_no_deadline() {
    enter::test_within(Duration::from_secs(120), |lab| {
        let library = Launch::new("dpkg")
            .args(["-L", "libfaketime"])
            .output(SOON)?;
        let library = library.lines().find(|line| line.ends_with(FAKETIME));
        let library = library.ok_or("libfaketime is not installed: run interop/install")?;
        let time = lab.run().join("time");
        fs::write(&time, "+0")?;
        let (mut scene, etcd) = Scene::start_on_etcd_with(lab, 1, |gateway| {
            let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            gateway.env = vec![
                set("LD_PRELOAD", library),
                set("FAKETIME_TIMESTAMP_FILE", &time.display().to_string()),
                set("FAKETIME_CACHE_DURATION", "1"),
                // Monotonic clocks do not jump.
                set("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ];
        })?;
        scene.link("web", "office", &OFFICE)?;
        let before = scene.kernel()?;
        let traffic = Traffic::start(&scene)?;
        traffic.pass(100)?;
        let session = scene.routers[0].session(plan::GATEWAY4.into())?;
        let lease = etcd.ctl(&["lease", "list"])?;
        for (jump, hours) in [("+3600", 1.0), ("-3600", -1.0), ("+0", 0.0)] {
            let uptime = scene.gateway.json(["status"])?["uptime_s"].as_f64();
            let confirm = ["link", "db", "--classic", "lab", "--confirm", "10m"];
            scene.gateway.ccn(confirm)?;
            fs::write(&time, jump)?;
            eventually("its clock has jumped", SOON, || {
                // A line of the log for each.
                let _ = scene.gateway.ccn(["reload"]);
                let at = told_at(scene.gateway.log()).map_err(|error| error.to_string())?;
                let off = (at - now()) / 3600.0;
                match (off - hours).abs() < 0.1 {
                    true => Ok(()),
                    false => Err(format!("it is {off} hours off")),
                }
            })?;
            traffic.pass(2000)?;
            let status = scene.gateway.json(["status"])?;
            assert_eq!(status["store"]["state"], "current", "{status}");
            let later = status["uptime_s"].as_f64();
            assert!(
                later >= uptime && later < uptime.map(|at| at + 100.0),
                "{uptime:?} and {later:?}"
            );
            // Ten minutes are ten minutes.
            let links = scene.gateway.json(["links"])?;
            let all = links.as_array().ok_or("no links")?;
            let db = all.iter().find(|link| link["link"] == "db");
            let db = db.ok_or_else(|| format!("taken back too soon: {links}"))?;
            let left = db["undone_in_s"].as_u64();
            assert!(left > Some(500) && left <= Some(600), "{db}");
            scene.gateway.ccn(["undo", "db"])?;
            scene.link("db", "lab", &LAB)?;
            scene.gateway.ccn(["unlink", "db"])?;
        }
        let now = scene.routers[0].session(plan::GATEWAY4.into())?;
        assert_eq!(now.since, session.since, "the session never broke");
        assert_eq!(etcd.ctl(&["lease", "list"])?, lease, "nor did the lease");
        assert_eq!(before.difference(&scene.kernel()?), "");
        was_perfect(traffic)
    });
}
