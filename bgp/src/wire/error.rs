//! What can be wrong with a message, and which NOTIFICATION says so (RFC 4271 section 6).
//!
//! A bad UPDATE yields [`Finding`]s rather than one error: each names attribute and reason, and
//! carries the action RFC 7606 prescribes. Acting on it is the session's part.

use std::fmt;
use std::net::Ipv4Addr;

use bytes::BytesMut;

use crate::wire::attribute::{AttributeCode, AttributeFlags};
use crate::wire::capability::{Capability, Role};
use crate::wire::notification::{Notification, code, header_subcode, open_subcode, update_subcode};
use crate::wire::prefix::{AfiSafi, Family, Prefix};

/// A message that ends the session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The header is wrong, or the length for this type.
    #[error("message header: {0}")]
    Header(#[from] HeaderError),
    /// The OPEN is wrong.
    #[error("OPEN: {0}")]
    Open(#[from] OpenError),
    /// The UPDATE is wrong beyond what RFC 7606 lets a session survive.
    #[error("UPDATE: {0}")]
    Update(#[from] UpdateError),
}

impl WireError {
    /// The NOTIFICATION to send before closing.
    pub fn notification(&self) -> Notification {
        match self {
            WireError::Header(error) => error.notification(),
            WireError::Open(error) => error.notification(),
            WireError::Update(error) => error.notification(),
        }
    }
}

/// RFC 4271 section 6.1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The marker is not all ones.
    #[error("marker is not all ones")]
    Marker,
    /// The length is outside 19 to the maximum, or impossible for the type.
    #[error("length {0} is impossible")]
    Length(u16),
    /// The type is unknown.
    #[error("type {0} is unknown")]
    Type(u8),
    /// Fewer or more octets were handed over than the length says. Only a caller that does not
    /// use the frame splitter can cause it.
    #[error("{available} octets for a message of length {length}")]
    Incomplete {
        /// The length field, or the least possible one if the field itself is missing.
        length: u16,
        /// Octets handed over.
        available: usize,
    },
}

impl HeaderError {
    /// The NOTIFICATION to send.
    pub fn notification(&self) -> Notification {
        match self {
            HeaderError::Marker => {
                Notification::new(code::HEADER, header_subcode::NOT_SYNCHRONIZED)
            }
            HeaderError::Length(length) | HeaderError::Incomplete { length, .. } => {
                Notification::with_data(
                    code::HEADER,
                    header_subcode::BAD_LENGTH,
                    &length.to_be_bytes(),
                )
            }
            HeaderError::Type(kind) => {
                Notification::with_data(code::HEADER, header_subcode::BAD_TYPE, &[*kind])
            }
        }
    }
}

/// RFC 4271 section 6.2. The decoder raises what the octets alone tell; the variants that need
/// the configuration are raised by the session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Version is not 4.
    #[error("BGP version {0} is not supported")]
    Version(u8),
    /// The AS number is 0 (RFC 7607).
    #[error("AS number 0")]
    AsZero,
    /// The AS number is not the configured one. Raised by the session.
    #[error("AS {received} instead of the configured {expected}")]
    PeerAs {
        /// What the configuration says.
        expected: u32,
        /// What the OPEN says.
        received: u32,
    },
    /// Hold time of 1 or 2 seconds.
    #[error("hold time of {0} s")]
    HoldTime(u16),
    /// Identifier 0.0.0.0 (RFC 6286), or, raised by the session, our own from an internal peer.
    #[error("BGP identifier {0}")]
    Identifier(Ipv4Addr),
    /// An optional parameter other than Capabilities.
    #[error("optional parameter {0} is not supported")]
    Parameter(u8),
    /// Optional parameters that do not fit their lengths.
    #[error("optional parameters are malformed")]
    Parameters,
    /// A known capability with an impossible value.
    #[error("capability {0} is malformed")]
    Capability(u8),
    /// The peer lacks capabilities we insist on (RFC 5492 section 5). Raised by the session.
    #[error("required capabilities are missing")]
    MissingCapabilities(Vec<Capability>),
    /// Its role does not go with ours, or it has none and we insist on one (RFC 9234 section 4.2).
    /// Raised by the session.
    #[error("{}", role_mismatch(*.ours, *.theirs))]
    Role {
        /// What we are to it.
        ours: Role,
        /// What it says to be to us.
        theirs: Option<u8>,
    },
}

