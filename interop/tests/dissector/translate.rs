//! From the fields of Wireshark's dissector to a message of ours. What it has no name for is taken
//! from the octets that it marks; every flag and every length on the way is looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use bgp::wire::{
    AddPath, AddPathMode, AfiSafi, Aggregator, AsPath, AttributeCode, AttributeFlags, Capability,
    Community, ExtendedCommunity, ExtendedNextHop, Family, GracefulRestart, GracefulRestartFamily,
    LargeCommunity, Message, MpReach, MpUnreach, NextHop, Nlri, Notification, Open, Origin, Prefix,
    RouteRefresh, SegmentKind, UnknownAttribute, Update, WireOptions,
};
use interop::capture::dissection::Field;

/// The AS number that stands for those that do not fit into 2 octets (RFC 6793).
const AS_TRANS: u32 = 23456;

/// A message, and what RFC 6793 sends beside it to those who know 2-octet AS numbers only.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) message: Message,
    pub(crate) as4_path: Option<AsPath>,
    pub(crate) as4_aggregator: Option<Aggregator>,
}

impl Told {
    /// What is to be read of a message that was written under these options.
    pub(crate) fn of(message: Message, options: &WireOptions) -> Told {
        let mut told = Told::from(message);
        if let Message::Update(update) = &mut told.message
            && !options.four_octet_as
        {
            let attributes = &mut update.attributes;
            let fits = |asn| u16::try_from(asn).is_ok();
            let narrow = |asn: u32| if fits(asn) { asn } else { AS_TRANS };
            if let Some(path) = &attributes.as_path
                && !path.asns().all(fits)
            {
                told.as4_path = Some(path.clone());
                let segments = path.segments();
                let segments: Vec<(SegmentKind, Vec<u32>)> = segments
                    .map(|segment| (segment.kind(), segment.asns().map(narrow).collect()))
                    .collect();
                let segments = segments.iter().map(|(kind, asns)| (*kind, asns.as_slice()));
                attributes.as_path = Some(AsPath::from_segments(segments));
            }
            if let Some(aggregator) = &mut attributes.aggregator
                && !fits(aggregator.asn)
            {
                told.as4_aggregator = Some(*aggregator);
                aggregator.asn = AS_TRANS;
            }
        }
        told
    }
}

impl From<Message> for Told {
    fn from(message: Message) -> Told {
        Told {
            message,
            as4_path: None,
            as4_aggregator: None,
        }
    }
}

/// What is there and not understood, or not there.
pub(crate) type Failure = String;

/// What the dissector's fields of one message say.
pub(crate) fn told(message: &Field) -> Result<Told, Failure> {
    let length: usize = number(message, "bgp.length")?;
    if length != message.octets.len() {
        return Err(format!(
            "length {length} of {} octets",
            message.octets.len()
        ));
    }
    Ok(match number(message, "bgp.type")? {
        1 => Message::Open(open(message)?).into(),
        2 => update(message)?,
        3 => Message::Notification(notification(message)?).into(),
        4 => Message::Keepalive.into(),
        5 => Message::RouteRefresh(RouteRefresh {
            family: family(message, "bgp.route_refresh.afi", "bgp.route_refresh.safi")?,
            subtype: number(message, "bgp.route_refresh.subtype")?,
        })
        .into(),
        other => return Err(format!("type {other}")),
    })
}

fn child<'a>(field: &'a Field, name: &str) -> Result<&'a Field, Failure> {
    let names = || field.inside.iter().map(|child| child.name.as_str());
    field.child(name).ok_or_else(|| {
        let names: Vec<&str> = names().collect();
        format!("no {name} in {} of {names:?}", field.name)
    })
}

fn number<N: TryFrom<u64>>(field: &Field, name: &str) -> Result<N, Failure> {
    value(child(field, name)?)
}

fn value<N: TryFrom<u64>>(field: &Field) -> Result<N, Failure> {
    let number = field.number().and_then(|number| N::try_from(number).ok());
    number.ok_or_else(|| format!("{} is {:?}", field.name, field.text))
}

fn address<A: FromStr>(field: &Field) -> Result<A, Failure> {
    let text = field.text.parse();
    text.map_err(|_| format!("{} is {:?}", field.name, field.text))
}

fn family(field: &Field, afi: &str, safi: &str) -> Result<AfiSafi, Failure> {
    Ok(AfiSafi {
        afi: number(field, afi)?,
        safi: number(field, safi)?,
    })
}

