//! An established session: routes in, routes out, and what has reached the peer.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::connection::ConnectionId;
use super::peer::Peer;
use super::rib::{GroupId, Rib};
use super::stale::Loss;
use crate::config::{LimitAction, MaxPrefixes, PeerConfig, PeerName};
use crate::event::{Event, Told};
use crate::fsm::State;
use crate::fsm::negotiate::{Local, Negotiated};
use crate::rib::attributes::RouteAttributes;
use crate::rib::export::ExportContext;
use crate::rib::group::Place;
use crate::rib::import::{AdjRibIn, ImportContext};
use crate::rib::select::{PeerIndex, Source};
use crate::rib::table::slot;
use crate::wire::error::Verdict;
use crate::wire::{AfiSafi, Capability, Family, Finding, NextHop, Nlri, RouteRefresh, Update};

/// How long a peer that need not send End-of-RIB must be silent to count as having told its table.
/// Longer than routers take before they begin: BIRD up to 3 s, FRR 1.2 s.
pub(super) const QUIET: Duration = Duration::from_secs(5);

/// What exists only while a session is established.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) index: PeerIndex,
    address: Option<IpAddr>,
    pub(super) negotiated: Negotiated,
    pub(super) policy: crate::policy::ImportPolicy,
    pub(super) import: ImportContext,
    pub(super) limits: MaxPrefixes,
    /// The family that has outgrown a limit which ends the session.
    pub(super) beyond_limit: Option<Family>,
    asked_again: Option<Instant>,
    pub(super) adj_in: AdjRibIn,
    /// The peers that are told the same.
    pub(super) group: GroupId,
    /// Families whose End-of-RIB has arrived, and those of them that were reported.
    end_of_rib: [bool; Family::ALL.len()],
    end_of_rib_told: [bool; Family::ALL.len()],
    /// Of a peer that need not say when its table is told: when it is taken to be.
    quiet_at: Option<Instant>,
    /// It was quiet for long enough.
    was_quiet: bool,
    /// Families ignored after an error (RFC 7606 section 2, AFI/SAFI disable).
    pub(super) disabled: [bool; Family::ALL.len()],
    /// The import policy changed, and the peer cannot be asked to tell its routes again.
    pub(super) policy_waits: bool,
    /// UPDATEs with errors that the session survived, and the last such error.
    pub(super) malformed: u64,
    pub(super) last_finding: Option<String>,
}

/// Connections that have to get rid of what they hold; see [`Core::flush`](super::Core::flush).
#[derive(Debug, Clone, Default)]
pub struct Flush {
    pub(super) waiting: Vec<Waiting>,
}

impl Flush {
    /// Whether nothing is left to wait for.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The connections still waited for.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.waiting.iter().map(|waiting| waiting.connection)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) connection: ConnectionId,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Changes before this place are to be put into messages.
    Told(Place),
    /// Octets up to this count are to be acknowledged.
    Acknowledged(u64),
}

/// The terms on which a peer with this configuration is told routes in a session from this address.
fn export_context(
    peer: &PeerConfig,
    local: &Local,
    address: Option<IpAddr>,
    negotiated: &Negotiated,
) -> ExportContext {
    let local = local.towards(peer);
    let (own_v4, own_v6) = match address {
        Some(IpAddr::V4(address)) => (Some(address), None),
        // RFC 2545 has no form for a link-local address alone. On a session between such addresses
        // both places carry it, as others do.
        Some(IpAddr::V6(address)) if address.is_unicast_link_local() => (
            None,
            Some(NextHop::V6WithLinkLocal {
                global: address,
                link_local: address,
            }),
        ),
        Some(IpAddr::V6(address)) => (None, Some(NextHop::V6(address))),
        None => (None, None),
    };
    ExportContext {
        asn: local.asn,
        remove_private_as: peer.remove_private_as && !negotiated.options.internal,
        internal: negotiated.options.internal,
        policy: peer.export.clone(),
        families: negotiated.families.clone(),
        next_hop_v4: peer.next_hop_v4.or(own_v4),
        next_hop_v6: peer.next_hop_v6.map(NextHop::V6).or(own_v6),
        options: negotiated.options.for_sending(),
        role: peer.role,
        long_lived: !negotiated.long_lived.is_empty(),
        graceful_shutdown: local.graceful_shutdown,
    }
}

