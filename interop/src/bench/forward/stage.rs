//! Where a subject stands: a namespace with an interface to the IDC and one to the underlay, and one
//! namespace behind each. Those are routers that are known by their MACs; nothing comes to them where
//! the sink is on the gateway's interfaces.

use std::net::Ipv4Addr;
use std::os::fd::RawFd;

use ipnet::Ipv4Net;
use netlink::{
    BpfFilter, FilterPlace, Hook, Link, Mac, Neighbour, NewLink, NextHop, Request, Route,
};

use super::Failure;
use super::shape::HOSTS;
use crate::topology::{Node, Role, TopologyError};

/// The interface to the IDC.
pub const IDC: &str = "idc0";
/// The interface to the underlay.
pub const UNDERLAY: &str = "u0";
/// The gateway's VTEP.
pub const VTEP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// The gateway on the IDC's side.
pub const IDC_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The router to all classic networks.
pub const CLASSIC_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// The router to all hosts.
pub const HOST_ROUTER: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 254);
/// All hosts are in here.
const HOST_LENGTH: u8 = 16;

/// A gateway without any state that forwards.
#[derive(Debug)]
pub struct Stage {
    /// The gateway.
    pub gateway: Node,
    /// Its interface to the IDC.
    pub idc: Link,
    /// Its interface to the underlay.
    pub underlay: Link,
    /// The other end of the first; the link there has the same name.
    pub classic: Node,
    /// The other end of the second.
    pub host: Node,
}

impl Stage {
    /// One with this name.
    ///
    /// # Errors
    /// The kernel refuses a step.
    pub fn build(name: &str) -> Result<Stage, Failure> {
        let mut gateway = Node::create(name, Role::Router)?;
        let mut classic = Node::create(&format!("{name}-classic"), Role::Switch)?;
        let mut host = Node::create(&format!("{name}-host"), Role::Switch)?;
        let sides = [
            (IDC, 1, &mut classic, IDC_ADDRESS, CLASSIC_ROUTER),
            (UNDERLAY, 2, &mut host, VTEP, HOST_ROUTER),
        ];
        for (name, number, other, address, router) in sides {
            let mac = Mac([2, 0, 0, 0, 2, number]);
            let link = NewLink::veth_to(name, name, other.namespace());
            let link = link.mac(Mac([2, 0, 0, 0, 1, number])).peer_mac(mac);
            let link = gateway.add_link(link)?;
            other.set_up(name)?;
            gateway.await_ready(name)?;
            gateway.add_addresses(name, &[Ipv4Net::new(address, 24)?.into()])?;
            let router = Neighbour::permanent(link.index, router.into(), mac);
            let requests = [Request::replace_neighbour(router)];
            gateway.batch("know a router", &requests)?;
        }
        let hosts = Ipv4Net::new(HOSTS, HOST_LENGTH)?;
        gateway.add_route(hosts.into(), &[HOST_ROUTER.into()])?;
        Ok(Stage {
            idc: gateway.link(IDC)?,
            underlay: gateway.link(UNDERLAY)?,
            gateway,
            classic,
            host,
        })
    }

    /// Puts the sink on the egress of both interfaces.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_sink(&mut self, program: RawFd) -> Result<(), Failure> {
        for link in [&self.idc, &self.underlay] {
            let sink = BpfFilter {
                place: FilterPlace {
                    ifindex: link.index,
                    hook: Hook::Egress,
                    priority: 1,
                    handle: 1,
                },
                program,
                name: "sink".to_owned(),
            };
            let mut requests = vec![Request::replace_filter(sink)];
            // A plane may have made it already.
            if !self.gateway.netlink().has_clsact(link.index)? {
                requests.insert(0, Request::add_clsact(link.index));
            }
            self.gateway
                .batch("put the sink on an interface", &requests)?;
        }
        Ok(())
    }
}

/// Adds a route out of a device by a next hop that is on none of its networks, known by its MAC.
///
/// # Errors
/// The kernel refuses.
pub fn add_route_by_mac(
    node: &mut Node,
    to: Ipv4Net,
    device: u32,
    via: Ipv4Addr,
    mac: Mac,
) -> Result<(), TopologyError> {
    let hop = NextHop {
        onlink: true,
        ..NextHop::via(via.into(), device)
    };
    let requests = [
        Request::replace_neighbour(Neighbour::permanent(device, via.into(), mac)),
        Request::replace_route(Route::new(to.into(), hop)),
    ];
    node.batch("add a route", &requests)
}
