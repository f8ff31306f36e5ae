//! Adj-RIBs-In and Loc-RIB in one: for every prefix all accepted paths, the used ones first.
//!
//! Built for a million prefixes: a prefix has a small number, under which everybody keeps what he
//! has to say about it; one with a single path takes 12 octets (IPv4) and its place in an index.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::config::Multipath;
use crate::rib::attributes::RouteAttributes;
use crate::rib::interner::{AttributesId, Interner};
use crate::rib::next_hop::NextHopState;
use crate::rib::paths::{Flags, Listed, Path, PathSource, Paths};
use crate::rib::select::{Candidate, PeerIndex, PeerRank, Source, select};
use crate::wire::{Family, Nlri, Prefix};

mod keys;

use keys::Keys;

/// The number of a prefix within its family, as long as somebody keeps something under it.
pub(crate) type RouteId = u32;

/// The table of both families, and the attributes that its paths share.
#[derive(Debug)]
pub struct Table {
    families: [FamilyTable; Family::ALL.len()],
    pub(crate) interner: Interner,
    ranks: Vec<PeerRank>,
    multipath: Multipath,
    hasher: DefaultHashBuilder,
    scratch: Scratch,
}

#[derive(Debug)]
struct FamilyTable {
    keys: Keys,
    index: HashTable<RouteId>,
    paths: Paths,
    /// Numbers ever given out, and those of them that are free again.
    numbers: u32,
    free: Vec<RouteId>,
    /// Prefixes that have lost their last path. Whoever keeps something under their numbers looks
    /// at them before they are free.
    dead: Vec<RouteId>,
    dead_looked_at: usize,
    local: usize,
    accepted: Vec<usize>,
}

#[derive(Debug, Default)]
struct Scratch {
    paths: Vec<Path>,
    before: Vec<Path>,
}

/// What a change of paths did to a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// The best path is another one, or says something else, or is gone.
    pub best: bool,
    /// The learned paths in use are others, or say something else. There are none while the best
    /// path is our own.
    pub used: bool,
    /// Any path came, went or says something else.
    pub any: bool,
}

/// A prefix, and what happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) family: Family,
    pub(crate) id: RouteId,
    pub(crate) change: Change,
}

/// The place of a family in an array of two.
pub(crate) const fn slot(family: Family) -> usize {
    match family {
        Family::Ipv4Unicast => 0,
        Family::Ipv6Unicast => 1,
    }
}

/// A word or two are hashed quicker than what a prefix is made of.
fn hash_of(hasher: &DefaultHashBuilder, prefix: &Prefix) -> u64 {
    let len = u64::from(prefix.len());
    match prefix.addr() {
        IpAddr::V4(address) => hasher.hash_one(u64::from(address.to_bits()) << 8 | len),
        IpAddr::V6(address) => hasher.hash_one((address.to_bits(), len)),
    }
}

impl FamilyTable {
    fn new(family: Family) -> FamilyTable {
        FamilyTable {
            keys: Keys::new(family),
            index: HashTable::new(),
            paths: Paths::default(),
            numbers: 0,
            free: Vec::new(),
            dead: Vec::new(),
            dead_looked_at: 0,
            local: 0,
            accepted: Vec::new(),
        }
    }

    fn prefix(&self, id: RouteId) -> Prefix {
        self.keys.get(id, self.paths.len_of(id))
    }

    fn find(&self, hasher: &DefaultHashBuilder, prefix: &Prefix) -> Option<RouteId> {
        let hash = hash_of(hasher, prefix);
        self.index
            .find(hash, |id| self.prefix(*id) == *prefix)
            .copied()
    }

