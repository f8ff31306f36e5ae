//! What went wrong with a session, in words that say what to do about it.
//!
//! The reader is an operator at night who has not read RFC 4271.

use crate::config::PeerConfig;
use crate::fsm::{Cause, State};
use crate::wire::notification::{code, open_subcode};
use crate::wire::{Cease, Notification, OpenError};

/// Longest shutdown text (RFC 9003 section 2), in octets of UTF-8.
const MAX_SHUTDOWN_TEXT: usize = 255;

/// Cease, Administrative Shutdown, with a text for the peer's operator (RFC 9003).
pub(super) fn shutdown(text: Option<&str>) -> Notification {
    let text = text.unwrap_or_default();
    let fits = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=text.len().min(MAX_SHUTDOWN_TEXT))
        .rev()
        .find(fits)
        .unwrap_or(0);
    let text = &text[..end];
    let mut notification = Notification::cease(Cease::AdministrativeShutdown);
    if !text.is_empty() {
        // At most 255: checked above.
        let mut data = vec![text.len() as u8];
        data.extend_from_slice(text.as_bytes());
        notification.data = data.into();
    }
    notification
}

/// Why a session or an attempt is over.
pub(super) fn explain(cause: &Cause, peer: &PeerConfig, local_asn: u32) -> String {
    let PeerConfig {
        name,
        address,
        port,
        asn,
        ..
    } = peer;
    match cause {
        Cause::ManualStop => "stopped by the operator".to_owned(),
        Cause::AutomaticStop(notification) => format!("stopped by us: {notification}"),
        Cause::Collision => "another connection with the peer was kept".to_owned(),
        Cause::ConnectFailed(why) => format!(
            "cannot connect to {address} port {port}: {why}; check that BGP runs there and that \
             routes and firewalls let us through"
        ),
        Cause::ConnectTimeout(time) => format!(
            "no answer from {address} port {port} within {time:?}; check the address of peer \
             {name}, routes and firewalls{}",
            security(peer, local_asn)
        ),
        Cause::ConnectionLost(State::Established, why) => {
            format!("the connection was lost: {why}")
        }
        Cause::ConnectionLost(State::OpenSent | State::OpenConfirm, _) => format!(
            "the peer closed the connection before the session was up: it does not have our \
             address as a neighbor with AS {local_asn}, or it pauses after an earlier failure"
        ),
        Cause::ConnectionLost(_, why) => format!("the connection was lost: {why}"),
        Cause::HoldTimerExpired(State::Established, time) => format!(
            "nothing was heard from the peer for {} s (hold timer expired); check the link and \
             whether its BGP daemon is alive",
            time.as_secs()
        ),
        // Both sides are connected, and one does not get what the other says.
        Cause::HoldTimerExpired(State::OpenConfirm, time) => format!(
            "the peer sent its OPEN and then nothing for {} s: what we send does not reach it{}",
            time.as_secs(),
            one_sided(peer)
        ),
        Cause::HoldTimerExpired(_, time) => format!(
            "the peer accepted the connection and said nothing for {} s; check its BGP daemon{}",
            time.as_secs(),
            one_sided(peer)
        ),
        Cause::SendHoldTimerExpired(time) => format!(
            "the peer has read nothing of what we sent for {} s (send hold timer expired); its BGP \
             daemon hangs or is overloaded",
            time.as_secs()
        ),
        Cause::PathNotUp(time) => format!(
            "BFD did not come up within {} s, and bfd.strict has the session wait for it; enable BFD \
             for us on the peer, or take bfd.strict out",
            time.as_secs()
        ),
        Cause::HeaderError(error) => {
            format!("the peer sent what is no BGP message: {error}; is it a BGP speaker?")
        }
        Cause::OpenError(error) => open_error(error, peer),
        Cause::UpdateError(error) => {
            format!("the peer sent an UPDATE that cannot be understood: {error}")
        }
        Cause::Unexpected(state, what) => {
            format!("unexpected in state {state}: {what}")
        }
        // A hard reset carries what is meant (RFC 8538 section 3.1).
        Cause::Notified(state, notification) => {
            notified(*state, &notification.reason(), asn, local_asn, peer)
        }
    }
}

