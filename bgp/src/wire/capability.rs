//! Capabilities of the OPEN message (RFC 5492): typed where known, kept as octets where not.

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::wire::error::{EncodeError, OpenError};
use crate::wire::prefix::{AfiSafi, Family};

/// IANA capability codes that are typed here.
pub mod code {
    /// RFC 4760.
    pub const MULTIPROTOCOL: u8 = 1;
    /// RFC 2918.
    pub const ROUTE_REFRESH: u8 = 2;
    /// RFC 8950.
    pub const EXTENDED_NEXT_HOP: u8 = 5;
    /// RFC 8654.
    pub const EXTENDED_MESSAGE: u8 = 6;
    /// RFC 9234.
    pub const ROLE: u8 = 9;
    /// RFC 4724.
    pub const GRACEFUL_RESTART: u8 = 64;
    /// RFC 6793.
    pub const FOUR_OCTET_AS: u8 = 65;
    /// RFC 7911.
    pub const ADD_PATH: u8 = 69;
    /// RFC 7313.
    pub const ENHANCED_ROUTE_REFRESH: u8 = 70;
    /// RFC 9494.
    pub const LONG_LIVED_GRACEFUL_RESTART: u8 = 71;
}

/// One capability of an OPEN.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Routes of this family may be exchanged (RFC 4760 section 8).
    Multiprotocol(AfiSafi),
    /// ROUTE-REFRESH is understood (RFC 2918).
    RouteRefresh,
    /// Graceful restart (RFC 4724 section 3).
    GracefulRestart(GracefulRestart),
    /// 4-octet AS numbers, with the speaker's own (RFC 6793 section 3).
    FourOctetAs(u32),
    /// Families whose routes may have a next hop of another one (RFC 8950 section 4).
    ExtendedNextHop(Vec<ExtendedNextHop>),
    /// Messages of up to 65535 octets (RFC 8654).
    ExtendedMessage,
    /// What the sender is to its peer (RFC 9234 section 4.1); [`Role::from_octet`] knows the
    /// assigned values.
    Role(u8),
    /// Several paths to one prefix (RFC 7911 section 4).
    AddPath(Vec<AddPath>),
    /// ROUTE-REFRESH with its begin and its end marked (RFC 7313).
    EnhancedRouteRefresh,
    /// Stale routes kept for long (RFC 9494 section 3).
    LongLivedGracefulRestart(Vec<LongLivedFamily>),
    /// Anything else, as received.
    Unknown {
        /// Capability code.
        code: u8,
        /// At most 255 octets.
        value: Box<[u8]>,
    },
}

impl Capability {
    /// The multiprotocol capability of a family.
    pub fn multiprotocol(family: Family) -> Capability {
        Capability::Multiprotocol(family.into())
    }

    /// The capability code.
    pub const fn code(&self) -> u8 {
        match self {
            Capability::Multiprotocol(_) => code::MULTIPROTOCOL,
            Capability::RouteRefresh => code::ROUTE_REFRESH,
            Capability::GracefulRestart(_) => code::GRACEFUL_RESTART,
            Capability::FourOctetAs(_) => code::FOUR_OCTET_AS,
            Capability::ExtendedNextHop(_) => code::EXTENDED_NEXT_HOP,
            Capability::ExtendedMessage => code::EXTENDED_MESSAGE,
            Capability::Role(_) => code::ROLE,
            Capability::AddPath(_) => code::ADD_PATH,
            Capability::EnhancedRouteRefresh => code::ENHANCED_ROUTE_REFRESH,
            Capability::LongLivedGracefulRestart(_) => code::LONG_LIVED_GRACEFUL_RESTART,
            Capability::Unknown { code, .. } => *code,
        }
    }
}

impl Capability {
    /// The name used in configuration and output.
    pub const fn name(&self) -> &'static str {
        match self {
            Capability::Multiprotocol(_) => "multiprotocol",
            Capability::RouteRefresh => "route-refresh",
            Capability::GracefulRestart(_) => "graceful-restart",
            Capability::FourOctetAs(_) => "four-octet-as",
            Capability::ExtendedNextHop(_) => "extended-next-hop",
            Capability::ExtendedMessage => "extended-messages",
            Capability::Role(_) => "role",
            Capability::AddPath(_) => "add-path",
            Capability::EnhancedRouteRefresh => "enhanced-refresh",
            Capability::LongLivedGracefulRestart(_) => "long-lived-graceful-restart",
            Capability::Unknown { .. } => "unknown",
        }
    }
}

