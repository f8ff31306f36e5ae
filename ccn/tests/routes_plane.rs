//! The `routes` plane against the real kernel, each test in a network namespace of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use bgp::Prefix;
use ccn::config::{PlaneConfig, PlaneKind};
use ccn::plane::entry::{EntryKey, EntryValue, Hop, ScopeId};
use ccn::plane::routes::RoutesPlane;
use ccn::plane::{Applied, Batch, Desired, Plane, PlaneError};
use ccn::record::{Mac, Mode, Vni};
use netlink::{
    Address, LinkChange, Namespace, NewLink, NextHop, Request, Route, RouteFilter, Rule, Socket,
};

const PROTOCOL: u8 = 77;

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn vni(number: u32) -> Vni {
    Vni::new(number).expect("a VNI")
}

fn config() -> PlaneConfig {
    PlaneConfig {
        kind: PlaneKind::Routes,
        vtep: ip("172.16.0.1"),
        idc_interfaces: vec!["idc0".to_owned()],
        device: "ccn0".to_owned(),
        mac: Mac::GATEWAY,
        port: 4789,
        mtu: 1450,
        protocol: PROTOCOL,
        audit_interval: 0,
        underlay_interfaces: None,
        max_flows: 65_536,
        bpffs: "/sys/fs/bpf/ccn-test".into(),
    }
}

/// Runs a test in a namespace with an underlay and an IDC side.
fn in_namespace(test: impl FnOnce(&mut Socket) + Send) {
    let namespace = Namespace::anonymous().expect("these tests need CAP_SYS_ADMIN");
    namespace
        .enter(|| {
            let mut socket = Socket::open().expect("a socket");
            for (name, nets) in [
                ("under0", &["172.16.0.1/24"][..]),
                ("idc0", &["10.255.0.1/24", "2001:db8:ff::1/64"]),
            ] {
                let peer = format!("{name}p");
                let link = socket
                    .create_link(NewLink::veth(name, &peer))
                    .expect("a pair");
                let other = socket.link(&peer).expect("ask").expect("there");
                for index in [link.index, other.index] {
                    let change = Request::change_link(LinkChange::of(index).up(true));
                    socket.request(change).expect("up");
                }
                for net in nets {
                    let address = Address::new(link.index, net.parse().expect("a net"));
                    socket
                        .request(Request::add_address(address))
                        .expect("an address");
                }
            }
            test(&mut socket);
        })
        .expect("enter");
}

fn source(number: u32, subnet: &str, scope: u32) -> (EntryKey, EntryValue) {
    let key = EntryKey::Source {
        vni: vni(number),
        subnet: prefix(subnet),
    };
    (
        key,
        EntryValue::Source {
            scope: ScopeId(vni(scope)),
        },
    )
}

fn endpoint(scope: u32, addr: IpAddr, number: u32, hops: &[(u32, u16)]) -> (EntryKey, EntryValue) {
    let hop = |&(n, weight): &(u32, u16)| Hop {
        vtep: Ipv4Addr::from(0xac10_0100 + n % 200).into(),
        mac: Mac::new([
            2,
            1,
            (n >> 24) as u8,
            (n >> 16) as u8,
            (n >> 8) as u8,
            n as u8,
        ])
        .expect("a MAC"),
        weight,
    };
    let key = EntryKey::Endpoint {
        scope: ScopeId(vni(scope)),
        addr,
    };
    let hops = hops.iter().map(hop).collect();
    (
        key,
        EntryValue::Endpoint {
            vni: vni(number),
            hops,
        },
    )
}

fn permit(
    link: &str,
    number: u32,
    subnet: &str,
    classic: &str,
    scope: u32,
) -> (EntryKey, EntryValue) {
    let key = EntryKey::Permit {
        link: link.parse().expect("a link id"),
        vni: vni(number),
        subnet: prefix(subnet),
        classic: prefix(classic),
    };
    (
        key,
        EntryValue::Permit {
            scope: ScopeId(vni(scope)),
            mode: Mode::Both,
            dscp: None,
        },
    )
}

