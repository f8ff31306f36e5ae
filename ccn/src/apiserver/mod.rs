//! The daemon that takes orders for a cluster: the admin socket's routes over TLS, for those who are known, and
//! etcd behind them. It keeps nothing of its own, so several can run.

mod audit;
mod forget;
mod gate;
mod identity;
mod limits;
mod metrics;
mod office;
mod placement;
mod rehearsal;
mod relay;
mod serve;
mod status;
mod tally;
pub mod tls;
mod verdict;
mod waiting;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::routing::get;
use axum::{Router, middleware};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::agent::StopSignals;
use crate::api;
use crate::api::error::{ApiError, ErrorCode};
use crate::api::openapi;
use crate::config::{ApiConfig, ConfigError, StoreConfig};
use crate::controller::sleep_until;
use crate::inventory::Inventory;
use crate::ledger::{Heard, Ledger, Loading, Opened};
use crate::record::GroupName;
use crate::store::StoreError;
use crate::store::etcd::EtcdStore;
use audit::Audit;
use gate::Gate;
use identity::Identities;
use serve::Tls;
use tally::Tally;

pub(crate) use gate::needed;
pub use identity::{IdentityError, read_token};
pub use office::Server;
pub use status::{GatewayStatus, GoneGateway, LinkCounts, RecordCounts, ServerStatus};
pub use tls::TlsError;

/// Why an API server cannot start, or had to stop.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be had, or broke.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its certificate, or those of its clients.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A token.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The address cannot be had.
    #[error("listen: {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The address for metrics cannot be had.
    #[error(transparent)]
    Metrics(#[from] crate::metrics::ListenError),
    /// The audit log cannot be had.
    #[error("audit_log: {}: {source}", path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system gave no signal.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Checks what a configuration names, without running.
///
/// # Errors
/// A file that cannot be read or used.
pub fn check(config: &ApiConfig) -> Result<(), ServerError> {
    tls::server(config)?;
    Identities::read(config)?;
    Ok(())
}

/// Runs an API server until SIGTERM or SIGINT. SIGHUP has certificates and tokens read again.
///
/// # Errors
/// See [`ServerError`].
pub async fn run(config: ApiConfig, path: PathBuf) -> Result<(), ServerError> {
    let tls = Tls::new(tls::server(&config)?);
    let tally = Tally::default();
    let gate = Gate::new(Identities::read(&config)?, &config.limits, tally.clone());
    let audit = Audit::open(&config.audit_log).map_err(|source| ServerError::Audit {
        path: config.audit_log.clone(),
        source,
    })?;
    let address = config.listen;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| ServerError::Listen { address, source })?;
    let address = listener.local_addr()?;
    let scrapes = crate::metrics::listen(config.metrics.as_ref()).await?;
    let store = open_store(&config.store)?;
    let abilities_of = |inventory: &Inventory, group: &GroupName| inventory.abilities_of(group);
    let settling = |records| info!(records, "the records are read");
    let loading = Loading::begin(Arc::new(store.clone()));
    let opened = Ledger::open(loading, Box::new(abilities_of), settling);
    let Opened { ledger, handle, .. } = opened.await?;
    crate::memory::give_back();

    let server = Server::new(handle, store, audit.clone(), tally.clone());
    if let Some(listener) = scrapes {
        tokio::spawn(crate::metrics::serve(listener, server.clone()));
    }
    let router = router(server, gate.clone(), tally.clone());
    let (stop, stopping) = watch::channel(false);
    let serving = serve::serve(
        listener,
        tls.clone(),
        router,
        config.limits.connections,
        tally,
        stopping,
    );
    let serving = tokio::spawn(serving);
    let mut stop_signals = StopSignals::new()?;
    crate::agent::notify(&[sd_notify::NotifyState::Ready]);
    info!(%address, "the API server is ready");
    let outcome = tokio::select! {
        driven = drive(ledger) => driven.map_err(ServerError::Store),
        () = stop_signals.next() => Ok(()),
        hung_up = on_hang_up(&path, &tls, &gate, &audit) => hung_up.map_err(ServerError::Io),
    };
    crate::agent::notify(&[sd_notify::NotifyState::Stopping]);
    stop.send_replace(true);
    // It ends by itself, in bounded time.
    let _ = serving.await;
    outcome
}

fn open_store(config: &StoreConfig) -> Result<EtcdStore, StoreError> {
    match config {
        // What it knows it can ask for again: a snapshot would be of no use to anybody.
        StoreConfig::Etcd(etcd) => Ok(EtcdStore::without_snapshot(etcd.clone())),
        StoreConfig::Embedded { path } => Err(StoreError::Refused {
            detail: format!("{} is the store of one machine", path.display()),
        }),
    }
}

/// Has the ledger go on, for ever.
async fn drive(mut ledger: Ledger) -> Result<(), StoreError> {
    loop {
        ledger.turn();
        let timeout = ledger.next_timeout();
        tokio::select! {
            heard = ledger.next() => if let Heard::Closed = heard? {
                return Ok(());
            },
            () = sleep_until(timeout) => ledger.on_time(),
        }
    }
}

/// All routes: what agents serve of records and links, for those who pass the gate.
fn router(server: Server, gate: Gate, tally: Tally) -> Router {
    let health = Router::new().route("/healthz", get(async || "ok\n"));
    let guarded = api::common::<Server>()
        .merge(relay::routes())
        .merge(forget::routes())
        .route(openapi::PATH, get(openapi::of_api_server))
        .fallback(not_here)
        .layer(middleware::from_fn_with_state(gate, gate::pass))
        .layer(middleware::from_fn_with_state(tally, tally::measure))
        .with_state(server);
    health.merge(guarded)
}

async fn not_here() -> ApiError {
    ApiError::new(
        ErrorCode::NoSuchRoute,
        "an API server has no such route; what concerns one gateway is asked and ordered below \
         /v1/gateways/GATEWAY/ (ccn --gateway)",
    )
}

/// Reads certificates and tokens again at every SIGHUP, and opens the audit log anew.
async fn on_hang_up(
    path: &std::path::Path,
    tls: &Tls,
    gate: &Gate,
    audit: &Audit,
) -> io::Result<()> {
    let mut hang_up = signal(SignalKind::hangup())?;
    while hang_up.recv().await.is_some() {
        if let Err(error) = audit.reopen() {
            warn!(%error, "the audit log cannot be opened anew");
        }
        let read = || -> Result<_, ServerError> {
            let config = ApiConfig::read(path)?;
            Ok((tls::server(&config)?, Identities::read(&config)?))
        };
        match read() {
            Ok((config, identities)) => {
                tls.exchange(config);
                gate.know(identities);
                info!("certificates and tokens are read again");
            }
            Err(error) => warn!(%error, "the configuration was not taken"),
        }
    }
    Ok(())
}
