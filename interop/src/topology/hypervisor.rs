//! Hypervisors and the instances on them. A hypervisor has a VXLAN device and a bridge of its own
//! for each VNI it has instances of, and knows one thing about the world: the gateway's MAC is
//! behind the gateway's VTEP.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use netlink::{ForwardingEntry, LinkChange, Mac, Namespace, NewLink, Request};

use super::node::{Node, Role, TopologyError};
use crate::capture::packet::VXLAN_PORT;

/// The interface of a hypervisor and of a gateway on the underlay.
pub const UNDERLAY: &str = "u0";
/// The interface of an instance.
pub const ETHERNET: &str = "eth0";
/// What instances use as the address of their router; nothing ever answers to it.
const ROUTER4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 0, 1));
/// The same for IPv6.
const ROUTER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// Who an instance's packets go to: all of them, also those to its neighbours of the same VPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayAddress {
    /// The gateway's VTEP.
    pub vtep: IpAddr,
    /// The MAC of the gateway's VXLAN device.
    pub mac: Mac,
}

/// A VM, or the share of an SLB that one node serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its namespace's name.
    pub name: String,
    /// The VNI of its VPC.
    pub vni: u32,
    /// Its MAC.
    pub mac: Mac,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
    /// The VTEP of the hypervisor it is on.
    pub vtep: IpAddr,
}

/// A hypervisor's node.
#[derive(Debug)]
pub struct Hypervisor {
    node: Node,
    vtep: IpAddr,
    gateway: GatewayAddress,
    /// The MTU of its instances, bytes.
    mtu: u32,
    overlays: BTreeMap<u32, Overlay>,
}

/// The devices of one VNI.
#[derive(Debug, Clone, Copy)]
struct Overlay {
    bridge: u32,
    vxlan: u32,
}

/// The node of an instance, and the port of its hypervisor that it is plugged into.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) instance: Instance,
    pub(super) node: Node,
    port: u32,
}

impl Hypervisor {
    /// Takes a node that is plugged into the underlay, as `vtep`.
    pub(super) fn new(node: Node, vtep: IpAddr, gateway: GatewayAddress, mtu: u32) -> Self {
        Self {
            node,
            vtep,
            gateway,
            mtu,
            overlays: BTreeMap::new(),
        }
    }

    /// Its node.
    pub fn node(&mut self) -> &mut Node {
        &mut self.node
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Arc<Namespace> {
        self.node.namespace()
    }

    /// The VNIs that it has instances of.
    pub fn vnis(&self) -> impl Iterator<Item = u32> + '_ {
        self.overlays.keys().copied()
    }

    /// The name of its VXLAN device for a VNI.
    pub fn vxlan_device(vni: u32) -> String {
        format!("vx{vni}")
    }

    /// Starts an instance here.
    pub(super) fn start(&mut self, instance: Instance) -> Result<Placed, TopologyError> {
        let node = Node::create(&instance.name, Role::Host)?;
        let mut placed = Placed {
            instance,
            node,
            port: 0,
        };
        self.plug(&mut placed)?;
        Ok(placed)
    }

    /// Takes an instance over from another hypervisor: the node and what runs in it goes on, with
    /// the same MAC and addresses.
    pub(super) fn take_over(
        &mut self,
        placed: &mut Placed,
        from: &mut Hypervisor,
    ) -> Result<(), TopologyError> {
        from.node
            .batch("unplug an instance", &[Request::delete_link(placed.port)])?;
        placed.instance.vtep = self.vtep;
        self.plug(placed)
    }

    /// Sends frames for `mac` of a VNI to another hypervisor: a path that no gateway is on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn learn(&mut self, vni: u32, mac: Mac, vtep: IpAddr) -> Result<(), TopologyError> {
        let overlay = self.overlay(vni)?;
        let requests = [
            Request::replace_forwarding_entry(ForwardingEntry::remote(overlay.vxlan, mac, vtep)),
            Request::replace_forwarding_entry(ForwardingEntry::port(overlay.vxlan, mac)),
        ];
        self.node.batch("add a forwarding entry", &requests)
    }

    /// The devices for a VNI, made when first needed.
    fn overlay(&mut self, vni: u32) -> Result<Overlay, TopologyError> {
        if let Some(overlay) = self.overlays.get(&vni) {
            return Ok(*overlay);
        }
        let bridge = NewLink::bridge(&format!("br{vni}")).mtu(self.mtu);
        let bridge = self.node.add_link(bridge)?.index;
        let vxlan = NewLink::vxlan(&Self::vxlan_device(vni), vni, self.vtep, VXLAN_PORT);
        let vxlan = self
            .node
            .add_link(vxlan.mtu(self.mtu).master(bridge))?
            .index;
        let overlay = Overlay { bridge, vxlan };
        self.overlays.insert(vni, overlay);
        self.learn(vni, self.gateway.mac, self.gateway.vtep)?;
        Ok(overlay)
    }

    fn plug(&mut self, placed: &mut Placed) -> Result<(), TopologyError> {
        let Placed {
            instance,
            node,
            port,
        } = placed;
        let overlay = self.overlay(instance.vni)?;
        let far = self.node.name_cable();
        let cable = NewLink::veth_to(&far, ETHERNET, node.namespace())
            .mtu(self.mtu)
            .peer_mtu(self.mtu)
            .peer_mac(instance.mac)
            .master(overlay.bridge);
        *port = self.node.add_link(cable)?.index;
        let entry = ForwardingEntry::port(*port, instance.mac);
        let entry = Request::replace_forwarding_entry(entry);
        self.node.batch("add a forwarding entry", &[entry])?;

        let inside = node.link(ETHERNET)?.index;
        node.change(
            "bring a link up",
            [LinkChange::of(inside).link_local(false).up(true)],
        )?;
        node.await_ready(ETHERNET)?;
        self.node.await_ready(&far)?;
        let addrs: Vec<IpNet> = instance
            .addrs
            .iter()
            .map(|addr| IpNet::from(*addr))
            .collect();
        node.add_addresses(ETHERNET, &addrs)?;
        for router in [ROUTER4, ROUTER6] {
            if instance
                .addrs
                .iter()
                .any(|addr| addr.is_ipv4() == router.is_ipv4())
            {
                node.add_default_by_mac(ETHERNET, router, self.gateway.mac)?;
            }
        }
        Ok(())
    }
}
