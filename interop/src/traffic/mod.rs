//! Real traffic between namespaces: numbered UDP packets counted at the far end, ping, and a page
//! fetched over HTTP. The sender and the receiver are two threads of this process with a socket
//! each in its own namespace; all that is between them is the kernel and the product.

mod batch;
pub mod http;
pub mod numbered;
pub mod ping;

use std::io;

use netlink::Namespace;

/// A socket or thread of the lab's own could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{place}: cannot {action}")]
pub struct TrafficError {
    /// The namespace and address.
    pub place: String,
    /// What was tried.
    pub action: &'static str,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

impl TrafficError {
    fn at(place: impl ToString, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let place = place.to_string();
        move |source| Self {
            place,
            action,
            source,
        }
    }
}

/// Opens something in a namespace, with one kind of error for both steps.
fn inside<T: Send>(
    namespace: &Namespace,
    open: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    namespace.enter(open).map_err(io::Error::other)?
}

/// The last part of a namespace's path, for messages.
fn name(namespace: &Namespace) -> String {
    let path = namespace.path();
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}
