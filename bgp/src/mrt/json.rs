//! MRT records as JSON, with what is wrong in the messages and attributes they carry.

use serde::ser::{Serialize, Serializer};

use super::{Body, ReadError, Record, Rib, RibEntry, Session};
use crate::wire::json::{AttributesView, Fault, Hex, Report};
use crate::wire::{Message, MpReach, NextHop, Prefix, Update};

/// A record to be serialized as one object; `record` says what kind it is.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a>(pub &'a Record);

/// A record that is wrong inside, to be serialized as one object.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Unreadable {
    record: &'static str,
    reason: String,
}

impl Unreadable {
    /// What the reader said of it.
    pub fn of(error: &ReadError) -> Unreadable {
        Unreadable {
            record: "unreadable",
            reason: error.to_string(),
        }
    }
}

impl Serialize for RecordView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Record { time, body } = self.0;
        Object {
            time: time.seconds,
            microseconds: time.microseconds,
            body: BodyView::new(body),
        }
        .serialize(serializer)
    }
}

#[derive(serde::Serialize)]
struct Object<'a> {
    /// Seconds since 1970.
    time: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    microseconds: Option<u32>,
    #[serde(flatten)]
    body: BodyView<'a>,
}

#[derive(serde::Serialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
enum BodyView<'a> {
    PeerIndexTable {
        collector: std::net::Ipv4Addr,
        view: &'a str,
        peers: Vec<PeerView>,
    },
    Rib {
        sequence: u32,
        prefix: Prefix,
        entries: Vec<EntryView>,
    },
    Message {
        #[serde(flatten)]
        session: SessionView,
        as4: bool,
        add_path: bool,
        sent: bool,
        #[serde(flatten)]
        report: Box<Report>,
    },
    StateChange {
        #[serde(flatten)]
        session: SessionView,
        old: crate::fsm::State,
        new: crate::fsm::State,
    },
    Other {
        kind: u16,
        subtype: u16,
        octets: Hex,
    },
}

impl<'a> BodyView<'a> {
    fn new(body: &'a Body) -> BodyView<'a> {
        match body {
            Body::PeerIndexTable(table) => BodyView::PeerIndexTable {
                collector: table.collector,
                view: &table.view,
                peers: table
                    .peers
                    .iter()
                    .map(|peer| PeerView {
                        router_id: peer.router_id,
                        address: peer.address,
                        asn: peer.asn,
                    })
                    .collect(),
            },
            Body::Rib(rib) => BodyView::Rib {
                sequence: rib.sequence,
                prefix: rib.prefix,
                entries: rib
                    .entries
                    .iter()
                    .map(|entry| EntryView::new(entry, rib))
                    .collect(),
            },
            Body::Message(message) => BodyView::Message {
                session: SessionView::new(&message.session),
                as4: message.four_octet_as,
                add_path: message.add_path,
                sent: message.sent,
                report: Box::new(Report::of(&message.octets, &message.options())),
            },
            Body::StateChange(change) => BodyView::StateChange {
                session: SessionView::new(&change.session),
                old: change.old,
                new: change.new,
            },
            Body::Other {
                kind,
                subtype,
                octets,
            } => BodyView::Other {
                kind: *kind,
                subtype: *subtype,
                octets: Hex::from(&**octets),
            },
        }
    }
}

#[derive(serde::Serialize)]
struct PeerView {
    router_id: std::net::Ipv4Addr,
    address: std::net::IpAddr,
    asn: u32,
}

#[derive(serde::Serialize)]
struct SessionView {
    peer: std::net::IpAddr,
    peer_as: u32,
    local: std::net::IpAddr,
    local_as: u32,
    interface: u16,
}

impl SessionView {
    fn new(session: &Session) -> SessionView {
        SessionView {
            peer: session.peer,
            peer_as: session.peer_as,
            local: session.local,
            local_as: session.local_as,
            interface: session.interface,
        }
    }
}

/// One route of a table.
struct EntryView {
    peer: u16,
    originated: u32,
    path_id: Option<u32>,
    report: Report,
    update: Option<Update>,
}

#[derive(serde::Serialize)]
struct EntryFields<'a> {
    peer: u16,
    originated: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_id: Option<u32>,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_hop: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_local: Option<std::net::Ipv6Addr>,
    attributes: Option<AttributesView<'a>>,
    errors: &'a [Fault],
}

impl EntryView {
    fn new(entry: &RibEntry, rib: &Rib) -> EntryView {
        let (report, update) = match entry.decode(&rib.prefix) {
            Ok(decoded) => {
                let update = match &decoded.message {
                    Message::Update(update) => Some(update.clone()),
                    _ => None,
                };
                (
                    Report::decoded(decoded, &super::attributes::options()),
                    update,
                )
            }
            Err(error) => (Report::reset(None, &error), None),
        };
        EntryView {
            peer: entry.peer,
            originated: entry.originated,
            path_id: rib.add_path.then_some(entry.path_id),
            report,
            update,
        }
    }
}

impl Serialize for EntryView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let next_hop = self.update.as_ref().and_then(next_hop);
        EntryFields {
            peer: self.peer,
            originated: self.originated,
            path_id: self.path_id,
            verdict: self.report.verdict,
            next_hop: next_hop.map(|next_hop| next_hop.addr()),
            link_local: next_hop.and_then(|next_hop| next_hop.link_local()),
            attributes: self
                .update
                .as_ref()
                .map(|update| AttributesView(&update.attributes)),
            errors: &self.report.errors,
        }
        .serialize(serializer)
    }
}

fn next_hop(update: &Update) -> Option<NextHop> {
    match &update.mp_reach {
        Some(MpReach::Unicast { next_hop, .. }) => Some(*next_hop),
        _ => update.attributes.next_hop.map(NextHop::V4),
    }
}
