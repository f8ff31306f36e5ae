//! BIRD 2: configuration, control socket, and the reading of `birdc`'s tables.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use bgp::{Family, bfd};
use ipnet::IpNet;
use netlink::Namespace;

use super::machine::{Machine, Running, seen};
use super::{
    ANSWER, BfdTerms, Daemon, Extra, LearnedRoute, NeighbourConfig, PeerError, Quote, Router,
    RouterConfig, Session, SessionState,
};
use crate::enter::Lab;
use crate::process::{Launch, ProcessError};

/// What birdc says, and fails, when no route matches.
const NOT_FOUND: &str = "Network not found";

/// A BIRD router. What it learns goes to its namespace's kernel, several equal paths as one route.
#[derive(Debug)]
pub struct Bird {
    machine: Machine,
}

/// See [`Daemon::lacks`].
pub(super) fn lacks(extra: Extra) -> Option<&'static str> {
    match extra {
        Extra::BfdAdminDown => Some("a disabled protocol bfd just falls silent"),
        _ => None,
    }
}

impl Bird {
    /// Not yet started.
    pub fn new(config: RouterConfig, namespace: Arc<Namespace>, lab: &Lab) -> Self {
        Self {
            machine: Machine::new(config, namespace, lab),
        }
    }

    fn socket(&self) -> PathBuf {
        self.machine.directory.join("bird.ctl")
    }

    fn write_configuration(&self) -> Result<PathBuf, PeerError> {
        let text = configuration(&self.machine);
        self.machine.write("bird.conf", &text)
    }

    /// [`Router::cli`], where "there is none" is an answer and not a failure.
    fn ask_for(&self, words: &[&str]) -> Result<String, PeerError> {
        match self.cli(words) {
            Err(PeerError::Process {
                source: ProcessError::Failed { said, .. },
                ..
            }) if said.contains(NOT_FOUND) => Ok(NOT_FOUND.to_owned()),
            answer => answer,
        }
    }

    /// Makes a change of what is announced take effect; sessions stay up.
    fn reconfigure(&self) -> Result<(), PeerError> {
        self.write_configuration()?;
        let answer = self.cli(&["configure"])?;
        if answer.contains("Reconfigured") || answer.contains("Reconfiguration in progress") {
            return Ok(());
        }
        Err(self.machine.unreadable("configure", answer))
    }
}