impl Session {
    fn new(
        peer: &PeerConfig,
        index: PeerIndex,
        local: &Local,
        address: Option<IpAddr>,
        negotiated: Negotiated,
        rib: &mut Rib,
    ) -> Session {
        let configured = [
            peer.next_hop_v4.map(IpAddr::V4),
            peer.next_hop_v6.map(IpAddr::V6),
        ];
        let export = export_context(peer, local, address, &negotiated);
        let asn = local.towards(peer).asn;
        Session {
            index,
            address,
            policy: peer.import.clone(),
            import: ImportContext {
                asn,
                other_asn: Some(local.asn).filter(|other| *other != asn),
                allow_own_as: peer.allow_own_as,
                internal: negotiated.options.internal,
                own_addresses: configured.into_iter().flatten().chain(address).collect(),
                peer_asn: negotiated.asn,
                role: peer.role,
            },
            limits: peer.max_prefixes.clone(),
            beyond_limit: None,
            asked_again: None,
            adj_in: AdjRibIn::default(),
            group: rib.join(index, export),
            end_of_rib: Default::default(),
            end_of_rib_told: Default::default(),
            quiet_at: None,
            was_quiet: false,
            disabled: Default::default(),
            policy_waits: false,
            malformed: 0,
            last_finding: None,
            negotiated,
        }
    }

    /// The session has begun, or an UPDATE has come: of a peer that need not say when its table is
    /// told, it is taken to be when nothing comes for [`QUIET`].
    pub(super) fn heard(&mut self, now: Instant) {
        if !self.was_quiet && !self.says_when_told() {
            self.quiet_at = Some(now + QUIET);
        }
    }

    /// Whether End-of-RIB is to be waited for: not of a peer without graceful restart, nor of one
    /// that restarts itself and may wait for ours (RFC 4724 section 4.1).
    fn says_when_told(&self) -> bool {
        let mut offers = self.negotiated.theirs.iter();
        offers.any(
            |offer| matches!(offer, Capability::GracefulRestart(restart) if !restart.restarting),
        )
    }

