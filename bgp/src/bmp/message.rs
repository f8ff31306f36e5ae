//! The messages and their common header (RFC 7854 section 4).

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};

use super::error::u16_field;
use super::{BmpError, PeerHeader, PutError, Statistic, peer};
use crate::cursor::Cursor;
use crate::wire::Notification;
use crate::wire::message::HEADER_LEN as BGP_HEADER_LEN;

/// The version of the protocol.
const VERSION: u8 = 3;
/// Octets of the common header: version, length, type.
const HEADER_LEN: usize = 6;
/// Longest message read or written. Two OPENs of the greatest length, or a BGP message of RFC 8654
/// and everything around it, are far below.
pub const MAX_MESSAGE_LEN: usize = 1 << 20;

/// Type octets.
mod kind {
    pub(super) const ROUTE_MONITORING: u8 = 0;
    pub(super) const STATISTICS: u8 = 1;
    pub(super) const PEER_DOWN: u8 = 2;
    pub(super) const PEER_UP: u8 = 3;
    pub(super) const INITIATION: u8 = 4;
    pub(super) const TERMINATION: u8 = 5;
}

/// Reasons of [`Termination::Reason`] (RFC 7854 section 4.5).
pub mod termination_reason {
    /// The session was closed by the operator; it may be opened again.
    pub const CLOSED: u16 = 0;
    /// No reason is given.
    pub const UNSPECIFIED: u16 = 1;
    /// The router has run out of something.
    pub const OUT_OF_RESOURCES: u16 = 2;
    /// The station has another session with this router.
    pub const REDUNDANT: u16 = 3;
    /// As [`CLOSED`], and it will not be opened again.
    pub const CLOSED_FOR_GOOD: u16 = 4;
}

/// A BMP message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Routes of a peer: a whole BGP UPDATE.
    RouteMonitoring {
        /// Whose routes.
        peer: PeerHeader,
        /// The UPDATE, header included.
        update: Bytes,
    },
    /// Counters of a peer.
    Statistics {
        /// The peer.
        peer: PeerHeader,
        /// Its counters.
        statistics: Vec<Statistic>,
    },
    /// A session is over.
    PeerDown {
        /// The peer.
        peer: PeerHeader,
        /// Why.
        reason: DownReason,
    },
    /// A session is established.
    PeerUp(PeerUp),
    /// Who speaks.
    Initiation(Vec<Information>),
    /// Why the connection is closed.
    Termination(Vec<Termination>),
    /// Of any other type, such as route mirroring, as it stands after the common header.
    Other {
        /// Type.
        kind: u8,
        /// The rest.
        body: Bytes,
    },
}

/// Peer Up (RFC 7854 section 4.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerUp {
    /// The peer.
    pub peer: PeerHeader,
    /// Our address, of the peer's family.
    pub local_address: IpAddr,
    /// Our port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
    /// Our OPEN, header included.
    pub sent_open: Bytes,
    /// The peer's OPEN, header included.
    pub received_open: Bytes,
    /// Anything else.
    pub information: Vec<Information>,
}

/// Information about who speaks (RFC 7854 section 4.4). Octets that are no UTF-8 are read as
/// replacement characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Information {
    /// 0: any text.
    Text(String),
    /// 1: sysDescr, what it is.
    SysDescr(String),
    /// 2: sysName, what it is called.
    SysName(String),
    /// Any other, as received.
    Other(u16, Bytes),
}

/// Why the connection is closed (RFC 7854 section 4.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Termination {
    /// 0: any text.
    Text(String),
    /// 1: one of [`termination_reason`].
    Reason(u16),
    /// Any other, as received.
    Other(u16, Bytes),
}

