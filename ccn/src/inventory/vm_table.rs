//! The VMs of one VPC, packed: what a gateway keeps of each of a million must be little.
//!
//! A VM is a *row*. What its record says lies in one block of octets behind that of the others, and two
//! tables of row numbers find it: by id, and by an address that it was given. Nothing else is kept; fields
//! that this version does not know stay in the store. It does not judge who is right about an address.

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::plane::entry::Hop;
use crate::record::{Extra, Mac, Vm, VmId, Vtep, Weight};
use crate::store::Generation;

/// The number of a row. It is given to another VM when its own is gone.
type RowId = u32;

/// Where a row's octets are, in five octets of its own, and whether its VM has its addresses.
#[derive(Debug, Clone, Copy)]
struct Row {
    at: [u8; 5],
    accepted: bool,
}

impl Row {
    /// No VM.
    const VACANT: Row = Row {
        at: [0xff; 5],
        accepted: false,
    };

    fn new(at: usize) -> Row {
        let [a, b, c, d, e, ..] = (at as u64).to_le_bytes();
        Row {
            at: [a, b, c, d, e],
            accepted: false,
        }
    }

    fn at(self) -> Option<usize> {
        let [a, b, c, d, e] = self.at;
        (self.at != Row::VACANT.at).then(|| u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]) as usize)
    }
}

/// An address that a VM was given: which of its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Given {
    row: [u8; 4],
    place: u8,
}

impl Given {
    fn new(row: RowId, place: usize) -> Given {
        Given {
            row: row.to_le_bytes(),
            // A record has 64 addresses at most.
            place: place as u8,
        }
    }

    fn row(self) -> RowId {
        u32::from_le_bytes(self.row)
    }
}

/// A VM as it lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedVm<'a> {
    /// When its key was created.
    pub(super) created: Generation,
    /// Its id.
    pub(super) id: &'a str,
    mac: [u8; 6],
    vtep: IpAddr,
    addrs: Packed<'a>,
    /// Octets that all of it takes.
    len: usize,
}

/// Addresses, one after the other: 4 or 6, then the octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed<'a>(&'a [u8]);

impl Iterator for Packed<'_> {
    type Item = IpAddr;

    fn next(&mut self) -> Option<IpAddr> {
        take_addr(&mut self.0)
    }
}

fn take<'a, const N: usize>(from: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(first)
}

fn take_addr(from: &mut &[u8]) -> Option<IpAddr> {
    match take(from)? {
        [4] => take(from).map(|octets: &[u8; 4]| Ipv4Addr::from(*octets).into()),
        _ => take(from).map(|octets: &[u8; 16]| Ipv6Addr::from(*octets).into()),
    }
}

fn put_addr(into: &mut Vec<u8>, addr: IpAddr) {
    match addr {
        IpAddr::V4(addr) => {
            into.push(4);
            into.extend(addr.octets());
        }
        IpAddr::V6(addr) => {
            into.push(6);
            into.extend(addr.octets());
        }
    }
}

impl<'a> PackedVm<'a> {
    /// Adds a VM to the block.
    fn write(into: &mut Vec<u8>, id: &VmId, created: Generation, vm: &Vm) {
        let id = id.as_str().as_bytes();
        let octets: usize = vm.addrs.iter().map(|addr| 1 + width(*addr)).sum();
        grow(into, 35 + id.len() + octets);
        // Seven bits an octet: generations are small numbers for a long time.
        let mut left = created;
        while left > 0x7f {
            into.push(left as u8 | 0x80);
            left >>= 7;
        }
        into.push(left as u8);
        // Ids have 63 characters at most, records 64 addresses.
        into.push(id.len() as u8);
        into.extend(id);
        into.extend(vm.mac.bytes());
        put_addr(into, vm.vtep.addr());
        into.push(vm.addrs.len() as u8);
        vm.addrs.iter().for_each(|addr| put_addr(into, *addr));
    }

    /// The VM at the begin of these octets.
    fn read(octets: &'a [u8]) -> Option<PackedVm<'a>> {
        let mut left = octets;
        let mut created = 0;
        for shift in (0..).step_by(7) {
            let [octet] = *take(&mut left)?;
            created |= u64::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                break;
            }
        }
        let [len] = *take(&mut left)?;
        let (id, mut left) = left.split_at_checked(len.into())?;
        let mac = *take(&mut left)?;
        let vtep = take_addr(&mut left)?;
        let [count] = *take(&mut left)?;
        let addrs = left;
        for _ in 0..count {
            take_addr(&mut left)?;
        }
        Some(PackedVm {
            created,
            id: std::str::from_utf8(id).ok()?,
            mac,
            vtep,
            addrs: Packed(&addrs[..addrs.len() - left.len()]),
            len: octets.len() - left.len(),
        })
    }

