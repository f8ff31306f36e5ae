//! OpenBGPD: configuration, control socket, and the reading of `bgpctl`'s JSON.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
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

/// By its path: FRR has a `bgpd` too.
const PROGRAM: &str = "/usr/sbin/bgpd";
/// The directory it insists on, whatever its control socket.
const RUN: &str = "/run/openbgpd";

/// An OpenBGPD router. Its port to Linux puts nothing into the kernel.
#[derive(Debug)]
pub struct Openbgpd {
    machine: Machine,
}

/// See [`Daemon::lacks`].
pub(super) fn lacks(extra: Extra) -> Option<&'static str> {
    match extra {
        Extra::Bfd | Extra::BfdPassword | Extra::BfdAdminDown => Some("it has none"),
        Extra::Role | Extra::GracefulShutdown => Some("the lab has no words for it"),
        Extra::Ipv6OverIpv4 => Some("what it exports has the next hop ::1, whatever is set"),
        Extra::Restarting => Some("bgpd.conf(5): only the End-of-RIB marker is supported"),
        Extra::ExtendedMessages => Some("bgpd.conf(5) has no such capability to announce"),
        Extra::ExtendedNextHop => Some("bgpd.conf(5) has no such capability to announce"),
        Extra::AnswerRefresh => Some("7.7 counts the request and sends nothing, to BIRD neither"),
        Extra::Kernel => Some("its port to Linux has no forwarding table"),
        _ => None,
    }
}

impl Openbgpd {
    /// Not yet started.
    pub fn new(config: RouterConfig, namespace: Arc<Namespace>, lab: &Lab) -> Self {
        Self {
            machine: Machine::new(config, namespace, lab),
        }
    }

    fn socket(&self) -> PathBuf {
        self.machine.directory.join("bgpd.sock")
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, words: &[&str]) -> Result<T, PeerError> {
        let answer = self.cli(&[&["-j"], words].concat())?;
        let read = serde_json::from_str(&answer);
        read.map_err(|error| self.machine.unreadable(&words.join(" "), error))
    }

    fn rib(&self, words: &[&str]) -> Result<Vec<PathJson>, PeerError> {
        let words = [&["show", "rib", "detail"], words].concat();
        Ok(self.json::<RibJson>(&words)?.rib)
    }

    /// Its best path to a prefix.
    fn best(&self, prefix: IpNet) -> Result<Option<PathJson>, PeerError> {
        let paths = self.rib(&[super::family_of(prefix).as_str()])?;
        let wanted = |path: &PathJson| path.best && path.prefix == prefix;
        Ok(paths.into_iter().find(wanted))
    }
}