fn role_mismatch(ours: Role, theirs: Option<u8>) -> String {
    match theirs.map(|theirs| (theirs, Role::from_octet(theirs))) {
        None => format!("no role, though ours is {ours} and the other one is required"),
        Some((_, Some(theirs))) => format!("role {theirs} does not go with ours, {ours}"),
        Some((number, None)) => format!("role {number} is not assigned"),
    }
}

impl OpenError {
    /// The NOTIFICATION to send.
    pub fn notification(&self) -> Notification {
        use open_subcode as subcode;
        let open = |subcode| Notification::new(code::OPEN, subcode);
        match self {
            // The version to fall back to is the data; 4 is all there is.
            OpenError::Version(_) => {
                Notification::with_data(code::OPEN, subcode::UNSUPPORTED_VERSION, &[0, 4])
            }
            OpenError::AsZero | OpenError::PeerAs { .. } => open(subcode::BAD_PEER_AS),
            OpenError::HoldTime(_) => open(subcode::UNACCEPTABLE_HOLD_TIME),
            OpenError::Identifier(_) => open(subcode::BAD_BGP_IDENTIFIER),
            OpenError::Parameter(_) => open(subcode::UNSUPPORTED_PARAMETER),
            OpenError::Parameters | OpenError::Capability(_) => open(subcode::UNSPECIFIC),
            OpenError::Role { .. } => open(subcode::ROLE_MISMATCH),
            OpenError::MissingCapabilities(missing) => {
                let mut data = BytesMut::new();
                for capability in missing {
                    // One that cannot be written is left out: the rest still informs the peer.
                    let _ = capability.put(&mut data);
                }
                Notification {
                    code: code::OPEN,
                    subcode: subcode::UNSUPPORTED_CAPABILITY,
                    data: data.freeze(),
                }
            }
        }
    }
}

/// An UPDATE that resets the session: at least one finding says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateError {
    /// Everything found, in the order found.
    pub findings: Vec<Finding>,
}

impl UpdateError {
    /// The finding that decides: the first of the strongest.
    pub fn decisive(&self) -> Option<&Finding> {
        decisive(&self.findings)
    }

    /// The NOTIFICATION to send.
    pub fn notification(&self) -> Notification {
        match self.decisive() {
            Some(finding) => finding.notification(),
            None => Notification::new(code::UPDATE, 0),
        }
    }
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decisive() {
            Some(finding) => finding.fmt(f),
            None => f.write_str("malformed"),
        }
    }
}

impl std::error::Error for UpdateError {}

/// The first of the strongest findings.
pub(super) fn decisive(findings: &[Finding]) -> Option<&Finding> {
    // max_by_key would return the last.
    findings.iter().rev().max_by_key(|finding| finding.verdict)
}

/// What to do about a malformed UPDATE, weakest first (RFC 7606 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The attribute is dropped, the routes stay.
    AttributeDiscard,
    /// All routes of the message are withdrawn.
    TreatAsWithdraw,
    /// All routes of the family are dropped and the family is ignored from now on.
    AfiSafiDisable(AfiSafi),
    /// NOTIFICATION and close.
    SessionReset,
}

impl Verdict {
    /// The name used in output: `attribute-discard` and so on.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::AttributeDiscard => "attribute-discard",
            Verdict::TreatAsWithdraw => "treat-as-withdraw",
            Verdict::AfiSafiDisable(_) => "afi-safi-disable",
            Verdict::SessionReset => "session-reset",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing wrong in an UPDATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What.
    pub reason: Reason,
    /// What RFC 7606 makes of it, in the context of this message.
    pub verdict: Verdict,
    /// The attribute at fault as received (flags, type, length, value), or as much as there was.
    pub octets: Box<[u8]>,
}

/// The part of an UPDATE a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The two length fields of the message.
    Lengths,
    /// The withdrawn routes.
    Withdrawn,
    /// The list of attributes as such.
    AttributeList,
    /// One attribute.
    Attribute(AttributeCode),
    /// The NLRI field.
    Nlri,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Lengths => f.write_str("length fields"),
            Place::Withdrawn => f.write_str("withdrawn routes"),
            Place::AttributeList => f.write_str("attribute list"),
            Place::Attribute(code) => code.fmt(f),
            Place::Nlri => f.write_str("NLRI"),
        }
    }
}

