//! Policies that change while sessions are up: what is known is judged anew, without a reset.

use std::time::Instant;

use super::rib::Rib;
use super::session::Session;
use super::{Core, UnknownPeer};
use crate::policy::{ActionsId, Decision, ExportPolicy, ImportPolicy};
use crate::rib::paths::Flags;
use crate::rib::select::Source;
use crate::wire::Family;

/// What became of a change of the policies of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyChange {
    /// They are the same as before.
    None,
    /// They apply to everything.
    Applied,
    /// What goes out is as they say. The peer was asked to tell its routes again (RFC 2918), since
    /// some are not known as it told them; until it has, they are as the earlier policy left them.
    RefreshRequested,
    /// What goes out is as they say. Routes that the earlier policy refused or changed stay so
    /// until the session is reset: the peer cannot be asked for them.
    ResetNeeded,
}

impl Core {
    /// Changes the policies of peers, all at once. Sessions stay.
    ///
    /// # Errors
    /// When no peer has one of the names; then nothing is changed.
    pub fn set_policies(
        &mut self,
        changes: Vec<(String, ImportPolicy, ExportPolicy)>,
        now: Instant,
    ) -> Result<Vec<PolicyChange>, UnknownPeer> {
        self.now = now;
        let known = |name: &str| {
            let found = self.index_of(name);
            found.ok_or_else(|| UnknownPeer(name.to_owned()))
        };
        let indices = changes.iter().map(|(name, ..)| known(name));
        let indices: Vec<usize> = indices.collect::<Result<_, _>>()?;

        let all = indices.into_iter().zip(changes);
        let outcomes =
            all.map(|(index, (_, import, export))| self.set_policies_of(index, import, export));
        let outcomes = outcomes.collect();
        self.changed();
        Ok(outcomes)
    }

    fn set_policies_of(
        &mut self,
        index: usize,
        import: ImportPolicy,
        export: ExportPolicy,
    ) -> PolicyChange {
        let config = &mut self.peers[index].config;
        let same_import = config.import == import;
        if same_import && config.export == export {
            return PolicyChange::None;
        }
        config.import = import;
        config.export = export;
        self.judge_anew(index, !same_import)
    }

    /// Lets the policies that a peer has now act on what its session has told, and, if `import`
    /// says so, on what it has brought. What changed is still to be passed on.
    pub(super) fn judge_anew(&mut self, index: usize, import: bool) -> PolicyChange {
        let before = import.then(|| self.before_judging(index)).flatten();
        let peer = &mut self.peers[index];
        // It is told the difference.
        peer.regroup(&self.local, &mut self.rib);
        let Some(session) = peer.session.as_mut().filter(|_| import) else {
            return PolicyChange::Applied;
        };
        let complete = session.set_import(peer.config.import.clone(), &mut self.rib);
        self.tap_accepted(index, before);
        if complete {
            return PolicyChange::Applied;
        }
        let peer = &mut self.peers[index];
        let asked = peer.ask_routes(&mut self.outputs).is_ok();
        if let Some(session) = &mut peer.session {
            session.policy_waits = !asked;
        }
        match asked {
            true => PolicyChange::RefreshRequested,
            false => PolicyChange::ResetNeeded,
        }
    }
}

impl Session {
    /// Takes the routes of the peer by this policy from now on, and those it told already as far
    /// as they are known as it told them. Whether that is all of them.
    fn set_import(&mut self, import: ImportPolicy, rib: &mut Rib) -> bool {
        let before = std::mem::replace(&mut self.policy, import);
        let source = Source::Peer(self.index);
        for family in Family::ALL {
            for (nlri, path) in rib.table.paths_from(family, source) {
                let attributes = rib.table.attributes(path.attributes).clone();
                let decision = self.policy.decide(&nlri.prefix, &attributes);
                match decision {
                    Decision::Deny => {
                        self.adj_in.judge(nlri, None, || decision, || false);
                        rib.withdraw(nlri, source);
                    }
                    Decision::Permit(ActionsId::UNCHANGED) => {}
                    // Stale routes are told again anyway, or go.
                    Decision::Permit(actions)
                        if !before.changes_routes() && !path.flags.contains(Flags::STALE) =>
                    {
                        let changed = self.import.changed(&self.policy, actions, &attributes);
                        rib.announce(nlri, source, changed);
                    }
                    Decision::Permit(_) => {}
                }
            }
        }
        // Of routes that were refused only the prefix is known.
        before == ImportPolicy::All || self.policy == ImportPolicy::None
    }
}
