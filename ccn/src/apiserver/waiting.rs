//! Waiting until every live gateway has done an order, and saying which has not, and why.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;

use super::office::Server;
use super::placement::{gone, live};
use super::verdict::{Goal, Verdict, judge};
use crate::api::error::{ApiError, ErrorCode, Fault};
use crate::ledger::Ledger;
use crate::record::{GatewayName, GroupName, Link, LinkId, LinkReport, RecordKey};
use crate::store::{Generation, Store};

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
        // A gateway that holds it now may be gone before it has let go of it.
        let held = match goal {
            Goal::Gone => self.store.held(Some(&link)).await?.remove(&link),
            Goal::Announced => None,
        };
        let held = held.unwrap_or_default();
        let mut changed = self.ledger.changed();
        let mut last = Verdict::Waits(Vec::new());
        let waiting = async {
            loop {
                let (gateways, gone) = {
                    let (group, held) = (group.clone(), held.clone());
                    let seen = move |ledger: &Ledger| {
                        let inventory = ledger.inventory();
                        (live(inventory, group.as_ref()), gone(inventory, held))
                    };
                    self.ledger.ask(seen).await?
                };
                let reports: Option<BTreeMap<GatewayName, LinkReport>> =
                    told.borrow_and_update().clone();
                if let Some(reports) = reports {
                    last = judge(goal, since, &gateways, &reports, &gone);
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

    pub(super) async fn wait_until_announced(
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

    pub(super) async fn wait_until_gone(
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
    pub(super) async fn wait_until_as_recorded(
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
