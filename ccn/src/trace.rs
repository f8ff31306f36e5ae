//! Packets that the plane samples, told to whoever watches.
//!
//! The plane samples what all watchers want together, from the first that comes to the last that goes;
//! each is told what it wants. A watcher that does not keep up misses packets, and is told how many.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::api::error::{ApiError, ErrorCode};
use crate::plane::thread::PlaneHandle;
use crate::plane::traffic::{Sampled, Wanted};

/// How often the plane is asked what it has sampled.
const PERIOD: Duration = Duration::from_millis(50);
/// Packets that wait for one watcher.
const QUEUE: usize = 4096;

/// How long an agent that stops waits for the plane to sample no more.
const STOP: Duration = Duration::from_secs(1);

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A packet.
    Packet(Sampled),
    /// So many were left out here, since the watcher did not keep up.
    Missed(u64),
}

enum Request {
    Watch {
        wanted: Wanted,
        reply: oneshot::Sender<Result<mpsc::Receiver<Told>, ApiError>>,
    },
    Stop(oneshot::Sender<()>),
}

/// Comes to watch; cheap to clone.
#[derive(Debug, Clone)]
pub struct TraceHandle(mpsc::Sender<Request>);

impl TraceHandle {
    /// Watches until the receiver is dropped. Packets are sampled when this returns.
    ///
    /// # Errors
    /// The plane samples no packets, or the agent is stopping.
    pub async fn watch(&self, wanted: Wanted) -> Result<mpsc::Receiver<Told>, ApiError> {
        let (reply, answer) = oneshot::channel();
        let stopping = || ApiError::stopping("the agent");
        let request = Request::Watch { wanted, reply };
        self.0.send(request).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Ends all watching, and returns when nothing is sampled any more, or the plane is busy: the next
    /// agent ends it too.
    pub async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        if self.0.send(Request::Stop(reply)).await.is_ok() {
            // Without an answer it has ended before.
            let _ = timeout(STOP, answer).await;
        }
    }
}

struct Watcher {
    wanted: Wanted,
    queue: mpsc::Sender<Told>,
    missed: u64,
}

impl Watcher {
    fn tell(&mut self, packet: &Sampled) {
        if !self.wanted.includes(packet) {
            return;
        }
        if self.missed > 0 && self.queue.try_send(Told::Missed(self.missed)).is_ok() {
            self.missed = 0;
        }
        if self.missed > 0 || self.queue.try_send(Told::Packet(packet.clone())).is_err() {
            self.missed += 1;
        }
    }
}

/// Everybody who watches, and the plane they watch.
pub struct Tracer {
    plane: PlaneHandle,
    requests: mpsc::Receiver<Request>,
    watchers: Vec<Watcher>,
}

impl Tracer {
    /// Nobody watches yet.
    #[must_use]
    pub fn new(plane: PlaneHandle) -> (Tracer, TraceHandle) {
        let (sender, requests) = mpsc::channel(8);
        let tracer = Tracer {
            plane,
            requests,
            watchers: Vec::new(),
        };
        (tracer, TraceHandle(sender))
    }

    /// Runs until it is stopped or nobody can come any more.
    pub async fn run(mut self) {
        let mut look = interval(PERIOD);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(Request::Watch { wanted, reply }) => {
                        // Whoever has gone away meanwhile is found gone at the next look.
                        let _ = reply.send(self.watch(wanted).await);
                    }
                    Some(Request::Stop(reply)) => {
                        last = Some(reply);
                        break;
                    }
                    None => break,
                },
                _ = look.tick(), if !self.watchers.is_empty() => self.look().await,
            }
        }
        if !self.watchers.is_empty() {
            self.watchers.clear();
            self.want().await;
        }
        if let Some(reply) = last {
            let _ = reply.send(());
        }
    }

    async fn watch(&mut self, wanted: Wanted) -> Result<mpsc::Receiver<Told>, ApiError> {
        let present = self.watchers.iter().map(|watcher| &watcher.wanted);
        let union = Wanted::union(present.chain([&wanted]));
        match self.plane.sample(union).await {
            Ok(true) => {}
            Ok(false) => {
                let message = format!(
                    "the plane `{}` samples no packets; `ebpf` does (plane.kind in the \
                     configuration), or use tcpdump on the gateway's interfaces",
                    self.plane.name()
                );
                return Err(ApiError::new(ErrorCode::Refused, message));
            }
            Err(error) => return Err(ApiError::new(ErrorCode::Internal, error.to_string())),
        }
        let (queue, receiver) = mpsc::channel(QUEUE);
        info!(?wanted, "somebody watches packets");
        self.watchers.push(Watcher {
            wanted,
            queue,
            missed: 0,
        });
        Ok(receiver)
    }

    /// Tells everybody what there is, and lets go who has gone.
    async fn look(&mut self) {
        match self.plane.sampled().await {
            Ok(packets) => {
                for packet in &packets {
                    for watcher in &mut self.watchers {
                        watcher.tell(packet);
                    }
                }
            }
            Err(error) => warn!(%error, "cannot read what was sampled"),
        }
        let before = self.watchers.len();
        self.watchers.retain(|watcher| !watcher.queue.is_closed());
        if self.watchers.len() < before {
            self.want().await;
        }
    }

    /// Has the plane sample what is wanted now.
    async fn want(&self) {
        let union = Wanted::union(self.watchers.iter().map(|watcher| &watcher.wanted));
        info!(watchers = self.watchers.len(), "packets are watched by");
        if let Err(error) = self.plane.sample(union).await {
            warn!(%error, "cannot say what is to be sampled");
        }
    }
}
