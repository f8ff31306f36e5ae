//! Connections: TLS, then HTTP, each in a task of its own, and not too many.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::identity::common_name;
use super::tally::{Tally, TurnedAway};
use crate::api::socket::{Complaint, PAUSE};

/// How long a handshake may take, and the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long requests under way may take to end when the server stops.
const GOODBYE: Duration = Duration::from_secs(10);

/// The other end of a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer {
    pub(super) address: Option<IpAddr>,
    /// The common name in its certificate, which somebody signed whom the server trusts.
    pub(super) name: Option<String>,
}

/// The TLS configuration of the connections to come; it may be exchanged.
#[derive(Debug, Clone)]
pub(super) struct Tls(Arc<Mutex<Arc<ServerConfig>>>);

impl Tls {
    pub(super) fn new(config: ServerConfig) -> Self {
        Tls(Arc::new(Mutex::new(Arc::new(config))))
    }

    pub(super) fn exchange(&self, config: ServerConfig) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    fn acceptor(&self) -> TlsAcceptor {
        let config = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        TlsAcceptor::from(config)
    }
}

/// Serves until told to stop, and then ends the requests that are under way.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Tls,
    router: Router,
    connections: usize,
    tally: Tally,
    mut stop: watch::Receiver<bool>,
) {
    let open = Arc::new(Semaphore::new(connections));
    let all = u32::try_from(connections).unwrap_or(u32::MAX);
    let mut complaint = Complaint::default();
    loop {
        let accepted = async {
            let permit = open.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = told(&mut stop) => break,
        };
        match accepted {
            Ok((stream, address)) => {
                complaint.is_settled();
                let connection = connection(
                    stream,
                    address,
                    tls.acceptor(),
                    router.clone(),
                    tally.clone(),
                    stop.clone(),
                );
                let open = tally.connection();
                tokio::spawn(async move {
                    connection.await;
                    drop(open);
                    drop(permit);
                });
            }
            Err(error) => {
                complaint.about(&error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    if timeout(GOODBYE, open.acquire_many(all)).await.is_err() {
        warn!("requests that were under way are broken off");
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    tally: Tally,
    mut stop: watch::Receiver<bool>,
) {
    // An answer is one segment or several at once: waiting for more to send helps nobody.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tally.turned_away(TurnedAway::Handshake);
            return debug!(%address, %error, "no TLS");
        }
        Err(_) => {
            tally.turned_away(TurnedAway::Handshake);
            return debug!(%address, "the TLS handshake took too long");
        }
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let peer = Peer {
        address: Some(address.ip()),
        name: certificates
            .and_then(|chain| chain.first())
            .and_then(|certificate| common_name(certificate)),
    };
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request)
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = told(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        debug!(%address, %error, "a connection ended early");
    }
}

/// Ends when the server is told to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    // Whoever could tell is gone when this fails, and so is the server.
    let _ = stop.wait_for(|stop| *stop).await;
}
