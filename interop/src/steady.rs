//! Steady traffic between the ends of a scene: numbered packets that flow while something happens, each counted at the
//! far end.

use std::error::Error;
use std::fmt;
use std::net::{AddrParseError, IpAddr, SocketAddr};
use std::time::Duration;

use crate::scene::Scene;
use crate::topology::TopologyError;
use crate::traffic::TrafficError;
use crate::traffic::numbered::{self, Flow, Origin, Receiver, Report};
use crate::wait::{TimedOut, eventually};

/// How long packets may take to flow on a machine that is busy.
const SOON: Duration = Duration::from_secs(30);

/// Traffic could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SteadyError {
    /// A node that is not there.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// An address that is none.
    #[error(transparent)]
    Address(#[from] AddrParseError),
    /// A socket.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// It does not flow.
    #[error(transparent)]
    Late(#[from] TimedOut),
}

/// An end of traffic: the name of a node, and an address of it.
pub type End<'a> = (&'a str, &'a str);

/// Streams from one end to another.
#[derive(Debug, Default)]
pub struct Traffic(Vec<Stream>);

#[derive(Debug)]
struct Stream {
    what: String,
    flow: Flow,
    receiver: Receiver,
}

/// What became of a stream.
#[derive(Debug, Clone)]
pub struct Told {
    /// Where from and where to.
    pub what: String,
    /// What of it arrived.
    pub report: Report,
}

/// Packets were lost, or came twice.
#[derive(Debug)]
pub struct Imperfect(Vec<Told>);

impl Traffic {
    /// The port of [`Traffic::start`].
    pub const PORT: u16 = 7000;
    /// Packets a second of each stream of [`Traffic::start`].
    pub const RATE: u32 = 500;

    /// Between `alice` and `web-1@web`, both ways, IPv4 and IPv6.
    ///
    /// # Errors
    /// See [`SteadyError`]. That so with all methods here.
    pub fn start(scene: &Scene) -> Result<Self, SteadyError> {
        let mut traffic = Self::default();
        for (outside, inside) in [("10.80.1.10", "10.1.0.11"), ("fd80:1::a", "fd00:1::11")] {
            let ends = [("alice", outside), ("web-1@web", inside)];
            traffic.add_both_ways(scene, ends, Self::PORT, Self::RATE)?;
        }
        Ok(traffic)
    }

    /// One stream more.
    ///
    /// # Errors
    /// See [`SteadyError`].
    pub fn add(
        &mut self,
        scene: &Scene,
        [from, to]: [End<'_>; 2],
        port: u16,
        rate: u32,
    ) -> Result<(), SteadyError> {
        let (src, dst): (IpAddr, IpAddr) = (from.1.parse()?, to.1.parse()?);
        let (origin, end) = (
            scene.region.namespace(from.0)?,
            scene.region.namespace(to.0)?,
        );
        let receiver = Receiver::open(&end, SocketAddr::new(dst, port))?;
        let flow = Flow::start(&Origin::new(&origin).from(src), receiver.address(), rate)?;
        let what = format!("{src} > {}", receiver.address());
        self.0.push(Stream {
            what,
            flow,
            receiver,
        });
        Ok(())
    }

    /// One stream more each way.
    ///
    /// # Errors
    /// See [`SteadyError`].
    pub fn add_both_ways(
        &mut self,
        scene: &Scene,
        [one, other]: [End<'_>; 2],
        port: u16,
        rate: u32,
    ) -> Result<(), SteadyError> {
        self.add(scene, [one, other], port, rate)?;
        self.add(scene, [other, one], port, rate)
    }

    /// Waits until each sends `count` packets more.
    ///
    /// # Errors
    /// Not in time.
    pub fn go_on(&self, count: u64) -> Result<(), SteadyError> {
        let start = self.sent();
        eventually("traffic goes on", SOON, || {
            let sent = self.sent();
            let grown: Vec<u64> = sent
                .iter()
                .zip(&start)
                .map(|(now, then)| now - then)
                .collect();
            match grown.iter().all(|grown| *grown >= count) {
                true => Ok(()),
                false => Err(format!("{grown:?} packets more")),
            }
        })?;
        Ok(())
    }

    /// Waits until `count` packets more of each arrive.
    ///
    /// # Errors
    /// Not in time.
    pub fn pass(&self, count: u64) -> Result<(), SteadyError> {
        let flows = self.0.iter().map(|stream| (&stream.flow, &stream.receiver));
        Ok(numbered::pass(flows, count, SOON)?)
    }

    /// How many packets each has sent so far.
    #[must_use]
    pub fn sent(&self) -> Vec<u64> {
        self.0.iter().map(|stream| stream.flow.sent()).collect()
    }

    /// How many packets of each have arrived so far.
    #[must_use]
    pub fn arrived(&self) -> Vec<u64> {
        let arrived = |stream: &Stream| stream.flow.arrived(&stream.receiver);
        self.0.iter().map(arrived).collect()
    }

    /// Ends it and counts.
    #[must_use]
    pub fn stop(self) -> Vec<Told> {
        let told = |stream: Stream| Told {
            what: stream.what,
            report: stream.flow.stop(&stream.receiver),
        };
        self.0.into_iter().map(told).collect()
    }

    /// Ends it and counts: every packet arrived, once.
    ///
    /// # Errors
    /// One did not.
    pub fn was_perfect(self) -> Result<Vec<Told>, Imperfect> {
        let all = self.stop();
        match all.iter().all(|told| told.report.is_perfect()) {
            true => Ok(all),
            false => Err(Imperfect(all)),
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.report)
    }
}

impl fmt::Display for Imperfect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not every packet arrived once:")?;
        self.0.iter().try_for_each(|told| write!(f, "\n{told}"))
    }
}

impl Error for Imperfect {}
