//! FRR: `zebra` and `bgpd`, and their configuration.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use bgp::{Family, bfd};
use ipnet::IpNet;
use netlink::Namespace;
use nix::mount::{MsFlags, mount};

use super::machine::{Machine, Running, seen};
use super::{
    ANSWER, Daemon, Extra, LearnedRoute, NeighbourConfig, PeerError, Quote, Router, RouterConfig,
    Session,
};
use crate::enter::Lab;
use crate::process::{Launch, Process};

mod json;

use json::{
    PrefixPathJson, community, large_community, parse_best, parse_bfd, parse_routes, parse_session,
};

/// Where Debian keeps FRR's daemons: OpenBGPD has a `bgpd` too, and that one is on the PATH.
const DAEMONS: &str = "/usr/lib/frr";
/// The group FRR's daemons demand their user to be in.
const VTY_GROUP: &str = "frrvty";

/// An FRR router. What it learns goes to its namespace's kernel.
#[derive(Debug)]
pub struct Frr {
    machine: Machine,
}

/// See [`Daemon::lacks`].
pub(super) fn lacks(extra: Extra) -> Option<&'static str> {
    match extra {
        Extra::BfdPassword => Some("its bfdd has none"),
        Extra::Role => Some("the lab has no words for it"),
        _ => None,
    }
}

impl Frr {
    /// Not yet started.
    pub fn new(config: RouterConfig, namespace: Arc<Namespace>, lab: &Lab) -> Self {
        Self {
            machine: Machine::new(config, namespace, lab),
        }
    }

    fn run(&self, program: &str, config: &Path) -> Result<Process, PeerError> {
        let directory = &self.machine.directory;
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
            .in_namespace(self.machine.namespace.fd())
            .start(&self.machine.log(program))
            .map_err(|error| self.machine.process(error))
    }

    /// BFD is a daemon of its own, which `bgpd` reaches through `zebra`.
    fn run_bfd(&self) -> Result<Process, PeerError> {
        let machine = &self.machine;
        let config = machine.write("bfdd.conf", &bfd_configuration(&machine.config))?;
        let mut bfdd = self.run("bfdd", &config)?;
        machine.await_ready(&mut bfdd, "bfdd answers", || {
            let said = self.vtysh(&["show bfd peers json"]);
            said.map(drop).map_err(|error| seen(&error))
        })?;
        Ok(bfdd)
    }

    /// Runs configuration commands in the running `bgpd`.
    fn configure(&self, commands: &[&str]) -> Result<(), PeerError> {
        let router = format!("router bgp {}", self.machine.config.asn);
        let all: Vec<&str> = ["configure terminal", &router]
            .into_iter()
            .chain(commands.iter().copied())
            .collect();
        let said = self.vtysh(&all)?;
        // vtysh reports a refused command on stdout and may still succeed.
        if said.contains('%') {
            Err(self.machine.unreadable(&all.join("; "), said))
        } else {
            Ok(())
        }
    }

    fn vtysh(&self, commands: &[&str]) -> Result<String, PeerError> {
        let mut launch = Launch::new("vtysh")
            .arg("--vty_socket")
            .arg(&self.machine.directory);
        for command in commands {
            launch = launch.arg("-c").arg(command);
        }
        launch
            .output(ANSWER)
            .map_err(|error| self.machine.process(error))
    }

    fn network(&self, negation: &str, prefix: IpNet) -> Result<(), PeerError> {
        let network = format!("{negation}network {prefix}");
        let family = format!(
            "address-family {} unicast",
            super::family_of(prefix).as_str()
        );
        self.configure(&[&family, &network])
    }

    /// What it says of one prefix.
    fn best(&self, prefix: IpNet) -> Result<Option<PrefixPathJson>, PeerError> {
        let family = super::family_of(prefix).as_str();
        let command = format!("show bgp {family} unicast {prefix} json");
        let answer = self.vtysh(&[&command])?;
        parse_best(&answer).map_err(|reason| self.machine.unreadable(&command, reason))
    }
}

