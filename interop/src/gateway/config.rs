//! The agent's configuration, as far as the lab sets it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use bgp::Family;
use netlink::Mac;
use serde::Serialize;

use crate::peer::RouterConfig;
use crate::topology::{IDC, INSTANCE_MTU, plan};

/// What is written as the agent's TOML file.
#[derive(Debug, Clone, Serialize)]
pub struct GatewayConfig {
    /// The gateway's name.
    pub name: String,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// `[store]`
    pub store: StoreSection,
    /// `[plane]`
    pub plane: PlaneSection,
    /// `[bgp]`
    pub bgp: BgpSection,
    /// Whatever else the file says.
    #[serde(flatten)]
    pub more: toml::Table,
}

impl GatewayConfig {
    /// That of the region's gateway with these peers, which keeps its files in `directory`.
    pub(super) fn of(
        directory: &Path,
        mac: Mac,
        peers: impl IntoIterator<Item = PeerSection>,
    ) -> Self {
        GatewayConfig {
            name: "gw".to_owned(),
            admin_socket: directory.join("agent.sock"),
            store: StoreSection {
                path: directory.join("store.redb"),
                more: toml::Table::new(),
            },
            plane: PlaneSection {
                kind: std::env::var("CCN_LAB_PLANE").unwrap_or_else(|_| "routes".to_owned()),
                vtep: plan::GATEWAY_VTEP.into(),
                idc_interfaces: vec![IDC.to_owned()],
                mac: Some(mac.to_string()),
                mtu: INSTANCE_MTU,
                audit_interval_s: 60,
                bpffs: None,
            },
            bgp: BgpSection {
                asn: plan::GATEWAY_AS,
                router_id: plan::GATEWAY4,
                listen: vec![(plan::GATEWAY4, 179).into(), (plan::GATEWAY6, 179).into()],
                restart_time_s: 120,
                drain_ms: 200,
                bmp: Vec::new(),
                mrt: None,
                peer: peers.into_iter().collect(),
                more: toml::Table::new(),
            },
            more: toml::Table::new(),
        }
    }
}

/// `[store]`
#[derive(Debug, Clone, Serialize)]
pub struct StoreSection {
    /// The file of the embedded store; empty where `more` names another store.
    #[serde(skip_serializing_if = "is_empty")]
    pub path: PathBuf,
    /// Whatever else the section says.
    #[serde(flatten)]
    pub more: toml::Table,
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// `[plane]`
#[derive(Debug, Clone, Serialize)]
pub struct PlaneSection {
    /// Which plane: `auto`, `ebpf`, `routes`.
    pub kind: String,
    /// The gateway's VTEP.
    pub vtep: IpAddr,
    /// The interfaces on the IDC side.
    pub idc_interfaces: Vec<String>,
    /// MAC of the VXLAN device; the agent's own choice when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Largest inner packet, bytes.
    pub mtu: u32,
    /// Seconds between two audits of the kernel's state.
    pub audit_interval_s: u64,
    /// Where the `ebpf` plane pins its maps; the agent's own choice when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpffs: Option<PathBuf>,
}

/// `[bgp]`
#[derive(Debug, Clone, Serialize)]
pub struct BgpSection {
    /// The gateway's AS.
    pub asn: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Seconds that routers are asked to keep its routes while it is away.
    pub restart_time_s: u16,
    /// Milliseconds that forwarding outlives the withdrawal.
    pub drain_ms: u64,
    /// `[[bgp.bmp]]`: monitoring stations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bmp: Vec<BmpSection>,
    /// `[bgp.mrt]`: the log of what routers say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mrt: Option<MrtSection>,
    /// `[[bgp.peer]]`
    pub peer: Vec<PeerSection>,
    /// Whatever else the section says.
    #[serde(flatten)]
    pub more: toml::Table,
}

/// `[[bgp.bmp]]`
#[derive(Debug, Clone, Serialize)]
pub struct BmpSection {
    /// Where the station listens.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Seconds between two reports of counters.
    pub stats_interval_s: u32,
    /// Routes as routers tell them.
    pub pre_policy: bool,
    /// Routes as the policy left them.
    pub post_policy: bool,
}

/// `[bgp.mrt]`
#[derive(Debug, Clone, Serialize)]
pub struct MrtSection {
    /// The file.
    pub updates: PathBuf,
}

/// `[[bgp.peer]]`
#[derive(Debug, Clone, Serialize)]
pub struct PeerSection {
    /// The peer's name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its AS.
    pub asn: u32,
    /// Only wait for its connection.
    pub passive: bool,
    /// Hold time offered, seconds.
    pub hold_time: u16,
    /// Seconds between two attempts to connect.
    pub connect_retry: f64,
    /// The pause after a session that failed, seconds; it doubles up to `idle_hold_max`.
    pub idle_hold: f64,
    /// The longest such pause, seconds.
    pub idle_hold_max: f64,
    /// The families offered.
    pub families: Vec<Family>,
    /// What is taken from it: `all` or `none`; empty: `more` says it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub import: String,
    /// The gateway's next hop in what it is told, IPv4.
    pub next_hop_v4: Ipv4Addr,
    /// The gateway's next hop in what it is told, IPv6.
    pub next_hop_v6: Ipv6Addr,
    /// Most routes that are taken from it, by family; what is beyond is refused.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub max_prefixes: BTreeMap<Family, LimitSection>,
    /// Whatever else the file says of it.
    #[serde(flatten)]
    pub more: toml::Table,
}

/// `[bgp.peer.max_prefixes.FAMILY]`
#[derive(Debug, Clone, Serialize)]
pub struct LimitSection {
    /// Most routes that are accepted.
    pub limit: usize,
}

impl PeerSection {
    /// The gateway's side of a session with one of the region's routers.
    pub fn of(router: &RouterConfig) -> Self {
        Self {
            name: router.name.clone(),
            address: router.address.into(),
            port: 179,
            asn: router.asn,
            passive: false,
            hold_time: 9,
            connect_retry: 1.0,
            idle_hold: 1.0,
            idle_hold_max: 30.0,
            families: Family::ALL.to_vec(),
            import: "all".to_owned(),
            next_hop_v4: plan::GATEWAY4,
            next_hop_v6: plan::GATEWAY6,
            max_prefixes: BTreeMap::new(),
            more: toml::Table::new(),
        }
    }
}
