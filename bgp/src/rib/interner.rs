//! The pool in which equal attributes exist once, under a small number.
//!
//! Counts who uses a set: a set goes when nobody does, and its number is given out again.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::rib::attributes::RouteAttributes;
use crate::rib::next_hop::{NextHopState, NextHops};

/// The number of a set of attributes, as long as somebody uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttributesId(NonZeroU32);

impl AttributesId {
    fn new(slot: usize) -> AttributesId {
        // A million sets take hundreds of megabytes; four thousand million never come.
        let number = u32::try_from(slot + 1).unwrap_or(u32::MAX);
        AttributesId(NonZeroU32::new(number).unwrap_or(NonZeroU32::MAX))
    }

    /// The number as such.
    pub(crate) fn get(self) -> u32 {
        self.0.get()
    }

    /// The other way round; 0 is none.
    pub(crate) fn from_number(number: u32) -> Option<AttributesId> {
        NonZeroU32::new(number).map(AttributesId)
    }

    fn slot(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Sets of attributes by number.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Hears of the next hop of each set that comes or goes.
    pub(crate) next_hops: NextHops,
}

#[derive(Debug)]
struct Slot {
    attributes: Option<Arc<RouteAttributes>>,
    users: u32,
}

impl Interner {
    /// The number of these attributes, used once more: [`Interner::release`] it when done.
    pub(crate) fn intern(&mut self, attributes: RouteAttributes) -> AttributesId {
        let hash = self.hasher.hash_one(&attributes);
        let slots = &self.slots;
        let found = self.index.find(hash, |slot| {
            slots[*slot as usize].attributes.as_deref() == Some(&attributes)
        });
        if let Some(slot) = found.copied() {
            self.slots[slot as usize].users += 1;
            return AttributesId::new(slot as usize);
        }
        self.next_hops.hold(attributes.next_hop.addr());
        let new = Slot {
            attributes: Some(Arc::new(attributes)),
            users: 1,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = new;
                slot
            }
            None => {
                self.slots.push(new);
                (self.slots.len() - 1) as u32
            }
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, slot, |slot| {
            // What is in the index has attributes.
            slots[*slot as usize]
                .attributes
                .as_deref()
                .map_or(0, |known| hasher.hash_one(known))
        });
        AttributesId::new(slot as usize)
    }

    /// One more user.
    pub(crate) fn hold(&mut self, id: AttributesId) {
        self.slots[id.slot()].users += 1;
    }

    /// One user less.
    pub(crate) fn release(&mut self, id: AttributesId) {
        let slot = &mut self.slots[id.slot()];
        slot.users -= 1;
        if slot.users > 0 {
            return;
        }
        let Some(attributes) = slot.attributes.take() else {
            return;
        };
        self.next_hops.release(attributes.next_hop.addr());
        let hash = self.hasher.hash_one(&*attributes);
        let number = id.slot() as u32;
        if let Ok(entry) = self.index.find_entry(hash, |slot| *slot == number) {
            entry.remove();
        }
        self.free.push(number);
    }

    /// The attributes; they are there as long as somebody uses them.
    pub(crate) fn get(&self, id: AttributesId) -> &Arc<RouteAttributes> {
        match &self.slots[id.slot()].attributes {
            Some(attributes) => attributes,
            None => unreachable!("attributes {id:?} are used and were freed"),
        }
    }

    /// Whether the next hop of a set can be reached.
    pub(crate) fn next_hop_state(&self, id: AttributesId) -> NextHopState {
        match self.next_hops.tracking() {
            true => self.next_hops.state(self.get(id).next_hop.addr()),
            false => NextHopState::CONNECTED,
        }
    }

    /// Whether next hops are tracked from now on. Returns those whose state may be another one.
    pub(crate) fn track_next_hops(&mut self, tracking: bool) -> Vec<IpAddr> {
        let sets = self
            .slots
            .iter()
            .filter_map(|slot| slot.attributes.as_ref());
        let hops = sets.map(|attributes| attributes.next_hop.addr());
        self.next_hops.set_tracking(tracking, hops)
    }

    /// The sets that have one of these next hops.
    pub(crate) fn with_next_hop(&self, hops: &[IpAddr]) -> HashSet<AttributesId> {
        let slots = self.slots.iter().enumerate();
        let has = |slot: &Slot| {
            let attributes = slot.attributes.as_ref();
            attributes.is_some_and(|known| hops.contains(&known.next_hop.addr()))
        };
        slots
            .filter(|(_, slot)| has(slot))
            .map(|(number, _)| AttributesId::new(number))
            .collect()
    }

    /// How many different sets there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::wire::NextHop;

    fn via(last: u8, med: u32) -> RouteAttributes {
        let next_hop = NextHop::V4(Ipv4Addr::new(10, 0, 0, last));
        RouteAttributes {
            med: Some(med),
            ..RouteAttributes::originated(next_hop)
        }
    }

    #[test]
    fn equal_attributes_have_one_number() {
        let mut interner = Interner::default();
        let (a, b) = (interner.intern(via(1, 5)), interner.intern(via(1, 5)));
        assert_eq!(a, b);
        assert_ne!(a, interner.intern(via(2, 5)));
        assert_eq!(interner.len(), 2);
        assert_eq!(**interner.get(a), via(1, 5));
    }

    #[test]
    fn what_nobody_uses_goes_and_its_number_comes_back() {
        let mut interner = Interner::default();
        let kept = interner.intern(via(1, 0));
        for med in 0..10_000 {
            let id = interner.intern(via(2, med));
            interner.hold(id);
            interner.release(id);
            interner.release(id);
        }
        assert_eq!((interner.len(), interner.slots.len()), (1, 2));
        assert_eq!(interner.intern(via(1, 0)), kept);
    }
}
