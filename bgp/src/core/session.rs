//! An established session: routes in, routes out, and what has reached the peer.

use std::net::IpAddr;
use std::time::Instant;

use bytes::BytesMut;

use super::Rib;
use super::connection::ConnectionId;
use super::peer::{HIGH_WATER, Peer};
use crate::config::{PeerConfig, PeerName};
use crate::event::{Event, Told};
use crate::fsm::State;
use crate::fsm::negotiate::{Local, Negotiated};
use crate::rib::attributes::RouteAttributes;
use crate::rib::export::{AdjRibOut, ExportContext};
use crate::rib::import::{AdjRibIn, ImportContext};
use crate::rib::select::{PeerIndex, Source};
use crate::rib::table::{Change, Table, slot};
use crate::wire::error::Verdict;
use crate::wire::{AfiSafi, Family, Finding, Prefix, RouteRefresh, Update};

/// What exists only while a session is established.
#[derive(Debug)]
pub(super) struct Session {
    index: PeerIndex,
    pub(super) negotiated: Negotiated,
    policy: crate::policy::ImportPolicy,
    import: ImportContext,
    pub(super) adj_in: AdjRibIn,
    pub(super) export: ExportContext,
    pub(super) adj_out: AdjRibOut,
    /// Families whose End-of-RIB has arrived, and those of them that were reported.
    end_of_rib: [bool; Family::ALL.len()],
    end_of_rib_told: [bool; Family::ALL.len()],
    /// Families ignored after an error (RFC 7606 section 2, AFI/SAFI disable).
    pub(super) disabled: [bool; Family::ALL.len()],
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
    /// Changes up to this number are to be put into messages.
    Told(u64),
    /// Octets up to this count are to be acknowledged.
    Acknowledged(u64),
}

impl Session {
    fn new(
        peer: &PeerConfig,
        index: PeerIndex,
        asn: u32,
        address: Option<IpAddr>,
        negotiated: Negotiated,
    ) -> Session {
        let internal = negotiated.options.internal;
        let (own_v4, own_v6) = match address {
            Some(IpAddr::V4(address)) => (Some(address), None),
            // RFC 2545: a link-local address is no next hop by itself.
            Some(IpAddr::V6(address)) => (
                None,
                Some(address).filter(|address| !address.is_unicast_link_local()),
            ),
            None => (None, None),
        };
        let configured = [
            peer.next_hop_v4.map(IpAddr::V4),
            peer.next_hop_v6.map(IpAddr::V6),
        ];
        Session {
            index,
            policy: peer.import.clone(),
            import: ImportContext {
                asn,
                internal,
                own_addresses: configured.into_iter().flatten().chain(address).collect(),
            },
            adj_in: AdjRibIn::default(),
            export: ExportContext {
                peer: index,
                asn,
                internal,
                policy: peer.export.clone(),
                families: negotiated.families.clone(),
                next_hop_v4: peer.next_hop_v4.or(own_v4),
                next_hop_v6: peer.next_hop_v6.or(own_v6),
                options: negotiated.options,
            },
            adj_out: AdjRibOut::default(),
            end_of_rib: Default::default(),
            end_of_rib_told: Default::default(),
            disabled: Default::default(),
            malformed: 0,
            last_finding: None,
            negotiated,
        }
    }

    /// Takes an UPDATE into the tables.
    pub(super) fn update(
        &mut self,
        update: Update,
        findings: Vec<Finding>,
        rib: &mut Rib,
    ) -> Vec<(Prefix, Change)> {
        let mut changes = Vec::new();
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
            return changes;
        }
        match verdict {
            None | Some(Verdict::AttributeDiscard) => {
                for nlri in update.unreachable() {
                    self.lose(nlri.prefix, rib, &mut changes);
                }
                self.learn(&update, rib, &mut changes);
            }
            Some(verdict) => {
                for nlri in update.treated_as_withdraw() {
                    self.lose(nlri.prefix, rib, &mut changes);
                }
                if let Verdict::AfiSafiDisable(family) = verdict
                    && let Some(family) = family.family()
                {
                    self.disabled[slot(family)] = true;
                    changes.extend(self.lose_all(family, rib));
                }
            }
        }
        changes
    }

    fn lose(&mut self, prefix: Prefix, rib: &mut Rib, changes: &mut Vec<(Prefix, Change)>) {
        self.adj_in.withdrawn(&prefix);
        let change = rib.table.withdraw(prefix, Source::Peer(self.index));
        if change.matters() {
            changes.push((prefix, change));
        }
    }

    fn learn(&mut self, update: &Update, rib: &mut Rib, changes: &mut Vec<(Prefix, Change)>) {
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
            let attributes = rib.interner.intern(self.import.adopt(attributes));
            let source = Source::Peer(self.index);
            for prefix in reach.nlri.iter().map(|nlri| &nlri.prefix) {
                let change = match self.adj_in.judge(*prefix, refusal, &self.policy) {
                    true => rib.table.announce(*prefix, source, attributes.clone()),
                    false => rib.table.withdraw(*prefix, source),
                };
                if change.matters() {
                    changes.push((*prefix, change));
                }
            }
        }
    }

    /// Drops every route of a family.
    fn lose_all(&mut self, family: Family, rib: &mut Rib) -> Vec<(Prefix, Change)> {
        self.adj_in.drop_family(family);
        let source = Source::Peer(self.index);
        let prefixes: Vec<Prefix> = rib
            .table
            .prefixes_from(family, source)
            .map(|(prefix, _)| prefix)
            .collect();
        let changes = prefixes
            .into_iter()
            .map(|prefix| (prefix, rib.table.withdraw(prefix, source)));
        changes.filter(|(_, change)| change.matters()).collect()
    }

    /// The peer wants everything again (RFC 2918). Other subtypes are not negotiated (RFC 7313).
    pub(super) fn refresh(&mut self, refresh: &RouteRefresh, rib: &Rib) {
        if refresh.subtype == 0
            && !rib.deferred
            && let Some(family) = refresh.family.family()
        {
            self.adj_out
                .refresh(&self.export, &rib.table, family, rib.number);
        }
    }
}

