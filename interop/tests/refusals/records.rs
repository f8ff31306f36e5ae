//! Bad records: refused at import, quarantined when they came in behind the agent's back.

use interop::enter;
use interop::scene::change_store;
use interop::wait::eventually;
use serde_json::json;

use super::{Refusal, SOON, World, linked};

/// A file that is imported: what it is about, its lines, what the refusal names.
type Case = (&'static str, &'static str, &'static [&'static str]);

const CASES: [Case; 22] = [
    ("junk", "hello", &["region.jsonl:1", "not {\"key\""]),
    (
        "half a JSON",
        r#"{"key":"vpcs/x","value":{"vni":"#,
        &["region.jsonl:1", "EOF"],
    ),
    (
        "another form",
        r#"{"key":"vpcs/x","value":{},"colour":1}"#,
        &["region.jsonl:1", "colour"],
    ),
    (
        "unknown kind",
        r#"{"key":"planets/x","value":{}}"#,
        &["region.jsonl:1", "planets/x", "key"],
    ),
    (
        "bad name",
        r#"{"key":"vpcs/","value":{}}"#,
        &["region.jsonl:1", "key"],
    ),
    (
        "no object",
        r#"{"key":"vpcs/x","value":[1]}"#,
        &["vpcs/x", "no JSON object"],
    ),
    (
        "missing field",
        r#"{"key":"vpcs/x","value":{"vni":5001}}"#,
        &["vpcs/x: subnets: is missing"],
    ),
    (
        "wrong type",
        r#"{"key":"vpcs/x","value":{"vni":"many","subnets":["10.9.0.0/24"]}}"#,
        &["vpcs/x: vni: "],
    ),
    (
        "VNI out of range",
        r#"{"key":"vpcs/x","value":{"vni":16777216,"subnets":["10.9.0.0/24"]}}"#,
        &["vpcs/x: vni: ", "16777216"],
    ),
    (
        "CIDR with host bits",
        r#"{"key":"vpcs/x","value":{"vni":5001,"subnets":["10.8.0.0/24","10.9.0.1/24"]}}"#,
        &["vpcs/x: subnets[1]: ", "10.9.0.1/24", "10.9.0.0/24"],
    ),
    (
        "IPv6 CIDR with host bits",
        r#"{"key":"vpcs/x","value":{"vni":5001,"subnets":["fd00:9::1/64"]}}"#,
        &["vpcs/x: subnets[0]: ", "fd00:9::1/64", "fd00:9::/64"],
    ),
    (
        "duplicate VNI",
        r#"{"key":"vpcs/x","value":{"vni":1001,"subnets":["10.9.0.0/24"]}}"#,
        &["vpcs/x: vni: ", "1001 is already used by vpcs/web"],
    ),
    (
        "subnets of one VPC overlap",
        r#"{"key":"vpcs/x","value":{"vni":5001,"subnets":["10.9.0.0/16","10.9.1.0/24"]}}"#,
        &["vpcs/x: subnets[1]: ", "10.9.1.0/24 overlaps 10.9.0.0/16"],
    ),
    (
        "subnets in one CCSI overlap",
        r#"{"key":"vpcs/x","value":{"vni":5001,"subnets":["10.1.0.0/25"]}}
           {"key":"ccsis/prod","value":{"vpcs":["web","db","x"]}}"#,
        &[
            "ccsis/prod: vpcs[2]: ",
            "VPC x (10.1.0.0/25) overlaps VPC web (10.1.0.0/24)",
        ],
    ),
    (
        "a VPC in two CCSIs",
        r#"{"key":"ccsis/more","value":{"vpcs":["web"]}}"#,
        &["ccsis/more: vpcs[0]: ", "web is already in ccsis/prod"],
    ),
    (
        "unknown VPC in a CCSI",
        r#"{"key":"ccsis/more","value":{"vpcs":["nowhere"]}}"#,
        &["ccsis/more: vpcs[0]: ", "VPC nowhere is unknown"],
    ),
    (
        "VM outside its subnets",
        r#"{"key":"vms/web/x","value":{"addrs":["10.1.0.9","10.2.0.9"],"mac":"02:00:00:00:00:09","vtep":"172.16.0.11"}}"#,
        &[
            "vms/web/x: addrs[1]: ",
            "10.2.0.9 is in none of the subnets of vpcs/web",
        ],
    ),
    (
        "VM of an unknown VPC",
        r#"{"key":"vms/nowhere/x","value":{"addrs":["10.1.0.9"],"mac":"02:00:00:00:00:09","vtep":"172.16.0.11"}}"#,
        &["vms/nowhere/x: ", "VPC nowhere is unknown"],
    ),
    (
        "address of another VM",
        r#"{"key":"vms/web/x","value":{"addrs":["10.1.0.11"],"mac":"02:00:00:00:00:09","vtep":"172.16.0.11"}}"#,
        &[
            "vms/web/x: addrs[0]: ",
            "10.1.0.11 is already used by vms/web/web-1",
        ],
    ),
    (
        "multicast MAC",
        r#"{"key":"vms/web/x","value":{"addrs":["10.1.0.9"],"mac":"01:00:5e:00:00:09","vtep":"172.16.0.11"}}"#,
        &["vms/web/x: mac: ", "01:00:5e:00:00:09"],
    ),
    (
        "a change that pulls the ground from under others",
        r#"{"key":"vpcs/web","value":{"vni":1001,"subnets":["10.7.0.0/24"]}}"#,
        &[
            "vms/web/web-1: addrs[0]: ",
            "10.1.0.11 is in none of the subnets of vpcs/web",
        ],
    ),
    (
        "good lines before a bad one",
        r#"{"key":"vpcs/x","value":{"vni":5001,"subnets":["10.9.0.0/24"]}}
           {"key":"vms/x/one","value":{"addrs":["10.9.0.1"],"mac":"02:00:00:00:00:09","vtep":"172.16.0.11"}}
           {"key":"links/x","value":{"vpc":"x","classic":["10.1.0.0/24"]}}"#,
        &[
            "links/x: classic[0]: ",
            "10.1.0.0/24 overlaps subnet 10.1.0.0/24 of VPC web",
        ],
    ),
];

