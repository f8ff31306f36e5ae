//! Between a classic host and a VM, both ways.

use std::net::IpAddr;

use interop::capture::{Capture, Direction};
use interop::enter::{self, Lab, Outcome};
use interop::scene::{OFFICE, Scene};
use interop::topology::plan;
use interop::traffic::numbered::{self, Origin, Receiver};

use super::{OTHER_VNIS, OnTheWire, Others, all_are, at, mac_of, plain, same_family, vxlan};

const COUNT: u64 = 10_000;

#[test]
fn ten_thousand_packets_each_way_ipv4() {
    enter::test(|lab| ten_thousand_each_way(lab, 0));
}

#[test]
fn ten_thousand_packets_each_way_ipv6() {
    enter::test(|lab| ten_thousand_each_way(lab, 1));
}

fn ten_thousand_each_way(lab: &Lab, family: usize) -> Outcome {
    let mut scene = Scene::start(lab, 1)?;
    scene.link("web", "office", &OFFICE)?;
    let vm = scene.region.instance("web-1@web")?.clone();
    let host = scene.region.host("alice")?.addrs()[family];
    let inside = same_family(&vm.addrs, host);
    let gateway_mac = scene.region.gateway_address().mac;
    let gateway_outer = mac_of(scene.region.gateway(), "u0")?;
    let hypervisor = scene.region.hypervisor(vm.vtep)?;
    let hypervisor_outer = mac_of(hypervisor.node(), "u0")?;
    let vteps: [IpAddr; 2] = [plan::GATEWAY_VTEP.into(), vm.vtep];

    let hypervisor = scene.region.hypervisor(vm.vtep)?.namespace().clone();
    let gateway = scene.region.namespace("gw")?;
    let (alice, web) = (
        scene.region.namespace("alice")?,
        scene.region.namespace("web-1@web")?,
    );
    let at_vm = Receiver::open(&web, at(inside))?;
    let at_host = Receiver::open(&alice, at(host))?;
    let before = scene.drops()?;
    let others = Others::watch(&scene)?;
    let underlay = Capture::start(&hypervisor, "u0")?;
    let all_underlay = Capture::start(&gateway, "u0")?;
    let idc = Capture::start(&gateway, "idc0")?;

    let to_vm = numbered::send(&Origin::new(&alice), at(inside), &at_vm, COUNT)?;
    println!("classic host to VM: {to_vm}");
    let to_host = numbered::send(&Origin::new(&web).from(inside), at(host), &at_host, COUNT)?;
    println!("VM to classic host: {to_host}");
    assert!(to_vm.is_perfect() && to_vm.reordered == 0, "{to_vm}");
    assert!(to_host.is_perfect() && to_host.reordered == 0, "{to_host}");
    assert_eq!((at_vm.total(), at_host.total()), (COUNT, COUNT));
    assert_eq!(
        to_vm.sources.iter().map(|s| s.ip()).collect::<Vec<_>>(),
        [host]
    );
    assert_eq!(
        to_host.sources.iter().map(|s| s.ip()).collect::<Vec<_>>(),
        [inside]
    );

    let [underlay, all_underlay, idc] = [underlay, all_underlay, idc].map(Capture::stop);
    for frames in [&underlay, &all_underlay, &idc] {
        assert_eq!((frames.missed, frames.undecodable().count()), (0, 0));
    }
    // The host sends with TTL 64 and its router takes one; the gateway takes one more.
    let arriving = ([host, inside], 63);
    all_are(
        "on the IDC side, in",
        &plain(&idc, Direction::In),
        &arriving,
        COUNT as usize,
    );
    let expected = OnTheWire {
        macs: [gateway_outer, hypervisor_outer],
        vteps,
        vni: vm.vni,
        inner_macs: [gateway_mac, vm.mac],
        addrs: [host, inside],
        ttl: 62,
    };
    let seen = vxlan(&underlay, Direction::In);
    all_are(
        "on the hypervisor's underlay, in",
        &seen,
        &expected,
        COUNT as usize,
    );
    let expected = OnTheWire {
        macs: [hypervisor_outer, gateway_outer],
        vteps: [vteps[1], vteps[0]],
        vni: vm.vni,
        inner_macs: [vm.mac, gateway_mac],
        addrs: [inside, host],
        ttl: 64,
    };
    let seen = vxlan(&underlay, Direction::Out);
    all_are(
        "on the hypervisor's underlay, out",
        &seen,
        &expected,
        COUNT as usize,
    );
    let leaving = ([inside, host], 63);
    all_are(
        "on the IDC side, out",
        &plain(&idc, Direction::Out),
        &leaving,
        COUNT as usize,
    );

    let vnis = all_underlay
        .decoded()
        .filter_map(|(_, frame)| Some(frame.vxlan()?.1));
    let foreign = vnis
        .filter(|vni| OTHER_VNIS.contains(vni) || *vni != vm.vni)
        .count();
    assert_eq!(
        foreign, 0,
        "packets with the VNI of another VPC on the underlay"
    );
    others.saw_nothing();
    assert_eq!(scene.drops()?, before, "nothing was dropped");
    Ok(())
}
