//! One nftables filter: what comes in by an interface for this host is counted and dropped.
//!
//! It stands in an `inet` table of its own, whose name says whose it is. Made and deleted in one
//! transaction; tables of other names are never touched, and no `nft` process is needed.

mod message;

use netlink_sys::Socket as RawSocket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use self::message::Messages;
use crate::answer::{Acknowledgement, Listing};
use crate::error::{Error, Failure};
use crate::socket::{DATAGRAM, DUMP_TRIES, connected, drain, receive, send};
use crate::{Namespace, link};

/// A table of our own that keeps an interface's packets from this host. Packets that are forwarded
/// do not meet it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFilter {
    /// Name of the `inet` table, by the rules for names of links.
    pub table: String,
    /// Name of the interface, which need not exist yet.
    pub interface: String,
}

/// What a filter has dropped since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InputFilterState {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the IP header on.
    pub bytes: u64,
}

/// A blocking nf_tables socket. It belongs to the namespace it was opened in for good. Even reading
/// takes `CAP_NET_ADMIN`.
#[derive(Debug)]
pub struct Netfilter {
    raw: RawSocket,
    sequence: u32,
    datagram: Vec<u8>,
}

impl Netfilter {
    /// Opens one in the namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::NoNftables`] when the kernel has no netfilter sockets, or a failure of the socket.
    pub fn open() -> Result<Netfilter, Error> {
        let raw = connected(NETLINK_NETFILTER).map_err(|error| match error.errno() {
            Some(Errno::EPROTONOSUPPORT) => lacking(&error),
            _ => error,
        })?;
        Ok(Netfilter {
            raw,
            sequence: 0,
            datagram: Vec::with_capacity(DATAGRAM),
        })
    }

    /// Opens one in another namespace.
    ///
    /// # Errors
    /// As [`Netfilter::open`], or when the namespace cannot be entered.
    pub fn open_in(namespace: &Namespace) -> Result<Netfilter, Error> {
        namespace.enter(Netfilter::open)?
    }

