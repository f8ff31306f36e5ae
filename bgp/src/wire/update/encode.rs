//! Writing an UPDATE: MP attributes first (RFC 7606 section 5.1), the rest by type code.

use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};

use crate::wire::as4::{self, Width};
use crate::wire::attribute::{AttributeCode, AttributeFlags, Attributes, UnknownAttribute};
use crate::wire::error::EncodeError;
use crate::wire::message::WireOptions;
use crate::wire::nlri;
use crate::wire::prefix::{AfiSafi, Family};
use crate::wire::update::{MpReach, MpUnreach, NextHop, Update};

const WELL_KNOWN: u8 = AttributeFlags::TRANSITIVE;
const OPTIONAL: u8 = AttributeFlags::OPTIONAL;
const OPTIONAL_TRANSITIVE: u8 = AttributeFlags::OPTIONAL | AttributeFlags::TRANSITIVE;

impl Update {
    pub(in crate::wire) fn put(
        &self,
        options: &WireOptions,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let ipv4 = Family::Ipv4Unicast;
        let add_path = options.add_path_send.contains(ipv4);
        put_sized(out, |out| nlri::put(ipv4, add_path, &self.withdrawn, out))?;
        put_sized(out, |out| {
            if let Some(unreach) = &self.mp_unreach {
                put_unreach(unreach, options, out)?;
            }
            if let Some(reach) = &self.mp_reach {
                put_reach(reach, options, out)?;
            }
            put_attributes(&self.attributes, self.attributes.next_hop, options, out)
        })?;
        nlri::put(ipv4, add_path, &self.nlri, out)
    }
}

/// Writes a 2-octet length and what it is the length of.
pub(in crate::wire) fn put_sized(
    out: &mut BytesMut,
    body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_u16(0);
    body(out)?;
    let length = out.len() - start - 2;
    let max = usize::from(u16::MAX);
    let field = u16::try_from(length).map_err(|_| EncodeError::TooLong { length, max })?;
    out[start..start + 2].copy_from_slice(&field.to_be_bytes());
    Ok(())
}

/// The octets before the NLRI of an MP_REACH_NLRI, up to and including its length field (which
/// always takes two octets, so that NLRI can be appended before their length is known).
pub(in crate::wire) fn put_mp_header(code: AttributeCode, out: &mut BytesMut) {
    out.put_slice(&[OPTIONAL | AttributeFlags::EXTENDED_LENGTH, code.0]);
}

/// The fields of MP_REACH_NLRI before the NLRI.
pub(in crate::wire) fn put_reach_fields(
    family: Family,
    next_hop: &NextHop,
    options: &WireOptions,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    put_family(family.into(), out);
    let (next_hop, v6) = (*next_hop, !matches!(next_hop, NextHop::V4(_)));
    let fits = match family {
        Family::Ipv4Unicast => !v6 || options.ipv4_next_hop_v6,
        Family::Ipv6Unicast => v6,
    };
    if !fits {
        return Err(EncodeError::NextHopFamily { next_hop, family });
    }
    match next_hop {
        NextHop::V4(address) => {
            out.put_u8(4);
            out.put_slice(&address.octets());
        }
        NextHop::V6(address) => {
            out.put_u8(16);
            out.put_slice(&address.octets());
        }
        NextHop::V6WithLinkLocal { global, link_local } => {
            out.put_u8(32);
            out.put_slice(&global.octets());
            out.put_slice(&link_local.octets());
        }
    }
    // Reserved since RFC 4760, once a count of SNPAs.
    out.put_u8(0);
    Ok(())
}

pub(in crate::wire) fn put_family(family: AfiSafi, out: &mut BytesMut) {
    out.put_u16(family.afi);
    out.put_u8(family.safi);
}

