//! What an API server tells a scraper, asked of a real one between a real etcd and a real gateway.

use std::collections::BTreeMap;
use std::time::Duration;

use interop::apiserver::{ApiServer, Role};
use interop::enter;
use interop::scene::Scene;
use interop::traffic::http;
use interop::wait::eventually;

use super::orders::start;
use super::{DEADLINE, Failure, SOON};

const LISTEN: &str = "127.0.0.1:9465";
const CONFIG: &str = "[metrics]\nlisten = \"127.0.0.1:9465\"\n";

/// Every sample, by name and labels as they are written.
fn scrape(scene: &Scene) -> Result<BTreeMap<String, f64>, Failure> {
    let namespace = scene.region.gateway_namespace();
    let page = http::fetch_path(&namespace, LISTEN.parse()?, "/metrics", SOON)?;
    if page.status != 200 || !page.body.ends_with("# EOF\n") {
        return Err(format!("{page:?}").into());
    }
    let samples = page.body.lines().filter(|line| !line.starts_with('#'));
    let read = samples.map(|line| {
        let (name, value) = line.rsplit_once(' ').ok_or(line)?;
        Ok((name.to_owned(), value.parse()?))
    });
    read.collect()
}

/// That samples have these values.
fn agree(samples: &BTreeMap<String, f64>, wanted: &[(&str, f64)]) -> Result<(), String> {
    let wrong = wanted
        .iter()
        .filter(|(name, value)| samples.get(*name) != Some(value));
    match wrong.clone().next() {
        None => Ok(()),
        Some(_) => {
            let wrong: Vec<_> = wrong.collect();
            Err(format!("wanted {wrong:?}, there is {samples:#?}"))
        }
    }
}

/// Asks with a token that nobody has.
fn as_a_stranger(api: &ApiServer, token: &std::path::Path) -> Result<Option<i32>, Failure> {
    let asked = api.command(Role::Viewer, ["links"]);
    let finished = asked.env("CCN_TOKEN_FILE", token).finish(SOON)?;
    Ok(finished.status.code())
}

#[test]
fn a_scraper_is_told_what_was_asked_and_what_came_of_it() {
    enter::test_within(DEADLINE, |lab| {
        let (mut scene, etcd, servers) = start(lab, 1, CONFIG)?;
        let api = &servers[0];
        let before = scrape(&scene)?;
        agree(
            &before,
            &[
                (r#"ccn_gateways_alive{group="default"}"#, 1.0),
                (r#"ccn_gateways_fit{group="default"}"#, 1.0),
                (r#"ccn_links{group="default"}"#, 0.0),
                ("ccn_store_stale", 0.0),
                ("ccn_audited_changes_total", 0.0),
                ("ccn_requests_under_way", 0.0),
            ],
        )?;
        api.ccn(Role::Operator, ["link", "web", "--classic", "office"])?;
        // The same order twice, and what cannot be.
        let order = r#"{"vpc":"db","classic":["office"]}"#;
        for _ in 0..2 {
            let key = ["--header", "Idempotency-Key: once"];
            let made = api.curl(Role::Operator, ("POST", "/v1/links"), key, order)?;
            assert_eq!(made.status, 200, "{made:?}");
        }
        let taken = ["link", "web-test", "--classic", "office"];
        assert_eq!(api.finish(Role::Operator, taken)?.status.code(), Some(1));
        // Whoever is not known, may not, or is no client at all.
        let stranger = lab.scratch().join("stranger");
        std::fs::write(&stranger, "nobody-0123456789abcdef")?;
        as_a_stranger(api, &stranger)?;
        api.anonymous(["links"]).finish(SOON)?;
        api.finish(Role::Viewer, ["unlink", "web"])?;
        let untrusted = api
            .command(Role::Viewer, ["links"])
            .env("CCN_CA", &stranger);
        untrusted.finish(SOON)?;
        let no_such = ["", ""]
            .iter()
            .zip(0..)
            .map(|(_, n)| format!("/nothing/{n}"));
        for path in no_such {
            api.curl(Role::Viewer, ("GET", &path), [""; 0], "")?;
        }
        let after = scrape(&scene)?;
        agree(
            &after,
            &[
                (r#"ccn_links{group="default"}"#, 2.0),
                ("ccn_audited_changes_total", 2.0),
                (r#"ccn_orders_total{order="link",outcome="done"}"#, 3.0),
                (r#"ccn_orders_total{order="link",outcome="refused"}"#, 1.0),
                (r#"ccn_orders_repeated_total{order="link"}"#, 1.0),
                (
                    r#"ccn_authentication_failures_total{reason="unknown-token"}"#,
                    1.0,
                ),
                (
                    r#"ccn_authentication_failures_total{reason="nothing-shown"}"#,
                    1.0,
                ),
                (
                    r#"ccn_authentication_failures_total{reason="forbidden"}"#,
                    1.0,
                ),
                (r#"ccn_requests_refused_total{reason="rate"}"#, 0.0),
                (
                    r#"ccn_requests_total{route="/v1/links",method="POST",status="2xx"}"#,
                    3.0,
                ),
                (
                    r#"ccn_requests_total{route="/v1/links",method="POST",status="4xx"}"#,
                    1.0,
                ),
                (
                    r#"ccn_requests_total{route="/v1/links/{link}",method="DELETE",status="4xx"}"#,
                    1.0,
                ),
                (
                    r#"ccn_requests_total{route="none",method="GET",status="4xx"}"#,
                    2.0,
                ),
                (
                    r#"ccn_request_duration_seconds_count{route="/v1/links",method="POST"}"#,
                    4.0,
                ),
                (
                    r#"ccn_request_duration_seconds_bucket{le="+Inf",route="/v1/links",method="POST"}"#,
                    4.0,
                ),
            ],
        )?;
        assert!(
            after["ccn_store_generation"] > before["ccn_store_generation"],
            "{after:#?}"
        );

        // A gateway that goes is missed where links want it; a store that goes, by its age.
        scene.gateway.stop()?;
        eventually("no gateway is alive", 2 * SOON, || {
            let samples = scrape(&scene).map_err(|error| error.to_string())?;
            agree(&samples, &[(r#"ccn_gateways_alive{group="default"}"#, 0.0)])
        })?;
        drop(etcd);
        eventually("the store is stale", 2 * SOON, || {
            let samples = scrape(&scene).map_err(|error| error.to_string())?;
            agree(&samples, &[("ccn_store_stale", 1.0)])?;
            match samples.get("ccn_store_age_seconds") {
                Some(age) if *age >= 1.0 => Ok(()),
                age => Err(format!("{age:?}")),
            }
        })?;
        Ok(())
    });
}

#[test]
fn who_asks_too_much_is_counted_by_the_limit() {
    let config = format!("[limits]\nrate = 1\nburst = 20\n{CONFIG}");
    enter::test_within(DEADLINE, |lab| {
        let (scene, _etcd, servers) = start(lab, 1, &config)?;
        let deadline = Duration::from_secs(60);
        eventually("the limit is met", deadline, || {
            let asked = servers[0].curl(Role::Admin, ("GET", "/v1/vpcs"), [""; 0], "");
            match asked {
                Ok(answer) if answer.status == 429 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        let refused = scrape(&scene)?[r#"ccn_requests_refused_total{reason="rate"}"#];
        assert!(refused >= 1.0, "{refused}");
        Ok(())
    });
}
