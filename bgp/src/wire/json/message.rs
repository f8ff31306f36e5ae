//! The fields of a message as JSON. What is absent is left out; lists keep their order.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::Hex;
use crate::wire::attribute::{Attributes, UnknownAttribute};
use crate::wire::capability::{Capability, Role};
use crate::wire::family_set::FamilySet;
use crate::wire::message::{Message, RouteRefresh, WireOptions};
use crate::wire::nlri::Nlri;
use crate::wire::notification::Notification;
use crate::wire::open::Open;
use crate::wire::prefix::{AfiSafi, Family};
use crate::wire::update::{MpReach, MpUnreach, NextHop, Update};
use crate::wire::{AsPath, Community, ExtendedCommunity, LargeCommunity, Origin};

/// A message to be serialized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageView {
    message: Message,
    /// Families whose routes have path identifiers.
    add_path: FamilySet,
}

impl MessageView {
    /// A message as read under these options.
    pub fn new(message: Message, options: &WireOptions) -> MessageView {
        MessageView {
            message,
            add_path: options.add_path_receive,
        }
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }
}

impl Serialize for MessageView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.message {
            Message::Open(open) => OpenView::new(open).serialize(serializer),
            Message::Update(update) => UpdateView::new(update, self.add_path).serialize(serializer),
            Message::Notification(notification) => {
                NotificationView::new(notification).serialize(serializer)
            }
            Message::Keepalive => serializer.serialize_map(Some(0))?.end(),
            Message::RouteRefresh(refresh) => RefreshView::new(refresh).serialize(serializer),
        }
    }
}

/// `{"afi":1,"safi":1,"family":"ipv4"}`; the name where it has one.
#[derive(serde::Serialize)]
struct FamilyView {
    afi: u16,
    safi: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<Family>,
}

impl From<AfiSafi> for FamilyView {
    fn from(family: AfiSafi) -> Self {
        FamilyView {
            afi: family.afi,
            safi: family.safi,
            family: family.family(),
        }
    }
}

#[derive(serde::Serialize)]
struct OpenView<'a> {
    version: u8,
    my_as: u16,
    asn: u32,
    hold_time: u16,
    router_id: Ipv4Addr,
    capabilities: Vec<CapabilityView<'a>>,
}

impl<'a> OpenView<'a> {
    fn new(open: &'a Open) -> OpenView<'a> {
        OpenView {
            version: 4,
            my_as: open.my_as,
            asn: open.asn(),
            hold_time: open.hold_time,
            router_id: open.router_id,
            capabilities: open.capabilities.iter().map(CapabilityView).collect(),
        }
    }
}

/// Code, name and what the capability says.
struct CapabilityView<'a>(&'a Capability);

impl Serialize for CapabilityView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("code", &self.0.code())?;
        map.serialize_entry("name", self.0.name())?;
        match self.0 {
            Capability::Multiprotocol(family) => put_family(&mut map, *family)?,
            Capability::RouteRefresh
            | Capability::ExtendedMessage
            | Capability::EnhancedRouteRefresh => {}
            Capability::GracefulRestart(restart) => {
                map.serialize_entry("restarting", &restart.restarting)?;
                map.serialize_entry("notification", &restart.notification)?;
                map.serialize_entry("restart_time", &restart.restart_time)?;
                let families = restart.families.iter().map(|entry| {
                    let flag = ("forwarding_preserved", entry.forwarding_preserved);
                    With(entry.family, [flag])
                });
                map.serialize_entry("families", &families.collect::<Vec<_>>())?;
            }
            Capability::FourOctetAs(asn) => map.serialize_entry("asn", asn)?,
            Capability::ExtendedNextHop(entries) => {
                let families = entries
                    .iter()
                    .map(|entry| With(entry.family, [("next_hop_afi", entry.next_hop_afi)]));
                map.serialize_entry("families", &families.collect::<Vec<_>>())?;
            }
            Capability::Role(value) => {
                map.serialize_entry("value", value)?;
                let role = Role::from_octet(*value).map(Role::as_str);
                map.serialize_entry("role", &role)?;
            }
            Capability::AddPath(entries) => {
                let families = entries.iter().map(|entry| {
                    let (send, receive) = (entry.mode.sends(), entry.mode.receives());
                    With(entry.family, [("send", send), ("receive", receive)])
                });
                map.serialize_entry("families", &families.collect::<Vec<_>>())?;
            }
            Capability::LongLivedGracefulRestart(entries) => {
                let families = entries.iter().map(|entry| LongLivedView {
                    family: entry.family.into(),
                    forwarding_preserved: entry.forwarding_preserved,
                    stale_time: entry.stale_time,
                });
                map.serialize_entry("families", &families.collect::<Vec<_>>())?;
            }
            Capability::Unknown { value, .. } => {
                map.serialize_entry("value", &Hex::from(&**value))?;
            }
        }
        map.end()
    }
}

