//! Small named regions, as records: they go through inventory and planner, so that those are part of
//! what is tested. Each has a VPC of its own besides, `probe`, by which the harness knows that all
//! that was sent before has been dealt with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::Prefix;
use ccn::inventory::Inventory;
use ccn::plan::Planner;
use ccn::plane::model::Mtus;
use ccn::plane::{Desired, LearnedNextHops};
use ccn::record::{GroupName, Mac};
use ccn::store::Stored;
use serde_json::{Value, json};

use crate::packet::{Ip, ip, udp};

/// VNI of the VPC that the harness sends its own packets by.
pub(crate) const PROBE_VNI: u32 = 9_999_999;
const PROBE_VM: &str = "10.250.0.1";
const PROBE_HOST: &str = "10.251.0.1";

/// The IDC's routers, by their place in the subnet of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Router(pub(crate) u8);

impl Router {
    pub(crate) fn addr(self, v4: bool) -> IpAddr {
        match v4 {
            true => ip(&format!("10.255.0.{}", self.0)),
            false => ip(&format!("2001:db8:ff::{:x}", self.0)),
        }
    }

    pub(crate) fn mac(self) -> [u8; 6] {
        [2, 0xff, 0, 0, 0, self.0]
    }
}

/// A VM as records have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vm {
    pub(crate) name: String,
    pub(crate) vni: u32,
    pub(crate) addrs: Vec<IpAddr>,
    pub(crate) mac: [u8; 6],
    pub(crate) host: u8,
}

/// Records and routes, and what the gateway has below and beside it.
#[derive(Debug, Clone)]
pub(crate) struct Region {
    pub(crate) name: String,
    /// Hypervisors and gateway speak IPv6 to one another.
    pub(crate) underlay6: bool,
    /// Of the interface to the IDC.
    pub(crate) idc_mtu: usize,
    pub(crate) vms: Vec<Vm>,
    /// Every address of a VM or SLB, with the VNI.
    pub(crate) ends: Vec<(u32, IpAddr)>,
    /// The VNI of each VPC by its number, where they have one.
    pub(crate) vnis: Vec<u32>,
    pub(crate) records: BTreeMap<String, Value>,
    pub(crate) learned: BTreeMap<Prefix, LearnedNextHops>,
}

impl Region {
    pub(crate) fn new(name: &str) -> Region {
        let region = Region {
            name: name.to_owned(),
            underlay6: false,
            idc_mtu: 1500,
            vms: Vec::new(),
            ends: Vec::new(),
            vnis: Vec::new(),
            records: BTreeMap::new(),
            learned: BTreeMap::new(),
        };
        region
            .vpc("probe", PROBE_VNI, &["10.250.0.0/24"])
            .link(
                "probe",
                json!({"vpc": "probe", "classic": ["10.251.0.0/24"]}),
            )
            .learned("10.251.0.0/24", &[Router(2)])
            .vm("probe", "probe", &[PROBE_VM], 99)
    }

    pub(crate) fn over_ipv6(mut self) -> Region {
        self.underlay6 = true;
        // What was said before was said of IPv4.
        let probe = self.vms.remove(0);
        self.put_vm("probe", &probe);
        self.vms.push(probe);
        self
    }

    pub(crate) fn idc_mtu(mut self, octets: usize) -> Region {
        self.idc_mtu = octets;
        self
    }

    pub(crate) fn record(mut self, key: &str, value: Value) -> Region {
        self.records.insert(key.to_owned(), value);
        self
    }

    pub(crate) fn vpc(self, id: &str, vni: u32, subnets: &[&str]) -> Region {
        self.record(
            &format!("vpcs/{id}"),
            json!({"vni": vni, "subnets": subnets}),
        )
    }

    pub(crate) fn ccsi(self, id: &str, vpcs: &[&str]) -> Region {
        self.record(&format!("ccsis/{id}"), json!({ "vpcs": vpcs }))
    }

    pub(crate) fn link(self, id: &str, value: Value) -> Region {
        self.record(&format!("links/{id}"), value)
    }

    /// A VM on a host by its number; its MAC follows from the VNI and how many VMs there are.
    pub(crate) fn vm(mut self, name: &str, vpc: &str, addrs: &[&str], host: u8) -> Region {
        let vni = self.vni(vpc);
        let [_, high, middle, low] = vni.to_be_bytes();
        let vm = Vm {
            name: name.to_owned(),
            vni,
            addrs: addrs.iter().map(|addr| ip(addr)).collect(),
            mac: [2, 1, high, middle, low, self.vms.len() as u8],
            host,
        };
        self.put_vm(vpc, &vm);
        self.ends.extend(vm.addrs.iter().map(|addr| (vni, *addr)));
        self.vms.push(vm);
        self
    }

