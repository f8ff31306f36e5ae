//! Many routes with one set of attributes into as few UPDATEs as they fit in.
//!
//! Writes messages back to back, ready to be sent to every peer with the same options. IPv4 goes
//! into the classic fields, IPv6 into MP_REACH_NLRI and MP_UNREACH_NLRI. Order is kept.

use bytes::BytesMut;

use crate::wire::attribute::Attributes;
use crate::wire::error::EncodeError;
use crate::wire::message::WireOptions;
use crate::wire::prefix::{Family, Prefix};
use crate::wire::update::NextHop;

/// Appends UPDATEs that announce `prefixes`, all of `family`, and returns how many.
///
/// `attributes` are written as they are, except that `next_hop` replaces [`Attributes::next_hop`].
/// No prefix, no message.
///
/// # Errors
/// [`EncodeError::NextHopFamily`], [`EncodeError::PrefixFamily`] or [`EncodeError::NoRoom`]; `out`
/// is then as it was.
pub fn announce(
    family: Family,
    next_hop: NextHop,
    attributes: &Attributes,
    prefixes: impl IntoIterator<Item = Prefix>,
    options: &WireOptions,
    out: &mut BytesMut,
) -> Result<usize, EncodeError> {
    let _ = (
        family,
        next_hop,
        attributes,
        prefixes.into_iter(),
        options,
        out,
    );
    unimplemented!()
}

/// Appends UPDATEs that withdraw `prefixes`, all of `family`, and returns how many.
/// No prefix, no message.
///
/// # Errors
/// [`EncodeError::PrefixFamily`]; `out` is then as it was.
pub fn withdraw(
    family: Family,
    prefixes: impl IntoIterator<Item = Prefix>,
    options: &WireOptions,
    out: &mut BytesMut,
) -> Result<usize, EncodeError> {
    let _ = (family, prefixes.into_iter(), options, out);
    unimplemented!()
}