fn afi_safi(afi: &Field, safi: &Field) -> Result<AfiSafi, Failure> {
    Ok(AfiSafi {
        afi: value(afi)?,
        safi: value(safi)?,
    })
}

fn open(message: &Field) -> Result<Open, Failure> {
    let version: u8 = number(message, "bgp.open.version")?;
    if version != 4 {
        return Err(format!("version {version}"));
    }
    let mut capabilities = Vec::new();
    let parameters = message.child("bgp.open.opt").into_iter();
    for parameter in parameters.flat_map(|options| &options.inside) {
        let kind: u8 = number(parameter, "bgp.open.opt.param.type")?;
        if kind != 2 {
            return Err(format!("parameter of type {kind}"));
        }
        let all = parameter.inside.iter();
        for field in all.filter(|field| field.name == "bgp.cap") {
            capabilities.push(capability(field)?);
        }
    }
    Ok(Open {
        my_as: number(message, "bgp.open.myas")?,
        hold_time: number(message, "bgp.open.holdtime")?,
        router_id: address(child(message, "bgp.open.identifier")?)?,
        capabilities,
    })
}

/// The tuples of a list that is written out flat: each begins with the first of these names.
fn tuples<'a>(field: &'a Field, names: &[&str]) -> Vec<Vec<&'a Field>> {
    let mut tuples: Vec<Vec<&Field>> = Vec::new();
    for field in &field.inside {
        match names.iter().position(|name| *name == field.name) {
            Some(0) => tuples.push(vec![field]),
            Some(_) => tuples
                .last_mut()
                .into_iter()
                .for_each(|last| last.push(field)),
            None => {}
        }
    }
    tuples
}

fn capability(field: &Field) -> Result<Capability, Failure> {
    let code: u8 = number(field, "bgp.cap.type")?;
    let length: u8 = number(field, "bgp.cap.length")?;
    // Code and length are in front.
    let content = field.octets.get(2..).unwrap_or_default();
    if content.len() != usize::from(length) {
        return Err(format!("capability {code} of length {length}: {content:?}"));
    }
    Ok(match code {
        1 => Capability::Multiprotocol(family(field, "bgp.cap.mp.afi", "bgp.cap.mp.safi")?),
        2 if length == 0 => Capability::RouteRefresh,
        5 => {
            let names = ["bgp.cap.enh.afi", "bgp.cap.enh.safi", "bgp.cap.enh.nhafi"];
            let entries = tuples(field, &names)
                .into_iter()
                .map(|tuple| match tuple[..] {
                    [afi, safi, next_hop] => Ok(ExtendedNextHop {
                        family: afi_safi(afi, safi)?,
                        next_hop_afi: value(next_hop)?,
                    }),
                    _ => Err(format!("{tuple:?}")),
                });
            Capability::ExtendedNextHop(entries.collect::<Result<_, Failure>>()?)
        }
        6 if length == 0 => Capability::ExtendedMessage,
        64 => Capability::GracefulRestart(graceful_restart(field)?),
        65 => Capability::FourOctetAs(number(field, "bgp.cap.4as")?),
        69 => {
            let names = [
                "bgp.cap.ap.afi",
                "bgp.cap.ap.safi",
                "bgp.cap.ap.sendreceive",
            ];
            let entries = tuples(field, &names)
                .into_iter()
                .map(|tuple| match tuple[..] {
                    [afi, safi, mode] => Ok(AddPath {
                        family: afi_safi(afi, safi)?,
                        mode: match value(mode)? {
                            1_u8 => AddPathMode::Receive,
                            2 => AddPathMode::Send,
                            3 => AddPathMode::Both,
                            other => return Err(format!("add-path mode {other}")),
                        },
                    }),
                    _ => Err(format!("{tuple:?}")),
                });
            Capability::AddPath(entries.collect::<Result<_, Failure>>()?)
        }
        70 if length == 0 => Capability::EnhancedRouteRefresh,
        code => Capability::Unknown {
            code,
            value: content.into(),
        },
    })
}

