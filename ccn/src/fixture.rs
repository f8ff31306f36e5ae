//! Made-up regions of any size, for tests and benchmarks: the same numbers give the same region.
//!
//! Each line is a function of the numbers and its place alone, so a region of millions streams.
//! Pairs of CCSIs have the same CIDRs and VM addresses: what must not mix has every chance to.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::record::Vni;

#[cfg(test)]
mod tests;

/// How large a region shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixtureSpec {
    /// VMs, spread evenly over the VPCs.
    pub vms: u64,
    /// VPCs, eight to a CCSI.
    pub vpcs: u32,
    /// Hosts (VTEPs) that the VMs are on.
    pub hosts: u32,
    /// Another number, another placing of the VMs.
    pub seed: u64,
}

/// Why a region of this size cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FixtureError {
    /// VMs need a VPC and a host.
    #[error("{0}: at least one is needed where there are VMs")]
    None(&'static str),
    /// Too many for the address plan.
    #[error("{what}: {asked} is more than the {most} that the made-up address plan has room for")]
    TooMany {
        /// The number at fault.
        what: &'static str,
        /// How many were asked for.
        asked: u64,
        /// How many there can be.
        most: u64,
    },
}

/// VPCs of one CCSI.
const CCSI_SIZE: u32 = 8;
/// The VNI of the first VPC.
const FIRST_VNI: u32 = 1000;
/// Addresses of a VPC that are left free at its start.
const RESERVED: u64 = 16;
/// One SLB for so many VMs.
const VMS_PER_SLB: u64 = 64;
/// Classic networks.
const CLASSICS: u32 = 4;
/// Addresses in 10.0.0.0/8, as a power of two.
const SPACE_BITS: u32 = 24;
/// Hosts that 172.16.0.0/12 has room for.
const MAX_HOSTS: u32 = (1 << 20) - 1024;

/// The lines of a region: VPCs, CCSIs, classic networks, VMs, SLBs; no links.
///
/// # Errors
/// When the numbers do not go together.
pub fn generate(spec: &FixtureSpec) -> Result<impl Iterator<Item = String> + use<>, FixtureError> {
    let plan = Plan::new(*spec)?;
    let FixtureSpec { vms, vpcs, .. } = *spec;
    let ccsis = vpcs.div_ceil(CCSI_SIZE);
    let lines = (0..vpcs).map(move |vpc| plan.vpc(vpc));
    let lines = lines.chain((0..ccsis).map(move |ccsi| plan.ccsi(ccsi)));
    let lines = lines.chain((0..CLASSICS).map(classic));
    let lines = lines.chain((0..vms).map(move |vm| plan.vm(vm)));
    Ok(lines.chain((0..vms / VMS_PER_SLB).map(move |slb| plan.slb(slb))))
}

/// Where everything is.
#[derive(Debug, Clone, Copy)]
struct Plan {
    spec: FixtureSpec,
    /// Addresses of each VPC's IPv4 subnet, as a power of two.
    bits: u32,
}

impl Plan {
    fn new(spec: FixtureSpec) -> Result<Plan, FixtureError> {
        let FixtureSpec {
            vms, vpcs, hosts, ..
        } = spec;
        if vms > 0 && vpcs == 0 {
            return Err(FixtureError::None("vpcs"));
        }
        if vms > 0 && hosts == 0 {
            return Err(FixtureError::None("hosts"));
        }
        let at_most = |what, asked: u64, most: u64| match asked <= most {
            true => Ok(()),
            false => Err(FixtureError::TooMany { what, asked, most }),
        };
        at_most("vpcs", vpcs.into(), u64::from(Vni::MAX - FIRST_VNI) + 1)?;
        at_most("hosts", hosts.into(), MAX_HOSTS.into())?;
        // Each VPC of a CCSI needs addresses of its own: eight subnets at most share the space.
        let most_bits = SPACE_BITS - CCSI_SIZE.ilog2();
        let most_each = (1 << most_bits) - RESERVED - 1;
        let most_vms = most_each * VMS_PER_SLB / (VMS_PER_SLB + 1) * u64::from(vpcs);
        at_most("vms", vms, most_vms)?;
        let each = if vms == 0 {
            0
        } else {
            (vms + vms / VMS_PER_SLB).div_ceil(vpcs.into()) + 1
        };
        let bits = (each + RESERVED)
            .next_power_of_two()
            .ilog2()
            .clamp(8, most_bits);
        Ok(Plan { spec, bits })
    }

