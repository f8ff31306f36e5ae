//! Our speaker by itself in the gateway's place: for what the agent has no order for.

use std::future::Future;
use std::sync::{Arc, mpsc};

use bgp::{ExportPolicy, Speaker, SpeakerConfig, StartError};
use interop::gateway::BgpSection;
use netlink::Namespace;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::encounter::Failure;

pub(super) struct BareSpeaker {
    pub speaker: Speaker,
    handle: Handle,
    // Dropping it ends the thread, and the speaker with it.
    _stop: oneshot::Sender<()>,
}

impl BareSpeaker {
    /// Runs in the namespace, with the configuration that the agent would have.
    pub(super) fn start(namespace: Arc<Namespace>, section: &BgpSection) -> Result<Self, Failure> {
        let mut config = SpeakerConfig {
            listen: section.listen.clone(),
            ..SpeakerConfig::new(section.asn, section.router_id)
        };
        for peer in &section.peer {
            let mut peer: bgp::PeerConfig = toml::from_str(&toml::to_string(peer)?)?;
            peer.export = ExportPolicy::Local;
            config.peers.push(peer);
        }
        let (tell, told) = mpsc::channel();
        let (_stop, stopped) = oneshot::channel();
        std::thread::spawn(move || namespace.enter(|| live(config, &tell, stopped)));
        let (speaker, handle) = told.recv()??;
        Ok(Self {
            speaker,
            handle,
            _stop,
        })
    }

    /// Waits for an answer of the speaker.
    pub(super) fn ask<T>(&self, answer: impl Future<Output = T>) -> T {
        self.handle.block_on(answer)
    }
}

type Started = Result<(Speaker, Handle), StartError>;

fn live(config: SpeakerConfig, tell: &mpsc::Sender<Started>, stopped: oneshot::Receiver<()>) {
    // Where this fails, `tell` is dropped, and the test sees that.
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else {
        return;
    };
    runtime.block_on(async {
        let started = Speaker::start(config);
        let _ = tell.send(started.map(|speaker| (speaker, Handle::current())));
        let _ = stopped.await;
    });
}
