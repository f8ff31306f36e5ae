//! The attributes that few routes carry: one pointer a route, nothing behind it for most.

use std::net::Ipv4Addr;
use std::ops::Deref;

use serde::{Serialize, Serializer};

use crate::wire::{
    Aggregator, AttributeFlags, Attributes, ExtendedCommunity, LargeCommunity, PartialSet,
    UnknownAttribute,
};

/// Attributes that few routes carry, each empty or `None` where it is absent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Default)]
pub struct RareAttributes {
    /// AGGREGATOR.
    #[serde(skip)]
    pub aggregator: Option<Aggregator>,
    /// EXTENDED COMMUNITIES.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ext_communities: Vec<ExtendedCommunity>,
    /// LARGE_COMMUNITY.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub large_communities: Vec<LargeCommunity>,
    /// Only to Customer (RFC 9234 section 5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otc: Option<u32>,
    /// ORIGINATOR_ID: only on routes from or to internal peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST: only on routes from or to internal peers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cluster_list: Vec<Ipv4Addr>,
    /// Attributes of the route, rare or not, that arrived with the Partial flag.
    #[serde(skip)]
    pub partial: PartialSet,
    /// Attributes not known, as received, in ascending order of their codes.
    #[serde(skip)]
    pub unknown: Vec<UnknownAttribute>,
}

static NONE: RareAttributes = RareAttributes {
    aggregator: None,
    ext_communities: Vec::new(),
    large_communities: Vec::new(),
    otc: None,
    originator_id: None,
    cluster_list: Vec::new(),
    partial: PartialSet::NONE,
    unknown: Vec::new(),
};

impl RareAttributes {
    /// Makes a learned set fit to be told to an internal or an external peer: unknown
    /// non-transitive attributes go, unknown transitive ones get the Partial flag (RFC 4271
    /// section 5); what is for this AS alone does not leave it (RFC 4456 section 8, RFC 4360
    /// section 6).
    pub fn prepare_for_passing_on(&mut self, internal: bool) {
        self.unknown
            .retain(|attribute| attribute.flags.transitive());
        for attribute in &mut self.unknown {
            attribute.flags.0 |= AttributeFlags::PARTIAL;
        }
        if !internal {
            self.originator_id = None;
            self.cluster_list.clear();
            self.ext_communities
                .retain(|community| community.is_transitive());
        }
    }
}

/// The [`RareAttributes`] of a route, read through [`Deref`] and written with [`Rare::change`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Rare(
    // Never a box of what is in NONE: equal attributes are equal values.
    Option<Box<RareAttributes>>,
);

impl Deref for Rare {
    type Target = RareAttributes;

    fn deref(&self) -> &RareAttributes {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl Serialize for Rare {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl From<RareAttributes> for Rare {
    fn from(attributes: RareAttributes) -> Self {
        Rare((attributes != NONE).then(|| Box::new(attributes)))
    }
}

impl Rare {
    /// Lets `change` set or clear some of them.
    pub fn change(&mut self, change: impl FnOnce(&mut RareAttributes)) {
        let mut attributes = self.0.take().unwrap_or_default();
        change(&mut attributes);
        self.0 = (*attributes != NONE).then_some(attributes);
    }

    /// Those of an UPDATE.
    pub(super) fn received(attributes: &Attributes) -> Rare {
        let none = attributes.aggregator.is_none()
            && attributes.ext_communities.is_empty()
            && attributes.large_communities.is_empty()
            && attributes.otc.is_none()
            && attributes.originator_id.is_none()
            && attributes.cluster_list.is_empty()
            && attributes.partial.is_empty()
            && attributes.unknown.is_empty();
        if none {
            return Rare(None);
        }
        Rare(Some(Box::new(RareAttributes {
            aggregator: attributes.aggregator,
            ext_communities: attributes.ext_communities.clone(),
            large_communities: attributes.large_communities.clone(),
            otc: attributes.otc,
            originator_id: attributes.originator_id,
            cluster_list: attributes.cluster_list.clone(),
            partial: attributes.partial,
            unknown: attributes.unknown.clone(),
        })))
    }

    /// Puts them beside the others.
    pub(super) fn write_to(&self, attributes: &mut Attributes) {
        let Some(rare) = &self.0 else { return };
        attributes.aggregator = rare.aggregator;
        attributes.ext_communities = rare.ext_communities.clone();
        attributes.large_communities = rare.large_communities.clone();
        attributes.otc = rare.otc;
        attributes.originator_id = rare.originator_id;
        attributes.cluster_list = rare.cluster_list.clone();
        attributes.partial = rare.partial;
        attributes.unknown = rare.unknown.clone();
    }
}

#[cfg(test)]
mod tests {
    use crate::wire::AttributeCode;

    use super::*;

    #[test]
    fn what_is_for_this_as_does_not_leave_it() {
        let transitive: ExtendedCommunity = "rt:65001:1".parse().expect("a community");
        let mut local = transitive;
        local.0[0] |= 0x40;
        let unknown = |code, flags| UnknownAttribute {
            flags: AttributeFlags(flags),
            code: AttributeCode(code),
            value: [].into(),
        };
        let learned = RareAttributes {
            ext_communities: vec![transitive, local],
            originator_id: Some(Ipv4Addr::LOCALHOST),
            cluster_list: vec![Ipv4Addr::LOCALHOST],
            unknown: vec![unknown(200, 0xc0), unknown(201, 0x80)],
            ..RareAttributes::default()
        };
        for internal in [false, true] {
            let mut told = learned.clone();
            told.prepare_for_passing_on(internal);
            assert_eq!(told.unknown, [unknown(200, 0xe0)]);
            assert_eq!(told.ext_communities.len(), 1 + usize::from(internal));
            assert_eq!(told.originator_id.is_some(), internal);
            assert_eq!(told.cluster_list.is_empty(), !internal);
        }
    }

    #[test]
    fn the_partial_flag_stays() {
        let mut partial = PartialSet::NONE;
        partial.insert(AttributeCode::COMMUNITIES);
        let learned = Attributes {
            communities: vec![crate::wire::Community(1)],
            partial,
            ..Attributes::default()
        };
        let mut rare = Rare::received(&learned);
        rare.change(|rare| rare.prepare_for_passing_on(false));
        let mut told = Attributes::default();
        rare.write_to(&mut told);
        assert_eq!(told.partial, partial);
    }

    #[test]
    fn what_is_cleared_again_was_never_there() {
        let mut rare = Rare::default();
        assert_eq!(rare.otc, None);
        rare.change(|rare| rare.otc = Some(65001));
        assert_eq!(rare.otc, Some(65001));
        assert_ne!(rare, Rare::default());
        rare.change(|rare| rare.otc = None);
        assert_eq!(rare, Rare::default());
        assert_eq!(Rare::from(RareAttributes::default()), Rare::default());
    }
}