/// What is wrong in an UPDATE.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Withdrawn Routes Length or Total Attribute Length exceeds the message.
    #[error("{declared} octets declared, {available} available")]
    FieldOverrun {
        /// The length field.
        declared: u16,
        /// Octets left in the message.
        available: usize,
    },
    /// Too few octets are left for the header of another attribute (RFC 7606 section 4).
    #[error("{0} octets are no attribute header")]
    HeaderTruncated(usize),
    /// The attribute's length exceeds what is left of the list (RFC 7606 section 4).
    #[error("length {declared} exceeds the {available} octets left")]
    AttributeOverrun {
        /// The length field of the attribute.
        declared: u16,
        /// Octets left in the list.
        available: usize,
    },
    /// Optional or Transitive bit is not what the type code demands.
    #[error("flags {:#04x} do not fit the type", .0.0)]
    Flags(AttributeFlags),
    /// The length is not what the type code demands.
    #[error("length {0} does not fit the type")]
    Length(usize),
    /// Not optional, but unknown.
    #[error("unknown, but flagged as well-known")]
    UnrecognizedWellKnown,
    /// Mandatory beside reachable routes, but absent.
    #[error("missing")]
    Missing,
    /// The second or later one of its type.
    #[error("appears more than once")]
    Duplicate,
    /// ORIGIN is none of 0, 1, 2.
    #[error("value {0} is undefined")]
    OriginValue(u8),
    /// NEXT_HOP is no address of a host.
    #[error("{0} is no host address")]
    NextHopAddress(Ipv4Addr),
    /// A segment type other than AS_SET and AS_SEQUENCE (confederations: RFC 5065 section 5).
    #[error("segment type {0}")]
    SegmentType(u8),
    /// A segment with no AS number (RFC 7606 section 7.2).
    #[error("empty segment")]
    SegmentEmpty,
    /// A segment that exceeds the attribute, or stray octets after the last.
    #[error("segment exceeds the attribute")]
    SegmentOverrun,
    /// AS number 0 (RFC 7607).
    #[error("AS number 0")]
    AsZero,
    /// An AS_SET, which RFC 9774 does away with.
    #[error("AS_SET")]
    AsSet,
    /// The path does not start with the AS of the peer (RFC 4271 section 6.3).
    #[error("starts with {}, not with AS {expected} of the peer", first_as(*.first))]
    FirstAs {
        /// The AS of the peer.
        expected: u32,
        /// The first AS of the path, if it starts with a sequence.
        first: Option<u32>,
    },
    /// An attribute that this kind of peer must not send.
    #[error("not allowed from this peer")]
    NotFromThisPeer,
    /// The next hop length of MP_REACH_NLRI does not fit the family (RFC 7606 section 7.11).
    #[error("next hop of {length} octets for {family}")]
    MpNextHopLength {
        /// The family of the attribute.
        family: Family,
        /// Octets of the next hop.
        length: usize,
    },
    /// The attribute ends before its fixed fields do.
    #[error("ends within its fixed fields")]
    MpTruncated,
    /// A prefix longer than the family allows.
    #[error("prefix length {len} for {family}")]
    PrefixLength {
        /// The family of the field.
        family: Family,
        /// The length octet.
        len: u8,
    },
    /// A prefix that exceeds the field.
    #[error("prefix of length {0} exceeds the field")]
    PrefixOverrun(u8),
    /// The field ends within a path identifier, or right behind one (RFC 7911 section 3).
    #[error("path identifier without a prefix")]
    PathIdOverrun,
}

fn first_as(first: Option<u32>) -> String {
    first.map_or_else(|| "no AS".to_owned(), |first| format!("AS {first}"))
}

