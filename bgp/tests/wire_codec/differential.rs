//! A second opinion: what we write, `bgpkit-parser` reads as the same message.
//!
//! Its messages are translated into ours and compared whole. Left out is only what it does not
//! model: families other than IPv4 and IPv6 unicast, the N bit of graceful restart, and codes
//! that it types further than we do; and default routes, since it takes a field that starts with
//! a 0 for one with path identifiers.

use std::net::Ipv4Addr;

use bgp::wire::{
    AddPath, AddPathMode, Aggregator, AsPath, AttributeCode, AttributeFlags, Attributes,
    Capability, Community, ExtendedCommunity, ExtendedNextHop, Family, FamilySet, GracefulRestart,
    GracefulRestartFamily, LargeCommunity, Message, MpReach, MpUnreach, NextHop, Nlri,
    Notification, Open, Origin, PartialSet, Prefix, Role, RouteRefresh, SegmentKind,
    UnknownAttribute, Update, WireOptions,
};
use bgp::wire::{AfiSafi, pack};
use bgpkit_parser::models::capabilities::{
    AddPathAddressFamily, AddPathSendReceive, BgpCapabilityType, ExtendedNextHopEntry,
};
use bgpkit_parser::models::{
    AsPathSegment, AsnLength, AttributeValue, BgpMessage, BgpOpenMessage, BgpUpdateMessage,
    CapabilityValue, ExtendedCommunity as TheirExtendedCommunity, NetworkPrefix, NextHopAddress,
    Nlri as TheirNlri, ParamValue,
};
use bgpkit_parser::parser::bgp::parse_bgp_message;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use crate::{generate, hex, table};

/// Our message without what the other side cannot show.
fn common_ground(message: Message) -> Message {
    match message {
        Message::Open(mut open) => {
            open.capabilities.retain_mut(|capability| match capability {
                Capability::Multiprotocol(family) => family.family().is_some(),
                Capability::GracefulRestart(restart) => {
                    restart.notification = false;
                    restart
                        .families
                        .retain(|entry| entry.family.family().is_some());
                    true
                }
                Capability::Unknown { code, .. } => *code > 73,
                Capability::RouteRefresh
                | Capability::FourOctetAs(_)
                | Capability::ExtendedMessage => true,
                Capability::Role(role) => Role::from_octet(*role).is_some(),
                Capability::ExtendedNextHop(entries) => {
                    entries.retain(|entry| {
                        entry.family.family().is_some() && matches!(entry.next_hop_afi, 1 | 2)
                    });
                    true
                }
                Capability::AddPath(entries) => {
                    entries.retain(|entry| entry.family.family().is_some());
                    true
                }
                Capability::EnhancedRouteRefresh | Capability::LongLivedGracefulRestart(_) => false,
            });
            Message::Open(open)
        }
        Message::Update(mut update) => {
            update
                .attributes
                .unknown
                .retain(|attribute| attribute.code == AttributeCode(99));
            update
                .attributes
                .ext_communities
                .retain(|community| matches!(community.0, [0..=2, 2..=3, ..]));
            if update.attributes.ext_communities.is_empty() {
                let partial = update.attributes.partial;
                let others = [
                    AttributeCode::AGGREGATOR,
                    AttributeCode::COMMUNITIES,
                    AttributeCode::LARGE_COMMUNITIES,
                    AttributeCode::OTC,
                ];
                update.attributes.partial = PartialSet::NONE;
                for code in others.into_iter().filter(|code| partial.contains(*code)) {
                    update.attributes.partial.insert(code);
                }
            }
            update
                .mp_reach
                .take_if(|reach| matches!(reach, MpReach::Other { .. }));
            update
                .mp_unreach
                .take_if(|unreach| matches!(unreach, MpUnreach::Other { .. }));
            let not_default = |nlri: &Nlri| nlri.prefix.len() > 0;
            update.withdrawn.retain(not_default);
            update.nlri.retain(not_default);
            if let Some(MpReach::Unicast { nlri, .. }) = &mut update.mp_reach {
                nlri.retain(not_default);
            }
            if let Some(MpUnreach::Unicast { nlri, .. }) = &mut update.mp_unreach {
                nlri.retain(not_default);
            }
            Message::Update(update)
        }
        other => other,
    }
}

