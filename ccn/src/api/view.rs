//! What the admin socket shows: stable JSON shapes, made from the agent's state.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bgp::{
    AggregateStatus, DynamicStatus, NextHopState, PeerName, PeerStatus, Prefix, RouteChange,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{ApiError, ErrorCode};
use crate::doctor::Choice;
use crate::drain;
use crate::inventory::StandsBy;
use crate::order::LinkPhase;
use crate::plane::{Abilities, Counters, Limit, Part};
use crate::record::{
    CcsiId, ClassicRef, Dscp, Gateway, GatewayName, GroupName, LinkId, LinkReport, Mac, Mode,
    Reason, Record, RecordError, RecordKey, VmId, Vni, VpcId, Vtep,
};
use crate::startup::Phase;
use crate::store::{Change, Generation};

/// A link, and how far it has come.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct LinkView {
    /// Name of the link.
    pub link: LinkId,
    /// The generation that changed its record last, which is the ETag of an answer that shows it alone; absent: it has
    /// no record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// The VPC.
    pub vpc: VpcId,
    /// The classic side, as ordered.
    pub classic: Vec<ClassicRef>,
    /// Which side may open connections.
    pub mode: Mode,
    /// Gateways that serve it.
    pub group: GroupName,
    /// DSCP of the outer header, if set.
    pub dscp: Option<Dscp>,
    /// Where another link is in its way, it waits until that goes.
    pub standby: bool,
    /// The VPC's subnets of the families that the classic side has: what shall be announced.
    pub subnets: Vec<Prefix>,
    /// `pending`, `programmed`, `announced`, `drained`, `removing`, `failed`, `disabled`, `standby` (behind another
    /// link), `quarantined`, `elsewhere` (another group's); `planned` in a rehearsal.
    pub state: String,
    /// Why it failed, stands by, or is not announced.
    pub reason: Option<String>,
    /// The link that it stands by behind.
    pub behind: Option<LinkId>,
    /// What the speaker announces of it.
    pub announced: Vec<Prefix>,
    /// Peers whose session is up and that were sent it.
    pub advertised_to: Vec<PeerName>,
    /// How far each gateway has come with it, as an API server knows; a gateway speaks of itself alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<AtGateway>,
    /// Seconds until its last change is undone unless somebody confirms it; null: none waits for that.
    pub undone_in_s: Option<u64>,
}

/// How far a link has come at a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct AtGateway {
    /// The gateway.
    pub gateway: GatewayName,
    /// What it says; absent: nothing yet.
    #[serde(flatten)]
    pub report: Option<LinkReport>,
}

impl LinkView {
    /// Writes down behind whom it stands by, and why.
    pub fn set_behind(&mut self, why: &StandsBy) {
        self.reason = Some(why.to_string());
        self.behind = Some(why.behind().clone());
    }

    /// Writes down how far the link has come.
    pub fn set_phase(&mut self, phase: Option<LinkPhase>) {
        let phase = phase.unwrap_or(LinkPhase::Pending);
        self.state = phase.to_string();
        self.reason = match phase {
            LinkPhase::Failed(reason) => Some(reason),
            LinkPhase::Drained => {
                Some("this gateway announces nothing new until `ccn undrain`".to_owned())
            }
            _ => None,
        };
    }
}

/// A VPC.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct VpcView {
    /// Its id.
    pub vpc: VpcId,
    /// Its VNI.
    pub vni: Vni,
    /// Its subnets.
    pub subnets: Vec<Prefix>,
    /// The CCSI it is in, if any.
    pub ccsi: Option<CcsiId>,
    /// How many VMs it has.
    pub vms: usize,
    /// How many SLBs it has.
    pub slbs: usize,
    /// Its links.
    pub links: Vec<LinkId>,
}

/// A gateway that is registered.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct GatewayView {
    /// Its name.
    pub gateway: GatewayName,
    /// How many links its group serves, as far as they are in order.
    pub links: usize,
    /// What it says of itself.
    #[serde(flatten)]
    pub record: Gateway,
}

/// A VM.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct VmView {
    /// The VPC it is in.
    pub vpc: VpcId,
    /// Its id.
    pub vm: VmId,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
    /// Its MAC.
    pub mac: Mac,
    /// VTEP of its host.
    pub vtep: Vtep,
}

