//! How a policy is written: a word, rules, or one of both for each family.
//!
//! Visitors rather than untagged enums: these keep the place and the reason of an error.

use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
    value::MapAccessDeserializer,
};

use super::action::NextHopChoice;
use super::{Provenance, Rule, RuleList};
use crate::wire::Family;

/// Which way the routes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Import,
    Export,
}

/// What was written for both families, or the same for each.
pub(super) struct Policy([OfFamily; Family::ALL.len()]);

#[derive(Clone)]
enum OfFamily {
    None,
    Local,
    All,
    Rules(Vec<Rule>),
}

impl Policy {
    pub(super) fn is_none(&self) -> bool {
        self.0.iter().all(|family| matches!(family, OfFamily::None))
    }

    pub(super) fn is_local(&self) -> bool {
        self.0
            .iter()
            .all(|family| matches!(family, OfFamily::Local))
    }

    pub(super) fn is_all(&self) -> bool {
        self.0.iter().all(|family| matches!(family, OfFamily::All))
    }

    pub(super) fn into_rules(self) -> RuleList {
        RuleList::of_families(self.0.map(|family| match family {
            OfFamily::None => Vec::new(),
            OfFamily::Local => vec![Rule::permit_any(Some(Provenance::Local))],
            OfFamily::All => vec![Rule::permit_any(None)],
            OfFamily::Rules(rules) => rules,
        }))
    }
}

/// Reads a policy.
pub(super) fn policy<'de, D: Deserializer<'de>>(
    deserializer: D,
    direction: Direction,
) -> Result<Policy, D::Error> {
    deserializer.deserialize_any(Written {
        direction,
        family: None,
    })
}

/// A policy of both families, or of one.
#[derive(Clone, Copy)]
struct Written {
    direction: Direction,
    family: Option<Family>,
}

impl Written {
    fn of_both(self, policy: OfFamily) -> Policy {
        Policy([policy.clone(), policy])
    }

    fn rules(self, only: Option<Provenance>) -> Rules {
        Rules {
            direction: self.direction,
            family: self.family,
            only,
        }
    }

    /// `{ ipv4 = POLICY, ipv6 = POLICY }`: one that is missing is none.
    fn families<'de, A: MapAccess<'de>>(
        self,
        first: Family,
        mut map: A,
    ) -> Result<Policy, A::Error> {
        let mut found = [const { None }; Family::ALL.len()];
        let mut next = Some(first);
        while let Some(family) = next {
            let of_family = map.next_value_seed(Written {
                family: Some(family),
                ..self
            })?;
            let of_families = Family::ALL.into_iter().zip(&mut found).zip(of_family.0);
            for ((each, place), policy) in of_families {
                if each == family && place.replace(policy).is_some() {
                    return Err(A::Error::custom(format!("{family} is there twice")));
                }
            }
            next = match map.next_key::<String>()? {
                None => None,
                Some(key) => Some(key.parse().map_err(A::Error::custom)?),
            };
        }
        Ok(Policy(found.map(|policy| policy.unwrap_or(OfFamily::None))))
    }
}

