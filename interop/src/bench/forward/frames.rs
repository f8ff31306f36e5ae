//! The packets: written by a program inside the kernel, one a live frame, and counted by another
//! where they leave the gateway.
//!
//! The other half is interop/bpf/forward.bpf.c. The generator runs in `BPF_PROG_TEST_RUN`, which gives
//! frames to the stack as a driver does, as received by a given interface: there is no sender whose
//! cost would be counted. The sink takes packets away on egress, before the device.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use netlink::Mac;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::Failure;
use super::shape::{self, Shape};
use super::softirqs::Softirqs;

/// The program, as built by interop/bpf/build.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/forward.bpf.o");

const ETHERNET: usize = 14;
const IP: usize = 20;
/// Octets of an Ethernet frame without its checksum: 64 on the wire.
pub const PLAIN: usize = 60;
const OUTER: usize = ETHERNET + IP + 8 + 8;
const ENCAPSULATED: usize = OUTER + PLAIN;
const UDP: u8 = 17;
const VXLAN_PORT: u16 = 4789;
/// Frames handed to the stack at once, as many as a driver's poll takes.
const BATCH: u32 = 64;
/// Of a `struct work`, octets.
const WORK: usize = 208;
/// Where in it the packets given to the stack are counted.
const SENT: usize = 8;

/// Whose packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Classic hosts.
    Classic,
    /// VMs.
    Vm,
}

/// What the sink tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UDP over IPv4.
    Plain,
    /// VXLAN over IPv4.
    Vxlan,
}

/// Where encapsulated packets come to.
#[derive(Debug, Clone, Copy)]
pub struct Tunnel {
    /// The gateway's VTEP.
    pub vtep: Ipv4Addr,
    /// MAC of its VXLAN device.
    pub mac: Mac,
    /// All VPCs have the VNI of the first: the device knows only that.
    pub one_vni: bool,
}

/// Which packets to make.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// What they are drawn from.
    pub shape: Shape,
    /// Their source.
    pub from: Side,
    /// Their destination.
    pub to: Side,
    /// They come encapsulated.
    pub tunnel: Option<Tunnel>,
    /// MAC of the interface they come in by.
    pub mac: Mac,
    /// So many different flows, or 0: no bound.
    pub flows: u32,
    /// Flows one after the other, each once, instead of at random.
    pub in_order: bool,
    /// The stack never sees them.
    pub drop: bool,
}

impl Work {
    /// Octets of a frame.
    fn length(&self) -> usize {
        match self.tunnel {
            Some(_) => ENCAPSULATED,
            None => PLAIN,
        }
    }

    /// As the program takes it.
    fn bytes(&self) -> [u8; WORK] {
        let mut frame = [0; 112];
        let inner_at = self.tunnel.map_or(0, |_| OUTER);
        let mut outer_sum = 0;
        if let Some(tunnel) = self.tunnel {
            outer_sum = datagram(&mut frame, self.mac, ENCAPSULATED - ETHERNET, VXLAN_PORT);
            frame[ETHERNET + 16..ETHERNET + 20].copy_from_slice(&tunnel.vtep.octets());
            outer_sum += sum(&tunnel.vtep.octets());
            // VXLAN: the flag that says that there is a VNI.
            frame[ETHERNET + IP + 8] = 0x08;
        }
        let mac = self.tunnel.map_or(self.mac, |tunnel| tunnel.mac);
        let inner_sum = datagram(&mut frame[inner_at..], mac, PLAIN - ETHERNET, 80);
        if self.from == Side::Vm {
            // The program writes the other port.
            let port = inner_at + ETHERNET + IP;
            frame[port..port + 2].copy_from_slice(&80u16.to_be_bytes());
        }
        let shape = self.shape;
        let vni_step = self.tunnel.is_none_or(|tunnel| !tunnel.one_vni);
        let numbers = [
            self.flows,
            self.in_order.into(),
            (self.from == Side::Vm).into(),
            (self.to == Side::Vm).into(),
            self.tunnel.is_some().into(),
            self.drop.into(),
            shape.vms,
            shape.vpcs,
            shape.scope_vpcs(),
            shape::CLOUD.0.to_bits(),
            shape.bits().into(),
            shape.hosts(),
            shape::HOSTS.to_bits(),
            shape.classics,
            shape::CLASSIC.0.to_bits(),
            shape::VNI,
            vni_step.into(),
            outer_sum,
            inner_sum,
            0,
        ];
        let mut bytes = [0; WORK];
        // Random numbers begin anywhere; flows in order with the first.
        let state: u64 = if self.in_order { 0 } else { 0x5eed };
        bytes[..8].copy_from_slice(&state.to_ne_bytes());
        for (place, number) in bytes[16..].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes[WORK - frame.len()..].copy_from_slice(&frame);
        bytes
    }
}

