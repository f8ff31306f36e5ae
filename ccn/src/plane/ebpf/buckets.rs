//! `classics4`: a hash table of our own in an array that is mapped, a bucket a cache line (`struct bucket` of
//! `layout.h`). A kernel's hash map takes two or three lines of a megabyte to find one of ten thousand links,
//! this one line of a quarter of that.
//!
//! One agent writes; programs read at any time. A permit is stored before its key, a key is taken away before its
//! permit, and its way goes to another key only when every program that may have seen the first is done.

use std::collections::BTreeSet;
use std::io;

use nix::libc;

use super::layout::{Permit, Plain, Prefix4, REACH, WAYS};
use super::shared::{Area, wait_for_programs};
use super::sys::{Map, Shape};

/// Octets of a bucket.
pub(crate) const BUCKET: usize = 64;
/// Words of one.
const WORDS: usize = BUCKET / 8;
/// Most buckets: twice the room for all prefixes that the plane takes.
const MOST: u32 = 1 << 17;

/// See the module.
#[derive(Debug)]
pub(crate) struct Buckets {
    map: Map,
    area: Area,
    /// Number of buckets, a power of two, less 1.
    mask: u32,
    used: usize,
    /// Ways that were taken away from a key, and that a program may still read.
    resting: BTreeSet<(u32, usize)>,
    /// Waits until no program does.
    wait: fn(),
}

impl Buckets {
    /// This map, whatever is in it.
    pub(crate) fn of(map: Map) -> io::Result<Buckets> {
        let shape = map.shape();
        let buckets = shape.entries.saturating_sub(1);
        if shape.value as usize != BUCKET || !buckets.is_power_of_two() {
            let text = format!("it is of another shape: {shape:?}");
            return Err(io::Error::other(text));
        }
        let mut table = Buckets {
            area: Area::of(&map)?,
            map,
            mask: buckets - 1,
            used: 0,
            resting: BTreeSet::new(),
            wait: wait_for_programs,
        };
        table.used = table.keys().count();
        Ok(table)
    }

    /// The map.
    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// Puts right what a run that was killed may have left half done, and a map that is new.
    pub(crate) fn adopt(&mut self) {
        self.area.store(0, self.mask.into());
        let mut passed = vec![0; self.mask as usize + 1];
        let all: Vec<(u32, usize, u64)> = self.keys().collect();
        for (bucket, way, key) in all {
            let home = self.home(key);
            let away = bucket.wrapping_sub(home) & self.mask;
            if away >= REACH || octets(key).is_none() {
                self.take(bucket, way);
                continue;
            }
            for n in 0..away {
                passed[((home + n) & self.mask) as usize] += 1;
            }
        }
        for bucket in 0..=self.mask {
            self.set_half(bucket, WAYS, passed[bucket as usize]);
            for way in (0..WAYS).filter(|way| self.key(bucket, *way) == 0) {
                self.set_half(bucket, way, 0);
            }
        }
    }

    /// The permit of a key, as a program finds it.
    pub(crate) fn lookup(&self, key: &[u8]) -> Option<Vec<u8>> {
        let (bucket, way) = self.find(number(key)?)?;
        Some(self.half(bucket, way).to_ne_bytes().to_vec())
    }

