//! Orders that are refused: link and unlink, and an agent that does not answer in time or at all.

use interop::enter;
use interop::gateway::GatewayConfig;
use interop::process::Finished;
use interop::scene::Scene;
use interop::wait::eventually;
use serde_json::{Value, json};

use super::{Failure, Refusal, SOON, World, linked};

/// A command line, its exit code, and what the refusal names.
type Case = (
    &'static str,
    &'static [&'static str],
    i32,
    &'static [&'static str],
);

const CASES: [Case; 19] = [
    (
        "unknown VPC",
        &["link", "nowhere", "--classic", "office"],
        1,
        &["links/nowhere: vpc: ", "VPC nowhere is unknown"],
    ),
    (
        "link twice",
        &["link", "web", "--classic", "office"],
        1,
        &[
            "links/web-2: classic[0]: ",
            "10.80.1.0/24 is already linked with VPC web by links/web",
        ],
    ),
    (
        "a part of it twice",
        &["link", "web", "--classic", "lab", "fd80:1::/64"],
        1,
        &["links/web-2: classic[1]: ", "fd80:1::/64 is already linked"],
    ),
    (
        "name taken",
        &["link", "db", "--classic", "lab", "--name", "web"],
        1,
        &["links/web: name: "],
    ),
    (
        "unknown classic network",
        &["link", "db", "--classic", "garden"],
        1,
        &["links/db: classic[0]: ", "garden is unknown"],
    ),
    (
        "classic prefix overlaps a linked VPC",
        &["link", "db", "--classic", "lab", "10.1.0.0/25"],
        1,
        &[
            "links/db: classic[1]: ",
            "overlaps subnet 10.1.0.0/24 of VPC web",
        ],
    ),
    (
        "classic prefix overlaps its own VPC",
        &["link", "db", "--classic", "10.0.0.0/8"],
        1,
        &["links/db: classic[0]: ", "overlaps subnet"],
    ),
    (
        "the linked VPC's addresses are announced already",
        &["link", "web-test", "--classic", "lab"],
        1,
        &[
            "links/web-test: vpc: ",
            "subnet 10.1.0.0/24 of VPC web-test overlaps 10.1.0.0/24 of VPC web",
            "linked by links/web, and only one of them can be announced",
            "--standby",
        ],
    ),
    (
        "a mode that the plane cannot serve",
        &["link", "db", "--classic", "lab", "--mode", "classic-to-vpc"],
        1,
        &["links/db: mode: ", "needs flow state"],
    ),
    (
        "a DSCP that the plane cannot set",
        &["link", "db", "--classic", "lab", "--dscp", "10"],
        1,
        &["links/db: dscp: "],
    ),
    (
        "unlink unknown",
        &["unlink", "nowhere"],
        1,
        &["no link nowhere", "ccn links"],
    ),
    (
        "CIDR with host bits",
        &["link", "db", "--classic", "10.80.2.1/24"],
        2,
        &["10.80.2.1/24"],
    ),
    ("no classic side", &["link", "db"], 2, &["--classic"]),
    (
        "a name that is none",
        &["link", "d b", "--classic", "lab"],
        2,
        &["d b"],
    ),
    (
        "an unknown mode",
        &["link", "db", "--classic", "lab", "--mode", "up"],
        2,
        &["--mode", "up"],
    ),
    (
        "a DSCP out of range",
        &["link", "db", "--classic", "lab", "--dscp", "64"],
        2,
        &["--dscp", "64"],
    ),
    (
        "a time that is none",
        &["unlink", "web", "--wait", "soon"],
        2,
        &["--wait", "soon"],
    ),
    (
        "two families",
        &["explain", "10.80.1.10", "fd00:1::11"],
        1,
        &["different families"],
    ),
    (
        "an ambiguous source",
        &["explain", "10.1.0.11", "10.1.1.21"],
        1,
        &["10.1.0.11", "VNI 1001", "VNI 2001", "--vni"],
    ),
];

#[test]
fn orders_are_refused_with_field_and_reason_and_change_nothing() {
    enter::test(|lab| {
        let mut scene = linked(lab)?;
        let before = World::of(&mut scene)?;
        for (what, args, code, names) in CASES {
            Refusal { code, names }.is(what, &scene.gateway.finish(args)?);
        }
        // A rehearsal says the same as the order would, and does nothing either.
        let rehearsal = ["link", "web", "--classic", "office", "--dry-run"];
        let names = &["links/web-2: classic[0]: ", "already linked"];
        Refusal { code: 1, names }.is("rehearsal", &scene.gateway.finish(rehearsal)?);
        let said = scene
            .gateway
            .ccn(["link", "db", "--classic", "lab", "--dry-run"])?;
        assert!(said.contains("would link db"), "{said}");
        assert_eq!(World::of(&mut scene)?, before);
        Ok(())
    });
}

#[test]
fn an_order_that_takes_longer_than_it_may_goes_on() {
    enter::test(|lab| {
        let drain = |config: &mut GatewayConfig| config.bgp.drain_ms = 1500;
        let scene = Scene::start_alone(lab, drain)?;
        scene.gateway.ccn(["link", "db", "--classic", "lab"])?;
        let finished = scene.gateway.finish(["unlink", "db", "--wait", "50ms"])?;
        let names = &["link db is stored but not done after 50 ms", "ccn links"];
        Refusal { code: 4, names }.is("unlink", &finished);
        let links = || -> Result<Value, Failure> { Ok(scene.gateway.json(["links"])?) };
        let removing = links()?;
        println!("meanwhile: {removing}");
        let fields = ["link", "vpc", "classic", "state"].map(|field| removing[0][field].clone());
        assert_eq!(
            fields,
            [
                json!("db"),
                json!("db"),
                json!(["10.80.2.0/24"]),
                json!("removing")
            ]
        );
        eventually("the link goes", SOON, || {
            match scene.gateway.json(["status"]) {
                Ok(status) if status["links"]["total"] == 0 && status["settled"] == true => Ok(()),
                Ok(status) => Err(status.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })?;
        assert_eq!(links()?, json!([]));
        // Nothing of it is in the way of the next one.
        scene.gateway.ccn(["link", "db", "--classic", "lab"])?;
        Ok(())
    });
}

#[test]
fn an_agent_out_of_reach_is_told_with_its_socket() {
    enter::test(|lab| {
        let mut scene = linked(lab)?;
        let kernel = scene.kernel()?;
        let socket = scene.gateway.config.admin_socket.display().to_string();
        let ask =
            |scene: &Scene| -> Result<Finished, Failure> { Ok(scene.gateway.finish(["status"])?) };
        let elsewhere = scene
            .gateway
            .finish(["status", "--socket", "/run/none.sock"])?;
        Refusal {
            code: 3,
            names: &["/run/none.sock", "is `ccn agent` running?"],
        }
        .is("no such socket", &elsewhere);
        // Killed, it leaves its socket behind; asked to end, it does not.
        scene.gateway.kill()?;
        Refusal {
            code: 3,
            names: &[&socket, "nobody listens"],
        }
        .is("killed", &ask(&scene)?);
        scene.gateway.start()?;
        scene.gateway.stop()?;
        Refusal {
            code: 3,
            names: &[&socket, "no such socket"],
        }
        .is("stopped", &ask(&scene)?);
        assert_eq!(scene.kernel()?, kernel);
        Ok(())
    });
}
