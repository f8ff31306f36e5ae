//! Arrays of the kernel in our own address space: stored to without a system call.
//!
//! Programs read them at any time, so every store is of eight octets at once.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::libc;

use super::layout::{Globals, Host, LENGTHS, NO_LENGTH, Plain, Slot};
use super::memory::Memory;
use super::sys::{self, Map, Shape};

/// The largest element that is read or set.
const MOST_OCTETS: usize = 128;
const _: () = assert!(size_of::<Globals>() <= MOST_OCTETS);

/// The octets of an array, as words.
#[derive(Debug)]
pub(crate) struct Area {
    start: NonNull<AtomicU64>,
    words: usize,
    octets: NonZeroUsize,
}

// SAFETY: the area is only reached through atomic words, which any thread may use.
unsafe impl Send for Area {}

impl Area {
    /// Maps an array that was made with `BPF_F_MMAPABLE`.
    pub(crate) fn of(map: &Map) -> io::Result<Area> {
        let shape = map.shape();
        let words = (shape.value as usize).div_ceil(8) * shape.entries as usize;
        let octets = NonZeroUsize::new(words * 8).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice; it is unmapped in `drop` alone,
        // and the kernel keeps the array while it is mapped.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                octets.get(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Area {
            start,
            words,
            octets,
        })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is of so many words, page-aligned, zero or written by words, and lives
        // as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }

    /// The word with this number, or 0 where there is none.
    pub(crate) fn load(&self, at: usize) -> u64 {
        self.words()
            .get(at)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Stores a word at once. Whoever sees it sees all that was stored before.
    pub(crate) fn store(&self, at: usize, value: u64) {
        if let Some(word) = self.words().get(at) {
            word.store(value, Ordering::Release);
        }
    }

    /// An element, read word by word.
    pub(crate) fn element<T: Plain>(&self, at: usize) -> T {
        let (words, mut octets) = (size_of::<T>() / 8, [0; MOST_OCTETS]);
        for (word, place) in octets.chunks_exact_mut(8).take(words).enumerate() {
            place.copy_from_slice(&self.load(at * words + word).to_ne_bytes());
        }
        T::read(&octets[..words * 8]).unwrap_or_default()
    }

    fn set_element<T: Plain>(&self, at: usize, value: &T, order: impl Iterator<Item = usize>) {
        let words = size_of::<T>() / 8;
        let octets = value.octets();
        for word in order {
            if let Some((chunk, _)) = octets[word * 8..].split_first_chunk::<8>() {
                self.store(at * words + word, u64::from_ne_bytes(*chunk));
            }
        }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `of` made, and no reference to it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.octets.get()) };
    }
}

/// What concerns all packets, as it is.
pub(crate) fn globals(area: &Area) -> Globals {
    area.element(0)
}

/// Sets what concerns all packets. Lists of lengths take two stores each: in an order in which no
/// length that is there before and after is missing between the two.
pub(crate) fn set_globals(area: &Area, value: &Globals) {
    const WORDS: usize = size_of::<Globals>() / 8;
    const LIST: usize = LENGTHS / 8;
    let before = globals(area);
    let used = |list: &[u8]| list.iter().filter(|len| **len != NO_LENGTH).count();
    let growing = [
        used(&value.linked4) > used(&before.linked4),
        used(&value.linked6) > used(&before.linked6),
    ];
    let lists = [WORDS - 2 * LIST, WORDS - LIST];
    let order = (0..lists[0]).chain(lists.into_iter().zip(growing).flat_map(|(start, grows)| {
        let last = start + LIST - 1;
        (start..=last).map(move |word| if grows { start + last - word } else { word })
    }));
    area.set_element(0, value, order);
}

/// `slots` and `hosts` of the kernel.
#[derive(Debug)]
pub(crate) struct KernelMemory {
    slots: Area,
    hosts: Area,
    shape: Shape,
    /// A larger map that `slots` has moved to, and that no program reads yet.
    grown: Option<Map>,
}

