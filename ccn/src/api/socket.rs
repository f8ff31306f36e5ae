//! The admin socket: bound by one agent at a time, open to root and the socket's group only.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::UnixListener;

/// Who may speak to the agent: owner and group.
const MODE: u32 = 0o660;

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
