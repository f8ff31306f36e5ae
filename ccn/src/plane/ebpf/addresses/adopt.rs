//! What an earlier run left in windows and outside of them, taken over.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bgp::Prefix;

use super::super::layout::{HOST_SLB, Slot, Subnet};
use super::super::memory::Memory;
use super::super::window::{self, Window};
use super::{Addresses, FEW, Home};

impl<M: Memory> Addresses<M> {
    /// Takes over a subnet that maps lead to already, with the addresses of its window. False when
    /// that cannot be what an earlier run left: the subnet is then as if it had no window.
    pub(crate) fn adopt_subnet(&mut self, scope: u32, prefix: Prefix, found: &Subnet) -> bool {
        let id = self.new_home(Home {
            scope,
            prefix,
            vni: found.vni,
            window: Window::default(),
            base: 0,
            used: 0,
            sparse: BTreeMap::new(),
            look_at: 1,
        });
        let (low, high) = window::bounds(prefix);
        let first = u128::from(found.high) << 64 | u128::from(found.first);
        let window = Window {
            first,
            span: found.span,
        };
        if window.span == 0 {
            return true;
        }
        let last = first.saturating_add(u128::from(window.span - 1));
        let within = first >= low && last <= high && first >> 64 == last >> 64;
        if !within || !self.places.adopt(found.base, window.span) {
            return false;
        }
        if let Some(home) = &mut self.homes[id] {
            (home.window, home.base) = (window, found.base);
        }
        true
    }

    /// Takes over what slots of adopted windows lead to, when all windows are adopted.
    pub(crate) fn adopt_slots(&mut self) {
        for home in self.homes.iter_mut().flatten() {
            home.used = 0;
            for at in home.base..home.base + home.window.span {
                let slot = self.places.slot(at);
                if slot == Slot::EMPTY {
                    continue;
                }
                if slot.host() == HOST_SLB && !self.places.adopt_nodes(slot) {
                    self.places.clear(at);
                    continue;
                }
                home.used += 1;
            }
            self.endpoints += home.used as usize;
            home.look_at = FEW.max(home.used as usize / 4);
        }
    }

    /// Takes over an address outside of windows. False when it has no place there.
    pub(crate) fn adopt_sparse(&mut self, scope: u32, vni: u32, addr: IpAddr, slot: Slot) -> bool {
        let number = window::number(addr);
        let Some(id) = self.find(scope, addr) else {
            return false;
        };
        let Some(home) = self.homes[id].as_mut().filter(|home| home.vni == vni) else {
            return false;
        };
        let outside = home.window.place(number).is_none() && !home.sparse.contains_key(&number);
        if !outside || slot == Slot::EMPTY || !self.places.adopt_nodes(slot) {
            return false;
        }
        self.places.hold(slot);
        home.sparse.insert(number, slot);
        home.look_at = home.look_at.max(home.sparse.len() + FEW);
        self.sparse += 1;
        self.endpoints += 1;
        true
    }
}
