//! What can be wrong with a file or a record.

use std::io;

use crate::cursor::Short;
use crate::wire::EncodeError;

/// A file that cannot be read on, or a record in it that is not what its type says.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system could not read; nothing more comes.
    #[error("at octet {offset}: {source}")]
    Io {
        /// How far it was read, in octets from the start.
        offset: u64,
        /// The system's answer.
        source: io::Error,
    },
    /// The file ends inside a record; nothing more comes.
    #[error("record at octet {offset} is cut short: {available} of {wanted} octets are there")]
    Truncated {
        /// Where the record starts.
        offset: u64,
        /// Its length, header included, or that of a header.
        wanted: u64,
        /// How much of it is there.
        available: u64,
    },
    /// A length that no record has, so where the next one starts is unknown: nothing more comes.
    #[error("record at octet {offset} of type {kind}/{subtype} claims {length} octets, over {max}")]
    TooLong {
        /// Where the record starts.
        offset: u64,
        /// Its type.
        kind: u16,
        /// Its subtype.
        subtype: u16,
        /// The length it claims, header excluded.
        length: u32,
        /// The most that is read.
        max: usize,
    },
    /// A record is wrong inside; the next one can be read.
    #[error("record at octet {offset} of type {kind}/{subtype}: {error}")]
    Record {
        /// Where the record starts.
        offset: u64,
        /// Its type.
        kind: u16,
        /// Its subtype.
        subtype: u16,
        /// What is wrong.
        error: RecordError,
    },
}

/// What is wrong inside a record. Offsets count from its start, header included.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A field reaches beyond the end.
    #[error(transparent)]
    Short(#[from] Short),
    /// The record goes on after its last field.
    #[error("{count} octets follow its last field at octet {offset}")]
    Trailing {
        /// Where they start.
        offset: usize,
        /// How many.
        count: usize,
    },
    /// A prefix longer than its family allows.
    #[error("prefix length {length} at octet {offset} exceeds {max}")]
    PrefixLength {
        /// Where it stands.
        offset: usize,
        /// What it says.
        length: u8,
        /// The most there can be.
        max: u8,
    },
    /// Neither IPv4 nor IPv6.
    #[error("address family {afi} at octet {offset} is neither 1 nor 2")]
    AddressFamily {
        /// Where it stands.
        offset: usize,
        /// What it says.
        afi: u16,
    },
    /// No state of RFC 4271.
    #[error("state {value} at octet {offset} is none of 1 to 6")]
    State {
        /// Where it stands.
        offset: usize,
        /// What it says.
        value: u16,
    },
}

/// Why a record cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// More of something than its length field can say.
    #[error("{what} of {length} exceeds {max}")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its size.
        length: usize,
        /// The most that fits.
        max: usize,
    },
    /// Both ends of a session must be of one family.
    #[error("a session between {local} and {peer}, which are of two families")]
    Families {
        /// Our address.
        local: std::net::IpAddr,
        /// The peer's.
        peer: std::net::IpAddr,
    },
    /// Attributes that BGP itself cannot write.
    #[error(transparent)]
    Attributes(#[from] EncodeError),
}

/// A count or length for a 2-octet field.
pub(super) fn u16_field(what: &'static str, length: usize) -> Result<u16, PutError> {
    u16::try_from(length).map_err(|_| PutError::TooLong {
        what,
        length,
        max: usize::from(u16::MAX),
    })
}
