//! Windows are chosen anew and everybody moves: into a better one, or from one subnet into another.

use std::collections::BTreeSet;

use super::super::cells::Cell;
use super::super::layout::Slot;
use super::super::memory::Memory;
use super::super::window::{self, Window};
use super::{Addresses, FEW};

impl<M: Memory> Addresses<M> {
    /// Numbers and slots of a home's addresses within bounds, in order.
    pub(super) fn held(&self, id: usize, (low, high): (u128, u128)) -> Vec<(u128, Slot)> {
        let Some(home) = &self.homes[id] else {
            return Vec::new();
        };
        let Window { first, span } = home.window;
        let mut found: Vec<(u128, Slot)> = (0..span)
            .map(|place| (first + u128::from(place), home.base + place))
            .filter(|(number, _)| (low..=high).contains(number))
            .map(|(number, at)| (number, self.places.slot(at)))
            .filter(|(_, slot)| *slot != Slot::EMPTY)
            .collect();
        let windowed = found.len();
        found.extend(
            home.sparse
                .range(low..=high)
                .map(|(number, slot)| (*number, *slot)),
        );
        if windowed > 0 && windowed < found.len() {
            found.sort_unstable_by_key(|(number, _)| *number);
        }
        found
    }

    /// Puts addresses that another home has into this one, where they are not yet.
    pub(super) fn copy(&mut self, id: usize, addresses: Vec<(u128, Slot)>) {
        if addresses.is_empty() {
            return;
        }
        let numbers: Vec<u128> = addresses.iter().map(|(number, _)| *number).collect();
        self.lay_out(id, &numbers);
        for (number, slot) in addresses {
            // A node table belongs to one address: the copy gets its own.
            let Some(slot) = self.duplicate(slot) else {
                continue;
            };
            let Some(home) = &mut self.homes[id] else {
                return;
            };
            if let Some(place) = home.window.place(number) {
                let at = home.base + place;
                if self.places.slot(at) != Slot::EMPTY {
                    self.places.give_back_nodes(slot);
                    continue;
                }
                self.places.store(at, slot);
                home.used += 1;
            } else {
                if home.sparse.contains_key(&number) {
                    self.places.give_back_nodes(slot);
                    continue;
                }
                self.places.hold(slot);
                home.sparse.insert(number, slot);
                self.sparse += 1;
                let addr = window::address(home.prefix, number);
                self.touched.insert(Cell::Sparse {
                    vni: home.vni,
                    addr,
                });
            }
            self.endpoints += 1;
        }
    }

    fn duplicate(&mut self, slot: Slot) -> Option<Slot> {
        let Some((from, count)) = slot.nodes() else {
            return Some(slot);
        };
        let base = self.places.take(count).ok()?;
        for offset in 0..count {
            let node = self.places.slot(from + offset);
            self.places.store(base + offset, node);
        }
        Some(Slot::slb(base, count))
    }

    /// Looks for the best window for what the home holds and what comes, and moves everybody into it
    /// if it is another. What the old one held is where the programs find it until they find the new.
    pub(super) fn lay_out(&mut self, id: usize, new: &[u128]) {
        let Some(home) = &self.homes[id] else {
            return;
        };
        let (scope, prefix, vni) = (home.scope, home.prefix, home.vni);
        let held = self.held(id, window::bounds(prefix));
        let mut numbers: Vec<u128> = held.iter().map(|(number, _)| *number).collect();
        numbers.extend(new);
        numbers.sort_unstable();
        numbers.dedup();
        let window = window::choose(prefix, &numbers);
        let outside = |w: &Window| numbers.iter().filter(|n| w.place(**n).is_none()).count();
        let Some(home) = &mut self.homes[id] else {
            return;
        };
        let (now, then) = (outside(&home.window), outside(&window));
        let shrinks = window.span < home.window.span / 2;
        let better = then < now || shrinks || home.window.span == 0;
        if window == home.window || !better {
            home.look_at = 2 * now + FEW;
            return;
        }
        let base = match window.span {
            0 => 0,
            span => match self.places.take(span) {
                Ok(base) => base,
                Err(_) => {
                    home.look_at = 2 * now + FEW;
                    return;
                }
            },
        };
        let (old_window, old_base) = (home.window, home.base);
        let old_sparse = std::mem::take(&mut home.sparse);
        self.sparse -= old_sparse.len();
        home.used = 0;
        for (number, slot) in &held {
            match window.place(*number) {
                Some(place) => {
                    self.places.store(base + place, *slot);
                    home.used += 1;
                }
                None => {
                    self.places.hold(*slot);
                    home.sparse.insert(*number, *slot);
                }
            }
        }
        self.sparse += home.sparse.len();
        for slot in old_sparse.values() {
            self.places.let_go(*slot);
        }
        self.places.give_back(old_base, old_window.span);
        let moved = old_sparse.keys().chain(home.sparse.keys());
        for number in moved.copied().collect::<BTreeSet<u128>>() {
            let addr = window::address(prefix, number);
            self.touched.insert(Cell::Sparse { vni, addr });
        }
        (home.window, home.base) = (window, base);
        home.look_at = (numbers.len() / 4).max(FEW) + then;
        self.touched.insert(Cell::Subnet { scope, prefix });
    }

    /// Windows that have become too empty are laid out anew. Call before the touched cells are written.
    pub(crate) fn tidy(&mut self) {
        for id in std::mem::take(&mut self.thin) {
            self.lay_out(id, &[]);
        }
    }
}
