//! Many UDP packets with one system call: what a generator of 100,000 packets a second on two CPUs
//! needs, beside the network that is to carry them.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

/// Packets a system call, at most.
pub(super) const MOST: usize = 32;
/// Octets kept of a packet that arrives.
const LENGTH: usize = 2048;

/// Where packets that arrive are kept until they are counted.
pub(super) type Buffers = Vec<[u8; LENGTH]>;

pub(super) fn buffers() -> Buffers {
    vec![[0; LENGTH]; MOST]
}

/// Sends these payloads, at most [`MOST`] of them, in order. Answers how many the kernel took: a first
/// packet that it refuses is an error, a later one ends the batch.
///
/// # Errors
/// The kernel refuses the first packet.
pub(super) fn send(
    socket: &UdpSocket,
    to: SocketAddr,
    payloads: &[Vec<u8>],
) -> Result<usize, Errno> {
    let slices: Vec<[IoSlice<'_>; 1]> = payloads
        .iter()
        .take(MOST)
        .map(|payload| [IoSlice::new(payload)])
        .collect();
    let addresses = vec![Some(SockaddrStorage::from(to)); slices.len()];
    let mut headers = MultiHeaders::preallocate(slices.len(), None);
    let sent = sendmmsg(
        socket.as_raw_fd(),
        &mut headers,
        &slices,
        addresses,
        [],
        MsgFlags::empty(),
    )?;
    Ok(sent.count())
}

/// Hands on what has arrived, at most [`MOST`] packets; waits for the first as long as the socket's own
/// time limit says. Answers how many there were.
///
/// # Errors
/// Nothing arrived in time, or the kernel says what is wrong.
pub(super) fn receive(
    socket: &UdpSocket,
    buffers: &mut Buffers,
    mut each: impl FnMut(&[u8], SocketAddr),
) -> Result<usize, Errno> {
    let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers
        .iter_mut()
        .map(|buffer| [IoSliceMut::new(buffer)])
        .collect();
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(MOST, None);
    let came = recvmmsg(
        socket.as_raw_fd(),
        &mut headers,
        slices.iter_mut(),
        MsgFlags::MSG_WAITFORONE,
        None,
    )?;
    let mut count = 0;
    for packet in came {
        count += 1;
        let source = packet.address.and_then(from);
        if let (Some(payload), Some(source)) = (packet.iovs().next(), source) {
            each(payload, source);
        }
    }
    Ok(count)
}

fn from(address: SockaddrStorage) -> Option<SocketAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(SocketAddr::V4((*v4).into())),
        (_, Some(v6)) => Some(SocketAddr::V6((*v6).into())),
        _ => None,
    }
}
