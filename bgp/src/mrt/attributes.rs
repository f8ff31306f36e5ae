//! Path attributes as table dumps carry them (RFC 6396 section 4.3.4): AS numbers always with 4
//! octets, and of MP_REACH_NLRI only the next hop, since the prefix stands in the record.
//!
//! Both ways lead over a whole UPDATE, so that the attributes are written and read by the code
//! that sessions use.

use bytes::{BufMut, Bytes, BytesMut};

use super::{PutError, RibEntry};
use crate::cursor::Cursor;
use crate::wire::message::{HEADER_LEN, kind};
use crate::wire::{
    AfiSafi, AttributeCode, AttributeFlags, Attributes, Decoded, Family, Message, MpReach, NextHop,
    Prefix, Update, WireError, WireOptions,
};

/// How attributes in a table dump look: those of any peer may be there.
pub(super) fn options() -> WireOptions {
    WireOptions {
        four_octet_as: true,
        extended_messages: true,
        internal: true,
        ipv4_next_hop_v6: true,
        allow_as_set: true,
        ..WireOptions::default()
    }
}

/// The attributes of a route to `prefix`, for [`RibEntry::attributes`].
///
/// # Errors
/// When they do not fit an UPDATE, or the family cannot have this next hop.
pub fn attributes_of(
    prefix: &Prefix,
    attributes: &Attributes,
    next_hop: NextHop,
) -> Result<Bytes, PutError> {
    let mut update = Update {
        attributes: attributes.clone(),
        ..Update::default()
    };
    match next_hop {
        NextHop::V4(address) if prefix.family() == Family::Ipv4Unicast => {
            update.attributes.next_hop = Some(address);
        }
        next_hop => {
            update.attributes.next_hop = None;
            update.mp_reach = Some(MpReach::Unicast {
                family: prefix.family(),
                next_hop,
                nlri: Vec::new(),
            });
        }
    }
    let octets = Message::Update(update).to_bytes(&options())?;
    // Header, no withdrawn routes, the length of the attributes, and they last.
    let attributes = octets.slice((HEADER_LEN + 4).min(octets.len())..);
    Ok(with_mp_reach(&attributes, abbreviated))
}

impl RibEntry {
    /// Reads the attributes of this route to `prefix` (that of its [`super::Rib`]) as an UPDATE
    /// that announces it. MP_REACH_NLRI may be abbreviated or, as some write it, whole.
    ///
    /// # Errors
    /// A [`WireError`] for attributes that would end a session.
    pub fn decode(&self, prefix: &Prefix) -> Result<Decoded, WireError> {
        let mut multiprotocol = false;
        let attributes = with_mp_reach(&self.attributes, |value| {
            multiprotocol = true;
            expanded(value, prefix)
        });
        let mut octets = BytesMut::with_capacity(HEADER_LEN + 4 + attributes.len() + 17);
        octets.put_slice(&[0xff; 16]);
        octets.put_u16(0);
        octets.put_u8(kind::UPDATE);
        octets.put_u16(0);
        // Beyond this the message is too long as well, which is noticed below.
        octets.put_u16(u16::try_from(attributes.len()).unwrap_or(u16::MAX));
        octets.put_slice(&attributes);
        if !multiprotocol && prefix.family() == Family::Ipv4Unicast {
            put_prefix(prefix, &mut octets);
        }
        let length = u16::try_from(octets.len()).unwrap_or(u16::MAX);
        octets[16..18].copy_from_slice(&length.to_be_bytes());
        Message::decode(&octets, &options())
    }
}

/// The attributes with the value of each MP_REACH_NLRI replaced. What is no list of attributes
/// stays as it is from there on: whoever reads it will say so.
fn with_mp_reach(attributes: &Bytes, mut replace: impl FnMut(&[u8]) -> Option<Bytes>) -> Bytes {
    let mut out = BytesMut::with_capacity(attributes.len() + 24);
    let mut cursor = Cursor::new(attributes.clone(), 0);
    while cursor.remaining() > 0 {
        let before = cursor.clone();
        let Some((flags, code, value)) = next(&mut cursor) else {
            out.put_slice(&before.clone().rest());
            break;
        };
        let replaced = (code == AttributeCode::MP_REACH_NLRI.0)
            .then(|| replace(&value))
            .flatten()
            .and_then(|value| Some((u16::try_from(value.len()).ok()?, value)));
        match replaced {
            Some((length, value)) => {
                out.put_slice(&[flags | AttributeFlags::EXTENDED_LENGTH, code]);
                out.put_u16(length);
                out.put_slice(&value);
            }
            None => out.put_slice(&before.clone().rest()[..cursor.offset() - before.offset()]),
        }
    }
    out.freeze()
}

fn next(cursor: &mut Cursor) -> Option<(u8, u8, Bytes)> {
    let flags = cursor.u8("flags").ok()?;
    let code = cursor.u8("type").ok()?;
    let length = match flags & AttributeFlags::EXTENDED_LENGTH != 0 {
        true => usize::from(cursor.u16("length").ok()?),
        false => usize::from(cursor.u8("length").ok()?),
    };
    Some((flags, code, cursor.take("value", length).ok()?))
}

/// Next hop length and next hop, of a whole MP_REACH_NLRI.
fn abbreviated(value: &[u8]) -> Option<Bytes> {
    let length = usize::from(*value.get(3)?);
    value.get(3..4 + length).map(Bytes::copy_from_slice)
}

/// A whole MP_REACH_NLRI that announces `prefix`, of an abbreviated or a whole one.
fn expanded(value: &[u8], prefix: &Prefix) -> Option<Bytes> {
    let next_hop = match value.split_first() {
        Some((length, rest)) if usize::from(*length) == rest.len() => Bytes::copy_from_slice(value),
        _ => abbreviated(value)?,
    };
    let AfiSafi { afi, safi } = prefix.family().into();
    let mut out = BytesMut::with_capacity(4 + next_hop.len() + 17);
    out.put_u16(afi);
    out.put_u8(safi);
    out.put_slice(&next_hop);
    out.put_u8(0);
    put_prefix(prefix, &mut out);
    Some(out.freeze())
}

fn put_prefix(prefix: &Prefix, out: &mut BytesMut) {
    prefix.with_nlri(|length, octets| {
        out.put_u8(length);
        out.put_slice(octets);
    });
}
