//! Orders at an API server: checked beside the records, written into the store, and waited for until every live
//! gateway of the group has them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::audit::Audit;
use super::placement::{choose, live};
use super::status::ServerStatus;
use super::tally::Tally;
use crate::api::error::{ApiError, ErrorCode};
use crate::api::office::{Office, Terms};
use crate::api::{AtGateway, LinkPlan, LinkView, listing};
use crate::explain::{self, Explanation};
use crate::inventory::Inventory;
use crate::ledger::{How, Ledger, LedgerHandle, Made, Make, deadline};
use crate::link::orders::{self, Choose, LinkOrder};
use crate::link::undo::put;
use crate::plane::model::flow::Flows;
use crate::plane::model::{Model, Mtus};
use crate::record::{
    Gateway, GatewayName, GroupName, Link, LinkId, LinkReport, Record, RecordKey, Vni,
};
use crate::store::etcd::EtcdStore;

/// What an API server's routes hold. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    pub(super) ledger: LedgerHandle,
    pub(super) store: EtcdStore,
    pub(super) audit: Audit,
    pub(super) tally: Tally,
    pub(super) started: Instant,
}

impl Server {
    /// One that writes orders down in `audit`, and counts them in `tally`.
    #[must_use]
    pub(super) fn new(ledger: LedgerHandle, store: EtcdStore, audit: Audit, tally: Tally) -> Self {
        Server {
            ledger,
            store,
            audit,
            tally,
            started: Instant::now(),
        }
    }

    /// Carries an order out, with a line in the audit log before and after.
    async fn carry_out(
        &self,
        order: &'static str,
        what: Value,
        make: Make,
        terms: &Terms,
    ) -> Result<Made, ApiError> {
        let entry = self.audit.begin(&terms.caller, order, what)?;
        let how = How {
            audited: true,
            ..terms.how()
        };
        let made = self.ledger.amend(make, how).await;
        entry.end(&made);
        if made.as_ref().is_ok_and(|made| made.before) {
            self.tally.repeated(order);
        }
        made
    }

    fn choose() -> Choose {
        Arc::new(choose)
    }

    /// The record of a link, if there is one that can be read.
    pub(super) async fn record(&self, id: &LinkId) -> Result<Option<Link>, ApiError> {
        let key = RecordKey::Link(id.clone());
        let record = self
            .ledger
            .ask(move |ledger| ledger.inventory().record(&key));
        Ok(match record.await? {
            Some(Record::Link(link)) => Some(link),
            _ => None,
        })
    }

    /// A link as it is now.
    async fn link_if_there(&self, id: &LinkId) -> Result<Option<LinkView>, ApiError> {
        let links = self.links_where(Some(id)).await?;
        Ok(links.into_iter().next())
    }

    async fn link_now(&self, id: &LinkId) -> Result<LinkView, ApiError> {
        self.link_if_there(id).await?.ok_or_else(|| {
            let message = format!("the link {id} was removed meanwhile");
            ApiError::new(ErrorCode::NotFound, message)
        })
    }

    async fn links_where(&self, only: Option<&LinkId>) -> Result<Vec<LinkView>, ApiError> {
        let reports = self.store.reports(only).await?;
        let only = only.cloned();
        let list = move |ledger: &Ledger| {
            let inventory = ledger.inventory();
            let mut groups: BTreeMap<&GroupName, BTreeMap<GatewayName, Gateway>> = BTreeMap::new();
            let none = BTreeMap::new();
            let mut views = Vec::new();
            let (one, all) = match &only {
                Some(id) => (inventory.link_record(id).map(|link| (id, link)), None),
                None => (None, Some(inventory.link_records())),
            };
            for (id, link) in one.into_iter().chain(all.into_iter().flatten()) {
                let gateways = groups
                    .entry(&link.group)
                    .or_insert_with(|| live(inventory, Some(&link.group)));
                let said = reports.get(id).unwrap_or(&none);
                views.push(view(inventory, id, link, gateways, said));
            }
            views
        };
        self.ledger.ask(list).await
    }
}

