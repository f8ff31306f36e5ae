//! Numbered UDP packets: so many sent, and exactly which of them arrived, how often and in which
//! order.
//!
//! A lost packet is a gap in the numbers, never an estimate. Packets that overran the receiver's
//! own queue are told apart from packets lost on the way (see [`Report::overruns`]): the first is a
//! slow machine, the second is a bug.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netlink::Namespace;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;

use super::{TrafficError, batch, inside, name};
use crate::wait::{TimedOut, eventually};

/// Begins every numbered packet.
const MAGIC: [u8; 4] = *b"ccn#";
/// Magic, flow, number.
const HEADER: usize = 4 + 8 + 8;
/// Asked of the kernel for the receiver's queue, bytes.
const QUEUE: usize = 32 << 20;
/// How often a thread looks whether it should end.
const PATIENCE: Duration = Duration::from_millis(10);
/// How long senders and receivers that keep up let packets gather, so that one wake is for many.
const GATHER: Duration = Duration::from_micros(200);
/// In a counted burst: how many packets may be on their way, so that a receiver that does not get
/// the processor for a while does not lose any in its own queue.
const WINDOW: u64 = 128;
/// In a counted burst: after so long without an arrival, what is on its way counts as lost.
const STALL: Duration = Duration::from_millis(250);
/// How long after the last packet sent the receiver waits for a straggler.
const STRAGGLERS: Duration = Duration::from_millis(500);

static NEXT_FLOW: AtomicU64 = AtomicU64::new(1);

/// A UDP receiver in a namespace, for any number of flows. Dropping it closes its port.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Arrivals>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Arrivals {
    flows: Mutex<HashMap<u64, Tally>>,
    /// UDP packets that were not numbered ones.
    strays: AtomicU64,
    ended: AtomicBool,
    /// The kernel's count of packets that found the queue full.
    overruns: AtomicU64,
}

/// What has arrived of one flow.
#[derive(Debug, Clone, Default)]
struct Tally {
    /// One bit a number.
    seen: Vec<u64>,
    unique: u64,
    duplicates: u64,
    reordered: u64,
    highest: Option<u64>,
    sources: Vec<SocketAddr>,
    last: Option<Instant>,
    longest_gap: Duration,
}

impl Receiver {
    /// Opens a port; port 0 takes a free one, see [`Receiver::address`].
    ///
    /// # Errors
    /// The address is not one of the namespace's, or the port is taken.
    pub fn open(namespace: &Namespace, address: SocketAddr) -> Result<Self, TrafficError> {
        let place = format!("{} {address}", name(namespace));
        let socket = inside(namespace, || UdpSocket::bind(address))
            .map_err(TrafficError::at(&place, "open a UDP port"))?;
        prepare(&socket).map_err(TrafficError::at(&place, "set up a UDP socket"))?;
        let address = socket
            .local_addr()
            .map_err(TrafficError::at(&place, "read its own address"))?;
        let shared = Arc::new(Arrivals::default());
        let reader = std::thread::Builder::new()
            .name(format!("receive {address}"))
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.read(&socket)
            })
            .map_err(TrafficError::at(&place, "start a receiver"))?;
        Ok(Self {
            address,
            shared,
            reader: Some(reader),
        })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All UDP packets that arrived, of whatever flow or none: what a host sees that should not be
    /// reached at all.
    pub fn total(&self) -> u64 {
        let flows = self.shared.flows();
        let numbered: u64 = flows
            .values()
            .map(|tally| tally.unique + tally.duplicates)
            .sum();
        numbered + self.shared.strays.load(Ordering::Relaxed)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // It does not panic; if it did, the port is closed all the same.
            let _ = reader.join();
        }
    }
}

impl Arrivals {
    fn flows(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Tally>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, socket: &UdpSocket) {
        let mut buffers = batch::buffers();
        let mut arrivals = Vec::with_capacity(batch::MOST);
        while !self.ended.load(Ordering::Relaxed) {
            let came = batch::receive(socket, &mut buffers, |payload, source| {
                arrivals.push((parse(payload), source));
            });
            self.count(arrivals.drain(..));
            match came {
                // Nothing for a while.
                Err(_) => self.overruns.store(overruns(socket), Ordering::Relaxed),
                // More may be there by now: one wake for many packets.
                Ok(count) if count < batch::MOST => std::thread::sleep(GATHER),
                Ok(_) => (),
            }
        }
    }

