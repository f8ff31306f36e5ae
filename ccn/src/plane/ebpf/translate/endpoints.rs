//! Endpoints, put scope by scope, as the addresses take them.

use std::collections::BTreeSet;

use super::super::addresses::Endpoint;
use super::super::memory::Memory;
use super::{Failures, Translator};
use crate::plane::Desired;
use crate::plane::entry::{EntryKey, EntryValue, ScopeId};

impl<M: Memory> Translator<M> {
    /// Puts endpoints, given by their scopes in order. When they are `all`, whoever is not among them is
    /// gone.
    pub(super) fn put_endpoints<'a>(
        &mut self,
        endpoints: impl Iterator<Item = (ScopeId, Endpoint<'a>)>,
        all: bool,
        failures: &mut Failures,
    ) {
        let mut empty: BTreeSet<u32> = match all {
            true => self.addresses.subnets().map(|(scope, _)| scope).collect(),
            false => BTreeSet::new(),
        };
        let mut list: Vec<Endpoint<'_>> = Vec::new();
        let mut at = None;
        let mut put = |this: &mut Self, scope: Option<ScopeId>, list: &mut Vec<Endpoint<'a>>| {
            let Some(scope) = scope else { return };
            empty.remove(&scope.0.number());
            for (place, reason) in this.addresses.put(scope.0.number(), list, all) {
                let addr = list[place].addr;
                failures.insert(EntryKey::Endpoint { scope, addr }, reason);
            }
            list.clear();
        };
        for (scope, endpoint) in endpoints {
            if at != Some(scope) {
                put(self, at, &mut list);
            }
            at = Some(scope);
            list.push(endpoint);
        }
        put(self, at, &mut list);
        for scope in empty {
            self.addresses.put(scope, &[], true);
        }
    }
}

/// An entry, if it is an endpoint.
pub(super) fn endpoint_of<'a>(
    (key, value): (&'a EntryKey, &'a EntryValue),
) -> Option<(ScopeId, Endpoint<'a>)> {
    let (EntryKey::Endpoint { scope, addr }, EntryValue::Endpoint { vni, hops }) = (key, value)
    else {
        return None;
    };
    let (addr, vni) = (*addr, vni.number());
    Some((*scope, Endpoint { addr, vni, hops }))
}

/// Every endpoint of a desired state, by scope and address.
pub(super) fn all_endpoints(desired: &Desired) -> impl Iterator<Item = (ScopeId, Endpoint<'_>)> {
    let mut few = desired.entries.iter().filter_map(endpoint_of).peekable();
    let many = desired.endpoints.iter().map(|endpoint| {
        let (addr, vni) = (endpoint.addr, endpoint.vni.number());
        let hops = endpoint.hops.as_slice();
        (endpoint.scope, Endpoint { addr, vni, hops })
    });
    let mut many = many.peekable();
    let place = |&(scope, endpoint): &(ScopeId, Endpoint<'_>)| (scope, endpoint.addr);
    std::iter::from_fn(
        move || match (few.peek().map(place), many.peek().map(place)) {
            (Some(one), Some(other)) if one > other => many.next(),
            (Some(_), _) => few.next(),
            (None, _) => many.next(),
        },
    )
}
