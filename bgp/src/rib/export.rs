//! The words of the way out: which path a peer may be told, and how it is put to him.
//!
//! Judges one path at a time and remembers nothing; what was told to whom is the matter of
//! [`group`](super::group).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::policy::{ActionsId, Decision, ExportPolicy, NextHops, Provenance};
use crate::rib::attributes::RouteAttributes;
use crate::rib::select::Source;
use crate::rib::table::Table;
use crate::wire::{Community, Family, NextHop, Prefix, WireOptions};

/// The terms on which routes are told. Peers with equal terms are told the same octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportContext {
    /// Our AS number.
    pub asn: u32,
    /// The peer is in our AS.
    pub internal: bool,
    /// Which routes it may be told.
    pub policy: ExportPolicy,
    /// The families in use.
    pub families: Vec<Family>,
    /// Our next hop for IPv4 routes; without one they are not told.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Our next hop for IPv6 routes; without one they are not told.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// How messages look.
    pub options: WireOptions,
}

impl ExportContext {
    /// Our next hop for routes of the family.
    pub fn next_hop(&self, family: Family) -> Option<NextHop> {
        match family {
            Family::Ipv4Unicast => self.next_hop_v4.map(IpAddr::V4),
            Family::Ipv6Unicast => self.next_hop_v6.map(IpAddr::V6),
        }
        .map(NextHop::from)
    }

    /// What the policy says of the route.
    pub(crate) fn decide(
        &self,
        prefix: &Prefix,
        known: &RouteAttributes,
        source: Source,
    ) -> Decision {
        let from = match source {
            Source::Local => Provenance::Local,
            Source::Peer(_) => Provenance::Learned,
        };
        self.policy.decide(prefix, known, from)
    }

    /// Whether what the route says, and where it comes from, lets the peer be told of it.
    pub(crate) fn passes(
        &self,
        family: Family,
        known: &RouteAttributes,
        source: Source,
        actions: ActionsId,
        table: &Table,
    ) -> bool {
        if let Source::Peer(from) = source {
            // RFC 4271 section 9.2: from internal to internal peers nothing is passed on.
            if self.internal && table.is_internal(from) {
                return false;
            }
            let has = |community| known.communities.contains(&community);
            let stays = has(Community::NO_EXPORT) || has(Community::NO_EXPORT_SUBCONFED);
            if has(Community::NO_ADVERTISE) || stays && !self.internal {
                return false;
            }
        }
        self.told_next_hop(family, known, source, actions).is_some()
    }

    fn told_next_hop(
        &self,
        family: Family,
        known: &RouteAttributes,
        source: Source,
        actions: ActionsId,
    ) -> Option<NextHop> {
        let own = self.next_hop(family);
        let received = (source != Source::Local).then_some(known.next_hop);
        let usual = match received {
            Some(received) if self.internal => Some(received),
            _ => own,
        };
        let hops = NextHops {
            own,
            received,
            usual,
        };
        self.policy.next_hop(actions, &hops)
    }

    /// The route in the words for this peer (RFC 4271 section 5.1).
    pub(crate) fn reword(
        &self,
        family: Family,
        known: &RouteAttributes,
        source: Source,
        actions: ActionsId,
    ) -> RouteAttributes {
        let mut told = known.clone();
        if let Some(next_hop) = self.told_next_hop(family, known, source, actions) {
            told.next_hop = next_hop;
        }
        if source != Source::Local {
            if !self.internal {
                // Section 5.1.4: a learned MED is for us alone.
                told.med = None;
            }
            told.rare
                .change(|rare| rare.prepare_for_passing_on(self.internal));
        }
        if self.internal {
            told.local_pref = Some(known.preference());
        } else {
            told.local_pref = None;
            told.as_path = known.as_path.prepended(self.asn, 1);
        }
        self.policy.apply(actions, told, self.asn)
    }
}
