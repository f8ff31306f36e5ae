//! Path attributes (RFC 4271 sections 4.3 and 5): the typed set a route carries.
//!
//! MP_REACH_NLRI and MP_UNREACH_NLRI are no properties of a route; they stand in
//! [`super::update`]. AS4_PATH and AS4_AGGREGATOR never show: they are merged on the way in.

use std::fmt;
use std::net::Ipv4Addr;

use serde::ser::{Serialize, Serializer};

use crate::wire::as_path::AsPath;
use crate::wire::community::{Community, ExtendedCommunity, LargeCommunity};

/// The AS number that stands for any that does not fit 2 octets (RFC 6793).
pub const AS_TRANS: u16 = 23456;

/// An attribute type code, known or not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeCode(pub u8);

impl AttributeCode {
    /// RFC 4271 section 5.1.1.
    pub const ORIGIN: AttributeCode = AttributeCode(1);
    /// RFC 4271 section 5.1.2.
    pub const AS_PATH: AttributeCode = AttributeCode(2);
    /// RFC 4271 section 5.1.3.
    pub const NEXT_HOP: AttributeCode = AttributeCode(3);
    /// MULTI_EXIT_DISC, RFC 4271 section 5.1.4.
    pub const MED: AttributeCode = AttributeCode(4);
    /// RFC 4271 section 5.1.5.
    pub const LOCAL_PREF: AttributeCode = AttributeCode(5);
    /// RFC 4271 section 5.1.6.
    pub const ATOMIC_AGGREGATE: AttributeCode = AttributeCode(6);
    /// RFC 4271 section 5.1.7.
    pub const AGGREGATOR: AttributeCode = AttributeCode(7);
    /// RFC 1997.
    pub const COMMUNITIES: AttributeCode = AttributeCode(8);
    /// RFC 4456 section 8.
    pub const ORIGINATOR_ID: AttributeCode = AttributeCode(9);
    /// RFC 4456 section 8.
    pub const CLUSTER_LIST: AttributeCode = AttributeCode(10);
    /// RFC 4760 section 3.
    pub const MP_REACH_NLRI: AttributeCode = AttributeCode(14);
    /// RFC 4760 section 4.
    pub const MP_UNREACH_NLRI: AttributeCode = AttributeCode(15);
    /// EXTENDED COMMUNITIES, RFC 4360.
    pub const EXT_COMMUNITIES: AttributeCode = AttributeCode(16);
    /// RFC 6793.
    pub const AS4_PATH: AttributeCode = AttributeCode(17);
    /// RFC 6793.
    pub const AS4_AGGREGATOR: AttributeCode = AttributeCode(18);
    /// IPv6 Address Specific Extended Community, RFC 5701. Checked, but kept among the unknown.
    pub const IPV6_EXT_COMMUNITIES: AttributeCode = AttributeCode(25);
    /// LARGE_COMMUNITY, RFC 8092.
    pub const LARGE_COMMUNITIES: AttributeCode = AttributeCode(32);
    /// Only to Customer, RFC 9234 section 5.
    pub const OTC: AttributeCode = AttributeCode(35);

    /// The name in the RFCs, when the code is one we know.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            AttributeCode::ORIGIN => "ORIGIN",
            AttributeCode::AS_PATH => "AS_PATH",
            AttributeCode::NEXT_HOP => "NEXT_HOP",
            AttributeCode::MED => "MULTI_EXIT_DISC",
            AttributeCode::LOCAL_PREF => "LOCAL_PREF",
            AttributeCode::ATOMIC_AGGREGATE => "ATOMIC_AGGREGATE",
            AttributeCode::AGGREGATOR => "AGGREGATOR",
            AttributeCode::COMMUNITIES => "COMMUNITIES",
            AttributeCode::ORIGINATOR_ID => "ORIGINATOR_ID",
            AttributeCode::CLUSTER_LIST => "CLUSTER_LIST",
            AttributeCode::MP_REACH_NLRI => "MP_REACH_NLRI",
            AttributeCode::MP_UNREACH_NLRI => "MP_UNREACH_NLRI",
            AttributeCode::EXT_COMMUNITIES => "EXTENDED_COMMUNITIES",
            AttributeCode::AS4_PATH => "AS4_PATH",
            AttributeCode::AS4_AGGREGATOR => "AS4_AGGREGATOR",
            AttributeCode::IPV6_EXT_COMMUNITIES => "IPV6_EXTENDED_COMMUNITIES",
            AttributeCode::LARGE_COMMUNITIES => "LARGE_COMMUNITY",
            AttributeCode::OTC => "ONLY_TO_CUSTOMER",
            _ => return None,
        })
    }
}

impl fmt::Display for AttributeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "attribute {}", self.0),
        }
    }
}

