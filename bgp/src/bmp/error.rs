//! What can be wrong with a BMP message.

use crate::cursor::Short;

/// A message that is not what it says. Offsets count from its start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BmpError {
    /// Not version 3.
    #[error("version {0} is not 3")]
    Version(u8),
    /// A length that no message has; where the next one starts is unknown.
    #[error("length {length} is not 6 to {max}")]
    Length {
        /// What it says.
        length: u32,
        /// The most that is read.
        max: usize,
    },
    /// Fewer or more octets were handed over than the length says.
    #[error("{available} octets for a message of length {length}")]
    Incomplete {
        /// The length field.
        length: u32,
        /// Octets handed over.
        available: usize,
    },
    /// A field reaches beyond the end.
    #[error(transparent)]
    Short(#[from] Short),
    /// The message goes on after its last field.
    #[error("{count} octets follow its last field at octet {offset}")]
    Trailing {
        /// Where they start.
        offset: usize,
        /// How many.
        count: usize,
    },
    /// A BGP message inside says a length that none has.
    #[error("BGP message at octet {offset} says it has {length} octets")]
    BgpLength {
        /// Where it starts.
        offset: usize,
        /// Its length field.
        length: u16,
    },
    /// A reason for Peer Down that RFC 7854 does not know.
    #[error("peer down reason {reason} at octet {offset} is unknown")]
    DownReason {
        /// Where it stands.
        offset: usize,
        /// What it says.
        reason: u8,
    },
    /// A value whose length does not fit its type.
    #[error("{field} at octet {offset} has {length} octets instead of {wanted}")]
    ValueLength {
        /// What it is.
        field: &'static str,
        /// Where it starts.
        offset: usize,
        /// Its length.
        length: usize,
        /// What its type asks for.
        wanted: usize,
    },
}

/// Why a message cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// More of something than its length field can say, or than a message may have.
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
}

/// A count or length for a 2-octet field.
pub(super) fn u16_field(what: &'static str, length: usize) -> Result<u16, PutError> {
    u16::try_from(length).map_err(|_| PutError::TooLong {
        what,
        length,
        max: usize::from(u16::MAX),
    })
}
