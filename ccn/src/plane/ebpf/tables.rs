//! The maps of the kernel, open: dumps, writes and reads of cells, and the counters.
//!
//! It carries out what others decide, in the order they give. A map that is full is filled anew with twice the
//! room, and the programs move over to it before anything else is written.

use std::collections::BTreeMap;
use std::io;

use super::buckets::Buckets;
use super::cells::{Cell, Changes, Content, Counted, Table};
use super::counters::Counters;
use super::layout::{Globals, Plain, Sample, Tally};
use super::pins::{self, Pins};
use super::shared::{self, Area, KernelMemory};
use super::sys::{Map, Shape};
use super::translate::Found;
use crate::plane::model::DropReason;
use crate::plane::traffic::TwoWays;
use crate::plane::{Count, PlaneError};

/// Counters of `totals`, by place.
const DECAPSULATED: u32 = 0;
const ENCAPSULATED: u32 = 1;
const FLOWS: u32 = 2;

/// Maps but for those that are memory.
#[derive(Debug)]
pub(crate) struct Tables {
    hashes: BTreeMap<Table, Hash>,
    globals: Area,
    link_counters: Counters,
    vpc_counters: Counters,
    drops: Map,
    last_drops: Map,
    totals: Map,
    flows: Map,
}

/// Has the programs read a larger map from now on, in the place of the one with this name.
pub(crate) type MoveTo<'a> = dyn FnMut(&'static str, &Map) -> Result<(), PlaneError> + 'a;

/// A hash table of the programs.
#[derive(Debug)]
enum Hash {
    /// Of the kernel's.
    Map(Map),
    /// Of our own.
    Buckets(Buckets),
}

impl Hash {
    fn map(&self) -> &Map {
        match self {
            Hash::Map(map) => map,
            Hash::Buckets(buckets) => buckets.map(),
        }
    }

    fn each(&self, mut take: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        match self {
            Hash::Map(map) => map.each(take),
            Hash::Buckets(buckets) => {
                buckets.each(&mut take);
                Ok(())
            }
        }
    }

    fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match self {
            Hash::Map(map) => map.lookup(key),
            Hash::Buckets(buckets) => Ok(buckets.lookup(key)),
        }
    }

    fn delete(&mut self, key: &[u8]) -> io::Result<()> {
        match self {
            Hash::Map(map) => map.delete(key),
            Hash::Buckets(buckets) => {
                buckets.delete(key);
                Ok(())
            }
        }
    }

    /// Sets many. Answers how many were set before the first that was not, and why that was not.
    fn update_many(&mut self, run: &[(Cell, Content)]) -> io::Result<(usize, Option<io::Error>)> {
        match self {
            Hash::Map(map) => {
                let keys: Vec<u8> = run.iter().flat_map(|(cell, _)| cell.key()).collect();
                let values: Vec<u8> = run
                    .iter()
                    .flat_map(|(_, content)| content.octets())
                    .collect();
                map.update_many(&keys, &values)
            }
            Hash::Buckets(buckets) => {
                for (done, (cell, content)) in run.iter().enumerate() {
                    if let Err(error) = buckets.update(&cell.key(), &content.octets()) {
                        return Ok((done, Some(error)));
                    }
                }
                Ok((run.len(), None))
            }
        }
    }

    /// A larger one that holds the same, and so many more if it can; `None`: there is none.
    fn grown(&self, table: Table, more: usize) -> Result<Option<Hash>, PlaneError> {
        let name = table.name();
        Ok(match self {
            Hash::Map(map) => {
                let entries = map.shape().entries;
                if entries >= table.most() {
                    return Ok(None);
                }
                Some(Hash::Map(filled_anew(
                    name,
                    map,
                    entries.saturating_mul(2),
                )?))
            }
            Hash::Buckets(buckets) => {
                if !buckets.may_grow() {
                    return Ok(None);
                }
                let action = || format!("have room for {more} more in the map {name}");
                let larger = buckets.grown(name, more);
                let larger = larger.map_err(|error| failed(&action(), &error))?;
                Some(Hash::Buckets(larger))
            }
        })
    }
}

/// A write that the kernel refused, with its words.
pub(crate) type Refused = Vec<(Cell, String)>;

fn failed(action: &str, error: &io::Error) -> PlaneError {
    pins::failed(action, error)
}