#[test]
fn bad_records_are_refused_with_field_and_reason_and_change_nothing() {
    enter::test(|lab| {
        let mut scene = linked(lab)?;
        let before = World::of(&mut scene)?;
        let file = lab.run().join("region.jsonl");
        for (what, lines, names) in CASES {
            let lines: Vec<&str> = lines.lines().map(str::trim).collect();
            std::fs::write(&file, lines.join("\n"))?;
            let finished = scene
                .gateway
                .finish(["import".as_ref(), file.as_os_str()])?;
            Refusal { code: 1, names }.is(what, &finished);
        }
        let missing = scene.gateway.finish(["import", "/nowhere"])?;
        Refusal {
            code: 1,
            names: &["/nowhere", "No such file"],
        }
        .is("no such file", &missing);
        assert_eq!(World::of(&mut scene)?, before);
        Ok(())
    });
}

#[test]
fn bad_records_behind_the_agents_back_are_quarantined_and_stop_nothing() {
    // Key, value, field and code of the reason.
    const BAD: [(&str, &str, &str, &str); 7] = [
        ("vpcs/junk", "{\"vni\":", "value", "not-json"),
        ("vpcs/list", "[]", "value", "not-object"),
        ("moons/x", "{}", "key", "bad-key"),
        (
            "vpcs/twin",
            r#"{"vni":1001,"subnets":["10.9.0.0/24"]}"#,
            "vni",
            "vni-taken",
        ),
        (
            "vpcs/bits",
            r#"{"vni":5002,"subnets":["10.9.0.1/24"]}"#,
            "subnets[0]",
            "invalid",
        ),
        (
            "vms/web/astray",
            r#"{"addrs":["10.200.0.1"],"mac":"02:00:00:00:00:09","vtep":"172.16.0.11"}"#,
            "addrs[0]",
            "outside-subnets",
        ),
        (
            "links/lost",
            r#"{"vpc":"nowhere","classic":["lab"]}"#,
            "vpc",
            "unknown-vpc",
        ),
    ];
    enter::test(|lab| {
        let mut scene = linked(lab)?;
        let before = World::of(&mut scene)?;
        scene.gateway.stop()?;
        let changes: Vec<_> = BAD
            .iter()
            .map(|(key, value, ..)| (*key, Some(*value)))
            .collect();
        change_store(&scene.gateway.config.store.path, &changes)?;
        scene.gateway.start()?;
        let status = scene.gateway.await_settled(SOON)?;
        assert_eq!(status["records"]["quarantined"], BAD.len(), "{status}");
        assert_eq!(
            status["plane"]["operations"], 0,
            "they move nothing: {status}"
        );
        let shown = scene.gateway.json(["quarantine"])?;
        let table = scene.gateway.ccn(["quarantine"])?;
        println!("{table}");
        for (key, _, field, code) in BAD {
            let fault = shown
                .as_array()
                .into_iter()
                .flatten()
                .find(|fault| fault["key"] == key);
            let fault = fault.ok_or_else(|| format!("{key} is not shown: {shown}"))?;
            assert_eq!(
                (&fault["field"], &fault["code"]),
                (&json!(field), &json!(code)),
                "{fault}"
            );
            assert!(
                fault["reason"]
                    .as_str()
                    .is_some_and(|reason| !reason.is_empty()),
                "{fault}"
            );
            let line = table.lines().find(|line| line.contains(key));
            assert!(
                line.is_some_and(|line| line.contains(field)),
                "{key}: {table}"
            );
        }
        assert_eq!(shown.as_array().map(Vec::len), Some(BAD.len()), "{shown}");

        // The rest works as before, and a link that is bad says so.
        assert_eq!(scene.kernel()?, before.kernel);
        let links = scene.gateway.json(["links"])?;
        let state = |name: &str| {
            let mut all = links.as_array().into_iter().flatten();
            all.find(|link| link["link"] == name)
                .map(|link| link["state"].clone())
        };
        assert_eq!(state("web"), Some(json!("announced")), "{links}");
        assert_eq!(state("lost"), Some(json!("quarantined")), "{links}");
        scene.gateway.ccn(["link", "db", "--classic", "lab"])?;

        // Put right, a record takes effect.
        scene.gateway.put(
            "vpcs/twin",
            &json!({ "vni": 5001, "subnets": ["10.9.0.0/24"] }),
        )?;
        eventually("one less in quarantine", SOON, || {
            match scene.gateway.json(["status"]) {
                Ok(status) if status["records"]["quarantined"] == BAD.len() - 1 => Ok(()),
                Ok(status) => Err(status["records"].to_string()),
                Err(error) => Err(error.to_string()),
            }
        })?;
        let vpcs = scene.gateway.json(["vpcs"])?;
        assert!(vpcs.to_string().contains("twin"), "{vpcs}");
        Ok(())
    });
}
