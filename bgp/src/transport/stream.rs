//! Octets of an open connection: a task that reads, a task that writes, and what the kernel still
//! holds.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tracing::debug;

use super::Arrival;
use super::connect::in_words;
use crate::core::ConnectionId;

const READ_SIZE: usize = 32 * 1024;
/// How long a connection that is closed may take to get rid of its last octets.
const CLOSE_TIME: Duration = Duration::from_secs(2);

pub(super) async fn read(
    connection: ConnectionId,
    stream: Arc<TcpStream>,
    arrivals: mpsc::Sender<Arrival>,
) {
    let mut buffer = BytesMut::new();
    let why = loop {
        if let Err(error) = stream.readable().await {
            break in_words(&error);
        }
        buffer.reserve(READ_SIZE);
        match stream.try_read_buf(&mut buffer) {
            Ok(0) => break "the peer closed it".to_owned(),
            Ok(_) => {
                let octets = buffer.split().freeze();
                if arrivals
                    .send(Arrival::Received { connection, octets })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => break in_words(&error),
        }
    };
    // Fails only when the core is gone.
    let _ = arrivals.send(Arrival::Closed { connection, why }).await;
}

pub(super) async fn write(
    connection: ConnectionId,
    stream: Arc<TcpStream>,
    mut orders: mpsc::UnboundedReceiver<Bytes>,
    arrivals: mpsc::Sender<Arrival>,
    lingering: Arc<Semaphore>,
    _writing: mpsc::Sender<()>,
) {
    while let Some(octets) = orders.recv().await {
        let written = tokio::select! {
            biased;
            written = write_all(connection, &stream, &octets, &arrivals) => written,
            // A peer that does not read must not keep a connection that is closed.
            () = closed_for(&orders, CLOSE_TIME) => return,
        };
        if let Err(error) = written {
            let why = in_words(&error);
            let _ = arrivals.send(Arrival::Closed { connection, why }).await;
            return;
        }
    }
    // A peer that opens one connection after the other does not get to keep them all.
    if let Ok(_permit) = lingering.try_acquire() {
        linger(&stream).await;
    }
}

/// Ends a while after the connection was closed by us.
async fn closed_for(orders: &mpsc::UnboundedReceiver<Bytes>, time: Duration) {
    while !orders.is_closed() {
        tokio::time::sleep(time / 10).await;
    }
    tokio::time::sleep(time).await;
}

/// Writes all of it, and reports each part: a peer that reads slowly is to be told from one that
/// does not read.
async fn write_all(
    connection: ConnectionId,
    stream: &TcpStream,
    mut rest: &[u8],
    arrivals: &mpsc::Sender<Arrival>,
) -> io::Result<()> {
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(octets) => {
                rest = &rest[octets..];
                // The core may have forgotten the connection, or be gone itself.
                let _ = arrivals.send(Arrival::Written { connection, octets }).await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Closes without destroying what the peer has not read yet: a socket that is closed with octets
/// unread sends a reset, and the peer may never see our NOTIFICATION.
async fn linger(stream: &TcpStream) {
    // Fails when the connection is gone already.
    let _ = SockRef::from(stream).shutdown(Shutdown::Write);
    let mut waste = [0; 4096];
    let drained = async {
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut waste) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    if tokio::time::timeout(CLOSE_TIME, drained).await.is_err() {
        debug!("a peer did not close its end in time");
    }
}

pub(super) fn unacknowledged(stream: &TcpStream) -> io::Result<usize> {
    let mut count: nix::libc::c_int = 0;
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and SIOCOUTQ (the same
    // number as TIOCOUTQ) writes one int to where `count` lives.
    unsafe { outstanding(stream.as_raw_fd(), &mut count) }?;
    Ok(usize::try_from(count).unwrap_or(0))
}

pub(super) fn unread(stream: &TcpStream) -> io::Result<usize> {
    let mut count: nix::libc::c_int = 0;
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and SIOCINQ (the same number
    // as FIONREAD) writes one int to where `count` lives.
    unsafe { waiting(stream.as_raw_fd(), &mut count) }?;
    Ok(usize::try_from(count).unwrap_or(0))
}

nix::ioctl_read_bad!(
    /// SIOCINQ of tcp(7): octets in the receive queue.
    waiting,
    nix::libc::FIONREAD,
    nix::libc::c_int
);

nix::ioctl_read_bad!(
    /// SIOCOUTQ of tcp(7): octets in the send queue, sent or not, that are not acknowledged.
    outstanding,
    nix::libc::TIOCOUTQ,
    nix::libc::c_int
);
