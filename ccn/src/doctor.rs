//! `ccn doctor`: what is wrong with this gateway, why it matters, and what to do about it.
//!
//! Facts go in, findings come out: nothing is asked and nothing is changed here.

mod around;
mod gather;
pub mod host;
pub mod networkd;
pub mod sample;
#[cfg(test)]
mod tests;

use bgp::{PeerStatus, SessionState};
use serde::Serialize;

use crate::api::error::Fault;
use crate::api::{LimitView, LinkView, Status};
use crate::config::PlaneConfig;
use crate::drain::State;
use crate::plane::Part;
use host::Host;

pub use gather::gather;

/// Most things of one kind that are named.
const NAMED: usize = 5;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it should be.
    Fine,
    /// Worth knowing; nothing is broken.
    Note,
    /// Something does not work, or will not.
    Wrong,
}

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Finding {
    /// What was checked; the name is stable.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// Why it matters; nothing where all is fine.
    pub why: Option<String>,
    /// What to do; nothing where all is fine.
    pub todo: Option<String>,
}

/// All findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "DoctorReport")]
pub struct Report {
    /// Nothing is wrong.
    pub well: bool,
    /// Every check, in order.
    pub findings: Vec<Finding>,
}

/// Which plane is used, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Choice {
    /// It was left to the agent (`plane.kind = "auto"`).
    pub auto: bool,
    /// Why the agent did not take `ebpf`; nothing where it did, or had no choice.
    pub refused: Option<String>,
}

/// What model and kernel said of some packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Packets of which both said the same.
    pub agreed: usize,
    /// Packets of which the kernel could not be asked.
    pub unasked: usize,
    /// Where they differ: the packet and both words.
    pub differences: Vec<String>,
}

/// Everything that is looked at.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The configuration of the plane.
    pub config: PlaneConfig,
    /// Which plane, and why.
    pub choice: Choice,
    /// What `ccn status` says.
    pub status: Status,
    /// What of the plane can be found missing.
    pub parts: Result<Vec<Part>, String>,
    /// The host.
    pub host: Result<Host, String>,
    /// The peers.
    pub peers: Vec<PeerStatus>,
    /// The links.
    pub links: Vec<LinkView>,
    /// Records that are wrong.
    pub quarantine: Vec<Fault>,
    /// What is limited.
    pub limits: Vec<LimitView>,
    /// What was said of packets.
    pub asked: Asked,
}

/// Findings as they are made.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn fine(&mut self, check: &'static str, what: impl Into<String>) {
        self.0.push(Finding {
            check,
            level: Level::Fine,
            what: what.into(),
            why: None,
            todo: None,
        });
    }

    fn add(
        &mut self,
        level: Level,
        check: &'static str,
        what: impl Into<String>,
        (why, todo): (&str, impl Into<String>),
    ) {
        self.0.push(Finding {
            check,
            level,
            what: what.into(),
            why: Some(why.to_owned()),
            todo: Some(todo.into()),
        });
    }

    fn wrong(
        &mut self,
        check: &'static str,
        what: impl Into<String>,
        advice: (&str, impl Into<String>),
    ) {
        self.add(Level::Wrong, check, what, advice);
    }

    fn note(
        &mut self,
        check: &'static str,
        what: impl Into<String>,
        advice: (&str, impl Into<String>),
    ) {
        self.add(Level::Note, check, what, advice);
    }

    /// Says that all is fine, if nothing was found since there were `before` findings.
    fn unless_found(&mut self, before: usize, check: &'static str, what: impl Into<String>) {
        if self.0.len() == before {
            self.fine(check, what);
        }
    }
}

/// Looks at everything.
#[must_use]
pub fn examine(facts: &Facts) -> Report {
    let mut findings = Findings::default();
    store(facts, &mut findings);
    plane(facts, &mut findings);
    parts(facts, &mut findings);
    match &facts.host {
        Ok(host) => around::examine(facts, host, &mut findings),
        Err(error) => findings.wrong(
            "host",
            format!("the host cannot be looked at: {error}"),
            ("nothing is known of its interfaces", "see the error"),
        ),
    }
    peers(facts, &mut findings);
    links(facts, &mut findings);
    quarantine(facts, &mut findings);
    limits(facts, &mut findings);
    asked(facts, &mut findings);
    let findings = findings.0;
    Report {
        well: findings.iter().all(|finding| finding.level < Level::Wrong),
        findings,
    }
}

