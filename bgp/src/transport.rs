//! TCP sockets: listening, connecting, moving octets. Decides nothing about BGP, only who may
//! connect at all.
//!
//! Every connection has a task that reads and a task that writes; both report to the task that
//! owns the [core](crate::core) as [`Arrival`]s. That queue is short, so a reader waits while the
//! core is busy, and the peer's TCP with it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::warn;

use crate::config::{InterfaceName, PeerName};
use crate::core::ConnectionId;

mod admission;
mod connect;
mod key;
mod listen;
mod option;
mod secret;
mod stream;

pub(crate) use admission::Admission;
pub use admission::PeerSecretError;
pub use key::KeyError;
pub(crate) use listen::ListenError;
pub(crate) use secret::Secret;
pub use secret::SecretError;

use option::SocketTerms;

/// Reports that may wait for the core; each is a bounded number of octets.
const QUEUE: usize = 16;
/// Connections that are closed and still get rid of their last octets; those beyond are cut off.
const LINGERING: usize = 256;

/// What the sockets report.
#[derive(Debug)]
pub(crate) enum Arrival {
    Accepted {
        stream: TcpStream,
        source: Source,
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

/// Where a connection comes from, and the terms it is under.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) remote: SocketAddr,
    /// Of a link-local address.
    pub(crate) interface: Option<InterfaceName>,
    terms: Arc<SocketTerms>,
}

/// Why the sockets cannot be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    Listen(ListenError),
    Key {
        address: SocketAddr,
        source: KeyError,
    },
}

/// All sockets of a speaker. Dropping it closes them.
#[derive(Debug)]
pub(crate) struct Transport {
    arrivals: mpsc::Sender<Arrival>,
    admission: watch::Sender<Arc<Admission>>,
    listeners: Vec<Listener>,
    refused: Arc<AtomicU64>,
    connections: HashMap<ConnectionId, Handle>,
    lingering: Arc<Semaphore>,
    // Held by every writing task: the receiver ends when the last is gone.
    writing: mpsc::Sender<()>,
    written: mpsc::Receiver<()>,
}

#[derive(Debug)]
struct Listener {
    address: SocketAddr,
    socket: Arc<TcpListener>,
    #[expect(dead_code, reason = "aborts when dropped")]
    task: JoinSet<()>,
}

#[derive(Debug)]
enum Handle {
    Connecting {
        source: Source,
        #[expect(dead_code, reason = "aborts when dropped")]
        task: JoinSet<()>,
    },
    Open {
        source: Source,
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
        admission: Admission,
    ) -> Result<(Transport, mpsc::Receiver<Arrival>), OpenError> {
        let (arrivals, queue) = mpsc::channel(QUEUE);
        let (writing, written) = mpsc::channel(1);
        let mut transport = Transport {
            arrivals,
            admission: watch::Sender::new(Arc::default()),
            listeners: Vec::new(),
            refused: Arc::default(),
            connections: HashMap::new(),
            lingering: Arc::new(Semaphore::new(LINGERING)),
            writing,
            written,
        };
        transport.admit(listen, admission)?;
        Ok((transport, queue))
    }

    /// Listens at these addresses and lets in those that are known now. Connections that are
    /// open get their new keys and stay.
    ///
    /// # Errors
    /// A new address that cannot be listened on, or a key that the kernel refuses; then all is as
    /// it was, save for keys that have been changed already.
    pub(crate) fn admit(
        &mut self,
        listen: &[SocketAddr],
        admission: Admission,
    ) -> Result<(), OpenError> {
        let admission = Arc::new(admission);
        let before = self.admission.borrow().clone();
        let mut opened = Vec::new();
        for address in listen {
            if self.listeners.iter().any(|known| known.address == *address) {
                continue;
            }
            let socket = listen::open(*address).map_err(OpenError::Listen)?;
            give_keys(&socket, *address, &Admission::default(), &admission)?;
            opened.push((*address, Arc::new(socket)));
        }
        for Listener {
            address, socket, ..
        } in &self.listeners
        {
            give_keys(socket, *address, &before, &admission)?;
        }
        self.listeners
            .retain(|listener| listen.contains(&listener.address));
        self.admission.send_replace(admission.clone());
        for (address, socket) in opened {
            let mut task = JoinSet::new();
            task.spawn(listen::accept(
                socket.clone(),
                self.admission.subscribe(),
                self.refused.clone(),
                self.arrivals.clone(),
            ));
            self.listeners.push(Listener {
                address,
                socket,
                task,
            });
        }
        for handle in self.connections.values_mut() {
            handle.follow(&admission);
        }
        Ok(())
    }

