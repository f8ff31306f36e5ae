//! Keys of TCP segments as the kernel takes them: TCP-MD5 (RFC 2385) and TCP-AO (RFC 5925).
//!
//! The structures are those of linux/tcp.h; libc has neither.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use ipnet::IpNet;
use nix::libc;
use socket2::{SockAddr, SockAddrStorage};

use super::option::set_option;
use super::secret::{MAX_KEY, Secret};
use crate::config::AoAlgorithm;

/// What authenticates the segments of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// TCP-MD5.
    Md5(Secret),
    /// TCP-AO: the key, KeyIDs of what is sent and received, and the algorithm.
    Ao {
        secret: Secret,
        send: u8,
        receive: u8,
        algorithm: AoAlgorithm,
    },
}

const MD5_FLAG_PREFIX: u8 = 1;
const TCP_AO_ADD_KEY: libc::c_int = 38;
const TCP_AO_DEL_KEY: libc::c_int = 39;
/// The length of authentication codes of RFC 5926, in octets.
const AO_CODE: u8 = 12;

/// struct tcp_md5sig
#[repr(C)]
struct Md5Sig {
    address: SockAddrStorage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: libc::c_int,
    key: [u8; MAX_KEY],
}

/// struct tcp_ao_add
#[repr(C, align(8))]
struct AoAdd {
    address: SockAddrStorage,
    algorithm: [u8; 64],
    interface: i32,
    flags: u32,
    reserved: u16,
    prefix_len: u8,
    send: u8,
    receive: u8,
    code_len: u8,
    key_flags: u8,
    key_len: u8,
    key: [u8; MAX_KEY],
}

/// struct tcp_ao_del
#[repr(C, align(8))]
struct AoDel {
    address: SockAddrStorage,
    interface: i32,
    flags: u32,
    reserved: u16,
    prefix_len: u8,
    send: u8,
    receive: u8,
    current: u8,
    next: u8,
    key_flags: u8,
}

impl Key {
    /// Makes the socket send and demand authenticated segments towards these addresses. Replaces
    /// a key of the same kind and addresses: also on a connection that is open, which goes on as
    /// soon as the other side has the new key.
    ///
    /// # Errors
    /// The kernel's, in words that name the way out.
    pub(crate) fn put(&self, socket: &impl AsFd, whom: IpNet) -> Result<(), KeyError> {
        match self {
            Key::Md5(secret) => md5(socket, whom, secret.octets()).map_err(KeyError::Md5),
            Key::Ao {
                secret,
                send,
                receive,
                algorithm,
            } => {
                let add = AoAdd {
                    address: storage(whom),
                    algorithm: padded(algorithm_name(*algorithm).as_bytes()),
                    interface: 0,
                    flags: 0,
                    reserved: 0,
                    prefix_len: whom.prefix_len(),
                    send: *send,
                    receive: *receive,
                    code_len: AO_CODE,
                    key_flags: 0,
                    key_len: secret.octets().len() as u8,
                    key: padded(secret.octets()),
                };
                set_option(socket, libc::IPPROTO_TCP, TCP_AO_ADD_KEY, &add).map_err(KeyError::Ao)
            }
        }
    }

    /// Forgets the key again.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn take(&self, socket: &impl AsFd, whom: IpNet) -> Result<(), KeyError> {
        match self {
            // A key of no octets is none.
            Key::Md5(_) => md5(socket, whom, &[]).map_err(KeyError::Md5),
            Key::Ao { send, receive, .. } => {
                let delete = AoDel {
                    address: storage(whom),
                    interface: 0,
                    flags: 0,
                    reserved: 0,
                    prefix_len: whom.prefix_len(),
                    send: *send,
                    receive: *receive,
                    current: 0,
                    next: 0,
                    key_flags: 0,
                };
                set_option(socket, libc::IPPROTO_TCP, TCP_AO_DEL_KEY, &delete).map_err(KeyError::Ao)
            }
        }
    }
}

/// The kernel does not take a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// TCP-MD5.
    #[error("{}", words(.0, "TCP-MD5", "password_file", "CONFIG_TCP_MD5SIG"))]
    Md5(#[source] io::Error),
    /// TCP-AO.
    #[error("{}", words(.0, "TCP-AO", "tcp_ao", "CONFIG_TCP_AO, Linux 6.7"))]
    Ao(#[source] io::Error),
}

fn words(error: &io::Error, what: &str, field: &str, needs: &str) -> String {
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => format!(
            "this kernel has no {what} (it needs {needs}): take {field} out on both sides, or use \
             another kernel"
        ),
        _ => format!("the kernel refuses the key for {what}: {error}"),
    }
}

fn md5(socket: &impl AsFd, whom: IpNet, key: &[u8]) -> io::Result<()> {
    let host = whom.prefix_len() == whom.max_prefix_len();
    let sig = Md5Sig {
        address: storage(whom),
        flags: if host { 0 } else { MD5_FLAG_PREFIX },
        prefix_len: if host { 0 } else { whom.prefix_len() },
        key_len: key.len() as u16,
        interface: 0,
        key: padded(key),
    };
    let option = match host {
        true => libc::TCP_MD5SIG,
        false => libc::TCP_MD5SIG_EXT,
    };
    match set_option(socket, libc::IPPROTO_TCP, option, &sig) {
        // There was none.
        Err(error) if key.is_empty() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done,
    }
}

fn storage(whom: IpNet) -> SockAddrStorage {
    let address: IpAddr = whom.network();
    SockAddr::from(SocketAddr::new(address, 0)).as_storage()
}

/// As many octets as fit; what is given here always does.
fn padded<const N: usize>(octets: &[u8]) -> [u8; N] {
    let mut field = [0; N];
    for (place, octet) in field.iter_mut().zip(octets) {
        *place = *octet;
    }
    field
}

fn algorithm_name(algorithm: AoAlgorithm) -> &'static str {
    match algorithm {
        AoAlgorithm::HmacSha1 => "hmac(sha1)",
        AoAlgorithm::AesCmac => "cmac(aes128)",
        AoAlgorithm::HmacSha256 => "hmac(sha256)",
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn structures_are_those_of_the_kernel() {
        assert_eq!((size_of::<Md5Sig>(), offset_of!(Md5Sig, key)), (216, 136));
        assert_eq!((size_of::<AoAdd>(), offset_of!(AoAdd, key)), (288, 208));
        assert_eq!(
            (size_of::<AoDel>(), offset_of!(AoDel, key_flags)),
            (144, 143)
        );
    }

    #[test]
    fn a_kernel_without_the_option_is_named() {
        let lacks = || io::Error::from_raw_os_error(libc::ENOPROTOOPT);
        let error = KeyError::Ao(lacks()).to_string();
        assert!(error.contains("this kernel has no TCP-AO"), "{error}");
        assert!(error.contains("take tcp_ao out"), "{error}");
        let error = KeyError::Md5(lacks()).to_string();
        assert!(error.contains("CONFIG_TCP_MD5SIG"), "{error}");
        let denied = KeyError::Ao(io::Error::from_raw_os_error(libc::EACCES)).to_string();
        assert!(denied.contains("Permission denied"), "{denied}");
    }
}