fn store(facts: &Facts, to: &mut Findings) {
    let store = &facts.status.store;
    let Some(age) = store.stale_s else {
        return to.fine("store", "what is known is what it holds");
    };
    let reason = store.reason.as_deref().unwrap_or("no reason is known");
    let found = format!("{} ({age} s ago): {reason}", store.state);
    let stays = "nothing can be changed; what is forwarded and announced stays as it was";
    let todo = match store.state {
        "restored" => "if this backup is meant to be followed: `ccn store follow`",
        _ => "mend what the reason names; the agent tries again by itself",
    };
    to.wrong("store", found, (stays, todo));
}

fn plane(facts: &Facts, to: &mut Findings) {
    let plane = &facts.status.plane;
    let before = to.0.len();
    if let Some(error) = &plane.last_error {
        to.wrong(
            "plane",
            format!("{}: {error}", plane.name),
            (
                "changes do not reach the kernel; what forwarded goes on as it was",
                "mend what the error names; the agent tries again by itself",
            ),
        );
    } else if plane.state.starts_with("degraded") {
        to.wrong(
            "plane",
            format!("{}: {}", plane.name, plane.state),
            (
                "what was refused is neither forwarded nor announced",
                "`ccn links` and `ccn limits` say which and why, the log every one",
            ),
        );
    } else if !facts.status.settled {
        to.note(
            "plane",
            format!(
                "{}: generation {} of {} is in the kernel",
                plane.name, facts.status.acknowledged, facts.status.generation
            ),
            ("a change is on its way", "ask again in a moment"),
        );
    }
    if let Some(why) = facts.choice.refused.as_ref() {
        to.note(
            "plane",
            format!("{}, since ebpf does not work here: {why}", plane.name),
            (
                "it takes 256 VNIs and 50,000 VMs, counts no links, and costs more a packet",
                "give the agent what the reason names, and restart it: no packet is lost by that",
            ),
        );
    }
    let why = match facts.choice.auto {
        true => "the best there is, and it works here",
        false => "as configured",
    };
    to.unless_found(before, "plane", format!("{}: {why}", plane.name));
}

fn parts(facts: &Facts, to: &mut Findings) {
    let parts = match &facts.parts {
        Ok(parts) => parts,
        Err(error) => {
            return to.wrong(
                "parts",
                format!("the plane's parts cannot be looked at: {error}"),
                (
                    "it is not known whether packets are steered",
                    "see the error",
                ),
            );
        }
    };
    let before = to.0.len();
    for part in parts.iter().filter(|part| !part.present) {
        to.wrong(
            "parts",
            format!("missing: {}", part.name),
            (
                "packets are not steered there, or not after the next restart",
                format!(
                    "the agent puts it back within {} s; find out who takes it away",
                    facts.config.audit_interval
                ),
            ),
        );
    }
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    if !names.is_empty() {
        to.unless_found(before, "parts", format!("in place: {}", names.join(", ")));
    }
}

fn peers(facts: &Facts, to: &mut Findings) {
    let before = to.0.len();
    if facts.peers.is_empty() {
        to.note(
            "peers",
            "there is none",
            (
                "no router hears of linked subnets",
                "add [[bgp.peer]] to the configuration, then `ccn reload`",
            ),
        );
    }
    for peer in &facts.peers {
        let name = &peer.name;
        if !peer.admin_up {
            to.note(
                "peers",
                format!("{name} was taken down"),
                (
                    "it hears of no linked subnet",
                    format!("`ccn peer up {name}`"),
                ),
            );
        } else if peer.state != SessionState::Established {
            let error = peer
                .last_error
                .as_deref()
                .unwrap_or("no attempt has failed yet");
            to.wrong(
                "peers",
                format!(
                    "{name} ({}) is {} for {} s: {error}",
                    peer.address, peer.state, peer.since_seconds
                ),
                (
                    "it hears of no linked subnet, and nothing is learned from it",
                    format!("`ccn peer {name}`; ping {}", peer.address),
                ),
            );
        }
        for note in &peer.notes {
            to.note(
                "peers",
                format!("{name}: {note}"),
                ("routes may be missing", format!("`ccn peer {name}`")),
            );
        }
    }
    let hops = &facts.status.peers.unreachable_next_hops;
    if !hops.is_empty() {
        let hops: Vec<String> = hops.iter().take(NAMED).map(ToString::to_string).collect();
        to.wrong(
            "peers",
            format!("routes by way of {} are not used", hops.join(", ")),
            (
                "they are in no subnet of an IDC interface that is up",
                "give the interface an address in that subnet, or have the router say another next hop",
            ),
        );
    }
    to.unless_found(
        before,
        "peers",
        format!("all {} established", facts.peers.len()),
    );
}

