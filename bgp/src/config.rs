//! What a speaker is told: who it is, whom it peers with, and under what terms.
//!
//! Plain data that can be built in code or read by serde (TOML in mind, so every error names the
//! field). [`SpeakerConfig::check`] finds what no single field can show.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::policy::{ExportPolicy, ImportPolicy};
use crate::wire::attribute::AS_TRANS;
use crate::wire::prefix::Family;

/// The port of BGP (RFC 4271 section 4).
pub const BGP_PORT: u16 = 179;
/// Most next hops a prefix may have.
pub const MAX_PATHS: usize = 256;
/// The longest restart time that fits the capability (RFC 4724 section 3).
pub const MAX_RESTART_TIME: Duration = Duration::from_secs(4095);

/// The name of a peer: 1 to 64 printable ASCII characters without spaces. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(Arc<str>);

/// A text that cannot name a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot name a peer: expected 1 to 64 printable characters without spaces")]
pub struct PeerNameError(pub String);

impl PeerName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for PeerName {
    type Error = PeerNameError;

    fn try_from(text: &str) -> Result<Self, PeerNameError> {
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic());
        fits.then(|| PeerName(text.into()))
            .ok_or_else(|| PeerNameError(text.to_owned()))
    }
}

impl std::str::FromStr for PeerName {
    type Err = PeerNameError;

    fn from_str(text: &str) -> Result<Self, PeerNameError> {
        PeerName::try_from(text)
    }
}

impl Borrow<str> for PeerName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for PeerName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for PeerName {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for PeerName {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for PeerName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PeerName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        PeerName::try_from(text.as_ref()).map_err(de::Error::custom)
    }
}

/// Everything a [`Speaker`](crate::Speaker) needs to start.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeakerConfig {
    /// Our AS number, not 0 (RFC 7607) nor 23456 (RFC 6793).
    pub asn: u32,
    /// Our BGP identifier, not 0.0.0.0 (RFC 6286).
    pub router_id: Ipv4Addr,
    /// Where to accept connections; empty to only connect.
    #[serde(default)]
    pub listen: Vec<SocketAddr>,
    /// When a prefix gets several next hops.
    #[serde(default)]
    pub multipath: Multipath,
    /// Graceful restart as the speaker that restarts (RFC 4724); absent: not offered.
    #[serde(default)]
    pub graceful_restart: Option<GracefulRestart>,
    /// The peers.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
}

/// When equally good paths of external peers are used together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Multipath {
    /// Most paths of one prefix, 1..=256; 1 switches multipath off.
    pub max_paths: usize,
    /// Whether the paths may go through different ASes, as long as they are equally long.
    pub relax: bool,
}

impl Default for Multipath {
    fn default() -> Self {
        Multipath {
            max_paths: 16,
            relax: false,
        }
    }
}

/// Graceful restart as the restarting speaker (RFC 4724).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GracefulRestart {
    /// How long peers keep our routes while we are away, at most 4095 s. In TOML: seconds.
    #[serde(deserialize_with = "seconds")]
    pub restart_time: Duration,
    /// The F bit: forwarding goes on while we are away. Claim it only when that is true.
    #[serde(default)]
    pub forwarding_preserved: bool,
    /// The R bit: this start is a restart. Routes and End-of-RIB are then held back until
    /// [`initial_routes_complete`](crate::Speaker::initial_routes_complete).
    #[serde(default)]
    pub restarting: bool,
}

