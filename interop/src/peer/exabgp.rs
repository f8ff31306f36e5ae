//! ExaBGP: configuration, its command pipes, and the reading of its events and of what it says of
//! its Adj-RIB-In.
//!
//! ExaBGP speaks BGP for a program and is no router: it chooses no best path, keeps no route beyond a
//! session and has nothing to do with the kernel. A helper writes down its events, one JSON object a
//! line; they are the only place where it tells of a session that is down.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bgp::Family;
use ipnet::IpNet;
use netlink::Namespace;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde::Deserialize;

use super::machine::{Machine, Running, seen};
use super::{
    ANSWER, Daemon, Extra, LearnedRoute, NeighbourConfig, PeerError, Quote, Router, RouterConfig,
    Session, SessionState,
};
use crate::enter::Lab;
use crate::process::Launch;

/// Where it and its command line look for the pipes between them.
const PIPES: &str = "/run/exabgp";

/// An ExaBGP speaker. It connects again after a pause of its own choice.
#[derive(Debug)]
pub struct Exabgp {
    machine: Machine,
}

/// See [`Daemon::lacks`].
pub(super) fn lacks(extra: Extra) -> Option<&'static str> {
    match extra {
        Extra::Bfd | Extra::BfdPassword | Extra::BfdAdminDown => Some("it has none"),
        Extra::Role | Extra::GracefulShutdown => Some("the lab has no words for it"),
        Extra::Helper => Some("it has no table to keep routes in"),
        Extra::MaxPrefix => Some("its configuration has no limit of prefixes"),
        Extra::ShutdownText => {
            Some("it cannot decode one (a fault of 4.2.21), and its `teardown` takes none")
        }
        Extra::AnswerRefresh => Some("4.2.21 ends the session when it is asked, by BIRD too"),
        Extra::Kernel => Some("it has nothing to do with the kernel"),
        _ => None,
    }
}

impl Exabgp {
    /// Not yet started.
    pub fn new(config: RouterConfig, namespace: Arc<Namespace>, lab: &Lab) -> Self {
        Self {
            machine: Machine::new(config, namespace, lab),
        }
    }

    fn events_path(&self) -> PathBuf {
        self.machine.directory.join("events")
    }

    /// Its command line, in the name of this router.
    fn exabgp(&self, program: &str) -> Launch {
        Launch::new(program)
            .env("exabgp.api.pipename", &self.machine.config.name)
            .env("exabgp_api_pipename", &self.machine.config.name)
            .in_namespace(self.machine.namespace.fd())
    }

    fn make_pipes(&self) -> io::Result<()> {
        fs::create_dir_all(PIPES)?;
        for end in ["in", "out"] {
            let pipe = Path::new(PIPES).join(format!("{}.{end}", self.machine.config.name));
            if !pipe.exists() {
                mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR)?;
            }
        }
        Ok(())
    }

    /// What its events say of one neighbour.
    fn story(&self, neighbour: IpAddr) -> Result<Story, PeerError> {
        let path = self.events_path();
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|source| self.machine.file(&path, source))?,
        };
        parse_events(&text, neighbour).map_err(|e| self.machine.unreadable("its events", e))
    }

    /// The Adj-RIB-In of the sessions that are up, a line each. What it says of others is what it
    /// was last told, and is forgotten when their next session begins.
    fn adj_rib_in(&self) -> Result<Vec<String>, PeerError> {
        let answer = self.cli(&["show", "adj-rib", "in", "extensive"])?;
        let mut lines = Vec::new();
        for neighbour in &self.machine.config.neighbours {
            if self.story(neighbour.address)?.state != SessionState::Established {
                continue;
            }
            let start = format!("neighbor {} ", neighbour.address);
            let of_it = answer.lines().filter(|line| line.starts_with(&start));
            lines.extend(of_it.map(str::to_owned));
        }
        Ok(lines)
    }

    /// The communities of a kind with a prefix, as it prints them.
    fn listed(&self, prefix: IpNet, kind: &str) -> Result<Vec<String>, PeerError> {
        let lines = self.adj_rib_in()?;
        for line in &lines {
            let words = Words(line.split_whitespace().collect());
            if words.prefix() == Some(prefix) {
                let listed = words.after(kind).iter().map(|word| (*word).to_owned());
                return Ok(listed.collect());
            }
        }
        Ok(Vec::new())
    }

    fn order(&self, verb: &str, prefix: IpNet) -> Result<(), PeerError> {
        let route = route(&self.machine.config, prefix);
        let words: Vec<&str> = [verb].into_iter().chain(route.split(' ')).collect();
        let said = self.cli(&words)?;
        match said.contains("error") {
            true => Err(self.machine.unreadable(&words.join(" "), said)),
            false => Ok(()),
        }
    }
}

