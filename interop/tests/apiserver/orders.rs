//! Orders to API servers, with a real gateway behind a real etcd.

use interop::apiserver::{ApiServer, Role};
use interop::enter::{self, Lab};
use interop::etcd::Etcd;
use interop::scene::{OFFICE, Scene, WEB, nets};
use interop::wait::eventually;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{DEADLINE, Failure, SOON};

pub(super) fn start(
    lab: &Lab,
    servers: u16,
    more: &str,
) -> Result<(Scene, Etcd, Vec<ApiServer>), Failure> {
    let (scene, etcd) = Scene::start_on_etcd(lab, 1, 1)?;
    let mut started = Vec::new();
    for number in 0..servers {
        let namespace = scene.region.gateway_namespace();
        started.push(ApiServer::start(lab, namespace, &etcd, number, more)?);
    }
    if let Some(api) = started.first() {
        eventually("the gateway is fit", SOON, || {
            let gateways = api.json(Role::Viewer, ["gateways"]);
            match gateways {
                Ok(gateways) if gateways[0]["health"] == "healthy" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
    }
    Ok((scene, etcd, started))
}

/// A link as the API server tells of it.
fn link(api: &ApiServer, name: &str) -> Result<Value, Failure> {
    let links = api.json(Role::Viewer, ["links"])?;
    let mut links = links.as_array().into_iter().flatten();
    Ok(links
        .find(|link| link["link"] == name)
        .cloned()
        .unwrap_or(Value::Null))
}

#[test]
fn an_order_is_done_when_every_live_gateway_says_so() {
    enter::test_within(DEADLINE, |lab| {
        let (mut scene, _etcd, servers) = start(lab, 1, "")?;
        let api = &servers[0];
        let before = scene.kernel()?;
        let plan = api.json(
            Role::Viewer,
            ["link", "web", "--classic", "office", "--dry-run"],
        )?;
        assert_eq!(plan["gateways"], json!([{"gateway": "gw"}]), "{plan}");
        assert_eq!(plan["announce"][0]["prefix"], "10.1.0.0/24", "{plan}");
        assert_eq!(scene.kernel()?, before, "a rehearsal changes nothing");

        let said = api.ccn(Role::Operator, ["link", "web", "--classic", "office"])?;
        assert!(
            said.contains("10.1.0.0/24, fd00:1::/64 announced by gw"),
            "{said}"
        );
        // What is acknowledged is there: no waiting here.
        let seen = link(api, "web")?;
        assert_eq!(seen["state"], "announced", "{seen}");
        assert_eq!(seen["gateways"][0]["state"], "announced", "{seen}");
        assert_eq!(scene.gateway.json(["links"])?[0]["state"], "announced");
        scene.await_path(&nets(&WEB)?, &nets(&OFFICE)?)?;

        let said = api.ccn(Role::Operator, ["disable", "web"])?;
        assert!(said.contains("disabled web"), "{said}");
        assert_eq!(scene.kernel()?, before, "nothing of it is left");
        assert_eq!(link(api, "web")?["state"], "disabled");
        api.ccn(Role::Operator, ["undo", "web"])?;
        assert_eq!(link(api, "web")?["state"], "announced");
        api.ccn(Role::Operator, ["unlink", "web"])?;
        assert_eq!(
            scene.kernel()?,
            before,
            "nothing forwards after unlink was answered"
        );
        assert_eq!(link(api, "web")?, Value::Null);

        // Who ordered what, and what was before and after, is written down.
        let audit = api.audit()?;
        let done: Vec<&Value> = audit
            .iter()
            .filter(|line| line["event"] == "done")
            .collect();
        let orders: Vec<&Value> = done.iter().map(|line| &line["order"]).collect();
        assert_eq!(orders, ["link", "disable", "undo", "unlink"]);
        assert!(
            done.iter().all(|line| line["name"] == "operator"),
            "{audit:?}"
        );
        assert_eq!(done[0]["changes"][0]["before"], Value::Null);
        assert_eq!(done[0]["changes"][0]["after"]["vpc"], "web");
        assert_eq!(done[3]["changes"][0]["after"], Value::Null);
        assert_eq!(
            audit.len(),
            2 * done.len(),
            "each before and after: {audit:?}"
        );
        Ok(())
    });
}

#[test]
fn a_gateway_that_has_not_done_it_is_named() {
    enter::test_within(DEADLINE, |lab| {
        let (mut scene, _etcd, servers) = start(lab, 1, "")?;
        let api = &servers[0];
        scene.gateway.agent()?.signal(Signal::SIGSTOP)?;
        let order = ["link", "web", "--classic", "office", "--wait", "500ms"];
        let late = api.finish(Role::Operator, order)?;
        scene.gateway.agent()?.signal(Signal::SIGCONT)?;
        assert_eq!(late.status.code(), Some(4), "{late:?}");
        let error = late.success().unwrap_err().to_string();
        assert!(error.contains("gw: has not taken it up"), "{error}");
        eventually("it goes on", SOON, || match link(api, "web") {
            Ok(link) if link["state"] == "announced" => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        // What cannot be is refused before anything is stored, with both sides named.
        let refused = api.finish(Role::Operator, ["link", "web-test", "--classic", "office"])?;
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let error = refused.success().unwrap_err().to_string();
        assert!(
            error.contains("web-test") && error.contains("links/web"),
            "{error}"
        );
        Ok(())
    });
}

#[test]
fn callers_are_known_and_may_what_their_role_says() {
    enter::test_within(DEADLINE, |lab| {
        let (_scene, etcd, servers) = start(lab, 1, "")?;
        let api = &servers[0];
        let link = ["link", "web", "--classic", "office"];
        let said = |finished: interop::process::Finished| -> (Option<i32>, String) {
            let code = finished.status.code();
            (
                code,
                finished
                    .success()
                    .err()
                    .map(|e| e.to_string())
                    .unwrap_or_default(),
            )
        };
        let (code, error) = said(api.finish(Role::Viewer, link)?);
        assert!(
            error.contains("viewer is viewer, and this takes operator"),
            "{error}"
        );
        assert_eq!(code, Some(1));
        let (_, error) = said(api.finish(Role::Operator, ["store", "follow"])?);
        assert!(error.contains("this takes admin"), "{error}");
        let stranger = lab.scratch().join("stranger");
        std::fs::write(&stranger, "nobody-0123456789abcdef")?;
        let (_, error) = said(
            api.command(Role::Viewer, ["status"])
                .env("CCN_TOKEN_FILE", &stranger)
                .finish(SOON)?,
        );
        assert!(error.contains("this token is not known"), "{error}");
        // A certificate is as good as a token, if its name is one that may.
        let by_certificate = |name: &str, arguments: &[&str]| -> Result<_, Failure> {
            let identity = etcd.authority.sign(name)?;
            let command = api
                .anonymous(arguments)
                .env("CCN_CERT", &identity.certificate)
                .env("CCN_KEY", &identity.key);
            Ok(said(command.finish(SOON)?))
        };
        let (code, error) = by_certificate("ops", &link)?;
        assert_eq!(code, Some(0), "{error}");
        let (_, error) = by_certificate("ops", &["store", "follow"])?;
        assert!(error.contains("ops is operator"), "{error}");
        let (_, error) = by_certificate("mallory", &["status"])?;
        assert!(error.contains("no [[client]] here"), "{error}");
        let (_, error) = said(api.anonymous(["status"]).finish(SOON)?);
        assert!(error.contains("who are you?"), "{error}");
        // Who is not trusted by the server, or does not trust it, gets no connection.
        let (code, error) = said(
            api.command(Role::Viewer, ["status"])
                .env("CCN_CA", &stranger)
                .finish(SOON)?,
        );
        assert_eq!(code, Some(2), "{error}");
        let audit = api.audit()?;
        let names: Vec<&Value> = audit.iter().map(|line| &line["name"]).collect();
        assert_eq!(
            names,
            ["ops", "ops"],
            "who may not orders nothing: {audit:?}"
        );
        // What concerns a gateway alone is asked there.
        let (_, error) = said(api.finish(Role::Admin, ["peers"])?);
        assert!(error.contains("ccn --gateway"), "{error}");
        Ok(())
    });
}

#[test]
fn an_order_that_lost_its_answer_is_carried_out_once() {
    enter::test_within(DEADLINE, |lab| {
        let (mut scene, _etcd, mut servers) = start(lab, 2, "")?;
        scene.gateway.agent()?.signal(Signal::SIGSTOP)?;
        // The first server stores it and waits for the gateway; then it is killed, and the command asks the other.
        let both: Vec<&ApiServer> = servers.iter().collect();
        let command = servers[0].command_to(&both, Role::Operator);
        let command = command.args(["link", "web", "--classic", "office"]);
        let order = std::thread::spawn(move || command.finish(2 * SOON));
        eventually("it is stored", SOON, || match link(&servers[1], "web") {
            Ok(link) if link["vpc"] == "web" => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        servers[0].kill()?;
        scene.gateway.agent()?.signal(Signal::SIGCONT)?;
        let said = order.join().map_err(|_| "the command panicked")??;
        let said = said.success()?;
        assert!(said.contains("announced by gw"), "{said}");
        let links = servers[1].json(Role::Viewer, ["links"])?;
        assert_eq!(links.as_array().map(Vec::len), Some(1), "{links}");
        assert_eq!(links[0]["state"], "announced", "{links}");
        let before: Vec<Value> = servers[1].audit()?;
        assert!(
            before.iter().any(|line| line["event"] == "done-before"),
            "{before:?}"
        );
        Ok(())
    });
}

#[test]
fn an_unlink_that_lost_its_answer_is_answered_when_nothing_forwards() {
    enter::test_within(DEADLINE, |lab| {
        let (mut scene, _etcd, mut servers) = start(lab, 2, "")?;
        let before = scene.kernel()?;
        servers[0].ccn(Role::Operator, ["link", "web", "--classic", "office"])?;
        scene.gateway.agent()?.signal(Signal::SIGSTOP)?;
        // The first server takes the record away and is killed; the second one finds it gone already.
        let both: Vec<&ApiServer> = servers.iter().collect();
        let command = servers[0].command_to(&both, Role::Operator);
        let command = command.args(["unlink", "web"]);
        let order = std::thread::spawn(move || command.finish(2 * SOON));
        eventually("the record is gone", SOON, || {
            match link(&servers[1], "web") {
                Ok(Value::Null) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        servers[0].kill()?;
        eventually("the other server is asked", SOON, || {
            let audit = servers[1].audit().map_err(|error| error.to_string())?;
            match audit.iter().any(|line| line["event"] == "done-before") {
                true => Ok(()),
                false => Err(format!("{audit:?}")),
            }
        })?;
        scene.gateway.agent()?.signal(Signal::SIGCONT)?;
        order
            .join()
            .map_err(|_| "the command panicked")??
            .success()?;
        let left = before.difference(&scene.kernel()?);
        assert_eq!(left, "", "nothing forwards after unlink was answered");
        Ok(())
    });
}

#[test]
fn two_servers_never_overwrite_one_another() {
    enter::test_within(DEADLINE, |lab| {
        let (scene, _etcd, servers) = start(lab, 2, "")?;
        let _ = &scene;
        // The same VPC, linked and unlinked by four clients at each of two servers, all at once.
        std::thread::scope(|scope| -> Result<(), Failure> {
            let mut clients = Vec::new();
            for (index, api) in servers.iter().cycle().take(8).enumerate() {
                clients.push(scope.spawn(move || -> Result<(u32, u32), Failure> {
                    let (mut made, mut refused) = (0, 0);
                    for _ in 0..5 {
                        let name = format!("web-by-{index}");
                        let order = ["link", "web", "--classic", "office", "--name", &name];
                        if api.finish(Role::Operator, order)?.status.success() {
                            made += 1;
                            api.ccn(Role::Operator, ["unlink", &name])?;
                        } else {
                            refused += 1;
                        }
                    }
                    Ok((made, refused))
                }));
            }
            let (mut made, mut refused) = (0, 0);
            for client in clients {
                let (one, other) = client.join().map_err(|_| "a client panicked")??;
                made += one;
                refused += other;
            }
            println!("{made} links made and taken back, {refused} refused");
            assert!(made > 0);
            Ok(())
        })?;
        for api in &servers {
            assert_eq!(api.json(Role::Viewer, ["links"])?, json!([]));
        }
        let left = scene.gateway.await_settled(SOON)?;
        assert_eq!(left["links"]["total"], 0, "{left}");
        Ok(())
    });
}
