//! What an order for a link would come to: by the records, and by each live gateway's own account.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;

use super::office::Server;
use super::placement::live;
use crate::api::error::{ApiError, ErrorCode};
use crate::api::{AtGateway, LinkPlan, Outcome, PlannedAt, PlannedRoute, Question, listing};
use crate::ledger::Ledger;
use crate::plan::{Planner, Rehearsal};
use crate::record::{GatewayName, Link, LinkId};
use crate::store::Change;

/// How long gateways have to say what an order would come to.
const ANSWERS: Duration = Duration::from_secs(2);

impl Server {
    /// What a change of one link would come to.
    pub(super) async fn plan(
        &self,
        id: LinkId,
        link: Link,
        change: Change,
    ) -> Result<LinkPlan, ApiError> {
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
