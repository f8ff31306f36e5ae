//! What gateways say of links: `<root>.reports/<link>/<gateway>`, beside the records and not among them, so that
//! nobody hears of it but who waits for a link.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use etcd_client::{EventType, GetOptions, KeyValue, PutOptions, Txn, TxnOp, WatchOptions};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::connection::Trouble;
use super::pages::end_of;
use super::{EtcdStore, Inner};
use crate::record::{GatewayName, LinkId, LinkReport, Progress};
use crate::store::StoreError;

/// The most reports of one transaction: etcd takes 128 operations, and a report is two at most.
const MOST: usize = 60;
/// How long it is said of a link that nothing of it is left.
const REMOVED: Duration = Duration::from_secs(60);
/// How many keys are read at once.
const PAGE: i64 = 10_000;
/// The pause before reports are read again.
const PAUSE: Duration = Duration::from_millis(200);

/// What a gateway says of its links, and what of that is not in the store yet.
#[derive(Debug)]
pub(super) struct Unsaid {
    pub(super) gateway: GatewayName,
    all: BTreeMap<LinkId, LinkReport>,
    /// The links of which the store knows that this gateway may hold something.
    held: BTreeSet<LinkId>,
    unsaid: BTreeSet<LinkId>,
    removed: BTreeMap<LinkId, Instant>,
}

impl Unsaid {
    pub(super) fn new(gateway: GatewayName) -> Self {
        Unsaid {
            gateway,
            all: BTreeMap::new(),
            held: BTreeSet::new(),
            unsaid: BTreeSet::new(),
            removed: BTreeMap::new(),
        }
    }

    /// How far a link has come; none when it is no business of this gateway any more.
    pub(super) fn add(&mut self, link: LinkId, report: Option<LinkReport>) {
        self.removed.remove(&link);
        match report {
            Some(report) => {
                if report.state == Progress::Removed {
                    self.removed.insert(link.clone(), Instant::now());
                }
                self.all.insert(link.clone(), report);
            }
            None => {
                self.all.remove(&link);
            }
        }
        self.unsaid.insert(link);
    }

    /// The store has nothing of it, since the lease is a new one, save that this gateway may hold these links.
    pub(super) fn again(&mut self, held: BTreeSet<LinkId>) {
        self.held = held;
        self.unsaid.extend(self.all.keys().cloned());
    }

    /// The kernel holds nothing but what was told of: of other links an earlier run held, nothing is left.
    pub(super) fn holds_no_others(&mut self) {
        let others = self
            .held
            .iter()
            .filter(|link| !self.all.contains_key(*link));
        self.unsaid.extend(others.cloned());
    }

    /// Whether something of a link may be in the kernel, where the store knows it otherwise.
    fn holds_anew(&self, link: &LinkId) -> Option<bool> {
        let report = self.all.get(link);
        let holds = report.is_some_and(|report| report.state.may_forward());
        (holds != self.held.contains(link)).then_some(holds)
    }

    /// All that is unsaid of these links is said.
    fn said(&mut self, links: &[LinkId]) {
        for link in links {
            match self.holds_anew(link) {
                Some(true) => self.held.insert(link.clone()),
                Some(false) => self.held.remove(link),
                None => false,
            };
            self.unsaid.remove(link);
        }
    }

    /// Says nothing any more of links that are gone for long enough.
    pub(super) fn forget_removed(&mut self) {
        let old = |since: &Instant| since.elapsed() >= REMOVED;
        let gone = self.removed.iter().filter(|(_, since)| old(since));
        for link in gone.map(|(link, _)| link.clone()).collect::<Vec<_>>() {
            self.removed.remove(&link);
            self.all.remove(&link);
            self.unsaid.insert(link);
        }
    }
}

impl Inner {
    /// Shows every key that begins so, page by page as `options` have it.
    pub(super) async fn each_below(
        &self,
        prefix: &str,
        options: &GetOptions,
        mut show: impl FnMut(&KeyValue),
    ) -> Result<(), Trouble> {
        let (mut from, end) = (prefix.as_bytes().to_vec(), end_of(prefix));
        loop {
            let (start, end) = (&from, &end);
            let got = self.connection.ask(|mut client| async move {
                let options = options.clone().with_range(end.clone()).with_limit(PAGE);
                client.get(start.clone(), Some(options)).await
            });
            let got = got.await?;
            got.kvs().iter().for_each(&mut show);
            match got.kvs().last().filter(|_| got.more()) {
                Some(last) => from = [last.key(), b"\0"].concat(),
                None => return Ok(()),
            }
        }
    }

    /// What the keys of all reports begin with.
    fn reports(&self) -> String {
        format!("{}.reports/", self.prefix.trim_end_matches('/'))
    }

