//! From a stream of octets to whole messages: the header and its checks (RFC 4271 section 6.1).
//!
//! Looks at the header only; what a message says is no matter here.

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::error::{EncodeError, HeaderError};
use crate::wire::message::{MAX_LEN, WireOptions, kind};

/// Octets of the header: marker, length, type.
pub const HEADER_LEN: usize = 19;

/// Where the length stands.
pub(super) const LENGTH_OFFSET: usize = 16;

/// All ones since RFC 4271.
const MARKER: [u8; 16] = [0xff; 16];

/// A header that passed the checks of RFC 4271 section 6.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header {
    /// Length of the message, header included.
    pub length: u16,
    /// Type octet, one of [`kind`].
    pub kind: u8,
}

impl Header {
    /// Reads and checks the header at the start of `octets`; `None` while it is incomplete.
    ///
    /// # Errors
    /// A [`HeaderError`] as soon as the header can be told to be wrong.
    pub fn peek(octets: &[u8], options: &WireOptions) -> Result<Option<Header>, HeaderError> {
        let seen = octets.len().min(MARKER.len());
        if octets[..seen] != MARKER[..seen] {
            return Err(HeaderError::Marker);
        }
        let Some(header) = octets.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let &[.., high, low, kind] = header;
        let length = u16::from_be_bytes([high, low]);
        let (min, max) = match kind {
            kind::OPEN => (29, MAX_LEN),
            kind::UPDATE => (23, options.max_len()),
            kind::NOTIFICATION => (21, options.max_len()),
            kind::KEEPALIVE => (HEADER_LEN, HEADER_LEN),
            kind::ROUTE_REFRESH => (23, 23),
            _ => (HEADER_LEN, options.max_len()),
        };
        if !(min..=max).contains(&usize::from(length)) {
            return Err(HeaderError::Length(length));
        }
        if !(kind::OPEN..=kind::ROUTE_REFRESH).contains(&kind) {
            return Err(HeaderError::Type(kind));
        }
        Ok(Some(Header { length, kind }))
    }
}

/// Takes the next whole message, header included, off the front of `buffer`; `None` until more
/// octets have arrived. [`super::Message::decode`] takes it from there.
///
/// A buffer that is asked until `None` never holds more than one message plus one read.
///
/// # Errors
/// A [`HeaderError`] at the first header that is wrong; nothing after it can be trusted.
pub fn split(buffer: &mut BytesMut, options: &WireOptions) -> Result<Option<Bytes>, HeaderError> {
    match Header::peek(buffer, options)? {
        Some(Header { length, .. }) if buffer.len() >= usize::from(length) => {
            Ok(Some(buffer.split_to(usize::from(length)).freeze()))
        }
        _ => Ok(None),
    }
}

/// Writes a header with a length of 0, to be filled in.
pub(super) fn put_header(kind: u8, out: &mut BytesMut) {
    out.put_slice(&MARKER);
    out.put_u16(0);
    out.put_u8(kind);
}

/// Writes a header, lets `body` write the rest and fills in the length. On error `out` is as it
/// was.
pub(super) fn framed(
    kind: u8,
    max: usize,
    out: &mut BytesMut,
    body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    put_header(kind, out);
    let written = body(out).and_then(|()| {
        let length = out.len() - start;
        match u16::try_from(length) {
            Ok(field) if length <= max => Ok(field),
            _ => Err(EncodeError::TooLong { length, max }),
        }
    });
    match written {
        Ok(length) => {
            let field = start + LENGTH_OFFSET;
            out[field..field + 2].copy_from_slice(&length.to_be_bytes());
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}
