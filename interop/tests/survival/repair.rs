//! Somebody deletes what is ours: it comes back. What is somebody else's stays as it is.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ccn::plane::ebpf::layout::LAYOUT_VERSION;
use ccn::plane::ebpf::sys::Map;
use interop::enter;
use interop::scene::{OFFICE, OWN_PROTOCOL, Scene};
use interop::topology::Node;
use interop::traffic::ping;
use interop::wait::eventually;
use netlink::{Family, NextHop, Request, Route, RouteFilter, Rule};

use super::{Failure, SOON, addr};

/// A meddler: what it does to the gateway's kernel.
type Meddle = fn(&mut Node) -> Result<(), Failure>;

fn own_routes(node: &mut Node) -> Result<Vec<Route>, Failure> {
    Ok(node.netlink().routes(&RouteFilter {
        protocol: Some(OWN_PROTOCOL),
        ..RouteFilter::default()
    })?)
}

fn delete_link(node: &mut Node, name: &str) -> Result<(), Failure> {
    let index = node.link(name)?.index;
    Ok(node.batch("meddle", &[Request::delete_link(index)])?)
}

/// What is deleted of the `routes` plane, worst last.
const OF_ROUTES: [(&str, Meddle); 8] = [
    ("one VM's route", |node| {
        let routes = own_routes(node)?;
        let victim = routes
            .into_iter()
            .find(|r| r.prefix.addr() == addr("10.1.0.11"));
        Ok(node.batch(
            "meddle",
            &[Request::delete_route(victim.ok_or("no route")?)],
        )?)
    }),
    ("one VM's IPv6 route, replaced by another's", |node| {
        let routes = own_routes(node)?;
        let mut victim = routes
            .into_iter()
            .find(|r| r.prefix.addr() == addr("fd00:1::11"))
            .ok_or("no route")?;
        node.batch("meddle", &[Request::delete_route(victim.clone())])?;
        for hop in &mut victim.next_hops {
            if let Some(encap) = &mut hop.encap {
                encap.id = 4711;
            }
        }
        Ok(node.batch("meddle", &[Request::add_route(victim)])?)
    }),
    ("one rule of a link", |node| {
        let rules = node.netlink().rules(Some(OWN_PROTOCOL))?;
        let victim = rules
            .into_iter()
            .find(|rule| rule.from.is_some() && rule.to.is_some());
        Ok(node.batch("meddle", &[Request::delete_rule(victim.ok_or("no rule")?)])?)
    }),
    ("every rule", every_rule),
    ("the neighbours", |node| {
        let index = node.link("ccn0")?.index;
        let all = node.netlink().neighbours(index)?;
        let all: Vec<_> = all
            .into_iter()
            .filter(|neighbour| neighbour.permanent)
            .map(Request::delete_neighbour)
            .collect();
        assert!(!all.is_empty());
        Ok(node.batch("meddle", &all)?)
    }),
    (
        "the device is taken down",
        |node| Ok(node.set_down("ccn0")?),
    ),
    ("a device that counts drops", |node| {
        delete_link(node, "ccn-d-nolink")
    }),
    ("the device", |node| delete_link(node, "ccn0")),
];

fn every_rule(node: &mut Node) -> Result<(), Failure> {
    let rules = node.netlink().rules(Some(OWN_PROTOCOL))?;
    let all: Vec<_> = rules.into_iter().map(Request::delete_rule).collect();
    Ok(node.batch("meddle", &all)?)
}

/// By its pin, or before Linux 6.6 with the qdisc that it is on.
fn delete_program(node: &mut Node, name: &str) -> Result<(), Failure> {
    let index = node.link(name)?.index;
    let pin = pins()?.join("links").join(index.to_string());
    match pin.exists() {
        true => Ok(std::fs::remove_file(pin)?),
        false => Ok(node.batch("meddle", &[Request::delete_clsact(index)])?),
    }
}

/// What is pinned of the gateway's only device.
fn pins() -> Result<PathBuf, Failure> {
    let first = std::fs::read_dir("/sys/fs/bpf/ccn")?.next();
    Ok(first.ok_or("nothing is pinned")??.path())
}

/// A pinned map of it.
fn map(name: &str) -> Result<Map, Failure> {
    let path = pins()?.join(format!("v{LAYOUT_VERSION}")).join(name);
    Ok(Map::open(&path)?)
}

