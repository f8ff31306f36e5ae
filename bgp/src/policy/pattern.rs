//! Patterns of communities: a community as it is written, with `*` for any number.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};

use crate::wire::Community;

/// One number of a pattern; `None` is `*`.
type Part<T> = Option<T>;

/// Communities (RFC 1997) by pattern: `65001:100`, `65001:*`, `*:100`, `*`, or the name of a
/// well-known one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommunityPattern {
    asn: Part<u16>,
    value: Part<u16>,
}

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} matches no community: expected {expected}, or `*` for any")]
pub struct PatternError {
    text: String,
    expected: &'static str,
}

impl CommunityPattern {
    const EXPECTED: &'static str =
        "ASN:VALUE with numbers from 0 to 65535 or `*` in the place of either, a well-known name";

    /// Whether the pattern is about this community.
    pub fn matches(&self, community: Community) -> bool {
        is(self.asn, community.asn()) && is(self.value, community.value())
    }
}

impl From<Community> for CommunityPattern {
    fn from(community: Community) -> Self {
        CommunityPattern {
            asn: Some(community.asn()),
            value: Some(community.value()),
        }
    }
}

impl FromStr for CommunityPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if let Ok(community) = text.parse::<Community>() {
            return Ok(community.into());
        }
        let [asn, value] = parts(text).ok_or_else(|| PatternError {
            text: text.to_owned(),
            expected: Self::EXPECTED,
        })?;
        Ok(CommunityPattern { asn, value })
    }
}

impl fmt::Display for CommunityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.asn, self.value) {
            (Some(asn), Some(value)) => Community::new(asn, value).fmt(f),
            (asn, value) => write!(f, "{}:{}", Shown(asn), Shown(value)),
        }
    }
}

impl<'de> Deserialize<'de> for CommunityPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

fn is<T: PartialEq>(part: Part<T>, number: T) -> bool {
    part.is_none_or(|part| part == number)
}

struct Shown<T>(Part<T>);

impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(number) => number.fmt(f),
            None => f.write_str("*"),
        }
    }
}

/// `N` numbers or `*`, with colons between; a single `*` is all of them.
fn parts<T: FromStr, const N: usize>(text: &str) -> Option<[Part<T>; N]> {
    if text == "*" {
        return Some(std::array::from_fn(|_| None));
    }
    let part = |text: &str| match text {
        "*" => Some(None),
        // Rust's own parser takes "+8".
        _ if text.bytes().all(|c| c.is_ascii_digit()) => text.parse().ok().map(Some),
        _ => None,
    };
    let parts: Option<Vec<Part<T>>> = text.split(':').map(part).collect();
    parts?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_communities() {
        // pattern, as it is shown, what it matches, what it does not
        let rows: [(&str, &str, &[&str], &[&str]); 6] = [
            (
                "65001:100",
                "65001:100",
                &["65001:100"],
                &["65001:101", "65002:100"],
            ),
            (
                "65001:*",
                "65001:*",
                &["65001:0", "65001:65535"],
                &["65002:0"],
            ),
            ("*:100", "*:100", &["0:100", "65535:100"], &["0:101"]),
            ("*", "*:*", &["0:0", "no-export", "65001:1"], &[]),
            ("no-export", "no-export", &["65535:65281"], &["65535:65282"]),
            (
                "65535:*",
                "65535:*",
                &["no-export", "no-advertise"],
                &["0:0"],
            ),
        ];
        for (text, shown, matching, others) in rows {
            let pattern: CommunityPattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), shown);
            assert_eq!(shown.parse(), Ok(pattern));
            for community in matching {
                assert!(
                    pattern.matches(community.parse().unwrap()),
                    "{text} {community}"
                );
            }
            for community in others {
                assert!(
                    !pattern.matches(community.parse().unwrap()),
                    "{text} {community}"
                );
            }
        }
        for text in [
            "", ":", "1", "1:", "1:2:3", "65536:*", "+1:*", "**", "1:**", "export",
        ] {
            let error = text.parse::<CommunityPattern>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{text:?} matches no community")),
                "{error}"
            );
        }
    }
}
