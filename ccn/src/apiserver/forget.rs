//! A gateway that is gone and will not be back is counted no longer, by the word of somebody who knows.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::delete;
use axum::{Json, Router};
use serde_json::json;

use super::office::Server;
use super::relay;
use super::status::{GoneGateway, of_those_gone};
use crate::api::caller::Caller;
use crate::api::error::{ApiError, ErrorCode};
use crate::record::GatewayName;

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/v1/gateways/{gateway}", delete(forget))
}

/// Written down in the audit log before and after.
async fn forget(
    State(server): State<Server>,
    Path(gateway): Path<String>,
    caller: Caller,
) -> Result<Json<GoneGateway>, ApiError> {
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
    async fn forget(&self, gateway: GatewayName) -> Result<GoneGateway, ApiError> {
        let held = self.store.held(None).await?;
        let asked = gateway.clone();
        let seen = self.ledger.ask(move |ledger| {
            let inventory = ledger.inventory();
            let is_alive = inventory.gateways().any(|(name, _)| *name == asked);
            (is_alive, of_those_gone(inventory, held))
        });
        let (is_alive, gone) = seen.await?;
        if is_alive {
            let message = format!(
                "{gateway} is alive: stop its agent first, and take its plane away (ccn plane remove) if it is not to \
                 forward any more"
            );
            return Err(ApiError::new(ErrorCode::Refused, message));
        }
        let Some(forgotten) = gone.iter().find(|it| it.gateway == gateway) else {
            let names: Vec<&str> = gone.iter().map(|it| it.gateway.as_str()).collect();
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
        };
        self.store
            .forget_gateway(&gateway, &forgotten.links)
            .await?;
        Ok(forgotten.clone())
    }
}
