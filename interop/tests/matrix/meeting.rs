//! Our speaker and one router, each in a namespace of its own with a cable between them.

use std::error::Error;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bgp::{
    Announcement, ExportPolicy, Family, GracefulRestart, ImportPolicy, Path, PeerConfig,
    PeerStatus, SessionState, SpeakerConfig, Stop,
};
use interop::capture::Capture;
use interop::enter::Lab;
use interop::peer::{self, Daemon, LearnedRoute, NeighbourConfig, Router, RouterConfig, Session};
use interop::speaker::BareSpeaker;
use interop::topology::{IDC, Node, Role, plan};
use interop::wait::{self, TimedOut, eventually};
use ipnet::IpNet;
use netlink::NewLink;

pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// For what takes a second or two on an idle machine.
pub(super) const SOON: Duration = Duration::from_secs(40);
/// The router's number on the cable.
const ROUTER: u8 = 2;
const ROUTER_AS: u32 = 65002;
/// What our speaker calls the router.
pub(super) const NAME: &str = "router";

/// On which terms the two meet.
pub(super) struct Terms {
    /// The family of the routes.
    pub family: Family,
    /// The family of the session's addresses and of the next hops, where it is not the same.
    pub transport: Option<Family>,
    /// Changes of the router's side.
    pub router: fn(&mut RouterConfig),
    /// Changes of the router's view of us.
    pub neighbour: fn(&mut NeighbourConfig),
    /// Changes of our side.
    pub peer: fn(&mut PeerConfig, &Lab),
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            family: Family::Ipv4Unicast,
            transport: None,
            router: |_| {},
            neighbour: |_| {},
            peer: |_, _| {},
        }
    }
}

/// What the router announces.
pub(super) fn theirs(family: Family) -> IpNet {
    net(family, "10.80.2.0/24", "fd80:2::/64")
}

/// What we announce.
pub(super) fn ours(family: Family) -> IpNet {
    net(family, "192.168.10.0/24", "fd10:10::/64")
}

/// The AS of the speaker beside ours that has this number on the cable.
pub(super) fn beside_as(number: u8) -> u32 {
    65_100 + u32::from(number)
}

fn net(family: Family, v4: &str, v6: &str) -> IpNet {
    let text = match family {
        Family::Ipv4Unicast => v4,
        Family::Ipv6Unicast => v6,
    };
    text.parse().expect("a network")
}

fn address(family: Family, number: u8) -> IpAddr {
    match family {
        Family::Ipv4Unicast => plan::idc4(number).into(),
        Family::Ipv6Unicast => plan::idc6(number).into(),
    }
}

/// [`wait::becomes`], [`SOON`].
pub(super) fn becomes(
    what: impl Display,
    wrong: impl FnMut() -> Result<Option<String>, Failure>,
) -> Result<(), TimedOut> {
    wait::becomes(what, SOON, wrong)
}

/// The two, and what joins them.
pub(super) struct Meeting {
    pub router: Box<dyn Router>,
    pub family: Family,
    transport: Family,
    speaker: Option<BareSpeaker>,
    config: SpeakerConfig,
    here: Node,
    _there: Node,
}

impl Meeting {
    /// Everything in place, nothing started. `name` is a part of the names of namespaces and files.
    pub(super) fn arrange(
        lab: &Lab,
        daemon: Daemon,
        name: &str,
        terms: &Terms,
    ) -> Result<Self, Failure> {
        let mut here = Node::create(&format!("us-{name}"), Role::Router)?;
        let mut there = Node::create(name, Role::Router)?;
        here.add_link(NewLink::veth_to(IDC, IDC, there.namespace()))?;
        there.set_up(IDC)?;
        for (node, number) in [(&mut here, 1), (&mut there, ROUTER)] {
            node.await_ready(IDC)?;
            let v4 = IpNet::new(plan::idc4(number).into(), plan::LENGTH4)?;
            let v6 = IpNet::new(plan::idc6(number).into(), plan::LENGTH6)?;
            node.add_addresses(IDC, &[v4, v6])?;
        }

        let family = terms.family;
        let transport = terms.transport.unwrap_or(family);
        let mut neighbour = NeighbourConfig::new("gw", address(transport, 1), plan::GATEWAY_AS);
        neighbour.families = vec![family];
        (terms.neighbour)(&mut neighbour);
        let mut router = RouterConfig {
            name: name.to_owned(),
            asn: ROUTER_AS,
            router_id: plan::idc4(ROUTER),
            address: plan::idc4(ROUTER),
            address6: plan::idc6(ROUTER),
            neighbours: vec![neighbour],
            announced: vec![theirs(family)],
            communities: Vec::new(),
            large_communities: Vec::new(),
        };
        (terms.router)(&mut router);

        let mut peer = PeerConfig {
            families: vec![family],
            connect_retry: Duration::from_secs(1),
            import: ImportPolicy::All,
            export: ExportPolicy::Local,
            ..PeerConfig::new(NAME.parse()?, address(transport, ROUTER), ROUTER_AS)
        };
        (terms.peer)(&mut peer, lab);
        let config = SpeakerConfig {
            listen: vec![SocketAddr::new(address(transport, 1), 179)],
            graceful_restart: Some(GracefulRestart {
                restart_time: Duration::from_secs(120),
                forwarding_preserved: true,
                restarting: false,
            }),
            peers: vec![peer],
            ..SpeakerConfig::new(plan::GATEWAY_AS, plan::GATEWAY4)
        };
        let namespace = there.namespace().clone();
        Ok(Self {
            router: peer::router(daemon, router, namespace, lab),
            family,
            transport,
            speaker: None,
            config,
            here,
            _there: there,
        })
    }