impl Tables {
    /// Opens what is pinned.
    pub(crate) fn open(pins: &Pins) -> Result<(Tables, KernelMemory), PlaneError> {
        let open = |name: &str| {
            let path = pins.map(name);
            Map::open(&path).map_err(|error| failed(&format!("open {}", path.display()), &error))
        };
        let map_it = |error| failed("map an array", &error);
        let mut hashes = BTreeMap::new();
        for table in Table::ALL {
            let map = open(table.name())?;
            let shape = map.shape();
            if (shape.key as usize, shape.value as usize) != table.sizes() {
                return Err(PlaneError::Kernel {
                    action: format!("adopt the map {}", table.name()),
                    detail: format!("it is of another shape: {shape:?}"),
                });
            }
            let hash = match table {
                Table::Classics4 => Hash::Buckets(Buckets::of(map).map_err(map_it)?),
                _ => Hash::Map(map),
            };
            hashes.insert(table, hash);
        }
        let memory = KernelMemory::of(&open("slots")?, &open("hosts")?).map_err(map_it)?;
        let globals = open("globals")?;
        if globals.shape().value as usize != size_of::<Globals>() {
            return Err(PlaneError::Kernel {
                action: "adopt the map globals".to_owned(),
                detail: format!("it is of another shape: {:?}", globals.shape()),
            });
        }
        let counters = |name| Counters::of(name, open(name)?).map_err(map_it);
        let tables = Tables {
            hashes,
            globals: Area::of(&globals).map_err(map_it)?,
            link_counters: counters("link_counters")?,
            vpc_counters: counters("vpc_counters")?,
            drops: open("drops")?,
            last_drops: open("last_drops")?,
            totals: open("totals")?,
            flows: open("flows")?,
        };
        Ok((tables, memory))
    }

    /// Puts right what a run that was killed may have left half done, and makes new maps usable. For the one that
    /// writes.
    pub(crate) fn adopt(&mut self) {
        for hash in self.hashes.values_mut() {
            if let Hash::Buckets(buckets) = hash {
                buckets.adopt();
            }
        }
    }

    /// What concerns all packets, as it is.
    pub(crate) fn globals(&self) -> Globals {
        shared::globals(&self.globals)
    }

    /// Sets what concerns all packets. Answers how many things that changed.
    pub(crate) fn set_globals(&self, globals: &Globals) -> usize {
        if self.globals() == *globals {
            return 0;
        }
        shared::set_globals(&self.globals, globals);
        1
    }

    /// What all hash maps hold. What nobody of us can have written is left out, and taken away.
    pub(crate) fn found(&self) -> Result<Found, PlaneError> {
        let mut found = Found::new();
        for (table, hash) in &self.hashes {
            let mut strange = Vec::new();
            hash.each(
                |key, value| match (Cell::read(*table, key), Content::read(*table, value)) {
                    (Some(cell), Some(content)) => {
                        found.insert(cell, content);
                    }
                    _ => strange.push(key.to_vec()),
                },
            )
            .map_err(|error| failed(&format!("read the map {}", table.name()), &error))?;
            for key in strange {
                // In buckets there is none.
                hash.map()
                    .delete(&key)
                    .map_err(|error| failed("take a strange key away", &error))?;
            }
        }
        Ok(found)
    }

    /// Carries out all changes, in their order. Answers how many there were, and which were refused.
    pub(crate) fn write(
        &mut self,
        changes: &Changes,
        move_to: &mut MoveTo<'_>,
    ) -> Result<(usize, Refused), PlaneError> {
        self.make_counters(changes, move_to)?;
        let mut operations = changes.puts.len() + changes.deletes.len();
        let mut refused = Refused::new();
        for counted in &changes.resets {
            match counted {
                Counted::Link(at) => self.link_counters.reset(*at),
                Counted::Vpc(at) => self.vpc_counters.reset(*at),
            }
        }
        for run in changes
            .puts
            .chunk_by(|(a, _), (b, _)| a.table() == b.table())
        {
            self.put(run, &mut refused, move_to)?;
        }
        operations += self.set_globals(&changes.globals);
        for cell in &changes.deletes {
            if let Err(error) = self.hash_mut(cell.table())?.delete(&cell.key()) {
                refused.push((*cell, format!("cannot take {cell} away: {error}")));
            }
        }
        Ok((operations, refused))
    }

