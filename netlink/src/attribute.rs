//! Attributes of netlink messages that no other crate reads for us: found by number.
//!
//! Works on bytes alone, of whoever sent them: a broken attribute ends the list.

use crate::frame::align;

/// Length of `struct nlattr`.
pub(crate) const HEADER: usize = 4;
const TYPE_MASK: u16 = 0x3fff;

/// The attributes up to the first that is broken.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header: [u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
        let [a, b, c, d] = header;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(HEADER..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & TYPE_MASK, value))
    })
}

/// The value of the first attribute with this number.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

/// The same as text; `None` where it is none, or does not end with a zero.
pub(crate) fn text(bytes: &[u8], kind: u16) -> Option<&str> {
    std::str::from_utf8(find(bytes, kind)?.strip_suffix(&[0])?).ok()
}

/// The same as a number in the host's order.
pub(crate) fn native(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_ne_bytes(find(bytes, kind)?.try_into().ok()?))
}