fn graceful_restart(field: &Field) -> Result<GracefulRestart, Failure> {
    let timers = child(field, "bgp.cap.gr.timers")?;
    let flag = |field: &Field, name: &str| number(field, name).map(|set: u8| set == 1);
    let names = ["bgp.cap.gr.afi", "bgp.cap.gr.safi", "bgp.cap.gr.flag"];
    let families = tuples(field, &names)
        .into_iter()
        .map(|tuple| match tuple[..] {
            [afi, safi, flags] => Ok(GracefulRestartFamily {
                family: afi_safi(afi, safi)?,
                forwarding_preserved: flag(flags, "bgp.cap.gr.flag.pfs")?,
            }),
            _ => Err(format!("{tuple:?}")),
        });
    Ok(GracefulRestart {
        restarting: flag(timers, "bgp.cap.gr.timers.restart_flag")?,
        notification: flag(timers, "bgp.cap.gr.timers.notification_flag")?,
        restart_time: number(timers, "bgp.cap.gr.timers.restart_time")?,
        families: families.collect::<Result<_, Failure>>()?,
    })
}

fn notification(message: &Field) -> Result<Notification, Failure> {
    let minor = |field: &&Field| field.name.starts_with("bgp.notify.minor_error");
    let minor = message.inside.iter().find(minor).ok_or("no subcode")?;
    let mut data = Vec::new();
    for field in &message.inside {
        // The data, or the length and the words of a shutdown, an AS number, capabilities.
        let names = [
            "bgp.notify.minor_data",
            "bgp.notify.communication_length",
            "bgp.notify.communication",
            "bgp.notify.error_open.bad_peer_as",
            "bgp.cap",
        ];
        if names.contains(&field.name.as_str()) {
            data.extend(&field.octets);
        }
    }
    Ok(Notification {
        code: number(message, "bgp.notify.major_error")?,
        subcode: value(minor)?,
        data: data.into(),
    })
}

/// Prefixes, each with its path identifier where it has one.
fn routes(field: &Field, name: &str) -> Result<Vec<Nlri>, Failure> {
    let lines = field.inside.iter().map(|line| {
        let len = number(line, "bgp.prefix_length")?;
        let prefix: IpAddr = address(child(line, name)?)?;
        let path_id = match line.child("bgp.nlri_path_id") {
            Some(path_id) => value(path_id)?,
            None => 0,
        };
        let prefix = Prefix::new(prefix, len).map_err(|error| format!("{line:?}: {error}"))?;
        Ok(Nlri { prefix, path_id })
    });
    lines.collect()
}

fn update(message: &Field) -> Result<Told, Failure> {
    let mut update = Update::default();
    if let Some(withdrawn) = message.child("bgp.update.withdrawn_routes") {
        update.withdrawn = routes(withdrawn, "bgp.withdrawn_prefix")?;
    }
    if let Some(nlri) = message.child("bgp.update.nlri") {
        update.nlri = routes(nlri, "bgp.nlri_prefix")?;
    }
    let mut told = Told::from(Message::Keepalive);
    if let Some(list) = message.child("bgp.update.path_attributes") {
        for field in &list.inside {
            attribute(field, &mut update, &mut told)
                .map_err(|failure| format!("{failure} in {field:?}"))?;
        }
    }
    told.message = Message::Update(update);
    Ok(told)
}

/// The flags that the RFCs give the attributes that we know.
fn flags_of(code: AttributeCode) -> Option<u8> {
    const WELL_KNOWN: u8 = AttributeFlags::TRANSITIVE;
    const OPTIONAL: u8 = AttributeFlags::OPTIONAL;
    const BOTH: u8 = AttributeFlags::OPTIONAL | AttributeFlags::TRANSITIVE;
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
        | AttributeCode::AS4_PATH
        | AttributeCode::AS4_AGGREGATOR
        | AttributeCode::LARGE_COMMUNITIES
        | AttributeCode::OTC => Some(BOTH),
        _ => None,
    }
}

