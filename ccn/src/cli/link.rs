//! Orders for links, and what they came to or would come to.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::args::{ConfirmArgs, LinkArgs, LinkNameArgs, OnlyIf, UndoArgs, UnlinkArgs};
use super::client::{Client, ClientError};
use super::output::{Output, text};
use super::{CliError, cluster};

pub(super) async fn link(args: LinkArgs, client: &Client, out: Output) -> Result<(), CliError> {
    let order = json!({
        "vpc": args.vpc,
        "classic": args.classic,
        "name": args.name,
        "group": args.group,
        "mode": args.mode,
        "dscp": args.dscp,
        "standby": args.standby,
    });
    let path = format!(
        "/v1/links?wait_ms={}&dry_run={}{}",
        args.wait.as_millis(),
        args.dry_run,
        confirm_ms(args.confirm)
    );
    let link: Value = client.post(&path, &order).await?;
    out.json(&link)?;
    let (id, vpc) = (text(&link, "/link"), text(&link, "/vpc"));
    let (classic, prefixes) = (text(&link, "/classic"), text(&link, "/subnets"));
    if args.dry_run {
        out.line(match behind(&link) {
            Some(behind) => format!("would link {vpc} with {classic} as {id}, which {behind}"),
            None => format!("would link {vpc} with {classic} as {id}, announcing {prefixes}"),
        })?;
        return plan(&link, out);
    }
    if let Some(behind) = behind(&link) {
        out.line(format!(
            "linked {vpc} with {classic} as {id}, which {behind}"
        ))?;
        return waits(&link, out);
    }
    out.line(format!(
        "linked {vpc} with {classic} as {id}: {prefixes} {}",
        told(&link)
    ))?;
    waits(&link, out)
}

pub(super) async fn unlink(args: UnlinkArgs, client: &Client, out: Output) -> Result<(), CliError> {
    let (id, wait) = (args.link, args.wait.as_millis());
    let path = format!("/v1/links/{id}?wait_ms={wait}{}", confirm_ms(args.confirm));
    let done = ordered(client, Method::DELETE, &path, args.only_if).await?;
    out.json(&done)?;
    out.line(format!("unlinked {id}: withdrawn, drained, removed"))?;
    waits(&done, out)
}

pub(super) async fn set_enabled(
    enabled: bool,
    args: LinkNameArgs,
    client: &Client,
    out: Output,
) -> Result<(), CliError> {
    let verb = if enabled { "enable" } else { "disable" };
    let (id, wait) = (args.link, args.wait.as_millis());
    let confirm = confirm_ms(args.confirm);
    let path = format!("/v1/links/{id}/{verb}?wait_ms={wait}{confirm}");
    let link = ordered(client, Method::POST, &path, args.only_if).await?;
    out.json(&link)?;
    let line = if let (true, Some(behind)) = (enabled, behind(&link)) {
        format!("enabled {id}, which {behind}")
    } else if enabled {
        let prefixes = text(&link, "/subnets");
        format!("enabled {id}: {prefixes} {}", told(&link))
    } else {
        format!(
            "disabled {id}: withdrawn, drained, out of the plane; `ccn enable {id}` brings it back"
        )
    };
    out.line(line)?;
    waits(&link, out)
}

pub(super) async fn confirm(
    args: ConfirmArgs,
    client: &Client,
    out: Output,
) -> Result<(), CliError> {
    let id = args.link;
    let path = format!("/v1/links/{id}/confirm");
    let link = ordered(client, Method::POST, &path, args.only_if).await?;
    out.json(&link)?;
    Ok(out.line(format!("confirmed {id}: {}", text(&link, "/state")))?)
}

pub(super) async fn undo(args: UndoArgs, client: &Client, out: Output) -> Result<(), CliError> {
    let (id, wait) = (args.link, args.wait.as_millis());
    let path = format!(
        "/v1/links/{id}/undo?wait_ms={wait}&dry_run={}",
        args.dry_run
    );
    let link = ordered(client, Method::POST, &path, args.only_if).await?;
    out.json(&link)?;
    if args.dry_run {
        out.line(format!("would take the last change of {id} back"))?;
        return plan(&link, out);
    }
    Ok(out.line(format!(
        "took the last change of {id} back: {}",
        text(&link, "/state")
    ))?)
}

/// Sends an order for a link, to be carried out only if it is as somebody has seen it.
async fn ordered(
    client: &Client,
    method: Method,
    path: &str,
    OnlyIf { if_generation }: OnlyIf,
) -> Result<Value, ClientError> {
    let tag = if_generation.map(|generation| format!("\"{generation}\""));
    let condition = tag.as_deref().map(|tag| ("if-match", tag));
    client.order(method, path, condition).await
}

