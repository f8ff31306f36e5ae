//! A stream of changes to links, addresses, routes, rules, neighbours, qdiscs and filters.
//!
//! It never loses a change in silence: when the kernel had to drop some, or sent one that cannot be
//! read, the next event is [`Event::Resync`] and the caller dumps again.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;

use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket as RawSocket, SocketAddr};
use tokio::io::unix::AsyncFd;

use crate::error::Error;
use crate::frame::{NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, frames};
use crate::socket::{drain, enlarge_receive_buffer, parse, receive};
use crate::{
    Address, Filter, Link, Namespace, Neighbour, Qdisc, Route, Rule, filter, route_message,
};

/// What to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// Links that come, change and go.
    Link,
    /// Addresses of links.
    Address,
    /// Routes.
    Route,
    /// Policy rules.
    Rule,
    /// Neighbours.
    Neighbour,
    /// Qdiscs, and filters on clsact.
    Traffic,
}

impl Group {
    /// The kernel's multicast groups (`RTNLGRP_*`).
    fn numbers(self) -> &'static [u32] {
        match self {
            Group::Link => &[1],
            Group::Neighbour => &[3],
            Group::Traffic => &[4],
            Group::Address => &[5, 9],
            Group::Route => &[7, 11],
            Group::Rule => &[8, 19],
        }
    }
}

/// Whether an object came (or changed) or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<T> {
    /// It is there now, as told.
    Present(T),
    /// It is gone.
    Gone(T),
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link.
    Link(Box<Change<Link>>),
    /// An address.
    Address(Change<Address>),
    /// A route.
    Route(Change<Route>),
    /// A policy rule.
    Rule(Change<Rule>),
    /// A neighbour.
    Neighbour(Change<Neighbour>),
    /// A qdisc. One that goes takes its filters along without a word, and goes itself without a word
    /// with its link.
    Qdisc(Change<Qdisc>),
    /// A filter on clsact.
    Filter(Change<Filter>),
    /// Changes were lost; dump again. The text says why.
    Resync(String),
}

/// A stream of changes. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Monitor {
    socket: AsyncFd<RawSocket>,
    datagram: Vec<u8>,
    ready: VecDeque<Event>,
}

impl Monitor {
    /// Subscribes in the namespace of the calling thread. `receive_buffer` is in bytes; `None` asks
    /// for 4 MiB.
    ///
    /// # Errors
    /// When the system refuses the socket. Must be called inside a tokio runtime.
    pub fn open(groups: &[Group], receive_buffer: Option<usize>) -> Result<Monitor, Error> {
        Monitor::attach(subscribe(groups, receive_buffer)?)
    }

    /// Subscribes in another namespace.
    ///
    /// # Errors
    /// As [`Monitor::open`], or when the namespace cannot be entered.
    pub fn open_in(
        namespace: &Namespace,
        groups: &[Group],
        receive_buffer: Option<usize>,
    ) -> Result<Monitor, Error> {
        Monitor::attach(namespace.enter(|| subscribe(groups, receive_buffer))??)
    }

    fn attach(raw: RawSocket) -> Result<Monitor, Error> {
        // SAFETY: the socket owns its descriptor, never changes it, and closes it only on drop,
        // which `AsyncFd` does after it has deregistered it.
        let socket = unsafe { AsyncFd::register(raw) }.map_err(|error| Error::Socket {
            action: "register with tokio",
            source: io::Error::from(error),
        })?;
        Ok(Monitor {
            socket,
            datagram: Vec::new(),
            ready: VecDeque::new(),
        })
    }

