//! What an API server says of itself and of the gateways, for people.

use serde_json::Value;

use super::CliError;
use super::output::{Output, text};
use super::show;

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
    out.line(format!("links       {}", at("/links/total")))?;
    show::records_in_status(status, out)
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
