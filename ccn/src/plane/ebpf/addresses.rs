//! Which addresses of which subnets are where: windows of slots, and what is outside of them.
//!
//! The slots are the state: an address in a window is kept nowhere else. A subnet is that of a scope
//! here, as destinations are looked up; when its window no longer fits, the addresses are laid out
//! anew beside it, and the old window is given back once no map leads to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use bgp::Prefix;

use super::cells::Cell;
use super::layout::{SUBNET_SPARSE, Slot, Subnet};
use super::memory::Memory;
use super::places::Places;
use super::window::{self, SLOTS_PER_ADDRESS, SMALL, Window};
use crate::plane::entry::Hop;

mod adopt;
mod windows;

/// Most addresses outside of windows, in all.
pub(crate) const MAX_SPARSE: usize = 1 << 20;
/// So many addresses outside a window are left there before it is looked whether another is better.
const FEW: usize = 16;

/// A subnet in a scope.
#[derive(Debug)]
struct Home {
    scope: u32,
    prefix: Prefix,
    vni: u32,
    window: Window,
    /// Its first slot.
    base: u32,
    /// Addresses of the window that somebody has.
    used: u32,
    /// Addresses outside of it.
    sparse: BTreeMap<u128, Slot>,
    /// Number of addresses outside at which another window is looked for.
    look_at: usize,
}

/// One endpoint to be put.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint<'a> {
    pub(crate) addr: IpAddr,
    /// That of the subnet it must be in.
    pub(crate) vni: u32,
    /// At least one.
    pub(crate) hops: &'a [Hop],
}

/// All subnets of all scopes, and who is in them.
#[derive(Debug)]
pub(crate) struct Addresses<M> {
    places: Places<M>,
    homes: Vec<Option<Home>>,
    vacant: Vec<usize>,
    index: BTreeMap<(u32, Prefix), usize>,
    sparse: usize,
    endpoints: usize,
    /// Homes whose windows have become too empty.
    thin: BTreeSet<usize>,
    /// Cells whose content may be another than at the last settling.
    pub(crate) touched: BTreeSet<Cell>,
}

impl<M: Memory> Addresses<M> {
    pub(crate) fn new(places: Places<M>) -> Addresses<M> {
        Addresses {
            places,
            homes: Vec::new(),
            vacant: Vec::new(),
            index: BTreeMap::new(),
            sparse: 0,
            endpoints: 0,
            thin: BTreeSet::new(),
            touched: BTreeSet::new(),
        }
    }

    pub(crate) fn places(&self) -> &Places<M> {
        &self.places
    }

    pub(crate) fn places_mut(&mut self) -> &mut Places<M> {
        &mut self.places
    }

    #[cfg(test)]
    pub(crate) fn into_places(self) -> Places<M> {
        self.places
    }

    /// Addresses that somebody has.
    #[cfg(test)]
    pub(crate) fn endpoints(&self) -> usize {
        self.endpoints
    }

    /// Those of them that are outside of windows.
    pub(crate) fn sparse(&self) -> usize {
        self.sparse
    }

    /// The VNI that a subnet of a scope belongs to.
    pub(crate) fn vni(&self, scope: u32, prefix: Prefix) -> Option<u32> {
        self.home_at(scope, prefix).map(|home| home.vni)
    }

    /// What a map says of a subnet; the VPC's counter and the lengths are the caller's.
    pub(crate) fn subnet(&self, scope: u32, prefix: Prefix) -> Option<Subnet> {
        let home = self.home_at(scope, prefix)?;
        let (base, span) = (home.base, home.window.span);
        let first = home.window.first;
        Some(Subnet {
            vni: home.vni,
            base: if span > 0 { base } else { 0 },
            span,
            first: first as u64,
            high: (first >> 64) as u64,
            flags: if home.sparse.is_empty() {
                0
            } else {
                SUBNET_SPARSE
            },
            ..Subnet::default()
        })
    }

    /// Whether the address has a slot of its own in a window, which is one store to change.
    pub(crate) fn has_slot(&self, scope: u32, addr: IpAddr) -> bool {
        let home = self
            .find(scope, addr)
            .and_then(|id| self.homes[id].as_ref());
        home.is_some_and(|home| {
            let place = home.window.place(window::number(addr));
            place.is_some_and(|place| self.places.slot(home.base + place) != Slot::EMPTY)
        })
    }

