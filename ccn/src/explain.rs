//! `ccn explain`: what would become of a packet, told as a chain from link to host.
//!
//! It finds out where the packet would come in, asks the model, and puts the answer into words.
//! It never asks the kernel; whoever has done so holds the two against each other.

use std::net::IpAddr;

use serde::Serialize;

use crate::inventory::EndpointId;
use crate::plane::model::{DropReason, Ingress, Model, Packet, Pass, Place, Trace, Verdict};
use crate::plane::witness::Testimony;
use crate::record::{Vni, VpcId};

#[cfg(test)]
mod tests;

/// A packet explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Explanation {
    /// The packet.
    #[serde(flatten)]
    pub packet: Packet,
    /// Where it comes in was not given, but concluded from its source.
    pub deduced: bool,
    /// What was found, and the verdict.
    #[serde(flatten)]
    pub trace: Trace,
    /// The same for people, in order.
    pub steps: Vec<Step>,
    /// The verdict for people, in one line.
    pub summary: String,
    /// What the kernel says of it.
    pub kernel: Testimony,
}

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "ExplanationStep")]
pub struct Step {
    /// What it is about: `ingress`, `source`, `link`, `vpc`, `vm`, `slb`, `host`, `node` or `route`.
    pub step: &'static str,
    /// What was found.
    pub detail: String,
}

/// Why a packet cannot be explained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// An IPv4 and an IPv6 address.
    #[error("{src} and {dst} are of different families: no packet has both")]
    Families {
        /// The source.
        src: IpAddr,
        /// The destination.
        dst: IpAddr,
    },
    /// The source could be in several VPCs.
    #[error("{src} is an address of {}: say which with --vni", list(candidates))]
    Ambiguous {
        /// The source.
        src: IpAddr,
        /// The VPCs, by VNI.
        candidates: Vec<(Vni, VpcId)>,
    },
}

