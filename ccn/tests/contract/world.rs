//! One gateway with a plane in it, in a namespace, and the far ends of its two wires: raw sockets, so
//! that the test says every octet that enters and sees every octet that leaves.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use bgp::Prefix;
use ccn::config::PlaneConfig;
use ccn::plane::entry::{EntryKey, EntryValue};
use ccn::plane::model::{Ingress, Packet};
use ccn::plane::traffic::Traffic;
use ccn::plane::witness::Witness;
use ccn::plane::{Batch, Desired, LearnedNextHops, Plane};
use ccn::record::{Mac, Mode};
use netlink::{LinkChange, Neighbour, Request};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::netns::{Node, PATIENCE};
use crate::packet::ip;
use crate::region::{PROBE_VNI, Region, Router};
use crate::row::Sent;
use crate::seen::{Frame, Tunnelled, whole};
use crate::wire::{Outer, ethernet, vxlan};

/// The gateway's addresses on the IDC's side, which it sends ICMP errors from.
pub(crate) const IDC_ADDRS: [&str; 2] = ["10.255.0.1", "2001:db8:ff::1"];
/// Hosts and routers, each by its number.
const NUMBERS: std::ops::Range<u8> = 2..100;
/// What the markers of the harness's own packets begin with.
const PROBES: u64 = 0xfeed_0000_0000_0000;

/// A plane by its name and how it is made.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) by: crate::row::By,
    pub(crate) make: fn(&PlaneConfig) -> Box<dyn Plane>,
}

/// The far end of a wire.
struct Port(File);

impl Port {
    fn open(node: &mut Node, interface: &str) -> Port {
        let index = node.index(interface);
        let opened = node.namespace.enter(|| {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
            bind(&socket, index)?;
            io::Result::Ok(socket)
        });
        let socket = opened.expect("enter").expect("a packet socket");
        Port(File::from(socket))
    }

    fn send(&mut self, frame: &[u8]) {
        self.0
            .write_all(frame)
            .unwrap_or_else(|error| panic!("{} octets: {error}", frame.len()));
    }

    /// What has arrived since the last call.
    fn take(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            match self.0.read(&mut buffer) {
                Ok(length) => frames.push(buffer[..length].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return frames,
                Err(error) => panic!("a packet socket: {error}"),
            }
        }
    }
}

fn bind(socket: &OwnedFd, index: u32) -> io::Result<()> {
    let addr = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: i32::try_from(index).expect("an index"),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of_val(&addr) as libc::socklen_t;
    // SAFETY: `addr` is a whole sockaddr_ll that outlives the call, and `length` is its size.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const addr).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Drop counters by name, in packets.
pub(crate) type Drops = BTreeMap<String, u64>;

/// What came out of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) to_vpc: Vec<Tunnelled>,
    pub(crate) to_idc: Vec<Frame>,
}

/// A gateway in its region.
pub(crate) struct World {
    pub(crate) region: Region,
    gateway: Node,
    /// The sockets live in it.
    _far: Node,
    underlay: Port,
    idc: Port,
    plane: Box<dyn Plane>,
    underlay_mac: [u8; 6],
    pub(crate) idc_mac: [u8; 6],
    sent: u64,
    generation: u64,
}

impl World {
    /// A gateway whose plane holds the region.
    pub(crate) fn new(subject: &Subject, region: Region) -> World {
        let (mut gateway, mut far) = (Node::new(), Node::new());
        for scope in ["all", "default"] {
            far.set(&format!("ipv6/conf/{scope}/disable_ipv6"), "1");
        }
        gateway.join("under0", &mut far, "under0");
        gateway.join("idc0", &mut far, "idc0");
        // So that every error is sent that should be.
        gateway.set("ipv4/icmp_ratelimit", "0");
        gateway.set("ipv6/icmp/ratelimit", "0");
        let vtep = region.vtep(1);
        let length = if vtep.is_ipv4() { 24 } else { 64 };
        gateway.address("under0", &format!("{vtep}/{length}"));
        for (addr, length) in IDC_ADDRS.into_iter().zip([24, 64]) {
            gateway.address("idc0", &format!("{addr}/{length}"));
        }
        gateway.meet(&region);
        let mac = |node: &mut Node, name: &str| {
            let link = node.netlink.link(name).expect("ask").expect("a link");
            link.mac.expect("a MAC").0
        };
        let (underlay_mac, idc_mac) = (mac(&mut gateway, "under0"), mac(&mut gateway, "idc0"));
        let (underlay, idc) = (Port::open(&mut far, "under0"), Port::open(&mut far, "idc0"));
        let config = config(&region);
        let made = gateway.namespace.enter(|| {
            let mut plane = (subject.make)(&config);
            plane.prepare().expect("prepared");
            plane
        });
        let mut world = World {
            plane: made.expect("enter"),
            region: region.clone(),
            gateway,
            _far: far,
            underlay,
            idc,
            underlay_mac,
            idc_mac,
            sent: 0,
            generation: 0,
        };
        world.hold(region);
        world
    }

