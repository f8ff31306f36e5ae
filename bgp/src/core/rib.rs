//! The tables of a speaker: its routes, and the groups of peers that are told them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::Multipath;
use crate::policy::ActionsId;
use crate::rib::attributes::RouteAttributes;
use crate::rib::export::ExportContext;
use crate::rib::group::{Dispatch, Group, Place, Pressure};
use crate::rib::interner::{AttributesId, Interner};
use crate::rib::paths::{Path, PathSource};
use crate::rib::select::{PeerIndex, PeerRank, Source};
use crate::rib::table::{Changed, RouteId, Table};
use crate::wire::{Family, Nlri, Prefix};

/// The number of a group, as long as a peer is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupId(usize);

#[derive(Debug)]
pub(super) struct Rib {
    pub(super) table: Table,
    groups: Vec<Group>,
    /// Prefixes that changed and of which nobody was told yet.
    changed: Vec<Changed>,
    /// We are restarting, and not all that was announced before is announced again.
    pub(super) deferred: bool,
}

/// How many routes are found before the first of them is dealt with: what memory each needs is then
/// fetched side by side.
const LOOK_AHEAD: usize = 32;

impl Rib {
    pub(super) fn new(ranks: Vec<PeerRank>, multipath: Multipath, deferred: bool) -> Rib {
        Rib {
            table: Table::new(ranks, multipath),
            groups: Vec::new(),
            changed: Vec::new(),
            deferred,
        }
    }

    /// A path comes.
    pub(super) fn announce(&mut self, nlri: Nlri, source: Source, attributes: RouteAttributes) {
        let id = self.table.interner.intern(attributes);
        let changed = self.table.announce(nlri, source, id);
        self.table.interner.release(id);
        self.note(changed);
    }

    /// Paths of equal attributes come, and are changed as the policy wants; those that are not
    /// `accepted` replace what was there by nothing.
    pub(super) fn learn(
        &mut self,
        attributes: RouteAttributes,
        source: Source,
        routes: &[Nlri],
        change: impl Fn(ActionsId, &RouteAttributes) -> RouteAttributes,
        mut accepted: impl FnMut(&Nlri, &RouteAttributes, &Table) -> Option<ActionsId>,
    ) {
        let id = self.table.interner.intern(attributes);
        let attributes = self.table.attributes(id).clone();
        // What else comes of them, made once each.
        let mut made: Vec<(ActionsId, AttributesId)> = Vec::new();
        for nlri in routes {
            let Some(actions) = accepted(nlri, &attributes, &self.table) else {
                self.withdraw(*nlri, source);
                continue;
            };
            let known = made.iter().find(|(known, _)| *known == actions);
            let id = match known {
                _ if actions == ActionsId::UNCHANGED => id,
                Some((_, id)) => *id,
                None => {
                    let id = self.table.interner.intern(change(actions, &attributes));
                    made.push((actions, id));
                    id
                }
            };
            let changed = self.table.announce(*nlri, source, id);
            self.note(changed);
        }
        for id in made.into_iter().map(|(_, id)| id).chain([id]) {
            self.table.interner.release(id);
        }
    }

    /// Paths of a source go.
    pub(super) fn withdraw_each(&mut self, nlris: impl Iterator<Item = Nlri>, source: Source) {
        let mut nlris = nlris.peekable();
        let mut found = Vec::new();
        while nlris.peek().is_some() {
            let ahead = nlris.by_ref().take(LOOK_AHEAD);
            found.extend(ahead.filter_map(|nlri| Some((nlri, self.table.find(&nlri.prefix)?))));
            for (nlri, id) in found.drain(..) {
                let (family, path_id) = (nlri.prefix.family(), nlri.path_id);
                let gone = |path: &Path| path.path_id == path_id;
                if let Some(changed) = self.table.withdraw_path(family, id, source, gone) {
                    self.note(changed);
                }
            }
        }
    }

    /// A path goes.
    pub(super) fn withdraw(&mut self, nlri: Nlri, source: Source) {
        if let Some(changed) = self.table.withdraw(nlri, source) {
            self.note(changed);
        }
    }

    /// Those paths of a source to prefixes of a family go that `gone` names.
    pub(super) fn withdraw_where(
        &mut self,
        family: Family,
        source: Source,
        gone: impl Fn(&Path) -> bool,
    ) {
        for id in self.table.ids_from(family, source) {
            if let Some(changed) = self.table.withdraw_path(family, id, source, &gone) {
                self.note(changed);
            }
        }
    }

    /// Lets `act` change every path of a source to prefixes of a family, or say that it goes.
    pub(super) fn revise_of(
        &mut self,
        family: Family,
        source: Source,
        act: impl Fn(&mut Path, &mut Interner) -> bool,
    ) {
        let code = PathSource::from(source);
        for id in self.table.ids_from(family, source) {
            let changed = self.table.revise(family, id, |path, interner| {
                path.source != code || act(path, interner)
            });
            self.note(changed);
        }
    }