/// Why a session is over (RFC 7854 section 4.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownReason {
    /// 1: we ended it with this NOTIFICATION message, header included.
    Notified(Bytes),
    /// 2: we ended it in silence; the number of the event of the state machine (RFC 4271 section
    /// 8.1), 0 if none is to be given.
    Silent(u16),
    /// 3: the peer ended it with this NOTIFICATION message, header included.
    NotifiedByPeer(Bytes),
    /// 4: the peer ended it in silence.
    Lost,
    /// 5: it goes on, but is not reported any more.
    Unreported,
}

impl DownReason {
    /// The octets of a NOTIFICATION for [`DownReason::Notified`]; empty if it is longer than BGP
    /// allows.
    pub fn octets_of(notification: &Notification) -> Bytes {
        crate::wire::Message::Notification(notification.clone())
            .to_bytes(&crate::wire::WireOptions::default())
            .unwrap_or_default()
    }
}

impl Message {
    /// The type octet.
    pub const fn kind(&self) -> u8 {
        match self {
            Message::RouteMonitoring { .. } => kind::ROUTE_MONITORING,
            Message::Statistics { .. } => kind::STATISTICS,
            Message::PeerDown { .. } => kind::PEER_DOWN,
            Message::PeerUp(_) => kind::PEER_UP,
            Message::Initiation(_) => kind::INITIATION,
            Message::Termination(_) => kind::TERMINATION,
            Message::Other { kind, .. } => *kind,
        }
    }