    /// Whether it is such that it can hold a region.
    pub(crate) fn takes(&self, region: &Region) -> bool {
        self.region.underlay6 == region.underlay6
    }

    /// Lets the plane hold another region over the same underlay.
    pub(crate) fn hold(&mut self, region: Region) {
        let index = self.gateway.index("idc0");
        let mtu = Request::change_link(LinkChange::of(index).mtu(region.idc_mtu as u32));
        self.gateway.netlink.request(mtu).expect("an MTU");
        self.generation += 1;
        let desired = Desired {
            generation: self.generation,
            ..region.desired()
        };
        // Every other time by what differs alone.
        let batch = self
            .generation
            .is_multiple_of(2)
            .then(|| difference(&self.region.desired(), &desired));
        let World { gateway, plane, .. } = self;
        let applied = gateway.namespace.enter(|| match &batch {
            Some(batch) => plane.apply(batch),
            None => plane.resync(&desired),
        });
        let applied = applied.expect("enter").expect("applied");
        let abilities = self.plane.abilities();
        // A plane may refuse what it says it cannot, and nothing else.
        let refused = applied.failures.iter().filter(|(key, _)| {
            !matches!(desired.entries.get(*key), Some(EntryValue::Permit { mode, dscp, .. })
                if (*mode == Mode::ClassicToVpc && !abilities.tracks_replies)
                    || (dscp.is_some() && !abilities.marks_links))
        });
        assert_eq!(refused.collect::<Vec<_>>(), []);
        assert_eq!(applied.learned_failures, BTreeMap::new());
        self.region = region;
    }

