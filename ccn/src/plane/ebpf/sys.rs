//! `bpf(2)`, as far as the plane needs it: maps by pinned path, single and batched access; programs, test runs and
//! what they are attached with.
//!
//! It knows nothing of what lies in a map, and keeps nothing. Loading programs is `aya`'s.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::LazyLock;

use nix::libc;

pub use links::{Attached, AttachedInfo, Ingress, programs_on};
pub use programs::{
    ProgramInfo, TestOutcome, TestRun, program, program_info, test_run, wait_for_programs,
};

const MAP_CREATE: u32 = 0;
const MAP_LOOKUP: u32 = 1;
const MAP_UPDATE: u32 = 2;
const MAP_DELETE: u32 = 3;
const MAP_NEXT_KEY: u32 = 4;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const INFO: u32 = 15;
const LOOKUP_BATCH: u32 = 24;
const UPDATE_BATCH: u32 = 26;

/// `BPF_F_MMAPABLE`.
pub const MMAPABLE: u32 = 1 << 10;
/// `BPF_MAP_TYPE_ARRAY`.
pub const ARRAY: u32 = 2;

/// Elements a batched call takes at once.
const BATCH: usize = 8192;

/// Makes a struct for `bpf(2)`: one of the forms of `union bpf_attr`.
macro_rules! attr {
    ($name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        #[repr(C)]
        #[derive(Default)]
        struct $name {
            $($field: $kind,)*
        }
        impl Attr for $name {}
    };
}

/// A form of `union bpf_attr`: integers without gaps.
trait Attr {}

mod links;
mod programs;

attr!(CreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
    ifindex: u32,
});
attr!(ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
});
attr!(BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
});
attr!(PinAttr {
    path: u64,
    fd: u32,
    flags: u32,
});
attr!(InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
});

fn bpf<A: Attr>(command: u32, attr: &mut A) -> io::Result<libc::c_long> {
    loop {
        // SAFETY: `attr` lives through the call and its size is given with it; what its addresses
        // point to is alive in the callers below, with the sizes they give.
        let done = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command as libc::c_long,
                std::ptr::from_mut(attr),
                size_of::<A>(),
            )
        };
        if done >= 0 {
            return Ok(done);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    // A descriptor that is open is never negative.
    fd.as_raw_fd() as u32
}

fn address<T>(slice: &[T]) -> u64 {
    slice.as_ptr() as u64
}

fn address_mut<T>(slice: &mut [T]) -> u64 {
    slice.as_mut_ptr() as u64
}

fn path_text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// How many processors there may be: per-CPU maps have a value for each.
pub fn possible_cpus() -> io::Result<usize> {
    static COUNT: LazyLock<Result<usize, String>> = LazyLock::new(|| {
        let path = "/sys/devices/system/cpu/possible";
        let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        count_cpus(text.trim()).ok_or_else(|| format!("{path}: {text:?} is no list"))
    });
    COUNT.clone().map_err(io::Error::other)
}

/// The same as [`possible_cpus`].
///
/// # Errors
/// When the number of processors cannot be read.
pub fn cpus() -> io::Result<u32> {
    u32::try_from(possible_cpus()?).map_err(io::Error::other)
}

/// `0-3,8` is 9 places: those in between have values too.
fn count_cpus(list: &str) -> Option<usize> {
    let last = list.rsplit([',', '-']).next()?;
    last.parse::<usize>().ok()?.checked_add(1)
}

/// What kind of map it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// `BPF_MAP_TYPE_*`.
    pub kind: u32,
    /// Octets of a key.
    pub key: u32,
    /// Octets of a value.
    pub value: u32,
    /// Most elements.
    pub entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
}

impl Shape {
    fn is_per_cpu(&self) -> bool {
        // Per-CPU hash, array, LRU hash.
        matches!(self.kind, 5 | 6 | 10)
    }
}

