//! Collects the facts: from the agent, the plane and the host, each by the way that everybody has.

use std::time::Duration;

use tokio::task::spawn_blocking;

use super::sample::Question;
use super::{Asked, Facts, Surroundings, host};
use crate::api::error::{ApiError, ErrorCode};
use crate::api::listing;
use crate::controller::AgentHandle;

/// After how long packets are asked about once more that model and kernel differed on: a change may have
/// been on its way.
const AGAIN: Duration = Duration::from_millis(500);

/// Looks at everything, and asks about so many packets.
///
/// # Errors
/// When the agent is stopping.
pub async fn gather(
    agent: &AgentHandle,
    surroundings: &Surroundings,
    packets: usize,
) -> Result<Facts, ApiError> {
    let internal = |error: String| ApiError::new(ErrorCode::Internal, error);
    let config = surroundings.config.clone();
    let host = spawn_blocking(move || host::look(&config)).await;
    let host = host.map_err(|error| internal(error.to_string()))?;
    let questions = agent.ask(move |view| view.sample(packets)).await?;
    let mut asked = ask(agent, &questions).await?;
    if !asked.1.is_empty() {
        tokio::time::sleep(AGAIN).await;
        let (again, differ) = ask(agent, &asked.1).await?;
        asked.0.agreed += again.agreed;
        asked.0.unasked += again.unasked;
        asked.0.differences = again.differences;
        asked.1 = differ;
    }
    Ok(Facts {
        config: surroundings.config.clone(),
        choice: surroundings.choice.clone(),
        status: agent.status().await?,
        parts: agent
            .plane()
            .parts()
            .await
            .map_err(|error| error.to_string()),
        host: host.map_err(|error| error.to_string()),
        peers: agent.peers().await?,
        links: agent.links().await?,
        quarantine: agent
            .ask(|view| listing::quarantine(view.inventory()))
            .await?,
        limits: agent.limits().await?,
        asked: asked.0,
    })
}

/// Asks model and kernel about packets; with them those on which the two differ.
async fn ask(
    agent: &AgentHandle,
    questions: &[Question],
) -> Result<(Asked, Vec<Question>), ApiError> {
    let (mut asked, mut differ) = (Asked::default(), Vec::new());
    for &(src, dst, vni) in questions {
        // The records may have changed since the packet was chosen.
        let Ok(explained) = agent.explain(src, dst, vni).await else {
            continue;
        };
        match explained.kernel.agrees {
            Some(true) => asked.agreed += 1,
            None => asked.unasked += 1,
            Some(false) => {
                differ.push((src, dst, vni));
                asked.differences.push(format!(
                    "{src} > {dst}{}: {}; the kernel {}",
                    vni.map(|vni| format!(" (VNI {vni})")).unwrap_or_default(),
                    explained.summary,
                    explained.kernel.detail,
                ));
            }
        }
    }
    Ok((asked, differ))
}
