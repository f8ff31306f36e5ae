//! Holds the model and planes against a row: what was seen, octet by octet, and what was counted.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use ccn::inventory::Inventory;
use ccn::plane::entry::Hop;
use ccn::plane::model::flow::Flows;
use ccn::plane::model::{Answer, DropReason, Ingress, Model, Packet, Trace, Verdict};
use ccn::record::{GroupName, Mac, Mode, Vni};

use crate::packet::{Ip, checksum, forwarded, marked, pseudo_header};
use crate::region::Region;
use crate::row::{Arrival, By, Content, Expect, Place, Row, Sent};
use crate::seen::{Datagram, Tunnelled, whole};
use crate::world::{Drops, IDC_ADDRS, Output, World, is_own};

/// How long counters may lag behind packets.
const PATIENCE: Duration = Duration::from_millis(500);

type Verdicts = Result<(), String>;

fn same<T: PartialEq + Debug>(what: &str, seen: &T, wanted: &T) -> Verdicts {
    match seen == wanted {
        true => Ok(()),
        false => Err(format!("{what} is {seen:02x?}, not {wanted:02x?}")),
    }
}

/// The records and what has been seen in them.
pub(crate) struct Mind<'a> {
    region: &'a Region,
    inventory: Inventory,
    group: GroupName,
    flows: Flows,
}

impl<'a> Mind<'a> {
    pub(crate) fn new(region: &'a Region) -> Mind<'a> {
        Mind {
            region,
            inventory: region.inventory(),
            group: GroupName::default(),
            flows: Flows::default(),
        }
    }

    /// What the model says of a packet, which then has been seen; of what is none, why.
    pub(crate) fn trace(&mut self, sent: &Sent) -> Result<Trace, DropReason> {
        let (ethertype, octets) = sent.octets(0);
        let packet = Packet::read(sent.ingress, ethertype, &octets)?;
        let model = Model {
            inventory: &self.inventory,
            group: &self.group,
            learned: &self.region.learned,
            flows: &self.flows,
            mtus: self.region.mtus(),
        };
        let trace = model.trace(packet);
        let mode = trace.link.as_ref().map(|link| link.mode);
        if let (Ingress::Idc, Verdict::Encapsulate { vni, .. }, Some(Mode::ClassicToVpc)) =
            (packet.ingress, &trace.verdict, mode)
        {
            self.flows.note(*vni, &packet);
        }
        Ok(trace)
    }

    /// What the model says of a packet with these addresses that is nothing special and no reply.
    pub(crate) fn plain(&self, sent: &Sent) -> (Packet, Verdict) {
        let ip = sent.ip();
        let packet = Packet::new(sent.ingress, ip.src, ip.dst);
        let model = Model {
            inventory: &self.inventory,
            group: &self.group,
            learned: &self.region.learned,
            flows: &Flows::NONE,
            mtus: self.region.mtus(),
        };
        (packet, model.trace(packet).verdict)
    }

    fn verdict(&mut self, sent: &Sent) -> Verdict {
        match self.trace(sent) {
            Ok(trace) => trace.verdict,
            Err(reason) => Verdict::drop(reason),
        }
    }

    /// Whether the model says what the row says.
    pub(crate) fn check(&mut self, row: &Row, expect: &Expect) -> Verdicts {
        for before in &row.before {
            let verdict = self.verdict(before);
            if matches!(verdict, Verdict::Drop { .. }) {
                return Err(format!("what is sent before: {verdict:?}"));
            }
        }
        let v4 = |sent: &Sent| match &sent.content {
            Content::Ip(ip) => ip.src.is_ipv4(),
            Content::Raw(..) => true,
        };
        let places = match expect {
            Expect::Arrives(arrival) => vec![(arrival.at.clone(), 1)],
            Expect::Spread { places, .. } => places.clone(),
            _ => Vec::new(),
        };
        let wanted = match expect {
            Expect::Arrives(_) | Expect::Spread { .. } => {
                to_places(self.region, &places, v4(&row.sent))
            }
            Expect::Drop(reason) => Verdict::drop(*reason),
            Expect::Answer(answer) => Verdict::Drop {
                reason: counted(*answer),
                answer: Some(*answer),
            },
            Expect::Stack | Expect::Lost | Expect::OneOf(..) => {
                return Err("the model knows nothing of that: the row must say so".to_owned());
            }
        };
        let mut verdict = self.verdict(&row.sent);
        if let (Verdict::Forward { route, .. }, Verdict::Forward { route: any, .. }) =
            (&wanted, &mut verdict)
        {
            *any = *route;
        }
        same("the model's verdict", &verdict, &wanted)
    }
}

/// The verdict that leads to places; of a route only the next hops are compared.
fn to_places(region: &Region, places: &[(Place, u32)], v4: bool) -> Verdict {
    let inside = places
        .iter()
        .filter_map(|(place, weight)| place.hop(region, *weight));
    let mut inside: Vec<(Vni, Hop)> = inside.collect();
    inside.sort();
    match inside.first() {
        Some((vni, _)) => Verdict::Encapsulate {
            vni: *vni,
            hops: inside.iter().map(|(_, hop)| *hop).collect(),
        },
        None => Verdict::Forward {
            route: "0.0.0.0/0".parse().expect("a prefix"),
            next_hops: places
                .iter()
                .filter_map(|(place, _)| place.router(v4))
                .collect(),
        },
    }
}

/// What a packet that is answered is counted under.
pub(crate) fn counted(answer: Answer) -> DropReason {
    match answer {
        Answer::TimeExceeded => DropReason::TtlExceeded,
        Answer::TooBig { .. } => DropReason::TooBig,
    }
}

/// Whether a plane does what the row says.
pub(crate) fn check(world: &mut World, by: By, row: &Row, expect: &Expect) -> Verdicts {
    for before in &row.before {
        let marker = world.marker();
        let output = world.exchange(before, marker)?;
        if output.to_vpc.is_empty() && output.to_idc.is_empty() {
            return Err(format!("what is sent before is lost: {before:?}"));
        }
    }
    let counts = world.drops();
    match expect {
        Expect::Spread { flows, places } => spread(world, &row.sent, *flows, places)?,
        Expect::Stack => stack(world, &row.sent)?,
        _ => {
            let marker = world.marker();
            let output = world.exchange(&row.sent, marker)?;
            judge(world, by, &row.sent, marker, expect, output)?;
        }
    }
    let reason = match expect {
        Expect::Drop(reason) => Some(*reason),
        Expect::Answer(answer) => {
            Some(counted(*answer)).filter(|r| counts.contains_key(r.as_str()))
        }
        _ => None,
    };
    let mut wanted = counts.clone();
    if let Some(reason) = reason {
        match wanted.get_mut(reason.as_str()) {
            Some(count) => *count += 1,
            None => return Err(format!("it counts nothing under {reason}")),
        }
    }
    await_drops(world, &counts, &wanted)
}

/// Waits until the counters are as they should be.
fn await_drops(world: &mut World, before: &Drops, wanted: &Drops) -> Verdicts {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = world.drops();
        if now == *wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            let moved = |now: &Drops| -> BTreeMap<String, u64> {
                let moved = now
                    .iter()
                    .map(|(name, n)| (name.clone(), n - before.get(name).unwrap_or(&0)));
                moved.filter(|(_, n)| *n > 0).collect()
            };
            return Err(format!(
                "dropped {:?}, not {:?}",
                moved(&now),
                moved(wanted)
            ));
        }
        std::thread::yield_now();
    }
}

