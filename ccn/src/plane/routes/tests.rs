//! Laws of translation and reconciliation, against a kernel that is a map.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::Prefix;
use netlink::{IpNet, NextHop, Route, RuleAction};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::compose::{Host, IdcLink};
use super::layout::{Reason, priority};
use super::objects::{Key, Object, Operation, State};
use super::reconcile::{Steps, reconcile, reconcile_keys};
use super::translate::{MAX_VNIS, Translator};
use crate::plane::LearnedNextHops;
use crate::plane::entry::{EntryKey, EntryValue, Hop, ScopeId};
use crate::plane::model::DropReason;
use crate::record::{Mac, Mode, Vni};

const PROTOCOL: u8 = 77;

fn host() -> Host {
    let idc = |name: &str, index, net: &str| IdcLink {
        name: name.to_owned(),
        index,
        subnets: vec![net.parse().expect("a net")],
    };
    Host {
        protocol: PROTOCOL,
        vtep: "172.16.0.1".parse().expect("an address"),
        vxlan: "ccn0".to_owned(),
        vxlan_index: 10,
        drop_index: Reason::ALL.into_iter().zip(20..).collect(),
        idc: vec![
            idc("idc0", 2, "10.255.0.1/24"),
            idc("idc1", 3, "2001:db8:ff::1/64"),
        ],
    }
}

fn vni(number: u32) -> Vni {
    Vni::new(number).expect("a VNI")
}

fn vnis() -> impl Strategy<Value = Vni> {
    (1u32..5).prop_map(vni)
}

fn scopes() -> impl Strategy<Value = ScopeId> {
    (1u32..4).prop_map(|n| ScopeId(vni(n)))
}

fn prefixes(texts: &'static [&'static str]) -> impl Strategy<Value = Prefix> {
    select(texts).prop_map(|text| text.parse().expect("a prefix"))
}

fn subnets() -> impl Strategy<Value = Prefix> {
    prefixes(&[
        "192.168.0.0/24",
        "192.168.0.0/16",
        "192.168.0.5/32",
        "10.1.0.0/16",
        "fd00::/64",
    ])
}

fn classic() -> impl Strategy<Value = Prefix> {
    prefixes(&["10.7.0.0/16", "10.0.0.0/8", "10.7.7.7/32", "2001:db8::/32"])
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    select(&["192.168.0.5", "192.168.0.6", "10.1.0.1", "fd00::5"][..])
        .prop_map(|text| text.parse().expect("an address"))
}

fn hops() -> impl Strategy<Value = Hop> {
    (1u8..4, 1u8..4, 1u16..=256).prop_map(|(vtep, mac, weight)| Hop {
        vtep: IpAddr::from([172, 16, 1, vtep]),
        mac: Mac::new([2, 0, 0, 0, 1, mac]).expect("a MAC"),
        weight,
    })
}

fn entries() -> impl Strategy<Value = (EntryKey, EntryValue)> {
    let source = (vnis(), subnets(), scopes()).prop_map(|(vni, subnet, scope)| {
        (
            EntryKey::Source { vni, subnet },
            EntryValue::Source { scope },
        )
    });
    let endpoint =
        (scopes(), addresses(), vnis(), vec(hops(), 1..4)).prop_map(|(scope, addr, vni, hops)| {
            (
                EntryKey::Endpoint { scope, addr },
                EntryValue::Endpoint { vni, hops },
            )
        });
    let permit = (
        select(&["l1", "l2"][..]),
        vnis(),
        subnets(),
        classic(),
        scopes(),
    )
        .prop_map(|(link, vni, subnet, classic, scope)| {
            let link = link.parse().expect("a link id");
            (
                EntryKey::Permit {
                    link,
                    vni,
                    subnet,
                    classic,
                },
                EntryValue::Permit {
                    scope,
                    mode: Mode::Both,
                    dscp: None,
                },
            )
        });
    prop_oneof![source, endpoint, permit]
}

