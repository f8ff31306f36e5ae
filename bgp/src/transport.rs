//! TCP sockets: listening, connecting, moving octets. Decides nothing about BGP.
//!
//! Every connection has a task that reads and a task that writes; both report to the task that
//! owns the [core](crate::core) as [`Arrival`]s. That queue is short, so a reader waits while the
//! core is busy, and the peer's TCP with it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::core::ConnectionId;

/// Reports that may wait for the core; each is at most [`READ_SIZE`] octets.
const QUEUE: usize = 16;
const READ_SIZE: usize = 32 * 1024;
/// Connections that the kernel completes before we accept them.
const BACKLOG: i32 = 1024;
/// How long a connection that is closed may take to get rid of its last octets.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// Pause after an accept that failed: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the sockets report.
#[derive(Debug)]
pub(crate) enum Arrival {
    Accepted {
        stream: TcpStream,
        remote: SocketAddr,
    },
    Connected {
        connection: ConnectionId,
        stream: TcpStream,
    },
    ConnectFailed {
        connection: ConnectionId,
        why: String,
    },
    Received {
        connection: ConnectionId,
        octets: Bytes,
    },
    Written {
        connection: ConnectionId,
        octets: usize,
    },
    Closed {
        connection: ConnectionId,
        why: String,
    },
}

/// A listening socket that could not be opened.
#[derive(Debug)]
pub(crate) struct ListenError {
    pub(crate) address: SocketAddr,
    pub(crate) source: io::Error,
    pub(crate) advice: &'static str,
}

/// All sockets of a speaker. Dropping it closes them.
#[derive(Debug)]
pub(crate) struct Transport {
    arrivals: mpsc::Sender<Arrival>,
    listeners: JoinSet<()>,
    connections: HashMap<ConnectionId, Handle>,
    // Held by every writing task: the receiver ends when the last is gone.
    writing: mpsc::Sender<()>,
    written: mpsc::Receiver<()>,
}

#[derive(Debug)]
enum Handle {
    Connecting(#[expect(dead_code, reason = "aborts when dropped")] JoinSet<()>),
    Open {
        stream: Arc<TcpStream>,
        // The core gives out no more octets than are written, so this is bounded by it. Dropping
        // it makes the writer finish and close.
        orders: mpsc::UnboundedSender<Bytes>,
        #[expect(dead_code, reason = "aborts when dropped")]
        reader: JoinSet<()>,
    },
}

impl Transport {
    /// Opens the listening sockets.
    pub(crate) fn new(
        listen: &[SocketAddr],
    ) -> Result<(Transport, mpsc::Receiver<Arrival>), ListenError> {
        let (arrivals, queue) = mpsc::channel(QUEUE);
        let (writing, written) = mpsc::channel(1);
        let mut listeners = JoinSet::new();
        for address in listen {
            let listener = open_listener(*address).map_err(|source| {
                let advice = listen_advice(source.kind());
                ListenError {
                    address: *address,
                    source,
                    advice,
                }
            })?;
            listeners.spawn(accept(listener, arrivals.clone()));
        }
        let connections = HashMap::new();
        Ok((
            Transport {
                arrivals,
                listeners,
                connections,
                writing,
                written,
            },
            queue,
        ))
    }

