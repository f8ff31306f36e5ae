//! A plane on a thread of its own, spoken to by messages: planes block, the agent must not.
//!
//! Orders are carried out one at a time, in the order given. It decides nothing. What is a few stores is
//! written by whoever orders it, where nothing waits before it: a thread that wakes takes longer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::entry::{EntryKey, EntryValue};
use super::model::Packet;
use super::traffic::{Sampled, Traffic, Wanted};
use super::witness::Witness;
use super::{
    Abilities, Applied, Batch, Counters, Desired, Forecast, Limit, Part, Plane, PlaneError,
};

type Job = Box<dyn FnOnce(&mut dyn Plane) + Send>;

/// Speaks to the thread. When all handles are gone the thread ends and leaves the kernel as it is.
#[derive(Debug, Clone)]
pub struct PlaneHandle {
    name: &'static str,
    abilities: Abilities,
    jobs: mpsc::UnboundedSender<Job>,
    shared: Arc<Shared>,
}

/// The plane, and how many jobs the thread has not done yet.
struct Shared {
    plane: Mutex<Box<dyn Plane>>,
    outstanding: AtomicUsize,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("outstanding", &self.outstanding)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn work(&self, job: Job) {
        // Nothing is done any more with a plane that panicked; a job that is dropped tells so.
        let Ok(mut plane) = self.plane.lock() else {
            return;
        };
        job(plane.as_mut());
        drop(plane);
        self.outstanding.fetch_sub(1, Ordering::Release);
    }
}

/// Why an order came to nothing.
#[derive(Debug, Error)]
pub enum OrderError {
    /// The plane said so.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// The thread is gone.
    #[error("the plane's thread has ended")]
    Gone,
}

/// What came of an order.
pub type Outcome = Result<Applied, OrderError>;

/// Who is told what came of an order, also if nobody carries it out.
struct Then(Option<Box<dyn FnOnce(Outcome) + Send>>);

impl Then {
    fn tell(mut self, outcome: Outcome) {
        if let Some(then) = self.0.take() {
            then(outcome);
        }
    }
}

impl Drop for Then {
    fn drop(&mut self) {
        if let Some(then) = self.0.take() {
            then(Err(OrderError::Gone));
        }
    }
}

