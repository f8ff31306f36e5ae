//! How an API server is doing.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::api::StoreView;
use crate::ledger::Ledger;
use crate::record::{GatewayName, GroupName, Health};

/// An API server as a whole.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ServerStatus {
    /// The name of its host.
    pub apiserver: String,
    /// Its version.
    pub version: &'static str,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Generation of the store.
    pub generation: u64,
    /// How the store is heard.
    pub store: StoreView,
    /// The gateways that are alive.
    pub gateways: Vec<GatewayStatus>,
    /// The links.
    pub links: LinkCounts,
    /// The records.
    pub records: RecordCounts,
}

/// A gateway, in a [`ServerStatus`].
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GatewayStatus {
    /// Its name.
    pub gateway: GatewayName,
    /// Its group.
    pub group: GroupName,
    /// How it is doing.
    pub health: Health,
    /// The newest generation that its plane has acknowledged.
    pub generation: u64,
}

/// The links, in a [`ServerStatus`].
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LinkCounts {
    /// How many are served.
    pub total: usize,
}

/// The records, in a [`ServerStatus`].
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RecordCounts {
    /// How many VPCs.
    pub vpcs: usize,
    /// How many VMs.
    pub vms: usize,
    /// How many SLBs.
    pub slbs: usize,
    /// How many records are ignored because they are wrong.
    pub quarantined: usize,
}

impl ServerStatus {
    pub(super) fn of(ledger: &Ledger, uptime: Duration) -> ServerStatus {
        let inventory = ledger.inventory();
        let host = nix::unistd::gethostname();
        let gateways = inventory.gateways().map(|(name, record)| GatewayStatus {
            gateway: name.clone(),
            group: record.group.clone(),
            health: record.health,
            generation: record.generation,
        });
        ServerStatus {
            apiserver: host.map_or_else(
                |_| String::new(),
                |name| name.to_string_lossy().into_owned(),
            ),
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: uptime.as_secs(),
            generation: ledger.generation(),
            store: ledger.store_view(),
            gateways: gateways.collect(),
            links: LinkCounts {
                total: inventory.links().count(),
            },
            records: RecordCounts {
                vpcs: inventory.vpcs().count(),
                vms: inventory.vm_count(),
                slbs: inventory.slb_count(),
                quarantined: inventory.quarantined(),
            },
        }
    }
}