/// What it says, for people; `yes` where there is nothing to say.
impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |texts: Vec<String>| texts.join(", ");
        let text = match self {
            Capability::Multiprotocol(family) => family.to_string(),
            Capability::GracefulRestart(restart) => {
                let families = restart.families.iter().map(|entry| {
                    let kept = match entry.forwarding_preserved {
                        true => " preserved",
                        false => "",
                    };
                    format!("{}{kept}", entry.family)
                });
                let mut texts = vec![format!("{} s", restart.restart_time)];
                texts.extend(restart.restarting.then(|| "restarting".to_owned()));
                texts.extend(restart.notification.then(|| "notification".to_owned()));
                texts.extend(families);
                list(texts)
            }
            Capability::FourOctetAs(asn) => asn.to_string(),
            Capability::ExtendedNextHop(entries) => list(
                entries
                    .iter()
                    .map(|entry| format!("{} via afi {}", entry.family, entry.next_hop_afi))
                    .collect(),
            ),
            Capability::Role(role) => match Role::from_octet(*role) {
                Some(role) => role.to_string(),
                None => format!("role {role}"),
            },
            Capability::AddPath(entries) => list(
                entries
                    .iter()
                    .map(|entry| {
                        let mode = match entry.mode {
                            AddPathMode::Receive => "receive",
                            AddPathMode::Send => "send",
                            AddPathMode::Both => "both",
                        };
                        format!("{} {mode}", entry.family)
                    })
                    .collect(),
            ),
            Capability::LongLivedGracefulRestart(entries) => list(
                entries
                    .iter()
                    .map(|entry| format!("{} {} s", entry.family, entry.stale_time))
                    .collect(),
            ),
            Capability::Unknown { code, .. } => format!("code {code}"),
            Capability::RouteRefresh
            | Capability::ExtendedMessage
            | Capability::EnhancedRouteRefresh => "yes".to_owned(),
        };
        f.write_str(&text)
    }
}

/// The graceful restart capability (RFC 4724 section 3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct GracefulRestart {
    /// R: the sender has restarted, its peer must not wait for an End-of-RIB from it.
    pub restarting: bool,
    /// N: graceful restart also applies after a NOTIFICATION and a hold timer expiry (RFC 8538).
    pub notification: bool,
    /// Seconds the session is expected to take to come back, 0 to 4095.
    pub restart_time: u16,
    /// Families whose forwarding state may survive; empty for a mere helper.
    pub families: Vec<GracefulRestartFamily>,
}

impl GracefulRestart {
    /// The longest restart time the 12-bit field holds, in seconds.
    pub const MAX_RESTART_TIME: u16 = 0x0fff;
}

/// A family in the graceful restart capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GracefulRestartFamily {
    /// The family.
    pub family: AfiSafi,
    /// F: forwarding state was preserved during the restart.
    pub forwarding_preserved: bool,
}

/// A family in the extended next hop capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExtendedNextHop {
    /// The family of the routes.
    pub family: AfiSafi,
    /// AFI of the next hops they may have; 2 for IPv6.
    pub next_hop_afi: u16,
}

/// What a speaker is to its peer (RFC 9234 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Role {
    /// Sells transit to the peer.
    Provider = 0,
    /// A route server, the peer its client.
    #[serde(rename = "rs")]
    RouteServer = 1,
    /// A client of the peer, a route server.
    #[serde(rename = "rs-client")]
    RouteServerClient = 2,
    /// Buys transit from the peer.
    Customer = 3,
    /// Neither pays the other.
    Peer = 4,
}

impl Role {
    /// Whether a peer may have this role towards us, who have that one (RFC 9234 section 4.2).
    pub const fn fits(self, theirs: Role) -> bool {
        matches!(
            (self, theirs),
            (Role::Provider, Role::Customer)
                | (Role::Customer, Role::Provider)
                | (Role::RouteServer, Role::RouteServerClient)
                | (Role::RouteServerClient, Role::RouteServer)
                | (Role::Peer, Role::Peer)
        )
    }

    /// The role of a value of the capability, if it is assigned.
    pub const fn from_octet(octet: u8) -> Option<Role> {
        Some(match octet {
            0 => Role::Provider,
            1 => Role::RouteServer,
            2 => Role::RouteServerClient,
            3 => Role::Customer,
            4 => Role::Peer,
            _ => return None,
        })
    }

    /// The name used in configuration and output: `provider` or `rs-client` and so on.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Provider => "provider",
            Role::RouteServer => "rs",
            Role::RouteServerClient => "rs-client",
            Role::Customer => "customer",
            Role::Peer => "peer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A family in the add-path capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddPath {
    /// The family.
    pub family: AfiSafi,
    /// What the sender of the capability can do with several paths.
    pub mode: AddPathMode,
}

