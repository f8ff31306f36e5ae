//! Reports for whoever watches closely ([`crate::tap`]): collected only then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;

use super::connection::{Connection, ConnectionId};
use super::peer::Peer;
use super::{Core, State};
use crate::rib::attributes::RouteAttributes;
use crate::rib::paths::{Flags, Path, PathSource};
use crate::rib::select::Source;
use crate::tap::{Down, Ends, Taken, Tap, Up, Watch};
use crate::wire::message::kind;
use crate::wire::{
    AfiSafi, Decoded, Family, Finding, Nlri, Update, Verdict, WireError, WireOptions,
};

/// What was reported since the last [`Core::take_taps`].
#[derive(Debug, Default)]
pub(super) struct Taps {
    watch: Watch,
    taps: Vec<Tap>,
}

/// The accepted routes that something may change, as they are before.
#[derive(Debug)]
pub(super) struct Before {
    routes: Vec<(Nlri, Option<Arc<RouteAttributes>>)>,
    end_of_rib: Option<Family>,
}

impl Taps {
    pub(super) fn add(&mut self, tap: impl FnOnce() -> Tap) {
        if self.watch.sessions {
            self.taps.push(tap());
        }
    }
}

impl Core {
    /// What is to be reported by [`Core::take_taps`], which is then to be called after each input.
    pub fn watch(&mut self, watch: Watch) {
        self.taps.watch = watch;
        if !watch.sessions {
            self.taps.taps = Vec::new();
        }
    }

    /// What has happened since the last call, in order.
    pub fn take_taps(&mut self) -> Vec<Tap> {
        std::mem::take(&mut self.taps.taps)
    }

