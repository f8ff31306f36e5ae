//! Which next hops of learned routes can be reached, and at what cost.
//!
//! The speaker's user says so, for addresses or whole networks, as it sees the routes that do not
//! come from BGP. Without tracking everything is reachable. With it, what nobody has spoken about
//! is not, save the addresses of peers whose session is established: a session is proof.
//!
//! Counts sets of attributes, not routes: a next hop that comes or goes costs nothing a prefix.
//! Which prefixes use one is found by who keeps the paths, by their sets of attributes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use serde::Serialize;

use crate::wire::{Family, Prefix};

/// Whether packets can be sent by way of a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum NextHopState {
    /// They can.
    Reachable {
        /// The cost of reaching it, lower is better (RFC 4271 section 9.1.2.2, step e).
        metric: u32,
    },
    /// They cannot: paths by way of it are not used (RFC 4271 section 9.1.2).
    Unreachable,
}

impl NextHopState {
    /// Connected, or as good as that.
    pub const CONNECTED: NextHopState = NextHopState::Reachable { metric: 0 };

    /// The cost, if it can be reached.
    pub const fn metric(self) -> Option<u32> {
        match self {
            NextHopState::Reachable { metric } => Some(metric),
            NextHopState::Unreachable => None,
        }
    }
}

/// What is known of next hops.
#[derive(Debug, Default)]
pub struct NextHops {
    tracking: bool,
    /// What the user says, and the lengths of the networks it speaks about.
    told: BTreeMap<Prefix, NextHopState>,
    lengths: BTreeMap<Family, BTreeMap<u8, usize>>,
    /// How many peers with an established session have this address.
    sessions: HashMap<IpAddr, usize>,
    used: HashMap<IpAddr, Used>,
    /// Next hops that came into use or went out of it, perhaps both.
    news: BTreeSet<IpAddr>,
}

#[derive(Debug)]
struct Used {
    /// How many sets of attributes have it.
    sets: usize,
    state: NextHopState,
}

impl NextHops {
    /// Nothing is known. Without `tracking` everything is reachable.
    pub fn new(tracking: bool) -> NextHops {
        NextHops {
            tracking,
            ..NextHops::default()
        }
    }

    /// Whether anything is tracked.
    pub fn tracking(&self) -> bool {
        self.tracking
    }

    /// Whether anything is tracked from now on; `sets` are the next hops of all sets of attributes.
    /// Returns the next hops in use whose state may be another one now.
    pub fn set_tracking(
        &mut self,
        tracking: bool,
        sets: impl IntoIterator<Item = IpAddr>,
    ) -> Vec<IpAddr> {
        if self.tracking == tracking {
            return Vec::new();
        }
        self.tracking = tracking;
        for address in sets {
            self.hold(address);
        }
        let changed = self.used().into_iter().map(|(address, _)| address);
        let changed = changed.collect();
        if !tracking {
            self.used.clear();
            self.news.clear();
        }
        changed
    }

    /// One more set of attributes has this next hop. An unspecified address is none: it stands for
    /// our own.
    pub fn hold(&mut self, address: IpAddr) {
        if !self.tracking || address.is_unspecified() {
            return;
        }
        if let Some(used) = self.used.get_mut(&address) {
            used.sets += 1;
            return;
        }
        let state = self.resolve(address);
        self.used.insert(address, Used { sets: 1, state });
        self.news.insert(address);
    }

    /// One set of attributes less.
    pub fn release(&mut self, address: IpAddr) {
        let Some(used) = self.used.get_mut(&address) else {
            return;
        };
        used.sets -= 1;
        if used.sets == 0 {
            self.used.remove(&address);
            self.news.insert(address);
        }
    }

    /// Whether a next hop in use can be reached.
    pub fn state(&self, address: IpAddr) -> NextHopState {
        if !self.tracking || address.is_unspecified() {
            return NextHopState::CONNECTED;
        }
        match self.used.get(&address) {
            Some(used) => used.state,
            None => self.resolve(address),
        }
    }

