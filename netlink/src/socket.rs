//! The blocking rtnetlink socket: requests, batches with one acknowledgement, dumps.
//!
//! The kernel carries out rtnetlink requests inside `send`, so a batch costs two system calls. It
//! never retries a request: what is not known to have succeeded is an error.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::ParseableParametrized;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::tc::TcMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket as RawSocket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::answer::{Acknowledgement, Listing};
use crate::error::{BatchError, Error, Failure};
use crate::frame::{Frame, NLM_F_ACK, NLM_F_DUMP};
use crate::request::write_message;
use crate::{
    Address, Family, Filter, ForwardingEntry, Hook, Link, Namespace, Neighbour, NewLink, Qdisc,
    Request, Route, RouteFilter, Rule, filter, route_message,
};

/// Requests sent in one system call. Each may be answered by an error message of about 1 KiB of
/// kernel memory, which must fit our receive buffer.
const CHUNK_REQUESTS: usize = 128;
/// Bytes sent in one system call; the send buffer of a socket is 208 KiB by default.
const CHUNK_BYTES: usize = 64 * 1024;
/// Asked of the kernel for the receive buffer; without privileges it gives less, which is enough.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// The kernel writes at most 32 KiB into one datagram, but for single messages larger than that.
pub(crate) const DATAGRAM: usize = 256 * 1024;
/// How often a dump is tried that changes while it is read.
pub(crate) const DUMP_TRIES: u32 = 8;
/// The kernel answers at once; a silence this long is an error, in seconds.
const PATIENCE: i64 = 60;

/// A blocking rtnetlink socket. It belongs to the namespace it was opened in for good.
#[derive(Debug)]
pub struct Socket {
    raw: RawSocket,
    sequence: u32,
    datagram: Vec<u8>,
}

impl Socket {
    /// Opens one in the namespace of the calling thread. Opening and dumping need no privilege.
    ///
    /// # Errors
    /// When the system has no netlink sockets or refuses one.
    pub fn open() -> Result<Socket, Error> {
        let raw = connected(NETLINK_ROUTE)?;
        Ok(Socket {
            raw,
            sequence: 0,
            datagram: Vec::with_capacity(DATAGRAM),
        })
    }