/// `endpoints` addresses in one VPC, an SLB, an IPv6 subnet, another scope with the same addresses,
/// one link, learned routes.
fn region(endpoints: u32) -> Desired {
    let mut entries: BTreeMap<EntryKey, EntryValue> = BTreeMap::from([
        source(100, "192.168.0.0/16", 100),
        source(100, "fd00:1::/64", 100),
        source(101, "10.101.0.0/16", 100),
        source(200, "192.168.0.0/16", 200),
        permit("l1", 100, "192.168.0.0/16", "10.0.0.0/16", 100),
        permit("l1", 100, "fd00:1::/64", "2001:db8:1::/48", 100),
        endpoint(100, ip("192.168.255.1"), 100, &[(1, 1), (2, 3), (3, 256)]),
        endpoint(100, ip("fd00:1::80"), 100, &[(1, 1), (2, 3)]),
        endpoint(100, ip("fd00:1::5"), 100, &[(4, 1)]),
        endpoint(100, ip("10.101.0.5"), 101, &[(5, 1)]),
        endpoint(200, ip("192.168.0.5"), 200, &[(6, 1)]),
    ]);
    entries.extend((0..endpoints).map(|n| {
        let addr = Ipv4Addr::from(0xc0a8_0000 + n).into();
        endpoint(100, addr, 100, &[(n, 1)])
    }));
    let hops = |list: &[&str]| list.iter().map(|hop| ip(hop)).collect::<BTreeSet<_>>();
    Desired {
        generation: 1,
        entries,
        learned: BTreeMap::from([
            (prefix("10.0.1.0/24"), hops(&["10.255.0.2"])),
            (prefix("10.0.2.0/24"), hops(&["10.255.0.2", "10.255.0.3"])),
            (
                prefix("2001:db8:1::/48"),
                hops(&["2001:db8:ff::2", "2001:db8:ff::3"]),
            ),
            (prefix("0.0.0.0/0"), hops(&["10.255.0.2"])),
        ]),
        keep_unknown_learned: false,
        ..Desired::default()
    }
}

fn clean(applied: &Applied) -> usize {
    assert_eq!(applied.failures, BTreeMap::new());
    assert_eq!(applied.learned_failures, BTreeMap::new());
    applied.operations
}

/// Routes that a plane has made.
fn ours() -> RouteFilter {
    RouteFilter {
        protocol: Some(PROTOCOL),
        ..RouteFilter::default()
    }
}

fn ready() -> RoutesPlane {
    let mut plane = RoutesPlane::new(&config());
    plane.prepare().expect("prepared");
    plane
}

#[test]
fn ten_thousand_endpoints_survive_a_restart_without_one_operation() {
    in_namespace(|_| {
        let desired = region(10_000);
        let mut plane = RoutesPlane::new(&config());
        assert!(!plane.prepare().expect("prepared").adopted);
        assert!(clean(&plane.resync(&desired).expect("programmed")) > 20_000);
        assert_eq!(clean(&plane.resync(&desired).expect("again")), 0);
        drop(plane);
        let mut plane = RoutesPlane::new(&config());
        assert!(plane.prepare().expect("prepared").adopted);
        assert_eq!(clean(&plane.resync(&desired).expect("after a restart")), 0);
    });
}