    /// Appends the message to `out`.
    ///
    /// # Errors
    /// A [`PutError`] if something does not fit its field; `out` is then as it was.
    pub fn put(&self, out: &mut BytesMut) -> Result<(), PutError> {
        let start = out.len();
        out.put_u8(VERSION);
        out.put_u32(0);
        out.put_u8(self.kind());
        let written = self.put_body(out).and_then(|()| {
            let length = out.len() - start;
            u32::try_from(length)
                .ok()
                .filter(|_| length <= MAX_MESSAGE_LEN)
                .ok_or(PutError::TooLong {
                    what: "message",
                    length,
                    max: MAX_MESSAGE_LEN,
                })
        });
        match written {
            Ok(length) => {
                out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
                Ok(())
            }
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }

    fn put_body(&self, out: &mut BytesMut) -> Result<(), PutError> {
        match self {
            Message::RouteMonitoring { peer, update } => {
                peer.put(out);
                out.put_slice(update);
            }
            Message::Statistics { peer, statistics } => {
                peer.put(out);
                // More of them than 32 bits can count would not fit a message anyway.
                out.put_u32(u32::try_from(statistics.len()).unwrap_or(u32::MAX));
                for statistic in statistics {
                    statistic.put(out)?;
                }
            }
            Message::PeerDown { peer, reason } => {
                peer.put(out);
                match reason {
                    DownReason::Notified(octets) => {
                        out.put_u8(1);
                        out.put_slice(octets);
                    }
                    DownReason::Silent(event) => {
                        out.put_u8(2);
                        out.put_u16(*event);
                    }
                    DownReason::NotifiedByPeer(octets) => {
                        out.put_u8(3);
                        out.put_slice(octets);
                    }
                    DownReason::Lost => out.put_u8(4),
                    DownReason::Unreported => out.put_u8(5),
                }
            }
            Message::PeerUp(up) => up.put(out)?,
            Message::Initiation(information) => put_information(information, out)?,
            Message::Termination(termination) => {
                for item in termination {
                    match item {
                        Termination::Text(text) => put_tlv(0, text.as_bytes(), out)?,
                        Termination::Reason(reason) => put_tlv(1, &reason.to_be_bytes(), out)?,
                        Termination::Other(kind, value) => put_tlv(*kind, value, out)?,
                    }
                }
            }
            Message::Other { body, .. } => out.put_slice(body),
        }
        Ok(())
    }

    /// The message as octets of its own.
    ///
    /// # Errors
    /// As [`Message::put`].
    pub fn to_bytes(&self) -> Result<Bytes, PutError> {
        let mut out = BytesMut::with_capacity(256);
        self.put(&mut out)?;
        Ok(out.freeze())
    }

    /// Takes the octets of the next whole message off the front of `buffer`; `None` until more
    /// have arrived.
    ///
    /// # Errors
    /// [`BmpError::Version`] or [`BmpError::Length`]: nothing after it can be trusted.
    pub fn split(buffer: &mut BytesMut) -> Result<Option<Bytes>, BmpError> {
        match length(buffer)? {
            Some((length, _)) if buffer.len() >= length => {
                Ok(Some(buffer.split_to(length).freeze()))
            }
            _ => Ok(None),
        }
    }

    /// Reads one whole message.
    ///
    /// # Errors
    /// A [`BmpError`] that names what is wrong with it, and where.
    pub fn decode(octets: Bytes) -> Result<Message, BmpError> {
        let available = octets.len();
        match length(&octets)? {
            Some((length, _)) if length == available => {}
            found => {
                let length = found.map_or(HEADER_LEN as u32, |(_, field)| field);
                return Err(BmpError::Incomplete { length, available });
            }
        }
        let mut cursor = Cursor::new(octets, 0);
        cursor.take("version and length", HEADER_LEN - 1)?;
        let kind = cursor.u8("type")?;
        let message = match kind {
            kind::ROUTE_MONITORING => Message::RouteMonitoring {
                peer: PeerHeader::parse(&mut cursor)?,
                update: bgp_message("UPDATE", &mut cursor)?,
            },
            kind::STATISTICS => {
                let peer = PeerHeader::parse(&mut cursor)?;
                let count = cursor.u32("number of statistics")?;
                let mut statistics = Vec::new();
                for _ in 0..count {
                    statistics.push(Statistic::parse(&mut cursor)?);
                }
                Message::Statistics { peer, statistics }
            }
            kind::PEER_DOWN => Message::PeerDown {
                peer: PeerHeader::parse(&mut cursor)?,
                reason: down_reason(&mut cursor)?,
            },
            kind::PEER_UP => Message::PeerUp(PeerUp::parse(&mut cursor)?),
            kind::INITIATION => Message::Initiation(information(&mut cursor)?),
            kind::TERMINATION => Message::Termination(termination(&mut cursor)?),
            kind => Message::Other {
                kind,
                body: cursor.rest(),
            },
        };
        match cursor.remaining() {
            0 => Ok(message),
            count => Err(BmpError::Trailing {
                offset: cursor.offset(),
                count,
            }),
        }
    }
}

/// The length of the message at the front, also as the field says it; `None` while its header is
/// incomplete.
fn length(octets: &[u8]) -> Result<Option<(usize, u32)>, BmpError> {
    if let Some(version) = octets.first().filter(|version| **version != VERSION) {
        return Err(BmpError::Version(*version));
    }
    let &[_, a, b, c, d, _, ..] = octets else {
        return Ok(None);
    };
    let field = u32::from_be_bytes([a, b, c, d]);
    usize::try_from(field)
        .ok()
        .filter(|length| (HEADER_LEN..=MAX_MESSAGE_LEN).contains(length))
        .map(|length| Some((length, field)))
        .ok_or(BmpError::Length {
            length: field,
            max: MAX_MESSAGE_LEN,
        })
}

impl PeerUp {
    fn parse(cursor: &mut Cursor) -> Result<PeerUp, BmpError> {
        let peer = PeerHeader::parse(cursor)?;
        Ok(PeerUp {
            local_address: peer::address("local address", peer.address.is_ipv6(), cursor)?,
            peer,
            local_port: cursor.u16("local port")?,
            remote_port: cursor.u16("remote port")?,
            sent_open: bgp_message("sent OPEN", cursor)?,
            received_open: bgp_message("received OPEN", cursor)?,
            information: information(cursor)?,
        })
    }