    /// When to call [`Session::timeout`].
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.quiet_at
    }

    /// It is this late; whether the peer counts as having told its table only now.
    pub(super) fn timeout(&mut self, now: Instant) -> bool {
        let quiet = self.quiet_at.take_if(|at| *at <= now).is_some();
        self.was_quiet |= quiet;
        quiet
    }

    /// Families of which the whole table is told.
    fn told_whole(&self) -> [bool; Family::ALL.len()] {
        let quiet = |family| self.was_quiet && self.negotiated.carries(family);
        Family::ALL.map(|family| self.end_of_rib[slot(family)] || quiet(family))
    }

    /// Takes an UPDATE into the tables.
    pub(super) fn update(&mut self, update: Update, findings: Vec<Finding>, rib: &mut Rib) {
        let verdict = findings.iter().map(|finding| finding.verdict).max();
        if let Some(finding) = findings
            .iter()
            .find(|finding| Some(finding.verdict) == verdict)
        {
            self.malformed += 1;
            self.last_finding = Some(finding.to_string());
        } else if let Some(family) = update.end_of_rib_family().and_then(AfiSafi::family)
            && self.negotiated.carries(family)
        {
            self.end_of_rib[slot(family)] = true;
            return;
        }
        match verdict {
            None | Some(Verdict::AttributeDiscard) => {
                self.lose(update.unreachable(), rib);
                self.learn(&update, rib);
            }
            Some(verdict) => {
                self.lose(update.treated_as_withdraw(), rib);
                if let Verdict::AfiSafiDisable(family) = verdict
                    && let Some(family) = family.family()
                {
                    self.disabled[slot(family)] = true;
                    self.lose_all(family, rib);
                }
            }
        }
    }

    fn lose(&mut self, nlris: impl Iterator<Item = Nlri>, rib: &mut Rib) {
        let adj_in = &mut self.adj_in;
        let nlris = nlris.inspect(|nlri| adj_in.withdrawn(nlri));
        rib.withdraw_each(nlris, Source::Peer(self.index));
    }

    fn learn(&mut self, update: &Update, rib: &mut Rib) {
        for reach in update.reachable() {
            let usable =
                self.negotiated.carries(reach.family) && !self.disabled[slot(reach.family)];
            if !usable {
                continue;
            }
            let Some(attributes) = RouteAttributes::received(&update.attributes, reach.next_hop)
            else {
                continue;
            };
            let refusal = self.import.refusal(&attributes);
            let attributes = self.import.adopt(attributes);
            let source = Source::Peer(self.index);
            let (adj_in, policy, import) = (&mut self.adj_in, &self.policy, &self.import);
            let limit = self.limits.of(reach.family);
            let mut beyond = false;
            let change = |actions, attributes: &_| import.changed(policy, actions, attributes);
            rib.learn(
                attributes,
                source,
                reach.nlri,
                change,
                |nlri, attributes, table| {
                    let decide = || policy.decide(&nlri.prefix, attributes);
                    adj_in.judge(*nlri, refusal, decide, || {
                        let full = limit.is_some_and(|limit| {
                            // What is there may change.
                            table.count(reach.family, source) >= limit.limit
                                && !table.has(nlri, source)
                        });
                        beyond |= full;
                        full
                    })
                },
            );
            if beyond && limit.is_some_and(|limit| limit.action == LimitAction::Teardown) {
                self.beyond_limit = Some(reach.family);
            }
        }
    }

    /// Drops every route of a family.
    fn lose_all(&mut self, family: Family, rib: &mut Rib) {
        self.adj_in.drop_family(family);
        rib.withdraw_where(family, Source::Peer(self.index), |_| true);
    }

    /// A family of which routes were refused for want of room, where there is room again: to be
    /// asked for once more, now and then.
    pub(super) fn ask_again(&mut self, rib: &Rib, now: Instant) -> Option<Family> {
        let due = self
            .asked_again
            .is_none_or(|asked| now.saturating_duration_since(asked) >= ASK_AGAIN);
        if !due || !self.negotiated.route_refresh {
            return None;
        }
        let source = Source::Peer(self.index);
        let family = Family::ALL.into_iter().find(|family| {
            self.adj_in.beyond_limit(*family) > 0
                && self
                    .limits
                    .of(*family)
                    .is_some_and(|limit| rib.table.count(*family, source) < limit.limit)
        })?;
        self.asked_again = Some(now);
        Some(family)
    }
}

/// How often a peer is asked for routes that found no room.
const ASK_AGAIN: Duration = Duration::from_secs(30);

impl Peer {
    /// A session is established on the peer's own connection.
    pub(super) fn begin_session(&mut self, local: &Local, rib: &mut Rib, now: Instant) {
        let Some(connection) = self.connection() else {
            return;
        };
        let Some(negotiated) = connection.negotiated.clone() else {
            return;
        };
        rib.table
            .set_rank(self.index, self.rank(negotiated.router_id));
        let address = connection.local;
        // RFC 4724 section 4.1: the bit is for the session that comes back.
        self.restarting_until = None;
        let source = Source::Peer(self.index);
        self.stale.back(&negotiated, source, rib, now);
        let (peer, index) = (&self.config, self.index);
        let mut session = Session::new(peer, index, local, address, negotiated, rib);
        session.heard(now);
        self.session = Some(session);
    }

    /// The peer is told routes on other terms from now on.
    pub(super) fn regroup(&mut self, local: &Local, rib: &mut Rib) {
        if let Some(session) = &mut self.session {
            let Session {
                address,
                negotiated,
                group,
                ..
            } = session;
            let context = export_context(&self.config, local, *address, negotiated);
            *group = rib.regroup(*group, self.index, context);
        }
    }

    /// The peer asks for a family again (RFC 2918), or marks where its answer to us begins or ends
    /// (RFC 7313).
    pub(super) fn route_refresh(&mut self, refresh: &RouteRefresh, rib: &mut Rib, now: Instant) {
        let Some(session) = &mut self.session else {
            return;
        };
        let Some(family) = refresh.family.family() else {
            return;
        };
        let enhanced = session.negotiated.enhanced_refresh;
        let source = Source::Peer(self.index);
        match refresh.subtype {
            RouteRefresh::REQUEST if !rib.deferred => {
                rib.refresh(session.group, self.index, family, enhanced);
            }
            RouteRefresh::BEGIN if enhanced => {
                session.adj_in.drop_family(family);
                self.stale.begin_refresh(family, source, rib, now);
            }
            RouteRefresh::END if enhanced => self.stale.end_of_rib(family, source, rib),
            _ => {}
        }
    }

