//! How far everything has come. Nothing is changed by asking.

use bgp::Prefix;

use super::backing::{LinkPhase, Phase, subnet_of};
use super::{Announcement, Announcing, InFlight, Order};
use crate::plane::entry::{EntryKey, EntryValue};
use crate::record::LinkId;

impl Order {
    /// Entries that are no longer planned and must stay in the plane all the same.
    pub fn held(&self) -> impl Iterator<Item = (&EntryKey, &EntryValue)> {
        let endpoints = self.held_endpoints.iter();
        let endpoints = endpoints.map(|(key, (value, _))| (key, value));
        self.backing.held().chain(endpoints)
    }

    /// The generation that the plane has acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether the outstanding output is a resync.
    #[must_use]
    pub fn is_resyncing(&self) -> bool {
        matches!(self.in_flight, InFlight::Everything)
    }

    /// Prefixes given to the speaker and not withdrawn since.
    pub fn announced(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.announcements
            .iter()
            .filter(|(_, state)| **state == Announcement::Announced)
            .map(|(prefix, _)| *prefix)
    }

    /// Whether this prefix is given to the speaker.
    #[must_use]
    pub fn is_announced(&self, prefix: &Prefix) -> bool {
        self.announcements.get(prefix) == Some(&Announcement::Announced)
    }

    /// The links that want this prefix announced.
    pub fn links_of(&self, prefix: &Prefix) -> impl Iterator<Item = &LinkId> {
        self.wanted.get(prefix).into_iter().flatten()
    }

    /// Every link of which something is left, with its permits, also when its record is gone.
    pub fn permits(
        &self,
    ) -> impl Iterator<Item = (&LinkId, impl Iterator<Item = (&EntryKey, &EntryValue)>)> {
        self.backing.permits()
    }

    /// How far a link has come; `None` when nothing of it is left.
    #[must_use]
    pub fn link(&self, link: &LinkId) -> Option<LinkPhase> {
        let mut announced = true;
        let mut removing = true;
        let mut pending = false;
        for (key, phase) in self.backing.of_link(link)? {
            match phase {
                Phase::Failed(reason) => return Some(LinkPhase::Failed(reason.clone())),
                Phase::Held(_) | Phase::Removing => continue,
                Phase::Wanted => pending = true,
                Phase::Applied => {}
            }
            removing = false;
            let Some(subnet) = subnet_of(key) else {
                continue;
            };
            announced &= self.announcements.get(&subnet) == Some(&Announcement::Announced);
            if let Some(Phase::Failed(reason)) = self.backing.source_phase(key) {
                return Some(LinkPhase::Failed(reason.clone()));
            }
        }
        Some(match (removing, pending, announced) {
            (true, ..) => LinkPhase::Removing,
            (_, true, _) => LinkPhase::Pending,
            (_, _, true) => LinkPhase::Announced,
            _ if self.announcing != Announcing::Everything => LinkPhase::Drained,
            _ => LinkPhase::Programmed,
        })
    }

    /// Whether nothing is on its way: every plan is in the plane, announced or drained.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self.in_flight, InFlight::None)
            && self.pending.is_empty()
            && self.resync_at.is_none()
            && self.withdrawals.is_empty()
            && self.suspects.is_empty()
            && self.acknowledged >= self.planned
    }
}
