//! The routers, with one another: each starts, exchanges both families over one IPv4 session where it
//! can, and does at run time what the lab asks of it. What one lacks is as the lab says it is.

use std::net::IpAddr;
use std::time::Duration;

use bgp::Family;
use interop::capture::{Capture, tshark};
use interop::enter;
use interop::peer::{
    Daemon, Extra, LearnedRoute, NeighbourConfig, PeerError, Router, SessionState,
};
use interop::topology::{Region, RegionConfig, RouterPlan, plan};
use interop::wait::eventually;
use ipnet::IpNet;

const SOON: Duration = Duration::from_secs(20);

/// A router and the number it has on the IDC LAN.
struct Placed {
    number: u8,
    asn: u32,
    families: Vec<Family>,
    router: Box<dyn Router>,
}

impl Placed {
    fn address(&self) -> IpAddr {
        plan::idc4(self.number).into()
    }

    fn nets(&self) -> Vec<IpNet> {
        let number = self.number;
        self.carried(&[
            format!("100.80.{number}.0/24"),
            format!("fd80:{number}::/48"),
        ])
    }

    /// Those of the networks whose family the session carries.
    fn carried(&self, nets: &[String]) -> Vec<IpNet> {
        let nets = nets.iter().map(|text| text.parse().expect("a network"));
        let carried = |net: &IpNet| match net {
            IpNet::V4(_) => self.families.contains(&Family::Ipv4Unicast),
            IpNet::V6(_) => self.families.contains(&Family::Ipv6Unicast),
        };
        nets.filter(carried).collect()
    }

    fn has(&self, extra: Extra) -> bool {
        self.router.daemon().lacks(extra).is_none()
    }
}

