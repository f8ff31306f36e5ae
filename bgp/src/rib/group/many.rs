//! Several paths a prefix, each under an identifier of ours (RFC 7911), for a group of one.

use std::collections::HashMap;

use super::{Batch, Dispatch, Group, Judge, Key, Told, WINDOW};
use crate::rib::interner::Interner;
use crate::rib::paths::Flags;
use crate::rib::select::Source;
use crate::rib::table::{RouteId, Table, slot};
use crate::wire::{Family, Nlri};

/// What was told of each prefix: path identifiers and what they stand for.
#[derive(Debug, Default)]
pub(super) struct ToldPaths {
    entries: HashMap<RouteId, Vec<(u32, Told)>>,
    count: usize,
}

impl ToldPaths {
    pub(super) fn contains(&self, id: RouteId) -> bool {
        self.entries.contains_key(&id)
    }

    /// In order of number, so that one seed stays one run.
    pub(super) fn ids(&self) -> Vec<RouteId> {
        let mut ids: Vec<_> = self.entries.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn known(&self) -> impl Iterator<Item = (RouteId, Told)> {
        let entries = self.entries.iter();
        entries.flat_map(|(id, paths)| paths.iter().map(|(_, told)| (*id, *told)))
    }

    fn set(&mut self, id: RouteId, paths: Vec<(u32, Told)>, interner: &mut Interner) {
        for told in paths.iter().filter_map(|(_, told)| told.attributes) {
            interner.hold(told);
        }
        self.count += paths.len();
        let before = match paths.is_empty() {
            true => self.entries.remove(&id),
            false => self.entries.insert(id, paths),
        };
        let before = before.unwrap_or_default();
        self.count -= before.len();
        for told in before.iter().filter_map(|(_, told)| told.attributes) {
            interner.release(told);
        }
    }

    pub(super) fn clear(&mut self, interner: &mut Interner) {
        for id in self.ids() {
            self.set(id, Vec::new(), interner);
        }
    }
}

impl Group {
    /// Tells the only member about changes, all usable paths of each prefix.
    pub(super) fn write_paths(
        &mut self,
        family: Family,
        table: &mut Table,
        out: &mut Vec<Dispatch>,
    ) {
        let [member] = self.members.as_slice() else {
            return;
        };
        let peer = member.peer;
        let mut batch = Batch::new(family);
        let mut judge = Judge::default();
        for _ in 0..WINDOW {
            let Some((id, again)) = self.queue[slot(family)].pop() else {
                break;
            };
            let prefix = table.prefix(family, id);
            let nlri = |path_id| Nlri { prefix, path_id };
            let paths = table.all(family, id);
            let usable = paths.iter().filter(|path| {
                !path.flags.contains(Flags::UNUSABLE)
                    && Source::from(path.source) != Source::Peer(peer)
            });
            let wanted: Vec<(u32, Told)> = usable
                .map(|path| {
                    (
                        path.tx_id,
                        judge.path(&self.context, family, &prefix, path, table),
                    )
                })
                .filter(|(_, told)| told.attributes.is_some())
                .collect();
            let none = Vec::new();
            let before = self.many[slot(family)].entries.get(&id).unwrap_or(&none);
            for (path_id, _) in before {
                if !wanted.iter().any(|(wanted, _)| wanted == path_id) {
                    batch.withdraw(nlri(*path_id), None);
                }
            }
            for (path_id, told) in &wanted {
                if let Some(attributes) = told.attributes
                    && (again || !before.contains(&(*path_id, *told)))
                {
                    batch.announce(Key::new(attributes, *told), nlri(*path_id), id);
                }
            }
            self.many[slot(family)].set(id, wanted, &mut table.interner);
        }
        let failed = batch.write(&self.context, &table.interner, |_| None);
        self.oversized += failed.len();
        for (nlri, id) in failed {
            let told = self.many[slot(family)].entries.get(&id);
            let mut told = told.cloned().unwrap_or_default();
            told.retain(|(path_id, _)| *path_id != nlri.path_id);
            self.many[slot(family)].set(id, told, &mut table.interner);
        }
        batch.dispatch(peer, &self.context.options, out);
    }
}