/// Send/Receive of the add-path capability (RFC 7911 section 4), from its sender's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AddPathMode {
    /// Takes several paths.
    Receive = 1,
    /// Tells several paths.
    Send = 2,
    /// Both.
    Both = 3,
}

impl AddPathMode {
    const fn from_octet(octet: u8) -> Option<AddPathMode> {
        match octet {
            1 => Some(AddPathMode::Receive),
            2 => Some(AddPathMode::Send),
            3 => Some(AddPathMode::Both),
            _ => None,
        }
    }

    /// Whether its sender takes several paths.
    pub const fn receives(self) -> bool {
        matches!(self, AddPathMode::Receive | AddPathMode::Both)
    }

    /// Whether its sender tells several paths.
    pub const fn sends(self) -> bool {
        matches!(self, AddPathMode::Send | AddPathMode::Both)
    }
}

/// A family in the long-lived graceful restart capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LongLivedFamily {
    /// The family.
    pub family: AfiSafi,
    /// F: forwarding state was preserved during the restart.
    pub forwarding_preserved: bool,
    /// Seconds for which stale routes may be kept, 0 to 16777215.
    pub stale_time: u32,
}

impl LongLivedFamily {
    /// The longest stale time the 24-bit field holds, in seconds.
    pub const MAX_STALE_TIME: u32 = 0x00ff_ffff;

    const F: u8 = 0x80;
}

/// Parsing and writing (RFC 5492 section 4).
impl Capability {
    /// The capability with this code and value.
    pub(super) fn parse(code: u8, value: &[u8]) -> Result<Capability, OpenError> {
        let malformed = OpenError::Capability(code);
        Ok(match (code, value) {
            (code::MULTIPROTOCOL, &[high, low, _reserved, safi]) => {
                Capability::Multiprotocol(AfiSafi {
                    afi: u16::from_be_bytes([high, low]),
                    safi,
                })
            }
            (code::ROUTE_REFRESH, []) => Capability::RouteRefresh,
            (code::GRACEFUL_RESTART, value) => {
                Capability::GracefulRestart(GracefulRestart::parse(value).ok_or(malformed)?)
            }
            (code::FOUR_OCTET_AS, &[a, b, c, d]) => {
                Capability::FourOctetAs(u32::from_be_bytes([a, b, c, d]))
            }
            (code::EXTENDED_NEXT_HOP, value) => {
                let entries = entries::<6>(value).ok_or(malformed)?;
                Capability::ExtendedNextHop(entries.filter_map(parse_extended_next_hop).collect())
            }
            (code::EXTENDED_MESSAGE, []) => Capability::ExtendedMessage,
            (code::ROLE, &[role]) => Capability::Role(role),
            (code::ADD_PATH, value) => {
                let entries = entries::<4>(value).ok_or(malformed)?;
                match entries.map(parse_add_path).collect() {
                    Some(families) => Capability::AddPath(families),
                    // An unassigned Send/Receive: as if the capability were not understood.
                    None => Capability::Unknown {
                        code,
                        value: value.into(),
                    },
                }
            }
            (code::ENHANCED_ROUTE_REFRESH, []) => Capability::EnhancedRouteRefresh,
            (code::LONG_LIVED_GRACEFUL_RESTART, value) => {
                let entries = entries::<7>(value).ok_or(malformed)?;
                Capability::LongLivedGracefulRestart(entries.map(parse_long_lived).collect())
            }
            (
                code::MULTIPROTOCOL
                | code::ROUTE_REFRESH
                | code::FOUR_OCTET_AS
                | code::EXTENDED_MESSAGE
                | code::ROLE
                | code::ENHANCED_ROUTE_REFRESH,
                _,
            ) => return Err(malformed),
            (code, value) => Capability::Unknown {
                code,
                value: value.into(),
            },
        })
    }

    /// Appends code, length and value; on error `out` is as it was.
    pub(super) fn put(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let start = out.len();
        out.put_slice(&[self.code(), 0]);
        let written = self.put_value(out).and_then(|()| {
            let length = out.len() - start - 2;
            u8::try_from(length).map_err(|_| EncodeError::CapabilityTooLong {
                code: self.code(),
                length,
            })
        });
        match written {
            Ok(length) => out[start + 1] = length,
            Err(_) => out.truncate(start),
        }
        written.map(|_| ())
    }