    fn put(&self, out: &mut BytesMut) -> Result<(), PutError> {
        if self.local_address.is_ipv6() != self.peer.address.is_ipv6() {
            return Err(PutError::Families {
                local: self.local_address,
                peer: self.peer.address,
            });
        }
        self.peer.put(out);
        peer::put_address(self.local_address, out);
        out.put_u16(self.local_port);
        out.put_u16(self.remote_port);
        out.put_slice(&self.sent_open);
        out.put_slice(&self.received_open);
        put_information(&self.information, out)
    }
}

/// A whole BGP message, by its own length.
fn bgp_message(field: &'static str, cursor: &mut Cursor) -> Result<Bytes, BmpError> {
    let offset = cursor.offset();
    let mut header = Cursor::new(cursor.clone().take(field, BGP_HEADER_LEN)?, offset);
    header.take("marker", 16)?;
    let length = header.u16("length")?;
    if usize::from(length) < BGP_HEADER_LEN {
        return Err(BmpError::BgpLength { offset, length });
    }
    Ok(cursor.take(field, usize::from(length))?)
}

fn down_reason(cursor: &mut Cursor) -> Result<DownReason, BmpError> {
    let offset = cursor.offset();
    Ok(match cursor.u8("reason")? {
        1 => DownReason::Notified(bgp_message("NOTIFICATION", cursor)?),
        2 => DownReason::Silent(cursor.u16("event")?),
        3 => DownReason::NotifiedByPeer(bgp_message("NOTIFICATION", cursor)?),
        4 => DownReason::Lost,
        5 => DownReason::Unreported,
        reason => return Err(BmpError::DownReason { offset, reason }),
    })
}

/// A type, a length and a value, until nothing is left.
fn tlvs<T>(
    cursor: &mut Cursor,
    mut item: impl FnMut(u16, usize, Bytes) -> Result<T, BmpError>,
) -> Result<Vec<T>, BmpError> {
    let mut items = Vec::new();
    while cursor.remaining() > 0 {
        let kind = cursor.u16("information type")?;
        let length = cursor.u16("information length")?;
        let offset = cursor.offset();
        let value = cursor.take("information", usize::from(length))?;
        items.push(item(kind, offset, value)?);
    }
    Ok(items)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn information(cursor: &mut Cursor) -> Result<Vec<Information>, BmpError> {
    tlvs(cursor, |kind, _, value| {
        Ok(match kind {
            0 => Information::Text(text(&value)),
            1 => Information::SysDescr(text(&value)),
            2 => Information::SysName(text(&value)),
            kind => Information::Other(kind, value),
        })
    })
}

fn termination(cursor: &mut Cursor) -> Result<Vec<Termination>, BmpError> {
    tlvs(cursor, |kind, offset, value| {
        Ok(match (kind, &value[..]) {
            (0, value) => Termination::Text(text(value)),
            (1, &[high, low]) => Termination::Reason(u16::from_be_bytes([high, low])),
            (1, other) => {
                return Err(BmpError::ValueLength {
                    field: "termination reason",
                    offset,
                    length: other.len(),
                    wanted: 2,
                });
            }
            (kind, _) => Termination::Other(kind, value),
        })
    })
}

fn put_information(information: &[Information], out: &mut BytesMut) -> Result<(), PutError> {
    for item in information {
        match item {
            Information::Text(text) => put_tlv(0, text.as_bytes(), out)?,
            Information::SysDescr(text) => put_tlv(1, text.as_bytes(), out)?,
            Information::SysName(text) => put_tlv(2, text.as_bytes(), out)?,
            Information::Other(kind, value) => put_tlv(*kind, value, out)?,
        }
    }
    Ok(())
}

fn put_tlv(kind: u16, value: &[u8], out: &mut BytesMut) -> Result<(), PutError> {
    out.put_u16(kind);
    out.put_u16(u16_field("information", value.len())?);
    out.put_slice(value);
    Ok(())
}
