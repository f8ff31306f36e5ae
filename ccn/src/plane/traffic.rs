//! What a plane counts of links and VPCs, the last packet that it dropped for each reason, and the
//! headers of packets that it is asked to sample.
//!
//! Counts grow from the time the plane was first prepared; what has gone is no longer counted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use serde::Serialize;

use super::Count;
use crate::record::{LinkId, Vni};

/// Counts of a link or a VPC. Octets are those of the inner IP packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct TwoWays {
    /// Sent to the VPC.
    pub to_vpc: Count,
    /// Received from the VPC and forwarded.
    pub from_vpc: Count,
    /// Dropped, whichever way they went.
    pub dropped: Count,
}

/// A packet, as operators are shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Header {
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
    /// The link that it passed or would have passed, where one is known.
    pub link: Option<LinkId>,
}

/// The last packet that was dropped for a reason.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Sample {
    /// Seconds before it was asked for.
    pub ago_s: f64,
    /// The packet.
    #[serde(flatten)]
    pub header: Header,
}

/// Which packets are to be sampled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Those that are dropped.
    pub drops: bool,
    /// Those that are forwarded.
    pub forwarded: bool,
    /// Those of this link alone; packets of which no link is known are not among them.
    pub link: Option<LinkId>,
    /// Those from or to one of these alone; empty: all.
    pub addrs: BTreeSet<IpAddr>,
}

impl Wanted {
    /// What all of them want together, and perhaps more; `None` when there are none.
    #[must_use]
    pub fn union<'a>(all: impl IntoIterator<Item = &'a Wanted>) -> Option<Wanted> {
        let mut all = all.into_iter();
        let mut union = all.next()?.clone();
        for other in all {
            union.drops |= other.drops;
            union.forwarded |= other.forwarded;
            union.link = union.link.filter(|link| Some(link) == other.link.as_ref());
            if other.addrs.is_empty() {
                union.addrs.clear();
            } else if !union.addrs.is_empty() {
                union.addrs.extend(&other.addrs);
            }
        }
        Some(union)
    }

    /// Whether this packet is among those wanted.
    #[must_use]
    pub fn includes(&self, packet: &Sampled) -> bool {
        let header = &packet.header;
        let verdict = match packet.reason {
            Some(_) => self.drops,
            None => self.forwarded,
        };
        let mut ends = [header.src, header.dst].into_iter();
        verdict
            && (self.link.is_none() || self.link == header.link)
            && (self.addrs.is_empty() || ends.any(|addr| self.addrs.contains(&addr)))
    }
}

/// A packet that was sampled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampled {
    /// When a program saw it.
    pub at: SystemTime,
    /// Why it was dropped, by name; none: it was forwarded.
    pub reason: Option<&'static str>,
    /// The packet.
    pub header: Header,
}

/// Flows over links of mode `classic-to-vpc`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Flows {
    /// Begun since the plane was first prepared.
    pub begun: u64,
    /// Forgotten because others needed the room.
    pub evicted: u64,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted() -> impl Strategy<Value = Wanted> {
        let link = prop::option::of(prop::sample::select(vec!["web", "db"]));
        let addrs = prop::collection::btree_set(0..4u8, 0..3);
        (any::<(bool, bool)>(), link, addrs).prop_map(|((drops, forwarded), link, addrs)| Wanted {
            drops,
            forwarded,
            link: link.map(|link| link.parse().expect("a link")),
            addrs: addrs.into_iter().map(addr).collect(),
        })
    }

    fn addr(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn sampled() -> impl Strategy<Value = Sampled> {
        let reason = prop::option::of(Just("no-link"));
        let link = prop::option::of(prop::sample::select(vec!["web", "db", "app"]));
        (reason, link, 0..5u8, 0..5u8).prop_map(|(reason, link, src, dst)| Sampled {
            at: SystemTime::UNIX_EPOCH,
            reason,
            header: Header {
                src: addr(src),
                dst: addr(dst),
                protocol: 1,
                src_port: None,
                dst_port: None,
                octets: 84,
                vni: None,
                link: link.map(|link| link.parse().expect("a link")),
            },
        })
    }

    proptest! {
        #[test]
        fn a_union_includes_what_any_of_them_wants(
            all in prop::collection::vec(wanted(), 1..4),
            packet in sampled(),
        ) {
            let union = Wanted::union(&all).expect("of some");
            if all.iter().any(|wanted| wanted.includes(&packet)) {
                prop_assert!(union.includes(&packet), "{union:?}");
            }
            prop_assert_eq!(Wanted::union([&all[0], &all[0]]), Some(all[0].clone()));
        }
    }

    #[test]
    fn nobody_wants_nothing() {
        assert_eq!(Wanted::union([]), None);
    }
}