/// How the time to confirm a change in is asked for.
fn confirm_ms(confirm: Option<Duration>) -> String {
    confirm.map_or_else(String::new, |time| {
        format!("&confirm_ms={}", time.as_millis())
    })
}

/// That a change waits to be confirmed, if it does.
fn waits(link: &Value, out: Output) -> Result<(), CliError> {
    if let Some(left) = link.pointer("/undone_in_s").and_then(Value::as_u64) {
        let id = text(link, "/link");
        out.line(format!(
            "undone in {left} s unless confirmed: ccn confirm {id}"
        ))?;
    }
    Ok(())
}

/// Behind which link one stands by, and why; nothing when it does not.
fn behind(link: &Value) -> Option<String> {
    let behind = link.pointer("/behind")?.as_str()?;
    let why = text(link, "/reason");
    Some(format!("stands by behind links/{behind}: {why}"))
}

/// Who was told of a link's prefixes, or why nobody was.
fn told(link: &Value) -> String {
    let gateways = cluster::at_gateways(link);
    match text(link, "/state").as_str() {
        // As an API server tells.
        _ if !gateways.is_empty() => format!("announced by {gateways}"),
        "drained" => format!("in the kernel, not announced: {}", text(link, "/reason")),
        _ => format!("announced to {}", peers(link, "/advertised_to")),
    }
}

/// The peers at a pointer, or that there are none.
fn peers(value: &Value, pointer: &str) -> String {
    match text(value, pointer) {
        none if none == "-" => "no peer yet (no session is up)".to_owned(),
        peers => peers,
    }
}

/// What an order would do to peers, kernel and limits: here, or at each gateway that was asked.
fn plan(plan: &Value, out: Output) -> Result<(), CliError> {
    let list = |pointer: &str| plan.pointer(pointer).and_then(Value::as_array);
    for link in list("/displaced").into_iter().flatten() {
        let link = link.as_str().unwrap_or("-");
        out.line(format!("standby    links/{link} makes way and stands by"))?;
    }
    let Some(at) = list("/at") else {
        return outcome(plan, "", out);
    };
    for said in at {
        let gateway = text(said, "/gateway");
        match said.pointer("/unknown").and_then(Value::as_str) {
            Some(why) => {
                out.line(format!(
                    "{gateway}: what it would come to is not known: {why}"
                ))?;
            }
            None => outcome(said, &format!("{gateway}: "), out)?,
        }
    }
    if at.is_empty() {
        for route in list("/announce").into_iter().flatten() {
            let (family, prefix) = (text(route, "/family"), text(route, "/prefix"));
            out.line(format!(
                "announce   {family} {prefix} as soon as a gateway is there"
            ))?;
        }
        out.line("no gateway of the group is alive: peers, kernel and limits are not known")?;
    }
    Ok(())
}

/// What would change, each line with the name of where.
fn outcome(plan: &Value, at: &str, out: Output) -> Result<(), CliError> {
    let list = |pointer: &str| plan.pointer(pointer).and_then(Value::as_array);
    for route in list("/announce").into_iter().flatten() {
        let (family, prefix) = (text(route, "/family"), text(route, "/prefix"));
        let line = match route.pointer("/announced") {
            Some(Value::Bool(true)) => "announced already".to_owned(),
            _ => format!("to {}", peers(route, "/peers")),
        };
        out.line(format!("{at}announce   {family} {prefix} {line}"))?;
    }
    for prefix in list("/withdraw").into_iter().flatten() {
        let prefix = prefix.as_str().unwrap_or("-");
        out.line(format!("{at}withdraw   {prefix}"))?;
    }
    let kinds = plan.pointer("/kernel").and_then(Value::as_object);
    let kinds: Vec<String> = kinds
        .into_iter()
        .flatten()
        .map(|(kind, count)| format!("{kind} +{count}"))
        .collect();
    let kinds = match kinds.is_empty() {
        true => "nothing is added".to_owned(),
        false => kinds.join(", "),
    };
    let (new, gone) = (text(plan, "/permits"), text(plan, "/permits_removed"));
    out.line(format!("{at}kernel     permits +{new} -{gone}: {kinds}"))?;
    let mut same = true;
    for limit in list("/limits").into_iter().flatten() {
        let of = |pointer: &str| text(limit, pointer);
        if of("/before") != of("/after") {
            same = false;
            let (name, before, after, max) = (of("/name"), of("/before"), of("/after"), of("/max"));
            out.line(format!(
                "{at}limit      {name} {before} -> {after} of {max}"
            ))?;
        }
    }
    if same {
        out.line(format!(
            "{at}limits     none is used more, see `ccn limits`"
        ))?;
    }
    Ok(())
}