fn judge(
    world: &World,
    by: By,
    sent: &Sent,
    marker: u64,
    expect: &Expect,
    output: Output,
) -> Verdicts {
    match expect {
        Expect::Arrives(arrival) => arrived(world, sent, marker, arrival, output),
        Expect::OneOf(arrival, places) => {
            let at = place_of(world, places, &output)
                .ok_or_else(|| format!("it should be in one of {places:?}: {output:02x?}"))?;
            let at = places[at].clone();
            let arrival = Arrival {
                at,
                ..arrival.clone()
            };
            arrived(world, sent, marker, &arrival, output)
        }
        Expect::Answer(answer) => answered(world, by, sent, marker, *answer, output),
        _ => match output.to_vpc.is_empty() && output.to_idc.is_empty() {
            true => Ok(()),
            false => Err(format!("nothing should have come out: {output:02x?}")),
        },
    }
}

/// Whether a packet has arrived where it should, once, and nothing else has come out.
fn arrived(world: &World, sent: &Sent, marker: u64, at: &Arrival, output: Output) -> Verdicts {
    let (ethertype, octets) = sent.octets(marker);
    let mut wanted = forwarded(&octets);
    let ip = sent.ip();
    if let Some(ecn) = at.ecn {
        wanted = marked(&wanted, ecn);
    }
    let region = &world.region;
    let Some((vni, hop)) = at.at.hop(region, 1) else {
        same("what came out to VPCs", &output.to_vpc, &Vec::new())?;
        let mut packets = Vec::new();
        for frame in output.to_idc {
            let seen = (Place::of_router(frame.dst), frame.src);
            same(
                "MACs to the IDC",
                &seen,
                &(Some(at.at.clone()), world.idc_mac),
            )?;
            if frame.content.len() > region.idc_mtu {
                return Err(format!("{} octets to the IDC", frame.content.len()));
            }
            packets.push((frame.ethertype, frame.content));
        }
        return the_one(packets, at.in_fragments, (ethertype, wanted));
    };
    same("what came out to the IDC", &output.to_idc, &Vec::new())?;
    let mut packets = Vec::new();
    for Tunnelled {
        vteps,
        dscp,
        ecn,
        hops,
        port,
        vni: its,
        inner,
    } in output.to_vpc
    {
        same("VTEPs", &vteps, &(region.vtep(1), hop.vtep))?;
        same("VNI", &its, &vni.number())?;
        let macs = (hop.mac.bytes(), Mac::GATEWAY.bytes());
        same("MACs inside", &(inner.dst, inner.src), &macs)?;
        let inside = at.ecn.unwrap_or(ip.ecn);
        let outside = (
            at.outer_dscp.unwrap_or(ip.dscp),
            at.outer_ecn.unwrap_or(inside),
        );
        same("DSCP and ECN outside", &(dscp, ecn), &outside)?;
        if hops < 32 || port < 1024 {
            return Err(format!("TTL {hops}, UDP source port {port} outside"));
        }
        packets.push((inner.ethertype, inner.content));
    }
    the_one(packets, at.in_fragments, (ethertype, wanted))
}

