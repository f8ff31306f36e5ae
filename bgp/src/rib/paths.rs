//! The paths of each prefix by number: one in 8 octets, several in a list of their own.
//!
//! Keeps them in the order it is given, the used ones first; what is used is decided elsewhere.

use crate::rib::chunked::Chunked;
use crate::rib::interner::AttributesId;
use crate::rib::select::{PeerIndex, Source};
use crate::rib::table::RouteId;

/// Where a path comes from, in two octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct PathSource(u16);

impl PathSource {
    /// The user of this speaker.
    pub(crate) const LOCAL: PathSource = PathSource(u16::MAX);

    /// The source of this number.
    pub(crate) fn new(number: u16) -> PathSource {
        PathSource(number)
    }

    /// The number as such.
    pub(crate) fn get(self) -> u16 {
        self.0
    }
}

impl From<Source> for PathSource {
    fn from(source: Source) -> Self {
        match source {
            Source::Local => PathSource::LOCAL,
            // The configuration allows no more than 65,000 peers.
            Source::Peer(peer) => PathSource(u16::try_from(peer.0).unwrap_or(u16::MAX - 1)),
        }
    }
}

impl From<PathSource> for Source {
    fn from(source: PathSource) -> Self {
        match source {
            PathSource::LOCAL => Source::Local,
            PathSource(peer) => Source::Peer(PeerIndex(u32::from(peer))),
        }
    }
}

/// What is the matter with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(u8);

impl Flags {
    /// Nothing.
    pub(crate) const NONE: Flags = Flags(0);
    /// Its session is gone and it waits to be told again (RFC 4724 section 4.2).
    pub(crate) const STALE: Flags = Flags(1);
    /// It waits for long already (RFC 9494).
    pub(crate) const LONG_LIVED: Flags = Flags(2);
    /// Its next hop cannot be reached.
    pub(crate) const UNUSABLE: Flags = Flags(4);

    pub(crate) const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    pub(crate) const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
}

/// One path to a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) source: PathSource,
    pub(crate) attributes: AttributesId,
    /// As the peer told it (RFC 7911); 0 without.
    pub(crate) path_id: u32,
    /// As we tell it, unique within the prefix; 1 for the first.
    pub(crate) tx_id: u32,
    pub(crate) flags: Flags,
}

impl Path {
    /// Same origin, same (interned) attributes.
    pub(crate) fn says(&self, other: &Path) -> bool {
        self.source == other.source
            && self.path_id == other.path_id
            && self.attributes == other.attributes
    }
}

/// Some paths of a prefix, wherever they are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Listed<'a> {
    One([Path; 1]),
    Many(&'a [Path]),
}

impl std::ops::Deref for Listed<'_> {
    type Target = [Path];

    fn deref(&self) -> &[Path] {
        match self {
            Listed::One(one) => one,
            Listed::Many(many) => many,
        }
    }
}

/// The paths of all prefixes of a family.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    entries: Chunked<Entry>,
    lists: Vec<List>,
    free: Vec<u32>,
}

/// What is kept of every prefix. The length of its network fills what would be a gap.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// The attributes of the only path, 0 without one; or the place of the list.
    value: u32,
    source: PathSource,
    len: u8,
    bits: u8,
}

#[derive(Debug, Default)]
struct List {
    paths: Vec<Path>,
    selected: usize,
}

impl Entry {
    /// The prefix has a number.
    const NUMBERED: u8 = 0x40;
    /// Its paths are in a list. The other bits are the flags of the only path.
    const MANY: u8 = 0x80;

    fn has(self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    fn single(self) -> Option<Path> {
        if self.has(Entry::MANY) {
            return None;
        }
        Some(Path {
            source: self.source,
            attributes: AttributesId::from_number(self.value)?,
            path_id: 0,
            tx_id: 1,
            flags: Flags(self.bits & !Entry::NUMBERED),
        })
    }
}

impl Paths {
    /// The length of the network.
    pub(crate) fn len_of(&self, id: RouteId) -> u8 {
        self.entries.get(id).len
    }

    /// Notes the length of the network whose number this is from now on.
    pub(crate) fn set_len_of(&mut self, id: RouteId, len: u8) {
        *self.entries.at(id) = Entry {
            len,
            bits: Entry::NUMBERED,
            ..Entry::default()
        };
    }

    /// Whether the number belongs to a prefix.
    pub(crate) fn is_numbered(&self, id: RouteId) -> bool {
        self.entries.get(id).has(Entry::NUMBERED)
    }

    /// The number does not belong to a prefix any more.
    pub(crate) fn forget(&mut self, id: RouteId) {
        *self.entries.at(id) = Entry::default();
    }

    /// Whether there is no path.
    pub(crate) fn is_empty(&self, id: RouteId) -> bool {
        let entry = self.entries.get(id);
        !entry.has(Entry::MANY) && entry.value == 0
    }

