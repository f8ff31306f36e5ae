//! A node: one network namespace with its settings, links, addresses and routes.

use std::error::Error;
use std::fmt::Display;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use netlink::{
    Address, Link, LinkChange, LinkStats, Mac, Namespace, Neighbour, NewLink, NextHop, Request,
    Route, Socket,
};

use crate::enter::Chain;
use crate::wait::eventually;

/// How long a link may take from plugging in both ends until it carries packets.
const READY: Duration = Duration::from_secs(10);

/// A step of building or changing the topology failed.
#[derive(Debug, thiserror::Error)]
#[error("{node}: cannot {action}")]
pub struct TopologyError {
    /// The node it happened on.
    pub node: String,
    /// What was tried.
    pub action: String,
    /// The answer.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl TopologyError {
    pub(super) fn new(
        node: &str,
        action: impl Display,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            node: node.to_owned(),
            action: action.to_string(),
            source: source.into(),
        }
    }
}

/// What a node does with packets that are not for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Drops them: hosts and VMs.
    Host,
    /// Forwards them: routers and gateways.
    Router,
    /// Has switches only, and speaks IP on the interfaces that were given addresses: it sends
    /// nothing of its own that a count of packets would see.
    Switch,
}

/// A network namespace of the lab and what is in it. It is deleted on drop.
#[derive(Debug)]
pub struct Node {
    name: String,
    namespace: Arc<Namespace>,
    socket: Socket,
    /// How many cable ends were named here.
    cables: u32,
}

/// Settings of every node: addresses are used at once, nothing is configured behind the lab's
/// back, and a packet is not judged by the way it came.
const SETTINGS: [(&str, &str); 8] = [
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/dad_transmits", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
];

/// Bridges of the lab hand frames on by themselves, whatever firewall this machine has loaded. Only there
/// where a kernel has `br_netfilter`.
const BRIDGES: [&str; 3] = [
    "net/bridge/bridge-nf-call-arptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-iptables",
];

