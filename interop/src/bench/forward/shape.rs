//! How large the tables are, and what lies where: VPCs, VMs, hosts, links and classic networks, all
//! found by number, so that the program that makes packets needs no table of its own.
//!
//! ```text
//!  VPC v      10.128.0.0 + v * 2^bits, VNI 10000 + v; neighbours by number share a CCSI
//!  VM i       number i / vpcs of VPC i % vpcs, on host i % hosts
//!  host h     172.20.0.0 + h
//!  classic k  100.64.0.0/10 in networks of 256 addresses
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ::bgp::Prefix;
use ccn::plane::Desired;
use ccn::plane::entry::{EntryKey, EntryValue, Hop, ScopeId};
use ccn::record::{LinkId, Mac, Mode, Vni};

use super::Failure;
use super::stage::CLASSIC_ROUTER;

/// All VMs are in here.
pub const CLOUD: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 128, 0, 0), 9);
/// All classic addresses are.
pub const CLASSIC: (Ipv4Addr, u8) = (Ipv4Addr::new(100, 64, 0, 0), 10);
/// The first host.
pub const HOSTS: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 0);
/// The VNI of the first VPC.
pub const VNI: u32 = 10_000;
/// Classic networks that packets come from, where nothing else is said.
pub const CLASSICS: u32 = 10_000;
/// VPCs where nothing else is said: the most that the `routes` plane takes.
const VPCS: u32 = 256;
/// The most hosts, as in DESIGN's promise of what one gateway serves.
const MAX_HOSTS: u32 = 10_000;

/// How large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// VMs, from 1.
    pub vms: u32,
    /// VPCs, at most as many as VMs.
    pub vpcs: u32,
    /// CCSIs; the number of VPCs is a multiple of it.
    pub ccsis: u32,
    /// Classic networks of 256 addresses that packets come from and go to.
    pub classics: u32,
    /// Each VPC has a link to each classic network; otherwise one to all of them together.
    pub fine_links: bool,
    /// Which side may open connections.
    pub mode: Mode,
}

impl Shape {
    /// So many VMs in the usual number of VPCs, all of one CCSI, each with a link to all classic networks.
    pub fn plain(vms: u32) -> Shape {
        Shape {
            vms,
            vpcs: VPCS.min(vms),
            ccsis: 1,
            classics: CLASSICS,
            fine_links: false,
            mode: Mode::Both,
        }
    }

    /// Links of all VPCs.
    pub fn links(&self) -> u32 {
        self.vpcs * if self.fine_links { self.classics } else { 1 }
    }

    /// VPCs of one CCSI.
    pub fn scope_vpcs(&self) -> u32 {
        self.vpcs / self.ccsis
    }

    /// Hosts.
    pub fn hosts(&self) -> u32 {
        self.vms.min(MAX_HOSTS)
    }

    /// How many bits number the addresses of a VPC: all its VMs, and none of them the first or last.
    pub fn bits(&self) -> u8 {
        let most = self.vms.div_ceil(self.vpcs) + 1;
        (u32::BITS - most.leading_zeros()) as u8
    }

    /// What a plane has to hold for it.
    ///
    /// # Errors
    /// It is too large for the addresses there are.
    pub fn desired(&self) -> Result<Desired, Failure> {
        let mut desired = Desired {
            generation: 1,
            learned: BTreeMap::from([(
                prefix(CLASSIC.0, CLASSIC.1)?,
                BTreeSet::from([CLASSIC_ROUTER.into()]),
            )]),
            ..Desired::default()
        };
        for vpc in 0..self.vpcs {
            let scope = self.scope(vpc)?;
            let (vni, subnet) = (vni(vpc)?, self.subnet(vpc)?);
            desired.entries.insert(
                EntryKey::Source { vni, subnet },
                EntryValue::Source { scope },
            );
            for (number, classic) in self.classic_prefixes()?.into_iter().enumerate() {
                let link: LinkId = format!("v{vpc}-{number}").parse()?;
                let key = EntryKey::Permit {
                    link,
                    vni,
                    subnet,
                    classic,
                };
                let value = EntryValue::Permit {
                    scope,
                    mode: self.mode,
                    dscp: None,
                };
                desired.entries.insert(key, value);
            }
        }
        for vm in 0..self.vms {
            let vpc = vm % self.vpcs;
            let key = EntryKey::Endpoint {
                scope: self.scope(vpc)?,
                addr: self.address(vm).into(),
            };
            let hop = Hop {
                vtep: self.host(vm % self.hosts()).into(),
                mac: mac(vm)?,
                weight: 1,
            };
            let value = EntryValue::Endpoint {
                vni: vni(vpc)?,
                hops: vec![hop],
            };
            desired.entries.insert(key, value);
        }
        Ok(desired)
    }