    fn count(&self, arrivals: impl Iterator<Item = (Option<(u64, u64)>, SocketAddr)>) {
        let mut flows = self.flows();
        for (numbered, source) in arrivals {
            match numbered {
                Some((flow, number)) => flows.entry(flow).or_default().count(number, source),
                None => {
                    self.strays.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn arrived(&self, flow: u64) -> u64 {
        self.flows().get(&flow).map_or(0, |tally| tally.unique)
    }
}

impl Tally {
    fn count(&mut self, number: u64, source: SocketAddr) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.longest_gap = self.longest_gap.max(now - last);
        }
        // The lab numbers from 0, so the words grow with what was sent.
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicates += 1;
            return;
        }
        self.seen[word] |= bit;
        self.unique += 1;
        match self.highest {
            Some(highest) if number < highest => self.reordered += 1,
            _ => self.highest = Some(number),
        }
        if !self.sources.contains(&source) {
            self.sources.push(source);
        }
    }

    fn has(&self, number: u64) -> bool {
        let word = self.seen.get((number / 64) as usize).copied().unwrap_or(0);
        word & (1 << (number % 64)) != 0
    }
}

/// Waits until so many packets more of each flow, one at least, have arrived.
///
/// # Errors
/// Not in time, with how many have.
pub fn pass<'f>(
    flows: impl Iterator<Item = (&'f Flow, &'f Receiver)> + Clone,
    more: u64,
    within: Duration,
) -> Result<(), TimedOut> {
    let arrived = || flows.clone().map(|(flow, at)| flow.arrived(at));
    let then: Vec<u64> = arrived().collect();
    eventually("packets pass", within, || {
        let grown: Vec<u64> = arrived().zip(&then).map(|(now, then)| now - then).collect();
        match grown.iter().all(|grown| *grown >= more.max(1)) {
            true => Ok(()),
            false => Err(format!("{grown:?} of {more}")),
        }
    })
}

/// What became of the packets of one flow.
#[derive(Debug, Clone)]
pub struct Report {
    /// Packets sent.
    pub sent: u64,
    /// Different ones that arrived.
    pub arrived: u64,
    /// Arrivals of a packet that had arrived before.
    pub duplicates: u64,
    /// Arrivals after one with a higher number.
    pub reordered: u64,
    /// The numbers that never arrived, as ranges in order.
    pub missing: Vec<RangeInclusive<u64>>,
    /// Where they came from, as the receiver saw it.
    pub sources: Vec<SocketAddr>,
    /// The longest time between two arrivals.
    pub longest_gap: Duration,
    /// Packets the sender's own kernel refused (no route, neighbour not there), with the last error.
    pub refused: u64,
    /// The last error of sending.
    pub last_refusal: Option<String>,
    /// Packets that reached the receiver's host and found its queue full, of all flows to that
    /// port. If this is not 0 the machine was too slow for the test, not the product.
    pub overruns: u64,
}

impl Report {
    /// How many were sent and never arrived.
    pub fn lost(&self) -> u64 {
        self.sent - self.arrived
    }

    /// Every packet arrived, once.
    pub fn is_perfect(&self) -> bool {
        self.sent > 0 && self.lost() == 0 && self.duplicates == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sent, {} arrived, {} lost, {} duplicates, {} reordered, longest gap {} ms",
            self.sent,
            self.arrived,
            self.lost(),
            self.duplicates,
            self.reordered,
            self.longest_gap.as_millis()
        )?;
        if let (Some(first), Some(last)) = (self.missing.first(), self.missing.last()) {
            let ranges = self.missing.len();
            write!(
                f,
                "; missing {ranges} ranges from {} to {}",
                first.start(),
                last.end()
            )?;
        }
        if let Some(error) = &self.last_refusal {
            write!(
                f,
                "; {} refused by the sender's kernel: {error}",
                self.refused
            )?;
        }
        match self.overruns {
            0 => Ok(()),
            overruns => write!(f, "; {overruns} overran the receiver's queue"),
        }
    }
}

/// Where a flow starts and what its packets are.
#[derive(Debug, Clone)]
pub struct Origin<'a> {
    /// The sender's namespace.
    pub namespace: &'a Namespace,
    /// Source address; unspecified leaves it to the kernel.
    pub source: Option<IpAddr>,
    /// UDP payload, bytes: 20 to 1400.
    pub size: usize,
}

impl<'a> Origin<'a> {
    /// Packets of 64 bytes of payload from the namespace's own choice of address.
    pub fn new(namespace: &'a Namespace) -> Self {
        Self {
            namespace,
            source: None,
            size: 64,
        }
    }

    /// From this address.
    pub fn from(self, source: IpAddr) -> Self {
        Self {
            source: Some(source),
            ..self
        }
    }