impl Router for Openbgpd {
    fn daemon(&self) -> Daemon {
        Daemon::Openbgpd
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    fn launch(&self) -> Result<Running, PeerError> {
        let machine = &self.machine;
        let config = machine.write("bgpd.conf", &configuration(machine, &self.socket()))?;
        // It refuses a file that others may read, and does not make its directory.
        fs::set_permissions(&config, Permissions::from_mode(0o600))
            .map_err(|source| machine.file(&config, source))?;
        fs::create_dir_all(RUN).map_err(|source| machine.file(RUN, source))?;
        // Left over from an earlier run, it would be taken for the new one's.
        let _ = fs::remove_file(self.socket());
        let mut process = Launch::new(PROGRAM)
            .args(["-d", "-f"])
            .arg(config)
            .in_namespace(machine.namespace.fd())
            .start(&machine.log("bgpd"))
            .map_err(|error| machine.process(error))?;
        machine.await_ready(&mut process, "bgpctl answers", || {
            // Its neighbours are there when the configuration has reached its three processes.
            match self.json::<NeighborsJson>(&["show", "neighbor"]) {
                Ok(said) if said.neighbors.len() == machine.config.neighbours.len() => Ok(()),
                Ok(said) => Err(format!("{} neighbours", said.neighbors.len())),
                Err(error) => Err(seen(&error)),
            }
        })?;
        Ok(Running::new(process))
    }

    fn cli(&self, words: &[&str]) -> Result<String, PeerError> {
        Launch::new("bgpctl")
            .arg("-s")
            .arg(self.socket())
            .args(words)
            .output(ANSWER)
            .map_err(|error| self.machine.process(error))
    }

    fn session(&self, neighbour: IpAddr) -> Result<Session, PeerError> {
        self.machine.neighbour(neighbour)?;
        let said: NeighborsJson = self.json(&["show", "neighbor", &neighbour.to_string()])?;
        let one = said.neighbors.first().ok_or("no such neighbour".to_owned());
        one.and_then(NeighborJson::session)
            .map_err(|reason| self.machine.unreadable("show neighbor", reason))
    }

    fn routes(&self, family: Family) -> Result<Vec<LearnedRoute>, PeerError> {
        let paths = self.rib(&[family.as_str()])?;
        let learned = paths.into_iter().filter(|path| !path.announced);
        let routes = learned.map(PathJson::route).collect::<Result<_, _>>();
        routes.map_err(|reason| self.machine.unreadable("show rib", reason))
    }

    fn communities(&self, prefix: IpNet) -> Result<Vec<(u16, u16)>, PeerError> {
        let path = self.best(prefix)?;
        let all = path.iter().flat_map(|path| &path.communities);
        let all = all.map(|text| community(text)).collect::<Result<_, _>>();
        all.map_err(|reason| self.machine.unreadable("show rib", reason))
    }

    fn large_communities(&self, prefix: IpNet) -> Result<Vec<(u32, u32, u32)>, PeerError> {
        let path = self.best(prefix)?;
        let all = path.iter().flat_map(|path| &path.large_communities);
        let all = all.map(|text| match numbers(text).as_deref() {
            Some([global, first, second]) => Ok((*global, *first, *second)),
            _ => Err(format!("large community {text:?}")),
        });
        let all = all.collect::<Result<_, _>>();
        all.map_err(|reason| self.machine.unreadable("show rib", reason))
    }

    fn show_route(&self, prefix: IpNet) -> Result<Quote, PeerError> {
        let prefix = prefix.to_string();
        let mut answer = self.cli(&["show", "rib", &prefix])?;
        // What there is not, it passes over in silence.
        if !answer.contains(&prefix) {
            answer += "(not in the table)\n";
        }
        Ok(Quote {
            command: format!("bgpctl show rib {prefix}"),
            answer,
        })
    }

    fn originate(&self, prefix: IpNet) -> Result<(), PeerError> {
        let config = &self.machine.config;
        let prefix_text = prefix.to_string();
        let attributes = attributes(config, super::family_of(prefix));
        let mut words = vec!["network", "add", prefix_text.as_str()];
        words.extend(attributes.split(' '));
        self.cli(&words).map(drop)
    }

    fn cease_to_originate(&self, prefix: IpNet) -> Result<(), PeerError> {
        self.cli(&["network", "delete", &prefix.to_string()])
            .map(drop)
    }

    fn ask_for_refresh(&self, neighbour: IpAddr) -> Result<(), PeerError> {
        self.machine.neighbour(neighbour)?;
        self.cli(&["neighbor", &neighbour.to_string(), "refresh"])
            .map(drop)
    }

    fn shut_down(&self, neighbour: IpAddr, reason: &str) -> Result<(), PeerError> {
        self.machine.neighbour(neighbour)?;
        self.cli(&["neighbor", &neighbour.to_string(), "down", reason])
            .map(drop)
    }

    fn reset_session(&self, neighbour: IpAddr) -> Result<(), PeerError> {
        self.machine.neighbour(neighbour)?;
        self.cli(&["neighbor", &neighbour.to_string(), "clear"])
            .map(drop)
    }
}

fn configuration(machine: &Machine, socket: &Path) -> String {
    let config = &machine.config;
    let mut text = format!(
        "AS {}\nrouter-id {}\nsocket \"{}\"\nlisten on {}\nlisten on {}\nfib-update no\n",
        config.asn,
        config.router_id,
        socket.display(),
        config.address,
        config.address6
    );
    // One for all neighbours: the lab's are alike.
    if let Some(neighbour) = config.neighbours.first() {
        let _ = writeln!(text, "connect-retry {}", neighbour.connect_retry);
    }
    for family in Family::ALL {
        let attributes = attributes(config, family);
        for prefix in config.announced_of(family) {
            let _ = writeln!(text, "network {prefix} set {{ {attributes} }}");
        }
    }
    for neighbour in &config.neighbours {
        neighbour_configuration(&mut text, machine, neighbour);
    }
    // What is learned, and so has a path, is not passed on.
    text.push_str("allow from any\nallow to any\ndeny to any max-as-len 0\n");
    text
}

/// The attributes of what is originated, in the words of the configuration and of `bgpctl`.
fn attributes(config: &RouterConfig, family: Family) -> String {
    let mut text = format!("nexthop {}", config.next_hop(family));
    for (high, low) in &config.communities {
        let _ = write!(text, " community {high}:{low}");
    }
    for (global, first, second) in &config.large_communities {
        let _ = write!(text, " large-community {global}:{first}:{second}");
    }
    text
}

fn neighbour_configuration(text: &mut String, machine: &Machine, neighbour: &NeighbourConfig) {
    let local = machine.transport_address(neighbour);
    let _ = writeln!(text, "neighbor {} {{", neighbour.address);
    let mut line = |rest: String| {
        let _ = writeln!(text, "  {rest}");
    };
    line(format!("remote-as {}", neighbour.asn));
    line(format!("local-address {local}"));
    line(format!("descr \"{}\"", neighbour.name));
    line(format!("port {}", neighbour.port));
    line(format!("holdtime {}", neighbour.hold_time));
    for (family, name) in [(Family::Ipv4Unicast, "IPv4"), (Family::Ipv6Unicast, "IPv6")] {
        let carried = match neighbour.families.contains(&family) {
            true => "unicast",
            false => "none",
        };
        line(format!("announce {name} {carried}"));
    }
    let restart = match neighbour.graceful_restart {
        Some(_) => "yes",
        None => "no",
    };
    line(format!("announce restart {restart}"));
    if neighbour.passive {
        line("passive".to_owned());
    }
    if let Some(password) = &neighbour.password {
        line(format!("tcp md5sig password {password}"));
    }
    if neighbour.ttl_security {
        line("ttl-security yes".to_owned());
    }
    if neighbour.add_path {
        line("announce add-path recv yes".to_owned());
        line("announce add-path send all".to_owned());
    }
    if let Some(limit) = neighbour.max_prefix {
        line(format!("max-prefix {limit}"));
    }
    line("}".to_owned());
}

#[derive(Deserialize)]
struct NeighborsJson {
    #[serde(default)]
    neighbors: Vec<NeighborJson>,
}

#[derive(Deserialize)]
struct NeighborJson {
    state: String,
    last_error_received: Option<String>,
    last_error_sent: Option<String>,
    stats: StatsJson,
}

#[derive(Deserialize)]
struct StatsJson {
    message: MessagesJson,
}

#[derive(Deserialize)]
struct MessagesJson {
    sent: SentJson,
}

#[derive(Deserialize)]
struct SentJson {
    open: u64,
}

impl NeighborJson {
    fn session(&self) -> Result<Session, String> {
        let state = match self.state.as_str() {
            "None" => SessionState::Idle,
            other => SessionState::named(other).ok_or(format!("session state {other:?}"))?,
        };
        // It tells the age of a session and not its beginning: the number of its OPENs stays.
        Ok(Session {
            state,
            since: format!("open {}", self.stats.message.sent.open),
            last_error: self
                .last_error_received
                .clone()
                .or_else(|| self.last_error_sent.clone()),
        })
    }
}

#[derive(Deserialize)]
struct RibJson {
    /// Absent when there is nothing.
    #[serde(default)]
    rib: Vec<PathJson>,
}

#[derive(Deserialize)]
struct PathJson {
    prefix: IpNet,
    aspath: String,
    exit_nexthop: IpAddr,
    #[serde(default)]
    best: bool,
    #[serde(default)]
    stale: bool,
    /// The router originates it itself.
    #[serde(default)]
    announced: bool,
    metric: u32,
    #[serde(default)]
    communities: Vec<String>,
    #[serde(default)]
    large_communities: Vec<String>,
}

impl PathJson {
    fn route(self) -> Result<LearnedRoute, String> {
        let asns = self.aspath.split(|c: char| !c.is_ascii_digit());
        let asns = asns.filter(|asn| !asn.is_empty());
        let asns = asns.map(|asn| {
            asn.parse()
                .map_err(|_| format!("AS path {:?}", self.aspath))
        });
        Ok(LearnedRoute {
            prefix: self.prefix,
            next_hop: self.exit_nexthop,
            as_path: asns.collect::<Result<_, _>>()?,
            // It does not tell 0 from absent.
            med: Some(self.metric),
            best: self.best,
            stale: self.stale,
        })
    }
}

fn numbers(text: &str) -> Option<Vec<u32>> {
    text.split(':').map(|number| number.parse().ok()).collect()
}

/// It prints well-known communities by name.
fn community(text: &str) -> Result<(u16, u16), String> {
    match text {
        "GRACEFUL_SHUTDOWN" => Ok((65535, 0)),
        "BLACKHOLE" => Ok((65535, 666)),
        "NO_EXPORT" => Ok((65535, 65281)),
        "NO_ADVERTISE" => Ok((65535, 65282)),
        "NO_EXPORT_SUBCONFED" => Ok((65535, 65283)),
        _ => match numbers(text).as_deref() {
            Some([high, low]) => u16::try_from(*high).ok().zip(u16::try_from(*low).ok()),
            _ => None,
        }
        .ok_or_else(|| format!("community {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_bgpctl_prints_them() {
        let text = r#"{"rib":[
            {"prefix":"fd01::/48","aspath":"65001 { 4200000003 7 }","exit_nexthop":"fd99::1",
             "true_nexthop":"fd99::2","path_id":2,"valid":true,"best":true,"source":"external",
             "ovs":"not-found","origin":"IGP","metric":5,"localpref":100,"stale":true,
             "communities":["65001:7","NO_EXPORT"],"large_communities":["65001:1:4200000000"]},
            {"prefix":"100.80.0.0/24","aspath":"","exit_nexthop":"10.99.0.2","valid":true,
             "best":true,"source":"internal","announced":true,"metric":0}]}"#;
        let rib: RibJson = serde_json::from_str(text).expect("readable");
        let [learned, own] = &rib.rib[..] else {
            panic!("two paths are expected");
        };
        let communities: Vec<_> = learned.communities.iter().map(|c| community(c)).collect();
        assert_eq!(communities, [Ok((65001, 7)), Ok((65535, 65281))]);
        let large = numbers(&learned.large_communities[0]);
        assert_eq!(large, Some(vec![65001, 1, 4_200_000_000]));
        assert!(own.announced && !learned.announced);
        let [learned, _] = rib.rib.try_into().ok().expect("two paths");
        let expected = LearnedRoute {
            prefix: "fd01::/48".parse().expect("a prefix"),
            next_hop: "fd99::1".parse().expect("an address"),
            as_path: vec![65001, 4_200_000_003, 7],
            med: Some(5),
            best: true,
            stale: true,
        };
        assert_eq!(PathJson::route(learned), Ok(expected));
        let nothing: RibJson = serde_json::from_str("{\n\n}").expect("readable");
        assert!(nothing.rib.is_empty());
    }

    #[test]
    fn sessions_are_read_as_bgpctl_prints_them() {
        let text = r#"{"neighbors":[{"remote_as":"65001","state":"Established",
            "last_error_received":"Cease, administratively down","stats":{"prefixes":{"sent":2},
            "message":{"sent":{"open":2,"total":7}}}}]}"#;
        let said: NeighborsJson = serde_json::from_str(text).expect("readable");
        let expected = Session {
            state: SessionState::Established,
            since: "open 2".to_owned(),
            last_error: Some("Cease, administratively down".to_owned()),
        };
        assert_eq!(said.neighbors[0].session(), Ok(expected));
    }
}
