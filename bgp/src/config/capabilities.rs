//! What is offered to a peer in the OPEN beside its families, one switch a capability.

use std::time::Duration;

use super::seconds::seconds;

/// Which capabilities are offered. What the peer does not offer as well is not used.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capabilities {
    /// ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// ROUTE-REFRESH with its begin and end marked (RFC 7313).
    pub enhanced_refresh: bool,
    /// AS numbers of 4 octets (RFC 6793).
    pub four_octet_as: bool,
    /// Messages of up to 65535 octets (RFC 8654).
    pub extended_messages: bool,
    /// IPv4 routes with an IPv6 next hop (RFC 8950).
    pub ipv4_next_hop_v6: bool,
    /// Graceful restart (RFC 4724, RFC 8538): the peer's routes are kept while it restarts, and
    /// ours as far as [`GracefulRestart`](super::GracefulRestart) says.
    pub graceful_restart: bool,
    /// How long stale routes are kept after the restart time has run out, at most 16777215 s
    /// (RFC 9494); 0: not offered. In TOML: seconds.
    #[serde(deserialize_with = "seconds")]
    pub long_lived_stale_time: Duration,
    /// Several paths to one prefix (RFC 7911).
    pub add_path: AddPath,
}

impl Default for Capabilities {
    fn default() -> Self {
        Capabilities {
            route_refresh: true,
            enhanced_refresh: true,
            four_octet_as: true,
            extended_messages: true,
            ipv4_next_hop_v6: true,
            graceful_restart: true,
            long_lived_stale_time: Duration::ZERO,
            add_path: AddPath::Off,
        }
    }
}

/// In which direction several paths to a prefix are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddPath {
    /// In none.
    #[default]
    Off,
    /// By us.
    Send,
    /// By the peer.
    Receive,
    /// By both.
    Both,
}

impl AddPath {
    /// Whether we may tell several.
    pub const fn sends(self) -> bool {
        matches!(self, AddPath::Send | AddPath::Both)
    }

    /// Whether we take several.
    pub const fn receives(self) -> bool {
        matches!(self, AddPath::Receive | AddPath::Both)
    }
}
