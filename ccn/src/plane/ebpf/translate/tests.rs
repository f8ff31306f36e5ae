use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::super::layout::{Permit, Slot};
use super::super::memory::heap::Heap;
use super::*;
use crate::plane::entry::{Hop, ScopeId};
use crate::plane::{self, Desired};
use crate::record::{Mac, Vni};

type Entries = BTreeMap<EntryKey, EntryValue>;
/// VTEPs and inner MACs.
type Nodes = BTreeSet<(IpAddr, [u8; 6])>;

fn vni(number: u32) -> Vni {
    Vni::new(number).expect("a VNI")
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn hop(n: u32, weight: u16) -> Hop {
    let [_, b, c, d] = n.to_be_bytes();
    Hop {
        vtep: Ipv4Addr::from_bits(0xac10_0000 + n % 64).into(),
        mac: Mac::new([2, 0, 1, b, c, d]).expect("a MAC"),
        weight,
    }
}

fn source(number: u32, subnet: &str, scope: u32) -> (EntryKey, EntryValue) {
    let (subnet, scope) = (prefix(subnet), ScopeId(vni(scope)));
    let vni = vni(number);
    (
        EntryKey::Source { vni, subnet },
        EntryValue::Source { scope },
    )
}

fn endpoint(scope: u32, addr: IpAddr, number: u32, hops: Vec<Hop>) -> (EntryKey, EntryValue) {
    let scope = ScopeId(vni(scope));
    let vni = vni(number);
    (
        EntryKey::Endpoint { scope, addr },
        EntryValue::Endpoint { vni, hops },
    )
}

fn permit(link: &str, number: u32, subnet: &str, classic: &str) -> (EntryKey, EntryValue) {
    let key = EntryKey::Permit {
        link: link.parse().expect("a link"),
        vni: vni(number),
        subnet: prefix(subnet),
        classic: prefix(classic),
    };
    let (scope, mode) = (ScopeId(vni(number)), Mode::Both);
    (
        key,
        EntryValue::Permit {
            scope,
            mode,
            dscp: None,
        },
    )
}

/// The maps as the programs see them.
#[derive(Debug, Clone, Default, PartialEq)]
struct Maps {
    cells: Found,
    globals: Globals,
}

impl Maps {
    /// Carries the changes out one by one, and looks at each step.
    fn write(&mut self, changes: Changes, mut look: impl FnMut(&Maps)) {
        look(self);
        for (cell, content) in changes.puts {
            self.cells.insert(cell, content);
            look(self);
        }
        self.globals = changes.globals;
        look(self);
        for cell in changes.deletes {
            self.cells.remove(&cell);
            look(self);
        }
    }

    fn lengths(list: &[u8]) -> impl Iterator<Item = u8> {
        list.iter()
            .copied()
            .take_while(|len| *len != super::super::layout::NO_LENGTH)
    }

    /// Where a VPC's packet for this address goes, as the programs find it: VNI and nodes.
    fn find(&self, memory: &Heap, from: u32, addr: IpAddr) -> Option<(u32, Nodes)> {
        let Some(Content::Vpc(vpc)) = self.cells.get(&Cell::Vpc { vni: from }) else {
            return None;
        };
        let list = if addr.is_ipv4() {
            vpc.subnets4
        } else {
            vpc.subnets6
        };
        let subnet = Self::lengths(&list).find_map(|len| {
            let prefix = Prefix::containing(addr, len).ok()?;
            match self.cells.get(&Cell::Subnet {
                scope: vpc.scope,
                prefix,
            })? {
                Content::Subnet(subnet) => Some(*subnet),
                _ => None,
            }
        })?;
        let place = match addr {
            IpAddr::V4(addr) => u64::from(addr.to_bits()).checked_sub(subnet.first),
            IpAddr::V6(addr) => (addr.to_bits() as u64)
                .checked_sub(subnet.first)
                .filter(|_| (addr.to_bits() >> 64) as u64 == subnet.high),
        };
        let slot = match place.filter(|place| *place < u64::from(subnet.span)) {
            Some(place) => memory.slot(subnet.base + place as u32),
            None if subnet.flags == 0 => Slot::EMPTY,
            None => match self.cells.get(&Cell::Sparse {
                vni: subnet.vni,
                addr,
            }) {
                Some(Content::Slot(slot)) => *slot,
                _ => Slot::EMPTY,
            },
        };
        let at = |slot: Slot| {
            let addr = memory
                .host(slot.host())
                .addr()
                .expect("a host that there is");
            (addr, slot.mac())
        };
        if slot == Slot::EMPTY {
            return None;
        }
        let nodes = match slot.nodes() {
            None => BTreeSet::from([at(slot)]),
            Some((base, count)) => (base..base + count).map(|n| at(memory.slot(n))).collect(),
        };
        Some((subnet.vni, nodes))
    }

    /// The permit by which the programs let a classic host reach an address.
    fn permit(&self, src: IpAddr, dst: IpAddr) -> Option<(u32, Permit)> {
        let list = if dst.is_ipv4() {
            self.globals.linked4
        } else {
            self.globals.linked6
        };
        let subnet = Self::lengths(&list).find_map(|len| {
            match self.cells.get(&Cell::Linked {
                prefix: Prefix::containing(dst, len).ok()?,
            })? {
                Content::Subnet(subnet) => Some(*subnet),
                _ => None,
            }
        })?;
        let permit = Self::lengths(&subnet.classic).find_map(|len| {
            let prefix = Prefix::containing(src, len).ok()?;
            match self.cells.get(&Cell::Classic {
                vni: subnet.vni,
                prefix,
            })? {
                Content::Permit(permit) => Some(*permit),
                _ => None,
            }
        })?;
        Some((subnet.vni, permit))
    }
}

fn nodes(hops: &[Hop]) -> Nodes {
    hops.iter().map(|hop| (hop.vtep, hop.mac.bytes())).collect()
}

/// Checks that the maps lead where the entries say, and nowhere else.
fn check(maps: &Maps, memory: &Heap, entries: &Entries, translator: &Translator<Heap>) {
    let mut endpoints = 0;
    for (key, value) in entries {
        match (key, value) {
            (EntryKey::Endpoint { addr, .. }, EntryValue::Endpoint { vni, hops }) => {
                endpoints += 1;
                let found = maps.find(memory, vni.number(), *addr);
                assert_eq!(found, Some((vni.number(), nodes(hops))), "{key}");
            }
            (
                EntryKey::Permit {
                    vni,
                    subnet,
                    classic,
                    ..
                },
                _,
            ) => {
                let found = maps.permit(classic.addr(), subnet.addr());
                assert_eq!(found.map(|(vni, _)| vni), Some(vni.number()), "{key}");
            }
            _ => {}
        }
    }
    assert_eq!(translator.addresses().endpoints(), endpoints);
    let expected: BTreeSet<Cell> = translator.cells().collect();
    let differing: Vec<_> = maps
        .cells
        .keys()
        .chain(&expected)
        .filter(|cell| translator.content(cell).as_ref() != maps.cells.get(*cell))
        .collect();
    assert_eq!(differing, Vec::<&Cell>::new());
}

fn host() -> Host {
    Host {
        globals: Globals::default(),
        own: BTreeSet::from([ip("10.0.0.1"), ip("10.77.0.1")]),
    }
}

fn batch(before: &Entries, after: &Entries) -> Batch {
    let changed = after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(*value));
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    Batch {
        upserts: changed
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        removals: gone.cloned().collect(),
        ..Batch::default()
    }
}

