//! AS numbers of 4 octets among peers that know only 2 (RFC 6793), and AS_PATH as octets.

use bytes::{BufMut, BytesMut};

use crate::wire::as_path::{AsPath, MAX_SEGMENT, Segment, SegmentKind};
use crate::wire::attribute::{AS_TRANS, Aggregator};
use crate::wire::error::Reason;

/// Octets of an AS number on this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// Towards a peer without the 4-octet AS capability.
    Two,
    /// Towards a peer with it, and in AS4_PATH.
    Four,
}

impl Width {
    pub(super) const fn of_session(four_octet_as: bool) -> Width {
        if four_octet_as {
            Width::Four
        } else {
            Width::Two
        }
    }

    pub(super) const fn octets(self) -> usize {
        match self {
            Width::Two => 2,
            Width::Four => 4,
        }
    }
}

/// Segment types of confederations (RFC 5065), which we are never part of.
const AS_CONFED_SEQUENCE: u8 = 3;
const AS_CONFED_SET: u8 = 4;

/// The value of an AS_PATH (RFC 7606 section 7.2, RFC 7607).
pub(super) fn parse_path(octets: &[u8], width: Width) -> Result<AsPath, Reason> {
    check_segments(octets, width, |kind| match SegmentKind::from_octet(kind) {
        Some(_) => Ok(()),
        None => Err(Reason::SegmentType(kind)),
    })?;
    Ok(match width {
        Width::Four => AsPath::from_checked_octets(octets.into()),
        Width::Two => AsPath::from_checked_octets(widened(octets)),
    })
}

/// The value of an AS4_PATH. Confederation segments are left out (RFC 6793 section 6).
pub(super) fn parse_as4_path(octets: &[u8]) -> Result<AsPath, Reason> {
    if octets.is_empty() {
        return Err(Reason::Length(0));
    }
    let mut confederation = false;
    check_segments(octets, Width::Four, |kind| match kind {
        AS_CONFED_SEQUENCE | AS_CONFED_SET => {
            confederation = true;
            Ok(())
        }
        kind => SegmentKind::from_octet(kind)
            .map(|_| ())
            .ok_or(Reason::SegmentType(kind)),
    })?;
    if !confederation {
        return Ok(AsPath::from_checked_octets(octets.into()));
    }
    let mut kept = Vec::with_capacity(octets.len());
    let mut rest = octets;
    while let [kind, count, ..] = *rest {
        let (segment, after) = rest.split_at(2 + usize::from(count) * 4);
        if SegmentKind::from_octet(kind).is_some() {
            kept.extend_from_slice(segment);
        }
        rest = after;
    }
    Ok(AsPath::from_checked_octets(kept.into()))
}

fn check_segments(
    octets: &[u8],
    width: Width,
    mut check_kind: impl FnMut(u8) -> Result<(), Reason>,
) -> Result<(), Reason> {
    let mut rest = octets;
    while !rest.is_empty() {
        let [kind, count, after @ ..] = rest else {
            return Err(Reason::SegmentOverrun);
        };
        check_kind(*kind)?;
        if *count == 0 {
            return Err(Reason::SegmentEmpty);
        }
        let (asns, after) = after
            .split_at_checked(usize::from(*count) * width.octets())
            .ok_or(Reason::SegmentOverrun)?;
        if asns
            .chunks_exact(width.octets())
            .any(|asn| asn.iter().all(|octet| *octet == 0))
        {
            return Err(Reason::AsZero);
        }
        rest = after;
    }
    Ok(())
}

/// Checked segments of 2-octet numbers as segments of 4-octet numbers.
fn widened(octets: &[u8]) -> Box<[u8]> {
    let mut wide = Vec::with_capacity(octets.len() * 2);
    let mut rest = octets;
    while let [kind, count, after @ ..] = rest {
        let (asns, after) = after.split_at(usize::from(*count) * 2);
        wide.extend_from_slice(&[*kind, *count]);
        for asn in asns.as_chunks::<2>().0 {
            wide.extend_from_slice(&[0, 0, asn[0], asn[1]]);
        }
        rest = after;
    }
    wide.into()
}

