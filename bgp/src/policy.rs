//! What may come in from a peer and what may go out to it, and what changes on the way.
//!
//! A policy is a list of rules per family; the first rule that matches a route decides, and what
//! none matches is denied (RFC 8212). Deciding and changing are two steps, because a decision is
//! needed for every route and the outcome of a change only once for all routes of equal
//! attributes: [`decide`](ImportPolicy::decide) names the changes by an [`ActionsId`], under which
//! the caller may keep what [`apply`](ImportPolicy::apply) made of those attributes.
//!
//! Nothing here knows peers, sessions or tables.

use serde::Deserialize;

mod action;
mod condition;
mod export;
mod first_match;
mod import;
mod list;
mod one_or_many;
mod pattern;
mod prefix_range;
mod rule;
mod written;

pub use action::{Actions, ListChange, MAX_PREPEND, MedChange, NextHopChoice, NextHops};
pub use condition::{Conditions, MedCondition, PathCondition};
pub use export::ExportPolicy;
pub use import::ImportPolicy;
pub use list::RuleList;
pub use pattern::{CommunityPattern, ExtendedPattern, LargePattern, PatternError};
pub use prefix_range::{PrefixRange, RangeError};
pub use rule::{Rule, Verdict};

/// Where a route comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provenance {
    /// The user of this speaker announces it.
    Local,
    /// A peer told it.
    Learned,
}

/// The name of what a policy does to a route that it permits. Only of use to the policy that gave
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ActionsId(u32);

impl ActionsId {
    /// Nothing is changed.
    pub const UNCHANGED: ActionsId = ActionsId(0);

    /// The number behind the name, for who packs it with others.
    pub(crate) const fn number(self) -> u32 {
        self.0
    }

    /// The name with this number, which came from the same policy.
    pub(crate) const fn from_number(number: u32) -> ActionsId {
        ActionsId(number)
    }
}

/// What a policy says about a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It does not pass.
    Deny,
    /// It passes, changed by these actions.
    Permit(ActionsId),
}

impl Decision {
    const UNCHANGED: Decision = Decision::Permit(ActionsId::UNCHANGED);

    /// A decision that changes nothing.
    const fn plain(permit: bool) -> Decision {
        match permit {
            true => Decision::UNCHANGED,
            false => Decision::Deny,
        }
    }

    /// Whether the route passes.
    pub fn permits(self) -> bool {
        self != Decision::Deny
    }
}

#[cfg(test)]
mod tests;
