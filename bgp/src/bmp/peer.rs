//! The per-peer header (RFC 7854 section 4.2).

use std::net::{IpAddr, Ipv4Addr};

use bytes::{BufMut, BytesMut};

use crate::cursor::{Cursor, Short};

/// Bits of the flags octet.
const IPV6: u8 = 0x80;
const POST_POLICY: u8 = 0x40;
const TWO_OCTET_AS: u8 = 0x20;
const ADJ_RIB_OUT: u8 = 0x10;

/// What kind of peer a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerKind {
    /// 0: a peer of the global instance.
    Global,
    /// 1: a peer of a VPN instance.
    RouteDistinguished,
    /// 2: a peer of some other local instance.
    Local,
    /// Any other, as received.
    Other(u8),
}

impl PeerKind {
    const fn octet(self) -> u8 {
        match self {
            PeerKind::Global => 0,
            PeerKind::RouteDistinguished => 1,
            PeerKind::Local => 2,
            PeerKind::Other(octet) => octet,
        }
    }

    const fn from_octet(octet: u8) -> PeerKind {
        match octet {
            0 => PeerKind::Global,
            1 => PeerKind::RouteDistinguished,
            2 => PeerKind::Local,
            other => PeerKind::Other(other),
        }
    }
}

/// Whom a message is about, and when what it tells of happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerHeader {
    /// The kind of the peer.
    pub kind: PeerKind,
    /// The L flag: the routes are as they are after our import policy.
    pub post_policy: bool,
    /// The A flag: AS_PATH has 2-octet AS numbers.
    pub two_octet_as: bool,
    /// The O flag (RFC 8671): the routes are those we tell the peer. Only ever read.
    pub adj_rib_out: bool,
    /// Tells apart peers of one address in several instances; 0 for [`PeerKind::Global`].
    pub distinguisher: u64,
    /// The peer's address. The V flag follows from it.
    pub address: IpAddr,
    /// Its AS number.
    pub asn: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Seconds since 1970; 0 when not known.
    pub seconds: u32,
    /// Microseconds beside them, as received.
    pub microseconds: u32,
}

impl PeerHeader {
    pub(super) fn parse(cursor: &mut Cursor) -> Result<PeerHeader, Short> {
        let kind = PeerKind::from_octet(cursor.u8("peer type")?);
        let flags = cursor.u8("peer flags")?;
        Ok(PeerHeader {
            kind,
            post_policy: flags & POST_POLICY != 0,
            two_octet_as: flags & TWO_OCTET_AS != 0,
            adj_rib_out: flags & ADJ_RIB_OUT != 0,
            distinguisher: cursor.u64("peer distinguisher")?,
            address: address("peer address", flags & IPV6 != 0, cursor)?,
            asn: cursor.u32("peer AS")?,
            router_id: cursor.ipv4("peer BGP ID")?,
            seconds: cursor.u32("seconds")?,
            microseconds: cursor.u32("microseconds")?,
        })
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        let mut flags = 0;
        for (set, bit) in [
            (self.address.is_ipv6(), IPV6),
            (self.post_policy, POST_POLICY),
            (self.two_octet_as, TWO_OCTET_AS),
            (self.adj_rib_out, ADJ_RIB_OUT),
        ] {
            if set {
                flags |= bit;
            }
        }
        out.put_u8(self.kind.octet());
        out.put_u8(flags);
        out.put_u64(self.distinguisher);
        put_address(self.address, out);
        out.put_u32(self.asn);
        out.put_slice(&self.router_id.octets());
        out.put_u32(self.seconds);
        out.put_u32(self.microseconds);
    }
}

/// 16 octets; an IPv4 address stands in the last 4 of them.
pub(super) fn address(
    field: &'static str,
    ipv6: bool,
    cursor: &mut Cursor,
) -> Result<IpAddr, Short> {
    let octets = cursor.array::<16>(field)?;
    let [.., a, b, c, d] = octets;
    Ok(match ipv6 {
        true => octets.into(),
        false => [a, b, c, d].into(),
    })
}

pub(super) fn put_address(address: IpAddr, out: &mut BytesMut) {
    match address {
        IpAddr::V4(address) => {
            out.put_slice(&[0; 12]);
            out.put_slice(&address.octets());
        }
        IpAddr::V6(address) => out.put_slice(&address.octets()),
    }
}
