//! Which routes of a peer are taken.

use serde::de::{Deserialize, Deserializer};

use super::written::{self, Direction};
use super::{ActionsId, Decision, NextHops, Provenance, Rule, RuleList};
use crate::rib::attributes::RouteAttributes;
use crate::wire::Prefix;

/// Which routes of a peer are taken, and how changed. In TOML: `"none"`, `"all"`, a list of rules,
/// or one of these per family: `{ ipv4 = [RULES], ipv6 = "none" }`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum ImportPolicy {
    /// No route at all: what applies without a policy (RFC 8212).
    #[default]
    None,
    /// Every route.
    All,
    /// The routes that the rules permit.
    List(RuleList),
}

impl ImportPolicy {
    /// What the policy says about a route.
    pub fn decide(&self, prefix: &Prefix, attributes: &RouteAttributes) -> Decision {
        match self {
            ImportPolicy::None => Decision::Deny,
            ImportPolicy::All => Decision::UNCHANGED,
            ImportPolicy::List(list) => list.decide(prefix, attributes, Provenance::Learned),
        }
    }

    /// Whether a route may be taken otherwise than as it was told.
    pub(crate) fn changes_routes(&self) -> bool {
        match self {
            ImportPolicy::None | ImportPolicy::All => false,
            ImportPolicy::List(list) => list.changes_routes(),
        }
    }

    /// The attributes of a route that is taken, after the actions of the decision.
    pub fn apply(&self, id: ActionsId, attributes: &RouteAttributes) -> RouteAttributes {
        let ImportPolicy::List(list) = self else {
            return attributes.clone();
        };
        // A loop of our own AS would come of prepending that: repeat the one that is there.
        let neighbour = attributes.as_path.first();
        let hops = NextHops {
            usual: Some(attributes.next_hop),
            own: None,
            received: Some(attributes.next_hop),
        };
        let next_hop = list.next_hop(id, &hops).unwrap_or(attributes.next_hop);
        let changed = list.apply(id, attributes.clone(), neighbour);
        RouteAttributes {
            next_hop,
            ..changed
        }
    }
}

impl FromIterator<Rule> for ImportPolicy {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        ImportPolicy::List(rules.into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for ImportPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let policy = written::policy(deserializer, Direction::Import)?;
        Ok(if policy.is_none() {
            ImportPolicy::None
        } else if policy.is_all() {
            ImportPolicy::All
        } else {
            ImportPolicy::List(policy.into_rules())
        })
    }
}