/// Whether these are one packet, after what came in fragments was put together.
fn the_one(
    mut packets: Vec<(u16, Vec<u8>)>,
    in_fragments: bool,
    wanted: (u16, Vec<u8>),
) -> Verdicts {
    if in_fragments {
        packets = whole(packets)?;
        // Who fragments, and where, is free; so is the number that holds fragments together.
    }
    same("what arrived", &packets, &vec![wanted])
}

fn answered(
    world: &World,
    by: By,
    sent: &Sent,
    marker: u64,
    answer: Answer,
    output: Output,
) -> Verdicts {
    let region = &world.region;
    let ip = sent.ip();
    let (ethertype, content) = match sent.ingress {
        Ingress::Idc => {
            same("what came out to VPCs", &output.to_vpc, &Vec::new())?;
            let [frame] = output.to_idc.as_slice() else {
                return Err(format!(
                    "one answer should have come out: {:02x?}",
                    output.to_idc
                ));
            };
            same("MAC of the sender's router", &frame.src, &world.idc_mac)?;
            (frame.ethertype, &frame.content)
        }
        Ingress::Vxlan { vni } => {
            same("what came out to the IDC", &output.to_idc, &Vec::new())?;
            let [out] = output.to_vpc.as_slice() else {
                return Err(format!(
                    "one answer should have come out: {:02x?}",
                    output.to_vpc
                ));
            };
            let vm = region.owner(vni.number(), ip.src);
            let vm = vm.ok_or("the row's sender is no VM, so there is nobody to answer")?;
            same("VTEPs", &out.vteps, &(region.vtep(1), region.vtep(vm.host)))?;
            same("VNI", &out.vni, &vm.vni)?;
            let macs = (vm.mac, Mac::GATEWAY.bytes());
            same("MACs inside", &(out.inner.dst, out.inner.src), &macs)?;
            (out.inner.ethertype, &out.inner.content)
        }
    };
    let error = Datagram::read(ethertype, content)?;
    let own = crate::packet::ip(IDC_ADDRS[usize::from(ip.src.is_ipv6())]);
    // The kernel takes whichever of its own addresses it likes.
    if error.src != own && !(by == By::Routes && is_own(error.src, region)) {
        return Err(format!("the answer is from {}", error.src));
    }
    same("the answer's destination", &error.dst, &ip.src)?;
    if error.hops < 32 {
        return Err(format!("the answer has TTL {}", error.hops));
    }
    let (_, octets) = sent.octets(marker);
    quotes(&error, answer, ip, &octets)
}

/// Whether an ICMP message is the right error about a packet (RFC 792, RFC 1191, RFC 4443).
fn quotes(error: &Datagram, answer: Answer, about: &Ip, octets: &[u8]) -> Verdicts {
    let v4 = about.src.is_ipv4();
    let (protocol, least, most) = if v4 {
        let header = 20 + about.options.len();
        (1, header + 8, 576 - 28)
    } else {
        (58, 48, 1280 - 48)
    };
    same("the answer's protocol", &error.protocol, &protocol)?;
    let message = &error.payload;
    let pseudo = pseudo_header(error.src, error.dst, 58, message.len());
    let pseudo = if v4 { &[][..] } else { &pseudo };
    same("the sum over the answer", &checksum(&[pseudo, message]), &0)?;
    let (head, quoted) = message.split_at_checked(8).ok_or("a short ICMP message")?;
    let (kind, code, rest) = match (answer, v4) {
        (Answer::TimeExceeded, true) => (11, 0, 0),
        (Answer::TimeExceeded, false) => (3, 0, 0),
        (Answer::TooBig { mtu }, true) => (3, 4, mtu as u32),
        (Answer::TooBig { mtu }, false) => (2, 0, mtu as u32),
    };
    same("type and code", &(head[0], head[1]), &(kind, code))?;
    let said = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    same("MTU, or zero", &said, &rest)?;
    let range = least.min(octets.len())..=most;
    if !range.contains(&quoted.len()) || !octets.starts_with(quoted) {
        return Err(format!(
            "quoted {} octets: {quoted:02x?} of {octets:02x?}",
            quoted.len()
        ));
    }
    Ok(())
}

