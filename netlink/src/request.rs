//! One change asked of the kernel: an object and what to do with it.

use std::fmt;

use netlink_packet_core::Emitable;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;

use crate::error::Error;
use crate::frame::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST};
use crate::route::Route;
use crate::{
    Address, BpfFilter, FilterPlace, ForwardingEntry, LinkChange, Neighbour, NewLink, Rule, filter,
    route_message,
};

/// A change asked of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    verb: Verb,
    object: Object,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    /// Fails if it is there.
    Add,
    /// Makes it or puts it in place of what is there.
    Replace,
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Object {
    NewLink(NewLink),
    LinkChange(LinkChange),
    /// Index of the link.
    Link(u32),
    Address(Address),
    Route(Route),
    Rule(Rule),
    Neighbour(Neighbour),
    ForwardingEntry(ForwardingEntry),
    /// Index of the link.
    Clsact(u32),
    BpfFilter(BpfFilter),
    Filter(FilterPlace),
}

impl Request {
    /// Makes a link; fails if the name is taken.
    #[must_use]
    pub fn add_link(link: NewLink) -> Request {
        Request {
            verb: Verb::Add,
            object: Object::NewLink(link),
        }
    }

    /// Changes a link.
    #[must_use]
    pub fn change_link(change: LinkChange) -> Request {
        Request {
            verb: Verb::Replace,
            object: Object::LinkChange(change),
        }
    }

    /// Deletes the link with this index.
    #[must_use]
    pub fn delete_link(index: u32) -> Request {
        Request {
            verb: Verb::Delete,
            object: Object::Link(index),
        }
    }

    /// Gives a link an address, or changes its flags if it has it already.
    #[must_use]
    pub fn add_address(address: Address) -> Request {
        Request {
            verb: Verb::Replace,
            object: Object::Address(address),
        }
    }

    /// Takes an address from a link.
    #[must_use]
    pub fn delete_address(address: Address) -> Request {
        Request {
            verb: Verb::Delete,
            object: Object::Address(address),
        }
    }

    /// Makes a route; fails if the table has one with this prefix and metric, whoever made it.
    #[must_use]
    pub fn add_route(route: Route) -> Request {
        Request {
            verb: Verb::Add,
            object: Object::Route(route.normalised()),
        }
    }

    /// Makes a route, or puts it in place of the one with this table, prefix and metric, *whoever
    /// made that*. IPv4: one step. IPv6: one step for the first next hop, the others follow.
    #[must_use]
    pub fn replace_route(route: Route) -> Request {
        Request {
            verb: Verb::Replace,
            object: Object::Route(route.normalised()),
        }
    }

    /// Deletes the route with this table, prefix, metric, protocol and kind, whatever its next hops.
    #[must_use]
    pub fn delete_route(route: Route) -> Request {
        Request {
            verb: Verb::Delete,
            object: Object::Route(route.normalised()),
        }
    }

    /// Makes a rule; fails if there is an equal one.
    #[must_use]
    pub fn add_rule(rule: Rule) -> Request {
        Request {
            verb: Verb::Add,
            object: Object::Rule(rule.normalised()),
        }
    }

    /// Deletes a rule. What the rule does not set, the kernel does not compare: give rules that
    /// differ only in selectors priorities of their own.
    #[must_use]
    pub fn delete_rule(rule: Rule) -> Request {
        Request {
            verb: Verb::Delete,
            object: Object::Rule(rule.normalised()),
        }
    }

    /// Makes a neighbour or changes its MAC.
    #[must_use]
    pub fn replace_neighbour(neighbour: Neighbour) -> Request {
        Request {
            verb: Verb::Replace,
            object: Object::Neighbour(neighbour),
        }
    }

    /// Deletes a neighbour, whatever its MAC.
    #[must_use]
    pub fn delete_neighbour(neighbour: Neighbour) -> Request {
        Request {
            verb: Verb::Delete,
            object: Object::Neighbour(neighbour),
        }
    }

    /// Adds a forwarding entry. Several for the MAC of all zeros mean that each gets a copy.
    #[must_use]
    pub fn add_forwarding_entry(entry: ForwardingEntry) -> Request {
        Request {
            verb: Verb::Add,
            object: Object::ForwardingEntry(entry),
        }
    }

    /// Makes a forwarding entry or changes where it leads.
    #[must_use]
    pub fn replace_forwarding_entry(entry: ForwardingEntry) -> Request {
        Request {
            verb: Verb::Replace,
            object: Object::ForwardingEntry(entry),
        }
    }

    /// Deletes a forwarding entry.
    #[must_use]
    pub fn delete_forwarding_entry(entry: ForwardingEntry) -> Request {
        Request {
            verb: Verb::Delete,
            object: Object::ForwardingEntry(entry),
        }
    }

    /// Gives the link with this index a clsact qdisc; fails if it has one, or one of kind `ingress`.
    #[must_use]
    pub fn add_clsact(index: u32) -> Request {
        Request {
            verb: Verb::Add,
            object: Object::Clsact(index),
        }
    }

    /// Takes the clsact qdisc from the link with this index, with all filters on it, *whoever made
    /// them*.
    #[must_use]
    pub fn delete_clsact(index: u32) -> Request {
        Request {
            verb: Verb::Delete,
            object: Object::Clsact(index),
        }
    }

