//! The crate against the real kernel, each test in a network namespace of its own.

use std::net::IpAddr;

use netlink::{
    Address, BatchError, Encap, Errno, Error, Family, ForwardingEntry, IpNet, Link, LinkChange,
    Mac, Namespace, Neighbour, NewLink, NextHop, Request, Route, RouteFilter, RouteKind, Rule,
    RuleAction, Socket,
};

const PROTOCOL: u8 = 77;

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn fresh() -> (Namespace, Socket) {
    let namespace = Namespace::anonymous().expect("these tests need CAP_SYS_ADMIN");
    let socket = Socket::open_in(&namespace).expect("a socket");
    (namespace, socket)
}

/// An external VXLAN device and a bridge, both up and silent.
fn devices(socket: &mut Socket) -> (Link, Link) {
    let mac = Mac([2, 0, 0, 0, 0, 0xff]);
    let vxlan = socket
        .create_link(NewLink::vxlan_external("vx", 4789).mac(mac).mtu(1450))
        .expect("a VXLAN device");
    let bridge = socket.create_link(NewLink::bridge("br")).expect("a bridge");
    for link in [&vxlan, &bridge] {
        let change = LinkChange::of(link.index).link_local(false).alias("mine");
        socket.request(Request::change_link(change)).expect("alias");
        socket
            .request(Request::change_link(LinkChange::of(link.index).up(true)))
            .expect("up");
    }
    let again = |socket: &mut Socket, name| socket.link(name).expect("ask").expect("there");
    (again(socket, "vx"), again(socket, "br"))
}

fn vm_route(vxlan: &Link, prefix: &str, metric: u32, vni: u64) -> Route {
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let hop = NextHop {
        encap: Some(Encap::new(vni, ip("10.0.0.1"))),
        ..NextHop::via(mac.link_local().into(), vxlan.index)
    };
    Route {
        table: 0x0100_0001,
        metric,
        protocol: PROTOCOL,
        ..Route::new(net(prefix), hop)
    }
    .normalised()
}

fn ours() -> RouteFilter {
    RouteFilter {
        protocol: Some(PROTOCOL),
        ..RouteFilter::default()
    }
}

#[test]
fn links_are_made_changed_and_read_back() {
    let (_namespace, mut socket) = fresh();
    let (vxlan, bridge) = devices(&mut socket);
    assert_eq!(vxlan.kind.as_deref(), Some("vxlan"));
    let settings = vxlan.vxlan.expect("settings");
    assert!(settings.external);
    assert_eq!(settings.port, 4789);
    assert_eq!(
        (vxlan.mtu, vxlan.mac),
        (1450, Some(Mac([2, 0, 0, 0, 0, 0xff])))
    );
    assert_eq!(vxlan.alias.as_deref(), Some("mine"));
    assert_eq!(vxlan.makes_link_local, Some(false));
    assert!(vxlan.up && bridge.up);
    assert_eq!(bridge.kind.as_deref(), Some("bridge"));
    assert!(
        socket.addresses().expect("addresses").is_empty(),
        "no link-local address was made"
    );

    let plain = NewLink::vxlan("vx7", 7, ip("10.0.0.2"), 4790).master(bridge.index);
    let plain = socket
        .create_link(plain)
        .expect("a VXLAN device with a VNI");
    assert_eq!(
        plain.vxlan.map(|v| (v.external, v.vni, v.local)),
        Some((false, 7, Some(ip("10.0.0.2"))))
    );
    assert_eq!(plain.master, Some(bridge.index));
    assert_eq!(socket.links().expect("links").len(), 4, "lo, vx, br, vx7");
    socket
        .request(Request::delete_link(plain.index))
        .expect("deleted");
    assert_eq!(socket.link("vx7").expect("ask"), None);

    let taken = socket
        .create_link(NewLink::bridge("vx"))
        .expect_err("the name is taken");
    assert_eq!(taken.errno(), Some(Errno::EEXIST));
    assert!(taken.to_string().contains("bridge vx"), "{taken}");
    assert!(matches!(
        socket.link("name of a link that is too long"),
        Err(Error::LinkName(_))
    ));
}