/// A link, and what the gateways of its group say of it.
fn view(
    inventory: &Inventory,
    id: &LinkId,
    link: &Link,
    gateways: &BTreeMap<GatewayName, Gateway>,
    said: &BTreeMap<GatewayName, LinkReport>,
) -> LinkView {
    let mut view = listing::link(inventory, id, link);
    view.gateways = gateways
        .keys()
        .map(|gateway| AtGateway {
            gateway: gateway.clone(),
            report: said.get(gateway).cloned(),
        })
        .collect();
    if let Some(why) = inventory.stands_by(id).filter(|_| !link.disabled) {
        view.state = "standby".to_owned();
        view.set_behind(why);
        return view;
    }
    if let [fault, ..] = inventory.faults(&RecordKey::Link(id.clone())) {
        view.state = "quarantined".to_owned();
        view.reason = Some(format!("{}: {}", fault.field, fault.reason));
        return view;
    }
    // The gateway that is furthest behind tells how far the link is.
    let furthest_behind = view
        .gateways
        .iter()
        .min_by_key(|at| at.report.as_ref().map_or(1, |report| report.state.steps()));
    match furthest_behind {
        None => {
            view.state = "unserved".to_owned();
            view.reason = Some(format!("no gateway of group {} is alive", link.group));
        }
        Some(AtGateway {
            gateway,
            report: Some(report),
        }) => {
            view.state = report.state.to_string();
            let reason = report.reason.as_ref();
            view.reason = reason.map(|reason| format!("{gateway}: {reason}"));
        }
        Some(AtGateway {
            gateway,
            report: None,
        }) => {
            view.state = "pending".to_owned();
            view.reason = Some(format!("{gateway} says nothing of it yet"));
        }
    }
    if view.state == "announced" {
        view.announced = view.subnets.clone();
    }
    view
}

impl Office for Server {
    fn ledger(&self) -> &LedgerHandle {
        &self.ledger
    }

