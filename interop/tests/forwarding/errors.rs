//! What the gateway tells senders: time exceeded, and the MTU of a packet that is too big.

use std::net::IpAddr;
use std::time::Duration;

use interop::capture::{Capture, Direction};
use interop::enter;
use interop::process::Launch;
use interop::scene::{OFFICE, Scene};
use interop::topology::{Instance, plan};
use netlink::{LinkChange, Mac, Namespace, Request};
use serde_json::json;

use super::{Failure, Others, addr, same_family};

/// What a single ping with these options prints.
fn ping(namespace: &Namespace, options: &[&str], to: IpAddr) -> Result<String, Failure> {
    let finished = Launch::new("ping")
        .args(["-n", "-c", "1", "-W", "2"])
        .args(options)
        .arg(to.to_string())
        .in_namespace(namespace.fd())
        .finish(Duration::from_secs(10))?;
    println!("{}: {}", finished.command, finished.stdout.trim());
    Ok(format!("{}{}", finished.stdout, finished.stderr))
}

/// `From ADDRESS`: who sent the error.
fn sender(said: &str) -> Option<IpAddr> {
    let (_, rest) = said.split_once("From ")?;
    rest.split([' ', ','])
        .next()?
        .trim_end_matches(':')
        .parse()
        .ok()
}

/// An error from one of the gateway's own addresses.
#[track_caller]
fn from_the_gateway(said: &str) {
    let gateway: [IpAddr; 3] = [
        plan::GATEWAY4.into(),
        plan::GATEWAY6.into(),
        plan::GATEWAY_VTEP.into(),
    ];
    let from = sender(said);
    assert!(
        from.is_some_and(|from| gateway.contains(&from)),
        "sent by {from:?}: {said}"
    );
}

/// Adds VPC `solo`, whose subnets no other VPC has, with two VMs, and links it with the office. The
/// `routes` plane has no VNI for a packet of the gateway's own, so it sends errors to the VMs of
/// linked subnets that one CCSI alone has.
fn add_solo(scene: &mut Scene) -> Result<(), Failure> {
    let records = [
        (
            "vpcs/solo",
            json!({ "vni": 3001, "subnets": ["10.3.0.0/24", "fd00:3::/64"] }),
        ),
        (
            "vms/solo/one",
            json!({ "addrs": ["10.3.0.1", "fd00:3::1"], "mac": "02:00:00:03:00:01",
                    "vtep": "172.16.0.11" }),
        ),
        (
            "vms/solo/two",
            json!({ "addrs": ["10.3.0.2", "fd00:3::2"], "mac": "02:00:00:03:00:02",
                    "vtep": "172.16.0.12" }),
        ),
    ];
    for (key, value) in &records {
        scene.gateway.put(key, value)?;
    }
    for (number, hypervisor) in [(1, 11), (2, 12)] {
        scene.region.add_instance(Instance {
            name: format!("solo-{number}"),
            vni: 3001,
            mac: Mac([2, 0, 0, 3, 0, number]),
            addrs: vec![
                addr(&format!("10.3.0.{number}")),
                addr(&format!("fd00:3::{number}")),
            ],
            vtep: plan::vtep(hypervisor).into(),
        })?;
    }
    scene.link("solo", "office", &OFFICE)?;
    Ok(())
}

#[track_caller]
fn exceeded(what: &str, said: &str) {
    let words = ["Time to live exceeded", "Time exceeded"];
    assert!(
        words.iter().any(|words| said.contains(words)),
        "{what}: {said}"
    );
    from_the_gateway(said);
}

#[track_caller]
fn told_mtu(what: &str, said: &str, mtu: u32) {
    let words = [format!("mtu = {mtu}"), format!("mtu={mtu}")];
    assert!(
        words.iter().any(|words| said.contains(words)),
        "{what}: {said}"
    );
    from_the_gateway(said);
}

