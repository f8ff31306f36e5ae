//! The lab's own network: counts are exact, captures say what was sent, instances on two
//! hypervisors reach each other through a gateway made by hand, and move.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use interop::capture::{Capture, Direction};
use interop::enter::{self, Lab, Outcome};
use interop::peer::Daemon;
use interop::topology::{Instance, Region, RegionConfig, RouterPlan, plan};
use interop::traffic::numbered::{self, Flow, Origin, Receiver};
use interop::traffic::{http, ping};
use interop::wait::eventually;
use ipnet::IpNet;
use netlink::{Encap, Mac, Neighbour, NewLink, NextHop, Request, Route};

const GATEWAY_MAC: Mac = plan::GATEWAY_MAC;
const VNI: u32 = 10_001;

fn region(lab: &Lab) -> Result<Region, Box<dyn std::error::Error + Send + Sync>> {
    Ok(Region::build(lab, RegionConfig::default())?)
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts
        .iter()
        .map(|text| text.parse().expect("a network"))
        .collect()
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Two hosts on two LANs of one router, on which no daemon runs.
fn two_lans(lab: &Lab) -> Result<Region, Box<dyn std::error::Error + Send + Sync>> {
    let mut region = region(lab)?;
    region.add_lan("office", &nets(&["10.80.1.0/24", "fd80:1::/64"]))?;
    region.add_lan("lab", &nets(&["10.80.2.0/24", "fd80:2::/64"]))?;
    let lans = &["office", "lab"];
    let plan = RouterPlan {
        daemon: Daemon::Bird,
        name: "bird",
        number: 2,
        asn: 65002,
        lans,
    };
    region.add_router(lab, &plan, |_| {})?;
    region.add_host("alice", "office", 10, &["bird"])?;
    region.add_host("bob", "lab", 10, &["bird"])?;
    Ok(region)
}

#[test]
fn counts_are_exact_on_a_plain_path() {
    enter::test(|lab| {
        let region = two_lans(lab)?;
        let (alice, bob) = (region.host("alice")?, region.host("bob")?);
        for to in bob.addrs() {
            let receiver = Receiver::open(bob.namespace(), SocketAddr::new(*to, 7000))?;
            let origin = Origin::new(alice.namespace());
            let report = numbered::send(&origin, receiver.address(), &receiver, 10_000)?;
            assert!(report.is_perfect(), "{report}");
            assert_eq!(report.arrived, 10_000);
            assert_eq!(receiver.total(), 10_000);
            assert_eq!(report.sources.len(), 1, "{:?}", report.sources);
            assert!(
                alice.addrs().contains(&report.sources[0].ip()),
                "{:?}",
                report.sources
            );

            let echo = ping::ping(alice.namespace(), *to, 2, Duration::from_secs(1))?;
            assert!(echo.is_perfect() && echo.ttl == Some(63), "{}", echo.said);
            let server = http::Server::start(bob.namespace(), SocketAddr::new(*to, 80), "hello")?;
            let page = http::fetch(alice.namespace(), server.address(), Duration::from_secs(2))?;
            assert_eq!((page.status, page.body.as_str()), (200, "hello"));
            assert_eq!(server.requests(), 1);
        }
        Ok(())
    });
}

#[test]
fn what_is_lost_is_told_by_number() {
    enter::test(|lab| {
        let mut region = two_lans(lab)?;
        let to = SocketAddr::new(region.host("bob")?.addrs()[0], 7000);
        let receiver = Receiver::open(region.host("bob")?.namespace(), to)?;
        let origin_namespace = region.namespace("alice")?;
        let flow = Flow::start(&Origin::new(&origin_namespace), to, 1000)?;
        let grown = |by: u64| {
            let start = flow.sent();
            eventually("more is sent", Duration::from_secs(5), || {
                match flow.sent() - start {
                    sent if sent >= by => Ok(()),
                    sent => Err(sent),
                }
            })
        };
        grown(100)?;
        region
            .router_node("bird")?
            .set("net/ipv4/ip_forward", "0")?;
        grown(100)?;
        region
            .router_node("bird")?
            .set("net/ipv4/ip_forward", "1")?;
        grown(100)?;
        let report = flow.stop(&receiver);
        assert!(report.lost() >= 50 && report.arrived >= 150, "{report}");
        let missing: u64 = report
            .missing
            .iter()
            .map(|range| range.end() - range.start() + 1)
            .sum();
        assert_eq!(missing, report.lost(), "{report}");
        assert_eq!(report.overruns, 0, "{report}");
        Ok(())
    });
}

/// What the product does, by hand: an external VXLAN device, and a route with encapsulation for
/// each instance.
fn gateway_by_hand(region: &mut Region, instances: &[&str]) -> Outcome {
    let routes: Vec<(IpAddr, Mac, IpAddr)> = instances
        .iter()
        .map(|name| region.instance(name))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flat_map(|i| i.addrs.iter().map(|addr| (*addr, i.mac, i.vtep)))
        .collect();
    let gateway = region.gateway();
    let device = match gateway.netlink().link("ccn0")? {
        Some(device) => device,
        None => gateway.add_link(
            NewLink::vxlan_external("ccn0", 4789)
                .mac(GATEWAY_MAC)
                .mtu(1450),
        )?,
    };
    let mut requests = Vec::new();
    for (addr, mac, vtep) in routes {
        let mut hop = NextHop::via(mac.link_local().into(), device.index);
        hop.onlink = true;
        hop.encap = Some(Encap::new(VNI.into(), vtep));
        let neighbour = Neighbour::permanent(device.index, mac.link_local().into(), mac);
        requests.push(Request::replace_neighbour(neighbour));
        requests.push(Request::replace_route(Route::new(IpNet::from(addr), hop)));
    }
    Ok(gateway.batch("program routes by hand", &requests)?)
}

fn vm(name: &str, number: u8, hypervisor: u8) -> Instance {
    Instance {
        name: name.to_owned(),
        vni: VNI,
        mac: Mac([2, 0, 0, 0, 0, number]),
        addrs: vec![
            addr(&format!("10.1.0.{number}")),
            addr(&format!("fd01::{number}")),
        ],
        vtep: plan::vtep(hypervisor).into(),
    }
}

#[test]
fn instances_reach_each_other_through_a_gateway_and_captures_show_how() {
    enter::test(|lab| {
        let mut region = region(lab)?;
        region.add_instance(vm("one", 5, 11))?;
        region.add_instance(vm("two", 6, 12))?;
        gateway_by_hand(&mut region, &["one", "two"])?;
        let (one, two) = (region.namespace("one")?, region.namespace("two")?);
        for (family, to) in region
            .instance("two")?
            .addrs
            .clone()
            .into_iter()
            .enumerate()
        {
            let receiver = Receiver::open(&two, SocketAddr::new(to, 7000))?;
            let capture = Capture::start(&*region.namespace("gw")?, "u0")?;
            let origin = Origin::new(&one);
            let report = numbered::send(&origin, receiver.address(), &receiver, 1000)?;
            assert!(report.is_perfect(), "{report}");

            let frames = capture.stop();
            assert_eq!(frames.missed, 0);
            assert_eq!(frames.undecodable().collect::<Vec<_>>(), []);
            let mut seen = [0, 0];
            for (direction, frame) in frames.decoded() {
                let Some((outer, vni, inner)) = frame.vxlan() else {
                    continue;
                };
                let Some(ip) = inner.ip().filter(|ip| ip.udp().is_some()) else {
                    continue;
                };
                assert_eq!((vni, ip.destination), (VNI, to), "{frame}");
                match direction {
                    Direction::In => {
                        assert_eq!(outer.source, IpAddr::from(plan::vtep(11)), "{frame}");
                        assert_eq!((inner.destination, ip.ttl), (GATEWAY_MAC, 64), "{frame}");
                        seen[0] += 1;
                    }
                    Direction::Out => {
                        assert_eq!(outer.destination, IpAddr::from(plan::vtep(12)), "{frame}");
                        let mac = region.instance("two")?.mac;
                        assert_eq!((inner.destination, ip.ttl), (mac, 63), "{frame}");
                        seen[1] += 1;
                    }
                }
            }
            assert_eq!(seen, [1000, 1000], "family {family}");
        }
        Ok(())
    });
}

#[test]
fn an_instance_moves_with_what_runs_in_it() {
    enter::test(|lab| {
        let mut region = region(lab)?;
        region.add_instance(vm("one", 5, 11))?;
        region.add_instance(vm("two", 6, 12))?;
        gateway_by_hand(&mut region, &["one", "two"])?;
        let (one, two) = (region.namespace("one")?, region.namespace("two")?);
        let receiver = Receiver::open(&two, SocketAddr::new(addr("10.1.0.6"), 7000))?;
        let send = |count| numbered::send(&Origin::new(&one), receiver.address(), &receiver, count);
        let report = send(100)?;
        assert!(report.is_perfect(), "{report}");

        region.move_instance("two", plan::vtep(13).into())?;
        let lost = send(100)?;
        assert_eq!(
            (lost.arrived, lost.lost()),
            (0, 100),
            "the gateway was not told: {lost}"
        );

        gateway_by_hand(&mut region, &["two"])?;
        let report = send(100)?;
        assert!(report.is_perfect(), "{report}");
        Ok(())
    });
}

#[test]
fn hypervisors_reach_each_other_without_a_gateway_when_told() {
    enter::test(|lab| {
        let mut region = region(lab)?;
        region.add_instance(vm("one", 5, 11))?;
        region.add_instance(vm("two", 6, 12))?;
        for (from, to) in [("one", "two"), ("two", "one")] {
            let target = region.instance(to)?.clone();
            let vtep = region.instance(from)?.vtep;
            region
                .hypervisor(vtep)?
                .learn(VNI, target.mac, target.vtep)?;
            let node = region.instance_node(from)?;
            let link = node.link("eth0")?.index;
            let requests: Vec<_> = target
                .addrs
                .iter()
                .flat_map(|addr| {
                    let neighbour = Neighbour::permanent(link, *addr, target.mac);
                    let route = Route::new(IpNet::from(*addr), NextHop::dev(link));
                    [
                        Request::replace_neighbour(neighbour),
                        Request::replace_route(route),
                    ]
                })
                .collect();
            node.batch("learn a neighbour", &requests)?;
        }
        for to in region.instance("two")?.addrs.clone() {
            let echo = ping::ping(&*region.namespace("one")?, to, 2, Duration::from_secs(1))?;
            assert!(echo.is_perfect() && echo.ttl == Some(64), "{}", echo.said);
        }
        Ok(())
    });
}
