//! The UDP sockets of BFD (RFC 5881 sections 4 and 5, RFC 5883 section 5): one to listen on each
//! port and address, one to send from for each session.
//!
//! Knows nothing of what packets say.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::endpoint::{Datagram, SessionConfig, TTL};

/// Where packets of single hop sessions go (RFC 5881 section 4).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// Where packets of multihop sessions go (RFC 5883 section 5).
pub const MULTIHOP_PORT: u16 = 4784;
/// Where they come from (RFC 5881 section 4).
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=u16::MAX;
/// Network control: what a router sends last when it must choose.
const CS6: u32 = 0xc0;
/// Octets of packets that may wait for us: thousands of them.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Attempts to find a source port that is free.
const PORT_ATTEMPTS: u16 = 64;
/// No packet is longer: its length is one octet.
const LONGEST: usize = 256;

/// The port that a session's packets go to.
pub(super) const fn port(multihop: bool) -> u16 {
    match multihop {
        true => MULTIHOP_PORT,
        false => SINGLE_HOP_PORT,
    }
}

/// A socket that packets arrive on.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    multihop: bool,
    ancillary: Vec<u8>,
}

impl Listener {
    /// Listens on an address, or on all of its family when it is unspecified. The address need not
    /// be there yet.
    pub(super) fn open(address: IpAddr, multihop: bool) -> io::Result<Listener> {
        let address = SocketAddr::new(address, port(multihop));
        let socket = udp(address)?;
        match address {
            SocketAddr::V4(_) => {
                socket.set_freebind_v4(true)?;
                setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
                setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            }
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                socket.set_freebind_v6(true)?;
                setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            }
        }
        // Beyond the system's limit where we may: a stranger's flood is not to push out packets of
        // peers.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        socket.bind(&address.into())?;
        Ok(Listener {
            socket,
            multihop,
            ancillary: nix::cmsg_space!([u8; LONGEST]),
        })
    }

    /// Takes at most `most` of the packets that wait. Whether more may be there.
    pub(super) fn receive(&mut self, most: usize, mut take: impl FnMut(&Datagram<'_>)) -> bool {
        let mut buffer = [0; LONGEST];
        for _ in 0..most {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let received = recvmsg::<SockaddrStorage>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut self.ancillary),
                MsgFlags::MSG_DONTWAIT,
            );
            // EAGAIN: that was all. Any other error is one of the socket, cleared by this.
            let Ok(message) = received else {
                return matches!(received, Err(nix::Error::EINTR));
            };
            let (mut ttl, mut to, mut interface) = (0, None, 0);
            for ancillary in message.cmsgs().into_iter().flatten() {
                match ancillary {
                    ControlMessageOwned::Ipv4Ttl(hops)
                    | ControlMessageOwned::Ipv6HopLimit(hops) => {
                        ttl = u8::try_from(hops).unwrap_or_default();
                    }
                    ControlMessageOwned::Ipv4PacketInfo(info) => {
                        let address = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                        to = Some(IpAddr::V4(address));
                        interface = u32::try_from(info.ipi_ifindex).unwrap_or_default();
                    }
                    ControlMessageOwned::Ipv6PacketInfo(info) => {
                        to = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                        interface = info.ipi6_ifindex;
                    }
                    _ => {}
                }
            }
            let from = message.address.as_ref().and_then(source);
            let length = message.bytes;
            if let (Some(from), Some(to), Some(octets)) = (from, to, buffer.get(..length)) {
                take(&Datagram {
                    from,
                    to,
                    interface,
                    ttl,
                    multihop: self.multihop,
                    octets,
                });
            }
        }
        true
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn source(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

/// The socket that a session sends from.
#[derive(Debug)]
pub(super) struct Sender(Socket);

impl Sender {
    /// Binds to our address and the first free source port from `favourite` on.
    pub(super) fn open(session: &SessionConfig, favourite: u16) -> io::Result<Sender> {
        let SessionConfig {
            peer,
            local,
            interface,
            path,
            ..
        } = session;
        let any = match peer {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let local = local.unwrap_or(any);
        let to = on_interface(*peer, port(path.is_multihop()), *interface);
        let socket = udp(to)?;
        match to {
            SocketAddr::V4(_) => {
                socket.set_ttl_v4(TTL.into())?;
                socket.set_tos_v4(CS6)?;
            }
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                socket.set_unicast_hops_v6(TTL.into())?;
                socket.set_tclass_v6(CS6)?;
            }
        }
        let ports = SOURCE_PORTS.clone().count() as u16;
        let first = favourite % ports;
        let mut bound = Err(io::ErrorKind::AddrInUse.into());
        for offset in 0..PORT_ATTEMPTS {
            let port = SOURCE_PORTS.start() + (first + offset) % ports;
            bound = socket.bind(&on_interface(local, port, *interface).into());
            match &bound {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                _ => break,
            }
        }
        bound?;
        // Nobody else may fill its buffer, and the kernel chooses our address once.
        socket.connect(&to.into())?;
        Ok(Sender(socket))
    }

    /// Sends a packet.
    pub(super) fn send(&self, octets: &[u8]) -> io::Result<()> {
        match self.0.send(octets) {
            // That a packet before could not be delivered; the peer is not there yet.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.0.send(octets).map(drop)
            }
            result => result.map(drop),
        }
    }
}

fn udp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn on_interface(address: IpAddr, port: u16, interface: Option<NonZeroU32>) -> SocketAddr {
    match (address, interface) {
        (IpAddr::V6(address), Some(interface)) if address.is_unicast_link_local() => {
            SocketAddrV6::new(address, port, 0, interface.get()).into()
        }
        _ => SocketAddr::new(address, port),
    }
}