    /// Which of the subnets a VPC has. Every second CCSI has those of the one before it.
    fn block(&self, vpc: u32) -> u32 {
        let (ccsi, member) = (vpc / CCSI_SIZE, vpc % CCSI_SIZE);
        (ccsi / 2 * CCSI_SIZE + member) % (1 << (SPACE_BITS - self.bits))
    }

    fn vpc(&self, vpc: u32) -> String {
        let (v4, v6, len) = (self.v4(vpc, 0), self.v6(vpc, 0), 32 - self.bits);
        let (id, vni) = (vpc_id(vpc), FIRST_VNI + vpc);
        format!(
            r#"{{"key":"vpcs/{id}","value":{{"vni":{vni},"subnets":["{v4}/{len}","{v6}/64"]}}}}"#
        )
    }

    fn ccsi(&self, ccsi: u32) -> String {
        let members = ccsi * CCSI_SIZE..self.spec.vpcs.min((ccsi + 1) * CCSI_SIZE);
        let members: Vec<String> = members.map(|vpc| format!(r#""{}""#, vpc_id(vpc))).collect();
        let members = members.join(",");
        format!(r#"{{"key":"ccsis/ccsi-{ccsi:04}","value":{{"vpcs":[{members}]}}}}"#)
    }

    fn vm(&self, vm: u64) -> String {
        let (vpc, place) = self.place(vm, RESERVED);
        let random = mix(self.spec.seed ^ mix(vm));
        let v4 = self.v4(vpc, place);
        // One in four has IPv6 as well.
        let v6 = match random % 4 {
            0 => format!(r#","{}""#, self.v6(vpc, place)),
            _ => String::new(),
        };
        let [_, _, _, a, b, c, d, e] = vm.to_be_bytes();
        let (id, vtep) = (vpc_id(vpc), self.vtep(random >> 8));
        format!(
            r#"{{"key":"vms/{id}/vm-{vm:07}","value":{{"addrs":["{v4}"{v6}],"mac":"06:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}","vtep":"{vtep}"}}}}"#
        )
    }

    fn slb(&self, slb: u64) -> String {
        // After the last VM of any VPC.
        let (vpc, place) = self.place(slb, RESERVED + self.spec.vms.div_ceil(self.vpcs()));
        let random = mix(!self.spec.seed ^ mix(slb));
        let count = (1 + random % 4).min(self.spec.hosts.into());
        let nodes: Vec<String> = (0..count)
            .map(|node| {
                let vtep = self.vtep((random >> 8) + node);
                let weight = 1 + (random >> (16 + 8 * node)) % 8;
                format!(r#"{{"vtep":"{vtep}","weight":{weight}}}"#)
            })
            .collect();
        let (id, vip, nodes) = (vpc_id(vpc), self.v4(vpc, place), nodes.join(","));
        format!(
            r#"{{"key":"slbs/{id}/slb-{slb:05}","value":{{"vips":["{vip}"],"nodes":[{nodes}]}}}}"#
        )
    }

    fn vpcs(&self) -> u64 {
        u64::from(self.spec.vpcs)
    }

    /// The VPC of the n-th VM or SLB, and its place in there.
    fn place(&self, n: u64, first: u64) -> (u32, u64) {
        // Both fit: the remainder of a u32, and Plan::new has bounded the VMs of a VPC.
        ((n % self.vpcs()) as u32, first + n / self.vpcs())
    }

    fn v4(&self, vpc: u32, place: u64) -> Ipv4Addr {
        Ipv4Addr::from_bits((10 << 24) + (self.block(vpc) << self.bits) + place as u32)
    }

    fn v6(&self, vpc: u32, place: u64) -> Ipv6Addr {
        let net = (0xfd00 << 112) | (u128::from(self.block(vpc)) << 64);
        Ipv6Addr::from_bits(net | u128::from(place))
    }

    /// A host's VTEP, by any number.
    fn vtep(&self, n: u64) -> Ipv4Addr {
        let host = (n % u64::from(self.spec.hosts.max(1))) as u32;
        Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(172, 16, 0, 11)) + host)
    }
}

fn vpc_id(vpc: u32) -> String {
    format!("vpc-{vpc:04}")
}

fn classic(n: u32) -> String {
    format!(
        r#"{{"key":"classic/idc-{n}","value":{{"prefixes":["192.168.{n}.0/24","fd80:{n}::/64"]}}}}"#
    )
}

/// Spreads a number over all 64 bits, always the same way (the finaliser of SplitMix64).
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
