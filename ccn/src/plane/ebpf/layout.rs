//! What the programs and the agent share: the mirror of `ccn/bpf/layout.h`, in which the meaning of
//! every field is described.
//!
//! Sizes and places are checked when this is compiled; what the loaded object says of its maps is
//! checked when it is loaded. Nothing here decides what goes into a map.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::{Family, Prefix};

/// Grows with every change of a struct or of a meaning.
pub const LAYOUT_VERSION: u32 = 3;

/// Most different lengths of the prefixes in one space.
pub const LENGTHS: usize = 16;
/// Ends a list of lengths.
pub const NO_LENGTH: u8 = 0xff;
/// IPv4 subnets of a VPC that stand in [`Vpc`] itself.
pub const OWN: usize = 2;
/// Of [`Subnet::flags`]: addresses outside the window may be in `sparse`.
pub const SUBNET_SPARSE: u32 = 1;
/// Of [`Permit::flags`]: the VPC may only reply.
pub const PERMIT_TRACKED: u8 = 1;
/// Of [`Permit::flags`]: always.
pub const PERMIT_GIVEN: u8 = 2;
/// Keys of a bucket of `classics4`.
pub const WAYS: usize = 5;
/// Buckets that a key of `classics4` may be in.
pub const REACH: u32 = 8;
/// Counters of one kind and processor that follow one another, before those of the next.
pub const COUNTER_RUN: u32 = 256;
/// Kinds of what is counted of a link or VPC: towards the VPC, from the VPC, dropped.
pub const KINDS: u32 = 3;
/// Of [`Permit::dscp`]: the inner one is copied.
pub const DSCP_COPY: u8 = 0xff;
/// Of [`Slot::host`]: nobody has the address.
pub const HOST_NONE: u16 = 0;
/// Of [`Slot::host`]: the address is that of an SLB.
pub const HOST_SLB: u16 = 0xffff;
/// Of [`Globals::trace`]: packets that are dropped are sampled.
pub const TRACE_DROPS: u16 = 1;
/// Of [`Globals::trace`]: packets that are forwarded are sampled.
pub const TRACE_FORWARDED: u16 = 2;
/// The highest number of a host.
pub const HOST_MAX: u16 = 0xfffe;
/// Mark of the packets of VPCs that the stack is to route to the IDC.
pub const STACK_MARK: u32 = 0xcc01;
/// Slots of an SLB's nodes, at most.
pub const MAX_NODE_SLOTS: u32 = 1 << 16;

/// A value that lies in a map as it lies in memory.
///
/// Implemented here alone, by [`plain`], for structs of integers without gaps.
pub trait Plain: Copy + Default + PartialEq + std::fmt::Debug + Send + 'static {
    /// Its octets.
    fn octets(&self) -> &[u8];
    /// Reads it; `None` when there are more or fewer octets than it has.
    fn read(octets: &[u8]) -> Option<Self>;
}

/// Makes structs [`Plain`]. The sizes of the fields must add up to that of the struct, so that it has
/// no gaps.
macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
        }

        const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$kind>())*, "it has gaps");

        impl Plain for $name {
            fn octets(&self) -> &[u8] {
                // SAFETY: the struct is of integers and has no gaps, so each octet is initialised.
                unsafe {
                    std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), size_of::<Self>())
                }
            }

            fn read(octets: &[u8]) -> Option<Self> {
                if octets.len() != size_of::<Self>() {
                    return None;
                }
                // SAFETY: the length was compared, and any octets make integers.
                Some(unsafe { octets.as_ptr().cast::<Self>().read_unaligned() })
            }
        }
    )*};
}

/// The lengths of the prefixes in one space, longest first.
pub type Lengths = [u8; LENGTHS];
/// An address; IPv4 as `::ffff:a.b.c.d`.
pub type Mapped = [u8; 16];

