//! A network and the lengths of the prefixes in it that are meant.

use crate::wire::prefix::{Family, Prefix};

/// A network and the prefix lengths inside it that match.
///
/// Without `ge` and `le` exactly the network matches; `ge` alone means "this long or longer".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PrefixRange {
    network: Prefix,
    shortest: u8,
    longest: u8,
}

/// Why a range makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// `ge` is shorter than the network itself.
    #[error("ge {ge} of {network} is shorter than the network: expected {len}..={max}", len = network.len(), max = network.family().max_len())]
    GeTooShort {
        /// The network of the range.
        network: Prefix,
        /// The length at fault.
        ge: u8,
    },
    /// `le` is shorter than the network, or than `ge`.
    #[error("le {le} of {network} is shorter than {least}")]
    LeTooShort {
        /// The network of the range.
        network: Prefix,
        /// The length at fault.
        le: u8,
        /// The network's length, or `ge`.
        least: u8,
    },
    /// `ge` or `le` exceeds what the family has.
    #[error("length {length} of {network} exceeds {max}", max = network.family().max_len())]
    TooLong {
        /// The network of the range.
        network: Prefix,
        /// The length at fault.
        length: u8,
    },
}

impl PrefixRange {
    /// The prefixes inside `network` that are `ge` to `le` bits long.
    ///
    /// # Errors
    /// When the lengths are not `network <= ge <= le <= 32` (or 128).
    pub fn new(network: Prefix, ge: Option<u8>, le: Option<u8>) -> Result<PrefixRange, RangeError> {
        let max = network.family().max_len();
        if let Some(length) = [ge, le].into_iter().flatten().find(|length| *length > max) {
            return Err(RangeError::TooLong { network, length });
        }
        let shortest = ge.unwrap_or(network.len());
        if shortest < network.len() {
            return Err(RangeError::GeTooShort {
                network,
                ge: shortest,
            });
        }
        let longest = le.unwrap_or(if ge.is_some() { max } else { network.len() });
        if longest < shortest {
            return Err(RangeError::LeTooShort {
                network,
                le: longest,
                least: shortest,
            });
        }
        Ok(PrefixRange {
            network,
            shortest,
            longest,
        })
    }

    /// The network and everything in it.
    pub fn within(network: Prefix) -> PrefixRange {
        PrefixRange {
            network,
            shortest: network.len(),
            longest: network.family().max_len(),
        }
    }

    /// Every prefix of a family.
    pub(super) fn of_family(family: Family) -> PrefixRange {
        PrefixRange::within(match family {
            Family::Ipv4Unicast => Prefix::masked_v4(std::net::Ipv4Addr::UNSPECIFIED, 0),
            Family::Ipv6Unicast => Prefix::masked_v6(std::net::Ipv6Addr::UNSPECIFIED, 0),
        })
    }

    /// The network.
    pub fn network(&self) -> Prefix {
        self.network
    }

    /// Whether the length is one of those meant.
    pub(super) fn has_length(&self, length: u8) -> bool {
        (self.shortest..=self.longest).contains(&length)
    }

    /// Whether the prefix is meant.
    pub fn matches(&self, prefix: &Prefix) -> bool {
        self.has_length(prefix.len()) && self.network.contains(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_matches_lengths_inside_its_network() {
        // network, ge, le, prefix, matches
        let rows = [
            ("10.0.0.0/8", None, None, "10.0.0.0/8", true),
            ("10.0.0.0/8", None, None, "10.1.0.0/16", false),
            ("10.0.0.0/8", None, None, "0.0.0.0/0", false),
            ("10.0.0.0/8", Some(16), None, "10.0.0.0/8", false),
            ("10.0.0.0/8", Some(16), None, "10.1.0.0/16", true),
            ("10.0.0.0/8", Some(16), None, "10.1.1.1/32", true),
            ("10.0.0.0/8", None, Some(16), "10.0.0.0/8", true),
            ("10.0.0.0/8", None, Some(16), "10.1.0.0/16", true),
            ("10.0.0.0/8", None, Some(16), "10.1.1.0/24", false),
            ("10.0.0.0/8", Some(16), Some(24), "10.1.1.0/24", true),
            ("10.0.0.0/8", Some(16), Some(24), "10.1.1.0/25", false),
            ("10.0.0.0/8", Some(16), Some(24), "11.1.1.0/24", false),
            ("0.0.0.0/0", None, Some(32), "192.0.2.1/32", true),
            ("0.0.0.0/0", None, Some(32), "2001:db8::/32", false),
            ("fd00::/8", Some(48), Some(64), "fd80:1::/48", true),
            ("fd00::/8", Some(48), Some(64), "fd80:1::/65", false),
        ];
        for (network, ge, le, tried, expected) in rows {
            let range = PrefixRange::new(prefix(network), ge, le).unwrap();
            assert_eq!(
                range.matches(&prefix(tried)),
                expected,
                "{network} {ge:?} {le:?} {tried}"
            );
        }
        for family in Family::ALL {
            let all = PrefixRange::of_family(family);
            for tried in ["0.0.0.0/0", "192.0.2.1/32", "::/0", "2001:db8::1/128"] {
                let tried = prefix(tried);
                assert_eq!(all.matches(&tried), tried.family() == family, "{tried}");
            }
        }
    }

    #[test]
    fn impossible_lengths_are_refused_by_name() {
        let rows = [
            ("10.0.0.0/8", Some(7), None, "ge 7 of 10.0.0.0/8"),
            (
                "10.0.0.0/8",
                None,
                Some(7),
                "le 7 of 10.0.0.0/8 is shorter than 8",
            ),
            (
                "10.0.0.0/8",
                Some(24),
                Some(16),
                "le 16 of 10.0.0.0/8 is shorter than 24",
            ),
            (
                "10.0.0.0/8",
                None,
                Some(33),
                "length 33 of 10.0.0.0/8 exceeds 32",
            ),
            (
                "fd00::/8",
                Some(129),
                None,
                "length 129 of fd00::/8 exceeds 128",
            ),
        ];
        for (network, ge, le, expected) in rows {
            let error = PrefixRange::new(prefix(network), ge, le)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
