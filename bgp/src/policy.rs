//! What may come in from a peer and what may go out to it: prefix lists and their use.
//!
//! Everything is denied unless something permits it (RFC 8212). Nothing here changes a route.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::wire::prefix::Prefix;

/// What a rule does with the prefixes it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Let them pass.
    Permit,
    /// Hold them back.
    Deny,
}

/// One rule of a [`PrefixList`]: a network and the prefix lengths in it that match.
///
/// Without `ge` and `le` exactly the network matches; `ge` alone means "this long or longer".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PrefixRule {
    verdict: Verdict,
    network: Prefix,
    shortest: u8,
    longest: u8,
}

/// Why a rule makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// `ge` is shorter than the network itself.
    #[error("ge {ge} of {network} is shorter than the network: expected {len}..={max}", len = network.len(), max = network.family().max_len())]
    GeTooShort {
        /// The network of the rule.
        network: Prefix,
        /// The length at fault.
        ge: u8,
    },
    /// `le` is shorter than the network, or than `ge`.
    #[error("le {le} of {network} is shorter than {least}")]
    LeTooShort {
        /// The network of the rule.
        network: Prefix,
        /// The length at fault.
        le: u8,
        /// The network's length, or `ge`.
        least: u8,
    },
    /// `ge` or `le` exceeds what the family has.
    #[error("length {length} of {network} exceeds {max}", max = network.family().max_len())]
    TooLong {
        /// The network of the rule.
        network: Prefix,
        /// The length at fault.
        length: u8,
    },
}

impl PrefixRule {
    /// A rule for prefixes inside `network` that are `ge` to `le` bits long.
    ///
    /// # Errors
    /// When the lengths are not `network <= ge <= le <= 32` (or 128).
    pub fn new(
        verdict: Verdict,
        network: Prefix,
        ge: Option<u8>,
        le: Option<u8>,
    ) -> Result<PrefixRule, PolicyError> {
        let max = network.family().max_len();
        if let Some(length) = [ge, le].into_iter().flatten().find(|length| *length > max) {
            return Err(PolicyError::TooLong { network, length });
        }
        let shortest = ge.unwrap_or(network.len());
        if shortest < network.len() {
            return Err(PolicyError::GeTooShort {
                network,
                ge: shortest,
            });
        }
        let longest = le.unwrap_or(if ge.is_some() { max } else { network.len() });
        if longest < shortest {
            return Err(PolicyError::LeTooShort {
                network,
                le: longest,
                least: shortest,
            });
        }
        Ok(PrefixRule {
            verdict,
            network,
            shortest,
            longest,
        })
    }

    /// A rule that permits the network and everything in it.
    pub fn permit_within(network: Prefix) -> PrefixRule {
        PrefixRule {
            verdict: Verdict::Permit,
            network,
            shortest: network.len(),
            longest: network.family().max_len(),
        }
    }

    /// Whether the rule speaks about this prefix.
    pub fn matches(&self, prefix: &Prefix) -> bool {
        (self.shortest..=self.longest).contains(&prefix.len()) && self.network.contains(prefix)
    }

    /// What it does with it.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }
}

/// Rules in order: the first that matches decides, what none matches is denied.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PrefixList {
    rules: Vec<PrefixRule>,
}

impl PrefixList {
    /// Whether the list lets the prefix pass.
    pub fn permits(&self, prefix: &Prefix) -> bool {
        self.rules
            .iter()
            .find(|rule| rule.matches(prefix))
            .is_some_and(|rule| rule.verdict == Verdict::Permit)
    }
}

impl FromIterator<PrefixRule> for PrefixList {
    fn from_iter<I: IntoIterator<Item = PrefixRule>>(rules: I) -> Self {
        PrefixList {
            rules: rules.into_iter().collect(),
        }
    }
}

/// Which routes of a peer are taken. In TOML: `"none"`, `"all"` or a list of rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum ImportPolicy {
    /// No route at all: what applies without a policy (RFC 8212).
    #[default]
    None,
    /// Every route.
    All,
    /// Routes to prefixes that the list permits.
    List(PrefixList),
}