#[test]
fn what_hands_deleted_comes_back_and_what_others_made_stays() {
    in_namespace(|socket| {
        let desired = region(1_000);
        let mut plane = ready();
        clean(&plane.resync(&desired).expect("programmed"));
        let routes = socket.routes(&ours()).expect("routes");
        let rules = socket.rules(Some(PROTOCOL)).expect("rules");
        // Others have routes and rules in our tables and between our rules.
        let idc = socket.link("idc0").expect("ask").expect("there").index;
        let foreign_route = Route {
            table: routes[0].table,
            metric: 7,
            ..Route::new("192.168.77.0/24".parse().expect("a net"), NextHop::dev(idc))
        };
        let foreign_rule = Rule {
            protocol: 4,
            ..Rule::lookup(netlink::Family::V4, 10_010, 254)
        };
        let mut requests = vec![
            Request::add_route(foreign_route.clone()),
            Request::add_rule(foreign_rule.clone()),
        ];
        let every = |n: usize| move |(at, _): &(usize, _)| at % n == 0;
        let gone: Vec<_> = routes
            .iter()
            .cloned()
            .enumerate()
            .filter(every(3))
            .collect();
        requests.extend(
            gone.iter()
                .map(|(_, route)| Request::delete_route(route.clone())),
        );
        let gone_rules: Vec<_> = rules
            .iter()
            .cloned()
            .enumerate()
            .filter(|(at, _)| at % 2 == 0)
            .collect();
        requests.extend(
            gone_rules
                .iter()
                .map(|(_, rule)| Request::delete_rule(rule.clone())),
        );
        // Ours in the wrong place goes.
        requests.push(Request::add_route(Route {
            table: 0x0100_0000 + 999,
            protocol: PROTOCOL,
            ..Route::new("10.9.9.0/24".parse().expect("a net"), NextHop::dev(idc))
        }));
        let vxlan = socket.link("ccn0").expect("ask").expect("there").index;
        let neighbour = socket.neighbours(vxlan).expect("neighbours")[0];
        requests.push(Request::delete_neighbour(neighbour));
        socket.batch(&requests).expect("by hand");

        let repaired = clean(&plane.resync(&desired).expect("repaired"));
        assert_eq!(repaired, gone.len() + gone_rules.len() + 2);
        let sorted = |mut list: Vec<Route>| {
            list.sort();
            list
        };
        assert_eq!(
            sorted(socket.routes(&ours()).expect("routes")),
            sorted(routes)
        );
        assert_eq!(
            socket.rules(Some(PROTOCOL)).expect("rules").len(),
            rules.len()
        );
        assert!(
            socket
                .routes(&RouteFilter::default())
                .expect("routes")
                .contains(&foreign_route)
        );
        assert!(socket.rules(None).expect("rules").contains(&foreign_rule));

        plane.remove().expect("removed");
        assert_eq!(socket.routes(&ours()).expect("routes"), []);
        assert_eq!(socket.rules(Some(PROTOCOL)).expect("rules"), []);
        let names: Vec<_> = socket
            .links()
            .expect("links")
            .into_iter()
            .map(|link| link.name)
            .collect();
        assert!(
            names.iter().all(|name| !name.starts_with("ccn")),
            "{names:?}"
        );
        assert!(
            socket
                .routes(&RouteFilter::default())
                .expect("routes")
                .contains(&foreign_route)
        );
        assert!(socket.rules(None).expect("rules").contains(&foreign_rule));
    });
}

#[test]
fn deleted_devices_come_back_with_all_that_hung_on_them() {
    in_namespace(|socket| {
        let desired = region(200);
        let mut plane = ready();
        clean(&plane.resync(&desired).expect("programmed"));
        // Lines of the dump name devices by index, which is new for a device that is.
        let count = |plane: &mut RoutesPlane| plane.dump().expect("a dump").len();
        let before = count(&mut plane);
        for name in ["ccn0", "ccn-d-nolink"] {
            let index = socket.link(name).expect("ask").expect("there").index;
            socket
                .request(Request::delete_link(index))
                .expect("deleted");
        }
        assert!(
            count(&mut plane) < before,
            "the kernel took the routes with the devices"
        );
        assert!(clean(&plane.resync(&desired).expect("repaired")) > 200);
        assert_eq!(count(&mut plane), before);
        assert_eq!(clean(&plane.resync(&desired).expect("again")), 0);
        // A device that was down for a moment has lost its IPv4 routes.
        let index = socket.link("ccn0").expect("ask").expect("there").index;
        for up in [false, true] {
            socket
                .request(Request::change_link(LinkChange::of(index).up(up)))
                .expect("changed");
        }
        assert!(clean(&plane.resync(&desired).expect("repaired")) > 200);
        assert_eq!(count(&mut plane), before);
    });
}

