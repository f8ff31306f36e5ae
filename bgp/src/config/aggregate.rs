//! Aggregates: one route in the place of, or beside, the announced routes inside it.

use std::collections::HashSet;

use serde::de::{self, Deserialize, Deserializer};

use crate::wire::{Community, ExtendedCommunity, LargeCommunity, Prefix};

/// A route that is announced as long as a route inside it is. In TOML:
/// `{ prefix = "10.0.0.0/8", summary_only = true, communities = ["65001:1"] }`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(from = "Written")]
pub struct Aggregate {
    /// Where to.
    pub prefix: Prefix,
    /// Whether the routes inside it are then not told.
    pub summary_only: bool,
    /// Communities to send along (RFC 1997). Those of the routes inside it are not taken over.
    pub communities: Vec<Community>,
    /// Large communities to send along (RFC 8092).
    pub large_communities: Vec<LargeCommunity>,
    /// Extended communities to send along (RFC 4360).
    pub ext_communities: Vec<ExtendedCommunity>,
    /// MULTI_EXIT_DISC to send along.
    pub med: Option<u32>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    prefix: Prefix,
    #[serde(default)]
    summary_only: bool,
    #[serde(default)]
    communities: Vec<Community>,
    #[serde(default)]
    large_communities: Vec<LargeCommunity>,
    #[serde(default)]
    ext_communities: Vec<ExtendedCommunity>,
    med: Option<u32>,
    // Others have such a switch, so it may be written, and then it must be off.
    #[serde(default, deserialize_with = "no_as_set", rename = "as_set")]
    _as_set: (),
}

impl From<Written> for Aggregate {
    fn from(written: Written) -> Self {
        Aggregate {
            prefix: written.prefix,
            summary_only: written.summary_only,
            communities: written.communities,
            large_communities: written.large_communities,
            ext_communities: written.ext_communities,
            med: written.med,
        }
    }
}

impl Aggregate {
    /// An aggregate beside the routes inside it, without further attributes.
    pub fn new(prefix: Prefix) -> Aggregate {
        Aggregate {
            prefix,
            summary_only: false,
            communities: Vec::new(),
            large_communities: Vec::new(),
            ext_communities: Vec::new(),
            med: None,
        }
    }
}

fn no_as_set<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match bool::deserialize(deserializer)? {
        false => Ok(()),
        true => Err(de::Error::custom(
            "as_set must be false: AS_SETs are not to be sent any more (RFC 9774)",
        )),
    }
}

/// What is wrong with them together.
pub(super) fn check(aggregates: &[Aggregate]) -> Result<(), String> {
    let mut seen = HashSet::new();
    match aggregates.iter().find(|one| !seen.insert(one.prefix)) {
        None => Ok(()),
        Some(twice) => Err(format!("{} is there twice", twice.prefix)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Speaker {
        aggregate: Vec<Aggregate>,
    }

    #[test]
    fn aggregates_read() {
        let text = "aggregate = [\n  { prefix = \"10.0.0.0/8\", as_set = false, summary_only = true, \
                    communities = [\"65001:1\"], large_communities = [\"65001:1:2\"], \
                    ext_communities = [\"rt:65001:1\"], med = 5 },\n  { prefix = \"fd00::/8\" },\n]\n";
        let speaker: Speaker = toml::from_str(text).unwrap();
        let expected = [
            Aggregate {
                summary_only: true,
                communities: vec!["65001:1".parse().unwrap()],
                large_communities: vec!["65001:1:2".parse().unwrap()],
                ext_communities: vec!["rt:65001:1".parse().unwrap()],
                med: Some(5),
                ..Aggregate::new("10.0.0.0/8".parse().unwrap())
            },
            Aggregate::new("fd00::/8".parse().unwrap()),
        ];
        assert_eq!(speaker.aggregate, expected);
        assert_eq!(check(&expected), Ok(()));
        let twice = [
            expected[0].clone(),
            expected[1].clone(),
            expected[0].clone(),
        ];
        assert_eq!(check(&twice), Err("10.0.0.0/8 is there twice".to_owned()));
    }

    #[test]
    fn faults_show_the_line() {
        for (entry, reason) in [
            ("{ prefix = \"10.0.0.0/8\", as_set = true }", "RFC 9774"),
            ("{ prefix = \"10.0.0.1/8\" }", "host bits"),
            ("{ summary_only = true }", "missing field `prefix`"),
            (
                "{ prefix = \"10.0.0.0/8\", summary = true }",
                "unknown field `summary`",
            ),
            (
                "{ prefix = \"10.0.0.0/8\", communities = [\"1\"] }",
                "no community",
            ),
        ] {
            let text = format!("aggregate = [\n  {{ prefix = \"fd00::/8\" }},\n  {entry},\n]\n");
            let error = toml::from_str::<Speaker>(&text).unwrap_err().to_string();
            assert!(
                error.contains(reason) && error.contains("line 3"),
                "{error}"
            );
        }
    }
}
