//! What an API server asks the gateways: `<root>.asked/<question>`, and what they answer:
//! `<root>.answered/<question>/<gateway>`. Beside the records like reports, all of it on the question's own lease:
//! nothing stays of a server that died asking.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use etcd_client::{EventType, PutOptions, WatchOptions, WatchStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::connection::{Lent, Trouble};
use super::{EtcdStore, Inner};
use crate::record::GatewayName;
use crate::store::StoreError;
use crate::unique;

/// How long a question stands, in seconds, if whoever asked does not take it back.
const STANDS: i64 = 30;
/// The largest question or answer that is looked at, in bytes.
const MOST_BYTES: usize = 1 << 20;
/// The pause before questions are heard again.
const PAUSE: Duration = Duration::from_secs(1);

/// A question that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inquiry {
    id: String,
    lease: i64,
    /// What is asked, as it was written.
    pub question: Vec<u8>,
}

impl Inner {
    fn asked(&self) -> String {
        format!("{}.asked/", self.prefix.trim_end_matches('/'))
    }

    fn answered(&self, id: &str) -> String {
        format!("{}.answered/{id}/", self.prefix.trim_end_matches('/'))
    }

    /// Keys that begin so and are written from this revision on.
    async fn watch(&self, keys: &str, from: i64) -> Result<(Lent, WatchStream), Trouble> {
        let lent = self.connection.lend().await?;
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(from)
            .with_filters([etcd_client::WatchFilterType::NoDelete]);
        let mut client = lent.client();
        let opening = client.watch(keys, Some(options));
        match timeout(self.connection.config().timeout, opening).await {
            Ok(Ok(stream)) => Ok((lent, stream)),
            Ok(Err(error)) => {
                self.connection.give_up(&lent);
                Err(self.connection.trouble(&error))
            }
            Err(_) => {
                self.connection.give_up(&lent);
                Err(Trouble::Away("no watch in time".to_owned()))
            }
        }
    }
}

impl EtcdStore {
    /// Asks, and gives what these gateways answer; when all have, or at the end of `wait`.
    ///
    /// # Errors
    /// The question cannot be written, or answers cannot be heard.
    pub async fn ask_gateways(
        &self,
        question: Vec<u8>,
        who: &BTreeSet<GatewayName>,
        wait: Duration,
    ) -> Result<BTreeMap<GatewayName, Vec<u8>>, StoreError> {
        let connection = &self.inner.connection;
        let granted =
            connection.ask(|mut client| async move { client.lease_grant(STANDS, None).await });
        let lease = granted.await?.id();
        let answers = self.ask_on(lease, &question, who, wait).await;
        let revoked = connection.ask(|mut client| async move { client.lease_revoke(lease).await });
        if let Err(error) = revoked.await {
            debug!(?error, "a question stays until its lease ends");
        }
        Ok(answers?)
    }

    async fn ask_on(
        &self,
        lease: i64,
        question: &[u8],
        who: &BTreeSet<GatewayName>,
        wait: Duration,
    ) -> Result<BTreeMap<GatewayName, Vec<u8>>, Trouble> {
        let id = unique::name();
        let key = &format!("{}{id}", self.inner.asked());
        let put = self.inner.connection.ask(|mut client| async move {
            let on_lease = PutOptions::new().with_lease(lease);
            client.put(key.as_str(), question, Some(on_lease)).await
        });
        let put = put.await?;
        let asked_at = put
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision);
        let prefix = self.inner.answered(&id);
        let (_lent, mut stream) = self.inner.watch(&prefix, asked_at + 1).await?;
        let mut answers = BTreeMap::new();
        let hearing = async {
            while !who.iter().all(|gateway| answers.contains_key(gateway)) {
                let message = stream
                    .message()
                    .await
                    .map_err(|error| self.inner.connection.trouble(&error))?;
                let message = self.inner.connection.unless_ended(message)?;
                for kv in message.events().iter().filter_map(|event| event.kv()) {
                    if let Some(gateway) = answerer(&prefix, kv.key()).filter(|by| who.contains(by))
                        && kv.value().len() <= MOST_BYTES
                    {
                        answers.insert(gateway, kv.value().to_vec());
                    }
                }
            }
            Ok(())
        };
        // Who has not answered by then is missing.
        if let Ok(heard) = timeout(wait, hearing).await {
            heard?;
        }
        Ok(answers)
    }

    /// Hears questions, for ever. One that nobody has room for is not answered.
    pub async fn hear_questions(&self, heard: mpsc::Sender<Inquiry>) {
        let mut is_new = true;
        loop {
            match self.hear_once(&heard).await {
                // An outage is told by who follows the records.
                Err(Trouble::Refused(why)) if std::mem::take(&mut is_new) => {
                    warn!(why, "questions of API servers cannot be heard");
                }
                Err(_) => {}
                Ok(()) => return,
            }
            sleep(PAUSE).await;
        }
    }

    async fn hear_once(&self, heard: &mpsc::Sender<Inquiry>) -> Result<(), Trouble> {
        let prefix = &self.inner.asked();
        // From now on: whoever asked before has stopped waiting.
        let (_lent, mut stream) = self.inner.watch(prefix, 0).await?;
        loop {
            let message = tokio::select! {
                () = heard.closed() => return Ok(()),
                message = stream.message() => message.map_err(|error| self.inner.connection.trouble(&error))?,
            };
            let message = self.inner.connection.unless_ended(message)?;
            for event in message.events() {
                let Some(kv) = event.kv() else { continue };
                let id = std::str::from_utf8(kv.key()).ok();
                let id = id.and_then(|key| key.strip_prefix(prefix.as_str()));
                let Some(id) = id.filter(|id| !id.contains('/')) else {
                    continue;
                };
                if event.event_type() != EventType::Put || kv.value().len() > MOST_BYTES {
                    continue;
                }
                let inquiry = Inquiry {
                    id: id.to_owned(),
                    lease: kv.lease(),
                    question: kv.value().to_vec(),
                };
                if heard.try_send(inquiry).is_err() {
                    debug!(id, "a question too many");
                }
            }
        }
    }

    /// Answers for a gateway.
    ///
    /// # Errors
    /// When it cannot be written: the question may have been taken back.
    pub async fn answer(
        &self,
        inquiry: &Inquiry,
        gateway: &GatewayName,
        answer: Vec<u8>,
    ) -> Result<(), StoreError> {
        let key = &format!("{}{gateway}", self.inner.answered(&inquiry.id));
        let (answer, lease) = (&answer, inquiry.lease);
        let put = self.inner.connection.ask(|mut client| async move {
            let on_lease = PutOptions::new().with_lease(lease);
            client
                .put(key.as_str(), answer.as_slice(), Some(on_lease))
                .await
        });
        put.await?;
        Ok(())
    }
}

/// Whose answer a key is.
fn answerer(prefix: &str, key: &[u8]) -> Option<GatewayName> {
    let key = std::str::from_utf8(key).ok()?;
    key.strip_prefix(prefix)?.parse().ok()
}