#[test]
fn a_refusal_of_the_kernel_is_put_down_to_the_entry() {
    in_namespace(|socket| {
        let desired = region(10);
        let mut plane = ready();
        clean(&plane.resync(&desired).expect("programmed"));
        let mine = "192.168.0.5/32".parse().expect("a net");
        let routes = socket.routes(&ours()).expect("routes");
        let route = routes
            .iter()
            .find(|r| r.prefix == mine && r.table == 0x0100_0064)
            .expect("there")
            .clone();
        // Somebody puts a route of his own in the place of ours.
        let foreign = Route {
            protocol: 4,
            ..route.clone()
        };
        socket
            .request(Request::delete_route(route.clone()))
            .expect("deleted");
        socket
            .request(Request::add_route(foreign.clone()))
            .expect("added");
        let applied = plane.resync(&desired).expect("an answer");
        let (key, reason) = applied.failures.first_key_value().expect("a failure");
        assert_eq!(*key, endpoint(100, ip("192.168.0.5"), 100, &[]).0);
        assert!(
            reason.contains("of another owner is in its place"),
            "{reason}"
        );
        assert_eq!(applied.failures.len(), 1);
        assert!(
            socket
                .routes(&RouteFilter::default())
                .expect("routes")
                .contains(&foreign)
        );
        // Nothing else suffers, and once the way is free the next change puts ours back.
        socket
            .request(Request::delete_route(foreign))
            .expect("deleted");
        let batch = Batch {
            generation: 2,
            verify: true,
            ..Batch::default()
        };
        assert_eq!(clean(&plane.apply(&batch).expect("applied")), 1);
        assert!(socket.routes(&ours()).expect("routes").contains(&route));
    });
}

#[test]
fn verification_finds_what_hands_have_done_meanwhile() {
    in_namespace(|socket| {
        let desired = region(10);
        let mut plane = ready();
        clean(&plane.resync(&desired).expect("programmed"));
        let mine = "192.168.0.5/32".parse().expect("a net");
        let routes = socket.routes(&ours()).expect("routes");
        let route = routes
            .iter()
            .find(|r| r.prefix == mine && r.table == 0x0100_0064);
        socket
            .request(Request::delete_route(route.expect("there").clone()))
            .expect("deleted");
        // A new link leads to that VM: what went missing comes back before it is acknowledged.
        let batch = |link: (EntryKey, EntryValue)| Batch {
            upserts: BTreeMap::from([link]),
            verify: true,
            ..Batch::default()
        };
        let link = permit("l2", 100, "192.168.0.0/16", "10.9.0.0/16", 100);
        clean(&plane.apply(&batch(link)).expect("applied"));
        let found = socket.routes(&ours()).expect("routes");
        assert_eq!(found, routes, "the route is there again");

        // One of another owner stands in its place: that VM cannot be reached, and is named.
        let route = route.expect("there");
        let foreign = Route {
            protocol: 186,
            ..route.clone()
        };
        for request in [
            Request::delete_route(route.clone()),
            Request::add_route(foreign.clone()),
        ] {
            socket.request(request).expect("changed");
        }
        let link = permit("l3", 100, "192.168.0.0/16", "10.10.0.0/16", 100);
        let applied = plane.apply(&batch(link)).expect("an answer");
        let key = endpoint(100, ip("192.168.0.5"), 100, &[]).0;
        assert!(
            applied.failures[&key].contains("another owner"),
            "{:?}",
            applied.failures
        );
        // What could not be mended is tried again with the next change.
        let gone = Request::delete_route(foreign);
        socket.request(gone).expect("deleted");
        let batch = Batch {
            verify: true,
            ..Batch::default()
        };
        assert_eq!(clean(&plane.apply(&batch).expect("applied")), 1);
        assert_eq!(clean(&plane.apply(&batch).expect("applied")), 0);
    });
}

