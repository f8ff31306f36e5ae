//! What the gateway tells senders: time exceeded, and the MTU of a packet that is too big.

use std::net::IpAddr;
use std::time::Duration;

use interop::enter;
use interop::process::Launch;
use interop::scene::{OFFICE, Scene};
use interop::topology::plan;
use netlink::{LinkChange, Namespace, Request};

use super::{Failure, addr, same_family};

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

#[test]
fn a_packet_that_dies_of_age_is_told_so() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let (alice, vm) = (
            scene.region.namespace("alice")?,
            scene.region.namespace("web-1@web")?,
        );
        for host in scene.region.host("alice")?.addrs().to_vec() {
            let inside = same_family(&scene.region.instance("web-1@web")?.addrs, host);
            // The router takes the first.
            let said = ping(&alice, &["-t", "2"], inside)?;
            let exceeded = said.contains("Time to live exceeded") || said.contains("Time exceeded");
            assert!(exceeded, "classic host to VM: {said}");
            from_the_gateway(&said);
            let said = ping(&alice, &["-t", "3"], inside)?;
            assert!(said.contains(" 1 received"), "{said}");

            let said = ping(&vm, &["-t", "1"], host)?;
            let exceeded = said.contains("Time to live exceeded") || said.contains("Time exceeded");
            assert!(exceeded, "VM to classic host: {said}");
            from_the_gateway(&said);

            // To another VM of the CCSI.
            let other = same_family(&scene.region.instance("db-1@db")?.addrs, host);
            let said = ping(&vm, &["-t", "1"], other)?;
            let exceeded = said.contains("Time to live exceeded") || said.contains("Time exceeded");
            assert!(exceeded, "VM to VM: {said}");
            from_the_gateway(&said);
        }
        Ok(())
    });
}

#[test]
fn a_packet_too_big_is_told_the_mtu() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let (alice, vm) = (
            scene.region.namespace("alice")?,
            scene.region.namespace("web-1@web")?,
        );
        let told = |said: &str, mtu: u32| {
            let (v4, v6) = (format!("mtu = {mtu}"), format!("mtu={mtu}"));
            said.contains(&v4) || said.contains(&v6)
        };
        // To the VM: the IDC carries 1500, the overlay 1450.
        for host in scene.region.host("alice")?.addrs().to_vec() {
            let inside = same_family(&scene.region.instance("web-1@web")?.addrs, host);
            let headers = if host.is_ipv4() { 28 } else { 48 };
            let fits = (1450 - headers).to_string();
            let said = ping(&alice, &["-M", "do", "-s", &fits], inside)?;
            assert!(said.contains(" 1 received"), "1450 bytes fit: {said}");
            let too_big = (1451 - headers).to_string();
            let said = ping(&alice, &["-M", "do", "-s", &too_big], inside)?;
            assert!(told(&said, 1450), "classic host to VM: {said}");
            from_the_gateway(&said);
        }
        // From the VM: as large as instances send, over an IDC interface that carries less.
        let idc = scene.region.gateway().link("idc0")?.index;
        scene.region.gateway().batch(
            "lower an MTU",
            &[Request::change_link(LinkChange::of(idc).mtu(1400))],
        )?;
        for host in scene.region.host("alice")?.addrs().to_vec() {
            let headers = if host.is_ipv4() { 28 } else { 48 };
            let said = ping(
                &vm,
                &["-M", "do", "-s", &(1400 - headers).to_string()],
                host,
            )?;
            assert!(said.contains(" 1 received"), "1400 bytes fit: {said}");
            let said = ping(
                &vm,
                &["-M", "do", "-s", &(1401 - headers).to_string()],
                host,
            )?;
            assert!(told(&said, 1400), "VM to classic host: {said}");
            from_the_gateway(&said);
        }
        Ok(())
    });
}

#[test]
fn a_vm_of_the_other_ccsi_is_told_nothing_of_ours() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        // Both CCSIs have this address; the error must go to the one that sent.
        let capture =
            interop::capture::Capture::start(&*scene.region.namespace("web-1@web-test")?, "eth0")?;
        let vm = scene.region.namespace("web-1@web")?;
        for to in [addr("10.80.1.10"), addr("fd80:1::a")] {
            let said = ping(&vm, &["-t", "1"], to)?;
            from_the_gateway(&said);
        }
        let frames = capture.stop();
        let ip = frames
            .decoded()
            .filter(|(_, frame)| frame.ip().is_some())
            .count();
        assert_eq!(
            ip, 0,
            "packets at the VM with the same address in the other CCSI"
        );
        Ok(())
    });
}
