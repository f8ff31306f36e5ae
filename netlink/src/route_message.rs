//! Routes to and from the kernel's message. Round trip: a normalised route comes back as it was.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{Emitable, NlaBuffer, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteIp6Tunnel, RouteIp6TunnelFlags,
    RouteIpTunnel, RouteIpTunnelFlags, RouteLwEnCapType, RouteLwTunnelEncap, RouteMessage,
    RouteNextHop, RouteNextHopFlags, RouteProtocol, RouteScope, RouteType, RouteVia,
};

use crate::route::{Encap, Family, NextHop, Route, RouteFilter, RouteKind};

impl Family {
    pub(crate) fn address_family(self) -> AddressFamily {
        match self {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        }
    }

    pub(crate) fn from_address_family(family: AddressFamily) -> Option<Family> {
        match family {
            AddressFamily::Inet => Some(Family::V4),
            AddressFamily::Inet6 => Some(Family::V6),
            _ => None,
        }
    }
}

impl From<RouteKind> for RouteType {
    fn from(kind: RouteKind) -> RouteType {
        match kind {
            RouteKind::Unicast => RouteType::Unicast,
            RouteKind::Blackhole => RouteType::BlackHole,
            RouteKind::Unreachable => RouteType::Unreachable,
            RouteKind::Prohibit => RouteType::Prohibit,
            RouteKind::Throw => RouteType::Throw,
            RouteKind::Local => RouteType::Local,
            RouteKind::Other(number) => number.into(),
        }
    }
}

impl From<RouteType> for RouteKind {
    fn from(kind: RouteType) -> RouteKind {
        match kind {
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::BlackHole => RouteKind::Blackhole,
            RouteType::Unreachable => RouteKind::Unreachable,
            RouteType::Prohibit => RouteKind::Prohibit,
            RouteType::Throw => RouteKind::Throw,
            RouteType::Local => RouteKind::Local,
            other => RouteKind::Other(other.into()),
        }
    }
}

/// The message that makes the route.
pub(crate) fn add_message(route: &Route) -> RouteMessage {
    let mut message = key_message(route);
    message.header.scope = scope(route);
    let list = &mut message.attributes;
    if let Some(source) = route.source {
        list.push(RouteAttribute::PrefSource(source.into()));
    }
    match route.next_hops.as_slice() {
        [] => {}
        [only] => {
            list.extend(hop_attributes(only, route.family()));
            if only.ifindex != 0 {
                list.push(RouteAttribute::Oif(only.ifindex));
            }
            if only.onlink {
                message.header.flags |= RouteFlags::Onlink;
            }
        }
        several => {
            list.push(RouteAttribute::MultiPath(
                several
                    .iter()
                    .map(|hop| multipath_hop(hop, route.family()))
                    .collect(),
            ));
        }
    }
    message
}

/// The message that deletes the route, whatever its next hops are now. Protocol and kind are part
/// of it, so a route of another maker in the same place is never meant.
pub(crate) fn delete_message(route: &Route) -> RouteMessage {
    let mut message = key_message(route);
    message.header.scope = RouteScope::NoWhere;
    message
}

fn key_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = route.family().address_family();
    message.header.destination_prefix_length = route.prefix.prefix_len();
    // Tables over 255 travel in the attribute alone.
    message.header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.header.protocol = route.protocol.into();
    message.header.kind = route.kind.into();
    let list = &mut message.attributes;
    list.push(RouteAttribute::Table(route.table));
    if route.prefix.prefix_len() > 0 {
        list.push(RouteAttribute::Destination(route.prefix.addr().into()));
    }
    if route.metric != 0 {
        list.push(RouteAttribute::Priority(route.metric));
    }
    message
}

fn scope(route: &Route) -> RouteScope {
    match route.kind {
        RouteKind::Local => RouteScope::Host,
        RouteKind::Unicast
            if route.family() == Family::V4
                && route.next_hops.iter().all(|hop| hop.via.is_none()) =>
        {
            RouteScope::Link
        }
        _ => RouteScope::Universe,
    }
}

fn hop_attributes(hop: &NextHop, family: Family) -> Vec<RouteAttribute> {
    let mut list = Vec::new();
    if let Some(encap) = &hop.encap {
        let (kind, encap) = encap_attributes(encap);
        list.push(RouteAttribute::EncapType(kind));
        list.push(RouteAttribute::Encap(encap));
    }
    match (hop.via, family) {
        (None, _) => {}
        (Some(IpAddr::V6(addr)), Family::V4) => {
            list.push(RouteAttribute::Via(RouteVia::Inet6(addr)));
        }
        (Some(IpAddr::V4(addr)), Family::V6) => {
            list.push(RouteAttribute::Via(RouteVia::Inet(addr)));
        }
        (Some(addr), _) => list.push(RouteAttribute::Gateway(addr.into())),
    }
    list
}