fn put_reach(
    reach: &MpReach,
    options: &WireOptions,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    put_mp_header(AttributeCode::MP_REACH_NLRI, out);
    put_sized(out, |out| match reach {
        MpReach::Unicast {
            family,
            next_hop,
            nlri,
        } => {
            put_reach_fields(*family, next_hop, options, out)?;
            nlri::put(*family, options.add_path_send.contains(*family), nlri, out)
        }
        MpReach::Other {
            family,
            next_hop,
            nlri,
        } => {
            put_family(*family, out);
            let length = u8::try_from(next_hop.len())
                .map_err(|_| EncodeError::NextHopTooLong(next_hop.len()))?;
            out.put_u8(length);
            out.put_slice(next_hop);
            out.put_u8(0);
            out.put_slice(nlri);
            Ok(())
        }
    })
}

fn put_unreach(
    unreach: &MpUnreach,
    options: &WireOptions,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    put_mp_header(AttributeCode::MP_UNREACH_NLRI, out);
    put_sized(out, |out| match unreach {
        MpUnreach::Unicast { family, nlri } => {
            put_family((*family).into(), out);
            nlri::put(*family, options.add_path_send.contains(*family), nlri, out)
        }
        MpUnreach::Other { family, nlri } => {
            put_family(*family, out);
            out.put_slice(nlri);
            Ok(())
        }
    })
}

/// Appends every attribute of a route, with this NEXT_HOP.
pub(in crate::wire) fn put_attributes(
    attributes: &Attributes,
    next_hop: Option<Ipv4Addr>,
    options: &WireOptions,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let width = Width::of_session(options.four_octet_as);
    let transitive = |code| match attributes.partial.contains(code) {
        true => OPTIONAL_TRANSITIVE | AttributeFlags::PARTIAL,
        false => OPTIONAL_TRANSITIVE,
    };
    if let Some(origin) = attributes.origin {
        put_header(out, WELL_KNOWN, AttributeCode::ORIGIN, 1)?;
        out.put_u8(origin as u8);
    }
    if let Some(path) = &attributes.as_path {
        put_header(
            out,
            WELL_KNOWN,
            AttributeCode::AS_PATH,
            as4::path_len(path, width),
        )?;
        as4::put_path(path, width, out);
    }
    if let Some(next_hop) = next_hop {
        put_header(out, WELL_KNOWN, AttributeCode::NEXT_HOP, 4)?;
        out.put_slice(&next_hop.octets());
    }
    if let Some(med) = attributes.med {
        put_header(out, OPTIONAL, AttributeCode::MED, 4)?;
        out.put_u32(med);
    }
    if let Some(local_pref) = attributes.local_pref {
        put_header(out, WELL_KNOWN, AttributeCode::LOCAL_PREF, 4)?;
        out.put_u32(local_pref);
    }
    if attributes.atomic_aggregate {
        put_header(out, WELL_KNOWN, AttributeCode::ATOMIC_AGGREGATE, 0)?;
    }
    if let Some(aggregator) = &attributes.aggregator {
        let length = width.octets() + 4;
        put_header(
            out,
            transitive(AttributeCode::AGGREGATOR),
            AttributeCode::AGGREGATOR,
            length,
        )?;
        match width {
            Width::Two => out.put_u16(as4::narrowed(aggregator.asn)),
            Width::Four => out.put_u32(aggregator.asn),
        }
        out.put_slice(&aggregator.router_id.octets());
    }
    if !attributes.communities.is_empty() {
        let length = attributes.communities.len() * 4;
        put_header(
            out,
            transitive(AttributeCode::COMMUNITIES),
            AttributeCode::COMMUNITIES,
            length,
        )?;
        for community in &attributes.communities {
            out.put_u32(community.0);
        }
    }
    // The unknown ones are in the order of their codes, the higher ones known among them.
    let mut unknown = attributes.unknown.as_slice();
    if let Some(originator) = attributes.originator_id {
        put_unknown_before(AttributeCode::ORIGINATOR_ID, &mut unknown, out)?;
        put_header(out, OPTIONAL, AttributeCode::ORIGINATOR_ID, 4)?;
        out.put_slice(&originator.octets());
    }
    if !attributes.cluster_list.is_empty() {
        put_unknown_before(AttributeCode::CLUSTER_LIST, &mut unknown, out)?;
        let length = attributes.cluster_list.len() * 4;
        put_header(out, OPTIONAL, AttributeCode::CLUSTER_LIST, length)?;
        for cluster in &attributes.cluster_list {
            out.put_slice(&cluster.octets());
        }
    }
    if !attributes.ext_communities.is_empty() {
        put_unknown_before(AttributeCode::EXT_COMMUNITIES, &mut unknown, out)?;
        let (code, list) = (AttributeCode::EXT_COMMUNITIES, &attributes.ext_communities);
        put_header(out, transitive(code), code, list.len() * 8)?;
        for community in list {
            out.put_slice(&community.0);
        }
    }
    if width == Width::Two {
        put_unknown_before(AttributeCode::AS4_PATH, &mut unknown, out)?;
        put_as4(attributes, out)?;
    }
    if !attributes.large_communities.is_empty() {
        put_unknown_before(AttributeCode::LARGE_COMMUNITIES, &mut unknown, out)?;
        let (code, list) = (
            AttributeCode::LARGE_COMMUNITIES,
            &attributes.large_communities,
        );
        put_header(out, transitive(code), code, list.len() * 12)?;
        for community in list {
            out.put_u32(community.asn);
            out.put_u32(community.value1);
            out.put_u32(community.value2);
        }
    }
    if let Some(asn) = attributes.otc {
        put_unknown_before(AttributeCode::OTC, &mut unknown, out)?;
        put_header(out, transitive(AttributeCode::OTC), AttributeCode::OTC, 4)?;
        out.put_u32(asn);
    }
    unknown
        .iter()
        .try_for_each(|attribute| put_unknown(attribute, out))
}

