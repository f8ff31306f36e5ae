//! Orders for links that this gateway waits for, and what an order would come to.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bgp::SessionState;
use serde_json::Value;

use super::{AgentHandle, Command, Goal, View};
use crate::api::error::{ApiError, ErrorCode};
use crate::api::office::{Office, Terms};
use crate::api::{LimitChange, LinkPlan, LinkView, Outcome, PlannedRoute};
use crate::explain::Explanation;
use crate::ledger::{LedgerHandle, Made, Make, deadline};
use crate::link::orders::{self, Choose, LinkOrder};
use crate::link::undo::put;
use crate::plan::Rehearsal;
use crate::record::{Link, LinkId, Record, RecordKey, Vni};
use crate::store::Change;

impl AgentHandle {
    /// What a change of one link would come to.
    async fn plan(&self, id: LinkId, link: Link, change: Change) -> Result<LinkPlan, ApiError> {
        let changes = vec![change];
        let rehearsal = self
            .send(|reply| Command::Rehearse { changes, reply })
            .await??;
        let Rehearsal {
            announce,
            withdraw,
            permits,
            removals,
            stands_by,
            displaced,
        } = rehearsal;
        let mut link = self.ask(move |view| view.rehearse(&id, &link)).await?;
        if let Some(why) = &stands_by {
            link.set_behind(why);
        }
        let peers = self.speaker().peers().await;
        let route = |(prefix, announced): (bgp::Prefix, bool)| {
            let told = peers.iter().filter(|peer| {
                peer.state == SessionState::Established && peer.families.contains(&prefix.family())
            });
            PlannedRoute {
                family: prefix.family(),
                prefix,
                announced,
                peers: told.map(|peer| peer.name.clone()).collect(),
            }
        };
        let count = permits.len();
        let forecast = self.plane().forecast(permits).await;
        let (before, forecast) =
            forecast.map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
        let limits = before.into_iter().zip(forecast.limits);
        let outcome = Outcome {
            announce: announce.into_iter().map(route).collect(),
            withdraw,
            permits: count,
            permits_removed: removals,
            kernel: named(forecast.objects),
            limits: limits
                .map(|(before, after)| LimitChange {
                    name: before.name.to_owned(),
                    before: before.used,
                    after: after.used,
                    max: before.max,
                })
                .collect(),
        };
        Ok(LinkPlan {
            link,
            outcome,
            displaced,
            at: None,
        })
    }

    /// What it would come to here if a link had this record; nothing where it is no business of this gateway's group.
    pub(crate) async fn outcome(
        &self,
        id: LinkId,
        record: Value,
    ) -> Option<Result<Outcome, ApiError>> {
        let record = Record::parse(&RecordKey::Link(id.clone()), record.to_string().as_bytes());
        let link = match record {
            Ok(Record::Link(link)) => link,
            Ok(_) => return None,
            Err(error) => {
                return Some(Err(ApiError::new(ErrorCode::BadRequest, error.to_string())));
            }
        };
        if link.group != *self.group() {
            return None;
        }
        let change = put(&id, link.clone());
        Some(self.plan(id, link, change).await.map(|plan| plan.outcome))
    }

    async fn amend(&self, make: Make, terms: &Terms) -> Result<Made, ApiError> {
        self.ledger().amend(make, terms.how()).await
    }

    /// A link that names no group is served by this gateway's.
    fn own_group(&self) -> Choose {
        let own = self.group().clone();
        Arc::new(move |_, _| Ok(own.clone()))
    }

    /// A link as it is now.
    pub(super) async fn link_now(&self, id: &LinkId) -> Result<LinkView, ApiError> {
        self.link_if_there(id).await?.ok_or_else(|| {
            let message = format!("the link {id} was removed meanwhile");
            ApiError::new(ErrorCode::NotFound, message)
        })
    }

    async fn link_if_there(&self, id: &LinkId) -> Result<Option<LinkView>, ApiError> {
        let links = self.links().await?;
        Ok(links.into_iter().find(|view| view.link == *id))
    }
}

