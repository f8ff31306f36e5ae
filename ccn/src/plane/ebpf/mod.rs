//! The `ebpf` plane: programs that look destinations up in dense maps and redirect.
//!
//! `from_idc` sits on the ingress of the IDC interfaces, `from_vpc` on that of the external VXLAN device,
//! `from_underlay` on that of the interfaces that its packets come in by; what they forward never reaches
//! the host's stack. An address is one slot of eight octets in an array
//! that is mapped into this process: a VM that moves is one store. Maps are pinned and outlive the agent,
//! and an agent that starts takes them over and writes only what differs.
//!
//! What a packet gets is decided by the programs (`ccn/bpf`) and what stands in the maps; this room
//! decides only the latter. Of the kernel's routing it uses the IDC's next hops and nothing else.

mod addresses;
mod ask;
mod attach;
mod buckets;
mod cells;
mod counters;
pub mod layout;
mod lengths;
mod memory;
mod nodes;
mod numbers;
mod pins;
mod places;
mod programs;
mod ranges;
mod routing;
mod running;
mod samples;
mod shared;
pub mod sys;
mod tables;
mod traffic;
mod translate;
mod uplink;
mod window;

use std::collections::BTreeMap;

use netlink::{Group, Journal, Link, Netfilter, Request, Socket};

use self::pins::Pins;
use self::programs::{Programs, Sizes};
use self::running::Running;
use self::samples::Ring;
use self::tables::Tables;
use super::entry::{EntryKey, EntryValue};
use super::model::Packet;
use super::routes::devices::{self, failed};
use super::routes::objects::State;
use super::routes::reconcile::reconcile;
use super::routes::{input, keeper::Keeper, kernel, sysctl};
use super::traffic::{Sampled, Traffic, Wanted};
use super::witness::Witness;
use super::{
    Abilities, Applied, Batch, Counters, Desired, Forecast, Limit, Part, Plane, PlaneError,
    Prepared,
};
use crate::config::PlaneConfig;

/// See the module.
#[derive(Debug)]
pub struct EbpfPlane {
    config: PlaneConfig,
    pins: Pins,
    sockets: Option<Sockets>,
    /// Loaded when it was prepared.
    programs: Option<Programs>,
    sizes: Sizes,
    /// `None` until the first resync, and after a call that left the kernel's state unknown.
    running: Option<Running>,
    /// Which packets are sampled, and the ring they come in, from the first time that any were wanted.
    wanted: Option<Wanted>,
    ring: Option<Ring>,
}

/// Slots to begin with: 16 MB.
const SLOTS: u32 = 1 << 21;

/// What the kernel reports that our objects hang on.
const JOURNAL: [Group; 5] = [
    Group::Link,
    Group::Address,
    Group::Route,
    Group::Rule,
    Group::Neighbour,
];

/// The ways into the kernel, and out of it.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) routes: Socket,
    pub(crate) journal: Journal,
}

impl EbpfPlane {
    /// A plane with this configuration. Nothing happens until it is prepared.
    #[must_use]
    pub fn new(config: &PlaneConfig) -> EbpfPlane {
        EbpfPlane {
            config: config.clone(),
            pins: Pins::new(&config.bpffs, &config.device),
            sockets: None,
            programs: None,
            sizes: Sizes {
                slots: SLOTS,
                flows: config.max_flows,
            },
            running: None,
            wanted: None,
            ring: None,
        }
    }

    /// The same, with so many slots to begin with instead of two million. They grow as they are needed;
    /// each growth copies them once.
    #[must_use]
    pub fn with_slots(config: &PlaneConfig, slots: u32) -> EbpfPlane {
        let mut plane = EbpfPlane::new(config);
        plane.sizes.slots = slots;
        plane
    }

    /// Whether this plane has left anything in the kernel.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.pins.exist()
    }

    fn sockets(&mut self) -> Result<&mut Sockets, PlaneError> {
        let sockets = match self.sockets.take() {
            Some(sockets) => sockets,
            None => Sockets {
                routes: Socket::open().map_err(|error| failed("open a netlink socket", error))?,
                journal: Journal::open(&JOURNAL, None)
                    .map_err(|error| failed("have the kernel report changes", error))?,
            },
        };
        Ok(self.sockets.insert(sockets))
    }
}

