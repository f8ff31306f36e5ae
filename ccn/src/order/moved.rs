//! Which links may have come further, or fallen back: kept only when somebody wants to know.

use std::collections::BTreeSet;

use bgp::Prefix;

use super::backing::Backing;
use crate::plane::entry::EntryKey;
use crate::record::LinkId;

/// What has moved since somebody asked; nothing is kept until somebody follows it.
#[derive(Debug, Default)]
pub(super) struct Moved(Option<Since>);

#[derive(Debug, Default)]
struct Since {
    subnets: BTreeSet<Prefix>,
    /// Links of which an entry has gone.
    left: BTreeSet<LinkId>,
}

impl Moved {
    /// Keeps it from now on.
    pub(super) fn follow(&mut self) {
        self.0.get_or_insert_default();
    }

    /// Something of these subnets has.
    pub(super) fn subnets(&mut self, subnets: impl IntoIterator<Item = Prefix>) {
        if let Some(since) = &mut self.0 {
            since.subnets.extend(subnets);
        }
    }

    /// An entry is gone from the plane.
    pub(super) fn gone(&mut self, key: &EntryKey) {
        if let (Some(since), EntryKey::Permit { link, .. }) = (&mut self.0, key) {
            since.left.insert(link.clone());
        }
    }

    /// The links, of what backs announcements now and of what is gone.
    pub(super) fn take(&mut self, backing: &Backing) -> BTreeSet<LinkId> {
        let Some(since) = &mut self.0 else {
            return BTreeSet::new();
        };
        let Since { subnets, mut left } = std::mem::take(since);
        for subnet in subnets {
            let permits = backing.of_subnet(&subnet);
            left.extend(permits.filter_map(|(key, _)| match key {
                EntryKey::Permit { link, .. } => Some(link.clone()),
                _ => None,
            }));
        }
        left
    }
}