/// Writes the headers of an IPv4 packet with UDP in it, without addresses and source port. Answers with
/// the sum of the IP header's words.
fn datagram(frame: &mut [u8], to: Mac, length: usize, port: u16) -> u32 {
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&[2, 0xfe, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&[8, 0]);
    let (ip, rest) = frame[ETHERNET..].split_at_mut(IP);
    ip[0] = 0x45;
    // A frame has far fewer than 65,536 octets.
    ip[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    // Don't fragment, TTL 64.
    ip[6..9].copy_from_slice(&[0x40, 0, 64]);
    ip[9] = UDP;
    rest[2..4].copy_from_slice(&port.to_be_bytes());
    rest[4..6].copy_from_slice(&((length - IP) as u16).to_be_bytes());
    sum(ip)
}

/// Sum of the words of a header, not folded.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(2);
    words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum()
}

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Packets given to the stack.
    pub sent: u64,
    /// Packets of the wanted kind that came to the sink.
    pub arrived: u64,
    /// Packets made, whether or not the stack saw them.
    pub made: u64,
    /// CPU time of the thread, with the softirqs that ran on it, and of those that were put off.
    pub cpu: Duration,
}

/// Both programs, loaded once for all subjects.
pub struct Frames {
    ebpf: Ebpf,
    works: Array<MapData, [u8; WORK]>,
    sunk: PerCpuArray<MapData, u64>,
    cpu: usize,
    softirqs: Option<Softirqs>,
}

impl Frames {
    /// Loads the programs; runs will be on this CPU.
    ///
    /// # Errors
    /// The system refuses (`CAP_BPF`, `CAP_NET_ADMIN`, outside of user namespaces).
    pub fn load(cpu: usize) -> Result<Frames, Failure> {
        let mut ebpf = Ebpf::load(OBJECT)
            .map_err(|error| format!("cannot load BPF programs (run as root): {error}"))?;
        let generator: &mut Xdp = program(&mut ebpf, "generate")?;
        generator.load()?;
        let sink: &mut SchedClassifier = program(&mut ebpf, "sink")?;
        sink.load()?;
        let works = ebpf.take_map("works").ok_or("the object has no works")?;
        let sunk = ebpf.take_map("sunk").ok_or("the object has no sunk")?;
        Ok(Frames {
            ebpf,
            works: Array::try_from(works)?,
            sunk: PerCpuArray::try_from(sunk)?,
            cpu,
            softirqs: Softirqs::handed_down(),
        })
    }

    /// The sink's program, to be put on the egress of interfaces. Valid as long as `self`.
    ///
    /// # Errors
    /// It is not loaded.
    pub fn sink(&mut self) -> Result<RawFd, Failure> {
        let sink: &mut SchedClassifier = program(&mut self.ebpf, "sink")?;
        Ok(sink.fd()?.as_fd().as_raw_fd())
    }

