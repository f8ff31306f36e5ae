//! Listening sockets: lets in whom [`Admission`] knows, and is rid of everybody else at once.
//!
//! A connection from elsewhere costs one accept and one close: no task, no timer, no octet read,
//! no word to the core, and one line in the log now and then.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::admission::Admission;
use super::key::KeyError;
use super::option::{drop_hard, mark, rekey, set_least_ttl};
use super::{Arrival, Source};
use crate::config::{InterfaceName, is_link_local};

/// Connections that the kernel completes before we accept them.
const BACKLOG: i32 = 1024;
/// Pause after an accept that failed: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often refused connections are worth a line in the log.
const NOTICE: Duration = Duration::from_secs(10);

/// A listening socket that could not be opened, or not be given its keys.
#[derive(Debug)]
pub(crate) struct ListenError {
    pub(crate) address: SocketAddr,
    pub(crate) source: io::Error,
    pub(crate) advice: &'static str,
}

/// Opens a listening socket, without any key.
pub(super) fn open(address: SocketAddr) -> Result<TcpListener, ListenError> {
    try_open(address).map_err(|source| {
        let advice = advice(source.kind());
        ListenError {
            address,
            source,
            advice,
        }
    })
}

fn try_open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuse_address(true)?;
    // The answer to a peer's SYN leaves from this socket, and must please peers with GTSM.
    let full = u32::from(u8::MAX);
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_unicast_hops_v6(full)?;
    } else {
        socket.set_ttl_v4(full)?;
    }
    if let Err(error) = mark(&socket, address.ip()) {
        debug!(%address, %error, "answers to connections are not marked");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => {
            "another BGP daemon seems to run: stop it, or listen on another address or port"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE: run with it, or listen on \
             another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface has this address: configure it there, or correct the listen address"
        }
        _ => "check the listen address",
    }
}

/// Gives a listening socket the keys and limits of those that may connect now, in place of those
/// that could before.
pub(super) fn admit(
    listener: &TcpListener,
    address: IpAddr,
    before: &Admission,
    now: &Admission,
) -> Result<(), KeyError> {
    let socket = &*SockRef::from(listener);
    let least = now.least_ttl(address);
    if let Err(error) = set_least_ttl(socket, address, least) {
        // Accepted connections are limited anyway.
        debug!(%address, %error, "the kernel does not check the TTL of connection requests");
    }
    for (whom, key) in before.keys(address) {
        if !now.keys(address).any(|(known, _)| known == whom) {
            rekey(socket, whom, Some(key), None)?;
        }
    }
    for (whom, key) in now.keys(address) {
        let old = before.keys(address).find(|(known, _)| *known == whom);
        let old = old.map(|(_, key)| key);
        if old != Some(key) {
            rekey(socket, whom, old, Some(key))?;
        }
    }
    Ok(())
}

/// Accepts until the socket, or whoever is to be told, is gone.
pub(super) async fn accept(
    listener: Arc<TcpListener>,
    admission: watch::Receiver<Arc<Admission>>,
    refused: Arc<AtomicU64>,
    arrivals: mpsc::Sender<Arrival>,
) {
    let mut notices = Notices::default();
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_of_the_connection(&error) => continue,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let interface = interface_of(remote);
        let terms = admission
            .borrow()
            .of_source(remote.ip(), interface.as_ref())
            .cloned();
        let Some(terms) = terms else {
            drop_hard(&SockRef::from(&stream));
            drop(stream);
            refused.fetch_add(1, Ordering::Relaxed);
            if let Some(count) = notices.refused(Instant::now()) {
                info!(%remote, count, "closed connections from sources that are no peers");
            }
            continue;
        };
        if let Err(error) = terms.apply_accepted(&SockRef::from(&stream)) {
            warn!(%remote, %error, "cannot use a connection of a peer");
            continue;
        }
        let source = Source {
            remote,
            interface,
            terms,
        };
        let arrival = Arrival::Accepted { stream, source };
        if arrivals.send(arrival).await.is_err() {
            return;
        }
    }
}

/// Errors of accept(2) that are about the connection, which is gone, not about us.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

/// The interface that a link-local address is on.
fn interface_of(remote: SocketAddr) -> Option<InterfaceName> {
    let SocketAddr::V6(remote) = remote else {
        return None;
    };
    if !is_link_local(IpAddr::V6(*remote.ip())) {
        return None;
    }
    let name = nix::net::if_::if_indextoname(remote.scope_id()).ok()?;
    name.to_str().ok()?.parse().ok()
}

/// Says how often something happened, not every time.
#[derive(Debug, Default)]
struct Notices {
    last: Option<Instant>,
    since: u64,
}

impl Notices {
    /// A connection was refused: how many since the last notice, when it is time for another.
    fn refused(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        let due = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= NOTICE);
        due.then(|| {
            self.last = Some(now);
            std::mem::take(&mut self.since)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_connections_are_told_of_now_and_then() {
        let start = Instant::now();
        let mut notices = Notices::default();
        assert_eq!(notices.refused(start), Some(1));
        for second in 1..10 {
            assert_eq!(notices.refused(start + Duration::from_secs(second)), None);
        }
        assert_eq!(notices.refused(start + NOTICE), Some(10));
        assert_eq!(notices.refused(start + NOTICE), None);
    }
}
