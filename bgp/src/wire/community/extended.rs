//! Extended communities (RFC 4360): 8 octets of type and value, the common ones with names.
//!
//! Route targets and route origins have a text of their own, in each of their three forms; every
//! other community is written as its octets.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::number;

/// One extended community, as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub [u8; 8]);

/// High octets of the type (RFC 4360 section 3, RFC 5668).
const TWO_OCTET_AS: u8 = 0x00;
const IPV4_ADDRESS: u8 = 0x01;
const FOUR_OCTET_AS: u8 = 0x02;
/// Bit of the type: not beyond the AS (RFC 4360 section 2).
const NON_TRANSITIVE: u8 = 0x40;

/// Low octets of the type that have a name: route target, route origin (RFC 4360 sections 4, 5).
const NAMED: [(u8, &str); 2] = [(0x02, "rt"), (0x03, "ro")];

impl ExtendedCommunity {
    /// Whether it is passed on to other ASes.
    pub const fn is_transitive(self) -> bool {
        self.0[0] & NON_TRANSITIVE == 0
    }
}

/// `rt:65001:100`, `rt:192.0.2.1:100`, `ro:4200000000:100`; with an `L` where a number that would
/// fit two octets stands in four (`rt:65001L:100`); anything else as `0x` and 16 hex digits.
impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [form, kind, a, b, c, d, e, g] = self.0;
        let name = NAMED.iter().find(|(octet, _)| *octet == kind);
        match (form, name) {
            (TWO_OCTET_AS, Some((_, name))) => {
                let asn = u16::from_be_bytes([a, b]);
                write!(f, "{name}:{asn}:{}", u32::from_be_bytes([c, d, e, g]))
            }
            (IPV4_ADDRESS, Some((_, name))) => {
                let address = Ipv4Addr::new(a, b, c, d);
                write!(f, "{name}:{address}:{}", u16::from_be_bytes([e, g]))
            }
            (FOUR_OCTET_AS, Some((_, name))) => {
                let asn = u32::from_be_bytes([a, b, c, d]);
                let long = if asn <= u32::from(u16::MAX) { "L" } else { "" };
                write!(f, "{name}:{asn}{long}:{}", u16::from_be_bytes([e, g]))
            }
            _ => write!(f, "{:#018x}", u64::from_be_bytes(self.0)),
        }
    }
}

/// A text that is no extended community.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no extended community, expected rt:ASN:VALUE, rt:ADDRESS:VALUE (or ro:...), or 0x \
     and 16 hex digits; VALUE is at most 4294967295 beside an AS number up to 65535, else 65535"
)]
pub struct ExtendedCommunityError(pub String);

impl FromStr for ExtendedCommunity {
    type Err = ExtendedCommunityError;

    fn from_str(text: &str) -> Result<Self, ExtendedCommunityError> {
        generic(text)
            .or_else(|| named(text))
            .map(ExtendedCommunity)
            .ok_or_else(|| ExtendedCommunityError(text.to_owned()))
    }
}

fn generic(text: &str) -> Option<[u8; 8]> {
    let digits = text.strip_prefix("0x")?;
    let plain = digits.len() == 16 && digits.bytes().all(|c| c.is_ascii_hexdigit());
    let value = plain.then(|| u64::from_str_radix(digits, 16).ok());
    Some(value.flatten()?.to_be_bytes())
}

fn named(text: &str) -> Option<[u8; 8]> {
    let (name, rest) = text.split_once(':')?;
    let (kind, _) = *NAMED.iter().find(|(_, known)| *known == name)?;
    let (administrator, value) = rest.split_once(':')?;
    let long = |form: u8, administrator: [u8; 4]| {
        let [a, b, c, d] = administrator;
        let [e, f] = number::<u16>(value)?.to_be_bytes();
        Some([form, kind, a, b, c, d, e, f])
    };
    if let Ok(address) = administrator.parse::<Ipv4Addr>() {
        return long(IPV4_ADDRESS, address.octets());
    }
    if let Some(asn) = administrator.strip_suffix('L') {
        return long(FOUR_OCTET_AS, number::<u32>(asn)?.to_be_bytes());
    }
    let asn = number::<u32>(administrator)?;
    match u16::try_from(asn) {
        Ok(asn) => {
            let [a, b] = asn.to_be_bytes();
            let [c, d, e, f] = number::<u32>(value)?.to_be_bytes();
            Some([TWO_OCTET_AS, kind, a, b, c, d, e, f])
        }
        Err(_) => long(FOUR_OCTET_AS, asn.to_be_bytes()),
    }
}

as_text!(ExtendedCommunity);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_and_octets() {
        for (text, octets) in [
            ("rt:65001:100", [0, 2, 0xfd, 0xe9, 0, 0, 0, 100]),
            (
                "ro:0:4294967295",
                [0, 3, 0, 0, u8::MAX, u8::MAX, u8::MAX, u8::MAX],
            ),
            ("rt:192.0.2.1:100", [1, 2, 192, 0, 2, 1, 0, 100]),
            (
                "rt:4200000000:65535",
                [2, 2, 0xfa, 0x56, 0xea, 0x00, 0xff, 0xff],
            ),
            ("ro:65001L:7", [2, 3, 0, 0, 0xfd, 0xe9, 0, 7]),
            // Non-transitive, and a type without a name.
            ("0x4002fde900000064", [0x40, 2, 0xfd, 0xe9, 0, 0, 0, 100]),
            ("0x030c000000000008", [3, 12, 0, 0, 0, 0, 0, 8]),
        ] {
            assert_eq!(text.parse(), Ok(ExtendedCommunity(octets)));
            assert_eq!(ExtendedCommunity(octets).to_string(), text);
        }
        for text in [
            "",
            "rt",
            "rt:1",
            "rt:1:",
            "rt:1:2:3",
            "xx:1:2",
            "rt:+1:2",
            "rt:70000:65536",
            "rt:4294967296:1",
            "rt:10.0.0.1:65536",
            "rt:1:4294967296",
            "0x1",
            "0x+00000000000000",
            "0x00000000000000000",
        ] {
            assert_eq!(
                text.parse::<ExtendedCommunity>(),
                Err(ExtendedCommunityError(text.to_owned()))
            );
        }
    }

    proptest! {
        #[test]
        fn every_community_has_one_text(form in 0..4_u8, kind in 0..5_u8, rest in any::<[u8; 6]>()) {
            let [a, b, c, d, e, f] = rest;
            for octets in [[form, kind, a, b, c, d, e, f], [form, kind, 0, 0, a, b, c, d]] {
                let community = ExtendedCommunity(octets);
                prop_assert_eq!(community.to_string().parse(), Ok(community));
            }
        }
    }
}
