//! The routes that agents and API servers have in common: records, and links made of them.
//!
//! What shows one link has its generation as the ETag, and orders for a link take `If-Match` as single records do, so
//! that nobody changes a link that is not any more what they have seen.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::HeaderMap;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::caller::Caller;
use super::error::{ApiError, ErrorCode, Fault};
use super::office::{Office, Terms};
use super::{
    Answer, GatewayView, LinkView, RecordChange, VmView, VpcView, body, internal, listing, query,
    records, stream,
};
use crate::ledger::records::{Condition, Expected};
use crate::link::orders::{self, LinkOrder};
use crate::record::{LinkId, RecordKey, Vni, VpcId};
use crate::region;

/// The header that names an order, so that it is carried out once.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The longest wait that may be asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

pub(super) fn routes<O: Office>() -> Router<O> {
    Router::new()
        .route("/v1/status", get(status::<O>))
        .route("/v1/links", get(links::<O>).post(link::<O>))
        .route("/v1/links/{link}", get(one_link::<O>).delete(unlink::<O>))
        .route("/v1/links/{link}/disable", post(set_enabled::<O, false>))
        .route("/v1/links/{link}/enable", post(set_enabled::<O, true>))
        .route("/v1/links/{link}/confirm", post(confirm::<O>))
        .route("/v1/links/{link}/undo", post(undo::<O>))
        .route("/v1/vpcs", get(vpcs::<O>))
        .route("/v1/vms", get(vms::<O>))
        .route("/v1/gateways", get(gateways::<O>))
        .route("/v1/quarantine", get(quarantine::<O>))
        .route("/v1/explain", get(explain::<O>))
        .route("/v1/records", get(export::<O>).merge(post(import::<O>)))
        .merge(records::routes())
        .route("/v1/store/follow", post(follow_store::<O>))
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
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

/// How an order is to be carried out, as the request says.
pub(super) struct Ordered {
    pub(super) terms: Terms,
    dry_run: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Ordered {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let wait = Query::<Wait>::from_request_parts(parts, state).await;
        let Wait {
            wait_ms,
            dry_run,
            confirm_ms,
        } = query(wait)?;
        let Ok(caller) = Caller::from_request_parts(parts, state).await;
        let once = parts.headers.get(IDEMPOTENCY_KEY).map(once).transpose()?;
        let terms = Terms {
            once: once.map(|once| format!("{}/{once}", caller.name)),
            caller,
            wait: Duration::from_millis(wait_ms).min(LONGEST_WAIT),
            confirm: confirm_ms.map(Duration::from_millis),
            only_if: None,
        };
        Ok(Ordered { terms, dry_run })
    }
}

/// The name of an order: 1 to 128 letters, digits, `-`, `_`, `.` and `:`.
fn once(value: &header::HeaderValue) -> Result<String, ApiError> {
    let is_fine = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.:".contains(&octet);
    let text = value.to_str().ok();
    let text = text.filter(|text| (1..=128).contains(&text.len()) && text.bytes().all(is_fine));
    text.map(str::to_owned).ok_or_else(|| {
        let message = "Idempotency-Key: takes 1 to 128 letters, digits and -_.:";
        ApiError::new(ErrorCode::BadRequest, message)
    })
}

fn link_id(text: &str) -> Result<LinkId, ApiError> {
    text.parse()
        .map_err(|e| ApiError::new(ErrorCode::BadRequest, format!("the name of the link {e}")))
}

/// A link, with its generation as the tag.
fn shown(link: LinkView) -> Response {
    match link.generation {
        Some(generation) => {
            let tag = [(header::ETAG, records::tag(generation))];
            (tag, Json(link)).into_response()
        }
        None => Json(link).into_response(),
    }
}

/// A link that is not there any more.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Gone {
    /// Its name.
    link: LinkId,
    /// `removed`
    state: Removed,
}

/// What has become of something that was deleted.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Removed {
    /// It is not there any more.
    Removed,
}

/// A link that may have gone.
fn left(id: &LinkId, link: Option<LinkView>) -> Response {
    match link {
        Some(link) => shown(link),
        None => {
            let link = id.clone();
            let state = Removed::Removed;
            Json(Gone { link, state }).into_response()
        }
    }
}

async fn status<O: Office>(State(office): State<O>) -> Answer<Value> {
    Ok(Json(office.status().await?))
}

async fn links<O: Office>(State(office): State<O>) -> Answer<Vec<LinkView>> {
    Ok(Json(office.links().await?))
}

async fn one_link<O: Office>(
    State(office): State<O>,
    Path(link): Path<String>,
) -> Result<Response, ApiError> {
    let id = link_id(&link)?;
    let link = office.one_link(id.clone()).await?;
    link.map(shown).ok_or_else(|| orders::unknown(&id))
}

/// The link that is meant, and the terms, with what the request expects of the link.
fn asked(link: &str, headers: &HeaderMap, terms: Terms) -> Result<(LinkId, Terms), ApiError> {
    let link = link_id(link)?;
    let only_if = Some(Condition {
        key: RecordKey::Link(link.clone()),
        expected: records::expected(headers)?,
    });
    Ok((link, Terms { only_if, ..terms }))
}