    /// Makes a filter, or puts it in place of the one with its priority and handle in one step: no
    /// packet meets both or neither.
    #[must_use]
    pub fn replace_filter(filter: BpfFilter) -> Request {
        Request {
            verb: Verb::Replace,
            object: Object::BpfFilter(filter),
        }
    }

    /// Deletes the filter of kind `bpf` in this place, whatever its program.
    #[must_use]
    pub fn delete_filter(place: FilterPlace) -> Request {
        Request {
            verb: Verb::Delete,
            object: Object::Filter(place),
        }
    }

    /// Refuses what would not survive being written into a message.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match &self.object {
            Object::NewLink(link) => link.check(),
            Object::LinkChange(change) => change.check(),
            Object::Rule(rule) => rule
                .iif
                .iter()
                .chain(&rule.oif)
                .try_for_each(|name| crate::link::check_name(name)),
            Object::BpfFilter(filter) => filter.check(),
            Object::Filter(place) => place.check(),
            _ => Ok(()),
        }
    }

    /// Appends the message to `buffer`, with `extra` flags.
    pub(crate) fn write(&self, buffer: &mut Vec<u8>, extra: u16, sequence: u32) {
        let (message, flags) = self.message();
        write_message(buffer, &message, flags | extra, sequence);
    }

    fn message(&self) -> (RouteNetlinkMessage, u16) {
        use RouteNetlinkMessage as M;
        let delete = self.verb == Verb::Delete;
        let flags = match self.verb {
            Verb::Add => NLM_F_CREATE | NLM_F_EXCL,
            Verb::Replace => NLM_F_CREATE | NLM_F_REPLACE,
            Verb::Delete => 0,
        };
        match &self.object {
            Object::NewLink(link) => (M::NewLink(link.message()), flags),
            Object::LinkChange(change) => (M::SetLink(change.message()), 0),
            Object::Link(index) => {
                let mut message = LinkMessage::default();
                message.header.index = *index;
                (M::DelLink(message), 0)
            }
            Object::Address(address) if delete => (M::DelAddress(address.message()), 0),
            Object::Address(address) => (M::NewAddress(address.message()), flags),
            Object::Route(route) if delete => {
                (M::DelRoute(route_message::delete_message(route)), 0)
            }
            Object::Route(route) => (M::NewRoute(route_message::add_message(route)), flags),
            Object::Rule(rule) if delete => (M::DelRule(rule.message()), 0),
            Object::Rule(rule) => (M::NewRule(rule.message()), flags),
            Object::Neighbour(neighbour) if delete => (M::DelNeighbour(neighbour.message()), 0),
            Object::Neighbour(neighbour) => (M::NewNeighbour(neighbour.message()), flags),
            Object::ForwardingEntry(entry) if delete => (M::DelNeighbour(entry.message()), 0),
            // Entries for the MAC of all zeros form a list; appending is how one adds to it.
            Object::ForwardingEntry(entry) if self.verb == Verb::Add && entry.vtep.is_some() => (
                M::NewNeighbour(entry.message()),
                NLM_F_CREATE | NLM_F_APPEND,
            ),
            Object::ForwardingEntry(entry) => (M::NewNeighbour(entry.message()), flags),
            Object::Clsact(index) if delete => {
                (M::DelQueueDiscipline(filter::clsact_message(*index)), 0)
            }
            Object::Clsact(index) => (M::NewQueueDiscipline(filter::clsact_message(*index)), flags),
            Object::BpfFilter(filter) => (M::NewTrafficFilter(filter.message()), flags),
            Object::Filter(place) => (M::DelTrafficFilter(place.message()), 0),
        }
    }
}

/// Appends a message with its header, padded.
pub(crate) fn write_message(
    buffer: &mut Vec<u8>,
    message: &RouteNetlinkMessage,
    flags: u16,
    sequence: u32,
) {
    let start = buffer.len();
    let length = crate::frame::HEADER + message.buffer_len();
    buffer.resize(start + crate::frame::align(length), 0);
    let place = &mut buffer[start..start + length];
    // A message is far below 4 GiB.
    place[0..4].copy_from_slice(&(length as u32).to_ne_bytes());
    place[4..6].copy_from_slice(&message.message_type().to_ne_bytes());
    place[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    place[8..12].copy_from_slice(&sequence.to_ne_bytes());
    message.emit(&mut place[crate::frame::HEADER..]);
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.verb {
            Verb::Add => "add",
            Verb::Replace => "set",
            Verb::Delete => "delete",
        };
        match &self.object {
            Object::NewLink(link) => write!(f, "{verb} {link}"),
            Object::LinkChange(change) => write!(f, "set {change}"),
            Object::Link(index) => write!(f, "{verb} link with index {index}"),
            Object::Address(address) => write!(f, "{verb} {address}"),
            Object::Route(route) => write!(f, "{verb} route {route}"),
            Object::Rule(rule) => write!(f, "{verb} rule {rule}"),
            Object::Neighbour(neighbour) => write!(f, "{verb} {neighbour}"),
            Object::ForwardingEntry(entry) => write!(f, "{verb} {entry}"),
            Object::Clsact(index) => write!(f, "{verb} clsact qdisc of link {index}"),
            Object::BpfFilter(filter) => write!(f, "{verb} {filter}"),
            Object::Filter(place) => write!(f, "{verb} {place}"),
        }
    }
}