#[derive(serde::Serialize)]
struct LongLivedView {
    #[serde(flatten)]
    family: FamilyView,
    forwarding_preserved: bool,
    stale_time: u32,
}

fn put_family<M: SerializeMap>(map: &mut M, family: AfiSafi) -> Result<(), M::Error> {
    map.serialize_entry("afi", &family.afi)?;
    map.serialize_entry("safi", &family.safi)?;
    match family.family() {
        Some(family) => map.serialize_entry("family", &family),
        None => Ok(()),
    }
}

/// A family and what is said of it.
struct With<T, const N: usize>(AfiSafi, [(&'static str, T); N]);

impl<T: Serialize, const N: usize> Serialize for With<T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        put_family(&mut map, self.0)?;
        for (name, value) in &self.1 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[derive(serde::Serialize)]
struct NotificationView {
    code: u8,
    subcode: u8,
    name: String,
    /// The words of the peer's operator (RFC 9003).
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    data: Hex,
}

impl NotificationView {
    fn new(notification: &Notification) -> NotificationView {
        let name = match notification.subcode_name() {
            Some(subcode) => format!("{}: {subcode}", notification.code_name()),
            None => notification.code_name().to_owned(),
        };
        NotificationView {
            code: notification.code,
            subcode: notification.subcode,
            name,
            text: notification.shutdown_text(),
            data: Hex::from(&*notification.data),
        }
    }
}

#[derive(serde::Serialize)]
struct RefreshView {
    #[serde(flatten)]
    family: FamilyView,
    subtype: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
}

impl RefreshView {
    fn new(refresh: &RouteRefresh) -> RefreshView {
        RefreshView {
            family: refresh.family.into(),
            subtype: refresh.subtype,
            // RFC 7313 section 3.2.
            name: match refresh.subtype {
                0 => Some("request"),
                1 => Some("begin"),
                2 => Some("end"),
                _ => None,
            },
        }
    }
}

/// A route: a prefix, or with its path identifier where there is one.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum RouteView {
    Prefix(crate::wire::Prefix),
    Path {
        prefix: crate::wire::Prefix,
        path_id: u32,
    },
}

fn routes(nlri: &[Nlri], family: Family, add_path: FamilySet) -> Vec<RouteView> {
    let path = |&Nlri { prefix, path_id }: &Nlri| RouteView::Path { prefix, path_id };
    let prefix = |nlri: &Nlri| RouteView::Prefix(nlri.prefix);
    match add_path.contains(family) {
        true => nlri.iter().map(path).collect(),
        false => nlri.iter().map(prefix).collect(),
    }
}

#[derive(serde::Serialize)]
struct UpdateView<'a> {
    withdrawn: Vec<RouteView>,
    attributes: AttributesView<'a>,
    nlri: Vec<RouteView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mp_reach: Option<ReachView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mp_unreach: Option<UnreachView>,
    /// The family it is the End-of-RIB of.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_of_rib: Option<FamilyView>,
}

impl<'a> UpdateView<'a> {
    fn new(update: &'a Update, add_path: FamilySet) -> UpdateView<'a> {
        let ipv4 = Family::Ipv4Unicast;
        UpdateView {
            withdrawn: routes(&update.withdrawn, ipv4, add_path),
            attributes: AttributesView(&update.attributes),
            nlri: routes(&update.nlri, ipv4, add_path),
            mp_reach: update
                .mp_reach
                .as_ref()
                .map(|reach| ReachView::new(reach, add_path)),
            mp_unreach: update
                .mp_unreach
                .as_ref()
                .map(|unreach| UnreachView::new(unreach, add_path)),
            end_of_rib: update.end_of_rib_family().map(FamilyView::from),
        }
    }
}

/// Routes of a known family, or octets of another one.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum NlriView {
    Routes(Vec<RouteView>),
    Octets(Hex),
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum NextHopView {
    Address(std::net::IpAddr),
    Octets(Hex),
}

#[derive(serde::Serialize)]
struct ReachView {
    #[serde(flatten)]
    family: FamilyView,
    next_hop: NextHopView,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_local: Option<Ipv6Addr>,
    nlri: NlriView,
}

impl ReachView {
    fn new(reach: &MpReach, add_path: FamilySet) -> ReachView {
        match reach {
            MpReach::Unicast {
                family,
                next_hop,
                nlri,
            } => ReachView {
                family: AfiSafi::from(*family).into(),
                next_hop: NextHopView::Address(next_hop.addr()),
                link_local: NextHop::link_local(next_hop),
                nlri: NlriView::Routes(routes(nlri, *family, add_path)),
            },
            MpReach::Other {
                family,
                next_hop,
                nlri,
            } => ReachView {
                family: (*family).into(),
                next_hop: NextHopView::Octets(Hex::from(&**next_hop)),
                link_local: None,
                nlri: NlriView::Octets(Hex::from(&**nlri)),
            },
        }
    }
}

#[derive(serde::Serialize)]
struct UnreachView {
    #[serde(flatten)]
    family: FamilyView,
    nlri: NlriView,
}

impl UnreachView {
    fn new(unreach: &MpUnreach, add_path: FamilySet) -> UnreachView {
        match unreach {
            MpUnreach::Unicast { family, nlri } => UnreachView {
                family: AfiSafi::from(*family).into(),
                nlri: NlriView::Routes(routes(nlri, *family, add_path)),
            },
            MpUnreach::Other { family, nlri } => UnreachView {
                family: (*family).into(),
                nlri: NlriView::Octets(Hex::from(&**nlri)),
            },
        }
    }
}

/// Path attributes to be serialized, the absent ones left out.
#[derive(Debug, Clone, Copy)]
pub struct AttributesView<'a>(pub &'a Attributes);

#[derive(serde::Serialize)]
struct Fields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_path: Option<&'a AsPath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_hop: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    med: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_pref: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    atomic_aggregate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregator: Option<AggregatorView>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    communities: &'a [Community],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    ext_communities: &'a [ExtendedCommunity],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    large_communities: &'a [LargeCommunity],
    #[serde(skip_serializing_if = "Option::is_none")]
    otc: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    originator_id: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    cluster_list: &'a [Ipv4Addr],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<UnknownView>,
}