impl ImportPolicy {
    /// Whether a route to this prefix is taken.
    pub fn permits(&self, prefix: &Prefix) -> bool {
        match self {
            ImportPolicy::None => false,
            ImportPolicy::All => true,
            ImportPolicy::List(list) => list.permits(prefix),
        }
    }
}

/// Which routes a peer is told. In TOML: `"none"`, `"local"`, `"all"`, `{ local = [RULES] }` or
/// `{ all = [RULES] }`.
///
/// "Local" routes are those announced by this speaker's user; only the two `All` variants also
/// pass on what was learned from other peers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum ExportPolicy {
    /// No route at all: what applies without a policy (RFC 8212).
    #[default]
    None,
    /// Every local route.
    Local,
    /// Local routes to prefixes that the list permits.
    LocalList(PrefixList),
    /// Every best route, local or learned.
    All,
    /// Best routes, local or learned, to prefixes that the list permits.
    AllList(PrefixList),
}

impl ExportPolicy {
    /// Whether a route to this prefix may be told.
    pub fn permits(&self, prefix: &Prefix, local: bool) -> bool {
        match self {
            ExportPolicy::None => false,
            ExportPolicy::Local => local,
            ExportPolicy::LocalList(list) => local && list.permits(prefix),
            ExportPolicy::All => true,
            ExportPolicy::AllList(list) => list.permits(prefix),
        }
    }
}

impl<'de> Deserialize<'de> for PrefixRule {
    /// `{ permit = "10.0.0.0/8", ge = 16, le = 24 }` or the same with `deny`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            permit: Option<Prefix>,
            deny: Option<Prefix>,
            ge: Option<u8>,
            le: Option<u8>,
        }
        let written = Written::deserialize(deserializer)?;
        let (verdict, network) = match (written.permit, written.deny) {
            (Some(network), None) => (Verdict::Permit, network),
            (None, Some(network)) => (Verdict::Deny, network),
            _ => return Err(de::Error::custom("a rule needs either `permit` or `deny`")),
        };
        PrefixRule::new(verdict, network, written.ge, written.le).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for PrefixList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(PrefixList {
            rules: Vec::deserialize(deserializer)?,
        })
    }
}

// Visitors rather than untagged enums: these keep the place and the reason of an error.

impl<'de> Deserialize<'de> for ImportPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Import;

        impl<'de> Visitor<'de> for Import {
            type Value = ImportPolicy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"none\", \"all\" or a list of rules")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ImportPolicy, E> {
                match text {
                    "none" => Ok(ImportPolicy::None),
                    "all" => Ok(ImportPolicy::All),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, rules: A) -> Result<ImportPolicy, A::Error> {
                let rules = de::value::SeqAccessDeserializer::new(rules);
                PrefixList::deserialize(rules).map(ImportPolicy::List)
            }
        }

        deserializer.deserialize_any(Import)
    }
}

