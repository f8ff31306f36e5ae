//! The `ebpf` plane against the real kernel, each test in a network namespace and with pins of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use bgp::Prefix;
use ccn::config::{PlaneConfig, PlaneKind};
use ccn::plane::ebpf::EbpfPlane;
use ccn::plane::ebpf::layout::{KINDS, LAYOUT_VERSION};
use ccn::plane::ebpf::sys::{self, Map};
use ccn::plane::entry::{EntryKey, EntryValue, Hop, ScopeId};
use ccn::plane::model::{Ingress, Packet};
use ccn::plane::routes::RoutesPlane;
use ccn::plane::witness::Witness;
use ccn::plane::{Applied, Batch, Desired, Plane};
use ccn::record::{Mac, Mode, Vni};
use netlink::{
    Address, BpfFilter, FilterPlace, Hook, LinkChange, Namespace, NewLink, Request, RouteFilter,
    Socket,
};

mod traffic;

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

fn config(bpffs: &Path) -> PlaneConfig {
    PlaneConfig {
        kind: PlaneKind::Ebpf,
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
        bpffs: bpffs.to_owned(),
    }
}

/// A directory for pins, which goes with the test.
struct Pins(PathBuf);

impl Pins {
    fn new() -> Pins {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        Pins(format!("/sys/fs/bpf/ccn-test-{}-{next}", std::process::id()).into())
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a test in a namespace with an underlay and an IDC side.
fn in_namespace(test: impl FnOnce(&mut Socket, &PlaneConfig) + Send) {
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
            let pins = Pins::new();
            test(&mut socket, &config(&pins.0));
        })
        .expect("enter");
}

fn source(number: u32, subnet: &str, scope: u32) -> (EntryKey, EntryValue) {
    let key = EntryKey::Source {
        vni: vni(number),
        subnet: prefix(subnet),
    };
    let scope = ScopeId(vni(scope));
    (key, EntryValue::Source { scope })
}

fn endpoint(scope: u32, addr: IpAddr, number: u32, hops: &[(u32, u16)]) -> (EntryKey, EntryValue) {
    let hop = |&(n, weight): &(u32, u16)| Hop {
        vtep: Ipv4Addr::from(0xac10_0100 + n % 200).into(),
        mac: Mac::new([2, 1, 0, (n >> 16) as u8, (n >> 8) as u8, n as u8]).expect("a MAC"),
        weight,
    };
    let key = EntryKey::Endpoint {
        scope: ScopeId(vni(scope)),
        addr,
    };
    let hops = hops.iter().map(hop).collect();
    let vni = vni(number);
    (key, EntryValue::Endpoint { vni, hops })
}

fn permit(link: &str, number: u32, subnet: &str, classic: &str) -> (EntryKey, EntryValue) {
    let key = EntryKey::Permit {
        link: link.parse().expect("a link id"),
        vni: vni(number),
        subnet: prefix(subnet),
        classic: prefix(classic),
    };
    let value = EntryValue::Permit {
        scope: ScopeId(vni(number)),
        mode: Mode::Both,
        dscp: None,
    };
    (key, value)
}

