//! FRR: `zebra` and `bgpd`, their configuration, and the reading of `vtysh`'s JSON.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use bgp::Family;
use ipnet::IpNet;
use netlink::Namespace;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use serde::Deserialize;

use super::{
    ANSWER, Daemon, LearnedRoute, NeighbourConfig, PeerError, Quote, Router, RouterConfig, START,
    STOP, Session, SessionState, Site, late,
};
use crate::enter::Lab;
use crate::process::{Launch, Process};
use crate::wait::eventually;

/// Where Debian keeps FRR's daemons: OpenBGPD has a `bgpd` too, and that one is on the PATH.
const DAEMONS: &str = "/usr/lib/frr";
/// The group FRR's daemons demand their user to be in.
const VTY_GROUP: &str = "frrvty";

/// An FRR router. What it learns goes to its namespace's kernel.
#[derive(Debug)]
pub struct Frr {
    site: Site,
    running: Option<Daemons>,
}

#[derive(Debug)]
struct Daemons {
    bgpd: Process,
    zebra: Process,
}

impl Frr {
    /// Not yet started.
    pub fn new(config: RouterConfig, namespace: Arc<Namespace>, lab: &Lab) -> Self {
        Self {
            site: Site::new(config, namespace, lab),
            running: None,
        }
    }

    fn running(&self) -> Result<&Daemons, PeerError> {
        self.running.as_ref().ok_or_else(|| self.site.not_running())
    }

    fn launch(&self, program: &str, config: &Path) -> Result<Process, PeerError> {
        let directory = &self.site.directory;
        Launch::new(Path::new(DAEMONS).join(program))
            .arg("--vty_socket")
            .arg(directory)
            .arg("-z")
            .arg(directory.join("zserv.api"))
            .args([
                "-u",
                "root",
                "-g",
                "root",
                "--log",
                "stdout",
                "-A",
                "127.0.0.1",
                "-f",
            ])
            .arg(config)
            .arg("-i")
            .arg(directory.join(format!("{program}.pid")))
            .in_namespace(self.site.namespace.fd())
            .start(&self.site.log(program))
            .map_err(|error| self.site.process(error))
    }

    /// Waits for a daemon that has just been started.
    fn await_ready(
        &self,
        process: &mut Process,
        what: &str,
        mut ready: impl FnMut() -> Result<(), String>,
    ) -> Result<(), PeerError> {
        let answered = eventually(what, START, || match process.check() {
            Err(error) => Ok(Err(error)),
            Ok(()) => ready().map(Ok),
        });
        match answered {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.site.process(error)),
            Err(error) => Err(late(&self.site.config, error)),
        }
    }

    /// Runs configuration commands in the running `bgpd`.
    fn configure(&self, commands: &[&str]) -> Result<(), PeerError> {
        let router = format!("router bgp {}", self.site.config.asn);
        let all: Vec<&str> = ["configure terminal", &router]
            .into_iter()
            .chain(commands.iter().copied())
            .collect();
        let said = self.vtysh(&all)?;
        // vtysh reports a refused command on stdout and may still succeed.
        if said.contains('%') {
            Err(self.site.unreadable(&all.join("; "), said))
        } else {
            Ok(())
        }
    }

    fn vtysh(&self, commands: &[&str]) -> Result<String, PeerError> {
        let mut launch = Launch::new("vtysh")
            .arg("--vty_socket")
            .arg(&self.site.directory);
        for command in commands {
            launch = launch.arg("-c").arg(command);
        }
        launch
            .output(ANSWER)
            .map_err(|error| self.site.process(error))
    }

    fn originate(&self, negation: &str, prefix: IpNet) -> Result<(), PeerError> {
        let network = format!("{negation}network {prefix}");
        let family = format!(
            "address-family {} unicast",
            super::family_of(prefix).as_str()
        );
        self.configure(&[&family, &network])
    }
}

impl Router for Frr {
    fn config(&self) -> &RouterConfig {
        &self.site.config
    }

    fn daemon(&self) -> Daemon {
        Daemon::Frr
    }

    fn namespace(&self) -> &Arc<Namespace> {
        &self.site.namespace
    }

