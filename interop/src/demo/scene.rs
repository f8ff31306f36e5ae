//! The stage of the demo: the small region of `fixtures/` with all its instances, BIRD and GoBGP
//! side by side in front of its classic networks, and the gateway, whose agent runs and knows
//! nothing yet.

use std::path::{Path, PathBuf};

use ccn::record::{Record, RecordKey};
use ccn::region::{self, RegionEntry};
use ipnet::IpNet;

use super::Failure;
use crate::enter::Lab;
use crate::gateway::{Gateway, PeerSection};
use crate::peer::{Daemon, Router};
use crate::process::find_program;
use crate::topology::{Region, RegionConfig, RouterPlan, plan, records};

/// The classic host in the office.
pub(super) const OFFICE_HOST: &str = "office-host";
/// The classic host in the lab network, which is never linked.
pub(super) const LAB_HOST: &str = "lab-host";
/// The number that classic hosts have on their networks.
const HOST: u8 = 10;
/// The programs that must be there, and the Debian packages that bring them.
const PROGRAMS: [(&str, &str); 5] = [
    ("bird", "bird2"),
    ("birdc", "bird2"),
    ("gobgpd", "gobgpd"),
    ("gobgp", "gobgpd"),
    ("ping", "iputils-ping"),
];

/// The region with everything in it running. Dropping it ends all of it, daemons first.
pub struct Scene {
    /// The first IDC router.
    pub bird: Box<dyn Router>,
    /// The second one.
    pub gobgp: Box<dyn Router>,
    /// The gateway.
    pub gateway: Gateway,
    /// The nodes and what joins them.
    pub region: Region,
    /// How many namespaces there are.
    pub nodes: usize,
    /// How many instances there are: VMs and nodes of SLBs.
    pub instances: usize,
}

/// What [`missing_packages`] found, in words.
#[derive(Debug, thiserror::Error)]
#[error("these Debian packages are missing: {0}; run interop/install, which starts no services")]
struct Missing(String);

impl Scene {
    /// Builds it and starts the routers and the agent. No records are loaded.
    ///
    /// # Errors
    /// A package is missing, `ccn` is not built, or the kernel refuses a step.
    pub fn build(lab: &Lab) -> Result<Self, Failure> {
        missing_packages()?;
        let entries = region::read(&fixture())?;
        let mut region = Region::build(lab, RegionConfig::default())?;
        let lans = add_lans(&mut region, &entries)?;
        let lans: Vec<&str> = lans.iter().map(String::as_str).collect();
        let mut router = |daemon, name, number, asn| {
            let lans = &lans;
            let plan = RouterPlan {
                daemon,
                name,
                number,
                asn,
                lans,
            };
            region.add_router(lab, &plan, |_| {})
        };
        let mut bird = router(Daemon::Bird, "bird", 2, 65002)?;
        let mut gobgp = router(Daemon::Gobgp, "gobgp", 3, 65003)?;
        region.add_host(OFFICE_HOST, "office", HOST, &["bird", "gobgp"])?;
        region.add_host(LAB_HOST, "lab", HOST, &["bird", "gobgp"])?;
        let instances = records::instances(entries.iter().map(|entry| (&entry.key, &entry.record)));
        let count = instances.len();
        for instance in instances {
            region.add_instance(instance)?;
        }
        bird.start()?;
        gobgp.start()?;
        let peers = [&bird, &gobgp].map(|router| PeerSection::of(router.config()));
        let namespace = region.namespace("gw")?;
        let mut gateway = Gateway::new(lab, namespace, plan::GATEWAY_MAC, peers)?;
        gateway.start()?;
        Ok(Self {
            bird,
            gobgp,
            gateway,
            region,
            nodes: std::fs::read_dir("/run/netns")?.count(),
            instances: count,
        })
    }

    /// The two routers.
    pub fn routers(&self) -> [&dyn Router; 2] {
        [&*self.bird, &*self.gobgp]
    }
}

/// The small region in the import format.
pub(super) fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/region-small")
}

/// One LAN for each classic network; their names.
fn add_lans(region: &mut Region, entries: &[RegionEntry]) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for entry in entries {
        if let (RecordKey::Classic(name), Record::Classic(classic)) = (&entry.key, &entry.record) {
            let nets: Vec<IpNet> = classic.prefixes.iter().map(|net| (*net).into()).collect();
            region.add_lan(name.as_str(), &nets)?;
            names.push(name.to_string());
        }
    }
    Ok(names)
}

fn missing_packages() -> Result<(), Missing> {
    let mut missing: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|(program, _)| find_program(program.as_ref()).is_err())
        .map(|(_, package)| package)
        .collect();
    missing.dedup();
    match missing.as_slice() {
        [] => Ok(()),
        missing => Err(Missing(missing.join(" "))),
    }
}
