//! The commands that only look: one request, one table.

use serde_json::Value;

use super::args::ExplainArgs;
use super::client::Client;
use super::drain;
use super::output::{Column, Output, text};
use super::{CliError, cluster};
use crate::record::VpcId;

type Shown = Result<(), CliError>;

pub(super) async fn links(client: &Client, out: Output) -> Shown {
    const COLUMNS: &[Column] = &[
        ("LINK", |r| text(r, "/link")),
        ("VPC", |r| text(r, "/vpc")),
        ("CLASSIC", |r| text(r, "/classic")),
        ("MODE", |r| text(r, "/mode")),
        ("STATE", |r| {
            match (r.pointer("/reason"), text(r, "/undone_in_s")) {
                (Some(Value::String(reason)), _) => format!("{}: {reason}", text(r, "/state")),
                (_, left) if left != "-" => {
                    format!("{}, undone in {left} s unless confirmed", text(r, "/state"))
                }
                _ => text(r, "/state"),
            }
        }),
        ("ANNOUNCED", |r| text(r, "/announced")),
        ("TO", |r| match cluster::at_gateways(r) {
            none if none.is_empty() => text(r, "/advertised_to"),
            gateways => format!("at {gateways}"),
        }),
    ];
    let rows = client.get("/v1/links").await?;
    Ok(out.list(
        &rows,
        COLUMNS,
        "no links; make one: ccn link VPC --classic CIDR|NAME",
    )?)
}

pub(super) async fn vpcs(client: &Client, out: Output) -> Shown {
    const COLUMNS: &[Column] = &[
        ("VPC", |r| text(r, "/vpc")),
        ("VNI", |r| text(r, "/vni")),
        ("CCSI", |r| text(r, "/ccsi")),
        ("SUBNETS", |r| text(r, "/subnets")),
        ("VMS", |r| text(r, "/vms")),
        ("SLBS", |r| text(r, "/slbs")),
        ("LINKS", |r| text(r, "/links")),
    ];
    let rows = client.get("/v1/vpcs").await?;
    Ok(out.list(&rows, COLUMNS, "no VPCs; load some: ccn import FILE|DIR")?)
}

pub(super) async fn vms(client: &Client, out: Output, vpc: Option<&VpcId>) -> Shown {
    const COLUMNS: &[Column] = &[
        ("VPC", |r| text(r, "/vpc")),
        ("VM", |r| text(r, "/vm")),
        ("ADDRESSES", |r| text(r, "/addrs")),
        ("MAC", |r| text(r, "/mac")),
        ("VTEP", |r| text(r, "/vtep")),
    ];
    let path = vpc.map_or_else(|| "/v1/vms".to_owned(), |vpc| format!("/v1/vms?vpc={vpc}"));
    let rows = client.get(&path).await?;
    Ok(out.list(&rows, COLUMNS, "no VMs")?)
}

pub(super) async fn gateways(client: &Client, out: Output) -> Shown {
    const COLUMNS: &[Column] = &[
        ("GATEWAY", |r| text(r, "/gateway")),
        ("GROUP", |r| text(r, "/group")),
        ("VTEP", |r| text(r, "/vtep")),
        ("ROUTER ID", |r| text(r, "/router_id")),
        ("AS", |r| text(r, "/asn")),
        ("ROLES", |r| text(r, "/roles")),
        ("GENERATION", |r| text(r, "/generation")),
        ("HEALTH", |r| match r.pointer("/draining") {
            Some(Value::Bool(true)) => text(r, "/health") + ", draining",
            _ => text(r, "/health"),
        }),
        ("LINKS", |r| text(r, "/links")),
        ("PEERS UP", |r| match r.pointer("/peers") {
            Some(Value::Object(_)) => {
                format!("{} of {}", text(r, "/peers/up"), text(r, "/peers/all"))
            }
            _ => "-".to_owned(),
        }),
        ("FULLEST", |r| match r.pointer("/fullest") {
            Some(Value::Object(_)) => {
                let at = |pointer: &str| text(r, pointer);
                format!(
                    "{} {} of {}",
                    at("/fullest/name"),
                    at("/fullest/used"),
                    at("/fullest/max")
                )
            }
            _ => "-".to_owned(),
        }),
    ];
    let rows = client.get("/v1/gateways").await?;
    Ok(out.list(
        &rows,
        COLUMNS,
        "no gateways; they register in etcd, the store of a cluster",
    )?)
}