impl Plane for EbpfPlane {
    fn name(&self) -> &'static str {
        "ebpf"
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            tracks_replies: true,
            marks_links: true,
        }
    }

    fn prepare(&mut self) -> Result<Prepared, PlaneError> {
        let (config, pins, sizes) = (self.config.clone(), self.pins.clone(), self.sizes);
        let socket = &mut self.sockets()?.routes;
        let (host, _) = uplink::ensure(socket, &config)?;
        let attached = attach::is_attached(socket, &pins, host.vxlan_index)?;
        // The other plane's state goes on forwarding too until ours is there.
        let others = kernel::read(socket, config.protocol, &host.devices())?;
        pins.ensure()?;
        pins.carry_over()?;
        let programs = match self.programs.take() {
            Some(programs) if programs.read_pinned(&pins) => programs,
            _ => Programs::load(&pins, sizes)?,
        };
        self.programs = Some(programs);
        Ok(Prepared {
            adopted: attached || !others.is_empty(),
        })
    }

    fn resync(&mut self, desired: &Desired) -> Result<Applied, PlaneError> {
        let (config, pins) = (self.config.clone(), self.pins.clone());
        let before = self.running.take().map(Running::into_programs);
        let programs = (before.or_else(|| self.programs.take()), self.sizes);
        let wanted = self.wanted.clone();
        let sockets = self.sockets()?;
        let (running, applied) =
            Running::resync(sockets, &config, &pins, programs, desired, wanted.as_ref())?;
        self.running = Some(running);
        // The maps may be others now.
        self.ring = None;
        Ok(applied)
    }

    fn apply(&mut self, batch: &Batch) -> Result<Applied, PlaneError> {
        // Put back only on success: after a failure nothing is known.
        let Some(mut running) = self.running.take() else {
            return Err(PlaneError::Kernel {
                action: "apply a change".to_owned(),
                detail: "the kernel's state is unknown: a resync comes first".to_owned(),
            });
        };
        let (pins, wanted) = (self.pins.clone(), self.wanted.clone());
        let applied = running.apply(self.sockets()?, &pins, batch, wanted.as_ref())?;
        self.running = Some(running);
        Ok(applied)
    }

    fn is_prompt(&self, batch: &Batch) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.is_prompt(batch))
    }

    fn counters(&mut self) -> Result<Counters, PlaneError> {
        let opened;
        let tables = match &self.running {
            Some(running) => running.tables(),
            None => {
                opened = Tables::open(&self.pins)?.0;
                &opened
            }
        };
        let [decapsulated, encapsulated, _] = tables.totals()?;
        let drops = tables.drops()?.into_iter();
        Ok(Counters {
            decapsulated,
            encapsulated,
            drops: drops
                .map(|(reason, count)| (reason.as_str().to_owned(), count))
                .collect(),
        })
    }

    fn traffic(&mut self) -> Result<Option<Traffic>, PlaneError> {
        self.running.as_ref().map(Running::traffic).transpose()
    }

    fn sample(&mut self, wanted: Option<&Wanted>) -> Result<bool, PlaneError> {
        // A plane that is not running does it when it runs again.
        let before = std::mem::replace(&mut self.wanted, wanted.cloned());
        if wanted.is_none() {
            self.ring = None;
        } else if before.is_none() {
            let mut ring = Ring::open(&self.pins)?;
            ring.clear();
            self.ring = Some(ring);
        }
        if let Some(running) = &mut self.running {
            running.sample(wanted);
        }
        Ok(true)
    }

    fn sampled(&mut self) -> Result<Vec<Sampled>, PlaneError> {
        let (Some(running), Some(_)) = (&self.running, &self.wanted) else {
            return Ok(Vec::new());
        };
        let ring = match self.ring.take() {
            Some(ring) => ring,
            None => Ring::open(&self.pins)?,
        };
        let ring = self.ring.insert(ring);
        Ok(running.sampled(&ring.take()))
    }

    fn ask(&mut self, packet: &Packet) -> Result<Option<Witness>, PlaneError> {
        let pins = self.pins.clone();
        let Some(mut running) = self.running.take() else {
            return Ok(None);
        };
        // It changes nothing, so that a failure leaves the kernel's state as known as it was.
        let says = self
            .sockets()
            .and_then(|sockets| running.ask(&mut sockets.routes, &pins, packet));
        self.running = Some(running);
        says
    }

    fn limits(&self) -> Vec<Limit> {
        self.running
            .as_ref()
            .map_or_else(Vec::new, |running| running.limits())
    }

    fn forecast(&self, permits: &BTreeMap<EntryKey, EntryValue>) -> Forecast {
        let running = self.running.as_ref();
        running.map_or_else(Forecast::default, |running| running.forecast(permits))
    }

    fn parts(&mut self) -> Result<Vec<Part>, PlaneError> {
        let (config, pins) = (self.config.clone(), self.pins.clone());
        let directory = pins.directory();
        let running = self.running.as_ref();
        let carried: Vec<u32> = running.map_or_else(Vec::new, |running| running.links().collect());
        let socket = &mut self.sockets()?.routes;
        let links = socket
            .links()
            .map_err(|error| failed("read the links", error))?;
        let mut parts = vec![Part {
            present: pins::is_bpf(&directory) && pins.map("slots").exists(),
            name: format!("maps in {}", directory.display()),
        }];
        let mut names: Vec<&String> = config.idc_interfaces.iter().collect();
        names.push(&config.device);
        let underlay = links.iter().filter(|link| carried.contains(&link.index));
        names.extend(underlay.map(|link| &link.name));
        for (at, name) in names.iter().enumerate() {
            if names[..at].contains(name) {
                continue;
            }
            let link = links.iter().find(|link| link.name == **name);
            parts.push(Part {
                name: format!("program on {name}"),
                present: match link {
                    Some(link) => attach::is_attached(socket, &pins, link.index)?,
                    None => false,
                },
            });
        }
        Ok(parts)
    }

    fn dump(&mut self) -> Result<Vec<String>, PlaneError> {
        let (config, pins) = (self.config.clone(), self.pins.clone());
        let socket = &mut self.sockets()?.routes;
        let mut lines = match pins.exist() {
            true => {
                let (tables, memory) = Tables::open(&pins)?;
                running::lines(&tables, &memory)?
            }
            false => Vec::new(),
        };
        let links = devices::ours(socket)?;
        let indices: Vec<u32> = links.iter().map(|link| link.index).collect();
        let state = kernel::read(socket, config.protocol, &indices)?;
        lines.extend(state.values().map(ToString::to_string));
        lines.extend(uplink::lines(socket, &config)?);
        lines.sort();
        Ok(lines)
    }

    fn remove(&mut self) -> Result<(), PlaneError> {
        (self.running, self.programs, self.ring) = (None, None, None);
        let (config, pins) = (self.config.clone(), self.pins.clone());
        let socket = &mut self.sockets()?.routes;
        let links = devices::ours(socket)?;
        if links.iter().any(|link| link.name == config.device) {
            sysctl::stop_forwarding(&config.device)?;
        }
        detach(socket, &config, &[])?;
        let indices: Vec<u32> = links.iter().map(|link| link.index).collect();
        clear_routing(socket, &config, &indices)?;
        for link in links {
            socket
                .request(Request::delete_link(link.index))
                .map_err(|error| failed(&format!("delete {}", link.name), error))?;
        }
        pins.remove()
    }
}

