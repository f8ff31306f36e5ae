//! Bidirectional Forwarding Detection (RFC 5880): whether the path to a peer carries packets, known
//! within milliseconds. Knows nothing of BGP.
//!
//! From the ground up: [`packet`] and [`auth`] (octets), [`session`] (one session, sans-IO),
//! [`event`] (what the user is told), [`endpoint`] (all sessions, still without sockets or clock),
//! and the engine, a thread that runs them. [`Bfd`] is the handle of that thread.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::{mpsc, oneshot};

pub mod auth;
pub mod endpoint;
mod engine;
pub mod event;
pub mod packet;
mod priority;
pub mod session;
mod socket;

pub use endpoint::{AddError, Counters, Path, SessionConfig, SessionId};
pub use event::{Event, Lost, SessionStatus};
pub use packet::{Diagnostic, Packet, State};
pub use session::Terms;
pub use socket::{MULTIHOP_PORT, SINGLE_HOP_PORT};

use engine::{Command, Engine};

/// Events that may wait for the user; then several of one session become one.
const EVENTS: usize = 256;

/// Sessions that run until [`Bfd::stop`], or until every handle is dropped: their peers are told
/// that this is on purpose.
///
/// Cloning is cheap; all clones are the same.
#[derive(Debug, Clone)]
pub struct Bfd {
    link: Arc<Link>,
}

#[derive(Debug)]
struct Link {
    // Taken only when dropped.
    commands: Option<Sender<Command>>,
    waker: Arc<EventFd>,
}

impl Link {
    fn wake(&self) {
        // Fails only when it is due to wake up already.
        let _ = self.waker.write(1);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The thread sees that nobody is left once it wakes up.
        self.commands = None;
        self.wake();
    }
}

impl Bfd {
    /// Starts the thread, without sessions, in the network namespace of the calling one. `seed`
    /// should differ from host to host and from start to start: discriminators come from it.
    /// The receiver gets what happens to the sessions.
    ///
    /// # Errors
    /// When the system has no thread or file descriptor left.
    pub fn start(seed: u64) -> io::Result<(Bfd, mpsc::Receiver<Event>)> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let waker = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let (commands, queue) = channel();
        let (events, told) = mpsc::channel(EVENTS);
        let engine = Engine::new(seed, queue, Arc::clone(&waker), events);
        std::thread::Builder::new()
            .name("bfd".to_owned())
            .spawn(|| {
                priority::raise();
                engine.run();
            })?;
        let link = Arc::new(Link {
            commands: Some(commands),
            waker,
        });
        Ok((Bfd { link }, told))
    }

    fn order(&self, command: Command) {
        if let Some(commands) = &self.link.commands {
            // A thread that has ended wants no orders.
            let _ = commands.send(command);
            self.link.wake();
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.order(command(reply));
        answer.await.ok()
    }

    /// Adds a session. Where a port cannot be listened on or packets cannot be sent, that is tried
    /// again and shown in the [status](SessionStatus::error).
    ///
    /// # Errors
    /// When its packets could not be told from another session's, or there are too many.
    pub async fn add(&self, session: SessionConfig) -> Result<SessionId, AddError> {
        self.ask(|reply| Command::Add(session, reply))
            .await
            .unwrap_or(Err(AddError::Stopped))
    }

    /// Removes a session; its peer is told that this is on purpose.
    pub fn remove(&self, session: SessionId) {
        self.order(Command::Remove(session));
    }

    /// Takes a session down until told otherwise, or lets it come up again (RFC 5880 section
    /// 6.8.16).
    pub fn set_admin_down(&self, session: SessionId, down: bool) {
        self.order(Command::SetAdminDown(session, down));
    }

    /// Gives a session other intervals, multiplier or key. It stays up.
    pub fn set_terms(&self, session: SessionId, terms: Terms) {
        self.order(Command::SetTerms(session, terms));
    }

    /// How every session stands.
    pub async fn statuses(&self) -> HashMap<SessionId, SessionStatus> {
        self.ask(Command::Statuses).await.unwrap_or_default()
    }

    /// What became of all packets that arrived.
    pub async fn counters(&self) -> Counters {
        self.ask(Command::Counters).await.unwrap_or_default()
    }

    /// Removes all sessions and ends the thread; returns when their peers have been told, within a
    /// second or so.
    pub async fn stop(&self) {
        // Stopping twice is stopping.
        let _ = self.ask(Command::Stop).await;
    }
}