    fn open(&self, to: SocketAddr) -> Result<UdpSocket, TrafficError> {
        let unspecified = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let source = SocketAddr::new(self.source.unwrap_or(unspecified), 0);
        inside(self.namespace, || UdpSocket::bind(source)).map_err(TrafficError::at(
            format!("{} {source}", name(self.namespace)),
            "open a UDP port",
        ))
    }

    fn payload(&self, flow: u64) -> Vec<u8> {
        let mut payload = vec![0; self.size.clamp(HEADER, 1400)];
        payload[..4].copy_from_slice(&MAGIC);
        payload[4..12].copy_from_slice(&flow.to_be_bytes());
        payload
    }
}

/// Sends `count` packets to `to` as fast as they arrive, and counts them at `receiver`, which is
/// where the network is expected to bring them.
///
/// At most 128 are on their way at a time, so a slow machine makes this slow but loses nothing.
///
/// # Errors
/// The sender's socket cannot be had.
pub fn send(
    origin: &Origin<'_>,
    to: SocketAddr,
    receiver: &Receiver,
    count: u64,
) -> Result<Report, TrafficError> {
    let socket = origin.open(to)?;
    let flow = NEXT_FLOW.fetch_add(1, Ordering::Relaxed);
    let mut payload = origin.payload(flow);
    let mut sent = Sent::default();
    let mut given_up = 0;
    let mut arrived = (0, Instant::now());
    while sent.count < count {
        let on_their_way = sent.count - arrived.0 - given_up;
        if on_their_way < WINDOW {
            sent.send(&socket, to, &mut payload);
            continue;
        }
        let now = receiver.shared.arrived(flow);
        if now > arrived.0 {
            // A packet given up may have arrived late after all.
            given_up = given_up.min(sent.count - now);
            arrived = (now, Instant::now());
        } else if arrived.1.elapsed() > STALL {
            given_up = sent.count - arrived.0;
            arrived.1 = Instant::now();
        } else {
            std::thread::yield_now();
        }
    }
    Ok(receiver.report(flow, &sent))
}

/// Sends `count` packets to `to`, for which nobody counts arrivals, no faster than a packet each
/// 50 us. Answers how many the sender's own kernel refused.
///
/// # Errors
/// The sender's socket cannot be had.
pub fn send_off(origin: &Origin<'_>, to: SocketAddr, count: u64) -> Result<u64, TrafficError> {
    const PAUSE: Duration = Duration::from_micros(50);
    let socket = origin.open(to)?;
    let mut payload = origin.payload(NEXT_FLOW.fetch_add(1, Ordering::Relaxed));
    let mut sent = Sent::default();
    while sent.count < count {
        sent.send(&socket, to, &mut payload);
        std::thread::sleep(PAUSE);
    }
    Ok(sent.refused)
}

/// A steady flow at a set rate, until it is stopped: to have traffic on the way while something
/// happens to the network.
#[derive(Debug)]
pub struct Flow {
    id: u64,
    ended: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    sender: Option<JoinHandle<Sent>>,
}

impl Flow {
    /// Starts sending `rate` packets a second (1 to 100,000) to `to`. When the sender's thread was
    /// kept from running it catches up, so the rate holds on average.
    ///
    /// # Errors
    /// The sender's socket or thread cannot be had.
    pub fn start(origin: &Origin<'_>, to: SocketAddr, rate: u32) -> Result<Self, TrafficError> {
        let socket = origin.open(to)?;
        let id = NEXT_FLOW.fetch_add(1, Ordering::Relaxed);
        let payload = origin.payload(id);
        let (ended, count) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let sender = std::thread::Builder::new()
            .name(format!("flow to {to}"))
            .spawn({
                let (ended, count) = (Arc::clone(&ended), Arc::clone(&count));
                let pause = Duration::from_secs(1) / rate.clamp(1, 100_000);
                move || pace(&socket, to, payload, pause, &ended, &count)
            })
            .map_err(TrafficError::at(to, "start a sender"))?;
        Ok(Self {
            id,
            ended,
            count,
            sender: Some(sender),
        })
    }

    /// Packets sent so far.
    pub fn sent(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Packets of this flow that have arrived at `receiver` so far.
    pub fn arrived(&self, receiver: &Receiver) -> u64 {
        receiver.shared.arrived(self.id)
    }

    /// Stops sending, waits for stragglers, and counts.
    pub fn stop(mut self, receiver: &Receiver) -> Report {
        let sent = self.end().unwrap_or_default();
        receiver.report(self.id, &sent)
    }

    fn end(&mut self) -> Option<Sent> {
        self.ended.store(true, Ordering::Relaxed);
        self.sender.take()?.join().ok()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.end();
    }
}

#[derive(Debug, Default)]
struct Sent {
    count: u64,
    refused: u64,
    last_refusal: Option<String>,
}

impl Sent {
    /// Sends the next number. What the sender's kernel refuses counts as sent: it was lost there.
    fn send(&mut self, socket: &UdpSocket, to: SocketAddr, payload: &mut [u8]) {
        payload[12..HEADER].copy_from_slice(&self.count.to_be_bytes());
        if let Err(error) = socket.send_to(payload, to) {
            self.refused += 1;
            self.last_refusal = Some(error.to_string());
        }
        self.count += 1;
    }

