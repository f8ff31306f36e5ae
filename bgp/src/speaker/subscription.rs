//! Subscriptions: a queue of events that is bounded without losing anything silently.
//!
//! A subscriber that falls too far behind is cut off; it finds the end of its queue, subscribes
//! anew, and gets [`Event::Resync`] and the whole current state.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::Command;
use crate::event::Event;

/// Events a subscriber may be behind before it has to start over.
const LONGEST_QUEUE: usize = 1 << 16;

/// The receiving end of a subscription.
#[derive(Debug)]
pub struct Subscription {
    commands: mpsc::Sender<Command>,
    feed: Option<Source>,
    buffer: VecDeque<Event>,
}

#[derive(Debug)]
struct Source {
    batches: mpsc::UnboundedReceiver<Vec<Event>>,
    queued: Arc<AtomicUsize>,
}

impl Subscription {
    pub(super) fn new(commands: mpsc::Sender<Command>) -> Subscription {
        Subscription {
            commands,
            feed: None,
            buffer: VecDeque::new(),
        }
    }

    /// The next event; `None` once the speaker has stopped and everything was told.
    ///
    /// Safe to cancel: no event is lost.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.buffer.pop_front() {
                return Some(event);
            }
            self.fill().await?;
        }
    }

    /// All events that are there, at least one; `None` once the speaker has stopped and
    /// everything was told. Safe to cancel.
    pub async fn next_batch(&mut self) -> Option<Vec<Event>> {
        while self.buffer.is_empty() {
            self.fill().await?;
        }
        Some(std::mem::take(&mut self.buffer).into())
    }

    /// Waits for more and puts it into the buffer.
    async fn fill(&mut self) -> Option<()> {
        match &mut self.feed {
            None => self.subscribe().await,
            Some(feed) => match feed.batches.recv().await {
                Some(batch) => {
                    feed.queued.fetch_sub(batch.len(), Ordering::Relaxed);
                    self.buffer.extend(batch);
                    Some(())
                }
                // Cut off, or the speaker has stopped: then subscribing anew fails.
                None => {
                    self.subscribe().await?;
                    self.buffer.push_back(Event::Resync);
                    Some(())
                }
            },
        }
    }

    async fn subscribe(&mut self) -> Option<()> {
        let permit = self.commands.reserve().await.ok()?;
        let (sender, batches) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        permit.send(Command::Subscribe(Feed {
            sender,
            queued: queued.clone(),
        }));
        self.feed = Some(Source { batches, queued });
        Some(())
    }
}

/// The sending end, in the task of the speaker.
#[derive(Debug)]
pub(crate) struct Feed {
    // Unbounded as a channel; the counter bounds it, save for the first batch: the current state.
    sender: mpsc::UnboundedSender<Vec<Event>>,
    queued: Arc<AtomicUsize>,
}

impl Feed {
    /// Hands over events; false when the subscriber is gone, or so far behind that it must
    /// subscribe anew. The feed is then to be dropped.
    pub(crate) fn send(&self, events: Vec<Event>) -> bool {
        let queued = self.queued.load(Ordering::Relaxed);
        if queued > 0 && queued + events.len() > LONGEST_QUEUE {
            return false;
        }
        self.queued.fetch_add(events.len(), Ordering::Relaxed);
        self.sender.send(events).is_ok()
    }
}
