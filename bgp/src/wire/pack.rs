//! Many routes with one set of attributes into as few UPDATEs as they fit in.
//!
//! Writes messages back to back, ready to be sent to every peer with the same options. IPv4 goes
//! into the classic fields, except routes with an IPv6 next hop (RFC 8950): those and IPv6 go into
//! MP_REACH_NLRI and MP_UNREACH_NLRI. Order is kept.

use bytes::{BufMut, BytesMut};

use crate::wire::attribute::{AttributeCode, Attributes};
use crate::wire::error::EncodeError;
use crate::wire::frame::{HEADER_LEN, LENGTH_OFFSET, put_header};
use crate::wire::message::{WireOptions, kind};
use crate::wire::nlri::{self, Nlri};
use crate::wire::prefix::Family;
use crate::wire::update::{
    NextHop, put_attributes, put_family, put_mp_header, put_reach_fields, put_sized,
};

/// Appends UPDATEs that announce `nlri`, all of `family`, and returns how many.
///
/// `attributes` are written as they are, except that `next_hop` replaces [`Attributes::next_hop`].
/// No route, no message.
///
/// # Errors
/// [`EncodeError::NextHopFamily`], [`EncodeError::PrefixFamily`], [`EncodeError::NoRoom`] or
/// [`EncodeError::TooLong`]; `out` is then as it was.
pub fn announce(
    family: Family,
    next_hop: NextHop,
    attributes: &Attributes,
    nlri: impl IntoIterator<Item = Nlri>,
    options: &WireOptions,
    out: &mut BytesMut,
) -> Result<usize, EncodeError> {
    let mut template = Template::new();
    let octets = &mut template.octets;
    match (family, next_hop) {
        (Family::Ipv4Unicast, NextHop::V4(next_hop)) => {
            put_sized(octets, |_| Ok(()))?;
            put_sized(octets, |octets| {
                put_attributes(attributes, Some(next_hop), options, octets)
            })?;
            template.end_head();
            template.pack(family, &[], nlri, options, out)
        }
        (family, next_hop) => {
            octets.put_slice(&[0; 4]);
            put_mp_header(AttributeCode::MP_REACH_NLRI, octets);
            octets.put_u16(0);
            put_reach_fields(family, &next_hop, options, octets)?;
            template.end_head();
            put_attributes(attributes, None, options, &mut template.octets)?;
            let lengths = [
                (ATTRIBUTES_LENGTH, template.octets.len()),
                (MP_LENGTH, template.head),
            ];
            template.pack(family, &lengths, nlri, options, out)
        }
    }
}

/// Appends UPDATEs that withdraw `nlri`, all of `family`, and returns how many.
/// No route, no message.
///
/// # Errors
/// [`EncodeError::PrefixFamily`]; `out` is then as it was.
pub fn withdraw(
    family: Family,
    nlri: impl IntoIterator<Item = Nlri>,
    options: &WireOptions,
    out: &mut BytesMut,
) -> Result<usize, EncodeError> {
    let mut template = Template::new();
    let octets = &mut template.octets;
    match family {
        Family::Ipv4Unicast => {
            octets.put_u16(0);
            template.end_head();
            // No attributes.
            template.octets.put_u16(0);
            let lengths = [(WITHDRAWN_LENGTH, template.head)];
            template.pack(family, &lengths, nlri, options, out)
        }
        Family::Ipv6Unicast => {
            octets.put_slice(&[0; 4]);
            put_mp_header(AttributeCode::MP_UNREACH_NLRI, octets);
            octets.put_u16(0);
            put_family(family.into(), octets);
            template.end_head();
            let lengths = [
                (ATTRIBUTES_LENGTH, template.head),
                (MP_LENGTH, template.head),
            ];
            template.pack(family, &lengths, nlri, options, out)
        }
    }
}

// Offsets of the length fields in the messages written here: where attributes stand, nothing is
// withdrawn; where a multiprotocol attribute stands, it is the first one.
const WITHDRAWN_LENGTH: usize = HEADER_LEN;
const ATTRIBUTES_LENGTH: usize = WITHDRAWN_LENGTH + 2;
const MP_LENGTH: usize = ATTRIBUTES_LENGTH + 2 + 2;

/// An UPDATE with a gap for prefixes, written once and copied for each message.
struct Template {
    /// What stands before and after the gap.
    octets: BytesMut,
    /// Where the gap is.
    head: usize,
}

impl Template {
    fn new() -> Template {
        let mut octets = BytesMut::with_capacity(256);
        put_header(kind::UPDATE, &mut octets);
        Template { octets, head: 0 }
    }

    fn end_head(&mut self) {
        self.head = self.octets.len();
    }

    /// `lengths` are the length fields that depend on the gap: where they are, and where what
    /// they count ends while the gap is empty.
    fn pack(
        &self,
        family: Family,
        lengths: &[(usize, usize)],
        nlri: impl IntoIterator<Item = Nlri>,
        options: &WireOptions,
        out: &mut BytesMut,
    ) -> Result<usize, EncodeError> {
        let start = out.len();
        let packed = self.pack_all(family, lengths, nlri.into_iter(), options, out);
        if packed.is_err() {
            out.truncate(start);
        }
        packed
    }

    fn pack_all(
        &self,
        family: Family,
        lengths: &[(usize, usize)],
        mut routes: impl Iterator<Item = Nlri>,
        options: &WireOptions,
        out: &mut BytesMut,
    ) -> Result<usize, EncodeError> {
        let add_path = options.add_path_send.contains(family);
        let room = options.max_len().saturating_sub(self.octets.len());
        let mut messages = 0;
        let mut next = routes.next();
        while let Some(first) = next.take() {
            if nlri::len(&first, add_path) > room {
                return Err(EncodeError::NoRoom(self.octets.len()));
            }
            let start = out.len();
            out.put_slice(&self.octets[..self.head]);
            let gap = out.len();
            let mut route = first;
            loop {
                nlri::check_family(family, &route)?;
                nlri::put_one(&route, add_path, out);
                let Some(following) = routes.next() else {
                    break;
                };
                if out.len() - gap + nlri::len(&following, add_path) > room {
                    next = Some(following);
                    break;
                }
                route = following;
            }
            let filled = out.len() - gap;
            out.put_slice(&self.octets[self.head..]);
            let mut fill_in = |offset: usize, length: usize| {
                // The message is within the maximum, hence every part of it within u16.
                let field = (length as u16).to_be_bytes();
                out[start + offset..start + offset + 2].copy_from_slice(&field);
            };
            fill_in(LENGTH_OFFSET, self.octets.len() + filled);
            for &(offset, end) in lengths {
                fill_in(offset, end - (offset + 2) + filled);
            }
            messages += 1;
        }
        Ok(messages)
    }
}
