//! What a change of records would come to, asked of the same planner that would carry it out.
//!
//! It changes nothing: the inventory takes the change in, is looked at, and gives it back.

use super::Controller;
use crate::api::error::ApiError;
use crate::plan::Rehearsal;
use crate::store::Change;

impl Controller {
    /// Works changes in and takes them back.
    pub(super) fn rehearse(&mut self, changes: &[Change]) -> Result<Rehearsal, ApiError> {
        let (planner, order) = (&self.planner, &self.order);
        let generation = self.ledger.generation();
        self.ledger.rehearse(changes, |inventory, effects| {
            let delta = planner.update(inventory, effects, generation);
            Rehearsal::of(changes, inventory, effects, delta, |prefix| {
                order.is_announced(prefix)
            })
        })
    }
}