/// What else keeps the kernels of both sides from hearing each other.
fn security(peer: &PeerConfig, local_asn: u32) -> String {
    let mut text = String::new();
    if peer.password_file.is_some() || peer.tcp_ao.is_some() {
        text.push_str(", and that the peer has the same key for our address");
    }
    if peer.ttl_security.is_some() {
        text.push_str(", and that the peer has GTSM (ttl security) for our address as well");
    } else if peer.multihop.is_none() && peer.asn != local_asn {
        text.push_str("; set multihop if it is not on the link");
    }
    text
}

/// GTSM on one side only lets the connection come up and no session.
pub(super) fn one_sided(peer: &PeerConfig) -> &'static str {
    match peer.ttl_security {
        Some(_) => "; we have ttl_security: the peer needs GTSM for our address as well",
        None => "; if the peer has GTSM (ttl security) for our address, set ttl_security here",
    }
}

fn open_error(error: &OpenError, peer: &PeerConfig) -> String {
    let name = &peer.name;
    match error {
        OpenError::PeerAs {
            expected: 0,
            received,
        } => format!(
            "peer says AS {received}, which asn of its group of dynamic peers does not permit"
        ),
        OpenError::PeerAs { expected, received } => format!(
            "peer says AS {received}, configured {expected}: fix asn of peer {name} or the router"
        ),
        OpenError::AsZero => "peer says AS 0: fix the router".to_owned(),
        OpenError::Identifier(id) if id.is_unspecified() => {
            "peer has the BGP identifier 0.0.0.0: set a router id there".to_owned()
        }
        OpenError::Identifier(id) => {
            format!("peer has our own BGP identifier {id}: give one of the two another router id")
        }
        OpenError::HoldTime(time) => {
            format!("peer proposes a hold time of {time} s: it must be 0 or at least 3")
        }
        OpenError::MissingCapabilities(_) => {
            let ours: Vec<_> = peer.families.iter().map(|family| family.as_str()).collect();
            format!(
                "peer offers none of the families {}: fix families of peer {name} or the router",
                ours.join(", ")
            )
        }
        other => format!("peer sent a wrong OPEN: {other}"),
    }
}

