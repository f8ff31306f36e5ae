//! A gateway says in the store that it is there, and how far its links have come, for as long as it is.
//!
//! All of it hangs on a lease: a gateway that says nothing for that long is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use etcd_client::PutOptions;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::EtcdStore;
use super::connection::Trouble;
use super::reports::Unsaid;
use crate::record::{Gateway, GatewayName, Health, LinkId, LinkReport, Record, RecordKey};

/// How long a gateway that says nothing is taken for alive, in seconds.
const LEASE: i64 = 30;
/// How often it says that it is.
const RENEWAL: Duration = Duration::from_secs(10);
/// The shortest time between two records.
const SPACING: Duration = Duration::from_secs(1);

impl EtcdStore {
    /// Keeps this gateway registered, with what is told of it and of its links; for ever.
    pub async fn keep_registered(
        &self,
        name: GatewayName,
        mut told: watch::Receiver<Gateway>,
        mut of_links: mpsc::UnboundedReceiver<(LinkId, Option<LinkReport>)>,
    ) {
        let key = format!("{}{}", self.inner.prefix, RecordKey::Gateway(name.clone()));
        let mut unsaid = Unsaid::new(name);
        let mut is_new = true;
        loop {
            let registered = self.stay_registered(&key, &mut told, &mut unsaid, &mut of_links);
            let Err(trouble) = registered.await;
            let (Trouble::Away(why) | Trouble::Refused(why)) = trouble else {
                continue;
            };
            // That the store is away is said where it is watched.
            if std::mem::take(&mut is_new) {
                warn!(why, "the gateway is not registered");
            }
            sleep(SPACING).await;
        }
    }

    /// Registers, and stays so until something comes in between.
    async fn stay_registered(
        &self,
        key: &str,
        told: &mut watch::Receiver<Gateway>,
        unsaid: &mut Unsaid,
        of_links: &mut mpsc::UnboundedReceiver<(LinkId, Option<LinkReport>)>,
    ) -> Result<std::convert::Infallible, Trouble> {
        let connection = &self.inner.connection;
        let granted =
            connection.ask(|mut client| async move { client.lease_grant(LEASE, None).await });
        let lease = granted.await?.id();
        let put = async |record: Gateway| {
            let value = &Record::Gateway(record).to_json();
            let put = connection.ask(|mut client| async move {
                let on_lease = PutOptions::new().with_lease(lease);
                client.put(key, value.as_slice(), Some(on_lease)).await
            });
            put.await.map(|_| ())
        };
        let first = told.borrow_and_update().clone();
        let mut last = first.clone();
        put(first).await?;
        unsaid.again(match self.inner.held_by(&unsaid.gateway).await {
            // It is told when reports are refused as well.
            Err(Trouble::Refused(_)) => BTreeSet::new(),
            held => held?,
        });
        info!("the gateway is registered");
        let lent = connection.lend().await?;
        let kept = lent.client().lease_keep_alive(lease).await;
        let (mut keeper, mut answers) = kept.map_err(|error| connection.trouble(&error))?;
        let mut renewal = tokio::time::interval_at(Instant::now() + RENEWAL, RENEWAL);
        let mut earliest = Instant::now() + SPACING;
        let mut has_compared = false;
        loop {
            let changed = async {
                // It may have changed in an earlier turn, and something else came first.
                while *told.borrow() == last {
                    if let Err(nobody) = told.changed().await {
                        sleep_until(earliest).await;
                        return Err(nobody);
                    }
                }
                // Others choose by it whom they give links: that is worth a record at once.
                let urgent = |gateway: &Gateway| (gateway.health, gateway.draining);
                let is_urgent = urgent(&told.borrow()) != urgent(&last);
                if !is_urgent {
                    sleep_until(earliest).await;
                }
                Ok(())
            };
            // From here on it is known what the kernel holds.
            if matches!(last.health, Health::Healthy | Health::Degraded) && !has_compared {
                unsaid.holds_no_others();
                has_compared = true;
            }
            self.inner.say(unsaid, lease).await?;
            tokio::select! {
                // Which of them is due first counts little; that a lease is kept counts.
                biased;
                _ = renewal.tick() => {
                    unsaid.forget_removed();
                    keeper.keep_alive().await.map_err(|error| connection.trouble(&error))?;
                    let answered = timeout(RENEWAL, answers.message()).await;
                    let answered = answered.map_err(|_| Trouble::Away("the lease is not renewed".to_owned()))?;
                    let left = answered.map_err(|error| connection.trouble(&error))?.map_or(0, |answer| answer.ttl());
                    if left <= 0 {
                        return Err(Trouble::Away("the lease has run out".to_owned()));
                    }
                }
                Some((link, report)) = of_links.recv() => {
                    unsaid.add(link, report);
                    while let Ok((link, report)) = of_links.try_recv() {
                        unsaid.add(link, report);
                    }
                }
                changed = changed => {
                    if changed.is_err() {
                        // Nothing more is told of it; it lives on.
                        earliest = Instant::now() + RENEWAL;
                        continue;
                    }
                    let record = told.borrow_and_update().clone();
                    last = record.clone();
                    put(record).await?;
                    earliest = Instant::now() + SPACING;
                }
            }
        }
    }
}