    /// Makes `packets` packets, as received by the interface with this index in the namespace of the
    /// calling thread, which stays on its CPU from then on. A packet still on its way counts as lost.
    ///
    /// # Errors
    /// The system refuses.
    pub fn run(
        &mut self,
        work: &Work,
        ifindex: u32,
        packets: u32,
        wanted: Kind,
    ) -> Result<Run, Failure> {
        let mut cpus = CpuSet::new();
        cpus.set(self.cpu)?;
        sched_setaffinity(Pid::from_raw(0), &cpus)?;
        self.works.set(0, work.bytes(), 0)?;
        let before = self.sunk(wanted)?;

        let frame = vec![0; work.length()];
        // struct xdp_md: the frame has no metadata.
        let length = frame.len() as u32;
        let context = [0, length, 0, ifindex, 0, 0].map(u32::to_ne_bytes);
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(context.as_flattened()),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        let generator: &mut Xdp = program(&mut self.ebpf, "generate")?;
        let put_off = || {
            self.softirqs
                .as_ref()
                .map_or(Ok(Duration::ZERO), Softirqs::cpu)
        };
        let (softirqs, own) = (put_off()?, thread_time()?);
        generator.test_run(options)?;
        let own = thread_time()?.saturating_sub(own);
        let cpu = own + put_off()?.saturating_sub(softirqs);

        let sent = self.works.get(&0, 0)?[SENT..SENT + 8].try_into()?;
        Ok(Run {
            sent: u64::from_ne_bytes(sent),
            arrived: self.sunk(wanted)? - before,
            made: packets.into(),
            cpu,
        })
    }

    fn sunk(&self, kind: Kind) -> Result<u64, Failure> {
        Ok(self.sunk.get(&(kind as u32), 0)?.iter().sum())
    }
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, Failure>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = ebpf.program_mut(name);
    Ok(program.ok_or("the object lacks a program")?.try_into()?)
}

fn thread_time() -> Result<Duration, Failure> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

#[cfg(test)]
mod tests {
    use ccn::record::Mode;

    use super::*;

    const WORK_OF_A_VM: Work = Work {
        shape: Shape {
            vms: 7,
            vpcs: 2,
            ccsis: 1,
            classics: 3,
            fine_links: false,
            mode: Mode::Both,
        },
        from: Side::Vm,
        to: Side::Classic,
        tunnel: Some(Tunnel {
            vtep: Ipv4Addr::new(172, 16, 0, 1),
            mac: Mac([2, 0xcc, 0x0e, 0, 0, 1]),
            one_vni: false,
        }),
        mac: Mac([2, 0, 0, 0, 0, 9]),
        flows: 5,
        in_order: true,
        drop: false,
    };

    #[test]
    fn the_work_is_laid_out_as_the_program_reads_it() {
        let bytes = WORK_OF_A_VM.bytes();
        let number = |index: usize| {
            let at = 16 + 4 * index;
            u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four"))
        };
        assert_eq!([0, 1, 2, 3, 4].map(number), [5, 1, 1, 0, 1]);
        assert_eq!([6, 7, 8, 13, 15, 16].map(number), [7, 2, 2, 3, 10_000, 1]);
        let frame = &bytes[WORK - 112..];
        assert_eq!(frame[..6], [2, 0, 0, 0, 0, 9]);
        assert_eq!(frame[OUTER..OUTER + 6], [2, 0xcc, 0x0e, 0, 0, 1]);
        assert_eq!(
            frame[ETHERNET + IP + 2..ETHERNET + IP + 4],
            4789u16.to_be_bytes()
        );
        let ports = OUTER + ETHERNET + IP;
        assert_eq!(frame[ports..ports + 4], [0, 80, 0, 80]);
        // Lengths: of the outer packet, and of the inner one.
        assert_eq!(frame[ETHERNET + 2..ETHERNET + 4], 96u16.to_be_bytes());
        assert_eq!(frame[OUTER + ETHERNET + 2..][..2], 46u16.to_be_bytes());
        // 0x4500 + 96 + 0x4000 + 0x4011 + 0xac10 + 0x0001
        assert_eq!(number(17), 0x4500 + 96 + 0x4000 + 0x4011 + 0xac10 + 1);
    }
}