impl Router for Bird {
    fn daemon(&self) -> Daemon {
        Daemon::Bird
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    fn launch(&self) -> Result<Running, PeerError> {
        let machine = &self.machine;
        let config = self.write_configuration()?;
        // Recovering, it keeps what is in its kernel and tells its neighbours so.
        let recovery: &[&str] = match machine.is_recovering() {
            true => &["-R"],
            false => &[],
        };
        let mut process = Launch::new("bird")
            .arg("-f")
            .args(recovery)
            .arg("-c")
            .arg(config)
            .arg("-s")
            .arg(self.socket())
            .arg("-P")
            .arg(machine.directory.join("bird.pid"))
            .in_namespace(machine.namespace.fd())
            .start(&machine.log("bird"))
            .map_err(|error| machine.process(error))?;
        machine.await_ready(&mut process, "birdc answers", || {
            match self.cli(&["show", "status"]) {
                Ok(status) if status.contains("Daemon is up") => Ok(()),
                Ok(status) => Err(status),
                Err(error) => Err(seen(&error)),
            }
        })?;
        Ok(Running::new(process))
    }

    fn cli(&self, words: &[&str]) -> Result<String, PeerError> {
        let answer = Launch::new("birdc")
            .arg("-s")
            .arg(self.socket())
            .args(words)
            .output(ANSWER)
            .map_err(|error| self.machine.process(error))?;
        // The first line is a greeting.
        Ok(answer
            .split_once('\n')
            .map_or("", |(_, rest)| rest)
            .to_owned())
    }

    fn session(&self, neighbour: IpAddr) -> Result<Session, PeerError> {
        let name = protocol_name(self.machine.neighbour(neighbour)?);
        let answer = self.cli(&["show", "protocols", "all", &name])?;
        parse_session(&answer)
            .map_err(|reason| self.machine.unreadable("show protocols all", reason))
    }

    fn routes(&self, family: Family) -> Result<Vec<LearnedRoute>, PeerError> {
        let table = match family {
            Family::Ipv4Unicast => "master4",
            Family::Ipv6Unicast => "master6",
        };
        let answer = self.cli(&["show", "route", "table", table, "all"])?;
        let restarting = parse_restarting(&self.cli(&["show", "protocols", "all"])?);
        parse_routes(&answer, &restarting)
            .map_err(|reason| self.machine.unreadable("show route all", reason))
    }

    fn communities(&self, prefix: IpNet) -> Result<Vec<(u16, u16)>, PeerError> {
        let answer = self.ask_for(&["show", "route", &prefix.to_string(), "all"])?;
        let pairs = parse_communities(&answer, "BGP.community: ");
        let pairs = pairs.map(|all| all.into_iter().map(|[high, low]| (high, low)).collect());
        pairs.map_err(|reason| self.machine.unreadable("show route all", reason))
    }

    fn large_communities(&self, prefix: IpNet) -> Result<Vec<(u32, u32, u32)>, PeerError> {
        let answer = self.ask_for(&["show", "route", &prefix.to_string(), "all"])?;
        let triples = parse_communities(&answer, "BGP.large_community: ");
        let triples = triples.map(|all| all.into_iter().map(|[a, b, c]| (a, b, c)).collect());
        triples.map_err(|reason| self.machine.unreadable("show route all", reason))
    }

    fn show_route(&self, prefix: IpNet) -> Result<Quote, PeerError> {
        let prefix = prefix.to_string();
        let answer = self.ask_for(&["show", "route", &prefix])?;
        Ok(Quote {
            command: format!("birdc show route {prefix}"),
            answer,
        })
    }

    fn originate(&self, _prefix: IpNet) -> Result<(), PeerError> {
        self.reconfigure()
    }

    fn cease_to_originate(&self, _prefix: IpNet) -> Result<(), PeerError> {
        self.reconfigure()
    }

    fn ask_for_refresh(&self, neighbour: IpAddr) -> Result<(), PeerError> {
        let name = protocol_name(self.machine.neighbour(neighbour)?);
        self.cli(&["reload", "in", &name]).map(drop)
    }

    fn shut_down(&self, neighbour: IpAddr, reason: &str) -> Result<(), PeerError> {
        let name = protocol_name(self.machine.neighbour(neighbour)?);
        let reason = format!("\"{reason}\"");
        self.cli(&["disable", &name, &reason]).map(drop)
    }

    fn bfd(&self, neighbour: IpAddr) -> Result<bfd::State, PeerError> {
        self.machine.neighbour(neighbour)?;
        let answer = self.cli(&["show", "bfd", "sessions"])?;
        parse_bfd(&answer, neighbour)
            .map_err(|reason| self.machine.unreadable("show bfd sessions", reason))
    }

    fn reset_session(&self, neighbour: IpAddr) -> Result<(), PeerError> {
        let name = protocol_name(self.machine.neighbour(neighbour)?);
        self.cli(&["restart", &name]).map(drop)
    }
}

fn configuration(machine: &Machine) -> String {
    let config = &machine.config;
    let mut text = format!("log stderr all;\nrouter id {};\n", config.router_id);
    // It computes these times anew at each question, so their milliseconds differ from one to the next.
    text.push_str("timeformat protocol \"%T\";\n");
    text.push_str("protocol device { scan time 2; }\n");
    // One set of options for all: those of a BGP protocol know no authentication.
    if let Some(bfd) = config.neighbours.iter().find_map(|n| n.bfd.as_ref()) {
        bfd_configuration(&mut text, bfd);
    }
    let keeps = match config.neighbours.iter().any(|n| n.keeps_forwarding) {
        true => "graceful restart on; persist on; ",
        false => "",
    };
    for (channel, name) in [("ipv4", "kernel4"), ("ipv6", "kernel6")] {
        let _ = writeln!(
            text,
            "protocol kernel {name} {{ {keeps}merge paths on; \
             {channel} {{ import none; export where source = RTS_BGP; }}; }}"
        );
    }
    for (channel, family) in [("ipv4", Family::Ipv4Unicast), ("ipv6", Family::Ipv6Unicast)] {
        let _ = writeln!(text, "protocol static announced_{channel} {{\n  {channel};");
        for prefix in config.announced_of(family) {
            let _ = writeln!(text, "  route {prefix} blackhole;");
        }
        text.push_str("}\n");
    }
    for neighbour in &config.neighbours {
        neighbour_configuration(&mut text, machine, neighbour);
    }
    text
}

fn bfd_configuration(text: &mut String, bfd: &BfdTerms) {
    let mut options = format!(
        "min rx interval {0} ms; min tx interval {0} ms; idle tx interval 1 s; multiplier {1};",
        bfd.interval_ms, bfd.multiplier
    );
    if let Some(password) = &bfd.password {
        let _ = write!(
            options,
            " authentication meticulous keyed sha1; password \"{password}\" {{ id 1; }};"
        );
    }
    let _ = writeln!(
        text,
        "protocol bfd {{\n  interface \"*\" {{ {options} }};\n  multihop {{ {options} }};\n}}"
    );
}

/// The filter of what is announced: what this router originates, with its communities.
fn export_filter(config: &RouterConfig) -> String {
    let mut text = "filter { if source != RTS_STATIC then reject; ".to_owned();
    for (high, low) in &config.communities {
        let _ = write!(text, "bgp_community.add(({high},{low})); ");
    }
    for (global, first, second) in &config.large_communities {
        let _ = write!(
            text,
            "bgp_large_community.add(({global},{first},{second})); "
        );
    }
    text + "accept; }"
}

/// A neighbour's name in BIRD, where plain words may be keywords (`gw` is one).
fn protocol_name(neighbour: &NeighbourConfig) -> String {
    format!("peer_{}", neighbour.name)
}

fn neighbour_configuration(text: &mut String, machine: &Machine, neighbour: &NeighbourConfig) {
    let NeighbourConfig {
        address,
        port,
        asn,
        hold_time,
        connect_retry,
        ..
    } = neighbour;
    let local = machine.transport_address(neighbour);
    let _ = writeln!(text, "protocol bgp {} {{", protocol_name(neighbour));
    let _ = writeln!(text, "  local {local} as {};", machine.config.asn);
    let _ = writeln!(text, "  neighbor {address} port {port} as {asn};");
    let _ = writeln!(text, "  hold time {hold_time};");
    let _ = writeln!(
        text,
        "  connect delay time 1; connect retry time {connect_retry}; error wait time 1, 2;"
    );
    if neighbour.passive {
        text.push_str("  passive on;\n");
    }
    match neighbour.graceful_restart {
        Some(seconds) => {
            let _ = writeln!(
                text,
                "  graceful restart on; graceful restart time {seconds};"
            );
        }
        None => text.push_str("  graceful restart off;\n"),
    }
    if let Some(password) = &neighbour.password {
        let _ = writeln!(text, "  password \"{password}\";");
    }
    if let Some(role) = neighbour.role {
        let _ = writeln!(text, "  local role {role};");
    }
    if neighbour.ttl_security {
        text.push_str("  ttl security on;\n");
    }
    if let Some(bfd) = &neighbour.bfd {
        let _ = writeln!(
            text,
            "  {}; bfd {};",
            if bfd.multihop { "multihop 2" } else { "direct" },
            if bfd.graceful { "graceful" } else { "on" }
        );
    }
    if neighbour.extended_messages {
        text.push_str("  enable extended messages on;\n");
    }
    let export = export_filter(&machine.config);
    for family in &neighbour.families {
        let (channel, next_hop) = match family {
            Family::Ipv4Unicast if neighbour.extended_next_hop => {
                ("ipv4", machine.config.address6.into())
            }
            Family::Ipv4Unicast => ("ipv4", IpAddr::from(machine.config.address)),
            Family::Ipv6Unicast => ("ipv6", IpAddr::from(machine.config.address6)),
        };
        let import = match neighbour.graceful_shutdown {
            true => "filter { if (65535, 0) ~ bgp_community then bgp_local_pref = 0; accept; }",
            false => "all",
        };
        let _ = write!(
            text,
            "  {channel} {{ import {import}; export {export}; next hop address {next_hop};"
        );
        if neighbour.extended_next_hop {
            text.push_str(" extended next hop on;");
        }
        if neighbour.add_path {
            text.push_str(" add paths on;");
        }
        if let Some(limit) = neighbour.max_prefix {
            let _ = write!(text, " receive limit {limit} action disable;");
        }
        text.push_str(" };\n");
    }
    text.push_str("}\n");
}

/// Reads `show bfd sessions`: address, interface, state and more in columns.
fn parse_bfd(text: &str, neighbour: IpAddr) -> Result<bfd::State, String> {
    let columns = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|columns| columns.first().and_then(|first| first.parse().ok()) == Some(neighbour));
    match columns.as_deref() {
        Some([_, _, "AdminDown", ..]) => Ok(bfd::State::AdminDown),
        Some([_, _, "Down", ..]) => Ok(bfd::State::Down),
        Some([_, _, "Init", ..]) => Ok(bfd::State::Init),
        Some([_, _, "Up", ..]) => Ok(bfd::State::Up),
        _ => Err(format!("no session with {neighbour} in {text:?}")),
    }
}

