//! BGP4MP and BGP4MP_ET (RFC 6396 section 4.4): what happened on a session.

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};

use super::bgp4mp_subtype as subtype;
use super::{Body, PutError, RecordError};
use crate::cursor::Cursor;
use crate::fsm::State;
use crate::wire::attribute::AS_TRANS;
use crate::wire::prefix::{AFI_IPV4, AFI_IPV6};
use crate::wire::{Decoded, FamilySet, Message, WireError, WireOptions};

/// The session a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The peer's AS number.
    pub peer_as: u32,
    /// Our AS number.
    pub local_as: u32,
    /// The number of the interface, 0 where that says nothing.
    pub interface: u16,
    /// The peer's address.
    pub peer: IpAddr,
    /// Our address, of the same family; all zeros when it is not known.
    pub local: IpAddr,
}

/// A message on a session, as it was on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionMessage {
    /// The session.
    pub session: Session,
    /// AS numbers in the record and in the message's AS_PATH have 4 octets. Without it, a number
    /// of the session that does not fit is written as AS_TRANS.
    pub four_octet_as: bool,
    /// We have sent it; otherwise the peer has.
    pub sent: bool,
    /// Routes carry path identifiers (RFC 8050).
    pub add_path: bool,
    /// The message, header included.
    pub octets: Bytes,
}

/// A session changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateChange {
    /// The session.
    pub session: Session,
    /// AS numbers have 4 octets.
    pub four_octet_as: bool,
    /// The state it was in.
    pub old: State,
    /// The state it is in.
    pub new: State,
}

/// The body of a record of this subtype; `None` if that is not one we know.
pub(super) fn parse(subtype: u16, cursor: &mut Cursor) -> Result<Option<Body>, RecordError> {
    let (four_octet_as, sent, add_path) = match subtype {
        subtype::STATE_CHANGE | subtype::STATE_CHANGE_AS4 => {
            let four_octet_as = subtype == subtype::STATE_CHANGE_AS4;
            return Ok(Some(Body::StateChange(StateChange {
                session: Session::parse(four_octet_as, cursor)?,
                four_octet_as,
                old: state("old state", cursor)?,
                new: state("new state", cursor)?,
            })));
        }
        subtype::MESSAGE => (false, false, false),
        subtype::MESSAGE_AS4 => (true, false, false),
        subtype::MESSAGE_LOCAL => (false, true, false),
        subtype::MESSAGE_AS4_LOCAL => (true, true, false),
        subtype::MESSAGE_ADDPATH => (false, false, true),
        subtype::MESSAGE_AS4_ADDPATH => (true, false, true),
        subtype::MESSAGE_LOCAL_ADDPATH => (false, true, true),
        subtype::MESSAGE_AS4_LOCAL_ADDPATH => (true, true, true),
        _ => return Ok(None),
    };
    Ok(Some(Body::Message(SessionMessage {
        session: Session::parse(four_octet_as, cursor)?,
        four_octet_as,
        sent,
        add_path,
        octets: cursor.rest(),
    })))
}

impl Session {
    fn parse(four_octet_as: bool, cursor: &mut Cursor) -> Result<Session, RecordError> {
        let asn = |field, cursor: &mut Cursor| match four_octet_as {
            true => cursor.u32(field),
            false => cursor.u16(field).map(u32::from),
        };
        let peer_as = asn("peer AS", cursor)?;
        let local_as = asn("local AS", cursor)?;
        let interface = cursor.u16("interface index")?;
        let offset = cursor.offset();
        let ipv6 = match cursor.u16("address family")? {
            AFI_IPV4 => false,
            AFI_IPV6 => true,
            afi => return Err(RecordError::AddressFamily { offset, afi }),
        };
        Ok(Session {
            peer_as,
            local_as,
            interface,
            peer: cursor.address("peer address", ipv6)?,
            local: cursor.address("local address", ipv6)?,
        })
    }

    fn put(&self, four_octet_as: bool, out: &mut BytesMut) -> Result<(), PutError> {
        for asn in [self.peer_as, self.local_as] {
            match four_octet_as {
                true => out.put_u32(asn),
                false => out.put_u16(u16::try_from(asn).unwrap_or(AS_TRANS)),
            }
        }
        out.put_u16(self.interface);
        match (self.peer, self.local) {
            (IpAddr::V4(peer), IpAddr::V4(local)) => {
                out.put_u16(AFI_IPV4);
                out.put_slice(&peer.octets());
                out.put_slice(&local.octets());
            }
            (IpAddr::V6(peer), IpAddr::V6(local)) => {
                out.put_u16(AFI_IPV6);
                out.put_slice(&peer.octets());
                out.put_slice(&local.octets());
            }
            (peer, local) => return Err(PutError::Families { local, peer }),
        }
        Ok(())
    }
}

impl SessionMessage {
    pub(super) fn subtype(&self) -> u16 {
        match (self.add_path, self.sent, self.four_octet_as) {
            (false, false, false) => subtype::MESSAGE,
            (false, false, true) => subtype::MESSAGE_AS4,
            (false, true, false) => subtype::MESSAGE_LOCAL,
            (false, true, true) => subtype::MESSAGE_AS4_LOCAL,
            (true, false, false) => subtype::MESSAGE_ADDPATH,
            (true, false, true) => subtype::MESSAGE_AS4_ADDPATH,
            (true, true, false) => subtype::MESSAGE_LOCAL_ADDPATH,
            (true, true, true) => subtype::MESSAGE_AS4_LOCAL_ADDPATH,
        }
    }

    pub(super) fn put(&self, out: &mut BytesMut) -> Result<(), PutError> {
        self.session.put(self.four_octet_as, out)?;
        out.put_slice(&self.octets);
        Ok(())
    }

    /// How the message looks, as far as the record tells: its length may be that of RFC 8654.
    pub fn options(&self) -> WireOptions {
        let add_path = match self.add_path {
            true => FamilySet::all(),
            false => FamilySet::EMPTY,
        };
        WireOptions {
            four_octet_as: self.four_octet_as,
            extended_messages: true,
            internal: self.session.peer_as == self.session.local_as,
            add_path_receive: add_path,
            add_path_send: add_path,
            ipv4_next_hop_v6: true,
            ..WireOptions::default()
        }
    }

    /// Reads the message as a session would.
    ///
    /// # Errors
    /// A [`WireError`] for one that ends a session.
    pub fn decode(&self) -> Result<Decoded, WireError> {
        Message::decode(&self.octets, &self.options())
    }
}

impl StateChange {
    pub(super) fn subtype(&self) -> u16 {
        match self.four_octet_as {
            true => subtype::STATE_CHANGE_AS4,
            false => subtype::STATE_CHANGE,
        }
    }

    pub(super) fn put(&self, out: &mut BytesMut) -> Result<(), PutError> {
        self.session.put(self.four_octet_as, out)?;
        for state in [self.old, self.new] {
            out.put_u16(number(state));
        }
        Ok(())
    }
}

/// The number of a state (RFC 6396 section 4.4.1).
const fn number(state: State) -> u16 {
    match state {
        State::Idle => 1,
        State::Connect => 2,
        State::Active => 3,
        State::OpenSent => 4,
        State::OpenConfirm => 5,
        State::Established => 6,
    }
}

fn state(field: &'static str, cursor: &mut Cursor) -> Result<State, RecordError> {
    let offset = cursor.offset();
    let value = cursor.u16(field)?;
    State::ALL
        .into_iter()
        .find(|state| number(*state) == value)
        .ok_or(RecordError::State { offset, value })
}
