//! Packets through the `routes` plane: who reaches whom, and under which reason the rest is dropped.
//!
//! Packet by packet, all planes are held against the contract in `contract`; here is what changes
//! while packets pass, and what is this plane's own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use bgp::Prefix;
use ccn::config::{PlaneConfig, PlaneKind};
use ccn::plane::entry::{EntryKey, EntryValue, Hop, ScopeId};
use ccn::plane::model::{Ingress, Packet};
use ccn::plane::routes::RoutesPlane;
use ccn::plane::witness::Witness;
use ccn::plane::{Batch, Desired, Plane};
use ccn::record::{Mac, Mode, Vni};
use netlink::{
    Family, ForwardingEntry, InputFilter, LinkChange, Neighbour, Netfilter, NewLink, NextHop,
    Request, Route, Rule,
};
use netns::{Node, PATIENCE, ip};

mod netns;

const PORT: u16 = 4789;

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn vni(number: u32) -> Vni {
    Vni::new(number).expect("a VNI")
}

/// What only these tests ask of a namespace.
trait Hosts {
    fn route(&mut self, net: &str, via: &str, name: &str);
    fn vm(&mut self, number: u32, local: &str, mac: [u8; 6], addrs: &[&str]);
    fn udp(&self, addr: &str) -> UdpSocket;
}

impl Hosts for Node {
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
        underlay_interfaces: None,
        max_flows: 65_536,
        bpffs: "/sys/fs/bpf/ccn-test".into(),
    }
}

/// A gateway between an IDC router with hosts and two hypervisors. VNI 100 is linked; 200 is in
/// another CCSI, with the same subnets and addresses as 100.
struct World {
    gateway: Node,
    idc: Node,
    one: Node,
    two: Node,
    plane: RoutesPlane,
}

impl World {
    fn new() -> World {
        let (mut gateway, mut idc) = (Node::new(), Node::new());
        let (mut one, mut two) = (Node::new(), Node::new());
        gateway.join("idc0", &mut idc, "gw0");
        gateway.join("under1", &mut one, "under0");
        gateway.join("under2", &mut two, "under0");
        for (name, net) in [
            ("lo", "172.16.0.1/32"),
            ("under1", "172.16.1.1/30"),
            ("under2", "172.16.2.1/30"),
            ("idc0", "10.255.0.1/24"),
            ("idc0", "2001:db8:ff::1/64"),
        ] {
            gateway.address(name, net);
        }
        for (name, net) in [
            ("gw0", "10.255.0.2/24"),
            ("gw0", "2001:db8:ff::2/64"),
            ("lo", "10.0.1.7/32"),
            ("lo", "2001:db8:1::7/128"),
        ] {
            idc.address(name, net);
        }
        idc.route("192.168.0.0/16", "10.255.0.1", "gw0");
        idc.route("fd00:1::/64", "2001:db8:ff::1", "gw0");
        for (node, own) in [(&mut one, "172.16.1"), (&mut two, "172.16.2")] {
            node.address("under0", &format!("{own}.2/30"));
            node.route("172.16.0.1/32", &format!("{own}.1"), "under0");
        }
        let both = ["192.168.0.5/32", "fd00:1::5/128"];
        one.vm(100, "172.16.1.2", VM, &both);
        two.vm(200, "172.16.2.2", TWIN, &both);
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
            source(200, "192.168.0.0/16", 200),
            source(200, "fd00:1::/64", 200),
            permit(100, "192.168.0.0/16", "10.0.0.0/16", 100),
            permit(100, "fd00:1::/64", "2001:db8:1::/48", 100),
            endpoint(100, "192.168.0.5", 100, "172.16.1.2", VM),
            endpoint(100, "fd00:1::5", 100, "172.16.1.2", VM),
            endpoint(200, "192.168.0.5", 200, "172.16.2.2", TWIN),
            endpoint(200, "fd00:1::5", 200, "172.16.2.2", TWIN),
        ]),
        learned: BTreeMap::from([
            (prefix("10.0.1.0/24"), hops("10.255.0.2")),
            (prefix("2001:db8:1::/48"), hops("2001:db8:ff::2")),
        ]),
        keep_unknown_learned: false,
        ..Desired::default()
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
fn a_link_that_is_taken_away_closes_both_directions_and_put_back_opens_them() {
    let mut world = World::new();
    world.resync(&region());
    let (vm, vm6) = (world.one.udp("192.168.0.5"), world.one.udp("fd00:1::5"));
    let (host, host6) = (world.idc.udp("10.0.1.7"), world.idc.udp("2001:db8:1::7"));
    talk(&host, &vm);
    talk(&vm, &host);
    talk(&host6, &vm6);
    let send = |socket: &UdpSocket, to: &str| {
        socket
            .send_to(b"lost", SocketAddr::new(ip(to), 7000))
            .expect("sent");
    };
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

#[test]
fn the_kernel_says_what_it_would_do_with_packets_from_the_idc() {
    let mut world = World::new();
    world.resync(&region());
    let sent = |vtep: &str, mac: [u8; 6]| Witness::Encapsulate {
        vni: vni(100),
        vtep: ip(vtep),
        mac: Mac::new(mac).expect("a MAC"),
        link: None,
    };
    let dropped = |reason: &str| Witness::Drop {
        reason: reason.to_owned(),
    };
    for (src, dst, says) in [
        ("10.0.1.9", "192.168.0.5", Some(sent("172.16.1.2", VM))),
        ("2001:db8:1::9", "fd00:1::5", Some(sent("172.16.1.2", VM))),
        ("10.0.1.9", "192.168.0.6", Some(dropped("no-such-endpoint"))),
        (
            "10.1.1.9",
            "192.168.0.5",
            Some(dropped("not-linked-source")),
        ),
        ("10.0.1.9", "192.169.0.5", Some(dropped("not-linked"))),
        ("2001:db8:1::9", "fd00:2::5", Some(dropped("not-linked"))),
        ("10.0.1.9", "10.255.0.1", Some(Witness::Host)),
    ] {
        let packet = Packet::new(Ingress::Idc, ip(src), ip(dst));
        let asked = world.plane.ask(&packet).expect("asked");
        assert_eq!(asked, says, "{src} to {dst}");
    }
    let packet = Packet::new(
        Ingress::Vxlan { vni: vni(100) },
        ip("192.168.0.5"),
        ip("10.0.1.9"),
    );
    assert_eq!(world.plane.ask(&packet).expect("asked"), None);
}
