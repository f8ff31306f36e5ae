//! A live agent with a proper peer, a BIRD, and one or several that are up to no good; what must
//! hold all the time, and when it is over.

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
const FIRST_HOSTILE: u8 = 3;
const STRANGER: u8 = 9;

pub(super) struct Siege {
    gateway: Gateway,
    bird: Box<dyn Router>,
    _region: Region,
    hostile: Vec<Attacker>,
    stranger: Arc<Namespace>,
    /// BIRD's session before it began.
    before: Session,
}

/// A configured but hostile peer.
#[derive(Clone)]
pub(super) struct Attacker {
    number: u8,
    namespace: Arc<Namespace>,
}

impl Attacker {
    /// A connection, on which nothing was said yet.
    pub(super) fn connect(&self) -> io::Result<Hostile> {
        Hostile::connect(&self.namespace, self.address(), Siege::target())
    }

    /// An established session, tried again while the agent is in a pause.
    pub(super) fn establish(&self) -> Result<Hostile, Failure> {
        Ok(eventually("the hostile peer is let in", SOON, || {
            let (from, mask) = (self.address(), Siege::mask_of(self.number));
            Hostile::establish(&self.namespace, from, Siege::target(), &mask)
                .map_err(|error| error.to_string())
        })?)
    }

    fn address(&self) -> IpAddr {
        plan::idc4(self.number).into()
    }
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
    pub(super) fn lay(lab: &Lab, change: impl Fn(&mut PeerSection)) -> Result<Self, Failure> {
        Self::of_several(lab, 1, change)
    }

    /// [`Siege::lay`], with `attackers` hostile peers, 1 to 6.
    pub(super) fn of_several(
        lab: &Lab,
        attackers: u8,
        change: impl Fn(&mut PeerSection),
    ) -> Result<Self, Failure> {
        assert!((1..=STRANGER - FIRST_HOSTILE).contains(&attackers));
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
        // The others are there for their namespaces and addresses; no router runs in them.
        let (mut bird, stranger) = (router("r2", BIRD)?, router("r9", STRANGER)?);
        let mut peers = vec![PeerSection::of(bird.config())];
        let mut hostile = Vec::new();
        for number in FIRST_HOSTILE..FIRST_HOSTILE + attackers {
            let name = ["r3", "r4", "r5", "r6", "r7", "r8"][usize::from(number - FIRST_HOSTILE)];
            let body = router(name, number)?;
            let mut peer = PeerSection {
                passive: true,
                ..PeerSection::of(body.config())
            };
            change(&mut peer);
            peers.push(peer);
            let namespace = body.namespace().clone();
            hostile.push(Attacker { number, namespace });
        }
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
            hostile,
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
        Self::mask_of(FIRST_HOSTILE)
    }

    fn mask_of(number: u8) -> Mask {
        Mask {
            asn: 65000 + u16::from(number),
            router_id: plan::idc4(number),
            hold_time: 0,
        }
    }

    /// The hostile peers, in the order of [`Siege::peers`].
    pub(super) fn attackers(&self) -> &[Attacker] {
        &self.hostile
    }

    /// A connection of the (first) hostile peer.
    pub(super) fn connect(&self) -> io::Result<Hostile> {
        self.hostile[0].connect()
    }

    /// Somebody who is not configured.
    pub(super) fn stranger(&self) -> Stranger {
        Stranger(self.stranger.clone())
    }

    /// An established session of the (first) hostile peer, tried again while the agent is in a pause.
    pub(super) fn establish(&self) -> Result<Hostile, Failure> {
        self.hostile[0].establish()
    }

    /// What `ccn peers` says of BIRD's session, and of the (first) hostile one.
    pub(super) fn peers(&self) -> Result<[Value; 2], Failure> {
        match &self.all_peers()?[..] {
            [bird, hostile, ..] => Ok([bird.clone(), hostile.clone()]),
            other => Err(format!("two peers at least are expected: {other:?}").into()),
        }
    }

    /// What `ccn peers` says: of BIRD's session, and of each hostile one.
    pub(super) fn all_peers(&self) -> Result<Vec<Value>, Failure> {
        match self.gateway.json(["peers"])? {
            Value::Array(peers) if peers.len() == 1 + self.hostile.len() => Ok(peers),
            peers => Err(format!("{} hostile peers: {peers}", self.hostile.len()).into()),
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