    /// Sets the permit of a key.
    ///
    /// # Errors
    /// `E2BIG`: there must be more buckets first. Others: what was given is no key, or no permit.
    pub(crate) fn update(&mut self, key: &[u8], permit: &[u8]) -> io::Result<()> {
        let (Some(key), Ok(permit)) = (number(key), permit.try_into()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let permit = u32::from_ne_bytes(permit);
        if let Some((bucket, way)) = self.find(key) {
            self.set_half(bucket, way, permit);
            return Ok(());
        }
        let full = || io::Error::from_raw_os_error(libc::E2BIG);
        if self.used >= self.room() && self.may_grow() {
            return Err(full());
        }
        let home = self.home(key);
        let free = |n: u32| {
            let bucket = (home + n) & self.mask;
            let way = (0..WAYS).find(|way| self.key(bucket, *way) == 0)?;
            Some((n, bucket, way))
        };
        let (away, bucket, way) = (0..REACH.min(self.mask + 1))
            .find_map(free)
            .ok_or_else(full)?;
        if self.resting.contains(&(bucket, way)) {
            (self.wait)();
            self.resting.clear();
        }
        for n in 0..away {
            self.add_passed((home + n) & self.mask, 1);
        }
        self.set_half(bucket, way, permit);
        self.set_key(bucket, way, key);
        self.used += 1;
        Ok(())
    }

    /// Takes a key away; that it is not there is no error.
    pub(crate) fn delete(&mut self, key: &[u8]) {
        let Some(key) = number(key) else { return };
        let Some((bucket, way)) = self.find(key) else {
            return;
        };
        self.take(bucket, way);
        let home = self.home(key);
        for n in 0..bucket.wrapping_sub(home) & self.mask {
            self.add_passed((home + n) & self.mask, u32::MAX);
        }
    }

    fn take(&mut self, bucket: u32, way: usize) {
        self.set_key(bucket, way, 0);
        self.set_half(bucket, way, 0);
        self.resting.insert((bucket, way));
        self.used -= 1;
    }

    /// Every key and permit.
    pub(crate) fn each(&self, mut take: impl FnMut(&[u8], &[u8])) {
        for (bucket, way, key) in self.keys() {
            if let Some(key) = octets(key) {
                take(key.octets(), &self.half(bucket, way).to_ne_bytes());
            }
        }
    }

    /// Whether there can be more buckets.
    pub(crate) fn may_grow(&self) -> bool {
        self.mask < MOST - 1
    }

    /// Keys that there is room for, so that few are not in their home bucket.
    fn room(&self) -> usize {
        (self.mask as usize + 1) * WAYS * 3 / 5
    }

    /// A larger table that holds the same and has room for so many more.
    pub(crate) fn grown(&self, name: &str, more: usize) -> io::Result<Buckets> {
        let mut buckets = (self.mask + 1) * 2;
        loop {
            let shape = Shape {
                entries: buckets + 1,
                ..self.map.shape()
            };
            let mut other = Buckets::of(Map::create(name, shape)?)?;
            other.adopt();
            if other.room() < self.used + more && other.may_grow() {
                buckets *= 2;
                continue;
            }
            let mut outcome = Ok(());
            self.each(|key, permit| {
                if outcome.is_ok() {
                    outcome = other.update(key, permit);
                }
            });
            match outcome {
                Ok(()) => return Ok(other),
                Err(error) if !other.may_grow() => return Err(error),
                Err(_) => buckets *= 2,
            }
        }
    }

    /// As `find_permit4` of lookup.h.
    fn home(&self, key: u64) -> u32 {
        mix(mix(key)) as u32 & self.mask
    }

    fn find(&self, key: u64) -> Option<(u32, usize)> {
        let home = self.home(key);
        for n in 0..REACH {
            let bucket = home.wrapping_add(n) & self.mask;
            if let Some(way) = (0..WAYS).find(|way| self.key(bucket, *way) == key) {
                return Some((bucket, way));
            }
            if self.half(bucket, WAYS) == 0 {
                break;
            }
        }
        None
    }

    /// Every bucket, way and key.
    fn keys(&self) -> impl Iterator<Item = (u32, usize, u64)> {
        let ways = (0..=self.mask).flat_map(|bucket| (0..WAYS).map(move |way| (bucket, way)));
        ways.map(|(bucket, way)| (bucket, way, self.key(bucket, way)))
            .filter(|(_, _, key)| *key != 0)
    }

    /// The first word of a bucket; behind the one that tells how many there are.
    fn start(bucket: u32) -> usize {
        (bucket as usize + 1) * WORDS
    }

    fn key(&self, bucket: u32, way: usize) -> u64 {
        self.area.load(Buckets::start(bucket) + way)
    }

    fn set_key(&self, bucket: u32, way: usize, key: u64) {
        self.area.store(Buckets::start(bucket) + way, key);
    }

    /// Behind the keys: the permit of a way, or what passed a bucket, which is the last.
    fn half(&self, bucket: u32, at: usize) -> u32 {
        let word = self.area.load(Buckets::start(bucket) + WAYS + at / 2);
        halves(word)[at % 2]
    }

    fn set_half(&self, bucket: u32, at: usize, value: u32) {
        let place = Buckets::start(bucket) + WAYS + at / 2;
        let mut both = halves(self.area.load(place));
        both[at % 2] = value;
        let ([a, b, c, d], [e, f, g, h]) = (both[0].to_ne_bytes(), both[1].to_ne_bytes());
        self.area
            .store(place, u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }

    fn add_passed(&self, bucket: u32, value: u32) {
        let passed = self.half(bucket, WAYS);
        self.set_half(bucket, WAYS, passed.wrapping_add(value));
    }
}

const _: () = assert!(WORDS * 8 == (WAYS + 1) * size_of::<Permit>() + WAYS * 8);

/// As in lookup.h.
fn mix(value: u64) -> u64 {
    let hash = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ hash >> 32
}

fn halves(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes)
}

/// A key as buckets hold it.
fn number(key: &[u8]) -> Option<u64> {
    let key = Prefix4::read(key)?;
    Some(u64::from(key.space_len) << 32 | u64::from(u32::from_be_bytes(key.net)))
}

/// A key as others know it; `None` for what is none.
fn octets(key: u64) -> Option<Prefix4> {
    let (space_len, net) = ((key >> 32) as u32, (key as u32).to_be_bytes());
    (space_len & 0xff <= 32).then_some(Prefix4 { space_len, net })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::sys;
    use super::*;

    fn table(buckets: u32) -> Buckets {
        let shape = Shape {
            kind: sys::ARRAY,
            key: 4,
            value: BUCKET as u32,
            entries: buckets + 1,
            flags: sys::MMAPABLE,
        };
        let map = Map::create("test", shape).expect("these tests need CAP_BPF");
        let mut table = Buckets::of(map).expect("mapped");
        table.adopt();
        table
    }

    fn key(n: u32) -> Vec<u8> {
        let (space_len, net) = ((n % 3 + 1) << 8 | 24, (n << 8).to_be_bytes());
        Prefix4 { space_len, net }.octets().to_vec()
    }

    type Held = BTreeMap<Vec<u8>, Vec<u8>>;

    fn held(table: &Buckets) -> Held {
        let mut held = Held::new();
        table.each(|key, permit| {
            held.insert(key.to_vec(), permit.to_vec());
        });
        held
    }

    /// What each bucket says has passed it.
    fn passed(table: &Buckets) -> Vec<u32> {
        (0..=table.mask).map(|it| table.half(it, WAYS)).collect()
    }

    #[test]
    fn what_a_killed_run_left_is_put_right() {
        let mut table = table(4);
        for n in 0..12 {
            table.update(&key(n), &n.to_ne_bytes()).expect("room");
        }
        let (all, right) = (held(&table), passed(&table));
        // Begun and not ended: a permit without a key, a bucket that says that too many passed it.
        let free = (0..4).flat_map(|bucket| (0..WAYS).map(move |way| (bucket, way)));
        let mut free = free.filter(|(bucket, way)| table.key(*bucket, *way) == 0);
        let (bucket, way) = free.next().expect("one is free");
        table.set_half(bucket, way, 7);
        table.add_passed(bucket, 3);
        // And a key that no prefix has.
        let (bucket, way) = free.next().expect("another is free");
        table.set_key(bucket, way, 1 << 40 | 33 << 32);
        let map = table.map;
        let mut table = Buckets::of(map).expect("mapped");
        table.adopt();
        assert_eq!((held(&table), passed(&table)), (all, right));
        assert_eq!(table.used, 12);
    }

    #[test]
    fn a_table_without_room_says_so_and_a_larger_one_holds_the_same() {
        let mut table = table(2);
        let mut held_by_now = Held::new();
        let mut more = 0..;
        let error = loop {
            let n: u32 = more.next().expect("endless");
            match table.update(&key(n), &n.to_ne_bytes()) {
                Ok(()) => held_by_now.insert(key(n), n.to_ne_bytes().to_vec()),
                Err(error) => break error,
            };
        };
        assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
        let mut grown = table.grown("test", 1000).expect("grown");
        assert_eq!(held(&grown), held_by_now);
        assert!(grown.room() >= 1000 + held_by_now.len());
        for n in 1000..2000 {
            grown.update(&key(n), &n.to_ne_bytes()).expect("room");
        }
    }

    proptest! {
        #[test]
        fn it_holds_what_was_put_into_it(
            steps in prop::collection::vec((any::<bool>(), 0..40u32, 1..u32::MAX), 1..300),
        ) {
            // Crowded, so that many keys are not at home.
            let (mut table, mut model) = (table(8), Held::new());
            table.wait = || {};
            for (puts, n, value) in steps {
                let value = value.to_ne_bytes().to_vec();
                if !puts {
                    table.delete(&key(n));
                    model.remove(&key(n));
                } else if let Err(error) = table.update(&key(n), &value) {
                    prop_assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
                } else {
                    model.insert(key(n), value);
                }
                for n in 0..40 {
                    prop_assert_eq!(table.lookup(&key(n)), model.get(&key(n)).cloned());
                }
                prop_assert_eq!((table.used, &held(&table)), (model.len(), &model));
            }
            let counted = passed(&table);
            table.adopt();
            prop_assert_eq!(passed(&table), counted);
        }
    }
}
