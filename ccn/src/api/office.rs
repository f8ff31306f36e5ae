//! Who takes orders: the agent of a gateway, or an API server. The routes are the same.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::caller::Caller;
use super::error::ApiError;
use super::{LinkPlan, LinkView};
use crate::explain::Explanation;
use crate::ledger::records::Condition;
use crate::ledger::{How, LedgerHandle, Made, Make};
use crate::link::orders::LinkOrder;
use crate::record::{LinkId, Vni};

/// How an order is to be carried out.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Who gives it.
    pub caller: Caller,
    /// How long to wait until it is done; it goes on all the same.
    pub wait: Duration,
    /// It is undone unless somebody confirms it within this time.
    pub confirm: Option<Duration>,
    /// A name of the caller's: an order of this name is carried out once, however often it comes.
    pub once: Option<String>,
    /// It is carried out only if this holds.
    pub only_if: Option<Condition>,
}

impl Terms {
    /// How the change of records is to be made.
    #[must_use]
    pub fn how(&self) -> How {
        How {
            once: self.once.clone(),
            only_if: self.only_if.clone(),
            audited: false,
        }
    }
}

/// What an office answers.
pub type Reply<T> = Result<T, ApiError>;

/// Takes orders and answers questions about records. Cheap to clone.
pub trait Office: Clone + Send + Sync + 'static {
    /// The records.
    fn ledger(&self) -> &LedgerHandle;

    /// How it is doing.
    fn status(&self) -> impl Future<Output = Reply<Value>> + Send;

    /// Every link, and how far it has come.
    fn links(&self) -> impl Future<Output = Reply<Vec<LinkView>>> + Send;

    /// One link, if it is there.
    fn one_link(&self, link: LinkId) -> impl Future<Output = Reply<Option<LinkView>>> + Send;

    /// What an order to link would come to; changes nothing.
    fn check_link(&self, order: LinkOrder) -> impl Future<Output = Reply<LinkPlan>> + Send;

    /// Links a VPC, and waits until that is verified and announced.
    fn link(&self, order: LinkOrder, terms: Terms) -> impl Future<Output = Reply<LinkView>> + Send;

    /// Undoes a link, and waits until nothing of it forwards; the link, if that is to be confirmed.
    fn unlink(
        &self,
        link: LinkId,
        terms: Terms,
    ) -> impl Future<Output = Reply<Option<LinkView>>> + Send;

    /// Brings a link back that was disabled, or disables it, and waits for that.
    fn set_enabled(
        &self,
        link: LinkId,
        enabled: bool,
        terms: Terms,
    ) -> impl Future<Output = Reply<LinkView>> + Send;

    /// Lets the last change of a link stand; the link, unless it was to go.
    fn confirm(
        &self,
        link: LinkId,
        terms: Terms,
    ) -> impl Future<Output = Reply<Option<LinkView>>> + Send;

    /// Takes the last change of a link back, and waits for that; the link, unless there was none before.
    fn undo(
        &self,
        link: LinkId,
        terms: Terms,
    ) -> impl Future<Output = Reply<Option<LinkView>>> + Send;

    /// What taking the last change of a link back would come to; changes nothing.
    fn check_undo(&self, link: LinkId) -> impl Future<Output = Reply<LinkPlan>> + Send;

    /// Changes records.
    fn change(&self, make: Make, terms: Terms) -> impl Future<Output = Reply<Made>> + Send;

    /// Takes what a store that went back holds now.
    fn follow_store(&self, terms: Terms) -> impl Future<Output = Reply<()>> + Send;

    /// What would happen to a packet.
    fn explain(
        &self,
        src: IpAddr,
        dst: IpAddr,
        vni: Option<Vni>,
    ) -> impl Future<Output = Reply<Explanation>> + Send;
}
