//! A plane on a thread of its own, spoken to by messages: planes block, the agent must not.
//!
//! Orders are carried out one at a time, in the order given. It decides nothing.

use std::collections::BTreeMap;
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
    pub fn spawn(mut plane: Box<dyn Plane>) -> std::io::Result<PlaneHandle> {
        let (name, abilities) = (plane.name(), plane.abilities());
        // Callers await each answer, so the queue is as long as there are callers.
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        thread::Builder::new()
            .name(format!("plane-{name}"))
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(plane.as_mut());
                }
            })?;
        Ok(PlaneHandle {
            name,
            abilities,
            jobs,
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
        self.jobs.send(job).map_err(|_| OrderError::Gone)?;
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

    /// Orders a [`Plane::apply`]; `then` is told what came of it, by the plane's thread.
    pub fn apply(&self, batch: Batch, then: impl FnOnce(Outcome) + Send + 'static) {
        self.order(move |plane| plane.apply(&batch), then);
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
        let _ = self.jobs.send(job);
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
