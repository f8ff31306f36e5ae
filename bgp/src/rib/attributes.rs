//! The attributes of a route that was accepted or is announced, and the pool that shares them.
//!
//! Unlike [`Attributes`] of the wire, nothing mandatory can be missing here. Routes with equal
//! attributes share one allocation, so that comparing and grouping them is comparing pointers.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::Serialize;

use crate::wire::{AsPath, Attributes, Community, NextHop, Origin};

mod rare;

pub use rare::{Rare, RareAttributes};

/// What a route says beside its prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct RouteAttributes {
    /// Where to send the packets; IPv6 routes may carry a link-local address beside the global one.
    #[serde(serialize_with = "as_text")]
    pub next_hop: NextHop,
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH; empty for a route of our own AS.
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// LOCAL_PREF: only on routes from or to internal peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub atomic_aggregate: bool,
    /// COMMUNITIES.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub communities: Box<[Community]>,
    /// What few routes carry.
    #[serde(flatten)]
    pub rare: Rare,
}

fn as_text<S: serde::Serializer>(next_hop: &NextHop, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&next_hop.addr())
}

impl RouteAttributes {
    /// LOCAL_PREF of a route that carries none (RFC 4271 section 9.1.1 leaves it to us; 100 is
    /// what everybody uses).
    pub const DEFAULT_LOCAL_PREF: u32 = 100;

    /// A route of our own: ORIGIN IGP, an empty path.
    pub fn originated(next_hop: NextHop) -> RouteAttributes {
        RouteAttributes {
            next_hop,
            origin: Origin::Igp,
            as_path: AsPath::empty(),
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            communities: [].into(),
            rare: Rare::default(),
        }
    }

    /// The attributes of an UPDATE, for the routes in it that have this next hop; `None` if a
    /// mandatory one is missing, which the decoder does not let happen.
    pub fn received(attributes: &Attributes, next_hop: NextHop) -> Option<RouteAttributes> {
        Some(RouteAttributes {
            next_hop,
            origin: attributes.origin?,
            as_path: attributes.as_path.clone()?,
            med: attributes.med,
            local_pref: attributes.local_pref,
            atomic_aggregate: attributes.atomic_aggregate,
            communities: attributes.communities.as_slice().into(),
            rare: Rare::received(attributes),
        })
    }

    /// The attributes as the wire wants them; the next hop goes beside them.
    pub fn to_wire(&self) -> Attributes {
        let mut attributes = Attributes {
            origin: Some(self.origin),
            as_path: Some(self.as_path.clone()),
            med: self.med,
            local_pref: self.local_pref,
            atomic_aggregate: self.atomic_aggregate,
            communities: self.communities.to_vec(),
            ..Attributes::default()
        };
        self.rare.write_to(&mut attributes);
        attributes
    }

    /// The degree of preference (RFC 4271 section 9.1.1).
    pub fn preference(&self) -> u32 {
        self.local_pref.unwrap_or(Self::DEFAULT_LOCAL_PREF)
    }
}

/// A pool in which equal attributes exist once.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    pool: HashSet<ByValue>,
    // Size at which to look for attributes that no route uses any more.
    sweep_at: usize,
}

const SWEEP_LEAST: usize = 1024;

#[derive(Debug)]
struct ByValue(Arc<RouteAttributes>);

impl PartialEq for ByValue {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for ByValue {}

impl Hash for ByValue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl std::borrow::Borrow<RouteAttributes> for ByValue {
    fn borrow(&self) -> &RouteAttributes {
        &self.0
    }
}

impl Interner {
    /// The shared copy of these attributes.
    pub(crate) fn intern(&mut self, attributes: RouteAttributes) -> Arc<RouteAttributes> {
        if let Some(known) = self.pool.get(&attributes) {
            return known.0.clone();
        }
        if self.pool.len() >= self.sweep_at {
            self.pool.retain(|entry| Arc::strong_count(&entry.0) > 1);
            self.sweep_at = (self.pool.len() * 2).max(SWEEP_LEAST);
        }
        let shared = Arc::new(attributes);
        self.pool.insert(ByValue(shared.clone()));
        shared
    }

    /// How many different sets are held, unused ones included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.pool.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn via(last: u8, med: u32) -> RouteAttributes {
        let next_hop = NextHop::V4(Ipv4Addr::new(10, 0, 0, last));
        RouteAttributes {
            med: Some(med),
            ..RouteAttributes::originated(next_hop)
        }
    }

    #[test]
    fn equal_attributes_are_one_allocation() {
        let mut interner = Interner::default();
        let (a, b) = (interner.intern(via(1, 5)), interner.intern(via(1, 5)));
        assert!(Arc::ptr_eq(&a, &b));
        assert!(!Arc::ptr_eq(&a, &interner.intern(via(2, 5))));
        assert_eq!(interner.len(), 2);
    }

    #[test]
    fn the_pool_does_not_grow_with_what_is_gone() {
        let mut interner = Interner::default();
        let kept = interner.intern(via(1, 0));
        for med in 0..100_000 {
            interner.intern(via(2, med));
        }
        assert!(interner.len() <= 2 * SWEEP_LEAST, "{} sets", interner.len());
        assert!(Arc::ptr_eq(&kept, &interner.intern(via(1, 0))));
    }

    #[test]
    fn the_wire_and_back_is_the_same() {
        let attributes = via(1, 7);
        let back = RouteAttributes::received(&attributes.to_wire(), attributes.next_hop);
        assert_eq!(back, Some(attributes));
        assert_eq!(
            RouteAttributes::received(&Attributes::default(), via(1, 7).next_hop),
            None
        );
    }
}