impl Peer {
    /// A session is established on the peer's own connection.
    pub(super) fn begin_session(&mut self, local: &Local, rib: &mut Rib) {
        let Some(connection) = self.connection() else {
            return;
        };
        let Some(negotiated) = connection.negotiated.clone() else {
            return;
        };
        rib.table
            .set_rank(self.index, self.rank(negotiated.router_id));
        let session = Session::new(
            &self.config,
            self.index,
            local.asn,
            connection.local,
            negotiated,
        );
        self.session = Some(session);
        if !rib.deferred {
            self.tell_all(&rib.table, rib.number);
        }
    }

    /// The session is over: what the peer told is no longer so.
    pub(super) fn end_session(&mut self, rib: &mut Rib) -> Vec<(Prefix, Change)> {
        let Some(mut session) = self.session.take() else {
            return Vec::new();
        };
        let lost = Family::ALL
            .into_iter()
            .flat_map(|family| session.lose_all(family, rib));
        lost.collect()
    }

    /// Starts telling the peer the whole table.
    pub(super) fn tell_all(&mut self, table: &Table, number: u64) {
        if let Some(session) = &mut self.session {
            session.adj_out.tell_all(&session.export, table, number);
        }
    }

    /// The best path to a prefix has changed.
    pub(super) fn tell(&mut self, table: &Table, prefix: Prefix, number: u64) {
        if let Some(session) = &mut self.session {
            session
                .adj_out
                .changed(&session.export, table, prefix, number);
        }
    }

    /// Makes UPDATEs as far as there is room on the connection.
    pub(super) fn write_updates(
        &mut self,
        rib: &mut Rib,
        out: &mut BytesMut,
        now: Instant,
    ) -> Option<ConnectionId> {
        let room = self.connection()?.in_flight() < HIGH_WATER;
        let session = self.session.as_mut().filter(|_| room)?;
        let mut messages = 0;
        // A round may find that nothing is to be told after all.
        while out.is_empty() && session.adj_out.has_work() {
            messages += session
                .adj_out
                .write(&session.export, &rib.table, &mut rib.interner, out);
        }
        match out.is_empty() {
            true => None,
            false => self.hand_over_updates(messages, out, now),
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
            .filter(|family| session.end_of_rib[slot(*family)]);
        arrived
            .map(|family| Event::EndOfRib {
                peer: self.config.name.clone(),
                family,
            })
            .collect()
    }

    /// End-of-RIB markers that were not reported yet.
    pub(super) fn new_ends_of_rib(&mut self) -> Vec<Event> {
        let Some(session) = &mut self.session else {
            return Vec::new();
        };
        if session.end_of_rib == session.end_of_rib_told {
            return Vec::new();
        }
        let told = std::mem::replace(&mut session.end_of_rib_told, session.end_of_rib);
        let events = self.end_of_rib_events().into_iter();
        events
            .filter(|event| matches!(event, Event::EndOfRib { family, .. } if !told[slot(*family)]))
            .collect()
    }

    /// Prefixes of refused routes.
    pub(super) fn refusals(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.session
            .iter()
            .flat_map(|session| session.adj_in.refusals())
            .map(|(prefix, _)| *prefix)
    }

    /// What the peer has been told.
    pub(super) fn advertised(&self) -> Option<(PeerName, Told)> {
        let told = |family| {
            self.session
                .as_ref()
                .map(|session| session.adj_out.told(family))
        };
        let mut all = told(Family::Ipv4Unicast)?.clone();
        all.extend(
            told(Family::Ipv6Unicast)?
                .iter()
                .map(|(p, told)| (*p, told.clone())),
        );
        Some((self.config.name.clone(), all))
    }

    /// What it takes until the peer knows all changes up to this number.
    pub(super) fn flush(&self, number: u64) -> Option<Waiting> {
        self.session.as_ref()?;
        Some(Waiting {
            connection: self.connection()?.id,
            stage: Stage::Told(number),
        })
    }

    /// Whether that is done, or the session is gone and nothing can be done.
    pub(super) fn is_flushed(
        &mut self,
        waiting: &mut Waiting,
        deferred: bool,
        unacknowledged: impl FnOnce(ConnectionId) -> usize,
    ) -> bool {
        let Some(connection) = self.connection().filter(|c| c.id == waiting.connection) else {
            return true;
        };
        let (handed, written) = (connection.handed, connection.written);
        let Some(session) = &mut self.session else {
            return true;
        };
        if let Stage::Told(number) = waiting.stage
            && !deferred
            && session.adj_out.has_told(number)
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
