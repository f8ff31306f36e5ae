//! The shell around the reconciler: reads our objects out of the kernel and carries out operations.
//!
//! It decides nothing but what a refusal of the kernel means.

use std::collections::BTreeMap;

use netlink::{BatchError, Errno, Failure, Request, RouteFilter, Socket};

use super::devices::failed;
use super::known::Known;
use super::objects::{Key, Object, Operation, State};
use super::reconcile::{ADD_RULES, Steps};
use crate::plane::PlaneError;

/// Reads what is ours: routes and rules by protocol number, neighbours by that on our devices, which
/// are given by index.
pub(crate) fn read(
    socket: &mut Socket,
    protocol: u8,
    devices: &[u32],
) -> Result<State, PlaneError> {
    let filter = RouteFilter {
        protocol: Some(protocol),
        ..RouteFilter::default()
    };
    let routes = socket
        .routes(&filter)
        .map_err(|error| failed("read the routes", error))?;
    let mut objects: Vec<Object> = routes.into_iter().map(Object::route).collect();
    let rules = socket
        .rules(Some(protocol))
        .map_err(|error| failed("read the rules", error))?;
    objects.extend(rules.into_iter().map(Object::rule));
    for ifindex in devices {
        let found = socket
            .neighbours(*ifindex)
            .map_err(|error| failed("read the neighbours", error))?;
        let ours = found.into_iter().filter(|n| n.protocol == protocol);
        objects.extend(ours.map(Object::Neighbour));
    }
    Ok(objects
        .into_iter()
        .map(|object| (object.key(), object))
        .collect())
}

/// Carries out the steps and keeps `known` in line with what the kernel took. Answers which objects
/// were refused, with the kernel's words.
pub(crate) fn run(
    socket: &mut Socket,
    steps: Steps,
    known: &mut Known,
) -> Result<BTreeMap<Key, String>, PlaneError> {
    let mut refused: BTreeMap<Key, String> = BTreeMap::new();
    for (phase, mut operations) in steps.phases.into_iter().enumerate() {
        if phase == ADD_RULES {
            operations.retain(|operation| leads_somewhere(operation, &mut refused));
        }
        let requests: Vec<Request> = operations.iter().map(Operation::request).collect();
        let failures = match socket.batch(&requests) {
            Ok(()) => Vec::new(),
            Err(BatchError::Refused { failures, .. }) => failures,
            Err(BatchError::Unknown(error)) => {
                return Err(failed("change the kernel's state", error));
            }
        };
        let failures: BTreeMap<usize, Failure> = failures
            .into_iter()
            .map(|failure| (failure.index, failure))
            .collect();
        for (index, operation) in operations.into_iter().enumerate() {
            match failures
                .get(&index)
                .and_then(|failure| reason(&operation, failure))
            {
                Some(reason) => {
                    refused.insert(operation.object().key(), reason);
                }
                None => known.carried_out(operation),
            }
        }
    }
    Ok(refused)
}

/// A rule is not added while the default route of its table is missing: packets would fall through
/// to the rules after it instead of being dropped.
fn leads_somewhere(operation: &Operation, refused: &mut BTreeMap<Key, String>) -> bool {
    let Object::Rule(rule) = operation.object() else {
        return true;
    };
    let netlink::RuleAction::Lookup(table) = rule.action else {
        return true;
    };
    let default = refused
        .keys()
        .any(|key| matches!(key, Key::Route(of, net, _) if *of == table && net.prefix_len() == 0));
    if default {
        let reason = format!("not added: table {table} has no default route");
        refused.insert(operation.object().key(), reason);
    }
    !default
}

/// Why the operation failed; `None` if its aim is reached all the same.
fn reason(operation: &Operation, failure: &Failure) -> Option<String> {
    match (operation, failure.errno) {
        (Operation::Delete(_), Errno::ESRCH | Errno::ENOENT | Errno::ENODEV) => None,
        (Operation::Add(_), Errno::EEXIST) => {
            Some(format!("{failure}: one of another owner is in its place"))
        }
        _ => Some(failure.to_string()),
    }
}
