//! Whether an order for a link is carried out, by the word of every live gateway of its group.
//!
//! Pure: reports in, a verdict out.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{Gateway, GatewayName, LinkReport, Progress};
use crate::store::Generation;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Every gateway has verified and announced it.
    Announced,
    /// Nothing of it is left anywhere.
    Gone,
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everywhere.
    Done,
    /// Not at these, each with what it says; at none, where no gateway is alive that could.
    Waits(Vec<(GatewayName, String)>),
    /// These cannot, each with why; the others have done it.
    Failed(Vec<(GatewayName, String)>),
}

/// What gateways of a group (those that are registered) have made of the link as it is at generation `since`. `gone` are
/// those that are not registered and held it when they were heard last: nobody knows what these forward.
pub(super) fn judge(
    goal: Goal,
    since: Generation,
    gateways: &BTreeMap<GatewayName, Gateway>,
    reports: &BTreeMap<GatewayName, LinkReport>,
    gone: &BTreeSet<GatewayName>,
) -> Verdict {
    let (mut waits, mut failed) = (Vec::new(), Vec::new());
    if goal == Goal::Gone {
        waits.extend(gone.iter().map(|name| (name.clone(), unheard(name))));
    }
    for (name, gateway) in gateways {
        let report = reports.get(name);
        let current = report.filter(|report| report.generation >= since);
        match (goal, current.map(|report| report.state)) {
            (
                Goal::Announced,
                Some(Progress::Announced | Progress::Drained | Progress::Standby),
            )
            | (Goal::Gone, Some(Progress::Removed | Progress::Disabled)) => {}
            // It says nothing of links that it never had; its kernel is as new as that.
            (Goal::Gone, None) if report.is_none() && gateway.generation >= since => {}
            (Goal::Announced, Some(Progress::Failed | Progress::Conflict)) => {
                failed.push((name.clone(), say(current)));
            }
            (_, Some(_)) => waits.push((name.clone(), say(current))),
            (_, None) => {
                let seen = report.map_or(gateway.generation, |report| report.generation);
                let says =
                    format!("has not taken it up (it is at generation {seen}, this is {since})");
                waits.push((name.clone(), says));
            }
        }
    }
    // Nobody serves it now; whoever comes will have to.
    if goal == Goal::Announced && gateways.is_empty() {
        return Verdict::Waits(Vec::new());
    }
    match (waits.is_empty(), failed.is_empty()) {
        (true, true) => Verdict::Done,
        (true, false) => Verdict::Failed(failed),
        (false, _) => Verdict::Waits(waits.into_iter().chain(failed).collect()),
    }
}

fn unheard(name: &GatewayName) -> String {
    format!(
        "is gone, and may forward what it had of it until it is back, which undoes it; if it is no more: \
         ccn gateways forget {name}"
    )
}

