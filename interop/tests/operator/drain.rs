//! A gateway that is drained: what it says of itself, what it refuses to do, and what becomes of that when its agent ends.

use std::fmt::Display;
use std::os::unix::net::UnixDatagram;

use interop::enter;
use interop::gateway::Gateway;
use interop::scene::{OFFICE, Scene, WEB, nets};
use interop::wait::becomes;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Failure, SOON};

fn await_state(gateway: &Gateway, state: &str) -> Result<Value, Failure> {
    let mut status = Value::Null;
    becomes(format!("it is {state}"), SOON, || {
        status = gateway.json(["status"])?;
        Ok((status["drain"]["state"] != state).then(|| status["drain"].to_string()))
    })?;
    Ok(status)
}

/// Waits until the router has the VPC's subnets, or has not.
fn await_routes(scene: &Scene, what: impl Display, there: bool) -> Result<(), Failure> {
    let web = nets(&WEB)?[0];
    becomes(what, SOON, || {
        let routes = scene.routers[0].routes(bgp::Family::Ipv4Unicast)?;
        let is_there = routes.iter().any(|route| route.prefix == web);
        Ok((is_there != there).then(|| format!("{routes:?}")))
    })?;
    Ok(())
}

#[test]
fn a_drained_gateway_says_so_links_nothing_and_stays_drained_until_told_otherwise() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let before = scene.kernel()?;
        let said = scene.gateway.ccn(["drain", "--settle", "100ms"])?;
        for part in [
            "safe to stop: 1 peer told, 2 prefixes withdrawn",
            "after GSHUT",
            "after withdrawal",
        ] {
            assert!(said.contains(part), "{said}");
        }
        await_routes(&scene, "the router has no route", false)?;
        assert_eq!(before.difference(&scene.kernel()?), "", "it still forwards");
        let said = scene.gateway.ccn(["status"])?;
        for part in ["DRAINED, begun ", "until `ccn undrain`; safe to stop"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(scene.gateway.ccn(["doctor"])?.contains("ccn undrain"));

        // A new link is stored and in the kernel, and that is all that is waited for.
        let said = scene.gateway.ccn(["link", "db", "--classic", "lab"])?;
        assert!(said.contains("in the kernel, not announced: "), "{said}");
        let links = scene.gateway.json(["links"])?;
        for link in links.as_array().into_iter().flatten() {
            assert_eq!(link["state"], "drained", "{links}");
            assert_eq!(link["announced"], json!([]), "{links}");
        }
        scene.gateway.ccn(["unlink", "db"])?;
        scene.gateway.ccn(["disable", "web"])?;
        scene.gateway.ccn(["enable", "web"])?;

        // Neither an end nor a crash brings it back behind the operator's back.
        for end in [Gateway::stop, Gateway::kill] {
            end(&mut scene.gateway)?;
            scene.gateway.start()?;
            scene.gateway.await_settled(SOON)?;
            let status = await_state(&scene.gateway, "drained")?;
            assert_eq!(status["drain"]["safe_to_stop"], Value::Null, "{status}");
            assert_eq!(status["links"]["announced"], 0, "{status}");
        }
        scene.routers[0].await_established(interop::topology::plan::GATEWAY4.into(), SOON)?;
        assert_eq!(
            before.difference(&scene.kernel()?),
            "",
            "after two restarts"
        );
        let report = scene.gateway.json(["drain"])?;
        assert_eq!(report["safe_to_stop"], true, "{report}");
        assert_eq!(report["prefixes_withdrawn"], 0, "{report}");
        await_routes(&scene, "the router has no route", false)?;

        let said = scene.gateway.ccn(["undrain"])?;
        assert!(
            said.contains("2 prefixes announced; every peer has it"),
            "{said}"
        );
        await_routes(&scene, "the router has the route again", true)?;
        let marks = scene.routers[0].communities(nets(&WEB)?[0])?;
        assert_eq!(marks, [], "they are not about to go");
        let said = scene.gateway.ccn(["undrain"])?;
        assert!(said.contains("it was not drained"), "{said}");
        assert!(!scene.gateway.ccn(["status"])?.contains("DRAIN"));
        scene.gateway.kill()?;
        scene.gateway.start()?;
        await_state(&scene.gateway, "serving")?;
        Ok(())
    });
}

