//! Between VMs: in one VPC, between VPCs of a CCSI, and never into the other CCSI.

use interop::capture::{Capture, Direction};
use interop::enter;
use interop::scene::Scene;
use interop::topology::plan;
use interop::traffic::numbered::{self, Origin, Receiver};
use serde_json::Value;

use super::{OnTheWire, all_are, at, mac_of, same_family, vxlan};

const COUNT: u64 = 500;

#[test]
fn vms_of_a_ccsi_reach_each_other_with_the_vni_of_the_destination() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        let gateway_mac = scene.region.gateway_address().mac;
        let gateway = scene.region.namespace("gw")?;
        let gateway_outer = mac_of(scene.region.gateway(), "u0")?;
        // In both CCSIs, which have the same addresses: same VPC on another host, another VPC on
        // another host, another VPC on the same host.
        let pairs = [
            ("web-1@web", "web-2@web"),
            ("web-1@web", "db-1@db"),
            ("web-2@web", "db-1@db"),
            ("db-1@db", "web-1@web"),
            ("web-1@web-test", "web-2@web-test"),
            ("web-1@web-test", "db-1@db-test"),
            ("web-2@web-test", "db-1@db-test"),
        ];
        for (from, to) in pairs {
            let (source, target) = (
                scene.region.instance(from)?.clone(),
                scene.region.instance(to)?.clone(),
            );
            for src in source.addrs.clone() {
                let dst = same_family(&target.addrs, src);
                let explained = scene.explain(src, dst, Some(source.vni))?;
                let verdict = &explained["verdict"];
                assert_eq!(verdict["action"], "encapsulate", "{explained}");
                assert_eq!(verdict["vni"], Value::from(target.vni), "{explained}");

                let hypervisor = scene.region.hypervisor(target.vtep)?;
                let hypervisor_outer = mac_of(hypervisor.node(), "u0")?;
                let receiver = Receiver::open(&*scene.region.namespace(to)?, at(dst))?;
                let underlay = Capture::start(&gateway, "u0")?;
                let origin = scene.region.namespace(from)?;
                let report =
                    numbered::send(&Origin::new(&origin).from(src), at(dst), &receiver, COUNT)?;
                println!("{from} {src} to {to} {dst}: {report}");
                assert!(report.is_perfect(), "{report}");
                assert_eq!(receiver.total(), COUNT);

                let frames = underlay.stop();
                let arriving = vxlan(&frames, Direction::In);
                assert_eq!(arriving.len(), COUNT as usize);
                assert!(arriving.iter().all(|p| p.vni == source.vni && p.ttl == 64));
                let expected = OnTheWire {
                    macs: [gateway_outer, hypervisor_outer],
                    vteps: [plan::GATEWAY_VTEP.into(), target.vtep],
                    vni: target.vni,
                    inner_macs: [gateway_mac, target.mac],
                    addrs: [src, dst],
                    ttl: 63,
                };
                // All that leaves: so no packet left with another VNI or to another host.
                let leaving = vxlan(&frames, Direction::Out);
                all_are("re-encapsulated", &leaving, &expected, COUNT as usize);
            }
        }
        assert!(
            scene.drops()?.values().all(|dropped| *dropped == 0),
            "{:?}",
            scene.drops()?
        );
        Ok(())
    });
}
