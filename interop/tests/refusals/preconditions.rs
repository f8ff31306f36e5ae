//! Single records over the admin socket: their generation is their tag, and what is made of an older one is refused.

use std::path::Path;
use std::thread;

use interop::enter;
use interop::scene::Scene;
use serde_json::{Value, json};

use super::requests::{Answer, request_if, say};
use super::{Failure, World, linked};

fn ask(
    socket: &Path,
    method: &str,
    key: &str,
    header: &str,
    value: &Value,
) -> Result<Answer, Failure> {
    let body = match value {
        Value::Null => String::new(),
        value => value.to_string(),
    };
    let path = format!("/v1/records/{key}");
    say(socket, &request_if(method, &path, header, &body))
}

/// The tag of an answer, which says the same as its body.
fn tag(answer: &Answer) -> Result<String, Failure> {
    let mut lines = answer.head.lines();
    let tag = lines.find_map(|line| line.strip_prefix("etag: "));
    let tag = tag.ok_or_else(|| format!("no etag: {answer:?}"))?;
    let generation = match &answer.body["error"] {
        Value::Null => &answer.body["generation"],
        error => &error["present"]["generation"],
    };
    assert_eq!(tag, format!("\"{generation}\""), "{answer:?}");
    Ok(tag.to_owned())
}

#[test]
fn a_record_that_is_not_what_was_seen_is_not_changed() {
    enter::test(|lab| {
        let mut scene = linked(lab)?;
        let socket = scene.gateway.config.admin_socket.clone();
        let ask = |method: &str, key: &str, header: &str, value: &Value| {
            ask(&socket, method, key, header, value)
        };
        let none = Value::Null;
        let record = |subnet: &str| json!({"vni": 5001, "subnets": [subnet], "note": "kept"});
        let (one, two) = (record("10.9.0.0/24"), record("10.9.1.0/24"));

        // Made once, and not again.
        let made = ask("PUT", "vpcs/x", "if-none-match: *", &one)?;
        assert_eq!((made.status, &made.body["value"]), (200, &one), "{made:?}");
        let first = tag(&made)?;
        let got = ask("GET", "vpcs/x", "", &none)?;
        assert_eq!((got.status, &got.body), (200, &made.body));
        assert_eq!(tag(&got)?, first);
        // What other records do is not its generation.
        let other = ask(
            "PUT",
            "classic/attic",
            "",
            &json!({"prefixes": ["10.81.0.0/24"]}),
        )?;
        assert_ne!(tag(&other)?, first);
        assert_eq!(tag(&ask("GET", "vpcs/x", "", &none)?)?, first);
        let before = World::of(&mut scene)?;
        let stale = "if-match: \"1\"";
        for (method, key, header, value) in [
            ("PUT", "vpcs/x", "if-none-match: *", &two),
            ("PUT", "vpcs/x", stale, &two),
            ("DELETE", "vpcs/x", stale, &none),
        ] {
            let refused = ask(method, key, header, value)?;
            println!("{method} {key} {header}: {refused:?}");
            let error = &refused.body["error"];
            assert_eq!((refused.status, &error["code"]), (412, &json!("changed")));
            let present = &error["present"];
            assert_eq!(present, &ask("GET", key, "", &none)?.body);
            let message = error["message"].as_str().unwrap_or_default();
            let generation = format!("generation {}", present["generation"]);
            assert!(message.contains(&generation), "{message}");
            let value = r#"{"vni":5001,"subnets":["10.9.0.0/24"],"note":"kept"}"#;
            assert!(message.contains(value), "{message}");
            tag(&refused)?;
        }
        for header in ["if-match: *", "if-match: \"1\""] {
            let refused = ask(
                "PUT",
                "vpcs/y",
                header,
                &json!({"vni": 5002, "subnets": []}),
            )?;
            assert_eq!(refused.status, 412, "{refused:?}");
            assert_eq!(refused.body["error"]["present"], none);
        }
        for header in ["if-match: 7", "if-none-match: \"7\"", "if-match: W/\"7\""] {
            let refused = ask("PUT", "vpcs/x", header, &two)?;
            assert_eq!(refused.status, 400, "{refused:?}");
        }
        assert_eq!(World::of(&mut scene)?, before);

        // With the tag that it has it is changed; the same again is nothing new.
        let changed = ask("PUT", "vpcs/x", &format!("if-match: {first}"), &two)?;
        let second = tag(&changed)?;
        assert_eq!((changed.status, &changed.body["value"]), (200, &two));
        assert_ne!(second, first);
        assert_eq!(tag(&ask("PUT", "vpcs/x", "if-match: *", &two)?)?, second);
        // Without a condition the last one to write is right.
        assert_eq!(ask("PUT", "vpcs/x", "", &one)?.status, 200);
        let gone = ask("DELETE", "vpcs/x", "if-match: *", &none)?;
        assert_eq!((gone.status, &gone.body["state"]), (200, &json!("removed")));
        assert_eq!(ask("GET", "vpcs/x", "", &none)?.status, 404);
        assert_eq!(ask("DELETE", "vpcs/x", "", &none)?.status, 404);
        Ok(())
    });
}

