//! Peers that come, go and change while the speaker runs: by configuration, and by connecting
//! from where dynamic peers are welcome.
//!
//! A peer keeps its number as long as it is there. The place of one that is gone is given to the
//! next that comes, which goes on counting connections where the last one ended: no name of a
//! connection is ever used twice.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use tracing::info;

use super::peer::Peer;
use super::policy::PolicyChange;
use super::{ConnectionId, Core, fsm};
use crate::config::{
    ConfigError, DynamicAsn, DynamicPeers, Effect, InterfaceName, PeerConfig, PeerName,
    SpeakerConfig, is_link_local,
};
use crate::event::Event;
use crate::fsm::State;
use crate::rib::select::PeerIndex;
use crate::wire::{Cease, Notification};

/// How long a dynamic peer is remembered without a connection.
pub(super) const REMEMBERED: Duration = Duration::from_secs(60);

/// Peers in all beyond which no dynamic one is taken: the tables number peers with 16 bits.
const MOST_PEERS: usize = 60_000;

/// What a new configuration did.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reconfigured {
    /// Peers that are new.
    pub added: Vec<PeerName>,
    /// Peers that are gone; they were told so (Cease, Peer De-configured).
    pub removed: Vec<PeerName>,
    /// Peers whose session had to end, to begin anew under other terms.
    pub reset: Vec<PeerName>,
    /// Peers that are treated differently from now on, or from the next session on.
    pub changed: Vec<PeerName>,
}

/// A group of dynamic peers, and how many connections found it full.
#[derive(Debug)]
pub(super) struct DynamicGroup {
    pub(super) peers: DynamicPeers,
    pub(super) full: u64,
}

impl DynamicGroup {
    pub(super) fn new(peers: DynamicPeers) -> DynamicGroup {
        DynamicGroup { peers, full: 0 }
    }
}

/// The place of a peer that came by itself.
#[derive(Debug)]
pub(super) struct Dynamic {
    pub(super) group: PeerName,
    /// Who it may be.
    pub(super) asn: DynamicAsn,
    /// Without a connection: when it is forgotten.
    pub(super) until: Option<Instant>,
}

