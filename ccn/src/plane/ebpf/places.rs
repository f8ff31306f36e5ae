//! Where endpoints are: hosts by number, the node tables of SLBs, and the stores that put them into
//! slots. Which slot belongs to which address is not known here.

use std::collections::HashMap;
use std::net::IpAddr;

use super::layout::{HOST_MAX, HOST_NONE, HOST_SLB, Host, Slot};
use super::memory::Memory;
use super::nodes;
use super::ranges::Ranges;
use crate::plane::entry::Hop;

/// Most slots that are asked for: 512 MB.
pub(crate) const MAX_SLOTS: u32 = 1 << 26;
/// Numbers of hosts that nothing uses are collected when fewer than so many are left.
const FEW_HOSTS: u16 = 8192;

/// Hosts, the ranges of slots that are in use, and the slots themselves.
#[derive(Debug)]
pub(crate) struct Places<M> {
    memory: M,
    ranges: Ranges,
    by_addr: HashMap<IpAddr, u16>,
    /// How many slots lead to each host; by number.
    uses: Vec<u32>,
    /// Numbers that are free again.
    free: Vec<u16>,
    /// Stores into slots so far.
    stores: usize,
}

impl<M: Memory> Places<M> {
    /// With what stands in `hosts`; no slot is in use yet.
    pub(crate) fn new(memory: M) -> Places<M> {
        let mut by_addr = HashMap::new();
        let mut uses = vec![0];
        let mut free = Vec::new();
        let last = (1..=HOST_MAX)
            .rev()
            .find(|n| memory.host(*n).addr().is_some());
        for number in 1..=last.unwrap_or(0) {
            uses.push(0);
            match memory.host(number).addr() {
                Some(addr) => {
                    by_addr.insert(addr, number);
                }
                None => free.push(number),
            }
        }
        Places {
            ranges: Ranges::new(memory.slots()),
            memory,
            by_addr,
            uses,
            free,
            stores: 0,
        }
    }

    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    pub(crate) fn memory_mut(&mut self) -> &mut M {
        &mut self.memory
    }

    /// Gives the memory back.
    #[cfg(test)]
    pub(crate) fn into_memory(self) -> M {
        self.memory
    }

    /// Hosts that slots lead to.
    pub(crate) fn hosts(&self) -> usize {
        self.uses.iter().filter(|uses| **uses > 0).count()
    }

    /// Slots in use, whether or not somebody has their addresses.
    pub(crate) fn slots(&self) -> u32 {
        self.ranges.used()
    }

    /// Stores into slots so far.
    pub(crate) fn stores(&self) -> usize {
        self.stores
    }

    pub(crate) fn slot(&self, at: u32) -> Slot {
        self.memory.slot(at)
    }

    /// Stores a slot; nothing if it is as it shall be.
    pub(crate) fn store(&mut self, at: u32, slot: Slot) {
        let old = self.memory.slot(at);
        if old == slot {
            return;
        }
        self.hold(slot);
        self.memory.set_slot(at, slot);
        self.stores += 1;
        self.let_go(old);
    }

    /// Another slot leads to the same place.
    pub(crate) fn hold(&mut self, slot: Slot) {
        if let Some(uses) = self.uses_of(slot) {
            *uses += 1;
        }
    }

    /// A slot that led there is gone.
    pub(crate) fn let_go(&mut self, slot: Slot) {
        if let Some(uses) = self.uses_of(slot) {
            *uses = uses.saturating_sub(1);
        }
    }

    fn uses_of(&mut self, slot: Slot) -> Option<&mut u32> {
        match slot.host() {
            HOST_NONE | HOST_SLB => None,
            number => self.uses.get_mut(usize::from(number)),
        }
    }

