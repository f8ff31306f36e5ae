//! The routes about peers, graceful shutdown and the configuration.

use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::{ApiError, ErrorCode};
use super::{Answer, Wait, body, query};
use crate::controller::AgentHandle;

pub(super) fn routes() -> Router<AgentHandle> {
    Router::new()
        .route("/v1/peers", get(peers))
        .route("/v1/peers/{peer}", get(peer))
        .route("/v1/peers/{peer}/up", post(up))
        .route("/v1/peers/{peer}/down", post(down))
        .route("/v1/peers/{peer}/refresh", post(refresh))
        .route("/v1/drain", post(drain))
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Down {
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

#[derive(Serialize)]
struct Drained {
    /// Whether every route says that this gateway is about to go (RFC 8326).
    draining: bool,
    /// Peers that have not taken it in the time given.
    late: Vec<bgp::PeerName>,
}

async fn set_drain(
    agent: &AgentHandle,
    draining: bool,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Answer<Drained> {
    let wait = Duration::from_millis(query(wait)?.wait_ms);
    let late = agent.set_drain(draining, wait).await?;
    Ok(Json(Drained { draining, late }))
}

async fn drain(
    State(agent): State<AgentHandle>,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Answer<Drained> {
    set_drain(&agent, true, wait).await
}

async fn undrain(
    State(agent): State<AgentHandle>,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Answer<Drained> {
    set_drain(&agent, false, wait).await
}

async fn reload(State(agent): State<AgentHandle>) -> Answer<bgp::Reconfigured> {
    Ok(Json(agent.reload().await?))
}
