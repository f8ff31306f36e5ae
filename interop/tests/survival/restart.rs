//! The agent ends, in every way, and comes back: no packet is lost and nothing in the kernel moves.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ccn::config::{Config, PlaneConfig};
use ccn::plane::Plane;
use ccn::plane::ebpf::EbpfPlane;

use interop::enter::{self, Lab, Outcome};
use interop::gateway::{Gateway, GatewayError, may_load_bpf};
use interop::peer::family_of;
use interop::process::Launch;
use interop::scene::{OFFICE, OWN_PROTOCOL, Scene, WEB, change_store};
use interop::topology::plan;
use interop::wait::eventually;
use ipnet::IpNet;
use netlink::{Encap, Namespace, RouteFilter, Socket};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{Failure, SOON, Traffic, was_perfect};

#[test]
fn kill_minus_nine_loses_no_packet_and_moves_nothing() {
    enter::test(|lab| ends_and_comes_back(lab, Gateway::kill));
}

#[test]
fn stop_and_start_loses_no_packet_and_moves_nothing() {
    enter::test(|lab| ends_and_comes_back(lab, Gateway::stop));
}

fn ends_and_comes_back(lab: &Lab, end: fn(&mut Gateway) -> Result<(), GatewayError>) -> Outcome {
    let mut scene = Scene::start(lab, 1)?;
    scene.link("web", "office", &OFFICE)?;
    let before = scene.kernel()?;
    let traffic = Traffic::start(&scene)?;
    // The second time shows that a restart leaves nothing behind that the next one stumbles over.
    for round in 1..=2 {
        traffic.go_on(250)?;
        end(&mut scene.gateway)?;
        await_routes(&scene, true)?;
        traffic.go_on(250)?;
        assert_eq!(
            before.difference(&scene.kernel()?),
            "",
            "while the agent is away"
        );

        scene.gateway.start()?;
        let status = await_back(&scene)?;
        println!("round {round}: back with {}", status["plane"]);
        assert_eq!(status["plane"]["last_resync_operations"], 0, "{status}");
        assert_eq!(
            status["plane"]["operations"], 0,
            "nothing was written at all: {status}"
        );
        assert_eq!(before.difference(&scene.kernel()?), "", "after the restart");
        traffic.go_on(250)?;
    }
    was_perfect(traffic)?;
    super::dropped_nothing(&scene.gateway)
}

/// Waits until the router has every subnet of the VPC, kept as stale or fresh.
fn await_routes(scene: &Scene, stale: bool) -> Result<(), Failure> {
    for subnet in WEB {
        let subnet: IpNet = subnet.parse()?;
        for router in &scene.routers {
            let what = format!("{subnet} at {}, stale: {stale}", router.config().name);
            eventually(what, SOON, || match router.routes(family_of(subnet)) {
                Ok(routes)
                    if routes
                        .iter()
                        .any(|r| r.prefix == subnet && r.stale == stale) =>
                {
                    Ok(())
                }
                Ok(routes) => Err(format!("{routes:?}")),
                Err(error) => Err(error.to_string()),
            })?;
        }
    }
    Ok(())
}

/// Waits until a restarted agent is where it was: sessions up, routes fresh, all tables heard.
fn await_back(scene: &Scene) -> Result<Value, Failure> {
    for router in &scene.routers {
        router.await_established(plan::GATEWAY4.into(), SOON)?;
    }
    await_routes(scene, false)?;
    eventually("the agent has heard the routers", SOON, || {
        match scene.gateway.json(["routes"]) {
            Ok(routes) => {
                let learned = |net: &&str| {
                    let all = routes.as_array().into_iter().flatten();
                    all.filter(|r| r["direction"] == "learned")
                        .any(|r| r["prefix"] == **net)
                };
                match OFFICE.iter().all(learned) {
                    true => Ok(()),
                    false => Err(routes.to_string()),
                }
            }
            Err(error) => Err(error.to_string()),
        }
    })?;
    Ok(scene.gateway.await_settled(SOON)?)
}

