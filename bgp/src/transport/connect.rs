//! Opening a connection under the terms of a peer.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::option::{SocketTerms, TermsError};
use crate::config::{InterfaceName, is_link_local};

/// Connects; the error says what went wrong in the kernel's words and ours.
pub(super) async fn connect(
    terms: &SocketTerms,
    from: Option<IpAddr>,
    to: SocketAddr,
) -> Result<TcpStream, String> {
    let socket = prepare(terms, from, to)?;
    let to = on_link(to.ip(), to.port(), terms.interface.as_ref())?;
    socket.connect(to).await.map_err(|error| in_words(&error))
}

fn prepare(terms: &SocketTerms, from: Option<IpAddr>, to: SocketAddr) -> Result<TcpSocket, String> {
    let words = |error: io::Error| in_words(&error);
    let domain = Domain::for_address(to);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(words)?;
    socket.set_nonblocking(true).map_err(words)?;
    terms.apply(&socket).map_err(|error| match error {
        TermsError::Interface { interface, source } => {
            format!("cannot use interface {interface}: {}", in_words(&source))
        }
        other => other.to_string(),
    })?;
    if let Some(from) = from {
        let address = on_link(from, 0, terms.interface.as_ref())?;
        socket
            .bind(&address.into())
            .map_err(|error| format!("cannot use local_address {from}: {}", in_words(&error)))?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// The address with what it needs to mean something.
fn on_link(
    address: IpAddr,
    port: u16,
    interface: Option<&InterfaceName>,
) -> Result<SocketAddr, String> {
    let (IpAddr::V6(host), Some(interface), true) = (address, interface, is_link_local(address))
    else {
        return Ok(SocketAddr::new(address, port));
    };
    let scope = nix::net::if_::if_nametoindex(interface.as_str())
        .map_err(|_| format!("there is no interface {interface}"))?;
    Ok(SocketAddrV6::new(host, port, 0, scope).into())
}

/// The kernel's words without the number.
pub(super) fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    words.to_lowercase()
}
