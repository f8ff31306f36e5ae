//! The way in: which routes of a peer are accepted, and what is remembered of those that are not.
//!
//! A refused route is no error and no secret: it is counted under its reason, and an earlier
//! accepted route to the same prefix goes (RFC 4271 section 9.1.1: it replaces it).

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use crate::policy::{ActionsId, Decision, ImportPolicy};
use crate::rib::attributes::RouteAttributes;
use crate::rib::table::slot;
use crate::wire::{Community, Family, Nlri, Role};

/// Why a route is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The import policy does not permit the route.
    Policy,
    /// Our AS is in the path (RFC 4271 section 9.1.2).
    AsLoop,
    /// The next hop is one of our own addresses (RFC 4271 section 5.1.3).
    NextHopOurs,
    /// It went to a customer or a peer before, and must not come back up (RFC 9234 section 5).
    Leak,
    /// The peer has told as many routes as it may.
    Limit,
}

impl Refusal {
    const ALL: [Refusal; 5] = [
        Refusal::Policy,
        Refusal::AsLoop,
        Refusal::NextHopOurs,
        Refusal::Leak,
        Refusal::Limit,
    ];
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Policy => "the import policy does not permit them",
            Refusal::AsLoop => "our own AS is in their path",
            Refusal::NextHopOurs => "their next hop is our own address",
            Refusal::Leak => {
                "they leak: OTC says that they went to a customer or a peer (RFC 9234)"
            }
            Refusal::Limit => "the peer may tell no more (max_prefixes)",
        })
    }
}

/// Refused routes that are remembered per peer. Beyond that they are refused all the same, but
/// counts are a lower bound.
const REMEMBERED: usize = 1 << 16;

/// The receiving side of one session.
#[derive(Debug, Default)]
pub struct AdjRibIn {
    refused: HashMap<Nlri, Refusal>,
    counts: [[usize; Refusal::ALL.len()]; Family::ALL.len()],
    forgotten: bool,
}

/// What the checks need to know beside the policy.
#[derive(Debug, Clone, Default)]
pub struct ImportContext {
    /// Our AS number.
    pub asn: u32,
    /// The speaker's own, where it goes by another with this peer.
    pub other_asn: Option<u32>,
    /// How often they may be in a path.
    pub allow_own_as: u8,
    /// The peer is in our AS.
    pub internal: bool,
    /// Addresses that are ours on this session.
    pub own_addresses: Vec<IpAddr>,
    /// The peer's AS number.
    pub peer_asn: u32,
    /// What we are to it (RFC 9234).
    pub role: Option<Role>,
}

impl ImportContext {
    /// What is wrong with all routes of these attributes.
    pub fn refusal(&self, attributes: &RouteAttributes) -> Option<Refusal> {
        let path = &attributes.as_path;
        let ours = |asn| path.count(asn);
        if ours(self.asn) + self.other_asn.map_or(0, ours) > usize::from(self.allow_own_as) {
            Some(Refusal::AsLoop)
        } else if self.own_addresses.contains(&attributes.next_hop.addr()) {
            Some(Refusal::NextHopOurs)
        } else if self.leaks(attributes.rare.otc) {
            Some(Refusal::Leak)
        } else {
            None
        }
    }

    /// RFC 9234 section 5, on ingress.
    fn leaks(&self, otc: Option<u32>) -> bool {
        match (otc, self.role) {
            (Some(_), Some(Role::Provider | Role::RouteServer)) => true,
            (Some(otc), Some(Role::Peer)) => otc != self.peer_asn,
            _ => false,
        }
    }

    /// The attributes as they go into the table: an external peer's LOCAL_PREF means nothing here
    /// (RFC 4271 section 5.1.5), save that a path which is about to go is the last one to use
    /// (RFC 8326 section 4.2); what comes from above or beside us goes down only (RFC 9234
    /// section 5).
    pub fn adopt(&self, mut attributes: RouteAttributes) -> RouteAttributes {
        if self.internal {
            return attributes;
        }
        attributes.local_pref = self.is_going(&attributes).then_some(0);
        let from_above = matches!(
            self.role,
            Some(Role::Customer | Role::Peer | Role::RouteServerClient)
        );
        if from_above && attributes.rare.otc.is_none() {
            attributes
                .rare
                .change(|rare| rare.otc = Some(self.peer_asn));
        }
        attributes
    }
}