/// Why a peer cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddPeerError {
    /// Another one has its name.
    #[error("there is a peer called {0} already")]
    Name(PeerName),
    /// Another one has its address.
    #[error("peer {0} has this address already")]
    Address(PeerName),
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Core {
    /// Adds a peer and lets its session come up.
    ///
    /// # Errors
    /// A name or address that another peer has, or a configuration that makes no sense.
    pub fn add_peer(&mut self, peer: PeerConfig, now: Instant) -> Result<(), AddPeerError> {
        self.now = now;
        let alone = SpeakerConfig {
            peers: vec![peer],
            ..SpeakerConfig::new(self.local.asn, self.local.router_id)
        };
        alone.check()?;
        for peer in alone.peers {
            if self.index_of(peer.name.as_str()).is_some() {
                return Err(AddPeerError::Name(peer.name));
            }
            if let Some(index) = self.by_address.get(&peer.source()).copied() {
                let known = &self.peers[index.0 as usize];
                if known.dynamic.is_none() {
                    return Err(AddPeerError::Address(known.config.name.clone()));
                }
                // From now on it is known by name.
                self.drop_peer(index.0 as usize);
            }
            let index = self.place_peer(peer, None);
            self.step_peer(index, fsm::Event::ManualStart);
        }
        Ok(())
    }

    /// Ends the session with a peer (Cease, Peer De-configured) and forgets it.
    ///
    /// # Errors
    /// When no peer has that name.
    pub fn remove_peer(&mut self, name: &str, now: Instant) -> Result<(), super::UnknownPeer> {
        self.now = now;
        let index = self
            .index_of(name)
            .ok_or_else(|| super::UnknownPeer(name.to_owned()))?;
        self.drop_peer(index);
        Ok(())
    }

    /// Makes this the configuration. Sessions whose terms stay the same do not notice; those whose
    /// terms can change under way go on under the new ones. Where to listen is the driver's
    /// matter.
    ///
    /// # Errors
    /// A configuration that makes no sense; nothing has changed then.
    pub fn reconfigure(
        &mut self,
        config: SpeakerConfig,
        now: Instant,
    ) -> Result<Reconfigured, ConfigError> {
        config.check()?;
        self.now = now;
        let mut done = Reconfigured::default();
        let all_anew = self.change_identity(&config);
        self.dynamic = config
            .dynamic
            .iter()
            .map(|group| {
                let known = self
                    .dynamic
                    .iter()
                    .find(|known| known.peers.template.name == group.template.name);
                DynamicGroup {
                    full: known.map_or(0, |known| known.full),
                    peers: group.clone(),
                }
            })
            .collect();
        self.remove_others(&config, &mut done);
        // Addresses may go from one peer to another.
        let mut fresh = Vec::new();
        for peer in config.peers {
            match self.index_of(peer.name.as_str()) {
                None => fresh.push(peer),
                Some(index) => {
                    let effect = self.peers[index].config.effect_of(&peer);
                    let effect = if all_anew { Effect::Reset } else { effect };
                    self.change_peer(index, peer, effect, &mut done);
                }
            }
        }
        self.by_address = self.sources();
        self.track_next_hops(config.track_next_hops);
        self.set_aggregates(config.aggregate);
        for peer in fresh {
            done.added.push(peer.name.clone());
            let index = self.place_peer(peer, None);
            self.step_peer(index, fsm::Event::ManualStart);
        }
        Ok(done)
    }

    /// Who we are, and what we offer to all. True: no session can stay.
    fn change_identity(&mut self, config: &SpeakerConfig) -> bool {
        let offered = |restart: crate::config::GracefulRestart| restart.restart_time;
        let other = self.local.asn != config.asn
            || self.local.router_id != config.router_id
            || self.local.graceful_restart.map(offered) != config.graceful_restart.map(offered);
        self.local.asn = config.asn;
        self.local.router_id = config.router_id;
        // Whether this start is a restart is no matter of configuration once we run, but of each peer.
        self.local.graceful_restart = config.graceful_restart;
        self.rib.set_multipath(config.multipath);
        other
    }

    /// Drops the peers that this configuration does not have, or no longer lets in.
    fn remove_others(&mut self, config: &SpeakerConfig, done: &mut Reconfigured) {
        let names: HashSet<&PeerName> = config.peers.iter().map(|peer| &peer.name).collect();
        let sources: HashSet<_> = config.peers.iter().map(PeerConfig::source).collect();
        for index in 0..self.peers.len() {
            let peer = &self.peers[index];
            if peer.gone {
                continue;
            }
            let stays = match &peer.dynamic {
                None => names.contains(&peer.config.name),
                Some(dynamic) => {
                    let group = config
                        .dynamic
                        .iter()
                        .find(|group| group.template.name == dynamic.group);
                    let same = group.is_some_and(|group| {
                        let (address, link) = peer.config.source();
                        let mut wanted = group.peer(address);
                        // Learned from its OPEN.
                        wanted.asn = peer.config.asn;
                        let asn = peer.config.asn;
                        let welcome = asn == 0 || group.asn.permits(asn, config.asn);
                        let there = group.prefix.contains_addr(address)
                            && link == group.template.interface.clone().filter(|_| link.is_some());
                        welcome && there && peer.config.effect_of(&wanted) == Effect::None
                    });
                    same && !sources.contains(&peer.config.source())
                        && !names.contains(&peer.config.name)
                }
            };
            if !stays {
                done.removed.push(peer.config.name.clone());
                self.drop_peer(index);
            }
        }
    }

    fn change_peer(
        &mut self,
        index: usize,
        config: PeerConfig,
        effect: Effect,
        done: &mut Reconfigured,
    ) {
        let peer = &mut self.peers[index];
        let name = peer.config.name.clone();
        let established = peer.state() == State::Established;
        let (import, export) = peer.config.policy_differs(&config);
        let reset = match effect {
            Effect::None => return,
            Effect::InPlace => false,
            Effect::NextSession => !established,
            Effect::Reset => true,
        };
        let judged = established && !reset && (import || export);
        peer.reconfigure(config, &self.local);
        let reset = reset || judged && self.judge_anew(index, import) == PolicyChange::ResetNeeded;
        if reset {
            let notification = Notification::cease(Cease::OtherConfigurationChange);
            self.step_peer(index, fsm::Event::ManualStop(Some(notification)));
            if self.peers[index].admin_up {
                self.step_peer(index, fsm::Event::ManualStart);
            }
        }
        match reset && established {
            true => done.reset.push(name),
            false => done.changed.push(name),
        }
    }

    /// Finds a place for a peer that is new, in Idle.
    pub(super) fn place_peer(&mut self, config: PeerConfig, dynamic: Option<Dynamic>) -> usize {
        let vacant = self.peers.iter().position(|peer| peer.gone);
        let index = vacant.unwrap_or(self.peers.len());
        // More peers than a number holds do not fit into memory either.
        let number = PeerIndex(u32::try_from(index).unwrap_or(u32::MAX));
        let mut peer = Peer::new(number, config, &self.local, self.jitter.fork(), self.now);
        // One that comes by itself may have been there before we restarted.
        peer.restarting_until = self.restarting_until.filter(|_| dynamic.is_some());
        peer.dynamic = dynamic;
        self.by_address.insert(peer.config.source(), number);
        let rank = peer.rank(Ipv4Addr::UNSPECIFIED);
        match self.peers.get_mut(index) {
            Some(place) => {
                peer.succeed(place);
                *place = peer;
            }
            None => self.peers.push(peer),
        }
        self.rib.table.set_rank(number, rank);
        index
    }

    /// Ends the session of a peer and gives its place away.
    fn drop_peer(&mut self, index: usize) {
        let notification = Notification::cease(Cease::PeerDeconfigured);
        self.peers[index].admin_up = false;
        self.step_peer(index, fsm::Event::ManualStop(Some(notification)));
        self.expect_no_return(index);
        let peer = &mut self.peers[index];
        peer.gone = true;
        let number = peer.index;
        let name = peer.config.name.clone();
        self.by_address.retain(|_, known| *known != number);
        self.journal.event(Event::PeerGone { peer: name });
    }

    /// The peer of that name.
    pub(super) fn index_of(&self, name: &str) -> Option<usize> {
        self.peers
            .iter()
            .position(|peer| !peer.gone && peer.config.name == *name)
    }

    /// The peers there are.
    pub(super) fn present(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|peer| !peer.gone)
    }

    pub(super) fn sources(&self) -> HashMap<(IpAddr, Option<InterfaceName>), PeerIndex> {
        self.present()
            .map(|peer| (peer.config.source(), peer.index))
            .collect()
    }

    /// Whose connection it is that comes from this address, by this interface: a peer that is
    /// known, or one that becomes known by it.
    pub(super) fn whose(
        &mut self,
        address: IpAddr,
        interface: Option<&InterfaceName>,
    ) -> Option<usize> {
        let link = interface.filter(|_| is_link_local(address)).cloned();
        let source = (address, link);
        if let Some(index) = self.by_address.get(&source) {
            return Some(index.0 as usize);
        }
        let group = most_specific(&self.dynamic, address, source.1.as_ref())?;
        let DynamicGroup { peers, .. } = &self.dynamic[group];
        let (name, limit) = (peers.template.name.clone(), peers.limit as usize);
        let asn = peers.asn.clone();
        let config = peers.peer(address);
        // A configured peer may be called the same.
        let full = self.present().count() >= MOST_PEERS;
        if full || self.index_of(config.name.as_str()).is_some() || !self.has_room(&name, limit) {
            self.dynamic[group].full += 1;
            return None;
        }
        info!(peer = %config.name, group = %name, "a dynamic peer has come");
        let until = None;
        let index = self.place_peer(
            config,
            Some(Dynamic {
                group: name,
                asn,
                until,
            }),
        );
        self.step_peer(index, fsm::Event::ManualStart);
        Some(index)
    }

    /// Whether another peer of the group may come; one without a connection makes room.
    fn has_room(&mut self, group: &PeerName, limit: usize) -> bool {
        let of_group =
            |peer: &&Peer| !peer.gone && peer.dynamic.as_ref().is_some_and(|d| d.group == *group);
        if self.peers.iter().filter(of_group).count() < limit {
            return true;
        }
        let until = |peer: &Peer| peer.dynamic.as_ref()?.until;
        let oldest = self
            .peers
            .iter()
            .filter(of_group)
            .filter_map(|peer| Some((until(peer)?, peer.index.0 as usize)))
            .min();
        match oldest {
            Some((_, index)) => {
                self.drop_peer(index);
                true
            }
            None => false,
        }
    }

    /// Forgets dynamic peers that have been away for long enough.
    pub(super) fn forget_dynamic(&mut self, now: Instant) {
        for index in 0..self.peers.len() {
            self.peers[index].remember(now + REMEMBERED);
            let peer = &self.peers[index];
            let due = peer
                .dynamic
                .as_ref()
                .and_then(|dynamic| dynamic.until)
                .is_some_and(|until| until <= now);
            if due && !peer.gone {
                info!(peer = %peer.config.name, "a dynamic peer is forgotten");
                self.drop_peer(index);
            }
        }
    }

    /// The address a connection of this peer would come from.
    pub fn peer_source(&self, connection: ConnectionId) -> Option<(IpAddr, Option<InterfaceName>)> {
        let peer = self.peers.get(connection.peer_index())?;
        Some(peer.config.source())
    }
}

/// The group with the longest prefix that the address is in.
fn most_specific(
    groups: &[DynamicGroup],
    address: IpAddr,
    link: Option<&InterfaceName>,
) -> Option<usize> {
    groups
        .iter()
        .enumerate()
        .filter(|(_, group)| {
            let same_link = link.is_none() || group.peers.template.interface.as_ref() == link;
            group.peers.prefix.contains_addr(address)
                && same_link
                && (link.is_some() || !is_link_local(address))
        })
        .max_by_key(|(_, group)| group.peers.prefix.len())
        .map(|(index, _)| index)
}
