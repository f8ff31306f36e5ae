//! A normalised route survives the way into bytes and back.

use netlink_packet_core::{Emitable, Parseable};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn addresses(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::V4 => (1u32..).prop_map(|n| IpAddr::V4(n.into())).boxed(),
        Family::V6 => (1u128..).prop_map(|n| IpAddr::V6(n.into())).boxed(),
    }
}

fn families() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn encaps() -> impl Strategy<Value = Encap> {
    families().prop_flat_map(|family| {
        let (destination, source) = (addresses(family), option::of(addresses(family)));
        (
            any::<u64>(),
            destination,
            source,
            any::<u8>(),
            any::<u8>(),
            any::<bool>(),
        )
            .prop_map(|(id, destination, source, ttl, tos, checksum)| Encap {
                id,
                destination,
                source,
                ttl,
                tos,
                checksum,
            })
    })
}

fn next_hops() -> impl Strategy<Value = NextHop> {
    let via = option::of(families().prop_flat_map(addresses));
    (via, 1u32.., 1u16..=256, any::<bool>(), option::of(encaps())).prop_map(
        |(via, ifindex, weight, onlink, encap)| NextHop {
            via,
            ifindex,
            weight,
            onlink,
            encap,
        },
    )
}

fn routes() -> impl Strategy<Value = Route> {
    let kind = prop_oneof![
        4 => Just(RouteKind::Unicast),
        1 => Just(RouteKind::Blackhole),
        1 => Just(RouteKind::Unreachable),
        1 => Just(RouteKind::Prohibit),
        1 => Just(RouteKind::Throw),
    ];
    let place = families().prop_flat_map(|family| {
        let length = 0..=if family == Family::V4 { 32u8 } else { 128 };
        (addresses(family), length, option::of(addresses(family)))
    });
    (
        place,
        1u32..,
        any::<u32>(),
        any::<u8>(),
        kind,
        vec(next_hops(), 1..5),
    )
        .prop_map(
            |((addr, length, source), table, metric, protocol, kind, next_hops)| {
                let prefix = IpNet::new(addr, length).expect("a length of the family");
                Route {
                    table,
                    prefix,
                    metric,
                    protocol,
                    kind,
                    source,
                    next_hops,
                }
                .normalised()
            },
        )
}

proptest! {
    #[test]
    fn there_and_back(route in routes()) {
        let message = add_message(&route);
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        let read = RouteMessage::parse(bytes.as_slice()).expect("our own message");
        prop_assert_eq!(from_message(read), Some(route));
    }

    #[test]
    fn a_deletion_names_place_owner_and_kind(route in routes()) {
        let read = from_message(delete_message(&route)).expect("a route");
        let next_hops = Vec::new();
        prop_assert_eq!(read, Route { next_hops, source: None, ..route });
    }

    #[test]
    fn junk_never_panics(bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(message) = RouteMessage::parse(bytes.as_slice()) {
            let _ = from_message(message);
        }
    }

    #[test]
    fn normal_form_is_final(route in routes()) {
        prop_assert_eq!(route.clone().normalised(), route);
    }
}