/// Every second endpoint stands in the list of endpoints.
fn desired(entries: &Entries) -> Desired {
    let mut desired = Desired::default();
    let mut list = Vec::new();
    for (at, (key, value)) in entries.iter().enumerate() {
        match (key, value) {
            (EntryKey::Endpoint { scope, addr }, EntryValue::Endpoint { vni, hops })
                if at % 2 == 0 =>
            {
                list.push(plane::endpoints::Endpoint {
                    scope: *scope,
                    addr: *addr,
                    vni: *vni,
                    hops: hops.clone().into(),
                });
            }
            _ => drop(desired.entries.insert(key.clone(), value.clone())),
        }
    }
    desired.endpoints = list.into();
    desired
}

/// A running plane, without a kernel.
struct Running {
    translator: Translator<Heap>,
    maps: Maps,
    entries: Entries,
}

impl Running {
    fn new() -> Running {
        let heap = Heap::new(1024, 1 << 22);
        let mut maps = Maps::default();
        let mut translator = Translator::new(host(), heap, true);
        let changes = translator.difference(&maps.cells);
        maps.write(changes, |_| {});
        translator.written();
        Running {
            translator,
            maps,
            entries: Entries::new(),
        }
    }

    fn memory(&self) -> &Heap {
        self.translator.addresses().places().memory()
    }

