//! The forwarding contract as a function: what is to become of a packet, from the records alone.
//!
//! It reads the accepted records and the learned routes, not the plan and not the kernel, so it is
//! a witness that planner and planes are held against. It counts and changes nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use bgp::Prefix;
use serde::Serialize;

use super::LearnedNextHops;
use super::entry::Hop;
use crate::inventory::{EndpointId, Inventory, LinkState, VpcState};
use crate::record::{CcsiId, Dscp, GroupName, LinkId, Mode, Vni, VpcId};

pub mod flow;
pub mod packet;
#[cfg(test)]
mod tests;

use flow::Flows;
pub use packet::{Ingress, Packet};

/// Why a packet is dropped. Planes count under the same names; the numbers are those of `enum reason` in
/// `ccn/bpf/layout.h`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum DropReason {
    /// From the IDC, for an address in no linked subnet.
    NotLinked,
    /// From the IDC, for a linked VPC, from a source that is in no classic prefix of its links.
    NotLinkedSource,
    /// VXLAN with a VNI that no VPC has.
    UnknownVni,
    /// VXLAN, from a source that is in no subnet of the VPC.
    BadSource,
    /// VXLAN, for an address neither in the CCSI nor in a classic prefix linked to the VPC.
    NoLink,
    /// For an address of a VPC that no VM has, and no SLB with a node.
    NoSuchEndpoint,
    /// VXLAN, for a linked classic prefix that no IDC router announces.
    NoIdcRoute,
    /// VXLAN, over a link of mode `classic-to-vpc`, and not a reply.
    NotAReply,
    /// VXLAN that carries neither IPv4 nor IPv6.
    NotIp,
    /// VXLAN for another inner MAC than the gateway's: flooded by a hypervisor.
    OtherMac,
    /// Shorter than its headers say, or with headers that make no sense.
    Malformed,
    /// It would pass, and its TTL or hop limit is used up.
    TtlExceeded,
    /// It would pass, is larger than what its way out takes, and must not be fragmented.
    TooBig,
    /// The kernel refused what it never should; no record leads to it.
    Internal,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [DropReason; 14] = [
        DropReason::NotLinked,
        DropReason::NotLinkedSource,
        DropReason::UnknownVni,
        DropReason::BadSource,
        DropReason::NoLink,
        DropReason::NoSuchEndpoint,
        DropReason::NoIdcRoute,
        DropReason::NotAReply,
        DropReason::NotIp,
        DropReason::OtherMac,
        DropReason::Malformed,
        DropReason::TtlExceeded,
        DropReason::TooBig,
        DropReason::Internal,
    ];

    /// The stable name, in kebab case.
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::NotLinked => "not-linked",
            DropReason::NotLinkedSource => "not-linked-source",
            DropReason::UnknownVni => "unknown-vni",
            DropReason::BadSource => "bad-source",
            DropReason::NoLink => "no-link",
            DropReason::NoSuchEndpoint => "no-such-endpoint",
            DropReason::NoIdcRoute => "no-idc-route",
            DropReason::NotAReply => "not-a-reply",
            DropReason::NotIp => "not-ip",
            DropReason::OtherMac => "other-mac",
            DropReason::Malformed => "malformed",
            DropReason::TtlExceeded => "ttl-exceeded",
            DropReason::TooBig => "too-big",
            DropReason::Internal => "internal",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Verdict {
    /// Into VXLAN, to one of the hops (per flow, by weight).
    Encapsulate {
        /// VNI of the destination's VPC.
        vni: Vni,
        /// At least one.
        hops: Vec<Hop>,
    },
    /// Out of VXLAN, natively to the IDC.
    Forward {
        /// The learned route.
        route: Prefix,
        /// IDC routers; several are ECMP.
        next_hops: LearnedNextHops,
    },
    /// Nowhere.
    Drop {
        /// Why.
        reason: DropReason,
        /// What its sender is told, if anything.
        #[serde(skip_serializing_if = "Option::is_none")]
        answer: Option<Answer>,
    },
}

impl Verdict {
    /// Dropped in silence.
    #[must_use]
    pub fn drop(reason: DropReason) -> Verdict {
        Verdict::Drop {
            reason,
            answer: None,
        }
    }
}