    /// The next event. Cancelling the call loses none.
    ///
    /// # Errors
    /// When the socket fails for good.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let mut guard = self
                .socket
                .readable()
                .await
                .map_err(|source| Error::Socket {
                    action: "wait",
                    source,
                })?;
            let datagram = &mut self.datagram;
            let outcome = guard.try_io(|fd| match receive(fd.get_ref(), datagram, 0) {
                Err(Error::Socket { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                    Err(source)
                }
                other => Ok(other),
            });
            match outcome {
                // Not readable after all.
                Err(_) => {}
                Ok(Ok(Ok(()))) => read(&self.datagram, &mut self.ready),
                Ok(Ok(Err(error @ Error::Socket { .. }))) => return Err(error),
                Ok(Ok(Err(error))) => {
                    // What is dropped until the queue is empty is part of the loss, so it is told
                    // after that.
                    let ready = &mut self.ready;
                    drain(self.socket.get_ref(), &mut self.datagram, |bytes| {
                        read(bytes, ready)
                    })?;
                    self.ready.push_back(Event::Resync(error.to_string()));
                }
                Ok(Err(source)) => {
                    return Err(Error::Socket {
                        action: "receive",
                        source,
                    });
                }
            }
        }
    }
}

pub(crate) fn subscribe(
    groups: &[Group],
    receive_buffer: Option<usize>,
) -> Result<RawSocket, Error> {
    let fail = |action| move |source| Error::Socket { action, source };
    let mut raw = RawSocket::new(NETLINK_ROUTE).map_err(fail("open"))?;
    raw.bind(&SocketAddr::new(0, 0)).map_err(fail("bind"))?;
    enlarge_receive_buffer(raw.as_fd(), receive_buffer.unwrap_or(4 * 1024 * 1024));
    raw.set_non_blocking(true)
        .map_err(fail("make non-blocking"))?;
    for group in groups {
        for &number in group.numbers() {
            raw.add_membership(number).map_err(fail("subscribe"))?;
        }
    }
    Ok(raw)
}

pub(crate) fn read(datagram: &[u8], ready: &mut VecDeque<Event>) {
    for frame in frames(datagram) {
        let event = match frame {
            Err(detail) => Some(Event::Resync(detail)),
            Ok(frame) => match frame.kind {
                NLMSG_NOOP | NLMSG_DONE | NLMSG_ERROR => None,
                NLMSG_OVERRUN => Some(Event::Resync(Error::Overrun.to_string())),
                filter::NEW_QDISC => Qdisc::from_payload(frame.payload)
                    .map(|qdisc| Event::Qdisc(Change::Present(qdisc))),
                filter::DELETE_QDISC => Qdisc::from_payload(frame.payload)
                    .map(|qdisc| Event::Qdisc(Change::Gone(qdisc))),
                filter::NEW_FILTER => Filter::from_payload(frame.payload)
                    .map(|filter| Event::Filter(Change::Present(filter))),
                filter::DELETE_FILTER => Filter::from_payload(frame.payload)
                    .map(|filter| Event::Filter(Change::Gone(filter))),
                _ => match parse("a notification", &frame) {
                    Ok(message) => event(message),
                    Err(error) => Some(Event::Resync(error.to_string())),
                },
            },
        };
        ready.extend(event);
    }
}

fn event(message: RouteNetlinkMessage) -> Option<Event> {
    use RouteNetlinkMessage as M;
    Some(match message {
        // Bridges tell of their ports in link messages of their own family.
        M::NewLink(m) | M::DelLink(m) if m.header.interface_family == AddressFamily::Bridge => {
            return None;
        }
        M::NewLink(m) => Event::Link(Box::new(Change::Present(Link::from_message(m)?))),
        M::DelLink(m) => Event::Link(Box::new(Change::Gone(Link::from_message(m)?))),
        M::NewAddress(m) => Event::Address(Change::Present(Address::from_message(m)?)),
        M::DelAddress(m) => Event::Address(Change::Gone(Address::from_message(m)?)),
        M::NewRoute(m) => Event::Route(Change::Present(route_message::from_message(m)?)),
        M::DelRoute(m) => Event::Route(Change::Gone(route_message::from_message(m)?)),
        M::NewRule(m) => Event::Rule(Change::Present(Rule::from_message(m)?)),
        M::DelRule(m) => Event::Rule(Change::Gone(Rule::from_message(m)?)),
        M::NewNeighbour(m) => Event::Neighbour(Change::Present(Neighbour::from_message(m)?)),
        M::DelNeighbour(m) => Event::Neighbour(Change::Gone(Neighbour::from_message(m)?)),
        _ => return None,
    })
}
