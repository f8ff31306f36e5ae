//! What is to be known of one peer, and what is wrong with it.
//!
//! Topics with types of their own have a file of their own beside this one.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer};

use super::as_path::AsPathChecks;
use super::bfd::{self, BfdConfig};
use super::capabilities::Capabilities;
use super::intercept::intercept;
use super::interface::{InterfaceName, Zone, is_link_local};
use super::max_prefixes::MaxPrefixes;
use super::seconds::{MAX_PAUSE, maybe_seconds, seconds};
use super::security::TcpAo;
use super::{AS_TRANS_U32, BGP_PORT, PeerName};
use crate::policy::{ExportPolicy, ImportPolicy};
use crate::wire::Role;
use crate::wire::capability::LongLivedFamily;
use crate::wire::prefix::Family;

/// One configured peer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct PeerConfig {
    /// What to call it, unique.
    pub name: PeerName,
    /// Its address, unique: connections from elsewhere are closed at once. In TOML a link-local
    /// one may have its interface behind it: `"fe80::2%eth0"`.
    pub address: IpAddr,
    /// The port to connect to.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Its AS number. Ours: an internal peer, otherwise an external one.
    pub asn: u32,
    /// The AS number to be towards this peer in place of the speaker's own.
    #[serde(default)]
    pub local_asn: Option<u32>,
    /// How often our own AS may be in the path of a route that is taken, at most 10.
    #[serde(default)]
    pub allow_own_as: u8,
    /// Whether to take private AS numbers (RFC 6996) out of the paths that it is told.
    #[serde(default)]
    pub remove_private_as: bool,
    /// The address to connect from; the kernel chooses when absent.
    #[serde(default)]
    pub local_address: Option<IpAddr>,
    /// The interface towards it: the connection uses no other one. Needed with a link-local
    /// address.
    #[serde(default)]
    pub interface: Option<InterfaceName>,
    /// The file with the password of TCP-MD5 (RFC 2385): at most 80 octets, without its last
    /// newline, and not readable by everybody. Read at start and on reload.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Authentication by TCP-AO (RFC 5925), where the kernel has it.
    #[serde(default)]
    pub tcp_ao: Option<TcpAo>,
    /// Drop what comes from more hops away than this, 1 to 254 (RFC 5082, GTSM). Both sides must
    /// have it: packets then leave with TTL 255.
    #[serde(default)]
    pub ttl_security: Option<u8>,
    /// How many hops an external peer may be away, 1 to 255. It must be on the link otherwise.
    #[serde(default)]
    pub multihop: Option<u8>,
    /// BFD: the session is ended at once when the path to the peer fails. `true`, or a table.
    #[serde(default, deserialize_with = "bfd::switch")]
    pub bfd: Option<BfdConfig>,
    /// Whether to wait for the peer to connect.
    #[serde(default)]
    pub passive: bool,
    /// The hold time to propose, in seconds: 0 (no keepalives), or 3 and more.
    #[serde(default = "default_hold_time", deserialize_with = "hold_time")]
    pub hold_time: u16,
    /// Pause between two attempts to connect, shortened at random by up to a quarter
    /// (RFC 4271 section 10). In TOML: seconds.
    #[serde(default = "default_connect_retry", deserialize_with = "seconds")]
    pub connect_retry: Duration,
    /// Pause after a session failed, doubled each time up to `idle_hold_max`
    /// (RFC 4271 section 8.1.1, DampPeerOscillations). In TOML: seconds.
    #[serde(default = "default_idle_hold", deserialize_with = "seconds")]
    pub idle_hold: Duration,
    /// The longest such pause. In TOML: seconds.
    #[serde(default = "default_idle_hold_max", deserialize_with = "seconds")]
    pub idle_hold_max: Duration,
    /// How long the peer may read nothing of what we send before the session ends (RFC 9687);
    /// absent: 8 minutes, or twice the hold time in use if that is longer. In TOML: seconds.
    #[serde(default, deserialize_with = "maybe_seconds")]
    pub send_hold_time: Option<Duration>,
    /// How long to let the peer send its OPEN first (RFC 4271 section 8.1.1, DelayOpen); absent:
    /// we do not wait. In TOML: seconds.
    #[serde(default, deserialize_with = "maybe_seconds")]
    pub delay_open: Option<Duration>,
    /// The families to exchange, at least one.
    #[serde(default = "default_families")]
    pub families: Vec<Family>,
    /// What the AS paths of its routes must look like.
    #[serde(default)]
    pub as_path: AsPathChecks,
    /// What is offered to it beside the families.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// What we are to it (RFC 9234); absent: nothing is said and nothing checked.
    #[serde(default)]
    pub role: Option<Role>,
    /// Whether it must say what it is to us (RFC 9234 section 4.2).
    #[serde(default)]
    pub role_strict: bool,
    /// How many routes it may tell us.
    #[serde(default)]
    pub max_prefixes: MaxPrefixes,
    /// Which of its routes are taken.
    #[serde(default)]
    pub import: ImportPolicy,
    /// Which routes it is told.
    #[serde(default)]
    pub export: ExportPolicy,
    /// Our IPv4 next hop in what it is told; absent: our address of the session, if that is IPv4.
    #[serde(default)]
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Our IPv6 next hop in what it is told; absent: our address of the session, if that is IPv6.
    #[serde(default)]
    pub next_hop_v6: Option<Ipv6Addr>,
}

