//! `ccn peer`: one peer in full, and what can be ordered of it; `ccn reload`.

use serde_json::{Value, json};

use super::CliError;
use super::args::{PeerArgs, PeerVerb};
use super::client::Client;
use super::output::{Column, Output, text};

pub(super) async fn peer(args: PeerArgs, client: &Client, out: Output) -> Result<(), CliError> {
    let (verb, name) = args.order().map_err(CliError::Usage)?;
    let path = format!("/v1/peers/{name}");
    match verb {
        PeerVerb::Show => show(&client.get(&path).await?, out),
        PeerVerb::Up => {
            let done: Value = client.post(&format!("{path}/up"), &json!({})).await?;
            out.json(&done)?;
            Ok(out.line(format!("{name} may come up; see `ccn peer {name}`"))?)
        }
        PeerVerb::Down => {
            let order = json!({ "text": args.text });
            let done: Value = client.post(&format!("{path}/down"), &order).await?;
            out.json(&done)?;
            Ok(out.line(format!("{name} is down until `ccn peer up {name}`"))?)
        }
        PeerVerb::Refresh => {
            let done: Value = client.post(&format!("{path}/refresh"), &json!({})).await?;
            out.json(&done)?;
            Ok(out.line(format!("{name} was asked for all its routes"))?)
        }
    }
}

fn show(peer: &Value, out: Output) -> Result<(), CliError> {
    if out.is_json() {
        return Ok(out.json(peer)?);
    }
    let internal = match peer.pointer("/internal") {
        Some(Value::Bool(true)) => "internal",
        _ => "external",
    };
    out.line(format!(
        "{} at {}, AS {} ({internal}): {} for {} s",
        text(peer, "/name"),
        text(peer, "/address"),
        text(peer, "/asn"),
        text(peer, "/state"),
        text(peer, "/since_seconds"),
    ))?;
    out.line(format!(
        "router id {}, our address {}, hold time {} s, messages {} in, {} out, sessions so far {}",
        text(peer, "/router_id"),
        text(peer, "/local_address"),
        text(peer, "/hold_time"),
        text(peer, "/messages_in"),
        text(peer, "/messages_out"),
        text(peer, "/sessions"),
    ))?;
    if let Some(group) = peer.pointer("/dynamic").and_then(Value::as_str) {
        out.line(format!("one of the dynamic peers {group}"))?;
    }
    if let Some(error) = peer.pointer("/last_error").and_then(Value::as_str) {
        out.line(format!("last error: {error}"))?;
    }
    if let Some(bfd) = peer.pointer("/bfd").filter(|bfd| !bfd.is_null()) {
        out.line(format!("bfd: {}", text(bfd, "/state")))?;
    }
    let notes = peer.pointer("/notes").and_then(Value::as_array);
    for note in notes.into_iter().flatten().filter_map(Value::as_str) {
        out.line(format!("note: {note}"))?;
    }
    out.line("")?;
    const ROUTES: &[Column] = &[
        ("FAMILY", |r| text(r, "/family")),
        ("RECEIVED", |r| text(r, "/received")),
        ("ACCEPTED", |r| text(r, "/accepted")),
        ("STALE", |r| text(r, "/stale")),
        ("LIMIT", |r| text(r, "/limit")),
        ("ADVERTISED", |r| text(r, "/advertised")),
        ("PENDING", |r| text(r, "/pending")),
    ];
    let families = peer.pointer("/prefixes").and_then(Value::as_object);
    let rows = families.into_iter().flatten().map(|(family, counts)| {
        let mut row = counts.clone();
        if let Some(row) = row.as_object_mut() {
            row.insert("family".to_owned(), family.clone().into());
        }
        row
    });
    out.list(&rows.collect(), ROUTES, "no families")?;
    out.line("")?;
    const CAPABILITIES: &[Column] = &[
        ("CAPABILITY", |r| text(r, "/name")),
        ("OURS", |r| text(r, "/ours")),
        ("THEIRS", |r| text(r, "/theirs")),
        ("IN USE", |r| match r.pointer("/in_use") {
            Some(Value::Bool(true)) => "yes".to_owned(),
            _ => "no".to_owned(),
        }),
    ];
    let capabilities = peer.pointer("/capabilities").cloned().unwrap_or_default();
    Ok(out.list(
        &capabilities,
        CAPABILITIES,
        "capabilities are known once the peer has sent its OPEN",
    )?)
}

/// Has the agent read its configuration again.
pub(super) async fn reload(client: &Client, out: Output) -> Result<(), CliError> {
    let done: Value = client.post("/v1/reload", &json!({})).await?;
    out.json(&done)?;
    let changes: Vec<String> = ["added", "removed", "changed", "reset"]
        .into_iter()
        .filter_map(|kind| match text(&done, &format!("/{kind}")) {
            none if none == "-" => None,
            peers => Some(format!("{kind} {peers}")),
        })
        .collect();
    Ok(out.line(match changes.as_slice() {
        [] => "read again: nothing has changed".to_owned(),
        changes => format!("read again: {}", changes.join("; ")),
    })?)
}
