//! GoBGP: configuration, its gRPC command line, and the reading of its JSON.
//!
//! GoBGP puts no routes into the kernel: [`kernel`] does it for it, so that hosts behind this router
//! reach what it has learned.

mod kernel;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use bgp::Family;
use ipnet::IpNet;
use netlink::Namespace;
use serde::Deserialize;

use super::machine::{Machine, Running, seen};
use super::{
    ANSWER, Daemon, Extra, LearnedRoute, NeighbourConfig, PeerError, Quote, Router, RouterConfig,
    Session, SessionState,
};
use crate::enter::Lab;
use crate::process::Launch;

/// The API listens on its own namespace's loopback only.
const API: &str = "127.0.0.1:50051";

/// A GoBGP router.
#[derive(Debug)]
pub struct Gobgp {
    machine: Machine,
}

/// See [`Daemon::lacks`].
pub(super) fn lacks(extra: Extra) -> Option<&'static str> {
    match extra {
        Extra::Bfd | Extra::BfdPassword | Extra::BfdAdminDown => Some("it has none"),
        Extra::Role | Extra::GracefulShutdown => Some("the lab has no words for it"),
        Extra::ExtendedMessages => Some("it never offers the capability (RFC 8654)"),
        Extra::ExtendedNextHop => Some("offered to peers that are configured by interface only"),
        Extra::AskForRefresh => Some("`gobgp neighbor` sends none"),
        _ => None,
    }
}

impl Gobgp {
    /// Not yet started.
    pub fn new(config: RouterConfig, namespace: Arc<Namespace>, lab: &Lab) -> Self {
        Self {
            machine: Machine::new(config, namespace, lab),
        }
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, words: &[&str]) -> Result<T, PeerError> {
        let answer = self.cli(words)?;
        let read = serde_json::from_str(&answer);
        read.map_err(|error| self.machine.unreadable(&words.join(" "), error))
    }

    /// The attributes of the best path to a prefix.
    fn best(&self, prefix: IpNet) -> Result<Vec<AttributeJson>, PeerError> {
        let (family, prefix) = (super::family_of(prefix).as_str(), prefix.to_string());
        let answer = self.cli(&["-j", "global", "rib", "-a", family, &prefix])?;
        parse_best(&answer).map_err(|reason| self.machine.unreadable("global rib -j", reason))
    }
}