    /// Says what is unsaid. A cluster that does not let us is told nothing more of these.
    pub(super) async fn say(&self, unsaid: &mut Unsaid, lease: i64) -> Result<(), Trouble> {
        let reports = self.reports();
        while !unsaid.unsaid.is_empty() {
            let part: Vec<LinkId> = unsaid.unsaid.iter().take(MOST).cloned().collect();
            let writes = part.iter().flat_map(|link| {
                let key = format!("{reports}{link}/{}", unsaid.gateway);
                let value = unsaid.all.get(link).map(serde_json::to_vec);
                let report = match value {
                    Some(Ok(value)) => {
                        TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)))
                    }
                    Some(Err(_)) | None => TxnOp::delete(key, None),
                };
                let mark = self.mark(link, &unsaid.gateway);
                let mark = unsaid.holds_anew(link).map(|holds| match holds {
                    true => TxnOp::put(mark, "{}", None),
                    false => TxnOp::delete(mark, None),
                });
                [Some(report), mark].into_iter().flatten()
            });
            let transaction = &Txn::new().and_then(writes.collect::<Vec<_>>());
            let asked = self
                .connection
                .ask(|mut client| async move { client.txn(transaction.clone()).await });
            match asked.await {
                Ok(_) => {}
                Err(Trouble::Refused(why)) => {
                    warn!(
                        why,
                        "how far links have come cannot be reported: may we write below {reports}?"
                    );
                }
                Err(trouble) => return Err(trouble),
            }
            unsaid.said(&part);
        }
        Ok(())
    }
}

/// What gateways say of one link.
pub(crate) type OfLink = BTreeMap<GatewayName, LinkReport>;

impl EtcdStore {
    /// What gateways say of all links, or of one.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn reports(
        &self,
        only: Option<&LinkId>,
    ) -> Result<BTreeMap<LinkId, OfLink>, StoreError> {
        let prefix = &self.inner.reports();
        let of = only.map_or_else(|| prefix.clone(), |link| format!("{prefix}{link}/"));
        let mut all: BTreeMap<LinkId, OfLink> = BTreeMap::new();
        let whole = GetOptions::new();
        let read = self.inner.each_below(&of, &whole, |kv| {
            if let Some((link, gateway, report)) = parse(prefix, kv.key(), kv.value()) {
                all.entry(link).or_default().insert(gateway, report);
            }
        });
        read.await?;
        Ok(all)
    }

    /// Keeps `told` at what gateways say of a link, until nobody looks at it.
    pub async fn follow_link(&self, link: LinkId, told: watch::Sender<Option<OfLink>>) {
        let following = async {
            loop {
                let Err(trouble) = self.follow_once(&link, &told).await;
                if let Trouble::Refused(why) | Trouble::Away(why) = trouble {
                    warn!(%link, why, "what gateways say of a link cannot be heard");
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = told.closed() => {}
            () = following => {}
        }
    }

    async fn follow_once(
        &self,
        link: &LinkId,
        told: &watch::Sender<Option<OfLink>>,
    ) -> Result<std::convert::Infallible, Trouble> {
        let reports = &self.inner.reports();
        let prefix = &format!("{reports}{link}/");
        let connection = &self.inner.connection;
        let got = connection.ask(|mut client| async move {
            let options = GetOptions::new().with_prefix();
            client.get(prefix.as_str(), Some(options)).await
        });
        let got = got.await?;
        let kvs = got.kvs().iter();
        let of_link: OfLink = kvs
            .filter_map(|kv| parse(reports, kv.key(), kv.value()))
            .map(|(_, gateway, report)| (gateway, report))
            .collect();
        told.send_replace(Some(of_link));
        let revision = got
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision);
        let lent = connection.lend().await?;
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(revision + 1);
        let mut watching = lent.client();
        let watching = watching.watch(prefix.as_str(), Some(options)).await;
        let mut stream = watching.map_err(|error| connection.trouble(&error))?;
        loop {
            let message = stream
                .message()
                .await
                .map_err(|error| connection.trouble(&error))?;
            let message = connection.unless_ended(message)?;
            told.send_modify(|told| {
                let told = told.get_or_insert_default();
                for event in message.events() {
                    let Some(kv) = event.kv() else { continue };
                    let report = parse(reports, kv.key(), kv.value());
                    match (event.event_type(), report) {
                        (EventType::Put, Some((_, gateway, report))) => {
                            told.insert(gateway, report);
                        }
                        _ => {
                            if let Some((_, gateway)) = names(reports, kv.key()) {
                                told.remove(&gateway);
                            }
                        }
                    }
                }
            });
        }
    }
}

