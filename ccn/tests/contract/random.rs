//! Random regions and packets, by seed: what the model says must become of a packet is what every
//! plane must do. What differs is cut down to the records and parts of the packet that it takes.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bgp::Prefix;
use ccn::plane::model::{DropReason, Ingress, Trace, Verdict};
use ccn::record::GroupName;
use serde_json::{Value, json};

use crate::judge::{self, Mind};
use crate::packet::{ACK, Ip, SYN, Upper, ip, other, ping, pong, tcp, udp, unreachable};
use crate::region::{Region, Router};
use crate::row::{Arrival, By, Expect, Place, Sent, idc, row, vxlan};
use crate::world::{Subject, World};

/// Packets a region.
const PACKETS: usize = 150;
const SUBNETS: [&str; 7] = [
    "10.1.0.0/24",
    "10.1.1.0/24",
    "10.1.2.0/25",
    "10.1.2.128/25",
    "10.2.0.0/16",
    "fd00:1::/64",
    "fd00:2::/48",
];
const CLASSIC: [&str; 8] = [
    "10.80.0.0/16",
    "10.80.1.0/24",
    "10.80.1.128/25",
    "10.80.1.130/32",
    "10.81.0.0/24",
    "10.2.128.0/17",
    "fd80::/16",
    "fd80:1::/64",
];
const ROUTES: [&str; 8] = [
    "10.80.0.0/16",
    "10.80.1.0/24",
    "10.80.1.128/26",
    "10.80.1.130/32",
    "10.81.0.0/24",
    "0.0.0.0/0",
    "fd80::/16",
    "fd80:1::/64",
];
/// Inside and outside of all of these.
const ADDRS: [&str; 22] = [
    "10.1.0.5",
    "10.1.0.6",
    "10.1.1.5",
    "10.1.1.7",
    "10.1.2.5",
    "10.1.2.130",
    "10.2.0.5",
    "10.2.200.5",
    "10.80.0.9",
    "10.80.1.9",
    "10.80.1.129",
    "10.80.1.130",
    "10.81.0.9",
    "10.90.0.9",
    "192.0.2.1",
    "fd00:1::5",
    "fd00:1::6",
    "fd00:2:0:7::5",
    "fd80:1::9",
    "fd80:2::9",
    "fd90::9",
    "2001:db8:9::1",
];
/// SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let n = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.roll() % most as u64) as usize
    }

    /// True once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn some<T: Copy>(&mut self, of: &[T], one_in: usize) -> Vec<T> {
        of.iter()
            .copied()
            .filter(|_| self.once_in(one_in))
            .collect()
    }
}

