//! HTTP and JSON over the admin socket, and the part of it that API servers serve too.
//!
//! Every route turns a request into one order or question to the agent and its answer into JSON;
//! nothing is decided here.

mod bgp;
pub mod caller;
pub mod error;
pub mod inquiry;
pub mod listing;
pub mod office;
pub mod openapi;
mod orders;
mod plan;
mod records;
pub mod socket;
mod stream;
mod trace;
mod traffic;
mod view;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::UnixListener;

use crate::controller::AgentHandle;
use error::{ApiError, ErrorCode};

pub use inquiry::{Question, Said};
pub use orders::IDEMPOTENCY_KEY;
pub use plan::{LimitChange, LinkPlan, Outcome, PlannedAt, PlannedRoute};
pub use records::RecordView;
pub use view::{
    AtGateway, GatewayView, LimitView, LinkView, LinksView, PeersView, PlaneDetail, PlaneView,
    RecordChange, RecordsView, RouteView, StartView, Status, StoreView, VmView, VpcView,
};

/// The largest request, in bytes.
pub const MAX_REQUEST: usize = 1 << 20;

type Answer<T> = Result<Json<T>, ApiError>;

/// Serves the admin socket until the task is dropped.
pub async fn serve(listener: UnixListener, agent: AgentHandle) {
    socket::serve(listener, router(agent)).await;
}

/// The routes that an API server has in common with an agent.
pub fn common<O: office::Office>() -> Router<O> {
    orders::routes()
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_route)
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
}

fn router(agent: AgentHandle) -> Router {
    Router::new()
        .merge(orders::routes())
        .route(openapi::PATH, get(openapi::of_agent))
        .route("/v1/routes", get(routes))
        .route("/v1/limits", get(limits))
        .route("/v1/doctor", get(doctor))
        .route("/v1/mrt/dump", post(mrt_dump))
        .route("/v1/plane", get(plane))
        .route("/v1/plane/dump", get(dump))
        .route("/v1/plane/counters", get(counters))
        .merge(traffic::routes())
        .merge(trace::routes())
        .merge(bgp::routes())
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_route)
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(agent)
}

async fn no_such_route() -> ApiError {
    ApiError::new(
        ErrorCode::NoSuchRoute,
        "no such route; see `ccn --help` for what there is",
    )
}

/// The body, or why it is none.
fn body<T>(json: Result<Json<T>, JsonRejection>) -> Result<T, ApiError> {
    json.map(|Json(value)| value).map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message = format!("the request is over {MAX_REQUEST} bytes: send it in parts");
            return ApiError::new(ErrorCode::TooLarge, message);
        }
        ApiError::new(ErrorCode::BadRequest, rejection.body_text())
    })
}

fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query
        .map(|Query(value)| value)
        .map_err(|rejection| ApiError::new(ErrorCode::BadRequest, rejection.body_text()))
}

async fn routes(State(agent): State<AgentHandle>) -> Answer<Vec<RouteView>> {
    Ok(Json(agent.routes().await?))
}

async fn limits(State(agent): State<AgentHandle>) -> Answer<Vec<LimitView>> {
    Ok(Json(agent.limits().await?))
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DoctorQuery {
    /// Packets to ask model and kernel about.
    #[serde(default = "default_sample")]
    sample: usize,
}

fn default_sample() -> usize {
    100
}

/// The most packets that are asked about in one request.
const MAX_SAMPLE: usize = 100_000;

async fn doctor(
    State(agent): State<AgentHandle>,
    asked: Result<Query<DoctorQuery>, QueryRejection>,
) -> Answer<crate::doctor::Report> {
    let DoctorQuery { sample } = query(asked)?;
    if sample > MAX_SAMPLE {
        let message = format!("sample: {sample} is more than {MAX_SAMPLE}");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    Ok(Json(agent.doctor(sample).await?))
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DumpOrder {
    path: std::path::PathBuf,
}

async fn mrt_dump(
    State(agent): State<AgentHandle>,
    order: Result<Json<DumpOrder>, JsonRejection>,
) -> Answer<::bgp::mrt::Dumped> {
    let DumpOrder { path } = body(order)?;
    if !path.is_absolute() {
        let message = format!(
            "path: {} is relative, and the agent runs elsewhere",
            path.display()
        );
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    Ok(Json(agent.dump_mrt(path).await?))
}

async fn plane(State(agent): State<AgentHandle>) -> Answer<PlaneDetail> {
    Ok(Json(agent.plane_detail().await?))
}

async fn dump(State(agent): State<AgentHandle>) -> Answer<Vec<String>> {
    Ok(Json(agent.plane().dump().await.map_err(internal)?))
}

async fn counters(State(agent): State<AgentHandle>) -> Answer<crate::plane::Counters> {
    Ok(Json(agent.plane().counters().await.map_err(internal)?))
}

fn internal(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::Internal, error.to_string())
}
