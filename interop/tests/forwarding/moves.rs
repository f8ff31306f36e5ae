//! A VM that moves to another host: its record changes, and its packets follow.

use interop::capture::{Capture, Direction, Frames};
use interop::enter;
use interop::scene::{OFFICE, Scene};
use interop::topology::{Instance, plan};
use interop::traffic::numbered::{Flow, Origin, Receiver};
use interop::wait::eventually;
use serde_json::json;

use super::{PORT, SOON, at, await_frames, same_family, vxlan};

#[test]
fn a_vm_that_moves_is_followed_within_one_update() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let old = scene.region.instance("web-1@web")?.clone();
        // Live migration: the VM is ready on its new host when the record changes.
        let name = "web-1@web, moved".to_owned();
        let new = Instance {
            name: name.clone(),
            vtep: plan::vtep(13).into(),
            ..old.clone()
        };
        scene.region.add_instance(new.clone())?;
        let alice = scene.region.namespace("alice")?;
        for (family, dst) in old.addrs.clone().into_iter().enumerate() {
            let (from, to) = if family == 0 {
                (&old, &new)
            } else {
                (&new, &old)
            };
            let before = Receiver::open(&*scene.region.namespace(&from.name)?, at(dst))?;
            let after = Receiver::open(&*scene.region.namespace(&to.name)?, at(dst))?;
            let leaves = Capture::start(&*scene.region.namespace("gw")?, "u0")?;
            let host = same_family(scene.region.host("alice")?.addrs(), dst);
            let flow = Flow::start(&Origin::new(&alice).from(host), at(dst), 2000)?;
            eventually("the flow runs", SOON, || match before.total() {
                seen if seen >= 500 => Ok(()),
                seen => Err(seen),
            })?;
            let generation = scene.gateway.json(["status"])?["generation"].as_u64();
            let record = json!({ "addrs": old.addrs, "mac": old.mac.to_string(), "vtep": to.vtep });
            scene.gateway.put("vms/web/web-1", &record)?;
            let status = scene.gateway.await_settled(SOON)?;
            assert_eq!(
                status["generation"].as_u64(),
                generation.map(|g| g + 1),
                "one update"
            );
            // Acknowledged: not one more goes to the old host.
            let to_old = |frames: &Frames| {
                let packets = vxlan(frames, Direction::Out);
                packets.iter().filter(|p| p.vteps[1] == from.vtep).count()
            };
            let to_new = |frames: &Frames| {
                let packets = vxlan(frames, Direction::Out);
                packets.iter().filter(|p| p.vteps[1] == to.vtep).count()
            };
            await_frames(&leaves, to_new, 1)?;
            let settled = leaves.so_far();
            let (old_then, new_then) = (to_old(&settled), to_new(&settled));
            await_frames(&leaves, to_new, new_then + 500)?;
            let sent_to_old = to_old(&leaves.so_far());
            assert_eq!(
                sent_to_old, old_then,
                "the old host gets nothing after the update"
            );
            // Whichever of the two it went to, no packet is lost, since a route is replaced in place.
            let sent = flow.sent();
            assert!(sent > 1000);
            let report = flow.stop(&after);
            let arrived = before.total() + after.total();
            println!(
                "to {dst}: {} sent, {} at the old host, {} at the new, {} lost; port {PORT}",
                report.sent,
                before.total(),
                after.total(),
                report.sent - arrived
            );
            assert_eq!(arrived, report.sent, "packets lost in the move");
        }
        Ok(())
    });
}