impl Node {
    /// Makes a namespace of this name (`ip netns exec NAME` finds it inside the lab), with its
    /// loopback up.
    ///
    /// # Errors
    /// The name is taken, or the system refuses.
    pub fn create(name: &str, role: Role) -> Result<Self, TopologyError> {
        let namespace = Namespace::create(name)
            .map_err(|error| TopologyError::new(name, "make its namespace", error))?;
        let socket = Socket::open_in(&namespace)
            .map_err(|error| TopologyError::new(name, "open a netlink socket", error))?;
        let mut node = Self {
            name: name.to_owned(),
            namespace: Arc::new(namespace),
            socket,
            cables: 0,
        };
        for (key, value) in SETTINGS {
            node.set(key, value)?;
        }
        let forwarding = if role == Role::Router { "1" } else { "0" };
        node.set("net/ipv4/ip_forward", forwarding)?;
        node.set("net/ipv6/conf/all/forwarding", forwarding)?;
        // Flows, not pairs of hosts, share several equal routes.
        node.set("net/ipv4/fib_multipath_hash_policy", "1")?;
        node.set("net/ipv6/fib_multipath_hash_policy", "1")?;
        if role == Role::Switch {
            node.set("net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        for key in BRIDGES {
            if Path::new("/proc/sys").join(key).exists() {
                node.set(key, "0")?;
            }
        }
        node.set_up("lo")?;
        Ok(node)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace, to run things in.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Its netlink socket, for what has no method here.
    pub fn netlink(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Writes one of its kernel settings: `net/ipv4/ip_forward`, with slashes.
    ///
    /// # Errors
    /// There is no such setting, or the value is refused.
    pub fn set(&self, key: &str, value: &str) -> Result<(), TopologyError> {
        let path = Path::new("/proc/sys").join(key);
        let written = match self.namespace.enter(|| fs::write(path, value)) {
            Ok(written) => written.map_err(Into::into),
            Err(error) => Err(error.into()),
        };
        written.map_err(|error: Box<dyn Error + Send + Sync>| {
            TopologyError::new(&self.name, format!("set {key} to {value}"), error)
        })
    }

    /// One of its links by name.
    ///
    /// # Errors
    /// There is none.
    pub fn link(&mut self, name: &str) -> Result<Link, TopologyError> {
        let action = format!("find link {name}");
        match self.socket.link(name) {
            Ok(Some(link)) => Ok(link),
            Ok(None) => Err(TopologyError::new(&self.name, action, "there is none")),
            Err(error) => Err(TopologyError::new(&self.name, action, error)),
        }
    }

    /// Packets and bytes one of its links has seen since it was made.
    ///
    /// # Errors
    /// There is no such link.
    pub fn counters(&mut self, link: &str) -> Result<LinkStats, TopologyError> {
        Ok(self.link(link)?.stats)
    }

    /// Makes a link, brings it up, and reads it back. It gets no link-local address by itself.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_link(&mut self, link: NewLink) -> Result<Link, TopologyError> {
        let action = format!("make {link}");
        let made = self
            .socket
            .create_link(link)
            .map_err(|error| TopologyError::new(&self.name, action, error))?;
        self.change(
            "bring a link up",
            [LinkChange::of(made.index).link_local(false).up(true)],
        )?;
        Ok(made)
    }

    /// Brings one of its links up.
    ///
    /// # Errors
    /// There is no such link, or the kernel refuses.
    pub fn set_up(&mut self, link: &str) -> Result<(), TopologyError> {
        let index = self.link(link)?.index;
        self.change("bring a link up", [LinkChange::of(index).up(true)])
    }

    /// Waits until one of its links carries packets: the kernel notices a carrier in its own time,
    /// and until then drops what is sent.
    ///
    /// # Errors
    /// There is no such link, or its other end is down.
    pub fn await_ready(&mut self, link: &str) -> Result<(), TopologyError> {
        let ready = eventually("its operational state is up", READY, || {
            match self.link(link) {
                Ok(link) if link.operational => Ok(()),
                Ok(_) => Err("it is down".to_owned()),
                Err(error) => Err(Chain(&error).to_string()),
            }
        });
        ready.map_err(|error| TopologyError::new(&self.name, format!("use link {link}"), error))
    }

    /// Takes one of its links down, as a pulled cable would.
    ///
    /// # Errors
    /// There is no such link, or the kernel refuses.
    pub fn set_down(&mut self, link: &str) -> Result<(), TopologyError> {
        let index = self.link(link)?.index;
        self.change("take a link down", [LinkChange::of(index).up(false)])
    }

    /// Gives a link addresses, each with the length of its network.
    ///
    /// # Errors
    /// There is no such link, or the kernel refuses.
    pub fn add_addresses(&mut self, link: &str, addrs: &[IpNet]) -> Result<(), TopologyError> {
        let index = self.link(link)?.index;
        if addrs.iter().any(|addr| addr.addr().is_ipv6()) {
            self.set(&format!("net/ipv6/conf/{link}/disable_ipv6"), "0")?;
        }
        let requests: Vec<_> = addrs
            .iter()
            .map(|addr| Request::add_address(Address::new(index, *addr)))
            .collect();
        self.batch("give a link its addresses", &requests)
    }

    /// Adds a route by one or several routers (that share flows evenly).
    ///
    /// # Errors
    /// A router is not on any of the node's networks, or the kernel refuses.
    pub fn add_route(&mut self, to: IpNet, via: &[IpAddr]) -> Result<(), TopologyError> {
        let mut route = Route::new(to, NextHop::dev(0));
        route.next_hops = via.iter().map(|router| NextHop::via(*router, 0)).collect();
        self.batch("add a route", &[Request::replace_route(route)])
    }

    /// Adds a default route by a router that is known by its MAC alone: nothing is asked on the
    /// link. `router` may be an address of no network at all.
    ///
    /// # Errors
    /// There is no such link, or the kernel refuses.
    pub fn add_default_by_mac(
        &mut self,
        link: &str,
        router: IpAddr,
        mac: Mac,
    ) -> Result<(), TopologyError> {
        let index = self.link(link)?.index;
        let mut hop = NextHop::via(router, index);
        hop.onlink = true;
        let everything = netlink::Family::of(router).everything();
        let requests = [
            Request::replace_neighbour(Neighbour::permanent(index, router, mac)),
            Request::replace_route(Route::new(everything, hop)),
        ];
        self.batch("add a default route", &requests)
    }

    /// Carries out requests; the first that is refused is the error.
    ///
    /// # Errors
    /// The kernel refuses one; the others are carried out.
    pub fn batch(&mut self, action: &str, requests: &[Request]) -> Result<(), TopologyError> {
        self.socket
            .batch(requests)
            .map_err(|error| TopologyError::new(&self.name, action, error))
    }

    /// A name for one more cable's end; nobody needs to know it, but the kernel.
    pub(super) fn name_cable(&mut self) -> String {
        self.cables += 1;
        format!("cable{}", self.cables)
    }

    pub(super) fn change(
        &mut self,
        action: &str,
        changes: impl IntoIterator<Item = LinkChange>,
    ) -> Result<(), TopologyError> {
        let requests: Vec<_> = changes.into_iter().map(Request::change_link).collect();
        self.batch(action, &requests)
    }
}
