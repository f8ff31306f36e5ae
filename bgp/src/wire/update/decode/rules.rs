//! What the RFCs say of each attribute: its flags, its length, and what a malformed one leads to.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use crate::wire::attribute::{AttributeCode, AttributeFlags};
use crate::wire::community::LargeCommunity;
use crate::wire::error::{Reason, Verdict};

/// A value of exactly this length.
pub(super) fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], Reason> {
    value.try_into().map_err(|_| Reason::Length(value.len()))
}

/// A value of one or more items of this length.
pub(super) fn list<const N: usize>(value: &[u8]) -> Result<&[[u8; N]], Reason> {
    match value.as_chunks() {
        (items @ [_, ..], []) => Ok(items),
        _ => Err(Reason::Length(value.len())),
    }
}

/// Without the repetitions (RFC 8092 section 5), otherwise in the order given.
pub(super) fn unique(communities: &[[u8; 12]]) -> Vec<LargeCommunity> {
    let mut seen = HashSet::new();
    // Hashing costs more than it saves on the few that routes usually carry.
    let few = communities.len() <= 16;
    let mut kept = Vec::with_capacity(communities.len());
    for octets in communities {
        let community = LargeCommunity::from_octets(*octets);
        let new = match few {
            true => !kept.contains(&community),
            false => seen.insert(community),
        };
        if new {
            kept.push(community);
        }
    }
    kept
}

/// The Optional and Transitive bits of the attributes known here.
pub(super) const fn specified_flags(code: AttributeCode) -> Option<u8> {
    const WELL_KNOWN: u8 = AttributeFlags::TRANSITIVE;
    const OPTIONAL: u8 = AttributeFlags::OPTIONAL;
    match code {
        AttributeCode::ORIGIN
        | AttributeCode::AS_PATH
        | AttributeCode::NEXT_HOP
        | AttributeCode::LOCAL_PREF
        | AttributeCode::ATOMIC_AGGREGATE => Some(WELL_KNOWN),
        AttributeCode::MED
        | AttributeCode::ORIGINATOR_ID
        | AttributeCode::CLUSTER_LIST
        | AttributeCode::MP_REACH_NLRI
        | AttributeCode::MP_UNREACH_NLRI => Some(OPTIONAL),
        AttributeCode::AGGREGATOR
        | AttributeCode::COMMUNITIES
        | AttributeCode::EXT_COMMUNITIES
        | AttributeCode::IPV6_EXT_COMMUNITIES
        | AttributeCode::LARGE_COMMUNITIES
        | AttributeCode::OTC
        | AttributeCode::AS4_PATH
        | AttributeCode::AS4_AGGREGATOR => Some(OPTIONAL | AttributeFlags::TRANSITIVE),
        _ => None,
    }
}

/// What a malformed value leads to (RFC 7606 sections 3 e, 3 f and 7; RFC 6793 section 6).
pub(super) const fn malformed(code: AttributeCode) -> Verdict {
    match code {
        AttributeCode::ATOMIC_AGGREGATE
        | AttributeCode::AGGREGATOR
        | AttributeCode::AS4_PATH
        | AttributeCode::AS4_AGGREGATOR => Verdict::AttributeDiscard,
        _ => Verdict::TreatAsWithdraw,
    }
}

/// Whether the address can be that of a host: not "this network", loopback, multicast, broadcast.
pub(super) const fn is_host(address: Ipv4Addr) -> bool {
    address.octets()[0] != 0
        && !address.is_loopback()
        && !address.is_multicast()
        && !address.is_broadcast()
}

/// The type codes seen in one message.
#[derive(Default)]
pub(super) struct CodeSet([u64; 4]);

impl CodeSet {
    pub(super) fn insert(&mut self, code: AttributeCode) -> bool {
        let new = !self.contains(code);
        self.0[usize::from(code.0 >> 6)] |= 1 << (code.0 & 63);
        new
    }

    pub(super) fn contains(&self, code: AttributeCode) -> bool {
        self.0[usize::from(code.0 >> 6)] & (1 << (code.0 & 63)) != 0
    }

    pub(super) fn any_but(&self, code: AttributeCode) -> bool {
        let mut others = self.0;
        others[usize::from(code.0 >> 6)] &= !(1 << (code.0 & 63));
        others.iter().any(|word| *word != 0)
    }
}