impl KernelMemory {
    pub(crate) fn of(slots: &Map, hosts: &Map) -> io::Result<KernelMemory> {
        Ok(KernelMemory {
            slots: Area::of(slots)?,
            hosts: Area::of(hosts)?,
            shape: slots.shape(),
            grown: None,
        })
    }

    /// The larger map, once: the caller has the programs read it before any map leads into it.
    pub(crate) fn take_grown(&mut self) -> Option<Map> {
        self.grown.take()
    }
}

impl Memory for KernelMemory {
    fn slots(&self) -> u32 {
        self.shape.entries
    }

    fn slot(&self, at: u32) -> Slot {
        Slot(self.slots.load(at as usize))
    }

    fn set_slot(&mut self, at: u32, slot: Slot) {
        self.slots.store(at as usize, slot.0);
    }

    fn host(&self, number: u16) -> Host {
        self.hosts.element(number.into())
    }

    fn set_host(&mut self, number: u16, host: Host) {
        self.hosts.set_element(number.into(), &host, 0..3);
    }

    fn grow(&mut self, slots: u32) -> Result<(), String> {
        let shape = Shape {
            entries: slots,
            ..self.shape
        };
        let map = Map::create("slots", shape).map_err(|error| error.to_string())?;
        let area = Area::of(&map).map_err(|error| error.to_string())?;
        for at in 0..self.shape.entries as usize {
            let word = self.slots.load(at);
            if word != 0 {
                area.store(at, word);
            }
        }
        (self.slots, self.shape, self.grown) = (area, shape, Some(map));
        Ok(())
    }

    fn wait(&mut self) {
        wait_for_programs();
    }
}

/// Waits until every program that may have read something is done with it.
pub(crate) fn wait_for_programs() {
    if let Err(error) = sys::wait_for_programs() {
        // Kernels with full-dynticks processors refuse it. A program runs for microseconds.
        tracing::debug!(%error, "membarrier is refused, waiting instead");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(value: u32, entries: u32) -> Map {
        let shape = Shape {
            kind: sys::ARRAY,
            key: 4,
            value,
            entries,
            flags: sys::MMAPABLE,
        };
        Map::create("test", shape).expect("these tests need CAP_BPF")
    }

    #[test]
    fn what_is_stored_is_what_system_calls_see() {
        let (slots, hosts) = (array(8, 1000), array(24, 65_535));
        let mut memory = KernelMemory::of(&slots, &hosts).expect("mapped");
        memory.set_slot(999, Slot(7));
        memory.set_slot(1000, Slot(8));
        let host = Host::at("2001:db8::1".parse().expect("an address"));
        memory.set_host(0xfffe, host);
        let seen = |map: &Map, at: u32| map.lookup(&at.to_ne_bytes()).expect("asked");
        assert_eq!(seen(&slots, 999), Some(7u64.to_ne_bytes().to_vec()));
        assert_eq!(seen(&hosts, 0xfffe), Some(host.octets().to_vec()));
        assert_eq!(
            (memory.host(0xfffe), memory.slot(1000)),
            (host, Slot::EMPTY)
        );
        memory.grow(5000).expect("grown");
        memory.set_slot(4999, Slot(9));
        let grown = memory.take_grown().expect("a larger map");
        assert_eq!(
            (seen(&grown, 999), memory.slots()),
            (Some(7u64.to_ne_bytes().to_vec()), 5000)
        );
        assert_eq!(seen(&grown, 4999), Some(9u64.to_ne_bytes().to_vec()));
    }

    #[test]
    fn globals_are_set_as_they_are_read() {
        let map = array(size_of::<Globals>() as u32, 1);
        let area = Area::of(&map).expect("mapped");
        let mut value = Globals {
            version: 1,
            mtu: 1450,
            linked4: std::array::from_fn(|n| 32 - n as u8),
            ..Globals::default()
        };
        for _ in 0..2 {
            set_globals(&area, &value);
            assert_eq!(globals(&area), value);
            value.linked4[5..].fill(NO_LENGTH);
        }
    }
}
