//! Patterns of communities: a community as it is written, with `*` for any number.

use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};

use crate::wire::{Community, ExtendedCommunity, LargeCommunity};

/// One number of a pattern; `None` is `*`.
type Part<T> = Option<T>;

/// Communities (RFC 1997) by pattern: `65001:100`, `65001:*`, `*:100`, `*`, or the name of a
/// well-known one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommunityPattern {
    asn: Part<u16>,
    value: Part<u16>,
}

/// Large communities (RFC 8092) by pattern: `65001:1:2`, `65001:*:*`, `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LargePattern {
    asn: Part<u32>,
    values: [Part<u32>; 2],
}

/// Extended communities (RFC 4360) by pattern: `rt:65001:100`, `rt:65001:*`, `rt:*:100`, `rt:*`,
/// `0x...` or `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExtendedPattern(Extended);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Extended {
    /// Those with these bits.
    Masked { bits: u64, mask: u64 },
    /// Those of a low type octet, in each form that has a text, with this value.
    Kind { kind: u8, value: Part<u32> },
}

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} matches no {what}: expected {expected}, or `*` for any")]
pub struct PatternError {
    text: String,
    what: &'static str,
    expected: &'static str,
}

impl CommunityPattern {
    /// Whether the pattern is about this community.
    pub fn matches(&self, community: Community) -> bool {
        is(self.asn, community.asn()) && is(self.value, community.value())
    }
}

impl LargePattern {
    /// Whether the pattern is about this community.
    pub fn matches(&self, community: LargeCommunity) -> bool {
        is(self.asn, community.asn)
            && is(self.values[0], community.value1)
            && is(self.values[1], community.value2)
    }
}

impl ExtendedPattern {
    /// Whether the pattern is about this community.
    pub fn matches(&self, community: ExtendedCommunity) -> bool {
        match self.0 {
            Extended::Masked { bits, mask } => u64::from_be_bytes(community.0) & mask == bits,
            Extended::Kind { kind, value } => {
                let [form, low, _, _, a, b, c, d] = community.0;
                // The value has 4 octets behind a 2-octet AS number, else 2 (RFC 5668).
                let found = match form {
                    0 => u32::from_be_bytes([a, b, c, d]),
                    1 | 2 => u32::from(u16::from_be_bytes([c, d])),
                    _ => return false,
                };
                low == kind && is(value, found)
            }
        }
    }
}

impl FromStr for CommunityPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if let Ok(community) = text.parse::<Community>() {
            return Ok(CommunityPattern {
                asn: Some(community.asn()),
                value: Some(community.value()),
            });
        }
        let [asn, value] = parts(text).ok_or_else(|| PatternError {
            text: text.to_owned(),
            what: "community",
            expected: "ASN:VALUE with numbers from 0 to 65535 or `*` in the place of either, a \
                       well-known name",
        })?;
        Ok(CommunityPattern { asn, value })
    }
}

impl FromStr for LargePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let [asn, first, second] = parts(text).ok_or_else(|| PatternError {
            text: text.to_owned(),
            what: "large community",
            expected: "ASN:VALUE:VALUE with numbers from 0 to 4294967295 or `*` in the place of \
                       each",
        })?;
        Ok(LargePattern {
            asn,
            values: [first, second],
        })
    }
}

impl FromStr for ExtendedPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        extended(text)
            .map(ExtendedPattern)
            .ok_or_else(|| PatternError {
                text: text.to_owned(),
                what: "extended community",
                expected: "rt:ASN:VALUE, rt:ADDRESS:VALUE (or ro:...) with `*` in the place of \
                           either, or 0x and 16 hex digits",
            })
    }
}

fn extended(text: &str) -> Option<Extended> {
    let octets = |text: &str| text.parse().ok().map(|ExtendedCommunity(octets)| octets);
    let masked = |octets, mask| Extended::Masked {
        bits: u64::from_be_bytes(octets) & mask,
        mask,
    };
    if text == "*" {
        return Some(masked([0; 8], 0));
    }
    let Some((name, rest)) = text.split_once(':') else {
        return Some(masked(octets(text)?, u64::MAX));
    };
    // What stands for `*` is any number that fits; the parser knows the names.
    match rest.split_once(':').unwrap_or((rest, "*")) {
        ("*", "*") => {
            let [_, kind, ..] = octets(&format!("{name}:0:0"))?;
            Some(Extended::Kind { kind, value: None })
        }
        ("*", value) => {
            let [_, kind, _, _, value @ ..] = octets(&format!("{name}:0:{value}"))?;
            let value = Some(u32::from_be_bytes(value));
            Some(Extended::Kind { kind, value })
        }
        (administrator, "*") if rest.contains(':') => {
            let octets = octets(&format!("{name}:{administrator}:0"))?;
            let value_bits = if octets[0] == 0 { 32 } else { 16 };
            Some(masked(octets, u64::MAX << value_bits))
        }
        _ => Some(masked(octets(text)?, u64::MAX)),
    }
}

