//! A segment: one Ethernet that nodes plug into, made of a bridge in the fabric's namespace.

use ipnet::IpNet;
use netlink::{NewLink, Request};

use super::node::{Node, TopologyError};

/// One Ethernet. Its bridge and the far ends of its cables are in the fabric's node.
#[derive(Debug, Clone)]
pub struct Segment {
    name: String,
    bridge: u32,
    mtu: u32,
    nets: Vec<IpNet>,
}

impl Segment {
    /// A new Ethernet without a plug, named after its bridge (up to 15 letters). `nets` are the
    /// networks that are numbered on it, at most one a family; `mtu` is of its plugs, bytes.
    ///
    /// # Errors
    /// The name is taken or too long.
    pub fn create(
        fabric: &mut Node,
        name: &str,
        nets: &[IpNet],
        mtu: u32,
    ) -> Result<Self, TopologyError> {
        let bridge = fabric.add_link(NewLink::bridge(name).mtu(mtu))?.index;
        let nets = nets.iter().map(IpNet::trunc).collect();
        Ok(Self {
            name: name.to_owned(),
            bridge,
            mtu,
            nets,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The networks numbered on it.
    pub fn nets(&self) -> &[IpNet] {
        &self.nets
    }

    /// Its addresses number `host`, one a network, with the network's length: 10.99.0.3/24 is number 3
    /// of 10.99.0.0/24.
    pub fn addresses(&self, host: u8) -> Vec<IpNet> {
        self.nets.iter().map(|net| numbered(*net, host)).collect()
    }

    /// Plugs a node in: `interface` on the node's side, with the addresses number `host`.
    ///
    /// # Errors
    /// The interface's name is taken.
    pub fn plug(
        &self,
        fabric: &mut Node,
        node: &mut Node,
        interface: &str,
        host: u8,
    ) -> Result<(), TopologyError> {
        self.plug_bare(fabric, node, interface)?;
        node.add_addresses(interface, &self.addresses(host))
    }

    /// Plugs a node in without giving it addresses.
    ///
    /// # Errors
    /// The interface's name is taken.
    pub fn plug_bare(
        &self,
        fabric: &mut Node,
        node: &mut Node,
        interface: &str,
    ) -> Result<(), TopologyError> {
        let far = fabric.name_cable();
        let cable = NewLink::veth_to(&far, interface, node.namespace());
        fabric.add_link(cable.mtu(self.mtu).peer_mtu(self.mtu).master(self.bridge))?;
        node.set_up(interface)?;
        node.await_ready(interface)?;
        fabric.await_ready(&far)
    }

    /// Pulls the plug of a node: its interface is gone.
    ///
    /// # Errors
    /// The node has no such interface.
    pub fn unplug(node: &mut Node, interface: &str) -> Result<(), TopologyError> {
        let index = node.link(interface)?.index;
        node.batch("pull a plug", &[Request::delete_link(index)])
    }
}

/// Address number `host` of a network, with the network's length. The host part of the network must
/// have room for it.
pub fn numbered(net: IpNet, host: u8) -> IpNet {
    match net {
        IpNet::V4(net) => {
            let address = u32::from(net.network()) | u32::from(host);
            ipnet::Ipv4Net::new_assert(address.into(), net.prefix_len()).into()
        }
        IpNet::V6(net) => {
            let address = u128::from(net.network()) | u128::from(host);
            ipnet::Ipv6Net::new_assert(address.into(), net.prefix_len()).into()
        }
    }
}
