//! When to compare the kernel's state because somebody else may have changed it.
//!
//! It reads what the kernel reports and never acts: the answer is only "compare, and why". Our own
//! changes are reported too and cannot be told from foreign ones, so comparisons are spaced out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use netlink::{Change, Event};

use crate::config::PlaneConfig;

/// From a first sign to the comparison: what comes together is compared together.
const SETTLE: Duration = Duration::from_millis(200);
/// The least time between two comparisons for routes and rules that went.
const PAUSE: Duration = Duration::from_secs(5);

/// Signs seen so far.
#[derive(Debug)]
pub struct Suspicion {
    protocol: u8,
    /// Our devices and the IDC's, and whether each was up when last heard of.
    devices: BTreeMap<String, Option<bool>>,
    due: Option<(Instant, &'static str)>,
    last: Option<Instant>,
}

impl Suspicion {
    /// Watches the devices of this plane, and routes and rules of its protocol.
    #[must_use]
    pub fn new(config: &PlaneConfig) -> Self {
        let names = config.idc_interfaces.iter().chain([&config.device]);
        Suspicion {
            protocol: config.protocol,
            devices: names.map(|name| (name.clone(), None)).collect(),
            due: None,
            last: None,
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
                        self.expect(now + SETTLE, "a device changed");
                    }
                }
            }
            Event::Route(Change::Gone(route)) if route.protocol == self.protocol => {
                self.expect(self.spaced(now), "a route of ours went");
            }
            Event::Rule(Change::Gone(rule)) if rule.protocol == self.protocol => {
                self.expect(self.spaced(now), "a rule of ours went");
            }
            // Which next hops are on which IDC interface hangs on them.
            Event::Address(_) => self.expect(now + SETTLE, "an address changed"),
            Event::Resync(_) => self.expect(now + SETTLE, "the kernel could not report everything"),
            _ => {}
        }
    }

    fn spaced(&self, now: Instant) -> Instant {
        let soon = now + SETTLE;
        self.last.map_or(soon, |last| soon.max(last + PAUSE))
    }

    fn expect(&mut self, at: Instant, reason: &'static str) {
        match self.due {
            Some((due, _)) if due <= at => {}
            _ => self.due = Some((at, reason)),
        }
    }

    /// When to ask [`Suspicion::take`].
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.due.map(|(at, _)| at)
    }

    /// Why to compare now, if so.
    pub fn take(&mut self, now: Instant) -> Option<&'static str> {
        let (_, reason) = self.due.take_if(|(at, _)| *at <= now)?;
        self.last = Some(now);
        Some(reason)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use netlink::{Link, LinkStats, Route, RouteKind};

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
            index: 7,
            name: name.to_owned(),
            kind: None,
            mac: None,
            mtu: 1500,
            up,
            carrier: up,
            multicast: true,
            operational: up,
            alias: None,
            master: None,
            lower: None,
            makes_link_local: None,
            vxlan: None,
            stats: LinkStats::default(),
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
        let table: [(&str, Vec<Event>, bool); 9] = [
            (
                "a first word of a device that is up",
                vec![present("idc0", true)],
                false,
            ),
            (
                "the same again",
                vec![present("idc0", true), present("idc0", true)],
                false,
            ),
            (
                "down",
                vec![present("idc0", true), present("idc0", false)],
                true,
            ),
            ("our device is gone", vec![gone("ccn0")], true),
            ("a foreign device is gone", vec![gone("eth7")], false),
            ("a route of ours went", vec![route_gone(77)], true),
            ("a foreign route went", vec![route_gone(186)], false),
            (
                "events were lost",
                vec![Event::Resync("overrun".to_owned())],
                true,
            ),
            ("nothing", vec![], false),
        ];
        let now = Instant::now();
        for (what, events, suspicious) in table {
            let mut suspicion = suspicion();
            for event in &events {
                suspicion.event(event, now);
            }
            assert_eq!(suspicion.due().is_some(), suspicious, "{what}");
            assert_eq!(
                suspicion.take(now),
                None,
                "{what}: what comes together is waited for"
            );
            assert_eq!(suspicion.take(now + SETTLE).is_some(), suspicious, "{what}");
            assert_eq!(suspicion.due(), None, "{what}: said once");
        }
    }

    #[test]
    fn comparisons_for_our_own_removals_are_spaced_out() {
        let mut suspicion = suspicion();
        let start = Instant::now();
        let mut comparisons = 0;
        for step in 0..1_000 {
            let now = start + Duration::from_millis(step * 20);
            suspicion.event(&route_gone(77), now);
            comparisons += usize::from(suspicion.take(now).is_some());
        }
        assert_eq!(comparisons, 4, "20 s of removals, one comparison every 5 s");
    }
}