    /// The path, if there is exactly one and it is kept as such.
    pub(crate) fn single(&self, id: RouteId) -> Option<Path> {
        self.entries.get(id).single()
    }

    /// Makes this the only path. There must be none, or a single one.
    pub(crate) fn set_single(&mut self, id: RouteId, source: PathSource, attributes: AttributesId) {
        let entry = self.entries.at(id);
        entry.value = attributes.get();
        entry.source = source;
        entry.bits = Entry::NUMBERED;
    }

    /// Takes the single path away.
    pub(crate) fn clear(&mut self, id: RouteId) {
        let entry = self.entries.at(id);
        entry.value = 0;
        entry.bits = Entry::NUMBERED;
    }

    /// All paths, those in use first.
    pub(crate) fn all(&self, id: RouteId) -> Listed<'_> {
        let entry = self.entries.get(id);
        if entry.has(Entry::MANY) {
            return Listed::Many(&self.lists[entry.value as usize].paths);
        }
        entry
            .single()
            .map_or(Listed::Many(&[]), |path| Listed::One([path]))
    }

    /// The paths in use, the best one first.
    pub(crate) fn used(&self, id: RouteId) -> Listed<'_> {
        let entry = self.entries.get(id);
        if entry.has(Entry::MANY) {
            let list = &self.lists[entry.value as usize];
            return Listed::Many(&list.paths[..list.selected]);
        }
        match entry.single() {
            Some(path) if !path.flags.contains(Flags::UNUSABLE) => Listed::One([path]),
            _ => Listed::Many(&[]),
        }
    }

    /// Takes all paths out, to be put back by [`Paths::put`].
    pub(crate) fn take(&mut self, id: RouteId, into: &mut Vec<Path>) {
        let entry = self.entries.get(id);
        into.clear();
        if entry.has(Entry::MANY) {
            std::mem::swap(into, &mut self.lists[entry.value as usize].paths);
        } else {
            into.extend(entry.single());
        }
    }

    /// Puts all paths back, the `selected` ones first. Leaves `paths` without a meaning.
    pub(crate) fn put(&mut self, id: RouteId, paths: &mut Vec<Path>, selected: usize) {
        let entry = self.entries.at(id);
        let plain = |path: &Path| path.path_id == 0 && path.tx_id == 1;
        match paths.as_slice() {
            [] => {
                if entry.has(Entry::MANY) {
                    self.free.push(entry.value);
                }
                entry.value = 0;
                entry.bits = Entry::NUMBERED;
            }
            [only] if plain(only) => {
                if entry.has(Entry::MANY) {
                    self.free.push(entry.value);
                }
                entry.value = only.attributes.get();
                entry.source = only.source;
                entry.bits = Entry::NUMBERED | only.flags.0;
            }
            _ => {
                if !entry.has(Entry::MANY) {
                    entry.value = self.free.pop().unwrap_or_else(|| {
                        self.lists.push(List::default());
                        (self.lists.len() - 1) as u32
                    });
                    entry.bits = Entry::NUMBERED | Entry::MANY;
                }
                let list = &mut self.lists[entry.value as usize];
                // A list grows by doubling, which for few paths is mostly room.
                if paths.capacity() > paths.len() + 2 {
                    list.paths.clear();
                    list.paths.reserve_exact(paths.len());
                    list.paths.extend_from_slice(paths);
                } else {
                    std::mem::swap(&mut list.paths, paths);
                }
                list.selected = selected;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(source: u32, number: u32) -> Path {
        Path {
            source: Source::Peer(PeerIndex(source)).into(),
            attributes: AttributesId::from_number(number).unwrap(),
            path_id: 0,
            tx_id: 1,
            flags: Flags::NONE,
        }
    }

    #[test]
    fn one_path_takes_eight_octets_and_more_take_a_list() {
        assert_eq!(size_of::<Entry>(), 8);
        let mut paths = Paths::default();
        paths.set_len_of(7, 24);
        assert!(paths.is_empty(7) && paths.is_numbered(7) && !paths.is_numbered(8));
        paths.set_single(7, path(1, 5).source, path(1, 5).attributes);
        assert_eq!((paths.single(7), paths.len_of(7)), (Some(path(1, 5)), 24));

        let mut taken = Vec::new();
        paths.take(7, &mut taken);
        assert_eq!(taken, [path(1, 5)]);
        taken.push(Path {
            tx_id: 2,
            ..path(2, 6)
        });
        paths.put(7, &mut taken, 1);
        assert_eq!((paths.all(7).len(), paths.used(7).len()), (2, 1));
        assert_eq!((paths.single(7), paths.len_of(7)), (None, 24));

        paths.take(7, &mut taken);
        taken.truncate(1);
        paths.put(7, &mut taken, 1);
        assert_eq!((paths.single(7), paths.free.len()), (Some(path(1, 5)), 1));
        paths.clear(7);
        assert!(paths.is_empty(7) && paths.all(7).is_empty());
    }
}