    fn classic_prefixes(&self) -> Result<Vec<Prefix>, Failure> {
        if !self.fine_links {
            return Ok(vec![prefix(CLASSIC.0, CLASSIC.1)?]);
        }
        (0..self.classics)
            .map(|number| prefix(offset(CLASSIC.0, number << 8), 24))
            .collect()
    }

    /// The CCSI of VPC number `vpc`.
    ///
    /// # Errors
    /// There are more VPCs than VNIs.
    pub fn scope(&self, vpc: u32) -> Result<ScopeId, Failure> {
        Ok(ScopeId(vni(vpc - vpc % self.scope_vpcs())?))
    }

    fn subnet(&self, vpc: u32) -> Result<Prefix, Failure> {
        prefix(offset(CLOUD.0, vpc << self.bits()), 32 - self.bits())
    }

    /// The VTEP of host number `host`.
    pub fn host(&self, host: u32) -> Ipv4Addr {
        offset(HOSTS, host)
    }

    /// The address of VM number `vm`.
    pub fn address(&self, vm: u32) -> Ipv4Addr {
        let (vpc, number) = (vm % self.vpcs, vm / self.vpcs);
        offset(CLOUD.0, (vpc << self.bits()) + number + 1)
    }
}

/// The MAC of VM number `vm`.
///
/// # Errors
/// None for any number there is.
pub fn mac(vm: u32) -> Result<Mac, Failure> {
    let [a, b, c, d] = vm.to_be_bytes();
    Ok(Mac::new([2, 0, a, b, c, d])?)
}

fn vni(vpc: u32) -> Result<Vni, Failure> {
    Ok(Vni::new(VNI + vpc)?)
}

fn prefix(address: Ipv4Addr, length: u8) -> Result<Prefix, Failure> {
    Ok(Prefix::new(address.into(), length)?)
}

fn offset(address: Ipv4Addr, by: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits().wrapping_add(by))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [Shape; 4] = [
        Shape {
            vms: 1,
            vpcs: 1,
            ccsis: 1,
            classics: 10,
            fine_links: false,
            mode: Mode::Both,
        },
        Shape {
            vms: 1_000,
            vpcs: 8,
            ccsis: 4,
            classics: 3,
            fine_links: true,
            mode: Mode::ClassicToVpc,
        },
        Shape {
            vms: 5_000,
            vpcs: 4_096,
            ccsis: 4_096,
            classics: 1,
            fine_links: false,
            mode: Mode::Both,
        },
        Shape {
            vms: 255,
            vpcs: 1,
            ccsis: 1,
            classics: 1,
            fine_links: false,
            mode: Mode::Both,
        },
    ];

    #[test]
    fn every_vm_is_in_the_subnet_of_its_vpc_and_alone_at_its_address() {
        for shape in SHAPES {
            let desired = shape.desired().expect("entries");
            let mut addresses = BTreeSet::new();
            for vm in 0..shape.vms {
                let address = shape.address(vm);
                let subnet = shape.subnet(vm % shape.vpcs).expect("a prefix");
                assert!(subnet.contains_addr(address.into()), "{shape:?}: {address}");
                assert!(addresses.insert(address), "{shape:?}: {address} twice");
            }
            let count = |wanted: fn(&EntryKey) -> bool| {
                desired.entries.keys().filter(|key| wanted(key)).count() as u32
            };
            let of = [
                count(|key| matches!(key, EntryKey::Source { .. })),
                count(|key| matches!(key, EntryKey::Endpoint { .. })),
                count(|key| matches!(key, EntryKey::Permit { .. })),
            ];
            assert_eq!(of, [shape.vpcs, shape.vms, shape.links()], "{shape:?}");
        }
    }

    #[test]
    fn a_million_vms_fit_however_they_are_spread() {
        for vpcs in [1, 256, 4_096] {
            let shape = Shape {
                vms: 1_000_000,
                vpcs,
                ..SHAPES[0]
            };
            let last = shape.address(shape.vms - 1).to_bits();
            let end = u64::from(CLOUD.0.to_bits()) + (1 << (32 - CLOUD.1));
            assert!(u64::from(last) < end, "{vpcs} VPCs");
        }
    }
}
