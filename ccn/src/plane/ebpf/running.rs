//! The plane between two calls: maps, programs and routing, and how a call changes them.
//!
//! New first, old last: what maps lead to is written before them, routes before the programs that ask
//! for them, and what has to go goes when nothing leads to it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink::Socket;

use super::attach;
use super::cells::{Cell, Changes, Content};
use super::layout::{LAYOUT_VERSION, Sample, Slot, unmapped};
use super::memory::Memory;
use super::pins::{self, Pins};
use super::programs::{self, Asking, Place, Programs, Sizes};
use super::routing::Routing;
use super::samples::Sampling;
use super::shared::KernelMemory;
use super::sys::Map;
use super::tables::{Refused, Tables};
use super::translate::{Failures, Found, Translator};
use super::{Sockets, ask, detach, remove_leftovers, traffic, uplink};
use crate::config::PlaneConfig;
use crate::plane::entry::{EntryKey, EntryValue};
use crate::plane::model::Packet;
use crate::plane::routes::kernel;
use crate::plane::traffic::{Sampled, Traffic, Wanted};
use crate::plane::witness::Witness;
use crate::plane::{Applied, Batch, Desired, Forecast, Limit, PlaneError};

/// The most entries of a batch that is prompt.
const PROMPT: usize = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Running {
    translator: Translator<KernelMemory>,
    tables: Tables,
    programs: Programs,
    routing: Routing,
    /// Loaded when somebody asks.
    asking: Option<Asking>,
    /// Links and what each is, in the order in which the programs are put there.
    links: Vec<(u32, Place)>,
    sizes: Sizes,
    /// Cells that did not become as they shall be: tried again with the next change.
    open: BTreeSet<Cell>,
}

impl Running {
    /// Reads everything, and makes it as desired, with these programs if they read what is pinned.
    pub(crate) fn resync(
        sockets: &mut Sockets,
        config: &PlaneConfig,
        pins: &Pins,
        (programs, sizes): (Option<Programs>, Sizes),
        desired: &Desired,
        wanted: Option<&Wanted>,
    ) -> Result<(Running, Applied), PlaneError> {
        let (host, changed) = uplink::ensure(&mut sockets.routes, config)?;
        let (facts, links) = uplink::facts(&mut sockets.routes, config, &host)?;
        pins.ensure()?;
        pins.carry_over()?;
        let mut applied = Applied {
            generation: desired.generation,
            operations: changed,
            ..Applied::default()
        };
        let programs = match programs {
            Some(programs) if programs.read_pinned(pins) => programs,
            _ => Programs::load(pins, sizes)?,
        };
        let (mut tables, memory) = Tables::open(pins)?;
        tables.adopt();
        let fresh = tables.globals().version != LAYOUT_VERSION;
        let found = if fresh { Found::new() } else { tables.found()? };
        let own = facts.own.clone();
        let mut translator = Translator::new(facts, memory, fresh);
        applied.failures = translator.adopt(&found, desired);
        translator.sample(Sampling::of(wanted, translator.links()));
        let changes = translator.difference(&found);

        if kernel::read(&mut sockets.routes, host.protocol, &host.devices())?.is_empty() {
            // Nothing forwards yet: programs that know nobody are before the rule that lets all pass. They know the
            // device, by which they tell what is for this host.
            if fresh {
                tables.set_globals(&translator.globals_of_nobody());
            }
            applied.operations += attach_all(&mut sockets.routes, pins, &programs, &links, fresh)?;
        }
        let (routing, wrong) =
            Routing::begin(&mut sockets.routes, host, &own, desired, &mut applied)?;
        let mut running = Running {
            translator,
            tables,
            programs,
            routing,
            asking: None,
            links,
            sizes,
            open: BTreeSet::new(),
        };
        running.write(&mut sockets.routes, pins, &changes, true, &mut applied)?;
        applied.operations += running.translator.addresses().places().stores();
        applied.operations += attach_all(
            &mut sockets.routes,
            pins,
            &running.programs,
            &running.links,
            fresh,
        )?;
        // From here on the programs have all packets, and what another plane left is without use.
        running.routing.finish(
            &mut sockets.routes,
            &mut sockets.journal,
            wrong,
            &mut applied,
        )?;
        applied.operations += remove_leftovers(&mut sockets.routes, config)?;
        // What the configuration names no more would go on with the maps of today, whatever comes.
        let kept: Vec<u32> = running.links().collect();
        applied.operations += detach(&mut sockets.routes, config, &kept)?;
        applied.operations += pins.remove_others()?;
        Ok((running, applied))
    }