/// `endpoints` addresses in one VPC, an SLB, IPv6, another scope with the same addresses, two links,
/// learned routes.
fn region(endpoints: u32) -> Desired {
    let mut entries: BTreeMap<EntryKey, EntryValue> = BTreeMap::from([
        source(100, "192.168.0.0/16", 100),
        source(100, "fd00:1::/64", 100),
        source(101, "10.101.0.0/16", 100),
        source(200, "192.168.0.0/16", 200),
        permit("l1", 100, "192.168.0.0/16", "10.0.0.0/16"),
        permit("l1", 100, "fd00:1::/64", "2001:db8:1::/48"),
        permit("l2", 101, "10.101.0.0/16", "10.0.0.0/16"),
        endpoint(100, ip("192.168.255.1"), 100, &[(1, 1), (2, 3), (3, 256)]),
        endpoint(100, ip("fd00:1::80"), 100, &[(1, 1), (2, 3)]),
        endpoint(100, ip("fd00:1::5"), 100, &[(4, 1)]),
        endpoint(100, ip("fd00:1::5:0:0:1"), 100, &[(4, 1)]),
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

fn ready(config: &PlaneConfig) -> EbpfPlane {
    let mut plane = EbpfPlane::new(config);
    plane.prepare().expect("prepared");
    plane
}

fn resync(plane: &mut dyn Plane, desired: &Desired) -> usize {
    clean(&plane.resync(desired).expect("resynced"))
}

/// Numbers of the programs on a link.
fn programs(socket: &mut Socket, name: &str) -> Vec<u32> {
    let link = socket.link(name).expect("ask").expect("there");
    let filters = socket.filters(link.index, Hook::Ingress).expect("filters");
    let filters = filters.into_iter().filter_map(|filter| filter.program);
    let mut programs = sys::programs_on(link.index).expect("programs");
    programs.extend(filters.map(|program| program.id));
    programs
}

/// Takes the program from a link, as `bpftool link detach` does, or before Linux 6.6 with the qdisc that it is on.
fn take_program_away(socket: &mut Socket, config: &PlaneConfig, ifindex: u32) {
    let of_device = std::fs::read_dir(&config.bpffs).expect("pins").next();
    let links = of_device
        .expect("a device")
        .expect("read")
        .path()
        .join("links");
    let pin = links.join(ifindex.to_string());
    match pin.exists() {
        true => {
            let attached = sys::Attached::open(&pin).expect("pinned");
            attached.detach().expect("detached");
        }
        false => socket
            .request(Request::delete_clsact(ifindex))
            .expect("gone"),
    }
}

#[test]
fn ten_thousand_endpoints_survive_a_restart_without_one_operation() {
    in_namespace(|socket, config| {
        let desired = region(10_000);
        let mut plane = EbpfPlane::new(config);
        assert!(!plane.prepare().expect("prepared").adopted);
        assert!(resync(&mut plane, &desired) > 10_000);
        let before = plane.dump().expect("a dump");
        let running = (programs(socket, "idc0"), programs(socket, "ccn0"));
        assert_eq!((running.0.len(), running.1.len()), (1, 1));
        assert_eq!(resync(&mut plane, &desired), 0, "the same again");
        drop(plane);

        let mut plane = EbpfPlane::new(config);
        assert!(plane.prepare().expect("prepared").adopted);
        assert_eq!(resync(&mut plane, &desired), 0, "after a restart");
        assert_eq!(plane.dump().expect("a dump"), before);
        let after = (programs(socket, "idc0"), programs(socket, "ccn0"));
        assert_eq!(after, running, "an equal program stays");
    });
}

#[test]
fn one_changed_vm_is_one_operation() {
    in_namespace(|_, config| {
        let mut plane = ready(config);
        resync(&mut plane, &region(5_000));
        let moved = endpoint(100, ip("192.168.3.4"), 100, &[(77, 1)]);
        let batch = Batch {
            generation: 2,
            upserts: BTreeMap::from([moved]),
            verify: true,
            ..Batch::default()
        };
        assert_eq!(clean(&plane.apply(&batch).expect("applied")), 1);
        assert_eq!(clean(&plane.apply(&batch).expect("applied")), 0);
    });
}

#[test]
fn more_addresses_than_there_are_slots_get_more_slots_and_a_restart_finds_them() {
    in_namespace(|socket, config| {
        let mut plane = EbpfPlane::with_slots(config, 8192);
        plane.prepare().expect("prepared");
        resync(&mut plane, &region(10));
        let before = programs(socket, "ccn0");
        let desired = region(6000);
        let batch = Batch {
            generation: 2,
            upserts: desired.entries.clone(),
            verify: true,
            ..Batch::default()
        };
        assert!(clean(&plane.apply(&batch).expect("applied")) > 5_000);
        assert_ne!(programs(socket, "ccn0"), before, "they read a larger map");
        let packet = Packet::new(Ingress::Idc, ip("10.0.1.9"), ip("192.168.23.111"));
        let said = plane.ask(&packet).expect("asked");
        assert!(
            matches!(said, Some(Witness::Encapsulate { .. })),
            "{said:?}"
        );
        drop(plane);
        let mut plane = ready(config);
        assert_eq!(resync(&mut plane, &desired), 0);
    });
}

/// Where the maps of the one device below these pins are.
fn directory(config: &PlaneConfig) -> PathBuf {
    let mut devices = std::fs::read_dir(&config.bpffs).expect("pins");
    devices.next().expect("a device").expect("a name").path()
}

#[test]
fn another_layout_is_filled_beside_the_old_one_and_keeps_the_flows() {
    in_namespace(|socket, config| {
        let desired = region(100);
        let mut plane = ready(config);
        resync(&mut plane, &desired);
        let dump = plane.dump().expect("a dump");
        drop(plane);
        let (ours, other) = (
            directory(config).join(format!("v{LAYOUT_VERSION}")),
            directory(config).join("v0"),
        );
        std::fs::rename(&ours, &other).expect("renamed");
        let id = |name: &str| Map::open(&ours.join(name)).expect("pinned").id();
        let flows = Map::open(&other.join("flows")).expect("pinned").id();
        let slots = Map::open(&other.join("slots")).expect("pinned").id();
        let before = programs(socket, "ccn0");

        let mut plane = ready(config);
        assert_eq!(
            programs(socket, "ccn0"),
            before,
            "it goes on until the new maps are filled"
        );
        assert!(resync(&mut plane, &desired) > 100);
        assert_ne!(programs(socket, "ccn0"), before);
        assert_eq!(plane.dump().expect("a dump"), dump);
        assert_eq!(id("flows"), flows);
        assert_ne!(id("slots"), slots);
        assert!(!other.exists());
    });
}

#[test]
fn maps_that_are_full_get_more_room_and_a_restart_finds_it() {
    in_namespace(|socket, config| {
        let mut desired = region(10);
        let mut plane = ready(config);
        resync(&mut plane, &desired);
        let entries = |name: &str| {
            let path = directory(config)
                .join(format!("v{LAYOUT_VERSION}"))
                .join(name);
            Map::open(&path).expect("pinned").shape().entries
        };
        let names = ["sparse", "link_counters", "vpc_counters", "classics4"];
        let before = names.map(entries);
        let mut more: BTreeMap<EntryKey, EntryValue> = BTreeMap::new();
        // Too far from one another for a window.
        for n in 0..u128::from(before[0]) + 10 {
            let addr = 0xfd00_0001_0000_0000_0001_0000_0000_0000 + (n << 24);
            more.extend([endpoint(
                100,
                std::net::Ipv6Addr::from(addr).into(),
                100,
                &[(1, 1)],
            )]);
        }
        // Of each number they have an element for each kind and processor.
        let elements = KINDS * sys::cpus().expect("counted");
        // More than there are counters, and more than fit into the first buckets.
        for n in 0..(before[1] / elements).max(3 * before[3]) + 10 {
            let classic = format!("{}/32", Ipv4Addr::from(0x0b00_0000 + n));
            more.extend([permit(&format!("many{n}"), 100, "192.168.0.0/16", &classic)]);
        }
        for n in 0..before[2] / elements + 10 {
            let subnet = Ipv4Addr::from(0x6440_0000 + (n << 4));
            more.extend([source(1000 + n, &format!("{subnet}/28"), 1000 + n)]);
        }
        let batch = Batch {
            generation: 2,
            upserts: more.clone(),
            verify: true,
            ..Batch::default()
        };
        let programs_before = programs(socket, "idc0");
        clean(&plane.apply(&batch).expect("applied"));
        assert_ne!(programs(socket, "idc0"), programs_before);
        for (name, before) in names.into_iter().zip(before) {
            assert!(entries(name) > before, "{name}");
        }
        desired.entries.extend(more);
        assert_eq!(resync(&mut plane, &desired), 0);
        drop(plane);
        assert_eq!(resync(&mut ready(config), &desired), 0);
    });
}

#[test]
fn an_interface_that_is_configured_no_more_has_no_program() {
    in_namespace(|socket, config| {
        let desired = region(10);
        resync(&mut ready(config), &desired);
        assert_eq!(programs(socket, "under0").len(), 1);
        let config = PlaneConfig {
            underlay_interfaces: Some(Vec::new()),
            ..config.clone()
        };
        assert!(resync(&mut ready(&config), &desired) > 0);
        assert_eq!(programs(socket, "under0"), Vec::<u32>::new());
        assert_eq!(programs(socket, "idc0").len(), 1);
        assert_eq!(resync(&mut ready(&config), &desired), 0);
    });
}

#[test]
fn as_many_flows_are_remembered_as_is_configured() {
    in_namespace(|_, config| {
        let desired = region(10);
        resync(&mut ready(config), &desired);
        let entries = || {
            let path = directory(config)
                .join(format!("v{LAYOUT_VERSION}"))
                .join("flows");
            Map::open(&path).expect("pinned").shape().entries
        };
        assert_eq!(entries(), config.max_flows);
        let config = PlaneConfig {
            max_flows: 2048,
            ..config.clone()
        };
        assert!(resync(&mut ready(&config), &desired) > 0);
        assert_eq!(entries(), 2048);
        assert_eq!(resync(&mut ready(&config), &desired), 0);
    });
}

/// On kernels whose programs can ask a table by its number (Linux 6.5).
#[test]
fn without_the_program_nothing_of_a_vpc_is_routed() {
    in_namespace(|socket, config| {
        resync(&mut ready(config), &region(10));
        let ccn = socket.link("ccn0").expect("ask").expect("there");
        for (vm, classic) in [("192.168.0.1", "10.0.1.1"), ("fd00:1::5", "2001:db8:1::1")] {
            let found = socket.lookup(ip(vm), ip(classic), ccn.index);
            assert!(found.is_err(), "{vm} to {classic}: {found:?}");
        }
    });
}

#[test]
fn what_a_foreign_hand_took_away_is_put_back() {
    in_namespace(|socket, config| {
        let desired = region(100);
        let mut plane = ready(config);
        resync(&mut plane, &desired);
        let before = plane.dump().expect("a dump");
        let idc = socket.link("idc0").expect("ask").expect("there");
        take_program_away(socket, config, idc.index);
        let rule = socket.rules(Some(PROTOCOL)).expect("rules").remove(0);
        socket.request(Request::delete_rule(rule)).expect("gone");
        let look = Batch {
            generation: 1,
            verify: true,
            ..Batch::default()
        };
        assert!(clean(&plane.apply(&look).expect("applied")) >= 2);
        assert_eq!(plane.dump().expect("a dump"), before);
        let ccn = socket.link("ccn0").expect("ask").expect("there");
        socket
            .request(Request::delete_link(ccn.index))
            .expect("gone");
        assert!(resync(&mut plane, &desired) > 0);
        assert_eq!(programs(socket, "ccn0").len(), 1);
    });
}

#[test]
#[allow(
    clippy::print_stderr,
    reason = "who reads the test's output is to know that nothing was tested"
)]
fn a_filter_of_an_earlier_version_makes_way() {
    in_namespace(|socket, config| {
        let desired = region(100);
        let mut plane = ready(config);
        resync(&mut plane, &desired);
        drop(plane);
        let idc = socket.link("idc0").expect("ask").expect("there");
        let ccn = socket.link("ccn0").expect("ask").expect("there");
        // Another program than is to be there now.
        let Some(id) = sys::programs_on(ccn.index).expect("asked").pop() else {
            eprintln!("left out: before Linux 6.6 programs are filters for good");
            return;
        };
        let program = sys::program(id).expect("it is there");
        take_program_away(socket, config, idc.index);
        assert!(programs(socket, "idc0").is_empty());
        for request in [
            Request::add_clsact(idc.index),
            Request::replace_filter(BpfFilter {
                place: FilterPlace {
                    ifindex: idc.index,
                    hook: Hook::Ingress,
                    priority: 0xcc,
                    handle: 1,
                },
                program: program.as_raw_fd(),
                name: "ccn from_idc".to_owned(),
            }),
        ] {
            socket.request(request).expect("a filter");
        }
        let mut plane = ready(config);
        // The program, and the filter.
        assert_eq!(resync(&mut plane, &desired), 2);
        let filters = socket.filters(idc.index, Hook::Ingress).expect("filters");
        assert_eq!(filters, []);
        assert_eq!(sys::programs_on(idc.index).expect("asked").len(), 1);
        assert_eq!(resync(&mut plane, &desired), 0, "the same again");
    });
}

#[test]
fn an_agent_that_pins_elsewhere_takes_the_place_of_the_programs_that_are_there() {
    in_namespace(|socket, config| {
        let desired = region(100);
        resync(&mut ready(config), &desired);
        let elsewhere = Pins::new();
        let config = &PlaneConfig {
            bpffs: elsewhere.0.clone(),
            ..config.clone()
        };
        let mut plane = ready(config);
        resync(&mut plane, &desired);
        let links = ["idc0", "under0", "ccn0"];
        assert_eq!(links.map(|link| programs(socket, link).len()), [1; 3]);
        assert_eq!(resync(&mut plane, &desired), 0, "the same again");
        plane.remove().expect("removed");
        let links = ["idc0", "under0"];
        assert_eq!(links.map(|link| programs(socket, link).len()), [0; 2]);
    });
}

#[test]
fn removal_leaves_no_trace_and_nothing_of_others() {
    in_namespace(|socket, config| {
        let other = socket.link("lo").expect("ask").expect("there");
        socket
            .request(Request::add_clsact(other.index))
            .expect("a qdisc of another");
        let mut plane = ready(config);
        resync(&mut plane, &region(100));
        drop(plane);
        let mut plane = EbpfPlane::new(config);
        plane.remove().expect("removed");
        assert!(socket.link("ccn0").expect("ask").is_none());
        let idc = socket.link("idc0").expect("ask").expect("there");
        let under = socket.link("under0").expect("ask").expect("there");
        assert!(!socket.has_clsact(idc.index).expect("asked"));
        assert!(!socket.has_clsact(under.index).expect("asked"));
        assert!(socket.has_clsact(other.index).expect("asked"));
        let ours = RouteFilter {
            protocol: Some(PROTOCOL),
            ..RouteFilter::default()
        };
        assert_eq!(socket.routes(&ours).expect("routes"), []);
        assert_eq!(socket.rules(Some(PROTOCOL)).expect("rules"), []);
        assert!(!config.bpffs.exists());
        plane.remove().expect("removed again");
    });
}

#[test]
fn a_gateway_is_switched_from_routes_to_ebpf_and_back() {
    in_namespace(|socket, config| {
        let desired = region(100);
        let mut routes = RoutesPlane::new(config);
        routes.prepare().expect("prepared");
        resync(&mut routes, &desired);
        drop(routes);
        let mut plane = EbpfPlane::new(config);
        assert!(plane.prepare().expect("prepared").adopted);
        resync(&mut plane, &desired);
        assert_eq!(resync(&mut plane, &desired), 0);
        // Of each family: from the IDC, what is marked, what is not (before Linux 6.5: two).
        assert_eq!(socket.rules(Some(PROTOCOL)).expect("rules").len(), 6);
        let links = socket.links().expect("links");
        let drops: Vec<_> = links
            .iter()
            .filter(|link| link.name.starts_with("ccn-d-"))
            .collect();
        assert!(drops.is_empty(), "{drops:?}");
        drop(plane);
        let mut routes = RoutesPlane::new(config);
        assert!(routes.prepare().expect("prepared").adopted);
        resync(&mut routes, &desired);
        assert_eq!(resync(&mut routes, &desired), 0);
        assert!(!config.bpffs.exists());
        assert_eq!(
            (programs(socket, "idc0"), programs(socket, "ccn0")),
            (vec![], vec![])
        );
    });
}

#[test]
fn the_kernel_says_what_it_would_do_with_a_packet() {
    in_namespace(|_, config| {
        let mut plane = ready(config);
        resync(&mut plane, &region(10));
        let vxlan = |number| Ingress::Vxlan { vni: vni(number) };
        let table = [
            (
                Ingress::Idc,
                "10.0.1.9",
                "192.168.0.5",
                "encapsulate with VNI 100 to 172.16.1.5, inner MAC 02:01:00:00:00:05",
            ),
            (
                Ingress::Idc,
                "2001:db8:1::9",
                "fd00:1::5",
                "encapsulate with VNI 100 to 172.16.1.4, inner MAC 02:01:00:00:00:04",
            ),
            (
                Ingress::Idc,
                "2001:db8:1::9",
                "fd00:1::5:0:0:1",
                "encapsulate with VNI 100 to 172.16.1.4, inner MAC 02:01:00:00:00:04",
            ),
            (
                Ingress::Idc,
                "10.0.1.9",
                "192.168.77.5",
                "drop: no-such-endpoint",
            ),
            (
                Ingress::Idc,
                "10.9.1.9",
                "192.168.0.5",
                "drop: not-linked-source",
            ),
            (Ingress::Idc, "10.0.1.9", "192.169.0.5", "drop: not-linked"),
            (
                Ingress::Idc,
                "10.0.1.9",
                "10.255.0.1",
                "leave it to the gateway itself",
            ),
            (
                vxlan(100),
                "192.168.0.5",
                "10.0.1.9",
                "forward by idc0 via 10.255.0.2",
            ),
            (
                vxlan(100),
                "192.168.0.5",
                "10.0.9.9",
                "forward by idc0 via 10.255.0.2",
            ),
            (
                vxlan(100),
                "fd00:1::5",
                "2001:db8:1::9",
                "forward by idc0 via 2001:db8:ff::",
            ),
            (
                vxlan(100),
                "192.168.0.5",
                "10.101.0.5",
                "encapsulate with VNI 101 to 172.16.1.5, inner MAC 02:01:00:00:00:05",
            ),
            (
                vxlan(200),
                "192.168.0.5",
                "192.168.0.5",
                "encapsulate with VNI 200 to 172.16.1.6, inner MAC 02:01:00:00:00:06",
            ),
            (vxlan(200), "192.168.0.5", "10.0.1.9", "drop: no-link"),
            (vxlan(100), "10.0.1.9", "192.168.0.5", "drop: bad-source"),
            (vxlan(300), "10.0.1.9", "192.168.0.5", "drop: unknown-vni"),
        ];
        for (ingress, src, dst, says) in table {
            let packet = Packet::new(ingress, ip(src), ip(dst));
            let said = plane
                .ask(&packet)
                .expect("asked")
                .map(|witness| witness.to_string());
            let said = said.unwrap_or_default();
            assert!(said.starts_with(says), "{src} to {dst}: {said}, not {says}");
        }
        let counters = plane.counters().expect("counters");
        assert!(
            counters.drops.values().all(|count| count.packets == 0),
            "{counters:?}"
        );
    });
}

#[test]
fn counters_and_limits_have_names() {
    in_namespace(|_, config| {
        let mut plane = ready(config);
        resync(&mut plane, &region(10));
        let counters = plane.counters().expect("counters");
        assert_eq!(counters.drops.len(), 14);
        assert_eq!(counters.encapsulated.packets, 0);
        let limits = plane.limits();
        let used = |name: &str| {
            limits
                .iter()
                .find(|limit| limit.name == name)
                .map(|limit| limit.used)
        };
        assert_eq!(
            (used("vpcs"), used("links"), used("subnets-ipv4")),
            (Some(3), Some(2), Some(3))
        );
    });
}
