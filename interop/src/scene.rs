//! The small region of `fixtures/`, up and running: its instances, two classic networks with a
//! host each, BIRD routers, and the gateway with every record imported and nothing linked.
//!
//! What most tests of the product begin with. It judges nothing; the tests do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bgp::Family;
use ccn::region::{self, RegionError};
use ccn::store::embedded::EmbeddedStore;
use ccn::store::{Change, Precondition, Store, StoreError};
use ipnet::IpNet;
use netlink::{Namespace, RouteFilter};
use serde_json::Value;

use crate::enter::Lab;
use crate::etcd::{Etcd, EtcdError};
use crate::gateway::{Gateway, GatewayConfig, GatewayError, PeerSection};
use crate::peer::{Daemon, NeighbourConfig, PeerError, Router, RouterConfig};
use crate::topology::{
    KernelState, Node, Region, RegionConfig, RouterPlan, TopologyError, plan, records,
};
use crate::wait::{TimedOut, eventually};

/// How long a session, a route or a link may take on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(30);
/// The hold time of every session, in seconds: longer than the kernel's netlink lock is ever held on a busy machine
/// (seen: 11 s, by whoever attached a program or ended a namespace in another lab). A BIRD that waits for it is silent.
const HOLD_TIME: u16 = 60;
/// The route protocol number of the gateway's own routes and rules.
pub const OWN_PROTOCOL: u8 = 77;
/// The networks of the classic LAN `office`, which the classic network of that name is.
pub const OFFICE: [&str; 2] = ["10.80.1.0/24", "fd80:1::/64"];
/// The networks of the classic LAN `lab`.
pub const LAB: [&str; 2] = ["10.80.2.0/24", "fd80:2::/64"];
/// The subnets of VPC `web` (and of `web-test`, which is in another CCSI).
pub const WEB: [&str; 2] = ["10.1.0.0/24", "fd00:1::/64"];

