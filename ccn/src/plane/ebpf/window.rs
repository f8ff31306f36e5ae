//! Which addresses of a subnet get a slot each: the window that holds the most of them and is still
//! densely used. Pure; where in `slots` a window lies is not its business.
//!
//! Addresses are numbers here: IPv4 in the low 32 bits, IPv6 in all 128.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::Prefix;

/// A window of this span is worth it however few addresses are in it.
pub(crate) const SMALL: u32 = 256;
/// A larger one holds an address in so many slots at least.
pub(crate) const SLOTS_PER_ADDRESS: u32 = 4;

/// `span` addresses from `first` on; all of them have the same high 64 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// The lowest address.
    pub(crate) first: u128,
    /// How many; 0: no window.
    pub(crate) span: u32,
}

impl Window {
    /// The place of an address in the window.
    pub(crate) fn place(&self, addr: u128) -> Option<u32> {
        let place = addr.checked_sub(self.first)?;
        (place < u128::from(self.span)).then_some(place as u32)
    }
}

/// An address as a number.
pub(crate) fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// The address that a number of this prefix's family stands for.
pub(crate) fn address(prefix: Prefix, number: u128) -> IpAddr {
    match prefix.addr() {
        IpAddr::V4(_) => Ipv4Addr::from_bits(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

/// The lowest and the highest number of a prefix.
pub(crate) fn bounds(prefix: Prefix) -> (u128, u128) {
    let first = number(prefix.addr());
    let host_bits = match prefix.addr() {
        IpAddr::V4(_) => 32 - u32::from(prefix.len()),
        IpAddr::V6(_) => 128 - u32::from(prefix.len()),
    };
    let size_less_one = 1u128
        .checked_shl(host_bits)
        .map_or(u128::MAX, |size| size - 1);
    (first, first + size_less_one)
}

/// The best window for these addresses, sorted and each once, all of the subnet: the one that holds
/// the most of them, with room for more where its density allows. A subnet that is small as a whole
/// has all of it, whatever its addresses.
pub(crate) fn choose(subnet: Prefix, addresses: &[u128]) -> Window {
    let (low, high) = bounds(subnet);
    if high - low < u128::from(SMALL) {
        return Window {
            first: low,
            span: (high - low + 1) as u32,
        };
    }
    // No window reaches over a border of the high 64 bits.
    let groups = addresses.chunk_by(|a, b| a >> 64 == b >> 64);
    let best = groups
        .map(|group| [small(group), dense(group)])
        .flat_map(|found| found.into_iter())
        .max_by_key(|found| (found.len(), std::cmp::Reverse(reach(found))));
    match best {
        Some(found) if !found.is_empty() => with_room(subnet, found),
        _ => Window::default(),
    }
}

fn reach(found: &[u128]) -> u128 {
    match (found.first(), found.last()) {
        (Some(first), Some(last)) => last - first + 1,
        _ => 0,
    }
}

/// The most addresses that a small window can hold.
fn small(group: &[u128]) -> &[u128] {
    let (mut from, mut best) = (0, 0..0);
    for (to, addr) in group.iter().enumerate() {
        while addr - group[from] >= u128::from(SMALL) {
            from += 1;
        }
        if to + 1 - from > best.len() {
            best = from..to + 1;
        }
    }
    &group[best]
}

/// The longest run whose span is densely used.
///
/// The run from the `i`th to the `j`th address is, when `a[j] - a[i] < per * (j - i + 1)`. With
/// `height[k] = a[k] - per * k` that is `height[j] < height[i] + per`: for each start from the left
/// that is higher than all before it, the last end that is low enough.
fn dense(group: &[u128]) -> &[u128] {
    let per = i128::from(SLOTS_PER_ADDRESS);
    let Some(&first) = group.first() else {
        return group;
    };
    let height = |k: usize| {
        // Within one group numbers differ by less than 2^64.
        (group[k] - first) as i128 - per * k as i128
    };
    // lowest[k]: the lowest height from k on, which says whether a later end can still do.
    let mut lowest = vec![0i128; group.len()];
    let mut least = i128::MAX;
    for k in (0..group.len()).rev() {
        least = least.min(height(k));
        lowest[k] = least;
    }
    let (mut best, mut end, mut highest) = (0..0, 0, i128::MIN);
    for start in 0..group.len() {
        let from = height(start);
        if from <= highest {
            continue;
        }
        highest = from;
        end = end.max(start);
        while end + 1 < group.len() && lowest[end + 1] < from + per {
            end += 1;
        }
        if end + 1 - start > best.len() {
            best = start..end + 1;
        }
    }
    let span = reach(&group[best.clone()]);
    if span > u128::from(u32::MAX / 2) {
        return &group[..0];
    }
    &group[best]
}

/// A window around these addresses that leaves room for as many again, or for [`SMALL`]: upwards
/// first, then downwards, within the subnet and the high 64 bits.
fn with_room(subnet: Prefix, found: &[u128]) -> Window {
    let (low, high) = bounds(subnet);
    let (Some(&first), Some(&last)) = (found.first(), found.last()) else {
        return Window::default();
    };
    let low = low.max(first >> 64 << 64);
    let high = high.min(last | u128::from(u64::MAX));
    let room = (2 * found.len() as u128).max(u128::from(SMALL));
    let span = room.max(last - first + 1);
    // An aligned start while it costs nothing: networks are numbered from round numbers.
    let start = first - (first % u128::from(SMALL)).min(span - (last - first + 1));
    let end = high.min(start.max(low).saturating_add(span - 1));
    let start = start.max(low).min(end.saturating_sub(span - 1).max(low));
    Window {
        first: start,
        span: (end - start + 1) as u32,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().expect("a prefix")
    }

    fn v4(text: &str) -> u128 {
        number(text.parse().expect("an address"))
    }

    #[test]
    fn windows_are_where_the_addresses_are() {
        let run = |from: &str, count: u128, step: u128| -> Vec<u128> {
            (0..count).map(|n| v4(from) + n * step).collect()
        };
        let both = |a: Vec<u128>, b: Vec<u128>| a.into_iter().chain(b).collect::<Vec<_>>();
        let table = [
            (
                "a small subnet, whole",
                "10.0.0.0/24",
                vec![],
                "10.0.0.0",
                256,
            ),
            (
                "a smaller one",
                "10.0.0.64/27",
                run("10.0.0.65", 3, 1),
                "10.0.0.64",
                32,
            ),
            ("nobody there", "10.0.0.0/16", vec![], "0.0.0.0", 0),
            (
                "one address",
                "10.0.0.0/16",
                run("10.0.7.9", 1, 1),
                "10.0.7.0",
                256,
            ),
            (
                "one at the end",
                "10.0.0.0/16",
                run("10.0.255.255", 1, 1),
                "10.0.255.0",
                256,
            ),
            (
                "a run, with room for as many",
                "10.0.0.0/16",
                run("10.0.1.0", 1000, 1),
                "10.0.1.0",
                2000,
            ),
            (
                "and no more than there is",
                "10.0.0.0/20",
                run("10.0.0.0", 4000, 1),
                "10.0.0.0",
                4096,
            ),
            (
                "an outlier stays outside",
                "10.0.0.0/16",
                both(run("10.0.1.0", 1000, 1), run("10.0.255.1", 1, 1)),
                "10.0.1.0",
                2000,
            ),
            (
                "one in four is dense",
                "10.0.0.0/16",
                run("10.0.0.0", 1000, 4),
                "10.0.0.0",
                3997,
            ),
            (
                "one in eight is not: the fullest small one",
                "10.0.0.0/16",
                run("10.0.0.0", 1000, 8),
                "10.0.0.0",
                256,
            ),
        ];
        for (what, subnet, addresses, first, span) in table {
            let window = choose(prefix(subnet), &addresses);
            let expected = Window {
                first: v4(first),
                span,
            };
            assert_eq!(window, expected, "{what}");
        }
        let wide = prefix("fd00::/48");
        let at = |text: &str| number(text.parse().expect("an address"));
        let addresses = [
            at("fd00:0:0:1::ffff"),
            at("fd00:0:0:2::1"),
            at("fd00:0:0:2::2"),
        ];
        let window = choose(wide, &addresses);
        assert_eq!((window.first, window.span), (at("fd00:0:0:2::"), 256));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_window_is_in_its_subnet_worth_it_and_the_fullest(
            addresses in prop::collection::btree_set(0..2048u128, 0..120),
            len in 21..=28u8,
        ) {
            let subnet = Prefix::containing("10.3.0.0".parse().expect("an address"), len).expect("a length");
            let (low, high) = bounds(subnet);
            let addresses: Vec<u128> = addresses.iter().map(|a| low + a).filter(|a| *a <= high).collect();
            let window = choose(subnet, &addresses);
            let inside = |w: &Window| addresses.iter().filter(|a| w.place(**a).is_some()).count() as u32;
            let held = inside(&window);
            prop_assert!(window.span == 0 || window.first >= low);
            prop_assert!(window.first + u128::from(window.span) <= high + 1);
            prop_assert!(window.span <= SMALL || window.span <= SLOTS_PER_ADDRESS * held.max(1));
            // No window between two of the addresses that is worth it holds more.
            for (i, from) in addresses.iter().enumerate() {
                for to in &addresses[i..] {
                    let other = Window { first: *from, span: (to - from + 1) as u32 };
                    let its = inside(&other);
                    if other.span <= SMALL || other.span <= SLOTS_PER_ADDRESS * its {
                        prop_assert!(its <= held, "{other:?} holds {its}, {window:?} {held}");
                    }
                }
            }
        }
    }
}
