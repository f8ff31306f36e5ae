//! What an API server says of itself and of the gateways, for people.

use serde_json::Value;

use super::CliError;
use super::client::Client;
use super::output::{Output, text};
use super::show;
use crate::record::GatewayName;

/// How many links of a gateway that is gone are named.
const FEW_LINKS: usize = 5;

/// Whether a status is that of an API server.
pub(super) fn is_status(status: &Value) -> bool {
    status.pointer("/apiserver").is_some()
}

/// The status of an API server.
pub(super) fn status(status: &Value, out: Output) -> Result<(), CliError> {
    let at = |pointer: &str| text(status, pointer);
    out.line(format!(
        "API server  {}, up {} s",
        at("/apiserver"),
        at("/uptime_s")
    ))?;
    out.line(format!("store       generation {}", at("/generation")))?;
    show::store_in_status(status, out)?;
    let gateways = status.pointer("/gateways").and_then(Value::as_array);
    match gateways.map(Vec::as_slice) {
        None | Some([]) => out.line("gateways    none is alive")?,
        Some(gateways) => {
            for gateway in gateways {
                let at = |pointer: &str| text(gateway, pointer);
                out.line(format!(
                    "gateway     {} of {}: {}, at generation {}",
                    at("/gateway"),
                    at("/group"),
                    at("/health"),
                    at("/generation")
                ))?;
            }
        }
    }
    let gone = status.pointer("/gone").and_then(Value::as_array);
    for gateway in gone.into_iter().flatten() {
        out.line(gone_gateway(gateway))?;
    }
    out.line(format!("links       {}", at("/links/total")))?;
    show::records_in_status(status, out)
}

/// A gateway that is gone, and what is to be done about it.
fn gone_gateway(gateway: &Value) -> String {
    let links = gateway.pointer("/links").and_then(Value::as_array);
    let links: Vec<&str> = links
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let name = text(gateway, "/gateway");
    let more = match links.len().saturating_sub(FEW_LINKS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let links = links[..links.len().min(FEW_LINKS)].join(", ");
    format!(
        "gone        {name}, and may forward what it had of {links}{more} until it is back; if it is no more: ccn \
         gateways forget {name}"
    )
}

/// Has a gateway that is no more counted no longer.
pub(super) async fn forget(
    gateway: &GatewayName,
    client: &Client,
    out: Output,
) -> Result<(), CliError> {
    if !client.is_of_servers() {
        let message = "a gateway is forgotten by way of an API server, which --server names";
        return Err(CliError::Usage(message.to_owned()));
    }
    let forgotten: Value = client.delete(&format!("/v1/gateways/{gateway}")).await?;
    out.json(&forgotten)?;
    let links = text(&forgotten, "/links");
    Ok(out.line(format!("{gateway} is forgotten; it held {links}"))?)
}

/// The gateways at which a link is, each with how far it has come there unless that is as far as can be.
pub(super) fn at_gateways(link: &Value) -> String {
    let gateways = link.pointer("/gateways").and_then(Value::as_array);
    let said = gateways.into_iter().flatten().map(|at| {
        let name = text(at, "/gateway");
        match text(at, "/state").as_str() {
            "announced" => name,
            "-" => format!("{name} (says nothing)"),
            state => format!("{name} ({state})"),
        }
    });
    said.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_gateway_that_is_gone_some_links_are_named() {
        for (count, says) in [
            (1, "what it had of l0 until"),
            (5, "what it had of l0, l1, l2, l3, l4 until"),
            (7, "what it had of l0, l1, l2, l3, l4 and 2 more until"),
        ] {
            let links: Vec<String> = (0..count).map(|n| format!("l{n}")).collect();
            let said = gone_gateway(&json!({"gateway": "gw-9", "links": links}));
            assert!(said.contains(says), "{said}");
            assert!(said.ends_with("ccn gateways forget gw-9"), "{said}");
        }
    }

    #[test]
    fn gateways_are_named_with_what_is_worth_saying() {
        let link = json!({"gateways": [
            {"gateway": "a", "state": "announced", "generation": 1},
            {"gateway": "b", "state": "failed", "reason": "full", "generation": 1},
            {"gateway": "c"},
        ]});
        assert_eq!(at_gateways(&link), "a, b (failed), c (says nothing)");
        assert_eq!(at_gateways(&json!({})), "");
    }
}