#[test]
fn what_changed_while_it_was_away_is_all_that_a_restart_applies() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let traffic = Traffic::start(&scene)?;
        traffic.go_on(100)?;
        let before = scene.kernel()?;
        scene.gateway.stop()?;
        change_store(
            &scene.gateway.config.store.path,
            &[
                // A VM on another host, one more, and one gone; each has an address a family.
                (
                    "vms/web/web-2",
                    Some(
                        r#"{"addrs":["10.1.0.12","fd00:1::12"],"mac":"02:00:00:01:00:12","vtep":"172.16.0.13"}"#,
                    ),
                ),
                (
                    "vms/web/web-3",
                    Some(
                        r#"{"addrs":["10.1.0.13","fd00:1::13"],"mac":"02:00:00:01:00:13","vtep":"172.16.0.11"}"#,
                    ),
                ),
                ("vms/db/db-1", None),
            ],
        )?;
        scene.gateway.start()?;
        let status = await_back(&scene)?;
        let difference = before.difference(&scene.kernel()?);
        println!("{}\n{difference}", status["plane"]);
        let (operations, changed) = match scene.is_ebpf() {
            // Two slots stored anew, two more, two emptied; and the host that had nobody before.
            true => (7, 4),
            // Two routes replaced; two routes and a neighbour new; two routes and a neighbour gone.
            false => (8, 5),
        };
        assert_eq!(status["plane"]["operations"], operations, "{status}");
        let gone = difference
            .lines()
            .filter(|line| line.starts_with('-'))
            .count();
        let new = difference
            .lines()
            .filter(|line| line.starts_with('+'))
            .count();
        assert_eq!((gone, new), (changed, changed), "{difference}");
        traffic.go_on(100)?;
        was_perfect(traffic)?;
        let lines = scene.gateway.plane_dump()?;
        let to = |addr: &str| {
            let names = [addr.to_owned(), format!("{addr}/32")];
            let is_of =
                |line: &&String| line.split(' ').any(|word| names.iter().any(|n| n == word));
            lines.iter().filter(is_of).count()
        };
        // 10.1.1.21 is still there in the other CCSI.
        assert_eq!((to("10.1.0.13"), to("10.1.1.21")), (1, 1), "{lines:#?}");
        Ok(())
    });
}

/// The record of a VM of VPC `big`, as a line to import, on a host that differs from round to round.
fn big_vm(number: u16, round: u8) -> String {
    let [high, low] = number.to_be_bytes();
    let record = json!({
        "addrs": [format!("10.64.{high}.{low}"), format!("fd00:64::{number:x}")],
        "mac": format!("02:00:00:64:{high:02x}:{low:02x}"),
        "vtep": format!("172.16.0.{}", 100 + round),
    });
    json!({ "key": format!("vms/big/{number}"), "value": record }).to_string()
}

/// Looks into the gateway's kernel quickly, and beside the agent.
enum Look {
    Routes(Socket),
    Ebpf(Arc<Namespace>, Box<PlaneConfig>),
}

impl Look {
    fn at(scene: &Scene) -> Result<Look, Failure> {
        let namespace = scene.region.namespace("gw")?;
        Ok(match scene.is_ebpf() {
            true => Look::Ebpf(namespace, Box::new(Config::read(&agent_toml(scene))?.plane)),
            false => Look::Routes(Socket::open_in(&namespace)?),
        })
    }

