//! UPDATE (RFC 4271 section 4.3, RFC 4760): routes that come and routes that go.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod decode;
mod encode;

pub(super) use encode::{put_attributes, put_family, put_mp_header, put_reach_fields, put_sized};

use crate::wire::attribute::Attributes;
use crate::wire::nlri::Nlri;
use crate::wire::prefix::{AfiSafi, Family};

/// An UPDATE message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Update {
    /// IPv4 routes that go.
    pub withdrawn: Vec<Nlri>,
    /// Attributes of every route that comes.
    pub attributes: Attributes,
    /// IPv4 routes that come, with the next hop of [`Attributes::next_hop`].
    pub nlri: Vec<Nlri>,
    /// Routes that come with a next hop of their own (MP_REACH_NLRI).
    pub mp_reach: Option<MpReach>,
    /// Routes that go (MP_UNREACH_NLRI).
    pub mp_unreach: Option<MpUnreach>,
}

/// MP_REACH_NLRI (RFC 4760 section 3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MpReach {
    /// Of a family this speaker carries.
    Unicast {
        /// The family of all the routes.
        family: Family,
        /// The next hop of all the routes.
        next_hop: NextHop,
        /// The routes.
        nlri: Vec<Nlri>,
    },
    /// Of any other family, as received.
    Other {
        /// The family.
        family: AfiSafi,
        /// Next hop, at most 255 octets.
        next_hop: Box<[u8]>,
        /// NLRI.
        nlri: Box<[u8]>,
    },
}

/// MP_UNREACH_NLRI (RFC 4760 section 4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MpUnreach {
    /// Of a family this speaker carries.
    Unicast {
        /// The family of all the routes.
        family: Family,
        /// The routes.
        nlri: Vec<Nlri>,
    },
    /// Of any other family, as received.
    Other {
        /// The family.
        family: AfiSafi,
        /// NLRI.
        nlri: Box<[u8]>,
    },
}

/// Where to send the packets of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// 4 octets.
    V4(Ipv4Addr),
    /// 16 octets.
    V6(Ipv6Addr),
    /// 32 octets: global and link-local (RFC 2545 section 3).
    V6WithLinkLocal {
        /// The global address.
        global: Ipv6Addr,
        /// The link-local address.
        link_local: Ipv6Addr,
    },
}

impl NextHop {
    /// The (global) address.
    pub const fn addr(&self) -> IpAddr {
        match *self {
            NextHop::V4(address) => IpAddr::V4(address),
            NextHop::V6(address)
            | NextHop::V6WithLinkLocal {
                global: address, ..
            } => IpAddr::V6(address),
        }
    }

    /// The link-local address that came with a global one.
    pub const fn link_local(&self) -> Option<Ipv6Addr> {
        match *self {
            NextHop::V6WithLinkLocal { link_local, .. } => Some(link_local),
            _ => None,
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => NextHop::V4(address),
            IpAddr::V6(address) => NextHop::V6(address),
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr().fmt(f)?;
        match self.link_local() {
            Some(link_local) => write!(f, " ({link_local})"),
            None => Ok(()),
        }
    }
}

/// Routes of one family and next hop within an UPDATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach<'a> {
    /// The family of all the routes.
    pub family: Family,
    /// The next hop of all the routes.
    pub next_hop: NextHop,
    /// The routes.
    pub nlri: &'a [Nlri],
}

impl Update {
    /// The End-of-RIB marker of a family (RFC 4724 section 2).
    pub fn end_of_rib(family: Family) -> Update {
        Update {
            mp_unreach: match family {
                Family::Ipv4Unicast => None,
                family => Some(MpUnreach::Unicast {
                    family,
                    nlri: Vec::new(),
                }),
            },
            ..Update::default()
        }
    }

    /// The family this message marks the End-of-RIB of, if it does.
    pub fn end_of_rib_family(&self) -> Option<AfiSafi> {
        let nothing_else = self.withdrawn.is_empty()
            && self.nlri.is_empty()
            && self.mp_reach.is_none()
            && self.attributes.is_empty();
        if !nothing_else {
            return None;
        }
        match &self.mp_unreach {
            None => Some(Family::Ipv4Unicast.into()),
            Some(MpUnreach::Unicast { family, nlri }) => {
                nlri.is_empty().then_some((*family).into())
            }
            Some(MpUnreach::Other { family, nlri }) => nlri.is_empty().then_some(*family),
        }
    }

    /// The routes that come, with their next hops.
    pub fn reachable(&self) -> impl Iterator<Item = Reach<'_>> {
        let classic = self.attributes.next_hop.map(|next_hop| Reach {
            family: Family::Ipv4Unicast,
            next_hop: NextHop::V4(next_hop),
            nlri: &self.nlri,
        });
        let multiprotocol = match &self.mp_reach {
            Some(MpReach::Unicast {
                family,
                next_hop,
                nlri,
            }) => Some(Reach {
                family: *family,
                next_hop: *next_hop,
                nlri,
            }),
            _ => None,
        };
        classic
            .into_iter()
            .chain(multiprotocol)
            .filter(|reach| !reach.nlri.is_empty())
    }

    /// The routes that go.
    pub fn unreachable(&self) -> impl Iterator<Item = Nlri> + '_ {
        let multiprotocol = match &self.mp_unreach {
            Some(MpUnreach::Unicast { nlri, .. }) => nlri.as_slice(),
            _ => &[],
        };
        self.withdrawn.iter().chain(multiprotocol).copied()
    }

    /// Every route named, coming or going: what goes when the message is treated as a withdrawal
    /// (RFC 7606 section 2).
    pub fn treated_as_withdraw(&self) -> impl Iterator<Item = Nlri> + '_ {
        let multiprotocol = match &self.mp_reach {
            Some(MpReach::Unicast { nlri, .. }) => nlri.as_slice(),
            _ => &[],
        };
        self.unreachable()
            .chain(self.nlri.iter().copied())
            .chain(multiprotocol.iter().copied())
    }
}