    /// How many connections were closed because nobody is known where they came from.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Starts to connect to a peer.
    pub(crate) fn connect(
        &mut self,
        connection: ConnectionId,
        peer: &PeerName,
        from: Option<IpAddr>,
        to: SocketAddr,
    ) {
        // A peer of the core is a peer of ours: both follow one configuration.
        let Some(terms) = self.admission.borrow().of_peer(peer).cloned() else {
            return;
        };
        let source = Source {
            remote: to,
            interface: terms.interface.clone(),
            terms: terms.clone(),
        };
        let arrivals = self.arrivals.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let arrival = match connect::connect(&terms, from, to).await {
                Ok(stream) => Arrival::Connected { connection, stream },
                Err(why) => Arrival::ConnectFailed { connection, why },
            };
            // Fails only when the core is gone.
            let _ = arrivals.send(arrival).await;
        });
        self.connections
            .insert(connection, Handle::Connecting { source, task });
    }

    /// Starts to read and write on a connection that was asked for; false when it is not wanted
    /// any more.
    pub(crate) fn connected(&mut self, connection: ConnectionId, stream: TcpStream) -> bool {
        let Some(handle) = self.connections.get(&connection) else {
            return false;
        };
        let source = handle.source().clone();
        self.open(connection, source, stream);
        true
    }

    /// Starts to read and write.
    pub(crate) fn open(&mut self, connection: ConnectionId, source: Source, stream: TcpStream) {
        // Messages go out when they are made; a kernel that refuses this only delays them.
        let _ = stream.set_nodelay(true);
        let stream = Arc::new(stream);
        let (orders, queue) = mpsc::unbounded_channel();
        let mut reader = JoinSet::new();
        reader.spawn(stream::read(
            connection,
            stream.clone(),
            self.arrivals.clone(),
        ));
        tokio::spawn(stream::write(
            connection,
            stream.clone(),
            queue,
            self.arrivals.clone(),
            self.lingering.clone(),
            self.writing.clone(),
        ));
        let handle = Handle::Open {
            source,
            stream,
            orders,
            reader,
        };
        self.connections.insert(connection, handle);
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
            Some(Handle::Open { stream, .. }) => stream::unacknowledged(stream).unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether any connection has octets that no reader has taken yet.
    pub(crate) fn has_unread(&self) -> bool {
        self.connections.values().any(|handle| match handle {
            Handle::Open { stream, .. } => stream::unread(stream).is_ok_and(|count| count > 0),
            Handle::Connecting { .. } => false,
        })
    }

    /// Accepts nothing more, and waits until all connections that were closed are gone; bounded.
    pub(crate) async fn finish(mut self) {
        self.listeners.clear();
        self.connections.clear();
        drop(self.writing);
        // Every writer ends within its time; the receiver yields nothing but the end.
        self.written.recv().await;
    }
}

impl Handle {
    fn source(&self) -> &Source {
        match self {
            Handle::Connecting { source, .. } | Handle::Open { source, .. } => source,
        }
    }

    /// Gives an open connection the key that its peer has now. Everything else in the terms is
    /// for connections to come; the core ends this one if it must not go on.
    fn follow(&mut self, admission: &Admission) {
        let Handle::Open { source, stream, .. } = self else {
            return;
        };
        let Some(terms) = admission.of_source(source.remote.ip(), source.interface.as_ref()) else {
            return;
        };
        if terms.key == source.terms.key {
            return;
        }
        let (old, new) = (source.terms.key.as_ref(), terms.key.as_ref());
        match option::rekey(&**stream, source.terms.whom, old, new) {
            Ok(()) => source.terms = terms.clone(),
            Err(error) => warn!(remote = %source.remote, %error, "a session keeps its old key"),
        }
    }
}

fn give_keys(
    socket: &TcpListener,
    address: SocketAddr,
    before: &Admission,
    now: &Admission,
) -> Result<(), OpenError> {
    listen::admit(socket, address.ip(), before, now)
        .map_err(|source| OpenError::Key { address, source })
}
