//! One rule: which routes it is about, whether they pass, and what changes on the way.

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor, value::MapAccessDeserializer};

use super::Provenance;
use super::action::{Actions, Add, Delete, Set, Subtract};
use super::condition::{Conditions, MedCondition, PathCondition};
use super::one_or_many::one_or_many;
use super::pattern::{CommunityPattern, ExtendedPattern, LargePattern};
use super::prefix_range::PrefixRange;
use crate::wire::prefix::{Family, Prefix};

/// What a rule does with the routes it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Let them pass.
    Permit,
    /// Hold them back.
    Deny,
}

/// One rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What happens to the routes that match.
    pub verdict: Verdict,
    /// The prefixes it is about; absent: all of every family.
    pub prefixes: Option<PrefixRange>,
    /// What else must be so.
    pub conditions: Conditions,
    /// What changes; of no use in a rule that denies.
    pub actions: Actions,
}

impl Rule {
    /// A rule about prefixes alone that changes nothing.
    pub fn new(verdict: Verdict, prefixes: PrefixRange) -> Rule {
        Rule {
            verdict,
            prefixes: Some(prefixes),
            conditions: Conditions::default(),
            actions: Actions::default(),
        }
    }

    /// A rule that permits the network and everything in it, as it is.
    pub fn permit_within(network: Prefix) -> Rule {
        Rule::new(Verdict::Permit, PrefixRange::within(network))
    }

    /// A rule that permits every route from there, as it is.
    pub(super) fn permit_any(from: Option<Provenance>) -> Rule {
        Rule {
            verdict: Verdict::Permit,
            prefixes: None,
            conditions: Conditions {
                from,
                ..Conditions::default()
            },
            actions: Actions::default(),
        }
    }

    /// Whether the rule can match routes of the family.
    pub fn concerns(&self, family: Family) -> bool {
        self.prefixes
            .is_none_or(|range| range.network().family() == family)
    }
}

/// `any`, or a network.
enum Target {
    Any,
    Network(Prefix),
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        match &*text {
            "any" => Ok(Target::Any),
            _ => text.parse().map(Target::Network).map_err(Error::custom),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    permit: Option<Target>,
    deny: Option<Target>,
    ge: Option<u8>,
    le: Option<u8>,
    from: Option<Provenance>,
    #[serde(default, deserialize_with = "one_or_many")]
    community: Vec<CommunityPattern>,
    #[serde(default, deserialize_with = "one_or_many")]
    large_community: Vec<LargePattern>,
    #[serde(default, deserialize_with = "one_or_many")]
    ext_community: Vec<ExtendedPattern>,
    as_path: Option<PathCondition>,
    med: Option<MedCondition>,
    #[serde(default)]
    set: Set,
    #[serde(default)]
    add: Add,
    #[serde(default)]
    subtract: Subtract,
    #[serde(default)]
    delete: Delete,
    #[serde(default)]
    prepend: u8,
}

impl TryFrom<Written> for Rule {
    type Error = String;

    fn try_from(written: Written) -> Result<Rule, String> {
        let (verdict, target) = match (written.permit, written.deny) {
            (Some(target), None) => (Verdict::Permit, target),
            (None, Some(target)) => (Verdict::Deny, target),
            _ => return Err("a rule needs either `permit` or `deny`".to_owned()),
        };
        let prefixes = match target {
            Target::Any if written.ge.is_some() || written.le.is_some() => {
                return Err(
                    "ge and le are lengths inside a network, write \"0.0.0.0/0\" or \"::/0\" for \
                     `any`"
                        .to_owned(),
                );
            }
            Target::Any => None,
            Target::Network(network) => Some(
                PrefixRange::new(network, written.ge, written.le)
                    .map_err(|error| error.to_string())?,
            ),
        };
        let actions = Actions::written(
            written.set,
            written.add,
            written.subtract,
            written.delete,
            written.prepend,
        )?;
        if verdict == Verdict::Deny && !actions.is_empty() {
            return Err(
                "a rule that denies changes nothing: leave out what it is to do".to_owned(),
            );
        }
        Ok(Rule {
            verdict,
            prefixes,
            conditions: Conditions {
                from: written.from,
                community: written.community,
                large_community: written.large_community,
                ext_community: written.ext_community,
                as_path: written.as_path,
                med: written.med,
            },
            actions,
        })
    }
}

impl<'de> Deserialize<'de> for Rule {
    /// `{ permit = "10.0.0.0/8", ge = 16, le = 24 }` or the same with `deny`, and what else a
    /// rule may say.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneRule;

        impl<'de> Visitor<'de> for OneRule {
            type Value = Rule;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a rule, such as { permit = \"10.0.0.0/8\", le = 24 }")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Rule, A::Error> {
                let written = Written::deserialize(MapAccessDeserializer::new(map))?;
                Rule::try_from(written).map_err(A::Error::custom)
            }
        }

        // In a visitor's method, so that a text format can say where the rule stands.
        deserializer.deserialize_map(OneRule)
    }
}