    /// Entries that are the same before and after, each with the VNI that looks.
    fn lasting(before: &Entries, after: &Entries) -> Vec<(u32, IpAddr, Nodes)> {
        let lasting = |(key, value): (&EntryKey, &EntryValue)| match (key, value) {
            (EntryKey::Endpoint { addr, .. }, EntryValue::Endpoint { vni, hops })
                if before.get(key) == Some(value) =>
            {
                Some((vni.number(), *addr, nodes(hops)))
            }
            _ => None,
        };
        let all: Vec<_> = after.iter().filter_map(lasting).collect();
        let step = all.len().div_ceil(40).max(1);
        all.into_iter().step_by(step).collect()
    }

    fn change(&mut self, to: Entries) -> Failures {
        let lasting = Self::lasting(&self.entries, &to);
        let failures = self.translator.apply(&batch(&self.entries, &to));
        let changes = self.translator.settle(BTreeSet::new());
        let memory = self.translator.addresses().places().memory().clone();
        self.maps.write(changes, |maps| {
            for (vni, addr, nodes) in &lasting {
                let found = maps.find(&memory, *vni, *addr);
                assert_eq!(
                    found,
                    Some((*vni, nodes.clone())),
                    "{addr} of {vni} on the way"
                );
            }
        });
        self.translator.written();
        self.entries = to;
        failures
    }

    /// Another run of the agent takes over; the numbers of operations and of stores it needs.
    fn restart(self, to: &Entries) -> (Running, usize, usize) {
        let Running {
            translator,
            mut maps,
            entries,
        } = self;
        let lasting = Self::lasting(&entries, to);
        let mut translator = Translator::new(host(), translator.into_memory(), false);
        let failures = translator.adopt(&maps.cells, &desired(to));
        assert_eq!(failures, Failures::new());
        let changes = translator.difference(&maps.cells);
        let operations = changes.puts.len() + changes.deletes.len();
        let memory = translator.addresses().places().memory().clone();
        maps.write(changes, |maps| {
            for (vni, addr, nodes) in &lasting {
                let found = maps.find(&memory, *vni, *addr);
                assert_eq!(
                    found,
                    Some((*vni, nodes.clone())),
                    "{addr} of {vni} on the way"
                );
            }
        });
        translator.written();
        let stores = translator.addresses().places().stores();
        let entries = to.clone();
        (
            Running {
                translator,
                maps,
                entries,
            },
            operations,
            stores,
        )
    }

    fn check(&self) {
        check(&self.maps, self.memory(), &self.entries, &self.translator);
    }
}

/// What one VPC has in a made-up region.
#[derive(Debug, Clone)]
struct MadeUp {
    group: u8,
    plan: u8,
    run: (u16, u16, u8),
    strays: Vec<u16>,
    slb: Option<u8>,
    classics: u8,
}

