//! Links before and after: what one would come to, and one that is taken out of service and back.

use interop::enter;
use interop::scene::{OFFICE, Scene, WEB, nets};
use interop::wait::eventually;
use serde_json::{Value, json};

use super::{Failure, SOON};

/// The state of the only link.
fn state(scene: &Scene) -> Result<Value, Failure> {
    let links = scene.gateway.json(["links"])?;
    assert_eq!(links.as_array().map(Vec::len), Some(1), "{links}");
    Ok(links[0]["state"].clone())
}

#[test]
fn a_rehearsal_says_what_is_announced_programmed_and_used_up() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let before = scene.kernel()?;
        let order = ["link", "db", "--classic", "lab", "--dry-run"];
        let plan = scene.gateway.json(order)?;
        assert_eq!(plan["state"], "planned", "{plan}");
        let route = |family: &str, prefix: &str| json!({"family": family, "prefix": prefix, "announced": false, "peers": ["bird-1"]});
        assert_eq!(plan["announce"], json!([route("ipv4", "10.1.1.0/24")]));
        assert_eq!(
            (&plan["permits"], &plan["permits_removed"]),
            (&json!(1), &json!(0))
        );
        assert!(
            plan["kernel"]
                .as_object()
                .is_some_and(|kinds| !kinds.is_empty()),
            "{plan}"
        );
        let limits = scene.gateway.json(["limits"])?;
        let limit = |name: &Value| {
            let mut limits = limits.as_array().into_iter().flatten();
            limits.find(|limit| limit["name"] == *name).cloned()
        };
        for change in plan["limits"].as_array().into_iter().flatten() {
            let now = limit(&change["name"]).ok_or_else(|| format!("no limit {change}"))?;
            assert_eq!(
                (&now["used"], &now["max"]),
                (&change["before"], &change["max"])
            );
            assert!(
                change["after"].as_u64() >= change["before"].as_u64(),
                "{change}"
            );
        }
        let said = scene.gateway.ccn(order)?;
        for part in [
            "would link db",
            "ipv4 10.1.1.0/24 to bird-1",
            "permits +1 -0: ",
        ] {
            assert!(said.contains(part), "{said}");
        }
        // A second link of a VPC announces nothing new.
        let second = scene
            .gateway
            .ccn(["link", "web", "--classic", "lab", "--dry-run"])?;
        assert!(second.contains("10.1.0.0/24 announced already"), "{second}");
        assert_eq!(scene.kernel()?, before);
        assert_eq!(state(&scene)?, "announced");
        Ok(())
    });
}

#[test]
fn a_disabled_link_forwards_nothing_and_comes_back() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        let before = scene.kernel()?;
        scene.link("web", "office", &OFFICE)?;
        let linked = scene.kernel()?;
        let said = scene.gateway.ccn(["disable", "web"])?;
        assert!(said.contains("disabled web"), "{said}");
        assert_eq!(state(&scene)?, "disabled");
        assert_eq!(scene.kernel()?, before, "all of it is out of the plane");
        let gone = |scene: &Scene| -> Result<bool, Failure> {
            let routes = scene.routers[0].routes(bgp::Family::Ipv4Unicast)?;
            let web = nets(&WEB)?[0];
            Ok(!routes.iter().any(|route| route.prefix == web))
        };
        eventually("the router has not got it", SOON, || match gone(&scene) {
            Ok(true) => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        // It keeps its place, and is what it is after a crash; asking again changes nothing.
        let other = scene
            .gateway
            .finish(["link", "web", "--classic", "office"])?;
        assert_eq!(other.status.code(), Some(1), "{other:?}");
        scene.gateway.kill()?;
        scene.gateway.start()?;
        scene.gateway.await_settled(SOON)?;
        assert_eq!(state(&scene)?, "disabled");
        scene.gateway.ccn(["disable", "web"])?;
        let said = scene.gateway.ccn(["enable", "web"])?;
        assert!(said.contains("enabled web: 10.1.0.0/24"), "{said}");
        assert_eq!(state(&scene)?, "announced");
        scene.await_path(&nets(&WEB)?, &nets(&OFFICE)?)?;
        assert_eq!(scene.kernel()?, linked);
        scene.gateway.ccn(["disable", "web"])?;
        scene.gateway.ccn(["unlink", "web"])?;
        assert_eq!(scene.gateway.json(["links"])?, json!([]));
        let unknown = scene.gateway.finish(["disable", "web"])?;
        assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
        Ok(())
    });
}