    /// What the filter has dropped; `None` when it is missing or is anything else than asked.
    ///
    /// # Errors
    /// [`Error::NoNftables`], a refusal of the kernel, or a failure of the socket.
    pub fn input_filter(
        &mut self,
        filter: &InputFilter,
    ) -> Result<Option<InputFilterState>, Error> {
        filter.check()?;
        let InputFilter { table, interface } = filter;
        let Some(payload) = self.table(table)? else {
            return Ok(None);
        };
        let what = format!("nftables table inet {table}");
        let chains = self.ask(&what, Messages::ask_chains)?;
        let rules = self.ask(&what, |out| out.ask_rules(table))?;
        let of_table = |list: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
            let ours = |payload: &Vec<u8>| message::is_of(payload, table);
            list.into_iter().filter(ours).collect()
        };
        let (chains, rules) = (of_table(chains), of_table(rules));
        let ([chain], [rule]) = (&chains[..], &rules[..]) else {
            return Ok(None);
        };
        if !message::is_our_table(&payload) || !message::is_our_chain(chain) {
            return Ok(None);
        }
        Ok(message::our_rule(rule, interface)
            .map(|(packets, bytes)| InputFilterState { packets, bytes }))
    }

    /// Makes the filter if it is missing, and makes it anew if something else is in its table.
    /// Answers whether anything was done.
    ///
    /// # Errors
    /// As [`Netfilter::input_filter`]; nothing has changed then.
    pub fn ensure(&mut self, filter: &InputFilter) -> Result<bool, Error> {
        if self.input_filter(filter)?.is_some() {
            return Ok(false);
        }
        let InputFilter { table, interface } = filter;
        let stale = self.table(table)?.is_some();
        self.transaction(&format!("add nftables table inet {table}"), |out| {
            if stale {
                out.delete_table(table);
            }
            out.new_table(table);
            out.new_chain(table);
            out.new_rule(table, interface);
        })?;
        Ok(true)
    }

    /// Deletes the table of this name with all that is in it. Answers whether there was one.
    ///
    /// # Errors
    /// As [`Netfilter::input_filter`].
    pub fn delete(&mut self, table: &str) -> Result<bool, Error> {
        link::check_name(table)?;
        if self.table(table)?.is_none() {
            return Ok(false);
        }
        let done = self.transaction(&format!("delete nftables table inet {table}"), |out| {
            out.delete_table(table);
        });
        match done {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// The kernel's message about a table.
    fn table(&mut self, table: &str) -> Result<Option<Vec<u8>>, Error> {
        let what = format!("nftables table inet {table}");
        match self.ask(&what, |out| out.ask_table(table)) {
            Ok(found) => Ok(found.into_iter().next()),
            Err(error) => match error.errno() {
                Some(Errno::ENOENT) => Ok(None),
                // What netfilter answers for a part of it that the kernel does not have.
                Some(Errno::EINVAL | Errno::EOPNOTSUPP) => Err(lacking(&error)),
                _ => Err(error),
            },
        }
    }

    /// Payloads of the answers to a question.
    fn ask(&mut self, what: &str, question: impl Fn(&mut Messages)) -> Result<Vec<Vec<u8>>, Error> {
        for _ in 0..DUMP_TRIES {
            let messages = self.numbered(&question);
            send(&self.raw, messages.bytes())?;
            let mut listing = Listing::of(self.sequence);
            let verdict = loop {
                self.receive()?;
                let read = |frame: &crate::frame::Frame<'_>| Ok(Some(frame.payload.to_vec()));
                if let Some(verdict) = listing.feed(&self.datagram, read)? {
                    break verdict;
                }
            };
            match verdict.errno {
                Some(errno) => {
                    return Err(Error::Refused(Failure {
                        index: 0,
                        request: format!("read {what}"),
                        errno,
                        text: verdict.text,
                    }));
                }
                None if listing.consistent => return Ok(listing.found),
                None => tracing::debug!(what, "dump interrupted by a change, trying again"),
            }
        }
        Err(Error::Inconsistent {
            what: what.to_owned(),
            tries: DUMP_TRIES,
        })
    }

    /// Carries out all or nothing.
    fn transaction(&mut self, what: &str, fill: impl Fn(&mut Messages)) -> Result<(), Error> {
        let messages = self.numbered(&|out: &mut Messages| {
            out.begin();
            fill(out);
            out.end();
        });
        send(&self.raw, messages.bytes())?;
        let first = self.sequence.wrapping_sub(messages.count()).wrapping_add(1);
        // The end is not acknowledged by every kernel, the last change is.
        let mut answer = Acknowledgement::of(first, messages.count() as usize - 1);
        loop {
            self.receive()?;
            // A refusal of the whole transaction is one of its beginning, and all that comes.
            let whole = |it: &Acknowledgement| it.refusals.iter().any(|r| r.position == 0);
            if answer.feed(&self.datagram)? || whole(&answer) {
                break;
            }
        }
        let Some(refusal) = answer.refusals.into_iter().next() else {
            return Ok(());
        };
        let error = Error::Refused(Failure {
            index: 0,
            request: what.to_owned(),
            errno: refusal.errno,
            text: refusal.text,
        });
        Err(match refusal.errno {
            Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT => lacking(&error),
            _ => error,
        })
    }

    fn numbered(&mut self, fill: &impl Fn(&mut Messages)) -> Messages {
        let mut messages = Messages::from(self.sequence.wrapping_add(1));
        fill(&mut messages);
        self.sequence = self.sequence.wrapping_add(messages.count());
        messages
    }

    fn receive(&mut self) -> Result<(), Error> {
        let outcome = receive(&self.raw, &mut self.datagram, 0);
        if let Err(Error::Overrun) = &outcome {
            drain(&self.raw, &mut self.datagram, |_| ())?;
        }
        outcome
    }
}

impl InputFilter {
    fn check(&self) -> Result<(), Error> {
        link::check_name(&self.table)?;
        link::check_name(&self.interface)
    }
}

fn lacking(error: &Error) -> Error {
    Error::NoNftables {
        detail: error.to_string(),
    }
}
