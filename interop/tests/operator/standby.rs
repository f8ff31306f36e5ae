//! Links that stand by behind another one, and take over when that goes.

use std::net::SocketAddr;

use bgp::Family;
use interop::enter;
use interop::scene::{OFFICE, Scene, WEB, nets};
use interop::traffic::numbered::{Flow, Origin, Receiver};
use interop::wait::eventually;
use serde_json::{Value, json};

use super::{Failure, SOON};

/// An address that web-1 has in both VPCs, and a port there.
const WEB_1: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 11)),
    7000,
);

fn link(scene: &Scene, id: &str) -> Result<Value, Failure> {
    let links = scene.gateway.json(["links"])?;
    let link = links.as_array().into_iter().flatten();
    let mut link = link.filter(|link| link["link"] == id);
    Ok(link.next().cloned().unwrap_or_default())
}

/// Waits until a link is announced and the router has its subnets.
fn await_announced(scene: &mut Scene, id: &str) -> Result<(), Failure> {
    eventually(format!("{id} is announced"), SOON, || {
        match link(scene, id) {
            Ok(link) if link["state"] == "announced" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    scene.await_path(&nets(&WEB)?, &nets(&OFFICE)?)?;
    Ok(())
}

/// Waits until this one has got so many packets more.
fn await_more(what: &str, receiver: &Receiver, more: u64) -> Result<(), Failure> {
    let before = receiver.total();
    eventually(format!("{what} gets packets"), SOON, || {
        match receiver.total() - before {
            got if got >= more => Ok(()),
            got => Err(got),
        }
    })?;
    Ok(())
}

#[test]
fn a_standby_takes_over_when_the_link_in_its_way_goes_and_makes_way_for_one_that_is_none() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let order = ["link", "web-test", "--classic", "office"];
        let refused = scene.gateway.finish(order)?;
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let names = [
            "links/web-test: vpc: subnet 10.1.0.0/24 of VPC web-test",
            "10.1.0.0/24 of VPC web, which is linked by links/web",
            "--standby",
        ];
        for name in names {
            assert!(refused.stderr.contains(name), "{name:?}: {refused:?}");
        }

        let linked = scene.kernel()?;
        let rehearsed = order.iter().chain(&["--standby", "--dry-run"]);
        let said = scene.gateway.ccn(rehearsed)?;
        assert!(said.contains("would link web-test"), "{said}");
        assert!(said.contains("stands by behind links/web: "), "{said}");
        let said = scene.gateway.ccn(order.iter().chain(&["--standby"]))?;
        assert!(said.contains("stands by behind links/web: "), "{said}");
        scene.gateway.await_settled(SOON)?;
        let standby = link(&scene, "web-test")?;
        let fields = ["state", "behind", "standby", "announced"];
        assert_eq!(
            fields.map(|field| standby[field].clone()),
            [json!("standby"), json!("web"), json!(true), json!([])],
            "{standby}"
        );
        assert_eq!(scene.gateway.json(["quarantine"])?, json!([]));
        let status = scene.gateway.json(["status"])?;
        assert_eq!(
            status["links"],
            json!({"total": 1, "announced": 1, "standby": 1})
        );
        assert_eq!(
            linked.difference(&scene.kernel()?),
            "",
            "nothing of it is there"
        );

        // Its instances are reached by nobody, and then in the place of the others.
        let alice = scene.region.namespace("alice")?;
        let first = Receiver::open(&*scene.region.namespace("web-1@web")?, WEB_1)?;
        let second = Receiver::open(&*scene.region.namespace("web-1@web-test")?, WEB_1)?;
        let flow = Flow::start(&Origin::new(&alice), WEB_1, 500)?;
        await_more("web", &first, 200)?;
        assert_eq!(second.total(), 0, "web-test stands by");
        scene.gateway.ccn(["unlink", "web"])?;
        // What was on its way when the order was acknowledged has arrived when the next one has.
        await_more("web-test", &second, 1)?;
        let at_web = first.total();
        await_announced(&mut scene, "web-test")?;
        await_more("web-test", &second, 200)?;
        assert_eq!(first.total(), at_web, "nothing forwards after the unlink");

        // Also one that was ordered later; and the agent that starts again sees it no other way.
        let rehearsed = ["link", "web", "--classic", "office", "--dry-run"];
        let said = scene.gateway.ccn(rehearsed)?;
        assert!(said.contains("links/web-test makes way"), "{said}");
        let said = scene.gateway.ccn(["link", "web", "--classic", "office"])?;
        assert!(said.contains("linked web with office as web: "), "{said}");
        await_announced(&mut scene, "web")?;
        await_more("web", &first, 200)?;
        scene.gateway.kill()?;
        scene.gateway.start()?;
        scene.gateway.await_settled(SOON)?;
        assert_eq!(link(&scene, "web-test")?["state"], "standby");
        assert_eq!(linked.difference(&scene.kernel()?), "");
        let report = flow.stop(&first);
        let (at_web, at_test) = (first.total(), second.total());
        println!(
            "{} sent, {at_web} at web, {at_test} at web-test, longest gap {} ms",
            report.sent,
            report.longest_gap.as_millis()
        );
        assert_eq!(
            at_web + at_test,
            report.sent,
            "each went to one or the other"
        );

        // Out of service a link keeps its place, and one that stands by can be disabled as well.
        scene.gateway.ccn(["disable", "web"])?;
        assert_eq!(link(&scene, "web-test")?["state"], "standby");
        scene.gateway.ccn(["disable", "web-test"])?;
        assert_eq!(link(&scene, "web-test")?["state"], "disabled");
        let said = scene.gateway.ccn(["enable", "web-test"])?;
        assert!(
            said.contains("enabled web-test, which stands by behind links/web"),
            "{said}"
        );
        scene.gateway.ccn(["unlink", "web"])?;
        await_announced(&mut scene, "web-test")?;
        scene.gateway.ccn(["unlink", "web-test"])?;
        assert_eq!(scene.gateway.json(["links"])?, json!([]));
        Ok(())
    });
}

#[test]
fn a_prefix_linked_twice_goes_over_to_the_second_link_without_losing_a_packet() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let linked = scene.kernel()?;
        let order = [
            "link",
            "web",
            "--classic",
            "office",
            "--name",
            "spare",
            "--standby",
        ];
        let said = scene.gateway.ccn(order)?;
        assert!(
            said.contains("stands by behind links/web: classic[0]: 10.80.1.0/24 is already linked with VPC web"),
            "{said}"
        );
        let alice = scene.region.namespace("alice")?;
        let receiver = Receiver::open(&*scene.region.namespace("web-1@web")?, WEB_1)?;
        let flow = Flow::start(&Origin::new(&alice), WEB_1, 500)?;
        await_more("web", &receiver, 200)?;
        scene.gateway.ccn(["unlink", "web"])?;
        await_announced(&mut scene, "spare")?;
        await_more("web", &receiver, 200)?;
        let report = flow.stop(&receiver);
        println!("over the change of links: {report}");
        assert!(report.is_perfect(), "{report}");
        let routes = scene.routers[0].routes(Family::Ipv4Unicast)?;
        let web = nets(&WEB)?[0];
        assert!(routes.iter().any(|route| route.prefix == web));
        if !scene.is_ebpf() {
            // The same objects, whichever link it is; the other plane counts links by their numbers.
            assert_eq!(linked.difference(&scene.kernel()?), "");
        }
        Ok(())
    });
}
