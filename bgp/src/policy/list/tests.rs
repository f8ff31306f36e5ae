use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::policy::{MedChange, MedCondition};
use crate::wire::NextHop;

fn route(med: Option<u32>) -> RouteAttributes {
    let next_hop = NextHop::V4(Ipv4Addr::new(10, 0, 0, 1));
    RouteAttributes {
        med,
        ..RouteAttributes::originated(next_hop)
    }
}

/// Few networks, so that they meet.
fn prefix() -> impl Strategy<Value = Prefix> {
    (any::<bool>(), 0u8..8, 0u8..=32).prop_map(|(v6, bits, length)| match v6 {
        false => Prefix::masked_v4(Ipv4Addr::new(bits << 5, bits, bits, 0), length),
        true => Prefix::masked_v6(
            Ipv6Addr::new(u16::from(bits) << 13, 0, 0, 0, 0, 0, 0, u16::from(bits)),
            length * 4,
        ),
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let range = prop::option::weighted(0.9, (prefix(), 0u8..=128));
    let med = prop::option::weighted(0.2, (0u32..3).prop_map(|n| MedCondition { min: n, max: n }));
    let from = prop::option::weighted(
        0.2,
        prop::sample::select(vec![Provenance::Local, Provenance::Learned]),
    );
    let change = prop::option::weighted(0.3, (0u32..4).prop_map(MedChange::Set));
    (range, any::<bool>(), med, from, change).prop_map(|(range, permit, med, from, change)| {
        let prefixes = range.map(|(network, length)| {
            let le = length.clamp(network.len(), network.family().max_len());
            PrefixRange::new(network, None, Some(le)).unwrap()
        });
        let (verdict, change) = match permit {
            true => (Verdict::Permit, change),
            false => (Verdict::Deny, None),
        };
        Rule {
            verdict,
            prefixes,
            conditions: Conditions {
                med,
                from,
                ..Conditions::default()
            },
            actions: Actions {
                med: change,
                ..Actions::default()
            },
        }
    })
}

proptest! {
    #[test]
    fn the_list_does_what_trying_each_rule_in_turn_does(
        // Below and above the number from which there is an index.
        rules in proptest::collection::vec(rule(), 0..40),
        tried in proptest::collection::vec((prefix(), 0u32..3, any::<bool>()), 1..40),
    ) {
        let list: RuleList = rules.iter().cloned().collect();
        for (prefix, med, local) in tried {
            let attributes = route(Some(med));
            let from = if local { Provenance::Local } else { Provenance::Learned };
            let first = rules.iter().find(|rule| {
                rule.prefixes.is_none_or(|range| range.matches(&prefix))
                    && rule.conditions.hold(&attributes, from)
            });
            let expected = first
                .filter(|rule| rule.verdict == Verdict::Permit)
                .map(|rule| match rule.actions.med {
                    Some(MedChange::Set(med)) => med,
                    _ => med,
                });
            let decided = match list.decide(&prefix, &attributes, from) {
                Decision::Deny => None,
                Decision::Permit(id) => list.apply(id, attributes, None).med,
            };
            prop_assert_eq!(decided, expected, "{}", prefix);
        }
    }
}

#[test]
fn equal_actions_have_one_name_and_none_has_the_first() {
    let change = |med| Rule {
        actions: Actions {
            med: Some(MedChange::Set(med)),
            ..Actions::default()
        },
        ..Rule::permit_any(None)
    };
    let within = |text: &str, rule: Rule| Rule {
        prefixes: Some(PrefixRange::within(text.parse().unwrap())),
        ..rule
    };
    let list: RuleList = [
        within("10.0.0.0/8", change(1)),
        within("11.0.0.0/8", change(2)),
        within("fd00::/8", change(1)),
        Rule::permit_within("12.0.0.0/8".parse().unwrap()),
    ]
    .into_iter()
    .collect();
    let named = |text: &str| list.decide(&text.parse().unwrap(), &route(None), Provenance::Learned);
    assert_eq!(named("12.0.0.0/8"), Decision::Permit(ActionsId::UNCHANGED));
    assert_eq!(named("13.0.0.0/8"), Decision::Deny);
    assert_eq!(named("10.0.0.0/8"), named("fd00::/16"));
    assert_ne!(named("10.0.0.0/8"), named("11.0.0.0/8"));
    // A name that the list never gave changes nothing.
    assert_eq!(
        list.apply(ActionsId(99), route(Some(5)), None),
        route(Some(5))
    );
}
