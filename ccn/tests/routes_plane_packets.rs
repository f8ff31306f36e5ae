//! Packets through the `routes` plane: who reaches whom, and under which reason the rest is dropped.
//!
//! The whole contract is the business of the lab's tests; here it is as small as it can be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bgp::Prefix;
use ccn::config::{PlaneConfig, PlaneKind};
use ccn::plane::entry::{EntryKey, EntryValue, Hop, ScopeId};
use ccn::plane::routes::RoutesPlane;
use ccn::plane::{Batch, Desired, Plane};
use ccn::record::{Mac, Mode, Vni};
use netlink::{
    Address, Family, ForwardingEntry, InputFilter, LinkChange, Namespace, Neighbour, Netfilter,
    NewLink, NextHop, Request, Route, Rule, Socket,
};

const PORT: u16 = 4789;
const PATIENCE: Duration = Duration::from_secs(5);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn vni(number: u32) -> Vni {
    Vni::new(number).expect("a VNI")
}

/// A namespace with a socket into it.
struct Node {
    namespace: Namespace,
    netlink: Socket,
}

impl Node {
    fn new() -> Node {
        let namespace = Namespace::anonymous().expect("these tests need CAP_SYS_ADMIN");
        // An address that is still probed for duplicates answers no neighbour: packets would be lost.
        let usable_at_once = || {
            for scope in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad");
                std::fs::write(path, "0").expect("a sysctl");
            }
        };
        namespace.enter(usable_at_once).expect("enter");
        let netlink = Socket::open_in(&namespace).expect("a socket");
        let mut node = Node { namespace, netlink };
        node.up("lo");
        node
    }

    fn index(&mut self, name: &str) -> u32 {
        self.netlink.link(name).expect("ask").expect("a link").index
    }

    fn up(&mut self, name: &str) {
        let index = self.index(name);
        self.netlink
            .request(Request::change_link(LinkChange::of(index).up(true)))
            .expect("up");
    }

    fn address(&mut self, name: &str, net: &str) {
        let address = Address::new(self.index(name), net.parse().expect("a net"));
        self.netlink
            .request(Request::add_address(address))
            .expect("an address");
    }

    fn route(&mut self, net: &str, via: &str, name: &str) {
        let hop = NextHop {
            onlink: true,
            ..NextHop::via(ip(via), self.index(name))
        };
        let route = Route::new(net.parse().expect("a net"), hop);
        self.netlink
            .request(Request::add_route(route))
            .expect("a route");
    }

    fn join(&mut self, name: &str, other: &mut Node, peer: &str) {
        let link = NewLink::veth_to(name, peer, &other.namespace);
        self.netlink.create_link(link).expect("a pair");
        self.up(name);
        other.up(peer);
        self.await_operational(name);
        other.await_operational(peer);
    }

    /// Until then the kernel drops what is sent, though the carrier is there.
    fn await_operational(&mut self, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let link = self.netlink.link(name).expect("ask").expect("a link");
            if link.operational {
                return;
            }
            assert!(Instant::now() < deadline, "still {link:?}");
            std::thread::yield_now();
        }
    }

    /// A VM: a VXLAN device with the VM's MAC and addresses, whose every packet goes to the gateway.
    fn vm(&mut self, number: u32, local: &str, mac: [u8; 6], addrs: &[&str]) {
        let name = format!("vm{number}");
        let link = NewLink::vxlan(&name, number, ip(local), PORT)
            .mac(netlink::Mac(mac))
            .mtu(1450);
        let index = self
            .netlink
            .create_link(link)
            .expect("a VXLAN device")
            .index;
        let change = LinkChange::of(index).link_local(false);
        self.netlink
            .request(Request::change_link(change))
            .expect("no link-local address");
        self.up(&name);
        let gateway = netlink::Mac(Mac::GATEWAY.bytes());
        let entry = ForwardingEntry::remote(index, gateway, ip("172.16.0.1"));
        self.netlink
            .request(Request::add_forwarding_entry(entry))
            .expect("a forwarding entry");
        for addr in addrs {
            self.address(&name, addr);
        }
        for (all, router) in [("0.0.0.0/0", "169.254.0.1"), ("::/0", "fe80::1")] {
            let neighbour = Neighbour::permanent(index, ip(router), gateway);
            self.netlink
                .request(Request::replace_neighbour(neighbour))
                .expect("a neighbour");
            let hop = NextHop {
                onlink: true,
                ..NextHop::via(ip(router), index)
            };
            let route = Route {
                metric: number,
                ..Route::new(all.parse().expect("a net"), hop)
            };
            self.netlink
                .request(Request::add_route(route))
                .expect("a default route");
        }
    }

    fn udp(&self, addr: &str) -> UdpSocket {
        let at = SocketAddr::new(ip(addr), 7000);
        let socket = self
            .namespace
            .enter(|| UdpSocket::bind(at).unwrap_or_else(|error| panic!("bind {at}: {error}")))
            .expect("enter");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    }
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

