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