fn made_up() -> impl Strategy<Value = MadeUp> {
    let run = (0..500u16, 0..400u16, 1..6u8);
    let strays = prop::collection::vec(any::<u16>(), 0..30);
    (
        0..2u8,
        0..7u8,
        run,
        strays,
        prop::option::of(1..6u8),
        0..4u8,
    )
        .prop_map(|(group, plan, run, strays, slb, classics)| MadeUp {
            group,
            plan,
            run,
            strays,
            slb,
            classics,
        })
}

/// Entries of a region of four VPCs; two of them have the CIDRs of the other two, where they are not
/// in one group.
fn entries_of(vpcs: &[MadeUp], seed: u32) -> Entries {
    let mut entries = Entries::new();
    for (number, vpc) in (1u32..).zip(vpcs) {
        let twin = |other: u32| other % 2 == number % 2;
        let of_group = (1u32..)
            .zip(vpcs)
            .filter(|(_, other)| other.group == vpc.group);
        if of_group
            .clone()
            .any(|(other, _)| other < number && twin(other))
        {
            continue;
        }
        let scope = of_group.map(|(number, _)| number).min().unwrap_or(number);
        let net = 10 + number % 2;
        // One prefix is announced once: links of two VPCs never share a subnet.
        let linked_before = (1..number)
            .zip(vpcs)
            .any(|(other, its)| twin(other) && its.classics > 0);
        let classics = if linked_before { 0 } else { vpc.classics };
        let v4: &[&str] = match vpc.plan {
            0 => &["0.0/16"],
            1 => &["0.0/17", "128.0/17"],
            2 => &["0.0/17"],
            3 => &["0.0/24", "1.0/24", "2.0/23"],
            4 => &["0.0/20", "16.0/20"],
            5 => &["0.0/18", "64.0/18", "128.0/17"],
            _ => &[],
        };
        let mut subnets: Vec<Prefix> = v4
            .iter()
            .map(|tail| prefix(&format!("10.{net}.{tail}")))
            .collect();
        subnets.push(match vpc.plan % 2 {
            0 => prefix(&format!("fd00:{net}::/48")),
            _ => prefix(&format!("fd00:{net}:0:1::/64")),
        });
        for subnet in &subnets {
            entries.extend([source(number, &subnet.to_string(), scope)]);
            for n in 0..classics {
                let classic = match subnet.addr() {
                    IpAddr::V4(_) => format!("192.168.{n}.0/{}", 24 + n),
                    IpAddr::V6(_) => format!("2001:db8:{n}::/{}", 48 + n),
                };
                let link = format!("l{number}-{}", n % 2);
                entries.extend([permit(&link, number, &subnet.to_string(), &classic)]);
            }
        }
        let (start, count, step) = vpc.run;
        let run = (0..count).map(|n| start.wrapping_add(n.wrapping_mul(u16::from(step))));
        let numbers: BTreeSet<u16> = run.chain(vpc.strays.iter().copied()).collect();
        for n in numbers {
            let v4 = Ipv4Addr::from_bits(0x0a00_0000 | net << 16 | u32::from(n));
            let high = u128::from(
                prefix(&format!("fd00:{net}:0:1::/64"))
                    .addr()
                    .to_string()
                    .parse::<Ipv6Addr>()
                    .expect("an address"),
            );
            let v6 = Ipv6Addr::from_bits(high | u128::from(n));
            for addr in [IpAddr::from(v4), IpAddr::from(v6)] {
                if subnets.iter().any(|subnet| subnet.contains_addr(addr)) {
                    let hops = match vpc.slb {
                        Some(nodes) if n % 101 == 0 => (0..u32::from(nodes))
                            .map(|k| hop(k + u32::from(n), 1 + (k % 3) as u16))
                            .collect(),
                        _ => vec![hop(u32::from(n) ^ seed, 1)],
                    };
                    entries.extend([endpoint(scope, addr, number, hops)]);
                }
            }
        }
    }
    entries
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn after_any_history_and_on_the_way_the_maps_lead_where_the_entries_say(
        history in prop::collection::vec((prop::collection::vec(made_up(), 4), 0..3u32, any::<bool>()), 1..5),
    ) {
        let mut running = Running::new();
        for (vpcs, seed, restart) in history {
            let to = entries_of(&vpcs, seed);
            if restart {
                running = running.restart(&to).0;
            } else {
                prop_assert_eq!(running.change(to), Failures::new());
            }
            running.check();
        }
        let same = running.entries.clone();
        let (mut running, operations, stores) = running.restart(&same);
        prop_assert_eq!((operations, stores), (0, 0), "a restart changes nothing");
        prop_assert_eq!(running.change(Entries::new()), Failures::new());
        running.check();
        let addresses = running.translator.addresses();
        prop_assert_eq!((addresses.endpoints(), addresses.sparse()), (0, 0));
        prop_assert_eq!((addresses.places().hosts(), addresses.places().slots()), (0, 0));
        prop_assert_eq!((running.translator.links().used(), running.translator.counters().used()), (0, 0));
        prop_assert!(running.maps.cells.is_empty(), "{:?}", running.maps.cells);
    }
}

