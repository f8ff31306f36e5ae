//! MRT files (RFC 6396, RFC 8050): tables as they stand and messages as they came, in the format
//! that `bgpdump` and its kin read.
//!
//! Records as octets and as types, and a [`Reader`] over any stream of them. BGP messages and
//! attributes stay octets here: what is wrong inside them is no fault of the file, and
//! [`RibEntry::decode`] and [`SessionMessage::decode`] read them with the code that sessions use.

mod attributes;
mod bgp4mp;
pub(crate) mod dump;
mod error;
pub(crate) mod event;
pub mod json;
pub(crate) mod log;
mod reader;
mod table_dump;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};

use crate::cursor::Cursor;

pub use crate::cursor::Short;
pub use attributes::attributes_of;
pub use bgp4mp::{Session, SessionMessage, StateChange};
pub use dump::{DumpError, Dumped};
pub use error::{PutError, ReadError, RecordError};
pub use reader::{MAX_RECORD_LEN, Reader};
pub use table_dump::{PeerEntry, PeerIndexTable, Rib, RibEntry};

/// Octets of the header: time, type, subtype, length (RFC 6396 section 2).
pub const HEADER_LEN: usize = 12;

/// Types of records (RFC 6396 section 4); those that nobody writes any more have no name here.
pub mod kind {
    /// TABLE_DUMP_V2.
    pub const TABLE_DUMP_V2: u16 = 13;
    /// BGP4MP.
    pub const BGP4MP: u16 = 16;
    /// BGP4MP_ET: with microseconds.
    pub const BGP4MP_ET: u16 = 17;
}

/// Subtypes of TABLE_DUMP_V2 (RFC 6396 section 4.3, RFC 8050 section 4).
pub mod table_dump_v2 {
    /// PEER_INDEX_TABLE.
    pub const PEER_INDEX_TABLE: u16 = 1;
    /// RIB_IPV4_UNICAST.
    pub const RIB_IPV4_UNICAST: u16 = 2;
    /// RIB_IPV6_UNICAST.
    pub const RIB_IPV6_UNICAST: u16 = 4;
    /// RIB_IPV4_UNICAST_ADDPATH.
    pub const RIB_IPV4_UNICAST_ADDPATH: u16 = 8;
    /// RIB_IPV6_UNICAST_ADDPATH.
    pub const RIB_IPV6_UNICAST_ADDPATH: u16 = 10;
}

/// Subtypes of BGP4MP and BGP4MP_ET (RFC 6396 section 4.4, RFC 8050 section 3).
pub mod bgp4mp_subtype {
    /// BGP4MP_STATE_CHANGE.
    pub const STATE_CHANGE: u16 = 0;
    /// BGP4MP_MESSAGE.
    pub const MESSAGE: u16 = 1;
    /// BGP4MP_MESSAGE_AS4.
    pub const MESSAGE_AS4: u16 = 4;
    /// BGP4MP_STATE_CHANGE_AS4.
    pub const STATE_CHANGE_AS4: u16 = 5;
    /// BGP4MP_MESSAGE_LOCAL.
    pub const MESSAGE_LOCAL: u16 = 6;
    /// BGP4MP_MESSAGE_AS4_LOCAL.
    pub const MESSAGE_AS4_LOCAL: u16 = 7;
    /// BGP4MP_MESSAGE_ADDPATH.
    pub const MESSAGE_ADDPATH: u16 = 8;
    /// BGP4MP_MESSAGE_AS4_ADDPATH.
    pub const MESSAGE_AS4_ADDPATH: u16 = 9;
    /// BGP4MP_MESSAGE_LOCAL_ADDPATH.
    pub const MESSAGE_LOCAL_ADDPATH: u16 = 10;
    /// BGP4MP_MESSAGE_AS4_LOCAL_ADDPATH.
    pub const MESSAGE_AS4_LOCAL_ADDPATH: u16 = 11;
}

/// When something happened, in UTC since 1970. The format ends in 2106.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds.
    pub seconds: u32,
    /// Microseconds beside them. Only BGP4MP records can carry any; for others they are dropped.
    /// As received: a file may say more than 999,999.
    pub microseconds: Option<u32>,
}

impl Timestamp {
    /// To the second.
    pub const fn seconds(seconds: u32) -> Timestamp {
        Timestamp {
            seconds,
            microseconds: None,
        }
    }

    /// To the microsecond. Times before 1970 and after 2106 become the nearest that fits.
    pub fn from_system(time: SystemTime) -> Timestamp {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        match u32::try_from(since.as_secs()) {
            Ok(seconds) => Timestamp {
                seconds,
                microseconds: Some(since.subsec_micros()),
            },
            Err(_) => Timestamp {
                seconds: u32::MAX,
                microseconds: Some(999_999),
            },
        }
    }
}

