//! What concerns one gateway, asked of that gateway: the routes of its admin socket that answer with JSON, below
//! `/v1/gateways/<gateway>/`.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::office::Server;
use super::placement::live;
use crate::api::error::{ApiError, ErrorCode};
use crate::api::{Question, Said};
use crate::record::GatewayName;

/// How long a gateway has to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the routes of gateways begin with.
const BELOW: &str = "/v1/gateways/";

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/v1/gateways/{gateway}/{*route}", get(ask))
}

async fn ask(
    State(server): State<Server>,
    Path((gateway, _)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let gateway: GatewayName = gateway.parse().map_err(|error| {
        ApiError::new(
            ErrorCode::BadRequest,
            format!("the name of the gateway {error}"),
        )
    })?;
    let path = path_there(&uri).ok_or_else(|| {
        let message = format!("{uri}: no route of a gateway follows its name");
        ApiError::new(ErrorCode::BadRequest, message)
    })?;
    let alive = server.ledger.ask(|ledger| live(ledger.inventory(), None));
    let alive = alive.await?;
    if !alive.contains_key(&gateway) {
        let names: Vec<&str> = alive.keys().map(GatewayName::as_str).collect();
        let message = format!(
            "no gateway {gateway} is alive; there are: {}",
            names.join(", ")
        );
        return Err(ApiError::new(ErrorCode::NotFound, message));
    }
    let question = Question::Get {
        gateway: gateway.clone(),
        path,
    };
    let only = BTreeSet::from([gateway.clone()]);
    let said = server.ask(&question, &only, PATIENCE).await?;
    let unknown = |why: String| {
        let message = format!("{gateway}: {why}");
        Err(ApiError::new(ErrorCode::Unavailable, message))
    };
    match said.get(&gateway).map(|said| serde_json::from_slice(said)) {
        Some(Ok(Said::Answer { status, body })) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            Ok((status, Json(body)).into_response())
        }
        Some(Ok(Said::Unknown(why))) => unknown(why),
        Some(Ok(Said::Outcome(_))) => unknown("it answered something else".to_owned()),
        Some(Err(error)) => unknown(format!("its answer cannot be read: {error}")),
        None => unknown(format!("no answer within {} s", PATIENCE.as_secs())),
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