/// Sends a packet for the gateway itself, and waits for a socket there to have it.
fn stack(world: &mut World, sent: &Sent) -> Verdicts {
    let ip = sent.ip();
    let socket = world.socket(ip.dst, 7000);
    let marker = world.marker();
    let output = world.exchange(sent, marker)?;
    if !output.to_vpc.is_empty() || !output.to_idc.is_empty() {
        return Err(format!("nothing should have come out: {output:02x?}"));
    }
    let (_, octets) = sent.octets(marker);
    let header = octets.len() - 20;
    let mut buffer = [0; 2048];
    let (length, from) = socket
        .recv_from(&mut buffer)
        .map_err(|error| format!("the gateway's own socket: {error}"))?;
    same("its sender", &from.ip(), &ip.src)?;
    same(
        "what the gateway got",
        &&buffer[..length],
        &&octets[header..],
    )
}

/// Where each flow goes, and by which UDP source port outside.
pub(crate) type Paths = BTreeMap<u16, (usize, u16)>;

fn spread(world: &mut World, sent: &Sent, flows: u16, places: &[(Place, u32)]) -> Verdicts {
    let first = paths(world, sent, flows, places)?;
    let again = paths(world, sent, flows, places)?;
    same("the way of flows that are sent again", &again, &first)?;
    let total: u32 = places.iter().map(|(_, weight)| weight).sum();
    for (number, (place, weight)) in places.iter().enumerate() {
        let share = f64::from(*weight) / f64::from(total);
        let flows = f64::from(flows);
        let count = first.values().filter(|(at, _)| *at == number).count() as f64;
        // Five standard deviations, and what a table of 256 places rounds.
        let margin = 5.0 * (flows * share * (1.0 - share)).sqrt() + flows / 256.0;
        if (count - flows * share).abs() > margin {
            return Err(format!(
                "{count} of {flows} flows to {place:?}, whose share is {share}"
            ));
        }
    }
    let ports: std::collections::BTreeSet<u16> = first.values().map(|(_, port)| *port).collect();
    let tunnelled = !matches!(places[0].0, Place::Router(_));
    if tunnelled && ports.len() < usize::from(flows / 4) {
        return Err(format!(
            "{flows} flows have {} UDP source ports",
            ports.len()
        ));
    }
    Ok(())
}

/// Which of these places a packet has come to.
fn place_of(world: &World, places: &[Place], output: &Output) -> Option<usize> {
    places
        .iter()
        .position(|place| match place.hop(&world.region, 1) {
            Some((_, hop)) => {
                let mut out = output.to_vpc.iter();
                out.any(|out| (out.vteps.1, out.inner.dst) == (hop.vtep, hop.mac.bytes()))
            }
            None => {
                let mut out = output.to_idc.iter();
                out.any(|frame| Place::of_router(frame.dst).as_ref() == Some(place))
            }
        })
}

/// The paths of so many flows, told apart by their source port.
pub(crate) fn paths(
    world: &mut World,
    sent: &Sent,
    flows: u16,
    places: &[(Place, u32)],
) -> Result<Paths, String> {
    let mut paths = Paths::new();
    let all: Vec<Place> = places.iter().map(|(place, _)| place.clone()).collect();
    for flow in 0..flows {
        let mut sent = sent.clone();
        sent.content = Content::Ip(sent.ip().clone().ports(20_000 + flow, 7000));
        let marker = world.marker();
        let output = world.exchange(&sent, marker)?;
        let port = output.to_vpc.first().map_or(0, |out| out.port);
        let at = place_of(world, &all, &output);
        let at = at.ok_or_else(|| format!("flow {flow} went nowhere it should: {output:02x?}"))?;
        let arrival = Arrival::at(places[at].0.clone());
        arrived(world, &sent, marker, &arrival, output)?;
        paths.insert(flow, (at, port));
    }
    Ok(paths)
}
