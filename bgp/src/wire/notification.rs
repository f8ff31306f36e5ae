//! NOTIFICATION: why a session ends (RFC 4271 sections 4.5 and 6, RFC 4486, RFC 6608).
//!
//! Codes stay numbers, since a peer may send any; the names are here for what we send and print.

use std::fmt;

use bytes::Bytes;

use crate::wire::prefix::Family;

/// Error codes (RFC 4271 section 4.5; 7 from RFC 7313).
pub mod code {
    /// Message Header Error.
    pub const HEADER: u8 = 1;
    /// OPEN Message Error.
    pub const OPEN: u8 = 2;
    /// UPDATE Message Error.
    pub const UPDATE: u8 = 3;
    /// Hold Timer Expired.
    pub const HOLD_TIMER_EXPIRED: u8 = 4;
    /// Finite State Machine Error.
    pub const FSM: u8 = 5;
    /// Cease.
    pub const CEASE: u8 = 6;
    /// ROUTE-REFRESH Message Error.
    pub const ROUTE_REFRESH: u8 = 7;
    /// Send Hold Timer Expired (RFC 9687).
    pub const SEND_HOLD_TIMER_EXPIRED: u8 = 8;
}

/// Subcodes of code 1 (RFC 4271 section 6.1).
pub mod header_subcode {
    /// The marker is not all ones.
    pub const NOT_SYNCHRONIZED: u8 = 1;
    /// The length is impossible, for any message or for this type.
    pub const BAD_LENGTH: u8 = 2;
    /// The type is unknown.
    pub const BAD_TYPE: u8 = 3;
}

/// Subcodes of code 2 (RFC 4271 section 6.2, RFC 5492).
pub mod open_subcode {
    /// Recognised parameter or capability, but malformed.
    pub const UNSPECIFIC: u8 = 0;
    /// Version is not 4.
    pub const UNSUPPORTED_VERSION: u8 = 1;
    /// Not the AS configured for the peer, or AS 0.
    pub const BAD_PEER_AS: u8 = 2;
    /// Identifier 0, or our own from an internal peer.
    pub const BAD_BGP_IDENTIFIER: u8 = 3;
    /// Optional parameter not recognised.
    pub const UNSUPPORTED_PARAMETER: u8 = 4;
    /// Hold time of 1 or 2 seconds, or one that is refused by policy.
    pub const UNACCEPTABLE_HOLD_TIME: u8 = 6;
    /// A capability required of the peer is missing.
    pub const UNSUPPORTED_CAPABILITY: u8 = 7;
    /// The peer's role does not go with ours (RFC 9234).
    pub const ROLE_MISMATCH: u8 = 11;
}

/// Subcodes of code 3 (RFC 4271 section 6.3).
pub mod update_subcode {
    /// Lengths do not add up, or an attribute appears twice.
    pub const MALFORMED_ATTRIBUTE_LIST: u8 = 1;
    /// Well-known flags on an attribute nobody knows.
    pub const UNRECOGNIZED_WELL_KNOWN: u8 = 2;
    /// A mandatory attribute is missing.
    pub const MISSING_WELL_KNOWN: u8 = 3;
    /// Flags do not fit the type code.
    pub const ATTRIBUTE_FLAGS: u8 = 4;
    /// Length does not fit the type code.
    pub const ATTRIBUTE_LENGTH: u8 = 5;
    /// ORIGIN is none of 0, 1, 2.
    pub const INVALID_ORIGIN: u8 = 6;
    /// NEXT_HOP is no host address.
    pub const INVALID_NEXT_HOP: u8 = 8;
    /// An optional attribute is wrong.
    pub const OPTIONAL_ATTRIBUTE: u8 = 9;
    /// NLRI or withdrawn routes are no prefixes.
    pub const INVALID_NETWORK: u8 = 10;
    /// AS_PATH is no path.
    pub const MALFORMED_AS_PATH: u8 = 11;
}

