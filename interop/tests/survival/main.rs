//! What the gateway survives without losing a packet or its word: the end of its agent, a hand that
//! meddles with the kernel, orders that come thick and fast.

#![allow(
    clippy::print_stdout,
    reason = "a test says what it saw; the harness shows it when it fails"
)]

mod cluster;
mod drain;
mod order;
mod repair;
mod restart;

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use interop::scene::Scene;
use interop::traffic::numbered::{Flow, Origin, Receiver, Report};
use interop::wait::eventually;

type Failure = Box<dyn Error + Send + Sync>;

/// How long a condition may take to come true.
const SOON: Duration = Duration::from_secs(30);
/// The port that traffic goes to.
const PORT: u16 = 7000;

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Steady traffic between `alice` and `web-1@web`, both ways, IPv4 and IPv6.
struct Traffic(Vec<Stream>);

struct Stream {
    what: String,
    flow: Flow,
    receiver: Receiver,
}

impl Traffic {
    /// Packets a second of each of the four.
    const RATE: u32 = 500;

    fn start(scene: &Scene) -> Result<Self, Failure> {
        let (host, vm) = (
            scene.region.namespace("alice")?,
            scene.region.namespace("web-1@web")?,
        );
        let mut streams = Vec::new();
        for (outside, inside) in [("10.80.1.10", "10.1.0.11"), ("fd80:1::a", "fd00:1::11")] {
            for (from, src, to, dst) in
                [(&host, outside, &vm, inside), (&vm, inside, &host, outside)]
            {
                let receiver = Receiver::open(to, SocketAddr::new(addr(dst), PORT))?;
                let origin = Origin::new(from).from(addr(src));
                let flow = Flow::start(&origin, receiver.address(), Self::RATE)?;
                streams.push(Stream {
                    what: format!("{src} > {dst}"),
                    flow,
                    receiver,
                });
            }
        }
        Ok(Self(streams))
    }

    /// Waits until each sends `count` packets more.
    fn go_on(&self, count: u64) -> Result<(), Failure> {
        let start = self.sent();
        eventually("traffic goes on", SOON, || {
            let grown: Vec<u64> = self
                .sent()
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

    /// How many packets each has sent so far.
    fn sent(&self) -> Vec<u64> {
        self.0.iter().map(|stream| stream.flow.sent()).collect()
    }

    /// Ends it and counts.
    fn stop(self) -> Vec<Report> {
        let reports = self.0.into_iter().map(
            |Stream {
                 what,
                 flow,
                 receiver,
             }| {
                let report = flow.stop(&receiver);
                println!("{what}: {report}");
                report
            },
        );
        reports.collect()
    }

    /// Ends it; fails if one packet was lost.
    #[track_caller]
    fn was_perfect(self) {
        for report in self.stop() {
            assert!(report.is_perfect(), "{report}");
        }
    }
}
