//! Routers that restart, go and come back.

use std::net::IpAddr;
use std::time::Duration;

use interop::enter;
use interop::peer::BfdTerms;
use interop::process::Launch;
use interop::scene::{OFFICE, Scene, WEB, await_route, nets};
use interop::steady::Traffic;
use interop::topology::{IDC, plan};
use interop::wait::eventually;
use serde_json::Value;

use super::{Failure, SOON, was_perfect};

/// Two restarts, or two routers that go and come.
const DEADLINE: Duration = Duration::from_secs(150);

/// What the gateway says of the prefixes that it has learned.
fn learned(scene: &Scene) -> Result<Vec<Value>, Failure> {
    let routes = scene.gateway.json(["routes"])?;
    let routes = routes.as_array().into_iter().flatten();
    let learned = routes.filter(|route| route["direction"] == "learned");
    Ok(learned.cloned().collect())
}

/// Waits until the office is or is not among what the gateway has learned.
fn await_office(scene: &Scene, is_there: bool) -> Result<(), Failure> {
    let what = format!("the office is learned: {is_there}");
    eventually(what, SOON, || {
        let routes = learned(scene).map_err(|error| error.to_string())?;
        let all = OFFICE.map(|net| routes.iter().any(|route| route["prefix"] == net));
        match all == [is_there; 2] {
            true => Ok(()),
            false => Err(format!("{routes:?}")),
        }
    })?;
    Ok(())
}

fn state_of_web(scene: &Scene) -> Result<Value, Failure> {
    let links = scene.gateway.json(["links"])?;
    Ok(links[0]["state"].clone())
}

/// Everything as it was: sessions, routes both ways, and the kernel.
fn await_back(scene: &mut Scene) -> Result<(), Failure> {
    for router in &scene.routers {
        router.await_established(plan::GATEWAY4.into(), SOON)?;
    }
    scene.await_path(&nets(&WEB)?, &nets(&OFFICE)?)?;
    scene.gateway.await_settled(SOON)?;
    Ok(())
}

#[test]
fn a_router_that_restarts_gracefully_costs_no_packet() {
    enter::test_within(DEADLINE, |lab| {
        let mut scene = Scene::start_adjusted(
            lab,
            1,
            |_| {},
            |router| {
                for neighbour in &mut router.neighbours {
                    neighbour.keeps_forwarding = true;
                }
            },
        )?;
        scene.link("web", "office", &OFFICE)?;
        let before = scene.kernel()?;
        let traffic = Traffic::start(&scene)?;
        traffic.pass(100)?;

        scene.routers[0].kill();
        eventually("the session is gone", SOON, || {
            let peer = scene.gateway.json(["peer", "bird-1"]);
            let peer = peer.map_err(|error| error.to_string())?;
            match peer["state"] == "established" {
                true => Err(peer["state"].to_string()),
                false => Ok(()),
            }
        })?;
        traffic.pass(1000)?;
        await_office(&scene, true)?;
        assert_eq!(before.difference(&scene.kernel()?), "", "while it is away");
        assert_eq!(state_of_web(&scene)?, "announced");

        scene.routers[0].start()?;
        await_back(&mut scene)?;
        traffic.pass(1000)?;
        assert_eq!(before.difference(&scene.kernel()?), "", "when it is back");
        was_perfect(traffic)
    });
}

#[test]
fn a_router_that_restarts_without_grace_costs_packets_while_it_is_away_and_no_more() {
    enter::test_within(DEADLINE, |lab| {
        let mut scene = Scene::start_adjusted(
            lab,
            1,
            |_| {},
            |router| {
                for neighbour in &mut router.neighbours {
                    neighbour.graceful_restart = None;
                }
            },
        )?;
        scene.link("web", "office", &OFFICE)?;
        let before = scene.kernel()?;
        let traffic = Traffic::start(&scene)?;
        traffic.pass(100)?;

        scene.routers[0].stop()?;
        await_office(&scene, false)?;
        // What is linked stays so, and waits for whoever hears it.
        assert_eq!(state_of_web(&scene)?, "announced");
        let peer = scene.gateway.json(["peer", "bird-1"])?;
        assert_ne!(peer["state"], "established", "{peer}");
        traffic.go_on(250)?;
        scene.routers[0].start()?;
        await_back(&mut scene)?;
        traffic.pass(100)?;
        for told in traffic.stop() {
            println!("over the restart: {told}");
            assert!(
                told.report.lost() > 0,
                "nothing of {told} went over the router"
            );
            assert_eq!(told.report.duplicates, 0, "{told}");
        }

        let after = Traffic::start(&scene)?;
        after.pass(500)?;
        assert_eq!(before.difference(&scene.kernel()?), "", "when it is back");
        was_perfect(after)
    });
}