/// Reads `show protocols all NAME`.
fn parse_session(text: &str) -> Result<Session, String> {
    let field = |label: &str| {
        text.lines()
            .find_map(|line| Some(line.trim().strip_prefix(label)?.trim().to_owned()))
    };
    let said = field("BGP state:");
    let state = match said.as_deref() {
        Some("Down" | "Close" | "Passive") => Some(SessionState::Idle),
        other => other.and_then(SessionState::named),
    };
    let state = state.ok_or_else(|| format!("BGP state {said:?} in {text:?}"))?;
    // NAME BGP --- up 02:21:04.336 Established
    let since = text
        .lines()
        .find(|line| line.contains(" BGP "))
        .and_then(|line| {
            let mut columns = line.split_whitespace();
            columns.nth(4).map(str::to_owned)
        });
    let since = since.ok_or_else(|| format!("no time of the last change in {text:?}"))?;
    Ok(Session {
        state,
        since,
        last_error: field("Last error:"),
    })
}

/// Reads the communities of the first path, which is the best, in `show route PREFIX all`: numbers
/// in parentheses after `label`.
fn parse_communities<N: FromStr + Copy, const COUNT: usize>(
    text: &str,
    label: &str,
) -> Result<Vec<[N; COUNT]>, String> {
    let paths = text.lines().skip_while(|line| !line.starts_with('\t'));
    let mut attributes = paths.take_while(|line| line.starts_with('\t'));
    let list = attributes.find_map(|line| line.trim().strip_prefix(label));
    let numbers = |community: &str| {
        let numbers = community.split(',').map(|number| number.trim().parse());
        let numbers: Vec<N> = numbers.collect::<Result<_, _>>().ok()?;
        numbers.try_into().ok()
    };
    list.unwrap_or_default()
        .split(['(', ')'])
        .filter(|piece| !piece.trim().is_empty())
        .map(|text| numbers(text).ok_or_else(|| format!("community {text:?}")))
        .collect()
}

