//! Which node of an SLB serves which flow: weighted rendezvous over a table of slots. Pure.
//!
//! Every slot ranks all nodes by a hash of slot and node, scaled by the node's weight, and takes the
//! first. So a node that goes gives its slots to the others and no other slot changes, and a node
//! that comes takes slots from the others only. Every gateway makes the same table of the same nodes.

use std::net::IpAddr;
use std::sync::LazyLock;

use crate::plane::entry::Hop;

/// The smallest table, in slots.
pub(crate) const MIN_SLOTS: u32 = 256;
/// The largest.
pub(crate) const MAX_SLOTS: u32 = 4096;
/// So many slots the lightest node has on average, as far as [`MAX_SLOTS`] allows.
const LIGHTEST: u32 = 32;
/// Bits after the point of logarithms.
const FRACTION: u32 = 24;
/// Steps of the table of logarithms, as a power of two.
const STEP_BITS: u32 = 12;

/// How many slots these nodes need: a power of two.
pub(crate) fn slots_for(hops: &[Hop]) -> u32 {
    let total: u32 = hops.iter().map(|hop| u32::from(hop.weight)).sum();
    let lightest = hops.iter().map(|hop| u32::from(hop.weight)).min();
    let wanted = (total * LIGHTEST).div_ceil(lightest.unwrap_or(1).max(1));
    wanted.next_power_of_two().clamp(MIN_SLOTS, MAX_SLOTS)
}

/// For each of `slots` slots, the place in `hops` of the node that serves it. Nothing for no hops.
pub(crate) fn assign(hops: &[Hop], slots: u32) -> impl Iterator<Item = usize> {
    let nodes: Vec<(u64, u64)> = hops
        .iter()
        .map(|hop| (identity(hop), u64::from(hop.weight.max(1))))
        .collect();
    (0..slots).filter_map(move |slot| first(&nodes, slot))
}

/// The node with the least cost, which is -log2(hash) / weight. Equal ones: the lower identity.
fn first(nodes: &[(u64, u64)], slot: u32) -> Option<usize> {
    let costs = nodes.iter().map(|(node, weight)| {
        let hash = mix(node ^ mix(u64::from(slot) + 1));
        (cost(hash), *weight, *node)
    });
    costs
        .enumerate()
        .min_by(|(_, (a, aw, an)), (_, (b, bw, bn))| (a * bw).cmp(&(b * aw)).then(an.cmp(bn)))
        .map(|(place, _)| place)
}

/// -log2 of a hash taken as a fraction of 2^64, in units of 2^-24: the same on every machine.
fn cost(hash: u64) -> u64 {
    let hash = hash | 1;
    let zeros = hash.leading_zeros();
    // Below the leading one: the step of the table, and how far it is to the next.
    let below = (hash << zeros) << 1;
    let (step, rest) = (
        (below >> (64 - STEP_BITS)) as usize,
        below << STEP_BITS >> 40,
    );
    let (low, high) = (LOGARITHMS[step], LOGARITHMS[step + 1]);
    let log = low + (((high - low) * rest) >> FRACTION);
    (u64::from(zeros + 1) << FRACTION) - log
}

/// log2 of numbers in 1..=2, in equal steps; between two it is as good as straight.
static LOGARITHMS: LazyLock<Vec<u64>> = LazyLock::new(|| {
    (0..=1u64 << STEP_BITS)
        .map(|step| logarithm((1 << STEP_BITS) + step))
        .collect()
});

/// log2 of a number that has [`STEP_BITS`] bits after the point and is in 1..=2.
fn logarithm(number: u64) -> u64 {
    if number >> (STEP_BITS + 1) != 0 {
        return 1 << FRACTION;
    }
    // Squaring gives one bit of the logarithm at a time.
    let mut mantissa = number << (31 - STEP_BITS);
    let mut log = 0;
    for bit in (0..FRACTION).rev() {
        mantissa = (mantissa * mantissa) >> 31;
        if mantissa >> 32 != 0 {
            mantissa >>= 1;
            log |= 1 << bit;
        }
    }
    log
}