fn translated(message: BgpMessage) -> Message {
    match message {
        BgpMessage::Open(open) => Message::Open(translated_open(open)),
        BgpMessage::Update(update) => Message::Update(translated_update(update)),
        BgpMessage::Notification(notification) => {
            let (code, subcode) = notification.error.get_codes();
            Message::Notification(Notification {
                code,
                subcode,
                data: notification.data.into(),
            })
        }
        BgpMessage::KeepAlive => Message::Keepalive,
        BgpMessage::RouteRefresh(refresh) => Message::RouteRefresh(RouteRefresh {
            family: AfiSafi {
                afi: refresh.afi,
                safi: refresh.safi,
            },
            subtype: refresh.subtype,
        }),
    }
}

fn translated_open(open: BgpOpenMessage) -> Open {
    assert_eq!(open.version, 4);
    let mut capabilities = Vec::new();
    for parameter in open.opt_params {
        let ParamValue::Capacities(list) = parameter.param_value else {
            panic!("{parameter:?}")
        };
        for capability in list {
            capabilities.push(match capability.value {
                CapabilityValue::MultiprotocolExtensions(family) => {
                    let (afi, safi) = (family.afi as u16, family.safi as u8);
                    Capability::Multiprotocol(AfiSafi { afi, safi })
                }
                CapabilityValue::RouteRefresh(_) => Capability::RouteRefresh,
                CapabilityValue::FourOctetAs(capability) => {
                    Capability::FourOctetAs(capability.asn)
                }
                CapabilityValue::GracefulRestart(restart) => {
                    let entry = |family: bgpkit_parser::models::capabilities::GracefulRestartAddressFamily| {
                        GracefulRestartFamily {
                            family: AfiSafi { afi: family.afi as u16, safi: family.safi as u8 },
                            forwarding_preserved: family.forwarding_state,
                        }
                    };
                    Capability::GracefulRestart(GracefulRestart {
                        restarting: restart.restart_state,
                        notification: false,
                        restart_time: restart.restart_time,
                        families: restart.address_families.into_iter().map(entry).collect(),
                    })
                }
                CapabilityValue::ExtendedNextHop(capability) => {
                    let entry = |entry: ExtendedNextHopEntry| ExtendedNextHop {
                        family: AfiSafi {
                            afi: entry.nlri_afi as u16,
                            safi: entry.nlri_safi as u8,
                        },
                        next_hop_afi: entry.nexthop_afi as u16,
                    };
                    Capability::ExtendedNextHop(capability.entries.into_iter().map(entry).collect())
                }
                CapabilityValue::AddPath(capability) => {
                    let entry = |entry: AddPathAddressFamily| AddPath {
                        family: AfiSafi {
                            afi: entry.afi as u16,
                            safi: entry.safi as u8,
                        },
                        mode: match entry.send_receive {
                            AddPathSendReceive::Receive => AddPathMode::Receive,
                            AddPathSendReceive::Send => AddPathMode::Send,
                            AddPathSendReceive::SendReceive => AddPathMode::Both,
                        },
                    };
                    let entries = capability.address_families.into_iter();
                    Capability::AddPath(entries.map(entry).collect())
                }
                CapabilityValue::BgpRole(capability) => Capability::Role(capability.role as u8),
                CapabilityValue::BgpExtendedMessage(_) => Capability::ExtendedMessage,
                CapabilityValue::Raw(value) => {
                    let BgpCapabilityType::Unknown(code) = capability.ty else {
                        panic!("{:?} not understood: {value:?}", capability.ty)
                    };
                    Capability::Unknown { code, value: value.into() }
                }
            });
        }
    }
    Open {
        my_as: u16::try_from(u32::from(open.asn)).expect("2 octets"),
        hold_time: open.hold_time,
        router_id: open.bgp_identifier,
        capabilities,
    }
}

fn prefixes(theirs: Vec<NetworkPrefix>) -> Vec<Nlri> {
    let route = |theirs: NetworkPrefix| Nlri {
        prefix: Prefix::try_from(theirs.prefix).expect("canonical"),
        path_id: theirs.path_id.unwrap_or(0),
    };
    theirs.into_iter().map(route).collect()
}

