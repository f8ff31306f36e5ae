//! The records as they are known, and the one way to change them: checked, stored, heard of, answered for.
//!
//! It follows the store and keeps the inventory; what is made of the records is the business of whoever drives
//! it, a gateway's controller or an API server. It does nothing by itself: [`Ledger::next`] takes in what
//! happened, and [`Ledger::turn`] answers those who waited for it, once its driver has drawn its conclusions.

mod commits;
mod confirmations;
mod handle;
mod hearing;
mod load;
pub mod records;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::api::error::{ApiError, ErrorCode};
use crate::inventory::{Effects, Inventory};
use crate::plane::Abilities;
use crate::record::{GroupName, Kind};
use crate::store::{Change, Changed, Generation, Store, StoreError, Watch, WatchEvent};
use commits::{Commits, Intent, Stored};
use hearing::Hearing;
pub use load::Loading;
use load::{First, Whole};

pub use confirmations::{Deadlines, deadline, seconds_now};
pub use handle::{Diff, How, LedgerHandle, Made};

/// Makes changes of what is known.
pub type Make = Arc<dyn Fn(&Inventory) -> Result<Vec<Change>, ApiError> + Send + Sync>;

/// What the gateways of a group can do.
pub type AbilitiesOf = Box<dyn Fn(&Inventory, &GroupName) -> Abilities + Send>;

/// An order or a question from a handle.
enum Order {
    Ask(Box<dyn FnOnce(&mut Ledger) + Send>),
    Change(Intent, commits::Reply),
    /// Take what a store that went back holds now.
    Follow(oneshot::Sender<Result<(), ApiError>>),
}

/// What came of something that was asked for.
enum Happened {
    Stored(Stored),
    /// The whole of the store, and what becomes of it from there.
    Loaded(Result<(Whole, Watch), StoreError>),
    /// The store cannot be read as a whole, for this reason; it is tried again.
    Unread(String),
    /// A change that was under way was refused without the store.
    Refused,
}

/// What [`Ledger::next`] took in.
#[derive(Debug)]
pub enum Heard {
    /// Records changed, or may have.
    Changed(Effects),
    /// Nothing that its driver has to act on.
    Nothing,
    /// The store is closed, or nobody holds a handle any more: nothing more comes.
    Closed,
}

/// See the module's words.
pub struct Ledger {
    store: Arc<dyn Store>,
    watch: Watch,
    hearing: Hearing,
    /// The store is being read as a whole; what is heard meanwhile waits.
    loading: bool,
    inventory: Inventory,
    generation: Generation,
    abilities_of: AbilitiesOf,
    commits: Commits,
    /// Changes that wait until the store has decided on the one before.
    queued: VecDeque<(Intent, commits::Reply)>,
    /// No change that was not confirmed is taken back before then.
    undo_again: Instant,
    deadlines: Deadlines,
    /// Tells those who wait for a change of whatever kind.
    change: watch::Sender<()>,
    has_changed: bool,
    orders: mpsc::Receiver<Order>,
    happened: mpsc::UnboundedReceiver<Happened>,
    happen: mpsc::UnboundedSender<Happened>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger")
            .field("generation", &self.generation)
            .field("hearing", &self.hearing)
            .finish_non_exhaustive()
    }
}

/// A ledger that was just opened.
#[derive(Debug)]
pub struct Opened {
    /// The ledger.
    pub ledger: Ledger,
    /// Speaks to it while it is driven.
    pub handle: LedgerHandle,
    /// How many records were read.
    pub records: usize,
    /// All that they made of an empty inventory.
    pub effects: Effects,
}

