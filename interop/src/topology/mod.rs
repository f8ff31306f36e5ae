//! The region of the lab: an IDC with its routers and classic networks on one side, hypervisors
//! with their instances on the other, one gateway between them. Every node is a namespace; what
//! joins them is a fabric of bridges in one more.
//!
//! ```text
//!  classic hosts -- LAN -- router ---+                         +--- hypervisor -- instances
//!                    |               | IDC LAN        underlay |
//!  classic hosts -- LAN -- router ---+------- gateway ---------+--- hypervisor -- instances
//!                          10.99.0.n   .1  idc0     u0   .1       172.16.0.n
//! ```
//!
//! It builds what is outside the gateway and the gateway's two interfaces; it never configures what
//! the product is there to configure.

pub mod hypervisor;
pub mod kernel;
pub mod node;
pub mod records;
pub mod segment;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink::{Mac, Namespace};

pub use hypervisor::{GatewayAddress, Hypervisor, Instance};
pub use kernel::KernelState;
pub use node::{Node, Role, TopologyError};
pub use segment::Segment;

use crate::enter::Lab;
use crate::peer::{self, Daemon, NeighbourConfig, Router, RouterConfig};
use hypervisor::{Placed, UNDERLAY};

/// The interface of gateways and routers on the IDC LAN.
pub const IDC: &str = "idc0";
/// MTU of the IDC LAN, the classic LANs and the underlay, bytes.
pub const MTU: u32 = 1500;
/// MTU of instances, bytes: what is left of an underlay packet after 20 bytes of IPv4, 8 of UDP, 8
/// of VXLAN and 14 of inner Ethernet.
pub const INSTANCE_MTU: u32 = MTU - 50;
/// The gateway's number on both of its segments.
const GATEWAY_HOST: u8 = 1;

/// The fixed points of the region.
pub mod plan {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use netlink::Mac;

    /// The gateway on the IDC LAN: the neighbour of the routers.
    pub const GATEWAY4: Ipv4Addr = idc4(1);
    /// The gateway on the IDC LAN, IPv6.
    pub const GATEWAY6: Ipv6Addr = idc6(1);
    /// The gateway's VTEP.
    pub const GATEWAY_VTEP: Ipv4Addr = vtep(1);
    /// The name of a second gateway.
    pub const PARTNER: &str = "gw2";
    /// Its number on the IDC LAN and on the underlay.
    pub const PARTNER_HOST: u8 = 9;
    /// A second gateway on the IDC LAN.
    pub const PARTNER4: Ipv4Addr = idc4(PARTNER_HOST);
    /// A second gateway on the IDC LAN, IPv6.
    pub const PARTNER6: Ipv6Addr = idc6(PARTNER_HOST);
    /// The VTEP of a second gateway.
    pub const PARTNER_VTEP: Ipv4Addr = vtep(PARTNER_HOST);
    /// The MAC of the VXLAN device of each gateway.
    pub const GATEWAY_MAC: Mac = Mac([0x02, 0xcc, 0x0e, 0, 0, 0x01]);
    /// The gateway's AS.
    pub const GATEWAY_AS: u32 = 65001;
    /// Prefix length of the IDC LAN and of the underlay.
    pub const LENGTH4: u8 = 24;
    /// Prefix length of the IDC LAN, IPv6.
    pub const LENGTH6: u8 = 64;

    /// Address number `host` of the IDC LAN.
    pub const fn idc4(host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, host)
    }

    /// Address number `host` of the IDC LAN, IPv6.
    pub const fn idc6(host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, host as u16)
    }

    /// Address number `host` of the underlay.
    pub const fn vtep(host: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, 16, 0, host)
    }
}

/// A router to be added to the region.
#[derive(Debug, Clone, Copy)]
pub struct RouterPlan<'a> {
    /// Its program.
    pub daemon: Daemon,
    /// Its name, and that of its node.
    pub name: &'a str,
    /// Its number on the IDC LAN: 2 to 254.
    pub number: u8,
    /// Its AS.
    pub asn: u32,
    /// The classic LANs it serves and announces.
    pub lans: &'a [&'a str],
}

/// Settings of the region that the product decides on or that tests vary.
#[derive(Debug, Clone)]
pub struct RegionConfig {
    /// The MAC of the gateway's VXLAN device: instances address their frames to it.
    pub gateway_mac: Mac,
    /// The gateway's AS, which the routers expect.
    pub gateway_as: u32,
}

