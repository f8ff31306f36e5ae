//! Regions into a store and out of it without an agent in between: for loading much, and for backups.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use serde_json::json;

use super::CliError;
use super::client::ClientError;
use super::output::Output;
use crate::api::error::ApiError;
use crate::config::StoreConfig;
use crate::inventory::Inventory;
use crate::region;
use crate::store::embedded::EmbeddedStore;
use crate::store::etcd::EtcdStore;
use crate::store::{Change, Store};

/// How many records are written between two words on progress.
const STRIDE: usize = 50_000;

fn open(config: &StoreConfig) -> Result<Box<dyn Store>, CliError> {
    Ok(match config {
        StoreConfig::Embedded { path } => Box::new(EmbeddedStore::open(path)?),
        StoreConfig::Etcd(etcd) => Box::new(EtcdStore::without_snapshot(etcd.clone())),
    })
}

/// Loads every record of a file or directory, after all of them were found good beside one another.
pub(super) async fn import(config: &StoreConfig, out: Output, path: &Path) -> Result<(), CliError> {
    let entries = region::read(path)?;
    let total = entries.len();
    let mut changes: Vec<Change> = Vec::with_capacity(total);
    changes.extend(
        entries
            .iter()
            .map(|entry| Change::put(&entry.key, &entry.record)),
    );
    drop(entries);
    let checked = Inventory::check_whole(&changes);
    checked.map_err(|errors| ClientError::Api(ApiError::refused(&errors)))?;
    let store = open(config)?;
    let (mut written, mut generation) = (0, 0);
    let tells = io::stderr().is_terminal();
    let mut changes = changes.into_iter();
    loop {
        let part: Vec<Change> = changes.by_ref().take(STRIDE).collect();
        if part.is_empty() {
            break;
        }
        written += part.len();
        generation = store.fill(part).await?;
        if tells {
            write!(io::stderr(), "\r{written} of {total} records")?;
        }
    }
    if tells && total > 0 {
        writeln!(io::stderr())?;
    }
    out.json(&json!({ "imported": total, "generation": generation }))?;
    out.line(format!(
        "imported {total} records; the store is at generation {generation}"
    ))?;
    Ok(())
}

/// Prints every record as JSON lines.
pub(super) async fn export(config: &StoreConfig) -> Result<(), CliError> {
    let all = open(config)?.load().await?;
    Ok(region::write(io::stdout().lock(), &all.records)?)
}
