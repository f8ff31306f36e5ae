//! What the kernel has reported of changes so far, asked without waiting.
//!
//! The kernel queues its report of a change before it acknowledges the request that made it. So who
//! has dumped once, and takes the journal after each of its requests, knows what the kernel holds
//! without dumping again. Like the monitor it never loses a change in silence.

use std::collections::VecDeque;

use netlink_sys::Socket as RawSocket;

use crate::Namespace;
use crate::error::Error;
use crate::monitor::{Event, Group, read, subscribe};
use crate::socket::drain;

/// A queue of reports. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Journal {
    raw: RawSocket,
    datagram: Vec<u8>,
}

impl Journal {
    /// Subscribes in the namespace of the calling thread. `receive_buffer` is in bytes; `None` asks
    /// for 4 MiB. What does not fit until the next [`Journal::take`] is lost, and told as
    /// [`Event::Resync`].
    ///
    /// # Errors
    /// When the system refuses the socket.
    pub fn open(groups: &[Group], receive_buffer: Option<usize>) -> Result<Journal, Error> {
        let raw = subscribe(groups, receive_buffer)?;
        Ok(Journal {
            raw,
            datagram: Vec::new(),
        })
    }

    /// Subscribes in another namespace.
    ///
    /// # Errors
    /// As [`Journal::open`], or when the namespace cannot be entered.
    pub fn open_in(
        namespace: &Namespace,
        groups: &[Group],
        receive_buffer: Option<usize>,
    ) -> Result<Journal, Error> {
        namespace.enter(|| Journal::open(groups, receive_buffer))?
    }

    /// Everything reported since the last call, in order.
    ///
    /// # Errors
    /// When the socket fails for good.
    pub fn take(&mut self) -> Result<Vec<Event>, Error> {
        let mut events = VecDeque::new();
        let lost = drain(&self.raw, &mut self.datagram, |bytes| {
            read(bytes, &mut events)
        })?;
        // What was read around a loss is part of it, so it is told after all that.
        events.extend(lost.map(|error| Event::Resync(error.to_string())));
        Ok(events.into())
    }
}
