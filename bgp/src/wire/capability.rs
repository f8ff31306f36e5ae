//! Capabilities of the OPEN message (RFC 5492): typed where known, kept as octets where not.

use bytes::{BufMut, BytesMut};

use crate::wire::error::{EncodeError, OpenError};
use crate::wire::prefix::{AfiSafi, Family};

/// IANA capability codes that are typed here.
pub mod code {
    /// RFC 4760.
    pub const MULTIPROTOCOL: u8 = 1;
    /// RFC 2918.
    pub const ROUTE_REFRESH: u8 = 2;
    /// RFC 4724.
    pub const GRACEFUL_RESTART: u8 = 64;
    /// RFC 6793.
    pub const FOUR_OCTET_AS: u8 = 65;
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
            Capability::Unknown { code, .. } => *code,
        }
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
            (code::MULTIPROTOCOL | code::ROUTE_REFRESH | code::FOUR_OCTET_AS, _) => {
                return Err(malformed);
            }
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
            Capability::Unknown { value, .. } => out.put_slice(value),
        }
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
