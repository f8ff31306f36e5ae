//! HTTP and JSON over the admin socket.
//!
//! Every route turns a request into one order or question to the agent and its answer into JSON;
//! nothing is decided here.

mod bgp;
pub mod error;
mod plan;
mod records;
pub mod socket;
mod trace;
mod traffic;
mod view;

use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::UnixListener;

use crate::controller::{AgentHandle, LinkOrder};
use crate::record::{LinkId, Vni, VpcId};
use crate::region;
use error::{ApiError, ErrorCode};

pub use plan::{LimitChange, LinkPlan, PlannedRoute};
pub use records::RecordView;
pub use view::{
    GatewayView, LimitView, LinkView, LinksView, PeersView, PlaneDetail, PlaneView, RecordChange,
    RecordsView, RouteView, StartView, Status, StoreView, VmView, VpcView,
};

/// The largest request, in bytes.
pub const MAX_REQUEST: usize = 1 << 20;

type Answer<T> = Result<Json<T>, ApiError>;

/// Serves the admin socket until the task is dropped.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(listener: UnixListener, agent: AgentHandle) -> std::io::Result<()> {
    axum::serve(listener, router(agent)).await
}

fn router(agent: AgentHandle) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/links", get(links).post(link))
        .route("/v1/links/{link}", delete(unlink))
        .route("/v1/links/{link}/disable", post(set_enabled::<false>))
        .route("/v1/links/{link}/enable", post(set_enabled::<true>))
        .route("/v1/links/{link}/confirm", post(confirm))
        .route("/v1/links/{link}/undo", post(undo))
        .route("/v1/vpcs", get(vpcs))
        .route("/v1/vms", get(vms))
        .route("/v1/gateways", get(gateways))
        .route("/v1/routes", get(routes))
        .route("/v1/quarantine", get(quarantine))
        .route("/v1/limits", get(limits))
        .route("/v1/explain", get(explain))
        .route("/v1/doctor", get(doctor))
        .route("/v1/records", get(export).merge(post(import)))
        .route("/v1/store/follow", post(follow_store))
        .route("/v1/mrt/dump", post(mrt_dump))
        .route("/v1/plane", get(plane))
        .route("/v1/plane/dump", get(dump))
        .route("/v1/plane/counters", get(counters))
        .merge(records::routes())
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    #[serde(default = "default_wait")]
    wait_ms: u64,
    #[serde(default)]
    dry_run: bool,
    /// How long the change may wait to be confirmed; without it it stands at once.
    confirm_ms: Option<u64>,
}

fn default_wait() -> u64 {
    30_000
}

impl Wait {
    fn duration(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }

    fn confirm(&self) -> Option<Duration> {
        self.confirm_ms.map(Duration::from_millis)
    }
}

async fn link(
    State(agent): State<AgentHandle>,
    wait: Result<Query<Wait>, QueryRejection>,
    order: Result<Json<LinkOrder>, JsonRejection>,
) -> Result<Response, ApiError> {
    let (wait, order) = (query(wait)?, body(order)?);
    if wait.dry_run {
        return Ok(Json(agent.check_link(order).await?).into_response());
    }
    Ok(Json(agent.link(order, wait.confirm(), wait.duration()).await?).into_response())
}

fn link_id(text: &str) -> Result<LinkId, ApiError> {
    text.parse()
        .map_err(|e| ApiError::new(ErrorCode::BadRequest, format!("the name of the link {e}")))
}

