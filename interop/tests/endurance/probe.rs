//! Packets that a router sends to the gateway whatever BGP says: what arrives of them is what the gateway forwards.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use interop::scene::Scene;
use interop::topology::plan;
use interop::traffic::numbered::{Flow, Origin, Receiver, Report};
use interop::wait::eventually;
use ipnet::IpNet;
use netlink::{NextHop, Request, Route, Rule};

use super::{Failure, SOON};

const ROUTER: &str = "bird-1";
/// The router's own address in the classic network `office`, of each family.
const SOURCES: [&str; 2] = ["10.80.1.1", "fd80:1::1"];
/// The router's table for them.
const TABLE: u32 = 4242;
/// Packets a second.
const RATE: u32 = 1000;
/// So many packets may have been sent and not counted yet, since senders send in batches.
const UNCOUNTED: u64 = 40;

/// A stream of them to one instance.
pub(super) struct Probe {
    flow: Flow,
    receiver: Receiver,
}

/// Has the first router send its own packets for this address to the gateway, and nobody else's.
pub(super) fn lead(scene: &mut Scene, dst: &str) -> Result<(), Failure> {
    let (src, dst, gateway) = ends(dst)?;
    let route = Route {
        table: TABLE,
        ..Route::new(IpNet::from(dst), NextHop::via(gateway, 0))
    };
    let rule = Rule {
        from: Some(IpNet::from(src)),
        to: Some(IpNet::from(dst)),
        ..Rule::lookup(route.family(), 100, TABLE)
    };
    let requests = [Request::add_route(route), Request::add_rule(rule)];
    let router = scene.region.router_node(ROUTER)?;
    Ok(router.batch("send to the gateway whatever BGP says", &requests)?)
}

/// Source, destination and gateway of packets to an address.
fn ends(dst: &str) -> Result<(IpAddr, IpAddr, IpAddr), Failure> {
    let dst: IpAddr = dst.parse()?;
    Ok(match dst.is_ipv4() {
        true => (SOURCES[0].parse()?, dst, plan::GATEWAY4.into()),
        false => (SOURCES[1].parse()?, dst, plan::GATEWAY6.into()),
    })
}

impl Probe {
    /// Sends to this address of an instance, which the router was told to [`lead`] to the gateway.
    pub(super) fn start(
        scene: &Scene,
        instance: &str,
        dst: &str,
        port: u16,
    ) -> Result<Self, Failure> {
        let (src, dst, _) = ends(dst)?;
        let instance = scene.region.namespace(instance)?;
        let receiver = Receiver::open(&instance, SocketAddr::new(dst, port))?;
        let router = scene.region.namespace(ROUTER)?;
        let flow = Flow::start(&Origin::new(&router).from(src), receiver.address(), RATE)?;
        Ok(Self { flow, receiver })
    }

    /// Sends `count` packets more; their numbers, all of them sent since this was called.
    pub(super) fn next(&self, count: u64) -> Result<Range<u64>, Failure> {
        let first = self.flow.sent() + UNCOUNTED;
        eventually("the probe goes on", SOON, || match self.flow.sent() {
            sent if sent >= first + count => Ok(()),
            sent => Err(format!("{sent} of {}", first + count)),
        })?;
        Ok(first..first + count)
    }

    /// Waits until some arrive.
    pub(super) fn await_arrivals(&self) -> Result<(), Failure> {
        let start = self.flow.arrived(&self.receiver);
        eventually("the probe arrives", SOON, || {
            match self.flow.arrived(&self.receiver) - start {
                0 => Err("nothing"),
                _ => Ok(()),
            }
        })?;
        Ok(())
    }

    /// Ends it and counts.
    pub(super) fn stop(self) -> Report {
        self.flow.stop(&self.receiver)
    }
}

/// How many of these packets arrived.
pub(super) fn arrived(report: &Report, numbers: &Range<u64>) -> u64 {
    let missing = |number: &u64| {
        let ranges = &report.missing;
        let after = ranges.partition_point(|range| range.end() < number);
        ranges
            .get(after)
            .is_some_and(|range| range.contains(number))
    };
    numbers.clone().filter(|number| !missing(number)).count() as u64
}