    /// Sends the next numbers, as many as there are payloads or the kernel takes at once. Answers how
    /// many; one that is refused counts as sent.
    fn batch(&mut self, socket: &UdpSocket, to: SocketAddr, payloads: &mut [Vec<u8>]) -> u32 {
        for (number, payload) in (self.count..).zip(&mut *payloads) {
            payload[12..HEADER].copy_from_slice(&number.to_be_bytes());
        }
        let taken = batch::send(socket, to, payloads).unwrap_or_else(|error| {
            self.refused += 1;
            self.last_refusal = Some(std::io::Error::from(error).to_string());
            1
        });
        self.count += taken as u64;
        taken as u32
    }
}

fn pace(
    socket: &UdpSocket,
    to: SocketAddr,
    payload: Vec<u8>,
    pause: Duration,
    ended: &AtomicBool,
    count: &AtomicU64,
) -> Sent {
    let mut sent = Sent::default();
    let mut payloads = vec![payload; batch::MOST];
    let mut due = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now < due {
            std::thread::sleep((due - now).max(GATHER));
            continue;
        }
        let late = (now - due).as_nanos() / pause.as_nanos();
        let batch = &mut payloads[..(late as usize + 1).min(batch::MOST)];
        due += pause * sent.batch(socket, to, batch);
        count.store(sent.count, Ordering::Relaxed);
    }
    sent
}

impl Receiver {
    /// Waits until all has arrived or nothing more comes, and counts.
    fn report(&self, flow: u64, sent: &Sent) -> Report {
        let mut last = (self.shared.arrived(flow), Instant::now());
        while last.0 < sent.count && last.1.elapsed() < STRAGGLERS {
            std::thread::sleep(Duration::from_millis(1));
            let now = self.shared.arrived(flow);
            if now > last.0 {
                last = (now, Instant::now());
            }
        }
        let tally = self.shared.flows().get(&flow).cloned().unwrap_or_default();
        Report {
            sent: sent.count,
            arrived: tally.unique,
            duplicates: tally.duplicates,
            reordered: tally.reordered,
            missing: missing(&tally, sent.count),
            sources: tally.sources,
            longest_gap: tally.longest_gap,
            refused: sent.refused,
            last_refusal: sent.last_refusal.clone(),
            overruns: self.shared.overruns.load(Ordering::Relaxed),
        }
    }
}

fn missing(tally: &Tally, sent: u64) -> Vec<RangeInclusive<u64>> {
    let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
    for number in (0..sent).filter(|number| !tally.has(*number)) {
        match ranges.last_mut() {
            Some(range) if *range.end() + 1 == number => *range = *range.start()..=number,
            _ => ranges.push(number..=number),
        }
    }
    ranges
}

/// The flow and number of a numbered packet.
pub fn parse(payload: &[u8]) -> Option<(u64, u64)> {
    let (magic, rest) = payload.split_first_chunk::<4>()?;
    let (flow, rest) = rest.split_first_chunk::<8>()?;
    let (number, _) = rest.split_first_chunk::<8>()?;
    (*magic == MAGIC).then(|| (u64::from_be_bytes(*flow), u64::from_be_bytes(*number)))
}

fn prepare(socket: &UdpSocket) -> io::Result<()> {
    // SO_RCVBUFFORCE knows no limit but needs root on the host; else the host's limit holds.
    if setsockopt(socket, sockopt::RcvBufForce, &QUEUE).is_err() {
        SockRef::from(socket).set_recv_buffer_size(QUEUE)?;
    }
    socket.set_read_timeout(Some(PATIENCE))
}

/// How many packets the kernel dropped because this socket's queue was full.
fn overruns(socket: &UdpSocket) -> u64 {
    /// Place of the count in the answer to SO_MEMINFO (`SK_MEMINFO_DROPS` of linux/sock_diag.h).
    const DROPS: usize = 8;
    let mut info = [0_u32; DROPS + 1];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the pointers are to an array of the length given, and to that length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { info[DROPS].into() } else { 0 }
}