    /// The number of the prefix, given out if it has none.
    fn number(&mut self, hasher: &DefaultHashBuilder, prefix: &Prefix) -> RouteId {
        let hash = hash_of(hasher, prefix);
        let (keys, paths) = (&self.keys, &self.paths);
        let known = |id: &RouteId| keys.get(*id, paths.len_of(*id));
        if let Some(id) = self.index.find(hash, |id| known(id) == *prefix) {
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.numbers += 1;
            self.numbers - 1
        });
        self.keys.set(id, prefix);
        self.paths.set_len_of(id, prefix.len());
        let (keys, paths) = (&self.keys, &self.paths);
        self.index.insert_unique(hash, id, |id| {
            hash_of(hasher, &keys.get(*id, paths.len_of(*id)))
        });
        id
    }

    fn count(&mut self, source: Source) -> &mut usize {
        match source {
            Source::Local => &mut self.local,
            Source::Peer(peer) => {
                let index = peer.0 as usize;
                if index >= self.accepted.len() {
                    self.accepted.resize(index + 1, 0);
                }
                &mut self.accepted[index]
            }
        }
    }
}

impl Table {
    /// An empty table; `ranks` are those of the peers by index.
    pub fn new(ranks: Vec<PeerRank>, multipath: Multipath) -> Table {
        Table {
            families: Family::ALL.map(FamilyTable::new),
            interner: Interner::default(),
            ranks,
            multipath,
            hasher: DefaultHashBuilder::default(),
            scratch: Scratch::default(),
        }
    }

    /// Sets what the decision process knows about a peer. It must have no path in the table.
    pub fn set_rank(&mut self, peer: PeerIndex, rank: PeerRank) {
        let index = peer.0 as usize;
        if index >= self.ranks.len() {
            // Numbers are given out in order; a gap would be filled before it is used.
            self.ranks.resize(index + 1, rank);
        }
        self.ranks[index] = rank;
    }

    /// When a prefix gets several next hops.
    pub fn multipath(&self) -> Multipath {
        self.multipath
    }

    /// When a prefix gets several next hops, once it is selected anew.
    pub fn set_multipath(&mut self, multipath: Multipath) {
        self.multipath = multipath;
    }

    /// Whether the peer is in our own AS.
    pub fn is_internal(&self, peer: PeerIndex) -> bool {
        self.ranks
            .get(peer.0 as usize)
            .is_some_and(|rank| rank.internal)
    }

    /// Takes a path in place of the one its source had (implicit withdraw, RFC 4271 section 3.1;
    /// with path identifiers, RFC 7911 section 5).
    pub(crate) fn announce(
        &mut self,
        nlri: Nlri,
        source: Source,
        attributes: AttributesId,
    ) -> Changed {
        let family = nlri.prefix.family();
        let table = &mut self.families[slot(family)];
        let id = table.number(&self.hasher, &nlri.prefix);
        let source_code = PathSource::from(source);
        let changed = |change| Changed { family, id, change };
        let flags = match self.interner.next_hop_state(attributes) {
            NextHopState::Reachable { .. } => Flags::NONE,
            NextHopState::Unreachable => Flags::UNUSABLE,
        };
        let simple = nlri.path_id == 0 && flags == Flags::NONE;

        // Nearly all prefixes have one path, of one source.
        match table.paths.single(id) {
            Some(known) if simple && known.source == source_code && known.path_id == 0 => {
                if known.attributes == attributes && known.flags == Flags::NONE {
                    return changed(Change::default());
                }
                // Without a stale or unusable path there is one that is in use, before and after.
                let was_best = !known.flags.contains(Flags::UNUSABLE);
                self.interner.hold(attributes);
                self.interner.release(known.attributes);
                table.paths.set_single(id, source_code, attributes);
                let differs = !was_best || known.attributes != attributes;
                return changed(Change {
                    best: differs,
                    // Users see that it is not stale any more.
                    used: source != Source::Local,
                    any: true,
                });
            }
            None if simple && table.paths.is_empty(id) => {
                self.interner.hold(attributes);
                table.paths.set_single(id, source_code, attributes);
                *table.count(source) += 1;
                return changed(Change {
                    best: true,
                    used: source != Source::Local,
                    any: true,
                });
            }
            _ => {}
        }

        let new = |tx_id| Path {
            source: source_code,
            attributes,
            path_id: nlri.path_id,
            tx_id,
            flags,
        };
        let change = self.edit(family, id, |paths, interner, count| {
            match paths
                .iter_mut()
                .find(|path| path.source == source_code && path.path_id == nlri.path_id)
            {
                Some(known) if known.attributes == attributes && known.flags == flags => false,
                Some(known) => {
                    interner.hold(attributes);
                    interner.release(known.attributes);
                    *known = new(known.tx_id);
                    true
                }
                None => {
                    interner.hold(attributes);
                    let taken = |id: &u32| paths.iter().any(|path| path.tx_id == *id);
                    // The smallest that no path of the prefix has.
                    let tx_id = (1..).find(|id| !taken(id)).unwrap_or(u32::MAX);
                    paths.push(new(tx_id));
                    count(source, 1);
                    true
                }
            }
        });
        changed(change)
    }