pub(super) async fn peers(client: &Client, out: Output) -> Shown {
    const COLUMNS: &[Column] = &[
        ("PEER", |r| text(r, "/name")),
        ("ADDRESS", |r| text(r, "/address")),
        ("AS", |r| text(r, "/asn")),
        ("STATE", |r| text(r, "/state")),
        ("FOR", |r| text(r, "/since_seconds") + " s"),
        ("RECEIVED", |r| per_family(r, "received")),
        ("ACCEPTED", |r| per_family(r, "accepted")),
        ("ADVERTISED", |r| per_family(r, "advertised")),
        ("LAST ERROR", |r| text(r, "/last_error")),
    ];
    let rows: Value = client.get("/v1/peers").await?;
    out.list(
        &rows,
        COLUMNS,
        "no peers; add [[bgp.peer]] to the configuration",
    )?;
    for row in rows.as_array().into_iter().flatten() {
        for note in row
            .pointer("/notes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if let Some(note) = note.as_str() {
                out.line(format!("{}: {note}", text(row, "/name")))?;
            }
        }
    }
    Ok(())
}

/// A count of prefixes, as `ipv4/ipv6` where the session carries both.
fn per_family(peer: &Value, count: &str) -> String {
    let families = peer.pointer("/prefixes").and_then(Value::as_object);
    let counts: Vec<_> = families
        .into_iter()
        .flatten()
        .map(|(_, counts)| text(counts, &format!("/{count}")))
        .collect();
    if counts.is_empty() {
        "-".to_owned()
    } else {
        counts.join("/")
    }
}

pub(super) async fn routes(client: &Client, out: Output) -> Shown {
    const COLUMNS: &[Column] = &[
        ("DIRECTION", |r| text(r, "/direction")),
        ("PREFIX", |r| text(r, "/prefix")),
        ("NEXT HOP", |r| text(r, "/next_hops")),
        ("PEERS", |r| text(r, "/peers")),
        ("AS PATH", |r| text(r, "/as_path")),
        ("FOR", |r| text(r, "/links")),
    ];
    let rows = client.get("/v1/routes").await?;
    Ok(out.list(&rows, COLUMNS, "no routes announced or learned")?)
}

pub(super) async fn quarantine(client: &Client, out: Output) -> Shown {
    const COLUMNS: &[Column] = &[
        ("RECORD", |r| text(r, "/key")),
        ("FIELD", |r| text(r, "/field")),
        ("REASON", |r| text(r, "/reason")),
    ];
    let rows = client.get("/v1/quarantine").await?;
    Ok(out.list(&rows, COLUMNS, "nothing in quarantine")?)
}

const LIMITS: &[Column] = &[
    ("LIMIT", |r| text(r, "/name")),
    ("USED", |r| text(r, "/used")),
    ("MAX", |r| text(r, "/max")),
    ("REFUSED", |r| text(r, "/refused")),
];

pub(super) async fn limits(client: &Client, out: Output) -> Shown {
    let rows = client.get("/v1/limits").await?;
    Ok(out.list(&rows, LIMITS, "no limits")?)
}

pub(super) async fn plane(client: &Client, out: Output) -> Shown {
    let plane: Value = client.get("/v1/plane").await?;
    if out.is_json() {
        return Ok(out.json(&plane)?);
    }
    let why = match (
        text(&plane, "/choice/auto") == "true",
        plane.pointer("/choice/refused").and_then(Value::as_str),
    ) {
        (_, Some(reason)) => format!("since ebpf does not work here: {reason}"),
        (true, None) => "the best there is, and it works here".to_owned(),
        (false, None) => "as configured".to_owned(),
    };
    out.line(format!("plane       {}, {why}", text(&plane, "/name")))?;
    out.line(format!(
        "state       {}; {} kernel operations since the agent started",
        text(&plane, "/state"),
        text(&plane, "/operations")
    ))?;
    if let Some(error) = plane.pointer("/last_error").and_then(Value::as_str) {
        out.line(format!("            {error}"))?;
    }
    for (ability, what) in [
        ("tracks_replies", "links of mode classic-to-vpc"),
        ("marks_links", "links with a DSCP of their own"),
    ] {
        let can = plane.pointer(&format!("/abilities/{ability}"));
        let verb = match can.and_then(Value::as_bool) {
            Some(true) => "serves",
            _ => "refuses",
        };
        out.line(format!("{verb:<11} {what}"))?;
    }
    for part in plane
        .pointer("/parts")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let there = part.pointer("/present").and_then(Value::as_bool);
        let there = if there == Some(true) {
            "in place"
        } else {
            "MISSING"
        };
        out.line(format!("{there:<11} {}", text(part, "/name")))?;
    }
    out.line("")?;
    let limits = plane.pointer("/limits").cloned().unwrap_or_default();
    Ok(out.list(&limits, &LIMITS[..3], "no limits")?)
}

