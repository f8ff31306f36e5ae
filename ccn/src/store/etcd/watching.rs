//! All that becomes of the store, as watches tell it, and what is done when they do not.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::super::{Changed, Commit, Generation, WatchEvent};
use super::connection::{Lent, Trouble};
use super::follow::{Fence, Follow, Heard, Place, Step};
use super::pages::end_of;
use super::{Inner, fence_of};
use crate::unique;

/// What a watch may say at once, in bytes; beyond it the store is read again.
const MOST_WATCHED: usize = 256 << 20;
/// How often a snapshot in which nothing changed is marked as current, and one that is broken is made anew.
const TEND_SNAPSHOT: Duration = Duration::from_secs(30);

impl Inner {
    /// Tells all that becomes of the store until nobody listens.
    pub(super) async fn follow(
        self: Arc<Self>,
        mut follow: Follow,
        events: mpsc::Sender<WatchEvent>,
    ) {
        let mut watching: Option<(Lent, WatchStream)> = None;
        let mut tend = Instant::now() + TEND_SNAPSHOT;
        loop {
            let next = async {
                match follow.step() {
                    Step::Ask(pause) => {
                        if let Some((lent, _)) = watching.take() {
                            self.connection.give_up(&lent);
                        }
                        sleep(spread(pause)).await;
                        match self.whereabouts(Some(follow.seen())).await {
                            Ok((place, then)) => Some(Heard::At(place, then)),
                            Err(trouble) => Some(broken(trouble)),
                        }
                    }
                    Step::Begin(from) => match self.begin(from).await {
                        Ok(begun) => {
                            watching = Some(begun);
                            Some(Heard::Begun)
                        }
                        Err(heard) => Some(heard),
                    },
                    Step::Listen => match &mut watching {
                        Some((_, stream)) => tokio::select! {
                            heard = self.listen(stream) => Some(heard),
                            () = tokio::time::sleep_until(tend) => None,
                        },
                        None => Some(Heard::Broken("there is no watch".to_owned())),
                    },
                    Step::End => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                heard = next => heard,
                () = events.closed() => return,
            };
            let Some(heard) = heard else {
                tend = Instant::now() + TEND_SNAPSHOT;
                self.tend_snapshot(follow.seen()).await;
                continue;
            };
            let told = follow.hear(heard);
            let at = follow.seen();
            if let Some(seen) = &mut *self.seen()
                && seen.revision < at.revision
            {
                *seen = at;
            }
            for (place, event) in told {
                let event = self.as_told(event);
                let kept = match &event {
                    WatchEvent::Commit(commit) => self.snapshot.as_ref().zip(Some(commit.clone())),
                    _ => None,
                };
                if events.send(event).await.is_err() {
                    return;
                }
                // Packets wait for what was told, and nobody for the snapshot.
                if let Some((snapshot, commit)) = kept {
                    snapshot.commit(place, commit).await;
                }
            }
        }
    }

    /// How an event is told, also in the log.
    fn as_told(&self, event: WatchEvent) -> WatchEvent {
        match event {
            // Whoever reads it again is told of it in the log.
            WatchEvent::Restored(_) if self.connection.config().follow_restored => {
                WatchEvent::Lagged
            }
            WatchEvent::Away(why) => {
                warn!(why, "the store is away");
                WatchEvent::Away(why)
            }
            WatchEvent::Back => {
                info!("the store is there again");
                WatchEvent::Back
            }
            other => other,
        }
    }

    async fn tend_snapshot(self: &Arc<Self>, seen: Place) {
        let Some(snapshot) = &self.snapshot else {
            return;
        };
        if snapshot.health().error.is_none() {
            return snapshot.current(seen).await;
        }
        let inner = self.clone();
        tokio::spawn(async move {
            // The snapshot takes its copy; nobody else wants one.
            if let Ok(mut reading) = inner.read().await {
                while let Some(Ok(_)) = reading.next().await {}
            }
        });
    }

    /// Opens a watch at this revision.
    async fn begin(&self, from: Generation) -> Result<(Lent, WatchStream), Heard> {
        let lent = self.connection.lend().await.map_err(broken)?;
        let options = WatchOptions::new()
            .with_range(end_of(&self.prefix))
            .with_start_revision(from.cast_signed());
        let opening = async {
            let mut client = lent
                .client()
                .watch_client()
                .max_decoding_message_size(MOST_WATCHED);
            let mut stream = client.watch(self.prefix.as_str(), Some(options)).await;
            let first = match &mut stream {
                Ok(stream) => self.listen(stream).await,
                Err(error) => broken(self.connection.trouble(error)),
            };
            match (stream, first) {
                // The first answer is that it was created, without any change.
                (Ok(stream), Heard::Changes(changes)) if changes.is_empty() => Ok(stream),
                (_, Heard::Changes(_)) => {
                    Err(Heard::Broken("the watch began with a change".to_owned()))
                }
                (_, heard) => Err(heard),
            }
        };
        let within = self.connection.config().timeout;
        let opened = timeout(within, opening).await;
        let opened = opened.unwrap_or_else(|_| {
            Err(Heard::Broken(format!(
                "no watch within {} ms",
                within.as_millis()
            )))
        });
        match opened {
            Ok(stream) => Ok((lent, stream)),
            Err(heard) => {
                self.connection.give_up(&lent);
                Err(heard)
            }
        }
    }

    /// The next that a watch says.
    async fn listen(&self, stream: &mut WatchStream) -> Heard {
        let said = stream.message().await;
        let said = said.map_err(|error| self.connection.trouble(&error));
        let said = match said.and_then(|said| self.connection.unless_ended(said)) {
            Ok(said) => said,
            Err(trouble) => return broken(trouble),
        };
        let mut commits: Vec<(Commit, Option<Fence>)> = Vec::new();
        for event in said.events() {
            let Some(kv) = event.kv() else {
                continue;
            };
            let generation = kv.mod_revision().cast_unsigned();
            if commits
                .last()
                .is_none_or(|(last, _)| last.generation != generation)
            {
                let changes = Vec::new();
                commits.push((
                    Commit {
                        generation,
                        changes,
                    },
                    None,
                ));
            }
            let Some((commit, fence)) = commits.last_mut() else {
                continue;
            };
            match event.event_type() {
                EventType::Put if kv.key() == self.fence().as_bytes() => {
                    *fence = Some(fence_of(kv))
                }
                EventType::Put => commit
                    .changes
                    .extend(self.stored(kv.clone()).map(Changed::Put)),
                EventType::Delete => {
                    let key = self.record_key(kv.key());
                    let gone = key.map(|key| Changed::Deleted {
                        key: key.into_owned(),
                    });
                    commit.changes.extend(gone);
                }
            }
        }
        Heard::Changes(commits)
    }
}

fn broken(trouble: Trouble) -> Heard {
    match trouble {
        Trouble::Away(detail) | Trouble::Refused(detail) => Heard::Broken(detail),
        Trouble::Compacted | Trouble::TooLarge => Heard::TooFarBehind,
    }
}

/// A pause, a quarter shorter to a quarter longer, so that those who lost the cluster together do not all come
/// back together.
fn spread(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + f64::from(unique::number() as u16) / f64::from(u16::MAX) / 2.0)
}
