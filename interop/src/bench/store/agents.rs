//! Gateways that follow one etcd, and where one VM is in the maps of their kernels.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ccn::plane::ebpf::layout::{Host, Plain, Slot};
use ccn::plane::ebpf::sys::Map;
use netlink::Mac;
use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::Failure;
use crate::enter::Lab;
use crate::etcd::Etcd;
use crate::gateway::Gateway;
use crate::process::Process;
use crate::topology::Region;
use crate::topology::plan::GATEWAY_MAC;

/// How long a change may take to the kernel, and an agent to start.
const LONG: Duration = Duration::from_secs(240);
/// How long an agent may take to end.
const STOP: Duration = Duration::from_secs(30);
/// How often a kernel is looked at.
const LOOK: Duration = Duration::from_micros(20);
/// The number of the first further gateway on its segments.
const FIRST: u8 = 20;

/// Where one VM is in the maps of one gateway's kernel.
pub(super) struct InKernel {
    slots: Map,
    hosts: Map,
    /// The slots of its addresses.
    at: Vec<u32>,
}

impl InKernel {
    /// Looks for the VM with this MAC in the maps that are pinned here; no other VM has it.
    ///
    /// # Errors
    /// There are no maps, or it is in none.
    pub(super) fn find(pins: &Path, mac: Mac) -> Result<InKernel, Failure> {
        let slots = open(pins, "slots")?;
        let mut at = Vec::new();
        slots.each(|key, slot| {
            if let (Ok(key), Ok(slot)) = (key.try_into(), slot.try_into())
                && Slot(u64::from_ne_bytes(slot)).mac() == mac.0
            {
                at.push(u32::from_ne_bytes(key));
            }
        })?;
        match at.is_empty() {
            true => Err(format!("no slot in {} has {mac}", pins.display()).into()),
            false => Ok(InKernel {
                slots,
                hosts: open(pins, "hosts")?,
                at,
            }),
        }
    }

    /// Whether all its addresses are on this host.
    fn is_on(&self, host: Ipv4Addr) -> io::Result<bool> {
        for at in &self.at {
            let slot = self.slots.lookup(&at.to_ne_bytes())?.unwrap_or_default();
            let Ok(slot) = slot.try_into() else {
                return Ok(false);
            };
            let number = u32::from(Slot(u64::from_ne_bytes(slot)).host());
            let there = self.hosts.lookup(&number.to_ne_bytes())?;
            if there.as_deref() != Some(Host::at(host.into()).octets()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Waits until the VM is on this host in each of these kernels.
///
/// # Errors
/// Not in time.
pub(super) fn await_host(kernels: &[InKernel], host: Ipv4Addr) -> Result<(), Failure> {
    // Else each look is 50 us late, which would count as the agents'.
    prctl::set_timerslack(1)?;
    let deadline = Instant::now() + LONG;
    for kernel in kernels {
        while !kernel.is_on(host)? {
            if Instant::now() >= deadline {
                return Err(format!("a VM is not on {host} in time").into());
            }
            std::thread::sleep(LOOK);
        }
    }
    Ok(())
}

/// The pinned map of this name, somewhere below.
fn open(below: &Path, name: &str) -> Result<Map, Failure> {
    let here = below.join(name);
    if here.is_file() {
        return Ok(Map::open(&here)?);
    }
    for entry in fs::read_dir(below)? {
        let path = entry?.path();
        if path.is_dir()
            && let Ok(map) = open(&path, name)
        {
            return Ok(map);
        }
    }
    Err(format!("nothing called {name} is pinned below {}", below.display()).into())
}

/// Gateways beside the first one, each with an agent.
#[derive(Default)]
pub(super) struct More {
    agents: Vec<(Gateway, Process)>,
}

impl More {
    /// Starts so many, one after the other, and waits until each has settled.
    ///
    /// # Errors
    /// One does not come up.
    pub(super) fn start(
        lab: &Lab,
        region: &mut Region,
        etcd: &Etcd,
        count: usize,
        progress: impl Fn(&str),
    ) -> Result<More, Failure> {
        let mut more = More::default();
        for number in 0..count {
            let name = format!("gw-{}", number + 2);
            progress(&format!("starting {name}"));
            let host = FIRST + number as u8;
            let namespace = region.add_gateway(&name, host)?;
            let mut gateway = Gateway::another(lab, (&name, host, namespace), GATEWAY_MAC, [])?;
            gateway.config.plane.kind = "ebpf".to_owned();
            gateway.store_in(etcd);
            let agent = gateway.launch_agent()?.start(gateway.log())?;
            gateway.await_settled(LONG)?;
            more.agents.push((gateway, agent));
        }
        Ok(more)
    }

    /// Where they pin their maps.
    pub(super) fn pins(&self) -> Vec<PathBuf> {
        let gateways = self.agents.iter();
        let pins = gateways.filter_map(|(gateway, _)| gateway.config.plane.bpffs.clone());
        pins.collect()
    }

    /// Ends them and takes all of theirs out of the kernel.
    ///
    /// # Errors
    /// One does not end.
    pub(super) fn leave(self) -> Result<(), Failure> {
        for (gateway, agent) in self.agents {
            agent.stop(Signal::SIGTERM, STOP)?;
            gateway.remove_plane()?;
        }
        Ok(())
    }
}