#[test]
fn a_quarantined_record_is_shown_with_what_is_wrong_and_can_be_mended() {
    enter::test(|lab| {
        let mut scene = linked(lab)?;
        let socket = scene.gateway.config.admin_socket.clone();
        scene.gateway.stop()?;
        let path = scene.gateway.config.store.path.clone();
        interop::scene::change_store(&path, &[("vpcs/x", Some("{junk"))])?;
        scene.gateway.start()?;
        let got = ask(&socket, "GET", "vpcs/x", "", &Value::Null)?;
        assert_eq!((got.status, &got.body["value"]), (200, &json!("{junk")));
        assert_eq!(got.body["faults"][0]["code"], "not-json", "{got:?}");
        let header = format!("if-match: {}", tag(&got)?);
        let good = json!({"vni": 5001, "subnets": []});
        let mended = ask(&socket, "PUT", "vpcs/x", &header, &good)?;
        assert_eq!(mended.status, 200, "{mended:?}");
        assert_eq!(scene.gateway.json(["quarantine"])?, json!([]));
        Ok(())
    });
}

/// Many that count in one record, each looking first: every count is there in the end.
fn count(scene: &Scene) -> Result<(), Failure> {
    const CLIENTS: u64 = 8;
    const EACH: u64 = 10;
    let socket = &scene.gateway.config.admin_socket;
    let key = "vms/web/web-1";
    let once = || -> Result<u64, Failure> {
        for attempt in 0..1000 {
            let got = ask(socket, "GET", key, "", &Value::Null)?;
            let mut value = got.body["value"].clone();
            // A field that the agent does not know, and does not keep of a VM either.
            value["count"] = json!(value["count"].as_u64().unwrap_or_default() + 1);
            let header = format!("if-match: {}", tag(&got)?);
            let answer = ask(socket, "PUT", key, &header, &value)?;
            match answer.status {
                200 => return Ok(attempt),
                412 => {}
                _ => return Err(format!("{answer:?}").into()),
            }
        }
        Err("others were faster a thousand times".into())
    };
    let again = thread::scope(|scope| -> Result<u64, Failure> {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope
                    .spawn(|| (0..EACH).try_fold(0, |again, _| Ok::<u64, Failure>(again + once()?)))
            })
            .collect();
        let mut again = 0;
        for client in clients {
            again += client.join().map_err(|_| "a client panicked")??;
        }
        Ok(again)
    })?;
    println!(
        "{} counted, {again} times others were faster",
        CLIENTS * EACH
    );
    let got = ask(socket, "GET", key, "", &Value::Null)?;
    assert_eq!(got.body["value"]["count"], json!(CLIENTS * EACH), "{got:?}");
    Ok(())
}

#[test]
fn of_many_that_change_a_record_none_overwrites_another() {
    enter::test(|lab| count(&linked(lab)?));
}

#[test]
fn of_many_that_change_a_record_in_etcd_none_overwrites_another() {
    enter::test(|lab| {
        let (scene, _etcd) = Scene::start_on_etcd(lab, 1, 1)?;
        count(&scene)
    });
}
