//! Malformed requests on the admin socket: each answered with an HTTP status and a JSON error, and
//! the agent goes on as if nothing had been.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use interop::enter;
use serde_json::Value;

use super::{Failure, SOON, World, linked};

/// An answer: status, and the body where it is JSON.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The status line and the headers.
    pub(crate) head: String,
    pub(crate) body: Value,
}

/// Says something on the socket, and hears the answer out.
pub(crate) fn say(socket: &Path, words: &[u8]) -> Result<Answer, Failure> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(SOON))?;
    // The agent may answer and hang up before it has heard all.
    let _ = stream.write_all(words);
    let mut heard = Vec::new();
    match stream.read_to_end(&mut heard) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => return Err(error.into()),
    }
    let text = String::from_utf8_lossy(&heard);
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    Ok(Answer {
        status: status.ok_or_else(|| format!("no HTTP: {text:?}"))?,
        head: head.to_owned(),
        body: serde_json::from_str(body).unwrap_or_default(),
    })
}

fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    request_if(method, path, "", body)
}

/// A request with a line of header more, or none.
pub(crate) fn request_if(method: &str, path: &str, header: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let header = match header {
        "" => String::new(),
        header => format!("{header}\r\n"),
    };
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Method, path, body; status, code, and what the message names.
type Case = (
    &'static str,
    &'static str,
    &'static str,
    u16,
    &'static str,
    &'static [&'static str],
);

const CASES: [Case; 32] = [
    ("POST", "/v1/links", "{", 400, "bad-request", &["EOF"]),
    ("POST", "/v1/links", "", 400, "bad-request", &["EOF"]),
    (
        "POST",
        "/v1/links",
        "\u{0}\u{1}",
        400,
        "bad-request",
        &["expected value"],
    ),
    ("POST", "/v1/links", "[]", 400, "bad-request", &[]),
    (
        "POST",
        "/v1/links",
        r#"{"vpc":"db"}"#,
        400,
        "bad-request",
        &["classic"],
    ),
    (
        "POST",
        "/v1/links",
        r#"{"vpc":"db","classic":[]}"#,
        400,
        "bad-request",
        &["classic"],
    ),
    (
        "POST",
        "/v1/links",
        r#"{"vpc":"db","classic":"lab"}"#,
        400,
        "bad-request",
        &["classic"],
    ),
    (
        "POST",
        "/v1/links",
        r#"{"vpc":"db","classic":["lab"],"colour":"red"}"#,
        400,
        "bad-request",
        &["colour"],
    ),
    (
        "POST",
        "/v1/links",
        r#"{"vpc":"db","classic":["10.80.2.1/24"]}"#,
        400,
        "bad-request",
        &["classic[0]", "10.80.2.1/24"],
    ),
    (
        "POST",
        "/v1/links",
        r#"{"vpc":"d b","classic":["lab"]}"#,
        400,
        "bad-request",
        &["vpc"],
    ),
    (
        "POST",
        "/v1/links?wait_ms=soon",
        r#"{"vpc":"db","classic":["lab"]}"#,
        400,
        "bad-request",
        &["wait_ms"],
    ),
    (
        "POST",
        "/v1/links",
        r#"{"vpc":"nowhere","classic":["lab"]}"#,
        409,
        "refused",
        &["links/nowhere: vpc: "],
    ),
    (
        "DELETE",
        "/v1/links/nowhere",
        "",
        404,
        "not-found",
        &["nowhere"],
    ),
    (
        "DELETE",
        "/v1/links/a%2Fb",
        "",
        400,
        "bad-request",
        &["name of the link"],
    ),
    ("GET", "/v1/nothing", "", 404, "no-such-route", &[]),
    ("PUT", "/v1/status", "{}", 404, "no-such-route", &[]),
    (
        "GET",
        "/v1/explain?src=10.1.0.11",
        "",
        400,
        "bad-request",
        &["dst"],
    ),
    (
        "GET",
        "/v1/explain?src=here&dst=10.1.0.11",
        "",
        400,
        "bad-request",
        &["src"],
    ),
    (
        "GET",
        "/v1/explain?src=10.1.0.11&dst=10.1.0.12&vni=99999999",
        "",
        400,
        "bad-request",
        &["vni"],
    ),
    (
        "POST",
        "/v1/records",
        r#"{"changes":[{"key":"x","value":{}}]}"#,
        400,
        "bad-request",
        &["key"],
    ),
    (
        "POST",
        "/v1/records",
        r#"{"changes":[{"key":"vpcs/x","value":{"vni":1001,"subnets":["10.9.0.0/24"]}}]}"#,
        409,
        "refused",
        &["vpcs/x: vni: "],
    ),
    (
        "POST",
        "/v1/records",
        r#"{"changes":[{"key":"vpcs/web","value":null}]}"#,
        409,
        "refused",
        &["VPC web is unknown"],
    ),
    (
        "GET",
        "/v1/records/links/web",
        "",
        409,
        "refused",
        &["links/web", "`ccn link`", "/v1/links"],
    ),
    (
        "PUT",
        "/v1/records/gateways/gw",
        "{}",
        409,
        "refused",
        &["gateways/gw", "registers itself"],
    ),
    (
        "GET",
        "/v1/records/x",
        "",
        400,
        "bad-request",
        &["key", "x"],
    ),
    (
        "GET",
        "/v1/records/vms/web",
        "",
        400,
        "bad-request",
        &["vms/<vpc>/<vm>"],
    ),
    (
        "GET",
        "/v1/records/vpcs/nowhere",
        "",
        404,
        "not-found",
        &["vpcs/nowhere"],
    ),
    (
        "PUT",
        "/v1/records/vpcs/x",
        r#"{"vni":1001,"subnets":[]}"#,
        409,
        "refused",
        &["vpcs/x: vni: ", "vpcs/web"],
    ),
    (
        "PUT",
        "/v1/records/vpcs/x",
        "{",
        400,
        "bad-request",
        &["EOF"],
    ),
    (
        "PUT",
        "/v1/records/vpcs/x",
        "null",
        409,
        "refused",
        &["vpcs/x: value: ", "no JSON object"],
    ),
    (
        "DELETE",
        "/v1/records/vpcs/web",
        "",
        409,
        "refused",
        &["vpcs/web is still needed by", "links/web"],
    ),
    (
        "DELETE",
        "/v1/records/vpcs/nowhere",
        "",
        404,
        "not-found",
        &["vpcs/nowhere"],
    ),
];