impl Router for Exabgp {
    fn daemon(&self) -> Daemon {
        Daemon::Exabgp
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    fn launch(&self) -> Result<Running, PeerError> {
        let machine = &self.machine;
        let events = self.events_path();
        // The shell stays, and with it the helper's stdout: closed, it would count as dead.
        let helper = format!("#!/bin/sh\ncat >> {}\n", events.display());
        let helper = machine.write("events.sh", &helper)?;
        let config = machine.write("exabgp.conf", &configuration(machine, &helper))?;
        fs::set_permissions(&helper, Permissions::from_mode(0o755))
            .map_err(|source| machine.file(&helper, source))?;
        self.make_pipes()
            .map_err(|source| machine.file(PIPES, source))?;
        let _ = fs::remove_file(&events);
        let bind = format!("{} {}", machine.config.address, machine.config.address6);
        let settings = [
            ("exabgp.daemon.user", "root"),
            ("exabgp.daemon.daemonize", "false"),
            ("exabgp.tcp.bind", &bind),
            ("exabgp.tcp.port", "179"),
            ("exabgp.api.cli", "true"),
            ("exabgp.api.ack", "true"),
            ("exabgp.log.destination", "stdout"),
        ];
        let mut launch = self.exabgp("exabgp").arg(config);
        for (name, value) in settings {
            launch = launch.env(name, value);
        }
        let started = launch.start(&machine.log("exabgp"));
        let mut process = started.map_err(|error| machine.process(error))?;
        machine.await_ready(&mut process, "exabgpcli answers", || {
            match self.cli(&["version"]) {
                Ok(said) if said.contains("exabgp") => Ok(()),
                Ok(said) => Err(said),
                Err(error) => Err(seen(&error)),
            }
        })?;
        Ok(Running::new(process))
    }

    fn cli(&self, words: &[&str]) -> Result<String, PeerError> {
        let answer = self.exabgp("exabgpcli").args(words).output(ANSWER);
        answer.map_err(|error| self.machine.process(error))
    }

    fn session(&self, neighbour: IpAddr) -> Result<Session, PeerError> {
        self.machine.neighbour(neighbour)?;
        let story = self.story(neighbour)?;
        Ok(Session {
            state: story.state,
            since: format!("process {}, session {}", story.process, story.sessions),
            last_error: story.last_error,
        })
    }

    fn routes(&self, family: Family) -> Result<Vec<LearnedRoute>, PeerError> {
        let lines = self.adj_rib_in()?;
        let routes = lines.iter().map(|line| parse_route(line));
        let routes: Vec<_> = routes
            .collect::<Result<_, _>>()
            .map_err(|reason| self.machine.unreadable("show adj-rib in extensive", reason))?;
        let of_family = |route: &LearnedRoute| super::family_of(route.prefix) == family;
        Ok(routes.into_iter().filter(of_family).collect())
    }

    fn communities(&self, prefix: IpNet) -> Result<Vec<(u16, u16)>, PeerError> {
        let listed = self.listed(prefix, "community")?;
        let parse = |text: &String| community(text).ok_or(format!("community {text:?}"));
        let all = listed.iter().map(parse).collect::<Result<_, _>>();
        all.map_err(|reason| self.machine.unreadable("show adj-rib in extensive", reason))
    }

    fn large_communities(&self, prefix: IpNet) -> Result<Vec<(u32, u32, u32)>, PeerError> {
        let listed = self.listed(prefix, "large-community")?;
        let parse = |text: &String| large_community(text).ok_or(format!("community {text:?}"));
        let all = listed.iter().map(parse).collect::<Result<_, _>>();
        all.map_err(|reason| self.machine.unreadable("show adj-rib in extensive", reason))
    }

    fn show_route(&self, _prefix: IpNet) -> Result<Quote, PeerError> {
        Err(self.machine.not_offered("a question for one prefix"))
    }

    fn originate(&self, prefix: IpNet) -> Result<(), PeerError> {
        self.order("announce", prefix)
    }

    fn cease_to_originate(&self, prefix: IpNet) -> Result<(), PeerError> {
        self.order("withdraw", prefix)
    }

    fn ask_for_refresh(&self, neighbour: IpAddr) -> Result<(), PeerError> {
        let address = neighbour.to_string();
        for family in &self.machine.neighbour(neighbour)?.families {
            let family = [family.as_str(), "unicast"];
            let order = ["neighbor", &address, "announce", "route-refresh"];
            self.cli(&[&order[..], &family[..]].concat())?;
        }
        Ok(())
    }

    fn shut_down(&self, _neighbour: IpAddr, _reason: &str) -> Result<(), PeerError> {
        Err(self.machine.not_offered("a shutdown with a reason"))
    }

    /// With graceful restart in use, it closes without a NOTIFICATION.
    fn reset_session(&self, neighbour: IpAddr) -> Result<(), PeerError> {
        self.machine.neighbour(neighbour)?;
        self.cli(&["neighbor", &neighbour.to_string(), "teardown", "4"])
            .map(drop)
    }
}

/// A route of its own, in the words of the configuration and of the command line.
fn route(config: &RouterConfig, prefix: IpNet) -> String {
    let next_hop = match super::family_of(prefix) {
        Family::Ipv4Unicast if config.neighbours.iter().any(|n| n.extended_next_hop) => {
            config.address6.into()
        }
        family => config.next_hop(family),
    };
    let mut text = format!("route {prefix} next-hop {next_hop}");
    let communities: Vec<String> = config
        .communities
        .iter()
        .map(|(high, low)| format!("{high}:{low}"))
        .collect();
    let large: Vec<String> = config
        .large_communities
        .iter()
        .map(|(global, first, second)| format!("{global}:{first}:{second}"))
        .collect();
    for (name, list) in [("community", communities), ("large-community", large)] {
        if !list.is_empty() {
            let _ = write!(text, " {name} [ {} ]", list.join(" "));
        }
    }
    text
}

fn configuration(machine: &Machine, helper: &Path) -> String {
    let mut text = format!(
        "process events {{ run {}; encoder json; }}\n",
        helper.display()
    );
    for neighbour in &machine.config.neighbours {
        neighbour_configuration(&mut text, machine, neighbour);
    }
    text
}

fn neighbour_configuration(text: &mut String, machine: &Machine, neighbour: &NeighbourConfig) {
    let config = &machine.config;
    let _ = writeln!(text, "neighbor {} {{", neighbour.address);
    let mut line = |rest: String| {
        let _ = writeln!(text, "  {rest}");
    };
    line(format!("description \"{}\";", neighbour.name));
    line(format!("router-id {};", config.router_id));
    line(format!(
        "local-address {};",
        machine.transport_address(neighbour)
    ));
    line(format!("local-as {};", config.asn));
    line(format!("peer-as {};", neighbour.asn));
    line(format!("connect {};", neighbour.port));
    line(format!("hold-time {};", neighbour.hold_time));
    line(format!("passive {};", neighbour.passive));
    line("adj-rib-in true;".to_owned());
    if let Some(password) = &neighbour.password {
        line(format!("md5-password \"{password}\";"));
    }
    if neighbour.ttl_security {
        line("outgoing-ttl 255; incoming-ttl 255;".to_owned());
    }
    let switch = |on| if on { "enable" } else { "disable" };
    let restart = match neighbour.graceful_restart {
        Some(seconds) => seconds.to_string(),
        None => "disable".to_owned(),
    };
    let add_path = match neighbour.add_path {
        true => "send/receive",
        false => "disable",
    };
    line(format!(
        "capability {{ asn4 enable; route-refresh enable; graceful-restart {restart}; \
         add-path {add_path}; extended-message {}; nexthop {}; }}",
        switch(neighbour.extended_messages),
        switch(neighbour.extended_next_hop)
    ));
    // It offers next hops of a family only along with the family.
    let next_hops = neighbour.extended_next_hop && neighbour.families == [Family::Ipv4Unicast];
    let of_next_hops = next_hops.then_some(&Family::Ipv6Unicast);
    let families = neighbour.families.iter().chain(of_next_hops);
    let families: String = families
        .map(|family| format!("{} unicast; ", family.as_str()))
        .collect();
    line(format!("family {{ {families}}}"));
    if neighbour.extended_next_hop {
        line("nexthop { ipv4 unicast ipv6; }".to_owned());
    }
    let own = neighbour.families.iter();
    let own = own.flat_map(|family| config.announced_of(*family));
    let own: String = own
        .map(|prefix| format!("{}; ", route(config, prefix)))
        .collect();
    line(format!("static {{ {own}}}"));
    line("api { processes [ events ]; neighbor-changes; }".to_owned());
    line("}".to_owned());
}

/// What its events tell of one neighbour.
#[derive(Debug, PartialEq, Eq)]
struct Story {
    state: SessionState,
    process: u64,
    sessions: u64,
    last_error: Option<String>,
}

#[derive(Deserialize)]
struct EventJson {
    #[serde(rename = "type")]
    kind: String,
    pid: u64,
    neighbor: Option<NeighborJson>,
}

#[derive(Deserialize)]
struct NeighborJson {
    address: AddressJson,
    state: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct AddressJson {
    peer: IpAddr,
}

fn parse_events(text: &str, neighbour: IpAddr) -> Result<Story, serde_json::Error> {
    let mut story = Story {
        state: SessionState::Connect,
        process: 0,
        sessions: 0,
        last_error: None,
    };
    // The last line may not have been written to its end yet.
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in complete.lines() {
        let event: EventJson = serde_json::from_str(line)?;
        story.process = event.pid;
        let Some(of) = event.neighbor.filter(|_| event.kind == "state") else {
            continue;
        };
        if of.address.peer != neighbour {
            continue;
        }
        match of.state.as_deref() {
            Some("connected") => story.state = SessionState::OpenSent,
            Some("up") => {
                story.state = SessionState::Established;
                story.sessions += 1;
            }
            _ => {
                story.state = SessionState::Active;
                story.last_error = of.reason;
            }
        }
    }
    Ok(story)
}

/// One line of `show adj-rib in extensive`: words with their values, lists in brackets.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    /// What follows a word: one value, or the values of a list.
    fn after(&self, word: &str) -> &[&'a str] {
        let Some(position) = self.0.iter().position(|found| *found == word) else {
            return &[];
        };
        let rest = &self.0[position + 1..];
        match rest.first() {
            Some(&"[") => {
                let end = rest.iter().position(|word| *word == "]");
                &rest[1..end.unwrap_or(rest.len()).max(1)]
            }
            Some(_) => &rest[..1],
            None => &[],
        }
    }

