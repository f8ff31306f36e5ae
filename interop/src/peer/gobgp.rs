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
use nix::sys::signal::Signal;
use serde::Deserialize;

use super::{
    ANSWER, Daemon, LearnedRoute, NeighbourConfig, PeerError, Quote, Router, RouterConfig, START,
    STOP, Session, SessionState, Site, late,
};
use crate::enter::Lab;
use crate::process::{Launch, Process};
use crate::wait::eventually;

/// The API listens on its own namespace's loopback only.
const API: &str = "127.0.0.1:50051";

/// A GoBGP router.
#[derive(Debug)]
pub struct Gobgp {
    site: Site,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    gobgpd: Process,
    /// Ends with the daemon; the routes it made stay, as after a crash of a real router.
    _kernel: kernel::Feed,
}

impl Gobgp {
    /// Not yet started.
    pub fn new(config: RouterConfig, namespace: Arc<Namespace>, lab: &Lab) -> Self {
        Self {
            site: Site::new(config, namespace, lab),
            running: None,
        }
    }

    fn running(&self) -> Result<&Process, PeerError> {
        let running = self
            .running
            .as_ref()
            .ok_or_else(|| self.site.not_running())?;
        Ok(&running.gobgpd)
    }

    /// Adds or removes one originated prefix in the running daemon.
    fn originate(&self, action: &str, prefix: IpNet) -> Result<(), PeerError> {
        let (family, next_hop) = match prefix {
            IpNet::V4(_) => ("ipv4", IpAddr::from(self.site.config.address)),
            IpNet::V6(_) => ("ipv6", IpAddr::from(self.site.config.address6)),
        };
        let (prefix, next_hop) = (prefix.to_string(), next_hop.to_string());
        let words = ["global", "rib", action, "-a", family, &prefix];
        match action {
            "add" => {
                let origin = ["origin", "igp", "nexthop", next_hop.as_str()];
                self.cli(&[&words[..], &origin[..]].concat()).map(drop)
            }
            _ => self.cli(&words).map(drop),
        }
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, words: &[&str]) -> Result<T, PeerError> {
        let answer = self.cli(words)?;
        serde_json::from_str(&answer).map_err(|error| self.site.unreadable(&words.join(" "), error))
    }
}

impl Router for Gobgp {
    fn config(&self) -> &RouterConfig {
        &self.site.config
    }

    fn daemon(&self) -> Daemon {
        Daemon::Gobgp
    }

    fn namespace(&self) -> &Arc<Namespace> {
        &self.site.namespace
    }

    fn start(&mut self) -> Result<(), PeerError> {
        if self.running.is_some() {
            return Ok(());
        }
        let config = self.site.write("gobgpd.toml", &configuration(&self.site))?;
        let mut process = Launch::new("gobgpd")
            .arg("-f")
            .arg(config)
            .args(["--api-hosts", API, "--pprof-disable"])
            .in_namespace(self.site.namespace.fd())
            .start(&self.site.log("gobgpd"))
            .map_err(|error| self.site.process(error))?;
        let neighbours = self.site.config.neighbours.len();
        let answered = eventually("gobgp answers", START, || match process.check() {
            Err(error) => Ok(Err(error)),
            // The API answers before the configuration is read: wait for the neighbours too.
            Ok(()) => match self.cli(&["neighbor"]) {
                Ok(table) if table.lines().count() > neighbours => Ok(Ok(())),
                Ok(table) => Err(table),
                Err(error) => Err(crate::enter::Chain(&error).to_string()),
            },
        });
        match answered {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.site.process(error)),
            Err(error) => return Err(late(&self.site.config, error)),
        }
        let kernel = kernel::Feed::start(&self.site)?;
        self.running = Some(Running {
            gobgpd: process,
            _kernel: kernel,
        });
        // There is no configuration for originated prefixes.
        for prefix in &self.site.config.announced {
            self.originate("add", *prefix)?;
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), PeerError> {
        match self.running.take() {
            Some(running) => running
                .gobgpd
                .stop(Signal::SIGTERM, STOP)
                .map(drop)
                .map_err(|error| self.site.process(error)),
            None => Ok(()),
        }
    }

    fn kill(&mut self) {
        self.running = None;
    }

    fn freeze(&self) -> Result<(), PeerError> {
        self.running()?
            .signal(Signal::SIGSTOP)
            .map_err(|error| self.site.process(error))
    }

    fn thaw(&self) -> Result<(), PeerError> {
        self.running()?
            .signal(Signal::SIGCONT)
            .map_err(|error| self.site.process(error))
    }

