//! Next hops of learned routes: the user hears which are in use, and says which can be reached.

use std::net::IpAddr;

use super::Core;
use crate::event::Event;
use crate::rib::next_hop::NextHopState;
use crate::wire::Prefix;

impl Core {
    /// What the user says from now on about the addresses in some networks, `None`: nothing any
    /// more. Of several networks around an address the smallest counts. Without
    /// [`track_next_hops`](crate::SpeakerConfig::track_next_hops) it is of no effect.
    pub fn set_next_hops(
        &mut self,
        changes: impl IntoIterator<Item = (Prefix, Option<NextHopState>)>,
    ) {
        let changed = self.rib.table.interner.next_hops.tell(changes);
        self.rib.next_hops_changed(&changed);
        self.changed();
    }

    /// Whether next hops are tracked from now on.
    pub(super) fn track_next_hops(&mut self, tracking: bool) {
        let changed = self.rib.table.interner.track_next_hops(tracking);
        self.rib.next_hops_changed(&changed);
        self.changed();
    }

    /// The next hops of all learned routes, in order, if they are tracked.
    pub fn next_hops(&self) -> Vec<(IpAddr, NextHopState)> {
        self.rib.table.interner.next_hops.used()
    }

    /// A session with a peer at this address came up or went down.
    pub(super) fn session_reaches(&mut self, peer: IpAddr, up: bool) {
        let changed = self.rib.table.interner.next_hops.session(peer, up);
        self.rib.next_hops_changed(&changed);
    }

    pub(super) fn report_next_hops(&mut self) {
        for (address, in_use) in self.rib.table.interner.next_hops.take_news() {
            self.journal.event(Event::NextHop { address, in_use });
        }
    }
}