/// A region in which much overlaps; `marked` has links that not every plane takes.
pub(crate) fn region(dice: &mut Dice, marked: bool) -> Region {
    let name = format!("random {:#x}", dice.0);
    // Of its own, so that no plane remembers a flow of another seed.
    let first = 1000 + (dice.roll() % 1_000_000) as u32 * 8;
    let mut region = Region::new(&name).idc_mtu(dice.one(&[1500, 1500, 1400]));
    region.vnis = (first..first + 6).collect();
    if dice.once_in(4) {
        region = region.over_ipv6();
    }
    let vpcs = 3 + dice.below(3);
    for (number, vni) in region.vnis.clone().iter().take(vpcs).enumerate() {
        let id = format!("v{number}");
        let mut subnets = dice.some(&SUBNETS, 3);
        subnets.push(dice.one(&SUBNETS));
        subnets.sort_unstable();
        subnets.dedup();
        let mut free: Vec<&str> = ADDRS
            .into_iter()
            .filter(|addr| is_in(addr, &subnets))
            .collect();
        region = region.vpc(&id, *vni, &subnets);
        for vm in 0..1 + dice.below(4) {
            let Some(addr) = free.pop() else { break };
            let addrs = [Some(addr), free.pop_if(|_| dice.once_in(3))];
            let addrs: Vec<&str> = addrs.into_iter().flatten().collect();
            region = region.vm(&format!("{id}-{vm}"), &id, &addrs, 2 + dice.below(28) as u8);
        }
        if let Some(vip) = free.pop() {
            let nodes = dice.some(&[(31, 1), (32, 2), (33, 1)], 2);
            region = region.slb(&format!("s{number}"), &id, &[vip], &nodes);
        }
        for link in 0..1 + dice.below(3) {
            let mut classic = dice.some(&CLASSIC, 4);
            classic.push(dice.one(&CLASSIC));
            classic.sort_unstable();
            classic.dedup();
            let mut value = json!({"vpc": id, "classic": classic});
            if marked {
                if dice.once_in(2) {
                    value["mode"] = json!("classic-to-vpc");
                }
                if dice.once_in(2) {
                    value["dscp"] = json!(dice.below(64));
                }
            }
            if dice.once_in(8) {
                value["group"] = json!("west");
            }
            region = region.link(&format!("l{number}-{link}"), value);
        }
    }
    let split = dice.below(vpcs + 1);
    let ids: Vec<String> = (0..vpcs).map(|number| format!("v{number}")).collect();
    for (ccsi, members) in [("a", &ids[..split]), ("b", &ids[split..])] {
        if dice.once_in(4) {
            continue;
        }
        region = region.record(&format!("ccsis/{ccsi}"), json!({ "vpcs": members }));
    }
    for route in ROUTES {
        if dice.once_in(4) {
            continue;
        }
        let routers = match dice.below(3) {
            0 => vec![Router(2), Router(3)],
            number => vec![Router(1 + number as u8)],
        };
        region = region.learned(route, &routers);
    }
    sound(region)
}

fn is_in<P: AsRef<str>>(addr: &str, prefixes: &[P]) -> bool {
    let addr = ip(addr);
    let mut prefixes = prefixes
        .iter()
        .map(|prefix| prefix.as_ref().parse::<Prefix>());
    prefixes.any(|prefix| prefix.is_ok_and(|prefix| prefix.contains_addr(addr)))
}

/// Without the records that cannot stand beside the others.
fn sound(mut region: Region) -> Region {
    loop {
        let faults = region.faults();
        if faults.is_empty() {
            return region;
        }
        for key in faults {
            region.records.remove(&key);
        }
        let kept = &region.records;
        region.vms.retain(|vm| {
            kept.keys()
                .any(|key| key.ends_with(&format!("/{}", vm.name)))
        });
    }
}

/// A VNI and two addresses of one family, of which the first is the sender's: those of a link, of VMs,
/// or any.
fn ends(dice: &mut Dice, region: &Region, inward: bool) -> (u32, IpAddr, IpAddr) {
    let inside = &region.ends;
    let links = region
        .records
        .iter()
        .filter(|(key, _)| key.starts_with("links/l"));
    let links: Vec<&Value> = links.map(|(_, link)| link).collect();
    let (mut vni, mut near) = inside[dice.below(inside.len())];
    let mut far = match dice.below(10) {
        0..7 if !links.is_empty() => {
            let link = links[dice.below(links.len())];
            let classic = link["classic"].as_array().cloned().unwrap_or_default();
            let classic: Vec<&str> = classic.iter().filter_map(Value::as_str).collect();
            let known: Vec<&str> = ADDRS
                .into_iter()
                .filter(|addr| is_in(addr, &classic))
                .collect();
            let far = known
                .get(dice.below(known.len().max(1)))
                .map_or(near, |addr| ip(addr));
            let number = link["vpc"]
                .as_str()
                .and_then(|id| id[1..].parse::<usize>().ok());
            let linked = number.map(|number| region.vnis[number]);
            let mine = inside
                .iter()
                .filter(|(vni, addr)| Some(*vni) == linked && addr.is_ipv4() == far.is_ipv4());
            let mine: Vec<_> = mine.copied().collect();
            if !mine.is_empty() {
                (vni, near) = dice.one(&mine);
            }
            far
        }
        7 | 8 if !inward => inside[dice.below(inside.len())].1,
        _ => ip(dice.one(&ADDRS)),
    };
    if dice.once_in(10) {
        near = ip(dice.one(&ADDRS));
    }
    if near.is_ipv4() != far.is_ipv4() {
        far = ip(if near.is_ipv4() {
            "10.80.1.9"
        } else {
            "fd80:1::9"
        });
    }
    let vni = if dice.once_in(20) {
        dice.one(&region.vnis)
    } else {
        vni
    };
    if inward {
        (vni, far, near)
    } else {
        (vni, near, far)
    }
}