fn pair(
    lab: &enter::Lab,
    daemons: [Daemon; 2],
) -> Result<(Region, [Placed; 2]), Box<dyn std::error::Error + Send + Sync>> {
    let mut region = Region::build(lab, RegionConfig::default())?;
    let ids = [(2, 65002), (3, 4_200_000_003)];
    let lacking = |daemon: &Daemon| daemon.lacks(Extra::Ipv6OverIpv4).is_some();
    let families = match daemons.iter().any(lacking) {
        true => vec![Family::Ipv4Unicast],
        false => Family::ALL.to_vec(),
    };
    let mut place = |index: usize| {
        let (number, asn) = ids[index];
        let (other, other_as) = ids[1 - index];
        let name = ["left", "right"][index];
        let plan = RouterPlan {
            daemon: daemons[index],
            name,
            number,
            asn,
            lans: &[],
        };
        let router = region.add_router(lab, &plan, |config| {
            let neighbour = NeighbourConfig::new("other", plan::idc4(other).into(), other_as);
            config.neighbours = vec![NeighbourConfig {
                families: families.clone(),
                ..neighbour
            }];
        })?;
        let mut placed = Placed {
            number,
            asn,
            families: families.clone(),
            router,
        };
        for net in placed.nets() {
            placed.router.announce(net)?;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(placed)
    };
    let placed = [place(0)?, place(1)?];
    Ok((region, placed))
}

/// BIRD and FRR tell two next hops for IPv6, and ExaBGP shows the second.
fn shows_link_local(here: &Placed, route: &LearnedRoute) -> bool {
    match route.next_hop {
        IpAddr::V6(hop) => here.router.daemon() == Daemon::Exabgp && hop.is_unicast_link_local(),
        IpAddr::V4(_) => false,
    }
}

/// All that the tests of our own speaker ask of a router, asked of it with another as neighbour.
fn exercise(daemons: [Daemon; 2]) -> impl FnOnce(&enter::Lab) -> enter::Outcome {
    move |lab| {
        let (mut region, [mut left, mut right]) = pair(lab, daemons)?;
        let capture = Capture::start(left.router.namespace(), "idc0")?;
        left.router.start()?;
        right.router.start()?;
        for (here, there) in [(&left, &right), (&right, &left)] {
            here.router.await_established(there.address(), SOON)?;
            for net in there.nets() {
                let routes = here.router.await_route(net, SOON)?;
                assert_eq!(routes.len(), 1, "{routes:?}");
                assert_eq!(routes[0].as_path, [there.asn]);
                let next_hop: IpAddr = match net {
                    IpNet::V4(_) => plan::idc4(there.number).into(),
                    IpNet::V6(_) => plan::idc6(there.number).into(),
                };
                if !shows_link_local(here, &routes[0]) {
                    assert_eq!(routes[0].next_hop, next_hop);
                }
                assert!(!routes[0].stale, "{routes:?}");
                match here.router.show_route(net) {
                    Err(PeerError::NotOffered { .. }) => {}
                    quote => assert!(quote?.answer.contains(&net.to_string())),
                }
                assert_eq!(here.router.communities(net)?, []);
                assert_eq!(here.router.large_communities(net)?, []);
            }
            // Only what the neighbour announced, not what came back.
            for family in &here.families {
                assert_eq!(here.router.routes(*family)?.len(), 1);
            }
        }

        // What is learned is in the kernel, whoever puts it there.
        for (name, here, there) in [("left", &left, &right), ("right", &right, &left)] {
            if !here.has(Extra::Kernel) {
                continue;
            }
            let node = region.router_node(name)?;
            for net in there.nets() {
                eventually(format!("{net} in {name}'s kernel"), SOON, || {
                    match node.netlink().routes(&netlink::RouteFilter::default()) {
                        Ok(routes) if routes.iter().any(|route| route.prefix == net) => Ok(()),
                        Ok(routes) => Err(format!("{routes:?}")),
                        Err(error) => Err(error.to_string()),
                    }
                })?;
            }
        }

        // Announce and withdraw at run time, without disturbing the session.
        for swapped in [false, true] {
            let (here, there) = if swapped {
                (&mut right, &mut left)
            } else {
                (&mut left, &mut right)
            };
            let before = here.router.session(there.address())?;
            for net in here.carried(&["198.51.100.0/25", "fd98:1:2::/64"].map(String::from)) {
                here.router.announce(net)?;
                there.router.await_route(net, SOON)?;
                here.router.withdraw(net)?;
                there.router.await_no_route(net, SOON)?;
                match there.router.show_route(net) {
                    Err(PeerError::NotOffered { .. }) => {}
                    quote => assert!(quote?.answer.to_lowercase().contains("not")),
                }
            }
            assert_eq!(here.router.session(there.address())?.since, before.since);
        }

        // A reset; the session comes back, and is told from the one before.
        let before = left.router.session(right.address())?;
        left.router.reset_session(right.address())?;
        eventually("a new session", SOON, || {
            let session = left
                .router
                .session(right.address())
                .map_err(|e| e.to_string())?;
            let new = session.since != before.since;
            let established = session.state == SessionState::Established;
            if new && established {
                Ok(())
            } else {
                Err(session.to_string())
            }
        })?;

        let frames = capture.stop();
        let pcap = lab.scratch().join("bgp.pcap");
        frames.write(&pcap)?;
        let types = tshark::fields(&pcap, "bgp", &["bgp.type"])?;
        assert!(
            types.iter().flatten().any(|types| types.contains('2')),
            "UPDATEs: {types:?}"
        );
        assert_eq!(
            tshark::complaints(&pcap, "bgp.type == 1 || bgp.type == 4")?,
            []
        );

        // A crash: the neighbour keeps the routes, as stale, until the restart time is over.
        let net = left.nets()[0];
        right.router.await_route(net, SOON)?;
        left.router.kill();
        let kept = left.has(Extra::Restarting) && right.has(Extra::Helper);
        eventually("what becomes of the route", SOON, || {
            match right.router.routes(Family::Ipv4Unicast) {
                Ok(routes) if kept && routes.iter().any(|r| r.prefix == net && r.stale) => Ok(()),
                Ok(routes) if !kept && routes.is_empty() => Ok(()),
                Ok(routes) => Err(format!("{routes:?}, kept: {kept}")),
                Err(error) => Err(error.to_string()),
            }
        })?;
        left.router.start()?;
        eventually("the route is fresh", SOON, || {
            match right.router.routes(Family::Ipv4Unicast) {
                Ok(routes) if routes.iter().any(|r| r.prefix == net && !r.stale) => Ok(()),
                Ok(routes) => Err(format!("{routes:?}")),
                Err(error) => Err(error.to_string()),
            }
        })?;

        // An orderly stop.
        left.router.stop()?;
        eventually("the session is down", SOON, || {
            let session = right
                .router
                .session(left.address())
                .map_err(|e| e.to_string())?;
            match session.state {
                SessionState::Established => Err(session.to_string()),
                _ => Ok(()),
            }
        })?;
        right.router.stop()?;
        Ok(())
    }
}

#[test]
fn bird_and_gobgp() {
    enter::test(|lab| exercise([Daemon::Bird, Daemon::Gobgp])(lab));
}

#[test]
fn gobgp_and_frr() {
    enter::test(|lab| exercise([Daemon::Gobgp, Daemon::Frr])(lab));
}

#[test]
fn frr_and_bird() {
    enter::test(|lab| exercise([Daemon::Frr, Daemon::Bird])(lab));
}

#[test]
fn exabgp_and_openbgpd() {
    enter::test(|lab| exercise([Daemon::Exabgp, Daemon::Openbgpd])(lab));
}

#[test]
fn openbgpd_and_bird() {
    enter::test(|lab| exercise([Daemon::Openbgpd, Daemon::Bird])(lab));
}

#[test]
fn bird_and_exabgp() {
    enter::test(|lab| exercise([Daemon::Bird, Daemon::Exabgp])(lab));
}

#[test]
fn a_frozen_router_is_silent_and_comes_back() {
    enter::test(|lab| {
        let (_region, [mut left, mut right]) = pair(lab, [Daemon::Bird, Daemon::Frr])?;
        left.router.start()?;
        right.router.start()?;
        right.router.await_established(left.address(), SOON)?;
        left.router.freeze()?;
        eventually("the hold timer expires", SOON, || {
            let session = right
                .router
                .session(left.address())
                .map_err(|e| e.to_string())?;
            match session.state {
                SessionState::Established => Err(session.to_string()),
                _ => Ok(()),
            }
        })?;
        left.router.thaw()?;
        right.router.await_established(left.address(), SOON)?;
        Ok(())
    });
}
