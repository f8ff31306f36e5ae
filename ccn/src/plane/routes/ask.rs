//! What the kernel says of a packet from the IDC: the route that it would take.
//!
//! Of packets that come in VXLAN the kernel cannot be asked: a lookup takes no tunnel id, and every rule
//! for them has one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink::{Errno, Mac, NextHop, Route, RouteKind, Socket};

use super::devices::failed;
use super::layout::Reason;
use crate::plane::PlaneError;
use crate::plane::witness::Witness;
use crate::record::{Mac as RecordMac, Vni};

/// Asks for the route of a packet that comes in by the link `iif`.
pub(super) fn ask(
    socket: &mut Socket,
    (src, dst): (IpAddr, IpAddr),
    iif: u32,
    drops: &BTreeMap<u32, Reason>,
) -> Result<Option<Witness>, PlaneError> {
    match socket.lookup(src, dst, iif) {
        Ok(route) => Ok(route.and_then(|route| witness(&route, drops))),
        // No route at all, or one that the kernel ends with an error of its own.
        Err(error)
            if matches!(
                error.errno(),
                Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EINVAL | Errno::EACCES)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(failed("look a route up", error)),
    }
}

/// What a route of ours means; `None` for one that this plane would not have made.
fn witness(route: &Route, drops: &BTreeMap<u32, Reason>) -> Option<Witness> {
    if route.kind == RouteKind::Local {
        return Some(Witness::Host);
    }
    let hop = route.next_hops.first()?;
    if let Some(reason) = drops.get(&hop.ifindex) {
        return Some(Witness::Drop {
            reason: reason.name().to_owned(),
        });
    }
    let encap = hop.encap?;
    Some(Witness::Encapsulate {
        vni: Vni::new(encap.id.try_into().ok()?).ok()?,
        vtep: encap.destination,
        mac: RecordMac::new(inner_mac(hop)?.0).ok()?,
        link: None,
    })
}

/// The MAC that a synthetic next hop stands for.
fn inner_mac(hop: &NextHop) -> Option<Mac> {
    match hop.via? {
        IpAddr::V6(via) => Mac::of_link_local(via),
        IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink::Encap;

    use super::*;

    #[test]
    fn routes_of_ours_say_what_becomes_of_a_packet() {
        let drops = BTreeMap::from([(7, Reason::NoSuchEndpoint)]);
        let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mac = Mac([2, 0, 0, 0, 0, 0x11]);
        let encapsulating = NextHop {
            encap: Some(Encap::new(1001, ip("172.16.0.11"))),
            ..NextHop::via(mac.link_local().into(), 9)
        };
        let to = |hop: NextHop| Route::new(net("10.1.0.11/32"), hop);
        let local = Route {
            kind: RouteKind::Local,
            ..to(NextHop::dev(1))
        };
        let sent = Witness::Encapsulate {
            vni: Vni::new(1001).unwrap(),
            vtep: ip("172.16.0.11"),
            mac: RecordMac::new(mac.0).unwrap(),
            link: None,
        };
        let dropped = Witness::Drop {
            reason: "no-such-endpoint".to_owned(),
        };
        let foreign = NextHop {
            via: Some(ip("fe80::1:2:3:4")),
            ..encapsulating
        };
        for (route, wanted) in [
            (to(encapsulating), Some(sent)),
            (to(NextHop::via(ip("fe80::1"), 7)), Some(dropped)),
            (local, Some(Witness::Host)),
            (to(NextHop::via(ip("10.99.0.2"), 3)), None),
            (to(foreign), None),
        ] {
            assert_eq!(witness(&route, &drops), wanted, "{route:?}");
        }
    }
}
