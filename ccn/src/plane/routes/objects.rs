//! The plane's kernel objects as values, each with a key that says which object it is.
//!
//! Desired and actual state are both a [`State`]; nothing here talks to the kernel.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use netlink::{IpNet, Mac, Neighbour, Request, Route, Rule};

/// Which object. Ordered by kind, then as the kernel asks them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// A neighbour: index of a device of ours, and the address.
    Neighbour(u32, IpAddr),
    /// A route: table, prefix and metric; the kernel holds one of these at most.
    Route(u32, IpNet, u32),
    /// A rule has nothing that could change: it is its own key. Family and priority come first.
    Rule(Box<Rule>),
}

/// An object in full.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    Neighbour(Neighbour),
    Route(Box<Route>),
    Rule(Box<Rule>),
}

/// Objects of ours.
pub(crate) type State = BTreeMap<Key, Object>;

impl Object {
    /// The permanent neighbour that gives a synthetic next hop its MAC.
    pub(crate) fn neighbour(ifindex: u32, mac: Mac, protocol: u8) -> Object {
        let addr = mac.link_local().into();
        Object::Neighbour(Neighbour {
            protocol,
            ..Neighbour::permanent(ifindex, addr, mac)
        })
    }

    pub(crate) fn route(route: Route) -> Object {
        Object::Route(Box::new(route.normalised()))
    }

    pub(crate) fn rule(rule: Rule) -> Object {
        Object::Rule(Box::new(rule.normalised()))
    }

    pub(crate) fn key(&self) -> Key {
        match self {
            Object::Neighbour(neighbour) => Key::Neighbour(neighbour.ifindex, neighbour.addr),
            Object::Route(route) => Key::Route(route.table, route.prefix, route.metric),
            Object::Rule(rule) => Key::Rule(rule.clone()),
        }
    }
}

/// One change of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// It is not there.
    Add(Object),
    /// Ours is there, and is something else.
    Replace(Object),
    /// Ours is there, and is not desired.
    Delete(Object),
}

impl Operation {
    pub(crate) fn object(&self) -> &Object {
        match self {
            Operation::Add(object) | Operation::Replace(object) | Operation::Delete(object) => {
                object
            }
        }
    }

    /// What to ask of the kernel. A new route or rule never takes the place of one of another
    /// owner: only what was seen to be ours is replaced. Devices are ours, so whatever the kernel
    /// has learned about a neighbour on them gives way.
    pub(crate) fn request(&self) -> Request {
        match self {
            Operation::Add(Object::Neighbour(it)) | Operation::Replace(Object::Neighbour(it)) => {
                Request::replace_neighbour(*it)
            }
            Operation::Delete(Object::Neighbour(it)) => Request::delete_neighbour(*it),
            Operation::Add(Object::Route(it)) => Request::add_route((**it).clone()),
            Operation::Replace(Object::Route(it)) => Request::replace_route((**it).clone()),
            Operation::Delete(Object::Route(it)) => Request::delete_route((**it).clone()),
            // A rule is its own key, so one is never replaced.
            Operation::Add(Object::Rule(it)) | Operation::Replace(Object::Rule(it)) => {
                Request::add_rule((**it).clone())
            }
            Operation::Delete(Object::Rule(it)) => Request::delete_rule((**it).clone()),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Neighbour(neighbour) => neighbour.fmt(f),
            Object::Route(route) => write!(f, "route {route}"),
            Object::Rule(rule) => write!(f, "rule {rule}"),
        }
    }
}
