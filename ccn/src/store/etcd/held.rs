//! Which gateways have something of which links in their kernels: `<root>.held/<link>/<gateway>`, beside the records.
//!
//! Unlike what a gateway says of its links this hangs on no lease: a gateway that the cluster hears nothing of goes on
//! forwarding what it had, and an order to take that away has to know. The mark is made with the first word of a link
//! and taken away with the word that nothing of it is left.

use std::collections::{BTreeMap, BTreeSet};

use etcd_client::{GetOptions, Txn, TxnOp};

use super::connection::Trouble;
use super::pages::end_of;
use super::reports::names;
use super::{EtcdStore, Inner};
use crate::record::{GatewayName, LinkId};
use crate::store::StoreError;

/// How many marks are read at once.
const PAGE: i64 = 10_000;
/// The most of one transaction: etcd takes 128 operations.
const MOST: usize = 100;

/// The gateways that hold a link, by link.
pub type Held = BTreeMap<LinkId, BTreeSet<GatewayName>>;

impl Inner {
    /// What the keys of all marks begin with.
    fn held(&self) -> String {
        format!("{}.held/", self.prefix.trim_end_matches('/'))
    }

    pub(super) fn mark(&self, link: &LinkId, gateway: &GatewayName) -> String {
        format!("{}{link}/{gateway}", self.held())
    }

    /// The marks of all links, or of one.
    async fn marks(&self, only: Option<&LinkId>) -> Result<Held, Trouble> {
        let prefix = &self.held();
        let of = only.map_or_else(|| prefix.clone(), |link| format!("{prefix}{link}/"));
        let mut held = Held::new();
        let (mut from, end) = (of.clone().into_bytes(), end_of(&of));
        loop {
            let (start, end) = (&from, &end);
            let got = self.connection.ask(|mut client| async move {
                let options = GetOptions::new()
                    .with_range(end.clone())
                    .with_keys_only()
                    .with_limit(PAGE);
                client.get(start.clone(), Some(options)).await
            });
            let got = got.await?;
            for kv in got.kvs() {
                if let Some((link, gateway)) = names(prefix, kv.key()) {
                    held.entry(link).or_default().insert(gateway);
                }
            }
            match got.kvs().last().filter(|_| got.more()) {
                Some(last) => from = [last.key(), b"\0"].concat(),
                None => return Ok(held),
            }
        }
    }

    /// The links that a gateway holds.
    pub(super) async fn held_by(&self, gateway: &GatewayName) -> Result<BTreeSet<LinkId>, Trouble> {
        let marks = self.marks(None).await?.into_iter();
        let held = marks.filter(|(_, gateways)| gateways.contains(gateway));
        Ok(held.map(|(link, _)| link).collect())
    }
}

impl EtcdStore {
    /// Which gateways hold something of which links, or of one; also those that are gone.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn held(&self, only: Option<&LinkId>) -> Result<Held, StoreError> {
        Ok(self.inner.marks(only).await?)
    }

    /// Takes away the marks of a gateway that is no more. The answer says of which links it had some.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn forget_gateway(
        &self,
        gateway: &GatewayName,
    ) -> Result<BTreeSet<LinkId>, StoreError> {
        let held = self.inner.held_by(gateway).await?;
        let links: Vec<&LinkId> = held.iter().collect();
        for part in links.chunks(MOST) {
            let deletes = part
                .iter()
                .map(|link| TxnOp::delete(self.inner.mark(link, gateway), None));
            let transaction = &Txn::new().and_then(deletes.collect::<Vec<_>>());
            let asked = self
                .inner
                .connection
                .ask(|mut client| async move { client.txn(transaction.clone()).await });
            asked.await?;
        }
        Ok(held)
    }
}