/// An ICMP error, sent from the gateway's address on the IDC's side to the packet's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "IcmpAnswer")]
#[serde(tag = "error", rename_all = "kebab-case")]
pub enum Answer {
    /// Time exceeded in transit (RFC 792, RFC 4443 section 3.3).
    TimeExceeded,
    /// Fragmentation needed (RFC 1191), packet too big (RFC 4443 section 3.2).
    TooBig {
        /// The largest packet that passes, in octets.
        mtu: usize,
    },
}

/// The largest IP packets that the gateway sends on, in octets; where it is not given, packets of
/// every size pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mtus {
    /// To a VPC, without what VXLAN puts around it.
    pub vpc: Option<usize>,
    /// To the IDC.
    pub idc: Option<usize>,
}

/// A place of an address in a VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Place {
    /// The VPC.
    pub vpc: VpcId,
    /// Its VNI.
    pub vni: Vni,
    /// Its CCSI, if it is in one.
    pub ccsi: Option<CcsiId>,
    /// The subnet that holds the address; none when the address is not the VPC's.
    pub subnet: Option<Prefix>,
    /// The VM or SLB that has the address.
    pub endpoint: Option<EndpointId>,
}

/// The link that lets a packet pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Pass {
    /// The link.
    pub link: LinkId,
    /// Its classic prefix that holds the classic address: the longest, if there are several.
    pub classic: Prefix,
    /// Who may open connections.
    pub mode: Mode,
    /// DSCP of the outer header, if the link sets one.
    pub dscp: Option<Dscp>,
}

/// A verdict, and all that was found on the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Trace {
    /// Where the source is, for VXLAN with a known VNI.
    pub source: Option<Place>,
    /// The link that was used, if one was.
    pub link: Option<Pass>,
    /// Where the destination is, if it is in a VPC that the packet may reach.
    pub destination: Option<Place>,
    /// What becomes of the packet.
    pub verdict: Verdict,
}

/// What the contract is a function of.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    /// The records.
    pub inventory: &'a Inventory,
    /// The gateway's group: links of others are not served.
    pub group: &'a GroupName,
    /// Routes learned from the IDC.
    pub learned: &'a BTreeMap<Prefix, LearnedNextHops>,
    /// What classic hosts opened where only they may.
    pub flows: &'a Flows,
    /// How large packets may be.
    pub mtus: Mtus,
}

impl<'a> Model<'a> {
    /// What becomes of a packet (DESIGN section 5). What may not pass at all is dropped for that,
    /// whatever else is wrong with it: an unlinked sender learns nothing.
    pub fn trace(&self, packet: Packet) -> Trace {
        let mut trace = Trace {
            source: None,
            link: None,
            destination: None,
            verdict: Verdict::drop(DropReason::NotLinked),
        };
        let passed = match packet.ingress {
            Ingress::Idc => self.idc_verdict(packet, &mut trace),
            Ingress::Vxlan { vni } => self.vxlan_verdict(vni, packet, &mut trace),
        };
        trace.verdict = self.router_verdict(packet, passed);
        trace
    }

    /// What a router does to a packet that may pass.
    fn router_verdict(&self, packet: Packet, passed: Verdict) -> Verdict {
        let mtu = match passed {
            Verdict::Encapsulate { .. } => self.mtus.vpc,
            Verdict::Forward { .. } => self.mtus.idc,
            Verdict::Drop { .. } => return passed,
        };
        let shape = packet.shape;
        let told = |reason, answer| Verdict::Drop {
            reason,
            answer: (!shape.unanswered).then_some(answer),
        };
        match mtu {
            _ if shape.hop_limit <= 1 => told(DropReason::TtlExceeded, Answer::TimeExceeded),
            Some(mtu) if shape.length > mtu && !shape.may_fragment => {
                told(DropReason::TooBig, Answer::TooBig { mtu })
            }
            _ => passed,
        }
    }

    fn idc_verdict(&self, packet: Packet, trace: &mut Trace) -> Verdict {
        // A link joins the subnets whose family its classic side has.
        let joins = |subnet: &Prefix, vpc: &VpcId| {
            let mut classic = self.links_of(vpc).flat_map(|(_, link)| &link.classic);
            classic.any(|classic| classic.family() == subnet.family())
        };
        let linked = self.inventory.linked_vpc(packet.dst);
        let Some((subnet, vpc)) = linked.filter(|(subnet, vpc)| joins(subnet, vpc)) else {
            return Verdict::drop(DropReason::NotLinked);
        };
        let Some(state) = self.inventory.vpc(vpc) else {
            return Verdict::drop(DropReason::NotLinked);
        };
        trace.destination = Some(self.place(vpc, &state, Some(subnet), packet.dst));
        trace.link = self.pass(vpc, packet.src);
        if trace.link.is_none() {
            return Verdict::drop(DropReason::NotLinkedSource);
        }
        self.endpoint_verdict(vpc, &state, packet.dst)
    }