fn attribute(field: &Field, update: &mut Update, told: &mut Told) -> Result<(), Failure> {
    let named = |name: &str| child(field, &format!("bgp.update.path_attribute.{name}"));
    let flags: u8 = value(named("flags")?)?;
    let code = AttributeCode(value(named("type_code")?)?);
    let length: usize = value(named("length")?)?;
    let header = if flags & AttributeFlags::EXTENDED_LENGTH != 0 {
        4
    } else {
        3
    };
    let content = field.octets.get(header..).unwrap_or_default();
    if content.len() != length {
        return Err(format!("length {length}"));
    }
    let flags = flags & !AttributeFlags::EXTENDED_LENGTH;
    let attributes = &mut update.attributes;
    if let Some(expected) = flags_of(code) {
        let mut partial = attributes.partial;
        partial.insert(code);
        match flags ^ expected {
            0 => {}
            // Of those that somebody may not have known.
            AttributeFlags::PARTIAL if partial.contains(code) => attributes.partial = partial,
            _ => return Err(format!("flags {flags:#x}")),
        }
    }
    match code {
        AttributeCode::ORIGIN => {
            attributes.origin = Origin::from_octet(value(named("origin")?)?);
        }
        AttributeCode::AS_PATH => attributes.as_path = Some(as_path(field)?),
        AttributeCode::AS4_PATH => told.as4_path = Some(as_path(field)?),
        AttributeCode::NEXT_HOP => attributes.next_hop = Some(address(named("next_hop")?)?),
        AttributeCode::MED => attributes.med = Some(value(named("multi_exit_disc")?)?),
        AttributeCode::LOCAL_PREF => attributes.local_pref = Some(value(named("local_pref")?)?),
        AttributeCode::ATOMIC_AGGREGATE if length == 0 => attributes.atomic_aggregate = true,
        AttributeCode::AGGREGATOR | AttributeCode::AS4_AGGREGATOR => {
            let aggregator = Some(Aggregator {
                asn: value(named("aggregator_as")?)?,
                router_id: address(named("aggregator_origin")?)?,
            });
            match code {
                AttributeCode::AGGREGATOR => attributes.aggregator = aggregator,
                _ => told.as4_aggregator = aggregator,
            }
        }
        AttributeCode::COMMUNITIES => attributes.communities = communities(named("communities")?)?,
        AttributeCode::ORIGINATOR_ID => {
            attributes.originator_id = Some(address(named("originator_id")?)?);
        }
        AttributeCode::CLUSTER_LIST => {
            let list = child(field, "bgp.path_attribute.cluster_list")?;
            attributes.cluster_list = list.inside.iter().map(address).collect::<Result<_, _>>()?;
        }
        AttributeCode::EXT_COMMUNITIES => {
            let list = child(field, "bgp.ext_communities")?;
            attributes.ext_communities = list
                .inside
                .iter()
                .map(ext_community)
                .collect::<Result<_, _>>()?;
        }
        AttributeCode::LARGE_COMMUNITIES => {
            let list = field.inside.iter();
            attributes.large_communities = list
                .filter(|field| field.name == "bgp.large_communities")
                .map(large_community)
                .collect::<Result<_, _>>()?;
        }
        AttributeCode::OTC => {
            let octets = content.try_into().map_err(|_| "not 4 octets")?;
            attributes.otc = Some(u32::from_be_bytes(octets));
        }
        AttributeCode::MP_REACH_NLRI => update.mp_reach = Some(mp_reach(field, content)?),
        AttributeCode::MP_UNREACH_NLRI => update.mp_unreach = Some(mp_unreach(field, content)?),
        code => attributes.unknown.push(UnknownAttribute {
            flags: AttributeFlags(flags),
            code,
            value: content.into(),
        }),
    }
    Ok(())
}

fn as_path(field: &Field) -> Result<AsPath, Failure> {
    const SEGMENT: &str = "bgp.update.path_attribute.as_path_segment";
    let segments = field.inside.iter().filter(|field| field.name == SEGMENT);
    let segments = segments.map(|segment| {
        let kind = match number(segment, &format!("{SEGMENT}.type"))? {
            1_u8 => SegmentKind::Set,
            2 => SegmentKind::Sequence,
            other => return Err(format!("segment of type {other}")),
        };
        let width = [format!("{SEGMENT}.as2"), format!("{SEGMENT}.as4")];
        let asns = segment.inside.iter();
        let asns: Vec<u32> = asns
            .filter(|field| width.contains(&field.name))
            .map(value)
            .collect::<Result<_, _>>()?;
        let length: usize = number(segment, &format!("{SEGMENT}.length"))?;
        match asns.len() == length {
            true => Ok((kind, asns)),
            false => Err(format!("a segment of {length}: {asns:?}")),
        }
    });
    let segments: Vec<_> = segments.collect::<Result<_, Failure>>()?;
    Ok(AsPath::from_segments(
        segments.iter().map(|(kind, asns)| (*kind, asns.as_slice())),
    ))
}

fn communities(list: &Field) -> Result<Vec<Community>, Failure> {
    let half = |field: &Field, name: &str| {
        number::<u16>(
            field,
            &format!("bgp.update.path_attribute.community_{name}"),
        )
    };
    list.inside
        .iter()
        .map(|field| match field.name.as_str() {
            "bgp.update.path_attribute.community_wellknown" => Ok(Community(value(field)?)),
            _ => Ok(Community::new(half(field, "as")?, half(field, "value")?)),
        })
        .collect()
}