/// Takes a router off its power: nothing is said to anybody.
fn power_off(scene: &mut Scene, index: usize) -> Result<(), Failure> {
    let name = scene.routers[index].config().name.clone();
    // Its own addresses are there again when its power is.
    let node = scene.region.router_node(&name)?;
    node.set("net/ipv6/conf/all/keep_addr_on_down", "1")?;
    let namespace = scene.region.namespace(&name)?;
    set(&namespace, "down")?;
    scene.routers[index].kill();
    Ok(())
}

fn set(namespace: &netlink::Namespace, state: &str) -> Result<(), Failure> {
    let link = Launch::new("ip").args(["link", "set", "dev", IDC, state]);
    link.in_namespace(namespace.fd()).output(SOON)?;
    Ok(())
}

/// Flows from VMs to the office, of so many pairs of addresses that both routers have some.
fn outwards(scene: &Scene) -> Result<Traffic, Failure> {
    let mut traffic = Traffic::default();
    let to = [("alice", "10.80.1.10"), ("carol", "10.80.2.10")];
    let from = [("web-1@web", "10.1.0.11"), ("web-2@web", "10.1.0.12")];
    let mut port = Traffic::PORT;
    for from in from {
        for to in to {
            for _ in 0..4 {
                traffic.add(scene, [from, to], port, 100)?;
                port += 1;
            }
        }
    }
    Ok(traffic)
}

#[test]
fn of_two_routers_one_goes_then_both_and_both_come_back() {
    enter::test_within(DEADLINE, |lab| {
        let mut scene = Scene::start_adjusted(
            lab,
            2,
            |config| {
                for peer in &mut config.bgp.peer {
                    peer.more.insert("bfd".to_owned(), true.into());
                }
            },
            |router| {
                for neighbour in &mut router.neighbours {
                    neighbour.bfd = Some(BfdTerms::new());
                    // What BFD says counts more than that it may come back.
                    neighbour.graceful_restart = None;
                }
            },
        )?;
        scene
            .gateway
            .ccn(["link", "web", "--classic", "office", "--classic", "lab"])?;
        scene.await_path(&nets(&WEB)?, &nets(&OFFICE)?)?;
        for router in &scene.routers {
            eventually("BFD is up", SOON, || {
                match router.bfd(plan::GATEWAY4.into()) {
                    Ok(bgp::bfd::State::Up) => Ok(()),
                    state => Err(format!("{state:?}")),
                }
            })?;
        }
        let before = scene.kernel()?;
        let traffic = outwards(&scene)?;
        traffic.pass(20)?;

        power_off(&mut scene, 1)?;
        let office = nets(&OFFICE)?;
        for net in &office {
            await_route(scene.region.gateway(), *net, 1)?;
        }
        traffic.pass(50)?;
        let (mut lost, mut sent) = (0, 0);
        for told in traffic.stop() {
            (lost, sent) = (lost + told.report.lost(), sent + told.report.sent);
            assert_eq!(told.report.duplicates, 0, "{told}");
        }
        println!(
            "one of two routers lost its power: {lost} of {sent} packets lost, with BFD of 50 ms x 3"
        );
        // Over the other nothing is lost.
        let traffic = outwards(&scene)?;
        traffic.pass(100)?;
        was_perfect(traffic)?;

        power_off(&mut scene, 0)?;
        await_office(&scene, false)?;
        scene.gateway.agent()?.check()?;
        assert_eq!(state_of_web(&scene)?, "announced");
        let status = scene.gateway.json(["status"])?;
        assert_eq!(status["peers"]["established"], 0, "{status}");
        let said = scene.gateway.finish(["doctor"])?;
        assert_eq!(said.status.code(), Some(1), "{said:?}");
        for router in &scene.routers {
            let name = &router.config().name;
            let mut wrong = said.stdout.lines().filter(|line| line.starts_with("wrong"));
            assert!(wrong.any(|line| line.contains(name)), "{name}: {said:?}");
        }
        let carried: [IpAddr; 2] = ["10.1.0.11".parse()?, "fd00:1::11".parse()?];
        for (src, dst) in ["10.80.1.10", "fd80:1::a"].into_iter().zip(carried) {
            let carries = Scene::kernel_carries(&scene.gateway, src.parse()?, &[dst])?;
            assert!(carries, "what comes for {dst} is forwarded all the same");
        }

        for index in 0..2 {
            let name = scene.routers[index].config().name.clone();
            let namespace = scene.region.namespace(&name)?;
            set(&namespace, "up")?;
            scene.routers[index].start()?;
        }
        await_back(&mut scene)?;
        let traffic = outwards(&scene)?;
        traffic.pass(100)?;
        assert_eq!(
            before.difference(&scene.kernel()?),
            "",
            "when both are back"
        );
        was_perfect(traffic)
    });
}
