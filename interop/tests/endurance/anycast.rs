//! Two gateways with one VTEP between them, and a leaf that shares what hypervisors send to it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use interop::enter;
use interop::gateway::GatewayConfig;
use interop::process::Launch;
use interop::scene::{OFFICE, Scene};
use interop::steady::Traffic;
use interop::topology::hypervisor::UNDERLAY;
use interop::topology::{IDC, plan};
use interop::wait::eventually;
use netlink::Namespace;
use serde_json::Value;

use super::{Failure, SOON, was_perfect};

/// The VTEP of both, outside the underlay's own network.
const ANYCAST: &str = "172.31.0.1";
const LEAF: &str = "leaf";
const LEAF_HOST: u8 = 250;
/// Where the VMs are.
const HOSTS: [u8; 2] = [11, 12];
/// One end. IPv4 alone: BIRD takes IPv6 routes away before it puts others in their place.
const HOST: (&str, &str) = ("alice", "10.80.1.10");
/// The other end.
const VMS: [(&str, &str); 2] = [("web-1@web", "10.1.0.11"), ("web-2@web", "10.1.0.12")];
/// Flows of each VM to the classic host, and as many to each.
const FLOWS: u16 = 8;
/// Packets a second of each flow.
const RATE: u32 = 100;

/// The leaf, which reaches the VTEP by one gateway or both.
struct Leaf(Arc<Namespace>);

