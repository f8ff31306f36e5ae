//! What happened, as BMP messages: plain translation, one session at a time.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tracing::debug;

use super::{DownReason, Information, Message, PeerHeader, PeerKind, PeerUp, Statistic};
use crate::mrt::Timestamp;
use crate::rib::attributes::RouteAttributes;
use crate::tap::{Down, Taken, Up};
use crate::wire::{self, Family, Nlri, Update, WireOptions, frame, pack};

/// The event of the state machine that ends a session in silence: ManualStop (RFC 4271 section
/// 8.1.2).
const MANUAL_STOP: u16 = 2;

/// BMP messages, written one after the other.
#[derive(Debug, Default)]
pub(crate) struct Report {
    out: BytesMut,
}

/// Which of the two views of a peer's routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    PrePolicy,
    PostPolicy,
}

impl Report {
    /// Everything written so far, once; `None` if that is nothing.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        (!self.out.is_empty()).then(|| self.out.split().freeze())
    }

    /// What does not fit a message is left out: nothing that we make comes near that.
    fn add(&mut self, message: &Message) {
        if let Err(error) = message.put(&mut self.out) {
            debug!(%error, "a BMP message was left out");
        }
    }

    /// Who we are; the first message of all.
    pub(crate) fn initiation(&mut self, name: &str, description: &str) {
        self.add(&Message::Initiation(vec![
            Information::SysName(name.to_owned()),
            Information::SysDescr(description.to_owned()),
        ]));
    }

    /// A session is established.
    pub(crate) fn peer_up(&mut self, up: &Up, time: Timestamp) {
        self.add(&Message::PeerUp(PeerUp {
            peer: header(up, View::PrePolicy, &up.options, time),
            local_address: up.ends.local,
            local_port: up.local_port,
            remote_port: up.remote_port,
            sent_open: up.sent_open.clone(),
            received_open: up.received_open.clone(),
            information: Vec::new(),
        }));
    }

    /// A session is over.
    pub(crate) fn peer_down(&mut self, up: &Up, why: &Down, time: Timestamp) {
        let reason = match why {
            Down::Notified(notification) => {
                DownReason::Notified(DownReason::octets_of(notification))
            }
            Down::Silent => DownReason::Silent(MANUAL_STOP),
            Down::NotifiedByPeer(notification) => {
                DownReason::NotifiedByPeer(DownReason::octets_of(notification))
            }
            Down::Lost => DownReason::Lost,
        };
        let peer = header(up, View::PrePolicy, &up.options, time);
        self.add(&Message::PeerDown { peer, reason });
    }

    /// An UPDATE as it came; one that was taken as a withdrawal is told as that, so that who reads
    /// this has the routes that we have.
    pub(crate) fn received(&mut self, up: &Up, taken: Taken, octets: &Bytes, time: Timestamp) {
        match taken {
            Taken::AsIs => {
                let peer = header(up, View::PrePolicy, &up.options, time);
                let update = octets.clone();
                self.add(&Message::RouteMonitoring { peer, update });
            }
            Taken::AsWithdrawal => {
                let withdrawn: Vec<_> = named(up, octets).into_iter().map(|r| (r, None)).collect();
                self.routes(up, View::PrePolicy, &withdrawn, time);
            }
            Taken::Refused => {}
        }
    }

    /// Routes of a peer that came, or go when they have no attributes.
    pub(crate) fn routes(
        &mut self,
        up: &Up,
        view: View,
        routes: &[(Nlri, Option<Arc<RouteAttributes>>)],
        time: Timestamp,
    ) {
        let options = own_options(up);
        let mut updates = BytesMut::new();
        let alike = |a: &(Nlri, Option<Arc<RouteAttributes>>),
                     b: &(Nlri, Option<Arc<RouteAttributes>>)| {
            a.0.prefix.family() == b.0.prefix.family()
                && match (&a.1, &b.1) {
                    (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                    (None, None) => true,
                    _ => false,
                }
        };
        for group in routes.chunk_by(alike) {
            let Some((first, attributes)) = group.first() else {
                continue;
            };
            let family = first.prefix.family();
            let nlri = group.iter().map(|(nlri, _)| *nlri);
            let packed = match attributes {
                None => pack::withdraw(family, nlri, &options, &mut updates),
                Some(attributes) => pack::announce(
                    family,
                    attributes.next_hop,
                    &attributes.to_wire(),
                    nlri,
                    &options,
                    &mut updates,
                ),
            };
            if let Err(error) = packed {
                debug!(peer = %up.ends.name, %error, "routes are left out of what BMP tells");
            }
        }
        self.monitoring(up, view, updates, time);
    }

    /// All routes of the family have been told.
    pub(crate) fn end_of_rib(&mut self, up: &Up, view: View, family: Family, time: Timestamp) {
        let mut updates = BytesMut::new();
        let end = wire::Message::Update(Update::end_of_rib(family));
        if end.encode(&own_options(up), &mut updates).is_ok() {
            self.monitoring(up, view, updates, time);
        }
    }

    fn monitoring(&mut self, up: &Up, view: View, mut updates: BytesMut, time: Timestamp) {
        let options = own_options(up);
        let peer = header(up, view, &options, time);
        while let Ok(Some(update)) = frame::split(&mut updates, &options) {
            self.add(&Message::RouteMonitoring { peer, update });
        }
    }

    /// Counters of a session.
    pub(crate) fn statistics(&mut self, up: &Up, statistics: Vec<Statistic>, time: Timestamp) {
        let peer = header(up, View::PrePolicy, &up.options, time);
        self.add(&Message::Statistics { peer, statistics });
    }
}

/// The routes that an UPDATE names, coming or going.
pub(crate) fn named(up: &Up, octets: &[u8]) -> Vec<Nlri> {
    match wire::Message::decode(octets, &up.options).map(|decoded| decoded.message) {
        Ok(wire::Message::Update(update)) => update.treated_as_withdraw().collect(),
        _ => Vec::new(),
    }
}

/// How the UPDATEs look that we write in the peer's name: path identifiers as the peer sends them,
/// since who reads this takes that from the OPENs, and AS numbers always with 4 octets.
fn own_options(up: &Up) -> WireOptions {
    WireOptions {
        four_octet_as: true,
        internal: true,
        add_path_send: up.options.add_path_receive,
        ipv4_next_hop_v6: true,
        ..up.options
    }
}

fn header(up: &Up, view: View, options: &WireOptions, time: Timestamp) -> PeerHeader {
    PeerHeader {
        kind: PeerKind::Global,
        post_policy: view == View::PostPolicy,
        two_octet_as: !options.four_octet_as,
        adj_rib_out: false,
        distinguisher: 0,
        address: up.ends.peer,
        asn: up.ends.peer_as,
        router_id: up.router_id,
        seconds: time.seconds,
        microseconds: time.microseconds.unwrap_or(0),
    }
}