/// Reads `show protocols all`: the names of the protocols whose neighbour is restarting. The routes
/// of these are stale; BIRD does not say so at the routes themselves.
fn parse_restarting(text: &str) -> Vec<String> {
    let mut restarting = Vec::new();
    let mut protocol = "";
    for line in text.lines() {
        if !line.starts_with(' ') {
            protocol = line.split(' ').next().unwrap_or_default();
        } else if line.trim() == "Neighbor graceful restart active" {
            restarting.push(protocol.to_owned());
        }
    }
    restarting
}

/// Reads `show route all`: one unindented line for a network's first path, a line indented by
/// spaces for each further one, and lines indented by a tab for the attributes of a path.
fn parse_routes(text: &str, restarting: &[String]) -> Result<Vec<LearnedRoute>, String> {
    let read = |path: PathLines<'_>| path.route(restarting);
    let mut routes = Vec::new();
    let mut network: Option<IpNet> = None;
    let mut path: Option<PathLines<'_>> = None;
    for line in text.lines() {
        if let Some(attribute) = line.strip_prefix('\t') {
            if let (Some(path), Some((key, value))) = (&mut path, attribute.split_once(':')) {
                path.attributes.push((key, value.trim()));
            }
            continue;
        }
        routes.extend(path.take().map(read).transpose()?.flatten());
        if line.is_empty() || line.starts_with("Table ") {
            continue;
        }
        let head = match line.strip_prefix(' ') {
            Some(further) => further,
            None => {
                let (prefix, head) = line.split_once(' ').ok_or_else(|| line.to_owned())?;
                network = Some(
                    prefix
                        .parse()
                        .map_err(|error| format!("{prefix:?}: {error}"))?,
                );
                head
            }
        };
        let prefix = network.ok_or_else(|| format!("a path without a network: {line:?}"))?;
        path = Some(PathLines {
            prefix,
            head,
            attributes: Vec::new(),
        });
    }
    routes.extend(path.take().map(read).transpose()?.flatten());
    Ok(routes)
}

