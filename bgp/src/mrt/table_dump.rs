//! TABLE_DUMP_V2 (RFC 6396 section 4.3): a table as it stands, prefix by prefix.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, Bytes, BytesMut};

use super::error::u16_field;
use super::{PutError, RecordError, table_dump_v2};
use crate::cursor::Cursor;
use crate::wire::{Family, Prefix};

/// Bits of the type octet of a peer.
const PEER_IPV6: u8 = 0x01;
const PEER_AS4: u8 = 0x02;

/// PEER_INDEX_TABLE: whom the routes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIndexTable {
    /// BGP identifier of who wrote the file.
    pub collector: Ipv4Addr,
    /// The name of the view, mostly empty. Octets that are no UTF-8 are read as replacement
    /// characters.
    pub view: String,
    /// The peers; [`RibEntry::peer`] is an index into them.
    pub peers: Vec<PeerEntry>,
}

/// One peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerEntry {
    /// Its BGP identifier, 0.0.0.0 when not known.
    pub router_id: Ipv4Addr,
    /// Its address.
    pub address: IpAddr,
    /// Its AS number. Always written with 4 octets.
    pub asn: u32,
}

/// RIB_IPV4_UNICAST, RIB_IPV6_UNICAST and those with path identifiers: all routes to a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rib {
    /// Numbers the prefixes of a file from 0.
    pub sequence: u32,
    /// The prefix; host bits in a file are cleared.
    pub prefix: Prefix,
    /// Entries carry path identifiers (RFC 8050).
    pub add_path: bool,
    /// The routes.
    pub entries: Vec<RibEntry>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RibEntry {
    /// Who told it: an index into [`PeerIndexTable::peers`].
    pub peer: u16,
    /// When it came, in seconds since 1970.
    pub originated: u32,
    /// Its path identifier; 0 without [`Rib::add_path`].
    pub path_id: u32,
    /// Its path attributes, at most 65,535 octets, AS numbers with 4 octets each and
    /// MP_REACH_NLRI abbreviated; see [`super::attributes_of`] and [`RibEntry::decode`].
    pub attributes: Bytes,
}

impl PeerIndexTable {
    pub(super) fn parse(cursor: &mut Cursor) -> Result<PeerIndexTable, RecordError> {
        let collector = cursor.ipv4("collector BGP ID")?;
        let length = cursor.u16("view name length")?;
        let view = cursor.take("view name", usize::from(length))?;
        let count = cursor.u16("peer count")?;
        let mut peers = Vec::new();
        for _ in 0..count {
            let flags = cursor.u8("peer type")?;
            peers.push(PeerEntry {
                router_id: cursor.ipv4("peer BGP ID")?,
                address: cursor.address("peer address", flags & PEER_IPV6 != 0)?,
                asn: match flags & PEER_AS4 != 0 {
                    true => cursor.u32("peer AS")?,
                    false => cursor.u16("peer AS")?.into(),
                },
            });
        }
        Ok(PeerIndexTable {
            collector,
            view: String::from_utf8_lossy(&view).into_owned(),
            peers,
        })
    }

    pub(super) fn put(&self, out: &mut BytesMut) -> Result<(), PutError> {
        out.put_slice(&self.collector.octets());
        out.put_u16(u16_field("view name", self.view.len())?);
        out.put_slice(self.view.as_bytes());
        out.put_u16(u16_field("number of peers", self.peers.len())?);
        for peer in &self.peers {
            out.put_u8(match peer.address {
                IpAddr::V4(_) => PEER_AS4,
                IpAddr::V6(_) => PEER_AS4 | PEER_IPV6,
            });
            out.put_slice(&peer.router_id.octets());
            match peer.address {
                IpAddr::V4(address) => out.put_slice(&address.octets()),
                IpAddr::V6(address) => out.put_slice(&address.octets()),
            }
            out.put_u32(peer.asn);
        }
        Ok(())
    }
}

impl Rib {
    pub(super) fn subtype(&self) -> u16 {
        match (self.prefix.family(), self.add_path) {
            (Family::Ipv4Unicast, false) => table_dump_v2::RIB_IPV4_UNICAST,
            (Family::Ipv6Unicast, false) => table_dump_v2::RIB_IPV6_UNICAST,
            (Family::Ipv4Unicast, true) => table_dump_v2::RIB_IPV4_UNICAST_ADDPATH,
            (Family::Ipv6Unicast, true) => table_dump_v2::RIB_IPV6_UNICAST_ADDPATH,
        }
    }

    /// `None` for a subtype that is none of the four.
    pub(super) fn parse(subtype: u16, cursor: &mut Cursor) -> Result<Option<Rib>, RecordError> {
        let (family, add_path) = match subtype {
            table_dump_v2::RIB_IPV4_UNICAST => (Family::Ipv4Unicast, false),
            table_dump_v2::RIB_IPV6_UNICAST => (Family::Ipv6Unicast, false),
            table_dump_v2::RIB_IPV4_UNICAST_ADDPATH => (Family::Ipv4Unicast, true),
            table_dump_v2::RIB_IPV6_UNICAST_ADDPATH => (Family::Ipv6Unicast, true),
            _ => return Ok(None),
        };
        let sequence = cursor.u32("sequence number")?;
        let prefix = prefix(family, cursor)?;
        let count = cursor.u16("entry count")?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let peer = cursor.u16("peer index")?;
            let originated = cursor.u32("originated time")?;
            let path_id = match add_path {
                true => cursor.u32("path identifier")?,
                false => 0,
            };
            let length = cursor.u16("attribute length")?;
            entries.push(RibEntry {
                peer,
                originated,
                path_id,
                attributes: cursor.take("attributes", usize::from(length))?,
            });
        }
        Ok(Some(Rib {
            sequence,
            prefix,
            add_path,
            entries,
        }))
    }

    pub(super) fn put(&self, out: &mut BytesMut) -> Result<(), PutError> {
        out.put_u32(self.sequence);
        self.prefix.with_nlri(|length, octets| {
            out.put_u8(length);
            out.put_slice(octets);
        });
        out.put_u16(u16_field("number of entries", self.entries.len())?);
        for entry in &self.entries {
            out.put_u16(entry.peer);
            out.put_u32(entry.originated);
            if self.add_path {
                out.put_u32(entry.path_id);
            }
            out.put_u16(u16_field("attributes", entry.attributes.len())?);
            out.put_slice(&entry.attributes);
        }
        Ok(())
    }
}

fn prefix(family: Family, cursor: &mut Cursor) -> Result<Prefix, RecordError> {
    let offset = cursor.offset();
    let length = cursor.u8("prefix length")?;
    let max = family.max_len();
    if length > max {
        return Err(RecordError::PrefixLength {
            offset,
            length,
            max,
        });
    }
    let octets = cursor.take("prefix", usize::from(length).div_ceil(8))?;
    let mut padded = [0; 16];
    for (to, from) in padded.iter_mut().zip(octets) {
        *to = from;
    }
    let [a, b, c, d, ..] = padded;
    Ok(match family {
        Family::Ipv4Unicast => Prefix::masked_v4(Ipv4Addr::new(a, b, c, d), length),
        Family::Ipv6Unicast => Prefix::masked_v6(Ipv6Addr::from(padded), length),
    })
}
