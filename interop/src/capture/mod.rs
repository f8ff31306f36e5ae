//! Seeing what is on the wire: a packet socket on one interface of one namespace, its frames
//! decoded, counted, and written as pcap for `tshark`. Observes only; sends nothing.

pub mod bgp;
pub mod dissection;
pub mod packet;
pub mod pcap;
pub mod segment;
pub mod tshark;

use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use netlink::Namespace;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use packet::Frame;

/// The most frames one capture holds; what comes after is counted as missed.
const MOST_FRAMES: usize = 400_000;
/// The longest frame: a segment that the kernel has not split yet.
const LONGEST: usize = 0x1_0000 + 64;
/// Asked of the kernel for its own queue, bytes.
const QUEUE: usize = 64 << 20;
/// How often the reader looks whether it should end.
const PATIENCE: Duration = Duration::from_millis(20);

/// A capture could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot capture on {interface}: {action}")]
pub struct CaptureError {
    interface: String,
    action: &'static str,
    #[source]
    source: io::Error,
}

/// Which way a frame went through the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Into this host, or past it.
    In,
    /// Out of this host.
    Out,
}

/// One frame as seen.
#[derive(Debug, Clone)]
pub struct Captured {
    /// When the lab read it.
    pub at: SystemTime,
    /// Its direction.
    pub direction: Direction,
    /// The frame, from the destination MAC on.
    pub bytes: Vec<u8>,
}

/// A running capture. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    ended: AtomicBool,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    frames: Vec<Captured>,
    missed: u64,
}

/// What a capture saw.
#[derive(Debug, Clone, Default)]
pub struct Frames {
    /// The frames, in order.
    pub raw: Vec<Captured>,
    /// How many more there were that the capture had no room for: a count from frames holds only
    /// if this is zero.
    pub missed: u64,
}

impl Capture {
    /// Begins to capture on `interface` of `namespace`; frames after the return are seen.
    ///
    /// # Errors
    /// There is no such interface, or the system refuses (`CAP_NET_RAW`).
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Self, CaptureError> {
        let failed = |action| {
            let interface = interface.to_owned();
            move |source| CaptureError {
                interface,
                action,
                source,
            }
        };
        let socket = namespace
            .enter(|| open(interface))
            .map_err(io::Error::other)
            .and_then(|opened| opened)
            .map_err(failed("open a packet socket"))?;
        let shared = Arc::new(Shared::default());
        let reader = std::thread::Builder::new()
            .name(format!("capture {interface}"))
            .spawn({
                let shared = Arc::clone(&shared);
                move || read(&socket, &shared)
            })
            .map_err(failed("start its reader"))?;
        Ok(Self {
            shared,
            reader: Some(reader),
        })
    }

    /// What was seen so far; the capture goes on.
    pub fn so_far(&self) -> Frames {
        let seen = self
            .shared
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Frames {
            raw: seen.frames,
            missed: seen.missed,
        }
    }

    /// Ends the capture: what was seen, up to the last frame before the call.
    pub fn stop(mut self) -> Frames {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // It does not panic; if it did, what it saw is still worth having.
            let _ = reader.join();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}

impl Frames {
    /// The decoded frames with their direction. Those that cannot be decoded are left out; see
    /// [`Frames::undecodable`].
    pub fn decoded(&self) -> impl Iterator<Item = (Direction, Frame)> + '_ {
        self.raw
            .iter()
            .filter_map(|f| Some((f.direction, Frame::decode(&f.bytes).ok()?)))
    }

    /// The frames that cannot be decoded, with the reason.
    pub fn undecodable(&self) -> impl Iterator<Item = (usize, packet::DecodeError)> + '_ {
        let all = self.raw.iter().enumerate();
        all.filter_map(|(index, f)| Frame::decode(&f.bytes).err().map(|error| (index, error)))
    }

    /// Writes them as a pcap file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        pcap::write(path, &self.raw)
    }
}

fn open(interface: &str) -> io::Result<Socket> {
    let index = if_nametoindex(interface)?;
    // Bound before the protocol is set, so that not one frame of another interface is queued.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    // SO_RCVBUFFORCE knows no limit but needs root on the host; without it the host's limit holds.
    if setsockopt(&socket, sockopt::RcvBufForce, &QUEUE).is_err() {
        socket.set_recv_buffer_size(QUEUE)?;
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.bind(&packet_address(index))?;
    Ok(socket)
}

fn packet_address(index: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is a plain C structure for which any bytes are valid, and it is no larger
    // than sockaddr_storage.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the storage holds a sockaddr_ll, and this is its length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

fn read(socket: &Socket, shared: &Shared) {
    let mut buffer = vec![MaybeUninit::uninit(); LONGEST];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                // SAFETY: the kernel has written this many bytes at the start of the buffer.
                let bytes =
                    unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length) };
                let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.frames.len() < MOST_FRAMES {
                    let (at, bytes) = (SystemTime::now(), bytes.to_vec());
                    seen.frames.push(Captured {
                        at,
                        direction: direction(&from),
                        bytes,
                    });
                } else {
                    seen.missed += 1;
                }
            }
            // Only an empty queue ends it, so all that came before the call to stop is seen.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if shared.ended.load(Ordering::Relaxed) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The interface is gone or down: there may be more later.
            Err(_) if !shared.ended.load(Ordering::Relaxed) => std::thread::sleep(PATIENCE),
            Err(_) => break,
        }
    }
    let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.missed += kernel_drops(socket);
}

fn direction(from: &SockAddr) -> Direction {
    // SAFETY: the address comes from a packet socket, so it is a sockaddr_ll.
    let address = unsafe { &*from.as_ptr().cast::<libc::sockaddr_ll>() };
    match address.sll_pkttype {
        libc::PACKET_OUTGOING => Direction::Out,
        _ => Direction::In,
    }
}

/// How many frames the kernel dropped because its queue for this socket was full.
fn kernel_drops(socket: &Socket) -> u64 {
    use std::os::fd::AsRawFd;
    let mut stats = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the pointers are to a structure of the kernel's type and to its length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        stats.tp_drops.into()
    } else {
        0
    }
}