    /// A number that no payload has had yet.
    pub(crate) fn marker(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// Packets dropped so far.
    pub(crate) fn drops(&mut self) -> Drops {
        let counters = self.plane.counters().expect("counters");
        let packets = counters
            .drops
            .into_iter()
            .map(|(name, count)| (name, count.packets));
        packets.collect()
    }

    /// What is counted of links and VPCs, by a plane that does.
    pub(crate) fn traffic(&mut self) -> Traffic {
        let traffic = self.plane.traffic().expect("counters");
        traffic.expect("this plane counts links and VPCs")
    }

    /// What the plane says would become of a packet, where it can be asked.
    pub(crate) fn ask(&mut self, packet: &Packet) -> Option<Witness> {
        let World { gateway, plane, .. } = self;
        let asked = gateway.namespace.enter(|| plane.ask(packet));
        asked.expect("enter").expect("asked")
    }

    /// A socket of the gateway itself.
    pub(crate) fn socket(&self, addr: IpAddr, port: u16) -> UdpSocket {
        let at = SocketAddr::new(addr, port);
        let socket = self
            .gateway
            .namespace
            .enter(|| UdpSocket::bind(at).unwrap_or_else(|error| panic!("bind {at}: {error}")))
            .expect("enter");
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .expect("a timeout");
        socket
    }

    /// Sends a packet, and answers with all that comes out of the gateway until it has dealt with it.
    pub(crate) fn exchange(&mut self, sent: &Sent, marker: u64) -> Result<Output, String> {
        self.send(sent, marker);
        let probe = PROBES | self.marker();
        let known = match sent.ingress {
            Ingress::Idc => crate::row::idc(Region::probe_to_vpc()),
            Ingress::Vxlan { .. } => crate::row::vxlan(PROBE_VNI, Region::probe_to_idc()),
        };
        self.send(&known, probe);
        let deadline = Instant::now() + PATIENCE;
        let (mut underlay, mut idc) = (Vec::new(), Vec::new());
        loop {
            let mut seen = false;
            for (port, frames) in [
                (&mut self.underlay, &mut underlay),
                (&mut self.idc, &mut idc),
            ] {
                for frame in port.take() {
                    let is_probe = frame.windows(8).any(|octets| octets == probe.to_be_bytes());
                    match is_probe {
                        true => seen = true,
                        false => frames.push(Frame::read(&frame)?),
                    }
                }
            }
            if seen {
                return output(underlay, idc);
            }
            if Instant::now() > deadline {
                let seen = output(underlay, idc)?;
                return Err(format!(
                    "the harness's own packet was lost, beside {seen:02x?}"
                ));
            }
            std::thread::yield_now();
        }
    }

    fn send(&mut self, sent: &Sent, marker: u64) {
        let (ethertype, mut content) = sent.octets(marker);
        content.resize(content.len() + sent.padding, 0xaa);
        match sent.ingress {
            Ingress::Idc => {
                let to = sent.mac.unwrap_or(self.idc_mac);
                let frame = ethernet(to, Router(2).mac(), ethertype, &content);
                self.idc.send(&frame);
            }
            Ingress::Vxlan { vni } => {
                let vni = vni.number();
                let owner = match &sent.content {
                    crate::row::Content::Ip(ip) => self.region.owner(vni, ip.src),
                    crate::row::Content::Raw(..) => None,
                };
                let (host, mac) = owner.map_or((98, [2, 1, 0, 0, 0, 98]), |vm| (vm.host, vm.mac));
                let to = sent.mac.unwrap_or(Mac::GATEWAY.bytes());
                let outer = Outer {
                    src: self.region.vtep(host),
                    dst: self.region.vtep(1),
                    dscp: sent.outer_dscp,
                    ecn: sent.outer_ecn,
                    port: 49_152 + (marker % 1024) as u16,
                    vni,
                };
                let (outside, packets) = vxlan(&outer, &ethernet(to, mac, ethertype, &content));
                for packet in packets {
                    let frame = ethernet(self.underlay_mac, host_mac(host), outside, &packet);
                    self.underlay.send(&frame);
                }
            }
        }
    }
}

/// What leads from one desired state to another.
fn difference(from: &Desired, to: &Desired) -> Batch {
    let before: BTreeMap<EntryKey, EntryValue> = from.all().collect();
    let after: BTreeMap<EntryKey, EntryValue> = to.all().collect();
    let is_new = |(key, value): &(&EntryKey, &EntryValue)| before.get(key) != Some(value);
    let upserts = after.iter().filter(is_new);
    let gone = before.keys().filter(|key| !after.contains_key(key));
    let other =
        |(prefix, hops): &(&Prefix, &LearnedNextHops)| from.learned.get(prefix) != Some(hops);
    let changed = to
        .learned
        .iter()
        .filter(other)
        .map(|(prefix, hops)| (*prefix, hops.clone()));
    let lost = from
        .learned
        .keys()
        .filter(|prefix| !to.learned.contains_key(prefix));
    let lost = lost.map(|prefix| (*prefix, LearnedNextHops::new()));
    Batch {
        generation: to.generation,
        upserts: upserts
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        removals: gone.cloned().collect(),
        learned: changed.chain(lost).collect(),
        verify: true,
    }
}

impl Drop for World {
    /// Pins of a plane outlive the namespace that they are for.
    fn drop(&mut self) {
        let World { gateway, plane, .. } = self;
        let removed = gateway.namespace.enter(|| plane.remove());
        if !std::thread::panicking() {
            removed.expect("enter").expect("removed");
        }
    }
}

/// Takes apart what was seen, but for what every host says of itself.
fn output(underlay: Vec<Frame>, idc: Vec<Frame>) -> Result<Output, String> {
    let said = underlay.into_iter().filter(|frame| !frame.is_chatter());
    let packets = said.map(|frame| (frame.ethertype, frame.content)).collect();
    let mut to_vpc = Vec::new();
    for (ethertype, content) in whole(packets)? {
        let frame = Frame {
            dst: [0; 6],
            src: [0; 6],
            ethertype,
            content,
        };
        let tunnelled =
            Tunnelled::read(&frame).map_err(|error| format!("{error} in {frame:02x?}"))?;
        if !tunnelled.inner.is_chatter() {
            to_vpc.push(tunnelled);
        }
    }
    let to_idc = idc
        .into_iter()
        .filter(|frame| !frame.is_chatter())
        .collect();
    Ok(Output { to_vpc, to_idc })
}

fn host_mac(number: u8) -> [u8; 6] {
    [2, 0x16, 0, 0, 0, number]
}

impl Node {
    /// Writes a setting below /proc/sys/net.
    fn set(&self, path: &str, value: &str) {
        let path = format!("/proc/sys/net/{path}");
        let written = self.namespace.enter(|| std::fs::write(&path, value));
        let written = written.expect("enter");
        written.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Tells it the MACs of everybody, so that nobody is asked.
    fn meet(&mut self, region: &Region) {
        let (under, idc) = (self.index("under0"), self.index("idc0"));
        let mut requests = Vec::new();
        for number in NUMBERS {
            let mut known = |index, addr, mac| {
                let neighbour = Neighbour::permanent(index, addr, netlink::Mac(mac));
                requests.push(Request::replace_neighbour(neighbour));
            };
            known(under, region.vtep(number), host_mac(number));
            let router = Router(number);
            for v4 in [true, false] {
                known(idc, router.addr(v4), router.mac());
            }
        }
        self.netlink.batch(&requests).expect("neighbours");
    }
}

fn config(region: &Region) -> PlaneConfig {
    let (vtep, mtu) = (region.vtep(1), region.mtu());
    let text = format!("vtep = \"{vtep}\"\nidc_interfaces = [\"idc0\"]\nmtu = {mtu}\n");
    toml::from_str(&text).expect("a configuration")
}

/// Whether an address is the gateway's own.
pub(crate) fn is_own(addr: IpAddr, region: &Region) -> bool {
    addr == region.vtep(1) || IDC_ADDRS.iter().any(|own| ip(own) == addr)
}
