//! Which gateways have something of which links in their kernels: `<root>.held/<link>/<gateway>`, beside the records.
//!
//! Unlike what a gateway says of its links this hangs on no lease: a gateway that the cluster hears nothing of goes on
//! forwarding what it had, and an order to take that away has to know. The mark is made with the first word of a link
//! and taken away with the word that nothing of it is left.

use std::collections::{BTreeMap, BTreeSet};

use etcd_client::{GetOptions, Txn, TxnOp};

use super::connection::Trouble;
use super::reports::names;
use super::{EtcdStore, Inner};
use crate::record::{GatewayName, LinkId};
use crate::store::StoreError;

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
        let keys = GetOptions::new().with_keys_only();
        self.each_below(&of, &keys, |kv| {
            if let Some((link, gateway)) = names(prefix, kv.key()) {
                held.entry(link).or_default().insert(gateway);
            }
        })
        .await?;
        Ok(held)
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

    /// Takes away every mark of a gateway that has nothing of any link any more.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn forget_gateway_everywhere(&self, gateway: &GatewayName) -> Result<(), StoreError> {
        let links: Vec<_> = self.inner.held_by(gateway).await?.into_iter().collect();
        self.forget_gateway(gateway, &links).await
    }

    /// Takes away the marks of these links that a gateway has which is no more.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn forget_gateway(
        &self,
        gateway: &GatewayName,
        links: &[LinkId],
    ) -> Result<(), StoreError> {
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
        Ok(())
    }
}