    /// When a prefix gets several next hops from now on.
    pub(super) fn set_multipath(&mut self, multipath: Multipath) {
        if self.table.multipath() == multipath {
            return;
        }
        self.table.set_multipath(multipath);
        for family in Family::ALL {
            let several = |id: &RouteId| self.table.all(family, *id).len() > 1;
            for id in self.table.ids(family).filter(several).collect::<Vec<_>>() {
                let changed = self.table.revise(family, id, |_, _| true);
                self.note(changed);
            }
        }
    }

    /// These next hops can be reached, or cannot, or at another cost.
    pub(super) fn next_hops_changed(&mut self, hops: &[IpAddr]) {
        for changed in self.table.next_hops_changed(hops) {
            self.note(changed);
        }
    }

    pub(super) fn note(&mut self, changed: Changed) {
        if changed.change.any {
            self.changed.push(changed);
        }
    }

    /// Passes what has changed on to the groups; `used` hears of prefixes whose learned paths in
    /// use are others.
    pub(super) fn tell(&mut self, mut used: impl FnMut(Prefix)) {
        for Changed { family, id, change } in self.changed.drain(..) {
            if change.used {
                used(self.table.prefix(family, id));
            }
            if !self.deferred {
                for group in &mut self.groups {
                    group.changed(family, id, change.best);
                }
            }
        }
        for family in Family::ALL {
            let groups = &self.groups;
            self.table.sweep(family, |id| {
                groups.iter().any(|group| group.keeps(family, id))
            });
        }
    }

    /// Takes a peer into the group with these terms.
    pub(super) fn join(&mut self, peer: PeerIndex, context: ExportContext) -> GroupId {
        let group = self.find(context);
        self.groups[group.0].join(peer, &self.table, !self.deferred);
        group
    }

    /// The group with these terms; a new one if there is none.
    fn find(&mut self, context: ExportContext) -> GroupId {
        let fits = |group: &Group| group.takes(&context);
        let free = || self.groups.iter().position(Group::is_empty);
        let index = match self.groups.iter().position(fits) {
            Some(index) => index,
            None => match free() {
                Some(index) => {
                    self.groups[index] = Group::new(context);
                    index
                }
                None => {
                    self.groups.push(Group::new(context));
                    self.groups.len() - 1
                }
            },
        };
        GroupId(index)
    }

    /// The peer is told nothing any more.
    pub(super) fn leave(&mut self, group: GroupId, peer: PeerIndex) {
        self.groups[group.0].leave(peer, &mut self.table);
    }

    /// Puts a peer on other terms. It knows what it was told on the old ones, and is told the
    /// difference.
    pub(super) fn regroup(
        &mut self,
        old: GroupId,
        peer: PeerIndex,
        context: ExportContext,
    ) -> GroupId {
        if *self.groups[old.0].context() == context {
            return old;
        }
        let known = self.groups[old.0].give_up(peer, &mut self.table);
        let new = self.find(context);
        let complete = !self.deferred;
        self.groups[new.0].adopt(peer, known, &mut self.table, complete);
        new
    }

    pub(super) fn group(&self, group: GroupId) -> &Group {
        &self.groups[group.0]
    }

    /// Tells the peer a family again (RFC 2918).
    pub(super) fn refresh(
        &mut self,
        group: GroupId,
        peer: PeerIndex,
        family: Family,
        enhanced: bool,
    ) {
        self.groups[group.0].refresh(peer, family, enhanced);
    }

    /// All that was announced before a restart is announced again.
    pub(super) fn complete(&mut self) {
        if std::mem::take(&mut self.deferred) {
            for group in &mut self.groups {
                group.complete(&self.table);
            }
        }
    }

    /// Makes messages for peers that have room.
    pub(super) fn write(
        &mut self,
        pressure: impl Fn(PeerIndex) -> Pressure,
        out: &mut Vec<Dispatch>,
    ) {
        // A round may find that nothing is to be told after all.
        let mut worked = !self.deferred;
        while worked && out.is_empty() {
            worked = false;
            for group in &mut self.groups {
                worked |= group.write(&mut self.table, &pressure, out);
            }
        }
    }

    /// Behind everything that the group has to be told now.
    pub(super) fn place(&self, group: GroupId) -> Place {
        self.groups[group.0].place()
    }

    /// Whether the peer has been handed everything before the place.
    pub(super) fn has_reached(&self, group: GroupId, peer: PeerIndex, place: &mut Place) -> bool {
        !self.deferred && self.groups[group.0].has_reached(peer, place)
    }

    /// What the peer has been told.
    pub(super) fn told_to(
        &self,
        group: GroupId,
        peer: PeerIndex,
    ) -> BTreeMap<Prefix, Arc<RouteAttributes>> {
        self.groups[group.0].told_to(peer, &self.table)
    }
}
