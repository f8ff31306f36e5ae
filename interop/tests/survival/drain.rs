//! A gateway is drained, stopped and brought back while another one of its group carries what it carried: not a packet
//! is lost, and the figures that it gives are those of the traffic.

use interop::enter::{self, Lab};
use interop::gateway::{Gateway, GatewayConfig};
use interop::process::Finished;
use interop::scene::{OFFICE, Scene, nets};
use interop::topology::plan;
use interop::wait::eventually;
use serde_json::Value;

use super::*;

/// Flows from the classic host to each of two VMs, and packets a second of each. ECMP spreads them by port.
const FLOWS: usize = 8;
const TO_VPC: u32 = 125;
/// Packets a second from each of two VMs to the classic host.
const FROM_VPC: u32 = 250;

/// Two gateways that serve the link of `web`, both in use by the router.
fn pair(lab: &Lab, change: impl Fn(&mut GatewayConfig)) -> Result<(Scene, Gateway), Failure> {
    let (mut scene, partner) = Scene::start_pair(lab, change)?;
    for gateway in [&scene.gateway, &partner] {
        gateway.ccn(["link", "web", "--classic", "office"])?;
    }
    scene.await_spread(2)?;
    let net = nets(&OFFICE)?[0];
    let namespace = scene.region.namespace("gw2")?;
    eventually("the partner has a route to the office", SOON, || {
        let mut socket = netlink::Socket::open_in(&namespace).map_err(|e| e.to_string())?;
        let routes = socket.routes(&netlink::RouteFilter::default());
        let routes = routes.map_err(|error| error.to_string())?;
        match routes.iter().any(|route| route.prefix == net) {
            true => Ok(()),
            false => Err(format!("{routes:?}")),
        }
    })?;
    Ok((scene, partner))
}

/// Many flows to the VPC and two from it, IPv4: BIRD takes IPv6 routes away before it puts others in their place.
fn traffic(scene: &Scene) -> Result<Traffic, Failure> {
    let mut traffic = Traffic::default();
    let host = ("alice", "10.80.1.10");
    for (vm, port) in [
        (("web-1@web", "10.1.0.11"), 7001),
        (("web-2@web", "10.1.0.12"), 7002),
    ] {
        for flow in 0..FLOWS {
            traffic.add(scene, [host, vm], 7100 + flow as u16, TO_VPC)?;
        }
        traffic.add(scene, [vm, host], port, FROM_VPC)?;
    }
    Ok(traffic)
}

/// What `ccn drain --json` answers, and how it ends.
fn drain(gateway: &Gateway, args: &[&str]) -> Result<(Value, Finished), Failure> {
    let words = [&["drain", "--json"], args].concat();
    let said = gateway.finish(words)?;
    let report =
        serde_json::from_str(&said.stdout).map_err(|error| format!("{error}: {said:?}"))?;
    println!("{report:#}\n{}", said.stderr);
    Ok((report, said))
}

fn figure(report: &Value, when: &str, way: &str) -> f64 {
    let rate = &report["packets_per_s"][when][way];
    rate.as_f64()
        .unwrap_or_else(|| panic!("{when} {way}: {report}"))
}