/// A route, announced or learned.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct RouteView {
    /// `announced`, `learned`, or `aggregate`: announced for linked subnets inside it.
    pub direction: &'static str,
    /// The prefix.
    pub prefix: Prefix,
    /// Where the IDC's routers are, for a learned route; several are ECMP.
    pub next_hops: BTreeSet<IpAddr>,
    /// Who was sent it, or who sent it.
    pub peers: Vec<PeerName>,
    /// AS path of the best path, for a learned route.
    pub as_path: Option<String>,
    /// Links that it is announced for.
    pub links: Vec<LinkId>,
}

impl RouteView {
    /// An aggregate that is announced, for these links.
    #[must_use]
    pub fn aggregate(aggregate: &AggregateStatus, links: Vec<LinkId>) -> RouteView {
        RouteView {
            direction: "aggregate",
            prefix: aggregate.prefix,
            next_hops: BTreeSet::new(),
            peers: Vec::new(),
            as_path: None,
            links,
        }
    }

    /// A learned route.
    #[must_use]
    pub fn learned(change: &RouteChange) -> RouteView {
        RouteView {
            direction: "learned",
            prefix: change.prefix,
            next_hops: change.paths.iter().map(|path| path.next_hop).collect(),
            peers: change.paths.iter().map(|path| path.peer.clone()).collect(),
            as_path: change
                .paths
                .first()
                .map(|path| path.attributes.as_path.to_string()),
            links: Vec::new(),
        }
    }
}

/// Something that is limited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct LimitView {
    /// What, for example `endpoints`, or `bgp.peer.idc1.ipv4` for the routes of a peer.
    pub name: String,
    /// In use now.
    pub used: u64,
    /// The most there may be; the next one is refused.
    pub max: u64,
    /// How many are refused; absent: nobody counts them.
    pub refused: Option<u64>,
}

impl From<Limit> for LimitView {
    fn from(limit: Limit) -> Self {
        LimitView {
            name: limit.name.to_owned(),
            used: limit.used,
            max: limit.max,
            refused: None,
        }
    }
}

impl LimitView {
    /// The limits of prefixes that hold for sessions of a peer.
    pub fn of_peer(peer: &PeerStatus) -> impl Iterator<Item = LimitView> + '_ {
        peer.prefixes.iter().filter_map(|(family, counts)| {
            Some(LimitView {
                name: format!("bgp.peer.{}.{family}", peer.name),
                used: counts.accepted as u64,
                max: counts.limit? as u64,
                refused: Some(counts.beyond_limit as u64),
            })
        })
    }

    /// The limit of a group of dynamic peers.
    #[must_use]
    pub fn of_group(group: &DynamicStatus) -> LimitView {
        LimitView {
            name: format!("bgp.dynamic.{}", group.name),
            used: group.peers as u64,
            max: group.limit.into(),
            refused: Some(group.full),
        }
    }
}

/// The gateway as a whole.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Status {
    /// Name of the gateway.
    pub gateway: String,
    /// Its group.
    pub group: GroupName,
    /// Version of the agent.
    pub version: &'static str,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// How its start went.
    pub start: StartView,
    /// Generation of the store.
    pub generation: u64,
    /// How the store is heard.
    pub store: StoreView,
    /// Generation that the plane has acknowledged.
    pub acknowledged: u64,
    /// Nothing is on its way: the kernel and the speaker have all of it.
    pub settled: bool,
    /// Whether it is drained, and how that went.
    pub drain: drain::Report,
    /// The plane.
    pub plane: PlaneView,
    /// The peers.
    pub peers: PeersView,
    /// The links.
    pub links: LinksView,
    /// The records.
    pub records: RecordsView,
    /// The plane's counters.
    pub counters: Counters,
}

/// The agent's start, in a [`Status`].
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
pub struct StartView {
    /// Seconds until everything was announced; absent while that goes on.
    pub seconds: Option<f64>,
    /// Its parts so far, one after the other.
    pub phases: Vec<Phase>,
}

/// How the store is heard, in a [`Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct StoreView {
    /// `current`; `away`: it cannot be reached; `restored`: it went back, and is not followed until `ccn store
    /// follow`. But for `current`, forwarding and announcements stay as they were.
    pub state: &'static str,
    /// Seconds since what is known was last known to be what the store holds; none while it is current.
    pub stale_s: Option<u64>,
    /// Why it is not current.
    pub reason: Option<String>,
}