/// Until then the kernel drops what is sent, though the carrier is there.
fn await_operational(socket: &mut Socket, name: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let link = socket.link(name).expect("ask").expect("there");
        if link.operational {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "still {link:?}");
        std::thread::yield_now();
    }
}

#[test]
fn veth_across_namespaces_carries_packets() {
    let (left, mut left_socket) = fresh();
    let (right, mut right_socket) = fresh();
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let link = NewLink::veth_to("toright", "toleft", &right)
        .peer_mac(mac)
        .mtu(1400)
        .peer_mtu(1400);
    let here = left_socket.create_link(link.up()).expect("a pair");
    let there = right_socket
        .link("toleft")
        .expect("ask")
        .expect("the other end");
    assert_eq!((there.mac, there.mtu, there.up), (Some(mac), 1400, false));
    right_socket
        .request(Request::change_link(LinkChange::of(there.index).up(true)))
        .expect("up");
    for (socket, link, addr) in [
        (&mut left_socket, &here, "192.0.2.1/24"),
        (&mut right_socket, &there, "192.0.2.2/24"),
    ] {
        socket
            .request(Request::add_address(Address::new(link.index, net(addr))))
            .expect("v4");
    }
    let six = Address::new(here.index, net("2001:db8::1/64"));
    left_socket.request(Request::add_address(six)).expect("v6");
    assert!(left_socket.addresses().expect("addresses").contains(&six));

    let neighbour = Neighbour::permanent(here.index, ip("192.0.2.2"), mac);
    left_socket
        .request(Request::replace_neighbour(neighbour))
        .expect("a neighbour");
    assert_eq!(
        left_socket
            .neighbours(here.index)
            .expect("neighbours")
            .iter()
            .find(|n| n.addr.is_ipv4()),
        Some(&neighbour)
    );

    await_operational(&mut left_socket, "toright");
    await_operational(&mut right_socket, "toleft");
    let receiver = right
        .enter(|| std::net::UdpSocket::bind("192.0.2.2:7000").expect("bind"))
        .expect("enter");
    receiver
        .set_read_timeout(Some(std::time::Duration::from_secs(5)))
        .expect("timeout");
    left.enter(|| {
        let sender = std::net::UdpSocket::bind("192.0.2.1:0").expect("bind");
        sender.send_to(b"hello", "192.0.2.2:7000").expect("send");
    })
    .expect("enter");
    let mut buffer = [0; 16];
    let (length, from) = receiver.recv_from(&mut buffer).expect("the packet");
    assert_eq!(
        (&buffer[..length], from.ip()),
        (&b"hello"[..], ip("192.0.2.1"))
    );
    let seen = right_socket
        .link("toleft")
        .expect("ask")
        .expect("there")
        .stats;
    assert!(seen.rx_packets >= 1, "{seen:?}");
}

#[test]
fn a_link_moves_into_another_namespace() {
    let (_left, mut left) = fresh();
    let (right_namespace, mut right) = fresh();
    let link = left.create_link(NewLink::veth("a", "b")).expect("a pair");
    let change = LinkChange::of(link.index)
        .namespace(&right_namespace)
        .rename("c");
    left.request(Request::change_link(change)).expect("moved");
    assert_eq!(left.link("a").expect("ask"), None);
    assert!(right.link("c").expect("ask").is_some());
}