fn multipath_hop(hop: &NextHop, family: Family) -> RouteNextHop {
    let mut message = RouteNextHop::default();
    message.interface_index = hop.ifindex;
    message.hops = u8::try_from(hop.weight.clamp(1, 256) - 1).unwrap_or(u8::MAX);
    if hop.onlink {
        message.flags = RouteNextHopFlags::Onlink;
    }
    message.attributes = hop_attributes(hop, family);
    message
}

fn encap_attributes(encap: &Encap) -> (RouteLwEnCapType, Vec<RouteLwTunnelEncap>) {
    match encap.destination {
        IpAddr::V4(destination) => {
            let mut list = vec![
                RouteIpTunnel::Id(encap.id),
                RouteIpTunnel::Destination(destination),
            ];
            if let Some(IpAddr::V4(source)) = encap.source {
                list.push(RouteIpTunnel::Source(source));
            }
            if encap.ttl != 0 {
                list.push(RouteIpTunnel::Ttl(encap.ttl));
            }
            if encap.tos != 0 {
                list.push(RouteIpTunnel::Tos(encap.tos));
            }
            if encap.checksum {
                list.push(RouteIpTunnel::Flags(RouteIpTunnelFlags::Checksum));
            }
            (
                RouteLwEnCapType::Ip,
                list.into_iter().map(RouteLwTunnelEncap::Ip).collect(),
            )
        }
        IpAddr::V6(destination) => {
            let mut list = vec![
                RouteIp6Tunnel::Id(encap.id),
                RouteIp6Tunnel::Destination(destination),
            ];
            if let Some(IpAddr::V6(source)) = encap.source {
                list.push(RouteIp6Tunnel::Source(source));
            }
            if encap.ttl != 0 {
                list.push(RouteIp6Tunnel::Hoplimit(encap.ttl));
            }
            if encap.tos != 0 {
                list.push(RouteIp6Tunnel::Tc(encap.tos));
            }
            if encap.checksum {
                list.push(RouteIp6Tunnel::Flags(RouteIp6TunnelFlags::Checksum));
            }
            (
                RouteLwEnCapType::Ip6,
                list.into_iter().map(RouteLwTunnelEncap::Ip6).collect(),
            )
        }
    }
}

/// The message that asks for a dump.
pub(crate) fn dump_message(family: Family, filter: &RouteFilter) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family.address_family();
    message.header.protocol = filter
        .protocol
        .map_or(RouteProtocol::Unspec, RouteProtocol::from);
    if let Some(table) = filter.table {
        message.attributes.push(RouteAttribute::Table(table));
    }
    message
}

/// The message that asks which route a packet that comes in by a link takes.
pub(crate) fn lookup_message(source: IpAddr, destination: IpAddr, iif: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    let family = Family::of(destination);
    let length = family.everything().max_prefix_len();
    message.header.address_family = family.address_family();
    message.header.source_prefix_length = length;
    message.header.destination_prefix_length = length;
    // The route as it is in its table, not what the kernel keeps for this destination alone.
    message.header.flags = RouteFlags::FibMatch;
    message.attributes = vec![
        RouteAttribute::Source(source.into()),
        RouteAttribute::Destination(destination.into()),
        RouteAttribute::Iif(iif),
    ];
    message
}

/// Reads a route message; `None` for what is no route of a table (cached clones, other families).
pub(crate) fn from_message(message: RouteMessage) -> Option<Route> {
    let header = &message.header;
    let family = Family::from_address_family(header.address_family)?;
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut route = Route {
        table: header.table.into(),
        prefix: family.everything(),
        metric: 0,
        protocol: header.protocol.into(),
        kind: header.kind.into(),
        source: None,
        next_hops: Vec::new(),
    };
    let mut lone = Hop::default();
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::Destination(addr) => {
                let addr = ip(addr)?;
                route.prefix = IpNet::new(addr, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Priority(metric) => route.metric = metric,
            RouteAttribute::PrefSource(addr) => route.source = ip(addr),
            RouteAttribute::Oif(index) => lone.ifindex = Some(index),
            RouteAttribute::MultiPath(hops) => {
                route
                    .next_hops
                    .extend(hops.into_iter().map(read_multipath_hop));
            }
            other => lone.read(other),
        }
    }
    if route.next_hops.is_empty() && (lone.ifindex.is_some() || lone.via.is_some()) {
        let onlink = header.flags.contains(RouteFlags::Onlink);
        route.next_hops.push(lone.finish(1, onlink));
    }
    Some(route.normalised())
}

