//! What this gateway tells the others of its links, whenever that changes.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc;

use super::View;
use crate::order::LinkPhase;
use crate::record::{LinkId, LinkReport, Progress, Record, RecordKey};

/// A link, and how far it has come here; none when this gateway has nothing to do with it.
pub type Told = (LinkId, Option<LinkReport>);

/// Who is told, and what was told last.
#[derive(Debug, Default)]
pub(super) struct Reports {
    listener: Option<mpsc::UnboundedSender<Told>>,
    /// Links whose records changed, which are reported also where they stay as they are.
    changed: BTreeSet<LinkId>,
    last: BTreeMap<LinkId, LinkReport>,
}

impl Reports {
    /// Tells this one from now on. One message a change of a link: whoever listens keeps the last of each.
    pub(super) fn listen(&mut self) -> mpsc::UnboundedReceiver<Told> {
        let (listener, told) = mpsc::unbounded_channel();
        self.listener = Some(listener);
        told
    }

    /// The records of these links changed.
    pub(super) fn changed<'a>(&mut self, links: impl Iterator<Item = &'a LinkId>) {
        if self.listener.is_some() {
            self.changed.extend(links.cloned());
        }
    }

    /// Tells how far these have come, and those whose records changed.
    pub(super) fn tell(&mut self, moved: BTreeSet<LinkId>, view: &View<'_>) {
        let Some(listener) = &self.listener else {
            return;
        };
        let changed = std::mem::take(&mut self.changed);
        for id in moved.union(&changed) {
            let report = report(id, view, self.last.contains_key(id));
            let last = self.last.get(id);
            let same = match (&report, last) {
                (Some(report), Some(last)) => {
                    (report.state, &report.reason) == (last.state, &last.reason)
                }
                (None, None) => true,
                _ => false,
            };
            if same && !changed.contains(id) {
                continue;
            }
            match &report {
                Some(report) if report.state != Progress::Removed => {
                    self.last.insert(id.clone(), report.clone());
                }
                _ => {
                    self.last.remove(id);
                }
            }
            // Nobody listens any more when the agent stops.
            let _ = listener.send((id.clone(), report));
        }
    }
}

/// How far a link has come; none where it is another group's and always was.
fn report(id: &LinkId, view: &View<'_>, was_told: bool) -> Option<LinkReport> {
    let key = RecordKey::Link(id.clone());
    let phase = view.order.link(id);
    let said = |state, reason| {
        Some(LinkReport {
            state,
            reason,
            generation: view.generation,
        })
    };
    let own = match view.inventory.record(&key) {
        Some(Record::Link(link)) => (link.group == view.facts.group).then_some(link),
        _ => None,
    };
    let Some(link) = own else {
        return match phase {
            Some(_) => said(Progress::Removing, None),
            None if was_told => said(Progress::Removed, None),
            None => None,
        };
    };
    if let [fault, ..] = view.inventory.faults(&key) {
        let reason = format!("{}: {}", fault.field, fault.reason);
        return said(Progress::Conflict, Some(reason));
    }
    match phase {
        None if !link.disabled && view.inventory.stands_by(id).is_some() => {
            let why = view.inventory.stands_by(id).map(ToString::to_string);
            said(Progress::Standby, why)
        }
        None if link.disabled => said(Progress::Disabled, None),
        Some(_) if link.disabled => said(Progress::Removing, None),
        Some(LinkPhase::Pending) => said(Progress::Pending, None),
        Some(LinkPhase::Drained) => said(Progress::Drained, None),
        Some(LinkPhase::Programmed) => said(Progress::Programmed, None),
        // A VPC without subnets has nothing to announce.
        Some(LinkPhase::Announced) | None => said(Progress::Announced, None),
        // The new shape of it has not begun.
        Some(LinkPhase::Removing) => said(Progress::Removing, None),
        Some(LinkPhase::Failed(reason)) => said(Progress::Failed, Some(reason)),
    }
}
