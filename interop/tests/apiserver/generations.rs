//! Two operators at real API servers: who has not seen a link as it is now does not change it.

use interop::apiserver::{Answer, ApiServer, Role};
use interop::enter;
use serde_json::{Value, json};

use super::orders::start;
use super::{DEADLINE, Failure};

/// The tag of an answer, which says the same as its body.
fn tag(answer: &Answer) -> Result<String, Failure> {
    let tag = answer.headers.get("etag");
    let tag = tag.ok_or_else(|| format!("no etag: {answer:?}"))?;
    let generation = match &answer.body["error"] {
        Value::Null => &answer.body["generation"],
        error => &error["present"]["generation"],
    };
    assert_eq!(*tag, format!("\"{generation}\""), "{answer:?}");
    Ok(tag.clone())
}

fn ask(
    api: &ApiServer,
    (method, path): (&str, &str),
    condition: Option<&str>,
    body: &str,
) -> Result<Answer, Failure> {
    let header = condition.map(|condition| ["--header", condition]);
    let args = header.into_iter().flatten();
    Ok(api.curl(Role::Operator, (method, path), args, body)?)
}

/// That an order was refused because the link is not what the caller has seen, and what it is.
fn is_changed(answer: &Answer) -> Result<Value, Failure> {
    let error = &answer.body["error"];
    assert_eq!(answer.status, 412, "{answer:?}");
    assert_eq!(error["code"], "changed", "{answer:?}");
    assert_eq!(error["present"]["key"], "links/web", "{answer:?}");
    tag(answer)?;
    Ok(error["present"]["value"].clone())
}

#[test]
fn who_has_not_seen_a_link_as_it_is_does_not_change_it() {
    enter::test_within(DEADLINE, |lab| {
        let (_scene, _etcd, servers) = start(lab, 2, "")?;
        let (alice, bob) = (&servers[0], &servers[1]);
        let order = r#"{"vpc":"web","classic":["office"],"name":"web"}"#;
        let create = ("POST", "/v1/links");
        let made = ask(alice, create, Some("If-None-Match: *"), order)?;
        assert_eq!(made.status, 200, "{made:?}");
        let first = tag(&made)?;
        is_changed(&ask(bob, create, Some("If-None-Match: *"), order)?)?;
        let nameless = ask(
            bob,
            create,
            Some("If-Match: *"),
            r#"{"vpc":"db","classic":["office"]}"#,
        )?;
        assert_eq!(nameless.status, 400, "{nameless:?}");
        // Both look at it, each at a server of their own, and see the same.
        for api in [alice, bob] {
            let seen = ask(api, ("GET", "/v1/links/web"), None, "")?;
            assert_eq!((seen.status, tag(&seen)?), (200, first.clone()), "{seen:?}");
        }
        // Alice takes it out of service; what Bob decides on what he saw is not done, and he is told what there is.
        let seen_first = format!("If-Match: {first}");
        let disabled = ask(
            alice,
            ("POST", "/v1/links/web/disable"),
            Some(&seen_first),
            "{}",
        )?;
        assert_eq!(
            (disabled.status, &disabled.body["state"]),
            (200, &json!("disabled")),
            "{disabled:?}"
        );
        let second = tag(&disabled)?;
        assert_ne!(first, second);
        for order in [
            ("DELETE", "/v1/links/web"),
            ("POST", "/v1/links/web/disable"),
            ("POST", "/v1/links/web/enable"),
            ("POST", "/v1/links/web/undo"),
        ] {
            let there = is_changed(&ask(bob, order, Some(&seen_first), "")?)?;
            assert_eq!(there["disabled"], true, "{order:?}: {there}");
        }
        let now = ask(bob, ("GET", "/v1/links/web"), None, "")?;
        assert_eq!(tag(&now)?, second, "none of it was done: {now:?}");

        // The command says the same, and does it for who has seen it.
        let generation = second.trim_matches('"');
        let stale = first.trim_matches('"');
        let refused = bob.finish(Role::Operator, ["enable", "web", "--if-generation", stale])?;
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let error = refused.success().unwrap_err().to_string();
        let said = format!("links/web was changed: it is at generation {generation}, not {stale}");
        assert!(error.contains(&said), "{error}");
        let listed = bob.json(Role::Viewer, ["links"])?;
        assert_eq!(listed[0]["generation"].to_string(), generation, "{listed}");
        bob.ccn(
            Role::Operator,
            ["enable", "web", "--if-generation", generation],
        )?;
        let third = tag(&ask(alice, ("GET", "/v1/links/web"), None, "")?)?;

        // A change that waits for its confirmation is confirmed by who has seen it.
        let provisional = ask(
            alice,
            ("DELETE", "/v1/links/web?confirm_ms=600000"),
            Some(&format!("If-Match: {third}")),
            "",
        )?;
        assert_eq!(provisional.status, 200, "{provisional:?}");
        let fourth = tag(&provisional)?;
        let confirm = ("POST", "/v1/links/web/confirm");
        is_changed(&ask(bob, confirm, Some(&format!("If-Match: {third}")), "")?)?;
        let confirmed = ask(bob, confirm, Some(&format!("If-Match: {fourth}")), "")?;
        assert_eq!(
            (confirmed.status, &confirmed.body["state"]),
            (200, &json!("removed")),
            "{confirmed:?}"
        );
        let gone = ask(bob, ("GET", "/v1/links/web"), None, "")?;
        assert_eq!(gone.status, 404, "{gone:?}");
        Ok(())
    });
}

#[test]
fn of_two_orders_that_saw_the_same_one_is_done() {
    enter::test_within(DEADLINE, |lab| {
        let (_scene, _etcd, servers) = start(lab, 2, "")?;
        servers[0].ccn(Role::Operator, ["link", "web", "--classic", "office"])?;
        // Each round both see the same and order at once, by a server each.
        for round in 0..5 {
            let seen = ask(&servers[0], ("GET", "/v1/links/web"), None, "")?;
            let condition = format!("If-Match: {}", tag(&seen)?);
            let verb = if seen.body["state"] == "disabled" {
                "enable"
            } else {
                "disable"
            };
            let path = format!("/v1/links/web/{verb}");
            let answers = std::thread::scope(|scope| -> Result<Vec<Answer>, Failure> {
                let clients: Vec<_> = servers
                    .iter()
                    .map(|api| scope.spawn(|| ask(api, ("POST", &path), Some(&condition), "{}")))
                    .collect();
                let answered = clients.into_iter().map(|client| {
                    client
                        .join()
                        .map_err(|_| Failure::from("a client panicked"))?
                });
                answered.collect()
            })?;
            let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
            statuses.sort_unstable();
            println!("round {round}: {verb} {statuses:?}");
            assert_eq!(statuses, [200, 412], "{answers:#?}");
        }
        Ok(())
    });
}
