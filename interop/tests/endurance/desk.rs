//! Where orders are given over the admin socket without a process for each: what takes thousands of them.

use ccn::cli::args::ServerArgs;
use ccn::cli::client::{Client, ClientError};
use interop::gateway::Gateway;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::Failure;

/// One client of the gateway's agent.
pub(super) struct Desk {
    client: Client,
    runtime: Runtime,
}

impl Desk {
    /// In front of this gateway.
    pub(super) fn at(gateway: &Gateway) -> Result<Self, Failure> {
        let nobody_else = ServerArgs {
            gateway: None,
            server: Vec::new(),
            ca: "/unused".into(),
            token_file: None,
            cert: None,
            key: None,
        };
        Ok(Self {
            client: Client::new(&gateway.config.admin_socket, &nobody_else)?,
            runtime: Builder::new_current_thread().enable_all().build()?,
        })
    }

    /// Links a VPC; answered when it is announced.
    pub(super) fn link(&self, name: &str, vpc: &str, classic: &str) -> Result<Value, ClientError> {
        let order = json!({ "name": name, "vpc": vpc, "classic": [classic] });
        self.runtime.block_on(self.client.post("/v1/links", &order))
    }

    /// Takes a link back; answered when nothing of it forwards.
    pub(super) fn unlink(&self, name: &str) -> Result<Value, ClientError> {
        let path = format!("/v1/links/{name}");
        self.runtime.block_on(self.client.delete(&path))
    }

    /// Puts and deletes (`null`) records, all in one generation.
    pub(super) fn change(&self, records: &[(&str, Value)]) -> Result<Value, ClientError> {
        let change = |(key, value): &(&str, Value)| json!({ "key": key, "value": value });
        let order = json!({ "changes": records.iter().map(change).collect::<Vec<_>>() });
        self.runtime
            .block_on(self.client.post("/v1/records", &order))
    }
}