fn of(list: impl IntoIterator<Item = (EntryKey, EntryValue)>) -> Entries {
    list.into_iter().collect()
}

#[test]
fn one_changed_vm_is_one_store_and_no_cell() {
    let mut running = Running::new();
    let vms = |changed: u32| {
        (0..5000u32).map(move |n| {
            let addr = Ipv4Addr::from_bits(0x0a01_0000 + n).into();
            endpoint(7, addr, 7, vec![hop(if n == 77 { changed } else { n }, 1)])
        })
    };
    running.change(of([source(7, "10.1.0.0/16", 7)].into_iter().chain(vms(0))));
    let stores = running.memory().stores;
    let to = of([source(7, "10.1.0.0/16", 7)].into_iter().chain(vms(9)));
    assert_eq!(
        running.translator.apply(&batch(&running.entries, &to)),
        Failures::new()
    );
    let changes = running.translator.settle(BTreeSet::new());
    assert_eq!((changes.puts, changes.deletes), (vec![], vec![]));
    assert_eq!(running.memory().stores, stores + 1);
}

#[test]
fn addresses_of_this_host_in_a_linked_subnet_are_the_hosts() {
    let mut running = Running::new();
    let entries = of([
        source(7, "10.0.0.0/24", 7),
        permit("l1", 7, "10.0.0.0/24", "192.168.0.0/24"),
    ]);
    running.change(entries);
    let own = Cell::Linked {
        prefix: prefix("10.0.0.1/32"),
    };
    let Some(Content::Subnet(subnet)) = running.maps.cells.get(&own) else {
        panic!("{:?}", running.maps.cells);
    };
    assert_eq!(subnet.vni, 0);
    assert_eq!(running.maps.globals.linked4[..3], [32, 24, 0xff]);
    assert!(!running.maps.cells.contains_key(&Cell::Linked {
        prefix: prefix("10.77.0.1/32")
    }));
    running.change(Entries::new());
    assert!(running.maps.cells.is_empty());
    assert_eq!(running.maps.globals.linked4[0], 0xff);
}