#[test]
fn what_nobody_confirms_is_undone_also_over_a_restart() {
    enter::test(|lab| {
        let mut scene = Scene::start_alone(lab, |config| config.bgp.drain_ms = 10)?;
        let none = scene.kernel()?;
        let links =
            |scene: &Scene| -> Result<Value, Failure> { Ok(scene.gateway.json(["links"])?) };
        let becomes = |scene: &Scene, what: &str, wanted: &Value| {
            eventually(what, SOON, || match links(scene) {
                Ok(links)
                    if links[0]["state"] == *wanted && links[0]["undone_in_s"] == json!(null) =>
                {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            })
        };
        // A link that nobody confirms, and an agent that is not there when its time is over.
        let said = scene
            .gateway
            .ccn(["link", "web", "--classic", "office", "--confirm", "2s"])?;
        assert!(said.contains("unless confirmed: ccn confirm web"), "{said}");
        assert_ne!(scene.kernel()?, none);
        let table = scene.gateway.ccn(["links"])?;
        assert!(table.contains("s unless confirmed"), "{table}");
        scene.gateway.kill()?;
        scene.gateway.start()?;
        eventually("the link goes", SOON, || match links(&scene) {
            Ok(links) if links == json!([]) => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        assert_eq!(none.difference(&scene.kernel()?), "");
        // One that is confirmed stays; then each change of it, undone by the clock.
        let order = ["link", "web", "--classic", "office", "--confirm", "1h"];
        let link = scene.gateway.json(order)?;
        assert!(link["undone_in_s"].as_u64() > Some(3500), "{link}");
        let refused = scene.gateway.finish(["disable", "web"])?;
        assert_eq!(refused.status.code(), Some(1));
        assert!(refused.stderr.contains("ccn confirm web"), "{refused:?}");
        scene.gateway.ccn(["confirm", "web"])?;
        becomes(&scene, "it stays", &json!("announced"))?;
        let again = scene.gateway.finish(["confirm", "web"])?;
        assert_eq!(again.status.code(), Some(1));
        for verb in ["disable", "unlink"] {
            let link = scene.gateway.json([verb, "web", "--confirm", "1s"])?;
            assert_eq!(link["state"], "disabled", "{link}");
            becomes(&scene, "it comes back", &json!("announced"))?;
        }
        scene.gateway.ccn(["unlink", "web", "--confirm", "1h"])?;
        scene.gateway.ccn(["confirm", "web"])?;
        assert_eq!(links(&scene)?, json!([]));
        Ok(())
    });
}

#[test]
fn an_undo_goes_back_and_the_next_one_forth() {
    enter::test(|lab| {
        let mut scene = Scene::start_alone(lab, |config| config.bgp.drain_ms = 10)?;
        let none = scene.kernel()?;
        scene.gateway.ccn(["link", "web", "--classic", "office"])?;
        scene.gateway.ccn(["disable", "web"])?;
        let plan = scene.gateway.json(["undo", "web", "--dry-run"])?;
        assert_eq!(plan["announce"][0]["prefix"], "10.1.0.0/24", "{plan}");
        assert_eq!(state(&scene)?, "disabled");
        for after in ["announced", "disabled", "announced"] {
            scene.gateway.ccn(["undo", "web"])?;
            assert_eq!(state(&scene)?, after);
        }
        scene.gateway.ccn(["link", "db", "--classic", "lab"])?;
        let plan = scene.gateway.json(["undo", "db", "--dry-run"])?;
        assert_eq!(
            (&plan["withdraw"], &plan["permits_removed"]),
            (&json!(["10.1.1.0/24"]), &json!(1))
        );
        let gone = scene.gateway.json(["undo", "db"])?;
        assert_eq!(gone, json!({"link": "db", "state": "removed"}));
        assert_eq!(state(&scene)?, "announced");
        scene.gateway.ccn(["unlink", "web"])?;
        assert_eq!(none.difference(&scene.kernel()?), "");
        // What is not made by `ccn` has no step back.
        scene
            .gateway
            .put("links/web", &json!({"vpc": "web", "classic": ["office"]}))?;
        let refused = scene.gateway.finish(["undo", "web"])?;
        assert_eq!(refused.status.code(), Some(1));
        assert!(refused.stderr.contains("is not known"), "{refused:?}");
        Ok(())
    });
}