    /// [`Meeting::arrange`], and both started.
    pub(super) fn begin(
        lab: &Lab,
        daemon: Daemon,
        name: &str,
        terms: &Terms,
    ) -> Result<Self, Failure> {
        let mut meeting = Self::arrange(lab, daemon, name, terms)?;
        meeting.start()?;
        Ok(meeting)
    }

    /// [`Meeting::begin`] until both say that the session is up.
    pub(super) fn established(
        lab: &Lab,
        daemon: Daemon,
        name: &str,
        terms: &Terms,
    ) -> Result<Self, Failure> {
        let meeting = Self::begin(lab, daemon, name, terms)?;
        meeting.await_established()?;
        Ok(meeting)
    }

    pub(super) fn start(&mut self) -> Result<(), Failure> {
        self.router.start()?;
        self.start_ours()
    }

    /// Starts our speaker, which announces our route.
    pub(super) fn start_ours(&mut self) -> Result<(), Failure> {
        let namespace = self.here.namespace().clone();
        let speaker = BareSpeaker::start(namespace, self.config.clone())?;
        let prefix = ours(self.family).to_string().parse()?;
        speaker.ask(speaker.speaker.announce(vec![Announcement::new(prefix)]))?;
        speaker.ask(speaker.speaker.initial_routes_complete());
        self.speaker = Some(speaker);
        Ok(())
    }

    /// Another speaker beside ours, of an AS of its own: tells ours a path to a prefix.
    pub(super) fn accompany(&mut self, number: u8, prefix: IpNet) -> Result<BareSpeaker, Failure> {
        let (ours, its) = (self.our_address(), address(self.transport, number));
        self.here.add_addresses(IDC, &[its.into()])?;
        let asn = beside_as(number);
        let peer = |name: &str, address, asn| -> Result<PeerConfig, Failure> {
            Ok(PeerConfig {
                families: vec![self.family],
                connect_retry: Duration::from_secs(1),
                ..PeerConfig::new(name.parse()?, address, asn)
            })
        };
        let known = PeerConfig {
            passive: true,
            import: ImportPolicy::All,
            ..peer(&format!("beside-{number}"), its, asn)?
        };
        let config = SpeakerConfig {
            peers: vec![PeerConfig {
                local_address: Some(its),
                export: ExportPolicy::Local,
                ..peer("us", ours, plan::GATEWAY_AS)?
            }],
            ..SpeakerConfig::new(asn, plan::idc4(number))
        };
        self.config.peers.push(known);
        let speaker = self.speaker()?;
        speaker.ask(speaker.speaker.reconfigure(self.config.clone()))?;
        let beside = BareSpeaker::start(self.here.namespace().clone(), config)?;
        let announcement = Announcement::new(prefix.to_string().parse()?);
        beside.ask(beside.speaker.announce(vec![announcement]))?;
        Ok(beside)
    }

    /// Ends our speaker.
    pub(super) fn stop_ours(&mut self, how: Stop) {
        if let Some(speaker) = self.speaker.take() {
            speaker.ask(speaker.speaker.stop(how));
        }
    }

    /// The configuration of our speaker's next start.
    pub(super) fn config(&mut self) -> &mut SpeakerConfig {
        &mut self.config
    }

    /// Our address, as the router knows it.
    pub(super) fn our_address(&self) -> IpAddr {
        self.router.config().neighbours[0].address
    }

    /// The router's address, as we know it.
    pub(super) fn router_address(&self) -> IpAddr {
        address(self.transport, ROUTER)
    }

