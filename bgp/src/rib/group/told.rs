//! What the members of a group were told: which attributes, not in which words; and the words.
//!
//! Decides nothing. It holds the attributes that it names, so that their numbers stay theirs.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::policy::ActionsId;
use crate::rib::attributes::RouteAttributes;
use crate::rib::chunked::Chunked;
use crate::rib::export::ExportContext;
use crate::rib::interner::{AttributesId, Interner};
use crate::rib::paths::PathSource;
use crate::rib::select::Source;
use crate::rib::table::{RouteId, Table};
use crate::wire::Family;

/// What was told of a prefix: nothing if there are no attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Told {
    pub(super) attributes: Option<AttributesId>,
    pub(super) source: PathSource,
    /// What the policy changes.
    pub(super) actions: ActionsId,
}

/// What was told, by the number of the prefix.
#[derive(Debug, Default)]
pub(super) struct ToldTable {
    entries: Chunked<Told>,
    count: usize,
    /// By source: ours, then the peers in the order of their numbers.
    by_source: Vec<usize>,
}

impl ToldTable {
    pub(super) fn get(&self, id: RouteId) -> Told {
        self.entries.get(id)
    }

    pub(super) fn set(&mut self, id: RouteId, told: Told, interner: &mut Interner) {
        let before = self.entries.get(id);
        if before == told {
            return;
        }
        *self.entries.at(id) = told;
        if let Some(attributes) = told.attributes {
            interner.hold(attributes);
            self.count += 1;
            *self.of(told.source) += 1;
        }
        if let Some(attributes) = before.attributes {
            interner.release(attributes);
            self.count -= 1;
            *self.of(before.source) -= 1;
        }
    }

    /// How many prefixes were told.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many of them are of this source.
    pub(super) fn count_of(&self, source: Source) -> usize {
        let counts = &self.by_source;
        counts.get(place_of(source)).copied().unwrap_or(0)
    }

    fn of(&mut self, source: PathSource) -> &mut usize {
        let index = place_of(source.into());
        if index >= self.by_source.len() {
            self.by_source.resize(index + 1, 0);
        }
        &mut self.by_source[index]
    }

    pub(super) fn known(&self) -> impl Iterator<Item = (RouteId, Told)> {
        let entries = self.entries.iter().map(|(id, told)| (id, *told));
        entries.filter(|(_, told)| told.attributes.is_some())
    }

    /// Numbers of all prefixes told, those with equal attributes together: so they pack best.
    pub(super) fn by_attributes(&self) -> Vec<RouteId> {
        let known = self
            .known()
            .filter_map(|(id, told)| Some((told.attributes?.get(), id)));
        sorted_by_attributes(known)
    }
}

/// The place of a source among the counts: ours in front.
fn place_of(source: Source) -> usize {
    match source {
        Source::Local => 0,
        Source::Peer(peer) => peer.0 as usize + 1,
    }
}

/// Numbers of prefixes, those with equal numbers of attributes together.
pub(super) fn sorted_by_attributes(known: impl Iterator<Item = (u32, RouteId)>) -> Vec<RouteId> {
    let mut keys: Vec<u64> = known
        .map(|(attributes, id)| u64::from(attributes) << 32 | u64::from(id))
        .collect();
    keys.sort_unstable();
    keys.into_iter().map(|key| key as RouteId).collect()
}

/// The words in which something was told; `None` for nothing.
pub(super) fn words(
    context: &ExportContext,
    family: Family,
    told: Told,
    table: &Table,
) -> Option<RouteAttributes> {
    let known = table.attributes(told.attributes?);
    Some(context.reword(family, known, told.source.into(), told.actions))
}

/// The words of a whole table, made once where they are the same.
#[derive(Debug)]
pub(super) struct Words<'a> {
    context: &'a ExportContext,
    family: Family,
    table: &'a Table,
    made: HashMap<Told, Arc<RouteAttributes>>,
}

impl<'a> Words<'a> {
    pub(super) fn new(context: &'a ExportContext, family: Family, table: &'a Table) -> Words<'a> {
        Words {
            context,
            family,
            table,
            made: HashMap::new(),
        }
    }

    pub(super) fn of(&mut self, told: Told) -> Option<&Arc<RouteAttributes>> {
        Some(match self.made.entry(told) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => {
                let words = words(self.context, self.family, told, self.table)?;
                place.insert(Arc::new(words))
            }
        })
    }
}