    /// Every session that is established now.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Up>> {
        self.peers.iter().filter_map(|peer| peer.up.as_ref())
    }

    /// The same, with the number of each peer.
    pub(crate) fn sessions_by_index(&self) -> impl Iterator<Item = (u16, &Arc<Up>)> {
        let up = |peer: &'_ Peer| u16::try_from(peer.index.0).ok();
        self.peers
            .iter()
            .filter_map(move |peer| Some((up(peer)?, peer.up.as_ref()?)))
    }

    /// A message has arrived; it is not yet acted upon.
    pub(super) fn tap_message(
        &mut self,
        index: usize,
        connection: ConnectionId,
        options: WireOptions,
        octets: Bytes,
        message: &Result<Decoded, WireError>,
    ) {
        let kind = octets.get(18).copied();
        if !self.taps.watch.sessions || matches!(kind, None | Some(kind::KEEPALIVE)) {
            return;
        }
        let peer = &mut self.peers[index];
        let session = kind == Some(kind::UPDATE) && peer.session_on(connection).is_some();
        let taken = match message {
            Err(_) => Taken::Refused,
            Ok(decoded) if decoded.verdict() == Some(Verdict::TreatAsWithdraw) => {
                Taken::AsWithdrawal
            }
            Ok(_) => Taken::AsIs,
        };
        let update = peer.up.clone().filter(|_| session).map(|up| (up, taken));
        let ends = peer.ends();
        self.taps.add(|| Tap::Received {
            ends,
            options,
            octets,
            update,
        });
    }

    /// An UPDATE is about to be taken in; `None` unless somebody watches that.
    pub(super) fn before_update(
        &self,
        index: usize,
        update: &Update,
        findings: &[Finding],
    ) -> Option<Before> {
        if !self.watches_accepted() {
            return None;
        }
        let peer = &self.peers[index];
        let source = Source::Peer(peer.index);
        let accepted = |nlri: Nlri| (nlri, self.accepted_path(source, &nlri));
        let named = update.treated_as_withdraw();
        let mut routes: Vec<_> = named.map(accepted).collect();
        for finding in findings {
            // All routes of the family go.
            if let Verdict::AfiSafiDisable(family) = finding.verdict
                && let Some(family) = family.family()
            {
                routes.extend(self.accepted_from_peer(index, family, |_| true));
            }
        }
        let end_of_rib = update
            .end_of_rib_family()
            .and_then(AfiSafi::family)
            .filter(|_| findings.is_empty());
        if let Some(family) = end_of_rib.filter(|family| peer.stale.keeps(*family)) {
            // Those that were not told again go.
            routes.extend(self.accepted_from_peer(index, family, is_stale));
        }
        Some(Before { routes, end_of_rib })
    }

    /// Stale routes of a peer may be about to go, though its session stays; `None` as above.
    pub(super) fn before_sweep(&self, index: usize) -> Option<Before> {
        self.before(index, is_stale)
    }

    /// All routes of a peer are about to be judged anew; `None` as above.
    pub(super) fn before_judging(&self, index: usize) -> Option<Before> {
        self.before(index, |_| true)
    }

    fn before(&self, index: usize, which: impl Fn(&Path) -> bool) -> Option<Before> {
        if !self.watches_accepted() || self.peers[index].up.is_none() {
            return None;
        }
        let families = Family::ALL.into_iter();
        let routes = families.flat_map(|family| self.accepted_from_peer(index, family, &which));
        Some(Before {
            routes: routes.collect(),
            end_of_rib: None,
        })
    }

    fn watches_accepted(&self) -> bool {
        self.taps.watch.sessions && self.taps.watch.accepted
    }

    /// It is done.
    pub(super) fn tap_accepted(&mut self, index: usize, before: Option<Before>) {
        let Some(Before { routes, end_of_rib }) = before else {
            return;
        };
        let Some(up) = self.peers[index].up.clone() else {
            return;
        };
        let source = Source::Peer(self.peers[index].index);
        let same = |a: &Option<Arc<RouteAttributes>>, b: &Option<Arc<RouteAttributes>>| match (a, b)
        {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        let routes: Vec<_> = routes
            .into_iter()
            .map(|(nlri, before)| (nlri, before, self.accepted_path(source, &nlri)))
            .filter(|(_, before, after)| !same(before, after))
            .map(|(nlri, _, after)| (nlri, after))
            .collect();
        if !routes.is_empty() || end_of_rib.is_some() {
            self.taps.add(|| Tap::Accepted {
                up,
                routes,
                end_of_rib,
            });
        }
    }

    fn accepted_path(&self, source: Source, nlri: &Nlri) -> Option<Arc<RouteAttributes>> {
        let table = &self.rib.table;
        let id = table.id(&nlri.prefix)?;
        let source = PathSource::from(source);
        let paths = table.all(nlri.prefix.family(), id);
        let path = paths
            .iter()
            .find(|path| path.source == source && path.path_id == nlri.path_id)?;
        Some(table.attributes(path.attributes).clone())
    }

    /// The accepted routes of a peer.
    fn accepted_from_peer(
        &self,
        index: usize,
        family: Family,
        which: impl Fn(&Path) -> bool,
    ) -> Vec<(Nlri, Option<Arc<RouteAttributes>>)> {
        let table = &self.rib.table;
        let paths = table.paths_from(family, Source::Peer(self.peers[index].index));
        let paths = paths.into_iter().filter(|(_, path)| which(path));
        paths
            .map(|(nlri, path)| (nlri, Some(table.attributes(path.attributes).clone())))
            .collect()
    }

    /// The session of a peer is over; which one it was.
    pub(super) fn tap_down(&mut self, index: usize, why: Option<Down>) -> Option<Arc<Up>> {
        let up = self.peers[index].up.take()?;
        self.taps.add(|| Tap::Down {
            up: up.clone(),
            why: why.unwrap_or(Down::Silent),
        });
        Some(up)
    }

    /// A peer has a session; what was kept for its return is accepted from the start.
    pub(super) fn tap_up(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        peer.up = peer.established().map(Arc::new);
        let Some(up) = peer.up.clone() else {
            return;
        };
        self.taps.add(|| Tap::Up(up.clone()));
        let kept = self.before_sweep(index);
        if let Some(Before { routes, end_of_rib }) = kept.filter(|kept| !kept.routes.is_empty()) {
            self.taps.add(|| Tap::Accepted {
                up,
                routes,
                end_of_rib,
            });
        }
    }

    /// The state of a peer may have changed from this one; `ended` is the session it had till now.
    pub(super) fn tap_state(&mut self, index: usize, old: State, ended: Option<Arc<Up>>) {
        let peer = &self.peers[index];
        let new = peer.state();
        if new != old {
            self.taps.add(|| Tap::State {
                ends: ended.map_or_else(|| peer.ends(), |up| up.ends.clone()),
                old,
                new,
            });
        }
    }
}

fn is_stale(path: &Path) -> bool {
    path.flags.contains(Flags::STALE)
}

impl Peer {
    pub(super) fn ends(&self) -> Ends {
        let unknown = match self.config.address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let local = self.connection().and_then(|connection| connection.local);
        Ends {
            name: self.config.name.clone(),
            peer: self.config.address,
            peer_as: self.config.asn,
            local: local
                .filter(|local| local.is_ipv4() == self.config.address.is_ipv4())
                .unwrap_or(unknown),
            local_as: self.local_asn,
        }
    }

    fn established(&self) -> Option<Up> {
        let Connection {
            negotiated: Some(negotiated),
            ports: (local_port, remote_port),
            sent_open,
            received_open,
            ..
        } = self.connection()?
        else {
            return None;
        };
        let ends = Ends {
            peer_as: negotiated.asn,
            ..self.ends()
        };
        Some(Up {
            ends,
            router_id: negotiated.router_id,
            local_port: *local_port,
            remote_port: *remote_port,
            options: negotiated.options,
            sent_open: sent_open.clone(),
            received_open: received_open.clone(),
        })
    }
}