    async fn status(&self) -> Result<Value, ApiError> {
        let started = self.started;
        let is_away = |ledger: &Ledger| ledger.store_view().stale_s.is_some();
        let held = match self.ledger.ask(is_away).await? {
            true => None,
            false => self.store.held(None).await.ok(),
        };
        let status = move |ledger: &Ledger| ServerStatus::of(ledger, started.elapsed(), held);
        let status = self.ledger.ask(status).await?;
        serde_json::to_value(status)
            .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))
    }

    async fn links(&self) -> Result<Vec<LinkView>, ApiError> {
        self.links_where(None).await
    }

    async fn one_link(&self, link: LinkId) -> Result<Option<LinkView>, ApiError> {
        self.link_if_there(&link).await
    }

    async fn check_link(&self, order: LinkOrder) -> Result<LinkPlan, ApiError> {
        let link_of = move |ledger: &Ledger| {
            orders::link_of(ledger.inventory(), &order, &Server::choose(), None)
        };
        let (id, link) = self.ledger.ask(link_of).await??;
        let change = put(&id, link.clone());
        self.plan(id, link, change).await
    }

    async fn link(&self, order: LinkOrder, terms: Terms) -> Result<LinkView, ApiError> {
        let doing = async {
            let what = json!(order);
            let make = orders::link(order, Server::choose(), terms.confirm.map(deadline));
            let made = self.carry_out("link", what, make, &terms).await?;
            let link = orders::link_in(&made)?;
            self.wait_until_announced(&link, made.generation, terms.wait)
                .await?;
            self.link_now(&link).await
        };
        self.tally.order("link", doing).await
    }

    async fn unlink(&self, link: LinkId, terms: Terms) -> Result<Option<LinkView>, ApiError> {
        let doing = async {
            let before = self.record(&link).await?;
            let make = match terms.confirm {
                Some(confirm) => orders::unlink_for(link.clone(), deadline(confirm)),
                None => orders::unlink(link.clone()),
            };
            let made = self
                .carry_out("unlink", json!({"link": link}), make, &terms)
                .await?;
            // Of an order that lost its answer the link may be gone from the records, and not yet from the gateways.
            let group = before.map(|before| before.group);
            self.wait_until_gone(&link, group, made.generation, terms.wait)
                .await?;
            match terms.confirm {
                Some(_) => self.link_now(&link).await.map(Some),
                None => Ok(None),
            }
        };
        self.tally.order("unlink", doing).await
    }

    async fn set_enabled(
        &self,
        id: LinkId,
        enabled: bool,
        terms: Terms,
    ) -> Result<LinkView, ApiError> {
        let make = orders::set_enabled(id.clone(), enabled, terms.confirm.map(deadline));
        let order = if enabled { "enable" } else { "disable" };
        let doing = async {
            let made = self
                .carry_out(order, json!({"link": id}), make, &terms)
                .await?;
            self.wait_until_as_recorded(&id, None, made.generation, terms.wait)
                .await?;
            self.link_now(&id).await
        };
        self.tally.order(order, doing).await
    }

    async fn confirm(&self, id: LinkId, terms: Terms) -> Result<Option<LinkView>, ApiError> {
        let doing = async {
            let make = orders::confirm(id.clone());
            self.carry_out("confirm", json!({"link": id}), make, &terms)
                .await?;
            self.link_if_there(&id).await
        };
        self.tally.order("confirm", doing).await
    }

    async fn undo(&self, id: LinkId, terms: Terms) -> Result<Option<LinkView>, ApiError> {
        let doing = async {
            let before = self.record(&id).await?;
            let make = orders::undo(id.clone());
            let made = self
                .carry_out("undo", json!({"link": id}), make, &terms)
                .await?;
            self.wait_until_as_recorded(&id, before, made.generation, terms.wait)
                .await?;
            self.link_if_there(&id).await
        };
        self.tally.order("undo", doing).await
    }

    async fn check_undo(&self, id: LinkId) -> Result<LinkPlan, ApiError> {
        let undone = {
            let id = id.clone();
            move |ledger: &Ledger| orders::undone(ledger.inventory(), &id)
        };
        let (after, change) = self.ledger.ask(undone).await??;
        self.plan(id, after, change).await
    }

    async fn change(&self, make: Make, terms: Terms) -> Result<Made, ApiError> {
        let doing = async {
            let what = match &terms.only_if {
                Some(condition) => json!({"key": condition.key}),
                None => json!({}),
            };
            self.carry_out("change", what, make, &terms).await
        };
        self.tally.order("change", doing).await
    }

    async fn follow_store(&self, terms: Terms) -> Result<(), ApiError> {
        let doing = async {
            let entry = self.audit.begin(&terms.caller, "follow-store", json!({}))?;
            let followed = self.ledger.follow_store().await;
            let outcome = followed.clone().map(|()| Made {
                generation: 0,
                keys: Vec::new(),
                before: false,
                diff: Vec::new(),
            });
            entry.end(&outcome);
            followed
        };
        self.tally.order("follow-store", doing).await
    }

    async fn explain(
        &self,
        src: IpAddr,
        dst: IpAddr,
        vni: Option<Vni>,
    ) -> Result<Explanation, ApiError> {
        let explained = move |ledger: &Ledger| {
            let inventory = ledger.inventory();
            // Of the group that the VPC in question is linked at.
            let vpc = vni.and_then(|vni| inventory.vpc_with_vni(vni));
            let vpc = vpc.or_else(|| Some(inventory.linked_vpc(dst)?.1));
            let group = vpc.and_then(|vpc| inventory.links_of(vpc).next());
            let group = group
                .map(|(_, link)| link.group.clone())
                .unwrap_or_default();
            let model = Model {
                inventory,
                group: &group,
                learned: &BTreeMap::new(),
                flows: &Flows::NONE,
                mtus: Mtus::default(),
            };
            explain::explain(&model, src, dst, vni)
        };
        let mut explained = self
            .ledger
            .ask(explained)
            .await?
            .map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))?;
        explained.kernel = crate::plane::witness::Testimony::none(
            "no gateway was asked: --gateway asks one".to_owned(),
        );
        Ok(explained)
    }
}