    fn start(&mut self) -> Result<(), PeerError> {
        if self.running.is_some() {
            return Ok(());
        }
        let group = self.site.write("group", "")?;
        let joined = join_vty_group(&group);
        joined.map_err(|source| PeerError::File {
            router: self.site.config.name.clone(),
            path: "/etc/group".into(),
            source,
        })?;
        let zebra_config = self.site.write("zebra.conf", "")?;
        let bgpd_config = self.site.write("bgpd.conf", &configuration(&self.site))?;

        // Left over from an earlier run, it would be taken for the new zebra's.
        let api = self.site.directory.join("zserv.api");
        let _ = fs::remove_file(&api);
        let mut zebra = self.launch("zebra", &zebra_config)?;
        self.await_ready(&mut zebra, "zebra listens", || {
            if api.exists() {
                Ok(())
            } else {
                Err("no socket yet".to_owned())
            }
        })?;
        let mut bgpd = self.launch("bgpd", &bgpd_config)?;
        self.await_ready(&mut bgpd, "vtysh answers", || {
            let said = self.vtysh(&["show bgp summary json"]);
            said.map(drop)
                .map_err(|error| crate::enter::Chain(&error).to_string())
        })?;
        self.running = Some(Daemons { bgpd, zebra });
        Ok(())
    }

    fn stop(&mut self) -> Result<(), PeerError> {
        let Some(Daemons { bgpd, zebra }) = self.running.take() else {
            return Ok(());
        };
        for process in [bgpd, zebra] {
            process
                .stop(Signal::SIGTERM, STOP)
                .map_err(|error| self.site.process(error))?;
        }
        Ok(())
    }

    fn kill(&mut self) {
        self.running = None;
    }

    fn freeze(&self) -> Result<(), PeerError> {
        self.running()?
            .bgpd
            .signal(Signal::SIGSTOP)
            .map_err(|error| self.site.process(error))
    }

    fn thaw(&self) -> Result<(), PeerError> {
        self.running()?
            .bgpd
            .signal(Signal::SIGCONT)
            .map_err(|error| self.site.process(error))
    }

    fn cli(&self, words: &[&str]) -> Result<String, PeerError> {
        self.vtysh(&[&words.join(" ")])
    }

    fn session(&self, neighbour: IpAddr) -> Result<Session, PeerError> {
        self.site.neighbour(neighbour)?;
        let answer = self.vtysh(&[&format!("show bgp neighbors {neighbour} json")])?;
        parse_session(&answer, neighbour)
            .map_err(|reason| self.site.unreadable("show bgp neighbors json", reason))
    }

    fn routes(&self, family: Family) -> Result<Vec<LearnedRoute>, PeerError> {
        let command = format!("show bgp {} unicast json", family.as_str());
        let answer = self.vtysh(&[&command])?;
        parse_routes(&answer).map_err(|reason| self.site.unreadable(&command, reason))
    }

    fn communities(&self, prefix: IpNet) -> Result<Vec<(u16, u16)>, PeerError> {
        let command = format!(
            "show bgp {} unicast {prefix} json",
            super::family_of(prefix).as_str()
        );
        let answer = self.vtysh(&[&command])?;
        parse_communities(&answer).map_err(|reason| self.site.unreadable(&command, reason))
    }

    fn show_route(&self, prefix: IpNet) -> Result<Quote, PeerError> {
        let family = super::family_of(prefix).as_str();
        let command = format!("show bgp {family} unicast {prefix}");
        let answer = self.vtysh(&[&command])?;
        Ok(Quote {
            command: format!("vtysh -c '{command}'"),
            answer,
        })
    }

    fn announce(&mut self, prefix: IpNet) -> Result<(), PeerError> {
        if !self.site.config.announced.contains(&prefix) {
            self.site.config.announced.push(prefix);
        }
        if self.running.is_some() {
            self.originate("", prefix)
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
            self.originate("no ", prefix)
        } else {
            Ok(())
        }
    }

    fn reset_session(&self, neighbour: IpAddr) -> Result<(), PeerError> {
        self.site.neighbour(neighbour)?;
        self.vtysh(&[&format!("clear bgp {neighbour}")]).map(drop)
    }
}

