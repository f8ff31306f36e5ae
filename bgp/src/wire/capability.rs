//! Capabilities of the OPEN message (RFC 5492): typed where known, kept as octets where not.

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

impl Capability {
    /// Code, length and value.
    pub(super) fn put(&self, out: &mut bytes::BytesMut) {
        let _ = out;
        unimplemented!()
    }
}
