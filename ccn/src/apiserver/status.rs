//! How an API server is doing.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::placement::gone;
use crate::api::StoreView;
use crate::inventory::Inventory;
use crate::ledger::Ledger;
use crate::record::{GatewayName, GroupName, Health, LinkId};
use crate::store::etcd::Held;

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
    /// Gateways that are not alive and may forward what they had; absent while the store is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone: Option<Vec<GoneGateway>>,
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

/// A gateway that is gone: in a [`ServerStatus`], and when it is forgotten.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GoneGateway {
    /// Its name.
    pub gateway: GatewayName,
    /// The links of which it may have something in its kernel.
    pub links: Vec<LinkId>,
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

/// Those that hold links and are not alive, in order.
pub(super) fn of_those_gone(inventory: &Inventory, held: Held) -> Vec<GoneGateway> {
    let mut links: BTreeMap<GatewayName, Vec<LinkId>> = BTreeMap::new();
    for (link, gateways) in held {
        for gateway in gone(inventory, gateways) {
            links.entry(gateway).or_default().push(link.clone());
        }
    }
    let gone = links.into_iter();
    gone.map(|(gateway, links)| GoneGateway { gateway, links })
        .collect()
}

impl ServerStatus {
    /// `held`: which gateways hold which links, also those that are gone.
    pub(super) fn of(ledger: &Ledger, uptime: Duration, held: Option<Held>) -> ServerStatus {
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
            gone: held.map(|held| of_those_gone(inventory, held)),
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
