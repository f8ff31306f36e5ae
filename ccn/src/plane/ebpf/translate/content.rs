//! What each cell should hold now. Nothing is changed by asking.

use std::net::IpAddr;

use bgp::{Family, Prefix};

use super::super::cells::{Cell, Content};
use super::super::layout::{
    DSCP_COPY, Globals, Lengths, OWN, PERMIT_GIVEN, PERMIT_TRACKED, Permit, Subnet, UNUSED_NET,
    Vpc, net4,
};
use super::super::lengths;
use super::super::memory::Memory;
use super::Translator;
use crate::record::Mode;

impl<M: Memory> Translator<M> {
    /// What a cell should hold; `None`: nothing.
    pub(crate) fn content(&self, cell: &Cell) -> Option<Content> {
        match *cell {
            Cell::Sparse { vni, addr } => {
                let scope = self.vpcs.get(&vni)?.scope;
                self.addresses
                    .sparse_slot(scope, vni, addr)
                    .map(Content::Slot)
            }
            Cell::Subnet { scope, prefix } => {
                self.known_subnet(scope, prefix)?;
                self.subnet(scope, prefix, lengths::NONE)
                    .map(Content::Subnet)
            }
            Cell::Classic { vni, prefix } => self.permit(vni, prefix).map(Content::Permit),
            Cell::Linked { prefix } => {
                if self.is_own(prefix) {
                    let classic = lengths::NONE;
                    return Some(Content::Subnet(Subnet {
                        classic,
                        ..Subnet::default()
                    }));
                }
                let vni = *self.linked.get(&prefix)?.last()?;
                let vpc = self.vpcs.get(&vni)?;
                let scope = *self.sources.get(&(vni, prefix))?;
                let classic = vpc.classics.list(prefix.family(), None);
                self.known_subnet(scope, prefix).filter(|its| *its == vni)?;
                self.subnet(scope, prefix, classic).map(Content::Subnet)
            }
            Cell::Vpc { vni } => self.vpc(vni).map(Content::Vpc),
        }
    }

    fn subnet(&self, scope: u32, prefix: Prefix, classic: Lengths) -> Option<Subnet> {
        let subnet = self.addresses.subnet(scope, prefix)?;
        let counter = self.counters.of(&subnet.vni)?;
        Some(Subnet {
            counter,
            classic,
            ..subnet
        })
    }

    /// The permit of a classic prefix; when several links have it, that of the first.
    fn permit(&self, vni: u32, classic: Prefix) -> Option<Permit> {
        let vpc = self.vpcs.get(&vni)?;
        let ((link, _), (mode, dscp)) = vpc.permits.get(&classic)?.first_key_value()?;
        Some(Permit {
            link: self.links.of(link)?.try_into().ok()?,
            flags: match mode {
                Mode::Both => PERMIT_GIVEN,
                Mode::ClassicToVpc => PERMIT_GIVEN | PERMIT_TRACKED,
            },
            dscp: dscp.unwrap_or(DSCP_COPY),
        })
    }

    fn vpc(&self, vni: u32) -> Option<Vpc> {
        let vpc = self.vpcs.get(&vni).filter(|vpc| !vpc.subnets.is_empty())?;
        let mut own = [UNUSED_NET; OWN];
        for (place, net) in own
            .iter_mut()
            .zip(vpc.subnets.iter().filter_map(|it| net4(*it)))
        {
            *place = net;
        }
        let lengths = &self.scopes.get(&vpc.scope)?.lengths;
        Some(Vpc {
            scope: vpc.scope,
            counter: self.counters.of(&vni)?,
            own,
            subnets4: lengths.list(Family::Ipv4Unicast, None),
            subnets6: lengths.list(Family::Ipv6Unicast, None),
            classic4: vpc.classics.list(Family::Ipv4Unicast, None),
            classic6: vpc.classics.list(Family::Ipv6Unicast, None),
        })
    }

    /// Whether a prefix is one of this host's addresses, inside a linked subnet.
    fn is_own(&self, prefix: Prefix) -> bool {
        prefix == Prefix::host(prefix.addr())
            && self.host.own.contains(&prefix.addr())
            && self.in_linked(prefix.addr())
    }

    fn in_linked(&self, addr: IpAddr) -> bool {
        let host = Prefix::host(addr);
        (0..=host.len()).any(|len| {
            Prefix::containing(addr, len).is_ok_and(|net| self.linked.contains_key(&net))
        })
    }

    pub(super) fn own_cells(&self) -> impl Iterator<Item = Cell> {
        self.host.own.iter().map(|addr| Cell::Linked {
            prefix: Prefix::host(*addr),
        })
    }

    /// What concerns all packets.
    pub(crate) fn globals(&self) -> Globals {
        let lengths = |family: Family| {
            let own = self.host.own.iter().copied();
            let mut own = own.filter(|addr| Prefix::host(*addr).family() == family);
            let also = own
                .any(|addr| self.in_linked(addr))
                .then_some(family.max_len());
            self.linked_lengths.list(family, also)
        };
        Globals {
            linked4: lengths(Family::Ipv4Unicast),
            linked6: lengths(Family::Ipv6Unicast),
            ..self.host.globals
        }
    }

    /// What concerns all packets while no link is in the maps. It is of no version: whoever finds it begins anew.
    pub(crate) fn globals_of_nobody(&self) -> Globals {
        Globals {
            version: 0,
            linked4: lengths::NONE,
            linked6: lengths::NONE,
            ..self.host.globals
        }
    }

    /// Every cell that may have content.
    pub(crate) fn cells(&self) -> impl Iterator<Item = Cell> {
        let classics = self.vpcs.iter().flat_map(|(vni, vpc)| {
            let prefixes = vpc.permits.keys();
            prefixes.map(|prefix| Cell::Classic {
                vni: *vni,
                prefix: *prefix,
            })
        });
        self.addresses
            .cells()
            .chain(classics)
            .chain(
                self.linked
                    .keys()
                    .map(|prefix| Cell::Linked { prefix: *prefix }),
            )
            .chain(self.own_cells())
            .chain(self.vpcs.keys().map(|vni| Cell::Vpc { vni: *vni }))
    }
}
