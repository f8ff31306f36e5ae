//! BMP (RFC 7854): what a speaker tells a monitoring station of its peers and their routes.
//!
//! [`Message`] is the codec, both ways; BGP messages inside stay octets, as they were on the wire.
//! Adj-RIB-Out (RFC 8671), Loc-RIB (RFC 9069) and route mirroring are not spoken: when read, they
//! show as what they are, or raw.

mod error;
mod message;
mod peer;
pub(crate) mod report;
mod statistics;

pub use crate::cursor::Short;
pub use error::{BmpError, PutError};
pub use message::{
    DownReason, Information, MAX_MESSAGE_LEN, Message, PeerUp, Termination, termination_reason,
};
pub use peer::{PeerHeader, PeerKind};
pub use statistics::Statistic;