/// Appends the unknown attributes that come before `code`, and leaves the others.
fn put_unknown_before(
    code: AttributeCode,
    unknown: &mut &[UnknownAttribute],
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let (before, after) = unknown.split_at(unknown.partition_point(|other| other.code < code));
    *unknown = after;
    before
        .iter()
        .try_for_each(|attribute| put_unknown(attribute, out))
}

/// What a 2-octet peer cannot be told otherwise (RFC 6793 section 4.2.2).
fn put_as4(attributes: &Attributes, out: &mut BytesMut) -> Result<(), EncodeError> {
    if let Some(path) = &attributes.as_path
        && !path.asns().all(as4::fits)
    {
        let length = as4::path_len(path, Width::Four);
        put_header(out, OPTIONAL_TRANSITIVE, AttributeCode::AS4_PATH, length)?;
        as4::put_path(path, Width::Four, out);
    }
    if let Some(aggregator) = &attributes.aggregator
        && !as4::fits(aggregator.asn)
    {
        put_header(out, OPTIONAL_TRANSITIVE, AttributeCode::AS4_AGGREGATOR, 8)?;
        out.put_u32(aggregator.asn);
        out.put_slice(&aggregator.router_id.octets());
    }
    Ok(())
}

fn put_unknown(attribute: &UnknownAttribute, out: &mut BytesMut) -> Result<(), EncodeError> {
    put_header(
        out,
        attribute.flags.0,
        attribute.code,
        attribute.value.len(),
    )?;
    out.put_slice(&attribute.value);
    Ok(())
}

/// Flags, type code and length of an attribute; the length decides the Extended Length flag.
fn put_header(
    out: &mut BytesMut,
    flags: u8,
    code: AttributeCode,
    length: usize,
) -> Result<(), EncodeError> {
    let flags = flags & !AttributeFlags::EXTENDED_LENGTH;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) => out.put_slice(&[flags, code.0, short]),
        (_, Ok(long)) => {
            out.put_slice(&[flags | AttributeFlags::EXTENDED_LENGTH, code.0]);
            out.put_u16(long);
        }
        _ => {
            return Err(EncodeError::TooLong {
                length,
                max: usize::from(u16::MAX),
            });
        }
    }
    Ok(())
}