fn say(report: Option<&LinkReport>) -> String {
    match report {
        Some(LinkReport {
            state,
            reason: Some(reason),
            ..
        }) => format!("{state}: {reason}"),
        Some(LinkReport { state, .. }) => state.to_string(),
        None => "says nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Record, RecordKey};

    fn gateway(generation: u64) -> Gateway {
        let value = format!(
            r#"{{"vtep":"172.16.0.1","router_id":"10.99.0.1","asn":65001,"roles":["classic-link"],"generation":{generation},"health":"healthy"}}"#
        );
        let key: RecordKey = "gateways/gw".parse().unwrap();
        match Record::parse(&key, value.as_bytes()).unwrap() {
            Record::Gateway(gateway) => gateway,
            other => panic!("{other:?}"),
        }
    }

    /// Of a gateway at generation 10, and a report with its generation.
    fn verdict(goal: Goal, since: u64, report: Option<(Progress, u64)>) -> char {
        let name: GatewayName = "gw".parse().unwrap();
        let gateways = [(name.clone(), gateway(10))].into();
        let report = report.map(|(state, generation)| LinkReport {
            state,
            reason: None,
            generation,
        });
        let reports = report.map(|report| (name, report)).into_iter().collect();
        match judge(goal, since, &gateways, &reports, &BTreeSet::new()) {
            Verdict::Done => 'd',
            Verdict::Waits(_) => 'w',
            Verdict::Failed(_) => 'f',
        }
    }

    #[test]
    fn only_what_is_said_of_this_generation_counts() {
        use Progress::{
            Announced, Conflict, Disabled, Drained, Failed, Pending, Programmed, Removed, Removing,
            Standby,
        };
        for (goal, since, report, expected) in [
            (Goal::Announced, 10, None, 'w'),
            (Goal::Announced, 10, Some((Pending, 10)), 'w'),
            (Goal::Announced, 10, Some((Programmed, 11)), 'w'),
            (Goal::Announced, 10, Some((Announced, 9)), 'w'),
            (Goal::Announced, 10, Some((Announced, 10)), 'd'),
            (Goal::Announced, 10, Some((Standby, 10)), 'd'),
            (Goal::Announced, 10, Some((Drained, 10)), 'd'),
            (Goal::Gone, 10, Some((Standby, 10)), 'w'),
            (Goal::Announced, 10, Some((Failed, 9)), 'w'),
            (Goal::Announced, 10, Some((Failed, 10)), 'f'),
            (Goal::Announced, 10, Some((Conflict, 12)), 'f'),
            (Goal::Announced, 10, Some((Removing, 12)), 'w'),
            (Goal::Gone, 10, Some((Announced, 9)), 'w'),
            (Goal::Gone, 10, Some((Removing, 10)), 'w'),
            (Goal::Gone, 10, Some((Removed, 9)), 'w'),
            (Goal::Gone, 10, Some((Removed, 10)), 'd'),
            (Goal::Gone, 10, Some((Disabled, 10)), 'd'),
            (Goal::Gone, 10, None, 'd'),
            (Goal::Gone, 11, None, 'w'),
        ] {
            assert_eq!(
                verdict(goal, since, report),
                expected,
                "{goal:?} {since} {report:?}"
            );
        }
    }

    #[test]
    fn where_nobody_is_alive_nothing_is_announced_and_nothing_is_left_unless_somebody_held_it() {
        let none = (BTreeMap::new(), BTreeMap::new());
        let mut gone = BTreeSet::new();
        let verdict = |goal, gone: &_| judge(goal, 10, &none.0, &none.1, gone);
        assert_eq!(verdict(Goal::Announced, &gone), Verdict::Waits(Vec::new()));
        assert_eq!(verdict(Goal::Gone, &gone), Verdict::Done);
        let gw: GatewayName = "gw-9".parse().unwrap();
        gone.insert(gw.clone());
        assert_eq!(verdict(Goal::Announced, &gone), Verdict::Waits(Vec::new()));
        match verdict(Goal::Gone, &gone) {
            Verdict::Waits(who) => {
                assert_eq!(who.len(), 1, "{who:?}");
                assert_eq!(who[0].0, gw);
                assert!(who[0].1.contains("ccn gateways forget gw-9"), "{who:?}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_gateways_count_and_those_that_fail_are_named_when_none_is_waited_for() {
        let (one, two): (GatewayName, GatewayName) =
            ("gw-1".parse().unwrap(), "gw-2".parse().unwrap());
        let gateways: BTreeMap<_, _> =
            [(one.clone(), gateway(10)), (two.clone(), gateway(10))].into();
        let said = |state, reason: Option<&str>| LinkReport {
            state,
            reason: reason.map(str::to_owned),
            generation: 10,
        };
        let mut reports: BTreeMap<_, _> =
            [(one.clone(), said(Progress::Failed, Some("full")))].into();
        let none = BTreeSet::new();
        let waits = judge(Goal::Announced, 10, &gateways, &reports, &none);
        assert!(
            matches!(&waits, Verdict::Waits(who) if who.len() == 2),
            "{waits:?}"
        );
        reports.insert(two, said(Progress::Announced, None));
        assert_eq!(
            judge(Goal::Announced, 10, &gateways, &reports, &none),
            Verdict::Failed(vec![(one, "failed: full".to_owned())])
        );
    }
}
