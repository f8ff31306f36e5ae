//! What the members of a group are to know of a path, and whether that differs in words from what
//! they know.

use super::told::{Told, words};
use crate::policy::Decision;
use crate::rib::export::ExportContext;
use crate::rib::paths::Path;
use crate::rib::select::Source;
use crate::rib::table::{RouteId, Table};
use crate::wire::{Family, Prefix};

/// Judges the best paths of the prefixes of one batch; remembers the last verdict, since neighbours
/// in a queue mostly came in one message. (No number of attributes is given out again meanwhile.)
#[derive(Debug, Default)]
pub(super) struct Judge {
    last: Option<(Told, bool)>,
    compared: Option<(Told, Told, bool)>,
}

impl Judge {
    /// What the members should know of the prefix now.
    pub(super) fn target(
        &mut self,
        context: &ExportContext,
        family: Family,
        id: RouteId,
        table: &Table,
    ) -> Told {
        let Some(path) = table.best(family, id) else {
            return Told::default();
        };
        self.path(context, family, &table.prefix(family, id), &path, table)
    }

    /// What the members should know of this path.
    pub(super) fn path(
        &mut self,
        context: &ExportContext,
        family: Family,
        prefix: &Prefix,
        path: &Path,
        table: &Table,
    ) -> Told {
        let known = table.attributes(path.attributes);
        let source = Source::from(path.source);
        let Decision::Permit(actions) = context.decide(prefix, known, source) else {
            return Told::default();
        };
        let told = Told {
            attributes: Some(path.attributes),
            source: path.source,
            actions,
        };
        let passes = match self.last {
            Some((last, passes)) if last == told => passes,
            _ => {
                let passes = context.passes(family, known, source, actions, table);
                self.last = Some((told, passes));
                passes
            }
        };
        match passes {
            true => told,
            false => Told::default(),
        }
    }

    /// Whether two sets of attributes come out the same for this peer.
    pub(super) fn says_the_same(
        &mut self,
        context: &ExportContext,
        family: Family,
        before: Told,
        after: Told,
        table: &Table,
    ) -> bool {
        if let Some((a, b, same)) = self.compared
            && (a, b) == (before, after)
        {
            return same;
        }
        let words = |told| words(context, family, told, table);
        let same = words(before) == words(after);
        self.compared = Some((before, after, same));
        same
    }
}