fn links(facts: &Facts, to: &mut Findings) {
    let before = to.0.len();
    let bad = ["failed", "quarantined"];
    let bad = facts
        .links
        .iter()
        .filter(|link| bad.contains(&link.state.as_str()));
    for link in bad.take(NAMED) {
        let reason = link.reason.as_deref().unwrap_or("no reason is known");
        to.wrong(
            "links",
            format!("{} {}: {reason}", link.link, link.state),
            (
                "it is not announced, or not all of it forwards",
                "mend what the reason names; `ccn links` shows all",
            ),
        );
    }
    if facts.status.drain.state != State::Serving {
        to.note(
            "links",
            "this gateway is drained, or on the way to it",
            (
                "it announces nothing new, so other gateways carry what there is to carry",
                "`ccn status` says since when; `ccn undrain` has it serve again",
            ),
        );
    }
    let announced = facts.status.links.announced;
    to.unless_found(
        before,
        "links",
        format!("{announced} of {} announced", facts.status.links.total),
    );
}

fn quarantine(facts: &Facts, to: &mut Findings) {
    if facts.quarantine.is_empty() {
        return to.fine("quarantine", "empty");
    }
    let some = facts.quarantine.iter().take(NAMED);
    let some: Vec<String> = some
        .map(|fault| format!("{}: {}: {}", fault.key, fault.field, fault.reason))
        .collect();
    let more = match facts.quarantine.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    to.wrong(
        "quarantine",
        format!("{}{more}", some.join("; ")),
        (
            "these records are ignored: what they say is not forwarded",
            "correct them in the store; `ccn quarantine` shows all",
        ),
    );
}

fn limits(facts: &Facts, to: &mut Findings) {
    let before = to.0.len();
    let filled = |limit: &&LimitView| {
        limit.max > 0 && limit.used.saturating_mul(10) >= limit.max.saturating_mul(8)
    };
    for limit in facts.limits.iter().filter(filled) {
        let what = format!("{}: {} of {}", limit.name, limit.used, limit.max);
        if limit.used >= limit.max {
            to.wrong(
                "limits",
                what,
                (
                    "it is full: the next one is refused",
                    "take away what is not needed, or share the load with another group of gateways",
                ),
            );
        } else {
            to.note(
                "limits",
                what,
                (
                    "it is nearly full; the one too many is refused",
                    "plan for another group of gateways",
                ),
            );
        }
    }
    to.unless_found(before, "limits", "nothing is four fifths full");
}

fn asked(facts: &Facts, to: &mut Findings) {
    let Asked {
        agreed,
        unasked,
        differences,
    } = &facts.asked;
    for difference in differences.iter().take(NAMED) {
        to.wrong(
            "packets",
            difference,
            (
                "the kernel does something else than the records say",
                "`ccn explain` it; a restart of the agent compares everything, and loses no packet",
            ),
        );
    }
    if differences.len() > NAMED {
        let more = differences.len() - NAMED;
        to.wrong(
            "packets",
            format!("and {more} more packets"),
            ("as above", "as above"),
        );
    }
    let of = agreed + unasked + differences.len();
    let said = format!("kernel and records agree on {agreed} of {of} packets asked about");
    if !differences.is_empty() {
    } else if *unasked > 0 {
        to.note(
            "packets",
            said,
            (
                "the plane cannot be asked about the others",
                "the ebpf plane can be asked about all",
            ),
        );
    } else {
        to.fine("packets", said);
    }
}

/// How the agent was started.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The plane's configuration.
    pub config: PlaneConfig,
    /// Which plane, and why.
    pub choice: Choice,
}
