//! GoBGP's best paths in its namespace's kernel, as the `zebra` beside a real GoBGP would put them
//! there: `gobgp monitor` tells of each change, and this writes it down.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::ChildStdout;
use std::thread::JoinHandle;

use ipnet::IpNet;
use netlink::{NextHop, Request, Route, RouteFilter, Socket};
use serde::Deserialize;

use super::super::PeerError;
use super::super::machine::Machine;
use crate::process::{Launch, Process};

/// What Linux's `rt_protos` calls `bgp`.
const PROTOCOL: u8 = 186;

/// Keeps the kernel's routes as GoBGP's best paths, until it is dropped.
#[derive(Debug)]
pub(super) struct Feed {
    monitor: Option<Process>,
    writer: Option<JoinHandle<()>>,
}

impl Feed {
    /// Starts with what the daemon has now; what an earlier one left in the kernel goes.
    pub(super) fn start(machine: &Machine) -> Result<Self, PeerError> {
        let kernel = |source| PeerError::Kernel {
            router: machine.config.name.clone(),
            source,
        };
        let mut socket = Socket::open_in(&machine.namespace).map_err(kernel)?;
        let filter = RouteFilter {
            protocol: Some(PROTOCOL),
            ..RouteFilter::default()
        };
        for route in socket.routes(&filter).map_err(kernel)? {
            socket
                .request(Request::delete_route(route))
                .map_err(kernel)?;
        }
        let (monitor, changes) = Launch::new("gobgp")
            .args(["-j", "monitor", "global", "rib", "--current"])
            .in_namespace(machine.namespace.fd())
            .start_reading(&machine.log("monitor"))
            .map_err(|error| machine.process(error))?;
        let writer = std::thread::spawn(move || write(socket, changes));
        Ok(Self {
            monitor: Some(monitor),
            writer: Some(writer),
        })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Its end ends the writer.
        self.monitor = None;
        if let Some(writer) = self.writer.take() {
            // It does not panic; if it did, the routes would be missing and a test would see it.
            let _ = writer.join();
        }
    }
}

#[derive(Deserialize)]
struct ChangeJson {
    nlri: NlriJson,
    attrs: Vec<AttributeJson>,
    #[serde(default)]
    withdrawal: bool,
    /// Absent for what the router originates itself.
    #[serde(rename = "neighbor-ip")]
    neighbour: Option<String>,
}

#[derive(Deserialize)]
struct NlriJson {
    prefix: IpNet,
}

#[derive(Deserialize)]
struct AttributeJson {
    nexthop: Option<IpAddr>,
}

fn write(mut socket: Socket, changes: ChildStdout) {
    for line in BufReader::new(changes).lines().map_while(Result::ok) {
        for change in parse(&line) {
            if let Err(error) = socket.request(change) {
                tracing::warn!(%error, "GoBGP's kernel refused a route");
            }
        }
    }
}

/// One line is a list of changes; what is not about a learned route is passed over.
fn parse(line: &str) -> Vec<Request> {
    let changes: Vec<ChangeJson> = serde_json::from_str(line).unwrap_or_else(|error| {
        tracing::warn!(%error, line, "gobgp monitor said what the lab cannot read");
        Vec::new()
    });
    let learned = changes
        .into_iter()
        .filter(|change| change.neighbour.is_some());
    learned
        .filter_map(|change| {
            let next_hop = change
                .attrs
                .iter()
                .find_map(|attribute| attribute.nexthop)?;
            let mut route = Route::new(change.nlri.prefix, NextHop::via(next_hop, 0));
            route.protocol = PROTOCOL;
            Some(match change.withdrawal {
                true => Request::delete_route(route),
                false => Request::replace_route(route),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_as_gobgp_prints_them() {
        let line = r#"[{"nlri":{"prefix":"100.80.0.0/24"},"best":false,"attrs":[
              {"type":1,"value":0},{"type":3,"nexthop":"10.99.0.2"}],
              "neighbor-ip":"10.99.0.2"},
            {"nlri":{"prefix":"fd80:1::/48"},"attrs":[{"type":14,"nexthop":"fd99::2"}],
              "withdrawal":true,"neighbor-ip":"10.99.0.2"},
            {"nlri":{"prefix":"1.1.1.0/24"},"attrs":[{"type":3,"nexthop":"10.99.0.3"}]}]"#;
        let texts: Vec<String> = parse(line).iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(
            texts[0].contains("100.80.0.0/24") && texts[0].starts_with("set"),
            "{texts:?}"
        );
        assert!(
            texts[1].contains("fd80:1::/48") && texts[1].starts_with("delete"),
            "{texts:?}"
        );
    }
}
