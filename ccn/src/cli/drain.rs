//! `ccn drain` and `ccn undrain`: the order, how it goes, and what came of it in figures.

use std::time::Duration;

use serde_json::{Value, json};

use super::CliError;
use super::args::{DrainArgs, UndrainArgs};
use super::client::Client;
use super::output::{Output, text};
use crate::ledger::seconds_now;

/// How often the agent is asked how it goes.
const LOOK: Duration = Duration::from_millis(200);

pub(super) async fn drain(args: DrainArgs, client: &Client, out: Output) -> Result<(), CliError> {
    let millis = |name: &str, time: Option<Duration>| {
        time.map(|time| format!("{name}={}", time.as_millis()))
    };
    let query: Vec<String> = [
        millis("settle_ms", args.settle),
        millis("wait_ms", args.wait),
        args.threshold.map(|rate| format!("threshold={rate}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let path = format!("/v1/drain?{}", query.join("&"));
    let report = watched(&path, client, out).await?;
    out.json(&report)?;
    let safe = report.pointer("/safe_to_stop") == Some(&Value::Bool(true));
    out.line(format!(
        "{}: {} told, {} withdrawn",
        if safe { "safe to stop" } else { "drained" },
        counted(&report, "/peers_told", "peer"),
        counted(&report, "/prefixes_withdrawn", "prefix"),
    ))?;
    figures(&report, out)?;
    if report.pointer("/remembered") != Some(&Value::Bool(true)) {
        out.line("not kept over a restart of the agent: see its log")?;
    }
    match safe {
        true => Ok(()),
        false => Err(CliError::NotYet(format!(
            "not safe yet: {}",
            text(&report, "/why_not")
        ))),
    }
}

pub(super) async fn undrain(
    args: UndrainArgs,
    client: &Client,
    out: Output,
) -> Result<(), CliError> {
    let path = format!("/v1/undrain?wait_ms={}", args.wait.as_millis());
    let report: Value = client.post(&path, &json!({})).await?;
    out.json(&report)?;
    let who = match text(&report, "/peers_late").as_str() {
        "-" => "every peer has it".to_owned(),
        late => format!("not yet taken by {late}"),
    };
    let announced = counted(&report, "/prefixes_announced", "prefix");
    out.line(match report.pointer("/prefixes_announced") {
        Some(Value::Number(_)) => format!("serving again: {announced} announced; {who}"),
        _ => "serving: it was not drained".to_owned(),
    })?;
    if report.pointer("/remembered") == Some(&Value::Bool(true)) {
        out.line("a restart of the agent would drain it again: see its log")?;
    }
    Ok(())
}

/// Orders a drain, and says how it goes until it is over. By way of an API server the order is answered when it is
/// under way, otherwise when it is over.
async fn watched(path: &str, client: &Client, out: Output) -> Result<Value, CliError> {
    let order = json!({});
    let answer = client.post::<Value>(path, &order);
    tokio::pin!(answer);
    let mut look = tokio::time::interval(LOOK);
    let mut said = String::new();
    let mut answered: Option<Value> = None;
    loop {
        if let Some(report) = answered.take_if(|report| text(report, "/state") != "draining") {
            return Ok(report);
        }
        tokio::select! {
            answer = &mut answer, if answered.is_none() => answered = Some(answer?),
            _ = look.tick(), if answered.is_some() || out.shows_progress() => {
                let report = match &mut answered {
                    Some(answered) => {
                        *answered = client.get("/v1/drain").await?;
                        &*answered
                    }
                    // Whatever is wrong with the agent, the answer says it too.
                    None => &client.get("/v1/drain").await.unwrap_or_default(),
                };
                let now = progress(report);
                if out.shows_progress() && now != said {
                    out.progress(&now);
                    said = now;
                }
            }
        }
    }
}

/// What is under way.
fn progress(report: &Value) -> String {
    match text(report, "/step").as_str() {
        "counting" => "counting packets before anybody is told".to_owned(),
        "telling" => "telling the routers that this gateway is about to go (RFC 8326)".to_owned(),
        "settling" => format!(
            "{} told; they have time to move",
            counted(report, "/peers_told", "peer")
        ),
        "withdrawing" => "withdrawing every announcement".to_owned(),
        "measuring" => match rate(report, "after_withdrawal") {
            Some([to_vpc, from_vpc]) => {
                format!("packets still come: {to_vpc:.0} a second to VPCs, {from_vpc:.0} from VPCs")
            }
            None => "counting packets that still come".to_owned(),
        },
        _ => String::new(),
    }
}

fn rate(report: &Value, when: &str) -> Option<[f64; 2]> {
    let rate = report.pointer(&format!("/packets_per_s/{when}"))?;
    Some([
        rate.get("to_vpc")?.as_f64()?,
        rate.get("from_vpc")?.as_f64()?,
    ])
}

fn figures(report: &Value, out: Output) -> Result<(), CliError> {
    let rows = [
        ("before", "before"),
        ("after GSHUT", "after_gshut"),
        ("after withdrawal", "after_withdrawal"),
    ];
    out.line(format!(
        "{:<16} {:>12} {:>12}",
        "packets/s", "to VPCs", "from VPCs"
    ))?;
    for (name, when) in rows {
        if let Some([to_vpc, from_vpc]) = rate(report, when) {
            out.line(format!("{name:<16} {to_vpc:>12.0} {from_vpc:>12.0}"))?;
        }
    }
    Ok(())
}

/// How many there are of what is counted, or listed, at a pointer.
fn counted(report: &Value, pointer: &str, one: &str) -> String {
    let count = match report.pointer(pointer) {
        Some(Value::Array(items)) => items.len() as u64,
        other => other.and_then(Value::as_u64).unwrap_or(0),
    };
    match (count, one) {
        (1, one) => format!("1 {one}"),
        (_, "prefix") => format!("{count} prefixes"),
        (_, one) => format!("{count} {one}s"),
    }
}

/// The line of a status on a gateway that does not just serve.
pub(super) fn in_status(status: &Value) -> Option<String> {
    let at = |pointer: &str| text(status, &format!("/drain{pointer}"));
    let since = status.pointer("/drain/since").and_then(Value::as_u64);
    let ago = match since {
        None | Some(0) => "nobody knows when".to_owned(),
        Some(since) => format!("{} s ago", seconds_now().saturating_sub(since)),
    };
    let safe = match status.pointer("/drain/safe_to_stop") {
        Some(Value::Bool(true)) => "safe to stop".to_owned(),
        Some(Value::Bool(false)) => format!("not safe to stop: {}", at("/why_not")),
        _ => "`ccn drain` measures whether it is safe to stop".to_owned(),
    };
    match at("/state").as_str() {
        "draining" => Some(format!("DRAINING, begun {ago}: {}", at("/step"))),
        "drained" => Some(format!(
            "DRAINED, begun {ago}; nothing is announced until `ccn undrain`; {safe}"
        )),
        "returning" => Some("serving again; waits until the peers have it".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_is_not_as_usual() {
        for (drain, expected) in [
            (json!({"state": "serving"}), None),
            (
                json!({"state": "draining", "step": "settling", "since": 0}),
                Some("DRAINING, begun nobody knows when: settling"),
            ),
            (
                json!({"state": "drained", "safe_to_stop": false, "why_not": "7 packets/s"}),
                Some("not safe to stop: 7 packets/s"),
            ),
            (
                json!({"state": "drained", "safe_to_stop": true}),
                Some("safe to stop"),
            ),
        ] {
            let line = in_status(&json!({ "drain": drain }));
            match (&line, expected) {
                (None, None) => {}
                (Some(line), Some(expected)) => assert!(line.ends_with(expected), "{line}"),
                _ => panic!("{line:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn what_is_under_way_is_said_with_figures() {
        let report = json!({
            "step": "measuring",
            "peers_told": ["a", "b"],
            "prefixes_withdrawn": 1,
            "packets_per_s": { "after_withdrawal": { "to_vpc": 0.4, "from_vpc": 12.0 } },
        });
        assert_eq!(
            progress(&report),
            "packets still come: 0 a second to VPCs, 12 from VPCs"
        );
        assert_eq!(counted(&report, "/peers_told", "peer"), "2 peers");
        assert_eq!(
            counted(&report, "/prefixes_withdrawn", "prefix"),
            "1 prefix"
        );
        assert_eq!(counted(&report, "/nothing", "prefix"), "0 prefixes");
    }
}
