//! The networks of a family by number: 4 or 16 octets each, and nothing else.
//!
//! Knows no length and no path of a prefix; those stand with the paths.

use std::net::IpAddr;

use super::RouteId;
use crate::rib::chunked::Chunked;
use crate::wire::{Family, Prefix};

/// The networks by number, without their lengths.
#[derive(Debug)]
pub(super) enum Keys {
    V4(Chunked<u32>),
    V6(Chunked<[u8; 16]>),
}

impl Keys {
    pub(super) fn new(family: Family) -> Keys {
        match family {
            Family::Ipv4Unicast => Keys::V4(Chunked::default()),
            Family::Ipv6Unicast => Keys::V6(Chunked::default()),
        }
    }

    /// The network of this number as a prefix of so many bits.
    pub(super) fn get(&self, id: RouteId, len: u8) -> Prefix {
        match self {
            Keys::V4(keys) => Prefix::masked_v4(keys.get(id).into(), len),
            Keys::V6(keys) => Prefix::masked_v6(keys.get(id).into(), len),
        }
    }

    pub(super) fn set(&mut self, id: RouteId, prefix: &Prefix) {
        match (self, prefix.addr()) {
            (Keys::V4(keys), IpAddr::V4(address)) => *keys.at(id) = address.to_bits(),
            (Keys::V6(keys), IpAddr::V6(address)) => *keys.at(id) = address.octets(),
            // A prefix is looked up in the table of its family.
            _ => {}
        }
    }
}
