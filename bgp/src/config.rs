//! What a speaker is told: who it is, whom it peers with, and under what terms.
//!
//! Plain data that can be built in code or read by serde (TOML in mind, so every error names the
//! field). [`SpeakerConfig::check`] finds what no single field can show.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::wire::attribute::AS_TRANS;

mod aggregate;
mod as_path;
mod bfd;
mod bmp;
mod capabilities;
mod change;
mod dynamic;
mod intercept;
mod interface;
mod max_prefixes;
mod mrt;
mod name;
mod peer;
mod seconds;
mod security;

pub use aggregate::Aggregate;
pub use as_path::AsPathChecks;
pub use bfd::{BfdAuth, BfdAuthMethod, BfdConfig};
pub use bmp::BmpCollector;
pub use capabilities::{AddPath, Capabilities};
pub use change::Effect;
pub use dynamic::{DynamicAsn, DynamicPeers, MAX_DYNAMIC};
pub use interface::{InterfaceName, InterfaceNameError, is_link_local};
pub use max_prefixes::{LimitAction, MaxPrefixes, PrefixLimit};
pub use mrt::MrtConfig;
pub use name::{PeerName, PeerNameError};
pub use peer::PeerConfig;
pub use security::{AoAlgorithm, Hops, TcpAo};

use seconds::seconds;

/// The port of BGP (RFC 4271 section 4).
pub const BGP_PORT: u16 = 179;
/// Most next hops a prefix may have.
pub const MAX_PATHS: usize = 256;
/// The longest restart time that fits the capability (RFC 4724 section 3).
pub const MAX_RESTART_TIME: Duration = Duration::from_secs(4095);
const AS_TRANS_U32: u32 = AS_TRANS as u32;

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
    /// Whether the user says which next hops of learned routes can be reached
    /// ([`Speaker::set_next_hops`](crate::Speaker::set_next_hops)): paths by way of others are not
    /// used (RFC 4271 section 9.1.2). Without it all are taken to be reachable.
    #[serde(default)]
    pub track_next_hops: bool,
    /// Routes that stand for the announced ones inside them.
    #[serde(default)]
    pub aggregate: Vec<Aggregate>,
    /// Monitoring stations that are told everything over BMP.
    #[serde(default)]
    pub bmp: Vec<BmpCollector>,
    /// What peers say, kept as MRT files.
    #[serde(default)]
    pub mrt: Option<MrtConfig>,
    /// The peers.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
    /// Peers that are known by the prefix they connect from.
    #[serde(default)]
    pub dynamic: Vec<DynamicPeers>,
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
    /// A field of a group of dynamic peers.
    #[error("dynamic {group}: {reason}")]
    Dynamic {
        /// The group at fault.
        group: PeerName,
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
    /// A speaker without peers, which listens nowhere and does not offer graceful restart.
    pub fn new(asn: u32, router_id: Ipv4Addr) -> SpeakerConfig {
        SpeakerConfig {
            asn,
            router_id,
            listen: Vec::new(),
            multipath: Multipath::default(),
            graceful_restart: None,
            track_next_hops: false,
            aggregate: Vec::new(),
            bmp: Vec::new(),
            mrt: None,
            peers: Vec::new(),
            dynamic: Vec::new(),
        }
    }

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
        bmp::check(&self.bmp).or_else(|reason| fault("bmp", reason))?;
        if let Some(mrt) = &self.mrt {
            mrt.check().or_else(|reason| fault("mrt", reason))?;
        }
        aggregate::check(&self.aggregate).or_else(|reason| fault("aggregate", reason))?;
        for (index, peer) in self.peers.iter().enumerate() {
            peer.check().map_err(|reason| ConfigError::Peer {
                peer: peer.name.clone(),
                reason,
            })?;
            for earlier in &self.peers[..index] {
                if earlier.name == peer.name {
                    return Err(ConfigError::DuplicateName(peer.name.clone()));
                }
                let same_link = !is_link_local(peer.address) || earlier.interface == peer.interface;
                if earlier.address == peer.address && same_link {
                    return Err(ConfigError::DuplicateAddress {
                        address: peer.address,
                        first: earlier.name.clone(),
                        second: peer.name.clone(),
                    });
                }
            }
        }
        for (index, group) in self.dynamic.iter().enumerate() {
            let fault = |reason| ConfigError::Dynamic {
                group: group.template.name.clone(),
                reason,
            };
            group.check(self.asn).map_err(fault)?;
            for earlier in &self.dynamic[..index] {
                if earlier.template.name == group.template.name {
                    return Err(ConfigError::DuplicateName(group.template.name.clone()));
                }
                let same_link = earlier.template.interface == group.template.interface
                    || !is_link_local(group.prefix.addr());
                if earlier.prefix == group.prefix && same_link {
                    let other = &earlier.template.name;
                    return Err(fault(format!("prefix {} is that of {other}", group.prefix)));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Family;

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
               "interface":"eth0","password_file":"/etc/ccn/idc1.key","ttl_security":1,
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
            (r#","local_asn":0"#, "local_asn 0 is reserved"),
            (r#","local_asn":65002"#, "local_asn is the peer's own asn"),
            (r#","allow_own_as":11"#, "allow_own_as must be at most 10"),
            (r#","send_hold_time":9"#, "send_hold_time must be longer"),
            (r#","ttl_security":1,"multihop":2"#, "exclude each other"),
            (r#","ttl_security":255"#, "ttl_security must be 1 to 254"),
            (r#","ttl_security":0"#, "ttl_security must be 1 to 254"),
            (r#","multihop":0"#, "multihop must be 1 to 255"),
            (r#","multihop":256"#, "256"),
            (
                r#","password_file":"/k","tcp_ao":{"key_file":"/k","key_id":1,"recv_id":1}"#,
                "exclude each other",
            ),
            (
                r#","tcp_ao":{"key_file":"/k","key_id":1,"recv_id":1,"algorithm":"md5"}"#,
                "hmac-sha-1-96",
            ),
            (r#","interface":"a/b""#, "cannot name an interface"),
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
                speaker(
                    1,
                    "10.0.0.1",
                    r#","aggregate":[{"prefix":"10.0.0.0/8"},{"prefix":"10.0.0.0/8"}]"#,
                    &[],
                ),
                "aggregate: 10.0.0.0/8 is there twice",
            ),
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