    /// A range of empty slots. Waits for readers, or makes more slots, where there is none.
    pub(crate) fn take(&mut self, len: u32) -> Result<u32, String> {
        let mut found = self.ranges.take(len);
        if found.is_none() && self.ranges.resting() > 0 {
            self.memory.wait();
            self.ranges.release();
            found = self.ranges.take(len);
        }
        while found.is_none() {
            let capacity = self.ranges.capacity();
            let wanted = capacity.saturating_mul(2).clamp(1024, MAX_SLOTS);
            if wanted <= capacity {
                return Err(format!(
                    "the ebpf plane holds at most {MAX_SLOTS} slots for addresses and SLB nodes"
                ));
            }
            self.memory
                .grow(wanted)
                .map_err(|reason| format!("no room for {wanted} slots: {reason}"))?;
            self.ranges.grow(wanted);
            found = self.ranges.take(len);
        }
        let start = found.unwrap_or_default();
        for at in start..start + len {
            if self.memory.slot(at) != Slot::EMPTY {
                self.memory.set_slot(at, Slot::EMPTY);
            }
        }
        Ok(start)
    }

    /// Takes over a range that maps lead to already, with what stands in it: every place that its
    /// slots lead to is held, but for node tables. False when some of it is in use otherwise.
    pub(crate) fn adopt(&mut self, start: u32, len: u32) -> bool {
        if !self.ranges.take_at(start, len) {
            return false;
        }
        for at in start..start + len {
            let slot = self.memory.slot(at);
            match slot.host() {
                HOST_NONE | HOST_SLB => {}
                number if self.memory.host(number).addr().is_some() => self.hold(slot),
                // It leads to a host that there is not.
                _ => self.clear(at),
            }
        }
        true
    }

    /// Takes over the node table that a slot leads to; false when there can be none.
    pub(crate) fn adopt_nodes(&mut self, slot: Slot) -> bool {
        slot.nodes()
            .is_none_or(|(base, count)| count.is_power_of_two() && self.adopt(base, count))
    }

    /// Empties a slot that holds nonsense, without looking at what it leads to.
    pub(crate) fn clear(&mut self, at: u32) {
        self.memory.set_slot(at, Slot::EMPTY);
        self.stores += 1;
    }

    /// Gives back a range whose slots were taken or adopted. They stay as they are, for programs that
    /// are reading them; node tables that they lead to are not followed.
    pub(crate) fn give_back(&mut self, start: u32, len: u32) {
        for at in start..start + len {
            let slot = self.memory.slot(at);
            self.let_go(slot);
        }
        self.ranges.give_back(start, len);
    }

    /// Gives back the node table that a slot leads to, if it does.
    pub(crate) fn give_back_nodes(&mut self, slot: Slot) {
        if let Some((base, count)) = slot.nodes() {
            self.give_back(base, count);
        }
    }

    /// The slot that leads to these hops, in place of `old`, whose node table is used again if its
    /// size still does. The caller stores it, and gives back `old`'s table if it is another.
    pub(crate) fn slot_for(&mut self, hops: &[Hop], old: Slot) -> Result<Slot, String> {
        if let [hop] = hops {
            return Ok(Slot::on_host(self.number(hop.vtep)?, hop.mac.bytes()));
        }
        let mut leads = Vec::with_capacity(hops.len());
        for hop in hops {
            leads.push(Slot::on_host(self.number(hop.vtep)?, hop.mac.bytes()));
        }
        // A table never shrinks: with another size, flows of all nodes would move.
        let wanted = nodes::slots_for(hops);
        let (base, count) = match old.nodes() {
            Some((base, count)) if count >= wanted => (base, count),
            _ => (self.take(wanted)?, wanted),
        };
        for (at, node) in (base..).zip(nodes::assign(hops, count)) {
            self.store(at, leads[node]);
        }
        Ok(Slot::slb(base, count))
    }

    /// The number of a host, which is made if it has none.
    fn number(&mut self, addr: IpAddr) -> Result<u16, String> {
        if let Some(number) = self.by_addr.get(&addr) {
            return Ok(*number);
        }
        let next = self.uses.len();
        let number = match self.free.pop() {
            Some(number) => number,
            None if next <= usize::from(HOST_MAX) => {
                self.uses.push(0);
                next as u16
            }
            None => {
                return Err(format!(
                    "the ebpf plane holds at most {HOST_MAX} hosts; {addr} is one more"
                ));
            }
        };
        self.memory.set_host(number, Host::at(addr));
        self.by_addr.insert(addr, number);
        Ok(number)
    }

