//! The five messages and their common header (RFC 4271 section 4.1).

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::error::{EncodeError, Finding, HeaderError, Verdict, WireError, decisive};
use crate::wire::family_set::FamilySet;
use crate::wire::frame::{Header, framed};
use crate::wire::notification::Notification;
use crate::wire::open::Open;
use crate::wire::prefix::{AfiSafi, Family};
use crate::wire::update::Update;

pub use crate::wire::frame::HEADER_LEN;

/// Longest message, unless extended messages were negotiated.
pub const MAX_LEN: usize = 4096;
/// Longest message with extended messages (RFC 8654); OPEN and KEEPALIVE stay at [`MAX_LEN`].
pub const MAX_EXTENDED_LEN: usize = 65535;

/// Type octets of the header (RFC 4271 section 4.1, RFC 2918).
pub mod kind {
    /// OPEN.
    pub const OPEN: u8 = 1;
    /// UPDATE.
    pub const UPDATE: u8 = 2;
    /// NOTIFICATION.
    pub const NOTIFICATION: u8 = 3;
    /// KEEPALIVE.
    pub const KEEPALIVE: u8 = 4;
    /// ROUTE-REFRESH.
    pub const ROUTE_REFRESH: u8 = 5;
}

/// What both sides agreed on, as far as it changes the octets.
///
/// The default is a session before its OPENs: no capability in use, an external peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct WireOptions {
    /// Both sides sent the 4-octet AS capability (RFC 6793): AS_PATH and AGGREGATOR carry
    /// 4-octet numbers.
    pub four_octet_as: bool,
    /// Both sides sent the extended message capability (RFC 8654).
    pub extended_messages: bool,
    /// The peer is in our own AS: it may send LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST.
    pub internal: bool,
    /// Families whose routes the peer sends with path identifiers (RFC 7911).
    pub add_path_receive: FamilySet,
    /// Families whose routes we send with path identifiers (RFC 7911).
    pub add_path_send: FamilySet,
    /// Both sides agreed that IPv4 routes may have an IPv6 next hop (RFC 8950).
    pub ipv4_next_hop_v6: bool,
    /// Take an AS_PATH with an AS_SET, instead of withdrawing its routes (RFC 9774 section 3).
    pub allow_as_set: bool,
    /// What the first AS of a path must be (RFC 4271 section 6.3): that of an external peer. Not
    /// checked when `None`.
    pub first_as: Option<u32>,
}

impl WireOptions {
    /// [`WireOptions::default`] where a constant is wanted.
    pub const BEFORE_OPEN: WireOptions = WireOptions {
        four_octet_as: false,
        extended_messages: false,
        internal: false,
        add_path_receive: FamilySet::EMPTY,
        add_path_send: FamilySet::EMPTY,
        ipv4_next_hop_v6: false,
        allow_as_set: false,
        first_as: None,
    };

    /// The options without those that matter only to what is received: peers that differ in
    /// nothing else are sent the same octets.
    pub const fn for_sending(self) -> WireOptions {
        WireOptions {
            add_path_receive: FamilySet::EMPTY,
            allow_as_set: false,
            first_as: None,
            ..self
        }
    }

    /// Longest UPDATE, NOTIFICATION or ROUTE-REFRESH, in octets.
    pub const fn max_len(&self) -> usize {
        if self.extended_messages {
            MAX_EXTENDED_LEN
        } else {
            MAX_LEN
        }
    }
}

/// A BGP message.
#[allow(clippy::large_enum_variant)] // nearly all messages are UPDATEs: a box would only cost
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Opens a session.
    Open(Open),
    /// Routes that come and go.
    Update(Update),
    /// Why the session ends.
    Notification(Notification),
    /// Keeps the session alive.
    Keepalive,
    /// Asks for all routes of a family again.
    RouteRefresh(RouteRefresh),
}

/// ROUTE-REFRESH (RFC 2918).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteRefresh {
    /// The family asked for.
    pub family: AfiSafi,
    /// 0 for a request; other values mark begin and end of a refresh (RFC 7313) and are to be
    /// ignored unless that was negotiated.
    pub subtype: u8,
}