fn learned() -> impl Strategy<Value = (Prefix, LearnedNextHops)> {
    let prefix = prefixes(&[
        "0.0.0.0/0",
        "10.7.0.0/16",
        "10.7.7.0/24",
        "2001:db8::/32",
        "::/0",
    ]);
    let hop = select(&["10.255.0.2", "10.255.0.3", "2001:db8:ff::2", "198.51.100.1"][..])
        .prop_map(|text| text.parse().expect("an address"));
    (prefix, btree_set(hop, 0..3))
}

/// A change to what is desired.
#[derive(Debug, Clone)]
enum Step {
    Put(EntryKey, EntryValue),
    /// Removes one of the entries that are there.
    Remove(Index),
    Learn(Prefix, LearnedNextHops),
}

fn histories() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => entries().prop_map(|(key, value)| Step::Put(key, value)),
        2 => any::<Index>().prop_map(Step::Remove),
        1 => learned().prop_map(|(prefix, hops)| Step::Learn(prefix, hops)),
    ];
    vec(step, 0..40)
}

fn carry_out(
    translator: &mut Translator,
    learned: &mut BTreeMap<Prefix, LearnedNextHops>,
    step: &Step,
) {
    match step {
        Step::Put(key, value) => translator.put(key, value).expect("within the limits"),
        Step::Remove(index) => {
            let keys: Vec<_> = translator.entries().keys().cloned().collect();
            if !keys.is_empty() {
                translator.remove(index.get(&keys));
            }
        }
        Step::Learn(prefix, hops) => {
            // Next hops that are nowhere are refused in part, as they would be from scratch.
            let _ = translator.learn(*prefix, hops);
            learned.insert(*prefix, hops.clone());
        }
    }
}

fn translated(entries: &BTreeMap<EntryKey, EntryValue>) -> State {
    let mut translator = Translator::new(host());
    for (key, value) in entries {
        translator.put(key, value).expect("within the limits");
    }
    translator.settle();
    translator.desired().clone()
}

/// A kernel: objects of ours and of others, which it keeps apart only by what it is told.
#[derive(Debug, Clone, Default, PartialEq)]
struct ModelKernel {
    ours: State,
    /// Routes and rules of others, in our tables and at our priorities too.
    foreign: BTreeSet<Key>,
}

impl ModelKernel {
    /// As the kernel does it; a refusal is an error that names the object.
    fn take(&mut self, operation: &Operation) -> Result<(), String> {
        let key = operation.object().key();
        match operation {
            Operation::Add(object) => {
                // Rules differ by their owner; routes do not.
                let taken = matches!(key, Key::Route(..)) && self.foreign.contains(&key);
                if taken || self.ours.contains_key(&key) {
                    return Err(format!("{object} is there"));
                }
                self.ours.insert(key, object.clone());
            }
            Operation::Replace(object) => {
                // The kernel would replace whatever is there, a route of others as well.
                if self.ours.insert(key, object.clone()).is_none() {
                    return Err(format!("{object} is not ours to replace"));
                }
            }
            Operation::Delete(object) => {
                if self.ours.remove(&key).as_ref() != Some(object) {
                    return Err(format!("{object} is not there"));
                }
            }
        }
        Ok(())
    }

    fn run(&mut self, steps: &Steps) -> Result<(), String> {
        steps
            .phases
            .iter()
            .flatten()
            .try_for_each(|operation| self.take(operation))
    }
}

