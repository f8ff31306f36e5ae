//! What is set on a socket: who may be at its other end, by which way and how far away, and how
//! its packets are marked.

use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use ipnet::IpNet;
use nix::libc;
use socket2::Socket;

use super::key::{Key, KeyError};
use crate::config::{Hops, InterfaceName};

/// DSCP CS6, network control (RFC 4594 section 3.2), in its place in the octet.
pub(crate) const CS6: u32 = 0xc0;

/// How connections with a peer, or with the peers of a prefix, are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SocketTerms {
    /// Whom these terms are for: a host, or all of a prefix.
    pub(crate) whom: IpNet,
    /// The interface it goes by.
    pub(crate) interface: Option<InterfaceName>,
    /// How far.
    pub(crate) hops: Hops,
    /// What authenticates it.
    pub(crate) key: Option<Key>,
}

/// A socket cannot be made what it has to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TermsError {
    #[error("cannot set {what}: {source}")]
    Option {
        what: &'static str,
        source: io::Error,
    },
    #[error("cannot use interface {interface}: {source}")]
    Interface {
        interface: InterfaceName,
        source: io::Error,
    },
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl SocketTerms {
    /// Applies the terms to a socket that is about to connect.
    pub(crate) fn apply(&self, socket: &Socket) -> Result<(), TermsError> {
        if let Some(interface) = &self.interface {
            socket
                .bind_device(Some(interface.as_str().as_bytes()))
                .map_err(|source| TermsError::Interface {
                    interface: interface.clone(),
                    source,
                })?;
        }
        mark(socket, self.whom.addr())?;
        self.limit(socket)?;
        if let Some(key) = &self.key {
            key.put(socket, self.whom)?;
        }
        Ok(())
    }

    /// Applies the terms to a connection that the peer has opened: its key has come with it from
    /// the listening socket.
    pub(crate) fn apply_accepted(&self, socket: &Socket) -> Result<(), TermsError> {
        mark(socket, self.whom.addr())?;
        self.limit(socket)
    }

    /// How far packets go, and may have come.
    fn limit(&self, socket: &Socket) -> Result<(), TermsError> {
        let (ttl, least) = (u32::from(self.hops.ttl()), self.hops.least());
        let sent = match self.whom {
            IpNet::V4(_) => socket.set_ttl_v4(ttl),
            IpNet::V6(_) => socket.set_unicast_hops_v6(ttl),
        };
        sent.map_err(|source| TermsError::Option {
            what: "the TTL",
            source,
        })?;
        if least == 0 {
            return Ok(());
        }
        set_least_ttl(socket, self.whom.addr(), least).map_err(|source| TermsError::Option {
            what: "ttl_security",
            source,
        })
    }
}

/// Marks what the socket sends as network control.
pub(crate) fn mark(socket: &Socket, address: IpAddr) -> Result<(), TermsError> {
    let marked = match address {
        IpAddr::V4(_) => socket.set_tos_v4(CS6),
        IpAddr::V6(_) => socket.set_tclass_v6(CS6),
    };
    marked.map_err(|source| TermsError::Option {
        what: "the DSCP",
        source,
    })
}

/// Lets the kernel drop packets of a lower TTL or hop limit than this (RFC 5082).
pub(crate) fn set_least_ttl(socket: &impl AsFd, address: IpAddr, least: u8) -> io::Result<()> {
    let (level, option) = match address {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
    };
    set_option(socket, level, option, &libc::c_int::from(least))
}

/// Whether a new key can be put on this open connection, and puts it there.
pub(crate) fn rekey(
    socket: &impl AsFd,
    whom: IpNet,
    old: Option<&Key>,
    new: Option<&Key>,
) -> Result<(), KeyError> {
    match (old, new) {
        (old, Some(new)) => {
            new.put(socket, whom)?;
            // Two keys of TCP-AO may stand side by side; the one that is not meant goes.
            match old {
                Some(old @ Key::Ao { .. }) if old != new => old.take(socket, whom),
                _ => Ok(()),
            }
        }
        (Some(old), None) => old.take(socket, whom),
        (None, None) => Ok(()),
    }
}

/// Makes the kernel end a connection at once and without a trace, by a reset.
pub(crate) fn drop_hard(socket: &Socket) {
    // If it fails, the connection is closed in the ordinary way.
    let _ = socket.set_linger(Some(std::time::Duration::ZERO));
}

/// setsockopt(2) of a plain C structure or number.
pub(super) fn set_option<T>(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel reads
    // `size_of::<T>()` octets from where `value` lives and keeps no reference to it.
    let status = unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    match status {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use socket2::{Domain, Type};

    use super::*;

    fn least_ttl(socket: &Socket, address: IpAddr) -> libc::c_int {
        let (level, option) = match address {
            IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
            IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
        };
        let mut value = MaybeUninit::<libc::c_int>::zeroed();
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the descriptor is open, and the kernel writes at most `length` octets, those of
        // an int, to where `value` lives. Any octets are an int.
        unsafe {
            let status = libc::getsockopt(
                socket.as_raw_fd(),
                level,
                option,
                value.as_mut_ptr().cast(),
                &mut length,
            );
            assert_eq!(status, 0, "{}", io::Error::last_os_error());
            value.assume_init()
        }
    }

    #[test]
    fn sockets_are_marked_and_limited() {
        for (address, hops, ttl, least) in [
            ("10.99.0.2", Hops::Reach(1), 1, 0),
            ("10.99.0.2", Hops::Within(2), 255, 254),
            ("fd99::2", Hops::Reach(64), 64, 0),
            ("fd99::2", Hops::Within(1), 255, 255),
        ] {
            let address: IpAddr = address.parse().unwrap();
            let terms = SocketTerms {
                whom: address.into(),
                interface: None,
                hops,
                key: None,
            };
            let domain = match address {
                IpAddr::V4(_) => Domain::IPV4,
                IpAddr::V6(_) => Domain::IPV6,
            };
            for accepted in [false, true] {
                let socket = Socket::new(domain, Type::STREAM, None).unwrap();
                match accepted {
                    false => terms.apply(&socket).unwrap(),
                    true => terms.apply_accepted(&socket).unwrap(),
                }
                let (sent, class) = match address {
                    IpAddr::V4(_) => (socket.ttl_v4().unwrap(), socket.tos_v4().unwrap()),
                    IpAddr::V6(_) => {
                        let hops = socket.unicast_hops_v6().unwrap();
                        (hops, socket.tclass_v6().unwrap())
                    }
                };
                let seen = (sent, least_ttl(&socket, address), class);
                assert_eq!(seen, (ttl, least, CS6), "{terms:?}");
            }
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let terms = SocketTerms {
            whom: "10.99.0.2".parse::<IpAddr>().unwrap().into(),
            interface: Some("nosuch0".parse().unwrap()),
            hops: Hops::Reach(1),
            key: None,
        };
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let error = terms.apply(&socket).unwrap_err().to_string();
        assert!(error.contains("interface nosuch0"), "{error}");
    }
}
