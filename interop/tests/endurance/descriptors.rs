//! Agents and API servers to which more connections are made than they have descriptors for.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use interop::apiserver::{ApiServer, Role};
use interop::enter;
use interop::scene::{OFFICE, Scene, WEB};
use interop::steady::Traffic;
use interop::topology::plan;
use interop::wait::eventually;

use super::{Failure, SOON, limit, was_perfect};

/// Descriptors that are left for connections.
const FEW: usize = 12;
/// Connections that somebody opens and keeps: with an agent, whose operators are few.
const MANY: usize = 200;
/// With an API server, which turns away who says nothing for ten seconds: so that the line is short.
const SOME: usize = 24;
/// What a process says that has no more.
const NONE_LEFT: &str = "Too many open files";

/// What a process has used of the processor so far, in seconds.
fn cpu_of(id: u32) -> Result<f64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').ok_or("no name in it")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / 100.0)
}

/// Makes connections that say nothing until the process has no descriptor left: it says so, once, and waits. They last
/// as long as what is returned.
fn starve<C>(
    (id, log): (u32, &Path),
    traffic: &Traffic,
    many: usize,
    connect: impl Fn() -> Option<C>,
) -> Result<Vec<C>, Failure> {
    let open = fs::read_dir(format!("/proc/{id}/fd"))?.count();
    limit(id, &format!("--nofile={0}:{0}", open + FEW))?;
    let connections: Vec<C> = (0..many).map_while(|_| connect()).collect();
    println!("{} connections, {FEW} descriptors left", connections.len());
    assert!(connections.len() > FEW, "too few to be too many");
    eventually("it says what it lacks", SOON, || {
        let said = fs::read_to_string(log).unwrap_or_default();
        match said.contains(NONE_LEFT) {
            true => Ok(()),
            false => Err("nothing of it".to_owned()),
        }
    })?;
    let (used, began) = (cpu_of(id)?, Instant::now());
    traffic.pass(1000)?;
    let (used, took) = (cpu_of(id)? - used, began.elapsed().as_secs_f64());
    println!("{used} s of CPU in {took} s without descriptors");
    assert!(
        used < took / 2.0,
        "it is busy with nothing: {used} s in {took} s"
    );
    let said = fs::read_to_string(log)?.matches(NONE_LEFT).count();
    assert!(said < 10, "{said} times in the log");
    Ok(connections)
}

#[test]
fn connections_beyond_an_agents_descriptors_hurt_no_packet_and_no_session() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let traffic = Traffic::start(&scene)?;
        traffic.pass(100)?;
        let session = scene.routers[0].session(plan::GATEWAY4.into())?;
        let id = scene.gateway.agent()?.id();
        let socket = scene.gateway.config.admin_socket.clone();
        let connect = || UnixStream::connect(&socket).ok();
        let connections = starve((id, scene.gateway.log()), &traffic, MANY, connect)?;
        scene.await_exactly(&WEB)?;

        drop(connections);
        eventually("it answers again", SOON, || {
            let said = scene.gateway.ccn(["status"]);
            said.map(drop).map_err(|error| error.to_string())
        })?;
        let now = scene.routers[0].session(plan::GATEWAY4.into())?;
        assert_eq!(now.since, session.since, "the session never broke");
        traffic.pass(100)?;
        was_perfect(traffic)
    });
}

#[test]
fn connections_beyond_an_api_servers_descriptors_cost_it_nothing_but_the_wait() {
    enter::test_within(Duration::from_secs(120), |lab| {
        let (mut scene, etcd) = Scene::start_on_etcd(lab, 1, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let traffic = Traffic::start(&scene)?;
        traffic.pass(100)?;
        let namespace = scene.region.gateway_namespace();
        let mut server = ApiServer::start(lab, namespace.clone(), &etcd, 0, "")?;
        let id = server.process()?.id();
        let at = server.url().replace("https://", "");
        let connect = || namespace.enter(|| TcpStream::connect(&at).ok()).ok()?;
        let connections = starve((id, server.log()), &traffic, SOME, connect)?;
        // Who waits in line is served when those before, who say nothing, are turned away.
        eventually("somebody is served", SOON, || {
            match server.json(Role::Viewer, ["links"]) {
                Ok(links) if links[0]["link"] == "web" => Ok(()),
                Ok(links) => Err(links.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })?;

        drop(connections);
        server.ccn(Role::Operator, ["link", "db", "--classic", "lab"])?;
        server.ccn(Role::Operator, ["unlink", "db"])?;
        server.process()?.check()?;
        traffic.pass(100)?;
        was_perfect(traffic)
    });
}
