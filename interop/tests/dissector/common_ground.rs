//! Our messages without what Wireshark's dissector does not know or reads otherwise. Seen of 4.0.17,
//! Debian bookworm's; in each point it is the dissector that falls short of the RFC, or guesses:
//!
//! - It is not told whether routes have path identifiers (RFC 7911), and takes a field for one with
//!   them when it can be read so and a prefix of length 0 is in it. So default routes are alone in
//!   their field, and identifiers begin with an octet of 0.
//! - It takes nothing longer than 4,096 octets for a message (RFC 8654 allows more), and knows no
//!   extended parameters of an OPEN (RFC 9072).
//! - The capabilities Role (RFC 9234) and long-lived graceful restart (RFC 9494) and the attribute
//!   ONLY_TO_CUSTOMER are but octets to it. The octets are compared.
//! - Capabilities, attributes and families that we do not know, and it does, it dissects, and has
//!   much to say of random octets in them. They are left out; unknown to both, they are compared.
//! - The data of two NOTIFICATIONs about an OPEN it takes for an AS number and for capabilities without
//!   a look at their length. They are that, or left out.

use bgp::wire::{
    AfiSafi, Capability, LongLivedFamily, Message, MpReach, MpUnreach, Nlri, Open, WireOptions,
};

/// Capabilities that we do not know and it does: the reserved one, ORF, BGPsec, multisession, FQDN,
/// and before there was a standard for it, ORF.
const CAPABILITIES: [u8; 7] = [0, 3, 7, 68, 72, 73, 128];
/// Attributes likewise: Cisco's of one SAFI, AIGP, BGPsec, D-PATH, BGP-LS before it had a code, ATTR_SET.
const ATTRIBUTES: [u8; 6] = [19, 26, 33, 36, 99, 128];
/// The longest OPEN without extended parameters: header, fields, parameters of 255 octets.
const LONGEST_OPEN: usize = 19 + 10 + 255;

/// A message that both can read.
pub(crate) fn common_ground(message: Message, options: &WireOptions) -> Message {
    match message {
        Message::Open(mut open) => {
            open.capabilities.retain(|capability| {
                !matches!(capability, Capability::Unknown { code, .. } if CAPABILITIES.contains(code))
            });
            let length = |open: &Open| {
                Message::Open(open.clone())
                    .to_bytes(options)
                    .map(|it| it.len())
            };
            while length(&open).is_ok_and(|length| length > LONGEST_OPEN) {
                open.capabilities.pop();
            }
            Message::Open(open)
        }
        Message::Update(mut update) => {
            let unknown = &mut update.attributes.unknown;
            unknown.retain(|attribute| !ATTRIBUTES.contains(&attribute.code.0));
            update.mp_reach.take_if(
                |reach| matches!(reach, MpReach::Other { family, .. } if is_known_to_it(*family)),
            );
            update.mp_unreach.take_if(
                |reach| matches!(reach, MpUnreach::Other { family, .. } if is_known_to_it(*family)),
            );
            plain(&mut update.withdrawn);
            plain(&mut update.nlri);
            if let Some(MpReach::Unicast { nlri, .. }) = &mut update.mp_reach {
                plain(nlri);
            }
            if let Some(MpUnreach::Unicast { nlri, .. }) = &mut update.mp_unreach {
                plain(nlri);
            }
            Message::Update(update)
        }
        Message::Notification(mut notification) => {
            let data = &mut notification.data;
            let fits = match (notification.code, notification.subcode) {
                // Bad Peer AS.
                (2, 2) => data.len() <= 4,
                // Unsupported Capability: route refresh, which has no value.
                (2, 7) => **data == [2, 0],
                _ => true,
            };
            if !fits {
                data.clear();
            }
            Message::Notification(notification)
        }
        other => other,
    }
}

/// Whether it says with this remark only that it does not know a family of the message; it goes on
/// behind its octets.
pub(crate) fn is_of_a_family(remark: &str, message: &Message) -> bool {
    let Message::Update(update) = message else {
        return false;
    };
    let reach = matches!(update.mp_reach, Some(MpReach::Other { .. }));
    let unreach = matches!(update.mp_unreach, Some(MpUnreach::Other { .. }));
    let next_hop = remark.starts_with("Unknown Next Hop length");
    let family = ["Unknown Address Family", "Unknown AFI", "Unknown SAFI"];
    let family = family.iter().any(|start| remark.starts_with(start));
    (family && (reach || unreach)) || (next_hop && reach)
}

/// Of the families that we do not know, those of these AFIs.
fn is_known_to_it(family: AfiSafi) -> bool {
    matches!(family.afi, 1 | 2 | 25 | 196 | 16388..=16398)
}

/// Routes without what would make it guess wrong.
fn plain(nlri: &mut Vec<Nlri>) {
    if nlri.len() > 1 {
        nlri.retain(|nlri| nlri.prefix.len() > 0);
    }
    for nlri in nlri {
        nlri.path_id &= 0x00ff_ffff;
    }
}

/// The message with what is but octets to it as octets.
pub(crate) fn untyped(message: Message) -> Message {
    let Message::Open(mut open) = message else {
        return message;
    };
    for capability in &mut open.capabilities {
        let value = match capability {
            Capability::Role(role) => vec![*role],
            Capability::LongLivedGracefulRestart(families) => {
                families.iter().flat_map(long_lived).collect()
            }
            _ => continue,
        };
        *capability = Capability::Unknown {
            code: capability.code(),
            value: value.into(),
        };
    }
    Message::Open(open)
}

/// RFC 9494 section 3.1: AFI, SAFI, flags, 24 bits of stale time.
fn long_lived(entry: &LongLivedFamily) -> [u8; 7] {
    let [afi_high, afi_low] = entry.family.afi.to_be_bytes();
    let [_, high, middle, low] = entry.stale_time.to_be_bytes();
    let flags = if entry.forwarding_preserved { 0x80 } else { 0 };
    [
        afi_high,
        afi_low,
        entry.family.safi,
        flags,
        high,
        middle,
        low,
    ]
}