    fn put_value(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        match self {
            Capability::Multiprotocol(family) => {
                out.put_u16(family.afi);
                out.put_slice(&[0, family.safi]);
            }
            Capability::RouteRefresh => {}
            Capability::GracefulRestart(restart) => restart.put(out)?,
            Capability::FourOctetAs(asn) => out.put_u32(*asn),
            Capability::ExtendedNextHop(entries) => {
                for entry in entries {
                    out.put_u16(entry.family.afi);
                    out.put_u16(u16::from(entry.family.safi));
                    out.put_u16(entry.next_hop_afi);
                }
            }
            Capability::ExtendedMessage | Capability::EnhancedRouteRefresh => {}
            Capability::Role(role) => out.put_u8(*role),
            Capability::AddPath(entries) => {
                for entry in entries {
                    out.put_u16(entry.family.afi);
                    out.put_slice(&[entry.family.safi, entry.mode as u8]);
                }
            }
            Capability::LongLivedGracefulRestart(entries) => {
                entries.iter().try_for_each(|entry| entry.put(out))?;
            }
            Capability::Unknown { value, .. } => out.put_slice(value),
        }
        Ok(())
    }
}

/// A value as a list of entries of this length.
fn entries<const N: usize>(value: &[u8]) -> Option<impl Iterator<Item = [u8; N]>> {
    let (entries, stray) = value.as_chunks();
    stray.is_empty().then(|| entries.iter().copied())
}

const fn family(afi_high: u8, afi_low: u8, safi: u8) -> AfiSafi {
    AfiSafi {
        afi: u16::from_be_bytes([afi_high, afi_low]),
        safi,
    }
}

/// `None` for a SAFI beyond one octet: this field alone has two, and no such SAFI exists.
fn parse_extended_next_hop(entry: [u8; 6]) -> Option<ExtendedNextHop> {
    let [high, low, 0, safi, next_hop_high, next_hop_low] = entry else {
        return None;
    };
    Some(ExtendedNextHop {
        family: family(high, low, safi),
        next_hop_afi: u16::from_be_bytes([next_hop_high, next_hop_low]),
    })
}

fn parse_add_path([high, low, safi, mode]: [u8; 4]) -> Option<AddPath> {
    Some(AddPath {
        family: family(high, low, safi),
        mode: AddPathMode::from_octet(mode)?,
    })
}

fn parse_long_lived([high, low, safi, flags, a, b, c]: [u8; 7]) -> LongLivedFamily {
    LongLivedFamily {
        family: family(high, low, safi),
        forwarding_preserved: flags & LongLivedFamily::F != 0,
        stale_time: u32::from_be_bytes([0, a, b, c]),
    }
}

impl LongLivedFamily {
    fn put(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let [0, a, b, c] = self.stale_time.to_be_bytes() else {
            return Err(EncodeError::StaleTime(self.stale_time));
        };
        let flags = if self.forwarding_preserved {
            Self::F
        } else {
            0
        };
        out.put_u16(self.family.afi);
        out.put_slice(&[self.family.safi, flags, a, b, c]);
        Ok(())
    }
}

impl GracefulRestart {
    const R: u16 = 0x8000;
    const N: u16 = 0x4000;
    const F: u8 = 0x80;

    fn parse(value: &[u8]) -> Option<GracefulRestart> {
        let (head, families) = value.split_first_chunk::<2>()?;
        let (families, stray) = families.as_chunks::<4>();
        if !stray.is_empty() {
            return None;
        }
        let head = u16::from_be_bytes(*head);
        let families = families
            .iter()
            .map(|&[high, low, safi, flags]| GracefulRestartFamily {
                family: AfiSafi {
                    afi: u16::from_be_bytes([high, low]),
                    safi,
                },
                forwarding_preserved: flags & Self::F != 0,
            });
        Some(GracefulRestart {
            restarting: head & Self::R != 0,
            notification: head & Self::N != 0,
            restart_time: head & Self::MAX_RESTART_TIME,
            families: families.collect(),
        })
    }

    fn put(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        if self.restart_time > Self::MAX_RESTART_TIME {
            return Err(EncodeError::RestartTime(self.restart_time));
        }
        let flag = |set, bit| if set { bit } else { 0 };
        out.put_u16(
            flag(self.restarting, Self::R) | flag(self.notification, Self::N) | self.restart_time,
        );
        for entry in &self.families {
            out.put_u16(entry.family.afi);
            let flags = if entry.forwarding_preserved {
                Self::F
            } else {
                0
            };
            out.put_slice(&[entry.family.safi, flags]);
        }
        Ok(())
    }
}