fn notified(
    state: State,
    notification: &Notification,
    asn: &u32,
    local_asn: u32,
    peer: &PeerConfig,
) -> String {
    let cease = |kind: Cease| (code::CEASE, kind as u8);
    let kind = (notification.code, notification.subcode);
    let said = match notification.shutdown_text() {
        Some(text) => format!("peer says: {notification} {text:?}"),
        None => format!("peer says: {notification}"),
    };
    let advice = match kind {
        (code::OPEN, open_subcode::BAD_PEER_AS) => format!(
            "it does not expect AS {local_asn} from us: fix asn here or the neighbor's AS there"
        ),
        (code::OPEN, open_subcode::BAD_BGP_IDENTIFIER) => {
            "it does not accept our router_id: is it the same as the peer's?".to_owned()
        }
        (code::OPEN, open_subcode::UNACCEPTABLE_HOLD_TIME) => {
            format!("it does not accept our hold time of {} s", peer.hold_time)
        }
        (code::OPEN, open_subcode::UNSUPPORTED_CAPABILITY) => {
            let ours: Vec<_> = peer.families.iter().map(|family| family.as_str()).collect();
            format!("we offer {}: enable one of them there", ours.join(", "))
        }
        (code::SEND_HOLD_TIMER_EXPIRED, _) => {
            "we read nothing of what it sent: is this machine overloaded?".to_owned()
        }
        (code::HOLD_TIMER_EXPIRED, _) => {
            "it heard nothing from us for the hold time: check the link".to_owned()
        }
        kind if kind == cease(Cease::MaximumPrefixes) => {
            "we announce more routes than it allows: raise its limit".to_owned()
        }
        kind if kind == cease(Cease::AdministrativeShutdown) => {
            "its operator took the session down".to_owned()
        }
        kind if kind == cease(Cease::PeerDeconfigured) => {
            "it no longer has us as a neighbor".to_owned()
        }
        kind if kind == cease(Cease::ConnectionRejected) => {
            format!("it does not want us: check that it has our address and AS {local_asn}")
        }
        _ if state < State::Established => format!("check what it expects of AS {asn}'s neighbor"),
        _ => return said,
    };
    format!("{said}; {advice}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::PeerName;

    #[test]
    fn failures_say_what_to_do() {
        let name = PeerName::try_from("idc1").unwrap();
        let peer = PeerConfig::new(name, "10.99.0.2".parse().unwrap(), 65002);
        let with_text = |text: &str| shutdown(Some(text));
        let notified =
            |code, subcode| Cause::Notified(State::OpenSent, Notification::new(code, subcode));
        let rows = [
            (
                Cause::OpenError(OpenError::PeerAs {
                    expected: 65002,
                    received: 65003,
                }),
                "peer says AS 65003, configured 65002: fix asn of peer idc1 or the router",
            ),
            (
                Cause::OpenError(OpenError::MissingCapabilities(Vec::new())),
                "families ipv4, ipv6: fix families of peer idc1",
            ),
            (
                Cause::ConnectFailed("refused".into()),
                "10.99.0.2 port 179: refused; check",
            ),
            (
                Cause::ConnectTimeout(Duration::from_secs(5)),
                "within 5s; check the address",
            ),
            (
                Cause::ConnectionLost(State::OpenSent, "reset".into()),
                "our address as a neighbor with AS 65001",
            ),
            (
                Cause::HoldTimerExpired(State::Established, Duration::from_secs(9)),
                "for 9 s (hold timer expired)",
            ),
            (
                notified(2, 2),
                "bad peer AS (2/2); it does not expect AS 65001 from us",
            ),
            (notified(6, 1), "raise its limit"),
            (
                Cause::Notified(State::Established, with_text("disk\nswap")),
                "administrative shutdown (6/2) \"disk swap\"; its operator took",
            ),
            (
                Cause::Unexpected(State::OpenConfirm, "UPDATE"),
                "in state open-confirm: UPDATE",
            ),
        ];
        for (cause, expected) in rows {
            let text = explain(&cause, &peer, 65001);
            assert!(text.contains(expected), "{cause:?}: {text}");
        }
    }

    #[test]
    fn protection_on_one_side_only_is_named() {
        let name = PeerName::try_from("idc1").unwrap();
        let plain = PeerConfig::new(name, "10.99.0.2".parse().unwrap(), 65002);
        let with_password = PeerConfig {
            password_file: Some("/etc/key".into()),
            multihop: Some(2),
            ..plain.clone()
        };
        let secured = PeerConfig {
            ttl_security: Some(1),
            ..plain.clone()
        };
        let timeout = || Cause::ConnectTimeout(Duration::from_secs(5));
        let silent = |state| Cause::HoldTimerExpired(state, Duration::from_secs(9));
        for (peer, cause, expected) in [
            (&plain, timeout(), "firewalls; set multihop if"),
            (
                &with_password,
                timeout(),
                "firewalls, and that the peer has the same key",
            ),
            (&secured, timeout(), "firewalls, and that the peer has GTSM"),
            (&secured, silent(State::OpenSent), "the peer needs GTSM"),
            (
                &plain,
                silent(State::OpenConfirm),
                "does not reach it; if the peer has GTSM",
            ),
            (&plain, silent(State::OpenSent), "set ttl_security here"),
        ] {
            let text = explain(&cause, peer, 65001);
            assert!(text.contains(expected), "{cause:?}: {text}");
        }
    }

    #[test]
    fn shutdown_texts_are_cut_at_a_character() {
        assert!(shutdown(None).data.is_empty());
        let long = shutdown(Some(&"ä".repeat(200)));
        assert_eq!((long.data.len(), long.data[0]), (255, 254));
        assert_eq!(long.shutdown_text(), Some("ä".repeat(127)));
        // Length beyond the data, no UTF-8, another subcode.
        for (subcode, data) in [
            (2, &b"\x09abc"[..]),
            (2, b"\x02\xff\xfe"),
            (5, b"\x01a"),
            (2, b""),
        ] {
            let notification = Notification::with_data(6, subcode, data);
            assert_eq!(notification.shutdown_text(), None, "{data:?}");
        }
    }
}
