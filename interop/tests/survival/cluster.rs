//! The store of the cluster breaks, forgets, goes back or lies, while packets flow: what works goes on without
//! losing one, changes wait, and when the store is back only what differs is changed.

use std::time::Duration;

use interop::enter::{self, Lab};
use interop::etcd::Etcd;
use interop::gateway::Gateway;
use interop::scene::{LAB, OFFICE, Scene};
use interop::wait::eventually;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Failure, SOON, Traffic};

/// A cluster has to be started, killed and started again, and says so late when it is frozen.
const DEADLINE: Duration = Duration::from_secs(180);
/// Well after the lease of a gateway that is gone.
const LEASE_OVER: Duration = Duration::from_secs(60);

fn linked(lab: &Lab, members: usize) -> Result<(Scene, Etcd, Traffic), Failure> {
    let (mut scene, etcd) = Scene::start_on_etcd(lab, 1, members)?;
    scene.link("web", "office", &OFFICE)?;
    let traffic = Traffic::start(&scene)?;
    traffic.go_on(250)?;
    Ok((scene, etcd, traffic))
}

/// Waits until the agent says so of its store; its whole status.
fn await_store(gateway: &Gateway, state: &str) -> Result<Value, Failure> {
    let status = eventually(format!("the store is {state}"), SOON, || {
        let status = gateway
            .json(["status"])
            .map_err(|error| error.to_string())?;
        match status["store"]["state"] == state {
            true => Ok(status),
            false => Err(status["store"].to_string()),
        }
    })?;
    println!("{}", status["store"]);
    Ok(status)
}

fn state_of(gateway: &Gateway, link: &str) -> Result<Value, Failure> {
    let links = gateway.json(["links"])?;
    let link = links
        .as_array()
        .into_iter()
        .flatten()
        .find(|view| view["link"] == link);
    Ok(link.map_or(Value::Null, |link| link["state"].clone()))
}

/// A link that is tried while nothing can be changed is refused, with the reason.
fn refuses_changes(gateway: &Gateway, because: &str) -> Result<(), Failure> {
    let said = gateway.finish(["link", "db", "--classic", "lab"])?;
    assert!(!said.status.success(), "{said:?}");
    let error = said.success().unwrap_err().to_string();
    assert!(error.contains(because), "{error}");
    Ok(())
}

/// Nothing was lost, and the gateway dropped nothing.
fn was_perfect(scene: &Scene, traffic: Traffic) -> Result<(), Failure> {
    super::was_perfect(traffic)?;
    super::dropped_nothing(&scene.gateway)
}

#[test]
fn etcd_that_is_restarted_costs_no_packet() {
    enter::test_within(DEADLINE, |lab| {
        let (mut scene, mut etcd, traffic) = linked(lab, 1)?;
        let before = scene.kernel()?;
        etcd.kill_all();
        await_store(&scene.gateway, "away")?;
        refuses_changes(&scene.gateway, "the store cannot be reached")?;
        traffic.go_on(250)?;
        assert_eq!(
            before.difference(&scene.kernel()?),
            "",
            "while the store is away"
        );
        etcd.start_all()?;
        await_store(&scene.gateway, "current")?;
        assert_eq!(before.difference(&scene.kernel()?), "", "when it is back");
        scene.link("db", "lab", &LAB)?;
        scene.gateway.ccn(["unlink", "db"])?;
        traffic.go_on(250)?;
        was_perfect(&scene, traffic)
    });
}

#[test]
fn a_majority_that_is_lost_for_some_seconds_costs_no_packet() {
    enter::test_within(DEADLINE, |lab| {
        let (mut scene, mut etcd, traffic) = linked(lab, 3)?;
        etcd.kill_member(0);
        etcd.await_leader()?;
        scene.link("db", "lab", &LAB)?;
        let before = scene.kernel()?;
        // One of two that are left stands still: nobody has a majority.
        etcd.signal_member(1, Signal::SIGSTOP)?;
        await_store(&scene.gateway, "away")?;
        traffic.go_on(2000)?;
        assert_eq!(
            before.difference(&scene.kernel()?),
            "",
            "without a majority"
        );
        etcd.signal_member(1, Signal::SIGCONT)?;
        etcd.start_all()?;
        await_store(&scene.gateway, "current")?;
        scene.gateway.ccn(["unlink", "db"])?;
        traffic.go_on(250)?;
        was_perfect(&scene, traffic)
    });
}

