//! Orders for links that are there, and what an order would come to.

use std::sync::Arc;
use std::time::Duration;

use bgp::SessionState;

use super::confirmations::seconds_now;
use super::handle::LinkOrder;
use super::rehearsal::Rehearsal;
use super::{AgentHandle, Command, Goal, View};
use crate::api::error::{ApiError, ErrorCode};
use crate::api::{LimitChange, LinkPlan, LinkView, PlannedRoute};
use crate::link::undo::{self, StepError, put};
use crate::record::{Link, LinkId, Previous, Record, RecordKey};
use crate::store::Change;

/// There is no link of this name.
pub(super) fn unknown(link: &LinkId) -> ApiError {
    let message = format!("there is no link {link}; see `ccn links`");
    ApiError::new(ErrorCode::NotFound, message)
}

/// When a change is to be confirmed that is made now, in seconds since 1970.
pub(super) fn deadline(confirm: Duration) -> u64 {
    seconds_now().saturating_add(confirm.as_secs().max(1))
}

impl From<StepError> for ApiError {
    fn from(error: StepError) -> Self {
        ApiError::new(ErrorCode::Refused, error.to_string())
    }
}

/// The record of a link.
fn stored(view: &View<'_>, id: &LinkId) -> Result<Link, ApiError> {
    let key = RecordKey::Link(id.clone());
    match view.record(&key) {
        Some(Record::Link(link)) => Ok(link),
        _ if view.is_stored(&key) => {
            let message = format!("{key} is no link that can be read, see `ccn quarantine`");
            Err(ApiError::new(ErrorCode::Refused, message))
        }
        _ => Err(unknown(id)),
    }
}

impl AgentHandle {
    /// Checks an order to link and says what it would come to; changes nothing.
    ///
    /// # Errors
    /// As [`AgentHandle::link`].
    pub async fn check_link(&self, order: LinkOrder) -> Result<LinkPlan, ApiError> {
        let (id, link) = self.link_of(order).await?;
        let change = put(&id, link.clone());
        self.plan(id, link, change).await
    }

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
        if let Some(why) = stands_by {
            link.behind = Some(why.behind().clone());
            link.reason = Some(why.to_string());
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
        Ok(LinkPlan {
            link,
            announce: announce.into_iter().map(route).collect(),
            withdraw,
            displaced,
            permits: count,
            permits_removed: removals,
            kernel: forecast.objects,
            limits: limits
                .map(|(before, after)| LimitChange {
                    name: before.name.to_owned(),
                    before: before.used,
                    after: after.used,
                    max: before.max,
                })
                .collect(),
        })
    }

    /// Brings a link back that was disabled, and waits until it is announced; or disables it, and waits
    /// until nothing of it forwards. One that is so already is left as it is. With a time to confirm it in,
    /// it is undone when nobody does.
    ///
    /// # Errors
    /// When there is no such link, its record is not one, a change of it waits to be confirmed, it would be
    /// wrong beside the others, the plane cannot take it, or time runs out (it goes on all the same).
    pub async fn set_link_enabled(
        &self,
        id: LinkId,
        enabled: bool,
        confirm: Option<Duration>,
        wait: Duration,
    ) -> Result<LinkView, ApiError> {
        let confirm_by = confirm.map(deadline);
        let amend = move |id: &LinkId, link: &Link| {
            let after = Link {
                disabled: !enabled,
                ..link.clone()
            };
            Ok(put(id, undo::changed(id, link, after, confirm_by)?))
        };
        self.amend(&id, amend).await?;
        let goal = if enabled { Goal::Announced } else { Goal::Gone };
        self.wait_for(&id, goal, wait).await?;
        self.link_now(&id).await
    }

    /// Takes a link out of service, and waits until nothing of it forwards. It goes when that is confirmed,
    /// and comes back when it is not.
    ///
    /// # Errors
    /// As [`AgentHandle::set_link_enabled`].
    pub async fn unlink_for(
        &self,
        id: LinkId,
        confirm: Duration,
        wait: Duration,
    ) -> Result<LinkView, ApiError> {
        let confirm_by = Some(deadline(confirm));
        let amend = move |id: &LinkId, link: &Link| {
            let after = Link {
                disabled: true,
                unlink_when_confirmed: true,
                ..link.clone()
            };
            Ok(put(id, undo::changed(id, link, after, confirm_by)?))
        };
        self.amend(&id, amend).await?;
        self.wait_for(&id, Goal::Gone, wait).await?;
        self.link_now(&id).await
    }

    /// Lets the last change of a link stand; the link, unless it was to go.
    ///
    /// # Errors
    /// When there is no such link, or no change of it waits.
    pub async fn confirm_link(&self, id: LinkId) -> Result<Option<LinkView>, ApiError> {
        self.amend(&id, undo::confirmed).await?;
        self.link_if_there(&id).await
    }

    /// Takes the last change of a link back, and waits until that is done; the link, unless it was not there
    /// before. Once more brings the change back.
    ///
    /// # Errors
    /// When there is no such link, what it was before is not known, or as for [`AgentHandle::set_link_enabled`].
    pub async fn undo_link(
        &self,
        id: LinkId,
        wait: Duration,
    ) -> Result<Option<LinkView>, ApiError> {
        self.amend(&id, undo::undone).await?;
        let key = RecordKey::Link(id.clone());
        let goal = match self.ask(move |view| view.record(&key)).await? {
            Some(Record::Link(link)) if !link.disabled => Goal::Announced,
            _ => Goal::Gone,
        };
        self.wait_for(&id, goal, wait).await?;
        self.link_if_there(&id).await
    }

    /// What taking the last change of a link back would come to; changes nothing.
    ///
    /// # Errors
    /// As [`AgentHandle::undo_link`].
    pub async fn check_undo(&self, id: LinkId) -> Result<LinkPlan, ApiError> {
        let link = {
            let id = id.clone();
            self.ask(move |view| stored(view, &id)).await??
        };
        let change = undo::undone(&id, &link)?;
        let after = match &link.previous {
            Some(Previous::Link(previous)) => (**previous).clone(),
            _ => link,
        };
        self.plan(id, after, change).await
    }

    /// Commits a change that is made of a link's record as it is when its turn comes, and again where somebody
    /// else was faster.
    async fn amend(
        &self,
        id: &LinkId,
        amend: impl Fn(&LinkId, &Link) -> Result<Change, StepError> + Send + Sync + 'static,
    ) -> Result<(), ApiError> {
        let id = id.clone();
        let make = Arc::new(move |view: &View<'_>| -> Result<Vec<Change>, ApiError> {
            Ok(vec![amend(&id, &stored(view, &id)?)?])
        });
        self.send(|reply| Command::Amend {
            make,
            only_if: None,
            reply,
        })
        .await??;
        Ok(())
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