/// Takes the programs from all links but those to keep. Answers how many there were.
fn detach(socket: &mut Socket, config: &PlaneConfig, keep: &[u32]) -> Result<usize, PlaneError> {
    let pins = Pins::new(&config.bpffs, &config.device);
    let mut detached = 0;
    let mut links = socket
        .links()
        .map_err(|error| failed("read the links", error))?;
    links.retain(|link| !keep.contains(&link.index));
    // The IDC's side first: the way back is open until then. The underlay's may be configured no more.
    let (idc, mut others): (Vec<&Link>, Vec<&Link>) = links
        .iter()
        .partition(|link| config.idc_interfaces.contains(&link.name));
    others.sort_by_key(|link| link.name == config.device);
    for link in idc.into_iter().chain(others) {
        detached += attach::take_away(socket, &pins, link.index)?;
    }
    Ok(detached)
}

/// Leaves all packets to another plane, which has made everything it needs: takes programs and maps
/// away. Answers how many things there were.
pub(crate) fn withdraw(socket: &mut Socket, config: &PlaneConfig) -> Result<usize, PlaneError> {
    let pins = Pins::new(&config.bpffs, &config.device);
    if !pins.exist() {
        return Ok(0);
    }
    let detached = detach(socket, config, &[])?;
    pins.remove()?;
    Ok(detached + 1)
}

/// Takes all routes, rules and neighbours of ours away, whichever plane made them.
fn clear_routing(
    socket: &mut Socket,
    config: &PlaneConfig,
    devices: &[u32],
) -> Result<(), PlaneError> {
    let actual = kernel::read(socket, config.protocol, devices)?;
    let steps = reconcile(&actual, &State::new());
    let devices = devices.iter().copied();
    let mut keeper = Keeper::new(config.protocol, devices, [], actual, Default::default());
    match keeper.run(socket, steps)?.into_values().next() {
        Some(reason) => Err(PlaneError::Kernel {
            action: "remove".to_owned(),
            detail: reason,
        }),
        None => Ok(()),
    }
}

/// Takes away what only the `routes` plane needs: devices that count, and the filter. Answers how many
/// things there were.
fn remove_leftovers(socket: &mut Socket, config: &PlaneConfig) -> Result<usize, PlaneError> {
    let mut removed = 0;
    for link in devices::ours(socket)? {
        if link.name != config.device {
            socket
                .request(Request::delete_link(link.index))
                .map_err(|error| failed(&format!("delete {}", link.name), error))?;
            removed += 1;
        }
    }
    if removed > 0 {
        let mut netfilter: Netfilter = input::open()?;
        input::remove(&mut netfilter, &config.device)?;
    }
    Ok(removed)
}
