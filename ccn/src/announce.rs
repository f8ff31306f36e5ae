//! Between the house and the speaker: which routes we say, and which we were told.
//!
//! It translates; when a prefix may be announced is decided by the order of change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bgp::event::Told;
use bgp::{AggregateStatus, Announcement, Family, PeerName, Prefix, RouteChange};

use crate::plane::LearnedNextHops;

/// The announcement of a linked subnet; the speaker sets the next hop of each session.
#[must_use]
pub fn announcement(prefix: Prefix) -> Announcement {
    Announcement::new(prefix)
}

/// Whether a peer that was told these routes has been told of an announced prefix: by itself, or by
/// an aggregate that stands for it.
#[must_use]
pub fn is_told(prefix: &Prefix, routes: &Told, aggregates: &[AggregateStatus]) -> bool {
    let stands_for_it = |aggregate: &&AggregateStatus| {
        aggregate.summary_only && aggregate.prefix != *prefix && aggregate.prefix.contains(prefix)
    };
    let mut around = aggregates.iter().filter(stands_for_it);
    routes.contains_key(prefix) || around.any(|outer| routes.contains_key(&outer.prefix))
}

/// Routes learned from the IDC, as the speaker told them.
#[derive(Debug, Default)]
pub struct Learned {
    routes: BTreeMap<Prefix, LearnedNextHops>,
    /// What was known before the speaker began to tell its whole state again, and is not told yet.
    untold: BTreeSet<Prefix>,
}

impl Learned {
    /// Takes over a change; what it means for the plane. No next hops: the prefix is gone.
    pub fn change(&mut self, change: &RouteChange) -> (Prefix, LearnedNextHops) {
        let next_hops: LearnedNextHops = change.paths.iter().map(|path| path.next_hop).collect();
        self.untold.remove(&change.prefix);
        if next_hops.is_empty() {
            self.routes.remove(&change.prefix);
        } else {
            self.routes.insert(change.prefix, next_hops.clone());
        }
        (change.prefix, next_hops)
    }

    /// The speaker begins to tell its whole state.
    pub fn resync(&mut self) {
        self.untold = self.routes.keys().copied().collect();
    }

    /// The speaker has told its whole state; the prefixes that are gone.
    pub fn synced(&mut self) -> BTreeSet<Prefix> {
        let gone = std::mem::take(&mut self.untold);
        self.routes.retain(|prefix, _| !gone.contains(prefix));
        gone
    }

    /// Every learned prefix.
    #[must_use]
    pub fn routes(&self) -> &BTreeMap<Prefix, LearnedNextHops> {
        &self.routes
    }
}

/// Whether the routers have told us their tables since this agent started.
///
/// Until they have, a learned route that the kernel holds and we have not heard of is left alone:
/// an agent that restarts must not take away what works (RFC 4724 section 4.1).
#[derive(Debug)]
pub struct Relearning {
    missing: BTreeSet<(PeerName, Family)>,
    /// Dynamic peers may be missing: which ones there were before, nobody knows.
    strangers: bool,
    deadline: Instant,
}

impl Relearning {
    /// Waits for these peers and families, until the deadline at most; until then in any case if
    /// there are `strangers`, peers that are not known before they come.
    #[must_use]
    pub fn new(expected: BTreeSet<(PeerName, Family)>, strangers: bool, deadline: Instant) -> Self {
        Relearning {
            missing: expected,
            strangers,
            deadline,
        }
    }

    /// A session came up with these families; the peer will not send the others.
    pub fn established(&mut self, peer: &PeerName, families: &[Family]) {
        self.missing
            .retain(|(name, family)| name != peer || families.contains(family));
    }

    /// A peer has sent its whole table of a family.
    pub fn end_of_rib(&mut self, peer: &PeerName, family: Family) {
        self.missing.remove(&(peer.clone(), family));
    }

    /// Nothing more is waited for.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.missing.is_empty() && !self.strangers || now >= self.deadline
    }

    /// When it ends at the latest.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bgp::RouteAttributes;

    use super::*;

    fn peer(name: &str) -> PeerName {
        name.parse().unwrap()
    }

    #[test]
    fn relearning_ends_when_every_peer_has_sent_what_it_will_send() {
        let start = Instant::now();
        let deadline = start + Duration::from_secs(120);
        let expected = [
            ("a", Family::Ipv4Unicast),
            ("a", Family::Ipv6Unicast),
            ("b", Family::Ipv4Unicast),
        ];
        let expected = expected.map(|(name, family)| (peer(name), family)).into();
        let mut strange = Relearning::new(BTreeSet::new(), true, deadline);
        strange.end_of_rib(&peer("a"), Family::Ipv4Unicast);
        assert!(!strange.is_over(start), "somebody else may come");
        assert!(strange.is_over(deadline));

        let mut relearning = Relearning::new(expected, false, deadline);
        assert!(!relearning.is_over(start));
        relearning.established(&peer("a"), &[Family::Ipv4Unicast]);
        relearning.end_of_rib(&peer("a"), Family::Ipv4Unicast);
        assert!(!relearning.is_over(start), "b has said nothing");
        assert!(
            relearning.is_over(deadline),
            "b is not waited for without end"
        );
        relearning.end_of_rib(&peer("b"), Family::Ipv4Unicast);
        assert!(relearning.is_over(start));
    }

    #[test]
    fn a_prefix_is_told_by_itself_or_by_what_stands_for_it() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        let route = || {
            std::sync::Arc::new(RouteAttributes::originated(bgp::wire::NextHop::V4(
                [0; 4].into(),
            )))
        };
        let told: Told = [
            (prefix("10.1.0.0/16"), route()),
            (prefix("10.3.0.0/24"), route()),
        ]
        .into();
        let aggregate = |text, summary_only| AggregateStatus {
            prefix: prefix(text),
            summary_only,
            contributors: 1,
        };
        let summary = [aggregate("10.1.0.0/16", true)];
        let beside = [aggregate("10.1.0.0/16", false)];
        for (subnet, aggregates, expected) in [
            ("10.3.0.0/24", &summary[..], true),
            ("10.1.2.0/24", &summary, true),
            ("10.1.2.0/24", &beside, false),
            ("10.1.2.0/24", &[], false),
            ("10.1.0.0/16", &summary, true),
            ("10.2.0.0/24", &summary, false),
        ] {
            assert_eq!(
                is_told(&prefix(subnet), &told, aggregates),
                expected,
                "{subnet}"
            );
        }
    }

    #[test]
    fn what_a_resync_does_not_tell_is_gone() {
        let kept: Prefix = "10.80.1.0/24".parse().unwrap();
        let gone: Prefix = "10.80.2.0/24".parse().unwrap();
        let next_hops: LearnedNextHops = ["10.99.0.2".parse().unwrap()].into();
        let mut learned = Learned {
            routes: [(kept, next_hops.clone()), (gone, next_hops)].into(),
            ..Learned::default()
        };
        learned.resync();
        learned.untold.remove(&kept);
        assert_eq!(learned.synced(), [gone].into());
        assert_eq!(learned.routes().keys().collect::<Vec<_>>(), [&kept]);
        assert_eq!(learned.synced(), BTreeSet::new());
    }
}
