//! A live agent with a proper peer, a BIRD, and one that is up to no good; what must hold all the
//! time, and when it is over.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use interop::bench::usage::Usage;
use interop::enter::{Chain, Lab};
use interop::gateway::{Gateway, PeerSection};
use interop::hostile::{Hostile, Mask};
use interop::peer::{Daemon, Router, Session};
use interop::topology::{Region, RegionConfig, RouterPlan, plan};
use interop::wait::eventually;
use netlink::Namespace;
use serde_json::{Value, json};

pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// For what takes a second or two on an idle machine.
const SOON: Duration = Duration::from_secs(60);
/// The most memory that the agent may hold, bytes; beside a debug build's own 50 MB this is what a
/// hostile peer may cost.
const MOST_MEMORY: u64 = 256 << 20;
/// Idle: no more CPU than this in a window.
const IDLE: Duration = Duration::from_millis(60);
const WINDOW: Duration = Duration::from_millis(400);
/// The numbers on the IDC LAN.
const BIRD: u8 = 2;
const HOSTILE: u8 = 3;
const STRANGER: u8 = 9;

pub(super) struct Siege {
    gateway: Gateway,
    bird: Box<dyn Router>,
    _region: Region,
    hostile: Arc<Namespace>,
    stranger: Arc<Namespace>,
    /// BIRD's session before it began.
    before: Session,
}

/// Somebody whom the agent does not know.
#[derive(Clone)]
pub(super) struct Stranger(Arc<Namespace>);

impl Stranger {
    /// One connection; `None` when it was closed before this end had noticed that it was there.
    pub(super) fn connect(&self) -> io::Result<Option<Hostile>> {
        let from = IpAddr::from(plan::idc4(STRANGER));
        match Hostile::connect(&self.0, from, Siege::target()) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            connected => connected.map(Some),
        }
    }
}

impl Siege {
    /// The agent, with the session to BIRD up. `change` may alter what it expects of the other peer.
    pub(super) fn lay(lab: &Lab, change: impl FnOnce(&mut PeerSection)) -> Result<Self, Failure> {
        let mut region = Region::build(lab, RegionConfig::default())?;
        let mut router = |name, number| {
            let plan = RouterPlan {
                daemon: Daemon::Bird,
                name,
                number,
                asn: 65000 + u32::from(number),
                lans: &[],
            };
            region.add_router(lab, &plan, |_| {})
        };
        // The other two are there for their namespaces and addresses; no router runs in them.
        let (mut bird, hostile, stranger) = (
            router("r2", BIRD)?,
            router("r3", HOSTILE)?,
            router("r9", STRANGER)?,
        );
        let mut peer = PeerSection {
            passive: true,
            ..PeerSection::of(hostile.config())
        };
        change(&mut peer);
        let peers = [PeerSection::of(bird.config()), peer];
        let namespace = region.gateway().namespace().clone();
        let mac = region.gateway_address().mac;
        let mut gateway = Gateway::new(lab, namespace, mac, peers)?;
        bird.start()?;
        gateway.start()?;
        gateway.put(
            "vpcs/web",
            &json!({"vni": 10001, "subnets": ["192.168.10.0/24"]}),
        )?;
        gateway.ccn(["link", "web", "--classic", "10.80.0.0/16"])?;
        let subnet = "192.168.10.0/24".parse()?;
        bird.await_route(subnet, SOON)?;
        let before = bird.await_established(plan::GATEWAY4.into(), SOON)?;
        Ok(Self {
            before,
            hostile: hostile.namespace().clone(),
            stranger: stranger.namespace().clone(),
            gateway,
            bird,
            _region: region,
        })
    }

    /// The agent's BGP.
    pub(super) fn target() -> SocketAddr {
        (plan::GATEWAY4, 179).into()
    }

    /// What the hostile peer says it is. Without a hold time: it keeps silent as long as it likes.
    pub(super) fn mask() -> Mask {
        Mask {
            asn: 65000 + u16::from(HOSTILE),
            router_id: plan::idc4(HOSTILE),
            hold_time: 0,
        }
    }

    /// A connection of the configured but hostile peer.
    pub(super) fn connect(&self) -> io::Result<Hostile> {
        let from = IpAddr::from(plan::idc4(HOSTILE));
        Hostile::connect(&self.hostile, from, Self::target())
    }

    /// Somebody who is not configured.
    pub(super) fn stranger(&self) -> Stranger {
        Stranger(self.stranger.clone())
    }

    /// An established session of the hostile peer, tried again while the agent is in a pause.
    pub(super) fn establish(&self) -> Result<Hostile, Failure> {
        let from = IpAddr::from(plan::idc4(HOSTILE));
        Ok(eventually("the hostile peer is let in", SOON, || {
            Hostile::establish(&self.hostile, from, Self::target(), &Self::mask())
                .map_err(|error| error.to_string())
        })?)
    }

    /// What `ccn peers` says: BIRD's session, and the hostile one.
    pub(super) fn peers(&self) -> Result<[Value; 2], Failure> {
        let peers = self.gateway.json(["peers"])?;
        match peers.as_array().map(Vec::as_slice) {
            Some([bird, hostile]) => Ok([bird.clone(), hostile.clone()]),
            _ => Err(format!("two peers are expected: {peers}").into()),
        }
    }

    /// What `ccn routes` says was learned.
    pub(super) fn learned(&self) -> Result<usize, Failure> {
        let routes = self.gateway.json(["routes"])?;
        let all = routes.as_array().into_iter().flatten();
        Ok(all.filter(|route| route["direction"] == "learned").count())
    }

    /// Memory and CPU time of the agent.
    pub(super) fn usage(&mut self) -> Result<Usage, Failure> {
        let agent = self.gateway.agent()?.id();
        Ok(Usage::of(&[agent])?)
    }

    /// What must hold at any time: `ccn peers` answers, BIRD's session was not interrupted, and the
    /// agent's memory is bounded.
    pub(super) fn holds(&mut self) -> Result<(), Failure> {
        let [bird, _] = self.peers()?;
        assert_eq!(bird["state"], "established", "{bird}");
        assert_eq!(bird["sessions"], 1, "{bird}");
        let now = self.bird.session(plan::GATEWAY4.into())?;
        assert_eq!(now, self.before, "BIRD's view of its session");
        let memory = self.usage()?.resident;
        assert!(memory <= MOST_MEMORY, "{} MB resident", memory >> 20);
        Ok(())
    }

    /// What must hold when it is over: [`Siege::holds`], and the agent has come to rest.
    pub(super) fn is_over(&mut self) -> Result<(), Failure> {
        let agent = self.gateway.agent()?.id();
        eventually("the agent comes to rest", SOON, || {
            let cpu = || Usage::of(&[agent]).map(|usage| usage.cpu);
            let spent = cpu().and_then(|before| {
                std::thread::sleep(WINDOW);
                Ok(cpu()?.saturating_sub(before))
            });
            match spent {
                Ok(spent) if spent <= IDLE => Ok(()),
                Ok(spent) => Err(format!("{spent:?} of CPU in {WINDOW:?}")),
                Err(error) => Err(Chain(&error).to_string()),
            }
        })?;
        self.holds()?;
        // It still does its work.
        self.gateway.ccn(["unlink", "web"])?;
        self.bird.await_no_route("192.168.10.0/24".parse()?, SOON)?;
        self.gateway
            .ccn(["link", "web", "--classic", "10.80.0.0/16"])?;
        self.bird.await_route("192.168.10.0/24".parse()?, SOON)?;
        self.holds()
    }
}
