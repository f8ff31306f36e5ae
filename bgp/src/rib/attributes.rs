//! The attributes of a route that was accepted or is announced.
//!
//! Unlike [`Attributes`] of the wire, nothing mandatory can be missing here.

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
