//! What to do on what the cluster says while its changes are followed, without I/O.
//!
//! Every change after a place is told once and in order, over any number of lost connections, or it is said
//! that some can no longer be had. A cluster that is not the one whose changes were told (another one, or one
//! that went back: a restored backup) is never followed on.

use std::sync::Arc;
use std::time::Duration;

use crate::store::{Commit, Generation, Restored, WatchEvent};

/// The first pause after a connection was lost.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The last commit of ours at some place: when it was, and its mark. Two histories that differ do so in this.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fence {
    /// Its revision; 0 when there was none yet.
    pub revision: Generation,
    /// Made from the mark that it left.
    pub mark: u64,
}

/// A place in the history of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which cluster.
    pub cluster: u64,
    /// The term of its leader: it never goes back in one history.
    pub term: u64,
    /// The revision.
    pub revision: Generation,
    /// The last commit of ours up to there, if it is known.
    pub fence: Option<Fence>,
}

impl Place {
    /// Whether a cluster that is at `found` now was here before; why not. `then` is the last commit of ours up to
    /// here as the cluster knows it, if it still does.
    ///
    /// # Errors
    /// It went back, or is another one.
    pub fn leads_to(self, found: Place, then: Option<Fence>) -> Result<(), Restored> {
        let revision = |fence: Option<Fence>| fence.map_or(0, |fence| fence.revision);
        let is_later = found.revision >= self.revision
            && found.term >= self.term
            && (found.fence.is_none() || revision(found.fence) >= revision(self.fence));
        let is_same = match (self.fence, then) {
            (Some(seen), Some(then)) => seen == then,
            _ => true,
        } && found.cluster == self.cluster;
        if is_later && is_same {
            return Ok(());
        }
        Err(Restored {
            seen: self.revision,
            found: found.revision,
            other_cluster: found.cluster != self.cluster,
        })
    }
}

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A majority says where the cluster is, and what it knows of the place that was seen last.
    At(Place, Option<Fence>),
    /// The watch has begun.
    Begun,
    /// What changed, by revision, and which of it is a commit of ours.
    Changes(Vec<(Commit, Option<Fence>)>),
    /// The watch asked for what was compacted away, or said more at once than can be taken in.
    TooFarBehind,
    /// There is no connection, or the watch ended.
    Broken(String),
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// After this time, ask where the cluster is.
    Ask(Duration),
    /// Begin a watch at this revision.
    Begin(Generation),
    /// Take what the watch says.
    Listen,
    /// Nothing any more.
    End,
}

/// Follows a cluster from a place on.
#[derive(Debug, Clone)]
pub struct Follow {
    seen: Place,
    step: Step,
    /// The pause before the next question, should this one fail as well.
    pause: Duration,
    /// It was told that nothing is heard.
    is_away: bool,
    /// The reasons that were told for that.
    reasons: Vec<String>,
}

/// How many reasons are told for one absence.
const REASONS: usize = 8;

impl Follow {
    /// Changes after `seen` are to be told. `is_away`: whoever is told knows that the cluster was not heard.
    pub fn new(seen: Place, is_away: bool) -> Self {
        Follow {
            seen,
            step: Step::Ask(Duration::ZERO),
            pause: FIRST_PAUSE,
            is_away,
            reasons: Vec::new(),
        }
    }

    /// What to do next.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// What has been told so far.
    #[must_use]
    pub fn seen(&self) -> Place {
        self.seen
    }

