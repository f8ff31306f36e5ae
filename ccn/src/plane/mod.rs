//! The part that puts forwarding state into the kernel: the contract every plane fulfils.
//!
//! A plane owns the reconciliation of its own objects (desired against actual) and never touches
//! state it did not make. It knows nothing of records, peers or announcements.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::Prefix;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub mod ebpf;
pub mod endpoints;
pub mod entry;
pub mod model;
pub mod routes;
pub mod thread;
pub mod traffic;
pub mod witness;

use endpoints::{Endpoint, Endpoints};
use entry::{EntryKey, EntryValue};
use model::Packet;
use traffic::{Sampled, Traffic, Wanted};
use witness::Witness;

/// Next hops in the IDC for one learned prefix; more than one is ECMP.
pub type LearnedNextHops = BTreeSet<IpAddr>;

/// Everything a plane should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// The generation of the store this was made from.
    pub generation: u64,
    /// Forwarding entries, but for the endpoints below.
    pub entries: BTreeMap<EntryKey, EntryValue>,
    /// Endpoints that `entries` does not name.
    pub endpoints: Endpoints,
    /// Routes learned from the IDC.
    pub learned: BTreeMap<Prefix, LearnedNextHops>,
    /// Leave learned routes that the kernel has and `learned` lacks: the routers have not sent
    /// their tables since this agent started, and what worked must go on working (RFC 4724 4.1).
    pub keep_unknown_learned: bool,
}

impl Desired {
    /// All entries, also the endpoints that are in a list of their own; in no order.
    pub fn all(&self) -> impl Iterator<Item = (EntryKey, EntryValue)> {
        let entries = self.entries.iter();
        let entries = entries.map(|(key, value)| (key.clone(), value.clone()));
        entries.chain(self.endpoints.iter().map(Endpoint::entry))
    }
}

/// A difference to apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The generation of the store that holds after this batch.
    pub generation: u64,
    /// Entries that are new or changed.
    pub upserts: BTreeMap<EntryKey, EntryValue>,
    /// Entries that are gone.
    pub removals: BTreeSet<EntryKey>,
    /// Learned routes that changed; an empty set means the prefix is gone.
    pub learned: BTreeMap<Prefix, LearnedNextHops>,
    /// Read back from the kernel what this batch and its links depend on before answering.
    pub verify: bool,
}

/// What came of a [`Batch`] or a [`Desired`] state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// The generation now acknowledged.
    pub generation: u64,
    /// Kernel operations that were needed; zero when nothing differed.
    pub operations: usize,
    /// Entries that the plane refused, or that the kernel did not take or show, each with the reason.
    #[serde(skip)]
    pub failures: BTreeMap<EntryKey, String>,
    /// The same for learned routes.
    #[serde(skip)]
    pub learned_failures: BTreeMap<Prefix, String>,
}

/// Packets and bytes since the plane was prepared first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a plane counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "PlaneCounters")]
pub struct Counters {
    /// Received from hypervisors, after decapsulation.
    pub decapsulated: Count,
    /// Sent to hypervisors, before encapsulation.
    pub encapsulated: Count,
    /// Dropped, by the name of the reason (see `plane::model::DropReason`).
    pub drops: BTreeMap<String, Count>,
}

/// What a plane can do beyond what every plane does. Links that need more are refused.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(default)]
pub struct Abilities {
    /// It knows replies from new connections, which `mode = classic-to-vpc` takes.
    pub tracks_replies: bool,
    /// It sets a DSCP of the link's own in outer headers.
    pub marks_links: bool,
}

impl Abilities {
    /// Everything.
    pub const ALL: Abilities = Abilities {
        tracks_replies: true,
        marks_links: true,
    };
}

/// What [`Plane::prepare`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    /// An earlier run left forwarding state, which goes on forwarding.
    pub adopted: bool,
}

/// Something of a plane's in the kernel that a foreign hand can take away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Part {
    /// What it is, for people.
    pub name: String,
    /// It is in place.
    pub present: bool,
}

/// How full a plane is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// What is limited, for example `vnis` or `endpoints`.
    pub name: &'static str,
    /// In use now.
    pub used: u64,
    /// The most the plane takes; the next one is refused.
    pub max: u64,
}

/// What entries beside those that a plane holds would take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Objects of the kernel there would be more, by kind.
    pub objects: BTreeMap<&'static str, u64>,
    /// How full the plane would be.
    pub limits: Vec<Limit>,
}

