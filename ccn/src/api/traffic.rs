//! What passes and what is dropped: counts of links and VPCs, and drops by reason.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::error::{ApiError, ErrorCode};
use super::{Answer, internal};
use crate::controller::AgentHandle;
use crate::plane::Count;
use crate::plane::traffic::{Flows, Sample, Traffic, TwoWays};
use crate::record::{LinkId, Vni, VpcId};

pub(super) fn routes() -> Router<AgentHandle> {
    Router::new()
        .route("/v1/traffic", get(traffic))
        .route("/v1/drops", get(drops))
}

/// Counts of a link.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct LinkTraffic {
    /// Its name.
    pub link: LinkId,
    /// Its counts.
    #[serde(flatten)]
    pub counts: TwoWays,
}

/// Counts of a VPC.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct VpcTraffic {
    /// Its id; absent when it is no more than a VNI in the kernel.
    pub vpc: Option<VpcId>,
    /// Its VNI.
    pub vni: Vni,
    /// Its counts.
    #[serde(flatten)]
    pub counts: TwoWays,
}

/// Counts of all links and VPCs.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct TrafficView {
    /// By name.
    pub links: Vec<LinkTraffic>,
    /// By VNI.
    pub vpcs: Vec<VpcTraffic>,
    /// Flows over links of mode `classic-to-vpc`.
    pub flows: Option<Flows>,
}

/// Drops of one reason.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct DropView {
    /// Its name.
    pub reason: String,
    /// How much was dropped.
    #[serde(flatten)]
    pub count: Count,
    /// The last packet, where the plane remembers it.
    pub last: Option<Sample>,
}

async fn counted(agent: &AgentHandle) -> Result<Option<Traffic>, ApiError> {
    agent.plane().traffic().await.map_err(internal)
}

async fn traffic(State(agent): State<AgentHandle>) -> Answer<TrafficView> {
    let Some(traffic) = counted(&agent).await? else {
        let message = format!(
            "the plane `{}` does not count by link and VPC; `ebpf` does",
            agent.plane().name()
        );
        return Err(ApiError::new(ErrorCode::Refused, message));
    };
    let names = agent
        .vpcs_with(traffic.vpcs.keys().copied().collect())
        .await?;
    let links = traffic.links.into_iter();
    let vpcs = traffic.vpcs.into_iter().zip(names);
    Ok(Json(TrafficView {
        links: links
            .map(|(link, counts)| LinkTraffic { link, counts })
            .collect(),
        vpcs: vpcs
            .map(|((vni, counts), vpc)| VpcTraffic { vpc, vni, counts })
            .collect(),
        flows: traffic.flows,
    }))
}

async fn drops(State(agent): State<AgentHandle>) -> Answer<Vec<DropView>> {
    let counters = agent.plane().counters().await.map_err(internal)?;
    let mut last = counted(&agent)
        .await?
        .map_or_else(Default::default, |traffic| traffic.last_drops);
    let drops = counters.drops.into_iter();
    Ok(Json(
        drops
            .map(|(reason, count)| DropView {
                last: last.remove(&reason),
                reason,
                count,
            })
            .collect(),
    ))
}
