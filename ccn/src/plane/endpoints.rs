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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints(Vec<Endpoint>);

impl Endpoints {
    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<Endpoint>> for Endpoints {
    /// Of two with one address in one scope the first stays.
    fn from(mut list: Vec<Endpoint>) -> Endpoints {
        let place = |endpoint: &Endpoint| (endpoint.scope, endpoint.addr);
        if !list.is_sorted_by_key(place) {
            list.sort_by_key(place);
        }
        list.dedup_by_key(|endpoint| place(endpoint));
        Endpoints(list)
    }
}
