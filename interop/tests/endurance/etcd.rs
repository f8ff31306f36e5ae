//! An etcd in which more happens than anybody would wish for.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use interop::bench::store::floor::{Minimal, Record};
use interop::enter;
use interop::etcd::ROOT;
use interop::scene::{OFFICE, Scene};
use interop::steady::Traffic;
use interop::topology::plan;
use interop::wait::eventually;
use netlink::Mac;
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