    fn prefix(&self) -> Option<IpNet> {
        self.after("unicast").first()?.parse().ok()
    }
}

fn parse_route(line: &str) -> Result<LearnedRoute, String> {
    let words = Words(line.split_whitespace().collect());
    let bad = |what: &str| format!("{what} in {line:?}");
    let next_hop = words.after("next-hop").first();
    let asns = words.after("as-path").iter();
    // A set is in parentheses.
    let asns = asns.map(|asn| asn.trim_matches(['(', ')', '[', ']', ',']));
    let asns = asns.filter(|asn| !asn.is_empty());
    Ok(LearnedRoute {
        prefix: words.prefix().ok_or_else(|| bad("no prefix"))?,
        next_hop: next_hop
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| bad("no next hop"))?,
        as_path: asns
            .map(|asn| asn.parse().map_err(|_| bad("AS path")))
            .collect::<Result<_, _>>()?,
        med: words.after("med").first().and_then(|med| med.parse().ok()),
        // It has no choice: each is as good as its only one.
        best: true,
        stale: false,
    })
}

/// It prints well-known communities by name.
fn community(text: &str) -> Option<(u16, u16)> {
    match text {
        "no-export" => Some((65535, 65281)),
        "no-advertise" => Some((65535, 65282)),
        "no-export-subconfed" => Some((65535, 65283)),
        "no-peer" => Some((65535, 65284)),
        "blackhole" => Some((65535, 666)),
        _ => {
            let (high, low) = text.split_once(':')?;
            Some((high.parse().ok()?, low.parse().ok()?))
        }
    }
}

