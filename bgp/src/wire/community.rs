//! Communities (RFC 1997): 32-bit tags on a route, written `ASN:VALUE`. Their larger kin, extended
//! and large communities, live in rooms of their own.

use std::fmt;
use std::str::FromStr;

/// In configurations and answers each kind is its text.
macro_rules! as_text {
    ($kind:ty) => {
        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

mod extended;
mod large;

pub use extended::{ExtendedCommunity, ExtendedCommunityError};
pub use large::{LargeCommunity, LargeCommunityError};

/// One community.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// The sender is about to go: use other paths (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Community = Community(0xffff_0000);
    /// Kept for long after its session was lost (RFC 9494).
    pub const LLGR_STALE: Community = Community(0xffff_0006);
    /// Not to be kept for long (RFC 9494).
    pub const NO_LLGR: Community = Community(0xffff_0007);
    /// Not beyond this AS (RFC 1997).
    pub const NO_EXPORT: Community = Community(0xffff_ff01);
    /// Not to any peer (RFC 1997).
    pub const NO_ADVERTISE: Community = Community(0xffff_ff02);
    /// Not to external peers (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Community = Community(0xffff_ff03);

    /// `asn:value`.
    pub const fn new(asn: u16, value: u16) -> Community {
        Community((asn as u32) << 16 | value as u32)
    }

    /// The upper half.
    pub const fn asn(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The lower half.
    pub const fn value(self) -> u16 {
        self.0 as u16
    }

    /// The name of a well-known community.
    const fn name(self) -> Option<&'static str> {
        match self {
            Community::NO_EXPORT => Some("no-export"),
            Community::NO_ADVERTISE => Some("no-advertise"),
            Community::NO_EXPORT_SUBCONFED => Some("no-export-subconfed"),
            _ => None,
        }
    }
}

/// `65001:100`, or the name of a well-known one.
impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}:{}", self.asn(), self.value()),
        }
    }
}

/// A text that is no community.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no community, expected ASN:VALUE with both from 0 to 65535, no-export, \
     no-advertise or no-export-subconfed"
)]
pub struct CommunityError(pub String);

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        let well_known = [
            Community::NO_EXPORT,
            Community::NO_ADVERTISE,
            Community::NO_EXPORT_SUBCONFED,
        ];
        if let Some(known) = well_known
            .into_iter()
            .find(|known| known.name() == Some(text))
        {
            return Ok(known);
        }
        text.split_once(':')
            .and_then(|(asn, value)| Some(Community::new(number(asn)?, number(value)?)))
            .ok_or_else(|| CommunityError(text.to_owned()))
    }
}

as_text!(Community);

/// A number in plain digits: the parsers of the integers take "+8" as well.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|c| c.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for (text, community) in [
            ("65001:100", Community::new(65001, 100)),
            ("0:0", Community(0)),
            ("65535:65535", Community(u32::MAX)),
            ("no-export", Community(0xffff_ff01)),
            ("no-advertise", Community(0xffff_ff02)),
            ("no-export-subconfed", Community(0xffff_ff03)),
        ] {
            assert_eq!(text.parse(), Ok(community));
            assert_eq!(community.to_string(), text);
        }
        assert_eq!("65535:65281".parse(), Ok(Community::NO_EXPORT));
        for text in [
            "",
            "1",
            "1:",
            ":1",
            "1:2:3",
            "65536:1",
            "1:65536",
            "+1:1",
            "1 :1",
            "NO-EXPORT",
        ] {
            assert_eq!(
                text.parse::<Community>(),
                Err(CommunityError(text.to_owned()))
            );
        }
    }
}
