//! The agent's configuration: one TOML file, parsed into what cannot be wrong, never changed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bgp::{
    BmpCollector, ExportPolicy, GracefulRestart, MrtConfig, Multipath, PeerConfig, SpeakerConfig,
};
use serde::Deserialize;
use thiserror::Error;

use crate::record::{GroupName, Mac};

/// Where the agent listens for orders unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ccn/agent.sock";
/// Where the agent's configuration is looked for.
pub const DEFAULT_CONFIG: &str = "/etc/ccn/agent.toml";

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown or missing field, or a value of the wrong form.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Names line, column and field.
        source: Box<toml::de::Error>,
    },
    /// Well formed, and makes no sense.
    #[error("{path}: {field}: {reason}")]
    Field {
        /// The file.
        path: PathBuf,
        /// The field at fault, for example `bgp.peer[1].address`.
        field: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
}

/// The agent's configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of this gateway; the host name when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// Group of gateways that serve the same links.
    #[serde(default)]
    pub group: GroupName,
    /// The admin socket.
    #[serde(default = "default_socket")]
    pub admin_socket: PathBuf,
    /// Where records are kept.
    #[serde(default)]
    pub store: StoreConfig,
    /// How packets are forwarded.
    pub plane: PlaneConfig,
    /// Who is peered with.
    pub bgp: BgpConfig,
}

fn default_socket() -> PathBuf {
    PathBuf::from(DEFAULT_SOCKET)
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// The file of the embedded store.
    #[serde(default = "default_store")]
    pub path: PathBuf,
}

fn default_store() -> PathBuf {
    PathBuf::from("/var/lib/ccn/store.redb")
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig {
            path: default_store(),
        }
    }
}

/// Which plane to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaneKind {
    /// The best one that kernel and privileges allow.
    #[default]
    Auto,
    /// Kernel routes with encapsulation: up to 256 VNIs and 50,000 VMs.
    Routes,
}

/// `[plane]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaneConfig {
    /// Which plane.
    #[serde(default)]
    pub kind: PlaneKind,
    /// Underlay address that hypervisors send VXLAN to.
    pub vtep: IpAddr,
    /// Interfaces on the IDC side.
    pub idc_interfaces: Vec<String>,
    /// Name of the VXLAN device that the plane makes, 1..=15 characters.
    #[serde(default = "default_device")]
    pub device: String,
    /// MAC of that device: what VMs use as their gateway's MAC.
    #[serde(default = "default_mac")]
    pub mac: Mac,
    /// UDP port of VXLAN (RFC 7348).
    #[serde(default = "default_port")]
    pub port: u16,
    /// Largest inner packet in bytes, 1280..=9000: the underlay's MTU less 50 (IPv4) or 70 (IPv6).
    #[serde(default = "default_mtu")]
    pub mtu: u32,
    /// Route protocol number that marks routes and rules as ours, 5..=255.
    #[serde(default = "default_protocol")]
    pub protocol: u8,
    /// Seconds between two comparisons of the whole kernel state with what it should be; 0: never.
    #[serde(default = "default_audit", rename = "audit_interval_s")]
    pub audit_interval: u64,
}

fn default_device() -> String {
    "ccn0".to_owned()
}

fn default_mac() -> Mac {
    Mac::GATEWAY
}

fn default_port() -> u16 {
    4789
}

fn default_mtu() -> u32 {
    1450
}

fn default_protocol() -> u8 {
    77
}

fn default_audit() -> u64 {
    60
}

/// `[bgp]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BgpConfig {
    /// Our AS number, 1..=4294967295.
    pub asn: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Where to listen; empty to only connect.
    #[serde(default)]
    pub listen: Vec<SocketAddr>,
    /// How long routers are asked to keep our routes while the agent is away, 0..=4095 s (RFC 4724).
    #[serde(default = "default_restart_time")]
    pub restart_time_s: u16,
    /// Most next hops of one learned prefix.
    #[serde(default = "default_max_paths")]
    pub max_paths: usize,
    /// How long forwarding outlives the moment at which every peer has a withdrawal, in ms.
    #[serde(default = "default_drain")]
    pub drain_ms: u64,
    /// Monitoring stations that are told sessions and routes over BMP (RFC 7854).
    #[serde(default)]
    pub bmp: Vec<BmpCollector>,
    /// A log of what routers say, as MRT files (RFC 6396); absent: none.
    #[serde(default)]
    pub mrt: Option<MrtConfig>,
    /// The routers.
    #[serde(default, rename = "peer")]
    pub peers: Vec<PeerConfig>,
}

fn default_restart_time() -> u16 {
    120
}

fn default_max_paths() -> usize {
    16
}

fn default_drain() -> u64 {
    500
}

impl BgpConfig {
    /// What the speaker is told. `adopted`: forwarding state of an earlier run goes on forwarding,
    /// so this is a restart as graceful restart means it (RFC 4724).
    #[must_use]
    pub fn speaker(&self, adopted: bool) -> SpeakerConfig {
        // A gateway says what it is linked with and passes nothing on.
        let announcing_own = |peer: &PeerConfig| PeerConfig {
            export: ExportPolicy::Local,
            ..peer.clone()
        };
        SpeakerConfig {
            listen: self.listen.clone(),
            multipath: Multipath {
                max_paths: self.max_paths,
                relax: true,
            },
            graceful_restart: Some(GracefulRestart {
                restart_time: self.restart_time(),
                forwarding_preserved: adopted,
                restarting: adopted,
            }),
            bmp: self.bmp.clone(),
            mrt: self.mrt.clone(),
            peers: self.peers.iter().map(announcing_own).collect(),
            ..SpeakerConfig::new(self.asn, self.router_id)
        }
    }

