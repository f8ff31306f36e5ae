//! Large communities (RFC 8092): three 32-bit numbers, written `ASN:VALUE:VALUE`.

use std::fmt;
use std::str::FromStr;

use super::number;

/// One large community.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// Global Administrator: the AS that defined the meaning of the rest.
    pub asn: u32,
    /// Local Data Part 1.
    pub value1: u32,
    /// Local Data Part 2.
    pub value2: u32,
}

impl LargeCommunity {
    /// `asn:value1:value2`.
    pub const fn new(asn: u32, value1: u32, value2: u32) -> LargeCommunity {
        LargeCommunity {
            asn,
            value1,
            value2,
        }
    }

    /// The 12 octets of the attribute (RFC 8092 section 3).
    pub const fn from_octets(octets: [u8; 12]) -> LargeCommunity {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = octets;
        LargeCommunity {
            asn: u32::from_be_bytes([a, b, c, d]),
            value1: u32::from_be_bytes([e, f, g, h]),
            value2: u32::from_be_bytes([i, j, k, l]),
        }
    }
}

/// `65001:1:2`.
impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.asn, self.value1, self.value2)
    }
}

/// A text that is no large community.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no large community, expected ASN:VALUE:VALUE with each from 0 to 4294967295 and \
     without leading zeros"
)]
pub struct LargeCommunityError(pub String);

impl FromStr for LargeCommunity {
    type Err = LargeCommunityError;

    fn from_str(text: &str) -> Result<Self, LargeCommunityError> {
        // RFC 8092 section 5 wants no leading zeros.
        let number = |part: &str| number(part).filter(|_| part == "0" || !part.starts_with('0'));
        let parse = || {
            let (asn, rest) = text.split_once(':')?;
            let (value1, value2) = rest.split_once(':')?;
            let [asn, value1, value2] = [number(asn)?, number(value1)?, number(value2)?];
            Some(LargeCommunity::new(asn, value1, value2))
        };
        parse().ok_or_else(|| LargeCommunityError(text.to_owned()))
    }
}

as_text!(LargeCommunity);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for (text, community) in [
            ("65001:1:2", LargeCommunity::new(65001, 1, 2)),
            ("0:0:0", LargeCommunity::new(0, 0, 0)),
            (
                "4294967295:4294967295:4294967295",
                LargeCommunity::new(u32::MAX, u32::MAX, u32::MAX),
            ),
        ] {
            assert_eq!(text.parse(), Ok(community));
            assert_eq!(community.to_string(), text);
        }
        for text in [
            "",
            "1:2",
            "1:2:3:4",
            "1:2:",
            ":1:2",
            "01:2:3",
            "+1:2:3",
            "1:2:4294967296",
            "1: 2:3",
        ] {
            assert_eq!(
                text.parse::<LargeCommunity>(),
                Err(LargeCommunityError(text.to_owned()))
            );
        }
    }
}