fn list(candidates: &[(Vni, VpcId)]) -> String {
    let names: Vec<String> = candidates
        .iter()
        .map(|(vni, vpc)| format!("VPC {vpc} (VNI {vni})"))
        .collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// Explains a packet. With a VNI it comes from a hypervisor. Without, it comes from the IDC when a
/// link has its source in a classic prefix, or else from the one VPC that has its source in a
/// subnet, or else from somewhere in the IDC that nothing is linked with.
///
/// # Errors
/// When several VPCs have the source, or the addresses are of two families.
pub fn explain(
    model: &Model<'_>,
    src: IpAddr,
    dst: IpAddr,
    vni: Option<Vni>,
) -> Result<Explanation, ExplainError> {
    if src.is_ipv4() != dst.is_ipv4() {
        return Err(ExplainError::Families { src, dst });
    }
    let ingress = match vni {
        Some(vni) => Ingress::Vxlan { vni },
        None => deduce(model, src)?,
    };
    let packet = Packet::new(ingress, src, dst);
    let trace = model.trace(packet);
    let steps = steps(model, &packet, &trace);
    let summary = summary(&packet, &trace);
    Ok(Explanation {
        packet,
        deduced: vni.is_none(),
        trace,
        steps,
        summary,
        kernel: Testimony::none("was not asked"),
    })
}

fn deduce(model: &Model<'_>, src: IpAddr) -> Result<Ingress, ExplainError> {
    let mut links = model.inventory.links_with_classic(src);
    if links.any(|(_, link)| {
        model
            .inventory
            .link(link)
            .is_some_and(|link| link.is_served_by(model.group))
    }) {
        return Ok(Ingress::Idc);
    }
    let mut candidates: Vec<(Vni, VpcId)> = model
        .inventory
        .vpcs()
        .filter(|(_, vpc)| vpc.subnets.iter().any(|subnet| subnet.contains_addr(src)))
        .map(|(id, vpc)| (vpc.vni, id.clone()))
        .collect();
    candidates.sort();
    match candidates.as_slice() {
        [] => Ok(Ingress::Idc),
        [(vni, _)] => Ok(Ingress::Vxlan { vni: *vni }),
        _ => Err(ExplainError::Ambiguous { src, candidates }),
    }
}

fn steps(model: &Model<'_>, packet: &Packet, trace: &Trace) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut say = |step, detail| steps.push(Step { step, detail });
    match packet.ingress {
        Ingress::Idc => say("ingress", "plain IP from the IDC".to_owned()),
        Ingress::Vxlan { vni } => say("ingress", format!("VXLAN from a hypervisor, VNI {vni}")),
    }
    if let Some(place) = &trace.source {
        say("source", place_in_words(place, packet.src));
    }
    if let Some(Pass {
        link,
        classic,
        mode,
        dscp,
    }) = &trace.link
    {
        let dscp = dscp
            .map(|dscp| format!(", DSCP {dscp}"))
            .unwrap_or_default();
        say(
            "link",
            format!("{link}: classic prefix {classic}, mode {mode}{dscp}"),
        );
    }
    if let Some(place) = &trace.destination {
        say("vpc", place_in_words(place, packet.dst));
        match &place.endpoint {
            Some(EndpointId::Vm(id)) => say("vm", format!("{id} has {}", packet.dst)),
            Some(EndpointId::Slb(id)) => say("slb", format!("{id} has {}", packet.dst)),
            None => {}
        }
    }
    match &trace.verdict {
        Verdict::Encapsulate { hops, .. } => {
            let total: u32 = hops.iter().map(|hop| u32::from(hop.weight)).sum();
            let is_vm = matches!(
                trace
                    .destination
                    .as_ref()
                    .and_then(|place| place.endpoint.as_ref()),
                Some(EndpointId::Vm(_))
            );
            for hop in hops {
                let end = format!("VTEP {}, inner MAC {}", hop.vtep, hop.mac);
                match is_vm {
                    true => say("host", end),
                    false => say("node", format!("{end}, {} of {total} flows", hop.weight)),
                }
            }
        }
        Verdict::Forward { route, next_hops } => {
            let next_hops: Vec<String> = next_hops.iter().map(ToString::to_string).collect();
            say(
                "route",
                format!(
                    "{route} learned from the IDC, via {}",
                    next_hops.join(" and ")
                ),
            );
        }
        Verdict::Drop {
            reason: DropReason::NotLinked,
            ..
        } => {
            // The usual cause, and the one that is hard to see: the link is another gateway's.
            if let Some((subnet, vpc)) = model.inventory.linked_vpc(packet.dst) {
                let groups: Vec<String> = model
                    .inventory
                    .links_of(vpc)
                    .filter(|(_, link)| !link.disabled)
                    .map(|(_, link)| link.group.to_string())
                    .collect();
                let how = match groups.as_slice() {
                    [] => {
                        "linked, and the link is disabled: `ccn enable` brings it back".to_owned()
                    }
                    groups => format!("linked by gateways of group {}", groups.join(", ")),
                };
                say("vpc", format!("{vpc}: {subnet} is {how}"));
            }
        }
        Verdict::Drop { .. } => {}
    }
    steps
}

fn place_in_words(place: &Place, addr: IpAddr) -> String {
    let ccsi = match &place.ccsi {
        Some(ccsi) => format!("CCSI {ccsi}"),
        None => "in no CCSI".to_owned(),
    };
    let subnet = match place.subnet {
        Some(subnet) => format!("subnet {subnet} holds {addr}"),
        None => format!("no subnet holds {addr}"),
    };
    format!("{} (VNI {}, {ccsi}): {subnet}", place.vpc, place.vni)
}

fn summary(packet: &Packet, trace: &Trace) -> String {
    let (src, dst) = (packet.src, packet.dst);
    let vpc = |place: &Option<Place>| {
        place.as_ref().map_or_else(
            || "the VPC".to_owned(),
            |place| format!("VPC {}", place.vpc),
        )
    };
    let reason = match &trace.verdict {
        Verdict::Encapsulate { vni, hops } => {
            let vteps: Vec<String> = hops.iter().map(|hop| hop.vtep.to_string()).collect();
            return format!("encapsulate with VNI {vni} to {}", vteps.join(" or "));
        }
        Verdict::Forward { next_hops, .. } => {
            let next_hops: Vec<String> = next_hops.iter().map(ToString::to_string).collect();
            return format!("decapsulate and forward to {}", next_hops.join(" or "));
        }
        Verdict::Drop { reason, .. } => reason,
    };
    let why = match reason {
        DropReason::NotLinked => format!("{dst} is in no linked subnet"),
        DropReason::NotLinkedSource => {
            format!(
                "{src} is in no classic prefix linked with {}",
                vpc(&trace.destination)
            )
        }
        DropReason::UnknownVni => "no VPC has this VNI".to_owned(),
        DropReason::BadSource => format!("{src} is in no subnet of {}", vpc(&trace.source)),
        DropReason::NoLink => {
            let from = vpc(&trace.source);
            format!("{dst} is neither in the CCSI of {from} nor in a classic prefix linked with it")
        }
        DropReason::NoSuchEndpoint => match trace.destination.as_ref().map(|p| &p.endpoint) {
            Some(Some(endpoint)) => format!("{endpoint} has no node"),
            _ => format!("no VM or SLB of {} has {dst}", vpc(&trace.destination)),
        },
        DropReason::NoIdcRoute => format!("no IDC router announces a route to {dst}"),
        DropReason::NotAReply => {
            "over this link only classic hosts open connections; replies pass by flow state"
                .to_owned()
        }
        DropReason::NotIp => "VXLAN that carries neither IPv4 nor IPv6".to_owned(),
        DropReason::OtherMac => "its inner MAC is not the gateway's".to_owned(),
        DropReason::Malformed => "its headers make no sense".to_owned(),
        DropReason::TtlExceeded => "its time to live is used up".to_owned(),
        DropReason::TooBig => "it is too big for its way and must not be fragmented".to_owned(),
        DropReason::Internal => "the kernel refused it".to_owned(),
    };
    format!("drop: {reason} ({why})")
}
