//! Octets read from the front, each with its place, for formats whose errors name an offset (MRT
//! and BMP). Copies nothing, and never reads past the end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

/// A field is cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} at octet {offset} needs {wanted} octets, {available} are left")]
pub struct Short {
    /// The field at fault.
    pub field: &'static str,
    /// Where it starts.
    pub offset: usize,
    /// How long it is.
    pub wanted: usize,
    /// How much there is.
    pub available: usize,
}

/// What is left to read, and where it stands in the whole.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    rest: Bytes,
    offset: usize,
}

impl Cursor {
    /// Starts at the front. Offsets count from `offset`.
    pub(crate) fn new(octets: Bytes, offset: usize) -> Cursor {
        Cursor {
            rest: octets,
            offset,
        }
    }

    /// Where the next octet stands.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// How many octets are left.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.offset += self.rest.len();
        std::mem::take(&mut self.rest)
    }

    /// The next `wanted` octets.
    pub(crate) fn take(&mut self, field: &'static str, wanted: usize) -> Result<Bytes, Short> {
        if wanted > self.rest.len() {
            return Err(Short {
                field,
                offset: self.offset,
                wanted,
                available: self.rest.len(),
            });
        }
        self.offset += wanted;
        Ok(self.rest.split_to(wanted))
    }

    /// The next `N` octets by value.
    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Short> {
        let octets = self.take(field, N)?;
        let mut array = [0; N];
        array.copy_from_slice(&octets);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Short> {
        self.array(field).map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Short> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Short> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, Short> {
        self.array(field).map(u64::from_be_bytes)
    }

    pub(crate) fn ipv4(&mut self, field: &'static str) -> Result<Ipv4Addr, Short> {
        self.array::<4>(field).map(Ipv4Addr::from)
    }

    pub(crate) fn ipv6(&mut self, field: &'static str) -> Result<Ipv6Addr, Short> {
        self.array::<16>(field).map(Ipv6Addr::from)
    }

    /// An address of the family that is known from elsewhere.
    pub(crate) fn address(&mut self, field: &'static str, ipv6: bool) -> Result<IpAddr, Short> {
        Ok(match ipv6 {
            false => self.ipv4(field)?.into(),
            true => self.ipv6(field)?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_order_and_a_short_one_is_named_with_its_place() {
        let mut cursor = Cursor::new(Bytes::from_static(&[1, 0, 2, 9, 9, 7]), 12);
        assert_eq!(cursor.u8("kind"), Ok(1));
        assert_eq!(cursor.u16("length"), Ok(2));
        let body = cursor.take("body", 2).unwrap();
        assert_eq!((cursor.offset(), &body[..]), (17, &[9, 9][..]));
        let short = cursor.ipv4("address").unwrap_err();
        assert_eq!(
            short.to_string(),
            "address at octet 17 needs 4 octets, 1 are left"
        );
        assert_eq!(cursor.u8("kind"), Ok(7), "nothing was taken");
    }
}