    /// See [`BgpConfig::drain_ms`].
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }

    /// See [`BgpConfig::restart_time_s`].
    #[must_use]
    pub fn restart_time(&self) -> Duration {
        Duration::from_secs(u64::from(self.restart_time_s))
    }
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// Names the file, and the line or field at fault.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Config::parse(&text, path)
    }

    /// Parses and checks a configuration; `path` only names it in errors.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let config: Config = toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        match config.first_fault() {
            None => Ok(config),
            Some((field, reason)) => Err(ConfigError::Field {
                path: path.to_owned(),
                field,
                reason,
            }),
        }
    }

    /// The first field that is well formed and wrong all the same.
    fn first_fault(&self) -> Option<(String, String)> {
        let fault = |field: &str, reason: String| Some((field.to_owned(), reason));
        let plane = &self.plane;
        if plane.vtep.is_unspecified() || plane.vtep.is_multicast() {
            return fault(
                "plane.vtep",
                format!("{} is no address of a host", plane.vtep),
            );
        }
        if plane.idc_interfaces.is_empty() {
            return fault(
                "plane.idc_interfaces",
                "name at least one interface".to_owned(),
            );
        }
        for name in plane.idc_interfaces.iter().chain([&plane.device]) {
            if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
                return fault(
                    "plane",
                    format!("{name:?} is no name of a network interface"),
                );
            }
        }
        if plane.idc_interfaces.contains(&plane.device) {
            return fault(
                "plane.device",
                "is also listed in plane.idc_interfaces".to_owned(),
            );
        }
        if !(1280..=9000).contains(&plane.mtu) {
            return fault("plane.mtu", format!("{} is outside 1280..=9000", plane.mtu));
        }
        if plane.protocol < 5 {
            return fault(
                "plane.protocol",
                format!("{} belongs to the kernel; choose 5..=255", plane.protocol),
            );
        }
        if self.bgp.restart_time_s > 4095 {
            let reason = format!("{} is over 4095 s (RFC 4724)", self.bgp.restart_time_s);
            return fault("bgp.restart_time_s", reason);
        }
        if let Some(peer) = self
            .bgp
            .peers
            .iter()
            .find(|peer| peer.export != ExportPolicy::None)
        {
            let reason = format!(
                "peer {} has an export policy: a gateway announces its links, leave it out",
                peer.name
            );
            return fault("bgp.peer", reason);
        }
        match self.bgp.speaker(false).check() {
            Ok(()) => None,
            Err(error) => fault("bgp", error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[plane]
vtep = "172.16.0.1"
idc_interfaces = ["idc0"]

[bgp]
asn = 65001
router_id = "10.99.0.1"
listen = ["10.99.0.1:179"]

[[bgp.peer]]
name = "idc-bird"
address = "10.99.0.2"
asn = 65002
next_hop_v6 = "fd99::1"
import = [{ permit = "10.80.0.0/16", le = 24 }, { permit = "fd80::/16", le = 64 }]
"#;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("agent.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_smallest_useful_file_has_sensible_defaults() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.admin_socket, Path::new(DEFAULT_SOCKET));
        assert_eq!(config.plane.mtu, 1450);
        assert_eq!(config.plane.mac, Mac::GATEWAY);
        let speaker = config.bgp.speaker(true);
        assert_eq!(
            speaker.peers[0].export,
            ExportPolicy::Local,
            "our links, and nothing else"
        );
        assert!(speaker.graceful_restart.unwrap().restarting);
        assert!(speaker.multipath.relax);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        let table = [
            ("asn = 65001", "asn = 0", "asn"),
            ("asn = 65002", "asn = 23456", "idc-bird"),
            ("asn = 65001", "asn = 65001\nlocal = 1", "local"),
            (
                "[plane]",
                "[plane]\nmtu = 100",
                "plane.mtu: 100 is outside 1280..=9000",
            ),
            (
                "[plane]",
                "[plane]\nprotocol = 2",
                "plane.protocol: 2 belongs to the kernel",
            ),
            ("[plane]", "[plane]\nkind = \"xdp\"", "xdp"),
            (
                "[plane]",
                "[plane]\nmac = \"01:00:00:00:00:00\"",
                "multicast",
            ),
            ("\"172.16.0.1\"", "\"0.0.0.0\"", "plane.vtep"),
            ("[\"idc0\"]", "[]", "plane.idc_interfaces"),
            ("[\"idc0\"]", "[\"ccn0\"]", "plane.device"),
            (
                "[\"idc0\"]",
                "[\"a-name-that-is-too-long\"]",
                "no name of a network interface",
            ),
            ("10.80.0.0/16", "10.80.0.1/16", "10.80.0.1/16"),
            ("le = 24", "le = 8", "le 8"),
            ("asn = 65002", "asn = 65002\nhold_time = 2", "hold_time"),
            ("asn = 65002", "asn = 65002\nexport = \"all\"", "export"),
            (
                "[bgp]",
                "[bgp]\nrestart_time_s = 5000",
                "bgp.restart_time_s",
            ),
            ("[bgp]", "[bgp]\nmax_paths = 0", "max_paths"),
            ("\"10.99.0.2\"", "\"10.99.0.300\"", "line 1"),
        ];
        for (good, bad, named) in table {
            let text = GOOD.replacen(good, bad, 1);
            assert_ne!(text, GOOD, "{good} is in the file");
            let error = parse(&text).expect_err(bad);
            assert!(
                error.contains(named),
                "{bad:?} gives {error:?}, which does not name {named:?}"
            );
            assert!(error.starts_with("agent.toml: "), "{error}");
        }
    }
}
