//! Routes of our own: what the user announces and withdraws, and the aggregates formed from it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::Core;
use crate::config::Aggregate;
use crate::event::Announcement;
use crate::fsm::negotiate::Local;
use crate::rib::aggregate::Aggregates;
use crate::rib::attributes::RouteAttributes;
use crate::rib::select::Source;
use crate::wire::{Family, NextHop, Prefix};

/// The configured aggregates with what each says.
pub(super) fn routes_of(
    aggregates: Vec<Aggregate>,
    local: &Local,
) -> impl Iterator<Item = (Aggregate, Arc<RouteAttributes>)> {
    let (asn, router_id) = (local.asn, local.router_id);
    aggregates.into_iter().map(move |aggregate| {
        let route = Arc::new(aggregate.route(asn, router_id));
        (aggregate, route)
    })
}

impl Core {
    /// Announces routes of our own.
    pub fn announce(&mut self, routes: Vec<Announcement>) {
        let mut told = Vec::new();
        for Announcement {
            prefix,
            communities,
            med,
            aggregate,
        } in routes
        {
            let ours = match prefix.family() {
                Family::Ipv4Unicast => NextHop::V4(Ipv4Addr::UNSPECIFIED),
                Family::Ipv6Unicast => NextHop::V6(Ipv6Addr::UNSPECIFIED),
            };
            let attributes = RouteAttributes {
                communities: communities.into(),
                med,
                ..RouteAttributes::originated(ours)
            };
            if aggregate && self.aggregates.is_idle() {
                self.rib.announce(prefix.into(), Source::Local, attributes);
            } else {
                let route = Arc::new(attributes);
                self.aggregates
                    .announce(prefix, route, aggregate, &mut told);
            }
        }
        self.tell_own(told);
    }

    /// Withdraws routes of our own.
    pub fn withdraw(&mut self, prefixes: &[Prefix]) {
        let mut told = Vec::new();
        for prefix in prefixes {
            self.aggregates.withdraw(*prefix, &mut told);
        }
        self.tell_own(told);
    }

    /// Forms these aggregates from now on, instead of those before.
    pub fn set_aggregates(&mut self, aggregates: Vec<Aggregate>) {
        let others: Vec<_> = Family::ALL
            .into_iter()
            .flat_map(|family| self.rib.table.paths_from(family, Source::Local))
            .map(|(nlri, path)| {
                let route = self.rib.table.attributes(path.attributes).clone();
                (nlri.prefix, route)
            })
            .collect();
        let mut told = Vec::new();
        let routes = routes_of(aggregates, &self.local);
        self.aggregates.reconfigure(routes, others, &mut told);
        self.tell_own(told);
    }

    fn tell_own(&mut self, told: Vec<(Prefix, Option<Arc<RouteAttributes>>)>) {
        for (prefix, route) in told {
            match route {
                Some(route) => {
                    let route = Arc::unwrap_or_clone(route);
                    self.rib.announce(prefix.into(), Source::Local, route);
                }
                None => self.rib.withdraw(prefix.into(), Source::Local),
            }
        }
        self.changed();
    }
}

/// What is formed from routes of our own.
pub(super) type OwnAggregates = Aggregates<Arc<RouteAttributes>>;
