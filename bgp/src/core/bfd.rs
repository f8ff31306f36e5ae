//! What BFD has to say of the path to a peer, and what follows from it (RFC 5882, RFC 9384).

use std::time::Instant;

use super::{Context, Core, UnknownPeer};
use crate::bfd::Lost;
use crate::config::PeerConfig;
use crate::fsm::{self, State};
use crate::wire::{Cease, Notification};

impl Core {
    /// The peers the path to which is to be watched now, in the order of the configuration: those
    /// with BFD that the operator lets be up.
    pub fn watched_paths(&self) -> impl Iterator<Item = &PeerConfig> {
        let watched = |peer: &&super::Peer| peer.admin_up && peer.config.bfd.is_some();
        self.present().filter(watched).map(|peer| &peer.config)
    }

    /// BFD with a peer has come up: a session that waited for it goes on.
    ///
    /// # Errors
    /// When no peer has that name.
    pub fn path_up(&mut self, name: &str, now: Instant) -> Result<(), UnknownPeer> {
        self.now = now;
        let index = self
            .index_of(name)
            .ok_or_else(|| UnknownPeer(name.to_owned()))?;
        self.peers[index].set_path_up(true);
        self.step_peer(index, fsm::Event::PathUp);
        Ok(())
    }

    /// BFD with a peer was up, and is no more. If the path has failed, so has the session: it ends
    /// at once with Cease, BFD Down (RFC 9384 section 3), and comes back as after any failure. If
    /// one of the operators took BFD down, nothing follows (RFC 5882 section 3.2).
    ///
    /// # Errors
    /// When no peer has that name.
    pub fn path_lost(&mut self, name: &str, lost: Lost, now: Instant) -> Result<(), UnknownPeer> {
        self.now = now;
        let index = self
            .index_of(name)
            .ok_or_else(|| UnknownPeer(name.to_owned()))?;
        let peer = &mut self.peers[index];
        peer.set_path_up(false);
        // Before, there is nothing to end: attempts to connect fail by themselves.
        if !lost.is_failure() || peer.state() < State::OpenSent {
            return Ok(());
        }
        let session = peer.state() == State::Established;
        let mut context = Context {
            local: &self.local,
            outputs: &mut self.outputs,
            now,
        };
        let stop = fsm::Event::AutomaticStop(Notification::cease(Cease::BfdDown));
        let mut outcome = peer.step_all(stop, &mut context);
        let text = format!("BFD: {lost}; check the link, and that BFD runs on the peer");
        peer.failures.note(session, text.clone());
        outcome.failure = Some(text);
        self.settle(index, outcome);
        Ok(())
    }
}
