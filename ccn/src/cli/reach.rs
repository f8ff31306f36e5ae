//! Where orders go: an agent's admin socket, or API servers over TLS.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::args::ServerArgs;
use crate::apiserver::{read_token, tls};

/// How long connecting may take, with its handshake.
const CONNECT: Duration = Duration::from_secs(5);

/// Octets to and from the other end.
pub(super) trait Octets: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Octets for T {}

/// One place where orders are taken.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// An admin socket.
    Socket(PathBuf),
    /// An API server.
    Server(Server),
}

/// An API server, and what is shown to it.
#[derive(Clone)]
pub(super) struct Server {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    pub(super) token: Option<String>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Socket(socket) => write!(f, "the agent at {}", socket.display()),
            Place::Server(Server { host, port, .. }) => {
                write!(f, "the API server at {host}:{port}")
            }
        }
    }
}

impl Place {
    /// The places that options name: the API servers, or else the socket.
    ///
    /// # Errors
    /// Names the option at fault.
    pub(super) fn of(socket: &Path, args: &ServerArgs) -> Result<Vec<Place>, String> {
        if args.server.is_empty() {
            return Ok(vec![Place::Socket(socket.to_owned())]);
        }
        let identity = match (&args.cert, &args.key) {
            (Some(cert), Some(key)) => Some((cert.as_path(), key.as_path())),
            (None, None) => None,
            _ => return Err("--cert and --key go together".to_owned()),
        };
        let config = tls::client(&args.ca, identity).map_err(|error| error.to_string())?;
        let tls = Arc::new(config);
        let token = args.token_file.as_deref().map(read_token).transpose()?;
        let servers = args.server.iter().map(|url| {
            let (host, port) = host_and_port(url)
                .ok_or_else(|| format!("--server: {url:?} is no https://HOST:PORT"))?;
            let name = ServerName::try_from(host.clone())
                .map_err(|error| format!("--server: {host:?}: {error}"))?;
            Ok(Place::Server(Server {
                host,
                port,
                name,
                tls: tls.clone(),
                token: token.clone(),
            }))
        });
        servers.collect()
    }

    /// Connects.
    pub(super) async fn connect(&self) -> io::Result<Box<dyn Octets>> {
        match self {
            Place::Socket(socket) => Ok(Box::new(UnixStream::connect(socket).await?)),
            Place::Server(server) => {
                let connecting = async {
                    let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
                    stream.set_nodelay(true)?;
                    let connector = TlsConnector::from(server.tls.clone());
                    connector.connect(server.name.clone(), stream).await
                };
                let connected = timeout(CONNECT, connecting).await;
                let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s");
                Ok(Box::new(connected.map_err(|_| late())??))
            }
        }
    }

    /// What can be done about it.
    pub(super) fn advice(&self, source: &io::Error) -> String {
        let text = match (self, source.kind()) {
            (Place::Socket(_), io::ErrorKind::NotFound) => {
                "no such socket; is `ccn agent` running? (--socket names another)"
            }
            (Place::Socket(_), io::ErrorKind::ConnectionRefused) => {
                "nobody listens on it; is `ccn agent` running?"
            }
            (Place::Socket(_), io::ErrorKind::PermissionDenied) => {
                "permission denied; run as root or as a member of the socket's group"
            }
            (Place::Server(_), io::ErrorKind::ConnectionRefused) => {
                "nobody listens there; is `ccn apiserver` running?"
            }
            _ => return source.to_string(),
        };
        text.to_owned()
    }
}

/// Of `https://HOST:PORT`, with an IPv6 address in brackets.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let rest = url.strip_prefix("https://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inside) => inside.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let is_fine = !host.is_empty() && !host.contains(['/', '@', ' ']);
    is_fine.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_by_host_and_port() {
        for (url, expected) in [
            ("https://api.example:8443", Some(("api.example", 8443))),
            ("https://10.0.0.1:1/", Some(("10.0.0.1", 1))),
            ("https://[::1]:8443", Some(("::1", 8443))),
            ("https://::1:8443", None),
            ("http://api.example:8443", None),
            ("https://api.example", None),
            ("https://api.example:0", None),
            ("https://u@h:1", None),
            ("https://h/x:1", None),
            ("", None),
        ] {
            let read = host_and_port(url);
            let read = read.as_ref().map(|(host, port)| (host.as_str(), *port));
            assert_eq!(read, expected, "{url:?}");
        }
    }
}
