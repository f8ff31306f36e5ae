//! The kernel's routing as the programs ask for it: routes learned from the IDC in a table of their
//! own, and a rule that leads there what comes in by the VXLAN device.
//!
//! Nothing but an IDC router is ever found for that: what no router announced is unreachable. For what
//! comes in from the IDC nothing is found at all but this host.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bgp::Prefix;
use netlink::{Family, IpNet, Journal, Route, RouteKind, Rule, Socket};

use super::layout::STACK_MARK;
use crate::plane::routes::compose::Host;
use crate::plane::routes::keeper::{Keeper, Wrong};
use crate::plane::routes::kernel;
use crate::plane::routes::layout::{IDC_TABLE, METRIC, NOWHERE_TABLE, priority};
use crate::plane::routes::objects::{Key, Object, State};
use crate::plane::routes::reconcile::{Steps, reconcile};
use crate::plane::{Applied, Batch, Desired, LearnedNextHops, PlaneError};

/// Metric of what no router can say anything about.
const FIRST: u32 = 1;
/// Metric of what is only asked when no router has announced anything.
const LAST: u32 = u32::MAX;

/// What is known of the kernel's routing between two calls.
#[derive(Debug)]
pub(crate) struct Routing {
    host: Host,
    desired: State,
    keeper: Keeper,
    /// What has to go, once nothing uses it any more.
    leaving: Steps,
}

impl Routing {
    /// Reads everything and adds what is missing. What has to go stays until [`Routing::finish`].
    pub(crate) fn begin(
        socket: &mut Socket,
        host: Host,
        own: &BTreeSet<IpAddr>,
        desired: &Desired,
        applied: &mut Applied,
    ) -> Result<(Routing, Wrong), PlaneError> {
        let actual = kernel::read(socket, host.protocol, &host.devices())?;
        let mut shall = always(&host, own, finds_tables_by_number());
        for (prefix, hops) in &desired.learned {
            learn(&host, &mut shall, *prefix, hops, applied);
        }
        let mut kept = BTreeSet::new();
        let mut with_kept = shall.clone();
        if desired.keep_unknown_learned {
            for (key, object) in &actual {
                if is_learned(&host, key, object) && !shall.contains_key(key) {
                    kept.insert(key.clone());
                    with_kept.insert(key.clone(), object.clone());
                }
            }
        }
        let mut steps = reconcile(&actual, &with_kept);
        applied.operations += steps.len();
        let leaving = steps.take_deletions();
        let leads_to = host.idc.iter().map(|link| link.index);
        let mut keeper = Keeper::new(host.protocol, host.devices(), leads_to, actual, kept);
        let wrong = keeper.run(socket, steps)?;
        let routing = Routing {
            host,
            desired: shall,
            keeper,
            leaving,
        };
        Ok((routing, wrong))
    }

    /// The host around the programs.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Takes away what has to go, and reads back if anything was changed.
    pub(crate) fn finish(
        &mut self,
        socket: &mut Socket,
        journal: &mut Journal,
        mut wrong: Wrong,
        applied: &mut Applied,
    ) -> Result<(), PlaneError> {
        let leaving = std::mem::take(&mut self.leaving);
        wrong.extend(self.keeper.run(socket, leaving)?);
        if applied.operations > 0 {
            let different = self.keeper.read_anew(socket, journal, &self.desired)?;
            self.keeper
                .note_differences(&different, &self.desired, &mut wrong);
        }
        self.report(wrong, applied)
    }

    /// Applies changes of learned routes, and mends what has changed otherwise.
    pub(crate) fn apply(
        &mut self,
        socket: &mut Socket,
        journal: &mut Journal,
        batch: &Batch,
        applied: &mut Applied,
    ) -> Result<(), PlaneError> {
        let mut touched = BTreeSet::new();
        for (prefix, hops) in &batch.learned {
            let key = learn(&self.host, &mut self.desired, *prefix, hops, applied);
            // What a router now says about a kept route is worth more than that it was there.
            self.keeper.forget_kept(&key);
            touched.insert(key);
        }
        let (operations, wrong) =
            self.keeper
                .bring(socket, journal, &self.desired, touched, batch.verify)?;
        applied.operations += operations;
        self.report(wrong, applied)
    }

