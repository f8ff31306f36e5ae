//! What is said of an order that is only rehearsed: by a gateway of itself, by an API server of each gateway.

use std::collections::BTreeMap;

use bgp::{Family, PeerName, Prefix};
use serde::{Deserialize, Serialize};

use super::{LinkView, Said};
use crate::record::{GatewayName, LinkId};

/// What an order for a link would come to.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct LinkPlan {
    /// The link as it would be; its state is `planned`.
    #[serde(flatten)]
    pub link: LinkView,
    /// What would change.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Standbys that would make way for it.
    pub displaced: Vec<LinkId>,
    /// What would change at each live gateway of the group, as its plane and its sessions are now. A gateway speaks
    /// for itself alone and leaves it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Vec<PlannedAt>>,
}

/// What an order would change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Outcome {
    /// Prefixes to be announced for it.
    pub announce: Vec<PlannedRoute>,
    /// Prefixes that no link would want announced any more.
    pub withdraw: Vec<Prefix>,
    /// Forwarding entries that are new or change: pairs of a subnet and a classic prefix.
    pub permits: usize,
    /// Forwarding entries that go.
    pub permits_removed: usize,
    /// Objects of the kernel there would be more, by kind.
    pub kernel: BTreeMap<String, u64>,
    /// How full the plane is and would be.
    pub limits: Vec<LimitChange>,
}

/// A prefix to be announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PlannedRoute {
    /// Its family.
    pub family: Family,
    /// The prefix.
    pub prefix: Prefix,
    /// It is announced already, for another link.
    pub announced: bool,
    /// Peers whose session is up and carries the family. What their policies let through is not asked.
    pub peers: Vec<PeerName>,
}

/// A limit before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LimitChange {
    /// What is limited, as in `ccn limits`.
    pub name: String,
    /// In use now.
    pub before: u64,
    /// In use then.
    pub after: u64,
    /// The most there may be.
    pub max: u64,
}

/// What a gateway says of an order, or why it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct PlannedAt {
    /// The gateway.
    pub gateway: GatewayName,
    /// What would change there.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

impl PlannedAt {
    /// What a gateway said, read; or that it said nothing.
    #[must_use]
    pub fn read(gateway: GatewayName, answer: Option<&[u8]>, waited_ms: u128) -> PlannedAt {
        let said = match answer.map(serde_json::from_slice::<Said>) {
            Some(Ok(said)) => said,
            Some(Err(error)) => Said::Unknown(format!("its answer cannot be read: {error}")),
            None => Said::Unknown(format!("no answer within {waited_ms} ms")),
        };
        let (outcome, unknown) = match said {
            Said::Outcome(outcome) => (Some(outcome), None),
            Said::Unknown(why) => (None, Some(why)),
            Said::Answer { .. } => (None, Some("it answered something else".to_owned())),
        };
        PlannedAt {
            gateway,
            outcome,
            unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_meant_and_garbage_is_named() {
        let outcome = Outcome {
            permits: 1,
            kernel: [("rules".to_owned(), 2)].into(),
            ..Outcome::default()
        };
        let told = |said: &Said| serde_json::to_vec(said).unwrap();
        for (answer, expected) in [
            (Some(told(&Said::Outcome(outcome.clone()))), Ok(outcome)),
            (
                Some(told(&Said::Unknown("stopping".to_owned()))),
                Err("stopping"),
            ),
            (
                Some(b"{\"outcome\":7}".to_vec()),
                Err("its answer cannot be read"),
            ),
            (None, Err("no answer within 5 ms")),
        ] {
            let read = PlannedAt::read("gw".parse().unwrap(), answer.as_deref(), 5);
            match expected {
                Ok(outcome) => assert_eq!((read.outcome, read.unknown), (Some(outcome), None)),
                Err(why) => {
                    let unknown = read.unknown.unwrap();
                    assert!(unknown.contains(why), "{unknown}");
                    assert_eq!(read.outcome, None);
                }
            }
        }
    }
}