    /// Applies a difference. If the batch asks for that, it answers when the kernel has shown that
    /// everything is as desired.
    pub(crate) fn apply(
        &mut self,
        sockets: &mut Sockets,
        pins: &Pins,
        batch: &Batch,
        wanted: Option<&Wanted>,
    ) -> Result<Applied, PlaneError> {
        let mut applied = Applied {
            generation: batch.generation,
            ..Applied::default()
        };
        let stores = self.translator.addresses().places().stores();
        applied.failures = self.translator.apply(batch);
        let sampling = Sampling::of(wanted, self.translator.links());
        self.translator.sample(sampling);
        let open = std::mem::take(&mut self.open);
        let changes = self.translator.settle(open);
        self.write(
            &mut sockets.routes,
            pins,
            &changes,
            batch.verify,
            &mut applied,
        )?;
        applied.operations += self.translator.addresses().places().stores() - stores;
        let socket = &mut sockets.routes;
        self.routing
            .apply(socket, &mut sockets.journal, batch, &mut applied)?;
        if batch.verify {
            applied.operations += attach_all(socket, pins, &self.programs, &self.links, false)?;
        }
        Ok(applied)
    }

    /// Whether only slots that are there change: VMs that moved.
    pub(crate) fn is_prompt(&self, batch: &Batch) -> bool {
        let addresses = self.translator.addresses();
        let moves = |(key, value): (&EntryKey, &EntryValue)| match (key, value) {
            (EntryKey::Endpoint { scope, addr }, EntryValue::Endpoint { hops, .. }) => {
                hops.len() == 1 && addresses.has_slot(scope.0.number(), *addr)
            }
            _ => false,
        };
        let is_plain = self.open.is_empty()
            && !batch.verify
            && batch.removals.is_empty()
            && batch.learned.is_empty();
        is_plain && batch.upserts.len() <= PROMPT && batch.upserts.iter().all(moves)
    }

    /// Writes changes to the maps, each larger where it has to be before anything leads into it, and puts
    /// what the kernel refuses down to the entries it belongs to.
    fn write(
        &mut self,
        socket: &mut Socket,
        pins: &Pins,
        changes: &Changes,
        verify: bool,
        applied: &mut Applied,
    ) -> Result<(), PlaneError> {
        let memory = self.translator.addresses_mut().places_mut().memory_mut();
        let grown_slots = memory.take_grown();
        let (programs, links, sizes) = (&mut self.programs, &self.links, self.sizes);
        let mut moved = 0;
        let mut move_to = |name: &'static str, map: &Map| {
            programs::repin(map, &pins.map(name))
                .map_err(|error| pins::failed(&format!("pin a map of {name}"), &error))?;
            *programs = Programs::load(pins, sizes)?;
            for (ifindex, place) in links {
                if attach::is_attached(socket, pins, *ifindex)? {
                    attach::put(socket, pins, *ifindex, programs.of(*place))?;
                }
            }
            moved += 1;
            Ok(())
        };
        if let Some(slots) = grown_slots {
            move_to("slots", &slots)?;
        }
        self.tables.resize_flows(sizes.flows, &mut move_to)?;
        let (operations, mut refused) = self.tables.write(changes, &mut move_to)?;
        if moved > 0 {
            self.asking = None;
            applied.operations += moved;
        }
        applied.operations += operations;
        if verify {
            let shown = self.tables.verify(changes)?;
            // What the kernel said when it refused explains more.
            let known: BTreeSet<Cell> = refused.iter().map(|(cell, _)| *cell).collect();
            refused.extend(shown.into_iter().filter(|(cell, _)| !known.contains(cell)));
        }
        self.translator.written();
        self.report(refused, &mut applied.failures);
        Ok(())
    }

    fn report(&mut self, refused: Refused, failures: &mut Failures) {
        for (cell, reason) in refused {
            self.open.insert(cell);
            for key in self.translator.owners(&cell) {
                failures.entry(key).or_insert_with(|| reason.clone());
            }
        }
    }

    /// Indices of the links that programs are put on.
    pub(crate) fn links(&self) -> impl Iterator<Item = u32> {
        self.links.iter().map(|(index, _)| *index)
    }

    /// The programs, to be used again.
    pub(crate) fn into_programs(self) -> Programs {
        self.programs
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// What the programs would do with a packet.
    pub(crate) fn ask(
        &mut self,
        socket: &mut Socket,
        pins: &Pins,
        packet: &Packet,
    ) -> Result<Option<Witness>, PlaneError> {
        let asking = match self.asking.take() {
            Some(asking) => asking,
            None => Asking::load(pins)?,
        };
        let asking = self.asking.insert(asking);
        ask::ask(
            socket,
            asking,
            self.routing.host(),
            &self.translator,
            packet,
        )
    }

    /// What is counted by link and VPC.
    pub(crate) fn traffic(&self) -> Result<Traffic, PlaneError> {
        traffic::read(&self.tables, &self.translator)
    }

    /// Has packets sampled, or none.
    pub(crate) fn sample(&mut self, wanted: Option<&Wanted>) {
        let sampling = Sampling::of(wanted, self.translator.links());
        self.translator.sample(sampling);
        self.tables.set_globals(&self.translator.globals());
    }

    /// What the programs have written of packets, in the words of everybody.
    pub(crate) fn sampled(&self, samples: &[Sample]) -> Vec<Sampled> {
        traffic::sampled(samples, &self.translator)
    }

    /// How full the plane is.
    pub(crate) fn limits(&self) -> Vec<Limit> {
        self.translator.limits()
    }

    /// What permits would take.
    pub(crate) fn forecast(&self, permits: &BTreeMap<EntryKey, EntryValue>) -> Forecast {
        self.translator.forecast(permits)
    }
}

