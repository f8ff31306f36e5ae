//! Octets of the fuzzer as what a peer may say: messages that are right, nearly right, and wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arbitrary::{Result, Unstructured};
use bgp::wire::{
    AddPath, AddPathMode, AfiSafi, AsPath, Attributes, Capability, Community, Family,
    GracefulRestart, GracefulRestartFamily, Message, MpReach, MpUnreach, NextHop, Nlri,
    Notification, Open, Origin, Prefix, RouteRefresh, SegmentKind, Update,
};

use crate::{framed, options};

/// One message as octets, header included. `asn` is what the peer's OPEN should say.
///
/// # Errors
/// When the fuzzer's octets are used up.
pub fn message(input: &mut Unstructured<'_>, asn: u32) -> Result<Vec<u8>> {
    let message = match input.int_in_range(0..=10u8)? {
        0..=2 => Message::Open(open(input, asn)?),
        3..=4 => Message::Keepalive,
        5..=7 => Message::Update(update(input)?),
        8 => Message::Notification(Notification::with_data(
            input.int_in_range(0..=8)?,
            input.int_in_range(0..=11)?,
            short(input)?,
        )),
        9 => Message::RouteRefresh(RouteRefresh {
            family: afi_safi(input)?,
            subtype: input.int_in_range(0..=3)?,
        }),
        _ => return Ok(framed(input.int_in_range(0..=6)?, short(input)?)),
    };
    let written = message.to_bytes(&options(input.arbitrary()?));
    Ok(written.map(|octets| octets.to_vec()).unwrap_or_default())
}

/// A prefix out of few, so that they meet again.
///
/// # Errors
/// When the fuzzer's octets are used up.
pub fn prefix(input: &mut Unstructured<'_>, family: Family) -> Result<Prefix> {
    let index = input.int_in_range(0..=15u8)?;
    let (address, length) = match family {
        Family::Ipv4Unicast => (Ipv4Addr::new(10, index, 0, 0).into(), 8 + index),
        Family::Ipv6Unicast => (Ipv6Addr::from_bits(u128::from(index) << 88).into(), 48),
    };
    Ok(Prefix::containing(address, length).expect("fits both families"))
}

/// # Errors
/// When the fuzzer's octets are used up.
pub fn family(input: &mut Unstructured<'_>) -> Result<Family> {
    input.choose(&Family::ALL).copied()
}

fn open(input: &mut Unstructured<'_>, asn: u32) -> Result<Open> {
    let hold_time = *input.choose(&[0, 3, 9, 180, 1, 65535])?;
    let router_id = Ipv4Addr::new(10, 0, 0, input.int_in_range(0..=4)?);
    let asn = match input.ratio(7, 8)? {
        true => asn,
        false => *input.choose(&[0, 23456, 65001, 4_200_000_000])?,
    };
    let mut capabilities = Vec::new();
    for _ in 0..input.int_in_range(0..=5)? {
        capabilities.push(capability(input)?);
    }
    let mut open = Open::new(asn, hold_time, router_id, capabilities);
    if input.ratio(1, 8)? {
        // A speaker of old.
        open.capabilities.pop();
    }
    Ok(open)
}

fn capability(input: &mut Unstructured<'_>) -> Result<Capability> {
    Ok(match input.int_in_range(0..=11u8)? {
        0..=2 => Capability::multiprotocol(family(input)?),
        3 => Capability::Multiprotocol(afi_safi(input)?),
        4 => Capability::RouteRefresh,
        5 => {
            let flags: u8 = input.arbitrary()?;
            let mut families = Vec::new();
            for _ in 0..flags & 3 {
                families.push(GracefulRestartFamily {
                    family: afi_safi(input)?,
                    forwarding_preserved: flags & 4 != 0,
                });
            }
            Capability::GracefulRestart(GracefulRestart {
                restarting: flags & 8 != 0,
                notification: flags & 16 != 0,
                restart_time: *input.choose(&[0, 5, 120, 4095])?,
                families,
            })
        }
        8 => Capability::ExtendedMessage,
        9 => Capability::EnhancedRouteRefresh,
        10 => Capability::Role(input.int_in_range(0..=5)?),
        11 => Capability::AddPath(vec![AddPath {
            family: family(input)?.into(),
            mode: *input.choose(&[AddPathMode::Receive, AddPathMode::Send, AddPathMode::Both])?,
        }]),
        // The codes of what may be known, and of what is not.
        6 => unknown(*input.choose(&[5, 6, 9, 64, 65, 69, 70, 71])?, input)?,
        _ => unknown(input.arbitrary()?, input)?,
    })
}

