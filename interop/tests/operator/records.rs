//! Records one by one, from the first to the last: made, reached, changed while packets flow, and deleted.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use bgp::Family;
use ccn::record::{Record, RecordKey};
use interop::enter;
use interop::process::Finished;
use interop::scene::{LAB, OFFICE, Scene, nets};
use interop::topology::records;
use interop::traffic::ping::ping;
use interop::wait::eventually;
use serde_json::{Value, json};

use super::{Failure, SOON};

const VM: &str = "10.5.0.11";
const VIP: &str = "10.5.0.100";
/// Where the VM and the SLB's nodes are, and the VM after its move.
const HOSTS: [&str; 2] = ["172.16.0.11", "172.16.0.12"];

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(' ')
}

/// Does as the line says.
fn ccn(scene: &Scene, line: &str) -> Result<String, Failure> {
    let said = scene.gateway.ccn(words(line))?;
    println!("$ ccn {line}\n{said}");
    Ok(said)
}

/// Fails unless the line is refused with 1, naming all of this.
fn refuses(scene: &Scene, line: &str, names: &[&str]) -> Result<(), Failure> {
    let finished: Finished = scene.gateway.finish(words(line))?;
    println!("$ ccn {line}\n{}", finished.stderr);
    assert_eq!(finished.status.code(), Some(1), "{line}: {finished:?}");
    for name in names {
        let said = &finished.stderr;
        assert!(said.contains(name), "{line}: does not say {name:?}: {said}");
    }
    Ok(())
}

/// The value of a record as it stands in the store.
fn value(scene: &Scene, line: &str) -> Result<Value, Failure> {
    Ok(scene.gateway.json(words(line))?["value"].clone())
}

fn is_answered(scene: &Scene, from: &str, to: &str) -> Result<(), Failure> {
    let to: IpAddr = to.parse()?;
    let from = scene.region.namespace(from)?;
    eventually(format!("{to} answers"), SOON, || {
        match ping(&from, to, 2, Duration::from_secs(1)) {
            Ok(ping) if ping.is_perfect() => Ok(()),
            Ok(ping) => Err(ping.said),
            Err(error) => Err(error.to_string()),
        }
    })?;
    Ok(())
}

/// Starts what the records of a VPC say is there.
fn start_instances(scene: &mut Scene, lines: &[(&str, &str)]) -> Result<(), Failure> {
    let mut records: Vec<(RecordKey, Record)> = Vec::new();
    for (kind, name) in lines {
        let seen = scene.gateway.json([*kind, "show", *name])?;
        let key: RecordKey = seen["key"].as_str().unwrap_or_default().parse()?;
        let record = Record::from_value(&key, seen["value"].clone())?;
        records.push((key, record));
    }
    for instance in records::instances(records.iter().map(|(key, record)| (key, record))) {
        scene.region.add_instance(instance)?;
    }
    Ok(())
}