#[test]
fn what_the_kernel_cannot_report_is_read() {
    in_namespace(|socket| {
        let desired = region(10);
        let mut plane = ready();
        clean(&plane.resync(&desired).expect("programmed"));
        let before = socket.routes(&ours()).expect("routes");
        // The kernel takes the IPv4 routes of a device that goes down without a word.
        let vxlan = socket.link(&config().device).expect("links").expect("ours");
        for up in [false, true] {
            let change = LinkChange::of(vxlan.index).up(up);
            socket
                .request(Request::change_link(change))
                .expect("changed");
        }
        let left = socket.routes(&ours()).expect("routes");
        assert!(left.len() < before.len(), "{left:#?}");
        let batch = Batch {
            verify: true,
            ..Batch::default()
        };
        clean(&plane.apply(&batch).expect("applied"));
        assert_eq!(socket.routes(&ours()).expect("routes"), before);
    });
}

#[test]
fn learned_routes_outlive_a_restart_until_the_routers_have_spoken() {
    in_namespace(|socket| {
        let desired = region(2);
        let mut plane = ready();
        clean(&plane.resync(&desired).expect("programmed"));
        let idc = RouteFilter {
            table: Some(0x0200_0000),
            ..ours()
        };
        let before = socket.routes(&idc).expect("routes");
        assert_eq!(
            before.len(),
            5,
            "four learned, and the IPv6 default that drops: {before:#?}"
        );
        let mut plane = ready();
        let mut early = Desired {
            keep_unknown_learned: true,
            ..desired.clone()
        };
        early.learned.clear();
        assert_eq!(clean(&plane.resync(&early).expect("restarted")), 0);
        assert_eq!(socket.routes(&idc).expect("routes"), before);
        // A router says that one of them is gone, and offers another way for a second.
        let hops = |list: &[&str]| list.iter().map(|hop| ip(hop)).collect::<BTreeSet<_>>();
        let batch = Batch {
            learned: BTreeMap::from([
                (prefix("10.0.1.0/24"), hops(&[])),
                (prefix("10.0.2.0/24"), hops(&["10.255.0.9"])),
            ]),
            verify: true,
            ..Batch::default()
        };
        assert_eq!(clean(&plane.apply(&batch).expect("applied")), 2);
        assert_eq!(socket.routes(&idc).expect("routes").len(), 4);
        // All have spoken: what nobody announced goes, the default becomes one that drops.
        let mut late = desired.clone();
        late.learned = BTreeMap::from([(prefix("10.0.2.0/24"), hops(&["10.255.0.9"]))]);
        assert_eq!(clean(&plane.resync(&late).expect("learned")), 2);
        assert_eq!(socket.routes(&idc).expect("routes").len(), 3);
        let batch = Batch {
            learned: BTreeMap::from([(prefix("10.0.3.0/24"), hops(&["10.255.0.2", "192.0.2.1"]))]),
            ..Batch::default()
        };
        let failures = plane.apply(&batch).expect("applied").learned_failures;
        assert!(
            failures[&prefix("10.0.3.0/24")].contains("192.0.2.1"),
            "{failures:?}"
        );
        assert_eq!(
            socket.routes(&idc).expect("routes").len(),
            4,
            "the other next hop is used"
        );
    });
}