fn read_multipath_hop(message: RouteNextHop) -> NextHop {
    let mut hop = Hop {
        ifindex: Some(message.interface_index),
        ..Hop::default()
    };
    for attribute in message.attributes {
        hop.read(attribute);
    }
    let onlink = message.flags.contains(RouteNextHopFlags::Onlink);
    hop.finish(u16::from(message.hops) + 1, onlink)
}

#[derive(Default)]
struct Hop {
    via: Option<IpAddr>,
    ifindex: Option<u32>,
    encap_kind: RouteLwEnCapType,
    encap: Vec<RouteLwTunnelEncap>,
}

impl Hop {
    fn read(&mut self, attribute: RouteAttribute) {
        match attribute {
            RouteAttribute::Gateway(addr) => self.via = ip(addr),
            RouteAttribute::Via(RouteVia::Inet(addr)) => self.via = Some(addr.into()),
            RouteAttribute::Via(RouteVia::Inet6(addr)) => self.via = Some(addr.into()),
            RouteAttribute::EncapType(kind) => self.encap_kind = kind,
            RouteAttribute::Encap(list) => self.encap = list,
            _ => {}
        }
    }

    fn finish(self, weight: u16, onlink: bool) -> NextHop {
        let encap = read_encap(self.encap, self.encap_kind);
        NextHop {
            via: self.via,
            ifindex: self.ifindex.unwrap_or(0),
            weight,
            onlink,
            encap,
        }
    }
}

/// Inside a multipath route the kind of the encapsulation follows it, so the attributes arrive
/// unread and are read here.
fn typed(item: RouteLwTunnelEncap, kind: RouteLwEnCapType) -> Option<RouteLwTunnelEncap> {
    let RouteLwTunnelEncap::Other(raw) = item else {
        return Some(item);
    };
    let mut bytes = vec![0; raw.buffer_len()];
    raw.emit(&mut bytes);
    let buffer = NlaBuffer::new_checked(bytes.as_slice()).ok()?;
    match kind {
        RouteLwEnCapType::Ip => RouteIpTunnel::parse(&buffer)
            .map(RouteLwTunnelEncap::Ip)
            .ok(),
        RouteLwEnCapType::Ip6 => RouteIp6Tunnel::parse(&buffer)
            .map(RouteLwTunnelEncap::Ip6)
            .ok(),
        _ => None,
    }
}

fn read_encap(list: Vec<RouteLwTunnelEncap>, kind: RouteLwEnCapType) -> Option<Encap> {
    let (mut id, mut destination, mut source) = (0, None, None);
    let (mut ttl, mut tos, mut checksum) = (0, 0, false);
    for item in list {
        match typed(item, kind)? {
            RouteLwTunnelEncap::Ip(item) => match item {
                RouteIpTunnel::Id(value) => id = value,
                RouteIpTunnel::Destination(addr) => destination = Some(IpAddr::V4(addr)),
                RouteIpTunnel::Source(addr) if !addr.is_unspecified() => {
                    source = Some(IpAddr::V4(addr));
                }
                RouteIpTunnel::Ttl(value) => ttl = value,
                RouteIpTunnel::Tos(value) => tos = value,
                RouteIpTunnel::Flags(flags) => {
                    checksum = flags.contains(RouteIpTunnelFlags::Checksum);
                }
                _ => {}
            },
            RouteLwTunnelEncap::Ip6(item) => match item {
                RouteIp6Tunnel::Id(value) => id = value,
                RouteIp6Tunnel::Destination(addr) => destination = Some(IpAddr::V6(addr)),
                RouteIp6Tunnel::Source(addr) if !addr.is_unspecified() => {
                    source = Some(IpAddr::V6(addr));
                }
                RouteIp6Tunnel::Hoplimit(value) => ttl = value,
                RouteIp6Tunnel::Tc(value) => tos = value,
                RouteIp6Tunnel::Flags(flags) => {
                    checksum = flags.contains(RouteIp6TunnelFlags::Checksum);
                }
                _ => {}
            },
            _ => return None,
        }
    }
    Some(Encap {
        id,
        destination: destination?,
        source,
        ttl,
        tos,
        checksum,
    })
}

fn ip(addr: RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some(addr.into()),
        RouteAddress::Inet6(addr) => Some(addr.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
