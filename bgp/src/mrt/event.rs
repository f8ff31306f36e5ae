//! What a watched core reports, as BGP4MP records.

use super::{Body, Record, Session, SessionMessage, StateChange, Timestamp};
use crate::tap::{Ends, Tap};
use crate::wire::message::kind;

/// The record of something that happened, if it is one that is kept: a message, or a change of
/// state.
pub(crate) fn record(tap: &Tap, time: Timestamp) -> Option<Record> {
    let body = match tap {
        Tap::State { ends, old, new } => Body::StateChange(StateChange {
            session: session(ends),
            four_octet_as: true,
            old: *old,
            new: *new,
        }),
        Tap::Received {
            ends,
            options,
            octets,
            ..
        } => {
            // Only an UPDATE has AS numbers whose width was negotiated, and path identifiers.
            let update = octets.get(18) == Some(&kind::UPDATE);
            Body::Message(SessionMessage {
                session: session(ends),
                four_octet_as: !update || options.four_octet_as,
                sent: false,
                add_path: update && !options.add_path_receive.is_empty(),
                octets: octets.clone(),
            })
        }
        Tap::Up(_) | Tap::Down { .. } | Tap::Accepted { .. } => return None,
    };
    Some(Record { time, body })
}

fn session(ends: &Ends) -> Session {
    Session {
        peer_as: ends.peer_as,
        local_as: ends.local_as,
        interface: 0,
        peer: ends.peer,
        local: ends.local,
    }
}