    /// Its addresses, in the order of its record.
    pub(super) fn addrs(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        self.addrs
    }

    /// Where packets to it go.
    pub(super) fn hop(&self) -> Option<Hop> {
        Some(Hop {
            vtep: self.vtep,
            mac: Mac::new(self.mac).ok()?,
            weight: Weight::ONE.number(),
        })
    }

    /// Its id, as others hold it.
    pub(super) fn vm_id(&self) -> Option<VmId> {
        self.id.parse().ok()
    }

    /// Its record, without the fields that are not known.
    pub(super) fn record(&self) -> Option<Vm> {
        Some(Vm {
            addrs: self.addrs().collect(),
            mac: Mac::new(self.mac).ok()?,
            vtep: Vtep::new(self.vtep).ok()?,
            extra: Extra::new(),
        })
    }

    /// Whether its record is this one, as far as fields are known.
    pub(super) fn is(&self, vm: &Vm) -> bool {
        self.mac == vm.mac.bytes()
            && self.vtep == vm.vtep.addr()
            && self.addrs().eq(vm.addrs.iter().copied())
    }
}

fn width(addr: IpAddr) -> usize {
    match addr {
        IpAddr::V4(_) => 4,
        IpAddr::V6(_) => 16,
    }
}

/// Makes room for so many more, by a quarter of what is there: twice as much would lie idle.
fn grow<T>(list: &mut Vec<T>, more: usize) {
    if list.capacity() - list.len() < more {
        list.reserve_exact(more.max(list.len() / 4));
    }
}

/// See the room.
#[derive(Debug, Clone, Default)]
pub(super) struct VmTable {
    octets: Vec<u8>,
    /// How many of the octets are of VMs that are gone.
    idle: usize,
    rows: Vec<Row>,
    vacant: Vec<RowId>,
    by_id: HashTable<RowId>,
    given: HashTable<Given>,
    hasher: DefaultHashBuilder,
}

/// Octets of VMs that are gone which are not worth being collected.
const FEW: usize = 4096;

impl VmTable {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The VM with this id, and whether it has its addresses.
    pub(super) fn find(&self, id: &str) -> Option<(PackedVm<'_>, bool)> {
        self.at(self.row(id)?)
    }