    /// Sets the size of the receive buffer in bytes (4 MiB where the system allows). The answers to
    /// one batch must fit, at about 1 KiB for each of up to 128 refused requests.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn set_receive_buffer(&mut self, bytes: usize) -> Result<(), Error> {
        setsockopt(&self.raw.as_fd(), sockopt::RcvBuf, &bytes).map_err(|errno| Error::Socket {
            action: "size the receive buffer",
            source: errno.into(),
        })
    }

    /// Opens one in another namespace.
    ///
    /// # Errors
    /// As [`Socket::open`], or when the namespace cannot be entered.
    pub fn open_in(namespace: &Namespace) -> Result<Socket, Error> {
        namespace.enter(Socket::open)?
    }

    /// Sends one request and waits for its acknowledgement.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's words, or a failure of the socket.
    pub fn request(&mut self, request: Request) -> Result<(), Error> {
        match self.batch(std::slice::from_ref(&request)) {
            Ok(()) => Ok(()),
            Err(BatchError::Unknown(error)) => Err(error),
            Err(BatchError::Refused { failures, .. }) => failures
                .into_iter()
                .next()
                .map_or(Ok(()), |failure| Err(failure.into())),
        }
    }

    /// Sends requests in order, many a system call, and waits for one acknowledgement a call. A
    /// request that is refused does not keep the ones after it from being carried out.
    ///
    /// # Errors
    /// [`BatchError::Refused`] names each refused request with the kernel's words; every other
    /// request was carried out. [`BatchError::Unknown`] when answers were lost.
    pub fn batch(&mut self, requests: &[Request]) -> Result<(), BatchError> {
        let mut failures = Vec::new();
        let mut buffer = Vec::with_capacity(CHUNK_BYTES + 4096);
        let mut one = Vec::new();
        // Indices of the requests in `buffer`, in order of their sequence numbers.
        let mut chunk = Vec::with_capacity(CHUNK_REQUESTS);
        for (index, request) in requests.iter().enumerate() {
            if let Err(error) = request.check() {
                failures.push(Failure {
                    index,
                    request: request.to_string(),
                    errno: Errno::EINVAL,
                    text: Some(error.to_string()),
                });
                continue;
            }
            one.clear();
            request.write(&mut one, 0, 0);
            let full = chunk.len() == CHUNK_REQUESTS || buffer.len() + one.len() > CHUNK_BYTES;
            if full && !chunk.is_empty() {
                self.send_chunk(&mut buffer, &chunk, requests, &mut failures)?;
                buffer.clear();
                chunk.clear();
            }
            buffer.extend_from_slice(&one);
            chunk.push(index);
        }
        if !chunk.is_empty() {
            self.send_chunk(&mut buffer, &chunk, requests, &mut failures)?;
        }
        if failures.is_empty() {
            Ok(())
        } else {
            failures.sort_by_key(|failure| failure.index);
            Err(BatchError::Refused {
                failures,
                total: requests.len(),
            })
        }
    }

    /// Numbers the messages of `buffer`, asks for an acknowledgement of the last and reads answers
    /// until it comes: errors of the others come before it, in order.
    fn send_chunk(
        &mut self,
        buffer: &mut [u8],
        chunk: &[usize],
        requests: &[Request],
        failures: &mut Vec<Failure>,
    ) -> Result<(), Error> {
        let first = self.sequence.wrapping_add(1);
        let mut at = 0;
        for position in 0..chunk.len() {
            self.sequence = self.sequence.wrapping_add(1);
            let header = &mut buffer[at..at + crate::frame::HEADER];
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            header[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
            if position + 1 == chunk.len() {
                let flags = u16::from_ne_bytes([header[6], header[7]]) | NLM_F_ACK;
                header[6..8].copy_from_slice(&flags.to_ne_bytes());
            }
            at += crate::frame::align(length);
        }
        send(&self.raw, buffer)?;
        let mut answer = Acknowledgement::of(first, chunk.len());
        loop {
            self.receive()?;
            if answer.feed(&self.datagram)? {
                break;
            }
        }
        failures.extend(answer.refusals.into_iter().map(|refusal| {
            let index = chunk[refusal.position];
            let request = requests[index].to_string();
            Failure {
                index,
                request,
                errno: refusal.errno,
                text: refusal.text,
            }
        }));
        Ok(())
    }

    /// All links.
    ///
    /// # Errors
    /// When the socket fails, the dump keeps changing, or the kernel's answer cannot be read.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let ask = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.dump("links", &ask, |message| match message {
            RouteNetlinkMessage::NewLink(message) => Link::from_message(message),
            _ => None,
        })
    }

    /// The link with this name.
    ///
    /// # Errors
    /// As [`Socket::links`]; that there is none is `Ok(None)`.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        crate::link::check_name(name)?;
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let what = format!("link {name}");
        let ask = RouteNetlinkMessage::GetLink(message);
        let take = |frame: &Frame<'_>| match parse(&what, frame)? {
            RouteNetlinkMessage::NewLink(message) => Ok(Link::from_message(message)),
            _ => Ok(None),
        };
        match self.read(&what, &ask, NLM_F_ACK, take) {
            Ok((links, _)) => Ok(links.into_iter().next()),
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a link and reads it back.
    ///
    /// # Errors
    /// When the kernel refuses, for example because the name is taken.
    pub fn create_link(&mut self, link: NewLink) -> Result<Link, Error> {
        let name = link.name().to_owned();
        self.request(Request::add_link(link))?;
        self.link(&name)?
            .ok_or_else(|| Error::decode("a new link", format!("{name} is not there")))
    }

    /// Addresses of all links.
    ///
    /// # Errors
    /// As [`Socket::links`].
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let ask = RouteNetlinkMessage::GetAddress(Default::default());
        self.dump("addresses", &ask, |message| match message {
            RouteNetlinkMessage::NewAddress(message) => Address::from_message(message),
            _ => None,
        })
    }

    /// Routes that pass the filter, in normal form. The kernel does the filtering.
    ///
    /// # Errors
    /// As [`Socket::links`].
    pub fn routes(&mut self, filter: &RouteFilter) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        for family in Family::BOTH {
            if filter.family.is_some_and(|wanted| wanted != family) {
                continue;
            }
            let ask = RouteNetlinkMessage::GetRoute(route_message::dump_message(family, filter));
            let found = self.dump(&format!("{family} routes"), &ask, |message| match message {
                RouteNetlinkMessage::NewRoute(message) => route_message::from_message(message),
                _ => None,
            });
            match found {
                Ok(found) => routes.extend(found),
                // The kernel's way to say that no route was ever put into this table.
                Err(error) if filter.table.is_some() && error.errno() == Some(Errno::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(routes)
    }

    /// The route that a packet which comes in by the link `iif` takes, as it is in its table.
    ///
    /// # Errors
    /// With the kernel's errno when no route takes it, or one that drops it; the addresses are of one
    /// family, or the kernel refuses them.
    pub fn lookup(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        iif: u32,
    ) -> Result<Option<Route>, Error> {
        let what = format!("the route from {source} to {destination}");
        let message = route_message::lookup_message(source, destination, iif);
        let ask = RouteNetlinkMessage::GetRoute(message);
        let take = |frame: &Frame<'_>| match parse(&what, frame)? {
            RouteNetlinkMessage::NewRoute(message) => Ok(route_message::from_message(message)),
            _ => Ok(None),
        };
        let (routes, _) = self.read(&what, &ask, NLM_F_ACK, take)?;
        Ok(routes.into_iter().next())
    }

    /// Policy rules of both families, in the kernel's order. The kernel cannot filter rules, so
    /// `protocol` is applied here.
    ///
    /// # Errors
    /// As [`Socket::links`].
    pub fn rules(&mut self, protocol: Option<u8>) -> Result<Vec<Rule>, Error> {
        let mut rules = Vec::new();
        for family in Family::BOTH {
            let mut message = RuleMessage::default();
            message.header.family = family.address_family();
            let ask = RouteNetlinkMessage::GetRule(message);
            rules.extend(self.dump(&format!("{family} rules"), &ask, |message| {
                match message {
                    RouteNetlinkMessage::NewRule(message) => Rule::from_message(message)
                        .filter(|rule| protocol.is_none_or(|wanted| wanted == rule.protocol)),
                    _ => None,
                }
            })?);
        }
        Ok(rules)
    }

    /// Neighbours of one link, both families.
    ///
    /// # Errors
    /// As [`Socket::links`].
    pub fn neighbours(&mut self, ifindex: u32) -> Result<Vec<Neighbour>, Error> {
        let mut message = NeighbourMessage::default();
        message
            .attributes
            .push(NeighbourAttribute::IfIndex(ifindex));
        let ask = RouteNetlinkMessage::GetNeighbour(message);
        self.dump("neighbours", &ask, |message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => {
                Neighbour::from_message(message).filter(|neighbour| neighbour.ifindex == ifindex)
            }
            _ => None,
        })
    }

    /// Forwarding entries of one bridge port or VXLAN device.
    ///
    /// # Errors
    /// As [`Socket::links`].
    pub fn forwarding_entries(&mut self, ifindex: u32) -> Result<Vec<ForwardingEntry>, Error> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = ifindex;
        let ask = RouteNetlinkMessage::GetNeighbour(message);
        self.dump("forwarding entries", &ask, |message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => {
                ForwardingEntry::from_message(message).filter(|entry| entry.ifindex == ifindex)
            }
            _ => None,
        })
    }

    /// Whether a link has a clsact qdisc, which filters go on.
    ///
    /// # Errors
    /// As [`Socket::links`].
    pub fn has_clsact(&mut self, ifindex: u32) -> Result<bool, Error> {
        // The kernel tells of all links whatever is asked.
        let ask = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let of_link = |qdisc: &Qdisc| qdisc.ifindex == ifindex && qdisc.is_clsact();
        let found = self.dump_frames("qdiscs", &ask, |frame| {
            let read =
                (frame.kind == filter::NEW_QDISC).then(|| Qdisc::from_payload(frame.payload));
            Ok(read.flatten().filter(of_link))
        })?;
        Ok(!found.is_empty())
    }

    /// Filters of a link, of every kind and whoever made them, in the order in which packets meet
    /// them. None if it has no clsact qdisc.
    ///
    /// # Errors
    /// As [`Socket::links`].
    pub fn filters(&mut self, ifindex: u32, hook: Hook) -> Result<Vec<Filter>, Error> {
        let ask = RouteNetlinkMessage::GetTrafficFilter(filter::filters_message(ifindex, hook));
        self.dump_frames("filters", &ask, |frame| {
            let read =
                (frame.kind == filter::NEW_FILTER).then(|| Filter::from_payload(frame.payload));
            // The kernel lists each priority once by itself, as handle 0.
            Ok(read.flatten().filter(|filter| filter.place.handle != 0))
        })
    }

    fn dump<T>(
        &mut self,
        what: &str,
        ask: &RouteNetlinkMessage,
        take: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        self.dump_frames(what, ask, |frame| Ok(take(parse(what, frame)?)))
    }

    fn dump_frames<T>(
        &mut self,
        what: &str,
        ask: &RouteNetlinkMessage,
        take: impl Fn(&Frame<'_>) -> Result<Option<T>, Error>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_TRIES {
            let (found, consistent) = self.read(what, ask, NLM_F_DUMP, &take)?;
            if consistent {
                return Ok(found);
            }
            tracing::debug!(what, "dump interrupted by a change, trying again");
        }
        Err(Error::Inconsistent {
            what: what.to_owned(),
            tries: DUMP_TRIES,
        })
    }

    /// Sends a question and reads its answer to the end; also tells whether it is consistent.
    fn read<T>(
        &mut self,
        what: &str,
        ask: &RouteNetlinkMessage,
        flags: u16,
        take: impl Fn(&Frame<'_>) -> Result<Option<T>, Error>,
    ) -> Result<(Vec<T>, bool), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let mut buffer = Vec::new();
        write_message(&mut buffer, ask, flags, sequence);
        send(&self.raw, &buffer)?;
        let mut listing = Listing::of(sequence);
        loop {
            self.receive()?;
            let Some(verdict) = listing.feed(&self.datagram, &take)? else {
                continue;
            };
            return match verdict.errno {
                None => Ok((listing.found, listing.consistent)),
                Some(errno) => Err(Error::Refused(Failure {
                    index: 0,
                    request: format!("read {what}"),
                    errno,
                    text: verdict.text,
                })),
            };
        }
    }

    fn receive(&mut self) -> Result<(), Error> {
        let outcome = receive(&self.raw, &mut self.datagram, 0);
        if let Err(Error::Overrun) = &outcome {
            // The kernel answers nothing more until what it has answered is read.
            drain(&self.raw, &mut self.datagram, |_| ())?;
        }
        outcome
    }
}

