//! What API servers ask gateways, by way of the store, and what these answer.

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

/// A question.
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
    let request = match Request::get(path).body(Body::empty()) {
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
