//! Who waits for what becomes of a link.

use tokio::sync::oneshot;

use crate::api::error::{ApiError, ErrorCode};
use crate::inventory::Inventory;
use crate::order::{LinkPhase, Order};
use crate::record::LinkId;

/// What a caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    Announced,
    Gone,
}

struct Waiter {
    link: LinkId,
    goal: Goal,
    reply: oneshot::Sender<Result<(), ApiError>>,
}

/// All who wait.
#[derive(Default)]
pub(super) struct Waiters(Vec<Waiter>);

impl Waiters {
    /// One more, who is answered when it is so, or cannot be.
    pub(super) fn push(
        &mut self,
        link: LinkId,
        goal: Goal,
        reply: oneshot::Sender<Result<(), ApiError>>,
    ) {
        self.0.push(Waiter { link, goal, reply });
    }

    /// Answers those whose time has come, and forgets those who wait no more.
    pub(super) fn answer(&mut self, order: &Order, inventory: &Inventory) {
        let mut index = 0;
        while index < self.0.len() {
            let waiter = &self.0[index];
            let phase = order.link(&waiter.link);
            let answer = match (waiter.goal, phase) {
                // Of a gateway that is drained there is nothing more to be had.
                (Goal::Announced, Some(LinkPhase::Announced | LinkPhase::Drained))
                | (Goal::Gone, None) => Ok(()),
                (Goal::Announced, Some(LinkPhase::Failed(reason))) => {
                    Err(ApiError::new(ErrorCode::PlaneRefused, reason))
                }
                // A VPC without subnets has nothing to announce, and neither has a standby for now.
                (Goal::Announced, None)
                    if inventory.link(&waiter.link).is_some()
                        || inventory.stands_by(&waiter.link).is_some() =>
                {
                    Ok(())
                }
                (Goal::Announced, None) => Err(ApiError::new(
                    ErrorCode::NotFound,
                    format!("the link {} was removed meanwhile", waiter.link),
                )),
                _ if waiter.reply.is_closed() => Ok(()),
                _ => {
                    index += 1;
                    continue;
                }
            };
            let waiter = self.0.swap_remove(index);
            let _ = waiter.reply.send(answer);
        }
    }
}