pub(super) fn lines(lines: &[String], out: Output) -> Shown {
    out.json(&lines)?;
    for line in lines {
        out.line(line)?;
    }
    Ok(())
}

pub(super) async fn counters(client: &Client, out: Output) -> Shown {
    let counters: Value = client.get("/v1/plane/counters").await?;
    out.json(&counters)?;
    print_counters(&counters, out)
}

fn print_counters(counters: &Value, out: Output) -> Shown {
    for (name, title) in [("encapsulated", "to VPCs"), ("decapsulated", "from VPCs")] {
        let packets = text(counters, &format!("/{name}/packets"));
        let bytes = text(counters, &format!("/{name}/bytes"));
        out.line(format!(
            "{title:<22} {packets:>12} packets {bytes:>15} bytes"
        ))?;
    }
    for (reason, count) in counters
        .pointer("/drops")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let (packets, bytes) = (text(count, "/packets"), text(count, "/bytes"));
        let title = format!("dropped {reason}");
        out.line(format!(
            "{title:<30} {packets:>4} packets {bytes:>15} bytes"
        ))?;
    }
    Ok(())
}

pub(super) async fn status(client: &Client, out: Output) -> Shown {
    let status: Value = client.get("/v1/status").await?;
    out.json(&status)?;
    if cluster::is_status(&status) {
        return cluster::status(&status, out);
    }
    let at = |pointer: &str| text(&status, pointer);
    out.line(format!(
        "gateway     {} (group {}), up {} s",
        at("/gateway"),
        at("/group"),
        at("/uptime_s")
    ))?;
    if let Some(line) = drain::in_status(&status) {
        out.line(format!("drain       {line}"))?;
    }
    out.line(start_in_status(&status))?;
    out.line(format!(
        "store       generation {}, in the kernel {}",
        at("/generation"),
        at("/acknowledged")
    ))?;
    store_in_status(&status, out)?;
    out.line(format!(
        "plane       {}: {}",
        at("/plane/name"),
        at("/plane/state")
    ))?;
    if let Some(Value::String(error)) = status.pointer("/plane/last_error") {
        out.line(format!("            {error}"))?;
    }
    out.line(format!(
        "peers       {} of {} established",
        at("/peers/established"),
        at("/peers/configured")
    ))?;
    peers_in_status(&status, out)?;
    out.line(format!(
        "links       {} of {} announced{}",
        at("/links/announced"),
        at("/links/total"),
        match at("/links/standby").as_str() {
            "0" => String::new(),
            standby => format!(", {standby} standing by"),
        }
    ))?;
    records_in_status(&status, out)?;
    if let Some(counters) = status.pointer("/counters") {
        print_counters(counters, out)?;
    }
    Ok(())
}

/// That the store is not heard, if it is not.
pub(super) fn store_in_status(status: &Value, out: Output) -> Shown {
    let at = |pointer: &str| text(status, pointer);
    if let Some(age) = status.pointer("/store/stale_s").and_then(Value::as_u64) {
        out.line(format!(
            "            {}: what is known is {age} s old; nothing changes meanwhile",
            at("/store/state").to_uppercase()
        ))?;
        out.line(format!("            {}", at("/store/reason")))?;
    }
    Ok(())
}

/// How many records there are.
pub(super) fn records_in_status(status: &Value, out: Output) -> Shown {
    let at = |pointer: &str| text(status, pointer);
    Ok(out.line(format!(
        "records     {} VPCs, {} VMs, {} SLBs, {} in quarantine",
        at("/records/vpcs"),
        at("/records/vms"),
        at("/records/slbs"),
        at("/records/quarantined")
    ))?)
}

