//! What a plane counts of links and VPCs, and the last packet that it dropped for each reason.
//!
//! Counts grow from the time the plane was first prepared; what has gone is no longer counted.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::Count;
use crate::record::{LinkId, Vni};

/// Counts of a link or a VPC. Octets are those of the inner IP packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TwoWays {
    /// Sent to the VPC.
    pub to_vpc: Count,
    /// Received from the VPC and forwarded.
    pub from_vpc: Count,
    /// Dropped, whichever way they went.
    pub dropped: Count,
}

/// A packet, as operators are shown it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds before it was asked for.
    pub ago_s: f64,
    /// Inner source.
    pub src: IpAddr,
    /// Inner destination.
    pub dst: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Source port, of TCP and UDP.
    pub src_port: Option<u16>,
    /// Destination port, of TCP and UDP.
    pub dst_port: Option<u16>,
    /// Octets of the inner IP packet.
    pub octets: u32,
    /// The VNI it came with; none: plain IP from the IDC.
    pub vni: Option<Vni>,
    /// The link that it would have passed, where one is known.
    pub link: Option<LinkId>,
}

/// Flows over links of mode `classic-to-vpc`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Flows {
    /// Begun since the plane was first prepared.
    pub begun: u64,
    /// Known now.
    pub known: u64,
    /// The most there may be: a new one takes the place of the one that was silent longest.
    pub max: u64,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Traffic {
    /// Links that the plane serves.
    pub links: BTreeMap<LinkId, TwoWays>,
    /// VPCs that the plane knows.
    pub vpcs: BTreeMap<Vni, TwoWays>,
    /// The last packet dropped, by the name of the reason.
    pub last_drops: BTreeMap<String, Sample>,
    /// Flows, where the plane tracks them.
    pub flows: Option<Flows>,
}
