//! What an operator does to one peer: down, up, and asking it for its routes.

use std::time::Instant;

use super::{Core, UnknownPeer, advice, fsm};
use crate::config::PeerName;
use crate::rib::select::Source;

/// Why a peer is not asked for its routes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// No peer of this name.
    #[error(transparent)]
    Unknown(#[from] UnknownPeer),
    /// There is nobody to ask.
    #[error("peer {0} has no session: there is nothing to refresh")]
    NoSession(PeerName),
    /// The peer does not know the question.
    #[error(
        "peer {0} does not offer route refresh (RFC 2918): take its session down and up again to \
         get its routes anew"
    )]
    Unsupported(PeerName),
}

impl Core {
    /// Takes the session with a peer down until told otherwise, or lets it come up again. The text
    /// is for the peer's operator: at most 255 octets of UTF-8, longer ones are cut (RFC 9003).
    ///
    /// # Errors
    /// When no peer has that name.
    pub fn set_peer_admin(
        &mut self,
        name: &str,
        up: bool,
        text: Option<&str>,
        now: Instant,
    ) -> Result<(), UnknownPeer> {
        self.now = now;
        let index = self
            .index_of(name)
            .ok_or_else(|| UnknownPeer(name.to_owned()))?;
        match up {
            true => self.peers[index].resume_at = None,
            false => self.expect_no_return(index),
        }
        if self.peers[index].admin_up != up {
            self.peers[index].admin_up = up;
            let event = match up {
                true => fsm::Event::ManualStart,
                false => fsm::Event::ManualStop(Some(advice::shutdown(text))),
            };
            self.step_peer(index, event);
        }
        Ok(())
    }

    /// Asks a peer for all its routes again, in every family in use (RFC 2918).
    ///
    /// # Errors
    /// When no peer has that name, it has no session, or does not know the question.
    pub fn refresh_peer(&mut self, name: &str, now: Instant) -> Result<(), RefreshError> {
        self.now = now;
        let index = self
            .index_of(name)
            .ok_or_else(|| UnknownPeer(name.to_owned()))?;
        self.peers[index].ask_routes(&mut self.outputs)
    }

    /// Drops whatever is kept of a peer for its return; nor is it tried again by itself.
    pub(super) fn expect_no_return(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        peer.resume_at = None;
        peer.stale.drop_all(Source::Peer(peer.index), &mut self.rib);
        self.changed();
    }
}