    /// How many addresses lead to a VTEP.
    fn led_to(&mut self, vtep: IpAddr) -> Result<usize, Failure> {
        match self {
            Look::Routes(socket) => {
                let routes = socket.routes(&RouteFilter {
                    protocol: Some(OWN_PROTOCOL),
                    ..RouteFilter::default()
                })?;
                let hops = routes.iter().flat_map(|route| &route.next_hops);
                let there = |encap: Encap| encap.destination == vtep;
                Ok(hops.filter(|hop| hop.encap.is_some_and(there)).count())
            }
            Look::Ebpf(namespace, config) => {
                let lines = namespace.enter(|| EbpfPlane::new(config).dump())??;
                let there = format!(" on {vtep} ");
                Ok(lines.iter().filter(|line| line.contains(&there)).count())
            }
        }
    }
}

fn agent_toml(scene: &Scene) -> PathBuf {
    scene
        .gateway
        .config
        .admin_socket
        .with_file_name("agent.toml")
}

#[test]
fn killed_in_the_middle_of_changes_it_ends_where_a_fresh_start_does() {
    const VMS: u16 = 1000;
    const ROUNDS: u8 = 6;
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let vpc = json!({ "vni": 5001, "subnets": ["10.64.0.0/16", "fd00:64::/64"] });
        scene.gateway.put("vpcs/big", &vpc)?;
        scene.gateway.ccn(["link", "big", "--classic", "lab"])?;
        let traffic = Traffic::start(&scene)?;
        let file = lab.run().join("big.jsonl");
        let mut look = Look::at(&scene)?;
        let mut moved = Vec::new();
        for round in 0..ROUNDS {
            let lines: Vec<String> = (1..=VMS).map(|vm| big_vm(vm, round)).collect();
            std::fs::write(&file, lines.join("\n"))?;
            let agent = Pid::from_raw(scene.gateway.agent()?.id().cast_signed());
            let vtep: IpAddr = plan::vtep(100 + round).into();
            let gateway = &scene.gateway;
            // Slots are stored within a millisecond: what is to be hit is all that comes before, too.
            let latest = match scene.is_ebpf() {
                true => Duration::from_millis(25) * u32::from(round + 1),
                false => SOON,
            };
            std::thread::scope(|scope| {
                let import = scope.spawn(|| gateway.finish(["import".as_ref(), file.as_os_str()]));
                // The first has moved, the last probably not: now.
                let started = Instant::now();
                while started.elapsed() < latest {
                    match look.led_to(vtep) {
                        Ok(0) => {}
                        // The table changed under the dump: it has begun.
                        Ok(_) | Err(_) => break,
                    }
                }
                kill(agent, Signal::SIGKILL)?;
                // It was answered or not, as it came to be.
                import.join().map_err(|_| "the import panicked")??;
                Ok::<_, Failure>(())
            })?;
            scene.gateway.kill()?;
            let then = look.led_to(vtep)?;
            moved.push(then);
            scene.gateway.start()?;
            scene.gateway.await_settled(SOON)?;
            // All of it or nothing, and all if some of it had come as far as the kernel.
            let (now, all) = (look.led_to(vtep)?, 2 * usize::from(VMS));
            assert!(
                now == all || (now == 0 && then == 0),
                "round {round}: {now} of {all}; when the agent was killed: {moved:?}"
            );
        }
        println!(
            "of {} addresses, moved when the agent was killed: {moved:?}",
            2 * VMS
        );
        await_back(&scene)?;
        traffic.go_on(50)?;
        was_perfect(traffic)?;
        let survived = scene.kernel()?;

        // From scratch, the same records make the same state.
        scene.gateway.stop()?;
        scene.gateway.remove_plane()?;
        let removed = scene.kernel()?;
        let ours = format!("protocol: {OWN_PROTOCOL}");
        let left = removed
            .routes
            .iter()
            .chain(&removed.rules)
            .filter(|line| line.contains(&ours));
        assert_eq!(left.count(), 0, "{removed:?}");
        assert!(
            !removed.links.iter().any(|link| link.contains("ccn")),
            "{:?}",
            removed.links
        );
        assert_eq!(removed.plane, Vec::<String>::new());
        scene.gateway.start()?;
        await_back(&scene)?;
        eventually("the same state as before", SOON, || match scene.kernel() {
            Ok(now) if now == survived => Ok(()),
            Ok(now) => Err(survived.difference(&now)),
            Err(error) => Err(error.to_string()),
        })?;
        Ok(())
    });
}