/// One configured peer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// What to call it, unique.
    pub name: PeerName,
    /// Its address, unique: connections from elsewhere are closed at once.
    pub address: IpAddr,
    /// The port to connect to.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Its AS number. Ours: an internal peer, otherwise an external one.
    pub asn: u32,
    /// The address to connect from; the kernel chooses when absent.
    #[serde(default)]
    pub local_address: Option<IpAddr>,
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
    /// How long to let the peer send its OPEN first (RFC 4271 section 8.1.1, DelayOpen); absent:
    /// we do not wait. In TOML: seconds.
    #[serde(default, deserialize_with = "maybe_seconds")]
    pub delay_open: Option<Duration>,
    /// The families to exchange, at least one.
    #[serde(default = "default_families")]
    pub families: Vec<Family>,
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
            local_address: None,
            passive: false,
            hold_time: default_hold_time(),
            connect_retry: default_connect_retry(),
            idle_hold: default_idle_hold(),
            idle_hold_max: default_idle_hold_max(),
            delay_open: None,
            families: default_families(),
            import: ImportPolicy::None,
            export: ExportPolicy::None,
            next_hop_v4: None,
            next_hop_v6: None,
        }
    }

    fn check(&self) -> Result<(), String> {
        let host = |address: IpAddr| !address.is_unspecified() && !address.is_multicast();
        if !host(self.address) {
            return Err(format!("address {} is no address of a host", self.address));
        }
        if let IpAddr::V6(address) = self.address
            && address.is_unicast_link_local()
        {
            return Err(format!(
                "address {address} is link-local and says nothing about the interface: use a \
                 global or unique-local address"
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
        if matches!(self.asn, 0 | AS_TRANS_U32) {
            return Err(format!("asn {} is reserved", self.asn));
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

const AS_TRANS_U32: u32 = AS_TRANS as u32;
const HOLD_TIME: &str = "hold_time must be 0, or 3 to 65535 seconds (RFC 4271 section 4.2)";
// Long enough for anybody, short enough that arithmetic on instants never overflows.
const MAX_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A field of the speaker itself.
    #[error("{field}: {reason}")]
    Speaker {
        /// The field at fault.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A field of a peer.
    #[error("peer {peer}: {reason}")]
    Peer {
        /// The peer at fault.
        peer: PeerName,
        /// Field, and what is wrong with it.
        reason: String,
    },
    /// Two peers of one name.
    #[error("peer {0} is configured twice")]
    DuplicateName(PeerName),
    /// Two peers at one address: an incoming connection could not be told apart.
    #[error("peers {first} and {second} have the same address {address}")]
    DuplicateAddress {
        /// The address.
        address: IpAddr,
        /// The peer that had it first.
        first: PeerName,
        /// The other one.
        second: PeerName,
    },
}

impl SpeakerConfig {
    /// Checks what no single field shows.
    ///
    /// # Errors
    /// The first fault, by field or by peer.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fault = |field, reason: String| Err(ConfigError::Speaker { field, reason });
        if matches!(self.asn, 0 | AS_TRANS_U32) {
            return fault("asn", format!("{} is reserved", self.asn));
        }
        if self.router_id.is_unspecified() {
            return fault(
                "router_id",
                "0.0.0.0 is no BGP identifier (RFC 6286)".to_owned(),
            );
        }
        if !(1..=MAX_PATHS).contains(&self.multipath.max_paths) {
            return fault("multipath.max_paths", format!("must be 1..={MAX_PATHS}"));
        }
        if let Some(restart) = self.graceful_restart
            && restart.restart_time > MAX_RESTART_TIME
        {
            let reason = format!("must be at most {} s", MAX_RESTART_TIME.as_secs());
            return fault("graceful_restart.restart_time", reason);
        }
        for (index, peer) in self.peers.iter().enumerate() {
            peer.check().map_err(|reason| ConfigError::Peer {
                peer: peer.name.clone(),
                reason,
            })?;
            for earlier in &self.peers[..index] {
                if earlier.name == peer.name {
                    return Err(ConfigError::DuplicateName(peer.name.clone()));
                }
                if earlier.address == peer.address {
                    return Err(ConfigError::DuplicateAddress {
                        address: peer.address,
                        first: earlier.name.clone(),
                        second: peer.name.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}

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

/// A duration written as a number of seconds, whole or not.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| *duration <= MAX_PAUSE)
        .ok_or_else(|| {
            de::Error::custom(format!(
                "{seconds} is no number of seconds in 0..={}",
                MAX_PAUSE.as_secs()
            ))
        })
}

fn maybe_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    seconds(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<SpeakerConfig, String> {
        let config: SpeakerConfig =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    fn with_peer(fields: &str) -> Result<SpeakerConfig, String> {
        config(&format!(
            r#"{{"asn":65001,"router_id":"10.0.0.1",
                "peers":[{{"name":"idc1","address":"10.99.0.2","asn":65002{fields}}}]}}"#
        ))
    }

    #[test]
    fn a_peer_needs_a_name_an_address_and_an_as() {
        let config = with_peer("").unwrap();
        let name = PeerName::try_from("idc1").unwrap();
        let expected = PeerConfig::new(name, "10.99.0.2".parse().unwrap(), 65002);
        assert_eq!(config.peers, [expected]);
        assert_eq!(
            config.multipath,
            Multipath {
                max_paths: 16,
                relax: false
            }
        );
        assert_eq!((config.peers[0].port, config.peers[0].hold_time), (179, 9));
    }

    #[test]
    fn every_field_reads() {
        let config = with_peer(
            r#","port":1179,"local_address":"10.99.0.1","passive":true,"hold_time":0,
               "connect_retry":2.5,"idle_hold":1,"idle_hold_max":8,"delay_open":3,
               "families":["ipv6"],"import":"all","export":{"local":[]},
               "next_hop_v4":"10.99.0.1","next_hop_v6":"fd99::1""#,
        )
        .unwrap();
        let peer = &config.peers[0];
        assert_eq!(peer.connect_retry, Duration::from_millis(2500));
        assert_eq!(peer.delay_open, Some(Duration::from_secs(3)));
        assert_eq!(peer.families, [Family::Ipv6Unicast]);
        assert!(peer.passive && peer.hold_time == 0);
    }

    #[test]
    fn faults_of_a_peer_name_the_field() {
        for (fields, reason) in [
            (r#","hold_time":2"#, "hold_time must be 0, or 3 to 65535"),
            (r#","connect_retry":0"#, "connect_retry must be over 0"),
            (r#","connect_retry":-1"#, "-1 is no number of seconds"),
            (r#","connect_retry":1e30"#, "no number of seconds"),
            (
                r#","idle_hold":9,"idle_hold_max":3"#,
                "idle_hold exceeds idle_hold_max",
            ),
            (r#","families":[]"#, "at least one"),
            (r#","families":["ipv4","ipv4"]"#, "at most once"),
            (r#","families":["vpnv4"]"#, "unknown address family"),
            (
                r#","local_address":"fd99::1""#,
                "local_address fd99::1 cannot reach 10.99.0.2",
            ),
            (r#","next_hop_v4":"224.0.0.1""#, "next_hop_v4"),
            (r#","next_hop_v6":"fe80::1""#, "next_hop_v6"),
            (r#","port":0"#, "port"),
            (r#","holdtime":9"#, "unknown field `holdtime`"),
        ] {
            let error = with_peer(fields).unwrap_err();
            assert!(error.contains(reason), "{fields}: {error}");
        }
    }

    #[test]
    fn faults_of_the_speaker_name_the_field() {
        let peer = |name: &str, address: &str, asn: u32| {
            format!(r#"{{"name":"{name}","address":"{address}","asn":{asn}}}"#)
        };
        let speaker = |asn: u32, router_id: &str, rest: &str, peers: &[String]| {
            let peers = peers.join(",");
            config(&format!(
                r#"{{"asn":{asn},"router_id":"{router_id}"{rest},"peers":[{peers}]}}"#
            ))
            .unwrap_err()
        };
        for (error, reason) in [
            (speaker(0, "10.0.0.1", "", &[]), "asn: 0 is reserved"),
            (
                speaker(23456, "10.0.0.1", "", &[]),
                "asn: 23456 is reserved",
            ),
            (speaker(1, "0.0.0.0", "", &[]), "router_id: 0.0.0.0"),
            (
                speaker(1, "10.0.0.1", r#","multipath":{"max_paths":0}"#, &[]),
                "multipath.max_paths",
            ),
            (
                speaker(
                    1,
                    "10.0.0.1",
                    r#","graceful_restart":{"restart_time":4096}"#,
                    &[],
                ),
                "graceful_restart.restart_time: must be at most 4095 s",
            ),
            (
                speaker(
                    1,
                    "10.0.0.1",
                    "",
                    &[peer("a", "10.0.0.2", 2), peer("a", "10.0.0.3", 2)],
                ),
                "peer a is configured twice",
            ),
            (
                speaker(
                    1,
                    "10.0.0.1",
                    "",
                    &[peer("a", "10.0.0.2", 2), peer("b", "10.0.0.2", 2)],
                ),
                "peers a and b have the same address 10.0.0.2",
            ),
            (
                speaker(1, "10.0.0.1", "", &[peer("a", "0.0.0.0", 2)]),
                "peer a: address 0.0.0.0",
            ),
            (
                speaker(1, "10.0.0.1", "", &[peer("a", "fe80::1", 2)]),
                "link-local",
            ),
            (
                speaker(1, "10.0.0.1", "", &[peer("a", "10.0.0.2", 0)]),
                "peer a: asn 0 is reserved",
            ),
            (
                speaker(1, "10.0.0.1", "", &[peer("a b", "10.0.0.2", 2)]),
                "cannot name a peer",
            ),
            (
                speaker(1, "10.0.0.1", "", &[peer("", "10.0.0.2", 2)]),
                "cannot name a peer",
            ),
        ] {
            assert!(error.contains(reason), "{reason:?} expected, got: {error}");
        }
    }
}
