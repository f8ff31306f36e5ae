//! Whose entries rest on a cell: for telling of failures.

use bgp::Prefix;

use super::super::cells::Cell;
use super::super::memory::Memory;
use super::Translator;
use crate::plane::entry::{EntryKey, ScopeId};
use crate::record::Vni;

impl<M: Memory> Translator<M> {
    /// The entries that rest on a cell. One pass over what a VPC has: for telling of failures only.
    pub(crate) fn owners(&self, cell: &Cell) -> Vec<EntryKey> {
        let vni = |number| Vni::new(number).ok();
        match *cell {
            Cell::Sparse { vni: number, addr } => {
                let scope = self.vpcs.get(&number).and_then(|vpc| vni(vpc.scope));
                let scope = scope.map(ScopeId);
                scope
                    .map(|scope| EntryKey::Endpoint { scope, addr })
                    .into_iter()
                    .collect()
            }
            Cell::Subnet { scope, prefix } => {
                let number = self.addresses.vni(scope, prefix).unwrap_or_default();
                let of_subnet = |subnet: &Prefix, _: &Prefix| *subnet == prefix;
                let source = vni(number).map(|vni| EntryKey::Source {
                    vni,
                    subnet: prefix,
                });
                source
                    .into_iter()
                    .chain(self.permits_where(number, of_subnet))
                    .collect()
            }
            Cell::Classic {
                vni: number,
                prefix,
            } => self.permits_where(number, |_, classic| *classic == prefix),
            Cell::Linked { prefix } => {
                let owners = self.linked.get(&prefix).into_iter().flatten();
                owners
                    .flat_map(|number| self.permits_where(*number, |subnet, _| *subnet == prefix))
                    .collect()
            }
            Cell::Vpc { vni: number } => {
                let subnets = self.vpcs.get(&number).map(|vpc| vpc.subnets.iter());
                let sources = subnets.into_iter().flatten().filter_map(|subnet| {
                    vni(number).map(|vni| EntryKey::Source {
                        vni,
                        subnet: *subnet,
                    })
                });
                sources
                    .chain(self.permits_where(number, |_, _| true))
                    .collect()
            }
        }
    }

    fn permits_where(
        &self,
        number: u32,
        matches: impl Fn(&Prefix, &Prefix) -> bool,
    ) -> Vec<EntryKey> {
        let Ok(vni) = Vni::new(number) else {
            return Vec::new();
        };
        let permits = self.vpcs.get(&number).map(|vpc| vpc.permits.iter());
        permits
            .into_iter()
            .flatten()
            .flat_map(|(classic, permits)| {
                permits
                    .keys()
                    .map(move |(link, subnet)| (classic, link, subnet))
            })
            .filter(|(classic, _, subnet)| matches(subnet, classic))
            .map(|(classic, link, subnet)| EntryKey::Permit {
                link: link.clone(),
                vni,
                subnet: *subnet,
                classic: *classic,
            })
            .collect()
    }
}