/// Lets root pass for a member of FRR's group: the daemons run as root, which works with a single
/// mapped user too. The changed copy covers `/etc/group` in the lab's own mount namespace only.
fn join_vty_group(copy: &Path) -> io::Result<()> {
    let groups = fs::read_to_string("/etc/group")?;
    let is_vty = |line: &&str| line.split(':').next() == Some(VTY_GROUP);
    let gid = groups
        .lines()
        .find(is_vty)
        .and_then(|line| line.split(':').nth(2))
        .unwrap_or("0");
    let others: String = groups
        .lines()
        .filter(|line| !is_vty(line))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(copy, format!("{others}{VTY_GROUP}:x:{gid}:root\n"))?;
    mount(
        Some(copy),
        "/etc/group",
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?;
    Ok(())
}

fn configuration(site: &Site) -> String {
    let config = &site.config;
    let mut text = format!(
        "frr defaults datacenter\nhostname {}\nlog timestamp precision 3\n",
        config.name
    );
    // Whatever the transport: its own address as next hop, and nothing but what it originates. First,
    // because a route-map that comes after its use takes effect after five seconds.
    text.push_str("bgp as-path access-list ours permit ^$\n");
    let next_hops = [
        (
            Family::Ipv4Unicast,
            format!("ip next-hop {}", config.address),
        ),
        (
            Family::Ipv6Unicast,
            format!("ipv6 next-hop global {}", config.address6),
        ),
    ];
    for (family, next_hop) in next_hops {
        let _ = writeln!(
            text,
            "route-map {} permit 10\n match as-path ours\n set {next_hop}\nexit",
            route_map(family)
        );
    }
    let _ = write!(
        text,
        "router bgp {}\n bgp router-id {}\n \
         no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n \
         no bgp network import-check\n bgp bestpath as-path multipath-relax\n",
        config.asn, config.router_id
    );
    if let Some(seconds) = config.neighbours.iter().find_map(|n| n.graceful_restart) {
        let _ = writeln!(text, " bgp graceful-restart");
        let _ = writeln!(text, " bgp graceful-restart restart-time {seconds}");
    }
    for neighbour in &config.neighbours {
        neighbour_configuration(&mut text, site, neighbour);
    }
    for family in Family::ALL {
        let _ = writeln!(text, " address-family {} unicast", family.as_str());
        for prefix in config
            .announced
            .iter()
            .filter(|p| super::family_of(**p) == family)
        {
            let _ = writeln!(text, "  network {prefix}");
        }
        let route_map = route_map(family);
        for neighbour in config
            .neighbours
            .iter()
            .filter(|n| n.families.contains(&family))
        {
            let _ = writeln!(text, "  neighbor {} activate", neighbour.address);
            let _ = writeln!(
                text,
                "  neighbor {} route-map {route_map} out",
                neighbour.address
            );
        }
        text.push_str(" exit-address-family\n");
    }
    text.push_str("exit\n");
    text
}

fn route_map(family: Family) -> &'static str {
    match family {
        Family::Ipv4Unicast => "announced4",
        Family::Ipv6Unicast => "announced6",
    }
}

