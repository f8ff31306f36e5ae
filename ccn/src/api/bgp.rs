//! The routes about peers, draining and the configuration.

use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{ApiError, ErrorCode};
use super::orders::Ordered;
use super::{Answer, body, query};
use crate::controller::AgentHandle;
use crate::drain::{Report, Terms};

pub(super) fn routes() -> Router<AgentHandle> {
    Router::new()
        .route("/v1/peers", get(peers))
        .route("/v1/peers/{peer}", get(peer))
        .route("/v1/peers/{peer}/up", post(up))
        .route("/v1/peers/{peer}/down", post(down))
        .route("/v1/peers/{peer}/refresh", post(refresh))
        .route("/v1/drain", get(how_it_drains).post(drain))
        .route("/v1/undrain", post(undrain))
        .route("/v1/reload", post(reload))
}

async fn peers(State(agent): State<AgentHandle>) -> Answer<Vec<bgp::PeerStatus>> {
    Ok(Json(agent.peers().await?))
}

async fn peer(
    State(agent): State<AgentHandle>,
    Path(name): Path<String>,
) -> Answer<bgp::PeerStatus> {
    let peers = agent.peers().await?;
    let found = peers.into_iter().find(|peer| peer.name == *name);
    found.map(Json).ok_or_else(|| {
        ApiError::new(
            ErrorCode::NotFound,
            format!("no peer is called {name:?}; see `ccn peers`"),
        )
    })
}

async fn up(State(agent): State<AgentHandle>, Path(name): Path<String>) -> Answer<Value> {
    agent.set_peer_admin(&name, true, None).await?;
    Ok(Json(json!({ "peer": name, "admin_up": true })))
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Down {
    /// For the peer's operator (RFC 9003).
    #[serde(default)]
    text: Option<String>,
}

async fn down(
    State(agent): State<AgentHandle>,
    Path(name): Path<String>,
    order: Result<Json<Down>, JsonRejection>,
) -> Answer<Value> {
    let Down { text } = body(order)?;
    agent.set_peer_admin(&name, false, text.as_deref()).await?;
    Ok(Json(json!({ "peer": name, "admin_up": false })))
}

async fn refresh(State(agent): State<AgentHandle>, Path(name): Path<String>) -> Answer<Value> {
    agent.refresh_peer(&name).await?;
    Ok(Json(json!({ "peer": name, "refreshing": true })))
}

/// How to drain; the configuration says what is left out.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainQuery {
    settle_ms: Option<u64>,
    wait_ms: Option<u64>,
    /// Packets a second that are no traffic any more.
    threshold: Option<f64>,
}

async fn drain(
    State(agent): State<AgentHandle>,
    terms: Result<Query<DrainQuery>, QueryRejection>,
) -> Answer<Report> {
    let DrainQuery {
        settle_ms,
        wait_ms,
        threshold,
    } = query(terms)?;
    let drainer = agent.drainer()?;
    let usual = drainer.usual();
    let millis = |millis: Option<u64>, usual| millis.map_or(usual, Duration::from_millis);
    let terms = Terms {
        settle: millis(settle_ms, usual.settle),
        wait: millis(wait_ms, usual.wait),
        threshold: threshold.unwrap_or(usual.threshold),
        remember: true,
    };
    if let Some((field, reason)) = terms.first_fault() {
        let message = format!("{field}: {reason}");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    Ok(Json(drainer.drain(terms).await?))
}

async fn undrain(
    State(agent): State<AgentHandle>,
    Ordered { terms, .. }: Ordered,
) -> Answer<Report> {
    Ok(Json(agent.drainer()?.undrain(terms.wait).await?))
}

async fn how_it_drains(State(agent): State<AgentHandle>) -> Answer<Report> {
    Ok(Json(agent.drainer()?.report()))
}

async fn reload(State(agent): State<AgentHandle>) -> Answer<bgp::Reconfigured> {
    Ok(Json(agent.reload().await?))
}
