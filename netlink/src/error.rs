//! What can go wrong between us and the kernel, in words that name the object and quote the kernel.

use std::fmt;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use thiserror::Error;

/// A failure that is not the refusal of one request of a batch.
#[derive(Debug, Error)]
pub enum Error {
    /// A call on the netlink socket itself failed.
    #[error("netlink socket: {action}: {source}")]
    Socket {
        /// What was being done.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Messages were lost because our receive buffer was full (`ENOBUFS`): what the kernel did or
    /// told meanwhile is unknown, and the caller must dump again.
    #[error("netlink receive buffer overrun: messages were lost, dump again")]
    Overrun,
    /// A dump changed while it was read, in every try (`NLM_F_DUMP_INTR`).
    #[error("the dump of {what} was interrupted by changes {tries} times in a row")]
    Inconsistent {
        /// What was dumped.
        what: String,
        /// How often it was tried.
        tries: u32,
    },
    /// The kernel refused a request.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The kernel sent something that cannot be read.
    #[error("unreadable netlink message in {what}: {detail}")]
    Decode {
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        detail: String,
    },
    /// A network namespace could not be made, opened or entered.
    #[error("network namespace {name}: {action}: {source}")]
    Namespace {
        /// Name or path.
        name: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The kernel has no nftables, or lacks a part of it that is needed.
    #[error("the kernel has no nftables: {detail}")]
    NoNftables {
        /// What was asked, and the kernel's answer.
        detail: String,
    },
    /// A name that no link can have.
    #[error("`{0}` cannot be the name of a link (1 to 15 bytes, without `/`, `:` or spaces)")]
    LinkName(String),
    /// A filter whose place is not said: the kernel would choose one.
    #[error("the {field} of a filter must not be 0")]
    FilterPlace {
        /// `priority` or `handle`.
        field: &'static str,
    },
    /// A name that no program of a filter can have.
    #[error("`{0}` cannot be the name of a filter's program (at most 255 bytes, without zeros)")]
    FilterName(String),
}

impl Error {
    pub(crate) fn decode(what: &str, detail: String) -> Error {
        Error::Decode {
            what: what.to_owned(),
            detail,
        }
    }

    /// The kernel's error number, where the kernel refused a request.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Refused(failure) => Some(failure.errno),
            Error::Socket { source, .. } | Error::Namespace { source, .. } => {
                source.raw_os_error().map(Errno::from_raw)
            }
            _ => None,
        }
    }
}

/// One request that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Failure {
    /// Position in the batch, from 0.
    pub index: usize,
    /// What was asked, for example `add route 10.0.0.0/8 table 100 metric 0`.
    pub request: String,
    /// The kernel's error number.
    pub errno: Errno,
    /// The kernel's explanation (extended acknowledgement), where it gave one.
    pub text: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.request, self.errno.desc())?;
        if let Some(text) = &self.text {
            write!(f, " ({text})")?;
        }
        if self.errno == Errno::EPERM || self.errno == Errno::EACCES {
            write!(f, "; this needs CAP_NET_ADMIN")?;
        }
        Ok(())
    }
}

/// What came of a batch that did not wholly succeed.
#[derive(Debug, Error)]
pub enum BatchError {
    /// Some requests were refused; all others of the batch were carried out.
    #[error("{} of {total} requests refused; first: {}", failures.len(), first(failures))]
    Refused {
        /// One a refused request, by ascending index.
        failures: Vec<Failure>,
        /// Requests in the batch.
        total: usize,
    },
    /// The socket failed or overran: which requests were carried out is unknown.
    #[error("outcome of the batch unknown: {0}")]
    Unknown(#[from] Error),
}

fn first(failures: &[Failure]) -> String {
    failures.first().map(Failure::to_string).unwrap_or_default()
}
