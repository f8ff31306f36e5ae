//! Orders to an API server for a group of two gateways: what each of them would make of it, and one that is gone.

use std::time::{Duration, Instant};

use bgp::Family;
use interop::apiserver::{ApiServer, Role};
use interop::enter;
use interop::gateway::Gateway;
use interop::scene::{OFFICE, Scene, WEB};
use interop::wait::eventually;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{DEADLINE, Failure, SOON};

/// A lease of 30 s, and time for a slow machine.
const LEASE_ENDS: Duration = Duration::from_secs(60);

fn await_gateways(api: &ApiServer, count: usize, within: Duration) -> Result<Value, Failure> {
    let seen = eventually("the gateways are fit", within, || {
        let gateways = api.json(Role::Viewer, ["gateways"]);
        let gateways = gateways.map_err(|error| error.to_string())?;
        let fit = |gateway: &Value| {
            gateway["health"] == "healthy" && gateway["peers"] == json!({"up": 1, "all": 1})
        };
        match gateways.as_array() {
            Some(all) if all.len() == count && all.iter().all(fit) => Ok(gateways),
            _ => Err(gateways.to_string()),
        }
    })?;
    Ok(seen)
}

fn names(gateways: &Value) -> Vec<&str> {
    let gateways = gateways.as_array().into_iter().flatten();
    gateways.filter_map(|at| at["gateway"].as_str()).collect()
}

/// What a gateway says of itself when it is asked directly, without what is said of the link.
fn alone(gateway: &Gateway, order: &[&str]) -> Result<Value, Failure> {
    let plan = gateway.json(order)?;
    let parts = [
        "announce",
        "withdraw",
        "permits",
        "permits_removed",
        "kernel",
        "limits",
    ];
    let parts = parts.map(|part| (part.to_owned(), plan[part].clone()));
    Ok(Value::Object(parts.into_iter().collect()))
}

#[test]
fn a_rehearsal_tells_what_it_would_come_to_at_each_gateway_by_its_own_account() {
    enter::test_within(DEADLINE, |lab| {
        let (scene, partner, etcd) = Scene::start_pair_on_etcd(lab)?;
        let api = ApiServer::start(lab, scene.region.gateway_namespace(), &etcd, 0, "")?;
        let gateways = await_gateways(&api, 2, SOON)?;
        assert_eq!(names(&gateways), ["gw", "gw2"]);
        for gateway in gateways.as_array().into_iter().flatten() {
            let fullest = &gateway["fullest"];
            assert!(
                fullest["used"].as_u64() <= fullest["max"].as_u64(),
                "{gateway}"
            );
        }
        let listed = api.ccn(Role::Viewer, ["gateways"])?;
        for part in ["PEERS UP", "1 of 1", "FULLEST"] {
            assert!(listed.contains(part), "{listed}");
        }

        let order = ["link", "web", "--classic", "office", "--dry-run"];
        let plan = api.json(Role::Viewer, order)?;
        let at = plan["at"].as_array().cloned().unwrap_or_default();
        assert_eq!(at.len(), 2, "{plan}");
        for (said, (name, gateway)) in at.iter().zip([("gw", &scene.gateway), ("gw2", &partner)]) {
            let mut own = alone(gateway, &order)?;
            assert_eq!(own["announce"][0]["peers"], json!(["bird-1"]), "{own}");
            own["gateway"] = json!(name);
            assert_eq!(said, &own);
        }
        let said = api.ccn(Role::Viewer, order)?;
        for part in [
            "gw: announce   ipv4 10.1.0.0/24 to bird-1",
            "gw2: announce   ipv4 10.1.0.0/24 to bird-1",
            "gw2: kernel     permits +2 -0: ",
        ] {
            assert!(said.contains(part), "{said}");
        }
        // Nothing of it stays in the store.
        let left = etcd.ctl(&["get", "--prefix", "--keys-only", interop::etcd::ROOT])?;
        let questions = |key: &&str| key.contains(".asked/") || key.contains(".answered/");
        assert_eq!(left.lines().find(questions), None, "{left}");
        Ok(())
    });
}

