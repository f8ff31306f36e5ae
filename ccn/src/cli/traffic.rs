//! `ccn links --rates`, `ccn vpcs --rates`, `ccn drops` and `ccn trace`: what passes, and what does not.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::CliError;
use super::args::TraceArgs;
use super::client::Client;
use super::output::{Column, Output, raw, text};

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

/// The last packet of a reason.
fn last(row: &Value) -> String {
    let Some(sample) = row.pointer("/last").filter(|last| !last.is_null()) else {
        return "-".to_owned();
    };
    let ago = sample.pointer("/ago_s").and_then(Value::as_f64);
    format!("{}, {:.1} s ago", packet(sample), ago.unwrap_or_default())
}

/// A packet, as tcpdump would put it: whose it is, from where to where, protocol and length.
fn packet(packet: &Value) -> String {
    let mut words = String::new();
    for (name, pointer) in [("link", "/link"), ("VNI", "/vni")] {
        match text(packet, pointer) {
            none if none == "-" => {}
            value => words += &format!("{name} {value} "),
        }
    }
    let end = |addr: &str, port: &str| {
        let addr = text(packet, addr);
        match packet.pointer(port).and_then(Value::as_u64) {
            None => addr,
            Some(port) if addr.contains(':') => format!("[{addr}]:{port}"),
            Some(port) => format!("{addr}:{port}"),
        }
    };
    let protocol = match packet.pointer("/protocol").and_then(Value::as_u64) {
        Some(1) => "icmp".to_owned(),
        Some(6) => "tcp".to_owned(),
        Some(17) => "udp".to_owned(),
        Some(58) => "icmp6".to_owned(),
        Some(number) => format!("protocol {number}"),
        None => "-".to_owned(),
    };
    let (src, dst) = (end("/src", "/src_port"), end("/dst", "/dst_port"));
    let octets = text(packet, "/octets");
    format!("{words}{src} > {dst} {protocol}, {octets} bytes")
}

/// Shows packets as they come.
pub(super) async fn trace(client: &Client, out: Output, args: &TraceArgs) -> Shown {
    let mut path = format!("/v1/trace?drops={}", args.drops);
    if let Some(link) = &args.link {
        path += &format!("&link={link}");
    }
    if let Some(vm) = &args.vm {
        // Only what stands in addresses and ids: whatever else would not be found either.
        let is_fit = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
        if !vm.chars().all(is_fit) {
            let message = format!("--vm {vm:?} is neither an address nor VPC/VM");
            return Err(CliError::Usage(message));
        }
        path += &format!("&vm={vm}");
    }
    let mut packets = client.lines(&path).await?;
    let mut shown = 0;
    while args.count.is_none_or(|count| shown < count)
        && let Some(lines) = packets.next().await?
    {
        for line in lines {
            if args.count.is_some_and(|count| shown >= count) {
                break;
            }
            shown += u64::from(line.pointer("/verdict").is_some());
            match out.is_json() {
                true => raw(&line.to_string())?,
                false => raw(&in_one_line(&line))?,
            }
        }
    }
    match args.count {
        Some(count) if shown < count => Err(CliError::Failed(
            "the agent has stopped: nothing more is to be seen".to_owned(),
        )),
        None => Err(CliError::Failed("the agent has stopped".to_owned())),
        _ => Ok(()),
    }
}

/// A line of a trace: time of day (UTC), verdict, packet.
fn in_one_line(line: &Value) -> String {
    if let Some(missed) = line.pointer("/missed").and_then(Value::as_u64) {
        return format!("({missed} packets are not shown: this terminal is too slow)");
    }
    let at = line.pointer("/unix_us").and_then(Value::as_u64);
    let at = at.unwrap_or_default();
    let (seconds, micros) = (at / 1_000_000 % 86_400, at % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let verdict = match line.pointer("/reason").and_then(Value::as_str) {
        Some(reason) => format!("drop {reason}"),
        None => text(line, "/verdict"),
    };
    let packet = packet(line);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{micros:06} {verdict} {packet}")
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
    fn a_packet_is_one_line() {
        let packet = |src: &str, dst: &str, protocol, ports: Option<(u16, u16)>| {
            json!({
                "unix_us": 1_764_122_659_000_123_u64, "verdict": "forward", "reason": null,
                "src": src, "dst": dst, "protocol": protocol, "octets": 84,
                "src_port": ports.map(|p| p.0), "dst_port": ports.map(|p| p.1),
                "vni": null, "link": null,
            })
        };
        let mut dropped = packet("fd00:1::11", "fd80:1::a", 6, Some((1025, 443)));
        dropped["verdict"] = "drop".into();
        dropped["reason"] = "no-link".into();
        dropped["vni"] = 1001.into();
        let mut forwarded = packet("10.80.1.10", "10.1.0.11", 17, Some((9, 53)));
        forwarded["link"] = "web".into();
        for (line, shown) in [
            (
                packet("10.80.1.10", "10.1.0.11", 1, None),
                "02:04:19.000123 forward 10.80.1.10 > 10.1.0.11 icmp, 84 bytes",
            ),
            (
                forwarded,
                "02:04:19.000123 forward link web 10.80.1.10:9 > 10.1.0.11:53 udp, 84 bytes",
            ),
            (
                dropped,
                "02:04:19.000123 drop no-link VNI 1001 [fd00:1::11]:1025 > [fd80:1::a]:443 tcp, 84 bytes",
            ),
            (
                json!({ "missed": 7 }),
                "(7 packets are not shown: this terminal is too slow)",
            ),
        ] {
            assert_eq!(in_one_line(&line), shown);
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