fn named(kinds: BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    let named = kinds
        .into_iter()
        .map(|(kind, count)| (kind.to_owned(), count));
    named.collect()
}

impl Office for AgentHandle {
    fn ledger(&self) -> &LedgerHandle {
        self.ledger()
    }

    async fn status(&self) -> Result<Value, ApiError> {
        let status = AgentHandle::status(self).await?;
        serde_json::to_value(status)
            .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))
    }

    async fn links(&self) -> Result<Vec<LinkView>, ApiError> {
        AgentHandle::links(self).await
    }

    async fn one_link(&self, link: LinkId) -> Result<Option<LinkView>, ApiError> {
        self.link_if_there(&link).await
    }

    async fn check_link(&self, order: LinkOrder) -> Result<LinkPlan, ApiError> {
        let choose = self.own_group();
        let link_of = move |view: &View<'_>| orders::link_of(view.inventory, &order, &choose, None);
        let (id, link) = self.ask(link_of).await??;
        let change = put(&id, link.clone());
        self.plan(id, link, change).await
    }

    async fn link(&self, order: LinkOrder, terms: Terms) -> Result<LinkView, ApiError> {
        let make = orders::link(order, self.own_group(), terms.confirm.map(deadline));
        let id = orders::link_in(&self.amend(make, &terms).await?)?;
        self.wait_for(&id, Goal::Announced, terms.wait).await?;
        self.link_now(&id).await
    }

    async fn unlink(&self, link: LinkId, terms: Terms) -> Result<Option<LinkView>, ApiError> {
        let make = match terms.confirm {
            Some(confirm) => orders::unlink_for(link.clone(), deadline(confirm)),
            None => orders::unlink(link.clone()),
        };
        self.amend(make, &terms).await?;
        self.wait_for(&link, Goal::Gone, terms.wait).await?;
        match terms.confirm {
            Some(_) => self.link_now(&link).await.map(Some),
            None => Ok(None),
        }
    }

    async fn set_enabled(
        &self,
        id: LinkId,
        enabled: bool,
        terms: Terms,
    ) -> Result<LinkView, ApiError> {
        let make = orders::set_enabled(id.clone(), enabled, terms.confirm.map(deadline));
        self.amend(make, &terms).await?;
        let goal = if enabled { Goal::Announced } else { Goal::Gone };
        self.wait_for(&id, goal, terms.wait).await?;
        self.link_now(&id).await
    }

    async fn confirm(&self, id: LinkId, terms: Terms) -> Result<Option<LinkView>, ApiError> {
        self.amend(orders::confirm(id.clone()), &terms).await?;
        self.link_if_there(&id).await
    }

    async fn undo(&self, id: LinkId, terms: Terms) -> Result<Option<LinkView>, ApiError> {
        self.amend(orders::undo(id.clone()), &terms).await?;
        let key = RecordKey::Link(id.clone());
        let goal = match self.ask(move |view| view.inventory.record(&key)).await? {
            Some(Record::Link(link)) if !link.disabled => Goal::Announced,
            _ => Goal::Gone,
        };
        self.wait_for(&id, goal, terms.wait).await?;
        self.link_if_there(&id).await
    }

    async fn check_undo(&self, id: LinkId) -> Result<LinkPlan, ApiError> {
        let undone = {
            let id = id.clone();
            move |view: &View<'_>| orders::undone(view.inventory, &id)
        };
        let (after, change) = self.ask(undone).await??;
        self.plan(id, after, change).await
    }

    async fn change(&self, make: Make, terms: Terms) -> Result<Made, ApiError> {
        self.amend(make, &terms).await
    }

    async fn follow_store(&self, _terms: Terms) -> Result<(), ApiError> {
        self.ledger().follow_store().await
    }

    async fn explain(
        &self,
        src: IpAddr,
        dst: IpAddr,
        vni: Option<Vni>,
    ) -> Result<Explanation, ApiError> {
        AgentHandle::explain(self, src, dst, vni).await
    }
}
