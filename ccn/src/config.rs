//! The agent's configuration: one TOML file, parsed into what cannot be wrong, never changed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::record::{GroupName, Mac};

mod apiserver;
mod bgp;
mod store;

pub use apiserver::{ApiConfig, ClientConfig, DEFAULT_API_CONFIG, RequestLimits, TokenConfig};
pub use bgp::BgpConfig;
pub use store::{Endpoint, EtcdConfig, Login, StoreConfig, TlsConfig};

/// Where the agent listens for orders unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ccn/agent.sock";
/// Where the agent's configuration is looked for.
pub const DEFAULT_CONFIG: &str = "/etc/ccn/agent.toml";

/// Who is looked for to have signed the certificates of API servers.
pub const DEFAULT_CA: &str = "/etc/ccn/ca.pem";

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
    /// Where metrics are served; nowhere when absent.
    #[serde(default)]
    pub metrics: Option<MetricsConfig>,
}

fn default_socket() -> PathBuf {
    PathBuf::from(DEFAULT_SOCKET)
}

/// `[metrics]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address and port of `http://ADDRESS:PORT/metrics`, which needs no password.
    pub listen: std::net::SocketAddr,
}

/// Which plane to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaneKind {
    /// The best one that kernel and privileges allow.
    #[default]
    Auto,
    /// Programs at the ingress of the interfaces: the plane for production. Needs root.
    Ebpf,
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
    /// Interfaces that VXLAN of hypervisors comes in by, for the `ebpf` plane: there its programs take packets
    /// off before the host's stack, and so its firewall, sees them, and packets for hypervisors leave without
    /// passing the VXLAN device. Default: the interface that has the address `vtep`, unless that is `lo`. An
    /// empty list: all packets pass the device and the stack. An IPv6 underlay's always do.
    #[serde(default)]
    pub underlay_interfaces: Option<Vec<String>>,
    /// Flows over links of mode `classic-to-vpc` that the `ebpf` plane remembers at a time, 1024..=16,777,216, some
    /// 128 bytes each: when there are more, the one that was silent longest is forgotten.
    #[serde(default = "default_max_flows")]
    pub max_flows: u32,
    /// Where the `ebpf` plane pins its maps: a directory in a BPF file system.
    #[serde(default = "default_bpffs")]
    pub bpffs: PathBuf,
}

impl PlaneConfig {
    /// Whether programs may send and take VXLAN packets past the VXLAN device.
    #[must_use]
    pub fn goes_past_device(&self) -> bool {
        self.vtep.is_ipv4()
            && self
                .underlay_interfaces
                .as_ref()
                .is_none_or(|names| !names.is_empty())
    }
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

fn default_max_flows() -> u32 {
    65_536
}

fn default_bpffs() -> PathBuf {
    PathBuf::from("/sys/fs/bpf/ccn")
}

fn default_audit() -> u64 {
    60
}

/// The text of a configuration.
fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

fn parsed<T>(parsed: Result<T, toml::de::Error>, path: &Path) -> Result<T, ConfigError> {
    parsed.map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// A field that is well formed and wrong all the same, and why.
fn faulty(path: &Path, (field, reason): (String, String)) -> ConfigError {
    ConfigError::Field {
        path: path.to_owned(),
        field,
        reason,
    }
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// Names the file, and the line or field at fault.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        Config::parse(&read(path)?, path)
    }

    /// Parses and checks a configuration; `path` only names it in errors.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let mut config: Config = parsed(toml::from_str(text), path)?;
        parsed(config.bgp.keep_silence(text), path)?;
        match config.first_fault() {
            None => Ok(config),
            Some(fault) => Err(faulty(path, fault)),
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
        let underlay = plane.underlay_interfaces.iter().flatten();
        for name in plane
            .idc_interfaces
            .iter()
            .chain([&plane.device])
            .chain(underlay)
        {
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
        if !(1024..=1 << 24).contains(&plane.max_flows) {
            return fault(
                "plane.max_flows",
                format!("{} is outside 1024..=16777216", plane.max_flows),
            );
        }
        if plane.protocol < 5 {
            return fault(
                "plane.protocol",
                format!("{} belongs to the kernel; choose 5..=255", plane.protocol),
            );
        }
        self.bgp.first_fault()
    }
}

#[cfg(test)]
mod tests {
    use ::bgp::ExportPolicy;

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
    fn a_router_that_is_to_be_told_nothing_is_told_nothing() {
        let mut config = parse(&format!("{GOOD}export = \"none\"\n")).unwrap();
        let said = config.bgp.speaker(false).peers.remove(0).export;
        assert_eq!(said, ExportPolicy::List(Default::default()));
        config = parse(&format!("{GOOD}export = {{ local = [] }}\n")).unwrap();
        assert_eq!(config.bgp.speaker(false).peers.remove(0).export, said);
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
            (
                "[bgp]",
                "[bgp]\ndrain_settle_ms = 3600001",
                "bgp.drain_settle_ms: 3600 s",
            ),
            (
                "[bgp]",
                "[bgp]\ndrain_wait_ms = 4000000",
                "bgp.drain_wait_ms",
            ),
            ("[bgp]", "[bgp]\nmax_paths = 0", "max_paths"),
            ("\"10.99.0.2\"", "\"10.99.0.300\"", "line 1"),
            (
                "[[bgp.peer]]",
                "[[bgp.dynamic]]\nname = \"tor\"\nprefix = \"10.98.0.1/24\"\nasn = 65003\n[[bgp.peer]]",
                "line 13",
            ),
            (
                "[[bgp.peer]]",
                "[[bgp.dynamic]]\nname = \"tor\"\nprefix = \"10.98.0.0/24\"\nasn = 65003\nlimit = 0\n[[bgp.peer]]",
                "dynamic tor: limit must be 1..=10000",
            ),
            (
                "[[bgp.peer]]",
                "[[bgp.dynamic]]\nname = \"tor\"\nprefix = \"10.98.0.0/24\"\nasn = 65003\nexport = \"all\"\n[[bgp.peer]]",
                "peer tor would be told learned routes",
            ),
            (
                "[[bgp.peer]]",
                "[[bgp.aggregate]]\nprefix = \"10.1.0.0/16\"\nas_set = true\n[[bgp.peer]]",
                "RFC 9774",
            ),
            (
                "[[bgp.peer]]",
                "[[bgp.aggregate]]\nprefix = \"10.1.0.1/16\"\n[[bgp.peer]]",
                "line 12",
            ),
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