impl Default for RegionConfig {
    fn default() -> Self {
        Self {
            gateway_mac: plan::GATEWAY_MAC,
            gateway_as: plan::GATEWAY_AS,
        }
    }
}

/// A classic host.
#[derive(Debug)]
pub struct ClassicHost {
    node: Node,
    addrs: Vec<IpAddr>,
}

/// The region: see the module's head.
#[derive(Debug)]
pub struct Region {
    config: RegionConfig,
    fabric: Node,
    idc: Segment,
    underlay: Segment,
    gateway: Node,
    more_gateways: Vec<Node>,
    routers: BTreeMap<String, Node>,
    lans: BTreeMap<String, Lan>,
    hosts: BTreeMap<String, ClassicHost>,
    hypervisors: BTreeMap<IpAddr, Hypervisor>,
    instances: BTreeMap<String, Placed>,
}

#[derive(Debug)]
struct Lan {
    segment: Segment,
    /// The numbers its routers have on it, by router.
    routers: BTreeMap<String, u8>,
}

impl Region {
    /// The two segments with the gateway's node on both; nothing else yet.
    ///
    /// # Errors
    /// The kernel refuses a step. That so with all methods here.
    pub fn build(_lab: &Lab, config: RegionConfig) -> Result<Self, TopologyError> {
        let mut fabric = Node::create("fabric", Role::Switch)?;
        let idc4 = Ipv4Net::new_assert(plan::idc4(0), plan::LENGTH4);
        let idc6 = Ipv6Net::new_assert(plan::idc6(0), plan::LENGTH6);
        let vteps = Ipv4Net::new_assert(plan::vtep(0), plan::LENGTH4);
        let idc = Segment::create(&mut fabric, "idc", &[idc4.into(), idc6.into()], MTU)?;
        let underlay = Segment::create(&mut fabric, "underlay", &[vteps.into()], MTU)?;
        let mut gateway = Node::create("gw", Role::Router)?;
        idc.plug(&mut fabric, &mut gateway, IDC, GATEWAY_HOST)?;
        underlay.plug(&mut fabric, &mut gateway, UNDERLAY, GATEWAY_HOST)?;
        Ok(Self {
            config,
            fabric,
            idc,
            underlay,
            gateway,
            more_gateways: Vec::new(),
            routers: BTreeMap::new(),
            lans: BTreeMap::new(),
            hosts: BTreeMap::new(),
            hypervisors: BTreeMap::new(),
            instances: BTreeMap::new(),
        })
    }

    /// The gateway's node: where the agent runs.
    pub fn gateway(&mut self) -> &mut Node {
        &mut self.gateway
    }

    /// Adds the node of a second gateway, `gw2`, on both segments. Hypervisors keep to the first until they are
    /// [pointed at](Region::point_hypervisors_at) it.
    ///
    /// # Errors
    /// See [`Region::build`].
    pub fn add_partner(&mut self) -> Result<Arc<Namespace>, TopologyError> {
        self.add_gateway(plan::PARTNER, plan::PARTNER_HOST)
    }

    /// Adds the node of one more gateway, as number `host` of both segments; no router expects it.
    ///
    /// # Errors
    /// See [`Region::build`].
    pub fn add_gateway(&mut self, name: &str, host: u8) -> Result<Arc<Namespace>, TopologyError> {
        let mut node = Node::create(name, Role::Router)?;
        self.idc.plug(&mut self.fabric, &mut node, IDC, host)?;
        self.underlay
            .plug(&mut self.fabric, &mut node, UNDERLAY, host)?;
        let namespace = node.namespace().clone();
        self.more_gateways.push(node);
        Ok(namespace)
    }

    /// Has every hypervisor send what its instances send to the gateway with this VTEP.
    ///
    /// # Errors
    /// See [`Region::build`].
    pub fn point_hypervisors_at(&mut self, vtep: IpAddr) -> Result<(), TopologyError> {
        let mac = self.config.gateway_mac;
        for hypervisor in self.hypervisors.values_mut() {
            let vnis: Vec<u32> = hypervisor.vnis().collect();
            for vni in vnis {
                hypervisor.learn(vni, mac, vtep)?;
            }
        }
        Ok(())
    }

    /// The gateway's namespace.
    pub fn gateway_namespace(&self) -> Arc<Namespace> {
        self.gateway.namespace().clone()
    }

