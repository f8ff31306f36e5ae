//! Orders at an API server: checked beside the records, written into the store, and waited for until every live
//! gateway of the group has them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::audit::Audit;
use super::placement::{choose, live};
use super::status::ServerStatus;
use super::tally::Tally;
use super::verdict::{Goal, Verdict, judge};
use crate::api::error::{ApiError, ErrorCode, Fault};
use crate::api::office::{Office, Terms};
use crate::api::{
    AtGateway, LinkPlan, LinkView, Outcome, PlannedAt, PlannedRoute, Question, listing,
};
use crate::explain::{self, Explanation};
use crate::inventory::Inventory;
use crate::ledger::{How, Ledger, LedgerHandle, Made, Make, deadline};
use crate::link::orders::{self, Choose, LinkOrder};
use crate::link::undo::put;
use crate::plan::{Planner, Rehearsal};
use crate::plane::model::flow::Flows;
use crate::plane::model::{Model, Mtus};
use crate::record::{
    Gateway, GatewayName, GroupName, Link, LinkId, LinkReport, Record, RecordKey, Vni,
};
use crate::store::etcd::EtcdStore;
use crate::store::{Change, Generation, Store};

/// How long gateways have to say what an order would come to.
const ANSWERS: Duration = Duration::from_secs(2);

/// What an API server's routes hold. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    pub(super) ledger: LedgerHandle,
    store: EtcdStore,
    pub(super) audit: Audit,
    pub(super) tally: Tally,
    pub(super) started: Instant,
}