#[test]
fn a_gateway_restarted_while_the_cluster_is_gone_starts_from_its_snapshot() {
    enter::test_within(DEADLINE, |lab| {
        let (mut scene, mut etcd, traffic) = linked(lab, 1)?;
        let before = scene.kernel()?;
        etcd.kill_all();
        await_store(&scene.gateway, "away")?;
        for end in [Gateway::kill, Gateway::stop] {
            end(&mut scene.gateway)?;
            traffic.go_on(250)?;
            scene.gateway.start()?;
            let status = scene.gateway.await_settled(SOON)?;
            assert_eq!(status["store"]["state"], "away", "{status}");
            assert!(status["store"]["stale_s"].is_u64(), "{status}");
            assert_eq!(
                status["plane"]["operations"], 0,
                "nothing was written at all: {status}"
            );
            assert_eq!(state_of(&scene.gateway, "web")?, "announced");
            assert_eq!(before.difference(&scene.kernel()?), "", "from the snapshot");
        }
        refuses_changes(&scene.gateway, "the store cannot be reached")?;
        etcd.start_all()?;
        etcd.put(
            "links/db",
            &json!({"vpc": "db", "classic": ["lab"]}).to_string(),
        )?;
        await_store(&scene.gateway, "current")?;
        eventually("what changed meanwhile is done", SOON, || {
            match state_of(&scene.gateway, "db") {
                Ok(state) if state == "announced" => Ok(()),
                Ok(state) => Err(state.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })?;
        traffic.go_on(250)?;
        was_perfect(&scene, traffic)
    });
}

#[test]
fn history_compacted_past_the_watch_is_made_up_for_by_differences() {
    enter::test_within(DEADLINE, |lab| {
        let (mut scene, mut etcd, traffic) = linked(lab, 1)?;
        let operations = scene.gateway.await_settled(SOON)?["plane"]["operations"].clone();
        // The agent hears nothing while the cluster is restarted, changed, and forgets.
        scene.gateway.agent()?.signal(Signal::SIGSTOP)?;
        etcd.kill_all();
        etcd.start_all()?;
        etcd.put(
            "classic/office",
            r#"{"prefixes":["10.80.1.0/24","fd80:1::/64"],"seen":1}"#,
        )?;
        etcd.put(
            "links/db",
            &json!({"vpc": "db", "classic": ["lab"]}).to_string(),
        )?;
        etcd.compact()?;
        scene.gateway.agent()?.signal(Signal::SIGCONT)?;
        eventually("what was missed is done", SOON, || {
            match state_of(&scene.gateway, "db") {
                Ok(state) if state == "announced" => Ok(()),
                Ok(state) => Err(state.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })?;
        let log = std::fs::read_to_string(scene.gateway.log())?;
        assert!(
            log.contains("fell behind"),
            "the store was read again: {log}"
        );
        let status = await_store(&scene.gateway, "current")?;
        println!(
            "operations: {operations}, then {}",
            status["plane"]["operations"]
        );
        traffic.go_on(250)?;
        was_perfect(&scene, traffic)
    });
}

#[test]
fn a_backup_that_was_restored_unprograms_nothing_until_it_is_followed() {
    enter::test_within(DEADLINE, |lab| {
        let (mut scene, mut etcd, traffic) = linked(lab, 1)?;
        let backup = lab.scratch().join("backup");
        etcd.back_up(&backup)?;
        scene.link("db", "lab", &LAB)?;
        let before = scene.kernel()?;
        etcd.restore(&backup)?;
        await_store(&scene.gateway, "restored")?;
        refuses_changes(&scene.gateway, "ccn store follow")?;
        // Nor does a restart make it follow.
        scene.gateway.stop()?;
        scene.gateway.start()?;
        await_store(&scene.gateway, "restored")?;
        traffic.go_on(250)?;
        assert_eq!(state_of(&scene.gateway, "db")?, "announced");
        assert_eq!(
            before.difference(&scene.kernel()?),
            "",
            "nothing is followed"
        );
        scene.gateway.ccn(["store", "follow"])?;
        await_store(&scene.gateway, "current")?;
        eventually(
            "the link that the backup does not know is gone",
            SOON,
            || match state_of(&scene.gateway, "db") {
                Ok(Value::Null) => Ok(()),
                Ok(state) => Err(state.to_string()),
                Err(error) => Err(error.to_string()),
            },
        )?;
        assert_eq!(state_of(&scene.gateway, "web")?, "announced");
        scene.link("db", "lab", &LAB)?;
        traffic.go_on(250)?;
        was_perfect(&scene, traffic)
    });
}

#[test]
fn a_certificate_that_is_wrong_or_expired_is_named_and_replaced_under_way() {
    enter::test_within(DEADLINE, |lab| {
        let (scene, mut etcd, traffic) = linked(lab, 1)?;
        // The files are those of the agent's configuration.
        etcd.authority.sign_expired("gateway")?;
        etcd.kill_all();
        etcd.start_all()?;
        let status = await_store(&scene.gateway, "away")?;
        println!("expired: {}", status["store"]["reason"]);
        traffic.go_on(500)?;
        etcd.authority.sign("gateway")?;
        await_store(&scene.gateway, "current")?;
        traffic.go_on(250)?;
        was_perfect(&scene, traffic)
    });
}

#[test]
fn a_poisoned_record_stops_nobody_else() {
    enter::test_within(DEADLINE, |lab| {
        let (mut scene, etcd, traffic) = linked(lab, 1)?;
        for (key, value) in [
            ("vpcs/evil", "not JSON \u{1}"),
            ("vpcs/thief", r#"{"vni":1001,"subnets":["10.1.0.0/24"]}"#),
            ("nonsense/x", "{}"),
            (
                "vms/web/stray",
                r#"{"addrs":["192.0.2.1"],"mac":"02:00:00:00:00:01","vtep":"172.16.0.11"}"#,
            ),
        ] {
            etcd.put(key, value)?;
        }
        let quarantine = eventually("all of them are in quarantine", SOON, || {
            let quarantine = scene
                .gateway
                .json(["quarantine"])
                .map_err(|error| error.to_string())?;
            match quarantine.as_array().map_or(0, Vec::len) {
                4 => Ok(quarantine),
                _ => Err(quarantine.to_string()),
            }
        })?;
        println!("{quarantine}");
        scene.link("db", "lab", &LAB)?;
        traffic.go_on(250)?;
        was_perfect(&scene, traffic)
    });
}

#[test]
fn a_gateway_is_registered_while_it_lives() {
    enter::test_within(DEADLINE, |lab| {
        let (mut scene, etcd) = Scene::start_on_etcd(lab, 1, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let generation = scene.gateway.await_settled(SOON)?["generation"].clone();
        let gateways = eventually("it is registered with what it did last", SOON, || {
            let gateways = scene
                .gateway
                .json(["gateways"])
                .map_err(|error| error.to_string())?;
            match gateways[0]["generation"] == generation && gateways[0]["health"] == "healthy" {
                true => Ok(gateways),
                false => Err(gateways.to_string()),
            }
        })?;
        println!("{gateways}");
        assert_eq!(gateways[0]["gateway"], "gw");
        assert_eq!(
            gateways[0]["vtep"],
            interop::topology::plan::GATEWAY_VTEP.to_string()
        );
        assert_eq!(gateways[0]["roles"], json!(["classic-link"]));
        assert_eq!(gateways[0]["draining"], Value::Null, "not written");
        for (order, draining) in [
            (&["drain", "--settle", "0s"][..], json!(true)),
            (&["undrain"], Value::Null),
        ] {
            scene.gateway.ccn(order)?;
            eventually("it says whether it is drained", SOON, || {
                let gateways = scene
                    .gateway
                    .json(["gateways"])
                    .map_err(|error| error.to_string())?;
                match gateways[0]["draining"] == draining {
                    true => Ok(()),
                    false => Err(gateways.to_string()),
                }
            })?;
        }
        let exported = scene.gateway.ccn(["export"])?;
        assert!(!exported.contains("gateways/"), "it is no part of a region");
        scene.gateway.kill()?;
        let key = format!("{}/gateways/gw", interop::etcd::ROOT);
        eventually("its lease is over", LEASE_OVER, || {
            match etcd.ctl(&["get", &key]) {
                Ok(said) if said.is_empty() => Ok(()),
                Ok(said) => Err(said),
                Err(error) => Err(error.to_string()),
            }
        })?;
        Ok(())
    });
}