    /// What `sparse` says of an address of a VPC in this scope.
    pub(crate) fn sparse_slot(&self, scope: u32, vni: u32, addr: IpAddr) -> Option<Slot> {
        let home = self.homes[self.find(scope, addr)?].as_ref()?;
        let slot = home.sparse.get(&window::number(addr)).copied();
        slot.filter(|_| home.vni == vni)
    }

    /// Every cell that has content: subnets, and addresses outside of windows.
    pub(crate) fn cells(&self) -> impl Iterator<Item = Cell> {
        self.index.iter().flat_map(|(&(scope, prefix), &id)| {
            let home = self.homes[id].as_ref();
            let sparse = home.into_iter().flat_map(move |home| {
                home.sparse.keys().map(move |number| Cell::Sparse {
                    vni: home.vni,
                    addr: window::address(prefix, *number),
                })
            });
            sparse.chain([Cell::Subnet { scope, prefix }])
        })
    }

    /// How many subnets there are.
    pub(crate) fn subnets(&self) -> impl Iterator<Item = (u32, Prefix)> {
        self.index.keys().copied()
    }

    fn home_at(&self, scope: u32, prefix: Prefix) -> Option<&Home> {
        self.homes[*self.index.get(&(scope, prefix))?].as_ref()
    }

    /// The longest subnet of the scope that holds the address.
    fn find(&self, scope: u32, addr: IpAddr) -> Option<usize> {
        let host = Prefix::host(addr);
        let mut upper = host;
        loop {
            let (&(at, prefix), &id) = self.index.range(..=(scope, upper)).next_back()?;
            if at != scope || prefix.family() != host.family() {
                return None;
            }
            if prefix.contains_addr(addr) {
                // Whatever is longer and holds the address would sort between.
                return Some(id);
            }
            // A sibling: what holds the address holds the sibling's network as well, or ends before
            // it, and is shorter.
            let shorter = prefix.len().checked_sub(1)?;
            let common = common_length(prefix.addr(), addr).min(shorter);
            upper = Prefix::containing(addr, common).ok()?;
        }
    }

    /// Makes a subnet, or gives it to another VPC. Addresses in it that a subnet around it holds are
    /// there as well from now on.
    pub(crate) fn put_subnet(&mut self, scope: u32, prefix: Prefix, vni: u32) {
        self.touched.insert(Cell::Subnet { scope, prefix });
        if let Some(&id) = self.index.get(&(scope, prefix)) {
            self.give_to(id, vni);
            return;
        }
        let around = self.around(scope, prefix);
        let id = self.new_home(Home {
            scope,
            prefix,
            vni,
            window: Window::default(),
            base: 0,
            used: 0,
            sparse: BTreeMap::new(),
            look_at: 1,
        });
        // One that is small as a whole has its window from the start. Without room it has none.
        self.lay_out(id, &[]);
        if let Some(around) = around.filter(|id| self.is_of(*id, vni)) {
            let inside: Vec<(u128, Slot)> = self.held(around, window::bounds(prefix));
            self.copy(id, inside);
        }
    }

    /// Takes a subnet away. Addresses that are still in it are given to the subnet around it, or are
    /// gone.
    pub(crate) fn remove_subnet(&mut self, scope: u32, prefix: Prefix) {
        let Some(id) = self.index.remove(&(scope, prefix)) else {
            return;
        };
        self.touched.insert(Cell::Subnet { scope, prefix });
        let left = self.held(id, window::bounds(prefix));
        let vni = self.homes[id].as_ref().map_or(0, |home| home.vni);
        let around = self.around(scope, prefix);
        if let Some(around) = around.filter(|id| self.is_of(*id, vni)) {
            let homeless = |(number, _): &(u128, Slot)| {
                let addr = window::address(prefix, *number);
                self.find(scope, addr) == Some(around)
            };
            let moved = left.iter().filter(|it| homeless(it)).copied().collect();
            self.copy(around, moved);
        }
        if let Some(home) = self.homes[id].take() {
            for (number, slot) in &home.sparse {
                let addr = window::address(prefix, *number);
                self.touched.insert(Cell::Sparse {
                    vni: home.vni,
                    addr,
                });
                self.places.let_go(*slot);
            }
            self.sparse -= home.sparse.len();
            self.endpoints -= left.len();
            for (_, slot) in left {
                self.places.give_back_nodes(slot);
            }
            self.places.give_back(home.base, home.window.span);
            self.vacant.push(id);
            self.thin.remove(&id);
        }
    }