/// The plane, in a [`Status`].
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
pub struct PlaneView {
    /// Its name.
    pub name: &'static str,
    /// `starting`, `healthy`, `degraded` (some entries refused) or `failing`.
    pub state: &'static str,
    /// What went wrong last, while it is failing.
    pub last_error: Option<String>,
    /// Kernel operations of the last comparison of the whole state; zero when nothing differed.
    pub last_resync_operations: Option<usize>,
    /// Kernel operations since the agent started.
    pub operations: u64,
}

/// The plane in full.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct PlaneDetail {
    /// As in a [`Status`].
    #[serde(flatten)]
    pub plane: PlaneView,
    /// Why it is this one.
    pub choice: Option<Choice>,
    /// What it can do beyond what every plane does.
    pub abilities: Abilities,
    /// Which of the parts that all forwarding hangs on are in place, where they can be looked at.
    pub parts: Vec<Part>,
    /// How full it is.
    pub limits: Vec<LimitView>,
}

/// The peers, in a [`Status`].
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
pub struct PeersView {
    /// How many are configured one by one.
    pub configured: usize,
    /// How many sessions of these are up.
    pub established: usize,
    /// The groups of dynamic peers.
    pub dynamic: Vec<DynamicStatus>,
    /// How many connections were closed at once because nobody may come from there.
    pub refused_connections: u64,
    /// How many routes of peers are refused because of a limit of prefixes.
    pub refused_routes: usize,
    /// Next hops of learned routes that cannot be reached: these routes are not used. The first few.
    pub unreachable_next_hops: Vec<IpAddr>,
}

/// How many next hops are named in a status.
const NAMED: usize = 20;

impl PeersView {
    /// Counts peers and what they are refused.
    #[must_use]
    pub fn new(
        peers: &[PeerStatus],
        dynamic: Vec<DynamicStatus>,
        next_hops: &[(IpAddr, NextHopState)],
        refused_connections: u64,
    ) -> Self {
        let unreachable = next_hops
            .iter()
            .filter(|(_, state)| state.metric().is_none())
            .map(|(address, _)| *address);
        let configured = || peers.iter().filter(|peer| peer.dynamic.is_none());
        let counts = peers.iter().flat_map(|peer| peer.prefixes.values());
        PeersView {
            configured: configured().count(),
            established: configured()
                .filter(|peer| peer.state == bgp::SessionState::Established)
                .count(),
            refused_connections,
            refused_routes: counts.map(|counts| counts.beyond_limit).sum(),
            dynamic,
            unreachable_next_hops: unreachable.take(NAMED).collect(),
        }
    }
}

/// The links, in a [`Status`].
#[derive(Debug, Clone, Copy, Default, Serialize, schemars::JsonSchema)]
pub struct LinksView {
    /// How many there are.
    pub total: usize,
    /// How many are announced.
    pub announced: usize,
    /// How many stand by behind others; they are not part of the total.
    pub standby: usize,
}

/// The records, in a [`Status`].
#[derive(Debug, Clone, Copy, Default, Serialize, schemars::JsonSchema)]
pub struct RecordsView {
    /// How many VPCs.
    pub vpcs: usize,
    /// How many VMs.
    pub vms: usize,
    /// How many SLBs.
    pub slbs: usize,
    /// How many records are ignored because they are wrong.
    pub quarantined: usize,
}

/// A change of one record, as an import sends it: a value puts it, `null` deletes it.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordChange {
    /// For example `vpcs/web`.
    pub key: String,
    /// The record, or null.
    pub value: Value,
}

impl RecordChange {
    /// Checks the change as far as the record alone can tell.
    ///
    /// # Errors
    /// Names the key, the field and the reason.
    pub fn parse(self) -> Result<Change, ApiError> {
        let key: RecordKey = self
            .key
            .parse()
            .map_err(|error| ApiError::new(ErrorCode::BadRequest, format!("key: {error}")))?;
        if key.kind().registers_itself() {
            let error = RecordError::new(&key, "key", Reason::RegistersItself);
            return Err(ApiError::refused(&[error]));
        }
        if self.value.is_null() {
            return Ok(Change::Delete {
                key: key.to_string(),
            });
        }
        let record = Record::from_value(&key, self.value)
            .map_err(|error| ApiError::refused(std::slice::from_ref(&error)))?;
        Ok(Change::Put {
            key: key.to_string(),
            value: record.to_json().into(),
        })
    }
}