/// A socket of a netlink protocol that speaks with the kernel alone.
pub(crate) fn connected(protocol: isize) -> Result<RawSocket, Error> {
    let fail = |action| move |source| Error::Socket { action, source };
    let mut raw = RawSocket::new(protocol).map_err(fail("open"))?;
    raw.bind_auto().map_err(fail("bind"))?;
    raw.connect(&SocketAddr::new(0, 0))
        .map_err(fail("connect"))?;
    raw.set_ext_ack(true)
        .map_err(fail("ask for extended acknowledgements"))?;
    raw.set_cap_ack(true)
        .map_err(fail("ask for short acknowledgements"))?;
    raw.set_netlink_get_strict_chk(true)
        .map_err(fail("ask for strict dumps"))?;
    let fd = raw.as_fd();
    enlarge_receive_buffer(fd, RECEIVE_BUFFER);
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0)).map_err(|errno| {
        Error::Socket {
            action: "set a timeout",
            source: errno.into(),
        }
    })?;
    Ok(raw)
}

/// Sends all of it in one system call.
pub(crate) fn send(raw: &RawSocket, bytes: &[u8]) -> Result<(), Error> {
    loop {
        match raw.send(bytes, 0) {
            Ok(_) => return Ok(()),
            Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
            Err(source) if source.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                return Err(Error::Overrun);
            }
            Err(source) => {
                return Err(Error::Socket {
                    action: "send",
                    source,
                });
            }
        }
    }
}