impl ImportContext {
    /// The adopted attributes as the policy changes them. Whatever it says, a path that is about
    /// to go stays the last one to use.
    pub fn changed(
        &self,
        policy: &ImportPolicy,
        actions: ActionsId,
        attributes: &RouteAttributes,
    ) -> RouteAttributes {
        let mut changed = policy.apply(actions, attributes);
        if !self.internal && self.is_going(attributes) {
            changed.local_pref = attributes.local_pref;
        }
        changed
    }

    fn is_going(&self, attributes: &RouteAttributes) -> bool {
        let communities = &attributes.communities;
        communities.contains(&Community::GRACEFUL_SHUTDOWN)
    }
}

impl AdjRibIn {
    /// Judges a route, given what is wrong with its attributes, what the policy says of it, and
    /// whether there is no room for one more. If it is accepted: what is to be changed.
    pub fn judge(
        &mut self,
        nlri: Nlri,
        attributes: Option<Refusal>,
        policy: impl FnOnce() -> Decision,
        full: impl FnOnce() -> bool,
    ) -> Option<ActionsId> {
        self.withdrawn(&nlri);
        let refusal = match attributes {
            Some(refusal) => refusal,
            None => match policy() {
                Decision::Deny => Refusal::Policy,
                Decision::Permit(_) if full() => Refusal::Limit,
                Decision::Permit(actions) => return Some(actions),
            },
        };
        if self.refused.len() < REMEMBERED {
            self.refused.insert(nlri, refusal);
            self.counts[slot(nlri.prefix.family())][refusal as usize] += 1;
        } else {
            self.forgotten = true;
        }
        None
    }

    /// The peer has withdrawn its route, or replaces it.
    pub fn withdrawn(&mut self, nlri: &Nlri) {
        // Nearly always nothing is refused.
        if !self.refused.is_empty()
            && let Some(refusal) = self.refused.remove(nlri)
        {
            self.counts[slot(nlri.prefix.family())][refusal as usize] -= 1;
        }
    }

    /// How many routes of the family are refused because there are too many.
    pub fn beyond_limit(&self, family: Family) -> usize {
        self.counts[slot(family)][Refusal::Limit as usize]
    }

    /// How many routes of the family are refused now; a lower bound if some were forgotten.
    pub fn refused(&self, family: Family) -> usize {
        self.counts[slot(family)].iter().sum()
    }

    /// Every refused route with its reason.
    pub fn refusals(&self) -> impl Iterator<Item = (&Nlri, &Refusal)> {
        self.refused.iter()
    }

    /// What to tell the operator: one line a reason.
    pub fn notes(&self) -> Vec<String> {
        let at_least = if self.forgotten { "at least " } else { "" };
        Refusal::ALL
            .into_iter()
            .map(|refusal| {
                (
                    refusal,
                    self.counts.iter().map(|c| c[refusal as usize]).sum(),
                )
            })
            .filter(|(_, count): &(_, usize)| *count > 0)
            .map(|(refusal, count)| format!("{at_least}{count} routes are refused: {refusal}"))
            .collect()
    }