impl PeerConfig {
    /// A peer with default terms, which imports and exports nothing (RFC 8212).
    pub fn new(name: PeerName, address: IpAddr, asn: u32) -> PeerConfig {
        PeerConfig {
            name,
            address,
            port: default_port(),
            asn,
            local_asn: None,
            allow_own_as: 0,
            remove_private_as: false,
            local_address: None,
            interface: None,
            password_file: None,
            tcp_ao: None,
            ttl_security: None,
            multihop: None,
            bfd: None,
            passive: false,
            hold_time: default_hold_time(),
            connect_retry: default_connect_retry(),
            idle_hold: default_idle_hold(),
            idle_hold_max: default_idle_hold_max(),
            send_hold_time: None,
            delay_open: None,
            families: default_families(),
            as_path: AsPathChecks::default(),
            capabilities: Capabilities::default(),
            role: None,
            role_strict: false,
            max_prefixes: MaxPrefixes::default(),
            import: ImportPolicy::None,
            export: ExportPolicy::None,
            next_hop_v4: None,
            next_hop_v6: None,
        }
    }

    /// Where its connections come from: its address, and the interface if that is link-local.
    pub fn source(&self) -> (IpAddr, Option<InterfaceName>) {
        let link = self.interface.clone();
        (self.address, link.filter(|_| is_link_local(self.address)))
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let host = |address: IpAddr| !address.is_unspecified() && !address.is_multicast();
        if !host(self.address) {
            return Err(format!("address {} is no address of a host", self.address));
        }
        if is_link_local(self.address) && self.interface.is_none() {
            return Err(format!(
                "address {0} is link-local and says nothing about the interface: set interface as \
                 well, for example interface = \"eth0\"",
                self.address
            ));
        }
        if let Some(local) = self.local_address
            && (!host(local) || local.is_ipv4() != self.address.is_ipv4())
        {
            return Err(format!(
                "local_address {local} cannot reach {}",
                self.address
            ));
        }
        self.check_security()?;
        self.check_bfd()?;
        if matches!(self.asn, 0 | AS_TRANS_U32) {
            return Err(format!("asn {} is reserved", self.asn));
        }
        self.max_prefixes.check()?;
        let stale = self.capabilities.long_lived_stale_time;
        if stale.as_secs() > u64::from(LongLivedFamily::MAX_STALE_TIME) {
            return Err(format!(
                "capabilities.long_lived_stale_time must be at most {} s",
                LongLivedFamily::MAX_STALE_TIME
            ));
        }
        if self.role_strict && self.role.is_none() {
            return Err("role_strict needs a role".to_owned());
        }
        if let Some(local @ (0 | AS_TRANS_U32)) = self.local_asn {
            return Err(format!("local_asn {local} is reserved"));
        }
        if self.local_asn == Some(self.asn) {
            return Err("local_asn is the peer's own asn: an internal peer needs none".to_owned());
        }
        if self.allow_own_as > MAX_OWN_AS {
            return Err(format!("allow_own_as must be at most {MAX_OWN_AS}"));
        }
        let least = Duration::from_secs(u64::from(self.hold_time));
        if self.send_hold_time.is_some_and(|time| time <= least) {
            return Err("send_hold_time must be longer than hold_time (RFC 9687)".to_owned());
        }
        if self.port == 0 {
            return Err("port must not be 0".to_owned());
        }
        if matches!(self.hold_time, 1 | 2) {
            return Err(HOLD_TIME.to_owned());
        }
        for (field, value) in [
            ("connect_retry", Some(self.connect_retry)),
            ("idle_hold", Some(self.idle_hold)),
            ("idle_hold_max", Some(self.idle_hold_max)),
            ("delay_open", self.delay_open),
            ("send_hold_time", self.send_hold_time),
        ] {
            if value.is_some_and(|value| value.is_zero() || value > MAX_PAUSE) {
                return Err(format!("{field} must be over 0 and at most {MAX_PAUSE:?}"));
            }
        }
        if self.idle_hold > self.idle_hold_max {
            return Err("idle_hold exceeds idle_hold_max".to_owned());
        }
        let distinct: HashSet<_> = self.families.iter().collect();
        if self.families.is_empty() || distinct.len() != self.families.len() {
            return Err("families must name each family at most once, and at least one".to_owned());
        }
        if self
            .next_hop_v4
            .is_some_and(|next_hop| !host(next_hop.into()))
        {
            return Err("next_hop_v4 is no address of a host".to_owned());
        }
        if self
            .next_hop_v6
            .is_some_and(|hop| !host(hop.into()) || hop.is_unicast_link_local())
        {
            return Err("next_hop_v6 must be a global or unique-local address".to_owned());
        }
        Ok(())
    }
}

/// A path that our own AS is in more often than this is no path.
const MAX_OWN_AS: u8 = 10;
/// As the derived code reads it.
struct Plain(PeerConfig);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        PeerConfig::deserialize(deserializer).map(Plain)
    }
}

impl<'de> Deserialize<'de> for PeerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        intercept(&mut Zone, deserializer).map(|Plain(peer)| peer)
    }
}

const HOLD_TIME: &str = "hold_time must be 0, or 3 to 65535 seconds (RFC 4271 section 4.2)";

fn default_port() -> u16 {
    BGP_PORT
}

fn default_hold_time() -> u16 {
    9
}

fn default_connect_retry() -> Duration {
    Duration::from_secs(5)
}

fn default_idle_hold() -> Duration {
    Duration::from_secs(1)
}

fn default_idle_hold_max() -> Duration {
    Duration::from_secs(30)
}

fn default_families() -> Vec<Family> {
    Family::ALL.to_vec()
}

fn hold_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    match u16::deserialize(deserializer)? {
        1 | 2 => Err(de::Error::custom(HOLD_TIME)),
        seconds => Ok(seconds),
    }
}
