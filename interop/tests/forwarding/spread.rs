//! Load that several share: IDC routers by equal routes, nodes of an SLB by weight.

use std::collections::{BTreeMap, BTreeSet};

use interop::capture::{Capture, Direction};
use interop::enter;
use interop::scene::{OFFICE, Scene};
use interop::traffic::numbered::{self, Origin, Receiver};
use interop::wait::eventually;

use super::{PORT, SOON, addr, at, same_family, udp_socket};

/// Flows sent.
const FLOWS: usize = 64;
/// Packets of each.
const EACH: u64 = 10;

#[test]
fn flows_to_the_idc_leave_over_both_routers() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 2)?;
        scene.link("web", "office", &OFFICE)?;
        let vm = scene.region.namespace("web-1@web")?;
        let alice = scene.region.namespace("alice")?;
        for host in scene.region.host("alice")?.addrs().to_vec() {
            let src = same_family(&scene.region.instance("web-1@web")?.addrs, host);
            let explained = scene.explain(src, host, Some(1001))?;
            let next_hops = explained["verdict"]["next_hops"].as_array().map(Vec::len);
            assert_eq!(next_hops, Some(2), "{explained}");
            let receiver = Receiver::open(&alice, at(host))?;
            let captures = [
                Capture::start(&*scene.region.namespace("bird-1")?, "idc0")?,
                Capture::start(&*scene.region.namespace("bird-2")?, "idc0")?,
            ];
            for _ in 0..FLOWS {
                let origin = Origin::new(&vm).from(src);
                let report = numbered::send(&origin, at(host), &receiver, EACH)?;
                assert!(report.is_perfect(), "{report}");
            }
            assert_eq!(receiver.total(), FLOWS as u64 * EACH);
            let mut routers_of: BTreeMap<u16, BTreeSet<usize>> = BTreeMap::new();
            let mut flows = [0; 2];
            let mut packets = [0; 2];
            for (index, capture) in captures.into_iter().enumerate() {
                let mut ports = BTreeSet::new();
                for (_, frame) in capture
                    .stop()
                    .decoded()
                    .filter(|(d, _)| *d == Direction::In)
                {
                    let Some(ip) = frame.ip().filter(|ip| ip.destination == host) else {
                        continue;
                    };
                    let Some((port, PORT, _)) = ip.udp() else {
                        continue;
                    };
                    ports.insert(port);
                    routers_of.entry(port).or_default().insert(index);
                    packets[index] += 1;
                }
                flows[index] = ports.len();
            }
            println!("to {host}: {flows:?} flows, {packets:?} packets by the two routers");
            assert_eq!(packets[0] + packets[1], FLOWS as u64 * EACH);
            assert!(
                routers_of.values().all(|routers| routers.len() == 1),
                "a flow was split"
            );
            // A fair coin gives fewer than 13 of 64 once in a million runs.
            assert!(flows.iter().all(|flows| *flows >= 13), "{flows:?}");
        }
        Ok(())
    });
}

#[test]
fn flows_to_a_vip_are_shared_by_weight_and_each_stays_with_its_node() {
    const FLOWS: usize = 300;
    const EACH: usize = 4;
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let alice = scene.region.namespace("alice")?;
        let db = scene.region.namespace("db-1@db")?;
        // From the IDC and from another VPC of the CCSI, IPv4 and IPv6.
        let cases = [
            (&alice, "10.80.1.10", "10.1.0.100"),
            (&alice, "fd80:1::a", "fd00:1::100"),
            (&db, "10.1.1.21", "10.1.0.100"),
            (&db, "fd00:1:1::21", "fd00:1::100"),
        ];
        for (namespace, src, vip) in cases {
            let (src, vip) = (addr(src), addr(vip));
            let captures = ["front@web#1", "front@web#2"].map(|node| {
                Capture::start(&*scene.region.namespace(node)?, "eth0")
                    .map_err(super::Failure::from)
            });
            let [first, second] = captures;
            let captures = [first?, second?];
            let mut sockets = Vec::new();
            for _ in 0..FLOWS {
                sockets.push(udp_socket(namespace, src)?);
            }
            // Round by round, so that a flow's packets are not a burst that a cache could carry.
            for round in 0..EACH {
                for socket in &sockets {
                    socket.send_to(&[round as u8; 32], at(vip))?;
                }
                // What was sent is seen before more is: nothing is lost in a queue of the lab's.
                eventually("the nodes have the packets", SOON, || {
                    match captures.iter().map(|c| c.so_far().raw.len()).sum::<usize>() {
                        seen if seen >= FLOWS * (round + 1) => Ok(()),
                        seen => Err(seen),
                    }
                })?;
            }
            let mut nodes_of: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
            for (index, capture) in captures.into_iter().enumerate() {
                for (_, frame) in capture
                    .stop()
                    .decoded()
                    .filter(|(d, _)| *d == Direction::In)
                {
                    let Some(ip) = frame.ip().filter(|ip| ip.destination == vip) else {
                        continue;
                    };
                    let Some((port, PORT, _)) = ip.udp() else {
                        continue;
                    };
                    nodes_of.entry(port).or_default().push(index);
                }
            }
            assert_eq!(nodes_of.len(), FLOWS, "every flow arrives");
            for (port, nodes) in &nodes_of {
                assert_eq!(
                    nodes.len(),
                    EACH,
                    "flow from port {port}: every packet arrives once"
                );
                assert!(
                    nodes.iter().all(|node| *node == nodes[0]),
                    "flow {port} moved: {nodes:?}"
                );
            }
            let first = nodes_of.values().filter(|nodes| nodes[0] == 0).count();
            println!("{src} to {vip}: {first} of {FLOWS} flows to the node of weight 2 of 3");
            // 200 expected; 5 standard deviations of a fair draw are 41.
            assert!((159..=241).contains(&first), "{first} of {FLOWS}");
        }
        Ok(())
    });
}