impl Router for Gobgp {
    fn daemon(&self) -> Daemon {
        Daemon::Gobgp
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    fn launch(&self) -> Result<Running, PeerError> {
        let machine = &self.machine;
        let config = machine.write("gobgpd.toml", &configuration(machine))?;
        let recovery: &[&str] = match machine.is_recovering() {
            true => &["--graceful-restart"],
            false => &[],
        };
        let mut process = Launch::new("gobgpd")
            .arg("-f")
            .arg(config)
            .args(["--api-hosts", API, "--pprof-disable"])
            .args(recovery)
            .in_namespace(machine.namespace.fd())
            .start(&machine.log("gobgpd"))
            .map_err(|error| machine.process(error))?;
        let neighbours = machine.config.neighbours.len();
        machine.await_ready(&mut process, "gobgp answers", || {
            // The API answers before the configuration is read: wait for the neighbours too.
            match self.cli(&["neighbor"]) {
                Ok(table) if table.lines().count() > neighbours => Ok(()),
                Ok(table) => Err(table),
                Err(error) => Err(seen(&error)),
            }
        })?;
        let running = Running::new(process).beside(kernel::Feed::start(machine)?);
        // There is no configuration for originated prefixes.
        for prefix in &machine.config.announced {
            self.originate(*prefix)?;
        }
        Ok(running)
    }

    fn cli(&self, words: &[&str]) -> Result<String, PeerError> {
        Launch::new("gobgp")
            .args(words)
            .in_namespace(self.machine.namespace.fd())
            .output(ANSWER)
            .map_err(|error| self.machine.process(error))
    }

    fn session(&self, neighbour: IpAddr) -> Result<Session, PeerError> {
        self.machine.neighbour(neighbour)?;
        let said: NeighborJson = self.json(&["-j", "neighbor", &neighbour.to_string()])?;
        said.session()
            .map_err(|reason| self.machine.unreadable("neighbor -j", reason))
    }

    fn routes(&self, family: Family) -> Result<Vec<LearnedRoute>, PeerError> {
        let command = ["-j", "global", "rib", "-a", family.as_str()];
        let answer = self.cli(&command)?;
        parse_routes(&answer).map_err(|reason| self.machine.unreadable("global rib -j", reason))
    }

    fn communities(&self, prefix: IpNet) -> Result<Vec<(u16, u16)>, PeerError> {
        let attributes = self.best(prefix)?;
        let all = attributes.iter().filter_map(|a| a.communities.as_ref());
        let pair = |community: &u32| ((community >> 16) as u16, *community as u16);
        Ok(all.flatten().map(pair).collect())
    }

    fn large_communities(&self, prefix: IpNet) -> Result<Vec<(u32, u32, u32)>, PeerError> {
        let attributes = self.best(prefix)?;
        let large = attributes.iter().filter(|a| a.code == LARGE_COMMUNITY);
        let values = large.filter_map(|attribute| attribute.value.clone());
        let values = values.map(serde_json::from_value::<Vec<LargeCommunityJson>>);
        let values = values.collect::<Result<Vec<_>, _>>();
        let values = values.map_err(|e| self.machine.unreadable("global rib -j", e))?;
        let all = values.into_iter().flatten();
        Ok(all.map(|l| (l.global, l.first, l.second)).collect())
    }

    fn show_route(&self, prefix: IpNet) -> Result<Quote, PeerError> {
        let family = super::family_of(prefix);
        let prefix = prefix.to_string();
        let words = ["global", "rib", "-a", family.as_str(), &prefix];
        let answer = self.cli(&words)?;
        Ok(Quote {
            command: format!("gobgp {}", words.join(" ")),
            answer,
        })
    }

    fn originate(&self, prefix: IpNet) -> Result<(), PeerError> {
        let config = &self.machine.config;
        let family = super::family_of(prefix);
        let (prefix, next_hop) = (prefix.to_string(), config.next_hop(family).to_string());
        let mut words = vec!["global", "rib", "add", "-a", family.as_str(), &prefix];
        words.extend(["origin", "igp", "nexthop", &next_hop]);
        let communities = joined(config.communities.iter().map(|(a, b)| format!("{a}:{b}")));
        let large = config.large_communities.iter();
        let large = joined(large.map(|(a, b, c)| format!("{a}:{b}:{c}")));
        for (word, list) in [("community", &communities), ("large-community", &large)] {
            if !list.is_empty() {
                words.extend([word, list]);
            }
        }
        self.cli(&words).map(drop)
    }

    fn cease_to_originate(&self, prefix: IpNet) -> Result<(), PeerError> {
        let family = super::family_of(prefix).as_str();
        let prefix = prefix.to_string();
        self.cli(&["global", "rib", "del", "-a", family, &prefix])
            .map(drop)
    }

    fn ask_for_refresh(&self, neighbour: IpAddr) -> Result<(), PeerError> {
        self.machine.neighbour(neighbour)?;
        Err(self.machine.not_offered("asking for a route refresh"))
    }

    fn shut_down(&self, neighbour: IpAddr, reason: &str) -> Result<(), PeerError> {
        self.machine.neighbour(neighbour)?;
        let neighbour = neighbour.to_string();
        // Its `disable` forgets the reason; after this one the session comes back by itself.
        self.cli(&["neighbor", &neighbour, "shutdown", "--reason", reason])
            .map(drop)
    }

    fn reset_session(&self, neighbour: IpAddr) -> Result<(), PeerError> {
        self.machine.neighbour(neighbour)?;
        // Its own `reset` keeps the session down for 30 s, whatever the configuration says.
        for action in ["disable", "enable"] {
            self.cli(&["neighbor", &neighbour.to_string(), action])?;
        }
        Ok(())
    }
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(",")
}

fn configuration(machine: &Machine) -> String {
    let RouterConfig {
        asn,
        router_id,
        address,
        address6,
        neighbours,
        ..
    } = &machine.config;
    let mut text = format!(
        "[global.config]\n  as = {asn}\n  router-id = \"{router_id}\"\n  \
         local-address-list = [\"{address}\", \"{address6}\"]\n\
         [global.use-multiple-paths.config]\n  enabled = true\n"
    );
    for neighbour in neighbours {
        neighbour_configuration(&mut text, machine, neighbour);
    }
    text
}

fn neighbour_configuration(text: &mut String, machine: &Machine, neighbour: &NeighbourConfig) {
    let NeighbourConfig {
        address,
        port,
        asn,
        hold_time,
        passive,
        connect_retry,
        ..
    } = neighbour;
    let local = machine.transport_address(neighbour);
    let password = neighbour.password.as_ref();
    let password = password.map_or(String::new(), |password| {
        format!("    auth-password = \"{password}\"\n")
    });
    let _ = writeln!(
        text,
        "[[neighbors]]\n  \
         [neighbors.config]\n    neighbor-address = \"{address}\"\n    peer-as = {asn}\n{}  \
         [neighbors.transport.config]\n    local-address = \"{local}\"\n    \
         remote-port = {port}\n    passive-mode = {passive}\n  \
         [neighbors.timers.config]\n    hold-time = {hold_time}\n    \
         keepalive-interval = {}\n    connect-retry = {connect_retry}\n    idle-hold-time-after-reset = 1",
        password,
        hold_time / 3
    );
    if neighbour.ttl_security {
        text.push_str("  [neighbors.ttl-security.config]\n    enabled = true\n    ttl-min = 255\n");
    }
    if let Some(seconds) = neighbour.graceful_restart {
        let _ = writeln!(
            text,
            "  [neighbors.graceful-restart.config]\n    enabled = true\n    \
             restart-time = {seconds}"
        );
    }
    for family in &neighbour.families {
        let enabled = neighbour.graceful_restart.is_some();
        let _ = writeln!(
            text,
            "  [[neighbors.afi-safis]]\n    \
             [neighbors.afi-safis.config]\n      afi-safi-name = \"{}-unicast\"\n    \
             [neighbors.afi-safis.mp-graceful-restart.config]\n      enabled = {enabled}",
            family.as_str()
        );
        if neighbour.add_path {
            text.push_str(
                "    [neighbors.afi-safis.add-paths.config]\n      receive = true\n      send-max = 8\n",
            );
        }
        if let Some(limit) = neighbour.max_prefix {
            let _ = writeln!(
                text,
                "    [neighbors.afi-safis.prefix-limit.config]\n      max-prefixes = {limit}"
            );
        }
    }
}

#[derive(Deserialize)]
struct NeighborJson {
    #[serde(default)]
    state: NeighborStateJson,
    #[serde(default)]
    timers: TimersJson,
}

#[derive(Deserialize, Default)]
struct NeighborStateJson {
    #[serde(default)]
    session_state: u8,
    #[serde(default)]
    messages: MessagesJson,
}

#[derive(Deserialize, Default)]
struct MessagesJson {
    #[serde(default)]
    sent: SentJson,
}

#[derive(Deserialize, Default)]
struct SentJson {
    #[serde(default)]
    open: u64,
}

#[derive(Deserialize, Default)]
struct TimersJson {
    #[serde(default)]
    state: TimersStateJson,
}

#[derive(Deserialize, Default)]
struct TimersStateJson {
    #[serde(default)]
    uptime: SecondsJson,
}

#[derive(Deserialize, Default)]
struct SecondsJson {
    #[serde(default)]
    seconds: i64,
}

impl NeighborJson {
    fn session(&self) -> Result<Session, String> {
        // The numbers of PeerState.SessionState in gobgp.proto; 0 is left out of the JSON.
        let state = match self.state.session_state {
            0 | 1 => SessionState::Idle,
            2 => SessionState::Connect,
            3 => SessionState::Active,
            4 => SessionState::OpenSent,
            5 => SessionState::OpenConfirm,
            6 => SessionState::Established,
            other => return Err(format!("session state {other}")),
        };
        // The clock has seconds only; the number of OPENs tells two sessions of one second apart.
        let (up, opens) = (
            self.timers.state.uptime.seconds,
            self.state.messages.sent.open,
        );
        Ok(Session {
            state,
            since: format!("{up}/{opens}"),
            last_error: None,
        })
    }
}

#[derive(Deserialize)]
struct PathJson {
    #[serde(default)]
    best: bool,
    #[serde(default)]
    stale: bool,
    #[serde(default)]
    attrs: Vec<AttributeJson>,
    /// Absent for what the router originates itself.
    #[serde(rename = "neighbor-ip")]
    neighbour: Option<String>,
}

/// One path attribute; which fields it has depends on its type code.
#[derive(Deserialize)]
struct AttributeJson {
    #[serde(rename = "type")]
    code: u8,
    nexthop: Option<IpAddr>,
    as_paths: Option<Vec<SegmentJson>>,
    communities: Option<Vec<u32>>,
    metric: Option<u32>,
    value: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct LargeCommunityJson {
    #[serde(rename = "ASN")]
    global: u32,
    #[serde(rename = "LocalData1")]
    first: u32,
    #[serde(rename = "LocalData2")]
    second: u32,
}

#[derive(Deserialize)]
struct SegmentJson {
    asns: Vec<u32>,
}

type TableJson = BTreeMap<IpNet, Vec<PathJson>>;

const MULTI_EXIT_DISC: u8 = 4;
const LARGE_COMMUNITY: u8 = 32;

fn parse_table(text: &str) -> Result<TableJson, serde_json::Error> {
    // That there is nothing is said in words, even when asked for JSON.
    if text.contains("Network not in table") {
        return Ok(TableJson::new());
    }
    serde_json::from_str(text)
}

fn parse_best(text: &str) -> Result<Vec<AttributeJson>, serde_json::Error> {
    let mut paths = parse_table(text)?.into_values().flatten();
    let best = paths.find(|path| path.best);
    Ok(best.map(|path| path.attrs).unwrap_or_default())
}

fn parse_routes(text: &str) -> Result<Vec<LearnedRoute>, serde_json::Error> {
    let table = parse_table(text)?;
    let mut routes = Vec::new();
    for (prefix, paths) in table {
        for path in paths.into_iter().filter(|path| path.neighbour.is_some()) {
            let next_hop = path.attrs.iter().find_map(|attribute| attribute.nexthop);
            let next_hop = next_hop.ok_or_else(|| {
                serde::de::Error::custom(format!("a path to {prefix} without next hop"))
            })?;
            let segments = path
                .attrs
                .iter()
                .filter_map(|attribute| attribute.as_paths.as_ref());
            routes.push(LearnedRoute {
                prefix,
                next_hop,
                as_path: segments
                    .flatten()
                    .flat_map(|s| s.asns.iter().copied())
                    .collect(),
                med: path
                    .attrs
                    .iter()
                    .find(|attribute| attribute.code == MULTI_EXIT_DISC)
                    .and_then(|attribute| attribute.metric),
                best: path.best,
                stale: path.stale,
            });
        }
    }
    Ok(routes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_gobgp_prints_them() {
        let text = r#"{"fd80:1::/48":[
            {"nlri":{"prefix":"fd80:1::/48"},"age":1,"best":true,"stale":true,
             "source-id":"10.99.0.2","neighbor-ip":"10.99.0.2","attrs":[
              {"type":1,"value":0},
              {"type":2,"as_paths":[{"segment_type":2,"num":2,"asns":[65002,4200000003]}]},
              {"type":4,"metric":7},
              {"type":8,"communities":[4260036609]},
              {"type":14,"nexthop":"fd99::2","afi":2,"safi":1,"value":[{"prefix":"fd80:1::/48"}]}]},
            {"nlri":{"prefix":"fd80:1::/48"},"age":1,"best":false,"stale":false,"attrs":[
              {"type":1,"value":2},{"type":14,"nexthop":"fd99::3"}]}]}"#;
        let routes = parse_routes(text).expect("readable");
        let learned = LearnedRoute {
            prefix: "fd80:1::/48".parse().expect("a prefix"),
            next_hop: "fd99::2".parse().expect("an address"),
            as_path: vec![65002, 4_200_000_003],
            med: Some(7),
            best: true,
            stale: true,
        };
        assert_eq!(routes, [learned]);
        let best = parse_best(text).expect("readable");
        let communities = best.iter().find_map(|a| a.communities.as_deref());
        assert_eq!(communities, Some(&[4_260_036_609][..]));
        assert!(
            parse_routes("Network not in table\n")
                .expect("readable")
                .is_empty()
        );
    }

    #[test]
    fn sessions_are_read_as_gobgp_prints_them() {
        let text = r#"{"conf":{"peer_asn":65002},"state":{"messages":{"sent":{"open":2}},
            "session_state":6},"timers":{"state":{"uptime":{"seconds":1795400464}}}}"#;
        let session = serde_json::from_str::<NeighborJson>(text)
            .expect("readable")
            .session();
        let since = "1795400464/2".to_owned();
        let expected = Session {
            state: SessionState::Established,
            since,
            last_error: None,
        };
        assert_eq!(session, Ok(expected));
    }
}
