//! Imports of any length, by somebody else's client.

use std::fs;
use std::path::Path;

use interop::apiserver::{Answer, ApiServer, Role};
use interop::enter;
use serde_json::{Value, json};

use super::orders::start;
use super::{DEADLINE, Failure};

/// VPCs, and VMs of each: more than two parts of the stream.
const VPCS: u32 = 16;
const VMS: u32 = 1000;

/// Records beside those that are there, what is named before what names it.
fn region() -> String {
    let vpcs = (0..VPCS).map(|vpc| {
        let value = json!({"vni": 50_000 + vpc, "subnets": [format!("10.{}.0.0/16", 100 + vpc)]});
        json!({"key": format!("vpcs/s{vpc}"), "value": value})
    });
    let vms = (0..VPCS).flat_map(|vpc| (0..VMS).map(move |vm| (vpc, vm)));
    let vms = vms.map(|(vpc, vm)| {
        let [high, low] = [vm / 250, vm % 250 + 1];
        let value = json!({
            "addrs": [format!("10.{}.{high}.{low}", 100 + vpc)],
            "mac": format!("02:00:07:{vpc:02x}:{high:02x}:{low:02x}"),
            "vtep": format!("172.16.0.{}", 11 + vm % 2),
        });
        json!({"key": format!("vms/s{vpc}/v{vm}"), "value": value})
    });
    vpcs.chain(vms)
        .map(|record| format!("{record}\n"))
        .collect()
}

/// Sends a file of lines; the lines of the answer.
fn send(api: &ApiServer, file: &Path, name: &str) -> Result<(Answer, Vec<Value>), Failure> {
    let body = format!("@{}", file.display());
    let name = format!("idempotency-key: {name}");
    let kind = "content-type: application/jsonl";
    // Without "100 Continue" before the answer.
    let plain = "expect:";
    let headers = ["--header", kind, "--header", &name, "--header", plain];
    let args = headers.into_iter().chain(["--data-binary", &body]);
    let answer = api.curl(Role::Admin, ("POST", "/v1/records"), args, "")?;
    let lines = answer.text.lines().map(serde_json::from_str);
    let lines = lines.collect::<Result<Vec<Value>, _>>()?;
    Ok((answer, lines))
}

#[test]
fn a_region_is_imported_as_a_stream_that_tells_how_far_it_is() {
    enter::test_within(DEADLINE, |lab| {
        let (_scene, _etcd, servers) = start(lab, 1, "")?;
        let api = &servers[0];
        let text = region();
        let total = text.lines().count();
        let file = lab.scratch().join("stream.jsonl");
        fs::write(&file, &text)?;

        let (answer, lines) = send(api, &file, "region")?;
        assert_eq!(answer.status, 200, "{}", answer.text);
        println!("{}", answer.text);
        assert!(
            lines.len() >= 3,
            "parts are told one by one: {}",
            answer.text
        );
        let counts: Vec<u64> = lines
            .iter()
            .filter_map(|line| line["imported"].as_u64())
            .collect();
        assert!(
            counts.is_sorted() && counts.len() == lines.len(),
            "{counts:?}"
        );
        let last = lines.last().ok_or("no line")?;
        assert_eq!(
            (&last["imported"], &last["done"]),
            (&json!(total), &json!(true))
        );
        let vms = api.json(Role::Viewer, ["status"])?["records"]["vms"].clone();
        assert!(vms.as_u64() >= Some(16_000), "{vms}");

        // Sent once more under its name nothing is stored again.
        let (_, again) = send(api, &file, "region")?;
        assert_eq!(again.last(), Some(last));

        // What is wrong is named by its line; what came before stays.
        let vpc =
            json!({"key": "vpcs/last", "value": {"vni": 77_777, "subnets": ["10.77.0.0/24"]}});
        fs::write(
            &file,
            format!("{text}{vpc}\n{{\"key\":\"vpcs/no\",\"value\":7}}\n"),
        )?;
        let (_, lines) = send(api, &file, "broken")?;
        let last = lines.last().ok_or("no line")?;
        let message = last["error"]["message"].as_str().unwrap_or_default();
        let line = total + 2;
        assert!(
            message.starts_with(&format!("line {line}: vpcs/no")),
            "{last}"
        );
        assert!(last["imported"].as_u64() > Some(0), "{last}");
        // In the first part it is an answer as to any request, and nothing is stored.
        fs::write(&file, format!("{vpc}\nnonsense\n"))?;
        let (answer, _) = send(api, &file, "wrong")?;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert_eq!(
            answer.body["error"]["code"], "bad-request",
            "{}",
            answer.text
        );
        let shown = api.finish(Role::Viewer, ["vpc", "show", "last"])?;
        assert_eq!(shown.status.code(), Some(1), "{shown:?}");
        Ok(())
    });
}
