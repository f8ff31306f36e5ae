//! Regions in and out: import in parts that the socket takes, export, and made-up ones.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::CliError;
use super::args::FixtureArgs;
use super::client::Client;
use super::output::{Output, raw};
use crate::api::MAX_REQUEST;
use crate::fixture::{self, FixtureSpec};
use crate::region;

/// How much of a request the records may fill; the rest is left to its frame.
const PART: usize = MAX_REQUEST - 4096;

/// Loads every record of a file or directory: what is named before what names it, in one
/// transaction where it fits one request.
pub(super) async fn import(client: &Client, out: Output, path: &Path) -> Result<(), CliError> {
    let entries = region::read(path)?;
    let total = entries.len();
    let mut part = Vec::new();
    let mut size = 0;
    let mut generation = Value::Null;
    let bar = progress(out, total);
    for entry in &entries {
        let change = json!({ "key": entry.key, "value": entry.record });
        let length = change.to_string().len() + 1;
        if size + length > PART && !part.is_empty() {
            let count = part.len();
            generation = send(client, &mut part).await?;
            bar.inc(count as u64);
            size = 0;
        }
        size += length;
        part.push(change);
    }
    if !part.is_empty() {
        generation = send(client, &mut part).await?;
    }
    bar.finish_and_clear();
    out.json(&json!({ "imported": total, "generation": generation }))?;
    out.line(format!(
        "imported {total} records; the store is at generation {generation}"
    ))?;
    Ok(())
}

/// A bar on standard error, which shows nothing unless that is a terminal and text was asked for.
fn progress(out: Output, records: usize) -> ProgressBar {
    let target = match !out.is_json() && io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(records as u64), target);
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} records, {eta} left");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

async fn send(client: &Client, part: &mut Vec<Value>) -> Result<Value, CliError> {
    let changes = std::mem::take(part);
    let answer: Value = client
        .post("/v1/records", &json!({ "changes": changes }))
        .await?;
    Ok(answer.pointer("/generation").cloned().unwrap_or_default())
}

/// Prints every record as JSON lines.
pub(super) async fn export(client: &Client) -> Result<(), CliError> {
    let lines = client.bytes("/v1/records").await?;
    Ok(io::stdout().lock().write_all(&lines)?)
}

/// Prints a made-up region.
pub(super) fn fixture(args: &FixtureArgs) -> Result<(), CliError> {
    let spec = FixtureSpec {
        vms: args.vms,
        vpcs: args.vpcs,
        hosts: args.hosts,
        seed: args.seed,
    };
    for line in fixture::generate(&spec).map_err(|e| CliError::Usage(e.to_string()))? {
        raw(&line)?;
    }
    Ok(())
}
