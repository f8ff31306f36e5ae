//! Rules in order, prepared so that deciding is quick however many they are.

use std::collections::HashMap;
use std::sync::Arc;

use super::action::{Actions, NextHops};
use super::condition::Conditions;
use super::first_match::FirstMatch;
use super::prefix_range::PrefixRange;
use super::rule::{Rule, Verdict};
use super::{ActionsId, Decision, Provenance};
use crate::rib::attributes::RouteAttributes;
use crate::wire::{Family, NextHop, Prefix};

/// Up to so many rules are tried one by one.
const FEW: usize = 8;

/// Rules in order: the first that matches decides, what none matches is denied. Cheap to clone.
///
/// Equal lists decide and change alike; unequal ones may, too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RuleList(Arc<Lists>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Lists {
    families: [FamilyRules; Family::ALL.len()],
    /// What `ActionsId(n + 1)` stands for, each once.
    actions: Vec<Actions>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct FamilyRules {
    rules: Vec<Prepared>,
    index: Option<FirstMatch>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Prepared {
    range: PrefixRange,
    decision: Decision,
    conditions: Option<Box<Conditions>>,
}

impl RuleList {
    /// The rules of each family, in the order of [`Family::ALL`]; those of the wrong family never
    /// match.
    pub fn of_families(rules: [Vec<Rule>; Family::ALL.len()]) -> RuleList {
        let mut actions = HashMap::new();
        let mut lists = rules.into_iter().zip(Family::ALL).map(|(rules, family)| {
            let rules = rules
                .into_iter()
                .filter(|rule| rule.concerns(family))
                .map(|rule| prepare(rule, family, &mut actions));
            FamilyRules::new(rules.collect())
        });
        let families = std::array::from_fn(|_| lists.next().unwrap_or_default());
        drop(lists);
        let mut actions: Vec<(Actions, ActionsId)> = actions.into_iter().collect();
        actions.sort_by_key(|(_, id)| *id);
        let actions = actions.into_iter().map(|(actions, _)| actions).collect();
        RuleList(Arc::new(Lists { families, actions }))
    }

    /// What the first matching rule says about a route.
    pub fn decide(
        &self,
        prefix: &Prefix,
        attributes: &RouteAttributes,
        from: Provenance,
    ) -> Decision {
        let family = &self.0.families[place(prefix.family())];
        let holds = |rule: &Prepared| {
            let conditions = rule.conditions.as_ref();
            conditions.is_none_or(|conditions| conditions.hold(attributes, from))
        };
        let found = match &family.index {
            None => family
                .rules
                .iter()
                .position(|rule| rule.range.matches(prefix) && holds(rule)),
            Some(index) => index.find(
                prefix,
                |number, length| family.rules[number].range.has_length(length),
                |number| holds(&family.rules[number]),
            ),
        };
        found.map_or(Decision::Deny, |number| family.rules[number].decision)
    }

    /// The next hop that the actions want, of those there may be; `None`: it is not there, and so
    /// the route cannot be.
    pub fn next_hop(&self, id: ActionsId, hops: &NextHops) -> Option<NextHop> {
        match self.actions(id).and_then(|actions| actions.next_hop) {
            Some(choice) => choice.choose(hops),
            None => hops.usual,
        }
    }

    /// The attributes after the actions, all but the next hop. `asn` is what is prepended.
    pub fn apply(
        &self,
        id: ActionsId,
        mut attributes: RouteAttributes,
        asn: Option<u32>,
    ) -> RouteAttributes {
        if let Some(actions) = self.actions(id) {
            actions.apply(&mut attributes, asn);
        }
        attributes
    }

    /// Whether any rule changes anything.
    pub(super) fn changes_routes(&self) -> bool {
        !self.0.actions.is_empty()
    }

    /// Whether a rule may let a learned route pass.
    pub(super) fn permits_learned(&self) -> bool {
        let rules = self.0.families.iter().flat_map(|family| &family.rules);
        let learned = |rule: &&Prepared| {
            let from = rule.conditions.as_ref().and_then(|c| c.from);
            rule.decision != Decision::Deny && from != Some(Provenance::Local)
        };
        rules.into_iter().any(|rule| learned(&rule))
    }

    fn actions(&self, id: ActionsId) -> Option<&Actions> {
        self.0.actions.get((id.0 as usize).checked_sub(1)?)
    }
}

/// The rules are for both families.
impl FromIterator<Rule> for RuleList {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        let rules: Vec<Rule> = rules.into_iter().collect();
        RuleList::of_families([rules.clone(), rules])
    }
}

impl FamilyRules {
    fn new(rules: Vec<Prepared>) -> FamilyRules {
        let index = (rules.len() > FEW).then(|| {
            let ranges: Vec<PrefixRange> = rules.iter().map(|rule| rule.range).collect();
            FirstMatch::new(&ranges)
        });
        FamilyRules { rules, index }
    }
}

fn prepare(rule: Rule, family: Family, known: &mut HashMap<Actions, ActionsId>) -> Prepared {
    let decision = match rule.verdict {
        Verdict::Deny => Decision::Deny,
        Verdict::Permit if rule.actions.is_empty() => Decision::UNCHANGED,
        Verdict::Permit => {
            let next = ActionsId(known.len() as u32 + 1);
            Decision::Permit(*known.entry(rule.actions).or_insert(next))
        }
    };
    Prepared {
        range: rule
            .prefixes
            .unwrap_or_else(|| PrefixRange::of_family(family)),
        decision,
        conditions: (!rule.conditions.is_empty()).then(|| Box::new(rule.conditions)),
    }
}

const fn place(family: Family) -> usize {
    match family {
        Family::Ipv4Unicast => 0,
        Family::Ipv6Unicast => 1,
    }
}

#[cfg(test)]
mod tests;