fn ext_community(theirs: TheirExtendedCommunity) -> ExtendedCommunity {
    use TheirExtendedCommunity as Theirs;
    let octets = match theirs {
        Theirs::TransitiveTwoOctetAs(community) => {
            let asn = u16::try_from(u32::from(community.global_admin)).expect("2 octets");
            [
                &[0, community.subtype][..],
                &asn.to_be_bytes(),
                &community.local_admin,
            ]
            .concat()
        }
        Theirs::TransitiveIpv4Addr(community) => [
            &[1, community.subtype][..],
            &community.global_admin.octets(),
            &community.local_admin,
        ]
        .concat(),
        Theirs::TransitiveFourOctetAs(community) => [
            &[2, community.subtype][..],
            &u32::from(community.global_admin).to_be_bytes(),
            &community.local_admin,
        ]
        .concat(),
        other => panic!("{other:?}"),
    };
    ExtendedCommunity(octets.try_into().expect("8 octets"))
}

fn family(nlri: &TheirNlri) -> Family {
    let afi_safi = AfiSafi {
        afi: nlri.afi as u16,
        safi: nlri.safi as u8,
    };
    afi_safi.family().expect("a family we know")
}

fn translated_update(update: BgpUpdateMessage) -> Update {
    let mut translated = Update {
        withdrawn: prefixes(update.withdrawn_prefixes),
        nlri: prefixes(update.announced_prefixes),
        ..Update::default()
    };
    let mut attributes = Attributes::default();
    let as_path = update.attributes.effective_as_path();
    attributes.as_path = as_path.map(|path| {
        let segments: Vec<(SegmentKind, Vec<u32>)> = path
            .segments
            .iter()
            .map(|segment| {
                let (kind, asns) = match segment {
                    AsPathSegment::AsSequence(asns) => (SegmentKind::Sequence, asns),
                    AsPathSegment::AsSet(asns) => (SegmentKind::Set, asns),
                    other => panic!("{other:?}"),
                };
                (kind, asns.iter().map(|asn| u32::from(*asn)).collect())
            })
            .collect();
        AsPath::from_segments(segments.iter().map(|(kind, asns)| (*kind, asns.as_slice())))
    });
    for attribute in update.attributes.into_attributes_iter() {
        if attribute.flag.bits() & AttributeFlags::PARTIAL != 0 {
            let code = u8::from(attribute.value.attr_type());
            attributes.partial.insert(AttributeCode(code));
        }
        match attribute.value {
            AttributeValue::Origin(origin) => {
                attributes.origin = Origin::from_octet(origin as u8);
            }
            AttributeValue::AsPath(_) | AttributeValue::As4Path(_) => {}
            AttributeValue::NextHop(std::net::IpAddr::V4(next_hop)) => {
                attributes.next_hop = Some(next_hop);
            }
            AttributeValue::MultiExitDiscriminator(med) => attributes.med = Some(med),
            AttributeValue::LocalPreference(value) => attributes.local_pref = Some(value),
            AttributeValue::AtomicAggregate => attributes.atomic_aggregate = true,
            AttributeValue::Aggregator { asn, id } | AttributeValue::As4Aggregator { asn, id } => {
                attributes.aggregator = Some(Aggregator {
                    asn: asn.into(),
                    router_id: id,
                });
            }
            AttributeValue::Communities(communities) => {
                use bgpkit_parser::models::Community as Theirs;
                let ours = |community| match community {
                    Theirs::NoExport => Community::NO_EXPORT,
                    Theirs::NoAdvertise => Community::NO_ADVERTISE,
                    Theirs::NoExportSubConfed => Community::NO_EXPORT_SUBCONFED,
                    Theirs::Custom(asn, value) => {
                        Community::new(u16::try_from(u32::from(asn)).expect("2 octets"), value)
                    }
                };
                attributes.communities = communities.into_iter().map(ours).collect();
            }
            AttributeValue::ExtendedCommunities(communities) => {
                attributes.ext_communities = communities.into_iter().map(ext_community).collect();
            }
            AttributeValue::LargeCommunities(communities) => {
                let ours = |theirs: bgpkit_parser::models::LargeCommunity| {
                    let [value1, value2] = theirs.local_data;
                    LargeCommunity::new(theirs.global_admin, value1, value2)
                };
                attributes.large_communities = communities.into_iter().map(ours).collect();
            }
            AttributeValue::OnlyToCustomer(asn) => attributes.otc = Some(asn.into()),
            AttributeValue::OriginatorId(id) => attributes.originator_id = Some(id),
            AttributeValue::Clusters(ids) => {
                attributes.cluster_list = ids.into_iter().map(Ipv4Addr::from_bits).collect();
            }
            AttributeValue::MpReachNlri(nlri) => {
                let next_hop = match nlri.next_hop {
                    Some(NextHopAddress::Ipv4(address)) => NextHop::V4(address),
                    Some(NextHopAddress::Ipv6(address)) => NextHop::V6(address),
                    Some(NextHopAddress::Ipv6LinkLocal(global, link_local)) => {
                        NextHop::V6WithLinkLocal { global, link_local }
                    }
                    other => panic!("{other:?}"),
                };
                translated.mp_reach = Some(MpReach::Unicast {
                    family: family(&nlri),
                    next_hop,
                    nlri: prefixes(nlri.prefixes),
                });
            }
            AttributeValue::MpUnreachNlri(nlri) => {
                translated.mp_unreach = Some(MpUnreach::Unicast {
                    family: family(&nlri),
                    nlri: prefixes(nlri.prefixes),
                });
            }
            AttributeValue::Unknown(raw) => {
                let flags = attribute.flag.bits() & !AttributeFlags::EXTENDED_LENGTH;
                attributes.unknown.push(UnknownAttribute {
                    flags: AttributeFlags(flags),
                    code: AttributeCode(raw.code),
                    value: raw.bytes.to_vec().into(),
                });
            }
            other => panic!("{other:?}"),
        }
    }
    Update {
        attributes,
        ..translated
    }
}