fn unknown(code: u8, input: &mut Unstructured<'_>) -> Result<Capability> {
    let length = input.int_in_range(0..=9)?;
    Ok(Capability::Unknown {
        code,
        value: input.bytes(length)?.into(),
    })
}

fn update(input: &mut Unstructured<'_>) -> Result<Update> {
    let shape: u8 = input.arbitrary()?;
    let bit = |bit: u8| shape & (1 << bit) != 0;
    let mut update = Update::default();
    if bit(0) {
        update.withdrawn = routes(input, Family::Ipv4Unicast)?;
    }
    if bit(1) {
        update.nlri = routes(input, Family::Ipv4Unicast)?;
    }
    if bit(2) {
        update.mp_reach = Some(match bit(6) {
            false => MpReach::Unicast {
                family: Family::Ipv6Unicast,
                next_hop: next_hop(input)?,
                nlri: routes(input, Family::Ipv6Unicast)?,
            },
            true => MpReach::Other {
                family: afi_safi(input)?,
                next_hop: short(input)?.into(),
                nlri: short(input)?.into(),
            },
        });
    }
    if bit(3) {
        update.mp_unreach = Some(match bit(7) {
            false => MpUnreach::Unicast {
                family: Family::Ipv6Unicast,
                nlri: routes(input, Family::Ipv6Unicast)?,
            },
            true => MpUnreach::Other {
                family: afi_safi(input)?,
                nlri: short(input)?.into(),
            },
        });
    }
    if bit(4) || bit(1) || bit(2) {
        update.attributes = attributes(input)?;
    }
    Ok(update)
}

fn attributes(input: &mut Unstructured<'_>) -> Result<Attributes> {
    let shape: u8 = input.arbitrary()?;
    let bit = |bit: u8| shape & (1 << bit) != 0;
    let mut asns = Vec::new();
    for _ in 0..input.int_in_range(0..=4)? {
        asns.push(*input.choose(&[65001, 65002, 65003, 23456, 4_200_000_003, 0])?);
    }
    let kind = match bit(7) {
        true => SegmentKind::Set,
        false => SegmentKind::Sequence,
    };
    let mut attributes = Attributes {
        origin: (!bit(0)).then_some(Origin::Igp),
        as_path: (!bit(1)).then(|| AsPath::from_segments([(kind, asns.as_slice())])),
        ..Attributes::default()
    };
    if !bit(2) {
        attributes.next_hop = Some(match next_hop(input)?.addr() {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => Ipv4Addr::new(192, 0, 2, 7),
        });
    }
    if bit(3) {
        attributes.med = Some(u32::from(input.arbitrary::<u8>()?));
    }
    if bit(4) {
        attributes.local_pref = Some(u32::from(input.arbitrary::<u8>()?));
    }
    if bit(5) {
        for _ in 0..input.int_in_range(0..=3)? {
            let low = u32::from(input.arbitrary::<u16>()?);
            attributes.communities.push(Community(0xffff_0000 | low));
        }
    }
    Ok(attributes)
}

fn next_hop(input: &mut Unstructured<'_>) -> Result<NextHop> {
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
    let global = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 7);
    Ok(match input.int_in_range(0..=5u8)? {
        // A neighbour's, our own, and none at all.
        0 => NextHop::V4(Ipv4Addr::new(192, 0, 2, 7)),
        1 => NextHop::V4(Ipv4Addr::new(10, 99, 0, 1)),
        2 => NextHop::V4(Ipv4Addr::UNSPECIFIED),
        3 => NextHop::V6(global),
        4 => NextHop::V6(Ipv6Addr::UNSPECIFIED),
        _ => NextHop::V6WithLinkLocal { global, link_local },
    })
}

fn routes(input: &mut Unstructured<'_>, family: Family) -> Result<Vec<Nlri>> {
    let count = input.int_in_range(0..=4)?;
    let routes = (0..count).map(|_| {
        Ok(Nlri {
            path_id: input.int_in_range(0..=2)?,
            prefix: prefix(input, family)?,
        })
    });
    routes.collect()
}

fn afi_safi(input: &mut Unstructured<'_>) -> Result<AfiSafi> {
    Ok(match input.ratio(3, 4)? {
        true => family(input)?.into(),
        false => AfiSafi {
            afi: *input.choose(&[1, 2, 25, 0, 65535])?,
            safi: *input.choose(&[1, 2, 4, 128, 0, 255])?,
        },
    })
}

/// At most 255 octets, and no more than there are.
fn short<'a>(input: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    let length: u8 = input.arbitrary()?;
    input.bytes(usize::from(length).min(input.len()))
}
