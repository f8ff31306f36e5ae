//! How many routes a peer may tell us, and what happens beyond.

use std::time::Duration;

use super::seconds::maybe_seconds;
use crate::wire::Family;

/// Limits per family; absent: none.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaxPrefixes {
    /// Of IPv4 routes.
    pub ipv4: Option<PrefixLimit>,
    /// Of IPv6 routes.
    pub ipv6: Option<PrefixLimit>,
}

impl MaxPrefixes {
    /// The limit of a family.
    pub fn of(&self, family: Family) -> Option<&PrefixLimit> {
        match family {
            Family::Ipv4Unicast => self.ipv4.as_ref(),
            Family::Ipv6Unicast => self.ipv6.as_ref(),
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        for (name, limit) in [("ipv4", &self.ipv4), ("ipv6", &self.ipv6)] {
            let Some(limit) = limit else { continue };
            if limit.limit == 0 {
                return Err(format!(
                    "max_prefixes.{name}.limit must not be 0: leave the family out of families"
                ));
            }
            if !(1..=100).contains(&limit.warning) {
                return Err(format!(
                    "max_prefixes.{name}.warning is a percentage of the limit, 1 to 100"
                ));
            }
            if limit.action == LimitAction::Refuse && limit.restart.is_some() {
                return Err(format!(
                    "max_prefixes.{name}.restart_s is for action = \"teardown\""
                ));
            }
        }
        Ok(())
    }
}

/// The limit of one family.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixLimit {
    /// Most routes that are accepted.
    pub limit: usize,
    /// At how many percent of it to warn, 1 to 100.
    #[serde(default = "default_warning")]
    pub warning: u8,
    /// What to do with the route that is one too many.
    #[serde(default)]
    pub action: LimitAction,
    /// After a teardown, when to try again; absent: not before the operator says so. In TOML:
    /// seconds.
    #[serde(default, rename = "restart_s", deserialize_with = "maybe_seconds")]
    pub restart: Option<Duration>,
}

fn default_warning() -> u8 {
    80
}

impl PrefixLimit {
    /// The number of routes from which on it warns.
    pub fn warns_at(&self) -> usize {
        (self.limit.saturating_mul(usize::from(self.warning)) / 100).max(1)
    }
}

/// What to do with a route beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitAction {
    /// Refuse it; what is there stays, and so does the session.
    #[default]
    Refuse,
    /// End the session with Cease, Maximum Number of Prefixes Reached (RFC 4486).
    Teardown,
}
