//! The words of the way out: which path a peer may be told, and how it is put to him.
//!
//! Judges one path at a time and remembers nothing; what was told to whom is the matter of
//! [`group`](super::group).

use std::net::Ipv4Addr;

use crate::policy::{ActionsId, Decision, ExportPolicy, NextHops, Provenance};
use crate::rib::attributes::RouteAttributes;
use crate::rib::select::Source;
use crate::rib::table::Table;
use crate::wire::{Community, Family, NextHop, Prefix, Role, WireOptions};

/// The terms on which routes are told. Peers with equal terms are told the same octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportContext {
    /// Our AS number.
    pub asn: u32,
    /// Private AS numbers are taken out of paths (RFC 6996); only of those for external peers.
    pub remove_private_as: bool,
    /// The peer is in our AS.
    pub internal: bool,
    /// Which routes it may be told.
    pub policy: ExportPolicy,
    /// The families in use.
    pub families: Vec<Family>,
    /// Our next hop for IPv4 routes; without one they are not told.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Our next hop for IPv6 routes; without one they are not told.
    pub next_hop_v6: Option<NextHop>,
    /// How messages look.
    pub options: WireOptions,
    /// What we are to the peer (RFC 9234).
    pub role: Option<Role>,
    /// Stale routes may be told to it (RFC 9494 section 4.3).
    pub long_lived: bool,
    /// We are about to go: others should use other paths (RFC 8326).
    pub graceful_shutdown: bool,
}

impl ExportContext {
    /// Our next hop for routes of the family. IPv4 routes have an IPv6 one where we have no other
    /// and the peer takes it (RFC 8950).
    pub fn next_hop(&self, family: Family) -> Option<NextHop> {
        let v6 = self.next_hop_v6;
        match family {
            Family::Ipv4Unicast => self
                .next_hop_v4
                .map(NextHop::V4)
                .or(v6.filter(|_| self.options.ipv4_next_hop_v6)),
            Family::Ipv6Unicast => v6,
        }
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
            if has(Community::LLGR_STALE) && !self.long_lived {
                return false;
            }
        }
        // RFC 9234 section 5, on egress.
        let upward = matches!(
            self.role,
            Some(Role::Customer | Role::Peer | Role::RouteServerClient)
        );
        if upward && known.rare.otc.is_some() {
            return false;
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
            let path = match self.remove_private_as {
                true => &known.as_path.without_private(),
                false => &known.as_path,
            };
            told.as_path = path.prepended(self.asn, 1);
        }
        let downward = matches!(
            self.role,
            Some(Role::Provider | Role::Peer | Role::RouteServer)
        );
        if downward && !self.internal && told.rare.otc.is_none() {
            told.rare.change(|rare| rare.otc = Some(self.asn));
        }
        let mut told = self.policy.apply(actions, told, self.asn);
        if !self.internal {
            // RFC 4271 section 5.1.5: whatever the policy says.
            told.local_pref = None;
        }
        if self.graceful_shutdown && !told.communities.contains(&Community::GRACEFUL_SHUTDOWN) {
            let communities = told.communities.iter().copied();
            told.communities = communities.chain([Community::GRACEFUL_SHUTDOWN]).collect();
            told.local_pref = told.local_pref.map(|_| 0);
        }
        told
    }
}
