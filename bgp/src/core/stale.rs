//! What is kept of a peer whose session is gone, because it said that it goes on forwarding: the
//! helper's side of graceful restart (RFC 4724 section 4.2, RFC 8538, RFC 9494).
//!
//! Decides which routes stay, marked how and until when; it keeps none of them itself.

use std::time::{Duration, Instant};

use super::rib::Rib;
use crate::config::PeerConfig;
use crate::fsm::Cause;
use crate::fsm::negotiate::Negotiated;
use crate::rib::attributes::RouteAttributes;
use crate::rib::interner::Interner;
use crate::rib::paths::{Flags, Path};
use crate::rib::select::Source;
use crate::rib::table::slot;
use crate::wire::{Cease, Community, Family};

/// How a session was lost, as far as it matters for what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nobody said anything: the peer may be restarting.
    Silent,
    /// With a NOTIFICATION, or for want of any word: so it is for those that agreed to RFC 8538.
    Told,
    /// For good.
    Final,
}

impl Loss {
    /// What kind of loss it is.
    pub(super) fn of(cause: &Cause) -> Loss {
        match cause {
            Cause::ConnectionLost(..) => Loss::Silent,
            Cause::Notified(_, said) if said.is_cease(Cease::HardReset) => Loss::Final,
            Cause::Notified(..)
            | Cause::HoldTimerExpired(..)
            | Cause::HeaderError(_)
            | Cause::OpenError(_)
            | Cause::UpdateError(_)
            | Cause::Unexpected(..) => Loss::Told,
            // We want it so, or know that it does not forward.
            _ => Loss::Final,
        }
    }

    fn keeps(self, negotiated: &Negotiated) -> bool {
        match self {
            Loss::Silent => true,
            Loss::Told => negotiated.survives_notification(),
            Loss::Final => false,
        }
    }
}

/// How long a peer that is back may take to send its End-of-RIB.
const END_OF_RIB_TIME: Duration = Duration::from_secs(360);

/// The stale routes of a peer, by family.
#[derive(Debug, Default)]
pub(super) struct Stale {
    families: [Option<Kept>; Family::ALL.len()],
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    until: Instant,
    /// How long they are kept after that.
    then: Duration,
}

impl Stale {
    /// The session with these terms is lost. Marks what is kept; what is not, is to be dropped.
    pub(super) fn lost(
        &mut self,
        loss: Loss,
        negotiated: &Negotiated,
        config: &PeerConfig,
        source: Source,
        rib: &mut Rib,
        now: Instant,
    ) {
        for family in Family::ALL {
            // Section 4.2: what is stale already has had its chance.
            sweep(rib, family, source);
            self.families[slot(family)] = None;
            if !loss.keeps(negotiated) || !negotiated.survives_restart(family) {
                continue;
            }
            rib.revise_of(family, source, mark);
            let restart = negotiated.graceful_restart.as_ref();
            let time = restart.map_or(0, |restart| restart.restart_time);
            let long_lived = negotiated.long_lived.iter();
            let theirs = long_lived
                .filter(|entry| entry.family.family() == Some(family))
                .map(|entry| Duration::from_secs(entry.stale_time.into()));
            let then = theirs.max().unwrap_or_default();
            self.families[slot(family)] = Some(Kept {
                until: now + Duration::from_secs(time.into()),
                then: then.min(config.capabilities.long_lived_stale_time),
            });
        }
    }

    /// Whether routes of the family are kept.
    pub(super) fn keeps(&self, family: Family) -> bool {
        self.families[slot(family)].is_some()
    }

    /// A new session is there. Families that it does not carry any more, or for which the peer has
    /// not gone on forwarding, are lost after all.
    pub(super) fn back(
        &mut self,
        negotiated: &Negotiated,
        source: Source,
        rib: &mut Rib,
        now: Instant,
    ) {
        for family in Family::ALL {
            let Some(kept) = &mut self.families[slot(family)] else {
                continue;
            };
            if negotiated.forwarding_preserved(family) {
                kept.until = now + END_OF_RIB_TIME;
                kept.then = Duration::ZERO;
            } else {
                self.families[slot(family)] = None;
                sweep(rib, family, source);
            }
        }
    }

    /// The peer begins to tell the family again (RFC 7313 section 4.1).
    pub(super) fn begin_refresh(
        &mut self,
        family: Family,
        source: Source,
        rib: &mut Rib,
        now: Instant,
    ) {
        rib.revise_of(family, source, mark);
        self.families[slot(family)] = Some(Kept {
            until: now + END_OF_RIB_TIME,
            then: Duration::ZERO,
        });
    }

    /// The peer has told the whole family.
    pub(super) fn end_of_rib(&mut self, family: Family, source: Source, rib: &mut Rib) {
        if self.families[slot(family)].take().is_some() {
            sweep(rib, family, source);
        }
    }

    /// Nothing is kept any more.
    pub(super) fn drop_all(&mut self, source: Source, rib: &mut Rib) {
        for family in Family::ALL {
            self.end_of_rib(family, source, rib);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let kept = self.families.iter().flatten();
        kept.map(|kept| kept.until).min()
    }

    /// Lets go what has been kept long enough.
    pub(super) fn timeout(&mut self, source: Source, rib: &mut Rib, now: Instant) {
        for family in Family::ALL {
            let Some(kept) = &mut self.families[slot(family)] else {
                continue;
            };
            if kept.until > now {
                continue;
            }
            if kept.then.is_zero() {
                self.families[slot(family)] = None;
                sweep(rib, family, source);
            } else {
                kept.until = now + kept.then;
                kept.then = Duration::ZERO;
                rib.revise_of(family, source, make_long_lived);
            }
        }
    }
}

/// The path stays, though the peer is gone.
fn mark(path: &mut Path, _: &mut Interner) -> bool {
    path.flags = path.flags.with(Flags::STALE);
    true
}

/// A stale path stays for long: as a last resort, and marked as such for others; save one that does
/// not want it (RFC 9494 section 4.2).
fn make_long_lived(path: &mut Path, interner: &mut Interner) -> bool {
    if !path.flags.contains(Flags::STALE) {
        return true;
    }
    let mut attributes = RouteAttributes::clone(interner.get(path.attributes));
    if attributes.communities.contains(&Community::NO_LLGR) {
        return false;
    }
    let communities = attributes.communities.iter().copied();
    attributes.communities = communities.chain([Community::LLGR_STALE]).collect();
    let marked = interner.intern(attributes);
    interner.release(std::mem::replace(&mut path.attributes, marked));
    path.flags = path.flags.with(Flags::LONG_LIVED);
    true
}

/// What is still stale goes.
fn sweep(rib: &mut Rib, family: Family, source: Source) {
    rib.withdraw_where(family, source, |path| path.flags.contains(Flags::STALE));
}