impl<'de> DeserializeSeed<'de> for Written {
    type Value = Policy;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Policy, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Written {
    type Value = Policy;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.direction {
            Direction::Import => "\"none\", \"all\" or a list of rules",
            Direction::Export => {
                "\"none\", \"local\", \"all\", { local = [RULES] } or { all = [RULES] }"
            }
        })?;
        match self.family {
            None => f.write_str(", or one of these per family: { ipv4 = .., ipv6 = .. }"),
            Some(_) => Ok(()),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Policy, E> {
        let policy = match (text, self.direction) {
            ("none", _) => OfFamily::None,
            ("all", _) => OfFamily::All,
            ("local", Direction::Export) => OfFamily::Local,
            _ => return Err(E::invalid_value(Unexpected::Str(text), &self)),
        };
        Ok(self.of_both(policy))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, rules: A) -> Result<Policy, A::Error> {
        if self.direction == Direction::Export {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        let rules = self.rules(None).visit_seq(rules)?;
        Ok(self.of_both(OfFamily::Rules(rules)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Policy, A::Error> {
        let Some(key) = map.next_key::<String>()? else {
            return Err(A::Error::invalid_length(0, &self));
        };
        let family = key.parse().ok().filter(|_| self.family.is_none());
        let only = match (key.as_str(), self.direction, family) {
            (_, _, Some(family)) => return self.families(family, map),
            ("local", Direction::Export, _) => Some(Provenance::Local),
            ("all", Direction::Export, _) => None,
            _ => {
                let known: &[&str] = match (self.direction, self.family) {
                    (Direction::Import, None) => &["ipv4", "ipv6"],
                    (Direction::Import, Some(_)) => &[],
                    (Direction::Export, None) => &["local", "all", "ipv4", "ipv6"],
                    (Direction::Export, Some(_)) => &["local", "all"],
                };
                return Err(A::Error::unknown_field(&key, known));
            }
        };
        let rules = map.next_value_seed(self.rules(only))?;
        match map.next_entry::<String, IgnoredAny>()? {
            None => Ok(self.of_both(OfFamily::Rules(rules))),
            Some(_) => Err(A::Error::custom("either `local` or `all`, not more")),
        }
    }
}

/// A list of rules, each checked in its place.
#[derive(Clone, Copy)]
struct Rules {
    direction: Direction,
    family: Option<Family>,
    only: Option<Provenance>,
}

impl<'de> DeserializeSeed<'de> for Rules {
    type Value = Vec<Rule>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Rule>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rules {
    type Value = Vec<Rule>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rules")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Rule>, A::Error> {
        let mut rules = Vec::new();
        while let Some(rule) = list.next_element_seed(OneRule(self))? {
            rules.push(rule);
        }
        Ok(rules)
    }
}

struct OneRule(Rules);

impl<'de> DeserializeSeed<'de> for OneRule {
    type Value = Rule;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Rule, D::Error> {
        // In a visitor's method, so that a text format can say where the rule stands.
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneRule {
    type Value = Rule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a rule, such as { permit = \"10.0.0.0/8\", le = 24 }")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Rule, A::Error> {
        let rule = Rule::deserialize(MapAccessDeserializer::new(map))?;
        self.0.check(rule).map_err(A::Error::custom)
    }
}

impl Rules {
    /// What is wrong with a rule in this place.
    fn check(&self, mut rule: Rule) -> Result<Rule, String> {
        if let (Some(range), Some(family)) = (rule.prefixes, self.family)
            && range.network().family() != family
        {
            return Err(format!("{} is no {family} network", range.network()));
        }
        if let Some(only) = self.only {
            match rule.conditions.from.replace(only) {
                Some(from) if from != only => {
                    return Err("the list is about local routes only".to_owned());
                }
                _ => {}
            }
        }
        if self.direction == Direction::Import {
            if rule.conditions.from.is_some() {
                return Err("from is of use on the way out: a peer's routes are learned".to_owned());
            }
            if let Some(NextHopChoice::Own | NextHopChoice::Unchanged) = rule.actions.next_hop {
                return Err(
                    "next_hop \"self\" and \"unchanged\" are of use on the way out".to_owned(),
                );
            }
        }
        if let Some(choice) = rule.actions.next_hop {
            let families = Family::ALL.into_iter();
            let mut concerned = families
                .filter(|family| self.family.is_none_or(|of| of == *family))
                .filter(|family| rule.concerns(*family));
            if let Some(family) = concerned.find(|family| !choice.serves(*family)) {
                return Err(format!(
                    "next_hop is an IPv4 address, and {family} routes match: write the policies \
                     per family, {{ ipv4 = .., ipv6 = .. }}"
                ));
            }
        }
        Ok(rule)
    }
}