/// A packet, mostly one that means something in the region.
pub(crate) fn packet(dice: &mut Dice, region: &Region) -> Sent {
    let inward = dice.once_in(2);
    let (vni, src, dst) = ends(dice, region, inward);
    let (src, dst) = (src.to_string(), dst.to_string());
    let ports = dice.one(&[1001, 1002, 1003]);
    let ports = if inward { (ports, 7000) } else { (7000, ports) };
    let mut ip = match dice.below(8) {
        0 => tcp(&src, &dst, if inward { SYN } else { ACK }).ports(ports.0, ports.1),
        1 => ping(&src, &dst),
        2 => pong(&src, &dst),
        3 => other(&src, &dst, 47),
        4 => unreachable(&src, udp(&dst, &src).ports(ports.1, ports.0)),
        _ => udp(&src, &dst).ports(ports.0, ports.1),
    };
    if dice.once_in(8) {
        ip = ip.hops(dice.one(&[1, 2, 255]));
    }
    if dice.once_in(4) {
        ip = ip.dscp(dice.below(64) as u8).ecn(dice.below(4) as u8);
    }
    let v4 = ip.src.is_ipv4();
    match dice.below(12) {
        0 if !inward => ip = ip.length(dice.one(&[1400, 1401, 1450])),
        1 if inward => ip = ip.length(dice.one(&[1450, 1451, 1500]).min(region.idc_mtu)),
        2 if v4 && !inward => ip = ip.length(dice.one(&[1401, 1450])).may_fragment(),
        3 if v4 && inward => ip = ip.length(region.idc_mtu).may_fragment(),
        6 if v4 => ip = ip.options(&[1; 8]),
        4 => ip = ip.fragment(96, dice.once_in(2)).length(192),
        5 if !v4 => ip = ip.extension(60, 1),
        _ => {}
    }
    match inward {
        true => idc(ip),
        false => vxlan(vni, ip),
    }
}

/// What must become of a packet on a plane, by what the model says and what the plane is documented
/// to do; nothing if there is no telling.
fn expected(by: By, region: &Region, sent: &Sent, trace: &Trace) -> Option<Expect> {
    let ip = sent.ip();
    let routes = by == By::Routes;
    let octets = sent.octets(0).1.len();
    let mut arrival = Arrival::at(Place::Router(Router(2)));
    let places: Vec<Place> = match &trace.verdict {
        Verdict::Encapsulate { vni, hops } => {
            arrival.in_fragments = octets > region.mtu();
            hops.iter().map(|hop| Place::Hop(*vni, *hop)).collect()
        }
        Verdict::Forward { next_hops, .. } => {
            arrival.in_fragments = octets > region.idc_mtu;
            let routers = next_hops.iter().filter_map(|hop| region.router(*hop));
            routers.map(Place::Router).collect()
        }
        Verdict::Drop { reason, answer } => {
            let aged = *reason == DropReason::TtlExceeded;
            return match answer {
                // The kernel looks at the TTL before it leads a packet to the device that counts.
                None if routes && ip.hops <= 1 && !aged => None,
                None if routes && (aged || *reason == DropReason::TooBig) => Some(Expect::Lost),
                None => Some(Expect::Drop(*reason)),
                Some(answer) => match hears(region, sent) {
                    Hears::Unsure => None,
                    Hears::IfTold if routes => Some(Expect::Lost),
                    _ => Some(Expect::Answer(*answer)),
                },
            };
        }
    };
    if ip.ecn == 3 {
        arrival.outer_ecn = Some(2);
    }
    let own = trace.link.as_ref().and_then(|link| link.dscp);
    arrival.outer_dscp = if routes {
        Some(0)
    } else {
        own.map(|dscp| dscp.number())
    };
    // One flow goes to one of them, whichever.
    Some(Expect::OneOf(arrival, places))
}