#[test]
fn a_vpc_is_made_linked_changed_and_deleted_record_by_record() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        let before = scene.kernel()?;
        ccn(&scene, "vpc create crm --vni 3001 --subnet 10.5.0.0/24")?;
        refuses(
            &scene,
            "vpc create crm --vni 3002",
            &["vpcs/crm is there already, at generation"],
        )?;
        refuses(
            &scene,
            "vpc create copy --vni 3001",
            &["vpcs/copy: vni: ", "vpcs/crm"],
        )?;
        let [first, second] = HOSTS;
        let vm = format!("vm create crm/a --addr {VM} --mac 02:00:00:05:00:11 --vtep {first}");
        ccn(&scene, &vm)?;
        let slb = format!("slb create crm/lb --vip {VIP} --node {first}=2 {second}");
        ccn(&scene, &slb)?;
        ccn(&scene, "classic create desk --prefix 10.80.1.10/32")?;
        start_instances(
            &mut scene,
            &[("vpc", "crm"), ("vm", "crm/a"), ("slb", "crm/lb")],
        )?;
        scene.link("crm", "desk", &OFFICE)?;
        is_answered(&scene, "alice", VM)?;
        is_answered(&scene, "alice", VIP)?;

        // What something needs stays.
        refuses(
            &scene,
            "vpc delete crm",
            &["vpcs/crm is still needed by links/crm, slbs/crm/lb, vms/crm/a"],
        )?;
        refuses(&scene, "classic delete desk", &["needed by links/crm"])?;
        refuses(
            &scene,
            "vpc update crm --subnet 10.6.0.0/24",
            &["vms/crm/a: addrs[0]: "],
        )?;

        // Each of them changes while it is linked.
        scene.region.move_instance("a@crm", second.parse()?)?;
        ccn(&scene, &format!("vm update crm/a --vtep {second}"))?;
        is_answered(&scene, "alice", VM)?;
        let moved = value(&scene, "vm show crm/a")?;
        assert_eq!(
            moved,
            json!({"addrs": [VM], "mac": "02:00:00:05:00:11", "vtep": second})
        );
        ccn(&scene, &format!("slb update crm/lb --remove-node {second}"))?;
        let nodes = value(&scene, "slb show crm/lb")?["nodes"].clone();
        assert_eq!(nodes, json!([{"vtep": first, "weight": 2}]));
        is_answered(&scene, "alice", VIP)?;
        ccn(&scene, "vpc update crm --add-subnet 10.5.1.0/24")?;
        let new = nets(&["10.5.1.0/24"])?;
        scene.await_path(&new, &nets(&OFFICE)?)?;
        ccn(&scene, "vpc update crm --remove-subnet 10.5.1.0/24")?;
        eventually("the router loses it", SOON, || {
            match scene.routers[0].routes(Family::Ipv4Unicast) {
                Ok(routes) if routes.iter().all(|route| route.prefix != new[0]) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        ccn(&scene, "classic update desk --add-prefix 10.80.2.0/24")?;
        scene.await_path(&[], &nets(&LAB)?)?;
        is_answered(&scene, "carol", VM)?;
        is_answered(&scene, "alice", VM)?;

        // What is so already is no new generation; what is not there cannot be taken away.
        let shown = scene.gateway.json(["classic", "show", "desk"])?;
        let said = ccn(&scene, "classic update desk --add-prefix 10.80.2.0/24")?;
        assert!(said.contains("is so already"), "{said}");
        assert_eq!(scene.gateway.json(["classic", "show", "desk"])?, shown);
        refuses(
            &scene,
            "classic update desk --remove-prefix 10.9.0.0/24",
            &["classic/desk: prefixes: 10.9.0.0/24 is not there"],
        )?;

        ccn(&scene, "ccsi create sales --vpc crm")?;
        refuses(
            &scene,
            "ccsi update sales --add web",
            &["ccsis/sales: vpcs[1]: ", "ccsis/prod"],
        )?;
        ccn(&scene, "ccsi update sales --remove crm")?;
        let vpcs = value(&scene, "ccsi show sales")?;
        assert_eq!(vpcs, json!({"vpcs": []}));
        is_answered(&scene, "alice", VM)?;
        let text = ccn(&scene, "vpc show crm")?;
        for part in [
            "vpcs/crm",
            "generation",
            "vni         3001",
            "subnets     10.5.0.0/24",
        ] {
            assert!(text.contains(part), "{text}");
        }

        // The way back, in the order that nothing needs what goes.
        scene.gateway.ccn(["unlink", "crm"])?;
        let gone = [
            "ccsi delete sales",
            "slb delete crm/lb",
            "vm delete crm/a",
            "vpc delete crm",
            "classic delete desk",
        ];
        for line in gone {
            ccn(&scene, line)?;
            refuses(&scene, line, &["there is no "])?;
        }
        refuses(&scene, "vpc show crm", &["there is no vpcs/crm"])?;
        refuses(&scene, "vpc update crm --vni 9", &["there is no vpcs/crm"])?;
        scene.gateway.await_settled(SOON)?;
        assert_eq!(before.difference(&scene.kernel()?), "");
        Ok(())
    });
}

#[test]
fn updates_of_one_record_by_many_at_once_are_all_there_in_the_end() {
    enter::test(|lab| {
        let scene = Scene::start_alone(lab, |_| {})?;
        ccn(&scene, "classic create desk --prefix 10.80.9.0/24")?;
        let (gateway, all) = (&scene.gateway, 12);
        thread::scope(|scope| -> Result<(), Failure> {
            let add = |number: usize| {
                let line = format!("classic update desk --add-prefix 10.82.{number}.0/24");
                scope.spawn(move || gateway.finish(words(&line)))
            };
            let clients: Vec<_> = (0..all).map(add).collect();
            for client in clients {
                let finished = client.join().map_err(|_| "a client panicked")??;
                assert!(finished.status.success(), "{finished:?}");
            }
            Ok(())
        })?;
        let prefixes = value(&scene, "classic show desk")?["prefixes"].clone();
        assert_eq!(
            prefixes.as_array().map(Vec::len),
            Some(all + 1),
            "{prefixes}"
        );
        Ok(())
    });
}
