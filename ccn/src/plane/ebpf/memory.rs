//! The arrays that programs and agent share: `slots` and `hosts`. They are the state itself: what
//! stands in them is not kept a second time.

use super::layout::{Host, Slot};

/// `slots` and `hosts`, wherever they are.
pub(crate) trait Memory {
    /// How many slots there are.
    fn slots(&self) -> u32;
    /// A slot; one that does not exist is empty.
    fn slot(&self, at: u32) -> Slot;
    /// Stores a slot at once. Whoever sees it sees every host that was set before.
    fn set_slot(&mut self, at: u32, slot: Slot);
    /// An outer destination.
    fn host(&self, number: u16) -> Host;
    /// Sets one that no slot leads to.
    fn set_host(&mut self, number: u16, host: Host);
    /// Makes so many slots, with those there are as they are.
    ///
    /// # Errors
    /// Why that is impossible; nothing has changed then.
    fn grow(&mut self, slots: u32) -> Result<(), String>;
    /// Waits until every program that may have read something is done with it.
    fn wait(&mut self);
}

#[cfg(test)]
pub(crate) mod heap {
    //! Memory that no program reads.

    use std::collections::BTreeMap;

    use super::*;

    /// See the module.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    pub(crate) struct Heap {
        pub(crate) slots: Vec<Slot>,
        pub(crate) hosts: BTreeMap<u16, Host>,
        /// Most slots that it grows to.
        pub(crate) most: u32,
        pub(crate) stores: usize,
        pub(crate) waits: usize,
    }

    impl Heap {
        pub(crate) fn new(slots: u32, most: u32) -> Heap {
            Heap {
                slots: vec![Slot::EMPTY; slots as usize],
                most,
                ..Heap::default()
            }
        }
    }

    impl Memory for Heap {
        fn slots(&self) -> u32 {
            self.slots.len() as u32
        }

        fn slot(&self, at: u32) -> Slot {
            self.slots.get(at as usize).copied().unwrap_or_default()
        }

        fn set_slot(&mut self, at: u32, slot: Slot) {
            self.slots[at as usize] = slot;
            self.stores += 1;
        }

        fn host(&self, number: u16) -> Host {
            self.hosts.get(&number).copied().unwrap_or_default()
        }

        fn set_host(&mut self, number: u16, host: Host) {
            self.hosts.insert(number, host);
        }

        fn grow(&mut self, slots: u32) -> Result<(), String> {
            if slots > self.most {
                return Err("no memory".to_owned());
            }
            self.slots.resize(slots as usize, Slot::EMPTY);
            Ok(())
        }

        fn wait(&mut self) {
            self.waits += 1;
        }
    }
}
