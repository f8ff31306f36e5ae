//! What one round tells, grouped by attributes and made into messages.

use bytes::{Bytes, BytesMut};

use super::{Dispatch, Told};
use crate::policy::ActionsId;
use crate::rib::export::ExportContext;
use crate::rib::interner::{AttributesId, Interner};
use crate::rib::paths::PathSource;
use crate::rib::select::{PeerIndex, Source};
use crate::rib::table::RouteId;
use crate::wire::{Family, Nlri, Prefix, WireOptions, pack};

/// Routes with equal keys go into the same messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(u128);

impl Key {
    // From the top: attributes (32 bits), source (16), actions (32), and the place (32).
    pub(super) fn new(attributes: AttributesId, told: Told) -> Key {
        let actions = u128::from(told.actions.number());
        Key(u128::from(attributes.get()) << 80
            | u128::from(told.source.get()) << 64
            | actions << 32)
    }

    fn attributes(self) -> Option<AttributesId> {
        AttributesId::from_number((self.0 >> 80) as u32)
    }

    fn source(self) -> PathSource {
        PathSource::new((self.0 >> 64) as u16)
    }

    fn actions(self) -> ActionsId {
        ActionsId::from_number((self.0 >> 32) as u32)
    }
}

/// Changes of one family, and then the messages about them.
#[derive(Debug)]
pub(super) struct Batch {
    family: Family,
    /// The key of each route announced, and its place.
    order: Vec<u128>,
    announced: Vec<(Nlri, RouteId)>,
    withdrawn: Vec<(Nlri, Option<PeerIndex>)>,
    withdrawn_from: Vec<(PeerIndex, Prefix)>,
    octets: Bytes,
    segments: Vec<Segment>,
}

/// Some of the messages.
#[derive(Debug)]
struct Segment {
    end: usize,
    messages: usize,
    /// Who must not see them: the routes in them are its own.
    hidden_from: Option<PeerIndex>,
}

impl Batch {
    pub(super) fn new(family: Family) -> Batch {
        Batch {
            family,
            order: Vec::new(),
            announced: Vec::new(),
            withdrawn: Vec::new(),
            withdrawn_from: Vec::new(),
            octets: Bytes::new(),
            segments: Vec::new(),
        }
    }

    /// The route comes. `id` is what comes back if it cannot be told.
    pub(super) fn announce(&mut self, key: Key, nlri: Nlri, id: RouteId) {
        self.order.push(key.0 | self.announced.len() as u128);
        self.announced.push((nlri, id));
    }

    /// The route goes, at everybody but its source.
    pub(super) fn withdraw(&mut self, nlri: impl Into<Nlri>, hidden_from: Option<PeerIndex>) {
        self.withdrawn.push((nlri.into(), hidden_from));
    }

    /// The route goes at one member only.
    pub(super) fn withdraw_from(&mut self, member: PeerIndex, prefix: Prefix) {
        self.withdrawn_from.push((member, prefix));
    }

    /// Makes the messages. What can be told in none is withdrawn, and its numbers come back.
    pub(super) fn write(
        &mut self,
        context: &ExportContext,
        interner: &Interner,
        as_member: impl Fn(PathSource) -> Option<PeerIndex>,
    ) -> Vec<(Nlri, RouteId)> {
        self.order.sort_unstable();
        let mut announced = BytesMut::with_capacity(self.announced.len() * 16);
        let mut segments = Vec::new();
        let mut failed = Vec::new();
        for run in self.order.chunk_by(|a, b| a >> 32 == b >> 32) {
            let key = Key(run[0]);
            let Some(attributes) = key.attributes() else {
                continue;
            };
            let routes = || {
                run.iter()
                    .map(|entry| self.announced[*entry as u32 as usize])
            };
            let words = context.reword(
                self.family,
                interner.get(attributes),
                Source::from(key.source()),
                key.actions(),
            );
            let packed = pack::announce(
                self.family,
                words.next_hop,
                &words.to_wire(),
                routes().map(|(nlri, _)| nlri),
                &context.options,
                &mut announced,
            );
            let hidden_from = as_member(key.source());
            match packed {
                Ok(messages) => push_segment(&mut segments, announced.len(), messages, hidden_from),
                // No message can carry these attributes: better no route than a wrong one.
                Err(_) => {
                    for (nlri, id) in routes() {
                        failed.push((nlri, id));
                        self.withdrawn.push((nlri, hidden_from));
                    }
                }
            }
        }

        // Withdrawals first: they make room at the peer.
        let mut octets = BytesMut::new();
        self.withdrawn.sort_by_key(|(_, hidden_from)| *hidden_from);
        for run in self.withdrawn.chunk_by(|a, b| a.1 == b.1) {
            let nlri = run.iter().map(|(nlri, _)| *nlri);
            // Fails only for prefixes of another family.
            let messages = pack::withdraw(self.family, nlri, &context.options, &mut octets);
            let messages = messages.unwrap_or(0);
            push_segment(&mut self.segments, octets.len(), messages, run[0].1);
        }
        let first = octets.len();
        octets.unsplit(announced);
        for segment in segments {
            let end = first + segment.end;
            push_segment(
                &mut self.segments,
                end,
                segment.messages,
                segment.hidden_from,
            );
        }
        self.octets = octets.freeze();
        failed
    }

    /// Hands the messages to a member, save those it must not see.
    pub(super) fn dispatch(&self, peer: PeerIndex, options: &WireOptions, out: &mut Vec<Dispatch>) {
        let private = self
            .withdrawn_from
            .iter()
            .filter(|(member, _)| *member == peer);
        let private: Vec<Nlri> = private.map(|(_, prefix)| (*prefix).into()).collect();
        if !private.is_empty() {
            let mut octets = BytesMut::new();
            let messages = pack::withdraw(self.family, private, options, &mut octets).unwrap_or(0);
            let octets = octets.freeze();
            out.push(Dispatch {
                peer,
                octets,
                messages,
            });
        }
        let mut start = 0;
        let mut end = 0;
        let mut messages = 0;
        let mut hand_over = |start, end, messages| {
            if start < end {
                let octets = self.octets.slice(start..end);
                out.push(Dispatch {
                    peer,
                    octets,
                    messages,
                });
            }
        };
        for segment in &self.segments {
            if segment.hidden_from == Some(peer) {
                hand_over(start, end, messages);
                start = segment.end;
                messages = 0;
            } else {
                messages += segment.messages;
            }
            end = segment.end;
        }
        hand_over(start, end, messages);
    }
}

fn push_segment(
    segments: &mut Vec<Segment>,
    end: usize,
    messages: usize,
    hidden_from: Option<PeerIndex>,
) {
    match segments.last_mut() {
        Some(last) if last.hidden_from == hidden_from => {
            last.end = end;
            last.messages += messages;
        }
        _ => segments.push(Segment {
            end,
            messages,
            hidden_from,
        }),
    }
}