    /// Starts to connect.
    pub(crate) fn connect(
        &mut self,
        connection: ConnectionId,
        from: Option<IpAddr>,
        to: SocketAddr,
    ) {
        let arrivals = self.arrivals.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let arrival = match connect(from, to).await {
                Ok(stream) => Arrival::Connected { connection, stream },
                Err(why) => Arrival::ConnectFailed { connection, why },
            };
            // Fails only when the core is gone.
            let _ = arrivals.send(arrival).await;
        });
        self.connections
            .insert(connection, Handle::Connecting(task));
    }

    /// Whether the connection is still wanted.
    pub(crate) fn knows(&self, connection: ConnectionId) -> bool {
        self.connections.contains_key(&connection)
    }

    /// Starts to read and write.
    pub(crate) fn open(&mut self, connection: ConnectionId, stream: TcpStream) {
        // Messages go out when they are made; a kernel that refuses this only delays them.
        let _ = stream.set_nodelay(true);
        let stream = Arc::new(stream);
        let (orders, queue) = mpsc::unbounded_channel();
        let mut reader = JoinSet::new();
        reader.spawn(read(connection, stream.clone(), self.arrivals.clone()));
        tokio::spawn(write(
            connection,
            stream.clone(),
            queue,
            self.arrivals.clone(),
            self.writing.clone(),
        ));
        self.connections.insert(
            connection,
            Handle::Open {
                stream,
                orders,
                reader,
            },
        );
    }

    /// Queues octets for writing.
    pub(crate) fn send(&mut self, connection: ConnectionId, octets: Bytes) {
        if let Some(Handle::Open { orders, .. }) = self.connections.get(&connection) {
            // A writer that failed has reported so.
            let _ = orders.send(octets);
        }
    }

    /// Closes the connection once everything queued is written, or gives up connecting.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }

    /// Octets written to the connection that the peer's TCP has not acknowledged.
    pub(crate) fn unacknowledged(&self, connection: ConnectionId) -> usize {
        match self.connections.get(&connection) {
            Some(Handle::Open { stream, .. }) => unacknowledged(stream).unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether any connection has octets that no reader has taken yet.
    pub(crate) fn has_unread(&self) -> bool {
        self.connections.values().any(|handle| match handle {
            Handle::Open { stream, .. } => unread(stream).is_ok_and(|count| count > 0),
            _ => false,
        })
    }

    /// Accepts nothing more, and waits until all connections that were closed are gone; bounded.
    pub(crate) async fn finish(mut self) {
        self.listeners.abort_all();
        self.connections.clear();
        drop(self.writing);
        // Every writer ends within its time; the receiver yields nothing but the end.
        self.written.recv().await;
    }
}

fn open_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn listen_advice(kind: io::ErrorKind) -> &'static str {
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

async fn accept(listener: TcpListener, arrivals: mpsc::Sender<Arrival>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                if arrivals
                    .send(Arrival::Accepted { stream, remote })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connect(from: Option<IpAddr>, to: SocketAddr) -> Result<TcpStream, String> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let socket = socket.map_err(|error| in_words(&error))?;
    if let Some(from) = from {
        socket
            .bind(SocketAddr::new(from, 0))
            .map_err(|error| format!("cannot use local_address {from}: {}", in_words(&error)))?;
    }
    socket.connect(to).await.map_err(|error| in_words(&error))
}

/// The kernel's words without the number.
fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    words.to_lowercase()
}

async fn read(connection: ConnectionId, stream: Arc<TcpStream>, arrivals: mpsc::Sender<Arrival>) {
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

async fn write(
    connection: ConnectionId,
    stream: Arc<TcpStream>,
    mut orders: mpsc::UnboundedReceiver<Bytes>,
    arrivals: mpsc::Sender<Arrival>,
    _writing: mpsc::Sender<()>,
) {
    while let Some(octets) = orders.recv().await {
        let written = tokio::select! {
            biased;
            written = write_all(&stream, &octets) => written,
            // A peer that does not read must not keep a connection that is closed.
            () = closed_for(&orders, CLOSE_TIME) => return,
        };
        match written {
            Ok(()) => {
                let octets = octets.len();
                // The core may have forgotten the connection, or be gone itself.
                let _ = arrivals.send(Arrival::Written { connection, octets }).await;
            }
            Err(error) => {
                let why = in_words(&error);
                let _ = arrivals.send(Arrival::Closed { connection, why }).await;
                return;
            }
        }
    }
    linger(&stream).await;
}

/// Ends a while after the connection was closed by us.
async fn closed_for(orders: &mpsc::UnboundedReceiver<Bytes>, time: Duration) {
    while !orders.is_closed() {
        tokio::time::sleep(time / 10).await;
    }
    tokio::time::sleep(time).await;
}

async fn write_all(stream: &TcpStream, mut octets: &[u8]) -> io::Result<()> {
    while !octets.is_empty() {
        stream.writable().await?;
        match stream.try_write(octets) {
            Ok(count) => octets = &octets[count..],
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

fn unacknowledged(stream: &TcpStream) -> io::Result<usize> {
    let mut count: nix::libc::c_int = 0;
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and SIOCOUTQ (the same
    // number as TIOCOUTQ) writes one int to where `count` lives.
    unsafe { outstanding(stream.as_raw_fd(), &mut count) }?;
    Ok(usize::try_from(count).unwrap_or(0))
}

fn unread(stream: &TcpStream) -> io::Result<usize> {
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
