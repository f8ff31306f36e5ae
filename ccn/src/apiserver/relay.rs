//! What concerns one gateway, asked of that gateway and ordered of it: the routes of its admin socket that answer with
//! JSON, below `/v1/gateways/<gateway>/`.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Value, json};

use super::office::Server;
use super::placement::live;
use crate::api::caller::Caller;
use crate::api::error::{ApiError, ErrorCode};
use crate::api::{Question, Said, inquiry};
use crate::record::GatewayName;

/// How long a gateway has to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the routes of gateways begin with.
const BELOW: &str = "/v1/gateways/";

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/v1/gateways/{gateway}/{*route}", get(ask).post(order))
}

async fn ask(
    State(server): State<Server>,
    Path((gateway, _)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let (gateway, path) = addressed(&gateway, &uri)?;
    let question = Question::Get {
        gateway: gateway.clone(),
        path,
    };
    let (status, body) = server.said_by(&gateway, &question).await?;
    Ok((status, Json(body)).into_response())
}

/// Written down in the audit log before and after. It is not carried out once only: twice comes to the same.
async fn order(
    State(server): State<Server>,
    Path((gateway, _)): Path<(String, String)>,
    uri: Uri,
    caller: Caller,
    body: Bytes,
) -> Result<Response, ApiError> {
    let (gateway, path) = addressed(&gateway, &uri)?;
    if !inquiry::is_order(&path) {
        let message = format!(
            "{path} is no order for one gateway: it drains, undrains, reloads, and takes peers up and down"
        );
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let body: Value = match body.is_empty() {
        true => json!({}),
        false => serde_json::from_slice(&body)
            .map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))?,
    };
    let what = json!({ "gateway": gateway, "path": path, "body": body });
    let entry = server.audit.begin(&caller, "gateway", what)?;
    let question = Question::Order {
        gateway: gateway.clone(),
        path,
        body,
    };
    let said = server.said_by(&gateway, &question).await;
    entry.answered(&said);
    let (status, body) = said?;
    Ok((status, Json(body)).into_response())
}

/// Which gateway is meant, and the route there.
fn addressed(gateway: &str, uri: &Uri) -> Result<(GatewayName, String), ApiError> {
    let gateway = named(gateway)?;
    let path = path_there(uri).ok_or_else(|| {
        let message = format!("{uri}: no route of a gateway follows its name");
        ApiError::new(ErrorCode::BadRequest, message)
    })?;
    Ok((gateway, path))
}

/// A gateway by its name.
pub(super) fn named(gateway: &str) -> Result<GatewayName, ApiError> {
    gateway.parse().map_err(|error| {
        ApiError::new(
            ErrorCode::BadRequest,
            format!("the name of the gateway {error}"),
        )
    })
}

impl Server {
    /// What one gateway says, which has to be alive.
    async fn said_by(
        &self,
        gateway: &GatewayName,
        question: &Question,
    ) -> Result<(StatusCode, Value), ApiError> {
        let alive = self.ledger.ask(|ledger| live(ledger.inventory(), None));
        let alive = alive.await?;
        if !alive.contains_key(gateway) {
            let names: Vec<&str> = alive.keys().map(GatewayName::as_str).collect();
            let message = format!(
                "no gateway {gateway} is alive; there are: {}",
                names.join(", ")
            );
            return Err(ApiError::new(ErrorCode::NotFound, message));
        }
        let only = BTreeSet::from([gateway.clone()]);
        let said = self.ask(question, &only, PATIENCE).await?;
        let unknown = |why: String| {
            let message = format!("{gateway}: {why}");
            Err(ApiError::new(ErrorCode::Unavailable, message))
        };
        match said.get(gateway).map(|said| serde_json::from_slice(said)) {
            Some(Ok(Said::Answer { status, body })) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                Ok((status, body))
            }
            Some(Ok(Said::Unknown(why))) => unknown(why),
            Some(Ok(Said::Outcome(_))) => unknown("it answered something else".to_owned()),
            Some(Err(error)) => unknown(format!("its answer cannot be read: {error}")),
            None => unknown(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }
}

/// The route at the gateway, with its query, of one here; octets that were escaped stay so.
fn path_there(uri: &Uri) -> Option<String> {
    let path = uri.path_and_query()?.as_str();
    let (_, route) = path.strip_prefix(BELOW)?.split_once('/')?;
    Some(format!("/v1/{route}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_at_a_gateway_is_what_follows_its_name() {
        for (uri, there) in [
            ("/v1/gateways/gw/peers", Some("/v1/peers")),
            (
                "/v1/gateways/gw/explain?src=1.1.1.1&dst=fd00::1",
                Some("/v1/explain?src=1.1.1.1&dst=fd00::1"),
            ),
            ("/v1/gateways/gw/peers/a%2Fb", Some("/v1/peers/a%2Fb")),
            ("/v1/gateways/gw", None),
            ("/v1/links/gw/x", None),
        ] {
            let uri: Uri = uri.parse().expect("a URI");
            assert_eq!(path_there(&uri).as_deref(), there, "{uri}");
        }
    }
}