impl Leaf {
    /// Stands between hypervisors and gateways, as the first switch of a fabric does.
    fn between(scene: &mut Scene) -> Result<Self, Failure> {
        let leaf = Self(scene.region.add_gateway(LEAF, LEAF_HOST)?);
        // It sends packets out where they came in, and nobody shall go past it.
        for interface in ["all", UNDERLAY] {
            let setting = format!("net.ipv4.conf.{interface}.send_redirects=0");
            leaf.run("sysctl", &["-w", &setting])?;
        }
        leaf.send_by(&[plan::GATEWAY_VTEP.into(), plan::PARTNER_VTEP.into()])?;
        let vtep: IpAddr = ANYCAST.parse()?;
        for host in HOSTS {
            let hypervisor = scene.region.hypervisor(plan::vtep(host).into())?;
            let by_leaf = [plan::vtep(LEAF_HOST).into()];
            hypervisor.node().add_route(vtep.into(), &by_leaf)?;
        }
        scene.region.point_hypervisors_at(vtep)?;
        Ok(leaf)
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<(), Failure> {
        let launch = Launch::new(program).args(args);
        launch.in_namespace(self.0.fd()).output(SOON)?;
        Ok(())
    }

    /// Flows are shared among these from now on.
    fn send_by(&self, gateways: &[IpAddr]) -> Result<(), Failure> {
        let gateways: Vec<String> = gateways.iter().map(IpAddr::to_string).collect();
        let mut args = vec!["route", "replace", ANYCAST];
        for gateway in &gateways {
            args.extend(["nexthop", "via", gateway]);
        }
        self.run("ip", &args)
    }
}

/// A gateway with the VTEP and BFD.
fn on_anycast(config: &mut GatewayConfig) {
    let address = format!("{ANYCAST}/32");
    let args = [
        "-n",
        &config.name,
        "address",
        "add",
        &address,
        "dev",
        UNDERLAY,
    ];
    let given = Launch::new("ip").args(args).output(SOON);
    given.expect("the VTEP is given to the gateway");
    config.plane.vtep = ANYCAST.parse().expect("an address");
    for peer in &mut config.bgp.peer {
        peer.more.insert("bfd".to_owned(), true.into());
    }
}

/// From the VMs to the classic host: what the leaf shares.
fn outwards(scene: &Scene) -> Result<Traffic, Failure> {
    let mut traffic = Traffic::default();
    for (index, vm) in VMS.into_iter().enumerate() {
        for flow in 0..FLOWS {
            let port = Traffic::PORT + index as u16 * FLOWS + flow;
            traffic.add(scene, [vm, HOST], port, RATE)?;
        }
    }
    Ok(traffic)
}

/// The same, and from the classic host to the VMs: what the router shares.
fn both_ways(scene: &Scene) -> Result<Traffic, Failure> {
    let mut traffic = outwards(scene)?;
    for vm in VMS {
        for flow in 0..FLOWS {
            traffic.add(scene, [HOST, vm], Traffic::PORT + 100 + flow, RATE)?;
        }
    }
    Ok(traffic)
}

#[test]
fn of_two_gateways_with_one_vtep_either_may_go() {
    enter::test_within(Duration::from_secs(120), |lab| {
        let (mut scene, partner) = Scene::start_pair_with(lab, on_anycast, |router| {
            for neighbour in &mut router.neighbours {
                neighbour.bfd = Some(interop::peer::BfdTerms::new());
            }
        })?;
        for gateway in [&scene.gateway, &partner] {
            gateway.ccn(["link", "web", "--classic", "office"])?;
            eventually("the office is learned", SOON, || {
                let routes = gateway.json(["routes"]).map_err(|e| e.to_string())?;
                let mut learned = routes.as_array().into_iter().flatten();
                match learned.any(|route| route["prefix"] == OFFICE[0]) {
                    true => Ok(()),
                    false => Err(routes.to_string()),
                }
            })?;
            gateway.await_settled(SOON)?;
        }
        scene.await_spread(2)?;
        for address in [plan::GATEWAY4, plan::PARTNER4] {
            let router = &scene.routers[0];
            eventually("BFD is up", SOON, || match router.bfd(address.into()) {
                Ok(bgp::bfd::State::Up) => Ok(()),
                other => Err(format!("{other:?}")),
            })?;
        }
        let leaf = Leaf::between(&mut scene)?;
        let [one, other] = [plan::GATEWAY_VTEP, plan::PARTNER_VTEP].map(IpAddr::from);

        // Drained: the leaf has to be told, and until it is, what it sends is carried.
        let traffic = both_ways(&scene)?;
        traffic.pass(50)?;
        let drain = ["drain", "--json", "--settle", "1s", "--wait", "1s"];
        let said = scene.gateway.finish(drain)?;
        assert_eq!(said.status.code(), Some(4), "{said:?}");
        let report: Value = serde_json::from_str(&said.stdout)?;
        let share = report["packets_per_s"]["after_withdrawal"]["from_vpc"].as_f64();
        let all = f64::from(u32::from(FLOWS) * RATE * VMS.len() as u32);
        println!("drained, {share:?} of {all} packets a second still come from VMs");
        assert!(share > Some(0.0) && share < Some(0.97 * all), "{report}");
        leaf.send_by(&[other])?;
        let said = scene.gateway.finish(["drain", "--json", "--wait", "20s"])?;
        assert_eq!(said.status.code(), Some(0), "{said:?}");
        scene.gateway.stop()?;
        traffic.pass(50)?;
        scene.gateway.start()?;
        scene.gateway.await_settled(SOON)?;
        scene.routers[0].await_established(plan::GATEWAY4.into(), SOON)?;
        scene.gateway.ccn(["undrain"])?;
        scene.await_spread(2)?;
        leaf.send_by(&[one, other])?;
        traffic.pass(50)?;
        was_perfect(traffic)?;

        // Without power: what the leaf sends there is lost until it knows, and nothing else.
        let traffic = outwards(&scene)?;
        traffic.pass(50)?;
        let gateway = scene.region.gateway_namespace();
        for interface in [IDC, UNDERLAY] {
            let down = Launch::new("ip").args(["link", "set", "dev", interface, "down"]);
            down.in_namespace(gateway.fd()).output(SOON)?;
        }
        scene.gateway.kill()?;
        scene.await_spread(1)?;
        leaf.send_by(&[other])?;
        traffic.pass(50)?;
        let told = traffic.stop();
        let hit = told.iter().filter(|told| told.report.lost() > 0).count();
        let lost: u64 = told.iter().map(|told| told.report.lost()).sum();
        let sent: u64 = told.iter().map(|told| told.report.sent).sum();
        println!(
            "one of two lost its power: {lost} of {sent} packets of VMs lost, of {hit} of {} flows, until the leaf was told",
            told.len()
        );
        assert!(hit > 0 && hit < told.len(), "both carried some");
        let traffic = both_ways(&scene)?;
        traffic.pass(100)?;
        was_perfect(traffic)
    });
}