/// Subcodes of code 6 (RFC 4486, RFC 8538, RFC 9384).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cease {
    /// More prefixes than allowed.
    MaximumPrefixes = 1,
    /// The operator took the peer down.
    AdministrativeShutdown = 2,
    /// The peer was removed from the configuration.
    PeerDeconfigured = 3,
    /// The operator reset the session.
    AdministrativeReset = 4,
    /// The connection is not wanted.
    ConnectionRejected = 5,
    /// A change of configuration needs a new session.
    OtherConfigurationChange = 6,
    /// The connection lost a collision (RFC 4271 section 6.8).
    ConnectionCollisionResolution = 7,
    /// Out of memory or the like.
    OutOfResources = 8,
    /// A full reset although graceful restart was negotiated (RFC 8538).
    HardReset = 9,
    /// BFD says the path is down (RFC 9384).
    BfdDown = 10,
}

/// Subcodes of code 5: the state in which an unexpected message came (RFC 6608).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum UnexpectedIn {
    /// Some other state.
    Unspecified = 0,
    /// OpenSent.
    OpenSent = 1,
    /// OpenConfirm.
    OpenConfirm = 2,
    /// Established.
    Established = 3,
}

/// A NOTIFICATION message. Sending one closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode; 0 is "unspecific".
    pub subcode: u8,
    /// What the code and subcode define, often the octets at fault. At most 4075 octets.
    pub data: Bytes,
}

impl Notification {
    /// A notification without data.
    pub const fn new(code: u8, subcode: u8) -> Notification {
        Notification {
            code,
            subcode,
            data: Bytes::new(),
        }
    }

    /// A notification with a copy of `data`.
    pub fn with_data(code: u8, subcode: u8, data: &[u8]) -> Notification {
        Notification {
            code,
            subcode,
            data: Bytes::copy_from_slice(data),
        }
    }

    /// Whether it is a Cease for this reason.
    pub fn is_cease(&self, why: Cease) -> bool {
        (self.code, self.subcode) == (code::CEASE, why as u8)
    }

    /// Code 4: nothing was heard for the hold time.
    pub const fn hold_timer_expired() -> Notification {
        Notification::new(code::HOLD_TIMER_EXPIRED, 0)
    }

    /// The peer read nothing of what we sent for the send hold time (RFC 9687 section 3.3).
    pub fn send_hold_timer_expired() -> Notification {
        Notification::new(code::SEND_HOLD_TIMER_EXPIRED, 0)
    }

    /// Code 5: a message that has no place in the state (RFC 6608).
    ///
    /// `message_type` is the type octet of that message, which RFC 6608 puts into the data.
    pub fn unexpected_message(state: UnexpectedIn, message_type: u8) -> Notification {
        Notification::with_data(code::FSM, state as u8, &[message_type])
    }

    /// Code 6.
    pub const fn cease(why: Cease) -> Notification {
        Notification::new(code::CEASE, why as u8)
    }

    /// The peer tells more routes of the family than it may (RFC 4486 section 4).
    pub fn maximum_prefixes(family: Family, limit: usize) -> Notification {
        let mut data = family.afi().to_be_bytes().to_vec();
        data.push(family.safi());
        data.extend(u32::try_from(limit).unwrap_or(u32::MAX).to_be_bytes());
        Notification::with_data(code::CEASE, Cease::MaximumPrefixes as u8, &data)
    }

    /// The same as the reason for a hard reset: also those that go on forwarding after a
    /// NOTIFICATION are to drop our routes (RFC 8538 section 3.1).
    pub fn inside_hard_reset(&self) -> Notification {
        let mut data = vec![self.code, self.subcode];
        data.extend_from_slice(&self.data);
        Notification::with_data(code::CEASE, Cease::HardReset as u8, &data)
    }

    /// The reason that a hard reset carries, or this very NOTIFICATION if it is none.
    pub fn reason(&self) -> Notification {
        match (self.code, self.subcode, &self.data[..]) {
            (code::CEASE, subcode, [inner_code, inner_subcode, ..])
                if subcode == Cease::HardReset as u8 =>
            {
                Notification {
                    code: *inner_code,
                    subcode: *inner_subcode,
                    data: self.data.slice(2..),
                }
            }
            _ => self.clone(),
        }
    }