/// What is deleted of the `ebpf` plane, worst last.
const OF_EBPF: [(&str, Meddle); 10] = [
    ("every VPC in the maps", |_| {
        let vpcs = map("vpcs")?;
        let mut keys = Vec::new();
        vpcs.each(|key, _| keys.push(key.to_vec()))?;
        assert!(!keys.is_empty());
        Ok(keys.iter().try_for_each(|key| vpcs.delete(key))?)
    }),
    ("one VM's slot", |_| {
        let slots = map("slots")?;
        let mut taken = None;
        for at in 0..100_000_u32 {
            let slot = slots.lookup(&at.to_ne_bytes())?;
            if slot.is_some_and(|slot| slot.iter().any(|octet| *octet != 0)) {
                taken = Some(at);
                break;
            }
        }
        let at = taken.ok_or("no slot is in use")?;
        Ok(slots.update(&at.to_ne_bytes(), &[0; 8])?)
    }),
    ("a learned route", |node| {
        let mut routes = own_routes(node)?.into_iter();
        let office = routes.find(|r| r.prefix.addr() == addr("10.80.1.0"));
        let delete = Request::delete_route(office.ok_or("no route")?);
        Ok(node.batch("meddle", &[delete])?)
    }),
    ("one rule", |node| {
        let rule = node.netlink().rules(Some(OWN_PROTOCOL))?.pop();
        let delete = Request::delete_rule(rule.ok_or("no rule")?);
        Ok(node.batch("meddle", &[delete])?)
    }),
    ("every rule", every_rule),
    ("the program on the IDC's side", |node| {
        delete_program(node, "idc0")
    }),
    ("the program on the underlay", |node| {
        delete_program(node, "u0")
    }),
    ("the program on the device", |node| {
        delete_program(node, "ccn0")
    }),
    (
        "the device is taken down",
        |node| Ok(node.set_down("ccn0")?),
    ),
    ("the device", |node| delete_link(node, "ccn0")),
];

#[test]
fn what_is_deleted_by_hand_comes_back_and_foreign_state_stays() {
    enter::test(|lab| {
        let mut scene = Scene::start_with(lab, 1, |config| config.plane.audit_interval_s = 2)?;
        scene.link("web", "office", &OFFICE)?;
        foreign_state(scene.region.gateway())?;
        let before = scene.kernel()?;
        let foreign: Vec<String> = before
            .routes
            .iter()
            .chain(&before.rules)
            .filter(|line| !line.contains(&format!("protocol: {OWN_PROTOCOL}")))
            .cloned()
            .collect();
        let meddling = match scene.is_ebpf() {
            true => &OF_EBPF[..],
            false => &OF_ROUTES[..],
        };
        for (what, meddle) in meddling {
            meddle(scene.region.gateway())?;
            let meddled = Instant::now();
            eventually(format!("{what}: it comes back"), SOON, || {
                match scene.kernel() {
                    Ok(now) if now == before => Ok(()),
                    Ok(now) => Err(before.difference(&now)),
                    Err(error) => Err(error.to_string()),
                }
            })?;
            println!("{what}: back after {} ms", meddled.elapsed().as_millis());
            let now = scene.kernel()?;
            for line in &foreign {
                assert!(
                    now.routes.contains(line) || now.rules.contains(line),
                    "lost {line}"
                );
            }
            let alice = scene.region.namespace("alice")?;
            for to in ["10.1.0.11", "fd00:1::11"] {
                let echo = ping::ping(&alice, addr(to), 1, Duration::from_secs(2))?;
                assert!(echo.is_perfect(), "{what}: {}", echo.said);
            }
        }
        Ok(())
    });
}

/// Routes and rules of an operator: in `main`, in a table of ours, and before our own rules.
fn foreign_state(node: &mut Node) -> Result<(), Failure> {
    let idc = node.link("idc0")?.index;
    let own = own_routes(node)?;
    let to = |text: &str| own.iter().find(|r| r.prefix.addr() == addr(text));
    // The `ebpf` plane has routes to the IDC only.
    let in_table = to("10.1.0.11").or_else(|| to("10.80.1.0"));
    let table = in_table.ok_or("no table")?.table;
    let route = |prefix: &str, via: &str| -> Result<Route, Failure> {
        Ok(Route::new(prefix.parse()?, NextHop::via(addr(via), idc)))
    };
    let in_ours = Route {
        table,
        ..route("203.0.113.0/24", "10.99.0.2")?
    };
    let rule = |family, priority| Rule {
        from: None,
        protocol: Route::STATIC,
        ..Rule::lookup(family, priority, 4242)
    };
    Ok(node.batch(
        "add an operator's routes and rules",
        &[
            Request::add_route(route("198.51.100.0/24", "10.99.0.2")?),
            Request::add_route(route("2001:db8::/32", "fd99::2")?),
            Request::add_route(in_ours),
            Request::add_rule(rule(Family::V4, 9000)),
            Request::add_rule(rule(Family::V6, 9000)),
            // Like one of ours in all but its maker.
            Request::add_rule(rule(Family::V4, 10_000)),
        ],
    )?)
}