#[test]
fn an_order_waits_for_a_gateway_that_is_gone_until_its_lease_is() {
    enter::test_within(DEADLINE, |lab| {
        let (mut scene, mut partner, etcd) = Scene::start_pair_on_etcd(lab)?;
        let api = ApiServer::start(lab, scene.region.gateway_namespace(), &etcd, 0, "")?;
        await_gateways(&api, 2, SOON)?;
        let said = api.ccn(Role::Operator, ["link", "web", "--classic", "office"])?;
        assert!(said.contains("announced by gw, gw2"), "{said}");
        scene.await_path(&[], &interop::scene::nets(&OFFICE)?)?;

        partner.kill()?;
        let gone = Instant::now();
        // It counts as alive: it may still forward, and nobody can say what.
        let order = ["link", "db", "--classic", "lab"];
        let plan = api.json(Role::Viewer, [&order[..], &["--dry-run"]].concat())?;
        let unknown = plan["at"][1]["unknown"].as_str().unwrap_or_default();
        assert!(unknown.contains("no answer within"), "{plan}");
        assert_eq!(plan["at"][0]["unknown"], Value::Null, "{plan}");
        let early = api.finish(Role::Operator, [&order[..], &["--wait", "2s"]].concat())?;
        assert_eq!(early.status.code(), Some(4), "{early:?}");
        let error = early.success().unwrap_err().to_string();
        assert!(
            error.contains("gw2: ") && !error.contains("gw: "),
            "{error}"
        );

        // With more time it is done as soon as the other one counts no more.
        let said = api.ccn(Role::Operator, ["enable", "db", "--wait", "60s"])?;
        println!(
            "answered {:.1} s after the kill",
            gone.elapsed().as_secs_f64()
        );
        assert!(said.contains("announced by gw"), "{said}");
        assert!(!said.contains("gw2"), "{said}");
        assert_eq!(names(&await_gateways(&api, 1, LEASE_ENDS)?), ["gw"]);
        let routes = scene.routers[0].routes(Family::Ipv4Unicast)?;
        let db: IpNet = "10.1.1.0/24".parse()?;
        assert!(routes.iter().any(|route| route.prefix == db), "{routes:?}");

        // What it never had goes at once. What it had it may still forward: nobody is told that it does not.
        api.ccn(Role::Operator, ["disable", "db"])?;
        api.ccn(Role::Operator, ["enable", "db"])?;
        let who_may_forward = || -> Result<String, Failure> {
            let order = ["disable", "web", "--wait", "1s"];
            let late = api.finish(Role::Operator, order)?;
            assert_eq!(late.status.code(), Some(4), "{late:?}");
            Ok(late.stderr)
        };
        let said = who_may_forward()?;
        assert!(
            said.contains("gw2: is gone") && !said.contains("gw: "),
            "{said}"
        );
        let status = api.json(Role::Viewer, ["status"])?;
        assert_eq!(
            status["gone"],
            json!([{"gateway": "gw2", "links": ["web"]}]),
            "{status}"
        );
        let told = api.ccn(Role::Viewer, ["status"])?;
        assert!(
            told.contains("gone        gw2, and may forward what it had of web"),
            "{told}"
        );

        // One that will not be back is forgotten, by an admin.
        etcd.ctl(&[
            "put",
            &format!("{}.held/web/gw9", interop::etcd::ROOT),
            "{}",
        ])?;
        let said = who_may_forward()?;
        assert!(
            said.contains("gw2: is gone") && said.contains("gw9: is gone"),
            "{said}"
        );
        let forget = |role, gateway| api.finish(role, ["gateways", "forget", gateway]);
        for (role, gateway, says) in [
            (Role::Operator, "gw9", "this takes admin"),
            (Role::Admin, "gw", "gw is alive: stop its agent first"),
            (
                Role::Admin,
                "gw3",
                "nothing is known of gw3; gone are: gw2, gw9",
            ),
        ] {
            let refused = forget(role, gateway)?;
            assert_eq!(refused.status.code(), Some(1), "{refused:?}");
            assert!(refused.stderr.contains(says), "{}", refused.stderr);
        }
        let forgotten = forget(Role::Admin, "gw9")?;
        assert!(
            forgotten.stdout.contains("gw9 is forgotten; it held web"),
            "{forgotten:?}"
        );
        let said = who_may_forward()?;
        assert!(
            said.contains("gw2: is gone") && !said.contains("gw9"),
            "{said}"
        );

        // It comes back, does what it has missed, and counts again.
        let packet = ["explain", "10.80.1.10", "10.1.0.11"];
        partner.start()?;
        await_gateways(&api, 2, SOON)?;
        api.ccn(Role::Operator, ["disable", "web", "--wait", "30s"])?;
        let said = partner.json(packet)?;
        assert_eq!(said["kernel"]["verdict"]["forward"], Value::Null, "{said}");
        let held = || -> Result<Vec<String>, Failure> {
            let below = format!("{}.held/", interop::etcd::ROOT);
            let keys = etcd.ctl(&["get", "--prefix", "--keys-only", &below])?;
            Ok(keys.split_whitespace().map(str::to_owned).collect())
        };
        assert_eq!(held()?, ["/ccn/v1.held/db/gw", "/ccn/v1.held/db/gw2"]);
        let status = api.json(Role::Viewer, ["status"])?;
        assert_eq!(status["gone"], json!([]), "{status}");
        api.ccn(Role::Operator, ["enable", "web"])?;
        eventually("both announce both", SOON, || {
            let links = api
                .json(Role::Viewer, ["links"])
                .map_err(|error| error.to_string())?;
            let all = links.as_array().into_iter().flatten();
            let states = all.flat_map(|link| link["gateways"].as_array().into_iter().flatten());
            let announced = states.filter(|at| at["state"] == "announced").count();
            if announced == 4 {
                Ok(())
            } else {
                Err(links.to_string())
            }
        })?;

        // One that is stopped goes on forwarding; one whose plane is taken away has nothing left, and says so.
        let all = ["db/gw", "db/gw2", "web/gw", "web/gw2"];
        partner.stop()?;
        assert_eq!(held()?, all.map(|mark| format!("/ccn/v1.held/{mark}")));
        partner.remove_plane()?;
        assert_eq!(held()?, ["/ccn/v1.held/db/gw", "/ccn/v1.held/web/gw"]);
        Ok(())
    });
}