    /// The session is over: what the peer told is no longer so, save what it may come back to.
    pub(super) fn end_session(&mut self, loss: Loss, rib: &mut Rib, now: Instant) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        rib.leave(session.group, self.index);
        let source = Source::Peer(self.index);
        let negotiated = &session.negotiated;
        self.stale
            .lost(loss, negotiated, &self.config, source, rib, now);
        for family in Family::ALL {
            if !self.stale.keeps(family) {
                session.lose_all(family, rib);
            }
        }
    }

    /// The families in use; none unless established.
    pub(super) fn families(&self) -> Vec<Family> {
        let session = self
            .session
            .as_ref()
            .filter(|_| self.state() == State::Established);
        session
            .map(|session| session.negotiated.families.clone())
            .unwrap_or_default()
    }

    /// End-of-RIB markers that arrived on this session.
    pub(super) fn end_of_rib_events(&self) -> Vec<Event> {
        let Some(session) = &self.session else {
            return Vec::new();
        };
        let arrived = Family::ALL
            .into_iter()
            .filter(|family| session.told_whole()[slot(*family)]);
        arrived
            .map(|family| Event::EndOfRib {
                peer: self.config.name.clone(),
                family,
            })
            .collect()
    }

    /// End-of-RIB markers that were not reported yet.
    pub(super) fn new_ends_of_rib(&mut self, rib: &mut Rib) -> Vec<Event> {
        let Some(session) = &mut self.session else {
            return Vec::new();
        };
        let whole = session.told_whole();
        if whole == session.end_of_rib_told {
            return Vec::new();
        }
        let told = std::mem::replace(&mut session.end_of_rib_told, whole);
        for family in Family::ALL {
            if session.end_of_rib[slot(family)] {
                self.stale.end_of_rib(family, Source::Peer(self.index), rib);
            }
        }
        let events = self.end_of_rib_events().into_iter();
        events
            .filter(|event| matches!(event, Event::EndOfRib { family, .. } if !told[slot(*family)]))
            .collect()
    }

    /// Refused routes.
    pub(super) fn refusals(&self) -> impl Iterator<Item = Nlri> + '_ {
        let sessions = self.session.iter();
        let refusals = sessions.flat_map(|session| session.adj_in.refusals());
        refusals.map(|(nlri, _)| *nlri)
    }

    /// What the peer has been told.
    pub(super) fn advertised(&self, rib: &Rib) -> Option<(PeerName, Told)> {
        let session = self.session.as_ref()?;
        Some((
            self.config.name.clone(),
            rib.told_to(session.group, self.index),
        ))
    }

    /// What it takes until the peer knows all changes made so far.
    pub(super) fn flush(&self, rib: &Rib) -> Option<Waiting> {
        let session = self.session.as_ref()?;
        Some(Waiting {
            connection: self.connection()?.id,
            stage: Stage::Told(rib.place(session.group)),
        })
    }

    /// Whether that is done, or the session is gone and nothing can be done.
    pub(super) fn is_flushed(
        &self,
        waiting: &mut Waiting,
        rib: &Rib,
        unacknowledged: impl FnOnce(ConnectionId) -> usize,
    ) -> bool {
        let Some(connection) = self.connection().filter(|c| c.id == waiting.connection) else {
            return true;
        };
        let (handed, written) = (connection.handed, connection.written);
        let Some(session) = &self.session else {
            return true;
        };
        if let Stage::Told(place) = &mut waiting.stage
            && rib.has_reached(session.group, self.index, place)
        {
            waiting.stage = Stage::Acknowledged(handed);
        }
        match waiting.stage {
            Stage::Told(_) => false,
            Stage::Acknowledged(count) => {
                written >= count && {
                    let unacknowledged = unacknowledged(waiting.connection) as u64;
                    written.saturating_sub(unacknowledged) >= count
                }
            }
        }
    }
}