impl Router for Frr {
    fn daemon(&self) -> Daemon {
        Daemon::Frr
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    fn launch(&self) -> Result<Running, PeerError> {
        let machine = &self.machine;
        let group = machine.write("group", "")?;
        join_vty_group(&group).map_err(|source| machine.file("/etc/group", source))?;
        let zebra_config = machine.write("zebra.conf", "")?;
        let bgpd_config = machine.write("bgpd.conf", &configuration(machine))?;

        // Left over from an earlier run, it would be taken for the new zebra's.
        let api = machine.directory.join("zserv.api");
        let _ = fs::remove_file(&api);
        let mut zebra = self.run("zebra", &zebra_config)?;
        machine.await_ready(&mut zebra, "zebra listens", || match api.exists() {
            true => Ok(()),
            false => Err("no socket yet".to_owned()),
        })?;
        let bfdd = match machine.config.neighbours.iter().any(|n| n.bfd.is_some()) {
            true => Some(self.run_bfd()?),
            false => None,
        };
        let mut bgpd = self.run("bgpd", &bgpd_config)?;
        machine.await_ready(&mut bgpd, "vtysh answers", || {
            let said = self.vtysh(&["show bgp summary json"]);
            said.map(drop).map_err(|error| seen(&error))
        })?;
        let running = Running::new(bgpd);
        // What has no end of its own comes before zebra, which the others talk to.
        let running = bfdd.into_iter().fold(running, Running::with);
        Ok(running.with(zebra))
    }

    fn cli(&self, words: &[&str]) -> Result<String, PeerError> {
        self.vtysh(&[&words.join(" ")])
    }

    fn session(&self, neighbour: IpAddr) -> Result<Session, PeerError> {
        self.machine.neighbour(neighbour)?;
        let answer = self.vtysh(&[&format!("show bgp neighbors {neighbour} json")])?;
        parse_session(&answer, neighbour)
            .map_err(|reason| self.machine.unreadable("show bgp neighbors json", reason))
    }

    fn routes(&self, family: Family) -> Result<Vec<LearnedRoute>, PeerError> {
        let command = format!("show bgp {} unicast json", family.as_str());
        let answer = self.vtysh(&[&command])?;
        parse_routes(&answer).map_err(|reason| self.machine.unreadable(&command, reason))
    }

    fn communities(&self, prefix: IpNet) -> Result<Vec<(u16, u16)>, PeerError> {
        let path = self.best(prefix)?;
        let list = path.and_then(|path| path.community);
        let communities = list.iter().flat_map(|list| &list.list);
        let communities = communities.map(|name| community(name));
        let communities = communities.collect::<Result<_, _>>();
        communities.map_err(|reason| self.machine.unreadable("show bgp", reason))
    }

    fn large_communities(&self, prefix: IpNet) -> Result<Vec<(u32, u32, u32)>, PeerError> {
        let path = self.best(prefix)?;
        let list = path.and_then(|path| path.large_community);
        let communities = list.iter().flat_map(|list| &list.list);
        let communities = communities.map(|text| large_community(text));
        let communities = communities.collect::<Result<_, _>>();
        communities.map_err(|reason| self.machine.unreadable("show bgp", reason))
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

    fn originate(&self, prefix: IpNet) -> Result<(), PeerError> {
        self.network("", prefix)
    }

    fn cease_to_originate(&self, prefix: IpNet) -> Result<(), PeerError> {
        self.network("no ", prefix)
    }

    fn ask_for_refresh(&self, neighbour: IpAddr) -> Result<(), PeerError> {
        self.machine.neighbour(neighbour)?;
        let order = format!("clear bgp {neighbour} soft in");
        self.vtysh(&[&order]).map(drop)
    }

    fn shut_down(&self, neighbour: IpAddr, reason: &str) -> Result<(), PeerError> {
        self.machine.neighbour(neighbour)?;
        self.configure(&[&format!("neighbor {neighbour} shutdown message {reason}")])
    }

    fn bfd(&self, neighbour: IpAddr) -> Result<bfd::State, PeerError> {
        self.machine.neighbour(neighbour)?;
        let answer = self.vtysh(&["show bfd peers json"])?;
        parse_bfd(&answer, neighbour)
            .map_err(|reason| self.machine.unreadable("show bfd peers json", reason))
    }

    fn shut_bfd_down(&self, neighbour: IpAddr) -> Result<(), PeerError> {
        let profile = format!("profile {}", self.machine.neighbour(neighbour)?.name);
        self.vtysh(&["configure terminal", "bfd", &profile, "shutdown"])
            .map(drop)
    }

    fn reset_session(&self, neighbour: IpAddr) -> Result<(), PeerError> {
        self.machine.neighbour(neighbour)?;
        self.vtysh(&[&format!("clear bgp {neighbour}")]).map(drop)
    }
}

/// Lets root pass for a member of FRR's group: the daemons run as root, which works with a single
/// mapped user too. The changed copy covers `/etc/group` in the lab's own mount namespace only.
pub(crate) fn join_vty_group(copy: &Path) -> io::Result<()> {
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

fn configuration(machine: &Machine) -> String {
    let config = &machine.config;
    let mut text = format!(
        "frr defaults datacenter\nhostname {}\nlog timestamp precision 3\n",
        config.name
    );
    // Whatever the transport: its own address as next hop, and nothing but what it originates. First,
    // because a route-map that comes after its use takes effect after five seconds.
    text.push_str("bgp as-path access-list ours permit ^$\n");
    let extended = config.neighbours.iter().any(|n| n.extended_next_hop);
    for family in Family::ALL {
        let next_hop = match family {
            // Untouched, it is the address of the session.
            Family::Ipv4Unicast if extended => String::new(),
            Family::Ipv4Unicast => format!(" set ip next-hop {}\n", config.address),
            Family::Ipv6Unicast => format!(" set ipv6 next-hop global {}\n", config.address6),
        };
        let _ = write!(
            text,
            "route-map {} permit 10\n match as-path ours\n{next_hop}{}exit\n",
            route_map(family),
            set_communities(config)
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
        let _ = writeln!(text, " bgp graceful-restart preserve-fw-state");
        let _ = writeln!(text, " bgp graceful-restart restart-time {seconds}");
    }
    for neighbour in &config.neighbours {
        neighbour_configuration(&mut text, machine, neighbour);
    }
    for family in Family::ALL {
        let _ = writeln!(text, " address-family {} unicast", family.as_str());
        for prefix in config.announced_of(family) {
            let _ = writeln!(text, "  network {prefix}");
        }
        for neighbour in &config.neighbours {
            if neighbour.families.contains(&family) {
                neighbour_family(&mut text, neighbour, family);
            }
        }
        text.push_str(" exit-address-family\n");
    }
    text.push_str("exit\n");
    text
}

/// In one line each: a second one would replace the first.
fn set_communities(config: &RouterConfig) -> String {
    let mut text = String::new();
    let plain = config.communities.iter();
    let plain: String = plain.map(|(a, b)| format!("{a}:{b} ")).collect();
    let large = config.large_communities.iter();
    let large: String = large.map(|(a, b, c)| format!("{a}:{b}:{c} ")).collect();
    for (name, list) in [("community", plain), ("large-community", large)] {
        if !list.is_empty() {
            let _ = writeln!(text, " set {name} {list}additive");
        }
    }
    text
}

fn neighbour_family(text: &mut String, neighbour: &NeighbourConfig, family: Family) {
    let mut line = |rest: String| {
        let _ = writeln!(text, "  neighbor {} {rest}", neighbour.address);
    };
    line("activate".to_owned());
    line(format!("route-map {} out", route_map(family)));
    if neighbour.add_path {
        line("addpath-tx-all-paths".to_owned());
    }
    if let Some(limit) = neighbour.max_prefix {
        line(format!("maximum-prefix {limit}"));
    }
}

/// One profile for each neighbour with BFD: what `bgpd` asks for by name.
fn bfd_configuration(config: &RouterConfig) -> String {
    let mut text = "bfd\n".to_owned();
    for neighbour in &config.neighbours {
        if let Some(bfd) = &neighbour.bfd {
            let _ = writeln!(
                text,
                " profile {}\n  detect-multiplier {}\n  receive-interval {}\n  \
                 transmit-interval {}\n exit",
                neighbour.name, bfd.multiplier, bfd.interval_ms, bfd.interval_ms
            );
        }
    }
    text + "exit\n"
}

fn route_map(family: Family) -> &'static str {
    match family {
        Family::Ipv4Unicast => "announced4",
        Family::Ipv6Unicast => "announced6",
    }
}

fn neighbour_configuration(text: &mut String, machine: &Machine, neighbour: &NeighbourConfig) {
    let NeighbourConfig {
        name,
        address,
        port,
        asn,
        hold_time,
        connect_retry,
        ..
    } = neighbour;
    let local = machine.transport_address(neighbour);
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
    if let Some(password) = &neighbour.password {
        line(format!("password {password}"));
    }
    if let Some(bfd) = &neighbour.bfd {
        line(format!("bfd profile {name}"));
        if bfd.graceful {
            line("bfd check-control-plane-failure".to_owned());
        }
        if bfd.multihop {
            line("ebgp-multihop 2".to_owned());
        }
    }
    if neighbour.ttl_security {
        line("ttl-security hops 1".to_owned());
    }
    if neighbour.extended_next_hop {
        line("capability extended-nexthop".to_owned());
    }
}