#[test]
fn one_gateway_is_asked_by_way_of_the_server_what_its_own_socket_would_say() {
    enter::test_within(DEADLINE, |lab| {
        let (scene, partner, etcd) = Scene::start_pair_on_etcd(lab)?;
        let api = ApiServer::start(lab, scene.region.gateway_namespace(), &etcd, 0, "")?;
        await_gateways(&api, 2, SOON)?;
        api.ccn(Role::Operator, ["link", "web", "--classic", "office"])?;
        let there = |question: &[&str]| {
            let question = [question, &["--gateway", "gw2"]].concat();
            api.json(Role::Viewer, question)
        };
        for question in [&["routes"][..], &["limits"], &["quarantine"], &["links"]] {
            assert_eq!(there(question)?, partner.json(question)?, "{question:?}");
        }
        assert_eq!(there(&["status"])?["gateway"], "gw2");
        let peer = there(&["peer", "bird-1"])?;
        assert_eq!(peer["state"], "established", "{peer}");
        // The kernel of that gateway is asked, too.
        let packet = ["explain", "10.80.1.10", "10.1.0.11"];
        let said = there(&packet)?;
        assert_eq!(said["kernel"]["agrees"], true, "{said}");
        assert_eq!(said, partner.json(packet)?);

        for (question, says) in [
            (&["peers", "--gateway", "gw9"][..], "there are: gw, gw2"),
            (&["peer", "nobody", "--gateway", "gw2"], "no peer is called"),
            (
                &["export", "--gateway", "gw2"],
                "gw2: /v1/records answers no JSON",
            ),
            (
                &["unlink", "web", "--gateway", "gw2"],
                "no order for gw2 alone",
            ),
        ] {
            let finished = api.finish(Role::Operator, question)?;
            assert_eq!(finished.status.code(), Some(1), "{question:?}");
            assert!(
                finished.stderr.contains(says),
                "{question:?}: {}",
                finished.stderr
            );
        }
        Ok(())
    });
}