#[test]
fn named_namespaces_come_and_go() {
    let name = format!("ccn-test-{}", std::process::id());
    let path = {
        let namespace = Namespace::create(&name).expect("made");
        assert!(Namespace::create(&name).is_err(), "the name is taken");
        let opened = Namespace::open(&name).expect("opened");
        let links = Socket::open_in(&opened)
            .expect("socket")
            .links()
            .expect("links");
        assert_eq!(
            links.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(),
            ["lo"]
        );
        namespace.path().to_owned()
    };
    assert!(!path.exists(), "deleted on drop");
    assert!(Namespace::open(&name).is_err());
    for bad in ["", ".", "..", "a/b"] {
        assert!(Namespace::create(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn routes_come_back_as_they_were_asked_for() {
    let (_namespace, mut socket) = fresh();
    let (vxlan, bridge) = devices(&mut socket);
    let weighted = |prefix: &str, metric| {
        let mut route = vm_route(&vxlan, prefix, metric, 9);
        let mut other = route.next_hops[0];
        other.encap = Some(Encap {
            tos: 8,
            ..Encap::new(9, ip("10.0.0.2"))
        });
        other.weight = 256;
        route.next_hops[0].weight = 3;
        route.next_hops.push(other);
        route.normalised()
    };
    let other = |prefix: &str, table, kind| {
        let hop = NextHop::dev(bridge.index);
        Route {
            table,
            kind,
            protocol: PROTOCOL,
            ..Route::new(net(prefix), hop)
        }
        .normalised()
    };
    let mut wanted = vec![
        vm_route(&vxlan, "192.168.0.5/32", 5, 1),
        vm_route(&vxlan, "192.168.0.5/32", 6, 0xff_ffff),
        vm_route(&vxlan, "fd00::5/128", 0, 2),
        weighted("192.168.0.6/32", 7),
        weighted("fd00::6/128", 8),
        other("0.0.0.0/0", 0x0100_0001, RouteKind::Unicast),
        other("::/0", 0x0100_0001, RouteKind::Unicast),
        other("10.1.0.0/16", 254, RouteKind::Blackhole),
        other("fd01::/16", 254, RouteKind::Unreachable),
        other("10.2.0.0/16", 99, RouteKind::Throw),
        other("10.3.0.0/16", 99, RouteKind::Unicast),
    ];
    let mut over_ipv6 = vm_route(&vxlan, "192.168.0.7/32", 9, 3);
    over_ipv6.next_hops[0].encap = Some(Encap {
        source: Some(ip("2001:db8::1")),
        ttl: 9,
        ..Encap::new(3, ip("2001:db8::2"))
    });
    wanted.push(over_ipv6);
    let requests: Vec<_> = wanted.iter().cloned().map(Request::add_route).collect();
    socket.batch(&requests).expect("all routes");
    // A route of another maker is filtered out by the kernel.
    let foreign = Route {
        protocol: 4,
        ..other("10.9.0.0/16", 99, RouteKind::Unicast)
    };
    socket
        .request(Request::add_route(foreign.clone()))
        .expect("a foreign route");

    let mut found = socket.routes(&ours()).expect("routes");
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    let filter = RouteFilter {
        table: Some(99),
        family: Some(Family::V4),
        protocol: None,
    };
    assert_eq!(socket.routes(&filter).expect("routes").len(), 3);
    let nothing = RouteFilter {
        table: Some(12345),
        ..RouteFilter::default()
    };
    assert_eq!(socket.routes(&nothing).expect("no such table"), []);

    // Replacing changes next hops only; deleting needs none.
    let mut moved = vm_route(&vxlan, "192.168.0.5/32", 5, 1);
    moved.next_hops[0].encap = Some(Encap::new(1, ip("10.0.0.77")));
    let mut moved_six = weighted("fd00::6/128", 8);
    moved_six.next_hops[0].encap = Some(Encap::new(1, ip("10.0.0.78")));
    let moved_six = moved_six.normalised();
    socket
        .batch(&[
            Request::replace_route(moved.clone()),
            Request::replace_route(moved_six.clone()),
        ])
        .expect("replaced");
    let found = socket.routes(&ours()).expect("routes");
    assert_eq!(found.len(), wanted.len());
    assert!(
        found.contains(&moved) && found.contains(&moved_six),
        "{found:#?}"
    );
    let requests: Vec<_> = found.into_iter().map(Request::delete_route).collect();
    socket.batch(&requests).expect("deleted");
    assert_eq!(socket.routes(&ours()).expect("routes"), []);
    assert!(socket.routes(&filter).expect("routes").contains(&foreign));
}

#[test]
fn rules_come_back_as_they_were_asked_for() {
    let (_namespace, mut socket) = fresh();
    devices(&mut socket);
    let base = |family, priority| Rule {
        iif: Some("vx".to_owned()),
        protocol: PROTOCOL,
        ..Rule::lookup(family, priority, 0x0100_0001)
    };
    let mut wanted = vec![
        Rule {
            tunnel_id: Some(0xff_ffff),
            from: Some(net("192.168.0.0/24")),
            to: Some(net("10.0.0.0/8")),
            ..base(Family::V4, 100)
        },
        Rule {
            tunnel_id: Some(7),
            from: Some(net("fd00::/64")),
            ..base(Family::V6, 100)
        },
        Rule {
            iif: Some("lo".to_owned()),
            suppress_prefix_length: Some(0),
            ..base(Family::V4, 101)
        },
        Rule {
            iif: Some("not-there".to_owned()),
            ..base(Family::V6, 102)
        },
        Rule {
            action: RuleAction::Blackhole,
            ..base(Family::V4, 103)
        },
        Rule {
            mark: Some(0xcc01),
            ..base(Family::V6, 103)
        },
        Rule {
            oif: Some("br".to_owned()),
            ..base(Family::V4, 104)
        },
    ];
    socket
        .batch(
            &wanted
                .iter()
                .cloned()
                .map(Request::add_rule)
                .collect::<Vec<_>>(),
        )
        .expect("all rules");
    let mut found = socket.rules(Some(PROTOCOL)).expect("rules");
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    let twice = socket
        .request(Request::add_rule(wanted[0].clone()))
        .expect_err("twice");
    assert_eq!(twice.errno(), Some(Errno::EEXIST));
    let all = socket.rules(None).expect("rules").len();
    socket
        .batch(
            &wanted
                .iter()
                .cloned()
                .map(Request::delete_rule)
                .collect::<Vec<_>>(),
        )
        .expect("all deleted");
    assert_eq!(socket.rules(None).expect("rules").len(), all - wanted.len());
}

#[test]
fn forwarding_entries_lead_to_vteps_and_ports() {
    let (_namespace, mut socket) = fresh();
    let bridge = socket.create_link(NewLink::bridge("br")).expect("a bridge");
    let vxlan = NewLink::vxlan("vx7", 7, ip("10.0.0.2"), 4789)
        .master(bridge.index)
        .up();
    let vxlan = socket.create_link(vxlan).expect("a VXLAN device");
    let mac = Mac([2, 0, 0, 0, 0, 5]);
    let flood = Mac([0; 6]);
    let entries = [
        ForwardingEntry::remote(vxlan.index, mac, ip("10.0.0.3")),
        ForwardingEntry::remote(vxlan.index, flood, ip("10.0.0.3")),
        ForwardingEntry::remote(vxlan.index, flood, ip("10.0.0.4")),
        ForwardingEntry::port(vxlan.index, mac),
    ];
    socket
        .batch(&entries.map(Request::add_forwarding_entry))
        .expect("entries");
    let found = socket.forwarding_entries(vxlan.index).expect("entries");
    for entry in &entries {
        assert!(found.contains(entry), "{entry} is not in {found:#?}");
    }
    let moved = ForwardingEntry::remote(vxlan.index, mac, ip("10.0.0.9"));
    socket
        .request(Request::replace_forwarding_entry(moved))
        .expect("moved");
    let found = socket.forwarding_entries(vxlan.index).expect("entries");
    assert!(
        found.contains(&moved) && !found.contains(&entries[0]),
        "{found:#?}"
    );
    socket
        .request(Request::delete_forwarding_entry(moved))
        .expect("deleted");
    assert!(
        !socket
            .forwarding_entries(vxlan.index)
            .expect("entries")
            .contains(&moved)
    );
}

#[test]
fn each_failure_of_a_batch_names_its_request_and_quotes_the_kernel() {
    let (_namespace, mut socket) = fresh();
    let (vxlan, bridge) = devices(&mut socket);
    let good = |n: usize| vm_route(&vxlan, &format!("10.{}.{}.0/24", n / 256, n % 256), 1, 1);
    let mut requests: Vec<_> = (0..300).map(|n| Request::add_route(good(n))).collect();
    let mut unreachable = good(1000);
    unreachable.next_hops[0].ifindex = 9999;
    requests[5] = Request::add_route(unreachable);
    requests[127] = Request::add_route(good(0)); // the last of a chunk: it is its own acknowledgement
    requests[128] = Request::delete_route(good(2000));
    requests[200] = Request::add_link(NewLink::bridge("a/b"));
    requests[299] = Request::add_route(good(1));
    let error = socket.batch(&requests).expect_err("five are bad");
    let BatchError::Refused { failures, total } = &error else {
        panic!("{error}")
    };
    assert_eq!(*total, 300);
    let seen: Vec<_> = failures.iter().map(|f| (f.index, f.errno)).collect();
    assert_eq!(
        seen,
        [
            (5, Errno::ENODEV),
            (127, Errno::EEXIST),
            (128, Errno::ESRCH),
            (200, Errno::EINVAL),
            (299, Errno::EEXIST)
        ]
    );
    assert!(
        failures[1]
            .request
            .starts_with("add route 10.0.0.0/24 table 16777217"),
        "{error}"
    );
    assert_eq!(socket.routes(&ours()).expect("routes").len(), 295);
    // The kernel's own words, where it has any.
    let no_device = NewLink::bridge("br7").master(9999);
    let error = socket.create_link(no_device).expect_err("no such bridge");
    let mut unreachable = good(1000);
    unreachable.next_hops[0].encap = Some(Encap::new(1, ip("10.0.0.1")));
    unreachable.next_hops[0].ifindex = bridge.index;
    unreachable.next_hops[0].via = Some(ip("10.77.0.1"));
    let refused = socket
        .request(Request::add_route(unreachable))
        .expect_err("no way there");
    assert!(
        refused.to_string().contains("Nexthop has invalid gateway"),
        "{refused} {error}"
    );
}

#[test]
fn without_the_capability_the_error_names_it() {
    let (namespace, _) = fresh();
    let error = namespace
        .enter(|| {
            // This thread alone loses its capabilities.
            // SAFETY: a system call without pointers; the libc wrapper would change all threads.
            let dropped = unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, -1, 65534, -1) };
            assert_eq!(dropped, 0);
            Socket::open()
                .expect("no privilege needed")
                .create_link(NewLink::bridge("br"))
        })
        .expect("enter")
        .expect_err("refused");
    assert_eq!(error.errno(), Some(Errno::EPERM));
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
}

#[test]
fn ten_thousand_routes_in_one_batch() {
    let (_namespace, mut socket) = fresh();
    let (vxlan, _) = devices(&mut socket);
    let routes: Vec<_> = (0..10_000u32)
        .map(|n| {
            vm_route(
                &vxlan,
                &format!("10.{}.{}.{}/32", n >> 16, n >> 8 & 255, n & 255),
                n + 1,
                7,
            )
        })
        .collect();
    let requests: Vec<_> = routes.iter().cloned().map(Request::add_route).collect();
    socket.batch(&requests).expect("all");
    let mut found = socket.routes(&ours()).expect("routes");
    found.sort();
    let mut routes = routes;
    routes.sort();
    assert!(
        found == routes,
        "{} of {} came back as asked",
        found.len(),
        routes.len()
    );
    let requests: Vec<_> = routes.into_iter().map(Request::delete_route).collect();
    socket.batch(&requests).expect("all deleted");
}