#[test]
fn prepare_names_what_is_missing_or_in_the_way() {
    let refused = |config: PlaneConfig| {
        RoutesPlane::new(&config)
            .prepare()
            .expect_err("refused")
            .to_string()
    };
    in_namespace(|socket| {
        let error = refused(PlaneConfig {
            idc_interfaces: vec!["idc7".to_owned()],
            ..config()
        });
        assert!(
            error.contains("idc7") && error.contains("plane.idc_interfaces"),
            "{error}"
        );
        let error = refused(PlaneConfig {
            vtep: ip("172.16.9.9"),
            ..config()
        });
        assert!(
            error.contains("172.16.9.9 is no address of this host"),
            "{error}"
        );
        for (name, link) in [
            ("ccn-d-nolink", NewLink::bridge("ccn-d-nolink")),
            ("ccn-d-nolink", NewLink::veth("ccn-d-nolink", "x")),
            ("ccn0", NewLink::vxlan_external("ccn0", 9999)),
            ("ccn0", NewLink::bridge("ccn0")),
        ] {
            let index = socket.create_link(link).expect("made by another").index;
            socket
                .request(Request::change_link(LinkChange::of(index).up(true)))
                .expect("up");
            let error = RoutesPlane::new(&config()).prepare().expect_err("refused");
            assert!(
                matches!(&error, PlaneError::ForeignDevice { name: at, .. } if at == name),
                "{error}"
            );
            socket
                .request(Request::delete_link(index))
                .expect("still there");
        }
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").expect("set");
        let error = refused(config());
        assert!(error.contains("net.ipv4.conf.all.rp_filter"), "{error}");
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").expect("set");
        ready();
        // What is ours and out of order is put in order.
        let link = socket.link("ccn0").expect("ask").expect("there");
        let change = LinkChange::of(link.index).up(false).mtu(1400);
        socket
            .request(Request::change_link(change))
            .expect("changed");
        let other = PlaneConfig {
            port: 4790,
            ..config()
        };
        let mut plane = RoutesPlane::new(&other);
        plane.prepare().expect("prepared");
        let link = socket.link("ccn0").expect("ask").expect("there");
        assert_eq!((link.up, link.mtu), (true, 1450));
        assert_eq!(link.vxlan.map(|vxlan| vxlan.port), Some(4790));
        // And a run without the privilege says which one it is.
        // SAFETY: a system call without pointers; it changes this thread alone, which ends here.
        let dropped = unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, -1, 65534, -1) };
        assert_eq!(dropped, 0);
        let error = RoutesPlane::new(&config()).prepare().expect_err("refused");
        assert!(
            matches!(
                &error,
                PlaneError::Privilege {
                    capability: "CAP_NET_ADMIN",
                    ..
                }
            ),
            "{error}"
        );
    });
}

#[test]
fn counting_devices_are_silent_and_the_rest_is_as_configured() {
    in_namespace(|socket| {
        // A router for IPv6 joins one more group on each device, which it could tell the world.
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("set");
        let mut plane = ready();
        clean(&plane.resync(&region(1)).expect("programmed"));
        for on in ["0", "1"] {
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", on).expect("set");
        }
        // Reports would come within a second; what comes later comes late for no reason.
        std::thread::sleep(std::time::Duration::from_millis(1_200));
        let counters = plane.counters().expect("counters");
        assert!(
            counters.drops.values().all(|count| count.packets == 0),
            "{counters:?}"
        );
        assert_eq!(counters.drops.len(), 7);
        let setting = |path: &str| std::fs::read_to_string(format!("/proc/sys/net/{path}"));
        for (path, want) in [
            ("ipv4/conf/ccn0/rp_filter", "0"),
            ("ipv4/conf/ccn0/accept_local", "1"),
            ("ipv4/conf/ccn0/forwarding", "1"),
            ("ipv4/conf/idc0/forwarding", "1"),
            ("ipv4/fib_multipath_hash_policy", "1"),
        ] {
            assert_eq!(setting(path).expect(path).trim(), want, "{path}");
        }
        let limits = plane.limits();
        let seen: Vec<_> = limits.iter().map(|l| (l.name, l.used, l.max)).collect();
        assert_eq!(seen, [("vnis", 3, 256), ("endpoints", 6, 50_000)]);
        let dump = plane.dump().expect("a dump");
        assert!(
            dump.iter()
                .any(|line| line.starts_with("route 192.168.0.0/32")),
            "{dump:#?}"
        );
        let error = RoutesPlane::new(&config())
            .apply(&Batch::default())
            .expect_err("refused");
        assert!(error.to_string().contains("resync"), "{error}");
        let addresses = socket.addresses().expect("addresses");
        let own = socket.link("ccn0").expect("ask").expect("there").index;
        assert!(
            addresses.iter().all(|address| address.ifindex != own),
            "{addresses:?}"
        );
    });
}