/// Why a plane can do nothing at all. What concerns one entry is a failure in [`Applied`] instead.
#[derive(Debug, Error)]
pub enum PlaneError {
    /// A capability is missing.
    #[error(
        "missing privilege {capability}: {action} was refused; run as root or grant {capability}"
    )]
    Privilege {
        /// For example `CAP_NET_ADMIN`.
        capability: &'static str,
        /// What was being done.
        action: String,
    },
    /// The kernel lacks a feature.
    #[error("the kernel lacks {feature}: {detail}")]
    Feature {
        /// For example `VXLAN devices in external mode`.
        feature: &'static str,
        /// The kernel's own words.
        detail: String,
    },
    /// A device with a name of ours that we did not make.
    #[error(
        "device {name} exists and is not ours ({detail}): remove it or set another name in [plane]"
    )]
    ForeignDevice {
        /// Name of the device.
        name: String,
        /// What it is instead.
        detail: String,
    },
    /// A device that the configuration names does not exist.
    #[error("device {name} named in {field} does not exist")]
    NoDevice {
        /// Name of the device.
        name: String,
        /// The field of the configuration.
        field: &'static str,
    },
    /// The kernel could not be asked, or contradicted itself.
    #[error("{action}: {detail}")]
    Kernel {
        /// What was being done.
        action: String,
        /// The kernel's own words.
        detail: String,
    },
}

/// A plane. Calls block until the kernel has answered, so it lives on a thread of its own.
pub trait Plane: Send {
    /// The name in the configuration, for example `routes`.
    fn name(&self) -> &'static str;

    /// What it can do beyond what every plane does.
    fn abilities(&self) -> Abilities;

    /// Makes or adopts devices and checks privileges and kernel features.
    ///
    /// # Errors
    /// Names the missing capability or feature, or the device that is not ours.
    fn prepare(&mut self) -> Result<Prepared, PlaneError>;

    /// Dumps, compares and applies the difference, then reads back.
    ///
    /// # Errors
    /// When the kernel could not be dumped or asked; nothing is known of its state then.
    fn resync(&mut self, desired: &Desired) -> Result<Applied, PlaneError>;

    /// Applies a difference to what the last call left, make before break.
    ///
    /// # Errors
    /// As [`Plane::resync`]; the caller resyncs before it goes on.
    fn apply(&mut self, batch: &Batch) -> Result<Applied, PlaneError>;

    /// Whether [`Plane::apply`] is a few stores for this batch, so that whoever must not block may call it.
    fn is_prompt(&self, batch: &Batch) -> bool {
        let _ = batch;
        false
    }

    /// Reads the counters.
    ///
    /// # Errors
    /// When the kernel could not be asked.
    fn counters(&mut self) -> Result<Counters, PlaneError>;

    /// Reads what is counted by link and VPC, and the last drops; `None`: this plane does not count so.
    ///
    /// # Errors
    /// When the kernel could not be asked.
    fn traffic(&mut self) -> Result<Option<Traffic>, PlaneError> {
        Ok(None)
    }

    /// Has headers of packets sampled, or no more when nothing is wanted; what was sampled for an earlier
    /// wish is forgotten. It ends with the agent. Answers whether this plane can do that.
    ///
    /// # Errors
    /// When the kernel could not be asked.
    fn sample(&mut self, wanted: Option<&Wanted>) -> Result<bool, PlaneError> {
        let _ = wanted;
        Ok(false)
    }

    /// What was sampled since the last call: at most some thousands a second, more than is wanted where
    /// several addresses are, in the order in which the packets came.
    ///
    /// # Errors
    /// When the kernel could not be asked.
    fn sampled(&mut self) -> Result<Vec<Sampled>, PlaneError> {
        Ok(Vec::new())
    }

    /// Asks the kernel what it would do with a packet. Nothing is sent and nothing is counted. `None`:
    /// this plane cannot ask.
    ///
    /// # Errors
    /// When the kernel could not be asked.
    fn ask(&mut self, packet: &Packet) -> Result<Option<Witness>, PlaneError> {
        let _ = packet;
        Ok(None)
    }

    /// How full the plane is.
    fn limits(&self) -> Vec<Limit>;

    /// What these permits would take, beside all that the plane holds. Nothing is changed.
    fn forecast(&self, permits: &BTreeMap<EntryKey, EntryValue>) -> Forecast {
        let _ = permits;
        Forecast {
            objects: BTreeMap::new(),
            limits: self.limits(),
        }
    }

    /// Which of the parts that all forwarding hangs on are in place, of those that can be looked at
    /// quickly. Nothing is mended.
    ///
    /// # Errors
    /// When the kernel could not be asked.
    fn parts(&mut self) -> Result<Vec<Part>, PlaneError> {
        Ok(Vec::new())
    }

    /// What the kernel holds of ours, a line an object, sorted.
    ///
    /// # Errors
    /// When the kernel could not be asked.
    fn dump(&mut self) -> Result<Vec<String>, PlaneError>;

    /// Takes everything of ours out of the kernel: rules, routes, neighbours, devices,
    /// filters, in that order.
    ///
    /// # Errors
    /// When the kernel refused; calling again goes on.
    fn remove(&mut self) -> Result<(), PlaneError>;
}
