//! Lists of prefixes as octets (RFC 4271 section 4.3): the tight loops of the codec.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};

use crate::wire::error::{EncodeError, Reason};
use crate::wire::prefix::{Family, Prefix};

/// The prefixes of a whole field. Host bits are cleared: RFC 4271 calls them irrelevant.
pub(super) fn parse(family: Family, octets: &[u8]) -> Result<Vec<Prefix>, Reason> {
    let mut prefixes = Vec::with_capacity(match family {
        // A /24 takes 4 octets, a /48 takes 7: most tables need no second allocation.
        Family::Ipv4Unicast => octets.len() / 4 + 1,
        Family::Ipv6Unicast => octets.len() / 7 + 1,
    });
    let mut rest = octets;
    while let Some((&len, tail)) = rest.split_first() {
        if len > family.max_len() {
            return Err(Reason::PrefixLength { family, len });
        }
        let significant = usize::from(len).div_ceil(8);
        if significant > tail.len() {
            return Err(Reason::PrefixOverrun(len));
        }
        prefixes.push(match family {
            Family::Ipv4Unicast => Prefix::masked_v4(Ipv4Addr::from(leading(tail)), len),
            Family::Ipv6Unicast => Prefix::masked_v6(Ipv6Addr::from(leading(tail)), len),
        });
        rest = &tail[significant..];
    }
    Ok(prefixes)
}

/// The first `N` octets, zeros where there are fewer. What follows a prefix may come along: the
/// mask takes it away, and a copy of fixed size is much the faster one.
fn leading<const N: usize>(octets: &[u8]) -> [u8; N] {
    match octets.first_chunk() {
        Some(chunk) => *chunk,
        None => {
            let mut padded = [0; N];
            padded[..octets.len()].copy_from_slice(octets);
            padded
        }
    }
}

/// Appends a list of prefixes, all of `family`.
pub(super) fn put(
    family: Family,
    prefixes: &[Prefix],
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    out.reserve(prefixes.iter().map(Prefix::nlri_len).sum());
    for prefix in prefixes {
        check_family(family, prefix)?;
        put_one(prefix, out);
    }
    Ok(())
}

/// Appends one prefix.
pub(super) fn put_one(prefix: &Prefix, out: &mut BytesMut) {
    prefix.with_nlri(|len, octets| {
        out.put_u8(len);
        out.put_slice(octets);
    });
}

pub(super) fn check_family(expected: Family, prefix: &Prefix) -> Result<(), EncodeError> {
    if prefix.family() == expected {
        Ok(())
    } else {
        Err(EncodeError::PrefixFamily {
            prefix: *prefix,
            expected,
        })
    }
}
