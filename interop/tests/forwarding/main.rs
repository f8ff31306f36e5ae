//! The forwarding contract (DESIGN section 5) on the real agent, kernel and routers: every claim is
//! a count of packets.

#![allow(
    clippy::print_stdout,
    reason = "a test says what it saw; the harness shows it when it fails"
)]

mod between_vpcs;
mod classic;
mod drops;
mod errors;
mod moves;
mod spread;

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use interop::capture::{Capture, Direction, Frames};
use interop::scene::Scene;
use interop::wait::eventually;
use netlink::{Mac, Namespace};

type Failure = Box<dyn Error + Send + Sync>;

/// The port that what should arrive is sent to.
const PORT: u16 = 7000;
/// How long a count may take to become what it should be.
const SOON: Duration = Duration::from_secs(30);
/// VNIs of the other CCSI, which has the same CIDRs and addresses.
const OTHER_VNIS: [u32; 2] = [2001, 2002];
/// The VMs of the other CCSI.
const OTHER_VMS: [&str; 3] = ["web-1@web-test", "web-2@web-test", "db-1@db-test"];

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn at(addr: IpAddr) -> SocketAddr {
    SocketAddr::new(addr, PORT)
}

/// The address of the same family as `like`.
fn same_family(addrs: &[IpAddr], like: IpAddr) -> IpAddr {
    *addrs
        .iter()
        .find(|addr| addr.is_ipv4() == like.is_ipv4())
        .expect("one of each family")
}

/// A VXLAN packet as it should be on the wire, with the counted UDP packet inside.
#[derive(Debug, PartialEq, Eq)]
struct OnTheWire {
    macs: [Mac; 2],
    vteps: [IpAddr; 2],
    vni: u32,
    inner_macs: [Mac; 2],
    addrs: [IpAddr; 2],
    ttl: u8,
}

/// The VXLAN packets of a capture in one direction that carry UDP to [`PORT`].
fn vxlan(frames: &Frames, direction: Direction) -> Vec<OnTheWire> {
    let mut packets = Vec::new();
    for (seen, frame) in frames.decoded() {
        let Some((outer, vni, inner)) = frame.vxlan().filter(|_| seen == direction) else {
            continue;
        };
        let Some(ip) = inner.ip() else { continue };
        if ip.udp().is_some_and(|(_, to, _)| to == PORT) {
            packets.push(OnTheWire {
                macs: [frame.source, frame.destination],
                vteps: [outer.source, outer.destination],
                vni,
                inner_macs: [inner.source, inner.destination],
                addrs: [ip.source, ip.destination],
                ttl: ip.ttl,
            });
        }
    }
    packets
}

/// The plain UDP packets to [`PORT`] of a capture in one direction: addresses and TTL.
fn plain(frames: &Frames, direction: Direction) -> Vec<([IpAddr; 2], u8)> {
    frames
        .decoded()
        .filter(|(seen, _)| *seen == direction)
        .filter_map(|(_, frame)| {
            let ip = frame.ip()?;
            let (_, to, _) = ip.udp()?;
            (to == PORT).then_some(([ip.source, ip.destination], ip.ttl))
        })
        .collect()
}

/// Fails on the first packet that is not as `expected`, and if there are not `count` of them.
#[track_caller]
fn all_are<T: PartialEq + std::fmt::Debug>(what: &str, seen: &[T], expected: &T, count: usize) {
    for (index, packet) in seen.iter().enumerate() {
        assert_eq!(packet, expected, "{what}: packet {index}");
    }
    assert_eq!(seen.len(), count, "{what}: how many");
    println!("{what}: {count} packets, each {expected:?}");
}

/// Waits until a running capture has seen so many frames that `count` counts, so that what comes
/// after is told from it.
fn await_frames(
    capture: &Capture,
    count: impl Fn(&Frames) -> usize,
    least: usize,
) -> Result<(), Failure> {
    Ok(eventually(
        "the capture has seen the packets",
        SOON,
        || match count(&capture.so_far()) {
            seen if seen >= least => Ok(()),
            seen => Err(seen),
        },
    )?)
}

/// Captures at every VM of the other CCSI, which should see nothing.
struct Others(Vec<(&'static str, Capture)>);

impl Others {
    fn watch(scene: &Scene) -> Result<Self, Failure> {
        let mut captures = Vec::new();
        for name in OTHER_VMS {
            let namespace = scene.region.namespace(name)?;
            captures.push((name, Capture::start(&namespace, "eth0")?));
        }
        Ok(Self(captures))
    }

    /// Fails if an IP packet for anybody in particular came to one of them.
    #[track_caller]
    fn saw_nothing(self) {
        for (name, capture) in self.0 {
            let frames = capture.stop();
            let arrived = frames.decoded().filter(|(seen, _)| *seen == Direction::In);
            let leaked: Vec<_> = arrived
                .filter(|(_, f)| f.ip().is_some_and(|ip| !ip.destination.is_multicast()))
                .collect();
            assert!(
                leaked.is_empty(),
                "{} packets leaked to {name}: {:?}",
                leaked.len(),
                leaked[0]
            );
            assert_eq!(frames.missed, 0);
        }
        println!("the other CCSI saw no packet");
    }
}

/// The MAC of a link.
fn mac_of(node: &mut interop::topology::Node, link: &str) -> Result<Mac, Failure> {
    Ok(node.link(link)?.mac.ok_or("a link without a MAC")?)
}

/// A UDP socket in a namespace.
fn udp_socket(namespace: &Namespace, from: IpAddr) -> Result<std::net::UdpSocket, Failure> {
    Ok(namespace.enter(|| std::net::UdpSocket::bind((from, 0)))??)
}
