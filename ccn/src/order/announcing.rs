//! How much may be announced of what is ready: all of it, or nothing while a gateway is drained.

use std::collections::BTreeSet;

use bgp::Prefix;

use super::replaced::Before;
use super::{Announcement, Order};

/// How much may be announced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Announcing {
    /// Whatever is verified.
    #[default]
    Everything,
    /// What is announced already.
    NothingNew,
    /// Nothing. What is not announced for this reason stays planned, and so in the plane.
    Nothing,
}

impl Order {
    /// How much may be announced from now on; how many prefixes are announced so far.
    pub fn set_announcing(&mut self, announcing: Announcing) -> usize {
        self.announcing = announcing;
        let announced: BTreeSet<Prefix> = self.announced().collect();
        let count = announced.len();
        match announcing {
            Announcing::Everything => {
                for (prefix, state) in &mut self.announcements {
                    // Its withdrawal is void, as for one that is linked again.
                    if matches!(state, Announcement::Withdrawing(_))
                        && self.wanted.contains_key(prefix)
                    {
                        *state = Announcement::Waiting;
                    }
                    self.suspects.insert(*prefix);
                }
            }
            Announcing::Nothing if count > 0 => {
                self.begin_withdrawal(announced, Before::Nothing);
            }
            Announcing::Nothing | Announcing::NothingNew => {}
        }
        count
    }
}
