//! What stands in the hash maps, one *cell* a key, as values that compare; and the order in which
//! cells change so that no packet finds less than it found before and will find after.

use std::fmt;
use std::net::IpAddr;

use bgp::{Family, Prefix};

use super::addresses::MAX_SPARSE;
use super::buckets::BUCKET;
use super::layout::{
    Address, Globals, Permit, Plain, Slot, Subnet, Vpc, VpcKey, mapped, prefix_key,
    read_prefix_key, unmapped,
};
use super::translate::{MAX_CLASSICS, MAX_SUBNETS, MAX_VPCS};

/// A hash map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Table {
    Sparse,
    Subnets4,
    Subnets6,
    Classics4,
    Classics6,
    Linked4,
    Linked6,
    Vpcs,
}

impl Table {
    /// Every one.
    pub(crate) const ALL: [Table; 8] = [
        Table::Sparse,
        Table::Subnets4,
        Table::Subnets6,
        Table::Classics4,
        Table::Classics6,
        Table::Linked4,
        Table::Linked6,
        Table::Vpcs,
    ];

    /// The name of the map.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Table::Sparse => "sparse",
            Table::Subnets4 => "subnets4",
            Table::Subnets6 => "subnets6",
            Table::Classics4 => "classics4",
            Table::Classics6 => "classics6",
            Table::Linked4 => "linked4",
            Table::Linked6 => "linked6",
            Table::Vpcs => "vpcs",
        }
    }

    /// Most keys.
    pub(crate) fn most(self) -> u32 {
        let most = match self {
            Table::Sparse => MAX_SPARSE,
            // The host's own addresses beside them.
            Table::Linked4 | Table::Linked6 => MAX_SUBNETS * 2,
            Table::Subnets4 | Table::Subnets6 => MAX_SUBNETS,
            Table::Classics4 | Table::Classics6 => MAX_CLASSICS,
            Table::Vpcs => MAX_VPCS as usize,
        };
        most as u32
    }

    /// Octets of a key and of a value of the map.
    pub(crate) fn sizes(self) -> (usize, usize) {
        match self {
            Table::Sparse => (20, 8),
            Table::Subnets4 | Table::Linked4 => (8, size_of::<Subnet>()),
            Table::Subnets6 | Table::Linked6 => (20, size_of::<Subnet>()),
            // An array of buckets.
            Table::Classics4 => (4, BUCKET),
            Table::Classics6 => (20, size_of::<Permit>()),
            Table::Vpcs => (4, size_of::<Vpc>()),
        }
    }
}

/// One key of one hash map. Ordered as cells are written: what others lead to comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Cell {
    /// An address outside of windows.
    Sparse { vni: u32, addr: IpAddr },
    /// A subnet, as destinations of a scope are looked up.
    Subnet { scope: u32, prefix: Prefix },
    /// A classic prefix of a VPC.
    Classic { vni: u32, prefix: Prefix },
    /// A linked subnet, or an address of this host in one.
    Linked { prefix: Prefix },
    /// A VPC.
    Vpc { vni: u32 },
}

impl Cell {
    /// The map it is in.
    pub(crate) fn table(&self) -> Table {
        let of = |prefix: &Prefix, v4, v6| match prefix.family() {
            Family::Ipv4Unicast => v4,
            Family::Ipv6Unicast => v6,
        };
        match self {
            Cell::Sparse { .. } => Table::Sparse,
            Cell::Subnet { prefix, .. } => of(prefix, Table::Subnets4, Table::Subnets6),
            Cell::Classic { prefix, .. } => of(prefix, Table::Classics4, Table::Classics6),
            Cell::Linked { prefix } => of(prefix, Table::Linked4, Table::Linked6),
            Cell::Vpc { .. } => Table::Vpcs,
        }
    }

    /// The key as it lies in the map.
    pub(crate) fn key(&self) -> Vec<u8> {
        match self {
            Cell::Sparse { vni, addr } => {
                let addr = mapped(*addr);
                Address { vni: *vni, addr }.octets().to_vec()
            }
            Cell::Subnet { scope, prefix } => prefix_key(*scope, *prefix),
            Cell::Classic { vni, prefix } => prefix_key(*vni, *prefix),
            Cell::Linked { prefix } => prefix_key(0, *prefix),
            Cell::Vpc { vni } => VpcKey { vni: *vni }.octets().to_vec(),
        }
    }