    fn vxlan_verdict(&self, vni: Vni, packet: Packet, trace: &mut Trace) -> Verdict {
        let source = self.inventory.vpc_with_vni(vni);
        let Some((vpc, state)) = source.and_then(|id| Some((id, self.inventory.vpc(id)?))) else {
            return Verdict::drop(DropReason::UnknownVni);
        };
        let subnet = state
            .subnets
            .iter()
            .find(|subnet| subnet.contains_addr(packet.src))
            .copied();
        trace.source = Some(self.place(vpc, &state, subnet, packet.src));
        if subnet.is_none() {
            return Verdict::drop(DropReason::BadSource);
        }
        if let Some((subnet, other)) = self.inventory.neighbour(vpc, packet.dst) {
            let Some(other_state) = self.inventory.vpc(&other) else {
                return Verdict::drop(DropReason::NoLink);
            };
            trace.destination = Some(self.place(&other, &other_state, Some(subnet), packet.dst));
            return self.endpoint_verdict(&other, &other_state, packet.dst);
        }
        trace.link = self.pass(vpc, packet.dst);
        match &trace.link {
            None => Verdict::drop(DropReason::NoLink),
            Some(Pass {
                mode: Mode::ClassicToVpc,
                ..
            }) if !self.flows.knows(vni, &packet) => Verdict::drop(DropReason::NotAReply),
            Some(_) => match longest(self.learned, packet.dst) {
                Some((route, next_hops)) => Verdict::Forward {
                    route,
                    next_hops: next_hops.clone(),
                },
                None => Verdict::drop(DropReason::NoIdcRoute),
            },
        }
    }

    fn endpoint_verdict(&self, vpc: &VpcId, state: &VpcState, dst: IpAddr) -> Verdict {
        match self.inventory.hops(vpc, dst) {
            Some(hops) => Verdict::Encapsulate {
                vni: state.vni,
                hops,
            },
            None => Verdict::drop(DropReason::NoSuchEndpoint),
        }
    }

    fn place(&self, vpc: &VpcId, state: &VpcState, subnet: Option<Prefix>, addr: IpAddr) -> Place {
        Place {
            vpc: vpc.clone(),
            vni: state.vni,
            ccsi: state.ccsi.clone(),
            subnet,
            endpoint: self.inventory.owner(vpc, addr),
        }
    }

    /// The links of a VPC that this gateway serves.
    fn links_of(&self, vpc: &VpcId) -> impl Iterator<Item = (&'a LinkId, &'a LinkState)> {
        self.inventory
            .links_of(vpc)
            .filter(|(_, link)| link.is_served_by(self.group))
    }

    /// The link that joins a VPC with a classic address: the one with the longest prefix.
    fn pass(&self, vpc: &VpcId, classic: IpAddr) -> Option<Pass> {
        let matching = self.links_of(vpc).flat_map(|(id, link)| {
            let holding = link
                .classic
                .iter()
                .filter(|prefix| prefix.contains_addr(classic));
            holding.map(move |prefix| (prefix, id, link))
        });
        let (prefix, id, link) = matching.max_by_key(|(prefix, ..)| prefix.len())?;
        Some(Pass {
            link: id.clone(),
            classic: *prefix,
            mode: link.mode,
            dscp: link.dscp,
        })
    }
}

/// The learned route with the longest prefix that holds the address.
pub fn longest(
    learned: &BTreeMap<Prefix, LearnedNextHops>,
    addr: IpAddr,
) -> Option<(Prefix, &LearnedNextHops)> {
    (0..=Prefix::host(addr).len()).rev().find_map(|len| {
        let prefix = Prefix::containing(addr, len).ok()?;
        learned
            .get(&prefix)
            .filter(|hops| !hops.is_empty())
            .map(|hops| (prefix, hops))
    })
}
