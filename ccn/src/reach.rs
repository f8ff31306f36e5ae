//! Which next hops of learned routes the kernel can reach, told to the speaker before it asks.
//!
//! A plane sends to routers on the IDC's links, so what counts are the subnets of the IDC interfaces
//! that are up and have a carrier: a route by way of any other next hop is not selected and not
//! programmed. Networks are told, not addresses, so it does not matter how many next hops there are.
//! Routes that the agent made itself are never looked at: none can lead to its own next hop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use bgp::{NextHopState, Prefix};
use ipnet::{IpNet, Ipv6Net};
use netlink::{Change, Event, Link, Route, RouteKind};

use crate::config::PlaneConfig;

pub mod follow;

/// The maker of the routes to the subnets of an interface (`RTPROT_KERNEL`).
const KERNEL: u8 = 2;
/// Routes inside IDC subnets that are looked at. An operator has a handful; beyond, the subnet alone
/// counts.
const MOST_EXCEPTIONS: usize = 10_000;

/// What of the kernel matters to it.
#[derive(Debug, Clone)]
pub struct Interests {
    protocol: u8,
    interfaces: BTreeSet<String>,
}

impl Interests {
    /// The IDC interfaces of this plane, and every route but its own.
    #[must_use]
    pub fn of(config: &PlaneConfig) -> Self {
        Interests {
            protocol: config.protocol,
            interfaces: config.idc_interfaces.iter().cloned().collect(),
        }
    }

    /// Whether the answer may be another one after this event.
    #[must_use]
    pub fn concerns(&self, event: &Event) -> bool {
        match event {
            Event::Link(change) => {
                let (Change::Present(link) | Change::Gone(link)) = change.as_ref();
                self.interfaces.contains(&link.name)
            }
            Event::Route(Change::Present(route) | Change::Gone(route)) => self.counts(route),
            Event::Address(_) | Event::Resync(_) => true,
            Event::Rule(_) | Event::Neighbour(_) | Event::Qdisc(_) | Event::Filter(_) => false,
        }
    }

    fn counts(&self, route: &Route) -> bool {
        route.table == Route::MAIN && route.protocol != self.protocol
    }
}

/// What the speaker has been told.
#[derive(Debug)]
pub struct Reach {
    interests: Interests,
    told: BTreeMap<Prefix, NextHopState>,
}

impl Reach {
    /// Nothing is told yet.
    #[must_use]
    pub fn new(interests: Interests) -> Self {
        Reach {
            interests,
            told: BTreeMap::new(),
        }
    }

    /// Takes in all links, and the routes of table `main`; what to tell the speaker, for
    /// [`Speaker::set_next_hops`](bgp::Speaker::set_next_hops).
    pub fn resolve(
        &mut self,
        links: &[Link],
        routes: &[Route],
    ) -> Vec<(Prefix, Option<NextHopState>)> {
        let now = self.states(links, routes);
        let gone = self.told.keys().filter(|prefix| !now.contains_key(prefix));
        let mut changes: Vec<_> = gone.map(|prefix| (*prefix, None)).collect();
        let changed = now
            .iter()
            .filter(|(prefix, state)| self.told.get(prefix) != Some(state))
            .map(|(prefix, state)| (*prefix, Some(*state)));
        changes.extend(changed);
        self.told = now;
        changes
    }

    /// What is so of the addresses in some networks; of several around an address the smallest counts.
    fn states(&self, links: &[Link], routes: &[Route]) -> BTreeMap<Prefix, NextHopState> {
        let idc: Vec<&Link> = links
            .iter()
            .filter(|link| self.interests.interfaces.contains(&link.name))
            .collect();
        let works = |link: &Link| link.up && link.carrier;
        let usable: BTreeSet<u32> = idc
            .iter()
            .filter(|link| works(link))
            .map(|link| link.index)
            .collect();
        let indices: BTreeSet<u32> = idc.iter().map(|link| link.index).collect();
        // Neither a default route nor a session is proof: elsewhere no plane can send to.
        let mut states: BTreeMap<Prefix, NextHopState> = netlink::Family::BOTH
            .into_iter()
            .filter_map(|family| prefix(family.everything()))
            .map(|everything| (everything, NextHopState::Unreachable))
            .collect();
        // Which link a link-local next hop is on is known if there is but one.
        let alone = self.interests.interfaces.len() == 1 && !usable.is_empty();
        states.extend(prefix(LINK_LOCAL).map(|all| (all, state(alone))));

        let routes = || routes.iter().filter(|route| self.interests.counts(route));
        let direct = |route: &Route, on: &BTreeSet<u32>| {
            let mut hops = route.next_hops.iter();
            route.kind == RouteKind::Unicast
                && hops.any(|hop| hop.via.is_none() && on.contains(&hop.ifindex))
        };
        let mut subnets = BTreeMap::new();
        let connected = |route: &&Route| {
            let of_the_idc = route.protocol == KERNEL && direct(route, &indices);
            of_the_idc && route.prefix != LINK_LOCAL_SUBNET
        };
        for route in routes().filter(connected) {
            if let Some(prefix) = prefix(route.prefix) {
                *subnets.entry(prefix).or_default() |= direct(route, &usable);
            }
        }
        let exceptions = routes().filter_map(|route| {
            let prefix = prefix(route.prefix)?;
            let inside = subnets
                .keys()
                .any(|subnet| subnet.contains(&prefix) && *subnet != prefix);
            inside.then(|| (prefix, state(direct(route, &usable))))
        });
        states.extend(exceptions.take(MOST_EXCEPTIONS));
        states.extend(
            subnets
                .iter()
                .map(|(subnet, usable)| (*subnet, state(*usable))),
        );
        states
    }
}

