//! BFD sessions as the peers want them: what should be is compared with what is, and the
//! difference made good. Decides nothing about BGP.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::bfd::auth::{Key, KeyError};
use crate::bfd::{self, AddError, Bfd, SessionConfig, SessionId, State, Terms};
use crate::config::{BfdAuth, BfdConfig, InterfaceName, PeerConfig, PeerName};
use crate::event::PeerStatus;
use crate::fsm::State as BgpState;
use crate::transport::{Secret, SecretError};

/// Pause before a session that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Why there is no BFD session with a peer that should have one.
#[derive(Debug, thiserror::Error)]
pub(super) enum BfdError {
    /// Its thread could not be started.
    #[error("BFD cannot be started: {0}")]
    Start(#[from] io::Error),
    /// The key cannot be had.
    #[error("bfd.auth.key_file: {0}")]
    Secret(#[from] SecretError),
    /// The key does not fit the method.
    #[error("bfd.auth.key_file: {0}")]
    Key(#[from] KeyError),
    /// The peer's interface is not there.
    #[error("there is no interface {0}")]
    Interface(InterfaceName),
    /// Refused.
    #[error(transparent)]
    Add(#[from] AddError),
}

/// The sessions and the thread that runs them, which is started with the first.
#[derive(Debug)]
pub(super) struct Paths {
    seed: u64,
    running: Option<(Bfd, mpsc::Receiver<bfd::Event>)>,
    watched: HashMap<PeerName, Watched>,
    retry_at: Option<Instant>,
}

#[derive(Debug)]
struct Watched {
    /// As it was when the session was made.
    config: PeerConfig,
    session: Result<SessionId, BfdError>,
}

impl Paths {
    pub(super) fn new(seed: u64) -> Paths {
        Paths {
            seed,
            running: None,
            watched: HashMap::new(),
            retry_at: None,
        }
    }

    /// Whether there is exactly what these peers want, as far as there can be.
    pub(super) fn suit<'a>(&self, wanted: impl Iterator<Item = &'a PeerConfig>) -> bool {
        let mut count = 0;
        for peer in wanted {
            count += 1;
            let watched = self.watched.get(&peer.name);
            if !watched.is_some_and(|watched| watched.config.same_bfd(peer)) {
                return false;
            }
        }
        count == self.watched.len() && self.retry_at.is_none_or(|at| at > Instant::now())
    }

    /// When to ask [`Paths::suit`] again, though nothing happens.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Makes and removes sessions until there is what these peers want. Returns the peers whose session
    /// was removed, though there may be another one now.
    pub(super) async fn follow(&mut self, wanted: Vec<PeerConfig>) -> Vec<PeerName> {
        let kept = |name: &PeerName, watched: &Watched| {
            let of_name = wanted.iter().find(|peer| peer.name == *name);
            of_name.is_some_and(|peer| watched.config.same_bfd(peer)) && watched.session.is_ok()
        };
        let bfd = self.running.as_ref().map(|(bfd, _)| bfd);
        let mut told = HashMap::new();
        let mut removed = Vec::new();
        self.watched.retain(|name, watched| {
            let keep = kept(name, watched);
            match (&watched.session, bfd) {
                (Ok(session), Some(bfd)) if !keep => {
                    bfd.remove(*session);
                    removed.push(name.clone());
                }
                (Err(error), _) => {
                    told.insert(name.clone(), error.to_string());
                }
                _ => {}
            }
            keep
        });
        self.retry_at = None;
        for config in wanted {
            if self.watched.contains_key(&config.name) {
                continue;
            }
            let session = self.begin(&config).await;
            if let Err(error) = &session {
                let text = error.to_string();
                if told.get(&config.name) != Some(&text) {
                    warn!(peer = %config.name, "no BFD session: {text}");
                }
                self.retry_at = Some(Instant::now() + RETRY);
            }
            let name = config.name.clone();
            self.watched.insert(name, Watched { config, session });
        }
        removed
    }

    async fn begin(&mut self, peer: &PeerConfig) -> Result<SessionId, BfdError> {
        let bfd = peer.bfd.clone().unwrap_or_default();
        let session = session(peer, &bfd)?;
        if self.running.is_none() {
            self.running = Some(Bfd::start(self.seed)?);
        }
        let (handle, _) = self.running.as_ref().ok_or(AddError::Stopped)?;
        Ok(handle.add(session).await?)
    }

    /// The next change of a session, and whose it is. Never, as long as there is none.
    pub(super) async fn next(&mut self) -> (PeerName, bfd::Event) {
        loop {
            let event = match &mut self.running {
                Some((_, events)) => events.recv().await,
                None => None,
            };
            let Some(event) = event else {
                return std::future::pending().await;
            };
            let of = |watched: &Watched| matches!(watched.session, Ok(id) if id == event.session);
            // Of a session that has been removed nobody wants to know.
            if let Some((peer, _)) = self.watched.iter().find(|(_, watched)| of(watched)) {
                log(peer, &event);
                return (peer.clone(), event);
            }
        }
    }

    /// Adds what BFD says to the state of peers. It does not hold up whoever calls, only the
    /// result.
    pub(super) fn complete(
        &self,
        mut peers: Vec<PeerStatus>,
    ) -> impl Future<Output = Vec<PeerStatus>> + Send + 'static {
        let handle = self.running.as_ref().map(|(bfd, _)| bfd.clone());
        let sessions: HashMap<PeerName, Result<SessionId, String>> = self
            .watched
            .iter()
            .map(|(name, watched)| {
                let session = watched.session.as_ref().map_err(ToString::to_string);
                (name.clone(), session.copied())
            })
            .collect();
        async move {
            let mut statuses = match handle {
                Some(bfd) if !sessions.is_empty() => bfd.statuses().await,
                _ => HashMap::new(),
            };
            for peer in &mut peers {
                match sessions.get(&peer.name) {
                    Some(Ok(session)) => peer.bfd = statuses.remove(session),
                    Some(Err(error)) => peer.notes.push(format!("no BFD: {error}")),
                    None => {}
                }
                peer.notes
                    .extend(peer.bfd.as_ref().and_then(|bfd| note(peer.state, bfd)));
            }
            peers
        }
    }

    /// Ends all sessions; their peers are told that this is on purpose.
    pub(super) async fn stop(&self) {
        if let Some((bfd, _)) = &self.running {
            bfd.stop().await;
        }
    }
}

fn session(peer: &PeerConfig, bfd: &BfdConfig) -> Result<SessionConfig, BfdError> {
    let interface = match &peer.interface {
        None => None,
        Some(name) => {
            let index = nix::net::if_::if_nametoindex(name.as_str()).unwrap_or_default();
            let index = NonZeroU32::new(index);
            Some(index.ok_or_else(|| BfdError::Interface(name.clone()))?)
        }
    };
    let interval = |ms: u32| Duration::from_millis(ms.into());
    Ok(SessionConfig {
        peer: peer.address,
        local: peer.local_address,
        interface,
        path: peer.bfd_path(bfd),
        terms: Terms {
            min_tx: interval(bfd.min_tx_ms),
            min_rx: interval(bfd.min_rx_ms),
            multiplier: bfd.multiplier,
            passive: bfd.passive,
            key: bfd.auth.as_ref().map(key).transpose()?,
        },
    })
}

fn key(auth: &BfdAuth) -> Result<Key, BfdError> {
    let secret = Secret::read(&auth.key_file)?;
    Ok(Key::new(
        auth.method.method(),
        auth.key_id,
        secret.octets(),
    )?)
}

fn log(peer: &PeerName, event: &bfd::Event) {
    let state = event.state;
    match event.lost {
        Some(lost) if lost.is_failure() => warn!(%peer, %state, "BFD lost the peer: {lost}"),
        Some(lost) => info!(%peer, %state, "BFD: {lost}"),
        None if state == State::Up => info!(%peer, "BFD is up"),
        None => debug!(%peer, %state, "BFD"),
    }
}

/// What is worth knowing of BFD that is not up though BGP is.
fn note(bgp: BgpState, bfd: &bfd::SessionStatus) -> Option<String> {
    if let Some(error) = &bfd.error {
        return Some(format!("BFD is {}: {error}", bfd.state));
    }
    let waits = bgp >= BgpState::OpenConfirm && bfd.state != State::Up;
    waits.then(|| match bfd.remote_state {
        Some(State::AdminDown) => "BFD is down: the peer's operator took it down".to_owned(),
        Some(state) => format!("BFD is {}, the peer's is {state}", bfd.state),
        None => "BFD is down: the peer does not answer; enable BFD for us there".to_owned(),
    })
}