struct PathLines<'a> {
    prefix: IpNet,
    /// `unicast [peer_gw 02:21:05.062 from 10.99.0.4] * (100) [AS65004i]`
    head: &'a str,
    attributes: Vec<(&'a str, &'a str)>,
}

impl PathLines<'_> {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| *value)
    }

    /// `None` for what BIRD has from elsewhere than BGP.
    fn route(self, restarting: &[String]) -> Result<Option<LearnedRoute>, String> {
        if !self
            .attribute("Type")
            .is_some_and(|kind| kind.starts_with("BGP"))
        {
            return Ok(None);
        }
        let bad = |what: &str, value: &str| format!("{what} {value:?} of {}", self.prefix);
        let next_hops = self.attribute("BGP.next_hop").unwrap_or_default();
        let next_hop = next_hops
            .split_whitespace()
            .next()
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| bad("next hop", next_hops))?;
        let path = self.attribute("BGP.as_path").unwrap_or_default();
        let as_path = path
            .split(|c: char| !c.is_ascii_digit())
            .filter(|asn| !asn.is_empty())
            .map(|asn| asn.parse().map_err(|_| bad("AS path", path)))
            .collect::<Result<_, _>>()?;
        let (origin, preference) = self.head.split_once("] ").unwrap_or_default();
        let protocol = origin
            .split(['[', ' '])
            .filter(|word| !word.is_empty())
            .nth(1);
        Ok(Some(LearnedRoute {
            prefix: self.prefix,
            next_hop,
            as_path,
            med: self.attribute("BGP.med").and_then(|med| med.parse().ok()),
            best: preference.starts_with('*'),
            stale: restarting
                .iter()
                .any(|name| Some(name.as_str()) == protocol),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bfd_is_read_as_birdc_prints_it() {
        let text = "bfd1:\n\
            IP address                Interface  State      Since         Interval  Timeout\n\
            10.99.0.1                 idc0       Up         16:31:01.224    0.050    0.150\n\
            10.99.0.11                ---        Down       16:31:01.224    1.000    0.000\n";
        let of = |address: &str| parse_bfd(text, address.parse().expect("an address"));
        assert_eq!(of("10.99.0.1"), Ok(bfd::State::Up));
        assert_eq!(of("10.99.0.11"), Ok(bfd::State::Down));
        assert!(of("10.99.0.2").is_err());
    }

    #[test]
    fn routes_are_read_as_birdc_prints_them() {
        let text = "Table master4:\n\
            100.84.0.0/24        unicast [gw 02:21:05.062] * (100) [AS65004i]\n\
            \tvia 10.99.0.4 on idc0\n\
            \tType: BGP univ\n\
            \tBGP.origin: IGP\n\
            \tBGP.as_path: 65004 4200000003\n\
            \tBGP.next_hop: 10.99.0.4\n\
            \tBGP.med: 7\n\
            \tBGP.local_pref: 100\n\
            \tBGP.community: (65003,1) (65535,0)\n\
            \tBGP.large_community: (65003, 1, 2) (65003, 4200000000, 0)\n\
            \x20                    unicast [other 02:21:06.062] (100) [i]\n\
            \tvia 10.99.0.5 on idc0\n\
            \tType: BGP univ\n\
            \tBGP.as_path: \n\
            \tBGP.next_hop: fd99::4 fe80::b0fc:dcff:fedf:ee90\n\
            100.80.0.0/24        blackhole [announced_ipv4 02:21:03.396] * (200)\n\
            \tType: static univ\n\n";
        let routes = parse_routes(text, &["other".to_owned()]).expect("readable");
        let prefix: IpNet = "100.84.0.0/24".parse().expect("a prefix");
        let first = LearnedRoute {
            prefix,
            next_hop: "10.99.0.4".parse().expect("an address"),
            as_path: vec![65004, 4_200_000_003],
            med: Some(7),
            best: true,
            stale: false,
        };
        let second = LearnedRoute {
            prefix,
            next_hop: "fd99::4".parse().expect("an address"),
            as_path: vec![],
            med: None,
            best: false,
            stale: true,
        };
        assert_eq!(routes, [first, second]);
        let pairs = |text| parse_communities::<u16, 2>(text, "BGP.community: ");
        assert_eq!(pairs(text), Ok(vec![[65003, 1], [65535, 0]]));
        assert_eq!(pairs("Network not found"), Ok(vec![]));
        let triples = parse_communities::<u32, 3>(text, "BGP.large_community: ");
        assert_eq!(triples, Ok(vec![[65003, 1, 2], [65003, 4_200_000_000, 0]]));
    }

    #[test]
    fn restarting_neighbours_are_found_as_birdc_prints_them() {
        let text = "Name       Proto      Table      State  Since         Info\n\
            gw         BGP        ---        up     02:34:15.437  Established\n\
            \x20 BGP state:          Established\n\
            \n\
            other      BGP        ---        start  02:34:15.437  Active\n\
            \x20 BGP state:          Active\n\
            \x20   Neighbor graceful restart active\n";
        assert_eq!(parse_restarting(text), ["other"]);
    }

    #[test]
    fn sessions_are_read_as_birdc_prints_them() {
        let text = "Name       Proto      Table      State  Since         Info\n\
            gw         BGP        ---        start  02:34:15.437  Active        Socket: Connection closed\n\
            \x20 BGP state:          Active\n\
            \x20   Neighbor address: 10.99.0.3\n\
            \x20   Last error:       Socket: Connection closed\n";
        let session = parse_session(text).expect("readable");
        assert_eq!(session.state, SessionState::Active);
        assert_eq!(session.since, "02:34:15.437");
        assert_eq!(
            session.last_error.as_deref(),
            Some("Socket: Connection closed")
        );
    }
}