async fn link<O: Office>(
    State(office): State<O>,
    headers: HeaderMap,
    Ordered { terms, dry_run }: Ordered,
    order: Result<Json<LinkOrder>, JsonRejection>,
) -> Result<Response, ApiError> {
    let order = body(order)?;
    let expected = records::expected(&headers)?;
    let only_if = match (&order.name, expected) {
        (_, Expected::Anything) => None,
        (Some(name), expected) => Some(Condition {
            key: RecordKey::Link(name.clone()),
            expected,
        }),
        (None, _) => {
            let message = "name: is missing: of which link do you expect that?";
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        }
    };
    let terms = Terms { only_if, ..terms };
    if dry_run {
        return Ok(Json(office.check_link(order).await?).into_response());
    }
    Ok(shown(office.link(order, terms).await?))
}

/// `ccn enable`, or `ccn disable`.
async fn set_enabled<O: Office, const ENABLED: bool>(
    State(office): State<O>,
    Path(link): Path<String>,
    headers: HeaderMap,
    Ordered { terms, .. }: Ordered,
) -> Result<Response, ApiError> {
    let (link, terms) = asked(&link, &headers, terms)?;
    Ok(shown(office.set_enabled(link, ENABLED, terms).await?))
}

async fn confirm<O: Office>(
    State(office): State<O>,
    Path(link): Path<String>,
    headers: HeaderMap,
    Ordered { terms, .. }: Ordered,
) -> Result<Response, ApiError> {
    let (link, terms) = asked(&link, &headers, terms)?;
    Ok(left(&link, office.confirm(link.clone(), terms).await?))
}

async fn undo<O: Office>(
    State(office): State<O>,
    Path(link): Path<String>,
    headers: HeaderMap,
    Ordered { terms, dry_run }: Ordered,
) -> Result<Response, ApiError> {
    let (link, terms) = asked(&link, &headers, terms)?;
    if dry_run {
        return Ok(Json(office.check_undo(link).await?).into_response());
    }
    Ok(left(&link, office.undo(link.clone(), terms).await?))
}

async fn unlink<O: Office>(
    State(office): State<O>,
    Path(link): Path<String>,
    headers: HeaderMap,
    Ordered { terms, .. }: Ordered,
) -> Result<Response, ApiError> {
    let (link, terms) = asked(&link, &headers, terms)?;
    Ok(left(&link, office.unlink(link.clone(), terms).await?))
}

async fn vpcs<O: Office>(State(office): State<O>) -> Answer<Vec<VpcView>> {
    let vpcs = office
        .ledger()
        .ask(|ledger| listing::vpcs(ledger.inventory()));
    Ok(Json(vpcs.await?))
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VmFilter {
    vpc: Option<VpcId>,
}

async fn vms<O: Office>(
    State(office): State<O>,
    filter: Result<Query<VmFilter>, QueryRejection>,
) -> Answer<Vec<VmView>> {
    let VmFilter { vpc } = query(filter)?;
    let vms = move |ledger: &crate::ledger::Ledger| listing::vms(ledger.inventory(), vpc.as_ref());
    Ok(Json(office.ledger().ask(vms).await?))
}

async fn gateways<O: Office>(State(office): State<O>) -> Answer<Vec<GatewayView>> {
    let gateways = office
        .ledger()
        .ask(|ledger| listing::gateways(ledger.inventory()));
    Ok(Json(gateways.await?))
}

async fn quarantine<O: Office>(State(office): State<O>) -> Answer<Vec<Fault>> {
    let faults = office
        .ledger()
        .ask(|ledger| listing::quarantine(ledger.inventory()));
    Ok(Json(faults.await?))
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    src: IpAddr,
    dst: IpAddr,
    vni: Option<Vni>,
}

async fn explain<O: Office>(
    State(office): State<O>,
    packet: Result<Query<ExplainQuery>, QueryRejection>,
) -> Answer<crate::explain::Explanation> {
    let ExplainQuery { src, dst, vni } = query(packet)?;
    Ok(Json(office.explain(src, dst, vni).await?))
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportOrder {
    changes: Vec<RecordChange>,
}

#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct ImportAnswer {
    generation: u64,
    changed: usize,
}

async fn import<O: Office>(
    State(office): State<O>,
    Ordered { terms, .. }: Ordered,
    request: Request,
) -> Result<Response, ApiError> {
    if stream::is_of_lines(request.headers()) {
        return stream::import(office, terms, request.into_body()).await;
    }
    let order = Json::<ImportOrder>::from_request(request, &()).await;
    let changes = body(order)?.changes.into_iter().map(RecordChange::parse);
    let changes = changes.collect::<Result<Vec<_>, _>>()?;
    let make = Arc::new(move |_: &_| Ok(changes.clone()));
    let made = office.change(make, terms).await?;
    let answer = ImportAnswer {
        generation: made.generation,
        changed: made.keys.len(),
    };
    Ok(Json(answer).into_response())
}

/// Every record as JSON lines, in the form that an import takes.
async fn export<O: Office>(State(office): State<O>) -> Result<impl IntoResponse, ApiError> {
    let mut lines = Vec::new();
    region::write(&mut lines, &office.ledger().records().await?).map_err(internal)?;
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], lines))
}

/// Takes what a store that went back holds now.
async fn follow_store<O: Office>(
    State(office): State<O>,
    Ordered { terms, .. }: Ordered,
) -> Answer<Value> {
    office.follow_store(terms).await?;
    Ok(Json(json!({ "state": "following" })))
}