fn endpoint(
    scope: u32,
    addr: &str,
    number: u32,
    vtep: &str,
    mac: [u8; 6],
) -> (EntryKey, EntryValue) {
    let key = EntryKey::Endpoint {
        scope: ScopeId(vni(scope)),
        addr: ip(addr),
    };
    let hop = Hop {
        vtep: ip(vtep),
        mac: Mac::new(mac).expect("a MAC"),
        weight: 1,
    };
    (
        key,
        EntryValue::Endpoint {
            vni: vni(number),
            hops: vec![hop],
        },
    )
}

fn permit(number: u32, subnet: &str, classic: &str, scope: u32) -> (EntryKey, EntryValue) {
    let key = EntryKey::Permit {
        link: "l1".parse().expect("a link id"),
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

const VM: [u8; 6] = [2, 1, 0, 0, 0, 5];
const TWIN: [u8; 6] = [2, 2, 0, 0, 0, 5];
const OTHER: [u8; 6] = [2, 3, 0, 0, 0, 5];

fn config() -> PlaneConfig {
    PlaneConfig {
        kind: PlaneKind::Routes,
        vtep: ip("172.16.0.1"),
        idc_interfaces: vec!["idc0".to_owned()],
        device: "ccn0".to_owned(),
        mac: Mac::GATEWAY,
        port: PORT,
        mtu: 1450,
        protocol: 77,
        audit_interval: 0,
    }
}

/// A gateway between an IDC router with hosts and three hypervisors. VNI 100 is linked; 101 is in the
/// same CCSI; 200 is in another, with the same subnets and addresses as 100; 999 is nobody's.
struct World {
    gateway: Node,
    idc: Node,
    one: Node,
    two: Node,
    three: Node,
    plane: RoutesPlane,
}

impl World {
    fn new() -> World {
        let (mut gateway, mut idc) = (Node::new(), Node::new());
        let (mut one, mut two, mut three) = (Node::new(), Node::new(), Node::new());
        gateway.join("idc0", &mut idc, "gw0");
        gateway.join("under1", &mut one, "under0");
        gateway.join("under2", &mut two, "under0");
        gateway.join("under3", &mut three, "under0");
        for (name, net) in [
            ("lo", "172.16.0.1/32"),
            ("under1", "172.16.1.1/30"),
            ("under2", "172.16.2.1/30"),
            ("under3", "172.16.3.1/30"),
            ("idc0", "10.255.0.1/24"),
            ("idc0", "2001:db8:ff::1/64"),
        ] {
            gateway.address(name, net);
        }
        for (name, net) in [
            ("gw0", "10.255.0.2/24"),
            ("gw0", "2001:db8:ff::2/64"),
            ("lo", "10.0.1.7/32"),
            ("lo", "10.66.0.1/32"),
            ("lo", "2001:db8:1::7/128"),
        ] {
            idc.address(name, net);
        }
        for net in ["192.168.0.0/16", "10.101.0.0/16", "10.102.0.0/16"] {
            idc.route(net, "10.255.0.1", "gw0");
        }
        idc.route("fd00:1::/64", "2001:db8:ff::1", "gw0");
        for (node, own) in [
            (&mut one, "172.16.1"),
            (&mut two, "172.16.2"),
            (&mut three, "172.16.3"),
        ] {
            node.address("under0", &format!("{own}.2/30"));
            node.route("172.16.0.1/32", &format!("{own}.1"), "under0");
        }
        let both = ["192.168.0.5/32", "fd00:1::5/128"];
        one.vm(100, "172.16.1.2", VM, &both);
        one.vm(999, "172.16.1.2", OTHER, &[]);
        two.vm(200, "172.16.2.2", TWIN, &both);
        three.vm(101, "172.16.3.2", OTHER, &["10.101.0.5/32"]);
        let mut plane = RoutesPlane::new(&config());
        gateway
            .namespace
            .enter(|| plane.prepare().expect("prepared"))
            .expect("enter");
        World {
            gateway,
            idc,
            one,
            two,
            three,
            plane,
        }
    }

    /// Answers how many operations it took.
    fn resync(&mut self, desired: &Desired) -> usize {
        let World { gateway, plane, .. } = self;
        let applied = gateway
            .namespace
            .enter(|| plane.resync(desired).expect("synced"))
            .expect("enter");
        assert_eq!(
            (applied.failures, applied.learned_failures),
            Default::default()
        );
        applied.operations
    }

    fn apply(&mut self, batch: &Batch) {
        let applied = self.plane.apply(batch).expect("applied");
        assert_eq!(
            (applied.failures, applied.learned_failures),
            Default::default()
        );
    }

    /// Waits until one more packet is counted under a reason, and nothing under another.
    fn dropped(&mut self, reason: &str, send: impl FnOnce(&World)) {
        let before = self.plane.counters().expect("counters").drops;
        send(self);
        let mut expected = before.clone();
        expected.get_mut(reason).expect("a known reason").packets += 1;
        let packets = |drops: &BTreeMap<String, ccn::plane::Count>| {
            drops
                .iter()
                .map(|(name, count)| (name.clone(), count.packets))
                .collect::<Vec<_>>()
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.plane.counters().expect("counters").drops;
            if packets(&now) == packets(&expected) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "want one {reason} more than {before:?}: {now:?}"
            );
            std::thread::yield_now();
        }
    }
}

fn region() -> Desired {
    let hops = |text: &str| BTreeSet::from([ip(text)]);
    Desired {
        generation: 1,
        entries: BTreeMap::from([
            source(100, "192.168.0.0/16", 100),
            source(100, "fd00:1::/64", 100),
            source(101, "10.101.0.0/16", 100),
            source(200, "192.168.0.0/16", 200),
            source(200, "fd00:1::/64", 200),
            permit(100, "192.168.0.0/16", "10.0.0.0/16", 100),
            permit(100, "fd00:1::/64", "2001:db8:1::/48", 100),
            endpoint(100, "192.168.0.5", 100, "172.16.1.2", VM),
            endpoint(100, "fd00:1::5", 100, "172.16.1.2", VM),
            endpoint(100, "10.101.0.5", 101, "172.16.3.2", OTHER),
            endpoint(200, "192.168.0.5", 200, "172.16.2.2", TWIN),
            endpoint(200, "fd00:1::5", 200, "172.16.2.2", TWIN),
        ]),
        learned: BTreeMap::from([
            (prefix("10.0.1.0/24"), hops("10.255.0.2")),
            (prefix("10.66.0.0/16"), hops("10.255.0.2")),
            (prefix("2001:db8:1::/48"), hops("2001:db8:ff::2")),
        ]),
        keep_unknown_learned: false,
    }
}

/// Sends one packet and has it answered; both ends see the other's own address.
fn talk(from: &UdpSocket, to: &UdpSocket) {
    let (here, there) = (
        from.local_addr().expect("bound"),
        to.local_addr().expect("bound"),
    );
    let mut buffer = [0; 64];
    from.send_to(b"ping", there).expect("sent");
    let (length, seen) = to
        .recv_from(&mut buffer)
        .unwrap_or_else(|e| panic!("{here} -> {there}: {e}"));
    assert_eq!((&buffer[..length], seen), (&b"ping"[..], here));
    to.send_to(b"pong", seen).expect("sent");
    let (length, seen) = from
        .recv_from(&mut buffer)
        .unwrap_or_else(|e| panic!("{there} -> {here}: {e}"));
    assert_eq!((&buffer[..length], seen), (&b"pong"[..], there));
}

#[test]
fn each_packet_goes_where_the_contract_says() {
    let mut world = World::new();
    world.resync(&region());
    let (vm, vm6) = (world.one.udp("192.168.0.5"), world.one.udp("fd00:1::5"));
    let other = world.three.udp("10.101.0.5");
    let (twin, twin6) = (world.two.udp("192.168.0.5"), world.two.udp("fd00:1::5"));
    let (host, host6) = (world.idc.udp("10.0.1.7"), world.idc.udp("2001:db8:1::7"));
    let stranger = world.idc.udp("10.66.0.1");
    twin.set_nonblocking(true).expect("non-blocking");
    twin6.set_nonblocking(true).expect("non-blocking");

    talk(&host, &vm);
    talk(&vm, &host);
    talk(&host6, &vm6);
    talk(&vm6, &host6);
    talk(&vm, &other);

    let send = |socket: &UdpSocket, to: &str| {
        socket
            .send_to(b"lost", SocketAddr::new(ip(to), 7000))
            .expect("sent");
    };
    world.dropped("no-link", |_| send(&vm, "10.66.0.1"));
    world.dropped("no-such-endpoint", |_| send(&vm, "192.168.9.9"));
    world.dropped("no-such-endpoint", |_| send(&host, "192.168.9.9"));
    world.dropped("no-such-endpoint", |_| send(&vm6, "fd00:1::9"));
    world.dropped("no-idc-route", |_| send(&vm, "10.0.99.1"));
    world.dropped("not-linked-source", |_| send(&stranger, "192.168.0.5"));
    world.dropped("not-linked", |_| send(&host, "10.101.0.5"));
    world.dropped("not-linked", |_| send(&host, "10.102.0.5"));
    // Not this VPC's source, then a VNI that nobody has.
    world.one.address("vm100", "172.30.0.1/32");
    let liar = world.one.udp("172.30.0.1");
    world.dropped("bad-source", |_| send(&liar, "192.168.9.9"));
    world.dropped("no-link", |_| send(&twin, "10.0.1.7"));
    world.one.route("10.44.0.1/32", "169.254.0.1", "vm999");
    world.dropped("unknown-vni", |_| send(&liar, "10.44.0.1"));

    // Nothing ever reached the VM with the same address in the other CCSI.
    let mut buffer = [0; 64];
    for twin in [&twin, &twin6] {
        let got = twin.recv_from(&mut buffer);
        assert_eq!(
            got.expect_err("nothing").kind(),
            std::io::ErrorKind::WouldBlock
        );
    }

    // Unlinked: both directions stop; linked again: both work.
    let links: BTreeMap<_, _> = region()
        .entries
        .into_iter()
        .filter(|(key, _)| matches!(key, EntryKey::Permit { .. }))
        .collect();
    let unlink = Batch {
        removals: links.keys().cloned().collect(),
        verify: true,
        ..Batch::default()
    };
    world.apply(&unlink);
    world.dropped("not-linked", |_| send(&host, "192.168.0.5"));
    world.dropped("no-link", |_| send(&vm, "10.0.1.7"));
    world.apply(&Batch {
        upserts: links,
        verify: true,
        ..Batch::default()
    });
    talk(&vm, &host);
    talk(&host6, &vm6);
}

#[test]
fn a_vm_that_moves_is_followed_and_a_withdrawn_route_fails_closed() {
    let mut world = World::new();
    world.resync(&region());
    let host = world.idc.udp("10.0.1.7");
    talk(&host, &world.one.udp("192.168.0.5"));
    // The other hypervisor's VM with the same address now serves it, for VNI 100.
    world.two.vm(100, "172.16.2.2", VM, &[]);
    world.two.route("10.0.1.7/32", "169.254.0.1", "vm100");
    let moved = endpoint(100, "192.168.0.5", 100, "172.16.2.2", VM);
    world.apply(&Batch {
        upserts: BTreeMap::from([moved]),
        verify: true,
        ..Batch::default()
    });
    talk(&host, &world.two.udp("192.168.0.5"));

    let gone = BTreeMap::from([(prefix("10.0.1.0/24"), BTreeSet::new())]);
    world.apply(&Batch {
        learned: gone,
        ..Batch::default()
    });
    let vm = world.two.udp("192.168.0.5");
    world.dropped("no-idc-route", |_| {
        vm.send_to(b"lost", SocketAddr::new(ip("10.0.1.7"), 7000))
            .expect("sent");
    });
    let default = BTreeMap::from([(prefix("0.0.0.0/0"), BTreeSet::from([ip("10.255.0.2")]))]);
    world.apply(&Batch {
        learned: default,
        verify: true,
        ..Batch::default()
    });
    talk(&vm, &host);
}

/// What no VM can reach: the gateway's own addresses on the IDC's side, of tunnels, of the underlay.
const OWN: [&str; 4] = ["10.255.0.1", "172.16.0.1", "172.16.2.1", "2001:db8:ff::1"];

#[test]
fn no_vm_reaches_the_gateway_itself_and_others_do() {
    let mut world = World::new();
    world.resync(&region());
    // The hypervisor's own way to the tunnel's address is not the VM's.
    let index = world.one.index("vm100");
    let hop = NextHop {
        onlink: true,
        ..NextHop::via(ip("169.254.0.1"), index)
    };
    let route = Route {
        table: 500,
        ..Route::new("0.0.0.0/0".parse().expect("a net"), hop)
    };
    let rule = Rule {
        from: Some("192.168.0.5/32".parse().expect("a net")),
        ..Rule::lookup(Family::V4, 100, 500)
    };
    for request in [Request::add_route(route), Request::add_rule(rule)] {
        world.one.netlink.request(request).expect("added");
    }
    let (vm, vm6) = (world.one.udp("192.168.0.5"), world.one.udp("fd00:1::5"));
    for own in OWN {
        let service = world.gateway.udp(own);
        let at = SocketAddr::new(ip(own), 7000);
        let vm = if at.is_ipv4() { &vm } else { &vm6 };
        world.dropped("no-link", |_| {
            vm.send_to(b"lost", at).expect("sent");
        });
        service.set_nonblocking(true).expect("non-blocking");
        let got = service.recv_from(&mut [0; 64]).expect_err("nothing");
        assert_eq!(got.kind(), std::io::ErrorKind::WouldBlock, "{own}");
        service.set_nonblocking(false).expect("blocking");
        // Routers and monitoring still reach the same addresses, and are reached from them.
        let near = match own {
            "172.16.0.1" | "172.16.2.1" => world.two.udp("172.16.2.2"),
            "10.255.0.1" => world.idc.udp("10.255.0.2"),
            _ => world.idc.udp("2001:db8:ff::2"),
        };
        talk(&near, &service);
        talk(&service, &near);
    }
    let host = world.idc.udp("10.0.1.7");
    talk(&host, &vm);
    talk(&vm, &host);
}

#[test]
fn errors_of_the_gateway_still_reach_vms() {
    let mut world = World::new();
    let mut desired = region();
    // Only one CCSI may have the addresses that an error goes to.
    desired.entries.retain(|key, _| match key {
        EntryKey::Source { vni: of, .. } => *of != vni(200),
        EntryKey::Endpoint { scope, .. } => *scope != ScopeId(vni(200)),
        EntryKey::Permit { .. } => true,
    });
    world.resync(&desired);
    let index = world.gateway.index("idc0");
    let smaller = Request::change_link(LinkChange::of(index).mtu(1300));
    world.gateway.netlink.request(smaller).expect("an MTU");
    for (own, host) in [("192.168.0.5", "10.0.1.7"), ("fd00:1::5", "2001:db8:1::7")] {
        let vm = world.one.udp(own);
        vm.connect(SocketAddr::new(ip(host), 7000)).expect("a way");
        vm.send(&[0; 1380]).expect("sent");
        let error = vm.recv(&mut [0; 64]).expect_err("too big");
        assert_eq!(error.raw_os_error(), Some(netlink::Errno::EMSGSIZE as i32));
    }
}

#[test]
fn the_filter_is_kept_comes_back_and_goes_with_the_plane() {
    let mut world = World::new();
    let mut netfilter = Netfilter::open_in(&world.gateway.namespace).expect("a socket");
    let filter = |name: &str| InputFilter {
        table: name.to_owned(),
        interface: name.to_owned(),
    };
    let (ours, foreign) = (filter("ccn0"), filter("other0"));
    netfilter.ensure(&foreign).expect("made");
    world.resync(&region());
    assert_eq!(world.resync(&region()), 0);
    let vm = world.one.udp("192.168.0.5");
    let lost = |vm: &UdpSocket| {
        vm.send_to(b"lost", SocketAddr::new(ip("10.255.0.1"), 7000))
            .expect("sent");
    };
    world.dropped("no-link", |_| lost(&vm));
    // Another run of the agent finds it, with what it has counted.
    let mut next = RoutesPlane::new(&config());
    world
        .gateway
        .namespace
        .enter(|| next.prepare().expect("prepared"))
        .expect("enter");
    world.plane = next;
    assert_eq!(world.resync(&region()), 0);
    let counted = world.plane.counters().expect("counters");
    assert_eq!(counted.drops["no-link"].packets, 1);
    let line = "filter inet ccn0 input iif ccn0 drop";
    let dump = world.plane.dump().expect("a dump");
    assert!(dump.iter().any(|shown| shown == line), "{dump:?}");

    assert!(netfilter.delete("ccn0").expect("deleted"));
    assert_eq!(world.resync(&region()), 1);
    world.dropped("no-link", |_| lost(&vm));
    assert!(netfilter.input_filter(&ours).expect("asked").is_some());

    let World { gateway, plane, .. } = &mut world;
    gateway
        .namespace
        .enter(|| plane.remove().expect("removed"))
        .expect("enter");
    assert_eq!(netfilter.input_filter(&ours).expect("asked"), None);
    assert!(!netfilter.ensure(&foreign).expect("still there"));
}