#[test]
fn a_drain_under_way_can_be_taken_back() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let web = nets(&WEB)?[0];
        std::thread::scope(|scope| {
            let gateway = &scene.gateway;
            let draining = scope.spawn(|| gateway.finish(["drain", "--settle", "40s"]));
            becomes("the route is marked", SOON, || {
                let marks = scene.routers[0].communities(web)?;
                Ok((marks != [(65535, 0)]).then(|| format!("{marks:?}")))
            })?;
            let status = await_state(gateway, "draining")?;
            assert_eq!(status["drain"]["step"], "settling", "{status}");
            // What is ordered now is not announced to be withdrawn in a moment.
            let link = gateway.json(["link", "db", "--classic", "lab"])?;
            assert_eq!(link["state"], "drained", "{link}");
            gateway.ccn(["undrain"])?;
            let said = draining.join().map_err(|_| "the drain panicked")??;
            assert_eq!(said.status.code(), Some(1), "{said:?}");
            assert!(said.stderr.contains("`ccn undrain`"), "{said:?}");
            Ok::<_, Failure>(())
        })?;
        becomes("the route is marked no more", SOON, || {
            let marks = scene.routers[0].communities(web)?;
            Ok((!marks.is_empty()).then(|| format!("{marks:?}")))
        })?;
        await_routes(&scene, "nothing was withdrawn", true)?;
        becomes("the other link is announced", SOON, || {
            let links = scene.gateway.json(["links"])?;
            let mut states = links.as_array().into_iter().flatten();
            let all = states.all(|link| link["state"] == "announced");
            Ok((!all).then(|| links.to_string()))
        })?;
        for (args, code) in [
            (&["drain", "--threshold", "-1"][..], 2),
            (&["drain", "--threshold=nan"], 1),
            (&["drain", "--settle", "2h"], 1),
        ] {
            let said = scene.gateway.finish(args)?;
            assert_eq!(said.status.code(), Some(code), "{said:?}");
        }
        await_state(&scene.gateway, "serving")?;
        Ok(())
    });
}

#[test]
fn a_second_signal_ends_an_agent_that_drains_before_it_stops() {
    enter::test(|lab| {
        let mut scene = Scene::start_alone(lab, |config| {
            let more = &mut config.bgp.more;
            more.insert("drain_on_stop".to_owned(), true.into());
            more.insert("drain_settle_ms".to_owned(), 3_600_000.into());
        })?;
        scene.gateway.agent()?.signal(Signal::SIGTERM)?;
        let status = await_state(&scene.gateway, "draining")?;
        assert_eq!(status["drain"]["remembered"], false, "{status}");
        // It is killed, and this fails, if it goes on.
        scene.gateway.stop()?;
        scene.gateway.start()?;
        await_state(&scene.gateway, "serving")?;
        // Once drained by hand, there is nothing more to wait for.
        scene.gateway.ccn(["drain", "--settle", "0s"])?;
        scene.gateway.stop()?;
        scene.gateway.start()?;
        await_state(&scene.gateway, "drained")?;
        Ok(())
    });
}

#[test]
fn the_service_manager_is_told_how_long_a_stop_may_take() {
    enter::test(|lab| {
        let mut scene = Scene::start_alone(lab, |config| {
            let more = &mut config.bgp.more;
            more.insert("drain_on_stop".to_owned(), true.into());
            more.insert("drain_settle_ms".to_owned(), 60_000.into());
            more.insert("drain_wait_ms".to_owned(), 2000.into());
        })?;
        scene.gateway.kill()?;
        let path = lab.run().join("notify");
        let manager = UnixDatagram::bind(&path)?;
        manager.set_read_timeout(Some(SOON))?;
        let agent = scene.gateway.launch_agent()?.env("NOTIFY_SOCKET", &path);
        let agent = agent.start(&lab.scratch().join("notified.log"))?;
        let mut told = String::new();
        let mut hear = |word: &str| -> Result<(), Failure> {
            let mut message = [0; 1024];
            while !told.contains(word) {
                let length = manager
                    .recv(&mut message)
                    .map_err(|error| format!("{error} before {word}; told: {told}"))?;
                told += &String::from_utf8_lossy(&message[..length]);
                told.push('\n');
            }
            Ok(())
        };
        hear("READY=1")?;
        agent.signal(Signal::SIGTERM)?;
        hear("STOPPING=1")?;
        // Two counts of a second, five for the peers, the two times configured, and ten to be sure.
        hear("EXTEND_TIMEOUT_USEC=79000000")?;
        agent.stop(Signal::SIGTERM, SOON)?;
        Ok(())
    });
}