/// Has the programs on all links. A program that does the same with the same maps stays, unless the maps
/// are `fresh`.
fn attach_all(
    socket: &mut Socket,
    pins: &Pins,
    programs: &Programs,
    links: &[(u32, Place)],
    fresh: bool,
) -> Result<usize, PlaneError> {
    let mut changes = 0;
    for (ifindex, place) in links {
        let program = programs.of(*place);
        if fresh || !attach::is_equal(socket, pins, *ifindex, program)? {
            changes += attach::put(socket, pins, *ifindex, program)?;
        }
    }
    Ok(changes)
}

/// What the maps hold, a line a cell and a line an address in a window.
pub(crate) fn lines(tables: &Tables, memory: &KernelMemory) -> Result<Vec<String>, PlaneError> {
    let mut lines = Vec::new();
    if tables.globals().trace != 0 {
        lines.push("packets are sampled".to_owned());
    }
    for (cell, content) in tables.found()? {
        let line = match content {
            Content::Slot(slot) => format!("{cell} {}", place(memory, slot)),
            Content::Permit(permit) => format!(
                "{cell} link counter {} flags {} dscp {}",
                permit.link, permit.flags, permit.dscp
            ),
            Content::Vpc(vpc) => format!("{cell} scope {} counter {}", vpc.scope, vpc.counter),
            Content::Subnet(subnet) => {
                if let Cell::Subnet { prefix, .. } = cell {
                    let at = |offset: u32| match prefix.addr() {
                        IpAddr::V4(_) => {
                            std::net::Ipv4Addr::from_bits(subnet.first as u32 + offset).into()
                        }
                        IpAddr::V6(_) => {
                            let first = u128::from(subnet.high) << 64 | u128::from(subnet.first);
                            unmapped((first + u128::from(offset)).to_be_bytes())
                        }
                    };
                    for offset in 0..subnet.span {
                        let slot = memory.slot(subnet.base + offset);
                        if slot != Slot::EMPTY {
                            let addr: IpAddr = at(offset);
                            let place = place(memory, slot);
                            lines.push(format!("address {addr} vni {} {place}", subnet.vni));
                        }
                    }
                }
                format!(
                    "{cell} vni {} counter {} window {} slots from {}",
                    subnet.vni, subnet.counter, subnet.span, subnet.base
                )
            }
        };
        lines.push(line);
    }
    Ok(lines)
}

fn place(memory: &KernelMemory, slot: Slot) -> String {
    let on = |slot: Slot| {
        let host = memory.host(slot.host()).addr();
        let host = host.map_or_else(|| format!("host {}", slot.host()), |addr| addr.to_string());
        format!("{host} mac {}", netlink::Mac(slot.mac()))
    };
    let Some((base, count)) = slot.nodes() else {
        return format!("on {}", on(slot));
    };
    let nodes: BTreeSet<String> = (base..base + count).map(|at| on(memory.slot(at))).collect();
    let nodes: Vec<String> = nodes.into_iter().collect();
    format!("on {} of {count} slots: {}", nodes.len(), nodes.join(", "))
}
