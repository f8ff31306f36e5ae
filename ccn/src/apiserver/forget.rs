//! A gateway that is gone and will not be back is counted no longer, by the word of somebody who knows.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::delete;
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::office::Server;
use super::placement::{gone, live};
use super::relay;
use crate::api::caller::Caller;
use crate::api::error::{ApiError, ErrorCode};
use crate::record::{GatewayName, LinkId};

/// A gateway that was forgotten.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Forgotten {
    /// Its name.
    pub gateway: GatewayName,
    /// The links of which it may have had something in its kernel.
    pub links: Vec<LinkId>,
}

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/v1/gateways/{gateway}", delete(forget))
}

/// Written down in the audit log before and after.
async fn forget(
    State(server): State<Server>,
    Path(gateway): Path<String>,
    caller: Caller,
) -> Result<Json<Forgotten>, ApiError> {
    let gateway = relay::named(&gateway)?;
    let entry = server
        .audit
        .begin(&caller, "forget-gateway", json!({ "gateway": gateway }))?;
    let forgotten = server.forget(gateway).await;
    entry.answered(&match &forgotten {
        Ok(forgotten) => Ok((StatusCode::OK, json!(forgotten))),
        Err(error) => Err(error.clone()),
    });
    forgotten.map(Json)
}

impl Server {
    async fn forget(&self, gateway: GatewayName) -> Result<Forgotten, ApiError> {
        let held = self.store.held(None).await?;
        let seen = |gateway: GatewayName| {
            self.ledger.ask(move |ledger| {
                let inventory = ledger.inventory();
                let is_alive = live(inventory, None).contains_key(&gateway);
                (
                    is_alive,
                    gone(inventory, held.into_values().flatten().collect()),
                )
            })
        };
        let (is_alive, gone) = seen(gateway.clone()).await?;
        if is_alive {
            let message = format!(
                "{gateway} is alive: stop its agent first, and take its plane away (ccn plane remove) if it is not to \
                 forward any more"
            );
            return Err(ApiError::new(ErrorCode::Refused, message));
        }
        if !gone.contains(&gateway) {
            let names: Vec<&str> = gone.iter().map(GatewayName::as_str).collect();
            let message = match names.is_empty() {
                true => {
                    format!("nothing is known of {gateway}, and of no other gateway that is gone")
                }
                false => format!(
                    "nothing is known of {gateway}; gone are: {}",
                    names.join(", ")
                ),
            };
            return Err(ApiError::new(ErrorCode::NotFound, message));
        }
        let links = self.store.forget_gateway(&gateway).await?;
        Ok(Forgotten {
            gateway,
            links: links.into_iter().collect(),
        })
    }
}