/// What must hold between any two operations: no rule leads into a table without a default route
/// (but for one table, after which a rule drops the rest), no route to a next hop without a MAC.
fn unsound(state: &State) -> Option<String> {
    for object in state.values() {
        match object {
            Object::Rule(rule) => {
                let RuleAction::Lookup(table) = rule.action else {
                    continue;
                };
                let default = state.keys().any(|key| {
                    matches!(key, Key::Route(of, net, _) if *of == table && net.prefix_len() == 0
                        && net.addr().is_ipv4() == (rule.family == netlink::Family::V4))
                });
                let falls_through = [Route::MAIN, Reason::NotLinkedSource.table()];
                if !falls_through.contains(&table) && !default {
                    return Some(format!("{rule} leads nowhere"));
                }
            }
            Object::Route(route) => {
                for hop in route.next_hops.iter().filter(|hop| hop.ifindex >= 10) {
                    let via = hop.via.expect("a next hop");
                    if !state.contains_key(&Key::Neighbour(hop.ifindex, via)) {
                        return Some(format!("{route} has a next hop without a MAC"));
                    }
                }
            }
            Object::Neighbour(_) => {}
        }
    }
    None
}

/// A starting state that has something to do with `desired`: some of it missing, some of it
/// different, and other objects of ours beside it.
fn damage(desired: &State, other: &State, picks: &[u8]) -> State {
    let mut state = State::new();
    for ((key, object), pick) in desired.iter().zip(picks.iter().cycle()) {
        let object = match (pick % 4, object) {
            (0, _) => continue,
            (1, Object::Route(route)) => {
                let next_hops = vec![NextHop::via("fe80::bad".parse().expect("an address"), 99)];
                Object::route(Route {
                    next_hops,
                    ..(**route).clone()
                })
            }
            _ => object.clone(),
        };
        state.insert(key.clone(), object);
    }
    for ((key, object), pick) in other.iter().zip(picks.iter().rev().cycle()) {
        if pick % 2 == 0 {
            state.entry(key.clone()).or_insert_with(|| object.clone());
        }
    }
    state
}