/// A route target or origin by its fields, others by their octets.
fn ext_community(field: &Field) -> Result<ExtendedCommunity, Failure> {
    let octets: [u8; 8] = field.octets[..]
        .try_into()
        .map_err(|_| format!("{field:?}"))?;
    let [form @ 0..=2, kind @ 2..=3, ..] = octets else {
        return Ok(ExtendedCommunity(octets));
    };
    let part = |name: &str| child(field, &format!("bgp.ext_com.value_{name}"));
    let content = match form {
        0 => {
            let (asn, local): (u16, u32) = (value(part("as2")?)?, value(part("an4")?)?);
            [&asn.to_be_bytes()[..], &local.to_be_bytes()].concat()
        }
        1 => {
            let (host, local): (Ipv4Addr, u16) = (address(part("IP4")?)?, value(part("an2")?)?);
            [&host.octets()[..], &local.to_be_bytes()].concat()
        }
        _ => {
            let (asn, local): (u32, u16) = (value(part("as4")?)?, value(part("an2")?)?);
            [&asn.to_be_bytes()[..], &local.to_be_bytes()].concat()
        }
    };
    let whole = [&[form, kind][..], &content].concat();
    let whole = whole.try_into().map_err(|_| "not 8 octets")?;
    Ok(ExtendedCommunity(whole))
}

fn large_community(field: &Field) -> Result<LargeCommunity, Failure> {
    let part = |name: &str| number(field, &format!("bgp.large_communities.{name}"));
    Ok(LargeCommunity::new(
        part("ga")?,
        part("ldp1")?,
        part("ldp2")?,
    ))
}

fn mp_reach(field: &Field, content: &[u8]) -> Result<MpReach, Failure> {
    const NAME: &str = "bgp.update.path_attribute.mp_reach_nlri";
    let all = family(field, &format!("{NAME}.afi"), &format!("{NAME}.safi"))?;
    let Some(family) = all.family() else {
        // AFI and SAFI, then the next hop's length.
        let rest = content.get(3..).and_then(<[u8]>::split_first);
        let (&length, rest) = rest.ok_or("no next hop")?;
        let (next_hop, rest) = rest
            .split_at_checked(length.into())
            .ok_or("a long next hop")?;
        return Ok(MpReach::Other {
            family: all,
            next_hop: next_hop.into(),
            nlri: rest.get(1..).unwrap_or_default().into(),
        });
    };
    let hop = child(field, &format!("{NAME}.next_hop"))?;
    let ipv6: Option<Ipv6Addr> = (hop.child(&format!("{NAME}.next_hop.ipv6")))
        .map(address)
        .transpose()?;
    let link_local: Option<Ipv6Addr> = (hop.child(&format!("{NAME}.next_hop.ipv6.link_local")))
        .map(address)
        .transpose()?;
    let next_hop = match (ipv6, link_local) {
        (Some(global), Some(link_local)) => NextHop::V6WithLinkLocal { global, link_local },
        (Some(address), None) => NextHop::V6(address),
        _ => NextHop::V4(address(child(hop, &format!("{NAME}.next_hop.ipv4"))?)?),
    };
    Ok(MpReach::Unicast {
        family,
        next_hop,
        nlri: mp_routes(field, family, "reach")?,
    })
}

fn mp_unreach(field: &Field, content: &[u8]) -> Result<MpUnreach, Failure> {
    const NAME: &str = "bgp.update.path_attribute.mp_unreach_nlri";
    let all = family(field, &format!("{NAME}.afi"), &format!("{NAME}.safi"))?;
    Ok(match all.family() {
        Some(family) => MpUnreach::Unicast {
            family,
            nlri: mp_routes(field, family, "unreach")?,
        },
        None => MpUnreach::Other {
            family: all,
            nlri: content.get(3..).unwrap_or_default().into(),
        },
    })
}

fn mp_routes(field: &Field, family: Family, direction: &str) -> Result<Vec<Nlri>, Failure> {
    let name = format!("bgp.mp_{direction}_nlri_{}_prefix", family.as_str());
    match field.child(&format!("bgp.update.path_attribute.mp_{direction}_nlri")) {
        Some(list) => routes(list, &name),
        None => Ok(Vec::new()),
    }
}