/// What is waited for.
struct Awaited {
    link: LinkId,
    /// Whose gateways count; all there are, where it is not known who served it.
    group: Option<GroupName>,
    goal: Goal,
    /// Only what is said of the link as it is at this generation counts.
    since: Generation,
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
    async fn record(&self, id: &LinkId) -> Result<Option<Link>, ApiError> {
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

    /// Waits until every live gateway of the group has done it.
    async fn wait_for(&self, awaited: Awaited, wait: Duration) -> Result<(), ApiError> {
        let Awaited {
            link,
            group,
            goal,
            since,
        } = awaited;
        let (tell, mut told) = watch::channel(None);
        let following = tokio::spawn({
            let (store, link) = (self.store.clone(), link.clone());
            async move { store.follow_link(link, tell).await }
        });
        let mut changed = self.ledger.changed();
        let mut last = Verdict::Waits(Vec::new());
        let waiting = async {
            loop {
                let gateways = {
                    let group = group.clone();
                    let live = move |ledger: &Ledger| live(ledger.inventory(), group.as_ref());
                    self.ledger.ask(live).await?
                };
                let reports: Option<BTreeMap<GatewayName, LinkReport>> =
                    told.borrow_and_update().clone();
                if let Some(reports) = reports {
                    last = judge(goal, since, &gateways, &reports);
                    if !matches!(last, Verdict::Waits(_)) {
                        return Ok(());
                    }
                }
                tokio::select! {
                    changed = told.changed() => if changed.is_err() {
                        return Err(ApiError::stopping("the API server"));
                    },
                    changed = changed.changed() => if changed.is_err() {
                        return Err(ApiError::stopping("the API server"));
                    },
                }
            }
        };
        let waited = tokio::time::timeout(wait, waiting).await;
        following.abort();
        match (waited, last) {
            (Ok(Err(error)), _) => Err(error),
            (Ok(Ok(())), Verdict::Failed(failed)) => Err(not_done(
                ErrorCode::PlaneRefused,
                format!("the link {link} is stored, and cannot be served"),
                &link,
                &failed,
            )),
            (Ok(Ok(())), _) => Ok(()),
            (Err(_), Verdict::Waits(who)) => {
                let group = group.map_or_else(String::new, |group| format!(" of group {group}"));
                let millis = wait.as_millis();
                let what = format!("the link {link} is stored but not done after {millis} ms");
                Err(match who.is_empty() {
                    true => ApiError::new(
                        ErrorCode::Timeout,
                        format!(
                            "{what}: no gateway{group} is alive; it is served as soon as one is"
                        ),
                    ),
                    false => {
                        let what = format!("{what}, and goes on");
                        not_done(ErrorCode::Timeout, what, &link, &who)
                    }
                })
            }
            (Err(_), _) => Ok(()),
        }
    }

    /// What a change of one link would come to.
    async fn plan(&self, id: LinkId, link: Link, change: Change) -> Result<LinkPlan, ApiError> {
        let question = Question::Plan {
            link: id.clone(),
            record: json!(link),
        };
        let rehearse = move |ledger: &mut Ledger| {
            let planner = Planner::new(link.group.clone());
            let generation = ledger.generation();
            let wanted = planner.announcements(ledger.inventory());
            let changes = [change];
            let rehearsal = ledger.rehearse(&changes, |inventory, effects| {
                let delta = planner.update(inventory, effects, generation);
                Rehearsal::of(&changes, inventory, effects, delta, |prefix| {
                    wanted.contains_key(prefix)
                })
            })?;
            let mut view = listing::link(ledger.inventory(), &id, &link);
            view.state = "planned".to_owned();
            let gateways = live(ledger.inventory(), Some(&link.group));
            view.gateways = gateways
                .into_keys()
                .map(|gateway| AtGateway {
                    gateway,
                    report: None,
                })
                .collect();
            Ok::<_, ApiError>((view, rehearsal))
        };
        let (mut link, rehearsal) = self.ledger.ask_mut(rehearse).await??;
        if let Some(why) = &rehearsal.stands_by {
            link.set_behind(why);
        }
        let route = |(prefix, announced): (bgp::Prefix, bool)| PlannedRoute {
            family: prefix.family(),
            prefix,
            announced,
            peers: Vec::new(),
        };
        let outcome = Outcome {
            announce: rehearsal.announce.into_iter().map(route).collect(),
            withdraw: rehearsal.withdraw,
            permits: rehearsal.permits.len(),
            permits_removed: rehearsal.removals,
            ..Outcome::default()
        };
        let gateways = link.gateways.iter().map(|at| at.gateway.clone()).collect();
        Ok(LinkPlan {
            at: Some(self.planned_at(&question, gateways).await?),
            link,
            outcome,
            displaced: rehearsal.displaced,
        })
    }

    /// What these gateways answer, in the time they have.
    pub(super) async fn ask(
        &self,
        question: &Question,
        gateways: &BTreeSet<GatewayName>,
        wait: Duration,
    ) -> Result<BTreeMap<GatewayName, Vec<u8>>, ApiError> {
        let question = serde_json::to_vec(question)
            .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
        Ok(self.store.ask_gateways(question, gateways, wait).await?)
    }

    /// What it would come to at each of these gateways, by their own account.
    async fn planned_at(
        &self,
        question: &Question,
        gateways: BTreeSet<GatewayName>,
    ) -> Result<Vec<PlannedAt>, ApiError> {
        if gateways.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.ask(question, &gateways, ANSWERS).await?;
        let read = |gateway: GatewayName| {
            let answer = answers.get(&gateway).map(Vec::as_slice);
            PlannedAt::read(gateway, answer, ANSWERS.as_millis())
        };
        Ok(gateways.into_iter().map(read).collect())
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

/// That gateways have not done it, each with what it says.
fn not_done(
    code: ErrorCode,
    what: String,
    link: &LinkId,
    who: &[(GatewayName, String)],
) -> ApiError {
    let says: Vec<String> = who
        .iter()
        .map(|(name, says)| format!("{name}: {says}"))
        .collect();
    let mut error = ApiError::new(code, format!("{what}: {}", says.join("; ")));
    error.faults = who
        .iter()
        .map(|(name, says)| Fault {
            key: format!("gateways/{name}"),
            field: format!("links/{link}"),
            code: "not-done".to_owned(),
            reason: says.clone(),
        })
        .collect();
    error
}

impl Office for Server {
    fn ledger(&self) -> &LedgerHandle {
        &self.ledger
    }

    async fn status(&self) -> Result<Value, ApiError> {
        let started = self.started;
        let status = move |ledger: &Ledger| ServerStatus::of(ledger, started.elapsed());
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
            "no gateway was asked: ask one with its admin socket".to_owned(),
        );
        Ok(explained)
    }
}

impl Server {
    async fn wait_until_announced(
        &self,
        link: &LinkId,
        since: Generation,
        wait: Duration,
    ) -> Result<(), ApiError> {
        let Some(record) = self.record(link).await? else {
            return Ok(());
        };
        let awaited = Awaited {
            link: link.clone(),
            group: Some(record.group),
            goal: Goal::Announced,
            since: self.last_change(link, since).await?,
        };
        self.wait_for(awaited, wait).await
    }

    async fn wait_until_gone(
        &self,
        link: &LinkId,
        group: Option<GroupName>,
        since: Generation,
        wait: Duration,
    ) -> Result<(), ApiError> {
        let awaited = Awaited {
            link: link.clone(),
            group,
            goal: Goal::Gone,
            since: self.last_change(link, since).await?,
        };
        self.wait_for(awaited, wait).await
    }

    /// Waits until a link is as its record says now; of one that is gone, `before` tells who served it.
    async fn wait_until_as_recorded(
        &self,
        link: &LinkId,
        before: Option<Link>,
        since: Generation,
        wait: Duration,
    ) -> Result<(), ApiError> {
        match self.record(link).await? {
            Some(record) if record.disabled => {
                self.wait_until_gone(link, Some(record.group), since, wait)
                    .await
            }
            Some(_) => self.wait_until_announced(link, since, wait).await,
            None => {
                let group = before.map(|before| before.group);
                self.wait_until_gone(link, group, since, wait).await
            }
        }
    }

    /// The generation that changed a link's record last: an order that found nothing to change waits for that one.
    /// Of a link that is gone it is that of the order.
    async fn last_change(
        &self,
        link: &LinkId,
        ordered: Generation,
    ) -> Result<Generation, ApiError> {
        let key = RecordKey::Link(link.clone()).to_string();
        let stored = self.store.get(key).await?;
        Ok(stored.map_or(ordered, |stored| stored.modified))
    }
}
