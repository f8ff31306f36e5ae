//! The gateway, its agent, and routers as its peers; what is asked of both sides.

use std::error::Error;
use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use bgp::Family;
use interop::enter::Lab;
use interop::gateway::{Gateway, PeerSection};
use interop::peer::{Daemon, LearnedRoute, NeighbourConfig, Router, Session, SessionState};
use interop::process::Launch;
use interop::topology::{IDC, Region, RegionConfig, RouterPlan, plan};
use interop::wait::{self, TimedOut};
use ipnet::IpNet;
use netlink::{Route, RouteFilter};
use serde_json::{Value, json};

pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// For what takes a second or two on an idle machine.
pub(super) const SOON: Duration = Duration::from_secs(30);
/// The number of the first router on the IDC LAN.
pub(super) const FIRST: u8 = 2;
/// The route protocol number of the agent.
pub(super) const OURS: u8 = 77;
const VPC: &str = "web";

/// The terms of the sessions.
pub(super) struct Terms {
    pub gateway_as: u32,
    /// Of the first router; the next has the next number.
    pub router_as: u32,
    /// Changes of the router's side.
    pub neighbour: fn(&mut NeighbourConfig),
    /// Changes of the gateway's side.
    pub peer: fn(&mut PeerSection),
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            gateway_as: plan::GATEWAY_AS,
            router_as: 65002,
            neighbour: |_| {},
            peer: |_| {},
        }
    }
}

/// What a router announces, and what the gateway does: IPv4 and IPv6.
pub(super) fn nets(number: u8) -> [IpNet; 2] {
    [
        format!("10.80.{number}.0/24"),
        format!("fd80:{number}::/64"),
    ]
    .map(|net| net.parse().expect("a network"))
}

/// The subnets of the VPC.
pub(super) fn subnets() -> [IpNet; 2] {
    ["192.168.10.0/24", "fd10:10::/64"].map(|net| net.parse().expect("a network"))
}

/// The address of a node on the IDC LAN, in the family of `like`.
pub(super) fn on_idc(number: u8, like: IpNet) -> IpAddr {
    match like {
        IpNet::V4(_) => plan::idc4(number).into(),
        IpNet::V6(_) => plan::idc6(number).into(),
    }
}

/// [`wait::becomes`], [`SOON`].
pub(super) fn becomes(
    what: impl Display,
    wrong: impl FnMut() -> Result<Option<String>, Failure>,
) -> Result<(), TimedOut> {
    wait::becomes(what, SOON, wrong)
}

pub(super) struct Encounter {
    pub gateway: Gateway,
    pub routers: Vec<Box<dyn Router>>,
    pub region: Region,
    terms: Terms,
}

impl Encounter {
    /// Everything in place, nothing started.
    pub(super) fn arrange(lab: &Lab, daemons: &[Daemon], terms: Terms) -> Result<Self, Failure> {
        let config = RegionConfig {
            gateway_as: terms.gateway_as,
            ..RegionConfig::default()
        };
        let mut region = Region::build(lab, config)?;
        let mut routers = Vec::new();
        for (daemon, number) in daemons.iter().zip(FIRST..) {
            let plan = RouterPlan {
                daemon: *daemon,
                name: &format!("r{number}"),
                number,
                asn: terms.router_as + u32::from(number - FIRST),
                lans: &[],
            };
            routers.push(region.add_router(lab, &plan, |config| {
                config.announced = nets(number).into();
                config.neighbours.iter_mut().for_each(terms.neighbour);
            })?);
        }
        let mut peers: Vec<_> = routers
            .iter()
            .map(|r| PeerSection::of(r.config()))
            .collect();
        peers.iter_mut().for_each(terms.peer);
        let namespace = region.gateway().namespace().clone();
        let mut gateway = Gateway::new(lab, namespace, region.gateway_address().mac, peers)?;
        gateway.config.bgp.asn = terms.gateway_as;
        Ok(Self {
            gateway,
            routers,
            region,
            terms,
        })
    }

    /// [`Encounter::arrange`], started, with the record of one VPC.
    pub(super) fn begin(lab: &Lab, daemons: &[Daemon], terms: Terms) -> Result<Self, Failure> {
        let mut here = Self::arrange(lab, daemons, terms)?;
        here.start()?;
        Ok(here)
    }

    /// [`Encounter::begin`] with sessions up, the VPC linked and seen by the first router.
    pub(super) fn linked(lab: &Lab, daemons: &[Daemon], terms: Terms) -> Result<Self, Failure> {
        let mut here = Self::begin(lab, daemons, terms)?;
        here.await_sessions()?;
        here.link()?;
        here.expect_announced()?;
        here.expect_learned()?;
        Ok(here)
    }

    pub(super) fn start(&mut self) -> Result<(), Failure> {
        for router in &mut self.routers {
            router.start()?;
        }
        self.gateway.start()?;
        self.gateway
            .put("vpcs/web", &json!({"vni": 10001, "subnets": subnets()}))?;
        Ok(())
    }

