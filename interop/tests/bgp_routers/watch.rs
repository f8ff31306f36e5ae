//! Every change of a namespace's routes, rules and links while it is watched.

use std::time::Duration;

use netlink::{Event, Group, Monitor, Namespace};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::encounter::Failure;

/// The kernel queues an event before the change is acknowledged; this is for the reader to wake up.
const DRAIN: Duration = Duration::from_millis(100);

pub(super) struct Watch {
    stop: oneshot::Sender<()>,
    events: std::thread::JoinHandle<Result<Vec<Event>, netlink::Error>>,
}

impl Watch {
    /// Changes after the return are seen.
    pub(super) fn start(namespace: &Namespace) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let groups = [Group::Route, Group::Rule, Group::Link];
        let monitor = runtime.block_on(async { Monitor::open_in(namespace, &groups, None) })?;
        let (stop, stopped) = oneshot::channel();
        let events = std::thread::spawn(move || runtime.block_on(collect(monitor, stopped)));
        Ok(Self { stop, events })
    }

    /// What has changed.
    pub(super) fn stop(self) -> Result<Vec<Event>, Failure> {
        drop(self.stop);
        let events = self.events.join();
        Ok(events.map_err(|_| "the watching thread panicked")??)
    }
}

async fn collect(
    mut monitor: Monitor,
    mut stopped: oneshot::Receiver<()>,
) -> Result<Vec<Event>, netlink::Error> {
    let mut events = Vec::new();
    loop {
        tokio::select! {
            event = monitor.next() => events.push(event?),
            _ = &mut stopped => break,
        }
    }
    while let Ok(event) = timeout(DRAIN, monitor.next()).await {
        events.push(event?);
    }
    Ok(events)
}