/// The scene could not be set.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    /// The fixture cannot be read.
    #[error("the fixture")]
    Fixture(#[from] RegionError),
    /// The nodes.
    #[error("the topology")]
    Topology(#[from] TopologyError),
    /// A router.
    #[error(transparent)]
    Router(#[from] PeerError),
    /// The gateway.
    #[error("the gateway")]
    Gateway(#[from] GatewayError),
    /// The store's file.
    #[error("the store")]
    Store(#[from] StoreError),
    /// etcd.
    #[error("etcd")]
    Etcd(#[from] EtcdError),
    /// The system gave no directory for etcd.
    #[error("a directory for etcd")]
    Directory(#[source] std::io::Error),
    /// The gateway was started without an etcd.
    #[error("no etcd was started")]
    NoStore,
    /// The system gave no runtime.
    #[error("a runtime")]
    Runtime(#[source] std::io::Error),
    /// A network that is none.
    #[error("not a network: {0}")]
    Net(#[from] ipnet::AddrParseError),
    /// Something did not happen in time.
    #[error(transparent)]
    Late(#[from] TimedOut),
}

/// The region on stage. Fields are for tests to work on.
pub struct Scene {
    /// Nodes and instances. VMs are called `VM@VPC`, nodes of an SLB `SLB@VPC#NUMBER`; the hosts are
    /// `alice` in `office` and `carol` in `lab`, both number 10 of their LANs.
    pub region: Region,
    /// The gateway, with its agent started.
    pub gateway: Gateway,
    /// The routers `bird-1` and up, each serving both LANs.
    pub routers: Vec<Box<dyn Router>>,
}

impl Scene {
    /// The whole region with `routers` BIRDs (1 to 3), started, sessions up, what they announce in
    /// the gateway's kernel.
    ///
    /// # Errors
    /// A step fails or takes too long.
    pub fn start(lab: &Lab, routers: u8) -> Result<Self, SceneError> {
        Self::start_with(lab, routers, |_| {})
    }

    /// [`Scene::start`], with the agent's configuration altered by `change`.
    ///
    /// # Errors
    /// As for [`Scene::start`].
    pub fn start_with(
        lab: &Lab,
        routers: u8,
        change: impl FnOnce(&mut GatewayConfig),
    ) -> Result<Self, SceneError> {
        Self::start_adjusted(lab, routers, change, |_| {})
    }

    /// [`Scene::start`], with the configuration of the agent altered by `change` and those of the routers by `adjust`.
    ///
    /// # Errors
    /// As for [`Scene::start`].
    pub fn start_adjusted(
        lab: &Lab,
        routers: u8,
        change: impl FnOnce(&mut GatewayConfig),
        adjust: impl Fn(&mut RouterConfig),
    ) -> Result<Self, SceneError> {
        Self::set(lab, routers, adjust, |gateway, _| {
            change(&mut gateway.config);
            Ok(())
        })
    }

    /// [`Scene::start`] with one router and two gateways, each with the records in a store of its own and altered by
    /// `change`. The router shares flows between them, and uses one that is about to go last. Hypervisors send to the
    /// first.
    ///
    /// # Errors
    /// As for [`Scene::start`].
    pub fn start_pair(
        lab: &Lab,
        change: impl Fn(&mut GatewayConfig),
    ) -> Result<(Self, Gateway), SceneError> {
        Self::start_pair_with(lab, change, |_| {})
    }

    /// [`Scene::start_pair`], with the router's configuration altered by `adjust`.
    ///
    /// # Errors
    /// As for [`Scene::start`].
    pub fn start_pair_with(
        lab: &Lab,
        change: impl Fn(&mut GatewayConfig),
        adjust: impl Fn(&mut RouterConfig),
    ) -> Result<(Self, Gateway), SceneError> {
        let mut scene = Self::set(lab, 1, expecting_partner(adjust), |gateway, _| {
            change(&mut gateway.config);
            Ok(())
        })?;
        let partner = scene.add_partner(lab, |partner| {
            change(&mut partner.config);
            Ok(())
        })?;
        Ok((scene, partner))
    }

    /// [`Scene::start_pair`], with the records of both in one etcd, which runs beside the first.
    ///
    /// # Errors
    /// As for [`Scene::start`]; or etcd does not come up.
    pub fn start_pair_on_etcd(lab: &Lab) -> Result<(Self, Gateway, Etcd), SceneError> {
        let mut etcd = None;
        let mut scene = Self::set(lab, 1, expecting_partner(|_| {}), |gateway, namespace| {
            let directory = lab.scratch().join("etcd");
            std::fs::create_dir_all(&directory).map_err(SceneError::Directory)?;
            let (logs, namespace) = (lab.scratch(), Some(namespace.clone()));
            let started = Etcd::start_at(plan::GATEWAY4, &directory, logs, namespace, 1)?;
            gateway.store_in(&started);
            etcd = Some(started);
            Ok(())
        })?;
        let etcd = etcd.ok_or(SceneError::NoStore)?;
        let partner = scene.add_partner(lab, |partner| {
            partner.store_in(&etcd);
            Ok(())
        })?;
        Ok((scene, partner, etcd))
    }

    /// The second gateway, which every router expects.
    fn add_partner(
        &mut self,
        lab: &Lab,
        prepare: impl FnOnce(&mut Gateway) -> Result<(), SceneError>,
    ) -> Result<Gateway, SceneError> {
        let namespace = self.region.add_partner()?;
        let mac = self.region.gateway_address().mac;
        let routers = self.routers.iter();
        let mut partner = Gateway::partner(
            lab,
            namespace,
            mac,
            routers.map(|router| section(router.config())),
        )?;
        prepare(&mut partner)?;
        partner.start()?;
        // Where both have one store this changes nothing.
        partner.ccn(["import".as_ref(), fixture().as_os_str()])?;
        partner.await_settled(SOON)?;
        for router in &self.routers {
            router.await_established(plan::PARTNER4.into(), SOON)?;
        }
        Ok(partner)
    }

    /// [`Scene::start`], with the records in an etcd of so many members, which run beside the agent.
    ///
    /// # Errors
    /// As for [`Scene::start`]; or etcd does not come up.
    pub fn start_on_etcd(
        lab: &Lab,
        routers: u8,
        members: usize,
    ) -> Result<(Self, Etcd), SceneError> {
        Self::on_etcd(lab, routers, members, |_| {})
    }

    /// The same with one router, and the gateway altered by `change`.
    ///
    /// # Errors
    /// As for [`Scene::start_on_etcd`].
    pub fn start_on_etcd_with(
        lab: &Lab,
        members: usize,
        change: impl FnOnce(&mut Gateway),
    ) -> Result<(Self, Etcd), SceneError> {
        Self::on_etcd(lab, 1, members, change)
    }

    fn on_etcd(
        lab: &Lab,
        routers: u8,
        members: usize,
        change: impl FnOnce(&mut Gateway),
    ) -> Result<(Self, Etcd), SceneError> {
        let mut etcd = None;
        let prepare = |gateway: &mut Gateway, namespace: &Arc<Namespace>| {
            let directory = lab.scratch().join("etcd");
            std::fs::create_dir_all(&directory).map_err(SceneError::Directory)?;
            let namespace = Some(namespace.clone());
            let started = Etcd::start(&directory, lab.scratch(), namespace, members)?;
            gateway.store_in(&started);
            change(gateway);
            etcd = Some(started);
            Ok(())
        };
        let scene = Self::set(lab, routers, |_| {}, prepare)?;
        Ok((scene, etcd.ok_or(SceneError::NoStore)?))
    }

    fn set(
        lab: &Lab,
        routers: u8,
        adjust: impl Fn(&mut RouterConfig),
        prepare: impl FnOnce(&mut Gateway, &Arc<Namespace>) -> Result<(), SceneError>,
    ) -> Result<Self, SceneError> {
        let mut region = Region::build(lab, RegionConfig::default())?;
        region.add_lan("office", &nets(&OFFICE)?)?;
        region.add_lan("lab", &nets(&LAB)?)?;
        let names: Vec<String> = (1..=routers)
            .map(|number| format!("bird-{number}"))
            .collect();
        let mut birds = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let number = index as u8 + 2;
            let router = RouterPlan {
                daemon: Daemon::Bird,
                name,
                number,
                asn: 65_000 + u32::from(number),
                lans: &["office", "lab"],
            };
            let adjust = |router: &mut RouterConfig| {
                for neighbour in &mut router.neighbours {
                    neighbour.hold_time = HOLD_TIME;
                }
                adjust(router);
            };
            birds.push(region.add_router(lab, &router, adjust)?);
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        region.add_host("alice", "office", 10, &names)?;
        region.add_host("carol", "lab", 10, &names)?;
        let entries = region::read(&fixture())?;
        for instance in records::instances(entries.iter().map(|e| (&e.key, &e.record))) {
            region.add_instance(instance)?;
        }
        for router in &mut birds {
            router.start()?;
        }
        let gateway = start_gateway(lab, &mut region, &birds, prepare)?;
        let mut scene = Self {
            region,
            gateway,
            routers: birds,
        };
        for router in &scene.routers {
            router.await_established(plan::GATEWAY4.into(), SOON)?;
        }
        scene.await_path(&[], &nets(&OFFICE)?)?;
        scene.await_path(&[], &nets(&LAB)?)?;
        Ok(scene)
    }

    /// The gateway with its records and nobody around it: for what needs no packet.
    ///
    /// # Errors
    /// A step fails or takes too long.
    pub fn start_alone(
        lab: &Lab,
        change: impl FnOnce(&mut GatewayConfig),
    ) -> Result<Self, SceneError> {
        let mut region = Region::build(lab, RegionConfig::default())?;
        let gateway = start_gateway(lab, &mut region, &[], |gateway, _| {
            change(&mut gateway.config);
            Ok(())
        })?;
        Ok(Self {
            region,
            gateway,
            routers: Vec::new(),
        })
    }

    /// Links a VPC, and waits until packets can flow: every router has the VPC's subnets in its
    /// kernel, and the gateway has a route to `classic` over all routers. Answers what `ccn link`
    /// printed.
    ///
    /// # Errors
    /// The agent refuses, or it takes too long.
    pub fn link(&mut self, vpc: &str, classic: &str, via: &[&str]) -> Result<Value, SceneError> {
        let link = self.gateway.json(["link", vpc, "--classic", classic])?;
        let subnets: Vec<IpNet> = link["subnets"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|subnet| subnet.as_str()?.parse().ok())
            .collect();
        self.await_path(&subnets, &nets(via)?)?;
        Ok(link)
    }

    /// Waits until each router's kernel has the subnets and the gateway's has the classic networks
    /// over every router.
    ///
    /// # Errors
    /// Not in time, with what was seen.
    pub fn await_path(&mut self, subnets: &[IpNet], classic: &[IpNet]) -> Result<(), SceneError> {
        for router in &self.routers {
            let node = self.region.router_node(&router.config().name)?;
            for subnet in subnets {
                await_route(node, *subnet, 1)?;
            }
        }
        for net in classic {
            await_route(self.region.gateway(), *net, self.routers.len())?;
        }
        Ok(())
    }

    /// Waits until the first router's kernel has the IPv4 subnet of VPC `web` over so many gateways.
    ///
    /// # Errors
    /// Not in time, with what was seen.
    pub fn await_spread(&mut self, gateways: usize) -> Result<(), SceneError> {
        let name = self.routers[0].config().name.clone();
        let node = self.region.router_node(&name)?;
        Ok(await_route(node, nets(&WEB)?[0], gateways)?)
    }

    /// Waits until the first router has exactly these prefixes of the gateway.
    ///
    /// # Errors
    /// Not in time, with what was seen.
    pub fn await_exactly(&self, prefixes: &[&str]) -> Result<(), SceneError> {
        let expected: BTreeSet<IpNet> = nets(prefixes)?.into_iter().collect();
        let what = format!("the router has exactly {expected:?}");
        eventually(what, SOON, || {
            let mut seen = BTreeSet::new();
            for family in Family::ALL {
                let routes = self.routers[0].routes(family);
                let routes = routes.map_err(|error| error.to_string())?;
                seen.extend(routes.into_iter().map(|route| route.prefix));
            }
            match seen == expected {
                true => Ok(()),
                false => Err(format!("{seen:?}")),
            }
        })?;
        Ok(())
    }

    /// Packets that the plane has dropped since it was prepared, by reason.
    ///
    /// # Errors
    /// The agent does not answer.
    pub fn drops(&self) -> Result<BTreeMap<String, u64>, SceneError> {
        let counters = self.gateway.json(["plane", "counters"])?;
        let drops = counters["drops"].as_object().into_iter().flatten();
        Ok(drops
            .map(|(reason, count)| {
                (
                    reason.clone(),
                    count["packets"].as_u64().unwrap_or_default(),
                )
            })
            .collect())
    }

    /// What `ccn explain` says of a packet.
    ///
    /// # Errors
    /// The agent refuses the question.
    pub fn explain(&self, src: IpAddr, dst: IpAddr, vni: Option<u32>) -> Result<Value, SceneError> {
        let mut args = vec!["explain".to_owned(), src.to_string(), dst.to_string()];
        if let Some(vni) = vni {
            args.extend(["--vni".to_owned(), vni.to_string()]);
        }
        Ok(self.gateway.json(args)?)
    }

    /// What the gateway's kernel holds of everybody's.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn kernel(&mut self) -> Result<KernelState, SceneError> {
        // Of the other plane all is seen without asking it.
        let plane = match self.is_ebpf() {
            true => self.gateway.plane_dump()?,
            false => Vec::new(),
        };
        Ok(KernelState::read_with(self.region.gateway(), &plane)?)
    }

    /// Whether the gateway runs the `ebpf` plane.
    pub fn is_ebpf(&self) -> bool {
        self.gateway.config.plane.kind == "ebpf"
    }

    /// Whether the kernel would carry a packet from the IDC to each of these addresses, as it says when it
    /// is asked.
    ///
    /// # Errors
    /// The agent refuses the question.
    pub fn kernel_carries(
        gateway: &Gateway,
        src: IpAddr,
        to: &[IpAddr],
    ) -> Result<bool, SceneError> {
        for dst in to {
            let words = ["explain".to_owned(), src.to_string(), dst.to_string()];
            // It fails when records and kernel differ, and says what each says all the same.
            let said = gateway.finish(words.into_iter().chain(["--json".to_owned()]))?;
            let said: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
            if said["kernel"]["says"]["action"] != "encapsulate" {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A router that expects the second gateway too, altered by `adjust`.
fn expecting_partner(adjust: impl Fn(&mut RouterConfig)) -> impl Fn(&mut RouterConfig) {
    move |router| {
        let address = plan::PARTNER4.into();
        let partner = NeighbourConfig::new("gw2", address, plan::GATEWAY_AS);
        router.neighbours.push(partner);
        for neighbour in &mut router.neighbours {
            neighbour.graceful_shutdown = true;
            neighbour.hold_time = HOLD_TIME;
        }
        adjust(router);
    }
}

/// Where the fixture is.
pub fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/region-small")
}

/// Networks from their texts.
///
/// # Errors
/// One is none.
pub fn nets(texts: &[&str]) -> Result<Vec<IpNet>, SceneError> {
    texts.iter().map(|text| Ok(text.parse()?)).collect()
}

/// Changes records in the file of a store that no agent holds: a value puts, none deletes. Nothing
/// looks at the values, so this is also how a bad record comes in behind an agent's back.
///
/// # Errors
/// The store is held by somebody, or refuses.
pub fn change_store(path: &Path, changes: &[(&str, Option<&str>)]) -> Result<(), SceneError> {
    let changes = changes.iter().map(|(key, value)| {
        let key = (*key).to_owned();
        match value {
            Some(value) => Change::Put {
                key,
                value: value.as_bytes().to_vec().into(),
            },
            None => Change::Delete { key },
        }
    });
    let changes = changes.collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(SceneError::Runtime)?;
    let store = EmbeddedStore::open(path)?;
    runtime.block_on(store.commit(changes, Precondition::Any))?;
    Ok(())
}

fn start_gateway(
    lab: &Lab,
    region: &mut Region,
    routers: &[Box<dyn Router>],
    prepare: impl FnOnce(&mut Gateway, &Arc<Namespace>) -> Result<(), SceneError>,
) -> Result<Gateway, SceneError> {
    let namespace = region.gateway().namespace().clone();
    let peers = routers.iter().map(|router| section(router.config()));
    let mac = region.gateway_address().mac;
    let mut gateway = Gateway::new(lab, namespace.clone(), mac, peers)?;
    prepare(&mut gateway, &namespace)?;
    gateway.start()?;
    gateway.ccn(["import".as_ref(), fixture().as_os_str()])?;
    gateway.await_settled(SOON)?;
    Ok(gateway)
}

/// The gateway's side of the session with a router.
fn section(router: &RouterConfig) -> PeerSection {
    PeerSection {
        hold_time: HOLD_TIME,
        ..PeerSection::of(router)
    }
}

/// Waits until a node's kernel has a route to a prefix over so many next hops.
///
/// # Errors
/// Not in time, with what was seen.
pub fn await_route(node: &mut Node, prefix: IpNet, next_hops: usize) -> Result<(), TimedOut> {
    let what = format!("{prefix} in the kernel of {} over {next_hops}", node.name());
    eventually(what, SOON, || {
        let routes = node.netlink().routes(&RouteFilter::default());
        let routes = routes.map_err(|error| error.to_string())?;
        let here: Vec<_> = routes
            .iter()
            .filter(|route| route.prefix == prefix)
            .collect();
        match here.iter().any(|route| route.next_hops.len() == next_hops) {
            true => Ok(()),
            false => Err(lines(here)),
        }
    })
}

fn lines<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let lines: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match lines.is_empty() {
        true => "none".to_owned(),
        false => lines.join("; "),
    }
}