    /// Forgets a family, when its routes are dropped altogether.
    pub fn drop_family(&mut self, family: Family) {
        self.refused
            .retain(|nlri, _| nlri.prefix.family() != family);
        self.counts[slot(family)] = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::policy::{Actions, Rule};
    use crate::wire::{AsPath, NextHop, Prefix};

    fn attributes(path: &[u32], next_hop: [u8; 4]) -> RouteAttributes {
        RouteAttributes {
            as_path: AsPath::sequence(path.iter().copied()),
            ..RouteAttributes::originated(NextHop::V4(Ipv4Addr::from(next_hop)))
        }
    }

    #[test]
    fn loops_and_our_own_next_hop_are_refused() {
        let context = ImportContext {
            asn: 65001,
            internal: false,
            own_addresses: vec![Ipv4Addr::new(10, 99, 0, 1).into()],
            ..ImportContext::default()
        };
        let rows = [
            (attributes(&[65002], [10, 99, 0, 2]), None),
            (
                attributes(&[65002, 65001], [10, 99, 0, 2]),
                Some(Refusal::AsLoop),
            ),
            (
                attributes(&[65002], [10, 99, 0, 1]),
                Some(Refusal::NextHopOurs),
            ),
        ];
        for (attributes, expected) in rows {
            assert_eq!(context.refusal(&attributes), expected, "{attributes:?}");
        }
        // As another AS towards this peer: both are ours.
        let allowing = |allow_own_as| ImportContext {
            other_asn: Some(65009),
            allow_own_as,
            ..context.clone()
        };
        for (path, allowed, refused) in [
            (&[65002][..], 0, false),
            (&[65002, 65009], 0, true),
            (&[65002, 65001], 0, true),
            (&[65002, 65001], 1, false),
            (&[65002, 65001, 65009], 1, true),
            (&[65002, 65001, 65009], 2, false),
        ] {
            let refusal = allowing(allowed).refusal(&attributes(path, [10, 99, 0, 2]));
            assert_eq!(refusal.is_some(), refused, "{path:?}, {allowed} allowed");
        }
        let going = RouteAttributes {
            communities: [Community::GRACEFUL_SHUTDOWN].into(),
            ..attributes(&[65002], [10, 99, 0, 2])
        };
        let preferring: ImportPolicy = [Rule {
            actions: Actions {
                local_pref: Some(200),
                ..Actions::default()
            },
            ..Rule::permit_within("10.0.0.0/8".parse().unwrap())
        }]
        .into_iter()
        .collect();
        for (attributes, expected) in [(attributes(&[65002], [10, 99, 0, 2]), 200), (going, 0)] {
            let adopted = context.adopt(attributes);
            let decision = preferring.decide(&"10.0.0.0/8".parse().unwrap(), &adopted);
            let Decision::Permit(actions) = decision else {
                panic!("denied");
            };
            let changed = context.changed(&preferring, actions, &adopted);
            assert_eq!(changed.local_pref, Some(expected));
        }
        let preferred = RouteAttributes {
            local_pref: Some(200),
            ..attributes(&[65002], [10, 99, 0, 2])
        };
        assert_eq!(context.adopt(preferred.clone()).local_pref, None);
        let internal = ImportContext {
            internal: true,
            ..context
        };
        assert_eq!(internal.adopt(preferred).local_pref, Some(200));
    }

    #[test]
    fn refused_routes_are_counted_until_withdrawn_or_replaced() {
        let (permit, deny) = (|| Decision::Permit(ActionsId::UNCHANGED), || Decision::Deny);
        let mut rib = AdjRibIn::default();
        let prefix = |text: &str| Nlri::from(text.parse::<Prefix>().unwrap());
        let accepted = Some(ActionsId::UNCHANGED);
        assert_eq!(
            rib.judge(prefix("10.1.0.0/16"), None, permit, || false),
            accepted
        );
        assert_eq!(rib.judge(prefix("11.0.0.0/8"), None, deny, || false), None);
        let loops = Some(Refusal::AsLoop);
        assert_eq!(
            rib.judge(prefix("10.1.0.0/16"), loops, permit, || false),
            None
        );
        assert_eq!(rib.judge(prefix("fd00::/8"), None, deny, || false), None);
        assert_eq!(Family::ALL.map(|family| rib.refused(family)), [2, 1]);
        assert_eq!(
            rib.notes(),
            [
                "2 routes are refused: the import policy does not permit them",
                "1 routes are refused: our own AS is in their path"
            ]
        );
        assert_eq!(
            rib.judge(prefix("10.1.0.0/16"), None, permit, || false),
            accepted,
            "replaced by a good one"
        );
        rib.withdrawn(&prefix("11.0.0.0/8"));
        rib.withdrawn(&prefix("11.0.0.0/8"));
        rib.drop_family(Family::Ipv6Unicast);
        assert_eq!(Family::ALL.map(|family| rib.refused(family)), [0, 0]);
        assert!(rib.notes().is_empty());
    }

    #[test]
    fn a_peer_cannot_make_us_remember_without_end() {
        let mut rib = AdjRibIn::default();
        for index in 0..REMEMBERED as u32 + 10 {
            let host = Prefix::host(Ipv4Addr::from_bits(index).into());
            assert_eq!(
                rib.judge(host.into(), None, || Decision::Deny, || false),
                None
            );
        }
        assert_eq!(rib.refused(Family::Ipv4Unicast), REMEMBERED);
        assert!(
            rib.notes()[0].starts_with("at least 65536 routes"),
            "{:?}",
            rib.notes()
        );
    }
}
