//! What the OpenAPI document says, held against what servers answer, by somebody else's reader of JSON Schema.

use std::fs::{self, File};

use interop::apiserver::{ApiServer, Role};
use interop::enter;
use interop::gateway::may_load_bpf;
use interop::process::Launch;
use interop::scene::{OFFICE, Scene};
use serde_json::{Value, json};

use super::{DEADLINE, Failure, SOON};

/// What is asked where something is to be named in the path or the query; the rest has no parameters that are needed.
const NAMED: [(&str, &str); 8] = [
    ("/v1/links/{link}", "/v1/links/web"),
    ("/v1/explain", "/v1/explain?src=10.80.1.10&dst=10.1.0.11"),
    ("/v1/vms", "/v1/vms?vpc=web"),
    ("/v1/records/{key}", "/v1/records/vpcs/web"),
    ("/v1/gateways/{gateway}/{route}", "/v1/gateways/gw/limits"),
    ("/v1/peers/{peer}", "/v1/peers/bird-1"),
    ("/v1/doctor", "/v1/doctor?sample=10"),
    ("/healthz", "/healthz"),
];

/// The operations of a document: path, method, and what it says of it.
fn operations(document: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods.map(move |(method, operation)| (path, method, operation))
    })
}

/// Asks for everything that is answered with JSON; has each answer looked at. How many there were.
fn hold(
    document: &Value,
    ask: impl Fn(&str, &str) -> Result<(u16, String), Failure>,
    file: &std::path::Path,
) -> Result<usize, Failure> {
    let mut answers = Vec::new();
    for (path, method, operation) in operations(document) {
        let at = NAMED.iter().find(|(named, _)| named == path);
        let at = at.map_or(path.as_str(), |(_, at)| at);
        let is_json = operation["responses"]["200"]["content"]["application/json"].is_object();
        if method == "get" && is_json {
            let (status, body) = ask("GET", at)?;
            // Of the other plane nobody knows what passes.
            let may_refuse = path == "/v1/traffic" && status == 409;
            assert!(status == 200 || may_refuse, "GET {at}: {status} {body}");
            let body: Value = serde_json::from_str(&body)?;
            answers.push(json!({"method": method, "path": path, "status": status, "body": body}));
        }
        if method != "get" {
            // Whatever it would do, it is not asked well.
            let at = path.replace("{link}", "-").replace("{peer}", "nobody");
            let at = format!("{}?nonsense=1", at.replace("{key}", "nonsense/x"));
            let (status, body) = ask(&method.to_uppercase(), &at)?;
            let body: Value = serde_json::from_str(&body)?;
            assert_ne!(body["error"]["code"], "no-such-route", "{method} {at}");
            if status != 200 {
                answers
                    .push(json!({"method": method, "path": path, "status": status, "body": body}));
            }
        }
    }
    let count = answers.len();
    let asked = json!({ "document": document, "answers": answers });
    fs::write(file, asked.to_string())?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apiserver/openapi.py");
    let wrong = Launch::new("/usr/bin/python3")
        .arg(script)
        .input(File::open(file)?);
    let wrong = wrong.output(SOON)?;
    assert_eq!(wrong, "", "what is answered is not what the document says");
    Ok(count)
}

#[test]
fn servers_answer_what_their_documents_say() {
    enter::test_within(DEADLINE, |lab| {
        let may_load_bpf = may_load_bpf()?;
        let (mut scene, etcd) = Scene::start_on_etcd_with(lab, 1, |gateway| {
            if may_load_bpf {
                gateway.config.plane.kind = "ebpf".to_owned();
            }
        })?;
        let api = ApiServer::start(lab, scene.region.gateway_namespace(), &etcd, 0, "")?;
        scene.link("web", "office", &OFFICE)?;
        // One that is in quarantine, for the shape of faults.
        etcd.put("vpcs/evil", "not JSON")?;

        let by_curl = |method: &str, path: &str| -> Result<(u16, String), Failure> {
            let answer = api.curl(Role::Admin, (method, path), [""; 0], "")?;
            Ok((answer.status, answer.text))
        };
        let (status, body) = by_curl("GET", "/v1/openapi.json")?;
        assert_eq!(status, 200);
        let document: Value = serde_json::from_str(&body)?;
        assert_eq!(
            document,
            api.json(Role::Viewer, ["openapi"])?,
            "as `ccn openapi` prints it"
        );
        let count = hold(&document, by_curl, &lab.scratch().join("api.json"))?;
        println!("the API server: {count} answers are as they are said to be");

        let socket = scene.gateway.config.admin_socket.clone();
        let by_socket = |method: &str, path: &str| -> Result<(u16, String), Failure> {
            let curl = Launch::new("curl").args(["-sS", "-X", method, "-w", "\n%{http_code}"]);
            let curl = curl
                .arg("--unix-socket")
                .arg(&socket)
                .arg(format!("http://ccn{path}"));
            let said = curl.output(SOON)?;
            let (body, status) = said.rsplit_once('\n').ok_or("no status")?;
            Ok((status.trim().parse()?, body.to_owned()))
        };
        let (_, body) = by_socket("GET", "/v1/openapi.json")?;
        let document: Value = serde_json::from_str(&body)?;
        let count = hold(&document, by_socket, &lab.scratch().join("agent.json"))?;
        println!("the admin socket: {count} answers are as they are said to be");
        Ok(())
    });
}