    /// The first router.
    pub(super) fn router(&mut self) -> &mut dyn Router {
        self.routers[0].as_mut()
    }

    /// The gateway's address as the first router knows it.
    pub(super) fn gateway_address(&self) -> IpAddr {
        self.routers[0].config().neighbours[0].address
    }

    pub(super) fn await_sessions(&mut self) -> Result<Session, Failure> {
        for index in 0..self.routers.len() {
            self.await_peer(index, "is established", is_established)?;
        }
        let gateway = self.gateway_address();
        Ok(self.router().await_established(gateway, SOON)?)
    }

    /// What the first router says of the session.
    pub(super) fn session(&mut self) -> Result<Session, Failure> {
        let gateway = self.gateway_address();
        Ok(self.router().session(gateway)?)
    }

    /// Waits until the first router no longer takes the session for established.
    pub(super) fn await_session_down(&mut self) -> Result<(), Failure> {
        Ok(becomes("the router's session goes down", || {
            let session = self.session()?;
            Ok((session.state == SessionState::Established).then(|| session.to_string()))
        })?)
    }

    /// What `ccn peers` says of a router.
    pub(super) fn peer(&self, index: usize) -> Result<Value, Failure> {
        let name = self.routers[index].config().name.clone();
        let peers = self.gateway.json(["peers"])?;
        let found = peers
            .as_array()
            .into_iter()
            .flatten()
            .find(|peer| peer["name"] == *name);
        Ok(found.cloned().ok_or(format!("no {name} in {peers}"))?)
    }