    /// The text that came with a shutdown or reset (RFC 9003), fit to be printed.
    pub fn shutdown_text(&self) -> Option<String> {
        let cease = |cease: Cease| (code::CEASE, cease as u8);
        let kind = (self.code, self.subcode);
        if kind != cease(Cease::AdministrativeShutdown) && kind != cease(Cease::AdministrativeReset)
        {
            return None;
        }
        let (length, rest) = self.data.split_first()?;
        let text = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
        let clean: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let clean = clean.trim();
        (!clean.is_empty()).then(|| clean.to_owned())
    }

    /// The name of the error code, "unknown" when it has none.
    pub const fn code_name(&self) -> &'static str {
        match self.code {
            code::HEADER => "message header error",
            code::OPEN => "OPEN message error",
            code::UPDATE => "UPDATE message error",
            code::HOLD_TIMER_EXPIRED => "hold timer expired",
            code::SEND_HOLD_TIMER_EXPIRED => "send hold timer expired",
            code::FSM => "finite state machine error",
            code::CEASE => "cease",
            code::ROUTE_REFRESH => "ROUTE-REFRESH message error",
            _ => "unknown",
        }
    }

    /// The name of the subcode under its code, if it has one.
    pub const fn subcode_name(&self) -> Option<&'static str> {
        Some(match (self.code, self.subcode) {
            (code::HEADER, header_subcode::NOT_SYNCHRONIZED) => "connection not synchronized",
            (code::HEADER, header_subcode::BAD_LENGTH) => "bad message length",
            (code::HEADER, header_subcode::BAD_TYPE) => "bad message type",
            (code::OPEN, open_subcode::UNSUPPORTED_VERSION) => "unsupported version number",
            (code::OPEN, open_subcode::BAD_PEER_AS) => "bad peer AS",
            (code::OPEN, open_subcode::BAD_BGP_IDENTIFIER) => "bad BGP identifier",
            (code::OPEN, open_subcode::UNSUPPORTED_PARAMETER) => "unsupported optional parameter",
            (code::OPEN, open_subcode::UNACCEPTABLE_HOLD_TIME) => "unacceptable hold time",
            (code::OPEN, open_subcode::UNSUPPORTED_CAPABILITY) => "unsupported capability",
            (code::OPEN, open_subcode::ROLE_MISMATCH) => "role mismatch",
            (code::UPDATE, update_subcode::MALFORMED_ATTRIBUTE_LIST) => "malformed attribute list",
            (code::UPDATE, update_subcode::UNRECOGNIZED_WELL_KNOWN) => {
                "unrecognized well-known attribute"
            }
            (code::UPDATE, update_subcode::MISSING_WELL_KNOWN) => "missing well-known attribute",
            (code::UPDATE, update_subcode::ATTRIBUTE_FLAGS) => "attribute flags error",
            (code::UPDATE, update_subcode::ATTRIBUTE_LENGTH) => "attribute length error",
            (code::UPDATE, update_subcode::INVALID_ORIGIN) => "invalid ORIGIN attribute",
            (code::UPDATE, update_subcode::INVALID_NEXT_HOP) => "invalid NEXT_HOP attribute",
            (code::UPDATE, update_subcode::OPTIONAL_ATTRIBUTE) => "optional attribute error",
            (code::UPDATE, update_subcode::INVALID_NETWORK) => "invalid network field",
            (code::UPDATE, update_subcode::MALFORMED_AS_PATH) => "malformed AS_PATH",
            (code::FSM, 1) => "unexpected message in OpenSent",
            (code::FSM, 2) => "unexpected message in OpenConfirm",
            (code::FSM, 3) => "unexpected message in Established",
            (code::CEASE, 1) => "maximum number of prefixes reached",
            (code::CEASE, 2) => "administrative shutdown",
            (code::CEASE, 3) => "peer de-configured",
            (code::CEASE, 4) => "administrative reset",
            (code::CEASE, 5) => "connection rejected",
            (code::CEASE, 6) => "other configuration change",
            (code::CEASE, 7) => "connection collision resolution",
            (code::CEASE, 8) => "out of resources",
            (code::CEASE, 9) => "hard reset",
            (code::CEASE, 10) => "BFD down",
            _ => return None,
        })
    }
}

/// `OPEN message error: bad peer AS (2/2)`.
impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code_name())?;
        if let Some(name) = self.subcode_name() {
            write!(f, ": {name}")?;
        }
        write!(f, " ({}/{})", self.code, self.subcode)
    }
}