/// A daemon's port on the gateway that has nothing to do with us.
const FOREIGN: u16 = 7100;

/// Packets of the gateway's host itself, from and to the router.
fn of_the_host(scene: &Scene) -> Result<Traffic, Failure> {
    let (own4, own6) = (plan::GATEWAY4.to_string(), plan::GATEWAY6.to_string());
    let mut traffic = Traffic::default();
    for (router, own) in [("10.99.0.2", &own4), ("fd99::2", &own6)] {
        let ends = [("bird-1", router), ("gw", own.as_str())];
        traffic.add_both_ways(scene, ends, FOREIGN, 2 * Traffic::RATE)?;
    }
    Ok(traffic)
}

/// Ends it; fails if one packet was lost. Before Linux 6.6 the kernel deactivates a link that gets its first program, and
/// what that cost is only told.
fn was_perfect_over_attaching(traffic: Traffic) -> Result<(), Failure> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let numbers = release.split(['.', '-']).take(2).map(str::parse);
    let version: Vec<u32> = numbers.collect::<Result<_, _>>()?;
    if version >= vec![6, 6] {
        return was_perfect(traffic);
    }
    for told in traffic.stop() {
        println!("Linux {}: {told}", release.trim());
        assert_eq!(told.report.duplicates, 0, "{told}");
    }
    Ok(())
}

#[test]
fn a_first_start_costs_the_host_none_of_its_own_packets() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        let traffic = of_the_host(&scene)?;
        for round in 1..=3 {
            scene.gateway.stop()?;
            scene.gateway.remove_plane()?;
            traffic.pass(100)?;
            scene.gateway.start()?;
            let status = scene.gateway.await_settled(SOON)?;
            println!("round {round}: {}", status["plane"]);
            traffic.pass(100)?;
            super::dropped_nothing(&scene.gateway)?;
        }
        was_perfect_over_attaching(traffic)
    });
}

#[test]
fn the_host_keeps_its_own_packets_when_somebody_deletes_the_device() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let before = scene.kernel()?;
        let traffic = of_the_host(&scene)?;
        scene.gateway.kill()?;
        let delete = Launch::new("ip").args(["link", "del", "dev", "ccn0"]);
        let gateway = scene.region.gateway_namespace();
        delete.in_namespace(gateway.fd()).output(SOON)?;
        traffic.pass(200)?;
        scene.gateway.start()?;
        await_back(&scene)?;
        traffic.pass(100)?;
        assert_eq!(before.difference(&scene.kernel()?), "", "after the restart");
        was_perfect(traffic)
    });
}

#[test]
fn a_switch_from_one_plane_to_the_other_and_back_loses_no_packet() {
    enter::test(|lab| {
        if !may_load_bpf()? {
            return Ok(());
        }
        let mut scene =
            Scene::start_with(lab, 1, |config| config.plane.kind = "routes".to_owned())?;
        scene.link("web", "office", &OFFICE)?;
        let before = scene.kernel()?;
        let traffic = Traffic::start(&scene)?;
        let own = of_the_host(&scene)?;
        for plane in ["ebpf", "routes", "ebpf", "routes"] {
            traffic.pass(250)?;
            scene.gateway.stop()?;
            scene.gateway.config.plane.kind = plane.to_owned();
            scene.gateway.start()?;
            let status = await_back(&scene)?;
            println!("{}", status["plane"]);
            assert_eq!(status["plane"]["name"], plane, "{status}");
            traffic.pass(250)?;
            super::dropped_nothing(&scene.gateway)?;
        }
        assert_eq!(before.difference(&scene.kernel()?), "", "as it began");
        was_perfect_over_attaching(own)?;
        was_perfect_over_attaching(traffic)
    });
}
