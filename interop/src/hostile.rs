//! A BGP peer that does not keep the rules: raw octets on a TCP connection, from a namespace of the
//! lab. It can say a proper OPEN first, so as to be let in; what it says then is up to the caller.
//!
//! Nothing of the `bgp` crate is used here: what that would refuse to write is what is needed.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use netlink::Namespace;
use socket2::{Domain, Socket, Type};

/// Octets of a header (RFC 4271 section 4.1).
const HEADER: usize = 19;
/// How long the other side may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The types of messages (RFC 4271 section 4.1).
pub mod kind {
    /// OPEN.
    pub const OPEN: u8 = 1;
    /// UPDATE.
    pub const UPDATE: u8 = 2;
    /// NOTIFICATION.
    pub const NOTIFICATION: u8 = 3;
    /// KEEPALIVE.
    pub const KEEPALIVE: u8 = 4;
}

/// Who the hostile peer says it is.
#[derive(Debug, Clone, Copy)]
pub struct Mask {
    /// Its AS, two octets.
    pub asn: u16,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// The hold time it offers, seconds.
    pub hold_time: u16,
}

impl Mask {
    /// A proper OPEN: IPv4 unicast, 4-octet AS numbers, extended messages.
    pub fn open(&self) -> Vec<u8> {
        let [high, low] = self.asn.to_be_bytes();
        // Multiprotocol for IPv4 unicast; extended messages; 4-octet AS.
        let capabilities = [
            &[1, 4, 0, 1, 0, 1][..],
            &[6, 0][..],
            &[65, 4, 0, 0, high, low][..],
        ]
        .concat();
        let length = capabilities.len() as u8;
        let mut body = vec![4, high, low];
        body.extend(self.hold_time.to_be_bytes());
        body.extend(self.router_id.octets());
        body.extend([length + 2, 2, length]);
        body.extend(capabilities);
        message(kind::OPEN, &body)
    }
}

/// A whole message of any type. Its length is what it is, also where BGP forbids it.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + body.len()) as u16;
    let mut octets = vec![0xff; 16];
    octets.extend(length.to_be_bytes());
    octets.push(kind);
    octets.extend(body);
    octets
}

/// A path attribute (RFC 4271 section 4.3), with a length of two octets.
pub fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let [high, low] = (value.len() as u16).to_be_bytes();
    let mut octets = vec![flags | 0x10, code, high, low];
    octets.extend(value);
    octets
}

/// An UPDATE of these attributes for IPv4 prefixes in wire form, and withdrawals of the same form.
pub fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut body = (withdrawn.len() as u16).to_be_bytes().to_vec();
    body.extend(withdrawn);
    body.extend((attributes.len() as u16).to_be_bytes());
    body.extend(attributes);
    body.extend(nlri);
    message(kind::UPDATE, &body)
}

/// The attributes that every route must have: ORIGIN, AS_PATH of `path`, NEXT_HOP.
pub fn mandatory(path: &[u32], next_hop: Ipv4Addr) -> Vec<u8> {
    let mut segments = Vec::new();
    // A segment counts its members in one octet.
    for piece in path.chunks(255) {
        segments.extend([2, piece.len() as u8]);
        segments.extend(piece.iter().flat_map(|asn| asn.to_be_bytes()));
    }
    [
        attribute(0x40, 1, &[0]),
        attribute(0x40, 2, &segments),
        attribute(0x40, 3, &next_hop.octets()),
    ]
    .concat()
}

/// One connection of a hostile peer. Dropping it closes it.
#[derive(Debug)]
pub struct Hostile {
    stream: TcpStream,
    heard: Vec<u8>,
}

/// What came from the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A message: its type, and what follows the header.
    Message(u8, Vec<u8>),
    /// It closed the connection.
    Closed,
}

