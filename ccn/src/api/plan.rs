//! What the admin socket says of an order that is only rehearsed.

use std::collections::BTreeMap;

use bgp::{Family, PeerName, Prefix};
use serde::Serialize;

use super::LinkView;
use crate::record::LinkId;

/// What an order for a link would come to.
#[derive(Debug, Clone, Serialize)]
pub struct LinkPlan {
    /// The link as it would be; its state is `planned`.
    #[serde(flatten)]
    pub link: LinkView,
    /// Prefixes to be announced for it.
    pub announce: Vec<PlannedRoute>,
    /// Prefixes that no link would want announced any more.
    pub withdraw: Vec<Prefix>,
    /// Standbys that would make way for it.
    pub displaced: Vec<LinkId>,
    /// Forwarding entries that are new or change: pairs of a subnet and a classic prefix.
    pub permits: usize,
    /// Forwarding entries that go.
    pub permits_removed: usize,
    /// Objects of the kernel there would be more, by kind.
    pub kernel: BTreeMap<&'static str, u64>,
    /// How full the plane is and would be.
    pub limits: Vec<LimitChange>,
}

/// A prefix to be announced.
#[derive(Debug, Clone, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