    /// Waits until `ccn peers` says of a router what it should.
    pub(super) fn await_peer(
        &self,
        index: usize,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value, Failure> {
        let mut seen = Value::Null;
        becomes(format!("`ccn peers`: the router {what}"), || {
            seen = self.peer(index)?;
            Ok((!holds(&seen)).then(|| seen.to_string()))
        })?;
        Ok(seen)
    }

    /// Waits until `ccn peers` explains why there is no session with the first router.
    pub(super) fn await_last_error(&self, text: &str) -> Result<(), Failure> {
        self.await_peer(0, &format!("has failed with {text:?}"), |peer| {
            let error = peer["last_error"].as_str().unwrap_or_default();
            !is_established(peer) && error.contains(text)
        })?;
        Ok(())
    }

    pub(super) fn link(&self) -> Result<(), Failure> {
        let classic = nets(FIRST).map(|net| net.to_string());
        let words = ["link", VPC, "--classic"].into_iter();
        self.gateway
            .ccn(words.chain(classic.iter().map(String::as_str)))?;
        Ok(())
    }

    pub(super) fn unlink(&self) -> Result<(), Failure> {
        self.gateway.ccn(["unlink", VPC])?;
        Ok(())
    }

    /// Waits until the first router has the VPC's subnets from us, fresh, with our next hops and AS.
    pub(super) fn expect_announced(&mut self) -> Result<(), Failure> {
        let as_path = match self.terms.gateway_as == self.terms.router_as {
            true => vec![],
            false => vec![self.terms.gateway_as],
        };
        for prefix in subnets() {
            let expected = LearnedRoute {
                prefix,
                next_hop: on_idc(1, prefix),
                as_path: as_path.clone(),
                med: None,
                best: true,
                stale: false,
            };
            becomes(format!("the router has {expected}"), || {
                let mut seen = self.at_router(prefix)?;
                // FRR does not tell an absent MED from 0.
                seen.iter_mut()
                    .for_each(|route| route.med = route.med.filter(|med| *med != 0));
                Ok((seen != [expected.clone()]).then(|| format!("{seen:?}")))
            })?;
        }
        Ok(())
    }

    /// Waits until the first router has the VPC's subnets as stale; it must not lose them before.
    pub(super) fn expect_kept_as_stale(&mut self) -> Result<(), Failure> {
        for prefix in subnets() {
            becomes(format!("the router keeps {prefix} as stale"), || {
                let routes = self.at_router(prefix)?;
                assert!(!routes.is_empty(), "the router dropped {prefix}");
                Ok((!routes.iter().all(|route| route.stale)).then(|| format!("{routes:?}")))
            })?;
        }
        Ok(())
    }

    /// Waits until the first router has none of the VPC's subnets.
    pub(super) fn expect_not_announced(&mut self) -> Result<(), Failure> {
        for prefix in subnets() {
            self.router().await_no_route(prefix, SOON)?;
        }
        Ok(())
    }

    /// The first router's paths to a prefix.
    pub(super) fn at_router(&mut self, prefix: IpNet) -> Result<Vec<LearnedRoute>, Failure> {
        let family = match prefix {
            IpNet::V4(_) => Family::Ipv4Unicast,
            IpNet::V6(_) => Family::Ipv6Unicast,
        };
        let mut routes = self.router().routes(family)?;
        routes.retain(|route| route.prefix == prefix);
        Ok(routes)
    }

    /// Waits until what the first router announces is in `ccn routes` and in the kernel.
    pub(super) fn expect_learned(&mut self) -> Result<(), Failure> {
        nets(FIRST)
            .into_iter()
            .try_for_each(|net| self.expect_route(net, &[on_idc(FIRST, net)]))
    }

    /// Waits until what the first router announced is gone from `ccn routes` and the kernel.
    pub(super) fn expect_forgotten(&mut self) -> Result<(), Failure> {
        nets(FIRST)
            .into_iter()
            .try_for_each(|net| self.expect_route(net, &[]))
    }

    /// Waits until a learned prefix has exactly these next hops, in `ccn routes` and in the kernel's
    /// table of learned routes. None: it is in neither.
    pub(super) fn expect_route(
        &mut self,
        prefix: IpNet,
        next_hops: &[IpAddr],
    ) -> Result<(), Failure> {
        let told = json!(next_hops);
        becomes(format!("`ccn routes`: {prefix} by {next_hops:?}"), || {
            let routes = self.gateway.json(["routes"])?;
            let hops: Vec<&Value> = routes
                .as_array()
                .into_iter()
                .flatten()
                .filter(|r| r["direction"] == "learned" && r["prefix"] == prefix.to_string())
                .map(|route| &route["next_hops"])
                .collect();
            let right = match next_hops {
                [] => hops.is_empty(),
                _ => hops == [&told],
            };
            Ok((!right).then(|| routes.to_string()))
        })?;
        becomes(format!("the kernel: {prefix} by {next_hops:?}"), || {
            let routes = self.kernel_routes()?;
            let mut found = routes.iter().filter(|route| route.prefix == prefix);
            let hops = |route: &Route| {
                let mut hops: Vec<_> = route.next_hops.iter().filter_map(|hop| hop.via).collect();
                hops.sort();
                hops
            };
            let right = match next_hops {
                [] => found.next().is_none(),
                _ => {
                    found.next().is_some_and(|route| hops(route) == next_hops)
                        && found.next().is_none()
                }
            };
            Ok((!right).then(|| format!("{routes:?}")))
        })?;
        Ok(())
    }

    /// The agent's routes in the gateway's kernel.
    fn kernel_routes(&mut self) -> Result<Vec<Route>, Failure> {
        let filter = RouteFilter {
            protocol: Some(OURS),
            ..RouteFilter::default()
        };
        Ok(self.region.gateway().netlink().routes(&filter)?)
    }

    /// What the agent has in the gateway's kernel, a line each.
    pub(super) fn kernel_state(&mut self) -> Result<Vec<String>, Failure> {
        let mut lines: Vec<_> = self
            .kernel_routes()?
            .iter()
            .map(ToString::to_string)
            .collect();
        let socket = self.region.gateway().netlink();
        lines.extend(
            socket
                .rules(Some(OURS))?
                .iter()
                .map(|rule| format!("{rule:?}")),
        );
        let links = socket.links()?;
        lines.extend(
            links
                .iter()
                .map(|l| format!("{} {} {:?} {}", l.index, l.name, l.mac, l.up)),
        );
        lines.sort();
        Ok(lines)
    }

    /// The TCP connections of BGP in a node, as `ss` tells: state, local and remote address.
    pub(super) fn connections(&self, node: &str) -> Result<Vec<[String; 3]>, Failure> {
        let namespace = self.region.namespace(node)?;
        let text = Launch::new("ss")
            .args(["-Htn", "( sport = :179 or dport = :179 )"])
            .in_namespace(namespace.fd())
            .output(SOON)?;
        Ok(text
            .lines()
            .filter_map(|line| {
                let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
                let [state, _, _, local, remote, ..] = &words[..] else {
                    return None;
                };
                Some([state.clone(), local.clone(), remote.clone()])
            })
            .collect())
    }

    /// The gateway's and the router's end of the one established connection. As long as it is the
    /// same, so is the session.
    pub(super) fn connection(&self) -> Result<[String; 2], Failure> {
        let connections = self.connections("gw")?;
        let mut established = connections.iter().filter(|[state, ..]| state == "ESTAB");
        match (established.next(), established.next()) {
            (Some([_, local, remote]), None) => Ok([local.clone(), remote.clone()]),
            _ => Err(format!("not one connection: {connections:?}").into()),
        }
    }

    /// Whether the one connection was opened by the router, and not by the gateway.
    pub(super) fn router_connected(&self) -> Result<bool, Failure> {
        let [local, _] = self.connection()?;
        Ok(local.ends_with(":179"))
    }

    /// The interface to capture the sessions on, in the gateway.
    pub(super) fn capture(&mut self) -> Result<interop::capture::Capture, Failure> {
        Ok(interop::capture::Capture::start(
            self.region.gateway().namespace(),
            IDC,
        )?)
    }
}

pub(super) fn is_established(peer: &Value) -> bool {
    peer["state"] == "established"
}