impl PlaneHandle {
    /// Moves the plane to a new thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(plane: Box<dyn Plane>) -> std::io::Result<PlaneHandle> {
        let (name, abilities) = (plane.name(), plane.abilities());
        // Callers await each answer, so the queue is as long as there are callers.
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        let shared = Arc::new(Shared {
            plane: Mutex::new(plane),
            outstanding: AtomicUsize::new(0),
        });
        let worker = shared.clone();
        thread::Builder::new()
            .name(format!("plane-{name}"))
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    worker.work(job);
                }
            })?;
        Ok(PlaneHandle {
            name,
            abilities,
            jobs,
            shared,
        })
    }

    /// The plane's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// See [`Plane::abilities`].
    #[must_use]
    pub fn abilities(&self) -> Abilities {
        self.abilities
    }

    async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn Plane) -> T + Send + 'static,
    ) -> Result<T, OrderError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |plane| {
            // A caller that has gone away needs no answer.
            let _ = reply.send(job(plane));
        });
        self.send(job)?;
        answer.await.map_err(|_| OrderError::Gone)
    }

    /// See [`Plane::prepare`].
    ///
    /// # Errors
    /// As there, or the thread is gone.
    pub async fn prepare(&self) -> Result<super::Prepared, OrderError> {
        Ok(self.call(|plane| plane.prepare()).await??)
    }

    /// Orders a [`Plane::resync`]; `then` is told what came of it, by the plane's thread.
    pub fn resync(&self, desired: Desired, then: impl FnOnce(Outcome) + Send + 'static) {
        self.order(move |plane| plane.resync(&desired), then);
    }

    /// Orders a [`Plane::apply`]; `then` is told what came of it, by the plane's thread, or at once where the batch
    /// [is prompt](Plane::is_prompt) and nothing was ordered before it that is not done.
    pub fn apply(&self, batch: Batch, then: impl FnOnce(Outcome) + Send + 'static) {
        if let Some(outcome) = self.apply_now(&batch) {
            return then(outcome);
        }
        self.order(move |plane| plane.apply(&batch), then);
    }

    fn apply_now(&self, batch: &Batch) -> Option<Outcome> {
        if self.shared.outstanding.load(Ordering::Acquire) > 0 {
            return None;
        }
        let mut plane = match self.shared.plane.try_lock() {
            Ok(plane) => plane,
            // After a panic the thread is gone, and the queue says so.
            Err(TryLockError::Poisoned(_) | TryLockError::WouldBlock) => return None,
        };
        let is_prompt = plane.is_prompt(batch);
        is_prompt.then(|| plane.apply(batch).map_err(OrderError::Plane))
    }

    fn send(&self, job: Job) -> Result<(), OrderError> {
        self.shared.outstanding.fetch_add(1, Ordering::AcqRel);
        self.jobs.send(job).map_err(|_| OrderError::Gone)
    }

    /// Without a task in between: packets wait for what is ordered here.
    fn order(
        &self,
        job: impl FnOnce(&mut dyn Plane) -> Result<Applied, PlaneError> + Send + 'static,
        then: impl FnOnce(Outcome) + Send + 'static,
    ) {
        let then = Then(Some(Box::new(then)));
        let job: Job = Box::new(move |plane| {
            let outcome = job(plane);
            then.tell(outcome.map_err(OrderError::Plane));
        });
        // What is not taken is dropped, and tells that.
        let _ = self.send(job);
    }

    /// See [`Plane::counters`].
    ///
    /// # Errors
    /// As there, or the thread is gone.
    pub async fn counters(&self) -> Result<Counters, OrderError> {
        Ok(self.call(|plane| plane.counters()).await??)
    }

    /// See [`Plane::traffic`].
    ///
    /// # Errors
    /// As there, or the thread is gone.
    pub async fn traffic(&self) -> Result<Option<Traffic>, OrderError> {
        Ok(self.call(|plane| plane.traffic()).await??)
    }

    /// See [`Plane::sample`].
    ///
    /// # Errors
    /// As there, or the thread is gone.
    pub async fn sample(&self, wanted: Option<Wanted>) -> Result<bool, OrderError> {
        Ok(self
            .call(move |plane| plane.sample(wanted.as_ref()))
            .await??)
    }

    /// See [`Plane::sampled`].
    ///
    /// # Errors
    /// As there, or the thread is gone.
    pub async fn sampled(&self) -> Result<Vec<Sampled>, OrderError> {
        Ok(self.call(|plane| plane.sampled()).await??)
    }

    /// See [`Plane::ask`].
    ///
    /// # Errors
    /// As there, or the thread is gone.
    pub async fn ask(&self, packet: Packet) -> Result<Option<Witness>, OrderError> {
        Ok(self.call(move |plane| plane.ask(&packet)).await??)
    }

    /// See [`Plane::limits`].
    ///
    /// # Errors
    /// The thread is gone.
    pub async fn limits(&self) -> Result<Vec<Limit>, OrderError> {
        self.call(|plane| plane.limits()).await
    }

    /// How full the plane is, and what these permits would take: see [`Plane::forecast`].
    ///
    /// # Errors
    /// The thread is gone.
    pub async fn forecast(
        &self,
        permits: BTreeMap<EntryKey, EntryValue>,
    ) -> Result<(Vec<Limit>, Forecast), OrderError> {
        self.call(move |plane| (plane.limits(), plane.forecast(&permits)))
            .await
    }

    /// See [`Plane::parts`].
    ///
    /// # Errors
    /// As there, or the thread is gone.
    pub async fn parts(&self) -> Result<Vec<Part>, OrderError> {
        Ok(self.call(|plane| plane.parts()).await??)
    }

    /// See [`Plane::dump`].
    ///
    /// # Errors
    /// As there, or the thread is gone.
    pub async fn dump(&self) -> Result<Vec<String>, OrderError> {
        Ok(self.call(|plane| plane.dump()).await??)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as std_mpsc;
    use std::time::Duration;

    use super::*;
    use crate::plane::Prepared;

    /// How long something may take that is on its way.
    const SOON: Duration = Duration::from_secs(30);

    /// Says which generation was applied by which thread; even ones are prompt.
    struct Telling(std_mpsc::Sender<(u64, thread::ThreadId)>);

    impl Plane for Telling {
        fn name(&self) -> &'static str {
            "telling"
        }

        fn abilities(&self) -> Abilities {
            Abilities::default()
        }

        fn prepare(&mut self) -> Result<Prepared, PlaneError> {
            Ok(Prepared { adopted: false })
        }

        fn resync(&mut self, _: &Desired) -> Result<Applied, PlaneError> {
            Ok(Applied::default())
        }

        fn apply(&mut self, batch: &Batch) -> Result<Applied, PlaneError> {
            let generation = batch.generation;
            self.0.send((generation, thread::current().id())).unwrap();
            Ok(Applied {
                generation,
                ..Applied::default()
            })
        }

        fn is_prompt(&self, batch: &Batch) -> bool {
            batch.generation.is_multiple_of(2)
        }

        fn counters(&mut self) -> Result<Counters, PlaneError> {
            Ok(Counters::default())
        }

        fn limits(&self) -> Vec<Limit> {
            Vec::new()
        }

        fn dump(&mut self) -> Result<Vec<String>, PlaneError> {
            Ok(Vec::new())
        }

        fn remove(&mut self) -> Result<(), PlaneError> {
            Ok(())
        }
    }

    fn batch(generation: u64) -> Batch {
        Batch {
            generation,
            ..Batch::default()
        }
    }

    #[test]
    fn what_is_prompt_is_written_here_unless_something_waits_before_it() {
        let (said, heard) = std_mpsc::channel();
        let plane = PlaneHandle::spawn(Box::new(Telling(said))).unwrap();
        let (told, outcomes) = std_mpsc::channel();
        let tell = || {
            let told = told.clone();
            move |outcome: Outcome| told.send(outcome.unwrap().generation).unwrap()
        };
        let here = thread::current().id();

        plane.apply(batch(2), tell());
        assert_eq!(heard.try_recv(), Ok((2, here)));
        assert_eq!(outcomes.try_recv(), Ok(2));

        // The thread is kept busy until this is dropped.
        let (release, held) = std_mpsc::channel::<()>();
        plane
            .send(Box::new(move |_| {
                let _ = held.recv();
            }))
            .unwrap();
        for generation in [3, 4, 6] {
            plane.apply(batch(generation), tell());
        }
        assert!(heard.try_recv().is_err(), "before what was ordered first");
        drop(release);
        for generation in [3, 4, 6] {
            let (at, by) = heard.recv_timeout(SOON).unwrap();
            assert_eq!(at, generation, "in the order given");
            assert_ne!(by, here);
            assert_eq!(outcomes.recv_timeout(SOON), Ok(generation));
        }
    }

    #[test]
    fn after_a_panic_nothing_is_written_and_everybody_is_told() {
        let (said, heard) = std_mpsc::channel();
        let plane = PlaneHandle::spawn(Box::new(Telling(said))).unwrap();
        plane.send(Box::new(|_| panic!("as tested"))).unwrap();
        let (told, outcomes) = std_mpsc::channel();
        plane.apply(batch(2), move |outcome| told.send(outcome).unwrap());
        let outcome = outcomes.recv_timeout(SOON).unwrap();
        assert!(matches!(outcome, Err(OrderError::Gone)), "{outcome:?}");
        assert!(heard.try_recv().is_err());
    }
}
