//! Actual against desired: the operations that turn one into the other, in the order that never
//! leaves a packet without a way it had before and will have after.
//!
//! Pure. What is in neither state is nobody's business here.

use super::objects::{Key, Object, Operation, State};

/// Operations, make before break: neighbours, then routes that use them, then rules that lead to
/// those; and back: rules, routes, neighbours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    /// Each is carried out, and its outcome looked at, before the next begins.
    pub(crate) phases: [Vec<Operation>; 6],
}

/// Index of the phase that adds rules: it looks at what came of the routes.
pub(crate) const ADD_RULES: usize = 2;

impl Steps {
    /// Takes the second half out: what deletes.
    pub(crate) fn take_deletions(&mut self) -> Steps {
        let mut deletions = Steps::default();
        let first = self.phases.len() / 2;
        for (phase, its) in self
            .phases
            .iter_mut()
            .zip(&mut deletions.phases)
            .skip(first)
        {
            std::mem::swap(phase, its);
        }
        deletions
    }

    /// How many operations.
    pub(crate) fn len(&self) -> usize {
        self.phases.iter().map(Vec::len).sum()
    }
}

/// The operations that turn `actual` into `desired`.
pub(crate) fn reconcile(actual: &State, desired: &State) -> Steps {
    reconcile_keys(keys_of_either(actual, desired), actual, desired)
}

/// The objects of two states, each once.
pub(crate) fn keys_of_either<'a>(
    actual: &'a State,
    desired: &'a State,
) -> impl Iterator<Item = &'a Key> {
    let missing = desired.keys().filter(|key| !actual.contains_key(key));
    actual.keys().chain(missing)
}

/// The same for these keys only, each given once.
pub(crate) fn reconcile_keys<'a>(
    keys: impl Iterator<Item = &'a Key>,
    actual: &State,
    desired: &State,
) -> Steps {
    let mut steps = Steps::default();
    for key in keys {
        let operation = match (actual.get(key), desired.get(key)) {
            (None, None) => continue,
            (Some(is), Some(shall)) if is == shall => continue,
            (None, Some(shall)) => Operation::Add(shall.clone()),
            (Some(_), Some(shall)) => Operation::Replace(shall.clone()),
            (Some(is), None) => Operation::Delete(is.clone()),
        };
        steps.phases[phase(&operation)].push(operation);
    }
    let [_, _, add_rules, delete_rules, delete_routes, _] = &mut steps.phases;
    // What drops the rest stands before what lets some pass, and falls after it.
    add_rules.sort_by_key(|operation| std::cmp::Reverse(rank(operation)));
    delete_rules.sort_by_key(rank);
    delete_routes.sort_by_key(|operation| std::cmp::Reverse(rank(operation)));
    steps
}

fn phase(operation: &Operation) -> usize {
    match operation {
        Operation::Add(object) | Operation::Replace(object) => match object {
            Object::Neighbour(_) => 0,
            Object::Route(_) => 1,
            Object::Rule(_) => ADD_RULES,
        },
        Operation::Delete(object) => match object {
            Object::Rule(_) => 3,
            Object::Route(_) => 4,
            Object::Neighbour(_) => 5,
        },
    }
}

/// Priority of a rule, prefix length of a route.
fn rank(operation: &Operation) -> u32 {
    match operation.object() {
        Object::Rule(rule) => rule.priority,
        Object::Route(route) => route.prefix.prefix_len().into(),
        Object::Neighbour(_) => 0,
    }
}