    /// The gateway as instances see it.
    pub fn gateway_address(&self) -> GatewayAddress {
        GatewayAddress {
            vtep: plan::GATEWAY_VTEP.into(),
            mac: self.config.gateway_mac,
        }
    }

    /// Adds a classic LAN with these networks (one a family at most). Its bridge has its name.
    ///
    /// # Errors
    /// See [`Region::build`].
    pub fn add_lan(&mut self, name: &str, nets: &[IpNet]) -> Result<(), TopologyError> {
        let segment = Segment::create(&mut self.fabric, name, nets, MTU)?;
        self.lans.insert(
            name.to_owned(),
            Lan {
                segment,
                routers: BTreeMap::new(),
            },
        );
        Ok(())
    }

    /// Adds a router with one session, to the gateway, announcing the networks of its LANs; `change`
    /// may alter its configuration. It is not started.
    ///
    /// # Errors
    /// See [`Region::build`]; or there is no such LAN.
    pub fn add_router(
        &mut self,
        lab: &Lab,
        plan: &RouterPlan<'_>,
        change: impl FnOnce(&mut RouterConfig),
    ) -> Result<Box<dyn Router>, TopologyError> {
        let name = plan.name;
        let mut node = Node::create(name, Role::Router)?;
        self.idc
            .plug(&mut self.fabric, &mut node, IDC, plan.number)?;
        let mut announced = Vec::new();
        for (index, lan_name) in plan.lans.iter().enumerate() {
            let lan = self
                .lans
                .get_mut(*lan_name)
                .ok_or_else(|| absent(name, "LAN", lan_name))?;
            // The first router of a LAN is number 1 there, the second 2, and so on.
            let number = lan.routers.len() as u8 + 1;
            lan.segment
                .plug(&mut self.fabric, &mut node, &format!("lan{index}"), number)?;
            lan.routers.insert(name.to_owned(), number);
            announced.extend_from_slice(lan.segment.nets());
        }
        let gateway = plan::GATEWAY4.into();
        let address = plan::idc4(plan.number);
        let mut config = RouterConfig {
            name: name.to_owned(),
            asn: plan.asn,
            router_id: address,
            address,
            address6: plan::idc6(plan.number),
            neighbours: vec![NeighbourConfig::new("gw", gateway, self.config.gateway_as)],
            announced,
            communities: Vec::new(),
            large_communities: Vec::new(),
        };
        change(&mut config);
        let namespace = Arc::clone(node.namespace());
        self.routers.insert(name.to_owned(), node);
        Ok(peer::router(plan.daemon, config, namespace, lab))
    }

    /// The node of a router.
    ///
    /// # Errors
    /// There is no such router.
    pub fn router_node(&mut self, name: &str) -> Result<&mut Node, TopologyError> {
        self.routers
            .get_mut(name)
            .ok_or_else(|| absent("region", "router", name))
    }

    /// Adds a host number `number` to a classic LAN, with its default routes by `routers` (several
    /// share its flows).
    ///
    /// # Errors
    /// See [`Region::build`]; or there is no such LAN, or a router does not serve it.
    pub fn add_host(
        &mut self,
        name: &str,
        lan: &str,
        number: u8,
        routers: &[&str],
    ) -> Result<&ClassicHost, TopologyError> {
        let lan = self.lans.get(lan).ok_or_else(|| absent(name, "LAN", lan))?;
        let mut node = Node::create(name, Role::Host)?;
        lan.segment
            .plug(&mut self.fabric, &mut node, hypervisor::ETHERNET, number)?;
        for net in lan.segment.nets() {
            let via = routers
                .iter()
                .map(|router| {
                    let number = lan.routers.get(*router);
                    let number = number.ok_or_else(|| absent(name, "router on its LAN", router))?;
                    Ok(segment::numbered(*net, *number).addr())
                })
                .collect::<Result<Vec<_>, TopologyError>>()?;
            node.add_route(netlink::Family::of(net.addr()).everything(), &via)?;
        }
        let addrs = lan
            .segment
            .addresses(number)
            .iter()
            .map(IpNet::addr)
            .collect();
        Ok(self
            .hosts
            .entry(name.to_owned())
            .or_insert(ClassicHost { node, addrs }))
    }

    /// A classic host.
    ///
    /// # Errors
    /// There is no such host.
    pub fn host(&self, name: &str) -> Result<&ClassicHost, TopologyError> {
        self.hosts
            .get(name)
            .ok_or_else(|| absent("region", "classic host", name))
    }