    /// Every VM, and whether it has its addresses; in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PackedVm<'_>, bool)> {
        (0..self.rows.len() as RowId).filter_map(|row| self.at(row))
    }

    /// Adds a VM, which has no addresses yet, in place of the one with its id.
    pub(super) fn insert(&mut self, id: &VmId, created: Generation, vm: &Vm) {
        self.remove(id.as_str());
        self.add(id, created, vm);
    }

    /// As [`VmTable::insert`], where none has its id.
    pub(super) fn add(&mut self, id: &VmId, created: Generation, vm: &Vm) {
        let place = Row::new(self.octets.len());
        PackedVm::write(&mut self.octets, id, created, vm);
        let row = match self.vacant.pop() {
            Some(row) => {
                self.rows[row as usize] = place;
                row
            }
            None => {
                grow(&mut self.rows, 1);
                self.rows.push(place);
                self.rows.len() as RowId - 1
            }
        };
        let (rows, octets, hasher) = (&self.rows, &self.octets, &self.hasher);
        let again = |row: &RowId| hasher.hash_one(view(rows, octets, *row).map(|(vm, _)| vm.id));
        let hash = hasher.hash_one(Some(id.as_str()));
        self.by_id.insert_unique(hash, row, again);
    }

    /// Gives back the memory that is kept for more VMs.
    pub(super) fn fit(&mut self) {
        self.octets.shrink_to_fit();
        self.rows.shrink_to_fit();
    }

    /// Takes a VM out, with the addresses that it was given.
    pub(super) fn remove(&mut self, id: &str) {
        let Some(row) = self.row(id) else { return };
        self.take_back(id);
        let hash = self.hasher.hash_one(Some(id));
        if let Ok(found) = self.by_id.find_entry(hash, |other| *other == row) {
            found.remove();
        }
        self.idle += self.at(row).map_or(0, |(vm, _)| vm.len);
        self.rows[row as usize] = Row::VACANT;
        self.vacant.push(row);
        if self.idle > FEW && self.idle > self.octets.len() / 2 {
            self.collect();
        }
    }

    /// Gives a VM all of its addresses. Nobody else has them.
    pub(super) fn give(&mut self, id: &str) {
        let Some(row) = self.row(id) else { return };
        let (rows, octets, hasher) = (&self.rows, &self.octets, &self.hasher);
        let addrs = view(rows, octets, row).map(|(vm, _)| vm.addrs());
        for (place, addr) in addrs.into_iter().flatten().enumerate() {
            let again = |given: &Given| hasher.hash_one(address(rows, octets, *given));
            let hash = hasher.hash_one(Some(addr));
            self.given
                .insert_unique(hash, Given::new(row, place), again);
        }
        self.rows[row as usize].accepted = true;
    }

    /// Gives every VM all of its addresses, where none has any yet, all of them are fine and no two ask for the same one.
    /// Otherwise nothing is given. Who was first does not matter where nobody is in the way of another.
    pub(super) fn give_all(&mut self, is_fine: impl Fn(IpAddr) -> bool) -> bool {
        if self.rows.iter().any(|row| row.accepted) {
            return false;
        }
        let (rows, octets, hasher) = (&self.rows, &self.octets, &self.hasher);
        let mut given = HashTable::with_capacity(rows.len());
        for row in 0..rows.len() as RowId {
            let addrs = view(rows, octets, row).map(|(vm, _)| vm.addrs());
            for (place, addr) in addrs.into_iter().flatten().enumerate() {
                let is_taken = |other: &Given| address(rows, octets, *other) == Some(addr);
                let again = |given: &Given| hasher.hash_one(address(rows, octets, *given));
                let hash = hasher.hash_one(Some(addr));
                match given.entry(hash, is_taken, again) {
                    Entry::Vacant(entry) if is_fine(addr) => entry.insert(Given::new(row, place)),
                    _ => return false,
                };
            }
        }
        self.given = given;
        for row in &mut self.rows {
            row.accepted = row.at().is_some();
        }
        true
    }

    /// Takes the addresses of a VM away.
    pub(super) fn take_back(&mut self, id: &str) {
        let Some(row) = self.row(id) else { return };
        if !self.rows[row as usize].accepted {
            return;
        }
        let addrs = view(&self.rows, &self.octets, row).map(|(vm, _)| vm.addrs());
        for (place, addr) in addrs.into_iter().flatten().enumerate() {
            let (hash, given) = (self.hasher.hash_one(Some(addr)), Given::new(row, place));
            if let Ok(found) = self.given.find_entry(hash, |other| *other == given) {
                found.remove();
            }
        }
        self.rows[row as usize].accepted = false;
    }

    /// The VM that has an address.
    pub(super) fn owner(&self, addr: IpAddr) -> Option<PackedVm<'_>> {
        let (rows, octets) = (&self.rows, &self.octets);
        let is_it = |given: &Given| address(rows, octets, *given) == Some(addr);
        let given = self.given.find(self.hasher.hash_one(Some(addr)), is_it)?;
        Some(self.at(given.row())?.0)
    }

    fn row(&self, id: &str) -> Option<RowId> {
        let (rows, octets) = (&self.rows, &self.octets);
        let is_it = |row: &RowId| view(rows, octets, *row).is_some_and(|(vm, _)| vm.id == id);
        let hash = self.hasher.hash_one(Some(id));
        self.by_id.find(hash, is_it).copied()
    }

    fn at(&self, row: RowId) -> Option<(PackedVm<'_>, bool)> {
        view(&self.rows, &self.octets, row)
    }

    /// Lays all VMs out anew, without what is gone between them.
    fn collect(&mut self) {
        let mut octets = Vec::with_capacity(self.octets.len() - self.idle);
        for row in &mut self.rows {
            let Some(at) = row.at() else { continue };
            let len = PackedVm::read(&self.octets[at..]).map_or(0, |vm| vm.len);
            row.at = Row::new(octets.len()).at;
            octets.extend_from_slice(&self.octets[at..at + len]);
        }
        (self.octets, self.idle) = (octets, 0);
    }
}

fn view<'a>(rows: &[Row], octets: &'a [u8], row: RowId) -> Option<(PackedVm<'a>, bool)> {
    let row = rows.get(row as usize)?;
    Some((PackedVm::read(octets.get(row.at()?..)?)?, row.accepted))
}

fn address(rows: &[Row], octets: &[u8], given: Given) -> Option<IpAddr> {
    let (vm, _) = view(rows, octets, given.row())?;
    vm.addrs().nth(given.place.into())
}

impl PartialEq for VmTable {
    /// Whether the same VMs have the same addresses, wherever they lie.
    fn eq(&self, other: &VmTable) -> bool {
        let same = |(vm, accepted): (PackedVm<'_>, bool)| {
            other.find(vm.id).is_some_and(|(its, also)| {
                (its.created, its.mac, its.vtep, its.addrs, also)
                    == (vm.created, vm.mac, vm.vtep, vm.addrs, accepted)
            })
        };
        self.len() == other.len() && self.given.len() == other.given.len() && self.iter().all(same)
    }
}