impl Hostile {
    /// Connects from `from` in a namespace, and says nothing.
    ///
    /// # Errors
    /// It is refused, or the address is not there.
    pub fn connect(namespace: &Namespace, from: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let connected = namespace.enter(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
            socket.connect_timeout(&to.into(), PATIENCE)?;
            // Every octet on its own when the caller wants it so; and no port is kept afterwards.
            socket.set_tcp_nodelay(true)?;
            socket.set_linger(Some(Duration::ZERO))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(TcpStream::from(socket))
        });
        let stream = connected
            .map_err(io::Error::other)
            .and_then(|inner| inner)?;
        Ok(Self {
            stream,
            heard: Vec::new(),
        })
    }

    /// [`Hostile::connect`], with a proper OPEN and KEEPALIVE: returns when the other side's OPEN and
    /// KEEPALIVE are there, so that the session is established.
    ///
    /// # Errors
    /// It is refused, or the other side says something else.
    pub fn establish(
        namespace: &Namespace,
        from: IpAddr,
        to: SocketAddr,
        mask: &Mask,
    ) -> io::Result<Self> {
        let mut peer = Self::connect(namespace, from, to)?;
        peer.say(&mask.open())?;
        peer.expect(kind::OPEN)?;
        peer.say(&message(kind::KEEPALIVE, &[]))?;
        peer.expect(kind::KEEPALIVE)?;
        Ok(peer)
    }

    fn expect(&mut self, kind: u8) -> io::Result<()> {
        match self.hear()? {
            Heard::Message(heard, _) if heard == kind => Ok(()),
            other => Err(io::Error::other(format!("{other:?} and not type {kind}"))),
        }
    }

    /// Sends octets, whatever they are.
    ///
    /// # Errors
    /// The connection is gone, or the other side reads nothing.
    pub fn say(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets)
    }

    /// Sends octets one by one, each in a segment of its own, evenly spread over `time`.
    ///
    /// # Errors
    /// The connection is gone, or the other side reads nothing.
    pub fn trickle(&mut self, octets: &[u8], time: Duration) -> io::Result<()> {
        let started = Instant::now();
        for (index, octet) in octets.iter().enumerate() {
            let due = time.mul_f64(index as f64 / octets.len() as f64);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
            self.say(&[*octet])?;
        }
        Ok(())
    }

    /// The next message, or the end.
    ///
    /// # Errors
    /// Nothing comes in time, or what comes is no BGP.
    pub fn hear(&mut self) -> io::Result<Heard> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(header) = self.heard.first_chunk::<HEADER>() {
                let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
                let kind = header[18];
                if length < HEADER {
                    return Err(io::Error::other("a message shorter than its header"));
                }
                if self.heard.len() >= length {
                    let rest = self.heard.split_off(length);
                    let message = std::mem::replace(&mut self.heard, rest);
                    return Ok(Heard::Message(kind, message[HEADER..].to_vec()));
                }
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(Heard::Closed),
                Ok(count) => self.heard.extend(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(Heard::Closed);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Listens until the other side says a NOTIFICATION (its code and subcode), or ends without.
    ///
    /// # Errors
    /// As for [`Hostile::hear`].
    pub fn hear_out(&mut self) -> io::Result<Option<(u8, u8)>> {
        loop {
            match self.hear()? {
                Heard::Message(kind::NOTIFICATION, body) => {
                    let [code, subcode, ..] = body[..] else {
                        return Err(io::Error::other("a NOTIFICATION without codes"));
                    };
                    return Ok(Some((code, subcode)));
                }
                Heard::Message(..) => {}
                Heard::Closed => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_laid_out_as_the_rfc_has_it() {
        let mask = Mask {
            asn: 65003,
            router_id: Ipv4Addr::new(10, 99, 0, 3),
            hold_time: 90,
        };
        let open = mask.open();
        assert_eq!(open.len(), 29 + 2 + 14);
        assert_eq!(open[16..19], [0, 45, 1]);
        assert_eq!(open[19..29], [4, 0xfd, 0xeb, 0, 90, 10, 99, 0, 3, 16]);
        let path: Vec<u32> = (0..300).collect();
        let attributes = mandatory(&path, Ipv4Addr::new(10, 99, 0, 3));
        // Flags, code, length; two segments.
        assert_eq!(attributes[..5], [0x50, 1, 0, 1, 0]);
        assert_eq!(attributes[5..11], [0x50, 2, 0x04, 0xb4, 2, 255]);
        let octets = update(&[], &attributes, &[24, 10, 80, 3]);
        assert_eq!(octets.len(), HEADER + 2 + 2 + attributes.len() + 4);
    }
}
