//! BGP messages as octets and as types: parsing with nom, writing with bytes.
//!
//! Pure functions over octets. Nothing here knows of sessions, sockets or configuration; what was
//! negotiated comes in as [`WireOptions`], what is wrong goes out as [`WireError`] or [`Finding`].

mod as4;
pub mod as_path;
pub mod attribute;
pub mod capability;
pub mod community;
pub mod error;
mod family_set;
pub mod frame;
pub mod json;
pub mod message;
mod nlri;
pub mod notification;
pub mod open;
pub mod pack;
pub mod prefix;
pub mod update;

pub use as_path::{AsPath, SegmentKind};
pub use attribute::{
    Aggregator, AttributeCode, AttributeFlags, Attributes, Origin, PartialSet, UnknownAttribute,
};
pub use capability::{
    AddPath, AddPathMode, Capability, ExtendedNextHop, GracefulRestart, GracefulRestartFamily,
    LongLivedFamily, Role,
};
pub use community::{Community, ExtendedCommunity, LargeCommunity};
pub use error::{EncodeError, Finding, HeaderError, OpenError, UpdateError, Verdict, WireError};
pub use family_set::FamilySet;
pub use message::{Decoded, Message, RouteRefresh, WireOptions};
pub use nlri::Nlri;
pub use notification::{Cease, Notification, UnexpectedIn};
pub use open::Open;
pub use prefix::{AfiSafi, Family, Prefix, PrefixError};
pub use update::{MpReach, MpUnreach, NextHop, Reach, Update};