    /// Forgets the path of a source, if there is one.
    pub(crate) fn withdraw(&mut self, nlri: Nlri, source: Source) -> Option<Changed> {
        let id = self.find(&nlri.prefix)?;
        self.withdraw_path(nlri.prefix.family(), id, source, |path| {
            path.path_id == nlri.path_id
        })
    }

    /// The number of a prefix that has paths, or had some not long ago.
    pub(crate) fn find(&self, prefix: &Prefix) -> Option<RouteId> {
        self.families[slot(prefix.family())].find(&self.hasher, prefix)
    }

    /// Forgets those paths of a source to a prefix that `gone` names.
    pub(crate) fn withdraw_path(
        &mut self,
        family: Family,
        id: RouteId,
        source: Source,
        gone: impl Fn(&Path) -> bool,
    ) -> Option<Changed> {
        let source_code = PathSource::from(source);
        let table = &mut self.families[slot(family)];
        let changed = |change| Changed { family, id, change };
        if let Some(known) = table.paths.single(id) {
            if known.source != source_code || !gone(&known) {
                return None;
            }
            let was_best = !known.flags.contains(Flags::UNUSABLE);
            self.interner.release(known.attributes);
            table.paths.clear(id);
            table.dead.push(id);
            *table.count(source) -= 1;
            return Some(changed(Change {
                best: was_best,
                used: was_best && source != Source::Local,
                any: true,
            }));
        }
        let change = self.edit(family, id, |paths, interner, count| {
            let before = paths.len();
            paths.retain(|path| {
                let stays = path.source != source_code || !gone(path);
                if !stays {
                    interner.release(path.attributes);
                    count(source, -1);
                }
                stays
            });
            paths.len() != before
        });
        change.any.then(|| changed(change))
    }

    /// Changes the paths of a prefix as `act` wants, which says whether it did, and selects anew.
    fn edit(
        &mut self,
        family: Family,
        id: RouteId,
        act: impl FnOnce(&mut Vec<Path>, &mut Interner, &mut dyn FnMut(Source, isize)) -> bool,
    ) -> Change {
        let mut scratch = std::mem::take(&mut self.scratch);
        let Scratch { paths, before } = &mut scratch;
        let table = &mut self.families[slot(family)];
        before.clear();
        before.extend_from_slice(&table.paths.used(id));
        table.paths.take(id, paths);
        let was_empty = paths.is_empty();
        let mut counts: Vec<(Source, isize)> = Vec::new();
        let did = act(paths, &mut self.interner, &mut |source, by| {
            counts.push((source, by));
        });
        for (source, by) in counts {
            let count = table.count(source);
            *count = count.saturating_add_signed(by);
        }
        let selected = match did {
            true => {
                let (interner, ranks) = (&self.interner, &self.ranks);
                select(
                    paths,
                    |path| candidate(path, interner, ranks),
                    self.multipath,
                )
            }
            false => before.len(),
        };
        if paths.is_empty() && !was_empty {
            table.dead.push(id);
        }
        table.paths.put(id, paths, selected);
        let change = match did {
            true => compare(before, &table.paths.used(id)),
            false => Change::default(),
        };
        paths.clear();
        self.scratch = scratch;
        change
    }