/// The path a 2-octet peer meant by its AS_PATH and AS4_PATH (RFC 6793 section 4.2.3).
///
/// The AS4_PATH replaces the tail of the AS_PATH, unless it is longer than the whole.
pub(super) fn merge(path: &AsPath, as4_path: &AsPath) -> AsPath {
    let (hops, as4_hops) = (path.hops(), as4_path.hops());
    if as4_hops == 0 || hops < as4_hops {
        return path.clone();
    }
    let mut lead = hops - as4_hops;
    let mut segments: Vec<(SegmentKind, Vec<u32>)> = Vec::new();
    for segment in path.segments() {
        if lead == 0 {
            break;
        }
        match segment.kind() {
            SegmentKind::Set => {
                lead -= 1;
                segments.push((SegmentKind::Set, segment.asns().collect()));
            }
            SegmentKind::Sequence => {
                let asns: Vec<u32> = segment.asns().take(lead).collect();
                lead -= asns.len();
                segments.push((SegmentKind::Sequence, asns));
            }
        }
    }
    let mut tail = as4_path.segments();
    // One sequence cut in two by the different widths becomes one again.
    if let (Some((SegmentKind::Sequence, last)), Some(first)) =
        (segments.last_mut(), tail.clone().next())
        && first.kind() == SegmentKind::Sequence
        && last.len() + first.len() <= MAX_SEGMENT
    {
        last.extend(first.asns());
        tail.next();
    }
    segments.extend(tail.map(|segment| (segment.kind(), segment.asns().collect())));
    AsPath::from_segments(segments.iter().map(|(kind, asns)| (*kind, asns.as_slice())))
}

/// The AGGREGATOR a 2-octet peer meant, and whether its AS4_PATH counts
/// (RFC 6793 section 4.2.3): an AGGREGATOR that is not AS_TRANS was set by someone on the way who
/// ignored both.
pub(super) fn merge_aggregator(
    aggregator: Option<Aggregator>,
    as4_aggregator: Option<Aggregator>,
) -> (Option<Aggregator>, bool) {
    match (aggregator, as4_aggregator) {
        (Some(old), Some(_)) if old.asn != u32::from(AS_TRANS) => (Some(old), false),
        (Some(_), Some(new)) => (Some(new), true),
        // An AS4_AGGREGATOR alone says nothing about an aggregate.
        (old, _) => (old, true),
    }
}

/// An AS number as a 2-octet peer sees it.
pub(super) fn narrowed(asn: u32) -> u16 {
    u16::try_from(asn).unwrap_or(AS_TRANS)
}

/// Whether a 2-octet peer sees the number itself.
pub(super) fn fits(asn: u32) -> bool {
    u16::try_from(asn).is_ok()
}

/// Appends the value of an AS_PATH.
pub(super) fn put_path(path: &AsPath, width: Width, out: &mut BytesMut) {
    match width {
        Width::Four => out.put_slice(path.octets()),
        Width::Two => {
            for segment in path.segments() {
                out.put_slice(&[segment.kind() as u8, segment_count(&segment)]);
                for asn in segment.asns() {
                    out.put_u16(narrowed(asn));
                }
            }
        }
    }
}

/// Octets that [`put_path`] writes.
pub(super) fn path_len(path: &AsPath, width: Width) -> usize {
    match width {
        Width::Four => path.octets().len(),
        Width::Two => path.segments().map(|segment| 2 + segment.len() * 2).sum(),
    }
}

/// A segment never holds more than 255 numbers.
fn segment_count(segment: &Segment<'_>) -> u8 {
    u8::try_from(segment.len()).unwrap_or(u8::MAX)
}

/// The value of an AGGREGATOR of this width, or of an AS4_AGGREGATOR.
pub(super) fn parse_aggregator(octets: &[u8], width: Width) -> Result<Aggregator, Reason> {
    let (asn, router_id) = match (width, octets) {
        (Width::Two, &[high, low, a, b, c, d]) => {
            (u32::from(u16::from_be_bytes([high, low])), [a, b, c, d])
        }
        (Width::Four, &[w, x, y, z, a, b, c, d]) => {
            (u32::from_be_bytes([w, x, y, z]), [a, b, c, d])
        }
        _ => return Err(Reason::Length(octets.len())),
    };
    match asn {
        0 => Err(Reason::AsZero),
        asn => Ok(Aggregator {
            asn,
            router_id: router_id.into(),
        }),
    }
}
