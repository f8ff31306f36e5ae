//! What an operator sees of a peer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::advice;
use super::peer::Peer;
use super::rib::Rib;
use super::session::Session;
use crate::event::{CapabilityStatus, PeerStatus, PrefixCounts};
use crate::fsm::State;
use crate::fsm::negotiate::Negotiated;
use crate::policy::{ExportPolicy, ImportPolicy};
use crate::rib::select::Source;
use crate::rib::table::slot;
use crate::wire::Family;

/// Whoever accepts a connection and says nothing for so long is worth a note.
const SILENCE: Duration = Duration::from_secs(5);

impl Peer {
    /// The peer as it stands.
    pub(super) fn status(&self, rib: &Rib, now: Instant) -> PeerStatus {
        let connection = self.connection();
        let negotiated = connection.and_then(|connection| connection.negotiated.as_ref());
        let session = self.session.as_ref();
        let counts = |family: &Family| {
            let accepted = rib.table.count(*family, Source::Peer(self.index));
            let refused = session.map_or(0, |session| session.adj_in.refused(*family));
            let out = session.map(|session| rib.group(session.group));
            PrefixCounts {
                received: accepted + refused,
                accepted,
                stale: match self.stale.keeps(*family) {
                    true => rib.table.stale(*family, Source::Peer(self.index)),
                    false => 0,
                },
                limit: session
                    .and_then(|session| session.limits.of(*family))
                    .map(|limit| limit.limit),
                beyond_limit: session.map_or(0, |session| session.adj_in.beyond_limit(*family)),
                advertised: out.map_or(0, |out| out.count(self.index, *family)),
                pending: out.map_or(0, |out| out.pending(self.index, *family)),
            }
        };
        PeerStatus {
            name: self.config.name.clone(),
            address: self.config.address,
            asn: self.config.asn,
            dynamic: self.dynamic.as_ref().map(|dynamic| dynamic.group.clone()),
            internal: self.internal,
            passive: self.config.passive,
            admin_up: self.admin_up,
            state: self.state(),
            since_seconds: now.saturating_duration_since(self.since).as_secs(),
            sessions: self.sessions,
            last_error: self.failures.last().cloned(),
            notes: self.notes(rib, now),
            local_address: connection.and_then(|connection| connection.local),
            router_id: negotiated.map(|negotiated| negotiated.router_id),
            families: self.families(),
            hold_time: negotiated.map(|negotiated| negotiated.hold_time),
            four_octet_as: negotiated.is_some_and(|negotiated| negotiated.options.four_octet_as),
            peer_restart_time: negotiated
                .and_then(|negotiated| negotiated.graceful_restart.as_ref())
                .map(|restart| restart.restart_time),
            capabilities: negotiated.map(capabilities).unwrap_or_default(),
            messages_in: connection.map_or(0, |connection| connection.messages_in),
            messages_out: connection.map_or(0, |connection| connection.messages_out),
            prefixes: self
                .config
                .families
                .iter()
                .map(|f| (*f, counts(f)))
                .collect(),
            // Known to whoever runs BFD.
            bfd: None,
        }
    }

    /// What stands in the way of routes.
    fn notes(&self, rib: &Rib, now: Instant) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.admin_up {
            notes.push("administratively down: take it up again to use it".to_owned());
        }
        let waiting = now.saturating_duration_since(self.since) >= SILENCE;
        if self.state() == State::OpenSent && waiting {
            notes.push(format!(
                "connected, and the peer says nothing{}",
                advice::one_sided(&self.config)
            ));
        }
        if self.waits_for_path() {
            notes.push("the session waits for BFD to be up, because of bfd.strict".to_owned());
        }
        if self.config.import == ImportPolicy::None {
            notes.push("nothing is accepted: no import policy (RFC 8212)".to_owned());
        }
        if self.config.export == ExportPolicy::None {
            notes.push("nothing is told: no export policy (RFC 8212)".to_owned());
        }
        if let Some(session) = self
            .session
            .as_ref()
            .filter(|_| self.state() == State::Established)
        {
            self.session_notes(session, rib, &mut notes);
        }
        notes
    }

    fn limit_notes(&self, session: &Session, rib: &Rib, notes: &mut Vec<String>) {
        for family in Family::ALL {
            let Some(limit) = session.limits.of(family) else {
                continue;
            };
            let count = rib.table.count(family, Source::Peer(self.index));
            if count >= limit.warns_at() {
                notes.push(format!(
                    "{count} {family} routes of at most {}: raise max_prefixes.{family}.limit, or ask \
                     the peer for fewer",
                    limit.limit
                ));
            }
        }
    }

    fn session_notes(&self, session: &Session, rib: &Rib, notes: &mut Vec<String>) {
        let group = rib.group(session.group);
        if rib.deferred {
            notes.push(
                "nothing is told yet: restarting, and not everything is announced again".to_owned(),
            );
        }
        for family in &self.config.families {
            if !session.negotiated.carries(*family) {
                notes.push(format!(
                    "no {family} routes: the peer does not offer {family}"
                ));
            } else if session.disabled[slot(*family)] {
                notes.push(format!(
                    "no {family} routes are accepted: the peer sent some that cannot be \
                     understood; reset the session once it is fixed"
                ));
            } else if group.context().next_hop(*family).is_none()
                && self.config.export != ExportPolicy::None
            {
                let field = match family {
                    Family::Ipv4Unicast => "next_hop_v4",
                    Family::Ipv6Unicast => "next_hop_v6",
                };
                notes.push(format!(
                    "no {family} routes are told: our address of the session is no {family} \
                     address, set {field} of peer {}",
                    self.config.name
                ));
            }
        }
        self.limit_notes(session, rib, notes);
        if session.policy_waits {
            notes.push(
                "the import policy has changed, and the peer cannot be asked to tell its routes \
                 again: reset the session to apply it to what was refused or changed before"
                    .to_owned(),
            );
        }
        notes.extend(session.adj_in.notes());
        if let Some(finding) = &session.last_finding {
            notes.push(format!(
                "{} UPDATEs with errors, the last one: {finding}",
                session.malformed
            ));
        }
        if group.oversized() > 0 {
            notes.push(format!(
                "{} routes were not told: their attributes fill a whole message",
                group.oversized()
            ));
        }
    }
}

/// What both sides offer, in the order of the codes.
fn capabilities(negotiated: &Negotiated) -> Vec<CapabilityStatus> {
    let mut offers: BTreeMap<(u8, &'static str), CapabilityStatus> = BTreeMap::new();
    for (ours, list) in [(true, &negotiated.ours), (false, &negotiated.theirs)] {
        for capability in list {
            let name = capability.name();
            let status =
                offers
                    .entry((capability.code(), name))
                    .or_insert_with(|| CapabilityStatus {
                        name,
                        ours: None,
                        theirs: None,
                        in_use: false,
                    });
            status.in_use |= negotiated.in_use(capability);
            let side = match ours {
                true => &mut status.ours,
                false => &mut status.theirs,
            };
            let detail = capability.to_string();
            match side {
                Some(text) => *text = format!("{text}, {detail}"),
                None => *side = Some(detail),
            }
        }
    }
    offers.into_values().collect()
}
