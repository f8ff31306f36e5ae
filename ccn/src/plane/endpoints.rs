//! All endpoints that a plane should hold, as a list: a million of them take one piece of memory, which
//! goes back to the system as one.
//!
//! It says no more than entries do (see `entry`), and in their order.

use std::net::IpAddr;

use super::entry::{EntryKey, EntryValue, Hop, ScopeId};
use crate::record::Vni;

/// The hops of an endpoint: at least one, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hops {
    /// Those of a VM, and of an SLB with one node.
    One(Hop),
    /// Several.
    Several(Box<[Hop]>),
}

impl Hops {
    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Hop] {
        match self {
            Hops::One(hop) => std::slice::from_ref(hop),
            Hops::Several(hops) => hops,
        }
    }
}

impl From<Vec<Hop>> for Hops {
    fn from(hops: Vec<Hop>) -> Hops {
        match hops[..] {
            [hop] => Hops::One(hop),
            _ => Hops::Several(hops.into()),
        }
    }
}

/// An address that packets of a scope may be sent to, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where the address is known.
    pub scope: ScopeId,
    /// Address of a VM, or VIP of an SLB.
    pub addr: IpAddr,
    /// VNI to encapsulate with.
    pub vni: Vni,
    /// Where it is.
    pub hops: Hops,
}

impl Endpoint {
    /// The same as an entry.
    #[must_use]
    pub fn entry(&self) -> (EntryKey, EntryValue) {
        let (scope, addr) = (self.scope, self.addr);
        let value = EntryValue::Endpoint {
            vni: self.vni,
            hops: self.hops.as_slice().to_vec(),
        };
        (EntryKey::Endpoint { scope, addr }, value)
    }
}

/// Endpoints by scope and address, each once.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    /// Lists of which each goes on where the one before it ends.
    lists: Vec<Vec<Endpoint>>,
}

impl Endpoints {
    /// Lists, in order: no scope is in two of them.
    #[must_use]
    pub fn of_scopes(lists: impl IntoIterator<Item = Vec<Endpoint>>) -> Endpoints {
        let lists = lists.into_iter().map(in_order);
        Endpoints {
            lists: lists.collect(),
        }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.lists.iter().flatten()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lists.iter().map(Vec::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PartialEq for Endpoints {
    fn eq(&self, other: &Endpoints) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Endpoints {}

/// By place; of two at one place the first stays.
fn in_order(mut list: Vec<Endpoint>) -> Vec<Endpoint> {
    let place = |endpoint: &Endpoint| (endpoint.scope, endpoint.addr);
    if !list.is_sorted_by_key(place) {
        list.sort_by_key(place);
    }
    list.dedup_by_key(|endpoint| place(endpoint));
    list
}

impl From<Vec<Endpoint>> for Endpoints {
    /// Of two with one address in one scope the first stays.
    fn from(list: Vec<Endpoint>) -> Endpoints {
        Endpoints::of_scopes([list])
    }
}