    /// Takes what was heard; what to tell, each with its place in the history.
    pub fn hear(&mut self, heard: Heard) -> Vec<(Place, WatchEvent)> {
        let at = self.seen;
        let placed = |event| (at, event);
        match (self.step, heard) {
            (Step::End, _) => Vec::new(),
            (_, Heard::At(place, then)) => match self.seen.leads_to(place, then) {
                Ok(()) => {
                    self.seen.term = place.term;
                    self.seen.fence = self.seen.fence.or(then);
                    self.step = Step::Begin(self.seen.revision + 1);
                    Vec::new()
                }
                Err(restored) => {
                    self.step = Step::End;
                    vec![placed(WatchEvent::Restored(restored))]
                }
            },
            (_, Heard::Begun) => {
                self.step = Step::Listen;
                self.pause = FIRST_PAUSE;
                self.reasons.clear();
                match std::mem::take(&mut self.is_away) {
                    true => vec![placed(WatchEvent::Back)],
                    false => Vec::new(),
                }
            }
            (_, Heard::Changes(commits)) => {
                let mut told = Vec::new();
                for (commit, fence) in commits {
                    // What a member repeats was told.
                    if commit.generation <= self.seen.revision {
                        continue;
                    }
                    self.seen.revision = commit.generation;
                    self.seen.fence = fence.or(self.seen.fence);
                    // One of ours that changes no record leaves its mark: whoever made it waits to hear of it.
                    if !commit.changes.is_empty() || fence.is_some() {
                        told.push((self.seen, WatchEvent::Commit(Arc::new(commit))));
                    }
                }
                told
            }
            (_, Heard::TooFarBehind) => {
                self.step = Step::End;
                vec![placed(WatchEvent::Lagged)]
            }
            (_, Heard::Broken(why)) => {
                let pause = match self.step {
                    // The first question after a watch broke is not put off: most often another member answers.
                    Step::Listen => Duration::ZERO,
                    _ => {
                        let pause = self.pause;
                        self.pause = (pause * 2).min(LONGEST_PAUSE);
                        pause
                    }
                };
                self.step = Step::Ask(pause);
                self.is_away = true;
                // A member that is there again may refuse us: that is what to do something about.
                if self.reasons.contains(&why) || self.reasons.len() >= REASONS {
                    return Vec::new();
                }
                self.reasons.push(why.clone());
                vec![placed(WatchEvent::Away(why))]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Changed;

    fn place(cluster: u64, term: u64, revision: Generation) -> Place {
        Place {
            cluster,
            term,
            revision,
            fence: Some(SEEN),
        }
    }

    /// The last commit of ours in these tests.
    const SEEN: Fence = Fence {
        revision: 8,
        mark: 5,
    };

    fn at(cluster: u64, term: u64, revision: Generation) -> Heard {
        Heard::At(place(cluster, term, revision), Some(SEEN))
    }

    fn commit(generation: Generation) -> Commit {
        let key = "vpcs/a".to_owned();
        Commit {
            generation,
            changes: vec![Changed::Deleted { key }],
        }
    }

    fn broken() -> Heard {
        Heard::Broken("gone".to_owned())
    }

    fn away() -> WatchEvent {
        WatchEvent::Away("gone".to_owned())
    }

    fn said(generation: Generation) -> WatchEvent {
        WatchEvent::Commit(Arc::new(commit(generation)))
    }

    fn told(follow: &mut Follow, heard: Heard) -> Vec<WatchEvent> {
        let told = follow.hear(heard);
        told.into_iter().map(|(_, event)| event).collect()
    }

    const AT_ONCE: Step = Step::Ask(Duration::ZERO);

    #[test]
    fn what_is_done_on_what_is_heard() {
        let listening = vec![at(1, 3, 12), Heard::Begun];
        let with = |more: Vec<Heard>| [listening.clone(), more].concat();
        let changes = |generations: &[u64]| {
            Heard::Changes(generations.iter().map(|g| (commit(*g), None)).collect())
        };
        let pause = |millis| Step::Ask(Duration::from_millis(millis));
        let restored = |found, other_cluster| {
            WatchEvent::Restored(Restored {
                seen: 10,
                found,
                other_cluster,
            })
        };
        // Each begins at revision 10 of cluster 1 in term 2.
        let table: Vec<(&str, Vec<Heard>, Vec<WatchEvent>, Step)> = vec![
            ("nothing yet", vec![], vec![], AT_ONCE),
            (
                "the same cluster",
                vec![at(1, 2, 10)],
                vec![],
                Step::Begin(11),
            ),
            ("further on", vec![at(1, 3, 12)], vec![], Step::Begin(11)),
            ("the watch begins", listening.clone(), vec![], Step::Listen),
            (
                "changes",
                with(vec![changes(&[11, 12])]),
                vec![said(11), said(12)],
                Step::Listen,
            ),
            (
                "repeated ones",
                with(vec![changes(&[9, 10, 11]), changes(&[11, 13])]),
                vec![said(11), said(13)],
                Step::Listen,
            ),
            ("a break", with(vec![broken()]), vec![away()], AT_ONCE),
            (
                "and no answer",
                with(vec![broken(), broken()]),
                vec![away()],
                pause(100),
            ),
            (
                "nor then",
                with(vec![broken(), broken(), broken()]),
                vec![away()],
                pause(200),
            ),
            (
                "and others",
                with(vec![
                    broken(),
                    Heard::Broken("refused".to_owned()),
                    broken(),
                    Heard::Broken("refused".to_owned()),
                ]),
                vec![away(), WatchEvent::Away("refused".to_owned())],
                pause(400),
            ),
            (
                "a break and back",
                with(vec![broken(), at(1, 3, 12), Heard::Begun, changes(&[12])]),
                vec![away(), WatchEvent::Back, said(12)],
                Step::Listen,
            ),
            (
                "a watch that does not begin",
                vec![at(1, 2, 10), broken()],
                vec![away()],
                pause(100),
            ),
            (
                "compacted",
                with(vec![Heard::TooFarBehind, changes(&[13])]),
                vec![WatchEvent::Lagged],
                Step::End,
            ),
            (
                "an older backup",
                vec![at(1, 2, 9)],
                vec![restored(9, false)],
                Step::End,
            ),
            (
                "an older backup that has moved on",
                vec![at(1, 1, 40)],
                vec![restored(40, false)],
                Step::End,
            ),
            (
                "another cluster",
                vec![at(5, 9, 40)],
                vec![restored(40, true)],
                Step::End,
            ),
            (
                "restored under way",
                with(vec![changes(&[12]), broken(), at(1, 3, 11)]),
                vec![
                    said(12),
                    away(),
                    WatchEvent::Restored(Restored {
                        seen: 12,
                        found: 11,
                        other_cluster: false,
                    }),
                ],
                Step::End,
            ),
        ];
        for (case, heard, events, step) in table {
            let mut follow = Follow::new(place(1, 2, 10), false);
            let events_told: Vec<WatchEvent> = heard
                .into_iter()
                .flat_map(|heard| told(&mut follow, heard))
                .collect();
            assert_eq!(events_told, events, "{case}");
            assert_eq!(follow.step(), step, "{case}");
        }
    }

    #[test]
    fn a_history_that_is_another_one_is_known_by_our_own_commits() {
        let other = |revision, mark| Some(Fence { revision, mark });
        for (case, fence, then, is_same) in [
            ("nothing new", SEEN, Some(SEEN), true),
            (
                "commits since",
                Fence {
                    revision: 11,
                    mark: 6,
                },
                Some(SEEN),
                true,
            ),
            (
                "compacted away",
                Fence {
                    revision: 11,
                    mark: 6,
                },
                None,
                true,
            ),
            (
                "another commit at the same revision",
                SEEN,
                other(8, 6),
                false,
            ),
            (
                "an earlier one",
                Fence {
                    revision: 11,
                    mark: 6,
                },
                other(4, 3),
                false,
            ),
            (
                "none newer, and the rest compacted away",
                Fence {
                    revision: 4,
                    mark: 3,
                },
                None,
                false,
            ),
        ] {
            let found = Place {
                fence: Some(fence),
                ..place(1, 2, 12)
            };
            assert_eq!(
                place(1, 2, 10).leads_to(found, then).is_ok(),
                is_same,
                "{case}"
            );
        }
    }

    #[test]
    fn each_commit_is_told_with_its_own_place() {
        let mut follow = Follow::new(place(1, 2, 10), false);
        follow.hear(at(1, 2, 12));
        follow.hear(Heard::Begun);
        let fence = Fence {
            revision: 12,
            mark: 9,
        };
        let changes = vec![
            (commit(11), None),
            (commit(12), Some(fence)),
            (commit(13), None),
        ];
        let told = follow.hear(Heard::Changes(changes));
        let places: Vec<_> = told
            .iter()
            .map(|(place, _)| (place.revision, place.fence))
            .collect();
        assert_eq!(
            places,
            [(11, Some(SEEN)), (12, Some(fence)), (13, Some(fence))]
        );
    }

    #[test]
    fn a_commit_of_ours_that_changes_nothing_is_told_and_others_are_not() {
        let mut follow = Follow::new(place(1, 2, 10), false);
        follow.hear(at(1, 2, 12));
        follow.hear(Heard::Begun);
        let nothing = |generation| Commit {
            generation,
            changes: Vec::new(),
        };
        let fence = Fence {
            revision: 12,
            mark: 9,
        };
        let changes = vec![(nothing(11), None), (nothing(12), Some(fence))];
        let told = follow.hear(Heard::Changes(changes));
        let told: Vec<_> = told.into_iter().map(|(_, event)| event).collect();
        assert_eq!(told, [WatchEvent::Commit(Arc::new(nothing(12)))]);
    }

    #[test]
    fn who_began_without_the_cluster_is_told_when_it_is_there() {
        let mut follow = Follow::new(place(1, 2, 10), true);
        // They know that it is away; the reason may be another one by now.
        assert_eq!(told(&mut follow, broken()), [away()]);
        assert_eq!(told(&mut follow, broken()), []);
        assert_eq!(told(&mut follow, at(1, 2, 10)), []);
        assert_eq!(told(&mut follow, Heard::Begun), [WatchEvent::Back]);
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let mut follow = Follow::new(place(1, 2, 10), false);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            follow.hear(broken());
            match follow.step() {
                Step::Ask(pause) => pauses.push(pause.as_millis()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
    }

    #[test]
    fn a_revision_without_records_is_seen_and_not_told() {
        let mut follow = Follow::new(place(1, 2, 10), false);
        follow.hear(at(1, 2, 12));
        follow.hear(Heard::Begun);
        let nothing = Commit {
            generation: 12,
            changes: Vec::new(),
        };
        assert_eq!(told(&mut follow, Heard::Changes(vec![(nothing, None)])), []);
        assert_eq!(follow.seen().revision, 12);
    }
}