/// One record of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was written, or when what it tells of happened.
    pub time: Timestamp,
    /// What it says.
    pub body: Body,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The peers that the [`Rib`] records after it refer to by number.
    PeerIndexTable(PeerIndexTable),
    /// All routes to one prefix.
    Rib(Rib),
    /// A message received or sent.
    Message(SessionMessage),
    /// The state of a session changed.
    StateChange(StateChange),
    /// Of any other type or subtype, as it stands: not an error.
    Other {
        /// Type.
        kind: u16,
        /// Subtype.
        subtype: u16,
        /// Everything after the header.
        octets: Bytes,
    },
}

impl Record {
    /// Appends the record to `out`.
    ///
    /// # Errors
    /// A [`PutError`] if something does not fit its field; `out` is then as it was.
    pub fn put(&self, out: &mut BytesMut) -> Result<(), PutError> {
        let start = out.len();
        let written = self.try_put(out, start);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    /// The record as octets of its own.
    ///
    /// # Errors
    /// As [`Record::put`].
    pub fn to_bytes(&self) -> Result<Bytes, PutError> {
        let mut out = BytesMut::with_capacity(256);
        self.put(&mut out)?;
        Ok(out.freeze())
    }

    fn try_put(&self, out: &mut BytesMut, start: usize) -> Result<(), PutError> {
        let (mut kind, subtype) = match &self.body {
            Body::PeerIndexTable(_) => (kind::TABLE_DUMP_V2, table_dump_v2::PEER_INDEX_TABLE),
            Body::Rib(rib) => (kind::TABLE_DUMP_V2, rib.subtype()),
            Body::Message(message) => (kind::BGP4MP, message.subtype()),
            Body::StateChange(change) => (kind::BGP4MP, change.subtype()),
            Body::Other { kind, subtype, .. } => (*kind, *subtype),
        };
        let extended = matches!(self.body, Body::Message(_) | Body::StateChange(_))
            .then_some(self.time.microseconds)
            .flatten();
        if extended.is_some() {
            kind = kind::BGP4MP_ET;
        }
        out.put_u32(self.time.seconds);
        out.put_u16(kind);
        out.put_u16(subtype);
        out.put_u32(0);
        if let Some(microseconds) = extended {
            out.put_u32(microseconds);
        }
        match &self.body {
            Body::PeerIndexTable(table) => table.put(out)?,
            Body::Rib(rib) => rib.put(out)?,
            Body::Message(message) => message.put(out)?,
            Body::StateChange(change) => change.put(out)?,
            Body::Other { octets, .. } => out.put_slice(octets),
        }
        let length = out.len() - start - HEADER_LEN;
        let field = u32::try_from(length)
            .ok()
            .filter(|_| length <= MAX_RECORD_LEN)
            .ok_or(PutError::TooLong {
                what: "record",
                length,
                max: MAX_RECORD_LEN,
            })?;
        out[start + 8..start + HEADER_LEN].copy_from_slice(&field.to_be_bytes());
        Ok(())
    }

    /// Reads what follows the header. Offsets in errors count from the start of the record.
    fn parse(seconds: u32, kind: u16, subtype: u16, octets: Bytes) -> Result<Record, RecordError> {
        let mut time = Timestamp::seconds(seconds);
        let mut cursor = Cursor::new(octets.clone(), HEADER_LEN);
        let body = match kind {
            kind::TABLE_DUMP_V2 => match subtype {
                table_dump_v2::PEER_INDEX_TABLE => {
                    Some(Body::PeerIndexTable(PeerIndexTable::parse(&mut cursor)?))
                }
                subtype => Rib::parse(subtype, &mut cursor)?.map(Body::Rib),
            },
            kind::BGP4MP => bgp4mp::parse(subtype, &mut cursor)?,
            kind::BGP4MP_ET => {
                let microseconds = cursor.u32("microseconds")?;
                let body = bgp4mp::parse(subtype, &mut cursor)?;
                // What stays raw keeps them among its octets.
                time.microseconds = body.is_some().then_some(microseconds);
                body
            }
            _ => None,
        };
        let body = match body {
            Some(_) if cursor.remaining() > 0 => {
                return Err(RecordError::Trailing {
                    offset: cursor.offset(),
                    count: cursor.remaining(),
                });
            }
            Some(body) => body,
            None => Body::Other {
                kind,
                subtype,
                octets,
            },
        };
        Ok(Record { time, body })
    }
}