fn is<T: PartialEq>(part: Part<T>, number: T) -> bool {
    part.is_none_or(|part| part == number)
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

fn read<'de, P, D>(deserializer: D) -> Result<P, D::Error>
where
    P: FromStr<Err = PatternError>,
    D: Deserializer<'de>,
{
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    text.parse().map_err(de::Error::custom)
}

impl<'de> Deserialize<'de> for CommunityPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

impl<'de> Deserialize<'de> for LargePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

impl<'de> Deserialize<'de> for ExtendedPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pattern, communities that it matches, and others.
    type Row = (
        &'static str,
        &'static [&'static str],
        &'static [&'static str],
    );

    fn check<P, C>(rows: &[Row], wrong: &[&str], matches: impl Fn(&P, C) -> bool)
    where
        P: FromStr<Err = PatternError>,
        C: FromStr<Err: std::fmt::Debug>,
    {
        for (text, matching, others) in rows {
            let pattern: P = text.parse().unwrap();
            for community in *matching {
                assert!(
                    matches(&pattern, community.parse().unwrap()),
                    "{text} {community}"
                );
            }
            for community in *others {
                assert!(
                    !matches(&pattern, community.parse().unwrap()),
                    "{text} {community}"
                );
            }
        }
        for text in wrong {
            let Err(error) = text.parse::<P>() else {
                panic!("{text} is a pattern");
            };
            let error = error.to_string();
            assert!(
                error.starts_with(&format!("{text:?} matches no ")),
                "{error}"
            );
        }
    }

    #[test]
    fn patterns_of_communities() {
        check(
            &[
                ("65001:100", &["65001:100"], &["65001:101", "65002:100"]),
                ("65001:*", &["65001:0", "65001:65535"], &["65002:0"]),
                ("*:100", &["0:100", "65535:100"], &["0:101"]),
                ("*", &["0:0", "no-export", "65001:1"], &[]),
                ("no-export", &["65535:65281"], &["65535:65282"]),
                ("65535:*", &["no-export", "no-advertise"], &["0:0"]),
            ],
            &[
                "", ":", "1", "1:", "1:2:3", "65536:*", "+1:*", "**", "1:**", "export",
            ],
            CommunityPattern::matches,
        );
    }

    #[test]
    fn patterns_of_large_communities() {
        check(
            &[
                (
                    "65001:1:2",
                    &["65001:1:2"],
                    &["65001:1:3", "65001:2:2", "1:1:2"],
                ),
                ("65001:*:2", &["65001:9:2"], &["65001:9:3"]),
                ("*:*:4294967295", &["1:2:4294967295"], &["1:2:3"]),
                ("*", &["0:0:0"], &[]),
            ],
            &[
                "",
                "1:2",
                "1:2:3:4",
                "1:2:4294967296",
                "1:2:",
                "-1:*:*",
                "no-export",
            ],
            LargePattern::matches,
        );
    }

    #[test]
    fn patterns_of_extended_communities() {
        check(
            &[
                (
                    "rt:65001:100",
                    &["rt:65001:100"],
                    &["ro:65001:100", "rt:65001:101", "rt:65001L:100"],
                ),
                (
                    "rt:65001:*",
                    &["rt:65001:0", "rt:65001:4294967295"],
                    &["rt:65002:0", "ro:65001:0", "rt:65001L:0"],
                ),
                ("rt:192.0.2.1:*", &["rt:192.0.2.1:7"], &["rt:192.0.2.2:7"]),
                (
                    "ro:4200000000:*",
                    &["ro:4200000000:7"],
                    &["ro:4200000001:7", "rt:4200000000:7"],
                ),
                (
                    "rt:*:100",
                    &["rt:1:100", "rt:192.0.2.1:100", "rt:4200000000:100"],
                    &["rt:1:65636", "ro:1:100", "0x0302000000000064"],
                ),
                ("rt:*:70000", &["rt:1:70000"], &["rt:4200000000:4464"]),
                (
                    "rt:*",
                    &["rt:1:1", "rt:192.0.2.1:1"],
                    &["ro:1:1", "0x4302000000000001"],
                ),
                ("rt:*:*", &["rt:1:1"], &["ro:1:1"]),
                (
                    "0x0302000000000064",
                    &["0x0302000000000064"],
                    &["0x0302000000000065"],
                ),
                ("*", &["rt:1:1", "0x0302000000000064"], &[]),
            ],
            &[
                "",
                "rt",
                "rt:",
                "rt:1",
                "rt:*:*:*",
                "xx:*",
                "rt:1:2:*",
                "rt:+1:*",
                "0x03*",
                "rt:65536:70000",
            ],
            ExtendedPattern::matches,
        );
    }
}