impl Eq for VmTable {}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn vm(addrs: Vec<IpAddr>, host: u8) -> Vm {
        Vm {
            addrs,
            mac: Mac::new([2, 0, 0, 0, 0, host]).expect("a MAC"),
            vtep: Vtep::new(Ipv4Addr::new(172, 16, 0, host).into()).expect("a VTEP"),
            extra: Extra::new(),
        }
    }

    fn addr(n: u8) -> IpAddr {
        match n % 3 {
            0 => Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(n)).into(),
            _ => Ipv4Addr::new(10, 0, 0, n).into(),
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u8, u64, Vec<u8>, u8),
        Remove(u8),
        Give(u8),
        /// But for those that ask for this address.
        GiveAll(Option<u8>),
        TakeBack(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let addrs = proptest::collection::btree_set(0u8..40, 1..4);
        let insert = (0u8..12, any::<u64>(), addrs, 1u8..5).prop_map(|(id, at, addrs, host)| {
            Step::Insert(id, at, addrs.into_iter().collect(), host)
        });
        prop_oneof![
            4 => insert,
            2 => (0u8..12).prop_map(Step::Remove),
            4 => (0u8..12).prop_map(Step::Give),
            1 => proptest::option::of(0u8..40).prop_map(Step::GiveAll),
            2 => (0u8..12).prop_map(Step::TakeBack),
        ]
    }

    proptest! {
        /// Beside a plain map, whatever is done.
        #[test]
        fn a_table_is_a_map(steps in proptest::collection::vec(step(), 1..400)) {
            let mut table = VmTable::default();
            let mut plain: BTreeMap<String, (u64, Vm, bool)> = BTreeMap::new();
            let name = |id: u8| format!("vm-{}", "x".repeat(usize::from(id) * 5 + 1));
            for step in steps {
                match step {
                    Step::Insert(id, created, addrs, host) => {
                        let record = vm(addrs.into_iter().map(addr).collect(), host);
                        let id = name(id);
                        table.insert(&id.parse().expect("an id"), created, &record);
                        plain.insert(id, (created, record, false));
                    }
                    Step::Remove(id) => {
                        table.remove(&name(id));
                        plain.remove(&name(id));
                    }
                    Step::GiveAll(but) => {
                        let but = but.map(addr);
                        let all: Vec<IpAddr> = plain.values().flat_map(|(_, vm, _)| vm.addrs.clone()).collect();
                        let unique: BTreeSet<_> = all.iter().collect();
                        let possible = plain.values().all(|(.., has)| !has)
                            && unique.len() == all.len()
                            && but.is_none_or(|but| !all.contains(&but));
                        prop_assert_eq!(table.give_all(|addr| Some(addr) != but), possible);
                        if possible {
                            plain.values_mut().for_each(|(.., has)| *has = true);
                        }
                    }
                    Step::Give(id) => {
                        let owned = |addr: &IpAddr| plain.values().any(|(_, vm, has)| *has && vm.addrs.contains(addr));
                        let free = plain.get(&name(id)).is_some_and(|(_, vm, _)| !vm.addrs.iter().any(owned));
                        if free {
                            table.give(&name(id));
                            plain.entry(name(id)).and_modify(|slot| slot.2 = true);
                        }
                    }
                    Step::TakeBack(id) => {
                        table.take_back(&name(id));
                        plain.entry(name(id)).and_modify(|slot| slot.2 = false);
                    }
                }
                let seen: BTreeMap<String, (u64, Vm, bool)> = table
                    .iter()
                    .map(|(vm, has)| (vm.id.to_owned(), (vm.created, vm.record().expect("a record"), has)))
                    .collect();
                prop_assert_eq!(&seen, &plain);
                for n in 0..40 {
                    let owner = plain.iter().find(|(_, (_, vm, has))| *has && vm.addrs.contains(&addr(n)));
                    let seen = table.owner(addr(n));
                    prop_assert_eq!(seen.map(|vm| vm.id), owner.map(|(id, _)| id.as_str()));
                    let hop = seen.and_then(|vm| vm.hop()).map(|hop| (hop.vtep, hop.mac));
                    prop_assert_eq!(hop, owner.map(|(_, (_, vm, _))| (vm.vtep.addr(), vm.mac)));
                }
                for (id, (_, vm, _)) in &plain {
                    prop_assert!(table.find(id).is_some_and(|(its, _)| its.is(vm)));
                }
            }
            let mut anew = VmTable::default();
            for (id, (created, vm, has)) in plain.iter().rev() {
                anew.insert(&id.parse().expect("an id"), *created, vm);
                if *has {
                    anew.give(id);
                }
            }
            prop_assert_eq!(&anew, &table);
            prop_assert!(table.idle <= FEW.max(table.octets.len() / 2));
        }
    }
}