    /// The cell with this key; `None` for a key that we never write.
    pub(crate) fn read(table: Table, key: &[u8]) -> Option<Cell> {
        let of = |family| read_prefix_key(family, key);
        let (v4, v6) = (Family::Ipv4Unicast, Family::Ipv6Unicast);
        Some(match table {
            Table::Sparse => {
                let Address { vni, addr } = Address::read(key)?;
                let addr = unmapped(addr);
                Cell::Sparse { vni, addr }
            }
            Table::Subnets4 | Table::Subnets6 => {
                let family = if table == Table::Subnets4 { v4 } else { v6 };
                let (scope, prefix) = of(family)?;
                Cell::Subnet { scope, prefix }
            }
            Table::Classics4 | Table::Classics6 => {
                let family = if table == Table::Classics4 { v4 } else { v6 };
                let (vni, prefix) = of(family)?;
                Cell::Classic { vni, prefix }
            }
            Table::Linked4 | Table::Linked6 => {
                let family = if table == Table::Linked4 { v4 } else { v6 };
                let (0, prefix) = of(family)? else {
                    return None;
                };
                Cell::Linked { prefix }
            }
            Table::Vpcs => Cell::Vpc {
                vni: VpcKey::read(key)?.vni,
            },
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Sparse { vni, addr } => write!(f, "address {addr} vni {vni}"),
            Cell::Subnet { scope, prefix } => write!(f, "subnet {prefix} scope {scope}"),
            Cell::Classic { vni, prefix } => write!(f, "classic {prefix} vni {vni}"),
            Cell::Linked { prefix } => write!(f, "linked {prefix}"),
            Cell::Vpc { vni } => write!(f, "vpc {vni}"),
        }
    }
}

/// What stands in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Slot(Slot),
    Subnet(Subnet),
    Permit(Permit),
    Vpc(Vpc),
}

impl Content {
    /// The value as it lies in the map.
    pub(crate) fn octets(&self) -> Vec<u8> {
        match self {
            Content::Slot(slot) => slot.0.to_ne_bytes().to_vec(),
            Content::Subnet(subnet) => subnet.octets().to_vec(),
            Content::Permit(permit) => permit.octets().to_vec(),
            Content::Vpc(vpc) => vpc.octets().to_vec(),
        }
    }

    /// The value of a cell of this map; `None` where there are more or fewer octets.
    pub(crate) fn read(table: Table, octets: &[u8]) -> Option<Content> {
        Some(match table {
            Table::Sparse => Content::Slot(Slot(u64::from_ne_bytes(octets.try_into().ok()?))),
            Table::Subnets4 | Table::Subnets6 | Table::Linked4 | Table::Linked6 => {
                Content::Subnet(Subnet::read(octets)?)
            }
            Table::Classics4 | Table::Classics6 => Content::Permit(Permit::read(octets)?),
            Table::Vpcs => Content::Vpc(Vpc::read(octets)?),
        })
    }
}

/// Counters that are to be zero before a map leads to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counted {
    Link(u32),
    Vpc(u32),
}

/// What is to be written, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Counters that get another owner.
    pub(crate) resets: Vec<Counted>,
    /// What is new or different: what others lead to comes first.
    pub(crate) puts: Vec<(Cell, Content)>,
    /// Written after all puts, if it differs.
    pub(crate) globals: Globals,
    /// What is gone: what leads to others comes first.
    pub(crate) deletes: Vec<Cell>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_read_as_it_was_written() {
        let prefixes = ["0.0.0.0/0", "10.1.0.0/16", "fd00::/64", "fd00::1/128"];
        let mut cells: Vec<Cell> = vec![Cell::Vpc { vni: 0xff_ffff }];
        for text in prefixes {
            let prefix: Prefix = text.parse().expect("a prefix");
            let (scope, vni, addr) = (7, 9, prefix.addr());
            cells.extend([
                Cell::Sparse { vni, addr },
                Cell::Subnet { scope, prefix },
                Cell::Classic { vni, prefix },
                Cell::Linked { prefix },
            ]);
        }
        for cell in cells {
            let key = cell.key();
            if cell.table() != Table::Classics4 {
                assert_eq!(key.len(), cell.table().sizes().0, "{cell}");
            }
            assert_eq!(Cell::read(cell.table(), &key), Some(cell));
        }
        let subnet = Content::Subnet(Subnet {
            vni: 5,
            ..Subnet::default()
        });
        assert_eq!(
            Content::read(Table::Linked6, &subnet.octets()),
            Some(subnet)
        );
        assert_eq!(Content::read(Table::Vpcs, &subnet.octets()), None);
    }
}