    /// Makes counters for every number that the changes lead to. What programs count while they are being
    /// copied is not counted.
    fn make_counters(
        &mut self,
        changes: &Changes,
        move_to: &mut MoveTo<'_>,
    ) -> Result<(), PlaneError> {
        let (mut links, mut vpcs) = (0, 0);
        for (_, content) in &changes.puts {
            match content {
                Content::Permit(permit) => links = links.max(u32::from(permit.link) + 1),
                Content::Vpc(vpc) => vpcs = vpcs.max(vpc.counter + 1),
                Content::Slot(_) | Content::Subnet(_) => {}
            }
        }
        for (counters, needed) in [
            (&mut self.link_counters, links),
            (&mut self.vpc_counters, vpcs),
        ] {
            if needed > counters.numbers() {
                let action = format!("count {needed} things in {}", counters.name());
                let larger = counters.grown(needed.next_power_of_two());
                let larger = larger.map_err(|error| failed(&action, &error))?;
                move_to(larger.name(), larger.map())?;
                *counters = larger;
            }
        }
        Ok(())
    }

    /// Has room for so many flows; when it is less than before, some are forgotten.
    pub(crate) fn resize_flows(
        &mut self,
        entries: u32,
        move_to: &mut MoveTo<'_>,
    ) -> Result<(), PlaneError> {
        if self.flows.shape().entries != entries {
            let other = filled_anew("flows", &self.flows, entries)?;
            move_to("flows", &other)?;
            self.flows = other;
        }
        Ok(())
    }

    fn put(
        &mut self,
        run: &[(Cell, Content)],
        refused: &mut Refused,
        move_to: &mut MoveTo<'_>,
    ) -> Result<(), PlaneError> {
        let Some((first, _)) = run.first() else {
            return Ok(());
        };
        let table = first.table();
        let mut rest = run;
        while !rest.is_empty() {
            let hash = self.hash_mut(table)?;
            let (done, error) = hash
                .update_many(rest)
                .map_err(|error| failed(&format!("write the map {}", table.name()), &error))?;
            let Some(error) = error else {
                return Ok(());
            };
            let Some((cell, _)) = rest.get(done) else {
                return Ok(());
            };
            if error.raw_os_error() == Some(nix::libc::E2BIG)
                && let Some(larger) = hash.grown(table, rest.len() - done)?
            {
                move_to(table.name(), larger.map())?;
                self.hashes.insert(table, larger);
                rest = &rest[done..];
                continue;
            }
            refused.push((*cell, format!("the kernel does not take {cell}: {error}")));
            rest = &rest[done + 1..];
        }
        Ok(())
    }

    /// Reads back what was written; what is different, with what is instead.
    pub(crate) fn verify(&self, changes: &Changes) -> Result<Refused, PlaneError> {
        let mut wrong = Refused::new();
        let puts = changes
            .puts
            .iter()
            .map(|(cell, content)| (cell, Some(*content)));
        let deletes = changes.deletes.iter().map(|cell| (cell, None));
        for (cell, shall) in puts.chain(deletes) {
            let is = self
                .hash(cell.table())?
                .lookup(&cell.key())
                .map_err(|error| failed("read back", &error))?;
            let is = is.and_then(|octets| Content::read(cell.table(), &octets));
            if is != shall {
                wrong.push((
                    *cell,
                    format!("the kernel shows {is:?} at {cell} instead of {shall:?}"),
                ));
            }
        }
        Ok(wrong)
    }

    fn hash(&self, table: Table) -> Result<&Hash, PlaneError> {
        let hash = self.hashes.get(&table);
        hash.ok_or_else(|| is_not_open(table))
    }

    fn hash_mut(&mut self, table: Table) -> Result<&mut Hash, PlaneError> {
        let hash = self.hashes.get_mut(&table);
        hash.ok_or_else(|| is_not_open(table))
    }

    /// Adds the values of all processors up, for each element of a per-CPU array.
    fn per_cpu<T: Plain>(map: &Map, mut take: impl FnMut(u32, T)) -> Result<(), PlaneError> {
        let stride = size_of::<T>().next_multiple_of(8);
        map.each(|key, values| {
            let Ok(key) = key.try_into() else {
                return;
            };
            for value in values.chunks_exact(stride) {
                if let Some(value) = T::read(&value[..size_of::<T>()]) {
                    take(u32::from_ne_bytes(key), value);
                }
            }
        })
        .map_err(|error| failed("read counters", &error))
    }

