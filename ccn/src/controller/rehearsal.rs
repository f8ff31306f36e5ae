//! What a change of records would come to, asked of the same planner that would carry it out.
//!
//! It changes nothing: the inventory takes the change in, is looked at, and gives it back.

use std::collections::BTreeMap;

use bgp::Prefix;

use super::Controller;
use crate::api::error::ApiError;
use crate::inventory::StandsBy;
use crate::plan::Entries;
use crate::plane::entry::EntryKey;
use crate::record::{LinkId, RecordKey};
use crate::store::Change;

/// What would differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rehearsal {
    /// Prefixes wanted by other links than before, and whether they are announced already.
    pub(super) announce: BTreeMap<Prefix, bool>,
    /// Prefixes that no link would want any more.
    pub(super) withdraw: Vec<Prefix>,
    /// Permits that are new or have another value.
    pub(super) permits: Entries,
    /// How many permits would go.
    pub(super) removals: usize,
    /// Why a link that changes would stand by.
    pub(super) stands_by: Option<StandsBy>,
    /// Standbys that are served now and would make way.
    pub(super) displaced: Vec<LinkId>,
}

impl Controller {
    /// Works changes in and takes them back.
    pub(super) fn rehearse(&mut self, changes: &[Change]) -> Result<Rehearsal, ApiError> {
        self.check(changes)?;
        let (planner, order, generation) = (&self.planner, &self.order, self.generation);
        let rehearsed = self.inventory.rehearse(changes, |inventory, effects| {
            let delta = planner.update(inventory, effects, generation);
            let is_permit = |key: &EntryKey| matches!(key, EntryKey::Permit { .. });
            let (gone, wanted): (Vec<_>, Vec<_>) = delta
                .announcements
                .into_iter()
                .partition(|(_, links)| links.is_empty());
            let wanted = wanted.into_iter().map(|(prefix, _)| prefix);
            let upserts = delta.upserts.into_iter();
            Rehearsal {
                announce: wanted
                    .map(|prefix| (prefix, order.is_announced(&prefix)))
                    .collect(),
                withdraw: gone.into_iter().map(|(prefix, _)| prefix).collect(),
                permits: upserts.filter(|(key, _)| is_permit(key)).collect(),
                removals: delta.removals.keys().filter(|key| is_permit(key)).count(),
                stands_by: changes
                    .iter()
                    .find_map(|change| match change.key().parse() {
                        Ok(RecordKey::Link(id)) => inventory.stands_by(&id).cloned(),
                        _ => None,
                    }),
                displaced: effects
                    .links
                    .iter()
                    .filter(|(id, before)| before.is_some() && inventory.stands_by(id).is_some())
                    .map(|(id, _)| id.clone())
                    .collect(),
            }
        });
        rehearsed.map_err(|errors| ApiError::refused(&errors))
    }
}