impl Ledger {
    /// Opens it when the store is loaded. `settling` is told how many records were read, before they are compared with
    /// one another.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(
        loading: Loading,
        abilities_of: AbilitiesOf,
        settling: impl FnOnce(usize),
    ) -> Result<Opened, StoreError> {
        let (store, first) = loading.end(settling).await?;
        let First {
            inventory,
            generation,
            records,
            effects,
            hearing,
        } = first;
        let watch = store.watch(generation).await?;
        let (orderer, orders) = mpsc::channel(64);
        // One message for each thing asked for: bounded by what is outstanding.
        let (happen, happened) = mpsc::unbounded_channel();
        let (change, changed) = watch::channel(());
        let handle = LedgerHandle::new(orderer, store.clone(), changed);
        let mut ledger = Ledger {
            store,
            watch,
            hearing,
            loading: false,
            inventory,
            generation,
            abilities_of,
            commits: Commits::default(),
            queued: VecDeque::new(),
            undo_again: Instant::now(),
            deadlines: Deadlines::default(),
            change,
            has_changed: false,
            orders,
            happened,
            happen,
        };
        ledger.read_anew();
        Ok(Opened {
            ledger,
            handle,
            records,
            effects,
        })
    }

    /// The records.
    #[must_use]
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The newest generation that is known.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// How the store is heard.
    #[must_use]
    pub fn store_view(&self) -> crate::api::StoreView {
        self.hearing.view()
    }

    /// Takes in the next thing that happens. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When the store breaks for good.
    pub async fn next(&mut self) -> Result<Heard, StoreError> {
        tokio::select! {
            event = self.watch.next(), if !self.loading => Ok(match event {
                Some(event) => self.store_event(event),
                None => Heard::Closed,
            }),
            Some(happened) = self.happened.recv() => self.happened(happened),
            order = self.orders.recv() => Ok(match order {
                Some(order) => {
                    self.order(order);
                    Heard::Nothing
                }
                None => Heard::Closed,
            }),
        }
    }

    /// Goes on with changes, and answers for those that are stored and known. What was taken in is to be acted on
    /// before: whoever gets an answer finds it done.
    pub fn turn(&mut self) {
        if std::mem::take(&mut self.has_changed) {
            self.change.send_replace(());
        }
        self.try_again();
        // One change at a time is checked beside what the store has decided.
        while !self.commits.is_undecided()
            && let Some((intent, reply)) = self.queued.pop_front()
        {
            self.commit(intent, 0, reply);
        }
    }

    /// When [`Ledger::on_time`] has something to do; for ever not, without a time.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let due = self.commits.deadline().into_iter();
        due.chain(self.confirmation_due()).min()
    }

    /// Does what is due.
    pub fn on_time(&mut self) {
        self.undo_unconfirmed();
    }

    /// Whether a change is under way of which it is not known what came of it.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.commits.is_undecided()
    }

    /// Whether the store may take these changes, and a look at the inventory as it would be.
    ///
    /// # Errors
    /// Names every record that would be wrong.
    pub fn rehearse<T>(
        &mut self,
        changes: &[Change],
        look: impl FnOnce(&Inventory, &Effects) -> T,
    ) -> Result<T, ApiError> {
        self.check(changes)?;
        let rehearsed = self.inventory.rehearse(changes, look);
        rehearsed.map_err(|errors| ApiError::refused(&errors))
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Ask(question) => question(self),
            // It is begun by the next turn.
            Order::Change(intent, reply) => self.queued.push_back((intent, reply)),
            Order::Follow(reply) => {
                let answer = match &self.hearing {
                    Hearing::Restored { how, .. } => {
                        info!(%how, "following the store, as ordered");
                        self.store.follow_restored();
                        self.load();
                        Ok(())
                    }
                    _ => Err(ApiError::new(
                        ErrorCode::Refused,
                        "the store did not go back: there is nothing to decide",
                    )),
                };
                // A caller that hung up needs no answer.
                let _ = reply.send(answer);
            }
        }
    }

    fn happened(&mut self, happened: Happened) -> Result<Heard, StoreError> {
        match happened {
            Happened::Stored(stored) => self.stored(stored),
            Happened::Loaded(Ok((whole, watch))) => return Ok(self.loaded(whole, watch)),
            Happened::Loaded(Err(StoreError::Restored(how))) => {
                self.loading = false;
                return Ok(self.store_event(WatchEvent::Restored(how)));
            }
            Happened::Loaded(Err(error)) => return Err(error),
            Happened::Unread(why) => self.hearing.lost(why),
            Happened::Refused => self.refused(),
        }
        Ok(Heard::Nothing)
    }

    fn store_event(&mut self, event: WatchEvent) -> Heard {
        match event {
            WatchEvent::Commit(commit) => {
                // What gateways say of themselves makes no plan; were it a generation, each would have to say
                // that it has acknowledged what the others said of that.
                let gateways = Kind::Gateway.folder();
                let of_gateway =
                    |changed: &Changed| changed.key().split('/').next() == Some(gateways);
                // A commit without any change is an order's that found nothing to change.
                let all = commit.changes.iter().all(of_gateway);
                if !all || commit.changes.is_empty() {
                    self.generation = commit.generation;
                }
                let effects = self.inventory.apply(&commit.changes);
                self.heard_of(&commit.changes);
                self.commits.heard();
                self.has_changed = true;
                return Heard::Changed(effects);
            }
            WatchEvent::Lagged => {
                warn!("the watch of the store fell behind; reading it again");
                self.load();
            }
            WatchEvent::Away(why) => {
                self.hearing.lost(why);
            }
            WatchEvent::Back => self.hearing.found(),
            WatchEvent::Restored(how) => {
                error!(
                    %how,
                    "the store is not the one that was seen before: nothing of it is followed until `ccn store follow`"
                );
                self.hearing.went_back(how);
                self.commits.lost();
            }
        }
        Heard::Nothing
    }

    /// Has the whole store read, for as long as that takes; what is known stays in force meanwhile.
    fn load(&mut self) {
        if std::mem::replace(&mut self.loading, true) {
            return;
        }
        let (store, happen) = (self.store.clone(), self.happen.clone());
        tokio::spawn(async move {
            let loaded = loop {
                let loaded = async {
                    let whole = load::whole(store.as_ref()).await?;
                    let watch = store.watch(whole.generation).await?;
                    Ok((whole, watch))
                };
                match loaded.await {
                    Err(error @ StoreError::Restored(_)) => break Err(error),
                    // A disk that was full may have room again.
                    Err(error) if error.is_passing() || matches!(error, StoreError::Io { .. }) => {
                        warn!(%error, "the store cannot be read; trying again");
                        let _ = happen.send(Happened::Unread(error.to_string()));
                        tokio::time::sleep(load::AGAIN).await;
                    }
                    loaded => break loaded,
                }
            };
            let _ = happen.send(Happened::Loaded(loaded));
        });
    }

    /// Takes over the whole store; only what differs changes anything.
    fn loaded(&mut self, whole: Whole, watch: Watch) -> Heard {
        self.loading = false;
        self.watch = watch;
        self.hearing = Hearing::Current;
        self.generation = whole.generation;
        let effects = whole.into_inventory(&mut self.inventory);
        self.read_anew();
        self.commits.heard();
        self.has_changed = true;
        Heard::Changed(effects)
    }
}
