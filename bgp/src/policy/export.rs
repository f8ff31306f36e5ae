//! Which routes a peer is told.

use serde::de::{Deserialize, Deserializer};

use super::written::{self, Direction};
use super::{ActionsId, Decision, NextHops, Provenance, Rule, RuleList};
use crate::rib::attributes::RouteAttributes;
use crate::wire::{NextHop, Prefix};

/// Which routes a peer is told, and how changed. In TOML: `"none"`, `"local"`, `"all"`,
/// `{ local = [RULES] }`, `{ all = [RULES] }`, or one of these per family:
/// `{ ipv4 = "local", ipv6 = { local = [RULES] } }`.
///
/// "Local" routes are those announced by this speaker's user; only `all` also passes on what was
/// learned from other peers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum ExportPolicy {
    /// No route at all: what applies without a policy (RFC 8212).
    #[default]
    None,
    /// Every local route.
    Local,
    /// Every best route, local or learned.
    All,
    /// The best routes that the rules permit.
    List(RuleList),
}

impl ExportPolicy {
    /// What the policy says about a route, before anything is changed for the peer.
    pub fn decide(
        &self,
        prefix: &Prefix,
        attributes: &RouteAttributes,
        from: Provenance,
    ) -> Decision {
        match self {
            ExportPolicy::None => Decision::Deny,
            ExportPolicy::Local => Decision::plain(from == Provenance::Local),
            ExportPolicy::All => Decision::UNCHANGED,
            ExportPolicy::List(list) => list.decide(prefix, attributes, from),
        }
    }

    /// Whether a route that was learned from a peer could be told to another.
    pub fn passes_on(&self) -> bool {
        match self {
            ExportPolicy::None | ExportPolicy::Local => false,
            ExportPolicy::All => true,
            ExportPolicy::List(list) => list.permits_learned(),
        }
    }

    /// The next hop that the peer is told; `None`: there is none, the route cannot be told.
    pub fn next_hop(&self, id: ActionsId, hops: &NextHops) -> Option<NextHop> {
        match self {
            ExportPolicy::List(list) => list.next_hop(id, hops),
            _ => hops.usual,
        }
    }

    /// The attributes that the peer is told, after the actions of the decision; `attributes` are
    /// what it would be told without, with their next hop already chosen. `asn` is our AS number.
    pub fn apply(&self, id: ActionsId, attributes: RouteAttributes, asn: u32) -> RouteAttributes {
        match self {
            ExportPolicy::List(list) => list.apply(id, attributes, Some(asn)),
            _ => attributes,
        }
    }
}

/// Rules about all best routes, local or learned; each may ask for one of them.
impl FromIterator<Rule> for ExportPolicy {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        ExportPolicy::List(rules.into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for ExportPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let policy = written::policy(deserializer, Direction::Export)?;
        Ok(if policy.is_none() {
            ExportPolicy::None
        } else if policy.is_local() {
            ExportPolicy::Local
        } else if policy.is_all() {
            ExportPolicy::All
        } else {
            ExportPolicy::List(policy.into_rules())
        })
    }
}