plain! {
    /// Key of an IPv4 prefix.
    Prefix4 {
        /// Space << 8 | length.
        space_len: u32,
        /// The network.
        net: [u8; 4],
    }
    /// Key of an IPv6 prefix.
    Prefix6 {
        /// Space << 8 | length.
        space_len: u32,
        /// The network.
        net: [u8; 16],
    }
    /// Key of a VPC: its VNI.
    VpcKey {
        /// 1..=16,777,215.
        vni: u32,
    }
    /// An IPv4 subnet and its mask. Unused: `UNUSED_NET`.
    Net4 {
        /// The network.
        net: [u8; 4],
        /// The mask.
        mask: [u8; 4],
    }
    /// A VPC.
    Vpc {
        /// The lowest VNI of its CCSI.
        scope: u32,
        /// In `vpc_counters`.
        counter: u32,
        /// Its first IPv4 subnets.
        own: [Net4; OWN],
        /// IPv4 subnets of the scope.
        subnets4: Lengths,
        /// IPv6 subnets of the scope.
        subnets6: Lengths,
        /// IPv4 prefixes of the VPC's links.
        classic4: Lengths,
        /// IPv6 prefixes of the VPC's links.
        classic6: Lengths,
    }
    /// A subnet of a VPC, or an address of this host in a linked one.
    Subnet {
        /// Of the VPC; 0: this host.
        vni: u32,
        /// In `vpc_counters`.
        counter: u32,
        /// First slot of the window.
        base: u32,
        /// Slots of the window; 0: none.
        span: u32,
        /// Lowest address of the window; IPv6: its low 64 bits.
        first: u64,
        /// IPv6: its high 64 bits.
        high: u64,
        /// `SUBNET_SPARSE`.
        flags: u32,
        /// Zero.
        pad: u32,
        /// In `linked4` and `linked6`: prefixes of the VPC's links in this family.
        classic: Lengths,
    }
    /// A classic prefix that links join with a VPC.
    Permit {
        /// In `link_counters`.
        link: u16,
        /// `PERMIT_TRACKED`, and always `PERMIT_GIVEN`.
        flags: u8,
        /// 0..=63, or `DSCP_COPY`.
        dscp: u8,
    }
    /// Key of an address outside the windows.
    Address {
        /// Of the VPC.
        vni: u32,
        /// The address.
        addr: Mapped,
    }
    /// An outer destination.
    Host {
        /// 4, 6, or 0: unused.
        family: u32,
        /// IPv4, as a number.
        v4: u32,
        /// IPv6.
        v6: [u8; 16],
    }
    /// Packets and octets.
    Tally {
        /// Packets.
        packets: u64,
        /// Octets of the inner packets.
        octets: u64,
    }
    /// What operators are shown of a packet.
    Sample {
        /// Nanoseconds since boot.
        time: u64,
        /// Inner source.
        src: Mapped,
        /// Inner destination.
        dst: Mapped,
        /// Of the packet as it came; 0: it was plain.
        vni: u32,
        /// In `link_counters`, or `u32::MAX`.
        link: u32,
        /// Octets of the inner packet.
        octets: u32,
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
        /// IP protocol.
        proto: u8,
        /// A [`DropReason`](crate::plane::model::DropReason), or as many as there are: forwarded.
        reason: u8,
        /// Zero.
        pad: [u8; 6],
    }
    /// Key of a flow over a link of mode `classic-to-vpc`.
    Flow {
        /// Of the VPC.
        vni: u32,
        /// Address of the classic host.
        classic: Mapped,
        /// Address in the VPC.
        vpc: Mapped,
        /// Port of the classic host, in network order.
        classic_port: u16,
        /// Port in the VPC, in network order.
        vpc_port: u16,
        /// IP protocol.
        proto: u8,
        /// Zero.
        pad: [u8; 3],
    }
    /// What concerns all packets.
    Globals {
        /// `LAYOUT_VERSION`.
        version: u32,
        /// Interface index of the VXLAN device.
        device: u32,
        /// Octets of the largest inner packet.
        mtu: u32,
        /// Inner source MAC.
        mac: [u8; 6],
        /// What is sampled: `TRACE_` of `layout.h`.
        trace: u16,
        /// Outer source as a number; 0: not IPv4.
        local4: u32,
        /// Outer source; zero: not IPv6.
        local6: [u8; 16],
        /// Source of ICMP errors; zero: none are sent.
        icmp4: [u8; 4],
        /// Source of ICMPv6 errors; zero: none are sent.
        icmp6: [u8; 16],
        /// The link that is sampled; `u32::MAX`: every one.
        trace_link: u32,
        /// The address that is sampled; zero: every one.
        trace_addr: Mapped,
        /// Of the kernel's routes to the IDC.
        idc_table: u32,
        /// UDP port of VXLAN.
        port: [u8; 2],
        /// 1: packets may go past the VXLAN device.
        past_device: u16,
        /// Processors that there may be: elements of a counter.
        cpus: u32,
        /// Zero.
        pad: u32,
        /// IPv4 prefixes in `linked4`.
        linked4: Lengths,
        /// IPv6 prefixes in `linked6`.
        linked6: Lengths,
    }
}