fn state(reachable: bool) -> NextHopState {
    match reachable {
        true => NextHopState::CONNECTED,
        false => NextHopState::Unreachable,
    }
}

fn prefix(net: IpNet) -> Option<Prefix> {
    Prefix::containing(net.addr(), net.prefix_len()).ok()
}

/// All addresses of a link (RFC 4291 section 2.5.6).
const LINK_LOCAL: IpNet = IpNet::V6(Ipv6Net::new_assert(FE80, 10));
/// The part of them that every interface has a route to.
const LINK_LOCAL_SUBNET: IpNet = IpNet::V6(Ipv6Net::new_assert(FE80, 64));
const FE80: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use netlink::NextHop;

    use super::*;

    const OURS: u8 = 77;

    fn reach(interfaces: &[&str]) -> Reach {
        Reach::new(Interests {
            protocol: OURS,
            interfaces: interfaces.iter().map(ToString::to_string).collect(),
        })
    }

    fn link(name: &str, index: u32, up: bool, carrier: bool) -> Link {
        Link {
            up,
            carrier,
            operational: up && carrier,
            ..Link::new(index, name)
        }
    }

    /// Prefix, maker, router, link.
    fn route(prefix: &str, protocol: u8, via: Option<&str>, on: u32) -> Route {
        let hop = match via {
            Some(via) => NextHop::via(via.parse().unwrap(), on),
            None => NextHop::dev(on),
        };
        Route {
            protocol,
            ..Route::new(prefix.parse().unwrap(), hop)
        }
    }

    /// Whether each address is reachable, as the speaker judges what it has been told.
    fn reaches(reach: &Reach, addresses: &[&str]) -> Vec<bool> {
        let of = |text: &&str| {
            let address: IpAddr = text.parse().unwrap();
            let told = reach.told.iter();
            let around = told.filter(|(network, _)| network.contains_addr(address));
            let smallest = around.max_by_key(|(network, _)| network.len());
            smallest.is_some_and(|(_, state)| state.metric().is_some())
        };
        addresses.iter().map(of).collect()
    }

    #[test]
    fn what_counts_is_the_link_to_the_idc() {
        const ASKED: [&str; 7] = [
            "10.99.0.2",
            "10.99.0.200",
            "10.98.0.2",
            "192.0.2.1",
            "fd99::2",
            "fe80::2",
            "10.99.0.77",
        ];
        let links = |up, carrier| [link("idc0", 3, up, carrier), link("eth0", 2, true, true)];
        let routes = [
            route("0.0.0.0/0", 3, Some("10.98.0.1"), 2),
            route("10.98.0.0/24", KERNEL, None, 2),
            route("10.99.0.0/24", KERNEL, None, 3),
            route("fd99::/64", KERNEL, None, 3),
            route("fe80::/64", KERNEL, None, 2),
            route("fe80::/64", KERNEL, None, 3),
            // An operator's: one to another link, one on this one.
            route("10.99.0.200/32", Route::STATIC, None, 2),
            route("10.99.0.77/32", Route::STATIC, None, 3),
            // Ours: whatever they say.
            route("192.0.2.0/24", OURS, None, 3),
            route("10.99.0.2/32", OURS, Some("192.0.2.1"), 3),
        ];
        let mut reach = reach(&["idc0"]);
        let yes = [true, false, false, false, true, true, true];
        assert!(!reach.resolve(&links(true, true), &routes).is_empty());
        assert_eq!(reaches(&reach, &ASKED), yes);
        assert_eq!(reach.resolve(&links(true, true), &routes), [], "no news");

        // No carrier: the kernel keeps the routes. Down: it does not, and the speaker may still
        // take a session for proof, so it is told of everything.
        reach.resolve(&links(true, false), &routes);
        assert_eq!(reaches(&reach, &ASKED), [false; 7]);
        let changes = reach.resolve(&links(true, true), &routes);
        assert_eq!(reaches(&reach, &ASKED), yes);
        assert!(
            changes
                .iter()
                .all(|(_, state)| *state == Some(NextHopState::CONNECTED))
        );
        let changes = reach.resolve(&links(false, false), &routes[..2]);
        assert_eq!(reaches(&reach, &ASKED), [false; 7]);
        assert!(changes.iter().any(|(_, state)| state.is_none()));
        assert_eq!(
            reach.told.get(&"0.0.0.0/0".parse().unwrap()),
            Some(&NextHopState::Unreachable)
        );
    }

    #[test]
    fn a_link_local_next_hop_needs_one_link_alone() {
        let links = [link("idc0", 3, true, true), link("idc1", 4, true, true)];
        for (interfaces, expected) in [(&["idc0"][..], true), (&["idc0", "idc1"], false)] {
            let mut reach = reach(interfaces);
            reach.resolve(&links, &[]);
            assert_eq!(reaches(&reach, &["fe80::2"]), [expected]);
        }
    }

    #[test]
    fn what_is_ours_or_elsewhere_is_no_news() {
        let Reach { interests, .. } = reach(&["idc0"]);
        let up = |name| Event::Link(Box::new(Change::Present(link(name, 3, true, true))));
        let gone = |protocol| Event::Route(Change::Gone(route("10.1.0.0/24", protocol, None, 3)));
        let elsewhere = Route {
            table: 1000,
            ..route("10.1.0.0/24", Route::STATIC, None, 3)
        };
        for (event, expected) in [
            (up("idc0"), true),
            (up("eth0"), false),
            (gone(OURS), false),
            (gone(Route::STATIC), true),
            (Event::Route(Change::Present(elsewhere)), false),
            (Event::Resync("lost".to_owned()), true),
        ] {
            assert_eq!(interests.concerns(&event), expected, "{event:?}");
        }
    }
}
