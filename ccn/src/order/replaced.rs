//! A subnet that makes way for another that has its addresses too: the peers have the new one before the old
//! one is withdrawn, so that they always know a way.

use std::collections::BTreeSet;

use bgp::Prefix;

use super::backing::{Forwarding, subnet_of};
use super::{Announcement, Announcing, Order, Output, WithdrawalId};
use crate::record::LinkId;

/// What must be so before the peers are told of a withdrawal.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum Before {
    /// It can be told at once.
    #[default]
    Nothing,
    /// What these links announce instead is announced, if the plane can have it.
    Instead(BTreeSet<LinkId>),
    /// It is; the peers are waited for.
    Flush,
}

/// How far what is announced instead of a withdrawal has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instead {
    /// There is nothing.
    Nothing,
    /// It is announced.
    Announced,
    /// It will be, as far as is known.
    Soon,
}

impl Order {
    /// The next withdrawal that can be told to the peers, or what must be done before.
    pub(super) fn next_withdrawal(&mut self) -> Option<Output> {
        let ids: Vec<WithdrawalId> = self.to_withdraw.keys().copied().collect();
        for id in ids {
            let before = self.withdrawals.get(&id).map(|w| w.before.clone());
            match before.unwrap_or_default() {
                Before::Nothing => {}
                Before::Flush => continue,
                Before::Instead(links) => match self.instead_of(&id, &links) {
                    Instead::Nothing => {}
                    Instead::Soon => continue,
                    Instead::Announced => {
                        self.set_before(id, Before::Flush);
                        return Some(Output::Flush(id));
                    }
                },
            }
            let prefixes = self.to_withdraw.remove(&id).unwrap_or_default();
            if prefixes.is_empty() {
                // All of it is wanted again.
                self.release(id);
                continue;
            }
            return Some(Output::Withdraw(id, prefixes));
        }
        None
    }

    /// No withdrawal waits any longer for the plane, whose state is unknown.
    pub(super) fn wait_for_none(&mut self) {
        for withdrawal in self.withdrawals.values_mut() {
            if let Before::Instead(_) = withdrawal.before {
                withdrawal.before = Before::Nothing;
            }
        }
    }

    fn set_before(&mut self, id: WithdrawalId, before: Before) {
        if let Some(withdrawal) = self.withdrawals.get_mut(&id) {
            withdrawal.before = before;
        }
    }

    /// What these links announce, or will, that has addresses in common with the withdrawal.
    fn instead_of(&self, id: &WithdrawalId, links: &BTreeSet<LinkId>) -> Instead {
        let Some(leaving) = self.to_withdraw.get(id) else {
            return Instead::Nothing;
        };
        if self.announcing != Announcing::Everything {
            return Instead::Nothing;
        }
        let keys = links.iter().filter_map(|link| self.backing.of_link(link));
        let subnets: BTreeSet<Prefix> = keys
            .flatten()
            .filter_map(|(key, _)| subnet_of(key))
            .collect();
        let mut instead = Instead::Nothing;
        for subnet in subnets {
            if !leaving.iter().any(|old| old.overlaps(&subnet)) {
                continue;
            }
            match self.announcements.get(&subnet) {
                Some(Announcement::Waiting) if self.forwarding(&subnet) != Forwarding::Refused => {
                    return Instead::Soon;
                }
                Some(Announcement::Announced) => instead = Instead::Announced,
                _ => {}
            }
        }
        instead
    }
}