impl RouteRefresh {
    /// Asks for all routes of a family (RFC 2918).
    pub const REQUEST: u8 = 0;
    /// All routes of the family follow (BoRR, RFC 7313).
    pub const BEGIN: u8 = 1;
    /// All routes of the family were told since [`RouteRefresh::BEGIN`] (EoRR, RFC 7313).
    pub const END: u8 = 2;

    /// About a family that we carry.
    pub fn new(family: Family, subtype: u8) -> RouteRefresh {
        RouteRefresh {
            family: family.into(),
            subtype,
        }
    }
}

/// A decoded message with what was wrong in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The message. Attributes with an error are left out of it.
    pub message: Message,
    /// Errors that the session survives; only an UPDATE has any. [`Decoded::verdict`] says what
    /// to do about them.
    pub findings: Vec<Finding>,
}

impl Decoded {
    /// The strongest action demanded by the findings; never [`Verdict::SessionReset`].
    pub fn verdict(&self) -> Option<Verdict> {
        decisive(&self.findings).map(|finding| finding.verdict)
    }
}

impl Message {
    /// The type octet.
    pub const fn kind(&self) -> u8 {
        match self {
            Message::Open(_) => kind::OPEN,
            Message::Update(_) => kind::UPDATE,
            Message::Notification(_) => kind::NOTIFICATION,
            Message::Keepalive => kind::KEEPALIVE,
            Message::RouteRefresh(_) => kind::ROUTE_REFRESH,
        }
    }

    /// Appends the message to `out`.
    ///
    /// # Errors
    /// An [`EncodeError`] if the message does not fit its own fields or the maximum length; `out`
    /// is then as it was.
    pub fn encode(&self, options: &WireOptions, out: &mut BytesMut) -> Result<(), EncodeError> {
        let max = match self {
            Message::Open(_) | Message::Keepalive => MAX_LEN,
            _ => options.max_len(),
        };
        framed(self.kind(), max, out, |out| match self {
            Message::Open(open) => open.put(out),
            Message::Update(update) => update.put(options, out),
            Message::Notification(notification) => {
                out.put_u8(notification.code);
                out.put_u8(notification.subcode);
                out.put_slice(&notification.data);
                Ok(())
            }
            Message::Keepalive => Ok(()),
            Message::RouteRefresh(refresh) => {
                out.put_u16(refresh.family.afi);
                out.put_u8(refresh.subtype);
                out.put_u8(refresh.family.safi);
                Ok(())
            }
        })
    }

    /// The message as octets of its own.
    ///
    /// # Errors
    /// As [`Message::encode`].
    pub fn to_bytes(&self, options: &WireOptions) -> Result<Bytes, EncodeError> {
        let mut out = BytesMut::with_capacity(256);
        self.encode(options, &mut out)?;
        Ok(out.freeze())
    }

    /// Parses one whole message, header included, as [`super::frame::split`] yields it.
    ///
    /// # Errors
    /// A [`WireError`] if the session must end.
    pub fn decode(octets: &[u8], options: &WireOptions) -> Result<Decoded, WireError> {
        let incomplete = |length| HeaderError::Incomplete {
            length,
            available: octets.len(),
        };
        let header = Header::peek(octets, options)?.ok_or_else(|| incomplete(HEADER_LEN as u16))?;
        if octets.len() != usize::from(header.length) {
            return Err(incomplete(header.length).into());
        }
        let body = &octets[HEADER_LEN..];
        let message = match (header.kind, body) {
            (kind::OPEN, body) => Message::Open(Open::parse(body)?),
            (kind::UPDATE, body) => {
                let (update, findings) = Update::parse(body, options)?;
                return Ok(Decoded {
                    message: Message::Update(update),
                    findings,
                });
            }
            (kind::NOTIFICATION, [code, subcode, data @ ..]) => {
                Message::Notification(Notification::with_data(*code, *subcode, data))
            }
            (kind::KEEPALIVE, []) => Message::Keepalive,
            (kind::ROUTE_REFRESH, &[high, low, subtype, safi]) => {
                let family = AfiSafi {
                    afi: u16::from_be_bytes([high, low]),
                    safi,
                };
                Message::RouteRefresh(RouteRefresh { family, subtype })
            }
            // Header::peek let only possible lengths pass.
            _ => return Err(HeaderError::Length(header.length).into()),
        };
        Ok(Decoded {
            message,
            findings: Vec::new(),
        })
    }
}
