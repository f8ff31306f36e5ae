//! A gateway says in the store that it is there, for as long as it is.
//!
//! The record hangs on a lease: a gateway that says nothing for that long is gone.

use std::time::Duration;

use etcd_client::PutOptions;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::EtcdStore;
use super::connection::{Trouble, trouble};
use crate::record::{Gateway, GatewayName, Record, RecordKey};

/// How long a gateway that says nothing is taken for alive, in seconds.
const LEASE: i64 = 30;
/// How often it says that it is.
const RENEWAL: Duration = Duration::from_secs(10);
/// The shortest time between two records.
const SPACING: Duration = Duration::from_secs(1);

impl EtcdStore {
    /// Keeps this gateway registered, with what is told of it; for ever.
    pub async fn keep_registered(&self, name: GatewayName, mut told: watch::Receiver<Gateway>) {
        let key = format!("{}{}", self.inner.prefix, RecordKey::Gateway(name));
        let mut is_new = true;
        loop {
            let trouble = self.register(&key, &mut told).await;
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
    async fn register(&self, key: &str, told: &mut watch::Receiver<Gateway>) -> Trouble {
        match self.stay_registered(key, told).await {
            Err(trouble) => trouble,
            Ok(never) => match never {},
        }
    }

    async fn stay_registered(
        &self,
        key: &str,
        told: &mut watch::Receiver<Gateway>,
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
        put(first).await?;
        info!("the gateway is registered");
        let lent = connection.lend().await?;
        let kept = lent.client().lease_keep_alive(lease).await;
        let (mut keeper, mut answers) = kept.map_err(|error| trouble(&error))?;
        let mut renewal = tokio::time::interval_at(Instant::now() + RENEWAL, RENEWAL);
        let mut earliest = Instant::now() + SPACING;
        loop {
            let changed = async {
                let changed = told.changed().await;
                sleep_until(earliest).await;
                changed
            };
            tokio::select! {
                _ = renewal.tick() => {
                    keeper.keep_alive().await.map_err(|error| trouble(&error))?;
                    let answered = timeout(RENEWAL, answers.message()).await;
                    let answered = answered.map_err(|_| Trouble::Away("the lease is not renewed".to_owned()))?;
                    let left = answered.map_err(|error| trouble(&error))?.map_or(0, |answer| answer.ttl());
                    if left <= 0 {
                        return Err(Trouble::Away("the lease has run out".to_owned()));
                    }
                }
                changed = changed => {
                    if changed.is_err() {
                        // Nothing more is told of it; it lives on.
                        earliest = Instant::now() + RENEWAL;
                        continue;
                    }
                    let record = told.borrow_and_update().clone();
                    put(record).await?;
                    earliest = Instant::now() + SPACING;
                }
            }
        }
    }
}