#[derive(serde::Serialize)]
struct AggregatorView {
    asn: u32,
    router_id: Ipv4Addr,
}

#[derive(serde::Serialize)]
struct UnknownView {
    code: u8,
    flags: u8,
    value: Hex,
}

impl From<&UnknownAttribute> for UnknownView {
    fn from(attribute: &UnknownAttribute) -> Self {
        UnknownView {
            code: attribute.code.0,
            flags: attribute.flags.0,
            value: Hex::from(&*attribute.value),
        }
    }
}

impl Serialize for AttributesView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let attributes = self.0;
        Fields {
            origin: attributes.origin,
            as_path: attributes.as_path.as_ref(),
            next_hop: attributes.next_hop,
            med: attributes.med,
            local_pref: attributes.local_pref,
            atomic_aggregate: attributes.atomic_aggregate,
            aggregator: attributes.aggregator.map(|aggregator| AggregatorView {
                asn: aggregator.asn,
                router_id: aggregator.router_id,
            }),
            communities: &attributes.communities,
            ext_communities: &attributes.ext_communities,
            large_communities: &attributes.large_communities,
            otc: attributes.otc,
            originator_id: attributes.originator_id,
            cluster_list: &attributes.cluster_list,
            unknown: attributes.unknown.iter().map(UnknownView::from).collect(),
        }
        .serialize(serializer)
    }
}
