//! What a plane is asked to hold: forwarding entries, named without any word of the kernel.
//!
//! The planner makes them from records, a plane turns them into its own objects. An entry never
//! depends on the order in which records arrived.

use std::fmt;
use std::net::IpAddr;

use bgp::Prefix;
use serde::{Deserialize, Serialize};

use crate::record::{LinkId, Mac, Mode, Vni};

/// A CCSI as planes see it: the set of VPCs that may reach one another, one routing table.
///
/// It is the lowest VNI among the VPCs of the CCSI (a VPC in no CCSI is alone), so two agents, or
/// one before and after a restart, agree on it without having kept anything.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct ScopeId(pub Vni);

impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scope {}", self.0)
    }
}

/// What an entry is about; one key holds at most one value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EntryKey {
    /// VXLAN packets with this VNI, from a source in this subnet, are the VPC's own.
    Source {
        /// VNI of the VPC.
        vni: Vni,
        /// One of the VPC's subnets.
        subnet: Prefix,
    },
    /// An address that packets of a scope may be sent to.
    Endpoint {
        /// Where the address is known; another scope may hold the same one.
        scope: ScopeId,
        /// Address of a VM, or VIP of an SLB.
        addr: IpAddr,
    },
    /// One classic prefix joined with one subnet of the linked VPC.
    Permit {
        /// The link this comes from.
        link: LinkId,
        /// VNI of the linked VPC.
        vni: Vni,
        /// One of the VPC's subnets.
        subnet: Prefix,
        /// One of the link's classic prefixes.
        classic: Prefix,
    },
}

impl fmt::Display for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntryKey::Source { vni, subnet } => write!(f, "source vni {vni} subnet {subnet}"),
            EntryKey::Endpoint { scope, addr } => write!(f, "endpoint {addr} in {scope}"),
            EntryKey::Permit {
                link,
                vni,
                subnet,
                classic,
            } => {
                write!(
                    f,
                    "permit of link {link}: vni {vni} subnet {subnet} with {classic}"
                )
            }
        }
    }
}

/// What a key maps to. The variant always matches the key's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EntryValue {
    /// See [`EntryKey::Source`].
    Source {
        /// Where such packets are looked up.
        scope: ScopeId,
    },
    /// See [`EntryKey::Endpoint`].
    Endpoint {
        /// VNI to encapsulate with: that of the VPC the address belongs to.
        vni: Vni,
        /// At least one; several for an SLB, which share load per flow by weight. Sorted.
        hops: Vec<Hop>,
    },
    /// See [`EntryKey::Permit`].
    Permit {
        /// Where packets from the IDC are looked up.
        scope: ScopeId,
        /// Which side may open connections.
        mode: Mode,
        /// DSCP of the outer header, 0..=63; copied from the inner one when absent.
        dscp: Option<u8>,
    },
}

/// One place that serves an endpoint.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
pub struct Hop {
    /// Outer destination: the VTEP of the host or SLB node.
    pub vtep: IpAddr,
    /// Inner destination MAC.
    pub mac: Mac,
    /// Share of the flows, 1..=256, relative to the other hops.
    pub weight: u16,
}