proptest! {
    #[test]
    fn incremental_translation_equals_from_scratch(history in histories()) {
        let mut translator = Translator::new(host());
        translator.settle();
        let mut before = translator.desired().clone();
        let mut learned = BTreeMap::new();
        for step in &history {
            carry_out(&mut translator, &mut learned, step);
            let touched = translator.settle();
            let steps = reconcile_keys(touched.iter(), &before, translator.desired());
            prop_assert_eq!(&steps, &reconcile(&before, translator.desired()), "what was touched suffices");
            before = translator.desired().clone();
        }
        let mut scratch = Translator::new(host());
        for (key, value) in translator.entries() {
            scratch.put(key, value).expect("within the limits");
        }
        for (prefix, hops) in &learned {
            let _ = scratch.learn(*prefix, hops);
        }
        scratch.settle();
        prop_assert_eq!(scratch.desired(), translator.desired());
        prop_assert_eq!((scratch.vnis(), scratch.endpoints()), (translator.vnis(), translator.endpoints()));
        // Nothing is left of entries when they are all gone.
        for key in translator.entries().keys().cloned().collect::<Vec<_>>() {
            translator.remove(&key);
        }
        for prefix in learned.keys() {
            let _ = translator.learn(*prefix, &LearnedNextHops::new());
        }
        translator.settle();
        let mut empty = Translator::new(host());
        empty.settle();
        prop_assert_eq!(translator.desired(), empty.desired());
        prop_assert_eq!((translator.vnis(), translator.endpoints()), (0, 0));
    }

    #[test]
    fn from_any_state_the_reconciler_ends_at_desired(
        wanted in vec(entries(), 0..12),
        stale in vec(entries(), 0..12),
        picks in vec(any::<u8>(), 1..50),
        foreign in vec(any::<Index>(), 0..6),
    ) {
        let desired = translated(&wanted.into_iter().collect());
        let other = translated(&stale.into_iter().collect());
        let ours = damage(&desired, &other, &picks);
        // Others may have anything but the very route we want; rules they may have even then.
        let elsewhere: Vec<Key> =
            other.keys().filter(|key| !desired.contains_key(key) && !ours.contains_key(key)).cloned()
                .chain(desired.keys().filter(|key| matches!(key, Key::Rule(_))).cloned())
                .collect();
        let foreign: BTreeSet<Key> = foreign.iter().map(|index| index.get(&elsewhere).clone()).collect();
        let mut kernel = ModelKernel { ours, foreign: foreign.clone() };
        let steps = reconcile(&kernel.ours, &desired);
        kernel.run(&steps).map_err(TestCaseError::fail)?;
        prop_assert_eq!(&kernel.ours, &desired);
        prop_assert_eq!(&kernel.foreign, &foreign);
        prop_assert_eq!(reconcile(&kernel.ours, &desired).len(), 0, "twice in a row changes nothing");
        // And everything can be taken away.
        kernel.run(&reconcile(&kernel.ours, &State::new())).map_err(TestCaseError::fail)?;
        prop_assert_eq!(kernel, ModelKernel { ours: State::new(), foreign });
    }

    #[test]
    fn no_step_of_a_change_breaks_what_stays(
        before in vec(entries(), 0..12),
        after in vec(entries(), 0..12),
    ) {
        let before = translated(&before.into_iter().collect());
        let after = translated(&after.into_iter().collect());
        prop_assert_eq!(unsound(&before), None);
        prop_assert_eq!(unsound(&after), None);
        let mut kernel = ModelKernel { ours: before.clone(), foreign: BTreeSet::new() };
        for operation in reconcile(&before, &after).phases.iter().flatten() {
            kernel.take(operation).map_err(TestCaseError::fail)?;
            prop_assert_eq!(unsound(&kernel.ours), None, "after {:?}", operation);
            for (key, object) in &after {
                if before.get(key) == Some(object) {
                    prop_assert_eq!(kernel.ours.get(key), Some(object));
                }
            }
        }
        prop_assert_eq!(kernel.ours, after);
    }

    #[test]
    fn scopes_never_mix(all in vec(entries(), 0..20)) {
        let entries: BTreeMap<EntryKey, EntryValue> = all.into_iter().collect();
        let state = translated(&entries);
        for object in state.values() {
            let Object::Rule(rule) = object else { continue };
            let own = rule.priority >= priority::OWN_TO_VPC && rule.priority < priority::OWN_TO_IDC;
            let (true, Some(to), RuleAction::Lookup(table)) = (own, rule.to, rule.action) else { continue };
            // What we send on our own account never leads where another scope has such addresses.
            for (key, value) in &entries {
                let (EntryKey::Source { subnet, .. }, EntryValue::Source { scope }) = (key, value)
                else { continue };
                let net = IpNet::from(*subnet);
                let overlaps = net.contains(&to) || to.contains(&net);
                prop_assert!(!overlaps || super::layout::scope_table(*scope) == table, "{} {}", rule, key);
            }
        }
    }
}

#[test]
fn a_limit_refuses_the_new_and_keeps_the_old() {
    let subnet = "10.0.0.0/8".parse::<Prefix>().expect("a prefix");
    let source = |n: u32| {
        let scope = ScopeId(vni(n));
        (
            EntryKey::Source {
                vni: vni(n),
                subnet,
            },
            EntryValue::Source { scope },
        )
    };
    let mut translator = Translator::new(host());
    for n in 1..=MAX_VNIS as u32 {
        let (key, value) = source(n);
        translator.put(&key, &value).expect("room");
    }
    translator.settle();
    let before = translator.desired().clone();
    let (key, value) = source(9_999);
    let reason = translator.put(&key, &value).expect_err("one too many");
    assert!(
        reason.contains("256 VNIs") && reason.contains("9999"),
        "{reason}"
    );
    assert!(translator.settle().is_empty());
    assert_eq!(translator.desired(), &before);
    // What is there may change, and what goes makes room.
    let scope = ScopeId(vni(1));
    translator
        .put(&source(2).0, &EntryValue::Source { scope })
        .expect("not a new VNI");
    translator.remove(&source(1).0);
    translator.put(&key, &value).expect("room again");
    assert_eq!(translator.vnis(), MAX_VNIS);
}