/// `ccn enable`, or `ccn disable`.
async fn set_enabled<const ENABLED: bool>(
    State(agent): State<AgentHandle>,
    Path(link): Path<String>,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Answer<LinkView> {
    let (wait, link) = (query(wait)?, link_id(&link)?);
    let (confirm, wait) = (wait.confirm(), wait.duration());
    let link = agent.set_link_enabled(link, ENABLED, confirm, wait);
    Ok(Json(link.await?))
}

/// A link that may have gone.
fn left(id: &LinkId, link: Option<LinkView>) -> Response {
    match link {
        Some(link) => Json(link).into_response(),
        None => Json(json!({ "link": id, "state": "removed" })).into_response(),
    }
}

async fn confirm(
    State(agent): State<AgentHandle>,
    Path(link): Path<String>,
) -> Result<Response, ApiError> {
    let link = link_id(&link)?;
    Ok(left(&link, agent.confirm_link(link.clone()).await?))
}

async fn undo(
    State(agent): State<AgentHandle>,
    Path(link): Path<String>,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (wait, link) = (query(wait)?, link_id(&link)?);
    if wait.dry_run {
        return Ok(Json(agent.check_undo(link).await?).into_response());
    }
    let left_over = agent.undo_link(link.clone(), wait.duration()).await?;
    Ok(left(&link, left_over))
}

async fn unlink(
    State(agent): State<AgentHandle>,
    Path(link): Path<String>,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Result<Response, ApiError> {
    let wait = query(wait)?;
    let link = link_id(&link)?;
    let kept = match wait.confirm() {
        Some(confirm) => Some(
            agent
                .unlink_for(link.clone(), confirm, wait.duration())
                .await?,
        ),
        None => {
            agent.unlink(link.clone(), wait.duration()).await?;
            None
        }
    };
    Ok(left(&link, kept))
}

async fn status(State(agent): State<AgentHandle>) -> Answer<Status> {
    Ok(Json(agent.status().await?))
}

async fn links(State(agent): State<AgentHandle>) -> Answer<Vec<LinkView>> {
    Ok(Json(agent.links().await?))
}

async fn vpcs(State(agent): State<AgentHandle>) -> Answer<Vec<VpcView>> {
    Ok(Json(agent.ask(|view| view.vpcs()).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VmFilter {
    vpc: Option<VpcId>,
}

async fn vms(
    State(agent): State<AgentHandle>,
    filter: Result<Query<VmFilter>, QueryRejection>,
) -> Answer<Vec<VmView>> {
    let filter = query(filter)?;
    Ok(Json(
        agent.ask(move |view| view.vms(filter.vpc.as_ref())).await?,
    ))
}

async fn gateways(State(agent): State<AgentHandle>) -> Answer<Vec<GatewayView>> {
    Ok(Json(agent.ask(|view| view.gateways()).await?))
}

async fn routes(State(agent): State<AgentHandle>) -> Answer<Vec<RouteView>> {
    Ok(Json(agent.routes().await?))
}

async fn quarantine(State(agent): State<AgentHandle>) -> Answer<Vec<error::Fault>> {
    Ok(Json(agent.ask(|view| view.quarantine()).await?))
}

async fn limits(State(agent): State<AgentHandle>) -> Answer<Vec<LimitView>> {
    Ok(Json(agent.limits().await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainQuery {
    src: std::net::IpAddr,
    dst: std::net::IpAddr,
    vni: Option<Vni>,
}

async fn explain(
    State(agent): State<AgentHandle>,
    packet: Result<Query<ExplainQuery>, QueryRejection>,
) -> Answer<crate::explain::Explanation> {
    let ExplainQuery { src, dst, vni } = query(packet)?;
    Ok(Json(agent.explain(src, dst, vni).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DoctorQuery {
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportOrder {
    changes: Vec<RecordChange>,
}

#[derive(Serialize)]
struct ImportAnswer {
    generation: u64,
    changed: usize,
}

async fn import(
    State(agent): State<AgentHandle>,
    order: Result<Json<ImportOrder>, JsonRejection>,
) -> Answer<ImportAnswer> {
    let order = body(order)?;
    let changes = order
        .changes
        .into_iter()
        .map(RecordChange::parse)
        .collect::<Result<_, _>>();
    let (generation, changed) = agent.commit(changes?).await?;
    Ok(Json(ImportAnswer {
        generation,
        changed,
    }))
}

/// Every record as JSON lines, in the form that an import takes.
async fn export(State(agent): State<AgentHandle>) -> Result<impl IntoResponse, ApiError> {
    let mut lines = Vec::new();
    region::write(&mut lines, &agent.records().await?).map_err(internal)?;
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], lines))
}

/// Takes what a store that went back holds now.
async fn follow_store(State(agent): State<AgentHandle>) -> Answer<Value> {
    agent.follow_store().await?;
    Ok(Json(json!({ "state": "following" })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DumpOrder {
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