    fn tallies(map: &Map) -> Result<BTreeMap<u32, Count>, PlaneError> {
        let mut counts: BTreeMap<u32, Count> = BTreeMap::new();
        Self::per_cpu(map, |at, tally: Tally| {
            let count = counts.entry(at).or_default();
            count.packets += tally.packets;
            count.bytes += tally.octets;
        })?;
        Ok(counts)
    }

    /// Decapsulated, encapsulated, and flows begun.
    pub(crate) fn totals(&self) -> Result<[Count; 3], PlaneError> {
        let counts = Self::tallies(&self.totals)?;
        Ok([DECAPSULATED, ENCAPSULATED, FLOWS]
            .map(|at| counts.get(&at).copied().unwrap_or_default()))
    }

    /// How many flows are known, and how many there may be.
    pub(crate) fn flows(&self) -> Result<(u64, u64), PlaneError> {
        let mut known = 0;
        self.flows
            .each(|_, _| known += 1)
            .map_err(|error| failed("count flows", &error))?;
        Ok((known, self.flows.shape().entries.into()))
    }

    /// Drops by reason.
    pub(crate) fn drops(&self) -> Result<BTreeMap<DropReason, Count>, PlaneError> {
        let counts = Self::tallies(&self.drops)?;
        let reasons = DropReason::ALL.into_iter();
        Ok(reasons
            .map(|reason| {
                (
                    reason,
                    counts.get(&(reason as u32)).copied().unwrap_or_default(),
                )
            })
            .collect())
    }

    /// The last packet that was dropped for each reason.
    pub(crate) fn last_drops(&self) -> Result<BTreeMap<DropReason, Sample>, PlaneError> {
        let mut last: BTreeMap<DropReason, Sample> = BTreeMap::new();
        Self::per_cpu(&self.last_drops, |at, sample: Sample| {
            let Some(reason) = DropReason::ALL.get(at as usize) else {
                return;
            };
            if sample.time > last.get(reason).map_or(0, |it| it.time) {
                last.insert(*reason, sample);
            }
        })?;
        Ok(last)
    }

    /// The counters of this link.
    pub(crate) fn of_link(&self, number: u32) -> TwoWays {
        self.link_counters.sum(number)
    }

    /// The counters of a VPC.
    pub(crate) fn of_vpc(&self, number: u32) -> TwoWays {
        self.vpc_counters.sum(number)
    }
}

fn is_not_open(table: Table) -> PlaneError {
    PlaneError::Kernel {
        action: "use a map".to_owned(),
        detail: format!("{} is not open", table.name()),
    }
}

/// A map with other room that holds what a map holds.
fn filled_anew(name: &'static str, map: &Map, entries: u32) -> Result<Map, PlaneError> {
    let action = || format!("have room for {entries} in the map {name}");
    let shape = Shape {
        entries,
        ..map.shape()
    };
    let other = Map::create(name, shape).map_err(|error| failed(&action(), &error))?;
    let mut outcome = Ok(());
    map.each(|key, value| {
        if outcome.is_ok() {
            outcome = other.update(key, value);
        }
    })
    .and(outcome)
    .map_err(|error| failed(&action(), &error))?;
    Ok(other)
}

#[cfg(test)]
mod tests {
    use super::super::layout::Permit;
    use super::*;

    #[test]
    fn a_value_of_zeros_moves_over_too() {
        const NO_PREALLOC: u32 = 1;
        let shape = Shape {
            kind: 1,
            key: 8,
            value: size_of::<Permit>() as u32,
            entries: 2,
            flags: NO_PREALLOC,
        };
        let map = Map::create("test", shape).expect("these tests need CAP_BPF");
        // What stands in a map may be zero in all its octets.
        let (key, zeros) = ([7; 8], Permit::default());
        map.update(&key, zeros.octets()).expect("put");
        let larger = filled_anew("test", &map, 4).expect("filled");
        let found = larger.lookup(&key).expect("asked");
        assert_eq!(found, Some(zeros.octets().to_vec()));
        assert_eq!(larger.shape().entries, 4);
    }
}