    fn report(&mut self, wrong: Wrong, applied: &mut Applied) -> Result<(), PlaneError> {
        self.keeper.leave_open(&wrong);
        for (key, reason) in wrong {
            let Some(prefix) = learned_prefix(&key) else {
                // Without the rules and the last resort nothing is sure.
                return Err(PlaneError::Kernel {
                    action: "verify the kernel's routing".to_owned(),
                    detail: reason,
                });
            };
            applied.learned_failures.entry(prefix).or_insert(reason);
        }
        Ok(())
    }
}

/// Sets the next hops of a learned prefix in the desired state; none takes it out.
fn learn(
    host: &Host,
    desired: &mut State,
    prefix: Prefix,
    hops: &LearnedNextHops,
    applied: &mut Applied,
) -> Key {
    let (route, unusable) = host.learned_route(prefix, hops);
    let key = Key::Route(IDC_TABLE, prefix.into(), METRIC);
    match route {
        Some(route) => drop(desired.insert(key.clone(), route)),
        None => drop(desired.remove(&key)),
    }
    if let Some(reason) = unusable {
        applied.learned_failures.insert(prefix, reason);
    }
    key
}

fn is_learned(host: &Host, key: &Key, object: &Object) -> bool {
    let Object::Route(route) = object else {
        return false;
    };
    // The other plane's last resort leads to no router.
    let is_idc = |index: u32| host.idc.iter().any(|link| link.index == index);
    let leads = route.next_hops.iter().all(|hop| is_idc(hop.ifindex));
    learned_prefix(key).is_some() && route.kind == RouteKind::Unicast && leads
}

fn learned_prefix(key: &Key) -> Option<Prefix> {
    match key {
        Key::Route(IDC_TABLE, net, METRIC) => Prefix::try_from(*net).ok(),
        _ => None,
    }
}

/// Whether programs can ask a table by its number, as far as the kernel's version tells. Older kernels find
/// the IDC's table by a rule, and so does then whatever else comes in by the VXLAN device.
fn finds_tables_by_number() -> bool {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_owned());
    let release = release.unwrap_or_default();
    let mut numbers = release
        .to_str()
        .unwrap_or_default()
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(5))
}

/// What is there whatever is learned. No VM reaches an address of this host (`own`), also where a router
/// announces its subnet: programs that ask this table alone do not see the table of local addresses.
fn always(host: &Host, own: &BTreeSet<IpAddr>, tables_by_number: bool) -> State {
    let mut list = Vec::new();
    for addr in own {
        list.push(Object::route(Route {
            table: IDC_TABLE,
            metric: FIRST,
            protocol: host.protocol,
            kind: RouteKind::Blackhole,
            next_hops: Vec::new(),
            ..Route::new(IpNet::from(*addr), netlink::NextHop::dev(0))
        }));
    }
    for family in Family::BOTH {
        let last = |table, metric, kind| {
            Object::route(Route {
                table,
                metric,
                protocol: host.protocol,
                kind,
                next_hops: Vec::new(),
                ..Route::new(family.everything(), netlink::NextHop::dev(0))
            })
        };
        list.push(last(IDC_TABLE, LAST, RouteKind::Unreachable));
        // A rule that itself says blackhole would answer programs as for an address of this host.
        list.push(last(NOWHERE_TABLE, METRIC, RouteKind::Blackhole));
        let rule = |name: &str, at, table| Rule {
            iif: Some(name.to_owned()),
            protocol: host.protocol,
            ..Rule::lookup(family, at, table)
        };
        let mut rules = Vec::new();
        for link in &host.idc {
            rules.push(rule(&link.name, priority::EBPF_FROM_IDC, NOWHERE_TABLE));
        }
        let from_vpc = rule(&host.vxlan, priority::EBPF_FROM_VPC, IDC_TABLE);
        if tables_by_number {
            rules.push(Rule {
                mark: Some(STACK_MARK),
                ..from_vpc
            });
            rules.push(rule(&host.vxlan, priority::EBPF_UNMARKED, NOWHERE_TABLE));
        } else {
            rules.push(from_vpc);
        }
        list.extend(rules.into_iter().map(Object::rule));
    }
    list.into_iter()
        .map(|object| (object.key(), object))
        .collect()
}
