//! Regions into a store and out of it without an agent in between: for loading much, and for backups.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use serde_json::json;

use super::CliError;
use super::client::ClientError;
use super::output::Output;
use crate::api::error::ApiError;
use crate::config::StoreConfig;
use crate::inventory::{Inventory, Loaded};
use crate::record::RecordError;
use crate::region;
use crate::store::embedded::EmbeddedStore;
use crate::store::etcd::EtcdStore;
use crate::store::{Change, Store};

/// How many records are written between two words on progress.
const STRIDE: usize = 50_000;
/// The most faults that are told.
const MOST_FAULTS: usize = 100;

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
    let errors = faults(&changes);
    if !errors.is_empty() {
        return Err(ClientError::Api(ApiError::refused(&errors)).into());
    }
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

/// What is wrong with records that are all there is: they are loaded as from a store, and nothing is to be taken back.
fn faults(changes: &[Change]) -> Vec<RecordError> {
    let mut inventory = Inventory::default();
    let mut load = inventory.begin_load();
    for change in changes {
        if let Change::Put { key, value } = change {
            inventory.load_one(&mut load, Loaded::parse(key, 0, value));
        }
    }
    inventory.end_load(load);
    inventory.quarantine().take(MOST_FAULTS).cloned().collect()
}

/// Prints every record as JSON lines.
pub(super) async fn export(config: &StoreConfig) -> Result<(), CliError> {
    let all = open(config)?.load().await?;
    Ok(region::write(io::stdout().lock(), &all.records)?)
}