/// The message with neighbouring sequences of its AS path made one. Its merge of AS_PATH and
/// AS4_PATH does that to the whole path, ours only where the two meet.
fn joined(message: Message) -> Message {
    let Message::Update(mut update) = message else {
        return message;
    };
    if let Some(path) = &update.attributes.as_path {
        let mut segments: Vec<(SegmentKind, Vec<u32>)> = Vec::new();
        for segment in path.segments() {
            match segments.last_mut() {
                Some((SegmentKind::Sequence, asns)) if segment.kind() == SegmentKind::Sequence => {
                    asns.extend(segment.asns());
                }
                _ => segments.push((segment.kind(), segment.asns().collect())),
            }
        }
        let segments = segments.iter().map(|(kind, asns)| (*kind, asns.as_slice()));
        update.attributes.as_path = Some(AsPath::from_segments(segments));
    }
    Message::Update(update)
}

fn check(octets: &[u8], options: &WireOptions, message: &Message) -> Result<(), TestCaseError> {
    let width = if options.four_octet_as {
        AsnLength::Bits32
    } else {
        AsnLength::Bits16
    };
    let add_path = !options.add_path_send.is_empty();
    let theirs = parse_bgp_message(&mut Bytes::copy_from_slice(octets), add_path, &width);
    let theirs = theirs.map_err(|error| {
        TestCaseError::fail(format!("{error}: {message:?} as {}", hex::show(octets)))
    })?;
    match options.four_octet_as {
        true => prop_assert_eq!(translated(theirs), message.clone()),
        false => prop_assert_eq!(joined(translated(theirs)), joined(message.clone())),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn bgpkit_reads_what_we_write(
        (options, message) in generate::options().prop_flat_map(|mut options| {
            // It knows path identifiers in all families or in none.
            if !options.add_path_send.is_empty() {
                options.add_path_send = FamilySet::all();
            }
            (Just(options), generate::message(options).prop_map(common_ground))
        }),
    ) {
        let octets = message.to_bytes(&options).expect("fits");
        check(&octets, &options, &message)?;
    }
}

#[test]
fn bgpkit_reads_what_we_pack() {
    let options = WireOptions {
        four_octet_as: true,
        ..WireOptions::default()
    };
    let (attributes, tables) = table::many_routes(5000);
    for (family, next_hop, prefixes) in tables {
        let mut stream = BytesMut::new();
        let all = || prefixes.iter().copied();
        pack::announce(family, next_hop, &attributes, all(), &options, &mut stream).expect("fits");
        pack::withdraw(family, all(), &options, &mut stream).expect("fits");
        while let Some(frame) = bgp::wire::frame::split(&mut stream, &options).expect("valid") {
            let ours = Message::decode(&frame, &options).expect("valid").message;
            check(&frame, &options, &ours).expect("equal");
        }
    }
}