    /// Starts an instance, on the hypervisor of its VTEP, which is added if it is new.
    ///
    /// # Errors
    /// See [`Region::build`].
    pub fn add_instance(&mut self, instance: Instance) -> Result<(), TopologyError> {
        let name = instance.name.clone();
        let placed = self.hypervisor(instance.vtep)?.start(instance)?;
        self.instances.insert(name, placed);
        Ok(())
    }

    /// An instance.
    ///
    /// # Errors
    /// There is no such instance.
    pub fn instance(&self, name: &str) -> Result<&Instance, TopologyError> {
        let placed = self
            .instances
            .get(name)
            .ok_or_else(|| absent("region", "instance", name))?;
        Ok(&placed.instance)
    }

    /// The node of an instance.
    ///
    /// # Errors
    /// There is no such instance.
    pub fn instance_node(&mut self, name: &str) -> Result<&mut Node, TopologyError> {
        let placed = self.instances.get_mut(name);
        Ok(&mut placed
            .ok_or_else(|| absent("region", "instance", name))?
            .node)
    }

    /// The namespace of any node of the region, by the node's name.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn namespace(&self, name: &str) -> Result<Arc<Namespace>, TopologyError> {
        let hypervisors = self.hypervisors.values().map(Hypervisor::namespace);
        let nodes = [&self.fabric, &self.gateway]
            .into_iter()
            .chain(&self.more_gateways)
            .chain(self.routers.values())
            .chain(self.hosts.values().map(|host| &host.node))
            .chain(self.instances.values().map(|placed| &placed.node));
        nodes
            .map(Node::namespace)
            .chain(hypervisors)
            .find(|namespace| namespace.path().ends_with(name))
            .map(Arc::clone)
            .ok_or_else(|| absent("region", "node", name))
    }

    /// Moves an instance to another hypervisor, with everything that runs in it. The gateway is not
    /// told: that is for the record to do.
    ///
    /// # Errors
    /// See [`Region::build`]; or there is no such instance, or it is there already.
    pub fn move_instance(&mut self, name: &str, to: IpAddr) -> Result<(), TopologyError> {
        let from = self.instance(name)?.vtep;
        self.hypervisor(to)?;
        let mut source = self
            .hypervisors
            .remove(&from)
            .ok_or_else(|| absent(name, "other hypervisor", name))?;
        let moved = match (self.hypervisors.get_mut(&to), self.instances.get_mut(name)) {
            (Some(target), Some(placed)) => target.take_over(placed, &mut source),
            _ => Err(absent(name, "other hypervisor", &to.to_string())),
        };
        self.hypervisors.insert(from, source);
        moved
    }

    /// The hypervisor with this VTEP, made when first needed: `hv` and its number on the underlay.
    ///
    /// # Errors
    /// See [`Region::build`]; or the VTEP is not on the underlay.
    pub fn hypervisor(&mut self, vtep: IpAddr) -> Result<&mut Hypervisor, TopologyError> {
        if !self.hypervisors.contains_key(&vtep) {
            let made = self.make_hypervisor(vtep)?;
            self.hypervisors.insert(vtep, made);
        }
        self.hypervisors
            .get_mut(&vtep)
            .ok_or_else(|| absent("region", "hypervisor", &vtep.to_string()))
    }

    fn make_hypervisor(&mut self, vtep: IpAddr) -> Result<Hypervisor, TopologyError> {
        let number = (2..255).find(|number| IpAddr::from(plan::vtep(*number)) == vtep);
        let number = number.ok_or_else(|| absent("underlay", "VTEP", &vtep.to_string()))?;
        let mut node = Node::create(&format!("hv{number}"), Role::Switch)?;
        self.underlay
            .plug(&mut self.fabric, &mut node, UNDERLAY, number)?;
        Ok(Hypervisor::new(
            node,
            vtep,
            self.gateway_address(),
            INSTANCE_MTU,
        ))
    }
}

impl ClassicHost {
    /// Its namespace.
    pub fn namespace(&self) -> &Arc<Namespace> {
        self.node.namespace()
    }

    /// Its IPv4 and IPv6 addresses, where its LAN has networks of both.
    pub fn addrs(&self) -> &[IpAddr] {
        &self.addrs
    }
}

fn absent(node: &str, what: &str, name: &str) -> TopologyError {
    TopologyError::new(node, format!("find {what} {name}"), "there is none")
}
