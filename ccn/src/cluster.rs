//! What a gateway of a cluster does beside its own work: it says that it is there and how it is doing, and answers
//! what API servers ask.

use std::time::Duration;

use bgp::SessionState;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};
use tracing::{debug, info};

use crate::api::error::ApiError;
use crate::api::{LimitView, Question, Said, inquiry};
use crate::controller::{AgentHandle, Report, Told};
use crate::drain::{self, State};
use crate::record::{Fullest, Gateway, GatewayName, PeersUp};
use crate::store::etcd::{EtcdStore, Inquiry};

/// How often sessions and limits are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How many questions are answered at once, and how many more may wait.
const QUESTIONS: usize = 16;
/// How long a route may take to answer: longer nobody waits.
const LONGEST: Duration = Duration::from_secs(20);

/// What is told of a gateway, and by whom.
pub(crate) struct Tidings {
    pub(crate) reports: watch::Receiver<Report>,
    pub(crate) drain: watch::Receiver<drain::Report>,
    pub(crate) agent: AgentHandle,
}

/// Keeps the gateway registered with what is told of it; for ever.
pub(crate) async fn register(
    store: EtcdStore,
    name: GatewayName,
    own: Gateway,
    tidings: Tidings,
    of_links: mpsc::UnboundedReceiver<Told>,
) {
    let Tidings {
        mut reports,
        mut drain,
        agent,
    } = tidings;
    let (tell, told) = watch::channel(own.clone());
    let telling = async {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut fullest, mut peers) = (None, None);
        loop {
            let Report { generation, health } = *reports.borrow_and_update();
            let state = drain.borrow_and_update().state;
            tell.send_if_modified(|told| {
                let now = Gateway {
                    generation,
                    health,
                    draining: matches!(state, State::Draining | State::Drained),
                    fullest: fullest.clone(),
                    peers,
                    ..own.clone()
                };
                let is_new = *told != now;
                *told = now;
                is_new
            });
            let changed = tokio::select! {
                changed = reports.changed() => changed,
                changed = drain.changed() => changed,
                _ = look.tick() => {
                    match seen(&agent).await {
                        Ok((limit, sessions)) => (fullest, peers) = (limit, Some(sessions)),
                        Err(error) => debug!(error = error.message, "limits are not known"),
                    }
                    Ok(())
                }
            };
            if changed.is_err() {
                return;
            }
        }
    };
    tokio::join!(telling, store.keep_registered(name, told, of_links));
}

/// The limit that is nearest, and the sessions.
async fn seen(agent: &AgentHandle) -> Result<(Option<Fullest>, PeersUp), ApiError> {
    let fullest = fullest(agent.limits().await?);
    let peers = agent.peers().await?;
    let up = peers
        .iter()
        .filter(|peer| peer.state == SessionState::Established);
    let sessions = PeersUp {
        up: up.count(),
        all: peers.len(),
    };
    Ok((fullest, sessions))
}

/// The limit of which the largest part is used.
fn fullest(limits: Vec<LimitView>) -> Option<Fullest> {
    let limits = limits.into_iter().filter(|limit| limit.max > 0);
    let limits = limits.map(
        |LimitView {
             name, used, max, ..
         }| Fullest { name, used, max },
    );
    limits.max_by(|one, other| one.share().total_cmp(&other.share()))
}

/// Answers what API servers ask of a gateway, several questions at a time; for ever.
pub(crate) async fn answer(store: EtcdStore, name: GatewayName, agent: AgentHandle) {
    let (heard, mut questions) = mpsc::channel::<Inquiry>(QUESTIONS);
    let answering = async {
        let mut under_way = JoinSet::new();
        while let Some(inquiry) = questions.recv().await {
            while under_way.try_join_next().is_some() {}
            if under_way.len() >= QUESTIONS {
                under_way.join_next().await;
            }
            under_way.spawn(answer_one(
                store.clone(),
                name.clone(),
                agent.clone(),
                inquiry,
            ));
        }
    };
    tokio::join!(store.hear_questions(heard), answering);
}

async fn answer_one(store: EtcdStore, name: GatewayName, agent: AgentHandle, inquiry: Inquiry) {
    let said = match serde_json::from_slice::<Question>(&inquiry.question) {
        Ok(Question::Plan { link, record }) => match agent.outcome(link, record).await {
            Some(Ok(outcome)) => Said::Outcome(outcome),
            Some(Err(error)) => Said::Unknown(error.message),
            None => return,
        },
        Ok(Question::Get { gateway, .. }) if gateway != name => return,
        Ok(Question::Get { path, .. }) => {
            let said = timeout(LONGEST, inquiry::get(agent, &path)).await;
            said.unwrap_or_else(|_| Said::Unknown(format!("{path} takes too long")))
        }
        Ok(Question::Order { gateway, .. }) if gateway != name => return,
        Ok(Question::Order { path, body, .. }) => {
            info!(path, "ordered by way of an API server");
            inquiry::order(agent, &path, &body).await
        }
        Err(error) => Said::Unknown(format!("a question that is not understood: {error}")),
    };
    let Ok(answer) = serde_json::to_vec(&said) else {
        return;
    };
    if let Err(error) = store.answer(&inquiry, &name, answer).await {
        debug!(%error, "a question is not answered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_limit_is_that_with_the_largest_share_in_use() {
        let limit = |(name, used, max): (&str, u64, u64)| LimitView {
            name: name.to_owned(),
            used,
            max,
            refused: None,
        };
        for (limits, expected) in [
            (&[][..], None),
            (&[("none", 0, 0)], None),
            (&[("links", 3, 4096), ("vpcs", 9, 10)], Some("vpcs")),
            (&[("links", 4096, 4096), ("vpcs", 9, 10)], Some("links")),
            (&[("links", 0, 10)], Some("links")),
        ] {
            let found = fullest(limits.iter().copied().map(limit).collect());
            assert_eq!(
                found.map(|fullest| fullest.name).as_deref(),
                expected,
                "{limits:?}"
            );
        }
    }
}