/// A map of the kernel.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    id: u32,
    shape: Shape,
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Map {
    /// Makes a map with nothing in it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn create(name: &str, shape: Shape) -> io::Result<Map> {
        let mut attr = CreateAttr {
            map_type: shape.kind,
            key_size: shape.key,
            value_size: shape.value,
            max_entries: shape.entries,
            map_flags: shape.flags,
            ..CreateAttr::default()
        };
        for (place, byte) in attr.name.iter_mut().take(15).zip(name.bytes()) {
            *place = byte;
        }
        Map::with(owned(bpf(MAP_CREATE, &mut attr)?))
    }

    /// The map that is pinned at this path.
    ///
    /// # Errors
    /// The kernel's; `NotFound` when there is none.
    pub fn open(path: &Path) -> io::Result<Map> {
        let path = path_text(path)?;
        let mut attr = PinAttr {
            path: path.as_ptr() as u64,
            ..PinAttr::default()
        };
        Map::with(owned(bpf(OBJ_GET, &mut attr)?))
    }

    fn with(fd: OwnedFd) -> io::Result<Map> {
        // struct bpf_map_info: type, id, key_size, value_size, max_entries, map_flags.
        let mut info = [0u32; 6];
        let mut attr = InfoAttr {
            fd: raw(fd.as_fd()),
            len: size_of_val(&info) as u32,
            info: address_mut(&mut info),
        };
        bpf(INFO, &mut attr)?;
        let [kind, id, key, value, entries, flags] = info;
        let shape = Shape {
            kind,
            key,
            value,
            entries,
            flags,
        };
        Ok(Map { fd, id, shape })
    }

    /// Its number in the kernel.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What kind of map it is.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Pins it at a path in a BPF file system.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        let path = path_text(path)?;
        let mut attr = PinAttr {
            path: path.as_ptr() as u64,
            fd: raw(self.as_fd()),
            flags: 0,
        };
        bpf(OBJ_PIN, &mut attr).map(|_| ())
    }

    /// Octets of a value as system calls give and take it: per-CPU maps have one for each processor.
    ///
    /// # Errors
    /// When the number of processors cannot be read.
    pub fn value_len(&self) -> io::Result<usize> {
        let value = self.shape.value as usize;
        Ok(match self.shape.is_per_cpu() {
            true => value.next_multiple_of(8) * possible_cpus()?,
            false => value,
        })
    }

    fn check(&self, key: &[u8], value: Option<usize>) -> io::Result<()> {
        let keys = key.len() == self.shape.key as usize;
        let expected = self.value_len()?;
        if keys && value.is_none_or(|value| value == expected) {
            return Ok(());
        }
        let text = format!(
            "a key of {} and a value of {value:?} octets for a map of {} and {expected}",
            key.len(),
            self.shape.key,
        );
        Err(io::Error::other(text))
    }

    /// The value of a key, if there is one.
    ///
    /// # Errors
    /// The kernel's, or the key has not the map's size.
    pub fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.check(key, None)?;
        let mut value = vec![0; self.value_len()?];
        let mut attr = ElementAttr {
            map_fd: raw(self.as_fd()),
            key: address(key),
            value: address_mut(&mut value),
            ..ElementAttr::default()
        };
        match bpf(MAP_LOOKUP, &mut attr) {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// The kernel's, or key or value have not the map's size.
    pub fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key, Some(value.len()))?;
        let mut attr = ElementAttr {
            map_fd: raw(self.as_fd()),
            key: address(key),
            value: address(value),
            ..ElementAttr::default()
        };
        bpf(MAP_UPDATE, &mut attr).map(|_| ())
    }

    /// Takes a key away; that it is not there is no error.
    ///
    /// # Errors
    /// The kernel's, or the key has not the map's size.
    pub fn delete(&self, key: &[u8]) -> io::Result<()> {
        self.check(key, None)?;
        let mut attr = ElementAttr {
            map_fd: raw(self.as_fd()),
            key: address(key),
            ..ElementAttr::default()
        };
        match bpf(MAP_DELETE, &mut attr) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Sets the values of many keys, given one after the other. Answers how many were set before the
    /// first that was not, and why that was not.
    ///
    /// # Errors
    /// The keys and values have not the map's sizes.
    pub fn update_many(
        &self,
        keys: &[u8],
        values: &[u8],
    ) -> io::Result<(usize, Option<io::Error>)> {
        let (key, value) = (self.shape.key as usize, self.value_len()?);
        let count = keys.len() / key.max(1);
        self.check(&keys[..key.min(keys.len())], None)?;
        if keys.len() != count * key || values.len() != count * value {
            return Err(io::Error::other("keys and values do not go together"));
        }
        let mut done = 0;
        while done < count {
            let now = (count - done).min(BATCH);
            let mut attr = BatchAttr {
                keys: address(&keys[done * key..]),
                values: address(&values[done * value..]),
                count: now as u32,
                map_fd: raw(self.as_fd()),
                ..BatchAttr::default()
            };
            match bpf(UPDATE_BATCH, &mut attr) {
                Ok(_) => done += now,
                Err(error) => return Ok((done + attr.count as usize, Some(error))),
            }
        }
        Ok((done, None))
    }

    /// Every element: keys and values, each with the map's size. What changes meanwhile may be there
    /// or not.
    ///
    /// # Errors
    /// The kernel's.
    pub fn each(&self, mut take: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let (key, value) = (self.shape.key as usize, self.value_len()?);
        // The kernel gives whole buckets: a batch that one does not fit into must be larger.
        let mut room = BATCH.min(self.shape.entries as usize).max(1);
        let mut keys = vec![0; room * key];
        let mut values = vec![0; room * value];
        let (mut from, mut next) = (vec![0u8; key.max(8)], vec![0u8; key.max(8)]);
        let mut first = true;
        loop {
            let mut attr = BatchAttr {
                in_batch: if first { 0 } else { address(&from) },
                out_batch: address_mut(&mut next),
                keys: address_mut(&mut keys),
                values: address_mut(&mut values),
                count: room as u32,
                map_fd: raw(self.as_fd()),
                ..BatchAttr::default()
            };
            let outcome = bpf(LOOKUP_BATCH, &mut attr);
            let is_last = match outcome {
                Ok(_) => false,
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    room *= 2;
                    keys.resize(room * key, 0);
                    values.resize(room * value, 0);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let count = (attr.count as usize).min(room);
            let pairs = keys.chunks_exact(key).zip(values.chunks_exact(value));
            pairs.take(count).for_each(|(key, value)| take(key, value));
            if is_last {
                return Ok(());
            }
            std::mem::swap(&mut from, &mut next);
            first = false;
        }
    }

    /// Whether there is no element.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_empty(&self) -> io::Result<bool> {
        let mut next = vec![0; self.shape.key as usize];
        let mut attr = ElementAttr {
            map_fd: raw(self.as_fd()),
            value: address_mut(&mut next),
            ..ElementAttr::default()
        };
        match bpf(MAP_NEXT_KEY, &mut attr) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_with_the_gaps() {
        let table = [
            ("0", Some(1)),
            ("0-3", Some(4)),
            ("0-3,8", Some(9)),
            ("0,2-5", Some(6)),
            ("", None),
        ];
        for (list, count) in table {
            assert_eq!(count_cpus(list), count, "{list}");
        }
    }

    fn hash(value: u32) -> Map {
        const HASH: u32 = 1;
        let shape = Shape {
            kind: HASH,
            key: 4,
            value,
            entries: 100_000,
            flags: 1,
        };
        Map::create("test", shape).expect("these tests need CAP_BPF")
    }

    #[test]
    fn a_hash_gives_back_what_many_at_once_put_into_it() {
        let map = hash(8);
        assert!(map.is_empty().expect("asked"));
        let count = 20_000u32;
        let keys: Vec<u8> = (0..count).flat_map(u32::to_ne_bytes).collect();
        let values: Vec<u8> = (0..u64::from(count))
            .flat_map(|n| (n * 7).to_ne_bytes())
            .collect();
        let (done, error) = map.update_many(&keys, &values).expect("sizes");
        assert!(error.is_none() && done == 20_000, "{error:?}");
        map.delete(&5u32.to_ne_bytes()).expect("deleted");
        map.delete(&5u32.to_ne_bytes()).expect("deleted twice");
        let mut found = std::collections::BTreeMap::new();
        map.each(|key, value| {
            found.insert(key.to_vec(), value.to_vec());
        })
        .expect("read");
        assert_eq!(found.len(), 19_999);
        assert_eq!(found[&9u32.to_ne_bytes().to_vec()], 63u64.to_ne_bytes());
        assert_eq!(map.lookup(&5u32.to_ne_bytes()).expect("asked"), None);
        assert_eq!(
            map.lookup(&6u32.to_ne_bytes()).expect("asked"),
            Some(42u64.to_ne_bytes().to_vec())
        );
    }

    #[test]
    fn what_has_not_the_size_of_the_map_is_refused() {
        let map = hash(8);
        assert!(map.update(&[0; 4], &[0; 7]).is_err());
        assert!(map.update(&[0; 3], &[0; 8]).is_err());
        assert!(map.update_many(&[0; 8], &[0; 8]).is_err());
        assert!(map.lookup(&[0; 5]).is_err());
    }
}
