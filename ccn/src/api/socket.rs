//! The admin socket: bound by one agent at a time, open to root and the socket's group only, and to so many
//! connections that descriptors are left for what the agent does.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::{debug, info, warn};

/// Who may speak to the agent: owner and group.
const MODE: u32 = 0o660;
/// The most connections at once.
const CONNECTIONS: usize = 256;
/// How long a connection may stay without the head of a request.
const IDLE: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted, as when there are no more descriptors.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Why the socket cannot be had.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Somebody answers on it.
    #[error(
        "another agent listens on {}: stop it first, or set another admin_socket", .path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file that is no socket stands there.
    #[error("{} exists and is no socket: remove it, or set another admin_socket", .path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Binds the admin socket, taking the place of one that a dead agent left.
///
/// # Errors
/// When another agent listens there, or the path cannot be used.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |action| {
        move |source| SocketError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed("create the folder of"))?;
    }
    match UnixStream::connect(path) {
        Ok(_) => {
            return Err(SocketError::InUse {
                path: path.to_owned(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Nobody listens: an agent that was killed left it behind.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let file = fs::symlink_metadata(path)
                .map_err(failed("look at"))?
                .file_type();
            if !std::os::unix::fs::FileTypeExt::is_socket(&file) {
                return Err(SocketError::NotASocket {
                    path: path.to_owned(),
                });
            }
            fs::remove_file(path).map_err(failed("replace"))?;
        }
        Err(source) => return Err(failed("try")(source)),
    }
    // Bound under a private name and renamed into place, so that it is never open to more than
    // it should be, and two agents that start at once do not share it unseen.
    let private = path.with_extension(format!("{}.tmp", std::process::id()));
    let listener = UnixListener::bind(&private).map_err(failed("bind"))?;
    fs::set_permissions(&private, fs::Permissions::from_mode(MODE))
        .map_err(failed("set the mode of"))?;
    fs::rename(&private, path).map_err(failed("put in place"))?;
    Ok(listener)
}

/// Serves whoever connects; for ever.
pub(super) async fn serve(listener: UnixListener, router: Router) {
    let open = Arc::new(Semaphore::new(CONNECTIONS));
    let mut complaint = Complaint::default();
    loop {
        // It is never closed.
        let permit = open.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                complaint.is_settled();
                let router = router.clone();
                let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    router.clone().oneshot(request)
                });
                let serving = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(IDLE)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    if let Err(error) = serving.await {
                        debug!(%error, "a connection to the admin socket ended early");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                complaint.about(&error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Says once that connections cannot be accepted, however often that is tried, and once that they can.
#[derive(Debug, Default)]
pub(crate) struct Complaint {
    is_made: bool,
}

impl Complaint {
    /// One cannot be accepted.
    pub(crate) fn about(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_made, true) {
            warn!(%error, "connections cannot be accepted; what is open goes on");
        }
    }

    /// One was accepted.
    pub(crate) fn is_settled(&mut self) {
        if std::mem::take(&mut self.is_made) {
            info!("connections are accepted again");
        }
    }
}