#[test]
fn what_the_plane_cannot_do_is_refused_with_the_reason() {
    let permit = |mode, dscp| {
        let key = EntryKey::Permit {
            link: "l1".parse().expect("a link id"),
            vni: vni(1),
            subnet: "10.0.0.0/16".parse().expect("a prefix"),
            classic: "10.7.0.0/16".parse().expect("a prefix"),
        };
        (
            key,
            EntryValue::Permit {
                scope: ScopeId(vni(1)),
                mode,
                dscp,
            },
        )
    };
    let endpoint = |hops| {
        let addr = "10.0.0.1".parse().expect("an address");
        (
            EntryKey::Endpoint {
                scope: ScopeId(vni(1)),
                addr,
            },
            EntryValue::Endpoint { vni: vni(1), hops },
        )
    };
    let cases = [
        (permit(Mode::ClassicToVpc, None), "flow state"),
        (permit(Mode::Both, Some(46)), "DSCP"),
        (endpoint(Vec::new()), "1 to 256 places"),
        (
            (permit(Mode::Both, None).0, endpoint(Vec::new()).1),
            "kind of entry",
        ),
    ];
    for ((key, value), want) in cases {
        let mut translator = Translator::new(host());
        translator.settle();
        let reason = translator.put(&key, &value).expect_err("refused");
        assert!(reason.contains(want), "{reason}");
        assert!(translator.settle().is_empty() && translator.entries().is_empty());
    }
    let mut translator = Translator::new(host());
    let far = BTreeSet::from(["198.51.100.1".parse().expect("an address")]);
    let prefix = "10.7.0.0/16".parse().expect("a prefix");
    let reason = translator.learn(prefix, &far).expect_err("unreachable");
    assert!(
        reason.contains("198.51.100.1") && reason.contains("idc0, idc1"),
        "{reason}"
    );
}

#[test]
fn drop_reasons_have_the_names_of_the_contract() {
    for reason in Reason::ALL {
        assert!(
            DropReason::ALL.iter().any(|r| r.as_str() == reason.name()),
            "{}",
            reason.name()
        );
    }
}

#[test]
fn a_forecast_is_what_permits_take() {
    let scope = ScopeId(vni(1));
    let prefix = |text: &str| text.parse::<Prefix>().expect("a prefix");
    let permit = |link: &str, classic: &str| {
        let key = EntryKey::Permit {
            link: link.parse().expect("a link id"),
            vni: vni(1),
            subnet: prefix("10.1.0.0/24"),
            classic: prefix(classic),
        };
        let value = EntryValue::Permit {
            scope,
            mode: Mode::Both,
            dscp: None,
        };
        (key, value)
    };
    let mut translator = Translator::new(host());
    let source = EntryKey::Source {
        vni: vni(1),
        subnet: prefix("10.1.0.0/24"),
    };
    translator
        .put(&source, &EntryValue::Source { scope })
        .expect("room");
    for permits in [
        BTreeMap::from([permit("l1", "10.80.1.0/24"), permit("l1", "10.80.2.0/24")]),
        // The first link has brought what a subnet takes once.
        BTreeMap::from([permit("l2", "10.80.3.0/24")]),
        BTreeMap::from([permit("l2", "10.80.3.0/24")]),
    ] {
        translator.settle();
        let before = translator.desired().clone();
        let forecast = translator.forecast(&permits);
        assert_eq!(translator.desired(), &before, "nothing is changed");
        for (key, value) in &permits {
            translator.put(key, value).expect("room");
        }
        translator.settle();
        let new = translator.desired().len() - before.len();
        assert_eq!(forecast.values().sum::<u64>(), new as u64, "{forecast:?}");
    }
}