/// The start of the agent: how long it took and its parts, or which parts are done.
fn start_in_status(status: &Value) -> String {
    let seconds = |value: &Value| {
        value
            .as_f64()
            .map_or_else(String::new, |s| format!("{s:.2} s"))
    };
    let phases = status.pointer("/start/phases").and_then(Value::as_array);
    let phases: Vec<String> = phases
        .into_iter()
        .flatten()
        .map(|phase| format!("{} {}", text(phase, "/phase"), seconds(&phase["seconds"])))
        .collect();
    let took = match status.pointer("/start/seconds") {
        Some(took) if took.is_number() => seconds(took),
        _ => "not done".to_owned(),
    };
    format!("start       {took}: {}", phases.join(", "))
}

/// What there is to say of peers beside how many of the configured ones are established.
fn peers_in_status(status: &Value, out: Output) -> Shown {
    let groups = status.pointer("/peers/dynamic").and_then(Value::as_array);
    for group in groups.into_iter().flatten() {
        let at = |pointer: &str| text(group, pointer);
        out.line(format!(
            "            {} from {}: {} established, {} of at most {} there, {} turned away",
            at("/name"),
            at("/prefix"),
            at("/established"),
            at("/peers"),
            at("/limit"),
            at("/full")
        ))?;
    }
    for (pointer, what) in [
        (
            "/peers/refused_connections",
            "connections refused: nobody may come from there",
        ),
        (
            "/peers/refused_routes",
            "routes refused: over a limit, see `ccn limits`",
        ),
    ] {
        match status.pointer(pointer).and_then(Value::as_u64) {
            None | Some(0) => {}
            Some(count) => out.line(format!("            {count} {what}"))?,
        }
    }
    match text(status, "/peers/unreachable_next_hops") {
        none if none == "-" => {}
        hops => out.line(format!(
            "            routes by way of {hops} are not used: on no IDC interface that is up"
        ))?,
    }
    Ok(())
}

pub(super) async fn doctor(client: &Client, out: Output, sample: usize) -> Shown {
    let report: Value = client.get(&format!("/v1/doctor?sample={sample}")).await?;
    out.json(&report)?;
    let mut wrong = 0;
    let findings = report.pointer("/findings").and_then(Value::as_array);
    for finding in findings.into_iter().flatten() {
        let at = |pointer: &str| text(finding, pointer);
        let level = at("/level");
        wrong += usize::from(level == "wrong");
        out.line(format!("{level:<6} {:<11} {}", at("/check"), at("/what")))?;
        for (name, pointer) in [("why:", "/why"), ("do:", "/todo")] {
            if let Some(advice) = finding.pointer(pointer).and_then(Value::as_str) {
                out.line(format!("{:<18} {name:<4} {advice}", ""))?;
            }
        }
    }
    match wrong {
        0 => Ok(()),
        1 => Err(CliError::Failed("one thing is wrong".to_owned())),
        wrong => Err(CliError::Failed(format!("{wrong} things are wrong"))),
    }
}

pub(super) async fn explain(client: &Client, out: Output, args: &ExplainArgs) -> Shown {
    let mut path = format!("/v1/explain?src={}&dst={}", args.src, args.dst);
    if let Some(vni) = args.vni {
        path.push_str(&format!("&vni={vni}"));
    }
    let explanation: Value = client.get(&path).await?;
    out.json(&explanation)?;
    for step in explanation
        .pointer("/steps")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        out.line(format!(
            "{:<10}  {}",
            text(step, "/step"),
            text(step, "/detail")
        ))?;
    }
    out.line(format!(
        "{:<10}  {}",
        "verdict",
        text(&explanation, "/summary")
    ))?;
    out.line(format!(
        "{:<10}  {}",
        "kernel",
        text(&explanation, "/kernel/detail")
    ))?;
    if explanation.pointer("/kernel/agrees") == Some(&Value::Bool(false)) {
        return Err(CliError::Failed(
            "the kernel would do something else than the records say: `ccn plane dump` has what it \
             holds, `ccn status` whether a change is on its way"
                .to_owned(),
        ));
    }
    Ok(())
}