#[test]
fn a_packet_that_dies_of_age_is_told_so() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        add_solo(&mut scene)?;
        let (alice, vm) = (
            scene.region.namespace("alice")?,
            scene.region.namespace("solo-1")?,
        );
        for host in scene.region.host("alice")?.addrs().to_vec() {
            // To the linked VPC that shares its addresses with another CCSI, and to the other.
            for name in ["web-1@web", "solo-1"] {
                let inside = same_family(&scene.region.instance(name)?.addrs, host);
                // The router takes the first.
                exceeded("classic host to VM", &ping(&alice, &["-t", "2"], inside)?);
                let said = ping(&alice, &["-t", "3"], inside)?;
                assert!(said.contains(" 1 received"), "{said}");
            }
            exceeded("VM to classic host", &ping(&vm, &["-t", "1"], host)?);
            let said = ping(&vm, &["-t", "3"], host)?;
            assert!(said.contains(" 1 received"), "{said}");
            let other = same_family(&scene.region.instance("solo-2")?.addrs, host);
            exceeded("VM to VM", &ping(&vm, &["-t", "1"], other)?);
            let said = ping(&vm, &["-t", "2"], other)?;
            assert!(said.contains(" 1 received"), "{said}");
        }
        Ok(())
    });
}

#[test]
fn a_packet_too_big_is_told_the_mtu() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        add_solo(&mut scene)?;
        let (alice, vm) = (
            scene.region.namespace("alice")?,
            scene.region.namespace("solo-1")?,
        );
        let hosts = scene.region.host("alice")?.addrs().to_vec();
        let payload =
            |to: IpAddr, size: u32| (size - if to.is_ipv4() { 28 } else { 48 }).to_string();
        // To the VM: the IDC carries 1500, the overlay 1450.
        for host in &hosts {
            for name in ["web-1@web", "solo-1"] {
                let to = same_family(&scene.region.instance(name)?.addrs, *host);
                let said = ping(&alice, &["-M", "do", "-s", &payload(to, 1450)], to)?;
                assert!(said.contains(" 1 received"), "1450 bytes fit: {said}");
                let said = ping(&alice, &["-M", "do", "-s", &payload(to, 1451)], to)?;
                told_mtu("classic host to VM", &said, 1450);
            }
        }
        // From the VM, which sends at most 1450: over an IDC interface that carries less.
        let idc = scene.region.gateway().link("idc0")?.index;
        let lower = Request::change_link(LinkChange::of(idc).mtu(1400));
        scene.region.gateway().batch("lower an MTU", &[lower])?;
        for host in hosts {
            let said = ping(&vm, &["-M", "do", "-s", &payload(host, 1400)], host)?;
            assert!(said.contains(" 1 received"), "1400 bytes fit: {said}");
            let said = ping(&vm, &["-M", "do", "-s", &payload(host, 1401)], host)?;
            told_mtu("VM to classic host", &said, 1400);
        }
        Ok(())
    });
}

#[test]
fn an_error_never_reaches_the_vm_with_the_same_address_in_the_other_ccsi() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let others = Others::watch(&scene)?;
        let leaves = Capture::start(&*scene.region.namespace("gw")?, "u0")?;
        let vm = scene.region.namespace("web-1@web")?;
        for to in [addr("10.80.1.10"), addr("fd80:1::a")] {
            let said = ping(&vm, &["-t", "1"], to)?;
            match scene.is_ebpf() {
                // It knows the VNI of the packet that it answers.
                true => exceeded("VM to classic host", &said),
                // It cannot tell the two apart, so it says nothing rather than to the wrong one.
                false => assert!(
                    said.contains(" 0 received") && sender(&said).is_none(),
                    "{said}"
                ),
            }
        }
        others.saw_nothing();
        let frames = leaves.stop();
        let sent = frames.decoded().filter_map(|(seen, frame)| {
            let (_, vni, inner) = frame.vxlan()?;
            (seen == Direction::Out && inner.ip().is_some()).then_some(vni)
        });
        // Nothing for any hypervisor; or one answer a family, with the VNI of the VM.
        let answers = if scene.is_ebpf() { 2 } else { 0 };
        assert_eq!(sent.collect::<Vec<_>>(), vec![1001; answers]);
        Ok(())
    });
}
