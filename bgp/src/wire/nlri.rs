//! Lists of routes as octets (RFC 4271 section 4.3, RFC 7911): the tight loops of the codec.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};

use crate::wire::error::{EncodeError, Reason};
use crate::wire::prefix::{Family, Prefix};

/// One route of an NLRI field: a prefix and, where several paths to it may be told, which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    /// The destination.
    pub prefix: Prefix,
    /// The path identifier (RFC 7911), chosen by the sender; 0 where add-path is not in use.
    pub path_id: u32,
}

impl From<Prefix> for Nlri {
    fn from(prefix: Prefix) -> Self {
        Nlri { prefix, path_id: 0 }
    }
}

/// `10.0.0.0/8`, or with an identifier `10.0.0.0/8 path 7`.
impl fmt::Display for Nlri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path_id {
            0 => self.prefix.fmt(f),
            path_id => write!(f, "{} path {path_id}", self.prefix),
        }
    }
}

/// Octets of a path identifier (RFC 7911 section 3).
const PATH_ID_LEN: usize = 4;

/// The routes of a whole field, each after its path identifier if `add_path` says so. Host bits
/// are cleared: RFC 4271 calls them irrelevant.
pub(super) fn parse(family: Family, add_path: bool, octets: &[u8]) -> Result<Vec<Nlri>, Reason> {
    // A /24 takes 4 octets, a /48 takes 7: most tables need no second allocation.
    let usual = match family {
        Family::Ipv4Unicast => 4,
        Family::Ipv6Unicast => 7,
    };
    if add_path {
        let mut nlri = Vec::with_capacity(octets.len() / (PATH_ID_LEN + usual) + 1);
        let mut rest = octets;
        while !rest.is_empty() {
            let (path_id, after) = rest
                .split_first_chunk::<PATH_ID_LEN>()
                .ok_or(Reason::PathIdOverrun)?;
            let (&len, tail) = after.split_first().ok_or(Reason::PathIdOverrun)?;
            let (prefix, after) = parse_one(family, len, tail)?;
            let path_id = u32::from_be_bytes(*path_id);
            nlri.push(Nlri { prefix, path_id });
            rest = after;
        }
        return Ok(nlri);
    }
    let mut nlri = Vec::with_capacity(octets.len() / usual + 1);
    let mut rest = octets;
    while let Some((&len, tail)) = rest.split_first() {
        let (prefix, after) = parse_one(family, len, tail)?;
        nlri.push(Nlri::from(prefix));
        rest = after;
    }
    Ok(nlri)
}

/// The prefix of this length at the start of `tail`, and what follows it.
#[inline]
fn parse_one(family: Family, len: u8, tail: &[u8]) -> Result<(Prefix, &[u8]), Reason> {
    if len > family.max_len() {
        return Err(Reason::PrefixLength { family, len });
    }
    let significant = usize::from(len).div_ceil(8);
    if significant > tail.len() {
        return Err(Reason::PrefixOverrun(len));
    }
    let prefix = match family {
        Family::Ipv4Unicast => Prefix::masked_v4(Ipv4Addr::from(leading(tail)), len),
        Family::Ipv6Unicast => Prefix::masked_v6(Ipv6Addr::from(leading(tail)), len),
    };
    Ok((prefix, &tail[significant..]))
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

/// Octets the route takes in a field: 1 to 17, and 4 more for its identifier.
pub(super) const fn len(nlri: &Nlri, add_path: bool) -> usize {
    let path_id = if add_path { PATH_ID_LEN } else { 0 };
    path_id + nlri.prefix.nlri_len()
}

/// Appends a list of routes, all of `family`.
pub(super) fn put(
    family: Family,
    add_path: bool,
    nlri: &[Nlri],
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    out.reserve(nlri.iter().map(|one| len(one, add_path)).sum());
    for one in nlri {
        check_family(family, one)?;
        put_one(one, add_path, out);
    }
    Ok(())
}

/// Appends one route; its identifier is left out unless `add_path`.
pub(super) fn put_one(nlri: &Nlri, add_path: bool, out: &mut BytesMut) {
    if add_path {
        out.put_u32(nlri.path_id);
    }
    nlri.prefix.with_nlri(|len, octets| {
        out.put_u8(len);
        out.put_slice(octets);
    });
}

pub(super) fn check_family(expected: Family, nlri: &Nlri) -> Result<(), EncodeError> {
    if nlri.prefix.family() == expected {
        Ok(())
    } else {
        Err(EncodeError::PrefixFamily {
            prefix: nlri.prefix,
            expected,
        })
    }
}