/// Whether the sender of a packet hears an error about it.
enum Hears {
    Always,
    /// From a plane that knows the VNI of the packet; the `routes` plane does not.
    IfTold,
    /// Nobody has the address, or it could be that of two.
    Unsure,
}

fn hears(region: &Region, sent: &Sent) -> Hears {
    let inventory = region.inventory();
    let src = sent.ip().src;
    let Ingress::Vxlan { vni } = sent.ingress else {
        let mut ways = region.learned.keys();
        let way = ways.any(|prefix| prefix.len() > 0 && prefix.contains_addr(src));
        let mut vpcs = inventory.vpcs();
        let twin = vpcs.any(|(_, vpc)| vpc.subnets.iter().any(|subnet| subnet.contains_addr(src)));
        return if way && !twin {
            Hears::Always
        } else {
            Hears::Unsure
        };
    };
    let Some((id, vpc)) = inventory
        .vpc_with_vni(vni)
        .and_then(|id| Some((id, inventory.vpc(id)?)))
    else {
        return Hears::Unsure;
    };
    let subnet = vpc.subnets.iter().find(|subnet| subnet.contains_addr(src));
    let (Some(subnet), Some(_)) = (subnet, region.owner(vni.number(), src)) else {
        return Hears::Unsure;
    };
    let linked = inventory.links_of(id).any(|(_, link)| {
        let mut classic = link.classic.iter();
        link.group == GroupName::default() && classic.any(|c| c.family() == subnet.family())
    });
    let elsewhere = inventory.vpcs().any(|(_, other)| {
        other.scope != vpc.scope && other.subnets.iter().any(|its| its.overlaps(subnet))
    });
    if linked && !elsewhere {
        Hears::Always
    } else {
        Hears::IfTold
    }
}

/// Why a plane and the model differ over packets that are sent one after the other; nothing if they
/// do not.
fn difference(subject: &Subject, region: &Region, packets: &[Sent]) -> Option<String> {
    let run = || {
        let mut world = World::new(subject, region.clone());
        let mut mind = Mind::new(region);
        packets
            .iter()
            .find_map(|sent| one(&mut world, &mut mind, subject.by, sent))
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Some("the harness panicked".to_owned()))
}

fn one(world: &mut World, mind: &mut Mind<'_>, by: By, sent: &Sent) -> Option<String> {
    // What a plane says when it is asked, and what it does, is the same.
    let (packet, verdict) = mind.plain(sent);
    if let Some(says) = world.ask(&packet)
        && !says.agrees(&verdict)
    {
        return Some(format!("asked, it says: {says}\n  the model: {verdict:?}"));
    }
    let ip = sent.ip();
    let too_big = !ip.dont_fragment && sent.octets(0).1.len() > world.region.mtu();
    if by == By::Ebpf && world.region.underlay6 && too_big {
        // The kernel fragments no IPv6 packet around one that it forwards: the table has the row.
        return None;
    }
    let trace = match mind.trace(sent) {
        Ok(trace) => trace,
        Err(reason) => return Some(format!("the model calls it {reason}")),
    };
    let expect = expected(by, &world.region, sent, &trace)?;
    let row = row("random", sent.clone(), expect);
    judge::check(world, by, &row, &row.expect)
        .err()
        .map(|error| format!("{error}\n  the model: {:?}", trace.verdict))
}

/// Compares a plane with the model over one seed.
pub(crate) fn compare(
    subject: &Subject,
    worlds: &mut [Option<World>; 2],
    seed: u64,
    marked: bool,
) -> Result<usize, String> {
    let mut dice = Dice(seed);
    let region = region(&mut dice, marked);
    let packets: Vec<Sent> = (0..PACKETS).map(|_| packet(&mut dice, &region)).collect();
    let world = match &mut worlds[usize::from(region.underlay6)] {
        Some(world) => {
            world.hold(region.clone());
            world
        }
        none => none.insert(World::new(subject, region.clone())),
    };
    let mut mind = Mind::new(&region);
    for (number, sent) in packets.iter().enumerate() {
        if let Some(error) = one(world, &mut mind, subject.by, sent) {
            return Err(minimal(subject, &region, &packets[..=number], &error));
        }
    }
    Ok(packets.len())
}