const _: () = {
    assert!(size_of::<Prefix4>() == 8 && size_of::<Prefix6>() == 20);
    assert!(size_of::<Vpc>() == 88 && size_of::<Subnet>() == 56 && size_of::<Permit>() == 4);
    assert!(size_of::<Address>() == 20 && size_of::<Host>() == 24);
    assert!(size_of::<Tally>() == 16 && size_of::<Sample>() == 64 && size_of::<Flow>() == 44);
    assert!(size_of::<Globals>() == 128 && size_of::<Slot>() == 8);
};

/// What [`Vpc::own`] holds where the VPC has no more subnets: no address matches it.
pub const UNUSED_NET: Net4 = Net4 {
    net: [0xff; 4],
    mask: [0; 4],
};

/// Where an address is: eight octets, stored and loaded at once. All zero: nobody has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Slot(pub u64);

impl Slot {
    /// Nobody has the address.
    pub const EMPTY: Slot = Slot(0);

    /// On one host.
    #[must_use]
    pub fn on_host(host: u16, mac: [u8; 6]) -> Slot {
        let ([h0, h1], [a, b, c, d, e, f]) = (host.to_ne_bytes(), mac);
        Slot(u64::from_ne_bytes([h0, h1, a, b, c, d, e, f]))
    }

    /// An SLB whose nodes are in the slots `[base, base + count)`; `count` is a power of two up to
    /// [`MAX_NODE_SLOTS`].
    #[must_use]
    pub fn slb(base: u32, count: u32) -> Slot {
        debug_assert!(count.is_power_of_two() && count <= MAX_NODE_SLOTS);
        let [h0, h1] = HOST_SLB.to_ne_bytes();
        let [m0, m1] = ((count - 1) as u16).to_ne_bytes();
        let [l0, l1] = (base as u16).to_ne_bytes();
        let [b0, b1] = ((base >> 16) as u16).to_ne_bytes();
        Slot(u64::from_ne_bytes([h0, h1, m0, m1, l0, l1, b0, b1]))
    }

    /// The host's number, [`HOST_NONE`] or [`HOST_SLB`].
    #[must_use]
    pub fn host(self) -> u16 {
        let [h0, h1, ..] = self.0.to_ne_bytes();
        u16::from_ne_bytes([h0, h1])
    }

    /// The inner destination MAC, of one on a host.
    #[must_use]
    pub fn mac(self) -> [u8; 6] {
        let [_, _, mac @ ..] = self.0.to_ne_bytes();
        mac
    }

    /// First slot and number of slots of an SLB's nodes; `None` for anything else.
    #[must_use]
    pub fn nodes(self) -> Option<(u32, u32)> {
        let [_, _, m0, m1, l0, l1, b0, b1] = self.0.to_ne_bytes();
        let base =
            u32::from(u16::from_ne_bytes([l0, l1])) | u32::from(u16::from_ne_bytes([b0, b1])) << 16;
        let count = u32::from(u16::from_ne_bytes([m0, m1])) + 1;
        (self.host() == HOST_SLB).then_some((base, count))
    }
}

impl Host {
    /// The outer destination with this address.
    #[must_use]
    pub fn at(addr: IpAddr) -> Host {
        match addr {
            IpAddr::V4(addr) => Host {
                family: 4,
                v4: addr.to_bits(),
                v6: [0; 16],
            },
            IpAddr::V6(addr) => Host {
                family: 6,
                v4: 0,
                v6: addr.octets(),
            },
        }
    }

    /// Its address; `None` when it is unused.
    #[must_use]
    pub fn addr(&self) -> Option<IpAddr> {
        match self.family {
            4 => Some(Ipv4Addr::from_bits(self.v4).into()),
            6 => Some(Ipv6Addr::from(self.v6).into()),
            _ => None,
        }
    }
}