impl<'de> Deserialize<'de> for ExportPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Export;

        impl<'de> Visitor<'de> for Export {
            type Value = ExportPolicy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "\"none\", \"local\", \"all\", { local = [RULES] } or { all = [RULES] }",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ExportPolicy, E> {
                match text {
                    "none" => Ok(ExportPolicy::None),
                    "local" => Ok(ExportPolicy::Local),
                    "all" => Ok(ExportPolicy::All),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ExportPolicy, A::Error> {
                let policy = match map.next_key::<String>()?.as_deref() {
                    Some("local") => ExportPolicy::LocalList(map.next_value()?),
                    Some("all") => ExportPolicy::AllList(map.next_value()?),
                    Some(other) => return Err(de::Error::unknown_field(other, &["local", "all"])),
                    None => return Err(de::Error::invalid_length(0, &self)),
                };
                match map.next_key::<String>()? {
                    None => Ok(policy),
                    Some(_) => Err(de::Error::custom("either `local` or `all`, not more")),
                }
            }
        }

        deserializer.deserialize_any(Export)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_rule_matches_lengths_inside_its_network() {
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
            let rule = PrefixRule::new(Verdict::Permit, prefix(network), ge, le).unwrap();
            assert_eq!(
                rule.matches(&prefix(tried)),
                expected,
                "{network} {ge:?} {le:?} {tried}"
            );
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
            let error = PrefixRule::new(Verdict::Permit, prefix(network), ge, le)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn the_first_match_decides_and_the_rest_is_denied() {
        let list: PrefixList = [
            PrefixRule::new(Verdict::Deny, prefix("10.9.0.0/16"), None, Some(32)).unwrap(),
            PrefixRule::permit_within(prefix("10.0.0.0/8")),
        ]
        .into_iter()
        .collect();
        for (tried, expected) in [
            ("10.9.0.0/16", false),
            ("10.9.1.0/24", false),
            ("10.8.0.0/16", true),
            ("10.0.0.0/8", true),
            ("11.0.0.0/8", false),
            ("fd00::/8", false),
        ] {
            assert_eq!(list.permits(&prefix(tried)), expected, "{tried}");
        }
        assert!(!PrefixList::default().permits(&prefix("10.0.0.0/8")));
    }

    #[test]
    fn export_tells_learned_routes_only_when_asked_to() {
        let list: PrefixList = [PrefixRule::permit_within(prefix("10.0.0.0/8"))]
            .into_iter()
            .collect();
        let (inside, outside) = (prefix("10.1.0.0/16"), prefix("11.0.0.0/8"));
        // policy, (local inside, local outside, learned inside, learned outside)
        let rows = [
            (ExportPolicy::None, [false; 4]),
            (ExportPolicy::Local, [true, true, false, false]),
            (
                ExportPolicy::LocalList(list.clone()),
                [true, false, false, false],
            ),
            (ExportPolicy::All, [true; 4]),
            (ExportPolicy::AllList(list), [true, false, true, false]),
        ];
        for (policy, expected) in rows {
            let seen = [
                (inside, true),
                (outside, true),
                (inside, false),
                (outside, false),
            ]
            .map(|(prefix, local)| policy.permits(&prefix, local));
            assert_eq!(seen, expected, "{policy:?}");
        }
        assert_eq!(ExportPolicy::default(), ExportPolicy::None);
        assert_eq!(ImportPolicy::default(), ImportPolicy::None);
    }

    #[test]
    fn policies_read_from_text() {
        let import = |text: &str| serde_json::from_str::<ImportPolicy>(text);
        assert_eq!(import("\"all\"").unwrap(), ImportPolicy::All);
        assert_eq!(import("\"none\"").unwrap(), ImportPolicy::None);
        let list = import(r#"[{"deny":"10.9.0.0/16"},{"permit":"10.0.0.0/8","ge":16,"le":24}]"#);
        let ImportPolicy::List(list) = list.unwrap() else {
            panic!("no list")
        };
        assert!(list.permits(&prefix("10.8.0.0/16")) && !list.permits(&prefix("10.9.0.0/16")));

        let export = |text: &str| serde_json::from_str::<ExportPolicy>(text);
        assert_eq!(export("\"local\"").unwrap(), ExportPolicy::Local);
        assert!(matches!(
            export(r#"{"local":[]}"#).unwrap(),
            ExportPolicy::LocalList(_)
        ));
        assert!(matches!(
            export(r#"{"all":[]}"#).unwrap(),
            ExportPolicy::AllList(_)
        ));

        for (text, reason) in [
            ("\"some\"", "expected \"none\", \"all\" or a list of rules"),
            (r#"[{"permit":"10.0.0.1/8"}]"#, "host bits"),
            (
                r#"[{"permit":"10.0.0.0/8","deny":"10.0.0.0/8"}]"#,
                "either `permit` or `deny`",
            ),
            (r#"[{"ge":8}]"#, "either `permit` or `deny`"),
            (
                r#"[{"permit":"10.0.0.0/8","ge":4}]"#,
                "shorter than the network",
            ),
            (r#"[{"allow":"10.0.0.0/8"}]"#, "unknown field `allow`"),
        ] {
            let error = import(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        for (text, reason) in [
            ("\"some\"", "\"local\""),
            (r#"{"learned":[]}"#, "unknown field `learned`"),
            (r#"{"local":[],"all":[]}"#, "not more"),
            ("{}", "{ local = [RULES] }"),
        ] {
            let error = export(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