    /// Our running speaker.
    pub(super) fn speaker(&self) -> Result<&BareSpeaker, Failure> {
        Ok(self.speaker.as_ref().ok_or("our speaker does not run")?)
    }

    /// Our side's view of the session.
    pub(super) fn peer(&self) -> Result<PeerStatus, Failure> {
        let speaker = self.speaker()?;
        let peers = speaker.ask(speaker.speaker.peers());
        Ok(peers.into_iter().next().ok_or("our speaker has no peer")?)
    }

    /// Waits until our side says of the session what it should.
    pub(super) fn await_peer(
        &self,
        what: &str,
        holds: impl Fn(&PeerStatus) -> bool,
    ) -> Result<PeerStatus, Failure> {
        Ok(eventually(
            format!("our side: {what}"),
            SOON,
            || match self.peer() {
                Ok(peer) if holds(&peer) => Ok(peer),
                Ok(peer) => Err(format!("{peer:?}")),
                Err(error) => Err(error.to_string()),
            },
        )?)
    }

    /// Waits until both sides say that the session is up; what the router says.
    pub(super) fn await_established(&self) -> Result<Session, Failure> {
        self.await_peer("established", is_established)?;
        Ok(self.router.await_established(self.our_address(), SOON)?)
    }

    /// Waits until the router does not take the session for established.
    pub(super) fn await_down_at_router(&self) -> Result<Session, Failure> {
        let mut last = None;
        becomes("the router's session goes down", || {
            let session = self.router.session(self.our_address())?;
            let up = session.state == peer::SessionState::Established;
            last = Some(session.clone());
            Ok(up.then(|| session.to_string()))
        })?;
        Ok(last.ok_or("the router was not asked")?)
    }

    /// The paths that we have learned to a prefix.
    pub(super) fn learned(&self, prefix: IpNet) -> Result<Vec<Path>, Failure> {
        let speaker = self.speaker()?;
        let routes = speaker.ask(speaker.speaker.routes());
        let of = routes
            .into_iter()
            .find(|route| route.prefix.to_string() == prefix.to_string());
        Ok(of.map(|route| route.paths).unwrap_or_default())
    }

    /// Waits until we have learned the router's route, with its next hop and path.
    pub(super) fn await_learned(&self) -> Result<Path, Failure> {
        let prefix = theirs(self.family);
        let next_hop = self.router_address();
        let mut found = None;
        becomes(format!("we learn {prefix} by {next_hop}"), || {
            let paths = self.learned(prefix)?;
            found = paths.iter().find(|path| path.next_hop == next_hop).cloned();
            let right = found
                .as_ref()
                .is_some_and(|path| path.attributes.as_path.to_string() == ROUTER_AS.to_string());
            Ok((!right).then(|| format!("{paths:?}")))
        })?;
        Ok(found.ok_or("no path")?)
    }

    /// Waits until we have no path to the router's route.
    pub(super) fn await_forgotten(&self) -> Result<(), Failure> {
        let prefix = theirs(self.family);
        Ok(becomes(format!("we have no route to {prefix}"), || {
            let paths = self.learned(prefix)?;
            Ok((!paths.is_empty()).then(|| format!("{paths:?}")))
        })?)
    }

    /// The router's paths to our route.
    pub(super) fn at_router(&self) -> Result<Vec<LearnedRoute>, Failure> {
        let mut routes = self.router.routes(self.family)?;
        routes.retain(|route| route.prefix == ours(self.family));
        Ok(routes)
    }

    /// Waits until the router has our route, fresh, with our next hop and AS.
    pub(super) fn await_told(&self) -> Result<(), Failure> {
        let next_hop = self.our_address();
        Ok(becomes("the router has our route, fresh", || {
            let routes = self.at_router()?;
            let right = |route: &LearnedRoute| {
                route.next_hop == next_hop
                    && route.as_path == [plan::GATEWAY_AS]
                    && route.best
                    && !route.stale
            };
            let right = routes.len() == 1 && routes.iter().all(right);
            Ok((!right).then(|| format!("{routes:?}")))
        })?)
    }

    /// Whether our side says that a capability is used.
    pub(super) fn uses(&self, capability: &str) -> Result<bool, Failure> {
        let peer = self.peer()?;
        let found = peer.capabilities.iter().find(|c| c.name == capability);
        Ok(found.is_some_and(|found| found.in_use))
    }

    /// Captures what passes on the cable from now on.
    pub(super) fn capture(&self) -> Result<Capture, Failure> {
        Ok(Capture::start(self.here.namespace(), IDC)?)
    }
}

pub(super) fn is_established(peer: &PeerStatus) -> bool {
    peer.state == SessionState::Established
}