fn neighbour_configuration(text: &mut String, site: &Site, neighbour: &NeighbourConfig) {
    let NeighbourConfig {
        name,
        address,
        port,
        asn,
        hold_time,
        connect_retry,
        ..
    } = neighbour;
    let local = site.transport_address(neighbour);
    let mut line = |rest: String| {
        let _ = writeln!(text, " neighbor {address} {rest}");
    };
    line(format!("remote-as {asn}"));
    line(format!("description {name}"));
    line(format!("port {port}"));
    line(format!("update-source {local}"));
    line(format!("timers {} {hold_time}", hold_time / 3));
    line(format!("timers connect {connect_retry}"));
    line("advertisement-interval 0".to_owned());
    if neighbour.passive {
        line("passive".to_owned());
    }
    match neighbour.graceful_restart {
        Some(_) => line("graceful-restart".to_owned()),
        None => line("graceful-restart-disable".to_owned()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NeighborJson {
    bgp_state: String,
    #[serde(default)]
    connections_established: u64,
    last_reset_due_to: Option<String>,
    last_notification_reason: Option<String>,
}

fn parse_session(text: &str, neighbour: IpAddr) -> Result<Session, String> {
    let mut all: std::collections::BTreeMap<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    let said = all
        .remove(&neighbour.to_string())
        .ok_or("no such neighbour in the answer")?;
    let said: NeighborJson = serde_json::from_value(said).map_err(|error| error.to_string())?;
    let state = match said.bgp_state.as_str() {
        "Idle" | "Clearing" | "Deleted" => SessionState::Idle,
        "Connect" => SessionState::Connect,
        "Active" => SessionState::Active,
        "OpenSent" => SessionState::OpenSent,
        "OpenConfirm" => SessionState::OpenConfirm,
        "Established" => SessionState::Established,
        other => return Err(format!("session state {other:?}")),
    };
    Ok(Session {
        state,
        since: format!("connection {}", said.connections_established),
        last_error: said.last_notification_reason.or(said.last_reset_due_to),
    })
}

#[derive(Deserialize)]
struct TableJson {
    #[serde(default)]
    routes: std::collections::BTreeMap<IpNet, Vec<PathJson>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PathJson {
    #[serde(default)]
    bestpath: bool,
    #[serde(default)]
    stale: bool,
    path: String,
    metric: Option<u32>,
    /// `(unspec)` for what the router originates itself.
    peer_id: String,
    nexthops: Vec<NextHopJson>,
}

#[derive(Deserialize)]
struct NextHopJson {
    ip: IpAddr,
    scope: Option<String>,
}

fn global_next_hop(next_hops: &[NextHopJson]) -> Option<IpAddr> {
    let global = |hop: &&NextHopJson| hop.scope.as_deref() != Some("link-local");
    next_hops
        .iter()
        .find(global)
        .or(next_hops.first())
        .map(|hop| hop.ip)
}

fn parse_routes(text: &str) -> Result<Vec<LearnedRoute>, serde_json::Error> {
    let table: TableJson = serde_json::from_str(text)?;
    let mut routes = Vec::new();
    for (prefix, paths) in table.routes {
        for path in paths.into_iter().filter(|path| path.peer_id != "(unspec)") {
            let bad = |what: &str| {
                serde::de::Error::custom(format!("{what} of a path to {prefix}: {}", path.path))
            };
            let asns = path
                .path
                .split(|c: char| !c.is_ascii_digit())
                .filter(|s| !s.is_empty());
            routes.push(LearnedRoute {
                prefix,
                next_hop: global_next_hop(&path.nexthops).ok_or_else(|| bad("next hop"))?,
                as_path: asns
                    .map(|asn| asn.parse().map_err(|_| bad("AS path")))
                    .collect::<Result<_, _>>()?,
                med: path.metric,
                best: path.bestpath,
                stale: path.stale,
            });
        }
    }
    Ok(routes)
}

#[derive(Deserialize)]
struct PrefixJson {
    #[serde(default)]
    paths: Vec<PrefixPathJson>,
}

#[derive(Deserialize)]
struct PrefixPathJson {
    bestpath: Option<BestPathJson>,
    community: Option<CommunityJson>,
}

#[derive(Deserialize)]
struct BestPathJson {
    #[serde(default)]
    overall: bool,
}

#[derive(Deserialize)]
struct CommunityJson {
    list: Vec<String>,
}

/// The communities of the best path; FRR prints well-known ones by name.
fn parse_communities(text: &str) -> Result<Vec<(u16, u16)>, String> {
    let said: PrefixJson = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let best = |path: &&PrefixPathJson| path.bestpath.as_ref().is_some_and(|best| best.overall);
    let path = said.paths.iter().find(best);
    let Some(community) = path.and_then(|path| path.community.as_ref()) else {
        return Ok(Vec::new());
    };
    let parse = |name: &String| match name.as_str() {
        "gracefulShutdown" => Ok((65535, 0)),
        "blackhole" => Ok((65535, 666)),
        "noExport" => Ok((65535, 65281)),
        "noAdvertise" => Ok((65535, 65282)),
        "localAs" => Ok((65535, 65283)),
        pair => pair
            .split_once(':')
            .and_then(|(high, low)| Some((high.parse().ok()?, low.parse().ok()?)))
            .ok_or_else(|| format!("community {pair:?}")),
    };
    community.list.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_vtysh_prints_them() {
        let text = r#"{"vrfId":0,"routes":{"fd80:1::/48":[{"stale":true,"valid":true,
            "bestpath":true,"pathFrom":"external","prefix":"fd80:1::","prefixLen":48,"metric":7,
            "peerId":"10.99.0.2","path":"65002 4200000003","origin":"IGP","nexthops":[
              {"ip":"fe80::1","afi":"ipv6","scope":"link-local","used":true},
              {"ip":"fd99::2","afi":"ipv6","scope":"global"}]}],
            "fd84:1::/48":[{"valid":true,"bestpath":true,"peerId":"(unspec)","path":"",
              "nexthops":[{"ip":"::","afi":"ipv6","scope":"global","used":true}]}]}}"#;
        let learned = LearnedRoute {
            prefix: "fd80:1::/48".parse().expect("a prefix"),
            next_hop: "fd99::2".parse().expect("an address"),
            as_path: vec![65002, 4_200_000_003],
            med: Some(7),
            best: true,
            stale: true,
        };
        assert_eq!(parse_routes(text).expect("readable"), [learned]);
    }

    #[test]
    fn communities_are_read_as_vtysh_prints_them() {
        let text = r#"{"paths":[{"community":{"list":["1:1"]}},
            {"bestpath":{"overall":true,"selectionReason":"Older Path"},
             "community":{"string":"65003:1 graceful-shutdown",
                          "list":["65003:1","gracefulShutdown"]}}]}"#;
        assert_eq!(parse_communities(text), Ok(vec![(65003, 1), (65535, 0)]));
        assert_eq!(parse_communities("{}"), Ok(vec![]));
    }

    #[test]
    fn sessions_are_read_as_vtysh_prints_them() {
        let text = r#"{"10.99.0.2":{"bgpState":"Established","connectionsEstablished":2,
            "lastResetDueTo":"No AFI\/SAFI activated for peer"}}"#;
        let session = parse_session(text, "10.99.0.2".parse().expect("an address"));
        let session = session.expect("readable");
        assert_eq!(session.state, SessionState::Established);
        assert_eq!(session.since, "connection 2");
    }
}