    /// Everything that was decided since the last call has been written: what was given back is not
    /// to be found any more. Collects what is unused where little is left.
    pub(crate) fn settle(&mut self) {
        self.ranges.settle();
        let few_hosts = self.free.len() < usize::from(FEW_HOSTS)
            && self.uses.len() + usize::from(FEW_HOSTS) > usize::from(HOST_MAX);
        let idle = few_hosts && self.by_addr.len() > self.hosts();
        if !idle && self.ranges.resting() <= self.ranges.capacity() / 4 {
            return;
        }
        self.memory.wait();
        self.ranges.release();
        if idle {
            let (uses, free, memory) = (&self.uses, &mut self.free, &mut self.memory);
            self.by_addr.retain(|_, number| {
                let used = uses[usize::from(*number)] > 0;
                if !used {
                    memory.set_host(*number, Host::default());
                    free.push(*number);
                }
                used
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::memory::heap::Heap;
    use super::*;
    use crate::record::Mac;

    fn hop(n: u32, weight: u16) -> Hop {
        Hop {
            vtep: Ipv4Addr::from_bits(0xac10_0000 + n).into(),
            mac: Mac::new([2, 0, 0, 0, 0, 1]).expect("a MAC"),
            weight,
        }
    }

    #[test]
    fn an_slb_keeps_its_table_while_it_is_large_enough() {
        let mut places = Places::new(Heap::new(16, 1 << 16));
        let two = [hop(1, 1), hop(2, 1)];
        let slot = places.slot_for(&two, Slot::EMPTY).expect("room");
        assert_eq!(slot.nodes(), Some((0, 256)));
        assert_eq!((places.hosts(), places.slots()), (2, 256));
        let stores = places.stores();
        assert_eq!(places.slot_for(&two, slot), Ok(slot));
        assert_eq!(places.stores(), stores, "nothing has changed");
        let many: Vec<Hop> = (1..=9).map(|n| hop(n, 1)).collect();
        let larger = places.slot_for(&many, slot).expect("room");
        assert_eq!(larger.nodes(), Some((256, 512)));
        places.give_back_nodes(slot);
        assert_eq!(
            places.slot_for(&two, larger),
            Ok(larger),
            "it never shrinks"
        );
        assert_eq!((places.hosts(), places.slots()), (2, 512));
    }

    #[test]
    fn a_full_memory_is_refused_by_name() {
        let mut places = Places::new(Heap::new(256, 256));
        let nodes = [hop(1, 1), hop(2, 1)];
        assert!(places.slot_for(&nodes, Slot::EMPTY).is_ok());
        let refusal = places.slot_for(&nodes, Slot::EMPTY).expect_err("full");
        assert_eq!(refusal, "no room for 1024 slots: no memory");
    }

    #[test]
    fn hosts_are_collected_when_numbers_run_out() {
        let mut places = Places::new(Heap::new(16, 16));
        for n in 0..u32::from(HOST_MAX) {
            let slot = places
                .slot_for(&[hop(n, 1)], Slot::EMPTY)
                .expect("a number");
            places.store(0, slot);
        }
        let refusal = places
            .slot_for(&[hop(1 << 20, 1)], Slot::EMPTY)
            .expect_err("full");
        assert_eq!(
            refusal,
            "the ebpf plane holds at most 65534 hosts; 172.32.0.0 is one more"
        );
        places.settle();
        assert_eq!((places.hosts(), places.memory().waits), (1, 1));
        let slot = places
            .slot_for(&[hop(1 << 20, 1)], Slot::EMPTY)
            .expect("a number");
        assert_ne!(slot.host(), places.slot(0).host());
    }
}