    /// What the user says from now on about all addresses in some networks; `None`: nothing any
    /// more. Of networks around an address the smallest counts. Returns the next hops in use whose
    /// state is another one now.
    pub fn tell(
        &mut self,
        changes: impl IntoIterator<Item = (Prefix, Option<NextHopState>)>,
    ) -> Vec<IpAddr> {
        for (prefix, state) in changes {
            let known = match state {
                Some(state) => self.told.insert(prefix, state).is_some(),
                None => self.told.remove(&prefix).is_some(),
            };
            let lengths = self.lengths.entry(prefix.family()).or_default();
            match (known, state) {
                (false, Some(_)) => *lengths.entry(prefix.len()).or_default() += 1,
                (true, None) => {
                    if let Some(count) = lengths.get_mut(&prefix.len()) {
                        *count -= 1;
                    }
                    lengths.retain(|_, count| *count > 0);
                }
                _ => {}
            }
        }
        self.resolve_again(|_| true)
    }

    /// A session with a peer at this address came up or went down. Returns the next hops in use
    /// whose state is another one now: that address, or none.
    pub fn session(&mut self, peer: IpAddr, up: bool) -> Vec<IpAddr> {
        let count = self.sessions.entry(peer).or_default();
        *count = match up {
            true => *count + 1,
            false => count.saturating_sub(1),
        };
        if *count == 0 {
            self.sessions.remove(&peer);
        }
        self.resolve_again(|address| address == peer)
    }

    fn resolve_again(&mut self, concerned: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
        let mut used = std::mem::take(&mut self.used);
        let mut changed = Vec::new();
        for (address, used) in &mut used {
            if concerned(*address) {
                let state = self.resolve(*address);
                if used.state != state {
                    used.state = state;
                    changed.push(*address);
                }
            }
        }
        self.used = used;
        changed.sort_unstable();
        changed
    }

    fn resolve(&self, address: IpAddr) -> NextHopState {
        let host = Prefix::host(address);
        let lengths = self.lengths.get(&host.family()).into_iter().flatten();
        let told = lengths
            .rev()
            .find_map(|(length, _)| self.told.get(&host.truncated(*length)));
        match told {
            Some(state) => *state,
            None if self.sessions.contains_key(&address) => NextHopState::CONNECTED,
            None => NextHopState::Unreachable,
        }
    }

    /// Every next hop in use, in order.
    pub fn used(&self) -> Vec<(IpAddr, NextHopState)> {
        let mut used: Vec<_> = self
            .used
            .iter()
            .map(|(address, used)| (*address, used.state))
            .collect();
        used.sort_unstable_by_key(|(address, _)| *address);
        used
    }