#[test]
fn malformed_requests_are_answered_with_a_json_error_and_change_nothing() {
    enter::test(|lab| {
        let mut scene = linked(lab)?;
        let before = World::of(&mut scene)?;
        let socket = scene.gateway.config.admin_socket.clone();
        for (method, path, body, status, code, names) in CASES {
            let answer = say(&socket, &request(method, path, body))?;
            println!("{method} {path} {body}: {answer:?}");
            let what = format!("{method} {path} {body}: {answer:?}");
            assert_eq!(answer.status, status, "{what}");
            assert_eq!(answer.body["error"]["code"], code, "{what}");
            let message = answer.body["error"]["message"].as_str().unwrap_or_default();
            for name in names {
                assert!(message.contains(name), "{what}: does not say {name:?}");
            }
            assert!(!message.is_empty(), "{what}: no message");
        }

        // Depth is not taken for patience.
        let deep = "[".repeat(200_000);
        let answer = say(&socket, &request("POST", "/v1/links", &deep))?;
        assert_eq!(
            (answer.status, &answer.body["error"]["code"]),
            (400, &"bad-request".into())
        );
        // JSON must be called so.
        let words = b"POST /v1/links HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
            content-length: 2\r\n\r\n{}";
        let answer = say(&socket, words)?;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert_eq!(answer.body["error"]["code"], "bad-request", "{answer:?}");
        assert_eq!(World::of(&mut scene)?, before);
        Ok(())
    });
}

#[test]
fn a_request_over_one_mebibyte_is_refused_whole() {
    enter::test(|lab| {
        let mut scene = linked(lab)?;
        let before = World::of(&mut scene)?;
        let socket = scene.gateway.config.admin_socket.clone();
        let record = |number: u32| {
            format!(r#"{{"key":"classic/n{number}","value":{{"prefixes":["10.90.0.0/24"]}}}}"#)
        };
        let records: Vec<String> = (0..20_000).map(record).collect();
        let body = format!(r#"{{"changes":[{}]}}"#, records.join(","));
        assert!(body.len() > 1 << 20);
        // The length told in advance; told short in chunks; and not told at all.
        let told = request("POST", "/v1/records", &body);
        let mut chunked = b"POST /v1/records HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
            content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec();
        for chunk in body.as_bytes().chunks(0xffff) {
            chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            chunked.extend_from_slice(chunk);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        for (what, words) in [("told", told), ("chunked", chunked)] {
            let answer = say(&socket, &words)?;
            println!("{what}: {answer:?}");
            assert_eq!(answer.status, 413, "{what}: {answer:?}");
            assert_eq!(
                answer.body["error"]["code"], "too-large",
                "{what}: {answer:?}"
            );
            let message = answer.body["error"]["message"].as_str().unwrap_or_default();
            assert!(message.contains("1048576 bytes"), "{message}");
        }
        assert_eq!(World::of(&mut scene)?, before);
        // The command line sends the same in parts.
        let file = lab.run().join("large.jsonl");
        std::fs::write(&file, records.join("\n"))?;
        let said = scene.gateway.ccn(["import".as_ref(), file.as_os_str()])?;
        assert!(said.contains("imported 20000 records"), "{said}");
        Ok(())
    });
}

#[test]
fn what_is_no_http_harms_nobody() {
    enter::test(|lab| {
        let mut scene = linked(lab)?;
        let before = World::of(&mut scene)?;
        let socket = scene.gateway.config.admin_socket.clone();
        let long = format!(
            "GET /v1/status HTTP/1.1\r\nx: {}\r\n\r\n",
            "y".repeat(2 << 20)
        );
        let nonsense: [(&str, &[u8]); 5] = [
            ("a greeting", b"HELO there\r\n\r\n"),
            (
                "bytes",
                &[0xff, 0x00, 0x16, 0x03, 0x01, 0x0d, 0x0a, 0x0d, 0x0a],
            ),
            ("no version", b"GET /v1/status\r\n\r\n"),
            (
                "a bad length",
                b"POST /v1/links HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n{}",
            ),
            ("a long header", long.as_bytes()),
        ];
        for (what, words) in nonsense {
            let answer = say(&socket, words)?;
            println!("{what}: {answer:?}");
            assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
        }
        // Those who begin and say no more, and those who hang up at once.
        let mut silent = Vec::new();
        for number in 0..200 {
            let mut stream = UnixStream::connect(&socket)?;
            match number % 4 {
                0 => {}
                1 => stream.write_all(b"POST /v1/links HTTP/1.1\r\nhost: x\r\n")?,
                2 => stream.write_all(
                    b"POST /v1/links HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"vpc\"",
                )?,
                _ => continue,
            }
            silent.push(stream);
        }
        assert_eq!(
            World::of(&mut scene)?,
            before,
            "with {} silent clients",
            silent.len()
        );
        drop(silent);
        assert_eq!(World::of(&mut scene)?, before);
        Ok(())
    });
}
