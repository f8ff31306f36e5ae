//! TCP through the gateway: how much a connection carries in a second, between a classic host and a VM,
//! each in the namespace behind one of the gateway's interfaces.
//!
//! Segments of up to 64 kB cross veth unbroken where the gateway lets them. The sender is on one CPU, with
//! all that forwards, and the receiver on another, if there is one.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use netlink::{ForwardingEntry, Mac, Namespace, NewLink, Request};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::Failure;
use super::shape::{self, CLASSIC, CLOUD, HOSTS, Shape, VNI};
use super::stage::{HOST_ROUTER, IDC, IDC_ADDRESS, Stage, UNDERLAY, VTEP, add_route_by_mac};
use super::subject::{MAC, MTU, PLAIN_VNI, VXLAN_PORT};

const PORT: u16 = 5001;
/// How long an end may wait for the other.
const PATIENCE: Duration = Duration::from_secs(20);
/// Octets written at once.
const CHUNK: usize = 1 << 20;

/// Which way the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the classic host to the VM.
    ToVpc,
    /// The other way round.
    FromVpc,
}

/// The two ends, on a stage whose gateway knows VM number 0.
#[derive(Debug)]
pub struct Ends<'a> {
    classic: (&'a Namespace, Ipv4Addr),
    vm: (&'a Namespace, Ipv4Addr),
}

impl Ends<'_> {
    /// Gives both ends addresses and ways to each other.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn equip<'a>(stage: &'a mut Stage, shape: &Shape) -> Result<Ends<'a>, Failure> {
        let classic_address = Ipv4Addr::from_bits(CLASSIC.0.to_bits() + 1);
        let vm_address = shape.address(0);
        let alone = |address| Ipv4Net::new(address, 32);
        let (classic, cloud) = (
            Ipv4Net::new(CLASSIC.0, CLASSIC.1)?,
            Ipv4Net::new(CLOUD.0, CLOUD.1)?,
        );

        let node = &mut stage.classic;
        // Its only address, so that it is what it sends from; the gateway knows it by its MAC.
        node.add_addresses(IDC, &[alone(classic_address)?.into()])?;
        let out = node.link(IDC)?.index;
        let gateway = stage.idc.mac.ok_or("an interface without a MAC")?;
        add_route_by_mac(node, cloud, out, IDC_ADDRESS, gateway)?;

        let node = &mut stage.host;
        let router = Ipv4Net::new(HOST_ROUTER, 24)?;
        node.add_addresses(UNDERLAY, &[router.into(), alone(HOSTS)?.into()])?;
        let mac = Mac(shape::mac(0)?.bytes());
        // The plain gateway answers with another VNI than it is sent.
        for (name, vni) in [("vx", VNI), ("vx-back", PLAIN_VNI)] {
            let device = NewLink::vxlan(name, vni, HOSTS.into(), VXLAN_PORT);
            node.add_link(device.mac(mac).mtu(MTU))?;
        }
        node.add_addresses("vx", &[alone(vm_address)?.into()])?;
        let out = node.link("vx")?.index;
        let entry = ForwardingEntry::remote(out, MAC, VTEP.into());
        node.batch("know the gateway", &[Request::add_forwarding_entry(entry)])?;
        add_route_by_mac(node, classic, out, Ipv4Addr::new(169, 254, 0, 1), MAC)?;
        Ok(Ends {
            classic: (stage.classic.namespace(), classic_address),
            vm: (stage.host.namespace(), vm_address),
        })
    }

    /// Sends for a while; gigabits a second that arrived.
    ///
    /// # Errors
    /// No connection comes about, or it breaks.
    pub fn measure(&self, direction: Direction, time: Duration) -> Result<f64, Failure> {
        let (from, to) = match direction {
            Direction::ToVpc => (self.classic, self.vm),
            Direction::FromVpc => (self.vm, self.classic),
        };
        let (sending, receiving) = two_cpus()?;
        let address = SocketAddr::from((to.1, PORT));
        let listener = to.0.enter(|| TcpListener::bind(address))??;
        thread::scope(|scope| {
            let receiver = scope.spawn(|| -> io::Result<f64> {
                stay_on(receiving)?;
                receive(&listener)
            });
            let sent = from.0.enter(|| -> io::Result<()> {
                stay_on(sending)?;
                send(address, time)
            });
            let received = receiver.join().map_err(|_| "the receiver panicked")?;
            sent??;
            Ok(received?)
        })
    }
}

fn send(to: SocketAddr, time: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE / 2)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let chunk = vec![0; CHUNK];
    let began = Instant::now();
    while began.elapsed() < time {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

/// Gigabits a second, from the first octet to the last.
fn receive(listener: &TcpListener) -> io::Result<f64> {
    listener.set_nonblocking(true)?;
    let waiting = Instant::now();
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(error) if waiting.elapsed() > PATIENCE => return Err(error),
            Err(_) => thread::yield_now(),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; CHUNK];
    let mut octets = stream.read(&mut buffer)?;
    let began = Instant::now();
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            some => octets += some,
        }
    }
    Ok(octets as f64 * 8.0 / began.elapsed().as_secs_f64() / 1e9)
}

fn stay_on(cpu: usize) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}

/// The last two CPUs that this thread may run on, or twice the only one.
fn two_cpus() -> Result<(usize, usize), Failure> {
    let cpus = sched_getaffinity(Pid::from_raw(0))?;
    let mut usable = (0..CpuSet::count())
        .rev()
        .filter(|cpu| cpus.is_set(*cpu).unwrap_or(false));
    let last = usable.next().ok_or("there is no CPU to run on")?;
    Ok((last, usable.next().unwrap_or(last)))
}