impl fmt::Debug for AttributeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The flags octet of an attribute (RFC 4271 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeFlags(pub u8);

impl AttributeFlags {
    /// Optional, as opposed to well-known.
    pub const OPTIONAL: u8 = 0x80;
    /// Passed on even by those who do not know it.
    pub const TRANSITIVE: u8 = 0x40;
    /// Someone on the way did not know it.
    pub const PARTIAL: u8 = 0x20;
    /// The length takes two octets.
    pub const EXTENDED_LENGTH: u8 = 0x10;

    /// Whether the attribute is optional.
    pub const fn optional(self) -> bool {
        self.0 & Self::OPTIONAL != 0
    }

    /// Whether the attribute is transitive.
    pub const fn transitive(self) -> bool {
        self.0 & Self::TRANSITIVE != 0
    }

    /// Whether someone on the way did not know the attribute.
    pub const fn partial(self) -> bool {
        self.0 & Self::PARTIAL != 0
    }
}

/// Known attributes that somebody on the way did not know: whoever passes them on leaves their
/// Partial flag as it is (RFC 4271 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartialSet(u8);

impl PartialSet {
    /// None of them.
    pub const NONE: PartialSet = PartialSet(0);

    /// Those that are optional and transitive; AS4_PATH and AS4_AGGREGATOR are made anew.
    const fn bit(code: AttributeCode) -> u8 {
        match code {
            AttributeCode::AGGREGATOR => 1,
            AttributeCode::COMMUNITIES => 1 << 1,
            AttributeCode::EXT_COMMUNITIES => 1 << 2,
            AttributeCode::LARGE_COMMUNITIES => 1 << 3,
            AttributeCode::OTC => 1 << 4,
            _ => 0,
        }
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the attribute is one of them.
    pub const fn contains(self, code: AttributeCode) -> bool {
        self.0 & PartialSet::bit(code) != 0
    }

    /// Adds an attribute, if the flag means something on it.
    pub const fn insert(&mut self, code: AttributeCode) {
        self.0 |= PartialSet::bit(code);
    }
}

/// ORIGIN (RFC 4271 section 5.1.1). Lower is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Origin {
    /// Interior to the originating AS.
    Igp = 0,
    /// Learned through EGP.
    Egp = 1,
    /// Learned otherwise.
    Incomplete = 2,
}

impl Origin {
    /// The value of an ORIGIN attribute.
    pub const fn from_octet(octet: u8) -> Option<Origin> {
        match octet {
            0 => Some(Origin::Igp),
            1 => Some(Origin::Egp),
            2 => Some(Origin::Incomplete),
            _ => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Igp => "igp",
            Origin::Egp => "egp",
            Origin::Incomplete => "incomplete",
        })
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// AGGREGATOR (RFC 4271 section 5.1.7), its AS number always with 4 octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aggregator {
    /// AS of the speaker that formed the aggregate; never 0 when received (RFC 7607).
    pub asn: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
}

/// An attribute this speaker does not know, kept as received.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownAttribute {
    /// Optional, Transitive and Partial bit as received; the Optional one is always set.
    pub flags: AttributeFlags,
    /// Type code.
    pub code: AttributeCode,
    /// Value, at most 65535 octets.
    pub value: Box<[u8]>,
}

/// The path attributes of a route.
///
/// Everything is optional because an UPDATE that only withdraws has none; an UPDATE that is
/// accepted with reachable routes always has `origin` and `as_path`, and for routes in the
/// classic NLRI field `next_hop`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Option<Origin>,
    /// AS_PATH, AS4_PATH merged in.
    pub as_path: Option<AsPath>,
    /// NEXT_HOP: of the routes in the classic NLRI field only.
    pub next_hop: Option<Ipv4Addr>,
    /// MULTI_EXIT_DISC. Lower is preferred.
    pub med: Option<u32>,
    /// LOCAL_PREF: only between internal peers. Higher is preferred.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR, AS4_AGGREGATOR merged in.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES, in the order received.
    pub communities: Vec<Community>,
    /// EXTENDED COMMUNITIES, in the order received.
    pub ext_communities: Vec<ExtendedCommunity>,
    /// LARGE_COMMUNITY, in the order received, each once.
    pub large_communities: Vec<LargeCommunity>,
    /// Only to Customer: the AS that set it (RFC 9234 section 5).
    pub otc: Option<u32>,
    /// ORIGINATOR_ID: only between internal peers.
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST, the nearest reflector first: only between internal peers.
    pub cluster_list: Vec<Ipv4Addr>,
    /// Those of the above that arrived with the Partial flag.
    pub partial: PartialSet,
    /// Attributes not known, in ascending order of their codes.
    pub unknown: Vec<UnknownAttribute>,
}

impl Attributes {
    /// Whether no attribute is present.
    pub fn is_empty(&self) -> bool {
        *self == Attributes::default()
    }
}
