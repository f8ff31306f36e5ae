//! How many packets a second are forwarded, by what was counted at two moments.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::record::{LinkId, Vni, VpcId};

/// Packets each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ways {
    /// To VPCs.
    pub to_vpc: u64,
    /// From VPCs.
    pub from_vpc: u64,
}

/// What packets are counted of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// A link.
    Link(LinkId),
    /// A VPC.
    Vpc(VpcId),
    /// A VPC of which the records no longer know.
    Vni(Vni),
}

/// What was counted up to a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of the gateway.
    pub total: Ways,
    /// Of links and VPCs, where the plane counts by them.
    pub carriers: BTreeMap<Carrier, Ways>,
}

/// Packets a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Rate {
    /// To VPCs.
    pub to_vpc: f64,
    /// From VPCs.
    pub from_vpc: f64,
}

/// What still carries packets.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Carrying {
    /// What it is.
    #[serde(flatten)]
    pub carrier: Carrier,
    /// How much it carries.
    #[serde(flatten)]
    pub rate: Rate,
}

/// What came of one measurement.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Measured {
    pub(super) total: Rate,
    /// Whatever carries packets, the busiest first.
    pub(super) carriers: Vec<Carrying>,
}

impl Rate {
    fn sum(&self) -> f64 {
        self.to_vpc + self.from_vpc
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rate { to_vpc, from_vpc } = self;
        match (to_vpc.round() > 0.0, from_vpc.round() > 0.0) {
            (true, false) => write!(f, "{to_vpc:.0} packets/s to VPCs"),
            (false, true) => write!(f, "{from_vpc:.0} packets/s from VPCs"),
            _ => write!(
                f,
                "{to_vpc:.0} packets/s to VPCs and {from_vpc:.0} from VPCs"
            ),
        }
    }
}

impl Ways {
    /// A count that began again from nothing has not shrunk.
    fn since(self, before: Ways, seconds: f64) -> Rate {
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        Rate {
            to_vpc: rate(self.to_vpc, before.to_vpc),
            from_vpc: rate(self.from_vpc, before.from_vpc),
        }
    }
}

/// One measurement after the other.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// When the next count is due; nothing while nothing is measured, or the count is asked for.
    due: Option<Instant>,
    begun: Option<(Instant, Counts)>,
    /// When the measurement under way ends at the earliest.
    until: Option<Instant>,
    least: Duration,
}

impl Meter {
    /// Begins at `from`, and ends at `until`, or later where it would be shorter than `least`.
    pub(super) fn begin(&mut self, from: Instant, until: Instant, least: Duration) {
        *self = Meter {
            due: Some(from),
            begun: None,
            until: Some(until),
            least,
        };
    }

    /// When somebody shall count.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Somebody is counting.
    pub(super) fn asked(&mut self) {
        self.due = None;
    }

    /// What was counted; what it came to, if it ends the measurement. The next one begins with it then, and lasts
    /// for `least`.
    pub(super) fn counted(&mut self, counts: Counts, now: Instant) -> Option<Measured> {
        let Some((then, before)) = self.begun.replace((now, counts.clone())) else {
            self.due = self.until.max(Some(now + self.least));
            return None;
        };
        self.due = Some(now + self.least);
        // Of no time nothing is known; the clock may be as coarse as it likes.
        let seconds = now
            .duration_since(then)
            .max(Duration::from_millis(1))
            .as_secs_f64();
        let mut carriers: Vec<Carrying> = counts
            .carriers
            .into_iter()
            .map(|(carrier, ways)| {
                let before = before.carriers.get(&carrier).copied().unwrap_or_default();
                let rate = ways.since(before, seconds);
                Carrying { carrier, rate }
            })
            .filter(|carrying| carrying.rate.sum() > 0.0)
            .collect();
        carriers.sort_by(|one, other| other.rate.sum().total_cmp(&one.rate.sum()));
        Some(Measured {
            total: counts.total.since(before.total, seconds),
            carriers,
        })
    }

    /// Measures no more.
    pub(super) fn end(&mut self) {
        *self = Meter::default();
    }
}
