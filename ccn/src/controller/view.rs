//! The controller's state as questions see it: borrowed for one answer, never changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use bgp::Prefix;

use super::{Facts, PlaneHealth};
use crate::api::error::{ApiError, ErrorCode};
use crate::api::{
    LinkView, LinksView, PeersView, PlaneView, RecordsView, RouteView, StartView, Status,
    StoreView, listing,
};
use crate::doctor::sample;
use crate::explain::{self, Explanation};
use crate::inventory::{Inventory, StandsBy};
use crate::ledger::{Deadlines, seconds_now};
use crate::order::{LinkPhase, Order};
use crate::plane::entry::{EntryKey, EntryValue};
use crate::plane::model::flow::Flows;
use crate::plane::model::{Model, Mtus};
use crate::plane::{Counters, LearnedNextHops};
use crate::record::{ClassicRef, Dscp, Health, Link, LinkId, RecordKey, Vni, VpcId};
use crate::startup::Startup;

/// What the controller knows at this moment.
pub struct View<'a> {
    pub(super) facts: &'a Facts,
    pub(super) inventory: &'a Inventory,
    pub(super) deadlines: &'a Deadlines,
    pub(super) order: &'a Order,
    pub(super) learned: &'a BTreeMap<Prefix, LearnedNextHops>,
    pub(super) health: &'a PlaneHealth,
    pub(super) startup: &'a Startup,
    pub(super) store: StoreView,
    pub(super) generation: u64,
}

