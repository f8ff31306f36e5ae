//! `ccn links --rates`, `ccn vpcs --rates` and `ccn drops`: what passes, and what does not.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::CliError;
use super::client::Client;
use super::output::{Column, Output, text};

type Shown = Result<(), CliError>;

const DIRECTIONS: [&str; 3] = ["to_vpc", "from_vpc", "dropped"];

pub(super) async fn link_rates(client: &Client, out: Output, interval: Duration) -> Shown {
    let rates = rates(client, interval, "links", &["link"]).await?;
    let columns = with_rates([("LINK", |r| text(r, "/link"))]);
    Ok(out.list(&rates, &columns, "no links")?)
}

pub(super) async fn vpc_rates(client: &Client, out: Output, interval: Duration) -> Shown {
    let rates = rates(client, interval, "vpcs", &["vpc", "vni"]).await?;
    let columns = with_rates([("VPC", |r| text(r, "/vpc")), ("VNI", |r| text(r, "/vni"))]);
    Ok(out.list(&rates, &columns, "no VPCs")?)
}

fn with_rates<const N: usize>(names: [Column; N]) -> Vec<Column> {
    let rates: [Column; 6] = [
        ("TO VPC", |r| packets(r, "to_vpc")),
        ("", |r| bits(r, "to_vpc")),
        ("FROM VPC", |r| packets(r, "from_vpc")),
        ("", |r| bits(r, "from_vpc")),
        ("DROPPED", |r| packets(r, "dropped")),
        ("", |r| bits(r, "dropped")),
    ];
    names.into_iter().chain(rates).collect()
}

fn packets(row: &Value, direction: &str) -> String {
    scaled(number(row, direction, "packets_per_s"), "packet/s")
}

fn bits(row: &Value, direction: &str) -> String {
    scaled(number(row, direction, "bits_per_s"), "bit/s")
}

fn number(row: &Value, direction: &str, unit: &str) -> f64 {
    row.pointer(&format!("/{direction}/{unit}"))
        .and_then(Value::as_f64)
        .unwrap_or_default()
}

/// Three digits that matter, with a prefix of a thousand.
fn scaled(value: f64, unit: &str) -> String {
    let (mut value, mut prefix) = (value, "");
    for next in ["k", "M", "G", "T"] {
        if value < 999.5 {
            break;
        }
        (value, prefix) = (value / 1000.0, next);
    }
    let digits = match value {
        v if v >= 99.95 || v == 0.0 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {prefix}{unit}")
}

/// What grew between two looks, a second. Rows are known by `names`.
async fn rates(
    client: &Client,
    interval: Duration,
    list: &str,
    names: &[&str],
) -> Result<Value, CliError> {
    let look = async || -> Result<(Instant, Value), CliError> {
        let traffic: Value = client.get("/v1/traffic").await?;
        let rows = traffic.pointer(&format!("/{list}")).cloned();
        Ok((Instant::now(), rows.unwrap_or_default()))
    };
    let (begin, before) = look().await?;
    tokio::time::sleep(interval).await;
    let (end, after) = look().await?;
    Ok(grown(
        &before,
        &after,
        end.duration_since(begin).as_secs_f64(),
        names,
    ))
}

/// The rates of every row of `after` that also was in `before`.
fn grown(before: &Value, after: &Value, seconds: f64, names: &[&str]) -> Value {
    let rows = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let id = |row: &Value| -> Vec<String> {
        names
            .iter()
            .map(|name| text(row, &format!("/{name}")))
            .collect()
    };
    let earlier: std::collections::HashMap<_, _> = rows(before)
        .into_iter()
        .map(|row| (id(&row), row))
        .collect();
    let rates = rows(after).into_iter().filter_map(|row| {
        let old = earlier.get(&id(&row))?;
        let count = |row: &Value, direction: &str, unit: &str| {
            row.pointer(&format!("/{direction}/{unit}"))
                .and_then(Value::as_u64)
                .unwrap_or_default()
        };
        let per_s = |direction: &str, unit: &str| {
            // A count that starts again from nothing has not shrunk.
            count(&row, direction, unit).saturating_sub(count(old, direction, unit)) as f64
                / seconds
        };
        let mut rate = json!({ "interval_s": seconds });
        for name in names {
            rate[*name] = row[*name].clone();
        }
        for direction in DIRECTIONS {
            rate[direction] = json!({
                "packets_per_s": per_s(direction, "packets"),
                "bits_per_s": per_s(direction, "bytes") * 8.0,
            });
        }
        Some(rate)
    });
    Value::Array(rates.collect())
}

pub(super) async fn drops(client: &Client, out: Output) -> Shown {
    const COLUMNS: &[Column] = &[
        ("REASON", |r| text(r, "/reason")),
        ("PACKETS", |r| text(r, "/packets")),
        ("BYTES", |r| text(r, "/bytes")),
        ("LAST", |r| last(r)),
    ];
    let rows = client.get("/v1/drops").await?;
    Ok(out.list(&rows, COLUMNS, "nothing was dropped")?)
}

/// The last packet of a reason, as tcpdump would put it.
fn last(row: &Value) -> String {
    let Some(sample) = row.pointer("/last").filter(|last| !last.is_null()) else {
        return "-".to_owned();
    };
    let end = |addr: &str, port: &str| match text(sample, port) {
        none if none == "-" => text(sample, addr),
        port => format!("{} port {port}", text(sample, addr)),
    };
    let mut line = format!(
        "{} to {}, protocol {}, {} bytes",
        end("/src", "/src_port"),
        end("/dst", "/dst_port"),
        text(sample, "/protocol"),
        text(sample, "/octets"),
    );
    for (name, pointer) in [("VNI", "/vni"), ("link", "/link")] {
        match text(sample, pointer) {
            none if none == "-" => {}
            value => line += &format!(", {name} {value}"),
        }
    }
    let ago = sample.pointer("/ago_s").and_then(Value::as_f64);
    line + &format!(", {:.1} s ago", ago.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_three_digits() {
        for (value, shown) in [
            (0.0, "0 bit/s"),
            (0.5, "0.50 bit/s"),
            (12.34, "12.3 bit/s"),
            (99.96, "100 bit/s"),
            (999.4, "999 bit/s"),
            (999.6, "1.00 kbit/s"),
            (123_456.0, "123 kbit/s"),
            (9.9e9, "9.90 Gbit/s"),
        ] {
            assert_eq!(scaled(value, "bit/s"), shown, "{value}");
        }
    }

    #[test]
    fn what_grew_is_a_rate_and_what_began_again_is_none() {
        let count = |packets: u64, bytes: u64| json!({ "packets": packets, "bytes": bytes });
        let row =
            |link: &str, packets, bytes| json!({ "link": link, "to_vpc": count(packets, bytes) });
        let before = json!([row("web", 10, 1000), row("db", 10, 1000), row("gone", 1, 1)]);
        let after = json!([row("web", 30, 3000), row("db", 0, 0), row("new", 5, 5)]);
        let rates = grown(&before, &after, 2.0, &["link"]);
        assert_eq!(rates.as_array().map(Vec::len), Some(2), "{rates}");
        assert_eq!(
            rates[0]["to_vpc"],
            json!({ "packets_per_s": 10.0, "bits_per_s": 8000.0 })
        );
        assert_eq!(rates[1]["to_vpc"]["packets_per_s"], 0.0);
        assert_eq!(rates[0]["dropped"]["packets_per_s"], 0.0);
    }
}