    /// The next hops that came into use (true) or went out of it since the last call, in order.
    pub fn take_news(&mut self) -> Vec<(IpAddr, bool)> {
        let news = std::mem::take(&mut self.news).into_iter();
        news.map(|address| (address, self.used.contains_key(&address)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    const NONE: [IpAddr; 0] = [];

    const fn at(metric: u32) -> Option<NextHopState> {
        Some(NextHopState::Reachable { metric })
    }

    const NOT: Option<NextHopState> = Some(NextHopState::Unreachable);

    #[test]
    fn without_tracking_everything_is_reachable() {
        let mut hops = NextHops::new(false);
        hops.hold(address("10.0.0.1"));
        assert_eq!(hops.tell([(prefix("0.0.0.0/0"), NOT)]), NONE);
        assert_eq!(hops.state(address("10.0.0.1")), NextHopState::CONNECTED);
        assert_eq!((hops.used(), hops.take_news()), (vec![], vec![]));
    }

    #[test]
    fn the_smallest_network_counts_and_sessions_are_proof() {
        let mut hops = NextHops::new(true);
        let hop = address("10.0.0.1");
        hops.hold(hop);
        assert_eq!(
            hops.state(hop),
            NextHopState::Unreachable,
            "nobody spoke of it"
        );
        // what is said, is the state another one, the state
        let rows = [
            ("10.0.0.0/8", at(10), true, at(10)),
            ("10.0.0.0/24", NOT, true, NOT),
            ("10.0.0.0/16", at(5), false, NOT),
            ("10.0.0.1/32", at(0), true, at(0)),
            ("10.0.0.2/32", NOT, false, at(0)),
            ("10.0.0.1/32", None, true, NOT),
            ("10.0.0.0/24", None, true, at(5)),
            ("10.0.0.0/24", None, false, at(5)),
            ("10.0.0.0/16", at(6), true, at(6)),
            ("10.0.0.0/16", None, true, at(10)),
            ("10.0.0.0/8", None, true, NOT),
            ("fd00::/8", at(1), false, NOT),
        ];
        for (network, said, changes, expected) in rows {
            let changed = hops.tell([(prefix(network), said)]);
            assert_eq!(
                changed,
                if changes { vec![hop] } else { vec![] },
                "{network}"
            );
            assert_eq!(Some(hops.state(hop)), expected, "{network}");
        }
        assert_eq!(hops.session(hop, true), [hop]);
        assert_eq!(hops.session(hop, true), NONE);
        assert_eq!(hops.state(hop), NextHopState::CONNECTED);
        assert_eq!(
            hops.tell([(prefix("10.0.0.0/24"), NOT)]),
            [hop],
            "the user knows better"
        );
        assert_eq!(hops.tell([(prefix("10.0.0.0/24"), None)]), [hop]);
        assert_eq!(hops.session(hop, false), NONE, "the other session is up");
        assert_eq!(hops.session(hop, false), [hop]);
        assert_eq!(hops.session(hop, false), NONE, "more than ever came up");
        assert_eq!(
            hops.state(address("0.0.0.0")),
            NextHopState::CONNECTED,
            "ours"
        );
    }

    #[test]
    fn tracking_begins_and_ends_at_any_time() {
        let mut hops = NextHops::new(false);
        let (one, two) = (address("10.0.0.1"), address("10.0.0.2"));
        hops.hold(one);
        hops.tell([(prefix("10.0.0.2/32"), at(7))]);
        assert_eq!(hops.set_tracking(true, [two, one, two]), [one, two]);
        assert_eq!(Some(hops.state(one)), NOT);
        assert_eq!(Some(hops.state(two)), at(7), "what was said before counts");
        assert_eq!(hops.set_tracking(true, [one]), NONE);
        hops.release(two);
        assert_eq!(hops.used().len(), 2, "another set has it");
        assert_eq!(hops.set_tracking(false, [one, two]), [one, two]);
        assert_eq!(hops.state(one), NextHopState::CONNECTED);
        assert_eq!((hops.used(), hops.take_news()), (vec![], vec![]));
    }

    #[test]
    fn the_user_hears_of_next_hops_in_use() {
        let mut hops = NextHops::new(true);
        let (one, two) = (address("10.0.0.1"), address("fd00::1"));
        hops.hold(two);
        hops.hold(one);
        hops.hold(one);
        hops.hold(address("::"));
        assert_eq!(hops.take_news(), [(one, true), (two, true)]);
        assert_eq!(hops.used().len(), 2);
        hops.release(one);
        hops.release(two);
        hops.release(two);
        assert_eq!(hops.take_news(), [(two, false)]);
        hops.release(one);
        hops.hold(one);
        assert_eq!(hops.take_news(), [(one, true)], "as it is now");
        assert_eq!(hops.take_news(), []);
    }

    fn near() -> impl Strategy<Value = Prefix> {
        (0u32..8, 0u8..=4).prop_map(|(bits, length)| {
            Prefix::masked_v4(std::net::Ipv4Addr::from_bits(bits << 29), length)
        })
    }

    proptest! {
        #[test]
        fn states_are_those_of_the_longest_match(
            told in proptest::collection::vec((near(), prop::option::of(0u32..3)), 0..30),
        ) {
            let mut hops = NextHops::new(true);
            let all: Vec<IpAddr> = (0u32..8)
                .map(|bits| std::net::Ipv4Addr::from_bits(bits << 29 | 1).into())
                .collect();
            for hop in &all {
                hops.hold(*hop);
            }
            let mut model: BTreeMap<Prefix, NextHopState> = BTreeMap::new();
            for (network, metric) in told {
                let state = metric.map(|metric| NextHopState::Reachable { metric });
                match state {
                    Some(state) => model.insert(network, state),
                    None => model.remove(&network),
                };
                let before: Vec<_> = all.iter().map(|hop| hops.state(*hop)).collect();
                let changed = hops.tell([(network, state)]);
                for (hop, before) in all.iter().zip(before) {
                    let expected = model
                        .iter()
                        .filter(|(network, _)| network.contains_addr(*hop))
                        .max_by_key(|(network, _)| network.len())
                        .map_or(NextHopState::Unreachable, |(_, state)| *state);
                    prop_assert_eq!(hops.state(*hop), expected);
                    prop_assert_eq!(changed.contains(hop), before != expected);
                }
            }
        }
    }
}