    /// Puts endpoints of one scope, given in the order of their addresses. Answers which were refused,
    /// by their place. When they are `all` of the scope, whoever is not among them is gone.
    pub(crate) fn put(
        &mut self,
        scope: u32,
        endpoints: &[Endpoint<'_>],
        all: bool,
    ) -> Vec<(usize, String)> {
        let mut refused = Vec::new();
        let mut rest = 0;
        let mut runs: BTreeMap<usize, Vec<Range<usize>>> = BTreeMap::new();
        while let Some(endpoint) = endpoints.get(rest) {
            let Some(id) = self.find(scope, endpoint.addr) else {
                let addr = endpoint.addr;
                refused.push((rest, format!("{addr} is in no subnet of scope {scope}")));
                rest += 1;
                continue;
            };
            let run = self.run(id, &endpoints[rest..]);
            self.make_room(id, &endpoints[rest..rest + run]);
            for (at, endpoint) in endpoints.iter().enumerate().skip(rest).take(run) {
                if let Err(reason) = self.put_one(id, endpoint) {
                    refused.push((at, reason));
                }
            }
            if all {
                runs.entry(id).or_default().push(rest..rest + run);
            }
            rest += run;
        }
        if all {
            let of_scope = self.index.range((scope, lowest())..);
            let homes: Vec<usize> = of_scope
                .take_while(|((at, _), _)| *at == scope)
                .map(|(_, id)| *id)
                .collect();
            for id in homes {
                let runs = runs.remove(&id).unwrap_or_default();
                let count: usize = runs.iter().map(Range::len).sum();
                let of_home = self.homes[id].as_ref();
                let held = of_home.map_or(0, |home| home.used as usize + home.sparse.len());
                // When all were put there is nobody else where there are as many.
                if !refused.is_empty() || held != count {
                    let wanted = runs.into_iter().flat_map(|run| &endpoints[run]);
                    self.keep_only(id, wanted);
                }
            }
        }
        refused
    }

    /// How many of the endpoints, from the first on, are in this home.
    fn run(&self, id: usize, endpoints: &[Endpoint<'_>]) -> usize {
        let Some(home) = &self.homes[id] else {
            return 0;
        };
        let prefix = home.prefix;
        let mut later = self.index.range((home.scope, prefix)..).skip(1);
        let nested = later
            .next()
            .is_some_and(|((at, other), _)| *at == home.scope && prefix.contains(other));
        let in_it = |endpoint: &&Endpoint<'_>| {
            prefix.contains_addr(endpoint.addr)
                && (!nested || self.find(home.scope, endpoint.addr) == Some(id))
        };
        endpoints.iter().take_while(in_it).count().max(1)
    }

    /// Looks for a better window where these and what is outside already are many.
    fn make_room(&mut self, id: usize, endpoints: &[Endpoint<'_>]) {
        let Some(home) = &self.homes[id] else {
            return;
        };
        let outside = |number: &u128| {
            home.window.place(*number).is_none() && !home.sparse.contains_key(number)
        };
        let new: Vec<u128> = endpoints
            .iter()
            .map(|endpoint| window::number(endpoint.addr))
            .filter(outside)
            .collect();
        if !new.is_empty() && home.sparse.len() + new.len() >= home.look_at {
            self.lay_out(id, &new);
        }
    }

    fn put_one(&mut self, id: usize, endpoint: &Endpoint<'_>) -> Result<(), String> {
        let Some(home) = &mut self.homes[id] else {
            return Ok(());
        };
        let Endpoint { addr, vni, hops } = *endpoint;
        if home.vni != vni {
            return Err(format!(
                "{addr} is in {} of VNI {}, not of {vni}",
                home.prefix, home.vni
            ));
        }
        if hops.is_empty() {
            return Err(format!("{addr} has no hops"));
        }
        let number = window::number(addr);
        if let Some(place) = home.window.place(number) {
            let at = home.base + place;
            let old = self.places.slot(at);
            let new = self.places.slot_for(hops, old)?;
            self.places.store(at, new);
            if old == Slot::EMPTY {
                home.used += 1;
                self.endpoints += 1;
            } else if old.nodes() != new.nodes() {
                self.places.give_back_nodes(old);
            }
            return Ok(());
        }
        let old = home.sparse.get(&number).copied().unwrap_or_default();
        if old == Slot::EMPTY && self.sparse >= MAX_SPARSE {
            return Err(format!(
                "the ebpf plane holds at most {MAX_SPARSE} addresses in sparsely used subnets"
            ));
        }
        let new = self.places.slot_for(hops, old)?;
        if old == new {
            return Ok(());
        }
        self.places.hold(new);
        self.places.let_go(old);
        home.sparse.insert(number, new);
        self.touched.insert(Cell::Sparse { vni, addr });
        if old == Slot::EMPTY {
            self.sparse += 1;
            self.endpoints += 1;
            let (scope, prefix) = (home.scope, home.prefix);
            self.touched.insert(Cell::Subnet { scope, prefix });
        } else if old.nodes() != new.nodes() {
            self.places.give_back_nodes(old);
        }
        Ok(())
    }

    /// Takes an endpoint away, from every subnet of the scope that holds it.
    pub(crate) fn remove(&mut self, scope: u32, addr: IpAddr) {
        let mut next = self.find(scope, addr);
        while let Some(id) = next {
            self.remove_from(id, addr);
            next = self.homes[id]
                .as_ref()
                .and_then(|home| self.around(scope, home.prefix));
        }
    }

    fn remove_from(&mut self, id: usize, addr: IpAddr) {
        let Some(home) = &mut self.homes[id] else {
            return;
        };
        let number = window::number(addr);
        if let Some(place) = home.window.place(number) {
            let at = home.base + place;
            let old = self.places.slot(at);
            if old == Slot::EMPTY {
                return;
            }
            self.places.store(at, Slot::EMPTY);
            self.places.give_back_nodes(old);
            home.used -= 1;
            self.endpoints -= 1;
            let full = u64::from(home.used) * u64::from(4 * SLOTS_PER_ADDRESS);
            if home.window.span > SMALL && full < u64::from(home.window.span) {
                self.thin.insert(id);
            }
        } else if let Some(old) = home.sparse.remove(&number) {
            self.touched.insert(Cell::Sparse {
                vni: home.vni,
                addr,
            });
            let (scope, prefix) = (home.scope, home.prefix);
            self.touched.insert(Cell::Subnet { scope, prefix });
            self.places.let_go(old);
            self.places.give_back_nodes(old);
            self.sparse -= 1;
            self.endpoints -= 1;
        }
    }

    /// Takes away who is in the home and not among these, which are in order.
    fn keep_only<'a>(&mut self, id: usize, wanted: impl Iterator<Item = &'a Endpoint<'a>>) {
        let Some(home) = &self.homes[id] else {
            return;
        };
        let prefix = home.prefix;
        let mut wanted = wanted.map(|e| window::number(e.addr)).peekable();
        for (number, _) in self.held(id, window::bounds(prefix)) {
            while wanted.next_if(|it| *it < number).is_some() {}
            if wanted.peek() != Some(&number) {
                self.remove_from(id, window::address(prefix, number));
            }
        }
    }

    fn give_to(&mut self, id: usize, vni: u32) {
        let Some(home) = &mut self.homes[id] else {
            return;
        };
        let before = std::mem::replace(&mut home.vni, vni);
        for number in home.sparse.keys() {
            let addr = window::address(home.prefix, *number);
            for vni in [before, vni] {
                self.touched.insert(Cell::Sparse { vni, addr });
            }
        }
    }

    /// The longest subnet of the scope that holds all of this one and is not it.
    fn around(&self, scope: u32, prefix: Prefix) -> Option<usize> {
        (0..prefix.len()).rev().find_map(|len| {
            let wider = Prefix::containing(prefix.addr(), len).ok()?;
            self.index.get(&(scope, wider)).copied()
        })
    }

    fn is_of(&self, id: usize, vni: u32) -> bool {
        self.homes[id].as_ref().is_some_and(|home| home.vni == vni)
    }

    fn new_home(&mut self, home: Home) -> usize {
        let at = (home.scope, home.prefix);
        let id = match self.vacant.pop() {
            Some(id) => {
                self.homes[id] = Some(home);
                id
            }
            None => {
                self.homes.push(Some(home));
                self.homes.len() - 1
            }
        };
        self.index.insert(at, id);
        id
    }
}

/// Sorts before every other prefix.
fn lowest() -> Prefix {
    let zero = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Prefix::containing(zero, 0).unwrap_or(Prefix::host(zero))
}

/// How many bits two addresses of a family have in common from the left.
fn common_length(a: IpAddr, b: IpAddr) -> u8 {
    let zeros = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    };
    zeros as u8
}