    /// Lets `revise` change every path of a prefix, or say that it goes, and selects anew.
    pub(crate) fn revise(
        &mut self,
        family: Family,
        id: RouteId,
        mut revise: impl FnMut(&mut Path, &mut Interner) -> bool,
    ) -> Changed {
        let change = self.edit(family, id, |paths, interner, count| {
            paths.retain_mut(|path| {
                let stays = revise(path, interner);
                if !stays {
                    interner.release(path.attributes);
                    count(path.source.into(), -1);
                }
                stays
            });
            true
        });
        Changed { family, id, change }
    }

    /// The reachability or the cost of these next hops is another one: selects anew where they are
    /// used. Looks at every path, and so knows of no next hop which prefixes use it.
    pub(crate) fn next_hops_changed(&mut self, hops: &[IpAddr]) -> Vec<Changed> {
        if hops.is_empty() {
            return Vec::new();
        }
        let sets = self.interner.with_next_hop(hops);
        let mut changed = Vec::new();
        for family in Family::ALL {
            let uses = |id: &RouteId| {
                let paths = self.all(family, *id);
                paths.iter().any(|path| sets.contains(&path.attributes))
            };
            for id in self.ids(family).filter(uses).collect::<Vec<_>>() {
                changed.push(self.revise(family, id, |path, interner| {
                    path.flags = match interner.next_hop_state(path.attributes) {
                        NextHopState::Reachable { .. } => path.flags.without(Flags::UNUSABLE),
                        NextHopState::Unreachable => path.flags.with(Flags::UNUSABLE),
                    };
                    true
                }));
            }
        }
        changed
    }

    /// Every number in use, in the order in which they were given out.
    pub(crate) fn ids(&self, family: Family) -> impl Iterator<Item = RouteId> + use<'_> {
        let table = &self.families[slot(family)];
        (0..table.numbers).filter(|id| !table.paths.is_empty(*id))
    }

    /// Numbers below this were given out; some of them may be free again, and have no paths.
    pub(crate) fn numbers(&self, family: Family) -> RouteId {
        self.families[slot(family)].numbers
    }

    /// The numbers of the prefixes that a source has a path to.
    pub(crate) fn ids_from(&self, family: Family, source: Source) -> Vec<RouteId> {
        let table = &self.families[slot(family)];
        if self.count(family, source) == 0 {
            return Vec::new();
        }
        let source = PathSource::from(source);
        let has = |id: &RouteId| {
            table
                .paths
                .all(*id)
                .iter()
                .any(|path| path.source == source)
        };
        (0..table.numbers).filter(has).collect()
    }

    /// The paths of a source, in the order in which their prefixes were numbered.
    pub(crate) fn paths_from(&self, family: Family, source: Source) -> Vec<(Nlri, Path)> {
        let code = PathSource::from(source);
        let mut found = Vec::new();
        for id in self.ids_from(family, source) {
            let prefix = self.prefix(family, id);
            let all = self.all(family, id);
            found.extend(all.iter().filter(|path| path.source == code).map(|path| {
                let path_id = path.path_id;
                (Nlri { prefix, path_id }, *path)
            }));
        }
        found
    }

    /// The prefix of a number in use.
    pub(crate) fn prefix(&self, family: Family, id: RouteId) -> Prefix {
        self.families[slot(family)].prefix(id)
    }

    /// The number of a prefix that somebody keeps something about.
    pub(crate) fn id(&self, prefix: &Prefix) -> Option<RouteId> {
        self.families[slot(prefix.family())].find(&self.hasher, prefix)
    }

    /// Whether a source has this path.
    pub(crate) fn has(&self, nlri: &Nlri, source: Source) -> bool {
        let source = PathSource::from(source);
        let paths = self
            .id(&nlri.prefix)
            .map(|id| self.all(nlri.prefix.family(), id));
        paths.is_some_and(|paths| {
            let mut paths = paths.iter();
            paths.any(|path| path.source == source && path.path_id == nlri.path_id)
        })
    }

    /// The best path of a prefix by number.
    pub(crate) fn best(&self, family: Family, id: RouteId) -> Option<Path> {
        self.families[slot(family)].paths.used(id).first().copied()
    }

    /// All paths of a prefix by number, those in use first.
    pub(crate) fn all(&self, family: Family, id: RouteId) -> Listed<'_> {
        self.families[slot(family)].paths.all(id)
    }

    /// The paths to a prefix that are in use, the best one first; empty without any.
    pub(crate) fn used(&self, prefix: &Prefix) -> Listed<'_> {
        match self.id(prefix) {
            Some(id) => self.families[slot(prefix.family())].paths.used(id),
            None => Listed::Many(&[]),
        }
    }

    /// The attributes of a path.
    pub(crate) fn attributes(&self, id: AttributesId) -> &Arc<RouteAttributes> {
        self.interner.get(id)
    }

    /// Every prefix with a path, of both families, in order.
    pub fn prefixes(&self) -> Vec<Prefix> {
        let of = |family| self.ids(family).map(move |id| self.prefix(family, id));
        let mut prefixes: Vec<Prefix> = Family::ALL.into_iter().flat_map(of).collect();
        prefixes.sort_unstable();
        prefixes
    }

    /// How many paths of a source are stale. Looks at all of them.
    pub(crate) fn stale(&self, family: Family, source: Source) -> usize {
        let code = PathSource::from(source);
        let stale = |path: &&Path| path.source == code && path.flags.contains(Flags::STALE);
        let ids = self.ids_from(family, source).into_iter();
        ids.map(|id| self.all(family, id).iter().filter(stale).count())
            .sum()
    }

    /// How many paths of this family a source has in the table.
    pub fn count(&self, family: Family, source: Source) -> usize {
        let table = &self.families[slot(family)];
        match source {
            Source::Local => table.local,
            Source::Peer(peer) => table.accepted.get(peer.0 as usize).copied().unwrap_or(0),
        }
    }

    /// Frees the numbers of prefixes without a path that nobody keeps anything under. Looks at
    /// them only when enough have come together, so that its cost is bounded by theirs.
    pub(crate) fn sweep(&mut self, family: Family, kept: impl Fn(RouteId) -> bool) {
        let FamilyTable {
            keys,
            index,
            paths,
            free,
            dead,
            dead_looked_at,
            ..
        } = &mut self.families[slot(family)];
        if dead.len() <= 2 * *dead_looked_at {
            return;
        }
        let hasher = &self.hasher;
        dead.retain(|&id| {
            // It may have come back, or stand here twice.
            if !paths.is_empty(id) || !paths.is_numbered(id) {
                return false;
            }
            if kept(id) {
                return true;
            }
            let prefix = keys.get(id, paths.len_of(id));
            if let Ok(entry) = index.find_entry(hash_of(hasher, &prefix), |other| *other == id) {
                entry.remove();
            }
            paths.forget(id);
            free.push(id);
            false
        });
        dead.shrink_to(1024);
        *dead_looked_at = dead.len();
    }
}