#[test]
fn what_is_one_too_many_is_refused_by_name_and_the_rest_works() {
    let mut running = Running::new();
    let mut entries = Entries::new();
    for len in 8..=24u8 {
        let net = Prefix::containing(ip("11.0.0.0"), len)
            .expect("a length")
            .to_string();
        entries.extend([
            source(7, "10.0.0.0/24", 7),
            permit("l1", 7, "10.0.0.0/24", &net),
        ]);
    }
    entries.extend([endpoint(7, ip("10.9.0.1"), 7, vec![hop(1, 1)])]);
    let failures = running.change(entries);
    let reasons: Vec<String> = failures
        .iter()
        .map(|(key, reason)| format!("{key}: {reason}"))
        .collect();
    assert_eq!(
        reasons,
        [
            "endpoint 10.9.0.1 in scope 7: 10.9.0.1 is in no subnet of scope 7",
            "permit of link l1: vni 7 subnet 10.0.0.0/24 with 11.0.0.0/24: the ebpf plane holds classic \
         prefixes of at most 16 different lengths for a VPC; 11.0.0.0/24 is one more",
        ]
    );
    assert_eq!(
        running
            .maps
            .permit(ip("11.0.0.1"), ip("10.0.0.9"))
            .map(|(vni, _)| vni),
        Some(7)
    );
}

#[test]
fn what_goes_makes_room_for_what_comes_in_one_batch() {
    let mut running = Running::new();
    let with = |lengths: std::ops::RangeInclusive<u8>| {
        let permits = lengths.map(|len| {
            let net = Prefix::containing(ip("11.0.0.0"), len)
                .expect("a length")
                .to_string();
            permit("l1", 7, "10.0.0.0/24", &net)
        });
        of([source(7, "10.0.0.0/24", 7)].into_iter().chain(permits))
    };
    assert_eq!(running.change(with(8..=23)), Failures::new());
    assert_eq!(running.change(with(9..=24)), Failures::new());
    running.check();
}

#[test]
fn a_link_keeps_its_counter_over_a_restart() {
    let mut running = Running::new();
    let entries = of([
        source(7, "10.0.0.0/24", 7),
        source(8, "10.0.1.0/24", 8),
        permit("a", 7, "10.0.0.0/24", "192.168.0.0/24"),
        permit("b", 8, "10.0.1.0/24", "192.168.0.0/24"),
    ]);
    running.change(entries.clone());
    let without: Entries = entries
        .iter()
        .filter(|(key, _)| !matches!(key, EntryKey::Permit { link, .. } if link.as_str() == "a"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    running.change(without.clone());
    let before = running.translator.links().of(&"b".parse().expect("a link"));
    let (running, operations, _) = running.restart(&without);
    assert_eq!(operations, 0);
    assert_eq!(
        running.translator.links().of(&"b".parse().expect("a link")),
        before
    );
    let (running, ..) = running.restart(&entries);
    let numbers: BTreeSet<u32> = running
        .translator
        .links()
        .iter()
        .map(|(_, number)| number)
        .collect();
    assert_eq!(numbers.len(), 2);
}

#[test]
fn a_forecast_is_what_permits_take() {
    let mut running = Running::new();
    let mut entries = of([
        source(7, "10.0.0.0/24", 7),
        source(8, "10.0.1.0/25", 8),
        source(8, "fd00::/64", 8),
    ]);
    running.change(entries.clone());
    for (permits, objects) in [
        (
            vec![permit("a", 7, "10.0.0.0/24", "192.168.0.0/24")],
            [1, 1, 1],
        ),
        // The same classic prefix of another VPC is another object.
        (
            vec![
                permit("a", 7, "10.0.0.0/24", "192.168.0.0/16"),
                permit("b", 8, "10.0.1.0/25", "192.168.0.0/24"),
                permit("b", 8, "fd00::/64", "fd80::/48"),
            ],
            [1, 3, 2],
        ),
        (
            vec![permit("c", 8, "10.0.1.0/25", "192.168.0.0/24")],
            [1, 0, 0],
        ),
    ] {
        let permits = of(permits);
        let forecast = running.translator.forecast(&permits);
        let kinds = ["link counters", "classic prefixes", "linked subnets"];
        let counts = kinds.map(|kind| forecast.objects.get(kind).copied().unwrap_or(0));
        assert_eq!(counts, objects, "{permits:?}");
        entries.extend(permits);
        assert_eq!(running.change(entries.clone()), Failures::new());
        assert_eq!(running.translator.limits(), forecast.limits);
    }
}