/// An address as keys and samples hold it.
#[must_use]
pub fn mapped(addr: IpAddr) -> Mapped {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

/// The address that a key or sample holds.
#[must_use]
pub fn unmapped(addr: Mapped) -> IpAddr {
    Ipv6Addr::from(addr).to_canonical()
}

/// The octets of the key of a prefix in a space, of either family.
#[must_use]
pub fn prefix_key(space: u32, prefix: Prefix) -> Vec<u8> {
    let space_len = space << 8 | u32::from(prefix.len());
    match prefix.addr() {
        IpAddr::V4(net) => Prefix4 {
            space_len,
            net: net.octets(),
        }
        .octets()
        .to_vec(),
        IpAddr::V6(net) => Prefix6 {
            space_len,
            net: net.octets(),
        }
        .octets()
        .to_vec(),
    }
}

/// The space and prefix of a key; `None` for what is no key of that family.
#[must_use]
pub fn read_prefix_key(family: Family, octets: &[u8]) -> Option<(u32, Prefix)> {
    let (space_len, net): (u32, IpAddr) = match family {
        Family::Ipv4Unicast => {
            let key = Prefix4::read(octets)?;
            (key.space_len, Ipv4Addr::from(key.net).into())
        }
        Family::Ipv6Unicast => {
            let key = Prefix6::read(octets)?;
            (key.space_len, Ipv6Addr::from(key.net).into())
        }
    };
    let prefix = Prefix::new(net, space_len as u8).ok()?;
    Some((space_len >> 8, prefix))
}

/// An IPv4 subnet with its mask; of IPv6 there is none.
#[must_use]
pub fn net4(prefix: Prefix) -> Option<Net4> {
    let IpAddr::V4(net) = prefix.addr() else {
        return None;
    };
    let mask = u32::MAX
        .checked_shl(32 - u32::from(prefix.len()))
        .unwrap_or(0);
    Some(Net4 {
        net: net.octets(),
        mask: mask.to_be_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plane::model::DropReason;

    #[test]
    fn reasons_are_numbered_as_in_the_header() {
        let header = include_str!("../../../bpf/layout.h");
        let (_, list) = header.split_once("enum reason {").expect("it is there");
        let (list, _) = list.split_once("REASONS,").expect("the end");
        let named: Vec<String> = list
            .lines()
            .filter_map(|line| line.trim().strip_prefix("REASON_"))
            .filter_map(|line| line.split_once(','))
            .map(|(name, _)| name.to_lowercase().replace('_', "-"))
            .collect();
        let ours: Vec<&str> = DropReason::ALL
            .iter()
            .map(|reason| reason.as_str())
            .collect();
        assert_eq!(named, ours);
        for (number, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
        }
    }

    #[test]
    fn constants_are_those_of_the_header() {
        let header = include_str!("../../../bpf/layout.h");
        for (name, value) in [
            ("LAYOUT_VERSION", LAYOUT_VERSION.to_string()),
            ("LENGTHS", LENGTHS.to_string()),
            ("NO_LENGTH", format!("{NO_LENGTH:#x}")),
            ("OWN", OWN.to_string()),
            ("SUBNET_SPARSE", SUBNET_SPARSE.to_string()),
            ("PERMIT_TRACKED", PERMIT_TRACKED.to_string()),
            ("PERMIT_GIVEN", PERMIT_GIVEN.to_string()),
            ("WAYS", WAYS.to_string()),
            ("REACH", REACH.to_string()),
            ("COUNTER_RUN", COUNTER_RUN.to_string()),
            ("DSCP_COPY", format!("{DSCP_COPY:#x}")),
            ("HOST_NONE", HOST_NONE.to_string()),
            ("HOST_SLB", format!("{HOST_SLB:#x}")),
            ("STACK_MARK", format!("{STACK_MARK:#x}")),
            ("TRACE_DROPS", TRACE_DROPS.to_string()),
            ("TRACE_FORWARDED", TRACE_FORWARDED.to_string()),
        ] {
            let defined = header
                .lines()
                .filter_map(|line| line.strip_prefix(&format!("#define {name} ")))
                .map(|rest| rest.split_whitespace().next().unwrap_or_default())
                .next();
            assert_eq!(defined, Some(value.as_str()), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_slot_says_what_was_put_into_it(
            host in 1..=HOST_MAX,
            mac in any::<[u8; 6]>(),
            base in any::<u32>(),
            power in 0..=16u32,
        ) {
            let slot = Slot::on_host(host, mac);
            prop_assert_eq!((slot.host(), slot.mac(), slot.nodes()), (host, mac, None));
            let slb = Slot::slb(base, 1 << power);
            prop_assert_eq!((slb.host(), slb.nodes()), (HOST_SLB, Some((base, 1 << power))));
        }

        #[test]
        fn a_key_of_a_prefix_says_which(space in 0..1u32 << 24, addr in any::<u128>(), len in 0..=128u8) {
            let v6 = Prefix::containing(Ipv6Addr::from_bits(addr).into(), len).expect("a length");
            let v4 = Prefix::containing(Ipv4Addr::from_bits(addr as u32).into(), len % 33).expect("a length");
            for prefix in [v4, v6] {
                let key = prefix_key(space, prefix);
                prop_assert_eq!(read_prefix_key(prefix.family(), &key), Some((space, prefix)));
            }
        }
    }
}