fn candidate<'a>(path: &Path, interner: &'a Interner, ranks: &[PeerRank]) -> Candidate<'a> {
    Candidate {
        attributes: interner.get(path.attributes),
        peer: match Source::from(path.source) {
            Source::Local => None,
            Source::Peer(peer) => ranks.get(peer.0 as usize).copied(),
        },
        path_id: path.path_id,
        metric: interner
            .next_hop_state(path.attributes)
            .metric()
            .unwrap_or(u32::MAX),
        last_resort: path.flags.contains(Flags::LONG_LIVED),
        usable: !path.flags.contains(Flags::UNUSABLE),
    }
}

/// Our own path is in use alone or not at all.
fn learned(used: &[Path]) -> &[Path] {
    match used.first() {
        Some(best) if best.source == PathSource::LOCAL => &[],
        _ => used,
    }
}

fn compare(before: &[Path], after: &[Path]) -> Change {
    // Users see which paths are stale; whom we tell does not.
    let same = |(a, b): (&Path, &Path)| a.says(b) && a.flags == b.flags;
    let best = match (before.first(), after.first()) {
        (Some(before), Some(after)) => !before.says(after),
        (None, None) => false,
        _ => true,
    };
    let before = learned(before);
    let after = learned(after);
    let used = before.len() != after.len() || !before.iter().zip(after).all(same);
    Change {
        best,
        used,
        any: true,
    }
}

#[cfg(test)]
mod tests;