    fn put_vm(&mut self, vpc: &str, vm: &Vm) {
        let mac = Mac::new(vm.mac).expect("a MAC");
        let vtep = self.vtep(vm.host);
        let value = json!({"addrs": vm.addrs, "mac": mac.to_string(), "vtep": vtep});
        self.records.insert(format!("vms/{vpc}/{}", vm.name), value);
    }

    /// An SLB with nodes on hosts, each with its weight.
    pub(crate) fn slb(
        mut self,
        name: &str,
        vpc: &str,
        vips: &[&str],
        nodes: &[(u8, u16)],
    ) -> Region {
        let vni = self.vni(vpc);
        self.ends.extend(vips.iter().map(|vip| (vni, ip(vip))));
        let node = |(host, weight): &(u8, u16)| json!({"vtep": self.vtep(*host), "weight": weight});
        let nodes: Vec<Value> = nodes.iter().map(node).collect();
        let key = format!("slbs/{vpc}/{name}");
        self.record(&key, json!({"vips": vips, "nodes": nodes}))
    }

    pub(crate) fn learned(mut self, prefix: &str, routers: &[Router]) -> Region {
        let prefix: Prefix = prefix.parse().expect("a prefix");
        let v4 = prefix.addr().is_ipv4();
        let hops = routers.iter().map(|router| router.addr(v4)).collect();
        self.learned.insert(prefix, hops);
        self
    }

    fn vni(&self, vpc: &str) -> u32 {
        let record = &self.records[&format!("vpcs/{vpc}")];
        record["vni"].as_u64().expect("a number") as u32
    }

    /// Where a host terminates VXLAN; the gateway is host 1.
    pub(crate) fn vtep(&self, host: u8) -> IpAddr {
        match self.underlay6 {
            true => ip(&format!("fd16::{host:x}")),
            false => ip(&format!("172.16.0.{host}")),
        }
    }

    pub(crate) fn named(&self, name: &str) -> &Vm {
        let found = self.vms.iter().find(|vm| vm.name == name);
        found.unwrap_or_else(|| panic!("region {} has no VM {name}", self.name))
    }

    /// Who has an address in the VPC with this VNI.
    pub(crate) fn owner(&self, vni: u32, addr: IpAddr) -> Option<&Vm> {
        self.vms
            .iter()
            .find(|vm| vm.vni == vni && vm.addrs.contains(&addr))
    }

    /// The router with this address.
    pub(crate) fn router(&self, addr: IpAddr) -> Option<Router> {
        let numbers = self.learned.values().flatten().filter(|hop| **hop == addr);
        let last = numbers.map(|hop| match hop {
            IpAddr::V4(hop) => hop.octets()[3],
            IpAddr::V6(hop) => hop.octets()[15],
        });
        last.map(Router).next()
    }

    /// The keys of records that cannot stand beside the others.
    pub(crate) fn faults(&self) -> BTreeSet<String> {
        self.load()
            .quarantine()
            .map(|fault| fault.key.clone())
            .collect()
    }

    /// The records, each accepted.
    pub(crate) fn inventory(&self) -> Inventory {
        let inventory = self.load();
        let faults: Vec<_> = inventory.quarantine().map(ToString::to_string).collect();
        assert!(faults.is_empty(), "region {}: {faults:#?}", self.name);
        inventory
    }

    fn load(&self) -> Inventory {
        let stored = |(number, (key, value)): (usize, (&String, &Value))| Stored {
            key: key.clone(),
            created: number as u64 + 1,
            modified: number as u64 + 1,
            value: value.to_string().into(),
        };
        let mut inventory = Inventory::default();
        inventory.load(self.records.iter().enumerate().map(stored).collect());
        inventory
    }

    /// What a plane should hold.
    pub(crate) fn desired(&self) -> Desired {
        let (planner, inventory) = (Planner::new(GroupName::default()), self.inventory());
        Desired {
            generation: 1,
            entries: planner.backing(&inventory),
            endpoints: planner.endpoints(&inventory),
            learned: self.learned.clone(),
            keep_unknown_learned: false,
        }
    }

    /// The largest inner packet: what an underlay of 1500 octets leaves.
    pub(crate) fn mtu(&self) -> usize {
        if self.underlay6 { 1430 } else { 1450 }
    }

    pub(crate) fn mtus(&self) -> Mtus {
        Mtus {
            vpc: Some(self.mtu()),
            idc: Some(self.idc_mtu),
        }
    }

    /// The packet from the IDC that always arrives at the VM `probe`.
    pub(crate) fn probe_to_vpc() -> Ip {
        udp(PROBE_HOST, PROBE_VM)
    }

    /// The packet from the VM `probe` that always arrives at a router of the IDC.
    pub(crate) fn probe_to_idc() -> Ip {
        udp(PROBE_VM, PROBE_HOST)
    }
}
