//! What the programs count, sample and remember of packets: they are run for a test with made-up frames,
//! as they stand on the links, so that all they do to maps is real.

use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use ccn::plane::Count;
use ccn::plane::ebpf::layout::{Flow, LAYOUT_VERSION, Plain, mapped};
use ccn::plane::ebpf::sys::{self, TestRun};
use ccn::plane::model::packet::{Shape, Upper};
use ccn::plane::traffic::{Sampled, TwoWays, Wanted};
use nix::time::{ClockId, clock_gettime};

use super::*;

const UDP: u8 = 17;
const TCP: u8 = 6;
/// What the program answers: `TC_ACT_SHOT`, `TC_ACT_REDIRECT`.
const DROPPED: u32 = 2;
const REDIRECTED: u32 = 7;
/// Words of `struct __sk_buff`, and those that tell of segments.
const WORDS: usize = 46;
const GSO_SEGS: usize = 41;
const GSO_SIZE: usize = 44;

/// A UDP or TCP packet over IPv4 that may not be cut, as it comes to the gateway's own MAC.
fn frame(protocol: u8, src: &str, dst: &str, ports: (u16, u16), length: usize) -> Vec<u8> {
    let octets = |addr: &str| addr.parse::<Ipv4Addr>().expect("IPv4").octets();
    let mut frame = vec![0; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((length as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend(octets(src));
    frame.extend(octets(dst));
    frame.extend(ports.0.to_be_bytes());
    frame.extend(ports.1.to_be_bytes());
    let header = frame[14..34].chunks_exact(2);
    let sum: u32 = header
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    // Of TCP an acknowledgement; of UDP the length is not looked at.
    frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10]);
    frame.resize(14 + length, 0);
    frame
}

/// Runs the program on the IDC interface; in segments of this size, if any.
fn run(socket: &mut Socket, frame: &[u8], segment: u32) -> u32 {
    let id = programs(socket, "idc0")[0];
    let program = sys::program(id).expect("the program");
    let mut words = [0u32; WORDS];
    if segment > 0 {
        words[GSO_SIZE] = segment;
        words[GSO_SEGS] = (frame.len() as u32).div_ceil(segment);
    }
    let context: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let run = TestRun {
        data: frame,
        context: if segment > 0 { &context } else { &[] },
        ..TestRun::default()
    };
    sys::test_run(program.as_fd(), run).expect("it runs").answer
}

fn udp(socket: &mut Socket, src: &str, dst: &str, length: usize) -> u32 {
    run(socket, &frame(UDP, src, dst, (4000, 53), length), 0)
}

fn count(packets: u64, bytes: u64) -> Count {
    Count { packets, bytes }
}

#[test]
fn what_is_sent_to_a_link_is_what_is_counted_of_it_and_of_its_vpc() {
    in_namespace(|socket, config| {
        let mut plane = ready(config);
        resync(&mut plane, &region(10));
        let vm = "192.168.0.5";
        // Of link l1 and VPC 100; by what the links do not know; to nobody; too big.
        for (src, dst, length, times, answer) in [
            ("10.0.1.9", vm, 100, 7, REDIRECTED),
            ("10.0.2.9", vm, 1400, 3, REDIRECTED),
            ("10.9.1.9", vm, 60, 5, DROPPED),
            ("10.0.1.9", "192.168.77.5", 80, 2, DROPPED),
        ] {
            for _ in 0..times {
                assert_eq!(udp(socket, src, dst, length), answer, "{src} to {dst}");
            }
        }
        // Of link l2 and VPC 101.
        assert_eq!(udp(socket, "10.0.1.9", "10.101.0.5", 200), REDIRECTED);
        let traffic = plane.traffic().expect("read").expect("it counts");
        let passed = count(7 + 3, 7 * 100 + 3 * 1400);
        let link = |name: &str| traffic.links[&name.parse().expect("a link")];
        let both = |to_vpc, dropped| TwoWays {
            to_vpc,
            from_vpc: Count::default(),
            dropped,
        };
        assert_eq!(link("l1"), both(passed, count(2, 160)));
        assert_eq!(link("l2"), both(count(1, 200), Count::default()));
        // What no link is known of belongs to the VPC all the same.
        assert_eq!(
            traffic.vpcs[&vni(100)],
            both(passed, count(2 + 5, 160 + 300))
        );
        assert_eq!(
            traffic.vpcs[&vni(101)],
            both(count(1, 200), Count::default())
        );
        assert_eq!(
            traffic.vpcs[&vni(200)],
            both(Count::default(), Count::default())
        );
        let counters = plane.counters().expect("counters");
        assert_eq!(counters.encapsulated, count(11, 700 + 4200 + 200));
        assert_eq!(counters.drops["not-linked-source"], count(5, 300));
        assert_eq!(counters.drops["no-such-endpoint"], count(2, 160));
        let last = &traffic.last_drops["no-such-endpoint"].header;
        assert_eq!(
            (
                last.dst,
                last.src_port,
                last.octets,
                last.link.as_ref().map(ToString::to_string)
            ),
            (ip("192.168.77.5"), Some(4000), 80, Some("l1".to_owned()))
        );
    });
}

#[test]
fn a_packet_in_segments_that_fit_passes_whole() {
    in_namespace(|socket, config| {
        let mut plane = ready(config);
        resync(&mut plane, &region(10));
        let large = frame(TCP, "10.0.1.9", "192.168.0.5", (4000, 80), 3000);
        // What does not fit is answered, so that the program redirects that too.
        for (segment, passed, refused) in [(1000, 1, 0), (1410, 2, 0), (1411, 2, 1), (0, 2, 2)] {
            assert_eq!(run(socket, &large, segment), REDIRECTED);
            let counters = plane.counters().expect("counters");
            let what = format!("segments of {segment}");
            assert_eq!(
                counters.drops["too-big"],
                count(refused, refused * 3000),
                "{what}"
            );
            // However many segments it is, it is one packet.
            assert_eq!(
                counters.encapsulated,
                count(passed, passed * 3000),
                "{what}"
            );
        }
    });
}

/// What a plane has sampled, in short.
fn sampled(plane: &mut EbpfPlane) -> Vec<(String, Option<&'static str>, Option<String>)> {
    let packets: Vec<Sampled> = plane.sampled().expect("read");
    packets
        .into_iter()
        .map(|packet| {
            let age = SystemTime::now().duration_since(packet.at);
            assert!(
                age.is_ok_and(|age| age < Duration::from_secs(60)),
                "{packet:?}"
            );
            let header = packet.header;
            assert_eq!(
                (header.protocol, header.src_port, header.dst_port),
                (UDP, Some(4000), Some(53))
            );
            let link = header.link.map(|link| link.to_string());
            (
                format!("{} > {} {}", header.src, header.dst, header.octets),
                packet.reason,
                link,
            )
        })
        .collect()
}

#[test]
fn headers_are_sampled_while_somebody_wants_them_and_no_longer() {
    in_namespace(|socket, config| {
        let mut plane = ready(config);
        let desired = region(10);
        resync(&mut plane, &desired);
        let send = |socket: &mut Socket| {
            udp(socket, "10.0.1.9", "192.168.0.5", 100);
            udp(socket, "10.0.1.9", "10.101.0.5", 101);
            udp(socket, "10.0.1.9", "192.168.77.5", 102);
            udp(socket, "10.9.1.9", "192.168.0.5", 103);
        };
        let to_vm = (
            "10.0.1.9 > 192.168.0.5 100".to_owned(),
            None,
            Some("l1".to_owned()),
        );
        let other = (
            "10.0.1.9 > 10.101.0.5 101".to_owned(),
            None,
            Some("l2".to_owned()),
        );
        let nobody = (
            "10.0.1.9 > 192.168.77.5 102".to_owned(),
            Some("no-such-endpoint"),
            Some("l1".to_owned()),
        );
        let stranger = (
            "10.9.1.9 > 192.168.0.5 103".to_owned(),
            Some("not-linked-source"),
            None,
        );
        send(socket);
        assert_eq!(sampled(&mut plane), [], "nobody has asked");
        let wanted = |drops, forwarded, link: Option<&str>, addr: Option<&str>| Wanted {
            drops,
            forwarded,
            link: link.map(|link| link.parse().expect("a link")),
            addrs: addr.map(ip).into_iter().collect(),
        };
        let all = wanted(true, true, None, None);
        for (wanted, seen) in [
            (all.clone(), vec![&to_vm, &other, &nobody, &stranger]),
            (wanted(true, false, None, None), vec![&nobody, &stranger]),
            (wanted(true, true, Some("l1"), None), vec![&to_vm, &nobody]),
            (
                wanted(true, true, None, Some("192.168.0.5")),
                vec![&to_vm, &stranger],
            ),
            (wanted(true, true, Some("gone"), None), vec![]),
        ] {
            assert!(plane.sample(Some(&wanted)).expect("asked"));
            send(socket);
            let seen: Vec<_> = seen.into_iter().cloned().collect();
            assert_eq!(sampled(&mut plane), seen, "{wanted:?}");
            assert_eq!(sampled(&mut plane), [], "each once");
        }
        // A change and a comparison of everything leave it as it is, and it is no difference.
        plane.sample(Some(&all)).expect("asked");
        let batch = Batch {
            generation: 2,
            upserts: BTreeMap::from([endpoint(100, ip("192.168.0.6"), 100, &[(7, 1)])]),
            verify: true,
            ..Batch::default()
        };
        clean(&plane.apply(&batch).expect("applied"));
        clean(
            &plane
                .apply(&Batch {
                    upserts: BTreeMap::from([endpoint(100, ip("192.168.0.6"), 100, &[(6, 1)])]),
                    ..batch
                })
                .expect("applied"),
        );
        assert_eq!(resync(&mut plane, &desired), 0);
        send(socket);
        assert_eq!(sampled(&mut plane).len(), 4);
        plane.sample(None).expect("asked");
        send(socket);
        assert_eq!(sampled(&mut plane), []);
        // An agent that was killed meanwhile: the next one ends it.
        plane.sample(Some(&all)).expect("asked");
        std::mem::forget(plane);
        let mut plane = ready(config);
        assert_eq!(resync(&mut plane, &desired), 1, "it samples no more");
        send(socket);
        plane.sample(Some(&all)).expect("asked");
        assert_eq!(sampled(&mut plane), [], "what nobody has read is forgotten");
        udp(socket, "10.0.1.9", "192.168.0.5", 100);
        assert_eq!(sampled(&mut plane), [to_vm]);
    });
}

#[test]
fn a_processor_samples_a_thousand_packets_at_once_and_then_a_thousand_a_second() {
    in_namespace(|socket, config| {
        let mut plane = ready(config);
        resync(&mut plane, &region(10));
        let wanted = Wanted {
            drops: true,
            ..Wanted::default()
        };
        plane.sample(Some(&wanted)).expect("asked");
        let program = sys::program(programs(socket, "idc0")[0]).expect("the program");
        let many = TestRun {
            data: &frame(UDP, "10.0.1.9", "192.168.77.5", (4000, 53), 60),
            repeat: 100_000,
            ..TestRun::default()
        };
        let began = std::time::Instant::now();
        sys::test_run(program.as_fd(), many).expect("it runs");
        let seconds = began.elapsed().as_secs_f64();
        let seen = sampled(&mut plane).len() as f64;
        // The run may have moved from one processor to another.
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let most = (1000.0 + 1000.0 * seconds) * cpus;
        assert!((1000.0..=most).contains(&seen), "{seen} in {seconds} s");
        let counters = plane.counters().expect("counters");
        assert_eq!(counters.drops["no-such-endpoint"].packets, 100_000);
    });
}

const REPLIED: u32 = 1;
const CLOSING: u32 = 2;

#[test]
fn a_flow_is_forgotten_when_it_was_silent_for_its_time() {
    in_namespace(|socket, config| {
        let mut desired = region(10);
        let (key, value) = permit("l1", 100, "192.168.0.0/16", "10.0.0.0/16");
        let EntryValue::Permit { scope, dscp, .. } = value else {
            panic!("a permit");
        };
        let mode = Mode::ClassicToVpc;
        let tracked = EntryValue::Permit { scope, mode, dscp };
        desired.entries.insert(key, tracked);
        let mut plane = ready(config);
        resync(&mut plane, &desired);
        let flows = directory(config).join(format!("v{LAYOUT_VERSION}"));
        let flows = Map::open(&flows.join("flows")).expect("pinned");
        let (classic, vm) = (ip("10.0.1.9"), ip("192.168.0.5"));
        let flow = |proto, (classic_port, vpc_port): (u16, u16)| Flow {
            vni: 100,
            classic: mapped(classic),
            vpc: mapped(vm),
            // As they are in packets.
            classic_port: classic_port.to_be(),
            vpc_port: vpc_port.to_be(),
            proto,
            ..Flow::default()
        };
        let ports = |protocol| Upper::Ports {
            protocol,
            src: 53,
            dst: 4000,
        };
        let pong = Upper::Echo {
            request: false,
            id: 9,
        };
        let reply = |upper| {
            let mut packet = Packet::new(Ingress::Vxlan { vni: vni(100) }, vm, classic);
            packet.shape = Shape {
                upper,
                ..Shape::default()
            };
            packet
        };
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        let now = now.expect("a clock").as_nanos() as u64;
        // RFC 5382, 4787, 5508.
        for (what, proto, key, upper, flags, seconds) in [
            (
                "TCP, established",
                TCP,
                (4000, 53),
                ports(TCP),
                REPLIED,
                7440,
            ),
            ("TCP, opening", TCP, (4000, 53), ports(TCP), 0, 240),
            (
                "TCP, closing",
                TCP,
                (4000, 53),
                ports(TCP),
                REPLIED | CLOSING,
                240,
            ),
            ("UDP", UDP, (4000, 53), ports(UDP), REPLIED, 300),
            ("UDP, no reply yet", UDP, (4000, 53), ports(UDP), 0, 300),
            ("ICMP echo", 1, (9, 9), pong, REPLIED, 60),
        ] {
            let key = flow(proto, key);
            // So long ago, give or take what this test takes.
            for (silent, passes) in [(0, true), (seconds - 20, true), (seconds + 1, false)] {
                let seen = now.wrapping_sub(silent * 1_000_000_000);
                let mut state = seen.to_ne_bytes().to_vec();
                state.extend(u64::from(flags).to_le_bytes());
                flows.update(key.octets(), &state).expect("written");
                let said = plane.ask(&reply(upper)).expect("asked").expect("an answer");
                match said {
                    Witness::Forward { .. } => assert!(passes, "{what}, {silent} s: {said}"),
                    said => {
                        assert_eq!(said.to_string(), "drop: not-a-reply", "{what}");
                        assert!(!passes, "{what}, {silent} s: {said}");
                    }
                }
            }
            flows.delete(key.octets()).expect("deleted");
        }
        // A packet begins a flow, and one that was forgotten anew.
        let key = flow(UDP, (4000, 53));
        for seen in [None, Some(now.wrapping_sub(400 * 1_000_000_000))] {
            if let Some(seen) = seen {
                let mut state = seen.to_ne_bytes().to_vec();
                state.extend(u64::from(REPLIED).to_le_bytes());
                flows.update(key.octets(), &state).expect("written");
            }
            let asked = |plane: &mut EbpfPlane| plane.ask(&reply(ports(UDP))).expect("asked");
            let before = asked(&mut plane).map(|says| says.to_string());
            assert_eq!(before.as_deref(), Some("drop: not-a-reply"));
            assert_eq!(udp(socket, "10.0.1.9", "192.168.0.5", 100), REDIRECTED);
            let after = asked(&mut plane);
            assert!(matches!(after, Some(Witness::Forward { .. })), "{after:?}");
        }
        let begun = plane.traffic().expect("read").expect("it counts").flows;
        assert_eq!(begun.map(|flows| (flows.begun, flows.known)), Some((2, 1)));
    });
}
