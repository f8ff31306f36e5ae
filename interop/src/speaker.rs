//! Our speaker by itself, on a thread of its own in a namespace: for what the agent has no order for,
//! and to be met by routers without a gateway around it.

use std::future::Future;
use std::sync::{Arc, mpsc};

use bgp::{Speaker, SpeakerConfig, StartError};
use netlink::Namespace;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Why there is no speaker.
#[derive(Debug, thiserror::Error)]
pub enum BareSpeakerError {
    /// The speaker's own reason.
    #[error("our speaker")]
    Start(#[from] StartError),
    /// Its thread could not enter the namespace, or had no runtime.
    #[error("our speaker's thread ended before it began")]
    NoThread,
}

/// A running speaker. Dropped, it closes its connections without a NOTIFICATION, as a crash would.
#[derive(Debug)]
pub struct BareSpeaker {
    /// The speaker's handle; [`BareSpeaker::ask`] waits for its answers.
    pub speaker: Speaker,
    handle: Handle,
    // Dropping it ends the thread, and the speaker with it.
    _stop: oneshot::Sender<()>,
}

impl BareSpeaker {
    /// Starts one in a namespace.
    ///
    /// # Errors
    /// Its configuration is refused, or its thread does not come up.
    pub fn start(
        namespace: Arc<Namespace>,
        config: SpeakerConfig,
    ) -> Result<Self, BareSpeakerError> {
        let (tell, told) = mpsc::channel();
        let (_stop, stopped) = oneshot::channel();
        std::thread::spawn(move || namespace.enter(|| live(config, &tell, stopped)));
        let started = told.recv().map_err(|_| BareSpeakerError::NoThread)?;
        let (speaker, handle) = started?;
        Ok(Self {
            speaker,
            handle,
            _stop,
        })
    }

    /// Waits for an answer of the speaker.
    pub fn ask<T>(&self, answer: impl Future<Output = T>) -> T {
        self.handle.block_on(answer)
    }
}

type Started = Result<(Speaker, Handle), StartError>;

fn live(config: SpeakerConfig, tell: &mpsc::Sender<Started>, stopped: oneshot::Receiver<()>) {
    // Where this fails, `tell` is dropped, and the starter sees that.
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else {
        return;
    };
    runtime.block_on(async {
        let started = Speaker::start(config);
        let _ = tell.send(started.map(|speaker| (speaker, Handle::current())));
        let _ = stopped.await;
    });
}