impl Finding {
    /// The NOTIFICATION that RFC 4271 section 6.3 (and RFC 4760 section 7) gives the error, whether
    /// or not RFC 7606 still sends it.
    pub fn notification(&self) -> Notification {
        use update_subcode as subcode;
        let bare = |subcode| Notification::new(code::UPDATE, subcode);
        // Even an attribute that fills its message fits: an UPDATE spends 23 octets around it, a
        // NOTIFICATION 21.
        let with_attribute = |subcode| Notification::with_data(code::UPDATE, subcode, &self.octets);
        let mp = matches!(
            self.place,
            Place::Attribute(AttributeCode::MP_REACH_NLRI | AttributeCode::MP_UNREACH_NLRI)
        );
        match &self.reason {
            Reason::FieldOverrun { .. }
            | Reason::HeaderTruncated(_)
            | Reason::AttributeOverrun { .. }
            | Reason::Duplicate => bare(subcode::MALFORMED_ATTRIBUTE_LIST),
            Reason::Flags(_) => with_attribute(subcode::ATTRIBUTE_FLAGS),
            Reason::Length(_) => with_attribute(subcode::ATTRIBUTE_LENGTH),
            Reason::UnrecognizedWellKnown => with_attribute(subcode::UNRECOGNIZED_WELL_KNOWN),
            Reason::Missing => {
                let type_code = match self.place {
                    Place::Attribute(code) => code.0,
                    _ => 0,
                };
                Notification::with_data(code::UPDATE, subcode::MISSING_WELL_KNOWN, &[type_code])
            }
            Reason::AsSet | Reason::FirstAs { .. } => bare(subcode::MALFORMED_AS_PATH),
            Reason::OriginValue(_) => with_attribute(subcode::INVALID_ORIGIN),
            Reason::NextHopAddress(_) => with_attribute(subcode::INVALID_NEXT_HOP),
            Reason::SegmentType(_)
            | Reason::SegmentEmpty
            | Reason::SegmentOverrun
            | Reason::AsZero
                if self.place == Place::Attribute(AttributeCode::AS_PATH) =>
            {
                bare(subcode::MALFORMED_AS_PATH)
            }
            Reason::SegmentType(_)
            | Reason::SegmentEmpty
            | Reason::SegmentOverrun
            | Reason::AsZero
            | Reason::NotFromThisPeer
            | Reason::MpNextHopLength { .. }
            | Reason::MpTruncated => with_attribute(subcode::OPTIONAL_ATTRIBUTE),
            Reason::PrefixLength { .. } | Reason::PrefixOverrun(_) | Reason::PathIdOverrun
                if mp =>
            {
                with_attribute(subcode::OPTIONAL_ATTRIBUTE)
            }
            Reason::PrefixLength { .. } | Reason::PrefixOverrun(_) | Reason::PathIdOverrun => {
                bare(subcode::INVALID_NETWORK)
            }
        }
    }
}

/// `AS_PATH: empty segment (treat-as-withdraw)`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.place, self.reason, self.verdict)
    }
}

/// A message that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The message would exceed the maximum of the session.
    #[error("message of {length} octets exceeds {max}")]
    TooLong {
        /// Its length.
        length: usize,
        /// 4096, or 65535 with extended messages.
        max: usize,
    },
    /// The attributes leave no room for a single prefix.
    #[error("attributes of {0} octets leave no room for a prefix")]
    NoRoom(usize),
    /// A prefix in a field of the other family.
    #[error("prefix {prefix} in a field of {expected}")]
    PrefixFamily {
        /// The prefix at fault.
        prefix: Prefix,
        /// The family of the field.
        expected: Family,
    },
    /// A next hop that the family cannot carry.
    #[error("next hop {next_hop} for {family}")]
    NextHopFamily {
        /// The next hop at fault, as text.
        next_hop: crate::wire::update::NextHop,
        /// The family of the routes.
        family: Family,
    },
    /// A capability value beyond 255 octets.
    #[error("capability {code} of {length} octets exceeds 255")]
    CapabilityTooLong {
        /// Capability code.
        code: u8,
        /// Length of its value.
        length: usize,
    },
    /// A restart time beyond 4095 s.
    #[error("restart time of {0} s exceeds 4095 s")]
    RestartTime(u16),
    /// A long-lived stale time beyond 16777215 s.
    #[error("stale time of {0} s exceeds 16777215 s")]
    StaleTime(u32),
    /// A multiprotocol next hop beyond 255 octets.
    #[error("next hop of {0} octets exceeds 255")]
    NextHopTooLong(usize),
}