/// Reads one datagram into `buffer`. `flags` are those of `recv(2)`.
pub(crate) fn receive(
    raw: &RawSocket,
    buffer: &mut Vec<u8>,
    flags: nix::libc::c_int,
) -> Result<(), Error> {
    loop {
        buffer.clear();
        buffer.reserve(DATAGRAM);
        match raw.recv_from(buffer, nix::libc::MSG_TRUNC | flags) {
            Ok((length, _)) if length > buffer.len() => {
                return Err(Error::decode(
                    "an answer",
                    format!("a message of {length} bytes"),
                ));
            }
            // Other processes may write to our socket; only the kernel is port 0.
            Ok((_, sender)) if sender.port_number() != 0 => {}
            Ok(_) => return Ok(()),
            Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
            Err(source) if source.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                return Err(Error::Overrun);
            }
            Err(source) => {
                return Err(Error::Socket {
                    action: "receive",
                    source,
                });
            }
        }
    }
}

/// Reads all that is queued. After an overrun the kernel drops everything, and says nothing more of
/// it, until the queue is empty: only what comes after this is whole again. Answers with the newest
/// loss, if there was one.
pub(crate) fn drain(
    raw: &RawSocket,
    buffer: &mut Vec<u8>,
    mut take: impl FnMut(&[u8]),
) -> Result<Option<Error>, Error> {
    let mut lost = None;
    loop {
        match receive(raw, buffer, nix::libc::MSG_DONTWAIT) {
            Ok(()) => take(buffer),
            Err(error @ (Error::Overrun | Error::Decode { .. })) => lost = Some(error),
            Err(Error::Socket { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                return Ok(lost);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads the message inside a frame.
pub(crate) fn parse(what: &str, frame: &Frame<'_>) -> Result<RouteNetlinkMessage, Error> {
    RouteNetlinkMessage::parse_with_param(frame.payload, frame.kind)
        .map_err(|error| Error::decode(what, error.to_string()))
}

/// Asks for a larger receive buffer than the system's limit, or else for as much as it gives.
pub(crate) fn enlarge_receive_buffer(fd: BorrowedFd<'_>, bytes: usize) {
    if setsockopt(&fd, sockopt::RcvBufForce, &bytes).is_err() {
        // Less than asked is no error: an overrun is detected and reported.
        let _ = setsockopt(&fd, sockopt::RcvBuf, &bytes);
    }
}
