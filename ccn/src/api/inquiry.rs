//! What API servers ask gateways and order them to do, by way of the store, and what these answer.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tower::ServiceExt;

use super::Outcome;
use crate::controller::AgentHandle;
use crate::record::{GatewayName, LinkId};

/// The most octets of an answer of a route: with its frame it has to be a value of the store.
const MOST_BYTES: usize = 1_000_000;
/// How long an order may take to be answered; then it goes on, and how it goes can be asked.
const ANSWERED: Duration = Duration::from_secs(8);
/// What takes long; the first one also says how that goes.
const DRAINS: [&str; 2] = ["/v1/drain", "/v1/undrain"];

/// A question, or an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// What it would come to if a link had this record. Only gateways of its group answer.
    Plan {
        /// The link.
        link: LinkId,
        /// Its record then.
        record: Value,
    },
    /// What a route of the admin socket of one gateway answers.
    Get {
        /// Which gateway.
        gateway: GatewayName,
        /// The path of the route, with the query if there is one.
        path: String,
    },
    /// What one gateway is to do that concerns nobody else: see [`is_order`].
    Order {
        /// Which gateway.
        gateway: GatewayName,
        /// The path of the route, with the query if there is one.
        path: String,
        /// The body.
        body: Value,
    },
}

/// Whether a `POST` to this path of an admin socket, which may have a query, concerns that gateway alone, and comes to the same
/// when it is sent twice. Records and links are everybody's.
#[must_use]
pub fn is_order(path: &str) -> bool {
    let route = path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = route.split('/').collect();
    match parts.as_slice() {
        ["", "v1", "drain" | "undrain" | "reload"] => true,
        ["", "v1", "peers", peer, "up" | "down" | "refresh"] => !peer.is_empty(),
        _ => false,
    }
}

/// A gateway's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// What would change.
    Outcome(Outcome),
    /// What the route answered.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: Value,
    },
    /// Why it cannot tell.
    Unknown(String),
}

/// What the admin socket answers to a `GET` of JSON.
pub(crate) async fn get(agent: AgentHandle, path: &str) -> Said {
    answer(agent, path, Request::get(path).body(Body::empty())).await
}

/// Carries out what the admin socket does at a `POST`. What takes long goes on; then the answer is how it goes.
pub(crate) async fn order(agent: AgentHandle, path: &str, body: &Value) -> Said {
    if !is_order(path) {
        return Said::Unknown(format!("{path} is no order for one gateway"));
    }
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()));
    let carried_out = {
        let (agent, path) = (agent.clone(), path.to_owned());
        tokio::spawn(async move { answer(agent, &path, request).await })
    };
    match tokio::time::timeout(ANSWERED, carried_out).await {
        Ok(Ok(said)) => said,
        Ok(Err(error)) => Said::Unknown(format!("{path}: {error}")),
        Err(_) if DRAINS.iter().any(|drain| path.starts_with(drain)) => get(agent, DRAINS[0]).await,
        Err(_) => Said::Unknown(format!(
            "{path} is under way and not done within {} s: ask how it goes",
            ANSWERED.as_secs()
        )),
    }
}

async fn answer(
    agent: AgentHandle,
    path: &str,
    request: axum::http::Result<Request<Body>>,
) -> Said {
    let request = match request {
        Ok(request) if request.uri().authority().is_none() => request,
        _ => return Said::Unknown(format!("{path:?} is no path")),
    };
    let response = match super::router(agent).oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind != "application/json" {
        return Said::Unknown(format!("{path} answers no JSON: ask at the gateway itself"));
    }
    let Ok(body) = axum::body::to_bytes(response.into_body(), MOST_BYTES).await else {
        return Said::Unknown(format!(
            "the answer is over {MOST_BYTES} octets: ask at the gateway itself"
        ));
    };
    match serde_json::from_slice(&body) {
        Ok(body) => Said::Answer {
            status: status.as_u16(),
            body,
        },
        Err(error) => Said::Unknown(format!("{path} answered no JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_one_gateway_alone_is_an_order_for_it() {
        for (path, is) in [
            ("/v1/drain", true),
            ("/v1/drain?wait_ms=5&settle_ms=1", true),
            ("/v1/undrain?wait_ms=5", true),
            ("/v1/reload", true),
            ("/v1/peers/bird-1/down", true),
            ("/v1/peers/bird-1/up", true),
            ("/v1/peers/a%2Fb/refresh", true),
            ("/v1/peers//up", false),
            ("/v1/peers/bird-1", false),
            ("/v1/peers/bird-1/up/down", false),
            ("/v1/drain/", false),
            ("/v1/links", false),
            ("/v1/links/web/undo", false),
            ("/v1/records", false),
            ("/v1/store/follow", false),
            ("/v1/mrt/dump", false),
            ("v1/drain", false),
            ("http://elsewhere/v1/drain", false),
            ("", false),
        ] {
            assert_eq!(is_order(path), is, "{path}");
        }
    }
}
