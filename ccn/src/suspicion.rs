//! When to compare the kernel's state because somebody else may have changed it.
//!
//! It reads what the kernel reports and never acts: the answer is only "compare, and why". Our own
//! changes are reported too and cannot be told from foreign ones here, so for those the plane is
//! only asked to look: it knows what it has changed itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use netlink::{Change, Event};

use crate::config::PlaneConfig;

/// From a first sign to the comparison: what comes together is compared together.
const SETTLE: Duration = Duration::from_millis(200);
/// The least time between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// What to have the plane do, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspect {
    /// Mend what differs from what the kernel has reported.
    Look(&'static str),
    /// Read everything: the kernel does not report all of this.
    Compare(&'static str),
}

/// Signs seen so far.
#[derive(Debug)]
pub struct Suspicion {
    protocol: u8,
    /// Our devices and the IDC's, and whether each was up when last heard of.
    devices: BTreeMap<String, Option<bool>>,
    compare: Option<(Instant, &'static str)>,
    look: Option<(Instant, &'static str)>,
    /// When the last look was.
    looked: Option<Instant>,
}

impl Suspicion {
    /// Watches the devices of this plane, and routes and rules of its protocol.
    #[must_use]
    pub fn new(config: &PlaneConfig) -> Self {
        let names = config.idc_interfaces.iter().chain([&config.device]);
        Suspicion {
            protocol: config.protocol,
            devices: names.map(|name| (name.clone(), None)).collect(),
            compare: None,
            look: None,
            looked: None,
        }
    }

    /// Takes in what the kernel reported.
    pub fn event(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Link(change) => {
                let (link, up) = match change.as_ref() {
                    Change::Present(link) => (link, link.up),
                    Change::Gone(link) => (link, false),
                };
                if let Some(known) = self.devices.get_mut(&link.name) {
                    // The kernel drops a device's IPv4 routes without a word when it goes down.
                    let changed = known.is_some_and(|known| known != up) || !up;
                    *known = Some(up);
                    if changed {
                        self.compare(now, "a device changed");
                    }
                }
            }
            Event::Route(Change::Gone(route)) if route.protocol == self.protocol => {
                self.look(now, "a route of ours went");
            }
            Event::Rule(Change::Gone(rule)) if rule.protocol == self.protocol => {
                self.look(now, "a rule of ours went");
            }
            // Programs of ours may have gone with it; which interface it was is for the plane to see.
            Event::Filter(Change::Gone(_)) | Event::Qdisc(Change::Gone(_)) => {
                self.look(now, "a filter or qdisc went");
            }
            // Which next hops are on which IDC interface hangs on them.
            Event::Address(_) => self.compare(now, "an address changed"),
            Event::Resync(_) => self.compare(now, "the kernel could not report everything"),
            _ => {}
        }
    }

    fn look(&mut self, now: Instant, reason: &'static str) {
        let soon = now + SETTLE;
        let at = self.looked.map_or(soon, |last| soon.max(last + PAUSE));
        self.look.get_or_insert((at, reason));
    }

    fn compare(&mut self, now: Instant, reason: &'static str) {
        self.compare.get_or_insert((now + SETTLE, reason));
    }

    /// When to ask [`Suspicion::take`].
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let both = self.compare.into_iter().chain(self.look);
        both.map(|(at, _)| at).min()
    }

    /// What to have done now, if anything.
    pub fn take(&mut self, now: Instant) -> Option<Suspect> {
        if let Some((_, reason)) = self.compare.take_if(|(at, _)| *at <= now) {
            // That is the greater part.
            self.look = None;
            return Some(Suspect::Compare(reason));
        }
        let (_, reason) = self.look.take_if(|(at, _)| *at <= now)?;
        self.looked = Some(now);
        Some(Suspect::Look(reason))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use netlink::{Link, Route, RouteKind};

    use super::*;
    use crate::config::Config;

    fn suspicion() -> Suspicion {
        let text = r#"
            [plane]
            vtep = "172.16.0.1"
            idc_interfaces = ["idc0"]
            [bgp]
            asn = 65001
            router_id = "10.99.0.1"
        "#;
        let config = Config::parse(text, Path::new("agent.toml")).unwrap();
        Suspicion::new(&config.plane)
    }

    fn link(name: &str, up: bool) -> Link {
        Link {
            up,
            carrier: up,
            operational: up,
            ..Link::new(7, name)
        }
    }

    fn present(name: &str, up: bool) -> Event {
        Event::Link(Box::new(Change::Present(link(name, up))))
    }

    fn route_gone(protocol: u8) -> Event {
        Event::Route(Change::Gone(Route {
            table: 1000,
            prefix: "10.1.0.11/32".parse().unwrap(),
            protocol,
            metric: 1,
            kind: RouteKind::Unicast,
            source: None,
            next_hops: Vec::new(),
        }))
    }

    #[test]
    fn only_what_may_have_changed_our_state_is_suspicious() {
        let gone = |name| Event::Link(Box::new(Change::Gone(link(name, true))));
        let (look, compare) = (Some("look"), Some("compare"));
        let table: [(&str, Vec<Event>, Option<&str>); 10] = [
            (
                "a first word of a device that is up",
                vec![present("idc0", true)],
                None,
            ),
            (
                "the same again",
                vec![present("idc0", true), present("idc0", true)],
                None,
            ),
            (
                "down",
                vec![present("idc0", true), present("idc0", false)],
                compare,
            ),
            ("our device is gone", vec![gone("ccn0")], compare),
            ("a foreign device is gone", vec![gone("eth7")], None),
            ("a route of ours went", vec![route_gone(77)], look),
            ("a foreign route went", vec![route_gone(186)], None),
            (
                "events were lost",
                vec![Event::Resync("overrun".to_owned())],
                compare,
            ),
            (
                "a route of ours went, and a device",
                vec![route_gone(77), gone("ccn0")],
                compare,
            ),
            ("nothing", vec![], None),
        ];
        let now = Instant::now();
        for (what, events, suspicious) in table {
            let mut suspicion = suspicion();
            for event in &events {
                suspicion.event(event, now);
            }
            assert_eq!(suspicion.due().is_some(), suspicious.is_some(), "{what}");
            assert_eq!(
                suspicion.take(now),
                None,
                "{what}: what comes together is waited for"
            );
            let suspect = suspicion.take(now + SETTLE).map(|suspect| match suspect {
                Suspect::Look(_) => "look",
                Suspect::Compare(_) => "compare",
            });
            assert_eq!(suspect, suspicious, "{what}");
            assert_eq!(suspicion.due(), None, "{what}: said once");
        }
    }

    #[test]
    fn looks_for_our_own_removals_are_spaced_out() {
        let mut suspicion = suspicion();
        let start = Instant::now();
        let mut looks = 0;
        for step in 0..1_000 {
            let now = start + Duration::from_millis(step * 20);
            suspicion.event(&route_gone(77), now);
            match suspicion.take(now) {
                Some(Suspect::Look(_)) => looks += 1,
                Some(Suspect::Compare(reason)) => panic!("everything is compared: {reason}"),
                None => {}
            }
        }
        assert_eq!(looks, 20, "20 s of removals, one look a second");
    }
}