/// What a node is known by: where it is. Its weight is not part of it, nor are the other nodes.
fn identity(hop: &Hop) -> u64 {
    let addr = match hop.vtep {
        IpAddr::V4(addr) => u128::from(addr.to_bits()),
        IpAddr::V6(addr) => addr.to_bits(),
    };
    let [a, b, c, d, e, f] = hop.mac.bytes();
    let mac = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    [addr as u64, (addr >> 64) as u64, mac]
        .into_iter()
        .fold(0x9e37_79b9_7f4a_7c15, |hash, part| mix(hash ^ part))
}

/// Spreads every bit over all others: the finaliser of MurmurHash3 with Stafford's constants.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::record::Mac;

    fn hop(n: u32, weight: u16) -> Hop {
        let [a, b, c, d] = n.to_be_bytes();
        Hop {
            vtep: Ipv4Addr::from_bits(0xac10_0000 + n).into(),
            mac: Mac::new([2, 0, a, b, c, d]).expect("a MAC"),
            weight,
        }
    }

    fn hops() -> impl Strategy<Value = Vec<Hop>> {
        prop::collection::btree_map(0..1000u32, 1..=256u16, 2..12).prop_map(|nodes| {
            nodes
                .into_iter()
                .map(|(n, weight)| hop(n, weight))
                .collect()
        })
    }

    #[test]
    fn the_table_is_as_large_as_the_lightest_node_needs() {
        let table: [(&[u16], u32); 5] = [
            (&[1, 1], 256),
            (&[1; 8], 256),
            (&[1; 9], 512),
            (&[1, 256], 4096),
            (&[200; 256], 4096),
        ];
        for (weights, slots) in table {
            let hops: Vec<Hop> = weights.iter().zip(0..).map(|(w, n)| hop(n, *w)).collect();
            assert_eq!(slots_for(&hops), slots, "{weights:?}");
        }
    }

    #[test]
    fn logarithms_are_right() {
        for (hash, log) in [
            (0xb504_f333_f9de_6484, 0.5),
            (0xcccc_cccc_cccc_cccc, 0.321_928_1),
            (1u64 << 63, 1.0),
            (u64::MAX, 0.0),
            (1 << 62, 2.0),
            (3 << 62, 0.415_037_5),
        ] {
            let got = cost(hash) as f64 / f64::from(1 << FRACTION);
            assert!((got - log).abs() < 1e-6, "{hash:#x}: {got}");
        }
    }

    proptest! {
        #[test]
        fn a_node_that_goes_moves_only_its_flows(hops in hops(), gone in any::<prop::sample::Index>()) {
            let gone = gone.index(hops.len());
            let mut rest = hops.clone();
            rest.remove(gone);
            let slots = slots_for(&hops);
            for (before, after) in assign(&hops, slots).zip(assign(&rest, slots)) {
                if before != gone {
                    prop_assert_eq!(hops[before], rest[after]);
                }
            }
        }

        #[test]
        fn a_lighter_node_only_loses_flows(hops in hops(), which in any::<prop::sample::Index>(), weight in 1..=256u16) {
            let which = which.index(hops.len());
            let mut lighter = hops.clone();
            lighter[which].weight = weight.min(hops[which].weight);
            for (before, after) in assign(&hops, 1024).zip(assign(&lighter, 1024)) {
                prop_assert!(before == after || before == which);
            }
        }

        #[test]
        fn each_node_has_its_share(hops in hops()) {
            let slots = MAX_SLOTS;
            let mut counts = vec![0u32; hops.len()];
            for node in assign(&hops, slots) {
                counts[node] += 1;
            }
            let total: f64 = hops.iter().map(|hop| f64::from(hop.weight)).sum();
            for (hop, count) in hops.iter().zip(counts) {
                let share = f64::from(hop.weight) / total;
                let mean = share * f64::from(slots);
                // Six standard deviations of that many independent draws.
                let far = 6.0 * (mean * (1.0 - share)).sqrt() + 1.0;
                prop_assert!((f64::from(count) - mean).abs() < far, "{count} instead of {mean}");
            }
        }
    }
}