#[test]
fn a_gateway_is_drained_stopped_and_brought_back_without_a_packet_lost() {
    enter::test(|lab| {
        let (mut scene, partner) = pair(lab, |_| {})?;
        let traffic = traffic(&scene)?;
        traffic.go_on(100)?;
        let before = scene.kernel()?;

        // Routers move, hypervisors do not: they know nothing of BGP.
        let (report, said) = drain(&scene.gateway, &["--settle", "2s", "--wait", "1s"])?;
        assert_eq!(said.status.code(), Some(4), "{said:?}");
        assert_eq!(report["state"], "drained", "{report}");
        assert_eq!(report["safe_to_stop"], false, "{report}");
        assert_eq!(report["peers_told"], serde_json::json!(["bird-1"]));
        assert_eq!(report["prefixes_withdrawn"], 2, "{report}");
        let [all_to, all_from] = [
            2.0 * FLOWS as f64 * f64::from(TO_VPC),
            2.0 * f64::from(FROM_VPC),
        ];
        let share = figure(&report, "before", "to_vpc");
        assert!(
            share > 0.05 * all_to && share < 0.95 * all_to,
            "both carried some of {all_to}: {share}"
        );
        for when in ["before", "after_gshut", "after_withdrawal"] {
            let from = figure(&report, when, "from_vpc");
            let is_all = from > 0.5 * all_from && from < 1.5 * all_from;
            assert!(is_all, "{when}: {from} of {all_from}");
        }
        for when in ["after_gshut", "after_withdrawal"] {
            let to = figure(&report, when, "to_vpc");
            assert!(to < 0.05 * share, "{when}: {to} of {share}");
        }
        assert!(said.stderr.contains("not safe yet: "), "{said:?}");
        if scene.is_ebpf() {
            assert!(said.stderr.contains("link web ("), "{said:?}");
            assert_eq!(
                report["carriers"][0]["from_vpc"].as_f64().map(|r| r > 0.0),
                Some(true)
            );
        }
        scene.await_spread(1)?;
        // Its forwarding stays: what hypervisors send to it arrives.
        assert_eq!(before.difference(&scene.kernel()?), "", "while drained");
        traffic.go_on(100)?;

        scene
            .region
            .point_hypervisors_at(plan::PARTNER_VTEP.into())?;
        let (report, said) = drain(&scene.gateway, &["--wait", "20s"])?;
        assert_eq!(said.status.code(), Some(0), "{said:?}");
        assert_eq!(report["safe_to_stop"], true, "{report}");
        assert_eq!(report["prefixes_withdrawn"], 2, "{report}");

        scene.gateway.stop()?;
        traffic.go_on(100)?;
        scene.gateway.start()?;
        let status = scene.gateway.await_settled(SOON)?;
        assert_eq!(status["drain"]["state"], "drained", "{status}");
        scene.routers[0].await_established(plan::GATEWAY4.into(), SOON)?;
        traffic.go_on(100)?;
        scene.await_spread(1)?;
        assert_eq!(before.difference(&scene.kernel()?), "", "after a restart");

        let said = scene.gateway.ccn(["undrain"])?;
        assert!(
            said.contains("2 prefixes announced; every peer has it"),
            "{said}"
        );
        scene.await_spread(2)?;
        scene
            .region
            .point_hypervisors_at(plan::GATEWAY_VTEP.into())?;
        traffic.go_on(100)?;
        let status = scene.gateway.json(["status"])?;
        assert_eq!(status["drain"]["state"], "serving", "{status}");
        was_perfect(traffic)?;
        for gateway in [&scene.gateway, &partner] {
            dropped_nothing(gateway)?;
            let counters = gateway.json(["plane", "counters"])?;
            assert!(
                counters["encapsulated"]["packets"].as_u64() > Some(100),
                "{counters}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_gateway_that_drains_when_it_is_stopped_loses_no_packet() {
    enter::test(|lab| {
        let (mut scene, _partner) = pair(lab, |config| {
            let more = &mut config.bgp.more;
            more.insert("drain_on_stop".to_owned(), true.into());
            more.insert("drain_settle_ms".to_owned(), 1000.into());
            more.insert("drain_wait_ms".to_owned(), 4000.into());
        })?;
        scene
            .region
            .point_hypervisors_at(plan::PARTNER_VTEP.into())?;
        let traffic = traffic(&scene)?;
        for round in 1..=2 {
            traffic.go_on(100)?;
            scene.gateway.stop()?;
            let log = std::fs::read_to_string(scene.gateway.log())?;
            assert_eq!(log.matches("drained, safe to stop").count(), round, "{log}");
            // Withdrawn, not kept as stale.
            scene.await_spread(1)?;
            let routes = scene.routers[0].routes(bgp::Family::Ipv4Unicast)?;
            assert!(
                routes.iter().all(|route| route.next_hop != plan::GATEWAY4),
                "{routes:?}"
            );
            traffic.go_on(100)?;
            scene.gateway.start()?;
            let status = scene.gateway.await_settled(SOON)?;
            assert_eq!(status["drain"]["state"], "serving", "{status}");
            scene.await_spread(2)?;
            traffic.go_on(100)?;
        }
        was_perfect(traffic)?;
        Ok(())
    });
}