impl View<'_> {
    /// The records.
    #[must_use]
    pub fn inventory(&self) -> &Inventory {
        self.inventory
    }

    /// Every link: good, quarantined, or unlinked and not removed yet.
    #[must_use]
    pub fn links(&self) -> Vec<LinkView> {
        let stored = self
            .inventory
            .link_records()
            .map(|(id, link)| self.link_view(id, link));
        let mut links: Vec<LinkView> = stored.chain(self.links_being_removed()).collect();
        links.sort_by(|one, other| one.link.cmp(&other.link));
        links
    }

    /// The links whose record is gone and whose forwarding is not, as far as the latter tells of
    /// them.
    fn links_being_removed(&self) -> impl Iterator<Item = LinkView> {
        let gone = |id: &LinkId| !self.is_stored(&RecordKey::Link(id.clone()));
        let links = self.order.permits().filter(move |(id, _)| gone(id));
        links.filter_map(|(id, permits)| {
            let (mut classic, mut subnets) = (BTreeSet::new(), BTreeSet::new());
            let mut owner = None;
            for permit in permits {
                if let (
                    EntryKey::Permit {
                        vni,
                        subnet,
                        classic: prefix,
                        ..
                    },
                    EntryValue::Permit { mode, dscp, .. },
                ) = permit
                {
                    classic.insert(ClassicRef::Prefix(*prefix));
                    subnets.insert(*subnet);
                    owner = self
                        .inventory
                        .vpc_with_vni(*vni)
                        .map(|vpc| (vpc, *mode, *dscp));
                }
            }
            let (vpc, mode, dscp) = owner?;
            let link = Link {
                vpc: vpc.clone(),
                classic: classic.into_iter().collect(),
                group: self.facts.group.clone(),
                mode,
                dscp: dscp.and_then(|dscp| Dscp::try_from(u64::from(dscp)).ok()),
                disabled: false,
                standby: false,
                previous: None,
                confirm_by: None,
                unlink_when_confirmed: false,
                extra: serde_json::Map::new(),
            };
            let mut view = self.link_view(id, &link);
            view.subnets = subnets.into_iter().collect();
            view.announced.clear();
            Some(view)
        })
    }

    fn link_view(&self, id: &LinkId, link: &Link) -> LinkView {
        let mut view = listing::link(self.inventory, id, link);
        let left = |by| self.deadlines.left(id, by, seconds_now(), Instant::now());
        view.undone_in_s = link.confirm_by.map(|by| left(by).as_secs());
        let announced = view.subnets.iter().copied();
        view.announced = announced
            .filter(|subnet| self.order.is_announced(subnet))
            .collect();
        if let Some(why) = self.waits(id, link) {
            view.state = "standby".to_owned();
            view.set_behind(why);
            view.announced.clear();
            return view;
        }
        match self.inventory.faults(&RecordKey::Link(id.clone())) {
            [] if link.group != self.facts.group => {
                view.state = "elsewhere".to_owned();
                view.reason = Some(format!("served by gateways of group {}", link.group));
                view.announced.clear();
            }
            [] => match self.order.link(id) {
                // Until then what was there is being removed.
                None if link.disabled => {
                    view.state = "disabled".to_owned();
                    view.announced.clear();
                }
                phase => view.set_phase(phase),
            },
            [fault, ..] => {
                view.state = "quarantined".to_owned();
                view.reason = Some(format!("{}: {}", fault.field, fault.reason));
                view.announced.clear();
            }
        }
        view
    }

    /// Why a link stands by, as long as it is not disabled and nothing of it is left from when it did not.
    fn waits(&self, id: &LinkId, link: &Link) -> Option<&StandsBy> {
        let why = self.inventory.stands_by(id)?;
        (!link.disabled && self.order.link(id).is_none()).then_some(why)
    }

    /// The VPC that has a VNI.
    #[must_use]
    pub fn vpc_with_vni(&self, vni: Vni) -> Option<VpcId> {
        self.inventory.vpc_with_vni(vni).cloned()
    }

    /// How far a link has come; nothing when it is gone.
    #[must_use]
    pub fn link_phase(&self, link: &LinkId) -> Option<LinkPhase> {
        self.order.link(link)
    }

    /// Whether the store has this key.
    #[must_use]
    pub fn is_stored(&self, key: &RecordKey) -> bool {
        self.inventory.is_stored(key)
    }

    /// What a link that was found good would come to.
    #[must_use]
    pub fn rehearse(&self, id: &LinkId, link: &Link) -> LinkView {
        let mut view = self.link_view(id, link);
        view.state = "planned".to_owned();
        if view.behind.take().is_some() {
            view.reason = None;
        }
        view.announced.clear();
        view
    }

    /// Prefixes that the speaker announces.
    #[must_use]
    pub fn announced(&self) -> Vec<RouteView> {
        self.order
            .announced()
            .map(|prefix| RouteView {
                direction: "announced",
                prefix,
                next_hops: Default::default(),
                peers: Vec::new(),
                as_path: None,
                links: self.order.links_of(&prefix).cloned().collect(),
            })
            .collect()
    }

    /// At most so many packets for which it is worth asking what would happen to them.
    #[must_use]
    pub fn sample(&self, most: usize) -> Vec<sample::Question> {
        sample::packets(self.inventory, &self.facts.group, most)
    }

    /// What would happen to a packet.
    ///
    /// # Errors
    /// When it cannot be said which VPC the packet would come from.
    pub fn explain(
        &self,
        src: IpAddr,
        dst: IpAddr,
        vni: Option<Vni>,
    ) -> Result<Explanation, ApiError> {
        let model = Model {
            inventory: self.inventory,
            group: &self.facts.group,
            learned: self.learned,
            flows: &Flows::NONE,
            mtus: Mtus::default(),
        };
        explain::explain(&model, src, dst, vni)
            .map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))
    }

    /// The gateway as a whole; what others know (sessions, counters) is left empty.
    #[must_use]
    pub fn status(&self) -> Status {
        let links = self.inventory.links();
        let announced = self
            .inventory
            .links()
            .filter(|(id, _)| self.order.link(id) == Some(LinkPhase::Announced))
            .count();
        let state = match self.health.in_a_word() {
            Health::Degraded => "degraded: some entries were refused, see `ccn links` and the log",
            health => health.as_str(),
        };
        Status {
            gateway: self.facts.gateway.clone(),
            group: self.facts.group.clone(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: Instant::now().duration_since(self.facts.started).as_secs(),
            start: StartView {
                seconds: self.startup.took().map(|took| took.as_secs_f64()),
                phases: self.startup.phases().to_vec(),
            },
            generation: self.generation,
            store: self.store.clone(),
            acknowledged: self.order.acknowledged(),
            settled: self.order.is_settled(),
            drain: Default::default(),
            plane: PlaneView {
                name: "",
                state,
                last_error: self.health.last_error.clone(),
                last_resync_operations: self.health.last_resync_operations,
                operations: self.health.operations,
            },
            peers: PeersView::default(),
            links: LinksView {
                total: links.count(),
                announced,
                standby: self.inventory.standing_by(),
            },
            records: RecordsView {
                vpcs: self.inventory.vpcs().count(),
                vms: self.inventory.vm_count(),
                slbs: self.inventory.slb_count(),
                quarantined: self.inventory.quarantined(),
            },
            counters: Counters::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::{GroupName, Mode};
    use crate::store::Stored;

    #[test]
    fn a_link_names_the_subnets_of_the_families_it_joins() {
        let records = [
            (
                "classic/both",
                r#"{"prefixes":["10.80.1.0/24","fd80:1::/64"]}"#,
            ),
            ("classic/lab", r#"{"prefixes":["10.80.2.0/24"]}"#),
            (
                "vpcs/web",
                r#"{"vni":1001,"subnets":["10.1.0.0/24","fd00:1::/64"]}"#,
            ),
        ];
        let stored = records.map(|(key, value)| Stored {
            key: key.to_owned(),
            created: 1,
            modified: 1,
            value: value.into(),
        });
        let mut inventory = Inventory::default();
        inventory.load(stored.into());
        let now = Instant::now();
        let facts = Facts {
            gateway: "gw".to_owned(),
            group: GroupName::default(),
            started: now,
            audit: None,
        };
        let view = View {
            facts: &facts,
            inventory: &inventory,
            deadlines: &Deadlines::default(),
            order: &Order::new(Duration::ZERO, now),
            learned: &BTreeMap::new(),
            health: &PlaneHealth::default(),
            startup: &Startup::new(now),
            store: StoreView::default(),
            generation: 1,
        };
        for (classic, subnets) in [
            (&["both"][..], &["10.1.0.0/24", "fd00:1::/64"][..]),
            (&["lab"], &["10.1.0.0/24"]),
            (&["lab", "fd80:2::/64"], &["10.1.0.0/24", "fd00:1::/64"]),
            (&["fd80:2::/64"], &["fd00:1::/64"]),
        ] {
            let link = Link {
                vpc: "web".parse().unwrap(),
                classic: classic.iter().map(|item| item.parse().unwrap()).collect(),
                group: GroupName::default(),
                mode: Mode::Both,
                dscp: None,
                disabled: false,
                standby: false,
                previous: None,
                confirm_by: None,
                unlink_when_confirmed: false,
                extra: serde_json::Map::new(),
            };
            let rehearsed = view.rehearse(&"web".parse().unwrap(), &link);
            let named: Vec<String> = rehearsed.subnets.iter().map(Prefix::to_string).collect();
            assert_eq!(named, subnets, "{classic:?}");
            assert_eq!(rehearsed.state, "planned");
        }
    }
}
