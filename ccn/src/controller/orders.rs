//! Orders for links that are there, and what an order would come to.

use std::time::Duration;

use bgp::SessionState;

use super::handle::{LinkOrder, put};
use super::rehearsal::Rehearsal;
use super::{AgentHandle, Command, Goal};
use crate::api::error::{ApiError, ErrorCode};
use crate::api::{LimitChange, LinkPlan, LinkView, PlannedRoute};
use crate::record::{Link, LinkId, Record, RecordKey};
use crate::store::Change;

/// There is no link of this name.
pub(super) fn unknown(link: &LinkId) -> ApiError {
    let message = format!("there is no link {link}; see `ccn links`");
    ApiError::new(ErrorCode::NotFound, message)
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
        } = rehearsal;
        let link = self.ask(move |view| view.rehearse(&id, &link)).await?;
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
    /// until nothing of it forwards. One that is so already is left as it is.
    ///
    /// # Errors
    /// When there is no such link, its record is not one, it would be wrong beside the others, the plane
    /// cannot take it, or time runs out (the link becomes what was asked for all the same).
    pub async fn set_link_enabled(
        &self,
        id: LinkId,
        enabled: bool,
        wait: Duration,
    ) -> Result<LinkView, ApiError> {
        let amend = move |link| Link {
            disabled: !enabled,
            ..link
        };
        self.amend(&id, amend).await?;
        let goal = if enabled { Goal::Announced } else { Goal::Gone };
        self.wait_for(&id, goal, wait).await?;
        self.link_now(&id).await
    }

    /// Stores another value of a link's record, made from the one that is there when its turn comes.
    async fn amend(
        &self,
        id: &LinkId,
        amend: impl FnOnce(Link) -> Link + Send + 'static,
    ) -> Result<(), ApiError> {
        let id = id.clone();
        let make = move |view: &super::View<'_>| {
            let key = RecordKey::Link(id.clone());
            match view.record(&key) {
                Some(Record::Link(link)) => Ok(vec![put(&id, amend(link))]),
                _ if view.is_stored(&key) => {
                    let message = format!("{key} is no link that can be read: `ccn quarantine`");
                    Err(ApiError::new(ErrorCode::Refused, message))
                }
                _ => Err(unknown(&id)),
            }
        };
        let make = Box::new(make);
        self.send(|reply| Command::Amend { make, reply }).await??;
        Ok(())
    }

    /// A link as it is now.
    pub(super) async fn link_now(&self, id: &LinkId) -> Result<LinkView, ApiError> {
        let links = self.links().await?;
        let found = links.into_iter().find(|view| view.link == *id);
        found.ok_or_else(|| {
            let message = format!("the link {id} was removed meanwhile");
            ApiError::new(ErrorCode::NotFound, message)
        })
    }
}