#[test]
fn one_gateway_is_drained_and_its_peers_taken_down_by_way_of_the_server() {
    enter::test_within(DEADLINE, |lab| {
        let (scene, partner, etcd) = Scene::start_pair_on_etcd(lab)?;
        let api = ApiServer::start(lab, scene.region.gateway_namespace(), &etcd, 0, "")?;
        await_gateways(&api, 2, SOON)?;
        api.ccn(Role::Operator, ["link", "web", "--classic", "office"])?;
        let order =
            |role: Role, order: &[&str]| api.finish(role, [order, &["--gateway", "gw2"]].concat());

        for role in [Role::Viewer, Role::Operator] {
            let refused = order(role, &["drain"])?;
            assert_eq!(refused.status.code(), Some(1), "{role:?}");
            assert!(
                refused.stderr.contains("this takes admin"),
                "{}",
                refused.stderr
            );
        }
        let unknown = order(Role::Admin, &["peer", "down", "nobody"])?;
        assert_eq!(unknown.status.code(), Some(1));
        assert!(
            unknown.stderr.contains("no peer is called"),
            "{}",
            unknown.stderr
        );

        // Longer than an order is waited for: the command follows it.
        let web: IpNet = WEB[0].parse()?;
        let paths = || -> Result<usize, String> {
            let routes = scene.routers[0].routes(Family::Ipv4Unicast);
            let routes = routes.map_err(|error| error.to_string())?;
            Ok(routes.iter().filter(|route| route.prefix == web).count())
        };
        assert_eq!(paths()?, 2);
        let drained = order(Role::Admin, &["drain", "--settle", "9s"])?;
        assert_eq!(drained.status.code(), Some(0), "{}", drained.stderr);
        assert!(
            drained.stdout.contains("safe to stop"),
            "{}",
            drained.stdout
        );
        assert_eq!(paths()?, 1);
        assert_eq!(partner.json(["status"])?["drain"]["state"], "drained");
        assert_eq!(scene.gateway.json(["status"])?["drain"]["state"], "serving");
        let back = order(Role::Admin, &["undrain"])?;
        assert!(back.stdout.contains("serving again"), "{}", back.stdout);
        becomes_so("both announce it", 2, &paths)?;

        let down = order(Role::Admin, &["peer", "down", "bird-1"])?;
        assert_eq!(down.status.code(), Some(0), "{}", down.stderr);
        becomes_so("its session is down", 1, &paths)?;
        let up = order(Role::Admin, &["peer", "up", "bird-1"])?;
        assert_eq!(up.status.code(), Some(0), "{}", up.stderr);
        becomes_so("its session is up", 2, &paths)?;
        let reloaded = order(Role::Admin, &["reload"])?;
        assert_eq!(reloaded.status.code(), Some(0), "{}", reloaded.stderr);

        // Each is written down before and after.
        let audit = api.audit()?;
        let of_gateways = audit.iter().filter(|line| line["order"] == "gateway");
        let told: Vec<(&str, &str)> = of_gateways
            .map(|line| {
                let path = line["what"]["path"].as_str().unwrap_or_default();
                (line["event"].as_str().unwrap_or_default(), path)
            })
            .collect();
        let expected = [
            ("ordered", "/v1/peers/nobody/down"),
            ("refused", ""),
            ("ordered", "/v1/drain?settle_ms=9000"),
            ("done", ""),
            ("ordered", "/v1/undrain"),
            ("done", ""),
            ("ordered", "/v1/peers/bird-1/down"),
            ("done", ""),
            ("ordered", "/v1/peers/bird-1/up"),
            ("done", ""),
            ("ordered", "/v1/reload"),
            ("done", ""),
        ];
        assert_eq!(told.len(), expected.len(), "{audit:?}");
        for ((event, path), (expected, begins)) in told.iter().zip(expected) {
            assert_eq!(*event, expected, "{audit:?}");
            assert!(path.starts_with(begins), "{path} and {begins}");
        }
        Ok(())
    });
}

fn becomes_so(
    what: &str,
    count: usize,
    paths: &dyn Fn() -> Result<usize, String>,
) -> Result<(), Failure> {
    Ok(eventually(what, SOON, || match paths()? {
        found if found == count => Ok(()),
        found => Err(format!("{found} paths")),
    })?)
}
