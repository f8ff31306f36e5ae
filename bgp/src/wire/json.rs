//! What a message says and what is wrong with it, as JSON: for people with `jq`.
//!
//! The verdict is that of [`Message::decode`], the code that sessions use; nothing is judged here.
//! A family or attribute that is not known is no error: its octets are shown as hex.

use std::fmt;

use serde::ser::{Serialize, Serializer};

use crate::wire::error::{Finding, HeaderError, Place, Verdict, WireError, decisive};
use crate::wire::frame::Header;
use crate::wire::message::{Decoded, Message, WireOptions, kind};
use crate::wire::notification::Notification;

mod message;

pub use message::{AttributesView, MessageView};

/// What became of some octets.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// `accept`, `attribute-discard`, `treat-as-withdraw`, `afi-safi-disable`, `session-reset`, or
    /// `incomplete` when a session would wait for more.
    pub verdict: &'static str,
    /// `open`, `update`, `notification`, `keepalive` or `route-refresh`, if the header says so.
    #[serde(rename = "type")]
    pub kind: Option<&'static str>,
    /// What it says; nothing when it resets the session or is incomplete.
    pub message: Option<MessageView>,
    /// What is wrong with it, in the order found.
    pub errors: Vec<Fault>,
    /// Octets given behind the message, which nobody has looked at.
    #[serde(skip_serializing_if = "is_zero")]
    pub trailing_octets: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// The attribute, or the part of an UPDATE; absent for the other messages.
    pub attribute: Option<String>,
    /// What is wrong.
    pub reason: String,
    /// What it leads to by itself; absent where there is nothing to choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<&'static str>,
    /// Error code of the NOTIFICATION for it, whether or not one would be sent; absent when nothing
    /// is wrong yet.
    pub code: Option<u8>,
    /// Error subcode.
    pub subcode: Option<u8>,
    /// Data of the NOTIFICATION.
    #[serde(skip_serializing_if = "Hex::is_empty")]
    pub data: Hex,
}

/// Octets, written as hex digits.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Hex(pub Box<[u8]>);

impl Hex {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for Hex {
    fn from(octets: &[u8]) -> Self {
        Hex(octets.into())
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde wants it
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The verdict of a message that nothing is wrong with.
const ACCEPT: &str = "accept";
/// The verdict of a message that is not all there.
const INCOMPLETE: &str = "incomplete";

impl Report {
    /// Reads the message at the start of `octets` as a session with these options does.
    pub fn of(octets: &[u8], options: &WireOptions) -> Report {
        let header = match Header::peek(octets, options) {
            Ok(Some(header)) => header,
            Ok(None) => {
                let reason = format!("{} octets are no whole header", octets.len());
                return Report::incomplete(reason);
            }
            Err(error) => return Report::reset(kind_of(octets), &error.into()),
        };
        let kind = name_of(header.kind);
        let length = usize::from(header.length);
        let Some((message, trailing)) = octets.split_at_checked(length) else {
            let reason = format!("{} of {length} octets are there", octets.len());
            return Report {
                kind,
                ..Report::incomplete(reason)
            };
        };
        let report = match Message::decode(message, options) {
            Ok(decoded) => Report::decoded(decoded, options),
            Err(error) => Report::reset(kind, &error),
        };
        Report {
            trailing_octets: trailing.len(),
            ..report
        }
    }

    /// What is to be said of a message that is not all there, or none at all.
    pub fn incomplete(reason: String) -> Report {
        Report {
            verdict: INCOMPLETE,
            kind: None,
            message: None,
            errors: vec![Fault {
                attribute: None,
                reason,
                verdict: None,
                code: None,
                subcode: None,
                data: Hex::default(),
            }],
            trailing_octets: 0,
        }
    }

    /// The report of a message that was read.
    pub fn decoded(decoded: Decoded, options: &WireOptions) -> Report {
        Report {
            verdict: decoded.verdict().map_or(ACCEPT, Verdict::as_str),
            kind: name_of(decoded.message.kind()),
            errors: decoded.findings.iter().map(Fault::of).collect(),
            message: Some(MessageView::new(decoded.message, options)),
            trailing_octets: 0,
        }
    }

    /// The report of an error that ends the session.
    pub fn reset(kind: Option<&'static str>, error: &WireError) -> Report {
        let errors = match error {
            WireError::Update(error) => {
                debug_assert!(decisive(&error.findings).is_some());
                error.findings.iter().map(Fault::of).collect()
            }
            WireError::Header(error) => {
                vec![Fault::told_by(&error.notification(), header_reason(error))]
            }
            WireError::Open(error) => {
                vec![Fault::told_by(&error.notification(), error.to_string())]
            }
        };
        Report {
            verdict: Verdict::SessionReset.as_str(),
            kind,
            message: None,
            errors,
            trailing_octets: 0,
        }
    }
}

fn header_reason(error: &HeaderError) -> String {
    format!("message header: {error}")
}

impl Fault {
    fn of(finding: &Finding) -> Fault {
        let attribute = match finding.place {
            Place::Attribute(code) => code.to_string(),
            place => place.to_string(),
        };
        Fault {
            attribute: Some(attribute),
            verdict: Some(finding.verdict.as_str()),
            ..Fault::told_by(&finding.notification(), finding.reason.to_string())
        }
    }

    fn told_by(notification: &Notification, reason: String) -> Fault {
        Fault {
            attribute: None,
            reason,
            verdict: None,
            code: Some(notification.code),
            subcode: Some(notification.subcode),
            data: Hex::from(&*notification.data),
        }
    }
}

/// The name of a type octet.
const fn name_of(octet: u8) -> Option<&'static str> {
    Some(match octet {
        kind::OPEN => "open",
        kind::UPDATE => "update",
        kind::NOTIFICATION => "notification",
        kind::KEEPALIVE => "keepalive",
        kind::ROUTE_REFRESH => "route-refresh",
        _ => return None,
    })
}

/// The type that a header gives, wrong as it may be otherwise.
fn kind_of(octets: &[u8]) -> Option<&'static str> {
    octets.get(18).copied().and_then(name_of)
}