    fn cli(&self, words: &[&str]) -> Result<String, PeerError> {
        Launch::new("gobgp")
            .args(words)
            .in_namespace(self.site.namespace.fd())
            .output(ANSWER)
            .map_err(|error| self.site.process(error))
    }

    fn session(&self, neighbour: IpAddr) -> Result<Session, PeerError> {
        self.site.neighbour(neighbour)?;
        let said: NeighborJson = self.json(&["-j", "neighbor", &neighbour.to_string()])?;
        said.session()
            .map_err(|reason| self.site.unreadable("neighbor -j", reason))
    }

    fn routes(&self, family: Family) -> Result<Vec<LearnedRoute>, PeerError> {
        let command = ["-j", "global", "rib", "-a", family.as_str()];
        let answer = self.cli(&command)?;
        parse_routes(&answer).map_err(|reason| self.site.unreadable("global rib -j", reason))
    }

    fn communities(&self, prefix: IpNet) -> Result<Vec<(u16, u16)>, PeerError> {
        let (family, prefix) = (super::family_of(prefix).as_str(), prefix.to_string());
        let answer = self.cli(&["-j", "global", "rib", "-a", family, &prefix])?;
        parse_communities(&answer).map_err(|reason| self.site.unreadable("global rib -j", reason))
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

    fn announce(&mut self, prefix: IpNet) -> Result<(), PeerError> {
        if !self.site.config.announced.contains(&prefix) {
            self.site.config.announced.push(prefix);
        }
        if self.running.is_some() {
            self.originate("add", prefix)
        } else {
            Ok(())
        }
    }

    fn withdraw(&mut self, prefix: IpNet) -> Result<(), PeerError> {
        self.site
            .config
            .announced
            .retain(|announced| *announced != prefix);
        if self.running.is_some() {
            self.originate("del", prefix)
        } else {
            Ok(())
        }
    }

    fn reset_session(&self, neighbour: IpAddr) -> Result<(), PeerError> {
        self.site.neighbour(neighbour)?;
        // Its own `reset` keeps the session down for 30 s, whatever the configuration says.
        for action in ["disable", "enable"] {
            self.cli(&["neighbor", &neighbour.to_string(), action])?;
        }
        Ok(())
    }
}

fn configuration(site: &Site) -> String {
    let RouterConfig {
        asn,
        router_id,
        address,
        address6,
        neighbours,
        ..
    } = &site.config;
    let mut text = format!(
        "[global.config]\n  as = {asn}\n  router-id = \"{router_id}\"\n  \
         local-address-list = [\"{address}\", \"{address6}\"]\n\
         [global.use-multiple-paths.config]\n  enabled = true\n"
    );
    for neighbour in neighbours {
        neighbour_configuration(&mut text, site, neighbour);
    }
    text
}

fn neighbour_configuration(text: &mut String, site: &Site, neighbour: &NeighbourConfig) {
    let NeighbourConfig {
        address,
        port,
        asn,
        hold_time,
        passive,
        connect_retry,
        ..
    } = neighbour;
    let local = site.transport_address(neighbour);
    let _ = writeln!(
        text,
        "[[neighbors]]\n  \
         [neighbors.config]\n    neighbor-address = \"{address}\"\n    peer-as = {asn}\n  \
         [neighbors.transport.config]\n    local-address = \"{local}\"\n    \
         remote-port = {port}\n    passive-mode = {passive}\n  \
         [neighbors.timers.config]\n    hold-time = {hold_time}\n    \
         keepalive-interval = {}\n    connect-retry = {connect_retry}\n    idle-hold-time-after-reset = 1",
        hold_time / 3
    );
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
}

#[derive(Deserialize)]
struct SegmentJson {
    asns: Vec<u32>,
}

type TableJson = BTreeMap<IpNet, Vec<PathJson>>;

const MULTI_EXIT_DISC: u8 = 4;

fn parse_table(text: &str) -> Result<TableJson, serde_json::Error> {
    // That there is nothing is said in words, even when asked for JSON.
    if text.contains("Network not in table") {
        return Ok(TableJson::new());
    }
    serde_json::from_str(text)
}

fn parse_communities(text: &str) -> Result<Vec<(u16, u16)>, serde_json::Error> {
    let table = parse_table(text)?;
    let best = table.values().flatten().find(|path| path.best);
    let attributes = best.map(|path| path.attrs.as_slice()).unwrap_or_default();
    let all = attributes
        .iter()
        .filter_map(|attribute| attribute.communities.as_ref())
        .flatten();
    Ok(all
        .map(|community| ((community >> 16) as u16, *community as u16))
        .collect())
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
        assert_eq!(parse_communities(text).expect("readable"), [(65003, 1)]);
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