/// Whose word of which link a key is for.
pub(super) fn names(prefix: &str, key: &[u8]) -> Option<(LinkId, GatewayName)> {
    let key = std::str::from_utf8(key).ok()?.strip_prefix(prefix)?;
    let (link, gateway) = key.split_once('/')?;
    Some((link.parse().ok()?, gateway.parse().ok()?))
}

/// A report; none for what nobody of ours can have written.
fn parse(prefix: &str, key: &[u8], value: &[u8]) -> Option<(LinkId, GatewayName, LinkReport)> {
    let (link, gateway) = names(prefix, key)?;
    Some((link, gateway, serde_json::from_slice(value).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(state: Progress) -> LinkReport {
        LinkReport {
            state,
            reason: None,
            generation: 7,
        }
    }

    #[test]
    fn what_a_new_lease_does_not_hold_is_said_again() {
        let mut unsaid = Unsaid::new("gw".parse().unwrap());
        let (web, db): (LinkId, LinkId) = ("web".parse().unwrap(), "db".parse().unwrap());
        unsaid.add(web.clone(), Some(report(Progress::Announced)));
        unsaid.add(db.clone(), Some(report(Progress::Removed)));
        unsaid.unsaid.clear();
        unsaid.forget_removed();
        assert!(unsaid.unsaid.is_empty(), "{unsaid:?}");
        unsaid.again(BTreeSet::new());
        assert_eq!(unsaid.unsaid.iter().collect::<Vec<_>>(), [&db, &web]);
        unsaid.add(db, None);
        assert!(
            unsaid.removed.is_empty() && unsaid.all.len() == 1,
            "{unsaid:?}"
        );
    }

    #[test]
    fn what_may_be_in_the_kernel_is_marked_until_nothing_is_left() {
        use Progress::{
            Announced, Conflict, Disabled, Drained, Failed, Pending, Programmed, Removed, Removing,
            Standby, Unknown,
        };
        let web: LinkId = "web".parse().unwrap();
        let mut unsaid = Unsaid::new("gw".parse().unwrap());
        unsaid.again(BTreeSet::new());
        for (state, change) in [
            (Some(Standby), None),
            (Some(Pending), Some(true)),
            (Some(Programmed), None),
            (Some(Announced), None),
            (Some(Drained), None),
            (Some(Failed), None),
            (Some(Conflict), None),
            (Some(Unknown), None),
            (Some(Removing), None),
            (Some(Disabled), Some(false)),
            (Some(Announced), Some(true)),
            (Some(Removed), Some(false)),
            (None, None),
            (Some(Announced), Some(true)),
            (None, Some(false)),
        ] {
            unsaid.add(web.clone(), state.map(report));
            assert_eq!(unsaid.holds_anew(&web), change, "{state:?}");
            unsaid.said(std::slice::from_ref(&web));
            assert_eq!(unsaid.holds_anew(&web), None, "{state:?}");
        }
        assert!(unsaid.unsaid.is_empty());
    }

    #[test]
    fn what_an_earlier_run_held_is_let_go_when_the_kernel_is_compared() {
        let (web, db): (LinkId, LinkId) = ("web".parse().unwrap(), "db".parse().unwrap());
        let mut unsaid = Unsaid::new("gw".parse().unwrap());
        unsaid.again(BTreeSet::from([web.clone(), db.clone()]));
        unsaid.add(web.clone(), Some(report(Progress::Announced)));
        unsaid.said(std::slice::from_ref(&web));
        assert!(unsaid.unsaid.is_empty(), "the kernel may hold db");
        unsaid.holds_no_others();
        assert_eq!(unsaid.unsaid.iter().collect::<Vec<_>>(), [&db]);
        assert_eq!(unsaid.holds_anew(&db), Some(false));
        unsaid.said(&[db]);
        assert_eq!(unsaid.held, BTreeSet::from([web]));
    }

    #[test]
    fn reports_are_read_as_they_are_written_and_junk_is_none() {
        let prefix = "/ccn/v1.reports/";
        let value = serde_json::to_vec(&report(Progress::Programmed)).unwrap();
        let parsed = parse(prefix, b"/ccn/v1.reports/web/gw-1", &value).unwrap();
        assert_eq!(parsed.2, report(Progress::Programmed));
        let later = br#"{"state":"levitating","generation":1,"more":true}"#;
        let parsed = parse(prefix, b"/ccn/v1.reports/web/gw-1", later).unwrap();
        assert_eq!(parsed.2.state, Progress::Unknown);
        for (key, value) in [
            (&b"/ccn/v1.reports/web"[..], &value[..]),
            (b"/ccn/v1.reports/web/gw/1", &value),
            (b"/ccn/v1.reports/web/gw", b"7"),
            (b"/ccn/v1/links/web", &value),
            (b"\xff", &value),
        ] {
            assert_eq!(parse(prefix, key, value), None, "{key:?}");
        }
    }
}