/// What the model says of the packets of one seed, by name.
pub(crate) fn verdicts(seed: u64, marked: bool) -> Vec<String> {
    let mut dice = Dice(seed);
    let region = region(&mut dice, marked);
    let mut mind = Mind::new(&region);
    let mut name = |_| match mind.trace(&packet(&mut dice, &region)) {
        Err(reason) => format!("drop {reason}"),
        Ok(trace) => match trace.verdict {
            Verdict::Encapsulate { hops, .. } if hops.len() > 1 => {
                "encapsulate to one of several".to_owned()
            }
            Verdict::Encapsulate { .. } => "encapsulate".to_owned(),
            Verdict::Forward { next_hops, .. } if next_hops.len() > 1 => {
                "forward by ECMP".to_owned()
            }
            Verdict::Forward { .. } => "forward".to_owned(),
            Verdict::Drop {
                reason,
                answer: Some(_),
            } => format!("answer {reason}"),
            Verdict::Drop { reason, .. } => format!("drop {reason}"),
        },
    };
    (0..PACKETS).map(&mut name).collect()
}

/// The least that still shows a difference, in words.
fn minimal(subject: &Subject, region: &Region, packets: &[Sent], error: &str) -> String {
    let (mut region, mut packets) = (region.clone(), packets.to_vec());
    let alone = &packets[packets.len() - 1..];
    if difference(subject, &region, alone).is_some() {
        packets = alone.to_vec();
    } else if difference(subject, &region, &packets).is_none() {
        return format!("not seen again: {error}\n  of {:#?}", packets.last());
    }
    let mut at = 0;
    while packets.len() > 1 && at < packets.len() - 1 {
        let mut fewer = packets.clone();
        fewer.remove(at);
        match difference(subject, &region, &fewer) {
            Some(_) => packets = fewer,
            None => at += 1,
        }
    }
    let keys: Vec<String> = region.records.keys().cloned().collect();
    for key in keys.iter().filter(|key| !key.contains("probe")) {
        let mut fewer = region.clone();
        fewer.records.remove(key);
        let fewer = sound(fewer);
        if difference(subject, &fewer, &packets).is_some() {
            region = fewer;
        }
    }
    for route in region.learned.keys().copied().collect::<Vec<_>>() {
        let mut fewer = region.clone();
        fewer.learned.remove(&route);
        let kept = fewer
            .learned
            .keys()
            .any(|p| p.contains_addr(ip("10.251.0.1")));
        if kept && difference(subject, &fewer, &packets).is_some() {
            region = fewer;
        }
    }
    let simpler: [fn(Ip) -> Ip; 6] = [
        |ip| Ip { hops: 64, ..ip },
        |ip| Ip {
            dscp: 0,
            ecn: 0,
            ..ip
        },
        |ip| Ip { length: None, ..ip },
        |ip| Ip {
            fragment: None,
            ..ip
        },
        |ip| Ip {
            options: Vec::new(),
            extensions: Vec::new(),
            ..ip
        },
        |ip| Ip {
            upper: Upper::Udp(1001, 7000),
            ..ip
        },
    ];
    for change in simpler {
        let mut changed = packets.clone();
        if let Some(last) = changed.last_mut() {
            last.content = crate::row::Content::Ip(change(last.ip().clone()));
        }
        if difference(subject, &region, &changed).is_some() {
            packets = changed;
        }
    }
    let why = difference(subject, &region, &packets).unwrap_or_else(|| error.to_owned());
    let records: Vec<String> = region
        .records
        .iter()
        .map(|(key, value)| format!("  {key} {value}"))
        .collect();
    let sent: Vec<String> = packets.iter().map(|sent| format!("  {sent:?}")).collect();
    format!(
        "{why}\nrecords:\n{}\nlearned: {:?}\npackets:\n{}",
        records.join("\n"),
        region.learned,
        sent.join("\n")
    )
}