fn large_community(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.split(':').map(|number| number.parse().ok());
    let all = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_exabgpcli_prints_them() {
        let start = "neighbor 10.99.0.1 local-ip 10.99.0.2 local-as 65002 peer-as 65001 router-id \
                     10.99.0.2 family-allowed in-open ipv4 unicast 10.1.0.0/24 path-information \
                     0.0.0.2 next-hop 10.99.0.1 origin igp as-path [ 65001 4200000003 ] med 5";
        let line = format!("{start} community [ 65001:7 no-export ] large-community 65001:1:2");
        let expected = LearnedRoute {
            prefix: "10.1.0.0/24".parse().expect("a prefix"),
            next_hop: "10.99.0.1".parse().expect("an address"),
            as_path: vec![65001, 4_200_000_003],
            med: Some(5),
            best: true,
            stale: false,
        };
        assert_eq!(parse_route(&line), Ok(expected));
        let words = Words(line.split_whitespace().collect());
        let communities = words.after("community").iter().map(|text| community(text));
        let communities: Vec<_> = communities.collect();
        assert_eq!(communities, [Some((65001, 7)), Some((65535, 65281))]);
        assert_eq!(words.after("large-community"), ["65001:1:2"]);
        assert_eq!(large_community("65001:1:2"), Some((65001, 1, 2)));
        assert_eq!(large_community("65001:1:2:3"), None);
        // Cut off, it is an error and no panic.
        for end in 0..start.len() {
            let _ = parse_route(&start[..end]);
        }
    }

    #[test]
    fn sessions_are_read_as_its_events_tell_them() {
        let event = |peer: &str, rest: &str| {
            format!(
                r#"{{"exabgp":"4.0.1","pid":28,"type":"state","neighbor":{{"address":
                   {{"local":"10.99.0.2","peer":"{peer}"}},{rest}}}}}"#
            )
            .replace('\n', " ")
        };
        let lines = [
            event("10.99.0.1", r#""state":"connected""#),
            event("10.99.0.1", r#""state":"up""#),
            event("10.99.0.1", r#""state":"down","reason":"peer reset""#),
            event("10.99.0.1", r#""state":"up""#),
            event("10.99.0.9", r#""state":"down","reason":"another""#),
            r#"{"pid":28,"type":"notification","notification":"shutdown"}"#.to_owned(),
            r#"{"pid":28,"type":"sta"#.to_owned(),
        ];
        let address = "10.99.0.1".parse().expect("an address");
        let story = parse_events(&lines.join("\n"), address).expect("readable");
        let expected = Story {
            state: SessionState::Established,
            process: 28,
            sessions: 2,
            last_error: Some("peer reset".to_owned()),
        };
        assert_eq!(story, expected);
    }
}
